//! The footer of a segment: what it holds in all, and where in it a reader may enter.
//!
//! Written right behind the last block when a segment is sealed, durable before the first block of
//! the next one is. All it says could be learned by walking the blocks, so a footer that is damaged
//! or not there costs time and nothing else. Keeps the layout and the making of it. Hop *segment* of
//! the data path.
//!
//! ```text
//!  sector 1:
//!  0       4     8         9      12         16        32      36        40            48
//!  | magic | sum | version | zero | node tag | cluster | group | segment | first index | ...
//!  48             56           64          72            80          88          96
//!  | first offset | last index | last term | next offset | data size | sealed at | ...
//!  96         100          104           108    128
//!  | last sum | blocks sum | point count | zero | points, 24 bytes each | zeros
//!
//!  point:  0       8              16         20          24
//!          | index | first offset | position | term back |
//!
//!  sector 2: the segment's header once more
//! ```
//! A point is a block that stands at `position`; `first offset` is that of its first record, and the
//! term of the block before it is `term back` below the last term.

use super::fields::{all_zero, put_u32, put_u64, u32_at, u64_at};
use super::segment::{
    CLUSTER_AT, FIRST_INDEX_AT, FIRST_OFFSET_AT, GROUP_AT, NODE_TAG_AT, SEGMENT_AT,
    SEGMENT_HEADER_SIZE, SUM_AT, SegmentError, SegmentHeader, VERSION, VERSION_AT, check_sector,
    cluster_of,
};
use super::tail::{Base, Entry};
use crate::frame::sum::{Sum, crc32c};
use crate::id::{ClusterId, GroupId, Index, Offset, Term, UnixSeconds};
use crate::limits::{SECTOR_SIZE, SEGMENT_POINT_DISTANCE, SEGMENT_SIZE_MAX};

/// Bytes of a footer.
pub const SEGMENT_FOOTER_SIZE: usize = 2 * SECTOR_SIZE;

const MAGIC: u32 = u32::from_le_bytes(*b"RWSF");

const LAST_INDEX_AT: usize = FIRST_OFFSET_AT + 8;
const LAST_TERM_AT: usize = LAST_INDEX_AT + 8;
const NEXT_OFFSET_AT: usize = LAST_TERM_AT + 8;
const DATA_SIZE_AT: usize = NEXT_OFFSET_AT + 8;
const SEALED_AT: usize = DATA_SIZE_AT + 8;
const LAST_SUM_AT: usize = SEALED_AT + 8;
const BLOCKS_SUM_AT: usize = LAST_SUM_AT + 4;
const POINT_COUNT_AT: usize = BLOCKS_SUM_AT + 4;
const POINTS_AT: usize = 128;
const POINT_SIZE: usize = 24;
const POINT_COUNT_MAX: usize = (SECTOR_SIZE - POINTS_AT) / POINT_SIZE;

// A full segment's points fit, and positions fit their field.
const _: () = assert!(SEGMENT_SIZE_MAX / SEGMENT_POINT_DISTANCE < POINT_COUNT_MAX as u64);
const _: () = assert!(SEGMENT_SIZE_MAX <= u32::MAX as u64);

/// A block in a segment, as what comes before it tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentPoint {
    /// The block's index.
    pub index: Index,
    /// Offset of the first record in it or behind it.
    pub first_offset: Offset,
    /// Term of the block before it; 0 if there is none.
    pub previous_term: Term,
    /// Byte position in the file.
    pub position: u64,
}

/// What a sealed segment holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentFooter {
    /// The cluster of the log.
    pub cluster: ClusterId,
    /// Marks the node whose file it is.
    pub node_tag: u32,
    /// The group whose blocks it holds.
    pub group: GroupId,
    /// The segment's number in the group.
    pub segment: u32,
    /// Index of its first block.
    pub first_index: Index,
    /// Offset of its first record.
    pub first_offset: Offset,
    /// Index of its last block.
    pub last_index: Index,
    /// That block's term.
    pub last_term: Term,
    /// That block's sum.
    pub last_sum: u32,
    /// Offset of the first record after it.
    pub next_offset: Offset,
    /// Bytes of head and blocks, padding included: where this footer stands.
    pub data_size: u64,
    /// When it was written.
    pub sealed_at: UnixSeconds,
    /// Sum over the sums of its blocks, 4 bytes each, in order.
    pub blocks_sum: u32,
    /// Where to enter, ascending; the first block is none of them.
    pub points: Vec<SegmentPoint>,
    /// The segment's header, if this copy of it is intact.
    pub header: Option<SegmentHeader>,
}

impl SegmentFooter {
    /// The footer's bytes.
    #[must_use]
    pub fn encode(&self) -> [u8; SEGMENT_FOOTER_SIZE] {
        assert!(
            self.points.len() <= POINT_COUNT_MAX,
            "points have a distance"
        );
        assert!(
            self.first_index <= self.last_index.next(),
            "a segment ends behind its beginning"
        );
        let mut bytes = [0; SEGMENT_FOOTER_SIZE];
        put_u32(&mut bytes, 0, MAGIC);
        bytes[VERSION_AT] = VERSION;
        put_u32(&mut bytes, NODE_TAG_AT, self.node_tag);
        bytes[CLUSTER_AT..GROUP_AT].copy_from_slice(&self.cluster.0.to_le_bytes());
        put_u32(&mut bytes, GROUP_AT, self.group.0);
        put_u32(&mut bytes, SEGMENT_AT, self.segment);
        put_u64(&mut bytes, FIRST_INDEX_AT, self.first_index.0);
        put_u64(&mut bytes, FIRST_OFFSET_AT, self.first_offset.0);
        put_u64(&mut bytes, LAST_INDEX_AT, self.last_index.0);
        put_u64(&mut bytes, LAST_TERM_AT, self.last_term.0);
        put_u64(&mut bytes, NEXT_OFFSET_AT, self.next_offset.0);
        put_u64(&mut bytes, DATA_SIZE_AT, self.data_size);
        put_u64(&mut bytes, SEALED_AT, self.sealed_at.0);
        put_u32(&mut bytes, LAST_SUM_AT, self.last_sum);
        put_u32(&mut bytes, BLOCKS_SUM_AT, self.blocks_sum);
        put_u32(&mut bytes, POINT_COUNT_AT, self.points.len() as u32);
        for (point, at) in self.points.iter().zip((POINTS_AT..).step_by(POINT_SIZE)) {
            let back = self.last_term.0 - point.previous_term.0;
            put_u64(&mut bytes, at, point.index.0);
            put_u64(&mut bytes, at + 8, point.first_offset.0);
            put_u32(&mut bytes, at + 16, point.position as u32);
            put_u32(
                &mut bytes,
                at + 20,
                u32::try_from(back).expect("a listed point"),
            );
        }
        let sum = crc32c(&bytes[..SECTOR_SIZE]);
        put_u32(&mut bytes, SUM_AT, sum);
        if let Some(header) = &self.header {
            bytes[SECTOR_SIZE..].copy_from_slice(&header.encode());
        }
        bytes
    }

    /// Reads and checks the footer at the start of `bytes`, which may be longer.
    ///
    /// # Errors
    /// The first misdeed found. A damaged copy of the header is none.
    pub fn check(bytes: &[u8]) -> Result<Self, SegmentError> {
        let header = bytes.get(SECTOR_SIZE..SEGMENT_FOOTER_SIZE);
        let header = header.and_then(|bytes| SegmentHeader::check(bytes).ok());
        let bytes = check_sector(bytes, MAGIC)?;
        let mut footer = Self {
            cluster: cluster_of(bytes),
            node_tag: u32_at(bytes, NODE_TAG_AT),
            group: GroupId(u32_at(bytes, GROUP_AT)),
            segment: u32_at(bytes, SEGMENT_AT),
            first_index: Index(u64_at(bytes, FIRST_INDEX_AT)),
            first_offset: Offset(u64_at(bytes, FIRST_OFFSET_AT)),
            last_index: Index(u64_at(bytes, LAST_INDEX_AT)),
            last_term: Term(u64_at(bytes, LAST_TERM_AT)),
            last_sum: u32_at(bytes, LAST_SUM_AT),
            next_offset: Offset(u64_at(bytes, NEXT_OFFSET_AT)),
            data_size: u64_at(bytes, DATA_SIZE_AT),
            sealed_at: UnixSeconds(u64_at(bytes, SEALED_AT)),
            blocks_sum: u32_at(bytes, BLOCKS_SUM_AT),
            points: Vec::new(),
            header,
        };
        let point_count = u32_at(bytes, POINT_COUNT_AT) as usize;
        if point_count > POINT_COUNT_MAX {
            return Err(SegmentError::Reserved);
        }
        let (points, rest) = bytes[POINTS_AT..].split_at(point_count * POINT_SIZE);
        let is_zero = all_zero(&bytes[POINT_COUNT_AT + 4..POINTS_AT]) && all_zero(rest);
        for bytes in points.chunks_exact(POINT_SIZE) {
            let back = u64::from(u32_at(bytes, 20));
            footer.points.push(SegmentPoint {
                index: Index(u64_at(bytes, 0)),
                first_offset: Offset(u64_at(bytes, 8)),
                previous_term: Term(footer.last_term.0.saturating_sub(back)),
                position: u64::from(u32_at(bytes, 16)),
            });
        }
        if is_zero && footer.is_possible() {
            Ok(footer)
        } else {
            Err(SegmentError::Reserved)
        }
    }

    fn is_possible(&self) -> bool {
        let inner = |point: &SegmentPoint| {
            (self.first_index.0 + 1..=self.last_index.0).contains(&point.index.0)
                && (self.first_offset..=self.next_offset).contains(&point.first_offset)
                && (SEGMENT_HEADER_SIZE as u64..self.data_size).contains(&point.position)
        };
        let ascends = |pair: &[SegmentPoint]| {
            pair[0].index < pair[1].index
                && pair[0].position < pair[1].position
                && pair[0].first_offset <= pair[1].first_offset
                && pair[0].previous_term <= pair[1].previous_term
        };
        self.first_index.0 > 0
            && self.last_index.0 < u64::MAX
            && self.first_index <= self.last_index.next()
            && self.data_size.is_multiple_of(SECTOR_SIZE as u64)
            && self.points.iter().all(inner)
            && self.points.windows(2).all(ascends)
    }
}

/// What a footer will say of the blocks, put together as they are written.
///
/// The sum comes back from a checkpoint after a restart, the points do not: for what was written
/// before there are none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FooterBuilder {
    blocks_sum: u32,
    points: Vec<SegmentPoint>,
    /// Where the last point stands, or the first block: the next point keeps its distance.
    last_position: u64,
}

impl FooterBuilder {
    /// Of a segment whose first block will stand behind a head of this size.
    #[must_use]
    pub fn new(head_size: u64) -> Self {
        Self::resumed(0, head_size)
    }

    /// Of a segment whose blocks up to `position` have this sum.
    #[must_use]
    pub fn resumed(blocks_sum: u32, position: u64) -> Self {
        Self {
            blocks_sum,
            points: Vec::new(),
            last_position: position,
        }
    }

    /// Takes the next block: its header, its index, where it stands, and the term of the one before.
    pub fn push(&mut self, entry: &Entry, index: Index, position: u64, previous_term: Term) {
        let mut sum = Sum::resumed(self.blocks_sum);
        sum.update(&entry.sum.to_le_bytes());
        self.blocks_sum = sum.value();
        let is_due = position >= self.last_position + SEGMENT_POINT_DISTANCE;
        if is_due && self.points.len() < POINT_COUNT_MAX {
            self.last_position = position;
            self.points.push(SegmentPoint {
                index,
                first_offset: entry.first_offset,
                previous_term,
                position,
            });
        }
    }

    /// Sum over the sums of all blocks so far.
    #[must_use]
    pub fn blocks_sum(&self) -> u32 {
        self.blocks_sum
    }

    /// Places that a reader may enter at, ascending.
    #[must_use]
    pub fn points(&self) -> &[SegmentPoint] {
        &self.points
    }

    /// The footer of a segment of these blocks: it begins with `header`, and ends with the block
    /// `last`, `data_size` bytes long.
    #[must_use]
    pub fn footer(
        &self,
        header: SegmentHeader,
        last: Base,
        data_size: u64,
        sealed_at: UnixSeconds,
    ) -> SegmentFooter {
        SegmentFooter {
            cluster: header.cluster,
            node_tag: header.node_tag,
            group: header.group,
            segment: header.segment,
            first_index: header.first_index,
            first_offset: header.first_offset,
            last_index: last.index,
            last_term: last.term,
            last_sum: last.sum,
            next_offset: last.next_offset,
            data_size,
            sealed_at,
            blocks_sum: self.blocks_sum,
            points: self.listed(last.term),
            header: Some(header),
        }
    }

    /// The points that a footer can name: their terms lie within 32 bits of the last.
    fn listed(&self, last_term: Term) -> Vec<SegmentPoint> {
        let is_near =
            |point: &&SegmentPoint| last_term.0 - point.previous_term.0 <= u64::from(u32::MAX);
        self.points.iter().filter(is_near).copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::segment::StatePlace;
    use super::*;
    use crate::log::Place;

    fn footer(point_count: u64) -> SegmentFooter {
        let header = SegmentHeader {
            cluster: ClusterId(0x0123_4567_89AB_CDEF_0011_2233_4455_6677),
            node_tag: 9,
            group: GroupId(3),
            segment: 2,
            first_index: Index(100),
            first_offset: Offset(2000),
            previous_term: Term(4),
            previous_sum: 0xFEED_BEEF,
            previous_size: 0x0203_1000,
            made_at: UnixSeconds(1_800_000_000),
            state: StatePlace::NONE,
        };
        let point = |number: u64| SegmentPoint {
            index: Index(100 + number),
            first_offset: Offset(2000 + number),
            previous_term: Term(4 + number / 2),
            position: number * SEGMENT_POINT_DISTANCE,
        };
        SegmentFooter {
            cluster: header.cluster,
            node_tag: header.node_tag,
            group: header.group,
            segment: header.segment,
            first_index: header.first_index,
            first_offset: header.first_offset,
            last_index: Index(400),
            last_term: Term(4 + point_count),
            last_sum: 77,
            next_offset: Offset(5000),
            data_size: SEGMENT_SIZE_MAX,
            sealed_at: UnixSeconds(1_800_000_100),
            blocks_sum: 78,
            points: (1..=point_count).map(point).collect(),
            header: Some(header),
        }
    }

    #[test]
    fn a_footer_comes_back_and_no_flipped_bit_passes() {
        for point_count in [0, 3, SEGMENT_SIZE_MAX / SEGMENT_POINT_DISTANCE - 1] {
            let footer = footer(point_count);
            let mut bytes = footer.encode();
            assert_eq!(SegmentFooter::check(&bytes).as_ref(), Ok(&footer));
            for bit in 0..SECTOR_SIZE * 8 {
                bytes[bit / 8] ^= 1 << (bit % 8);
                assert!(SegmentFooter::check(&bytes).is_err(), "bit {bit}");
                bytes[bit / 8] ^= 1 << (bit % 8);
            }
            // The copy of the header is there for whoever needs it, and has a sum of its own.
            bytes[SECTOR_SIZE + 40] ^= 1;
            let found = SegmentFooter::check(&bytes).expect("the footer itself is whole");
            assert_eq!(found.header, None);
            assert_eq!(found.points, footer.points);
        }
    }

    #[test]
    fn a_footer_of_impossible_points_is_refused() {
        let misdeeds: [fn(&mut SegmentFooter); 5] = [
            |footer| footer.points[1].index = footer.points[0].index,
            |footer| footer.points[1].position = footer.points[0].position,
            |footer| footer.points[2].position = footer.data_size,
            |footer| footer.points[0].index = footer.first_index,
            |footer| footer.points[0].first_offset = Offset(1),
        ];
        for misdeed in misdeeds {
            let mut footer = footer(3);
            misdeed(&mut footer);
            let bytes = footer.encode();
            assert_eq!(SegmentFooter::check(&bytes), Err(SegmentError::Reserved));
        }
    }

    #[test]
    fn sums_go_on_after_a_restart_and_points_keep_their_distance() {
        let entry = |number: u32| Entry {
            term: Term(2),
            size: 0,
            sum: number.wrapping_mul(0x9E37_79B9),
            place: Place::default(),
            first_offset: Offset(u64::from(number)),
            record_count: 1,
        };
        let mut whole = FooterBuilder::new(4096);
        let (mut parts, mut sums) = (FooterBuilder::new(4096), Vec::new());
        for number in 1..=40 {
            let position = 4096 + u64::from(number) * 100_000;
            if number == 17 {
                parts = FooterBuilder::resumed(parts.blocks_sum(), position);
            }
            for builder in [&mut whole, &mut parts] {
                builder.push(&entry(number), Index(number.into()), position, Term(2));
            }
            sums.extend_from_slice(&entry(number).sum.to_le_bytes());
        }
        assert_eq!(whole.blocks_sum(), crc32c(&sums));
        assert_eq!(parts.blocks_sum(), whole.blocks_sum());
        let positions = whole.points().iter().map(|point| point.position);
        let gaps: Vec<u64> = positions
            .clone()
            .zip(positions.skip(1))
            .map(|(a, b)| b - a)
            .collect();
        assert!(!gaps.is_empty() && gaps.iter().all(|gap| *gap >= SEGMENT_POINT_DISTANCE));
        let mut far = whole.clone();
        far.points[0].previous_term = Term(0);
        assert_eq!(
            far.listed(Term(1 << 33)).len(),
            0,
            "too far back to be named"
        );
    }
}
