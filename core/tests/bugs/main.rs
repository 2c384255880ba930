//! Would our tests find the bugs that others had? Each switch of `ringwood_core::bugs` is turned on,
//! and must be caught.
//!
//! The plain run plays one recorded seed a switch, with and without it. `BUGS_SEARCH=first` looks for
//! each blindly, from that seed on, and prints a table; `BUGS_RECORD=first` writes what it found to
//! `seeds.txt` besides. `BUGS_ONLY=B01,B05` restricts either to some, `BUGS_WITH=raft` to one
//! instrument, `BUGS_SECONDS=10` to less than the 120 that a search may take.

mod door;
mod instrument;
mod raft;
mod record;
#[allow(dead_code, reason = "the tests of frames use the rest")]
#[path = "../it/frame/samples.rs"]
mod samples;
mod search;

use std::time::Duration;

use instrument::{Instrument, cpu_time};
use record::Record;
use ringwood_core::bugs::Switch;

/// A recorded seed costs no more, on whatever machine.
const RECORDED_MAX: Duration = Duration::from_secs(5);

#[test]
fn each_bug_is_caught_by_its_recorded_seed() {
    if search::is_wanted() {
        return search::search();
    }
    let records = record::read();
    for switch in instrument::simulated() {
        let is_there = records.iter().any(|record| record.switch == switch);
        assert!(is_there, "{switch:?} has no recorded seed");
    }
    let faults = search::in_parallel(&records, check);
    let faults: Vec<String> = faults.into_iter().flatten().collect();
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// Plays a recorded seed with its bug and without; says what was not as it must be.
fn check(record: &Record) -> Option<String> {
    let Record {
        switch,
        instrument,
        seed,
        ..
    } = record;
    let name = format!("{switch:?} by {instrument:?} seed {seed}");
    let began = cpu_time();
    let broken = instrument.play(*seed, Some(*switch)).err();
    let spent = cpu_time() - began;
    println!("{name}: {spent:.1?}, {}", broken.as_deref().unwrap_or("-"));
    if broken.as_ref() != Some(&record.broken) {
        return Some(format!(
            "{name} breaks {broken:?}, not {:?}: record anew",
            record.broken
        ));
    }
    if spent > RECORDED_MAX {
        return Some(format!("{name} takes {spent:?}: record anew"));
    }
    let sound = instrument.play(*seed, None);
    sound
        .err()
        .map(|text| format!("{name} fails without the bug: {text}"))
}

#[test]
fn a_sound_seed_is_told_from_a_broken_one() {
    assert_eq!(Instrument::Raft.play(1, None), Ok(()));
    let fails = |seed| Instrument::Raft.play(seed, Some(Switch::B50)).is_err();
    assert!((0..20).any(fails), "acknowledging early breaks something");
}
