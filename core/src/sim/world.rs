//! The whole of a run: nodes, clients, the network between them, and the heap of what comes next.
//!
//! One event at a time, in the order of due time and then of making: nothing here depends on an
//! address, a hash or a clock of the machine. What a real node does around its shard is in `turn`,
//! what goes wrong is in `faults`.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use super::chance::{Chance, mixed};
use super::client::{Client, ClientEffect, ClientInput, Context, Role};
use super::clock::Clock;
use super::disk::Disk;
use super::faults::Fault;
use super::history::History;
use super::marks::Marks;
use super::network::{End, Network, Packet, Party, Sent, StreamId, Way};
use super::node::{Arrival, Node, Process, config};
use super::oracle::Oracle;
use super::producer::Producer;
use super::reader::Reader;
use super::swarm::Swarm;
use super::trace::{Lane, Trace};
use crate::id::{GroupId, Nanos};
use crate::log::WriteId;
use crate::shard::{LoadId, SegmentWriteId, Shard, Source};

/// What comes due.
#[derive(Debug)]
pub(super) enum Event {
    /// A process's loop goes round.
    Turn { node: Party, life: u32 },
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
        load: LoadId,
        source: Source,
        position: u64,
        size: usize,
    },
    /// A client asked to be woken.
    Wake { client: usize },
    /// A machine starts its process.
    Start { node: Party },
    /// Something goes wrong.
    Fault(Fault),
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

/// A client and what the world knows of it.
#[derive(Debug)]
pub(super) struct Desk {
    pub(super) client: Client,
    pub(super) stream: Option<StreamId>,
    /// When it is woken; an event for another time is stale.
    wake_at: Nanos,
}

/// A run under way.
pub(super) struct World<'s> {
    pub(super) swarm: Swarm,
    pub(super) chance: Chance,
    pub(super) now: Nanos,
    events: BinaryHeap<Due>,
    next_event: u64,
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
}

impl<'s> World<'s> {
    pub(super) fn new(swarm: Swarm, trace: Trace<'s>) -> Self {
        let groups: Vec<GroupId> = (1..=swarm.group_count).map(GroupId).collect();
        let node_count = swarm.node_count;
        let node = |_| Node {
            disk: Disk::new(&swarm.shape.ring),
            life: 0,
            process: None,
            has_power: true,
            is_full: false,
            store_lag: Nanos(0),
        };
        let client_count = swarm.producer_count + swarm.reader_count;
        // An auditor for each replica comes at the end.
        let party_count = node_count + client_count + node_count * groups.len();
        Self {
            chance: Chance::new(swarm.seed),
            now: Nanos(0),
            events: BinaryHeap::new(),
            next_event: 0,
            nodes: (0..node_count).map(node).collect(),
            desks: Vec::new(),
            network: Network::new(party_count),
            oracle: Oracle::new(&groups, node_count, swarm.check_all),
            history: History::new(groups.len()),
            marks: Marks::default(),
            trace,
            is_hostile: true,
            groups,
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
        self.plan_faults();
    }

    /// A client more, which begins at `target` or anywhere.
    pub(super) fn add_client(&mut self, role: Role, target: Option<Party>) {
        let any = self.chance.below(self.swarm.node_count as u64) as usize;
        let client = Client::new(target.unwrap_or(any), role);
        self.desks.push(Desk {
            client,
            stream: None,
            wake_at: Nanos(0),
        });
        self.wake(self.desks.len() - 1, self.now);
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

    /// When the next event is.
    pub(super) fn due_at(&self) -> Option<Nanos> {
        self.events.peek().map(|due| due.at)
    }

    /// Carries out the next event. False if there is none.
    pub(super) fn next(&mut self) -> bool {
        let Some(Due { at, number, event }) = self.events.pop() else {
            return false;
        };
        assert!(at >= self.now, "time goes forward");
        self.now = at;
        self.trace.begin(at);
        self.trace.mix(number);
        match event {
            Event::Turn { node, life } => self.on_turn(node, life),
            Event::Dial { stream } => self.on_dial(stream),
            Event::Dialled { stream, accepted } => self.on_dialled(stream, accepted),
            Event::DialSilent { stream } => self.on_dial_silent(stream),
            Event::Look { stream, way } => self.on_look(stream, way),
            Event::Stored {
                node,
                life,
                number,
                write,
            } => {
                if self.nodes[node].life == life && self.nodes[node].process.is_some() {
                    self.nodes[node].disk.complete(number);
                    self.oracle.ledgers[node].on_stored(write);
                    self.arrive(node, life, Arrival::Stored(write));
                }
            }
            Event::SegmentStored {
                node,
                life,
                number,
                write,
            } => {
                self.on_segment_stored(node, life, number, write);
            }
            Event::Loaded {
                node,
                life,
                load,
                source,
                position,
                size,
            } => {
                let Node {
                    disk,
                    life: present,
                    ..
                } = &self.nodes[node];
                if *present == life {
                    let read = disk.read(source, position, size, &mut self.chance);
                    let bytes = read.expect("a file that is read is there");
                    self.arrive(node, life, Arrival::Loaded(load, bytes));
                }
            }
            Event::Wake { client } => {
                if self.desks[client].wake_at == self.now {
                    self.desks[client].wake_at = Nanos(0);
                    self.step_client(client, ClientInput::Tick);
                }
            }
            Event::Start { node } => self.start(node),
            Event::Fault(fault) => self.on_fault(fault),
        }
        true
    }

    fn on_segment_stored(&mut self, node: Party, life: u32, number: u64, write: SegmentWriteId) {
        let machine = &mut self.nodes[node];
        if machine.life != life || machine.process.is_none() {
            return;
        }
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
        if machine.process.is_some() {
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
        let config = config(node, self.swarm.node_count, &self.groups, seed);
        let Self {
            chance,
            nodes,
            swarm,
            ..
        } = self;
        let disk = &nodes[node].disk;
        let mut read = |source, position, size| disk.read(source, position, size, chance);
        let opened = Shard::open(clock.local(self.now), config, swarm.shape, &mut read);
        let shard = match opened {
            Ok(shard) => shard,
            Err(error) => panic!("node {node} cannot be opened: {error}"),
        };
        self.marks.recoveries += u64::from(life > 1);
        self.trace
            .say(Lane::Node(node), "start", format_args!("life {life}"));
        self.oracle.on_opened(node, &shard, &mut self.marks);
        let process = Process::new(self.now, shard, clock, node, self.swarm.node_count);
        self.nodes[node].process = Some(process);
        self.plan_turn(node, self.now);
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
        let machine = &mut self.nodes[node];
        if machine.process.take().is_none() {
            return false;
        }
        self.marks.crashes += 1;
        self.marks.power_losses += u64::from(power);
        machine.has_power = !power;
        machine.disk.crash(power, &mut self.chance);
        self.oracle.ledgers[node].on_crash();
        let how = if power { "and loses power" } else { "" };
        self.trace
            .say(Lane::Node(node), "crash", format_args!("ends {how}"));
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
            if !power {
                let Self {
                    network,
                    swarm,
                    chance,
                    ..
                } = self;
                let sent = network.end(self.now, id, way, true, swarm, chance);
                self.plan_look(id, way, sent);
            }
        }
        true
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

    /// Plans a process's turn, unless an earlier one is planned.
    pub(super) fn plan_turn(&mut self, node: Party, at: Nanos) {
        let life = self.nodes[node].life;
        let Some(process) = &mut self.nodes[node].process else {
            return;
        };
        let at = at.max(process.busy_until).max(Nanos(self.now.0 + 1));
        if process.turn_at != Nanos(0) && process.turn_at <= at {
            return;
        }
        process.turn_at = at;
        self.plan(at, Event::Turn { node, life });
    }

    // ---- connections

    pub(super) fn plan_look(&mut self, stream: StreamId, way: Way, sent: Sent) {
        if let Some(at) = sent.look_at {
            self.plan(at, Event::Look { stream, way });
        }
    }

    /// Sends one whole frame on a connection.
    pub(super) fn send(&mut self, stream: StreamId, way: Way, bytes: Vec<u8>) {
        let Self {
            network,
            swarm,
            chance,
            marks,
            now,
            ..
        } = self;
        let sent = network.send(*now, (stream, way), bytes, swarm, chance, marks);
        self.plan_look(stream, way, sent);
    }

    /// Closes one end of a connection; the other end hears of it behind what was sent.
    pub(super) fn close(&mut self, id: StreamId, way: Way) {
        let Some(stream) = self.network.find(id) else {
            return;
        };
        let end = match way {
            Way::Forth => &mut stream.dialler,
            Way::Back => &mut stream.acceptor,
        };
        if std::mem::replace(&mut end.is_open, false) {
            let Self {
                network,
                swarm,
                chance,
                ..
            } = self;
            let sent = network.end(self.now, id, way, false, swarm, chance);
            self.plan_look(id, way, sent);
        }
    }

    /// Begins a connection.
    pub(super) fn dial(&mut self, from: End, to: Party) -> StreamId {
        let is_client = from.party >= self.swarm.node_count;
        let is_faithful = is_client && !self.swarm.client_faults;
        let id = self.network.open(from, to, is_faithful);
        let Swarm {
            delay,
            delay_spread,
            ..
        } = self.swarm;
        let at = self.now.after(self.chance.spread(delay, delay_spread));
        self.plan(at, Event::Dial { stream: id });
        id
    }

    fn on_dial(&mut self, id: StreamId) {
        let Some(stream) = self.network.find(id) else {
            return;
        };
        let (from, to) = (stream.dialler.party, stream.acceptor.party);
        let is_walled = self.network.is_walled(from, to) || self.network.is_walled(to, from);
        let machine = &mut self.nodes[to];
        if is_walled || !machine.has_power {
            let at = self.now.after(
                self.chance
                    .spread(Nanos::from_millis(20), Nanos::from_millis(80)),
            );
            self.plan(at, Event::DialSilent { stream: id });
            return;
        }
        let accepted = match &mut machine.process {
            Some(process) => {
                let life = machine.life;
                let connection = process.accept(id);
                let stream = self.network.find(id).expect("found just now");
                stream.connection = connection;
                stream.acceptor = End {
                    party: to,
                    life,
                    is_open: true,
                };
                true
            }
            None => {
                self.marks.dials_refused += 1;
                false
            }
        };
        let Swarm {
            delay,
            delay_spread,
            ..
        } = self.swarm;
        let at = self.now.after(self.chance.spread(delay, delay_spread));
        self.plan(
            at,
            Event::Dialled {
                stream: id,
                accepted,
            },
        );
    }

    fn on_dialled(&mut self, id: StreamId, accepted: bool) {
        let Some(stream) = self.network.find(id) else {
            return;
        };
        let dialler = stream.dialler;
        if !dialler.is_open {
            // Given up meanwhile; whoever gave it up has sent the end.
            return;
        }
        if dialler.party < self.swarm.node_count {
            let arrival = match accepted {
                true => Arrival::Connected(id),
                false => Arrival::Lost {
                    stream: id,
                    refused: true,
                },
            };
            self.arrive(dialler.party, dialler.life, arrival);
        } else {
            let client = dialler.party - self.swarm.node_count;
            if accepted {
                self.step_client(client, ClientInput::Connected);
            } else {
                self.end_client_stream(client, id);
            }
        }
    }

    fn on_dial_silent(&mut self, id: StreamId) {
        let Some(stream) = self.network.find(id) else {
            return;
        };
        let dialler = stream.dialler;
        if !dialler.is_open {
            return;
        }
        if dialler.party < self.swarm.node_count {
            self.arrive(
                dialler.party,
                dialler.life,
                Arrival::Lost {
                    stream: id,
                    refused: false,
                },
            );
        } else {
            self.end_client_stream(dialler.party - self.swarm.node_count, id);
        }
    }

    fn on_look(&mut self, id: StreamId, way: Way) {
        let Some(stream) = self.network.find(id) else {
            return;
        };
        if stream.looked_at[way as usize] != self.now {
            return;
        }
        stream.looked_at[way as usize] = Nanos(0);
        loop {
            let Self {
                network,
                swarm,
                chance,
                marks,
                now,
                ..
            } = self;
            match network.take_due(*now, id, way, swarm, chance, marks) {
                Ok(packet) => self.deliver(id, way, packet),
                Err(sent) => {
                    self.plan_look(id, way, sent);
                    break;
                }
            }
        }
        if self.network.find(id).is_some_and(|stream| stream.is_over()) {
            self.network.remove(id);
        }
    }

    fn deliver(&mut self, id: StreamId, way: Way, packet: Packet) {
        let Some(stream) = self.network.find(id) else {
            return;
        };
        let (end, connection) = match way {
            Way::Forth => (stream.acceptor, stream.connection),
            Way::Back => (stream.dialler, stream.connection),
        };
        if !end.is_open {
            return self.reset(id, way, end, &packet);
        }
        self.marks.frames += 1;
        let is_node = end.party < self.swarm.node_count;
        match (way, packet) {
            (Way::Forth, Packet::Bytes(bytes)) => {
                self.arrive(end.party, end.life, Arrival::Bytes(connection, bytes));
            }
            (Way::Forth, Packet::End) => {
                self.arrive(end.party, end.life, Arrival::Ended(connection));
            }
            // Nothing comes back on a link but its end, or the reason why the peer refuses it.
            (Way::Back, Packet::Bytes(_)) if is_node => {}
            (Way::Back, Packet::End) if is_node => {
                self.arrive(
                    end.party,
                    end.life,
                    Arrival::Lost {
                        stream: id,
                        refused: false,
                    },
                );
            }
            (Way::Back, Packet::Bytes(bytes)) => {
                let client = end.party - self.swarm.node_count;
                self.step_client(client, ClientInput::Received(bytes));
            }
            (Way::Back, Packet::End) => {
                self.end_client_stream(end.party - self.swarm.node_count, id);
            }
        }
    }

    /// Bytes for an end that is gone: a machine that is up says so.
    fn reset(&mut self, id: StreamId, way: Way, end: End, packet: &Packet) {
        let has_power = end.party >= self.swarm.node_count || self.nodes[end.party].has_power;
        if has_power && matches!(packet, Packet::Bytes(_)) {
            let back = if way == Way::Forth {
                Way::Back
            } else {
                Way::Forth
            };
            let Self {
                network,
                swarm,
                chance,
                ..
            } = self;
            let sent = network.end(self.now, id, back, true, swarm, chance);
            self.plan_look(id, back, sent);
        }
    }

    // ---- clients

    fn end_client_stream(&mut self, client: usize, id: StreamId) {
        if self.desks[client].stream == Some(id) {
            self.desks[client].stream = None;
            self.close(id, Way::Forth);
            self.step_client(client, ClientInput::Closed);
        }
    }

    /// Plans a client's next tick.
    pub(super) fn wake(&mut self, client: usize, at: Nanos) {
        let at = at.max(Nanos(self.now.0 + 1));
        let desk = &mut self.desks[client];
        if desk.wake_at != at {
            desk.wake_at = at;
            self.plan(at, Event::Wake { client });
        }
    }

    fn step_client(&mut self, client: usize, input: ClientInput) {
        let Self {
            desks,
            swarm,
            chance,
            oracle,
            history,
            marks,
            now,
            trace,
            ..
        } = self;
        let desk = &mut desks[client];
        let mut context = Context {
            now: *now,
            swarm,
            chance,
            oracle,
            history,
            marks,
            is_traced: trace.is_read(),
        };
        let wake_at = desk.client.step(input, &mut context);
        for note in desk.client.line.notes.drain(..) {
            trace.say(Lane::Client(client), "client", format_args!("{note}"));
        }
        let effects = std::mem::take(&mut desk.client.line.effects);
        for effect in effects {
            match effect {
                ClientEffect::Dial(to) => {
                    let text = format_args!("dials node {to}");
                    self.trace.say(Lane::Client(client), "client", text);
                    assert!(
                        self.desks[client].stream.is_none(),
                        "one connection at a time"
                    );
                    let party = self.swarm.node_count + client;
                    let from = End {
                        party,
                        life: 0,
                        is_open: true,
                    };
                    self.desks[client].stream = Some(self.dial(from, to));
                }
                ClientEffect::Send(bytes) => {
                    let stream = self.desks[client].stream.expect("sends on its connection");
                    self.send(stream, Way::Forth, bytes);
                }
                ClientEffect::HangUp => {
                    if let Some(stream) = self.desks[client].stream.take() {
                        self.close(stream, Way::Forth);
                    }
                }
            }
        }
        self.wake(client, wake_at);
    }
}
