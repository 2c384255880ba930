//! `Ring`: one thread's io_uring, with a safe face. The only place of the workspace with `unsafe`.
//!
//! An operation is asked for with what it needs, owned: sockets and files by handle, bytes by
//! reference count. It is answered with one `Completion` (accept and receive: with several, the
//! last says so), whatever happens: short counts are continued inside, a cancelled operation ends
//! with `IoError::Cancelled` or with what it had come to. Nothing it owns is let go before the
//! kernel has said its last word on it.
//!
//! One `submit_and_wait` a turn moves everything: the turn's submissions go, completions come.
//! Knows no frame, no journal and no peer. Hops "bytes in", "replicate" and "store".
//!
//! ```text
//!  turn --- send, write, read.. ---> flight (owns) ---> engine: submission queue --> kernel
//!       <-- Completion{token,..} --- op: step      <---         completion queue <--
//! ```

#![allow(unsafe_code)] // Pushing an entry is a promise about memory; `launch` keeps it.

mod buffer;
mod engine;
mod errno;
mod flight;
mod handle;
mod op;
mod probe;
mod request;
mod spin;
mod vectored;
mod waker;

use std::marker::PhantomData;
use std::os::fd::{FromRawFd, OwnedFd};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use io_uring::cqueue;
use ringwood_core::id::Nanos;

use crate::clock;

pub use buffer::{AlignedBuffer, BUFFER_COUNT_MAX, Lease};
pub use errno::{Family, IoError};
pub use flight::OperationId;
pub use handle::{File, Socket};
pub use op::{Outcome, WriteMode};
pub use probe::{Lever, Probe, RingError, RingSetup, Use};
pub use request::READ_SIZE_MAX;
pub use spin::{SPIN_LIMIT, Spin, SpinEnd, SpinMode};
pub use vectored::VECTORED_SIZE_MAX;
pub use waker::Waker;

use buffer::Pool;
use engine::{Engine, RawCompletion};
use flight::Flights;
use op::{Operation, Step, Target};
use vectored::Vectored;
use waker::Alarm;

/// Lists kept for the next send or write.
const SPARE_COUNT_MAX: usize = 64;

/// A drop waits this long for the kernel to let go of what is in flight, then leaks it.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);

/// Looks at the queue between two looks at the clock while spinning.
const LOOK_COUNT: u32 = 32;

/// While spinning, the core is offered to others this often.
const YIELD_NS: u64 = 2_000;

/// An offer that takes longer than this was accepted.
const HANDED_NS: u64 = 1_500;

/// An offer that takes longer than this, and brings nothing: somebody else needs the core.
const CONTENDED_NS: u64 = 5_000;

/// A caller's name for an operation, given back with each of its completions. Need not be unique.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Token(pub u64);

impl Token {
    /// Comes with `Outcome::Woken`, which no operation asked for.
    pub const WAKER: Self = Self(u64::MAX);
}

/// What became of an operation.
#[derive(Debug)]
pub struct Completion {
    /// The caller's name for the operation.
    pub token: Token,
    /// More completions of the operation follow. Where an accept or a receive says `false`, it is
    /// over, and is asked for anew if its socket is still wanted.
    pub more: bool,
    /// What it came to.
    pub result: Result<Outcome, IoError>,
}

/// How to set up a ring.
#[derive(Clone, Debug)]
pub struct RingOptions {
    /// The queues.
    pub setup: RingSetup,
    /// Receive buffers; a power of two up to `BUFFER_COUNT_MAX`.
    pub buffer_count: u16,
    /// Bytes of each.
    pub buffer_size: u32,
    /// Whether to look before sleeping.
    pub spin: SpinMode,
}

impl Default for RingOptions {
    /// 4 MiB of receive buffers, of the size up to which a multishot receive pays.
    fn default() -> Self {
        Self {
            setup: RingSetup {
                submission_count: 256,
                completion_count: 4096,
                without: Vec::new(),
            },
            buffer_count: 256,
            buffer_size: 16 << 10,
            spin: SpinMode::default(),
        }
    }
}

/// One thread's io_uring and all operations in flight on it.
///
/// Neither `Send` nor `Sync`: the kernel completes only for the thread that set it up. Dropping it
/// cancels what is in flight and waits for the kernel to let go.
pub struct Ring {
    // In this order they are dropped: first the kernel's side, then what it worked on.
    engine: Engine,
    flights: Flights,
    pool: Rc<Pool>,
    alarm: Arc<Alarm>,
    /// By slot; they stay open as long as the ring.
    files: Vec<File>,
    spin: Spin,
    #[expect(
        clippy::vec_box,
        reason = "they keep their address when they move in and out"
    )]
    spare: Vec<Box<Vectored>>,
    drained: Vec<RawCompletion>,
    thread: PhantomData<*const ()>,
}

impl Ring {
    /// A ring for the calling thread.
    ///
    /// # Errors
    /// `RingError`, whose text says what to do about it.
    pub fn new(options: &RingOptions) -> Result<Self, RingError> {
        let engine = Engine::new(&options.setup)?;
        let pool = Pool::new(options.buffer_count, options.buffer_size);
        // SAFETY: `pool` and `engine` go into the ring, which drops the engine first; where
        // operations are still running then, `drop` makes the pool leak its memory.
        unsafe { engine.register_pool(&pool)? };
        let alarm = Alarm::new().map_err(|errno| {
            let error = std::io::Error::from_raw_os_error(errno.raw_os_error());
            RingError::of("making its eventfd", &error)
        })?;
        let mut ring = Self {
            engine,
            flights: Flights::default(),
            pool,
            alarm: Arc::clone(&alarm),
            files: Vec::new(),
            spin: Spin::new(options.spin),
            spare: Vec::new(),
            drained: Vec::new(),
            thread: PhantomData,
        };
        ring.launch(Token::WAKER, Operation::Alarm { alarm });
        Ok(ring)
    }

    /// What of io_uring is used, and what is not and why.
    #[must_use]
    pub fn probe(&self) -> &Probe {
        self.engine.probe()
    }

    /// Ends this ring's wait from another thread.
    #[must_use]
    pub fn waker(&self) -> Waker {
        self.alarm.waker()
    }

    /// Operations asked for whose last completion has not been delivered.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.flights.caller_count()
    }

    /// Receive buffers not leased out.
    #[must_use]
    pub fn buffers_free(&self) -> usize {
        usize::from(self.pool.free())
    }

    /// Hands all operations to the kernel without waiting for completions.
    ///
    /// # Errors
    /// `RingError`: the ring can no longer be used.
    pub fn submit(&mut self) -> Result<(), RingError> {
        match self.engine.has_work() {
            true => self.engine.submit_and_wait(0, None),
            false => Ok(()),
        }
    }

    /// Hands all operations to the kernel, waits up to `timeout` (`None`: for ever; zero: not at
    /// all) for at least one completion, and appends what there is to `completions`; how many.
    ///
    /// # Errors
    /// `RingError`: the ring can no longer be used, and what is in flight is unknown.
    pub fn submit_and_wait(
        &mut self,
        timeout: Option<Duration>,
        completions: &mut Vec<Completion>,
    ) -> Result<usize, RingError> {
        let before = completions.len();
        let started = clock::now();
        let mut now = started;
        loop {
            let left = timeout.map(|timeout| timeout.saturating_sub(span(started, now)));
            self.wait(now, left)?;
            self.collect(completions);
            let count = completions.len() - before;
            if count > 0 || left == Some(Duration::ZERO) {
                return Ok(count);
            }
            // Only the ring's own business came, or the time is over: the next pass will tell.
            now = clock::now();
        }
    }

    /// Submits, and returns once something can be collected or `timeout` is over.
    fn wait(&mut self, now: Nanos, timeout: Option<Duration>) -> Result<(), RingError> {
        if timeout == Some(Duration::ZERO) || self.has_news() {
            return self.submit();
        }
        let mut timeout = timeout;
        let span_ns = self.spin.next_span(now);
        if span_ns > 0 {
            self.submit()?;
            if self.look(now, span_ns, timeout)? {
                return Ok(());
            }
            timeout = timeout.map(|timeout| timeout.saturating_sub(span(now, clock::now())));
        }
        if !self.alarm.fall_asleep() {
            return self.submit();
        }
        self.engine.submit_and_wait(1, timeout)
    }

    fn has_news(&self) -> bool {
        self.alarm.is_notified() || self.engine.ready() > 0
    }

    /// Looks for news, up to `span_ns` and `timeout`; whether there are any.
    fn look(
        &mut self,
        started: Nanos,
        span_ns: u64,
        timeout: Option<Duration>,
    ) -> Result<bool, RingError> {
        let limit_ns = timeout.map_or(u64::MAX, nanos).min(span_ns);
        let mut offered_at = started;
        // Where the answer came from this very core the last time, it needs the core first.
        let mut offers = self.spin.offers_first();
        let (end, now) = loop {
            if offers {
                let before = clock::now();
                rustix::thread::sched_yield();
                offered_at = clock::now();
                let taken = offered_at.since(before).0;
                let news = self.has_taskrun_news()?;
                if news && taken > HANDED_NS {
                    break (SpinEnd::Handed, offered_at);
                }
                if !news && taken > CONTENDED_NS && span_ns != u64::MAX {
                    break (SpinEnd::Contended, offered_at);
                }
            }
            for _ in 0..LOOK_COUNT {
                if self.has_taskrun_news()? {
                    break;
                }
                std::hint::spin_loop();
            }
            let now = clock::now();
            if self.has_news() {
                break (SpinEnd::Hit, now);
            }
            if now.since(started).0 >= limit_ns {
                break (SpinEnd::Miss, now);
            }
            offers = now.since(offered_at).0 >= YIELD_NS;
        };
        self.spin.learn(end, now.since(started).0, now);
        Ok(matches!(end, SpinEnd::Hit | SpinEnd::Handed))
    }

    /// As `has_news`, after letting the kernel post what it has; a system call only if it has.
    fn has_taskrun_news(&mut self) -> Result<bool, RingError> {
        if self.engine.has_taskrun() {
            self.engine.submit_and_wait(0, None)?;
        }
        Ok(self.has_news())
    }

    fn collect(&mut self, completions: &mut Vec<Completion>) {
        if self.alarm.take() {
            let result = Ok(Outcome::Woken);
            completions.push(Completion {
                token: Token::WAKER,
                more: true,
                result,
            });
        }
        let mut drained = std::mem::take(&mut self.drained);
        self.engine.drain(&mut drained);
        for raw in drained.drain(..) {
            completions.extend(self.on_completion(raw));
        }
        self.drained = drained;
    }

    fn on_completion(&mut self, raw: RawCompletion) -> Option<Completion> {
        let id = OperationId::of(raw.user_data);
        let lease = cqueue::buffer_select(raw.flags).map(|buffer| {
            self.pool
                .lease(buffer, u32::try_from(raw.result).unwrap_or(0))
        });
        let flight = self
            .flights
            .find(id)
            .expect("the kernel completes what is in flight");
        let token = flight.token;
        let step = match &mut flight.operation {
            Operation::Accept { .. } => {
                op::step_shots(cqueue::more(raw.flags), accepted(raw.result))
            }
            Operation::Receive { .. } => {
                op::step_shots(cqueue::more(raw.flags), received(raw.result, lease))
            }
            operation => operation.step(raw.result, raw.flags, flight.cancelled),
        };
        match step {
            Step::More(result) => Some(Completion {
                token,
                more: true,
                result,
            }),
            Step::Wait => None,
            Step::Again => {
                self.push(id);
                None
            }
            Step::Quiet => {
                self.finish(id);
                None
            }
            Step::Done(result) => {
                self.finish(id);
                Some(Completion {
                    token,
                    more: false,
                    result,
                })
            }
        }
    }

    fn finish(&mut self, id: OperationId) {
        let flight = self.flights.remove(id);
        if let Some(mut data) = flight.operation.into_spare() {
            data.clear();
            if self.spare.len() < SPARE_COUNT_MAX {
                self.spare.push(data);
            }
        }
    }

    fn launch(&mut self, token: Token, operation: Operation) -> OperationId {
        let id = self.flights.insert(token, operation);
        self.push(id);
        id
    }

    /// Pushes the next entry of an operation the kernel is not working on.
    fn push(&mut self, id: OperationId) {
        let flight = self
            .flights
            .find(id)
            .expect("only what is in flight is pushed");
        let files = &self.files;
        let entry = flight.operation.entry(|file| {
            match files.iter().zip(0..).find(|(at, _)| at.raw() == file.raw()) {
                Some((_, slot)) => Target::Fixed(slot),
                None => Target::Plain(file.raw()),
            }
        });
        // SAFETY: what the entry points to is owned by the operation, on the heap, and its
        // descriptor by a handle in it (or in `files`). The operation stays in `flights`,
        // unchanged, until the completion of this entry is drained: only `finish` removes, on the
        // last completion, and `drop` leaks all flights that it cannot drain.
        unsafe { self.engine.push(entry.user_data(id.user_data())) };
    }

    /// Cancels everything and waits until the kernel has let go; whether it has.
    fn drain(&mut self) -> bool {
        let ids: Vec<OperationId> = self.flights.ids().map(|(id, _)| id).collect();
        for id in ids {
            self.cancel(id);
        }
        let started = clock::now();
        let mut ended = Vec::new();
        while self.flights.count() > 0 {
            let left = DRAIN_TIMEOUT.saturating_sub(span(started, clock::now()));
            if left.is_zero() || self.engine.submit_and_wait(1, Some(left)).is_err() {
                return false;
            }
            self.collect(&mut ended);
            // Leases go back at once, sockets close: nobody is left to have them.
            ended.clear();
        }
        true
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        if !self.drain() {
            // Better to lose the memory than to let the kernel write where others live by now.
            std::mem::forget(std::mem::take(&mut self.flights));
            self.pool.abandon();
        }
    }
}

fn accepted(result: i32) -> Result<Outcome, IoError> {
    op::count(Family::Accept, result)?;
    // SAFETY: a completion of an accept that is not an error is a new descriptor, told once.
    let fd = unsafe { OwnedFd::from_raw_fd(result) };
    Ok(Outcome::Accepted(Socket::adopt(fd)))
}

fn received(result: i32, lease: Option<Lease>) -> Result<Outcome, IoError> {
    match (op::count(Family::Receive, result)?, lease) {
        (0, _) => Ok(Outcome::Ended),
        (_, Some(lease)) => Ok(Outcome::Received(lease)),
        (_, None) => unreachable!("bytes received into no buffer"),
    }
}

fn span(from: Nanos, to: Nanos) -> Duration {
    Duration::from_nanos(to.since(from).0)
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
