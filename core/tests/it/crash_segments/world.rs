//! A shard that is its logs' only voter, its client, and the writes of both that are in flight.
//!
//! Whoever plays with it says which write is done when, and when all ends. Knows what was
//! acknowledged, not whether it is still there.

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
use ringwood_core::id::{ClusterId, ConnectionId, GroupId, Incarnation, Nanos, NodeId, ShardId};
use ringwood_core::log::Store;
use ringwood_core::log::block::write_record;
use ringwood_core::shard::{
    Config, Effect, Effects, Input, LogName, SegmentWriteId, Shape, Shard, Source, Voter,
    WIRE_VERSION, directory_tag,
};

use super::files::{FileName, Files, Piece, State, name_of, only, put};
use super::{GROUPS, SECTOR};
use crate::crash_states::{Part, parts};
use crate::log_disk::Rng;

pub(super) const CLUSTER: ClusterId = ClusterId(77);
const ME: NodeId = NodeId(1);
const INCARNATION: Incarnation = Incarnation(7);
const CLIENT: ConnectionId = ConnectionId(2);

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

pub(crate) struct World {
    pub(crate) rng: Rng,
    pub(crate) files: Files,
    shard: Shard,
    pub(crate) flying: Vec<Write>,
    pub(super) now: Nanos,
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
    pub(super) trimmed: BTreeMap<u32, u64>,
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

pub(super) fn open(now: Nanos, state: &State<'_>) -> Shard {
    let mut read = |source, position, size| state.read(source, position, size);
    Shard::open(now, config(), Shape::SMALL, &mut read).expect("a disk that only crashed")
}

impl World {
    pub(crate) fn new(seed: u64) -> Self {
        let mut files = Files::default();
        for slot in 0..Shape::SMALL.ring.file_count {
            files
                .0
                .insert((None, slot), vec![0; Shape::SMALL.ring.file_size as usize]);
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
    pub(super) fn pieces(&self) -> Vec<Piece> {
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

pub(super) fn tag() -> u32 {
    directory_tag(CLUSTER, ME, INCARNATION)
}
