//! The door in: all that can happen to a shard. A turn steps every input that has arrived, then
//! `TurnEnd`; only there do timers fire, so a late loop never mistakes its own delay for silence.

use bytes::Bytes;

use crate::frame::Frame;
use crate::frame::code::RefusedReason;
use crate::frame::refusal::Refusal;
use crate::id::{ConnectionId, NodeId, UnixSeconds};
use crate::log::WriteId;

use super::effects::{LoadId, SegmentWriteId};

/// Something that happened.
#[derive(Debug)]
pub enum Input<'a> {
    /// A whole, checked frame on a connection that was accepted.
    Frame {
        /// On which connection.
        connection: ConnectionId,
        /// What it says.
        frame: &'a Frame<'a>,
    },
    /// An accepted connection ended, for whatever reason. Its answers go nowhere from now on.
    ConnectionClosed(ConnectionId),
    /// A link to this peer was established: what was in flight on the old one may be lost.
    PeerConnected(NodeId),
    /// The bytes of a connection are no frames of this cluster; it is to be told why, and closed.
    StreamRefused {
        /// Which connection.
        connection: ConnectionId,
        /// Why.
        refusal: Refusal,
    },
    /// A connection is to be told that it is not wanted any more, and closed: it took too long, or
    /// there are too many. Said once, whatever else it had done.
    ConnectionRefused {
        /// Which connection.
        connection: ConnectionId,
        /// Why.
        reason: RefusedReason,
        /// The same for people, in a sentence.
        detail: &'a str,
    },
    /// What answers at this peer's address does not take what this node sends.
    LinkRefused {
        /// Whose address.
        peer: NodeId,
        /// Why, in the words of whoever answered.
        why: &'a str,
    },
    /// The control link to this peer ended, or could not be made; nothing is known of its process.
    PeerLost(NodeId),
    /// The control link closed and the redial was refused: the peer's process is gone.
    PeerRefused(NodeId),
    /// A journal write is durable.
    Stored(WriteId),
    /// The sector of the file of pins that was under way is durable.
    PinsStored,
    /// The sector of the persist record that was under way is durable.
    PersistStored,
    /// A segment write is durable.
    SegmentStored(SegmentWriteId),
    /// A segment write was refused for want of space; nothing of it counts. It is tried again.
    SegmentRefused(SegmentWriteId),
    /// A read came back with exactly the bytes asked for, or all there are up to the file's end.
    Loaded {
        /// Which read.
        load: LoadId,
        /// What was read.
        bytes: Bytes,
    },
    /// What the wall clock says, now and then. It may go back and stand still.
    Date(UnixSeconds),
    /// This node is to stop soon: it should owe nobody anything by then.
    Stop,
    /// All that has arrived was stepped: fire timers, seal the run, send what may leave.
    TurnEnd,
}
