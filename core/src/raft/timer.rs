//! When something is due: the times a shard measured, deadlines by name, and a little chance.
//!
//! Reads no clock: every moment is an argument.

use crate::id::Nanos;

/// The timeout T and what goes with it, measured by the shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Timeouts {
    /// T: silence of a leader, or of a quorum, that ends a leadership.
    pub election: Nanos,
    /// A voter that heard its leader this recently gives no vote to another: the shortest T of all
    /// nodes, which heartbeats follow. A voter that was frozen has a long T of its own, and must
    /// not keep the others from replacing a leader that they know to be silent.
    pub patience: Nanos,
    /// Elections begin up to this much later than T, each node by chance.
    pub spread: Nanos,
    /// Between two heartbeats of a leader: a fifth of T.
    pub heartbeat: Nanos,
    /// Slow round trip (p99) to the nearest quorum; 0 when not yet measured.
    pub rtt: Nanos,
}

impl Timeouts {
    /// Before anything is measured: elections after 150 to 300 ms.
    pub const DEFAULT: Self = Self {
        election: Nanos::from_millis(150),
        patience: Nanos::from_millis(150),
        spread: Nanos::from_millis(150),
        heartbeat: Nanos::from_millis(30),
        rtt: Nanos(0),
    };

    /// Between the ranks of nodes that all saw their leader's process gone, so that the votes of
    /// one are counted before the next one asks: a few round trips, and room for a slow disk.
    pub(super) fn rank_step(&self) -> Nanos {
        Nanos((3 * self.rtt.0).max(Nanos::from_millis(3).0))
    }

    /// Silence about sent blocks after which they count as lost.
    pub(super) fn resend(&self) -> Nanos {
        Nanos((2 * self.heartbeat.0).max(4 * self.rtt.0))
    }

    pub(super) fn assert_sane(&self) {
        assert!(
            self.election.0 > 0,
            "an election timeout of zero would depose every leader"
        );
        assert!(self.heartbeat.0 > 0, "heartbeats need a pause");
        assert!(
            self.heartbeat < self.patience && self.patience <= self.election,
            "a leader must be heard within T"
        );
    }
}

/// What a node may wait for. What is due for a peer stands in its progress.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Timer {
    /// Begin an election (thesis 3.4), or begin it again.
    Election,
    /// Give up a leadership transfer (thesis 3.10).
    Transfer,
    /// Ask the other voters what they know, in doubt.
    Report,
}

/// Deadlines by timer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Timers {
    deadlines: [Option<Nanos>; 3],
}

impl Timers {
    pub(super) fn set(&mut self, timer: Timer, deadline: Nanos) {
        self.deadlines[timer as usize] = Some(deadline);
    }

    pub(super) fn stop(&mut self, timer: Timer) {
        self.deadlines[timer as usize] = None;
    }

    pub(super) fn deadline(&self, timer: Timer) -> Option<Nanos> {
        self.deadlines[timer as usize]
    }

    pub(super) fn is_due(&self, timer: Timer, now: Nanos) -> bool {
        self.deadline(timer).is_some_and(|deadline| deadline <= now)
    }

    pub(super) fn next(&self) -> Option<Nanos> {
        self.deadlines.iter().flatten().min().copied()
    }
}

/// Chance from a seed (splitmix64), so that a run can be repeated.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Chance {
    state: u64,
}

impl Chance {
    pub(super) fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    pub(super) fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A span of at least zero and less than `bound`; zero for a bound of zero.
    pub(super) fn below(&mut self, bound: Nanos) -> Nanos {
        let wide = u128::from(self.next()) * u128::from(bound.0);
        Nanos((wide >> 64) as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chance_stays_below_its_bound_and_spreads() {
        let mut chance = Chance::new(7);
        let mut low_count = 0;
        for _ in 0..1000 {
            let span = chance.below(Nanos(1000));
            assert!(span < Nanos(1000));
            low_count += usize::from(span < Nanos(500));
        }
        assert!((400..600).contains(&low_count), "{low_count}");
        assert_eq!(chance.below(Nanos(0)), Nanos(0));
    }

    #[test]
    fn the_nearest_deadline_is_next() {
        let mut timers = Timers::default();
        assert_eq!(timers.next(), None);
        timers.set(Timer::Transfer, Nanos(5));
        timers.set(Timer::Election, Nanos(3));
        assert_eq!(timers.next(), Some(Nanos(3)));
        assert!(timers.is_due(Timer::Election, Nanos(3)));
        assert!(!timers.is_due(Timer::Transfer, Nanos(4)));
        timers.stop(Timer::Election);
        assert_eq!(timers.next(), Some(Nanos(5)));
    }
}
