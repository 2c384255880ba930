//! `RunLine`: a run as one line of a table of runs.
//!
//! Knows not why there are many.

use std::fmt;

use crate::report::Report;

/// Name, rate, latencies, verdict.
#[derive(Clone, Debug)]
pub(crate) struct RunLine {
    pub(crate) name: String,
    pub(crate) acked_per_s: f64,
    /// p50, p99, p99.9 and max; `None` has too few samples above it.
    pub(crate) latencies_us: [Option<f64>; 4],
    pub(crate) verdict: String,
}

impl RunLine {
    /// The heading, for lines whose names are `name`s.
    pub(crate) fn head(name: &str) -> String {
        let latencies =
            ["p50 us", "p99 us", "p99.9 us", "max us"].map(|head| format!("{head:>11}"));
        format!("{name:<12}{:>12}{}  verdict", "acked/s", latencies.concat())
    }

    /// Of `run`, with its own verdict.
    pub(crate) fn of(name: impl fmt::Display, run: &Report) -> Self {
        Self {
            name: name.to_string(),
            acked_per_s: run.acked_per_s,
            latencies_us: [
                run.response.p50_us,
                run.response.p99_us,
                run.response.p999_us,
                run.max_us,
            ],
            verdict: match &run.invalid {
                Some(invalid) => format!("invalid: {invalid}"),
                None => "valid".into(),
            },
        }
    }
}

impl fmt::Display for RunLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let latencies = self.latencies_us.map(|span| match span {
            Some(span) => format!("{span:>11.1}"),
            None => format!("{:>11}", "n/a"),
        });
        let (name, acked, latencies) = (&self.name, self.acked_per_s, latencies.concat());
        let line = format!("{name:<12}{acked:>12.1}{latencies}  {}", self.verdict);
        write!(f, "{}", line.trim_end())
    }
}
