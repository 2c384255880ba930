//! A state of the whole group: nodes, what is on its way between them, what must never be
//! contradicted, and which faults are still to come. And the rules that relate nodes to each other.
//!
//! Decides nothing about what happens next; that is `search`.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::ops::Deref;
use std::sync::Arc;

use ringwood_core::id::{Index, NodeId, Term};

use super::breach::Breach;
use super::node::Node;
use super::wire::{Block, NODE_COUNT, Wire, digest};

/// Which node takes whose place, in every order of three.
pub(crate) const ORDERS: [[usize; NODE_COUNT]; 6] = [
    [0, 1, 2],
    [0, 2, 1],
    [1, 0, 2],
    [1, 2, 0],
    [2, 0, 1],
    [2, 1, 0],
];

/// The name that a node has after the nodes were put into an order.
pub(crate) fn name(order: &[usize; NODE_COUNT], node: NodeId) -> NodeId {
    NodeId(order[node.0 as usize - 1] as u64 + 1)
}

/// A node that many states share.
#[derive(Clone)]
pub(crate) struct Shared {
    node: Arc<Node>,
    /// Of the node under each order's names.
    digests: [u64; ORDERS.len()],
}

impl Shared {
    pub(crate) fn new(node: Node) -> Self {
        let digests = ORDERS.map(|order| digest(&node.renamed(|id| name(&order, id))));
        Self {
            node: Arc::new(node),
            digests,
        }
    }

    /// Stands for the node in comparisons.
    pub(crate) fn digest(&self) -> u64 {
        self.digests[0]
    }
}

impl Deref for Shared {
    type Target = Node;

    fn deref(&self) -> &Node {
        &self.node
    }
}

/// How often what may still happen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Budget {
    /// Election timeouts of followers and candidates.
    pub(crate) elections: u8,
    /// Clients' blocks.
    pub(crate) proposals: u8,
    pub(crate) crashes: u8,
    pub(crate) duplicates: u8,
    pub(crate) transfers: u8,
    pub(crate) beats: u8,
    pub(crate) resends: u8,
    pub(crate) reads: u8,
    /// Messages of whose blocks not all find room.
    pub(crate) shortages: u8,
    /// Disks that lose something.
    pub(crate) damages: u8,
    /// Rounds of questions by voters in doubt.
    pub(crate) asks: u8,
}

/// What was true once and must stay so.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct History {
    /// Who led which term, ascending.
    pub(crate) leaders: Vec<(Term, NodeId)>,
    /// Every block ever committed anywhere, the first at index 1, each with the term whose leader
    /// committed it.
    pub(crate) committed: Vec<(Block, Term)>,
}

/// What names nodes besides the nodes themselves, in some order of them.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Rest {
    wires: Vec<(NodeId, NodeId, u64)>,
    leaders: Vec<(Term, NodeId)>,
}

/// A state of the group.
#[derive(Clone)]
pub(crate) struct Cluster {
    pub(crate) nodes: [Shared; NODE_COUNT],
    /// In order, the same message as often as it is on its way.
    pub(crate) wires: Vec<Wire>,
    pub(crate) history: History,
    pub(crate) left: Budget,
    pub(crate) breach: Option<Breach>,
}

impl Cluster {
    /// Nodes that never ran.
    pub(crate) fn new(left: Budget) -> Self {
        Self {
            nodes: [1, 2, 3].map(|id| Shared::new(Node::new(NodeId(id)))),
            wires: Vec::new(),
            history: History::default(),
            left,
            breach: None,
        }
    }

    pub(crate) fn node(&self, id: NodeId) -> &Shared {
        &self.nodes[id.0 as usize - 1]
    }

    /// Puts a message on its way; one that is there already is not there twice by being sent
    /// twice, only by the network's doing.
    pub(crate) fn send(&mut self, wire: Wire) {
        if let Err(place) = self.place(&wire) {
            self.wires.insert(place, wire);
        }
    }

    /// The network makes two of one.
    pub(crate) fn double(&mut self, wire: &Wire) {
        let (Ok(place) | Err(place)) = self.place(wire);
        self.wires.insert(place, wire.clone());
    }

    pub(crate) fn take(&mut self, wire: &Wire) {
        let place = self.place(wire).expect("it is on its way");
        self.wires.remove(place);
    }

    fn place(&self, wire: &Wire) -> Result<usize, usize> {
        self.wires
            .binary_search_by(|other| other.key().cmp(&wire.key()))
    }

    /// `id` leads `term` now. Of nodes that voted in later terms since, nothing is known.
    pub(crate) fn note_leader(&mut self, term: Term, id: NodeId) {
        let may_have_voted = |node: &&Shared| {
            let told = node.promised;
            told.term > term || (told.term, told.vote) == (term, Some(id))
        };
        if 2 * self.nodes.iter().filter(may_have_voted).count() <= NODE_COUNT {
            self.breach.get_or_insert(Breach::NoQuorum(term));
        }
        let leaders = &mut self.history.leaders;
        match leaders.binary_search_by_key(&term, |(term, _)| *term) {
            Ok(place) if leaders[place].1 != id => {
                self.breach.get_or_insert(Breach::TwoLeaders(term));
            }
            Ok(_) => {}
            Err(place) => leaders.insert(place, (term, id)),
        }
    }

    /// Takes over what `id` committed beyond what is known; a quorum's disks must have it.
    pub(crate) fn note_commits(&mut self, id: NodeId) {
        let node = self.node(id).clone();
        let known = self.history.committed.len();
        for i in known..node.raft.commit().0 as usize {
            let block = node.log().nth(i).expect("what is committed is here");
            self.history.committed.push((block, node.raft.term()));
            if !self.is_on_quorum(i) {
                let index = Index(i as u64 + 1);
                self.breach.get_or_insert(Breach::CommitNotDurable(index));
            }
        }
    }

    /// Most disks have the committed block at position `i`, and all before it as committed.
    fn is_on_quorum(&self, i: usize) -> bool {
        let committed = &self.history.committed[..=i];
        let has =
            |log: &[Block]| log.len() > i && committed.iter().zip(log).all(|((a, _), b)| a == b);
        // What a disk has lost it had when it was counted.
        let has_all = |node: &&Shared| has(&node.disk.log) || node.had.iter().any(|log| has(log));
        2 * self.nodes.iter().filter(has_all).count() > NODE_COUNT
    }

    // ---- the rules

    /// At most one leader a term, among all that lead now; over time `note_leader` sees to it.
    pub(crate) fn has_one_leader_a_term(&self) -> bool {
        let leads = |node: &&Shared| node.raft.is_leader();
        let mut terms: Vec<_> = self.nodes.iter().filter(leads).collect();
        terms.sort_unstable_by_key(|node| node.raft.term());
        terms
            .windows(2)
            .all(|pair| pair[0].raft.term() != pair[1].raft.term())
            && !matches!(
                self.breach,
                Some(Breach::TwoLeaders(_) | Breach::NoQuorum(_))
            )
    }

    /// Two logs, in memory or on disk, that have a block of one term at one index are equal up to
    /// there.
    pub(crate) fn has_matching_logs(&self) -> bool {
        let mut logs: Vec<Vec<Block>> = Vec::new();
        for node in &self.nodes {
            logs.push(node.log().collect());
            logs.push(node.disk.log.clone());
        }
        let matches = |a: &[Block], b: &[Block]| {
            let last = a.iter().zip(b).rposition(|(a, b)| a.term == b.term);
            last.is_none_or(|last| a[..=last] == b[..=last])
        };
        (1..logs.len()).all(|i| logs[..i].iter().all(|other| matches(&logs[i], other)))
    }

    /// A leader has every block that was committed in its term or an earlier one.
    pub(crate) fn has_complete_leaders(&self) -> bool {
        let leaders = self.nodes.iter().filter(|node| node.raft.is_leader());
        leaders.into_iter().all(|leader| {
            let before = |(_, term): &&(Block, Term)| *term <= leader.raft.term();
            let committed = self.history.committed.iter().filter(before);
            committed.clone().count() <= leader.log().len()
                && committed.zip(leader.log()).all(|((a, _), b)| *a == b)
        })
    }

    /// All that nodes call committed is one sequence.
    pub(crate) fn has_one_history(&self) -> bool {
        self.nodes.iter().all(|node| {
            let count = node.raft.commit().0 as usize;
            count <= self.history.committed.len()
                && (self.history.committed.iter().take(count))
                    .zip(node.log())
                    .all(|((a, _), b)| *a == b)
        })
    }

    /// What was ever committed is on most disks, whatever crashed since.
    pub(crate) fn has_durable_history(&self) -> bool {
        let last = self.history.committed.len().checked_sub(1);
        last.is_none_or(|last| self.is_on_quorum(last))
            && !matches!(self.breach, Some(Breach::CommitNotDurable(_)))
    }

    /// What a node told a candidate is on its disk, or of a term that it left since.
    pub(crate) fn remembers_votes(&self) -> bool {
        let kept = |node: &Shared| {
            let (disk, promised) = (node.disk.hard, node.promised);
            // Lost, and known to be; or barred by a vote for itself.
            let is_barred = disk.term == promised.term && disk.vote == Some(node.me);
            disk.term > promised.term
                || disk == promised
                || promised.vote.is_none()
                || node.disk.doubt.vote
                || is_barred
        };
        let told = matches!(self.breach, Some(Breach::TwoVotes | Breach::VoteNotDurable));
        self.nodes.iter().all(kept) && !told
    }

    // ---- symmetry

    /// The order that stands for all states which differ only in the nodes' names: that of the
    /// least digests.
    pub(crate) fn canonical_order(&self) -> usize {
        let all = 0..ORDERS.len();
        all.min_by(|a, b| {
            self.digests(*a).cmp(&self.digests(*b)).then_with(|| {
                // Nodes that look alike are told apart by what they send each other and did.
                if a == b {
                    return Ordering::Equal;
                }
                self.rest(*a).cmp(&self.rest(*b))
            })
        })
        .expect("there are orders")
    }

    fn digests(&self, order: usize) -> [u64; NODE_COUNT] {
        let mut digests = [0; NODE_COUNT];
        for (i, node) in self.nodes.iter().enumerate() {
            digests[ORDERS[order][i]] = node.digests[order];
        }
        digests
    }

    fn rest(&self, order: usize) -> Rest {
        let name = |id| name(&ORDERS[order], id);
        let wires = self.wires.iter();
        let mut keys: Vec<_> = wires
            .map(|wire| (name(wire.from), name(wire.to), wire.digest))
            .collect();
        keys.sort_unstable();
        let leaders = self.history.leaders.iter();
        Rest {
            wires: keys,
            leaders: leaders.map(|(term, id)| (*term, name(*id))).collect(),
        }
    }

    /// The same state with the nodes in another order; `rename` gives a node under its names there.
    pub(crate) fn reordered(
        &self,
        order: usize,
        rename: impl Fn(&Shared, usize, u64) -> Shared,
    ) -> Self {
        let name = |id| name(&ORDERS[order], id);
        let mut nodes = self.nodes.clone();
        for (i, node) in self.nodes.iter().enumerate() {
            nodes[ORDERS[order][i]] = rename(node, order, node.digests[order]);
        }
        let mut wires = self.wires.clone();
        for wire in &mut wires {
            (wire.from, wire.to) = (name(wire.from), name(wire.to));
        }
        wires.sort_unstable_by_key(Wire::key);
        let mut history = self.history.clone();
        for (_, leader) in &mut history.leaders {
            *leader = name(*leader);
        }
        Self {
            nodes,
            wires,
            history,
            left: self.left,
            breach: self.breach.clone(),
        }
    }
}

impl Hash for Cluster {
    fn hash<H: Hasher>(&self, state: &mut H) {
        for node in &self.nodes {
            node.digest().hash(state);
        }
        for wire in &self.wires {
            wire.key().hash(state);
        }
        self.wires.len().hash(state);
        self.history.hash(state);
        self.left.hash(state);
        self.breach.hash(state);
    }
}

impl PartialEq for Cluster {
    fn eq(&self, other: &Self) -> bool {
        let nodes = || self.nodes.iter().zip(&other.nodes);
        nodes().all(|(a, b)| *a.node == *b.node)
            && self.wires == other.wires
            && self.history == other.history
            && self.left == other.left
            && self.breach == other.breach
    }
}

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for node in &self.nodes {
            writeln!(f, "  {} {:?}", node.me, **node)?;
        }
        for wire in &self.wires {
            writeln!(f, "    {wire:?}")?;
        }
        writeln!(f, "  {:?}", self.history)?;
        match &self.breach {
            Some(breach) => writeln!(f, "  BROKEN: {breach}"),
            None => Ok(()),
        }
    }
}
