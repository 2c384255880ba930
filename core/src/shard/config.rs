//! What a shard is told once, at its start: who it is, who votes, which logs there are.
//!
//! Also how that is told on. Knows no file and no flag that it came from.

use std::collections::BTreeMap;

use crate::frame::greeting::{self, NodeAddress, Welcome};
use crate::id::{ClusterId, GroupId, Incarnation, NodeId, ShardId};

use super::session::WIRE_VERSION;
use super::trim::Retention;

/// A voter of the cluster, as `init` was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Voter {
    /// Derived from the cluster's and its own name.
    pub id: NodeId,
    /// As given to `init`.
    pub name: String,
    /// `HOST:PORT`.
    pub address: String,
}

/// A log and the group that keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogName {
    /// The group.
    pub group: GroupId,
    /// The name clients use.
    pub name: String,
}

/// What a shard is told once, at its start.
#[derive(Clone, Debug)]
pub struct Config {
    /// The cluster.
    pub cluster: ClusterId,
    /// Its name.
    pub cluster_name: String,
    /// This node; one of `voters`.
    pub me: NodeId,
    /// This directory's life.
    pub incarnation: Incarnation,
    /// Which of the node's shards this is.
    pub shard: ShardId,
    /// All voters, of every log.
    pub voters: Vec<Voter>,
    /// The logs, by ascending group.
    pub logs: Vec<LogName>,
    /// Drawn for this start, never 0: by it others tell this directory from a copy of it.
    pub start: u64,
    /// How much is kept of the logs of which not all is.
    pub retention: BTreeMap<GroupId, Retention>,
    /// Seeds election jitter; differs per node.
    pub seed: u64,
    /// The build, for `status`.
    pub version: String,
    /// How durable writes are done here, for `status`.
    pub storage: String,
}

impl Config {
    /// The name of a voter.
    pub(super) fn name_of(&self, node: NodeId) -> &str {
        let mut voters = self.voters.iter();
        let voter = voters.find(|voter| voter.id == node);
        voter.map_or("?", |voter| &voter.name)
    }

    /// What a client is told of the cluster.
    pub(super) fn welcome(&self) -> Welcome {
        Welcome {
            cluster: self.cluster.0.to_le_bytes(),
            node: self.me.0,
            cluster_name: self.cluster_name.clone().into_bytes(),
            nodes: self
                .voters
                .iter()
                .map(|voter| NodeAddress {
                    id: voter.id.0,
                    name: voter.name.clone().into_bytes(),
                    address: voter.address.clone().into_bytes(),
                })
                .collect(),
            logs: self
                .logs
                .iter()
                .map(|log| greeting::LogName {
                    group: log.group.0,
                    name: log.name.clone().into_bytes(),
                })
                .collect(),
            version: WIRE_VERSION,
        }
    }
}
