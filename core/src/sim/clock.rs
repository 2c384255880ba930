//! A node's clock: it begins anywhere and runs a little fast or slow.

use crate::id::Nanos;

/// True time runs at this rate.
pub(super) const RATE: u64 = 1024;

/// One node's clock, in one life of its process.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    /// True time when it began to count.
    since: Nanos,
    /// What it showed then.
    first: Nanos,
    rate: u64,
}

impl Clock {
    /// A clock that gains (or loses) `drift` parts in 1024.
    pub(super) fn new(since: Nanos, first: Nanos, drift: i64) -> Self {
        let rate = RATE
            .checked_add_signed(drift)
            .expect("a clock runs forward");
        assert!(rate > RATE / 2, "no clock is that slow");
        Self { since, first, rate }
    }

    /// Goes on from a later time than it showed.
    pub(super) fn jump(&mut self, now: Nanos, by: Nanos) {
        self.first = self.local(now).after(by);
        self.since = now;
    }

    /// What it shows at a true time.
    pub(super) fn local(&self, now: Nanos) -> Nanos {
        self.first
            .after(Nanos(now.since(self.since).0 * self.rate / RATE))
    }

    /// The first true time at which it shows `local`, or a later one.
    pub(super) fn true_time(&self, local: Nanos) -> Nanos {
        // Nobody plans a day ahead; the bound keeps the product small.
        let span = local.since(self.first).0.min(86_400_000_000_000);
        self.since.after(Nanos((span * RATE).div_ceil(self.rate)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_jumps_goes_on_from_there() {
        let mut clock = Clock::new(Nanos(1_000), Nanos(77_000), 10);
        let before = clock.local(Nanos(5_000));
        clock.jump(Nanos(5_000), Nanos(300));
        assert_eq!(clock.local(Nanos(5_000)), Nanos(before.0 + 300));
        assert!(clock.local(Nanos(6_000)).0 >= before.0 + 1_300);
    }

    #[test]
    fn a_deadline_is_reached_when_the_clock_shows_it() {
        for drift in [-20, -1, 0, 1, 20] {
            let clock = Clock::new(Nanos(1_000), Nanos(77_000), drift);
            for local in (77_000..2_000_000).step_by(997) {
                let now = clock.true_time(Nanos(local));
                assert!(clock.local(now) >= Nanos(local));
                assert!(clock.local(Nanos(now.0 - 2)) <= Nanos(local));
            }
        }
    }
}
