//! A follower below the leader's start: what it lacks is gone for good, so it begins anew behind it
//! (thesis 5.3, where a snapshot does this; here it is what a segment's head says).
//!
//! Knows headers only: the block that the log goes on behind, and when the checkpoint that says so
//! is durable. Until then nothing of it counts: a crash would bring the old log back.

use super::{Outbox, Raft, RoleState, conflict, message};
use crate::bugs::{self, Switch};
use crate::id::{Index, Lsn, Nanos, NodeId, Term};
use crate::log::{Base, Tail};

/// A new beginning that is not durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Installing {
    /// The run that holds its checkpoint.
    pub(super) lsn: Lsn,
    /// What was durable before it, as far as that still holds: what was not committed is void.
    pub(super) durable: Index,
}

impl Raft {
    /// A leader of `term` says that its log begins behind `base`, which is committed. True if this
    /// log has not come that far: the caller puts a checkpoint there and calls [`Raft::install`].
    /// Otherwise the leader is answered how far it has.
    pub fn offer(
        &mut self,
        now: Nanos,
        from: NodeId,
        term: Term,
        base: &Base,
        out: &mut Outbox,
    ) -> bool {
        self.pass(now);
        let is_plausible = message::is_plausible(term, base.index) && base.term <= term;
        if !self.is_from_peer(from) || !self.is_well_formed(is_plausible) || self.doubt().vote {
            return false;
        }
        if term < self.hard.term {
            let hint = conflict::Hint {
                index: Index(0),
                term: Term(0),
            };
            self.refuse_append(from, Index(0), hint, out);
            return false;
        }
        if !self.maybe_follow(from, term, out) {
            return false;
        }
        // What is committed here is what the leader has; below its start it may have no more.
        let known = if base.index <= self.commit {
            Some(self.commit)
        } else {
            let term = self.tail.term_at(base.index);
            let is_here = term == Some(base.term) || term.is_some() && bugs::is_on(Switch::B35);
            is_here.then_some(base.index)
        };
        if let Some(index) = known {
            self.verified = self.verified.max(index);
            self.ack_append(from, index, base.index, out);
        }
        known.is_none()
    }

    /// The log goes on behind `base`, as the checkpoint in the run at `lsn` says. All it held is
    /// void: what of it was committed the leader had, too, and has given up.
    pub fn install(&mut self, from: NodeId, base: Base, lsn: Lsn, out: &mut Outbox) {
        // Blocks that were accepted and found no room were never copied, and will not be.
        let is_follower = matches!(self.role, RoleState::Follower { .. });
        assert!(is_follower, "only a follower begins anew");
        self.role = RoleState::Follower { appending: None };
        assert!(self.leader == Some(from), "its leader offered it");
        assert!(
            base.index > self.commit,
            "what is committed is never given up"
        );
        assert!(lsn >= self.durable, "the checkpoint is on its way");
        self.installing = Some(Installing {
            lsn,
            durable: self.durable().min(self.commit),
        });
        self.tail = Tail::new(base);
        self.verified = base.index;
        self.advance_commit(base.index, out);
        self.ack_append(from, base.index, base.index, out);
    }

    /// The shard sent a peer where this log begins: behind `base`. Its answer tells from where on it
    /// wants blocks.
    pub fn restore_sent(&mut self, now: Nanos, peer: NodeId, base: Index) {
        self.pass(now);
        let now = self.now;
        if let RoleState::Leader(leader) = &mut self.role
            && let Some(progress) = leader.progress_mut(peer)
        {
            progress.restore_sent(now, base);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{After, AppendRequest, Beat, BlockId, Bounds, Config, Message, Output};
    use super::*;
    use crate::id::{GroupId, Offset};
    use crate::log::{Entry, HardState, Place};

    const NOW: Nanos = Nanos(1);
    const LEADER: NodeId = NodeId(2);

    fn follower(terms: &[u64]) -> Raft {
        let config = Config {
            group: GroupId(1),
            me: NodeId(1),
            voters: vec![NodeId(1), LEADER, NodeId(3)],
            seed: 1,
            bounds: Bounds::STANDARD,
        };
        let mut tail = Tail::new(Base::default());
        for term in terms {
            tail.push(Entry {
                term: Term(*term),
                size: 64,
                sum: 0,
                place: Place::default(),
                first_offset: Offset(0),
                record_count: 0,
            });
        }
        let hard = HardState {
            term: Term(5),
            vote: None,
        };
        Raft::new(NOW, config, hard, tail, Index(0))
    }

    fn base(index: u64, term: u64) -> Base {
        Base {
            index: Index(index),
            term: Term(term),
            sum: 9,
            next_offset: Offset(70),
        }
    }

    /// Whether this says that its sender has a block at `wanted`, durably.
    fn matches(message: &Message, wanted: Index) -> bool {
        matches!(message, Message::AppendAck { matched: true, index, .. } if *index == wanted)
    }

    fn outbox() -> Outbox {
        Outbox {
            lsn: Lsn(8192),
            list: Vec::new(),
        }
    }

    #[test]
    fn a_log_that_has_the_block_is_kept() {
        let mut raft = follower(&[1, 1, 4]);
        let mut out = outbox();
        assert!(!raft.offer(NOW, LEADER, Term(5), &base(3, 4), &mut out));
        let is_told = |output: &Output| match output {
            Output::Send { message, .. } => matches(message, Index(3)),
            _ => false,
        };
        assert!(out.list.iter().any(is_told));
        assert_eq!(raft.last(), Index(3));
        // Of an older leader nothing is taken.
        assert!(!raft.offer(NOW, LEADER, Term(4), &base(9, 4), &mut out));
        // Nor of two leaders of a term.
        assert!(!raft.offer(NOW, NodeId(3), Term(5), &base(9, 5), &mut out));
        assert_eq!(raft.faults().disagreement_count, 1);
    }

    #[test]
    fn blocks_that_found_no_room_are_no_half_message() {
        let mut raft = follower(&[1, 1]);
        let mut out = outbox();
        let block = BlockId {
            index: Index(3),
            term: Term(5),
        };
        let request = AppendRequest {
            term: Term(5),
            prev_index: Index(2),
            prev_term: Term(1),
            commit: Index(2),
            blocks: &[block],
        };
        let accepted = raft.append_entries(NOW, LEADER, &request, &mut out);
        assert!(accepted.is_some());
        // The journal is full, so they are not copied. Meanwhile the leader's start passes them.
        assert!(raft.offer(NOW, LEADER, Term(5), &base(9, 5), &mut out));
        raft.install(LEADER, base(9, 5), Lsn(8192), &mut out);
        assert_eq!((raft.last(), raft.commit()), (Index(9), Index(9)));
    }

    #[test]
    fn a_log_without_it_begins_anew_and_nothing_counts_before_that_is_durable() {
        // Its third block is another: nothing of it is kept.
        let mut raft = follower(&[1, 1, 3, 3]);
        let mut out = outbox();
        assert!(raft.offer(NOW, LEADER, Term(5), &base(3, 4), &mut out));
        assert_eq!(raft.last(), Index(4), "an offer alone changes nothing");
        out.list.clear();
        raft.install(LEADER, base(3, 4), Lsn(8192), &mut out);
        assert_eq!((raft.last(), raft.commit()), (Index(3), Index(3)));
        // Four blocks are on the disk, and not one of them is known to be the leader's.
        assert_eq!(raft.durable(), Index(0));
        let waits = |output: &Output| match output {
            Output::Send { message, after, .. } => {
                matches(message, Index(3)) && *after == After::Stored(Lsn(8192))
            }
            _ => false,
        };
        assert!(out.list.iter().any(waits), "{:?}", out.list);
        let beat = Beat {
            term: Term(5),
            commit: Index(3),
            durable: Index(3),
            round: 0,
        };
        let ack = raft.on_beat(NOW, LEADER, &beat, &mut out);
        assert_eq!(ack.durable, Index(0));
        raft.stored(NOW, Lsn(12_288), &mut out);
        assert_eq!(raft.durable(), Index(3));
        assert_eq!(raft.on_beat(NOW, LEADER, &beat, &mut out).durable, Index(3));
        // The same again, late: it is here.
        assert!(!raft.offer(NOW, LEADER, Term(5), &base(3, 4), &mut out));
    }
}
