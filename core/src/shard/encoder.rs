//! Bodies to outgoing frames: headers and bodies are written one after another into one buffer and
//! split off, so that a turn's frames cost no allocation each.

use bytes::{Bytes, BytesMut};

use crate::frame::header::ClusterTag;
use crate::frame::message::Body;
use crate::frame::writer::{FrameWriter, PayloadClaim};
use crate::id::ClusterId;
use crate::limits::FRAME_ALIGN;

use super::effects::Outgoing;

/// The buffer grows by this much; a turn's heads of a busy shard fit.
const BUFFER_SIZE: usize = 64 << 10;

/// Writes the frames of one shard.
#[derive(Debug)]
pub(super) struct Encoder {
    writer: FrameWriter,
    buffer: BytesMut,
}

impl Encoder {
    pub(super) fn new(cluster: ClusterId) -> Self {
        let writer = FrameWriter::new(ClusterTag::of(cluster));
        Self {
            writer,
            buffer: BytesMut::with_capacity(BUFFER_SIZE),
        }
    }

    pub(super) fn frame<B: Body>(&mut self, body: &B) -> Outgoing {
        self.frame_with_blocks(body, Vec::new())
    }

    /// A frame whose payload is blocks, which stay where they are.
    pub(super) fn frame_with_blocks<B: Body>(&mut self, body: &B, payload: Vec<Bytes>) -> Outgoing {
        let size: usize = payload.iter().map(Bytes::len).sum();
        assert!(
            size.is_multiple_of(FRAME_ALIGN),
            "blocks are padded, so no padding follows them"
        );
        if self.buffer.capacity() < BUFFER_SIZE / 8 {
            self.buffer.reserve(BUFFER_SIZE);
        }
        let claim = PayloadClaim {
            size: u32::try_from(size).expect("bounded by limits"),
            sum: 0,
        };
        self.writer
            .write_with_payload(body, claim, &mut self.buffer);
        Outgoing {
            head: self.buffer.split().freeze(),
            payload,
        }
    }
}
