//! Logs that begin later than they did: who is told, what is deleted and when, and what a crash in
//! between leaves.

use ringwood_core::frame::code::{FetchOutcome, Outcome, TrimOutcome};
use ringwood_core::id::UnixSeconds;
use ringwood_core::log::segment::SegmentHeader;
use ringwood_core::shard::Retention;

use super::bench::{Bench, record};

const LOG: u32 = 1;
const RECORD_SIZE: usize = 40_000;

/// Offset of the first record of a segment.
fn first_offset(bench: &mut Bench, number: u32) -> u64 {
    let header = SegmentHeader::check(bench.segment(LOG, number)).expect("a header");
    header.first_offset.0
}

fn trim(bench: &mut Bench, before: u64) -> TrimOutcome {
    let request = bench.trim(LOG, before);
    bench.turns(8);
    let outcome = bench.trimmed[&request].outcome;
    TrimOutcome::from_code(outcome).expect("a known outcome")
}

fn assert_begins_at(bench: &mut Bench, start: u64) {
    assert!(bench.fetch(LOG, start - 1).is_empty());
    assert_eq!(bench.fetch_outcome, FetchOutcome::Trimmed.code());
    assert_eq!(bench.first_offset, start);
    assert!(!bench.fetch(LOG, start).is_empty());
    assert_eq!(bench.fetch_outcome, FetchOutcome::Ok.code());
}

#[test]
fn a_trim_is_obeyed_at_once_and_deletes_whole_segments() {
    let mut bench = Bench::new();
    let count = bench.fill_to_segment(LOG, 3, 0, RECORD_SIZE);
    // In the middle of the third: the first two go, and nothing of the third.
    let start = first_offset(&mut bench, 2) + 7;
    assert_eq!(trim(&mut bench, start), TrimOutcome::Done);
    assert_begins_at(&mut bench, start);
    assert_eq!(bench.segment_numbers(LOG), [2, 3]);
    // The same again, and less: it begins there already.
    assert_eq!(trim(&mut bench, start), TrimOutcome::Done);
    assert_eq!(trim(&mut bench, 3), TrimOutcome::Done);
    assert_eq!(trim(&mut bench, count + 1000), TrimOutcome::BeyondEnd);
    for _ in 0..2 {
        assert_begins_at(&mut bench, start);
        bench.restart();
    }
    // The log goes on as before, retries are recognised, and segments go on with their numbers.
    let again = bench.append(LOG, count - 1, &record(RECORD_SIZE, (count - 1) as u8));
    bench.turns(4);
    assert_eq!(bench.replies[&again].outcome, Outcome::Committed.code());
    assert_eq!(bench.replies[&again].offset, count - 1);
    bench.fill_to_segment(LOG, 4, count, RECORD_SIZE);
    bench.restart();
    assert_begins_at(&mut bench, start);
}

#[test]
fn all_of_a_log_may_go_but_the_segment_that_grows() {
    let mut bench = Bench::new();
    let count = bench.fill_to_segment(LOG, 2, 0, RECORD_SIZE);
    let end = bench.end_offset(LOG);
    assert_eq!(trim(&mut bench, end), TrimOutcome::Done);
    assert!(bench.fetch(LOG, end - 1).is_empty());
    assert_eq!(bench.fetch_outcome, FetchOutcome::Trimmed.code());
    assert_eq!(bench.segment_numbers(LOG), [2]);
    bench.restart();
    bench.fill_to_segment(LOG, 3, count, RECORD_SIZE);
    assert_begins_at(&mut bench, end);
}

#[test]
fn a_trim_that_is_not_committed_moves_nothing() {
    let mut bench = Bench::new();
    bench.fill_to_segment(LOG, 2, 0, RECORD_SIZE);
    bench.deaf.insert(LOG);
    let start = first_offset(&mut bench, 1);
    let request = bench.trim(LOG, start);
    bench.turns(8);
    assert!(!bench.trimmed.contains_key(&request), "nobody was told");
    assert!(!bench.fetch(LOG, 0).is_empty());
    assert_eq!(bench.segment_numbers(LOG), [0, 1, 2]);
    // It is in the journal. Once a quorum has it, it holds, also after a restart before that.
    bench.restart();
    assert!(!bench.fetch(LOG, 0).is_empty());
    bench.deaf.clear();
    (0..2_000).for_each(|_| bench.turn());
    assert_begins_at(&mut bench, start);
    assert_eq!(bench.segment_numbers(LOG), [1, 2]);
}

#[test]
fn a_crash_before_the_deletion_deletes_after_the_restart() {
    let mut bench = Bench::new();
    bench.fill_to_segment(LOG, 2, 0, RECORD_SIZE);
    bench.keeps_segments = true;
    let start = first_offset(&mut bench, 1);
    assert_eq!(trim(&mut bench, start), TrimOutcome::Done);
    assert_eq!(bench.segment_numbers(LOG), [0, 1, 2]);
    assert_begins_at(&mut bench, start);
    bench.keeps_segments = false;
    bench.restart();
    assert_eq!(bench.segment_numbers(LOG), [1, 2]);
    assert_begins_at(&mut bench, start);
}

#[test]
fn a_full_disk_is_freed_by_a_trim() {
    let mut bench = Bench::new();
    let count = bench.fill_to_segment(LOG, 2, 0, RECORD_SIZE);
    bench.is_disk_full = true;
    // Until the journal takes nothing more.
    let mut sequence = count;
    for _ in 0..200 {
        sequence += u64::from(bench.commits(LOG, sequence, &record(RECORD_SIZE, sequence as u8)));
    }
    let refused = bench.append(LOG, sequence, &record(RECORD_SIZE, 0));
    bench.turns(4);
    assert_eq!(
        bench.replies[&refused].outcome,
        Outcome::NotCommitted.code()
    );
    let start = first_offset(&mut bench, 2);
    assert_eq!(trim(&mut bench, start), TrimOutcome::Done);
    assert_eq!(bench.segment_numbers(LOG), [2]);
    bench.is_disk_full = false;
    (0..2_000).for_each(|_| bench.turn());
    let taken = bench.append(LOG, sequence, &record(RECORD_SIZE, 0));
    bench.turns(4);
    assert_eq!(bench.replies[&taken].outcome, Outcome::Committed.code());
}

#[test]
fn what_need_not_be_retained_goes_by_size_or_by_age() {
    for (retention, date, kept) in [
        (
            Retention {
                bytes: Some(7 << 20),
                seconds: None,
            },
            0,
            1,
        ),
        (
            Retention {
                bytes: None,
                seconds: Some(1000),
            },
            2_000_500,
            0,
        ),
        (
            Retention {
                bytes: None,
                seconds: Some(1000),
            },
            2_002_000,
            3,
        ),
        // Without a date nothing is old.
        (
            Retention {
                bytes: None,
                seconds: Some(1000),
            },
            0,
            0,
        ),
    ] {
        let mut bench = Bench::new();
        bench.retention = retention;
        // Nothing goes while it is filled: the retention is taken up at the restart.
        bench.set_date(UnixSeconds(2_000_000));
        bench.fill_to_segment(LOG, 3, 0, RECORD_SIZE);
        bench.restart();
        bench.set_date(UnixSeconds(date));
        (0..3_000).for_each(|_| bench.turn());
        let first = bench.segment_numbers(LOG)[0];
        assert_eq!(first, kept, "{retention:?} at {date}");
    }
}
