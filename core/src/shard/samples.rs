//! How often a measured quantity had which value lately, for quantiles: constant memory, each value
//! known to an eighth of itself.
//!
//! Knows no clock: whoever measures says when a window is over.

use crate::id::Nanos;

/// Buckets to each doubling: a value is known to an eighth of itself.
const BUCKETS_PER_DOUBLING: u32 = 8;
/// Buckets in all; the last takes everything from 2^36 ns (69 s) on.
const BUCKET_COUNT: usize = (37 * BUCKETS_PER_DOUBLING) as usize;

/// How often a quantity had which value, over one window.
#[derive(Clone, Debug)]
struct Counts {
    buckets: Box<[u32; BUCKET_COUNT]>,
    total: u32,
    /// No bucket above it has counted anything.
    highest: usize,
}

impl Counts {
    fn new() -> Self {
        Self {
            buckets: Box::new([0; BUCKET_COUNT]),
            total: 0,
            highest: 0,
        }
    }

    fn clear(&mut self) {
        self.buckets.fill(0);
        self.total = 0;
        self.highest = 0;
    }
}

fn bucket_of(value: u64) -> usize {
    if value < u64::from(BUCKETS_PER_DOUBLING) {
        return value as usize;
    }
    let doubling = value.ilog2();
    let within = (value >> (doubling - 3)) as u32 & (BUCKETS_PER_DOUBLING - 1);
    ((doubling - 2) * BUCKETS_PER_DOUBLING + within).min(BUCKET_COUNT as u32 - 1) as usize
}

/// The highest value that falls into a bucket.
fn top_of(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    let (doubling, within) = (bucket / 8, bucket % 8);
    if doubling == 0 {
        within
    } else {
        ((9 + within) << (doubling - 1)) - 1
    }
}

/// The samples of one quantity in the last one to two windows.
#[derive(Debug)]
pub(super) struct Samples {
    current: Counts,
    previous: Counts,
}

impl Samples {
    pub(super) fn new() -> Self {
        Self {
            current: Counts::new(),
            previous: Counts::new(),
        }
    }

    pub(super) fn record(&mut self, value: Nanos) {
        let bucket = bucket_of(value.0);
        self.current.buckets[bucket] += 1;
        self.current.total += 1;
        self.current.highest = self.current.highest.max(bucket);
    }

    /// A window is over.
    pub(super) fn rotate(&mut self) {
        std::mem::swap(&mut self.current, &mut self.previous);
        self.current.clear();
    }

    pub(super) fn count(&self) -> u32 {
        self.current.total + self.previous.total
    }

    /// The value that at most `1000 - per_mille` in a thousand samples lie above; zero when there
    /// are none.
    pub(super) fn quantile(&self, per_mille: u64) -> Nanos {
        assert!(per_mille <= 1000);
        let above_max = u64::from(self.count()) * (1000 - per_mille) / 1000;
        let mut above = 0;
        let highest = self.current.highest.max(self.previous.highest);
        for bucket in (0..=highest).rev() {
            let count = self.current.buckets[bucket] + self.previous.buckets[bucket];
            above += u64::from(count);
            if above > above_max {
                return Nanos(top_of(bucket));
            }
        }
        Nanos(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_holds_its_value_to_an_eighth() {
        let mut last = 0;
        for value in (0..5_000).chain((0..30).map(|shift| 7_654_321 << shift >> 4)) {
            let bucket = bucket_of(value);
            if value >= last && value < 5_000 {
                assert!(bucket >= bucket_of(last), "buckets ascend");
                last = value;
            }
            if bucket + 1 < BUCKET_COUNT {
                let top = top_of(bucket);
                assert!(
                    top >= value && top <= value + value / 8,
                    "{value} in {bucket}: {top}"
                );
            }
        }
        assert_eq!(bucket_of(u64::MAX), BUCKET_COUNT - 1);
    }
}
