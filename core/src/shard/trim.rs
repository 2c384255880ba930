//! Where a log begins: who asks for it to be moved, when its leader does so by itself, and which
//! segments nobody needs after that.
//!
//! ```text
//!  asked, or retention ─▶ trim block ─▶ committed: every replica serves from there on
//!    ─▶ a checkpoint names the first segment that is kept ─▶ durable: those below are deleted
//! ```
//! A crash in between leaves what the last durable checkpoint names, and files below it at most: at
//! the start their deletion is asked for again. Nothing else ever deletes. Knows no file's content.

use crate::frame::client::{ArchivedTrimRequest, TrimReply};
use crate::frame::code::TrimOutcome;
use crate::id::{ConnectionId, GroupId, Index, Lsn, Nanos, Offset, RequestId};
use crate::log::block::{BlockKind, TRIM_SIZE, trim_append};
use crate::raft::ProposeRefusal;

use super::group::Group;
use super::{Effect, Effects, Shard};

/// How often a leader looks whether a log keeps more than it should.
const RETENTION_PAUSE: Nanos = Nanos::from_millis(1_000);

/// How much of a log is kept. What both bounds let go is what either lets go; whole segments only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Retention {
    /// The oldest segment goes as long as the others hold at least so many bytes.
    pub bytes: Option<u64>,
    /// A segment goes once all its blocks are at least so old.
    pub seconds: Option<u64>,
}

/// A client that waits for its trim to be committed.
#[derive(Clone, Copy, Debug)]
pub(super) struct TrimWait {
    index: Index,
    connection: ConnectionId,
    request: RequestId,
}

impl TrimWait {
    pub(super) fn is_of(&self, connection: ConnectionId) -> bool {
        self.connection == connection
    }
}

/// Segments whose deletion is due.
#[derive(Clone, Copy, Debug)]
pub(super) struct Removal {
    /// Those with a lower number.
    below: u32,
    /// Once the run at this lsn is durable.
    after: Lsn,
}

impl Removal {
    /// What the checkpoint in the run at `after` gives up.
    pub(super) fn new(below: u32, after: Lsn) -> Self {
        Self { below, after }
    }
}

impl Shard {
    pub(super) fn on_trim(
        &mut self,
        connection: ConnectionId,
        body: &ArchivedTrimRequest,
        effects: &mut Effects,
    ) {
        let request = RequestId(body.request.to_native());
        let before = Offset(body.before.to_native());
        let Some(&position) = self.positions.get(&GroupId(body.group.to_native())) else {
            self.reply_trim(None, connection, request, TrimOutcome::UnknownLog, effects);
            return;
        };
        let outcome = match self.trim(position, before) {
            Ok(None) => TrimOutcome::Done,
            Ok(Some(index)) => {
                self.groups[position].trimming.push(TrimWait {
                    index,
                    connection,
                    request,
                });
                return;
            }
            Err(outcome) => outcome,
        };
        self.reply_trim(Some(position), connection, request, outcome, effects);
    }

    /// Proposes that the log begin at `before`, and says where that stands; none if it does already.
    fn trim(&mut self, position: usize, before: Offset) -> Result<Option<Index>, TrimOutcome> {
        let group = &self.groups[position];
        match group.raft.can_propose() {
            Ok(()) => {}
            Err(ProposeRefusal::NotLeader { .. }) => return Err(TrimOutcome::NotLeader),
            Err(ProposeRefusal::Transferring | ProposeRefusal::Full) => {
                return Err(TrimOutcome::Busy);
            }
        }
        // A new leader does not know yet how far the one before it had committed.
        let is_new = group.tail().term_at(group.raft.commit()) != Some(group.raft.term());
        // One at a time: each may use what the journal keeps for votes.
        if is_new || group.trims.latest() != group.trims.start() || self.is_stopping() {
            return Err(TrimOutcome::Busy);
        }
        if before > group.end_offset() {
            return Err(TrimOutcome::BeyondEnd);
        }
        if before <= group.trims.start() {
            return Ok(None);
        }
        self.close_block();
        self.open_block(position, BlockKind::Trim, TRIM_SIZE)
            .ok_or(TrimOutcome::Busy)?;
        let (header, payload) = trim_append(before);
        let pushed = self
            .journal
            .push_opaque(&header, [&payload[..]].into_iter());
        assert!(pushed.is_ok(), "an append of our own is well-formed");
        self.close_block();
        let group = &mut self.groups[position];
        let index = group.tail().last_index();
        group.trims.note(index, before);
        Ok(Some(index))
    }

    /// Everything through `index` is committed: the start moves, and whoever asked is told.
    pub(super) fn settle_trims(&mut self, position: usize, index: Index, effects: &mut Effects) {
        let group = &mut self.groups[position];
        group.trims.commit_through(index);
        let is_done = |wait: &mut TrimWait| wait.index <= index;
        let done: Vec<TrimWait> = group.trimming.extract_if(.., is_done).collect();
        for wait in done {
            let (connection, request) = (wait.connection, wait.request);
            let done = TrimOutcome::Done;
            self.reply_trim(Some(position), connection, request, done, effects);
        }
    }

    /// This node leads no more. Whoever asked may ask the next leader: a trim is the same twice.
    pub(super) fn abandon_trims(&mut self, position: usize, effects: &mut Effects) {
        for wait in std::mem::take(&mut self.groups[position].trimming) {
            let (connection, request) = (wait.connection, wait.request);
            let outcome = TrimOutcome::NotLeader;
            self.reply_trim(Some(position), connection, request, outcome, effects);
        }
    }

    fn reply_trim(
        &mut self,
        position: Option<usize>,
        connection: ConnectionId,
        request: RequestId,
        outcome: TrimOutcome,
        effects: &mut Effects,
    ) {
        let group = position.map(|position| &self.groups[position]);
        let leader = group.and_then(|group| group.raft.leader());
        let reply = TrimReply {
            request: request.0,
            first_offset: group.map_or(0, |group| group.trims.start().0),
            end_offset: group.map_or(0, |group| group.end_offset().0),
            leader: leader.unwrap_or_default().0,
            outcome: outcome.code(),
        };
        self.reply(connection, &reply, effects);
    }

    /// Once in a while: logs that this node leads let go what they need not keep.
    pub(super) fn maybe_retain(&mut self, now: Nanos) {
        if self.config.retention.is_empty() || now < self.retention_at {
            return;
        }
        self.retention_at = now.after(RETENTION_PAUSE);
        for position in 0..self.groups.len() {
            let group = &self.groups[position];
            let Some(retention) = self.config.retention.get(&group.id) else {
                continue;
            };
            let kept = group.segments.map.kept_from(retention, self.date);
            if kept.is_some_and(|kept| kept > group.trims.latest()) && group.raft.is_leader() {
                // What it refuses now it may take a second later.
                let _ = self.trim(position, kept.expect("seen just now"));
            }
        }
    }

    /// Runs below `durable` are on disk: what their checkpoints gave up may go.
    pub(super) fn remove_segments(&mut self, durable: Lsn, effects: &mut Effects) {
        for group in &mut self.groups {
            let due = |removal: &mut Removal| removal.after < durable;
            if let Some(removal) = group.removal.take_if(due) {
                effects.push(Effect::SegmentRemove {
                    group: group.id,
                    below: removal.below,
                });
            }
        }
    }
}

impl Group {
    /// Number of the first segment that holds anything behind the start; 0 before there is any.
    pub(super) fn first_kept(&self) -> u32 {
        self.segments.map.number_at(self.trims.start())
    }
}
