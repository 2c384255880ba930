//! Consensus of one group: who leads, and which blocks are decided (Ongaro's thesis, fixed voters).
//!
//! Sees headers only: index, term, size and place of a block, never its payload. Knows no clock, no
//! socket and no file: moments come in as arguments, what is to be done leaves in an [`Outbox`].
//! Hop *raft* of the data path.
//!
//! ```text
//!               T without a leader              most would vote           most voted
//!   follower ─────────────────────▶ pre-candidate ──────────▶ candidate ───────────▶ leader
//!      ▲  ▲                             │  │                     │  │                   │
//!      │  └──── a leader of this term ──┴──│─────────────────────┘  │   quorum silent   │
//!      └──────── a higher term, or lost ───┴────────────────────────┴────── for T ──────┘
//! ```
//!
//! **What must be durable before what.** Term and vote before any promise made in that term, blocks
//! before the answer that counts them. A message that waits says so by [`After::Stored`]; raft
//! remembers the lsn at which it last put its hard state, and each entry the lsn of its run.

mod candidate;
mod conflict;
mod doubt;
#[cfg(feature = "sim")]
pub mod essence;
mod follower;
pub mod invariants;
mod leader;
mod message;
mod progress;
pub mod quorum;
mod read;
mod restore;
mod timer;
mod transfer;

pub use doubt::Report;
pub use message::{
    Accepted, After, AppendRequest, Beat, BeatAck, BlockId, Bounds, Config, Faults, Message,
    Outbox, Output, ProposeRefusal, TransferRefusal,
};
pub use progress::{Progress, State as ProgressState};
pub use timer::Timeouts;

use candidate::{VoteAnswer, VoteQuestion, Votes};
use doubt::Doubting;
use follower::Appending;
use leader::{AppendAnswer, Leader};
use restore::Installing;
use timer::{Chance, Timer, Timers};

use crate::bugs::{self, Switch};
use crate::id::{Index, Lsn, Nanos, NodeId, Term};
use crate::limits::VOTER_COUNT_MAX;
use crate::log::{Entry, HardState, Place, Tail};

/// What a node is to its group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Follows a leader, or waits for one.
    Follower,
    /// Asks whether an election would be worth it (thesis 9.6).
    PreCandidate,
    /// Asks for votes (3.4).
    Candidate,
    /// Leads (3.5).
    Leader,
}

/// A role with what only it needs.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum RoleState {
    Follower { appending: Option<Appending> },
    PreCandidate(Votes),
    Candidate(Votes),
    Leader(Box<Leader>),
}

/// One group's consensus on one node.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Raft {
    config: Config,
    timeouts: Timeouts,
    /// Latest moment seen. Never goes back.
    now: Nanos,
    chance: Chance,
    timers: Timers,
    /// Term and vote as of now. The term never goes down; within a term a vote is given once.
    hard: HardState,
    /// The run `hard` was last put into, until that is durable.
    hard_pending: Option<Lsn>,
    /// Headers from the base on. Invariant: base <= commit <= last, last term <= `hard.term`.
    tail: Tail,
    /// The journal's durable lsn as far as known here.
    durable: Lsn,
    /// Highest index that ever was durable here: what one of the switches takes for durable.
    #[cfg(feature = "bugs")]
    durable_once: Index,
    /// The tail begins anew, and its checkpoint is not durable.
    installing: Option<Installing>,
    /// Everything through here is decided. Never goes down.
    commit: Index,
    /// Highest index known to match the leader of this term; only that far may the leader's commit
    /// index be believed. Below `commit` it says nothing.
    verified: Index,
    /// Whom we follow, or ourselves when leading.
    leader: Option<NodeId>,
    /// When that leader was last heard. Invariant: some only with a leader, and never when leading.
    heard_at: Option<Nanos>,
    /// Where in the spread this node's election timeout lies: a fraction of 2^32.
    lot: u32,
    /// Elections begun and lost since a leader was heard.
    attempt_count: u32,
    /// Candidacies since a leader was heard, the present one among them.
    candidacy_count: u32,
    /// Latest round of reads. Never reset, see `read.rs`.
    round: u64,
    faults: Faults,
    /// What the disk may have forgotten; such a voter never campaigns.
    doubting: Option<Box<Doubting>>,
    role: RoleState,
}

impl Raft {
    /// A follower with what recovery found; all of it counts as durable, and is known to be committed
    /// through `commit`.
    #[must_use]
    pub fn new(now: Nanos, config: Config, hard: HardState, tail: Tail, commit: Index) -> Self {
        config.assert_sane();
        assert!(
            hard.term >= tail.last_term(),
            "a term is journaled before its blocks"
        );
        assert!(
            (tail.base().index..=tail.last_index()).contains(&commit),
            "what is committed is here, or in segments"
        );
        // Copies may stand later in the journal than the blocks after them.
        let indexes = tail.base().index.0 + 1..=tail.last_index().0;
        let places = indexes.filter_map(|index| tail.entry(Index(index)));
        let last_place = places.map(|entry| entry.place.lsn).max();
        let chance = Chance::new(config.seed ^ config.me.0 ^ (u64::from(config.group.0) << 32));
        let mut raft = Self {
            timeouts: Timeouts::DEFAULT,
            now,
            chance,
            timers: Timers::default(),
            hard,
            hard_pending: None,
            durable: last_place.map_or(Lsn(0), |lsn| Lsn(lsn.0 + 1)),
            #[cfg(feature = "bugs")]
            durable_once: Index(0),
            installing: None,
            commit,
            tail,
            verified: Index(0),
            leader: None,
            heard_at: None,
            lot: 0,
            attempt_count: 0,
            candidacy_count: 0,
            round: 0,
            faults: Faults::default(),
            doubting: None,
            role: RoleState::Follower { appending: None },
            config,
        };
        raft.wait_for_leader();
        if raft.config.voters.len() == 1 {
            raft.timers.set(Timer::Election, now); // There is nobody to wait for.
        }
        raft
    }

    /// A message from a peer. The rules about terms are here, once (thesis 3.3); then it goes to
    /// whom it concerns.
    pub fn step(&mut self, now: Nanos, from: NodeId, message: Message, out: &mut Outbox) {
        self.pass(now);
        if !self.is_from_peer(from) || !self.is_well_formed(message.is_plausible()) {
            return;
        }
        if let Some(term) = message.reached_term()
            && term > self.hard.term
            && !(bugs::is_on(Switch::B11)
                && matches!(message, Message::VoteReply { pre: true, .. }))
        {
            // Whatever it says, our term is over. Not so for a vote request: see candidate.rs.
            self.become_follower(HardState { term, vote: None }, None, out);
        }
        match message {
            Message::VoteRequest {
                pre: true,
                term,
                last_index,
                last_term,
                ..
            } => {
                let question = VoteQuestion {
                    term,
                    last_index,
                    last_term,
                    transfer: false,
                };
                self.on_pre_vote_request(from, question, out);
            }
            Message::VoteRequest {
                pre: false,
                transfer,
                term,
                last_index,
                last_term,
            } => {
                let question = VoteQuestion {
                    term,
                    last_index,
                    last_term,
                    transfer,
                };
                self.on_vote_request(from, question, out);
            }
            Message::VoteReply {
                pre, granted, term, ..
            } => {
                self.on_vote_reply(from, VoteAnswer { pre, granted, term }, out);
            }
            Message::AppendAck {
                term,
                matched,
                index,
                conflict_term,
                prev_index,
            } => {
                let answer = AppendAnswer {
                    matched,
                    index,
                    conflict_term,
                    prev_index,
                };
                // An answer of an older term may speak of blocks that were cut since, here or
                // there: counted now it would commit what no quorum has.
                if term == self.hard.term || bugs::is_on(Switch::B30) {
                    self.on_append_ack(from, answer, out);
                }
            }
            Message::TimeoutNow { term } => {
                if term == self.hard.term {
                    self.on_timeout_now(from, out);
                }
            }
            Message::StateReport(report) => self.on_state_report(from, report, out),
        }
    }

    /// Fires what is due. The shard calls it after all input that has arrived was stepped, so that
    /// a node that was paused hears first and judges then.
    pub fn tick(&mut self, now: Nanos, out: &mut Outbox) {
        self.pass(now);
        if self.timers.is_due(Timer::Report, self.now) {
            self.ask_for_reports(out);
        }
        if matches!(self.role, RoleState::Leader(_)) {
            self.tick_leader(out);
        } else if self.timers.is_due(Timer::Election, self.now) {
            self.on_election_timeout(out);
        }
    }

    /// When [`Raft::tick`] has something to do; the far future for a leader without peers.
    #[must_use]
    pub fn deadline(&self) -> Nanos {
        let deadline = match &self.role {
            RoleState::Leader(leader) => leader
                .deadline(&self.timeouts)
                .into_iter()
                .chain(self.timers.next())
                .min(),
            _ => {
                let due = [Timer::Election, Timer::Report].map(|timer| self.timers.deadline(timer));
                due.into_iter().flatten().min()
            }
        };
        deadline.unwrap_or(Nanos(u64::MAX))
    }

    /// Whether anything of this group is on its way to the journal. If nothing is, that the journal
    /// went on is no news: [`Raft::passed_over`].
    #[must_use]
    pub fn awaits_disk(&self) -> bool {
        self.hard_pending.is_some()
            || self.installing.is_some()
            || self.durable() < self.tail.last_index()
    }

    /// As [`Raft::stored`], of a group that awaits nothing.
    pub fn passed_over(&mut self, durable: Lsn) {
        self.durable = self.durable.max(durable);
    }

    /// The journal's durable lsn moved to `durable`. Called before messages that waited for it
    /// leave, so that answers to them find it known.
    pub fn stored(&mut self, now: Nanos, durable: Lsn, out: &mut Outbox) {
        self.pass(now);
        self.durable = self.durable.max(durable);
        #[cfg(feature = "bugs")]
        {
            self.durable_once = self.durable_once.max(self.durable());
        }
        if self.hard_pending.is_some_and(|lsn| lsn < self.durable) {
            self.hard_pending = None;
        }
        self.installing
            .take_if(|installing| installing.lsn < self.durable);
        match self.role {
            RoleState::Candidate(_) => self.maybe_count_own_vote(out),
            RoleState::Leader(_) => self.maybe_commit(out),
            RoleState::Follower { .. } => self.maybe_settle_log(out),
            RoleState::PreCandidate(_) => {}
        }
    }

    /// Segments hold everything through `through`, durably: its headers may go. The last
    /// [`Bounds::tail_keep_count`] stay, and their place may hold something else by now.
    pub fn released(&mut self, through: Index) {
        assert!(
            through <= self.commit,
            "only committed blocks reach a segment"
        );
        let keep_from = Index(
            self.tail
                .last_index()
                .0
                .saturating_sub(self.config.bounds.tail_keep_count),
        );
        let through = through.min(keep_from);
        if through > self.tail.base().index {
            self.tail.release_through(through);
        }
    }

    /// The block at `index` stands at `place` too, durably, and is to be read there.
    pub fn carried(&mut self, index: Index, place: Place) {
        assert!(place.lsn < self.durable, "the copy is durable");
        self.tail.set_place(index, place);
    }

    /// Times measured anew. A follower's running wait is stretched or shortened with them.
    pub fn set_timeouts(&mut self, timeouts: Timeouts) {
        timeouts.assert_sane();
        self.timeouts = timeouts;
        if let Some(heard_at) = self.heard_at {
            self.timers
                .set(Timer::Election, heard_at.after(self.election_span()));
        }
    }

    /// What this node is now.
    #[must_use]
    pub fn role(&self) -> Role {
        match self.role {
            RoleState::Follower { .. } => Role::Follower,
            RoleState::PreCandidate(_) => Role::PreCandidate,
            RoleState::Candidate(_) => Role::Candidate,
            RoleState::Leader(_) => Role::Leader,
        }
    }

    /// True when leading.
    #[must_use]
    pub fn is_leader(&self) -> bool {
        matches!(self.role, RoleState::Leader(_))
    }

    /// The current term.
    #[must_use]
    pub fn term(&self) -> Term {
        self.hard.term
    }

    /// Term and vote.
    #[must_use]
    pub fn hard_state(&self) -> HardState {
        self.hard
    }

    /// Whom this node follows; itself when leading.
    #[must_use]
    pub fn leader(&self) -> Option<NodeId> {
        self.leader
    }

    /// Everything through here is decided.
    #[must_use]
    pub fn commit(&self) -> Index {
        self.commit
    }

    /// Last index of the log.
    #[must_use]
    pub fn last(&self) -> Index {
        self.tail.last_index()
    }

    /// Everything through here is durable on this node.
    #[must_use]
    pub fn durable(&self) -> Index {
        #[cfg(feature = "bugs")]
        if bugs::is_on(Switch::B31) {
            let durable = self.tail.durable_index(self.durable);
            return durable.max(self.durable_once).min(self.last());
        }
        if let Some(installing) = self.installing {
            return installing.durable;
        }
        self.tail.durable_index(self.durable)
    }

    /// The headers.
    #[must_use]
    pub fn tail(&self) -> &Tail {
        &self.tail
    }

    /// What the leader knows of a peer; none when not leading.
    #[must_use]
    pub fn progress(&self, peer: NodeId) -> Option<&Progress> {
        match &self.role {
            RoleState::Leader(leader) => leader.progress(peer),
            _ => None,
        }
    }

    /// All voters, this node among them.
    #[must_use]
    pub fn voters(&self) -> &[NodeId] {
        &self.config.voters
    }

    /// The timeouts in force.
    #[must_use]
    pub fn timeouts(&self) -> &Timeouts {
        &self.timeouts
    }

    /// What peers did that they must not.
    #[must_use]
    pub fn faults(&self) -> &Faults {
        &self.faults
    }

    // ---- common to all roles

    fn pass(&mut self, now: Nanos) {
        self.now = self.now.max(now);
    }

    fn is_from_peer(&mut self, from: NodeId) -> bool {
        let known = from != self.config.me && self.config.voters.contains(&from);
        self.faults.unknown_sender_count += u64::from(!known);
        known
    }

    fn is_well_formed(&mut self, plausible: bool) -> bool {
        self.faults.malformed_count += u64::from(!plausible);
        plausible
    }

    /// The other voters, by value: they are walked in every turn, while other fields change.
    fn peers(&self) -> impl Iterator<Item = NodeId> + use<> {
        let (me, count) = (self.config.me, self.config.voters.len());
        let mut voters = [me; VOTER_COUNT_MAX];
        voters[..count].copy_from_slice(&self.config.voters);
        voters.into_iter().filter(move |voter| *voter != me)
    }

    /// The leader of this term is known to have everything through here: what it was seen to
    /// have, and what is committed, for every later leader has that (thesis 3.6.3).
    #[must_use]
    pub fn known_index(&self) -> Index {
        self.verified.max(self.commit)
    }

    /// Follows `leader` or nobody, in the term of `hard` or still in this one.
    fn become_follower(&mut self, hard: HardState, leader: Option<NodeId>, out: &mut Outbox) {
        assert!(hard.term >= self.hard.term, "terms never go down");
        let raised = hard.term > self.hard.term;
        let was_leader = self.is_leader();
        if hard != self.hard {
            self.persist(hard, out);
        }
        if bugs::is_on(Switch::B05) && was_leader && !raised {
            self.hard.vote = None;
        }
        if raised {
            self.verified = Index(0);
        }
        self.fail_reads(out);
        self.role = RoleState::Follower { appending: None };
        self.leader = leader;
        self.heard_at = None;
        self.timers.stop(Timer::Transfer);
        self.wait_for_leader();
        if was_leader || raised {
            out.list.push(Output::SteppedDown {
                term: self.hard.term,
                leader,
            });
        }
    }

    /// Puts a block's header at the end of the log.
    fn push(&mut self, entry: Entry) {
        assert!(
            entry.term >= self.tail.last_term(),
            "terms never go down in a log"
        );
        assert!(
            entry.term <= self.hard.term,
            "no block is newer than its leader"
        );
        // Else a later block that is durable would vouch for an earlier one that is not.
        let last = self.tail.entry(self.tail.last_index());
        assert!(
            last.is_none_or(|last| last.place.lsn <= entry.place.lsn),
            "new blocks stand in new runs"
        );
        self.tail.push(entry);
    }

    /// Puts term and vote into the open run.
    fn persist(&mut self, hard: HardState, out: &mut Outbox) {
        let new_term = hard.term > self.hard.term;
        assert!(
            new_term || hard.term == self.hard.term,
            "terms never go down"
        );
        // A vote that is taken back or moved is a second leader in one term (thesis 3.6.1).
        assert!(
            new_term || self.hard.vote.is_none(),
            "a vote is given once in a term"
        );
        assert!(
            new_term || hard.vote.is_some(),
            "a vote is never taken back"
        );
        assert!(out.lsn >= self.durable, "the open run is not durable");
        self.hard = hard;
        self.hard_pending = Some(out.lsn);
        out.list.push(Output::Persist(hard));
    }

    /// When a message about everything through `index`, in this term, may leave. The entries may
    /// stand in an earlier run that is not durable either, and the term in a later one.
    fn after(&self, index: Index) -> After {
        let place = self.tail.entry(index).map(|entry| entry.place.lsn);
        let vouched = bugs::is_on(Switch::B31) && index <= self.durable();
        let entry_pending = place.filter(|lsn| *lsn >= self.durable && !vouched);
        let installing = self.installing.map(|installing| installing.lsn);
        match entry_pending.max(self.hard_pending).max(installing) {
            Some(lsn) => After::Stored(lsn),
            None => After::Now,
        }
    }

    fn advance_commit(&mut self, index: Index, out: &mut Outbox) {
        assert!(index > self.commit, "the commit index never goes down");
        assert!(
            index <= self.tail.last_index(),
            "only what is here is committed"
        );
        self.commit = index;
        out.list.push(Output::Committed { index });
    }
}
