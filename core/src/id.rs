//! The numbers of the system, each a type of its own, so that none can be taken for another.
//!
//! Knows no message and no rule; a number's meaning is its doc line.

use std::fmt;

macro_rules! number {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }
    };
}

number! {
    /// A cluster: 128 bits derived from its name and founding voters. Zero means "not known yet".
    ClusterId(u128)
}
number! {
    /// A node of a cluster: 64 bits derived from cluster and node name, never zero.
    NodeId(u64)
}
number! {
    /// One life of a node's data directory: random, written at `init`, never changed.
    Incarnation(u64)
}
number! {
    /// A Raft group, that is, one log. Zero is none.
    GroupId(u32)
}
number! {
    /// A shard of a node: one thread and all it owns.
    ShardId(u16)
}
number! {
    /// Raft's term (thesis 3.3), and a log's fencing token.
    Term(u64)
}
number! {
    /// Position of a block in its group; the first block has index 1, 0 is "before all".
    Index(u64)
}
number! {
    /// Position of a record in its log, dense from 0.
    Offset(u64)
}
number! {
    /// Byte position in a shard's endless journal; a multiple of the sector size. A run is named
    /// by the position it begins at.
    Lsn(u64)
}
number! {
    /// Nanoseconds: a moment of the shard's monotonic clock, or a span of it.
    Nanos(u64)
}
number! {
    /// Seconds since 1970 by some node's wall clock; 0 is unknown. Clocks differ and jump, so nothing
    /// rests on it but how long something is kept beyond need.
    UnixSeconds(u64)
}
number! {
    /// A producer of records: chosen at random by the client.
    ProducerId(u64)
}
number! {
    /// A producer's life; a higher one fences the lower.
    Epoch(u32)
}
number! {
    /// Number of a record in its producer's life and log, dense from 0.
    Sequence(u64)
}
number! {
    /// One accepted stream of a client. Never reused within a process.
    ConnectionId(u64)
}
number! {
    /// A client's number for one request on one connection.
    RequestId(u64)
}

impl Index {
    /// The index after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl Nanos {
    /// A whole number of microseconds.
    #[must_use]
    pub const fn from_micros(micros: u64) -> Self {
        Self(micros * 1_000)
    }

    /// A whole number of milliseconds.
    #[must_use]
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis * 1_000_000)
    }

    /// This moment moved later by `span`.
    #[must_use]
    pub fn after(self, span: Self) -> Self {
        Self(self.0.saturating_add(span.0))
    }

    /// The span since `earlier`; zero if that lies ahead.
    #[must_use]
    pub fn since(self, earlier: Self) -> Self {
        Self(self.0.saturating_sub(earlier.0))
    }
}
