//! `Target`: what takes appends. A cluster through its client, or a fake whose delays are known.
//!
//! Knows no schedule and measures nothing: the generator does. Hop "client" of the data path.

use std::future::Future;

use bytes::Bytes;
use ringwood_net::client::{Client, Outcome, Pending};

/// Takes appends, many at a time. Used by one thread.
pub trait Target {
    /// An append on its way. Those of one lane end in the order in which they were offered; one
    /// that does not is seen to end when those before it have.
    type Pending: Future<Output = Outcome> + Unpin;

    /// Hands over one record for the log, and by the producer, of that lane. Ready at once where there is room, and
    /// as soon as there is where there is none: the wait counts as latency.
    fn offer(&self, lane: usize, record: Bytes) -> impl Future<Output = Self::Pending>;
}

/// Logs of a cluster, reached by clients whose tasks run on the thread of the generator: a record
/// passes from one to the other without waking anybody.
#[derive(Clone, Debug)]
pub struct ClusterTarget {
    clients: Vec<Client>,
    logs: Vec<String>,
}

impl ClusterTarget {
    /// Log `n` of a plan is the one named by `logs[n]`, producer `n` is `clients[n]`.
    #[must_use]
    pub fn new(clients: Vec<Client>, logs: Vec<String>) -> Self {
        Self { clients, logs }
    }
}

impl Target for ClusterTarget {
    type Pending = Pending;

    async fn offer(&self, lane: usize, record: Bytes) -> Pending {
        let (client, log) = (lane / self.logs.len(), lane % self.logs.len());
        self.clients[client].enqueue(&self.logs[log], record).await
    }
}
