//! The leader's half: new blocks in, messages to peers within their windows, answers counted, the
//! commit index moved (thesis 3.5, 3.6.2), and its own end when a quorum is silent (6.2).
//!
//! Knows no payload and no connection. Hops *raft*, *replicate* and *commit* of the data path.

use super::progress::Progress;
use super::read::Reads;
use super::timer::{Timeouts, Timer};
use super::transfer::Handover;
use super::{
    Beat, BeatAck, Outbox, Output, ProposeRefusal, Raft, RoleState, conflict, message, quorum,
};
use crate::bugs::{self, Switch};
use crate::id::{Index, Nanos, NodeId, Term};
use crate::limits::{BLOCK_SIZE_MAX, FRAME_PAYLOAD_SIZE_MAX, PEER_WINDOW_SIZE, VOTER_COUNT_MAX};
use crate::log::{Entry, HardState};

/// Messages to one peer in one flush: a whole window in full frames. More means tiny leftovers of
/// the window, which wait for the next turn.
const FLUSH_MESSAGE_COUNT_MAX: usize = PEER_WINDOW_SIZE as usize / FRAME_PAYLOAD_SIZE_MAX + 1;

/// What only a leader has; it ends with the leadership.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Leader {
    /// The other voters in ascending order.
    pub(super) peers: Vec<(NodeId, Progress)>,
    pub(super) reads: Reads,
    pub(super) handover: Option<Handover>,
    /// Bytes of blocks above the commit index.
    undecided_size: u64,
}

/// A follower's answer to blocks, of this term.
#[derive(Clone, Copy, Debug)]
pub(super) struct AppendAnswer {
    pub(super) matched: bool,
    pub(super) index: Index,
    pub(super) conflict_term: Term,
    pub(super) prev_index: Index,
}

impl Leader {
    pub(super) fn progress(&self, peer: NodeId) -> Option<&Progress> {
        self.peers
            .iter()
            .find(|(node, _)| *node == peer)
            .map(|(_, progress)| progress)
    }

    pub(super) fn progress_mut(&mut self, peer: NodeId) -> Option<&mut Progress> {
        self.peers
            .iter_mut()
            .find(|(node, _)| *node == peer)
            .map(|(_, progress)| progress)
    }

    pub(super) fn progresses(&self) -> impl Iterator<Item = &Progress> {
        self.peers.iter().map(|(_, progress)| progress)
    }

    /// What a quorum has reached of something each peer has, with `own` for the leader itself.
    fn reached<T: Copy + Ord>(&self, own: T, of: impl Fn(&Progress) -> T) -> T {
        let mut values = [own; VOTER_COUNT_MAX];
        for (value, progress) in values[1..].iter_mut().zip(self.progresses()) {
            *value = of(progress);
        }
        quorum::reached(&values[..self.peers.len() + 1])
    }

    /// The latest round of reads that a quorum answered.
    pub(super) fn reached_round(&self, own: u64) -> u64 {
        if bugs::is_on(Switch::B45) {
            return own;
        }
        self.reached(own, Progress::round)
    }

    /// When silence of a quorum, or about what was sent to a peer, becomes too long.
    pub(super) fn deadline(&self, timeouts: &Timeouts) -> Option<Nanos> {
        let resend = self
            .progresses()
            .filter_map(|progress| progress.deadline(timeouts))
            .min();
        self.quorum_deadline(timeouts)
            .into_iter()
            .chain(resend)
            .min()
    }

    /// T after the moment since when a quorum has been heard; none if the leader alone is one.
    fn quorum_deadline(&self, timeouts: &Timeouts) -> Option<Nanos> {
        let heard_at = self.reached(Nanos(u64::MAX), Progress::heard_at);
        (heard_at < Nanos(u64::MAX)).then(|| heard_at.after(timeouts.election))
    }

    pub(super) fn assert_sound(&self, last: Index) {
        for progress in self.progresses() {
            progress.assert_sound();
            assert!(
                progress.matched() <= last,
                "a peer has no more than its leader"
            );
            assert!(
                progress.next() <= last.next(),
                "no more is sent than there is"
            );
        }
        self.reads.assert_sound();
    }
}

impl Raft {
    pub(super) fn become_leader(&mut self, out: &mut Outbox) {
        assert!(
            matches!(self.role, RoleState::Candidate(_)),
            "leaders are elected"
        );
        assert!(
            self.hard.vote == Some(self.config.me),
            "a leader voted for itself"
        );
        // Blocks of this term leave without waiting: a crash must not make us forget the term.
        assert!(self.hard_pending.is_none(), "a leader's vote is durable");
        let next = self.tail.last_index().next();
        let peers = self
            .peers()
            .map(|peer| (peer, Progress::new(self.now, next)))
            .collect();
        let mut undecided_size = 0;
        for index in self.commit.0 + 1..next.0 {
            undecided_size += self
                .tail
                .entry(Index(index))
                .map_or(0, |entry| entry.size.into());
        }
        let reads = Reads::default();
        let leader = Leader {
            peers,
            reads,
            handover: None,
            undecided_size,
        };
        self.role = RoleState::Leader(Box::new(leader));
        self.leader = Some(self.config.me);
        self.heard_at = None;
        self.attempt_count = 0;
        self.candidacy_count = 0;
        self.timers.stop(Timer::Election);
        out.list.push(Output::BecameLeader {
            term: self.hard.term,
        });
        out.list.push(Output::BeatNow);
    }

    /// Takes a block that was put into the open run, and gives it its index. What is proposed
    /// leaves at [`Raft::flush`].
    pub fn propose(&mut self, entry: Entry) -> Index {
        assert!(
            entry.term == self.hard.term,
            "a leader makes blocks of its own term"
        );
        assert!(
            entry.size as usize <= BLOCK_SIZE_MAX,
            "a block fits a frame"
        );
        let RoleState::Leader(leader) = &mut self.role else {
            panic!("only a leader proposes")
        };
        assert!(
            leader.handover.is_none(),
            "nothing is proposed during a transfer"
        );
        leader.undecided_size += u64::from(entry.size);
        self.push(entry);
        self.tail.last_index()
    }

    /// Whether a block may be proposed now. A new leader's no-op is proposed even when full: it is
    /// what decides the rest.
    pub fn can_propose(&self) -> Result<(), ProposeRefusal> {
        let RoleState::Leader(leader) = &self.role else {
            return Err(ProposeRefusal::NotLeader {
                leader: self.leader,
            });
        };
        if leader.handover.is_some() {
            return Err(ProposeRefusal::Transferring);
        }
        if leader.undecided_size > self.config.bounds.undecided_size_full {
            return Err(ProposeRefusal::Full);
        }
        Ok(())
    }

    /// End of a turn: sends each peer what is new, within its window, and begins a round for the
    /// turn's reads.
    pub fn flush(&mut self, now: Nanos, out: &mut Outbox) {
        self.pass(now);
        for peer in self.peers() {
            self.send_blocks(peer, out);
        }
        self.maybe_begin_round(out);
    }

    /// This group's part of the heartbeat; none when not leading.
    #[must_use]
    pub fn beat(&self) -> Option<Beat> {
        self.is_leader().then(|| Beat {
            term: self.hard.term,
            commit: self.commit,
            durable: self.durable(),
            round: self.round,
        })
    }

    /// A heartbeat's answer. It may also tell that blocks arrived whose answer was lost.
    pub fn on_beat_ack(&mut self, now: Nanos, from: NodeId, ack: &BeatAck, out: &mut Outbox) {
        self.pass(now);
        let plausible = message::is_plausible(ack.term, ack.durable);
        if !self.is_from_peer(from) || !self.is_well_formed(plausible) {
            return;
        }
        if ack.term > self.hard.term {
            let hard = HardState {
                term: ack.term,
                vote: None,
            };
            self.become_follower(hard, None, out);
            return;
        }
        let round = ack.round.min(self.round);
        if ack.term < self.hard.term && !bugs::is_on(Switch::B30) {
            return; // It has not heard of this leadership; what it confirms is an older one.
        }
        let Some(progress) = self.hear(from) else {
            return;
        };
        progress.answered_round(round);
        self.on_match(from, ack.durable, out);
        self.maybe_remind(from, ack.durable, out);
        self.serve_reads(out);
    }

    /// A peer that knows less than it has promised has restarted: it forgot how far its log matches
    /// this leader's, and believes no commit index until it is shown. Blocks show it; where nothing
    /// is appended there are none, and an empty message does.
    fn maybe_remind(&mut self, to: NodeId, known: Index, out: &mut Outbox) {
        let (prev_index, prev_term) = (self.tail.last_index(), self.tail.last_term());
        let Some(progress) = self.progress(to) else {
            return;
        };
        let has_all = progress.is_idle() && progress.matched() == prev_index;
        if has_all && known < prev_index && !bugs::is_on(Switch::R2) {
            out.list.push(Output::Replicate {
                to,
                term: self.hard.term,
                prev_index,
                prev_term,
                first: prev_index.next(),
                last: prev_index,
                commit: self.commit,
            });
        }
    }

    /// Links to this peer are new: what was in flight on the old ones is lost, and so is a chunk
    /// that was being read for it; it will be asked for again.
    pub fn on_peer_connected(&mut self, peer: NodeId) {
        let now = self.now;
        if let RoleState::Leader(leader) = &mut self.role
            && let Some(progress) = leader.progress_mut(peer)
        {
            progress.become_probe(now);
        }
    }

    /// The shard sent a peer the chunk it was asked for, through `sent_through`, `sent_size` bytes.
    pub fn caught_up(
        &mut self,
        now: Nanos,
        peer: NodeId,
        sent_through: Index,
        sent_size: u64,
        out: &mut Outbox,
    ) {
        self.pass(now);
        let (now, last) = (self.now, self.tail.last_index());
        if let RoleState::Leader(leader) = &mut self.role
            && let Some(progress) = leader.progress_mut(peer)
        {
            if sent_through <= last {
                progress.caught_up(now, sent_through, sent_size);
            } else {
                // Read for an earlier leadership, and cut since.
                progress.catch_up_failed(now);
            }
            self.send_blocks(peer, out);
        }
    }

    /// The shard could not read the chunk it was asked for; it will be asked again after a pause.
    pub fn catch_up_failed(&mut self, peer: NodeId) {
        let now = self.now;
        if let RoleState::Leader(leader) = &mut self.role
            && let Some(progress) = leader.progress_mut(peer)
        {
            progress.catch_up_failed(now);
        }
    }

    /// The shard told a peer who else has the blocks from the chunk it was asked for through `through`,
    /// all of them committed.
    pub fn referred(&mut self, now: Nanos, peer: NodeId, through: Index) {
        self.pass(now);
        assert!(through <= self.commit, "only what is decided is given so");
        let now = self.now;
        if let RoleState::Leader(leader) = &mut self.role
            && let Some(progress) = leader.progress_mut(peer)
        {
            progress.referred(now, through);
        }
    }

    /// A peer gets no more from whom it was referred to.
    pub fn referral_ended(&mut self, now: Nanos, peer: NodeId) {
        self.pass(now);
        let now = self.now;
        if let RoleState::Leader(leader) = &mut self.role
            && let Some(progress) = leader.progress_mut(peer)
        {
            progress.referral_ended(now);
        }
    }

    /// An [`Output::Replicate`] could not be sent from `first` on, for the blocks are no longer in
    /// memory: they are to be read, as a chunk. What else this turn has for the peer need not be
    /// sent: it would meet a gap.
    pub fn missed(&mut self, now: Nanos, peer: NodeId, first: Index, out: &mut Outbox) {
        self.pass(now);
        if let RoleState::Leader(leader) = &mut self.role
            && let Some(progress) = leader.progress_mut(peer)
            && progress.missed(first)
        {
            out.list.push(Output::CatchUp {
                to: peer,
                next: first,
            });
        }
    }

    pub(super) fn tick_leader(&mut self, out: &mut Outbox) {
        let (now, timeouts) = (self.now, self.timeouts);
        let RoleState::Leader(leader) = &mut self.role else {
            panic!("only for leaders")
        };
        // A leader that hears no quorum may have been replaced without knowing. It must not keep
        // clients waiting, nor shield itself from the vote that would replace it.
        if leader
            .quorum_deadline(&timeouts)
            .is_some_and(|deadline| deadline <= now)
        {
            self.become_follower(self.hard, None, out);
            return;
        }
        for (_, progress) in &mut leader.peers {
            progress.maybe_stall(now, &timeouts);
        }
        self.maybe_abort_handover();
    }

    pub(super) fn on_append_ack(&mut self, from: NodeId, answer: AppendAnswer, out: &mut Outbox) {
        let (now, last) = (self.now, self.tail.last_index());
        let Some(progress) = self.hear(from) else {
            return;
        };
        if answer.matched {
            progress.took_nothing(answer.index);
            self.on_match(from, answer.index, out);
            return;
        }
        if answer.prev_index == Index(0) {
            return; // The beginning always matches: this refused a message of an older term.
        }
        if answer.prev_index > last {
            self.is_well_formed(false);
            return;
        }
        let hint = conflict::Hint {
            index: answer.index,
            term: answer.conflict_term,
        };
        let next = conflict::next(&self.tail, answer.prev_index, hint);
        let RoleState::Leader(leader) = &mut self.role else {
            panic!("heard as leader")
        };
        let progress = leader.progress_mut(from).expect("heard as peer");
        progress.maybe_refuse(now, answer.prev_index, next);
    }

    /// Notes that a peer answered in this term; none when not leading.
    fn hear(&mut self, from: NodeId) -> Option<&mut Progress> {
        let RoleState::Leader(leader) = &mut self.role else {
            return None;
        };
        let progress = leader.progress_mut(from)?;
        progress.heard(self.now, &self.timeouts);
        Some(progress)
    }

    /// A peer has everything through `index` durably.
    fn on_match(&mut self, from: NodeId, index: Index, out: &mut Outbox) {
        if index > self.tail.last_index() {
            self.faults.disagreement_count += 1; // It matches what this leader does not have.
            return;
        }
        let now = self.now;
        let RoleState::Leader(leader) = &mut self.role else {
            panic!("heard as leader")
        };
        let progress = leader.progress_mut(from).expect("heard as peer");
        if progress.maybe_match(now, index) {
            self.maybe_commit(out);
            self.maybe_hand_over(out);
        }
    }

    /// Moves the commit index to what a quorum has durably, the leader counting only what its own
    /// disk has stored. Blocks of older terms are committed by one of this term above them, never
    /// by counting: a majority may have them and still lose them to a leader without (3.6.2,
    /// figure 3.7).
    pub(super) fn maybe_commit(&mut self, out: &mut Outbox) {
        let unstored =
            bugs::is_on(Switch::B33) || bugs::is_on(Switch::B54) && self.config.voters.len() == 1;
        let own = if unstored {
            self.last()
        } else {
            self.durable()
        };
        let RoleState::Leader(leader) = &mut self.role else {
            panic!("only a leader counts")
        };
        let index = leader.reached(own, Progress::matched);
        let own_term = self.tail.term_at(index) == Some(self.hard.term);
        if index <= self.commit || !own_term && !bugs::is_on(Switch::B01) {
            return;
        }
        for decided in self.commit.0 + 1..=index.0 {
            let entry = self.tail.entry(Index(decided)).expect("above the base");
            leader.undecided_size -= u64::from(entry.size);
        }
        self.advance_commit(index, out);
    }

    /// Sends a peer all that fits its window.
    fn send_blocks(&mut self, to: NodeId, out: &mut Outbox) {
        let RoleState::Leader(leader) = &mut self.role else {
            return;
        };
        let progress = leader.progress_mut(to).expect("asked for peers");
        for _ in 0..FLUSH_MESSAGE_COUNT_MAX {
            let (first, last) = (progress.next(), self.tail.last_index());
            let Some(room) = progress.room().filter(|_| first <= last) else {
                return;
            };
            let prev_index = Index(first.0 - 1);
            let Some(prev_term) = self.tail.term_at(prev_index) else {
                if bugs::is_on(Switch::B29) {
                    return;
                }
                progress.become_catch_up();
                out.list.push(Output::CatchUp { to, next: first });
                return;
            };
            let (mut end, mut size) = (first, 0);
            while let Some(entry) = self.tail.entry(end) {
                let first_alone = end == first && progress.is_idle();
                if size + u64::from(entry.size) > room && !first_alone {
                    break;
                }
                size += u64::from(entry.size);
                end = end.next();
            }
            if end == first {
                return; // The next block is larger than what is left of the window.
            }
            let last = Index(end.0 - 1);
            progress.sent(self.now, last, size);
            out.list.push(Output::Replicate {
                to,
                term: self.hard.term,
                prev_index,
                prev_term,
                first,
                last,
                commit: self.commit,
            });
        }
    }
}
