//! The simulator's seeds: whole clusters under faults, and that a seed replays.
//!
//! `SIM_SEED=17` plays one seed and prints its trace. `SIM_COUNT` and `SIM_FIRST` choose how many
//! seeds are played, and from which on.

use std::panic::{AssertUnwindSafe, catch_unwind};

use ringwood_core::sim::{self, Marks, Report, Swarm};

/// Seeds of the plain test command.
const SEED_COUNT: u64 = 2_000;

fn number(name: &str) -> Option<u64> {
    std::env::var(name)
        .ok()
        .map(|value| value.parse().expect("a number"))
}

/// Plays a seed; one that fails says which it was and what it was made of.
fn play(swarm: Swarm) -> Report {
    let told = swarm.clone();
    match catch_unwind(AssertUnwindSafe(|| sim::run(swarm, None))) {
        Ok(report) => report,
        Err(cause) => {
            eprintln!(
                "seed {} failed; SIM_SEED={} replays it. Its options:\n{told}",
                told.seed, told.seed
            );
            std::panic::resume_unwind(cause);
        }
    }
}

#[test]
fn seeds_hold() {
    if let Some(seed) = number("SIM_SEED") {
        let swarm = Swarm::new(seed);
        println!("seed {seed}:\n{swarm}");
        let report = sim::run(swarm, Some(&mut |line| println!("{line}")));
        println!("{report:#?}");
        return;
    }
    let first = number("SIM_FIRST").unwrap_or(1);
    let count = number("SIM_COUNT").unwrap_or(SEED_COUNT);
    let mut marks = Marks::default();
    let (mut event_count, mut heal_max) = (0, 0);
    for seed in first..first + count {
        let report = play(Swarm::new(seed));
        marks.add(&report.marks);
        event_count += report.event_count;
        heal_max = heal_max.max(report.heal_span.0);
    }
    println!(
        "{count} seeds, {event_count} events, longest heal {} ms",
        heal_max / 1_000_000
    );
    println!("{marks}");
    if count >= SEED_COUNT {
        for (name, count) in marks.list() {
            assert!(count > 0, "no seed had any {name}");
        }
    }
}

#[test]
fn a_seed_replays_exactly() {
    for seed in 1..=20 {
        let first = play(Swarm::new(seed));
        let second = play(Swarm::new(seed));
        assert_eq!(first, second, "seed {seed} does not replay");
    }
}
