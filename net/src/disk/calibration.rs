//! Which way of writing is quickest to be durable: measured on the disk itself at start, since no
//! rule holds. A drive with power-loss protection answers `RWF_DSYNC` in 11 µs; one without may
//! take 4 ms for it and 1.7 ms for write and fdatasync.
//!
//! Measured through a ring of its own, so that what is compared includes what the ring adds: a
//! sync goes through a worker thread. Knows neither journal nor load.

use std::fmt;
use std::os::fd::AsFd;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use ringwood_core::id::Nanos;
use ringwood_core::limits::SECTOR_SIZE;

use super::DiskError;
use crate::clock;
use crate::ring::{
    AlignedBuffer, File, IoError, Outcome, Ring, RingOptions, SpinMode, Token, WriteMode,
};

/// Writes of either kind that count.
const SAMPLE_COUNT: usize = 50;

/// Writes of either kind before those, that do not.
const WARM_UP_COUNT: usize = 4;

/// The scratch file: the writes go round it, as in a journal.
pub(super) const SCRATCH_SIZE: u64 = 64 * SECTOR_SIZE as u64;

/// The outcome of a calibration; `Display` is one line for the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Calibration {
    /// Median time of 4 KiB made durable by `WriteMode::Durable`; 0 if there was no room to measure.
    pub durable_median: Nanos,
    /// The same by `WriteMode::DurableBySync`.
    pub by_sync_median: Nanos,
    /// The quicker of the two, for the journal.
    pub mode: WriteMode,
    /// What the kernel says of the device.
    pub device: String,
}

impl fmt::Display for Calibration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let micros = |span: Nanos| span.0 / 1_000;
        let choice = match self.mode {
            WriteMode::DurableBySync => "write and fdatasync",
            WriteMode::Durable | WriteMode::Plain => "RWF_DSYNC",
        };
        if self.durable_median == Nanos(0) {
            let device = &self.device;
            return write!(
                f,
                "no space left to measure; using {choice}; device: {device}"
            );
        }
        write!(
            f,
            "4 KiB durable by RWF_DSYNC in {} us, by write and fdatasync in {} us (medians of \
             {SAMPLE_COUNT}); using {choice}; device: {}",
            micros(self.durable_median),
            micros(self.by_sync_median),
            self.device
        )
    }
}

impl Calibration {
    /// What is done on a disk without room for a measurement.
    pub(super) fn unmeasured(directory: &impl AsFd) -> Self {
        Self {
            durable_median: Nanos(0),
            by_sync_median: Nanos(0),
            mode: WriteMode::Durable,
            device: describe_device(directory),
        }
    }
}

/// Measures on `file`, which has `SCRATCH_SIZE` bytes, all written.
pub(super) fn measure(file: &File, path: &Path) -> Result<Calibration, DiskError> {
    let options = RingOptions {
        buffer_count: 1,
        buffer_size: 64,
        spin: SpinMode::Never,
        ..Default::default()
    };
    let mut ring = Ring::new(&options)?;
    ring.register_file(file);
    let mut page = AlignedBuffer::zeroed(SECTOR_SIZE);
    // Not zeros: some devices make those cheap.
    clock::fill_random(page.as_mut_slice());
    let page = page.into_bytes(SECTOR_SIZE);
    let mut spans = [Vec::new(), Vec::new()];
    let mut position = 0;
    for round in 0..WARM_UP_COUNT + SAMPLE_COUNT {
        // Taking turns, so that a neighbour's burst on the disk meets both.
        for (mode, spans) in [WriteMode::Durable, WriteMode::DurableBySync]
            .iter()
            .zip(&mut spans)
        {
            let span = time_write(&mut ring, file, position, &page, *mode)?;
            let span = span.map_err(|error| DiskError::Io {
                doing: "calibrating on",
                path: path.to_owned(),
                error,
            })?;
            if round >= WARM_UP_COUNT {
                spans.push(span);
            }
            position = (position + SECTOR_SIZE as u64) % SCRATCH_SIZE;
        }
    }
    let [durable_median, by_sync_median] = spans.map(median);
    let mode = match by_sync_median < durable_median {
        true => WriteMode::DurableBySync,
        false => WriteMode::Durable,
    };
    Ok(Calibration {
        durable_median,
        by_sync_median,
        mode,
        device: describe_device(file),
    })
}

fn time_write(
    ring: &mut Ring,
    file: &File,
    position: u64,
    page: &Bytes,
    mode: WriteMode,
) -> Result<Result<Nanos, IoError>, DiskError> {
    let mut completions = Vec::new();
    let started = clock::now();
    ring.write(Token(0), file, position, [page.clone()], mode);
    while ring.in_flight() > 0 {
        ring.submit_and_wait(Some(Duration::from_secs(60)), &mut completions)?;
    }
    let span = clock::now().since(started);
    let completion = completions.pop().expect("a write completes");
    Ok(completion.result.map(|outcome| {
        assert!(matches!(outcome, Outcome::Written(size) if size == page.len() as u64));
        span
    }))
}

fn median(mut spans: Vec<Nanos>) -> Nanos {
    assert!(!spans.is_empty());
    spans.sort_unstable();
    spans[spans.len() / 2]
}

/// Name and cache of the device a file or directory is on, as far as the kernel tells.
fn describe_device(file: &impl AsFd) -> String {
    let Ok(at) = rustix::fs::fstat(file) else {
        return "unknown".into();
    };
    let (major, minor) = (rustix::fs::major(at.st_dev), rustix::fs::minor(at.st_dev));
    let home = format!("/sys/dev/block/{major}:{minor}");
    let read = |name: &str| {
        // A partition's queue is its disk's.
        let tell = |path: String| std::fs::read_to_string(path).ok();
        tell(format!("{home}/{name}")).or_else(|| tell(format!("{home}/../{name}")))
    };
    let Some(words) = read("uevent") else {
        return format!("{major}:{minor}, not a disk");
    };
    let name = words
        .lines()
        .find_map(|line| line.strip_prefix("DEVNAME="))
        .unwrap_or("?");
    let mut text = name.to_owned();
    for (file, word) in [
        ("device/model", "model"),
        ("queue/write_cache", "write cache"),
        ("queue/fua", "fua"),
        ("queue/rotational", "rotational"),
    ] {
        if let Some(value) = read(file) {
            text.push_str(&format!(", {word} {}", value.trim()));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_says_both_medians_and_the_choice() {
        let calibration = Calibration {
            durable_median: Nanos(140_000),
            by_sync_median: Nanos(1_600_000),
            mode: WriteMode::Durable,
            device: "vda, fua 0".into(),
        };
        assert_eq!(
            calibration.to_string(),
            "4 KiB durable by RWF_DSYNC in 140 us, by write and fdatasync in 1600 us (medians of \
             50); using RWF_DSYNC; device: vda, fua 0"
        );
    }

    #[test]
    fn where_nothing_was_measured_the_line_says_so() {
        let calibration = Calibration {
            durable_median: Nanos(0),
            by_sync_median: Nanos(0),
            mode: WriteMode::Durable,
            device: "vda, fua 0".into(),
        };
        assert_eq!(
            calibration.to_string(),
            "no space left to measure; using RWF_DSYNC; device: vda, fua 0"
        );
    }

    #[test]
    fn the_median_is_the_middle_one() {
        assert_eq!(median([9, 1, 5].map(Nanos).to_vec()), Nanos(5));
    }
}
