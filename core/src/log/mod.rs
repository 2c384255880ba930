//! What a replica keeps: the undecided tail and the promises it made.
//!
//! Knows no file and no peer.

pub mod tail;

pub use tail::{Base, Entry, Tail};

use crate::id::{Lsn, NodeId, Term};

/// Where a block begins: the run it was written in, and its byte offset in that run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// Start of the run in the shard's journal.
    pub lsn: Lsn,
    /// Bytes from the run's start.
    pub offset: u32,
}

/// What a voter must not forget (thesis 3.8): its term, and whom it voted for in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HardState {
    /// Highest term seen.
    pub term: Term,
    /// The candidate this node voted for in `term`.
    pub vote: Option<NodeId>,
}
