//! Three whole nodes on a perfect network, with disks that can be spoilt: only the disks are at
//! fault here, so that a case is over in milliseconds.
//!
//! A clock moves to whatever is due next. Knows nothing of damage but what a start finds, and what
//! nodes say.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use bytes::{Bytes, BytesMut};
use ringwood_core::frame::Lane;
use ringwood_core::frame::assembler::{Assembler, TagPolicy};
use ringwood_core::frame::client::{Append, Fetch, ScrubRequest, StatusRequest, TrimRequest};
use ringwood_core::frame::code::{FetchOutcome, Outcome, ReadMode, TrimOutcome};
use ringwood_core::frame::greeting::Hello;
use ringwood_core::frame::header::ClusterTag;
use ringwood_core::frame::message::{Body, Message};
use ringwood_core::frame::sum::crc32c;
use ringwood_core::frame::writer::{FrameWriter, PayloadClaim, padding};
use ringwood_core::id::{ClusterId, ConnectionId, GroupId, Incarnation, Nanos, NodeId, ShardId};
use ringwood_core::log::block::{Block, write_record};
use ringwood_core::shard::{
    Config, Effect, Effects, Input, LogName, Outgoing, Shape, Shard, Voter, WIRE_VERSION,
};

use super::disk::{Disk, FileName, is_damaged, name_of, recovered};

pub(super) const CLUSTER: ClusterId = ClusterId(91);
pub(super) const NODE_COUNT: usize = 3;
pub(super) const GROUP: GroupId = GroupId(1);
const CLIENT: ConnectionId = ConnectionId(1);
const PRODUCER: u64 = 5;
const LANES: [Lane; 3] = [Lane::Control, Lane::Data, Lane::Bulk];

/// A node, running or not.
struct Node {
    disk: Disk,
    shard: Option<Shard>,
    /// Why it did not start, or whom it turned away.
    refusals: Vec<String>,
    inbox: Vec<(ConnectionId, Bytes)>,
    /// Peers and lanes that it has greeted.
    greeted: BTreeSet<(usize, u8)>,
    replies: Vec<Bytes>,
}

/// What a read of a whole log came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reading {
    /// All of it, as it was acknowledged.
    Whole,
    /// A part was refused as damaged.
    Damaged,
    /// The node does not have everything, or does not answer.
    Short,
}

pub(super) struct Cluster {
    nodes: Vec<Node>,
    now: Nanos,
    writer: FrameWriter,
    next_request: u64,
    /// Counts starts: no two processes draw the same number.
    start_count: u64,
    /// What was acknowledged, by offset.
    pub(super) records: Vec<Vec<u8>>,
    /// Where the log begins: the first that was not trimmed.
    pub(super) first: u64,
    next_sequence: u64,
    leader: usize,
    /// Starts that noticed damage to their journal.
    pub(super) damaged_start_count: u64,
}

/// What is left when all processes have ended.
#[derive(Clone)]
pub(super) struct Base {
    pub(super) disks: Vec<Disk>,
    pub(super) records: Vec<Vec<u8>>,
    /// Where the log begins: the first that was not trimmed.
    pub(super) first: u64,
    next_sequence: u64,
    start_count: u64,
    /// Who led last.
    pub(super) leader: usize,
    now: Nanos,
}

fn config(node: usize, start: u64) -> Config {
    let voter = |node: usize| Voter {
        id: NodeId(node as u64 + 1),
        name: format!("node-{}", node + 1),
        address: format!("node-{}:7401", node + 1),
    };
    Config {
        cluster: CLUSTER,
        cluster_name: "faults".to_owned(),
        me: NodeId(node as u64 + 1),
        incarnation: Incarnation(7 + node as u64),
        start,
        shard: ShardId(0),
        voters: (0..NODE_COUNT).map(voter).collect(),
        logs: vec![LogName {
            group: GROUP,
            name: "log-1".to_owned(),
        }],
        retention: BTreeMap::new(),
        seed: 40 + node as u64,
        version: "test".to_owned(),
        storage: "test".to_owned(),
    }
}

fn connection(from: usize, lane: Lane) -> ConnectionId {
    ConnectionId(10 + from as u64 * 10 + u64::from(lane.code()))
}

fn joined(frame: &Outgoing) -> Bytes {
    [&frame.head[..], &frame.payload.concat()[..]]
        .concat()
        .into()
}

impl Cluster {
    /// New nodes with empty disks.
    pub(super) fn new() -> Self {
        let base = Base {
            disks: vec![Disk::new(); NODE_COUNT],
            records: Vec::new(),
            first: 0,
            next_sequence: 0,
            start_count: 0,
            leader: 0,
            now: Nanos(0),
        };
        Self::on(&base)
    }

    /// Nodes that are not started, on what others left.
    pub(super) fn on(base: &Base) -> Self {
        let node = |disk: &Disk| Node {
            disk: disk.clone(),
            shard: None,
            refusals: Vec::new(),
            inbox: Vec::new(),
            greeted: BTreeSet::new(),
            replies: Vec::new(),
        };
        Self {
            nodes: base.disks.iter().map(node).collect(),
            now: base.now,
            writer: FrameWriter::new(ClusterTag::of(CLUSTER)),
            next_request: 0,
            start_count: base.start_count,
            records: base.records.clone(),
            first: base.first,
            next_sequence: base.next_sequence,
            leader: base.leader,
            damaged_start_count: 0,
        }
    }

    /// The disks as they are.
    pub(super) fn disks(&self) -> Vec<Disk> {
        self.nodes.iter().map(|node| node.disk.clone()).collect()
    }

    /// All processes end; what is left.
    pub(super) fn end(self) -> Base {
        Base {
            disks: self.nodes.into_iter().map(|node| node.disk).collect(),
            records: self.records,
            first: self.first,
            next_sequence: self.next_sequence,
            start_count: self.start_count,
            leader: self.leader,
            now: self.now,
        }
    }

    pub(super) fn disk(&mut self, node: usize) -> &mut Disk {
        &mut self.nodes[node].disk
    }

    /// Starts every process anew.
    pub(super) fn start(&mut self) {
        for node in 0..NODE_COUNT {
            self.start_count += 1;
            let config = config(node, self.start_count);
            let machine = &mut self.nodes[node];
            let disk = &machine.disk;
            let is_damaged = recovered(disk, node).is_ok_and(|found| is_damaged(&found));
            self.damaged_start_count += u64::from(is_damaged);
            let mut read = |source, position, size| disk.read(name_of(source), position, size);
            machine.inbox.clear();
            machine.greeted.clear();
            machine.shard = match Shard::open(self.now, config, Shape::SMALL, &mut read) {
                Ok(shard) => Some(shard),
                Err(error) => {
                    machine.refusals.push(error.to_string());
                    None
                }
            };
        }
        let hello = Hello {
            cluster: CLUSTER.0.to_le_bytes(),
            lane: Lane::Client.code(),
            version_min: WIRE_VERSION,
            version_max: WIRE_VERSION,
            ..Hello::default()
        };
        self.run(20);
        (0..NODE_COUNT).for_each(|node| self.say(node, &hello, &[]));
    }

    pub(super) fn is_up(&self, node: usize) -> bool {
        self.nodes[node].shard.is_some()
    }

    /// Why nodes did not start, or were turned away.
    pub(super) fn refusals(&self) -> impl Iterator<Item = &String> {
        self.nodes.iter().flat_map(|node| &node.refusals)
    }

    // ---- what happens

    /// So many turns of all loops.
    pub(super) fn run(&mut self, turn_count: usize) {
        for _ in 0..turn_count {
            self.turn();
        }
    }

    fn turn(&mut self) {
        let is_busy = self.nodes.iter().any(|node| !node.inbox.is_empty());
        let due = self.nodes.iter().filter_map(|node| node.shard.as_ref());
        let due = due.map(Shard::deadline).min().unwrap_or(self.now);
        let soon = self.now.after(Nanos::from_micros(200));
        self.now = if is_busy { soon } else { due.max(soon) };
        for node in 0..NODE_COUNT {
            if self.is_up(node) {
                self.greet(node);
                self.turn_of(node);
            }
        }
    }

    /// Links to the others that are up.
    fn greet(&mut self, node: usize) {
        for peer in (0..NODE_COUNT).filter(|peer| *peer != node) {
            for lane in LANES {
                let is_open = self.nodes[node].shard.as_ref().is_some_and(Shard::is_open);
                let is_new = !self.nodes[node].greeted.contains(&(peer, lane.code()));
                if !is_open || !is_new || !self.is_up(peer) {
                    continue;
                }
                self.nodes[node].greeted.insert((peer, lane.code()));
                let shard = self.nodes[node].shard.as_mut().expect("it is up");
                let hello = shard.hello(lane);
                self.nodes[peer].inbox.push((connection(node, lane), hello));
                if lane != Lane::Bulk {
                    self.step(node, Input::PeerConnected(NodeId(peer as u64 + 1)));
                }
            }
        }
    }

    fn turn_of(&mut self, node: usize) {
        for (connection, bytes) in std::mem::take(&mut self.nodes[node].inbox) {
            let policy = TagPolicy::ExactOrHello(ClusterTag::of(CLUSTER));
            let mut assembler: Assembler<Bytes> = Assembler::new(policy);
            assembler.push(bytes);
            let frame = assembler
                .next()
                .expect("a good frame")
                .expect("a whole one");
            let frame = &frame;
            self.step(node, Input::Frame { connection, frame });
        }
        self.step(node, Input::TurnEnd);
    }

    fn step(&mut self, node: usize, input: Input<'_>) {
        let mut effects = Effects::default();
        let shard = self.nodes[node].shard.as_mut().expect("it is up");
        shard.step(self.now, input, &mut effects);
        for effect in effects.list {
            self.perform(node, effect);
        }
    }

    fn perform(&mut self, node: usize, effect: Effect) {
        match effect {
            Effect::Send { to, lane, frame } => {
                let peer = to.0 as usize - 1;
                let is_greeted = self.nodes[node].greeted.contains(&(peer, lane.code()));
                if is_greeted && self.is_up(peer) {
                    let frame = joined(&frame);
                    self.nodes[peer].inbox.push((connection(node, lane), frame));
                }
            }
            Effect::Reply {
                connection: CLIENT,
                frame,
                ..
            } => {
                self.nodes[node].replies.push(joined(&frame));
            }
            Effect::Reply { .. } => {}
            Effect::Close(connection) => {
                let text = format!("node {node} closes {connection}");
                self.nodes[node].refusals.push(text);
            }
            Effect::Notice(_) => {}
            Effect::SegmentRemove { below, .. } => {
                let is_kept =
                    |name: &FileName| !matches!(name, FileName::Segment(number) if *number < below);
                let disk = self.disk(node);
                disk.files.retain(|name, _| is_kept(name));
                disk.unreadable.retain(|(name, _)| is_kept(name));
            }
            Effect::SegmentDiscard { .. } => self.disk(node).mended.clear(),
            Effect::Store(store) => {
                let name = FileName::Journal(store.slot);
                let bytes = store.runs.concat();
                self.disk(node).write(name, store.position as usize, &bytes);
                self.step(node, Input::Stored(store.write));
            }
            Effect::StorePins { position, sector } => {
                self.disk(node)
                    .write(FileName::Pins, position as usize, &sector);
                self.step(node, Input::PinsStored);
            }
            Effect::StorePersist { position, sector } => {
                self.disk(node)
                    .write(FileName::Persist, position as usize, &sector);
                self.step(node, Input::PersistStored);
            }
            Effect::SegmentWrite {
                write,
                number,
                position,
                buffer,
                ..
            } => {
                let name = FileName::Segment(number);
                self.disk(node).write(name, position as usize, &buffer);
                self.step(node, Input::SegmentStored(write));
            }
            Effect::SegmentMend {
                write,
                position,
                buffer,
                ..
            } => {
                let mended = &mut self.disk(node).mended;
                mended.truncate(position as usize);
                assert_eq!(mended.len(), position as usize, "in order");
                mended.extend_from_slice(&buffer);
                self.step(node, Input::SegmentStored(write));
            }
            Effect::SegmentReplace { write, number, .. } => {
                let disk = self.disk(node);
                let (name, file) = (FileName::Segment(number), std::mem::take(&mut disk.mended));
                disk.files.insert(name, Rc::new(file));
                disk.unreadable.retain(|(bad, _)| *bad != name);
                self.step(node, Input::SegmentStored(write));
            }
            Effect::Load {
                load,
                source,
                position,
                size,
            } => {
                // What cannot be read is as if it were not there.
                let read = self.nodes[node].disk.read(name_of(source), position, size);
                let bytes = read.unwrap_or_default();
                self.step(node, Input::Loaded { load, bytes });
            }
        }
    }

    // ---- what a client wants

    fn say<B: Body>(&mut self, node: usize, body: &B, payload: &[u8]) {
        let sum = if payload.is_empty() {
            0
        } else {
            crc32c(payload)
        };
        let claim = PayloadClaim {
            size: payload.len() as u32,
            sum,
        };
        let mut out = BytesMut::new();
        self.writer.write_with_payload(body, claim, &mut out);
        out.extend_from_slice(payload);
        out.extend_from_slice(padding(payload.len()));
        self.nodes[node].inbox.push((CLIENT, out.freeze()));
    }

    fn next_request(&mut self) -> u64 {
        self.next_request += 1;
        self.next_request
    }

    /// What a node answers to the last request, within some turns.
    fn answer<T>(
        &mut self,
        node: usize,
        mut take: impl FnMut(&Message<'_>, &[u8]) -> Option<T>,
    ) -> Option<T> {
        for _ in 0..300 {
            if !self.is_up(node) {
                return None;
            }
            self.turn();
            for bytes in std::mem::take(&mut self.nodes[node].replies) {
                let policy = TagPolicy::Exact(ClusterTag::of(CLUSTER));
                let mut assembler: Assembler<Bytes> = Assembler::new(policy);
                assembler.push(bytes);
                let frame = assembler
                    .next()
                    .expect("a good frame")
                    .expect("a whole one");
                let message = frame.message().expect("a good body");
                if let Some(found) = take(&message, &frame.payload().contiguous()) {
                    return Some(found);
                }
            }
        }
        None
    }

    /// Appends one record, to whoever leads. False if nobody takes it in a long time.
    pub(super) fn append(&mut self, record: &[u8]) -> bool {
        let mut payload = Vec::new();
        write_record(&mut payload, record);
        for _ in 0..60 {
            let (node, request) = (self.leader, self.next_request());
            let append = Append {
                request,
                producer: PRODUCER,
                sequence: self.next_sequence,
                group: GROUP.0,
                record_count: 1,
                epoch: 1,
            };
            if self.is_up(node) {
                self.say(node, &append, &payload);
            }
            let answer = self.answer(node, |message, _| match message {
                Message::AppendReply(reply) if reply.request.to_native() == request => {
                    Some((reply.outcome, reply.offset.to_native()))
                }
                _ => None,
            });
            match answer {
                Some((outcome, offset)) if outcome == Outcome::Committed.code() => {
                    assert_eq!(offset, self.records.len() as u64, "dense, and nothing lost");
                    self.records.push(record.to_vec());
                    self.next_sequence += 1;
                    return true;
                }
                _ => {
                    self.leader = (self.leader + 1) % NODE_COUNT;
                    self.run(10);
                }
            }
        }
        false
    }

    /// Cuts the log off below a record, at whoever leads.
    pub(super) fn trim(&mut self, before: u64) {
        let (node, request) = (self.leader, self.next_request());
        let trim = TrimRequest {
            request,
            before,
            group: GROUP.0,
        };
        self.say(node, &trim, &[]);
        let answer = self.answer(node, |message, _| match message {
            Message::TrimReply(reply) if reply.request.to_native() == request => {
                Some((reply.outcome, reply.first_offset.to_native()))
            }
            _ => None,
        });
        assert_eq!(answer, Some((TrimOutcome::Done.code(), before)), "it leads");
        self.first = before;
    }

    /// What a node says that needs attention.
    pub(super) fn alarms(&mut self, node: usize) -> Vec<String> {
        let request = self.next_request();
        if !self.is_up(node) {
            return Vec::new();
        }
        self.say(node, &StatusRequest { request }, &[]);
        let answer = self.answer(node, |message, _| match message {
            Message::Status(status) if status.request.to_native() == request => {
                let text = |alarm: &[u8]| String::from_utf8_lossy(alarm).into_owned();
                Some(status.alarms.iter().map(|alarm| text(alarm)).collect())
            }
            _ => None,
        });
        answer.unwrap_or_default()
    }

    /// Reads a node's whole log, and judges every record of it.
    pub(super) fn read(&mut self, node: usize) -> Reading {
        let mut from = self.first;
        while (from as usize) < self.records.len() {
            let request = self.next_request();
            let fetch = Fetch {
                request,
                from,
                group: GROUP.0,
                size_max: 256 << 10,
                wait_us: 0,
                mode: ReadMode::AnyReplica.code(),
            };
            if !self.is_up(node) {
                return Reading::Short;
            }
            self.say(node, &fetch, &[]);
            let answer = self.answer(node, |message, payload| match message {
                Message::FetchReply(reply) if reply.request.to_native() == request => {
                    Some((reply.outcome, payload.to_vec()))
                }
                _ => None,
            });
            let Some((outcome, payload)) = answer else {
                return Reading::Short;
            };
            match FetchOutcome::from_code(outcome).expect("a known outcome") {
                FetchOutcome::Ok if payload.is_empty() => return Reading::Short,
                FetchOutcome::Ok => from = self.judge(from, &payload),
                FetchOutcome::Damaged => return Reading::Damaged,
                FetchOutcome::BeyondEnd => return Reading::Short,
                FetchOutcome::Busy => self.run(5),
                other => panic!("a read from {from} ends: {other}"),
            }
        }
        Reading::Whole
    }

    fn judge(&self, from: u64, payload: &[u8]) -> u64 {
        let (mut at, mut next) = (0, from);
        while at < payload.len() {
            let block = Block::check(&payload[at..]).expect("a reader gets sound blocks");
            at += block.bytes().len();
            for (offset, bytes) in block.records().filter(|(offset, _)| offset.0 >= from) {
                assert_eq!(offset.0, next, "offsets are dense");
                // What was appended and not acknowledged may be there, too.
                if let Some(record) = self.records.get(next as usize) {
                    assert!(
                        bytes == record,
                        "record {next} is not what was acknowledged"
                    );
                }
                next += 1;
            }
        }
        assert!(next > from, "blocks hold what was asked");
        next
    }

    /// Has a node read all that its disk keeps. Says how many damaged places it found since its
    /// start, and how many it healed.
    pub(super) fn scrub(&mut self, node: usize) -> Option<(u64, u64)> {
        let mut passes_wanted = None;
        for _ in 0..200 {
            let request = self.next_request();
            if !self.is_up(node) {
                return None;
            }
            match passes_wanted {
                None => self.say(node, &ScrubRequest { request }, &[]),
                Some(_) => {
                    let status = StatusRequest { request };
                    self.say(node, &status, &[]);
                }
            }
            let status = self.answer(node, |message, _| match message {
                Message::Status(status) if status.request.to_native() == request => Some((
                    status.scrub_passes.to_native(),
                    status.damage_found.to_native(),
                    status.damage_healed.to_native(),
                )),
                _ => None,
            })?;
            let wanted = *passes_wanted.get_or_insert(status.0 + 1);
            if status.0 >= wanted {
                return Some((status.1, status.2));
            }
            self.run(20);
        }
        panic!("a scrub of a small disk does not end");
    }
}
