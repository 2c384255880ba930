//! Every way in which a few nodes can be linked: where the cluster must live, and whether it does.
//!
//! A graph takes the place of the full mesh while a leader leads. What must come of it is said by
//! [`Case::fate`] from the links alone; what does come of it, [`Case::play`] finds out with the nodes
//! that ship. Knows no Raft.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::caller::{Answer, Operation};
use super::network::Party;
use super::scenario::cluster::{Cluster, Plan};
use super::scenario::stage::{News, Stage};
use crate::id::Nanos;
use crate::raft::quorum;

/// A cluster that can live does so within this many timeouts.
pub const TIMEOUT_COUNT_MAX: u64 = 10;

/// From node to node: a room.
const LATENCY: Nanos = Nanos::from_micros(100);

/// Time in which something is decided, or a hand-over is done, where all is well.
const CALM_SPAN: Nanos = Nanos::from_millis(100);

/// A client that was refused asks again after this.
const ASK_SPAN: Nanos = Nanos::from_millis(3);

/// Links of a few nodes, each direction by itself.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Graph {
    node_count: usize,
    /// Pairs of sender and receiver, in order.
    links: Vec<(Party, Party)>,
}

impl Graph {
    /// All graphs whose links go both ways.
    #[must_use]
    pub fn undirected(node_count: usize) -> Vec<Self> {
        let pairs = pairs(node_count).filter(|(from, to)| from < to);
        let pairs: Vec<_> = pairs.collect();
        let graph = |chosen: u32| {
            let links = pairs.iter().enumerate();
            let links = links.filter(|(at, _)| chosen >> at & 1 == 1);
            let mut links: Vec<_> = links.flat_map(|(_, (a, b))| [(*a, *b), (*b, *a)]).collect();
            links.sort_unstable();
            Self { node_count, links }
        };
        (0..1 << pairs.len()).map(graph).collect()
    }

    /// All graphs whose links go one way or both.
    #[must_use]
    pub fn directed(node_count: usize) -> Vec<Self> {
        let pairs: Vec<_> = pairs(node_count).collect();
        let graph = |chosen: u32| {
            let links = pairs.iter().enumerate();
            let links = links.filter(|(at, _)| chosen >> at & 1 == 1);
            let links = links.map(|(_, pair)| *pair).collect();
            Self { node_count, links }
        };
        (0..1 << pairs.len()).map(graph).collect()
    }

    /// Nodes, linked or not.
    #[must_use]
    pub fn node_count(&self) -> usize {
        self.node_count
    }

    fn has(&self, from: Party, to: Party) -> bool {
        self.links.contains(&(from, to))
    }

    /// Whether a node and those that it hears and that hear it are a majority.
    fn reaches_majority(&self, node: Party) -> bool {
        let is_peer = |peer: &Party| self.has(node, *peer) && self.has(*peer, node);
        let peer_count = (0..self.node_count).filter(is_peer).count();
        peer_count + 1 >= quorum::size(self.node_count)
    }

    /// The same for all graphs that differ in their nodes' numbers only.
    fn shape(&self) -> Self {
        let relabelled = permutations(self.node_count).into_iter().map(|numbers| {
            let links = self.links.iter().map(|(a, b)| (numbers[*a], numbers[*b]));
            let mut links: Vec<_> = links.collect();
            links.sort_unstable();
            links
        });
        Self {
            node_count: self.node_count,
            links: relabelled.min().expect("there is a numbering"),
        }
    }

    /// Its links, in words: `1-2 1>3`.
    fn text(&self) -> String {
        let mut text = String::new();
        for (from, to) in &self.links {
            let is_both = self.has(*to, *from);
            if is_both && from > to {
                continue;
            }
            let (sign, gap) = (
                if is_both { '-' } else { '>' },
                if text.is_empty() { "" } else { " " },
            );
            write!(text, "{gap}{}{sign}{}", from + 1, to + 1).expect("a string grows");
        }
        if text.is_empty() {
            "none".to_owned()
        } else {
            text
        }
    }
}

fn pairs(node_count: usize) -> impl Iterator<Item = (Party, Party)> {
    let from = 0..node_count;
    from.flat_map(move |from| (0..node_count).map(move |to| (from, to)))
        .filter(|(from, to)| from != to)
}

fn permutations(count: usize) -> Vec<Vec<usize>> {
    if count == 0 {
        return vec![Vec::new()];
    }
    let mut all = Vec::new();
    for shorter in permutations(count - 1) {
        for at in 0..count {
            let mut longer = shorter.clone();
            longer.insert(at, count - 1);
            all.push(longer);
        }
    }
    all
}

/// What must come of a case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fate {
    /// A node that reaches a majority has every decided block: it can be elected.
    Lives,
    /// Who reaches a majority lacks a decided block. A relay through it would do.
    Outdated,
    /// Nobody reaches a majority.
    Apart,
}

/// A graph, who leads when it comes, and who lacks the last decided block then.
#[derive(Clone, Debug)]
pub struct Case {
    /// The links that are left.
    pub graph: Graph,
    /// Led the full mesh.
    pub leader: usize,
    /// Was cut off while the last block was decided.
    pub stale: Option<usize>,
}

/// What came of a case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The longest wait for a leader's word when the graph came, with its spread.
    pub timeout: Nanos,
    /// Until a record that was appended since was acknowledged; none if it took too long.
    pub live_after: Option<Nanos>,
    /// Leaders elected after that, while nothing changed.
    pub later_leader_count: usize,
    /// Until a record was acknowledged once all links were back.
    pub healed_after: Option<Nanos>,
}

impl Case {
    /// All cases of these graphs: each leader, without and with a stale node next to it in number.
    #[must_use]
    pub fn of(graphs: &[Graph]) -> Vec<Self> {
        let cases = graphs.iter().flat_map(|graph| {
            let count = graph.node_count;
            (0..count).flat_map(move |leader| {
                [None, Some((leader + 1) % count)].map(|stale| Self {
                    graph: graph.clone(),
                    leader,
                    stale,
                })
            })
        });
        cases.collect()
    }

    /// What must come of it. A node that lacks a decided block has it soon if the leader's words
    /// still reach it: they are under way.
    #[must_use]
    pub fn fate(&self) -> Fate {
        let nodes = 0..self.graph.node_count;
        let mut hubs = nodes
            .filter(|node| self.graph.reaches_majority(*node))
            .peekable();
        if hubs.peek().is_none() {
            return Fate::Apart;
        }
        let is_current = |hub: Party| self.stale != Some(hub) || self.graph.has(self.leader, hub);
        if hubs.any(is_current) {
            Fate::Lives
        } else {
            Fate::Outdated
        }
    }

    /// Finds out what comes of it.
    ///
    /// # Panics
    /// If anything that must hold in every run does not.
    #[must_use]
    pub fn play(&self) -> Outcome {
        let mut stand = Stand::new(self);
        if let Some(stale) = self.stale {
            stand.wall_all(|from, to| (from == stale) != (to == stale), true);
            stand.ask_all();
            assert!(stand.wait(CALM_SPAN).is_some(), "a majority decides");
            stand.wall_all(|from, to| (from == stale) != (to == stale), false);
        }
        let timeout = stand.cluster.timeout();
        let patience = Nanos(timeout.0 * TIMEOUT_COUNT_MAX);
        let is_cut = |from, to| !self.graph.has(from, to);
        stand.wall_all(is_cut, true);
        stand.ask_all();
        let live_after = stand.wait(patience);
        stand.leader_count = 0;
        if live_after.is_some() {
            stand.cluster.run_for(patience);
            stand.ask_all();
            assert!(stand.wait(patience).is_some(), "what lives goes on living");
        }
        let later_leader_count = stand.leader_count;
        stand.wall_all(is_cut, false);
        stand.ask_all();
        Outcome {
            timeout,
            live_after,
            later_leader_count,
            healed_after: stand.wait(patience),
        }
    }
}

/// A cluster with a client at each node.
struct Stand {
    cluster: Cluster<'static>,
    /// Counts rounds of records.
    round: usize,
    /// Somebody's record of this round is in the log.
    is_acked: bool,
    leader_count: usize,
}

impl Stand {
    /// A full mesh that the case's leader leads.
    fn new(case: &Case) -> Self {
        let count = case.graph.node_count;
        let plan = Plan {
            node_count: count,
            client_count: count,
            latency: LATENCY,
            seed: 1,
        };
        let mut cluster = Cluster::new(&plan, None);
        (0..count).for_each(|node| cluster.add_client(Some(node)));
        if case.leader != 0 {
            let bid = cluster.bid(0, Operation::Transfer(case.leader));
            bid.expect("nodes that ship hand over");
            cluster.run_for(CALM_SPAN);
        }
        let news = cluster.take_news();
        let leads = |news: &News| matches!(news, News::Leads { node, .. } if *node == case.leader);
        assert!(news.iter().any(leads), "a hand-over takes place");
        Self {
            cluster,
            round: 0,
            is_acked: false,
            leader_count: 0,
        }
    }

    fn wall_all(&mut self, is_cut: impl Fn(Party, Party) -> bool, is_up: bool) {
        for (from, to) in pairs(self.cluster.node_count()) {
            if is_cut(from, to) {
                self.cluster.wall(from, to, is_up);
            }
        }
    }

    fn ask(&mut self, client: usize) {
        let record = Operation::Append(format!("{}-{client}", self.round));
        let bid = self.cluster.bid(client, record);
        bid.expect("nodes that ship take appends");
    }

    /// At each node somebody appends a record.
    fn ask_all(&mut self) {
        self.round += 1;
        self.is_acked = false;
        (0..self.cluster.node_count()).for_each(|client| self.ask(client));
    }

    /// Lets clients ask again until one of this round is acknowledged, and says after how long.
    fn wait(&mut self, patience: Nanos) -> Option<Nanos> {
        let begin = self.cluster.now();
        while !self.is_acked {
            if self.cluster.now() >= begin.after(patience) {
                return None;
            }
            self.cluster.run_for(ASK_SPAN);
            for news in self.cluster.take_news() {
                self.on_news(news);
            }
        }
        Some(self.cluster.now().since(begin))
    }

    fn on_news(&mut self, news: News) {
        match news {
            News::Leads { .. } => self.leader_count += 1,
            News::Yields { .. } => {}
            News::Told {
                client,
                operation: Operation::Append(text),
                answer,
            } => {
                // Of an earlier round nobody waits for an answer any more.
                if text != format!("{}-{client}", self.round) {
                    return;
                }
                match answer {
                    Answer::Committed { .. } => self.is_acked = true,
                    _ => self.ask(client),
                }
            }
            News::Told { .. } => {}
        }
    }
}

/// One row of the table: a shape, and of its cases how many have which fate.
#[derive(Clone, Debug, Default)]
struct Row {
    graph_count: usize,
    /// By whether there is a stale node, then by fate.
    counts: BTreeMap<(bool, Fate), usize>,
}

/// The table of `docs/GRAPHS.md`: what must come of every graph.
#[must_use]
pub fn table(graphs: &[Graph]) -> String {
    let mut rows: BTreeMap<(usize, Graph), Row> = BTreeMap::new();
    for graph in graphs {
        let shape = graph.shape();
        let row = rows.entry((shape.links.len(), shape)).or_default();
        row.graph_count += 1;
        for case in Case::of(std::slice::from_ref(graph)) {
            *row.counts
                .entry((case.stale.is_some(), case.fate()))
                .or_default() += 1;
        }
    }
    let mut text =
        "| links | graphs | all logs equal | one node behind |\n| --- | --- | --- | --- |\n"
            .to_owned();
    for ((_, shape), row) in rows {
        let graph_count = row.graph_count;
        let (equal, behind) = (row.text(false), row.text(true));
        let line = format!("| {} | {graph_count} | {equal} | {behind} |", shape.text());
        writeln!(text, "{line}").expect("a string grows");
    }
    text
}

impl Row {
    fn text(&self, is_stale: bool) -> String {
        let count = |fate| self.counts.get(&(is_stale, fate)).copied().unwrap_or(0);
        let fates = [
            (Fate::Lives, "live"),
            (Fate::Outdated, "outdated"),
            (Fate::Apart, "apart"),
        ];
        let met: Vec<_> = fates
            .into_iter()
            .filter(|(fate, _)| count(*fate) > 0)
            .collect();
        match met.as_slice() {
            [(_, word)] => word.to_string(),
            _ => {
                let parts = met
                    .iter()
                    .map(|(fate, word)| format!("{} {word}", count(*fate)));
                parts.collect::<Vec<_>>().join(", ")
            }
        }
    }
}
