//! Answers to peers whose disks have lost blocks, and to tools that mend the files of a node that is
//! stopped. Whoever has the blocks gives them, whatever its role.
//!
//! A block is named by its index and its sum, so it need not be decided to be given: who asks knows
//! which one it lost. Whoever asks for blocks from before this log's first one is told where that
//! begins, as a follower is that is so far behind. Keeps nothing between request and answer: `chunks` says whose turn it is. Knows no
//! repair; the other side of this is `ask`.

use bytes::Bytes;

use crate::frame::Lane;
use crate::frame::code::BlockOutcome;
use crate::frame::peer::{ArchivedBlockRequest, BlockReply};
use crate::id::{ConnectionId, GroupId, Index, Nanos, NodeId};
use crate::log::block::blocks;

use super::group::Group;
use super::locate::{Found, Step};
use super::restore::Whom;
use super::{Effect, Effects, Shard};

/// Who asks, and so where the answer goes.
#[derive(Clone, Copy, Debug)]
pub(super) enum Inquirer {
    Peer(NodeId),
    Client(ConnectionId),
}

/// A request as it came.
#[derive(Clone, Copy, Debug)]
pub(super) struct BlockRequest {
    from: Inquirer,
    number: u64,
    group: GroupId,
    first: Index,
    last: Index,
    sum: u32,
}

impl BlockRequest {
    /// First and last block asked for.
    pub(super) fn range(&self) -> (Index, Index) {
        (self.first, self.last)
    }
}

impl Shard {
    pub(super) fn on_block_request(
        &mut self,
        now: Nanos,
        from: Inquirer,
        body: &ArchivedBlockRequest,
        effects: &mut Effects,
    ) {
        let request = BlockRequest {
            from,
            number: body.number.to_native(),
            group: GroupId(body.group.to_native()),
            first: Index(body.first.to_native()),
            last: Index(body.last.to_native()),
            sum: body.sum.to_native(),
        };
        if request.last < request.first || request.last == Index(0) {
            self.peer_fault_count += 1;
            return;
        }
        let position = self.positions.get(&request.group).copied();
        let position = position
            .filter(|position| may_have(&self.groups[*position], request.last, request.sum));
        let known = self.positions.get(&request.group);
        let is_lost = known.is_some_and(|known| {
            let raft = &self.groups[*known].raft;
            raft.doubt().lacks_blocks() && request.last > raft.last()
        });
        match position {
            // It may have been here.
            None if is_lost => self.reply_no_blocks(&request, BlockOutcome::Lost, effects),
            None => self.reply_no_blocks(&request, BlockOutcome::Absent, effects),
            Some(_) if self.loads.is_busy() => {
                self.reply_no_blocks(&request, BlockOutcome::Busy, effects);
            }
            Some(position) if self.is_below_start(position, request.first) => {
                if self.groups[position].is_front_lost() {
                    self.reply_no_blocks(&request, BlockOutcome::Lost, effects);
                } else {
                    self.load_head(now, position, Whom::Inquirer(request), effects);
                }
            }
            Some(position) => {
                if !self.want_answer(position, request) {
                    self.reply_no_blocks(&request, BlockOutcome::Busy, effects);
                }
            }
        }
    }

    pub(super) fn on_answer_step(
        &mut self,
        request: &BlockRequest,
        step: Step,
        effects: &mut Effects,
    ) {
        self.end_chunk(match &step {
            Step::Found(found) => found.size(),
            _ => 0,
        });
        match step {
            Step::Found(found) if is_another(&found, request) => {
                self.reply_no_blocks(request, BlockOutcome::Absent, effects);
            }
            Step::Found(found) => {
                let count = found.count();
                self.reply_to_request(request, BlockOutcome::Found, count, found.slices, effects);
            }
            Step::Absent => self.reply_no_blocks(request, BlockOutcome::Absent, effects),
            Step::Damaged(_) => self.reply_no_blocks(request, BlockOutcome::Lost, effects),
            Step::Read { .. } | Step::Indexed => {
                unreachable!("a read is asked for by whoever owns the job")
            }
        }
    }

    /// They are not kept any more; the log begins with this head.
    pub(super) fn reply_trimmed(
        &mut self,
        request: &BlockRequest,
        head: Option<Bytes>,
        effects: &mut Effects,
    ) {
        let payload = Vec::from_iter(head);
        self.reply_to_request(request, BlockOutcome::Trimmed, 0, payload, effects);
    }

    fn reply_no_blocks(
        &mut self,
        request: &BlockRequest,
        outcome: BlockOutcome,
        effects: &mut Effects,
    ) {
        self.reply_to_request(request, outcome, 0, Vec::new(), effects);
    }

    fn reply_to_request(
        &mut self,
        request: &BlockRequest,
        outcome: BlockOutcome,
        count: u32,
        payload: Vec<Bytes>,
        effects: &mut Effects,
    ) {
        let body = BlockReply {
            number: request.number,
            first: request.first.0,
            group: request.group.0,
            count,
            outcome: outcome.code(),
        };
        let frame = self.encoder.frame_with_blocks(&body, payload);
        match request.from {
            Inquirer::Peer(peer) => self.send(peer, Lane::Bulk, frame, effects),
            Inquirer::Client(connection) => effects.push(Effect::Reply {
                connection,
                frame,
                or_busy: None,
            }),
        }
    }
}

/// Whether the block may be here, by what memory knows: not above the end, and not where memory has
/// another. Below the base only reading tells.
fn may_have(group: &Group, last: Index, sum: u32) -> bool {
    let tail = group.tail();
    let base = tail.base();
    let known = match tail.entry(last) {
        Some(entry) => Some(entry.sum),
        None => (last == base.index).then_some(base.sum),
    };
    last <= tail.last_index() && known.is_none_or(|known| known == sum)
}

/// Whether what was read ends with another block than the one asked for.
fn is_another(found: &Found, request: &BlockRequest) -> bool {
    let last = found.slices.iter().flat_map(|slice| blocks(slice)).last();
    let last = last.and_then(Result::ok).map(|block| *block.header());
    found.last == request.last && last.is_none_or(|header| header.sum != request.sum)
}
