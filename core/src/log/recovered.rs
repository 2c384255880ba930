//! Where recovery found the journal's end: what a journal is opened with.
//!
//! Keeps numbers and the state of groups. Knows no run.

use std::collections::BTreeMap;

use super::ring::Ring;
use super::scars::Scar;
use super::{Doubt, HardState};
use crate::id::{GroupId, Index, Lsn};

/// What the journal needs of a group to make any file's start self-sufficient.
///
/// It is the latest *put*, durable or not. That is safe: hard state and checkpoint are true from the
/// moment they are put (a checkpoint is put after the segments were synced), they only move up,
/// and a run that repeats one lies behind the run that had it first, so whoever sees the repetition
/// durable sees nothing that was not promised in order.
#[derive(Clone, Debug, Default)]
pub(super) struct GroupState {
    pub(super) hard: HardState,
    /// Stands with every hard state until it is settled.
    pub(super) doubt: Doubt,
    /// The latest checkpoint's index and item.
    pub(super) checkpoint: Option<(Index, Vec<u8>)>,
    /// Index of the latest checkpoint in a durable run. What may be released goes by this one.
    pub(super) checkpoint_durable: Index,
}

/// Where recovery found the journal's end, and what it must go on with.
#[derive(Clone, Debug)]
pub struct JournalRecovered {
    pub(super) ring: Ring,
    pub(super) node_tag: u32,
    /// End of the last accepted flush, or 0.
    pub(super) head: Lsn,
    pub(super) last_sum: u32,
    pub(super) sequence: u64,
    /// Highest life any flush names, accepted or not.
    pub(super) life: u64,
    /// Highest `durable_through` of an accepted flush.
    pub(super) promised: Lsn,
    /// First file that holds anything needed, as the last accepted flush says.
    pub(super) oldest_file: u64,
    /// Whether the state of all groups stands in the file before `head`.
    pub(super) complete: bool,
    pub(super) groups: BTreeMap<GroupId, GroupState>,
    /// What is lost and dealt with, once the state of all groups is said.
    pub(super) scars: Vec<Scar>,
}

impl JournalRecovered {
    /// A journal that was never written.
    #[must_use]
    pub fn fresh(ring: Ring, node_tag: u32) -> Self {
        ring.assert_sound();
        Self {
            ring,
            node_tag,
            head: Lsn(0),
            last_sum: 0,
            sequence: 0,
            life: 0,
            promised: Lsn(0),
            oldest_file: 0,
            complete: false,
            groups: BTreeMap::new(),
            scars: Vec::new(),
        }
    }

    /// A group is in doubt: the flush that opens the next life says so before anything else leaves,
    /// for what tells it by itself may be written over later.
    pub fn doubt(&mut self, group: GroupId, doubt: Doubt) {
        self.groups.entry(group).or_default().doubt = doubt;
        self.complete = false;
    }

    /// End of the last flush that was accepted: where the new life begins, or at the next file.
    #[must_use]
    pub fn head(&self) -> Lsn {
        self.head
    }

    /// All below was durable before the crash, as an accepted flush says. What lies between here
    /// and `head` was found whole, and counts as durable once the new life is open.
    #[must_use]
    pub fn promised(&self) -> Lsn {
        self.promised
    }

    /// The life before the one that opens next.
    #[must_use]
    pub fn life(&self) -> u64 {
        self.life
    }

    /// The next life is higher than this one, which is known from elsewhere.
    pub fn raise_life(&mut self, life: u64) {
        self.life = self.life.max(life);
    }

    /// Where the flush that opens the next life goes; none if the ring is full to the last sector.
    pub(super) fn opening_place(&self) -> Option<Lsn> {
        let ring = &self.ring;
        run_place(ring, self.head, self.oldest_file)
            .or_else(|| (ring.left_in_file(self.head) < ring.file_size).then_some(self.head))
    }
}

/// Where the next run goes when the last ended at `head` and files before `oldest_file` are free.
pub(super) fn run_place(ring: &Ring, head: Lsn, oldest_file: u64) -> Option<Lsn> {
    let at_start = ring.left_in_file(head) == ring.file_size;
    if !at_start && ring.takes_run(head) {
        return Some(head);
    }
    let file = ring.file_of(head) + u64::from(!at_start);
    let free = file < oldest_file + u64::from(ring.file_count);
    free.then(|| ring.start_of(file))
}
