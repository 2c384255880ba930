//! Accepted connections: received bytes become frames for the shard, answers become bytes.
//!
//! Decides nothing but when a connection is over. Hop "bytes in" and "ack".

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use ringwood_core::frame::assembler::{Assembler, TagPolicy};
use ringwood_core::frame::header::ClusterTag;
use ringwood_core::frame::refusal::{Refusal, Stranger};
use ringwood_core::frame::{Gate, Lane};
use ringwood_core::id::{ConnectionId, Nanos};
use ringwood_core::limits::{CONNECTION_QUEUE_SIZE_MAX, READER_PATIENCE};
use ringwood_core::shard::{Effects, Input, Outgoing, Shard};

use crate::patience::{Overdue, Patience, Phase};
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
    patience: Patience,
    /// It does not read, and is told so.
    is_slow: bool,
}

/// All accepted connections of a shard.
#[derive(Debug)]
pub(crate) struct Connections {
    list: BTreeMap<ConnectionId, Connection>,
    /// Those that have not said hello, the oldest first.
    strangers: BTreeSet<ConnectionId>,
    /// Those that may have something to send; the others are not looked at each turn.
    ready: Vec<ConnectionId>,
    next: u64,
    tag: ClusterTag,
}

impl Connections {
    pub(crate) fn new(tag: ClusterTag) -> Self {
        Self {
            list: BTreeMap::new(),
            strangers: BTreeSet::new(),
            ready: Vec::new(),
            next: 1,
            tag,
        }
    }

    pub(crate) fn open(&mut self, now: Nanos, socket: Socket) -> ConnectionId {
        let id = ConnectionId(self.next);
        self.next += 1;
        let mut assembler = Assembler::new(TagPolicy::ExactOrHello(self.tag));
        assembler.set_gate(Gate::Hello);
        let connection = Connection {
            socket,
            outbox: Outbox::new(),
            assembler,
            patience: Patience::new(now),
            is_slow: false,
        };
        self.list.insert(id, connection);
        self.strangers.insert(id);
        id
    }

    pub(crate) fn find(&mut self, id: ConnectionId) -> Option<&mut Connection> {
        self.list.get_mut(&id)
    }

    pub(crate) fn remove(&mut self, id: ConnectionId) -> Option<Connection> {
        self.strangers.remove(&id);
        self.list.remove(&id)
    }

    /// Received bytes; every whole frame among them is stepped.
    ///
    /// # Errors
    /// Why the bytes are refused; the stream cannot be read on after that.
    pub(crate) fn on_received(
        &mut self,
        now: Nanos,
        id: ConnectionId,
        lease: Lease,
        shard: &mut Shard,
        effects: &mut Effects,
    ) -> Result<(), Refusal> {
        let Some(connection) = self.list.get_mut(&id) else {
            return Ok(());
        };
        let result = connection.on_received(now, id, lease, shard, effects);
        if connection.patience.phase() != Phase::Stranger {
            self.strangers.remove(&id);
        }
        result
    }

    /// Queues an answer, or the other one if there is one and with the first too much would be queued;
    /// none for whoever had its last word. Whether this is a reader that does not read.
    pub(crate) fn answer(
        &mut self,
        now: Nanos,
        id: ConnectionId,
        frame: Outgoing,
        or_busy: Option<Outgoing>,
    ) -> bool {
        let Some(connection) = self.list.get_mut(&id) else {
            return false;
        };
        if connection.is_closing() {
            return false;
        }
        connection.patience.on_answered(now);
        // Otherwise it is listed, or will be when the send under way has ended.
        if connection.outbox.is_empty() {
            self.ready.push(id);
        }
        // Whoever asks for much at once is to ask again. That is no reader that does not read.
        let queued = connection.outbox.size();
        let is_too_much = queued > 0 && queued + frame.size() > CONNECTION_QUEUE_SIZE_MAX;
        let is_slow = match or_busy.filter(|_| is_too_much) {
            Some(busy) => {
                connection.outbox.push(busy);
                connection.outbox.is_sending_since(now, READER_PATIENCE)
            }
            None => {
                connection.outbox.push(frame);
                is_too_much
            }
        };
        // Once: what comes then is its last word, beside which the send under way does not count.
        is_slow && !std::mem::replace(&mut connection.is_slow, is_slow)
    }

    /// No more is received; it ends when what is queued has left. Whether that is now.
    pub(crate) fn close(&mut self, now: Nanos, id: ConnectionId) -> bool {
        self.strangers.remove(&id);
        let Some(connection) = self.list.get_mut(&id) else {
            return false;
        };
        if !connection.is_closing() {
            connection.patience.enter(now, Phase::Closing);
            connection.abandon();
        }
        connection.outbox.is_empty()
    }

    /// Queues the last word to a stranger, in its own words, and closes.
    pub(crate) fn close_with(&mut self, now: Nanos, id: ConnectionId, answer: Bytes) {
        if let Some(connection) = self.list.get_mut(&id) {
            connection.outbox.push_bytes(answer);
            self.ready.push(id);
            self.close(now, id);
        }
    }

    /// A send has ended. Whether the connection ends with it.
    pub(crate) fn on_sent(&mut self, id: ConnectionId) -> bool {
        let Some(connection) = self.list.get_mut(&id) else {
            return false;
        };
        connection.outbox.on_sent();
        if !connection.outbox.is_empty() {
            self.ready.push(id);
            return false;
        }
        connection.is_closing()
    }

    /// Those that may have something to send. The list is given back for the next turn.
    pub(crate) fn take_ready(&mut self) -> Vec<ConnectionId> {
        std::mem::take(&mut self.ready)
    }

    pub(crate) fn give_back(&mut self, ready: Vec<ConnectionId>) {
        assert!(ready.is_empty() && self.ready.is_empty());
        self.ready = ready;
    }

    /// The longest without a hello, if there are more such than there is room for.
    pub(crate) fn take_stranger_beyond(&mut self, room: usize) -> Option<ConnectionId> {
        if self.strangers.len() > room {
            self.strangers.pop_first()
        } else {
            None
        }
    }

    /// Whether somebody has still to take what he was told last.
    pub(crate) fn is_closing_any(&self) -> bool {
        self.list.values().any(Connection::is_closing)
    }

    /// The loop stood still for so long, and what came meanwhile may lie unread.
    pub(crate) fn excuse(&mut self, now: Nanos, stall: Nanos) {
        for connection in self.list.values_mut() {
            connection.patience.excuse(now, stall);
        }
    }

    /// All that have let something due pass.
    pub(crate) fn overdue(&self, now: Nanos) -> Vec<(ConnectionId, Overdue)> {
        let overdue = |(id, connection): (&ConnectionId, &Connection)| {
            let is_sending = !connection.outbox.is_empty();
            let overdue = connection.patience.overdue(now, is_sending)?;
            Some((*id, overdue))
        };
        self.list.iter().filter_map(overdue).collect()
    }
}

impl Connection {
    /// No more is received; it ends when what is queued has left.
    pub(crate) fn is_closing(&self) -> bool {
        self.patience.phase() == Phase::Closing
    }

    fn on_received(
        &mut self,
        now: Nanos,
        id: ConnectionId,
        lease: Lease,
        shard: &mut Shard,
        effects: &mut Effects,
    ) -> Result<(), Refusal> {
        self.assembler.push(lease);
        let mut frame_count = 0;
        while let Some(frame) = self.assembler.next()? {
            let input = Input::Frame {
                connection: id,
                frame: &frame,
            };
            shard.step(now, input, effects);
            frame_count += 1;
            if self.patience.phase() == Phase::Stranger {
                match shard.gate(id) {
                    Some(Gate::Lane(lane)) => self.admit(now, lane),
                    // It is being refused: what came with its hello is not looked at.
                    _ => self.assembler.abandon(),
                }
            }
        }
        self.assembler.detach();
        // Dropping the leases gives their buffers back to the ring.
        self.assembler.take_released().for_each(drop);
        let is_within_frame = self.assembler.held_size() > 0;
        self.patience.on_received(now, frame_count, is_within_frame);
        Ok(())
    }

    fn admit(&mut self, now: Nanos, lane: Lane) {
        self.assembler.set_gate(Gate::Lane(lane));
        let phase = match lane {
            Lane::Client => Phase::Client,
            Lane::Control | Lane::Data | Lane::Bulk => Phase::Peer,
        };
        self.patience.enter(now, phase);
    }

    fn abandon(&mut self) {
        self.assembler.abandon();
        self.assembler.take_released().for_each(drop);
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
