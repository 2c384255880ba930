//! Frames of every kind, byte for byte as files under `core/tests/golden/`.
//!
//! Bytes that were ever published stay readable: a changed file is a changed format, and wants a
//! new kind or a new version, not a rewrite.

use std::fmt::Write as _;
use std::path::PathBuf;

use bytes::BytesMut;
use ringwood_core::frame::assembler::{Assembler, TagPolicy};
use ringwood_core::frame::code::{
    BlockOutcome, Durability, FetchOutcome, NotCommittedReason, Outcome, ReadMode, RefusedReason,
    ReplicaState, TimeoutReason, TransferOutcome, TrimOutcome,
};
use ringwood_core::frame::message::{Body, Message};
use ringwood_core::frame::writer::{FrameWriter, PayloadClaim, padding};
use ringwood_core::frame::{Frame, Lane, client, greeting, peer};

use crate::golden::golden;

use super::samples::{Sample, samples, tag};

fn name(sample: &Sample) -> String {
    format!("frame_{}.hex", sample.kind)
}

/// A comment with the body as people read it, then 16 bytes a line.
fn hex(sample: &Sample) -> String {
    let mut text = format!("# {}\n", sample.text);
    for line in sample.bytes.chunks(16) {
        let bytes: Vec<String> = line.iter().map(|byte| format!("{byte:02x}")).collect();
        writeln!(text, "{}", bytes.join(" ")).unwrap();
    }
    text
}

fn bytes_of(text: &str) -> Vec<u8> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines
        .flat_map(str::split_whitespace)
        .map(|byte| u8::from_str_radix(byte, 16).expect("two hexadecimal digits"))
        .collect()
}

#[test]
fn golden_frames_are_written_byte_for_byte_and_read_back_the_same() {
    for sample in samples() {
        let golden = bytes_of(&golden(&name(&sample), &hex(&sample)));
        let mut assembler = Assembler::new(TagPolicy::Exact(tag()));
        assembler.push(golden.clone());
        let frame = assembler
            .next()
            .unwrap()
            .expect("a golden file is a whole frame");
        assert_eq!(frame.kind(), sample.kind);
        assert_eq!(frame.payload().contiguous(), sample.payload);
        assert_eq!(written_back(&frame), golden);
        assert!(assembler.next().unwrap().is_none());
    }
}

#[test]
fn the_format_document_has_every_kind_code_and_golden_hello() {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs/FORMAT.md");
    let document = std::fs::read_to_string(path).unwrap();
    for sample in samples() {
        let kind = sample.kind;
        let row = format!("| {} | {kind:?} | ", kind.code());
        assert!(document.contains(&row), "{row} is missing");
        assert!(
            document.contains(&format!("**{} {kind:?}**, ", kind.code())),
            "{kind:?}: no body"
        );
    }
    macro_rules! assert_codes {
        ($($name:ident($width:ident)),*) => {$(
            let values: Vec<String> =
                $name::ALL.iter().map(|value| format!("{} `{value}`", value.code())).collect();
            let row = format!(
                "| {} | {} | {} |",
                stringify!($name),
                stringify!($width),
                values.join(", ")
            );
            assert!(document.contains(&row), "{row} is missing");
        )*};
    }
    assert_codes!(
        Outcome(u8),
        NotCommittedReason(u8),
        Durability(u8),
        FetchOutcome(u8),
        ReadMode(u8),
        TransferOutcome(u8),
        BlockOutcome(u8),
        TrimOutcome(u8),
        TimeoutReason(u8),
        ReplicaState(u8),
        RefusedReason(u16),
        Lane(u8)
    );
    for line in hex(&samples()[0]).lines().skip(1) {
        assert!(
            document.contains(line),
            "the document's hello is not the golden one"
        );
    }
}

/// The frame, copied into own structs and written again.
fn written_back(frame: &Frame<'_>) -> Vec<u8> {
    let claim = PayloadClaim {
        size: frame.header.payload_size,
        sum: frame.header.payload_sum,
    };
    let mut out = BytesMut::new();
    let mut writer = FrameWriter::new(tag());
    macro_rules! write_back {
        ($($family:ident::$name:ident),*) => {
            match frame.message().unwrap() {
                $(Message::$name(body) => {
                    let body = <$family::$name as Body>::owned(body).unwrap();
                    writer.write_with_payload(&body, claim, &mut out);
                })*
            }
        };
    }
    write_back!(
        greeting::Hello,
        greeting::Welcome,
        greeting::Refused,
        peer::Heartbeat,
        peer::HeartbeatAck,
        peer::AppendEntries,
        peer::AppendEntriesAck,
        peer::VoteRequest,
        peer::VoteReply,
        peer::TimeoutNow,
        peer::BlockRequest,
        peer::BlockReply,
        peer::Restore,
        peer::StateReport,
        peer::BlockSums,
        peer::Referral,
        peer::ReferralEnd,
        client::Append,
        client::AppendReply,
        client::Fetch,
        client::FetchReply,
        client::StatusRequest,
        client::Status,
        client::Transfer,
        client::TransferReply,
        client::TrimRequest,
        client::TrimReply,
        client::ScrubRequest
    );
    out.extend_from_slice(&frame.payload().contiguous());
    out.extend_from_slice(padding(frame.payload().size()));
    out.to_vec()
}
