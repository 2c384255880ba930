//! Random schedules against servers that keep their promises and nothing more.
//!
//! Three nodes with a log each; one leads, and its uncommitted end may be cut when another takes
//! over. Answers are delayed, reordered, doubled and lost; connections break with requests in
//! them; leaders that are deposed go on accepting until they notice; producers are forgotten. In
//! the end every append has one outcome, and the log agrees with all of them.

mod nodes;

use std::collections::BTreeMap;

use super::*;
use nodes::Node;

#[derive(Debug)]
enum Event {
    Dialled(ConnectionId, NodeId),
    ToNode(ConnectionId, Sent),
    AppendReply(ConnectionId, AppendReply),
    FetchReply(ConnectionId, FetchReply),
    Welcome(ConnectionId, NodeId),
    Break(ConnectionId),
    Offer,
    Commit,
    Trouble,
}

/// What may go wrong in one run, in per mille of the occasions.
#[derive(Debug)]
struct Faults {
    lose_reply: u64,
    double_reply: u64,
    refuse: u64,
    trouble: u64,
}

struct World {
    seed: u64,
    client: Client,
    effects: Effects,
    now: Nanos,
    random: Jitter,
    faults: Faults,
    events: BTreeMap<(Nanos, u64), Event>,
    next_event: u64,
    nodes: Vec<Node>,
    /// Entries that a majority has: no log of a leader lacks them.
    committed: usize,
    /// Entries below are forgotten for the judgement of appends.
    forgotten: usize,
    /// No node is reached before.
    dark_until: Nanos,
    links: BTreeMap<ConnectionId, NodeId>,
    /// When the last request on a connection arrives: requests keep their order.
    arrivals: BTreeMap<ConnectionId, Nanos>,
    offered: u64,
    outcomes: BTreeMap<u64, Outcome>,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut random = Jitter::new(seed);
        let timeout = [ms(40), ms(150), ms(3_000)][random.next() as usize % 3];
        let mut pick = |most: u64| match random.next() % 3 {
            0 => 0,
            _ => random.next() % most,
        };
        let faults = Faults {
            lose_reply: pick(60),
            double_reply: pick(60),
            refuse: pick(150),
            trouble: pick(1_000),
        };
        let node = Node {
            term: 1,
            leader: 1,
            ..Node::default()
        };
        let mut nodes = vec![node; 3];
        nodes[0].leads = true;
        Self {
            seed,
            client: Client::new(config(timeout, seed)),
            effects: Effects::new(),
            now: ms(1),
            random,
            faults,
            events: BTreeMap::new(),
            next_event: 0,
            nodes,
            committed: 0,
            forgotten: 0,
            dark_until: Nanos(0),
            links: BTreeMap::new(),
            arrivals: BTreeMap::new(),
            offered: 0,
            outcomes: BTreeMap::new(),
        }
    }

    fn chance(&mut self, per_mille: u64) -> bool {
        self.random.next() % 1_000 < per_mille
    }

    fn micros(&mut self, most: u64) -> Nanos {
        Nanos::from_micros(1 + self.random.next() % most)
    }

    fn at(&mut self, at: Nanos, event: Event) {
        self.next_event += 1;
        self.events.insert((at, self.next_event), event);
    }

    fn soon(&mut self, most_us: u64, event: Event) {
        let at = self.now.after(self.micros(most_us));
        self.at(at, event);
    }

    // ---- the client's effects

    fn step(&mut self, input: Input<'_>) {
        self.client.step(self.now, input, &mut self.effects);
        self.perform();
    }

    fn perform(&mut self) {
        while let Some(effect) = self.effects.take_next() {
            match effect {
                Effect::Connect {
                    connection,
                    address,
                } => self.soon(300, Event::Dialled(connection, node_at(&address))),
                Effect::Send {
                    connection,
                    head,
                    payload,
                } => {
                    let last = self.arrivals.get(&connection).copied().unwrap_or_default();
                    let at = self.now.after(self.micros(400)).max(Nanos(last.0 + 1));
                    self.arrivals.insert(connection, at);
                    self.at(at, Event::ToNode(connection, decode(&head, &payload)));
                }
                Effect::Close { connection } => self.unlink(connection),
                Effect::Appended { token, outcome } => {
                    let before = self.outcomes.insert(token, outcome);
                    assert_eq!(before, None, "one outcome for append {token}");
                }
                Effect::Welcomed => {}
                other => panic!("nothing else was asked for: {other:?}"),
            }
        }
    }

    /// Requests that have not arrived are lost with their connection.
    fn unlink(&mut self, connection: ConnectionId) {
        self.links.remove(&connection);
        for node in &mut self.nodes {
            node.held.retain(|held| held.connection != connection);
        }
    }
    // ---- time

    fn on_event(&mut self, event: Event) {
        match event {
            Event::Dialled(connection, node) => {
                if self.chance(100) || self.now < self.dark_until {
                    let fault = LinkFault::Unreachable("refused".to_owned());
                    return self.step(Input::Closed { connection, fault });
                }
                self.links.insert(connection, node);
                self.step(Input::Connected { connection });
            }
            Event::ToNode(connection, sent) => self.on_request(connection, sent),
            Event::AppendReply(connection, reply) => self.deliver(connection, &reply),
            Event::FetchReply(connection, reply) => self.deliver(connection, &reply),
            Event::Welcome(connection, node) => self.deliver(connection, &welcome(node)),
            Event::Break(connection) => {
                let fault = LinkFault::Closed;
                self.step(Input::Closed { connection, fault });
            }
            Event::Offer => self.offer(),
            Event::Commit => self.commit(),
            Event::Trouble => self.trouble(),
        }
    }

    fn deliver<T: Body>(&mut self, connection: ConnectionId, body: &T) {
        if self.links.contains_key(&connection) {
            let effects = &mut self.effects;
            deliver(&mut self.client, self.now, connection, body, &[], effects);
            self.perform();
        }
    }

    fn offer(&mut self) {
        let token = self.offered;
        self.offered += 1;
        let record = Bytes::copy_from_slice(&token.to_le_bytes());
        let since = self.now;
        self.step(Input::Append {
            group: GROUP,
            token,
            since,
            records: Records::one(record).unwrap(),
        });
    }

    /// Runs until `end`, or until there is nothing to do.
    fn run(&mut self, end: Nanos) {
        let mut steps = 0;
        loop {
            let event = self.events.keys().next().map(|(at, _)| *at);
            let timer = self.client.deadline();
            let Some(next) = [event, timer].into_iter().flatten().min() else {
                return;
            };
            if next > end {
                self.now = end;
                return;
            }
            self.now = self.now.max(next);
            if event == Some(next) {
                let (_, event) = self.events.pop_first().expect("it was just seen");
                self.on_event(event);
            } else {
                self.step(Input::Tick);
            }
            steps += 1;
            assert!(steps < 1_000_000, "seed {}: the client spins", self.seed);
        }
    }

    /// Ten milliseconds in which nothing goes wrong.
    fn calm(&mut self) {
        [A, B, C].into_iter().for_each(|node| self.notice(node));
        self.soon(1_000, Event::Commit);
        let end = self.now.after(ms(10));
        self.run(end);
    }

    /// What the log and the outcomes say of each other.
    fn check(&self) {
        let seed = self.seed;
        let log = &self.nodes[self.leader().0 as usize - 1].log;
        let tokens: Vec<u64> = log.iter().flat_map(|entry| entry.tokens.clone()).collect();
        assert!(
            tokens.is_sorted_by(|a, b| a < b),
            "seed {seed}: doubled or out of order: {tokens:?}"
        );
        assert_eq!(self.outcomes.len() as u64, self.offered, "seed {seed}");
        for (token, outcome) in &self.outcomes {
            let place = tokens.binary_search(token);
            match outcome {
                Outcome::Committed { offset, .. } => {
                    assert_eq!(place, Ok(*offset as usize), "seed {seed}: append {token}");
                }
                Outcome::NotCommitted(reason) => {
                    assert!(place.is_err(), "seed {seed}: {token} is in, but {reason}");
                }
                Outcome::Unknown => {}
            }
        }
    }
}

#[derive(Debug, Default)]
struct Tally {
    committed: u64,
    not_committed: u64,
    unknown: u64,
}

fn run(seed: u64, tally: &mut Tally) {
    let mut world = World::new(seed);
    world.step(Input::Tick);
    // A time of trouble.
    let bursts = 40;
    for _ in 0..bursts {
        for _ in 0..world.random.next() % 6 {
            world.soon(9_000, Event::Offer);
        }
        world.soon(1_000, Event::Commit);
        world.soon(10_000, Event::Commit);
        if world.chance(world.faults.trouble) {
            world.soon(10_000, Event::Trouble);
        }
        let end = world.now.after(ms(10));
        world.run(end);
    }
    // Then all is well: what is still under way ends, and something new gets through.
    world.faults.lose_reply = 0;
    world.faults.refuse = 0;
    world.dark_until = Nanos(0);
    for _ in 0..1_000 {
        world.calm();
        if world.outcomes.len() as u64 == world.offered {
            break;
        }
    }
    // The first may be too early: the client's patience can be shorter than its waits.
    let got_through = (0..10).any(|_| {
        let last = world.offered;
        world.offer();
        (0..50).for_each(|_| world.calm());
        let outcome = world.outcomes.get(&last);
        outcome.is_some_and(|outcome| outcome.offset().is_some())
    });
    assert!(
        got_through,
        "seed {seed}: {:?}",
        world.outcomes.last_key_value()
    );
    world.commit();
    world.check();
    for outcome in world.outcomes.values() {
        match outcome {
            Outcome::Committed { .. } => tally.committed += 1,
            Outcome::NotCommitted(_) => tally.not_committed += 1,
            Outcome::Unknown => tally.unknown += 1,
        }
    }
}

#[cfg(feature = "bugs")]
#[test]
fn bugs_of_other_clients_are_caught() {
    use crate::bugs::{Switch, choose};
    for switch in [Switch::B70, Switch::B72] {
        let breaks = |seed: &u64| {
            choose(Some(switch));
            let played = std::panic::catch_unwind(|| run(*seed, &mut Tally::default()));
            choose(None);
            played.is_err()
        };
        let seed = (0..600).find(breaks).expect("one of the usual seeds");
        println!("{switch:?} seed {seed}");
        run(seed, &mut Tally::default());
    }
}

#[test]
fn whatever_the_servers_do_within_their_promises_the_log_agrees_with_every_outcome() {
    let mut tally = Tally::default();
    for seed in 0..600 {
        run(seed, &mut tally);
    }
    // The runs are of use only if all three ends are common in them.
    let Tally {
        committed,
        not_committed,
        unknown,
    } = tally;
    assert!(
        committed > 20_000 && not_committed > 500 && unknown > 500,
        "{tally:?}"
    );
}
