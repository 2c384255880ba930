//! What a crash may leave of a whole shard: its journal and its logs' segments.
//!
//! A shard that is its logs' only voter, so that what it acknowledges is on its disk or nowhere. Its
//! writes stay in flight, and at moments every state that the disk may then be in is judged: all
//! subsets of the parts of what is in flight, as in `crash_states.rs`, and for a segment that grows
//! besides whether the file has its new size already. In each of them
//! - the journal is recovered, with all that was stored and all that was acknowledged;
//! - every segment that a checkpoint vouches for is one sound chain up to that checkpoint;
//! - what is in the journal above it goes on where it ends.
//!
//! Now and then one of the states is what the shard begins with again.

use std::collections::BTreeMap;

use bytes::{Bytes, BytesMut};
use ringwood_core::frame::Lane;
use ringwood_core::frame::assembler::{Assembler, TagPolicy};
use ringwood_core::frame::client::{Append, TrimRequest};
use ringwood_core::frame::code::{Outcome, TrimOutcome};
use ringwood_core::frame::greeting::Hello;
use ringwood_core::frame::header::ClusterTag;
use ringwood_core::frame::message::{Body, Message};
use ringwood_core::frame::sum::crc32c;
use ringwood_core::frame::writer::{FrameWriter, PayloadClaim, padding};
use ringwood_core::id::{
    ClusterId, ConnectionId, GroupId, Incarnation, Index, Nanos, NodeId, ShardId,
};
use ringwood_core::log::Store;
use ringwood_core::log::block::{BlockKind, write_record};
use ringwood_core::log::checkpoint::Checkpoint;
use ringwood_core::log::footer::SegmentFooter;
use ringwood_core::log::offline::{Audit, End, ItemSeen, SegmentPieces};
use ringwood_core::log::recovery::{DiskFault, GroupRecovered, Identity, Recovered, recover};
use ringwood_core::log::ring::Ring;
use ringwood_core::log::segment::SegmentHeader;
use ringwood_core::raft::Bounds;
use ringwood_core::shard::{
    Config, Effect, Effects, Input, LogName, SegmentWriteId, Shape, Shard, Source, Voter,
    WIRE_VERSION, directory_tag,
};

use crate::crash_states::{Part, flush_of, parts};
use crate::log_disk::Rng;

const CLUSTER: ClusterId = ClusterId(77);
const ME: NodeId = NodeId(1);
const INCARNATION: Incarnation = Incarnation(7);
const CLIENT: ConnectionId = ConnectionId(2);
pub(crate) const GROUPS: u32 = 2;
const SECTOR: usize = 4096;

const RING: Ring = Ring {
    file_size: 512 << 10,
    file_count: 3,
    run_size: 64 << 10,
};

/// So small that segments are closed again and again.
const SHAPE: Shape = Shape {
    ring: RING,
    arena_size: 256 << 10,
    arena_count: 4,
    segment_write_size: 32 << 10,
    segment_size_max: 96 << 10,
    segment_read_size: 128 << 10,
    catch_up_size: 64 << 10,
    bounds: Bounds {
        tail_keep_count: 10,
        undecided_size_full: 256 << 10,
    },
};

/// A file of the node, as `Source` names it.
pub(crate) type FileName = (Option<u32>, u32);

fn name_of(source: Source) -> FileName {
    match source {
        Source::Journal { slot } => (None, slot),
        Source::Segment { group, number } => (Some(group.0), number),
        Source::Pins => (None, u32::MAX),
        Source::Persist => (None, u32::MAX - 1),
    }
}

/// All files as they are for good.
#[derive(Clone, Default)]
pub(crate) struct Files(BTreeMap<FileName, Vec<u8>>);

/// A write in flight, or a deletion.
pub(crate) enum Write {
    Journal(Store),
    Remove(Vec<FileName>),
    Segment {
        write: SegmentWriteId,
        file: FileName,
        position: usize,
        buffer: Bytes,
    },
}

/// A piece of what is in flight, in its file: bytes, or the file's deletion.
#[derive(Clone)]
struct Piece {
    file: FileName,
    part: Part,
    is_deletion: bool,
}

impl Piece {
    fn of(file: FileName, part: Part) -> Self {
        Self {
            file,
            part,
            is_deletion: false,
        }
    }

    fn deletion(file: FileName) -> Self {
        let part = Part {
            slot: 0,
            position: 0,
            bytes: Vec::new(),
        };
        Self {
            file,
            part,
            is_deletion: true,
        }
    }
}

/// Files with some pieces of what was in flight.
pub(crate) struct State<'f> {
    files: &'f Files,
    pieces: Vec<&'f Piece>,
    /// Sizes that files have already, whatever of their bytes is there.
    sizes: BTreeMap<FileName, usize>,
}

impl State<'_> {
    fn is_deleted(&self, file: FileName) -> bool {
        let mut pieces = self.pieces.iter();
        pieces.any(|piece| piece.file == file && piece.is_deletion)
    }

    fn size(&self, file: FileName) -> Option<usize> {
        if self.is_deleted(file) {
            return None;
        }
        let there = self.files.0.get(&file).map(Vec::len);
        let pieces = self.pieces.iter().filter(|piece| piece.file == file);
        let written = pieces
            .map(|piece| piece.part.position + piece.part.bytes.len())
            .max();
        there.max(written).max(self.sizes.get(&file).copied())
    }

    fn read(&self, source: Source, position: u64, size: usize) -> Result<Bytes, DiskFault> {
        let file = name_of(source);
        let end = self.size(file).ok_or(DiskFault { errno: 2 })?;
        let from = (position as usize).min(end);
        let to = (from + size).min(end);
        let mut bytes = vec![0; to - from];
        copy_overlap(
            &mut bytes,
            from,
            self.files.0.get(&file).map_or(&[], Vec::as_slice),
            0,
        );
        for piece in self.pieces.iter().filter(|piece| piece.file == file) {
            copy_overlap(&mut bytes, from, &piece.part.bytes, piece.part.position);
        }
        Ok(bytes.into())
    }

    fn settle(&self) -> Files {
        let mut files = self.files.clone();
        let named = self
            .sizes
            .keys()
            .copied()
            .chain(self.pieces.iter().map(|piece| piece.file));
        for file in named {
            match self.size(file) {
                Some(size) => files.0.entry(file).or_default().resize(size, 0),
                None => _ = files.0.remove(&file),
            }
        }
        for piece in self.pieces.iter().filter(|piece| !piece.is_deletion) {
            put(
                &mut files,
                piece.file,
                piece.part.position,
                &piece.part.bytes,
            );
        }
        files
    }
}

/// Copies what of `from`, which stands at a position, belongs into `to`, which stands at another.
fn copy_overlap(to: &mut [u8], to_at: usize, from: &[u8], from_at: usize) {
    let begin = to_at.max(from_at);
    let end = (to_at + to.len()).min(from_at + from.len());
    if begin < end {
        to[begin - to_at..end - to_at].copy_from_slice(&from[begin - from_at..end - from_at]);
    }
}

fn put(files: &mut Files, file: FileName, position: usize, bytes: &[u8]) {
    let contents = files.0.entry(file).or_default();
    contents.resize(contents.len().max(position + bytes.len()), 0);
    contents[position..position + bytes.len()].copy_from_slice(bytes);
}

pub(crate) struct World {
    pub(crate) rng: Rng,
    pub(crate) files: Files,
    shard: Shard,
    pub(crate) flying: Vec<Write>,
    now: Nanos,
    writer: FrameWriter,
    inbox: Vec<Bytes>,
    next_request: u64,
    /// Group of each request that waits.
    asked: BTreeMap<u64, u32>,
    next_sequence: BTreeMap<u32, u64>,
    /// The offset behind the last record that was acknowledged.
    pub(crate) acknowledged: BTreeMap<u32, u64>,
    /// Refused appends, by reason.
    pub(crate) refusals: BTreeMap<u8, u64>,
    /// An append was refused: those behind it would leave a gap.
    is_refused: bool,
    /// The first offset, by the last trim that was acknowledged.
    trimmed: BTreeMap<u32, u64>,
    epoch: u32,
}

fn config() -> Config {
    Config {
        cluster: CLUSTER,
        cluster_name: "crash".to_owned(),
        me: ME,
        incarnation: INCARNATION,
        start: 1,
        shard: ShardId(0),
        voters: vec![Voter {
            id: ME,
            name: "node-1".to_owned(),
            address: "node-1:7401".to_owned(),
        }],
        logs: (1..=GROUPS)
            .map(|group| LogName {
                group: GroupId(group),
                name: format!("log-{group}"),
            })
            .collect(),
        retention: BTreeMap::new(),
        seed: 1,
        version: "test".to_owned(),
        storage: "test".to_owned(),
    }
}

fn open(now: Nanos, state: &State<'_>) -> Shard {
    let mut read = |source, position, size| state.read(source, position, size);
    Shard::open(now, config(), SHAPE, &mut read).expect("a disk that only crashed")
}

pub(crate) fn only(files: &Files) -> State<'_> {
    State {
        files,
        pieces: Vec::new(),
        sizes: BTreeMap::new(),
    }
}

impl World {
    pub(crate) fn new(seed: u64) -> Self {
        let mut files = Files::default();
        for slot in 0..RING.file_count {
            files
                .0
                .insert((None, slot), vec![0; RING.file_size as usize]);
        }
        let shard = open(Nanos(0), &only(&files));
        let mut world = Self {
            rng: Rng::new(seed),
            files,
            shard,
            flying: Vec::new(),
            now: Nanos(0),
            writer: FrameWriter::new(ClusterTag::of(CLUSTER)),
            inbox: Vec::new(),
            next_request: 0,
            asked: BTreeMap::new(),
            next_sequence: BTreeMap::new(),
            acknowledged: BTreeMap::new(),
            refusals: BTreeMap::new(),
            is_refused: false,
            trimmed: BTreeMap::new(),
            epoch: 0,
        };
        world.begin();
        world
    }

    /// The process is gone, and another begins with one of the states that the disk may be in.
    pub(crate) fn crash(&mut self) {
        let pieces = self.pieces();
        let state = State {
            files: &self.files,
            pieces: pieces.iter().filter(|_| self.rng.chance(2)).collect(),
            sizes: BTreeMap::new(),
        };
        let files = state.settle();
        self.files = files;
        self.flying.clear();
        self.shard = open(self.now, &only(&self.files));
        self.inbox.clear();
        self.asked.clear();
        self.begin();
    }

    /// Until it leads its logs and takes appends, of a new life of its producer.
    pub(crate) fn begin(&mut self) {
        self.begin_life();
        for _ in 0..3 {
            self.turn();
            self.complete_all();
        }
        let hello = Hello {
            cluster: CLUSTER.0.to_le_bytes(),
            node: 0,
            incarnation: 0,
            life: 0,
            starts: Vec::new(),
            shard: 0,
            lane: Lane::Client.code(),
            version_min: WIRE_VERSION,
            version_max: WIRE_VERSION,
        };
        self.say(&hello, &[]);
        for _ in 0..400 {
            self.turn();
            self.complete_all();
        }
    }

    fn say<B: Body>(&mut self, body: &B, payload: &[u8]) {
        let claim = PayloadClaim {
            size: payload.len() as u32,
            sum: if payload.is_empty() {
                0
            } else {
                crc32c(payload)
            },
        };
        let mut out = BytesMut::new();
        self.writer.write_with_payload(body, claim, &mut out);
        out.extend_from_slice(payload);
        out.extend_from_slice(padding(payload.len()));
        self.inbox.push(out.freeze());
    }

    pub(crate) fn append(&mut self, group: u32) {
        if std::mem::take(&mut self.is_refused) {
            self.begin_life();
        }
        let size = *self.rng.pick(&[20, 300, 4000, 9000]);
        let mut payload = Vec::new();
        write_record(&mut payload, &vec![self.rng.below(256) as u8; size]);
        self.next_request += 1;
        let sequence = self.next_sequence.entry(group).or_default();
        let append = Append {
            request: self.next_request,
            producer: 5,
            sequence: *sequence,
            group,
            record_count: 1,
            epoch: self.epoch,
        };
        *sequence += 1;
        self.asked.insert(self.next_request, group);
        self.say(&append, &payload);
    }

    /// Wants a log to begin a little before its end.
    pub(crate) fn trim(&mut self, group: u32) {
        let end = self.acknowledged.get(&group).copied().unwrap_or_default();
        self.next_request += 1;
        self.asked.insert(self.next_request, group);
        let trim = TrimRequest {
            request: self.next_request,
            before: end.saturating_sub(self.rng.below(20)),
            group,
        };
        self.say(&trim, &[]);
    }

    pub(crate) fn turn(&mut self) {
        self.now = self.now.after(Nanos::from_millis(1));
        for bytes in std::mem::take(&mut self.inbox) {
            let mut assembler: Assembler<Bytes> =
                Assembler::new(TagPolicy::Exact(ClusterTag::of(CLUSTER)));
            assembler.push(bytes);
            let frame = assembler
                .next()
                .expect("a good frame")
                .expect("a whole one");
            let mut effects = Effects::default();
            let input = Input::Frame {
                connection: CLIENT,
                frame: &frame,
            };
            self.shard.step(self.now, input, &mut effects);
            self.perform(effects);
        }
        self.step(Input::TurnEnd);
    }

    fn step(&mut self, input: Input<'_>) {
        let mut effects = Effects::default();
        self.shard.step(self.now, input, &mut effects);
        self.perform(effects);
    }

    fn perform(&mut self, effects: Effects) {
        for effect in effects.list {
            match effect {
                Effect::Store(store) => self.flying.push(Write::Journal(store)),
                // What is known of starts has a test of its own.
                Effect::StorePins { position, sector } => {
                    let pins = self.files.0.entry(name_of(Source::Pins)).or_default();
                    let end = position as usize + sector.len();
                    pins.resize(pins.len().max(end), 0);
                    pins[position as usize..end].copy_from_slice(&sector);
                    self.step(Input::PinsStored);
                }
                // And so has the persist record.
                Effect::StorePersist { .. } => self.step(Input::PersistStored),
                Effect::SegmentWrite {
                    write,
                    group,
                    number,
                    position,
                    buffer,
                } => self.flying.push(Write::Segment {
                    write,
                    file: (Some(group.0), number),
                    position: position as usize,
                    buffer,
                }),
                Effect::Load {
                    load,
                    source,
                    position,
                    size,
                } => {
                    let bytes = only(&self.files).read(source, position, size);
                    let bytes = bytes.expect("it is there");
                    self.step(Input::Loaded { load, bytes });
                }
                Effect::Reply { frame, .. } => {
                    let bytes = [&frame.head[..], &frame.payload.concat()[..]].concat();
                    self.hear(bytes.into());
                }
                Effect::SegmentRemove { group, below } => {
                    let is_gone = |file: &&FileName| file.0 == Some(group.0) && file.1 < below;
                    let gone: Vec<FileName> =
                        self.files.0.keys().filter(is_gone).copied().collect();
                    self.flying
                        .extend((!gone.is_empty()).then_some(Write::Remove(gone)));
                }
                other => panic!("nobody else is there to take {other:?}"),
            }
        }
    }

    fn hear(&mut self, bytes: Bytes) {
        let mut assembler: Assembler<Bytes> =
            Assembler::new(TagPolicy::Exact(ClusterTag::of(CLUSTER)));
        assembler.push(bytes);
        let frame = assembler
            .next()
            .expect("a good frame")
            .expect("a whole one");
        let reply = match frame.message().expect("a good body") {
            Message::AppendReply(reply) => reply,
            Message::TrimReply(reply) => {
                let group = self.asked.remove(&reply.request.to_native());
                if reply.outcome == TrimOutcome::Done.code() {
                    let first = reply.first_offset.to_native();
                    self.trimmed.insert(group.expect("asked for"), first);
                }
                return;
            }
            _ => return,
        };
        let request = reply.request.to_native();
        let group = self.asked.remove(&request).expect("asked for");
        if reply.outcome == Outcome::NotCommitted.code() {
            self.is_refused = true;
            *self.refusals.entry(reply.reason).or_default() += 1;
        }
        if reply.outcome == Outcome::Committed.code() {
            let end = reply.offset.to_native() + 1;
            let known = self.acknowledged.entry(group).or_default();
            *known = (*known).max(end);
        }
    }

    pub(crate) fn complete(&mut self, at: usize) {
        match self.flying.remove(at) {
            Write::Journal(store) => {
                let bytes = store.runs.concat();
                put(
                    &mut self.files,
                    (None, store.slot),
                    store.position as usize,
                    &bytes,
                );
                self.step(Input::Stored(store.write));
            }
            Write::Remove(gone) => {
                gone.iter().for_each(|file| _ = self.files.0.remove(file));
            }
            Write::Segment {
                write,
                file,
                position,
                buffer,
            } => {
                put(&mut self.files, file, position, &buffer);
                self.step(Input::SegmentStored(write));
            }
        }
    }

    /// The disk has no space for the oldest write of a segment.
    pub(crate) fn refuse(&mut self, at: usize) {
        let Write::Segment { write, .. } = self.flying.remove(at) else {
            panic!("only segments find no space")
        };
        self.step(Input::SegmentRefused(write));
    }

    /// Time passes, and nothing is asked for.
    pub(crate) fn rest(&mut self, span: Nanos) {
        self.now = self.now.after(span);
        self.turn();
    }

    /// The producer begins anew, whatever became of its appends.
    fn begin_life(&mut self) {
        self.epoch += 1;
        self.next_sequence.clear();
    }

    pub(crate) fn complete_all(&mut self) {
        while !self.flying.is_empty() {
            self.complete(0);
        }
    }

    /// What is in flight, in parts that are there or not.
    fn pieces(&self) -> Vec<Piece> {
        let mut pieces = Vec::new();
        let journal: Vec<Store> = self
            .flying
            .iter()
            .filter_map(journal_store)
            .cloned()
            .collect();
        for part in parts(&journal) {
            let file = (None, part.slot as u32);
            pieces.push(Piece::of(file, part));
        }
        for write in &self.flying {
            if let Write::Remove(gone) = write {
                pieces.extend(gone.iter().copied().map(Piece::deletion));
            }
            let Write::Segment {
                file,
                position,
                buffer,
                ..
            } = write
            else {
                continue;
            };
            // The first sector may be the segment's header, the last has a cut block's end.
            let last = (buffer.len() - SECTOR).max(SECTOR.min(buffer.len()));
            let cuts = [0, SECTOR.min(buffer.len()), last, buffer.len()];
            for cut in cuts.windows(2).filter(|cut| cut[0] < cut[1]) {
                let part = Part {
                    slot: 0,
                    position: position + cut[0],
                    bytes: buffer[cut[0]..cut[1]].to_vec(),
                };
                pieces.push(Piece::of(*file, part));
            }
        }
        pieces
    }
}

pub(crate) fn journal_store(write: &Write) -> Option<&Store> {
    match write {
        Write::Journal(store) => Some(store),
        Write::Segment { .. } | Write::Remove(_) => None,
    }
}

fn tag() -> u32 {
    directory_tag(CLUSTER, ME, INCARNATION)
}

pub(crate) fn recovered(state: &State<'_>) -> Recovered {
    let identity = Identity {
        ring: RING,
        node_tag: tag(),
    };
    let found = recover(&identity, &mut |slot, position, size| {
        state.read(Source::Journal { slot }, position, size)
    });
    found.expect("nothing that was promised is lost")
}

/// That what is there of a log is one sound chain, and not less than was promised.
pub(crate) fn judge(world: &World, state: &State<'_>, truth: &Recovered, found: &Recovered) {
    for (id, group) in &found.groups {
        let truth = &truth.groups[id];
        audit(state, *id, group.checkpoint.as_ref());
        let (last, base) = (group.tail.last_index(), group.tail.base());
        assert!(last <= truth.tail.last_index());
        // Each block names the one before it by its sum, so the last one tells of all.
        if let Some(sum) = sum_at(truth, last) {
            let ours = sum_at(group, last).expect("its own last block");
            assert_eq!(ours, sum, "group {id} block {last} above {}", base.index);
        }
        let acknowledged = world.acknowledged.get(&id.0).copied().unwrap_or_default();
        let end = group.tail.next_offset().0;
        assert!(
            end >= acknowledged,
            "group {id}: acknowledged through {acknowledged}, found {end}"
        );
        // What is decided and lies only in the journal is known to be once there is a leader.
        let trimmed = world.trimmed.get(&id.0).copied().unwrap_or_default();
        let (start, latest) = (group.trims.start().0, group.trims.latest().0);
        assert!(
            latest >= trimmed,
            "group {id}: trimmed to {trimmed}, found {latest}"
        );
        assert!(start <= end && latest <= truth.trims.latest().0);
    }
    for (id, acknowledged) in &world.acknowledged {
        assert!(*acknowledged == 0 || found.groups.contains_key(&GroupId(*id)));
    }
}

fn sum_at(group: &GroupRecovered, index: Index) -> Option<u32> {
    if index == group.tail.base().index {
        return Some(group.tail.base().sum);
    }
    group.tail.entry(index).map(|entry| entry.sum)
}

fn audit(state: &State<'_>, group: GroupId, checkpoint: Option<&Checkpoint>) {
    let Some(checkpoint) = checkpoint else { return };
    let mut audit = Audit::new(CLUSTER, tag(), group);
    for number in checkpoint.first_segment..=checkpoint.segment {
        let source = |number| Source::Segment { group, number };
        let end = if number == checkpoint.segment {
            End::Grows(checkpoint.segment_size)
        } else {
            let next = state
                .read(source(number + 1), 0, SECTOR)
                .expect("vouched for");
            let header = SegmentHeader::check(&next).expect("vouched for");
            End::Sealed(header.previous_size)
        };
        let size = state.size((Some(group.0), number)).expect("vouched for");
        let contents = state.read(source(number), 0, size).expect("it is there");
        let read = Box::new(move |position: u64, size: usize| {
            let from = (position as usize).min(contents.len());
            Ok(contents.slice(from..(from + size).min(contents.len())))
        });
        audit.segment(number, end, SegmentPieces::new(size as u64, read));
    }
    let found = audit.finish(Some(checkpoint.base()));
    assert!(
        found.faults.is_empty(),
        "group {group}: {:#?}",
        found.faults
    );
}

/// Whether a write puts a trim.
fn holds_trim(store: &Store) -> bool {
    let is_trim =
        |item: ItemSeen| matches!(item, ItemSeen::Block(header) if header.kind == BlockKind::Trim);
    let items = store.runs.iter().flat_map(|run| flush_of(run).items);
    items.map(|item| item.item.expect("sound")).any(is_trim)
}

/// Whether a write puts blocks again.
fn holds_copies(store: &Store) -> bool {
    store.runs.iter().any(|run| flush_of(run).header.copies)
}

#[derive(Debug, Default)]
struct Census {
    moments: u64,
    states: u64,
    writes_max: usize,
    in_flight: BTreeMap<&'static str, u64>,
}

impl Census {
    fn note(&mut self, world: &World) {
        let mut kinds = Vec::new();
        for write in &world.flying {
            kinds.push(match write {
                Write::Journal(_) => "journal",
                Write::Remove(_) => "removal",
                Write::Segment { buffer, .. } if SegmentFooter::check(buffer).is_ok() => "seal",
                Write::Segment {
                    position: 0, file, ..
                } if file.1 > 0 => "segment rolled",
                Write::Segment { position: 0, .. } => "first segment",
                Write::Segment { .. } => "segment grown",
            });
        }
        let stores = || world.flying.iter().filter_map(journal_store);
        kinds.extend(stores().any(holds_trim).then_some("trim"));
        kinds.extend(stores().any(holds_copies).then_some("copies"));
        if kinds.contains(&"journal") && kinds.len() > 1 {
            kinds.push("both");
        }
        kinds.sort_unstable();
        kinds.dedup();
        for kind in kinds {
            *self.in_flight.entry(kind).or_default() += 1;
        }
        self.moments += 1;
        self.writes_max = self.writes_max.max(world.flying.len());
    }
}

fn explore(world: &World, census: &mut Census) {
    let pieces = world.pieces();
    let whole = State {
        files: &world.files,
        pieces: pieces.iter().collect(),
        sizes: BTreeMap::new(),
    };
    let truth = recovered(&whole);
    let grown: BTreeMap<FileName, usize> = pieces
        .iter()
        .filter(|piece| piece.file.0.is_some() && !piece.is_deletion)
        .map(|piece| (piece.file, whole.size(piece.file).expect("it has a piece")))
        .collect();
    census.note(world);
    for subset in 0..1_u32 << pieces.len() {
        let is_there = |number: usize| subset & 1 << number != 0;
        for sizes in [BTreeMap::new(), grown.clone()] {
            let state = State {
                files: &world.files,
                pieces: (0..pieces.len())
                    .filter(|at| is_there(*at))
                    .map(|at| &pieces[at])
                    .collect(),
                sizes,
            };
            let found = recovered(&state);
            judge(world, &state, &truth, &found);
            // That the heads of the segments are taken, too.
            if census.states.is_multiple_of(37) {
                open(world.now, &state);
            }
            census.states += 1;
            if grown.is_empty() {
                break;
            }
        }
    }
}

/// States of which a sample takes moments with few of them, so as to have more moments.
const SAMPLE_COUNT_MAX: u64 = 100_000;

fn search(wanted: u64) -> Census {
    let piece_count_max = if wanted < SAMPLE_COUNT_MAX { 6 } else { 11 };
    let mut census = Census::default();
    let mut seed = 0;
    while census.states < wanted {
        let mut world = World::new(seed);
        for turn in 0..600 {
            for _ in 0..world.rng.below(3) {
                let group = 1 + world.rng.below(u64::from(GROUPS)) as u32;
                world.append(group);
            }
            if world.rng.chance(40) {
                let group = 1 + world.rng.below(u64::from(GROUPS)) as u32;
                world.trim(group);
            }
            world.turn();
            let is_rare = world
                .flying
                .iter()
                .any(|write| journal_store(write).is_none_or(holds_trim));
            let is_due = if is_rare {
                turn % 3 == 0
            } else {
                turn % 41 == 0
            };
            if is_due && !world.flying.is_empty() && world.pieces().len() <= piece_count_max {
                explore(&world, &mut census);
            }
            if census.states >= wanted {
                break;
            }
            while !world.flying.is_empty() && world.rng.chance(2) {
                let at = world.rng.below(world.flying.len() as u64) as usize;
                world.complete(at);
            }
            if world.rng.chance(150) {
                world.crash();
            }
        }
        assert!(
            world.acknowledged.values().sum::<u64>() > 0,
            "the load was real"
        );
        seed += 1;
    }
    census
}

#[test]
fn every_state_of_journal_and_segments_that_a_crash_may_leave_is_one_chain() {
    let wanted = match std::env::var("CRASH_STATES") {
        Ok(count) => count.parse().expect("CRASH_STATES is a number"),
        Err(_) => 2_000,
    };
    let census = search(wanted);
    println!("{census:#?}");
    assert!(census.states >= wanted);
    for kind in ["journal", "segment grown", "both", "removal"] {
        assert!(
            census.in_flight.contains_key(kind),
            "{kind} was never in flight"
        );
    }
    if wanted >= SAMPLE_COUNT_MAX {
        for kind in ["seal", "segment rolled", "trim"] {
            assert!(
                census.in_flight.contains_key(kind),
                "{kind} was never in flight"
            );
        }
        assert!(census.writes_max >= 3);
    }
}
