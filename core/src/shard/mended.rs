//! The file that is to take a damaged segment's place, as it is put together: head, blocks, zeros up to
//! the old file's size, footer.
//!
//! Keeps what is to be written next, and what was written so far. Takes a block only behind the one
//! that it names, and ends only with the segment's last. One that begins anew (`beginning`) takes
//! blocks before it is begun. Knows no disk and no peer.

use bytes::{BufMut, Bytes, BytesMut};

use crate::id::{Index, NodeId, Offset, Term, UnixSeconds};
use crate::limits::{MEND_WRITE_SIZE, SECTOR_SIZE};
use crate::log::block::Block;
use crate::log::footer::FooterBuilder;
use crate::log::segment::{SegmentHeader, SegmentState, StatePlace};
use crate::log::{Base, Entry, Place};

use super::beginning::{Beginning, LeadIn};
use super::chain::{Link, Stretch};
use super::segment_map::SegmentFile;
use super::segments::Extent;
use super::walk::Before;

/// A segment's new file.
#[derive(Debug)]
pub(super) struct NewFile {
    /// Of the old one.
    extent: Extent,
    /// What it begins with. Its state may be another one than the old file's.
    header: SegmentHeader,
    /// Bytes that it has, and what is to be written behind them.
    written_size: u64,
    pending: BytesMut,
    built: FooterBuilder,
    /// Its last block, or the one before its first.
    placed: Before,
    /// What it waits for, if it begins anew.
    lead_in: Option<LeadIn>,
    /// Whether what ends it is among what is to be written.
    is_ended: bool,
    /// Blocks of it that peers gave.
    given_count: u64,
}

impl NewFile {
    /// With nothing in it yet.
    pub(super) fn new(extent: Extent) -> Self {
        Self {
            extent,
            header: extent.file.header,
            written_size: 0,
            pending: BytesMut::new(),
            built: FooterBuilder::new(u64::from(extent.file.header.state.head_size)),
            placed: extent.before,
            lead_in: None,
            is_ended: false,
            given_count: 0,
        }
    }

    /// One that begins anew: with the block that holds `start`, which stands at or behind `from`. What
    /// the log was there is left out if it `is_mute`.
    pub(super) fn anew(extent: Extent, from: Beginning, start: Offset, is_mute: bool) -> Self {
        let mut file = Self::new(extent);
        file.placed = from.before;
        file.lead_in = Some(LeadIn::new(from, start, extent.last, is_mute));
        file
    }

    /// Whether its head is made of what it takes.
    pub(super) fn has_lead_in(&self) -> bool {
        self.lead_in.is_some()
    }

    /// Whether it finds no room in the size that the old one had: more may be to be said of a log at a
    /// later block.
    pub(super) fn is_too_large(&self) -> bool {
        let size = self.extent.file.size;
        let has = self.written_size + self.pending.len() as u64;
        !self.is_ended && size > 0 && has > size
    }

    /// Its last block.
    pub(super) fn placed(&self) -> Link {
        self.placed.link()
    }

    /// Whether so much is gathered that it should be written.
    pub(super) fn is_due(&self) -> bool {
        self.pending.len() >= MEND_WRITE_SIZE
    }

    /// Whether anything of it was written.
    pub(super) fn is_begun(&self) -> bool {
        self.written_size > 0
    }

    /// What is gathered, in whole sectors, and where it goes.
    pub(super) fn cut(&mut self) -> (u64, Bytes) {
        let size = self.pending.len() & !(SECTOR_SIZE - 1);
        let position = self.written_size;
        self.written_size += size as u64;
        (position, self.pending.split_to(size).freeze())
    }

    /// What it is, what its footer says, or would, and how many of its blocks peers gave.
    pub(super) fn finish(self) -> (SegmentFile, FooterBuilder, u64) {
        let file = SegmentFile {
            header: self.header,
            size: self.extent.file.size,
            layout: self.extent.file.layout,
        };
        (file, self.built, self.given_count)
    }

    /// What stands before the blocks, twice. The header is known; the state behind it is the disk's
    /// own, and comes from the copy that is sound. If neither is, only that of a log's beginning can
    /// be told anew.
    pub(super) fn put_head(&mut self, read: &[u8], voters: &[NodeId]) {
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
        self.put_copies(&copy);
    }

    fn put_copies(&mut self, copy: &[u8]) {
        self.built = FooterBuilder::new(u64::from(self.header.state.head_size));
        self.pending.put_slice(copy);
        self.pending.put_slice(copy);
    }

    /// Whether a block comes before the first, which has the head put in front of it.
    fn is_led_in_by(&mut self, block: &Block<'_>) -> bool {
        let lead_in = self.lead_in.as_mut();
        if lead_in.is_some_and(|lead_in| lead_in.pass(block)) {
            return true;
        }
        if let Some(lead_in) = self.lead_in.take() {
            let (header, state) = lead_in.head(&self.placed, &self.header);
            self.header = header;
            self.put_copies(&[&header.encode()[..], &state].concat());
        }
        false
    }

    /// The next block, from a peer.
    pub(super) fn put_given(&mut self, block: &Block<'_>) {
        self.given_count += 1;
        self.put(block);
    }

    /// The next block.
    pub(super) fn put(&mut self, block: &Block<'_>) {
        let header = block.header();
        let before = Stretch::of(0, header).before;
        assert_eq!(before, self.placed(), "each names the one before");
        if self.is_led_in_by(block) {
            self.placed = Before::of(header);
            return;
        }
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

    /// All blocks are in it: the next part of what stands behind them. Says whether anything is to be
    /// written.
    pub(super) fn end(&mut self, date: UnixSeconds) -> bool {
        assert_eq!(self.placed(), self.extent.end(), "whole");
        let has = self.written_size + self.pending.len() as u64;
        // Nothing names the size of one whose successor is lost, too.
        if self.extent.file.size == 0 {
            self.extent.file.size = has.next_multiple_of(SECTOR_SIZE as u64);
        }
        let size = self.extent.file.size;
        if !self.is_ended {
            assert!(has <= size, "the blocks found room before");
            let zeros = usize::try_from(size - has).expect("a segment's size");
            let zeros = zeros.min(MEND_WRITE_SIZE);
            self.pending.put_bytes(0, zeros);
            if has + zeros as u64 == size {
                self.put_footer(date);
            }
        }
        !self.pending.is_empty()
    }

    /// What ends a segment that does not grow.
    fn put_footer(&mut self, date: UnixSeconds) {
        self.is_ended = true;
        if !self.extent.is_sealed {
            return;
        }
        let last = Base {
            index: self.placed.index,
            term: self.placed.term,
            sum: self.placed.sum,
            next_offset: self.placed.next_offset,
        };
        let size = self.extent.file.size;
        let footer = self.built.footer(self.header, last, size, date);
        self.pending.put_slice(&footer.encode());
    }
}
