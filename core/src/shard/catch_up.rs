//! Blocks on their way to peers. What the cache holds leaves on the data lane in the turn it was
//! sealed; what it has lost is read chunk by chunk, when `chunks` says so, and leaves on the bulk lane,
//! so that a follower far behind never delays the others. Often it is not read at all: `refer`.

use crate::bugs::{self, Switch};
use crate::frame::Lane;
use crate::frame::peer::AppendEntries;
use crate::id::{Index, Nanos, NodeId};

use super::group::Replicate;
use super::locate::{self, Found, Step};
use super::restore::Whom;
use super::{Effects, Shard};

impl Shard {
    /// Sends what Raft decided this turn, now that the run is sealed.
    pub(super) fn send_replicates(&mut self, now: Nanos, position: usize, effects: &mut Effects) {
        let replicates = std::mem::take(&mut self.groups[position].replicates);
        for replicate in &replicates {
            self.send_replicate(now, position, replicate, effects);
        }
        // Keeps the list's memory for the next turn; nothing was added meanwhile, since sending
        // from memory asks nothing of Raft but `missed`, whose answer is a catch-up.
        assert!(self.groups[position].replicates.is_empty());
        let mut replicates = replicates;
        replicates.clear();
        self.groups[position].replicates = replicates;
    }

    fn send_replicate(
        &mut self,
        now: Nanos,
        position: usize,
        replicate: &Replicate,
        effects: &mut Effects,
    ) {
        let &Replicate {
            to,
            term,
            prev_index,
            prev_term,
            mut first,
            last,
        } = replicate;
        let group = &self.groups[position];
        let is_over = group.raft.term() != term || !group.raft.is_leader();
        if is_over && !bugs::is_on(Switch::B07) {
            return;
        }
        if last < first {
            let found = Found {
                prev_index,
                prev_term,
                first,
                last,
                slices: Vec::new(),
            };
            self.send_blocks(position, to, Lane::Data, found, effects);
            return;
        }
        // One frame carries at most a frame's payload, so a large window leaves in several.
        while first <= last {
            let group = &self.groups[position];
            let size_max = crate::limits::FRAME_PAYLOAD_SIZE_MAX;
            let Some(found) = locate::cached(group, &self.journal, first, last, size_max) else {
                self.tell_raft(now, position, effects, |raft, out| {
                    raft.missed(now, to, first, out);
                });
                return;
            };
            first = found.last.next();
            self.send_blocks(position, to, Lane::Data, found, effects);
        }
    }

    /// Sends blocks of a group this node leads.
    fn send_blocks(
        &mut self,
        position: usize,
        to: NodeId,
        lane: Lane,
        found: Found,
        effects: &mut Effects,
    ) {
        let group = &self.groups[position];
        let body = AppendEntries {
            term: group.raft.term().0,
            prev_index: found.prev_index.0,
            prev_term: found.prev_term.0,
            commit: group.raft.commit().0,
            group: group.id.0,
            count: found.count(),
        };
        let frame = self.encoder.frame_with_blocks(&body, found.slices);
        self.send(to, lane, frame, effects);
    }

    /// Raft asks for a chunk that is not in memory any more.
    pub(super) fn on_catch_up(
        &mut self,
        now: Nanos,
        position: usize,
        peer: NodeId,
        next: Index,
        effects: &mut Effects,
    ) {
        if !self.liveness.is_heard(now, peer) {
            // Nothing is read for who is not there; it is looked for again after a pause, and at once
            // when it is heard.
            self.tell_raft(now, position, effects, |raft, _| raft.catch_up_failed(peer));
            return;
        }
        if self.is_below_start(position, next) {
            self.load_head(now, position, Whom::Follower(peer), effects);
            return;
        }
        if !self.refer(now, position, peer, next, effects) {
            self.want_chunk(position, peer, next);
        }
    }

    pub(super) fn on_peer_step(
        &mut self,
        now: Nanos,
        position: usize,
        peer: NodeId,
        step: Step,
        effects: &mut Effects,
    ) {
        let size = match &step {
            Step::Found(found) => found.size(),
            _ => 0,
        };
        self.end_chunk(size);
        let group = &self.groups[position];
        if !group.raft.is_leader() && !bugs::is_on(Switch::B07) {
            return;
        }
        match step {
            Step::Found(found) => {
                let (last, size) = (found.last, size as u64);
                self.send_blocks(position, peer, Lane::Bulk, found, effects);
                self.note_chunk(now, position, peer, last, size);
                self.tell_raft(now, position, effects, |raft, out| {
                    raft.caught_up(now, peer, last, size, out);
                });
            }
            Step::Absent | Step::Damaged(_) => {
                self.tell_raft(now, position, effects, |raft, _| raft.catch_up_failed(peer));
            }
            Step::Read { .. } | Step::Indexed => {
                unreachable!("a read is asked for by whoever owns the job")
            }
        }
    }
}
