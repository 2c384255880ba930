//! A look at all that this disk keeps, again and again: damage that nobody reads would otherwise be
//! found when the last sound copy is gone.
//!
//! Reads every segment, head, blocks and footer, and of the journal what no segment has; what it finds
//! goes the way of all damage, to `mend` and `repair`. One read at a time, no faster than a declared
//! rate, and after everybody else: while others read or write it waits, though not for ever. Keeps the
//! place it has come to. Knows no repair.

use bytes::Bytes;

use crate::id::{Index, Nanos};
use crate::limits::{SCRUB_DELAY, SCRUB_PERIOD, SCRUB_RATE_MAX, SECTOR_SIZE};
use crate::log::footer::{SEGMENT_FOOTER_SIZE, SegmentFooter};
use crate::log::segment::{SEGMENT_HEADER_SIZE, SegmentHeader, SegmentState};

use super::effects::Source;
use super::load::Purpose;
use super::locate::{Job, Step, Want};
use super::segments::Extent;
use super::walk::{Met, Walk};
use super::{Effects, Shard};

/// While others read or write, the scrub looks again after this.
const YIELD_PAUSE: Nanos = Nanos::from_millis(5);

/// So long it waits for others at most: a disk that is never idle is scrubbed all the same.
const YIELD_MAX: Nanos = Nanos::from_millis(200);

/// What is looked at next.
#[derive(Debug)]
enum Place {
    /// A log's segment, from its head on.
    Head { position: usize, number: u32 },
    /// Its blocks.
    Blocks {
        position: usize,
        extent: Extent,
        walk: Walk,
    },
    /// What ends it.
    Footer { position: usize, extent: Extent },
    /// Blocks of a log that are in the journal alone.
    Journal { position: usize, next: Index },
}

impl Place {
    /// The segment that is looked at, by its log's position and its number.
    fn segment(&self) -> Option<(usize, u32)> {
        match self {
            Self::Head { position, number } => Some((*position, *number)),
            Self::Blocks {
                position, extent, ..
            }
            | Self::Footer { position, extent } => Some((*position, extent.file.header.segment)),
            Self::Journal { .. } => None,
        }
    }
}

/// One look at everything.
#[derive(Debug)]
struct Pass {
    place: Place,
    begun_at: Nanos,
    /// Bytes a second, at most.
    rate: u64,
}

/// How far the looking has come.
#[derive(Debug)]
pub(super) struct Scrub {
    pass: Option<Pass>,
    /// Somebody has asked for one since it began: another follows, and only then is it over.
    is_asked: bool,
    /// A read is under way.
    is_reading: bool,
    /// Of the segment's file that was read last.
    layout: u32,
    /// Nothing is read before this.
    next_at: Nanos,
    /// Since when it waits for others.
    yields_since: Option<Nanos>,
    /// Bytes of this pass, or of the last one.
    pub(super) done_size: u64,
    /// Bytes that there were when it began.
    pub(super) total_size: u64,
    /// Passes that came to their end since the start.
    pub(super) pass_count: u64,
}

impl Scrub {
    pub(super) fn new(now: Nanos) -> Self {
        Self {
            pass: None,
            is_asked: false,
            is_reading: false,
            layout: 0,
            next_at: now.after(SCRUB_DELAY),
            yields_since: None,
            done_size: 0,
            total_size: 0,
            pass_count: 0,
        }
    }

    /// When something is to be read.
    pub(super) fn deadline(&self) -> Option<Nanos> {
        (!self.is_reading).then_some(self.next_at)
    }

    /// A read has brought so much: the next one comes when the rate allows.
    fn pace(&mut self, now: Nanos, size: u64) {
        self.is_reading = false;
        self.done_size += size;
        let rate = self.pass.as_ref().map_or(SCRUB_RATE_MAX, |pass| pass.rate);
        self.next_at = now.after(Nanos(size.saturating_mul(1_000_000_000) / rate));
    }
}

impl Shard {
    /// Somebody asks for a pass now: one begins, or the one under way hurries and another follows.
    pub(super) fn hurry_scrub(&mut self, now: Nanos) {
        self.mends.hurry(now);
        match &mut self.scrub.pass {
            Some(pass) => {
                pass.rate = SCRUB_RATE_MAX;
                self.scrub.is_asked = true;
            }
            None => self.begin_pass(now, SCRUB_RATE_MAX),
        }
        self.scrub.next_at = now;
    }

    fn begin_pass(&mut self, now: Nanos, rate: u64) {
        self.scrub.done_size = 0;
        self.scrub.total_size = self.scrubbed_size();
        self.scrub.pass = Some(Pass {
            place: Place::Head {
                position: 0,
                number: 0,
            },
            begun_at: now,
            rate,
        });
    }

    /// Bytes that a pass reads.
    fn scrubbed_size(&self) -> u64 {
        let sizes = self.groups.iter().map(|group| {
            let tail = group.tail();
            let journal = tail.size_between(group.segmented, group.raft.durable());
            group.segments.map.size() + journal
        });
        sizes.sum()
    }

    /// At a turn's end: reads on, if it is time and nobody else wants the disk.
    pub(super) fn advance_scrub(&mut self, now: Nanos, effects: &mut Effects) {
        if self.scrub.is_reading || now < self.scrub.next_at {
            return;
        }
        if self.scrub.pass.is_none() {
            // As slowly as the period allows.
            let rate = self.scrubbed_size() / (SCRUB_PERIOD.0 / 1_000_000_000);
            self.begin_pass(now, rate.clamp(SCRUB_RATE_MAX / 64, SCRUB_RATE_MAX));
        }
        if self.loads.len() > 0 || self.journal.is_writing() {
            let since = *self.scrub.yields_since.get_or_insert(now);
            if now < since.after(YIELD_MAX) {
                self.scrub.next_at = now.after(YIELD_PAUSE);
                return;
            }
        }
        self.scrub.yields_since = None;
        self.scrub_on(now, effects);
    }

    /// Asks for the next read, wherever that is.
    fn scrub_on(&mut self, now: Nanos, effects: &mut Effects) {
        loop {
            let pass = self.scrub.pass.as_mut().expect("a pass is under way");
            match &mut pass.place {
                Place::Head { position, .. } | Place::Journal { position, .. }
                    if *position == self.groups.len() =>
                {
                    let begun_at = pass.begun_at;
                    if std::mem::take(&mut self.scrub.is_asked) {
                        self.begin_pass(now, SCRUB_RATE_MAX);
                        continue;
                    }
                    self.scrub.pass = None;
                    self.scrub.pass_count += 1;
                    self.scrub.next_at = begun_at.after(SCRUB_PERIOD).max(now);
                    return;
                }
                Place::Head { position, number } => {
                    let (position, number) = (*position, *number);
                    let group = &self.groups[position];
                    let first = group.segments.map.first_number();
                    let number = number.max(first);
                    let Some(extent) = group.segment_extent(number) else {
                        let next = group.segmented.next();
                        pass.place = Place::Journal { position, next };
                        continue;
                    };
                    // Its turn comes again with the next pass.
                    if self.mends.is_known(position, number) {
                        pass.place = Place::Head {
                            position,
                            number: number + 1,
                        };
                        continue;
                    }
                    pass.place = Place::Head { position, number };
                    let size = extent.file.header.state.head_size as usize;
                    self.read_scrubbed(position, number, 0, size, effects);
                    return;
                }
                Place::Blocks {
                    position,
                    extent,
                    walk,
                } => {
                    let (begin, rest) = walk.rest();
                    let size = rest.min(self.shape.segment_read_size as u64);
                    let (position, number) = (*position, extent.file.header.segment);
                    let size = usize::try_from(size).expect("bounded");
                    self.read_scrubbed(position, number, begin, size, effects);
                    return;
                }
                Place::Footer { position, extent } => {
                    let (position, number) = (*position, extent.file.header.segment);
                    let at = extent.file.size;
                    self.read_scrubbed(position, number, at, SEGMENT_FOOTER_SIZE, effects);
                    return;
                }
                Place::Journal { position, next } => {
                    let (position, next) = (*position, *next);
                    let group = &self.groups[position];
                    let next = next.max(group.segmented.next());
                    let durable = group.raft.durable();
                    if next > durable {
                        pass.place = Place::Head {
                            position: position + 1,
                            number: 0,
                        };
                        continue;
                    }
                    pass.place = Place::Journal { position, next };
                    self.scrub.is_reading = true;
                    let want = Want::Index(next);
                    let size_max = self.shape.ring.run_size;
                    let job = Job::cold(&self.shape, want, durable, size_max);
                    self.start_load(now, Purpose::Scrub { position }, job, effects);
                    return;
                }
            }
        }
    }

    fn read_scrubbed(
        &mut self,
        position: usize,
        number: u32,
        begin: u64,
        size: usize,
        effects: &mut Effects,
    ) {
        self.scrub.is_reading = true;
        let group = &self.groups[position];
        let file = group.segments.map.file(number);
        self.scrub.layout = file.map_or(0, |file| file.layout);
        let source = Source::Segment {
            group: group.id,
            number,
        };
        self.load_for_scrub(source, begin, size, effects);
    }

    /// A piece of a segment.
    pub(super) fn on_scrub_loaded(&mut self, now: Nanos, bytes: &Bytes, effects: &mut Effects) {
        self.scrub.pace(now, bytes.len() as u64);
        let pass = self.scrub.pass.as_mut().expect("a pass is under way");
        // Written anew while it was read: it is looked at from its beginning.
        if let Some((position, number)) = pass.place.segment()
            && self.groups[position]
                .segments
                .map
                .is_replaced(number, self.scrub.layout)
        {
            pass.place = Place::Head { position, number };
            return;
        }
        match &mut pass.place {
            Place::Head { position, number } => {
                let (position, number) = (*position, *number);
                self.judge_head(now, position, number, bytes, effects);
            }
            Place::Blocks {
                position,
                extent,
                walk,
            } => {
                let (position, extent) = (*position, *extent);
                let (begin, rest) = walk.rest();
                let wanted = rest.min(self.shape.segment_read_size as u64);
                if (bytes.len() as u64) < wanted {
                    walk.cut(begin + bytes.len() as u64);
                }
                let bad = loop {
                    match walk.next(bytes, begin) {
                        Met::Block(_) => {}
                        Met::More => return,
                        Met::End if walk.is_whole() => break false,
                        Met::Gap | Met::End => break true,
                        Met::Island(_) | Met::Rest => unreachable!("it ends at the first gap"),
                    }
                };
                if bad {
                    let at = walk.position;
                    self.leave_segment(now, position, &extent, Some(at), effects);
                } else if extent.is_sealed {
                    pass.place = Place::Footer { position, extent };
                } else {
                    self.leave_segment(now, position, &extent, None, effects);
                }
            }
            Place::Footer { position, extent } => {
                let (position, extent) = (*position, *extent);
                let bad = !is_footer(&extent, bytes);
                let at = bad.then_some(extent.file.size);
                self.leave_segment(now, position, &extent, at, effects);
            }
            Place::Journal { .. } => unreachable!("jobs read the journal"),
        }
    }

    /// The header must be the one that memory has, the state what the header says, and both twice.
    fn judge_head(
        &mut self,
        now: Nanos,
        position: usize,
        number: u32,
        bytes: &Bytes,
        effects: &mut Effects,
    ) {
        // Removed while it was read: the next is looked at.
        let Some(extent) = self.groups[position].segment_extent(number) else {
            return;
        };
        let header = extent.file.header;
        if let Some(at) = damage_of_head(&header, bytes) {
            self.leave_segment(now, position, &extent, Some(at as u64), effects);
            return;
        }
        let begin = u64::from(header.state.head_size);
        let group = self.groups[position].id;
        let walk = Walk::new(group, extent.end(), extent.before, begin, extent.file.size);
        let pass = self.scrub.pass.as_mut().expect("a pass is under way");
        pass.place = Place::Blocks {
            position,
            extent,
            walk,
        };
    }

    /// All of a segment was looked at, or enough to know that it must be mended.
    fn leave_segment(
        &mut self,
        now: Nanos,
        position: usize,
        extent: &Extent,
        damage: Option<u64>,
        effects: &mut Effects,
    ) {
        let number = extent.file.header.segment;
        let pass = self.scrub.pass.as_mut().expect("a pass is under way");
        pass.place = Place::Head {
            position,
            number: number + 1,
        };
        if let Some(byte) = damage {
            self.on_segment_damage(now, position, number, byte, effects);
        }
    }

    /// Blocks of the journal. What is damaged among them is under repair by now.
    pub(super) fn on_scrub_step(&mut self, now: Nanos, position: usize, step: &Step) {
        let (through, size) = match step {
            Step::Found(found) => (found.last, found.size()),
            Step::Damaged(damage) => (damage.index, SECTOR_SIZE),
            // Cut, or in a segment by now.
            Step::Absent => (self.groups[position].raft.durable(), 0),
            Step::Read { .. } | Step::Indexed => {
                unreachable!("a read is asked for by whoever owns the job")
            }
        };
        self.scrub.pace(now, size as u64);
        let pass = self.scrub.pass.as_mut().expect("a pass is under way");
        pass.place = Place::Journal {
            position,
            next: through.next(),
        };
    }
}

/// Where the beginning of a file is not this header and a sound state, twice.
fn damage_of_head(header: &SegmentHeader, head: &[u8]) -> Option<usize> {
    let size = header.state.copy_size();
    let copies = [0, size].map(|at| (at, head.get(at..at + size).unwrap_or_default()));
    copies.into_iter().find_map(|(at, copy)| {
        if copy.get(..SEGMENT_HEADER_SIZE) != Some(&header.encode()[..]) {
            return Some(at);
        }
        let state = at + SEGMENT_HEADER_SIZE;
        SegmentState::check(header, &copy[SEGMENT_HEADER_SIZE..])
            .is_err()
            .then_some(state)
    })
}

/// Whether these bytes end this segment.
fn is_footer(extent: &Extent, bytes: &[u8]) -> bool {
    let Ok(footer) = SegmentFooter::check(bytes) else {
        return false;
    };
    let header = extent.file.header;
    footer.header == Some(header)
        && footer.node_tag == header.node_tag
        && (footer.group, footer.segment) == (header.group, header.segment)
        && footer.data_size == extent.file.size
        && (footer.last_index, footer.last_sum) == (extent.last, extent.sum)
}
