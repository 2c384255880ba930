//! A disk that gives back something else than was written, under a node that runs: the blocks come
//! from whoever has them, and stand in the journal again.

use ringwood_core::frame::code::{BlockOutcome, FetchOutcome, Outcome};

use ringwood_core::id::Nanos;

use super::bench::{Bench, RING, record};

const LOG: u32 = 1;
const RECORD_SIZE: usize = 5_000;
const COUNT: u64 = 6;

pub(super) fn fill(at: u64) -> u8 {
    0xA0 + at as u8
}

fn whole(at: u64) -> Vec<u8> {
    record(RECORD_SIZE, fill(at))
}

/// A leader whose cache holds nothing of the log's records, which are all in its journal.
pub(super) fn cold() -> Bench {
    let mut bench = Bench::new();
    for at in 0..COUNT {
        let request = bench.append(LOG, at, &whole(at));
        for _ in 0..4 {
            bench.turn();
        }
        assert_eq!(bench.replies[&request].outcome, Outcome::Committed.code());
    }
    bench.restart();
    assert!(!bench.has_segment(LOG, 0), "all is in the journal");
    bench
}

/// The log from `from` on, read until its end or a refusal.
fn read_on(bench: &mut Bench, from: u64) -> u64 {
    let mut at = from;
    while at < COUNT {
        let bytes = bench.fetch(LOG, at);
        if bytes.is_empty() {
            break;
        }
        for found in bytes.chunks(whole(0).len()) {
            assert!(found == whole(at), "record {at} is another");
            at += 1;
        }
    }
    at
}

#[test]
fn a_block_that_rots_in_the_journal_comes_back_from_a_peer() {
    for hit in 0..COUNT {
        let mut bench = cold();
        assert_eq!(bench.flip_in_journal(fill(hit)), 1);
        assert_eq!(read_on(&mut bench, 0), hit, "nothing damaged is given");
        assert_eq!(bench.fetch_outcome, FetchOutcome::Damaged.code());
        for _ in 0..10 {
            bench.turn();
        }
        assert_eq!(bench.ask_count, 1, "asked once, however often it is met");
        assert_eq!(read_on(&mut bench, 0), COUNT);
        assert_eq!(bench.complaints(), [""; 0]);
        // The copy is on disk: nobody is asked for what can be read.
        assert_eq!(bench.ask_count, 1);
    }
}

#[test]
fn blocks_that_nobody_has_are_refused_until_somebody_does() {
    for word in [BlockOutcome::Lost, BlockOutcome::Absent, BlockOutcome::Busy] {
        let mut bench = cold();
        bench.word = word;
        assert_eq!(bench.flip_in_journal(fill(2)), 1);
        for _ in 0..3 {
            assert_eq!(read_on(&mut bench, 0), 2);
            assert_eq!(bench.fetch_outcome, FetchOutcome::Damaged.code());
        }
        // One named, with what each of the others says of it; the third node was never there.
        let complaints = bench.complaints();
        assert_eq!(complaints.len(), 1, "{complaints:?}");
        let begin = "log log-1: blocks 4 to ";
        assert!(complaints[0].starts_with(begin), "{complaints:?}");
        assert!(complaints[0].contains("in journal file 0 at byte "));
        assert!(complaints[0].contains("; node-2 "));
        assert!(complaints[0].contains("; node-3 does not answer"));
        // What stands behind the damage is read as ever.
        assert_eq!(read_on(&mut bench, 3), COUNT);
        bench.word = BlockOutcome::Found;
        for _ in 0..6_000 {
            bench.turn();
        }
        assert_eq!(read_on(&mut bench, 0), COUNT);
        assert_eq!(bench.complaints(), [""; 0]);
    }
}

#[test]
fn a_block_that_nobody_has_stops_no_other_log() {
    let mut bench = cold();
    bench.word = BlockOutcome::Absent;
    assert_eq!(bench.flip_in_journal(fill(2)), 1);
    assert_eq!(read_on(&mut bench, 0), 2);
    // The ring goes round several times.
    let ring_size = RING.file_size * u64::from(RING.file_count);
    let mut sequence = 0;
    while bench.files_entered < 3 * u64::from(RING.file_count) {
        let request = bench.append(2, sequence, &record(30_000, sequence as u8));
        for _ in 0..4 {
            bench.turn();
        }
        let outcome = bench.replies[&request].outcome;
        sequence += u64::from(outcome == Outcome::Committed.code());
        assert!(
            bench.now() < Nanos::from_millis(60_000),
            "{sequence} records"
        );
    }
    assert!(sequence * 30_000 > 2 * ring_size);
    // The block's place is in a segment, and what stands around it, too.
    assert!(bench.has_segment(LOG, 0));
    for _ in 0..2 {
        assert_eq!(read_on(&mut bench, 0), 2, "refused, not skipped");
        assert_eq!(bench.fetch_outcome, FetchOutcome::Damaged.code());
        assert_eq!(read_on(&mut bench, 3), COUNT);
        let complaints = bench.complaints();
        assert_eq!(complaints.len(), 1, "{complaints:?}");
        assert!(complaints[0].contains("blocks 4 to 4 are lost in segment 0"));
        bench.restart();
        read_on(&mut bench, 0);
        for _ in 0..100 {
            bench.turn();
        }
    }
    bench.word = BlockOutcome::Found;
    bench.scrub();
    for _ in 0..1_000 {
        bench.turn();
    }
    assert_eq!(read_on(&mut bench, 0), COUNT);
    assert_eq!(bench.complaints(), [""; 0]);
}
