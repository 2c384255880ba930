//! How a shard calls a group's Raft, and what it does of what Raft wants.
//!
//! Raft decides and touches nothing; what it wants written, sent or told is done here or handed to
//! whoever does that. Knows which calls a full journal still allows, and none of Raft's rules.

use crate::frame::Lane;
use crate::frame::peer::{AppendEntriesAck, StateReport, TimeoutNow, VoteReply, VoteRequest};
use crate::id::{GroupId, Lsn, Nanos, Term};
use crate::raft::{After, Message, Outbox, Output, Raft};

use super::Shard;
use super::effects::{Effect, Effects, Outgoing};
use super::group::{Group, Replicate};

/// Stands for the open run where nothing is to be put into it.
const NO_RUN: Lsn = Lsn(u64::MAX);

impl Shard {
    /// Fires a group's timers. A leader's put nothing into the journal: one whose journal takes no
    /// more must still find out that nobody follows it.
    pub(super) fn maybe_tick(&mut self, now: Nanos, position: usize, effects: &mut Effects) {
        let Group {
            raft, agreement, ..
        } = &self.groups[position];
        if raft.due() > now || agreement.is_stopped() {
            return;
        }
        if raft.is_leader() {
            self.tell_raft(now, position, effects, |raft, out| raft.tick(now, out));
        } else if !self.stall.is_declared() {
            self.with_raft(now, position, effects, |raft, out| raft.tick(now, out));
        }
    }

    /// Calls a group's Raft and carries out what it wants. Without room in the journal nothing is
    /// called: the input counts as lost, which Raft survives, and room comes as segments are
    /// written.
    pub(super) fn with_raft(
        &mut self,
        now: Nanos,
        position: usize,
        effects: &mut Effects,
        call: impl FnOnce(&mut Raft, &mut Outbox),
    ) {
        // What Raft does may depend on the last block, and what it wants persisted stands behind.
        self.close_block();
        let Some(lsn) = self.journal.open_lsn() else {
            return;
        };
        self.call_raft(now, position, lsn, effects, call);
    }

    /// As `with_raft`, for what never asks that anything be persisted: it needs no room, and is
    /// never lost. Raft counts on being told what became of what it asked for.
    pub(super) fn tell_raft(
        &mut self,
        now: Nanos,
        position: usize,
        effects: &mut Effects,
        call: impl FnOnce(&mut Raft, &mut Outbox),
    ) {
        self.close_block();
        self.call_raft(now, position, NO_RUN, effects, call);
    }

    /// As `tell_raft` for a message of a term that this node has reached: that puts nothing into
    /// the journal. A follower whose journal is full learns from such messages what is decided, and
    /// so what may leave the journal. A later term's message needs room.
    pub(super) fn pass_to_raft(
        &mut self,
        now: Nanos,
        position: usize,
        term: Term,
        effects: &mut Effects,
        call: impl FnOnce(&mut Raft, &mut Outbox),
    ) {
        if term <= self.groups[position].raft.term() {
            self.tell_raft(now, position, effects, call);
        } else {
            self.with_raft(now, position, effects, call);
        }
    }

    fn call_raft(
        &mut self,
        now: Nanos,
        position: usize,
        lsn: Lsn,
        effects: &mut Effects,
        call: impl FnOnce(&mut Raft, &mut Outbox),
    ) {
        let mut outbox = std::mem::take(&mut self.outbox);
        outbox.lsn = lsn;
        call(&mut self.groups[position].raft, &mut outbox);
        self.groups[position].is_dirty = true;
        let mut list = std::mem::take(&mut outbox.list);
        self.outbox = outbox;
        for output in list.drain(..) {
            self.carry_out(now, position, lsn, output, effects);
        }
        // Carrying out may have called Raft again, with a list of its own; the larger is kept.
        if list.capacity() > self.outbox.list.capacity() {
            self.outbox.list = list;
        }
    }

    fn carry_out(
        &mut self,
        now: Nanos,
        position: usize,
        lsn: Lsn,
        output: Output,
        effects: &mut Effects,
    ) {
        match output {
            Output::Persist(hard) => {
                // What depends on it waits for the run that Raft was told of: it must be that one.
                assert_eq!(
                    self.journal.run_lsn(),
                    Some(lsn),
                    "the run moved within a step"
                );
                self.journal.put_hard_state(self.groups[position].id, hard);
                self.groups[position].is_doubt_due = false;
            }
            Output::Doubts(doubt) => {
                self.journal.set_doubt(self.groups[position].id, doubt);
                let group = &mut self.groups[position];
                group.is_doubt_due = true;
                group.holes = group.holes.take().filter(|_| doubt.holes);
            }
            Output::Send { to, message, after } => {
                let frame = self.message_frame(self.groups[position].id, message);
                let effect = Effect::Send {
                    to,
                    lane: Lane::Control,
                    frame,
                };
                match after {
                    After::Stored(lsn) if lsn >= self.journal.durable() => {
                        self.held.push((lsn, effect));
                    }
                    After::Stored(_) | After::Now => effects.push(effect),
                }
            }
            Output::Replicate {
                to,
                term,
                prev_index,
                prev_term,
                first,
                last,
                ..
            } => self.groups[position].replicates.push(Replicate {
                to,
                term,
                prev_index,
                prev_term,
                first,
                last,
            }),
            Output::CatchUp { to, next } => self.on_catch_up(now, position, to, next, effects),
            Output::BecameLeader { .. } => self.put_no_op(position),
            Output::SteppedDown { leader, .. } => {
                self.abandon_acks(position, leader, effects);
                self.abandon_trims(position, effects);
                self.wake_waiting(now, position, effects);
            }
            Output::Truncated { from } => {
                self.groups[position].truncate_from(from);
                self.is_release_due = true;
            }
            Output::Committed { index } => {
                self.note_outpaced(now, position, index);
                self.acknowledge(position, index, effects);
                self.settle_trims(position, index, effects);
                self.wake_waiting(now, position, effects);
            }
            Output::BeatNow => self.liveness.hurry_heartbeat(now),
            Output::ReadReady { id, index } => {
                self.on_read_ready(now, position, id, index, effects);
            }
            Output::ReadFailed { id } => self.on_read_failed(position, id, effects),
        }
    }

    /// Says what a group doubts no more, should nothing else of it be to be written.
    pub(super) fn maybe_put_doubt(&mut self, position: usize) {
        if !self.groups[position].is_doubt_due {
            return;
        }
        self.close_block();
        if self.journal.open_lsn().is_some() {
            let id = self.groups[position].id;
            let hard = self.journal.hard_state(id);
            self.journal.put_hard_state(id, hard);
            self.groups[position].is_doubt_due = false;
        }
    }
    fn message_frame(&mut self, group: GroupId, message: Message) -> Outgoing {
        let group = group.0;
        match message {
            Message::VoteRequest {
                pre,
                transfer,
                term,
                last_index,
                last_term,
            } => self.encoder.frame(&VoteRequest {
                group,
                pre: u8::from(pre),
                transfer: u8::from(transfer),
                term: term.0,
                last_index: last_index.0,
                last_term: last_term.0,
            }),
            Message::VoteReply {
                pre,
                granted,
                term,
                voter_term,
            } => self.encoder.frame(&VoteReply {
                group,
                pre: u8::from(pre),
                granted: u8::from(granted),
                term: term.0,
                voter_term: voter_term.0,
            }),
            Message::AppendAck {
                term,
                matched,
                index,
                conflict_term,
                prev_index,
            } => self.encoder.frame(&AppendEntriesAck {
                group,
                matched: u8::from(matched),
                term: term.0,
                index: index.0,
                conflict_term: conflict_term.0,
                prev_index: prev_index.0,
            }),
            Message::TimeoutNow { term } => self.encoder.frame(&TimeoutNow {
                group,
                term: term.0,
            }),
            Message::StateReport(report) => self.encoder.frame(&StateReport {
                number: report.number,
                term: report.term.0,
                last_index: report.last_index.0,
                last_term: report.last_term.0,
                commit: report.commit.0,
                group,
                doubt: report.doubt.code(),
                is_leader: u8::from(report.is_leader),
                is_reply: u8::from(report.is_reply),
            }),
        }
    }
}
