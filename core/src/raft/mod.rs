//! Consensus of one group: who leads, and which blocks are decided.

mod conflict;
pub mod quorum;
mod timer;

pub use timer::Timeouts;
