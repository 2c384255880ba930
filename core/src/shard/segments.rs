//! One log's segments as this shard plans them: which file is written, how far it is synced, and
//! where in it a reader begins. Files themselves are net's.
//!
//! Committed blocks wait in the journal until enough of them make one large write. The write is
//! durable before a checkpoint says so, and the checkpoint is durable before the journal forgets.

use bytes::Bytes;

use crate::id::{Index, Lsn, Offset, Term};
use crate::limits::{SECTOR_SIZE, SEGMENT_SIZE_MAX};
use crate::log::Checkpoint;

use super::effects::SegmentWriteId;

/// A place in a segment at which a block begins, and what comes before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Point {
    pub(super) number: u32,
    pub(super) position: u64,
    pub(super) prev_index: Index,
    pub(super) prev_term: Term,
    /// Offset of the first record at or after this place.
    pub(super) next_offset: Offset,
}

/// How far a gathered write has come.
#[derive(Debug)]
pub(super) enum Stage {
    Idle,
    /// Blocks that the cache has lost are being read from the journal.
    Gathering(Gather),
    /// On its way to the disk; what the checkpoint will say once it is there.
    Writing { write: SegmentWriteId, checkpoint: Checkpoint },
    /// The checkpoint is in the run at this lsn.
    Checkpointing { lsn: Lsn, through: Index },
}

/// Blocks collected for one write.
#[derive(Debug, Default)]
pub(super) struct Gather {
    pub(super) slices: Vec<Bytes>,
    pub(super) size: usize,
    pub(super) through: Index,
}

/// One log's segments.
#[derive(Debug)]
pub(super) struct Segments {
    /// Synced size of every segment, by number; the last is the active one.
    sizes: Vec<u64>,
    /// By ascending position: one per write since the start, and one per segment from its header.
    points: Vec<Point>,
    pub(super) stage: Stage,
}
