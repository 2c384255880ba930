//! A node's links to its peers as a real node has them: one connection per lane, dialled by whoever
//! sends on it, redialled with a growing pause. A refused redial means that the process is gone.

use crate::frame::Lane;
use crate::id::Nanos;

use super::network::{Party, StreamId};

/// The lanes between nodes, by their numbers here.
pub(super) const LANES: [Lane; 3] = [Lane::Control, Lane::Data, Lane::Bulk];

const PAUSE_MIN: Nanos = Nanos::from_millis(5);

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
    pause: Nanos,
    pause_max: Nanos,
}

impl Link {
    pub(super) fn new(now: Nanos, peer: Party, lane: Lane, pause_max: Nanos) -> Self {
        Self {
            peer,
            lane,
            state: LinkState::Waiting { until: now },
            pause: PAUSE_MIN,
            pause_max,
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

    pub(super) fn on_connected(&mut self, stream: StreamId) {
        assert_eq!(
            self.state,
            LinkState::Dialling(stream),
            "connected without dialling"
        );
        self.pause = PAUSE_MIN;
        self.state = LinkState::Up(stream);
    }

    /// The connection, or the try to make one, is over. What stood is redialled at once, what did
    /// not stand after a pause.
    pub(super) fn on_lost(&mut self, now: Nanos) {
        let until = match self.state {
            LinkState::Up(_) => now,
            LinkState::Dialling(_) => {
                let until = now.after(self.pause);
                self.pause = Nanos((self.pause.0 * 2).min(self.pause_max.0));
                until
            }
            LinkState::Waiting { .. } => panic!("nothing was there to be lost"),
        };
        self.state = LinkState::Waiting { until };
    }
}
