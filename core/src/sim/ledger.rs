//! What a node's disk must bring back: the oracle's own account, kept run by run.
//!
//! A run counts once its write and all before it are reported complete. After a crash the shard must
//! recover exactly that, or that and some of the runs behind it, in order: nothing less, nothing
//! else. What a shard claims to have durably is judged by this, never by its own word.

use std::collections::VecDeque;

use super::marks::Marks;
use super::runs::{Item, Run};
use crate::id::{GroupId, Index, Lsn};
use crate::log::ring::Ring;
use crate::log::{HardState, WriteId};
use crate::raft::Raft;

/// One group as a disk has it.
#[derive(Clone, Debug, Default)]
struct Held {
    hard: HardState,
    /// Sum of every block, the first of index 1.
    sums: Vec<u32>,
}

impl Held {
    fn apply(&mut self, item: Item) {
        match item {
            Item::Block { index, sum, .. } => {
                let at = usize::try_from(index.0 - 1).expect("small logs");
                assert!(at <= self.sums.len(), "a block leaves a hole behind it");
                self.sums.truncate(at);
                self.sums.push(sum);
            }
            Item::Hard { hard, .. } => {
                assert!(hard.term >= self.hard.term, "a durable term goes back");
                let is_kept = hard.term > self.hard.term
                    || self.hard.vote.is_none()
                    || hard.vote == self.hard.vote;
                assert!(
                    is_kept,
                    "a durable vote is moved or taken back: {:?} {hard:?}",
                    self.hard
                );
                self.hard = hard;
            }
            Item::Checkpoint {
                index,
                sum,
                restores: true,
                ..
            } => {
                // Sums below are nobody's any more: all of it is decided, and given up.
                let last = usize::try_from(index.0).expect("small logs");
                assert!(last > 0, "a log begins anew behind some block");
                self.sums = vec![0; last];
                self.sums[last - 1] = sum;
            }
            Item::Checkpoint { index, .. } => {
                let through = usize::try_from(index.0).expect("small logs");
                assert!(
                    through <= self.sums.len(),
                    "a checkpoint speaks of blocks unheard of"
                );
            }
        }
    }

    /// A group as it came back, on a disk that had `was`.
    fn of(raft: &Raft, was: &Self) -> Self {
        let tail = raft.tail();
        let base = tail.base().index.0 as usize;
        let mut sums = was.sums[..base.min(was.sums.len())].to_vec();
        sums.resize(base, 0);
        let durable = tail.entries().filter(|(index, _)| *index <= raft.durable());
        sums.extend(durable.map(|(_, entry)| entry.sum));
        Self {
            hard: raft.hard_state(),
            sums,
        }
    }

    /// Whether a group came back as this.
    fn is_found(&self, raft: &Raft) -> bool {
        let tail = raft.tail();
        let last = tail.last_index().0 as usize;
        last == self.sums.len()
            && (last == 0 || tail.last_sum() == self.sums[last - 1])
            && raft.hard_state() == self.hard
    }
}

#[derive(Debug)]
struct Issued {
    write: WriteId,
    run: Run,
    is_done: bool,
}

/// A run's place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Extent {
    pub(super) lsn: Lsn,
    pub(super) size: usize,
    has_blocks: bool,
}

/// What became of a disk that lost something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Damage {
    None,
    /// Nobody has recovered it since.
    Done,
    /// Somebody has, and may be in doubt.
    Found,
    /// And is in none any more.
    Mended,
}

/// One node's account.
#[derive(Debug)]
pub(super) struct Ledger {
    groups: Vec<GroupId>,
    durable: Vec<Held>,
    /// Runs sent to the disk and not durable, in order.
    issued: VecDeque<Issued>,
    /// Where the first write of a life goes, runs of earlier ones may lie that were torn: until that
    /// write is complete, what a crash leaves of it may be just what one of them lacked.
    written_over: Vec<VecDeque<Issued>>,
    /// Durable runs that still lie in the ring, by place.
    kept: VecDeque<Extent>,
    /// All below was durable, as some durable run says, or the persist record.
    witnessed: Lsn,
    ring: Ring,
    /// Counts writes that begin or end.
    write_count: u64,
    damage: Damage,
    /// What the disk had each time before a restart found a loss, until nothing is doubted any more.
    had: Vec<Vec<Held>>,
    /// What the last restart found, and how many of its runs were not durable; it counts once the
    /// new life's first write has begun, for that
    /// is when the journal is synced.
    found: Option<(Vec<Held>, usize)>,
}

impl Ledger {
    pub(super) fn new(groups: &[GroupId], ring: Ring) -> Self {
        Self {
            kept: VecDeque::new(),
            witnessed: Lsn(0),
            ring,
            write_count: 0,
            groups: groups.to_vec(),
            durable: vec![Held::default(); groups.len()],
            issued: VecDeque::new(),
            written_over: Vec::new(),
            damage: Damage::None,
            had: Vec::new(),
            found: None,
        }
    }

    /// Writes that have begun and writes that have ended: without another, nothing here changes.
    pub(super) fn write_count(&self) -> u64 {
        self.write_count
    }

    /// A write of runs begins.
    pub(super) fn on_store(&mut self, write: WriteId, opens_life: bool, runs: Vec<Run>) {
        self.write_count += 1;
        if let Some((found, beyond)) = self.found.take() {
            assert!(
                opens_life || beyond == 0,
                "a life goes on with what it found and did not sync"
            );
            self.durable = found;
            // What was found counts now, and what lies behind it is written over.
            let is_found = |issued: &Issued| issued.run.lsn < runs[0].lsn;
            let count = self.issued.partition_point(is_found);
            let behind = self.issued.split_off(count);
            if count > 0 {
                self.written_over.clear();
            }
            for issued in std::mem::take(&mut self.issued) {
                self.keep(&issued.run);
            }
            if !behind.is_empty() {
                self.written_over.push(behind);
            }
        }
        for run in runs {
            if let Some(last) = self.issued.back() {
                assert!(run.lsn > last.run.lsn, "runs are written in order");
            }
            self.issued.push_back(Issued {
                write,
                run,
                is_done: false,
            });
        }
    }

    /// A run is durable.
    fn keep(&mut self, run: &Run) {
        let Run {
            lsn,
            size,
            durable_through,
            ..
        } = *run;
        self.witnessed = self.witnessed.max(durable_through);
        let oldest = self.ring.file_of(lsn) + 1;
        let is_written_over = |extent: &Extent| {
            self.ring.file_of(extent.lsn) + u64::from(self.ring.file_count) < oldest
        };
        while self.kept.front().is_some_and(is_written_over) {
            self.kept.pop_front();
        }
        let is_block = |item: &Item| matches!(item, Item::Block { .. });
        let has_blocks = run.items.iter().any(is_block);
        self.kept.push_back(Extent {
            lsn,
            size,
            has_blocks,
        });
    }

    /// The persist record is about to say that all below was durable.
    pub(super) fn on_record(&self, through: Lsn) {
        assert!(
            through <= self.end(),
            "the persist record says more than the disk has: {through}"
        );
    }

    /// It says so, durably.
    pub(super) fn on_recorded(&mut self, through: Lsn) {
        self.witnessed = self.witnessed.max(through);
    }

    /// Durable runs of which a later one, or the persist record, says so: their loss can be seen.
    pub(super) fn witnessed(&self) -> Vec<Extent> {
        let is_below = |extent: &&Extent| extent.lsn.0 + extent.size as u64 <= self.witnessed.0;
        self.kept.iter().filter(is_below).copied().collect()
    }

    /// The first of these with blocks, from a place on.
    pub(super) fn witnessed_from(&self, place: Lsn) -> Option<Extent> {
        let mut witnessed = self.witnessed().into_iter();
        witnessed.find(|extent| extent.has_blocks && extent.lsn >= place)
    }

    /// Where the durable runs end.
    pub(super) fn end(&self) -> Lsn {
        let end = |last: &Extent| Lsn(last.lsn.0 + last.size as u64);
        self.kept.back().map_or(Lsn(0), end)
    }

    /// Durable runs of which no later one says so.
    pub(super) fn unwitnessed(&self) -> Vec<Extent> {
        let is_beyond = |extent: &&Extent| extent.lsn.0 + extent.size as u64 > self.witnessed.0;
        self.kept.iter().filter(is_beyond).copied().collect()
    }

    /// Whether some later run says that all below was durable.
    pub(super) fn is_witnessed(&self, end: Lsn) -> bool {
        end <= self.witnessed
    }

    /// Where the runs of a write that is under way end.
    pub(super) fn end_of(&self, write: WriteId) -> Lsn {
        let mut issued = self.issued.iter().rev();
        let last = issued.find(|issued| issued.write == write);
        let run = &last.expect("it is under way").run;
        Lsn(run.lsn.0 + run.size as u64)
    }

    /// A write of runs is complete.
    pub(super) fn on_stored(&mut self, write: WriteId) {
        self.write_count += 1;
        for issued in self
            .issued
            .iter_mut()
            .filter(|issued| issued.write == write)
        {
            issued.is_done = true;
        }
        while self.issued.front().is_some_and(|issued| issued.is_done) {
            let issued = self.issued.pop_front().expect("seen just now");
            self.written_over.clear();
            apply(&self.groups, &mut self.durable, &issued.run);
            self.keep(&issued.run);
        }
    }

    /// The process is gone: writes of its that are not complete never will be.
    pub(super) fn on_crash(&mut self) {
        for issued in &mut self.issued {
            // Numbers of writes begin anew with the next process.
            issued.write = WriteId(0);
        }
    }

    /// Judges what a restart found.
    pub(super) fn on_recovered<'r>(
        &mut self,
        rafts: impl Iterator<Item = &'r Raft> + Clone,
        marks: &mut Marks,
    ) {
        // Groups that lost nothing, whatever became of the others.
        let mut is_whole = vec![false; self.durable.len()];
        let rows = std::iter::once(&self.issued).chain(&self.written_over);
        let found = rows
            .enumerate()
            .find_map(|(at, row)| Some((at, self.find(row, rafts.clone(), &mut is_whole)?)));
        let Some((at, (held, beyond))) = found else {
            if self.damage != Damage::None {
                self.damage = Damage::Found;
                self.on_loss(rafts, &is_whole, marks);
                return;
            }
            let found: Vec<_> = rafts
                .map(|raft| {
                    (
                        raft.hard_state(),
                        raft.tail().last_index(),
                        raft.tail().last_sum(),
                        raft.doubt(),
                    )
                })
                .collect();
            let ends = |held: &[Held]| -> Vec<_> {
                held.iter()
                    .map(|held| (held.hard, held.sums.len(), held.sums.last().copied()))
                    .collect()
            };
            let mut all = self.durable.clone();
            for issued in &self.issued {
                apply(&self.groups, &mut all, &issued.run);
            }
            panic!(
                "a restart found what was never there: found {found:?}, durable {:?}, with all that \
                 was under way {:?}",
                ends(&self.durable),
                ends(&all),
            );
        };
        if at > 0 {
            std::mem::swap(&mut self.issued, &mut self.written_over[at - 1]);
        }
        if self.damage == Damage::Done {
            self.damage = Damage::Found;
        }
        marks.recoveries_beyond_promise += u64::from(beyond > 0);
        marks.recoveries_with_loss += u64::from(beyond < self.issued.len());
        let begins_anew = |held: &&Held| held.sums.len() > 1 && held.sums[0] == 0;
        marks.restores_found += held.iter().filter(begins_anew).count() as u64;
        self.found = Some((held, beyond));
    }

    /// What was found, if it is what was durable and some of these runs: that, and how many of them.
    fn find<'r>(
        &self,
        runs: &VecDeque<Issued>,
        rafts: impl Iterator<Item = &'r Raft> + Clone,
        is_whole: &mut [bool],
    ) -> Option<(Vec<Held>, usize)> {
        let mut held = self.durable.clone();
        let mut runs = runs.iter();
        let mut beyond = 0;
        loop {
            let mut is_found = true;
            for ((raft, held), is_whole) in rafts.clone().zip(&held).zip(&mut *is_whole) {
                is_found &= held.is_found(raft);
                *is_whole |= held.is_found(raft);
            }
            if is_found {
                return Some((held, beyond));
            }
            apply(&self.groups, &mut held, &runs.next()?.run);
            beyond += 1;
        }
    }

    /// What a damaged disk brought back: whatever is missing must be doubted.
    fn on_loss<'r>(
        &mut self,
        rafts: impl Iterator<Item = &'r Raft>,
        is_whole: &[bool],
        marks: &mut Marks,
    ) {
        let mut found = Vec::with_capacity(self.durable.len());
        for ((raft, was), is_whole) in rafts.zip(&self.durable).zip(is_whole) {
            let is = Held::of(raft, was);
            let doubt = raft.doubt();
            let has_blocks = *is_whole || is.sums.starts_with(&was.sums);
            assert!(
                has_blocks || doubt.lacks_blocks(),
                "lost blocks are not missed"
            );
            // What was on its way may have come there: a vote in the same term, or a later term.
            let is_later = is.hard.term == was.hard.term && was.hard.vote.is_none();
            let has_vote = is.hard.term > was.hard.term || is_later || is.hard == was.hard;
            assert!(
                *is_whole || has_vote || doubt.vote,
                "a lost vote is not missed: {:?} was {:?}",
                is.hard,
                was.hard
            );
            marks.losses_doubted += u64::from(doubt.is_any());
            found.push(is);
        }
        self.had.push(self.durable.clone());
        self.found = Some((found, self.issued.len()));
    }

    /// Promised bytes of this disk are not what they were.
    pub(super) fn damage(&mut self) {
        self.damage = Damage::Done;
    }

    /// They are, after all.
    pub(super) fn spare(&mut self) {
        self.damage = Damage::None;
    }

    /// Whether whoever reads this disk has recovered from its damage since this was last asked.
    pub(super) fn take_mended(&mut self) -> bool {
        let is_mended = self.damage == Damage::Mended;
        if is_mended {
            self.damage = Damage::None;
            self.had.clear();
        }
        is_mended
    }

    /// After a step of whoever reads it. Blocks that were brought back stand in copies, of which
    /// this account knows nothing: they are believed, for nobody counts them before.
    pub(super) fn mend<'r>(&mut self, rafts: impl Iterator<Item = &'r Raft> + Clone) {
        if self.damage != Damage::Found || self.found.is_some() {
            return;
        }
        let is_open = self.issued.iter().any(|issued| !issued.is_done);
        for (raft, held) in rafts.clone().zip(&mut self.durable) {
            let durable = raft.durable();
            let has = held.sums.len() as u64 >= durable.0;
            if !has {
                *held = Held {
                    hard: held.hard,
                    ..Held::of(raft, held)
                };
            }
        }
        if !is_open && rafts.into_iter().all(|raft| !raft.doubt().is_any()) {
            self.damage = Damage::Mended;
        }
    }

    /// Whether this disk has the block with this index and sum, whatever happens.
    pub(super) fn has(&self, group: usize, index: Index, sum: u32) -> bool {
        let at = index.0.checked_sub(1).map(|at| at as usize);
        at.is_none_or(|at| self.durable[group].sums.get(at) == Some(&sum))
    }

    /// Whether a leader may count this disk: it has the block, or had it when it said so, and its node
    /// doubts its log since.
    pub(super) fn counts(&self, group: usize, index: Index, sum: u32) -> bool {
        let at = index.0 as usize - 1;
        let had = |had: &Vec<Held>| had[group].sums.get(at) == Some(&sum);
        self.has(group, index, sum) || self.had.iter().any(had)
    }

    /// Index through which this disk has the group, whatever happens.
    pub(super) fn index(&self, group: usize) -> Index {
        Index(self.durable[group].sums.len() as u64)
    }

    /// Term and vote that this disk has, whatever happens.
    pub(super) fn hard(&self, group: usize) -> HardState {
        self.durable[group].hard
    }
}

fn apply(groups: &[GroupId], held: &mut [Held], run: &Run) {
    for item in &run.items {
        let (Item::Block { group, .. } | Item::Hard { group, .. } | Item::Checkpoint { group, .. }) =
            *item;
        let position = groups.iter().position(|known| *known == group);
        held[position.expect("a group of this cluster")].apply(*item);
    }
}
