//! Segments of which this disk has lost something: written anew beside, from their own sound blocks
//! and those that peers give, and put in the old file's place. A file is never changed where it stands.
//!
//! Keeps which segments are to be mended, one at a time; how one is, is `mending`'s. Knows no reader;
//! whoever met the damage is told so, and finds the blocks when it comes again.
//!
//! A crash anywhere leaves the old file or the new one, whole; what was written beside is begun anew.

use std::collections::VecDeque;

use crate::id::{GroupId, Nanos};
use crate::limits::REPAIR_COUNT_MAX;

use super::effects::SegmentWriteId;
use super::mending::{Mend, Waiting};
use super::segment_map::Point;
use super::wounds::{Why, Wound};
use super::{Effect, Effects, Shard};

/// A segment that is being written is looked at again after this.
const BUSY_PAUSE: Nanos = Nanos::from_millis(100);

/// All of a shard's damaged segments.
#[derive(Debug, Default)]
pub(super) struct Mends {
    due: VecDeque<Wound>,
    pub(super) current: Option<Box<Mend>>,
    /// Segments found damaged since the start.
    pub(super) found_count: u64,
    /// Those of them that were mended, or are not needed any more.
    pub(super) healed_count: u64,
}

impl Mends {
    fn wounds(&self) -> impl Iterator<Item = &Wound> {
        let current = self.current.iter().map(|mend| &mend.wound);
        self.due.iter().chain(current)
    }

    /// When the next one may be begun, or the one under way goes on by itself.
    pub(super) fn deadline(&self) -> Option<Nanos> {
        match &self.current {
            Some(mend) => (mend.waiting == Waiting::Turn).then_some(Nanos(0)),
            None => self.due.iter().map(|wound| wound.due).min(),
        }
    }

    /// Somebody wants all that is damaged to be tried now.
    pub(super) fn hurry(&mut self, now: Nanos) {
        for wound in &mut self.due {
            wound.hurry(now);
        }
    }

    /// Whether nothing may be appended to this segment: it is being written anew, or is the next.
    pub(super) fn needs_rest(&self, position: usize, number: u32) -> bool {
        let mut due = self.due.iter().filter(|wound| wound.is_held);
        let is_next = due.any(|wound| (wound.position, wound.number) == (position, number));
        self.is_mending(position, number) || self.current.is_none() && is_next
    }

    /// Whether this segment is being written anew.
    fn is_mending(&self, position: usize, number: u32) -> bool {
        let mut current = self.current.iter();
        current.any(|mend| (mend.wound.position, mend.wound.number) == (position, number))
    }

    /// Whether this segment is being written anew, or waits for that.
    pub(super) fn is_known(&self, position: usize, number: u32) -> bool {
        let mut due = self.due.iter();
        self.is_mending(position, number)
            || due.any(|wound| (wound.position, wound.number) == (position, number))
    }
}

impl Shard {
    /// Something of a segment is not what was written. Met again meanwhile, that changes nothing.
    pub(super) fn on_segment_damage(
        &mut self,
        now: Nanos,
        position: usize,
        number: u32,
        byte: u64,
        effects: &mut Effects,
    ) {
        // Trimmed away while it was read: nothing of it is missing.
        if self.groups[position].segment_extent(number).is_none() {
            return;
        }
        let is_known = self.mends.is_known(position, number);
        if is_known || self.mends.due.len() >= REPAIR_COUNT_MAX {
            return;
        }
        self.mends.found_count += 1;
        let log = &self.config.logs[position].name;
        let text = format!("log {log}: segment {number} is damaged at byte {byte}");
        effects.push(Effect::Notice(text));
        self.mends
            .due
            .push_back(Wound::new(now, position, number, byte));
        self.advance_mends(now, effects);
    }

    /// A segment's header was not where it stands when this shard began.
    pub(super) fn on_head_lost(&mut self, now: Nanos, position: usize, number: u32) {
        self.mends.found_count += 1;
        self.mends
            .due
            .push_back(Wound::new(now, position, number, 0));
    }

    /// Begins the next mend, if none is under way and one is due.
    pub(super) fn advance_mends(&mut self, now: Nanos, effects: &mut Effects) {
        if let Some(mend) = &self.mends.current {
            if mend.waiting == Waiting::Turn {
                self.drive_mend(now, effects);
            }
            return;
        }
        let groups = &self.groups;
        let is_kept = |wound: &Wound| {
            let group = &groups[wound.position];
            group.segment_extent(wound.number).is_some()
        };
        let count = self.mends.due.len();
        self.mends.due.retain(is_kept);
        self.mends.healed_count += (count - self.mends.due.len()) as u64;
        let mut due = self.mends.due.iter();
        let Some(at) = due.position(|wound| wound.due <= now) else {
            return;
        };
        let mut wound = self.mends.due.remove(at).expect("seen just now");
        let group = &self.groups[wound.position];
        let extent = group.segment_extent(wound.number).expect("kept");
        let covered = self.journal.checkpoint_durable(group.id);
        let before = wound.number.checked_sub(1);
        let before = before.and_then(|number| group.segments.map.file(number));
        // Its header names the size of the one before.
        let is_second = before.is_some_and(|before| before.size == 0);
        let is_writing = group.is_writing_segment(wound.number, covered);
        if is_writing || is_second {
            wound.is_held = is_writing;
            wound.due = now.after(BUSY_PAUSE);
            self.mends.due.push_back(wound);
            return;
        }
        let is_front_lost =
            group.is_front_lost() && wound.number == group.segments.map.first_number();
        self.mends.current = Some(Box::new(Mend::new(group, wound, extent, None)));
        if is_front_lost {
            self.ask_for_beginnings(now, effects);
        } else {
            self.drive_mend(now, effects);
        }
    }

    /// It is tried again later, and said until then. What is proven behind the damage can be read.
    pub(super) fn put_mend_off(&mut self, now: Nanos, why: Why, effects: &mut Effects) {
        let mend = *self.mends.current.take().expect("under way");
        self.discard(&mend, effects);
        let mut wound = mend.wound;
        let map = &mut self.groups[wound.position].segments.map;
        for stretch in mend.chain.proven() {
            map.put_detour(Point::behind(wound.number, stretch));
        }
        wound.put_off(now, why);
        self.mends.due.push_back(wound);
    }

    /// What was written of a new file is in the way: of whoever needs the room, if nothing else.
    pub(super) fn discard(&self, mend: &Mend, effects: &mut Effects) {
        if mend.file.is_begun() {
            effects.push(Effect::SegmentDiscard {
                group: self.groups[mend.wound.position].id,
                number: mend.wound.number,
            });
        }
    }

    /// A write of the mend is done. Says whether it was one.
    pub(super) fn on_mend_stored(
        &mut self,
        now: Nanos,
        write: SegmentWriteId,
        effects: &mut Effects,
    ) -> bool {
        let Some(mend) = &self.mends.current else {
            return false;
        };
        if mend.waiting == Waiting::Written(write) {
            self.drive_mend(now, effects);
            return true;
        }
        if mend.waiting != Waiting::Replaced(write) {
            return false;
        }
        let mend = *self.mends.current.take().expect("seen just now");
        self.mends.healed_count += 1;
        let (position, number) = (mend.wound.position, mend.wound.number);
        let group = &mut self.groups[position];
        if group.segment_extent(number).is_none() {
            // Trimmed away meanwhile: its name is back, and goes again, unless what decided that is
            // not durable yet and will have all such files removed.
            let (below, is_due) = (group.segments.map.first_number(), group.removal.is_none());
            let group = group.id;
            if is_due {
                effects.push(Effect::SegmentRemove { group, below });
            }
            self.advance_mends(now, effects);
            return true;
        }
        let (file, built, count) = mend.file.finish();
        group.segments.map.replace(file, built);
        let log = &self.config.logs[position].name;
        let byte = mend.wound.byte;
        let text = format!(
            "log {log}: segment {number}, damaged at byte {byte}, is mended with {count} blocks of peers"
        );
        effects.push(Effect::Notice(text));
        self.advance_mends(now, effects);
        true
    }

    /// No space for the new file: all begins anew later. Says whether it was the mend's.
    pub(super) fn on_mend_refused(
        &mut self,
        now: Nanos,
        write: SegmentWriteId,
        effects: &mut Effects,
    ) -> bool {
        let is_its = |mend: &Mend| matches!(mend.waiting, Waiting::Written(own) | Waiting::Replaced(own) if own == write);
        let is_its = self.mends.current.as_deref().is_some_and(is_its);
        if is_its {
            self.put_mend_off(now, Why::Full, effects);
        }
        is_its
    }

    /// A sentence for each log that a replica which lacks its beginning cannot be told of.
    pub(super) fn head_alarms(&self) -> impl Iterator<Item = String> + '_ {
        let groups = self.groups.iter().zip(&self.config.logs);
        groups.filter_map(|(group, log)| {
            let header = group.segments.map.first()?.header;
            let (log, number) = (&log.name, header.segment);
            (!header.state.is_known()).then(|| {
                format!(
                    "log {log}: the state in the head of segment {number} is lost; a replica cannot \
                     be brought up from there"
                )
            })
        })
    }

    /// Segments that are known to be damaged and are not mended yet, in no order.
    pub fn wounded_segments(&self) -> impl Iterator<Item = (GroupId, u32)> + '_ {
        let wounds = self.mends.wounds();
        wounds.map(|wound| (self.groups[wound.position].id, wound.number))
    }

    /// A sentence for each segment that cannot be mended now, for `status`.
    pub(super) fn mend_alarms(&self) -> impl Iterator<Item = String> + '_ {
        let wounds = self.mends.wounds();
        wounds.filter_map(|wound| wound.alarm(&self.config))
    }
}
