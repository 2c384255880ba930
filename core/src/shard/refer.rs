//! Whom a leader sends a follower to that is far behind: another replica, rather than read for it.
//!
//! Keeps who was referred to whom, and from whom a follower got nothing lately. Knows no blocks and no
//! reads; the follower's half is `pull`.
//!
//! ```text
//!  Raft wants a chunk for a peer ─▶ another replica has it ─▶ Referral ─▶ the peer asks that one
//!         ▲              └─ nobody has, or nobody lately gave ─▶ read here: the way that always works
//!         │
//!         ├── the peer has all through `last`: it is sent what follows, or referred again
//!         └── it says that it gets no more, or gets nothing for two seconds: not to that one for a while
//! ```
//! Why the blocks are the leader's. The replicas tell each other the sum of their last committed block
//! (`agree`), and a block names the sum of the one before it: whose sum at `last` was the leader's
//! holds the leader's log through there. Only so far is a follower referred, and never beyond what the
//! leader knows to be committed and durable there. The follower begins behind a block that it is
//! known to share with the leader of that term. So whatever it takes is what an AppendEntries of the
//! leader would have brought, and committed besides: should the leader be replaced meanwhile, it is in
//! the next one's log too. What the source does not have right is refused by sums.
//!
//! Nobody is referred who is far away: a follower gets a chunk for each round trip to the source, and
//! the leader sends a window ahead of the answers.
//!
//! Unit of all this is the block. A follower asks for what follows its last one, so nothing that it
//! has is sent again when source, link or leader change; only what was on its way may come twice.

use crate::frame::Lane;
use crate::frame::peer::{ArchivedReferralEnd, Referral};
use crate::id::{GroupId, Index, Nanos, NodeId, Term};
use crate::limits::{PULL_COUNT_MAX, REFERRAL_ROUND_TRIP_MAX};
use crate::raft::ProgressState;

use super::{Effects, Shard};

/// From whom a follower got nothing, it is not referred to that one again before this.
const AGAIN_PAUSE: Nanos = Nanos::from_millis(5_000);

/// A follower that was told who has its blocks.
#[derive(Clone, Copy, Debug)]
struct Referred {
    position: usize,
    peer: NodeId,
    source: NodeId,
    /// Through here.
    last: Index,
}

/// Who gave a follower nothing.
#[derive(Clone, Copy, Debug)]
struct Vain {
    position: usize,
    peer: NodeId,
    source: NodeId,
    until: Nanos,
}

/// All referrals of the logs that a shard leads, at most one for each log and follower.
#[derive(Debug, Default)]
pub(super) struct Referrals {
    list: Vec<Referred>,
    vain: Vec<Vain>,
}

impl Referrals {
    /// Links to a peer are new: what it was told may be lost, and nobody is to blame.
    pub(super) fn forget(&mut self, peer: NodeId) {
        self.list.retain(|referred| referred.peer != peer);
        self.vain
            .retain(|vain| vain.peer != peer && vain.source != peer);
    }

    fn take(&mut self, position: usize, peer: NodeId) -> Option<Referred> {
        let is_it = |referred: &Referred| referred.position == position && referred.peer == peer;
        let at = self.list.iter().position(is_it)?;
        Some(self.list.swap_remove(at))
    }

    /// It brought nothing, or not all.
    fn give_up(&mut self, now: Nanos, referred: Referred) {
        self.vain.retain(|vain| now < vain.until);
        self.vain.push(Vain {
            position: referred.position,
            peer: referred.peer,
            source: referred.source,
            until: now.after(AGAIN_PAUSE),
        });
    }

    fn is_vain(&self, now: Nanos, position: usize, peer: NodeId, source: NodeId) -> bool {
        let mut vain = self.vain.iter();
        vain.any(|vain| {
            now < vain.until && (vain.position, vain.peer, vain.source) == (position, peer, source)
        })
    }
}

impl Shard {
    /// Tells a follower who has the chunk at `next`. False if the leader is to read it.
    pub(super) fn refer(
        &mut self,
        now: Nanos,
        position: usize,
        peer: NodeId,
        next: Index,
        effects: &mut Effects,
    ) -> bool {
        // It wants a chunk again: what it was told before is over.
        if let Some(before) = self.referrals.take(position, peer)
            && next <= before.last
        {
            self.referrals.give_up(now, before);
        }
        let raft = &self.groups[position].raft;
        let progress = raft
            .progress(peer)
            .filter(|progress| progress.may_be_referred());
        if progress.is_none() || !self.is_near(peer) {
            return false;
        }
        self.settle_referrals(now);
        let is_peers = |referred: &&Referred| referred.peer == peer;
        if self.referrals.list.iter().filter(is_peers).count() >= PULL_COUNT_MAX {
            return false;
        }
        let Some((source, last, sum)) = self.source_for(now, position, peer, next) else {
            return false;
        };
        let group = &self.groups[position];
        let frame = self.encoder.frame(&Referral {
            term: group.raft.term().0,
            first: next.0,
            last: last.0,
            source: source.0,
            group: group.id.0,
            sum,
        });
        self.send(peer, Lane::Bulk, frame, effects);
        self.referrals.list.push(Referred {
            position,
            peer,
            source,
            last,
        });
        self.tell_raft(now, position, effects, |raft, _| {
            raft.referred(now, peer, last)
        });
        true
    }

    /// Who of the others is known to hold the leader's blocks from `next` on, is there, and gives to
    /// the fewest at the moment; and through where, with that block's sum.
    fn source_for(
        &self,
        now: Nanos,
        position: usize,
        peer: NodeId,
        next: Index,
    ) -> Option<(NodeId, Index, u32)> {
        let group = &self.groups[position];
        let others = self.peers.iter().copied().filter(|source| *source != peer);
        let known = others.filter_map(|source| {
            let (last, sum) = group.agreement.agreed(source)?;
            let progress = group.raft.progress(source)?;
            let is_durable =
                progress.state() == ProgressState::Replicate && progress.matched() >= last;
            let is_there = self.liveness.is_heard(now, source);
            let is_vain = self.referrals.is_vain(now, position, peer, source);
            let is_at_hand = is_there && self.is_near(source);
            let is_fit = next <= last && is_durable && is_at_hand && !is_vain;
            is_fit.then_some((source, last, sum))
        });
        known.min_by_key(|(source, ..)| {
            let burdens = self.referrals.list.iter();
            burdens
                .filter(|referred| referred.source == *source)
                .count()
        })
    }

    /// Whether a node's round trips are short. Two that are near this node are near each other.
    fn is_near(&self, node: NodeId) -> bool {
        let span = self.liveness.round_trip(node);
        span > Nanos(0) && span <= REFERRAL_ROUND_TRIP_MAX
    }

    /// Those that have what they were referred for do not count any more, nor those that wait no more.
    fn settle_referrals(&mut self, now: Nanos) {
        for referred in std::mem::take(&mut self.referrals.list) {
            let raft = &self.groups[referred.position].raft;
            let Some(progress) = raft.progress(referred.peer) else {
                continue;
            };
            if matches!(progress.state(), ProgressState::Referred { .. }) {
                self.referrals.list.push(referred);
            } else if progress.matched() < referred.last {
                self.referrals.give_up(now, referred);
            }
        }
    }

    /// A follower gets no more from whom it was referred to.
    pub(super) fn on_referral_end(
        &mut self,
        now: Nanos,
        from: NodeId,
        body: &ArchivedReferralEnd,
        effects: &mut Effects,
    ) {
        let (term, source) = (Term(body.term.to_native()), NodeId(body.source.to_native()));
        let Some(position) = self.part_in(GroupId(body.group.to_native())) else {
            return;
        };
        let raft = &self.groups[position].raft;
        if !raft.is_leader() || raft.term() != term {
            return;
        }
        let Some(referred) = self.referrals.take(position, from) else {
            return;
        };
        if referred.source != source {
            // Of an earlier referral; it has been told another one since.
            self.referrals.list.push(referred);
            return;
        }
        self.referrals.give_up(now, referred);
        self.tell_raft(now, position, effects, |raft, _| {
            raft.referral_ended(now, from)
        });
    }
}
