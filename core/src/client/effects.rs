//! What a client's protocol half wants done: the one door out.
//!
//! Keeps effects in the order in which they arose. Knows nothing of how they are performed.

use std::collections::VecDeque;

use bytes::Bytes;

use super::asks::{AskError, Fetched};
use super::outcome::Outcome;
use super::survey::NodeReport;
use crate::id::{ConnectionId, Offset};

/// One thing to be done.
#[derive(Debug)]
pub enum Effect {
    /// Open a stream to an address, `host:port`; then say `Connected` or `Closed`.
    Connect {
        /// The stream's number from now on.
        connection: ConnectionId,
        /// Where to.
        address: String,
    },
    /// Send these bytes, all or none of them, after what was sent before on the connection.
    Send {
        /// Where to.
        connection: ConnectionId,
        /// The frame up to its payload.
        head: Bytes,
        /// The payload and its padding, in slices that are not copied.
        payload: Vec<Bytes>,
    },
    /// Close the connection, as soon as you like; nothing more is sent on it or heard of it.
    Close {
        /// Which.
        connection: ConnectionId,
    },
    /// What `Client::cluster` tells has changed.
    Welcomed,
    /// Records have their outcome.
    Appended {
        /// The caller's number for them.
        token: u64,
        /// Of the first of them; the others follow it.
        outcome: Outcome,
    },
    /// A fetch is over.
    Fetched {
        /// The caller's number for it.
        token: u64,
        /// What came of it.
        result: Result<Fetched, AskError>,
    },
    /// A log's start was moved, or was there already, or could not be.
    Trimmed {
        /// As in `Input::Trim`.
        token: u64,
        /// Offset of the oldest record that is kept now, or why it is not.
        result: Result<Offset, AskError>,
    },
    /// A request to hand over leadership is over.
    Transferred {
        /// The caller's number for it.
        token: u64,
        /// What came of it.
        result: Result<(), AskError>,
    },
    /// All nodes have given an account of themselves, or will not.
    Surveyed {
        /// The caller's number for it.
        token: u64,
        /// One for each node.
        reports: Vec<NodeReport>,
    },
}

/// Effects in order.
#[derive(Debug, Default)]
pub struct Effects {
    list: VecDeque<Effect>,
}

impl Effects {
    /// No effects yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The oldest effect that was not taken.
    pub fn take_next(&mut self) -> Option<Effect> {
        self.list.pop_front()
    }

    /// Whether all were taken.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    pub(super) fn push(&mut self, effect: Effect) {
        self.list.push_back(effect);
    }
}
