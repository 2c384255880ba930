//! Questions to one log: fetches, and requests to hand its leadership over or to move its start.
//!
//! Keeps each until it is answered for good or its time is over. They may be asked any number of
//! times, so a lost answer costs a repetition and nothing else. Knows no node and no connection
//! but by number; looks into no block.

use std::fmt;

use bytes::{Bytes, BytesMut};

use super::effects::{Effect, Effects};
use super::post::{Asked, Post};
use crate::frame::client::{
    ArchivedFetchReply, ArchivedTransferReply, ArchivedTrimReply, Fetch, Transfer, TrimRequest,
};
use crate::frame::code::{FetchOutcome, ReadMode, TransferOutcome, TrimOutcome};
use crate::frame::payload::Payload;
use crate::id::{ConnectionId, GroupId, Nanos, NodeId, Offset};
use crate::log::block::{BlockError, blocks};

/// A long wait at a log's end is asked for in pieces of this length, so that a node that is alive
/// is heard of at least that often.
const WAIT_PIECE: Nanos = Nanos::from_millis(1_000);

/// A question unanswered for this long, beyond the wait it asked for, is asked again.
const OVERDUE: Nanos = Nanos::from_millis(1_000);

/// Wait before replicas that all have lost a block are asked again: one of them may have been
/// repaired meanwhile.
const REPAIR_PAUSE: Nanos = Nanos::from_millis(100);

/// Wait before a transfer that has begun is asked after, and after an answer "busy" without a time.
const ASK_AGAIN: Nanos = Nanos::from_millis(10);

/// What to fetch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FetchRequest {
    /// Offset of the first record wanted.
    pub from: Offset,
    /// Bytes of blocks wanted at most; at least one block comes whatever this says.
    pub size_max: u32,
    /// How long to wait at the log's end for more; zero answers at once.
    pub wait: Nanos,
    /// What the answer must rely on.
    pub mode: ReadMode,
}

/// What a fetch gave.
#[derive(Clone, Debug)]
pub struct Fetched {
    /// Blocks verbatim, not looked into yet. The first may begin below what was asked for; none if
    /// the wait at the log's end ran out.
    pub blocks: Bytes,
    /// Offset after the last committed record.
    pub end_offset: Offset,
    /// Offset of the oldest record kept.
    pub first_offset: Offset,
}

impl Fetched {
    /// The records from an offset on, as slices of `blocks`.
    ///
    /// # Errors
    ///
    /// If a block is not sound, by its sums or by its structure.
    pub fn records(&self, from: Offset) -> Result<Vec<Record>, BlockError> {
        let mut records = Vec::new();
        for block in blocks(&self.blocks) {
            for (offset, bytes) in block?.records() {
                if offset >= from {
                    let bytes = self.blocks.slice_ref(bytes);
                    records.push(Record { offset, bytes });
                }
            }
        }
        Ok(records)
    }
}

/// A record that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Where it stands in its log.
    pub offset: Offset,
    /// The bytes that were appended.
    pub bytes: Bytes,
}

/// Why a question has no answer. Nothing was changed by it, but for a transfer that timed out:
/// that may still come about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AskError {
    /// The log does not exist.
    UnknownLog,
    /// The offset lies past the log's end.
    BeyondEnd {
        /// Offset after the last committed record.
        end_offset: Offset,
    },
    /// The offset lies below the oldest record kept.
    Trimmed {
        /// Offset of the oldest record kept.
        first_offset: Offset,
    },
    /// The blocks asked for are damaged on the nodes that were asked, and no other had them within
    /// the time for requests.
    Damaged,
    /// The node that shall lead is no voter of the log.
    NotVoter,
    /// Another hand-over is under way.
    Busy,
    /// The node that shall lead did not take over in time; the old leader goes on.
    NotTakenOver,
    /// Nodes were reached, but none that leads the log, within the time for requests.
    NoLeader,
    /// No node was reached within the time for requests.
    Unreachable,
    /// The leader was reached but did not answer within the time for requests.
    TimedOut,
    /// The client was closed.
    Stopped,
}

impl fmt::Display for AskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownLog => f.write_str("there is no such log"),
            Self::BeyondEnd { end_offset } => {
                write!(f, "the offset lies past the log's end, {end_offset}")
            }
            Self::Trimmed { first_offset } => {
                write!(f, "the oldest record kept has offset {first_offset}")
            }
            Self::Damaged => f.write_str("the blocks are damaged on the nodes that were asked"),
            Self::NotVoter => f.write_str("the node is no voter of this log"),
            Self::Busy => f.write_str("another hand-over of this log is under way"),
            Self::NotTakenOver => f.write_str("the node did not take over in time"),
            Self::NoLeader => f.write_str("no node that was reached leads the log"),
            Self::Unreachable => f.write_str("no node was reached"),
            Self::TimedOut => f.write_str("the leader did not answer in time"),
            Self::Stopped => f.write_str("the client is closed"),
        }
    }
}

impl std::error::Error for AskError {}

/// What is asked.
#[derive(Clone, Copy, Debug)]
pub(super) enum Question {
    Fetch(FetchRequest),
    Transfer { to: NodeId },
    Trim { before: Offset },
}

impl Question {
    fn end(&self, token: u64, error: AskError, effects: &mut Effects) {
        effects.push(match self {
            Self::Fetch(_) => Effect::Fetched {
                token,
                result: Err(error),
            },
            Self::Transfer { .. } => Effect::Transferred {
                token,
                result: Err(error),
            },
            Self::Trim { .. } => Effect::Trimmed {
                token,
                result: Err(error),
            },
        });
    }
}

#[derive(Debug)]
struct Ask {
    token: u64,
    question: Question,
    /// A fetch: until when it waits at the log's end.
    wait_until: Nanos,
    /// When it is given up.
    deadline: Nanos,
    not_before: Nanos,
    current: Option<Try>,
    /// A fetch whose blocks a node has lost.
    loss: Option<Loss>,
    /// A transfer that a leader has begun for us.
    begun: bool,
}

/// What is known of blocks that a node could not read. They are decided: that node found them below
/// the log's end, after whatever the fetch must rely on was seen to. So any replica may give them.
#[derive(Debug)]
struct Loss {
    /// Offset after the last record that was committed then.
    end_offset: Offset,
    /// Who did not give them: they are damaged there, or have not arrived yet.
    asked: Vec<ConnectionId>,
    /// When the last of them said so.
    asked_at: Nanos,
}

impl Ask {
    fn needs_leader(&self) -> bool {
        let any =
            matches!(self.question, Question::Fetch(fetch) if fetch.mode == ReadMode::AnyReplica);
        !any && self.loss.is_none()
    }

    /// That node does not give the blocks, although they are decided.
    fn on_loss(&mut self, now: Nanos, by: ConnectionId, end_offset: Offset) {
        let loss = self.loss.get_or_insert(Loss {
            end_offset,
            asked: Vec::new(),
            asked_at: now,
        });
        loss.asked_at = now;
        loss.end_offset = loss.end_offset.max(end_offset);
        loss.asked.push(by);
    }
}

#[derive(Clone, Copy, Debug)]
struct Try {
    connection: ConnectionId,
    /// When the answer is due at the latest, by the wait that was asked for.
    due: Nanos,
}

/// What an answer means for the belief about who leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AskAdvice {
    Serves,
    Denies,
    None,
}

/// The open questions to one log.
#[derive(Debug, Default)]
pub(super) struct Asks {
    list: Vec<Ask>,
    /// Turns among replicas, for those that any may answer.
    turn: usize,
}

impl Asks {
    pub(super) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    pub(super) fn push(&mut self, now: Nanos, token: u64, question: Question, timeout: Nanos) {
        let wait = match question {
            Question::Fetch(fetch) => fetch.wait,
            Question::Transfer { .. } | Question::Trim { .. } => Nanos(0),
        };
        self.list.push(Ask {
            token,
            question,
            wait_until: now.after(wait),
            deadline: now.after(wait).after(timeout),
            not_before: now,
            current: None,
            loss: None,
            begun: false,
        });
    }

    /// Whether a question waits that any open connection would do for.
    pub(super) fn wants_any(&self) -> bool {
        let any = |ask: &Ask| ask.current.is_none() && !ask.needs_leader();
        self.list.iter().any(any)
    }

    /// Whether a question waits for blocks that some node has lost, and any other may have.
    pub(super) fn wants_everybody(&self) -> bool {
        self.list.iter().any(|ask| ask.loss.is_some())
    }

    /// Whether a question waits for the leader.
    pub(super) fn wants_leader(&self) -> bool {
        self.list.iter().any(|ask| ask.needs_leader())
    }

    /// Questions asked of a node that is not believed to lead any more are asked again.
    pub(super) fn aim_at(&mut self, leader: ConnectionId) {
        for ask in &mut self.list {
            if ask.needs_leader() && ask.current.is_some_and(|t| t.connection != leader) {
                ask.current = None;
            }
        }
    }

    pub(super) fn on_closed(&mut self, lost: ConnectionId) {
        for ask in &mut self.list {
            if ask.current.is_some_and(|t| t.connection == lost) {
                ask.current = None;
            }
        }
    }

    /// Asks what is to be asked: of the leader's connection, or of `any`.
    pub(super) fn send(
        &mut self,
        now: Nanos,
        group: GroupId,
        leader: Option<ConnectionId>,
        any: &[ConnectionId],
        post: &mut Post,
        effects: &mut Effects,
    ) {
        for ask in &mut self.list {
            if ask.current.is_some_and(|t| t.due.after(OVERDUE) <= now) {
                ask.current = None;
            }
            if ask.current.is_some() || ask.not_before > now {
                continue;
            }
            let connection = if ask.needs_leader() {
                leader
            } else if let Some(loss) = &mut ask.loss {
                let mut others = any.iter().copied();
                let other = others.find(|connection| !loss.asked.contains(connection));
                if other.is_none() && loss.asked_at.after(REPAIR_PAUSE) <= now {
                    loss.asked.clear();
                    loss.asked_at = now;
                    any.first().copied()
                } else {
                    other
                }
            } else {
                self.turn = self.turn.wrapping_add(1);
                (!any.is_empty()).then(|| any[self.turn % any.len()])
            };
            let Some(connection) = connection else {
                continue;
            };
            let request = post.ask(now, connection, Asked::Ask(group, ask.token)).0;
            let group = group.0;
            let mut due = now;
            match ask.question {
                Question::Fetch(fetch) => {
                    let mut wait = ask.wait_until.since(now).min(WAIT_PIECE);
                    let mut mode = fetch.mode;
                    if ask.loss.is_some() {
                        // Who has not got them yet may say so at once.
                        (wait, mode) = (Nanos(0), ReadMode::AnyReplica);
                    }
                    due = now.after(wait);
                    let body = Fetch {
                        request,
                        from: fetch.from.0,
                        group,
                        size_max: fetch.size_max,
                        // A piece is far below what 32 bits of microseconds hold.
                        wait_us: (wait.0 / 1_000) as u32,
                        mode: mode.code(),
                    };
                    post.send(connection, &body, effects);
                }
                Question::Transfer { to } => {
                    let body = Transfer {
                        request,
                        to: to.0,
                        group,
                    };
                    post.send(connection, &body, effects);
                }
                Question::Trim { before } => {
                    let body = TrimRequest {
                        request,
                        before: before.0,
                        group,
                    };
                    post.send(connection, &body, effects);
                }
            }
            ask.current = Some(Try { connection, due });
        }
    }

    /// The question with that number, if its current try went out on that connection.
    fn find(&mut self, connection: ConnectionId, token: u64) -> Option<usize> {
        let found = |ask: &Ask| {
            ask.token == token && ask.current.is_some_and(|t| t.connection == connection)
        };
        self.list.iter().position(found)
    }

    /// A fetch is answered. `Err` if the answer makes no sense.
    pub(super) fn on_fetch_reply(
        &mut self,
        now: Nanos,
        connection: ConnectionId,
        token: u64,
        reply: &ArchivedFetchReply,
        payload: Payload<'_>,
        effects: &mut Effects,
    ) -> Option<AskAdvice> {
        let outcome = FetchOutcome::from_code(reply.outcome)?;
        let Some(place) = self.find(connection, token) else {
            return Some(AskAdvice::None);
        };
        let ask = &mut self.list[place];
        let served = if ask.needs_leader() {
            AskAdvice::Serves
        } else {
            AskAdvice::None
        };
        let end_offset = Offset(reply.end_offset.to_native());
        let first_offset = Offset(reply.first_offset.to_native());
        ask.current = None;
        let lacks = payload.is_empty() && outcome == FetchOutcome::Ok;
        let error = match outcome {
            FetchOutcome::Damaged => {
                ask.on_loss(now, connection, end_offset);
                return Some(served);
            }
            FetchOutcome::BeyondEnd | FetchOutcome::NotLeader if ask.loss.is_some() => {
                ask.on_loss(now, connection, Offset(0));
                return Some(served);
            }
            FetchOutcome::Ok if lacks && ask.loss.is_some() => {
                ask.on_loss(now, connection, Offset(0));
                return Some(served);
            }
            FetchOutcome::Ok if payload.is_empty() && now < ask.wait_until => return Some(served),
            FetchOutcome::Ok => {
                let mut blocks = BytesMut::with_capacity(payload.size());
                for chunk in payload.chunks() {
                    blocks.extend_from_slice(chunk);
                }
                let known = ask.loss.as_ref().map(|loss| loss.end_offset);
                let end_offset = known.map_or(end_offset, |known| known.max(end_offset));
                effects.push(Effect::Fetched {
                    token,
                    result: Ok(Fetched {
                        blocks: blocks.freeze(),
                        end_offset,
                        first_offset,
                    }),
                });
                self.list.swap_remove(place);
                return Some(served);
            }
            FetchOutcome::NotLeader => {
                return Some(if served == AskAdvice::Serves {
                    AskAdvice::Denies
                } else {
                    // A replica that lags behind everything: another may do.
                    ask.not_before = now.after(ASK_AGAIN);
                    AskAdvice::None
                });
            }
            FetchOutcome::Busy => {
                let wait = Nanos::from_micros(u64::from(reply.retry_after_us.to_native()));
                ask.not_before = now.after(wait.clamp(ASK_AGAIN, WAIT_PIECE));
                return Some(served);
            }
            FetchOutcome::UnknownLog => AskError::UnknownLog,
            FetchOutcome::BeyondEnd => AskError::BeyondEnd { end_offset },
            FetchOutcome::Trimmed => AskError::Trimmed { first_offset },
        };
        let ask = self.list.swap_remove(place);
        ask.question.end(token, error, effects);
        Some(served)
    }

    /// A transfer is answered. `None` if the answer makes no sense.
    pub(super) fn on_transfer_reply(
        &mut self,
        now: Nanos,
        connection: ConnectionId,
        token: u64,
        reply: &ArchivedTransferReply,
        effects: &mut Effects,
    ) -> Option<AskAdvice> {
        let outcome = TransferOutcome::from_code(reply.outcome)?;
        let Some(place) = self.find(connection, token) else {
            return Some(AskAdvice::None);
        };
        let ask = &mut self.list[place];
        ask.current = None;
        let error = match outcome {
            TransferOutcome::Done => {
                self.list.swap_remove(place);
                effects.push(Effect::Transferred {
                    token,
                    result: Ok(()),
                });
                return Some(AskAdvice::None);
            }
            TransferOutcome::Started => {
                // Asked again until somebody says "done": in the end the new leader itself does.
                ask.begun = true;
                ask.not_before = now.after(ASK_AGAIN);
                return Some(AskAdvice::None);
            }
            TransferOutcome::Busy if ask.begun => {
                ask.not_before = now.after(ASK_AGAIN);
                return Some(AskAdvice::None);
            }
            TransferOutcome::NotLeader => return Some(AskAdvice::Denies),
            TransferOutcome::Busy => AskError::Busy,
            TransferOutcome::UnknownLog => AskError::UnknownLog,
            TransferOutcome::NotVoter => AskError::NotVoter,
            TransferOutcome::TimedOut => AskError::NotTakenOver,
        };
        let ask = self.list.swap_remove(place);
        ask.question.end(token, error, effects);
        Some(AskAdvice::None)
    }

    /// A trim is answered. `None` if the answer makes no sense.
    pub(super) fn on_trim_reply(
        &mut self,
        now: Nanos,
        connection: ConnectionId,
        token: u64,
        reply: &ArchivedTrimReply,
        effects: &mut Effects,
    ) -> Option<AskAdvice> {
        let outcome = TrimOutcome::from_code(reply.outcome)?;
        let Some(place) = self.find(connection, token) else {
            return Some(AskAdvice::None);
        };
        let ask = &mut self.list[place];
        ask.current = None;
        let result = match outcome {
            TrimOutcome::NotLeader => return Some(AskAdvice::Denies),
            TrimOutcome::Busy => {
                ask.not_before = now.after(ASK_AGAIN);
                return Some(AskAdvice::Serves);
            }
            TrimOutcome::Done => Ok(Offset(reply.first_offset.to_native())),
            TrimOutcome::UnknownLog => Err(AskError::UnknownLog),
            TrimOutcome::BeyondEnd => Err(AskError::BeyondEnd {
                end_offset: Offset(reply.end_offset.to_native()),
            }),
        };
        self.list.swap_remove(place);
        effects.push(Effect::Trimmed { token, result });
        Some(AskAdvice::Serves)
    }

    /// Ends the questions whose time is over, for the reason given.
    pub(super) fn expire(&mut self, now: Nanos, reason: AskError, effects: &mut Effects) {
        self.list.retain(|ask| {
            let expired = ask.deadline <= now;
            if expired {
                let lost = ask.loss.as_ref().map(|_| AskError::Damaged);
                ask.question.end(ask.token, lost.unwrap_or(reason), effects);
            }
            !expired
        });
    }

    /// The log does not exist.
    pub(super) fn on_unknown(&mut self, effects: &mut Effects) {
        for ask in self.list.drain(..) {
            ask.question.end(ask.token, AskError::UnknownLog, effects);
        }
    }

    pub(super) fn stop(&mut self, effects: &mut Effects) {
        for ask in self.list.drain(..) {
            ask.question.end(ask.token, AskError::Stopped, effects);
        }
    }

    /// When something is to be done whatever is heard.
    pub(super) fn next_timer(&self, now: Nanos) -> Option<Nanos> {
        let timers = self.list.iter().map(|ask| {
            let own = match (ask.current, &ask.loss) {
                (Some(current), _) => current.due.after(OVERDUE),
                (None, _) if ask.not_before > now => ask.not_before,
                (None, Some(loss)) => loss.asked_at.after(REPAIR_PAUSE),
                (None, None) => ask.deadline,
            };
            own.min(ask.deadline)
        });
        timers.min()
    }

    /// When the oldest answer from a leader was due.
    pub(super) fn oldest_due(&self) -> Option<Nanos> {
        let waiting = self.list.iter().filter(|ask| ask.needs_leader());
        waiting.filter_map(|ask| ask.current).map(|t| t.due).min()
    }
}
