//! How much room the ring has left, and for what: the reserves before its end, and how files are
//! given free.
//!
//! Knows of blocks, votes and checkpoints no more than their sizes.

use super::super::item::HARD_STATE_SIZE;
use super::super::ring::{Room, Strain};
use super::Journal;
use crate::id::Lsn;

/// How near the ring is to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pressure {
    /// Whole files behind the current one that may be entered now.
    pub files_free: u32,
    /// Bytes that blocks may still take before they are refused.
    pub size_free: u64,
}

impl Journal {
    /// Whether there is room for a block that a leader elsewhere has taken, even if the open run has
    /// none left for it and the next must begin in another file, behind the state of all groups; and so
    /// many runs more.
    #[must_use]
    pub fn takes_copies(&self, more: usize) -> bool {
        let (lsn, limit) = match &self.open {
            Some(run) => (run.lsn, run.limit),
            None => (self.head, 0),
        };
        let mut next = Lsn(lsn.0 + limit as u64);
        if !self.ring.takes_run(next) {
            next = self.ring.start_of(self.ring.file_of(next) + 1);
        }
        let last = Lsn(self.head.0.saturating_sub(1));
        if self.ring.file_of(next) != self.ring.file_of(last) || self.restating.is_some() {
            next = Lsn(next.0 + self.state_size());
        }
        let end = next.0 + self.ring.run_size as u64 * (1 + more as u64);
        end + self.ring.reserve_size(Room::Copies) <= self.grants.end().0
    }

    /// Bytes of the runs that the state of all groups takes.
    fn state_size(&self) -> u64 {
        let items = self.groups.values().map(|state| {
            let checkpoint = state.checkpoint.as_ref();
            // The vote stands in the run and in its copy behind it.
            2 * HARD_STATE_SIZE + checkpoint.map_or(0, |(_, item)| item.len())
        });
        let size = items.sum::<usize>() as u64;
        // Runs end where the next item would not fit.
        (size + size / 32).next_multiple_of(self.ring.run_size as u64)
    }

    /// Whether the ring has room for something of this kind. Blocks count as if they filled their
    /// run; votes are small.
    pub(super) fn has_room(&self, room: Room) -> bool {
        let (lsn, limit) = match &self.open {
            Some(run) => (run.lsn, run.limit),
            None => (self.head, self.ring.run_size),
        };
        let end = match room {
            Room::Blocks | Room::Copies => lsn.0 + limit as u64,
            Room::Votes => lsn.0,
        };
        end + self.ring.reserve_size(room) <= self.grants.end().0
    }

    /// Nothing below `lsn` is needed any more: every block there is covered by a durable checkpoint
    /// ([`Journal::checkpoint_durable`]), was truncated, or was carried to a place that is durable.
    /// Files wholly below become free once a flush that says so is durable.
    pub fn release_below(&mut self, lsn: Lsn) {
        assert!(lsn <= self.durable(), "what is not durable is still needed");
        self.grants.release_below(lsn);
    }

    /// How near the ring is to its end.
    #[must_use]
    pub fn pressure(&self) -> Pressure {
        let file = self.ring.file_of(Lsn(self.head.0.saturating_sub(1)));
        let end = self.grants.end();
        let last = self.ring.file_of(end) - 1;
        let left = end
            .0
            .saturating_sub(self.head.0 + self.ring.reserve_size(Room::Blocks));
        Pressure {
            files_free: u32::try_from(last.saturating_sub(file)).unwrap_or(u32::MAX),
            size_free: if left < self.ring.run_size as u64 {
                0
            } else {
                left
            },
        }
    }

    /// How much of the oldest file must be put again. What is released already counts as free.
    #[must_use]
    pub fn strain(&self) -> Strain {
        let left = self.grants.end_due().0.saturating_sub(self.head.0);
        self.ring.strain(left)
    }
}
