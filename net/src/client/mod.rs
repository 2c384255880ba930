//! The async client (tokio): appends, reads, status, for programs outside the nodes.
//!
//! A [`Client`] is a handle on one task that owns a stream to each node it needs, finds the leader
//! of each log, redirects, retries under the producer's sequence and batches by what is in flight:
//! records that arrive while earlier appends fly travel together in the next one, so there is no
//! timer to tune. Decides nothing: that is `ringwood_core::client`. Never used on a shard.
//!
//! ```no_run
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! use ringwood_net::client::{Client, Outcome};
//!
//! let client = Client::builder().endpoints(["127.0.0.1:7401"]).connect().await?;
//! match client.append("log-0", "hello").await {
//!     Outcome::Committed { offset, .. } => println!("stands at {offset}"),
//!     Outcome::NotCommitted(reason) => println!("is not in the log: {reason}"),
//!     Outcome::Unknown => println!("may be in the log, once"),
//! }
//! # Ok(())
//! # }
//! ```

mod builder;
mod driver;
mod error;
mod link;
mod pending;
mod queue;
mod tail;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use ringwood_core::client::{self as protocol, FetchRequest, Wish};
use ringwood_core::id::{GroupId, Nanos, Offset};
use tokio::sync::oneshot;

pub use builder::ClientBuilder;
pub use error::{ConnectError, FetchError, TransferError};
pub use pending::Pending;
pub use ringwood_core::client::{
    Cluster as ClusterInfo, LinkFault, LogInfo, NodeInfo, NodeReport, Outcome,
};
pub use ringwood_core::frame::client::Status;
pub use ringwood_core::frame::code::{Durability, NotCommittedReason, ReadMode};
pub use tail::Tail;

use queue::{Command, Shared};

/// How long `status` waits for a node.
const STATUS_TIMEOUT: Nanos = Nanos::from_millis(1_000);

/// A record that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Where it stands in its log, dense from 0.
    pub offset: u64,
    /// The bytes that were appended. A slice of what one fetch brought: all of that stays in
    /// memory as long as any of its records does.
    pub bytes: Bytes,
}

/// What a fetch gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetched {
    /// The records in order, from the offset asked for; none if the wait ran out at the end.
    pub records: Vec<Record>,
    /// Offset after the last committed record, as the node that answered knows it.
    pub end_offset: u64,
    /// Offset of the oldest record kept.
    pub first_offset: u64,
}

/// A handle on a client. Cheap to clone; when the last one is gone, what is queued is still
/// appended, and then the client ends.
#[derive(Clone, Debug)]
pub struct Client {
    handle: Arc<Handle>,
}

#[derive(Debug)]
struct Handle {
    shared: Arc<Shared>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.close();
        self.shared.command(Command::Close { ended: None });
    }
}

impl Client {
    /// Says where the cluster is, and how long to try.
    pub fn builder() -> ClientBuilder {
        ClientBuilder::default()
    }

    fn new(shared: Arc<Shared>) -> Self {
        Self {
            handle: Arc::new(Handle { shared }),
        }
    }

    fn shared(&self) -> &Shared {
        &self.handle.shared
    }

    fn group(&self, log: &str) -> Option<GroupId> {
        self.shared().log(log).map(|queue| queue.group)
    }

    /// The cluster, as the node that was reached last has told.
    #[must_use]
    pub fn cluster(&self) -> ClusterInfo {
        ClusterInfo::clone(&self.shared().cluster())
    }

    // ---- writing

    /// Appends one record, and waits for how it ends. Dropped before that, the record may be in
    /// the log or not.
    ///
    /// Records of one client to one log are in the log in the order in which they were handed
    /// over, if they get there at all.
    pub async fn append(&self, log: &str, record: impl Into<Bytes>) -> Outcome {
        self.enqueue(log, record).await.await
    }

    /// Hands one record over, and returns as soon as there is room for it in the queue. The
    /// outcome comes by what is returned, which may be dropped. Cancel safe: dropped before it
    /// returns, nothing is appended.
    pub async fn enqueue(&self, log: &str, record: impl Into<Bytes>) -> Pending {
        self.shared().enqueue(log, record.into()).await
    }

    // ---- reading

    /// Reads records from an offset on: about `size_max` bytes of them, at least one if there is
    /// any. At the log's end it waits for more, up to `wait`. Asked for at once, awaited or not: who
    /// reads on asks for what comes next before it looks at what it has.
    ///
    /// # Errors
    ///
    /// See [`FetchError`]. Tried for `wait` and the time for requests.
    pub fn fetch(
        &self,
        log: &str,
        from: u64,
        size_max: u32,
        wait: Duration,
        mode: ReadMode,
    ) -> impl Future<Output = Result<Fetched, FetchError>> + Send + use<> {
        let asked = self.ask_for(log, from, size_max, wait, mode);
        async move { asked?.answer().await }
    }

    /// Asks for records.
    fn ask_for(
        &self,
        log: &str,
        from: u64,
        size_max: u32,
        wait: Duration,
        mode: ReadMode,
    ) -> Result<Asked, FetchError> {
        let group = self.group(log).ok_or(FetchError::UnknownLog)?;
        let from = Offset(from);
        let request = FetchRequest {
            from,
            size_max,
            wait: nanos(wait),
            mode,
        };
        let (answer, result) = oneshot::channel();
        self.shared().command(Command::Fetch {
            group,
            request,
            answer,
        });
        Ok(Asked { from, result })
    }

    /// Follows a log from an offset on.
    #[must_use]
    pub fn tail(&self, log: &str, from: u64) -> Tail {
        Tail::new(self.clone(), log.to_owned(), from)
    }

    /// Offset after the last record: all that was acknowledged before this call lies below it.
    ///
    /// # Errors
    ///
    /// See [`FetchError`]. Tried for the time for requests.
    pub async fn end_offset(&self, log: &str) -> Result<u64, FetchError> {
        // No record has this offset: the answer is the end, and no block is read for it.
        let mode = ReadMode::Linearizable;
        match self.fetch(log, u64::MAX, 0, Duration::ZERO, mode).await {
            Ok(fetched) => Ok(fetched.end_offset),
            Err(FetchError::BeyondEnd { end_offset }) => Ok(end_offset),
            Err(error) => Err(error),
        }
    }

    // ---- operating

    /// Asks every node how it is. Takes about a second if one does not answer.
    pub async fn status(&self) -> Vec<NodeReport> {
        self.survey(Wish::Status).await
    }

    /// Asks every node to read all that its disk keeps, now, and how it is. What is damaged is
    /// fetched from other nodes; `status` tells how far they have come.
    pub async fn scrub(&self) -> Vec<NodeReport> {
        self.survey(Wish::Scrub).await
    }

    async fn survey(&self, wish: Wish) -> Vec<NodeReport> {
        let (answer, result) = oneshot::channel();
        self.shared().command(Command::Survey {
            wish,
            timeout: STATUS_TIMEOUT,
            answer,
        });
        if let Ok(reports) = result.await {
            return reports;
        }
        let cluster = self.shared().cluster();
        let reports = cluster.nodes.iter().map(|node| NodeReport {
            node: Some(node.id),
            name: node.name.clone(),
            address: node.address.clone(),
            result: Err(LinkFault::Stopped),
        });
        reports.collect()
    }

    /// Moves a log's start to an offset: what lies before is not served any more, and is deleted on
    /// every replica as whole segments empty. Says where the log begins now, which is further on if
    /// it did already. May be repeated.
    ///
    /// # Errors
    ///
    /// See [`FetchError`]; `BeyondEnd` for an offset past the last committed record. Tried for the
    /// time for requests; after an error that is not a refusal it may have come about.
    pub async fn trim(&self, log: &str, before: u64) -> Result<u64, FetchError> {
        let group = self.group(log).ok_or(FetchError::UnknownLog)?;
        let (answer, result) = oneshot::channel();
        let before = Offset(before);
        self.shared().command(Command::Trim {
            group,
            before,
            answer,
        });
        let first = result.await.map_err(|_| FetchError::Closed)??;
        Ok(first.0)
    }

    /// Hands the leadership of a log to a node, by its name.
    ///
    /// # Errors
    ///
    /// See [`TransferError`]. Tried for the time for requests.
    pub async fn transfer_leadership(
        &self,
        log: &str,
        to_node_name: &str,
    ) -> Result<(), TransferError> {
        let group = self.group(log).ok_or(TransferError::UnknownLog)?;
        let cluster = self.shared().cluster();
        let named = cluster.nodes.iter().find(|node| node.name == to_node_name);
        let to = named.ok_or(TransferError::UnknownNode)?.id;
        let (answer, result) = oneshot::channel();
        self.shared()
            .command(Command::Transfer { group, to, answer });
        Ok(result.await.map_err(|_| TransferError::Closed)??)
    }

    /// Takes nothing more from any handle, waits until all that was handed over is settled, and
    /// ends.
    pub async fn close(self) {
        self.shared().close();
        let (ended, result) = oneshot::channel();
        self.shared().command(Command::Close { ended: Some(ended) });
        // The sender is never used: it is dropped when the task ends.
        let _ = result.await;
    }
}

/// Records that were asked for.
#[derive(Debug)]
struct Asked {
    from: Offset,
    result: oneshot::Receiver<Result<protocol::Fetched, protocol::AskError>>,
}

impl Asked {
    /// What came. Cancel safe until then, and not awaited again.
    async fn answer(&mut self) -> Result<Fetched, FetchError> {
        let fetched = (&mut self.result).await.map_err(|_| FetchError::Closed)??;
        let records = fetched.records(self.from).map_err(FetchError::BadBlock)?;
        let records = records.into_iter().map(|record| Record {
            offset: record.offset.0,
            bytes: record.bytes,
        });
        Ok(Fetched {
            records: records.collect(),
            end_offset: fetched.end_offset.0,
            first_offset: fetched.first_offset.0,
        })
    }
}

fn nanos(span: Duration) -> Nanos {
    Nanos(u64::try_from(span.as_nanos()).unwrap_or(u64::MAX))
}
