//! One log's replica on this shard: its Raft state, its producers, and who waits for what.

use std::collections::{BTreeMap, VecDeque};

use crate::bugs::{self, Switch};
use crate::frame::code::ReadMode;
use crate::id::{ConnectionId, GroupId, Index, Lsn, Nanos, NodeId, Offset, RequestId, Term};
use crate::log::producers::Producers;
use crate::log::trims::Trims;
use crate::log::{Entry, Tail};
use crate::raft::Raft;

use super::agree::Agreement;
use super::holes::Holes;
use super::need::Need;
use super::retries::Retries;
use super::segments::Segments;
use super::trim::{Removal, TrimWait};
use super::watched::Watched;

/// A client that waits for its append to be committed.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Ack {
    pub(super) index: Index,
    pub(super) connection: ConnectionId,
    pub(super) request: RequestId,
    /// Of the append's first record.
    pub(super) offset: Offset,
}

/// A fetch, as asked and already found well-formed.
#[derive(Clone, Copy, Debug)]
pub(super) struct FetchRequest {
    pub(super) connection: ConnectionId,
    pub(super) request: RequestId,
    pub(super) from: Offset,
    pub(super) size_max: u32,
    /// Until when it may wait for records at `from`.
    pub(super) deadline: Nanos,
    pub(super) mode: ReadMode,
}

/// One log's replica on this shard.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) id: GroupId,
    pub(super) raft: Watched,
    pub(super) producers: Producers,
    /// Appends of this leadership that wait for their commit, by ascending index.
    pub(super) acks: VecDeque<Ack>,
    /// Retries of appends that are in the log and not committed yet.
    pub(super) retried: Retries,
    /// Fetches at the log's end that may wait.
    pub(super) waiting: Vec<FetchRequest>,
    /// Linearizable fetches that wait for a quorum's word, by Raft's read id.
    pub(super) reading: BTreeMap<u64, FetchRequest>,
    pub(super) segments: Segments,
    /// Where the log begins.
    pub(super) trims: Trims,
    /// Who waits for a trim.
    pub(super) trimming: Vec<TrimWait>,
    /// Its decided blocks are few, and are put again rather than written to a segment.
    pub(super) is_carried: bool,
    /// Segments to be deleted.
    pub(super) removal: Option<Removal>,
    /// All through here is in synced segments, as the latest checkpoint put says.
    pub(super) segmented: Index,
    /// Sum of the block there; 0 if there is none.
    pub(super) segmented_sum: u32,
    /// What the group needs of the journal.
    pub(super) need: Need,
    /// Whether the other replicas hold the same.
    pub(super) agreement: Agreement,
    /// Blocks decided to be sent this turn, gathered once the run that holds them is sealed.
    pub(super) replicates: Vec<Replicate>,
    /// Blocks that are missing, and those that are there behind them.
    pub(super) holes: Option<Holes>,
    /// What it doubts no more is not written down yet.
    pub(super) is_doubt_due: bool,
    /// Has something to flush at the end of the turn.
    pub(super) is_dirty: bool,
}

/// Blocks that Raft wants at a peer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Replicate {
    pub(super) to: NodeId,
    pub(super) term: Term,
    pub(super) prev_index: Index,
    pub(super) prev_term: Term,
    /// First and last index to send; an empty probe has `last < first`.
    pub(super) first: Index,
    pub(super) last: Index,
}

impl Group {
    /// A replica as recovery left it.
    pub(super) fn new(
        id: GroupId,
        raft: Raft,
        producers: Producers,
        trims: Trims,
        segments: Segments,
        agreement: Agreement,
    ) -> Self {
        let base = raft.tail().base();
        let need = Need::recovered(raft.tail());
        Self {
            id,
            raft: Watched::new(raft),
            producers,
            acks: VecDeque::new(),
            retried: Retries::default(),
            waiting: Vec::new(),
            reading: BTreeMap::new(),
            // A crash may have come between a checkpoint and the deletion that it allowed.
            removal: Some(segments.map.first_number())
                .filter(|below| *below > 0)
                .map(|below| Removal::new(below, Lsn(0))),
            segments,
            trims,
            trimming: Vec::new(),
            is_carried: false,
            segmented: base.index,
            segmented_sum: base.sum,
            need,
            agreement,
            replicates: Vec::new(),
            holes: None,
            is_doubt_due: false,
            is_dirty: false,
        }
    }

    pub(super) fn tail(&self) -> &Tail {
        self.raft.tail()
    }

    /// Bytes of blocks that are not decided.
    pub(super) fn undecided_size(&self) -> u64 {
        let tail = self.tail();
        tail.size_between(self.raft.commit(), tail.last_index())
    }

    /// Nothing of this group is needed of the journal below here; `covered` is what a durable
    /// checkpoint says is in segments.
    pub(super) fn needed_from(&mut self, covered: Index, durable: Lsn) -> Lsn {
        let needed = self.need.from(self.raft.tail(), covered, durable);
        // Elsewhere these may be lost, too.
        let kept = self.holes.as_ref().and_then(Holes::lowest);
        kept.map_or(needed, |kept| kept.min(needed))
    }

    /// Offset after the last committed record: what a reader may see ends here.
    pub(super) fn end_offset(&self) -> Offset {
        let tail = self.tail();
        let commit = self.raft.commit();
        tail.entry(commit)
            .map_or(tail.base().next_offset, Entry::next_offset)
    }

    /// The log goes on through blocks that were missing, with these producers and trims.
    pub(super) fn on_restored(&mut self, producers: Producers, trims: Trims) {
        (self.producers, self.trims) = (producers, trims);
        let commit = self.raft.commit();
        self.producers.commit_through(commit);
        self.trims.commit_through(commit);
        self.need = Need::recovered(self.raft.tail());
    }

    /// Blocks from `from` on are gone, and with them what hung on them. Who waited for them was
    /// told when this node stopped leading.
    pub(super) fn truncate_from(&mut self, from: Index) {
        let has_none = self.acks.is_empty() || bugs::is_on(Switch::B74);
        assert!(has_none, "only a follower's tail is cut");
        self.producers.truncate_from(from);
        self.trims.truncate_from(from);
        self.need.on_cut(from);
    }

    /// Nobody waits on this connection any more.
    pub(super) fn forget_connection(&mut self, connection: ConnectionId) {
        self.acks.retain(|ack| ack.connection != connection);
        self.retried.forget_connection(connection);
        self.trimming.retain(|wait| !wait.is_of(connection));
        self.waiting
            .retain(|request| request.connection != connection);
        self.reading
            .retain(|_, request| request.connection != connection);
    }
}
