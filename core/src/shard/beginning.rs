//! Where the first segment of a trimmed log may begin anew. Its file may hold blocks from below the
//! log's start, which all others have deleted with their files; or it is gone, and nothing here tells
//! where it began. Neither keeps what stands behind the start from being written anew: the new file
//! begins with the block that holds the start.
//!
//! What the log was just before that block nobody has on disk. But each replica's first segment
//! begins at that block or before it, and its head says what the log was there; the blocks in between
//! tell the rest.
//!
//! ```text
//!  lost, or below the start ─▶ asked of peers ─▶ trimmed, and the head of their first segment
//!
//!    a peer's head      the block that holds the start             the segment's last block
//!    ▼                  ▼                                          ▼
//!    │═ read, not kept ═│════════════ the new file ════════════════│
//! ```
//! Keeps a head as it was told, and what the log was as far as it was read. A head is believed as a
//! leader's is that restores, and only as far as the block behind it names the one before. Knows no
//! file and no peer.

use bytes::BytesMut;

use crate::id::{GroupId, Index, NodeId, Offset};
use crate::log::block::Block;
use crate::log::producers::Producers;
use crate::log::segment::{SEGMENT_HEADER_SIZE, SegmentHeader, SegmentState, StatePlace};

use super::Config;
use super::group::Group;
use super::walk::Before;

/// Where some replica's log begins.
#[derive(Clone, Debug)]
pub(super) struct Beginning {
    /// The block before its first.
    pub(super) before: Before,
    /// What the log was there.
    pub(super) state: SegmentState,
}

impl Beginning {
    /// What one copy of a head of this group's says, if it is one whose state is known.
    pub(super) fn check(config: &Config, group: GroupId, bytes: &[u8]) -> Option<Self> {
        let header = SegmentHeader::check(bytes).ok()?;
        let state = SegmentState::check(&header, &bytes[SEGMENT_HEADER_SIZE..]).ok()?;
        let is_ours = (header.cluster, header.group) == (config.cluster, group);
        let is_whole = bytes.len() == header.state.copy_size() && header.state.is_known();
        (is_ours && is_whole).then(|| Self {
            before: Before::of_segment(&header),
            state,
        })
    }

    /// Whether a file that begins here has all that the log serves, and a block at least.
    pub(super) fn is_below(&self, start: Offset, last: Index) -> bool {
        self.before.next_offset <= start && self.before.index < last
    }
}

impl Group {
    /// Whether blocks from behind the start on stood in a segment of which is not known where it began:
    /// it counts as empty.
    pub(super) fn is_front_lost(&self) -> bool {
        let first = self.segments.map.first();
        first.is_some_and(|first| first.header.first_offset > self.trims.start())
    }

    /// Whether a segment may be written anew from a later block on: it is the first, and what came
    /// before it comes never back.
    pub(super) fn may_begin_anew(&self, number: u32) -> bool {
        let is_trimmed = self.trims.start() > Offset(0) && self.removal.is_none();
        is_trimmed && number == self.segments.map.first_number()
    }
}

/// What the log is, block by block, up to the one that a file begins with.
#[derive(Debug)]
pub(super) struct LeadIn {
    producers: Producers,
    voters: Vec<NodeId>,
    start: Offset,
    /// The segment's last block, which is kept wherever the start is.
    last: Index,
    /// There is no room for what the log was.
    is_mute: bool,
}

impl LeadIn {
    pub(super) fn new(from: Beginning, start: Offset, last: Index, is_mute: bool) -> Self {
        let Beginning { before, state } = from;
        Self {
            producers: Producers::new(state.producers, before.index),
            voters: state.voters,
            start,
            last,
            is_mute,
        }
    }

    /// Takes a block that is not kept. False if it is the one to begin with.
    pub(super) fn pass(&mut self, block: &Block<'_>) -> bool {
        let header = block.header();
        if header.next_offset() > self.start || header.index == self.last {
            return false;
        }
        self.producers.note_block(block);
        self.producers.settle_through(header.index);
        true
    }

    /// The head of a file that begins behind `before`, of which `header` says all but that.
    pub(super) fn head(
        mut self,
        before: &Before,
        header: &SegmentHeader,
    ) -> (SegmentHeader, BytesMut) {
        let state = SegmentState {
            voters: self.voters,
            producers: self.producers.snapshot_at(before.index),
        };
        let (place, bytes) = match self.is_mute {
            true => (StatePlace::NONE, BytesMut::new()),
            false => state.encode(before.index, before.term),
        };
        let header = SegmentHeader {
            first_index: before.index.next(),
            first_offset: before.next_offset,
            previous_term: before.term,
            previous_sum: before.sum,
            state: place,
            ..*header
        };
        (header, bytes)
    }
}
