//! Whole streams: cut at every place, misaligned, dripping, large, full of noise.

use bytes::Bytes;
use ringwood_core::frame::Kind;
use ringwood_core::frame::assembler::{Assembler, TagPolicy};
use ringwood_core::frame::client::Append;
use ringwood_core::frame::header::HEADER_SIZE;
use ringwood_core::frame::peer::{AppendEntries, AppendEntriesAck, TimeoutNow};
use ringwood_core::frame::refusal::Refusal;
use ringwood_core::frame::sum::crc32c;
use ringwood_core::limits::{FRAME_ALIGN, FRAME_PAYLOAD_SIZE_MAX};

use super::samples::{filled, frame, hello, samples, tag};

/// What one frame came to: its kind, its body as text, its payload.
type Seen = (Kind, String, Vec<u8>);

fn assembler() -> Assembler<Bytes> {
    Assembler::new(TagPolicy::Exact(tag()))
}

/// Takes all frames there are; returns them, and how many leases came back.
fn drain(assembler: &mut Assembler<Bytes>, seen: &mut Vec<Seen>) -> Result<usize, Refusal> {
    while let Some(frame) = assembler.next()? {
        let message = format!("{:?}", frame.message()?);
        let payload: Vec<u8> = frame.payload().chunks().flatten().copied().collect();
        assert_eq!(payload, *frame.payload().contiguous());
        assert_eq!(crc32c(&payload), frame.payload().sum());
        seen.push((frame.kind(), message, payload));
    }
    Ok(assembler.take_released().count())
}

/// The frames of a stream that arrives in these chunks.
fn seen_in(chunks: impl IntoIterator<Item = Bytes>) -> Result<Vec<Seen>, Refusal> {
    let (mut assembler, mut seen) = (assembler(), Vec::new());
    let (mut pushed, mut released) = (0, 0);
    for chunk in chunks {
        assembler.push(chunk);
        pushed += 1;
        released += drain(&mut assembler, &mut seen)?;
    }
    assembler.finish()?;
    assert_eq!(pushed, released, "a lease was not given back");
    Ok(seen)
}

/// `bytes` in a buffer of their own, so many bytes off the alignment of frames.
fn shifted(bytes: &[u8], shift: usize) -> Bytes {
    let mut buffer = vec![0; bytes.len() + 2 * FRAME_ALIGN];
    let at = buffer.as_ptr().align_offset(FRAME_ALIGN) + shift;
    buffer[at..at + bytes.len()].copy_from_slice(bytes);
    Bytes::from(buffer).slice(at..at + bytes.len())
}

/// Four small frames: without payload, with an odd one, without, with a padded one.
fn small_stream() -> Bytes {
    let append = Append {
        request: 1,
        record_count: 1,
        ..Append::default()
    };
    let frames = [
        frame(&hello(), &[]),
        frame(&append, b"\x03\0\0\0abc"),
        frame(&TimeoutNow { term: 3, group: 4 }, &[]),
        frame(
            &AppendEntries {
                count: 1,
                ..AppendEntries::default()
            },
            &filled(17),
        ),
    ];
    frames
        .into_iter()
        .flat_map(|sample| sample.bytes)
        .collect::<Vec<u8>>()
        .into()
}

#[test]
fn a_stream_cut_once_or_twice_anywhere_yields_the_same_frames() {
    let stream = small_stream();
    let whole = seen_in([stream.clone()]).unwrap();
    assert_eq!(whole.len(), 4);
    for first in 0..=stream.len() {
        for second in first..=stream.len() {
            let parts = [
                stream.slice(..first),
                stream.slice(first..second),
                stream.slice(second..),
            ];
            assert_eq!(
                seen_in(parts).unwrap(),
                whole,
                "cut at {first} and {second}"
            );
        }
    }
}

#[test]
fn a_stream_reads_the_same_at_every_alignment_and_grain() {
    let stream = samples()
        .into_iter()
        .flat_map(|sample| sample.bytes)
        .collect::<Vec<u8>>();
    let whole = seen_in([shifted(&stream, 0)]).unwrap();
    assert_eq!(whole.len(), Kind::ALL.len());
    for shift in 0..FRAME_ALIGN {
        for grain in [
            1,
            2,
            3,
            7,
            15,
            16,
            17,
            31,
            32,
            33,
            64,
            100,
            500,
            stream.len(),
        ] {
            let chunks = stream.chunks(grain).map(|chunk| shifted(chunk, shift));
            assert_eq!(
                seen_in(chunks).unwrap(),
                whole,
                "{grain} bytes each, {shift} off"
            );
        }
    }
}

#[test]
fn a_body_is_read_in_place_where_it_lies_right_and_copied_where_not() {
    let sample = frame(&TimeoutNow { term: 3, group: 4 }, &[]);
    for shift in 0..FRAME_ALIGN {
        let chunk = shifted(&sample.bytes, shift);
        let mut assembler = assembler();
        assembler.push(chunk.clone());
        let frame = assembler.next().unwrap().unwrap();
        let Ok(ringwood_core::frame::message::Message::TimeoutNow(body)) = frame.message() else {
            panic!("not the frame that was sent");
        };
        let address = std::ptr::from_ref(body).addr();
        assert!(address.is_multiple_of(8));
        assert_eq!(
            chunk
                .as_ptr_range()
                .contains(&std::ptr::without_provenance(address)),
            shift == 0
        );
    }
}

#[test]
fn a_payload_stays_in_the_chunks_it_arrived_in() {
    let sample = frame(&AppendEntries::default(), &filled(FRAME_PAYLOAD_SIZE_MAX));
    let mut assembler = assembler();
    let stream = Bytes::from(sample.bytes);
    let parts: Vec<Bytes> = (0..stream.len())
        .step_by(128 << 10)
        .map(|at| stream.slice(at..stream.len().min(at + (128 << 10))))
        .collect();
    for part in &parts {
        assert!(assembler.next().unwrap().is_none());
        assembler.push(part.clone());
    }
    assert_eq!(assembler.take_released().count(), 0);
    let frame = assembler.next().unwrap().unwrap();
    assert_eq!(frame.payload().chunks().count(), parts.len());
    for (chunk, part) in frame.payload().chunks().zip(&parts) {
        assert!(
            part.as_ptr_range().contains(&chunk.as_ptr()),
            "a payload was copied"
        );
    }
    assert!(assembler.next().unwrap().is_none());
    assert_eq!(assembler.take_released().count(), parts.len());
}

#[test]
fn a_large_frame_in_drips_holds_few_leases() {
    let sample = frame(&AppendEntries::default(), &filled(300_000));
    let stream = Bytes::from([sample.bytes.clone(), sample.bytes].concat());
    let (mut assembler, mut seen) = (assembler(), Vec::new());
    let (mut pushed, mut released) = (0, 0);
    for at in (0..stream.len()).step_by(1000) {
        assembler.push(stream.slice(at..stream.len().min(at + 1000)));
        pushed += 1;
        released += drain(&mut assembler, &mut seen).unwrap();
        assert!(
            pushed - released <= 32,
            "{} leases are held",
            pushed - released
        );
    }
    assert_eq!(pushed, released);
    assert!(
        seen.iter()
            .map(|(_, _, payload)| payload)
            .eq([&filled(300_000); 2])
    );
}

#[test]
fn a_frame_held_back_comes_again() {
    let stream = small_stream();
    let (mut assembler, mut seen) = (assembler(), Vec::new());
    assembler.push(stream.slice(..200));
    for _ in 0..3 {
        assert_eq!(assembler.next().unwrap().unwrap().kind(), Kind::Hello);
        assembler.hold_back();
    }
    assembler.push(stream.slice(200..));
    assembler.hold_back();
    drain(&mut assembler, &mut seen).unwrap();
    assert_eq!(seen, seen_in([stream]).unwrap());
    assembler.hold_back();
    assert!(
        assembler.next().unwrap().is_none(),
        "what is consumed does not come again"
    );
}

#[test]
fn a_chunk_comes_back_with_its_last_frame_and_not_before() {
    let one = frame(&AppendEntriesAck::default(), &[]).bytes;
    let mut assembler = assembler();
    assembler.push(Bytes::from([&one[..], &one[..], &one[..10]].concat()));
    assembler.push(Bytes::from(one[10..].to_vec()));
    for frames_before in [0, 0, 1] {
        assert!(assembler.next().unwrap().is_some());
        let released = assembler.take_released().count();
        assert_eq!(released, 0, "after {frames_before}");
    }
    assert!(assembler.next().unwrap().is_none());
    assert_eq!(assembler.take_released().count(), 2);
}

#[test]
fn a_stream_that_ends_within_a_frame_is_truncated() {
    let stream = small_stream();
    let mut ends = vec![0];
    for sample in seen_in([stream.clone()]).unwrap() {
        let body_size = match sample.0 {
            Kind::Hello => 80,
            Kind::TimeoutNow => 16,
            _ => 48,
        };
        let payload_size = sample.2.len().next_multiple_of(FRAME_ALIGN);
        ends.push(ends.last().unwrap() + HEADER_SIZE + body_size + payload_size);
    }
    assert_eq!(ends.last(), Some(&stream.len()));
    for cut in 0..=stream.len() {
        let begin = *ends.iter().rfind(|end| **end <= cut).unwrap();
        let result = seen_in([stream.slice(..cut)]);
        if begin == cut {
            assert!(result.is_ok());
            continue;
        }
        let held = cut - begin;
        let size = ends.iter().find(|end| **end > cut).unwrap() - begin;
        let needed = if held < HEADER_SIZE {
            HEADER_SIZE
        } else {
            size
        };
        assert_eq!(
            result,
            Err(Refusal::Truncated { held, needed }),
            "cut at {cut}"
        );
    }
}

/// Marsaglia's xorshift, 64 bits.
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn bytes(&mut self, size: usize) -> Vec<u8> {
        (0..size).map(|_| (self.next() >> 24) as u8).collect()
    }
}

#[test]
fn noise_never_panics_and_never_passes() {
    for seed in 1..=200 {
        let noise = Bytes::from(Noise(seed).bytes(64 << 10));
        let grain = 1 + Noise(seed).next() as usize % 5000;
        let parts = (0..noise.len())
            .step_by(grain)
            .map(|at| noise.slice(at..noise.len().min(at + grain)));
        let refusal = seen_in(parts).unwrap_err();
        assert!(
            matches!(refusal, Refusal::NotAFrame { .. }),
            "seed {seed}: {refusal}"
        );
    }
}

#[test]
fn a_changed_byte_changes_the_payload_or_is_refused() {
    let samples = samples();
    let mut noise = Noise(7);
    for sample in &samples {
        let whole = seen_in([Bytes::from(sample.bytes.clone())]).unwrap();
        for at in 0..sample.bytes.len() {
            let mut bytes = sample.bytes.clone();
            bytes[at] ^= (noise.next() as u8).max(1);
            if let Ok(seen) = seen_in([Bytes::from(bytes)]) {
                assert_ne!(seen[0].2, whole[0].2, "{}, byte {at}", sample.kind);
                assert_eq!(seen[0].1, whole[0].1);
            }
        }
    }
}

#[test]
fn a_body_of_noise_under_right_sums_never_panics() {
    let (mut accepted, mut malformed) = (0, 0);
    for sample in samples() {
        let body_at = HEADER_SIZE;
        let body_size = u32::from_le_bytes(sample.bytes[12..16].try_into().unwrap()) as usize;
        for seed in 1..=300 {
            let mut noise = Noise(seed);
            let mut bytes = sample.bytes.clone();
            if seed % 2 == 0 {
                // A few bytes only, so that lengths and distances are nearly right.
                for _ in 0..=seed % 3 {
                    let at = body_at + noise.next() as usize % body_size;
                    bytes[at] = noise.next() as u8;
                }
            } else {
                bytes[body_at..body_at + body_size].copy_from_slice(&noise.bytes(body_size));
            }
            stamp(&mut bytes, body_size);
            match seen_in([Bytes::from(bytes)]) {
                Ok(_) => accepted += 1,
                Err(Refusal::Malformed { .. }) => malformed += 1,
                Err(refusal) => panic!("{refusal}"),
            }
        }
    }
    assert!(
        accepted > 500 && malformed > 500,
        "{accepted} accepted, {malformed} malformed"
    );
}

/// Puts the sums of a changed frame right.
pub(crate) fn stamp(bytes: &mut [u8], body_size: usize) {
    let sum = crc32c(&bytes[HEADER_SIZE..HEADER_SIZE + body_size]);
    bytes[24..28].copy_from_slice(&sum.to_le_bytes());
    let sum = crc32c(&bytes[8..HEADER_SIZE]);
    bytes[4..8].copy_from_slice(&sum.to_le_bytes());
}
