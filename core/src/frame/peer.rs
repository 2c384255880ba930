//! Bodies of the frames between nodes: heartbeats, replication, votes, repair, comparison.
//!
//! Flags are a byte that is 0 or 1. Indexes, terms and times are what `id` says. Layout: see
//! `message`. What the fields mean for safety is `raft`'s business.

use rkyv::{Archive, Deserialize, Serialize};

/// One per link and interval, for all groups that the sender leads. Control lane.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[rkyv(derive(Debug))]
pub struct Heartbeat {
    /// Nanoseconds of the sender's clock; comes back as `HeartbeatAck::echo`.
    pub sent_at: u64,
    /// The sender's election timeout, nanoseconds.
    pub timeout: u64,
    /// How long the oldest of the sender's journal writes has been under way, nanoseconds; 0 if
    /// none is.
    pub write_age: u64,
    /// The longest that a journal write of the sender took lately, one under way included,
    /// nanoseconds.
    pub write_span: u64,
    /// One for each group that the sender leads and the receiver votes in.
    pub beats: Vec<Beat>,
}

/// A leader's word about one group.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[rkyv(derive(Debug))]
pub struct Beat {
    /// The leader's term.
    pub term: u64,
    /// The leader's commit index.
    pub commit: u64,
    /// Index through which the leader's own disk has the group.
    pub durable: u64,
    /// Number of the read round that an answer to this confirms.
    pub round: u64,
    /// Group.
    pub group: u32,
}

/// Answer to a heartbeat. Control lane.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[rkyv(derive(Debug))]
pub struct HeartbeatAck {
    /// `Heartbeat::sent_at`, unchanged.
    pub echo: u64,
    /// One for each beat answered.
    pub acks: Vec<BeatAck>,
}

/// A follower's word about one group.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[rkyv(derive(Debug))]
pub struct BeatAck {
    /// The follower's term.
    pub term: u64,
    /// Read round of the beat answered.
    pub round: u64,
    /// Highest index known to match this leader's and durable here; 0 is unknown.
    pub durable: u64,
    /// Group.
    pub group: u32,
}

/// Blocks for a follower; the payload holds them. Data lane, or bulk lane while catching up.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[rkyv(derive(Debug))]
pub struct AppendEntries {
    /// The leader's term.
    pub term: u64,
    /// Index just before the first block.
    pub prev_index: u64,
    /// Term of the block at `prev_index`.
    pub prev_term: u64,
    /// The leader's commit index.
    pub commit: u64,
    /// Group.
    pub group: u32,
    /// Blocks in the payload; 0 is a probe.
    pub count: u32,
}

/// Answer to `AppendEntries`. Control lane.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[rkyv(derive(Debug))]
pub struct AppendEntriesAck {
    /// The follower's term.
    pub term: u64,
    /// Matched: durable through here. Conflict: try again from at most here.
    pub index: u64,
    /// Conflict: term of the follower's block at `index`; 0 is none.
    pub conflict_term: u64,
    /// `AppendEntries::prev_index`, unchanged, by which a stale refusal is recognised.
    pub prev_index: u64,
    /// Group.
    pub group: u32,
    /// 1: matched and durable. 0: conflict.
    pub matched: u8,
}

/// Asks for a vote. Control lane.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[rkyv(derive(Debug))]
pub struct VoteRequest {
    /// Term to be elected in.
    pub term: u64,
    /// Last index of the candidate.
    pub last_index: u64,
    /// Term of the candidate's last block.
    pub last_term: u64,
    /// Group.
    pub group: u32,
    /// 1: would you vote (nothing is promised)?
    pub pre: u8,
    /// 1: the leader itself asked the candidate to stand.
    pub transfer: u8,
}

/// Answer to a vote request. Control lane.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[rkyv(derive(Debug))]
pub struct VoteReply {
    /// The term asked for.
    pub term: u64,
    /// The voter's own term.
    pub voter_term: u64,
    /// Group.
    pub group: u32,
    /// `VoteRequest::pre`, unchanged.
    pub pre: u8,
    /// 1: granted.
    pub granted: u8,
}

/// A leader hands over: campaign at once. Control lane.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[rkyv(derive(Debug))]
pub struct TimeoutNow {
    /// The leader's term.
    pub term: u64,
    /// Group.
    pub group: u32,
}

/// Asks any replica for blocks that the sender's disk has lost. Bulk lane.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[rkyv(derive(Debug))]
pub struct BlockRequest {
    /// The sender's number for this request; comes back in the answer.
    pub number: u64,
    /// Index of the first block wanted; 0 only asks where the log begins.
    pub first: u64,
    /// Index of the last.
    pub last: u64,
    /// Group.
    pub group: u32,
    /// Sum of the last, and so, by what each block names before it, of all.
    pub sum: u32,
}

/// Answer to a block request; the payload holds the first of the blocks asked for, or the head of the
/// first segment where those are trimmed. Bulk lane.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[rkyv(derive(Debug))]
pub struct BlockReply {
    /// `BlockRequest::number`, unchanged.
    pub number: u64,
    /// `BlockRequest::first`, unchanged.
    pub first: u64,
    /// Group.
    pub group: u32,
    /// Blocks in the payload; 0 unless found.
    pub count: u32,
    /// How it ended: a `BlockOutcome`.
    pub outcome: u8,
}

/// A leader's log begins behind what the follower has: go on from there. The payload is the head of
/// the leader's first segment, as it stands on disk. Bulk lane.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[rkyv(derive(Debug))]
pub struct Restore {
    /// The leader's term.
    pub term: u64,
    /// Offset of the oldest record kept.
    pub start: u64,
    /// Group.
    pub group: u32,
}

/// What a voter says of itself, to one whose disk has lost something; or that one, asking. Control
/// lane.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[rkyv(derive(Debug))]
pub struct StateReport {
    /// The asker's number for its questions, another one after every start.
    pub number: u64,
    /// The sender's term.
    pub term: u64,
    /// Last index of its log.
    pub last_index: u64,
    /// Term of the block there.
    pub last_term: u64,
    /// What it knows to be committed.
    pub commit: u64,
    /// Group.
    pub group: u32,
    /// What it may have forgotten: 1 blocks, 2 its term or vote, 3 both.
    pub doubt: u8,
    /// 1: it leads.
    pub is_leader: u8,
    /// 1: it answers; 0: it asks.
    pub is_reply: u8,
}

/// What the sender holds at some places of its logs, and what it asks of the receiver's. Control lane.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[rkyv(derive(Debug))]
pub struct BlockSums {
    /// At most one for each log.
    pub sums: Vec<BlockSum>,
}

/// A place in a log. A block names the sum of the one before it, so its sum stands for all through it.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[rkyv(derive(Debug))]
pub struct BlockSum {
    /// Index of a block; if it is told, it is committed at the sender.
    pub index: u64,
    /// Group.
    pub group: u32,
    /// Sum of the block; 0 if it is not told.
    pub sum: u32,
    /// 1: the sum is told.
    pub is_told: u8,
    /// 1: the receiver is asked for its own.
    pub is_asked: u8,
}

/// A leader tells a follower that is far behind from whom to get what it lacks: that one holds the
/// leader's own blocks through `last`, all of them committed. Bulk lane.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[rkyv(derive(Debug))]
pub struct Referral {
    /// The leader's term.
    pub term: u64,
    /// The first block that the follower was not sent.
    pub first: u64,
    /// The last one that it may take so.
    pub last: u64,
    /// Who has them.
    pub source: u64,
    /// Group.
    pub group: u32,
    /// Sum of the last, and so, by what each block names before it, of all.
    pub sum: u32,
}

/// A follower does not get on by a referral: its leader is to send what is missing. If it has come to
/// the end, nothing is said but the acknowledgement of the last block. Control lane.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[rkyv(derive(Debug))]
pub struct ReferralEnd {
    /// The leader's term.
    pub term: u64,
    /// `Referral::source`, unchanged.
    pub source: u64,
    /// Group.
    pub group: u32,
}
