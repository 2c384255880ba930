//! Three servers that keep their promises and nothing more, straight from the words of those: each
//! has a log, one leads, and what it has not committed may be cut when another takes over.
//!
//! Know no client but by its requests, nor when anything happens.

use super::*;
use crate::limits::PRODUCER_WINDOW;

/// An append in a node's log.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Entry {
    term: u64,
    epoch: u32,
    sequence: u64,
    /// The tokens that its records carry.
    pub(super) tokens: Vec<u64>,
}

impl Entry {
    fn next(&self) -> u64 {
        self.sequence + self.tokens.len() as u64
    }
}

#[derive(Debug, PartialEq)]
enum Verdict {
    Accept,
    /// Index of the entry that is this append.
    Duplicate(usize),
    Refuse(Reason),
}

/// What the server promises, straight from its words.
fn judge(log: &[Entry], append: &Append) -> Verdict {
    let Some(epoch) = log.iter().map(|entry| entry.epoch).max() else {
        return match append.sequence {
            0 => Verdict::Accept,
            _ => Verdict::Refuse(Reason::SequenceGap),
        };
    };
    if append.epoch < epoch {
        return Verdict::Refuse(Reason::Fenced);
    }
    let own = log.iter().enumerate().rev();
    let own: Vec<_> = own
        .filter(|(_, e)| e.epoch == append.epoch)
        .take(PRODUCER_WINDOW)
        .collect();
    let next = own.first().map_or(0, |(_, entry)| entry.next());
    if append.sequence > next {
        return Verdict::Refuse(Reason::SequenceGap);
    }
    if append.sequence == next {
        return Verdict::Accept;
    }
    match own
        .iter()
        .find(|(_, entry)| entry.sequence == append.sequence)
    {
        Some((index, _)) => Verdict::Duplicate(*index),
        None => Verdict::Refuse(Reason::WindowPassed),
    }
}

/// An append that waits for its commit on a node: answered to this request of that connection.
#[derive(Clone, Debug)]
pub(super) struct Held {
    pub(super) connection: ConnectionId,
    request: u64,
    index: usize,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Node {
    pub(super) log: Vec<Entry>,
    pub(super) term: u64,
    /// Thinks that it leads in `term`.
    pub(super) leads: bool,
    /// Whom it thinks to lead.
    pub(super) leader: u64,
    pub(super) held: Vec<Held>,
    /// Nothing gets out of it.
    pub(super) frozen: bool,
}

impl World {
    fn node(&mut self, node: NodeId) -> &mut Node {
        &mut self.nodes[node.0 as usize - 1]
    }

    pub(super) fn on_request(&mut self, connection: ConnectionId, sent: Sent) {
        let Some(to) = self.links.get(&connection).copied() else {
            return;
        };
        match sent {
            Sent::Hello(_) => self.soon(200, Event::Welcome(connection, to)),
            Sent::Append(append, payload) => self.on_append(connection, to, &append, &payload),
            Sent::Fetch(fetch) => {
                let node = self.node(to);
                let outcome = if node.leads {
                    FetchOutcome::BeyondEnd
                } else {
                    FetchOutcome::NotLeader
                };
                let reply = FetchReply {
                    request: fetch.request,
                    term: node.term,
                    leader: node.leader,
                    outcome: outcome.code(),
                    ..FetchReply::default()
                };
                if !node.frozen {
                    self.soon(400, Event::FetchReply(connection, reply));
                }
            }
            other => panic!("nothing else was asked for: {other:?}"),
        }
    }

    fn on_append(&mut self, connection: ConnectionId, to: NodeId, append: &Append, payload: &[u8]) {
        let request = append.request;
        let forgotten = self.forgotten;
        let refuse = self.chance(self.faults.refuse);
        let for_now = [
            Reason::Overloaded,
            Reason::Transferring,
            Reason::Stopping,
            Reason::DiskFull,
        ];
        let for_now = for_now[self.random.next() as usize % 4];
        let node = self.node(to);
        if !node.leads {
            return self.refuse(connection, to, request, Reason::NotLeader);
        }
        if refuse {
            return self.refuse(connection, to, request, for_now);
        }
        let from = forgotten.min(node.log.len());
        let index = match judge(&node.log[from..], append) {
            Verdict::Refuse(reason) => return self.refuse(connection, to, request, reason),
            Verdict::Duplicate(index) => from + index,
            Verdict::Accept => {
                node.log.push(Entry {
                    term: node.term,
                    epoch: append.epoch,
                    sequence: append.sequence,
                    tokens: tokens(payload, append.record_count),
                });
                node.log.len() - 1
            }
        };
        let held = Held {
            connection,
            request,
            index,
        };
        node.held.push(held);
        self.answer_held();
    }

    fn refuse(&mut self, connection: ConnectionId, from: NodeId, request: u64, reason: Reason) {
        // A node that was cut off may have run through terms; only the leader's own are counted.
        let inflated = reason == Reason::NotLeader && self.chance(self.faults.refuse / 4);
        let node = self.node(from);
        let reply = AppendReply {
            request,
            term: node.term + 50 * u64::from(inflated),
            leader: node.leader,
            retry_after_us: 300,
            outcome: code::Outcome::NotCommitted.code(),
            reason: reason.code(),
            ..AppendReply::default()
        };
        self.reply(connection, from, reply);
    }

    fn reply(&mut self, connection: ConnectionId, from: NodeId, reply: AppendReply) {
        if self.node(from).frozen || self.chance(self.faults.lose_reply) {
            return;
        }
        if self.chance(self.faults.double_reply) {
            self.soon(3_000, Event::AppendReply(connection, reply));
        }
        self.soon(800, Event::AppendReply(connection, reply));
    }

    /// Only the leader of the highest term commits; it answers what is committed.
    fn answer_held(&mut self) {
        let leader = self.leader();
        let (committed, node) = (self.committed, self.node(leader));
        let (done, held) = node.held.drain(..).partition(|held| held.index < committed);
        node.held = held;
        let done: Vec<Held> = done;
        for held in done {
            let log = &self.node(leader).log;
            let offset: usize = log[..held.index].iter().map(|e| e.tokens.len()).sum();
            let reply = AppendReply {
                request: held.request,
                offset: offset as u64,
                term: log[held.index].term,
                outcome: code::Outcome::Committed.code(),
                durability: Durability::Quorum.code(),
                ..AppendReply::default()
            };
            self.reply(held.connection, leader, reply);
        }
    }

    pub(super) fn leader(&self) -> NodeId {
        let leads = |node: &&NodeId| self.nodes[node.0 as usize - 1].leads;
        let leading = [A, B, C];
        let leading = leading.iter().filter(leads);
        *leading
            .max_by_key(|node| self.nodes[node.0 as usize - 1].term)
            .expect("the newest leader is never deposed without a successor")
    }

    pub(super) fn commit(&mut self) {
        let leader = self.leader();
        let log = self.node(leader).log.clone();
        // Only by an entry of its own term (thesis 5.4.2).
        let term = self.node(leader).term;
        let open = log.len() - self.committed;
        if open > 0 {
            let through = self.committed + 1 + self.random.next() as usize % open;
            if log[through - 1].term == term {
                self.committed = through;
            }
        }
        for node in &mut self.nodes {
            if !node.leads && !node.frozen {
                node.log.truncate(self.committed);
                let have = node.log.len();
                node.log.extend_from_slice(&log[have..self.committed]);
            }
        }
        self.answer_held();
    }

    /// Another node takes over, with any part of what the leader had not committed.
    fn elect(&mut self) {
        let old = self.leader();
        let log = self.node(old).log.clone();
        let term = self.node(old).term + 1;
        let kept = self.committed + self.random.next() as usize % (log.len() - self.committed + 1);
        let new = NodeId(1 + (old.0 + self.random.next() % 2) % 3);
        assert_ne!(new, old);
        self.notice(new);
        let frozen = self.chance(300);
        let unaware = self.chance(500);
        *self.node(new) = Node {
            log: log[..kept].to_vec(),
            term,
            leads: true,
            leader: new.0,
            held: Vec::new(),
            frozen: false,
        };
        let third = NodeId(6 - old.0 - new.0);
        if self.chance(700) && !self.node(third).leads {
            let third = self.node(third);
            (third.term, third.leader) = (term, new.0);
        }
        self.node(old).frozen = frozen;
        if !frozen && !unaware {
            self.notice(old);
        }
    }

    /// A node that was deposed learns of it: what it holds ends unknown.
    pub(super) fn notice(&mut self, node: NodeId) {
        let newest = self.leader();
        let (term, leader) = (self.node(newest).term, newest.0);
        if newest == node {
            return;
        }
        let told = self.node(node);
        told.frozen = false;
        let held = std::mem::take(&mut told.held);
        (told.leads, told.term, told.leader) = (false, term, leader);
        let log = self.node(newest).log.clone();
        let committed = self.committed;
        self.node(node).log = log[..committed].to_vec();
        for held in held {
            let reply = AppendReply {
                request: held.request,
                term,
                leader,
                outcome: code::Outcome::Unknown.code(),
                ..AppendReply::default()
            };
            self.reply(held.connection, node, reply);
        }
    }

    pub(super) fn trouble(&mut self) {
        match self.random.next() % 8 {
            0 | 1 => self.elect(),
            2 | 3 => [A, B, C].into_iter().for_each(|node| self.notice(node)),
            4 => {
                let count = self.links.len().max(1);
                let which = self.random.next() as usize % count;
                if let Some(connection) = self.links.keys().nth(which).copied() {
                    self.break_link(connection);
                }
            }
            5 => {
                // The server forgets a producer only when it has long been silent: what it wrote
                // last is committed, and so at the same place for good.
                let under_way = |event: &Event| matches!(event, Event::ToNode(..));
                let silent = !self.events.values().any(under_way);
                if silent && self.outcomes.len() as u64 == self.offered {
                    self.forgotten = self.committed;
                }
            }
            6 => {
                let span = self.micros(120_000);
                self.dark_until = self.now.after(span);
                let links: Vec<_> = self.links.keys().copied().collect();
                links.into_iter().for_each(|link| self.break_link(link));
            }
            _ => {}
        }
    }

    fn break_link(&mut self, connection: ConnectionId) {
        self.unlink(connection);
        // The client hears of it later than of what came before.
        self.soon(1_000, Event::Break(connection));
    }
}

fn tokens(mut payload: &[u8], record_count: u32) -> Vec<u64> {
    let mut tokens = Vec::new();
    while let Some((size, rest)) = payload.split_first_chunk::<4>() {
        assert_eq!(u32::from_le_bytes(*size), 8);
        let (token, rest) = rest.split_first_chunk::<8>().expect("a whole record");
        tokens.push(u64::from_le_bytes(*token));
        payload = rest;
    }
    assert_eq!(tokens.len(), record_count as usize);
    tokens
}
