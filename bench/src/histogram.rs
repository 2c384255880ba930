//! `Latencies`: a histogram of nanoseconds, and the rule which of its percentiles may be told.
//!
//! Three digits from a nanosecond to an hour, in constant memory. Knows not what was timed. Off
//! the data path.

use std::fmt;

use hdrhistogram::Histogram;
use ringwood_core::id::Nanos;
use serde::Serialize;

/// Longest span told apart: an hour. A longer one counts as an hour.
const SPAN_NS_MAX: u64 = 3_600_000_000_000;

/// Digits kept of each span.
const DIGIT_COUNT: u8 = 3;

/// A percentile with fewer samples above it is chance: a few stalls more or less would move it.
pub const BEYOND_COUNT_MIN: u64 = 100;

/// A share of all samples, in parts per hundred thousand: 99 % is 99 000. An integer, so that ranks
/// are exact.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share(pub u32);

impl Share {
    /// The median.
    pub const P50: Self = Self(50_000);
    /// Nine in ten.
    pub const P90: Self = Self(90_000);
    /// All but one in a hundred.
    pub const P99: Self = Self(99_000);
    /// All but one in a thousand.
    pub const P999: Self = Self(99_900);
    /// All but one in ten thousand.
    pub const P9999: Self = Self(99_990);

    /// How many of `count` samples are at or below the percentile, at least one.
    fn rank(self, count: u64) -> u64 {
        assert!(self.0 <= 100_000, "a share is at most the whole");
        let rank = (u128::from(count) * u128::from(self.0)).div_ceil(100_000);
        u64::try_from(rank).expect("no more than the count").max(1)
    }
}

/// How long things took.
#[derive(Clone, Debug)]
pub struct Latencies {
    histogram: Histogram<u64>,
}

impl Default for Latencies {
    fn default() -> Self {
        let histogram = Histogram::new_with_bounds(1, SPAN_NS_MAX, DIGIT_COUNT);
        Self {
            histogram: histogram.expect("the bounds are right"),
        }
    }
}

impl Latencies {
    /// Counts one span.
    pub fn record(&mut self, span: Nanos) {
        self.histogram.saturating_record(span.0);
    }

    /// Counts `count` equal spans.
    pub(crate) fn record_many(&mut self, span: Nanos, count: u64) {
        self.histogram.saturating_record_n(span.0, count);
    }

    /// The spans that occurred, to three digits, and how often; ascending.
    pub(crate) fn counts(&self) -> impl Iterator<Item = (Nanos, u64)> + '_ {
        self.histogram.iter_recorded().map(|step| {
            (
                Nanos(step.value_iterated_to()),
                step.count_since_last_iteration(),
            )
        })
    }

    /// As others' tools know it.
    pub(crate) fn histogram(&self) -> &Histogram<u64> {
        &self.histogram
    }

    /// Counts all that another histogram has.
    pub fn add(&mut self, other: &Self) {
        self.histogram
            .add(&other.histogram)
            .expect("all have the same bounds");
    }

    /// What is left without `part`, whose samples are all in here, too.
    #[must_use]
    pub fn without(&self, part: &Self) -> Self {
        let mut rest = self.clone();
        rest.histogram
            .subtract(&part.histogram)
            .expect("a part of the whole, in the same bounds");
        rest
    }

    /// Samples so far.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.histogram.len()
    }

    /// The longest span, to three digits; 0 of none.
    #[must_use]
    pub fn max(&self) -> Nanos {
        Nanos(self.histogram.max())
    }

    /// How many samples lie above a percentile's rank.
    #[must_use]
    pub fn beyond(&self, share: Share) -> u64 {
        self.count().saturating_sub(share.rank(self.count()))
    }

    /// The span that `share` of all samples do not exceed, however few they are; `None` of none.
    #[must_use]
    pub fn at(&self, share: Share) -> Option<Nanos> {
        if self.count() == 0 {
            return None;
        }
        let rank = share.rank(self.count());
        let mut seen = 0;
        // By rank and not by `value_at_quantile`, whose float product may be off by one sample.
        let step = self.histogram.iter_recorded().find(|step| {
            seen += step.count_since_last_iteration();
            seen >= rank
        });
        let span = step.map_or(self.histogram.max(), |step| step.value_iterated_to());
        Some(Nanos(span.min(self.histogram.max())))
    }

    /// As `at`, where at least `BEYOND_COUNT_MIN` samples lie above.
    #[must_use]
    pub fn percentile(&self, share: Share) -> Option<Nanos> {
        self.at(share)
            .filter(|_| self.beyond(share) >= BEYOND_COUNT_MIN)
    }

    /// What there is to tell.
    #[must_use]
    pub fn summary(&self) -> Summary {
        let told = |share| self.percentile(share).map(micros);
        Summary {
            count: self.count(),
            p50_us: told(Share::P50),
            p90_us: told(Share::P90),
            p99_us: told(Share::P99),
            p999_us: told(Share::P999),
            p9999_us: told(Share::P9999),
            max_us: micros(self.max()),
        }
    }
}

impl fmt::Display for Share {
    /// As people write it: `p99.9`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "p{}", f64::from(self.0) / 1_000.0)
    }
}

impl Summary {
    /// One of the percentiles of a summary; `None` of another, or with too few samples above it.
    #[must_use]
    pub fn at(&self, share: Share) -> Option<f64> {
        match share {
            Share::P50 => self.p50_us,
            Share::P90 => self.p90_us,
            Share::P99 => self.p99_us,
            Share::P999 => self.p999_us,
            Share::P9999 => self.p9999_us,
            Share(_) => None,
        }
    }
}

/// The percentiles that may be told, in microseconds; `None` has too few samples above it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Summary {
    pub count: u64,
    pub p50_us: Option<f64>,
    pub p90_us: Option<f64>,
    pub p99_us: Option<f64>,
    pub p999_us: Option<f64>,
    pub p9999_us: Option<f64>,
    pub max_us: f64,
}

/// A span in microseconds, to the nanosecond.
#[must_use]
pub fn micros(span: Nanos) -> f64 {
    span.0 as f64 / 1_000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn up_to(count: u64) -> Latencies {
        let mut latencies = Latencies::default();
        (1..=count).for_each(|span| latencies.record(Nanos(span)));
        latencies
    }

    #[test]
    fn a_percentile_is_told_from_a_hundred_samples_above_it_on() {
        for (share, enough) in [
            (Share::P50, 200),
            (Share::P90, 1_000),
            (Share::P99, 10_000),
            (Share::P999, 100_000),
        ] {
            assert!(up_to(enough).percentile(share).is_some(), "{share:?}");
            assert_eq!(up_to(enough).beyond(share), 100);
            let few = up_to(enough - 1);
            assert_eq!(few.percentile(share), None, "{share:?}");
            assert!(few.at(share).is_some(), "{share:?}");
        }
        let summary = up_to(10_000).summary();
        assert!(summary.p99_us.is_some() && summary.p999_us.is_none());
    }

    #[test]
    fn a_percentile_is_the_sample_of_its_rank() {
        // Below 2048 every nanosecond has its own bucket.
        let latencies = up_to(1_000);
        assert_eq!(latencies.at(Share::P50), Some(Nanos(500)));
        assert_eq!(latencies.at(Share::P90), Some(Nanos(900)));
        assert_eq!(latencies.at(Share::P99), Some(Nanos(990)));
        assert_eq!(latencies.at(Share::P9999), Some(Nanos(1_000)));
        assert_eq!(up_to(1).at(Share::P50), Some(Nanos(1)));
        assert_eq!(Latencies::default().at(Share::P50), None);
    }

    #[test]
    fn spans_keep_three_digits_up_to_an_hour_and_are_cut_there() {
        let mut latencies = Latencies::default();
        for span in [1, 1_234, 123_456_789, 3_599_000_000_000] {
            latencies.record(Nanos(span));
            let kept = latencies.max().0;
            assert!(kept.abs_diff(span) <= span / 1_000, "{span} became {kept}");
        }
        latencies.record(Nanos(u64::MAX));
        assert!(latencies.max().0 >= SPAN_NS_MAX && latencies.count() == 5);
    }

    #[test]
    fn a_share_is_named_as_people_write_it() {
        let shares = [Share::P50, Share::P999, Share::P9999];
        assert_eq!(
            shares.map(|share| share.to_string()),
            ["p50", "p99.9", "p99.99"]
        );
    }

    #[test]
    fn adding_counts_both() {
        let mut both = up_to(300);
        both.add(&up_to(100));
        assert_eq!(both.count(), 400);
        assert_eq!(both.at(Share::P50), Some(Nanos(100)));
        let rest = both.without(&up_to(300));
        assert_eq!((rest.count(), rest.max()), (100, Nanos(100)));
    }
}
