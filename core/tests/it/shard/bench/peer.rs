//! The other voters: what they say to what they are sent, and unasked.
//!
//! They keep every block that they are sent and agree to everything, until a test says otherwise.
//! Know no log: what they say that they have is what they were sent.

use bytes::Bytes;
use ringwood_core::frame::Lane;
use ringwood_core::frame::code::BlockOutcome;
use ringwood_core::frame::message::{Body, Message};
use ringwood_core::frame::peer::{
    AppendEntriesAck, Beat, BeatAck, BlockReply, BlockRequest, BlockSum, BlockSums, Heartbeat,
    HeartbeatAck, Referral, ReferralEnd, Restore, VoteReply,
};
use ringwood_core::id::{ConnectionId, Nanos, NodeId};
use ringwood_core::log::block::blocks;
use ringwood_core::log::segment::SegmentHeader;
use ringwood_core::shard::{Input, Outgoing};

use super::{BULK, Bench, PEER, SHAPE, THIRD, THIRD_BULK, assembler_of, frame_of};

impl Bench {
    /// A block that the peer was sent.
    pub(crate) fn sent(&self, group: u32, index: u64) -> Bytes {
        self.blocks[&(group, index)].clone()
    }

    /// The peer lacks all of a log, and nobody knows: this node leads anew.
    pub(crate) fn lead_an_empty_peer(&mut self, group: u32) {
        self.matched.insert((NodeId(2), group), 0);
        self.restart();
    }

    /// Through where the peer has a log.
    pub(crate) fn matched(&self, group: u32) -> u64 {
        self.matched
            .get(&(NodeId(2), group))
            .copied()
            .unwrap_or_default()
    }

    /// The third node comes, and both peers say heartbeats from now on.
    pub(crate) fn join_third(&mut self) {
        self.has_third = true;
        self.greet(THIRD, 3);
        self.greet_on(THIRD_BULK, 3, Lane::Bulk);
        self.step(Input::PeerConnected(NodeId(3)));
        self.turns(200);
    }

    /// The last block of a log that the peer was sent.
    pub(crate) fn last_block(&self, group: u32) -> Bytes {
        let mut sent = self.blocks.range((group, 0)..=(group, u64::MAX));
        sent.next_back().expect("it was sent some").1.clone()
    }

    /// The second node leads, and has all through `commit`.
    pub(crate) fn say_beat(&mut self, term: u64, group: u32, commit: u64) {
        let beat = Beat {
            term,
            commit,
            durable: commit,
            round: 0,
            group,
        };
        let heartbeat = Heartbeat {
            sent_at: self.now.0,
            timeout: Nanos::from_millis(30).0,
            write_age: 0,
            write_span: self.write_span.0,
            beats: vec![beat],
        };
        self.say(PEER, &heartbeat, &[]);
    }

    /// The links to the peer are new.
    pub(crate) fn reconnect_peer(&mut self) {
        self.step(Input::PeerConnected(NodeId(2)));
    }

    /// The peer says that it has all of a log through here.
    pub(crate) fn say_matched(&mut self, referral: &Referral, index: u64) {
        self.matched.insert((NodeId(2), referral.group), index);
        let ack = AppendEntriesAck {
            term: referral.term,
            index,
            conflict_term: 0,
            prev_index: index,
            group: referral.group,
            matched: 1,
        };
        self.say(PEER, &ack, &[]);
    }

    /// What the peers say unasked.
    pub(super) fn say_heartbeats(&mut self) {
        let heartbeat = Heartbeat {
            sent_at: self.now.0,
            timeout: Nanos::from_millis(30).0,
            write_age: 0,
            write_span: self.write_span.0,
            beats: Vec::new(),
        };
        if self.away != Some(NodeId(2)) {
            self.say(PEER, &heartbeat, &[]);
        }
        self.say(THIRD, &heartbeat, &[]);
    }

    /// What a peer says to a frame.
    pub(super) fn answer(&mut self, node: NodeId, lane: Lane, frame: &Outgoing) {
        if self.away == Some(node) {
            return;
        }
        let peer = if node == NodeId(2) { PEER } else { THIRD };
        let bytes = [&frame.head[..], &frame.payload.concat()[..]].concat();
        let mut assembler = assembler_of(Bytes::from(bytes));
        let frame = frame_of(&mut assembler);
        match frame.message().expect("a good body") {
            Message::TimeoutNow(request) => {
                self.successors.push((node, request.group.to_native()));
            }
            Message::VoteRequest(request) => {
                self.candidacies += 1;
                let term = request.term.to_native();
                let reply = VoteReply {
                    term,
                    voter_term: term - u64::from(request.pre),
                    group: request.group.to_native(),
                    pre: request.pre,
                    granted: 1,
                };
                self.say(peer, &reply, &[]);
            }
            Message::Restore(body) => {
                let body = Restore::owned(body).expect("a good body");
                let head = frame.payload().contiguous().into_owned();
                let header = SegmentHeader::check(&head).expect("a good head");
                let index = header.first_index.0 - 1;
                self.restores.push((body, head));
                self.matched.insert((node, body.group), index);
                let ack = AppendEntriesAck {
                    term: body.term,
                    index,
                    conflict_term: 0,
                    prev_index: index,
                    group: body.group,
                    matched: 1,
                };
                self.say(peer, &ack, &[]);
            }
            Message::AppendEntriesAck(ack) if ack.matched == 1 => {
                self.acked
                    .insert(ack.group.to_native(), ack.index.to_native());
            }
            Message::VoteReply(reply) => self.votes_granted += u64::from(reply.granted),
            Message::Heartbeat(heartbeat) => {
                self.led = heartbeat.beats.len();
                let ack = |beat: &ringwood_core::frame::peer::ArchivedBeat| {
                    let group = beat.group.to_native();
                    let matched = self
                        .matched
                        .get(&(node, group))
                        .copied()
                        .unwrap_or_default();
                    BeatAck {
                        term: beat.term.to_native(),
                        round: beat.round.to_native(),
                        durable: if self.deaf.contains(&group) {
                            0
                        } else {
                            matched
                        },
                        group,
                    }
                };
                let acks = heartbeat.beats.iter().map(ack).collect();
                let echo = heartbeat.sent_at.to_native();
                let echo = echo.saturating_sub(self.distance.0);
                self.say(peer, &HeartbeatAck { echo, acks }, &[]);
            }
            Message::AppendEntries(request) => {
                let group = request.group.to_native();
                let count = request.count.to_native();
                if lane == Lane::Bulk {
                    self.chunks.push(request.prev_index.to_native() + 1);
                }
                assert_eq!(
                    blocks(&frame.payload().contiguous())
                        .filter(Result::is_ok)
                        .count(),
                    count as usize,
                    "blocks are sent as they were made"
                );
                if self.deaf.contains(&group) {
                    return;
                }
                for block in blocks(&frame.payload().contiguous()) {
                    let block = block.expect("seen just now");
                    let key = (group, block.header().index.0);
                    let bytes = Bytes::copy_from_slice(block.bytes());
                    self.blocks.insert(key, bytes);
                }
                let matched = self.matched.entry((node, group)).or_default();
                let prev_index = request.prev_index.to_native();
                let is_known = prev_index <= *matched;
                if is_known {
                    *matched = (*matched).max(prev_index + u64::from(count));
                }
                let ack = AppendEntriesAck {
                    term: request.term.to_native(),
                    index: *matched,
                    conflict_term: 0,
                    prev_index,
                    group,
                    matched: u8::from(is_known),
                };
                self.say(peer, &ack, &[]);
            }
            Message::BlockReply(reply) => {
                let outcome = BlockOutcome::from_code(reply.outcome).expect("a known outcome");
                let payload = frame.payload().contiguous().into_owned();
                self.given.push(outcome);
                self.block_reply = Some((outcome, payload));
            }
            Message::BlockSums(body) => {
                self.sums_count += u64::from(node == NodeId(2));
                for word in body.sums.iter().filter(|word| word.is_asked == 1) {
                    self.tell_sum(node, word.group.to_native(), word.index.to_native());
                }
            }
            Message::Referral(body) => {
                self.referrals
                    .push(Referral::owned(body).expect("a good body"));
            }
            Message::ReferralEnd(body) => {
                let body = ReferralEnd::owned(body).expect("a good body");
                self.referrals_ended.push(body);
            }
            Message::BlockRequest(request) => {
                self.ask_count += 1;
                let request_owned = BlockRequest::owned(request).expect("a good body");
                self.asked.push((node, request_owned));
                if self.is_source_mute {
                    return;
                }
                let group = request.group.to_native();
                let wanted = request.first.to_native()..=request.last.to_native();
                let (first_kept, head) = &self.beginning;
                let is_trimmed = wanted.start() < first_kept;
                let word = match self.word {
                    BlockOutcome::Found if is_trimmed => BlockOutcome::Trimmed,
                    word => word,
                };
                let is_found = word == BlockOutcome::Found;
                let mut payload = Vec::new();
                if word == BlockOutcome::Trimmed {
                    payload.clone_from(head);
                }
                let mut count = 0;
                for index in wanted.filter(|_| is_found) {
                    // As much as a real peer gives at once.
                    if payload.len() >= SHAPE.catch_up_size {
                        break;
                    }
                    payload.extend_from_slice(&self.blocks[&(group, index)]);
                    count += 1;
                }
                let reply = BlockReply {
                    number: request.number.to_native(),
                    first: request.first.to_native(),
                    group,
                    count,
                    outcome: word.code(),
                };
                let bulk = if node == NodeId(2) { BULK } else { THIRD_BULK };
                self.say(bulk, &reply, &payload);
            }
            _ => {}
        }
    }

    /// The peer asks for blocks up to the one with this sum. Says what it is answered.
    pub(crate) fn ask_for_blocks(
        &mut self,
        group: u32,
        first: u64,
        last: u64,
        sum: u32,
    ) -> (BlockOutcome, Vec<u8>) {
        let request = BlockRequest {
            number: 1,
            first,
            last,
            group,
            sum,
        };
        self.say(BULK, &request, &[]);
        (0..8).for_each(|_| self.turn());
        self.block_reply.take().expect("an answer")
    }

    /// A peer says what it holds of a log at an index, if it has come as far.
    pub(crate) fn tell_sum(&mut self, node: NodeId, group: u32, index: u64) {
        let Some(bytes) = self.blocks.get(&(group, index)) else {
            return;
        };
        let block = blocks(bytes).next().expect("one block");
        let mut sum = block.expect("as it was sent").header().sum;
        if let Some((from, change)) = self.diverged.get(&node)
            && group == 1
            && index >= *from
        {
            sum ^= change;
        }
        self.say_sum(node, group, index, sum);
    }

    /// A peer says that it holds this.
    pub(crate) fn say_sum(&mut self, node: NodeId, group: u32, index: u64, sum: u32) {
        let told = BlockSum {
            index,
            group,
            sum,
            is_told: 1,
            is_asked: 0,
        };
        let peer = if node == NodeId(2) { PEER } else { THIRD };
        self.say(peer, &BlockSums { sums: vec![told] }, &[]);
    }

    /// What is sent to the third node, which only asks for votes.
    pub(super) fn hear_third(&mut self, frame: &Outgoing) {
        let bytes = [&frame.head[..], &frame.payload.concat()[..]].concat();
        let mut assembler = assembler_of(Bytes::from(bytes));
        let frame = frame_of(&mut assembler);
        if let Message::VoteReply(reply) = frame.message().expect("a good body") {
            self.votes_granted += u64::from(reply.granted);
        }
    }

    /// A connection of a voter's.
    pub(crate) fn greet(&mut self, connection: ConnectionId, node: u64) {
        self.greet_on(connection, node, Lane::Control);
    }
}
