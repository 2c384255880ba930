//! A shard that leads two logs, a disk that stores at once unless it is stuck, a peer that votes for
//! it and answers for the logs it is not deaf for, a second such peer once it has joined, and a client.

use std::collections::{BTreeMap, BTreeSet};

use bytes::{Bytes, BytesMut};
use ringwood_core::frame::assembler::{Assembler, TagPolicy};
use ringwood_core::frame::client::{
    Append, AppendReply, Fetch, ScrubRequest, StatusRequest, TrimReply, TrimRequest,
};
use ringwood_core::frame::code::{BlockOutcome, FetchOutcome, Outcome, ReadMode};
use ringwood_core::frame::greeting::Hello;
use ringwood_core::frame::header::ClusterTag;
use ringwood_core::frame::message::{Body, Message};
use ringwood_core::frame::peer::{
    AppendEntriesAck, BeatAck, BlockReply, BlockSum, BlockSums, Heartbeat, HeartbeatAck, Restore,
    VoteReply,
};
use ringwood_core::frame::sum::crc32c;
use ringwood_core::frame::writer::{FrameWriter, PayloadClaim, padding};
use ringwood_core::frame::{Frame, Lane};
use ringwood_core::id::{
    ClusterId, ConnectionId, GroupId, Incarnation, Nanos, NodeId, ShardId, UnixSeconds,
};
use ringwood_core::limits::SECTOR_SIZE;
use ringwood_core::log::Store;
use ringwood_core::log::block::{blocks, write_record};
use ringwood_core::log::footer::SegmentFooter;
use ringwood_core::log::persist::PERSIST_FILE_SIZE;
use ringwood_core::log::pins::PINS_FILE_SIZE;
use ringwood_core::log::recovery::DiskFault;
use ringwood_core::log::ring::Ring;
use ringwood_core::log::segment::SegmentHeader;
use ringwood_core::raft::Bounds;
use ringwood_core::shard::{
    Config, Effect, Effects, Input, LogName, Outgoing, Retention, Shape, Shard, Source, Voter,
    WIRE_VERSION,
};

const CLUSTER: ClusterId = ClusterId(77);
pub(super) const PEER: ConnectionId = ConnectionId(1);
const THIRD: ConnectionId = ConnectionId(3);
const CLIENT: ConnectionId = ConnectionId(2);
pub(super) const BULK: ConnectionId = ConnectionId(9);
const TURN: Nanos = Nanos::from_millis(1);

pub(super) const RING: Ring = Ring {
    file_size: 512 << 10,
    file_count: 4,
    run_size: 64 << 10,
};

pub(super) const SHAPE: Shape = Shape {
    ring: RING,
    arena_size: 256 << 10,
    arena_count: 4,
    segment_write_size: 64 << 10,
    segment_size_max: 4 << 20,
    segment_read_size: 128 << 10,
    catch_up_size: 64 << 10,
    bounds: Bounds {
        tail_keep_count: 10,
        undecided_size_full: 256 << 10,
    },
};

/// Files by what they are.
struct Disk {
    journal: Vec<Vec<u8>>,
    pins: Vec<u8>,
    persist: Vec<u8>,
    segments: BTreeMap<(u32, u32), Vec<u8>>,
    /// The file that is to take a segment's place.
    mended: Vec<u8>,
}

impl Disk {
    fn read(&self, source: Source, position: u64, size: usize) -> Result<Bytes, DiskFault> {
        let file = match source {
            Source::Journal { slot } => &self.journal[slot as usize],
            Source::Pins => &self.pins,
            Source::Persist => &self.persist,
            Source::Segment { group, number } => self
                .segments
                .get(&(group.0, number))
                .ok_or(DiskFault { errno: 2 })?,
        };
        let end = file.len().min(position as usize + size);
        let begin = end.min(position as usize);
        Ok(Bytes::copy_from_slice(&file[begin..end]))
    }
}

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
    blocks: BTreeMap<(u32, u64), Bytes>,
    /// What the peer says of blocks that it is asked for.
    pub(super) word: BlockOutcome,
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
        let ring = shape.ring;
        let file = vec![0; ring.file_size as usize];
        let disk = Disk {
            journal: vec![file; ring.file_count as usize],
            segments: BTreeMap::new(),
            mended: Vec::new(),
            pins: vec![0; PINS_FILE_SIZE],
            persist: vec![0; PERSIST_FILE_SIZE],
        };
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
            word: BlockOutcome::Found,
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
        // Nobody answers before it has said who it is.
        self.inbox.clear();
        let third = self.has_third.then_some((THIRD, 3, Lane::Control));
        let others = [
            (PEER, 2, Lane::Control),
            (BULK, 2, Lane::Bulk),
            (CLIENT, 0, Lane::Client),
        ];
        for (connection, node, lane) in others.into_iter().chain(third) {
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
        let mut effects = Effects::default();
        self.shard
            .step(self.now, Input::PeerConnected(NodeId(2)), &mut effects);
        self.perform(effects);
        for _ in 0..2_000 {
            self.turn();
        }
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

    /// Asks for one record to be appended; says the request's number.
    pub(super) fn append(&mut self, group: u32, sequence: u64, record: &[u8]) -> u64 {
        self.append_by(5, group, sequence, record)
    }

    /// As `append`, of some producer.
    pub(super) fn append_by(
        &mut self,
        producer: u64,
        group: u32,
        sequence: u64,
        record: &[u8],
    ) -> u64 {
        self.next_request += 1;
        let append = Append {
            request: self.next_request,
            producer,
            sequence,
            group,
            record_count: 1,
            epoch: 0,
        };
        self.say(CLIENT, &append, record);
        self.next_request
    }

    /// A block that the peer was sent.
    pub(super) fn sent(&self, group: u32, index: u64) -> Bytes {
        self.blocks[&(group, index)].clone()
    }

    /// Asks for a log's start to be moved; says the request's number.
    pub(super) fn trim(&mut self, group: u32, before: u64) -> u64 {
        self.next_request += 1;
        let request = self.next_request;
        let trim = TrimRequest {
            request,
            before,
            group,
        };
        self.say(CLIENT, &trim, &[]);
        request
    }

    /// Offset after the last committed record.
    pub(super) fn end_offset(&mut self, group: u32) -> u64 {
        self.fetch(group, u64::MAX);
        self.end_offset
    }

    /// The peer lacks all of a log, and nobody knows: this node leads anew.
    pub(super) fn lead_an_empty_peer(&mut self, group: u32) {
        self.matched.insert((NodeId(2), group), 0);
        self.restart();
    }

    /// Through where the peer has a log.
    pub(super) fn matched(&self, group: u32) -> u64 {
        self.matched
            .get(&(NodeId(2), group))
            .copied()
            .unwrap_or_default()
    }

    /// What the wall clock says from now on.
    pub(super) fn set_date(&mut self, date: UnixSeconds) {
        let mut effects = Effects::default();
        self.shard.step(self.now, Input::Date(date), &mut effects);
        self.perform(effects);
    }

    /// Numbers of the segments that are there.
    pub(super) fn segment_numbers(&self, group: u32) -> Vec<u32> {
        let keys = self.disk.segments.keys();
        keys.filter(|key| key.0 == group).map(|key| key.1).collect()
    }

    /// Appends records of a size, one after the other, until there is a segment of this number; says
    /// how many there are by then. `count` are there already.
    pub(super) fn fill_to_segment(
        &mut self,
        group: u32,
        number: u32,
        count: u64,
        size: usize,
    ) -> u64 {
        let mut count = count;
        while !self.has_segment(group, number) {
            let request = self.append(group, count, &record(size, count as u8));
            for _ in 0..4 {
                self.turn();
            }
            let outcome = self.replies[&request].outcome;
            count += u64::from(outcome == Outcome::Committed.code());
        }
        count
    }

    /// What the log holds from an offset on, as far as one answer goes.
    pub(super) fn fetch(&mut self, group: u32, from: u64) -> Vec<u8> {
        self.next_request += 1;
        let fetch = Fetch {
            request: self.next_request,
            from,
            wait_us: 0,
            size_max: 1 << 20,
            group,
            mode: self.read_mode.code(),
        };
        self.fetched.clear();
        self.say(CLIENT, &fetch, &[]);
        for _ in 0..3 {
            self.turn();
        }
        std::mem::take(&mut self.fetched)
    }

    pub(super) fn turn(&mut self) {
        self.now = self.now.after(TURN);
        if self.has_third && self.now.0.is_multiple_of(6 * TURN.0) {
            self.say_heartbeats();
        }
        for (connection, bytes) in std::mem::take(&mut self.inbox) {
            let mut effects = Effects::default();
            let mut assembler = assembler_of(bytes);
            let frame = &frame_of(&mut assembler);
            self.shard
                .step(self.now, Input::Frame { connection, frame }, &mut effects);
            self.perform(effects);
        }
        let mut effects = Effects::default();
        self.shard.step(self.now, Input::TurnEnd, &mut effects);
        self.perform(effects);
    }

    fn perform(&mut self, effects: Effects) {
        for effect in effects.list {
            let mut next = Effects::default();
            let input = match effect {
                Effect::Send { to, frame, .. } if to == NodeId(2) || self.has_third => {
                    if !self.is_alone {
                        self.answer(to, &frame);
                    }
                    continue;
                }
                Effect::Reply { connection, frame } => {
                    if connection == CLIENT {
                        self.hear(&frame);
                    }
                    continue;
                }
                Effect::Send { frame, .. } => {
                    self.hear_third(&frame);
                    continue;
                }
                Effect::Close(_) => continue,
                Effect::StorePins { position, sector } => {
                    self.disk.pins[position as usize..][..sector.len()].copy_from_slice(&sector);
                    Input::PinsStored
                }
                Effect::StorePersist { position, sector } => {
                    self.disk.persist[position as usize..][..sector.len()].copy_from_slice(&sector);
                    Input::PersistStored
                }
                Effect::Store(store) if self.is_disk_stuck => {
                    self.stuck.push(store);
                    continue;
                }
                Effect::Store(store) => self.store(&store),
                Effect::SegmentWrite { write, .. } if self.is_disk_full => {
                    Input::SegmentRefused(write)
                }
                // The first part found room.
                Effect::SegmentMend {
                    write, position, ..
                } if self.is_disk_full && position > 0 => Input::SegmentRefused(write),
                Effect::SegmentMend {
                    write,
                    position,
                    buffer,
                    ..
                } => {
                    self.mend_count += u64::from(position == 0);
                    self.disk.mended.truncate(position as usize);
                    assert_eq!(self.disk.mended.len(), position as usize, "in order");
                    self.disk.mended.extend_from_slice(&buffer);
                    Input::SegmentStored(write)
                }
                Effect::SegmentReplace {
                    write,
                    group,
                    number,
                } => {
                    let file = std::mem::take(&mut self.disk.mended);
                    self.disk.segments.insert((group.0, number), file);
                    Input::SegmentStored(write)
                }
                Effect::SegmentDiscard { .. } => {
                    assert!(!self.disk.mended.is_empty(), "it was begun");
                    self.disk.mended.clear();
                    continue;
                }
                Effect::Notice(text) => {
                    self.notices.push(text);
                    continue;
                }
                Effect::SegmentWrite {
                    write,
                    group,
                    number,
                    position,
                    buffer,
                } => {
                    self.is_disk_stuck |= self.sticks_behind_segments;
                    let file = self.disk.segments.entry((group.0, number)).or_default();
                    let end = position as usize + buffer.len();
                    file.resize(file.len().max(end), 0);
                    file[position as usize..end].copy_from_slice(&buffer);
                    if self.is_mute_at_footers && SegmentFooter::check(&buffer).is_ok() {
                        continue;
                    }
                    Input::SegmentStored(write)
                }
                Effect::SegmentRemove { .. } if self.keeps_segments => continue,
                Effect::SegmentRemove { group, below } => {
                    let is_kept = |key: &(u32, u32)| key.0 != group.0 || key.1 >= below;
                    self.disk.segments.retain(|key, _| is_kept(key));
                    continue;
                }
                Effect::Load {
                    load,
                    source,
                    position,
                    size,
                } => {
                    let read = self.disk.read(source, position, size);
                    let bytes = read.unwrap_or_default();
                    if matches!(source, Source::Segment { .. })
                        && let Some(left) = &mut self.reads_to_hold
                    {
                        if *left == 0 {
                            self.reads_to_hold = None;
                            self.held = Some(Input::Loaded { load, bytes });
                            continue;
                        }
                        *left -= 1;
                    }
                    if matches!(source, Source::Segment { .. }) {
                        self.read_size += bytes.len() as u64;
                    }
                    Input::Loaded { load, bytes }
                }
            };
            self.shard.step(self.now, input, &mut next);
            self.perform(next);
        }
    }

    fn store(&mut self, store: &Store) -> Input<'static> {
        self.files_entered += u64::from(store.position == 0);
        let bytes = store.runs.concat();
        self.disk.journal[store.slot as usize][store.position as usize..][..bytes.len()]
            .copy_from_slice(&bytes);
        Input::Stored(store.write)
    }

    /// Whether no write of the journal ends.
    pub(super) fn is_stuck(&self) -> bool {
        self.is_disk_stuck
    }

    /// The writes under way are lost with the process, which begins anew.
    pub(super) fn crash(&mut self) {
        self.sticks_behind_segments = false;
        self.is_disk_stuck = false;
        self.stuck.clear();
        self.restart();
    }

    /// From now on no write ends, or all that were under way have ended.
    pub(super) fn stick_disk(&mut self, is_stuck: bool) {
        self.is_disk_stuck = is_stuck;
        if is_stuck {
            return;
        }
        for store in std::mem::take(&mut self.stuck) {
            let mut effects = Effects::default();
            let input = self.store(&store);
            self.shard.step(self.now, input, &mut effects);
            self.perform(effects);
        }
    }

    /// The third node comes, and both peers say heartbeats from now on.
    pub(super) fn join_third(&mut self) {
        self.has_third = true;
        self.greet(THIRD, 3);
        let mut effects = Effects::default();
        let joined = Input::PeerConnected(NodeId(3));
        self.shard.step(self.now, joined, &mut effects);
        self.perform(effects);
        for _ in 0..200 {
            self.turn();
        }
    }

    /// The last block of a log that the peer was sent.
    pub(super) fn last_block(&self, group: u32) -> Bytes {
        let mut sent = self.blocks.range((group, 0)..=(group, u64::MAX));
        sent.next_back().expect("it was sent some").1.clone()
    }

    /// What the peers say unasked.
    fn say_heartbeats(&mut self) {
        let heartbeat = Heartbeat {
            sent_at: self.now.0,
            timeout: Nanos::from_millis(30).0,
            write_age: 0,
            write_span: self.write_span.0,
            beats: Vec::new(),
        };
        self.say(PEER, &heartbeat, &[]);
        self.say(THIRD, &heartbeat, &[]);
    }

    pub(super) fn now(&self) -> Nanos {
        self.now
    }

    /// What a peer says to a frame.
    fn answer(&mut self, node: NodeId, frame: &Outgoing) {
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
                self.say(peer, &HeartbeatAck { echo, acks }, &[]);
            }
            Message::AppendEntries(request) => {
                let group = request.group.to_native();
                let count = request.count.to_native();
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
            Message::BlockSums(body) => {
                self.sums_count += u64::from(node == NodeId(2));
                for word in body.sums.iter().filter(|word| word.is_asked == 1) {
                    self.tell_sum(node, word.group.to_native(), word.index.to_native());
                }
            }
            Message::BlockRequest(request) => {
                self.ask_count += 1;
                let group = request.group.to_native();
                let wanted = request.first.to_native()..=request.last.to_native();
                let is_found = self.word == BlockOutcome::Found;
                let mut payload = Vec::new();
                let mut count = 0;
                for index in wanted.filter(|_| is_found) {
                    // As much as a real peer gives at once.
                    if payload.len() < SHAPE.catch_up_size {
                        payload.extend_from_slice(&self.blocks[&(group, index)]);
                        count += 1;
                    }
                }
                let reply = BlockReply {
                    number: request.number.to_native(),
                    first: request.first.to_native(),
                    group,
                    count,
                    outcome: self.word.code(),
                };
                self.say(BULK, &reply, &payload);
            }
            _ => {}
        }
    }

    /// A peer says what it holds of a log at an index, if it has come as far.
    pub(super) fn tell_sum(&mut self, node: NodeId, group: u32, index: u64) {
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
    pub(super) fn say_sum(&mut self, node: NodeId, group: u32, index: u64, sum: u32) {
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
    fn hear_third(&mut self, frame: &Outgoing) {
        let mut assembler = Assembler::new(TagPolicy::Exact(ClusterTag::of(CLUSTER)));
        assembler.push(Bytes::from(
            [&frame.head[..], &frame.payload.concat()[..]].concat(),
        ));
        let frame = assembler
            .next()
            .expect("a good frame")
            .expect("a whole one");
        if let Message::VoteReply(reply) = frame.message().expect("a good body") {
            self.votes_granted += u64::from(reply.granted);
        }
    }

    /// A connection of a voter's.
    pub(super) fn greet(&mut self, connection: ConnectionId, node: u64) {
        let hello = Hello {
            cluster: CLUSTER.0.to_le_bytes(),
            node,
            incarnation: node,
            life: 1,
            starts: vec![9],
            shard: 0,
            lane: Lane::Control.code(),
            version_min: WIRE_VERSION,
            version_max: WIRE_VERSION,
        };
        self.say(connection, &hello, &[]);
    }

    /// Whether a segment of a group is there.
    pub(super) fn has_segment(&self, group: u32, number: u32) -> bool {
        self.disk.segments.contains_key(&(group, number))
    }

    /// The bytes of a segment.
    pub(super) fn segment(&mut self, group: u32, number: u32) -> &mut Vec<u8> {
        let file = self.disk.segments.get_mut(&(group, number));
        file.expect("it is there")
    }

    /// The read that the disk was slow to answer comes back, with what the file then held. Says
    /// whether there was one.
    pub(super) fn release_read(&mut self) -> bool {
        let Some(input) = self.held.take() else {
            return false;
        };
        let mut effects = Effects::default();
        self.shard.step(self.now, input, &mut effects);
        self.perform(effects);
        true
    }

    /// Bytes of the file that shall take a segment's place.
    pub(super) fn mended_size(&self) -> usize {
        self.disk.mended.len()
    }

    /// A segment's file is gone.
    pub(super) fn delete_segment(&mut self, group: u32, number: u32) {
        self.disk.segments.remove(&(group, number));
    }

    /// Zeros from where the last block of a segment begins.
    pub(super) fn lose_last_block(&mut self, group: u32, number: u32) {
        let file = self.segment(group, number);
        let (mut at, mut last) = (SECTOR_SIZE, 0);
        while at < file.len() {
            match blocks(&file[at..]).next() {
                Some(Ok(block)) => {
                    last = at;
                    at += block.bytes().len();
                }
                // Padding behind a write.
                _ => at = (at / SECTOR_SIZE + 1) * SECTOR_SIZE,
            }
        }
        assert!(last > 0, "it has blocks");
        file[last..].fill(0);
    }

    /// Turns a bit of a journal block's payload over, wherever it lies: that of the record full of
    /// `fill`. Says in how many places.
    pub(super) fn flip_in_journal(&mut self, fill: u8) -> usize {
        let mut count = 0;
        for file in &mut self.disk.journal {
            let mut at = 0;
            while let Some(next) = file[at..].windows(32).position(|piece| piece == [fill; 32]) {
                file[at + next] ^= 1;
                count += 1;
                let rest = file[at + next + 1..].iter();
                at += next + 1 + rest.take_while(|byte| **byte == fill).count();
            }
        }
        count
    }

    /// What `status` has to complain of.
    pub(super) fn complaints(&mut self) -> Vec<String> {
        self.say(CLIENT, &StatusRequest { request: 1 }, &[]);
        self.turn();
        self.alarms.clone()
    }

    /// Asks for a scrub; says how many have ended before.
    pub(super) fn scrub(&mut self) -> u64 {
        self.say(CLIENT, &ScrubRequest { request: 1 }, &[]);
        self.turn();
        self.scrubs.0
    }

    /// How many scrubs have ended.
    pub(super) fn scrub_passes(&mut self) -> u64 {
        self.complaints();
        self.scrubs.0
    }

    /// Damaged places that were found, and healed.
    pub(super) fn damage(&mut self) -> (u64, u64) {
        self.complaints();
        (self.scrubs.1, self.scrubs.2)
    }

    /// The loop stands still.
    pub(super) fn freeze(&mut self, span: Nanos) {
        self.now = self.now.after(span);
    }

    /// What the client is told.
    fn hear(&mut self, frame: &Outgoing) {
        let bytes = [&frame.head[..], &frame.payload.concat()[..]].concat();
        let mut assembler = assembler_of(Bytes::from(bytes));
        let frame = frame_of(&mut assembler);
        match frame.message().expect("a good body") {
            Message::AppendReply(reply) => {
                let reply = AppendReply {
                    request: reply.request.to_native(),
                    offset: reply.offset.to_native(),
                    outcome: reply.outcome,
                    reason: reply.reason,
                    ..AppendReply::default()
                };
                self.replies.insert(reply.request, reply);
            }
            Message::Status(status) => {
                let alarm = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                self.scrubs = (
                    status.scrub_passes.to_native(),
                    status.damage_found.to_native(),
                    status.damage_healed.to_native(),
                );
                self.alarms = status.alarms.iter().map(|bytes| alarm(bytes)).collect();
            }
            Message::TrimReply(reply) => {
                let reply = TrimReply::owned(reply).expect("a good body");
                self.trimmed.insert(reply.request, reply);
            }
            Message::FetchReply(reply) => {
                self.fetch_outcome = reply.outcome;
                self.first_offset = reply.first_offset.to_native();
                self.end_offset = reply.end_offset.to_native();
                for block in blocks(&frame.payload().contiguous()) {
                    for append in block.expect("a good block").appends() {
                        self.fetched.extend_from_slice(append.payload);
                    }
                }
            }
            _ => {}
        }
    }
}
