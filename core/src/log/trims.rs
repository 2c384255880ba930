//! Where a log begins: the first offset that is served, and which decisions to move it are on their
//! way.
//!
//! A trim is a block like any other, so all replicas move at the same offset, and one that was cut
//! moves nobody. Keeps the start as of the commit index, and the trims above it. Knows no file: what
//! may be deleted follows from the start, later.

use std::collections::VecDeque;

use super::block::Block;
use crate::id::{Index, Offset};

/// A log's start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trims {
    /// Records below are gone for good. Never goes down.
    start: Offset,
    /// Trims that are not committed as far as known, by ascending index.
    pending: VecDeque<(Index, Offset)>,
}

impl Trims {
    /// Of a log that begins at `start`.
    #[must_use]
    pub fn new(start: Offset) -> Self {
        Self {
            start,
            pending: VecDeque::new(),
        }
    }

    /// The first offset that is served.
    #[must_use]
    pub fn start(&self) -> Offset {
        self.start
    }

    /// Where the log will begin once all that is in it is committed.
    #[must_use]
    pub fn latest(&self) -> Offset {
        let pending = self.pending.iter().map(|(_, offset)| *offset);
        pending
            .chain([self.start])
            .max()
            .expect("the start at least")
    }

    /// Remembers that the block at `index` moves the start to `offset`. In log order.
    pub fn note(&mut self, index: Index, offset: Offset) {
        if let Some((last, _)) = self.pending.back() {
            assert!(*last < index, "trims are noted in log order");
        }
        self.pending.push_back((index, offset));
    }

    /// As [`Trims::note`], if the block is a trim.
    pub fn note_block(&mut self, block: &Block<'_>) {
        if let Some(offset) = block.trim() {
            self.note(block.header().index, offset);
        }
    }

    /// Forgets the trims at `index` and above.
    pub fn truncate_from(&mut self, index: Index) {
        while self.pending.pop_back_if(|(at, _)| *at >= index).is_some() {}
    }

    /// All through `index` is committed. True if that moved the start.
    pub fn commit_through(&mut self, index: Index) -> bool {
        let before = self.start;
        while let Some((_, offset)) = self.pending.pop_front_if(|(at, _)| *at <= index) {
            self.start = self.start.max(offset);
        }
        self.start > before
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_committed_moves_the_start_and_never_back() {
        let mut trims = Trims::new(Offset(5));
        for (index, offset) in [(3, 10), (5, 8), (9, 40), (12, 90)] {
            trims.note(Index(index), Offset(offset));
        }
        assert_eq!((trims.start(), trims.latest()), (Offset(5), Offset(90)));
        assert!(!trims.commit_through(Index(2)));
        assert!(trims.commit_through(Index(3)));
        // A trim below the start is none.
        assert!(!trims.commit_through(Index(5)));
        assert_eq!(trims.start(), Offset(10));
        trims.truncate_from(Index(9));
        assert!(!trims.commit_through(Index(20)));
        assert_eq!((trims.start(), trims.latest()), (Offset(10), Offset(10)));
    }
}
