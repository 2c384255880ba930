//! `Line`: the appends in flight, oldest first, and what those before them came to.
//!
//! Knows no schedule. Hop "client" of the data path.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll};

use ringwood_core::id::Nanos;
use ringwood_net::client::Outcome;
use ringwood_net::clock;

use crate::intervals::Intervals;
use crate::schedule::Window;
use crate::tally::{Instants, Tally};

#[derive(Debug)]
struct Flight<P> {
    offered: Offered,
    pending: P,
}

/// An append that was handed over.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Offered {
    /// Producer and log: appends of one lane end in their order.
    pub(crate) lane: usize,
    /// Bytes of its record.
    pub(crate) size: usize,
    pub(crate) planned: Nanos,
    pub(crate) sent: Nanos,
}

/// ```text
///   lane 0   [oldest] [ ] [ ] [ ] [newest]      only the oldest is polled
///   lane 1   [oldest] [ ] [newest]
/// ```
#[derive(Debug)]
pub(crate) struct Line<P> {
    /// By lane; those of one log are `log_count` apart.
    flights: Vec<VecDeque<Flight<P>>>,
    log_count: usize,
    in_flight_count: usize,
    sent_count: u64,
    /// Appends sent and collected: whoever polls sees by it whether anything happened.
    moved_count: u64,
    window: Window,
    tally: Tally,
}

impl<P: Future<Output = Outcome> + Unpin> Line<P> {
    pub(crate) fn new(window: Window, log_count: usize, lane_count: usize) -> Self {
        Self {
            flights: (0..lane_count).map(|_| VecDeque::new()).collect(),
            log_count,
            in_flight_count: 0,
            sent_count: 0,
            moved_count: 0,
            window,
            tally: Tally::new(window, log_count),
        }
    }

    pub(crate) fn in_flight_count(&self) -> usize {
        self.in_flight_count
    }

    /// Measured appends sent.
    pub(crate) fn sent_count(&self) -> u64 {
        self.sent_count
    }

    pub(crate) fn moved_count(&self) -> u64 {
        self.moved_count
    }

    /// From now on the response is kept by intervals, too.
    pub(crate) fn keep_intervals(&mut self) {
        self.tally.intervals = Some(Intervals::new(self.window));
    }

    /// An append was handed over.
    pub(crate) fn push(&mut self, offered: Offered, pending: P) {
        let Offered { planned, sent, .. } = offered;
        self.flights[offered.lane].push_back(Flight { offered, pending });
        self.in_flight_count += 1;
        self.moved_count += 1;
        self.sent_count += u64::from(self.window.measures(planned));
        self.tally.on_sent(planned, sent);
    }

    /// Takes all that have ended, and waits for the oldest of those that have not.
    pub(crate) fn collect(&mut self, context: &mut Context<'_>) {
        // One look at the clock for all that are found ended at once.
        let mut now = None;
        for (lane, flights) in self.flights.iter_mut().enumerate() {
            while let Some(oldest) = flights.front_mut() {
                let Poll::Ready(outcome) = Pin::new(&mut oldest.pending).poll(context) else {
                    break;
                };
                let at = Instants {
                    planned: oldest.offered.planned,
                    sent: oldest.offered.sent,
                    ended: *now.get_or_insert_with(clock::now),
                };
                let (log, size) = (lane % self.log_count, oldest.offered.size);
                self.tally.on_end(log, size, at, outcome);
                flights.pop_front();
                self.in_flight_count -= 1;
                self.moved_count += 1;
            }
        }
    }

    /// Waits for none any longer; what all came to.
    pub(crate) fn give_up(mut self, now: Nanos) -> Tally {
        for flight in self.flights.iter().flatten() {
            self.tally.on_given_up(flight.offered.planned);
        }
        self.tally.on_over(now);
        self.tally
    }
}
