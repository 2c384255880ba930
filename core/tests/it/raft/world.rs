//! A virtual network of hosts and all that can go wrong on it, from one seed.

use std::collections::BTreeMap;

use ringwood_core::id::{GroupId, Index, Nanos, NodeId};
use ringwood_core::raft::{Message, Output, Timeouts};

use super::host::{Did, Host, Wire, node};
use super::oracle::Oracle;

pub(crate) const MILLI: u64 = 1_000_000;

pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound.max(1)
    }

    pub(crate) fn percent(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

/// The faults of one seed.
#[derive(Debug)]
pub(crate) struct Options {
    pub(crate) host_count: u64,
    pub(crate) drop_percent: u64,
    pub(crate) double_percent: u64,
    pub(crate) delay_max: u64,
    pub(crate) store_max: u64,
    pub(crate) late_percent: u64,
    pub(crate) transfer_percent: u64,
    pub(crate) stall_percent: u64,
    pub(crate) crash_percent: u64,
    pub(crate) part_percent: u64,
    pub(crate) mischief_percent: u64,
    pub(crate) turn_percent: u64,
    pub(crate) timeout: u64,
    pub(crate) spread: u64,
    pub(crate) duration: u64,
    /// Headers kept in the tail although segments hold their blocks.
    pub(crate) tail_keep_count: u64,
}

impl Options {
    pub(crate) fn draw(random: &mut Random) -> Self {
        let host_count = [1, 2, 3, 3, 3, 3, 4, 5, 5, 5, 6, 7][random.below(12) as usize];
        let often = |random: &mut Random, max: u64| match random.below(2) {
            0 => 0,
            _ => random.below(max + 1),
        };
        let timeout = [30, 50, 150][random.below(3) as usize] * MILLI;
        let late_max = [5, 40][random.below(2) as usize];
        Self {
            host_count,
            drop_percent: often(random, 30),
            double_percent: often(random, 30),
            delay_max: MILLI / 10 + random.below(timeout / 4),
            store_max: MILLI / 10 + random.below(timeout / 4),
            late_percent: often(random, late_max),
            stall_percent: often(random, 5),
            crash_percent: often(random, 10),
            part_percent: often(random, 20),
            mischief_percent: often(random, 20),
            turn_percent: 20 + random.below(81),
            timeout,
            spread: [timeout / 2, timeout][random.below(2) as usize],
            duration: 10 * timeout + random.below(20 * timeout),
            transfer_percent: [2, 2, 20][random.below(3) as usize],
            tail_keep_count: [0, 2, 10, 1024][random.below(4) as usize],
        }
    }

    pub(crate) fn timeouts(&self) -> Timeouts {
        Timeouts {
            election: Nanos(self.timeout),
            patience: Nanos(self.timeout),
            spread: Nanos(self.spread),
            heartbeat: Nanos(self.timeout / 5),
            rtt: Nanos(MILLI / 10),
        }
    }
}

#[derive(Debug)]
pub(crate) enum Event {
    Deliver {
        from: NodeId,
        to: usize,
        wire: Wire,
    },
    Store {
        host: usize,
        life: u64,
    },
    Beat {
        host: usize,
        life: u64,
    },
    EndTurn {
        host: usize,
        life: u64,
    },
    Refused {
        host: usize,
        peer: NodeId,
        life: u64,
    },
    Chaos,
}

/// Things that some seed must have met, or the seeds prove little.
#[derive(Debug, Default)]
pub(crate) struct Met {
    pub(crate) elections: usize,
    pub(crate) truncations: usize,
    pub(crate) catch_ups: usize,
    pub(crate) restores: usize,
    pub(crate) commits: usize,
    pub(crate) reads: usize,
    pub(crate) crashes: usize,
    pub(crate) transfers: usize,
    pub(crate) refusals: usize,
    pub(crate) terms_max: u64,
}

pub(crate) struct World {
    pub(crate) random: Random,
    pub(crate) options: Options,
    pub(crate) now: u64,
    pub(crate) hosts: Vec<Host>,
    pub(crate) lives: Vec<u64>,
    pub(crate) store_pending: Vec<bool>,
    pub(crate) turn_open: Vec<bool>,
    /// `cut[from][to]`
    pub(crate) cut: Vec<Vec<bool>>,
    pub(crate) queue: BTreeMap<(u64, u64), Event>,
    pub(crate) sequence: u64,
    pub(crate) healed: bool,
    pub(crate) oracle: Oracle,
    pub(crate) met: Met,
}

impl World {
    pub(crate) fn new(seed: u64) -> Self {
        let mut random = Random(seed.wrapping_mul(0x2545_f491_4f6c_dd1d));
        let options = Options::draw(&mut random);
        Self::with(options, random, seed)
    }

    pub(crate) fn with(options: Options, mut random: Random, seed: u64) -> Self {
        let count = options.host_count;
        let group = GroupId(random.below(5) as u32);
        let mut hosts: Vec<_> = (1..=count)
            .map(|id| Host::new(Nanos(0), group, id, count, seed))
            .collect();
        for host in &mut hosts {
            host.config.bounds.tail_keep_count = options.tail_keep_count;
            host.raft = None;
            host.restart(Nanos(0));
            host.timeouts = options.timeouts();
            host.call(|raft, _| raft.set_timeouts(options.timeouts()));
        }
        let count = count as usize;
        let mut world = Self {
            random,
            options,
            now: 0,
            hosts,
            lives: vec![0; count],
            store_pending: vec![false; count],
            turn_open: vec![false; count],
            cut: vec![vec![false; count]; count],
            queue: BTreeMap::new(),
            sequence: 0,
            healed: false,
            oracle: Oracle::default(),
            met: Met::default(),
        };
        world.schedule(0, Event::Chaos);
        for host in 0..count {
            world.schedule(0, Event::Beat { host, life: 0 });
        }
        world
    }

    pub(crate) fn schedule(&mut self, delay: u64, event: Event) {
        self.sequence += 1;
        self.queue.insert((self.now + delay, self.sequence), event);
    }

    pub(crate) fn is_up(&self, host: usize) -> bool {
        self.hosts[host].raft.is_some()
    }

    pub(crate) fn leaders(&self) -> Vec<usize> {
        let leads = |host: &Host| host.raft.as_ref().is_some_and(|raft| raft.is_leader());
        (0..self.hosts.len())
            .filter(|i| leads(&self.hosts[*i]))
            .collect()
    }

    pub(crate) fn run_until(&mut self, end: u64) {
        loop {
            let due = |i: usize| {
                self.hosts[i]
                    .raft
                    .as_ref()
                    .map(|raft| (raft.deadline().0, i))
            };
            let deadline = (0..self.hosts.len()).filter_map(due).min();
            let event_at = self.queue.first_key_value().map(|((at, _), _)| *at);
            let deadline_at = deadline.map_or(u64::MAX, |(at, _)| at);
            if deadline_at.min(event_at.unwrap_or(u64::MAX)) > end {
                self.now = end;
                return;
            }
            if event_at.is_some_and(|at| at <= deadline_at) {
                let ((at, _), event) = self.queue.pop_first().unwrap();
                self.now = self.now.max(at);
                self.handle(event);
            } else {
                self.now = self.now.max(deadline_at);
                self.end_turn(deadline.unwrap().1);
            }
        }
    }

    pub(crate) fn handle(&mut self, event: Event) {
        let now = Nanos(self.now);
        match event {
            Event::Deliver { from, to, wire } => {
                if self.is_up(to) {
                    let short = self.random.percent(self.options.mischief_percent / 4);
                    let copy_max = if short && !self.healed { 1 } else { usize::MAX };
                    self.hosts[to].receive(now, from, wire, copy_max);
                    self.after_input(to);
                } else if self.random.percent(50) {
                    // The connection closes, and a redial finds nobody.
                    let host = from.0 as usize - 1;
                    let delay = self.random.below(5 * MILLI);
                    let (peer, life) = (node(to as u64 + 1), self.lives[host]);
                    self.schedule(delay, Event::Refused { host, peer, life });
                }
            }
            Event::Store { host, life } if life == self.lives[host] => {
                self.store_pending[host] = false;
                let count = self.hosts[host].sealed_count();
                if count > 0 {
                    let stored = 1 + self.random.below(count as u64) as usize;
                    self.hosts[host].store(now, stored);
                    self.after_input(host);
                }
            }
            Event::Beat { host, life } if life == self.lives[host] => {
                self.hosts[host].beat();
                self.settle(host);
                self.schedule(self.options.timeout / 5, Event::Beat { host, life });
            }
            Event::EndTurn { host, life } if life == self.lives[host] => self.end_turn(host),
            Event::Refused { host, peer, life }
                if life == self.lives[host]
                    && self.is_up(host)
                    && !self.is_up(peer.0 as usize - 1) =>
            {
                self.met.refusals += 1;
                self.hosts[host].call(|raft, out| raft.on_peer_refused(now, peer, out));
                self.after_input(host);
            }
            Event::Chaos if !self.healed => {
                self.chaos();
                let pause = self.random.below(self.options.timeout / 10);
                self.schedule(pause, Event::Chaos);
            }
            _ => {}
        }
    }

    /// Turns end at once or a little later, so that some gather many inputs.
    pub(crate) fn after_input(&mut self, host: usize) {
        if self.random.percent(self.options.turn_percent) {
            self.end_turn(host);
        } else if !self.turn_open[host] {
            self.turn_open[host] = true;
            let life = self.lives[host];
            self.schedule(MILLI / 10, Event::EndTurn { host, life });
        }
        self.settle(host);
    }

    pub(crate) fn end_turn(&mut self, host: usize) {
        if !self.is_up(host) {
            return;
        }
        self.turn_open[host] = false;
        let now = Nanos(self.now);
        self.hosts[host].call(|raft, out| raft.tick(now, out));
        self.hosts[host].end_turn(now);
        assert!(
            self.hosts[host].raft().deadline() > now,
            "what was due was done"
        );
        self.settle(host);
    }

    /// Judges what a host did, and lets it have its effects.
    pub(crate) fn settle(&mut self, host: usize) {
        let did = std::mem::take(&mut self.hosts[host].did);
        self.oracle.observe(&self.hosts, host, &did);
        for deed in did {
            match deed {
                Did::Send { to, wire } => self.route(host, to.0 as usize - 1, wire),
                Did::Output(output) => self.count(&output),
                Did::Pushed { .. } => {}
            }
        }
        if self.hosts[host].sealed_count() > 0 && !self.store_pending[host] {
            self.store_pending[host] = true;
            let mut delay = self.random.below(self.options.store_max);
            if !self.healed && self.random.percent(self.options.stall_percent) {
                delay += 2 * self.options.timeout;
            }
            let life = self.lives[host];
            self.schedule(delay, Event::Store { host, life });
        }
    }

    pub(crate) fn count(&mut self, output: &Output) {
        match output {
            Output::BecameLeader { term } => {
                self.met.elections += 1;
                self.met.terms_max = self.met.terms_max.max(term.0);
            }
            Output::Truncated { .. } => self.met.truncations += 1,
            Output::CatchUp { .. } => self.met.catch_ups += 1,
            Output::Committed { .. } => self.met.commits += 1,
            _ => {}
        }
    }

    pub(crate) fn route(&mut self, from: usize, to: usize, wire: Wire) {
        let lossy = !self.healed;
        if self.cut[from][to] || lossy && self.random.percent(self.options.drop_percent) {
            return;
        }
        let double = lossy && self.random.percent(self.options.double_percent);
        for _ in 0..=usize::from(double) {
            let mut delay = MILLI / 20 + self.random.below(self.options.delay_max);
            if lossy && self.random.percent(self.options.late_percent) {
                delay += self.random.below(8 * self.options.timeout); // Out of another term.
            }
            let (from, wire) = (node(from as u64 + 1), wire.clone());
            self.schedule(delay, Event::Deliver { from, to, wire });
        }
    }

    pub(crate) fn chaos(&mut self) {
        let host = self.random.below(self.options.host_count) as usize;
        if self.random.percent(self.options.crash_percent) {
            if self.is_up(host) {
                self.crash(host)
            } else {
                self.restart(host)
            }
        }
        if self.random.percent(self.options.part_percent) {
            self.part();
        }
        if self.random.percent(self.options.mischief_percent) && self.is_up(host) {
            self.mischief(host);
        }
        for leader in self.leaders() {
            if self.random.percent(50) {
                self.load(leader);
            }
        }
    }

    /// What clients and operators do.
    pub(crate) fn load(&mut self, leader: usize) {
        let now = Nanos(self.now);
        for _ in 0..self.random.below(4) {
            if self.hosts[leader].raft().can_propose().is_ok() {
                let salt = self.random.next() as u32 | 1;
                self.hosts[leader].propose(salt);
            }
        }
        if self.random.percent(30) {
            self.read(leader);
        }
        if self.random.percent(self.options.transfer_percent) {
            let to = node(1 + self.random.below(self.options.host_count));
            let told = self.hosts[leader].call(|raft, out| raft.transfer(now, to, out));
            self.met.transfers += usize::from(told.is_ok());
        }
        self.after_input(leader);
    }

    pub(crate) fn read(&mut self, host: usize) {
        let now = Nanos(self.now);
        self.sequence += 1;
        let id = self.sequence;
        self.oracle.begin_read(id);
        self.hosts[host].call(|raft, out| raft.read(now, id, out));
    }

    pub(crate) fn crash(&mut self, host: usize) {
        let runs = self.hosts[host].sealed_count() as u64;
        let reached = self.random.below(runs + 1) as usize;
        self.hosts[host].crash(reached);
        self.met.crashes += 1;
        self.lives[host] += 1;
        self.store_pending[host] = false;
        self.turn_open[host] = false;
    }

    pub(crate) fn restart(&mut self, host: usize) {
        self.hosts[host].restart(Nanos(self.now));
        let life = self.lives[host];
        self.schedule(0, Event::Beat { host, life });
    }

    pub(crate) fn part(&mut self) {
        let count = self.hosts.len();
        let shape = self.random.below(6);
        let mut side: Vec<_> = (0..count).map(|_| self.random.percent(50)).collect();
        if let (true, Some(leader)) = (shape > 3, self.leaders().pop()) {
            // The leader with a minority: its blocks of these moments are to be cut.
            side.fill(false);
            side[leader] = true;
            side[(leader + 1) % count] |= count > 4;
        }
        let lone = self.random.below(count as u64) as usize;
        for from in 0..count {
            for to in 0..count {
                self.cut[from][to] = match shape {
                    0 => false,
                    1 => from == lone || to == lone,
                    2 => self.random.percent(20), // Each direction for itself.
                    _ => side[from] != side[to],
                };
            }
        }
    }

    /// Rare things that are nobody's fault.
    pub(crate) fn mischief(&mut self, host: usize) {
        let now = Nanos(self.now);
        let peer = node(1 + self.random.below(self.options.host_count));
        let leader = self.hosts[host]
            .raft()
            .leader()
            .filter(|leader| *leader != node(host as u64 + 1));
        match self.random.below(10) {
            0 => self.hosts[host].miss_next = true,
            1 => self.hosts[host].fail_next = true,
            2 => self.hosts[host].seal(),
            3 => self.hosts[host].call(|raft, _| raft.on_peer_connected(peer)),
            // A redial may be refused although the peer lives, by a full backlog for example.
            4 => self.hosts[host].call(|raft, out| raft.on_peer_refused(now, peer, out)),
            5 => {
                let committed = self.hosts[host].committed.len() as u64;
                let through = Index(self.random.below(committed + 1));
                self.hosts[host].release(through);
                if self.random.percent(50) {
                    self.hosts[host].release(Index(committed));
                    self.hosts[host].trim(Index(committed));
                }
            }
            6 => self.read(host),
            // Or it may not have been the peer's address any more.
            7 => {
                let leader = leader.unwrap_or(peer);
                self.hosts[host].call(|raft, out| raft.on_peer_refused(now, leader, out));
            }
            // A word of the leader from long ago, or a transfer it gave up since.
            _ => {
                let message = Message::TimeoutNow {
                    term: self.hosts[host].raft().term(),
                };
                if let Some(leader) = leader {
                    let wire = Wire::Message(message);
                    self.hosts[host].receive(now, leader, wire, usize::MAX);
                }
            }
        }
        self.after_input(host);
    }

    pub(crate) fn cut_off(&mut self, host: usize) {
        for other in 0..self.hosts.len() {
            (self.cut[host][other], self.cut[other][host]) = (true, true);
        }
    }

    pub(crate) fn heal(&mut self) {
        self.healed = true;
        self.options.delay_max = MILLI;
        self.options.store_max = MILLI;
        for row in &mut self.cut {
            row.fill(false);
        }
        for host in 0..self.hosts.len() {
            if !self.is_up(host) {
                self.restart(host);
            }
        }
    }

    /// With a minority dead the others elect, whoever had the newest log and the highest term.
    fn elect_without_some(&mut self, span: u64) {
        let dead_max = (self.hosts.len() as u64 - 1) / 2;
        let dead_count = self.random.below(dead_max + 1);
        for _ in 0..dead_count {
            let any = self.random.below(self.hosts.len() as u64) as usize;
            // Best those that the others would miss most.
            let host = self.leaders().pop().unwrap_or(any);
            if self.is_up(host) {
                self.crash(host);
            }
        }
        self.run_until(self.now + 10 * span);
        let leader_count = self.leaders().len();
        assert_eq!(leader_count, 1, "one leader without a minority");
        for host in 0..self.hosts.len() {
            if !self.is_up(host) {
                self.restart(host);
            }
        }
    }

    /// With all well there is one leader, everybody follows it and has all it has.
    pub(crate) fn come_alive(&mut self) {
        let span = self.options.timeout + self.options.spread;
        self.heal();
        self.elect_without_some(span);
        self.run_until(self.now + 10 * span);
        let leaders = self.leaders();
        assert_eq!(leaders.len(), 1, "one leader after healing");
        let leader = leaders[0];
        let term = self.hosts[leader].raft().term();
        for salt in 0..3 {
            self.hosts[leader].propose(1000 + salt);
        }
        self.read(leader);
        let ready_count = self.oracle.read_ready_count;
        self.after_input(leader);
        self.run_until(self.now + 2 * span);
        assert_eq!(
            self.oracle.read_ready_count,
            ready_count + 1,
            "a read is served"
        );
        let last = self.hosts[leader].raft().last();
        for host in &self.hosts {
            let raft = host.raft();
            assert_eq!(
                raft.leader(),
                Some(node(leader as u64 + 1)),
                "all follow the leader"
            );
            assert_eq!(raft.term(), term, "a healthy group keeps its term");
            assert_eq!(raft.commit(), last, "everything proposed is committed");
            assert_eq!(raft.durable(), last, "and durable");
            assert_eq!(
                raft.faults().disagreement_count,
                0,
                "nobody saw a contradiction"
            );
            assert_eq!(raft.faults().malformed_count, 0, "nobody sent nonsense");
        }
    }
}
