//! The nodes that ship, under a script: the simulator's world without chance and without faults but
//! those that the script bids. What must hold is checked after every step, as in any run.

use super::super::caller::{Answer, Caller, Operation};
use super::super::client::Role;
use super::super::clock::{Clock, RATE};
use super::super::network::Party;
use super::super::node::party_of;
use super::super::swarm::Swarm;
use super::super::trace::{Sink, Trace};
use super::super::world::{Event, World};
use super::stage::{Deed, News, Refusal, Replica, Stage, Standing};
use crate::frame::code::ReadMode;
use crate::id::{Index, Nanos, Term};
use crate::log::ring::Ring;
use crate::raft::{Bounds, Raft};
use crate::shard::Shape;

/// In this a calm cluster elects, and measures its links.
const MEASURE_SPAN: Nanos = Nanos::from_millis(1_000);

/// Hand-overs to node 1 before a script begins.
const TRANSFER_COUNT_MAX: usize = 5;

/// A probe is answered within this, or its node says nothing.
const PROBE_PATIENCE: Nanos = Nanos::from_millis(1_000);

/// Producers of one client; their numbers follow each other.
const PRODUCERS_PER_CLIENT: u64 = 1_000;

/// Small, so that a run costs little; nothing of it is full in a script.
const SHAPE: Shape = Shape {
    ring: Ring {
        file_count: 4,
        ..Shape::SMALL.ring
    },
    segment_write_size: 64 << 10,
    segment_size_max: 4 << 20,
    segment_read_size: 72 << 10,
    bounds: Bounds {
        tail_keep_count: 1024,
        undecided_size_full: 512 << 10,
    },
    ..Shape::SMALL
};

/// What a script's cluster is made of.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct Plan {
    pub(in super::super) node_count: usize,
    /// Clients that the script will have.
    pub(in super::super) client_count: usize,
    /// From any party to any other.
    pub(in super::super) latency: Nanos,
    pub(in super::super) seed: u64,
}

/// A world, and what of it was told.
pub(in super::super) struct Cluster<'s> {
    world: World<'s>,
    /// The term each node led when it was last looked at.
    led: Vec<Option<Term>>,
    paused_until: Vec<Nanos>,
    /// Terms before node 1 led: how often its lead took another try is no part of a story.
    term_base: u64,
    news: Vec<News>,
    client_count: usize,
}

fn calm(plan: &Plan) -> Swarm {
    let mut swarm = Swarm::new(plan.seed);
    swarm.calm();
    swarm.node_count = plan.node_count;
    swarm.group_count = 1;
    swarm.producer_count = 0;
    swarm.reader_count = plan.client_count;
    swarm.shape = SHAPE;
    swarm.delay = plan.latency;
    // Without spreads a run hangs on no draw, and stays what it is when draws are added elsewhere.
    swarm.delay_spread = Nanos(0);
    swarm.split_per_mille = 0;
    swarm.retransmit = true;
    swarm.drift = 0;
    swarm.sleep_span = Nanos::from_millis(100);
    swarm.redial_span = Nanos::from_millis(200);
    swarm.turn_span = Nanos::from_micros(20);
    swarm.store_delay = Nanos::from_micros(150);
    swarm.store_spread = Nanos(0);
    swarm.client_patience = Nanos::from_millis(500);
    swarm.check_all = false;
    swarm
}

impl<'s> Cluster<'s> {
    /// A cluster whose node 1 leads, with the others behind it, after a second in which the nodes
    /// measured their links. Its term counts as the first.
    pub(in super::super) fn new(plan: &Plan, sink: Option<Sink<'s>>) -> Self {
        let mut world = World::new(calm(plan), Trace::new(sink));
        for node in 0..plan.node_count {
            world.plan(Nanos(0), Event::Start { node });
        }
        let mut cluster = Self {
            world,
            led: vec![None; plan.node_count],
            paused_until: vec![Nanos(0); plan.node_count],
            term_base: 0,
            news: Vec::new(),
            client_count: 0,
        };
        // Probes come first among the clients; they find every node, whatever is cut.
        for node in 0..plan.node_count {
            cluster.add_caller(Some(node));
        }
        cluster.run_for(MEASURE_SPAN);
        for _ in 0..TRANSFER_COUNT_MAX {
            if let Some(term) = cluster.led[0] {
                cluster.term_base = term.0 - 1;
                cluster.news = vec![News::Leads {
                    node: 0,
                    term: Some(Term(1)),
                }];
                return cluster;
            }
            if let Some(leader) = cluster.led.iter().position(Option::is_some) {
                cluster.caller(leader).bid(Operation::Transfer(0));
                cluster.world.wake(leader, cluster.world.now);
            }
            cluster.run_for(MEASURE_SPAN);
            (0..plan.node_count).for_each(|probe| drop(cluster.caller(probe).take_notes()));
        }
        panic!("a calm cluster follows its first node");
    }

    /// The longest that any node waits for a leader's word before it calls an election.
    pub(in super::super) fn timeout(&self) -> Nanos {
        let rafts = (0..self.node_count()).filter_map(|node| self.raft(node));
        let timeouts = rafts.map(|raft| raft.timeouts());
        let spans = timeouts.map(|timeouts| timeouts.election.after(timeouts.spread));
        spans.max().expect("a node is up")
    }

    fn add_caller(&mut self, home: Option<Party>) {
        let first_producer = 1 + self.world.desks.len() as u64 * PRODUCERS_PER_CLIENT;
        let caller = Caller::new(self.world.groups[0], home, first_producer);
        let target = home.unwrap_or(0);
        self.world.add_client(Role::Caller(caller), Some(target));
    }

    fn caller(&mut self, desk: usize) -> &mut Caller {
        match &mut self.world.desks[desk].client.role {
            Role::Caller(caller) => caller,
            Role::Producer(_) | Role::Reader(_) => panic!("scripts have callers only"),
        }
    }

    /// Gives up a caller's connection, and binds or frees it.
    fn move_caller(&mut self, desk: usize, home: Option<Party>) {
        self.caller(desk).set_home(home);
        self.world.desks[desk].client.line.turn_to(0);
        self.world.wake(desk, self.world.now);
        // What it is bid next goes to its new home.
        self.run_for(Nanos(1));
    }

    /// Place of a client among the world's.
    fn desk(&self, client: usize) -> usize {
        self.node_count() + client
    }

    fn raft(&self, node: Party) -> Option<&Raft> {
        let process = self.world.nodes[node].process.as_ref()?;
        process.shard.rafts().next()
    }

    /// A term as the script counts.
    fn story_term(&self, term: Term) -> Term {
        Term(term.0.saturating_sub(self.term_base))
    }

    /// Notes what the last event changed.
    fn look(&mut self) {
        for node in 0..self.node_count() {
            let term = |raft: &Raft| raft.is_leader().then(|| raft.term());
            let leads = self.raft(node).and_then(term);
            let led = std::mem::replace(&mut self.led[node], leads);
            if led == leads {
                continue;
            }
            self.news.push(match leads {
                Some(term) => News::Leads {
                    node,
                    term: Some(self.story_term(term)),
                },
                None => News::Yields { node },
            });
        }
        for client in 0..self.client_count {
            let notes = self.caller(self.desk(client)).take_notes();
            let told = notes.into_iter().map(|(operation, answer)| News::Told {
                client,
                operation,
                answer,
            });
            self.news.extend(told);
        }
    }

    fn run_until(&mut self, end: Nanos) {
        while self.world.due_at().is_some_and(|at| at <= end) {
            assert!(self.world.next(), "an event is due");
            self.look();
        }
        self.world.now = end;
    }

    /// Replaces a clock by one that shows `ahead` more from now on and gains `per_mille`.
    fn set_clock(&mut self, node: Party, ahead: Nanos, per_mille: i64) {
        let now = self.world.now;
        if let Some(process) = &mut self.world.nodes[node].process {
            let local = process.clock.local(now).after(ahead);
            let drift = per_mille * RATE as i64 / 1000;
            process.clock = Clock::new(now, local, drift);
            // What it planned was planned by the old clock.
            self.world.plan_turn_anew(node, now);
        }
    }
}

impl Stage for Cluster<'_> {
    fn node_count(&self) -> usize {
        self.world.swarm.node_count
    }

    fn now(&self) -> Nanos {
        self.world.now
    }

    fn run_for(&mut self, span: Nanos) {
        self.run_until(self.world.now.after(span));
    }

    fn take_news(&mut self) -> Vec<News> {
        std::mem::take(&mut self.news)
    }

    fn wall(&mut self, from: Party, to: Party, is_up: bool) {
        // Probes stand between the nodes and the clients of the script.
        let node_count = self.node_count();
        let place = |party: Party| {
            if party < node_count {
                party
            } else {
                party + node_count
            }
        };
        self.world.network.wall(place(from), place(to), is_up);
    }

    fn act(&mut self, node: Party, deed: Deed) -> Result<(), Refusal> {
        match deed {
            Deed::Crash | Deed::LosePower => {
                if !self.world.stop(node, deed == Deed::LosePower) {
                    return Err("it is down already".to_owned());
                }
                self.paused_until[node] = Nanos(0);
                self.look();
            }
            Deed::Restart => {
                if self.world.nodes[node].process.is_some() {
                    return Err("it is up already".to_owned());
                }
                self.world.plan(self.world.now, Event::Start { node });
                // The probe's connection may be one that a machine without power never closed.
                self.move_caller(node, Some(node));
            }
            Deed::Pause(span) => {
                let until = self.world.now.after(span);
                let Some(process) = &mut self.world.nodes[node].process else {
                    return Err("it is down".to_owned());
                };
                process.busy_until = until;
                self.paused_until[node] = until;
                self.world.plan_turn_anew(node, until);
            }
            Deed::Drift { per_mille } => self.set_clock(node, Nanos(0), per_mille),
            Deed::Jump(span) => self.set_clock(node, span, 0),
            Deed::SlowDisk(lag) => self.world.nodes[node].store_lag = lag,
        }
        Ok(())
    }

    fn add_client(&mut self, home: Option<Party>) {
        self.add_caller(home);
        self.client_count += 1;
    }

    fn move_client(&mut self, client: usize, home: Option<Party>) {
        self.move_caller(self.desk(client), home);
    }

    fn bid(&mut self, client: usize, operation: Operation) -> Result<(), Refusal> {
        let desk = self.desk(client);
        self.caller(desk).bid(operation);
        self.world.wake(desk, self.world.now);
        Ok(())
    }

    fn pending(&self, client: usize) -> Vec<Operation> {
        match &self.world.desks[self.desk(client)].client.role {
            Role::Caller(caller) => caller.pending().cloned().collect(),
            Role::Producer(_) | Role::Reader(_) => panic!("scripts have callers only"),
        }
    }

    fn standing(&self, node: Party) -> Standing {
        let Some(raft) = self.raft(node) else {
            return Standing::Down;
        };
        if self.paused_until[node] > self.world.now {
            return Standing::Paused;
        }
        match raft.leader() {
            Some(_) if raft.is_leader() => Standing::Leads {
                term: Some(self.story_term(raft.term())),
            },
            Some(leader) => Standing::Follows {
                leader: party_of(leader),
            },
            None => Standing::Waits,
        }
    }

    fn term_max(&self) -> Option<Term> {
        let nodes = 0..self.node_count();
        let rafts = nodes.filter_map(|node| self.raft(node));
        rafts.map(|raft| self.story_term(raft.term())).max()
    }

    fn replica(&mut self, node: Party) -> Option<Replica> {
        if matches!(self.standing(node), Standing::Down | Standing::Paused) {
            return None;
        }
        self.caller(node).bid(Operation::Read(ReadMode::AnyReplica));
        self.world.wake(node, self.world.now);
        let deadline = self.world.now.after(PROBE_PATIENCE);
        let records = loop {
            let notes = self.caller(node).take_notes();
            if let Some((_, answer)) = notes.into_iter().next() {
                let Answer::Read(records) = answer else {
                    return None;
                };
                break records;
            }
            if self.world.now >= deadline {
                return None;
            }
            self.run_for(Nanos::from_millis(1));
        };
        let end = self.raft(node)?.tail().next_offset().0;
        Some(Replica {
            undecided_count: end - records.len() as u64,
            records,
        })
    }

    fn is_settled(&self) -> bool {
        let end = Index(self.world.oracle.committed(0).len() as u64);
        let rafts = (0..self.node_count()).filter_map(|node| self.raft(node));
        let is_whole = |raft: &Raft| {
            raft.leader().is_some() && [raft.commit(), raft.last(), raft.durable()] == [end; 3]
        };
        rafts.into_iter().all(is_whole)
    }
}
