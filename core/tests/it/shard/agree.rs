//! Replicas that do not hold the same: who is the odd one, what it does then, and which block it is.

use ringwood_core::frame::code::{FetchOutcome, NotCommittedReason, Outcome};
use ringwood_core::id::NodeId;

use super::bench::{Bench, record};

const LOG: u32 = 1;
const OTHER: u32 = 2;
const SECOND: NodeId = NodeId(2);
const THIRD: NodeId = NodeId(3);
const RECORD_SIZE: usize = 100;
/// Milliseconds, a turn each: what an exchange and all questions after it take.
const SECOND_COUNT: usize = 1_000;

/// A leader of both logs with two peers, and some blocks in each.
fn three(count: u64) -> Bench {
    let mut bench = Bench::new();
    bench.join_third();
    fill(&mut bench, 0, count);
    bench
}

fn fill(bench: &mut Bench, from: u64, to: u64) {
    for at in from..to {
        for log in [LOG, OTHER] {
            assert!(bench.commits(log, at, &record(RECORD_SIZE, at as u8)));
        }
    }
}

/// The log has stopped, and only that one.
fn assert_stopped(bench: &mut Bench, sequence: u64) {
    bench.turns(200);
    assert_eq!(bench.led, 1, "it leads the other log only");
    let request = bench.append(LOG, sequence, &record(RECORD_SIZE, 0));
    bench.turns(4);
    let reply = &bench.replies[&request];
    assert_eq!(reply.outcome, Outcome::NotCommitted.code());
    assert_eq!(reply.reason, NotCommittedReason::NotLeader.code());
    assert!(bench.fetch(LOG, 0).is_empty(), "nothing of it is given");
    assert_eq!(bench.fetch_outcome, FetchOutcome::Damaged.code());
    assert!(!bench.fetch(OTHER, 0).is_empty());
    let (candidacies, granted) = (bench.candidacies, bench.votes_granted);
    bench.turns(3 * SECOND_COUNT);
    assert_eq!(bench.candidacies, candidacies, "it asks for no vote");
    assert_eq!(bench.votes_granted, granted);
}

#[test]
fn replicas_that_agree_tell_each_other_now_and_then_and_nobody_complains() {
    let mut bench = three(20);
    let count = bench.sums_count;
    for second in 0..5 {
        fill(&mut bench, 20 + second, 21 + second);
        let index = 5 + second;
        bench.tell_sum(SECOND, LOG, index);
        bench.tell_sum(THIRD, LOG, index + 3);
        bench.turns(SECOND_COUNT);
    }
    assert_eq!(bench.complaints(), [""; 0]);
    let told = bench.sums_count - count;
    assert!((4..=8).contains(&told), "{told} words in five seconds");
    // Where nothing is decided nothing is said but now and then.
    bench.turns(10 * SECOND_COUNT);
    let idle = bench.sums_count - count - told;
    assert!((1..=2).contains(&idle), "{idle} words in ten idle seconds");
}

#[test]
fn a_peer_that_differs_from_a_majority_is_named_with_its_first_other_block() {
    for first in [1, 2, 7, 20, 21] {
        let mut bench = three(20);
        bench.tell_sum(THIRD, LOG, first - 1);
        bench.diverged.insert(THIRD, (first, 1));
        bench.tell_sum(THIRD, LOG, 21);
        bench.turns(SECOND_COUNT);
        let alarm = format!("log log-1: block {first} here is not that of node-3");
        assert_eq!(bench.complaints(), [alarm.as_str()]);
        assert_eq!(
            bench.notices.last(),
            Some(&alarm),
            "whoever runs it is told"
        );
        fill(&mut bench, 20, 22);
        assert_eq!(bench.led, 2, "whoever is one of a majority goes on");
    }
}

#[test]
fn whoever_differs_from_a_majority_stops_that_log_for_good() {
    for first in [2, 13, 21] {
        let mut bench = three(20);
        for peer in [SECOND, THIRD] {
            bench.diverged.insert(peer, (first, 1));
        }
        bench.tell_sum(SECOND, LOG, 21);
        bench.turns(SECOND_COUNT);
        let alarm = format!(
            "log log-1: block {first} here is not that of node-2, node-3; a majority holds the \
             others', so this replica has stopped: replace its directory"
        );
        assert_eq!(bench.complaints(), [alarm.as_str()]);
        assert_stopped(&mut bench, 20);
        assert!(bench.commits(OTHER, 20, &record(RECORD_SIZE, 20)));
        // Whatever the peers say then: the directory remembers.
        bench.diverged.clear();
        bench.restart();
        assert_stopped(&mut bench, 20);
        let complaints = bench.complaints();
        let alarm = "log log-1: this replica differed from a majority; a majority holds the \
                     others', so this replica has stopped: replace its directory";
        assert_eq!(complaints, [alarm]);
    }
}

#[test]
fn where_no_majority_holds_the_same_whoever_differs_stops_until_one_does() {
    let mut bench = three(20);
    bench.diverged.insert(SECOND, (9, 1));
    bench.diverged.insert(THIRD, (9, 2));
    bench.tell_sum(SECOND, LOG, 21);
    bench.turns(SECOND_COUNT);
    let alarm = "log log-1: block 9 here is not that of node-2, node-3; no majority holds the same, \
                 so this replica has stopped";
    assert_eq!(bench.complaints(), [alarm]);
    assert_stopped(&mut bench, 20);
    // One of the two has got another directory, with what this node holds.
    bench.diverged.remove(&SECOND);
    bench.turns(3 * SECOND_COUNT);
    let alarm = "log log-1: block 9 here is not that of node-3";
    assert_eq!(bench.complaints(), [alarm]);
    bench.turns(2 * SECOND_COUNT);
    assert!(bench.commits(LOG, 20, &record(RECORD_SIZE, 20)));
}

#[test]
fn one_against_one_both_stop_while_the_third_is_away() {
    // The third node never came.
    let mut bench = Bench::new();
    fill(&mut bench, 0, 20);
    bench.diverged.insert(SECOND, (15, 1));
    bench.tell_sum(SECOND, LOG, 21);
    bench.turns(SECOND_COUNT);
    let alarm = "log log-1: block 15 here is not that of node-2; no majority holds the same, so \
                 this replica has stopped";
    assert_eq!(bench.complaints(), [alarm]);
}

#[test]
fn what_is_told_of_blocks_to_come_is_compared_when_they_have_come() {
    let mut bench = three(20);
    // The blocks that come are the same but for what the third node holds.
    bench.diverged.insert(THIRD, (25, 1));
    fill(&mut bench, 20, 30);
    bench.tell_sum(THIRD, LOG, 31);
    bench.turns(2);
    assert!(bench.complaints()[0].contains("node-3"));
    // From before they were committed: another run of the same.
    let mut late = three(20);
    late.diverged.insert(THIRD, (25, 1));
    late.say_sum(THIRD, LOG, 25, 0xBAD);
    late.turns(SECOND_COUNT);
    assert_eq!(late.complaints(), [""; 0]);
    fill(&mut late, 20, 30);
    late.turns(SECOND_COUNT);
    let alarm = "log log-1: block 25 here is not that of node-3";
    assert_eq!(late.complaints(), [alarm]);
}

#[test]
fn a_block_that_memory_has_let_go_of_is_read_to_be_compared() {
    let mut bench = Bench::new();
    bench.join_third();
    let count = bench.fill_to_segment(LOG, 0, 0, 20_000);
    let count = count + 20;
    for at in count - 20..count {
        assert!(bench.commits(LOG, at, &record(20_000, at as u8)));
    }
    bench.turns(SECOND_COUNT);
    bench.restart();
    let read_size = bench.read_size;
    bench.diverged.insert(THIRD, (3, 1));
    bench.tell_sum(THIRD, LOG, 4);
    bench.turns(SECOND_COUNT);
    let alarm = "log log-1: block 3 here is not that of node-3";
    assert_eq!(bench.complaints(), [alarm]);
    assert!(bench.read_size > read_size, "the segment was read");
}

#[test]
fn a_place_before_the_first_is_a_peers_fault_and_nothing_else() {
    let mut bench = three(2);
    bench.say_sum(THIRD, LOG, 0, 7);
    bench.say_sum(THIRD, 99, 1, 7);
    bench.turns(5);
    assert_eq!(
        bench.complaints(),
        ["1 frames with damaged blocks came from peers"]
    );
    fill(&mut bench, 2, 4);
}
