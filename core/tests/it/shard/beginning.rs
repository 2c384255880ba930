//! Where a trimmed log begins, as whoever asks for older blocks is told.

use ringwood_core::frame::code::BlockOutcome;
use ringwood_core::log::block::Block;
use ringwood_core::log::segment::SegmentHeader;

use super::bench::Bench;

const LOG: u32 = 1;
const RECORD_SIZE: usize = 40_000;

#[test]
fn a_peer_is_told_where_a_trimmed_log_begins() {
    let mut bench = Bench::new();
    bench.fill_to_segment(LOG, 3, 0, RECORD_SIZE);
    let own = bench.segment(LOG, 2).clone();
    let header = SegmentHeader::check(&own).expect("a header");
    bench.trim(LOG, header.first_offset.0 + 30);
    (0..3_000).for_each(|_| bench.turn());
    assert_eq!(bench.segment_numbers(LOG), [2, 3]);
    let first = header.first_index.0;
    let last = bench.sent(LOG, first + 20);
    let last = *Block::check(&last).expect("as it was sent").header();
    for below in [0, 1, first - 1] {
        let answer = bench.ask_for_blocks(LOG, below, last.index.0, last.sum);
        let head = own[..header.state.copy_size()].to_vec();
        assert!(answer == (BlockOutcome::Trimmed, head), "from {below}");
    }
    let (outcome, blocks) = bench.ask_for_blocks(LOG, first, last.index.0, last.sum);
    assert_eq!(outcome, BlockOutcome::Found);
    assert!(blocks.starts_with(&bench.sent(LOG, first)));
    let tail = bench.last_block(LOG);
    let tail = *Block::check(&tail).expect("as it was sent").header();
    // Whose history is another one is told nothing.
    let (outcome, head) = bench.ask_for_blocks(LOG, 0, tail.index.0, 0);
    assert!(head.is_empty() && outcome == BlockOutcome::Absent);
}
