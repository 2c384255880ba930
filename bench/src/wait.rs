//! `Timer` and `Look`: how the generator waits, for its schedule and for acknowledgements.
//!
//! tokio's own timer knows milliseconds only, which would be charged to every append. And a sleep
//! costs a wake-up of tens of microseconds that a shard, by looking first, does not pay; so the
//! generator looks too, by the same learned budget. Knows no append.

use std::io;
use std::os::fd::OwnedFd;
use std::task::Context;
use std::time::Duration;

use ringwood_core::id::Nanos;
use ringwood_net::clock;
use ringwood_net::ring::{Spin, SpinEnd, SpinMode};
use rustix::io::Errno;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};
use tokio::io::unix::AsyncFd;

/// While looking, the core is offered to others this often.
const YIELD_NS: u64 = 2_000;

/// An offer that takes longer than this was accepted.
const HANDED_NS: u64 = 1_500;

/// An offer that takes longer than this, and brings nothing: somebody else needs the core.
const CONTENDED_NS: u64 = 5_000;

/// Wakes its task at an instant of `clock::now`, as exactly as the kernel can.
#[derive(Debug)]
pub(crate) struct Timer {
    fd: AsyncFd<OwnedFd>,
}

impl Timer {
    /// A timer of the calling thread's runtime.
    pub(crate) fn new() -> io::Result<Self> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let fd = timerfd_create(TimerfdClockId::Boottime, flags)?;
        #[expect(
            deprecated,
            reason = "its successor is unsafe, for descriptors that may close or change; this one is owned"
        )]
        let fd = AsyncFd::new(fd)?;
        Ok(Self { fd })
    }

    /// Ready at `at`, or at once where that has passed.
    pub(crate) async fn sleep_until(&self, at: Nanos) -> io::Result<()> {
        let instant = Timespec {
            tv_sec: i64::try_from(at.0 / 1_000_000_000).expect("an instant within the era"),
            tv_nsec: i64::try_from(at.0 % 1_000_000_000).expect("less than a second"),
        };
        let once = Itimerspec {
            it_interval: Timespec::default(),
            it_value: instant,
        };
        timerfd_settime(&self.fd, TimerfdTimerFlags::ABSTIME, &once)?;
        while clock::now() < at {
            let mut ready = self.fd.readable().await?;
            let mut count = [0; 8];
            let read = rustix::io::read(self.fd.get_ref(), &mut count);
            // Taken, or not there yet: either way the next expiry is news.
            ready.clear_ready();
            match read {
                Ok(_) | Err(Errno::AGAIN | Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(())
    }
}

/// Looking for news before sleeping.
#[derive(Debug)]
pub(crate) struct Look {
    spin: Spin,
    state: State,
    /// Time spent looking, without what others had of it.
    looked_ns: u64,
}

#[derive(Clone, Copy, Debug)]
enum State {
    /// There was news.
    Busy,
    Looking(Looking),
    /// Looked long enough.
    Asleep,
}

#[derive(Clone, Copy, Debug)]
struct Looking {
    since: Nanos,
    span_ns: u64,
    offered_at: Nanos,
    /// How long the core was away at the offer just made, if one was.
    taken_ns: u64,
    /// How long it was away at all offers.
    away_ns: u64,
}

impl Look {
    pub(crate) fn new(mode: SpinMode) -> Self {
        Self {
            spin: Spin::new(mode),
            state: State::Busy,
            looked_ns: 0,
        }
    }

    /// How long it looked so far: time of the core that nothing needed.
    pub(crate) fn looked(&self) -> Duration {
        Duration::from_nanos(self.looked_ns)
    }

    /// There is news.
    pub(crate) fn on_news(&mut self) {
        if let State::Looking(look) = self.state {
            let end = match look.taken_ns > HANDED_NS {
                true => SpinEnd::Handed,
                false => SpinEnd::Hit,
            };
            self.learn(end, look);
        }
        self.state = State::Busy;
    }

    /// There is none. Has the task polled again, once everything else on the thread has run, for
    /// as long as looking is thought to pay.
    pub(crate) fn on_nothing(&mut self, context: &mut Context<'_>) {
        let now = clock::now();
        self.state = match self.state {
            State::Busy => match self.spin.next_span(now) {
                0 => State::Asleep,
                span_ns => {
                    let look = Looking {
                        since: now,
                        span_ns,
                        offered_at: now,
                        taken_ns: 0,
                        away_ns: 0,
                    };
                    // Where the answer came from this very core the last time, it needs it first.
                    State::Looking(match self.spin.offers_first() {
                        true => look.offer(now),
                        false => look,
                    })
                }
            },
            State::Looking(look) => self.look_on(now, look),
            State::Asleep => State::Asleep,
        };
        if let State::Looking(_) = self.state {
            come_back(context);
        }
    }

    fn look_on(&mut self, now: Nanos, look: Looking) -> State {
        if look.taken_ns > CONTENDED_NS && look.span_ns != u64::MAX {
            self.learn(SpinEnd::Contended, look);
            return State::Asleep;
        }
        if now.since(look.since).0 >= look.span_ns {
            self.learn(SpinEnd::Miss, look);
            return State::Asleep;
        }
        State::Looking(match now.since(look.offered_at).0 >= YIELD_NS {
            true => look.offer(now),
            false => Looking {
                taken_ns: 0,
                ..look
            },
        })
    }

    fn learn(&mut self, end: SpinEnd, look: Looking) {
        let now = clock::now();
        let span_ns = now.since(look.since).0;
        self.looked_ns += span_ns.saturating_sub(look.away_ns);
        self.spin.learn(end, span_ns, now);
    }
}

impl Looking {
    /// Lets others have the core, if they want it.
    fn offer(self, now: Nanos) -> Self {
        rustix::thread::sched_yield();
        let offered_at = clock::now();
        let taken_ns = offered_at.since(now).0;
        Self {
            offered_at,
            taken_ns,
            away_ns: self.away_ns + taken_ns,
            ..self
        }
    }
}

/// Has the task polled again after the runtime has looked at its sockets without sleeping; a
/// plain wake-up would run the task again before it looks.
fn come_back(context: &mut Context<'_>) {
    let mut yielded = std::pin::pin!(tokio::task::yield_now());
    let first = yielded.as_mut().poll(context);
    assert!(first.is_pending(), "a yield is not over at once");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schedule::after;

    fn block_on(work: impl Future<Output = ()>) {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        builder.enable_all().build().unwrap().block_on(work);
    }

    #[test]
    fn a_timer_is_never_early_and_can_be_used_again() {
        block_on(async {
            let timer = Timer::new().unwrap();
            for span in [0, 1, 300, 40, 2_000] {
                let at = after(clock::now(), Duration::from_micros(span));
                timer.sleep_until(at).await.unwrap();
                assert!(clock::now() >= at);
            }
            timer.sleep_until(Nanos(1)).await.unwrap();
        });
    }

    #[test]
    fn looking_comes_back_until_it_is_given_up() {
        for (mode, comes_back) in [
            (SpinMode::Never, false),
            (SpinMode::Adaptive(Duration::from_micros(100)), true),
        ] {
            block_on(async move {
                let mut look = Look::new(mode);
                let mut polls = 0;
                let nap = tokio::time::sleep(Duration::from_millis(20));
                let mut nap = std::pin::pin!(nap);
                std::future::poll_fn(|context| {
                    polls += 1;
                    look.on_nothing(context);
                    nap.as_mut().poll(context)
                })
                .await;
                assert!(matches!(look.state, State::Asleep));
                assert_eq!(polls > 2, comes_back);
                assert_eq!(look.looked() > Duration::ZERO, comes_back);
            });
        }
    }
}
