//! A node's door: strangers who speak before they greet, and peers that say impossible numbers.
//!
//! One shard alone on an empty disk that keeps everything at once. Knows no consensus: what is asked
//! is that strangers are turned away before anything of theirs is kept, and that nothing panics.

use bytes::Bytes;
use std::collections::BTreeMap;

use ringwood_core::frame::assembler::{Assembler, TagPolicy};
use ringwood_core::frame::greeting::Hello;
use ringwood_core::frame::peer::{AppendEntries, AppendEntriesAck, VoteReply, VoteRequest};
use ringwood_core::frame::{Gate, Kind, Lane};
use ringwood_core::id::{ConnectionId, GroupId, Incarnation, Nanos, NodeId, ShardId};
use ringwood_core::log::recovery::DiskFault;
use ringwood_core::raft::Bounds;
use ringwood_core::shard::{Config, Effect, Effects, Input, LogName, Shape, Shard, Source, Voter};

use crate::raft::world::Random;
use crate::samples::{CLUSTER, frame, hello, samples, tag};

const GROUP: GroupId = GroupId(1);
const KNOCK_COUNT: u64 = 100;

const SHAPE: Shape = Shape {
    segment_write_size: 64 << 10,
    segment_size_max: 400 << 10,
    bounds: Bounds {
        undecided_size_full: 64 << 10,
        ..Shape::SMALL.bounds
    },
    ..Shape::SMALL
};

/// Knocks at a door again and again.
pub(crate) fn play(seed: u64) {
    let mut door = Door::open(seed);
    for _ in 0..KNOCK_COUNT {
        match door.random.below(3) {
            0 => door.stranger(),
            1 => door.slow_stranger(),
            _ => door.peer(),
        }
    }
}

struct Door {
    shard: Shard,
    random: Random,
    now: Nanos,
    next_connection: u64,
}

impl Door {
    fn open(seed: u64) -> Self {
        let voter = |id| Voter {
            id: NodeId(id),
            name: format!("node-{id}"),
            address: format!("node-{id}:7401"),
        };
        let config = Config {
            cluster: CLUSTER,
            cluster_name: "door".to_owned(),
            me: NodeId(1),
            incarnation: Incarnation(1),
            start: 1,
            shard: ShardId(0),
            voters: (1..=3).map(voter).collect(),
            logs: vec![LogName {
                group: GROUP,
                name: "log".to_owned(),
            }],
            retention: BTreeMap::new(),
            seed,
            version: "test".to_owned(),
            storage: "test".to_owned(),
        };
        let mut zeros = |source, _, size| match source {
            Source::Journal { .. } => Ok(Bytes::from(vec![0; size])),
            Source::Segment { .. } | Source::Pins | Source::Persist => Err(DiskFault { errno: 2 }),
        };
        let shard = Shard::open(Nanos(0), config, SHAPE, &mut zeros);
        let mut door = Self {
            shard: shard.expect("an empty journal is a fresh node's"),
            random: Random(seed),
            now: Nanos(0),
            next_connection: 0,
        };
        door.end_turn();
        assert!(door.shard.is_open(), "its first write is done");
        door
    }

    /// Ends a turn; the disk has at once whatever it is given.
    fn end_turn(&mut self) {
        self.now = self.now.after(Nanos::from_millis(1));
        let mut effects = Effects::default();
        self.shard.step(self.now, Input::TurnEnd, &mut effects);
        for effect in effects.list {
            let input = match effect {
                Effect::Store(store) => Input::Stored(store.write),
                Effect::StorePins { .. } => Input::PinsStored,
                Effect::StorePersist { .. } => Input::PersistStored,
                _ => continue,
            };
            self.shard.step(self.now, input, &mut Effects::default());
        }
    }

    fn connect(&mut self) -> ConnectionId {
        self.next_connection += 1;
        ConnectionId(self.next_connection)
    }

    /// Steps one frame, and says what came of it.
    fn step(&mut self, connection: ConnectionId, bytes: &[u8]) -> Vec<Effect> {
        let mut assembler = Assembler::new(TagPolicy::ExactOrHello(tag()));
        assembler.push(bytes);
        let frame = assembler.next().expect("a sound frame");
        let frame = &frame.expect("a whole one");
        let mut effects = Effects::default();
        let input = Input::Frame { connection, frame };
        self.shard.step(self.now, input, &mut effects);
        effects.list
    }

    /// Any frame but a greeting.
    fn stranger(&mut self) {
        let connection = self.connect();
        let samples = samples();
        let others = samples.iter().filter(|sample| sample.kind != Kind::Hello);
        let others: Vec<_> = others.collect();
        let sample = others[self.random.below(others.len() as u64) as usize];
        let effects = self.step(connection, &sample.bytes);
        let is_refused = matches!(
            effects[..],
            [Effect::Reply { .. }, Effect::Close(closed)] if closed == connection
        );
        assert!(is_refused, "a stranger is turned away");
    }

    /// The header of a large frame, whose rest never comes.
    fn slow_stranger(&mut self) {
        let append = samples().into_iter().find(|one| one.kind == Kind::Append);
        let bytes = append.expect("a sample of every kind").bytes;
        let mut assembler = Assembler::new(TagPolicy::ExactOrHello(tag()));
        assembler.set_gate(Gate::Hello);
        let size = 32 + self.random.below(bytes.len() as u64 - 32) as usize;
        assembler.push(&bytes[..size]);
        let judged = assembler.next().map(|frame| frame.is_some());
        assert!(judged.is_err(), "nothing of a stranger's is waited for");
    }

    /// A number that may stand in a message, or one that cannot be.
    fn number(&mut self) -> u64 {
        match self.random.below(4) {
            0 => u64::MAX - self.random.below(3),
            1 => (1 << 62) + 1 + self.random.below(3),
            _ => self.random.below(4),
        }
    }

    /// A peer that greets and then says whatever it likes.
    fn peer(&mut self) {
        let control = self.greeted(Lane::Control);
        let data = self.greeted(Lane::Data);
        for _ in 0..10 {
            let (term, group) = (self.number(), GROUP.0);
            let (connection, said) = match self.random.below(4) {
                0 => (
                    data,
                    frame(
                        &AppendEntries {
                            term,
                            prev_index: self.number(),
                            prev_term: self.number(),
                            commit: self.number(),
                            group,
                            count: 0,
                        },
                        &[],
                    ),
                ),
                1 => (
                    control,
                    frame(
                        &AppendEntriesAck {
                            term,
                            index: self.number(),
                            conflict_term: self.number(),
                            prev_index: self.number(),
                            group,
                            matched: self.random.below(2) as u8,
                        },
                        &[],
                    ),
                ),
                2 => (
                    control,
                    frame(
                        &VoteRequest {
                            term,
                            last_index: self.number(),
                            last_term: self.number(),
                            group,
                            pre: self.random.below(2) as u8,
                            transfer: self.random.below(2) as u8,
                        },
                        &[],
                    ),
                ),
                _ => (
                    control,
                    frame(
                        &VoteReply {
                            term,
                            voter_term: self.number(),
                            group,
                            pre: self.random.below(2) as u8,
                            granted: self.random.below(2) as u8,
                        },
                        &[],
                    ),
                ),
            };
            drop(self.step(connection, &said.bytes));
            self.end_turn();
        }
    }

    fn greeted(&mut self, lane: Lane) -> ConnectionId {
        let connection = self.connect();
        let body = Hello {
            node: 2 + self.random.below(2),
            shard: 0,
            lane: lane.code(),
            ..hello()
        };
        drop(self.step(connection, &frame(&body, &[]).bytes));
        connection
    }
}
