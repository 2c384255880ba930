//! `Report`: what a run came to, and what it was run on. How people read it is `page`.
//!
//! Judges whether the run may be quoted at all. Knows no clock and no target.
//!
//! In JSON the first figures are plain numbers, one key each, whenever an append was acknowledged;
//! those decided by few samples are named in `few_samples`. The percentiles of the histograms
//! further down are null where they are. Fields are only ever added.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use crate::environment::Environment;
use crate::histogram::{Share, Summary, micros};
use crate::readers::Reading;
use crate::workload::{Measured, Mode, Plan};

/// The share of the target rate that must have been acknowledged, in parts per thousand.
const ACHIEVED_MIN: f64 = 0.999;

/// A schedule slip beyond this share of the response means that the generator is part of it.
const SLIP_SHARE_MAX: f64 = 0.1;

/// A thread busier than this is what limits the rate.
const BUSY_SHARE_MAX: f64 = 0.9;

/// Halves of a run whose medians differ by a larger factor are of two different loads or clusters.
const HALVES_P50_FACTOR_MAX: f64 = 1.25;

/// The same of their 99th percentiles, which chance moves more.
const HALVES_P99_FACTOR_MAX: f64 = 1.5;

/// The same of what they acknowledged; of an open loop it is the same by its schedule.
const HALVES_ACKED_FACTOR_MAX: f64 = 1.1;

/// The report of a run.
#[derive(Clone, Debug, Serialize)]
#[expect(missing_docs, reason = "the names say it, units included")]
pub struct Report {
    pub schema: &'static str,
    /// Why the run must not be quoted; `None` where it may.
    pub invalid: Option<String>,
    /// What to know before it is.
    pub cautions: Vec<String>,
    pub mode: &'static str,
    pub rate_per_s: Option<u64>,
    /// How the appends of an open loop are spread: "even", "poisson, seed N", "bursts of N".
    pub arrivals: Option<String>,
    /// What the schedule had in the window: by chance a little more or less than the rate.
    pub offered_per_s: Option<f64>,
    pub concurrency: Option<usize>,
    pub logs: Vec<String>,
    /// The mean of the records acknowledged.
    pub payload_bytes: u64,
    /// Their size, or its distribution.
    pub payload: String,
    pub producers: usize,
    /// Of all that was left to chance.
    pub seed: u64,
    pub warmup_s: f64,
    pub duration_s: f64,
    /// What an acknowledged append has survived.
    pub durability: &'static str,
    pub planned: u64,
    pub sent: u64,
    pub acked: u64,
    pub acked_per_s: f64,
    pub bytes_per_s: f64,
    pub p50_us: Option<f64>,
    pub p90_us: Option<f64>,
    pub p99_us: Option<f64>,
    pub p999_us: Option<f64>,
    pub max_us: Option<f64>,
    /// How late the generator itself sent, of which the response has its part.
    pub slip_p99_us: Option<f64>,
    /// Which of the percentiles above have too few samples above them to mean anything.
    pub few_samples: Vec<&'static str>,
    pub errors: u64,
    /// "unknown", or the reason why an append is not in the log.
    pub errors_by: BTreeMap<&'static str, u64>,
    pub leader_changes: u64,
    pub longest_gap_ms: f64,
    /// When it began, in seconds after the first measured instant.
    pub longest_gap_at_s: f64,
    /// What was planned in the first and in the second half of the window.
    pub halves: [Half; 2],
    /// Planned to acknowledged.
    pub response: Summary,
    /// Sent to acknowledged.
    pub service: Summary,
    /// Planned to sent.
    pub slip: Summary,
    /// Who read at the same time.
    pub readers: Option<Reading>,
    pub generator: Generator,
    pub command: String,
    pub environment: Environment,
}

/// A half of a run: where they differ, the run has not come to rest.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[expect(missing_docs, reason = "the names say it, units included")]
pub struct Half {
    pub acked: u64,
    /// Planned to acknowledged; `None` has too few samples above it.
    pub p50_us: Option<f64>,
    pub p99_us: Option<f64>,
}

/// What the side that measures cost.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Generator {
    /// CPU time of the one thread of generator and client, warm-up and drain included.
    pub cpu_s: f64,
    /// The share of the run that it ran.
    pub cpu_share: f64,
    /// The same without the time in which it only looked for news: the share that it needed.
    pub busy_share: f64,
    /// CPU time for each append, client included.
    pub cpu_us_per_append: Option<f64>,
}

impl Report {
    /// Of a run of `plan` on `logs`.
    #[must_use]
    pub fn new(
        plan: &Plan,
        logs: &[String],
        measured: &Measured,
        command: String,
        environment: Environment,
    ) -> Self {
        assert_eq!(logs.len(), plan.log_count, "a name for each log");
        let tally = &measured.tally;
        let response = &tally.response;
        let at = |share| response.at(share).map(micros);
        let acked_per_s = tenth(acked_per_s(measured));
        let (mode, rate_per_s, arrivals, concurrency) = match plan.mode {
            Mode::Open {
                rate_per_s,
                arrivals,
            } => ("open", Some(rate_per_s), Some(arrivals.to_string()), None),
            Mode::Closed { concurrency } => ("closed", None, None, Some(concurrency)),
        };
        let offered_per_s = measured.planned_count as f64 / plan.duration.as_secs_f64();
        let payload_mean = tally.acked_bytes as f64 / tally.acked_count.max(1) as f64;
        let shares = [
            ("p50_us", Share::P50),
            ("p90_us", Share::P90),
            ("p99_us", Share::P99),
            ("p999_us", Share::P999),
        ];
        let few = shares
            .iter()
            .filter(|(_, share)| response.percentile(*share).is_none());
        let mut errors_by = tally.not_committed.clone();
        errors_by.insert("unknown", tally.unknown_count);
        let mut report = Self {
            schema: "ringwood.bench/v1",
            invalid: None,
            cautions: environment.cautions(),
            mode,
            rate_per_s,
            arrivals,
            offered_per_s: rate_per_s.map(|_| tenth(offered_per_s)),
            concurrency,
            logs: logs.to_vec(),
            payload_bytes: payload_mean.round() as u64,
            payload: plan.payload.to_string(),
            producers: plan.producer_count,
            seed: plan.seed,
            warmup_s: plan.warmup.as_secs_f64(),
            duration_s: plan.duration.as_secs_f64(),
            durability: "quorum",
            planned: measured.planned_count,
            sent: measured.sent_count,
            acked: tally.acked_count,
            acked_per_s,
            bytes_per_s: tenth(acked_per_s * payload_mean),
            p50_us: at(Share::P50),
            p90_us: at(Share::P90),
            p99_us: at(Share::P99),
            p999_us: at(Share::P999),
            max_us: at(Share::P50).map(|_| micros(response.max())),
            slip_p99_us: tally.slip.at(Share::P99).map(micros),
            few_samples: few.map(|(name, _)| *name).collect(),
            errors: tally.error_count(),
            errors_by,
            leader_changes: tally.leader_change_count,
            longest_gap_ms: micros(tally.longest_gap.span) / 1_000.0,
            longest_gap_at_s: micros(tally.longest_gap.began_after) / 1e6,
            halves: halves_of(measured),
            response: response.summary(),
            service: tally.service.summary(),
            slip: tally.slip.summary(),
            readers: None,
            generator: Generator::of(measured),
            command,
            environment,
        };
        report.judge();
        report
    }

    fn judge(&mut self) {
        self.invalid = self.invalidity();
        if self.mode == "closed" {
            self.cautions.push(
                "closed loop: a late append keeps the next ones from being late, so stalls hide"
                    .into(),
            );
        }
        let [first, second] = self.halves;
        let differs = |a: Option<f64>, b: Option<f64>, factor_max| match (a, b) {
            (Some(a), Some(b)) => a.max(b) > a.min(b) * factor_max,
            _ => false,
        };
        let acked = |half: Half| Some(half.acked as f64);
        for (name, a, b, factor_max) in [
            ("p50 us", first.p50_us, second.p50_us, HALVES_P50_FACTOR_MAX),
            ("p99 us", first.p99_us, second.p99_us, HALVES_P99_FACTOR_MAX),
            (
                "appends",
                acked(first),
                acked(second),
                HALVES_ACKED_FACTOR_MAX,
            ),
        ] {
            if let (true, Some(a), Some(b)) = (differs(a, b, factor_max), a, b) {
                self.cautions.push(format!(
                    "the halves differ, so this is no steady state: {name} {a}, then {b}"
                ));
            }
        }
    }

    /// All that forbids to quote the run.
    fn invalidity(&self) -> Option<String> {
        if self.acked == 0 {
            return Some("no append was acknowledged".into());
        }
        let causes = [
            self.missed_rate(),
            self.late_generator(),
            self.busy_generator(),
        ];
        let causes: Vec<String> = causes.into_iter().flatten().collect();
        (!causes.is_empty()).then(|| causes.join("; "))
    }

    fn missed_rate(&self) -> Option<String> {
        let rate = self.offered_per_s?;
        (self.acked_per_s < rate * ACHIEVED_MIN).then(|| {
            format!(
                "{:.2} % of what was planned was acknowledged in time ({}/s of {rate}/s), less than {} %",
                self.acked_per_s / rate * 100.0,
                self.acked_per_s,
                ACHIEVED_MIN * 100.0
            )
        })
    }

    /// Judged by the samples there are, few or not: nobody else vouches for the generator.
    fn late_generator(&self) -> Option<String> {
        let (slip, response) = (self.slip_p99_us?, self.p99_us?);
        (slip > response * SLIP_SHARE_MAX).then(|| {
            format!(
                "the generator itself was late: slip p99 {slip} us is above {} % of the response's, {response} us",
                SLIP_SHARE_MAX * 100.0
            )
        })
    }

    fn busy_generator(&self) -> Option<String> {
        let busy = self.generator.busy_share;
        (busy > BUSY_SHARE_MAX).then(|| {
            format!(
                "the generator's thread ran out of CPU: busy {:.0} % of the time, more than {:.0} %",
                busy * 100.0,
                BUSY_SHARE_MAX * 100.0
            )
        })
    }

    /// Of a run beside these readers.
    #[must_use]
    pub fn with_readers(self, readers: Reading) -> Self {
        Self {
            readers: Some(readers),
            ..self
        }
    }
}

fn halves_of(measured: &Measured) -> [Half; 2] {
    let tally = &measured.tally;
    let second = tally.response.without(&tally.first_half);
    [&tally.first_half, &second].map(|latencies| Half {
        acked: latencies.count(),
        p50_us: latencies.percentile(Share::P50).map(micros),
        p99_us: latencies.percentile(Share::P99).map(micros),
    })
}

impl Generator {
    fn of(measured: &Measured) -> Self {
        let acked_count = measured.tally.acked_count;
        let (cpu, elapsed) = (measured.cpu.as_secs_f64(), measured.elapsed.as_secs_f64());
        let share = |time: f64| thousandth(time / elapsed.max(f64::MIN_POSITIVE));
        // Warm-up's appends are not counted, so neither is their part of the time.
        let counted = measured.window.duration().as_secs_f64() / elapsed.max(f64::MIN_POSITIVE);
        let each = cpu * counted.min(1.0) * 1e6 / acked_count as f64;
        Self {
            cpu_s: thousandth(cpu),
            cpu_share: share(cpu),
            busy_share: share((cpu - measured.looked.as_secs_f64()).max(0.0)),
            cpu_us_per_append: (acked_count > 0).then_some(thousandth(each)),
        }
    }
}

/// Measured appends a second. An append counts where it was planned, so the last ones may end
/// beyond the window: by the usual latency they do so in any run, by more only where the cluster
/// fell behind, and then that time is needed too.
fn acked_per_s(measured: &Measured) -> f64 {
    let tally = &measured.tally;
    let usual = tally.response.at(Share::P50).unwrap_or_default();
    let last = tally.last_acked.unwrap_or(measured.window.until);
    let needed = last
        .since(measured.window.measured_from)
        .0
        .saturating_sub(usual.0);
    let span = measured.window.duration().max(Duration::from_nanos(needed));
    tally.acked_count as f64 / span.as_secs_f64()
}

fn tenth(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}

fn thousandth(value: f64) -> f64 {
    (value * 1e3).round() / 1e3
}

#[cfg(test)]
pub(crate) mod tests {
    use ringwood_core::id::Nanos;
    use ringwood_net::client::{Durability, NotCommittedReason, Outcome};
    use ringwood_net::ring::SpinMode;

    use super::*;
    use crate::environment::tests::sample;
    use crate::histogram::Latencies;
    use crate::payload::Payload;
    use crate::schedule::{Arrivals, Window};
    use crate::tally::{Instants, Tally};
    use crate::workload::DRAIN;

    fn plan(mode: Mode) -> Plan {
        Plan {
            mode,
            payload: Payload::fixed(256).unwrap(),
            seed: 1,
            warmup: Duration::from_secs(2),
            duration: Duration::from_secs(1),
            drain: DRAIN,
            log_count: 1,
            producer_count: 1,
            keeps_intervals: false,
            spin: SpinMode::default(),
        }
    }

    /// Appends every 100 us for a second, acknowledged after 500 us, but for the last
    /// `late_count`, which take a millisecond longer each than the one before.
    pub(crate) fn measured(late_count: u64) -> Measured {
        let window = Window::new(Nanos(0), Duration::ZERO, Duration::from_secs(1));
        let mut tally = Tally::new(window, 1);
        let count = 10_000;
        for number in 0..count {
            let planned = Nanos(number * 100_000);
            let late = (number + late_count).saturating_sub(count - 1) * 1_000_000;
            let at = Instants {
                planned,
                sent: planned,
                ended: Nanos(planned.0 + 500_000 + late),
            };
            let outcome = Outcome::Committed {
                offset: number,
                term: 1,
                durability: Durability::Quorum,
            };
            tally.on_sent(at.planned, at.sent);
            tally.on_end(0, 256, at, outcome);
        }
        tally.on_over(window.until);
        Measured {
            window,
            tally,
            planned_count: count,
            sent_count: count,
            cpu: Duration::from_millis(300),
            looked: Duration::from_millis(60),
            elapsed: Duration::from_secs(3),
        }
    }

    pub(crate) fn report(mode: Mode, measured: &Measured) -> Report {
        let command = "ringwood bench --rate 10000".into();
        Report::new(&plan(mode), &["log-0".into()], measured, command, sample())
    }

    pub(crate) const OPEN: Mode = Mode::Open {
        rate_per_s: 10_000,
        arrivals: Arrivals::Even,
    };

    #[test]
    fn json_has_these_fields_and_numbers_are_numbers() {
        let mut measured = measured(0);
        let at = Instants {
            planned: Nanos(7),
            sent: Nanos(8),
            ended: Nanos(9),
        };
        let overloaded = Outcome::NotCommitted(NotCommittedReason::Overloaded);
        measured.tally.on_end(0, 256, at, overloaded);
        let report = report(OPEN, &measured);
        let json = serde_json::to_string_pretty(&report).unwrap();
        assert_eq!(json + "\n", include_str!("../tests/golden/report.json"));
    }

    #[test]
    fn a_run_that_fell_behind_its_target_is_invalid() {
        assert_eq!(report(OPEN, &measured(0)).invalid, None);
        // The last append 10 ms late: the second took 10 ms more than it should.
        let behind = report(OPEN, &measured(10)).invalid.unwrap();
        assert!(behind.starts_with("99.0"), "{behind}");
        let mut lost = measured(0);
        lost.tally.acked_count -= 11;
        let lost = report(OPEN, &lost).invalid.unwrap();
        assert!(lost.starts_with("99.89 %"), "{lost}");
        assert_eq!(
            report(Mode::Closed { concurrency: 1 }, &measured(10)).invalid,
            None
        );
    }

    #[test]
    fn a_run_without_an_acknowledgement_is_invalid_and_has_no_latency() {
        let mut none = measured(0);
        none.tally = Tally::new(none.window, 1);
        none.tally.on_given_up(Nanos(0));
        for mode in [OPEN, Mode::Closed { concurrency: 1 }] {
            let report = report(mode, &none);
            assert_eq!(
                report.invalid.as_deref(),
                Some("no append was acknowledged")
            );
            assert_eq!(
                (report.p50_us, report.max_us, report.errors),
                (None, None, 1)
            );
            assert!(report.to_string().contains("INVALID"));
        }
    }

    #[test]
    fn what_makes_a_figure_doubtful_is_said() {
        let says = |report: &Report, words: &str| {
            let text = report.to_string();
            assert!(text.contains(words), "{text}");
        };
        let mut run = measured(0);
        assert_eq!(report(OPEN, &run).cautions, [""; 0]);
        says(
            &report(Mode::Closed { concurrency: 7 }, &run),
            "closed loop, 7 in flight",
        );
        says(
            &report(Mode::Closed { concurrency: 7 }, &run),
            "caution: closed loop",
        );
        // Slower in the second half, as where a disk's cache is full.
        run.tally.first_half = Latencies::default();
        (0..5_000).for_each(|_| run.tally.response.record(Nanos(900_000)));
        (0..5_000).for_each(|_| run.tally.first_half.record(Nanos(900_000)));
        says(&report(OPEN, &run), "p50 us 900.095, then 500.223");
        says(&report(OPEN, &run), "appends 5000, then 10000");
    }

    #[test]
    fn a_late_or_busy_generator_makes_a_run_invalid() {
        let mut late = measured(0);
        let causes = |run: &Measured| report(OPEN, run).invalid.unwrap_or_default();
        // p99 of the response is 500.223 us.
        late.tally.slip = Latencies::default();
        (0..10_000).for_each(|_| late.tally.slip.record(Nanos(50_000)));
        assert_eq!(causes(&late), "");
        (0..200).for_each(|_| late.tally.slip.record(Nanos(60_000)));
        assert!(causes(&late).starts_with("the generator itself was late: slip p99 60.0"));
        let mut busy = measured(0);
        busy.cpu = Duration::from_millis(2_760);
        assert_eq!(causes(&busy), "", "what it looked is not counted");
        busy.cpu = Duration::from_millis(2_790);
        assert!(causes(&busy).contains("busy 91 % of the time, more than 90 %"));
        let both = Measured {
            tally: late.tally,
            ..busy
        };
        assert_eq!(causes(&both).matches("; ").count(), 1);
    }

    #[test]
    fn people_see_na_where_samples_are_few() {
        let text = report(OPEN, &measured(0)).to_string();
        let line = text
            .lines()
            .find(|line| line.starts_with("response"))
            .unwrap();
        let words: Vec<_> = line.split_whitespace().collect();
        assert_eq!(
            words,
            ["response", "500.2", "500.2", "500.2", "n/a", "n/a", "500.2"]
        );
    }
}
