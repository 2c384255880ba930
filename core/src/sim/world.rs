//! The whole of a run: nodes, clients, the network between them, and the heap of what comes next.
//!
//! One event at a time, in the order of due time and then of making: nothing here depends on an
//! address, a hash or a clock of the machine. What a real node does around its shard is in `turn`,
//! what connections do in `wire`, what clients do in `desks`, what goes wrong in `faults`.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use super::chance::{Chance, mixed};
use super::client::{ClientInput, Role};
use super::clock::Clock;
use super::desks::Desk;
use super::faults::Undo;
use super::history::History;
use super::marks::Marks;
use super::network::{Network, Party, StreamId, Way};
use super::node::{Arrival, Node, Process, config};
use super::oracle::Oracle;
use super::producer::Producer;
use super::reader::Reader;
use super::schedule::{Burst, Planned};
use super::swarm::Swarm;
use super::trace::{Lane, Trace};
use super::trims;
use crate::id::{GroupId, Lsn, Nanos};
use crate::log::WriteId;
use crate::log::recovery::DiskFault;
use crate::shard::{LoadId, OpenError, SegmentWriteId, Shard, Source};

/// The system's number for a disk that failed.
const IO_ERROR: DiskFault = DiskFault { errno: 5 };

/// What comes due.
#[derive(Debug)]
pub(super) enum Event {
    /// A dial reaches the machine it is for.
    Dial { stream: StreamId },
    /// The answer to a dial is back: accepted, or refused.
    Dialled { stream: StreamId, accepted: bool },
    /// A dial has had no answer for too long.
    DialSilent { stream: StreamId },
    /// Something may have arrived on a connection.
    Look { stream: StreamId, way: Way },
    /// A journal write is done.
    Stored {
        node: Party,
        life: u32,
        number: u64,
        write: WriteId,
    },
    /// What is known of starts is on disk.
    PinsStored { node: Party, life: u32, number: u64 },
    /// The persist record is on disk, and says this.
    PersistStored {
        node: Party,
        life: u32,
        number: u64,
        through: Lsn,
    },
    /// A segment write is done.
    SegmentStored {
        node: Party,
        life: u32,
        number: u64,
        write: SegmentWriteId,
    },
    /// A read is done.
    Loaded {
        node: Party,
        life: u32,
        read: Box<PendingRead>,
    },
    /// A machine starts its process.
    Start { node: Party },
    /// Something goes wrong.
    Fault(Planned),
    /// Something that went wrong ends; of which burst it is.
    Undo(Box<(u32, Undo)>),
}

/// When a timer is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Moment {
    at: Nanos,
    /// In the order of planning, for what is due at once.
    number: u64,
}

impl Moment {
    const NEVER: Self = Self {
        at: Nanos(u64::MAX),
        number: u64::MAX,
    };
}

/// A read that a process waits for.
#[derive(Clone, Debug)]
pub(super) struct PendingRead {
    pub(super) load: LoadId,
    pub(super) source: Source,
    pub(super) position: u64,
    pub(super) size: usize,
}

#[derive(Debug)]
struct Due {
    at: Nanos,
    number: u64,
    event: Event,
}

impl Ord for Due {
    fn cmp(&self, other: &Self) -> Ordering {
        // The heap gives the greatest; the earliest is wanted.
        (other.at, other.number).cmp(&(self.at, self.number))
    }
}

impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Due {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number
    }
}

impl Eq for Due {}

/// How a process came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// It was asked to, and left.
    Left,
    /// It was killed, or gave up.
    Killed,
    /// Its machine lost power.
    Unpowered,
}

/// A run under way.
pub(super) struct World<'s> {
    /// The options of this moment: between bursts they make no trouble.
    pub(super) swarm: Swarm,
    pub(super) wild: Swarm,
    pub(super) chance: Chance,
    pub(super) now: Nanos,
    events: BinaryHeap<Due>,
    next_event: u64,
    /// When each party's timer is due: a process's next turn, a client's next tick. They are put off
    /// and brought forward all the time; in the heap each change would leave a stale event. They are
    /// few, lie side by side, and are looked through before each event.
    timers: Vec<Moment>,
    pub(super) groups: Vec<GroupId>,
    pub(super) nodes: Vec<Node>,
    pub(super) desks: Vec<Desk>,
    pub(super) network: Network,
    pub(super) oracle: Oracle,
    pub(super) history: History,
    pub(super) marks: Marks,
    pub(super) trace: Trace<'s>,
    /// Faults go on.
    pub(super) is_hostile: bool,
    /// Clients have work.
    pub(super) is_loaded: bool,
    /// Counts bursts and the times between them: what was planned in one ends with it.
    pub(super) era: u32,
    /// Until then a relay is under way, and no other begins.
    pub(super) relay_end: Nanos,
}

impl<'s> World<'s> {
    pub(super) fn new(swarm: Swarm, trace: Trace<'s>) -> Self {
        let groups: Vec<GroupId> = (1..=swarm.group_count).map(GroupId).collect();
        let node_count = swarm.node_count;
        let client_count = swarm.producer_count + swarm.reader_count;
        // An auditor for each replica comes at the end.
        let party_count = node_count + client_count + node_count * groups.len();
        Self {
            chance: Chance::new(swarm.seed),
            now: Nanos(0),
            events: BinaryHeap::new(),
            next_event: 0,
            timers: vec![Moment::NEVER; node_count],
            nodes: (0..node_count)
                .map(|_| Node::new(&swarm.shape.ring))
                .collect(),
            desks: Vec::new(),
            network: Network::new(party_count),
            oracle: Oracle::new(&groups, &swarm),
            history: History::new(groups.len()),
            marks: Marks::default(),
            trace,
            is_hostile: false,
            is_loaded: true,
            era: 0,
            relay_end: Nanos(0),
            groups,
            wild: swarm.clone(),
            swarm,
        }
    }

    /// Starts every node and every client.
    pub(super) fn begin(&mut self) {
        for node in 0..self.swarm.node_count {
            let at = Nanos(self.chance.below(20_000_000));
            self.plan(at, Event::Start { node });
        }
        for number in 0..self.swarm.producer_count {
            let position = number % self.groups.len();
            let producer = Producer::new(number as u64 + 1, self.groups[position], position);
            self.add_client(Role::Producer(producer), None);
        }
        for number in 0..self.swarm.reader_count {
            let position = number % self.groups.len();
            let reader = Reader::new(self.groups[position], position);
            self.add_client(Role::Reader(reader), None);
        }
    }

    /// A burst of faults begins.
    pub(super) fn rage(&mut self, burst: &Burst) {
        self.is_hostile = true;
        self.era += 1;
        self.swarm = self.wild.clone();
        self.trace.say(
            Lane::World,
            "burst",
            format_args!("{} faults", burst.faults.len()),
        );
        for fault in &burst.faults {
            self.plan(fault.at, Event::Fault(*fault));
        }
        self.load(true);
    }

    /// Plans an event.
    pub(super) fn plan(&mut self, at: Nanos, event: Event) {
        self.next_event += 1;
        self.events.push(Due {
            at: at.max(self.now),
            number: self.next_event,
            event,
        });
    }

    /// What comes next: when, and whose timer it is, if it is one.
    fn first(&self) -> (Moment, Option<Party>) {
        let head = self.events.peek();
        let mut first = head.map_or(Moment::NEVER, |due| Moment {
            at: due.at,
            number: due.number,
        });
        let mut whose = None;
        for (party, timer) in self.timers.iter().enumerate() {
            if *timer < first {
                (first, whose) = (*timer, Some(party));
            }
        }
        (first, whose)
    }

    /// When the next event is.
    pub(super) fn due_at(&self) -> Option<Nanos> {
        let (first, _) = self.first();
        (first != Moment::NEVER).then_some(first.at)
    }

    /// Carries out the next event. False if there is none.
    pub(super) fn next(&mut self) -> bool {
        let (first, timer) = self.first();
        if first == Moment::NEVER {
            return false;
        }
        let Moment { at, number } = first;
        assert!(at >= self.now, "time goes forward");
        self.now = at;
        self.trace.begin(at);
        self.trace.mix(number);
        match timer {
            Some(party) => {
                self.timers[party] = Moment::NEVER;
                match party.checked_sub(self.swarm.node_count) {
                    None => self.on_turn(party),
                    Some(client) => self.step_client(client, ClientInput::Tick),
                }
            }
            None => {
                let due = self.events.pop().expect("seen just now");
                self.on_event(due.event);
            }
        }
        true
    }

    fn on_event(&mut self, event: Event) {
        match event {
            Event::Dial { stream } => self.on_dial(stream),
            Event::Dialled { stream, accepted } => self.on_dialled(stream, accepted),
            Event::DialSilent { stream } => self.on_dial_silent(stream),
            Event::Look { stream, way } => self.on_look(stream, way),
            Event::Stored { node, life, .. }
            | Event::PinsStored { node, life, .. }
            | Event::PersistStored { node, life, .. }
            | Event::SegmentStored { node, life, .. }
            | Event::Loaded { node, life, .. }
                if self.nodes[node].life != life || self.nodes[node].process.is_none() => {}
            Event::Stored { node, .. }
            | Event::PinsStored { node, .. }
            | Event::PersistStored { node, .. }
            | Event::SegmentStored { node, .. }
            | Event::Loaded { node, .. }
                if self.nodes[node].stuck_until > self.now =>
            {
                // Looked at again and again: when the burst ends, so does the disk's silence.
                let again = Nanos(self.swarm.patience().0 / 4);
                let at = self.nodes[node].stuck_until.min(self.now.after(again));
                self.plan(at, event);
            }
            Event::Stored {
                node,
                life,
                number,
                write,
            } => {
                if !self.springs_trap(node, Some(number)) {
                    self.complete_store(node, number, write);
                    self.oracle.ledgers[node].on_stored(write);
                    self.arrive(node, life, Arrival::Stored(write));
                }
            }
            Event::PinsStored { node, life, number } => {
                if !self.springs_trap(node, Some(number)) {
                    self.nodes[node].disk.complete(number);
                    self.arrive(node, life, Arrival::PinsStored);
                }
            }
            Event::PersistStored {
                node,
                life,
                number,
                through,
            } => {
                if !self.springs_trap(node, Some(number)) {
                    self.nodes[node].disk.complete(number);
                    self.oracle.ledgers[node].on_recorded(through);
                    self.marks.records_persisted += 1;
                    self.arrive(node, life, Arrival::PersistStored);
                }
            }
            Event::SegmentStored {
                node,
                life,
                number,
                write,
            } => {
                if !self.springs_trap(node, Some(number)) {
                    self.on_segment_stored(node, life, number, write);
                }
            }
            Event::Loaded { node, life, read } => {
                if !self.springs_trap(node, None) {
                    let PendingRead {
                        load,
                        source,
                        position,
                        size,
                    } = *read;
                    let machine = &self.nodes[node];
                    let read = machine.disk.read(source, position, size, &mut self.chance);
                    // Without its last checkpoint a node looks for segments that it has deleted.
                    assert!(
                        read.is_ok() || machine.is_damaged,
                        "a file that is read is there, or was"
                    );
                    let bytes = read.unwrap_or_default();
                    self.arrive(node, life, Arrival::Loaded(load, bytes));
                }
            }
            Event::Start { node } => self.start(node),
            Event::Fault(fault) => self.on_fault(fault),
            Event::Undo(undo) => self.on_undo(undo.0, undo.1),
        }
    }

    fn on_segment_stored(&mut self, node: Party, life: u32, number: u64, write: SegmentWriteId) {
        let machine = &mut self.nodes[node];
        let is_stored = !machine.is_full;
        if is_stored {
            let before = machine.disk.segment_count();
            machine.disk.complete(number);
            self.marks.segment_writes += 1;
            assert!(
                machine.disk.segment_count() == before,
                "files are made when written to"
            );
        } else {
            machine.disk.refuse(number);
            self.marks.disk_full += 1;
        }
        self.arrive(node, life, Arrival::SegmentStored(write, is_stored));
    }

    // ---- nodes

    /// Starts a node's process on what its disk kept.
    fn start(&mut self, node: Party) {
        let machine = &mut self.nodes[node];
        if machine.process.is_some() || machine.is_out {
            return;
        }
        machine.has_power = true;
        machine.life += 1;
        let life = machine.life;
        let drift = self.swarm.drift;
        let drift = self.chance.below(2 * drift.unsigned_abs() + 1) as i64 - drift;
        let first = Nanos(self.chance.below(1 << 40));
        let clock = Clock::new(self.now, first, drift);
        // Not from the run's chance: what a node draws must not hang on what else was drawn before.
        let seed = mixed(self.swarm.seed ^ mixed((node as u64) << 32 | u64::from(life)));
        let mut config = config(node, self.swarm.node_count, &self.groups, seed);
        config.retention = trims::retention(&self.wild, &self.groups);
        let Self {
            chance,
            nodes,
            swarm,
            ..
        } = self;
        let disk = &nodes[node].disk;
        // A disk that fails now and then may do so while its journal is recovered.
        let mut fails_in =
            (self.is_hostile && swarm.disk_error > 0 && chance.one_in(4)).then(|| chance.below(8));
        let mut has_failed = false;
        let mut read = |source, position, size| {
            match &mut fails_in {
                Some(0) => {
                    has_failed = true;
                    return Err(IO_ERROR);
                }
                Some(left) => *left -= 1,
                None => {}
            }
            disk.read(source, position, size, chance)
        };
        let opened = Shard::open(clock.local(self.now), config, swarm.shape, &mut read);
        let shard = match opened {
            Ok(shard) if !has_failed => shard,
            // It would go on in doubt of what it could not read, for good. But the disk fails for
            // now only, and lost nothing: bytes that are lost are another fault.
            Ok(_) => {
                self.try_again(node);
                return;
            }
            Err(error) => {
                self.on_refused_to_start(node, &error, has_failed);
                return;
            }
        };
        self.marks.recoveries += u64::from(life > 1);
        self.nodes[node].is_rotten = false;
        self.trace
            .say(Lane::Node(node), "start", format_args!("life {life}"));
        self.oracle.on_opened(node, &shard, &mut self.marks);
        let mut process = Process::new(self.now, shard, clock, node, &self.swarm);
        process.fuse = self.nodes[node].next_fuse.take();
        self.nodes[node].process = Some(process);
        self.plan_turn(node, self.now);
    }

    /// A node cannot use its disk and says so: that is right if the disk is at fault. Should it have
    /// failed only for now, somebody tries again; damaged it stays down, for nothing mends it yet.
    fn on_refused_to_start(&mut self, node: Party, error: &OpenError, has_failed: bool) {
        self.trace.say(
            Lane::Node(node),
            "refuses",
            format_args!("to start: {error}"),
        );
        if has_failed {
            self.try_again(node);
            return;
        }
        let machine = &mut self.nodes[node];
        assert!(
            machine.is_damaged,
            "a sound disk cannot be opened: node {node}, {error}"
        );
        self.marks.damages_refused += 1;
        machine.is_out = true;
    }

    /// The disk failed while its journal was recovered: somebody starts the node once more.
    fn try_again(&mut self, node: Party) {
        self.marks.disk_errors += 1;
        let again = self.chance.about(self.swarm.restart_span);
        self.plan(self.now.after(again), Event::Start { node });
    }

    /// Ends a node's process as a kill does, and plans its next; `power`: the machine goes, too.
    pub(super) fn crash(&mut self, node: Party, power: bool) {
        if self.stop(node, power) {
            let restart = self.chance.about(self.swarm.restart_span);
            self.plan(self.now.after(restart), Event::Start { node });
        }
    }

    /// As [`World::crash`], and nobody starts it again. False if there was no process.
    pub(super) fn stop(&mut self, node: Party, power: bool) -> bool {
        let Some(process) = &self.nodes[node].process else {
            return false;
        };
        self.marks.crashes_in_recovery += u64::from(!process.shard.is_open());
        self.marks.crashes += 1;
        self.marks.power_losses += u64::from(power);
        self.marks.restores_cut += process.restores_under_way();
        self.end_process(
            node,
            if power {
                Ending::Unpowered
            } else {
                Ending::Killed
            },
        );
        true
    }

    /// A process is gone: its machine closes what it had open, and tells the others.
    pub(super) fn end_process(&mut self, node: Party, ending: Ending) {
        let machine = &mut self.nodes[node];
        let process = machine.process.take().expect("there was one");
        let wounds = process.shard.wounded_segments();
        machine.disk.leave_wounds(wounds);
        self.timers[node] = Moment::NEVER;
        let power = ending == Ending::Unpowered;
        machine.has_power = !power;
        machine.disk.crash(power, &mut self.chance);
        self.marks.removals_undone += machine.disk.bring_back_removed(&mut self.chance);
        self.spare_lost(node);
        self.oracle.on_crash(node);
        let (kind, how) = match ending {
            Ending::Left => ("left", "as it was asked to"),
            Ending::Killed => ("crash", "ends"),
            Ending::Unpowered => ("crash", "ends and loses power"),
        };
        self.trace
            .say(Lane::Node(node), kind, format_args!("{how}"));
        // The kernel closes what a process had open; a machine without power closes nothing.
        for id in self.network.of_party(node) {
            let stream = self.network.find(id).expect("listed just now");
            let way = if stream.dialler.party == node {
                Way::Forth
            } else {
                Way::Back
            };
            match way {
                Way::Forth => stream.dialler.is_open = false,
                Way::Back => stream.acceptor.is_open = false,
            }
            let Self {
                network,
                swarm,
                chance,
                ..
            } = self;
            if power {
                network.lose_power(id, way);
                continue;
            }
            // What it had sent still arrives if nobody killed it.
            let is_abrupt = ending == Ending::Killed;
            let sent = network.end(self.now, id, way, is_abrupt, swarm, chance);
            self.plan_look(id, way, sent);
        }
        self.nodes[node].trap = None;
    }

    /// Something reaches a process: it has a turn soon.
    pub(super) fn arrive(&mut self, node: Party, life: u32, arrival: Arrival) {
        if self.nodes[node].life != life {
            return;
        }
        let Some(process) = &mut self.nodes[node].process else {
            return;
        };
        process.inbox.push(arrival);
        self.plan_turn(node, self.now);
    }

    /// Sets a party's timer, in order with all else that is planned.
    fn set_timer(&mut self, party: Party, at: Nanos) {
        self.next_event += 1;
        self.timers[party] = Moment {
            at,
            number: self.next_event,
        };
    }

    /// A party more has a timer.
    pub(super) fn add_timer(&mut self) {
        self.timers.push(Moment::NEVER);
    }

    /// Plans a client's next tick.
    pub(super) fn wake(&mut self, client: usize, at: Nanos) {
        let party = self.swarm.node_count + client;
        let at = at.max(Nanos(self.now.0 + 1));
        if self.timers[party].at != at {
            self.set_timer(party, at);
        }
    }

    /// Plans a process's turn, unless an earlier one is planned.
    pub(super) fn plan_turn(&mut self, node: Party, at: Nanos) {
        let Some(process) = &self.nodes[node].process else {
            return;
        };
        let at = at.max(process.busy_until).max(Nanos(self.now.0 + 1));
        if self.timers[node].at > at {
            self.set_timer(node, at);
        }
    }

    /// Plans a process's turn anew: one that was planned is not.
    pub(super) fn plan_turn_anew(&mut self, node: Party, at: Nanos) {
        self.timers[node] = Moment::NEVER;
        self.plan_turn(node, at);
    }
}
