//! Why a node does not start, and why a running one ends. Each text is one line of cause and,
//! where there is one, the way out.

use std::net::SocketAddr;
use std::path::PathBuf;

use ringwood_core::shard::OpenError;

use crate::config::ConfigError;
use crate::disk::DiskError;
use crate::ring::{IoError, RingError};

/// Why a node does not start. Nothing of its log was changed.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The directory's identity, or what it should be.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The directory or its files.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// io_uring.
    #[error(transparent)]
    Ring(#[from] RingError),
    /// What the journal holds cannot be trusted.
    #[error("{0}")]
    Recovery(#[from] OpenError),
    /// Another process listens there.
    #[error("{address} is in use by another process; choose another port or end that process")]
    PortInUse {
        /// Where the node was to listen.
        address: SocketAddr,
    },
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {error}")]
    Listen {
        /// Where the node was to listen.
        address: SocketAddr,
        /// Why not.
        error: IoError,
    },
    /// A host name that means nothing here.
    #[error("address {address:?} of node {node:?} cannot be resolved: {error}")]
    Resolve {
        /// Whose address.
        node: String,
        /// The address.
        address: String,
        /// Why not.
        error: std::io::Error,
    },
    /// An address for a node that is none of the voters: it would be used for nothing.
    #[error("{name:?} is no voter of cluster {cluster:?}; its voters are {voters}")]
    UnknownVoter {
        /// Who was named.
        name: String,
        /// The directory's cluster.
        cluster: String,
        /// The names that it knows.
        voters: String,
    },
    /// A setting for a log that is none of the directory's: it would be used for nothing.
    #[error("cluster {cluster:?} has no log {name:?}")]
    UnknownLog {
        /// What was named.
        name: String,
        /// The directory's cluster.
        cluster: String,
    },
    /// The directory belongs to another cluster or node than was said.
    #[error("this directory belongs to node {found:?} of cluster {cluster:?}, not to {expected:?}")]
    WrongNode {
        /// Who it belongs to.
        found: String,
        /// Of which cluster.
        cluster: String,
        /// Who was to be started.
        expected: String,
    },
    /// The shard's thread could not be started.
    #[error("cannot start a thread: {0}")]
    Thread(std::io::Error),
}

/// Why a running node ended by itself.
#[derive(Debug, thiserror::Error)]
pub enum NodeFailure {
    /// The disk failed. What was not acknowledged may be lost here; the others have what was.
    #[error(
        "{doing} {} failed: {error}; the node stops, since nobody knows what the disk now holds",
        path.display()
    )]
    Disk {
        /// What was being done.
        doing: &'static str,
        /// To which file.
        path: PathBuf,
        /// What the kernel said.
        error: IoError,
    },
    /// A file could not be opened or made.
    #[error(transparent)]
    File(#[from] DiskError),
    /// io_uring itself failed.
    #[error(transparent)]
    Ring(#[from] RingError),
    /// The shard's thread ended without saying why.
    #[error("the shard's thread ended without a reason")]
    Vanished,
}
