//! A client against nodes that say what the test tells them to.
//!
//! `appends` and `questions` hold one story after the other; `model` runs random ones against servers that keep
//! the promises that `produce` relies on. Here is what both need: a clock, a wire, decoded frames.

mod appends;
mod model;
mod questions;

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

use super::*;
use crate::frame::assembler::Assembler;
use crate::frame::client::{
    Append, AppendReply, Fetch, FetchReply, StatusRequest, Transfer, TrimRequest,
};
use crate::frame::code::{self, Durability, NotCommittedReason as Reason, ReadMode};
use crate::frame::greeting::{Hello, LogName, NodeAddress};
use crate::frame::writer::{FrameWriter, PayloadClaim, padding};
use crate::id::{ClusterId, Epoch, Offset, ProducerId};

const CLUSTER: ClusterId = ClusterId(0xC1);
const GROUP: GroupId = GroupId(7);
const A: NodeId = NodeId(1);
const B: NodeId = NodeId(2);
const C: NodeId = NodeId(3);

fn ms(n: u64) -> Nanos {
    Nanos::from_millis(n)
}

fn address(node: NodeId) -> String {
    format!("node-{node}:7401")
}

fn node_at(address: &str) -> NodeId {
    let all = [A, B, C].into_iter();
    all.clone()
        .find(|node| self::address(*node) == address)
        .expect("an address of the cluster")
}

fn welcome(node: NodeId) -> Welcome {
    let node_address = |id: NodeId| NodeAddress {
        id: id.0,
        name: format!("node-{id}").into_bytes(),
        address: address(id).into_bytes(),
    };
    Welcome {
        cluster: CLUSTER.0.to_le_bytes(),
        node: node.0,
        cluster_name: b"test".to_vec(),
        nodes: [A, B, C].map(node_address).to_vec(),
        logs: vec![LogName {
            group: GROUP.0,
            name: b"log-0".to_vec(),
        }],
        version: 1,
    }
}

fn config(append_timeout: Nanos, seed: u64) -> Config {
    Config {
        addresses: vec![address(A)],
        identity: Identity {
            producer: ProducerId(99),
            epoch: Epoch(0),
            epoch_max: Epoch(u32::MAX),
        },
        append_timeout,
        request_timeout: ms(5_000),
        seed,
    }
}

/// What the client sent, decoded.
#[derive(Clone, Debug)]
enum Sent {
    Hello(Hello),
    Append(Append, Vec<u8>),
    Fetch(Fetch),
    Status(StatusRequest),
    Transfer(Transfer),
    Trim(TrimRequest),
}

fn decode(head: &Bytes, payload: &[Bytes]) -> Sent {
    let mut assembler = Assembler::new(TagPolicy::ExactOrHello(ClusterTag::of(CLUSTER)));
    assembler.push(head.clone());
    payload
        .iter()
        .for_each(|chunk| assembler.push(chunk.clone()));
    let frame = assembler
        .next()
        .expect("a sound frame")
        .expect("a whole one");
    let sum = frame.payload().sum();
    assert_eq!(
        frame.header.payload_sum, sum,
        "the payload is what was summed"
    );
    match frame.message().expect("a sound body") {
        Message::Hello(body) => Sent::Hello(Hello::owned(body).unwrap()),
        Message::Append(body) => {
            let payload = frame.payload().contiguous().into_owned();
            Sent::Append(Append::owned(body).unwrap(), payload)
        }
        Message::Fetch(body) => Sent::Fetch(Fetch::owned(body).unwrap()),
        Message::StatusRequest(body) => Sent::Status(StatusRequest::owned(body).unwrap()),
        Message::Transfer(body) => Sent::Transfer(Transfer::owned(body).unwrap()),
        Message::TrimRequest(body) => Sent::Trim(TrimRequest::owned(body).unwrap()),
        other => panic!("a client never sends {other:?}"),
    }
}

/// Hands a frame to the client as the wire would.
fn deliver<B: Body>(
    client: &mut Client,
    now: Nanos,
    connection: ConnectionId,
    body: &B,
    payload: &[u8],
    effects: &mut Effects,
) {
    let mut bytes = BytesMut::new();
    let claim = PayloadClaim {
        size: payload.len() as u32,
        sum: 0,
    };
    let mut writer = FrameWriter::new(ClusterTag::of(CLUSTER));
    writer.write_with_payload(body, claim, &mut bytes);
    bytes.extend_from_slice(payload);
    bytes.extend_from_slice(padding(payload.len()));
    let mut assembler = Assembler::new(client.tag_policy());
    assembler.push(bytes.freeze());
    let frame = assembler
        .next()
        .expect("a sound frame")
        .expect("a whole one");
    client.step(now, Input::Received { connection, frame }, effects);
}

/// A client whose every effect the test sees.
struct Rig {
    client: Client,
    effects: Effects,
    now: Nanos,
    dials: VecDeque<(ConnectionId, NodeId)>,
    sent: VecDeque<(ConnectionId, Sent)>,
    closed: Vec<ConnectionId>,
    outcomes: Vec<(u64, Outcome)>,
    fetched: Vec<Result<Fetched, AskError>>,
    transferred: Vec<Result<(), AskError>>,
    trimmed: Vec<Result<Offset, AskError>>,
    surveyed: Vec<Vec<NodeReport>>,
}

impl Rig {
    fn new(config: Config) -> Self {
        let mut rig = Self {
            client: Client::new(config),
            effects: Effects::new(),
            now: ms(1_000),
            dials: VecDeque::new(),
            sent: VecDeque::new(),
            closed: Vec::new(),
            outcomes: Vec::new(),
            fetched: Vec::new(),
            transferred: Vec::new(),
            trimmed: Vec::new(),
            surveyed: Vec::new(),
        };
        rig.input(Input::Tick);
        rig
    }

    fn input(&mut self, input: Input<'_>) {
        self.client.step(self.now, input, &mut self.effects);
        self.drain();
    }

    fn drain(&mut self) {
        while let Some(effect) = self.effects.take_next() {
            match effect {
                Effect::Connect {
                    connection,
                    address,
                } => self.dials.push_back((connection, node_at(&address))),
                Effect::Send {
                    connection,
                    head,
                    payload,
                } => self.sent.push_back((connection, decode(&head, &payload))),
                Effect::Close { connection } => self.closed.push(connection),
                Effect::Welcomed => {}
                Effect::Appended { token, outcome } => self.outcomes.push((token, outcome)),
                Effect::Fetched { result, .. } => self.fetched.push(result),
                Effect::Transferred { result, .. } => self.transferred.push(result),
                Effect::Trimmed { result, .. } => self.trimmed.push(result),
                Effect::Surveyed { reports, .. } => self.surveyed.push(reports),
            }
        }
    }

    /// Lets time pass, as often as the client asks to be stepped.
    fn pass(&mut self, span: Nanos) {
        let end = self.now.after(span);
        let mut steps = 0;
        while let Some(at) = self.client.deadline()
            && at <= end
        {
            self.now = self.now.max(at);
            self.input(Input::Tick);
            steps += 1;
            assert!(steps < 100_000, "the client spins");
        }
        self.now = end;
        self.input(Input::Tick);
    }

    fn reply<T: Body>(&mut self, connection: ConnectionId, body: &T) {
        self.reply_with(connection, body, &[]);
    }

    fn reply_with<T: Body>(&mut self, connection: ConnectionId, body: &T, payload: &[u8]) {
        let effects = &mut self.effects;
        deliver(
            &mut self.client,
            self.now,
            connection,
            body,
            payload,
            effects,
        );
        self.drain();
    }

    /// Opens the oldest dial, hears the hello, and welcomes.
    fn accept(&mut self) -> (ConnectionId, NodeId) {
        let (connection, node) = self.dials.pop_front().expect("a dial");
        self.input(Input::Connected { connection });
        let hello = self.sent.pop_back().expect("a hello");
        assert!(matches!(hello, (at, Sent::Hello(_)) if at == connection));
        self.reply(connection, &welcome(node));
        (connection, node)
    }

    fn close(&mut self, connection: ConnectionId) {
        let fault = LinkFault::Closed;
        self.input(Input::Closed { connection, fault });
    }

    fn append(&mut self, token: u64) {
        let records = Records::one(Bytes::from(format!("record {token}"))).unwrap();
        let since = self.now;
        self.input(Input::Append {
            group: GROUP,
            token,
            since,
            records,
        });
    }

    fn take_sent(&mut self) -> (ConnectionId, Sent) {
        self.sent.pop_front().expect("something was sent")
    }

    /// The oldest frame that was sent, which must be an append.
    fn take_append(&mut self) -> (ConnectionId, Append) {
        match self.take_sent() {
            (connection, Sent::Append(append, _)) => (connection, append),
            other => panic!("not an append: {other:?}"),
        }
    }

    fn take_fetch(&mut self) -> (ConnectionId, Fetch) {
        match self.take_sent() {
            (connection, Sent::Fetch(fetch)) => (connection, fetch),
            other => panic!("not a fetch: {other:?}"),
        }
    }

    fn outcome_of(&self, token: u64) -> Option<Outcome> {
        let found: Vec<_> = self.outcomes.iter().filter(|(t, _)| *t == token).collect();
        assert!(found.len() <= 1, "one outcome for each append");
        found.first().map(|(_, outcome)| *outcome)
    }
}

const TIMEOUT: Nanos = Nanos::from_millis(10_000);

fn committed(request: u64, offset: u64, term: u64) -> AppendReply {
    AppendReply {
        request,
        offset,
        term,
        outcome: code::Outcome::Committed.code(),
        durability: Durability::Quorum.code(),
        ..AppendReply::default()
    }
}

fn refused(request: u64, reason: Reason, term: u64, leader: Option<NodeId>) -> AppendReply {
    AppendReply {
        request,
        term,
        leader: leader.map_or(0, |node| node.0),
        outcome: code::Outcome::NotCommitted.code(),
        reason: reason.code(),
        ..AppendReply::default()
    }
}

fn unknown(request: u64, term: u64) -> AppendReply {
    AppendReply {
        request,
        term,
        outcome: code::Outcome::Unknown.code(),
        ..AppendReply::default()
    }
}

fn fetch_reply(request: u64, outcome: FetchOutcome, term: u64, leader: u64) -> FetchReply {
    FetchReply {
        request,
        end_offset: 10,
        first_offset: 2,
        term,
        leader,
        outcome: outcome.code(),
        ..FetchReply::default()
    }
}

fn is_committed(outcome: Option<Outcome>, at: u64) -> bool {
    outcome.and_then(|outcome| outcome.offset()) == Some(at)
}

impl Rig {
    /// A client that is connected to A, which leads in term 1.
    fn led() -> (Self, ConnectionId) {
        Self::led_with(config(TIMEOUT, 5))
    }

    fn led_with(config: Config) -> (Self, ConnectionId) {
        let mut rig = Self::new(config);
        let (a, node) = rig.accept();
        assert_eq!(node, A);
        rig.input(Input::Fetch {
            group: GROUP,
            token: u64::MAX,
            request: FetchRequest {
                from: Offset(0),
                size_max: 1,
                wait: Nanos(0),
                mode: ReadMode::Committed,
            },
        });
        rig.answer_probe(FetchOutcome::BeyondEnd, 1, 0);
        let (_, fetch) = rig.take_fetch();
        rig.reply(a, &fetch_reply(fetch.request, FetchOutcome::Ok, 1, 1));
        assert_eq!(rig.fetched.len(), 1);
        rig.fetched.clear();
        (rig, a)
    }

    fn answer_probe(&mut self, outcome: FetchOutcome, term: u64, leader: u64) -> ConnectionId {
        let (connection, probe) = self.take_fetch();
        assert_eq!(probe.from, u64::MAX, "a probe");
        self.reply(
            connection,
            &fetch_reply(probe.request, outcome, term, leader),
        );
        connection
    }

    /// Connects to whoever is dialled, answers probes with "B leads in term 2", and returns the
    /// connection to B.
    fn fail_over_to_b(&mut self) -> ConnectionId {
        let mut to_b = None;
        for _ in 0..50 {
            while let Some((_, node)) = self.dials.front().copied() {
                if node == A {
                    let (connection, _) = self.dials.pop_front().unwrap();
                    self.close(connection);
                    continue;
                }
                let (connection, node) = self.accept();
                if node == B {
                    to_b = Some(connection);
                }
            }
            while let Some((_, Sent::Fetch(probe))) = self.sent.front() {
                assert_eq!(probe.from, u64::MAX, "a probe");
                self.answer_probe(FetchOutcome::NotLeader, 2, B.0);
            }
            if let Some(connection) = to_b
                && matches!(self.sent.front(), Some((at, Sent::Append(..))) if *at == connection)
            {
                return connection;
            }
            self.pass(ms(5));
        }
        panic!("the client does not find B");
    }
}
