//! `Waker`: how another thread ends a ring's sleep.
//!
//! A state and an eventfd. The state alone carries the message; the eventfd, one system call, is
//! only written when the ring sleeps. So waking a busy or spinning shard costs one atomic swap.
//! Knows nothing of what the wake-up is about.
//!
//! ```text
//!           ring: about to sleep           ring: woken by anything
//!   AWAKE ------------------------> ASLEEP ------------------------> AWAKE
//!     |                               |
//!     | wake: swap                    | wake: swap, then write the eventfd
//!     +-----------> NOTIFIED <--------+
//!                      | ring: does not sleep, reports `Woken`, -> AWAKE
//! ```

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use rustix::event::{EventfdFlags, eventfd};
use rustix::io::Errno;

const AWAKE: u8 = 0;
const ASLEEP: u8 = 1;
const NOTIFIED: u8 = 2;

/// Ends the wait of the ring it was taken from, from any thread. Wake-ups that come before the
/// ring looks are one.
#[derive(Clone, Debug)]
pub struct Waker {
    alarm: Arc<Alarm>,
}

impl Waker {
    /// What was done before this call is visible to the ring's thread when it gets
    /// `Outcome::Woken`. Harmless when the ring is gone.
    pub fn wake(&self) {
        if self.alarm.state.swap(NOTIFIED, Ordering::AcqRel) == ASLEEP {
            // It cannot fail: the counter, never read, holds 2^64 - 2 wake-ups.
            let written = rustix::io::write(&self.alarm.eventfd, &1u64.to_ne_bytes());
            debug_assert_eq!(written, Ok(8));
        }
    }
}

/// The ring's side of its wakers.
#[derive(Debug)]
pub(super) struct Alarm {
    state: AtomicU8,
    eventfd: OwnedFd,
}

impl Alarm {
    pub(super) fn new() -> Result<Arc<Self>, Errno> {
        let eventfd = eventfd(0, EventfdFlags::CLOEXEC)?;
        Ok(Arc::new(Self {
            state: AtomicU8::new(AWAKE),
            eventfd,
        }))
    }

    pub(super) fn waker(self: &Arc<Self>) -> Waker {
        Waker {
            alarm: Arc::clone(self),
        }
    }

    pub(super) fn eventfd(&self) -> &OwnedFd {
        &self.eventfd
    }

    /// Whether a wake-up is there; cheap enough to poll.
    pub(super) fn is_notified(&self) -> bool {
        self.state.load(Ordering::Relaxed) == NOTIFIED
    }

    /// From now on wake-ups write the eventfd. False: one is there already, do not sleep.
    pub(super) fn fall_asleep(&self) -> bool {
        self.state
            .compare_exchange(AWAKE, ASLEEP, Ordering::AcqRel, Ordering::Acquire)
            .is_ok()
    }

    /// Back from sleep, or on to the next turn; whether there was a wake-up since.
    pub(super) fn take(&self) -> bool {
        // Reading first spares the bus a locked swap on every turn nobody woke.
        self.state.load(Ordering::Relaxed) != AWAKE
            && self.state.swap(AWAKE, Ordering::AcqRel) == NOTIFIED
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wake_up_before_sleep_prevents_it_and_many_are_one() {
        let alarm = Alarm::new().unwrap();
        let waker = alarm.waker();
        assert!(!alarm.take());
        waker.wake();
        waker.clone().wake();
        assert!(alarm.is_notified() && !alarm.fall_asleep());
        assert!(alarm.take() && !alarm.take());
        assert!(alarm.fall_asleep());
        waker.wake();
        assert!(alarm.take() && !alarm.is_notified());
    }
}
