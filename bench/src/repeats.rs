//! `Repeats`: the same run some times over, and how far its figures can be trusted.
//!
//! One run tells what happened once. The median of some is moved by no single neighbour, and their
//! range tells what a difference between two medians must exceed to mean anything. Knows no clock
//! and no target.

use std::fmt;

use serde::Serialize;

use crate::report::Report;
use crate::runs::RunLine;

/// The reports of equal runs, one after the other, and what they have in common.
#[derive(Clone, Debug, Serialize)]
#[expect(missing_docs, reason = "the names say it, units included")]
pub struct Repeats {
    pub schema: &'static str,
    /// Which runs must not be quoted; `None` where all may.
    pub invalid: Option<String>,
    pub acked_per_s: Spread,
    /// Of the percentiles that every run can tell; `None` where one cannot.
    pub p50_us: Option<Spread>,
    pub p90_us: Option<Spread>,
    pub p99_us: Option<Spread>,
    pub p999_us: Option<Spread>,
    pub max_us: Option<Spread>,
    pub longest_gap_ms: Spread,
    pub runs: Vec<Report>,
}

/// One figure of all runs.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Spread {
    pub min: f64,
    /// Of an even number the lower of the two in the middle: a figure that was measured.
    pub median: f64,
    pub max: f64,
}

impl Spread {
    /// `None` of none.
    #[must_use]
    pub fn of(figures: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut figures: Vec<f64> = figures.into_iter().collect();
        figures.sort_unstable_by(f64::total_cmp);
        Some(Self {
            min: *figures.first()?,
            median: figures[(figures.len() - 1) / 2],
            max: *figures.last()?,
        })
    }
}

impl Repeats {
    /// Of `runs`, in the order in which they were made.
    ///
    /// # Panics
    /// If there is none.
    #[must_use]
    pub fn new(runs: Vec<Report>) -> Self {
        let all = |figure: fn(&Report) -> f64| {
            Spread::of(runs.iter().map(figure)).expect("a run is repeated at least once")
        };
        let told = |figure: fn(&Report) -> Option<f64>| {
            let figures: Option<Vec<f64>> = runs.iter().map(figure).collect();
            figures.and_then(Spread::of)
        };
        Self {
            schema: "ringwood.bench.repeats/v1",
            invalid: invalidity(&runs),
            acked_per_s: all(|run| run.acked_per_s),
            p50_us: told(|run| run.response.p50_us),
            p90_us: told(|run| run.response.p90_us),
            p99_us: told(|run| run.response.p99_us),
            p999_us: told(|run| run.response.p999_us),
            max_us: told(|run| run.max_us),
            longest_gap_ms: all(|run| run.longest_gap_ms),
            runs,
        }
    }
}

fn invalidity(runs: &[Report]) -> Option<String> {
    let number = |(at, run): (usize, &Report)| run.invalid.is_some().then(|| (at + 1).to_string());
    let numbers: Vec<String> = runs.iter().enumerate().filter_map(number).collect();
    (!numbers.is_empty()).then(|| format!("of {} runs: {}", runs.len(), numbers.join(", ")))
}

impl fmt::Display for Repeats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let first = self.runs.first().expect("judged when it was made");
        writeln!(f, "{}", first.load())?;
        writeln!(f, "{}", RunLine::head("run"))?;
        for (at, run) in self.runs.iter().enumerate() {
            writeln!(f, "{}", RunLine::of(at + 1, run))?;
        }
        for (name, pick) in [
            ("min", (|spread| spread.min) as fn(Spread) -> f64),
            ("median", |spread| spread.median),
            ("max", |spread| spread.max),
        ] {
            let line = RunLine {
                name: name.into(),
                acked_per_s: pick(self.acked_per_s),
                latencies_us: [self.p50_us, self.p99_us, self.p999_us, self.max_us]
                    .map(|spread| spread.map(pick)),
                verdict: String::new(),
            };
            writeln!(f, "{line}")?;
        }
        if let Some(invalid) = &self.invalid {
            writeln!(f, "INVALID: {invalid}")?;
        }
        first.write_origin(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::{OPEN, measured, report};

    #[test]
    fn the_median_is_a_figure_that_was_measured() {
        let spread =
            |figures: &[f64]| Spread::of(figures.iter().copied()).map(|s| (s.min, s.median, s.max));
        assert_eq!(spread(&[]), None);
        assert_eq!(spread(&[3.0]), Some((3.0, 3.0, 3.0)));
        assert_eq!(spread(&[9.0, 1.0, 4.0]), Some((1.0, 4.0, 9.0)));
        assert_eq!(spread(&[9.0, 1.0, 4.0, 2.0]), Some((1.0, 2.0, 9.0)));
    }

    #[test]
    fn one_bad_run_is_named_and_moves_no_median() {
        let runs = [0, 10, 0].map(|late_count| report(OPEN, &measured(late_count)));
        let repeats = Repeats::new(runs.to_vec());
        assert_eq!(repeats.invalid.as_deref(), Some("of 3 runs: 2"));
        assert_eq!(repeats.acked_per_s.median, 10_000.0);
        assert!(repeats.acked_per_s.min < 10_000.0);
        assert_eq!(repeats.p999_us, None, "no run can tell");
        assert_eq!(repeats.p99_us.map(|spread| spread.median), Some(500.223));
        let text = repeats.to_string();
        let words = |name: &str| {
            let line = text.lines().find(|line| line.starts_with(name));
            line.map(|line| {
                line.split_whitespace()
                    .take(5)
                    .collect::<Vec<_>>()
                    .join(" ")
            })
        };
        assert_eq!(
            words("median").as_deref(),
            Some("median 10000.0 500.2 500.2 n/a")
        );
        assert!(text.contains("INVALID: of 3 runs: 2"), "{text}");
    }
}
