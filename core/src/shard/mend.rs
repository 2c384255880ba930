//! Segments of which this disk has lost something: written anew beside, from their own sound blocks
//! and those that peers give, and put in the old file's place. A file is never changed where it stands.
//!
//! Keeps which segments are to be mended and how far the one under way has come: one at a time. Knows
//! no reader; whoever met the damage is told so, and finds the blocks when it comes again.
//!
//! ```text
//!  due ─▶ all of it is read ─▶ a gap: asked of peers ─▶ all blocks are to be had: written beside,
//!             ▲                       │                  own ones read and others asked for again
//!             └──── after a pause ◀───┘ nobody has it         └─▶ synced, renamed over the old file
//! ```
//! Nothing is written before everything is known to be there, and nothing found behind a gap counts
//! before `chain` has proven it: a client may have put there what looks like a block. A crash anywhere
//! leaves the old file or the new one, whole; what was written beside is begun anew. The new file has
//! the old one's size, for the next segment and the checkpoint name it: writes left padding between
//! blocks, which is gathered at its end.
//!
//! The first segment of a trimmed log may begin anew at a later block (`beginning`): where peers have
//! trimmed what is lost, where its beginning is not known, and where the state in its head is lost.
//! Never before the segments below it are deleted, for a crash may bring them back.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::id::{Index, Nanos};
use crate::limits::{REPAIR_COUNT_MAX, SECTOR_SIZE};
use crate::log::block::{BlockHeader, blocks};
use crate::log::segment::SegmentState;

use super::ask::{Asker, Lost, Told};
use super::beginning::Beginning;
use super::chain::{Chain, Link, Proof, Stretch};
use super::effects::{SegmentWriteId, Source};
use super::group::Group;
use super::mended::NewFile;
use super::segment_map::Point;
use super::segments::Extent;
use super::walk::{Before, Met, Walk};
use super::wounds::{Why, Wound};
use super::{Effect, Effects, Shard};

/// A segment that is being written is looked at again after this.
const BUSY_PAUSE: Nanos = Nanos::from_millis(100);

/// What the mend under way waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Waiting {
    /// For the next turn: others come first.
    Turn,
    Read,
    /// For a sector of header and state.
    Head,
    Peers,
    /// For what peers say of where the log begins.
    Beginnings,
    Written(SegmentWriteId),
    Replaced(SegmentWriteId),
}

/// What the mend under way is about.
#[derive(Debug)]
enum Stage {
    /// The file is looked through; blocks are being met.
    Search(Option<Stretch>),
    /// Whether peers have what is lost. What they give is not kept: it may be a whole segment.
    Bridge(Bridge),
    /// The new file is written. What is still to be copied of the old one, the next last.
    Write {
        left: Vec<Stretch>,
        /// Whether the walk is in the next of them.
        is_entered: bool,
    },
}

/// Blocks that are lost, and how many of them were given.
#[derive(Clone, Copy, Debug)]
struct Bridge {
    first: Index,
    last: Link,
    /// Sum of the block before the first, once known.
    previous_sum: Option<u32>,
    /// The last that was given.
    given: Option<Link>,
}

/// The mend under way.
#[derive(Debug)]
struct Mend {
    wound: Wound,
    extent: Extent,
    chain: Chain,
    stage: Stage,
    walk: Walk,
    /// What was read of the old file, and from which byte on.
    window: (u64, Bytes),
    /// Bytes of the read under way.
    read_size: u64,
    waiting: Waiting,
    /// The old file's head as far as it was read, one sector at a time: where one cannot be read, the
    /// one in the other copy may be.
    head: Vec<u8>,
    file: NewFile,
}

/// All of a shard's damaged segments.
#[derive(Debug, Default)]
pub(super) struct Mends {
    due: VecDeque<Wound>,
    current: Option<Box<Mend>>,
    /// Segments found damaged since the start.
    pub(super) found_count: u64,
    /// Those of them that were mended, or are not needed any more.
    pub(super) healed_count: u64,
}

impl Mends {
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

impl Mend {
    /// Of all of a segment, or of what stands behind its new beginning.
    fn new(group: &Group, wound: Wound, extent: Extent, from: Option<Beginning>) -> Self {
        let file = extent.file;
        let (mut walked, mut begin) = (extent.before, u64::from(file.header.state.head_size));
        if let Some(from) = from.as_ref().filter(|_| group.is_front_lost()) {
            // Wherever it begins in the file.
            (walked, begin) = (from.before, 0);
        }
        let before = from.as_ref().map_or(extent.before, |from| from.before);
        let end = match file.size {
            0 => u64::MAX,
            size => size,
        };
        let start = group.trims.start();
        let file = match from {
            Some(from) => NewFile::anew(extent, from, start, wound.is_mute),
            None => NewFile::new(extent),
        };
        Self {
            chain: Chain::new(before.link(), extent.end()),
            stage: Stage::Search(None),
            walk: Walk::new(group.id, extent.end(), walked, begin, end),
            file,
            extent,
            window: (begin, Bytes::new()),
            read_size: 0,
            waiting: Waiting::Read,
            head: Vec::new(),
            wound,
        }
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

    /// Goes on with the mend under way until it waits for something.
    fn drive_mend(&mut self, now: Nanos, effects: &mut Effects) {
        let Some(mend) = &self.mends.current else {
            return;
        };
        let (position, number) = (mend.wound.position, mend.wound.number);
        if self.groups[position].segment_extent(number).is_none() {
            // Trimmed away meanwhile.
            let mend = self.mends.current.take().expect("seen just now");
            self.mends.healed_count += 1;
            self.discard(&mend, effects);
            return;
        }
        match mend.stage {
            Stage::Search(_) => self.search_on(now, effects),
            Stage::Bridge(_) => self.bridge_on(now, effects),
            Stage::Write { .. } => self.write_on(now, effects),
        }
    }

    /// Looks through the old file.
    fn search_on(&mut self, now: Nanos, effects: &mut Effects) {
        let mend = self.mends.current.as_mut().expect("under way");
        let Stage::Search(open) = &mut mend.stage else {
            unreachable!("only a search is gone on with")
        };
        let (begin, bytes) = &mend.window;
        loop {
            match mend.walk.next(bytes, *begin) {
                Met::Block(block) => {
                    let header = block.header();
                    let at = mend.walk.position - u64::from(header.size);
                    if mend.chain.is_first(header.index)
                        && let Some(met) = open.take()
                    {
                        mend.chain.push(met);
                    }
                    let met = open.get_or_insert_with(|| Stretch::of(at, header));
                    met.last = Stretch::of(at, header).last;
                }
                Met::Gap => {
                    if let Some(met) = open.take() {
                        mend.chain.push(met);
                    }
                }
                Met::Island(header) => {
                    let before = Before::behind(&Stretch::of(mend.walk.position, &header));
                    mend.walk.enter(mend.walk.position, before);
                }
                Met::Rest => {
                    mend.waiting = Waiting::Turn;
                    return;
                }
                Met::More => {
                    self.read_for_mend(effects);
                    return;
                }
                Met::End => {
                    if let Some(met) = open.take() {
                        mend.chain.push(met);
                    }
                    self.bridge_mend(now, effects);
                    return;
                }
            }
        }
    }

    /// All that is there was found: asks for what is missing, or begins the new file.
    fn bridge_mend(&mut self, now: Nanos, effects: &mut Effects) {
        let mend = self.mends.current.as_mut().expect("under way");
        match mend.chain.prove() {
            Proof::Lost {
                first,
                last,
                previous_sum,
            } => {
                mend.stage = Stage::Bridge(Bridge {
                    first,
                    last,
                    previous_sum,
                    given: None,
                });
                self.bridge_on(now, effects);
            }
            Proof::Whole => {
                mend.stage = Stage::Write {
                    left: mend.chain.proven().to_vec(),
                    is_entered: false,
                };
                if mend.file.has_lead_in() {
                    self.drive_mend(now, effects);
                } else {
                    self.read_head(effects);
                }
            }
        }
    }

    /// Reads the next sector of the old file's header and state.
    fn read_head(&mut self, effects: &mut Effects) {
        let source = self.wounded();
        let mend = self.mends.current.as_mut().expect("under way");
        mend.waiting = Waiting::Head;
        let position = mend.head.len() as u64;
        self.load_for_mend(source, position, SECTOR_SIZE, effects);
    }

    /// Asks for what was not given yet of a gap.
    fn bridge_on(&mut self, now: Nanos, effects: &mut Effects) {
        let mend = self.mends.current.as_ref().expect("under way");
        let Stage::Bridge(bridge) = mend.stage else {
            unreachable!("only a bridge is gone on with")
        };
        let (first, previous_sum) = match bridge.given {
            Some(given) => (given.index.next(), Some(given.sum)),
            None => (bridge.first, bridge.previous_sum),
        };
        let lost = Lost::through(bridge.last, first, previous_sum);
        self.ask_for_mend(now, Waiting::Peers, lost, effects);
    }

    /// Copies what the old file has, and asks for the rest.
    fn write_on(&mut self, now: Nanos, effects: &mut Effects) {
        let mend = self.mends.current.as_mut().expect("under way");
        let Stage::Write { left, is_entered } = &mut mend.stage else {
            unreachable!("only a written file is written on")
        };
        loop {
            if mend.file.is_too_large() {
                mend.wound.is_mute = true;
                self.put_mend_off(now, Why::Large, effects);
                return;
            }
            if mend.file.is_due() {
                self.write_mended(effects);
                return;
            }
            let placed = mend.file.placed();
            let next = left.last().copied();
            if !*is_entered {
                let due = next.map_or(mend.extent.end(), |next| next.before);
                if placed.index < due.index {
                    let lost = Lost::through(due, placed.index.next(), Some(placed.sum));
                    self.ask_for_mend(now, Waiting::Peers, lost, effects);
                    return;
                }
                assert_eq!(placed, due, "proven");
                let Some(next) = next else {
                    self.finish_mend(effects);
                    return;
                };
                *is_entered = true;
                mend.walk.enter(next.position, Before::behind(&next));
                if next.position < mend.window.0 {
                    mend.window = (next.position, Bytes::new());
                }
            }
            let (begin, bytes) = &mend.window;
            match mend.walk.next(bytes, *begin) {
                Met::Block(block) => {
                    mend.file.put(&block);
                    if next.is_some_and(|next| next.last == mend.file.placed()) {
                        left.pop();
                        *is_entered = false;
                    }
                }
                Met::More => {
                    self.read_for_mend(effects);
                    return;
                }
                // It is not any more what it was just now.
                Met::Gap | Met::Island(_) | Met::Rest | Met::End => {
                    self.put_mend_off(now, Why::Changed, effects);
                    return;
                }
            }
        }
    }

    fn read_for_mend(&mut self, effects: &mut Effects) {
        let read_size = self.shape.segment_read_size as u64;
        let source = self.wounded();
        let mend = self.mends.current.as_mut().expect("under way");
        let (position, rest) = mend.walk.rest();
        // Behind a gap anything may claim to be a block. With twice as much as the largest takes, each
        // read brings the search on by one of them at least.
        let read_size = read_size * if mend.walk.is_lost() { 2 } else { 1 };
        mend.waiting = Waiting::Read;
        mend.window = (position, Bytes::new());
        mend.read_size = rest.min(read_size);
        let size = usize::try_from(mend.read_size).expect("bounded");
        self.load_for_mend(source, position, size, effects);
    }

    /// A piece of the old file, or less where that ends or cannot be read.
    pub(super) fn on_mend_loaded(&mut self, now: Nanos, bytes: Bytes, effects: &mut Effects) {
        let mend = self.mends.current.as_mut().expect("it asked");
        if mend.waiting == Waiting::Head {
            let state = mend.extent.file.header.state;
            let end = mend.head.len() + SECTOR_SIZE;
            mend.head.extend_from_slice(&bytes);
            mend.head.resize(end, 0);
            if end < state.head_size as usize {
                self.read_head(effects);
                return;
            }
            let header = &mend.extent.file.header;
            let is_known = header.state.is_known();
            let copy = SegmentState::sound_copy(header, &mend.head).filter(|_| is_known);
            let group = &self.groups[mend.wound.position];
            if copy.is_none() && group.may_begin_anew(mend.wound.number) {
                self.ask_for_beginnings(now, effects);
                return;
            }
            self.put_mended_head(now, effects);
            return;
        }
        assert_eq!(mend.waiting, Waiting::Read);
        let begin = mend.window.0;
        if (bytes.len() as u64) < mend.read_size {
            // An error in the middle of a file costs what stands behind it, too: peers have that.
            mend.walk.cut(begin + bytes.len() as u64);
        }
        mend.window.1 = bytes;
        self.drive_mend(now, effects);
    }

    /// What stands before the blocks, as far as it is known.
    fn put_mended_head(&mut self, now: Nanos, effects: &mut Effects) {
        let mend = self.mends.current.as_mut().expect("under way");
        let group = &self.groups[mend.wound.position];
        mend.file.put_head(&mend.head, group.raft.voters());
        self.drive_mend(now, effects);
    }

    fn ask_for_beginnings(&mut self, now: Nanos, effects: &mut Effects) {
        let mend = self.mends.current.as_ref().expect("under way");
        let lost = Lost::through(mend.extent.end(), Index(0), None);
        self.ask_for_mend(now, Waiting::Beginnings, lost, effects);
    }

    fn wounded(&self) -> Source {
        let mend = self.mends.current.as_ref().expect("under way");
        Source::Segment {
            group: self.groups[mend.wound.position].id,
            number: mend.wound.number,
        }
    }

    fn ask_for_mend(&mut self, now: Nanos, waiting: Waiting, lost: Lost, effects: &mut Effects) {
        let mend = self.mends.current.as_mut().expect("under way");
        mend.waiting = waiting;
        let position = mend.wound.position;
        self.ask(now, position, Asker::Mend, lost, effects);
    }

    pub(super) fn on_mend_told(&mut self, now: Nanos, told: &Told, effects: &mut Effects) {
        let mend = self.mends.current.as_mut().expect("it asked");
        if told.blocks.is_empty() {
            self.on_mend_refused_blocks(now, told, effects);
            return;
        }
        assert_eq!(mend.waiting, Waiting::Peers);
        let pieces = told.blocks.iter().flat_map(|piece| blocks(piece));
        for block in pieces.map(|block| block.expect("a told block is checked")) {
            match &mut mend.stage {
                Stage::Bridge(bridge) => bridge.take(block.header()),
                _ => mend.file.put_given(&block),
            }
        }
        match mend.stage {
            Stage::Bridge(bridge) if bridge.given == Some(bridge.last) => {
                mend.chain.give(bridge.before());
                self.bridge_mend(now, effects);
            }
            _ => self.drive_mend(now, effects),
        }
    }

    /// Nobody gave anything. Perhaps that is not needed, for the segment may begin anew behind it.
    fn on_mend_refused_blocks(&mut self, now: Nanos, told: &Told, effects: &mut Effects) {
        let mend = self.mends.current.as_ref().expect("it asked");
        let is_written = matches!(mend.stage, Stage::Write { .. });
        if let Some(from) = self.new_beginning(mend, told) {
            let mend = *self.mends.current.take().expect("seen just now");
            self.discard(&mend, effects);
            let group = &self.groups[mend.wound.position];
            let mend = Mend::new(group, mend.wound, mend.extent, Some(from));
            self.mends.current = Some(Box::new(mend));
            self.drive_mend(now, effects);
        } else if is_written && mend.waiting == Waiting::Beginnings {
            // Without the state all else is worth having.
            self.put_mended_head(now, effects);
        } else {
            let why = Why::Lost(told.lost, told.words.clone());
            self.put_mend_off(now, why, effects);
        }
    }

    /// Where peers' logs begin, the last such place that is not behind this log's start.
    fn new_beginning(&self, mend: &Mend, told: &Told) -> Option<Beginning> {
        let group = &self.groups[mend.wound.position];
        if !group.may_begin_anew(mend.wound.number) {
            return None;
        }
        let (start, last) = (group.trims.start(), mend.extent.last);
        let is_any = mend.waiting == Waiting::Beginnings;
        let heads = told.heads.iter();
        let heads = heads.filter_map(|head| Beginning::check(&self.config, group.id, head));
        let fitting = heads.filter(|from| {
            let is_ahead = is_any || from.before.index > mend.chain.begin().index;
            is_ahead && from.is_below(start, last)
        });
        fitting.max_by_key(|from| from.before.index)
    }

    /// It is tried again later, and said until then. What is proven behind the damage can be read.
    fn put_mend_off(&mut self, now: Nanos, why: Why, effects: &mut Effects) {
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
    fn discard(&self, mend: &Mend, effects: &mut Effects) {
        if mend.file.is_begun() {
            effects.push(Effect::SegmentDiscard {
                group: self.groups[mend.wound.position].id,
                number: mend.wound.number,
            });
        }
    }

    /// Writes what is gathered, in whole sectors.
    fn write_mended(&mut self, effects: &mut Effects) {
        self.next_segment_write += 1;
        let write = SegmentWriteId(self.next_segment_write);
        let mend = self.mends.current.as_mut().expect("under way");
        let (position, buffer) = mend.file.cut();
        mend.waiting = Waiting::Written(write);
        effects.push(Effect::SegmentMend {
            write,
            group: self.groups[mend.wound.position].id,
            number: mend.wound.number,
            position,
            buffer,
        });
    }

    /// All blocks are there: what ends the file follows, then its name.
    fn finish_mend(&mut self, effects: &mut Effects) {
        let date = self.date;
        let mend = self.mends.current.as_mut().expect("under way");
        if mend.file.end(date) {
            self.write_mended(effects);
            return;
        }
        self.next_segment_write += 1;
        let write = SegmentWriteId(self.next_segment_write);
        let mend = self.mends.current.as_mut().expect("under way");
        mend.waiting = Waiting::Replaced(write);
        effects.push(Effect::SegmentReplace {
            write,
            group: self.groups[mend.wound.position].id,
            number: mend.wound.number,
        });
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

    /// A sentence for each segment that cannot be mended now, for `status`.
    pub(super) fn mend_alarms(&self) -> impl Iterator<Item = String> + '_ {
        let current = self.mends.current.iter().map(|mend| &mend.wound);
        let all = self.mends.due.iter().chain(current);
        all.filter_map(|wound| wound.alarm(&self.config))
    }
}

impl Bridge {
    /// The next block was given, which names the one before.
    fn take(&mut self, header: &BlockHeader) {
        let given = Stretch::of(0, header);
        self.previous_sum.get_or_insert(given.before.sum);
        self.given = Some(given.last);
    }

    /// The block before the first.
    fn before(&self) -> Link {
        Link {
            index: Index(self.first.0 - 1),
            sum: self.previous_sum.expect("the first was given"),
        }
    }
}
