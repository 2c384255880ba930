//! Received bytes to checked frames: hop 2 of the data path.
//!
//! Keeps the chunks of one stream until their frames are consumed. The header is judged, lengths
//! first, before anything is allocated for what it promises; header and body are copied only where
//! they arrived in pieces or misaligned; the payload stays where it arrived. Knows no connection,
//! and no message beyond its kind and size.
//!
//! ```text
//!   push(chunk)*  ->  next()? -> Some(frame)   until None, then
//!                     take_released()          gives buffers back to the ring
//! ```

use rkyv::util::AlignedVec;

use super::header::{ClusterTag, FrameHeader, HEADER_SIZE, MAGIC, judge_magic, padded};
use super::held::Held;
use super::refusal::{Refusal, Reserved};
use super::sum::crc32c;
use super::{Frame, Gate, Kind};
use crate::bugs::{self, Switch};
use crate::limits::FRAME_ALIGN;

/// Largest scratch that is kept after its frame; a heartbeat of all groups fits.
const SCRATCH_SIZE_MAX: usize = 64 << 10;

/// Which cluster's frames a stream may bring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TagPolicy {
    /// This cluster's. For links between nodes, and clients that know their cluster.
    Exact(ClusterTag),
    /// This cluster's, and a hello of a client that does not know it yet. For a node's door.
    ExactOrHello(ClusterTag),
    /// Any, but one: the first frame's becomes the exact one. For a client that does not know its
    /// cluster yet.
    Learn,
}

impl TagPolicy {
    fn judge(&mut self, header: &FrameHeader) -> Result<(), Refusal> {
        let found = header.cluster_tag;
        let unknown = found == ClusterTag::UNKNOWN;
        let (accepted, expected) = match *self {
            Self::Exact(tag) => (found == tag && !unknown, tag),
            Self::ExactOrHello(tag) => (
                if unknown {
                    header.kind == Kind::Hello
                } else {
                    found == tag
                },
                tag,
            ),
            Self::Learn => (!unknown, ClusterTag::UNKNOWN),
        };
        if !accepted {
            return Err(Refusal::WrongCluster { expected, found });
        }
        if *self == Self::Learn {
            *self = Self::Exact(found);
        }
        Ok(())
    }
}

/// Cuts one stream of received chunks into frames.
///
/// A chunk is any lease on bytes; it is held until the frames in it are consumed and then given
/// back through [`take_released`](Self::take_released).
#[derive(Debug)]
pub struct Assembler<C> {
    policy: TagPolicy,
    gate: Gate,
    held: Held<C>,
    /// Header of the frame at the front, once it is there and judged.
    header: Option<FrameHeader>,
    /// Bytes at the front that the last frame given out lies in; consumed at the next call.
    lent_size: usize,
    /// The front frame's body with its padding, where it could not be read in place.
    scratch: AlignedVec<FRAME_ALIGN>,
    /// A refusal was given: where the next frame would begin is unknown.
    dead: bool,
}

impl<C: AsRef<[u8]>> Assembler<C> {
    /// An assembler at the beginning of a stream.
    #[must_use]
    pub fn new(policy: TagPolicy) -> Self {
        Self {
            policy,
            gate: Gate::Any,
            held: Held::new(),
            header: None,
            lent_size: 0,
            scratch: AlignedVec::new(),
            dead: false,
        }
    }

    /// From the next frame on only kinds that pass this gate are taken; what does not is refused by
    /// its header, before any of its body is waited for.
    pub fn set_gate(&mut self, gate: Gate) {
        self.gate = gate;
    }

    /// Takes the next chunk of the stream. Call [`next`](Self::next) until there is no frame, then
    /// [`take_released`](Self::take_released): what is pushed and not consumed is held in memory.
    pub fn push(&mut self, chunk: C) {
        let needed = self
            .pending_header()
            .map_or(0, |header| header.frame_size());
        self.held
            .push(chunk, needed.saturating_sub(self.held.size()));
        if self.dead {
            self.held.consume(self.held.size());
        }
    }

    /// The next whole frame, or `None` until more is pushed. The frame given before is consumed.
    ///
    /// # Errors
    ///
    /// What is wrong with the stream, once; after it the stream is dead and there are no frames
    /// and no errors any more.
    #[expect(
        clippy::should_implement_trait,
        reason = "an iterator cannot lend its items"
    )]
    pub fn next(&mut self) -> Result<Option<Frame<'_>>, Refusal> {
        self.consume_lent();
        match self.collect() {
            Ok(Some(header)) => {
                self.lent_size = header.frame_size();
                Ok(Some(self.front(header)))
            }
            Ok(None) => Ok(None),
            Err(refusal) => {
                self.dead = true;
                self.held.consume(self.held.size());
                Err(refusal)
            }
        }
    }

    /// Takes back the frame just given: the next call of [`next`](Self::next) gives it again. For
    /// a caller that has no room for it now.
    pub fn hold_back(&mut self) {
        self.lent_size = 0;
    }

    /// Copies what is left of an unfinished frame, so that none of its chunks is held any longer.
    /// For receive buffers that all streams share: senders that stop in mid-frame would otherwise
    /// hold them all, and no frame could ever be finished. Call it when `next` gives none.
    pub fn detach(&mut self) {
        self.consume_lent();
        let needed = self
            .pending_header()
            .map_or(0, |header| header.frame_size());
        self.held.detach(needed.saturating_sub(self.held.size()));
    }

    /// Chunks that no frame needs any more, in the order in which they were pushed. The frame
    /// given last keeps its chunks until the following call of [`next`](Self::next).
    pub fn take_released(&mut self) -> impl Iterator<Item = C> + '_ {
        self.held.take_released()
    }

    /// Whether a refusal was given.
    #[must_use]
    pub fn is_dead(&self) -> bool {
        self.dead
    }

    /// Bytes held that no frame given out has consumed.
    #[must_use]
    pub fn held_size(&self) -> usize {
        self.held.size() - self.lent_size
    }

    /// Nothing more is wanted of this stream: what is held is given back, what is still pushed too.
    pub fn abandon(&mut self) {
        self.dead = true;
        self.lent_size = 0;
        self.header = None;
        self.held.consume(self.held.size());
    }

    /// The stream has ended.
    ///
    /// # Errors
    ///
    /// `Truncated` if it ended within a frame. A stream that was refused has nothing to add.
    pub fn finish(&self) -> Result<(), Refusal> {
        let held = self.held_size();
        if held == 0 {
            return Ok(());
        }
        let needed = self
            .pending_header()
            .map_or(HEADER_SIZE, |header| header.frame_size());
        Err(Refusal::Truncated { held, needed })
    }

    /// Header of a frame that is still to be given out, if it is there.
    fn pending_header(&self) -> Option<FrameHeader> {
        if self.lent_size == 0 {
            self.header
        } else {
            None
        }
    }

    fn consume_lent(&mut self) {
        if self.lent_size == 0 {
            return;
        }
        self.held.consume(self.lent_size);
        self.lent_size = 0;
        self.header = None;
        self.scratch.clear();
        if self.scratch.capacity() > SCRATCH_SIZE_MAX {
            self.scratch = AlignedVec::new();
        }
    }

    /// The front frame's header, once the frame is whole and all but its structure is checked.
    fn collect(&mut self) -> Result<Option<FrameHeader>, Refusal> {
        assert_eq!(self.lent_size, 0);
        let Some(header) = self.collect_header()? else {
            return Ok(None);
        };
        if self.held.size() < header.frame_size() {
            return Ok(None);
        }
        self.collect_body(&header);
        self.check_body(&header)?;
        self.check_payload_padding(&header)?;
        Ok(Some(header))
    }

    fn collect_header(&mut self) -> Result<Option<FrameHeader>, Refusal> {
        if self.header.is_some() {
            return Ok(self.header);
        }
        if self.held.size() < HEADER_SIZE {
            // A stranger may wait for an answer long before it has sent a header's worth.
            if let Some(magic) = self.first::<{ MAGIC.len() }>() {
                judge_magic(magic)?;
            }
            return Ok(None);
        }
        if let Some(bytes) = self.first::<HEADER_SIZE>() {
            let header = FrameHeader::read(&bytes)?;
            self.policy.judge(&header)?;
            if !bugs::is_on(Switch::B80) {
                self.gate.judge(header.kind)?;
            }
            self.header = Some(header);
        }
        Ok(self.header)
    }

    /// A copy of the first bytes held, if there are as many.
    fn first<const SIZE: usize>(&self) -> Option<[u8; SIZE]> {
        if self.held.size() < SIZE {
            return None;
        }
        let mut bytes = [0; SIZE];
        let mut at = 0;
        for chunk in self.held.view(0, SIZE).chunks() {
            bytes[at..at + chunk.len()].copy_from_slice(chunk);
            at += chunk.len();
        }
        assert_eq!(at, SIZE);
        Some(bytes)
    }

    /// Makes the body contiguous and aligned, if it is not.
    fn collect_body(&mut self, header: &FrameHeader) {
        if self.body_in_place(header).is_some() {
            return;
        }
        self.scratch.clear();
        for chunk in self
            .held
            .view(HEADER_SIZE, padded(header.body_size as usize))
            .chunks()
        {
            self.scratch.extend_from_slice(chunk);
        }
    }

    /// The body with its padding as it was received, if it lies so that it can be read.
    fn body_in_place(&self, header: &FrameHeader) -> Option<&[u8]> {
        let size = padded(header.body_size as usize);
        let bytes = self.held.view(HEADER_SIZE, size).chunks().next()?;
        let aligned = bytes.as_ptr().addr().is_multiple_of(FRAME_ALIGN);
        (aligned && bytes.len() == size).then_some(bytes)
    }

    /// The body with its padding, after `collect_body`.
    fn body(&self, header: &FrameHeader) -> &[u8] {
        self.body_in_place(header).unwrap_or(&self.scratch)
    }

    fn check_body(&self, header: &FrameHeader) -> Result<(), Refusal> {
        let (body, padding) = self.body(header).split_at(header.body_size as usize);
        let (named, found) = (header.body_sum, crc32c(body));
        if named != found {
            return Err(Refusal::BodySum {
                kind: header.kind,
                named,
                found,
            });
        }
        if padding.iter().any(|byte| *byte != 0) {
            return Err(Refusal::ReservedBits {
                place: Reserved::BodyPadding,
            });
        }
        Ok(())
    }

    fn check_payload_padding(&self, header: &FrameHeader) -> Result<(), Refusal> {
        let size = header.payload_size as usize;
        let padding = self
            .held
            .view(header.payload_at() + size, padded(size) - size);
        if padding.chunks().flatten().any(|byte| *byte != 0) {
            return Err(Refusal::ReservedBits {
                place: Reserved::PayloadPadding,
            });
        }
        Ok(())
    }

    fn front(&self, header: FrameHeader) -> Frame<'_> {
        let body = &self.body(&header)[..header.body_size as usize];
        let payload = self
            .held
            .view(header.payload_at(), header.payload_size as usize);
        Frame::new(header, body, payload)
    }
}
