//! A group's Raft, and when it is due next.
//!
//! A shard looks at the end of each turn whether any of its groups is due, and most of them have not
//! been touched since the last time. So the moment is kept until somebody may have changed it. Knows
//! nothing of Raft's rules.

use std::cell::Cell;
use std::ops::{Deref, DerefMut};

use crate::id::{Lsn, Nanos};
use crate::raft::Raft;

/// Raft, with the answer of [`Raft::deadline`] for as long as nobody touches it.
#[derive(Debug)]
pub(super) struct Watched {
    raft: Raft,
    due: Cell<Option<Nanos>>,
}

impl Watched {
    pub(super) fn new(raft: Raft) -> Self {
        Self {
            raft,
            due: Cell::new(None),
        }
    }

    /// When it has something to do.
    pub(super) fn due(&self) -> Nanos {
        let due = self.due.get().unwrap_or_else(|| self.raft.deadline());
        self.due.set(Some(due));
        due
    }

    /// As [`Raft::passed_over`], which changes nothing that is due.
    pub(super) fn passed_over(&mut self, durable: Lsn) {
        self.raft.passed_over(durable);
    }
}

impl Deref for Watched {
    type Target = Raft;

    fn deref(&self) -> &Raft {
        &self.raft
    }
}

impl DerefMut for Watched {
    fn deref_mut(&mut self) -> &mut Raft {
        self.due.set(None);
        &mut self.raft
    }
}
