//! Seeds: N Rafts on a network that delays, drops, doubles, reorders and parts, on disks that
//! forget what was not stored. First a phase in which anything may happen and only safety is
//! asked, then everything heals and the group must come to life.
//!
//! A failing seed names itself; `RINGWOOD_SEED=n cargo test raft` plays that one alone, and
//! `RINGWOOD_SEEDS=n` as many as wanted.

use super::host::node;
use super::world::{Event, MILLI, Met, Options, Random, World};

const SEED_COUNT: u64 = 700;

fn play(seed: u64) -> Met {
    let mut world = World::new(seed);
    world.run_until(world.options.duration);
    world.come_alive();
    world.met.reads = world.oracle.read_ready_count;
    world.met.restores = world.hosts.iter().map(|host| host.restore_count).sum();
    world.met
}

#[test]
fn seeds_keep_every_promise_and_heal() {
    if let Ok(seed) = std::env::var("RINGWOOD_SEED") {
        let seed = seed.parse().expect("RINGWOOD_SEED is a number");
        println!("{:?}", World::new(seed).options);
        println!("{:?}", play(seed));
        return;
    }
    let mut total = Met::default();
    let wanted = std::env::var("RINGWOOD_SEEDS").ok();
    let seed_count = wanted.map_or(SEED_COUNT, |count| {
        count.parse().expect("a number of seeds")
    });
    for seed in 0..seed_count {
        let met = std::panic::catch_unwind(|| play(seed)).unwrap_or_else(|_| {
            panic!("seed {seed} failed: RINGWOOD_SEED={seed} plays it alone");
        });
        total.elections += met.elections;
        total.truncations += met.truncations;
        total.catch_ups += met.catch_ups;
        total.restores += met.restores;
        total.commits += met.commits;
        total.reads += met.reads;
        total.crashes += met.crashes;
        total.transfers += met.transfers;
        total.refusals += met.refusals;
        total.terms_max = total.terms_max.max(met.terms_max);
    }
    println!("{total:?}");
    // Each of these must have happened often, or the seeds prove little.
    assert!(total.elections > SEED_COUNT as usize);
    assert!(total.truncations > 100);
    assert!(total.catch_ups > 100);
    assert!(total.restores > 10);
    assert!(total.commits > 10 * SEED_COUNT as usize);
    assert!(total.reads > SEED_COUNT as usize);
    assert!(total.crashes > 100);
    assert!(total.transfers > 100);
    assert!(total.refusals > 100);
}

/// How long five hosts on a quick network are without a leader, in microseconds, once theirs is
/// `gone`; the median and the longest of 200 runs.
fn gap_micros(gone: impl Fn(&mut World, usize)) -> (u64, u64) {
    let gap = |seed| {
        let mut random = Random(seed);
        let mut options = Options::draw(&mut random);
        (options.host_count, options.timeout, options.spread) = (5, 30 * MILLI, 15 * MILLI);
        let mut world = World::with(options, random, seed);
        world.heal();
        (world.options.delay_max, world.options.store_max) = (MILLI / 10, MILLI / 2);
        world.run_until(500 * MILLI);
        let leader = world.leaders()[0];
        gone(&mut world, leader);
        let began_at = world.now;
        while world.leaders().iter().all(|host| *host == leader) {
            world.run_until(world.now + MILLI / 20);
        }
        (world.now - began_at) / 1000
    };
    let mut gaps: Vec<_> = (0..200).map(gap).collect();
    gaps.sort_unstable();
    (gaps[100], gaps[199])
}

#[test]
fn a_killed_leader_costs_milliseconds_and_a_frozen_one_two_timeouts() {
    let killed = gap_micros(|world, leader| {
        world.crash(leader);
        let peer = node(leader as u64 + 1);
        for host in (0..5).filter(|host| *host != leader) {
            let delay = world.random.below(MILLI);
            let life = world.lives[host];
            world.schedule(delay, Event::Refused { host, peer, life });
        }
    });
    let frozen = gap_micros(|world, leader| world.cut_off(leader));
    println!("killed {killed:?}, frozen {frozen:?}");
    assert!(killed.0 < 10_000, "{killed:?}");
    assert!(killed.1 < 60_000, "{killed:?}");
    assert!(frozen.0 < 45_000, "{frozen:?}");
    assert!(frozen.1 < 90_000, "{frozen:?}");
}
