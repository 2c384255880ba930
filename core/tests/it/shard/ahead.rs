//! Readers of segments: what comes next is there before they ask, and only if it is right.

use super::bench::{Bench, record};

const LOG: u32 = 1;
const RECORD_SIZE: usize = 40_000;

/// A shard that has nothing of its log's segments in memory, and how many records they hold.
fn cold() -> (Bench, u64) {
    let mut bench = Bench::new();
    let count = bench.fill_to_segment(LOG, 1, 0, RECORD_SIZE);
    bench.restart();
    (bench, count)
}

/// Reads one answer's records, each as it was appended; says where the next one begins.
fn read(bench: &mut Bench, from: u64) -> u64 {
    let bytes = bench.fetch(LOG, from);
    check(&bytes, from)
}

fn check(bytes: &[u8], from: u64) -> u64 {
    let one = record(RECORD_SIZE, 0).len();
    let found = bytes.chunks(one).zip(from..);
    for (found, at) in found {
        assert!(found == record(RECORD_SIZE, at as u8), "record {at}");
    }
    from + (bytes.len() / one) as u64
}

/// A reader that has read on a few times.
fn reader(bench: &mut Bench) -> u64 {
    (0..3).fold(0, |from, _| read(bench, from))
}

#[test]
fn what_comes_next_is_there_before_it_is_asked_for() {
    let (mut bench, count) = cold();
    let from = reader(&mut bench);
    assert!(from > 0 && from < count);
    bench.reads_to_hold = Some(0);
    let next = read(&mut bench, from);
    assert!(next > from, "the disk answers nothing");
    // What was not read yet comes to whoever has caught up, once the disk answers.
    let mut from = next;
    let late = loop {
        let next = read(&mut bench, from);
        if next == from {
            assert!(bench.release_read());
            break bench.late_answer();
        }
        from = next;
    };
    assert!(check(&late, from) > from);
}

#[test]
fn who_reads_a_segment_through_reads_each_byte_once() {
    let (mut bench, count) = cold();
    bench.read_size = 0;
    let mut from = 0;
    while from < count {
        let next = read(&mut bench, from);
        assert!(next > from);
        from = next;
    }
    let size = bench.segment(LOG, 0).len() as u64;
    // The first answers were read alone; the second segment has but begun.
    let most = size + size / 8;
    assert!(
        (size..most).contains(&bench.read_size),
        "{} of {size}",
        bench.read_size
    );
}

#[test]
fn what_was_read_amiss_is_read_again() {
    for is_unreadable in [false, true] {
        let (mut bench, count) = cold();
        let mut from = reader(&mut bench);
        let sound = bench.segment(LOG, 0).clone();
        if is_unreadable {
            let sectors: Vec<usize> = (0..sound.len()).step_by(4096).collect();
            bench.spoil_reads_at(&sectors);
        } else {
            bench.segment(LOG, 0).fill(1);
        }
        let next = read(&mut bench, from);
        assert!(next > from, "what was read before is sound");
        from = next;
        bench.spoil_reads_at(&[]);
        *bench.segment(LOG, 0) = sound;
        while from < count {
            let next = read(&mut bench, from);
            assert!(next > from, "all is right again");
            from = next;
        }
        assert_eq!(bench.damage(), (0, 0));
    }
}

#[test]
fn what_nobody_wants_any_more_is_forgotten() {
    let (mut bench, _) = cold();
    let from = reader(&mut bench);
    bench.turns(1_100);
    bench.reads_to_hold = Some(0);
    assert_eq!(read(&mut bench, from), from, "the disk is asked");
    assert!(bench.release_read());
    let late = bench.late_answer();
    assert!(check(&late, from) > from);
}
