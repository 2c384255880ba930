//! Asking every node how it is.
//!
//! Keeps what each node has answered until all have, or the time is over: a survey never fails as
//! a whole. Knows no log and no leader.

use super::effects::{Effect, Effects};
use super::post::{Asked, Post};
use super::session::{LinkFault, Session};
use crate::frame::client::{ScrubRequest, Status, StatusRequest};
use crate::id::{ConnectionId, Nanos, NodeId};

/// A node's account of itself, or why there is none.
#[derive(Clone, Debug)]
pub struct NodeReport {
    /// The node; `None` for an endpoint that never told.
    pub node: Option<NodeId>,
    /// Its name; empty if unknown.
    pub name: String,
    /// Its address, `host:port`.
    pub address: String,
    /// What it said, or why it could not be asked.
    pub result: Result<Box<Status>, LinkFault>,
}

#[derive(Debug)]
struct Target {
    /// Index of the address in the session.
    place: usize,
    node: Option<NodeId>,
    name: String,
    asked: Option<ConnectionId>,
    result: Option<Result<Box<Status>, LinkFault>>,
}

/// One question to all nodes.
#[derive(Debug)]
pub(super) struct Survey {
    token: u64,
    deadline: Nanos,
    wish: Wish,
    targets: Vec<Target>,
}

/// What the nodes are asked for beside their accounts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// Nothing.
    Status,
    /// To read all that their disks keep.
    Scrub,
}

impl Survey {
    /// Begins: dials where there is no connection.
    pub(super) fn new(
        now: Nanos,
        token: u64,
        wish: Wish,
        timeout: Nanos,
        session: &mut Session,
        effects: &mut Effects,
    ) -> Self {
        let mut targets = Vec::new();
        for (place, node, name) in session.everyone() {
            session.want_place(now, place, effects);
            targets.push(Target {
                place,
                node,
                name,
                asked: None,
                result: None,
            });
        }
        Self {
            token,
            wish,
            deadline: now.after(timeout),
            targets,
        }
    }

    pub(super) fn deadline(&self) -> Nanos {
        self.deadline
    }

    /// Asks whoever can be asked by now and was not. Returns whether the survey is over.
    pub(super) fn drive(
        &mut self,
        now: Nanos,
        session: &mut Session,
        post: &mut Post,
        effects: &mut Effects,
    ) -> bool {
        for target in &mut self.targets {
            if target.result.is_some() || target.asked.is_some() {
                continue;
            }
            if let Some(connection) = session.open_place(target.place) {
                let request = post.ask(now, connection, Asked::Status(self.token)).0;
                match self.wish {
                    Wish::Status => post.send(connection, &StatusRequest { request }, effects),
                    Wish::Scrub => post.send(connection, &ScrubRequest { request }, effects),
                }
                target.asked = Some(connection);
            } else if let Some(fault) = session.failed_place(target.place) {
                target.result = Some(Err(fault));
            }
        }
        let over = now >= self.deadline || self.targets.iter().all(|t| t.result.is_some());
        if over {
            self.end(session, effects);
        }
        over
    }

    /// Ends with what is known.
    pub(super) fn end(&mut self, session: &Session, effects: &mut Effects) {
        let reports = self.targets.drain(..).map(|target| NodeReport {
            node: target.node,
            name: target.name,
            address: session.address(target.place).to_owned(),
            result: target.result.unwrap_or(Err(LinkFault::Silent)),
        });
        effects.push(Effect::Surveyed {
            token: self.token,
            reports: reports.collect(),
        });
    }

    pub(super) fn is(&self, token: u64) -> bool {
        self.token == token
    }

    pub(super) fn on_status(&mut self, connection: ConnectionId, status: Status) {
        let asked = |target: &&mut Target| target.asked == Some(connection);
        if let Some(target) = self.targets.iter_mut().find(asked) {
            target.node = Some(NodeId(status.node));
            target.result = Some(Ok(Box::new(status)));
        }
    }

    pub(super) fn on_closed(&mut self, connection: ConnectionId, fault: &LinkFault) {
        let lost = |target: &&mut Target| target.asked == Some(connection);
        for target in self.targets.iter_mut().filter(lost) {
            target.result.get_or_insert_with(|| Err(fault.clone()));
        }
    }
}
