//! Whether the replicas of a log hold the same: each tells the others the sum of its last committed
//! block. A block names the sum of the one before it, so its sum stands for the whole log through it,
//! and nothing needs to be kept or added up for this.
//!
//! Keeps for each peer through where it has the same and from where on it does not. Who differs asks
//! all others what they hold there; by what a majority holds everybody knows who is the odd one. That
//! one takes no part in the log any more, also after a restart, until its directory is replaced.
//! Where no majority holds the same, all who differ stop until one does. Knows no disk: blocks whose
//! own sums are wrong are `repair`'s and `scrub`'s.
//!
//! ```text
//!  told a sum ─▶ the same here: agreed through there
//!       │     ─▶ beyond this node's commit: looked at again when it has come as far
//!       └─▶ another ─▶ all are asked for theirs there ─▶ a majority holds this one's: it goes on
//!              │                                       ─▶ a majority holds another: stopped, durably
//!              │                                       ─▶ neither can be: stopped until it can
//!              └─▶ that peer is asked halfway down to where both agree ─▶ the first other block
//! ```

use std::fmt::Write as _;

use crate::frame::Lane;
use crate::frame::peer::{ArchivedBlockSums, BlockSum, BlockSums};
use crate::id::{GroupId, Index, Nanos, NodeId};
use crate::log::block::blocks;
use crate::raft::quorum;

use super::group::Group;
use super::load::Purpose;
use super::locate::{Job, Step, Want};
use super::{Effect, Effects, Shard};

/// Between two words about logs that go on.
const INTERVAL: Nanos = Nanos::from_millis(1_000);

/// A log that does not go on is told again after so long: the last word may have been lost.
const AGAIN: Nanos = Nanos::from_millis(10_000);

/// A peer that was asked for a sum has it in memory, or reads it once.
const PATIENCE: Nanos = Nanos::from_millis(500);

/// Questions in a row that nobody answered, before the first other block is given up.
const TRY_COUNT_MAX: u8 = 3;

/// What a peer said of one place in a log.
#[derive(Clone, Copy, Debug)]
pub(super) struct Heard {
    from: NodeId,
    index: Index,
    sum: Option<u32>,
    is_asked: bool,
}

/// How far a peer is known to hold what this node holds.
#[derive(Clone, Copy, Debug)]
struct Peer {
    node: NodeId,
    /// Through here it holds the same.
    agreed: Index,
    /// Sum of the block there.
    agreed_sum: u32,
    /// It holds something else here, and so from here on. Above `agreed`.
    differs: Option<Index>,
    /// What it told of a block that was not committed here.
    ahead: Option<(Index, u32)>,
    /// What it was asked between the two, and until when it may answer.
    asked: Option<(Index, Nanos)>,
    try_count: u8,
}

/// What everybody holds at a place where somebody differs.
#[derive(Debug)]
struct Poll {
    index: Index,
    sum: u32,
    sums: Vec<(NodeId, u32)>,
    due: Nanos,
}

/// Why a replica takes no part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stopped {
    /// A majority holds something else. For good.
    Odd,
    /// Somebody holds something else, and no majority holds the same. Until one does.
    Split,
}

/// What is known of how one log's replicas agree.
#[derive(Debug, Default)]
pub(super) struct Agreement {
    peers: Vec<Peer>,
    /// Committed through here when it was told last.
    told: Index,
    poll: Option<Poll>,
    stopped: Option<Stopped>,
    /// A block is being read for its sum.
    is_reading: bool,
    /// Something is to be looked at, at a turn's end.
    is_due: bool,
}

/// When logs are told next: those that went on, and all.
#[derive(Debug)]
pub(super) struct Rounds {
    next: Nanos,
    all: Nanos,
}

impl Rounds {
    pub(super) fn new(now: Nanos) -> Self {
        Self {
            next: now.after(INTERVAL),
            all: now.after(AGAIN),
        }
    }
}

impl Agreement {
    /// As a directory remembers it.
    pub(super) fn recovered(is_stopped: bool) -> Self {
        Self {
            stopped: is_stopped.then_some(Stopped::Odd),
            ..Self::default()
        }
    }

    /// Whether this replica takes no part.
    pub(super) fn is_stopped(&self) -> bool {
        self.stopped.is_some()
    }

    /// Whether nobody was found to hold something else.
    #[cfg(feature = "sim")]
    pub(super) fn is_calm(&self) -> bool {
        self.stopped.is_none() && self.peers.iter().all(|peer| peer.differs.is_none())
    }

    /// Whether a peer holds something else.
    pub(super) fn differs(&self, node: NodeId) -> bool {
        let mut peers = self.peers.iter();
        peers.any(|peer| peer.node == node && peer.differs.is_some())
    }

    /// Through where a peer is known to hold what this node holds, and the sum of that block. All of it
    /// is committed; none if the peer holds something else anywhere.
    pub(super) fn agreed(&self, node: NodeId) -> Option<(Index, u32)> {
        let mut peers = self.peers.iter();
        let peer = peers.find(|peer| peer.node == node && peer.differs.is_none())?;
        (peer.agreed > Index(0)).then_some((peer.agreed, peer.agreed_sum))
    }

    fn peer(&mut self, node: NodeId) -> &mut Peer {
        let at = self.peers.iter().position(|peer| peer.node == node);
        let at = at.unwrap_or_else(|| {
            self.peers.push(Peer {
                node,
                agreed: Index(0),
                agreed_sum: 0,
                differs: None,
                ahead: None,
                asked: None,
                try_count: 0,
            });
            self.peers.len() - 1
        });
        &mut self.peers[at]
    }

    /// When an answer is overdue.
    fn deadline(&self) -> Option<Nanos> {
        let asked = self.peers.iter().filter_map(|peer| Some(peer.asked?.1));
        asked.chain(self.poll.as_ref().map(|poll| poll.due)).min()
    }

    /// Whether the first other block is known.
    fn is_exact(&self) -> bool {
        let range = self.range();
        range.is_some_and(|(first, last, _)| first == last)
    }

    /// First and last of the blocks among which the first other one is, and who holds another.
    fn range(&self) -> Option<(Index, Index, Vec<NodeId>)> {
        let differing = self.peers.iter().filter(|peer| peer.differs.is_some());
        let last = differing.clone().filter_map(|peer| peer.differs).min()?;
        let agreed = differing.clone().map(|peer| peer.agreed);
        let agreed = agreed.filter(|index| *index < last).max()?;
        let nodes = differing.map(|peer| peer.node).collect();
        Some((agreed.next(), last, nodes))
    }
}

impl Peer {
    /// It holds the same there, or not. True if that is news.
    fn note(&mut self, index: Index, sum: u32, is_same: bool) -> bool {
        if self.asked.is_some_and(|(asked, _)| asked == index) {
            (self.asked, self.try_count) = (None, 0);
        }
        if is_same {
            if index > self.agreed {
                (self.agreed, self.agreed_sum) = (index, sum);
            }
            // Another directory came in place of the one that differed.
            self.differs = self.differs.filter(|differs| *differs > index);
            return false;
        }
        let is_news = self.differs.is_none();
        self.differs = Some(self.differs.map_or(index, |differs| differs.min(index)));
        if self.agreed >= index {
            self.agreed = Index(0);
        }
        is_news
    }
}

impl Poll {
    fn note(&mut self, node: NodeId, sum: u32) {
        match self.sums.iter_mut().find(|(at, _)| *at == node) {
            Some((_, told)) => *told = sum,
            None => self.sums.push((node, sum)),
        }
    }

    /// How many of the others hold this.
    fn count(&self, sum: u32) -> usize {
        self.sums.iter().filter(|(_, told)| *told == sum).count()
    }
}

impl Group {
    /// Sum of the block at an index, if memory has it.
    fn sum_at(&self, index: Index) -> Option<u32> {
        let base = self.tail().base_at(index)?;
        (index > Index(0)).then_some(base.sum)
    }
}

impl Shard {
    /// A peer may have missed what it was told, or asked.
    pub(super) fn tell_sums_again(&mut self) {
        for group in &mut self.groups {
            group.agreement.told = Index(0);
            for peer in &mut group.agreement.peers {
                peer.try_count = 0;
            }
            group.agreement.is_due = true;
        }
    }

    /// When peers are told next, or asked again.
    pub(super) fn agreement_deadline(&self) -> Nanos {
        let mut groups = self.groups.iter();
        let has_gone_on = groups.any(|group| group.raft.commit() > group.agreement.told);
        let round = match has_gone_on {
            true => self.rounds.next,
            false => self.rounds.all.max(self.rounds.next),
        };
        let due = self.groups.iter();
        let due = due.filter_map(|group| group.agreement.deadline()).min();
        due.map_or(round, |due| due.min(round))
    }

    pub(super) fn on_block_sums(
        &mut self,
        now: Nanos,
        from: NodeId,
        body: &ArchivedBlockSums,
        effects: &mut Effects,
    ) {
        for word in body.sums.iter() {
            let group = GroupId(word.group.to_native());
            let Some(&position) = self.positions.get(&group) else {
                continue;
            };
            let heard = Heard {
                from,
                index: Index(word.index.to_native()),
                sum: (word.is_told == 1).then_some(word.sum.to_native()),
                is_asked: word.is_asked == 1,
            };
            if heard.index == Index(0) {
                self.peer_fault_count += 1;
                continue;
            }
            self.hear(now, position, heard, effects);
        }
    }

    fn hear(&mut self, now: Nanos, position: usize, heard: Heard, effects: &mut Effects) {
        let group = &mut self.groups[position];
        if heard.index > group.raft.commit() {
            // The first one stays until this node has come as far: what comes behind it says the
            // same, and who is always behind would compare none.
            if let Some(sum) = heard.sum {
                let peer = group.agreement.peer(heard.from);
                peer.ahead.get_or_insert((heard.index, sum));
                group.agreement.is_due = true;
            }
            return;
        }
        if let Some(own) = group.sum_at(heard.index) {
            self.compare(now, position, heard, own, effects);
            return;
        }
        // What is not kept any more cannot be compared; a read at a time for the rest.
        let is_over = group.agreement.is_reading || self.loads.is_busy();
        if is_over || self.is_below_start(position, heard.index) {
            return;
        }
        self.groups[position].agreement.is_reading = true;
        let job = Job::new(&self.shape, Want::Index(heard.index), heard.index, 1);
        self.start_load(now, Purpose::Compare { position, heard }, job, effects);
    }

    /// A block was read for its sum.
    pub(super) fn on_compare_step(
        &mut self,
        now: Nanos,
        position: usize,
        heard: Heard,
        step: &Step,
        effects: &mut Effects,
    ) {
        self.groups[position].agreement.is_reading = false;
        let Step::Found(found) = step else { return };
        let block = found.slices.first().and_then(|slice| blocks(slice).next());
        let block = block.expect("a block was found").expect("and is sound");
        assert_eq!(block.header().index, heard.index, "the one that was wanted");
        self.compare(now, position, heard, block.header().sum, effects);
    }

    fn compare(
        &mut self,
        now: Nanos,
        position: usize,
        heard: Heard,
        own: u32,
        effects: &mut Effects,
    ) {
        let Heard { from, index, .. } = heard;
        let group = &mut self.groups[position];
        if heard.is_asked {
            let answer = told(group.id, index, own);
            self.tell_sums(&[from], vec![answer], effects);
        }
        let Some(sum) = heard.sum else { return };
        let agreement = &mut self.groups[position].agreement;
        if let Some(poll) = agreement.poll.as_mut().filter(|poll| poll.index == index) {
            poll.note(from, sum);
        }
        let was_exact = agreement.is_exact();
        let is_news = agreement.peer(from).note(index, own, sum == own);
        let is_found = agreement.is_exact() && !was_exact;
        agreement.is_due |= agreement.poll.is_some() || agreement.differs(from);
        let is_judged = agreement.stopped == Some(Stopped::Odd);
        if is_news && !is_judged && agreement.poll.is_none() {
            agreement.poll = Some(Poll {
                index,
                sum: own,
                sums: vec![(from, sum)],
                due: now.after(PATIENCE),
            });
            self.ask_sums(position, effects);
        }
        if is_news || is_found {
            let text = self.agreement_alarm(position);
            effects.push(Effect::Notice(text.expect("somebody differs")));
        }
    }

    /// Tells all peers what this node holds where somebody differs, and asks for what they hold.
    fn ask_sums(&mut self, position: usize, effects: &mut Effects) {
        let group = &self.groups[position];
        let poll = group.agreement.poll.as_ref().expect("somebody differs");
        let word = BlockSum {
            is_asked: 1,
            ..told(group.id, poll.index, poll.sum)
        };
        self.tell_sums(&self.peers.clone(), vec![word], effects);
    }

    fn tell_sums(&mut self, to: &[NodeId], sums: Vec<BlockSum>, effects: &mut Effects) {
        let frame = self.encoder.frame(&BlockSums { sums });
        for peer in to {
            self.send(*peer, Lane::Control, frame.clone(), effects);
        }
    }

    /// At a turn's end: tells of the logs that went on, and looks at those where something is due.
    pub(super) fn advance_agreement(&mut self, now: Nanos, effects: &mut Effects) {
        self.tell_round(now, effects);
        for position in 0..self.groups.len() {
            if std::mem::take(&mut self.groups[position].agreement.is_due) {
                self.look_ahead(now, position, effects);
                self.judge(now, position, effects);
                self.narrow(now, position, effects);
                let agreement = &mut self.groups[position].agreement;
                let mut peers = agreement.peers.iter();
                agreement.is_due = agreement.poll.is_some()
                    || peers.any(|peer| peer.ahead.is_some() || peer.asked.is_some());
            }
        }
    }

    fn tell_round(&mut self, now: Nanos, effects: &mut Effects) {
        if now < self.rounds.next {
            return;
        }
        let are_all = now >= self.rounds.all;
        let mut sums = Vec::new();
        for group in &mut self.groups {
            let index = group.raft.commit();
            if index <= group.agreement.told && !are_all {
                continue;
            }
            if let Some(sum) = group.sum_at(index) {
                group.agreement.told = index;
                sums.push(told(group.id, index, sum));
            }
        }
        if are_all {
            self.rounds.all = now.after(AGAIN);
        }
        if !sums.is_empty() {
            self.rounds.next = now.after(INTERVAL);
            self.tell_sums(&self.peers.clone(), sums, effects);
        }
    }

    /// Compares what peers told of blocks that are committed here by now.
    fn look_ahead(&mut self, now: Nanos, position: usize, effects: &mut Effects) {
        let group = &mut self.groups[position];
        let commit = group.raft.commit();
        let mut words = Vec::new();
        for peer in &mut group.agreement.peers {
            if let Some((index, sum)) = peer.ahead.take_if(|(index, _)| *index <= commit) {
                words.push(Heard {
                    from: peer.node,
                    index,
                    sum: Some(sum),
                    is_asked: false,
                });
            }
        }
        for heard in words {
            self.hear(now, position, heard, effects);
        }
    }

    /// Who is the odd one, as far as the answers tell.
    fn judge(&mut self, now: Nanos, position: usize, effects: &mut Effects) {
        let agreement = &self.groups[position].agreement;
        let Some(poll) = &agreement.poll else { return };
        let quorum = quorum::size(self.config.voters.len());
        let is_held = |(_, sum): &(NodeId, u32)| *sum != poll.sum && poll.count(*sum) >= quorum;
        if poll.count(poll.sum) + 1 >= quorum {
            let agreement = &mut self.groups[position].agreement;
            agreement.poll = None;
            agreement.stopped = None;
        } else if poll.sums.iter().any(is_held) {
            self.groups[position].agreement.poll = None;
            self.known.stop(position);
            self.stop_replica(now, position, Stopped::Odd, effects);
        } else if now >= poll.due || poll.sums.len() == self.peers.len() {
            let silent = |peer: &&NodeId| poll.sums.iter().all(|(node, _)| node != *peer);
            // Who is there and behind will tell when it has come as far.
            let mut awaited = self.peers.iter().filter(silent);
            let is_open = awaited.any(|peer| self.liveness.is_heard(now, *peer));
            if now >= poll.due {
                self.ask_sums(position, effects);
                let poll = self.groups[position].agreement.poll.as_mut();
                poll.expect("seen just now").due = now.after(INTERVAL);
            }
            if !is_open {
                self.stop_replica(now, position, Stopped::Split, effects);
            }
        }
    }

    /// This replica takes no part from now on.
    fn stop_replica(
        &mut self,
        now: Nanos,
        position: usize,
        stopped: Stopped,
        effects: &mut Effects,
    ) {
        let agreement = &mut self.groups[position].agreement;
        if agreement.stopped == Some(stopped) {
            return;
        }
        agreement.stopped = Some(stopped);
        if self.groups[position].raft.is_leader() {
            self.tell_raft(now, position, effects, |raft, out| raft.resign(now, out));
        }
        self.groups[position].replicates.clear();
        self.wake_waiting(now, position, effects);
        let text = self.agreement_alarm(position);
        effects.push(Effect::Notice(text.expect("it has stopped")));
    }

    /// Asks each peer that differs halfway down to where it does not.
    fn narrow(&mut self, now: Nanos, position: usize, effects: &mut Effects) {
        let first = self.first_kept(position);
        for at in 0..self.groups[position].agreement.peers.len() {
            let group = &mut self.groups[position];
            let peer = &mut group.agreement.peers[at];
            let Some(differs) = peer.differs else {
                peer.asked = None;
                continue;
            };
            let below = peer.agreed.max(Index(first.0.saturating_sub(1)));
            let is_waiting = peer.asked.is_some_and(|(_, until)| now < until);
            if is_waiting {
                continue;
            }
            peer.asked = None;
            let middle = Index(below.0 + differs.0.saturating_sub(below.0) / 2);
            if middle <= below || peer.try_count >= TRY_COUNT_MAX {
                continue;
            }
            peer.asked = Some((middle, now.after(PATIENCE)));
            peer.try_count += 1;
            let word = BlockSum {
                index: middle.0,
                group: group.id.0,
                is_asked: 1,
                ..BlockSum::default()
            };
            let to = peer.node;
            self.tell_sums(&[to], vec![word], effects);
        }
    }

    /// What people must know of a log whose replicas differ.
    fn agreement_alarm(&self, position: usize) -> Option<String> {
        let agreement = &self.groups[position].agreement;
        let mut text = format!("log {}: ", self.config.logs[position].name);
        match agreement.range() {
            Some((first, last, nodes)) => {
                let _ = match first == last {
                    true => write!(text, "block {first} here is not that of "),
                    false => write!(text, "blocks {first} to {last} here are not those of "),
                };
                for (at, node) in nodes.iter().enumerate() {
                    let comma = if at > 0 { ", " } else { "" };
                    let _ = write!(text, "{comma}{}", self.config.name_of(*node));
                }
            }
            None if agreement.is_stopped() => {
                text.push_str("this replica differed from a majority")
            }
            None => return None,
        }
        text.push_str(match agreement.stopped {
            Some(Stopped::Odd) => {
                "; a majority holds the others', so this replica has stopped: replace its directory"
            }
            Some(Stopped::Split) => "; no majority holds the same, so this replica has stopped",
            None => "",
        });
        Some(text)
    }

    /// A sentence for each log whose replicas differ, for `status`.
    pub(super) fn agreement_alarms(&self) -> impl Iterator<Item = String> + '_ {
        (0..self.groups.len()).filter_map(|position| self.agreement_alarm(position))
    }
}

/// This replica holds that there.
fn told(group: GroupId, index: Index, sum: u32) -> BlockSum {
    BlockSum {
        index: index.0,
        group: group.0,
        sum,
        is_told: 1,
        is_asked: 0,
    }
}
