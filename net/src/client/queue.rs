//! What handles hand over to the driver: records by log, and questions.
//!
//! Keeps the batches that fill while earlier ones fly, and the bound on bytes that are handed over
//! and not settled. A record costs a short lock and a copy into its batch; the driver is woken for
//! the first of a batch only. Knows no connection and no protocol.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::task::Waker;

use bytes::Bytes;
use ringwood_core::client::{
    AGE_SPREAD_MAX, AskError, Cluster, FetchRequest, Fetched, NodeReport, Outcome, RecordTooLarge,
    Records, RecordsBuilder, SEALED_SIZE_SOFT_MAX, Wish,
};
use ringwood_core::frame::code::NotCommittedReason;
use ringwood_core::id::{GroupId, Nanos, NodeId, Offset};
use ringwood_core::limits::RECORD_SIZE_MAX;
use tokio::sync::{Semaphore, TryAcquireError, oneshot};

use super::pending::{Fate, Pending};
use crate::clock;

/// What a record counts beside its bytes, so that empty ones are bounded too.
const RECORD_COST: usize = 64;

/// Locks; a handle that panicked within a lock has left nothing half done that others rely on.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Records that travel together and share a fate.
#[derive(Debug)]
struct Filling {
    builder: RecordsBuilder,
    count: u64,
    cost: usize,
    since: Nanos,
    fate: Arc<Fate>,
}

/// A batch on its way.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) records: Records,
    /// When its first record was handed over.
    pub(super) since: Nanos,
    /// What it counts against the bound on bytes.
    pub(super) cost: usize,
    pub(super) fate: Arc<Fate>,
}

#[derive(Debug, Default)]
struct Batches {
    /// In order; records are added to the last.
    list: VecDeque<Filling>,
    /// The driver knows that there are some.
    listed: bool,
}

/// Records for one log that wait for room in its window.
#[derive(Debug)]
pub(super) struct LogQueue {
    pub(super) group: GroupId,
    batches: Mutex<Batches>,
}

impl LogQueue {
    fn new(group: GroupId) -> Self {
        Self {
            group,
            batches: Mutex::default(),
        }
    }

    /// Adds a record. Returns what is to become of it, and whether the driver must be told.
    fn push(&self, record: Bytes, cost: usize) -> Result<(Pending, bool), RecordTooLarge> {
        let now = clock::now();
        let mut batches = lock(&self.batches);
        let fits = |last: &Filling| {
            last.builder.size() + record.len() <= SEALED_SIZE_SOFT_MAX
                && last.builder.has_room(record.len())
                && now.since(last.since) <= AGE_SPREAD_MAX
        };
        if !batches.list.back().is_some_and(fits) {
            batches.list.push_back(Filling {
                builder: RecordsBuilder::new(),
                count: 0,
                cost: 0,
                since: now,
                fate: Arc::default(),
            });
        }
        let last = batches.list.back_mut().expect("one was just added");
        last.builder.push(record)?;
        let pending = Pending::waiting(Arc::clone(&last.fate), last.count);
        last.count += 1;
        last.cost += cost;
        let tell = !std::mem::replace(&mut batches.listed, true);
        Ok((pending, tell))
    }

    /// The oldest batch, with all that was added until now.
    pub(super) fn take(&self) -> Option<Batch> {
        let mut batches = lock(&self.batches);
        let filled = batches.list.pop_front();
        if filled.is_none() {
            batches.listed = false;
        }
        let filled = filled?;
        Some(Batch {
            records: filled.builder.finish(),
            since: filled.since,
            cost: filled.cost,
            fate: filled.fate,
        })
    }
}

/// A question and where its answer goes.
#[derive(Debug)]
pub(super) enum Command {
    Fetch {
        group: GroupId,
        request: FetchRequest,
        answer: oneshot::Sender<Result<Fetched, AskError>>,
    },
    Transfer {
        group: GroupId,
        to: NodeId,
        answer: oneshot::Sender<Result<(), AskError>>,
    },
    Trim {
        group: GroupId,
        before: Offset,
        answer: oneshot::Sender<Result<Offset, AskError>>,
    },
    Survey {
        wish: Wish,
        timeout: Nanos,
        answer: oneshot::Sender<Vec<NodeReport>>,
    },
    /// To end once all that was handed over is settled; dropping `ended` tells.
    Close { ended: Option<oneshot::Sender<()>> },
}

/// What the driver has not seen yet.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    pub(super) queues: Vec<Arc<LogQueue>>,
    pub(super) commands: Vec<Command>,
    waker: Option<Waker>,
    /// The driver has ended.
    ended: bool,
}

/// What the handles of a client share with its driver.
#[derive(Debug)]
pub(super) struct Shared {
    inbox: Mutex<Inbox>,
    logs: RwLock<BTreeMap<String, Arc<LogQueue>>>,
    cluster: RwLock<Arc<Cluster>>,
    /// A permit for each byte that may be handed over and not settled.
    room: Semaphore,
    queue_bytes: usize,
}

impl Shared {
    pub(super) fn new(queue_bytes: usize, cluster: Cluster) -> Self {
        Self {
            inbox: Mutex::default(),
            logs: RwLock::default(),
            cluster: RwLock::new(Arc::new(cluster)),
            room: Semaphore::new(queue_bytes),
            queue_bytes,
        }
    }

    // ---- the handles' side

    /// Hands a record over, as soon as there is room for it.
    pub(super) async fn enqueue(&self, log: &str, record: Bytes) -> Pending {
        let refused = |reason| Pending::settled(Outcome::NotCommitted(reason));
        if record.len() > RECORD_SIZE_MAX {
            return refused(NotCommittedReason::RecordTooLarge);
        }
        let Some(queue) = self.log(log) else {
            return refused(NotCommittedReason::UnknownLog);
        };
        // A record larger than the bound waits until it is alone.
        let cost = (record.len() + RECORD_COST).min(self.queue_bytes);
        // Fits: a record is far below 4 GiB.
        let permits = cost as u32;
        match self.room.try_acquire_many(permits) {
            Ok(permit) => permit.forget(),
            Err(TryAcquireError::Closed) => return refused(NotCommittedReason::Stopping),
            Err(TryAcquireError::NoPermits) => match self.room.acquire_many(permits).await {
                Ok(permit) => permit.forget(),
                Err(_) => return refused(NotCommittedReason::Stopping),
            },
        }
        match queue.push(record, cost) {
            Ok((pending, tell)) => {
                if tell {
                    self.tell(|inbox| inbox.queues.push(queue));
                }
                pending
            }
            Err(RecordTooLarge { .. }) => {
                self.room.add_permits(cost);
                refused(NotCommittedReason::RecordTooLarge)
            }
        }
    }

    /// Asks the driver for something. If it has ended the command is dropped, and its answer with
    /// it.
    pub(super) fn command(&self, command: Command) {
        self.tell(|inbox| inbox.commands.push(command));
    }

    fn tell(&self, put: impl FnOnce(&mut Inbox)) {
        let mut inbox = lock(&self.inbox);
        if inbox.ended {
            // Settles what has come after the end.
            let mut late = Inbox::default();
            put(&mut late);
            drop(inbox);
            self.refuse(late);
            return;
        }
        put(&mut inbox);
        let waker = inbox.waker.take();
        drop(inbox);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    pub(super) fn log(&self, name: &str) -> Option<Arc<LogQueue>> {
        let logs = self.logs.read().unwrap_or_else(PoisonError::into_inner);
        logs.get(name).cloned()
    }

    pub(super) fn cluster(&self) -> Arc<Cluster> {
        let cluster = self.cluster.read().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(&cluster)
    }

    /// Nothing is handed over any more.
    pub(super) fn close(&self) {
        self.room.close();
    }

    // ---- the driver's side

    /// What has come; `waker` is woken when more does.
    pub(super) fn receive(&self, waker: &Waker) -> Inbox {
        let mut inbox = lock(&self.inbox);
        let received = Inbox {
            queues: std::mem::take(&mut inbox.queues),
            commands: std::mem::take(&mut inbox.commands),
            ..Inbox::default()
        };
        match &mut inbox.waker {
            Some(known) => known.clone_from(waker),
            None => inbox.waker = Some(waker.clone()),
        }
        received
    }

    /// A welcome told something new. Queues of logs that were known stay.
    pub(super) fn on_cluster(&self, cluster: &Cluster) {
        let mut logs = self.logs.write().unwrap_or_else(PoisonError::into_inner);
        for log in &cluster.logs {
            let known = logs.get(&log.name).is_some_and(|q| q.group == log.group);
            if !known {
                logs.insert(log.name.clone(), Arc::new(LogQueue::new(log.group)));
            }
        }
        drop(logs);
        let mut known = self.cluster.write().unwrap_or_else(PoisonError::into_inner);
        *known = Arc::new(cluster.clone());
    }

    /// A batch is settled: others have its room.
    pub(super) fn on_settled(&self, cost: usize) {
        self.room.add_permits(cost);
    }

    /// The driver ends: what it has not seen, and all that comes from now on, is refused.
    pub(super) fn end(&self) {
        self.room.close();
        let mut inbox = lock(&self.inbox);
        inbox.ended = true;
        let unseen = Inbox {
            queues: std::mem::take(&mut inbox.queues),
            commands: std::mem::take(&mut inbox.commands),
            ..Inbox::default()
        };
        drop(inbox);
        self.refuse(unseen);
        let logs = self.logs.read().unwrap_or_else(PoisonError::into_inner);
        logs.values().for_each(|queue| refuse_all(queue));
    }

    fn refuse(&self, inbox: Inbox) {
        inbox.queues.iter().for_each(|queue| refuse_all(queue));
        // Dropping a command drops its answer: the other end sees that.
        drop(inbox.commands);
    }
}

fn refuse_all(queue: &LogQueue) {
    while let Some(batch) = queue.take() {
        let stopping = NotCommittedReason::Stopping;
        batch.fate.settle(Outcome::NotCommitted(stopping));
    }
}
