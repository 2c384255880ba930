//! A disk that fails, and one that is full, at every write of a run in turn.
//!
//! The shard of `crash_segments`, its writes done in order. The k-th one fails: the process ends
//! there, whatever of that write and of those behind it is on the disk, and the next one must find
//! all that was acknowledged. Or a segment finds no space from the k-th of its writes on: nothing
//! acknowledged is forgotten meanwhile, and when there is space again all goes on without a restart.
//!
//! A write is durable when it is done, so that each is a sync as well.

use ringwood_core::frame::code::NotCommittedReason;
use ringwood_core::id::Nanos;

use crate::crash_segments::GROUPS;
use crate::crash_segments::files::only;
use crate::crash_segments::judge::{judge, recovered};
use crate::crash_segments::world::{World, Write};
use crate::environment::number;

/// Writes of a run; of how many of them one fails in the plain test command.
const WRITE_COUNT: u64 = 5_000;
const SAMPLE_COUNT: u64 = 24;

/// Turns for which a disk is full.
const FULL_TURN_COUNT: u64 = 40;

/// So many writes are done after it, or the log does not go on.
const AFTER_COUNT: u64 = 60;

/// A segment that found no space is tried again by then.
const PATIENCE: Nanos = Nanos::from_millis(600);

/// What the disk does at a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    Error,
    Full { turn_count: u64 },
}

struct Run {
    world: World,
    /// Writes done so far.
    count: u64,
    turn_count: u64,
    /// No segment finds space.
    is_full: bool,
    /// Segments' writes that found none.
    refused_count: u64,
}

/// What came of one fault.
struct Ended {
    /// Whether the write was a segment's.
    is_segment: bool,
    /// Segments' writes that found no space.
    refused_count: u64,
    /// Whether appends were refused for it.
    has_said_so: bool,
}

impl Run {
    fn new() -> Self {
        Self {
            world: World::new(3),
            count: 0,
            turn_count: 0,
            is_full: false,
            refused_count: 0,
        }
    }

    /// Appends, and does what is written; stops before the write with that number.
    fn go(&mut self, until: u64) {
        while self.count < until {
            let before = self.turn_count;
            while self.world.flying.is_empty() {
                assert!(
                    self.turn_count < before + 100,
                    "nothing is written any more"
                );
                self.turn();
            }
            while !self.world.flying.is_empty() && self.count < until {
                self.do_first();
            }
        }
    }

    fn turn(&mut self) {
        self.turn_count += 1;
        for group in 1..=GROUPS {
            self.world.append(group);
        }
        if self.world.rng.chance(60) {
            self.world.trim(1);
        }
        self.world.turn();
    }

    fn do_first(&mut self) {
        let is_segment = matches!(self.world.flying[0], Write::Segment { .. });
        if is_segment && self.is_full {
            self.world.refuse(0);
            self.refused_count += 1;
        } else {
            self.world.complete(0);
        }
        self.count += 1;
    }

    fn do_all(&mut self) {
        while !self.world.flying.is_empty() {
            self.do_first();
        }
    }

    /// Nothing that was acknowledged is missing, and the segments are one chain.
    fn judge(&self) {
        let state = only(&self.world.files);
        let found = recovered(&state);
        judge(&self.world, &state, &found, &found);
    }

    fn acknowledged(&self) -> u64 {
        self.world.acknowledged.values().sum()
    }

    /// Whether an append was refused because the disk is full.
    fn has_said_so(&self) -> bool {
        let reason = NotCommittedReason::DiskFull.code();
        self.world.refusals.contains_key(&reason)
    }

    fn must_go_on(&mut self) {
        let before = self.acknowledged();
        self.go(self.count + AFTER_COUNT);
        assert!(
            self.acknowledged() > before,
            "nothing is acknowledged any more"
        );
        self.do_all();
        self.judge();
    }
}

fn play(at: u64, fault: Fault) -> Ended {
    let mut run = Run::new();
    run.go(at);
    while run.world.flying.is_empty() {
        run.turn();
    }
    let is_segment = matches!(run.world.flying[0], Write::Segment { .. });
    match fault {
        Fault::Error => {
            run.world.crash();
            run.judge();
        }
        Fault::Full { turn_count } => {
            run.is_full = true;
            for _ in 0..turn_count {
                run.turn();
                run.do_all();
                if run.has_said_so() {
                    break;
                }
            }
            run.judge();
            run.is_full = false;
            for _ in 0..8 {
                run.world.rest(PATIENCE);
                run.do_all();
            }
        }
    }
    run.must_go_on();
    Ended {
        is_segment,
        refused_count: run.refused_count,
        has_said_so: run.has_said_so(),
    }
}

fn ks() -> impl Iterator<Item = u64> {
    let step = WRITE_COUNT / number("DISK_ERRORS").unwrap_or(SAMPLE_COUNT);
    // A step that is odd meets writes of all kinds.
    (0..WRITE_COUNT).step_by((step | 1) as usize)
}

#[test]
fn a_disk_that_fails_at_any_write_has_lost_nothing() {
    let ended: Vec<_> = ks().map(|at| play(at, Fault::Error)).collect();
    let segment_count = ended.iter().filter(|ended| ended.is_segment).count();
    println!(
        "{} writes failed, {segment_count} of them segments'",
        ended.len()
    );
    assert!(segment_count > 0, "segments' writes failed, too");
}

#[test]
fn a_disk_that_is_full_at_any_write_heals() {
    let turn_count = FULL_TURN_COUNT;
    let ended: Vec<_> = ks()
        .map(|at| play(at, Fault::Full { turn_count }))
        .collect();
    let refused_count: u64 = ended.iter().map(|ended| ended.refused_count).sum();
    println!("{} times full, {refused_count} writes refused", ended.len());
    assert!(
        ended.iter().all(|ended| ended.refused_count > 0),
        "each was met"
    );
}

#[test]
fn a_disk_that_is_full_for_long_refuses_appends() {
    let ended = play(WRITE_COUNT / 10, Fault::Full { turn_count: 4_000 });
    assert!(
        ended.has_said_so,
        "there is no room at all, and nobody is told"
    );
}
