//! The generator: offers appends by a plan, and notes how each ends. One thread, one task.
//!
//! An open loop is the default: the schedule does not wait for the cluster, as users do not, so a
//! stall is charged to all who would have met it (a closed loop hides them: "coordinated
//! omission"). What is due and cannot be sent yet waits in a queue without a bound and without
//! memory, since the schedule is a formula. Knows no report. Hop "client" of the data path.
//!
//! ```text
//!   schedule -- due --> produce -- offer --> target
//!                           | in flight, oldest first
//!                       collect <-- poll the oldest of each log --> tally
//! ```
//! Acknowledgements come by batches and in order. So only the oldest append of a log is polled,
//! and one wake-up collects a batch.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use ringwood_core::id::Nanos;
use ringwood_core::limits::RECORD_SIZE_MAX;
use ringwood_net::client::Outcome;
use ringwood_net::clock;
use ringwood_net::ring::SpinMode;
use rustix::time::{ClockId, clock_gettime};
use tokio::task::unconstrained;
use tokio::time::timeout;

use crate::line::{Line, Offered};
use crate::payload::Payload;
use crate::schedule::{Arrivals, Schedule, Window, after};
use crate::tally::Tally;
use crate::target::Target;
use crate::wait::{Look, Timer};

/// The generator does not wake up for its schedule more often; what falls due meanwhile goes
/// together, and its wait counts. Keeps high rates from paying a timer for every append.
const PACE: Duration = Duration::from_micros(50);

/// Appends offered before acknowledgements are looked for again.
const BURST_COUNT: u64 = 64;

/// Passes over produce and collect before the client on the same thread has its turn.
const PASS_COUNT: usize = 16;

/// How long after the end of the window a late generator goes on sending what was planned in it.
const LATE: Duration = Duration::from_secs(5);

/// How long after the last append all are waited for, unless a plan says otherwise: longer than
/// a client takes to give an append up.
pub const DRAIN: Duration = Duration::from_secs(35);

/// Bytes that records are cut from.
const SOURCE_SIZE: usize = 64 << 10;

/// What is offered, and how.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Open or closed loop.
    pub mode: Mode,
    /// How large records are.
    pub payload: Payload,
    /// Of what is drawn for that.
    pub seed: u64,
    /// What is not counted, first.
    pub warmup: Duration,
    /// What is, then.
    pub duration: Duration,
    /// How long after the last append all are waited for; what is left then is given up.
    pub drain: Duration,
    /// Logs, loaded in turn; at least 1.
    pub log_count: usize,
    /// Producers, each of which appends to all logs; at least 1.
    pub producer_count: usize,
    /// Whether to keep the response by intervals, for a log of them.
    pub keeps_intervals: bool,
    /// Whether to look for acknowledgements before sleeping.
    pub spin: SpinMode,
}

impl Plan {
    fn lane_count(&self) -> usize {
        self.log_count * self.producer_count
    }
}

/// What decides when the next append goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// A schedule of this many a second.
    Open {
        /// Appends a second, 1 to `RATE_MAX`.
        rate_per_s: u64,
        /// How they are spread.
        arrivals: Arrivals,
    },
    /// The end of one before, with this many in flight.
    Closed {
        /// At least 1.
        concurrency: usize,
    },
}

/// What a run came to.
#[derive(Clone, Debug)]
pub struct Measured {
    /// The part that was counted.
    pub window: Window,
    /// Ends, latencies, gaps.
    pub tally: Tally,
    /// Measured appends that the schedule had; in a closed loop, that were sent.
    pub planned_count: u64,
    /// Of those, the ones handed over.
    pub sent_count: u64,
    /// CPU time of the thread during the run: generator, client and runtime.
    pub cpu: Duration,
    /// The part of it that only looked for news instead of sleeping.
    pub looked: Duration,
    /// Length of the run, warm-up and drain included.
    pub elapsed: Duration,
}

/// Carries out `plan` on the calling task, whose thread also runs the target's tasks.
///
/// # Errors
/// Where the timer of the schedule could not be made or read.
pub async fn run<T: Target>(target: &T, plan: &Plan) -> io::Result<Measured> {
    let (started, cpu) = (clock::now(), thread_cpu());
    let window = Window::new(started, plan.warmup, plan.duration);
    let line = RefCell::new(Line::new(window, plan.log_count, plan.lane_count()));
    if plan.keeps_intervals {
        line.borrow_mut().keep_intervals();
    }
    let mut look = Look::new(plan.spin);
    let schedule = match plan.mode {
        Mode::Open {
            rate_per_s,
            arrivals,
        } => Some(Schedule::new(started, rate_per_s, arrivals)),
        Mode::Closed { .. } => None,
    };
    let schedule = RefCell::new(schedule);
    let producer = Producer {
        target,
        schedule: &schedule,
        line: &line,
        source: Source::new(plan.payload.sizes(plan.seed)),
        lane_count: plan.lane_count(),
        window,
    };
    // A target that takes nothing, or answers nothing, any more must not hold the run for ever.
    let patience = match plan.mode {
        Mode::Open { .. } => plan.warmup + plan.duration + LATE + plan.drain,
        Mode::Closed { .. } => plan.warmup + plan.duration,
    };
    let mut produced = pin!(producer.produce(plan.mode));
    let all = poll_fn(|context| turn(&line, &mut look, context, |at| produced.as_mut().poll(at)));
    if let Ok(over) = timeout(patience, unconstrained(all)).await {
        over?;
    }
    let landed = |_: &mut Context<'_>| match line.borrow().in_flight_count() {
        0 => Poll::Ready(()),
        _ => Poll::Pending,
    };
    let rest = poll_fn(|context| turn(&line, &mut look, context, landed));
    // Where that takes too long, those in flight are given up.
    let _ = timeout(plan.drain, unconstrained(rest)).await;
    let ended = clock::now();
    let sent_count = line.borrow().sent_count();
    // What was planned and never sent is missing, and must be seen to be.
    let unsent_count = schedule
        .take()
        .map_or(0, |schedule| schedule.rest_count(window));
    let tally = line
        .replace(Line::new(window, plan.log_count, plan.lane_count()))
        .give_up(ended);
    Ok(Measured {
        window,
        tally,
        planned_count: sent_count + unsent_count,
        sent_count,
        cpu: thread_cpu().saturating_sub(cpu),
        looked: look.looked(),
        elapsed: Duration::from_nanos(ended.since(started).0),
    })
}

/// Produces and collects until neither gets further. `produce` is ready when it is over.
fn turn<P: Future<Output = Outcome> + Unpin, R>(
    line: &RefCell<Line<P>>,
    look: &mut Look,
    context: &mut Context<'_>,
    mut produce: impl FnMut(&mut Context<'_>) -> Poll<R>,
) -> Poll<R> {
    for _ in 0..PASS_COUNT {
        let moved_count = line.borrow().moved_count();
        let over = produce(context);
        // Collecting comes second: so the oldest that was just offered is waited for, too.
        line.borrow_mut().collect(context);
        if over.is_ready() {
            return over;
        }
        if line.borrow().moved_count() == moved_count {
            look.on_nothing(context);
            return Poll::Pending;
        }
        look.on_news();
    }
    context.waker().wake_by_ref();
    Poll::Pending
}

struct Producer<'a, T: Target> {
    target: &'a T,
    /// Of an open loop; stands at the first append that was not sent.
    schedule: &'a RefCell<Option<Schedule>>,
    line: &'a RefCell<Line<T::Pending>>,
    source: Source,
    lane_count: usize,
    window: Window,
}

impl<T: Target> Producer<'_, T> {
    async fn produce(&self, mode: Mode) -> io::Result<()> {
        match mode {
            Mode::Open { .. } => self.produce_open(&Timer::new()?).await,
            Mode::Closed { concurrency } => {
                self.produce_closed(concurrency).await;
                Ok(())
            }
        }
    }

    async fn produce_open(&self, timer: &Timer) -> io::Result<()> {
        let given_up = after(self.window.until, LATE);
        loop {
            let now = clock::now();
            let (_, planned) = self.next();
            if planned >= self.window.until || now >= given_up {
                return Ok(());
            }
            if planned > now {
                let pace = after(now, PACE);
                timer.sleep_until(planned.max(pace)).await?;
                continue;
            }
            for _ in 0..BURST_COUNT {
                let (number, planned) = self.next();
                if planned > now || planned >= self.window.until {
                    break;
                }
                self.offer(number, Some(planned)).await;
                self.with_schedule(Schedule::advance);
            }
            step_aside().await;
        }
    }

    /// Number and instant of the append that is to be sent next.
    fn next(&self) -> (u64, Nanos) {
        self.with_schedule(|schedule| (schedule.number(), schedule.planned()))
    }

    fn with_schedule<R>(&self, look: impl FnOnce(&mut Schedule) -> R) -> R {
        let mut schedule = self.schedule.borrow_mut();
        look(schedule.as_mut().expect("an open loop has a schedule"))
    }

    async fn produce_closed(&self, concurrency: usize) {
        assert!(concurrency > 0, "a closed loop has an append in flight");
        let mut number = 0;
        while clock::now() < self.window.until {
            let room = concurrency.saturating_sub(self.line.borrow().in_flight_count());
            for _ in 0..(room as u64).min(BURST_COUNT) {
                self.offer(number, None).await;
                number += 1;
            }
            step_aside().await;
        }
    }

    /// Offers append `number`, due at `planned` or, in a closed loop, now.
    async fn offer(&self, number: u64, planned: Option<Nanos>) {
        let lane = usize::try_from(number % self.lane_count as u64).expect("a lane's number");
        let record = self.source.record(number);
        let size = record.len();
        let sent = clock::now();
        let pending = self.target.offer(lane, record).await;
        let offered = Offered {
            lane,
            size,
            planned: planned.unwrap_or(sent),
            sent,
        };
        self.line.borrow_mut().push(offered, pending);
    }
}

/// Lets others have a turn. Not to be waited for: whoever polls does so again when anything has
/// moved, be it an append just offered or one that ended.
async fn step_aside() {
    let mut stepped = false;
    poll_fn(|_| match std::mem::replace(&mut stepped, true) {
        true => Poll::Ready(()),
        false => Poll::Pending,
    })
    .await;
}

/// Where records come from: slices of one random buffer, so that none is copied or allocated and
/// hardly any two are alike.
struct Source {
    bytes: Bytes,
    /// In turn.
    sizes: Vec<usize>,
}

impl Source {
    fn new(sizes: Vec<usize>) -> Self {
        let size_max = sizes.iter().max().copied();
        let size_max = size_max.expect("records have a size");
        assert!(size_max <= RECORD_SIZE_MAX, "a record has a bound");
        let mut bytes = vec![0; SOURCE_SIZE + size_max];
        clock::fill_random(&mut bytes);
        Self {
            bytes: bytes.into(),
            sizes,
        }
    }

    fn record(&self, number: u64) -> Bytes {
        // An odd step visits every place before it comes back.
        let at = (number.wrapping_mul(4_099) % SOURCE_SIZE as u64) as usize;
        let size = self.sizes[(number % self.sizes.len() as u64) as usize];
        self.bytes.slice(at..at + size)
    }
}

/// CPU time of the calling thread.
fn thread_cpu() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(
        u64::try_from(time.tv_sec).expect("time that was spent"),
        u32::try_from(time.tv_nsec).expect("less than a second"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::{FakeTarget, Stall};
    use crate::histogram::Share;

    const STALL: Duration = Duration::from_millis(200);

    fn run_on<T: Target>(
        plan: &Plan,
        make: impl FnOnce(FakeTarget) -> T,
        stall: Option<Stall>,
    ) -> Measured {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        tokio::task::LocalSet::new().block_on(&runtime, async {
            let fake = FakeTarget::default();
            tokio::task::spawn_local(fake.clone().serve(stall));
            run(&make(fake), plan).await.unwrap()
        })
    }

    fn plan(mode: Mode) -> Plan {
        Plan {
            mode,
            payload: Payload::fixed(100).unwrap(),
            seed: 1,
            warmup: Duration::ZERO,
            duration: Duration::from_millis(1_100),
            drain: DRAIN,
            log_count: 1,
            producer_count: 1,
            keeps_intervals: false,
            spin: SpinMode::Never,
        }
    }

    fn stall_after(after_count: u64) -> Option<Stall> {
        let span = STALL;
        Some(Stall { after_count, span })
    }

    const OPEN: Mode = Mode::Open {
        rate_per_s: 10_000,
        arrivals: Arrivals::Even,
    };

    #[test]
    fn a_stall_of_the_target_is_charged_to_all_who_would_have_met_it() {
        let measured = run_on(&plan(OPEN), |fake| fake, stall_after(3_000));
        let tally = &measured.tally;
        assert_eq!(
            (measured.planned_count, tally.acked_count),
            (11_000, 11_000)
        );
        // 2,000 of 11,000 appends were due during the stall, so it reaches far below the p99.
        let p99 = tally.response.percentile(Share::P99).unwrap();
        assert!(p99.0 >= 150_000_000, "p99 hides the stall: {p99}");
        assert!(tally.response.at(Share::P90).unwrap().0 >= 50_000_000);
        assert!(tally.longest_gap.span.0 >= 200_000_000);
        assert_eq!((tally.leader_change_count, tally.error_count()), (1, 0));
    }

    #[test]
    fn a_stall_is_one_sample_of_a_closed_loop() {
        // Why the closed loop is not the default, and says so.
        let measured = run_on(
            &plan(Mode::Closed { concurrency: 1 }),
            |fake| fake,
            stall_after(100),
        );
        let tally = &measured.tally;
        let slow = |share| {
            tally
                .response
                .at(share)
                .is_some_and(|at| at.0 >= 150_000_000)
        };
        assert!(tally.response.max().0 >= 200_000_000 && tally.acked_count > 200);
        assert!(!slow(Share::P50) && measured.sent_count == measured.planned_count);
    }

    /// Holds up its caller's thread once.
    struct Late(FakeTarget, std::cell::Cell<u32>);

    impl Target for Late {
        type Pending = <FakeTarget as Target>::Pending;

        async fn offer(&self, lane: usize, record: Bytes) -> Self::Pending {
            self.1.set(self.1.get() + 1);
            if self.1.get() == 3_000 {
                std::thread::sleep(STALL);
            }
            self.0.offer(lane, record).await
        }
    }

    #[test]
    fn a_late_generator_is_charged_too() {
        let measured = run_on(&plan(OPEN), |fake| Late(fake, 0.into()), None);
        let tally = &measured.tally;
        assert_eq!(tally.acked_count, 11_000);
        assert!(tally.response.percentile(Share::P99).unwrap().0 >= 150_000_000);
        assert!(tally.slip.percentile(Share::P99).unwrap().0 >= 150_000_000);
    }

    /// Never answers.
    struct Deaf;

    impl Target for Deaf {
        type Pending = std::future::Pending<Outcome>;

        async fn offer(&self, _: usize, _: Bytes) -> Self::Pending {
            std::future::pending()
        }
    }

    #[test]
    fn what_never_ends_is_given_up_and_unknown() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let mut plan = plan(Mode::Closed { concurrency: 7 });
        plan.duration = Duration::from_millis(20);
        plan.drain = Duration::from_millis(20);
        let measured = runtime.block_on(run(&Deaf, &plan)).unwrap();
        assert_eq!(measured.tally.unknown_count, 7);
        assert_eq!((measured.tally.acked_count, measured.sent_count), (0, 7));
    }

    #[test]
    fn a_full_window_of_many_logs_is_kept_up() {
        let mut plan = plan(Mode::Closed { concurrency: 1_024 });
        plan.duration = Duration::from_millis(50);
        plan.warmup = Duration::from_millis(10);
        (plan.log_count, plan.producer_count) = (3, 2);
        let measured = run_on(&plan, |fake| fake, None);
        assert!(measured.tally.acked_count >= 1_024 && measured.tally.error_count() == 0);
        assert_eq!(measured.tally.acked_count, measured.sent_count);
    }

    #[test]
    fn records_have_the_size_asked_for() {
        for size in [0, 1, 256, RECORD_SIZE_MAX] {
            let source = Source::new(vec![size]);
            assert!((0..1_000).all(|number| source.record(number).len() == size));
        }
        let source = Source::new(vec![3, 1, 2]);
        let sizes: Vec<usize> = (0..5).map(|number| source.record(number).len()).collect();
        assert_eq!(sizes, [3, 1, 2, 3, 1]);
    }

    #[test]
    fn intervals_have_all_that_was_acknowledged() {
        let mut plan = plan(OPEN);
        plan.keeps_intervals = true;
        let measured = run_on(&plan, |fake| fake, None);
        let mut log = Vec::new();
        let intervals = measured.tally.intervals.unwrap();
        let epoch = std::time::SystemTime::UNIX_EPOCH;
        intervals.write(&mut log, epoch, "a run").unwrap();
        let log = String::from_utf8(log).unwrap();
        // 1.1 s: a whole second and what is left.
        let lines = log.lines().filter(|line| line.contains(",HIST")).count();
        assert_eq!(lines, 2, "{log}");
    }
}
