//! One peer in its leader's eyes: what it has, what is on the way to it, when to send again.
//!
//! Knows no log and no message. Hop *raft* and *replicate* of the data path.
//!
//! ```text
//!                    ack through `next - 1` or above
//!           Probe ────────────────────────────────────▶ Replicate
//!         one message  ◀──────────────────────────────  a window of messages
//!           at a time     refused, silent, new link
//!             │  ▲                                         │  ▲
//!    `next` is│  │ sent one chunk          `next` is below │  │ sent one chunk
//!    below the│  │                         the tail        │  │
//!    tail     ▼  │                                         ▼  │
//!           CatchUp: the shard reads the chunk from its journal or segments,
//!              │  ▲    or refers the peer to another replica
//!              ▼  │ the other one does not give them, or nothing comes for too long
//!           Referred: nothing is sent until the peer has what the other one gives; then Replicate
//! ```

use std::collections::VecDeque;

use super::timer::Timeouts;
use crate::bugs::{self, Switch};
use crate::id::{Index, Nanos};
use crate::limits::{FRAME_PAYLOAD_SIZE_MAX, PEER_WINDOW_COUNT, PEER_WINDOW_SIZE};

/// Bytes of blocks in a probe: enough for a new leader's first blocks, little to lose if the
/// follower's log parts from ours further down.
const PROBE_SIZE_MAX: u64 = 64 << 10;

/// Silence doubles the pause before the next probe, this often at most.
const STALL_COUNT_MAX: u32 = 4;

/// So long a referred peer may get nothing: twice what it waits for one answer of the other replica.
const REFERRED_PATIENCE: Nanos = Nanos::from_millis(2_000);

// A probe is one frame.
const _: () = assert!(PROBE_SIZE_MAX <= FRAME_PAYLOAD_SIZE_MAX as u64);

/// How blocks are sent to a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum State {
    /// Where its log matches is not known, or what was sent last got lost: one message at a time.
    Probe {
        /// That message is on its way.
        sent: bool,
    },
    /// Its log matches through `next - 1` unless something got lost: messages follow one another.
    Replicate,
    /// `next` is below the tail's first header; the shard was asked for a chunk.
    CatchUp {
        /// It was probed when the chunk was asked for, and is afterwards.
        probing: bool,
    },
    /// Another replica gives it blocks.
    Referred {
        /// Through here.
        through: Index,
    },
}

/// One message of blocks without an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Flight {
    last: Index,
    size: u64,
}

/// What a leader knows of one peer, for one leadership.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Progress {
    /// The peer has everything through here, durably. Goes down only where the peer says, or shows, that
    /// its disk has lost what it promised.
    matched: Index,
    /// First index not sent. Invariant: matched < next.
    next: Index,
    state: State,
    /// Unanswered messages, oldest first. Invariant: `last` goes up, all are above `matched`.
    in_flight: VecDeque<Flight>,
    /// Sum of their sizes.
    in_flight_size: u64,
    /// When the peer last answered in this term.
    pub(super) heard_at: Nanos,
    /// When blocks were last acknowledged, or sent with none unanswered.
    pub(super) moved_at: Nanos,
    /// Times in a row that silence sent it back to probing.
    pub(super) stall_count: u32,
    /// Highest heartbeat round it answered.
    round: u64,
    /// Times that the peer lost what it had promised.
    forgotten_count: u32,
    /// It has refused what it had said it has, and said nothing to the contrary since.
    is_contradicted: bool,
    /// It lost what it had promised, and did not know.
    has_broken_promise: bool,
}

impl Progress {
    /// A peer at the start of a leadership whose log ends before `next`. It counts as heard: it
    /// gets a whole T before its silence counts against the leader.
    #[must_use]
    pub fn new(now: Nanos, next: Index) -> Self {
        assert!(next > Index(0), "the first block has index 1");
        Self {
            matched: Index(0),
            next,
            state: State::Probe { sent: false },
            in_flight: VecDeque::new(),
            in_flight_size: 0,
            heard_at: now,
            moved_at: now,
            stall_count: 0,
            round: 0,
            forgotten_count: 0,
            is_contradicted: false,
            has_broken_promise: false,
        }
    }

    /// Highest index the peer is known to have durably.
    #[must_use]
    pub fn matched(&self) -> Index {
        self.matched
    }

    /// First index not sent yet.
    #[must_use]
    pub fn next(&self) -> Index {
        self.next
    }

    /// How blocks are sent to it.
    #[must_use]
    pub fn state(&self) -> State {
        self.state
    }

    /// When it last answered in this term.
    #[must_use]
    pub fn heard_at(&self) -> Nanos {
        self.heard_at
    }

    /// Bytes sent and not answered.
    #[must_use]
    pub fn in_flight_size(&self) -> u64 {
        self.in_flight_size
    }

    pub(super) fn round(&self) -> u64 {
        self.round
    }

    /// The peer answered something. After a long silence its pause ends: what it was sent
    /// meanwhile is most likely lost, and waiting out a doubled pause would delay its healing.
    pub(super) fn heard(&mut self, now: Nanos, timeouts: &Timeouts) {
        if now.since(self.heard_at) > timeouts.resend() {
            self.stall_count = 0;
            if let State::Probe { sent } = &mut self.state {
                *sent = false;
            }
        }
        self.heard_at = self.heard_at.max(now);
    }

    /// The peer answered what it was sent, and has taken nothing of it: its journal is full. It is
    /// there, so the pause before the next try does not grow. Else it would be asked ever more seldom,
    /// while others, who get through now and then, take what room there is.
    pub(super) fn took_nothing(&mut self, index: Index) {
        if index == self.matched && self.state == (State::Probe { sent: true }) {
            self.stall_count = 0;
        }
    }

    pub(super) fn answered_round(&mut self, round: u64) {
        self.round = self.round.max(round);
    }

    /// The peer has everything through `index` durably. True if that is news. Answers come in any
    /// order and more than once; each speaks for all below it.
    pub(super) fn maybe_match(&mut self, now: Nanos, index: Index) -> bool {
        self.is_contradicted &= index != self.matched;
        if index == self.matched || index < self.matched && !bugs::is_on(Switch::B26) {
            return false;
        }
        self.matched = index;
        self.is_contradicted = false;
        self.moved_at = now;
        self.stall_count = 0;
        while self
            .in_flight
            .front()
            .is_some_and(|flight| flight.last <= index)
        {
            let flight = self.in_flight.pop_front().expect("seen just now");
            self.in_flight_size -= flight.size;
        }
        // An answer below `next - 1` may come from a heartbeat and says nothing about the place
        // that is being probed.
        if matches!(self.state, State::Probe { .. }) && index.next() >= self.next {
            self.state = State::Replicate;
        }
        if matches!(self.state, State::Referred { through } if index >= through) {
            self.state = State::Replicate;
        }
        self.next = self.next.max(index.next());
        self.assert_sound();
        true
    }

    /// The peer's log has no match at `prev_index`. True if that is an answer to what was sent;
    /// then `next` moves down to `next`, but never to what the peer has already promised, unless it
    /// insists that it does not have that.
    pub(super) fn maybe_refuse(&mut self, now: Nanos, prev_index: Index, next: Index) -> bool {
        let is_probed_there =
            matches!(self.state, State::Probe { .. }) && self.matched.next() == self.next;
        if prev_index == self.matched && prev_index > Index(0) && is_probed_there {
            self.contradict(now, next);
            return true;
        }
        if prev_index <= self.matched {
            return false; // Overtaken by a later answer: it matches there by now.
        }
        if matches!(self.state, State::Probe { .. }) && prev_index.next() != self.next {
            return false; // An answer to an earlier probe, or to a window given up since.
        }
        if matches!(self.state, State::Referred { .. }) {
            return false; // To what was sent before. What it lacks comes from elsewhere, or it says so.
        }
        self.become_probe(now);
        self.next = next.min(prev_index).max(self.matched.next());
        self.assert_sound();
        true
    }

    /// The peer refuses what it had promised. Once that may be a word that was long on its way; again,
    /// and nothing matched between, it has started anew with a disk that did not keep what it had
    /// said is stored, and nothing on it tells. Where it is believed that it has it, it would be sent
    /// nothing below for as long as this leader leads.
    fn contradict(&mut self, now: Nanos, next: Index) {
        if !std::mem::replace(&mut self.is_contradicted, true) {
            self.become_probe(now);
            return;
        }
        self.is_contradicted = false;
        self.has_broken_promise = true;
        self.forget(now, Index(next.min(self.matched).0 - 1));
    }

    /// Whether the peer's disk has lost what it had said is stored, and nothing on it told so.
    #[must_use]
    pub fn has_broken_promise(&self) -> bool {
        self.has_broken_promise
    }

    /// What is in flight counts as lost.
    pub(super) fn become_probe(&mut self, now: Nanos) {
        self.state = State::Probe { sent: false };
        self.next = self.matched.next();
        self.in_flight.clear();
        self.in_flight_size = 0;
        self.moved_at = now;
        self.assert_sound();
    }

    /// The peer's disk has lost blocks that it had promised, and its log ends at `last`: what it has
    /// is found out anew.
    pub(super) fn forget(&mut self, now: Nanos, last: Index) {
        self.matched = Index(0);
        self.forgotten_count += 1;
        self.become_probe(now);
        self.next = last.next();
        self.assert_sound();
    }

    /// How often the peer lost what it had promised.
    pub(super) fn forgotten_count(&self) -> u32 {
        self.forgotten_count
    }

    /// Bytes the next message to it may have; none when it has to wait. The first block may be
    /// larger when nothing is in flight.
    pub(super) fn room(&self) -> Option<u64> {
        match self.state {
            State::Probe { sent: false } => Some(PROBE_SIZE_MAX),
            State::Replicate if self.in_flight.len() < PEER_WINDOW_COUNT => {
                let room = PEER_WINDOW_SIZE.saturating_sub(self.in_flight_size);
                (room > 0).then_some(room.min(FRAME_PAYLOAD_SIZE_MAX as u64))
            }
            State::Probe { sent: true }
            | State::Replicate
            | State::CatchUp { .. }
            | State::Referred { .. } => None,
        }
    }

    /// Whether the shard was asked for a chunk that it has not sent.
    #[must_use]
    pub fn is_catching_up(&self) -> bool {
        matches!(self.state, State::CatchUp { .. })
    }

    pub(super) fn is_idle(&self) -> bool {
        self.in_flight.is_empty()
    }

    /// Blocks `next..=last` of `size` bytes were sent.
    pub(super) fn sent(&mut self, now: Nanos, last: Index, size: u64) {
        assert!(last >= self.next, "only new blocks are sent");
        if self.in_flight.is_empty() {
            self.moved_at = now;
        }
        match &mut self.state {
            State::Probe { sent } => {
                assert!(!*sent, "one probe at a time");
                *sent = true;
            }
            State::Replicate => {
                self.in_flight.push_back(Flight { last, size });
                self.in_flight_size += size;
                self.next = last.next();
            }
            State::CatchUp { .. } => panic!("the shard sends to a peer that catches up"),
            State::Referred { .. } => panic!("another replica does"),
        }
        self.assert_sound();
    }

    /// The shard was asked for the chunk at `next`.
    pub(super) fn become_catch_up(&mut self) {
        let probing = match self.state {
            State::Probe { sent } => {
                assert!(!sent, "one probe at a time");
                true
            }
            State::Replicate => false,
            State::CatchUp { .. } => panic!("a chunk was asked for already"),
            State::Referred { .. } => panic!("another replica gives it"),
        };
        self.state = State::CatchUp { probing };
    }

    /// What was sent from `first` on never left: it is no longer in memory.
    pub(super) fn missed(&mut self, first: Index) -> bool {
        let probing = match self.state {
            State::CatchUp { .. } | State::Referred { .. } => return false,
            State::Probe { .. } => true,
            State::Replicate => false,
        };
        if first <= self.matched || first > self.next {
            return false;
        }
        while self
            .in_flight
            .back()
            .is_some_and(|flight| flight.last >= first)
        {
            let flight = self.in_flight.pop_back().expect("seen just now");
            self.in_flight_size -= flight.size;
        }
        self.next = first;
        self.state = State::CatchUp { probing };
        self.assert_sound();
        true
    }

    /// The shard sent a chunk through `last`.
    pub(super) fn caught_up(&mut self, now: Nanos, last: Index, size: u64) {
        let State::CatchUp { probing } = self.state else {
            return;
        };
        if last < self.next {
            // Everything in it was acknowledged meanwhile, by way of heartbeats.
            self.state = State::Replicate;
            return;
        }
        self.state = if probing {
            State::Probe { sent: false }
        } else {
            State::Replicate
        };
        self.sent(now, last, size);
    }

    /// Whether the peer may be told to get what follows elsewhere: its log is known to match ours just
    /// below `next`, unless what is on its way gets lost, which it would notice.
    #[must_use]
    pub fn may_be_referred(&self) -> bool {
        match self.state {
            State::CatchUp { probing } => !probing || self.matched.next() == self.next,
            State::Probe { .. } | State::Replicate | State::Referred { .. } => false,
        }
    }

    /// The shard told the peer who has the blocks through `through`, instead of sending a chunk.
    pub(super) fn referred(&mut self, now: Nanos, through: Index) {
        assert!(self.may_be_referred(), "it would not know what they follow");
        self.moved_at = now;
        self.state = if through > self.matched {
            State::Referred { through }
        } else {
            State::Replicate // It has them by now, as a heartbeat said.
        };
        self.assert_sound();
    }

    /// The peer gets no more from whom it was referred to. What it has of it without having said so
    /// is sent again.
    pub(super) fn referral_ended(&mut self, now: Nanos) {
        if matches!(self.state, State::Referred { .. }) {
            self.become_probe(now);
        }
    }

    /// The shard told the peer that the log begins behind `base`. It answers what it has.
    pub(super) fn restore_sent(&mut self, now: Nanos, base: Index) {
        if matches!(self.state, State::CatchUp { .. }) {
            self.become_probe(now);
            self.next = base.next().max(self.next);
            self.state = State::Probe { sent: true };
            self.assert_sound();
        }
    }

    /// The shard could not read the chunk. It is asked again after a pause, for what a disk did
    /// not give now it will hardly give within the same turn.
    pub(super) fn catch_up_failed(&mut self, now: Nanos) {
        if matches!(self.state, State::CatchUp { .. }) {
            let next = self.next;
            self.become_probe(now);
            self.next = next;
            self.state = State::Probe { sent: true };
        }
    }

    /// When silence about what was sent means that it is lost; none with nothing sent.
    pub(super) fn deadline(&self, timeouts: &Timeouts) -> Option<Nanos> {
        let waits = match self.state {
            State::Probe { sent } => sent,
            State::Replicate => !self.in_flight.is_empty(),
            State::CatchUp { .. } => false,
            State::Referred { .. } => return Some(self.moved_at.after(REFERRED_PATIENCE)),
        };
        waits.then(|| {
            self.moved_at
                .after(Nanos(timeouts.resend().0 << self.stall_count))
        })
    }

    /// Goes back to probing if that moment has come.
    pub(super) fn maybe_stall(&mut self, now: Nanos, timeouts: &Timeouts) -> bool {
        if self
            .deadline(timeouts)
            .is_none_or(|deadline| deadline > now)
        {
            return false;
        }
        self.stall_count = (self.stall_count + 1).min(STALL_COUNT_MAX);
        match &mut self.state {
            // The place is kept: perhaps only the answer about it is missing.
            State::Probe { sent } => {
                *sent = false;
                self.moved_at = now;
            }
            State::Replicate | State::CatchUp { .. } | State::Referred { .. } => {
                self.become_probe(now);
            }
        }
        true
    }

    pub(super) fn assert_sound(&self) {
        assert!(
            self.matched < self.next,
            "what a peer has is not sent again"
        );
        assert!(
            self.in_flight.len() <= PEER_WINDOW_COUNT,
            "the window is bounded"
        );
        if let (Some(first), Some(last)) = (self.in_flight.front(), self.in_flight.back()) {
            assert!(
                first.last > self.matched,
                "answered messages leave the window"
            );
            assert!(last.last < self.next, "what is in flight was sent");
        } else {
            assert!(self.in_flight_size == 0, "an empty window weighs nothing");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const T: Timeouts = Timeouts::DEFAULT;

    fn replicating(through: u64) -> Progress {
        let mut progress = Progress::new(Nanos(0), Index(1));
        assert!(progress.maybe_match(Nanos(0), Index(1)));
        for last in 2..=through {
            progress.sent(Nanos(0), Index(last), 100);
        }
        progress
    }

    #[test]
    fn answers_in_any_order_leave_the_same_window() {
        let mut progress = replicating(5);
        assert!(progress.maybe_match(Nanos(1), Index(4)));
        assert!(!progress.maybe_match(Nanos(2), Index(2)));
        assert!(!progress.maybe_match(Nanos(2), Index(4)));
        assert_eq!((progress.matched(), progress.next()), (Index(4), Index(6)));
        assert_eq!(progress.in_flight_size(), 100);
    }

    #[test]
    fn a_refusal_below_what_matches_is_stale() {
        let mut progress = replicating(5);
        progress.maybe_match(Nanos(1), Index(4));
        assert!(!progress.maybe_refuse(Nanos(2), Index(4), Index(2)));
        assert_eq!(progress.state(), State::Replicate);
        assert!(progress.maybe_refuse(Nanos(2), Index(5), Index(2)));
        assert_eq!(
            progress.next(),
            Index(5),
            "never below what the peer promised"
        );
        assert!(
            !progress.maybe_refuse(Nanos(2), Index(5), Index(2)),
            "answers another probe"
        );
    }

    #[test]
    fn who_insists_on_not_having_what_it_promised_is_believed() {
        let mut progress = replicating(5);
        progress.maybe_match(Nanos(1), Index(5));
        progress.become_probe(Nanos(2));
        assert!(progress.maybe_refuse(Nanos(2), Index(5), Index(3)));
        assert_eq!((progress.matched(), progress.next()), (Index(5), Index(6)));
        // It was an old word: what is said since is otherwise.
        progress.maybe_match(Nanos(3), Index(5));
        assert!(progress.maybe_refuse(Nanos(4), Index(5), Index(3)));
        assert!(!progress.has_broken_promise());
        assert!(progress.maybe_refuse(Nanos(5), Index(5), Index(3)));
        assert!(progress.has_broken_promise());
        assert_eq!((progress.matched(), progress.next()), (Index(0), Index(3)));
        assert_eq!(progress.forgotten_count(), 1);
        assert!(progress.maybe_match(Nanos(6), Index(2)));
        assert_eq!(progress.state(), State::Replicate);
    }

    #[test]
    fn the_window_is_bounded_by_bytes_and_by_count() {
        let mut progress = replicating(1);
        progress.sent(Nanos(0), Index(2), PEER_WINDOW_SIZE - 10);
        assert_eq!(progress.room(), Some(10));
        progress.sent(Nanos(0), Index(3), 10);
        assert_eq!(progress.room(), None);
        let progress = replicating(1 + PEER_WINDOW_COUNT as u64);
        assert_eq!(progress.room(), None);
    }

    #[test]
    fn silence_sends_back_to_probing_ever_more_slowly() {
        let mut progress = replicating(3);
        let mut now = Nanos(0);
        let mut pauses = vec![];
        for _ in 0..8 {
            let deadline = progress.deadline(&T).unwrap();
            assert!(!progress.maybe_stall(Nanos(deadline.0 - 1), &T));
            assert!(progress.maybe_stall(deadline, &T));
            pauses.push(deadline.since(now).0 / T.resend().0);
            assert_eq!(progress.next(), Index(2));
            progress.sent(deadline, Index(3), 100);
            now = deadline;
        }
        assert_eq!(pauses, [1, 2, 4, 8, 16, 16, 16, 16]);
        progress.heard(now, &T);
        assert_eq!(
            progress.room(),
            Some(PROBE_SIZE_MAX),
            "a returned peer is probed at once"
        );
    }

    #[test]
    fn a_peer_without_room_is_asked_again_at_the_same_pace() {
        let mut progress = replicating(3);
        let mut now = Nanos(0);
        for _ in 0..8 {
            let deadline = progress.deadline(&T).unwrap();
            assert_eq!(deadline.since(now), T.resend());
            assert!(progress.maybe_stall(deadline, &T));
            progress.sent(deadline, Index(3), 100);
            // An answer to something older says nothing of it.
            progress.took_nothing(Index(0));
            assert_eq!(progress.stall_count, 1);
            progress.took_nothing(Index(1));
            now = deadline;
        }
    }

    #[test]
    fn a_referred_peer_is_sent_nothing_until_it_has_the_blocks_or_gets_none() {
        let referred = || {
            let mut progress = replicating(5);
            assert!(progress.missed(Index(4)));
            assert!(progress.may_be_referred());
            progress.referred(Nanos(1), Index(90));
            progress
        };
        let mut progress = referred();
        assert!(progress.maybe_match(Nanos(2), Index(40)));
        assert_eq!(progress.room(), None);
        assert!(!progress.missed(Index(41)));
        assert!(progress.maybe_match(Nanos(3), Index(90)));
        assert_eq!(
            (progress.state(), progress.next()),
            (State::Replicate, Index(91))
        );
        let mut progress = referred();
        progress.maybe_match(Nanos(7), Index(40));
        let deadline = Nanos(7).after(REFERRED_PATIENCE);
        assert_eq!(progress.deadline(&T), Some(deadline));
        assert!(progress.maybe_stall(deadline, &T));
        assert_eq!(progress.next(), Index(41), "what it has is not sent again");
        let mut progress = referred();
        progress.referral_ended(Nanos(9));
        assert_eq!(
            (progress.state(), progress.next()),
            (State::Probe { sent: false }, Index(2))
        );
    }

    #[test]
    fn nobody_is_referred_who_may_not_match() {
        let mut progress = Progress::new(Nanos(0), Index(9));
        progress.become_catch_up();
        assert!(!progress.may_be_referred());
        let mut progress = replicating(5);
        progress.become_probe(Nanos(1));
        progress.become_catch_up();
        assert!(progress.may_be_referred(), "it said that it has the first");
        progress.maybe_match(Nanos(2), Index(7));
        progress.referred(Nanos(2), Index(6));
        assert_eq!(progress.state(), State::Replicate);
    }

    #[test]
    fn a_missed_message_turns_into_a_chunk() {
        let mut progress = replicating(5);
        assert!(progress.missed(Index(4)));
        assert_eq!(progress.state(), State::CatchUp { probing: false });
        assert_eq!(progress.in_flight_size(), 200);
        assert!(!progress.missed(Index(4)), "asked for already");
        progress.caught_up(Nanos(1), Index(9), 1000);
        assert_eq!(
            (progress.state(), progress.next()),
            (State::Replicate, Index(10))
        );
    }
}
