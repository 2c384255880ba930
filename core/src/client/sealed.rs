//! One append with its number, its tries, and what a node says of it.
//!
//! Keeps whether it may be in some log. Knows neither its neighbours nor its log.

use super::effects::{Effect, Effects};
use super::outcome::Outcome;
use super::records::Waiting;
use crate::frame::client::ArchivedAppendReply;
use crate::frame::code::{self, Durability, NotCommittedReason};
use crate::frame::writer::PayloadClaim;
use crate::id::{ConnectionId, Epoch, Nanos, RequestId, Term};

/// Where an append stands: stated in an answer's request, so that late answers find it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Name {
    pub(super) epoch: Epoch,
    pub(super) sequence: u64,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Try {
    pub(super) connection: ConnectionId,
    pub(super) request: RequestId,
    pub(super) sent: Nanos,
}

/// An append with its number.
#[derive(Debug)]
pub(super) struct Sealed {
    pub(super) sequence: u64,
    pub(super) record_count: u32,
    pub(super) payload: PayloadClaim,
    pub(super) parts: Vec<Waiting>,
    /// When the oldest record was handed over.
    pub(super) since: Nanos,
    /// The outstanding try; those before it are answered or in doubt.
    pub(super) current: Option<Try>,
    pub(super) was_sent: bool,
    /// A try was lost unanswered.
    pub(super) in_doubt: bool,
    /// Its outcome has been told.
    pub(super) resolved: bool,
}

impl Sealed {
    /// No log holds it or ever will by what was sent so far.
    pub(super) fn is_absent(&self) -> bool {
        !self.in_doubt && self.current.is_none()
    }

    pub(super) fn resolve(&mut self, outcome: Outcome, effects: &mut Effects) {
        assert!(!self.resolved, "an append has one outcome");
        self.resolved = true;
        self.current = None;
        let mut before = 0;
        // Frees the payload, too: a resolved append may stay in the window for a while.
        for part in self.parts.drain(..) {
            let outcome = outcome.further(before);
            effects.push(Effect::Appended {
                token: part.token,
                outcome,
            });
            before += u64::from(part.records.record_count());
        }
    }
}

/// An answer to an append, decoded.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reply {
    pub(super) answer: Answer,
    pub(super) term: Term,
}

/// What an answer to an append says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Committed {
        offset: u64,
        durability: Durability,
    },
    NotCommitted {
        reason: NotCommittedReason,
        retry_after: Nanos,
    },
    Unknown,
}

impl Reply {
    /// `None` if a code is none that this version knows.
    pub(super) fn read(body: &ArchivedAppendReply) -> Option<Self> {
        let answer = match code::Outcome::from_code(body.outcome)? {
            code::Outcome::Committed => Answer::Committed {
                offset: body.offset.to_native(),
                durability: Durability::from_code(body.durability)?,
            },
            code::Outcome::NotCommitted => Answer::NotCommitted {
                reason: NotCommittedReason::from_code(body.reason)?,
                retry_after: Nanos::from_micros(u64::from(body.retry_after_us.to_native())),
            },
            code::Outcome::Unknown => Answer::Unknown,
        };
        Some(Self {
            answer,
            term: Term(body.term.to_native()),
        })
    }
}
