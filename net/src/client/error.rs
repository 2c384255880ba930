//! Why a request of a client failed, by whose fault.
//!
//! Each enum belongs to one kind of request. Appends have no errors but outcomes.

use ringwood_core::client::{AskError, LinkFault};
use ringwood_core::log::block::BlockError;
use thiserror::Error;

/// Why no client came about.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConnectError {
    /// The caller gave no endpoint.
    #[error("no endpoint given")]
    NoEndpoint,
    /// The caller gave more endpoints than a client keeps.
    #[error("{count} endpoints given, at most {count_max} are kept")]
    TooManyEndpoints {
        /// How many were given.
        count: usize,
        /// How many are kept.
        count_max: usize,
    },
    /// No endpoint led to a node; for each of them, why.
    #[error("no node reached: {}", words(.faults))]
    Unreachable {
        /// Address and fault of each endpoint.
        faults: Vec<(String, LinkFault)>,
    },
    /// No endpoint has answered within the time for requests.
    #[error("no node answered in time")]
    TimedOut,
}

fn words(faults: &[(String, LinkFault)]) -> String {
    let each = faults
        .iter()
        .map(|(address, fault)| format!("{address}: {fault}"));
    each.collect::<Vec<_>>().join("; ")
}

/// Why a fetch gave nothing. Nothing was changed by it.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum FetchError {
    /// The cluster has no log of that name.
    #[error("there is no such log")]
    UnknownLog,
    /// The offset lies past the log's end.
    #[error("the offset lies past the log's end, {end_offset}")]
    BeyondEnd {
        /// Offset after the last committed record.
        end_offset: u64,
    },
    /// The offset lies below the oldest record kept.
    #[error("the oldest record kept has offset {first_offset}")]
    Trimmed {
        /// Offset of the oldest record kept.
        first_offset: u64,
    },
    /// The node that was asked says that its copy is damaged.
    #[error("the records are damaged on the node that was asked")]
    Damaged,
    /// What came is no sound block.
    #[error("a block arrived damaged: {0}")]
    BadBlock(BlockError),
    /// Nodes were reached, but none that leads the log, in time.
    #[error("no node that was reached leads the log")]
    NoLeader,
    /// No node was reached in time.
    #[error("no node was reached")]
    Unreachable,
    /// The leader did not answer in time.
    #[error("the leader did not answer in time")]
    TimedOut,
    /// The client is closed.
    #[error("the client is closed")]
    Closed,
}

impl FetchError {
    /// Whether the same fetch may succeed later, as far as can be told.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::NoLeader | Self::Unreachable | Self::TimedOut => true,
            Self::UnknownLog
            | Self::BeyondEnd { .. }
            | Self::Trimmed { .. }
            | Self::Damaged
            | Self::BadBlock(_)
            | Self::Closed => false,
        }
    }
}

impl From<AskError> for FetchError {
    fn from(error: AskError) -> Self {
        match error {
            AskError::UnknownLog => Self::UnknownLog,
            AskError::BeyondEnd { end_offset } => Self::BeyondEnd {
                end_offset: end_offset.0,
            },
            AskError::Trimmed { first_offset } => Self::Trimmed {
                first_offset: first_offset.0,
            },
            AskError::Damaged => Self::Damaged,
            AskError::NoLeader => Self::NoLeader,
            AskError::Unreachable => Self::Unreachable,
            // The other three are answers to a transfer and never to a fetch.
            AskError::TimedOut | AskError::NotVoter | AskError::Busy | AskError::NotTakenOver => {
                Self::TimedOut
            }
            AskError::Stopped => Self::Closed,
        }
    }
}

/// Why leadership was not handed over.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum TransferError {
    /// The cluster has no log of that name.
    #[error("there is no such log")]
    UnknownLog,
    /// The cluster has no node of that name.
    #[error("there is no such node")]
    UnknownNode,
    /// The node is no voter of the log.
    #[error("the node is no voter of this log")]
    NotVoter,
    /// Another hand-over is under way.
    #[error("another hand-over of this log is under way")]
    Busy,
    /// The node did not take over in time; the old leader goes on.
    #[error("the node did not take over in time")]
    NotTakenOver,
    /// Nodes were reached, but none that leads the log, in time.
    #[error("no node that was reached leads the log")]
    NoLeader,
    /// No node was reached in time.
    #[error("no node was reached")]
    Unreachable,
    /// The leader did not answer in time; the hand-over may still come about.
    #[error("the leader did not answer in time")]
    TimedOut,
    /// The client is closed.
    #[error("the client is closed")]
    Closed,
}

impl From<AskError> for TransferError {
    fn from(error: AskError) -> Self {
        match error {
            AskError::UnknownLog => Self::UnknownLog,
            AskError::NotVoter => Self::NotVoter,
            AskError::Busy => Self::Busy,
            AskError::NotTakenOver => Self::NotTakenOver,
            AskError::NoLeader => Self::NoLeader,
            AskError::Unreachable => Self::Unreachable,
            // The other three are answers to a fetch and never to a transfer.
            AskError::TimedOut
            | AskError::BeyondEnd { .. }
            | AskError::Trimmed { .. }
            | AskError::Damaged => Self::TimedOut,
            AskError::Stopped => Self::Closed,
        }
    }
}
