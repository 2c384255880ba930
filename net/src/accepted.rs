//! The turn's part for accepted connections: they come, bring bytes, take too long, and end.
//!
//! `conn` keeps them; what a frame or a misdeed means is the shard's.

use ringwood_core::frame::code::RefusedReason;
use ringwood_core::id::{ConnectionId, Nanos};
use ringwood_core::limits::STRANGER_COUNT_MAX;
use ringwood_core::shard::Input;

use crate::conn;
use crate::patience::{self, Overdue, SWEEP_INTERVAL};
use crate::ring::{IoError, Outcome};
use crate::turn::{Job, Turn};

/// How long a listener that had no descriptor left waits before it accepts again.
const ACCEPT_PAUSE: Nanos = Nanos::from_millis(50);

impl Turn {
    pub(crate) fn on_accepted(&mut self, now: Nanos, more: bool, result: Result<Outcome, IoError>) {
        // Whoever says nothing makes room for whoever may: a voter must get in whatever clients do.
        let room = match result {
            Ok(Outcome::Accepted(socket)) => {
                let id = self.connections.open(now, socket);
                self.receive(id);
                STRANGER_COUNT_MAX
            }
            Err(IoError::NoDescriptors) => 0,
            _ => STRANGER_COUNT_MAX,
        };
        if let Some(oldest) = self.connections.take_stranger_beyond(room) {
            let detail = "too many connections, and this one had not said hello";
            self.refuse(now, oldest, RefusedReason::Overloaded, detail);
        }
        if !more {
            // Whatever ended the accept (no descriptor left, mostly) may pass.
            self.accept_at = Some(now.after(ACCEPT_PAUSE));
        }
    }

    fn receive(&mut self, id: ConnectionId) {
        let connection = self
            .connections
            .find(id)
            .expect("asked for an open connection");
        self.ring
            .receive(Job::Receive(id).token(), &connection.socket);
    }

    pub(crate) fn on_received(
        &mut self,
        now: Nanos,
        id: ConnectionId,
        more: bool,
        result: Result<Outcome, IoError>,
    ) {
        let Some(connection) = self.connections.find(id) else {
            return;
        };
        match result {
            Ok(Outcome::Received(lease)) if !connection.is_closing() => {
                let (shard, effects) = (&mut self.shard, &mut self.effects);
                let result = self.connections.on_received(now, id, lease, shard, effects);
                if let Err(refusal) = result {
                    match conn::answer_stranger(&refusal) {
                        Some(answer) => {
                            self.connections.close_with(now, id, answer);
                            shard.step(now, Input::ConnectionClosed(id), effects);
                        }
                        None => {
                            let input = Input::StreamRefused {
                                connection: id,
                                refusal,
                            };
                            shard.step(now, input, effects);
                        }
                    }
                }
            }
            Ok(Outcome::Received(_)) | Err(IoError::NoBuffers) => {}
            Ok(_) | Err(_) => {
                self.end_connection(now, id);
                return;
            }
        }
        if !more {
            self.receive(id);
        }
    }

    pub(crate) fn on_sent(
        &mut self,
        now: Nanos,
        id: ConnectionId,
        result: Result<Outcome, IoError>,
    ) {
        if result.is_err() || self.connections.on_sent(id) {
            self.end_connection(now, id);
        }
    }

    /// Ends the patience with whoever let something due pass.
    pub(crate) fn sweep(&mut self, now: Nanos) {
        if now < self.sweep_at {
            return;
        }
        let late = now.since(self.sweep_at);
        self.sweep_at = now.after(SWEEP_INTERVAL);
        if let Some(stall) = patience::stall(late) {
            // What was due may have come meanwhile: there is time to read it until the next sweep.
            self.connections.excuse(now, stall);
            return;
        }
        for (id, overdue) in self.connections.overdue(now) {
            match overdue {
                Overdue::Refuse(detail) => self.refuse(now, id, Overdue::REASON, detail),
                Overdue::End => self.end_connection(now, id),
            }
        }
    }

    /// The shard says why, and closes.
    pub(crate) fn refuse(
        &mut self,
        now: Nanos,
        connection: ConnectionId,
        reason: RefusedReason,
        detail: &str,
    ) {
        let input = Input::ConnectionRefused {
            connection,
            reason,
            detail,
        };
        self.shard.step(now, input, &mut self.effects);
    }

    /// An accepted connection is over; its operations in flight complete into nothing.
    pub(crate) fn end_connection(&mut self, now: Nanos, id: ConnectionId) {
        if let Some(connection) = self.connections.remove(id) {
            self.ring.close(&connection.socket);
            self.shard
                .step(now, Input::ConnectionClosed(id), &mut self.effects);
        }
    }
}
