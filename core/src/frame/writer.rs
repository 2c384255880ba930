//! Messages to bytes: header, body and padding at the end of the caller's buffer.
//!
//! The payload is not copied: whoever sends puts its slices, and [`padding`] after them, behind
//! what is written here. Knows no connection. Allocates nothing in the long run.

use std::fmt;

use bytes::BytesMut;
use rkyv::api::serialize_using;
use rkyv::rancor::Failure;
use rkyv::ser::allocator::Arena;
use rkyv::ser::{Positional, Serializer, Writer};

use super::header::{ClusterTag, FrameHeader, HEADER_SIZE, padded};
use super::message::Body;
use super::sum::crc32c;
use crate::limits::FRAME_ALIGN;

/// What the header says of a payload that the caller sends behind it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PayloadClaim {
    /// Bytes, without padding.
    pub size: u32,
    /// CRC-32C of the bytes for `Append`; 0 for all other kinds, whose payload is blocks or none.
    pub sum: u32,
}

/// Writes frames of one cluster.
pub struct FrameWriter {
    cluster_tag: ClusterTag,
    /// Where rkyv remembers the positions of nested vectors (`Welcome`, `Status`) while it writes.
    arena: Arena,
}

impl FrameWriter {
    /// A writer of frames that carry this tag; a client that has not been welcomed yet uses
    /// [`ClusterTag::UNKNOWN`].
    #[must_use]
    pub fn new(cluster_tag: ClusterTag) -> Self {
        Self {
            cluster_tag,
            arena: Arena::new(),
        }
    }

    /// Writes a frame without payload at the end of `out`.
    ///
    /// # Panics
    ///
    /// If the body is longer than its kind allows. Lists in it are bounded by `limits`; whoever
    /// fills them keeps to that.
    pub fn write<B: Body>(&mut self, body: &B, out: &mut BytesMut) {
        self.write_with_payload(body, PayloadClaim::default(), out);
    }

    /// Writes all of a frame up to its payload at the end of `out`. The payload and its
    /// [`padding`] must follow.
    ///
    /// # Panics
    ///
    /// If body or payload is longer than the kind allows, or a sum is claimed where the kind has
    /// none.
    pub fn write_with_payload<B: Body>(
        &mut self,
        body: &B,
        payload: PayloadClaim,
        out: &mut BytesMut,
    ) {
        let frame_at = out.len();
        let body_at = frame_at + HEADER_SIZE;
        out.extend_from_slice(&[0; HEADER_SIZE]);
        let mut serializer = Serializer::new(BodyOut { out, body_at }, self.arena.acquire(), ());
        serialize_using::<_, Failure>(body, &mut serializer)
            .expect("writing to memory does not fail");
        let body_size = out.len() - body_at;
        assert!(
            body_size <= B::SIZE_MAX,
            "{} has {body_size} bytes",
            B::KIND
        );
        let header = FrameHeader {
            kind: B::KIND,
            body_size: body_size as u32,
            payload_size: payload.size,
            payload_sum: payload.sum,
            body_sum: crc32c(&out[body_at..]),
            cluster_tag: self.cluster_tag,
        };
        out[frame_at..body_at].copy_from_slice(&header.write());
        out.extend_from_slice(padding(body_size));
        assert_eq!(out.len(), frame_at + header.payload_at());
    }
}

impl fmt::Debug for FrameWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FrameWriter")
            .field("cluster_tag", &self.cluster_tag)
            .finish()
    }
}

/// The zeros that follow a payload (or body) of `size` bytes.
#[must_use]
pub fn padding(size: usize) -> &'static [u8] {
    const ZEROS: [u8; FRAME_ALIGN - 1] = [0; FRAME_ALIGN - 1];
    &ZEROS[..padded(size) - size]
}

/// Where rkyv writes a body: the caller's buffer, counted from the body's own beginning, so that
/// fields are aligned within the frame wherever the buffer stands.
#[derive(Debug)]
pub struct BodyOut<'a> {
    out: &'a mut BytesMut,
    body_at: usize,
}

impl Positional for BodyOut<'_> {
    fn pos(&self) -> usize {
        self.out.len() - self.body_at
    }
}

impl Writer<Failure> for BodyOut<'_> {
    fn write(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.out.extend_from_slice(bytes);
        Ok(())
    }
}
