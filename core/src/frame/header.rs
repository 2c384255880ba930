//! The header that every frame begins with.
//!
//! Keeps the layout of its 32 bytes and judges them one at a time. Knows no body, no stream and no
//! cluster but by its tag. All numbers are little endian.
//!
//! ```text
//!       0       1       2       3       4       5       6       7
//!   0 | magic "RNGW"                  | header_sum                    |
//!   8 | version | kind  | reserved    | body_size                     |
//!  16 | payload_size                  | payload_sum                   |
//!  24 | body_sum                      | cluster_tag                   |
//!  32 | body, zeros up to a multiple of 16 | payload, zeros likewise  |
//! ```
//!
//! `header_sum` covers bytes 8 to 31. Magic, `header_sum` and `version` keep their place and
//! meaning in all versions, so that a program can tell a frame of the future from a damaged one.

use std::fmt;

use super::Kind;
use super::message::{body_size_max, body_size_min};
use super::refusal::{Refusal, Reserved, Stranger};
use super::sum::crc32c;
use crate::id::ClusterId;
use crate::limits::{FRAME_ALIGN, FRAME_BODY_SIZE_MAX, FRAME_PAYLOAD_SIZE_MAX};

/// First four bytes of every frame.
pub const MAGIC: [u8; 4] = *b"RNGW";

/// The frame version that this program writes, and the only one it reads.
pub const VERSION: u8 = 1;

const MAGIC_AT: usize = 0;
const HEADER_SUM_AT: usize = MAGIC_AT + size_of::<u32>();
const VERSION_AT: usize = HEADER_SUM_AT + size_of::<u32>();
const KIND_AT: usize = VERSION_AT + size_of::<u8>();
const RESERVED_AT: usize = KIND_AT + size_of::<u8>();
const BODY_SIZE_AT: usize = RESERVED_AT + size_of::<u16>();
const PAYLOAD_SIZE_AT: usize = BODY_SIZE_AT + size_of::<u32>();
const PAYLOAD_SUM_AT: usize = PAYLOAD_SIZE_AT + size_of::<u32>();
const BODY_SUM_AT: usize = PAYLOAD_SUM_AT + size_of::<u32>();
const CLUSTER_TAG_AT: usize = BODY_SUM_AT + size_of::<u32>();

/// Bytes of a header.
pub const HEADER_SIZE: usize = CLUSTER_TAG_AT + size_of::<u32>();

/// Bytes of the largest frame of all.
pub const FRAME_SIZE_MAX: usize =
    HEADER_SIZE + padded(FRAME_BODY_SIZE_MAX) + padded(FRAME_PAYLOAD_SIZE_MAX);

const _: () = assert!(HEADER_SIZE == 32);
// A body begins as aligned as its frame does.
const _: () = assert!(HEADER_SIZE.is_multiple_of(FRAME_ALIGN));
// Sizes are 32 bits on the wire; a whole frame's must not overflow on the way to `usize`.
const _: () = assert!(FRAME_SIZE_MAX < u32::MAX as usize);

/// `size` rounded up to the alignment of frames.
#[must_use]
pub const fn padded(size: usize) -> usize {
    size.next_multiple_of(FRAME_ALIGN)
}

/// A cluster, folded to 32 bits: guards against crossed wires, not against malice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClusterTag(u32);

impl ClusterTag {
    /// Of a client that does not know its cluster yet. Only its hello may carry it.
    pub const UNKNOWN: Self = Self(0);

    /// The tag of a cluster; unknown for the cluster id zero, and for that alone.
    #[must_use]
    pub fn of(cluster: ClusterId) -> Self {
        if cluster == ClusterId(0) {
            return Self::UNKNOWN;
        }
        // One cluster in four billion would get the reserved zero; it gets a one.
        Self(crc32c(&cluster.0.to_le_bytes()).max(1))
    }
}

impl fmt::Display for ClusterTag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", self.0)
    }
}

/// A header whose every field has been judged, but for the cluster, which the stream's owner knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHeader {
    /// What the frame is.
    pub kind: Kind,
    /// Bytes of the body without padding.
    pub body_size: u32,
    /// Bytes of the payload without padding.
    pub payload_size: u32,
    /// CRC-32C of the payload where the kind has one; not checked with the header.
    pub payload_sum: u32,
    /// CRC-32C of the body without padding; not checked with the header.
    pub body_sum: u32,
    /// Cluster that the frame belongs to.
    pub cluster_tag: ClusterTag,
}

impl FrameHeader {
    /// Reads the header at the beginning of `bytes`. Allocates nothing.
    ///
    /// # Errors
    ///
    /// The first that applies: `Truncated` (fewer than [`HEADER_SIZE`] bytes), `NotAFrame`,
    /// `HeaderSum`, `UnknownVersion`, `ReservedBits`, `UnknownKind`, `BodyOversized`,
    /// `Malformed` (a body too short for its kind), `PayloadOversized`.
    pub fn read(bytes: &[u8]) -> Result<Self, Refusal> {
        let Some((bytes, _)) = bytes.split_first_chunk::<HEADER_SIZE>() else {
            return Err(Refusal::Truncated {
                held: bytes.len(),
                needed: HEADER_SIZE,
            });
        };
        judge_magic(array_at(bytes, MAGIC_AT))?;
        let (named, found) = (u32_at(bytes, HEADER_SUM_AT), crc32c(&bytes[VERSION_AT..]));
        if named != found {
            return Err(Refusal::HeaderSum { named, found });
        }
        if bytes[VERSION_AT] != VERSION {
            return Err(Refusal::UnknownVersion {
                found: bytes[VERSION_AT],
            });
        }
        if array_at(bytes, RESERVED_AT) != [0; 2] {
            return Err(Refusal::ReservedBits {
                place: Reserved::Header,
            });
        }
        let found = bytes[KIND_AT];
        let kind = Kind::from_code(found).ok_or(Refusal::UnknownKind { found })?;
        let header = Self {
            kind,
            body_size: u32_at(bytes, BODY_SIZE_AT),
            payload_size: u32_at(bytes, PAYLOAD_SIZE_AT),
            payload_sum: u32_at(bytes, PAYLOAD_SUM_AT),
            body_sum: u32_at(bytes, BODY_SUM_AT),
            cluster_tag: ClusterTag(u32_at(bytes, CLUSTER_TAG_AT)),
        };
        header.judge()?;
        Ok(header)
    }

    /// What the fields may be for this kind.
    fn judge(&self) -> Result<(), Refusal> {
        let Self {
            kind,
            body_size,
            payload_size,
            ..
        } = *self;
        let size_max = body_size_max(kind) as u32;
        if body_size > size_max {
            return Err(Refusal::BodyOversized {
                kind,
                size: body_size,
                size_max,
            });
        }
        if (body_size as usize) < body_size_min(kind) {
            return Err(Refusal::Malformed { kind });
        }
        let size_max = kind.payload_size_max() as u32;
        if payload_size > size_max {
            return Err(Refusal::PayloadOversized {
                kind,
                size: payload_size,
                size_max,
            });
        }
        if self.payload_sum != 0 && !kind.has_payload_sum() {
            return Err(Refusal::ReservedBits {
                place: Reserved::PayloadSum,
            });
        }
        Ok(())
    }

    /// The header's bytes, stamped with version and sum.
    ///
    /// # Panics
    ///
    /// If a reader would refuse what is written: a bug here, not the peer's.
    #[must_use]
    pub fn write(&self) -> [u8; HEADER_SIZE] {
        assert_eq!(self.judge(), Ok(()), "this frame would be refused");
        let mut bytes = [0; HEADER_SIZE];
        let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
        put(MAGIC_AT, &MAGIC);
        put(VERSION_AT, &[VERSION]);
        put(KIND_AT, &[self.kind.code()]);
        put(BODY_SIZE_AT, &self.body_size.to_le_bytes());
        put(PAYLOAD_SIZE_AT, &self.payload_size.to_le_bytes());
        put(PAYLOAD_SUM_AT, &self.payload_sum.to_le_bytes());
        put(BODY_SUM_AT, &self.body_sum.to_le_bytes());
        put(CLUSTER_TAG_AT, &self.cluster_tag.0.to_le_bytes());
        let sum = crc32c(&bytes[VERSION_AT..]);
        bytes[HEADER_SUM_AT..VERSION_AT].copy_from_slice(&sum.to_le_bytes());
        bytes
    }

    /// Byte of the frame at which the payload begins.
    #[must_use]
    pub fn payload_at(&self) -> usize {
        HEADER_SIZE + padded(self.body_size as usize)
    }

    /// Bytes of the whole frame, header and padding included.
    #[must_use]
    pub fn frame_size(&self) -> usize {
        self.payload_at() + padded(self.payload_size as usize)
    }
}

/// Whether a frame may begin with these four bytes.
///
/// # Errors
///
/// `NotAFrame`, which says whom the bytes look like.
pub fn judge_magic(found: [u8; 4]) -> Result<(), Refusal> {
    if found == MAGIC {
        return Ok(());
    }
    Err(Refusal::NotAFrame {
        found,
        stranger: Stranger::of(found),
    })
}

fn array_at<const SIZE: usize>(bytes: &[u8; HEADER_SIZE], at: usize) -> [u8; SIZE] {
    std::array::from_fn(|i| bytes[at + i])
}

fn u32_at(bytes: &[u8; HEADER_SIZE], at: usize) -> u32 {
    u32::from_le_bytes(array_at(bytes, at))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> FrameHeader {
        FrameHeader {
            kind: Kind::Append,
            body_size: 40,
            payload_size: 100,
            payload_sum: 0x1122_3344,
            body_sum: 0x5566_7788,
            cluster_tag: ClusterTag(0x99AA_BBCC),
        }
    }

    /// A sample with one byte changed and the sum put right again.
    fn changed(at: usize, value: &[u8]) -> Result<FrameHeader, Refusal> {
        let mut bytes = sample().write();
        bytes[at..at + value.len()].copy_from_slice(value);
        let sum = crc32c(&bytes[VERSION_AT..]);
        bytes[HEADER_SUM_AT..VERSION_AT].copy_from_slice(&sum.to_le_bytes());
        FrameHeader::read(&bytes)
    }

    #[test]
    fn a_header_reads_back_as_written() {
        assert_eq!(FrameHeader::read(&sample().write()), Ok(sample()));
    }

    #[test]
    fn every_flipped_bit_is_refused() {
        let bytes = sample().write();
        for bit in 0..HEADER_SIZE * 8 {
            let mut flipped = bytes;
            flipped[bit / 8] ^= 1 << (bit % 8);
            let refusal = FrameHeader::read(&flipped).unwrap_err();
            match bit / 8 {
                0..HEADER_SUM_AT => assert!(matches!(refusal, Refusal::NotAFrame { .. })),
                _ => assert!(matches!(refusal, Refusal::HeaderSum { .. }), "bit {bit}"),
            }
        }
    }

    #[test]
    fn fewer_bytes_than_a_header_are_truncated() {
        let bytes = sample().write();
        for held in 0..HEADER_SIZE {
            let refusal = Refusal::Truncated {
                held,
                needed: HEADER_SIZE,
            };
            assert_eq!(FrameHeader::read(&bytes[..held]), Err(refusal));
        }
    }

    #[test]
    fn each_field_is_judged_under_a_right_sum() {
        assert_eq!(
            changed(VERSION_AT, &[2]),
            Err(Refusal::UnknownVersion { found: 2 })
        );
        assert_eq!(
            changed(KIND_AT, &[0]),
            Err(Refusal::UnknownKind { found: 0 })
        );
        for at in [RESERVED_AT, RESERVED_AT + 1] {
            let refusal = Refusal::ReservedBits {
                place: Reserved::Header,
            };
            assert_eq!(changed(at, &[0x80]), Err(refusal));
        }
        let kind = Kind::Append;
        let (size, size_max) = (41, 40);
        let refusal = Refusal::BodyOversized {
            kind,
            size,
            size_max,
        };
        assert_eq!(changed(BODY_SIZE_AT, &size.to_le_bytes()), Err(refusal));
        let refusal = Refusal::Malformed { kind };
        assert_eq!(changed(BODY_SIZE_AT, &39_u32.to_le_bytes()), Err(refusal));
        let size_max = kind.payload_size_max() as u32;
        let size = size_max + 1;
        let refusal = Refusal::PayloadOversized {
            kind,
            size,
            size_max,
        };
        assert_eq!(changed(PAYLOAD_SIZE_AT, &size.to_le_bytes()), Err(refusal));
        assert!(changed(PAYLOAD_SIZE_AT, &size_max.to_le_bytes()).is_ok());
        let refusal = Refusal::ReservedBits {
            place: Reserved::PayloadSum,
        };
        assert_eq!(
            changed(KIND_AT, &[Kind::AppendEntries.code()]),
            Err(refusal),
            "blocks have no payload sum"
        );
    }

    #[test]
    fn no_kind_promises_more_than_a_frame_may_hold() {
        for kind in Kind::ALL {
            assert!(body_size_max(*kind) <= FRAME_BODY_SIZE_MAX);
            assert!(body_size_min(*kind) > 0 && body_size_min(*kind) <= body_size_max(*kind));
            assert!(kind.payload_size_max() <= FRAME_PAYLOAD_SIZE_MAX);
        }
    }

    #[test]
    fn only_the_unknown_cluster_has_the_unknown_tag() {
        assert_eq!(ClusterTag::of(ClusterId(0)), ClusterTag::UNKNOWN);
        for id in 1..2000 {
            assert_ne!(ClusterTag::of(ClusterId(id << 60)), ClusterTag::UNKNOWN);
        }
        assert_ne!(ClusterTag::of(ClusterId(1)), ClusterTag::of(ClusterId(2)));
    }
}
