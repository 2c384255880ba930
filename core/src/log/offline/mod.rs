//! Files of a stopped node as they lie, for people: every byte is some piece, sound or not.
//!
//! A file is cut into [`Piece`]s by the parsers that recovery and readers use. What cannot be told
//! is a piece, too, so that nothing is passed over and nothing can make this end early. Decides
//! nothing: which damage matters is recovery's word for a journal, and [`Audit`]'s for segments.
//! Changes nothing, and allocates nothing on the word of a byte that has no sum.
//!
//! | file | noun |
//! | --- | --- |
//! | `window` | a large file, read in pieces; sectors that cannot be read |
//! | `journal` | a journal's file as flushes and what lies between |
//! | `segment` | a segment's file as its head, blocks, footer and what lies between |
//! | `audit` | one log's segments: that they are one chain, without a hole |
//! | `rebuild` | a damaged segment's file, made anew |

mod audit;
mod journal;
mod rebuild;
mod segment;
mod window;

use bytes::Bytes;

use super::block::{BlockError, BlockHeader};
use super::checkpoint::Checkpoint;
use super::flush::{FlushError, FlushHeader};
use super::footer::SegmentFooter;
use super::recovery::DiskFault;
use super::segment::{SegmentError, SegmentHeader, SegmentState};
use super::{Doubt, HardState};
use crate::id::{GroupId, Lsn};

pub use audit::{Audit, End, Fault, FaultKind, Findings};
pub use journal::JournalPieces;
pub use rebuild::{Missing, Rebuild, RebuildError, SegmentEnd};
pub use segment::SegmentPieces;

/// Reads up to `size` bytes at a position: fewer only where the file ends.
pub type Read<'r> = dyn FnMut(u64, usize) -> Result<Bytes, DiskFault> + 'r;

/// A part of a file. Pieces follow each other without gaps, from the file's start to its end.
#[derive(Clone, Debug)]
pub struct Piece {
    /// Byte of the file that it begins at.
    pub position: u64,
    /// Its bytes.
    pub size: u64,
    /// What it is.
    pub what: What,
}

/// What a piece is.
#[derive(Clone, Debug)]
pub enum What {
    /// A flush whose header is sound; of a journal.
    Flush(FlushPiece),
    /// A segment's first sector.
    Head(Result<SegmentHeader, SegmentError>),
    /// What a segment's head says of the log besides.
    State(Result<SegmentState, SegmentError>),
    /// The end of a sealed segment.
    Footer(Result<SegmentFooter, SegmentError>),
    /// A block; of a segment.
    Block(BlockPiece),
    /// Zeros: padding, or never written.
    Zeros,
    /// Bytes that are none of these. In a journal most often the rest of an older flush.
    Unknown,
    /// Bytes that the disk does not give.
    Unreadable(DiskFault),
}

/// A flush whose header is sound.
#[derive(Clone, Debug)]
pub struct FlushPiece {
    /// Its header.
    pub header: FlushHeader,
    /// Why it is not whole; none if every sum of it is right.
    pub error: Option<FlushError>,
    /// Whether the second copy of its votes is as it should be; none if it has no votes, or if it
    /// cannot be told.
    pub copy_is_sound: Option<bool>,
    /// Its items, as far as they can be told apart.
    pub items: Vec<ItemPiece>,
}

/// An item of a flush.
#[derive(Clone, Debug)]
pub struct ItemPiece {
    /// Byte of the flush that it begins at.
    pub offset: u32,
    /// All its bytes, or what the flush has of them.
    pub bytes: Bytes,
    /// What it says; with the group it claims where that can be read but not be believed.
    pub item: Result<ItemSeen, (FlushError, Option<GroupId>)>,
}

/// A sound item.
#[derive(Clone, Debug)]
pub enum ItemSeen {
    /// A block.
    Block(BlockHeader),
    /// A term and a vote.
    HardState {
        /// Whose.
        group: GroupId,
        /// The term and the vote.
        hard: HardState,
        /// What it may have forgotten.
        doubt: Doubt,
    },
    /// A checkpoint.
    Checkpoint(Checkpoint),
    /// The places where earlier recoveries found something lost, and dealt with it.
    Scars(Vec<Lsn>),
}

/// A block in a segment.
#[derive(Clone, Debug)]
pub struct BlockPiece {
    /// Its header. Not to be believed if there is an error.
    pub header: BlockHeader,
    /// All its bytes.
    pub bytes: Bytes,
    /// Why it is not sound; none if every sum of it is right.
    pub error: Option<BlockError>,
}
