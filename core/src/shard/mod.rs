//! A shard: one thread's journal, groups and sessions, and the one door between them and the world.
//!
//! `step` takes what happened and leaves what is to be done in `Effects`; it cannot wait, and it
//! knows no socket, file or clock. Order that matters for safety is kept here: an answer that
//! depends on a write is held until that write, and all before it, is reported durable.

mod agree;
mod ahead;
mod answer;
mod append;
mod ask;
mod beginning;
#[cfg(feature = "sim")]
mod bounds;
mod carry;
mod catch_up;
mod chain;
mod chunks;
mod config;
mod consensus;
mod door;
mod effects;
mod encoder;
mod fetch;
mod group;
mod heads;
mod holes;
mod input;
mod liveness;
mod load;
mod locate;
mod mend;
mod mended;
mod mending;
mod need;
mod open;
mod peer;
mod persist;
mod pins;
mod pull;
mod refer;
mod repair;
mod restore;
mod retries;
mod room;
mod samples;
mod scrub;
mod segment_map;
mod segments;
mod session;
mod shape;
mod stall;
mod status;
mod stop;
mod trim;
mod walk;
mod watched;
mod wounds;

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::bugs::{self, Switch};
use crate::frame::Lane;
use crate::frame::greeting::Hello;
use crate::frame::message::Body;
use crate::id::{ConnectionId, GroupId, Lsn, Nanos, NodeId, UnixSeconds};
use crate::log::arena::Arenas;
use crate::log::journal::{Journal, WriteId};
use crate::raft::{self, Outbox};

use agree::Rounds;
use ahead::Ahead;
use ask::Asks;
use carry::Carry;
use chunks::Chunks;
pub use config::{Config, LogName, Voter};
pub use effects::{Effect, Effects, LoadId, Outgoing, SegmentWriteId, Source};
use encoder::Encoder;
use group::Group;
pub use input::Input;
use liveness::Liveness;
use load::Loads;
use mend::Mends;
pub use open::{OpenError, Read, directory_tag};
use persist::Persisting;
use pins::Known;
use pull::Pulls;
use refer::Referrals;
use repair::Repairs;
use room::RoomQueue;
use scrub::Scrub;
use session::Sessions;
pub use session::WIRE_VERSION;
pub use shape::Shape;
use stall::Stall;
use stop::Stop;
pub use trim::Retention;

/// Timers that found no room in the journal are tried again after this.
const FULL_PAUSE: Nanos = Nanos::from_millis(5);

/// Until the first flush of a life is durable the loop only waits for it.
const OPENING_PATIENCE: Nanos = Nanos::from_millis(50);

/// One thread's share of a node.
#[derive(Debug)]
pub struct Shard {
    config: Config,
    shape: Shape,
    peers: Vec<NodeId>,
    journal: Journal,
    groups: Vec<Group>,
    positions: BTreeMap<GroupId, usize>,
    known: Known,
    persisting: Persisting,
    liveness: Liveness,
    sessions: Sessions,
    encoder: Encoder,
    outbox: Outbox,
    /// Effects that may leave once the run at their lsn is durable, in the order they arose.
    held: Vec<(Lsn, Effect)>,
    /// Position of the group whose block is open in the journal's open run.
    open_block: Option<usize>,
    loads: Loads,
    ahead: Ahead,
    chunks: Chunks,
    referrals: Referrals,
    pulls: Pulls,
    carry: Carry,
    rounds: Rounds,
    asks: Asks,
    repairs: Repairs,
    mends: Mends,
    scrub: Scrub,
    /// Bytes of undecided blocks of all groups: as of the last turn's end, and what came since.
    undecided_size: u64,
    /// Groups whose blocks found no room.
    room: RoomQueue,
    /// What the journal may forget has changed.
    is_release_due: bool,
    /// Memory that segment writes are gathered in.
    segment_memory: Arenas,
    next_read: u64,
    next_segment_write: u64,
    /// The wall clock's word, as last told.
    date: UnixSeconds,
    /// When retention is looked at next.
    retention_at: Nanos,
    /// A segment write was refused for want of space, and none has succeeded since.
    is_disk_full: bool,
    /// Appends refused because the journal was full.
    refused_full_count: u64,
    /// Frames of peers whose blocks were damaged.
    peer_fault_count: u64,
    /// Bytes copied for readers in this turn.
    fetched_size: usize,
    stall: Stall,
    stop: Stop,
    /// Requests for votes that a late turn has yet to answer.
    questions: Vec<(NodeId, GroupId, raft::Message)>,
    /// When the loop was to come back at the latest, for measuring how late it was.
    planned: Nanos,
}

impl Shard {
    /// The one door in. `now` never goes back.
    pub fn step(&mut self, now: Nanos, input: Input<'_>, effects: &mut Effects) {
        match input {
            Input::Frame { connection, frame } => self.on_frame(now, connection, frame, effects),
            Input::ConnectionClosed(connection) => self.on_connection_closed(connection),
            Input::PeerConnected(peer) => self.on_peer_connected(now, peer),
            Input::StreamRefused {
                connection,
                refusal,
            } => {
                self.on_stream_refused(connection, &refusal, effects);
            }
            Input::ConnectionRefused {
                connection,
                reason,
                detail,
            } => self.refuse(connection, reason, detail, effects),
            Input::LinkRefused { peer, why } => self.liveness.on_refusal(peer, why),
            Input::PeerLost(peer) => self.liveness.on_connected(peer, false),
            Input::PeerRefused(peer) => self.on_peer_refused(now, peer, effects),
            Input::Stored(write) => self.on_stored(now, write, effects),
            Input::PinsStored => self.known.on_stored(),
            Input::PersistStored => self.persisting.on_stored(),
            Input::SegmentStored(_) | Input::SegmentRefused(_) if bugs::is_on(Switch::B36) => {}
            Input::SegmentStored(write) => self.on_write_stored(now, write, effects),
            Input::SegmentRefused(write) => self.on_write_refused(now, write, effects),
            Input::Loaded { load, bytes } => self.on_loaded(now, load, &bytes, effects),
            Input::Date(date) => self.date = date,
            Input::Stop => self.on_stop(),
            Input::TurnEnd => self.on_turn_end(now, effects),
        }
    }

    /// The replicas' consensus, by ascending group: what the simulator judges.
    #[cfg(feature = "sim")]
    pub(crate) fn rafts(&self) -> impl Iterator<Item = &raft::Raft> + Clone {
        self.groups.iter().map(|group| &*group.raft)
    }

    /// Whether no peer was found to hold something else than this node.
    #[cfg(feature = "sim")]
    pub(crate) fn are_alike(&self) -> bool {
        let mut groups = self.groups.iter();
        groups.all(|group| group.agreement.is_calm())
    }

    /// Chunks that came from another replica than the leader, since the start.
    #[cfg(feature = "sim")]
    pub(crate) fn pulled_count(&self) -> u64 {
        self.pulls.taken_count
    }

    /// Whether what was recovered counts as durable by now. Until then the shard only writes the
    /// flush that opens its journal's new life; whatever comes in counts as lost.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.journal.is_open() && self.known.is_begun()
    }

    /// When `TurnEnd` is due at the latest, if nothing arrives before.
    #[must_use]
    pub fn deadline(&self) -> Nanos {
        self.planned
    }

    /// The frame that opens a connection of this node to a peer.
    #[must_use]
    pub fn hello(&mut self, lane: Lane) -> Bytes {
        let (life, starts) = self.known.starts();
        let hello = Hello {
            life,
            starts,
            cluster: self.config.cluster.0.to_le_bytes(),
            node: self.config.me.0,
            incarnation: self.config.incarnation.0,
            shard: self.config.shard.0,
            lane: lane.code(),
            version_min: WIRE_VERSION,
            version_max: WIRE_VERSION,
        };
        self.encoder.frame(&hello).head
    }

    fn on_peer_connected(&mut self, now: Nanos, peer: NodeId) {
        self.liveness.on_connected(peer, true);
        // It may have just started, and know of no leader nor of how long to wait for one.
        self.liveness.hurry_heartbeat(now);
        self.tell_sums_again();
        self.referrals.forget(peer);
        for group in &mut self.groups {
            group.raft.on_peer_connected(peer);
            group.is_dirty = true;
        }
    }

    fn on_peer_refused(&mut self, now: Nanos, peer: NodeId, effects: &mut Effects) {
        self.liveness.on_connected(peer, false);
        for position in 0..self.groups.len() {
            if !self.groups[position].agreement.is_stopped() {
                self.with_raft(now, position, effects, |raft, out| {
                    raft.on_peer_refused(now, peer, out)
                });
            }
        }
    }

    /// A write of a segment is done, or of what shall replace one.
    fn on_write_stored(&mut self, now: Nanos, write: SegmentWriteId, effects: &mut Effects) {
        if !self.on_mend_stored(now, write, effects) {
            self.on_segment_stored(write, effects);
        }
    }

    fn on_write_refused(&mut self, now: Nanos, write: SegmentWriteId, effects: &mut Effects) {
        if !self.on_mend_refused(now, write, effects) {
            self.on_segment_refused(now, write);
        }
    }

    /// A journal write is done: what waited for the durable prefix may leave.
    fn on_stored(&mut self, now: Nanos, write: WriteId, effects: &mut Effects) {
        let late = now.since(self.planned);
        self.stall.writes.stored(now, late, write);
        let before = self.journal.durable();
        let durable = self.journal.stored(write);
        assert!(durable >= before, "the durable prefix never shrinks");
        if durable == before {
            return;
        }
        self.persisting.on_durable(now, durable);
        // Whichever groups this is for: what came before it and what comes after are two blocks.
        self.close_block();
        for position in 0..self.groups.len() {
            let raft = &mut self.groups[position].raft;
            if !raft.awaits_disk() {
                raft.passed_over(durable);
                continue;
            }
            self.tell_raft(now, position, effects, |raft, out| {
                raft.stored(now, durable, out)
            });
        }
        let ready = self.held.extract_if(.., |(lsn, _)| *lsn < durable);
        effects.list.extend(ready.map(|(_, effect)| effect));
        self.settle_carried(durable);
        self.settle_repairs(durable);
        self.settle_holes(now, durable, effects);
        self.on_checkpoints_durable(durable);
        self.remove_segments(durable, effects);
    }

    /// Timers, then the run, then what may leave. Everything that has arrived was stepped before:
    /// a loop that was late finds the heartbeats that came meanwhile before it misses them.
    fn on_turn_end(&mut self, now: Nanos, effects: &mut Effects) {
        let pins = self.known.next_write();
        effects
            .list
            .extend(pins.map(|(position, sector)| Effect::StorePins { position, sector }));
        if !self.is_open() {
            self.store_sealed(now, effects);
            self.planned = now.after(OPENING_PATIENCE);
            return;
        }
        if now > self.planned {
            self.liveness.on_stall(now.since(self.planned));
        }
        self.answer_questions(now, effects);
        if self.liveness.maybe_retune(now) {
            let timeouts = self.liveness.timeouts();
            for group in &mut self.groups {
                group.raft.set_timeouts(timeouts);
            }
        }
        self.close_block();
        self.carry.begin_turn();
        for position in 0..self.groups.len() {
            self.maybe_tick(now, position, effects);
            self.maybe_put_no_op(position);
            self.maybe_put_doubt(position);
            self.wake_waiting(now, position, effects);
            self.advance_segments(now, position, effects);
        }
        self.maybe_retain(now);
        // A new leader's no-op may be open by now.
        self.close_block();
        self.advance_stop(now, effects);
        let record = self.persisting.next_write(now);
        let store = |(position, sector)| Effect::StorePersist { position, sector };
        effects.list.extend(record.map(store));
        self.advance_asks(now, effects);
        self.advance_pulls(now, effects);
        self.advance_repairs(now, effects);
        self.advance_stall(now, effects);
        self.advance_mends(now, effects);
        self.advance_holes(now, effects);
        self.advance_agreement(now, effects);
        for position in 0..self.groups.len() {
            if std::mem::take(&mut self.groups[position].is_dirty) {
                self.tell_raft(now, position, effects, |raft, out| raft.flush(now, out));
                self.groups[position].is_dirty = false;
            }
        }
        if self.liveness.take_heartbeat_due(now) {
            self.send_heartbeats(now, effects);
        }
        self.maybe_release_journal(now, effects);
        self.journal.seal();
        self.advance_scrub(now, effects);
        for position in 0..self.groups.len() {
            self.send_replicates(now, position, effects);
        }
        if self.advance_chunks(now, effects) {
            // What is behind a chunk from memory may be in the run just sealed.
            for position in 0..self.groups.len() {
                self.send_replicates(now, position, effects);
            }
        }
        self.store_sealed(now, effects);
        self.fetched_size = 0;
        self.ahead.expire(now);
        self.undecided_size = self.groups.iter().map(Group::undecided_size).sum();
        self.planned = self.next_deadline(now);
    }

    /// What is sealed leaves for the disk, as far as writes may be under way.
    fn store_sealed(&mut self, now: Nanos, effects: &mut Effects) {
        while let Some(store) = self.journal.next_store() {
            self.stall.writes.leave(now, store.write);
            effects.push(Effect::Store(store));
        }
    }

    fn next_deadline(&self, now: Nanos) -> Nanos {
        let mut deadline = self.liveness.deadline().min(self.agreement_deadline());
        for group in &self.groups {
            let due = match group.agreement.is_stopped() {
                true => Nanos(u64::MAX),
                false => group.raft.due(),
            };
            // What was due and is still so found no room in the journal; asking again at once
            // would only keep the loop from sleeping.
            deadline = deadline.min(if due > now {
                due
            } else {
                now.after(FULL_PAUSE)
            });
            for waiting in &group.waiting {
                deadline = deadline.min(waiting.deadline);
            }
        }
        if let Some(segment) = self.segment_deadline() {
            deadline = deadline.min(segment);
        }
        let own = [
            self.asks.deadline(),
            self.repairs.deadline(),
            self.mends.deadline(),
            self.scrub.deadline(),
            self.holes_deadline(),
            self.persisting.deadline(),
            self.chunks.deadline(),
            self.pulls.deadline(),
        ];
        let own = own.into_iter().flatten().min();
        own.map_or(deadline, |own| deadline.min(own)).max(now)
    }

    fn reply<B: Body>(&mut self, connection: ConnectionId, body: &B, effects: &mut Effects) {
        let frame = self.encoder.frame(body);
        effects.push(Effect::Reply {
            connection,
            frame,
            or_busy: None,
        });
    }

    fn send(&mut self, to: NodeId, lane: Lane, frame: Outgoing, effects: &mut Effects) {
        effects.push(Effect::Send { to, lane, frame });
    }
}
