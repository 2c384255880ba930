//! All chance of a run comes from one seed: what happens next is drawn here and nowhere else.
//!
//! Whole numbers only; a decision never hangs on a rounding. Knows nothing of what it decides.

use crate::id::Nanos;

/// A seeded source of choices (splitmix64).
#[derive(Clone, Debug)]
pub(super) struct Chance {
    state: u64,
}

impl Chance {
    pub(super) fn new(seed: u64) -> Self {
        // Neighbouring seeds must not walk alike.
        Self {
            state: seed.wrapping_mul(0xd6e8_feb8_6659_fd93),
        }
    }

    pub(super) fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mixed(self.state)
    }

    /// A number below `bound`, which is not zero.
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        assert!(bound > 0, "nothing to choose from");
        ((u128::from(self.next()) * u128::from(bound)) >> 64) as u64
    }

    /// A number of `low..=high`.
    pub(super) fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high - low + 1)
    }

    /// True `count` times in 1000.
    pub(super) fn per_mille(&mut self, count: u32) -> bool {
        self.below(1000) < u64::from(count)
    }

    pub(super) fn one_in(&mut self, count: u64) -> bool {
        self.below(count) == 0
    }

    pub(super) fn pick<T: Clone>(&mut self, list: &[T]) -> T {
        list[self.below(list.len() as u64) as usize].clone()
    }

    /// A span below twice `mean`, so that it is `mean` on average.
    pub(super) fn about(&mut self, mean: Nanos) -> Nanos {
        Nanos(self.below(2 * mean.0 + 1))
    }

    /// A span that is `mean` on average and now and then many times that: exponential, but for a
    /// straight line between the powers of two.
    pub(super) fn tail(&mut self, mean: Nanos) -> Nanos {
        let halvings = u64::from(self.next().leading_zeros());
        let part = self.below(1024);
        // 1024 / ln 2: each halving is worth ln 2 of the mean.
        Nanos(mean.0 * (halvings * 1024 + part) / 1477)
    }

    /// A span of `low..=low + spread`.
    pub(super) fn spread(&mut self, low: Nanos, spread: Nanos) -> Nanos {
        low.after(Nanos(self.below(spread.0 + 1)))
    }
}

/// A number without visible pattern from one with (the end of splitmix64).
pub(super) fn mixed(number: u64) -> u64 {
    let mut mixed = number;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tail_has_its_mean_and_goes_far_beyond() {
        let mut chance = Chance::new(7);
        let mean = Nanos::from_millis(10);
        let spans: Vec<u64> = (0..100_000).map(|_| chance.tail(mean).0).collect();
        let found = spans.iter().sum::<u64>() / spans.len() as u64;
        assert!(found.abs_diff(mean.0) < mean.0 / 10, "{found}");
        assert!(spans.iter().any(|span| *span > 8 * mean.0), "no tail");
    }
}
