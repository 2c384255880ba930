//! Each way of being refused, reached; and what is refused before it costs anything.

use bytes::BytesMut;
use ringwood_core::frame::assembler::{Assembler, TagPolicy};
use ringwood_core::frame::code::RefusedReason;
use ringwood_core::frame::greeting::{Hello, Refused};
use ringwood_core::frame::header::{ClusterTag, HEADER_SIZE};
use ringwood_core::frame::message::{Body, DETAIL_SIZE_MAX, Message, body_size_max, body_size_min};
use ringwood_core::frame::peer::{Beat, BeatAck, Heartbeat, HeartbeatAck};
use ringwood_core::frame::refusal::{Refusal, Reserved, Stranger};
use ringwood_core::frame::sum::crc32c;
use ringwood_core::frame::writer::FrameWriter;
use ringwood_core::frame::{Gate, Kind, Lane};
use ringwood_core::id::ClusterId;
use ringwood_core::limits::GROUP_COUNT_MAX;

use super::samples::{Sample, filled, frame, hello, samples, tag};
use super::streams::stamp;

fn assembler() -> Assembler<Vec<u8>> {
    Assembler::new(TagPolicy::Exact(tag()))
}

/// What the stream that begins with these bytes is refused for.
fn refusal(bytes: &[u8]) -> Option<Refusal> {
    let mut assembler = assembler();
    assembler.push(bytes.to_vec());
    let refusal = match assembler.next() {
        Ok(Some(frame)) => frame.message().err(),
        Ok(None) => assembler.finish().err(),
        Err(refusal) => Some(refusal),
    };
    assert!(refusal.is_none_or(|refusal| !refusal.to_string().is_empty()));
    refusal
}

fn sample(kind: Kind) -> Sample {
    samples()
        .into_iter()
        .find(|sample| sample.kind == kind)
        .expect("every kind has a sample")
}

/// A frame of `kind` whose bytes from `at` on are `value`, with right sums.
fn changed(kind: Kind, at: usize, value: &[u8]) -> Vec<u8> {
    let mut bytes = sample(kind).bytes;
    let body_size = u32::from_le_bytes(bytes[12..16].try_into().unwrap()) as usize;
    bytes[at..at + value.len()].copy_from_slice(value);
    stamp(&mut bytes, body_size);
    bytes
}

#[test]
fn each_misdeed_has_its_variant() {
    let kind = Kind::Append;
    let good = sample(kind).bytes;
    assert_eq!(refusal(&good), None);

    let mut bytes = good.clone();
    bytes[0] = b'X';
    let not_a_frame = Refusal::NotAFrame {
        found: *b"XNGW",
        stranger: Stranger::Unknown,
    };
    assert_eq!(refusal(&bytes), Some(not_a_frame));

    let mut bytes = good.clone();
    bytes[16] ^= 1;
    assert!(matches!(refusal(&bytes), Some(Refusal::HeaderSum { .. })));

    let unknown_version = Some(Refusal::UnknownVersion { found: 2 });
    assert_eq!(refusal(&changed(kind, 8, &[2])), unknown_version);
    assert_eq!(
        refusal(&changed(kind, 9, &[200])),
        Some(Refusal::UnknownKind { found: 200 })
    );

    let oversized = changed(kind, 12, &u32::MAX.to_le_bytes());
    let size_max = 40;
    let body_oversized = Refusal::BodyOversized {
        kind,
        size: u32::MAX,
        size_max,
    };
    assert_eq!(refusal(&oversized), Some(body_oversized));

    let size_max = kind.payload_size_max() as u32;
    let oversized = changed(kind, 16, &(size_max + 1).to_le_bytes());
    let payload_oversized = Refusal::PayloadOversized {
        kind,
        size: size_max + 1,
        size_max,
    };
    assert_eq!(refusal(&oversized), Some(payload_oversized));

    let found = [1, 2, 3, 4];
    let wrong_cluster = refusal(&changed(kind, 28, &found));
    assert!(
        matches!(wrong_cluster, Some(Refusal::WrongCluster { expected, .. }) if expected == tag())
    );

    let mut bytes = good.clone();
    bytes[HEADER_SIZE] ^= 1;
    assert!(matches!(refusal(&bytes), Some(Refusal::BodySum { .. })));

    // The length of a vector, in the last bytes of a refusal's body.
    let malformed = changed(Kind::Refused, HEADER_SIZE + 20 + 4, &[0xFF; 4]);
    assert_eq!(
        refusal(&malformed),
        Some(Refusal::Malformed {
            kind: Kind::Refused
        })
    );

    let truncated = Refusal::Truncated {
        held: good.len() - 1,
        needed: good.len(),
    };
    assert_eq!(refusal(&good[..good.len() - 1]), Some(truncated));
}

#[test]
fn each_place_of_zeros_is_looked_at() {
    let refused = |place| Some(Refusal::ReservedBits { place });
    for at in [10, 11] {
        assert_eq!(
            refusal(&changed(Kind::Append, at, &[1])),
            refused(Reserved::Header)
        );
    }
    for kind in Kind::ALL {
        let refusal = refusal(&changed(*kind, 20, &[1]));
        let expected = if kind.has_payload_sum() {
            None
        } else {
            refused(Reserved::PayloadSum)
        };
        assert_eq!(refusal, expected, "{kind}");
    }
    let append = sample(Kind::Append);
    let body_end = HEADER_SIZE + 40;
    for at in body_end..body_end + 8 {
        let mut bytes = append.bytes.clone();
        bytes[at] = 1;
        assert_eq!(refusal(&bytes), refused(Reserved::BodyPadding));
    }
    let payload_end = body_end + 8 + append.payload.len();
    assert!(payload_end < append.bytes.len());
    for at in payload_end..append.bytes.len() {
        let mut bytes = append.bytes.clone();
        bytes[at] = 1;
        assert_eq!(refusal(&bytes), refused(Reserved::PayloadPadding));
    }
}

#[test]
fn http_and_tls_are_recognised_by_their_first_four_bytes() {
    let stranger = |bytes: &[u8]| match refusal(bytes) {
        Some(Refusal::NotAFrame { stranger, .. }) => stranger,
        other => panic!("{other:?}"),
    };
    let http: [&[u8]; 6] = [
        b"GET / HTTP/1.1\r\nHost: localhost:7401\r\n\r\n",
        b"POST",
        b"HEAD /",
        b"OPTIONS * HTTP/1.1",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"HTTP/1.1 400 Bad Request",
    ];
    for bytes in http {
        assert_eq!(stranger(bytes), Stranger::Http);
    }
    assert_eq!(
        stranger(&[0x16, 0x03, 0x01, 0x02, 0x00, 0x01]),
        Stranger::Tls
    );
    assert_eq!(stranger(&[0x16, 0x03, 0x03, 0x00]), Stranger::Tls);
    assert_eq!(stranger(&[0x16, 0x04, 0x03, 0x00]), Stranger::Unknown);
    assert_eq!(stranger(b"SSH-2.0-OpenSSH"), Stranger::Unknown);
    assert_eq!(stranger(&[0; 64]), Stranger::Unknown);
    assert_eq!(
        refusal(b"GET"),
        Some(Refusal::Truncated {
            held: 3,
            needed: HEADER_SIZE
        })
    );
}

#[test]
fn an_oversized_frame_is_refused_at_its_header() {
    for kind in Kind::ALL {
        let bytes = changed(*kind, 12, &(body_size_max(*kind) as u32 + 1).to_le_bytes());
        let mut assembler = assembler();
        assembler.push(bytes[..HEADER_SIZE - 1].to_vec());
        assert!(assembler.next().unwrap().is_none());
        assembler.push(bytes[HEADER_SIZE - 1..HEADER_SIZE].to_vec());
        assert!(
            matches!(assembler.next(), Err(Refusal::BodyOversized { .. })),
            "{kind}"
        );
        assert_eq!(assembler.held_size(), 0);

        let bytes = changed(
            *kind,
            16,
            &(kind.payload_size_max() as u32 + 1).to_le_bytes(),
        );
        let oversized = refusal(&bytes[..HEADER_SIZE]);
        assert!(
            matches!(oversized, Some(Refusal::PayloadOversized { .. })),
            "{kind}"
        );

        let bytes = changed(*kind, 12, &(body_size_min(*kind) as u32 - 1).to_le_bytes());
        assert_eq!(
            refusal(&bytes[..HEADER_SIZE]),
            Some(Refusal::Malformed { kind: *kind })
        );
    }
}

#[test]
fn a_misplaced_frame_is_refused_at_its_header() {
    let mut assembler = assembler();
    assembler.set_gate(Gate::Hello);
    assembler.push(sample(Kind::Append).bytes[..HEADER_SIZE].to_vec());
    let early = Refusal::Misplaced {
        kind: Kind::Append,
        lane: None,
    };
    assert_eq!(assembler.next().err(), Some(early));
    assert_eq!(early.reason(), RefusedReason::HelloMisplaced);
    assert_eq!(assembler.held_size(), 0, "nothing of it is waited for");

    for (lane, kind) in [
        (Lane::Client, Kind::Heartbeat),
        (Lane::Client, Kind::AppendReply),
        (Lane::Control, Kind::AppendEntries),
        (Lane::Data, Kind::VoteRequest),
        (Lane::Bulk, Kind::Append),
    ] {
        let mut assembler = self::assembler();
        assembler.push(tagged(tag(), &hello()));
        assembler.push(sample(kind).bytes[..HEADER_SIZE].to_vec());
        assert!(assembler.next().unwrap().is_some(), "the gate is open yet");
        assembler.set_gate(Gate::Lane(lane));
        let lane = Some(lane);
        let refusal = assembler.next().err();
        assert_eq!(refusal, Some(Refusal::Misplaced { kind, lane }));
        let reason = refusal.map(|refusal| refusal.reason());
        assert_eq!(reason, Some(RefusedReason::UnexpectedKind));
    }
}

#[test]
fn every_payload_size_up_to_two_alignments_reads_back() {
    for size in 0..=33 {
        let sample = frame(
            &ringwood_core::frame::client::Append::default(),
            &filled(size),
        );
        assert!(sample.bytes.len().is_multiple_of(16));
        let mut assembler = assembler();
        assembler.push(sample.bytes);
        assert_eq!(
            assembler.next().unwrap().unwrap().payload().contiguous(),
            filled(size)
        );
    }
}

#[test]
fn every_body_size_up_to_the_largest_reads_back() {
    for size in (0..=65).chain(DETAIL_SIZE_MAX - 17..=DETAIL_SIZE_MAX) {
        let refused = Refused {
            detail: filled(size),
            reason: 1,
        };
        let mut assembler = assembler();
        assembler.push(frame(&refused, &[]).bytes);
        let Ok(Message::Refused(body)) = assembler.next().unwrap().unwrap().message() else {
            panic!("not the frame that was sent");
        };
        assert_eq!(Refused::owned(body), Ok(refused));
    }
    let beats = vec![Beat::default(); GROUP_COUNT_MAX];
    assert_eq!(
        refusal(
            &frame(
                &Heartbeat {
                    beats,
                    ..Heartbeat::default()
                },
                &[]
            )
            .bytes
        ),
        None
    );
    let acks = vec![BeatAck::default(); GROUP_COUNT_MAX];
    assert_eq!(
        refusal(&frame(&HeartbeatAck { echo: 1, acks }, &[]).bytes),
        None
    );
}

#[test]
#[should_panic(expected = "refused has")]
fn a_body_too_large_for_its_kind_is_not_written() {
    let detail = filled(DETAIL_SIZE_MAX + 17);
    frame(&Refused { detail, reason: 1 }, &[]);
}

#[test]
fn a_refused_stream_stays_silent_and_gives_everything_back() {
    let mut assembler = assembler();
    let good = sample(Kind::Fetch).bytes;
    let mut bad = good.clone();
    bad[HEADER_SIZE] ^= 1;
    assembler.push([&good[..], &bad[..], &good[..]].concat());
    assert!(assembler.next().unwrap().is_some());
    assert!(matches!(assembler.next(), Err(Refusal::BodySum { .. })));
    assert!(assembler.is_dead());
    for _ in 0..3 {
        assert!(assembler.next().unwrap().is_none());
        assembler.push(good.clone());
    }
    assert!(assembler.next().unwrap().is_none());
    assert_eq!(assembler.finish(), Ok(()));
    assert_eq!(assembler.take_released().count(), 4);
    assert_eq!(assembler.held_size(), 0);
}

fn tagged<B: Body>(cluster_tag: ClusterTag, body: &B) -> Vec<u8> {
    let mut out = BytesMut::new();
    FrameWriter::new(cluster_tag).write(body, &mut out);
    out.to_vec()
}

/// Whether each of the frames in turn passes a stream with this policy.
fn passes(policy: TagPolicy, frames: &[Vec<u8>]) -> bool {
    let mut assembler = Assembler::new(policy);
    for frame in frames {
        assembler.push(frame.clone());
        match assembler.next() {
            Ok(frame) => assert!(frame.is_some()),
            Err(Refusal::WrongCluster { .. }) => return false,
            Err(refusal) => panic!("{refusal}"),
        }
    }
    true
}

#[test]
fn a_tag_passes_only_where_its_policy_says() {
    let (own, other) = (tag(), ClusterTag::of(ClusterId(99)));
    let unknown = ClusterTag::UNKNOWN;
    let newcomer = || tagged(unknown, &Hello::default());
    let ack = |tag| tagged(tag, &HeartbeatAck::default());

    assert!(passes(
        TagPolicy::Exact(own),
        &[tagged(own, &hello()), ack(own)]
    ));
    assert!(!passes(TagPolicy::Exact(own), &[newcomer()]));
    assert!(!passes(TagPolicy::Exact(own), &[ack(other)]));
    assert!(
        !passes(TagPolicy::Exact(unknown), &[ack(unknown)]),
        "zero is nobody's cluster"
    );

    assert!(passes(
        TagPolicy::ExactOrHello(own),
        &[newcomer(), ack(own)]
    ));
    assert!(!passes(TagPolicy::ExactOrHello(own), &[ack(unknown)]));
    assert!(!passes(
        TagPolicy::ExactOrHello(own),
        &[tagged(other, &hello())]
    ));

    assert!(passes(TagPolicy::Learn, &[ack(other), ack(other)]));
    assert!(
        !passes(TagPolicy::Learn, &[ack(other), ack(own)]),
        "the first one binds"
    );
    assert!(!passes(TagPolicy::Learn, &[ack(unknown)]));
}

#[test]
fn a_payload_is_not_judged_by_its_sum() {
    // Whoever copies the payload checks it on the way, so that it is read only once.
    let append = sample(Kind::Append);
    let mut bytes = append.bytes.clone();
    let at = HEADER_SIZE + 48;
    bytes[at] ^= 1;
    let mut assembler = assembler();
    assembler.push(bytes);
    let frame = assembler.next().unwrap().unwrap();
    assert_eq!(frame.header.payload_sum, crc32c(&append.payload));
    assert_ne!(frame.payload().sum(), frame.header.payload_sum);
}
