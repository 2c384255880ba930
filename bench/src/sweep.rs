//! `Ladder` and `Sweep`: the same load at one rate after the other, and where its knee is.
//!
//! Below the knee more load costs little latency, above it more latency buys little load. It is
//! taken where throughput divided by latency, Kleinrock's *power*, is greatest (ICC 1979): where a
//! line from the origin touches the curve. Nothing has to be chosen for that but the percentile.
//! Knows no clock and no target.

use std::fmt;

use serde::Serialize;

use crate::report::Report;
use crate::runs::RunLine;
use crate::schedule::RATE_MAX;

/// Most rungs of a ladder: a sweep that ends today.
pub const RUNG_COUNT_MAX: usize = 200;

/// After so many invalid runs in a row the cluster is saturated, and more load shows nothing more.
const SATURATED_COUNT: usize = 2;

/// From one rate to the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rung {
    /// By a factor in thousandths: 1,500 is half as much again.
    Times(u64),
    /// By a number of appends a second.
    Plus(u64),
}

/// Rates to try, ascending.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ladder {
    rates_per_s: Vec<u64>,
}

/// Why a ladder leads nowhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LadderError {
    /// A rate of zero, or beyond what a schedule has.
    #[error("a rate is 1 to {RATE_MAX}")]
    Rate,
    /// The last rate is below the first.
    #[error("the last rate is below the first")]
    Descending,
    /// A factor of one, or nothing added.
    #[error("a step must lead to a higher rate: above x1, or above +0")]
    Flat,
    /// Too many rates.
    #[error("more than {RUNG_COUNT_MAX} rates: take larger steps")]
    Long,
}

impl Ladder {
    /// From `first` on, and not beyond `last`.
    ///
    /// # Errors
    /// `LadderError`.
    pub fn new(first: u64, last: u64, rung: Rung) -> Result<Self, LadderError> {
        if first == 0 || last > RATE_MAX {
            return Err(LadderError::Rate);
        }
        if last < first {
            return Err(LadderError::Descending);
        }
        if matches!(rung, Rung::Times(..=1_000) | Rung::Plus(0)) {
            return Err(LadderError::Flat);
        }
        let mut rates_per_s = Vec::new();
        let mut rate = first;
        while rate <= last {
            if rates_per_s.len() == RUNG_COUNT_MAX {
                return Err(LadderError::Long);
            }
            rates_per_s.push(rate);
            rate = match rung {
                // Small rates, rounded down, would stay where they are.
                Rung::Times(thousandths) => {
                    (rate.saturating_mul(thousandths) / 1_000).max(rate + 1)
                }
                Rung::Plus(step) => rate.saturating_add(step),
            };
        }
        Ok(Self { rates_per_s })
    }

    /// The rate to try after `runs`; `None` at the end, or where the cluster is saturated.
    #[must_use]
    pub fn next(&self, runs: &[Report]) -> Option<u64> {
        let invalid = |run: &&Report| run.invalid.is_some();
        match runs.iter().rev().take_while(invalid).count() {
            SATURATED_COUNT.. => None,
            _ => self.rates_per_s.get(runs.len()).copied(),
        }
    }
}

/// The reports of all rates that were tried.
#[derive(Clone, Debug, Serialize)]
#[expect(missing_docs, reason = "the names say it, units included")]
pub struct Sweep {
    pub schema: &'static str,
    /// The rate of greatest power, of the valid runs; `None` of none.
    pub knee_per_s: Option<u64>,
    /// Whether a higher rate was tried and had less power, or was invalid. Else the knee may be
    /// beyond.
    pub knee_is_inside: bool,
    /// Appends a second, divided by the p99 of the response in seconds; by run.
    pub power: Vec<Option<f64>>,
    pub runs: Vec<Report>,
}

impl Sweep {
    /// Of runs at ascending rates.
    #[must_use]
    pub fn new(runs: Vec<Report>) -> Self {
        let power: Vec<Option<f64>> = runs.iter().map(power_of).collect();
        let told = power
            .iter()
            .enumerate()
            .filter_map(|(at, power)| Some((at, (*power)?)));
        // Of equal ones the first: the same for less load.
        let knee = told.fold(None, |best: Option<(usize, f64)>, (at, power)| match best {
            Some((_, most)) if most >= power => best,
            _ => Some((at, power)),
        });
        Self {
            schema: "ringwood.bench.sweep/v1",
            knee_per_s: knee.and_then(|(at, _)| runs[at].rate_per_s),
            knee_is_inside: knee.is_some_and(|(at, _)| at + 1 < runs.len()),
            power,
            runs,
        }
    }
}

fn power_of(run: &Report) -> Option<f64> {
    let p99_s = run.p99_us.filter(|_| run.invalid.is_none())? / 1e6;
    Some((run.acked_per_s / p99_s.max(1e-9)).round())
}

impl fmt::Display for Sweep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(first) = self.runs.first() {
            writeln!(
                f,
                "open loop, one rate after the other: {}",
                first.conditions()
            )?;
        }
        writeln!(f, "{}", RunLine::head("rate/s"))?;
        for run in &self.runs {
            let rate = run.rate_per_s.unwrap_or(0);
            let mut line = RunLine::of(rate, run);
            if self.knee_per_s == run.rate_per_s {
                line.verdict.push_str(", the knee");
            }
            writeln!(f, "{line}")?;
        }
        match (self.knee_per_s, self.knee_is_inside) {
            (Some(rate), true) => writeln!(f, "knee: {rate}/s, where rate / p99 is greatest")?,
            (Some(rate), false) => writeln!(
                f,
                "knee: not below {rate}/s, the highest rate tried: rate / p99 was still growing"
            )?,
            (None, _) => writeln!(f, "knee: none, no run is valid")?,
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

    #[test]
    fn a_ladder_climbs_by_factors_or_by_sums_and_ends() {
        let rates = |first, last, rung| Ladder::new(first, last, rung).map(|l| l.rates_per_s);
        assert_eq!(
            rates(10_000, 60_000, Rung::Times(1_500)),
            Ok(vec![10_000, 15_000, 22_500, 33_750, 50_625])
        );
        assert_eq!(rates(1, 4, Rung::Times(1_001)), Ok(vec![1, 2, 3, 4]));
        assert_eq!(rates(10, 30, Rung::Plus(10)), Ok(vec![10, 20, 30]));
        assert_eq!(rates(5, 5, Rung::Times(2_000)), Ok(vec![5]));
        assert_eq!(rates(0, 5, Rung::Plus(1)), Err(LadderError::Rate));
        assert_eq!(
            rates(1, RATE_MAX + 1, Rung::Plus(1)),
            Err(LadderError::Rate)
        );
        assert_eq!(rates(6, 5, Rung::Plus(1)), Err(LadderError::Descending));
        assert_eq!(rates(1, 5, Rung::Times(1_000)), Err(LadderError::Flat));
        assert_eq!(rates(1, 5, Rung::Plus(0)), Err(LadderError::Flat));
        assert_eq!(rates(1, 201, Rung::Plus(1)), Err(LadderError::Long));
        assert_eq!(
            rates(1, 200, Rung::Plus(1)).map(|rates| rates.len()),
            Ok(200)
        );
    }

    /// A run at `rate` whose p99 is `p99_us`.
    fn run(rate: u64, p99_us: f64, valid: bool) -> Report {
        let mut run = report(OPEN, &measured(0));
        run.rate_per_s = Some(rate);
        run.acked_per_s = rate as f64;
        run.p99_us = Some(p99_us);
        run.invalid = (!valid).then(|| "too slow".into());
        run
    }

    #[test]
    fn the_knee_is_where_more_load_begins_to_cost_more_than_it_brings() {
        let curve = [
            run(10, 100.0, true),
            run(20, 110.0, true),
            run(40, 150.0, true),
            run(80, 900.0, true),
            run(160, 100.0, false),
        ];
        let sweep = Sweep::new(curve.to_vec());
        assert_eq!((sweep.knee_per_s, sweep.knee_is_inside), (Some(40), true));
        assert_eq!(sweep.power[0], Some(100_000.0));
        assert_eq!(sweep.power[4], None, "an invalid run has none");
        assert!(sweep.to_string().contains("\nknee: 40/s"), "{sweep}");
        let rising = Sweep::new(curve[..2].to_vec());
        assert_eq!(
            (rising.knee_per_s, rising.knee_is_inside),
            (Some(20), false)
        );
        assert!(rising.to_string().contains("not below 20/s"));
        let none = Sweep::new(curve[4..].to_vec());
        assert_eq!((none.knee_per_s, none.knee_is_inside), (None, false));
    }

    #[test]
    fn a_sweep_ends_after_two_invalid_runs_in_a_row() {
        let ladder = Ladder::new(1, 9, Rung::Plus(1)).unwrap();
        let (good, bad) = (run(1, 1.0, true), run(1, 1.0, false));
        let next = |runs: &[&Report]| {
            let runs: Vec<Report> = runs.iter().map(|run| (*run).clone()).collect();
            ladder.next(&runs)
        };
        assert_eq!(next(&[]), Some(1));
        assert_eq!(next(&[&bad]), Some(2));
        assert_eq!(next(&[&bad, &good, &bad]), Some(4));
        assert_eq!(next(&[&good, &bad, &bad]), None);
        assert_eq!(next(&[&good; 9]), None);
    }
}
