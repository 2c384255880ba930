//! A shard: one thread's journal, groups and sessions, and the one door between them and the world.
//!
//! `step` takes what happened and leaves what is to be done in `Effects`; it cannot wait, and it
//! knows no socket, file or clock. Order that matters for safety is kept here: an answer that
//! depends on a write is held until that write, and all before it, is reported durable.

mod append;
mod catch_up;
mod effects;
mod fetch;
mod group;
mod input;
mod liveness;
mod peer;
mod segments;
mod session;
mod status;

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::frame::{Frame, Lane, Message, RefusedReason, Writer};
use crate::id::{ClusterId, ConnectionId, GroupId, Incarnation, Index, Lsn, Nanos, NodeId, ShardId};
use crate::log::{Journal, Recovered};
use crate::raft::{self, After, Outbox, Output, Raft};

use catch_up::CatchUps;
pub use effects::{Effect, Effects, LoadId, Outgoing, SegmentWriteId, Source};
use fetch::Loads;
use group::{Group, Replicate};
pub use input::Input;
use liveness::Liveness;
use session::{Claim, Party, Sessions};
pub use session::WIRE_VERSION;

/// A voter of the cluster, as `init` was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Voter {
    /// Derived from the cluster's and its own name.
    pub id: NodeId,
    /// As given to `init`.
    pub name: String,
    /// `HOST:PORT`.
    pub address: String,
}

/// A log and the group that keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogName {
    /// The group.
    pub group: GroupId,
    /// The name clients use.
    pub name: String,
}

/// What a shard is told once, at its start.
#[derive(Clone, Debug)]
pub struct Config {
    /// The cluster.
    pub cluster: ClusterId,
    /// Its name.
    pub cluster_name: String,
    /// This node; one of `voters`.
    pub me: NodeId,
    /// This directory's life.
    pub incarnation: Incarnation,
    /// Which of the node's shards this is.
    pub shard: ShardId,
    /// All voters, of every log.
    pub voters: Vec<Voter>,
    /// The logs, by ascending group.
    pub logs: Vec<LogName>,
    /// Seeds election jitter; differs per node.
    pub seed: u64,
    /// The build, for `status`.
    pub version: String,
    /// How durable writes are done here, for `status`.
    pub storage: String,
}

/// One thread's share of a node.
#[derive(Debug)]
pub struct Shard {
    config: Config,
    peers: Vec<NodeId>,
    journal: Journal,
    groups: Vec<Group>,
    positions: BTreeMap<GroupId, usize>,
    liveness: Liveness,
    sessions: Sessions,
    writer: Writer,
    outbox: Outbox,
    /// Effects that may leave once the run at their lsn is durable, in the order they arose.
    held: Vec<(Lsn, Effect)>,
    /// Position of the group whose block is open in the journal's open run.
    open_block: Option<usize>,
    loads: Loads,
    catch_ups: CatchUps,
    next_read: u64,
    /// When the loop was to come back at the latest, for measuring how late it was.
    planned: Nanos,
}

impl Shard {
    /// A shard as recovery left it: every group a follower that knows nothing of a leader.
    #[must_use]
    pub fn new(now: Nanos, config: Config, recovered: Recovered) -> Self {
        let peers: Vec<NodeId> =
            config.voters.iter().map(|voter| voter.id).filter(|id| *id != config.me).collect();
        assert!(peers.len() + 1 == config.voters.len(), "this node is one of the voters");
        let mut voters: Vec<NodeId> = config.voters.iter().map(|voter| voter.id).collect();
        voters.sort_unstable();
        let Recovered { journal, mut groups, .. } = recovered;
        let mut positions = BTreeMap::new();
        let mut list = Vec::with_capacity(config.logs.len());
        for log in &config.logs {
            let found = groups.remove(&log.group).unwrap_or_default();
            let raft_config = raft::Config {
                group: log.group,
                me: config.me,
                voters: voters.clone(),
                seed: config.seed ^ (u64::from(log.group.0) << 32),
            };
            positions.insert(log.group, list.len());
            list.push(Group::new(log, Raft::new(now, raft_config, found.hard, found.tail), found));
        }
        let liveness = Liveness::new(now, peers.iter().copied());
        Self {
            writer: Writer::new(config.cluster),
            peers,
            journal: Journal::open(journal),
            groups: list,
            positions,
            liveness,
            sessions: Sessions::default(),
            outbox: Outbox::default(),
            held: Vec::new(),
            open_block: None,
            loads: Loads::default(),
            catch_ups: CatchUps::default(),
            next_read: 0,
            planned: now,
            config,
        }
    }

    /// The one door in. `now` never goes back.
    pub fn step(&mut self, now: Nanos, input: Input<'_>, effects: &mut Effects) {
        match input {
            Input::Frame { connection, frame } => self.on_frame(now, connection, frame, effects),
            Input::ConnectionClosed(connection) => self.on_connection_closed(connection),
            Input::PeerConnected(peer) => self.on_peer_connected(peer),
            Input::PeerRefused(peer) => self.on_peer_refused(now, peer, effects),
            Input::Stored(write) => self.on_stored(now, write, effects),
            Input::SegmentStored(write) => self.on_segment_stored(write),
            Input::Loaded { load, bytes } => self.on_loaded(now, load, &bytes, effects),
            Input::TurnEnd => self.on_turn_end(now, effects),
        }
    }

    /// When `TurnEnd` is due at the latest, if nothing arrives before.
    #[must_use]
    pub fn deadline(&self) -> Nanos {
        self.planned
    }

    /// The frame that opens a connection of this node to a peer.
    #[must_use]
    pub fn hello(&mut self, lane: Lane) -> Bytes {
        let hello = Hello {
            cluster: self.config.cluster.0.to_le_bytes(),
            node: self.config.me.0,
            incarnation: self.config.incarnation.0,
            shard: self.config.shard.0,
            lane: lane.code(),
            version_min: WIRE_VERSION,
            version_max: WIRE_VERSION,
        };
        self.writer.outgoing(&hello).head
    }

    fn on_frame(
        &mut self,
        now: Nanos,
        connection: ConnectionId,
        frame: &Frame<'_>,
        effects: &mut Effects,
    ) {
        let message = match frame.message() {
            Ok(message) => message,
            Err(refusal) => {
                self.refuse(connection, RefusedReason::Malformed, &refusal.to_string(), effects);
                return;
            }
        };
        match self.sessions.party(connection) {
            Some(Party::Peer(from)) => self.on_peer_message(now, from, &message, frame, effects),
            Some(Party::Client) => {
                self.on_client_message(now, connection, &message, frame, effects);
            }
            None => self.on_first_message(connection, &message, effects),
        }
    }

    fn on_first_message(
        &mut self,
        connection: ConnectionId,
        message: &Message<'_>,
        effects: &mut Effects,
    ) {
        let Message::Hello(hello) = message else {
            let detail = "the first frame of a connection must be a hello";
            self.refuse(connection, RefusedReason::NoHello, detail, effects);
            return;
        };
        let claim = Claim {
            cluster: ClusterId(u128::from_le_bytes(hello.cluster)),
            node: NodeId(hello.node.to_native()),
            lane: Lane::from_code(hello.lane),
            version_min: hello.version_min,
            version_max: hello.version_max,
        };
        match self.sessions.open(connection, claim, self.config.cluster, &self.peers) {
            Ok(Party::Client) => {
                let frame = self.writer.outgoing(&self.config.welcome());
                effects.push(Effect::Reply { connection, frame });
            }
            Ok(Party::Peer(_)) => {}
            Err((reason, detail)) => self.refuse(connection, reason, &detail, effects),
        }
    }

    fn on_client_message(
        &mut self,
        now: Nanos,
        connection: ConnectionId,
        message: &Message<'_>,
        frame: &Frame<'_>,
        effects: &mut Effects,
    ) {
        match message {
            Message::Append(body) => self.on_append(connection, body, frame, effects),
            Message::Fetch(body) => self.on_fetch(now, connection, body, effects),
            Message::StatusRequest(body) => {
                let status = self.status(body.request.to_native());
                let frame = self.writer.outgoing(&status);
                effects.push(Effect::Reply { connection, frame });
            }
            Message::Transfer(body) => self.on_transfer(now, connection, body, effects),
            _ => {
                // H8: a client does not speak as a node. Nothing of the body was looked at.
                let detail = "this frame is not for the client lane";
                self.refuse(connection, RefusedReason::WrongLane, detail, effects);
            }
        }
    }

    fn refuse(
        &mut self,
        connection: ConnectionId,
        reason: RefusedReason,
        detail: &str,
        effects: &mut Effects,
    ) {
        let body = Refused { reason: reason.code(), detail: detail.as_bytes().to_vec() };
        let frame = self.writer.outgoing(&body);
        effects.push(Effect::Reply { connection, frame });
        effects.push(Effect::Close(connection));
        self.on_connection_closed(connection);
    }

    fn on_connection_closed(&mut self, connection: ConnectionId) {
        self.sessions.close(connection);
        for group in &mut self.groups {
            group.forget_connection(connection);
        }
    }

    fn on_peer_connected(&mut self, peer: NodeId) {
        self.liveness.on_connected(peer, true);
        for group in &mut self.groups {
            group.raft.on_peer_connected(peer);
            group.is_dirty = true;
        }
    }

    fn on_peer_refused(&mut self, now: Nanos, peer: NodeId, effects: &mut Effects) {
        self.liveness.on_connected(peer, false);
        for position in 0..self.groups.len() {
            self.with_raft(position, effects, |raft, out| raft.on_peer_refused(now, peer, out));
        }
    }

    /// A journal write is done: what waited for the durable prefix may leave.
    fn on_stored(&mut self, now: Nanos, write: WriteId, effects: &mut Effects) {
        let before = self.journal.durable();
        let durable = self.journal.stored(write);
        assert!(durable >= before, "the durable prefix never shrinks");
        if durable == before {
            return;
        }
        for position in 0..self.groups.len() {
            self.with_raft(position, effects, |raft, out| raft.stored(now, durable, out));
        }
        let ready = self.held.extract_if(.., |(lsn, _)| *lsn < durable);
        effects.list.extend(ready.map(|(_, effect)| effect));
        self.on_checkpoints_durable(durable);
    }

    /// Timers, then the run, then what may leave. Everything that has arrived was stepped before:
    /// a loop that was late finds the heartbeats that came meanwhile before it misses them.
    fn on_turn_end(&mut self, now: Nanos, effects: &mut Effects) {
        if now > self.planned {
            self.liveness.on_stall(now.since(self.planned));
        }
        if self.liveness.maybe_retune(now) {
            let timeouts = self.liveness.timeouts();
            for group in &mut self.groups {
                group.raft.set_timeouts(timeouts);
            }
        }
        self.close_block(effects);
        for position in 0..self.groups.len() {
            if self.groups[position].raft.deadline() <= now {
                self.with_raft(now, position, effects, |raft, out| raft.tick(now, out));
            }
            self.wake_waiting(now, position, effects);
            self.advance_segment(now, position, effects);
        }
        // A new leader's no-op may be open by now.
        self.close_block(effects);
        for position in 0..self.groups.len() {
            if std::mem::take(&mut self.groups[position].is_dirty) {
                self.with_raft(now, position, effects, |raft, out| raft.flush(now, out));
                self.groups[position].is_dirty = false;
            }
        }
        if self.liveness.take_heartbeat_due(now) {
            self.send_heartbeats(now, effects);
        }
        self.journal.seal();
        for position in 0..self.groups.len() {
            self.send_replicates(now, position, effects);
        }
        while let Some(store) = self.journal.next_store() {
            effects.push(Effect::Store(store));
        }
        self.planned = self.next_deadline(now);
    }

    fn next_deadline(&self, now: Nanos) -> Nanos {
        let mut deadline = self.liveness.deadline();
        for group in &self.groups {
            deadline = deadline.min(group.raft.deadline());
            for waiting in &group.waiting {
                deadline = deadline.min(waiting.deadline);
            }
        }
        deadline.max(now)
    }

    /// Calls a group's Raft and carries out what it wants. Without room in the journal nothing is
    /// called: the input counts as lost, which Raft survives, and room comes as segments are
    /// written.
    fn with_raft(
        &mut self,
        now: Nanos,
        position: usize,
        effects: &mut Effects,
        call: impl FnOnce(&mut Raft, &mut Outbox),
    ) {
        // What Raft does may depend on the last block: it must know of it first.
        if self.open_block == Some(position) {
            self.close_block(effects);
        }
        let Some(lsn) = self.journal.open_lsn() else {
            self.journal_full_count += 1;
            return;
        };
        let mut outbox = std::mem::take(&mut self.outbox);
        outbox.lsn = lsn;
        call(&mut self.groups[position].raft, &mut outbox);
        self.groups[position].is_dirty = true;
        let mut list = std::mem::take(&mut outbox.list);
        self.outbox = outbox;
        for output in list.drain(..) {
            self.carry_out(now, position, output, effects);
        }
        // Carrying out may have called Raft again, with a list of its own; the larger is kept.
        if list.capacity() > self.outbox.list.capacity() {
            self.outbox.list = list;
        }
    }

    fn carry_out(
        &mut self,
        now: Nanos,
        position: usize,
        output: Output,
        effects: &mut Effects,
    ) {
        match output {
            Output::Persist(hard) => {
                self.journal.put_hard_state(self.groups[position].id, hard);
            }
            Output::Send { to, message, after } => {
                let frame = self.message_frame(self.groups[position].id, message);
                let effect = Effect::Send { to, lane: Lane::Control, frame };
                match after {
                    After::Stored(lsn) if lsn >= self.journal.durable() => {
                        self.held.push((lsn, effect));
                    }
                    After::Stored(_) | After::Now => effects.push(effect),
                }
            }
            Output::Replicate { to, term, prev_index, prev_term, first, last, commit } => {
                self.groups[position].replicates.push(Replicate {
                    to,
                    term,
                    prev_index,
                    prev_term,
                    first,
                    last,
                    commit,
                });
            }
            Output::CatchUp { to, next } => self.on_catch_up(now, position, to, next, effects),
            Output::BecameLeader { term } => self.put_no_op(now, position, term, effects),
            Output::SteppedDown { leader, .. } => {
                self.abandon_acks(position, leader, effects);
                self.wake_waiting(now, position, effects);
            }
            Output::Truncated { from } => self.groups[position].truncate_from(from),
            Output::Committed { index } => self.on_committed(now, position, index, effects),
            Output::BeatNow => self.liveness.hurry_heartbeat(now),
            Output::ReadReady { id, index } => {
                self.on_read_ready(now, position, id, index, effects);
            }
            Output::ReadFailed { id } => self.on_read_failed(position, id, effects),
        }
    }
}
