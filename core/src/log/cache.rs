//! The tail cache: sealed runs kept for peers and readers, by lsn.
//!
//! Keeps slices of arenas and gives up the oldest when their memory is wanted. Does not know what a
//! run holds.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::id::Lsn;

/// Sealed runs in the order of their lsns.
#[derive(Debug, Default)]
pub(super) struct Cache {
    runs: VecDeque<(Lsn, Bytes)>,
}

impl Cache {
    pub(super) fn push(&mut self, lsn: Lsn, run: Bytes) {
        assert!(
            self.runs.back().is_none_or(|(last, _)| *last < lsn),
            "runs come in order"
        );
        self.runs.push_back((lsn, run));
    }

    pub(super) fn run(&self, lsn: Lsn) -> Option<&Bytes> {
        let at = self.runs.binary_search_by_key(&lsn, |(lsn, _)| *lsn).ok()?;
        Some(&self.runs[at].1)
    }

    /// Gives up the oldest run if it is durable: then it can be read from disk.
    pub(super) fn evict(&mut self, durable: Lsn) -> bool {
        let evictable = self.runs.front().is_some_and(|(lsn, _)| *lsn < durable);
        if evictable {
            self.runs.pop_front();
        }
        evictable
    }

    pub(super) fn len(&self) -> usize {
        self.runs.len()
    }
}
