//! One log's segments as this shard writes them: which file, how far, and when. Files themselves are
//! net's; where in them a reader begins is in `segment_map`.
//!
//! Committed blocks wait in the journal until enough of them make one large write. The write is
//! durable before a checkpoint says so, and the checkpoint is durable before the journal forgets.
//!
//! ```text
//!                           the last segment is full
//!  idle ─▶ gathering ──┬──────────▶ sealing ─────────┐ footer durable
//!    ▲                 └──────────────────────────▶ writing ─▶ stored ─▶ checkpointing ─┐ durable
//!    └──────────────────────────────────────────────────────────────────────────────────┘
//! ```
//! A crash in any of these finds what the last checkpoint says, and begins at idle again: whatever
//! stands behind the synced size, a footer too, is written over.

use bytes::{BufMut, Bytes, BytesMut};

use crate::bugs::{self, Switch};
use crate::id::{Index, Lsn, Nanos};
use crate::limits::SECTOR_SIZE;
use crate::log::checkpoint::Checkpoint;
use crate::log::footer::{FooterBuilder, SEGMENT_FOOTER_SIZE};
use crate::log::ring::Strain;
use crate::log::segment::{SEGMENT_HEAD_SIZE_MAX, SegmentHeader, SegmentState};

use super::chain::Link;
use super::effects::SegmentWriteId;
use super::group::Group;
use super::load::Purpose;
use super::locate::{Found, Job, Step, Want};
use super::open::node_tag;
use super::segment_map::{SegmentFile, SegmentMap};
use super::trim::Removal;
use super::walk::Before;
use super::{Effect, Effects, Shard};

/// How long a write that found the disk full waits before it is tried again.
const FULL_PAUSE: Nanos = Nanos::from_millis(500);

/// What stands in a segment instead of a block that is lost: no block begins so, nor does padding.
const BLANK: u8 = 0xFF;

/// With so few files left, blocks in older ones are written however few they are.
const FILES_FREE_LOW: u32 = 1;

/// How far a gathered write has come.
#[derive(Debug)]
enum Stage {
    Idle,
    /// Blocks are being collected; those that the cache has lost are read from the journal.
    Gathering(Gather),
    /// They go to a new segment: the footer of the one before is on its way to the disk.
    Sealing {
        footer: Write,
        gather: Gather,
    },
    /// On its way to the disk, and what the checkpoint will say once it is there.
    Writing {
        write: Write,
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
    /// The first of them that is not there, but for its place.
    lost: Option<Index>,
}

/// A write to a segment's file.
#[derive(Debug)]
struct Write {
    id: SegmentWriteId,
    number: u32,
    position: u64,
    buffer: Bytes,
    /// It found the disk full, and is tried again.
    retry_at: Option<Nanos>,
}

/// Where the log's segments stand after a write.
#[derive(Debug)]
struct Plan {
    file: SegmentFile,
    growing: FooterBuilder,
    through: Index,
    /// Byte at which a block should stand that is not there.
    wound: Option<u64>,
}

/// One log's segments.
#[derive(Debug)]
pub(super) struct Segments {
    /// What is synced.
    pub(super) map: SegmentMap,
    stage: Stage,
    /// The last gathering met a block that the journal has no more; tried again from then on.
    lost_until: Option<Nanos>,
}

impl Segments {
    /// A log's segments as recovery found them.
    pub(super) fn recovered(map: SegmentMap) -> Self {
        Self {
            map,
            stage: Stage::Idle,
            lost_until: None,
        }
    }

    /// Whether nothing is on its way that would come back.
    pub(super) fn may_be_dropped(&self) -> bool {
        match &self.stage {
            Stage::Gathering(_) => false,
            stage => stage.write().is_none_or(|write| write.retry_at.is_some()),
        }
    }
}

/// What is known of a segment without reading it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Extent {
    pub(super) file: SegmentFile,
    /// The block before its first.
    pub(super) before: Before,
    /// Index and sum of its last block.
    pub(super) last: Index,
    pub(super) sum: u32,
    /// Whether a footer ends it.
    pub(super) is_sealed: bool,
}

impl Extent {
    /// Its last block.
    pub(super) fn end(&self) -> Link {
        Link {
            index: self.last,
            sum: self.sum,
        }
    }
}

impl Group {
    /// What is known of a segment; none if there is no such segment.
    pub(super) fn segment_extent(&self, number: u32) -> Option<Extent> {
        let map = &self.segments.map;
        let file = *map.file(number)?;
        let header = file.header;
        let next = map.file(number + 1).map(|next| next.header);
        let (last, sum) = match next {
            Some(next) => (Index(next.first_index.0 - 1), next.previous_sum),
            None => (self.segmented, self.segmented_sum),
        };
        Some(Extent {
            file,
            before: Before::of_segment(&header),
            last,
            sum,
            is_sealed: next.is_some(),
        })
    }

    /// Whether a segment is being written, or soon will be, or is not vouched for as it is: a crash
    /// would bring back the checkpoint before, which says that it ends earlier, and through there its
    /// blocks must stand as they did. `covered` is what a durable checkpoint says is in segments.
    pub(super) fn is_writing_segment(&self, number: u32, covered: Index) -> bool {
        let stage = &self.segments.stage;
        let is_idle = matches!(stage, Stage::Idle | Stage::Checkpointing { .. });
        let is_busy = !is_idle || self.segmented > covered;
        let last = self.segments.map.last();
        is_busy && last.is_some_and(|last| last.header.segment == number)
    }
}

impl Stage {
    fn write(&self) -> Option<&Write> {
        match self {
            Self::Sealing { footer: write, .. } | Self::Writing { write, .. } => Some(write),
            _ => None,
        }
    }

    fn write_mut(&mut self) -> Option<&mut Write> {
        match self {
            Self::Sealing { footer: write, .. } | Self::Writing { write, .. } => Some(write),
            _ => None,
        }
    }
}

impl Shard {
    /// Moves a group's segments on by whatever can be done now.
    pub(super) fn advance_segments(&mut self, now: Nanos, position: usize, effects: &mut Effects) {
        let group = &self.groups[position];
        if group.segments.map.is_above_first(group.trims.start()) {
            self.put_release(position);
        }
        match &self.groups[position].segments.stage {
            Stage::Idle => self.maybe_gather(now, position, effects),
            Stage::Gathering(_) | Stage::Checkpointing { .. } => {}
            Stage::Sealing { footer: write, .. } | Stage::Writing { write, .. } => {
                if write.retry_at.is_some_and(|at| at <= now) {
                    self.write_segment(position, effects);
                }
            }
            Stage::Stored(_) => self.put_checkpoint(now, position, effects),
        }
    }

    /// Begins a write when enough waits, or when what waits keeps a journal file from reuse: unless it
    /// is little, then it goes round with the ring.
    fn maybe_gather(&mut self, now: Nanos, position: usize, effects: &mut Effects) {
        let group = &mut self.groups[position];
        group.is_carried = false;
        let tail = group.tail();
        let decided = group.raft.commit().min(group.raft.durable());
        let waiting = tail.size_between(group.segmented, decided);
        let last = group.segments.map.last();
        if last.is_some_and(|last| self.mends.needs_rest(position, last.header.segment)) {
            return;
        }
        if waiting == 0 || group.segments.lost_until.is_some_and(|until| now < until) {
            return;
        }
        let is_enough = waiting >= self.shape.segment_write_size as u64;
        let next = group.segmented.next();
        // Not the first block's place: that may have been put again, and the others not.
        let (covered, durable) = (group.segmented, self.journal.durable());
        let oldest = self.groups[position].needed_from(covered, durable);
        let may_carry = !is_enough && !self.repairs.has_refused(position);
        if may_carry && self.is_pressed(oldest) && self.carry.takes_decided(&self.shape, waiting) {
            self.groups[position].is_carried = true;
        } else if is_enough || self.is_pressed(oldest) {
            self.groups[position].segments.stage = Stage::Gathering(Gather::default());
            self.gather(now, position, next, effects);
        }
    }

    /// Whether the place of a block that this disk has lost may go to a segment without it: nobody has
    /// given it, and the journal wants its file. The segment is damaged from the start then, and as
    /// any damaged one it is mended once somebody gives the block; the journal goes on.
    fn may_leave_out(&mut self, position: usize, index: Index) -> bool {
        let covered = self.groups[position].segmented;
        let oldest = self.groups[position].needed_from(covered, self.journal.durable());
        self.repairs.is_refused(position, index) && self.is_pressed(oldest)
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
        let job = Job::new(&self.shape, Want::Index(next), decided, size_max);
        self.start_load(now, Purpose::Gather { position }, job, effects);
    }

    pub(super) fn on_gather_step(
        &mut self,
        now: Nanos,
        position: usize,
        step: Step,
        effects: &mut Effects,
    ) {
        let lost = match step {
            Step::Damaged(damage) => Some(damage.index),
            _ => None,
        };
        let lost = lost.filter(|index| self.may_leave_out(position, *index));
        let group = &mut self.groups[position];
        let size_of = |index| group.raft.tail().entry(index).map(|entry| entry.size);
        let blank = lost.and_then(|index| Some((index, size_of(index)?)));
        let Stage::Gathering(gather) = &mut group.segments.stage else {
            panic!("a gathered block belongs to a gathering")
        };
        let (last, slices) = match (step, blank) {
            (Step::Found(Found { last, slices, .. }), _) => (last, slices),
            (_, Some((index, size))) => {
                gather.lost.get_or_insert(index);
                (index, vec![Bytes::from(vec![BLANK; size as usize])])
            }
            // A decided block that this disk has lost. It stays in the journal's books, the file is
            // not reused, and after a pause it is tried again.
            _ => {
                group.segments.stage = Stage::Idle;
                group.segments.lost_until = Some(now.after(FULL_PAUSE));
                return;
            }
        };
        group.segments.lost_until = None;
        gather.size += slices.iter().map(Bytes::len).sum::<usize>();
        gather.slices.extend(slices);
        gather.through = last;
        let decided = group.raft.commit().min(group.raft.durable());
        if last < decided && gather.size < self.shape.segment_write_size / 2 {
            self.gather(now, position, last.next(), effects);
        } else {
            self.place_gathered(position, effects);
        }
    }

    /// Decides where the gathered blocks go: behind what the last segment has, or to a new one once
    /// that is sealed.
    fn place_gathered(&mut self, position: usize, effects: &mut Effects) {
        let segments = &mut self.groups[position].segments;
        let stage = std::mem::replace(&mut segments.stage, Stage::Idle);
        let Stage::Gathering(gather) = stage else {
            panic!("placed what was not gathered")
        };
        let last = segments.map.last();
        let is_full =
            |file: &SegmentFile| file.size + gather.size as u64 > self.shape.segment_size_max;
        if last.is_some_and(is_full) {
            self.seal_segment(position, gather, effects);
        } else {
            let grows = last.copied();
            self.plan_segment(position, gather, grows, effects);
        }
    }

    /// Ends the last segment with its footer. A crash finds it again unsealed, and what is written
    /// then may take the footer's place.
    fn seal_segment(&mut self, position: usize, gather: Gather, effects: &mut Effects) {
        if !self.segment_memory.make_room(SEGMENT_FOOTER_SIZE) {
            // Earlier writes still hold the memory; the blocks are gathered again later.
            return;
        }
        let group = &self.groups[position];
        let map = &group.segments.map;
        let file = *map.last().expect("only what was begun is sealed");
        let last = group.tail().base_at(group.segmented);
        let last = last.expect("just below what was gathered");
        let growing = map.growing();
        let footer = growing.footer(file.header, last, file.size, self.date);
        self.segment_memory.current().put_slice(&footer.encode());
        let footer = self.cut_write(file.header.segment, file.size);
        self.groups[position].segments.stage = Stage::Sealing { footer, gather };
        self.write_segment(position, effects);
    }

    /// Lays the gathered blocks out behind what the segment `grows` has, or in a new one.
    fn plan_segment(
        &mut self,
        position: usize,
        gather: Gather,
        grows: Option<SegmentFile>,
        effects: &mut Effects,
    ) {
        let size = gather.size + SEGMENT_HEAD_SIZE_MAX;
        if !self
            .segment_memory
            .make_room(size.next_multiple_of(SECTOR_SIZE))
        {
            // Earlier writes still hold the memory; the blocks are gathered again later.
            return;
        }
        let (mut file, mut growing) = match grows {
            Some(file) => {
                let growing = self.groups[position].segments.map.growing().clone();
                (file, growing)
            }
            None => {
                let (header, state) = self.segment_head(position);
                let buffer = self.segment_memory.current();
                for _ in 0..2 {
                    buffer.put_slice(&header.encode());
                    buffer.put_slice(&state);
                }
                let growing = FooterBuilder::new(u64::from(header.state.head_size));
                let (size, layout) = (0, 0);
                let file = SegmentFile {
                    header,
                    size,
                    layout,
                };
                (file, growing)
            }
        };
        let number = file.header.segment;
        let buffer: &mut BytesMut = self.segment_memory.current();
        let at = file.size;
        let mut place = at + buffer.len() as u64;
        for slice in &gather.slices {
            buffer.put_slice(slice);
        }
        let padded = buffer.len().next_multiple_of(SECTOR_SIZE);
        buffer.resize(padded, 0);
        file.size += padded as u64;
        let group = &self.groups[position];
        let mut prev_term = group.tail().term_at(group.segmented);
        let mut wound = None;
        for index in group.segmented.0 + 1..=gather.through.0 {
            let entry = group.tail().entry(Index(index));
            let entry = entry.expect("gathered from the tail");
            let term = prev_term.expect("just below the first");
            growing.push(entry, Index(index), place, term);
            if gather.lost == Some(Index(index)) {
                wound = Some(place);
            }
            prev_term = Some(entry.term);
            place += u64::from(entry.size);
        }
        let write = self.cut_write(number, at);
        let id = write.id;
        let through = gather.through;
        let plan = Plan {
            file,
            growing,
            through,
            wound,
        };
        self.groups[position].segments.stage = Stage::Writing { write, plan };
        self.write_segment(position, effects);
        if bugs::is_on(Switch::B36) {
            self.on_segment_stored(id, effects);
        }
    }

    /// The head of the group's next segment: its header, and the state behind it.
    pub(super) fn segment_head(&mut self, position: usize) -> (SegmentHeader, BytesMut) {
        let config = &self.config;
        let group = &mut self.groups[position];
        let before = group.segmented;
        let state = SegmentState {
            voters: group.raft.voters().to_vec(),
            producers: group.producers.snapshot_at(before),
        };
        let base = group.tail().base_at(before);
        let base = base.expect("just below what is not in segments");
        let (place, bytes) = state.encode(before, base.term);
        let map = &group.segments.map;
        let header = SegmentHeader {
            cluster: config.cluster,
            node_tag: node_tag(config),
            group: group.id,
            segment: map.next_number(),
            first_index: before.next(),
            first_offset: base.next_offset,
            previous_term: base.term,
            previous_sum: base.sum,
            previous_size: map.last().map_or(0, |last| last.size),
            made_at: self.date,
            state: place,
        };
        (header, bytes)
    }

    /// What was put into the memory being filled, as a write.
    fn cut_write(&mut self, number: u32, position: u64) -> Write {
        self.next_segment_write += 1;
        Write {
            id: SegmentWriteId(self.next_segment_write),
            number,
            position,
            buffer: self.segment_memory.cut().freeze(),
            retry_at: None,
        }
    }

    fn write_segment(&mut self, position: usize, effects: &mut Effects) {
        let group = &mut self.groups[position];
        let write = group.segments.stage.write_mut();
        let write = write.expect("only a planned write is written");
        write.retry_at = None;
        effects.push(Effect::SegmentWrite {
            write: write.id,
            group: group.id,
            number: write.number,
            position: write.position,
            buffer: write.buffer.clone(),
        });
    }

    pub(super) fn on_segment_stored(&mut self, write: SegmentWriteId, effects: &mut Effects) {
        self.is_disk_full = false;
        let position = self.writing_group(write);
        let stage = &mut self.groups[position].segments.stage;
        match std::mem::replace(stage, Stage::Idle) {
            Stage::Sealing { footer, gather } => {
                drop(footer); // Its memory may be what the next write needs.
                self.plan_segment(position, gather, None, effects);
            }
            Stage::Writing { plan, .. } => *stage = Stage::Stored(plan),
            _ => unreachable!("a stage that writes"),
        }
    }

    /// No space: the journal still has the blocks, and the write is tried again.
    pub(super) fn on_segment_refused(&mut self, now: Nanos, write: SegmentWriteId) {
        self.is_disk_full = true;
        let position = self.writing_group(write);
        let write = self.groups[position].segments.stage.write_mut();
        write.expect("a stage that writes").retry_at = Some(now.after(FULL_PAUSE));
    }

    fn writing_group(&self, id: SegmentWriteId) -> usize {
        let is_it = |group: &Group| {
            let write = group.segments.stage.write();
            write.is_some_and(|write| write.id == id)
        };
        let position = self.groups.iter().position(is_it);
        position.expect("a write comes back to the group that asked for it")
    }

    /// Says in the journal how far the segments are synced.
    fn put_checkpoint(&mut self, now: Nanos, position: usize, effects: &mut Effects) {
        let group = &mut self.groups[position];
        let Stage::Stored(plan) = &group.segments.stage else {
            panic!("a checkpoint speaks of what is stored")
        };
        let (file, blocks_sum, through) = (plan.file, plan.growing.blocks_sum(), plan.through);
        let wound = plan.wound;
        let Some(lsn) = self.put_checkpoint_at(position, through, file, blocks_sum) else {
            return;
        };
        let segments = &mut self.groups[position].segments;
        let stage = Stage::Checkpointing { lsn, through };
        if let Stage::Stored(plan) = std::mem::replace(&mut segments.stage, stage) {
            segments.map.grow(plan.file, plan.growing);
        }
        if let Some(byte) = wound {
            let number = file.header.segment;
            self.on_segment_damage(now, position, number, byte, effects);
        }
    }

    /// Says in the journal that the oldest segments are not kept any more. Whatever is under way goes
    /// on: on a full disk, what is to be written waits for just this.
    fn put_release(&mut self, position: usize) {
        let group = &self.groups[position];
        let (map, through) = (&group.segments.map, group.segmented);
        let last = *map.last().expect("only what was begun is given up");
        let blocks_sum = map.growing().blocks_sum();
        self.put_checkpoint_at(position, through, last, blocks_sum);
    }

    /// All through `through` is in segments, of which `last` grows.
    fn put_checkpoint_at(
        &mut self,
        position: usize,
        through: Index,
        last: SegmentFile,
        blocks_sum: u32,
    ) -> Option<Lsn> {
        assert!(
            self.open_block.is_none(),
            "items stand between blocks, not in them"
        );
        let group = &mut self.groups[position];
        let base = group.tail().base_at(through);
        let base = base.expect("it waits for this checkpoint");
        let first_segment = group.first_kept();
        let checkpoint = Checkpoint {
            group: group.id,
            index: base.index,
            term: base.term,
            block_sum: base.sum,
            next_offset: base.next_offset,
            segment: last.header.segment,
            segment_size: last.size,
            blocks_sum,
            start: group.trims.start(),
            first_segment,
            restores: false,
            producers: group.producers.snapshot_at(through),
        };
        let lsn = self.journal.put_checkpoint(&checkpoint)?;
        let map = &mut group.segments.map;
        if map.first_number() < first_segment {
            map.release_below(first_segment);
            group.removal = Some(Removal::new(first_segment, lsn));
        }
        group.segmented = through;
        group.segmented_sum = base.sum;
        Some(lsn)
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
        let retry = |group: &Group| group.segments.stage.write()?.retry_at;
        self.groups.iter().filter_map(retry).min()
    }
}
