//! `FakeTarget`: acknowledges every append, and stalls once when it was told to.
//!
//! Why: an instrument is to be tried on something known before it is believed on something
//! unknown. It shows the generator's own cost, and that a stall is seen. Not on the data path.

use std::cell::RefCell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use ringwood_net::client::{Durability, Outcome};
use ringwood_net::clock;
use tokio::sync::{Notify, oneshot};

use crate::schedule::after;
use crate::target::Target;

/// The one stall of a fake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stall {
    /// How many appends are acknowledged before it.
    pub after_count: u64,
    /// How long nothing is acknowledged.
    pub span: Duration,
}

/// The side that takes appends; the other is `serve`d on the same thread.
#[derive(Clone, Debug, Default)]
pub struct FakeTarget {
    shared: Rc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    queued: RefCell<Vec<oneshot::Sender<Outcome>>>,
    arrived: Notify,
}

/// An append on its way through a fake.
#[derive(Debug)]
pub struct FakePending(oneshot::Receiver<Outcome>);

impl FakeTarget {
    /// Acknowledges what was offered, a batch at a time, for ever. The term goes up with the
    /// stall, as where a leader was lost.
    pub async fn serve(self, stall: Option<Stall>) {
        let mut stall = stall;
        let mut acked_count = 0;
        let mut term = 1;
        let mut batch = Vec::new();
        loop {
            self.shared.arrived.notified().await;
            std::mem::swap(&mut batch, &mut self.shared.queued.borrow_mut());
            for sender in batch.drain(..) {
                if let Some(stall) = stall.take_if(|stall| acked_count == stall.after_count) {
                    sleep(stall.span).await;
                    term += 1;
                }
                // Nobody is there where the generator has given up on it.
                let _ = sender.send(Outcome::Committed {
                    offset: acked_count,
                    term,
                    durability: Durability::Quorum,
                });
                acked_count += 1;
            }
        }
    }
}

impl Target for FakeTarget {
    type Pending = FakePending;

    async fn offer(&self, _lane: usize, _record: Bytes) -> FakePending {
        let (sender, receiver) = oneshot::channel();
        self.shared.queued.borrow_mut().push(sender);
        self.shared.arrived.notify_one();
        FakePending(receiver)
    }
}

impl Future for FakePending {
    type Output = Outcome;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Outcome> {
        // A fake that is gone has not said.
        let receiver = Pin::new(&mut self.0);
        receiver
            .poll(context)
            .map(|outcome| outcome.unwrap_or(Outcome::Unknown))
    }
}

/// At least `span` by the clock that latencies are taken from.
async fn sleep(span: Duration) {
    let until = after(clock::now(), span);
    while clock::now() < until {
        tokio::time::sleep(Duration::from_nanos(until.since(clock::now()).0)).await;
    }
}
