//! A leader whose own journal writes do not end: it goes when the others can do without it, and only
//! then.

use ringwood_core::frame::code::{NotCommittedReason, Outcome};
use ringwood_core::id::{Nanos, NodeId};

use super::bench::{Bench, record};

const LOG: u32 = 1;
const OTHER: u32 = 2;
/// What all timeouts come to on a bench without delays.
const TIMEOUT: Nanos = Nanos::from_millis(30);

/// A shard that leads both logs, of three nodes that are all there.
fn bench() -> Bench {
    let mut bench = Bench::new();
    bench.join_third();
    assert_eq!(bench.led, 2);
    bench
}

fn run(bench: &mut Bench, span: Nanos) {
    let end = bench.now().after(span);
    while bench.now() < end {
        bench.turn();
    }
}

/// How long the disk stands still until both logs are handed over; none if that takes a second.
fn handed_over_after(bench: &mut Bench) -> Option<Nanos> {
    let begun = bench.now();
    bench.successors.clear();
    bench.stick_disk(true);
    while bench.now().since(begun) < Nanos::from_millis(1_000) {
        bench.turn();
        if bench.successors.len() == 2 {
            return Some(bench.now().since(begun));
        }
    }
    assert!(bench.successors.is_empty(), "all logs go, or none");
    None
}

#[test]
fn a_leader_whose_disk_stands_still_hands_all_over() {
    let mut bench = bench();
    let request = bench.append(LOG, 0, &record(100, 1));
    bench.stick_disk(true);
    run(&mut bench, Nanos::from_millis(5));
    assert_eq!(bench.replies[&request].outcome, Outcome::Committed.code());
    let span = handed_over_after(&mut bench).expect("the others can do without it");
    let span = Nanos::from_millis(5).after(span);
    assert!((TIMEOUT.0..2 * TIMEOUT.0).contains(&span.0), "after {span}");
    let groups: Vec<u32> = bench.successors.iter().map(|(_, group)| *group).collect();
    assert_eq!(groups, [LOG, OTHER]);
}

#[test]
fn a_log_that_nobody_appends_to_finds_out_as_well() {
    let mut bench = bench();
    bench.stick_disk(true);
    // Any write will do; here it is a vote, refused or not.
    bench.append(OTHER, 0, &record(100, 1));
    run(&mut bench, Nanos::from_millis(5));
    let span = handed_over_after(&mut bench).expect("the others were asked");
    assert!(span.0 < 2 * TIMEOUT.0, "after {span}");
}

#[test]
fn nothing_moves_while_the_others_cannot_do_without_it() {
    // All disks stand still: nobody answers for any block.
    let mut bench = bench();
    bench.deaf = [LOG, OTHER].into();
    bench.append(LOG, 0, &record(100, 1));
    assert_eq!(handed_over_after(&mut bench), None);
    // All disks are as slow.
    let mut bench = self::bench();
    bench.write_span = Nanos::from_millis(300);
    run(&mut bench, Nanos::from_millis(20));
    bench.append(LOG, 0, &record(100, 1));
    assert_eq!(handed_over_after(&mut bench), None);
    // The third is gone: two are no majority without this one's disk.
    let mut bench = Bench::new();
    bench.append(LOG, 0, &record(100, 1));
    assert_eq!(handed_over_after(&mut bench), None);
    assert_eq!(bench.led, 2);
}

#[test]
fn whoever_nobody_relieves_steps_down_and_does_not_stand_again() {
    let mut bench = bench();
    bench.append(LOG, 0, &record(100, 1));
    let asked = bench.candidacies;
    let span = handed_over_after(&mut bench);
    assert!(span.is_some());
    // Both peers let it pass.
    run(&mut bench, Nanos(2 * TIMEOUT.0));
    let request = bench.append(LOG, 1, &record(100, 2));
    run(&mut bench, Nanos::from_millis(2_000));
    let reply = bench.replies[&request];
    assert_eq!(reply.reason, NotCommittedReason::NotLeader.code());
    assert_eq!(bench.led, 0, "its heartbeats speak for nothing");
    assert_eq!(
        bench.candidacies, asked,
        "its vote could not become durable"
    );
    bench.stick_disk(false);
    run(&mut bench, Nanos::from_millis(1_000));
    assert!(bench.candidacies > asked);
    assert_eq!(bench.led, 2, "its disk is well again");
}

#[test]
fn a_disk_that_stalls_again_at_once_moves_nothing_for_a_while() {
    let mut bench = bench();
    bench.append(LOG, 0, &record(100, 1));
    assert!(handed_over_after(&mut bench).is_some());
    bench.stick_disk(false);
    run(&mut bench, Nanos::from_millis(3_000));
    assert_eq!(bench.led, 2, "nobody took over");
    bench.append(LOG, 1, &record(100, 2));
    assert_eq!(handed_over_after(&mut bench), None);
    bench.stick_disk(false);
    run(&mut bench, Nanos::from_millis(9_000));
    bench.append(LOG, 2, &record(100, 3));
    let span = handed_over_after(&mut bench).expect("a while has passed");
    assert!(span.0 < 2 * TIMEOUT.0, "after {span}");
    assert!(
        bench
            .successors
            .iter()
            .all(|(to, _)| [NodeId(2), NodeId(3)].contains(to))
    );
}
