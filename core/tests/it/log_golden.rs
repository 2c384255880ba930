//! The formats of journal and segments, byte by byte, as files written once.
//!
//! A format that changes by accident cannot read the disks that are out there. A line of a golden
//! file is an offset and up to 32 bytes; lines of zeros are left out; the last line is the size.

use std::fmt::Write;

use bytes::BytesMut;
use ringwood_core::frame::sum::crc32c;
use ringwood_core::id::{
    ClusterId, Epoch, GroupId, Index, NodeId, Offset, ProducerId, Sequence, Term, UnixSeconds,
};
use ringwood_core::log::block::{AppendHeader, Block, BlockKind, write_record};
use ringwood_core::log::builder::{BlockBuilder, BlockStart};
use ringwood_core::log::checkpoint::Checkpoint;
use ringwood_core::log::footer::{SegmentFooter, SegmentPoint};
use ringwood_core::log::journal::JournalRecovered;
use ringwood_core::log::producers::Producers;
use ringwood_core::log::ring::Ring;
use ringwood_core::log::segment::{SegmentHeader, SegmentState};
use ringwood_core::log::{HardState, Journal};

use crate::golden::golden;

fn check(name: &str, bytes: &[u8]) {
    let mut text = String::new();
    for (position, line) in bytes.chunks(32).enumerate() {
        if line.iter().any(|byte| *byte != 0) {
            write!(text, "{:06x}", position * 32).expect("to a string");
            for byte in line {
                write!(text, " {byte:02x}").expect("to a string");
            }
            text.push('\n');
        }
    }
    writeln!(text, "{:06x}", bytes.len()).expect("to a string");
    golden(name, &text);
}

fn block() -> BytesMut {
    let mut buffer = BytesMut::with_capacity(4096);
    let start = BlockStart {
        group: GroupId(3),
        kind: BlockKind::Records,
        index: Index(8),
        term: Term(2),
        first_offset: Offset(100),
        previous_sum: 0x0403_0201,
        commit: Index(6),
    };
    let mut builder = BlockBuilder::begin(&mut buffer, start);
    for (sequence, records) in [(40, &["ring", "wood"][..]), (42, &[""])] {
        let mut payload = Vec::new();
        for record in records {
            write_record(&mut payload, record.as_bytes());
        }
        let header = AppendHeader {
            payload_sum: crc32c(&payload),
            payload_size: payload.len() as u32,
            producer: ProducerId(0x1122_3344_5566_7788),
            sequence: Sequence(sequence),
            epoch: Epoch(1),
            record_count: records.len() as u32,
        };
        builder
            .push(&mut buffer, &header, [&payload[..]].into_iter())
            .expect("a good append");
    }
    builder.finish(&mut buffer).expect("a block");
    buffer
}

fn checkpoint() -> Checkpoint {
    let bytes = block();
    let block = Block::check(&bytes).expect("as built");
    let mut producers = Producers::default();
    producers.note_block(&block);
    Checkpoint {
        group: GroupId(3),
        index: Index(8),
        term: Term(2),
        block_sum: block.header().sum,
        next_offset: block.header().next_offset(),
        segment: 1,
        segment_size: 8192,
        blocks_sum: 0x0C0B_0A09,
        start: Offset(5),
        first_segment: 1,
        restores: false,
        producers: producers.snapshot_at(Index(8)),
    }
}

#[test]
fn a_block_is_written_as_ever() {
    check("log_block.hex", &block());
}

#[test]
fn a_checkpoint_is_written_as_ever() {
    check("log_checkpoint.hex", &checkpoint().encode());
}

#[test]
fn a_flush_is_written_as_ever() {
    let mut journal = Journal::open(JournalRecovered::fresh(Ring::STANDARD, 0xCAFE_F00D));
    let opening = journal.next_store().expect("the opening flush");
    journal.stored(opening.write);
    check("log_opening_flush.hex", &opening.runs.concat());
    let lsn = journal.open_lsn().expect("room");
    let hard = HardState {
        term: Term(2),
        vote: Some(NodeId(0x99)),
    };
    journal.put_hard_state(GroupId(3), hard);
    journal
        .copy_block(&Block::check(&block()).expect("as built"))
        .expect("room");
    journal.put_checkpoint(&checkpoint()).expect("room");
    journal.seal();
    check("log_flush.hex", &journal.run(lsn).expect("sealed just now"));
}

fn segment_header() -> (SegmentHeader, BytesMut) {
    let bytes = block();
    let block = Block::check(&bytes).expect("as built");
    let mut producers = Producers::default();
    producers.note_block(&block);
    let state = SegmentState {
        voters: vec![NodeId(0x99), NodeId(0xAA)],
        producers: producers.snapshot_at(Index(9)),
    };
    let (place, bytes) = state.encode(Index(9), Term(2));
    let header = SegmentHeader {
        cluster: ClusterId(0x0F0E_0D0C_0B0A_0908_0706_0504_0302_0100),
        node_tag: 0xCAFE_F00D,
        group: GroupId(3),
        segment: 1,
        first_index: Index(10),
        first_offset: Offset(103),
        previous_term: Term(2),
        previous_sum: 0x0403_0201,
        previous_size: 0x0003_1000,
        made_at: UnixSeconds(1_800_000_000),
        state: place,
    };
    (header, bytes)
}

#[test]
fn a_segment_begins_as_ever() {
    let (header, state) = segment_header();
    check(
        "log_segment_head.hex",
        &[&header.encode()[..], &state].concat().repeat(2),
    );
}

#[test]
fn a_segment_ends_as_ever() {
    let (header, _) = segment_header();
    let point = |number: u64| SegmentPoint {
        index: Index(10 + number),
        first_offset: Offset(103 + 4 * number),
        previous_term: Term(1 + number),
        position: number << 19,
    };
    let footer = SegmentFooter {
        cluster: header.cluster,
        node_tag: header.node_tag,
        group: header.group,
        segment: header.segment,
        first_index: header.first_index,
        first_offset: header.first_offset,
        last_index: Index(30),
        last_term: Term(5),
        last_sum: 0x0807_0605,
        next_offset: Offset(200),
        data_size: 0x0013_1000,
        sealed_at: UnixSeconds(1_800_000_060),
        blocks_sum: 0x0C0B_0A09,
        points: (1..3).map(point).collect(),
        header: Some(header),
    };
    check("log_segment_footer.hex", &footer.encode());
}
