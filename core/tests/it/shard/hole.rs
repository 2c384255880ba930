//! A hole at a segment's end: whoever reads is told, and nothing behind it is taken for what follows.

use ringwood_core::frame::code::FetchOutcome;

use super::bench::{Bench, record};

const LOG: u32 = 1;
const RECORD_SIZE: usize = 40_000;

#[test]
fn zeros_for_the_last_block_of_a_segment_are_damage() {
    let mut bench = Bench::new();
    let count = bench.fill_to_segment(LOG, 2, 0, RECORD_SIZE);
    bench.restart();
    bench.lose_last_block(LOG, 0);
    let mut from = 0;
    loop {
        let bytes = bench.fetch(LOG, from);
        let one = record(RECORD_SIZE, 0).len();
        for found in bytes.chunks(one) {
            assert!(found == record(RECORD_SIZE, from as u8), "record {from}");
            from += 1;
        }
        if bytes.is_empty() {
            break;
        }
    }
    assert_eq!(bench.fetch_outcome, FetchOutcome::Damaged.code());
    assert!(from > 0 && from < count, "{from} of {count} were read");
}
