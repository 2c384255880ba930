//! Many seeds on all cores: who plays which, and what they come to together.
//!
//! A run is played by one thread from its first event to its last, and knows of no other: the sum
//! over all of them is the same whatever the number of threads.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use ringwood_core::sim::{self, Failure, Marks, Report};

use super::Change;
use crate::panics;

/// Between two looks of the progress bar.
const LOOK_INTERVAL: Duration = Duration::from_millis(250);

/// Which seeds, and how many at a time.
#[derive(Debug)]
pub(super) struct Campaign {
    pub(super) first: u64,
    pub(super) count: u64,
    pub(super) thread_count: usize,
}

/// What they came to.
#[derive(Debug, Default)]
pub(super) struct Totals {
    pub(super) seed_count: u64,
    pub(super) event_count: u64,
    pub(super) simulated: Duration,
    pub(super) wall: Duration,
    pub(super) marks: Marks,
    pub(super) trace_sum: u128,
    /// The lowest seed of those that failed.
    pub(super) failure: Option<Box<Failure>>,
}

/// What one came to, and how long its own clock ran.
struct Outcome {
    seed: u64,
    simulated: Duration,
    result: Result<Report, Box<Failure>>,
}

impl Campaign {
    /// Plays them all, or until one fails or nobody wants more: what was begun is played to its end.
    pub(super) fn play(&self, change: &Change, is_enough: &AtomicBool) -> Totals {
        let started = Instant::now();
        let (next, is_over) = (AtomicU64::new(0), AtomicBool::new(false));
        let (sender, outcomes) = mpsc::channel();
        let bar = bar(self.count);
        let mut totals = Totals::default();
        thread::scope(|scope| {
            for _ in 0..self.thread_count {
                let sender = sender.clone();
                scope.spawn(|| {
                    let sender = sender;
                    change.arm();
                    while !is_over.load(Ordering::Relaxed) && !is_enough.load(Ordering::Relaxed) {
                        let number = next.fetch_add(1, Ordering::Relaxed);
                        if number >= self.count {
                            break;
                        }
                        let outcome = outcome(self.first.wrapping_add(number), change);
                        if sender.send(outcome).is_err() {
                            break;
                        }
                    }
                });
            }
            drop(sender);
            for outcome in outcomes {
                if outcome.result.is_err() {
                    is_over.store(true, Ordering::Relaxed);
                }
                totals.add(outcome);
                totals.wall = started.elapsed();
                bar.set_position(totals.seed_count);
                bar.set_message(totals.progress());
            }
        });
        bar.finish_and_clear();
        totals
    }
}

fn outcome(seed: u64, change: &Change) -> Outcome {
    let swarm = change.applied(seed);
    let result = panics::expected(|| sim::run(&swarm, None));
    let simulated = match &result {
        Ok(report) => swarm.fault_span.0 + report.heal_span.0,
        Err(failure) => failure.at.0,
    };
    Outcome {
        seed,
        simulated: Duration::from_nanos(simulated),
        result,
    }
}

/// On stderr, and only if that is a terminal.
fn bar(count: u64) -> ProgressBar {
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len} seeds  {msg}  {eta} left");
    let bar = ProgressBar::new(count).with_style(style.expect("a template that was tried"));
    bar.enable_steady_tick(LOOK_INTERVAL);
    bar
}

impl Totals {
    fn add(&mut self, outcome: Outcome) {
        self.seed_count += 1;
        self.simulated += outcome.simulated;
        let (marks, trace_sum, event_count) = match &outcome.result {
            Ok(report) => (&report.marks, report.trace_sum, report.event_count),
            Err(failure) => (&failure.marks, failure.trace_sum, failure.event),
        };
        self.marks.add(marks);
        self.event_count += event_count;
        // Told by seed, but summed in any order.
        let factor = u128::from(outcome.seed) * 2 + 1;
        self.trace_sum = self.trace_sum.wrapping_add(trace_sum.wrapping_mul(factor));
        if let Err(failure) = outcome.result
            && self
                .failure
                .as_ref()
                .is_none_or(|before| failure.seed < before.seed)
        {
            self.failure = Some(failure);
        }
    }

    /// Seeds played a second.
    pub(super) fn seeds_per_s(&self) -> f64 {
        self.seed_count as f64 / self.wall.as_secs_f64().max(1e-9)
    }

    /// What did not happen in any of them.
    pub(super) fn never(&self) -> Vec<&'static str> {
        let list = self.marks.list().into_iter();
        list.filter(|(_, count)| *count == 0)
            .map(|(name, _)| name)
            .collect()
    }

    fn progress(&self) -> String {
        let mark_count = self.marks.list().len();
        format!(
            "{:.1}/s  {} of {mark_count} marks",
            self.seeds_per_s(),
            mark_count - self.never().len()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::super::Size;
    use super::*;

    fn change() -> Change {
        Change {
            size: Size::Quick,
            span: Some(ringwood_core::id::Nanos(50_000_000)),
            node_count: None,
            without: Vec::new(),
            #[cfg(feature = "bugs")]
            bug: None,
        }
    }

    #[test]
    fn the_sum_does_not_depend_on_the_number_of_threads() {
        let sums: Vec<_> = [1, 3]
            .map(|thread_count| {
                let campaign = Campaign {
                    first: 40,
                    count: 12,
                    thread_count,
                };
                let totals = campaign.play(&change(), &AtomicBool::new(false));
                assert!(totals.failure.is_none(), "{:?}", totals.failure);
                assert_eq!(totals.seed_count, 12);
                (totals.trace_sum, totals.event_count)
            })
            .into();
        assert_eq!(sums[0], sums[1]);
        let other = Campaign {
            first: 41,
            count: 12,
            thread_count: 2,
        };
        let totals = other.play(&change(), &AtomicBool::new(false));
        assert_ne!(totals.trace_sum, sums[0].0);
        let totals = other.play(&change(), &AtomicBool::new(true));
        assert_eq!(totals.seed_count, 0, "nobody wants any");
    }
}
