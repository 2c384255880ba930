//! `doctor`: what of this machine keeps a node from running, or from running well.
//!
//! Asks all checks and prints what they found, with cause and fix. Changes nothing, and needs no
//! cluster. Knows not how a check judges.

use std::path::PathBuf;

use ringwood_bench::environment::Environment;
use ringwood_bench::floor::Floor;
use ringwood_bench::histogram::micros;
use serde::Serialize;

use crate::command::bench::floor_failure;
use crate::command::doctor_checks::{self as checks, Finding, State};
use crate::exit::{Exit, Failure};
use crate::flags::Global;
use crate::output::{self, Output};
use crate::signals;

/// Tell what keeps a node from running well on this machine
///
/// Looks at the kernel, io_uring, limits on locked memory and on descriptors, the clock, the
/// processor's governor, the load, and the disk: whether it takes direct I/O, and how long 4 KiB
/// take to be durable there. Each finding has its cause and its fix. Takes a few seconds and 50 MiB
/// in DIR, and changes nothing. Exit code 4 if a node would not run here; warnings exit with 0.
#[derive(Debug, clap::Args)]
#[command(
    verbatim_doc_comment,
    after_help = "\
Examples:
  ringwood doctor --dir /var/lib/ringwood
  ringwood doctor -o json | jq -r '.findings[] | select(.state != \"ok\") | .fix'"
)]
pub(crate) struct Args {
    /// A directory on the disk that the node would use
    #[arg(long, value_name = "DIR", default_value = ".")]
    dir: PathBuf,
}

/// The document of `doctor -o json`. Fields are only ever added.
#[derive(Debug, Serialize)]
struct Report {
    schema: &'static str,
    /// The worst of all findings: "ok", "warn" or "bad".
    state: State,
    findings: Vec<Finding>,
    /// The quickest that an append can be here, see `bench --floor`; null where it was not measured.
    floor_us: Option<f64>,
    environment: Environment,
}

/// Looks, prints, judges.
pub(crate) fn run(args: &Args, global: &Global) -> Result<Exit, Failure> {
    signals::end_at_once()?;
    // Before the disk is measured, which shows in the load.
    let environment = Environment::look();
    let (disk, floor) = checks::disk(&args.dir).map_err(floor_failure)?;
    let findings = vec![
        checks::kernel(&environment.kernel),
        checks::io_uring(),
        disk,
        checks::memlock(),
        checks::nofile(),
        checks::clock_source(),
        checks::governor(),
        checks::load(environment.load_average_before[0], environment.cores),
    ];
    let report = Report::new(findings, floor.as_ref(), environment);
    // A reader that has left changes nothing about the machine.
    let _ = match global.output {
        Output::Json => output::print_json(&report)?,
        Output::Table => output::print(&report.page())?,
    };
    Ok(match report.state {
        State::Bad => Exit::Unhealthy,
        State::Ok | State::Warn => Exit::Ok,
    })
}

impl Report {
    fn new(findings: Vec<Finding>, floor: Option<&Floor>, environment: Environment) -> Self {
        let has = |state| findings.iter().any(|finding| finding.state == state);
        let state = match (has(State::Bad), has(State::Warn)) {
            (true, _) => State::Bad,
            (false, true) => State::Warn,
            (false, false) => State::Ok,
        };
        Self {
            schema: "ringwood.doctor/v1",
            state,
            findings,
            floor_us: floor.map(|floor| micros(floor.floor)),
            environment,
        }
    }

    /// For people: a table, and under it what helps.
    fn page(&self) -> String {
        let mut table = output::table(&["CHECK", "STATE", "FINDING"]);
        for found in &self.findings {
            table.add_row([found.check, word(found.state), &found.finding]);
        }
        let mut page = output::table_text(&mut table);
        for found in &self.findings {
            if let (Some(cause), Some(fix)) = (&found.cause, &found.fix) {
                let (check, state) = (found.check, word(found.state));
                page.push_str(&format!("{check} {state}: {cause}\n  fix: {fix}\n"));
            }
        }
        page
    }
}

fn word(state: State) -> &'static str {
    match state {
        State::Ok => "ok",
        State::Warn => "warn",
        State::Bad => "BAD",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_finding_is_the_verdict_and_has_its_fix_below() {
        let report = |kernel: &str, load| {
            let findings = vec![checks::kernel(kernel), checks::load(load, 2)];
            Report::new(findings, None, Environment::look())
        };
        assert_eq!(report("6.1.0", 0.0).state, State::Ok);
        assert_eq!(report("6.1.0", 9.0).state, State::Warn);
        let bad = report("5.4.0", 9.0);
        assert_eq!(bad.state, State::Bad);
        assert_eq!(
            bad.page(),
            "CHECK   STATE  FINDING\n\
             kernel  BAD    Linux 5.4.0\n\
             load    warn   9 on 2 cores\n\
             kernel BAD: io_uring lacks what a node needs before Linux 6.1\n  \
             fix: run on Linux 6.1 or later\n\
             load warn: others compete for the processor: figures taken now are theirs, too\n  \
             fix: measure when the machine is quiet\n"
        );
        let json = serde_json::to_value(&bad).expect("plain data");
        assert_eq!(
            (&json["state"], &json["findings"][1]["state"]),
            (&"bad".into(), &"warn".into())
        );
    }
}
