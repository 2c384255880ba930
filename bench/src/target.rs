//! `Target`: what takes appends. A cluster through its client, or a fake whose delays are known.
//!
//! Knows no schedule and measures nothing: the generator does. Hop "client" of the data path.

use std::future::Future;

use bytes::Bytes;
use ringwood_core::frame::code::NotCommittedReason;

/// How an append ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is in the log for good.
    Committed {
        /// Term of the block that holds it: a change of leader shows as a change of it.
        term: u64,
    },
    /// It is not in the log and never will be.
    NotCommitted(NotCommittedReason),
    /// Nobody could tell.
    Unknown,
}

/// Takes appends, many at a time. Used by one thread.
pub trait Target {
    /// An append on its way. Those of one log end in the order in which they were offered; one
    /// that does not is seen to end when those before it have.
    type Pending: Future<Output = Outcome> + Unpin;

    /// Hands over one record for the log of that number. Ready at once where there is room, and
    /// as soon as there is where there is none: the wait counts as latency.
    fn offer(&self, log: usize, record: Bytes) -> impl Future<Output = Self::Pending>;
}
