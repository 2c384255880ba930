//! A leader whose log is all in its journal, and what a client reads of it: what tests of damage to
//! the journal begin with. Damages nothing itself.

use super::bench::{Bench, record};

pub(super) const LOG: u32 = 1;
const RECORD_SIZE: usize = 5_000;
/// Records of the log.
pub(super) const COUNT: u64 = 6;

/// The byte that a record is full of: by it `flip_in_journal` finds the record.
pub(super) fn fill(at: u64) -> u8 {
    0xA0 + at as u8
}

pub(super) fn whole(at: u64) -> Vec<u8> {
    record(RECORD_SIZE, fill(at))
}

/// A leader whose records are all in its journal, each in a run of its own.
pub(super) fn leader() -> Bench {
    let mut bench = Bench::new();
    for at in 0..COUNT {
        assert!(bench.commits(LOG, at, &whole(at)));
    }
    assert!(!bench.has_segment(LOG, 0), "all is in the journal");
    bench
}

/// Reads the log from `from` on, until its end or a refusal; says how far.
pub(super) fn read_on(bench: &mut Bench, from: u64) -> u64 {
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
