//! What a client is told before it begins.
//!
//! Keeps the choices and their defaults; knows nothing of what they lead to.

use std::sync::Arc;
use std::time::Duration;

use ringwood_core::client::{ADDRESS_COUNT_MAX, Client as Core, Config, Identity};
use ringwood_core::id::{Epoch, ProducerId};
use tokio::sync::{Semaphore, oneshot};

use super::driver::{Driver, unknown_cluster};
use super::queue::Shared;
use super::{Client, ConnectError, nanos};
use crate::clock;

/// Bits of an epoch below the life that a caller names: the client's own, for epochs that it must
/// begin by itself. So a higher life fences a lower one however often that had to.
const EPOCH_BITS: u32 = 16;

/// How a client is made.
#[derive(Clone, Debug)]
#[must_use]
pub struct ClientBuilder {
    endpoints: Vec<String>,
    append_timeout: Duration,
    request_timeout: Duration,
    queue_bytes: usize,
    producer: Option<(u64, u16)>,
}

impl Default for ClientBuilder {
    fn default() -> Self {
        Self {
            endpoints: Vec::new(),
            append_timeout: Duration::from_secs(30),
            request_timeout: Duration::from_secs(5),
            queue_bytes: 8 << 20,
            producer: None,
        }
    }
}

impl ClientBuilder {
    /// Addresses of some nodes, `host:port`. One that can be reached is enough: it tells the
    /// others.
    pub fn endpoints<I>(mut self, endpoints: I) -> Self
    where
        I: IntoIterator<Item: Into<String>>,
    {
        self.endpoints.extend(endpoints.into_iter().map(Into::into));
        self
    }

    /// How long an append is tried before it ends without being committed; 30 s if not set.
    pub fn append_timeout(mut self, timeout: Duration) -> Self {
        self.append_timeout = timeout;
        self
    }

    /// How long anything else is tried; 5 s if not set.
    pub fn request_timeout(mut self, timeout: Duration) -> Self {
        self.request_timeout = timeout;
        self
    }

    /// Bytes of records that may be handed over and have no outcome yet; beyond, handing over
    /// waits. 8 MiB if not set, at least one record.
    pub fn queue_bytes(mut self, size: usize) -> Self {
        self.queue_bytes = size.clamp(1, Semaphore::MAX_PERMITS);
        self
    }

    /// A producer with a life of its own, for programs that take over from each other: in each
    /// log, once a higher life has written, a lower one's appends end as `Fenced`. The same life
    /// must not be used twice. Without this the producer is a new one, drawn at random.
    pub fn producer(mut self, id: u64, life: u16) -> Self {
        self.producer = Some((id, life));
        self
    }

    fn identity(&self) -> Identity {
        let (id, epoch, epoch_max) = match self.producer {
            Some((id, life)) => {
                let first = u32::from(life) << EPOCH_BITS;
                (id, first, first | ((1 << EPOCH_BITS) - 1))
            }
            None => (clock::random_u64(), 0, u32::MAX),
        };
        Identity {
            producer: ProducerId(id),
            epoch: Epoch(epoch),
            epoch_max: Epoch(epoch_max),
        }
    }

    /// Reaches a node, and learns the cluster from it. Spawns the client's task on the runtime of
    /// the caller.
    ///
    /// # Errors
    ///
    /// See [`ConnectError`]. Returns as soon as each endpoint has failed once.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime with I/O and time enabled.
    pub async fn connect(self) -> Result<Client, ConnectError> {
        if self.endpoints.is_empty() {
            return Err(ConnectError::NoEndpoint);
        }
        let (count, count_max) = (self.endpoints.len(), ADDRESS_COUNT_MAX);
        if count > count_max {
            return Err(ConnectError::TooManyEndpoints { count, count_max });
        }
        let core = Core::new(Config {
            identity: self.identity(),
            addresses: self.endpoints,
            append_timeout: nanos(self.append_timeout),
            request_timeout: nanos(self.request_timeout),
            seed: clock::random_u64(),
        });
        let shared = Arc::new(Shared::new(self.queue_bytes, unknown_cluster()));
        let (ready, reached) = oneshot::channel();
        let client = Client::new(Arc::clone(&shared));
        tokio::spawn(Driver::new(core, shared, ready));
        match tokio::time::timeout(self.request_timeout, reached).await {
            Ok(Ok(Ok(()))) => Ok(client),
            Ok(Ok(Err(faults))) => Err(ConnectError::Unreachable { faults }),
            // The task has ended with its runtime, or takes too long.
            Ok(Err(_)) | Err(_) => Err(ConnectError::TimedOut),
        }
    }
}
