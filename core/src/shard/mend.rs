//! Segments of which this disk has lost something: written anew beside, from their own sound blocks
//! and those that peers give, and put in the old file's place. A file is never changed where it stands.
//!
//! Keeps which segments are to be mended and how far the one under way has come: one at a time. Knows
//! no reader; whoever met the damage is told so, and finds the blocks when it comes again.
//!
//! ```text
//!  due ─▶ read a piece ─▶ its sound blocks ──────────▶ written beside ─▶ the next piece
//!             ▲           a gap: asked of peers ─┬─▶        │
//!             │                                  │          ▼ all blocks are there
//!             └──── after a pause ◀── nobody has it         synced, renamed over the old file
//! ```
//! A crash anywhere leaves the old file or the new one, whole; what was written beside is begun anew.
//! The new file has the old one's size, for the next segment and the checkpoint name it: writes left
//! padding between blocks, which is gathered at its end.

use std::collections::VecDeque;
use std::fmt::Write as _;

use bytes::{BufMut, Bytes, BytesMut};

use crate::id::{Index, Nanos, NodeId, Term, UnixSeconds};
use crate::limits::{MEND_WRITE_SIZE, REPAIR_COUNT_MAX, SECTOR_SIZE};
use crate::log::block::{Block, BlockHeader, blocks};
use crate::log::footer::{FooterBuilder, SegmentFooter};
use crate::log::segment::{SegmentHeader, SegmentState, StatePlace};
use crate::log::{Entry, Place};

use super::ask::{Asker, Lost, Told, Word};
use super::effects::{SegmentWriteId, Source};
use super::segment_map::Point;
use super::segments::Extent;
use super::walk::{Before, Met, Walk};
use super::{Effect, Effects, Shard};

/// What nobody could give is asked for again after this: a peer may have come back.
const AGAIN_PAUSE: Nanos = Nanos::from_millis(5_000);

/// A segment that is being written, or a full disk, is looked at again after this.
const BUSY_PAUSE: Nanos = Nanos::from_millis(100);

/// A segment to be mended.
#[derive(Clone, Debug)]
struct Wound {
    position: usize,
    number: u32,
    /// Where it was met.
    byte: u64,
    due: Nanos,
    /// What nobody gave, the last time, and why.
    refused: Option<(Lost, Vec<(NodeId, Word)>)>,
}

/// What the mend under way waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Waiting {
    /// For the state behind the header.
    Head,
    Read,
    Peers,
    Written(SegmentWriteId),
    Replaced(SegmentWriteId),
}

/// The mend under way.
#[derive(Debug)]
struct Mend {
    wound: Wound,
    extent: Extent,
    /// What the new file begins with. Its state may be another one than the old file's.
    header: SegmentHeader,
    walk: Walk,
    /// What was read of the old file, and from which byte on.
    window: (u64, Bytes),
    waiting: Waiting,
    /// What the new file has, and what is to be written behind that.
    written_size: u64,
    pending: BytesMut,
    built: FooterBuilder,
    /// The last block of it.
    placed: Before,
    /// Whether the footer is among what is to be written.
    is_ended: bool,
    /// Blocks that peers gave.
    given_count: u64,
    /// The block behind the gap that is being asked for.
    island: Option<BlockHeader>,
    /// What nobody gave. From then on the rest of the file is only looked at, so that readers find
    /// what stands behind the gaps.
    refused: Option<(Lost, Vec<(NodeId, Word)>)>,
}

/// All of a shard's damaged segments.
#[derive(Debug, Default)]
pub(super) struct Mends {
    due: VecDeque<Wound>,
    current: Option<Box<Mend>>,
    /// Segments found damaged since the start.
    pub(super) found_count: u64,
    /// Those of them that were mended.
    pub(super) healed_count: u64,
}

impl Mends {
    /// When the next one may be begun.
    pub(super) fn deadline(&self) -> Option<Nanos> {
        if self.current.is_some() {
            return None;
        }
        self.due.iter().map(|wound| wound.due).min()
    }

    /// Whether this segment is being written anew: nothing may be appended to it.
    pub(super) fn is_mending(&self, position: usize, number: u32) -> bool {
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
        self.mends.due.push_back(Wound {
            position,
            number,
            byte,
            due: now,
            refused: None,
        });
        self.advance_mends(now, effects);
    }

    /// A segment's header was not where it stands when this shard began.
    pub(super) fn on_head_lost(&mut self, now: Nanos, position: usize, number: u32) {
        self.mends.found_count += 1;
        self.mends.due.push_back(Wound {
            position,
            number,
            byte: 0,
            due: now,
            refused: None,
        });
    }

    /// Begins the next mend, if none is under way and one is due.
    pub(super) fn advance_mends(&mut self, now: Nanos, effects: &mut Effects) {
        if self.mends.current.is_some() {
            return;
        }
        let mut due = self.mends.due.iter();
        let Some(at) = due.position(|wound| wound.due <= now) else {
            return;
        };
        let mut wound = self.mends.due.remove(at).expect("seen just now");
        let group = &self.groups[wound.position];
        let Some(extent) = group.segment_extent(wound.number) else {
            return; // It is not needed any more.
        };
        if group.is_writing_segment(wound.number) {
            wound.due = now.after(BUSY_PAUSE);
            self.mends.due.push_back(wound);
            return;
        }
        let file = extent.file;
        let begin = file.header.state.head_size;
        let source = self.wounded(&wound);
        let walk = Walk::new(
            group.id,
            extent.last,
            extent.before,
            u64::from(begin),
            file.size,
        );
        self.mends.current = Some(Box::new(Mend {
            walk,
            placed: extent.before,
            built: FooterBuilder::new(u64::from(begin)),
            header: file.header,
            extent,
            window: (0, Bytes::new()),
            waiting: Waiting::Head,
            written_size: 0,
            pending: BytesMut::with_capacity(2 * MEND_WRITE_SIZE),
            is_ended: false,
            given_count: 0,
            island: None,
            refused: None,
            wound,
        }));
        self.load_for_mend(source, 0, begin as usize, effects);
    }

    fn wounded(&self, wound: &Wound) -> Source {
        Source::Segment {
            group: self.groups[wound.position].id,
            number: wound.number,
        }
    }

    /// Goes on with the mend under way until it waits for something.
    fn drive_mend(&mut self, now: Nanos, effects: &mut Effects) {
        let Some(mend) = &mut self.mends.current else {
            return;
        };
        loop {
            if mend.pending.len() >= MEND_WRITE_SIZE {
                self.write_mended(effects);
                return;
            }
            let (begin, bytes) = (mend.window.0, mend.window.1.clone());
            match mend.walk.next(&bytes, begin) {
                Met::Block(_) if mend.refused.is_some() => {}
                Met::Block(block) => mend.put(&block),
                Met::Gap => {}
                Met::Island(header) => {
                    // Nothing is missing where the block that was due stands a little further.
                    if header.index == mend.walk.before.index.next() {
                        let before = mend.walk.before;
                        mend.walk.resume(before);
                        continue;
                    }
                    if mend.refused.is_some() {
                        self.enter_behind_gap(&header);
                        return self.drive_mend(now, effects);
                    }
                    mend.island = Some(header);
                    let last = Index(header.index.0 - 1);
                    self.ask_for_mend(now, last, header.previous_sum, effects);
                    return;
                }
                Met::More => {
                    self.read_for_mend(effects);
                    return;
                }
                Met::End if mend.refused.is_some() => {
                    self.put_mend_off(now);
                    return;
                }
                Met::End if mend.walk.is_whole() => {
                    self.finish_mend(effects);
                    return;
                }
                Met::End => {
                    let (last, sum) = (mend.extent.last, mend.extent.sum);
                    self.ask_for_mend(now, last, sum, effects);
                    return;
                }
            }
        }
    }

    fn read_for_mend(&mut self, effects: &mut Effects) {
        let read_size = self.shape.segment_read_size as u64;
        let mend = self.mends.current.as_mut().expect("under way");
        let (position, rest) = mend.walk.rest();
        mend.waiting = Waiting::Read;
        mend.window = (position, Bytes::new());
        let source = Source::Segment {
            group: self.groups[mend.wound.position].id,
            number: mend.wound.number,
        };
        let size = usize::try_from(rest.min(read_size)).expect("bounded");
        self.load_for_mend(source, position, size, effects);
    }

    /// A piece of the old file, or less where that ends or cannot be read.
    pub(super) fn on_mend_loaded(&mut self, now: Nanos, bytes: Bytes, effects: &mut Effects) {
        let read_size = self.shape.segment_read_size as u64;
        let mend = self.mends.current.as_mut().expect("it asked");
        if mend.waiting == Waiting::Head {
            mend.put_head(&bytes, self.groups[mend.wound.position].raft.voters());
            self.drive_mend(now, effects);
            return;
        }
        assert_eq!(mend.waiting, Waiting::Read);
        let (begin, rest) = mend.walk.rest();
        if (bytes.len() as u64) < rest.min(read_size) {
            // An error in the middle of a file costs what stands behind it, too: peers have that.
            mend.walk.cut(begin + bytes.len() as u64);
        }
        mend.window = (begin, bytes);
        self.drive_mend(now, effects);
    }

    fn ask_for_mend(&mut self, now: Nanos, last: Index, sum: u32, effects: &mut Effects) {
        let mend = self.mends.current.as_mut().expect("under way");
        mend.waiting = Waiting::Peers;
        let lost = Lost {
            first: mend.walk.before.index.next(),
            last,
            previous_sum: Some(mend.walk.before.sum),
            sum,
        };
        let position = mend.wound.position;
        self.ask(now, position, Asker::Mend, lost, effects);
    }

    pub(super) fn on_mend_told(&mut self, now: Nanos, told: &Told, effects: &mut Effects) {
        let mend = self.mends.current.as_mut().expect("it asked");
        assert_eq!(mend.waiting, Waiting::Peers);
        let Lost { last, sum, .. } = told.lost;
        if told.blocks.is_empty() {
            mend.pending.clear();
            mend.refused = Some((told.lost, told.words.clone()));
            if let Some(header) = mend.island.take() {
                self.enter_behind_gap(&header);
            }
            self.drive_mend(now, effects);
            return;
        }
        for piece in &told.blocks {
            for block in blocks(piece) {
                let block = block.expect("a told block is checked");
                mend.walk.before = Before::of(block.header());
                mend.given_count += 1;
                mend.put(&block);
            }
        }
        if mend.walk.before.index < last {
            self.ask_for_mend(now, last, sum, effects);
            return;
        }
        mend.island = None;
        let before = mend.walk.before;
        mend.walk.resume(before);
        self.drive_mend(now, effects);
    }

    /// The block behind a gap that nobody fills: readers may enter there, and the walk goes on.
    fn enter_behind_gap(&mut self, header: &BlockHeader) {
        let mend = self.mends.current.as_mut().expect("under way");
        let (number, position) = (mend.wound.number, mend.walk.position);
        let prev_index = Index(header.index.0 - 1);
        mend.walk.resume(Before {
            index: prev_index,
            // Nobody knows: a peer that is to go on from here is not brought further.
            term: Term(0),
            sum: header.previous_sum,
            next_offset: header.first_offset,
        });
        let group = &mut self.groups[mend.wound.position];
        group.segments.map.put_detour(Point {
            number,
            position,
            prev_index,
            prev_term: Term(0),
            next_offset: header.first_offset,
        });
    }

    /// Nobody gave what is missing: it is asked for again later, and said until then.
    fn put_mend_off(&mut self, now: Nanos) {
        let mend = *self.mends.current.take().expect("under way");
        let mut wound = mend.wound;
        wound.due = now.after(AGAIN_PAUSE);
        wound.refused = mend.refused;
        self.mends.due.push_back(wound);
    }

    /// Writes what is gathered, in whole sectors.
    fn write_mended(&mut self, effects: &mut Effects) {
        self.next_segment_write += 1;
        let write = SegmentWriteId(self.next_segment_write);
        let mend = self.mends.current.as_mut().expect("under way");
        let size = mend.pending.len() & !(SECTOR_SIZE - 1);
        let buffer = mend.pending.split_to(size).freeze();
        mend.waiting = Waiting::Written(write);
        effects.push(Effect::SegmentMend {
            write,
            group: self.groups[mend.wound.position].id,
            number: mend.wound.number,
            position: mend.written_size,
            buffer,
        });
        mend.written_size += size as u64;
    }

    /// All blocks are there: zeros up to the old size follow, the footer, then the name.
    fn finish_mend(&mut self, effects: &mut Effects) {
        let date = self.date;
        let mend = self.mends.current.as_mut().expect("under way");
        let size = mend.extent.file.size;
        let has = mend.written_size + mend.pending.len() as u64;
        assert!(mend.is_ended || has <= size, "the blocks found room before");
        if !mend.is_ended {
            let zeros = usize::try_from(size - has).expect("a segment's size");
            let zeros = zeros.min(MEND_WRITE_SIZE);
            mend.pending.put_bytes(0, zeros);
            if has + zeros as u64 == size {
                mend.end(date);
            }
        }
        if !mend.pending.is_empty() {
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
        group.segments.map.replace(mend.header, mend.built);
        self.mends.healed_count += 1;
        let log = &self.config.logs[position].name;
        let (byte, count) = (mend.wound.byte, mend.given_count);
        let text = format!(
            "log {log}: segment {number}, damaged at byte {byte}, is mended with {count} blocks of peers"
        );
        effects.push(Effect::Notice(text));
        self.advance_mends(now, effects);
        true
    }

    /// No space for the new file: all begins anew later. Says whether it was the mend's.
    pub(super) fn on_mend_refused(&mut self, now: Nanos, write: SegmentWriteId) -> bool {
        let is_its = |mend: &mut Box<Mend>| matches!(mend.waiting, Waiting::Written(own) | Waiting::Replaced(own) if own == write);
        let Some(mend) = self.mends.current.take_if(is_its) else {
            return false;
        };
        let mut wound = mend.wound;
        wound.due = now.after(BUSY_PAUSE);
        self.mends.due.push_back(wound);
        true
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
        self.mends.due.iter().filter_map(|wound| {
            let (lost, words) = wound.refused.as_ref()?;
            let log = &self.config.logs[wound.position].name;
            let (number, byte) = (wound.number, wound.byte);
            let mut text = format!(
                "log {log}: blocks {} to {} are lost in segment {number}, damaged at byte {byte}",
                lost.first, lost.last
            );
            for (node, word) in words {
                let name = self.config.name_of(*node);
                let _ = write!(text, "; {name} {word}");
            }
            Some(text)
        })
    }
}

impl Mend {
    /// What stands before the blocks, twice. The header is known; the state behind it is the disk's
    /// own, and comes from the copy that is sound. If neither is, only that of a log's beginning can
    /// be told anew.
    fn put_head(&mut self, read: &[u8], voters: &[NodeId]) {
        let header = &mut self.header;
        let is_known = header.state.is_known();
        let sound = SegmentState::sound_copy(header, read).filter(|_| is_known);
        let copy = sound.unwrap_or_else(|| {
            let is_first = header.first_index == Index(1);
            let (place, state) = match is_first {
                true => SegmentState {
                    voters: voters.to_vec(),
                    ..SegmentState::default()
                }
                .encode(Index(0), Term(0)),
                false => (StatePlace::NONE, BytesMut::new()),
            };
            header.state = place;
            [&header.encode()[..], &state].concat()
        });
        self.built = FooterBuilder::new(u64::from(header.state.head_size));
        self.pending.put_slice(&copy);
        self.pending.put_slice(&copy);
    }

    /// The next block of the new file.
    fn put(&mut self, block: &Block<'_>) {
        let header = block.header();
        assert_eq!(header.index, self.placed.index.next());
        let entry = Entry {
            term: header.term,
            size: header.size,
            sum: header.sum,
            place: Place::default(),
            first_offset: header.first_offset,
            record_count: header.record_count,
        };
        let position = self.written_size + self.pending.len() as u64;
        let previous_term = self.placed.term;
        self.built
            .push(&entry, header.index, position, previous_term);
        self.placed = Before::of(header);
        self.pending.put_slice(block.bytes());
    }

    /// What stands behind the blocks.
    fn end(&mut self, date: UnixSeconds) {
        self.is_ended = true;
        if !self.extent.is_sealed {
            return;
        }
        let (header, last) = (self.header, self.placed);
        let footer = SegmentFooter {
            cluster: header.cluster,
            node_tag: header.node_tag,
            group: header.group,
            segment: header.segment,
            first_index: header.first_index,
            first_offset: header.first_offset,
            last_index: last.index,
            last_term: last.term,
            last_sum: last.sum,
            next_offset: last.next_offset,
            data_size: self.extent.file.size,
            sealed_at: date,
            blocks_sum: self.built.blocks_sum(),
            points: self.built.listed(last.term),
            header: Some(header),
        };
        self.pending.put_slice(&footer.encode());
    }
}
