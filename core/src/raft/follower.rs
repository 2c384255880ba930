//! The follower's half of replication: is this our leader, do our logs match, what is new
//! (thesis 3.5), and how far may its commit index be believed.
//!
//! Knows no other follower. Hops *raft* and *store* of the data path on a follower.

use super::timer::Timer;
use super::{
    Accepted, After, AppendRequest, Beat, BeatAck, Message, Outbox, Output, Raft, RoleState,
    conflict, message,
};
use crate::bugs::{self, Switch};
use crate::id::{Index, Nanos, NodeId, Term};
use crate::log::{Entry, HardState};

/// Blocks accepted and not yet copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Appending {
    leader: NodeId,
    /// Blocks expected.
    count: usize,
    /// As in the request.
    prev_index: Index,
    commit: Index,
}

impl Raft {
    /// First half of AppendEntries: terms, match, conflict. None: refused, or nothing new; an
    /// answer, if there is one, is in `out`. Otherwise the caller copies the blocks after the
    /// first `skip` and calls [`Raft::appended`], before any other call; or does not, if it can copy
    /// none: then they were not sent.
    ///
    /// The tail may be cut here. That is not journaled by itself: the first new block does it. A
    /// crash in between brings the old suffix back, which is as if the message had not come.
    pub fn append_entries(
        &mut self,
        now: Nanos,
        from: NodeId,
        request: &AppendRequest<'_>,
        out: &mut Outbox,
    ) -> Option<Accepted> {
        self.pass(now);
        if !self.is_from_peer(from) || !self.is_well_formed(request.is_plausible()) {
            return None;
        }
        if self.doubt().vote {
            return None; // It may have promised itself to another leader.
        }
        if request.term < self.hard.term {
            // A leader that was replaced learns it from our term. No place is named: the sender may
            // lead that very term by now, and would take the place for one it has just asked about.
            let hint = conflict::Hint {
                index: Index(0),
                term: Term(0),
            };
            self.refuse_append(from, Index(0), hint, out);
            return None;
        }
        if !self.maybe_follow(from, request.term, out) {
            return None;
        }
        if !self.matches_at(request.prev_index, request.prev_term) {
            self.on_conflict(from, request, out);
            return None;
        }
        let accepted = self.maybe_accept(from, request, out);
        self.maybe_settle_log(out);
        accepted
    }

    /// As [`Raft::append_entries`], for blocks of another replica that the leader has said are its own
    /// and decided. They must follow what is known to match; and since they are not the leader's word
    /// that it lives, no election waits for them.
    pub fn append_decided(
        &mut self,
        now: Nanos,
        request: &AppendRequest<'_>,
        out: &mut Outbox,
    ) -> Option<Accepted> {
        self.pass(now);
        if !self.is_well_formed(request.is_plausible()) {
            return None;
        }
        let leader = self.leader?;
        let is_known = request.prev_index <= self.known_index();
        let fits = is_known && self.matches_at(request.prev_index, request.prev_term);
        let follows = matches!(self.role, RoleState::Follower { .. });
        if !follows || request.term != self.hard.term || self.doubt().is_any() || !fits {
            return None;
        }
        self.maybe_accept(leader, request, out)
    }

    /// Second half: the entries of the copied blocks, in order. Fewer than accepted are fine: what
    /// found no room will be sent again.
    pub fn appended(&mut self, now: Nanos, entries: &[Entry], out: &mut Outbox) {
        self.pass(now);
        let RoleState::Follower { appending } = &mut self.role else {
            panic!("only a follower copies blocks");
        };
        let appending = appending.take().expect("append_entries() accepted blocks");
        assert!(
            entries.len() <= appending.count,
            "more blocks than were accepted"
        );
        for entry in entries {
            assert!(
                entry.place.lsn <= out.lsn,
                "blocks stand in runs opened by now"
            );
            self.push(*entry);
        }
        self.verified = self.verified.max(self.tail.last_index());
        self.ack_append(
            appending.leader,
            self.tail.last_index(),
            appending.prev_index,
            out,
        );
        self.maybe_commit_verified(appending.commit, out);
        self.maybe_settle_log(out);
    }

    /// A heartbeat. It never tells more about the commit index than what is known to match:
    /// our log may hold other blocks at these indexes than the leader committed.
    pub fn on_beat(&mut self, now: Nanos, from: NodeId, beat: &Beat, out: &mut Outbox) -> BeatAck {
        self.pass(now);
        let plausible = message::is_plausible(beat.term, beat.commit.max(beat.durable));
        let followed = self.is_from_peer(from)
            && self.is_well_formed(plausible)
            && beat.term >= self.hard.term
            && !self.doubt().vote
            && self.maybe_follow(from, beat.term, out);
        if !followed {
            return BeatAck {
                term: self.hard.term,
                round: 0,
                durable: Index(0),
            };
        }
        if !bugs::is_on(Switch::B40) {
            self.maybe_commit_verified(beat.commit, out);
        }
        // This answer leaves at once. It must not count blocks for a term that a crash could make
        // this node forget: it would then be free to help another leader of that term.
        let durable = match self.hard_pending {
            Some(_) => Index(0),
            None => self.known_index().min(self.durable()),
        };
        BeatAck {
            term: self.hard.term,
            round: beat.round,
            durable,
        }
    }

    /// Takes `from` for the leader of `term`, unless that cannot be.
    pub(super) fn maybe_follow(&mut self, from: NodeId, term: Term, out: &mut Outbox) -> bool {
        assert!(term >= self.hard.term, "older leaders are refused before");
        if term > self.hard.term {
            self.become_follower(HardState { term, vote: None }, Some(from), out);
        }
        match &self.role {
            RoleState::Leader(_) => return self.disagree(),
            RoleState::PreCandidate(_) | RoleState::Candidate(_) => {
                self.become_follower(self.hard, Some(from), out);
            }
            RoleState::Follower { .. } => {
                if self.leader.is_some_and(|leader| leader != from) {
                    return self.disagree();
                }
            }
        }
        self.leader = Some(from);
        self.heard_at = Some(self.now);
        self.attempt_count = 0;
        self.candidacy_count = 0;
        self.wait_for_leader();
        true
    }

    /// Something that Raft rules out was seen: a broken disk, or two nodes with one identity. The
    /// sender gets no answer, so that it cannot build on us.
    fn disagree(&mut self) -> bool {
        self.faults.disagreement_count += 1;
        false
    }

    /// An election begins when nothing is heard from now on.
    pub(super) fn wait_for_leader(&mut self) {
        self.lot = self.chance.next() as u32;
        self.timers
            .set(Timer::Election, self.now.after(self.election_span()));
    }

    /// T and this node's part of the spread.
    pub(super) fn election_span(&self) -> Nanos {
        let part = (u128::from(self.timeouts.spread.0) * u128::from(self.lot)) >> 32;
        self.timeouts.election.after(Nanos(part as u64))
    }

    /// Below the base the block's term is forgotten here, yet it matches: it is committed. Taking
    /// it for a conflict would cut committed blocks.
    fn matches_at(&self, prev_index: Index, prev_term: Term) -> bool {
        prev_index < self.tail.base().index && !bugs::is_on(Switch::B28)
            || self.tail.term_at(prev_index) == Some(prev_term)
    }

    fn on_conflict(&mut self, from: NodeId, request: &AppendRequest<'_>, out: &mut Outbox) {
        if request.prev_index <= self.known_index() {
            self.disagree();
            return;
        }
        let (prev_index, prev_term) = (request.prev_index, request.prev_term);
        let hint = conflict::hint(&self.tail, self.commit, prev_index, prev_term);
        self.refuse_append(from, prev_index, hint, out);
    }

    /// The logs match at `prev_index`: drops what conflicts above it, and says what is new.
    fn maybe_accept(
        &mut self,
        from: NodeId,
        request: &AppendRequest<'_>,
        out: &mut Outbox,
    ) -> Option<Accepted> {
        let blocks = request.blocks;
        let here = |index, term| self.matches_at(index, term);
        let mut skip = blocks
            .iter()
            .take_while(|block| here(block.index, block.term))
            .count();
        if bugs::is_on(Switch::B27) && request.prev_index >= self.commit {
            (skip, self.verified) = (0, request.prev_index);
        }
        let cut = blocks.get(skip).map(|block| block.index);
        if let Some(from_index) = cut.filter(|index| *index <= self.tail.last_index()) {
            // Only a block of another term cuts, never a shorter message: it may be an old one,
            // and what it does not speak of may be acknowledged (thesis 3.5).
            if from_index <= self.known_index() {
                self.disagree();
                return None;
            }
            self.tail.truncate_from(from_index);
            out.list.push(Output::Truncated { from: from_index });
        }
        let matched = Index(request.prev_index.0 + skip as u64);
        self.verified = self.verified.max(matched);
        assert!(
            self.verified <= self.tail.last_index().max(self.commit),
            "verified is here"
        );
        if skip == blocks.len() {
            self.ack_append(from, matched.max(self.commit), request.prev_index, out);
            self.maybe_commit_verified(request.commit, out);
            return None;
        }
        assert!(
            matched >= self.tail.base().index,
            "new blocks follow the last"
        );
        assert!(
            matched == self.tail.last_index(),
            "new blocks follow the last"
        );
        let RoleState::Follower { appending } = &mut self.role else {
            panic!("whoever follows is a follower");
        };
        *appending = Some(Appending {
            leader: from,
            count: blocks.len() - skip,
            prev_index: request.prev_index,
            commit: request.commit,
        });
        Some(Accepted { skip })
    }

    /// Believes the leader's commit index as far as the logs are known to match.
    fn maybe_commit_verified(&mut self, leader_commit: Index, out: &mut Outbox) {
        let index = leader_commit.min(self.verified);
        if bugs::is_on(Switch::B25) && index > Index(0) {
            self.commit = index.min(self.commit);
        }
        if index > self.commit {
            self.advance_commit(index, out);
        }
    }

    pub(super) fn ack_append(&self, to: NodeId, index: Index, prev_index: Index, out: &mut Outbox) {
        assert!(
            index <= self.known_index(),
            "only what matches is acknowledged"
        );
        let term = self.hard.term;
        let message = Message::AppendAck {
            term,
            matched: true,
            index,
            conflict_term: Term(0),
            prev_index,
        };
        out.list.push(Output::Send {
            to,
            message,
            after: if bugs::is_on(Switch::B50) {
                After::Now
            } else {
                self.after(index)
            },
        });
    }

    pub(super) fn refuse_append(
        &self,
        to: NodeId,
        prev_index: Index,
        hint: conflict::Hint,
        out: &mut Outbox,
    ) {
        let message = Message::AppendAck {
            term: self.hard.term,
            matched: false,
            index: hint.index,
            conflict_term: hint.term,
            prev_index,
        };
        // It promises nothing but the term.
        let after = self.hard_pending.map_or(After::Now, After::Stored);
        out.list.push(Output::Send { to, message, after });
    }
}
