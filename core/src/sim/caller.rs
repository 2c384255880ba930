//! A client that does what it is bid, one operation at a time or many, and notes what it is told.
//!
//! Bound to a node it stays there, and the first answer to an operation is the last. Free, it goes where
//! the leader is said to be and asks again until the log has its append. Knows no script.

use std::collections::BTreeMap;
use std::fmt;

use super::client::{Context, Line};
use super::history::judge_blocks;
use super::network::Party;
use super::node::{node_id, party_of};
use crate::frame::client::{
    Append, ArchivedAppendReply, ArchivedFetchReply, ArchivedTransferReply, Fetch, Transfer,
};
use crate::frame::code::{FetchOutcome, NotCommittedReason, Outcome, ReadMode, TransferOutcome};
use crate::frame::sum::crc32c;
use crate::id::{GroupId, Nanos, NodeId};
use crate::log::block::{Block, write_record};

/// Every append has a producer of its own, with this epoch and its first sequence.
const EPOCH: u32 = 1;

/// A free caller that was refused asks again after this.
const PAUSE: Nanos = Nanos::from_millis(2);

/// What a caller is bid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Operation {
    /// One record of text into the log.
    Append(String),
    /// The whole log.
    Read(ReadMode),
    /// Leadership to a node.
    Transfer(Party),
}

/// What came of an operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Committed {
        offset: u64,
    },
    NotCommitted {
        reason: NotCommittedReason,
        leader: Option<Party>,
    },
    /// The append may be in the log or not.
    Unknown,
    /// The records, in order.
    Read(Vec<String>),
    ReadRefused(FetchOutcome),
    Transfer(TransferOutcome),
    /// The connection ended before an answer that changes nothing.
    Lost,
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Committed { offset } => write!(f, "committed at {offset}"),
            Self::NotCommitted { reason, leader } => {
                write!(f, "not committed, {}", spaced(reason.word()))?;
                leader.map_or(Ok(()), |leader| write!(f, ", {} leads", leader + 1))
            }
            Self::Unknown => write!(f, "unknown"),
            Self::Read(texts) if texts.is_empty() => write!(f, "nothing"),
            Self::Read(texts) => write!(f, "{}", texts.join(" ")),
            Self::ReadRefused(outcome) => write!(f, "refused, {}", spaced(outcome.word())),
            Self::Transfer(outcome) => write!(f, "{outcome}"),
            Self::Lost => write!(f, "no answer, the connection ended"),
        }
    }
}

fn spaced(word: &str) -> String {
    word.replace('_', " ")
}

#[derive(Debug)]
struct Pending {
    operation: Operation,
    /// Its request on the present connection; none if it is to be sent.
    request: Option<u64>,
    sent_at: Nanos,
    /// What was known to be committed when it was bid.
    known_end: Option<u64>,
    /// Of a read: what has come so far. One answer need not have it all.
    texts: Vec<String>,
}

/// One caller.
#[derive(Debug)]
pub(super) struct Caller {
    group: GroupId,
    home: Option<Party>,
    /// The producer of each append it ever made.
    producers: BTreeMap<String, u64>,
    next_producer: u64,
    pending: Vec<Pending>,
    /// Operations that are over, in the order of their ends.
    notes: Vec<(Operation, Answer)>,
    send_at: Nanos,
}

impl Caller {
    /// A caller whose producers are `first_producer` and those after it.
    pub(super) fn new(group: GroupId, home: Option<Party>, first_producer: u64) -> Self {
        Self {
            group,
            home,
            producers: BTreeMap::new(),
            next_producer: first_producer,
            pending: Vec::new(),
            notes: Vec::new(),
            send_at: Nanos(0),
        }
    }

    /// Where it stays.
    pub(super) fn home(&self) -> Option<Party> {
        self.home
    }

    /// Stays there from now on, or is free; its line must be told to turn.
    pub(super) fn set_home(&mut self, home: Option<Party>) {
        self.home = home;
    }

    /// Takes an operation. An append of a text that it made before is that append again, under the
    /// number that tells it apart from a new one.
    pub(super) fn bid(&mut self, operation: Operation) {
        self.pending.push(Pending {
            operation,
            request: None,
            sent_at: Nanos(0),
            known_end: None,
            texts: Vec::new(),
        });
    }

    /// Operations that are over since the last call.
    pub(super) fn take_notes(&mut self) -> Vec<(Operation, Answer)> {
        std::mem::take(&mut self.notes)
    }

    /// Errands without an answer.
    pub(super) fn pending(&self) -> impl Iterator<Item = &Operation> {
        self.pending.iter().map(|pending| &pending.operation)
    }

    pub(super) fn on_line_lost(&mut self, now: Nanos) {
        self.send_at = now;
        if self.home.is_none() {
            self.pending.iter_mut().for_each(|at| at.request = None);
            return;
        }
        let was_sent = |pending: &mut Pending| pending.request.is_some();
        for pending in self.pending.extract_if(.., was_sent) {
            let answer = match &pending.operation {
                Operation::Append(_) => Answer::Unknown,
                Operation::Read(_) | Operation::Transfer(_) => Answer::Lost,
            };
            self.notes.push((pending.operation, answer));
        }
    }

    pub(super) fn on_time(&mut self, line: &mut Line, context: &mut Context<'_>) -> Nanos {
        let (now, patience) = (context.now, context.swarm.client_patience);
        let is_free = self.home.is_none();
        let is_silent = |pending: &Pending| {
            is_free && pending.request.is_some() && pending.sent_at.after(patience) <= now
        };
        if self.pending.iter().any(is_silent) {
            line.turn_to(0);
            return now.after(patience);
        }
        if self.send_at <= now {
            self.send_all(line, context);
        }
        let is_waiting = self.pending.iter().any(|at| at.request.is_none());
        let sent = self.pending.iter().filter(|at| at.request.is_some());
        let silent_at = sent.map(|at| at.sent_at.after(patience)).min();
        let silent_at = silent_at.filter(|_| is_free);
        let wake_at = is_waiting.then_some(self.send_at);
        let wake_at = wake_at.into_iter().chain(silent_at).min();
        wake_at
            .unwrap_or(now.after(patience))
            .max(now.after(Nanos(1)))
    }

    fn send_all(&mut self, line: &mut Line, context: &mut Context<'_>) {
        let group = self.group.0;
        for pending in self.pending.iter_mut().filter(|at| at.request.is_none()) {
            pending.sent_at = context.now;
            let known_end = context.history.known_end(0);
            pending.known_end.get_or_insert(known_end);
            let request = match &pending.operation {
                Operation::Append(text) => {
                    let mut payload = Vec::new();
                    write_record(&mut payload, text.as_bytes());
                    let next = self.next_producer;
                    let producer = *self.producers.entry(text.clone()).or_insert(next);
                    if producer == next {
                        self.next_producer += 1;
                        context.history.on_made((producer, EPOCH), 0, 1, 0);
                    }
                    let body = |request| Append {
                        request,
                        producer,
                        sequence: 0,
                        group,
                        record_count: 1,
                        epoch: EPOCH,
                    };
                    line.ask_with(body, crc32c(&payload), &payload)
                }
                Operation::Read(mode) => {
                    let (mode, from) = (mode.code(), pending.texts.len() as u64);
                    line.ask(|request| Fetch {
                        request,
                        from,
                        group,
                        size_max: 1 << 20,
                        wait_us: 0,
                        mode,
                    })
                }
                Operation::Transfer(to) => {
                    let to = node_id(*to).0;
                    line.ask(|request| Transfer { request, to, group })
                }
            };
            pending.request = Some(request);
        }
    }

    /// The operation that a request was for, unless it is over: the network may double frames.
    fn find(&self, request: u64) -> Option<usize> {
        self.pending
            .iter()
            .position(|pending| pending.request == Some(request))
    }

    fn end(&mut self, at: usize, answer: Answer) {
        let operation = self.pending.remove(at).operation;
        self.notes.push((operation, answer));
    }

    /// Bound, it takes this for the answer; free, it tries again where the leader is said to be.
    fn refuse(
        &mut self,
        at: usize,
        answer: Answer,
        leader: u64,
        line: &mut Line,
        context: &Context<'_>,
    ) {
        if self.home.is_some() {
            return self.end(at, answer);
        }
        self.pending[at].request = None;
        self.send_at = context.now.after(PAUSE);
        line.turn_to(leader);
    }

    pub(super) fn on_append_reply(
        &mut self,
        reply: &ArchivedAppendReply,
        line: &mut Line,
        context: &mut Context<'_>,
    ) {
        let Some(at) = self.find(reply.request.to_native()) else {
            return;
        };
        let hint = reply.leader.to_native();
        match Outcome::from_code(reply.outcome).expect("a known outcome") {
            Outcome::Committed => {
                let Operation::Append(text) = &self.pending[at].operation else {
                    panic!("an append's answer to something else");
                };
                let (life, offset) = ((self.producers[text], EPOCH), reply.offset.to_native());
                let committed = context.oracle.committed(0);
                let history = &mut *context.history;
                history.on_acked(0, life, 0, offset, committed);
                context.marks.acked += 1;
                self.end(at, Answer::Committed { offset });
            }
            Outcome::Unknown => {
                context.marks.unknown += 1;
                self.refuse(at, Answer::Unknown, hint, line, context);
            }
            Outcome::NotCommitted => {
                context.marks.refused += 1;
                let reason = NotCommittedReason::from_code(reply.reason);
                let answer = Answer::NotCommitted {
                    reason: reason.expect("a known reason"),
                    leader: (hint != 0).then(|| party_of(NodeId(hint))),
                };
                self.refuse(at, answer, hint, line, context);
            }
        }
    }

    pub(super) fn on_fetch_reply(
        &mut self,
        reply: &ArchivedFetchReply,
        payload: &[u8],
        line: &mut Line,
        context: &mut Context<'_>,
    ) {
        let Some(at) = self.find(reply.request.to_native()) else {
            return;
        };
        let outcome = FetchOutcome::from_code(reply.outcome).expect("a known outcome");
        if outcome != FetchOutcome::Ok {
            let hint = reply.leader.to_native();
            return self.refuse(at, Answer::ReadRefused(outcome), hint, line, context);
        }
        let end = reply.end_offset.to_native();
        let committed = context.oracle.committed(0);
        let pending = &mut self.pending[at];
        let from = pending.texts.len() as u64;
        judge_blocks(self.group.0, from, payload, committed);
        context.history.on_end_seen(0, end, committed);
        let known_end = pending.known_end.expect("it was sent");
        assert!(
            pending.operation != Operation::Read(ReadMode::Linearizable) || end >= known_end,
            "a linearizable read sees {end}, and {known_end} was known before"
        );
        pending.texts.extend(texts(payload, from));
        if (pending.texts.len() as u64) < end {
            assert!(!payload.is_empty(), "nothing is given before the end");
            pending.request = None;
            return;
        }
        context.marks.reads += 1;
        let texts = std::mem::take(&mut pending.texts);
        self.end(at, Answer::Read(texts));
    }

    pub(super) fn on_transfer_reply(
        &mut self,
        reply: &ArchivedTransferReply,
        line: &mut Line,
        context: &mut Context<'_>,
    ) {
        let Some(at) = self.find(reply.request.to_native()) else {
            return;
        };
        let outcome = TransferOutcome::from_code(reply.outcome).expect("a known outcome");
        if outcome == TransferOutcome::NotLeader {
            let hint = reply.leader.to_native();
            return self.refuse(at, Answer::Transfer(outcome), hint, line, context);
        }
        self.end(at, Answer::Transfer(outcome));
    }
}

/// The records of blocks from an offset on; they are text here.
fn texts(payload: &[u8], from: u64) -> Vec<String> {
    let mut texts = Vec::new();
    let mut at = 0;
    while at < payload.len() {
        let block = Block::check(&payload[at..]).expect("judged before");
        at += block.bytes().len();
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("scripts append text");
        let records = block.records().filter(|(offset, _)| offset.0 >= from);
        texts.extend(records.map(|(_, bytes)| text(bytes)));
    }
    texts
}
