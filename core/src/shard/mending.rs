//! One damaged segment as it is written anew: its file is looked through, what is lost is asked of
//! peers, and the new file is written beside.
//!
//! Keeps how far the mend under way has come. Which one that is, and what comes after it, is `mend`'s.
//!
//! ```text
//!  due ─▶ all of it is read ─▶ a gap: asked of peers ─▶ all blocks are to be had: written beside,
//!             ▲                       │                  own ones read and others asked for again
//!             └──── after a pause ◀───┘ nobody has it         └─▶ synced, renamed over the old file
//! ```
//! Nothing is written before everything is known to be there, and nothing found behind a gap counts
//! before `chain` has proven it: a client may have put there what looks like a block. The new file has
//! the old one's size, for the next segment and the checkpoint name it: writes left padding between
//! blocks, which is gathered at its end.
//!
//! The first segment of a trimmed log may begin anew at a later block (`beginning`): where peers have
//! trimmed what is lost, where its beginning is not known, and where the state in its head is lost.
//! Never before the segments below it are deleted, for a crash may bring them back.

use bytes::Bytes;

use crate::id::{Index, Nanos};
use crate::limits::SECTOR_SIZE;
use crate::log::block::{BlockHeader, blocks};
use crate::log::segment::SegmentState;

use super::ask::{Asker, Lost, Told};
use super::beginning::Beginning;
use super::chain::{Chain, Link, Proof, Stretch};
use super::effects::{SegmentWriteId, Source};
use super::group::Group;
use super::mended::NewFile;
use super::segments::Extent;
use super::walk::{Before, Met, Walk};
use super::wounds::{Why, Wound};
use super::{Effect, Effects, Shard};

/// What the mend under way waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Waiting {
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
pub(super) struct Mend {
    pub(super) wound: Wound,
    extent: Extent,
    pub(super) chain: Chain,
    stage: Stage,
    walk: Walk,
    /// What was read of the old file, and from which byte on.
    window: (u64, Bytes),
    /// Bytes of the read under way.
    read_size: u64,
    pub(super) waiting: Waiting,
    /// The old file's head as far as it was read, one sector at a time: where one cannot be read, the
    /// one in the other copy may be.
    head: Vec<u8>,
    pub(super) file: NewFile,
}

impl Mend {
    /// Of all of a segment, or of what stands behind its new beginning.
    pub(super) fn new(
        group: &Group,
        wound: Wound,
        extent: Extent,
        from: Option<Beginning>,
    ) -> Self {
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
    /// Goes on with the mend under way until it waits for something.
    pub(super) fn drive_mend(&mut self, now: Nanos, effects: &mut Effects) {
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

    pub(super) fn ask_for_beginnings(&mut self, now: Nanos, effects: &mut Effects) {
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
