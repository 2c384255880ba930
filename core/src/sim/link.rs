//! A node's links to its peers as a real node has them: one connection per lane, dialled by whoever
//! sends on it, redialled with a growing pause. A refused redial means that the process is gone.

use bytes::Bytes;

use super::network::{Party, StreamId};
use crate::frame::Lane;
use crate::frame::assembler::{Assembler, TagPolicy};
use crate::frame::code::RefusedReason;
use crate::frame::message::Message;
use crate::id::Nanos;

/// The lanes between nodes, by their numbers here.
pub(super) const LANES: [Lane; 3] = [Lane::Control, Lane::Data, Lane::Bulk];

/// The first pause of a link that is redialled is this part of the longest, and each is twice the one
/// before: 5 ms as on a real node, or as much more as all else is slower.
const PAUSE_MIN_PART: u64 = 40;

/// What a link is at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LinkState {
    Waiting { until: Nanos },
    Dialling(StreamId),
    Up(StreamId),
}

/// One lane to one peer.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) peer: Party,
    pub(super) lane: Lane,
    pub(super) state: LinkState,
    /// When it was last connected.
    since: Nanos,
    pause: Nanos,
    pause_max: Nanos,
    /// What comes back: nothing, or why the other side refuses.
    assembler: Assembler<Bytes>,
}

impl Link {
    pub(super) fn new(now: Nanos, peer: Party, lane: Lane, pause_max: Nanos) -> Self {
        Self {
            peer,
            lane,
            state: LinkState::Waiting { until: now },
            since: now,
            pause: Nanos(pause_max.0 / PAUSE_MIN_PART),
            pause_max,
            assembler: Assembler::new(TagPolicy::Learn),
        }
    }

    pub(super) fn is_due(&self, now: Nanos) -> bool {
        matches!(self.state, LinkState::Waiting { until } if until <= now)
    }

    pub(super) fn due_at(&self) -> Option<Nanos> {
        match self.state {
            LinkState::Waiting { until } => Some(until),
            LinkState::Dialling(_) | LinkState::Up(_) => None,
        }
    }

    pub(super) fn stream(&self) -> Option<StreamId> {
        match self.state {
            LinkState::Up(stream) => Some(stream),
            LinkState::Waiting { .. } | LinkState::Dialling(_) => None,
        }
    }

    /// Whether the connection, or the try to make one, is this link's.
    pub(super) fn is_of(&self, stream: StreamId) -> bool {
        self.state == LinkState::Dialling(stream) || self.state == LinkState::Up(stream)
    }

    pub(super) fn on_connected(&mut self, now: Nanos, stream: StreamId) {
        assert_eq!(
            self.state,
            LinkState::Dialling(stream),
            "connected without dialling"
        );
        self.since = now;
        self.state = LinkState::Up(stream);
        self.assembler = Assembler::new(TagPolicy::Learn);
    }

    /// Bytes came back: why the other side does not take what is sent. Told once.
    pub(super) fn on_received(&mut self, bytes: Bytes) -> Option<String> {
        self.assembler.push(bytes);
        let why = match self.assembler.next() {
            Ok(None) => None,
            Ok(Some(frame)) => match frame.message() {
                Ok(Message::Refused(refused)) => {
                    let reason = RefusedReason::from_code(refused.reason.to_native());
                    let detail = String::from_utf8_lossy(&refused.detail);
                    Some(format!("{}: {detail}", reason.expect("a known reason")))
                }
                Ok(_) => panic!("a node answers a peer with {}", frame.kind()),
                Err(refusal) => Some(format!("it answers like no node: {refusal}")),
            },
            Err(refusal) => Some(format!("it answers like no node: {refusal}")),
        };
        if why.is_some() {
            self.assembler.abandon();
        }
        self.assembler.take_released().for_each(drop);
        why
    }

    /// The connection, or the try to make one, is over. What stood for a while is redialled at once;
    /// what ended as soon as it stood was refused by whoever listens there, and is dialled after a
    /// pause, as is what did not stand.
    pub(super) fn on_lost(&mut self, now: Nanos) {
        let was_up = match self.state {
            LinkState::Up(_) => true,
            LinkState::Dialling(_) => false,
            LinkState::Waiting { .. } => panic!("nothing was there to be lost"),
        };
        let until = if was_up && now.since(self.since) > self.pause_max {
            self.pause = Nanos(self.pause_max.0 / PAUSE_MIN_PART);
            now
        } else {
            let until = now.after(self.pause);
            self.pause = Nanos((self.pause.0 * 2).min(self.pause_max.0));
            until
        };
        self.state = LinkState::Waiting { until };
    }
}
