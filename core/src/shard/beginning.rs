//! Where a trimmed log begins, as the head of some replica's first segment says: the block before, and
//! what the log was there. It is told a follower that is below its leader's start, and whoever asks for
//! blocks that were trimmed. Knows no file and no peer.

use crate::id::GroupId;
use crate::log::segment::{SEGMENT_HEADER_SIZE, SegmentHeader, SegmentState};

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
}

impl Group {
    /// Whether blocks from behind the start on stood in a segment of which is not known where it began:
    /// it counts as empty.
    pub(super) fn is_front_lost(&self) -> bool {
        let first = self.segments.map.first();
        first.is_some_and(|first| first.header.first_offset > self.trims.start())
    }
}
