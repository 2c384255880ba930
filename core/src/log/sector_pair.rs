//! A file of two sectors that are written in turn, the next only when the one before is durable: a
//! crash damages one of them at most. Keeps what the sectors of each such file begin with.
//!
//! ```text
//!  0       4     8         9      12         16
//!  | magic | sum | version | zero | node tag | what the file says, and zeros to the sector's end
//! ```
//! Does not know what a file says, nor which of its sectors is the newer.

use super::fields::{all_zero, put_u32, u32_at};
use crate::frame::sum::Sum;
use crate::limits::SECTOR_SIZE;

/// Bytes of such a file.
pub(super) const SECTOR_PAIR_SIZE: usize = 2 * SECTOR_SIZE;

const SUM_AT: usize = 4;
const VERSION_AT: usize = SUM_AT + 4;
const NODE_TAG_AT: usize = VERSION_AT + 4;

/// Where begins what a file says.
pub(super) const BODY_AT: usize = NODE_TAG_AT + 4;

/// By what a file of one kind is told from others.
pub(super) struct SectorKind {
    pub(super) magic: u32,
    pub(super) version: u8,
    /// Where ends what a sector says.
    pub(super) end_at: usize,
}

impl SectorKind {
    /// Puts what a sector begins with before what it says, which is there.
    pub(super) fn seal(&self, bytes: &mut [u8; SECTOR_SIZE], node_tag: u32) {
        put_u32(bytes, 0, self.magic);
        bytes[VERSION_AT] = self.version;
        put_u32(bytes, NODE_TAG_AT, node_tag);
        let sum = sum_of(bytes);
        put_u32(bytes, SUM_AT, sum);
    }

    /// Whether a sector is one of this kind and of this node, as it was written.
    pub(super) fn is_sound(&self, bytes: &[u8], node_tag: u32) -> bool {
        bytes.len() == SECTOR_SIZE
            && u32_at(bytes, 0) == self.magic
            && u32_at(bytes, SUM_AT) == sum_of(bytes)
            && bytes[VERSION_AT] == self.version
            && u32_at(bytes, NODE_TAG_AT) == node_tag
            && all_zero(&bytes[VERSION_AT + 1..NODE_TAG_AT])
            && all_zero(&bytes[self.end_at..])
    }
}

/// What the sectors of a file say, those of which `check` says anything, and which they are.
pub(super) fn sound_sectors<T>(
    file: &[u8],
    check: impl Fn(&[u8]) -> Option<T>,
) -> impl Iterator<Item = (T, usize)> {
    let sectors = file.chunks(SECTOR_SIZE).take(2).zip(0..);
    sectors.filter_map(move |(bytes, at)| Some((check(bytes)?, at)))
}

fn sum_of(bytes: &[u8]) -> u32 {
    let mut sum = Sum::new();
    sum.update(&bytes[..SUM_AT]);
    sum.update(&bytes[VERSION_AT..]);
    sum.value()
}
