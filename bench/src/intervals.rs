//! `Intervals`: the response of a run second by second, and its log for other HDR tools.
//!
//! An append counts in the interval in which it ended, as such logs have it. What an interval has
//! seen is kept as the few values that occurred, and written when the run is over: nothing touches
//! a file while latencies are taken. Knows no target.

use std::io;
use std::time::{Duration, SystemTime};

use hdrhistogram::serialization::V2DeflateSerializer;
use hdrhistogram::serialization::interval_log::{IntervalLogWriterBuilder, IntervalLogWriterError};
use ringwood_core::id::Nanos;

use crate::histogram::Latencies;
use crate::schedule::Window;

/// The shortest interval.
const INTERVAL_MIN: Duration = Duration::from_secs(1);

/// Intervals of a window, at most: a day has longer ones.
const INTERVAL_COUNT_MAX: u32 = 3_600;

/// Values are nanoseconds; the column of maxima is in milliseconds, as is usual.
const MAX_VALUE_DIVISOR: f64 = 1e6;

/// Histograms of spans of time that follow each other without a hole.
#[derive(Clone, Debug)]
pub struct Intervals {
    length_ns: u64,
    /// The first measured instant.
    origin: Nanos,
    /// When the open interval began.
    began: Nanos,
    open: Latencies,
    closed: Vec<Closed>,
}

#[derive(Clone, Debug)]
struct Closed {
    began: Nanos,
    span_ns: u64,
    counts: Vec<(Nanos, u64)>,
}

impl Intervals {
    /// Of a run with that window.
    #[must_use]
    pub fn new(window: Window) -> Self {
        let length = INTERVAL_MIN.max(window.duration() / INTERVAL_COUNT_MAX);
        Self {
            length_ns: u64::try_from(length.as_nanos()).expect("a part of a run"),
            origin: window.measured_from,
            began: window.measured_from,
            open: Latencies::default(),
            closed: Vec::new(),
        }
    }

    /// A measured append ended; never before the one recorded before.
    pub fn record(&mut self, ended: Nanos, response: Nanos) {
        while ended.since(self.began).0 >= self.length_ns {
            self.close(self.length_ns);
        }
        self.open.record(response);
    }

    /// Nothing more ends after `now`.
    pub fn finish(&mut self, now: Nanos) {
        while now.since(self.began).0 >= self.length_ns {
            self.close(self.length_ns);
        }
        let rest_ns = now.since(self.began).0;
        if rest_ns > 0 {
            self.close(rest_ns);
        }
    }

    fn close(&mut self, span_ns: u64) {
        let open = std::mem::take(&mut self.open);
        self.closed.push(Closed {
            began: self.began,
            span_ns,
            counts: open.counts().collect(),
        });
        self.began = Nanos(self.began.0 + span_ns);
    }

    /// Writes the log, format 1.3 with histograms in V2 compressed; `started` is the wall clock's
    /// time of the first measured instant, `comment` a line on what this is.
    ///
    /// # Errors
    /// Where `out` does not take it.
    pub fn write(
        &self,
        out: &mut impl io::Write,
        started: SystemTime,
        comment: &str,
    ) -> io::Result<()> {
        let mut serializer = V2DeflateSerializer::new();
        let mut log = IntervalLogWriterBuilder::new()
            .add_comment(comment)
            .with_start_time(started)
            .with_base_time(started)
            .with_max_value_divisor(MAX_VALUE_DIVISOR)
            .begin_log_with(out, &mut serializer)?;
        for interval in &self.closed {
            let mut latencies = Latencies::default();
            for (span, count) in &interval.counts {
                latencies.record_many(*span, *count);
            }
            let began = Duration::from_nanos(interval.began.since(self.origin).0);
            let span = Duration::from_nanos(interval.span_ns);
            let written = log.write_histogram(latencies.histogram(), began, span, None);
            written.map_err(|error| match error {
                IntervalLogWriterError::IoError(error) => error,
                error => io::Error::other(error.to_string()),
            })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use hdrhistogram::Histogram;
    use hdrhistogram::serialization::Deserializer;
    use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};

    use super::*;
    use crate::histogram::Share;

    const SECOND: u64 = 1_000_000_000;

    fn window(duration: Duration) -> Window {
        Window::new(Nanos(5 * SECOND), Duration::ZERO, duration)
    }

    #[test]
    fn a_reader_of_such_logs_finds_every_sample_in_its_second() {
        let mut intervals = Intervals::new(window(Duration::from_secs(4)));
        let mut all = Latencies::default();
        // A thousand in the first second, none in the second, three in the third.
        for number in 0..1_000 {
            let (ended, span) = (
                Nanos(5 * SECOND + number * 999_999),
                Nanos(100_000 + number * 77),
            );
            intervals.record(ended, span);
            all.record(span);
        }
        for ended in [7 * SECOND, 7 * SECOND + 1, 8 * SECOND - 1] {
            intervals.record(Nanos(ended), Nanos(3_000_000));
            all.record(Nanos(3_000_000));
        }
        intervals.finish(Nanos(8 * SECOND + 250_000_000));
        let mut text = Vec::new();
        let started = SystemTime::UNIX_EPOCH + Duration::from_secs(1_500_000_000);
        intervals
            .write(&mut text, started, "ringwood bench")
            .unwrap();
        let shown = String::from_utf8(text.clone()).unwrap();
        assert!(shown.starts_with("#ringwood bench\n"), "{shown}");

        let mut read = Histogram::<u64>::new(3).unwrap();
        let mut found = Vec::new();
        for entry in IntervalLogIterator::new(&text) {
            match entry.unwrap() {
                LogEntry::StartTime(at) | LogEntry::BaseTime(at) => {
                    assert_eq!(at, Duration::from_secs(1_500_000_000));
                }
                LogEntry::Interval(interval) => {
                    let bytes = base64::Engine::decode(
                        &base64::engine::general_purpose::STANDARD,
                        interval.encoded_histogram(),
                    );
                    let part: Histogram<u64> = Deserializer::new()
                        .deserialize(&mut &bytes.unwrap()[..])
                        .unwrap();
                    let (began, span) = (interval.start_timestamp(), interval.duration());
                    found.push((began.as_millis(), span.as_millis(), part.len()));
                    read.add(&part).unwrap();
                }
            }
        }
        assert_eq!(
            found,
            [
                (0, 1_000, 1_000),
                (1_000, 1_000, 0),
                (2_000, 1_000, 3),
                (3_000, 250, 0)
            ]
        );
        assert_eq!(read.len(), all.count());
        let median = all.at(Share::P50).unwrap().0;
        assert_eq!(read.value_at_quantile(0.5), median);
        assert_eq!(read.max(), all.max().0);
    }

    #[test]
    fn a_day_has_no_more_intervals_than_an_hour() {
        let mut intervals = Intervals::new(window(Duration::from_secs(86_400)));
        intervals.record(Nanos(86_404 * SECOND), Nanos(1));
        intervals.finish(Nanos(86_405 * SECOND));
        assert_eq!(intervals.closed.len(), 3_600);
        assert_eq!(intervals.closed[0].span_ns, 24 * SECOND);
    }
}
