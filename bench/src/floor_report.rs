//! `FloorReport`: the machine's floor, for programs and for people, with what it was measured on.
//!
//! Knows not how it was measured. In JSON all figures are plain numbers.

use std::fmt;
use std::path::Path;

use ringwood_net::ring::SpinMode;
use serde::Serialize;

use crate::environment::Environment;
use crate::floor::{Floor, FloorOptions, Part};
use crate::histogram::micros;

/// The report of a floor.
#[derive(Clone, Debug, Serialize)]
#[expect(missing_docs, reason = "the names say it, units included")]
pub struct FloorReport {
    pub schema: &'static str,
    /// Two round trips, client to leader to follower, and a write beside two others: medians.
    pub floor_us: f64,
    /// 256 bytes to another thread over loopback, and back.
    pub round_trip: PartReport,
    /// 4 KiB made durable, alone.
    pub one_writer: PartReport,
    /// 4 KiB made durable while two others do the same.
    pub three_writers: PartReport,
    pub cautions: Vec<String>,
    /// How all of them waited.
    pub waiting: String,
    /// How writes were made durable, why so, and on which device.
    pub method: String,
    pub dir: String,
    pub command: String,
    pub environment: Environment,
}

/// One part of the floor.
#[derive(Clone, Copy, Debug, Serialize)]
#[expect(missing_docs, reason = "the names say it, units included")]
pub struct PartReport {
    /// Median of the rounds' medians.
    pub p50_us: f64,
    /// Of all samples; `None` where they are too few.
    pub p99_us: Option<f64>,
    /// The lowest and the highest of the rounds' medians: how far to trust the one between.
    pub p50_us_min: f64,
    pub p50_us_max: f64,
    pub rounds: usize,
    pub samples: u64,
}

impl FloorReport {
    /// Of a floor measured with `options`.
    #[must_use]
    pub fn new(
        floor: &Floor,
        options: &FloorOptions,
        command: String,
        environment: Environment,
    ) -> Self {
        Self {
            schema: "ringwood.floor/v1",
            floor_us: micros(floor.floor),
            round_trip: PartReport::of(&floor.round_trip),
            one_writer: PartReport::of(&floor.one_writer),
            three_writers: PartReport::of(&floor.three_writers),
            cautions: environment.cautions(),
            waiting: waiting(options.spin),
            method: floor.calibration.to_string(),
            dir: resolved(&options.dir),
            command,
            environment,
        }
    }
}

impl PartReport {
    fn of(part: &Part) -> Self {
        let (first, last) = (part.medians.first(), part.medians.last());
        Self {
            p50_us: micros(part.p50()),
            p99_us: part.p99().map(micros),
            p50_us_min: first.copied().map_or(0.0, micros),
            p50_us_max: last.copied().map_or(0.0, micros),
            rounds: part.medians.len(),
            samples: part.all.count(),
        }
    }
}

fn waiting(spin: SpinMode) -> String {
    match spin {
        SpinMode::Never => "sleeps at once".into(),
        SpinMode::Adaptive(limit) => {
            format!("looks for up to {limit:?} where that pays, then sleeps")
        }
        SpinMode::Always => "never sleeps".into(),
    }
}

fn resolved(dir: &Path) -> String {
    let resolved = dir.canonicalize().unwrap_or_else(|_| dir.to_owned());
    resolved.display().to_string()
}

impl fmt::Display for FloorReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:<44}{:>9}{:>9}   p50 by round", "us", "p50", "p99")?;
        for (name, part) in [
            ("round trip of 256 B over loopback", &self.round_trip),
            ("4 KiB durable, one writer", &self.one_writer),
            ("4 KiB durable, each of three writers", &self.three_writers),
        ] {
            let p99 = part.p99_us.map_or("n/a".into(), |p99| format!("{p99:.1}"));
            writeln!(
                f,
                "{name:<44}{:>9.1}{p99:>9}   {:.1} to {:.1}",
                part.p50_us, part.p50_us_min, part.p50_us_max
            )?;
        }
        let name = "floor: two round trips, one of three writes";
        writeln!(f, "{name:<44}{:>9.1}", self.floor_us)?;
        writeln!(f, "waiting: {}", self.waiting)?;
        writeln!(f, "{}", self.method)?;
        for caution in &self.cautions {
            writeln!(f, "caution: {caution}")?;
        }
        writeln!(f, "{}", self.environment)?;
        write!(f, "{}", self.command)
    }
}

#[cfg(test)]
mod tests {
    use ringwood_core::id::Nanos;
    use ringwood_net::disk::Calibration;
    use ringwood_net::ring::WriteMode;

    use super::*;
    use crate::environment::tests::sample;
    use crate::histogram::Latencies;

    fn part(p50: u64) -> Part {
        let mut all = Latencies::default();
        (0..10).for_each(|_| all.record(Nanos(p50)));
        let medians = [p50 - 1_000, p50, p50 + 2_000].map(Nanos).to_vec();
        Part { medians, all }
    }

    fn report() -> FloorReport {
        let floor = Floor {
            round_trip: part(12_000),
            one_writer: part(170_500),
            three_writers: part(255_000),
            floor: Nanos(279_000),
            calibration: Calibration {
                durable_median: Nanos(140_000),
                by_sync_median: Nanos(160_000),
                mode: WriteMode::Durable,
                device: "vda".into(),
            },
        };
        let options = FloorOptions::new("/nowhere/at/all");
        FloorReport::new(&floor, &options, "ringwood bench --floor".into(), sample())
    }

    #[test]
    fn figures_are_numbers_in_json_and_null_where_there_are_too_few_samples() {
        let json = serde_json::to_value(report()).unwrap();
        assert_eq!(json["schema"], "ringwood.floor/v1");
        assert_eq!(json["floor_us"], 279.0);
        let round_trip = serde_json::json!({
            "p50_us": 12.0, "p99_us": null, "p50_us_min": 11.0, "p50_us_max": 14.0,
            "rounds": 3, "samples": 10,
        });
        assert_eq!(json["round_trip"], round_trip);
        assert_eq!(json["three_writers"]["p50_us"], 255.0);
        assert_eq!(json["environment"]["cores"], 2);
    }

    #[test]
    fn people_get_the_parts_and_their_sum() {
        let text = report().to_string();
        let has = |words: &[&str]| {
            let fits = |line: &str| line.split_whitespace().collect::<Vec<_>>().ends_with(words);
            text.lines().any(fits)
        };
        assert!(
            has(&["writers", "255.0", "n/a", "254.0", "to", "257.0"]),
            "{text}"
        );
        assert!(has(&["writes", "279.0"]), "{text}");
    }
}
