//! What peers say: heartbeats, blocks, votes. Bodies become Raft's plain messages here; the blocks
//! of an AppendEntries are checked, then copied once, verbatim, into the open run.

use crate::bugs::{self, Switch};
use crate::frame::message::Message;
use crate::frame::peer::{
    self as body, ArchivedAppendEntries, ArchivedHeartbeat, ArchivedHeartbeatAck, Heartbeat,
    HeartbeatAck,
};
use crate::frame::{Frame, Lane};
use crate::id::{GroupId, Index, Nanos, NodeId, Term};
use crate::log::block::{BLOCK_HEADER_SIZE, Block, BlockKind, blocks};
use crate::log::{Doubt, Entry};
use crate::raft::{self, AppendRequest, BlockId, Outbox, Raft};

use super::answer::Inquirer;
use super::liveness::Word;
use super::{Effects, Shard};

impl Shard {
    /// A frame of an identified peer, of a kind that has its place on the lane it came on.
    pub(super) fn on_peer_message(
        &mut self,
        now: Nanos,
        from: NodeId,
        message: &Message<'_>,
        frame: &Frame<'_>,
        effects: &mut Effects,
    ) {
        match message {
            Message::Heartbeat(body) => self.on_heartbeat(now, from, body, effects),
            Message::HeartbeatAck(body) => self.on_heartbeat_ack(now, from, body, effects),
            Message::AppendEntries(body) => {
                self.on_append_entries(now, from, body, frame, effects);
            }
            Message::Restore(body) => self.on_restore(now, from, body, frame, effects),
            Message::AppendEntriesAck(body) => {
                let message = raft::Message::AppendAck {
                    term: Term(body.term.to_native()),
                    matched: body.matched == 1,
                    index: Index(body.index.to_native()),
                    conflict_term: Term(body.conflict_term.to_native()),
                    prev_index: Index(body.prev_index.to_native()),
                };
                self.on_raft_message(now, from, body.group.to_native(), message, effects);
            }
            Message::VoteRequest(body) => {
                let message = raft::Message::VoteRequest {
                    pre: body.pre == 1,
                    transfer: body.transfer == 1,
                    term: Term(body.term.to_native()),
                    last_index: Index(body.last_index.to_native()),
                    last_term: Term(body.last_term.to_native()),
                };
                self.on_raft_message(now, from, body.group.to_native(), message, effects);
            }
            Message::VoteReply(body) => {
                let message = raft::Message::VoteReply {
                    pre: body.pre == 1,
                    granted: body.granted == 1,
                    term: Term(body.term.to_native()),
                    voter_term: Term(body.voter_term.to_native()),
                };
                self.on_raft_message(now, from, body.group.to_native(), message, effects);
            }
            Message::TimeoutNow(body) => {
                let message = raft::Message::TimeoutNow {
                    term: Term(body.term.to_native()),
                };
                self.on_raft_message(now, from, body.group.to_native(), message, effects);
            }
            Message::BlockRequest(body) => {
                self.on_block_request(now, Inquirer::Peer(from), body, effects);
            }
            Message::BlockReply(body) => self.on_block_reply(now, from, body, frame, effects),
            Message::StateReport(body) => {
                let message = raft::Message::StateReport(raft::Report {
                    number: body.number.to_native(),
                    term: Term(body.term.to_native()),
                    last_index: Index(body.last_index.to_native()),
                    last_term: Term(body.last_term.to_native()),
                    commit: Index(body.commit.to_native()),
                    // What is not known is the worst.
                    doubt: Doubt::from_code(body.doubt).unwrap_or(Doubt::ALL),
                    is_leader: body.is_leader == 1,
                    is_reply: body.is_reply == 1,
                });
                self.on_raft_message(now, from, body.group.to_native(), message, effects);
            }
            Message::BlockSums(body) => self.on_block_sums(now, from, body, effects),
            Message::Referral(body) => self.on_referral(now, from, body, effects),
            Message::ReferralEnd(body) => self.on_referral_end(now, from, body, effects),
            _ => unreachable!("nothing else passes a peer's gate"),
        }
    }

    /// A group of which this node has a replica that takes part.
    pub(super) fn part_in(&self, group: GroupId) -> Option<usize> {
        let position = *self.positions.get(&group)?;
        let is_stopped = self.groups[position].agreement.is_stopped();
        (!is_stopped).then_some(position)
    }

    fn on_raft_message(
        &mut self,
        now: Nanos,
        from: NodeId,
        group: u32,
        message: raft::Message,
        effects: &mut Effects,
    ) {
        let group = GroupId(group);
        let Some(&position) = self.positions.get(&group) else {
            return;
        };
        let is_question = matches!(message, raft::Message::VoteRequest { .. });
        if is_question && now.since(self.planned) >= self.liveness.timeouts().heartbeat {
            // What is beyond one of each peer and group counts as lost, and is asked again.
            if self.questions.len() < self.peers.len() * self.groups.len() {
                self.questions.push((from, group, message));
            }
            return;
        }
        self.step_raft(now, from, position, message, effects);
    }

    /// Answers what was asked while the loop stood still, now that all that came with it has been
    /// heard. The leader's word may have lain behind the question, on another link: to this node it
    /// would have looked silent, and it would have helped to replace it.
    pub(super) fn answer_questions(&mut self, now: Nanos, effects: &mut Effects) {
        for (from, group, message) in std::mem::take(&mut self.questions) {
            let position = self.positions[&group];
            self.step_raft(now, from, position, message, effects);
        }
    }

    fn step_raft(
        &mut self,
        now: Nanos,
        from: NodeId,
        position: usize,
        message: raft::Message,
        effects: &mut Effects,
    ) {
        if self.groups[position].agreement.is_stopped() {
            return;
        }
        let step = |raft: &mut Raft, out: &mut Outbox| raft.step(now, from, message, out);
        match message {
            raft::Message::AppendAck { term, .. } => {
                self.pass_to_raft(now, position, term, effects, step);
            }
            // Votes are persisted, asked for or given.
            _ => self.with_raft(now, position, effects, step),
        }
    }

    fn on_heartbeat(
        &mut self,
        now: Nanos,
        from: NodeId,
        body: &ArchivedHeartbeat,
        effects: &mut Effects,
    ) {
        let word = Word {
            timeout: Nanos(body.timeout.to_native()),
            write_span: Nanos(body.write_span.to_native().max(body.write_age.to_native())),
        };
        self.liveness.on_heartbeat(now, from, word);
        let mut acks = Vec::with_capacity(body.beats.len());
        for beat in body.beats.iter() {
            let group = beat.group.to_native();
            let Some(position) = self.part_in(GroupId(group)) else {
                continue;
            };
            let beat = raft::Beat {
                term: Term(beat.term.to_native()),
                commit: Index(beat.commit.to_native()),
                durable: Index(beat.durable.to_native()),
                round: beat.round.to_native(),
            };
            let mut ack = None;
            self.pass_to_raft(now, position, beat.term, effects, |raft, out| {
                ack = Some(raft.on_beat(now, from, &beat, out));
            });
            let Some(ack) = ack else { continue };
            acks.push(body::BeatAck {
                group,
                term: ack.term.0,
                round: ack.round,
                durable: ack.durable.0,
            });
        }
        // No write is awaited. The answer says that no vote of this node for a later term has left
        // it, and such a vote leaves only once durable; `durable` speaks of durable blocks only.
        let frame = self.encoder.frame(&HeartbeatAck {
            echo: body.sent_at.to_native(),
            acks,
        });
        self.send(from, Lane::Control, frame, effects);
    }

    fn on_heartbeat_ack(
        &mut self,
        now: Nanos,
        from: NodeId,
        body: &ArchivedHeartbeatAck,
        effects: &mut Effects,
    ) {
        let late = now.since(self.planned);
        self.liveness
            .on_echo(now, late, from, Nanos(body.echo.to_native()));
        for ack in body.acks.iter() {
            let Some(position) = self.part_in(GroupId(ack.group.to_native())) else {
                continue;
            };
            let ack = raft::BeatAck {
                term: Term(ack.term.to_native()),
                round: ack.round.to_native(),
                durable: Index(ack.durable.to_native()),
            };
            self.pass_to_raft(now, position, ack.term, effects, |raft, out| {
                raft.on_beat_ack(now, from, &ack, out)
            });
        }
    }

    /// Blocks from a leader: all are checked before any is believed, then Raft says which are new.
    fn on_append_entries(
        &mut self,
        now: Nanos,
        from: NodeId,
        body: &ArchivedAppendEntries,
        frame: &Frame<'_>,
        effects: &mut Effects,
    ) {
        let group = GroupId(body.group.to_native());
        let Some(position) = self.part_in(group) else {
            return;
        };
        let prev_index = Index(body.prev_index.to_native());
        let payload = frame.payload().contiguous();
        let Ok(checked) = check_blocks(&payload, group, prev_index, body.count.to_native()) else {
            // The stream's sums held, so the leader's own bytes are bad; it will be asked again.
            self.peer_fault_count += 1;
            return;
        };
        if let Some(last) = checked.last() {
            let first = prev_index.next();
            self.pulls.on_sent(position, first, last.header().index);
        }
        let claim = Claim {
            giver: Giver::Leader(from),
            term: Term(body.term.to_native()),
            prev_index,
            prev_term: Term(body.prev_term.to_native()),
            commit: Index(body.commit.to_native()),
        };
        self.take_blocks(now, position, &claim, &checked, effects);
    }

    /// Tells Raft of checked blocks, and copies those that are new.
    pub(super) fn take_blocks(
        &mut self,
        now: Nanos,
        position: usize,
        claim: &Claim,
        checked: &[Block<'_>],
        effects: &mut Effects,
    ) {
        // Where there is no room Raft is told only of blocks that are here already, and of what is
        // decided. It would cut what contradicts the others, and nothing would stand in its place.
        // Of those that are here it must be told: else a node whose journal is full of blocks that
        // it does not know to be decided never learns that they are, and so never makes room.
        let in_reserve = checked
            .first()
            .is_some_and(|block| matches!(block.header().kind, BlockKind::NoOp | BlockKind::Trim));
        let ahead = self.room.ahead_of(now, position);
        let count = if in_reserve || self.journal.takes_copies(ahead) {
            checked.len()
        } else {
            let tail = self.groups[position].tail();
            let is_here = |block: &&Block<'_>| {
                tail.term_at(block.header().index) == Some(block.header().term)
            };
            checked.iter().take_while(is_here).count()
        };
        let ids: Vec<BlockId> = checked[..count]
            .iter()
            .map(|block| BlockId {
                index: block.header().index,
                term: block.header().term,
            })
            .collect();
        let request = AppendRequest {
            term: claim.term,
            prev_index: claim.prev_index,
            prev_term: claim.prev_term,
            commit: claim.commit,
            blocks: &ids,
        };
        let mut accepted = None;
        self.pass_to_raft(now, position, request.term, effects, |raft, out| {
            accepted = match claim.giver {
                Giver::Leader(leader) => raft.append_entries(now, leader, &request, out),
                Giver::Source => raft.append_decided(now, &request, out),
            };
        });
        let mut is_short =
            count < checked.len() && request.term == self.groups[position].raft.term();
        let Some(accepted) = accepted else {
            self.note_room(now, position, is_short, false);
            return;
        };
        let mut entries: Vec<Entry> = Vec::with_capacity(checked.len());
        let tail = self.groups[position].tail();
        let mut link = (tail.next_offset(), tail.last_sum());
        for block in &checked[accepted.skip..] {
            // Raft matched index and term; a leader that counts records otherwise, or made its
            // block behind another one, has diverged from this log, and nothing of it is taken.
            let header = block.header();
            if (header.first_offset, header.previous_sum) != link {
                self.peer_fault_count += 1;
                break;
            }
            link = (header.next_offset(), header.sum);
            // The journal is full, or what room it has is others': what was copied so far is kept, the
            // rest comes again.
            let is_left_out = ahead > 0 && !in_reserve && !self.journal.takes_copies(ahead);
            let copied = (!is_left_out).then(|| self.journal.copy_block(block));
            let Some(entry) = copied.flatten() else {
                is_short = true;
                break;
            };
            self.groups[position].producers.note_block(block);
            self.groups[position].trims.note_block(block);
            self.undecided_size += u64::from(entry.size);
            entries.push(entry);
        }
        self.note_room(now, position, is_short, !entries.is_empty());
        let Some(first) = entries.first() else {
            return;
        };
        let group = &mut self.groups[position];
        group.need.on_put(first.place.lsn);
        // What is behind a hole is overruled, here and for the next recovery.
        group.holes = None;
        let tell = |raft: &mut Raft, out: &mut Outbox| raft.appended(now, &entries, out);
        if bugs::is_on(Switch::R6) {
            self.with_raft(now, position, effects, tell);
        } else {
            self.tell_raft(now, position, effects, tell);
        }
    }

    /// Blocks of a group came and found room, all of them or not.
    fn note_room(&mut self, now: Nanos, position: usize, is_short: bool, has_some: bool) {
        if is_short {
            // Its leader asks again some time before it would be replaced.
            let until = now.after(self.liveness.timeouts().election);
            self.room.turned_away(now, position, has_some, until);
        } else if has_some {
            self.room.served(position);
        }
    }

    /// One heartbeat to every peer, for all groups this shard leads.
    ///
    /// None is sent while the journal takes nothing more: a disk that hangs would otherwise keep a
    /// leader in office that can neither vote, nor step down, nor commit (D10).
    pub(super) fn send_heartbeats(&mut self, now: Nanos, effects: &mut Effects) {
        if self.journal.open_lsn().is_none() {
            return;
        }
        let beats: Vec<body::Beat> = self
            .groups
            .iter()
            .filter_map(|group| {
                group.raft.beat().map(|beat| body::Beat {
                    group: group.id.0,
                    term: beat.term.0,
                    commit: beat.commit.0,
                    durable: beat.durable.0,
                    round: beat.round,
                })
            })
            .collect();
        let timeout = self.liveness.timeouts().election.0;
        let frame = self.encoder.frame(&Heartbeat {
            sent_at: now.0,
            timeout,
            write_age: self.stall.writes.age(now).0,
            write_span: self.stall.writes.span(now).0,
            beats,
        });
        for position in 0..self.peers.len() {
            self.send(self.peers[position], Lane::Control, frame.clone(), effects);
        }
    }
}

/// Who gave blocks.
#[derive(Clone, Copy, Debug)]
pub(super) enum Giver {
    /// The leader: that is its word, too.
    Leader(NodeId),
    /// Another replica, by the leader's word.
    Source,
}

/// What a leader says of blocks, of its own or of another replica's.
#[derive(Clone, Copy, Debug)]
pub(super) struct Claim {
    pub(super) giver: Giver,
    pub(super) term: Term,
    pub(super) prev_index: Index,
    pub(super) prev_term: Term,
    pub(super) commit: Index,
}

/// What is wrong with a payload of blocks.
#[derive(Debug)]
pub(super) enum BlocksFault {
    Damaged,
    OutOfPlace,
    Count,
}

/// Every block of a payload, whole and in sequence after `prev_index`.
pub(super) fn check_blocks(
    payload: &[u8],
    group: GroupId,
    prev_index: Index,
    count: u32,
) -> Result<Vec<Block<'_>>, BlocksFault> {
    let mut checked = Vec::with_capacity((count as usize).min(payload.len() / BLOCK_HEADER_SIZE));
    if prev_index.0 > u64::MAX - u64::from(count) - 1 && !bugs::is_on(Switch::B79) {
        return Err(BlocksFault::OutOfPlace);
    }
    let mut expected = prev_index.next();
    for block in blocks(payload) {
        let block = block.map_err(|_| BlocksFault::Damaged)?;
        if block.header().group != group || block.header().index != expected {
            return Err(BlocksFault::OutOfPlace);
        }
        expected = expected.next();
        checked.push(block);
    }
    if checked.len() != count as usize {
        return Err(BlocksFault::Count);
    }
    Ok(checked)
}
