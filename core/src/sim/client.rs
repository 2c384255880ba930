//! A client: one connection at a time, to whoever it believes to lead, and on it a producer, a
//! reader, an auditor or a caller.
//!
//! One door in, one door out, as a client that ships has: inputs come by `step`, what is to be done
//! is left in `effects`. Knows no network and no time but what it is told.

use super::caller::Caller;
use super::chance::Chance;
use super::history::History;
use super::marks::Marks;
use super::network::Chunk;
use super::node::{CLUSTER, Node, party_of};
use super::oracle::Oracle;
use super::producer::Producer;
use super::reader::Reader;
use super::swarm::Swarm;
use crate::frame::Lane;
use crate::frame::assembler::{Assembler, TagPolicy};
use crate::frame::greeting::Hello;
use crate::frame::header::ClusterTag;
use crate::frame::message::{Body, Message};
use crate::frame::writer::{FrameWriter, PayloadClaim, padding};
use crate::id::{ClusterId, Nanos, NodeId};
use crate::limits::FRAME_ALIGN;
use crate::log::block::Block;
use crate::shard::WIRE_VERSION;
use bytes::{Bytes, BytesMut};

/// Bytes of a request's header and body are fewer.
const HEAD_SIZE: usize = 128;

/// Something that happened to a client.
#[derive(Debug)]
pub(super) enum ClientInput {
    /// The moment it asked for has come.
    Tick,
    /// Its dial succeeded.
    Connected,
    /// Bytes came.
    Received(Chunk),
    /// Its connection ended, or was not made.
    Closed,
}

/// Something a client wants done.
#[derive(Debug)]
pub(super) enum ClientEffect {
    /// Open a connection to a node; there is none at the moment.
    Dial(usize),
    /// Send a whole frame.
    Send(Bytes),
    /// Give up the connection, or the dial.
    HangUp,
}

/// What the parts of a client share with the run.
pub(super) struct Context<'c> {
    pub(super) now: Nanos,
    pub(super) swarm: &'c Swarm,
    pub(super) chance: &'c mut Chance,
    pub(super) oracle: &'c Oracle,
    pub(super) history: &'c mut History,
    pub(super) marks: &'c mut Marks,
    pub(super) nodes: &'c [Node],
    /// Clients have work; otherwise they do a little now and then.
    pub(super) is_loaded: bool,
    /// Somebody reads what clients note.
    pub(super) is_traced: bool,
}

/// The client's end of its connection.
#[derive(Debug)]
pub(super) struct Line {
    writer: FrameWriter,
    next_request: u64,
    pub(super) effects: Vec<ClientEffect>,
    /// What it did and was told, in words, for whoever reads the trace.
    pub(super) notes: Vec<String>,
    /// Another node is to be tried: this one, or any.
    turn_to: Option<Option<NodeId>>,
}

impl Line {
    /// Sends a request made with a number of its own, and says the number.
    pub(super) fn ask<B: Body>(&mut self, body: impl FnOnce(u64) -> B) -> u64 {
        self.next_request += 1;
        let request = self.next_request;
        self.send(&body(request), 0, &[]);
        request
    }

    /// As [`Line::ask`], with a payload and its sum.
    pub(super) fn ask_with<B: Body>(
        &mut self,
        body: impl FnOnce(u64) -> B,
        sum: u32,
        payload: &[u8],
    ) -> u64 {
        self.next_request += 1;
        let request = self.next_request;
        self.send(&body(request), sum, payload);
        request
    }

    fn send<B: Body>(&mut self, body: &B, sum: u32, payload: &[u8]) {
        let mut bytes = BytesMut::with_capacity(payload.len() + HEAD_SIZE);
        let size = u32::try_from(payload.len()).expect("small payloads");
        self.writer
            .write_with_payload(body, PayloadClaim { size, sum }, &mut bytes);
        bytes.extend_from_slice(payload);
        bytes.extend_from_slice(padding(payload.len()));
        assert!(bytes.len().is_multiple_of(FRAME_ALIGN));
        self.effects.push(ClientEffect::Send(bytes.freeze()));
    }

    /// Notes something, if anybody reads it.
    pub(super) fn note(&mut self, context: &Context<'_>, text: impl FnOnce() -> String) {
        if context.is_traced {
            self.notes.push(text());
        }
    }

    /// Wants another node: the leader that was named, or any.
    pub(super) fn turn_to(&mut self, leader: u64) {
        self.turn_to = Some((leader != 0).then_some(NodeId(leader)));
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Down { until: Nanos },
    Dialling { since: Nanos },
    Greeting { since: Nanos },
    Up,
}

/// What a client is for.
#[derive(Debug)]
pub(super) enum Role {
    Producer(Producer),
    Reader(Reader),
    Caller(Caller),
}

/// One client.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) line: Line,
    state: State,
    target: usize,
    assembler: Assembler<Bytes>,
    /// Bytes came that were damaged on their way: anything may be wrong, and must be noticed.
    is_suspect: bool,
    pub(super) role: Role,
}

impl Client {
    pub(super) fn new(target: usize, role: Role) -> Self {
        Self {
            line: Line {
                writer: FrameWriter::new(ClusterTag::of(CLUSTER)),
                next_request: 0,
                effects: Vec::new(),
                notes: Vec::new(),
                turn_to: None,
            },
            state: State::Down { until: Nanos(0) },
            target,
            assembler: Assembler::new(TagPolicy::Learn),
            is_suspect: false,
            role,
        }
    }

    /// The one door in. Says when it wants the next `Tick`.
    pub(super) fn step(&mut self, input: ClientInput, context: &mut Context<'_>) -> Nanos {
        match input {
            ClientInput::Tick => {}
            ClientInput::Connected => self.on_connected(context.now),
            ClientInput::Received(chunk) => self.on_received(chunk, context),
            ClientInput::Closed => self.on_closed(context),
        }
        let mut wake_at = self.on_time(context);
        if let Some(leader) = self.line.turn_to.take() {
            self.turn(leader, context);
            wake_at = self.on_time(context);
        }
        wake_at
    }

    fn on_connected(&mut self, now: Nanos) {
        assert!(
            matches!(self.state, State::Dialling { .. }),
            "connected without dialling"
        );
        self.state = State::Greeting { since: now };
        let hello = Hello {
            cluster: ClusterId(0).0.to_le_bytes(),
            lane: Lane::Client.code(),
            version_min: WIRE_VERSION,
            version_max: WIRE_VERSION,
            ..Hello::default()
        };
        self.line.send(&hello, 0, &[]);
    }

    fn on_received(&mut self, chunk: Chunk, context: &mut Context<'_>) {
        self.is_suspect |= chunk.is_damaged;
        let Self {
            line,
            state,
            assembler,
            is_suspect,
            role,
            target,
            ..
        } = self;
        let is_damaged = context.nodes[*target].is_damaged;
        assembler.push(chunk.bytes);
        loop {
            let frame = match assembler.next() {
                Ok(Some(frame)) => frame,
                Ok(None) => break,
                Err(refusal) => {
                    assert!(*is_suspect, "a node sent what is no frame: {refusal}");
                    context.marks.corruptions_refused += 1;
                    line.turn_to(0);
                    break;
                }
            };
            let message = frame.message().expect("a node sends well-formed bodies");
            match (&message, &mut *role) {
                (Message::Welcome(_), _) => *state = State::Up,
                (Message::Refused(_), _) => line.turn_to(0),
                (Message::AppendReply(reply), Role::Producer(producer)) => {
                    producer.on_reply(reply, line, context);
                }
                (Message::FetchReply(reply), Role::Reader(reader)) => {
                    // No sum of the frame covers blocks: they have their own.
                    let payload = frame.payload().contiguous();
                    if *is_suspect && !is_whole(&payload) {
                        context.marks.corruptions_refused += 1;
                        line.turn_to(0);
                        break;
                    }
                    reader.on_reply(reply, &payload, is_damaged, line, context);
                }
                (Message::TransferReply(_) | Message::Status(_), Role::Reader(reader)) => {
                    reader.on_other_reply(context.now);
                }
                (Message::TrimReply(reply), Role::Reader(reader)) => {
                    reader.on_trim_reply(reply, line, context);
                }
                (Message::AppendReply(reply), Role::Caller(caller)) => {
                    caller.on_append_reply(reply, line, context);
                }
                (Message::FetchReply(reply), Role::Caller(caller)) => {
                    let payload = frame.payload().contiguous();
                    caller.on_fetch_reply(reply, &payload, line, context);
                }
                (Message::TransferReply(reply), Role::Caller(caller)) => {
                    caller.on_transfer_reply(reply, line, context);
                }
                _ => panic!("a node sent a client what is not for it"),
            }
        }
        assembler.take_released().for_each(drop);
    }

    fn on_closed(&mut self, context: &mut Context<'_>) {
        self.hang_up(context);
        self.turn(None, context);
    }

    /// There is no connection any more; a pause keeps a client from dialling all the time.
    fn hang_up(&mut self, context: &mut Context<'_>) {
        let pause = context
            .chance
            .spread(Nanos::from_millis(1), Nanos::from_millis(5));
        self.state = State::Down {
            until: context.now.after(pause),
        };
        self.assembler = Assembler::new(TagPolicy::Learn);
        self.is_suspect = false;
        self.line
            .effects
            .retain(|effect| !matches!(effect, ClientEffect::Send(_)));
        match &mut self.role {
            Role::Producer(producer) => producer.on_line_lost(context.now),
            Role::Reader(reader) => reader.on_line_lost(context.now),
            Role::Caller(caller) => caller.on_line_lost(context.now),
        }
    }

    /// Another node: the one named, or any.
    fn turn(&mut self, leader: Option<NodeId>, context: &mut Context<'_>) {
        let any = context.chance.below(context.swarm.node_count as u64) as usize;
        let target = match &self.role {
            // It has one replica to read, wherever the leader is.
            Role::Reader(reader) if reader.is_audit() => self.target,
            Role::Caller(caller) => {
                let next = (self.target + 1) % context.swarm.node_count;
                let free = leader.map_or(next, party_of);
                caller.home().unwrap_or(free)
            }
            _ => leader.map_or(any, party_of),
        };
        if leader.is_some() && target == self.target && self.state == State::Up {
            return;
        }
        if !matches!(self.state, State::Down { .. }) {
            self.hang_up(context);
            self.line.effects.push(ClientEffect::HangUp);
        }
        self.target = target;
    }

    /// Does what time asks for, and says when to come again.
    fn on_time(&mut self, context: &mut Context<'_>) -> Nanos {
        let (now, patience) = (context.now, context.swarm.client_patience);
        match self.state {
            State::Down { until } if until > now => until,
            State::Down { .. } => {
                self.state = State::Dialling { since: now };
                self.line.effects.push(ClientEffect::Dial(self.target));
                now.after(patience)
            }
            State::Dialling { since } | State::Greeting { since } => {
                let deadline = since.after(patience);
                if deadline <= now {
                    self.line.turn_to(0);
                }
                deadline
            }
            State::Up => match &mut self.role {
                Role::Producer(producer) => producer.on_time(&mut self.line, context),
                Role::Reader(reader) => reader.on_time(&mut self.line, context),
                Role::Caller(caller) => caller.on_time(&mut self.line, context),
            },
        }
    }
}

/// Whether a payload is blocks that are what their sums say.
fn is_whole(payload: &[u8]) -> bool {
    let mut at = 0;
    while at < payload.len() {
        let Ok(block) = Block::check(&payload[at..]) else {
            return false;
        };
        at += block.bytes().len();
    }
    true
}
