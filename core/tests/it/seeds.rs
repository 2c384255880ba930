//! The simulator's seeds: whole clusters under faults, and that a seed replays.
//!
//! `SIM_SEED=17` plays one seed and prints its trace. `SIM_COUNT` and `SIM_FIRST` choose how many
//! seeds are played, and from which on; with `SIM_WHOLE=1` they are whole ones, of ten minutes each.

use std::fmt::Write as _;
use std::process::Command;

use ringwood_core::sim::{self, Failure, Marks, Report, Swarm};

/// Seeds of the plain test command.
const SEED_COUNT: u64 = 800;

/// Runs that are spent on making a failure smaller.
const SHRINK_RUN_COUNT_MAX: u32 = 200;

fn number(name: &str) -> Option<u64> {
    std::env::var(name)
        .ok()
        .map(|value| value.parse().expect("a number"))
}

/// The seed's options.
fn swarm(seed: u64) -> Swarm {
    if number("SIM_WHOLE") == Some(1) {
        Swarm::whole(seed)
    } else {
        Swarm::new(seed)
    }
}

/// Plays a seed; one that fails says which it was, what it was made of and what it broke.
fn play(swarm: &Swarm) -> Result<Report, Box<Failure>> {
    sim::run(swarm, None).inspect_err(|failure| {
        let seed = swarm.seed;
        eprintln!("{failure}\nSIM_SEED={seed} replays it. Its options:\n{swarm}");
    })
}

/// Plays one seed for a reader, and if it fails looks for the least of it that does.
fn tell(swarm: &Swarm) {
    println!("seed {}:\n{swarm}", swarm.seed);
    match sim::run(swarm, Some(&mut |record| println!("{record}"))) {
        Ok(report) => println!("{report:#?}"),
        Err(failure) => {
            let shrunk = sim::shrink(swarm, &failure, SHRINK_RUN_COUNT_MAX);
            let count = shrunk.run_count;
            println!("\nafter {count} runs, this is left:\n{}", shrunk.swarm);
            let _ = sim::run(&shrunk.swarm, Some(&mut |record| println!("{record}")));
            panic!("{failure}");
        }
    }
}

#[test]
fn seeds_hold() {
    if let Some(seed) = number("SIM_SEED") {
        tell(&swarm(seed));
        return;
    }
    let first = number("SIM_FIRST").unwrap_or(1);
    let count = number("SIM_COUNT").unwrap_or(SEED_COUNT);
    let mut marks = Marks::default();
    let mut failures = Vec::new();
    let (mut event_count, mut heal_max) = (0, 0);
    for seed in first..first + count {
        match play(&swarm(seed)) {
            Ok(report) => {
                marks.add(&report.marks);
                event_count += report.event_count;
                heal_max = heal_max.max(report.heal_span.0);
            }
            Err(failure) => failures.push(failure.to_string()),
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
        let first = play(&Swarm::new(seed)).expect("holds");
        let second = play(&Swarm::new(seed)).expect("holds");
        assert_eq!(first, second, "seed {seed} does not replay");
        // Whoever watches changes nothing.
        let mut record_count = 0;
        let third = sim::run(&Swarm::new(seed), Some(&mut |_| record_count += 1));
        assert_eq!(first, third.expect("holds"), "seed {seed} minds its reader");
        assert!(record_count > 100, "seed {seed} tells its story");
    }
}

/// Where a parent has this test print the sums of its seeds.
const CHILD: &str = "SIM_PRINT_SUMS";

/// What was never random must not become so: addresses and hash seeds differ in another process.
#[test]
fn a_seed_replays_in_another_process() {
    let mut sums = String::new();
    for seed in 1..=10 {
        let report = play(&Swarm::new(seed)).expect("holds");
        writeln!(sums, "sum {seed} {:032x}", report.trace_sum).expect("a string takes it");
    }
    if std::env::var_os(CHILD).is_some() {
        println!("{sums}");
        return;
    }
    let mut child = Command::new(std::env::current_exe().expect("this test's binary"));
    let name = "seeds::a_seed_replays_in_another_process";
    child.args(["--exact", name, "--nocapture"]).env(CHILD, "1");
    let output = child.output().expect("it starts");
    let text = String::from_utf8_lossy(&output.stdout);
    let lines: Vec<&str> = text
        .lines()
        .filter(|line| line.starts_with("sum "))
        .collect();
    assert_eq!(
        lines,
        sums.lines().collect::<Vec<_>>(),
        "another process, another run"
    );
}
