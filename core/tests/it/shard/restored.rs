//! A follower below its leader's start: it is told where the log begins, and goes on from there.

use ringwood_core::frame::code::{FetchOutcome, Outcome, ReadMode, TrimOutcome};
use ringwood_core::frame::peer::Restore;
use ringwood_core::log::segment::SegmentHeader;

use super::bench::{BULK, Bench, record};

const LOG: u32 = 1;
const RECORD_SIZE: usize = 40_000;

/// A leader whose log begins in its third segment, and its peer that has nothing.
fn leader() -> (Bench, u64) {
    let mut bench = Bench::new();
    bench.fill_to_segment(LOG, 3, 0, RECORD_SIZE);
    let header = SegmentHeader::check(bench.segment(LOG, 2)).expect("a header");
    let start = header.first_offset.0 + 3;
    let request = bench.trim(LOG, start);
    bench.turns(8);
    assert_eq!(bench.trimmed[&request].outcome, TrimOutcome::Done.code());
    (bench, start)
}

fn restore() -> (Restore, Vec<u8>, u64) {
    let (mut bench, start) = leader();
    bench.lead_an_empty_peer(LOG);
    let (body, head) = bench.restores.first().expect("the peer was told").clone();
    (body, head, start)
}

#[test]
fn a_leader_tells_where_its_log_begins_and_sends_what_follows() {
    let (mut bench, start) = leader();
    let has = bench.matched(LOG);
    bench.lead_an_empty_peer(LOG);
    assert_eq!(bench.restores.len(), 1, "once is enough");
    let (body, head) = &bench.restores[0];
    assert_eq!((body.start, body.group), (start, LOG));
    let header = SegmentHeader::check(head).expect("a header");
    assert_eq!(header.segment, 2);
    assert!(header.first_offset.0 <= start);
    assert!(
        bench.matched(LOG) > has,
        "it has all that is left, and what came since"
    );
}

#[test]
fn a_follower_begins_anew_and_stays_so() {
    let (body, head, start) = restore();
    let header = SegmentHeader::check(&head).expect("a header");
    let base = header.first_index.0 - 1;
    let mut bench = Bench::new();
    bench.fill_to_segment(LOG, 1, 0, RECORD_SIZE);
    // It led in a term of its own; the other leads since.
    let body = Restore { term: 100, ..body };
    bench.read_mode = ReadMode::AnyReplica;
    assert!(!bench.fetch(LOG, 0).is_empty());
    // Damaged, it is nothing.
    let mut damaged = head.clone();
    damaged[4096] ^= 1;
    bench.say(BULK, &body, &damaged);
    bench.turns(4);
    assert!(!bench.fetch(LOG, 0).is_empty());
    for _ in 0..2 {
        // Twice, it is the same.
        bench.say(BULK, &body, &head);
        bench.turns(4);
        assert_eq!(bench.acked.get(&LOG), Some(&base));
        assert!(bench.segment_numbers(LOG).is_empty());
    }
    for _ in 0..2 {
        assert!(bench.fetch(LOG, start - 1).is_empty());
        assert_eq!(bench.fetch_outcome, FetchOutcome::Trimmed.code());
        assert_eq!(bench.first_offset, start);
        assert_eq!(bench.end_offset(LOG), header.first_offset.0);
        bench.restart();
    }
    // It may lead again: its log goes on behind, and so do the numbers of its segments.
    bench.read_mode = ReadMode::Committed;
    let mut count = header.first_offset.0;
    while !bench.has_segment(LOG, 3) {
        let request = bench.append_by(
            77,
            LOG,
            count - header.first_offset.0,
            &record(RECORD_SIZE, 1),
        );
        bench.turns(4);
        let reply = &bench.replies[&request];
        if reply.outcome == Outcome::Committed.code() {
            assert_eq!(reply.offset, count);
            count += 1;
        }
    }
    assert_eq!(bench.segment_numbers(LOG), [2, 3]);
    bench.restart();
    assert!(!bench.fetch(LOG, start).is_empty());
}

#[test]
fn what_a_follower_has_is_not_thrown_away() {
    let (body, head, _) = restore();
    // The same log, further on than what is offered.
    let (mut bench, start) = leader();
    let numbers = bench.segment_numbers(LOG);
    let body = Restore { term: 100, ..body };
    bench.say(BULK, &body, &head);
    bench.turns(8);
    assert_eq!(bench.segment_numbers(LOG), numbers);
    bench.read_mode = ReadMode::AnyReplica;
    assert!(!bench.fetch(LOG, start).is_empty());
}
