//! What must hold of the whole cluster, checked after every step of any node.
//!
//! Keeps the one true sequence of committed blocks per group, set once and never changed, and one
//! ledger per disk. Each check looks only at what the step changed. A block's sum covers its header,
//! its appends' sums and the sum of the block before it: equal sums mean equal logs up to there.

use std::collections::BTreeMap;

use rkyv::util::AlignedVec;

use super::ledger::Ledger;
use super::marks::Marks;
use super::network::Party;
use super::node::node_id;
use super::runs::{self, Appended, Content};
use super::swarm::Swarm;
use super::trims::Past;
use crate::frame::Kind;
use crate::frame::header::{FrameHeader, HEADER_SIZE};
use crate::frame::message::Message;
use crate::id::{GroupId, Index, NodeId, Term};
use crate::limits::FRAME_ALIGN;
use crate::log::{Base, Store};
use crate::raft::{Raft, Role, invariants, quorum};
use crate::shard::Shard;

/// Steps between two whole checks of one replica's state, where not every step has one.
const CHECK_EVERY: u64 = 64;

/// A block that is decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Committed {
    pub(super) sum: u32,
    /// Offset after its last record.
    pub(super) end_offset: u64,
    /// Term of the leader that decided it.
    term: Term,
}

/// One group as the cluster must see it.
#[derive(Debug, Default)]
struct Truth {
    committed: Vec<Committed>,
    leaders: BTreeMap<Term, Party>,
    /// Who stood for election, in the latest term that anybody did, and whether another did too.
    candidate: (Term, Party, bool),
    /// Sums by index and term: two blocks of one index and term are one block.
    sums: Vec<BTreeMap<Term, u32>>,
    /// Appends of blocks that were written somewhere and are not decided, by index and sum.
    contents: BTreeMap<(Index, u32), Content>,
    /// Each producer's epoch and next sequence, as decided.
    producers: BTreeMap<u64, (u32, u64)>,
    /// Where the log begins, and what is known of what lies before.
    past: Past,
}

impl Truth {
    fn new(swarm: &Swarm) -> Self {
        Self {
            past: Past::new(swarm),
            ..Self::default()
        }
    }

    /// A block is decided: each producer's appends stand once, in order, none missing between.
    fn decide(&mut self, index: Index, sum: u32, marks: &mut Marks) {
        let decided = self.contents.remove(&(index, sum));
        self.past.decide(index, decided.as_ref(), marks);
        for append in decided.into_iter().flat_map(|content| content.appends) {
            let Appended {
                producer,
                epoch,
                sequence,
                record_count,
            } = append;
            let known = self.producers.entry(producer).or_insert((epoch, 0));
            assert!(epoch >= known.0, "a fenced life of a producer is decided");
            if epoch > known.0 {
                *known = (epoch, 0);
            }
            assert!(
                sequence == known.1,
                "an append is decided twice or out of order: {append:?}, next is {}",
                known.1
            );
            known.1 += u64::from(record_count);
        }
        // What was written at this index and lost is never decided.
        self.contents = self.contents.split_off(&(index.next(), 0));
    }
}

/// What tells whether a step did anything to a replica that the oracle judges. The last block's sum
/// covers all before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Glance {
    role: Role,
    term: Term,
    commit: Index,
    durable: Index,
    last: Index,
    last_sum: u32,
    is_open: bool,
    /// Writes of its node's that have begun or ended.
    writes: u64,
}

/// One replica as it was after its last step.
#[derive(Debug, Default)]
struct Replica {
    sums: Vec<u32>,
    base: Index,
    /// The first offset that it serves.
    start: u64,
    commit: Index,
    term: Term,
    /// The term it was last seen to lead.
    led: Term,
    seen: Option<invariants::Seen>,
    /// Steps until the next whole check.
    steps_left: u64,
    glance: Option<Glance>,
}

/// Judges a run.
#[derive(Debug)]
pub(super) struct Oracle {
    groups: Vec<GroupId>,
    node_count: usize,
    check_every: u64,
    truths: Vec<Truth>,
    /// By group: who leads, as the last one to do so believes.
    leading: Vec<Option<Party>>,
    /// By node, then by group.
    replicas: Vec<Vec<Replica>>,
    pub(super) ledgers: Vec<Ledger>,
}

impl Oracle {
    pub(super) fn new(groups: &[GroupId], swarm: &Swarm) -> Self {
        let node_count = swarm.node_count;
        Self {
            groups: groups.to_vec(),
            node_count,
            check_every: if swarm.check_all { 1 } else { CHECK_EVERY },
            truths: groups.iter().map(|_| Truth::new(swarm)).collect(),
            leading: vec![None; groups.len()],
            replicas: (0..node_count)
                .map(|_| groups.iter().map(|_| Replica::default()).collect())
                .collect(),
            ledgers: (0..node_count)
                .map(|_| Ledger::new(groups, swarm.shape.ring))
                .collect(),
        }
    }

    /// The committed blocks of a group.
    pub(super) fn committed(&self, group: usize) -> &[Committed] {
        &self.truths[group].committed
    }

    /// Where a group begins, as its decided trims say.
    pub(super) fn past(&self, group: usize) -> &Past {
        &self.truths[group].past
    }

    /// Offset after the last committed record of a group.
    pub(super) fn end_offset(&self, group: usize) -> u64 {
        self.truths[group]
            .committed
            .last()
            .map_or(0, |last| last.end_offset)
    }

    /// A node writes sealed runs: what they hold is remembered as what that disk may have, and what
    /// may be decided.
    pub(super) fn on_store(&mut self, node: Party, store: &Store) {
        let read = store.runs.iter().map(|bytes| runs::read(bytes)).collect();
        self.ledgers[node].on_store(store.write, store.opens_life, read);
        for bytes in &store.runs {
            for content in runs::contents(bytes) {
                let group = self.group(content.group.0);
                let truth = &mut self.truths[group];
                if content.index.0 > truth.committed.len() as u64 {
                    let key = (content.index, content.sum);
                    truth.contents.insert(key, content);
                }
            }
        }
    }

    /// A process is gone.
    pub(super) fn on_crash(&mut self, node: Party) {
        self.ledgers[node].on_crash();
        for leading in &mut self.leading {
            *leading = leading.filter(|leader| *leader != node);
        }
    }

    /// A process begins: what it recovered is judged, what it had in memory is forgotten.
    pub(super) fn on_opened(&mut self, node: Party, shard: &Shard, marks: &mut Marks) {
        self.ledgers[node].on_recovered(shard.rafts(), marks);
        for (group, raft) in shard.rafts().enumerate() {
            let base = raft.tail().base();
            if base.index > Index(0) {
                let truth = self.truths[group].committed.get(base.index.0 as usize - 1);
                let is_true = truth.is_some_and(|truth| truth.sum == base.sum);
                assert!(is_true, "a segment holds what is not committed: {base:?}");
            }
            self.replicas[node][group] = Replica {
                sums: sums_below(&base),
                base: base.index,
                commit: base.index,
                term: raft.term(),
                ..Replica::default()
            };
        }
        self.check(node, shard, marks);
    }

    /// After a step of a node.
    pub(super) fn check(&mut self, node: Party, shard: &Shard, marks: &mut Marks) {
        if shard.is_open() {
            self.ledgers[node].mend(shard.rafts());
        }
        for (group, raft) in shard.rafts().enumerate() {
            if self.check_state(node, group, raft) {
                shard.assert_bounded();
            }
            let glance = Glance {
                role: raft.role(),
                term: raft.term(),
                commit: raft.commit(),
                durable: raft.durable(),
                last: raft.last(),
                last_sum: raft.tail().last_sum(),
                is_open: shard.is_open(),
                writes: self.ledgers[node].write_count(),
            };
            let before = &mut self.replicas[node][group].glance;
            if *before == Some(glance) {
                continue;
            }
            *before = Some(glance);
            self.check_base(node, group, raft, marks);
            self.check_blocks(node, group, raft, marks);
            self.check_leader(node, group, raft, shard, marks);
            self.check_commit(node, group, raft, marks);
            self.check_start(node, group, shard.start_of(group));
            // Where the disk has all, whatever is claimed is there.
            let disk = &self.ledgers[node];
            let has_all = disk.has(group, raft.last(), raft.tail().last_sum());
            if shard.is_open() && !has_all {
                let durable = raft.durable();
                let disk = &self.ledgers[node];
                let is_there = if durable < raft.tail().base().index {
                    // It is about to begin anew; what it has until then is known by number.
                    disk.index(group) >= durable
                } else {
                    disk.has(group, durable, sum_at(raft, durable))
                };
                assert!(
                    is_there,
                    "claims {durable} durable, and the disk does not have it"
                );
            }
        }
    }

    /// Who begins anew does so behind what is decided, and behind all he knew to be.
    fn check_base(&mut self, node: Party, group: usize, raft: &Raft, marks: &mut Marks) {
        let replica = &mut self.replicas[node][group];
        let base = raft.tail().base();
        if raft.durable() < base.index && replica.base < base.index {
            assert!(base.index > replica.commit, "what is committed is given up");
            let truth = self.truths[group].committed.get(base.index.0 as usize - 1);
            let is_true = truth.is_some_and(|truth| truth.sum == base.sum);
            assert!(is_true, "a log begins behind what is not decided: {base:?}");
            replica.sums = sums_below(&base);
            replica.commit = base.index;
            marks.restores += 1;
        }
        replica.base = base.index;
    }

    /// A replica's log begins where it was decided, no earlier than it knows, and never earlier than
    /// before.
    fn check_start(&mut self, node: Party, group: usize, start: u64) {
        let replica = &mut self.replicas[node][group];
        assert!(start >= replica.start, "a log's start goes back");
        replica.start = start;
        let past = &self.truths[group].past;
        let least = past.start_at(replica.commit);
        assert!(
            start >= least,
            "a replica begins at {start}, and {least} is decided"
        );
        assert!(past.is_start(start), "nobody decided to begin at {start}");
    }

    /// Log matching (thesis 3.5): a block of one index and term is one block, everywhere.
    fn check_blocks(&mut self, node: Party, group: usize, raft: &Raft, marks: &mut Marks) {
        let replica = &mut self.replicas[node][group];
        let tail = raft.tail();
        let (base, last) = (tail.base().index, tail.last_index());
        let mut same = last;
        while same > base {
            let entry = tail.entry(same).expect("the tail is dense");
            if replica.sums.get(same.0 as usize - 1) == Some(&entry.sum) {
                break;
            }
            same = Index(same.0 - 1);
        }
        let kept = same.0 as usize;
        if kept < replica.sums.len() {
            marks.truncations += (replica.sums.len() - kept) as u64;
            assert!(same >= replica.commit, "what is committed here is cut");
            replica.sums.truncate(kept);
        }
        for index in kept as u64 + 1..=last.0 {
            let entry = tail.entry(Index(index)).expect("the tail is dense");
            replica.sums.push(entry.sum);
            let at = index as usize - 1;
            let sums = &mut self.truths[group].sums;
            if sums.len() <= at {
                sums.resize(at + 1, BTreeMap::new());
            }
            let sum = *sums[at].entry(entry.term).or_insert(entry.sum);
            assert!(
                sum == entry.sum,
                "two blocks of index {index} and term {}",
                entry.term
            );
        }
    }

    /// Election safety and leader completeness (thesis 3.4, 3.6).
    fn check_leader(
        &mut self,
        node: Party,
        group: usize,
        raft: &Raft,
        shard: &Shard,
        marks: &mut Marks,
    ) {
        let replica = &mut self.replicas[node][group];
        let term = raft.term();
        assert!(term >= replica.term, "a term goes back");
        replica.term = term;
        if raft.role() == Role::Candidate {
            let candidate = &mut self.truths[group].candidate;
            if term > candidate.0 {
                *candidate = (term, node, false);
            } else if term == candidate.0 && node != candidate.1 && !candidate.2 {
                candidate.2 = true;
                marks.split_votes += 1;
            }
        }
        if !raft.is_leader() {
            let leading = &mut self.leading[group];
            *leading = leading.filter(|leader| *leader != node);
            return;
        }
        if replica.led == term {
            return;
        }
        replica.led = term;
        marks.elections += 1;
        marks.no_ops_under_pressure += u64::from(shard.is_journal_full());
        marks.rival_leaders += u64::from(self.leading[group].is_some_and(|leader| leader != node));
        self.leading[group] = Some(node);
        let truth = &mut self.truths[group];
        let first = *truth.leaders.entry(term).or_insert(node);
        assert!(
            first == node,
            "two leaders of term {term}: {first} and {node}"
        );
        let me = node_id(node);
        let voted = |disk: &&Ledger| {
            let hard = disk.hard(group);
            // Whoever has gone on since may have voted before.
            hard.term > term || hard.term == term && hard.vote == Some(me)
        };
        let count = self.ledgers.iter().filter(voted).count();
        assert!(
            count >= quorum::size(self.node_count),
            "elected in term {term}, and {count} disks have a vote for it"
        );
        // A leader may hear of its votes so late that another was elected and has decided more.
        let before = truth.committed.partition_point(|block| block.term < term);
        let Some(last) = before.checked_sub(1).map(|at| truth.committed[at]) else {
            return;
        };
        let index = Index(before as u64);
        assert!(raft.last() >= index, "a leader lacks committed blocks");
        if index >= raft.tail().base().index {
            assert!(
                sum_at(raft, index) == last.sum,
                "a leader has another block at {index}"
            );
        }
    }

    /// Commit agreement, and that a commit rests on a majority of disks.
    fn check_commit(&mut self, node: Party, group: usize, raft: &Raft, marks: &mut Marks) {
        let replica = &mut self.replicas[node][group];
        assert!(raft.commit() >= replica.commit, "a commit index goes back");
        let truth = &mut self.truths[group];
        let mut is_first = false;
        for index in replica.commit.0 + 1..=raft.commit().0 {
            let at = index as usize - 1;
            let sum = replica.sums[at];
            if let Some(known) = truth.committed.get(at) {
                assert!(known.sum == sum, "two blocks are committed at {index}");
                continue;
            }
            assert!(
                raft.is_leader(),
                "who does not lead knows of a commit first"
            );
            let holders = self
                .ledgers
                .iter()
                .filter(|disk| disk.counts(group, Index(index), sum));
            let (count, needed) = (holders.count(), quorum::size(self.node_count));
            assert!(
                count >= needed,
                "block {index} is committed, and {count} disks have it"
            );
            let is_here = self.ledgers[node].has(group, Index(index), sum);
            marks.decided_ahead_of_disk += u64::from(!is_here);
            let entry = raft.tail().entry(Index(index)).expect("committed just now");
            marks.decided_in_later_term += u64::from(entry.term < raft.term());
            let end_offset = entry.next_offset().0;
            let term = raft.term();
            is_first = true;
            truth.committed.push(Committed {
                sum,
                end_offset,
                term,
            });
            marks.committed += 1;
            truth.decide(Index(index), sum, marks);
        }
        // Blocks of older terms are committed by one of this term above them (thesis 3.6.2).
        let is_own = raft.tail().term_at(raft.commit()) == Some(raft.term());
        assert!(
            is_own || !is_first,
            "a leader commits by counting a block of an older term"
        );
        replica.commit = raft.commit();
    }

    /// Raft's own invariants; the whole state at times only, for it takes a walk over the tail. True
    /// if this was such a time.
    fn check_state(&mut self, node: Party, group: usize, raft: &Raft) -> bool {
        let replica = &mut self.replicas[node][group];
        if replica.steps_left > 0 {
            replica.steps_left -= 1;
            return false;
        }
        replica.steps_left = self.check_every - 1;
        if let Some(seen) = &replica.seen {
            invariants::check(seen, raft);
        }
        replica.seen = Some(invariants::Seen::of(raft));
        true
    }

    /// A frame leaves a node for a peer: what it promises must be on the disk by now.
    pub(super) fn on_sent(&self, node: Party, to: NodeId, header: &FrameHeader, head: &[u8]) {
        let promises = matches!(
            header.kind,
            Kind::VoteReply
                | Kind::VoteRequest
                | Kind::AppendEntries
                | Kind::AppendEntriesAck
                | Kind::HeartbeatAck
        );
        if !promises {
            return;
        }
        let disk = &self.ledgers[node];
        let body = &head[HEADER_SIZE..][..header.body_size as usize];
        let mut aligned = AlignedVec::<FRAME_ALIGN>::new();
        let is_aligned = body.as_ptr().addr().is_multiple_of(FRAME_ALIGN);
        if !is_aligned {
            aligned.extend_from_slice(body);
        }
        let body = if is_aligned { body } else { &aligned };
        let Ok(message) = Message::read(header.kind, body) else {
            panic!("a node sends what nobody can read")
        };
        match message {
            Message::VoteReply(body) if body.pre == 0 && body.granted == 1 => {
                let term = Term(body.term.to_native());
                let hard = disk.hard(self.group(body.group.to_native()));
                let is_kept = hard.term > term || hard.term == term && hard.vote == Some(to);
                assert!(
                    is_kept,
                    "a vote for {to} in {term} leaves, durable is {hard:?}"
                );
            }
            Message::VoteRequest(body) if body.pre == 0 => {
                let term = Term(body.term.to_native());
                let hard = disk.hard(self.group(body.group.to_native()));
                assert!(
                    hard.term >= term,
                    "a candidacy leaves before it is durable: {hard:?}"
                );
            }
            Message::AppendEntriesAck(body) if body.matched == 1 => {
                let group = self.group(body.group.to_native());
                let index = Index(body.index.to_native());
                let hard = disk.hard(group);
                // What waited in a term that is over by now was durable once, and may be cut since.
                // It harms nobody: who leads a later term and lacks it was elected by others, and
                // this node took no block of the older term after it voted.
                let term = Term(body.term.to_native());
                assert!(
                    hard.term > term || self.is_durable(node, group, term, index),
                    "{index} is acknowledged and not durable"
                );
                assert!(
                    hard.term.0 >= body.term.to_native(),
                    "a term is used and not durable"
                );
            }
            Message::HeartbeatAck(body) => {
                for ack in body.acks.iter() {
                    let group = self.group(ack.group.to_native());
                    let index = Index(ack.durable.to_native());
                    let term = Term(ack.term.to_native());
                    assert!(
                        self.is_durable(node, group, term, index),
                        "{index} is called durable and is not"
                    );
                }
            }
            Message::AppendEntries(body) => {
                let term = Term(body.term.to_native());
                let leader = self.truths[self.group(body.group.to_native())]
                    .leaders
                    .get(&term);
                assert!(
                    leader == Some(&node),
                    "blocks leave in {term}, which their sender does not lead"
                );
            }
            _ => {}
        }
    }

    /// Whether a node's disk has all through `index`, as an answer in `term` says: the very blocks
    /// that the node has now, unless it has gone on to another term since.
    fn is_durable(&self, node: Party, group: usize, term: Term, index: Index) -> bool {
        let (disk, replica) = (&self.ledgers[node], &self.replicas[node][group]);
        let sum = index
            .0
            .checked_sub(1)
            .and_then(|at| replica.sums.get(at as usize));
        match sum {
            // What lay below the base at the start is not known block by block.
            Some(sum) if *sum != 0 && replica.term == term => disk.has(group, index, *sum),
            _ => disk.index(group) >= index,
        }
    }

    fn group(&self, group: u32) -> usize {
        self.groups
            .iter()
            .position(|known| known.0 == group)
            .expect("a group of this cluster")
    }

    /// What nobody may ever have seen: something that Raft rules out.
    pub(super) fn check_faults<'s>(&self, shards: impl Iterator<Item = &'s Shard>) {
        let shards = shards.inspect(|shard| {
            assert!(shard.are_alike(), "replicas are said to differ");
        });
        for faults in shards.flat_map(Shard::rafts).map(Raft::faults) {
            assert!(faults.disagreement_count == 0, "a contradiction was seen");
            assert!(faults.malformed_count == 0, "a peer sent nonsense");
            assert!(faults.unknown_sender_count == 0, "a stranger was heard");
        }
    }

    /// Whether every replica of so many shards has everything, and knows it.
    pub(super) fn has_converged<'s>(
        &self,
        shards: impl Iterator<Item = &'s Shard>,
        expected: usize,
    ) -> bool {
        let mut count = 0;
        for shard in shards {
            count += 1;
            for (group, raft) in shard.rafts().enumerate() {
                let end = Index(self.truths[group].committed.len() as u64);
                if raft.commit() != end || raft.last() != end || raft.durable() != end {
                    return false;
                }
            }
        }
        count == expected
    }
}

/// What is known of the blocks up to a base: the sum of the last.
fn sums_below(base: &Base) -> Vec<u32> {
    let mut sums = vec![0; base.index.0 as usize];
    if let Some(last) = sums.last_mut() {
        *last = base.sum;
    }
    sums
}

/// Sum of a replica's block, which is in its tail or its base; 0 for what lies below.
fn sum_at(raft: &Raft, index: Index) -> u32 {
    let tail = raft.tail();
    if index == tail.base().index {
        tail.base().sum
    } else {
        tail.entry(index).map_or(0, |e| e.sum)
    }
}
