//! The short loops of the data path, one record's way through memory, without disk and network.
//!
//! `cargo bench -p ringwood-bench` measures, `cargo bench -p ringwood-bench -- --test` only runs
//! each once. Figures that matter to users come from `ringwood bench`; these find what moved.

use std::hint::black_box;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use ringwood_bench::fake::FakeTarget;
use ringwood_bench::payload::Payload;
use ringwood_bench::workload::{DRAIN, Mode, Plan, run};
use ringwood_core::frame::assembler::{Assembler, TagPolicy};
use ringwood_core::frame::client::Append;
use ringwood_core::frame::header::ClusterTag;
use ringwood_core::frame::sum::crc32c;
use ringwood_core::frame::writer::{FrameWriter, PayloadClaim, padding};
use ringwood_core::id::{
    ClusterId, Epoch, GroupId, Index, Lsn, Offset, ProducerId, Sequence, Term,
};
use ringwood_core::limits::BLOCK_SIZE_MAX;
use ringwood_core::log::block::{AppendHeader, Block, BlockKind};
use ringwood_core::log::builder::{BlockBuilder, BlockStart};
use ringwood_core::log::journal::{Journal, JournalRecovered};
use ringwood_core::log::ring::Ring;
use ringwood_core::raft::quorum;
use ringwood_net::ring::SpinMode;

/// Bytes of a record in all of them.
const RECORD_SIZE: usize = 256;

/// Bytes a socket gives at a time under load.
const CHUNK_SIZE: usize = 16 << 10;

/// Frames of one stream.
const FRAME_COUNT: usize = 64;

/// One record as the payload of an append.
fn payload() -> Vec<u8> {
    let mut payload = (RECORD_SIZE as u32).to_le_bytes().to_vec();
    payload.extend((0..RECORD_SIZE).map(|at| (at % 251) as u8));
    payload
}

fn write_append(writer: &mut FrameWriter, payload: &[u8], out: &mut BytesMut) {
    let body = Append {
        request: 7,
        producer: 11,
        sequence: 13,
        group: 1,
        record_count: 1,
        epoch: 0,
    };
    let claim = PayloadClaim {
        size: payload.len() as u32,
        sum: crc32c(payload),
    };
    writer.write_with_payload(&body, claim, out);
    out.extend_from_slice(payload);
    out.extend_from_slice(padding(payload.len()));
}

fn frames(criterion: &mut Criterion) {
    let tag = ClusterTag::of(ClusterId(1));
    let payload = payload();
    let mut writer = FrameWriter::new(tag);
    let mut group = criterion.benchmark_group("frame");
    group.throughput(Throughput::Elements(1));
    let mut out = BytesMut::with_capacity(1 << 20);
    group.bench_function("encode an append of 256 B", |bencher| {
        bencher.iter(|| {
            out.clear();
            write_append(&mut writer, black_box(&payload), &mut out);
            black_box(out.len())
        });
    });
    let mut stream = BytesMut::new();
    (0..FRAME_COUNT).for_each(|_| write_append(&mut writer, &payload, &mut stream));
    let stream = stream.freeze();
    let chunk = |start: usize| stream.slice(start..stream.len().min(start + CHUNK_SIZE));
    let chunks: Vec<Bytes> = (0..stream.len()).step_by(CHUNK_SIZE).map(chunk).collect();
    group.throughput(Throughput::Elements(FRAME_COUNT as u64));
    group.bench_function("assemble and check 64 appends of 256 B", |bencher| {
        let mut assembler = Assembler::new(TagPolicy::Exact(tag));
        bencher.iter(|| {
            let mut count = 0;
            for chunk in &chunks {
                assembler.push(chunk.clone());
                while let Some(frame) = assembler.next().expect("sound frames") {
                    black_box(frame.message().expect("a sound body"));
                    count += 1;
                }
                assembler.take_released().for_each(drop);
            }
            assert_eq!(count, FRAME_COUNT);
        });
    });
    group.finish();
}

fn append_header(payload: &[u8], sequence: u64) -> AppendHeader {
    AppendHeader {
        payload_sum: crc32c(payload),
        payload_size: payload.len() as u32,
        producer: ProducerId(11),
        sequence: Sequence(sequence),
        epoch: Epoch(0),
        record_count: 1,
    }
}

fn block_start(index: u64, first_offset: u64, previous_sum: u32) -> BlockStart {
    BlockStart {
        group: GroupId(1),
        kind: BlockKind::Records,
        index: Index(index),
        term: Term(1),
        first_offset: Offset(first_offset),
        previous_sum,
        commit: Index(0),
    }
}

fn build(run: &mut BytesMut, header: &AppendHeader, payload: &[u8], append_count: usize) {
    let mut block = BlockBuilder::begin(run, block_start(1, 0, 0));
    for _ in 0..append_count {
        let pushed = block.push(run, header, std::iter::once(payload));
        pushed.expect("a sound append");
    }
    block.finish(run).expect("a block with appends");
}

fn blocks(criterion: &mut Criterion) {
    let payload = payload();
    let header = append_header(&payload, 0);
    let mut group = criterion.benchmark_group("block");
    for append_count in [1, 64, 1_024] {
        group.throughput(Throughput::Elements(append_count as u64));
        let mut run = BytesMut::with_capacity(BLOCK_SIZE_MAX);
        let id = BenchmarkId::new("build, appends of 256 B", append_count);
        group.bench_function(id, |bencher| {
            bencher.iter(|| {
                run.clear();
                build(&mut run, &header, black_box(&payload), append_count);
            });
        });
        let id = BenchmarkId::new("check, appends of 256 B", append_count);
        group.bench_function(id, |bencher| {
            bencher.iter(|| {
                let block = Block::check(black_box(&run)).expect("a sound block");
                black_box(block.header().sum)
            });
        });
    }
    group.finish();
}

fn quorums(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("quorum");
    for voter_count in [3, 5, 7] {
        let acks: Vec<Index> = (0..voter_count)
            .map(|i| Index(1_000 + i * 37 % 11))
            .collect();
        group.bench_function(BenchmarkId::new("commit, voters", voter_count), |bencher| {
            bencher.iter(|| quorum::committed(black_box(&acks)));
        });
    }
    group.finish();
}

/// A journal whose every write is done at once, and whose files are free as soon as they are
/// written: it goes round its ring for ever.
struct Wheel {
    journal: Journal,
    index: u64,
    offset: u64,
    previous_sum: u32,
    payload: Vec<u8>,
}

impl Wheel {
    fn new() -> Self {
        let mut wheel = Self {
            journal: Journal::open(JournalRecovered::fresh(Ring::STANDARD, 1)),
            index: 0,
            offset: 0,
            previous_sum: 0,
            payload: payload(),
        };
        wheel.store();
        wheel
    }

    /// A leader's hop "block": one block of `append_count` appends in the open run.
    fn block(&mut self, append_count: u64) {
        let start = block_start(self.index + 1, self.offset, self.previous_sum);
        let size = self.payload.len();
        self.journal
            .begin_block(start, size)
            .expect("a journal with room");
        for number in 0..append_count {
            let header = append_header(&self.payload, self.offset + number);
            let pushed = self
                .journal
                .push_append(&header, std::iter::once(&self.payload[..]));
            pushed.expect("a sound append");
        }
        let entry = self.journal.finish_block().expect("a block with appends");
        self.index += 1;
        self.offset += append_count;
        self.previous_sum = entry.sum;
    }

    /// All that is sealed is written, and nothing of it needed any more.
    fn store(&mut self) {
        while let Some(store) = self.journal.next_store() {
            self.journal.stored(store.write);
        }
        let durable: Lsn = self.journal.durable();
        self.journal.release_below(durable);
    }
}

fn journals(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("journal");
    for append_count in [1, 64, 1_024] {
        let mut wheel = Wheel::new();
        let id = BenchmarkId::new("seal a run, appends of 256 B", append_count);
        group.bench_function(id, |bencher| {
            bencher.iter_custom(|round_count| {
                let mut spent = Duration::ZERO;
                for _ in 0..round_count {
                    wheel.block(append_count);
                    let started = Instant::now();
                    assert!(wheel.journal.seal(), "there was something to seal");
                    spent += started.elapsed();
                    wheel.store();
                }
                spent
            });
        });
        group.throughput(Throughput::Elements(append_count));
        let id = BenchmarkId::new("block, seal, store, appends of 256 B", append_count);
        group.bench_function(id, |bencher| {
            bencher.iter(|| {
                wheel.block(append_count);
                wheel.journal.seal();
                wheel.store();
            });
        });
    }
    group.finish();
}

/// What the instrument itself costs for each append, against a target that costs next to nothing.
fn generators(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("generator");
    group.throughput(Throughput::Elements(1));
    group.sample_size(10);
    for concurrency in [1, 1_024] {
        let id = BenchmarkId::new("closed loop, appends in flight", concurrency);
        group.bench_function(id, |bencher| {
            bencher.iter_custom(|append_count| {
                let each = generate(Mode::Closed { concurrency });
                each.mul_f64(append_count as f64)
            });
        });
    }
    group.finish();
}

/// CPU time for each append of a short run.
fn generate(mode: Mode) -> Duration {
    let plan = Plan {
        mode,
        payload: Payload::fixed(RECORD_SIZE).expect("a record has a bound"),
        seed: 1,
        warmup: Duration::ZERO,
        duration: Duration::from_millis(50),
        drain: DRAIN,
        log_count: 1,
        producer_count: 1,
        keeps_intervals: false,
        spin: SpinMode::Never,
    };
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let runtime = builder.enable_all().build().expect("a runtime");
    let tasks = tokio::task::LocalSet::new();
    let measured = tasks.block_on(&runtime, async {
        let fake = FakeTarget::default();
        tokio::task::spawn_local(fake.clone().serve(None));
        run(&fake, &plan).await.expect("a closed loop has no timer")
    });
    let acked_count = measured.tally.acked_count.max(1);
    measured.cpu.div_f64(acked_count as f64)
}

criterion_group!(micro, frames, blocks, quorums, journals, generators);
criterion_main!(micro);
