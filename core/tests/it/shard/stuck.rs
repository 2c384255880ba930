//! A log that goes nowhere, beside one that goes on: the ring goes round all the same.

use ringwood_core::frame::code::{NotCommittedReason, Outcome};
use ringwood_core::frame::peer::VoteRequest;
use ringwood_core::log::ring::Ring;

use super::bench::{Bench, PEER, RING, record};

const STUCK: u32 = 1;
const WELL: u32 = 2;
const TURNS_MAX: usize = 20_000;

/// Appends to the log that is well, one record after another, until `files` more files were begun.
/// Every one of them must be committed.
fn turn_the_ring(bench: &mut Bench, sequence: &mut u64, files: u64) {
    let end = bench.files_entered + files;
    let mut turns = 0;
    while bench.files_entered < end {
        let request = bench.append(WELL, *sequence, &record(40_000, *sequence as u8));
        while !bench.replies.contains_key(&request) {
            bench.turn();
            turns += 1;
            assert!(turns < TURNS_MAX, "the other log stands still");
        }
        let reply = bench.replies[&request];
        if reply.outcome == Outcome::Committed.code() {
            assert_eq!(reply.offset, *sequence);
            *sequence += 1;
        } else {
            assert_eq!(reply.reason, NotCommittedReason::Overloaded.code());
            bench.turn();
        }
    }
}

#[test]
fn a_log_without_a_quorum_does_not_stop_its_shard() {
    let mut bench = Bench::new();
    let mut sequence = 0;
    turn_the_ring(&mut bench, &mut sequence, 1);
    bench.deaf.insert(STUCK);
    let records: Vec<_> = (0..4).map(|at| record(30_000, 0xA0 + at)).collect();
    let mut requests = Vec::new();
    for (at, record) in (0..).zip(&records) {
        requests.push(bench.append(STUCK, at, record));
        bench.turn();
    }
    // Three times round, twice from what a restart found.
    for _ in 0..3 {
        turn_the_ring(&mut bench, &mut sequence, 12);
        assert!(
            requests
                .iter()
                .all(|request| !bench.replies.contains_key(request)),
            "nobody else has these"
        );
        bench.restart();
    }
    bench.deaf.clear();
    // The client tries again: each is there, once, at its offset.
    for (at, record) in (0..).zip(&records) {
        let request = bench.append(STUCK, at, record);
        bench.turns(2_000);
        let reply = bench.replies[&request];
        assert_eq!(
            (reply.outcome, reply.offset),
            (Outcome::Committed.code(), at)
        );
    }
    assert!(bench.fetch(STUCK, 0) == records.concat(), "byte for byte");
    // And now it leaves the journal like any other.
    turn_the_ring(&mut bench, &mut sequence, 12);
    assert!(bench.fetch(STUCK, 0) == records.concat(), "byte for byte");
}

#[test]
fn a_log_that_takes_too_much_is_refused_alone() {
    let mut bench = Bench::new();
    bench.deaf.insert(STUCK);
    let mut taken = 0;
    loop {
        let request = bench.append(STUCK, taken, &record(40_000, 1));
        bench.turn();
        bench.turn();
        match bench.replies.get(&request) {
            None => taken += 1,
            Some(reply) => {
                assert_eq!(reply.reason, NotCommittedReason::Overloaded.code());
                break;
            }
        }
        assert!(taken < 100, "what is undecided was to be bounded");
    }
    assert!(taken >= 6, "{taken} blocks are far from the bound");
    turn_the_ring(&mut bench, &mut 0, 12);
}

#[test]
fn a_full_disk_stops_appends_and_no_vote() {
    let mut bench = Bench::new();
    let mut sequence = 0;
    turn_the_ring(&mut bench, &mut sequence, 5);
    bench.is_disk_full = true;
    let reason = loop {
        let request = bench.append(WELL, sequence, &record(40_000, 2));
        bench.turns(4);
        let reply = bench.replies[&request];
        if reply.outcome != Outcome::Committed.code() {
            break reply.reason;
        }
        sequence += 1;
    };
    assert_eq!(reason, NotCommittedReason::DiskFull.code());
    // Elections without end fill the ring several times with votes.
    let end = bench.files_entered + 9;
    let mut term = 1_000;
    while bench.files_entered < end {
        let request = VoteRequest {
            term,
            last_index: 1 << 40,
            last_term: term - 1,
            group: STUCK,
            pre: 0,
            transfer: 1,
        };
        let granted = bench.votes_granted;
        bench.say(PEER, &request, &[]);
        bench.turns(3);
        assert!(
            bench.votes_granted > granted,
            "no room for a vote in term {term}"
        );
        term += 1;
    }
    bench.is_disk_full = false;
    bench.turns(2_000);
    turn_the_ring(&mut bench, &mut sequence, 9);
}

/// A disk that takes no segment, and a ring that is full for that: of decided blocks, in files of as
/// many runs as a node's have. And how many records were taken.
fn full() -> (Bench, u64) {
    let mut bench = Bench::with_ring(Ring {
        file_size: 32 * RING.run_size as u64,
        ..RING
    });
    let mut sequence = 0;
    bench.is_disk_full = true;
    while bench.commits(WELL, sequence, &record(60_000, sequence as u8)) {
        sequence += 1;
    }
    (bench, sequence)
}

/// A full disk, then a restart without the others: all that the ring holds is undecided by then, and
/// no file of it can be made free by putting its blocks again. The loop did so all the same, as fast
/// as the disk wrote.
#[test]
fn what_cannot_make_room_is_not_put_again_and_again() {
    let (mut bench, mut sequence) = full();
    bench.is_alone = true;
    bench.restart();
    let begun = bench.files_entered;
    bench.turns(20_000);
    let entered = bench.files_entered - begun;
    assert!(
        entered < 30,
        "{entered} files were written in 20 s for nothing"
    );
    bench.is_alone = false;
    bench.is_disk_full = false;
    bench.restart();
    turn_the_ring(&mut bench, &mut sequence, 9);
}

/// What is decided leaves the journal. A node whose ring is full of such blocks must know that they
/// are though it has no room for others, and nobody is there to tell: each says it of those before.
#[test]
fn a_full_journal_tells_after_a_restart_what_is_decided() {
    let (mut bench, _) = full();
    bench.is_alone = true;
    bench.restart();
    bench.is_disk_full = false;
    bench.turns(2_000);
    assert!(bench.has_segment(WELL, 0), "what is decided has left");
}
