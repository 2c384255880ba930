//! Why bytes that came from outside are not a frame: one variant for each misdeed.
//!
//! A refusal is the peer's fault or the wire's, never a bug here and never a panic. It ends the
//! stream it arose on, because after it nobody knows where the next frame begins; nothing else
//! changes. Knows no connection.

use std::fmt;

use super::code::RefusedReason;
use super::header::{ClusterTag, VERSION};
use super::{Kind, Lane};

/// Why a stream of bytes is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The first four bytes are not a frame's. Judged as soon as four bytes are there.
    NotAFrame {
        /// The bytes found.
        found: [u8; 4],
        /// Whom they look like.
        stranger: Stranger,
    },
    /// The header is damaged: its sum does not fit.
    HeaderSum {
        /// The sum that the header names.
        named: u32,
        /// The sum that it has.
        found: u32,
    },
    /// The header is sound but of a version that this program does not read.
    UnknownVersion {
        /// The version named.
        found: u8,
    },
    /// A byte that has no meaning in this version is not zero.
    ReservedBits {
        /// Where it stands.
        place: Reserved,
    },
    /// The kind is none of this version's.
    UnknownKind {
        /// The kind named.
        found: u8,
    },
    /// The body is longer than its kind allows. Nothing was allocated for it.
    BodyOversized {
        /// What the frame claims to be.
        kind: Kind,
        /// Bytes named.
        size: u32,
        /// Bytes allowed.
        size_max: u32,
    },
    /// The payload is longer than its kind allows. Nothing was allocated for it.
    PayloadOversized {
        /// What the frame claims to be.
        kind: Kind,
        /// Bytes named.
        size: u32,
        /// Bytes allowed.
        size_max: u32,
    },
    /// The frame belongs to another cluster.
    WrongCluster {
        /// Tag of this cluster; unknown if any but "unknown" would do.
        expected: ClusterTag,
        /// Tag named.
        found: ClusterTag,
    },
    /// The kind is known, but has no place on this connection. Nothing of its body was read.
    Misplaced {
        /// What the frame claims to be.
        kind: Kind,
        /// What the connection is for; none before its hello.
        lane: Option<Lane>,
    },
    /// The body is damaged: its sum does not fit.
    BodySum {
        /// What the frame claims to be.
        kind: Kind,
        /// The sum that the header names.
        named: u32,
        /// The sum that the body has.
        found: u32,
    },
    /// The body's sum fits but its structure is not its kind's; or it is too short to have it.
    Malformed {
        /// What the frame claims to be.
        kind: Kind,
    },
    /// The stream ended within a frame.
    Truncated {
        /// Bytes of the frame that did arrive.
        held: usize,
        /// Bytes that it needed, as far as known: a header's if not even that arrived.
        needed: usize,
    },
}

/// Whom the first bytes look like, so that the message can say what was pointed where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stranger {
    /// An HTTP request or answer.
    Http,
    /// The beginning of a TLS handshake.
    Tls,
    /// Nobody known.
    Unknown,
}

impl Stranger {
    /// Judges by the first four bytes of a connection.
    #[must_use]
    pub const fn of(first: [u8; 4]) -> Self {
        match &first {
            b"GET " | b"HEAD" | b"POST" | b"PUT " | b"DELE" | b"OPTI" | b"PATC" | b"CONN"
            | b"TRAC" | b"PRI " | b"HTTP" => Self::Http,
            // Record type 22 (handshake), version 3.0 to 3.4.
            [0x16, 0x03, 0x00..=0x04, _] => Self::Tls,
            _ => Self::Unknown,
        }
    }
}

/// Places whose bytes must be zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reserved {
    /// The header's reserved field.
    Header,
    /// The payload's sum, in a kind that has none.
    PayloadSum,
    /// Between body and payload.
    BodyPadding,
    /// Between payload and the next frame.
    PayloadPadding,
}

impl Refusal {
    /// What to tell the other side before the connection is closed.
    #[must_use]
    pub const fn reason(&self) -> RefusedReason {
        match self {
            Self::NotAFrame { .. } => RefusedReason::NotAFrame,
            Self::UnknownVersion { .. } => RefusedReason::UnsupportedVersion,
            Self::UnknownKind { .. } => RefusedReason::UnexpectedKind,
            Self::Misplaced { lane: None, .. }
            | Self::Misplaced {
                kind: Kind::Hello, ..
            } => RefusedReason::HelloMisplaced,
            Self::Misplaced { .. } => RefusedReason::UnexpectedKind,
            Self::WrongCluster { .. } => RefusedReason::WrongCluster,
            Self::HeaderSum { .. }
            | Self::ReservedBits { .. }
            | Self::BodyOversized { .. }
            | Self::PayloadOversized { .. }
            | Self::BodySum { .. }
            | Self::Malformed { .. }
            | Self::Truncated { .. } => RefusedReason::BadFrame,
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::NotAFrame {
                stranger: Stranger::Http,
                ..
            } => f.write_str("this is HTTP, but the port speaks Ringwood frames"),
            Self::NotAFrame {
                stranger: Stranger::Tls,
                ..
            } => f.write_str("this is a TLS handshake, but the port speaks plain Ringwood frames"),
            Self::NotAFrame {
                found,
                stranger: Stranger::Unknown,
            } => {
                let [a, b, c, d] = found;
                write!(f, "no frame begins with {a:02x} {b:02x} {c:02x} {d:02x}")
            }
            Self::HeaderSum { named, found } => {
                write!(
                    f,
                    "header damaged: sum is {found:08x}, should be {named:08x}"
                )
            }
            Self::UnknownVersion { found } => {
                write!(f, "frame version {found}, this program reads {VERSION}")
            }
            Self::ReservedBits { place } => {
                let place = match place {
                    Reserved::Header => "the header's reserved field",
                    Reserved::PayloadSum => "the sum of a payload that has none",
                    Reserved::BodyPadding => "the padding after a body",
                    Reserved::PayloadPadding => "the padding after a payload",
                };
                write!(f, "{place} is not zero")
            }
            Self::UnknownKind { found } => write!(f, "unknown kind of frame: {found}"),
            Self::BodyOversized {
                kind,
                size,
                size_max,
            } => {
                write!(f, "body of {kind} has {size} bytes, allowed are {size_max}")
            }
            Self::PayloadOversized {
                kind,
                size,
                size_max,
            } => {
                write!(
                    f,
                    "payload of {kind} has {size} bytes, allowed are {size_max}"
                )
            }
            Self::Misplaced { kind, lane: None } => {
                write!(f, "the first frame must be a hello, not {kind}")
            }
            Self::Misplaced {
                kind,
                lane: Some(lane),
            } => {
                write!(f, "{kind} has no place on a connection for {lane}")
            }
            Self::WrongCluster {
                found: ClusterTag::UNKNOWN,
                ..
            } => f.write_str("frame names no cluster"),
            Self::WrongCluster { expected, found } => {
                write!(f, "frame of cluster {found}, expected {expected}")
            }
            Self::BodySum { kind, named, found } => {
                write!(
                    f,
                    "body of {kind} damaged: sum is {found:08x}, should be {named:08x}"
                )
            }
            Self::Malformed { kind } => write!(f, "body of {kind} is malformed"),
            Self::Truncated { held, needed } => {
                write!(f, "stream ended after {held} of a frame's {needed} bytes")
            }
        }
    }
}

impl std::error::Error for Refusal {}
