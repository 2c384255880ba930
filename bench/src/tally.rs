//! `Tally`: what a run came to, append by append.
//!
//! Counts an append where it was planned: warm-up and what was planned after the end are left out
//! of every histogram and count. Gaps and leader changes are the log's and not an append's, so
//! they count from the first measured instant on. Knows no clock and no target.

use std::collections::BTreeMap;

use ringwood_core::id::Nanos;
use ringwood_net::client::Outcome;

use crate::histogram::Latencies;
use crate::intervals::Intervals;
use crate::schedule::Window;

/// Instants of one append.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Instants {
    /// When it was due. In a closed loop: when it was sent.
    pub planned: Nanos,
    /// When it was handed over.
    pub sent: Nanos,
    /// When its end was seen.
    pub ended: Nanos,
}

/// The longest time without an acknowledgement.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Gap {
    /// How long.
    pub span: Nanos,
    /// How long after the first measured instant it began.
    pub began_after: Nanos,
}

/// Counts and histograms of a run.
#[derive(Clone, Debug)]
pub struct Tally {
    window: Window,
    /// Planned to acknowledged: what a user of the log would have waited.
    pub response: Latencies,
    /// The part of `response` that was planned before the middle of the window.
    pub first_half: Latencies,
    /// `response` by when appends ended; `None` where nobody asked for it.
    pub intervals: Option<Intervals>,
    /// Sent to acknowledged: the cluster's part of it, client included.
    pub service: Latencies,
    /// Planned to sent: the generator's part of it.
    pub slip: Latencies,
    /// Measured appends that were acknowledged.
    pub acked_count: u64,
    /// Bytes of their records.
    pub acked_bytes: u64,
    /// When the last of them was; `None` of none.
    pub last_acked: Option<Nanos>,
    /// Measured appends whose fate is unknown, given up ones among them.
    pub unknown_count: u64,
    /// Measured appends that are not in the log, by reason.
    pub not_committed: BTreeMap<&'static str, u64>,
    /// Changes of term between acknowledgements of one log.
    pub leader_change_count: u64,
    /// The longest time without any acknowledgement.
    pub longest_gap: Gap,
    /// Highest term seen, by log; 0 before the first.
    terms: Vec<u64>,
    /// The acknowledgement before, of whichever append.
    acked_before: Nanos,
}

impl Tally {
    /// Of a run over `log_count` logs.
    #[must_use]
    pub fn new(window: Window, log_count: usize) -> Self {
        assert!(log_count > 0, "a run loads a log");
        Self {
            window,
            response: Latencies::default(),
            first_half: Latencies::default(),
            intervals: None,
            service: Latencies::default(),
            slip: Latencies::default(),
            acked_count: 0,
            acked_bytes: 0,
            last_acked: None,
            unknown_count: 0,
            not_committed: BTreeMap::new(),
            leader_change_count: 0,
            longest_gap: Gap::default(),
            terms: vec![0; log_count],
            acked_before: window.measured_from,
        }
    }

    /// Measured appends that did not end well.
    #[must_use]
    pub fn error_count(&self) -> u64 {
        self.unknown_count + self.not_committed.values().sum::<u64>()
    }

    /// An append has been handed over.
    pub fn on_sent(&mut self, planned: Nanos, sent: Nanos) {
        assert!(planned <= sent, "nothing is sent before it is due");
        if self.window.measures(planned) {
            self.slip.record(sent.since(planned));
        }
    }

    /// An append of `size` bytes to `log` has ended.
    pub fn on_end(&mut self, log: usize, size: usize, at: Instants, outcome: Outcome) {
        let measured = self.window.measures(at.planned);
        match outcome {
            Outcome::Committed { term, .. } => {
                self.on_term(log, term, at.ended);
                self.note_gap(at.ended);
                if measured {
                    let response = at.ended.since(at.planned);
                    self.response.record(response);
                    if at.planned < self.window.middle() {
                        self.first_half.record(response);
                    }
                    self.service.record(at.ended.since(at.sent));
                    if let Some(intervals) = &mut self.intervals {
                        intervals.record(at.ended, response);
                    }
                    self.acked_count += 1;
                    self.acked_bytes += size as u64;
                    self.last_acked = Some(at.ended);
                }
            }
            Outcome::NotCommitted(reason) if measured => {
                *self.not_committed.entry(reason.word()).or_default() += 1;
            }
            Outcome::Unknown if measured => self.unknown_count += 1,
            Outcome::NotCommitted(_) | Outcome::Unknown => {}
        }
    }

    /// An append was not waited for any longer.
    pub fn on_given_up(&mut self, planned: Nanos) {
        if self.window.measures(planned) {
            self.unknown_count += 1;
        }
    }

    /// The run is over at `now`; silence up to then, or to the end of the window, is a gap too.
    pub fn on_over(&mut self, now: Nanos) {
        if let Some(intervals) = &mut self.intervals {
            intervals.finish(now.max(self.window.until));
        }
        let given_up = self.unknown_count > 0;
        self.note_gap(if given_up { now } else { self.window.until });
    }

    fn on_term(&mut self, log: usize, term: u64, ended: Nanos) {
        let before = self.terms[log];
        // Appends of one log may be seen to end out of order: an older term is no change.
        self.terms[log] = before.max(term);
        if before != 0 && before < term && ended >= self.window.measured_from {
            self.leader_change_count += 1;
        }
    }

    fn note_gap(&mut self, acked: Nanos) {
        let from = self.window.measured_from;
        if acked <= self.acked_before {
            return;
        }
        let span = acked.since(self.acked_before);
        if span > self.longest_gap.span {
            self.longest_gap = Gap {
                span,
                began_after: self.acked_before.since(from),
            };
        }
        self.acked_before = acked;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use ringwood_net::client::{Durability, NotCommittedReason};

    use super::*;

    fn tally() -> Tally {
        let warmup = Duration::from_nanos(100);
        Tally::new(
            Window::new(Nanos(0), warmup, Duration::from_nanos(1_000)),
            2,
        )
    }

    fn committed(term: u64) -> Outcome {
        Outcome::Committed {
            offset: 0,
            term,
            durability: Durability::Quorum,
        }
    }

    fn end(tally: &mut Tally, planned: u64, ended: u64, outcome: Outcome) {
        let (planned, sent, ended) = (Nanos(planned), Nanos(planned + 1), Nanos(ended));
        let at = Instants {
            planned,
            sent,
            ended,
        };
        tally.on_sent(planned, sent);
        tally.on_end(0, 7, at, outcome);
    }

    #[test]
    fn only_what_was_planned_in_the_window_is_counted() {
        let mut tally = tally();
        let outcomes = [
            committed(1),
            Outcome::NotCommitted(NotCommittedReason::Overloaded),
            Outcome::Unknown,
        ];
        for outcome in outcomes {
            for planned in [99, 100, 1_099, 1_100] {
                end(&mut tally, planned, 1_200, outcome);
            }
        }
        tally.on_given_up(Nanos(1_100));
        assert_eq!((tally.acked_count, tally.unknown_count), (2, 2));
        assert_eq!(tally.not_committed, [("overloaded", 2)].into());
        assert_eq!((tally.error_count(), tally.slip.count()), (4, 6));
        assert_eq!((tally.response.count(), tally.service.count()), (2, 2));
        assert_eq!(tally.response.max(), Nanos(1_100));
        assert_eq!((tally.first_half.count(), tally.acked_bytes), (1, 14));
        assert_eq!(tally.service.max(), Nanos(1_099));
        assert_eq!(tally.last_acked, Some(Nanos(1_200)));
    }

    #[test]
    fn a_leader_change_is_a_higher_term_of_the_same_log() {
        let mut tally = tally();
        let mut ack = |log, ended, term| {
            let ended = Nanos(ended);
            let at = Instants {
                planned: ended,
                sent: ended,
                ended,
            };
            tally.on_end(log, 7, at, committed(term));
            tally.leader_change_count
        };
        assert_eq!(ack(0, 10, 3), 0);
        assert_eq!(ack(0, 20, 4), 0, "a change during warm-up");
        assert_eq!(ack(1, 200, 9), 0, "another log's first");
        assert_eq!(ack(0, 300, 5), 1);
        assert_eq!(ack(0, 310, 4), 1, "a late word of the term before");
        assert_eq!(ack(0, 320, 5), 1);
        assert_eq!(ack(1, 330, 11), 2);
    }

    #[test]
    fn the_longest_gap_is_found_wherever_it_lies() {
        let acks_at = |acks: &[u64], given_up: bool| {
            let mut tally = tally();
            for at in acks {
                end(&mut tally, at - 2, *at, committed(1));
            }
            if given_up {
                tally.on_given_up(Nanos(500));
            }
            tally.on_over(Nanos(3_000));
            (tally.longest_gap.span.0, tally.longest_gap.began_after.0)
        };
        assert_eq!(acks_at(&[200, 300, 900, 1_000], false), (600, 200));
        assert_eq!(
            acks_at(&[50, 90, 800, 1_050], false),
            (700, 0),
            "at the beginning"
        );
        assert_eq!(
            acks_at(&[200, 300, 400, 500], false),
            (600, 400),
            "at the end"
        );
        assert_eq!(
            acks_at(&[200, 800, 1_900], false),
            (1_100, 700),
            "beyond the end"
        );
        assert_eq!(acks_at(&[200, 800], true), (2_200, 700), "without an end");
        assert_eq!(acks_at(&[], false), (1_000, 0), "all of it");
    }
}
