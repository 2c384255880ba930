//! `Schedule`: when each append of an open loop is due, fixed before the first is sent.
//!
//! Latency counts from the planned instant, so a schedule never moves: what is sent late was late.
//! Knows no clock and no target. Before the data path begins.

use std::time::Duration;

use ringwood_core::id::Nanos;

const NANOS_PER_SECOND: u128 = 1_000_000_000;

/// Highest rate per second: one append a nanosecond; the planned instants stay distinct.
pub const RATE_MAX: u64 = 1_000_000_000;

/// A constant rate from an instant on, without an end and without drift.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Schedule {
    start: Nanos,
    rate_per_s: u64,
}

impl Schedule {
    /// `rate_per_s` appends a second, the first at `start`.
    ///
    /// # Panics
    /// If the rate is 0 or above `RATE_MAX`.
    #[must_use]
    pub fn new(start: Nanos, rate_per_s: u64) -> Self {
        assert!(rate_per_s > 0, "a schedule has a rate");
        assert!(
            rate_per_s <= RATE_MAX,
            "one append a nanosecond is the most"
        );
        Self { start, rate_per_s }
    }

    /// When append `number`, counted from 0, is due. Multiplied before divided: the error stays
    /// below a nanosecond however long the run.
    #[must_use]
    pub fn planned(&self, number: u64) -> Nanos {
        let after = u128::from(number) * NANOS_PER_SECOND / u128::from(self.rate_per_s);
        Nanos(self.start.0 + u64::try_from(after).expect("a run shorter than five centuries"))
    }

    /// How many appends are planned before `until`, which is the number of the first that is not.
    #[must_use]
    pub fn count_before(&self, until: Nanos) -> u64 {
        let span = u128::from(until.0.saturating_sub(self.start.0));
        // planned(n) < until is n * 10^9 / rate < span, rounded down on the left.
        let count = (span * u128::from(self.rate_per_s)).div_ceil(NANOS_PER_SECOND);
        u64::try_from(count).expect("one append a nanosecond at most")
    }
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

    #[test]
    fn appends_are_planned_evenly_and_without_drift() {
        let schedule = Schedule::new(Nanos(1_000), 3);
        assert_eq!(schedule.planned(0), Nanos(1_000));
        assert_eq!(schedule.planned(1), Nanos(333_334_333));
        // A third of a second does not divide; a million of them must still be right.
        assert_eq!(schedule.planned(3_000_000), Nanos(1_000_000_000_001_000));
    }

    #[test]
    fn the_count_is_the_number_of_the_first_append_not_before() {
        for rate in [1, 3, 7, 1_000, 300_000, 999_999_937, RATE_MAX] {
            let schedule = Schedule::new(Nanos(5), rate);
            for span in [
                0,
                1,
                2,
                999,
                333_333_333,
                333_333_334,
                1_000_000_000,
                7_654_321_987,
            ] {
                let until = Nanos(5 + span);
                let count = schedule.count_before(until);
                assert!(schedule.planned(count) >= until, "rate {rate}, span {span}");
                assert!(
                    count == 0 || schedule.planned(count - 1) < until,
                    "rate {rate}, span {span}"
                );
            }
            assert_eq!(schedule.count_before(Nanos(0)), 0);
        }
    }

    #[test]
    fn a_second_holds_exactly_the_rate() {
        for rate in [1, 3, 10_000, 299_993] {
            let schedule = Schedule::new(Nanos(77), rate);
            assert_eq!(schedule.count_before(Nanos(77 + 1_000_000_000)), rate);
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
    }
}
