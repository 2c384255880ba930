//! A disk that gives back something else than was written, under a node that runs: the blocks come
//! from whoever has them, and stand in the journal again.

use ringwood_core::frame::code::{BlockOutcome, FetchOutcome};
use ringwood_core::id::Nanos;

use super::bench::{Bench, RING, record};
use super::journaled::{COUNT, LOG, fill, leader, read_on};

/// As `leader`, with nothing in its cache.
pub(super) fn cold() -> Bench {
    let mut bench = leader();
    bench.restart();
    assert!(!bench.has_segment(LOG, 0), "all is in the journal");
    bench
}

#[test]
fn a_block_that_rots_in_the_journal_comes_back_from_a_peer() {
    for hit in 0..COUNT {
        let mut bench = cold();
        assert_eq!(bench.flip_in_journal(fill(hit)), 1);
        assert_eq!(read_on(&mut bench, 0), hit, "nothing damaged is given");
        assert_eq!(bench.fetch_outcome, FetchOutcome::Damaged.code());
        bench.turns(10);
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
        bench.turns(6_000);
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
        sequence += u64::from(bench.commits(2, sequence, &record(30_000, sequence as u8)));
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
        bench.turns(100);
    }
    bench.word = BlockOutcome::Found;
    bench.scrub();
    bench.turns(1_000);
    assert_eq!(read_on(&mut bench, 0), COUNT);
    assert_eq!(bench.complaints(), [""; 0]);
}
