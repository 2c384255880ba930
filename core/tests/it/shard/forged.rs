//! Records that look like blocks, put into the log by a client, in a block that the disk then spoils:
//! whoever looks for the next sound block meets them first. None is ever taken for one.

use bytes::BytesMut;
use ringwood_core::frame::code::BlockOutcome;
use ringwood_core::frame::sum::crc32c;
use ringwood_core::id::{Epoch, GroupId, Index, Offset, ProducerId, Sequence, Term};
use ringwood_core::log::block::{
    APPEND_HEADER_SIZE, AppendHeader, BLOCK_HEADER_SIZE, Block, BlockKind,
};
use ringwood_core::log::builder::{BlockBuilder, BlockStart};
use ringwood_core::log::ring::Ring;
use ringwood_core::shard::Shape;

use super::bench::{Bench, SHAPE, record};
use super::mend::{LOG, places};

const RECORD_SIZE: usize = 30_000;

/// Bytes from a block's beginning to the first byte of its only record.
const CONTENT_AT: usize = BLOCK_HEADER_SIZE + APPEND_HEADER_SIZE + 4;

/// A sound block of the log that was never in it, with one record or, if that is empty, none.
fn block(index: u64, first_offset: u64, previous_sum: u32, payload: &[u8]) -> Vec<u8> {
    let is_no_op = payload.is_empty();
    let start = BlockStart {
        group: GroupId(LOG),
        kind: if is_no_op {
            BlockKind::NoOp
        } else {
            BlockKind::Records
        },
        index: Index(index),
        term: Term(1),
        first_offset: Offset(first_offset),
        previous_sum,
        commit: Index(0),
    };
    let mut run = BytesMut::with_capacity(payload.len() + 4096);
    let mut builder = BlockBuilder::begin(&mut run, start);
    if !is_no_op {
        let append = AppendHeader {
            payload_sum: crc32c(payload),
            payload_size: payload.len() as u32,
            producer: ProducerId(9),
            sequence: Sequence(0),
            epoch: Epoch(0),
            record_count: 1,
        };
        let pushed = builder.push(&mut run, &append, [payload].into_iter());
        pushed.expect("a well-formed record");
    }
    builder.finish(&mut run).expect("a whole block");
    run.to_vec()
}

/// A record with blocks in it, where a walk through the block that holds it finds them.
fn record_with(blocks: &[u8], size: usize) -> Vec<u8> {
    let mut content = vec![0x55; size];
    content[12..][..blocks.len()].copy_from_slice(blocks);
    let mut payload = (size as u32).to_le_bytes().to_vec();
    payload.extend_from_slice(&content);
    payload
}

/// A leader's log: one record to a block, segment 0 closed and segment 1 growing, nothing cached.
struct Story {
    bench: Bench,
    records: Vec<Vec<u8>>,
    /// Segment 0 as it was written.
    sound: Vec<u8>,
}

impl Story {
    /// With something else than a plain record in the block with this index, if anything is given
    /// for it: by the sum of the block before.
    fn new(mut bench: Bench, index: u64, special: &dyn Fn(u32) -> Vec<u8>) -> Self {
        let mut records: Vec<Vec<u8>> = Vec::new();
        let mut more = 16;
        while more > 0 {
            more -= u64::from(bench.has_segment(LOG, 1));
            let at = records.len() as u64;
            // The leader's first block is a no-op.
            let next = match at + 2 == index {
                true => special(sum_of(&bench.sent(LOG, index - 1))),
                false => record(RECORD_SIZE, at as u8),
            };
            if bench.commits(LOG, at, &next) {
                records.push(next);
            }
        }
        bench.restart();
        let sound = bench.segment(LOG, 0).clone();
        Self {
            bench,
            records,
            sound,
        }
    }

    /// Where the block with this index stands in segment 0.
    fn place(&self, index: u64) -> usize {
        let places = places(&self.sound);
        let at = places[index as usize - 1];
        assert_eq!(index_of(&self.sound[at..]), index);
        at
    }

    /// Turns over a bit of a block, in front of what stands in its record.
    fn spoil(&mut self, index: u64) {
        let at = self.place(index) + CONTENT_AT + 3;
        self.bench.segment(LOG, 0)[at] ^= 8;
    }

    /// Reads from each offset on: nothing is given but what was appended. Says from how many of
    /// them nothing is.
    fn refused_count(&mut self) -> usize {
        let mut refused_count = 0;
        for from in 0..self.records.len() {
            let bytes = self.bench.fetch(LOG, from as u64);
            let (mut rest, mut at) = (&bytes[..], from);
            while !rest.is_empty() {
                let record = &self.records[at];
                assert!(rest.starts_with(record), "record {at}, read from {from}");
                rest = &rest[record.len()..];
                at += 1;
            }
            refused_count += usize::from(at == from);
        }
        refused_count
    }

    fn turns(&mut self, count: usize) {
        for _ in 0..count {
            self.bench.turn();
        }
    }

    /// Segment 0 has the blocks that it had.
    fn assert_healed(&mut self) {
        let blocks = |file: &[u8]| -> Vec<Vec<u8>> {
            let sizes = places(file).into_iter().map(|at| {
                let block = Block::check(&file[at..]).expect("a place of a block");
                block.bytes().to_vec()
            });
            sizes.collect()
        };
        let file = self.bench.segment(LOG, 0).clone();
        assert_eq!(file.len(), self.sound.len());
        assert!(blocks(&file) == blocks(&self.sound), "byte for byte");
        assert_eq!(self.refused_count(), 0);
        assert_eq!(self.bench.complaints(), [""; 0]);
    }
}

/// A block's own sum.
pub(super) fn sum_of(block: &[u8]) -> u32 {
    Block::check(block).expect("a sound block").header().sum
}

fn index_of(block: &[u8]) -> u64 {
    Block::check(block).expect("a sound block").header().index.0
}

/// Index of the last block of segment 0, which is the same in every story.
fn last_index() -> u64 {
    let story = Story::new(Bench::new(), 0, &|_| Vec::new());
    let places = places(&story.sound);
    let last = places.last().expect("it has blocks");
    index_of(&story.sound[*last..])
}

#[test]
fn a_record_that_looks_like_a_later_block_is_not_believed() {
    let lie = record(500, 0xEE);
    for (index, ahead, first_offset) in [(6, 3, 2), (6, 1, 0), (6, 3, 6), (9, 2, 1)] {
        for word in [BlockOutcome::Found, BlockOutcome::Absent] {
            let mut story = Story::new(Bench::new(), index, &|_| {
                let fake = block(index + ahead, first_offset, 77, &lie);
                record_with(&fake, RECORD_SIZE)
            });
            story.spoil(index);
            story.bench.word = word;
            for _ in 0..3 {
                story.refused_count();
                story.turns(2_000);
            }
            if word == BlockOutcome::Absent {
                assert_eq!(story.refused_count(), 1, "all but the spoilt block");
                assert_eq!(story.bench.complaints().len(), 1);
                story.bench.word = BlockOutcome::Found;
                story.bench.scrub();
                story.turns(60_000);
            }
            story.assert_healed();
        }
    }
}

#[test]
fn blocks_that_go_on_from_a_forged_one_do_not_prove_it() {
    // Three of them, each naming the one before, with the spoilt block's neighbours around.
    let mut story = Story::new(Bench::new(), 6, &|previous_sum| {
        let mut blocks = Vec::new();
        let mut link = previous_sum;
        for index in 6..9 {
            let next = block(index, 2, link, &record(300, 0xDD));
            link = sum_of(&next);
            blocks.extend_from_slice(&next);
        }
        record_with(&blocks, RECORD_SIZE)
    });
    story.spoil(6);
    for _ in 0..3 {
        story.refused_count();
        story.turns(2_000);
    }
    story.assert_healed();
}

#[test]
fn a_record_that_looks_like_the_last_block_is_not_believed() {
    let last = last_index();
    let lie = record(700, 0xEE);
    let mut story = Story::new(Bench::new(), last, &|previous_sum| {
        let fake = block(last, last - 2, previous_sum, &lie);
        record_with(&fake, RECORD_SIZE)
    });
    story.spoil(last);
    story.bench.word = BlockOutcome::Absent;
    story.refused_count();
    story.turns(2_000);
    assert_eq!(story.refused_count(), 1);
    story.bench.word = BlockOutcome::Found;
    story.bench.scrub();
    story.turns(60_000);
    story.assert_healed();
}

/// A shard whose blocks may be as large as any node's.
fn large() -> Bench {
    let ring = Ring {
        file_size: 16 << 20,
        run_size: 5 << 18,
        ..SHAPE.ring
    };
    Bench::with_shape(Shape {
        ring,
        arena_size: 8 << 20,
        segment_size_max: 8 << 20,
        segment_read_size: Shape::STANDARD.segment_read_size,
        ..SHAPE
    })
}

#[test]
fn a_megabyte_of_blocks_neither_ends_nor_stops_a_shard() {
    let size = (1 << 20) - 64;
    // The longest chain of them, in the least room.
    let no_ops = |sum: u32| {
        let blocks = (0..16_000).flat_map(|at| block(7 + at % 3, 3, sum, &[]));
        record_with(&blocks.collect::<Vec<u8>>(), size)
    };
    // Headers that promise a sound block almost as large as the record, one beside the other.
    let promises = |sum: u32| {
        let promise = block(8, 3, sum, &record(size - 80_004, 0));
        let heads = [&promise[..BLOCK_HEADER_SIZE + APPEND_HEADER_SIZE]; 700];
        record_with(&heads.concat(), size)
    };
    for (name, special) in [
        ("no-ops", &no_ops as &(dyn Fn(u32) -> Vec<u8> + Sync)),
        ("promises", &promises),
    ] {
        let run = || {
            let mut story = Story::new(large(), 6, special);
            story.spoil(6);
            story.bench.fetch(LOG, 4);
            let mut turn_count = 0;
            while story.bench.damage() != (1, 1) {
                turn_count += 1;
                assert!(turn_count < 20_000, "{name} ends");
            }
            story.assert_healed();
            turn_count
        };
        let turn_count = std::thread::scope(|scope| {
            let small = std::thread::Builder::new().stack_size(2 << 20);
            let thread = small.spawn_scoped(scope, run).expect("a thread");
            thread.join().expect("it neither panics nor overflows")
        });
        // Each sum over most of a megabyte is a turn's work.
        assert!(name == "no-ops" || turn_count > 600, "{turn_count}");
    }
}
