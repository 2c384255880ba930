//! The one task of a client: sockets, timers and handles on one side, the protocol on the other.
//!
//! Keeps the streams, and who waits for which outcome. Decides nothing: it hands what came to
//! `ringwood_core::client` and performs the effects. All of it is polled together, so that what
//! several sockets and handles brought becomes one pass, and one write for each node.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use ringwood_core::client::{
    AskError, Client as Core, Cluster, Effect, Effects, Fetched, Input, LinkFault, NodeReport,
    Outcome,
};
use ringwood_core::frame::refusal::Refusal;
use ringwood_core::id::{ConnectionId, Nanos, Offset};
use tokio::sync::oneshot;
use tokio::time::{Instant, Sleep, sleep_until};

use super::link::{Link, Read};
use super::pending::Fate;
use super::queue::{Command, LogQueue, Shared};
use crate::clock;

/// Passes before other tasks of the runtime get a turn.
const PASS_COUNT: usize = 16;

/// Why `connect` failed: each address's fault.
pub(super) type Faults = Vec<(String, LinkFault)>;

/// Who waits for the outcome behind a token.
enum Waiter {
    Batch { fate: Arc<Fate>, cost: usize },
    Fetch(oneshot::Sender<Result<Fetched, AskError>>),
    Transfer(oneshot::Sender<Result<(), AskError>>),
    Trim(oneshot::Sender<Result<Offset, AskError>>),
    Survey(oneshot::Sender<Vec<NodeReport>>),
}

/// The task.
pub(super) struct Driver {
    core: Core,
    effects: Effects,
    shared: Arc<Shared>,
    links: BTreeMap<ConnectionId, Link>,
    waiters: BTreeMap<u64, Waiter>,
    next_token: u64,
    /// Logs with batches that were not handed to core yet.
    queues: Vec<Arc<LogQueue>>,
    /// Logs were listed in `queues` since batches were handed over last.
    fresh: bool,
    /// Other tasks were let go first just now.
    gathered: bool,
    sleep: Pin<Box<Sleep>>,
    /// For when `sleep` is set.
    asleep_until: Option<Nanos>,
    /// Whoever waits for the first welcome.
    ready: Option<oneshot::Sender<Result<(), Faults>>>,
    /// To end once nobody waits.
    closing: bool,
    ended: Vec<oneshot::Sender<()>>,
}

impl Driver {
    pub(super) fn new(
        core: Core,
        shared: Arc<Shared>,
        ready: oneshot::Sender<Result<(), Faults>>,
    ) -> Self {
        Self {
            core,
            effects: Effects::new(),
            shared,
            links: BTreeMap::new(),
            waiters: BTreeMap::new(),
            next_token: 0,
            queues: Vec::new(),
            fresh: false,
            gathered: false,
            sleep: Box::pin(sleep_until(Instant::now())),
            asleep_until: None,
            ready: Some(ready),
            closing: false,
            ended: Vec::new(),
        }
    }

    fn step(&mut self, input: Input<'_>) {
        self.core.step(clock::now(), input, &mut self.effects);
    }

    // ---- from the handles

    fn receive(&mut self, cx: &Context<'_>) {
        let inbox = self.shared.receive(cx.waker());
        self.fresh |= !inbox.queues.is_empty();
        self.queues.extend(inbox.queues);
        for command in inbox.commands {
            let token = self.token();
            let (waiter, input) = match command {
                Command::Fetch {
                    group,
                    request,
                    answer,
                } => (
                    Waiter::Fetch(answer),
                    Input::Fetch {
                        group,
                        token,
                        request,
                    },
                ),
                Command::Transfer { group, to, answer } => (
                    Waiter::Transfer(answer),
                    Input::Transfer { group, token, to },
                ),
                Command::Trim {
                    group,
                    before,
                    answer,
                } => (
                    Waiter::Trim(answer),
                    Input::Trim {
                        group,
                        token,
                        before,
                    },
                ),
                Command::Survey {
                    wish,
                    timeout,
                    answer,
                } => (
                    Waiter::Survey(answer),
                    Input::Survey {
                        token,
                        wish,
                        timeout,
                    },
                ),
                Command::Close { ended } => {
                    self.closing = true;
                    self.ended.extend(ended);
                    continue;
                }
            };
            self.waiters.insert(token, waiter);
            self.step(input);
        }
    }

    fn token(&mut self) -> u64 {
        self.next_token += 1;
        self.next_token
    }

    /// Whether to let other tasks go first, once: records have come while others are under way,
    /// so that more are about to. On a runtime of several threads this task would otherwise be
    /// quicker than those it has just woken, and take their records one by one (measured at 1,024
    /// tasks: 25 records a sealed append without, 190 with, and twice the rate).
    fn maybe_gather(&mut self) -> bool {
        let gather = self.fresh && !self.gathered && !self.waiters.is_empty();
        self.fresh = false;
        self.gathered = gather;
        gather
    }

    /// Hands batches to core wherever there is room. Returns whether there were any.
    fn feed(&mut self) -> bool {
        let mut fed = false;
        let mut queues = std::mem::take(&mut self.queues);
        queues.retain(|queue| {
            while self.core.has_room(queue.group) {
                let Some(batch) = queue.take() else {
                    return false;
                };
                let token = self.token();
                let (fate, cost) = (batch.fate, batch.cost);
                self.waiters.insert(token, Waiter::Batch { fate, cost });
                self.step(Input::Append {
                    group: queue.group,
                    token,
                    since: batch.since,
                    records: batch.records,
                });
                fed = true;
            }
            true
        });
        self.queues = queues;
        fed
    }

    // ---- from the sockets

    /// Takes what the sockets have. Returns whether there was anything.
    fn read(&mut self, cx: &mut Context<'_>) -> bool {
        let mut any = false;
        let (core, effects) = (&mut self.core, &mut self.effects);
        self.links.retain(|connection, link| {
            let connection = *connection;
            let fault = match link.poll_read(cx) {
                Read::Nothing => return true,
                Read::Opened => {
                    core.step(clock::now(), Input::Connected { connection }, effects);
                    None
                }
                Read::Bytes => {
                    let refusal = take_frames(connection, link, core, effects).err();
                    refusal.map(LinkFault::Garbled)
                }
                Read::Ended(fault) => Some(fault),
            };
            any = true;
            let is_sound = fault.is_none();
            if let Some(fault) = fault {
                let closed = Input::Closed { connection, fault };
                core.step(clock::now(), closed, effects);
            }
            is_sound
        });
        any
    }

    /// Sends what is queued.
    fn write(&mut self, cx: &mut Context<'_>) {
        let mut broken = Vec::new();
        for (connection, link) in &mut self.links {
            if let Err(fault) = link.poll_write(cx) {
                broken.push((*connection, fault));
            }
        }
        for (connection, fault) in broken {
            self.links.remove(&connection);
            self.step(Input::Closed { connection, fault });
        }
    }

    // ---- effects

    /// Performs what core wants. Returns whether it wanted anything.
    fn perform(&mut self) -> bool {
        let any = !self.effects.is_empty();
        while let Some(effect) = self.effects.take_next() {
            match effect {
                Effect::Connect {
                    connection,
                    address,
                } => {
                    let link = Link::dial(address, self.core.tag_policy());
                    self.links.insert(connection, link);
                }
                Effect::Send {
                    connection,
                    head,
                    payload,
                } => {
                    // One that broke meanwhile is known to core already, or will be.
                    if let Some(link) = self.links.get_mut(&connection) {
                        link.push(head, payload);
                    }
                }
                Effect::Close { connection } => {
                    self.links.remove(&connection);
                }
                Effect::Welcomed => self.on_welcomed(),
                Effect::Appended { token, outcome } => {
                    if let Some(Waiter::Batch { fate, cost }) = self.waiters.remove(&token) {
                        self.shared.on_settled(cost);
                        fate.settle(outcome);
                    }
                }
                // Whoever asked may have gone: nobody misses the answer then.
                Effect::Fetched { token, result } => {
                    if let Some(Waiter::Fetch(answer)) = self.waiters.remove(&token) {
                        let _ = answer.send(result);
                    }
                }
                Effect::Transferred { token, result } => {
                    if let Some(Waiter::Transfer(answer)) = self.waiters.remove(&token) {
                        let _ = answer.send(result);
                    }
                }
                Effect::Trimmed { token, result } => {
                    if let Some(Waiter::Trim(answer)) = self.waiters.remove(&token) {
                        let _ = answer.send(result);
                    }
                }
                Effect::Surveyed { token, reports } => {
                    if let Some(Waiter::Survey(answer)) = self.waiters.remove(&token) {
                        let _ = answer.send(reports);
                    }
                }
            }
        }
        any
    }

    fn on_welcomed(&mut self) {
        if let Some(cluster) = self.core.cluster() {
            self.shared.on_cluster(cluster);
            if let Some(ready) = self.ready.take() {
                let _ = ready.send(Ok(()));
            }
        }
    }

    /// Gives up before the first welcome, once every address has failed.
    fn judge_reach(&mut self) {
        if self.ready.is_some()
            && self.core.is_unreachable()
            && let Some(ready) = self.ready.take()
        {
            let _ = ready.send(Err(self.core.faults()));
        }
    }

    // ---- time

    /// Returns whether core's deadline has passed; else the task is woken then.
    fn poll_deadline(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(deadline) = self.core.deadline() else {
            return false;
        };
        let now = clock::now();
        if deadline <= now {
            return true;
        }
        if self.asleep_until != Some(deadline) {
            let span = Duration::from_nanos(deadline.since(now).0);
            self.sleep.as_mut().reset(Instant::now() + span);
            self.asleep_until = Some(deadline);
        }
        let woken = self.sleep.as_mut().poll(cx).is_ready();
        if woken {
            // The two clocks differ by a little: sleep again for the rest.
            self.asleep_until = None;
            cx.waker().wake_by_ref();
        }
        false
    }

    /// Whether the task is over.
    fn is_over(&self) -> bool {
        let abandoned = self.ready.as_ref().is_some_and(oneshot::Sender::is_closed);
        let idle = self.waiters.is_empty() && self.queues.is_empty();
        abandoned || (self.closing && idle)
    }
}

impl Future for Driver {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        for _ in 0..PASS_COUNT {
            this.receive(cx);
            let mut busy = this.read(cx);
            if this.poll_deadline(cx) {
                this.step(Input::Tick);
                busy = true;
            }
            busy |= this.perform();
            if this.maybe_gather() {
                this.write(cx);
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            busy |= this.feed();
            busy |= this.perform();
            this.write(cx);
            busy |= this.perform();
            this.judge_reach();
            if this.is_over() {
                return Poll::Ready(());
            }
            if !busy {
                return Poll::Pending;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl Drop for Driver {
    /// Whatever ends the task (a close, the runtime's end, a panic in it): nobody waits for ever.
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.step(Input::Stop);
            self.perform();
        }
        for waiter in std::mem::take(&mut self.waiters).into_values() {
            if let Waiter::Batch { fate, .. } = waiter {
                fate.settle(Outcome::Unknown);
            }
        }
        self.shared.end();
    }
}

/// Hands all whole frames to core.
fn take_frames(
    connection: ConnectionId,
    link: &mut Link,
    core: &mut Core,
    effects: &mut Effects,
) -> Result<(), Refusal> {
    while let Some(frame) = link.assembler.next()? {
        let input = Input::Received { connection, frame };
        core.step(clock::now(), input, effects);
    }
    // Consumed chunks are dropped: they are slices of memory that nobody pools.
    link.assembler.take_released().for_each(drop);
    Ok(())
}

/// What is known before the first welcome.
pub(super) fn unknown_cluster() -> Cluster {
    Cluster {
        id: ringwood_core::id::ClusterId(0),
        name: String::new(),
        nodes: Vec::new(),
        logs: Vec::new(),
    }
}
