//! Two logs that others lead come to one journal, and one of them comes faster than segments take it.

use bytes::{Bytes, BytesMut};
use ringwood_core::frame::peer::{AppendEntries, Beat, Heartbeat};
use ringwood_core::frame::sum::crc32c;
use ringwood_core::id::{Epoch, Index, Nanos, ProducerId, Sequence, Term};
use ringwood_core::log::block::{AppendHeader, BLOCK_HEADER_SIZE, BlockHeader, BlockKind, blocks};
use ringwood_core::log::builder::{BlockBuilder, BlockStart};

use super::bench::{BULK, Bench, PEER, record};

const BUSY: u32 = 1;
const SELDOM: u32 = 2;
const TERM: u64 = 1_000;

/// Blocks that the busy log's leader has under way at most.
const WINDOW: u64 = 8;
/// Turns until a leader asks again where it was turned away.
const AGAIN: usize = 20;

/// A log as its leader has it: what the shard had when it led, and what comes behind that.
struct Log {
    group: u32,
    base: BlockHeader,
    last: BlockHeader,
    blocks: Vec<Bytes>,
}

impl Log {
    fn of(bench: &Bench, group: u32) -> Self {
        let block = bench.last_block(group);
        let base = *blocks(&block).next().expect("one").expect("whole").header();
        Self {
            group,
            base,
            last: base,
            blocks: Vec::new(),
        }
    }

    fn append(&mut self) {
        let payload = record(40_000, self.blocks.len() as u8);
        let mut run = BytesMut::with_capacity(2 * payload.len() + BLOCK_HEADER_SIZE);
        let start = BlockStart {
            group: self.last.group,
            kind: BlockKind::Records,
            index: self.last.index.next(),
            term: Term(TERM),
            first_offset: self.last.next_offset(),
            previous_sum: self.last.sum,
            commit: self.base.index,
        };
        let header = AppendHeader {
            payload_sum: crc32c(&payload),
            payload_size: payload.len() as u32,
            producer: ProducerId(9),
            sequence: Sequence(self.blocks.len() as u64),
            epoch: Epoch(1),
            record_count: 1,
        };
        let mut block = BlockBuilder::begin(&mut run, start);
        let pieces = [&payload[..]].into_iter();
        block.push(&mut run, &header, pieces).expect("well made");
        self.last = block.finish(&mut run).expect("it has an append");
        self.blocks.push(run.freeze());
    }

    /// What the shard has acknowledged.
    fn acked(&self, bench: &Bench) -> Index {
        let acked = bench.acked.get(&self.group).copied().unwrap_or_default();
        self.base.index.max(Index(acked))
    }

    /// Sends what comes behind the acknowledged, which is decided by then.
    fn send(&mut self, bench: &mut Bench, count: u64) {
        let acked = self.acked(bench);
        for prev in acked.0..acked.0 + count {
            while self.last.index.0 <= prev {
                self.append();
            }
            let is_first = prev == self.base.index.0;
            let request = AppendEntries {
                term: TERM,
                prev_index: prev,
                prev_term: if is_first { self.base.term.0 } else { TERM },
                commit: acked.0,
                group: self.group,
                count: 1,
            };
            let block = self.blocks[(prev - self.base.index.0) as usize].clone();
            bench.say(BULK, &request, &block);
        }
    }
}

/// A turn in which both leaders are heard, and the busy log's leader sends what it may.
fn turn(bench: &mut Bench, busy: &mut Log, seldom: &Log) {
    let beat = |log: &Log| Beat {
        term: TERM,
        commit: log.acked(bench).0,
        durable: 0,
        round: 1,
        group: log.group,
    };
    let heartbeat = Heartbeat {
        sent_at: bench.now().0,
        timeout: Nanos::from_millis(30).0,
        beats: vec![beat(busy), beat(seldom)],
        ..Heartbeat::default()
    };
    bench.say(PEER, &heartbeat, &[]);
    busy.send(bench, WINDOW);
    bench.turn();
}

/// Whatever room came free the busy log had taken by the time at which the other one asked again.
#[test]
fn a_log_that_was_turned_away_comes_before_one_that_was_not() {
    let mut bench = Bench::new();
    let (mut busy, mut seldom) = (Log::of(&bench, BUSY), Log::of(&bench, SELDOM));
    for _ in 0..600 {
        turn(&mut bench, &mut busy, &seldom);
    }
    assert!(bench.files_entered > 6, "the ring goes round");
    // Again and again; else it might only have had luck.
    for round in 0..30 {
        let before = seldom.acked(&bench);
        let mut tries = 0;
        while seldom.acked(&bench) == before {
            tries += 1;
            assert!(tries <= 6, "turned away in vain, in round {round}");
            busy.send(&mut bench, WINDOW);
            seldom.send(&mut bench, 1);
            for _ in 0..AGAIN {
                turn(&mut bench, &mut busy, &seldom);
            }
        }
    }
    let begun = busy.acked(&bench);
    for _ in 0..600 {
        turn(&mut bench, &mut busy, &seldom);
    }
    assert!(
        busy.acked(&bench).0 > begun.0 + 100,
        "nobody waits for nobody"
    );
}
