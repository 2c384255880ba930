//! A follower below its leader's start: what it lacks is gone everywhere, so it is told where the log
//! begins now, and goes on from there.
//!
//! ```text
//!  leader:    a peer wants a block below the first segment ─▶ that segment's head is read ─▶ sent
//!  follower:  head checked ─▶ Raft lacks the block before it ─▶ a checkpoint that voids all before it
//!             ─▶ durable: answered, older segments deleted ─▶ blocks come as to anybody who is behind
//! ```
//! One copy of the head is sent as it stands on disk. It has what the blocks behind it cannot tell: the block
//! before the first, and the producers as of there. A crash before the checkpoint is durable brings
//! the old log back, and the leader offers again; after it the old files are deleted at the start.

use bytes::Bytes;

use crate::frame::peer::{ArchivedRestore, Restore};
use crate::frame::{Frame, Lane};
use crate::id::{GroupId, Index, Nanos, NodeId, Offset, Term};
use crate::log::Base;
use crate::log::checkpoint::Checkpoint;
use crate::log::producers::Producers;
use crate::log::segment::{SegmentHeader, SegmentState};
use crate::log::trims::Trims;

use super::answer::BlockRequest;
use super::beginning::Beginning;
use super::effects::Source;
use super::segment_map::SegmentMap;
use super::segments::Segments;
use super::trim::Removal;
use super::{Effect, Effects, Shard};

/// A head that is being read for somebody.
#[derive(Clone, Copy, Debug)]
pub(super) struct HeadLoad {
    position: usize,
    whom: Whom,
}

/// Who is told where the log begins.
#[derive(Clone, Copy, Debug)]
pub(super) enum Whom {
    /// A follower that lacks what is not kept.
    Follower(NodeId),
    /// Whoever asked for blocks that are not kept.
    Inquirer(BlockRequest),
}

impl Shard {
    /// Whether a peer that wants the block at `next` wants what is not kept any more.
    pub(super) fn is_below_start(&self, position: usize, next: Index) -> bool {
        next < self.first_kept(position)
    }

    /// The first block that is kept of a log.
    pub(super) fn first_kept(&self, position: usize) -> Index {
        let group = &self.groups[position];
        let first = group.segments.map.first();
        first.map_or(group.segmented.next(), |first| first.header.first_index)
    }

    /// Reads what whoever wants older blocks is told instead; or makes it, where the log began anew
    /// and has no segment yet.
    pub(super) fn load_head(
        &mut self,
        now: Nanos,
        position: usize,
        whom: Whom,
        effects: &mut Effects,
    ) {
        let head = HeadLoad { position, whom };
        let group = &self.groups[position];
        let Some(first) = group.segments.map.first() else {
            let (header, state) = self.segment_head(position);
            let bytes = [&header.encode()[..], &state].concat().into();
            self.on_head_loaded(now, head, &bytes, effects);
            return;
        };
        let header = first.header;
        if !header.state.is_known() {
            // Another node may know it.
            self.tell_head(now, head, None, effects);
            return;
        }
        let load = self.loads.add_head(head);
        effects.push(Effect::Load {
            load,
            source: Source::Segment {
                group: group.id,
                number: header.segment,
            },
            position: 0,
            size: header.state.head_size as usize,
        });
    }

    pub(super) fn on_head_loaded(
        &mut self,
        now: Nanos,
        head: HeadLoad,
        bytes: &Bytes,
        effects: &mut Effects,
    ) {
        let group = &self.groups[head.position];
        let header = SegmentHeader::check(bytes).ok();
        let header = header.or_else(|| SegmentHeader::second(bytes));
        let header = header.filter(|header| header.group == group.id);
        let copy = header.and_then(|header| {
            let copy = SegmentState::sound_copy(&header, bytes)?;
            Some((Index(header.first_index.0 - 1), copy.into()))
        });
        self.tell_head(now, head, copy, effects);
    }

    /// Tells one copy of the first segment's head, and the block before that segment; none if the
    /// state in it is lost.
    fn tell_head(
        &mut self,
        now: Nanos,
        head: HeadLoad,
        copy: Option<(Index, Bytes)>,
        effects: &mut Effects,
    ) {
        let HeadLoad { position, whom } = head;
        match whom {
            Whom::Follower(peer) => self.send_head(now, position, peer, copy, effects),
            Whom::Inquirer(request) => {
                let copy = copy.map(|(_, copy)| copy);
                self.reply_trimmed(&request, copy, effects);
            }
        }
    }

    fn send_head(
        &mut self,
        now: Nanos,
        position: usize,
        peer: NodeId,
        copy: Option<(Index, Bytes)>,
        effects: &mut Effects,
    ) {
        let group = &self.groups[position];
        if !group.raft.is_leader() {
            return;
        }
        let Some((base, copy)) = copy else {
            // Nobody can be told. It is asked for again after a pause.
            self.tell_raft(now, position, effects, |raft, _| raft.catch_up_failed(peer));
            return;
        };
        let body = Restore {
            term: group.raft.term().0,
            start: group.trims.start().0,
            group: group.id.0,
        };
        let frame = self.encoder.frame_with_blocks(&body, vec![copy]);
        self.send(peer, Lane::Bulk, frame, effects);
        self.tell_raft(now, position, effects, |raft, _| {
            raft.restore_sent(now, peer, base);
        });
    }

    /// A leader says where its log begins.
    pub(super) fn on_restore(
        &mut self,
        now: Nanos,
        from: NodeId,
        body: &ArchivedRestore,
        frame: &Frame<'_>,
        effects: &mut Effects,
    ) {
        let id = GroupId(body.group.to_native());
        let Some(position) = self.part_in(id) else {
            return;
        };
        let payload = frame.payload().contiguous();
        let Some(Beginning { before, state }) = Beginning::check(&self.config, id, &payload) else {
            self.peer_fault_count += 1;
            return;
        };
        let base = Base {
            index: before.index,
            term: before.term,
            sum: before.sum,
            next_offset: before.next_offset,
        };
        if before.next_offset > Offset(body.start.to_native()) {
            // The head of a later segment than the first: behind it records would be missing.
            self.peer_fault_count += 1;
            return;
        }
        // What is on its way to a segment ends first; the leader offers again.
        if !self.groups[position].segments.may_be_dropped() {
            return;
        }
        let term = Term(body.term.to_native());
        let mut is_wanted = false;
        self.pass_to_raft(now, position, term, effects, |raft, out| {
            is_wanted = raft.offer(now, from, term, &base, out);
        });
        if !is_wanted {
            return;
        }
        let group = &self.groups[position];
        let number = group.segments.map.next_number();
        let start = Offset(body.start.to_native()).max(group.trims.start());
        let checkpoint = Checkpoint {
            group: id,
            index: base.index,
            term: base.term,
            block_sum: base.sum,
            next_offset: base.next_offset,
            segment: number,
            segment_size: 0,
            blocks_sum: 0,
            start,
            first_segment: number,
            restores: true,
            producers: state.producers,
        };
        self.begin_anew(now, position, from, checkpoint, effects);
    }

    /// Puts the checkpoint that the log goes on behind, and drops what the group had.
    fn begin_anew(
        &mut self,
        now: Nanos,
        position: usize,
        from: NodeId,
        checkpoint: Checkpoint,
        effects: &mut Effects,
    ) {
        self.close_block();
        let Some(lsn) = self.journal.put_checkpoint(&checkpoint) else {
            return; // No room: the leader offers again.
        };
        let (base, number) = (checkpoint.base(), checkpoint.first_segment);
        let group = &mut self.groups[position];
        group.holes = None;
        group.trims = Trims::new(checkpoint.start);
        group.producers = Producers::new(checkpoint.producers, base.index);
        group.segments = Segments::recovered(SegmentMap::recovered(&[], 0, 0, number));
        group.segmented = base.index;
        group.segmented_sum = base.sum;
        group.removal = Some(Removal::new(number, lsn));
        self.is_release_due = true;
        self.tell_raft(now, position, effects, |raft, out| {
            raft.install(from, base, lsn, out);
        });
        let group = &mut self.groups[position];
        group.need.begin_anew(group.raft.tail(), lsn);
    }
}
