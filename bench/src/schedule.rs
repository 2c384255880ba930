//! `Schedule`: when each append of an open loop is due, fixed before the first is sent.
//!
//! Latency counts from the planned instant, so a schedule never moves: what is sent late was late.
//! Knows no clock and no target. Before the data path begins.

use std::fmt;
use std::time::Duration;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use rand_distr::{Distribution, Exp1};
use ringwood_core::id::Nanos;

const NANOS_PER_SECOND: u128 = 1_000_000_000;

/// Highest rate per second. More than a thread can offer; what is left of a run that did not keep
/// up with it can still be counted one by one.
pub const RATE_MAX: u64 = 100_000_000;

/// Most appends that fall due at one instant.
pub const BURST_SIZE_MAX: u64 = 1 << 20;

/// How the appends of a rate are spread over time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrivals {
    /// One after the other, at equal distances.
    Even,
    /// Each independent of the others, as those of many users are: a Poisson process. The same
    /// seed plans the same instants.
    Poisson {
        /// Any.
        seed: u64,
    },
    /// Some at once, at equal distances.
    Bursts {
        /// How many, 1 to `BURST_SIZE_MAX`.
        size: u64,
    },
}

impl fmt::Display for Arrivals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Even => write!(f, "even"),
            Self::Poisson { seed } => write!(f, "poisson, seed {seed}"),
            Self::Bursts { size } => write!(f, "bursts of {size}"),
        }
    }
}

/// The planned instants of a rate, one after the other, without an end and without drift. Knows
/// the next; takes no memory for those after it.
#[derive(Clone, Debug)]
pub struct Schedule {
    start: Nanos,
    rate_per_s: u64,
    /// Of the next append, counted from 0.
    number: u64,
    /// When it is due.
    planned: Nanos,
    pattern: Pattern,
}

#[derive(Clone, Debug)]
enum Pattern {
    /// Bursts; of one where arrivals are even.
    Paced { burst_size: u64 },
    /// `after_ns` is where the next append is due. Its digits last for a hundred days.
    Chance { rng: Box<ChaCha8Rng>, after_ns: f64 },
}

impl Schedule {
    /// `rate_per_s` appends a second from `start` on. The first is due at `start` unless chance
    /// decides.
    ///
    /// # Panics
    /// If the rate is 0 or above `RATE_MAX`, or the size of a burst is out of its range.
    #[must_use]
    pub fn new(start: Nanos, rate_per_s: u64, arrivals: Arrivals) -> Self {
        assert!(rate_per_s > 0, "a schedule has a rate");
        assert!(rate_per_s <= RATE_MAX, "a rate has a bound");
        let pattern = match arrivals {
            Arrivals::Even => Pattern::Paced { burst_size: 1 },
            Arrivals::Bursts { size } => {
                assert!(size > 0, "a burst has an append");
                assert!(size <= BURST_SIZE_MAX, "a burst has a bound");
                Pattern::Paced { burst_size: size }
            }
            Arrivals::Poisson { seed } => Pattern::Chance {
                rng: Box::new(ChaCha8Rng::seed_from_u64(seed)),
                after_ns: 0.0,
            },
        };
        let mut schedule = Self {
            start,
            rate_per_s,
            number: 0,
            planned: start,
            pattern,
        };
        schedule.plan();
        schedule
    }

    /// The next append's number, counted from 0.
    #[must_use]
    pub fn number(&self) -> u64 {
        self.number
    }

    /// When the next append is due. Never before the one that was next before.
    #[must_use]
    pub fn planned(&self) -> Nanos {
        self.planned
    }

    /// Goes on to the append after the next.
    pub fn advance(&mut self) {
        self.number += 1;
        self.plan();
    }

    fn plan(&mut self) {
        self.planned = match &mut self.pattern {
            Pattern::Paced { burst_size } => paced(
                self.start,
                self.rate_per_s,
                self.number - self.number % *burst_size,
            ),
            Pattern::Chance { rng, after_ns } => {
                let gap: f64 = Exp1.sample(rng);
                *after_ns += gap * 1e9 / self.rate_per_s as f64;
                Nanos(self.start.0 + *after_ns as u64)
            }
        };
    }

    /// How many appends are still to come that are planned in `window`.
    #[must_use]
    pub fn rest_count(mut self, window: Window) -> u64 {
        match self.pattern {
            Pattern::Paced { .. } => {
                let first = self.number.max(self.count_before(window.measured_from));
                self.count_before(window.until).saturating_sub(first)
            }
            // There is no formula for chance.
            Pattern::Chance { .. } => {
                let mut count = 0;
                while self.planned < window.until {
                    count += u64::from(window.measures(self.planned));
                    self.advance();
                }
                count
            }
        }
    }

    /// How many appends at equal distances are planned before `until`.
    fn count_before(&self, until: Nanos) -> u64 {
        let Pattern::Paced { burst_size } = self.pattern else {
            unreachable!("chance keeps no distances");
        };
        let span = u128::from(until.0.saturating_sub(self.start.0));
        // planned(n) < until is n * 10^9 / rate < span, rounded down on the left.
        let count = (span * u128::from(self.rate_per_s)).div_ceil(NANOS_PER_SECOND);
        let count = u64::try_from(count).expect("a run shorter than five centuries");
        // Of a burst that has begun all are planned.
        count.next_multiple_of(burst_size)
    }
}

/// When append `number` of an even schedule is due. Multiplied before divided: the error stays
/// below a nanosecond however long the run.
fn paced(start: Nanos, rate_per_s: u64, number: u64) -> Nanos {
    let after = u128::from(number) * NANOS_PER_SECOND / u128::from(rate_per_s);
    Nanos(start.0 + u64::try_from(after).expect("a run shorter than five centuries"))
}

/// The parts of a run: what is planned before `measured_from` warms up and is not counted, what is
/// planned from then on and before `until` is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// The first instant that counts.
    pub measured_from: Nanos,
    /// The first instant after it that does not.
    pub until: Nanos,
}

impl Window {
    /// A run that begins at `start`.
    #[must_use]
    pub fn new(start: Nanos, warmup: Duration, duration: Duration) -> Self {
        assert!(!duration.is_zero(), "a run measures something");
        let measured_from = after(start, warmup);
        Self {
            measured_from,
            until: after(measured_from, duration),
        }
    }

    /// Whether an append planned at that instant counts.
    #[must_use]
    pub fn measures(&self, planned: Nanos) -> bool {
        self.measured_from <= planned && planned < self.until
    }

    /// The instant that parts what counts into two halves.
    #[must_use]
    pub fn middle(&self) -> Nanos {
        after(self.measured_from, self.duration() / 2)
    }

    /// Length of the part that counts.
    #[must_use]
    pub fn duration(&self) -> Duration {
        Duration::from_nanos(self.until.0 - self.measured_from.0)
    }
}

/// The instant `span` after `start`.
#[must_use]
pub fn after(start: Nanos, span: Duration) -> Nanos {
    Nanos(start.0 + u64::try_from(span.as_nanos()).expect("a span shorter than five centuries"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The instants planned before `until`, as nanoseconds after the start.
    fn instants(rate: u64, arrivals: Arrivals, until: u64) -> Vec<u64> {
        let mut schedule = Schedule::new(Nanos(1_000), rate, arrivals);
        std::iter::from_fn(|| {
            let at = schedule.planned().0 - 1_000;
            schedule.advance();
            (at < until).then_some(at)
        })
        .collect()
    }

    #[test]
    fn even_arrivals_have_no_drift() {
        assert_eq!(
            instants(3, Arrivals::Even, 1_000_000_001),
            [0, 333_333_333, 666_666_666, 1_000_000_000]
        );
        // A third of a second does not divide; a million of them must still be right.
        assert_eq!(paced(Nanos(5), 3, 3_000_000), Nanos(1_000_000_000_000_005));
    }

    #[test]
    fn a_burst_falls_due_at_once_and_the_rate_is_kept() {
        let bursts = Arrivals::Bursts { size: 3 };
        assert_eq!(
            instants(6, bursts, 1_000_000_000),
            [0, 0, 0, 500_000_000, 500_000_000, 500_000_000]
        );
    }

    #[test]
    fn chance_is_the_same_for_the_same_seed() {
        let poisson = |seed| instants(1_000, Arrivals::Poisson { seed }, 5_000_000);
        assert_eq!(
            poisson(7),
            [158_320, 632_676, 2_781_345, 3_187_667, 4_132_912]
        );
        assert_ne!(poisson(7), poisson(8));
    }

    #[test]
    fn chance_keeps_the_rate_and_has_no_memory() {
        let at = instants(100_000, Arrivals::Poisson { seed: 1 }, 10_000_000_000);
        let expected = 1_000_000.0_f64;
        assert!((at.len() as f64 - expected).abs() < 4.0 * expected.sqrt());
        // Of exponential gaps a share of 1/e is longer than the mean, and a share of 1/e of those
        // is longer than twice.
        let share = |times: u64| {
            let long = |gap: &&[u64]| gap[1] - gap[0] > times * 10_000;
            at.windows(2).filter(long).count() as f64 / at.len() as f64
        };
        assert!((share(1) - 0.367_9).abs() < 0.002, "{}", share(1));
        assert!((share(2) - 0.135_3).abs() < 0.002, "{}", share(2));
    }

    #[test]
    fn the_rest_is_what_would_be_planned_one_by_one() {
        let patterns = [
            Arrivals::Even,
            Arrivals::Poisson { seed: 3 },
            Arrivals::Bursts { size: 1 },
            Arrivals::Bursts { size: 7 },
            Arrivals::Bursts { size: 5_000 },
        ];
        for (arrivals, rate) in patterns
            .iter()
            .flat_map(|a| [(a, 1), (a, 777), (a, 99_991)])
        {
            for (warmup, span) in [
                (0, 1),
                (0, 1_000_000),
                (333_333, 7_654_321),
                (13, 999_999_999),
            ] {
                let window = Window::new(
                    Nanos(1_000),
                    Duration::from_nanos(warmup),
                    Duration::from_nanos(span),
                );
                for skipped in [0, 1, 8, 900] {
                    let mut schedule = Schedule::new(Nanos(1_000), rate, *arrivals);
                    (0..skipped).for_each(|_| schedule.advance());
                    let mut one_by_one = schedule.clone();
                    let mut slow_count = 0;
                    while one_by_one.planned() < window.until {
                        slow_count += u64::from(window.measures(one_by_one.planned()));
                        one_by_one.advance();
                    }
                    let rest = schedule.rest_count(window);
                    assert_eq!(
                        rest, slow_count,
                        "{arrivals} {rate}/s {warmup} {span} {skipped}"
                    );
                }
            }
        }
    }

    #[test]
    fn a_second_holds_exactly_the_rate() {
        for rate in [1, 3, 10_000, 299_993, RATE_MAX] {
            let schedule = Schedule::new(Nanos(77), rate, Arrivals::Even);
            let window = Window::new(Nanos(77), Duration::ZERO, Duration::from_secs(1));
            assert_eq!(schedule.rest_count(window), rate);
        }
    }

    #[test]
    fn warm_up_and_what_comes_after_the_end_do_not_count() {
        let window = Window::new(
            Nanos(100),
            Duration::from_nanos(50),
            Duration::from_nanos(10),
        );
        let counted: Vec<u64> = (0..300).filter(|at| window.measures(Nanos(*at))).collect();
        assert_eq!(counted, (150..160).collect::<Vec<_>>());
        assert_eq!(window.duration(), Duration::from_nanos(10));
        assert_eq!(window.middle(), Nanos(155));
    }
}
