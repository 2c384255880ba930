//! What went wrong in a step, where the states before and after it do not show that by themselves.

use std::fmt;
use std::sync::Arc;

use ringwood_core::id::{Index, Term};
use ringwood_core::raft::Faults;

/// A rule that a step broke.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Breach {
    /// An assertion of Raft, of its invariants, or of the model failed.
    Invariant(Arc<str>),
    /// Raft saw what it rules out.
    Fault(Faults),
    /// A second vote left in one term, or one in a term given up.
    TwoVotes,
    /// A vote, or what rests on it, left before it was durable.
    VoteNotDurable,
    /// Blocks were acknowledged before they were durable.
    AckNotDurable,
    /// A term had a second leader, perhaps long after the first.
    TwoLeaders(Term),
    /// Nobody can have become leader of this term by the votes that nodes gave.
    NoQuorum(Term),
    /// A block was committed that no quorum has durably.
    CommitNotDurable(Index),
    /// A read saw blocks through here only, and more were committed when it was asked for.
    StaleRead(Index),
}

impl fmt::Display for Breach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Invariant(text) => write!(f, "an assertion failed: {text}"),
            Self::Fault(faults) => write!(f, "a peer did what it must not: {faults:?}"),
            Self::TwoVotes => f.write_str("a node voted twice in a term"),
            Self::VoteNotDurable => f.write_str("a vote left before it was durable"),
            Self::AckNotDurable => f.write_str("blocks were acknowledged before they were durable"),
            Self::TwoLeaders(term) => write!(f, "term {term} has two leaders"),
            Self::NoQuorum(term) => write!(f, "term {term} has a leader without a quorum"),
            Self::CommitNotDurable(index) => {
                write!(f, "block {index} is committed and no quorum has it")
            }
            Self::StaleRead(index) => {
                write!(f, "a read saw {index}, and more was committed before it")
            }
        }
    }
}
