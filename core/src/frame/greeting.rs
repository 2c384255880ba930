//! Bodies of the frames that open and close every connection.
//!
//! The first frame of a connection is a hello, from either kind of caller; a client is answered
//! with a welcome, a peer by frames. Layout: see `message`. Codes: see `code`.

use rkyv::{Archive, Deserialize, Serialize};

/// First frame of every connection: who calls, and what the connection is for.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[rkyv(derive(Debug))]
pub struct Hello {
    /// Cluster, 128 bits little endian; zero from a client that does not know it yet.
    pub cluster: [u8; 16],
    /// Node that calls; zero from a client.
    pub node: u64,
    /// Which data directory the calling node has; zero from a client.
    pub incarnation: u64,
    /// Life of its journal; zero from a client.
    pub life: u64,
    /// Numbers drawn at its starts by life, this one's first; 0 where none is known. None from a
    /// client.
    pub starts: Vec<u64>,
    /// Shard that the connection is for, on the node that is called.
    pub shard: u16,
    /// What travels here: a `Lane`.
    pub lane: u8,
    /// Oldest frame version that the caller reads.
    pub version_min: u8,
    /// Newest frame version that the caller reads.
    pub version_max: u8,
}

/// Answer to a client's hello: the cluster as this node knows it.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[rkyv(derive(Debug))]
pub struct Welcome {
    /// Cluster, 128 bits little endian; never zero.
    pub cluster: [u8; 16],
    /// Node that answers.
    pub node: u64,
    /// Name of the cluster, UTF-8.
    pub cluster_name: Vec<u8>,
    /// All nodes of the cluster, the answering one included.
    pub nodes: Vec<NodeAddress>,
    /// All logs of the cluster.
    pub logs: Vec<LogName>,
    /// Frame version spoken from here on.
    pub version: u8,
}

/// A node and how to reach it.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[rkyv(derive(Debug))]
pub struct NodeAddress {
    /// Node.
    pub id: u64,
    /// Its name, UTF-8.
    pub name: Vec<u8>,
    /// `host:port`, UTF-8.
    pub address: Vec<u8>,
}

/// A log's name and its group.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[rkyv(derive(Debug))]
pub struct LogName {
    /// Group that keeps the log.
    pub group: u32,
    /// Its name, UTF-8.
    pub name: Vec<u8>,
}

/// Last frame of a connection that is closed for a reason.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[rkyv(derive(Debug))]
pub struct Refused {
    /// A sentence for people, UTF-8, at most `DETAIL_SIZE_MAX` bytes.
    pub detail: Vec<u8>,
    /// Why: a `RefusedReason`.
    pub reason: u16,
}
