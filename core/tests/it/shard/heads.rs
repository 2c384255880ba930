//! Segments whose beginning a start does not find, or not at all: where it was is told by what is left,
//! and they are written anew while the node runs.

use ringwood_core::limits::SECTOR_SIZE;
use ringwood_core::log::segment::SegmentHeader;

use super::bench::Bench;
use super::mend::{LOG, cold, places, read_all};

/// What a disk does to a file while its node is down. None leaves no file.
type Loss = fn(Vec<u8>) -> Option<Vec<u8>>;

/// Each with whether the state in the head is lost for good.
const LOSSES: [(&str, bool, Loss); 8] = [
    ("a bit of the header", false, |mut file| {
        file[40] ^= 1;
        Some(file)
    }),
    ("the first copy of the head", false, |mut file| {
        let head = SegmentHeader::check(&file).expect("a header").state;
        file[..head.copy_size()].fill(0xA5);
        Some(file)
    }),
    ("both headers", true, |mut file| {
        let head = SegmentHeader::check(&file).expect("a header").state;
        file[9] ^= 1;
        file[head.copy_size() + 9] ^= 1;
        Some(file)
    }),
    ("the head and the first blocks", true, |mut file| {
        let end = places(&file)[3] + 100;
        file[..end].fill(0);
        Some(file)
    }),
    ("all but a piece in the middle", true, |mut file| {
        let places = places(&file);
        file[..places[4]].fill(0);
        file[places[6]..].fill(0);
        Some(file)
    }),
    ("all of it but its name", true, |_| Some(Vec::new())),
    ("all of it by zeros", true, |file| Some(vec![0; file.len()])),
    ("the file", true, |_| None),
];

fn spoil(bench: &mut Bench, number: u32, loss: Loss) {
    let file = bench.segment(LOG, number).clone();
    match loss(file) {
        Some(file) => *bench.segment(LOG, number) = file,
        None => bench.delete_segment(LOG, number),
    }
}

#[test]
fn a_segment_without_its_beginning_is_written_anew() {
    for (name, is_state_lost, loss) in LOSSES {
        for number in [0, 1] {
            let (mut bench, count) = cold();
            let whole = bench.segment(LOG, number).clone();
            let was = SegmentHeader::check(&whole).expect("a header");
            spoil(&mut bench, number, loss);
            bench.restart();
            read_all(&mut bench, count);
            bench.turns(2_000);
            let what = format!("segment {number} has lost {name}");
            assert_eq!(bench.damage(), (1, 1), "{what}");
            assert_eq!(bench.complaints(), [""; 0], "{what}");
            let file = bench.segment(LOG, number).clone();
            assert_eq!(file.len(), whole.len(), "{what}");
            assert_eq!(places(&file).len(), places(&whole).len(), "{what}");
            let is = SegmentHeader::check(&file).expect("a header");
            let copy_size = is.state.copy_size();
            assert!(
                file[..copy_size] == file[copy_size..2 * copy_size],
                "{what}"
            );
            // Of a log's beginning all is known again, of later segments not who had appended what.
            let is_known = number == 0 || !is_state_lost;
            assert_eq!(is.state.is_known(), is_known, "{what}");
            if is_known {
                assert_eq!(is.state, was.state, "{what}");
            }
            assert_eq!(
                (is.first_index, is.first_offset, is.previous_term),
                (was.first_index, was.first_offset, was.previous_term)
            );
            assert_eq!(
                (is.previous_sum, is.previous_size),
                (was.previous_sum, was.previous_size)
            );
            // It is sound from now on, after a start and for a scrub.
            bench.restart();
            let passes = bench.scrub();
            while bench.scrub_passes() == passes {
                bench.turn();
            }
            read_all(&mut bench, count);
            assert_eq!(bench.damage(), (0, 0), "{what}");
        }
    }
}

#[test]
fn the_second_copy_of_a_head_is_looked_after() {
    let (mut bench, count) = cold();
    let whole = bench.segment(LOG, 1).clone();
    let head = SegmentHeader::check(&whole).expect("a header").state;
    for at in [
        head.copy_size() + 3,
        head.copy_size() + SECTOR_SIZE + 60,
        SECTOR_SIZE + 60,
    ] {
        bench.segment(LOG, 1)[at] ^= 0x20;
        let (before, _) = bench.damage();
        let passes = bench.scrub();
        while bench.scrub_passes() == passes {
            bench.turn();
        }
        bench.turns(1_000);
        assert_eq!(bench.damage(), (before + 1, before + 1), "byte {at}");
        let size = head.head_size as usize;
        assert!(bench.segment(LOG, 1)[..size] == whole[..size], "byte {at}");
    }
    read_all(&mut bench, count);
}
