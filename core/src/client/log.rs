//! One log in the eyes of a client: who leads it, what is appended, what is asked.
//!
//! Keeps a route, a producer and open questions, and brings them together: what may be sent is
//! sent to the leader; while there is none, or it is silent, other nodes are probed. Knows no
//! bytes.

use super::asks::{AskAdvice, AskError, Asks};
use super::effects::Effects;
use super::post::{Asked, Post};
use super::produce::{Advice, Identity, Producer};
use super::retry::{Jitter, Route, Word};
use super::session::Session;
use crate::frame::client::Fetch;
use crate::frame::code::ReadMode;
use crate::id::{ConnectionId, GroupId, Nanos, NodeId, Term};

/// What a log needs of the client that it belongs to.
pub(super) struct Context<'a> {
    pub(super) session: &'a mut Session,
    pub(super) post: &'a mut Post,
    pub(super) jitter: &'a mut Jitter,
    pub(super) append_timeout: Nanos,
    pub(super) effects: &'a mut Effects,
}

/// One log.
#[derive(Debug)]
pub(super) struct Log {
    group: GroupId,
    route: Route,
    pub(super) producer: Producer,
    pub(super) asks: Asks,
    /// When the client's timer for this log goes off; never later than `next_timer`.
    pub(super) armed: Option<Nanos>,
}

impl Log {
    pub(super) fn new(group: GroupId, identity: Identity) -> Self {
        Self {
            group,
            route: Route::new(),
            producer: Producer::new(group, identity),
            asks: Asks::default(),
            armed: None,
        }
    }

    pub(super) fn is_idle(&self) -> bool {
        self.producer.is_idle() && self.asks.is_empty()
    }

    /// The term in which the leader was named.
    pub(super) fn term(&self) -> Term {
        self.route.term()
    }

    /// Does all that can be done now.
    pub(super) fn drive(&mut self, now: Nanos, cx: &mut Context<'_>) {
        self.expire(now, cx);
        if self.is_idle() {
            self.route.rest();
            return;
        }
        let leader = self.route.leader();
        let connection = leader.and_then(|leader| cx.session.open(leader));
        if let Some(connection) = connection {
            self.producer.aim_at(connection);
            self.asks.aim_at(connection);
            self.producer.send(now, connection, cx.post, cx.effects);
        } else if let Some(leader) = leader {
            cx.session.want(now, leader, cx.effects);
        }
        let any = if self.asks.wants_any() {
            cx.session.all_open()
        } else {
            Vec::new()
        };
        let asks = &mut self.asks;
        asks.send(now, self.group, connection, &any, cx.post, cx.effects);
        if self.asks.wants_everybody() {
            let nodes = cx.session.nodes().iter().map(|node| node.id);
            for node in nodes.collect::<Vec<_>>() {
                if cx.session.open(node).is_none() {
                    cx.session.want(now, node, cx.effects);
                }
            }
        }
        if self.needs_probe(now, connection, cx.session) {
            self.route.trouble(now);
            self.maybe_probe(now, connection, cx);
        }
    }

    fn expire(&mut self, now: Nanos, cx: &mut Context<'_>) {
        self.producer.expire(now, cx.append_timeout, cx.effects);
        let reason = if !cx.session.has_open() {
            AskError::Unreachable
        } else if self.route.leader().is_none() {
            AskError::NoLeader
        } else {
            AskError::TimedOut
        };
        self.asks.expire(now, reason, cx.effects);
    }

    fn needs_leader(&self) -> bool {
        !self.producer.is_idle() || self.asks.wants_leader()
    }

    /// Whether others are to be asked who leads, or to be dialled at all.
    fn needs_probe(&self, now: Nanos, leader: Option<ConnectionId>, session: &Session) -> bool {
        if !self.needs_leader() {
            // Any replica will do; if none is there, probing dials them.
            return self.asks.wants_any() && !session.has_open();
        }
        leader.is_none()
            || self.route.is_doubted()
            || self.silent_at().is_some_and(|silent| silent <= now)
    }

    fn silent_at(&self) -> Option<Nanos> {
        let oldest = [self.producer.oldest_sent(), self.asks.oldest_due()];
        let oldest = oldest.into_iter().flatten().min()?;
        Some(self.route.silent_at(oldest))
    }

    /// Asks the next node who leads, if it is time. Nodes without a connection are dialled on the
    /// way.
    fn maybe_probe(&mut self, now: Nanos, leader: Option<ConnectionId>, cx: &mut Context<'_>) {
        let Some(begin) = self.route.take_probe(now, cx.jitter) else {
            return;
        };
        let count = cx.session.nodes().len();
        if count == 0 {
            cx.session.want_any(now, cx.effects);
        }
        for place in (begin..begin + count).map(|place| place % count) {
            let node = cx.session.nodes()[place].id;
            match cx.session.open(node) {
                None => cx.session.want(now, node, cx.effects),
                // The leader itself tells most by answering what it was asked before.
                Some(connection) if Some(connection) == leader => {}
                Some(connection) if self.route.is_probing(now, connection) => {}
                Some(connection) => {
                    let asked = Asked::Probe(self.group);
                    let request = cx.post.ask(now, connection, asked).0;
                    // No offset lies beyond this: a leader answers "beyond end", without blocks.
                    let body = Fetch {
                        request,
                        from: u64::MAX,
                        group: self.group.0,
                        size_max: 0,
                        wait_us: 0,
                        mode: ReadMode::Committed.code(),
                    };
                    cx.post.send(connection, &body, cx.effects);
                    self.route.on_probe_sent(now, place, connection);
                    return;
                }
            }
        }
    }

    // ---- what was heard

    /// A connection has opened.
    pub(super) fn on_opened(&mut self, now: Nanos) {
        self.route.hurry(now);
    }

    /// A connection has closed.
    pub(super) fn on_closed(&mut self, now: Nanos, connection: ConnectionId) {
        self.producer.on_closed(connection);
        self.asks.on_closed(connection);
        self.route.on_probe_ended(connection);
        self.route.hurry(now);
    }

    /// A node was asked who leads the log and says that there is none.
    pub(super) fn on_unknown(&mut self, effects: &mut Effects) {
        self.producer.on_unknown(effects);
        self.asks.on_unknown(effects);
    }

    /// The node's part in this log, from an answer to a probe.
    pub(super) fn on_probe(
        &mut self,
        now: Nanos,
        connection: ConnectionId,
        from: NodeId,
        term: Term,
        word: Word,
    ) {
        self.route.on_probe_ended(connection);
        self.on_word(now, from, term, word);
    }

    fn on_word(&mut self, now: Nanos, from: NodeId, term: Term, word: Word) {
        if self.route.on_word(now, from, term, word) {
            self.producer.resume();
        }
    }

    /// An append was answered, and this is what it means.
    pub(super) fn on_advice(
        &mut self,
        now: Nanos,
        from: NodeId,
        term: Term,
        hint: Option<NodeId>,
        advice: Advice,
        jitter: &mut Jitter,
    ) {
        match advice {
            Advice::Serves => self.on_served(now, from, term),
            Advice::Denies => self.on_word(now, from, term, Word::Denies(hint)),
            Advice::Doubt => {
                let pause = self.route.doubt(now, jitter);
                self.producer.pause_until(now.after(pause));
            }
            Advice::None => {}
        }
    }

    /// A question was answered, and this is what it means.
    pub(super) fn on_ask_advice(
        &mut self,
        now: Nanos,
        from: NodeId,
        term: Term,
        hint: Option<NodeId>,
        advice: AskAdvice,
    ) {
        match advice {
            AskAdvice::Serves => self.on_served(now, from, term),
            AskAdvice::Denies => self.on_word(now, from, term, Word::Denies(hint)),
            AskAdvice::None => {}
        }
    }

    fn on_served(&mut self, now: Nanos, from: NodeId, term: Term) {
        // The term of an old append may be below the leader's: only who it is counts then.
        if self.route.leader() == Some(from) {
            self.route.on_served(now);
        } else {
            self.on_word(now, from, term, Word::Leads);
        }
    }

    pub(super) fn stop(&mut self, effects: &mut Effects) {
        self.producer.stop(effects);
        self.asks.stop(effects);
    }

    // ---- time

    /// When `drive` has something to do whatever is heard.
    pub(super) fn next_timer(
        &self,
        now: Nanos,
        append_timeout: Nanos,
        session: &Session,
    ) -> Option<Nanos> {
        if self.is_idle() {
            return None;
        }
        let leader = self.route.leader().and_then(|leader| session.open(leader));
        let probe = if self.needs_probe(now, leader, session) {
            self.route.next_probe()
        } else {
            self.silent_at()
        };
        let timers = [
            probe,
            self.producer.expires_at(append_timeout),
            self.producer.resumes_at(now),
            self.asks.next_timer(now),
        ];
        timers.into_iter().flatten().min()
    }
}
