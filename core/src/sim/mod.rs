//! Whole clusters on one virtual clock: what ships is what is simulated, but for bytes on a real
//! disk and a real wire.
//!
//! Every node is a shard with a disk and a clock of its own, driven as a real loop drives it. A run
//! has bursts of faults, and after each the cluster must heal within a bounded time. After
//! every step of any node the oracle checks what must never be violated; a run that violates it is a
//! [`Failure`]. All chance comes from one seed: a seed that fails does so again.
//!
//! | file | noun |
//! | --- | --- |
//! | `swarm`, `shown`, `schedule` | what a seed is made of, and for people; which faults it has, and when |
//! | `faults`, `cuts`, `damage`, `relay` | what goes wrong with processes and clocks, networks, disks; with a disk between two cuts |
//! | `world`, `turn`, `wire`, `desks` | the heap of events; what loops, connections and clients do |
//! | `node`, `link`, `clock`, `disk`, `network` | the machines, and what is between them |
//! | `client`, `producer`, `reader`, `caller` | who uses the cluster |
//! | `oracle`, `ledger`, `runs`, `trims` | what must be true of logs and disks, and of where they begin |
//! | `history`, `linear` | what must be true of answers |
//! | `scenario`, `graphs` | stories told by scripts; every way of linking a few nodes |
//! | `chance`, `marks`, `trace` | the seed; what happened; the proof that it replays |
//! | `failure`, `shrink` | a run that broke something; the least of it that still does |

mod caller;
mod chance;
mod client;
mod clock;
mod cuts;
mod damage;
mod desks;
mod disk;
mod failure;
mod faults;
pub mod graphs;
mod history;
mod ledger;
mod linear;
mod link;
mod marks;
mod network;
mod node;
mod oracle;
mod producer;
mod reader;
mod relay;
mod runs;
pub mod scenario;
mod schedule;
mod shown;
mod shrink;
mod swarm;
mod trace;
mod trims;
mod turn;
mod wire;
mod world;

pub use failure::Failure;
pub use marks::Marks;
pub use shrink::{Shrunk, shrink};
pub use swarm::{Choice, Fault, Swarm};
pub use trace::{Lane, Record, Sink, Standing};

use client::Role;
use failure::{Broken, caught};
use faults::STOP_PATIENCE;
use reader::Reader;
use swarm::PATIENCE_MAX;
use trace::Trace;
use world::World;

use crate::id::Nanos;
use crate::raft::Raft;
use crate::shard::Shard;

/// Once nothing is wrong every producer must be acknowledged within this: twelve times the longest
/// election timeout.
const ACK_SPAN: Nanos = Nanos::from_millis(36_000);
/// The same where ten round trips are more than that timeout: then votes of three or four nodes cross
/// in every second election, and eight of those in a row are seen once in some thousand runs.
const FAR_ACK_SPAN: Nanos = Nanos::from_millis(144_000);
/// And every replica must have everything within this: twenty times.
const HEAL_SPAN: Nanos = Nanos::from_millis(60_000);
/// Some hundred appends take no longer than this.
const QUOTA_SPAN: Nanos = Nanos::from_millis(120_000);
/// A whole log is read within this, however far away its reader is.
const AUDIT_SPAN: Nanos = Nanos::from_millis(3_600_000);
/// Measurements of a burst are forgotten by then: two windows.
const SETTLE_SPAN: Nanos = Nanos::from_millis(25_000);
/// A calm is watched for so long, where a run has none of its own.
const WATCH_SPAN: Nanos = Nanos::from_millis(5_000);
/// More than so many times the frames that are needed are a storm.
const STORM_FACTOR: u64 = 4;
/// No run has that many events: one that does is a storm.
const EVENT_COUNT_MAX: u64 = 10_000_000;

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

/// Bursts of faults; after each the cluster heals, and is quiet until the next.
fn play(world: &mut World<'_>) -> Report {
    let bursts = schedule::bursts(&world.swarm);
    let fault_span = world.swarm.fault_span;
    let mut heal_max = Nanos(0);
    world.begin();
    for (number, burst) in bursts.iter().enumerate() {
        run_until(world, burst.from);
        let acked = world.marks.acked;
        world.rage(burst);
        run_until(world, burst.until);
        let span = heal(world, acked);
        heal_max = heal_max.max(span);
        if world.wild.calm_stop {
            stop_in_peace(world);
        }
        let next = bursts.get(number + 1);
        be_quiet(world, next.map_or(fault_span, |next| next.from));
    }
    if world.swarm.is_watched {
        let until = world.now.after(SETTLE_SPAN).after(WATCH_SPAN);
        be_quiet(world, until);
    }
    audit(world);
    if world.wild.ruin {
        ruin(world);
    }
    Report {
        trace_sum: world.trace.sum(),
        marks: world.marks.clone(),
        event_count: world.trace.event(),
        heal_span: heal_max,
    }
}

fn next(world: &mut World<'_>) {
    assert!(world.trace.event() < EVENT_COUNT_MAX, "a storm of events");
    assert!(world.next(), "there is always something to come");
}

fn run_until(world: &mut World<'_>, moment: Nanos) {
    while world.now < moment {
        next(world);
    }
}

/// Faults end; within a bounded time everything works again and every replica has everything. Says
/// how long that took, without the time in which there was only more work to do: `acked` appends
/// were acknowledged before the burst.
fn heal(world: &mut World<'_>, acked: u64) -> Nanos {
    world.heal();
    for desk in &mut world.desks {
        if let Role::Producer(producer) = &mut desk.client.role {
            producer.expect();
        }
    }
    let is_far = world.swarm.patience() >= PATIENCE_MAX;
    let ack_span = if is_far { FAR_ACK_SPAN } else { ACK_SPAN };
    let mut span = wait_for(world, ack_span, Phase::Acks);
    let quota = world.swarm.quota;
    wait_for(world, QUOTA_SPAN, Phase::Quota(acked.saturating_add(quota)));
    if quota > 0 {
        // What is still appended before the next burst is only there to be in the way.
        let every = &mut world.swarm.append_every;
        *every = Nanos(8 * every.0);
    }
    rest(world);
    for phase in [Phase::Answers, Phase::Convergence] {
        span = span.after(wait_for(world, Nanos(HEAL_SPAN.0 - span.0), phase));
    }
    span
}

/// Clients have no work.
fn rest(world: &mut World<'_>) {
    for desk in &mut world.desks {
        match &mut desk.client.role {
            Role::Producer(producer) => producer.stop(),
            Role::Reader(reader) => reader.stop(),
            Role::Caller(_) => {}
        }
    }
}

/// Under load and with nothing wrong, a node is asked to stop, most often one that leads: it owes
/// nobody anything in time, no append ends in doubt for it, and who was handed over to leads on.
fn stop_in_peace(world: &mut World<'_>) {
    let node_count = world.swarm.node_count;
    let is_in = |machine: &node::Node| !machine.is_out && !machine.is_damaged;
    // Where the others are no majority, nobody can lead instead.
    if node_count == 2 || !world.nodes.iter().all(is_in) {
        return;
    }
    world.load(true);
    let patience = world.swarm.patience();
    run_until(world, world.now.after(Nanos(4 * patience.0)));
    let leader = shards(world).position(|shard| shard.rafts().any(Raft::is_leader));
    let any = world.chance.below(node_count as u64) as usize;
    let node = leader.filter(|_| !world.chance.one_in(4)).unwrap_or(any);
    let (life, marks) = (world.nodes[node].life, world.marks.clone());
    assert!(world.ask_to_stop(node), "all are up, and none was asked");
    let from = world.now;
    while world.nodes[node].life == life {
        next(world);
    }
    let span = world.now.since(from);
    run_until(world, world.now.after(Nanos(10 * patience.0)));
    // With so long ways its time may well be too short.
    if patience < STOP_PATIENCE {
        let count = world.marks.stops_in_peace - marks.stops_in_peace;
        assert!(
            count == 1,
            "a node that stops still owes somebody after {} ms",
            span.0 / 1_000_000
        );
        let count = world.marks.unknown - marks.unknown;
        assert!(count == 0, "a stop leaves appends in doubt: {count}");
        let count = world.marks.elections - marks.elections;
        let led = u64::from(world.swarm.group_count);
        assert!(count <= led, "a stop brings {count} leaders to {led} logs");
    }
    rest(world);
    wait_for(world, ACK_SPAN, Phase::Answers);
    wait_for(world, HEAL_SPAN, Phase::Convergence);
}

/// Nothing is wrong: nobody is to be elected in such a time, and no term may grow (once whoever had
/// become impatient or slow in the burst has measured anew).
fn be_quiet(world: &mut World<'_>, until: Nanos) {
    if world.now.after(SETTLE_SPAN) >= until {
        return;
    }
    world.load(false);
    run_until(world, world.now.after(SETTLE_SPAN));
    let (from, marks) = (world.now, world.marks.clone());
    let sent: Vec<u64> = world.nodes.iter().map(|node| node.sent_count).collect();
    run_until(world, until);
    let count = world.marks.elections - marks.elections;
    assert!(
        count == 0,
        "leaders change while nothing is wrong: {count} times"
    );
    let frame_count_max = calm_frame_count(world, &marks, world.now.since(from)) * STORM_FACTOR;
    world.marks.calms_watched += 1;
    for (node, before) in sent.iter().enumerate() {
        let count = world.nodes[node].sent_count - before;
        assert!(
            count <= frame_count_max,
            "a storm of messages: node {node} sends {count} in a calm, and {frame_count_max} are many"
        );
    }
}

/// Frames that a node has to send in a calm: a heartbeat and an answer to one for each peer and
/// pause between heartbeats; and for each append and each read that asks whether its leader leads
/// still, blocks, an answer, and a heartbeat with its answer.
fn calm_frame_count(world: &World<'_>, before: &Marks, span: Nanos) -> u64 {
    let rafts = shards(world).flat_map(Shard::rafts);
    let pause = rafts.map(|raft| raft.timeouts().heartbeat).min();
    let beat_count = pause.map_or(0, |pause| span.0 / pause.0 + 1);
    let marks = &world.marks;
    let asked = marks.acked - before.acked + marks.reads_linearizable - before.reads_linearizable;
    let peer_count = world.swarm.node_count as u64 - 1;
    peer_count * (2 * beat_count + 4 * asked)
}

/// Every disk is damaged; each node must doubt what it lost, or have lost nothing. One alone refuses
/// to start.
fn ruin(world: &mut World<'_>) {
    world.ruin();
    let is_judged = |node: &node::Node| node.is_out || node.process.is_some();
    while !world.nodes.iter().all(is_judged) {
        next(world);
    }
}

/// Every replica's log is read from its beginning to its end: nothing acknowledged is lost, and all
/// hold the same.
fn audit(world: &mut World<'_>) {
    let damaged = world.damage_segment();
    for node in 0..world.swarm.node_count {
        for (position, group) in world.groups.clone().into_iter().enumerate() {
            if !world.nodes[node].is_out {
                let auditor = Role::Reader(Reader::auditor(group, position, damaged == Some(node)));
                world.add_client(auditor, Some(node));
            }
        }
    }
    for desk in &mut world.desks {
        match &mut desk.client.role {
            Role::Producer(producer) => producer.stop(),
            Role::Reader(reader) if !reader.is_audit() => reader.stop(),
            Role::Reader(_) | Role::Caller(_) => {}
        }
    }
    wait_for(world, HEAL_SPAN, Phase::Answers);
    wait_for(world, HEAL_SPAN, Phase::Convergence);
    wait_for(world, AUDIT_SPAN, Phase::Audits);
    world.oracle.check_faults(shards(world));
    let group_count = world.groups.len();
    let group_of = |producer: u64| (producer as usize - 1) % group_count;
    for audit in readers(world).filter_map(Reader::finished) {
        audit.finish(&world.history, group_of);
    }
}

/// Runs until something is so, for a bounded time.
fn wait_for(world: &mut World<'_>, span_max: Nanos, phase: Phase) -> Nanos {
    let from = world.now;
    let deadline = from.after(span_max);
    while !phase.is_over(world) {
        next(world);
        assert!(
            world.now < deadline,
            "not healed in time: {}",
            ailing(world, phase)
        );
    }
    world.now.since(from)
}

/// What is waited for once nothing is wrong any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Every producer has an append acknowledged that it made since.
    Acks,
    /// That many appends are acknowledged in all.
    Quota(u64),
    /// Every producer has an answer to all it made.
    Answers,
    /// Every replica has everything.
    Convergence,
    /// Every replica's log was read.
    Audits,
}

impl Phase {
    fn is_over(self, world: &World<'_>) -> bool {
        match self {
            Self::Acks => producers(world).all(producer::Producer::has_fresh_ack),
            Self::Quota(count) => world.marks.acked >= count,
            Self::Answers => producers(world).all(producer::Producer::is_idle),
            Self::Convergence => {
                let expected = world.nodes.iter().filter(|node| !node.is_out).count();
                world.oracle.has_converged(shards(world), expected)
            }
            Self::Audits => readers(world)
                .filter(|reader| reader.is_audit())
                .all(Reader::is_done),
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
