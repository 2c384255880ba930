//! A model producer: numbers its records, keeps a few appends in flight, and sends again under the
//! same number what it has no answer to.
//!
//! Slow and obvious on purpose. Knows no node; where to turn is the line's.

use std::collections::VecDeque;

use super::client::{Context, Line};
use super::history::{Life, RECORD_SIZE_MIN, put_record};
use crate::frame::client::{Append, ArchivedAppendReply};
use crate::frame::code::{NotCommittedReason, Outcome};
use crate::frame::sum::crc32c;
use crate::id::{GroupId, Nanos};
use crate::log::block::write_record;

/// Bytes that all producers together append at their pace: a large ring goes round, and the disks of
/// a few nodes still fit in memory. Beyond, they take their time.
const LOAD_SIZE_MAX: usize = 64 << 20;

/// How much time they take.
const PAUSE_BEYOND: Nanos = Nanos::from_millis(500);

/// An append without its answer.
#[derive(Debug)]
struct Pending {
    /// Counts this life's appends.
    number: usize,
    sequence: u64,
    version: u32,
    record_count: u32,
    payload: Vec<u8>,
    sum: u32,
    /// Its request on the present connection; none if it is to be sent.
    request: Option<u64>,
    sent_at: Nanos,
    try_count: u32,
    /// Every try was answered "not committed", so it is nowhere.
    is_nowhere: bool,
}

/// One producer and its log.
#[derive(Debug)]
pub(super) struct Producer {
    id: u64,
    epoch: u32,
    group: GroupId,
    /// Position of the group among the logs.
    position: usize,
    next_number: usize,
    next_sequence: u64,
    pending: VecDeque<Pending>,
    /// Bytes of all appends it made.
    made_size: usize,
    append_at: Nanos,
    resend_at: Nanos,
    /// Answers that promise nothing, in a row.
    setback_count: u32,
    /// Appends acknowledged that were made after the last call of [`Producer::expect`].
    fresh_acked: bool,
    fresh_from: u64,
    is_stopped: bool,
}

impl Producer {
    pub(super) fn new(id: u64, group: GroupId, position: usize) -> Self {
        Self {
            id,
            epoch: 1,
            group,
            position,
            next_number: 0,
            next_sequence: 0,
            pending: VecDeque::new(),
            made_size: 0,
            append_at: Nanos(0),
            resend_at: Nanos(0),
            setback_count: 0,
            fresh_acked: false,
            fresh_from: 0,
            is_stopped: false,
        }
    }

    fn life(&self) -> Life {
        (self.id, self.epoch)
    }

    /// From now on a fresh append is waited for.
    pub(super) fn expect(&mut self) {
        self.fresh_from = self.next_sequence;
        self.fresh_acked = false;
    }

    /// Whether an append made since was acknowledged.
    pub(super) fn has_fresh_ack(&self) -> bool {
        self.fresh_acked
    }

    /// Makes appends again.
    pub(super) fn resume(&mut self, now: Nanos) {
        self.is_stopped = false;
        self.append_at = now;
    }

    /// Makes no new appends.
    pub(super) fn stop(&mut self) {
        self.is_stopped = true;
    }

    /// Whether all it made was answered.
    pub(super) fn is_idle(&self) -> bool {
        self.pending.is_empty()
    }

    pub(super) fn on_line_lost(&mut self, now: Nanos) {
        for pending in &mut self.pending {
            // What was sent may be anywhere now.
            pending.is_nowhere &= pending.request.is_none();
            pending.request = None;
        }
        self.resend_at = now;
    }

    pub(super) fn on_time(&mut self, line: &mut Line, context: &mut Context<'_>) -> Nanos {
        let (now, patience) = (context.now, context.swarm.client_patience);
        let silent =
            |pending: &Pending| pending.request.is_some() && pending.sent_at.after(patience) <= now;
        if self.pending.iter().any(silent) {
            line.turn_to(0);
            return now.after(patience);
        }
        if self.has_room(context) && self.append_at <= now {
            self.make_some(context);
        }
        if self.resend_at <= now {
            self.send_all(line, context);
        }
        let mut wake_at = now.after(patience);
        if let Some(oldest) = self
            .pending
            .iter()
            .find(|pending| pending.request.is_some())
        {
            wake_at = wake_at.min(oldest.sent_at.after(patience));
        }
        if self.pending.iter().any(|pending| pending.request.is_none()) {
            wake_at = wake_at.min(self.resend_at);
        }
        if self.has_room(context) {
            wake_at = wake_at.min(self.append_at);
        }
        wake_at.max(now.after(Nanos(1)))
    }

    /// Whether another append may be in flight. The log remembers a producer's last few appends
    /// only, so what counts is the distance to the oldest without an answer.
    fn has_room(&self, context: &Context<'_>) -> bool {
        let oldest = self
            .pending
            .front()
            .map_or(self.next_number, |pending| pending.number);
        !self.is_stopped && self.next_number - oldest < context.swarm.window
    }

    /// As many at once as its program happens to have, and the window takes. The pause that follows
    /// is as much longer.
    fn make_some(&mut self, context: &mut Context<'_>) {
        let swarm = context.swarm;
        let volley = context.chance.between(1, swarm.volley);
        let every = if !context.is_loaded {
            swarm.quiet_append_every
        } else if self.made_size < LOAD_SIZE_MAX / swarm.producer_count {
            swarm.append_every
        } else {
            PAUSE_BEYOND
        };
        let mut pause = Nanos(0);
        for _ in 0..volley {
            if self.has_room(context) {
                self.make(context);
                pause = pause.after(context.chance.about(every));
                self.append_at = context.now.after(pause);
            }
        }
    }

    fn make(&mut self, context: &mut Context<'_>) {
        let swarm = context.swarm;
        if context.chance.per_mille(swarm.epoch_per_mille) {
            // It forgets what it had in flight, as one that crashed.
            context.marks.epochs += 1;
            self.epoch += 1;
            self.next_number = 0;
            self.next_sequence = 0;
            self.pending.clear();
        }
        let record_count = context.chance.between(1, swarm.record_count_max) as u32;
        let sequence = self.next_sequence;
        self.next_sequence += u64::from(record_count);
        let mut pending = self.sealed(sequence, record_count, 0, context);
        pending.number = self.next_number;
        self.next_number += 1;
        self.made_size += pending.payload.len();
        self.pending.push_back(pending);
    }

    fn sealed(
        &self,
        sequence: u64,
        record_count: u32,
        version: u32,
        context: &mut Context<'_>,
    ) -> Pending {
        // As long as the records may be, and what stands before each.
        let size_max = RECORD_SIZE_MIN as u64 + context.swarm.record_size_max;
        let mut payload = Vec::with_capacity(record_count as usize * (size_max as usize + 8));
        let mut record = Vec::with_capacity(size_max as usize);
        for number in sequence..sequence + u64::from(record_count) {
            let size = context.chance.below(context.swarm.record_size_max + 1) as usize;
            let size = RECORD_SIZE_MIN + size;
            put_record(&mut record, self.life(), version, number, size);
            write_record(&mut payload, &record);
        }
        context
            .history
            .on_made(self.life(), sequence, record_count, version);
        Pending {
            number: 0,
            sequence,
            version,
            record_count,
            sum: crc32c(&payload),
            payload,
            request: None,
            sent_at: Nanos(0),
            try_count: 0,
            is_nowhere: true,
        }
    }

    fn send_all(&mut self, line: &mut Line, context: &mut Context<'_>) {
        let (group, producer, epoch) = (self.group.0, self.id, self.epoch);
        for pending in self
            .pending
            .iter_mut()
            .filter(|pending| pending.request.is_none())
        {
            let Pending {
                sequence,
                record_count,
                sum,
                ..
            } = *pending;
            let body = |request| Append {
                request,
                producer,
                sequence,
                group,
                record_count,
                epoch,
            };
            pending.request = Some(line.ask_with(body, sum, &pending.payload));
            line.note(context, || {
                format!("sends append {sequence} of {record_count} records to log {group}")
            });
            pending.sent_at = context.now;
            context.marks.retries += u64::from(pending.try_count > 0);
            pending.try_count += 1;
        }
    }

    pub(super) fn on_reply(
        &mut self,
        reply: &ArchivedAppendReply,
        line: &mut Line,
        context: &mut Context<'_>,
    ) {
        let request = reply.request.to_native();
        let found = self
            .pending
            .iter()
            .position(|pending| pending.request == Some(request));
        // An answer to something answered already: the network doubles frames.
        let Some(at) = found else { return };
        match Outcome::from_code(reply.outcome).expect("a known outcome") {
            Outcome::Committed => {
                let (sequence, offset) = (self.pending[at].sequence, reply.offset.to_native());
                line.note(context, || {
                    format!("append {sequence} is committed at {offset}")
                });
                self.on_committed(at, offset, context);
            }
            Outcome::Unknown => {
                let sequence = self.pending[at].sequence;
                line.note(context, || format!("append {sequence} is unknown"));
                context.marks.unknown += 1;
                self.pending[at].request = None;
                self.pending[at].is_nowhere = false;
                self.set_back(line, reply.leader.to_native(), context);
            }
            Outcome::NotCommitted => self.on_refused(at, reply, line, context),
        }
    }

    fn on_committed(&mut self, at: usize, offset: u64, context: &mut Context<'_>) {
        self.setback_count = 0;
        let pending = self.pending.remove(at).expect("found just now");
        let committed = context.oracle.committed(self.position);
        let life = self.life();
        let sequence = pending.sequence;
        let again = context
            .history
            .on_acked(self.position, life, sequence, offset, committed);
        assert!(!again, "one request at a time, so one acknowledgement");
        context.marks.acked += 1;
        self.fresh_acked |= sequence >= self.fresh_from;
    }

    fn on_refused(
        &mut self,
        at: usize,
        reply: &ArchivedAppendReply,
        line: &mut Line,
        context: &mut Context<'_>,
    ) {
        let reason = NotCommittedReason::from_code(reply.reason).expect("a known reason");
        context.marks.refused += 1;
        let sequence = self.pending[at].sequence;
        line.note(context, || {
            format!("append {sequence} is refused: {reason}")
        });
        self.pending[at].request = None;
        let leader = reply.leader.to_native();
        match reason {
            NotCommittedReason::NotLeader | NotCommittedReason::Stopping => {
                self.maybe_replace(at, context);
                // Nothing else in flight there will fare better.
                line.turn_to(leader);
                self.set_back(line, 0, context);
            }
            // What the network damaged is found out here, and not taken.
            NotCommittedReason::Malformed if context.marks.corrupted > 0 => {
                context.marks.corruptions_refused += 1;
                self.set_back(line, 0, context);
            }
            NotCommittedReason::Overloaded
            | NotCommittedReason::DiskFull
            | NotCommittedReason::Transferring => {
                context.marks.overloaded += u64::from(reason == NotCommittedReason::Overloaded);
                self.maybe_replace(at, context);
                let wait = Nanos::from_micros(u64::from(reply.retry_after_us.to_native()));
                self.resend_at = context.now.after(wait);
            }
            NotCommittedReason::SequenceGap => {
                // One before it was refused or lost, or the leader is one that lags.
                self.set_back(line, 0, context);
                if at == 0 && self.setback_count > 3 {
                    line.turn_to(0);
                }
            }
            NotCommittedReason::Fenced => panic!("the newest life of a producer is fenced"),
            reason => panic!(
                "{:?} {} is refused: {reason}",
                self.life(),
                self.pending[at].sequence
            ),
        }
    }

    /// Gives up an append that is nowhere, and puts another under its number.
    fn maybe_replace(&mut self, at: usize, context: &mut Context<'_>) {
        let Pending {
            sequence,
            record_count,
            version,
            is_nowhere,
            ..
        } = self.pending[at];
        let is_safe = is_nowhere && !context.swarm.client_faults;
        if is_safe && context.chance.per_mille(context.swarm.replace_per_mille) {
            context.marks.replaced += 1;
            let mut pending = self.sealed(sequence, record_count, version + 1, context);
            pending.number = self.pending[at].number;
            pending.try_count = self.pending[at].try_count;
            self.pending[at] = pending;
        }
    }

    fn set_back(&mut self, line: &mut Line, leader: u64, context: &mut Context<'_>) {
        self.setback_count += 1;
        if leader != 0 {
            line.turn_to(leader);
        }
        let pause = context
            .chance
            .spread(Nanos::from_micros(200), Nanos::from_millis(3));
        self.resend_at = context.now.after(pause);
    }
}
