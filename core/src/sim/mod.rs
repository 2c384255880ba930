//! Whole clusters on one virtual clock: what ships is what is simulated, but for bytes on a real
//! disk and a real wire.
//!
//! Every node is a shard with a disk and a clock of its own, driven as a real loop drives it. A run
//! has two phases: faults, then none, and then the cluster must heal within a bounded time. After
//! every step of any node the oracle checks what must never be violated; a run that violates it is a
//! [`Failure`]. All chance comes from one seed: a seed that fails does so again.
//!
//! | file | noun |
//! | --- | --- |
//! | `swarm`, `faults` | which faults a seed has; what goes wrong and when |
//! | `world`, `turn` | the heap of events; what a loop does around a shard |
//! | `node`, `link`, `clock`, `disk`, `network` | the machines, and what is between them |
//! | `client`, `producer`, `reader`, `caller` | who uses the cluster |
//! | `oracle`, `ledger`, `runs`, `history` | what must be true, of logs, disks and answers |
//! | `scenario`, `graphs` | stories told by scripts; every way of linking a few nodes |
//! | `chance`, `marks`, `trace` | the seed; what happened; the proof that it replays |
//! | `failure`, `shrink` | a run that broke something; the least of it that still does |

mod caller;
mod chance;
mod client;
mod clock;
mod disk;
mod failure;
mod faults;
pub mod graphs;
mod history;
mod ledger;
mod link;
mod marks;
mod network;
mod node;
mod oracle;
mod producer;
mod reader;
mod runs;
pub mod scenario;
mod shrink;
mod swarm;
mod trace;
mod turn;
mod world;

pub use failure::Failure;
pub use marks::Marks;
pub use shrink::{Shrunk, shrink};
pub use swarm::{Choice, Swarm};
pub use trace::{Lane, Record, Sink, Standing};

use client::Role;
use failure::{Broken, caught};
use reader::Reader;
use trace::Trace;
use world::World;

use crate::id::Nanos;
use crate::shard::Shard;

/// A cluster without faults must heal within this. Ten times the longest election timeout.
const HEAL_SPAN: Nanos = Nanos::from_millis(30_000);
/// No run has that many events: one that does is a storm.
const EVENT_COUNT_MAX: u64 = 5_000_000;

/// What a run came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Equal for two runs of a seed.
    pub trace_sum: u128,
    /// What happened.
    pub marks: Marks,
    /// Events carried out.
    pub event_count: u64,
    /// From the end of faults until everything was whole again.
    pub heal_span: Nanos,
}

/// Plays one run to its end.
///
/// # Errors
/// What broke, if anything that must hold does not.
pub fn run(swarm: &Swarm, sink: Option<Sink<'_>>) -> Result<Report, Box<Failure>> {
    let mut world = World::new(swarm.clone(), Trace::new(sink));
    caught(|| play(&mut world)).map_err(|broken| {
        let Broken { invariant, detail } = broken;
        world
            .trace
            .say(Lane::World, "broken", format_args!("{invariant}"));
        Box::new(Failure {
            seed: swarm.seed,
            invariant,
            detail,
            at: world.now,
            event: world.trace.event(),
            trace_sum: world.trace.sum(),
            marks: world.marks.clone(),
        })
    })
}

/// Faults, then none.
fn play(world: &mut World<'_>) -> Report {
    let fault_span = world.swarm.fault_span;
    let next = |world: &mut World<'_>| {
        assert!(world.trace.event() < EVENT_COUNT_MAX, "a storm of events");
        assert!(world.next(), "there is always something to come");
    };
    world.begin();
    while world.now < fault_span {
        next(world);
    }
    let healed_from = world.now;
    world.heal();
    expect_fresh_acks(world);
    let deadline = healed_from.after(HEAL_SPAN);
    let mut phase = Phase::Acks;
    let mut heal_span = Nanos(0);
    while phase != Phase::Done {
        next(world);
        assert!(
            world.now < deadline,
            "not healed in time: {}",
            ailing(world, phase)
        );
        if phase.is_over(world) {
            heal_span = if phase == Phase::Convergence {
                world.now.since(healed_from)
            } else {
                heal_span
            };
            phase = phase.next(world);
        }
    }
    finish(world);
    Report {
        trace_sum: world.trace.sum(),
        marks: world.marks.clone(),
        event_count: world.trace.event(),
        heal_span,
    }
}

/// What is waited for after the end of faults.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Every producer has an append acknowledged that it made since.
    Acks,
    /// Every producer has an answer to all it made.
    Answers,
    /// Every replica has everything.
    Convergence,
    /// Every replica's log was read from its beginning to its end.
    Audits,
    Done,
}

impl Phase {
    fn is_over(self, world: &World<'_>) -> bool {
        match self {
            Self::Acks => producers(world).all(producer::Producer::has_fresh_ack),
            Self::Answers => producers(world).all(producer::Producer::is_idle),
            Self::Convergence => world.oracle.has_converged(shards(world)),
            Self::Audits => readers(world)
                .filter(|reader| reader.is_audit())
                .all(|r| r.finished().is_some()),
            Self::Done => true,
        }
    }

    fn next(self, world: &mut World<'_>) -> Self {
        match self {
            Self::Acks => {
                for desk in &mut world.desks {
                    match &mut desk.client.role {
                        Role::Producer(producer) => producer.stop(),
                        Role::Reader(reader) => reader.stop(),
                        Role::Caller(_) => {}
                    }
                }
                Self::Answers
            }
            Self::Answers => Self::Convergence,
            Self::Convergence => {
                for node in 0..world.swarm.node_count {
                    for (position, group) in world.groups.clone().into_iter().enumerate() {
                        let auditor = Role::Reader(Reader::auditor(group, position));
                        world.add_client(auditor, Some(node));
                    }
                }
                Self::Audits
            }
            Self::Audits | Self::Done => Self::Done,
        }
    }
}

fn producers<'w>(world: &'w World<'_>) -> impl Iterator<Item = &'w producer::Producer> {
    world
        .desks
        .iter()
        .filter_map(|desk| match &desk.client.role {
            Role::Producer(producer) => Some(producer),
            Role::Reader(_) | Role::Caller(_) => None,
        })
}

fn readers<'w>(world: &'w World<'_>) -> impl Iterator<Item = &'w Reader> {
    world
        .desks
        .iter()
        .filter_map(|desk| match &desk.client.role {
            Role::Producer(_) | Role::Caller(_) => None,
            Role::Reader(reader) => Some(reader),
        })
}

fn shards<'w>(world: &'w World<'_>) -> impl Iterator<Item = &'w Shard> {
    world
        .nodes
        .iter()
        .filter_map(|node| node.process.as_ref().map(|process| &process.shard))
}

fn expect_fresh_acks(world: &mut World<'_>) {
    for desk in &mut world.desks {
        if let Role::Producer(producer) = &mut desk.client.role {
            producer.expect();
        }
    }
}

/// What is not well, in words.
fn ailing(world: &World<'_>, phase: Phase) -> String {
    let mut text = format!("waiting for {phase:?}");
    for (node, machine) in world.nodes.iter().enumerate() {
        let Some(process) = &machine.process else {
            continue;
        };
        for raft in process.shard.rafts() {
            let (role, term) = (raft.role(), raft.term());
            let (commit, durable, last) = (raft.commit(), raft.durable(), raft.last());
            text += &format!("\n  node {node} {role:?} in {term}: {commit} {durable} {last}");
            for peer in raft.voters() {
                if let Some(progress) = raft.progress(*peer) {
                    let (matched, next, state) =
                        (progress.matched(), progress.next(), progress.state());
                    text += &format!("\n    to {}: {matched} {next} {state:?}", peer.0 - 1);
                }
            }
        }
        for link in &process.links {
            text += &format!("\n    link {} {} {:?}", link.peer, link.lane, link.state);
        }
    }
    text
}

/// The last word: nothing acknowledged is lost, and all replicas hold the same.
fn finish(world: &World<'_>) {
    let group_count = world.groups.len();
    let group_of = |producer: u64| (producer as usize - 1) % group_count;
    for audit in readers(world).filter_map(Reader::finished) {
        audit.finish(&world.history, group_of);
    }
}
