//! A node's way out, when it is asked to stop: nothing new is taken, what was taken is answered,
//! leadership is handed over, and clients are told to go on elsewhere.
//!
//! In this order, so that no append ends in doubt that need not: a leader that hands over with
//! answers due could only say `Unknown` to them. Knows no deadline; whoever asked has one.

use crate::frame::code::RefusedReason;
use crate::id::{Nanos, NodeId};
use crate::raft::ProposeRefusal;

use super::{Effects, Shard};

/// How far the way out has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// Nobody has asked.
    Running,
    /// Appends are refused, those taken before are waited for.
    Answering,
    /// Those who can are asked to lead.
    HandingOver,
    /// Clients have been told. The persist record says how far the journal is durable.
    Gone,
}

impl Shard {
    pub(super) fn on_stop(&mut self) {
        if self.stop == Stop::Running {
            self.stop = Stop::Answering;
        }
    }

    /// Whether appends are taken no more.
    pub(super) fn is_stopping(&self) -> bool {
        self.stop != Stop::Running
    }

    /// Whether nobody counts on this node any more, as far as it can bring that about.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        self.stop == Stop::Gone && self.persisting.is_settled()
    }

    /// Goes on with the way out as far as it goes now.
    pub(super) fn advance_stop(&mut self, now: Nanos, effects: &mut Effects) {
        if self.stop == Stop::Answering && !self.owes_answers() {
            self.hand_over_all(now, effects);
            self.stop = Stop::HandingOver;
        }
        if self.stop == Stop::HandingOver && !self.is_handing_over() {
            for connection in self.sessions.clients() {
                let detail = "this node is shutting down";
                self.refuse(connection, RefusedReason::Stopping, detail, effects);
            }
            self.stop = Stop::Gone;
            self.persisting.hurry();
        }
    }

    fn owes_answers(&self) -> bool {
        let mut groups = self.groups.iter();
        groups.any(|group| !group.acks.is_empty() || !group.retried.is_empty())
    }

    fn is_handing_over(&self) -> bool {
        let mut groups = self.groups.iter();
        groups.any(|group| group.raft.can_propose() == Err(ProposeRefusal::Transferring))
    }

    /// Asks, for each group led here, the peer that has most of it. Where nobody can be asked the
    /// others find out by themselves.
    fn hand_over_all(&mut self, now: Nanos, effects: &mut Effects) {
        for position in 0..self.groups.len() {
            if let Some(to) = self.successor(now, position) {
                self.tell_raft(now, position, effects, |raft, out| {
                    // It may just have fallen silent: then this group is not handed over.
                    let _ = raft.transfer(now, to, out);
                });
            }
        }
    }

    fn successor(&self, now: Nanos, position: usize) -> Option<NodeId> {
        let raft = &self.groups[position].raft;
        if !raft.is_leader() {
            return None;
        }
        let heard = self.peers.iter().copied();
        let heard = heard.filter(|peer| self.liveness.is_heard(now, *peer));
        heard.max_by_key(|peer| raft.progress(*peer).map(|progress| progress.matched()))
    }
}
