//! `Objective` and `Search`: the highest rate at which a percentile stays within a bound.
//!
//! The search doubles (or halves) the rate until one rate has held and another has not, then tries
//! the geometric middle of the two until they are close. A run that is invalid does not hold,
//! whatever its percentiles. Knows no clock and no target.

use std::fmt;
use std::time::Duration;

use ringwood_core::id::Nanos;
use serde::Serialize;

use crate::histogram::{BEYOND_COUNT_MIN, Share, micros};
use crate::report::Report;
use crate::runs::RunLine;
use crate::schedule::RATE_MAX;

/// The search ends when the lowest rate that failed is less than this above the highest that held,
/// in thousandths: nearer, chance decides.
const CLOSE_THOUSANDTHS: u64 = 1_050;

/// A percentile, and what it must not exceed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Objective {
    /// Which of the response's percentiles.
    pub share: Share,
    /// Its highest value.
    pub limit: Nanos,
}

impl Objective {
    /// How long a run at `rate_per_s` must measure for the percentile to be told, with a tenth
    /// more for what chance takes.
    #[must_use]
    pub fn duration_min(&self, rate_per_s: u64) -> Duration {
        assert!(self.share.0 < 100_000, "nothing lies above all");
        let above = u128::from(100_000 - self.share.0);
        let count = (u128::from(BEYOND_COUNT_MIN) * 100_000).div_ceil(above) * 11 / 10;
        let span_ns = count * 1_000_000_000 / u128::from(rate_per_s);
        Duration::from_nanos(u64::try_from(span_ns).expect("no percentile needs centuries"))
    }

    /// The lowest rate at which a run of `longest` is enough: below, each step takes longer still.
    #[must_use]
    pub fn rate_min(&self, longest: Duration) -> u64 {
        let one = self.duration_min(1).as_nanos();
        let rate = one.div_ceil(longest.as_nanos().max(1));
        u64::try_from(rate).map_or(RATE_MAX, |rate| rate.min(RATE_MAX))
    }

    /// Why `run` does not hold it; `None` if it does.
    #[must_use]
    pub fn missed_by(&self, run: &Report) -> Option<String> {
        if let Some(invalid) = &run.invalid {
            return Some(format!("invalid: {invalid}"));
        }
        let (name, limit_us) = (self.share, micros(self.limit));
        match run.response.at(self.share) {
            Some(told_us) if told_us <= limit_us => None,
            Some(told_us) => Some(format!("{name} {told_us} us is above {limit_us} us")),
            None => Some(format!(
                "{name} is n/a: fewer than {BEYOND_COUNT_MIN} samples above it"
            )),
        }
    }
}

impl fmt::Display for Objective {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at most {} us", self.share, micros(self.limit))
    }
}

/// Which rate to try next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Search {
    start: u64,
    /// Below, nothing is tried.
    lowest: u64,
    /// The highest rate that held. Always below `failed`.
    held: Option<u64>,
    /// The lowest that did not.
    failed: Option<u64>,
}

impl Search {
    /// Begins with `start`, 1 to `RATE_MAX`, and does not go below `lowest` unless that does.
    #[must_use]
    pub fn new(start: u64, lowest: u64) -> Self {
        assert!((1..=RATE_MAX).contains(&start), "a rate has a bound");
        Self {
            start,
            lowest: lowest.clamp(1, start),
            held: None,
            failed: None,
        }
    }

    /// The rate to try; `None` when the search is over.
    #[must_use]
    pub fn next(&self) -> Option<u64> {
        match (self.held, self.failed) {
            (None, None) => Some(self.start),
            (Some(RATE_MAX), None) => None,
            (None, Some(failed)) if failed == self.lowest => None,
            (Some(held), None) => Some((held * 2).min(RATE_MAX)),
            (None, Some(failed)) => Some((failed / 2).max(self.lowest)),
            (Some(held), Some(failed)) => {
                let close =
                    u128::from(failed) * 1_000 <= u128::from(held) * u128::from(CLOSE_THOUSANDTHS);
                let middle = (u128::from(held) * u128::from(failed)).isqrt();
                let middle = u64::try_from(middle).expect("between two rates");
                (!close && middle > held).then_some(middle)
            }
        }
    }

    /// What `next` came to.
    pub fn learn(&mut self, rate_per_s: u64, holds: bool) {
        assert_eq!(self.next(), Some(rate_per_s), "the rate that was asked for");
        match holds {
            true => self.held = Some(rate_per_s),
            false => self.failed = Some(rate_per_s),
        }
    }

    /// The highest rate that held so far.
    #[must_use]
    pub fn held(&self) -> Option<u64> {
        self.held
    }
}

/// The reports of all rates that were tried, in that order.
#[derive(Clone, Debug, Serialize)]
#[expect(missing_docs, reason = "the names say it, units included")]
pub struct ObjectiveReport {
    pub schema: &'static str,
    pub percentile: String,
    pub limit_us: f64,
    /// The highest rate that held; `None` if none did.
    pub highest_per_s: Option<u64>,
    /// The lowest rate that did not; `None` if all did.
    pub failed_per_s: Option<u64>,
    /// Why a run did not hold; by run.
    pub missed_by: Vec<Option<String>>,
    pub runs: Vec<Report>,
}

impl ObjectiveReport {
    /// Of a search that is over.
    #[must_use]
    pub fn new(objective: Objective, search: Search, runs: Vec<Report>) -> Self {
        Self {
            schema: "ringwood.bench.slo/v1",
            percentile: objective.share.to_string(),
            limit_us: micros(objective.limit),
            highest_per_s: search.held,
            failed_per_s: search.failed,
            missed_by: runs.iter().map(|run| objective.missed_by(run)).collect(),
            runs,
        }
    }
}

impl fmt::Display for ObjectiveReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, limit_us) = (&self.percentile, self.limit_us);
        if let Some(first) = self.runs.first() {
            writeln!(
                f,
                "highest rate with {name} at most {limit_us} us: {}",
                first.conditions()
            )?;
        }
        writeln!(f, "{}", RunLine::head("rate/s"))?;
        for (run, missed_by) in self.runs.iter().zip(&self.missed_by) {
            let mut line = RunLine::of(run.rate_per_s.unwrap_or(0), run);
            line.verdict = missed_by
                .as_ref()
                .map_or("holds".into(), |why| format!("fails: {why}"));
            writeln!(f, "{line}")?;
        }
        match (self.highest_per_s, self.failed_per_s) {
            (Some(held), Some(failed)) => {
                writeln!(
                    f,
                    "{name} at most {limit_us} us: up to {held}/s; not at {failed}/s"
                )?;
            }
            (Some(held), None) => {
                writeln!(
                    f,
                    "{name} at most {limit_us} us: at all rates, up to {held}/s"
                )?;
            }
            (None, _) => writeln!(f, "{name} at most {limit_us} us: at no rate")?,
        }
        self.runs
            .first()
            .map_or(Ok(()), |first| first.write_origin(f))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::{OPEN, measured, report};

    /// What a search from `start` ends with on a cluster that holds up to `capacity`.
    fn searched(start: u64, capacity: u64) -> (Option<u64>, Vec<u64>) {
        let mut search = Search::new(start, 1);
        let mut tried = Vec::new();
        while let Some(rate) = search.next() {
            tried.push(rate);
            search.learn(rate, rate <= capacity);
        }
        (search.held(), tried)
    }

    #[test]
    fn a_search_brackets_and_then_halves() {
        assert_eq!(
            searched(1_000, 5_000),
            (
                Some(4_966),
                vec![1_000, 2_000, 4_000, 8_000, 5_656, 4_756, 5_186, 4_966]
            )
        );
    }

    #[test]
    fn a_search_ends_close_below_what_holds_wherever_it_begins() {
        for start in [1, 7, 1_000, 250_000, RATE_MAX] {
            for capacity in [1, 2, 3, 99, 1_000, 123_456, 77_777_777, RATE_MAX] {
                let (held, tried) = searched(start, capacity);
                let held = held.unwrap();
                assert!(
                    held <= capacity && held * 11 / 10 + 1 >= capacity,
                    "{start} {capacity} {held}"
                );
                assert!(
                    tried.len() <= 40,
                    "{start} {capacity}: {} runs",
                    tried.len()
                );
            }
            assert_eq!(searched(start, 0).0, None);
        }
    }

    #[test]
    fn a_search_does_not_go_where_a_step_would_take_hours() {
        let mut search = Search::new(1_000, 300);
        for rate in [1_000, 500, 300] {
            assert_eq!(search.next(), Some(rate));
            search.learn(rate, false);
        }
        assert_eq!((search.next(), search.held()), (None, None));
        assert_eq!(Search::new(5, 300).next(), Some(5));
    }

    const P99: Objective = Objective {
        share: Share::P99,
        limit: Nanos(1_000_000),
    };

    #[test]
    fn a_run_holds_only_if_it_is_valid_and_can_tell() {
        // p99 is 500.223 us of 10,000 samples.
        assert_eq!(P99.missed_by(&report(OPEN, &measured(0))), None);
        let strict = Objective {
            limit: Nanos(500_000),
            ..P99
        };
        let missed = strict.missed_by(&report(OPEN, &measured(0)));
        assert_eq!(missed.as_deref(), Some("p99 500.223 us is above 500 us"));
        let rare = Objective {
            share: Share::P999,
            ..P99
        };
        let missed = rare.missed_by(&report(OPEN, &measured(0)));
        assert_eq!(
            missed.as_deref(),
            Some("p99.9 is n/a: fewer than 100 samples above it")
        );
        let late = P99.missed_by(&report(OPEN, &measured(10))).unwrap();
        assert!(late.starts_with("invalid: 99.0"), "{late}");
    }

    #[test]
    fn a_step_lasts_as_long_as_its_percentile_needs() {
        assert_eq!(P99.duration_min(1_000), Duration::from_secs(11));
        assert_eq!(P99.rate_min(Duration::from_secs(11)), 1_000);
        let rare = Objective {
            share: Share::P9999,
            ..P99
        };
        assert_eq!(rare.duration_min(100_000), Duration::from_secs(11));
    }

    #[test]
    fn people_see_each_steps_verdict() {
        let mut search = Search::new(10_000, 1);
        search.learn(10_000, true);
        search.learn(20_000, false);
        let mut slow = report(OPEN, &measured(0));
        slow.rate_per_s = Some(20_000);
        slow.response.p99_us = Some(4_000.0);
        let runs = vec![report(OPEN, &measured(0)), slow];
        let text = ObjectiveReport::new(P99, search, runs).to_string();
        assert!(text.contains("  holds\n20000 "), "{text}");
        assert!(
            text.contains("fails: p99 4000 us is above 1000 us"),
            "{text}"
        );
        assert!(text.contains("up to 10000/s; not at 20000/s"), "{text}");
    }
}
