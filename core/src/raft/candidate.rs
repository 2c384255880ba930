//! Elections from both sides: asking for votes, and giving them (thesis 3.4, 3.6.1, 4.2.3, 9.6).
//!
//! Knows nothing of replication. Off the data path.

use super::timer::Timer;
use super::{After, Message, Outbox, Output, Raft, RoleState, quorum};
use crate::bugs::{self, Switch};
use crate::id::{Index, Nanos, NodeId, Term};
use crate::limits::VOTER_COUNT_MAX;
use crate::log::HardState;

/// Lost elections double the pause before the next, this often at most; T bounds it anyway.
const ATTEMPT_COUNT_MAX: u32 = 16;

/// Candidacies that double the time for the next, at most.
const CANDIDACY_COUNT_MAX: u32 = 16;

/// Votes that take longer than this, and than T, are not waited for, but for what chance adds.
const VOTES_PATIENCE_MAX: Nanos = Nanos::from_millis(3_000);

/// What each voter said, in the order of the voters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Votes {
    pub(super) list: [Option<bool>; VOTER_COUNT_MAX],
}

/// A vote request without its kind.
#[derive(Clone, Copy, Debug)]
pub(super) struct VoteQuestion {
    pub(super) term: Term,
    pub(super) last_index: Index,
    pub(super) last_term: Term,
    pub(super) transfer: bool,
}

/// A vote reply without the voter's term.
#[derive(Clone, Copy, Debug)]
pub(super) struct VoteAnswer {
    pub(super) pre: bool,
    pub(super) granted: bool,
    /// Term asked for.
    pub(super) term: Term,
}

impl Raft {
    /// The redial of this peer's closed connection was refused: its process is gone. If it leads
    /// us there is nothing to wait for; the remaining voters ask in turn, by rank, so that they do
    /// not split the votes. The rank is rotated by group, so that a dead node's groups spread.
    pub fn on_peer_refused(&mut self, now: Nanos, peer: NodeId, out: &mut Outbox) {
        self.pass(now);
        if self.leader != Some(peer) || self.is_leader() {
            return;
        }
        self.leader = None;
        self.heard_at = None; // No longer a reason to refuse a vote to others.
        if self.doubting.is_some() {
            return;
        }
        let remaining = || self.config.voters.iter().filter(|voter| **voter != peer);
        let (count, me) = (remaining().count(), self.config.me);
        let position = remaining()
            .position(|voter| *voter == me)
            .expect("we are a voter");
        let rotation = self.config.group.0 as usize % count;
        let rank = (position + count - rotation) % count;
        if rank == 0 {
            self.become_pre_candidate(out);
        } else {
            let delay = Nanos(self.timeouts.rank_step().0 * rank as u64);
            self.timers.set(Timer::Election, self.now.after(delay));
        }
    }

    pub(super) fn on_election_timeout(&mut self, out: &mut Outbox) {
        if self.doubting.is_some() {
            (self.leader, self.heard_at) = (None, None);
            self.wait_for_leader();
            return;
        }
        if matches!(self.role, RoleState::Candidate(_)) && self.hard_pending.is_some() {
            // Our own disk has not stored the vote yet, nobody was asked. Another term would only
            // begin the same wait again, for ever if the disk is slower than T.
            self.wait_for_votes();
            return;
        }
        self.attempt_count = (self.attempt_count + 1).min(ATTEMPT_COUNT_MAX);
        self.become_pre_candidate(out);
    }

    /// Asks whether a vote would be won, in a term that is not begun yet: a node cut off from the
    /// rest keeps its term however long that lasts, and deposes nobody when it is back (9.6).
    fn become_pre_candidate(&mut self, out: &mut Outbox) {
        assert!(!self.is_leader(), "a leader steps down first");
        assert!(self.doubting.is_none(), "whoever doubts does not campaign");
        self.leader = None;
        self.heard_at = None;
        let mut votes = Votes::default();
        votes.list[self.voter(self.config.me)] = Some(true);
        self.role = RoleState::PreCandidate(votes);
        self.wait_for_leader();
        let term = Term(self.hard.term.0 + 1);
        self.ask_for_votes(
            true,
            VoteQuestion {
                transfer: false,
                ..self.question(term)
            },
            out,
        );
        self.conclude(out);
    }

    /// Begins a term and votes for itself in it (3.4). It counts that vote once it is durable.
    pub(super) fn become_candidate(&mut self, transfer: bool, out: &mut Outbox) {
        assert!(!self.is_leader(), "a leader does not run against itself");
        let term = Term(self.hard.term.0 + 1);
        self.persist(
            HardState {
                term,
                vote: Some(self.config.me),
            },
            out,
        );
        self.verified = Index(0);
        self.leader = None;
        self.heard_at = None;
        self.role = RoleState::Candidate(Votes::default());
        self.candidacy_count = (self.candidacy_count + 1).min(CANDIDACY_COUNT_MAX);
        self.wait_for_votes();
        out.list.push(Output::SteppedDown { term, leader: None });
        self.ask_for_votes(
            false,
            VoteQuestion {
                transfer,
                ..self.question(term)
            },
            out,
        );
    }

    /// A vote is written before it is given, and a disk may take longer than T. Each candidacy that
    /// found no end gives the next one twice the time: with T for each, voters whose disks are slower
    /// would answer one that is over, for ever. What chance adds stays on top of the bound: else rivals
    /// that split the votes of a quorum would ask again side by side, for ever, too.
    fn wait_for_votes(&mut self) {
        self.wait_for_leader();
        let span = self.election_span();
        let doubled = Nanos(span.0 << self.candidacy_count.saturating_sub(1));
        let chance = span.since(self.timeouts.election);
        let patience = doubled.min(VOTES_PATIENCE_MAX.after(chance)).max(span);
        self.timers.set(Timer::Election, self.now.after(patience));
    }

    pub(super) fn maybe_count_own_vote(&mut self, out: &mut Outbox) {
        let me = self.voter(self.config.me);
        if let RoleState::Candidate(votes) = &mut self.role
            && self.hard_pending.is_none()
            && votes.list[me].is_none()
        {
            votes.list[me] = Some(true);
            self.conclude(out);
        }
    }

    pub(super) fn on_pre_vote_request(
        &mut self,
        from: NodeId,
        question: VoteQuestion,
        out: &mut Outbox,
    ) {
        // Neither grant nor refusal changes anything here: a granted pre-vote that counted as
        // contact would let a node without a leader hold off one that could become it.
        let granted = question.term > self.hard.term
            && self.is_up_to_date(&question)
            && self.may_grant(&question)
            && !self.is_shielding_leader(from);
        if granted && bugs::is_on(Switch::B10) {
            self.wait_for_leader();
        }
        self.reply_vote(
            from,
            VoteAnswer {
                pre: true,
                granted,
                term: question.term,
            },
            out,
        );
    }

    pub(super) fn on_vote_request(
        &mut self,
        from: NodeId,
        question: VoteQuestion,
        out: &mut Outbox,
    ) {
        let up_to_date = self.is_up_to_date(&question) && self.may_grant(&question);
        let shielded = !question.transfer && self.is_shielding_leader(from);
        if question.term > self.hard.term && !shielded {
            // Even when the vote is refused the term is taken over: else a candidate in a higher
            // term than all others could neither win nor be won over.
            let vote = (up_to_date || bugs::is_on(Switch::B08)).then_some(from);
            self.become_follower(
                HardState {
                    term: question.term,
                    vote,
                },
                None,
                out,
            );
        } else if question.term == self.hard.term
            && self.hard.vote.is_none()
            && self.leader.is_none()
            && up_to_date
        {
            let hard = HardState {
                term: question.term,
                vote: Some(from),
            };
            self.become_follower(hard, None, out);
        }
        // Asked again after a lost reply, the same candidate hears the same.
        let granted = question.term == self.hard.term && self.hard.vote == Some(from);
        self.reply_vote(
            from,
            VoteAnswer {
                pre: false,
                granted,
                term: question.term,
            },
            out,
        );
    }

    pub(super) fn on_vote_reply(&mut self, from: NodeId, answer: VoteAnswer, out: &mut Outbox) {
        let voter = self.voter(from);
        let next_term = Term(self.hard.term.0 + 1);
        let votes = match &mut self.role {
            RoleState::PreCandidate(votes) if answer.pre && answer.term == next_term => votes,
            RoleState::Candidate(votes)
                if !answer.pre && (answer.term == self.hard.term || bugs::is_on(Switch::B04)) =>
            {
                votes
            }
            _ => return, // Of an election that is over; counted here it would elect two.
        };
        // The first answer counts; a second one, in any order, is a duplicate.
        if votes.list[voter].is_none() {
            votes.list[voter] = Some(answer.granted);
            self.conclude(out);
        }
    }

    fn conclude(&mut self, out: &mut Outbox) {
        let me = self.voter(self.config.me);
        let count = self.config.voters.len();
        let (RoleState::PreCandidate(votes) | RoleState::Candidate(votes)) = &self.role else {
            panic!("only an election is concluded");
        };
        let (outcome, own) = (quorum::outcome(&votes.list[..count]), votes.list[me]);
        match outcome {
            quorum::Outcome::Won if own.is_none() => {}
            quorum::Outcome::Won if matches!(self.role, RoleState::Candidate(_)) => {
                self.become_leader(out);
            }
            quorum::Outcome::Won => self.become_candidate(false, out),
            quorum::Outcome::Lost => self.become_loser(out),
            quorum::Outcome::Open => {}
        }
    }

    /// Lost: waits a short while, longer each time and by chance, so that rivals part. Refused for
    /// a leader's sake, it will be heard soon; refused because others had not yet noticed that
    /// their leader is gone, they will have by then.
    fn become_loser(&mut self, out: &mut Outbox) {
        self.become_follower(self.hard, None, out);
        if bugs::is_on(Switch::B06) {
            self.hard.vote = None;
        }
        let doubled = self.timeouts.rank_step().0 << self.attempt_count;
        let pause = Nanos(doubled.min(self.timeouts.election.0));
        let rivals = Nanos(pause.0 * self.config.voters.len() as u64);
        let spread = self.chance.below(rivals.min(self.timeouts.spread));
        self.timers
            .set(Timer::Election, self.now.after(pause).after(spread));
    }

    /// Heard its leader within the shortest T, so it helps no other (4.2.3). A leader shields itself: should it
    /// have lost its quorum, it finds out within T. A request from that very leader means that it
    /// leads no more.
    fn is_shielding_leader(&self, from: NodeId) -> bool {
        if self.is_leader() {
            return true;
        }
        let fresh = |heard_at: Nanos| heard_at.after(self.timeouts.patience) > self.now;
        self.leader.is_some_and(|leader| leader != from) && self.heard_at.is_some_and(fresh)
    }

    /// The asker's log is at least as new as ours: terms first, then length (3.6.1). Compared as a
    /// pair; each by itself would make two nodes that can never elect each other.
    fn is_up_to_date(&self, question: &VoteQuestion) -> bool {
        let ours = (self.tail.last_term(), self.tail.last_index());
        if bugs::is_on(Switch::B09) {
            return question.last_term >= ours.0 && question.last_index >= ours.1;
        }
        bugs::is_on(Switch::B37) || (question.last_term, question.last_index) >= ours
    }

    fn question(&self, term: Term) -> VoteQuestion {
        let (last_index, last_term) = (self.tail.last_index(), self.tail.last_term());
        VoteQuestion {
            term,
            last_index,
            last_term,
            transfer: false,
        }
    }

    fn ask_for_votes(&self, pre: bool, question: VoteQuestion, out: &mut Outbox) {
        let VoteQuestion {
            term,
            last_index,
            last_term,
            transfer,
        } = question;
        // A vote asked for on the strength of our own must not outlive a crash that forgets it.
        let after = match self.hard_pending {
            Some(lsn) if !pre => After::Stored(lsn),
            _ => After::Now,
        };
        let message = Message::VoteRequest {
            pre,
            transfer,
            term,
            last_index,
            last_term,
        };
        for to in self.peers() {
            out.list.push(Output::Send { to, message, after });
        }
    }

    fn reply_vote(&self, to: NodeId, answer: VoteAnswer, out: &mut Outbox) {
        let VoteAnswer { pre, granted, term } = answer;
        assert!(
            pre || !granted || self.hard.vote == Some(to),
            "a vote is given to one"
        );
        let message = Message::VoteReply {
            pre,
            granted,
            term,
            voter_term: self.hard.term,
        };
        let waits = self.hard_pending.filter(|_| !bugs::is_on(Switch::B24));
        let after = waits.map_or(After::Now, After::Stored);
        out.list.push(Output::Send { to, message, after });
    }

    /// Position of a voter among the voters.
    pub(super) fn voter(&self, node: NodeId) -> usize {
        let found = self.config.voters.iter().position(|voter| *voter == node);
        found.expect("senders are voters, checked on entry")
    }
}
