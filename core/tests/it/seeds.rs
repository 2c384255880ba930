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

/// Plays a seed; one that fails says which it was, what it was made of and what it broke.
fn play(swarm: Swarm) -> Result<Report, String> {
    let told = swarm.clone();
    let seed = told.seed;
    catch_unwind(AssertUnwindSafe(|| sim::run(swarm, None))).map_err(|cause| {
        eprintln!("seed {seed} failed; SIM_SEED={seed} replays it. Its options:\n{told}");
        let text = cause.downcast_ref::<String>().map(String::as_str);
        let text = text.or(cause.downcast_ref::<&str>().copied());
        format!("seed {seed}: {}", text.unwrap_or("a panic without words"))
    })
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
    let mut failures = Vec::new();
    let (mut event_count, mut heal_max) = (0, 0);
    for seed in first..first + count {
        match play(Swarm::new(seed)) {
            Ok(report) => {
                marks.add(&report.marks);
                event_count += report.event_count;
                heal_max = heal_max.max(report.heal_span.0);
            }
            Err(failure) => failures.push(failure),
        }
    }
    let heal_max = heal_max / 1_000_000;
    println!("{count} seeds, {event_count} events, longest heal {heal_max} ms\n{marks}");
    assert!(
        failures.is_empty(),
        "{} failed:\n{}",
        failures.len(),
        failures.join("\n")
    );
    if count >= SEED_COUNT {
        for (name, count) in marks.list() {
            assert!(count > 0, "no seed had any {name}");
        }
    }
}

#[test]
fn a_seed_replays_exactly() {
    for seed in 1..=20 {
        let first = play(Swarm::new(seed)).expect("holds");
        let second = play(Swarm::new(seed)).expect("holds");
        assert_eq!(first, second, "seed {seed} does not replay");
    }
}
