//! A group's segments: which file grows, how its writes are gathered, and where a block is found.
//!
//! Keeps numbers, sizes and a sparse index. Does no I/O and holds no block. Who drives it writes
//! and syncs what [`Gather::finish`] gives, then says so by [`Segments::synced`], and only then puts
//! a checkpoint. Hop *segment* of the data path.
//!
//! ```text
//!  segment 0 | header | write | write | ... |   closed at SEGMENT_SIZE_MAX
//!  segment 1 | header | write | write |......   grows; beyond the synced size anything may lie
//! ```

use bytes::{BufMut, Bytes};

use super::arena::Arenas;
use super::block::Block;
use super::fields::{pad, round_up};
use super::segment::{SEGMENT_HEADER_SIZE, SegmentHeader};
use super::tail::Base;
use crate::id::{ClusterId, GroupId, Index, Offset};
use crate::limits::{BLOCK_SIZE_MAX, SECTOR_SIZE, SEGMENT_SIZE_MAX, SEGMENT_WRITE_SIZE};

/// Largest write: the wanted size overshot by one block, and a header.
const GATHER_SIZE_MAX: usize = round_up(
    SEGMENT_HEADER_SIZE + SEGMENT_WRITE_SIZE + BLOCK_SIZE_MAX,
    SECTOR_SIZE,
);

/// Bytes between two points of the sparse index, at least: what a lookup reads in vain.
const POINT_DISTANCE: u64 = 256 << 10;

/// Memory to gather in, shared by a shard's groups: one write being filled, and `count` more on
/// their way.
#[must_use]
pub fn gather_arenas(count: usize) -> Arenas {
    Arenas::new(GATHER_SIZE_MAX, count + 1)
}

/// A block's place in the segments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Point {
    /// Number of the segment.
    pub segment: u32,
    /// Byte position of the block in its file.
    pub position: u64,
    /// The block's index.
    pub index: Index,
    /// The block's first offset.
    pub offset: Offset,
}

/// One write to a segment, to be synced.
#[derive(Clone, Debug)]
pub struct SegmentWrite {
    /// Number of the segment.
    pub segment: u32,
    /// Byte position; 0 means that the file is new, and the bytes begin with its header.
    pub position: u64,
    /// Whole sectors in aligned memory.
    pub bytes: Bytes,
    /// The first block in it.
    pub first: Point,
    /// The last block in it, as the base of what follows: a checkpoint's fields.
    pub last: Base,
}

#[derive(Clone, Debug)]
struct Segment {
    /// Bytes that are synced; for all but the last this is the end.
    size: u64,
    /// Ascending, the first being the segment's first block. Never empty.
    points: Vec<Point>,
}

/// The segments of one group.
#[derive(Clone, Debug)]
pub struct Segments {
    cluster: ClusterId,
    node_tag: u32,
    group: GroupId,
    /// Number of the first of `list`.
    first: u32,
    list: Vec<Segment>,
}

impl Segments {
    /// A group without segments yet.
    #[must_use]
    pub fn new(cluster: ClusterId, node_tag: u32, group: GroupId) -> Self {
        Self {
            cluster,
            node_tag,
            group,
            first: 0,
            list: Vec::new(),
        }
    }

    /// Adds a segment that was found at start, in the order of numbers, with the bytes of it that
    /// are synced: what the checkpoint says for the one that grows, the file's size for the others.
    /// A segment beyond the checkpoint's is not to be added: it will be written again.
    pub fn add(&mut self, header: &SegmentHeader, size: u64) {
        assert_eq!(header.group, self.group, "a segment of this group");
        assert!(size > SEGMENT_HEADER_SIZE as u64, "a segment holds a block");
        if self.list.is_empty() {
            self.first = header.segment;
        }
        assert_eq!(
            header.segment,
            self.next_number(),
            "segments are numbered without gaps"
        );
        let point = Point {
            segment: header.segment,
            position: SEGMENT_HEADER_SIZE as u64,
            index: header.first_index,
            offset: header.first_offset,
        };
        self.list.push(Segment {
            size,
            points: vec![point],
        });
    }

    fn next_number(&self) -> u32 {
        self.first + self.list.len() as u32
    }

    /// Number and synced size of the segment that grows: a checkpoint's fields.
    #[must_use]
    pub fn growing(&self) -> (u32, u64) {
        match self.list.last() {
            Some(segment) => (self.next_number() - 1, segment.size),
            None => (self.first, 0),
        }
    }

    /// Synced bytes of a segment; none if there is no such segment.
    #[must_use]
    pub fn size(&self, segment: u32) -> Option<u64> {
        let at = segment.checked_sub(self.first)?;
        self.list.get(at as usize).map(|segment| segment.size)
    }

    /// Begins to gather a write of the blocks after `previous`. None: all memory is on its way.
    #[must_use]
    pub fn gather<'a>(&self, arenas: &'a mut Arenas, previous: Base) -> Option<Gather<'a>> {
        if !arenas.make_room(GATHER_SIZE_MAX) {
            return None;
        }
        let (growing, size) = self.growing();
        let begins = self.list.is_empty() || size >= SEGMENT_SIZE_MAX;
        let (segment, position) = if begins {
            (self.next_number(), 0)
        } else {
            (growing, size)
        };
        if begins {
            let header = SegmentHeader {
                cluster: self.cluster,
                node_tag: self.node_tag,
                group: self.group,
                segment,
                first_index: previous.index.next(),
                first_offset: previous.next_offset,
                previous_term: previous.term,
                previous_sum: previous.sum,
            };
            arenas.current().put_slice(&header.encode());
        }
        let first = Point {
            segment,
            position: position + arenas.written() as u64,
            index: previous.index.next(),
            offset: previous.next_offset,
        };
        Some(Gather {
            arenas,
            group: self.group,
            position,
            first,
            last: previous,
        })
    }

    /// A write is synced: its blocks can be found, and a checkpoint may say so.
    pub fn synced(&mut self, write: &SegmentWrite) {
        if write.position == 0 {
            assert_eq!(
                write.segment,
                self.next_number(),
                "one write of a group at a time"
            );
            self.list.push(Segment {
                size: 0,
                points: Vec::new(),
            });
        }
        assert_eq!(
            write.segment + 1,
            self.next_number(),
            "only the last segment grows"
        );
        let segment = self.list.last_mut().expect("the segment that grows");
        assert_eq!(segment.size, write.position, "a segment grows at its end");
        segment.size = write.position + write.bytes.len() as u64;
        let last = segment.points.last();
        if last.is_none_or(|last| write.first.position - last.position >= POINT_DISTANCE) {
            segment.points.push(write.first);
        }
    }

    /// Remembers where a reader came past a block, so that the next need not walk so far.
    pub fn note(&mut self, point: Point) {
        let Some(at) = point.segment.checked_sub(self.first) else {
            return;
        };
        let Some(segment) = self.list.get_mut(at as usize) else {
            return;
        };
        let after = segment
            .points
            .partition_point(|known| known.position <= point.position);
        let near = |known: &Point| known.position.abs_diff(point.position) < POINT_DISTANCE;
        let crowded = segment.points[..after].last().is_some_and(near)
            || segment.points.get(after).is_some_and(near);
        if after > 0 && !crowded {
            segment.points.insert(after, point);
        }
    }

    /// Where to begin reading for the block at `index`: that block or one before it. None below the
    /// first segment; whether the block is there shows in the reading.
    #[must_use]
    pub fn find_index(&self, index: Index) -> Option<Point> {
        self.find(|point| point.index <= index)
    }

    /// Where to begin reading for the record at `offset`: its block or one before it. None below
    /// the first segment.
    #[must_use]
    pub fn find_offset(&self, offset: Offset) -> Option<Point> {
        self.find(|point| point.offset <= offset)
    }

    /// The last point that is `not_beyond`.
    fn find(&self, not_beyond: impl Fn(&Point) -> bool) -> Option<Point> {
        let count = self
            .list
            .partition_point(|segment| not_beyond(&segment.points[0]));
        let points = &self.list[count.checked_sub(1)?].points;
        let count = points.partition_point(not_beyond);
        Some(points[count - 1])
    }
}

/// A write under construction.
#[derive(Debug)]
pub struct Gather<'a> {
    arenas: &'a mut Arenas,
    group: GroupId,
    position: u64,
    first: Point,
    last: Base,
}

impl Gather<'_> {
    /// Whether the write is large enough. It has room for one more block until then.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.arenas.written() >= SEGMENT_WRITE_SIZE
    }

    /// Copies the next committed block.
    pub fn push(&mut self, block: &Block<'_>) {
        assert!(!self.is_full(), "the caller asked");
        let header = block.header();
        assert_eq!(header.group, self.group, "a block of this group");
        assert_eq!(
            header.index,
            self.last.index.next(),
            "blocks are gathered without gaps"
        );
        assert_eq!(
            header.previous_sum, self.last.sum,
            "blocks follow each other"
        );
        self.arenas.current().put_slice(block.bytes());
        self.last = Base {
            index: header.index,
            term: header.term,
            sum: header.sum,
            next_offset: header.next_offset(),
        };
    }

    /// The write, padded to a sector. None if no block was pushed.
    #[must_use]
    pub fn finish(self) -> Option<SegmentWrite> {
        if self.last.index < self.first.index {
            self.arenas.current().clear();
            return None;
        }
        pad(self.arenas.current(), SECTOR_SIZE);
        Some(SegmentWrite {
            segment: self.first.segment,
            position: self.position,
            bytes: self.arenas.cut().freeze(),
            first: self.first,
            last: self.last,
        })
    }
}
