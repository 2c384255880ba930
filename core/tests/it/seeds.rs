//! The simulator's seeds: whole clusters under faults, and that a seed replays.
//!
//! `SIM_SEED=17` plays one seed and prints its trace. `SIM_COUNT` and `SIM_FIRST` choose how many
//! seeds are played, and from which on; with `SIM_WHOLE=1` they are whole ones, of ten minutes each.
//! `SIM_THREADS` says how many threads play them, `SIM_REPLAY_COUNT` how many are played twice.
//! `SIM_SUMS_TO` names a file for the sums of a few seeds, and `SIM_SUMS_FROM` one that a build of
//! the other kind has written.

use std::fmt::Write as _;
use std::ops::Range;
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use ringwood_core::sim::{self, Failure, Marks, Report, Swarm};

use crate::environment::number;

/// Seeds of the plain test command.
const SEED_COUNT: u64 = 2_000;

/// So many whole seeds reach every state, too.
const WHOLE_COUNT: u64 = 200;

/// Seeds that the plain test command plays twice.
const REPLAY_COUNT: u64 = 20;

/// Runs that are spent on making a failure smaller.
const SHRINK_RUN_COUNT_MAX: u32 = 200;

fn is_whole() -> bool {
    number("SIM_WHOLE") == Some(1)
}

/// The seed's options.
fn swarm(seed: u64) -> Swarm {
    if is_whole() {
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

/// What many seeds came to.
#[derive(Default)]
struct Played {
    marks: Marks,
    failures: Vec<String>,
    event_count: u64,
    heal_max: u64,
}

/// Does something for every seed, on as many threads as `SIM_THREADS` says; one if it says nothing.
fn for_all(seeds: Range<u64>, act: impl Fn(u64) + Sync) {
    let next = AtomicU64::new(seeds.start);
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end {
                return;
            }
            act(seed);
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..number("SIM_THREADS").unwrap_or(1) {
            scope.spawn(work);
        }
        work();
    });
}

/// What happens among nodes that are near one another, as in few of the whole seeds.
const NEAR_MARKS: [&str; 3] = ["referrals", "chunks_pulled", "referrals_ended"];

/// Plays seeds.
fn play_all(seeds: Range<u64>) -> Played {
    let played = Mutex::new(Played::default());
    for_all(seeds, |seed| {
        let result = play(&swarm(seed));
        let mut played = played.lock().expect("nobody panics with it");
        match result {
            Ok(report) => {
                played.marks.add(&report.marks);
                played.event_count += report.event_count;
                played.heal_max = played.heal_max.max(report.heal_span.0);
            }
            Err(failure) => played.failures.push(failure.to_string()),
        }
    });
    played.into_inner().expect("nobody panics with it")
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
    let Played {
        marks,
        failures,
        event_count,
        heal_max,
    } = play_all(first..first + count);
    let heal_max = heal_max / 1_000_000;
    println!("{count} seeds, {event_count} events, longest heal {heal_max} ms\n{marks}");
    assert!(
        failures.is_empty(),
        "{} failed:\n{}",
        failures.len(),
        failures.join("\n")
    );
    if count >= if is_whole() { WHOLE_COUNT } else { SEED_COUNT } {
        for (name, count) in marks.list() {
            let is_rare = is_whole() && NEAR_MARKS.contains(&name);
            assert!(count > 0 || is_rare, "no seed had any {name}");
        }
    }
}

#[test]
fn a_seed_replays_exactly() {
    let first = number("SIM_FIRST").unwrap_or(1);
    let count = number("SIM_REPLAY_COUNT").unwrap_or(REPLAY_COUNT);
    for_all(first..first + count, |seed| {
        let first = play(&swarm(seed)).expect("holds");
        // Whoever watches changes nothing.
        let mut record_count = 0;
        let second = sim::run(&swarm(seed), Some(&mut |_| record_count += 1));
        assert_eq!(first, second.expect("holds"), "seed {seed} does not replay");
        assert!(record_count > 0, "seed {seed} tells its story");
    });
}

/// Where a parent has this test print the sums of its seeds.
const CHILD: &str = "SIM_PRINT_SUMS";

/// A line for each of a few seeds: what it was, and what came of it.
fn sums() -> String {
    let mut sums = String::new();
    for seed in 1..=10 {
        let report = play(&Swarm::new(seed)).expect("holds");
        writeln!(sums, "sum {seed} {:032x}", report.trace_sum).expect("a string takes it");
    }
    sums
}

/// What was never random must not become so: addresses and hash seeds differ in another process.
#[test]
fn a_seed_replays_in_another_process() {
    let sums = sums();
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
    let expected: Vec<&str> = sums.lines().collect();
    assert_eq!(lines, expected, "another process, another run");
}

/// Nor may it matter how the program was built.
#[test]
#[ignore = "one build writes SIM_SUMS_TO, the other reads SIM_SUMS_FROM"]
fn a_seed_replays_in_another_build() {
    const KIND: &str = if cfg!(debug_assertions) {
        "debug"
    } else {
        "release"
    };
    if let Some(path) = std::env::var_os("SIM_SUMS_TO") {
        std::fs::write(path, format!("{KIND}\n{}", sums())).expect("it can be written");
    } else {
        let path = std::env::var_os("SIM_SUMS_FROM").expect("one of the two is named");
        let text = std::fs::read_to_string(path).expect("another build has written it");
        let (kind, expected) = text.split_once('\n').expect("its kind stands first");
        assert_ne!(kind, KIND, "the same kind of build proves nothing");
        assert_eq!(sums(), expected, "another build, another run");
    }
}
