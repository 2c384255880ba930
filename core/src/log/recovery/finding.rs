//! What recovery says of a journal: what was not as a clean stop leaves it, and why it cannot be used.

use std::fmt;

use super::DiskFault;
use crate::id::{GroupId, Index, Lsn};

/// What was not as a clean stop leaves it. For people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finding {
    /// Flushes from here on were never promised and are dropped.
    Dropped {
        /// Where the dropped part begins.
        lsn: Lsn,
    },
    /// A flush was mended from the second copy of its votes.
    Mended {
        /// Where it lies.
        lsn: Lsn,
    },
    /// A flush is whole, but the second copy of its votes is not.
    VoteCopyLost {
        /// Where it lies.
        lsn: Lsn,
    },
    /// A file that is not needed any more is partly written over.
    Skipped {
        /// Its number.
        file: u64,
    },
    /// A promised flush is damaged; what is whole of it was taken.
    Salvaged {
        /// Where it lies.
        lsn: Lsn,
    },
    /// Promised flushes are lost.
    Gap {
        /// Where the first began.
        from: Lsn,
        /// Where the journal goes on.
        to: Lsn,
    },
    /// Sectors could not be read.
    Unreadable {
        /// File of the ring.
        slot: u32,
        /// Byte position of the first of them in it.
        position: u64,
        /// How many there are, in all files.
        count: usize,
    },
}

/// Why a journal cannot be used. Nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecoveryError {
    /// A whole file cannot be read, or what can be read holds nothing: the disk is at fault.
    Unreadable {
        /// File of the ring.
        slot: u32,
        /// Byte position in it.
        position: u64,
        /// What the system said.
        fault: DiskFault,
    },
    /// A file is shorter than the ring says.
    Short {
        /// File of the ring.
        slot: u32,
        /// Byte position that could not be read in full.
        position: u64,
    },
    /// What was promised is not there, and nothing else of the journal is either.
    Damaged {
        /// File of the ring.
        slot: u32,
        /// Byte position in it.
        position: u64,
    },
    /// The journal is another node's.
    Foreign {
        /// File of the ring.
        slot: u32,
        /// The mark found.
        node_tag: u32,
    },
    /// Every flush is whole, but what they say of a group cannot be true: blocks are missing or do
    /// not follow each other.
    Contradiction {
        /// The group.
        group: GroupId,
        /// The first block in question; 0 for a hard state.
        index: Index,
    },
    /// The ring has not one sector left to open a life in.
    Full,
}

impl fmt::Display for RecoveryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable {
                slot,
                position,
                fault,
            } => {
                write!(
                    f,
                    "journal file {slot} cannot be read at {position}: errno {}",
                    fault.errno
                )
            }
            Self::Short { slot, position } => {
                write!(f, "journal file {slot} ends before {position}")
            }
            Self::Damaged { slot, position } => {
                write!(
                    f,
                    "journal file {slot} is damaged at {position}: promised bytes are lost"
                )
            }
            Self::Foreign { slot, node_tag } => {
                write!(
                    f,
                    "journal file {slot} is another node's (mark {node_tag:#010x})"
                )
            }
            Self::Contradiction { group, index } => {
                write!(
                    f,
                    "the journal contradicts itself: group {group}, block {index}"
                )
            }
            Self::Full => f.write_str("the journal has no room to be opened"),
        }
    }
}

impl std::error::Error for RecoveryError {}
