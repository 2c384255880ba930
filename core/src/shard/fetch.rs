//! Reads for clients: who may answer, from where on, and when. Blocks leave verbatim.

use bytes::{BufMut, BytesMut};

use crate::bugs::{self, Switch};
use crate::frame::client::{ArchivedFetch, ArchivedTransfer, FetchReply, TransferReply};
use crate::frame::code::{FetchOutcome, ReadMode, TransferOutcome};
use crate::id::{ConnectionId, GroupId, Index, Nanos, NodeId, Offset, RequestId};
use crate::limits::{FETCH_SIZE_MAX, FETCH_TURN_SIZE_MAX, FETCH_WAITING_MAX, READ_PENDING_MAX};
use crate::raft::TransferRefusal;

use super::group::FetchRequest;
use super::load::Purpose;
use super::locate::{Found, Job, Step, Want};
use super::{Effect, Effects, Shard};

/// What a busy shard asks a reader to wait before it tries again.
const RETRY_AFTER_US: u32 = 5_000;

impl Shard {
    pub(super) fn on_fetch(
        &mut self,
        now: Nanos,
        connection: ConnectionId,
        body: &ArchivedFetch,
        effects: &mut Effects,
    ) {
        let wait = Nanos::from_micros(u64::from(body.wait_us.to_native()));
        let request = FetchRequest {
            connection,
            request: RequestId(body.request.to_native()),
            from: Offset(body.from.to_native()),
            size_max: body.size_max.to_native().min(FETCH_SIZE_MAX),
            deadline: now.after(wait),
            // A mode this version does not know is answered by the strongest.
            mode: ReadMode::from_code(body.mode).unwrap_or(ReadMode::Linearizable),
        };
        let Some(&position) = self.positions.get(&GroupId(body.group.to_native())) else {
            self.reply_fetch(None, &request, FetchOutcome::UnknownLog, effects);
            return;
        };
        if request.mode != ReadMode::Linearizable || bugs::is_on(Switch::B41) {
            self.serve_fetch(now, position, request, effects);
            return;
        }
        if !self.groups[position].raft.is_leader() {
            self.reply_fetch(Some(position), &request, FetchOutcome::NotLeader, effects);
            return;
        }
        if self.groups[position].reading.len() >= READ_PENDING_MAX {
            self.reply_fetch(Some(position), &request, FetchOutcome::Busy, effects);
            return;
        }
        // A number is never used twice, so a late answer to an old round serves no new read (B43).
        self.next_read += 1;
        let id = self.next_read;
        self.groups[position].reading.insert(id, request);
        self.tell_raft(now, position, effects, |raft, out| raft.read(now, id, out));
    }

    /// A quorum confirmed this leader after the read arrived: all it must see is committed here.
    pub(super) fn on_read_ready(
        &mut self,
        now: Nanos,
        position: usize,
        id: u64,
        index: Index,
        effects: &mut Effects,
    ) {
        assert!(self.groups[position].raft.commit() >= index);
        if let Some(request) = self.groups[position].reading.remove(&id) {
            let request = FetchRequest {
                mode: ReadMode::Committed,
                ..request
            };
            self.serve_fetch(now, position, request, effects);
        }
    }

    pub(super) fn on_read_failed(&mut self, position: usize, id: u64, effects: &mut Effects) {
        if let Some(request) = self.groups[position].reading.remove(&id) {
            self.reply_fetch(Some(position), &request, FetchOutcome::NotLeader, effects);
        }
    }

    /// Answers, reads, or parks a fetch that needs no (further) confirmation.
    fn serve_fetch(
        &mut self,
        now: Nanos,
        position: usize,
        request: FetchRequest,
        effects: &mut Effects,
    ) {
        let is_busy = self.is_reading_enough();
        let group = &mut self.groups[position];
        if group.agreement.is_stopped() {
            // What is here is not what a majority holds; others are asked.
            self.reply_fetch(Some(position), &request, FetchOutcome::Damaged, effects);
            return;
        }
        if request.mode != ReadMode::AnyReplica && !group.raft.is_leader() {
            self.reply_fetch(Some(position), &request, FetchOutcome::NotLeader, effects);
            return;
        }
        let end = group.end_offset();
        if request.from < group.trims.start() {
            self.reply_fetch(Some(position), &request, FetchOutcome::Trimmed, effects);
        } else if request.from > end {
            self.reply_fetch(Some(position), &request, FetchOutcome::BeyondEnd, effects);
        } else if request.from < end && is_busy {
            self.reply_fetch(Some(position), &request, FetchOutcome::Busy, effects);
        } else if request.from < end {
            let commit = group.raft.commit();
            let job = Job::new(
                &self.shape,
                Want::Offset(request.from),
                commit,
                request.size_max as usize,
            );
            self.start_load(now, Purpose::Fetch { position, request }, job, effects);
        } else if request.deadline <= now {
            self.reply_fetch(Some(position), &request, FetchOutcome::Ok, effects);
        } else if group.waiting.len() >= FETCH_WAITING_MAX {
            self.reply_fetch(Some(position), &request, FetchOutcome::Busy, effects);
        } else {
            group.waiting.push(request);
        }
    }

    /// Whether reads have had their share of this turn's memory, or of the disk.
    fn is_reading_enough(&self) -> bool {
        self.loads.is_busy() || self.fetched_size >= FETCH_TURN_SIZE_MAX
    }

    /// The commit index moved, the leader changed, or time passed: waiting fetches look again.
    pub(super) fn wake_waiting(&mut self, now: Nanos, position: usize, effects: &mut Effects) {
        // Those beyond a turn's share wait for the next one.
        if self.groups[position].waiting.is_empty() || self.is_reading_enough() {
            return;
        }
        let group = &mut self.groups[position];
        let end = group.end_offset();
        let is_leader = group.raft.is_leader();
        let is_stopped = group.agreement.is_stopped();
        let woken: Vec<FetchRequest> = group
            .waiting
            .extract_if(.., |request| {
                let leaderless = request.mode != ReadMode::AnyReplica && !is_leader;
                request.from < end || request.deadline <= now || leaderless || is_stopped
            })
            .collect();
        for request in woken {
            self.serve_fetch(now, position, request, effects);
        }
    }

    pub(super) fn on_fetch_step(
        &mut self,
        position: usize,
        request: &FetchRequest,
        step: Step,
        effects: &mut Effects,
    ) {
        match step {
            Step::Found(found) => self.reply_blocks(position, request, found, effects),
            // The position was below the end, so the blocks were there: only a cut by a new leader
            // of what was never committed could end so, and that is not read; or a trim meanwhile.
            Step::Absent | Step::Damaged(_) => {
                let is_trimmed = request.from < self.groups[position].trims.start();
                let outcome = if is_trimmed {
                    FetchOutcome::Trimmed
                } else {
                    FetchOutcome::Damaged
                };
                self.reply_fetch(Some(position), request, outcome, effects);
            }
            Step::Read { .. } | Step::Indexed => {
                unreachable!("a read is asked for by whoever owns the job")
            }
        }
    }

    fn reply_blocks(
        &mut self,
        position: usize,
        request: &FetchRequest,
        found: Found,
        effects: &mut Effects,
    ) {
        let reply = self.fetch_reply(Some(position), request, FetchOutcome::Ok);
        // Copied, once: a slice would hold its arena for as long as the reader does not read, and
        // a handful of readers that stopped would hold all the memory that appends need.
        let mut payload = BytesMut::with_capacity(found.size());
        found
            .slices
            .iter()
            .for_each(|slice| payload.put_slice(slice));
        self.fetched_size += payload.len();
        let frame = self
            .encoder
            .frame_with_blocks(&reply, vec![payload.freeze()]);
        let busy = self.fetch_reply(Some(position), request, FetchOutcome::Busy);
        effects.push(Effect::Reply {
            connection: request.connection,
            frame,
            or_busy: Some(self.encoder.frame(&busy)),
        });
    }

    fn reply_fetch(
        &mut self,
        position: Option<usize>,
        request: &FetchRequest,
        outcome: FetchOutcome,
        effects: &mut Effects,
    ) {
        let reply = self.fetch_reply(position, request, outcome);
        self.reply(request.connection, &reply, effects);
    }

    fn fetch_reply(
        &self,
        position: Option<usize>,
        request: &FetchRequest,
        outcome: FetchOutcome,
    ) -> FetchReply {
        let group = position.map(|position| &self.groups[position]);
        let retry_after_us = if outcome == FetchOutcome::Busy {
            RETRY_AFTER_US
        } else {
            0
        };
        FetchReply {
            request: request.request.0,
            end_offset: group.map_or(0, |group| group.end_offset().0),
            first_offset: group.map_or(0, |group| group.trims.start().0),
            term: group.map_or(0, |group| group.raft.term().0),
            leader: group
                .and_then(|group| group.raft.leader())
                .unwrap_or_default()
                .0,
            retry_after_us,
            outcome: outcome.code(),
        }
    }

    pub(super) fn on_transfer(
        &mut self,
        now: Nanos,
        connection: ConnectionId,
        body: &ArchivedTransfer,
        effects: &mut Effects,
    ) {
        let to = NodeId(body.to.to_native());
        let mut leader = 0;
        let outcome = match self.positions.get(&GroupId(body.group.to_native())) {
            None => TransferOutcome::UnknownLog,
            Some(&position) => {
                let mut result = Ok(());
                self.tell_raft(now, position, effects, |raft, out| {
                    result = raft.transfer(now, to, out);
                });
                leader = self.groups[position].raft.leader().unwrap_or_default().0;
                match result {
                    Ok(()) => TransferOutcome::Started,
                    Err(TransferRefusal::NotLeader { .. }) => TransferOutcome::NotLeader,
                    Err(TransferRefusal::UnknownVoter) => TransferOutcome::NotVoter,
                    Err(TransferRefusal::AlreadyLeader) => TransferOutcome::Done,
                    Err(TransferRefusal::Silent { .. }) => TransferOutcome::TimedOut,
                    Err(TransferRefusal::InProgress { .. }) => TransferOutcome::Busy,
                }
            }
        };
        let request = body.request.to_native();
        let reply = TransferReply {
            request,
            leader,
            outcome: outcome.code(),
        };
        self.reply(connection, &reply, effects);
    }
}
