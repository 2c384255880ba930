//! `Environment`: what a figure was measured on. Without it a figure is a rumour.
//!
//! Knows no figure.

use std::fmt;
use std::fs::read_to_string;

use serde::Serialize;

/// This machine and this build, as they are now.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Environment {
    /// Release of the kernel.
    pub kernel: String,
    /// Instruction set.
    pub machine: String,
    /// Model of the processor; "unknown" where the kernel does not tell.
    pub cpu: String,
    /// Cores this process may use.
    pub cores: usize,
    /// Bytes of memory; 0 where the kernel does not tell.
    pub memory_bytes: u64,
    /// Runnable tasks over the last 1, 5 and 15 minutes, before the run.
    pub load_average_before: [f64; 3],
    /// Of ringwood.
    pub version: &'static str,
    /// "release", or "debug", whose figures mean nothing.
    pub profile: &'static str,
}

impl Environment {
    /// Looks at the machine. What it does not tell is left unknown: no run fails for that.
    #[must_use]
    pub fn look() -> Self {
        let name = rustix::system::uname();
        let tell = |path| read_to_string(path).unwrap_or_default();
        Self {
            kernel: name.release().to_string_lossy().into_owned(),
            machine: name.machine().to_string_lossy().into_owned(),
            cpu: cpu_of(&tell("/proc/cpuinfo")),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            memory_bytes: memory_of(&tell("/proc/meminfo")),
            load_average_before: load_of(&tell("/proc/loadavg")),
            version: env!("CARGO_PKG_VERSION"),
            profile: if cfg!(debug_assertions) {
                "debug"
            } else {
                "release"
            },
        }
    }

    /// What makes figures from here doubtful.
    #[must_use]
    pub fn cautions(&self) -> Vec<String> {
        let mut cautions = Vec::new();
        let load = self.load_average_before[0];
        if load > self.cores as f64 / 2.0 {
            cautions.push(format!(
                "a load average of {load} on {} cores before the run: others compete",
                self.cores
            ));
        }
        if self.profile == "debug" {
            cautions.push("a debug build: use --release".into());
        }
        cautions
    }
}

impl fmt::Display for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [one, five, fifteen] = self.load_average_before;
        write!(
            f,
            "Linux {} {}, {} x {}, {} MiB, load {one} {five} {fifteen} before, ringwood {} {}",
            self.kernel,
            self.machine,
            self.cores,
            self.cpu,
            self.memory_bytes >> 20,
            self.version,
            self.profile
        )
    }
}

/// How this process was called, fit to be pasted into a shell.
#[must_use]
pub fn command_line() -> String {
    let arguments = std::env::args().skip(1);
    let words = arguments.map(|argument| quote(&argument));
    ["ringwood".to_owned()]
        .into_iter()
        .chain(words)
        .collect::<Vec<_>>()
        .join(" ")
}

fn quote(argument: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:,=@+%".contains(c);
    if !argument.is_empty() && argument.chars().all(plain) {
        return argument.to_owned();
    }
    format!("'{}'", argument.replace('\'', r"'\''"))
}

fn cpu_of(cpuinfo: &str) -> String {
    value_of(cpuinfo, "model name")
        .unwrap_or("unknown")
        .to_owned()
}

fn memory_of(meminfo: &str) -> u64 {
    let value = value_of(meminfo, "MemTotal").and_then(|value| value.strip_suffix(" kB"));
    value
        .and_then(|value| value.parse().ok())
        .map_or(0, |size: u64| size << 10)
}

fn value_of<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    text.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        (name.trim() == key).then_some(value.trim())
    })
}

fn load_of(loadavg: &str) -> [f64; 3] {
    let mut words = loadavg.split_whitespace();
    let mut next = || {
        words
            .next()
            .and_then(|word| word.parse().ok())
            .unwrap_or(0.0)
    };
    [next(), next(), next()]
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A quiet machine.
    pub(crate) fn sample() -> Environment {
        Environment {
            kernel: "6.18.44".into(),
            machine: "x86_64".into(),
            cpu: "AMD EPYC".into(),
            cores: 2,
            memory_bytes: 24 << 30,
            load_average_before: [0.5, 0.25, 0.0],
            version: "0.1.0",
            profile: "release",
        }
    }

    #[test]
    fn the_kernels_files_are_read_and_may_be_missing() {
        let cpuinfo = "processor\t: 0\nmodel name\t: AMD EPYC 7763\nmodel name\t: other\n";
        assert_eq!(cpu_of(cpuinfo), "AMD EPYC 7763");
        assert_eq!(
            memory_of("MemTotal:       24000000 kB\nMemFree: 1 kB\n"),
            24_576_000_000
        );
        assert_eq!(load_of("0.41 0.53 12.35 2/148 4711\n"), [0.41, 0.53, 12.35]);
        assert_eq!(
            (cpu_of(""), memory_of(""), load_of("")),
            ("unknown".into(), 0, [0.0; 3])
        );
    }

    #[test]
    fn this_machine_says_something() {
        let here = Environment::look();
        assert!(!here.kernel.is_empty() && here.cores > 0 && here.memory_bytes > 0);
        assert!(here.to_string().contains(&here.kernel));
    }

    #[test]
    fn a_command_can_be_pasted() {
        let quoted = ["--rate=1000", "a b", "", "it's"].map(quote);
        assert_eq!(quoted, ["--rate=1000", "'a b'", "''", r"'it'\''s'"]);
    }
}
