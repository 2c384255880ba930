//! A voter whose disk has lost promises: what it may not do, and what brings it back.
//!
//! Knows no disk. What is lost is told by recovery, as a [`Doubt`]. Off the data path.
//!
//! *Doubt of the log*: blocks are missing, or may be at its end, that it acknowledged. Were it to vote, it
//! could elect somebody without them. So it neither campaigns nor votes; but it follows, for blocks
//! that it has now it has. It is over in one of two ways:
//! - The leader says what is committed, having forgotten what this voter acknowledged before; and
//!   through there everything matches and is durable here, the last block being of the leader's own
//!   term. Every block committed in an older term is below that one, and whatever is committed
//!   later rests on what is acknowledged now (thesis 3.6.2, 3.6.3).
//! - Every other voter has reported, and those in doubt are fewer than a quorum. Then each committed
//!   block is with somebody who is in no doubt, and a candidate may be elected in a term above all
//!   reported whose log is at least as new as all of theirs.
//!
//! *Doubt of the vote*: it may have promised itself to a later term. It does not even follow, for
//! that term's leader may have been elected by its vote, and rest on its not helping an older one.
//! It is over when every other voter has reported its term, and those in such doubt are fewer than a
//! quorum. For whoever was elected had a quorum that stored the term, and one of them is in no
//! doubt; and whoever still stands has stored its term before it asked. Candidacies of those in
//! doubt, its own among them, ended with their processes. In the highest term of all the voter then
//! votes for itself without being a candidate, so that no vote can be given there twice.
//!
//! Reports are asked for again and again, by numbers that are others after every start: an answer to
//! what an earlier process asked says nothing about what was lost since. And they are asked for in two
//! rounds, of which only the second counts. What this voter said before its loss may still have
//! decided something while the first was under way, by a leader that had not heard of the loss and a
//! voter that had answered already. Once all have answered nobody counts on it any more: what it helped
//! to decide is with somebody who is in no doubt by then, and says so in the second.

use super::timer::Timer;
use super::{After, Config, Message, Outbox, Output, Raft, RoleState, candidate, quorum};
use crate::bugs::{self, Switch};
use crate::id::{Index, Nanos, NodeId, Term};
use crate::limits::VOTER_COUNT_MAX;
use crate::log::{Doubt, HardState, Tail};

/// What a voter says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Report {
    /// The asker's number for its questions.
    pub number: u64,
    /// The term it has reached, durably.
    pub term: Term,
    /// Last index of its log.
    pub last_index: Index,
    /// Term of the block there.
    pub last_term: Term,
    /// What it knows to be committed.
    pub commit: Index,
    /// What it may have forgotten.
    pub doubt: Doubt,
    /// It leads.
    pub is_leader: bool,
    /// It answers; else it asks.
    pub is_reply: bool,
}

/// A voter in doubt.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Doubting {
    pub(super) doubt: Doubt,
    /// Of the first round's questions; the second's is the next one.
    number: u64,
    /// Who has answered in the first round, in the order of the voters, and whether in doubt itself.
    pub(super) answered: [Option<bool>; VOTER_COUNT_MAX],
    /// The second round's latest answers, in the same order.
    pub(super) reports: [Option<Report>; VOTER_COUNT_MAX],
    /// A leader's term, and what was committed in it when it had forgotten what this voter had.
    floor: Option<(Term, Index)>,
}

impl Doubting {
    /// By what is asked now: all others have answered in the first round, or not.
    fn round(&self, config: &Config) -> u64 {
        let mut voters = config.voters.iter().zip(self.answered);
        let is_over = voters.all(|(voter, answer)| answer.is_some() || *voter == config.me);
        self.number + u64::from(is_over)
    }
}

impl Raft {
    /// As [`Raft::new`], of a voter in doubt. `number` is larger after every start.
    #[must_use]
    pub fn doubting(
        now: Nanos,
        config: Config,
        hard: HardState,
        tail: Tail,
        commit: Index,
        doubt: Doubt,
        number: u64,
    ) -> Self {
        assert!(doubt.is_any(), "who is sure begins as usual");
        assert!(config.voters.len() > 1, "nobody else could settle it");
        let mut raft = Self::new(now, config, hard, tail, commit);
        raft.doubting = Some(Box::new(Doubting {
            doubt,
            // Two rounds of each start.
            number: 2 * number,
            answered: [None; VOTER_COUNT_MAX],
            reports: [None; VOTER_COUNT_MAX],
            floor: None,
        }));
        raft.timers.set(Timer::Report, now);
        raft
    }

    /// What this replica may have forgotten.
    #[must_use]
    pub fn doubt(&self) -> Doubt {
        self.doubting
            .as_ref()
            .map_or_else(Doubt::default, |doubting| doubting.doubt)
    }

    /// Voters that are known to be in doubt, this one among them; none if it is in none itself.
    pub fn doubters(&self) -> impl Iterator<Item = NodeId> + '_ {
        let me = self.doubting.as_ref().map(|_| self.config.me);
        let doubts = self.doubting.iter().flat_map(|doubting| {
            let answers = doubting.reports.iter().zip(doubting.answered);
            answers.map(|(report, first)| report.map(|report| report.doubt.is_any()).or(first))
        });
        let others = self.config.voters.iter().zip(doubts);
        let others = others.filter(|(_, doubts)| *doubts == Some(true));
        others.map(|(voter, _)| *voter).chain(me)
    }

    /// Blocks that were missing are here: `tail` is the log as it was, or as far as it `is_whole`
    /// again, and known to be committed through `commit`. False, and nothing changed, if this log
    /// has gone on meanwhile, or has not come to the term of these blocks.
    pub fn restored(
        &mut self,
        tail: Tail,
        commit: Index,
        is_whole: bool,
        out: &mut Outbox,
    ) -> bool {
        let mut tail = tail;
        let base = self.tail.base();
        if tail.base_at(base.index) == Some(base) {
            // Segments took some of it meanwhile.
            tail.release_through(base.index);
        }
        let is_longer = tail.last_index() > self.tail.last_index();
        let continues = tail.base() == self.tail.base()
            && self.tail.entries().all(|(index, entry)| {
                tail.entry(index)
                    .is_some_and(|other| other.sum == entry.sum)
            });
        let is_old = tail.last_term() <= self.hard.term;
        if !matches!(self.role, RoleState::Follower { .. }) || !is_longer || !continues || !is_old {
            return false;
        }
        self.tail = tail;
        assert!(
            self.durable() == self.tail.last_index(),
            "what was fetched is durable"
        );
        if commit > self.commit {
            self.advance_commit(commit, out);
        }
        if is_whole {
            self.settle(out, |doubt| doubt.holes = false);
        }
        true
    }

    /// The last of the blocks that are missing was never committed, nor was anything behind it, and
    /// all that is given up. Those before it may have been, if there may be a quorum for the first: then
    /// the log's end is in doubt. False, and nothing changed, as long as a voter has not reported.
    pub fn gave_up(&mut self, out: &mut Outbox) -> bool {
        let Some(doubting) = &self.doubting else {
            return true;
        };
        let first = self.tail.last_index().next();
        let has_it = |report: &Report| report.last_index >= first || report.doubt.lacks_blocks();
        let reports = || self.other_reports(doubting);
        let had_count = 1 + reports().flatten().filter(has_it).count();
        let is_lost = had_count >= quorum::size(self.config.voters.len());
        let has_all = reports().all(|report| report.is_some());
        if has_all {
            self.settle(out, |doubt| {
                doubt.holes = false;
                doubt.log |= is_lost;
            });
        }
        has_all
    }

    /// Asks every other voter for its report.
    pub(super) fn ask_for_reports(&mut self, out: &mut Outbox) {
        let Some(doubting) = &self.doubting else {
            self.timers.stop(Timer::Report);
            return;
        };
        let number = doubting.round(&self.config);
        for to in self.peers() {
            self.send_report(to, number, false, out);
        }
        self.timers
            .set(Timer::Report, self.now.after(self.timeouts.election));
    }

    fn send_report(&self, to: NodeId, number: u64, is_reply: bool, out: &mut Outbox) {
        let report = Report {
            number,
            term: self.hard.term,
            last_index: self.tail.last_index(),
            last_term: self.tail.last_term(),
            commit: self.commit,
            doubt: self.doubt(),
            is_leader: self.is_leader(),
            is_reply,
        };
        // Whoever counts on the term must not see it forgotten.
        let after = self.hard_pending.map_or(After::Now, After::Stored);
        out.list.push(Output::Send {
            to,
            message: Message::StateReport(report),
            after,
        });
    }

    pub(super) fn on_state_report(&mut self, from: NodeId, report: Report, out: &mut Outbox) {
        if !report.is_reply {
            if report.doubt.lacks_blocks() {
                self.forget_match(from, &report);
            }
            self.send_report(from, report.number, true, out);
            return;
        }
        let (voter, term) = (self.voter(from), self.hard.term);
        let Some(doubting) = &mut self.doubting else {
            return;
        };
        let round = doubting.round(&self.config);
        if report.number == doubting.number {
            doubting.answered[voter] = Some(report.doubt.is_any());
        } else if report.number == doubting.number + 1 {
            doubting.reports[voter] = Some(report);
        } else {
            return;
        }
        let is_next_round = doubting.round(&self.config) > round;
        if report.is_leader && report.term == term {
            let floor = doubting.floor.filter(|(known, _)| *known == term);
            let commit = floor.map_or(report.commit, |(_, index)| index.max(report.commit));
            doubting.floor = Some((term, commit));
        }
        if is_next_round {
            self.ask_for_reports(out);
        }
        self.maybe_settle_vote(out);
        self.maybe_settle_log(out);
    }

    /// The leader believes no older word of a follower that has lost blocks: it may have been
    /// about them.
    fn forget_match(&mut self, from: NodeId, report: &Report) {
        let is_here = self.tail.term_at(report.last_index) == Some(report.last_term);
        let (now, last) = (self.now, self.tail.last_index());
        if let RoleState::Leader(leader) = &mut self.role
            && let Some(progress) = leader.progress_mut(from)
            && !(is_here && report.last_index >= progress.matched())
        {
            progress.forget(now, report.last_index.min(last));
        }
    }

    fn maybe_settle_vote(&mut self, out: &mut Outbox) {
        let Some(doubting) = &self.doubting else {
            return;
        };
        let reports = || self.other_reports(doubting);
        let others = reports().flatten();
        let doubter_count = 1 + others.filter(|report| report.doubt.vote).count();
        let is_minority = doubter_count < quorum::size(self.config.voters.len());
        let has_all = reports().all(|report| report.is_some());
        if !doubting.doubt.vote || !has_all || !is_minority {
            return;
        }
        let highest = reports().flatten().map(|report| report.term).max();
        let term = highest.unwrap_or_default().max(self.hard.term);
        let me = Some(self.config.me);
        self.settle(out, |doubt| doubt.vote = false);
        if term > self.hard.term || self.hard.vote.is_none() {
            self.become_follower(HardState { term, vote: me }, None, out);
        }
    }

    /// Called whenever something matches or is durable that did not or was not.
    pub(super) fn maybe_settle_log(&mut self, out: &mut Outbox) {
        let Some(doubting) = &self.doubting else {
            return;
        };
        let Some((term, commit)) = doubting.floor else {
            return;
        };
        let is_verified = term == self.hard.term
            && self.tail.term_at(commit) == Some(term)
            && self.verified.min(self.durable()) >= commit;
        if doubting.doubt.lacks_blocks() && !doubting.doubt.vote && is_verified {
            self.settle(out, |doubt| (doubt.log, doubt.holes) = (false, false));
        }
    }

    fn settle(&mut self, out: &mut Outbox, change: impl FnOnce(&mut Doubt)) {
        let Some(doubting) = &mut self.doubting else {
            return;
        };
        change(&mut doubting.doubt);
        let doubt = doubting.doubt;
        if !doubt.is_any() {
            self.doubting = None;
            self.timers.stop(Timer::Report);
        }
        out.list.push(Output::Doubts(doubt));
    }

    /// Whether this voter may grant at all; with what it remembers it then judges as always.
    pub(super) fn may_grant(&self, question: &candidate::VoteQuestion) -> bool {
        let Some(doubting) = &self.doubting else {
            return true;
        };
        if doubting.doubt.vote {
            return false;
        }
        if bugs::is_on(Switch::B58) {
            return true;
        }
        let reports = || self.other_reports(doubting);
        let doubter_count = 1 + reports()
            .flatten()
            .filter(|report| report.doubt.is_any())
            .count();
        if doubter_count >= quorum::size(self.config.voters.len()) {
            return false;
        }
        let asked = (question.last_term, question.last_index);
        reports().all(|report| {
            report.is_some_and(|report| {
                let is_newer = asked >= (report.last_term, report.last_index);
                question.term > report.term && (is_newer || report.doubt.lacks_blocks())
            })
        })
    }

    /// What each other voter has reported, or not.
    fn other_reports<'a>(
        &'a self,
        doubting: &'a Doubting,
    ) -> impl Iterator<Item = Option<Report>> + 'a {
        let voters = self.config.voters.iter().zip(doubting.reports);
        voters
            .filter(|(voter, _)| **voter != self.config.me)
            .map(|(_, report)| report)
    }
}
