//! Blocks of a log wherever they are: the tail cache, else the journal, else segments.
//!
//! A `Job` wants blocks from an index or an offset on. What the cache holds is delivered at once;
//! otherwise one read at a time is asked for, checked when it comes, and delivered to whoever
//! wanted it: a fetch, a peer that catches up, or a segment being gathered. Knows none of them.

use bytes::Bytes;

use crate::id::{Index, Offset, Term};
use crate::limits::SECTOR_SIZE;
use crate::log::Tail;
use crate::log::block::{Block, BlockError, BlockHeader, ITEM_HEADER_SIZE};
use crate::log::footer::{SEGMENT_FOOTER_SIZE, SegmentFooter};
use crate::log::journal::Journal;

use super::Shape;
use super::effects::Source;
use super::group::Group;
use super::segment_map::Point;
use super::segments::Extent;

/// Reads that may come back with something else than was asked for, before the blocks count as
/// damaged. A journal file may be reused while a read of it is in flight; then the blocks are in a
/// segment by now, and the second try finds them there.
const TRY_COUNT_MAX: u8 = 3;

/// From where on blocks are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Want {
    Index(Index),
    Offset(Offset),
}

/// Blocks found: contiguous, in order, each checked or from this shard's own memory.
#[derive(Debug)]
pub(super) struct Found {
    /// Index and term of the block before the first.
    pub(super) prev_index: Index,
    pub(super) prev_term: Term,
    pub(super) first: Index,
    pub(super) last: Index,
    pub(super) slices: Vec<Bytes>,
}

impl Found {
    pub(super) fn size(&self) -> usize {
        self.slices.iter().map(Bytes::len).sum()
    }

    pub(super) fn count(&self) -> u32 {
        u32::try_from(self.last.0 + 1 - self.first.0).expect("a run holds fewer blocks")
    }
}

/// What a step of a job came to.
#[derive(Debug)]
pub(super) enum Step {
    Found(Found),
    /// Bytes are needed first.
    Read {
        source: Source,
        position: u64,
        size: usize,
    },
    /// A segment's footer was read: once what it says is remembered, the job begins anew.
    Indexed,
    /// Nothing committed there, or not any more.
    Absent,
    /// What is on this disk is not what was written.
    Damaged(Damage),
}

/// A block that cannot be read, and where it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Damage {
    pub(super) source: Source,
    /// Byte of the file at which the block begins.
    pub(super) position: u64,
    pub(super) index: Index,
}

/// Where a job reads at the moment.
#[derive(Clone, Copy, Debug)]
enum Reading {
    Journal {
        first: Index,
        last: Index,
        skip: usize,
        /// What it is if the first block is not there.
        damage: Damage,
    },
    Segment {
        from: Point,
        layout: u32,
    },
    Footer {
        number: u32,
        layout: u32,
    },
}

impl Reading {
    /// Whether what it reads is not the file any more that has this name: what it brings is sound, as
    /// a rule, but stands elsewhere now.
    fn is_outdated(&self, group: &Group) -> bool {
        match self {
            Self::Journal { .. } => false,
            Self::Segment {
                from: Point { number, .. },
                layout,
            }
            | Self::Footer { number, layout } => group.segments.map.is_replaced(*number, *layout),
        }
    }
}

/// What a job came to know of a group's segments, for those that come after it.
#[derive(Debug)]
pub(super) enum Learned {
    /// Where the last read of a segment ended: the next reader may begin there.
    Place(Point),
    /// What a segment's footer says; nothing if it is damaged.
    Index { number: u32, points: Vec<Point> },
}

/// One search for blocks.
#[derive(Debug)]
pub(super) struct Job {
    want: Want,
    /// Blocks above this index are not wanted (not committed, or not asked for).
    last_max: Index,
    size_max: usize,
    /// Bytes read from a segment at a time: one largest block always fits.
    read_size: usize,
    reading: Option<Reading>,
    learned: Option<Learned>,
    tries: u8,
    /// Memory is passed by: it is the disk that is asked.
    is_cold: bool,
}

impl Job {
    /// Wants blocks up to `last_max`, at most `size_max` bytes of them, but at least one.
    pub(super) fn new(shape: &Shape, want: Want, last_max: Index, size_max: usize) -> Self {
        Self {
            want,
            last_max,
            size_max,
            read_size: shape.segment_read_size,
            reading: None,
            learned: None,
            tries: 0,
            is_cold: false,
        }
    }

    /// As `new`, of what the disk has, whatever memory knows.
    pub(super) fn cold(shape: &Shape, want: Want, last_max: Index, size_max: usize) -> Self {
        let mut job = Self::new(shape, want, last_max, size_max);
        job.is_cold = true;
        job
    }

    /// What was not known of the group's segments before.
    pub(super) fn take_learned(&mut self) -> Option<Learned> {
        self.learned.take()
    }

    /// Where it enters a segment, and which of the files that had its name: while what it reads
    /// there is read for the first time.
    pub(super) fn segment_place(&self) -> Option<(Point, u32)> {
        match self.reading {
            Some(Reading::Segment { from, layout }) if self.tries == 0 => Some((from, layout)),
            _ => None,
        }
    }

    /// Looks in memory, or says what must be read.
    pub(super) fn start(&mut self, group: &Group, journal: &Journal) -> Step {
        let tail = group.tail();
        let index = match self.want {
            Want::Index(index) => (index >= tail.first_index()).then_some(index),
            Want::Offset(offset) => tail.index_of_offset(offset),
        };
        match index {
            // A new leader may have cut what was there when the job began.
            Some(index) if index > self.last_max.min(tail.last_index()) => Step::Absent,
            Some(index) => match self.cached(group, journal, index) {
                Some(found) => Step::Found(found),
                // What segments hold may be gone from the journal: its files are used again.
                None if index <= group.segmented => self.read_segment_start(group),
                None => self.read_journal(group, journal, index),
            },
            None => self.read_segment_start(group),
        }
    }

    fn cached(&self, group: &Group, journal: &Journal, first: Index) -> Option<Found> {
        let is_asked = !self.is_cold;
        is_asked.then(|| cached(group, journal, first, self.last_max, self.size_max))?
    }

    /// Takes what a read brought. Of a footer it makes what is to be learned. Bytes that do not fit are asked for again, a few times.
    pub(super) fn loaded(&mut self, group: &Group, journal: &Journal, bytes: &Bytes) -> Step {
        let reading = self
            .reading
            .take()
            .expect("a job that was loaded for was reading");
        if reading.is_outdated(group) {
            return self.start(group, journal);
        }
        let step = match reading {
            Reading::Journal {
                first,
                last,
                skip,
                damage,
            } => {
                let found = from_journal(group, bytes, first, last, skip);
                found.map(Step::Found).ok_or(damage)
            }
            Reading::Segment { from, .. } => self.walk_segment(group, bytes, from),
            Reading::Footer { number, .. } => {
                let points = footer_points(group, number, bytes).unwrap_or_default();
                self.learned = Some(Learned::Index { number, points });
                Ok(Step::Indexed)
            }
        };
        match step {
            Ok(step) => step,
            Err(_) if self.tries < TRY_COUNT_MAX => {
                self.tries += 1;
                self.start(group, journal)
            }
            Err(damage) => Step::Damaged(damage),
        }
    }

    fn read_journal(&mut self, group: &Group, journal: &Journal, first: Index) -> Step {
        let (last, size) = same_run(group.tail(), first, self.last_max, self.size_max);
        let place = group
            .tail()
            .entry(first)
            .expect("the index is in the tail")
            .place;
        let begin = place.offset as usize & !(SECTOR_SIZE - 1);
        let end = (place.offset as usize + size).next_multiple_of(SECTOR_SIZE);
        let (slot, run_position) = journal.ring().locate(place.lsn);
        let skip = place.offset as usize - begin;
        let source = Source::Journal { slot };
        let damage = Damage {
            source,
            position: run_position + u64::from(place.offset),
            index: first,
        };
        self.reading = Some(Reading::Journal {
            first,
            last,
            skip,
            damage,
        });
        Step::Read {
            source,
            position: run_position + begin as u64,
            size: end - begin,
        }
    }

    fn read_segment_start(&mut self, group: &Group) -> Step {
        let map = &group.segments.map;
        let (point, is_exact) = match self.want {
            Want::Index(index) => {
                let point = map.point_of_index(index);
                (
                    point,
                    point.is_some_and(|point| point.prev_index.next() == index),
                )
            }
            Want::Offset(offset) => {
                let point = map.point_of_offset(offset);
                (
                    point,
                    point.is_some_and(|point| point.next_offset == offset),
                )
            }
        };
        let Some(point) = point else {
            return Step::Absent;
        };
        if is_exact || !map.lacks_index(point.number) {
            return self.read_segment(group, point);
        }
        let number = point.number;
        let file = map.file(number).expect("a point is in a file");
        let layout = file.layout;
        self.reading = Some(Reading::Footer { number, layout });
        Step::Read {
            source: Source::Segment {
                group: group.id,
                number,
            },
            position: file.size,
            size: SEGMENT_FOOTER_SIZE,
        }
    }

    fn read_segment(&mut self, group: &Group, from: Point) -> Step {
        let map = &group.segments.map;
        let size_of = |number: u32| map.file(number).map(|file| file.size);
        // A segment is read to its end before the next one is begun.
        let from = if size_of(from.number) == Some(from.position) {
            match map.first_point(from.number + 1) {
                // Zeros where the last blocks were look like the padding behind them.
                Some(next) if !is_behind(&from, &next) => {
                    return Step::Damaged(segment_damage(group, from));
                }
                Some(next) => next,
                None if from.prev_index < group.segmented => {
                    return Step::Damaged(segment_damage(group, from));
                }
                None => return Step::Absent,
            }
        } else {
            from
        };
        let Some(file) = map.file(from.number) else {
            return Step::Absent;
        };
        if file.size < from.position {
            return Step::Damaged(segment_damage(group, from));
        }
        let begin = from.position & !(SECTOR_SIZE as u64 - 1);
        let rest = usize::try_from(file.size - begin).expect("a segment fits in memory");
        let size = self.read_size.min(rest);
        let layout = file.layout;
        self.reading = Some(Reading::Segment { from, layout });
        let source = Source::Segment {
            group: group.id,
            number: from.number,
        };
        Step::Read {
            source,
            position: begin,
            size,
        }
    }

    /// Walks over the blocks of a read, as far as they are what was written there.
    fn walk_segment(&mut self, group: &Group, bytes: &Bytes, from: Point) -> Result<Step, Damage> {
        let extent = group.segment_extent(from.number);
        let begin = from.position & !(SECTOR_SIZE as u64 - 1);
        let mut at = usize::try_from(from.position - begin).expect("less than a sector");
        let mut before = from;
        // A file that ends too early has lost what should be here.
        if at >= bytes.len() {
            return Err(segment_damage(group, before));
        }
        let mut found: Option<Found> = None;
        let mut found_size = 0;
        while at < bytes.len() {
            // Each gathered write ends with zeros up to a sector.
            if bytes[at..]
                .iter()
                .take(ITEM_HEADER_SIZE)
                .all(|byte| *byte == 0)
            {
                let end = (at + 1).next_multiple_of(SECTOR_SIZE);
                let padding = &bytes[at..end.min(bytes.len())];
                if padding.iter().any(|byte| *byte != 0) {
                    if found.is_some() {
                        break;
                    }
                    return Err(segment_damage(group, before));
                }
                at = end;
                before.position = begin + at as u64;
                continue;
            }
            let block = match Block::check(&bytes[at..]) {
                Ok(block) => block,
                // The last block of a read may be cut off; the next read begins with it.
                Err(BlockError::Truncated) if before.position > from.position => break,
                // What stands before is given; the next read begins with what is not there.
                Err(_) if found.is_some() => break,
                Err(_) => return Err(segment_damage(group, before)),
            };
            let header = block.header();
            // A sound block is not enough: a record may look like one.
            let is_within = extent.is_none_or(|extent| is_within(header, &extent));
            if header.group != group.id || !is_next(header, &before) || !is_within {
                if found.is_some() {
                    break;
                }
                return Err(segment_damage(group, before));
            }
            if header.index > self.last_max {
                break;
            }
            let size = block.bytes().len();
            let slice = bytes.slice(at..at + size);
            match &mut found {
                None if self.is_wanted(header) => {
                    found = Some(Found::one(
                        before.prev_index,
                        before.prev_term,
                        header,
                        slice,
                    ));
                }
                None => {}
                Some(_) if found_size + size > self.size_max => break,
                Some(found) => found.push(header, slice),
            }
            found_size += if found.is_some() { size } else { 0 };
            at += size;
            before.position = begin + at as u64;
            (before.prev_index, before.prev_term) = (header.index, header.term);
            before.prev_sum = Some(header.sum);
            before.next_offset = header.next_offset();
        }
        self.learned = Some(Learned::Place(before));
        Ok(match found {
            Some(found) => Step::Found(found),
            None => self.read_segment(group, before),
        })
    }

    fn is_wanted(&self, header: &BlockHeader) -> bool {
        match self.want {
            Want::Index(index) => header.index >= index,
            Want::Offset(offset) => header.next_offset() > offset,
        }
    }
}

/// Whether a block follows what comes before it.
fn is_next(header: &BlockHeader, before: &Point) -> bool {
    let is_named = |sum| sum == header.previous_sum;
    header.index == before.prev_index.next() && before.prev_sum.is_none_or(is_named)
}

/// Whether the block may be one of a segment: the last is known.
fn is_within(header: &BlockHeader, extent: &Extent) -> bool {
    header.index < extent.last || (header.index, header.sum) == (extent.last, extent.sum)
}

/// Whether what ends at `from` is all that comes before a segment that begins at `next`.
fn is_behind(from: &Point, next: &Point) -> bool {
    next.prev_index == from.prev_index
        && (from.prev_sum.is_none() || next.prev_sum == from.prev_sum)
}

/// Where a sealed segment may be entered, if these bytes are its footer.
fn footer_points(group: &Group, number: u32, bytes: &[u8]) -> Option<Vec<Point>> {
    let footer = SegmentFooter::check(bytes).ok()?;
    let file = group.segments.map.file(number)?;
    let header = &file.header;
    let is_its = footer.cluster == header.cluster
        && footer.node_tag == header.node_tag
        && (footer.group, footer.segment) == (header.group, header.segment)
        && (footer.first_index, footer.first_offset) == (header.first_index, header.first_offset)
        && footer.data_size == file.size;
    let points = footer.points.iter();
    is_its.then(|| points.map(|point| Point::of(number, point)).collect())
}

impl Found {
    fn one(prev_index: Index, prev_term: Term, header: &BlockHeader, slice: Bytes) -> Self {
        let (first, last) = (header.index, header.index);
        Self {
            prev_index,
            prev_term,
            first,
            last,
            slices: vec![slice],
        }
    }

    fn push(&mut self, header: &BlockHeader, slice: Bytes) {
        assert_eq!(header.index, self.last.next());
        self.last = header.index;
        self.slices.push(slice);
    }
}

/// The last index, from `first` on, whose block lies in the same run, and the bytes up to there.
pub(super) fn same_run(
    tail: &Tail,
    first: Index,
    last_max: Index,
    size_max: usize,
) -> (Index, usize) {
    let begin = tail.entry(first).expect("the index is in the tail");
    let mut last = first;
    let mut size = begin.size as usize;
    while last < last_max {
        let Some(next) = tail.entry(last.next()) else {
            break;
        };
        let adjacent = next.place.lsn == begin.place.lsn
            && next.place.offset as usize == begin.place.offset as usize + size;
        if !adjacent || size + next.size as usize > size_max {
            break;
        }
        size += next.size as usize;
        last = last.next();
    }
    (last, size)
}

/// Blocks from `first` on as far as the tail cache holds them; `None` if it lacks the first, or if
/// the tail was released past it since somebody decided to send it.
pub(super) fn cached(
    group: &Group,
    journal: &Journal,
    first: Index,
    last_max: Index,
    size_max: usize,
) -> Option<Found> {
    let tail = group.tail();
    let prev_index = Index(first.0 - 1);
    let prev_term = tail.term_at(prev_index)?;
    let mut slices = Vec::new();
    let mut left = size_max;
    let mut next = first;
    while next <= last_max && (left > 0 || slices.is_empty()) {
        let Some(entry) = tail.entry(next) else { break };
        if entry.size as usize > left && !slices.is_empty() {
            break;
        }
        let Some(run) = journal.run(entry.place.lsn) else {
            break;
        };
        let (last, size) = same_run(tail, next, last_max, left);
        let begin = entry.place.offset as usize;
        slices.push(run.slice(begin..begin + size));
        left = left.saturating_sub(size);
        next = last.next();
    }
    if slices.is_empty() {
        return None;
    }
    Some(Found {
        prev_index,
        prev_term,
        first,
        last: Index(next.0 - 1),
        slices,
    })
}

/// What it is if the block behind `before` is not there.
fn segment_damage(group: &Group, before: Point) -> Damage {
    Damage {
        source: Source::Segment {
            group: group.id,
            number: before.number,
        },
        position: before.position,
        index: before.prev_index.next(),
    }
}

/// Blocks read from the journal as far as they are the ones the tail means; none if the first is not.
fn from_journal(
    group: &Group,
    bytes: &Bytes,
    first: Index,
    last: Index,
    skip: usize,
) -> Option<Found> {
    let tail = group.tail();
    let prev_index = Index(first.0 - 1);
    let prev_term = tail.term_at(prev_index)?;
    let mut at = skip;
    let mut next = first;
    while next <= last {
        let Some(entry) = tail.entry(next) else { break };
        let block = bytes.get(at..).map(Block::check);
        let Some(Ok(block)) = block else { break };
        let header = block.header();
        let same = header.group == group.id && header.index == next && header.sum == entry.sum;
        if !same {
            break;
        }
        at += block.bytes().len();
        next = next.next();
    }
    (next > first).then(|| Found {
        prev_index,
        prev_term,
        first,
        last: Index(next.0 - 1),
        slices: vec![bytes.slice(skip..at)],
    })
}
