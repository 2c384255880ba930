//! The door out: what a turn wants done. Everything listed may be done at once and in any order;
//! what must wait for a write stays inside the shard until that write is reported.

use bytes::Bytes;

use crate::frame::Lane;
use crate::id::{ConnectionId, GroupId, NodeId};
use crate::log::Store;

/// One read, given back with its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LoadId(pub u64);

/// One segment write, given back when durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SegmentWriteId(pub u64);

/// Where a read finds its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// A file of the journal's ring.
    Journal {
        /// Which of the ring's files.
        slot: u32,
    },
    /// A segment of a log.
    Segment {
        /// The log's group.
        group: GroupId,
        /// Number of the segment, dense from 0.
        number: u32,
    },
    /// What is known of starts; see `log::pins`.
    Pins,
    /// How far the journal was durable; see `log::persist`.
    Persist,
}

/// A frame on its way out: header and body, then payload slices, which together are a multiple of
/// the frame alignment (blocks are), so nothing follows them.
#[derive(Clone, Debug)]
pub struct Outgoing {
    /// Encoded header and body with its padding.
    pub head: Bytes,
    /// Slices of runs, sent verbatim.
    pub payload: Vec<Bytes>,
}

impl Outgoing {
    /// Bytes on the wire.
    #[must_use]
    pub fn size(&self) -> usize {
        self.head.len() + self.payload.iter().map(Bytes::len).sum::<usize>()
    }
}

/// Something to do.
#[derive(Debug)]
pub enum Effect {
    /// Send to a peer on a lane; dropped if the link is down (Raft sends again).
    Send {
        /// The peer.
        to: NodeId,
        /// On which of its streams.
        lane: Lane,
        /// What.
        frame: Outgoing,
    },
    /// Answer on an accepted connection; dropped if it is gone.
    Reply {
        /// The connection.
        connection: ConnectionId,
        /// What.
        frame: Outgoing,
        /// What is answered in its place if that would be too much of what waits there to be sent.
        or_busy: Option<Outgoing>,
    },
    /// Close an accepted connection once what was sent on it has left.
    Close(ConnectionId),
    /// Write sealed runs durably into a journal file.
    Store(Store),
    /// Write one sector durably into the file of pins; one at a time.
    StorePins {
        /// Byte position.
        position: u64,
        /// The sector.
        sector: Bytes,
    },
    /// Write one sector durably into the file of the persist record; one at a time.
    StorePersist {
        /// Byte position.
        position: u64,
        /// The sector.
        sector: Bytes,
    },
    /// Write durably into a segment file, which is created when it does not exist.
    SegmentWrite {
        /// Given back when durable.
        write: SegmentWriteId,
        /// The log's group.
        group: GroupId,
        /// Number of the segment.
        number: u32,
        /// Byte position, a multiple of the sector size.
        position: u64,
        /// What, a multiple of the sector size in all.
        buffer: Bytes,
    },
    /// Write into the file that is to take a segment's place, made anew at position 0. It comes back
    /// like a segment write; a crash may leave anything of it.
    SegmentMend {
        /// Given back when written.
        write: SegmentWriteId,
        /// The log's group.
        group: GroupId,
        /// Number of the segment.
        number: u32,
        /// Byte position, a multiple of the sector size.
        position: u64,
        /// What, a multiple of the sector size.
        buffer: Bytes,
    },
    /// Make that file durable, then put it in the segment's place, durably: as a whole, or not at all.
    SegmentReplace {
        /// Given back when done.
        write: SegmentWriteId,
        /// The log's group.
        group: GroupId,
        /// Number of the segment.
        number: u32,
    },
    /// Delete that file, if it is there: it will not take the segment's place. Nothing comes back; what
    /// a crash leaves of it is deleted at the next start.
    SegmentDiscard {
        /// The log's group.
        group: GroupId,
        /// Number of the segment.
        number: u32,
    },
    /// Something that whoever runs the node should see, in a sentence.
    Notice(String),
    /// Delete a group's segments below a number, those that are there. May be done at any time, or be
    /// cut off by a crash: it is asked for again at the next start.
    SegmentRemove {
        /// The log's group.
        group: GroupId,
        /// Number of the first segment that stays.
        below: u32,
    },
    /// Read from a file: position and size are multiples of the sector size.
    Load {
        /// Given back with the bytes.
        load: LoadId,
        /// Which file.
        source: Source,
        /// Byte position.
        position: u64,
        /// Bytes wanted.
        size: usize,
    },
}

/// The list a turn's effects are collected in; drained after every `TurnEnd`.
#[derive(Debug, Default)]
pub struct Effects {
    /// In the order they arose.
    pub list: Vec<Effect>,
}

impl Effects {
    pub(super) fn push(&mut self, effect: Effect) {
        self.list.push(effect);
    }
}
