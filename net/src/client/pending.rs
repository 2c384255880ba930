//! The outcome of one enqueued record, shared with all that went the same way.
//!
//! Keeps one fate for a whole batch: it is set once, and wakes each task that waits for one of its
//! records. A record costs no channel of its own. Knows no log and no connection.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Context, Poll, Waker};

use ringwood_core::client::Outcome;

/// How a batch of records ended, once it has.
#[derive(Debug, Default)]
pub(super) struct Fate {
    /// Of the batch's first record.
    outcome: OnceLock<Outcome>,
    wakers: Mutex<Vec<Waker>>,
}

impl Fate {
    /// Tells the outcome of the batch's first record; the others follow it.
    pub(super) fn settle(&self, outcome: Outcome) {
        assert!(self.outcome.set(outcome).is_ok(), "a batch has one outcome");
        // Set first, then taken under the lock: whoever looked before has left a waker by now, and
        // whoever comes later sees the outcome.
        let wakers = std::mem::take(&mut *self.wakers());
        wakers.into_iter().for_each(Waker::wake);
    }

    fn wakers(&self) -> MutexGuard<'_, Vec<Waker>> {
        self.wakers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The outcome of one record, as soon as it is known. Dropping it changes nothing: the record
/// stays queued.
#[derive(Debug)]
#[must_use = "the outcome says whether the record is in the log"]
pub struct Pending {
    state: State,
}

#[derive(Debug)]
enum State {
    Settled(Outcome),
    Waiting {
        fate: Arc<Fate>,
        /// Place of the record in its batch.
        place: u64,
        /// Place of this task's waker, once it has left one.
        waker: Option<usize>,
    },
}

impl Pending {
    pub(super) fn settled(outcome: Outcome) -> Self {
        Self {
            state: State::Settled(outcome),
        }
    }

    pub(super) fn waiting(fate: Arc<Fate>, place: u64) -> Self {
        Self {
            state: State::Waiting {
                fate,
                place,
                waker: None,
            },
        }
    }

    /// The outcome, if it is known by now.
    #[must_use]
    pub fn outcome(&self) -> Option<Outcome> {
        match &self.state {
            State::Settled(outcome) => Some(*outcome),
            State::Waiting { fate, place, .. } => {
                let first = fate.outcome.get();
                first.map(|first| first.further(*place))
            }
        }
    }
}

impl Future for Pending {
    type Output = Outcome;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Outcome> {
        if let Some(outcome) = self.outcome() {
            return Poll::Ready(outcome);
        }
        let this = &mut *self;
        if let State::Waiting { fate, waker, .. } = &mut this.state {
            let mut wakers = fate.wakers();
            if fate.outcome.get().is_none() {
                match *waker {
                    Some(at) => wakers[at].clone_from(cx.waker()),
                    None => {
                        *waker = Some(wakers.len());
                        wakers.push(cx.waker().clone());
                    }
                }
                return Poll::Pending;
            }
        }
        this.outcome().map_or(Poll::Pending, Poll::Ready)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    use ringwood_core::frame::code::Durability;

    use super::*;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn each_waiter_is_woken_once_however_often_it_asked_and_gets_its_own_offset() {
        let fate = Arc::new(Fate::default());
        let mut pending = [0, 1].map(|place| Pending::waiting(Arc::clone(&fate), place));
        let counts = [Arc::new(Count::default()), Arc::new(Count::default())];
        for _ in 0..3 {
            for (pending, count) in pending.iter_mut().zip(&counts) {
                let waker = Waker::from(Arc::clone(count));
                let mut cx = Context::from_waker(&waker);
                assert!(Pin::new(pending).poll(&mut cx).is_pending());
            }
        }
        fate.settle(Outcome::Committed {
            offset: 40,
            term: 1,
            durability: Durability::Quorum,
        });
        for (place, count) in counts.iter().enumerate() {
            assert_eq!(count.0.load(Ordering::Relaxed), 1);
            let offset = pending[place].outcome().and_then(|o| o.offset());
            assert_eq!(offset, Some(40 + place as u64));
        }
    }
}
