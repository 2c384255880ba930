//! Runs of a journal: begun where there is room, filled item by item, sealed for the disk.
//!
//! A sealed run is never changed again. Knows nothing of writes: those take what is sealed here.

use bytes::BufMut;

use super::super::fields::{pad, round_up};
use super::super::flush::{FLUSH_HEADER_SIZE, FlushHeader};
use super::super::item::HARD_STATE_SIZE;
use super::super::votes::{votes_size, write_votes};
use super::{Journal, OpenRun, VOTE_ROOM, Writing};
use crate::frame::sum::Sum;
use crate::id::{GroupId, Lsn};
use crate::limits::SECTOR_SIZE;

impl Journal {
    /// Whether an item of `size` bytes, and `votes` more hard states, fit into the open run.
    pub(super) fn fits(&self, size: usize, votes: usize) -> bool {
        let Some(run) = &self.open else { return false };
        let items = self.arenas.written() + size + votes * HARD_STATE_SIZE;
        round_up(items, SECTOR_SIZE) + votes_size(self.votes.len() + votes) <= run.limit
    }

    /// Sees to an open run with room for an item of `size` bytes.
    pub(super) fn make_room(&mut self, size: usize) -> Option<()> {
        loop {
            self.open_run()?;
            if self.fits(size, VOTE_ROOM) {
                return Some(());
            }
            let empty = self.open.as_ref().is_some_and(|run| run.item_count == 0);
            assert!(!empty, "no item is larger than a run");
            self.seal_run();
        }
    }

    /// As `make_room` for a block, in a run that has no blocks of the other kind.
    pub(super) fn make_block_room(&mut self, size: usize, writing: Writing) -> Option<()> {
        let blocks = self.open.as_ref().and_then(|run| run.blocks);
        if blocks.is_some_and(|blocks| blocks != writing) {
            self.seal_run();
        }
        self.make_room(size)
    }

    pub(super) fn begin_run(&mut self, lsn: Lsn) -> bool {
        assert!(
            self.open.is_none() && self.block.is_none(),
            "one run at a time"
        );
        assert!(self.votes.is_empty(), "votes belong to a run");
        let left = usize::try_from(self.ring.left_in_file(lsn)).unwrap_or(usize::MAX);
        let limit = left.min(self.ring.run_size);
        while !self.arenas.make_room(limit) {
            if !self.cache.evict(self.flights.durable()) {
                return false;
            }
        }
        let last = self
            .head
            .0
            .checked_sub(1)
            .map(|last| self.ring.file_of(Lsn(last)));
        let enters = last != Some(self.ring.file_of(lsn));
        if enters {
            // Any suffix of the ring that begins at a file must do without what lies before.
            self.restating = Some(GroupId(0));
        }
        self.arenas.current().put_bytes(0, FLUSH_HEADER_SIZE);
        self.open = Some(OpenRun {
            lsn,
            limit,
            items_sum: Sum::new(),
            item_count: 0,
            blocks: None,
        });
        true
    }

    /// Closes the open run at the end of a turn and says whether anything was closed. Call it every
    /// turn: it also writes down which files are no longer needed when nothing else is to be
    /// written.
    pub fn seal(&mut self) -> bool {
        assert!(self.block.is_none(), "the open block is finished first");
        if self.open.as_ref().is_some_and(|run| run.item_count > 0) {
            self.seal_run();
            return true;
        }
        if !self.grants.is_due() {
            return false;
        }
        if self.open.is_none() {
            let run = self.grants.place(self.head);
            let in_end = || {
                let left = self.ring.left_in_file(self.head);
                (left < self.ring.file_size).then_some(self.head)
            };
            match run.or_else(in_end) {
                Some(place) if self.begin_run(place) => {}
                _ => return false,
            }
        }
        self.seal_run();
        true
    }

    pub(super) fn seal_run(&mut self) {
        let run = self.open.take().expect("a run is open");
        let files_kept = self.grants.claim(run.lsn);
        let buffer = self.arenas.current();
        let items_size = buffer.len() - FLUSH_HEADER_SIZE;
        pad(buffer, SECTOR_SIZE);
        let size = buffer.len() + votes_size(self.votes.len());
        assert!(size <= run.limit, "room was judged item by item");
        let mut header = FlushHeader {
            sum: 0,
            life: self.life,
            lsn: run.lsn,
            sequence: self.sequence + 1,
            size: size as u32,
            items_size: items_size as u32,
            items_sum: run.items_sum.value(),
            previous_sum: self.last_sum,
            durable_through: self.flights.durable(),
            node_tag: self.node_tag,
            item_count: run.item_count,
            files_kept,
            opens: !self.opening_sealed,
            complete: self.restating.is_none(),
            copies: run.blocks == Some(Writing::Copy),
        };
        header.stamp();
        buffer[..FLUSH_HEADER_SIZE].copy_from_slice(&header.write());
        write_votes(buffer, &header, &self.votes);
        self.votes.clear();
        let bytes = self.arenas.cut().freeze();
        assert_eq!(bytes.len(), size, "the run is what its header says");
        self.opening_sealed = true;
        self.head = header.end();
        self.last_sum = header.sum;
        self.sequence = header.sequence;
        if header.complete {
            self.grants.complete(run.lsn);
        }
        self.cache.push(run.lsn, bytes.clone());
        self.sealed.push_back((run.lsn, bytes));
    }
}
