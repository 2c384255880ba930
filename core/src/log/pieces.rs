//! A group's blocks above its checkpoint as a journal holds them: all of them, or with holes where
//! the disk has lost some.
//!
//! Keeps headers by index. Knows no flush and no peer: it is given blocks in the order in which
//! they were written, and told of what is missing.
//!
//! ```text
//!   base ─▶ 5 ─▶ 6 ─▶ 7        ▒ 8  9 ▒        10 ─▶ 11        ▒ 12 ▒
//!           the prefix          a hole          an island       lost at the end
//! ```
//! A block names the one before by its sum. So of a hole that has a block behind it the last sum is
//! known, and with each block that fills it from behind the sum of the next one. A block that does
//! not fit to what was written later was overruled by something that is lost: it goes, and a hole
//! is in its place.

use std::collections::BTreeMap;

use super::Place;
use super::block::Block;
use super::checkpoint::Checkpoint;
use super::producer_table::{Note, ProducerTable};
use super::producers::Producers;
use super::tail::{Base, Entry, Tail};
use super::trims::Trims;
use crate::bugs::{self, Switch};
use crate::id::{Index, Lsn, Offset};

/// Blocks that are missing. The one before the first is there, or the checkpoint is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hole {
    /// First block missing.
    pub first: Index,
    /// Last block missing.
    pub last: Index,
    /// Sum of the last.
    pub sum: u32,
}

#[derive(Clone, Debug)]
struct Piece {
    entry: Entry,
    previous_sum: u32,
    commit: Index,
    notes: Vec<Note>,
    /// Where the log begins from it on, if it is a trim.
    trim: Option<Offset>,
}

impl Piece {
    fn new(block: &Block<'_>, place: Place) -> Self {
        let header = block.header();
        let entry = Entry {
            term: header.term,
            size: header.size,
            sum: header.sum,
            place,
            first_offset: header.first_offset,
            record_count: header.record_count,
        };
        let appends = block
            .appends()
            .filter(|append| append.header.record_count > 0);
        let note = |append: super::block::Append<'_>| {
            Note::new(
                header.index,
                header.term,
                &append.header,
                append.first_offset,
            )
        };
        Self {
            entry,
            previous_sum: header.previous_sum,
            commit: header.commit,
            notes: appends.map(note).collect(),
            trim: block.trim(),
        }
    }
}

/// A group's blocks up to the first hole, and what they say together.
#[derive(Clone, Debug)]
pub struct Prefix {
    /// Their headers.
    pub tail: Tail,
    /// What is committed, as the latest leader to write one of them knew.
    pub commit: Index,
    /// Producers as of the last one.
    pub producers: Producers,
    /// Where the log begins, and the trims that are not committed.
    pub trims: Trims,
}

/// The blocks of one group above its base.
#[derive(Clone, Debug, Default)]
pub struct Pieces {
    base: Base,
    /// Producers as of the base.
    table: ProducerTable,
    /// Where the log begins as of the base.
    start: Offset,
    /// By index, each naming the one before where that is here.
    list: BTreeMap<Index, Piece>,
    /// Where the log ended, if a lost block stood there whose sum is known.
    end: Option<(Index, u32)>,
    /// Whole blocks that stood where nothing vouches for them. Only what names its sum makes one
    /// count: it may be something that a client put into a record.
    loose: Vec<(Index, Piece)>,
}

impl Pieces {
    /// Takes the block that was written next, or copied next. False if it does not fit to what was
    /// written before: then something is lost.
    pub(super) fn put(&mut self, block: &Block<'_>, place: Place, is_copy: bool) -> bool {
        self.insert(block.header().index, Piece::new(block, place), is_copy)
    }

    /// Keeps a block until something names its sum.
    pub(super) fn put_loose(&mut self, block: &Block<'_>, place: Place) {
        self.loose
            .push((block.header().index, Piece::new(block, place)));
    }

    fn insert(&mut self, index: Index, piece: Piece, is_copy: bool) -> bool {
        if index <= self.base.index {
            // In segments since before this was written: nothing to learn.
            return true;
        }
        let below = Index(index.0 - 1);
        if below == self.base.index && piece.previous_sum != self.base.sum {
            return false;
        }
        let mut fits = true;
        if is_copy {
            // A copy overrules nothing. But if it is not what stands here, or stands below what it
            // is not, then what it is a copy of overruled that, and is lost.
            let old = self.list.get(&index);
            fits &= old.is_none_or(|old| old.entry.sum == piece.entry.sum);
            let above = self.list.get(&index.next());
            if above.is_some_and(|above| above.previous_sum != piece.entry.sum) {
                self.cut(index.next());
                fits = false;
            }
            if self.end.is_some_and(|(end, _)| end <= index) {
                self.end = None;
            }
        } else {
            // So Raft overruled what stood there (thesis 3.5), in the order in which it did.
            self.cut(index);
        }
        let is_other = |below: &Piece| below.entry.sum != piece.previous_sum;
        if self.list.get(&below).is_some_and(is_other) {
            self.list.remove(&below);
            fits = false;
        }
        self.list.insert(index, piece);
        fits
    }

    fn cut(&mut self, from: Index) {
        self.list.split_off(&from);
        self.end = None;
    }

    /// The block with this index and sum was written next, or copied next, and is lost.
    pub(super) fn lose(&mut self, index: Index, sum: u32, is_copy: bool) {
        let last = self.list.keys().next_back().copied();
        let last = last.max(self.end.map(|(index, _)| index));
        if index <= self.base.index || is_copy && last.is_some_and(|last| last >= index) {
            return;
        }
        if !is_copy {
            self.cut(index);
        }
        self.end = Some((index, sum));
    }

    /// All through the checkpoint's index is in segments. False if that is not what stands here.
    pub(super) fn rebase(&mut self, checkpoint: &Checkpoint) -> bool {
        let base = checkpoint.base();
        if base.index < self.base.index {
            return false;
        }
        if checkpoint.restores {
            self.cut(Index(0));
            self.loose.clear();
        }
        let old = self.list.get(&base.index);
        let mut fits = old.is_none_or(|old| old.entry.sum == base.sum);
        self.list = self.list.split_off(&base.index.next());
        let above = self.list.get(&base.index.next());
        if above.is_some_and(|above| above.previous_sum != base.sum) {
            self.cut(base.index.next());
            fits = false;
        }
        self.end = self.end.filter(|(end, _)| *end > base.index);
        self.loose.retain(|(index, _)| *index > base.index);
        self.base = base;
        self.table = checkpoint.producers.clone();
        self.start = checkpoint.start;
        fits
    }

    /// Puts loose blocks where holes are that name them.
    pub(super) fn settle_loose(&mut self) {
        loop {
            let holes = self.holes();
            let is_named = |(index, piece): &(Index, Piece)| {
                let names = |hole: &Hole| hole.last == *index && hole.sum == piece.entry.sum;
                holes.iter().any(names)
            };
            let Some(at) = self.loose.iter().position(is_named) else {
                self.loose = Vec::new();
                return;
            };
            let (index, piece) = self.loose.swap_remove(at);
            self.insert(index, piece, true);
        }
    }

    /// What is missing, lowest first.
    #[must_use]
    pub fn holes(&self) -> Vec<Hole> {
        let mut holes = Vec::new();
        let mut last = self.base.index;
        let named = self
            .list
            .iter()
            .map(|(index, piece)| (Index(index.0 - 1), piece.previous_sum, *index));
        let end = self.end.map(|(index, sum)| (index, sum, index));
        for (before, sum, index) in named.chain(end) {
            if before > last {
                holes.push(Hole {
                    first: last.next(),
                    last: before,
                    sum,
                });
            }
            last = index;
        }
        holes
    }

    /// Fills a hole from behind: `blocks` lie one behind the other and end with its last one. False,
    /// and nothing changed, if they are not the ones that are missing.
    pub fn fill(&mut self, blocks: &[(Block<'_>, Place)]) -> bool {
        let (Some((first, _)), Some((last, _))) = (blocks.first(), blocks.last()) else {
            return false;
        };
        let is_hole = |hole: &Hole| {
            hole.last == last.header().index
                && hole.sum == last.header().sum
                && hole.first <= first.header().index
        };
        let is_chained = blocks.windows(2).all(|pair| {
            let (before, after) = (pair[0].0.header(), pair[1].0.header());
            after.index == before.index.next() && after.previous_sum == before.sum
        });
        let is_above = |hole: &Hole| is_hole(hole) && self.fits_base(first);
        if !is_chained || !self.holes().iter().any(is_above) {
            return false;
        }
        for (block, place) in blocks.iter().rev() {
            self.insert(block.header().index, Piece::new(block, *place), true);
        }
        true
    }

    fn fits_base(&self, block: &Block<'_>) -> bool {
        block.header().index != self.base.index.next()
            || block.header().previous_sum == self.base.sum
    }

    /// Whether the last block of all is missing: nothing that stands behind tells of it.
    #[must_use]
    pub fn ends_in_hole(&self) -> bool {
        self.end.is_some()
    }

    /// The block at `index`, if it is here.
    #[must_use]
    pub fn entry(&self, index: Index) -> Option<&Entry> {
        self.list.get(&index).map(|piece| &piece.entry)
    }

    /// The lowest run that holds any of it, or may.
    #[must_use]
    pub fn lowest(&self) -> Option<Lsn> {
        let loose = self.loose.iter().map(|(_, piece)| piece);
        let all = self.list.values().chain(loose);
        all.map(|piece| piece.entry.place.lsn).min()
    }

    /// Blocks in runs before `lsn` are lost, for these are to be written over.
    pub(super) fn forget_below(&mut self, lsn: Lsn) {
        let last = self.list.last_key_value();
        let end = last.map(|(index, piece)| (*index, piece.entry.sum));
        self.list.retain(|_, piece| piece.entry.place.lsn >= lsn);
        self.loose.retain(|(_, piece)| piece.entry.place.lsn >= lsn);
        let is_left = |(index, _): &(Index, u32)| !self.list.contains_key(index);
        self.end = self.end.or(end.filter(is_left));
    }

    /// Whether all of it is durable when the journal is below `durable`.
    #[must_use]
    pub fn is_durable(&self, durable: Lsn) -> bool {
        let mut places = self.list.values().map(|piece| piece.entry.place);
        places.all(|place| place.lsn < durable)
    }

    /// The blocks up to the first hole.
    ///
    /// # Errors
    /// A block that fits by its sums and yet cannot follow.
    pub fn prefix(&self) -> Result<Prefix, Index> {
        let mut commit = self.base.index;
        let mut tail = Tail::new(self.base);
        let mut producers = Producers::new(self.table.clone(), self.base.index);
        let mut trims = Trims::new(self.start);
        for (index, piece) in &self.list {
            if *index != tail.last_index().next() {
                break;
            }
            if piece.previous_sum != tail.last_sum() || !tail.accepts(&piece.entry) {
                return Err(*index);
            }
            tail.push_recovered(piece.entry);
            commit = commit.max(piece.commit);
            for note in piece.notes.iter().filter(|_| !bugs::is_on(Switch::B76)) {
                producers.push(*note);
            }
            if let Some(offset) = piece.trim {
                trims.note(*index, offset);
            }
        }
        producers.commit_through(commit);
        trims.commit_through(commit);
        Ok(Prefix {
            tail,
            commit,
            producers,
            trims,
        })
    }
}
