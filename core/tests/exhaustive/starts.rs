//! States that searches begin in, each reached by the model's own steps from nodes that never ran:
//! from there few steps lead to where protocols break, and a search can take them all.

use ringwood_core::id::NodeId;

use super::cluster::{Budget, Cluster};
use super::node::Input;
use super::search::{Action, Search};

/// Where a search begins.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Start {
    /// Nodes that never ran.
    Fresh,
    /// Node 1 leads term 1, its no-op is committed everywhere.
    Led,
    /// Node 1 leads term 1 and has two blocks that nobody else has; 2 was elected by 3 in term 2
    /// and has a block that nobody else has.
    Parted,
    /// Figure 8 (c) of the Raft paper, a few messages earlier: 1 leads term 3 and is about to copy
    /// a block of term 1 to 3, while 2 has one of term 2 at the same index and knows of term 3.
    Figure8,
}

impl Start {
    /// The state, with `left` still to happen.
    pub(crate) fn state(self, search: &Search, left: Budget) -> Cluster {
        let plenty = Budget {
            elections: 9,
            proposals: 9,
            beats: 9,
            ..Budget::default()
        };
        let mut script = Script {
            search,
            state: Cluster::new(plenty),
        };
        match self {
            Self::Fresh => {}
            Self::Led => script.lead(),
            Self::Parted => {
                script.lead();
                script.propose_alone(1);
                script.propose_alone(1);
                script.elect(2, 3);
            }
            Self::Figure8 => {
                script.lead();
                script.propose_alone(1);
                script.elect(2, 3);
                script.at(1, Input::QuorumSilent);
                // Refused for its term, it learns the newer one; then it asks again.
                script.at(1, Input::Election);
                script.hear(&[1, 3], |_| false);
                script.elect(1, 3);
                script.at(2, Input::QuorumSilent);
                script.at(2, Input::Election);
                script.hear(&[2, 3], |_| false);
            }
        }
        assert!(script.state.breach.is_none(), "a sound start");
        script.state.left = left;
        script.state
    }
}

/// One schedule, step by step, under the nodes' names as they are.
struct Script<'s> {
    search: &'s Search,
    state: Cluster,
}

impl Script<'_> {
    fn at(&mut self, id: u64, input: Input) {
        let action = Action::At(NodeId(id), input);
        let next = self.search.follow(&self.state, &action);
        self.state = next.unwrap_or_else(|| panic!("{action:?} does nothing in\n{:?}", self.state));
    }

    /// Delivers and stores among `ids` until nothing is left or `is_done`; then all else is lost.
    fn hear(&mut self, ids: &[u64], is_done: impl Fn(&Cluster) -> bool) {
        loop {
            for id in ids {
                while self.state.node(NodeId(*id)).run_count() > 0 {
                    self.at(*id, Input::Store);
                }
            }
            let among = |id: NodeId| ids.contains(&id.0);
            let wires = &self.state.wires;
            let next = wires.iter().find(|wire| among(wire.from) && among(wire.to));
            let Some(wire) = next.filter(|_| !is_done(&self.state)).cloned() else {
                break;
            };
            let followed = self
                .search
                .follow(&self.state, &Action::Deliver(wire.clone()));
            match followed {
                Some(next) => self.state = next,
                None => self.state.take(&wire),
            }
        }
        self.state.wires.clear();
    }

    fn lead(&mut self) {
        self.at(1, Input::Election);
        self.hear(&[1, 2, 3], |_| false);
        self.at(1, Input::Beat);
        self.hear(&[1, 2, 3], |_| false);
    }

    fn propose_alone(&mut self, id: u64) {
        self.at(id, Input::Propose);
        self.hear(&[id], |_| false);
    }

    /// `id` is elected with the vote of `voter`, and nothing that it says as leader arrives.
    fn elect(&mut self, id: u64, voter: u64) {
        for id in [id, voter] {
            let silence = Action::At(NodeId(id), Input::Silence);
            if let Some(next) = self.search.follow(&self.state, &silence) {
                self.state = next;
            }
        }
        self.at(id, Input::Election);
        self.hear(&[id, voter], |state| {
            state.node(NodeId(id)).raft.is_leader()
        });
        assert!(self.state.node(NodeId(id)).raft.is_leader(), "elected");
    }
}
