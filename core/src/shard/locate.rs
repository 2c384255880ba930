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
use crate::log::journal::Journal;

use super::effects::Source;
use super::group::Group;
use super::segments::Point;

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
    },
}

/// One search for blocks.
#[derive(Debug)]
pub(super) struct Job {
    want: Want,
    /// Blocks above this index are not wanted (not committed, or not asked for).
    last_max: Index,
    size_max: usize,
    reading: Option<Reading>,
    /// Where the last read of a segment ended: the next reader may begin there.
    learned: Option<Point>,
    tries: u8,
}

impl Job {
    pub(super) fn new(want: Want, last_max: Index, size_max: usize) -> Self {
        Self {
            want,
            last_max,
            size_max,
            reading: None,
            learned: None,
            tries: 0,
        }
    }

    /// A place in a segment that was not known before.
    pub(super) fn take_learned(&mut self) -> Option<Point> {
        self.learned.take()
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
            Some(index) => match cached(group, journal, index, self.last_max, self.size_max) {
                Some(found) => Step::Found(found),
                // What segments hold may be gone from the journal: its files are used again.
                None if index <= group.segmented => self.read_segment_start(group),
                None => self.read_journal(group, journal, index),
            },
            None => self.read_segment_start(group),
        }
    }

    /// Takes what a read brought. Bytes that do not fit are asked for again, a few times.
    pub(super) fn loaded(&mut self, group: &Group, journal: &Journal, bytes: &Bytes) -> Step {
        let reading = self
            .reading
            .take()
            .expect("a job that was loaded for was reading");
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
            Reading::Segment { from } => self.walk_segment(group, bytes, from),
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
        let point = match self.want {
            Want::Index(index) => group.segments.point_of_index(index),
            Want::Offset(offset) => group.segments.point_of_offset(offset),
        };
        point.map_or(Step::Absent, |point| self.read_segment(group, point))
    }

    fn read_segment(&mut self, group: &Group, from: Point) -> Step {
        // A segment is read to its end before the next one is begun.
        let from = if from.position == group.segments.size_of(from.number) {
            match group.segments.first_point(from.number + 1) {
                // Zeros where the last blocks were look like the padding behind them.
                Some(next) if next.prev_index != from.prev_index => {
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
        let begin = from.position & !(SECTOR_SIZE as u64 - 1);
        let rest = group.segments.size_of(from.number) - begin;
        let rest = usize::try_from(rest).expect("a segment fits in memory");
        let size = group.segments.read_size().min(rest);
        self.reading = Some(Reading::Segment { from });
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
                at = (at + 1).next_multiple_of(SECTOR_SIZE);
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
            if header.group != group.id || header.index != before.prev_index.next() {
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
            before.next_offset = header.next_offset();
        }
        self.learned = Some(before);
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
