//! One node between two steps: the Raft that ships, a disk, and what is on its way to it or waits for
//! it. What a step is stands in `turn`. Knows no other node.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use ringwood_core::id::{GroupId, Index, Lsn, NodeId, Term};
use ringwood_core::log::HardState;
use ringwood_core::raft::essence::NOW;
use ringwood_core::raft::{Bounds, Config, Message, Outbox, Raft};

use super::breach::Breach;
use super::disk::{Disk, Item, Loss};
use super::mark::Mark;
use super::turn::{Host, Turn};
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

/// A node between two steps.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) struct Node {
    pub(crate) me: NodeId,
    pub(crate) raft: Raft,
    pub(crate) disk: Disk,
    /// On their way to the disk, oldest first: run `i` has lsn `i + 1`, and all below is durable.
    pub(super) runs: Vec<Vec<Item>>,
    /// Messages that wait for the run at their lsn.
    pub(super) held: Vec<(Lsn, NodeId, Message)>,
    /// Highest term this node has told a candidate its vote in, and to whom. No disk has this: it
    /// is what others may build on.
    pub(crate) promised: HardState,
    /// The highest it had told another candidate when it stood for election itself.
    pub(super) promised_before: HardState,
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
        let mut turn = Turn::new(self.clone(), host);
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
pub(super) fn raft(id: NodeId, disk: &Disk) -> Raft {
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
