//! Requests that left and the answers that are due.
//!
//! Keeps what each request number stands for, by connection, and since when a connection owes an
//! answer. Writes frames. Knows no meaning of a request.

use std::collections::BTreeMap;

use bytes::{Bytes, BytesMut};

use super::effects::{Effect, Effects};
use super::sealed::Name;
use crate::frame::header::ClusterTag;
use crate::frame::message::Body;
use crate::frame::writer::{FrameWriter, PayloadClaim};
use crate::id::{ConnectionId, GroupId, Nanos, RequestId};

/// Heads of frames are cut from one allocation of this size after the other.
const SCRATCH_SIZE: usize = 16 << 10;

/// What a request asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// An append of that name.
    Append(GroupId, Name),
    /// A fetch or a transfer with that number.
    Ask(GroupId, u64),
    /// Who leads the group.
    Probe(GroupId),
    /// The node's status, for the survey with that number.
    Status(u64),
}

/// Everything that is under way to nodes.
#[derive(Debug)]
pub(super) struct Post {
    writer: FrameWriter,
    scratch: BytesMut,
    next_request: u64,
    asked: BTreeMap<(ConnectionId, RequestId), Asked>,
    /// Connections that owe an answer, and since when nothing was heard of them.
    owing: BTreeMap<ConnectionId, Nanos>,
}

impl Post {
    pub(super) fn new() -> Self {
        Self {
            writer: FrameWriter::new(ClusterTag::UNKNOWN),
            scratch: BytesMut::new(),
            next_request: 1,
            asked: BTreeMap::new(),
            owing: BTreeMap::new(),
        }
    }

    /// From now on all frames carry this cluster's tag.
    pub(super) fn on_cluster(&mut self, tag: ClusterTag) {
        self.writer = FrameWriter::new(tag);
    }

    /// A number for a request that is about to be sent.
    pub(super) fn ask(&mut self, now: Nanos, connection: ConnectionId, asked: Asked) -> RequestId {
        let request = RequestId(self.next_request);
        self.next_request += 1;
        self.asked.insert((connection, request), asked);
        self.owing.entry(connection).or_insert(now);
        request
    }

    pub(super) fn send<B: Body>(
        &mut self,
        connection: ConnectionId,
        body: &B,
        effects: &mut Effects,
    ) {
        self.send_with_payload(
            connection,
            body,
            PayloadClaim::default(),
            Vec::new(),
            effects,
        );
    }

    /// `payload` ends with its padding.
    pub(super) fn send_with_payload<B: Body>(
        &mut self,
        connection: ConnectionId,
        body: &B,
        claim: PayloadClaim,
        payload: Vec<Bytes>,
        effects: &mut Effects,
    ) {
        if self.scratch.capacity() < 512 {
            self.scratch = BytesMut::with_capacity(SCRATCH_SIZE);
        }
        self.writer
            .write_with_payload(body, claim, &mut self.scratch);
        effects.push(Effect::Send {
            connection,
            head: self.scratch.split().freeze(),
            payload,
        });
    }

    /// What an answer answers; `None` if nothing was asked under that number there.
    pub(super) fn on_answer(
        &mut self,
        now: Nanos,
        connection: ConnectionId,
        request: RequestId,
    ) -> Option<Asked> {
        let asked = self.asked.remove(&(connection, request))?;
        if self.of(connection).next().is_some() {
            self.owing.insert(connection, now);
        } else {
            self.owing.remove(&connection);
        }
        Some(asked)
    }

    fn of(&self, connection: ConnectionId) -> impl Iterator<Item = RequestId> + '_ {
        let range = (connection, RequestId(0))..=(connection, RequestId(u64::MAX));
        self.asked.range(range).map(|((_, request), _)| *request)
    }

    /// A connection is gone: nothing is owed on it any more.
    pub(super) fn on_closed(&mut self, connection: ConnectionId) {
        let lost: Vec<_> = self.of(connection).collect();
        for request in lost {
            self.asked.remove(&(connection, request));
        }
        self.owing.remove(&connection);
    }

    /// A connection that has owed an answer for longer than `silence`.
    pub(super) fn silent(&self, now: Nanos, silence: Nanos) -> Option<ConnectionId> {
        let mut owing = self.owing.iter();
        owing
            .find(|(_, since)| since.after(silence) <= now)
            .map(|(connection, _)| *connection)
    }

    /// Since when the connection that has been silent for longest owes an answer.
    pub(super) fn oldest_owing(&self) -> Option<Nanos> {
        self.owing.values().min().copied()
    }
}
