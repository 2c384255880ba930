//! One node: the Raft that ships, a disk, and as little shard between them as will do.
//!
//! A step is one input and the turn that it ends: flush, one run sealed, messages that may leave.
//! Every call into Raft is followed by the check of its invariants, every promise that leaves is
//! compared with the disk. Knows no other node.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use ringwood_core::id::{GroupId, Index, Lsn, NodeId, Term};
use ringwood_core::log::{Base, Doubt, Entry, HardState, Tail};
use ringwood_core::raft::essence::{self, NOW};
use ringwood_core::raft::invariants::{Seen, check};
use ringwood_core::raft::{
    After, AppendRequest, BlockId, Bounds, Config, Faults, Message, Outbox, Output, Raft,
};

use super::breach::Breach;
use super::mark::Mark;
use super::wire::{Block, Body, NODE_COUNT};

/// What may happen to a node.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Input {
    /// A message arrives. Of blocks in it so many find room, all of them if nothing is said.
    Receive {
        from: NodeId,
        body: Arc<Body>,
        room: Option<usize>,
    },
    /// The oldest run on its way to the disk is durable.
    Store,
    /// Nothing was heard for long enough to begin an election, or begin it again.
    Election,
    /// The leader was heard T ago; this node's own election is not due yet.
    Silence,
    /// A leader hears nothing of what it sent.
    Resend,
    /// A leader hears no quorum for T.
    QuorumSilent,
    /// A transfer took too long.
    HandoverOver,
    /// A leader's heartbeat is due.
    Beat,
    /// A client appends.
    Propose,
    /// A client reads what is committed, when so many blocks are, as somebody may know.
    Read { known: u64 },
    /// An operator moves leadership.
    Transfer { to: NodeId },
    /// Power is lost, and comes back; so many of the runs on their way had reached the disk.
    Crash { reached_count: usize },
    /// A node whose disk was done stops and begins again, and the disk has lost something.
    Damage { loss: Loss },
    /// A voter in doubt asks the others.
    Ask,
}

/// What a disk loses, and is known to have lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Loss {
    /// The last block.
    Block,
    /// The term, as far as no block tells it, and the vote.
    Vote,
}

/// What a crash leaves.
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub(crate) struct Disk {
    pub(crate) hard: HardState,
    /// The first at index 1.
    pub(crate) log: Vec<Block>,
    /// What it may have lost of both.
    pub(crate) doubt: Doubt,
    /// Starts in doubt.
    start_count: u64,
}

impl Disk {
    fn take(&mut self, item: Item) {
        match item {
            Item::Hard(hard) => self.hard = hard,
            Item::Doubt(doubt) => self.doubt = doubt,
            Item::Block(index, block) => {
                self.log.truncate(index.0 as usize - 1);
                assert_eq!(self.log.len() as u64, index.0 - 1, "the journal has no gap");
                self.log.push(block);
            }
        }
    }

    fn tail(&self) -> Tail {
        let mut tail = Tail::new(Base::default());
        for block in &self.log {
            tail.push(block.entry(Lsn(0), tail.next_offset()));
        }
        tail
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Item {
    Hard(HardState),
    Doubt(Doubt),
    Block(Index, Block),
}

/// A node between two steps.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) struct Node {
    pub(crate) me: NodeId,
    pub(crate) raft: Raft,
    pub(crate) disk: Disk,
    /// On their way to the disk, oldest first: run `i` has lsn `i + 1`, and all below is durable.
    runs: Vec<Vec<Item>>,
    /// Messages that wait for the run at their lsn.
    held: Vec<(Lsn, NodeId, Message)>,
    /// Highest term this node has told a candidate its vote in, and to whom. No disk has this: it
    /// is what others may build on.
    pub(crate) promised: HardState,
    /// The highest it had told another candidate when it stood for election itself.
    promised_before: HardState,
    /// What the disk had each time before it lost something: others were right to count on it.
    pub(crate) had: Vec<Vec<Block>>,
}

/// What a step did besides.
#[derive(Clone, Debug, Default)]
pub(crate) struct Did {
    /// In the order in which they left.
    pub(crate) sent: Vec<(NodeId, Body)>,
    /// Became leader in this term.
    pub(crate) leads: Option<Term>,
    pub(crate) marks: Vec<Mark>,
    pub(crate) breach: Option<Breach>,
}

impl Node {
    /// A node that never ran.
    pub(crate) fn new(id: NodeId) -> Self {
        let mut node = Self {
            me: id,
            raft: raft(id, &Disk::default()),
            disk: Disk::default(),
            runs: Vec::new(),
            held: Vec::new(),
            promised: HardState::default(),
            promised_before: HardState::default(),
            had: Vec::new(),
        };
        node.raft.forget_time();
        node
    }

    /// What follows from `input`; none if that is impossible now or changes nothing.
    pub(crate) fn step(&self, input: &Input, host: Host) -> Option<(Self, Did)> {
        if !self.takes(input) {
            return None;
        }
        let mut turn = Turn {
            node: self.clone(),
            open: Vec::new(),
            did: Did::default(),
            host,
            beat_now: false,
        };
        let played = catch_unwind(AssertUnwindSafe(|| turn.play(input)));
        if let Err(panic) = played {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).into()));
            let breach = Breach::Invariant(text.unwrap_or_default().into());
            turn.node = self.clone();
            turn.did.breach.get_or_insert(breach);
        }
        let Turn { node, did, .. } = turn;
        let quiet = node == *self && did.sent.is_empty() && did.breach.is_none();
        (!quiet).then_some((node, did))
    }

    fn takes(&self, input: &Input) -> bool {
        let leads = self.raft.is_leader();
        match input {
            Input::Receive { .. } => true,
            Input::Store => !self.runs.is_empty(),
            Input::Crash { reached_count } => *reached_count <= self.runs.len(),
            Input::Damage { loss: Loss::Block } => !self.disk.log.is_empty(),
            Input::Damage { loss: Loss::Vote } => true,
            Input::Ask => self.raft.doubt().is_any(),
            Input::Election | Input::Silence => !leads,
            Input::Resend | Input::QuorumSilent | Input::HandoverOver | Input::Beat => leads,
            Input::Propose => self.raft.can_propose().is_ok(),
            Input::Read { .. } => leads,
            Input::Transfer { to } => leads && *to != self.me,
        }
    }

    pub(crate) fn run_count(&self) -> usize {
        self.runs.len()
    }

    /// The log as this node has it in memory, by blocks.
    pub(crate) fn log(&self) -> impl ExactSizeIterator<Item = Block> {
        let tail = self.raft.tail();
        (1..tail.last_index().0 as usize + 1).map(|index| {
            Block::of(
                tail.entry(Index(index as u64))
                    .expect("nothing was released"),
            )
        })
    }

    /// The same node in a group whose nodes are called otherwise.
    pub(crate) fn renamed(&self, name: impl Fn(NodeId) -> NodeId + Copy) -> Self {
        let hard = |hard: HardState| HardState {
            vote: hard.vote.map(name),
            ..hard
        };
        let item = |item: &Item| match *item {
            Item::Hard(state) => Item::Hard(hard(state)),
            other @ (Item::Block(..) | Item::Doubt(_)) => other,
        };
        let runs = self.runs.iter();
        let held = self.held.iter();
        Self {
            me: name(self.me),
            raft: self.raft.renamed(name),
            disk: Disk {
                hard: hard(self.disk.hard),
                ..self.disk.clone()
            },
            runs: runs.map(|run| run.iter().map(item).collect()).collect(),
            held: held
                .map(|(lsn, to, message)| (*lsn, name(*to), *message))
                .collect(),
            promised: hard(self.promised),
            promised_before: hard(self.promised_before),
            had: self.had.clone(),
        }
    }
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let raft = &self.raft;
        write!(
            f,
            "{:?} term {} vote {:?} log {:?} commit {} | disk: term {} vote {:?} log {:?}, {} runs, {} held",
            raft.role(),
            raft.term(),
            raft.hard_state().vote.map(|node| node.0),
            self.log().collect::<Vec<_>>(),
            raft.commit(),
            self.disk.hard.term,
            self.disk.hard.vote.map(|node| node.0),
            self.disk.log,
            self.runs.len(),
            self.held.len(),
        )
    }
}

/// A Raft as it starts from a disk, whose first flush is stored.
fn raft(id: NodeId, disk: &Disk) -> Raft {
    let config = Config {
        group: GroupId(0),
        me: id,
        voters: (1..=NODE_COUNT as u64).map(NodeId).collect(),
        seed: 0,
        bounds: Bounds::STANDARD,
    };
    let (hard, tail) = (disk.hard, disk.tail());
    let commit = tail.base().index;
    let mut raft = match disk.doubt.is_any() {
        true => Raft::doubting(
            NOW,
            config,
            hard,
            tail,
            commit,
            disk.doubt,
            disk.start_count,
        ),
        false => Raft::new(NOW, config, hard, tail, commit),
    };
    let mut out = Outbox::default();
    raft.stored(NOW, Lsn(1), &mut out);
    assert!(out.list.is_empty(), "a start sends nothing");
    raft
}

/// What the host around Raft is like.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Host {
    /// Runs are durable within the step that made them.
    pub(crate) prompt_disk: bool,
    /// A heartbeat that Raft asks for leaves with the turn. Otherwise the next one by the clock
    /// tells the same.
    pub(crate) prompt_beat: bool,
}

/// A step while it is done.
struct Turn {
    node: Node,
    open: Vec<Item>,
    did: Did,
    host: Host,
    beat_now: bool,
}

impl Turn {
    fn play(&mut self, input: &Input) {
        match input {
            Input::Receive { from, body, room } => self.receive(*from, body, *room),
            Input::Store => self.store(),
            Input::Election => self.call(|raft, out| raft.tick(essence::ELECTION_DUE, out)),
            Input::Silence => self.call(|raft, out| raft.tick(essence::SILENCE, out)),
            Input::QuorumSilent => {
                self.call(|raft, out| raft.tick(essence::SILENCE, out));
                assert!(!self.node.raft.is_leader(), "silence ends a leadership");
            }
            Input::Resend => self.call(|raft, out| raft.tick(essence::RESEND_DUE, out)),
            Input::HandoverOver => {
                let was_handing = self.node.raft.can_propose().is_err();
                self.call(|raft, out| raft.tick(essence::HANDOVER_DUE, out));
                if was_handing && self.node.raft.can_propose().is_ok() {
                    self.did.marks.push(Mark::TransferGivenUp);
                }
            }
            Input::Beat => self.beat_now = true,
            Input::Propose => self.propose(true),
            // Its number is what it must see at least, so nothing else need be remembered of it.
            Input::Read { known } => self.call(|raft, out| raft.read(NOW, *known, out)),
            Input::Transfer { to } => {
                // Refused while another transfer goes on; then nothing changes.
                let _ = self.call(|raft, out| raft.transfer(NOW, *to, out));
            }
            Input::Crash { reached_count } => self.crash(*reached_count),
            Input::Damage { loss } => self.damage(*loss),
            Input::Ask => self.call(|raft, out| raft.tick(essence::REPORT_DUE, out)),
        }
        self.end_turn();
        while self.host.prompt_disk && !self.node.runs.is_empty() {
            self.store();
            self.end_turn();
        }
        let raft = &self.node.raft;
        if raft.is_leader() && raft.commit() > raft.durable() {
            self.did.marks.push(Mark::CommittedBeforeOwnDisk);
        }
        let faults = *raft.faults();
        if faults != Faults::default() {
            self.did.breach.get_or_insert(Breach::Fault(faults));
        }
        self.node.raft.forget_time();
    }

    fn open_lsn(&self) -> Lsn {
        Lsn(self.node.runs.len() as u64 + 1)
    }

    fn call<R>(&mut self, act: impl FnOnce(&mut Raft, &mut Outbox) -> R) -> R {
        let mut out = Outbox {
            lsn: self.open_lsn(),
            list: Vec::new(),
        };
        let before = Seen::of(&self.node.raft);
        let result = act(&mut self.node.raft, &mut out);
        check(&before, &self.node.raft);
        out.list.into_iter().for_each(|output| self.perform(output));
        result
    }

    fn perform(&mut self, output: Output) {
        match output {
            Output::Persist(hard) => self.open.push(Item::Hard(hard)),
            Output::Send { to, message, after } => match after {
                After::Stored(lsn) => {
                    assert!(lsn <= self.open_lsn(), "no run is waited for that never is");
                    self.node.held.push((lsn, to, message));
                }
                After::Now => self.send(to, Body::Message(message)),
            },
            Output::Replicate {
                to,
                term,
                prev_index,
                prev_term,
                first,
                last,
                commit,
            } => {
                if first > last {
                    self.did.marks.push(Mark::Reminded);
                }
                let tail = self.node.raft.tail();
                let block = |index| Block::of(tail.entry(Index(index)).expect("in memory"));
                let blocks = (first.0..=last.0).map(block).collect();
                let prev = (prev_index, prev_term);
                let body = Body::Append {
                    term,
                    prev,
                    commit,
                    blocks,
                };
                self.send(to, body);
            }
            Output::CatchUp { .. } => panic!("nothing was released"),
            Output::BecameLeader { term } => {
                self.did.leads = Some(term);
                self.did.marks.push(Mark::Elected);
                self.propose(false);
            }
            Output::Committed { .. } => self.did.marks.push(Mark::Committed),
            // The next heartbeat by the clock, which is `Input::Beat`, tells the same.
            Output::BeatNow => self.beat_now |= self.host.prompt_beat,
            Output::SteppedDown { .. } => self.did.marks.push(Mark::SteppedDown),
            Output::Truncated { .. } => self.did.marks.push(Mark::Truncated),
            Output::ReadReady { id: known, index } => {
                self.did.marks.push(Mark::ReadServed);
                if index < Index(known) {
                    self.did.breach.get_or_insert(Breach::StaleRead(index));
                }
            }
            Output::ReadFailed { .. } => self.did.marks.push(Mark::ReadFailed),
            Output::Doubts(doubt) => {
                let mark = match self.node.disk.doubt.vote && !doubt.vote {
                    true => Mark::VoteSettled,
                    false => Mark::LogSettled,
                };
                self.did.marks.push(mark);
                self.open.push(Item::Doubt(doubt));
            }
        }
    }

    fn propose(&mut self, has_record: bool) {
        let (term, lsn) = (self.node.raft.term(), self.open_lsn());
        let block = Block { term, has_record };
        let entry = block.entry(lsn, self.node.raft.tail().next_offset());
        let before = Seen::of(&self.node.raft);
        let index = self.node.raft.propose(entry);
        check(&before, &self.node.raft);
        self.open.push(Item::Block(index, block));
    }

    fn receive(&mut self, from: NodeId, body: &Body, room: Option<usize>) {
        match body {
            Body::Message(message) => self.call(|raft, out| raft.step(NOW, from, *message, out)),
            Body::Beat(beat) => {
                let ack = self.call(|raft, out| raft.on_beat(NOW, from, beat, out));
                self.send(from, Body::BeatAck(ack));
            }
            Body::BeatAck(ack) => self.call(|raft, out| raft.on_beat_ack(NOW, from, ack, out)),
            Body::Append {
                term,
                prev,
                commit,
                blocks,
            } => {
                let index_of = |i: usize| Index(prev.0.0 + 1 + i as u64);
                let id = |(i, block): (usize, &Block)| BlockId {
                    index: index_of(i),
                    term: block.term,
                };
                let ids: Vec<_> = blocks.iter().enumerate().map(id).collect();
                let request = AppendRequest {
                    term: *term,
                    prev_index: prev.0,
                    prev_term: prev.1,
                    commit: *commit,
                    blocks: &ids,
                };
                let accepted = self.call(|raft, out| raft.append_entries(NOW, from, &request, out));
                let Some(accepted) = accepted else {
                    return;
                };
                let lsn = self.open_lsn();
                let mut offset = self.node.raft.tail().next_offset();
                let mut copied: Vec<Entry> = Vec::new();
                let wanted = blocks.iter().enumerate().skip(accepted.skip);
                let count = room.unwrap_or(blocks.len());
                if wanted.len() > count {
                    self.did.marks.push(Mark::CutShort);
                }
                for (i, block) in wanted.take(count) {
                    let entry = block.entry(lsn, offset);
                    offset = entry.next_offset();
                    copied.push(entry);
                    self.open.push(Item::Block(index_of(i), *block));
                }
                self.call(|raft, out| raft.appended(NOW, &copied, out));
            }
        }
    }

    fn end_turn(&mut self) {
        self.call(|raft, out| raft.flush(NOW, out));
        if !self.open.is_empty() {
            self.node.runs.push(std::mem::take(&mut self.open));
        }
        if std::mem::take(&mut self.beat_now)
            && let Some(beat) = self.node.raft.beat()
        {
            for to in (1..=NODE_COUNT as u64).map(NodeId) {
                if to != self.node.me {
                    self.send(to, Body::Beat(beat));
                }
            }
        }
        self.release_held();
    }

    /// The oldest run is durable. Raft hears of it before messages that waited for it leave.
    fn store(&mut self) {
        let run = self.node.runs.remove(0);
        run.into_iter().for_each(|item| self.node.disk.take(item));
        // Where the next run lies: places are counted from the oldest that is not durable.
        let mut out = Outbox {
            lsn: Lsn(self.node.runs.len() as u64 + 2),
            list: Vec::new(),
        };
        let before = Seen::of(&self.node.raft);
        self.node.raft.stored(NOW, Lsn(2), &mut out);
        self.node.raft.lower_places(1);
        check(&before, &self.node.raft);
        for (lsn, ..) in &mut self.node.held {
            lsn.0 = lsn.0.saturating_sub(1);
        }
        for output in out.list {
            assert!(
                !matches!(
                    output,
                    Output::Persist(_)
                        | Output::Send {
                            after: After::Stored(_),
                            ..
                        }
                ),
                "what is stored asks for no more"
            );
            self.perform(output);
        }
    }

    fn release_held(&mut self) {
        for (lsn, to, message) in std::mem::take(&mut self.node.held) {
            if lsn == Lsn(0) {
                self.send(to, Body::Message(message));
            } else {
                self.node.held.push((lsn, to, message));
            }
        }
    }

    fn crash(&mut self, reached_count: usize) {
        let runs = std::mem::take(&mut self.node.runs);
        if reached_count < runs.len() {
            self.did.marks.push(Mark::RunLost);
        }
        for item in runs.into_iter().take(reached_count).flatten() {
            self.node.disk.take(item);
        }
        self.restart();
    }

    fn damage(&mut self, loss: Loss) {
        for item in std::mem::take(&mut self.node.runs).into_iter().flatten() {
            self.node.disk.take(item);
        }
        let disk = &mut self.node.disk;
        match loss {
            Loss::Block => {
                self.node.had.push(disk.log.clone());
                disk.log.pop();
                disk.doubt.log = true;
            }
            Loss::Vote => {
                let term = disk.log.last().map_or(Term(0), |last| last.term);
                disk.hard = HardState { term, vote: None };
                disk.doubt.vote = true;
                // Its candidacy is over: had it led, a quorum would know of the term. What it told
                // others before may still be on its way to them.
                if self.node.promised.vote == Some(self.node.me) {
                    self.node.promised = std::mem::take(&mut self.node.promised_before);
                }
            }
        }
        self.restart();
    }

    fn restart(&mut self) {
        self.node.held.clear();
        let disk = &mut self.node.disk;
        disk.start_count += u64::from(disk.doubt.is_any());
        self.node.raft = raft(self.node.me, disk);
    }

    fn send(&mut self, to: NodeId, body: Body) {
        if let Some(breach) = self.broken_by(to, &body) {
            self.did.breach.get_or_insert(breach);
        }
        self.did.sent.push((to, body));
    }

    /// No promise leaves before what it rests on is on disk.
    fn broken_by(&mut self, to: NodeId, body: &Body) -> Option<Breach> {
        let Node {
            me,
            raft,
            disk,
            promised,
            promised_before,
            ..
        } = &mut self.node;
        let me = *me;
        let has_durably = |index: Index| {
            let entry = raft.tail().entry(index).map(Block::of);
            index == Index(0) || disk.log.get(index.0 as usize - 1).copied() == entry
        };
        let mut promise = |term: Term, candidate: NodeId| {
            let vote = HardState {
                term,
                vote: Some(candidate),
            };
            let kept = disk.hard.term > term || disk.hard == vote;
            let first = promised.term < term || *promised == vote;
            if promised.term <= term {
                *promised_before = match (candidate == me, promised.vote == Some(me)) {
                    (true, true) => *promised_before,
                    (true, false) => *promised,
                    (false, _) => HardState::default(),
                };
                *promised = vote;
            }
            let broken = if first {
                Breach::VoteNotDurable
            } else {
                Breach::TwoVotes
            };
            (!kept || !first).then_some(broken)
        };
        match *body {
            Body::Message(Message::VoteReply {
                pre,
                granted: false,
                ..
            }) => {
                let mark = if pre {
                    Mark::PreVoteRefused
                } else {
                    Mark::VoteRefused
                };
                self.did.marks.push(mark);
                None
            }
            Body::Message(Message::VoteReply {
                pre: false, term, ..
            }) => promise(term, to),
            Body::Message(Message::VoteRequest {
                pre: false,
                term,
                transfer,
                ..
            }) => {
                if transfer {
                    self.did.marks.push(Mark::Handed);
                }
                promise(term, me)
            }
            Body::Message(Message::AppendAck {
                term,
                matched,
                index,
                ..
            }) => {
                if !matched {
                    self.did.marks.push(Mark::Refused);
                }
                // In a later term the log may have moved on since.
                let kept = disk.hard.term >= term
                    && (!matched || term != raft.term() || has_durably(index));
                (!kept).then_some(Breach::AckNotDurable)
            }
            Body::BeatAck(ack) => {
                let kept = ack.durable == Index(0)
                    || disk.hard.term >= ack.term && has_durably(ack.durable);
                (!kept).then_some(Breach::AckNotDurable)
            }
            Body::Append { term, .. } => {
                let vote = HardState {
                    term,
                    vote: Some(me),
                };
                (disk.hard != vote).then_some(Breach::VoteNotDurable)
            }
            Body::Message(_) | Body::Beat(_) => None,
        }
    }
}
