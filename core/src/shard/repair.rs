//! Blocks of the journal that cannot be read any more: fetched from peers by their sums, which the
//! tail knows, and put again at the journal's head.
//!
//! Keeps what was found damaged and what has come of it. Whoever met it is told at once that the
//! block is damaged, and finds it when it comes again. Knows no read and no wire.
//!
//! ```text
//!  a read is not what was written ─▶ asked of peers ─▶ put at the head ─▶ durable there: the tail
//!       ▲                               │              says so, and the damage is healed
//!       │ after a pause                 ▼
//!       └──────────────── nobody gave it, or the journal has no room
//! ```
//! Until the copy is durable the old place counts, as for any block that is carried: a crash in
//! between finds the damage again, and the copy, or not.

use std::fmt::Write as _;

use crate::id::{Index, Lsn, Nanos, NodeId};
use crate::limits::REPAIR_COUNT_MAX;
use crate::log::block::blocks;

use super::ask::{Asker, Lost, Told, Word};
use super::effects::Source;
use super::locate::{Damage, same_run};
use super::{Effects, Shard};

/// What nobody could give is asked for again after this: a peer may have come back.
const AGAIN_PAUSE: Nanos = Nanos::from_millis(5_000);

/// Bytes asked for behind a damaged block of the same run: what hit it may have hit them, too.
const NEAR_SIZE: usize = 64 << 10;

/// How far the repair of one stretch has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// To be asked for, not before this.
    Due(Nanos),
    Asking,
    /// Put into the run at this lsn.
    Put(Lsn),
}

/// Blocks of one run that this disk has lost.
#[derive(Clone, Debug)]
struct Repair {
    position: usize,
    damage: Damage,
    lost: Lost,
    stage: Stage,
    /// Why nobody gave them, the last time.
    words: Vec<(NodeId, Word)>,
}

/// What is damaged in the journal, and what was.
#[derive(Debug, Default)]
pub(super) struct Repairs {
    list: Vec<Repair>,
    /// Stretches found damaged since the start.
    pub(super) found_count: u64,
    /// Those of them that are healed, or not needed any more.
    pub(super) healed_count: u64,
}

impl Repairs {
    /// Whether all peers were asked for this block of a log, in vain.
    pub(super) fn is_refused(&self, position: usize, index: Index) -> bool {
        let mut refused = self.refused(position);
        refused.any(|lost| (lost.first..=lost.last).contains(&index))
    }

    /// Whether they were for any block of a log.
    pub(super) fn has_refused(&self, position: usize) -> bool {
        self.refused(position).next().is_some()
    }

    fn refused(&self, position: usize) -> impl Iterator<Item = Lost> {
        let refused = self.list.iter().filter(move |repair| {
            let is_open = !matches!(repair.stage, Stage::Put(_));
            repair.position == position && is_open && !repair.words.is_empty()
        });
        refused.map(|repair| repair.lost)
    }

    /// When something is to be asked for.
    pub(super) fn deadline(&self) -> Option<Nanos> {
        let due = self.list.iter().filter_map(|repair| match repair.stage {
            Stage::Due(at) => Some(at),
            Stage::Asking | Stage::Put(_) => None,
        });
        due.min()
    }
}

impl Shard {
    /// A block is not what was written. Met again while it is being repaired, that changes nothing.
    pub(super) fn on_damage(
        &mut self,
        now: Nanos,
        position: usize,
        damage: Damage,
        effects: &mut Effects,
    ) {
        if let Source::Segment { number, .. } = damage.source {
            self.on_segment_damage(now, position, number, damage.position, effects);
            return;
        }
        let group = &self.groups[position];
        let tail = group.tail();
        let first = damage.index;
        let is_known = |repair: &Repair| {
            let range = repair.lost.first..=repair.lost.last;
            repair.position == position && range.contains(&first)
        };
        if self.repairs.list.iter().any(is_known) || self.repairs.list.len() >= REPAIR_COUNT_MAX {
            return;
        }
        // Cut, or in a segment, while it was read: then it is not needed from there.
        if tail.entry(first).is_none() {
            return;
        }
        let (last, _) = same_run(tail, first, tail.last_index(), NEAR_SIZE);
        let before = Index(first.0 - 1);
        let previous_sum = match tail.entry(before) {
            Some(entry) => Some(entry.sum),
            None => Some(tail.base().sum),
        };
        let sum = tail.entry(last).expect("in the same run").sum;
        self.repairs.found_count += 1;
        self.repairs.list.push(Repair {
            position,
            damage,
            lost: Lost {
                first,
                last,
                previous_sum,
                sum,
            },
            stage: Stage::Due(now),
            words: Vec::new(),
        });
        self.advance_repairs(now, effects);
    }

    /// Asks for what is due.
    pub(super) fn advance_repairs(&mut self, now: Nanos, effects: &mut Effects) {
        let Self {
            repairs, groups, ..
        } = self;
        // Cut since, or in a segment by now: nobody needs it here any more.
        let count = repairs.list.len();
        repairs.list.retain(|repair| {
            let group = &groups[repair.position];
            let entry = group.tail().entry(repair.lost.last);
            let is_it = entry.is_some_and(|entry| entry.sum == repair.lost.sum);
            let is_needed = is_it && repair.lost.last > group.segmented;
            is_needed || matches!(repair.stage, Stage::Asking)
        });
        repairs.healed_count += (count - repairs.list.len()) as u64;
        for at in 0..self.repairs.list.len() {
            let repair = &mut self.repairs.list[at];
            if !matches!(repair.stage, Stage::Due(due) if due <= now) {
                continue;
            }
            repair.stage = Stage::Asking;
            let (position, lost) = (repair.position, repair.lost);
            self.ask(now, position, Asker::Repair, lost, effects);
        }
    }

    /// What peers gave, if anything.
    pub(super) fn on_repair_told(&mut self, now: Nanos, position: usize, told: &Told) {
        let is_it = |repair: &Repair| {
            repair.position == position && repair.lost == told.lost && repair.stage == Stage::Asking
        };
        let at = self.repairs.list.iter().position(is_it);
        let at = at.expect("a repair that asks stays until it is told");
        self.close_block();
        let mut put = None;
        let pieces = told.blocks.iter().flat_map(|piece| blocks(piece));
        for block in pieces.map(|block| block.expect("a told block is checked")) {
            match self.put_again(position, &block) {
                Some(lsn) => put = Some(lsn),
                None => {
                    put = None;
                    break;
                }
            }
        }
        let repair = &mut self.repairs.list[at];
        repair.words = told.words.clone();
        repair.stage = put.map_or(Stage::Due(now.after(AGAIN_PAUSE)), Stage::Put);
    }

    /// Runs below `durable` are on disk: what was put again in them is healed.
    pub(super) fn settle_repairs(&mut self, durable: Lsn) {
        let is_healed =
            |repair: &mut Repair| matches!(repair.stage, Stage::Put(lsn) if lsn < durable);
        let healed = self.repairs.list.extract_if(.., is_healed);
        self.repairs.healed_count += healed.count() as u64;
    }

    /// A sentence for each stretch that nobody could give, for `status`.
    pub(super) fn repair_alarms(&self) -> impl Iterator<Item = String> + '_ {
        let open = self.repairs.list.iter();
        let open = open.filter(|repair| !repair.words.is_empty());
        open.map(|repair| {
            let Source::Journal { slot } = repair.damage.source else {
                unreachable!("segments are repaired elsewhere")
            };
            let log = &self.config.logs[repair.position].name;
            let (first, last) = (repair.lost.first, repair.lost.last);
            let byte = repair.damage.position;
            let mut text = format!(
                "log {log}: blocks {first} to {last} are damaged in journal file {slot} at byte {byte}"
            );
            for (node, word) in &repair.words {
                let name = self.config.name_of(*node);
                let _ = write!(text, "; {name} {word}");
            }
            text
        })
    }
}
