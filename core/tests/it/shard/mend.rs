//! Segments that a disk has spoilt, under a node that runs: they are written anew beside, from what is
//! sound in them and what a peer gives, and take the old ones' place.

use ringwood_core::frame::code::{BlockOutcome, FetchOutcome, Outcome};
use ringwood_core::limits::SECTOR_SIZE;
use ringwood_core::log::block::blocks;

use super::bench::{Bench, record};

pub(super) const LOG: u32 = 1;
const RECORD_SIZE: usize = 30_000;

/// A leader with a segment 0 that is closed and a segment 1 that grows, and nothing in its cache; and
/// how many records there are.
pub(super) fn cold() -> (Bench, u64) {
    let mut bench = Bench::new();
    let (mut count, mut more) = (0, 16);
    while more > 0 {
        more -= u64::from(bench.has_segment(LOG, 1));
        count += u64::from(bench.commits(LOG, count, &record(RECORD_SIZE, count as u8)));
    }
    bench.restart();
    (bench, count)
}

/// Reads records from `from` on, up to the end or a refusal, and says up to where.
pub(super) fn read_on(bench: &mut Bench, from: u64, count: u64) -> u64 {
    let mut at = from;
    while at < count {
        let bytes = bench.fetch(LOG, at);
        if bytes.is_empty() {
            break;
        }
        for found in bytes.chunks(record(RECORD_SIZE, 0).len()) {
            assert!(found == record(RECORD_SIZE, at as u8), "record {at}");
            at += 1;
        }
    }
    at
}

/// Reads all, as a client does that comes again when it is told that blocks are damaged.
pub(super) fn read_all(bench: &mut Bench, count: u64) {
    let mut at = 0;
    for _ in 0..40 {
        at = read_on(bench, at, count);
        if at == count {
            return;
        }
        assert_eq!(bench.fetch_outcome, FetchOutcome::Damaged.code());
        bench.turns(100);
    }
    panic!("{at} of {count} records were read");
}

/// Where the blocks of a segment begin.
pub(super) fn places(file: &[u8]) -> Vec<usize> {
    let (mut at, mut places) = (SECTOR_SIZE, Vec::new());
    while at < file.len() {
        match blocks(&file[at..]).next() {
            Some(Ok(block)) => {
                places.push(at);
                at += block.bytes().len();
            }
            _ => at = (at / SECTOR_SIZE + 1) * SECTOR_SIZE,
        }
    }
    places
}

/// What a disk does to a file that holds these blocks.
type Spoil = fn(&mut Vec<u8>, &[usize]);

const SPOILS: [(&str, Spoil); 9] = [
    ("a bit of a payload", |file, places| {
        file[places[2] + 500] ^= 4
    }),
    ("a bit of a block's header", |file, places| {
        file[places[3] + 17] ^= 1
    }),
    ("a bit of a size", |file, places| {
        file[places[1] + 1] ^= 0x40
    }),
    ("a sector of zeros", |file, places| {
        let at = places[4] / SECTOR_SIZE * SECTOR_SIZE;
        file[at..at + SECTOR_SIZE].fill(0);
    }),
    ("garbage over several blocks", |file, places| {
        for (at, byte) in file[places[2]..places[6] + 77].iter_mut().enumerate() {
            *byte = (at * 31 % 251) as u8;
        }
    }),
    ("two holes", |file, places| {
        file[places[1] + 90] ^= 1;
        file[places[5] + 90] ^= 1;
    }),
    ("a write in another's place", |file, places| {
        let (from, to) = (places[6], places[2]);
        let size = (places[7] - from).min(places[3] - to);
        file.copy_within(from..from + size, to);
    }),
    ("the end cut off", |file, places| {
        file.truncate(places[places.len() / 2] / SECTOR_SIZE * SECTOR_SIZE);
    }),
    ("all of it zeros but the head", |file, _| {
        file[SECTOR_SIZE..].fill(0)
    }),
];

#[test]
fn a_spoilt_segment_is_written_anew_with_what_a_peer_has() {
    for (name, spoil) in SPOILS {
        for number in [0, 1] {
            let (mut bench, count) = cold();
            let file = bench.segment(LOG, number);
            let size = file.len();
            let sound = places(file);
            spoil(file, &sound);
            read_all(&mut bench, count);
            let file = bench.segment(LOG, number);
            assert_eq!(file.len(), size, "{name}: the next segment names the size");
            assert_eq!(
                places(file).len(),
                sound.len(),
                "{name}: all blocks are there"
            );
            assert_eq!(bench.complaints(), [""; 0], "{name}");
            assert_eq!(bench.notices.len(), 2, "{name}: {:?}", bench.notices);
            assert!(bench.notices[1].contains("is mended with"), "{name}");
            let asked = bench.ask_count;
            bench.restart();
            assert_eq!(
                read_on(&mut bench, 0, count),
                count,
                "{name}: after a restart"
            );
            assert_eq!(bench.ask_count, asked, "{name}: once and for all");
            // What grows goes on growing.
            let mut sequence = count;
            while !bench.has_segment(LOG, 2) {
                sequence +=
                    u64::from(bench.commits(LOG, sequence, &record(RECORD_SIZE, sequence as u8)));
            }
            read_all(&mut bench, sequence);
        }
    }
}

#[test]
fn a_segment_that_is_gone_comes_back_from_a_peer() {
    let (mut bench, count) = cold();
    bench.delete_segment(LOG, 0);
    read_all(&mut bench, count);
    bench.restart();
    assert_eq!(read_on(&mut bench, 0, count), count);
}

#[test]
fn a_full_disk_puts_a_mend_off() {
    let (mut bench, count) = cold();
    let sound = places(bench.segment(LOG, 0));
    bench.segment(LOG, 0)[sound[3] + 100] ^= 1;
    bench.is_disk_full = true;
    let read = read_on(&mut bench, 0, count);
    assert!(read < count);
    bench.turns(60_000);
    assert_eq!(read_on(&mut bench, read, count), read, "not mended yet");
    let complaints = bench.complaints();
    assert!(complaints[0].ends_with("cannot be mended: the disk is full"));
    // At 0, 5, 15 and 35 s; and nothing of it stays where room is short.
    assert_eq!((bench.mend_count, bench.mended_size()), (4, 0));
    bench.is_disk_full = false;
    bench.turns(40_000);
    assert_eq!(read_on(&mut bench, 0, count), count);
    assert_eq!((bench.mend_count, bench.mended_size()), (5, 0));
}

#[test]
fn nothing_is_written_before_all_of_it_is_there() {
    let (mut bench, count) = cold();
    bench.word = BlockOutcome::Absent;
    let sound = places(bench.segment(LOG, 0));
    bench.segment(LOG, 0)[sound[3] + 100] ^= 1;
    assert!(read_on(&mut bench, 0, count) < count);
    let before = bench.read_size;
    bench.turns(60_000);
    assert_eq!((bench.mend_count, bench.ask_count), (0, 4));
    let size = bench.segment(LOG, 0).len() as u64;
    assert!(bench.read_size - before <= 4 * size, "once for each try");
    // Who asks for a scrub does not wait for the next.
    bench.word = BlockOutcome::Found;
    bench.scrub();
    bench.turns(100);
    assert_eq!(read_on(&mut bench, 0, count), count);
    assert_eq!(bench.complaints(), [""; 0]);
}

#[test]
fn a_trim_ends_the_mend_of_what_it_lets_go() {
    let (mut bench, count) = cold();
    bench.word = BlockOutcome::Absent;
    let sound = places(bench.segment(LOG, 0));
    bench.segment(LOG, 0)[sound[3] + 100] ^= 1;
    let read = read_on(&mut bench, 0, count);
    assert!(read < count);
    bench.trim(LOG, count);
    bench.turns(10_000);
    assert!(!bench.has_segment(LOG, 0));
    assert_eq!(bench.complaints(), [""; 0]);
    assert_eq!(bench.mend_count, 0);
    assert_eq!(bench.damage(), (1, 1), "nothing is damaged any more");
}

#[test]
fn what_nobody_has_is_named_and_the_rest_is_read() {
    let (mut bench, count) = cold();
    bench.word = BlockOutcome::Lost;
    let sound = places(bench.segment(LOG, 0));
    bench.segment(LOG, 0)[sound[3] + 100] ^= 1;
    let read = read_on(&mut bench, 0, count);
    assert!(read < count);
    bench.turns(100);
    let complaints = bench.complaints();
    assert_eq!(complaints.len(), 1, "{complaints:?}");
    assert!(complaints[0].contains("are lost in segment 0, damaged at byte "));
    assert!(complaints[0].contains("; node-2 has lost it, too"));
    assert_eq!(read_on(&mut bench, 0, count), read, "refused, not skipped");
    assert_eq!(
        read_on(&mut bench, read + 1, count),
        count,
        "all behind it reads"
    );
    bench.word = BlockOutcome::Found;
    bench.turns(6_000);
    assert_eq!(read_on(&mut bench, 0, count), count);
    assert_eq!(bench.complaints(), [""; 0]);
}

#[test]
fn what_is_read_of_an_old_file_is_no_place_in_the_new_one() {
    // The first read of a sealed segment is of its footer, the next of its blocks.
    for (reads, number) in [(0, 0), (1, 0), (2, 0), (0, 1)] {
        let (mut bench, count) = cold();
        let first_of_last = count - 12;
        let from = if number == 0 { 60 } else { first_of_last };
        let file = bench.segment(LOG, number);
        let at = file.len() - 3 * SECTOR_SIZE;
        let near = places(file);
        let at = near.iter().rfind(|place| **place < at).expect("a block") + 200;
        file[at] ^= 2;
        bench.reads_to_hold = Some(reads);
        let early = bench.fetch(LOG, from);
        assert!(early.is_empty(), "it waits for the disk");
        // Meanwhile somebody else meets the damage.
        for from in (0..count).rev() {
            read_on(&mut bench, from, from + 1);
        }
        bench.turns(300);
        assert_eq!(bench.mend_count, 1, "read {reads} of segment {number}");
        assert!(bench.release_read());
        bench.turn();
        for from in (0..count).rev() {
            assert!(read_on(&mut bench, from, from + 1) > from, "from {from}");
        }
        assert_eq!(read_on(&mut bench, 0, count), count);
        assert_eq!(bench.damage(), (1, 1), "read {reads} of segment {number}");
        assert_eq!(bench.mend_count, 1);
    }
}

#[test]
fn a_scrub_that_reads_an_old_file_finds_nothing_in_the_new_one() {
    for reads in [0, 1, 2, 20] {
        let (mut bench, count) = cold();
        let sound = places(bench.segment(LOG, 0));
        bench.segment(LOG, 0)[sound[sound.len() - 2] + 100] ^= 1;
        bench.reads_to_hold = Some(reads);
        let passes = bench.scrub();
        bench.turns(200);
        for from in (0..count).rev() {
            read_on(&mut bench, from, from + 1);
        }
        bench.turns(1_000);
        assert_eq!(bench.mend_count, 1);
        assert!(bench.release_read(), "{reads}");
        bench.turns(20_000);
        assert!(bench.scrub_passes() > passes);
        assert_eq!(bench.damage(), (1, 1), "{reads}");
        assert_eq!(read_on(&mut bench, 0, count), count);
    }
}

/// Appends until segment 1 has grown by a write that no durable checkpoint names. Says how many
/// records there are that were acknowledged.
fn grow_unvouched(bench: &mut Bench, count: u64) -> u64 {
    let mut count = count;
    bench.sticks_behind_segments = true;
    while !bench.is_stuck() {
        let request = bench.append(LOG, count, &record(RECORD_SIZE, count as u8));
        bench.turns(4);
        let outcome = bench.replies.get(&request).map(|reply| reply.outcome);
        count += u64::from(outcome == Some(Outcome::Committed.code()));
    }
    count
}

#[test]
fn what_no_checkpoint_vouches_for_is_not_written_anew() {
    let (mut bench, count) = cold();
    let count = grow_unvouched(&mut bench, count);
    let places = places(bench.segment(LOG, 1));
    bench.segment(LOG, 1)[places[1] + 100] ^= 1;
    let read = read_on(&mut bench, 0, count);
    assert!(read < count);
    bench.turns(20);
    assert_eq!(
        bench.mend_count, 0,
        "a crash would end it before its blocks"
    );
    // Once the checkpoint is durable.
    bench.sticks_behind_segments = false;
    bench.stick_disk(false);
    bench.turns(300);
    assert_eq!((bench.mend_count, bench.damage()), (1, (1, 1)));
    read_all(&mut bench, count);
}

#[test]
fn a_crash_before_the_checkpoint_finds_a_segment_as_it_was() {
    let (mut bench, count) = cold();
    let mut count = grow_unvouched(&mut bench, count);
    let places = places(bench.segment(LOG, 1));
    bench.segment(LOG, 1)[places[1] + 100] ^= 1;
    read_on(&mut bench, 0, count);
    bench.turns(20);
    bench.crash();
    count = bench.fill_to_segment(LOG, 2, count, RECORD_SIZE);
    read_all(&mut bench, count);
    bench.scrub();
    bench.turns(20_000);
    let found = bench
        .notices
        .iter()
        .filter(|text| text.contains("is damaged"));
    let place = format!("segment 1 is damaged at byte {}", places[1]);
    assert_eq!(found.clone().count(), 2, "before the crash, and after it");
    assert!(found.clone().all(|text| text.ends_with(&place)), "{place}");
    assert_eq!(bench.damage(), (1, 1));
}
