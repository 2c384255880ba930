//! A Raft without what tells apart states that act alike: moments, chance, places in the journal,
//! and which of the voters is called what.
//!
//! For searches over all states of a group (feature `sim`). Decides nothing, and nothing that
//! ships calls it. A search lets time pass by the constants below and takes it away again by
//! [`Raft::forget_time`], so that the search, not the clock, chooses which timer fires first.
//!
//! What is lost by it: a search does not see that pauses double, that rivals draw different
//! pauses, nor that an answer after long silence ends a probe's wait at once; to it each of these
//! is some timer that may fire now or later.

use super::timer::{Chance, Timeouts, Timer};
use super::{Raft, RoleState};
use crate::id::{Lsn, Nanos, NodeId};
use crate::log::{Entry, Place, Tail};

/// The moment of every input in such a search.
pub const NOW: Nanos = Nanos(3_600_000_000_000);

/// At this moment a leader takes what it sent and heard nothing of for lost; nothing else is due.
pub const RESEND_DUE: Nanos = Nanos(NOW.0 + 1);

/// At this moment a leader gives a transfer up.
pub const HANDOVER_DUE: Nanos = Nanos(NOW.0 + 2);

/// At this moment a voter in doubt asks the others for their reports.
pub const REPORT_DUE: Nanos = Nanos(NOW.0 + 3);

/// At this moment a leader's quorum has been silent for T; a follower heard its leader T ago, and
/// its own election is not due yet.
pub const SILENCE: Nanos = Nanos(NOW.0 + Timeouts::DEFAULT.election.0);

/// At this moment everybody's election is due.
pub const ELECTION_DUE: Nanos = Nanos(SILENCE.0 + 1);

impl Raft {
    /// Moves all moments to where only their order with [`NOW`] is left of them.
    ///
    /// # Panics
    /// If timeouts were measured, or blocks accepted are still to be copied.
    pub fn forget_time(&mut self) {
        assert!(
            self.timeouts == Timeouts::DEFAULT,
            "the moments above are made of it"
        );
        let fresh = |heard_at: Nanos| heard_at.after(Timeouts::DEFAULT.election) > self.now;
        let heard_long_ago = Nanos(NOW.0 - Timeouts::DEFAULT.election.0);
        self.heard_at = self
            .heard_at
            .map(|at| if fresh(at) { NOW } else { heard_long_ago });
        for (timer, due) in [
            (Timer::Election, ELECTION_DUE),
            (Timer::Transfer, HANDOVER_DUE),
            (Timer::Report, REPORT_DUE),
        ] {
            if self.timers.deadline(timer).is_some() {
                self.timers.set(timer, due);
            }
        }
        match &mut self.role {
            RoleState::Leader(leader) => {
                for (_, progress) in &mut leader.peers {
                    progress.heard_at = NOW;
                    progress.moved_at = Nanos(RESEND_DUE.0 - Timeouts::DEFAULT.resend().0);
                    progress.stall_count = 0;
                }
            }
            RoleState::Follower { appending } => {
                assert!(appending.is_none(), "half a message");
            }
            RoleState::PreCandidate(_) | RoleState::Candidate(_) => {}
        }
        self.now = NOW;
        self.chance = Chance::new(0);
        self.lot = 0;
        self.attempt_count = 0;
        self.candidacy_count = 0;
    }

    /// Counts the journal's places from `span` further on; what lay below lies at 0. Only sound if
    /// everything below `span` is durable: what is durable has no order.
    pub fn lower_places(&mut self, span: u64) {
        assert!(
            span < self.durable.0,
            "only what is durable loses its order"
        );
        let lower = |lsn: Lsn| Lsn(lsn.0.saturating_sub(span));
        let mut tail = Tail::new(self.tail.base());
        for (_, entry) in self.tail.entries() {
            let place = Place {
                lsn: lower(entry.place.lsn),
                ..entry.place
            };
            tail.push(Entry { place, ..*entry });
        }
        self.tail = tail;
        self.durable = lower(self.durable);
        self.hard_pending = self.hard_pending.map(lower);
    }

    /// The same Raft in a group whose voters are called otherwise: `name` must lead from all
    /// voters to all voters. It acts alike, for no rule but [`Raft::on_peer_refused`] asks for more
    /// than whether two names are equal.
    #[must_use]
    pub fn renamed(&self, name: impl Fn(NodeId) -> NodeId) -> Self {
        let mut renamed = self.clone();
        let mut voters: Vec<_> = self.config.voters.iter().copied().map(&name).collect();
        voters.sort_unstable();
        assert!(voters == self.config.voters, "the names are the same ones");
        renamed.config.me = name(self.config.me);
        renamed.hard.vote = self.hard.vote.map(&name);
        renamed.leader = self.leader.map(&name);
        if let Some(doubting) = &mut renamed.doubting {
            let (answered, reports) = (doubting.answered, doubting.reports);
            for (position, voter) in voters.iter().enumerate() {
                let new = voters.binary_search(&name(*voter)).expect("a voter");
                doubting.answered[new] = answered[position];
                doubting.reports[new] = reports[position];
            }
        }
        match &mut renamed.role {
            RoleState::Follower { appending } => {
                assert!(appending.is_none(), "half a message");
            }
            RoleState::PreCandidate(votes) | RoleState::Candidate(votes) => {
                let old = *votes;
                for (position, voter) in voters.iter().enumerate() {
                    let new = voters.binary_search(&name(*voter)).expect("a voter");
                    votes.list[new] = old.list[position];
                }
            }
            RoleState::Leader(leader) => {
                for (peer, _) in &mut leader.peers {
                    *peer = name(*peer);
                }
                leader.peers.sort_unstable_by_key(|(peer, _)| *peer);
                if let Some(handover) = &mut leader.handover {
                    handover.to = name(handover.to);
                }
            }
        }
        renamed
    }
}
