//! What a replica keeps: the journal shared by a shard's groups, the tail of each group that is not
//! yet in segments, the segments, and the memory of producers.
//!
//! No file is opened here: writes leave as [`Store`] values and come back as completions, and
//! recovery reads through a closure, so the code that ships is the code that is simulated. Hops
//! *block*, *store* and *segment* of the data path.
//!
//! | file | noun |
//! | --- | --- |
//! | `block`, `builder` | the Raft entry as bytes; the one copy of a payload |
//! | `item`, `checkpoint` (`producer_table`) | what else stands in a journal |
//! | `ring`, `arena`, `cache` | where runs lie: on disk, in memory |
//! | `flush`, `votes`, `journal` (`flights`, `grants`) | a run made durable; its votes; the writer |
//! | `verdict`, `replay`, `recovery` | what a crash left, and what it means |
//! | `tail`, `producers`, `trims` | what a group remembers of its blocks |
//! | `segment`, `footer` | how a file of committed blocks begins and ends |
//! | `pins` | which directories this node has known, its own among them |
//! | `offline` | all of these files as they lie, for people |

pub mod arena;
pub mod block;
pub mod builder;
pub mod checkpoint;
pub mod flush;
pub mod footer;
pub mod journal;
pub mod offline;
pub mod pins;
pub mod producers;
pub mod recovery;
pub mod ring;
pub mod segment;
pub mod tail;
pub mod trims;

mod cache;
mod fields;
mod flights;
mod grants;
mod item;
mod producer_table;
mod recovered;
mod replay;
#[cfg(test)]
mod test_rng;
mod verdict;
mod votes;

pub use journal::{Journal, Store, WriteId};
pub use tail::{Base, Entry, Tail};

use crate::id::{Lsn, NodeId, Term};

/// Where a block begins: the run it was written in, and its byte offset in that run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// Start of the run in the shard's journal.
    pub lsn: Lsn,
    /// Bytes from the run's start; a multiple of 16.
    pub offset: u32,
}

/// What a voter must not forget (thesis 3.8): its term, and whom it voted for in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct HardState {
    /// Highest term seen.
    pub term: Term,
    /// The candidate this node voted for in `term`. Never node 0.
    pub vote: Option<NodeId>,
}
