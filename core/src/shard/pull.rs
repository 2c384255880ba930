//! Blocks that a follower gets from another replica, because its leader said that that one has them.
//!
//! Keeps for each such log whom it asks and how far that goes. One chunk of a log is asked for at a
//! time, and the next when less than a chunk waits for the disk here: one that is slower than the source
//! is not flooded, and when source, link or leader are lost, one chunk is lost. Why the blocks are the leader's is
//! told in `refer`, which is the other half. Knows no disk.
//!
//! ```text
//!  Referral ─▶ asked ─▶ blocks: their sums, each linked to the one before, the last the one named
//!               ▲  │        └─▶ Raft, as decided blocks of its leader ─▶ storing ─┐
//!               │  │                                               nearly durable │
//!               └──┼──────────────────────────────────────────────────────────────┤
//!                  │ silence, another word, other blocks, no room                 └─▶ all are here
//!                  └─▶ ReferralEnd: the leader goes on
//! ```
//! The term's end, another leader's word, or the same blocks from the leader itself end it in silence.

use crate::frame::code::BlockOutcome;
use crate::frame::peer::{ArchivedBlockReply, ArchivedReferral, BlockRequest, ReferralEnd};
use crate::frame::{Frame, Lane};
use crate::id::{GroupId, Index, Nanos, NodeId, Term};
use crate::limits::PULL_COUNT_MAX;

use super::ask::{PATIENCE, are_linked};
use super::peer::{Claim, Giver, check_blocks};
use super::{Effects, Shard};

/// How far one has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// The source was asked for the block at `next` and those behind it, under this number.
    Asked {
        next: Index,
        number: u64,
        due: Nanos,
    },
    /// What came ends here, and the disk may not have it yet.
    Storing { last: Index },
}

/// Blocks of one log, from one source.
#[derive(Clone, Copy, Debug)]
struct Pull {
    position: usize,
    leader: NodeId,
    term: Term,
    source: NodeId,
    last: Index,
    sum: u32,
    stage: Stage,
}

/// All of a shard, at most one for each log.
#[derive(Debug, Default)]
pub(super) struct Pulls {
    list: Vec<Pull>,
    /// Chunks that came so since the start.
    pub(super) taken_count: u64,
}

impl Pulls {
    /// When a source counts as silent.
    pub(super) fn deadline(&self) -> Option<Nanos> {
        let due = self.list.iter().filter_map(|pull| match pull.stage {
            Stage::Asked { due, .. } => Some(due),
            Stage::Storing { .. } => None,
        });
        due.min()
    }

    /// The leader sends these blocks itself: it has given up on the source.
    pub(super) fn on_sent(&mut self, position: usize, first: Index, last: Index) {
        self.list.retain(|pull| match pull.stage {
            _ if pull.position != position => true,
            Stage::Asked { next, .. } => !(first..=last).contains(&next),
            Stage::Storing { last: stored } => !(first..=last).contains(&stored.next()),
        });
    }
}

impl Shard {
    pub(super) fn on_referral(
        &mut self,
        now: Nanos,
        from: NodeId,
        body: &ArchivedReferral,
        effects: &mut Effects,
    ) {
        let Some(position) = self.part_in(GroupId(body.group.to_native())) else {
            return;
        };
        let raft = &self.groups[position].raft;
        let term = Term(body.term.to_native());
        if raft.is_leader() || raft.leader() != Some(from) || raft.term() != term {
            return;
        }
        let (first, last) = (Index(body.first.to_native()), Index(body.last.to_native()));
        let source = NodeId(body.source.to_native());
        let is_other = source != from && self.peers.contains(&source);
        if first == Index(0) || last < first || !is_other {
            self.peer_fault_count += 1;
            return;
        }
        let pull = Pull {
            position,
            leader: from,
            term,
            source,
            last,
            sum: body.sum.to_native(),
            stage: Stage::Storing { last: Index(0) },
        };
        // What the leader said last counts.
        self.pulls.list.retain(|pull| pull.position != position);
        let raft = &self.groups[position].raft;
        let known = raft.known_index();
        if known >= last {
            return; // It hears so as soon as that is durable.
        }
        let follows = first.0 - 1 <= known.0;
        let has_room = self.pulls.list.len() < PULL_COUNT_MAX;
        if follows && has_room && !raft.doubt().is_any() {
            self.ask_source(now, pull, effects);
        } else {
            self.end_pull(pull, effects);
        }
    }

    /// Asks for what follows the last block that is known to be the leader's.
    fn ask_source(&mut self, now: Nanos, mut pull: Pull, effects: &mut Effects) {
        if !self.liveness.is_heard(now, pull.source) {
            self.end_pull(pull, effects);
            return;
        }
        let group = &self.groups[pull.position];
        let next = group.raft.known_index().next();
        let number = self.asks.next_number();
        let frame = self.encoder.frame(&BlockRequest {
            number,
            first: next.0,
            last: pull.last.0,
            group: group.id.0,
            sum: pull.sum,
        });
        self.send(pull.source, Lane::Bulk, frame, effects);
        let due = now.after(PATIENCE);
        pull.stage = Stage::Asked { next, number, due };
        self.pulls.list.push(pull);
    }

    /// Tells the leader that nothing more comes that way.
    fn end_pull(&mut self, pull: Pull, effects: &mut Effects) {
        let frame = self.encoder.frame(&ReferralEnd {
            term: pull.term.0,
            source: pull.source.0,
            group: self.groups[pull.position].id.0,
        });
        self.send(pull.leader, Lane::Control, frame, effects);
    }

    /// Whether the leader that spoke is this log's leader still.
    fn is_led_so(&self, pull: &Pull) -> bool {
        let group = &self.groups[pull.position];
        let is_led = group.raft.leader() == Some(pull.leader) && group.raft.term() == pull.term;
        is_led && !group.agreement.is_stopped()
    }

    /// Blocks of a source, or its word why there are none. False if nobody waits for them here.
    pub(super) fn on_pull_reply(
        &mut self,
        now: Nanos,
        from: NodeId,
        body: &ArchivedBlockReply,
        frame: &Frame<'_>,
        effects: &mut Effects,
    ) -> bool {
        let wanted = body.number.to_native();
        let is_it = |pull: &Pull| {
            let is_asked = matches!(pull.stage, Stage::Asked { number, .. } if number == wanted);
            is_asked && pull.source == from
        };
        let Some(at) = self.pulls.list.iter().position(is_it) else {
            return false;
        };
        let pull = self.pulls.list.swap_remove(at);
        if !self.is_led_so(&pull) {
            return true;
        }
        match self.take_pulled(now, pull, body, frame, effects) {
            // The acknowledgement of that block says so.
            Some(last) if last >= pull.last => {}
            Some(last) => {
                let stage = Stage::Storing { last };
                self.pulls.list.push(Pull { stage, ..pull });
            }
            None => self.end_pull(pull, effects),
        }
        true
    }

    /// Checks what came and hands it to Raft. The last block that is here now; none if that is not
    /// the last one that came, or nothing came.
    fn take_pulled(
        &mut self,
        now: Nanos,
        pull: Pull,
        body: &ArchivedBlockReply,
        frame: &Frame<'_>,
        effects: &mut Effects,
    ) -> Option<Index> {
        let Stage::Asked { next, .. } = pull.stage else {
            unreachable!("it was asked for")
        };
        let group = &self.groups[pull.position];
        let before = Index(next.0 - 1);
        let is_it = (body.group.to_native(), body.first.to_native()) == (group.id.0, next.0);
        if BlockOutcome::from_code(body.outcome) != Some(BlockOutcome::Found) && is_it {
            return None;
        }
        // None if more came from the leader meanwhile than memory keeps.
        let base = group.tail().base_at(before)?;
        let payload = frame.payload().contiguous();
        let checked = check_blocks(&payload, group.id, before, body.count.to_native());
        let checked = checked
            .ok()
            .filter(|blocks| is_it && are_linked(blocks, Some(base.sum)));
        let last = checked
            .as_ref()
            .and_then(|blocks| Some(*blocks.last()?.header()));
        let last = last.filter(|last| {
            last.index < pull.last || (last.index, last.sum) == (pull.last, pull.sum)
        });
        let (Some(checked), Some(last)) = (checked, last) else {
            // Its stream's sums held, so its own bytes are bad, or its log is another.
            self.peer_fault_count += 1;
            return None;
        };
        let claim = Claim {
            giver: Giver::Source,
            term: pull.term,
            prev_index: before,
            prev_term: base.term,
            commit: pull.last,
        };
        self.take_blocks(now, pull.position, &claim, &checked, effects);
        let known = self.groups[pull.position].raft.known_index();
        let is_here = known >= last.index;
        self.pulls.taken_count += u64::from(is_here);
        is_here.then_some(known)
    }

    /// Whether less than a chunk, of what ends at `last`, waits for the disk.
    fn is_stored_so_far(&self, position: usize, last: Index) -> bool {
        let group = &self.groups[position];
        let waiting = group.tail().size_between(group.raft.durable(), last);
        waiting < self.shape.catch_up_size as u64
    }

    /// At a turn's end: goes on where the disk keeps up, and gives up where nothing came.
    pub(super) fn advance_pulls(&mut self, now: Nanos, effects: &mut Effects) {
        for pull in std::mem::take(&mut self.pulls.list) {
            if !self.is_led_so(&pull) {
                continue;
            }
            match pull.stage {
                Stage::Asked { due, .. } if due <= now => self.end_pull(pull, effects),
                Stage::Storing { last } if self.is_stored_so_far(pull.position, last) => {
                    self.ask_source(now, pull, effects);
                }
                Stage::Asked { .. } | Stage::Storing { .. } => self.pulls.list.push(pull),
            }
        }
    }
}
