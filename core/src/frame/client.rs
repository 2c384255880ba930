//! Bodies of the frames between a client and a node.
//!
//! `request` is the client's number for a request on its connection; the answer carries it back.
//! `leader` is a hint, zero if unknown. Layout: see `message`. Codes: see `code`.

use rkyv::{Archive, Deserialize, Serialize};

/// One sealed append; the payload holds its records, the frame header their size and sum.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[rkyv(derive(Debug))]
pub struct Append {
    /// Request.
    pub request: u64,
    /// Producer, chosen at random by the client.
    pub producer: u64,
    /// The producer's number for the first record.
    pub sequence: u64,
    /// Group that keeps the log.
    pub group: u32,
    /// Records in the payload, at least 1.
    pub record_count: u32,
    /// The producer's life.
    pub epoch: u32,
}

/// Answer to an append.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[rkyv(derive(Debug))]
pub struct AppendReply {
    /// Request answered.
    pub request: u64,
    /// Committed: offset of the first record. Sequence gap: the sequence expected. Fenced: the
    /// newest epoch. Otherwise 0.
    pub offset: u64,
    /// Term of the block that holds the append, or the group's term as far as known.
    pub term: u64,
    /// Leader, a hint.
    pub leader: u64,
    /// Overloaded: microseconds to wait before the next try.
    pub retry_after_us: u32,
    /// How it ended: an `Outcome`.
    pub outcome: u8,
    /// Why not: a `NotCommittedReason`, 0 unless not committed.
    pub reason: u8,
    /// What it has survived: a `Durability`, 0 unless committed.
    pub durability: u8,
}

/// Asks for blocks from an offset on.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[rkyv(derive(Debug))]
pub struct Fetch {
    /// Request.
    pub request: u64,
    /// Offset of the first record wanted.
    pub from: u64,
    /// Group that keeps the log.
    pub group: u32,
    /// Bytes of blocks wanted at most; at least one block comes whatever this says.
    pub size_max: u32,
    /// Microseconds to wait at the log's end for more; 0 answers at once.
    pub wait_us: u32,
    /// What the answer must rely on: a `ReadMode`.
    pub mode: u8,
}

/// Answer to a fetch; the payload holds blocks verbatim. The first may begin below `Fetch::from`.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[rkyv(derive(Debug))]
pub struct FetchReply {
    /// Request answered.
    pub request: u64,
    /// Offset after the last committed record.
    pub end_offset: u64,
    /// Offset of the oldest record kept.
    pub first_offset: u64,
    /// The group's term.
    pub term: u64,
    /// Leader, a hint.
    pub leader: u64,
    /// Busy: microseconds to wait before the next try.
    pub retry_after_us: u32,
    /// How it ended: a `FetchOutcome`.
    pub outcome: u8,
}

/// Asks a node how it and its groups are.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[rkyv(derive(Debug))]
pub struct StatusRequest {
    /// Request.
    pub request: u64,
}

/// Asks a node to read all that its disk keeps, now. Answered as a status request is.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[rkyv(derive(Debug))]
pub struct ScrubRequest {
    /// Request.
    pub request: u64,
}

/// A node's account of itself.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[rkyv(derive(Debug))]
pub struct Status {
    /// Request answered.
    pub request: u64,
    /// Node.
    pub node: u64,
    /// Life of its data directory.
    pub incarnation: u64,
    /// Its election timeout, nanoseconds.
    pub timeout_ns: u64,
    /// Bytes that the scrub under way has read, or the last one.
    pub scrub_done: u64,
    /// Bytes that there were to read when it began.
    pub scrub_total: u64,
    /// Scrubs that came to their end since the node's start.
    pub scrub_passes: u64,
    /// Damaged places found since then: segments, and stretches of the journal.
    pub damage_found: u64,
    /// Those of them that were healed.
    pub damage_healed: u64,
    /// Version of its program, UTF-8.
    pub version: Vec<u8>,
    /// The other nodes, as it sees them.
    pub peers: Vec<PeerStatus>,
    /// What needs somebody's attention, a UTF-8 sentence each.
    pub alarms: Vec<Vec<u8>>,
    /// How its disk is written, in words, UTF-8.
    pub storage: Vec<u8>,
    /// Its groups.
    pub groups: Vec<GroupStatus>,
    /// Replicas of the groups it leads, in the order of group and node.
    pub progress: Vec<ReplicaStatus>,
    /// What set the timeout: a `TimeoutReason`.
    pub timeout_reason: u8,
}

/// A link to a peer.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[rkyv(derive(Debug))]
pub struct PeerStatus {
    /// Peer.
    pub node: u64,
    /// Round trip, nanoseconds; 0 is unknown.
    pub rtt_ns: u64,
    /// 1: connected.
    pub connected: u8,
}

/// A group as one of its replicas sees it.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[rkyv(derive(Debug))]
pub struct GroupStatus {
    /// Term.
    pub term: u64,
    /// Leader, 0 if unknown.
    pub leader: u64,
    /// Commit index.
    pub commit: u64,
    /// Index through which this replica's disk has the group.
    pub durable: u64,
    /// Last index here.
    pub last: u64,
    /// Offset after the last committed record.
    pub end_offset: u64,
    /// Offset of the oldest record kept.
    pub first_offset: u64,
    /// Group.
    pub group: u32,
    /// What this replica does: a `ReplicaState`.
    pub state: u8,
}

/// A replica as its leader sees it.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[rkyv(derive(Debug))]
pub struct ReplicaStatus {
    /// Node that keeps the replica.
    pub node: u64,
    /// Index through which its disk is known to have the group.
    pub durable: u64,
    /// Bytes of blocks that it lacks.
    pub lag_bytes: u64,
    /// Group.
    pub group: u32,
    /// What it does: a `ReplicaState`.
    pub state: u8,
}

/// Asks the leader of a group to hand over.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[rkyv(derive(Debug))]
pub struct Transfer {
    /// Request.
    pub request: u64,
    /// Node that shall lead.
    pub to: u64,
    /// Group.
    pub group: u32,
}

/// Answer to a transfer.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[rkyv(derive(Debug))]
pub struct TransferReply {
    /// Request answered.
    pub request: u64,
    /// Leader, a hint.
    pub leader: u64,
    /// How it ended: a `TransferOutcome`.
    pub outcome: u8,
}

/// Asks the leader of a log to move its start: what lies before is not kept any more.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[rkyv(derive(Debug))]
pub struct TrimRequest {
    /// Request.
    pub request: u64,
    /// Offset of the first record that is to be kept.
    pub before: u64,
    /// Group that keeps the log.
    pub group: u32,
}

/// Answer to a trim.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[rkyv(derive(Debug))]
pub struct TrimReply {
    /// Request answered.
    pub request: u64,
    /// Offset of the oldest record kept.
    pub first_offset: u64,
    /// Offset after the last committed record.
    pub end_offset: u64,
    /// Leader, a hint.
    pub leader: u64,
    /// How it ended: a `TrimOutcome`.
    pub outcome: u8,
}
