//! What goes in and out of a group's Raft: plain values, payload never among them.
//!
//! Knows no byte layout: the shard turns these into frames and back.

use crate::id::{GroupId, Index, Lsn, Nanos, NodeId, Term};
use crate::limits::{BLOCK_SIZE_MAX, TAIL_KEEP_COUNT, UNDECIDED_SIZE_MAX, VOTER_COUNT_MAX};
use crate::log::{Doubt, HardState};

use super::doubt::Report;

/// Who takes part.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Config {
    /// The group; rotates which voter leads after a failure, so that leaders spread over nodes.
    pub group: GroupId,
    /// This node.
    pub me: NodeId,
    /// All voters in ascending order, this node among them.
    pub voters: Vec<NodeId>,
    /// Seed of all chance in this group.
    pub seed: u64,
    /// How much it may keep.
    pub bounds: Bounds,
}

/// How much a group may keep.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Bounds {
    /// Headers kept in the tail although segments hold their blocks: what a follower that lags a
    /// little, and the next leader looking for where logs part, will ask for.
    pub tail_keep_count: u64,
    /// Bytes of undecided blocks at which proposals are refused; one block may go beyond.
    pub undecided_size_full: u64,
}

impl Bounds {
    /// What a node uses.
    pub const STANDARD: Self = Self {
        tail_keep_count: TAIL_KEEP_COUNT,
        undecided_size_full: UNDECIDED_SIZE_MAX - BLOCK_SIZE_MAX as u64,
    };
}

impl Config {
    pub(super) fn assert_sane(&self) {
        assert!(
            self.voters.len() <= VOTER_COUNT_MAX,
            "more voters than a group may have"
        );
        assert!(self.voters.contains(&self.me), "only voters take part");
        assert!(
            self.voters.is_sorted(),
            "ranks need one order of voters on all nodes"
        );
        assert!(
            self.voters.windows(2).all(|pair| pair[0] != pair[1]),
            "one vote per voter"
        );
    }
}

/// When an output may leave the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum After {
    /// At once.
    Now,
    /// After the run at this lsn is durable, that is, once the journal's durable lsn is above it.
    Stored(Lsn),
}

/// Raft's own messages. Blocks travel as [`Output::Replicate`] and [`AppendRequest`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Message {
    /// RequestVote (thesis 3.4), and the question before it (9.6).
    VoteRequest {
        /// Pre-vote: would you vote for me? Binds nobody.
        pre: bool,
        /// The leader asked for this election (3.10): followers do not shield it.
        transfer: bool,
        /// Term of the election; with `pre` one above the sender's term.
        term: Term,
        /// Last index of the sender's log.
        last_index: Index,
        /// Its term.
        last_term: Term,
    },
    /// Answer to a vote request.
    VoteReply {
        /// As in the request.
        pre: bool,
        /// Yes.
        granted: bool,
        /// Term asked for.
        term: Term,
        /// The voter's own term.
        voter_term: Term,
    },
    /// Answer to blocks.
    AppendAck {
        /// The follower's term.
        term: Term,
        /// True: it has everything through `index` durably. False: no match at `prev_index`.
        matched: bool,
        /// Matched through here; or the last place that may match.
        index: Index,
        /// A refusal's term at `index`.
        conflict_term: Term,
        /// As in the request, so that a late refusal is recognised; 0 when a request was refused
        /// for its older term only.
        prev_index: Index,
    },
    /// Begin an election now: the leader hands over (3.10).
    TimeoutNow {
        /// The leader's term.
        term: Term,
    },
    /// What a voter says of itself to one in doubt, or one in doubt when it asks.
    StateReport(Report),
}

/// A block's identity in an [`AppendRequest`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockId {
    /// Its index.
    pub index: Index,
    /// Its term.
    pub term: Term,
}

/// AppendEntries (thesis 3.5) without its payload.
#[derive(Clone, Copy, Debug)]
pub struct AppendRequest<'a> {
    /// The leader's term.
    pub term: Term,
    /// Index before the first block.
    pub prev_index: Index,
    /// Its term.
    pub prev_term: Term,
    /// The leader's commit index.
    pub commit: Index,
    /// The blocks, dense from `prev_index + 1`.
    pub blocks: &'a [BlockId],
}

/// Blocks to copy into the open run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Accepted {
    /// So many of the request's first blocks are here already.
    pub skip: usize,
}

/// One group's part of its leader's heartbeat.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Beat {
    /// The leader's term.
    pub term: Term,
    /// Its commit index.
    pub commit: Index,
    /// How far its own disk has come.
    pub durable: Index,
    /// Latest round of reads.
    pub round: u64,
}

/// Answer to a [`Beat`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BeatAck {
    /// The follower's term.
    pub term: Term,
    /// As in the beat.
    pub round: u64,
    /// Highest index known to match this leader and durable here; 0 when unknown.
    pub durable: Index,
}

/// What Raft wants done. The shard carries it out in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Put this into the open run. What depends on it waits by itself.
    Persist(HardState),
    /// This replica doubts no more than this from here on. To be said with the next hard state;
    /// until that is durable a crash brings the doubt back, which costs time only.
    Doubts(Doubt),
    /// Send a message on the control lane.
    Send {
        /// To this peer.
        to: NodeId,
        /// This.
        message: Message,
        /// Not before this.
        after: After,
    },
    /// Send blocks `first..=last` on the data lane. Not held back: peers write in parallel with
    /// the leader. If a block is no longer in memory: [`super::Raft::missed`]. With `last` just
    /// below `first` there is none: the message only shows where the logs match.
    Replicate {
        /// To this peer.
        to: NodeId,
        /// The leader's term.
        term: Term,
        /// Index before the first block.
        prev_index: Index,
        /// Its term.
        prev_term: Term,
        /// First block.
        first: Index,
        /// Last block.
        last: Index,
        /// The leader's commit index.
        commit: Index,
    },
    /// The peer's next block is below the tail's first header, or no longer in memory: read one
    /// chunk from journal or segments, send it, and say so by [`super::Raft::caught_up`] or
    /// [`super::Raft::catch_up_failed`]. A later one for the same peer replaces this one.
    CatchUp {
        /// The peer.
        to: NodeId,
        /// First block of the chunk.
        next: Index,
    },
    /// Leader now: build a no-op block in this term and propose it.
    BecameLeader {
        /// The term.
        term: Term,
    },
    /// Leader no more, or the term went up: acks that wait end as unknown.
    SteppedDown {
        /// The term now.
        term: Term,
        /// Its leader, if known.
        leader: Option<NodeId>,
    },
    /// The tail was cut from this index on: drop what hangs on these indexes.
    Truncated {
        /// First index that is gone.
        from: Index,
    },
    /// The commit index moved to here. It may be ahead of this node's own disk.
    Committed {
        /// The commit index.
        index: Index,
    },
    /// A heartbeat to all peers must leave in this turn.
    BeatNow,
    /// This read may be answered once everything through `index` can be read.
    ReadReady {
        /// The caller's id.
        id: u64,
        /// The commit index it must see.
        index: Index,
    },
    /// This read cannot be served here: not leader, or too many reads.
    ReadFailed {
        /// The caller's id.
        id: u64,
    },
}

/// Collects outputs.
#[derive(Clone, Debug, Default)]
pub struct Outbox {
    /// Start of the open run; the shard sets it before each call.
    pub lsn: Lsn,
    /// What is to be done, in order.
    pub list: Vec<Output>,
}

/// Why a proposal is not taken now. Nothing changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProposeRefusal {
    /// Another node leads, or none.
    NotLeader {
        /// Whom this node follows.
        leader: Option<NodeId>,
    },
    /// Leadership is being handed over; retry, perhaps elsewhere, within T.
    Transferring,
    /// As many bytes as a group may have are undecided.
    Full,
}

/// Why leadership is not handed over. Nothing changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransferRefusal {
    /// Another node leads, or none.
    NotLeader {
        /// Whom this node follows.
        leader: Option<NodeId>,
    },
    /// The target is no voter of this group.
    UnknownVoter,
    /// The target leads already.
    AlreadyLeader,
    /// Another transfer is going on.
    InProgress {
        /// Its target.
        to: NodeId,
    },
    /// The target has not answered for T: it could not take over.
    Silent {
        /// When it last answered.
        heard_at: Nanos,
    },
}

/// What peers did that they must not do, or could not without a fault; counted, never a panic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Faults {
    /// Messages from a node that is no voter of this group.
    pub unknown_sender_count: u64,
    /// Messages whose numbers cannot be: gaps, terms that go down, absurdly high values.
    pub malformed_count: u64,
    /// Messages that contradict what Raft guarantees: two leaders in a term, a leader without a
    /// committed block. Any is a sign of a broken disk or of two nodes with one identity.
    pub disagreement_count: u64,
}

/// No index or term comes near this in a group's life; beyond it arithmetic could overflow.
const NUMBER_MAX: u64 = 1 << 62;

pub(super) fn is_plausible(term: Term, index: Index) -> bool {
    term.0 <= NUMBER_MAX && index.0 <= NUMBER_MAX
}

impl Message {
    /// Highest term that the sender claims to have reached itself. A vote asked for is none: a
    /// pre-vote asks for a term nobody may ever reach, and a vote may be refused.
    pub(super) fn reached_term(&self) -> Option<Term> {
        match *self {
            Self::VoteRequest { .. } => None,
            Self::VoteReply { voter_term, .. } => Some(voter_term),
            Self::AppendAck { term, .. } | Self::TimeoutNow { term } => Some(term),
            Self::StateReport(report) => Some(report.term),
        }
    }

    pub(super) fn is_plausible(&self) -> bool {
        match *self {
            Self::VoteRequest {
                term,
                last_index,
                last_term,
                ..
            } => is_plausible(term, last_index) && last_term <= term,
            Self::VoteReply {
                term, voter_term, ..
            } => is_plausible(term.max(voter_term), Index(0)),
            Self::AppendAck {
                term,
                index,
                conflict_term,
                prev_index,
                ..
            } => is_plausible(term.max(conflict_term), index.max(prev_index)),
            Self::TimeoutNow { term } => is_plausible(term, Index(0)),
            Self::StateReport(report) => {
                is_plausible(report.term, report.last_index.max(report.commit))
                    && report.last_term <= report.term
            }
        }
    }
}

impl AppendRequest<'_> {
    /// Dense indexes, terms that never go down and end at the leader's at most.
    pub(super) fn is_plausible(&self) -> bool {
        if !is_plausible(self.term, self.prev_index.max(self.commit)) {
            return false;
        }
        let (mut index, mut term) = (self.prev_index, self.prev_term);
        for block in self.blocks {
            if block.index != index.next() || block.term < term {
                return false;
            }
            (index, term) = (block.index, block.term);
        }
        term <= self.term && (self.prev_index > Index(0) || self.prev_term == Term(0))
    }
}
