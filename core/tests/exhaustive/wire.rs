//! What is on its way between nodes: whole messages, each told apart by its content alone.
//!
//! Knows no order: a network may deliver in any. Blocks are told apart by index, term and whether
//! they carry a record; the rest of them is the same for all.

use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use ringwood_core::id::{Index, Lsn, NodeId, Offset, Term};
use ringwood_core::log::{Entry, Place};
use ringwood_core::raft::{Beat, BeatAck, Message};

/// Voters, called 1, 2 and 3.
pub(crate) const NODE_COUNT: usize = 3;

/// A block as the model sees it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Block {
    pub(crate) term: Term,
    /// A client's, not a new leader's no-op.
    pub(crate) has_record: bool,
}

impl Block {
    pub(crate) fn of(entry: &Entry) -> Self {
        Self {
            term: entry.term,
            has_record: entry.record_count > 0,
        }
    }

    /// A client's block fills a probe, so that probes carry one block and logs come to part in the
    /// middle of what a leader has.
    pub(crate) fn entry(self, lsn: Lsn, first_offset: Offset) -> Entry {
        Entry {
            term: self.term,
            size: if self.has_record { 64 << 10 } else { 64 },
            sum: 0,
            place: Place { lsn, offset: 0 },
            first_offset,
            record_count: u32::from(self.has_record),
        }
    }
}

impl fmt::Debug for Block {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mark = if self.has_record { "r" } else { "" };
        write!(f, "{}{mark}", self.term)
    }
}

/// A message's content.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Body {
    Message(Message),
    Append {
        term: Term,
        prev: (Index, Term),
        commit: Index,
        blocks: Vec<Block>,
    },
    Beat(Beat),
    BeatAck(BeatAck),
}

/// A message on its way.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) struct Wire {
    pub(crate) from: NodeId,
    pub(crate) to: NodeId,
    pub(crate) body: Arc<Body>,
    /// Of `body`, so that comparing many of them is cheap.
    pub(crate) digest: u64,
}

impl Wire {
    pub(crate) fn new(from: NodeId, to: NodeId, body: Body) -> Self {
        let digest = digest(&body);
        Self {
            from,
            to,
            body: Arc::new(body),
            digest,
        }
    }

    /// By which messages stand in order and are compared.
    pub(crate) fn key(&self) -> (NodeId, NodeId, u64) {
        (self.from, self.to, self.digest)
    }
}

impl fmt::Debug for Wire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}->{} ", self.from, self.to)?;
        match &*self.body {
            Body::Message(Message::VoteRequest {
                pre,
                transfer,
                term,
                last_index,
                last_term,
            }) => {
                let kind = if *pre { "pre-vote" } else { "vote" };
                let why = if *transfer { " (handed over)" } else { "" };
                write!(f, "{kind} in {term}{why}? last {last_index}@{last_term}")
            }
            Body::Message(Message::VoteReply {
                pre,
                granted,
                term,
                voter_term,
            }) => {
                let kind = if *pre { "pre-vote" } else { "vote" };
                let answer = if *granted { "yes" } else { "no" };
                write!(f, "{kind} in {term}: {answer}, is in {voter_term}")
            }
            Body::Message(Message::AppendAck {
                term,
                matched: true,
                index,
                ..
            }) => write!(f, "in {term}: has through {index}"),
            Body::Message(Message::AppendAck {
                term,
                index,
                conflict_term,
                prev_index,
                ..
            }) => write!(
                f,
                "in {term}: no match at {prev_index}, try {index}@{conflict_term}"
            ),
            Body::Message(Message::TimeoutNow { term }) => write!(f, "take over from {term}"),
            Body::Message(Message::StateReport(report)) => {
                let kind = if report.is_reply {
                    "tells"
                } else {
                    "asks, being"
                };
                let (term, index, last) = (report.term, report.last_index, report.last_term);
                let (doubt, commit) = (report.doubt, report.commit);
                write!(
                    f,
                    "{kind} in {term} at {index}@{last}, commit {commit}, {doubt:?}"
                )
            }
            Body::Append {
                term,
                prev: (index, prev_term),
                commit,
                blocks,
            } => write!(
                f,
                "blocks in {term} after {index}@{prev_term}: {blocks:?}, commit {commit}"
            ),
            Body::Beat(beat) => write!(f, "beat in {}, commit {}", beat.term, beat.commit),
            Body::BeatAck(ack) => write!(f, "beat answered in {}: has {}", ack.term, ack.durable),
        }
    }
}

/// 64 bits for any content, the same in every run.
pub(crate) fn digest(content: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    content.hash(&mut hasher);
    hasher.finish()
}
