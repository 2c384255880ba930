//! Accepted connections: received bytes become frames for the shard, answers become bytes.
//!
//! Decides nothing but when a connection is over. Hop "bytes in" and "ack".

use std::collections::BTreeMap;

use bytes::Bytes;
use ringwood_core::frame::Frame;
use ringwood_core::frame::assembler::{Assembler, TagPolicy};
use ringwood_core::frame::header::ClusterTag;
use ringwood_core::frame::refusal::{Refusal, Stranger};
use ringwood_core::id::ConnectionId;
use ringwood_core::limits::CONNECTION_QUEUE_SIZE_MAX;

use crate::ring::{Lease, Socket};
use crate::stream::Outbox;

/// What a browser or a metrics scraper that found the wrong port is told.
const HTTP_ANSWER: &[u8] = b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\n\
    Connection: close\r\n\r\nThis port speaks Ringwood's own protocol, not HTTP. \
    Try: ringwood status --endpoints HOST:PORT\n";

/// One accepted connection.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) socket: Socket,
    pub(crate) outbox: Outbox,
    assembler: Assembler<Lease>,
    /// No more is received; it ends when what is queued has left.
    pub(crate) is_closing: bool,
    /// Its receive has not delivered its last completion.
    pub(crate) is_receiving: bool,
}

/// All accepted connections of a shard.
#[derive(Debug)]
pub(crate) struct Connections {
    list: BTreeMap<ConnectionId, Connection>,
    next: u64,
    tag: ClusterTag,
}

impl Connections {
    pub(crate) fn new(tag: ClusterTag) -> Self {
        Self {
            list: BTreeMap::new(),
            next: 1,
            tag,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.list.len()
    }

    pub(crate) fn open(&mut self, socket: Socket) -> ConnectionId {
        let id = ConnectionId(self.next);
        self.next += 1;
        let connection = Connection {
            socket,
            outbox: Outbox::new(),
            assembler: Assembler::new(TagPolicy::ExactOrHello(self.tag)),
            is_closing: false,
            is_receiving: true,
        };
        self.list.insert(id, connection);
        id
    }

    pub(crate) fn find(&mut self, id: ConnectionId) -> Option<&mut Connection> {
        self.list.get_mut(&id)
    }

    pub(crate) fn remove(&mut self, id: ConnectionId) -> Option<Connection> {
        self.list.remove(&id)
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = (ConnectionId, &mut Connection)> {
        self.list
            .iter_mut()
            .map(|(id, connection)| (*id, connection))
    }
}

impl Connection {
    /// Takes received bytes; every whole frame among them goes to `step`.
    ///
    /// # Errors
    /// Why the bytes are refused; the stream cannot be read on after that.
    pub(crate) fn on_received(
        &mut self,
        lease: Lease,
        mut step: impl FnMut(&Frame<'_>),
    ) -> Result<(), Refusal> {
        self.assembler.push(lease);
        while let Some(frame) = self.assembler.next()? {
            step(&frame);
        }
        self.assembler.detach();
        // Dropping the leases gives their buffers back to the ring.
        self.assembler.take_released().for_each(drop);
        Ok(())
    }

    /// Whether more is queued than a reader that reads could let pile up.
    pub(crate) fn is_slow_reader(&self) -> bool {
        self.outbox.size() > CONNECTION_QUEUE_SIZE_MAX
    }
}

/// The answer in a stranger's own protocol, where there is one worth giving.
pub(crate) fn answer_stranger(refusal: &Refusal) -> Option<Bytes> {
    match refusal {
        Refusal::NotAFrame {
            stranger: Stranger::Http,
            ..
        } => Some(Bytes::from_static(HTTP_ANSWER)),
        _ => None,
    }
}
