//! From the items of accepted flushes, in order, to what each group is.
//!
//! Keeps a group's latest hard state and checkpoint, and its blocks above. Knows no file and no
//! sum of a flush: what it is given has been accepted.
//!
//! - A block cuts the tail from its index on, then stands at its end: that is how Raft overruled
//!   what stood there (thesis 3.5), in the order in which it did.
//! - A checkpoint makes the blocks up to its index unneeded. One that restores makes all blocks
//!   before it void.
//! - A block above a hole starts the tail anew. A hole is no damage yet: the missing blocks
//!   were in a file that is gone, and a checkpoint that covers them is still to come. At the end
//!   there must be no hole left.
//! - A copy repeats a block whose first place is given up. It overrules nothing, and is only asked
//!   for where the first writing is gone.

use std::collections::{BTreeMap, VecDeque};

use super::block::Block;
use super::checkpoint::Checkpoint;
use super::flush::{FlushHeader, Item};
use super::producer_table::Note;
use super::producers::Producers;
use super::recovered::GroupState;
use super::tail::{Base, Entry, Tail};
use super::trims::Trims;
use super::{HardState, Place};
use crate::bugs::{self, Switch};
use crate::id::{GroupId, Index, Offset};

/// A group as recovery found it.
#[derive(Clone, Debug)]
pub struct GroupRecovered {
    /// Its latest term and vote.
    pub hard: HardState,
    /// Its latest checkpoint.
    pub checkpoint: Option<Checkpoint>,
    /// Its blocks above the checkpoint.
    pub tail: Tail,
    /// Its producers as of the end of the tail.
    pub producers: Producers,
    /// Where it begins, and the trims in the tail.
    pub trims: Trims,
}

/// The items contradict each other: the group, and the block or 0.
pub(super) type Contradiction = (GroupId, Index);

/// What a journal's items add up to.
#[derive(Debug)]
pub(super) struct Replayed {
    pub(super) groups: BTreeMap<GroupId, GroupRecovered>,
    /// The journal's own memory of the same groups.
    pub(super) states: BTreeMap<GroupId, GroupState>,
}

#[derive(Debug)]
struct Written {
    entry: Entry,
    previous_sum: u32,
}

#[derive(Debug, Default)]
struct GroupReplay {
    hard: HardState,
    checkpoint: Option<Checkpoint>,
    /// Index of the first of `blocks`, if there are any.
    first: Index,
    blocks: VecDeque<Written>,
    /// Copies by index.
    copies: BTreeMap<Index, Written>,
    /// Appends above the checkpoint, by index.
    notes: BTreeMap<Index, Vec<Note>>,
    /// Trims above the checkpoint, by index.
    trims: BTreeMap<Index, Offset>,
}

#[derive(Debug, Default)]
pub(super) struct Replay {
    groups: BTreeMap<GroupId, GroupReplay>,
}

impl Replay {
    /// Takes the next item, which stands at `offset` in the flush with this header.
    pub(super) fn apply(
        &mut self,
        flush: &FlushHeader,
        offset: u32,
        item: &Item<'_>,
    ) -> Result<(), Contradiction> {
        match item {
            Item::Block(block) => {
                let group = self.groups.entry(block.header().group).or_default();
                let lsn = flush.lsn;
                group.apply_block(block, flush.copies, Place { lsn, offset })
            }
            Item::HardState { group: id, hard } => {
                let group = self.groups.entry(*id).or_default();
                if hard.term < group.hard.term {
                    return Err((*id, Index(0)));
                }
                group.hard = *hard;
                Ok(())
            }
            Item::Checkpoint(checkpoint) => {
                let id = checkpoint.group;
                self.groups
                    .entry(id)
                    .or_default()
                    .apply_checkpoint(checkpoint)
            }
        }
    }

    /// What the groups are after the last item.
    pub(super) fn finish(self) -> Result<Replayed, Contradiction> {
        let mut recovered = BTreeMap::new();
        let mut states = BTreeMap::new();
        for (id, group) in self.groups {
            states.insert(id, group.state());
            recovered.insert(id, group.finish(id)?);
        }
        Ok(Replayed {
            groups: recovered,
            states,
        })
    }
}

impl GroupReplay {
    fn base(&self) -> Base {
        self.checkpoint
            .as_ref()
            .map_or_else(Base::default, Checkpoint::base)
    }

    fn apply_block(
        &mut self,
        block: &Block<'_>,
        copy: bool,
        place: Place,
    ) -> Result<(), Contradiction> {
        let header = block.header();
        let index = header.index;
        if index <= self.base().index {
            // In segments since before this was written: nothing to learn.
            return Ok(());
        }
        let entry = Entry {
            term: header.term,
            size: header.size,
            sum: header.sum,
            place,
            first_offset: header.first_offset,
            record_count: header.record_count,
        };
        let written = Written {
            entry,
            previous_sum: header.previous_sum,
        };
        if copy {
            self.copies.insert(index, written);
        } else {
            self.truncate_from(index);
            if self.blocks.is_empty() || index != self.next() {
                self.blocks.clear();
                self.first = index;
            }
            self.blocks.push_back(written);
        }
        let notes = block
            .appends()
            .filter(|append| append.header.record_count > 0);
        let notes =
            notes.map(|append| Note::new(index, header.term, &append.header, append.first_offset));
        self.notes.insert(index, notes.collect());
        if let Some(before) = block.trim() {
            self.trims.insert(index, before);
        }
        Ok(())
    }

    /// Index after the last block.
    fn next(&self) -> Index {
        Index(self.first.0 + self.blocks.len() as u64)
    }

    fn truncate_from(&mut self, index: Index) {
        let kept = index
            .0
            .saturating_sub(self.first.0)
            .min(self.blocks.len() as u64);
        self.blocks.truncate(kept as usize);
        self.copies.split_off(&index);
        self.notes.split_off(&index);
        self.trims.split_off(&index);
    }

    fn apply_checkpoint(&mut self, checkpoint: &Checkpoint) -> Result<(), Contradiction> {
        let index = checkpoint.index;
        if index < self.base().index {
            return Err((checkpoint.group, index));
        }
        if checkpoint.restores {
            self.blocks.clear();
            self.copies.clear();
            self.notes.clear();
            self.trims.clear();
        }
        while !self.blocks.is_empty() && self.first <= index {
            let block = self.blocks.pop_front().expect("not empty");
            if self.first == index && block.entry.sum != checkpoint.block_sum {
                return Err((checkpoint.group, index));
            }
            self.first = self.first.next();
        }
        let above = index.next();
        self.copies = self.copies.split_off(&above);
        self.notes = self.notes.split_off(&above);
        self.trims = self.trims.split_off(&above);
        self.checkpoint = Some(checkpoint.clone());
        Ok(())
    }

    fn state(&self) -> GroupState {
        let checkpoint = self.checkpoint.as_ref();
        GroupState {
            hard: self.hard,
            checkpoint: checkpoint.map(|checkpoint| {
                let repeated = Checkpoint {
                    restores: false,
                    ..checkpoint.clone()
                };
                (checkpoint.index, repeated.encode())
            }),
            checkpoint_durable: self.base().index,
        }
    }

    /// Joins checkpoint, copies and blocks without a hole, each naming the one before by its sum.
    fn finish(mut self, id: GroupId) -> Result<GroupRecovered, Contradiction> {
        let base = self.base();
        let mut tail = Tail::new(base);
        let mut blocks = std::mem::take(&mut self.blocks);
        loop {
            let index = tail.last_index().next();
            let copied = self.copies.remove(&index);
            let written = if index < self.first {
                None
            } else {
                blocks.pop_front()
            };
            // The copy's place outlives the first one.
            let same = match (&written, &copied) {
                (Some(written), Some(copied)) => written.entry.sum == copied.entry.sum,
                _ => true,
            };
            let Some(next) = copied.or(written) else {
                break;
            };
            let chained = next.previous_sum == tail.last_sum();
            if !same || !chained || !tail.accepts(&next.entry) {
                return Err((id, index));
            }
            tail.push_recovered(next.entry);
        }
        if !blocks.is_empty() || !self.copies.is_empty() {
            return Err((id, tail.last_index().next()));
        }
        let table = self
            .checkpoint
            .as_ref()
            .map(|checkpoint| checkpoint.producers.clone());
        let mut producers = Producers::new(table.unwrap_or_default(), base.index);
        for note in self.notes.into_values().flatten() {
            if !bugs::is_on(Switch::B76) {
                producers.push(note);
            }
        }
        let start = self.checkpoint.as_ref().map(|checkpoint| checkpoint.start);
        let mut trims = Trims::new(start.unwrap_or_default());
        for (index, before) in self.trims {
            trims.note(index, before);
        }
        Ok(GroupRecovered {
            hard: self.hard,
            checkpoint: self.checkpoint,
            tail,
            producers,
            trims,
        })
    }
}
