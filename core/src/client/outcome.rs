//! How an append ends, for whoever asked for it.
//!
//! Keeps the three ends that an append can have; knows no log and no connection.

use std::fmt;

use crate::frame::code::{Durability, NotCommittedReason};

/// How an append ended. Every append that a client accepts ends in exactly one of these.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is in the log, once, for good.
    Committed {
        /// Where the record stands in its log, dense from 0.
        offset: u64,
        /// Term of the block that holds it: the log's fencing token.
        term: u64,
        /// What it has survived.
        durability: Durability,
    },
    /// It is not in the log and never will be, unless it is appended again. `NotLeader` is also
    /// the reason if no node that leads the log was reached within the append timeout.
    NotCommitted(NotCommittedReason),
    /// Nobody could tell within the append timeout: it may be in the log, once, or not.
    Unknown,
}

impl Outcome {
    /// The offset, if the append is committed.
    #[must_use]
    pub fn offset(&self) -> Option<u64> {
        match *self {
            Self::Committed { offset, .. } => Some(offset),
            Self::NotCommitted(_) | Self::Unknown => None,
        }
    }

    /// Whether appending the same record again later may succeed and cannot write it twice. Not
    /// so for [`Outcome::Unknown`]: the first copy may be in the log.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::NotCommitted(reason) => match reason {
                NotCommittedReason::NotLeader
                | NotCommittedReason::SequenceGap
                | NotCommittedReason::Overloaded
                | NotCommittedReason::DiskFull
                | NotCommittedReason::Stopping
                | NotCommittedReason::Transferring => true,
                NotCommittedReason::UnknownLog
                | NotCommittedReason::RecordTooLarge
                | NotCommittedReason::Fenced
                | NotCommittedReason::WindowPassed
                | NotCommittedReason::Malformed => false,
            },
            Self::Committed { .. } | Self::Unknown => false,
        }
    }

    /// The outcome of the record `count` places further on in the same append.
    #[must_use]
    pub fn further(self, count: u64) -> Self {
        match self {
            Self::Committed {
                offset,
                term,
                durability,
            } => Self::Committed {
                offset: offset.saturating_add(count),
                term,
                durability,
            },
            Self::NotCommitted(_) | Self::Unknown => self,
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Committed { offset, term, .. } => {
                write!(f, "committed at offset {offset} in term {term}")
            }
            Self::NotCommitted(reason) => write!(f, "not committed: {reason}"),
            Self::Unknown => f.write_str("unknown"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_committed_append_has_an_offset_and_its_records_follow_each_other() {
        let outcome = Outcome::Committed {
            offset: 7,
            term: 2,
            durability: Durability::Quorum,
        };
        assert_eq!(outcome.further(3).offset(), Some(10));
        assert_eq!(Outcome::Unknown.further(3), Outcome::Unknown);
        assert_eq!(Outcome::Unknown.offset(), None);
    }

    #[test]
    fn what_may_be_in_the_log_is_never_called_retryable() {
        assert!(!Outcome::Unknown.is_retryable());
        assert!(!Outcome::NotCommitted(NotCommittedReason::Fenced).is_retryable());
        assert!(Outcome::NotCommitted(NotCommittedReason::NotLeader).is_retryable());
    }
}
