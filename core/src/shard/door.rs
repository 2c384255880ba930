//! What comes in on accepted connections: who may bring what, and the end of those who brought else.
//!
//! Judges a frame by its sender and its kind, and hands it to whoever answers it. Knows no log.

use crate::bugs::{self, Switch};
use crate::frame::code::RefusedReason;
use crate::frame::greeting::Refused;
use crate::frame::message::{DETAIL_SIZE_MAX, Message};
use crate::frame::refusal::Refusal;
use crate::frame::{Frame, Gate, Lane};
use crate::id::{ClusterId, ConnectionId, Incarnation, Nanos, NodeId};

use super::answer::Inquirer;
use super::pins::Directory;
use super::session::{self, Claim, Party};
use super::{Effect, Effects, Shard};

impl Shard {
    pub(super) fn on_frame(
        &mut self,
        now: Nanos,
        connection: ConnectionId,
        frame: &Frame<'_>,
        effects: &mut Effects,
    ) {
        // Before the first flush of this life is durable nothing recovered counts: a frame that
        // comes earlier counts as lost, and whoever sent it sends again.
        if !self.is_open() {
            return;
        }
        // Frames that came together with the one that was refused are not looked at any more.
        let party = self.sessions.party(connection);
        let Some(gate) = session::gate_of(party) else {
            return;
        };
        // By its kind alone, before its body is looked at: a client does not speak as a node (H8).
        let slips_in =
            bugs::is_on(Switch::B77) && party.is_none() && frame.kind().enters_on(Lane::Client);
        let judged = match slips_in {
            true => Ok(()),
            false => gate.judge(frame.kind()),
        };
        let message = match judged.and_then(|()| frame.message()) {
            Ok(message) => message,
            Err(refusal) => {
                self.on_stream_refused(connection, &refusal, effects);
                return;
            }
        };
        match party {
            // Its word must not count before a crash of this node could not make it forget who that
            // was: until then it counts as lost, and is said again.
            Some(Party::Peer(from, _)) if !self.known.is_pinned(from) => {}
            Some(Party::Peer(from, _)) => {
                self.on_peer_message(now, from, &message, frame, effects);
            }
            Some(Party::Client) => {
                self.on_client_message(now, connection, &message, frame, effects);
            }
            None if slips_in => {
                self.on_client_message(now, connection, &message, frame, effects);
            }
            Some(Party::Refused) => unreachable!("nothing passes its gate"),
            None => self.on_first_message(connection, &message, effects),
        }
    }

    /// What an accepted connection may bring now; nothing more if it was refused.
    #[must_use]
    pub fn gate(&self, connection: ConnectionId) -> Option<Gate> {
        self.sessions.gate(connection)
    }

    fn on_first_message(
        &mut self,
        connection: ConnectionId,
        message: &Message<'_>,
        effects: &mut Effects,
    ) {
        let Message::Hello(hello) = message else {
            unreachable!("nothing else passes a stranger's gate")
        };
        let claim = Claim {
            cluster: ClusterId(u128::from_le_bytes(hello.cluster)),
            node: NodeId(hello.node.to_native()),
            lane: Lane::from_code(hello.lane),
            version_min: hello.version_min,
            version_max: hello.version_max,
        };
        match self
            .sessions
            .open(connection, claim, self.config.cluster, &self.peers)
        {
            Ok(Party::Client) if self.is_gone() => {
                let detail = "this node is shutting down";
                self.refuse(connection, RefusedReason::Stopping, detail, effects);
            }
            Ok(Party::Client) => {
                self.reply(connection, &self.config.welcome(), effects);
            }
            Ok(Party::Peer(node, _)) => {
                let directory = Directory {
                    incarnation: Incarnation(hello.incarnation.to_native()),
                    life: hello.life.to_native(),
                    starts: hello
                        .starts
                        .iter()
                        .map(|number| number.to_native())
                        .collect(),
                };
                if let Err((reason, why)) = self.known.judge(node, &directory) {
                    self.on_stranger_directory(connection, node, reason, why, effects);
                    return;
                }
                if let Some(old) = self.sessions.superseded(connection) {
                    effects.push(Effect::Close(old));
                    self.leave(old);
                }
            }
            Ok(Party::Refused) => unreachable!("nobody opens a connection refused"),
            Err((reason, detail)) => self.refuse(connection, reason, &detail, effects),
        }
    }

    /// Whoever comes under a voter's name does not have that voter's directory.
    fn on_stranger_directory(
        &mut self,
        connection: ConnectionId,
        node: NodeId,
        reason: RefusedReason,
        why: &str,
        effects: &mut Effects,
    ) {
        let name = self.config.name_of(node);
        let detail = format!("{name}: {why}");
        self.refuse(connection, reason, &detail, effects);
    }

    fn on_client_message(
        &mut self,
        now: Nanos,
        connection: ConnectionId,
        message: &Message<'_>,
        frame: &Frame<'_>,
        effects: &mut Effects,
    ) {
        match message {
            Message::Append(body) => self.on_append(connection, body, frame, effects),
            Message::Fetch(body) => self.on_fetch(now, connection, body, effects),
            Message::StatusRequest(body) => {
                let status = self.status(now, body.request.to_native());
                self.reply(connection, &status, effects);
            }
            Message::BlockRequest(body) => {
                self.on_block_request(now, Inquirer::Client(connection), body, effects);
            }
            Message::TrimRequest(body) => self.on_trim(connection, body, effects),
            Message::ScrubRequest(body) => {
                self.hurry_scrub(now);
                let status = self.status(now, body.request.to_native());
                self.reply(connection, &status, effects);
            }
            Message::Transfer(body) => self.on_transfer(now, connection, body, effects),
            _ => unreachable!("nothing else passes a client's gate"),
        }
    }

    pub(super) fn on_stream_refused(
        &mut self,
        connection: ConnectionId,
        refusal: &Refusal,
        effects: &mut Effects,
    ) {
        self.refuse(connection, refusal.reason(), &refusal.to_string(), effects);
    }

    pub(super) fn refuse(
        &mut self,
        connection: ConnectionId,
        reason: RefusedReason,
        detail: &str,
        effects: &mut Effects,
    ) {
        assert!(detail.len() <= DETAIL_SIZE_MAX, "a sentence, not a story");
        // It was told already, and waits for its end.
        if self.sessions.gate(connection).is_none() {
            return;
        }
        let body = Refused {
            reason: reason.code(),
            detail: detail.as_bytes().to_vec(),
        };
        self.reply(connection, &body, effects);
        effects.push(Effect::Close(connection));
        self.leave(connection);
    }

    pub(super) fn on_connection_closed(&mut self, connection: ConnectionId) {
        self.leave(connection);
        self.sessions.close(connection);
    }

    /// Nothing more is heard or answered on this connection, which ends soon.
    fn leave(&mut self, connection: ConnectionId) {
        self.sessions.refuse(connection);
        for group in &mut self.groups {
            group.forget_connection(connection);
        }
    }
}
