//! Every node and every step of a node met so far, each worked out once.
//!
//! A group's states are many, its nodes' are few: what a node makes of an input does not depend on
//! the rest, so Raft is asked once and remembered. Knows nothing of groups.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

#[cfg(feature = "bugs")]
use ringwood_core::bugs::{self, Switch};
use ringwood_core::id::{NodeId, Term};

use super::breach::Breach;
use super::cluster::{ORDERS, Shared, name};
use super::mark::{MARK_COUNT, Mark};
use super::node::{Input, Node};
use super::turn::Host;
use super::wire::Wire;

/// Locks, so that threads seldom meet.
const PART_COUNT: usize = 64;

/// What an input makes of a node.
pub(crate) struct Step {
    pub(crate) node: Shared,
    pub(crate) sent: Vec<Wire>,
    pub(crate) leads: Option<Term>,
    pub(crate) breach: Option<Breach>,
}

#[derive(Default)]
struct Part {
    nodes: HashMap<u64, Shared>,
    /// By the node's digest and the input's; none where the input changes nothing.
    steps: HashMap<(u64, u64), Option<Arc<Step>>>,
}

/// The switch that `RINGWOOD_BUG` names, if it names one.
#[cfg(feature = "bugs")]
fn bug_asked_for() -> Option<Switch> {
    let name = std::env::var("RINGWOOD_BUG").ok()?;
    let mut all = Switch::ALL.iter().copied();
    let bug = all.find(|switch| format!("{switch:?}") == name);
    Some(bug.expect("a switch of that name"))
}

/// Nodes and their steps.
pub(crate) struct Table {
    host: Host,
    /// Put into every node.
    #[cfg(feature = "bugs")]
    bug: Option<Switch>,
    parts: Vec<Mutex<Part>>,
    marks: [AtomicU64; MARK_COUNT],
}

impl Table {
    pub(crate) fn new(host: Host) -> Self {
        Self {
            host,
            #[cfg(feature = "bugs")]
            bug: bug_asked_for(),
            parts: (0..PART_COUNT).map(|_| Mutex::default()).collect(),
            marks: Default::default(),
        }
    }

    /// What `input`, whose digest is `input_digest`, makes of a node; none if nothing.
    pub(crate) fn step(
        &self,
        node: &Shared,
        input: &Input,
        input_digest: u64,
    ) -> Option<Arc<Step>> {
        let key = (node.digest(), input_digest);
        let known = self
            .part(key.0 ^ key.1)
            .lock()
            .expect("sound")
            .steps
            .get(&key)
            .cloned();
        if let Some(step) = known {
            return step;
        }
        #[cfg(feature = "bugs")]
        bugs::choose(self.bug);
        let step = node.step(input, self.host).map(|(next, did)| {
            for mark in &did.marks {
                self.marks[*mark as usize].fetch_add(1, Ordering::Relaxed);
            }
            let wire = |(to, body)| Wire::new(node.me, to, body);
            Arc::new(Step {
                node: self.share(next),
                sent: did.sent.into_iter().map(wire).collect(),
                leads: did.leads,
                breach: did.breach,
            })
        });
        let mut part = self.part(key.0 ^ key.1).lock().expect("sound");
        part.steps.insert(key, step.clone());
        step
    }

    /// The node under the names of an order; `digest` is that of the result.
    pub(crate) fn renamed(&self, node: &Shared, order: usize, digest: u64) -> Shared {
        let known = self
            .part(digest)
            .lock()
            .expect("sound")
            .nodes
            .get(&digest)
            .cloned();
        let renamed = known
            .unwrap_or_else(|| self.share(node.renamed(|id: NodeId| name(&ORDERS[order], id))));
        assert!(renamed.digest() == digest, "a name is all that changed");
        renamed
    }

    fn share(&self, node: Node) -> Shared {
        let shared = Shared::new(node);
        let mut part = self.part(shared.digest()).lock().expect("sound");
        part.nodes.entry(shared.digest()).or_insert(shared).clone()
    }

    fn part(&self, digest: u64) -> &Mutex<Part> {
        &self.parts[digest as usize % PART_COUNT]
    }

    /// Distinct nodes met, names and all.
    pub(crate) fn node_count(&self) -> usize {
        let parts = self.parts.iter().map(|part| part.lock().expect("sound"));
        parts.map(|part| part.nodes.len()).sum()
    }

    /// In how many different steps of a node a thing happened.
    pub(crate) fn met(&self, mark: Mark) -> u64 {
        self.marks[mark as usize].load(Ordering::Relaxed)
    }
}
