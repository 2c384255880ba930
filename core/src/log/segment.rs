//! A segment file's first sector: whose blocks it holds, and from where on.
//!
//! Keeps the layout. Knows no block and no other segment. Hop *segment* of the data path.
//!
//! ```text
//!  0       4     8         9      12         16        32      36        40
//!  | magic | sum | version | zero | node tag | cluster | group | segment | ...
//!  40            48             56              64             68
//!  | first index | first offset | previous term | previous sum | zeros to the sector's end
//! ```
//! Behind it lie the group's blocks as they are everywhere, gathered in writes that are each padded
//! with zeros to a sector. The file is only ever appended to.

use std::fmt;

use super::fields::{all_zero, put_u32, put_u64, u32_at, u64_at};
use crate::frame::sum::{Sum, crc32c};
use crate::id::{ClusterId, GroupId, Index, Offset, Term};
use crate::limits::SECTOR_SIZE;

/// Bytes in front of a segment's first block.
pub const SEGMENT_HEADER_SIZE: usize = SECTOR_SIZE;

const MAGIC: u32 = u32::from_le_bytes(*b"RWSG");
const VERSION: u8 = 1;

const SUM_AT: usize = 4;
const VERSION_AT: usize = SUM_AT + 4;
const NODE_TAG_AT: usize = VERSION_AT + 4;
const CLUSTER_AT: usize = NODE_TAG_AT + 4;
const GROUP_AT: usize = CLUSTER_AT + 16;
const SEGMENT_AT: usize = GROUP_AT + 4;
const FIRST_INDEX_AT: usize = SEGMENT_AT + 4;
const FIRST_OFFSET_AT: usize = FIRST_INDEX_AT + 8;
const PREVIOUS_TERM_AT: usize = FIRST_OFFSET_AT + 8;
const PREVIOUS_SUM_AT: usize = PREVIOUS_TERM_AT + 8;
const END_AT: usize = PREVIOUS_SUM_AT + 4;

/// What a segment's first sector says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentHeader {
    /// The cluster of the log.
    pub cluster: ClusterId,
    /// Marks the node whose file it is.
    pub node_tag: u32,
    /// The group whose blocks it holds.
    pub group: GroupId,
    /// Its number in the group, from 0 without gaps.
    pub segment: u32,
    /// Index of its first block.
    pub first_index: Index,
    /// Offset of its first record.
    pub first_offset: Offset,
    /// Term of the block before the first; 0 if there is none.
    pub previous_term: Term,
    /// Sum of the block before the first; 0 if there is none.
    pub previous_sum: u32,
}

/// Why a sector is not a segment's first. The disk is at fault; nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SegmentError {
    /// Fewer bytes than a sector.
    Truncated,
    /// No segment begins here.
    Magic,
    /// A version this program does not know.
    Version,
    /// The sector's sum is wrong.
    Sum,
    /// Reserved bytes that are not zero, or an index 0.
    Reserved,
}

impl fmt::Display for SegmentError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Truncated => "the segment's first sector is cut short",
            Self::Magic => "no segment begins here",
            Self::Version => "the segment is of an unknown version",
            Self::Sum => "the sum of the segment's first sector is wrong",
            Self::Reserved => "reserved bytes of the segment's first sector are not zero",
        })
    }
}

impl std::error::Error for SegmentError {}

impl SegmentHeader {
    /// The sector's bytes.
    #[must_use]
    pub fn encode(&self) -> [u8; SEGMENT_HEADER_SIZE] {
        assert!(self.first_index.0 > 0, "blocks are numbered from 1");
        let mut bytes = [0; SEGMENT_HEADER_SIZE];
        put_u32(&mut bytes, 0, MAGIC);
        bytes[VERSION_AT] = VERSION;
        put_u32(&mut bytes, NODE_TAG_AT, self.node_tag);
        bytes[CLUSTER_AT..GROUP_AT].copy_from_slice(&self.cluster.0.to_le_bytes());
        put_u32(&mut bytes, GROUP_AT, self.group.0);
        put_u32(&mut bytes, SEGMENT_AT, self.segment);
        put_u64(&mut bytes, FIRST_INDEX_AT, self.first_index.0);
        put_u64(&mut bytes, FIRST_OFFSET_AT, self.first_offset.0);
        put_u64(&mut bytes, PREVIOUS_TERM_AT, self.previous_term.0);
        put_u32(&mut bytes, PREVIOUS_SUM_AT, self.previous_sum);
        let sum = crc32c(&bytes);
        put_u32(&mut bytes, SUM_AT, sum);
        bytes
    }

    /// Reads and checks the sector at the start of `bytes`, which may be longer.
    ///
    /// # Errors
    /// The first misdeed found.
    pub fn check(bytes: &[u8]) -> Result<Self, SegmentError> {
        let Some(bytes) = bytes.get(..SEGMENT_HEADER_SIZE) else {
            return Err(SegmentError::Truncated);
        };
        if u32_at(bytes, 0) != MAGIC {
            return Err(SegmentError::Magic);
        }
        if bytes[VERSION_AT] != VERSION {
            return Err(SegmentError::Version);
        }
        let mut sum = Sum::new();
        sum.update(&bytes[..SUM_AT]);
        sum.update(&[0; 4]);
        sum.update(&bytes[SUM_AT + 4..]);
        if sum.value() != u32_at(bytes, SUM_AT) {
            return Err(SegmentError::Sum);
        }
        let reserved = [&bytes[VERSION_AT + 1..NODE_TAG_AT], &bytes[END_AT..]];
        if !reserved.into_iter().all(all_zero) || u64_at(bytes, FIRST_INDEX_AT) == 0 {
            return Err(SegmentError::Reserved);
        }
        let cluster = bytes[CLUSTER_AT..GROUP_AT]
            .try_into()
            .expect("sixteen bytes were sliced");
        Ok(Self {
            cluster: ClusterId(u128::from_le_bytes(cluster)),
            node_tag: u32_at(bytes, NODE_TAG_AT),
            group: GroupId(u32_at(bytes, GROUP_AT)),
            segment: u32_at(bytes, SEGMENT_AT),
            first_index: Index(u64_at(bytes, FIRST_INDEX_AT)),
            first_offset: Offset(u64_at(bytes, FIRST_OFFSET_AT)),
            previous_term: Term(u64_at(bytes, PREVIOUS_TERM_AT)),
            previous_sum: u32_at(bytes, PREVIOUS_SUM_AT),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_comes_back_and_no_flipped_bit_passes() {
        let header = SegmentHeader {
            cluster: ClusterId(0x0123_4567_89AB_CDEF_0011_2233_4455_6677),
            node_tag: 9,
            group: GroupId(3),
            segment: 2,
            first_index: Index(100),
            first_offset: Offset(2000),
            previous_term: Term(4),
            previous_sum: 0xFEED_BEEF,
        };
        let mut bytes = header.encode();
        assert_eq!(SegmentHeader::check(&bytes), Ok(header));
        for bit in 0..bytes.len() * 8 {
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(SegmentHeader::check(&bytes).is_err(), "bit {bit}");
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
        assert_eq!(
            SegmentHeader::check(&bytes[1..]),
            Err(SegmentError::Truncated)
        );
    }
}
