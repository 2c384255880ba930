//! What `doctor` looks at, one check each, and how it judges.
//!
//! A check looks once and judges by a function of what it saw, so that every verdict can be tried
//! without the machine that deserves it. Knows no format.

use std::fs::read_to_string;
use std::path::Path;

use ringwood_bench::floor::{self, Floor, FloorError, FloorOptions};
use ringwood_bench::histogram::micros;
use ringwood_core::id::Nanos;
use ringwood_core::limits::{CLIENT_COUNT_MAX, STRANGER_COUNT_MAX};
use ringwood_net::ring::{Ring, RingOptions, Use};
use rustix::process::{Resource, getrlimit};
use serde::Serialize;

use crate::exit::Failure;

/// The oldest kernel whose io_uring has what a node needs.
const KERNEL_MIN: (u32, u32) = (6, 1);

/// Descriptors of a node that has all the clients it takes: those, its segments, and some.
const DESCRIPTOR_COUNT: u64 = (CLIENT_COUNT_MAX + STRANGER_COUNT_MAX) as u64 + 512 + 64;

/// A node that is short of these does not open its own files.
const DESCRIPTOR_COUNT_MIN: u64 = 256;

/// Clocks that are read without entering the kernel.
const QUICK_CLOCKS: [&str; 4] = [
    "tsc",
    "kvm-clock",
    "arch_sys_counter",
    "hyperv_clocksource_tsc_page",
];

/// A disk that takes longer for 4 KiB makes every append wait for it.
const DURABLE_SLOW: Nanos = Nanos(5_000_000);

/// A disk whose rounds differ by this factor is shared with somebody.
const ROUNDS_FACTOR_MAX: u64 = 3;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum State {
    /// As it should be.
    Ok,
    /// A node runs, but not as well as it could.
    Warn,
    /// A node does not run, or must not be relied on.
    Bad,
}

/// What a check came to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Finding {
    pub(super) check: &'static str,
    pub(super) state: State,
    /// What was seen.
    pub(super) finding: String,
    /// Why that matters; `None` where all is well.
    pub(super) cause: Option<String>,
    /// What helps.
    pub(super) fix: Option<String>,
}

impl Finding {
    fn ok(check: &'static str, finding: impl Into<String>) -> Self {
        Self {
            check,
            state: State::Ok,
            finding: finding.into(),
            cause: None,
            fix: None,
        }
    }

    fn but(self, state: State, cause: impl Into<String>, fix: impl Into<String>) -> Self {
        assert_ne!(state, State::Ok, "what is well has no cause");
        Self {
            state,
            cause: Some(cause.into()),
            fix: Some(fix.into()),
            ..self
        }
    }

    fn of_failure(check: &'static str, failure: &Failure) -> Self {
        let text = failure.to_string();
        let text = text.strip_prefix("error: ").unwrap_or(&text);
        let (cause, fix) = text
            .split_once("\n  fix: ")
            .unwrap_or((text, "see the kernel's log (dmesg)"));
        Self::ok(check, "a node does not start").but(State::Bad, cause, fix)
    }
}

/// The kernel's release.
pub(super) fn kernel(release: &str) -> Finding {
    let found = Finding::ok("kernel", format!("Linux {release}"));
    let mut numbers = release
        .split(|c: char| !c.is_ascii_digit())
        .map(str::parse::<u32>);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) if (major, minor) >= KERNEL_MIN => found,
        _ => found.but(
            State::Bad,
            "io_uring lacks what a node needs before Linux 6.1",
            "run on Linux 6.1 or later",
        ),
    }
}

/// Whether there is a ring, and which of its levers are not used.
pub(super) fn io_uring() -> Finding {
    let ring = match Ring::new(&RingOptions::default()) {
        Ok(ring) => ring,
        Err(error) => return Finding::of_failure("io_uring", &crate::refusal::of_ring(&error)),
    };
    let unused = ring
        .probe()
        .levers()
        .filter_map(|(lever, state)| match state {
            Use::Used => None,
            Use::Unused(why) => Some(format!("without {lever:?}: {why}")),
        });
    let unused: Vec<String> = unused.collect();
    Finding::ok(
        "io_uring",
        ["allowed".to_owned()]
            .into_iter()
            .chain(unused)
            .collect::<Vec<_>>()
            .join("; "),
    )
}

/// Whether memory that was checked may come back changed from a swap device.
pub(super) fn memlock() -> Finding {
    let limit = getrlimit(Resource::Memlock).current;
    let swaps = read_to_string("/proc/swaps").unwrap_or_default();
    judge_memlock(limit, swaps.lines().nth(1).is_some())
}

fn judge_memlock(limit: Option<u64>, has_swap: bool) -> Finding {
    let shown = limit.map_or("unlimited".into(), |size| format!("{} KiB", size >> 10));
    let swap = if has_swap { "swap is on" } else { "no swap" };
    let found = Finding::ok("memlock", format!("{shown}, {swap}"));
    match limit.is_some() && has_swap {
        false => found,
        true => found.but(
            State::Warn,
            "a node locks its memory only where it may without bound; what is swapped out nobody checks",
            "LimitMEMLOCK=infinity in the unit (ulimit -l unlimited), or swapoff",
        ),
    }
}

/// Whether there are descriptors for all clients.
pub(super) fn nofile() -> Finding {
    judge_nofile(getrlimit(Resource::Nofile).current)
}

fn judge_nofile(limit: Option<u64>) -> Finding {
    let shown = limit.map_or("unlimited".into(), |count| count.to_string());
    let found = Finding::ok("nofile", format!("{shown} descriptors"));
    let fix = format!("LimitNOFILE={DESCRIPTOR_COUNT} in the unit (ulimit -n)");
    match limit {
        Some(..DESCRIPTOR_COUNT_MIN) => {
            found.but(State::Bad, "too few for a node's own files", fix)
        }
        Some(..DESCRIPTOR_COUNT) => found.but(
            State::Warn,
            format!("fewer than {CLIENT_COUNT_MAX} clients will be let in"),
            fix,
        ),
        _ => found,
    }
}

/// What time is read from.
pub(super) fn clock_source() -> Finding {
    let path = "/sys/devices/system/clocksource/clocksource0/current_clocksource";
    judge_clock_source(read_to_string(path).unwrap_or_default().trim())
}

fn judge_clock_source(name: &str) -> Finding {
    match name {
        "" => Finding::ok("clock", "the kernel does not say"),
        name if QUICK_CLOCKS.contains(&name) => Finding::ok("clock", name),
        name => Finding::ok("clock", name).but(
            State::Warn,
            "each look at this clock enters the kernel, a microsecond or more; a node looks every turn",
            "clocksource=tsc on the kernel's command line, where the processor's is stable (dmesg)",
        ),
    }
}

/// Who decides how fast the processor runs.
pub(super) fn governor() -> Finding {
    let path = "/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor";
    judge_governor(read_to_string(path).unwrap_or_default().trim())
}

fn judge_governor(name: &str) -> Finding {
    match name {
        "" => Finding::ok("governor", "none here: the host decides, or nobody"),
        "performance" => Finding::ok("governor", name),
        name => Finding::ok("governor", name).but(
            State::Warn,
            "a core that slept is slow when it wakes, which is charged to single appends",
            "cpupower frequency-set -g performance",
        ),
    }
}

/// Whether others compete, by what the environment has to say.
pub(super) fn load(load_average: f64, cores: usize) -> Finding {
    let found = Finding::ok("load", format!("{load_average} on {cores} cores"));
    match load_average > cores as f64 / 2.0 {
        false => found,
        true => found.but(
            State::Warn,
            "others compete for the processor: figures taken now are theirs, too",
            "measure when the machine is quiet",
        ),
    }
}

/// Whether a journal can live in `dir`, how fast it would be, and the floor of an append.
pub(super) fn disk(dir: &Path) -> Result<(Finding, Option<Floor>), FloorError> {
    let mut options = FloorOptions::new(dir);
    // Two seconds: enough to tell a fast disk from a slow one.
    (options.round_count, options.sample_count) = (5, 300);
    match floor::measure(&options) {
        Ok(floor) => Ok((judge_disk(&floor), Some(floor))),
        Err(FloorError::Disk(error)) => Ok((
            Finding::of_failure("disk", &crate::refusal::of_disk(&error)),
            None,
        )),
        Err(FloorError::Ring(_)) => {
            let found = Finding::ok("disk", "not measured");
            let cause = "a disk is measured through io_uring";
            Ok((found.but(State::Bad, cause, "mend io_uring first"), None))
        }
        Err(error) => Err(error),
    }
}

fn judge_disk(floor: &Floor) -> Finding {
    let (one, three) = (&floor.one_writer, &floor.three_writers);
    let found = Finding::ok(
        "disk",
        format!(
            "direct I/O; 4 KiB durable in {:.0} us, beside two others in {:.0} us; floor of an append {:.0} us; {}",
            micros(one.p50()),
            micros(three.p50()),
            micros(floor.floor),
            floor.calibration.device
        ),
    );
    let (least, most) = (one.medians[0], one.medians[one.medians.len() - 1]);
    if one.p50() > DURABLE_SLOW {
        return found.but(
            State::Warn,
            format!(
                "every append waits for the disk, more than {:.0} ms each",
                micros(DURABLE_SLOW) / 1e3
            ),
            "a device whose cache survives a power cut (PLP), or a disk without a spindle",
        );
    }
    match most.0 > least.0 * ROUNDS_FACTOR_MAX {
        false => found,
        true => found.but(
            State::Warn,
            format!(
                "its speed varies: {:.0} to {:.0} us by round",
                micros(least),
                micros(most)
            ),
            "find who else writes there; a node wants a disk of its own",
        ),
    }
}

#[cfg(test)]
mod tests {
    use ringwood_bench::floor::Part;
    use ringwood_bench::histogram::Latencies;
    use ringwood_net::disk::Calibration;
    use ringwood_net::ring::WriteMode;

    use super::*;

    fn states<const N: usize>(findings: [Finding; N]) -> [State; N] {
        findings.map(|finding| {
            let is_well = finding.state == State::Ok;
            assert_eq!(is_well, finding.cause.is_none() && finding.fix.is_none());
            finding.state
        })
    }

    #[test]
    fn a_kernel_is_new_enough_by_number() {
        let found = ["6.1.0", "6.18.44-x", "7.0", "6.0.19", "5.15.0-91", "", "x"].map(kernel);
        use State::{Bad, Ok};
        assert_eq!(states(found), [Ok, Ok, Ok, Bad, Bad, Bad, Bad]);
    }

    #[test]
    fn limits_are_judged_by_what_a_node_needs() {
        use State::{Bad, Ok, Warn};
        let memlock = [(None, true), (Some(8 << 20), false), (Some(8 << 20), true)];
        assert_eq!(
            states(memlock.map(|(limit, swap)| judge_memlock(limit, swap))),
            [Ok, Ok, Warn]
        );
        let nofile = [
            None,
            Some(65_536),
            Some(5_696),
            Some(5_695),
            Some(1_024),
            Some(255),
        ];
        assert_eq!(
            states(nofile.map(judge_nofile)),
            [Ok, Ok, Ok, Warn, Warn, Bad]
        );
    }

    #[test]
    fn slow_clocks_and_sleepy_processors_are_named() {
        use State::{Ok, Warn};
        assert_eq!(
            states(["tsc", "kvm-clock", "", "hpet"].map(judge_clock_source)),
            [Ok, Ok, Ok, Warn]
        );
        assert_eq!(
            states(["performance", "", "powersave"].map(judge_governor)),
            [Ok, Ok, Warn]
        );
        assert_eq!(states([load(0.9, 2), load(1.1, 2)]), [Ok, Warn]);
    }

    #[test]
    fn a_disk_is_judged_by_its_medians() {
        let part = |medians: [u64; 3]| Part {
            medians: medians.map(|us| Nanos(us * 1_000)).to_vec(),
            all: Latencies::default(),
        };
        let floor = |medians| Floor {
            round_trip: part([10, 10, 10]),
            one_writer: part(medians),
            three_writers: part([300, 300, 300]),
            floor: Nanos(320_000),
            calibration: Calibration {
                durable_median: Nanos(1),
                by_sync_median: Nanos(2),
                mode: WriteMode::Durable,
                device: "vda".into(),
            },
        };
        let found = [[100, 150, 300], [100, 150, 301], [4_000, 5_001, 6_000]];
        let found = found.map(|medians| judge_disk(&floor(medians)));
        assert!(
            found[0]
                .finding
                .contains("in 150 us, beside two others in 300 us")
        );
        assert_eq!(states(found), [State::Ok, State::Warn, State::Warn]);
    }
}
