//! A shard that leads two logs, a disk that stores at once unless it is stuck, a peer that votes for
//! it and answers for the logs it is not deaf for, a second such peer once it has joined, and a client.
//!
//! Knows how these are brought together and that a turn is a millisecond; what each does stands in
//! its own file.

mod client;
mod disk;
mod peer;

use std::collections::{BTreeMap, BTreeSet};

use bytes::{Bytes, BytesMut};
use ringwood_core::frame::assembler::{Assembler, TagPolicy};
use ringwood_core::frame::client::{AppendReply, TrimReply};
use ringwood_core::frame::code::{BlockOutcome, FetchOutcome, ReadMode};
use ringwood_core::frame::greeting::Hello;
use ringwood_core::frame::header::ClusterTag;
use ringwood_core::frame::message::Body;
use ringwood_core::frame::peer::{BlockRequest, Referral, ReferralEnd, Restore};
use ringwood_core::frame::sum::crc32c;
use ringwood_core::frame::writer::{FrameWriter, PayloadClaim, padding};
use ringwood_core::frame::{Frame, Lane};
use ringwood_core::id::{
    ClusterId, ConnectionId, GroupId, Incarnation, Nanos, NodeId, ShardId, UnixSeconds,
};
use ringwood_core::log::Store;
use ringwood_core::log::block::write_record;
use ringwood_core::log::ring::Ring;
use ringwood_core::shard::{
    Config, Effect, Effects, Input, LogName, Retention, Shape, Shard, Voter, WIRE_VERSION,
};

use disk::Disk;

const CLUSTER: ClusterId = ClusterId(77);
pub(super) const PEER: ConnectionId = ConnectionId(1);
pub(super) const THIRD: ConnectionId = ConnectionId(3);
const CLIENT: ConnectionId = ConnectionId(2);
pub(super) const BULK: ConnectionId = ConnectionId(9);
pub(super) const THIRD_BULK: ConnectionId = ConnectionId(10);
const TURN: Nanos = Nanos::from_millis(1);

pub(super) const RING: Ring = Ring {
    file_count: 4,
    ..Shape::SMALL.ring
};

pub(super) const SHAPE: Shape = Shape {
    ring: RING,
    segment_write_size: 64 << 10,
    segment_size_max: 4 << 20,
    ..Shape::SMALL
};

pub(super) struct Bench {
    shape: Shape,
    disk: Disk,
    shard: Shard,
    now: Nanos,
    writer: FrameWriter,
    /// Frames for the next turn.
    inbox: Vec<(ConnectionId, Bytes)>,
    /// Groups for which the peer answers no blocks.
    pub(super) deaf: BTreeSet<u32>,
    /// Whether the peer says nothing at all.
    pub(super) is_alone: bool,
    /// Blocks that the peer was sent, by group and index.
    pub(super) blocks: BTreeMap<(u32, u64), Bytes>,
    /// How long heartbeats seem to take to the voters and back, beyond a turn.
    pub(super) distance: Nanos,
    /// A voter that hears nothing.
    pub(super) away: Option<NodeId>,
    /// What the peers were told of who else has blocks, and who said that it gets no more so.
    pub(super) referrals: Vec<Referral>,
    pub(super) referrals_ended: Vec<ReferralEnd>,
    /// Frames of blocks that the shard sent on the bulk lane, each with its first index.
    pub(super) chunks: Vec<u64>,
    /// Who was asked for which blocks.
    pub(super) asked: Vec<(NodeId, BlockRequest)>,
    /// How the shard answered requests for blocks.
    pub(super) given: Vec<BlockOutcome>,
    /// Whether requests for blocks get no answer.
    pub(super) is_source_mute: bool,
    /// What the peer says of blocks that it is asked for.
    pub(super) word: BlockOutcome,
    /// Index of the first block that the peer keeps, and what it says of where its log begins.
    pub(super) beginning: (u64, Vec<u8>),
    /// How the peer's last request for blocks ended, and what came with that.
    block_reply: Option<(BlockOutcome, Vec<u8>)>,
    /// Requests for blocks that the peer got.
    pub(super) ask_count: u64,
    /// From which index on a peer holds other blocks of the first log, and what of their sums.
    pub(super) diverged: BTreeMap<NodeId, (u64, u32)>,
    /// How often the peer was told or asked what the logs hold.
    pub(super) sums_count: u64,
    /// Scrubs that ended, and damaged places found and healed, by the last status.
    scrubs: (u64, u64, u64),
    /// What `status` complained of last.
    pub(super) alarms: Vec<String>,
    /// Through where each peer has each group.
    matched: BTreeMap<(NodeId, u32), u64>,
    /// Whether the third node answers as the second does.
    has_third: bool,
    /// How long the peers' slowest write took lately, as their heartbeats say.
    pub(super) write_span: Nanos,
    /// Whether the journal's writes do not end.
    is_disk_stuck: bool,
    stuck: Vec<Store>,
    /// Whom the shard asked to take over, and for which group.
    pub(super) successors: Vec<(NodeId, u32)>,
    /// How often it asked for votes.
    pub(super) candidacies: u64,
    /// Groups that its last heartbeat spoke for.
    pub(super) led: usize,
    /// What whoever runs the node was told.
    pub(super) notices: Vec<String>,
    /// Whether no write of the journal ends any more once a segment has grown.
    pub(super) sticks_behind_segments: bool,
    /// After how many more reads of a segment the disk is slow to answer one.
    pub(super) reads_to_hold: Option<usize>,
    held: Option<Input<'static>>,
    /// How often a file that shall take a segment's place was begun.
    pub(super) mend_count: u64,
    /// Whether segments find no space.
    pub(super) is_disk_full: bool,
    /// Whether nobody hears that a footer was written.
    pub(super) is_mute_at_footers: bool,
    /// Whether a crash comes before anything is deleted.
    pub(super) keeps_segments: bool,
    /// How much is kept of the first log, from the next restart on.
    pub(super) retention: Retention,
    /// What was answered to trims, by request.
    pub(super) trimmed: BTreeMap<u64, TrimReply>,
    /// Where the log begins, as the last answer to a fetch said, and where it ends.
    pub(super) first_offset: u64,
    end_offset: u64,
    /// What the peer was told of where a log begins.
    pub(super) restores: Vec<(Restore, Vec<u8>)>,
    /// What the peer was told of the shard's own blocks: matched through where, by group.
    pub(super) acked: BTreeMap<u32, u64>,
    /// What fetches rely on.
    pub(super) read_mode: ReadMode,
    /// Bytes read from segments.
    pub(super) read_size: u64,
    /// What the client was answered, by request.
    pub(super) replies: BTreeMap<u64, AppendReply>,
    /// Records of the last answer to a fetch, with their length prefixes.
    fetched: Vec<u8>,
    /// How the last fetch ended, by its code.
    pub(super) fetch_outcome: u8,
    pub(super) votes_granted: u64,
    /// Journal files begun.
    pub(super) files_entered: u64,
    next_request: u64,
}

fn config(retention: Retention) -> Config {
    let voter = |id: u64| Voter {
        id: NodeId(id),
        name: format!("node-{id}"),
        address: format!("node-{id}:7401"),
    };
    let log = |group: u32| LogName {
        group: GroupId(group),
        name: format!("log-{group}"),
    };
    Config {
        cluster: CLUSTER,
        cluster_name: "bench".to_owned(),
        me: NodeId(1),
        incarnation: Incarnation(7),
        start: 5,
        shard: ShardId(0),
        voters: (1..=3).map(voter).collect(),
        logs: (1..=2).map(log).collect(),
        retention: BTreeMap::from([(GroupId(1), retention)]),
        seed: 1,
        version: "test".to_owned(),
        storage: "test".to_owned(),
    }
}

fn open(now: Nanos, shape: Shape, disk: &Disk, retention: Retention) -> Shard {
    let mut read = |source, position, size| disk.read(source, position, size);
    Shard::open(now, config(retention), shape, &mut read).expect("a sound journal")
}

pub(super) fn record(size: usize, fill: u8) -> Vec<u8> {
    let mut payload = Vec::new();
    write_record(&mut payload, &vec![fill; size]);
    payload
}

/// Bytes of one frame, on their way into one.
fn assembler_of(bytes: Bytes) -> Assembler<Bytes> {
    let mut assembler = Assembler::new(TagPolicy::Exact(ClusterTag::of(CLUSTER)));
    assembler.push(bytes);
    assembler
}

fn frame_of(assembler: &mut Assembler<Bytes>) -> Frame<'_> {
    assembler
        .next()
        .expect("a good frame")
        .expect("a whole one")
}

impl Bench {
    /// A shard that leads both logs.
    pub(super) fn new() -> Self {
        Self::with_ring(RING)
    }

    pub(super) fn with_ring(ring: Ring) -> Self {
        Self::with_shape(Shape { ring, ..SHAPE })
    }

    pub(super) fn with_shape(shape: Shape) -> Self {
        let disk = Disk::new(shape.ring);
        let mut bench = Self {
            shard: open(Nanos(0), shape, &disk, Retention::default()),
            shape,
            disk,
            now: Nanos(0),
            writer: FrameWriter::new(ClusterTag::of(CLUSTER)),
            inbox: Vec::new(),
            deaf: BTreeSet::new(),
            is_alone: false,
            matched: BTreeMap::new(),
            blocks: BTreeMap::new(),
            distance: Nanos(0),
            away: None,
            referrals: Vec::new(),
            referrals_ended: Vec::new(),
            chunks: Vec::new(),
            asked: Vec::new(),
            given: Vec::new(),
            is_source_mute: false,
            word: BlockOutcome::Found,
            beginning: (1, Vec::new()),
            block_reply: None,
            ask_count: 0,
            diverged: BTreeMap::new(),
            sums_count: 0,
            scrubs: (0, 0, 0),
            alarms: Vec::new(),
            has_third: false,
            write_span: Nanos::from_millis(1),
            is_disk_stuck: false,
            stuck: Vec::new(),
            successors: Vec::new(),
            candidacies: 0,
            led: 0,
            notices: Vec::new(),
            sticks_behind_segments: false,
            reads_to_hold: None,
            held: None,
            mend_count: 0,
            is_disk_full: false,
            is_mute_at_footers: false,
            read_size: 0,
            restores: Vec::new(),
            acked: BTreeMap::new(),
            read_mode: ReadMode::Committed,
            keeps_segments: false,
            retention: Retention::default(),
            trimmed: BTreeMap::new(),
            first_offset: 0,
            end_offset: 0,
            replies: BTreeMap::new(),
            fetched: Vec::new(),
            fetch_outcome: FetchOutcome::Ok.code(),
            votes_granted: 0,
            files_entered: 0,
            next_request: 0,
        };
        bench.begin();
        bench
    }

    /// The process is gone, and another begins with what is on disk.
    pub(super) fn restart(&mut self) {
        self.shard = open(self.now, self.shape, &self.disk, self.retention);
        self.inbox.clear();
        self.begin();
    }

    fn begin(&mut self) {
        // The first run of a life becomes durable; nobody answers before it has said who it is.
        for _ in 0..3 {
            self.turn();
            self.inbox.clear();
        }
        let third = self.has_third.then_some((THIRD, 3, Lane::Control));
        let others = [
            (PEER, 2, Lane::Control),
            (BULK, 2, Lane::Bulk),
            (CLIENT, 0, Lane::Client),
        ];
        for (connection, node, lane) in others.into_iter().chain(third) {
            self.greet_on(connection, node, lane);
        }
        self.step(Input::PeerConnected(NodeId(2)));
        self.turns(2_000);
    }

    /// Says who is at the other end of a connection: a voter, or with 0 a client.
    pub(super) fn greet_on(&mut self, connection: ConnectionId, node: u64, lane: Lane) {
        let hello = Hello {
            cluster: CLUSTER.0.to_le_bytes(),
            node,
            incarnation: node,
            life: u64::from(node > 0),
            starts: vec![9; usize::from(node > 0)],
            shard: 0,
            lane: lane.code(),
            version_min: WIRE_VERSION,
            version_max: WIRE_VERSION,
        };
        self.say(connection, &hello, &[]);
    }

    /// A frame for the next turn.
    pub(super) fn say<B: Body>(&mut self, connection: ConnectionId, body: &B, payload: &[u8]) {
        let claim = PayloadClaim {
            size: payload.len() as u32,
            sum: if B::KIND.has_payload_sum() {
                crc32c(payload)
            } else {
                0
            },
        };
        let mut out = BytesMut::new();
        self.writer.write_with_payload(body, claim, &mut out);
        out.extend_from_slice(payload);
        out.extend_from_slice(padding(payload.len()));
        self.inbox.push((connection, out.freeze()));
    }

    /// What the wall clock says from now on.
    pub(super) fn set_date(&mut self, date: UnixSeconds) {
        self.step(Input::Date(date));
    }

    pub(super) fn turn(&mut self) {
        self.now = self.now.after(TURN);
        if self.has_third && self.now.0.is_multiple_of(6 * TURN.0) {
            self.say_heartbeats();
        }
        for (connection, bytes) in std::mem::take(&mut self.inbox) {
            let mut assembler = assembler_of(bytes);
            let frame = &frame_of(&mut assembler);
            self.step(Input::Frame { connection, frame });
        }
        self.step(Input::TurnEnd);
    }

    pub(super) fn turns(&mut self, count: usize) {
        for _ in 0..count {
            self.turn();
        }
    }

    fn step(&mut self, input: Input<'_>) {
        let mut effects = Effects::default();
        self.shard.step(self.now, input, &mut effects);
        self.perform(effects);
    }

    fn perform(&mut self, effects: Effects) {
        for effect in effects.list {
            match effect {
                Effect::Send { to, lane, frame } if to == NodeId(2) || self.has_third => {
                    if !self.is_alone {
                        self.answer(to, lane, &frame);
                    }
                }
                Effect::Send { frame, .. } => self.hear_third(&frame),
                Effect::Reply {
                    connection, frame, ..
                } => {
                    if connection == CLIENT {
                        self.hear(&frame);
                    }
                }
                Effect::Close(_) => {}
                Effect::Notice(text) => self.notices.push(text),
                effect => {
                    if let Some(input) = self.perform_on_disk(effect) {
                        self.step(input);
                    }
                }
            }
        }
    }

    pub(super) fn now(&self) -> Nanos {
        self.now
    }

    /// The loop stands still.
    pub(super) fn freeze(&mut self, span: Nanos) {
        self.now = self.now.after(span);
    }
}
