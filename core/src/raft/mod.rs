//! Consensus of one group: who leads, and which blocks are decided.

pub mod quorum;
