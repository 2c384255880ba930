//! A scrub finds what nobody reads, and has it mended before the last sound copy is gone.

use ringwood_core::frame::code::BlockOutcome;
use ringwood_core::limits::SECTOR_SIZE;

use super::bench::Bench;
use super::mend::{LOG, cold, places, read_on};

/// Turns until a scrub that was asked for is over.
fn scrub(bench: &mut Bench) {
    let passes = bench.scrub();
    for _ in 0..20_000 {
        bench.turn();
        if bench.scrub_passes() > passes {
            return;
        }
    }
    panic!("it does not end");
}

/// Which byte of a segment is hit, by its bytes and where its blocks begin.
type Hit = fn(&[u8], &[usize]) -> usize;

#[test]
fn damage_anywhere_is_found_and_mended() {
    let hits: [(u32, Hit); 6] = [
        (0, |_, _| 50),
        (0, |_, places| places[0] + 70),
        (0, |_, places| places[places.len() - 1] + 20_000),
        (0, |file, _| file.len() - 2 * SECTOR_SIZE + 40),
        (0, |file, _| file.len() - SECTOR_SIZE + 40),
        (1, |_, places| places[3] + 900),
    ];
    for (number, hit) in hits {
        let (mut bench, count) = cold();
        let file = bench.segment(LOG, number);
        let whole = file.clone();
        let at = hit(file, &places(file));
        file[at] ^= 0x10;
        scrub(&mut bench);
        bench.turns(1_000);
        assert_eq!(bench.damage(), (1, 1), "byte {at} of segment {number}");
        let file = bench.segment(LOG, number);
        assert_eq!(file.len(), whole.len());
        assert_eq!(places(file).len(), places(&whole).len());
        let asked = bench.ask_count;
        scrub(&mut bench);
        assert_eq!(bench.damage(), (1, 1), "and is sound again");
        assert_eq!(read_on(&mut bench, 0, count), count);
        assert_eq!(bench.ask_count, asked);
    }
}

#[test]
fn a_sound_disk_is_read_once_and_left_alone() {
    let (mut bench, _) = cold();
    let before = bench.read_size;
    scrub(&mut bench);
    let size: usize = [0, 1]
        .map(|number| bench.segment(LOG, number).len())
        .iter()
        .sum();
    let read = bench.read_size - before;
    let most = size as u64 * 3 / 2;
    assert!(
        (size as u64..most).contains(&read),
        "{read} bytes of {size}"
    );
    assert_eq!(bench.damage(), (0, 0));
    assert_eq!((bench.ask_count, bench.notices.len()), (0, 0));
}

#[test]
fn the_journal_is_looked_at_too() {
    let mut bench = super::repair::cold();
    assert_eq!(bench.flip_in_journal(super::journaled::fill(4)), 1);
    scrub(&mut bench);
    bench.turns(100);
    assert_eq!(bench.damage(), (1, 1));
    scrub(&mut bench);
    assert_eq!(bench.damage(), (1, 1), "the copy is sound");
}

#[test]
fn what_nobody_has_is_found_once() {
    let (mut bench, _) = cold();
    bench.word = BlockOutcome::Absent;
    let at = places(bench.segment(LOG, 0))[2] + 99;
    bench.segment(LOG, 0)[at] ^= 1;
    for _ in 0..3 {
        scrub(&mut bench);
    }
    assert_eq!(bench.damage(), (1, 0));
    assert_eq!(bench.complaints().len(), 1);
}
