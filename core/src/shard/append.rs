//! Appends from clients: judged, copied once into the open run, proposed, and answered when their
//! block is committed.
//!
//! Appends for one group that follow each other within a turn share a block. A turn's batch is what
//! arrived during it: there is no linger timer.

use crate::bugs::{self, Switch};
use crate::frame::Frame;
use crate::frame::client::{AppendReply, ArchivedAppend};
use crate::frame::code::{Durability, NotCommittedReason, Outcome};
use crate::id::{
    ConnectionId, Epoch, GroupId, Index, NodeId, ProducerId, RequestId, Sequence, Term,
};
use crate::log::block::{AppendHeader, BlockError, BlockKind};
use crate::log::builder::BlockStart;
use crate::log::producers::{ProducerRefusal, Verdict};
use crate::raft::ProposeRefusal;

use super::group::Ack;
use super::{Effects, Shard};

/// What an overloaded shard asks a client to wait before it tries again.
const RETRY_AFTER_US: u32 = 5_000;

/// Why an append was not even proposed.
#[derive(Clone, Copy, Debug)]
struct Refusal {
    reason: NotCommittedReason,
    leader: Option<NodeId>,
    retry_after_us: u32,
    /// What the reason asks for: the sequence expected, the newest epoch.
    detail: u64,
}

impl Refusal {
    fn of(reason: NotCommittedReason) -> Self {
        Self {
            reason,
            leader: None,
            retry_after_us: 0,
            detail: 0,
        }
    }

    fn overloaded() -> Self {
        Self {
            retry_after_us: RETRY_AFTER_US,
            ..Self::of(NotCommittedReason::Overloaded)
        }
    }
}

impl Shard {
    pub(super) fn on_append(
        &mut self,
        connection: ConnectionId,
        body: &ArchivedAppend,
        frame: &Frame<'_>,
        effects: &mut Effects,
    ) {
        let request = RequestId(body.request.to_native());
        if let Err(refusal) = self.append(connection, request, body, frame, effects) {
            // The term tells a client whether a leader speaks or one that was.
            let group = GroupId(body.group.to_native());
            let position = self.positions.get(&group);
            let term = position.map_or(0, |position| self.groups[*position].raft.term().0);
            let reply = AppendReply {
                request: request.0,
                offset: refusal.detail,
                term,
                leader: refusal.leader.unwrap_or_default().0,
                retry_after_us: refusal.retry_after_us,
                outcome: Outcome::NotCommitted.code(),
                reason: refusal.reason.code(),
                durability: 0,
            };
            self.reply(connection, &reply, effects);
        }
    }

    fn append(
        &mut self,
        connection: ConnectionId,
        request: RequestId,
        body: &ArchivedAppend,
        frame: &Frame<'_>,
        effects: &mut Effects,
    ) -> Result<(), Refusal> {
        let header = AppendHeader {
            payload_sum: frame.header.payload_sum,
            payload_size: frame.header.payload_size,
            producer: ProducerId(body.producer.to_native()),
            sequence: Sequence(body.sequence.to_native()),
            epoch: Epoch(body.epoch.to_native()),
            record_count: body.record_count.to_native(),
        };
        let group = GroupId(body.group.to_native());
        let Some(&position) = self.positions.get(&group) else {
            return Err(Refusal::of(NotCommittedReason::UnknownLog));
        };
        match header.judge() {
            Ok(()) => {}
            Err(BlockError::PayloadSize) => {
                return Err(Refusal::of(NotCommittedReason::RecordTooLarge));
            }
            Err(_) => return Err(Refusal::of(NotCommittedReason::Malformed)),
        }
        if self.groups[position].agreement.is_stopped() {
            return Err(Refusal::of(NotCommittedReason::NotLeader));
        }
        if self.is_stopping() && self.groups[position].raft.is_leader() {
            return Err(Refusal::of(NotCommittedReason::Stopping));
        }
        self.groups[position]
            .raft
            .can_propose()
            .map_err(|refusal| match refusal {
                ProposeRefusal::NotLeader { leader } => Refusal {
                    leader,
                    ..Refusal::of(NotCommittedReason::NotLeader)
                },
                ProposeRefusal::Transferring => Refusal {
                    retry_after_us: RETRY_AFTER_US,
                    ..Refusal::of(NotCommittedReason::Transferring)
                },
                ProposeRefusal::Full => Refusal::overloaded(),
            })?;
        self.judge_share(position)?;
        let AppendHeader {
            producer,
            epoch,
            sequence,
            record_count,
            ..
        } = header;
        let verdict =
            self.groups[position]
                .producers
                .judge(producer, epoch, sequence, record_count);
        let ack = Ack {
            connection,
            request,
            ..Ack::default()
        };
        match verdict {
            Verdict::Accept => self.put_append(position, &header, frame, ack),
            Verdict::Duplicate {
                index,
                first_offset,
                ..
            } => {
                let is_kept = self.on_duplicate(
                    position,
                    Ack {
                        index,
                        offset: first_offset,
                        ..ack
                    },
                    effects,
                );
                if is_kept {
                    Ok(())
                } else {
                    Err(Refusal::overloaded())
                }
            }
            Verdict::Refuse(refusal) => Err(refuse_producer(refusal)),
        }
    }

    /// A group may have as many bytes undecided as are left for all others together. One that decides
    /// nothing is so refused alone, and long before the ring is full of it; and however many are
    /// stuck, something is left for the rest.
    fn judge_share(&self, position: usize) -> Result<(), Refusal> {
        let left = self
            .shape
            .ring
            .undecided_size_max()
            .saturating_sub(self.undecided_size);
        if self.groups[position].undecided_size() < left {
            Ok(())
        } else {
            Err(Refusal::overloaded())
        }
    }

    /// Copies a judged append into the group's open block, opening one where needed.
    fn put_append(
        &mut self,
        position: usize,
        header: &AppendHeader,
        frame: &Frame<'_>,
        ack: Ack,
    ) -> Result<(), Refusal> {
        let size = header.payload_size as usize;
        if self.open_block != Some(position) || !self.journal.append_fits(size) {
            self.close_block();
            if self
                .open_block(position, BlockKind::Records, size)
                .is_none()
            {
                self.refused_full_count += 1;
                return Err(self.journal_full());
            }
        }
        let block = self.journal.open_block().expect("opened just now");
        let first_offset = block.next_offset();
        let chunks = frame.payload().chunks();
        if self.journal.push_append(header, chunks).is_err() {
            return Err(Refusal::of(NotCommittedReason::Malformed));
        }
        let group = &mut self.groups[position];
        let index = group.tail().last_index().next();
        group
            .producers
            .note(index, group.raft.term(), header, first_offset);
        group.acks.push_back(Ack {
            index,
            offset: first_offset,
            ..ack
        });
        Ok(())
    }

    /// Why the journal takes no more: its oldest file waits for segments, perhaps for disk space.
    fn journal_full(&self) -> Refusal {
        if self.is_disk_full {
            Refusal {
                retry_after_us: RETRY_AFTER_US,
                ..Refusal::of(NotCommittedReason::DiskFull)
            }
        } else {
            Refusal::overloaded()
        }
    }

    /// Begins a block of this group in the open run, or in another if its first append would not
    /// fit. `None`: the journal is full.
    pub(super) fn open_block(
        &mut self,
        position: usize,
        kind: BlockKind,
        size: usize,
    ) -> Option<()> {
        assert!(self.open_block.is_none());
        let group = &self.groups[position];
        let tail = group.tail();
        let start = BlockStart {
            group: group.id,
            kind,
            index: tail.last_index().next(),
            term: group.raft.term(),
            first_offset: tail.next_offset(),
            previous_sum: tail.last_sum(),
            commit: group.raft.commit(),
        };
        self.journal.begin_block(start, size)?;
        self.open_block = Some(position);
        Some(())
    }

    /// Finishes the open block, if any, and proposes it. Nothing of its group's Raft runs between
    /// opening and closing, so this node still leads.
    pub(super) fn close_block(&mut self) {
        let Some(position) = self.open_block.take() else {
            return;
        };
        // Nothing is left of a block whose only append was malformed.
        let Some(entry) = self.journal.finish_block() else {
            return;
        };
        self.undecided_size += u64::from(entry.size);
        self.groups[position].raft.propose(entry);
        self.groups[position].need.on_put(entry.place.lsn);
        self.groups[position].is_dirty = true;
    }

    /// A new leader's first block (thesis 3.6.2): older terms' blocks are committed through it.
    pub(super) fn put_no_op(&mut self, position: usize) {
        self.close_block();
        if self.open_block(position, BlockKind::NoOp, 0).is_some() {
            self.close_block();
        }
    }

    /// Tries again where a new leader's first block found no room. Followers would go on to follow
    /// a leader that can commit nothing.
    pub(super) fn maybe_put_no_op(&mut self, position: usize) {
        let raft = &self.groups[position].raft;
        // Nothing is proposed during a hand-over; should that come to nothing, it is looked for again.
        let may_propose = raft.can_propose() != Err(ProposeRefusal::Transferring);
        let is_missing = raft.is_leader() && raft.tail().last_term() < raft.term();
        if is_missing && may_propose && !bugs::is_on(Switch::R1) {
            self.put_no_op(position);
        }
    }

    /// Everything through `index` is committed: its appends are acknowledged.
    pub(super) fn acknowledge(&mut self, position: usize, index: Index, effects: &mut Effects) {
        let group = &mut self.groups[position];
        group.producers.commit_through(index);
        let term = group.raft.term();
        while let Some(ack) = self.groups[position]
            .acks
            .pop_front_if(|ack| ack.index <= index)
        {
            self.reply_committed(ack, term, effects);
        }
        for ack in self.groups[position].retried.take_through(index) {
            self.reply_committed(ack, term, effects);
        }
    }

    /// This node leads no more: what it took and could not see committed may or may not be.
    pub(super) fn abandon_acks(
        &mut self,
        position: usize,
        leader: Option<NodeId>,
        effects: &mut Effects,
    ) {
        if bugs::is_on(Switch::B74) {
            return;
        }
        let group = &mut self.groups[position];
        let acks: Vec<Ack> = group
            .acks
            .drain(..)
            .chain(group.retried.take_all())
            .collect();
        for ack in acks {
            let reply = AppendReply {
                request: ack.request.0,
                leader: leader.unwrap_or_default().0,
                outcome: Outcome::Unknown.code(),
                ..AppendReply::default()
            };
            self.reply(ack.connection, &reply, effects);
        }
    }

    fn reply_committed(&mut self, ack: Ack, term: Term, effects: &mut Effects) {
        let reply = AppendReply {
            request: ack.request.0,
            offset: ack.offset.0,
            term: term.0,
            leader: self.config.me.0,
            outcome: Outcome::Committed.code(),
            durability: Durability::Quorum.code(),
            ..AppendReply::default()
        };
        self.reply(ack.connection, &reply, effects);
    }

    /// A retry of what the log already holds gets the first offset, now or once it is committed.
    /// False if too many wait for that.
    fn on_duplicate(&mut self, position: usize, ack: Ack, effects: &mut Effects) -> bool {
        let group = &mut self.groups[position];
        if ack.index <= group.raft.commit() {
            let term = group.raft.term();
            self.reply_committed(ack, term, effects);
            true
        } else {
            group.retried.push(ack)
        }
    }
}

fn refuse_producer(refusal: ProducerRefusal) -> Refusal {
    let (reason, detail) = match refusal {
        ProducerRefusal::Gap { expected } => (NotCommittedReason::SequenceGap, expected.0),
        ProducerRefusal::Fenced { newest } => (NotCommittedReason::Fenced, u64::from(newest.0)),
        ProducerRefusal::Unknown => (NotCommittedReason::SequenceGap, 0),
        ProducerRefusal::TooOld | ProducerRefusal::Reshaped => {
            (NotCommittedReason::WindowPassed, 0)
        }
    };
    Refusal {
        detail,
        ..Refusal::of(reason)
    }
}
