//! A report as people read it: a line for each thing, percentiles in columns.
//!
//! Judges nothing; what is invalid or to be known before is in the report.

use std::fmt;

use crate::histogram::Summary;
use crate::readers::Reading;
use crate::report::Report;

impl Report {
    /// What was offered, in a line.
    pub(crate) fn load(&self) -> String {
        let load = match (self.rate_per_s, &self.arrivals, self.concurrency) {
            (Some(rate), Some(arrivals), _) => format!("open loop at {rate}/s ({arrivals})"),
            (_, _, concurrency) => format!("closed loop, {} in flight", concurrency.unwrap_or(0)),
        };
        format!("{load}: {}", self.conditions())
    }

    /// Where it was measured, and by which command.
    pub(crate) fn write_origin(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.environment)?;
        write!(f, "{}", self.command)
    }

    /// The same without how much of it: what the runs of a sweep have in common.
    pub(crate) fn conditions(&self) -> String {
        let beside = match &self.readers {
            Some(Reading { readers, from, .. }) => format!(" beside {readers} from the {from}"),
            None => String::new(),
        };
        format!(
            "{} by {} producer{} to {}{beside} for {} s after {} s of warm-up, durable on a {}",
            self.payload,
            self.producers,
            if self.producers == 1 { "" } else { "s" },
            self.logs.join(", "),
            self.duration_s,
            self.warmup_s,
            self.durability
        )
    }
}

impl fmt::Display for Report {
    /// For people. A percentile with too few samples is n/a.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.load())?;
        writeln!(
            f,
            "acked      {}/s  {:.2} MiB/s  ({} appends, {} errors)",
            self.acked_per_s,
            self.bytes_per_s / f64::from(1 << 20),
            self.acked,
            self.errors
        )?;
        for (name, count) in self.errors_by.iter().filter(|(_, count)| **count > 0) {
            writeln!(f, "  {name:<9}{count}")?;
        }
        let heads = ["p50", "p90", "p99", "p99.9", "p99.99", "max"];
        write!(f, "us       ")?;
        heads.iter().try_for_each(|head| write!(f, "{head:>11}"))?;
        writeln!(f)?;
        for (name, summary) in [
            ("response", &self.response),
            ("service", &self.service),
            ("slip", &self.slip),
        ] {
            writeln!(f, "{name:<9}{}", Row(summary))?;
        }
        writeln!(
            f,
            "longest gap {:.1} ms, {:.3} s after the start; {} leader changes",
            self.longest_gap_ms, self.longest_gap_at_s, self.leader_changes
        )?;
        if let Some(readers) = &self.readers {
            writeln!(f, "{readers}")?;
        }
        writeln!(
            f,
            "generator and client: {:.2} of a core, {:.2} without looking for news",
            self.generator.cpu_share, self.generator.busy_share
        )?;
        for caution in &self.cautions {
            writeln!(f, "caution: {caution}")?;
        }
        if let Some(invalid) = &self.invalid {
            writeln!(f, "INVALID: {invalid}")?;
        }
        self.write_origin(f)
    }
}

struct Row<'a>(&'a Summary);

impl fmt::Display for Row<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Summary {
            count,
            p50_us,
            p90_us,
            p99_us,
            p999_us,
            p9999_us,
            max_us,
        } = self.0;
        let max_us = (*count > 0).then_some(*max_us);
        for value in [*p50_us, *p90_us, *p99_us, *p999_us, *p9999_us, max_us] {
            match value {
                Some(value) => write!(f, "{value:>11.1}")?,
                None => write!(f, "{:>11}", "n/a")?,
            }
        }
        Ok(())
    }
}
