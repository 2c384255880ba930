//! A segment's first sector: whose it is, and what lies before it.
//!
//! Keeps the layout. Knows no file and no block.
//!
//! ```text
//!  0       4     8         12       16       32     40            48       52
//!  | magic | sum | version | group  | cluster| node | incarnation | number | zero
//!  56            64             72              80              88
//!  | first index | first offset | previous term | previous size | zeros to the sector's end
//! ```

use crate::frame::sum::Sum;
use crate::id::{ClusterId, GroupId, Incarnation, Index, NodeId, Offset, Term};
use crate::limits::SECTOR_SIZE;

/// Bytes in front of a segment's first block.
pub const SEGMENT_HEADER_SIZE: usize = SECTOR_SIZE;
const MAGIC: [u8; 4] = *b"RWSG";
const VERSION: u32 = 1;
const FIELDS_SIZE: usize = 88;

/// The head of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentHeader {
    /// Whose cluster.
    pub cluster: ClusterId,
    /// Whose node.
    pub node: NodeId,
    /// Of which life of its directory.
    pub incarnation: Incarnation,
    /// Of which group.
    pub group: GroupId,
    /// Which of its segments, dense from 0.
    pub number: u32,
    /// Index of the first block in it.
    pub first_index: Index,
    /// Offset of the first record in or after it.
    pub first_offset: Offset,
    /// Term of the block before the first; 0 for index 1.
    pub previous_term: Term,
    /// Synced bytes of the segment before it; 0 for the first. What that file holds beyond was
    /// never vouched for.
    pub previous_size: u64,
}

/// Why a sector is not the head of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SegmentError {
    /// Fewer bytes than a sector.
    Short,
    /// Not a segment.
    Magic,
    /// Damaged.
    Sum,
    /// Of a version that this program does not read.
    Version(u32),
}

impl SegmentHeader {
    /// The sector.
    #[must_use]
    pub fn encode(&self) -> [u8; SEGMENT_HEADER_SIZE] {
        assert!(self.first_index.0 > 0, "a segment begins with a block");
        let mut sector = [0; SEGMENT_HEADER_SIZE];
        let mut put = |at: usize, bytes: &[u8]| {
            sector[at..at + bytes.len()].copy_from_slice(bytes);
        };
        put(0, &MAGIC);
        put(8, &VERSION.to_le_bytes());
        put(12, &self.group.0.to_le_bytes());
        put(16, &self.cluster.0.to_le_bytes());
        put(32, &self.node.0.to_le_bytes());
        put(40, &self.incarnation.0.to_le_bytes());
        put(48, &self.number.to_le_bytes());
        put(56, &self.first_index.0.to_le_bytes());
        put(64, &self.first_offset.0.to_le_bytes());
        put(72, &self.previous_term.0.to_le_bytes());
        put(80, &self.previous_size.to_le_bytes());
        let sum = sum_of(&sector);
        sector[4..8].copy_from_slice(&sum.to_le_bytes());
        sector
    }

    /// Reads a sector.
    ///
    /// # Errors
    /// Why it is none.
    pub fn read(bytes: &[u8]) -> Result<Self, SegmentError> {
        if bytes.len() < SEGMENT_HEADER_SIZE {
            return Err(SegmentError::Short);
        }
        let u32_at = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("4 bytes"));
        let u64_at = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("8 bytes"));
        if bytes[..4] != MAGIC {
            return Err(SegmentError::Magic);
        }
        if u32_at(4) != sum_of(&bytes[..SEGMENT_HEADER_SIZE]) {
            return Err(SegmentError::Sum);
        }
        if u32_at(8) != VERSION {
            return Err(SegmentError::Version(u32_at(8)));
        }
        Ok(Self {
            cluster: ClusterId(u128::from(u64_at(24)) << 64 | u128::from(u64_at(16))),
            node: NodeId(u64_at(32)),
            incarnation: Incarnation(u64_at(40)),
            group: GroupId(u32_at(12)),
            number: u32_at(48),
            first_index: Index(u64_at(56)),
            first_offset: Offset(u64_at(64)),
            previous_term: Term(u64_at(72)),
            previous_size: u64_at(80),
        })
    }
}

fn sum_of(sector: &[u8]) -> u32 {
    let mut sum = Sum::new();
    sum.update(&sector[..4]);
    sum.update(&[0; 4]);
    sum.update(&sector[8..]);
    sum.value()
}

const _: () = assert!(FIELDS_SIZE <= SEGMENT_HEADER_SIZE);
