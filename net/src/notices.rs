//! What a running node has to say to whoever runs it: a sentence when something changes, not one for
//! each time it happens.
//!
//! Knows no logger and no terminal: the sentences wait until the node's owner takes them.

use std::collections::BTreeMap;

use crossbeam::channel::{Receiver, Sender, bounded};
use ringwood_core::id::NodeId;
use ringwood_core::shard::Voter;

/// Sentences that wait; an owner that takes none loses the later ones.
const NOTICE_COUNT_MAX: usize = 64;

/// The end that the shard's thread has.
#[derive(Debug)]
pub(crate) struct Notices {
    sender: Sender<String>,
    names: BTreeMap<NodeId, String>,
    /// What was last said of each peer.
    told: BTreeMap<NodeId, String>,
}

impl Notices {
    pub(crate) fn new(voters: &[Voter]) -> (Self, Receiver<String>) {
        let (sender, receiver) = bounded(NOTICE_COUNT_MAX);
        let names = voters.iter().map(|voter| (voter.id, voter.name.clone()));
        let notices = Self {
            sender,
            names: names.collect(),
            told: BTreeMap::new(),
        };
        (notices, receiver)
    }

    /// Something happened that whoever runs the node should see.
    pub(crate) fn say(&self, text: String) {
        let _ = self.sender.try_send(text);
    }

    /// A peer refuses this node. Said once, until it gives another reason.
    pub(crate) fn tell(&mut self, peer: NodeId, why: &str) {
        if self.told.get(&peer).is_some_and(|told| told == why) {
            return;
        }
        let name = self.names.get(&peer).map_or("?", String::as_str);
        // It may be anybody's text, and is shown on a terminal.
        let shown: String = why.chars().filter(|char| !char.is_control()).collect();
        let _ = self
            .sender
            .try_send(format!("{name} refuses this node: {shown}"));
        self.told.insert(peer, why.to_owned());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_is_said_once() {
        let voter = Voter {
            id: NodeId(2),
            name: "node-2".into(),
            address: "127.0.0.1:1".into(),
        };
        let (mut notices, receiver) = Notices::new(&[voter]);
        for _ in 0..3 {
            notices.tell(NodeId(2), "wrong\u{7} cluster");
        }
        notices.tell(NodeId(2), "unknown node");
        let told: Vec<String> = receiver.try_iter().collect();
        assert_eq!(
            told,
            [
                "node-2 refuses this node: wrong cluster",
                "node-2 refuses this node: unknown node"
            ]
        );
    }
}
