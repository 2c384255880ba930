//! Reads that see every acknowledged write (ReadIndex, thesis 6.4), in rounds of heartbeats.
//!
//! All reads of a turn share one round. A round's number is never used twice in a process, and a
//! restarted node leads again only in a higher term, so an answer always belongs to exactly the
//! round that was asked: reusing a caller's id for that would let a retry take an old round's
//! answer for its own.

use std::collections::VecDeque;

use super::{Outbox, Output, Raft, RoleState};
use crate::bugs::{self, Switch};
use crate::id::{Index, Nanos};
use crate::limits::READ_PENDING_MAX;

/// Reads that share a round.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Batch {
    round: u64,
    /// Commit index when the round began: every write acknowledged before it is at or below.
    index: Index,
    ids: Vec<u64>,
}

/// The pending reads of one leadership.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Reads {
    /// Not in a round yet.
    waiting: Vec<u64>,
    /// Rounds without a quorum's answer, oldest first. Invariant: round and index go up.
    batches: VecDeque<Batch>,
    /// Reads in all of them.
    count: usize,
}

impl Reads {
    /// Takes a read for the next round; false when too many are pending.
    fn maybe_wait(&mut self, id: u64) -> bool {
        if self.count == READ_PENDING_MAX {
            return false;
        }
        self.count += 1;
        self.waiting.push(id);
        true
    }

    pub(super) fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Puts all that wait into `round`. The caller asks a quorum to answer it, *after* this: an
    /// answer to anything sent earlier may come from before a newer leader's first commit.
    pub(super) fn begin(&mut self, round: u64, index: Index) {
        assert!(self.is_waiting(), "a round serves some read");
        if let Some(last) = self.batches.back() {
            let is_fresh = round > last.round || bugs::is_on(Switch::B43);
            assert!(is_fresh, "a round's number is used once");
            assert!(index >= last.index, "the commit index never goes down");
        }
        let ids = std::mem::take(&mut self.waiting);
        self.batches.push_back(Batch { round, index, ids });
    }

    /// The oldest round's reads, if a quorum answered `round` or a later one.
    pub(super) fn take_ready(&mut self, round: u64) -> Option<(Index, Vec<u64>)> {
        if self.batches.front()?.round > round {
            return None;
        }
        let batch = self.batches.pop_front()?;
        self.count -= batch.ids.len();
        Some((batch.index, batch.ids))
    }

    /// Everything pending, for a leadership that ended.
    pub(super) fn take_all(&mut self) -> impl Iterator<Item = u64> + use<> {
        let Self {
            waiting, batches, ..
        } = std::mem::take(self);
        batches
            .into_iter()
            .flat_map(|batch| batch.ids)
            .chain(waiting)
    }

    pub(super) fn assert_sound(&self) {
        let batched: usize = self.batches.iter().map(|batch| batch.ids.len()).sum();
        assert!(
            batched + self.waiting.len() == self.count,
            "every pending read is counted once"
        );
        assert!(self.count <= READ_PENDING_MAX, "pending reads are bounded");
    }
}

impl Raft {
    /// A linearizable read. It joins the round that begins at the end of this turn, and ends in
    /// exactly one [`Output::ReadReady`] or [`Output::ReadFailed`].
    pub fn read(&mut self, now: Nanos, id: u64, out: &mut Outbox) {
        self.pass(now);
        let taken = match &mut self.role {
            RoleState::Leader(leader) => leader.reads.maybe_wait(id),
            _ => false,
        };
        if !taken {
            out.list.push(Output::ReadFailed { id });
        }
    }

    /// Asks a quorum whether this node still leads, once for all reads that wait. Not before a
    /// block of this term is committed: until then an older leader may have committed, and
    /// acknowledged, more than this node knows (thesis 6.4).
    pub(super) fn maybe_begin_round(&mut self, out: &mut Outbox) {
        let knows_commit =
            self.tail.term_at(self.commit) == Some(self.hard.term) || bugs::is_on(Switch::B44);
        let RoleState::Leader(leader) = &mut self.role else {
            return;
        };
        if !knows_commit || !leader.reads.is_waiting() {
            return;
        }
        if self.round == 0 || !bugs::is_on(Switch::B43) {
            self.round += 1;
        }
        leader.reads.begin(self.round, self.commit);
        out.list.push(Output::BeatNow);
        self.serve_reads(out); // Alone, a leader is its own quorum.
    }

    pub(super) fn serve_reads(&mut self, out: &mut Outbox) {
        let RoleState::Leader(leader) = &mut self.role else {
            return;
        };
        let round = leader.reached_round(self.round);
        while let Some((index, ids)) = leader.reads.take_ready(round) {
            assert!(index <= self.commit, "the commit index never goes down");
            out.list
                .extend(ids.into_iter().map(|id| Output::ReadReady { id, index }));
        }
    }

    pub(super) fn fail_reads(&mut self, out: &mut Outbox) {
        if let RoleState::Leader(leader) = &mut self.role {
            let index = self.commit;
            let end = |id| match bugs::is_on(Switch::B42) {
                true => Output::ReadReady { id, index },
                false => Output::ReadFailed { id },
            };
            out.list.extend(leader.reads.take_all().map(end));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_later_round_answers_for_the_earlier_ones() {
        let mut reads = Reads::default();
        assert!(reads.maybe_wait(7) && reads.maybe_wait(7));
        reads.begin(1, Index(4));
        assert!(reads.maybe_wait(9));
        reads.begin(2, Index(6));
        assert_eq!(reads.take_ready(0), None);
        assert_eq!(reads.take_ready(2), Some((Index(4), vec![7, 7])));
        assert_eq!(reads.take_ready(2), Some((Index(6), vec![9])));
        assert_eq!(reads.take_ready(2), None);
        reads.assert_sound();
    }

    #[test]
    fn too_many_reads_are_refused_until_some_end() {
        let mut reads = Reads::default();
        assert!((0..READ_PENDING_MAX as u64).all(|id| reads.maybe_wait(id)));
        assert!(!reads.maybe_wait(0));
        assert_eq!(reads.take_all().count(), READ_PENDING_MAX);
        assert!(reads.maybe_wait(0));
        reads.assert_sound();
    }
}
