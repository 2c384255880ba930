//! Sealed segments: what their footers say is so, readers enter by them, and nothing depends on them.

use ringwood_core::frame::code::FetchOutcome;
use ringwood_core::frame::sum::crc32c;
use ringwood_core::id::{Index, Term};
use ringwood_core::limits::{SECTOR_SIZE, SEGMENT_POINT_DISTANCE};
use ringwood_core::log::block::{BlockHeader, blocks};
use ringwood_core::log::footer::{SEGMENT_FOOTER_SIZE, SegmentFooter};
use ringwood_core::log::segment::{SegmentHeader, SegmentState};

use super::bench::{Bench, record};

const LOG: u32 = 1;
const RECORD_SIZE: usize = 40_000;

/// Head and footer of a sealed segment, and its blocks with their positions, found by walking.
struct Walked {
    header: SegmentHeader,
    state: SegmentState,
    blocks: Vec<(u64, BlockHeader)>,
    footer: SegmentFooter,
}

fn walk(file: &[u8]) -> Walked {
    let header = SegmentHeader::check(file).expect("a header");
    let head_size = header.state.head_size as usize;
    let (first, second) = file[..head_size].split_at(head_size / 2);
    assert!(first == second, "a head stands twice");
    let state = SegmentState::check(&header, &first[SECTOR_SIZE..]).expect("a state");
    let end = file.len() - SEGMENT_FOOTER_SIZE;
    let footer = SegmentFooter::check(&file[end..]).expect("a footer");
    let (mut at, mut found) = (head_size, Vec::new());
    while at < end {
        match blocks(&file[at..end]).next() {
            Some(Ok(block)) => {
                found.push((at as u64, *block.header()));
                at += block.bytes().len();
            }
            _ => at = (at / SECTOR_SIZE + 1) * SECTOR_SIZE,
        }
    }
    Walked {
        header,
        state,
        blocks: found,
        footer,
    }
}

/// Reads to the end, and says how far it came.
fn read_all(bench: &mut Bench) -> u64 {
    let mut from = 0;
    loop {
        let bytes = bench.fetch(LOG, from);
        if bytes.is_empty() {
            return from;
        }
        for found in bytes.chunks(record(RECORD_SIZE, 0).len()) {
            assert!(found == record(RECORD_SIZE, from as u8), "record {from}");
            from += 1;
        }
    }
}

#[test]
fn a_footer_says_what_a_walk_finds() {
    let mut bench = Bench::new();
    // A restart within the second segment: its footer goes on with the sum that the checkpoint kept.
    let count = bench.fill_to_segment(LOG, 1, 0, RECORD_SIZE);
    bench.restart();
    bench.fill_to_segment(LOG, 2, count, RECORD_SIZE);
    let mut before: Option<Walked> = None;
    for number in 0..2 {
        let walked = walk(bench.segment(LOG, number));
        let (footer, header) = (&walked.footer, walked.header);
        let (first, last) = (walked.blocks[0].1, walked.blocks.last().expect("blocks").1);
        assert_eq!(footer.header, Some(header));
        assert_eq!((header.segment, footer.segment), (number, number));
        assert_eq!(
            (footer.first_index, footer.first_offset),
            (first.index, first.first_offset)
        );
        assert_eq!(
            (footer.last_index, footer.last_term),
            (last.index, last.term)
        );
        assert_eq!(
            (footer.last_sum, footer.next_offset),
            (last.sum, last.next_offset())
        );
        let sums: Vec<u8> = walked
            .blocks
            .iter()
            .flat_map(|(_, block)| block.sum.to_le_bytes())
            .collect();
        assert_eq!(footer.blocks_sum, crc32c(&sums));
        assert!(footer.points.len() as u64 > footer.data_size / SEGMENT_POINT_DISTANCE / 3);
        for point in &footer.points {
            let at = walked
                .blocks
                .iter()
                .position(|(at, _)| *at == point.position);
            let at = at.expect("a block stands there");
            assert_eq!(point.index, walked.blocks[at].1.index);
            assert_eq!(point.first_offset, walked.blocks[at].1.first_offset);
            assert_eq!(point.previous_term, walked.blocks[at - 1].1.term);
        }
        // The state is as of the block before.
        assert_eq!(walked.state.voters.len(), 3);
        match &before {
            None => assert_eq!(
                (header.first_index, header.previous_term),
                (Index(1), Term(0))
            ),
            Some(before) => {
                let last = before.blocks.last().expect("blocks").1;
                assert_eq!(header.first_index, last.index.next());
                assert_eq!(
                    (header.previous_term, header.previous_sum),
                    (last.term, last.sum)
                );
                assert_eq!(header.previous_size, before.footer.data_size);
            }
        }
        assert_eq!(walked.state.producers.is_empty(), number == 0);
        before = Some(walked);
    }
}

#[test]
fn a_reader_enters_by_the_footer_and_goes_on_where_it_was() {
    let mut bench = Bench::new();
    let count = bench.fill_to_segment(LOG, 1, 0, RECORD_SIZE);
    bench.restart();
    bench.read_size = 0;
    // Near the end of the first segment: it would take 30 reads to walk there.
    let from = count * 7 / 8;
    assert!(!bench.fetch(LOG, from).is_empty());
    assert!(
        bench.read_size < 2 * SEGMENT_POINT_DISTANCE,
        "{} bytes were read",
        bench.read_size
    );
    // From the beginning to the end each byte is read about once.
    bench.read_size = 0;
    assert!(read_all(&mut bench) >= count);
    let size = bench.segment(LOG, 0).len() as u64;
    assert!(
        bench.read_size < size * 2,
        "{} bytes were read of {size}",
        bench.read_size
    );
}

#[test]
fn a_damaged_footer_costs_nothing_but_time() {
    let mut bench = Bench::new();
    let count = bench.fill_to_segment(LOG, 1, 0, RECORD_SIZE);
    bench.restart();
    let file = bench.segment(LOG, 0);
    let end = file.len() - SEGMENT_FOOTER_SIZE;
    file[end + 90] ^= 4;
    assert_eq!(bench.fetch(LOG, 90)[..40], record(RECORD_SIZE, 90)[..40]);
    assert!(read_all(&mut bench) >= count);
    // Nor does a footer that is not there.
    bench.restart();
    bench.segment(LOG, 0).truncate(end);
    assert_eq!(bench.fetch(LOG, 90)[..40], record(RECORD_SIZE, 90)[..40]);
    assert!(read_all(&mut bench) >= count);
    assert_eq!(bench.fetch_outcome, FetchOutcome::Ok.code());
}

#[test]
fn a_crash_between_a_footer_and_what_follows_loses_nothing() {
    let mut bench = Bench::new();
    let mut count = bench.fill_to_segment(LOG, 0, 0, RECORD_SIZE);
    bench.is_mute_at_footers = true;
    let is_sealed = |bench: &mut Bench| {
        let file = bench.segment(LOG, 0);
        file.len() > SEGMENT_FOOTER_SIZE
            && SegmentFooter::check(&file[file.len() - SEGMENT_FOOTER_SIZE..]).is_ok()
    };
    while !is_sealed(&mut bench) {
        bench.append(LOG, count, &record(RECORD_SIZE, count as u8));
        bench.turns(4);
        count += 1;
    }
    assert!(!bench.has_segment(LOG, 1));
    bench.is_mute_at_footers = false;
    bench.restart();
    bench.fill_to_segment(LOG, 2, count, RECORD_SIZE);
    assert!(read_all(&mut bench) >= count);
    bench.restart();
    assert!(read_all(&mut bench) >= count);
    for number in 0..2 {
        assert!(!walk(bench.segment(LOG, number)).blocks.is_empty());
    }
}
