//! Appends to one log: numbered, in flight, resent, resolved.
//!
//! Keeps the queue of records, the window of sealed appends and the producer's epoch in this log.
//! Knows no node and no connection but by number; who leads is told from outside.
//!
//! # Why no record is doubled, skipped or moved
//!
//! What the server promises, of every state that any leader's log is ever in: within one epoch of
//! a producer the sequences are dense from 0, and epochs only rise. An append that does not
//! continue its epoch is refused (`SequenceGap`), one below the newest epoch too (`Fenced`), and
//! one that is there already, among the producer's last `PRODUCER_WINDOW` appends, is answered
//! with its first offset instead of being written again. `NotCommitted` speaks of one *try*: that
//! try has put nothing into the log and never will.
//!
//! What is kept here in turn:
//!
//! 1. *One name, one content.* Once an append has been sent, (epoch, sequence) stands for those
//!    very bytes for ever. Records get another name only after it is proved that no log holds
//!    them under the old one.
//! 2. *The window is a span*: from the lowest unresolved append on at most `PRODUCER_WINDOW`
//!    appends are sealed, resolved ones among them included. So whatever is retried is still
//!    recognised by the server, though later appends may have been acknowledged before it.
//! 3. *In order, on one connection.* All outstanding tries are on the connection to the one node
//!    believed to lead. When a try is refused, those sent behind it are doomed to a gap: nothing
//!    is resent before they are answered, then all are, lowest first. This is for speed only. If
//!    a try overtakes another, the server refuses it.
//! 4. *A try that is lost leaves doubt.* If its connection is lost, or another node is turned to,
//!    before it is answered, the append may be in some log or not, whatever later tries say. It
//!    is resolved by `Committed` or else ends `Unknown`, never `NotCommitted`.
//!
//! No duplicate: a record has one name at a time (1), one name is in the log at most once (server;
//! 2 keeps within what it remembers), and a name is given up only if absent for ever. Order: the
//! queue is numbered in order, sequences and epochs stand in the log in order (server). No gap:
//! an append behind another of the same epoch can be in the log only if that one is.
//!
//! # When an append is given up
//!
//! At its timeout, or by a final refusal, the epoch is over: the number can never be filled in by
//! other bytes (1), and without it the server takes none of the later ones. A new epoch begins at
//! sequence 0 once every lower append is resolved. The old epoch's tries that still wander about
//! come before the new epoch's first append or never (fenced), so order holds.
//!
//! An append is *absent* if it was never sent, or each of its tries was answered `NotCommitted`.
//! If one is absent all behind it are too, sent or not, for they could only follow it. So from the
//! first absent one on all records are queued again, under the new epoch; those before it that
//! are unresolved end `Unknown`. Example, five sent, the leader dies, timeout:
//!
//! ```text
//!     sequence   0          1        2          3        4        queued
//!                committed  in doubt in doubt   refused  in doubt
//!     outcome               Unknown  Unknown   └──── new epoch: 0, 1, ... ────
//! ```
//!
//! A gap at the lowest unresolved append itself has two causes. A leader that is deposed and does
//! not know it yet may lack what a newer one has committed: try again elsewhere. Or the server has
//! forgotten this producer, being silent longer than `PRODUCER_COUNT_MAX` others: then the epoch
//! is over as above. They are told apart by the term: a leader of a term not below that of an
//! append of ours that was acknowledged has that append in its log (leader completeness, thesis
//! 3.6.3); if it misses it, it has forgotten.

use std::collections::VecDeque;

use bytes::Bytes;

use super::effects::{Effect, Effects};
use super::outcome::Outcome;
use super::post::{Asked, Post};
use super::records::Waiting;
use super::sealed::{Answer, Name, Reply, Sealed, Try};
use crate::bugs::{self, Switch};
use crate::frame::client::Append;
use crate::frame::code::NotCommittedReason as Reason;
use crate::frame::sum::Sum;
use crate::frame::writer::{PayloadClaim, padding};
use crate::id::{ConnectionId, Epoch, GroupId, Nanos, ProducerId, RequestId, Term};
use crate::limits::{APPEND_PAYLOAD_SIZE_MAX, APPEND_RECORD_COUNT_MAX, PRODUCER_WINDOW};

/// An append is not filled beyond this unless by its first records: eight of them in flight keep
/// a leader busy, and larger ones would only be later to arrive.
pub const SEALED_SIZE_SOFT_MAX: usize = 256 << 10;

/// Records handed over longer apart are not sealed together: an append ends at the timeout of its
/// oldest record, which would be early for the others.
pub const AGE_SPREAD_MAX: Nanos = Nanos::from_millis(1_000);

/// Gaps in a row after which a server is not to be hurried: more than a window's worth of tries
/// doomed by one refusal.
const GAP_COUNT_MAX: u32 = 4 * PRODUCER_WINDOW as u32;

/// Least and greatest wait after a refusal that names one.
const RETRY_AFTER_MIN: Nanos = Nanos::from_micros(100);
const RETRY_AFTER_MAX: Nanos = Nanos::from_millis(1_000);

const _: () = assert!(SEALED_SIZE_SOFT_MAX <= APPEND_PAYLOAD_SIZE_MAX);

/// Who appends: chosen once for a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The producer.
    pub producer: ProducerId,
    /// Its life: the epoch that it begins with in each log.
    pub epoch: Epoch,
    /// The last epoch that it may go on to by itself, where an epoch in a log is over.
    pub epoch_max: Epoch,
}

/// What an answer means for the belief about who leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Advice {
    /// It leads, and takes appends.
    Serves,
    /// It does not lead.
    Denies,
    /// It refuses for now; another might not.
    Doubt,
    /// Nothing to be learned.
    None,
}

/// The epoch cannot go on from this sequence.
#[derive(Clone, Copy, Debug)]
struct Broken {
    sequence: u64,
    /// The append with that sequence is proved absent, and so all behind it.
    absent: bool,
}

/// One producer's appends to one log.
#[derive(Debug)]
pub(super) struct Producer {
    group: GroupId,
    identity: Identity,
    epoch: Epoch,
    /// Sequence of the next append to be sealed.
    next_sequence: u64,
    /// Records without a number, in order.
    queue: VecDeque<Waiting>,
    /// Sealed appends in order; the first is unresolved.
    window: VecDeque<Sealed>,
    broken: Option<Broken>,
    /// A newer life of this producer has written: nothing goes any more.
    fenced: bool,
    /// Highest term in which an append of ours was acknowledged.
    committed_term: Term,
    /// Nothing is sent before: the leader asked for it, or refused.
    resend_at: Nanos,
    /// Gaps answered since the last append was taken.
    gap_count: u32,
    /// Why the last try failed, for those that time out unsent.
    last_reason: Reason,
}

impl Producer {
    pub(super) fn new(group: GroupId, identity: Identity) -> Self {
        assert!(identity.epoch <= identity.epoch_max);
        Self {
            group,
            identity,
            epoch: identity.epoch,
            next_sequence: 0,
            queue: VecDeque::new(),
            window: VecDeque::new(),
            broken: None,
            fenced: false,
            committed_term: Term(0),
            resend_at: Nanos(0),
            gap_count: 0,
            last_reason: Reason::NotLeader,
        }
    }

    /// Whether nothing waits for an outcome.
    pub(super) fn is_idle(&self) -> bool {
        self.queue.is_empty() && self.window.is_empty()
    }

    /// Whether records handed over now would be sealed at once if the leader is there.
    pub(super) fn has_room(&self) -> bool {
        self.queue.is_empty() && self.window.len() < PRODUCER_WINDOW && self.broken.is_none()
    }

    pub(super) fn push(&mut self, waiting: Waiting, effects: &mut Effects) {
        self.queue.push_back(waiting);
        if self.fenced {
            self.fail_queue(Reason::Fenced, effects);
        }
    }

    // ---- towards the leader

    /// Tries on other connections than the leader's are given up: they leave doubt.
    pub(super) fn aim_at(&mut self, leader: ConnectionId) {
        self.abandon_tries(|connection| connection != leader);
    }

    /// A connection is lost.
    pub(super) fn on_closed(&mut self, lost: ConnectionId) {
        self.abandon_tries(|connection| connection == lost);
    }

    fn abandon_tries(&mut self, given_up: impl Fn(ConnectionId) -> bool) {
        for sealed in &mut self.window {
            if sealed
                .current
                .is_some_and(|current| given_up(current.connection))
            {
                sealed.current = None;
                sealed.in_doubt |= !bugs::is_on(Switch::B72);
            }
        }
    }

    /// Sends what may be sent to the leader; `aim_at` has been called for it.
    pub(super) fn send(
        &mut self,
        now: Nanos,
        leader: ConnectionId,
        post: &mut Post,
        effects: &mut Effects,
    ) {
        if now < self.resend_at {
            return;
        }
        while let Some(place) = self.next_to_send() {
            let sealed = &mut self.window[place];
            assert!(!sealed.resolved && sealed.current.is_none());
            let name = Name {
                epoch: self.epoch,
                sequence: sealed.sequence,
            };
            let request = post.ask(now, leader, Asked::Append(self.group, name));
            let body = Append {
                request: request.0,
                producer: self.identity.producer.0,
                sequence: sealed.sequence,
                group: self.group.0,
                record_count: sealed.record_count,
                epoch: self.epoch.0,
            };
            let mut payload: Vec<Bytes> = Vec::with_capacity(sealed.parts.len() + 1);
            for part in &sealed.parts {
                payload.extend_from_slice(part.records.chunks());
            }
            let zeros = padding(sealed.payload.size as usize);
            if !zeros.is_empty() {
                payload.push(Bytes::from_static(zeros));
            }
            post.send_with_payload(leader, &body, sealed.payload, payload, effects);
            sealed.was_sent = true;
            sealed.current = Some(Try {
                connection: leader,
                request,
                sent: now,
            });
        }
    }

    /// Place in the window of the append to be sent next; seals one if it is time.
    fn next_to_send(&mut self) -> Option<usize> {
        // What lies behind a break is not sent under this epoch.
        let end = self.broken.map_or(self.next_sequence, |b| b.sequence);
        let unsent = |sealed: &Sealed| !sealed.resolved && sealed.current.is_none();
        let Some(place) = self.window.iter().position(unsent) else {
            return self.maybe_seal().then(|| self.window.len() - 1);
        };
        if self.window[place].sequence >= end {
            return None;
        }
        let mut behind = self.window.range(place + 1..);
        let doomed = behind.any(|sealed| sealed.current.is_some() && sealed.sequence < end);
        (!doomed).then_some(place)
    }

    /// Seals all that is queued, up to the bounds, if the window has room.
    fn maybe_seal(&mut self) -> bool {
        if self.window.len() >= PRODUCER_WINDOW || self.broken.is_some() || self.fenced {
            return false;
        }
        let Some(since) = self.queue.front().map(|waiting| waiting.since) else {
            return false;
        };
        let (mut size, mut count) = (0, 0);
        let mut sum = Sum::new();
        let mut parts = Vec::new();
        while let Some(waiting) = self.queue.front() {
            let records = &waiting.records;
            let fits = size + records.size() <= SEALED_SIZE_SOFT_MAX
                && count + records.record_count() as usize <= APPEND_RECORD_COUNT_MAX
                && waiting.since.since(since) <= AGE_SPREAD_MAX;
            if !parts.is_empty() && !fits {
                break;
            }
            size += records.size();
            count += records.record_count() as usize;
            records.sum_into(&mut sum);
            parts.extend(self.queue.pop_front());
        }
        assert!(size <= APPEND_PAYLOAD_SIZE_MAX && count <= APPEND_RECORD_COUNT_MAX);
        self.window.push_back(Sealed {
            sequence: self.next_sequence,
            record_count: count as u32,
            payload: PayloadClaim {
                size: size as u32,
                sum: sum.value(),
            },
            parts,
            since,
            current: None,
            was_sent: false,
            in_doubt: false,
            resolved: false,
        });
        self.next_sequence += count as u64;
        true
    }

    // ---- answers

    /// An answer has come, to the current try of an append or to an earlier one.
    pub(super) fn on_reply(
        &mut self,
        now: Nanos,
        request: RequestId,
        name: Name,
        reply: Reply,
        effects: &mut Effects,
    ) -> Advice {
        let advice = match self.find(name) {
            Some(place) => self.judge(now, request, place, reply, effects),
            // Resolved long ago, or of an epoch that is over.
            None => Advice::None,
        };
        if self.fenced {
            self.fail_idle(effects);
        }
        self.settle(effects);
        advice
    }

    fn find(&self, name: Name) -> Option<usize> {
        if name.epoch != self.epoch {
            return None;
        }
        let found = |sealed: &Sealed| sealed.sequence == name.sequence && !sealed.resolved;
        self.window.iter().position(found)
    }

    fn judge(
        &mut self,
        now: Nanos,
        request: RequestId,
        place: usize,
        reply: Reply,
        effects: &mut Effects,
    ) -> Advice {
        let sealed = &mut self.window[place];
        let is_current = sealed
            .current
            .is_some_and(|current| current.request == request);
        if is_current {
            sealed.current = None;
        }
        match reply.answer {
            Answer::Committed { offset, durability } => {
                let outcome = Outcome::Committed {
                    offset,
                    term: reply.term.0,
                    durability,
                };
                sealed.resolve(outcome, effects);
                self.committed_term = self.committed_term.max(reply.term);
                self.gap_count = 0;
                Advice::Serves
            }
            // An earlier try is in doubt already; the current one will tell.
            _ if !is_current => Advice::None,
            Answer::Unknown => {
                sealed.in_doubt |= !bugs::is_on(Switch::B70);
                Advice::Denies
            }
            Answer::NotCommitted {
                reason,
                retry_after,
            } => {
                self.last_reason = reason;
                self.on_refusal(now, place, reason, retry_after, reply.term, effects)
            }
        }
    }

    fn on_refusal(
        &mut self,
        now: Nanos,
        place: usize,
        reason: Reason,
        retry_after: Nanos,
        term: Term,
        effects: &mut Effects,
    ) -> Advice {
        match reason {
            Reason::NotLeader => Advice::Denies,
            Reason::Transferring | Reason::Stopping | Reason::DiskFull => Advice::Doubt,
            Reason::Overloaded => {
                let wait = retry_after.clamp(RETRY_AFTER_MIN, RETRY_AFTER_MAX);
                self.pause_until(now.after(wait));
                Advice::Serves
            }
            Reason::SequenceGap => self.on_gap(place, term),
            Reason::Fenced => {
                self.fenced = true;
                self.refuse_for_good(place, reason, effects);
                Advice::None
            }
            Reason::UnknownLog
            | Reason::RecordTooLarge
            | Reason::Malformed
            | Reason::WindowPassed => {
                self.refuse_for_good(place, reason, effects);
                Advice::None
            }
        }
    }

    fn on_gap(&mut self, place: usize, term: Term) -> Advice {
        self.gap_count = self.gap_count.saturating_add(1);
        if self.gap_count > GAP_COUNT_MAX {
            return Advice::Doubt;
        }
        let mut before = self.window.range(..place);
        if before.any(|sealed| !sealed.resolved) {
            // A lower one was refused or is on its way again: this one follows it.
            return Advice::None;
        }
        let sealed = &self.window[place];
        if sealed.sequence == 0 || term < self.committed_term {
            return Advice::Doubt;
        }
        self.break_at(Broken {
            sequence: sealed.sequence,
            absent: sealed.is_absent(),
        });
        Advice::Serves
    }

    fn refuse_for_good(&mut self, place: usize, reason: Reason, effects: &mut Effects) {
        let sealed = &mut self.window[place];
        assert!(sealed.current.is_none(), "the refusal answered its try");
        let absent = sealed.is_absent();
        let sequence = sealed.sequence;
        let outcome = if absent {
            Outcome::NotCommitted(reason)
        } else {
            Outcome::Unknown
        };
        sealed.resolve(outcome, effects);
        self.break_at(Broken { sequence, absent });
    }

    /// The lowest break counts.
    fn break_at(&mut self, broken: Broken) {
        if self.broken.is_none_or(|old| broken.sequence < old.sequence) {
            // If a higher one was proved absent, the appends between cannot be told from this.
            self.broken = Some(broken);
        }
    }

    /// Forgets what is resolved, and begins a new epoch if nothing is left to wait for in this.
    fn settle(&mut self, effects: &mut Effects) {
        while self.window.front().is_some_and(|sealed| sealed.resolved) {
            self.window.pop_front();
        }
        if let Some(broken) = self.broken {
            let mut below = self.window.iter().filter(|s| s.sequence < broken.sequence);
            if below.all(|sealed| sealed.resolved) {
                self.restart(effects);
            }
        }
    }

    /// Ends the epoch: see "When an append is given up" above.
    fn restart(&mut self, effects: &mut Effects) {
        let broken = self.broken.take();
        let was_used = broken.is_some() || self.window.iter().any(|sealed| sealed.was_sent);
        let hole = broken.filter(|broken| broken.absent).map(|b| b.sequence);
        let absent = |sealed: &Sealed| {
            !sealed.resolved
                && (sealed.is_absent() || hole.is_some_and(|hole| hole <= sealed.sequence))
        };
        let first_sequence = self.window.front().map(|sealed| sealed.sequence);
        let cut = self.window.iter().position(absent);
        let absent = self.window.split_off(cut.unwrap_or(self.window.len()));
        for mut sealed in self.window.drain(..) {
            if !sealed.resolved {
                sealed.resolve(Outcome::Unknown, effects);
            }
        }
        for sealed in absent.into_iter().rev() {
            for part in sealed.parts.into_iter().rev() {
                self.queue.push_front(part);
            }
        }
        if !was_used {
            // Nothing of it was ever sent: the numbers are as good as new.
            self.next_sequence = first_sequence.unwrap_or(self.next_sequence);
        } else if self.epoch < self.identity.epoch_max {
            self.epoch.0 += 1;
            self.next_sequence = 0;
        } else {
            // Going on would take the epochs of this producer's next life.
            self.fenced = true;
        }
        if self.fenced {
            self.fail_queue(Reason::Fenced, effects);
        }
    }

    // ---- giving up

    /// Nothing is sent before `at`.
    pub(super) fn pause_until(&mut self, at: Nanos) {
        self.resend_at = self.resend_at.max(at);
    }

    /// The leader has changed: what the last one asked for is void.
    pub(super) fn resume(&mut self) {
        self.resend_at = Nanos(0);
    }

    /// Ends what has waited for longer than `timeout`.
    pub(super) fn expire(&mut self, now: Nanos, timeout: Nanos, effects: &mut Effects) {
        let expired = |since: Nanos| since.after(timeout) <= now;
        if self.window.front().is_some_and(|s| expired(s.since)) {
            self.restart(effects);
        }
        while self.queue.front().is_some_and(|w| expired(w.since)) {
            if let Some(waiting) = self.queue.pop_front() {
                effects.push(Effect::Appended {
                    token: waiting.token,
                    outcome: Outcome::NotCommitted(self.last_reason),
                });
            }
        }
    }

    /// The log does not exist. What was sent has been told so itself, or is in doubt.
    pub(super) fn on_unknown(&mut self, effects: &mut Effects) {
        if self.window.is_empty() {
            self.fail_queue(Reason::UnknownLog, effects);
        }
    }

    /// Ends everything: the client closes.
    pub(super) fn stop(&mut self, effects: &mut Effects) {
        self.restart(effects);
        self.fail_queue(Reason::Stopping, effects);
        assert!(self.is_idle());
    }

    /// A fenced producer sends nothing: ends what has no try outstanding.
    fn fail_idle(&mut self, effects: &mut Effects) {
        // An append that follows an absent one is absent itself.
        let mut absent = false;
        for sealed in self.window.iter_mut().filter(|sealed| !sealed.resolved) {
            absent |= sealed.is_absent();
            if absent {
                sealed.resolve(Outcome::NotCommitted(Reason::Fenced), effects);
            } else if sealed.current.is_none() {
                sealed.resolve(Outcome::Unknown, effects);
            }
        }
        self.fail_queue(Reason::Fenced, effects);
    }

    fn fail_queue(&mut self, reason: Reason, effects: &mut Effects) {
        for waiting in self.queue.drain(..) {
            effects.push(Effect::Appended {
                token: waiting.token,
                outcome: Outcome::NotCommitted(reason),
            });
        }
    }

    // ---- time

    /// When `expire` would end something.
    pub(super) fn expires_at(&self, timeout: Nanos) -> Option<Nanos> {
        let oldest = self.window.front().map(|sealed| sealed.since);
        let oldest = oldest.or_else(|| self.queue.front().map(|waiting| waiting.since));
        oldest.map(|since| since.after(timeout))
    }

    /// When the pause ends, if it holds something back.
    pub(super) fn resumes_at(&self, now: Nanos) -> Option<Nanos> {
        (self.resend_at > now && !self.is_idle()).then_some(self.resend_at)
    }

    /// When the oldest outstanding try was sent.
    pub(super) fn oldest_sent(&self) -> Option<Nanos> {
        let tries = self.window.iter().filter_map(|sealed| sealed.current);
        tries.map(|current| current.sent).min()
    }
}
