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
//! | `verdict`, `replay`, `recovery`, `recovered` | what a crash left, what it means, and what a journal is opened with |
//! | `seen`, `salvage`, `scars`, `pieces` | the same where a disk has lost what it promised |
//! | `tail`, `producers`, `trims` | what a group remembers of its blocks |
//! | `segment`, `footer` | how a file of committed blocks begins and ends |
//! | `persist` | how far the journal was durable when it last stood still |
//! | `pins` | which directories this node has known, its own among them |
//! | `sector_pair` | what these two begin with, and why they have two sectors |
//! | `offline` | all of these files as they lie, for people |

pub mod arena;
pub mod block;
pub mod builder;
pub mod checkpoint;
pub mod flush;
pub mod footer;
pub mod journal;
pub mod offline;
pub mod persist;
pub mod pieces;
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
mod salvage;
mod scars;
mod sector_pair;
mod seen;
#[cfg(test)]
mod test_rng;
mod verdict;
mod votes;

pub use journal::{Journal, Store, WriteId};
pub use tail::{Base, Entry, Tail};

use std::fmt;

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

/// What of its promises a voter may have forgotten, because its disk has lost something that it had
/// stored. Whoever is in doubt counts as absent where those promises matter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Doubt {
    /// The log may have had more blocks at its end, or others.
    pub log: bool,
    /// There may have been a higher term, or a vote in this one.
    pub vote: bool,
    /// Blocks are missing that are known by sum.
    pub holes: bool,
}

impl fmt::Display for Doubt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = [
            (self.log, "log"),
            (self.vote, "vote"),
            (self.holes, "holes"),
        ];
        let words: Vec<_> = words.iter().filter(|(is_so, _)| *is_so).collect();
        let words: Vec<&str> = words.iter().map(|(_, word)| *word).collect();
        f.write_str(&words.join(", "))
    }
}

impl Doubt {
    /// Everything.
    pub const ALL: Self = Self {
        log: true,
        vote: true,
        holes: true,
    };

    /// Anything at all.
    #[must_use]
    pub fn is_any(self) -> bool {
        self.lacks_blocks() || self.vote
    }

    /// Whether blocks are missing, or may be.
    #[must_use]
    pub fn lacks_blocks(self) -> bool {
        self.log || self.holes
    }

    /// As a byte, for disk and wire.
    pub(crate) fn code(self) -> u8 {
        u8::from(self.log) | u8::from(self.vote) << 1 | u8::from(self.holes) << 2
    }

    /// From a byte; none if it has another meaning.
    pub(crate) fn from_code(code: u8) -> Option<Self> {
        (code < 8).then_some(Self {
            log: code & 1 != 0,
            vote: code & 2 != 0,
            holes: code & 4 != 0,
        })
    }
}
