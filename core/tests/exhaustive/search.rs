//! The search: what may happen next in a state of the group, and what must be true of each.
//!
//! A stateright model. The order of messages, timers, disks and crashes is the search's to choose;
//! every decision is the shipped Raft's.

use stateright::{Model, Property};

use ringwood_core::id::{NodeId, Term};

use super::breach::Breach;
use super::cluster::{Budget, Cluster, Shared};
use super::disk::Loss;
use super::node::Input;
use super::table::Table;
use super::turn::Host;
use super::wire::{Body, NODE_COUNT, Wire, digest};

/// How far a search goes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// Highest term.
    pub(crate) term_max: u64,
    /// Blocks in a log.
    pub(crate) last_max: usize,
    /// Messages on their way at a time.
    pub(crate) wires_max: usize,
    /// Runs of one node on their way to its disk; at 0 each is durable at once.
    pub(crate) runs_max: usize,
    pub(crate) budget: Budget,
}

/// One thing that happens.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Action {
    Deliver(Wire),
    /// So many of its blocks find room.
    DeliverShort(Wire, usize),
    Drop(Wire),
    Duplicate(Wire),
    At(NodeId, Input),
}

/// A group within bounds, from some states on.
pub(crate) struct Search {
    pub(crate) bounds: Bounds,
    pub(crate) starts: Vec<Cluster>,
    /// States that differ only in the nodes' names are one.
    pub(crate) merges_names: bool,
    pub(crate) table: Table,
}

impl Search {
    pub(crate) fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            starts: Vec::new(),
            merges_names: true,
            table: Table::new(Host {
                prompt_disk: bounds.runs_max == 0,
                prompt_beat: bounds.budget.reads > 0,
            }),
        }
    }

    /// What follows from an action, under the names as they are; none if nothing does.
    pub(crate) fn follow(&self, state: &Cluster, action: &Action) -> Option<Cluster> {
        let mut next = state.clone();
        match action {
            Action::Deliver(wire) => self.deliver(&mut next, wire, None)?,
            Action::DeliverShort(wire, room) => {
                next.left.shortages -= 1;
                self.deliver(&mut next, wire, Some(*room))?;
            }
            Action::Drop(wire) => next.take(wire),
            Action::Duplicate(wire) => {
                next.left.duplicates -= 1;
                next.double(wire);
            }
            Action::At(id, input) => {
                let left = &mut next.left;
                match input {
                    Input::Election => left.elections -= 1,
                    Input::Propose => left.proposals -= 1,
                    Input::Crash { .. } => left.crashes -= 1,
                    Input::Transfer { .. } => left.transfers -= 1,
                    Input::Beat => left.beats -= 1,
                    Input::Resend => left.resends -= 1,
                    Input::Read { .. } => left.reads -= 1,
                    Input::Damage { .. } => left.damages -= 1,
                    Input::Ask => left.asks -= 1,
                    Input::Store
                    | Input::Silence
                    | Input::QuorumSilent
                    | Input::HandoverOver
                    | Input::Receive { .. } => {}
                }
                self.step(&mut next, *id, input, digest(input))?;
            }
        }
        Some(next)
    }

    fn deliver(&self, next: &mut Cluster, wire: &Wire, room: Option<usize>) -> Option<()> {
        next.take(wire);
        let input = Input::Receive {
            from: wire.from,
            body: wire.body.clone(),
            room,
        };
        let digest = digest(&(wire.from, wire.digest, room));
        self.step(next, wire.to, &input, digest)
    }

    fn step(&self, next: &mut Cluster, id: NodeId, input: &Input, digest: u64) -> Option<()> {
        let step = self.table.step(next.node(id), input, digest)?;
        next.nodes[id.0 as usize - 1] = step.node.clone();
        for wire in &step.sent {
            next.send(wire.clone());
        }
        next.breach.clone_from(&step.breach);
        if let Some(term) = step.leads {
            next.note_leader(term, id);
        }
        next.note_commits(id);
        Some(())
    }

    /// The one state that stands for all which differ only in the nodes' names.
    pub(crate) fn merged(&self, state: Cluster) -> Cluster {
        if !self.merges_names {
            return state;
        }
        match state.canonical_order() {
            0 => state,
            order => state.reordered(order, |node, order, digest| {
                self.table.renamed(node, order, digest)
            }),
        }
    }

    fn inputs_of(&self, node: &Shared, state: &Cluster, add: &mut impl FnMut(Input)) {
        let (raft, bounds, left) = (&node.raft, &self.bounds, &state.left);
        if node.run_count() > 0 {
            add(Input::Store);
        }
        if raft.is_leader() {
            add(Input::QuorumSilent);
            add(Input::HandoverOver);
            if left.resends > 0 {
                add(Input::Resend);
            }
            if left.beats > 0 {
                add(Input::Beat);
            }
            if left.proposals > 0 && node.log().len() < bounds.last_max {
                add(Input::Propose);
            }
            if left.reads > 0 {
                let known = state.history.committed.len() as u64;
                add(Input::Read { known });
            }
            if left.transfers > 0 {
                let others = (1..=NODE_COUNT as u64)
                    .map(NodeId)
                    .filter(|id| *id != node.me);
                others.for_each(|to| add(Input::Transfer { to }));
            }
        } else {
            add(Input::Silence);
            if left.elections > 0 && raft.term() < Term(bounds.term_max) {
                add(Input::Election);
            }
        }
        if left.damages > 0 {
            add(Input::Damage { loss: Loss::Block });
            add(Input::Damage { loss: Loss::Vote });
        }
        if left.asks > 0 && raft.doubt().is_any() {
            add(Input::Ask);
        }
        if left.crashes > 0 {
            for reached_count in 0..=node.run_count() {
                add(Input::Crash { reached_count });
            }
        }
    }
}

impl Model for Search {
    type State = Cluster;
    type Action = Action;

    fn init_states(&self) -> Vec<Cluster> {
        self.starts
            .iter()
            .cloned()
            .map(|start| self.merged(start))
            .collect()
    }

    fn actions(&self, state: &Cluster, actions: &mut Vec<Action>) {
        if state.breach.is_some() {
            return; // What follows from a broken state proves nothing.
        }
        // A step sends each other node something.
        let is_full = state.wires.len() + 2 > self.bounds.wires_max;
        let mut previous = None;
        for wire in &state.wires {
            if previous == Some(wire) {
                continue;
            }
            previous = Some(wire);
            actions.push(Action::Deliver(wire.clone()));
            if let Body::Append { blocks, .. } = &*wire.body
                && state.left.shortages > 0
            {
                let rooms = 0..blocks.len();
                actions.extend(rooms.map(|room| Action::DeliverShort(wire.clone(), room)));
            }
            // What is never delivered is lost. Losing it visibly only makes room for others.
            if is_full {
                actions.push(Action::Drop(wire.clone()));
            }
            if state.left.duplicates > 0 {
                actions.push(Action::Duplicate(wire.clone()));
            }
        }
        for node in &state.nodes {
            self.inputs_of(node, state, &mut |input| {
                actions.push(Action::At(node.me, input));
            });
        }
    }

    fn next_state(&self, state: &Cluster, action: Action) -> Option<Cluster> {
        Some(self.merged(self.follow(state, &action)?))
    }

    fn within_boundary(&self, state: &Cluster) -> bool {
        let Bounds {
            term_max,
            last_max,
            wires_max,
            runs_max,
            ..
        } = self.bounds;
        state.breach.is_some()
            || state.wires.len() <= wires_max
                && state.nodes.iter().all(|node| {
                    node.raft.term() <= Term(term_max)
                        && node.log().len() <= last_max
                        && node.run_count() <= runs_max
                })
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("a term has one leader", |_, state: &Cluster| {
                state.has_one_leader_a_term()
            }),
            Property::always("logs match", |_, state: &Cluster| state.has_matching_logs()),
            Property::always("leaders are complete", |_, state: &Cluster| {
                state.has_complete_leaders()
            }),
            Property::always("all commit one history", |_, state: &Cluster| {
                state.has_one_history()
            }),
            Property::always(
                "what is committed is on a quorum of disks",
                |_, state: &Cluster| state.has_durable_history(),
            ),
            Property::always("votes are remembered", |_, state: &Cluster| {
                state.remembers_votes()
            }),
            Property::always(
                "blocks are durable before they are acknowledged",
                |_, state: &Cluster| state.breach != Some(Breach::AckNotDurable),
            ),
            Property::always(
                "a read sees all that was committed before it",
                |_, state: &Cluster| !matches!(state.breach, Some(Breach::StaleRead(_))),
            ),
            Property::always("no assertion fails", |_, state: &Cluster| {
                !matches!(state.breach, Some(Breach::Invariant(_)))
            }),
            Property::always("nobody sees what Raft rules out", |_, state: &Cluster| {
                !matches!(state.breach, Some(Breach::Fault(_)))
            }),
            Property::sometimes("a leader is elected", |_, state: &Cluster| {
                state.nodes.iter().any(|node| node.raft.is_leader())
            }),
            Property::sometimes(
                "two nodes lead, in different terms",
                |_, state: &Cluster| {
                    state
                        .nodes
                        .iter()
                        .filter(|node| node.raft.is_leader())
                        .count()
                        == 2
                },
            ),
            Property::sometimes("blocks of two terms are committed", |_, state: &Cluster| {
                let committed = &state.history.committed;
                committed.first().map(|(block, _)| block.term)
                    != committed.last().map(|(block, _)| block.term)
            }),
            Property::sometimes(
                "a term's block is committed in a later term",
                |_, state: &Cluster| {
                    state
                        .history
                        .committed
                        .iter()
                        .any(|(block, term)| block.term < *term)
                },
            ),
        ]
    }
}
