//! Headers of the blocks that Raft may still need: index, term, size, sum and place of each.
//!
//! Owned by Raft. Knows no payload. Hop *raft* of the data path.

use std::collections::VecDeque;

use super::Place;
use crate::id::{Index, Lsn, Offset, Term};

/// The block just below the tail's first: all below it is decided and kept in segments.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Base {
    /// Its index; 0 when the group has no block below the tail.
    pub index: Index,
    /// Its term.
    pub term: Term,
    /// Its sum.
    pub sum: u32,
    /// Offset of the first record after it.
    pub next_offset: Offset,
}

/// One block's header, as far as consensus needs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Term in which a leader made it.
    pub term: Term,
    /// Bytes of the whole block.
    pub size: u32,
    /// Sum of its header and append headers.
    pub sum: u32,
    /// Where it was written.
    pub place: Place,
    /// Offset of its first record, or of the next one if it has none.
    pub first_offset: Offset,
    /// Records in it.
    pub record_count: u32,
}

/// The headers above the base, dense by index.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tail {
    base: Base,
    /// `entries[i]` has index `base.index + 1 + i`. Terms and places never go down.
    entries: VecDeque<Entry>,
}

impl Tail {
    /// An empty tail above `base`.
    #[must_use]
    pub fn new(base: Base) -> Self {
        Self {
            base,
            entries: VecDeque::new(),
        }
    }

    /// The block below the first entry.
    #[must_use]
    pub fn base(&self) -> Base {
        self.base
    }

    /// Index of the first entry, were there one.
    #[must_use]
    pub fn first_index(&self) -> Index {
        self.base.index.next()
    }

    /// Index of the last entry, or of the base.
    #[must_use]
    pub fn last_index(&self) -> Index {
        Index(self.base.index.0 + self.entries.len() as u64)
    }

    /// Term of the last entry, or of the base.
    #[must_use]
    pub fn last_term(&self) -> Term {
        self.entries
            .back()
            .map_or(self.base.term, |entry| entry.term)
    }

    /// Sum of the last entry, or of the base.
    #[must_use]
    pub fn last_sum(&self) -> u32 {
        self.entries.back().map_or(self.base.sum, |entry| entry.sum)
    }

    /// Offset of the first record after the last entry.
    #[must_use]
    pub fn next_offset(&self) -> Offset {
        self.entries.back().map_or(self.base.next_offset, |entry| {
            Offset(entry.first_offset.0 + u64::from(entry.record_count))
        })
    }

    /// Term of the block at `index`, the base included; none outside.
    #[must_use]
    pub fn term_at(&self, index: Index) -> Option<Term> {
        if index == self.base.index {
            return Some(self.base.term);
        }
        self.entry(index).map(|entry| entry.term)
    }

    /// The entry at `index`; none at or below the base and above the end.
    #[must_use]
    pub fn entry(&self, index: Index) -> Option<&Entry> {
        let position = index.0.checked_sub(self.base.index.0 + 1)?;
        self.entries.get(usize::try_from(position).ok()?)
    }

    /// Puts an entry at the end.
    pub fn push(&mut self, entry: Entry) {
        assert!(
            entry.term >= self.last_term(),
            "terms never go down in a log (thesis 3.5)"
        );
        if let Some(last) = self.entries.back() {
            assert!(
                entry.place.lsn >= last.place.lsn,
                "a later block is in no earlier run"
            );
        }
        self.entries.push_back(entry);
    }

    /// Cuts the entry at `index` and all above.
    pub fn truncate_from(&mut self, index: Index) {
        assert!(index > self.base.index, "what is in segments is never cut");
        assert!(index <= self.last_index().next(), "nothing there to cut");
        self.entries
            .truncate((index.0 - self.base.index.0 - 1) as usize);
    }

    /// Forgets the headers up to and including `index`: it becomes the base.
    pub fn release_through(&mut self, index: Index) {
        assert!(index <= self.last_index(), "only what exists is released");
        while self.base.index < index {
            let entry = self.entries.pop_front().expect("index is at most the last");
            self.base = Base {
                index: self.base.index.next(),
                term: entry.term,
                sum: entry.sum,
                next_offset: Offset(entry.first_offset.0 + u64::from(entry.record_count)),
            };
        }
    }

    /// Highest index through which all is durable when the journal is durable below `durable`.
    #[must_use]
    pub fn durable_index(&self, durable: Lsn) -> Index {
        let count = self
            .entries
            .partition_point(|entry| entry.place.lsn < durable);
        Index(self.base.index.0 + count as u64)
    }

    /// Index of the block that holds the record at `offset`.
    #[must_use]
    pub fn index_of_offset(&self, offset: Offset) -> Option<Index> {
        if offset < self.base.next_offset || offset >= self.next_offset() {
            return None;
        }
        let count = self.entries.partition_point(|entry| {
            entry.first_offset.0 + u64::from(entry.record_count) <= offset.0
        });
        Some(Index(self.base.index.0 + 1 + count as u64))
    }

    /// Bytes of the blocks above `after`, through `through`.
    #[must_use]
    pub fn size_between(&self, after: Index, through: Index) -> u64 {
        let skip = after.0.saturating_sub(self.base.index.0) as usize;
        let take = through.0.saturating_sub(after.0.max(self.base.index.0)) as usize;
        self.entries
            .iter()
            .skip(skip)
            .take(take)
            .map(|entry| u64::from(entry.size))
            .sum()
    }
}
