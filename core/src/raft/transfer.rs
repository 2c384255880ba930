//! Handing leadership over (thesis 3.10): stop proposing, wait until the target has everything,
//! tell it to begin an election at once; give up after T.
//!
//! Knows no reason for it: the shard decides when and to whom. Off the data path.

use super::timer::Timer;
use super::{After, Message, Outbox, Output, Raft, RoleState, TransferRefusal};
use crate::id::{Nanos, NodeId};

/// A transfer going on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Handover {
    pub(super) to: NodeId,
    /// The target was told.
    told: bool,
}

impl Raft {
    /// Hands leadership to `to`. From now on nothing is proposed, until the target leads or T has
    /// passed. Reads go on: each asks a quorum anyway, and that ends with the next leader's vote.
    pub fn transfer(
        &mut self,
        now: Nanos,
        to: NodeId,
        out: &mut Outbox,
    ) -> Result<(), TransferRefusal> {
        self.pass(now);
        let election = self.timeouts.election;
        let RoleState::Leader(leader) = &mut self.role else {
            return Err(TransferRefusal::NotLeader {
                leader: self.leader,
            });
        };
        if to == self.config.me {
            return Err(TransferRefusal::AlreadyLeader);
        }
        if let Some(handover) = leader.handover {
            return Err(TransferRefusal::InProgress { to: handover.to });
        }
        let progress = leader.progress(to).ok_or(TransferRefusal::UnknownVoter)?;
        let heard_at = progress.heard_at();
        if heard_at.after(election) <= self.now {
            return Err(TransferRefusal::Silent { heard_at });
        }
        leader.handover = Some(Handover { to, told: false });
        self.timers.set(Timer::Transfer, self.now.after(election));
        self.maybe_hand_over(out);
        Ok(())
    }

    /// Tells the target to begin once it has everything: before that it could not win.
    pub(super) fn maybe_hand_over(&mut self, out: &mut Outbox) {
        let last = self.tail.last_index();
        let RoleState::Leader(leader) = &mut self.role else {
            return;
        };
        let Some(Handover { to, told: false }) = leader.handover else {
            return;
        };
        if leader
            .progress(to)
            .is_some_and(|progress| progress.matched() == last)
        {
            leader.handover = Some(Handover { to, told: true });
            let message = Message::TimeoutNow {
                term: self.hard.term,
            };
            out.list.push(Output::Send {
                to,
                message,
                after: After::Now,
            });
        }
    }

    /// The target did not take over in time. It may still do so later; that is an election like
    /// any other, and terms keep it safe.
    pub(super) fn maybe_abort_handover(&mut self) {
        if self.timers.is_due(Timer::Transfer, self.now) {
            self.timers.stop(Timer::Transfer);
            if let RoleState::Leader(leader) = &mut self.role {
                leader.handover = None;
            }
        }
    }

    /// Leads no more, at the shard's wish: it has reason to believe that others can, and this node
    /// cannot. They find out by its silence.
    pub fn resign(&mut self, now: Nanos, out: &mut Outbox) {
        self.pass(now);
        assert!(self.is_leader(), "only a leader resigns");
        self.become_follower(self.hard, None, out);
    }

    pub(super) fn on_timeout_now(&mut self, from: NodeId, out: &mut Outbox) {
        let follows = self.leader.is_none_or(|leader| leader == from);
        if matches!(self.role, RoleState::Follower { .. }) && follows && self.doubting.is_none() {
            // No pre-vote: the leader asked for it, and the others would shield that leader.
            self.become_candidate(true, out);
        }
    }
}
