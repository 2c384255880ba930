//! What a client's protocol half is told: the one door in.
//!
//! Keeps nothing; knows nothing of what is made of it.

use super::asks::FetchRequest;
use super::produce::Identity;
use super::records::Records;
use super::session::LinkFault;
use super::survey::Wish;
use crate::frame::Frame;
use crate::id::{ConnectionId, GroupId, Nanos, NodeId, Offset};

/// What a client is told once.
#[derive(Clone, Debug)]
pub struct Config {
    /// Addresses of some nodes, `host:port`; at least one.
    pub addresses: Vec<String>,
    /// Who appends.
    pub identity: Identity,
    /// How long an append is tried.
    pub append_timeout: Nanos,
    /// How long a question is tried, beyond the wait that it asks for.
    pub request_timeout: Nanos,
    /// Where the random part of waits comes from.
    pub seed: u64,
}

/// What a client is told from then on.
#[derive(Debug)]
pub enum Input<'a> {
    /// Time has passed; the first one dials.
    Tick,
    /// The stream that was asked for is open.
    Connected {
        /// Which.
        connection: ConnectionId,
    },
    /// A frame came.
    Received {
        /// Where from.
        connection: ConnectionId,
        /// What came.
        frame: Frame<'a>,
    },
    /// A stream could not be opened, broke, ended, or brought what is no frame.
    Closed {
        /// Which.
        connection: ConnectionId,
        /// Why.
        fault: LinkFault,
    },
    /// Records to be appended to a log, all in one append. They end in `Effect::Appended`.
    Append {
        /// The log's group.
        group: GroupId,
        /// The caller's number for them; used once.
        token: u64,
        /// When the first of them was handed over: the append timeout counts from here.
        since: Nanos,
        /// The records.
        records: Records,
    },
    /// Blocks to be read. Ends in `Effect::Fetched`.
    Fetch {
        /// The log's group.
        group: GroupId,
        /// The caller's number for it; used once.
        token: u64,
        /// What to read.
        request: FetchRequest,
    },
    /// A log's start to be moved. Ends in `Effect::Trimmed`.
    Trim {
        /// The log's group.
        group: GroupId,
        /// Names the question in its answer.
        token: u64,
        /// Offset of the first record that is to be kept.
        before: Offset,
    },
    /// A log's leadership to be handed over. Ends in `Effect::Transferred`.
    Transfer {
        /// The log's group.
        group: GroupId,
        /// The caller's number for it; used once.
        token: u64,
        /// Who shall lead.
        to: NodeId,
    },
    /// All nodes to be asked how they are. Ends in `Effect::Surveyed`.
    Survey {
        /// The caller's number for it; used once.
        token: u64,
        /// What they are asked for beside that.
        wish: Wish,
        /// How long to wait for answers.
        timeout: Nanos,
    },
    /// Everything to be ended and closed.
    Stop,
}
