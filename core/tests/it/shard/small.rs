//! A log with few records: it goes round with the journal's ring, and has no segment of its own.

use super::bench::{Bench, RING, record};

const LARGE: u32 = 1;
const SMALL: u32 = 2;
const RECORD_SIZE: usize = 40_000;

#[test]
fn a_small_log_goes_round_with_the_ring() {
    let mut bench = Bench::new();
    let small = record(300, 7);
    bench.append(SMALL, 0, &small);
    bench.turns(4);
    let file_count = u64::from(RING.file_count);
    let (mut entered, mut sequence) = (bench.files_entered, 0);
    for _ in 0..3 {
        // Each of the ring's files is begun anew, and the log's record is in none of the old ones.
        while bench.files_entered < entered + file_count {
            sequence += u64::from(bench.commits(LARGE, sequence, &record(RECORD_SIZE, 1)));
        }
        entered = bench.files_entered;
        assert!(bench.fetch(SMALL, 0) == small);
        bench.restart();
        assert!(bench.fetch(SMALL, 0) == small);
    }
    assert!(bench.has_segment(LARGE, 0));
    assert!(!bench.has_segment(SMALL, 0));
    // Once it is worth a write, it gets one.
    for sequence in 1..6 {
        bench.append(SMALL, sequence, &record(20_000, 7));
        bench.turns(4);
    }
    assert!(bench.has_segment(SMALL, 0));
    assert!(bench.fetch(SMALL, 0).starts_with(&small));
}
