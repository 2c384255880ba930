//! One log's segments as this shard plans them: which file is written, how far it is synced, and
//! where in it a reader begins. Files themselves are net's.
//!
//! Committed blocks wait in the journal until enough of them make one large write. The write is
//! durable before a checkpoint says so, and the checkpoint is durable before the journal forgets.

use bytes::{BufMut, Bytes, BytesMut};

use crate::bugs::{self, Switch};
use crate::id::{Index, Lsn, Nanos, Offset, Term};
use crate::limits::SECTOR_SIZE;
use crate::log::checkpoint::Checkpoint;
use crate::log::ring::Strain;
use crate::log::segment::{SEGMENT_HEADER_SIZE, SegmentHeader};

use super::effects::SegmentWriteId;
use super::load::Purpose;
use super::locate::{Found, Job, Step, Want};
use super::open::node_tag;
use super::{Effect, Effects, Shard};

/// How long a write that found the disk full waits before it is tried again.
const FULL_PAUSE: Nanos = Nanos::from_millis(500);

/// With so few files left, blocks in older ones are written however few they are.
const FILES_FREE_LOW: u32 = 1;

/// Bytes between two places learned by reading, at least; a segment has so few of them.
const POINT_DISTANCE: u64 = 512 << 10;

/// A place in a segment at which a block begins, and what comes before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Point {
    pub(super) number: u32,
    pub(super) position: u64,
    pub(super) prev_index: Index,
    pub(super) prev_term: Term,
    /// Offset of the first record at or after this place.
    pub(super) next_offset: Offset,
}

/// How far a gathered write has come.
#[derive(Debug)]
enum Stage {
    Idle,
    /// Blocks are being collected; those that the cache has lost are read from the journal.
    Gathering(Gather),
    /// On its way to the disk, and what the checkpoint will say once it is there.
    Writing {
        write: SegmentWriteId,
        retry_at: Option<Nanos>,
        plan: Plan,
    },
    /// On the disk; the checkpoint waits for room in the journal.
    Stored(Plan),
    /// The checkpoint is in the run at this lsn.
    Checkpointing {
        lsn: Lsn,
        through: Index,
    },
}

/// Blocks collected for one write.
#[derive(Debug, Default)]
struct Gather {
    slices: Vec<Bytes>,
    size: usize,
    through: Index,
}

/// A write, and where the log's segments stand after it.
#[derive(Clone, Debug)]
struct Plan {
    number: u32,
    position: u64,
    buffer: Bytes,
    through: Index,
}

/// One log's segments.
#[derive(Debug)]
pub(super) struct Segments {
    /// Synced bytes of every segment, by number; the last is the active one.
    sizes: Vec<u64>,
    /// Ascending: one per segment from its header, and one per write since the start.
    points: Vec<Point>,
    stage: Stage,
    /// Bytes read at a time while looking for a block: one largest always fits.
    read_size: usize,
    /// The last gathering met a block that the journal has no more; tried again from then on.
    lost_until: Option<Nanos>,
}

impl Segments {
    /// A log's segments as recovery found them: `headers` of all files in order, and the synced
    /// size of the last.
    pub(super) fn recovered(headers: &[SegmentHeader], active_size: u64, read_size: usize) -> Self {
        let mut sizes = Vec::with_capacity(headers.len());
        let mut points = Vec::with_capacity(headers.len());
        for (number, header) in (0..).zip(headers) {
            if number > 0 {
                sizes.push(header.previous_size);
            }
            points.push(Point {
                number,
                position: SEGMENT_HEADER_SIZE as u64,
                prev_index: Index(header.first_index.0 - 1),
                prev_term: header.previous_term,
                next_offset: header.first_offset,
            });
        }
        if !headers.is_empty() {
            sizes.push(active_size);
        }
        Self {
            sizes,
            points,
            stage: Stage::Idle,
            lost_until: None,
            read_size,
        }
    }

    /// Bytes to read at a time.
    pub(super) fn read_size(&self) -> usize {
        self.read_size
    }

    /// Synced bytes of a segment.
    pub(super) fn size_of(&self, number: u32) -> u64 {
        self.sizes[number as usize]
    }

    /// Where a reader enters a segment at its beginning; none beyond the last.
    pub(super) fn first_point(&self, number: u32) -> Option<Point> {
        let at = self.points.partition_point(|point| point.number < number);
        self.points
            .get(at)
            .filter(|point| point.number == number)
            .copied()
    }

    /// The last known place at or before the block with this index.
    pub(super) fn point_of_index(&self, index: Index) -> Option<Point> {
        let at = self
            .points
            .partition_point(|point| point.prev_index < index);
        at.checked_sub(1).map(|at| self.points[at])
    }

    /// The last known place at or before the record with this offset.
    pub(super) fn point_of_offset(&self, offset: Offset) -> Option<Point> {
        let at = self
            .points
            .partition_point(|point| point.next_offset <= offset);
        at.checked_sub(1).map(|at| self.points[at])
    }

    /// Remembers a place that a reader came past, unless one is known near before it.
    pub(super) fn learn(&mut self, point: Point) {
        let at = self
            .points
            .partition_point(|known| known.prev_index <= point.prev_index);
        let is_known = at.checked_sub(1).is_some_and(|before| {
            let before = self.points[before];
            before.number == point.number && point.position < before.position + POINT_DISTANCE
        });
        // The end of a segment is the beginning of the next, which has a point already.
        if !is_known && point.position < self.size_of(point.number) {
            self.points.insert(at, point);
        }
    }

    fn active(&self) -> Option<u32> {
        self.sizes
            .len()
            .checked_sub(1)
            .map(|last| u32::try_from(last).expect("few segments"))
    }
}

impl Shard {
    /// Moves a group's segments on by whatever can be done now.
    pub(super) fn advance_segments(&mut self, now: Nanos, position: usize, effects: &mut Effects) {
        match &self.groups[position].segments.stage {
            Stage::Idle => self.maybe_gather(now, position, effects),
            Stage::Gathering(_) | Stage::Checkpointing { .. } => {}
            Stage::Writing { retry_at, .. } => {
                if retry_at.is_some_and(|at| at <= now) {
                    self.write_segment(position, effects);
                }
            }
            Stage::Stored(_) => self.put_checkpoint(position),
        }
    }

    /// Begins a write when enough waits, or when what waits keeps a journal file from reuse.
    fn maybe_gather(&mut self, now: Nanos, position: usize, effects: &mut Effects) {
        let group = &self.groups[position];
        let tail = group.tail();
        let decided = group.raft.commit().min(group.raft.durable());
        let waiting = tail.size_between(group.segmented, decided);
        if waiting == 0 || group.segments.lost_until.is_some_and(|until| now < until) {
            return;
        }
        let is_enough = waiting >= self.shape.segment_write_size as u64;
        let next = group.segmented.next();
        // Not the first block's place: that may have been put again, and the others not.
        let (covered, durable) = (group.segmented, self.journal.durable());
        let oldest = self.groups[position].needed_from(covered, durable);
        if is_enough || self.is_pressed(oldest) {
            self.groups[position].segments.stage = Stage::Gathering(Gather::default());
            self.gather(now, position, next, effects);
        }
    }

    /// Whether the journal soon wants the file that holds this run.
    fn is_pressed(&self, lsn: Lsn) -> bool {
        let ring = self.journal.ring();
        let is_old = ring.file_of(lsn) < ring.file_of(self.journal.durable());
        is_old && self.journal.pressure().files_free <= FILES_FREE_LOW
    }

    fn gather(&mut self, now: Nanos, position: usize, next: Index, effects: &mut Effects) {
        let group = &self.groups[position];
        let Stage::Gathering(gather) = &group.segments.stage else {
            panic!("only what is being gathered is gathered on")
        };
        let decided = group.raft.commit().min(group.raft.durable());
        let size_max = self.shape.segment_write_size - gather.size;
        let job = Job::new(Want::Index(next), decided, size_max);
        self.start_load(now, Purpose::Gather { position }, job, effects);
    }

    pub(super) fn on_gather_step(
        &mut self,
        now: Nanos,
        position: usize,
        step: Step,
        effects: &mut Effects,
    ) {
        let group = &mut self.groups[position];
        let Stage::Gathering(gather) = &mut group.segments.stage else {
            panic!("a gathered block belongs to a gathering")
        };
        let Step::Found(Found { last, slices, .. }) = step else {
            // A decided block that this disk has lost. It stays in the journal's books, the file
            // is never reused, and after a pause it is tried again.
            group.segments.stage = Stage::Idle;
            group.segments.lost_until = Some(now.after(FULL_PAUSE));
            return;
        };
        group.segments.lost_until = None;
        gather.size += slices.iter().map(Bytes::len).sum::<usize>();
        gather.slices.extend(slices);
        gather.through = last;
        let decided = group.raft.commit().min(group.raft.durable());
        if last < decided && gather.size < self.shape.segment_write_size / 2 {
            self.gather(now, position, last.next(), effects);
        } else {
            self.plan_segment(position, effects);
        }
    }

    /// Lays the gathered blocks out: behind what the active segment has, or in a new one.
    fn plan_segment(&mut self, position: usize, effects: &mut Effects) {
        let config = &self.config;
        let group = &mut self.groups[position];
        let stage = std::mem::replace(&mut group.segments.stage, Stage::Idle);
        let Stage::Gathering(gather) = stage else {
            panic!("planned what was not gathered")
        };
        let size = (gather.size + SEGMENT_HEADER_SIZE).next_multiple_of(SECTOR_SIZE);
        if !self.segment_memory.make_room(size) {
            // Earlier writes still hold the memory; the blocks are gathered again later.
            return;
        }
        let buffer: &mut BytesMut = self.segment_memory.current();
        let active = group.segments.active();
        let grows = active.filter(|number| {
            group.segments.size_of(*number) + gather.size as u64 <= self.shape.segment_size_max
        });
        let (number, at) = match grows {
            Some(number) => (number, group.segments.size_of(number)),
            None => {
                let before = group.segmented;
                let first = group
                    .tail()
                    .entry(before.next())
                    .expect("gathered from the tail");
                let number = active.map_or(0, |number| number + 1);
                let tail = group.tail();
                let header = SegmentHeader {
                    cluster: config.cluster,
                    node_tag: node_tag(config),
                    group: group.id,
                    segment: number,
                    first_index: before.next(),
                    first_offset: first.first_offset,
                    previous_term: tail.term_at(before).expect("just below the first"),
                    previous_sum: group.segmented_sum,
                    previous_size: active.map_or(0, |number| group.segments.size_of(number)),
                };
                buffer.put_slice(&header.encode());
                (number, 0)
            }
        };
        for slice in &gather.slices {
            buffer.put_slice(slice);
        }
        let padded = buffer.len().next_multiple_of(SECTOR_SIZE);
        buffer.resize(padded, 0);
        let buffer = self.segment_memory.cut().freeze();
        self.next_segment_write += 1;
        let write = SegmentWriteId(self.next_segment_write);
        let plan = Plan {
            number,
            position: at,
            buffer,
            through: gather.through,
        };
        self.groups[position].segments.stage = Stage::Writing {
            write,
            retry_at: None,
            plan,
        };
        self.write_segment(position, effects);
        if bugs::is_on(Switch::B36) {
            self.on_segment_stored(write);
        }
    }

    fn write_segment(&mut self, position: usize, effects: &mut Effects) {
        let group = &mut self.groups[position];
        let Stage::Writing {
            write,
            retry_at,
            plan,
        } = &mut group.segments.stage
        else {
            panic!("only a planned write is written")
        };
        *retry_at = None;
        effects.push(Effect::SegmentWrite {
            write: *write,
            group: group.id,
            number: plan.number,
            position: plan.position,
            buffer: plan.buffer.clone(),
        });
    }

    pub(super) fn on_segment_stored(&mut self, write: SegmentWriteId) {
        self.is_disk_full = false;
        let group = self.writing_group(write);
        let stage = std::mem::replace(&mut group.segments.stage, Stage::Idle);
        let Stage::Writing { plan, .. } = stage else {
            panic!("a write that was asked for")
        };
        group.segments.stage = Stage::Stored(plan);
    }

    /// No space: the journal still has the blocks, and the write is tried again.
    pub(super) fn on_segment_refused(&mut self, now: Nanos, write: SegmentWriteId) {
        self.is_disk_full = true;
        let group = self.writing_group(write);
        let Stage::Writing { retry_at, .. } = &mut group.segments.stage else {
            panic!("a write that was asked for")
        };
        *retry_at = Some(now.after(FULL_PAUSE));
    }

    fn writing_group(&mut self, id: SegmentWriteId) -> &mut super::group::Group {
        let is_it = |stage: &Stage| matches!(stage, Stage::Writing { write, .. } if *write == id);
        let group = self
            .groups
            .iter_mut()
            .find(|group| is_it(&group.segments.stage));
        group.expect("a write comes back to the group that asked for it")
    }

    /// Says in the journal how far the segments are synced.
    fn put_checkpoint(&mut self, position: usize) {
        assert!(
            self.open_block.is_none(),
            "items stand between blocks, not in them"
        );
        let group = &mut self.groups[position];
        let Stage::Stored(plan) = &group.segments.stage else {
            panic!("a checkpoint speaks of what is stored")
        };
        let plan = plan.clone();
        let before = group.segmented;
        let entry = *group
            .tail()
            .entry(plan.through)
            .expect("it waits for this checkpoint");
        let first = *group
            .tail()
            .entry(before.next())
            .expect("it waits for this checkpoint");
        let prev_term = group.tail().term_at(before).expect("just below the first");
        let size = plan.position + plan.buffer.len() as u64;
        let checkpoint = Checkpoint {
            group: group.id,
            index: plan.through,
            term: entry.term,
            block_sum: entry.sum,
            next_offset: entry.next_offset(),
            segment: plan.number,
            segment_size: size,
            producers: group.producers.snapshot_at(plan.through),
        };
        let Some(lsn) = self.journal.put_checkpoint(&checkpoint) else {
            return;
        };
        let segments = &mut group.segments;
        let header = if plan.position == 0 {
            SEGMENT_HEADER_SIZE as u64
        } else {
            0
        };
        segments.points.push(Point {
            number: plan.number,
            position: plan.position + header,
            prev_index: before,
            prev_term,
            next_offset: first.first_offset,
        });
        if plan.number as usize == segments.sizes.len() {
            segments.sizes.push(size);
        } else {
            segments.sizes[plan.number as usize] = size;
        }
        segments.stage = Stage::Checkpointing {
            lsn,
            through: plan.through,
        };
        group.segmented = plan.through;
        group.segmented_sum = entry.sum;
    }

    /// Runs below `durable` are on disk: checkpoints in them hold, and what they cover may go.
    pub(super) fn on_checkpoints_durable(&mut self, durable: Lsn) {
        for group in &mut self.groups {
            if let Stage::Checkpointing { lsn, through } = group.segments.stage
                && lsn < durable
            {
                group.segments.stage = Stage::Idle;
                group.raft.released(through);
                self.is_release_due = true;
            }
        }
        // What is needed also shrinks as the journal goes on, without any checkpoint: a file that
        // held only what checkpoints covered, or what was cut, is free once the next is begun.
        if self.journal.pressure().files_free <= FILES_FREE_LOW {
            self.is_release_due = true;
        }
    }

    /// At a turn's end: tells the journal below which run nothing is needed any more, and has what
    /// holds it up put again if time presses.
    pub(super) fn maybe_release_journal(&mut self, now: Nanos, effects: &mut Effects) {
        let is_due = std::mem::take(&mut self.is_release_due);
        if !is_due && self.journal.strain() == Strain::None {
            return;
        }
        let durable = self.journal.durable();
        let mut lowest = durable;
        for group in &mut self.groups {
            let covered = self.journal.checkpoint_durable(group.id);
            lowest = lowest.min(group.needed_from(covered, durable));
        }
        self.journal.release_below(lowest);
        self.carry_blocks(now, lowest, effects);
    }

    /// When a write that found the disk full is tried again.
    pub(super) fn segment_deadline(&self) -> Option<Nanos> {
        let retry = |group: &super::group::Group| match group.segments.stage {
            Stage::Writing { retry_at, .. } => retry_at,
            _ => None,
        };
        self.groups.iter().filter_map(retry).min()
    }
}
