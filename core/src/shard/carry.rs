//! Blocks that the journal's oldest file holds and that cannot leave it otherwise are put again at
//! the head: a group that decides nothing, or whose segments take nothing, must not stop the others.
//! So are the few decided blocks of a small log, up to a part of the ring: to write a segment for
//! each such log would cost a sync each.
//!
//! Walks the tails once for a file, a few reads at a time. Knows no quorum and no segment, only what
//! is still needed of that file.
//!
//! ```text
//!  needed of the oldest file ─▶ read, unless cached ─▶ put at the head ─▶ durable there: the tail
//!  says so ─▶ the file is not needed ─▶ a durable flush says so ─▶ the file is entered again
//! ```
//! The old place counts until the new one is durable. A crash before that finds both; the newer one
//! wins, and they are the same bytes.

use std::collections::VecDeque;

use crate::id::{Index, Lsn, Nanos};
use crate::limits::CARRY_READ_MAX;
use crate::log::Place;
use crate::log::block::{Block, blocks};
use crate::log::ring::Strain;

use super::load::Purpose;
use super::locate::{Job, Step, Want, same_run};
use super::{Effects, Shape, Shard};

/// Where something stayed behind in the file, it is looked for again after so long: what the journal
/// had no room for, or the disk did not give back.
const AGAIN_PAUSE: Nanos = Nanos::from_millis(20);

/// Between two files, once as much was put again as the ring holds and that made no room: all of it
/// is needed, and only what comes from outside can change that.
const VAIN_PAUSE: Nanos = Nanos::from_millis(2_000);

/// What a walk is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Goal {
    /// The file to be emptied.
    file: u64,
    strain: Strain,
}

/// A block put again, until it is durable there.
#[derive(Clone, Copy, Debug)]
struct Moved {
    position: usize,
    index: Index,
    sum: u32,
    place: Place,
}

/// How far a walk has come.
#[derive(Debug, Default)]
pub(super) struct Carry {
    goal: Option<Goal>,
    /// The group that is being walked, and the next block to look at.
    position: usize,
    next: Index,
    read_count: usize,
    /// In the order of their places.
    moved: VecDeque<Moved>,
    /// Bytes put again in this turn.
    put_size: usize,
    /// Bytes of decided blocks that are to be put again, as this turn has found so far.
    decided_size: u64,
    /// Bytes put again since the journal was last under no strain.
    vain_size: u64,
    /// When the next file may be begun, if that was in vain.
    vain_until: Nanos,
    /// When the walk may begin anew, should the file be needed still.
    again_at: Nanos,
}

impl Carry {
    /// Before it is looked which logs have little.
    pub(super) fn begin_turn(&mut self) {
        self.decided_size = 0;
    }

    /// Whether so many decided bytes of a log are put again rather than written.
    pub(super) fn takes_decided(&mut self, shape: &Shape, size: u64) -> bool {
        let is_little = size < shape.segment_write_size_min();
        let takes = is_little && self.decided_size + size <= shape.carried_size_max();
        if takes {
            self.decided_size += size;
        }
        takes
    }
}

impl Shard {
    /// At a turn's end: sees to it that the file which holds the lowest needed run, `lowest`, is
    /// emptied in time.
    pub(super) fn carry_blocks(&mut self, now: Nanos, lowest: Lsn, effects: &mut Effects) {
        assert!(
            self.open_block.is_none(),
            "the open block is finished first"
        );
        self.carry.put_size = 0;
        let ring = *self.journal.ring();
        let (file, strain) = (ring.file_of(lowest), self.journal.strain());
        if strain == Strain::None {
            self.carry.vain_size = 0;
        }
        let is_idle = strain == Strain::None && self.carry.decided_size == 0;
        if is_idle || file >= ring.file_of(self.journal.durable()) {
            self.carry.goal = None;
            return;
        }
        let goal = Goal { file, strain };
        let is_over = self.carry.position == self.groups.len();
        if self.carry.goal != Some(goal) || is_over {
            let is_under_way = self.carry.read_count > 0 || !self.carry.moved.is_empty();
            let is_same = self.carry.goal == Some(goal);
            if is_under_way || is_same && now < self.carry.again_at {
                return;
            }
            // Votes that are short of room make some themselves, by what they leave behind.
            let is_vain = strain == Strain::Undecided
                && self.carry.vain_size >= ring.file_size * u64::from(ring.file_count);
            if is_vain {
                if now < self.carry.vain_until {
                    return;
                }
                self.carry.vain_until = now.after(VAIN_PAUSE);
            }
            self.carry.goal = Some(goal);
            (self.carry.position, self.carry.next) = (0, Index(0));
            self.carry.again_at = now.after(AGAIN_PAUSE);
        }
        let size_max = ring.run_size;
        while self.carry.read_count < CARRY_READ_MAX && self.carry.put_size < size_max {
            let Some((position, first)) = self.next_in_file(goal) else {
                break;
            };
            let tail = self.groups[position].tail();
            let (last, _) = same_run(tail, first, tail.last_index(), size_max);
            self.carry.next = last.next();
            self.carry.read_count += 1;
            let job = Job::new(&self.shape, Want::Index(first), last, size_max);
            self.start_load(now, Purpose::Carry { position }, job, effects);
        }
    }

    /// The next block that must leave the file: its group's position, and its index.
    fn next_in_file(&mut self, goal: Goal) -> Option<(usize, Index)> {
        let ring = *self.journal.ring();
        let durable = self.journal.durable();
        while let Some(group) = self.groups.get(self.carry.position) {
            // What a checkpoint on its way covers needs no copy any more.
            let kept = match goal.strain {
                Strain::All => Some(group.segmented),
                _ if group.is_carried => Some(group.segmented),
                Strain::Undecided => Some(group.raft.commit()),
                Strain::None => None,
            };
            let Some(kept) = kept else {
                self.carry.position += 1;
                self.carry.next = Index(0);
                continue;
            };
            let tail = group.tail();
            let mut index = self.carry.next.max(kept.next());
            while let Some(entry) = tail.entry(index) {
                let lsn = entry.place.lsn;
                if ring.file_of(lsn) <= goal.file {
                    self.carry.next = index;
                    return Some((self.carry.position, index));
                }
                if lsn >= durable {
                    break; // All behind it is as new.
                }
                index = index.next();
            }
            self.carry.position += 1;
            self.carry.next = Index(0);
        }
        None
    }

    pub(super) fn on_carry_step(&mut self, position: usize, step: Step) {
        self.carry.read_count -= 1;
        // Cut meanwhile, or not to be read: the next walk sees.
        let (Step::Found(found), Some(goal)) = (step, self.carry.goal) else {
            return;
        };
        self.close_block();
        let ring = *self.journal.ring();
        for block in found.slices.iter().flat_map(|slice| blocks(slice)) {
            let block = block.expect("what was found is whole");
            let (index, sum) = (block.header().index, block.header().sum);
            let entry = self.groups[position].tail().entry(index);
            let is_needed = entry.is_some_and(|entry| {
                entry.sum == sum && ring.file_of(entry.place.lsn) <= goal.file
            });
            if !is_needed {
                continue;
            }
            if self.put_again(position, &block).is_none() {
                return;
            }
            self.carry.put_size += block.bytes().len();
            self.carry.vain_size += block.bytes().len() as u64;
        }
    }

    /// Puts a block at the journal's head once more, and says the run's lsn. None is backpressure. A
    /// block that the tail does not mean any more is not put, and counts as if it were.
    pub(super) fn put_again(&mut self, position: usize, block: &Block<'_>) -> Option<Lsn> {
        let (index, sum) = (block.header().index, block.header().sum);
        let entry = self.groups[position].tail().entry(index);
        if entry.is_none_or(|entry| entry.sum != sum) {
            return Some(self.journal.durable());
        }
        let place = self.journal.carry_block(block)?;
        self.carry.moved.push_back(Moved {
            position,
            index,
            sum,
            place,
        });
        Some(place.lsn)
    }

    /// Runs below `durable` are on disk: blocks that were put again are read there from now on.
    pub(super) fn settle_carried(&mut self, durable: Lsn) {
        let is_durable = |moved: &mut Moved| moved.place.lsn < durable;
        while let Some(moved) = self.carry.moved.pop_front_if(is_durable) {
            let group = &mut self.groups[moved.position];
            // It may have been cut since, and even been sent again.
            let is_it = group
                .tail()
                .entry(moved.index)
                .is_some_and(|entry| entry.sum == moved.sum && entry.place.lsn < moved.place.lsn);
            if is_it {
                group.raft.carried(moved.index, moved.place);
                group.need.on_carried(moved.index);
                self.is_release_due = true;
            }
        }
    }
}
