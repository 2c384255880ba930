//! A node: a machine with a disk, and on it, most of the time, a process with a shard.
//!
//! The process does what a real one does around a shard: it collects what arrived, steps each, ends
//! the turn, and has the effects carried out. It decides nothing. Knows no other node.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::clock::Clock;
use super::disk::{Disk, Lost};
use super::link::{LANES, Link};
use super::network::{Chunk, Party, StreamId};
use super::swarm::Swarm;
use crate::frame::assembler::{Assembler, TagPolicy};
use crate::frame::code::RefusedReason;
use crate::frame::header::ClusterTag;
use crate::id::{ClusterId, ConnectionId, Incarnation, Lsn, Nanos, NodeId, ShardId};
use crate::log::WriteId;
use crate::log::ring::Ring;
use crate::raft::Raft;
use crate::shard::{Config, Effects, LoadId, LogName, SegmentWriteId, Shard, Voter};

/// The one cluster.
pub(super) const CLUSTER: ClusterId = ClusterId(0x5249_4e47_574f_4f44);

/// Something that reached a process and waits for its next turn.
#[derive(Debug)]
pub(super) enum Arrival {
    /// Bytes on an accepted connection.
    Bytes(ConnectionId, Chunk),
    /// An accepted connection ended.
    Ended(ConnectionId),
    /// A dial succeeded.
    Connected(StreamId),
    /// A dialled connection ended, or was not made; `refused`: the peer's process is gone.
    Lost { stream: StreamId, refused: bool },
    /// Bytes came back on a dialled connection: why the peer does not take what is sent there.
    Answered(StreamId, Bytes),
    /// An accepted connection is not wanted any more: it took too long, or there are too many.
    Unwanted(ConnectionId, RefusedReason),
    /// The process is asked to stop.
    Stop,
    /// A journal write is done.
    Stored(WriteId),
    /// What is known of starts is on disk.
    PinsStored,
    /// How far the journal is durable is on disk.
    PersistStored,
    /// A segment write is done, or found no space.
    SegmentStored(SegmentWriteId, bool),
    /// A read is done.
    Loaded(LoadId, Bytes),
}

/// An accepted connection.
#[derive(Debug)]
pub(super) struct Accepted {
    pub(super) stream: StreamId,
    /// Elsewhere while its frames are stepped.
    pub(super) assembler: Option<Box<Assembler<Bytes>>>,
    /// Bytes came that were damaged on their way.
    pub(super) is_suspect: bool,
    /// No more is received; it ends with the turn.
    pub(super) is_closing: bool,
}

/// One life of a node's process.
#[derive(Debug)]
pub(super) struct Process {
    pub(super) shard: Shard,
    pub(super) effects: Effects,
    pub(super) inbox: Vec<Arrival>,
    pub(super) links: Vec<Link>,
    pub(super) connections: BTreeMap<ConnectionId, Accepted>,
    next_connection: u64,
    /// Those that end with the turn.
    pub(super) closing: Vec<ConnectionId>,
    /// No turn before this: the loop is busy, or stands still.
    pub(super) busy_until: Nanos,
    sleep_span: Nanos,
    pub(super) clock: Clock,
    /// Crash after so many more steps and effects.
    pub(super) fuse: Option<u64>,
    /// It is on its way out, and leaves by then, whomever it owes what.
    pub(super) stop_by: Option<Nanos>,
    /// It has left, but for the writes that are under way.
    pub(super) is_leaving: bool,
}

impl Process {
    pub(super) fn new(now: Nanos, shard: Shard, clock: Clock, me: Party, swarm: &Swarm) -> Self {
        let peers = (0..swarm.node_count).filter(|peer| *peer != me);
        let lanes = |peer| LANES.map(|lane| Link::new(now, peer, lane, swarm.redial_span));
        Self {
            shard,
            effects: Effects::default(),
            inbox: Vec::new(),
            links: peers.flat_map(lanes).collect(),
            connections: BTreeMap::new(),
            next_connection: 0,
            closing: Vec::new(),
            busy_until: now,
            sleep_span: swarm.sleep_span,
            clock,
            fuse: None,
            stop_by: None,
            is_leaving: false,
        }
    }

    pub(super) fn accept(&mut self, stream: StreamId) -> ConnectionId {
        self.next_connection += 1;
        let id = ConnectionId(self.next_connection);
        let policy = TagPolicy::ExactOrHello(ClusterTag::of(CLUSTER));
        let assembler = Some(Box::new(Assembler::new(policy)));
        self.connections.insert(
            id,
            Accepted {
                stream,
                assembler,
                is_suspect: false,
                is_closing: false,
            },
        );
        id
    }

    /// Logs that are about to begin anew: their checkpoint is on its way to the disk.
    pub(super) fn restores_under_way(&self) -> u64 {
        let rafts = self.shard.rafts();
        let is_cut = |raft: &&Raft| raft.durable() < raft.tail().base().index;
        rafts.filter(is_cut).count() as u64
    }

    /// Whether the fuse burns down with this step or effect.
    pub(super) fn burn(&mut self) -> bool {
        match &mut self.fuse {
            Some(0) => true,
            Some(left) => {
                *left -= 1;
                false
            }
            None => false,
        }
    }

    /// Whether it was asked to stop, and owes nobody anything any more or has had its time.
    pub(super) fn is_over(&self, now: Nanos) -> bool {
        self.stop_by
            .is_some_and(|by| self.shard.is_gone() || by <= now)
    }

    /// When the process wants its next turn, if nothing arrives before.
    pub(super) fn deadline(&self) -> Nanos {
        let mut deadline = self.clock.true_time(self.shard.deadline());
        for link in &self.links {
            deadline = link.due_at().map_or(deadline, |due| deadline.min(due));
        }
        if let Some(stop_by) = self.stop_by {
            deadline = deadline.min(stop_by);
        }
        // A bound on how late a lost wake-up could make anything, as in a real loop.
        deadline.min(self.busy_until.after(self.sleep_span))
    }
}

/// Waits for one of the next reads and writes of a node to be done; that many are let pass.
#[derive(Clone, Copy, Debug)]
pub(super) enum Trap {
    /// It fails, and the process ends for it: what a disk has failed at is not tried again.
    Error(u64),
    /// The process ends before it hears of it.
    Crash(u64),
    /// It is reported done, and is not there: for the next write of the journal.
    Lose(u64),
}

/// A machine.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) disk: Disk,
    /// Counts processes.
    pub(super) life: u32,
    pub(super) process: Option<Process>,
    /// The machine itself is up: it refuses dials when its process is gone.
    pub(super) has_power: bool,
    /// Segments find no space.
    pub(super) is_full: bool,
    pub(super) trap: Option<Trap>,
    /// No read or write is done before this.
    pub(super) stuck_until: Nanos,
    /// Each takes this much longer than on others.
    pub(super) store_lag: Nanos,
    /// How much longer than others the loop takes.
    pub(super) turn_factor: u64,
    /// The next process ends after so many steps and effects.
    pub(super) next_fuse: Option<u64>,
    /// Frames that its processes sent to peers.
    pub(super) sent_count: u64,
    /// Promised bytes of its disk were damaged.
    pub(super) is_damaged: bool,
    /// They were while its process ran, which does not know.
    pub(super) is_rotten: bool,
    /// What a lost write should have left, and where its runs end.
    pub(super) lost: Option<(Lost, Lsn)>,
    /// Its process refuses to start, for good.
    pub(super) is_out: bool,
}

impl Node {
    /// A machine with an empty disk, its process not yet started.
    pub(super) fn new(ring: &Ring) -> Self {
        Self {
            disk: Disk::new(ring),
            life: 0,
            process: None,
            has_power: true,
            is_full: false,
            trap: None,
            stuck_until: Nanos(0),
            store_lag: Nanos(0),
            turn_factor: 1,
            next_fuse: None,
            sent_count: 0,
            is_damaged: false,
            is_rotten: false,
            lost: None,
            is_out: false,
        }
    }
}

/// The identity of a node, by its number.
pub(super) fn node_id(party: Party) -> NodeId {
    NodeId(party as u64 + 1)
}

/// The number of a node, by its identity.
pub(super) fn party_of(node: NodeId) -> Party {
    usize::try_from(node.0 - 1).expect("identities are small here")
}

/// What a node's process is told at its start.
pub(super) fn config(
    me: Party,
    node_count: usize,
    groups: &[crate::id::GroupId],
    seed: u64,
) -> Config {
    let voter = |party: Party| Voter {
        id: node_id(party),
        name: format!("node-{}", party + 1),
        address: format!("node-{}:7401", party + 1),
    };
    let log = |group: &crate::id::GroupId| LogName {
        group: *group,
        name: format!("log-{}", group.0),
    };
    Config {
        cluster: CLUSTER,
        cluster_name: "sim".to_owned(),
        me: node_id(me),
        incarnation: Incarnation(7 + me as u64),
        start: seed | 1,
        shard: ShardId(0),
        voters: (0..node_count).map(voter).collect(),
        logs: groups.iter().map(log).collect(),
        retention: BTreeMap::new(),
        seed,
        version: "sim".to_owned(),
        storage: "sim".to_owned(),
    }
}
