//! `sim`: whole clusters on a virtual clock, by the thousand, and what breaks in them.
//!
//! Chooses the runs, shows how far they are, and tells of the one that failed. How a run is played
//! and judged is `ringwood_core::sim`'s; here stands what a person needs around it.

mod campaign;
mod scenarios;
mod story;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::builder::RangedU64ValueParser;
#[cfg(feature = "bugs")]
use ringwood_core::bugs::Switch;
use ringwood_core::id::Nanos;
use ringwood_core::sim::{self, Failure, Report, Shrunk, Swarm};
use serde::Serialize;

use crate::exit::{self, Exit};
use crate::flags::Global;
use crate::output::{self, Output, Wide};
use crate::panics;
use crate::signals;
use crate::units::{parse_duration, show_duration};

use campaign::{Campaign, Totals};
use story::{JsonLines, Story};

/// Runs, unless told otherwise: about a minute's worth.
const SEED_COUNT: u64 = 500;

/// Runs that are spent on making a failure smaller.
const SHRINK_COUNT_MAX: u32 = 300;

/// The end of a failed run's story that is printed.
const LAST_LINE_COUNT: usize = 40;

/// Play whole clusters under faults, on a virtual clock
///
/// Every seed is a cluster of the code that ships, with disks, clocks, a network and clients that
/// are simulated, and faults of its own mix: crashes, power cuts, torn writes, partitions, loss,
/// stalls. After each event everything that must hold is checked; then the faults end, and the
/// cluster must heal. The same seed is the same run, to the last bit, on any machine.
///
/// A seed that fails is made smaller, and told: what broke, the faults that are enough to break it,
/// the last lines of its story, and the command that plays it again. The exit code is then 1. The
/// whole story is kept as JSON lines (ringwood.trace/v1), in a file that is named.
///
/// Scenarios are stories with a name: what befalls a cluster stands in a script, and what came of it
/// below. Some are told twice, the second time with an election that asks no majority.
#[derive(Debug, clap::Args)]
#[command(
    verbatim_doc_comment,
    after_help = "\
Examples:
  ringwood sim                              seeds from a place chosen by dice
  ringwood sim --seeds 5000 --seed 1        these 5,000
  ringwood sim --seeds 5000 --all-marks     and that everything that can happen did
  ringwood sim --seed 17 --trace | less -S  the story of one
  ringwood sim --seed 17 --without crash
  ringwood sim --scenario two-coasts        what happened to GitHub in 2018
  ringwood sim --seeds 100 --nodes 5 --minutes 1 -o json | jq .marks"
)]
pub(crate) struct Args {
    /// How many to play [default: 500; 1 if --seed is given]
    #[arg(long, value_name = "N")]
    #[arg(value_parser = RangedU64ValueParser::<u64>::new().range(1..))]
    seeds: Option<u64>,

    /// The first one [default: by dice]
    #[arg(long, value_name = "S", group = "one")]
    seed: Option<u64>,

    /// Ten minutes each, most of them quiet, with bursts of faults between [default: four of five]
    #[arg(long, conflicts_with = "quick")]
    whole: bool,

    /// A second or two each, most of it trouble
    #[arg(long)]
    quick: bool,

    /// Minutes of faults in each, instead of what its seed chose
    #[arg(long, value_name = "M", conflicts_with = "span")]
    #[arg(value_parser = RangedU64ValueParser::<u64>::new().range(1..=1440))]
    minutes: Option<u64>,

    /// The same as a duration
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    span: Option<Duration>,

    /// Nodes of each, instead of what its seed chose
    #[arg(long, value_name = "N")]
    #[arg(value_parser = RangedU64ValueParser::<usize>::new().range(1..=7))]
    nodes: Option<usize>,

    /// Leave out a kind of trouble by its name in a run's list, or one fault by its number
    #[arg(long, value_name = "OPTION")]
    without: Vec<String>,

    /// Fail if anything of what can happen did not happen in any of them
    #[arg(long, conflicts_with_all = ["trace", "scenario", "list"])]
    all_marks: bool,

    /// Put a bug in on purpose, to see what is told of it
    #[cfg(feature = "bugs")]
    #[arg(long, hide = true, value_name = "NAME", conflicts_with_all = ["scenario", "list"])]
    bug: Option<String>,

    /// Print the whole story of one seed or scenario, a line an event
    #[arg(long, conflicts_with = "seeds", requires = "one")]
    trace: bool,

    /// Play a story by its name, or the script in a file
    #[arg(long, value_name = "NAME", group = "one")]
    #[arg(conflicts_with_all = ["seeds", "whole", "quick", "minutes", "span", "nodes", "without", "threads"])]
    scenario: Option<String>,

    /// List the stories that have a name
    #[arg(long, conflicts_with_all = ["one", "seeds", "whole", "quick", "minutes", "span", "nodes", "without", "threads"])]
    list: bool,

    /// Runs played side by side [default: one a core]
    #[arg(long, value_name = "N")]
    #[arg(value_parser = RangedU64ValueParser::<usize>::new().range(1..=1024))]
    threads: Option<usize>,
}

/// Plays what was asked for, and says what came of it.
pub(crate) fn run(args: &Args, global: &Global) -> Result<Exit, exit::Failure> {
    let is_enough = if args.is_campaign() {
        signals::raise_at_first()?
    } else {
        signals::end_at_once()?;
        Arc::default()
    };
    if args.list {
        return scenarios::list(global.output);
    }
    if let Some(name) = &args.scenario {
        return scenarios::play(name, args.trace, global.output);
    }
    let change = args.change()?;
    change.arm();
    if args.trace {
        let seed = args.seed.expect("clap has seen to it");
        return tell(&change.applied(seed), global.output);
    }
    let campaign = Campaign {
        first: args.seed.unwrap_or_else(by_dice),
        count: args
            .seeds
            .unwrap_or(if args.seed.is_some() { 1 } else { SEED_COUNT }),
        thread_count: args
            .threads
            .unwrap_or_else(|| thread::available_parallelism().map_or(1, std::num::NonZero::get)),
    };
    let totals = campaign.play(&change, &is_enough);
    let found = totals
        .failure
        .as_ref()
        .map(|failure| Found::new(&change, failure));
    let found = found.transpose()?;
    let _ = match global.output {
        Output::Json => output::print_json(&document(&campaign, &totals, found.as_ref()))?,
        Output::Table => output::print(&page(&campaign, &totals, found.as_ref()))?,
    };
    if found.is_none() && totals.seed_count < campaign.count {
        return Ok(Exit::Interrupted);
    }
    let never = totals.never();
    if found.is_none() && args.all_marks && !never.is_empty() {
        let cause = format!("never happened: {}", never.join(", "));
        return Err(exit::Failure::new(Exit::Internal, cause)
            .fix("play more seeds; if that does not help, the simulator is blind there"));
    }
    Ok(if found.is_some() {
        Exit::Internal
    } else {
        Exit::Ok
    })
}

/// How long the runs are.
#[derive(Clone, Copy, Debug)]
enum Size {
    /// Each its seed's own.
    Mixed,
    Whole,
    Quick,
}

/// What the command line changes of every run.
#[derive(Debug)]
struct Change {
    size: Size,
    span: Option<Nanos>,
    node_count: Option<usize>,
    without: Vec<String>,
    #[cfg(feature = "bugs")]
    bug: Option<Switch>,
}

impl Args {
    /// Whether runs are played for what they come to, and not told.
    fn is_campaign(&self) -> bool {
        !self.list && self.scenario.is_none() && !self.trace
    }

    fn change(&self) -> Result<Change, exit::Failure> {
        for name in &self.without {
            check_trouble(name)?;
        }
        let minutes = self
            .minutes
            .map(|minutes| Duration::from_secs(60 * minutes));
        let span = self.span.or(minutes);
        let change = Change {
            size: match (self.whole, self.quick) {
                (true, _) => Size::Whole,
                (_, true) => Size::Quick,
                _ => Size::Mixed,
            },
            span: span.map(|span| Nanos(u64::try_from(span.as_nanos()).unwrap_or(u64::MAX))),
            node_count: self.nodes,
            without: self.without.clone(),
            #[cfg(feature = "bugs")]
            bug: self.bug.as_deref().map(find_bug).transpose()?,
        };
        if let Some(seed) = self.seed
            && self.seeds.is_none_or(|count| count == 1)
        {
            change.check_numbers(seed)?;
        }
        Ok(change)
    }
}

#[cfg(feature = "bugs")]
fn find_bug(name: &str) -> Result<Switch, exit::Failure> {
    let mut all = Switch::ALL.iter().copied();
    all.find(|switch| format!("{switch:?}") == name)
        .ok_or_else(|| exit::Failure::new(Exit::Usage, format!("no bug is named '{name}'")))
}

/// Whether something is a kind of trouble, or might be a fault's number.
fn check_trouble(name: &str) -> Result<(), exit::Failure> {
    let troubles = Swarm::troubles();
    let is_number = name.parse::<u32>().is_ok_and(|number| number > 0);
    if is_number || troubles.contains(&name) {
        return Ok(());
    }
    let mut options = Swarm::new(0).options().into_iter();
    let cause = if options.any(|choice| choice.name == name) {
        format!("'{name}' makes no trouble that could be left out")
    } else {
        format!("no run has an option '{name}'")
    };
    let fix = format!("one of: {}; or the number of a fault", troubles.join(", "));
    Err(exit::Failure::new(Exit::Usage, cause).fix(fix))
}

impl Change {
    /// Puts the bug that was asked for into whatever this thread plays, in a build that has bugs.
    fn arm(&self) {
        #[cfg(feature = "bugs")]
        ringwood_core::bugs::choose(self.bug);
    }

    /// Whether the faults that are to be left out by number are there at all.
    fn check_numbers(&self, seed: u64) -> Result<(), exit::Failure> {
        let number_max = self.applied(seed).fault_number_max();
        let mut numbers = self.without.iter().filter_map(|name| name.parse().ok());
        let Some(beyond) = numbers.find(|number: &u32| *number > number_max) else {
            return Ok(());
        };
        let cause = format!("seed {seed} has no fault of number {beyond}");
        let fix = match number_max {
            0 => "it has none at all".to_owned(),
            last => format!("they are numbered from 1 to {last}"),
        };
        Err(exit::Failure::new(Exit::Usage, cause).fix(fix))
    }

    /// The run of a seed, changed.
    fn applied(&self, seed: u64) -> Swarm {
        let mut swarm = match self.size {
            Size::Mixed => Swarm::mixed(seed),
            Size::Whole => Swarm::whole(seed),
            Size::Quick => Swarm::new(seed),
        };
        swarm.fault_span = self.span.unwrap_or(swarm.fault_span);
        swarm.node_count = self.node_count.unwrap_or(swarm.node_count);
        self.without
            .iter()
            .fold(swarm, |swarm, name| swarm.without(name).unwrap_or(swarm))
    }
}

/// Seeds nobody has chosen: a run of a campaign should not be that of the day before.
fn by_dice() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let dice = now.unwrap_or_default().as_nanos() as u64;
    // Low bits vary most; a first seed of at most ten digits can be read out loud.
    (dice ^ (dice >> 31)).wrapping_mul(0x9e37_79b9_7f4a_7c15) % 10_000_000_000
}

/// Plays one run and prints its story as it goes.
fn tell(swarm: &Swarm, output: Output) -> Result<Exit, exit::Failure> {
    let mut out = BufWriter::new(io::stdout().lock());
    let (played, result) = match output {
        Output::Table => {
            let mut story = Story::new(swarm.node_count);
            let mut result = write!(out, "seed {}\n{swarm}\n", swarm.seed);
            let mut tell = |record: &sim::Record<'_>| {
                let line = story.line(record);
                if result.is_ok() {
                    result = writeln!(out, "{line}");
                }
            };
            (
                panics::expected(|| sim::run(swarm, Some(&mut tell))),
                result,
            )
        }
        Output::Json => {
            let mut lines = JsonLines::begin(&mut out, swarm);
            let mut tell = |record: &sim::Record<'_>| lines.add(record);
            (
                panics::expected(|| sim::run(swarm, Some(&mut tell))),
                lines.end(),
            )
        }
    };
    let ended = result.and_then(|()| match (&played, output) {
        (Ok(report), Output::Table) => writeln!(out, "\n{}", whole(report)),
        (Err(failure), Output::Table) => writeln!(out, "\nbroken: {failure}"),
        (_, Output::Json) => Ok(()),
    });
    let _ = output::written(ended.and_then(|()| out.flush()))?;
    Ok(if played.is_ok() {
        Exit::Ok
    } else {
        Exit::Internal
    })
}

fn whole(report: &Report) -> String {
    format!(
        "whole after {} events, healed within {}, trace {:032x}",
        report.event_count,
        show_duration(Duration::from_nanos(report.heal_span.0)),
        report.trace_sum
    )
}

/// A failure as a person wants it: small, told, kept, and easy to come back to.
struct Found {
    /// As it was met.
    met: Failure,
    /// As small as it got.
    shrunk: Shrunk,
    /// The run's kinds of trouble that were not needed.
    unneeded: Vec<&'static str>,
    /// The end of its story.
    last_lines: Vec<String>,
    /// Where all of it is, as JSON lines.
    path: PathBuf,
    /// The same again.
    command: String,
}

impl Found {
    fn new(change: &Change, met: &Failure) -> Result<Self, exit::Failure> {
        let swarm = change.applied(met.seed);
        let shrunk = panics::expected(|| sim::shrink(&swarm, met, SHRINK_COUNT_MAX));
        let unneeded: Vec<_> = swarm
            .options()
            .iter()
            .zip(shrunk.swarm.options())
            .filter(|(before, after)| before.is_trouble && !after.is_trouble)
            .map(|(before, _)| before.name)
            .collect();
        let mut command = format!("{} sim --seed {}", output::program(), met.seed);
        match change.size {
            Size::Mixed => {}
            Size::Whole => command += " --whole",
            Size::Quick => command += " --quick",
        }
        if let Some(node_count) = change.node_count {
            command += &format!(" --nodes {node_count}");
        }
        for name in change
            .without
            .iter()
            .map(String::as_str)
            .chain(unneeded.iter().copied())
        {
            command += &format!(" --without {name}");
        }
        for fault in &shrunk.swarm.skipped {
            command += &format!(" --without {fault}");
        }
        #[cfg(feature = "bugs")]
        if let Some(bug) = change.bug {
            command += &format!(" --bug {bug:?}");
        }
        command += &format!(" --span {}ns --trace", shrunk.swarm.fault_span.0);
        let path = std::env::temp_dir().join(format!("ringwood-sim-{}.trace.jsonl", met.seed));
        let last_lines = keep(&shrunk.swarm, &path).map_err(|error| {
            let cause = format!("cannot write the story to {}: {error}", path.display());
            exit::Failure::new(Exit::Internal, format!("{met}\n{cause}"))
                .fix(format!("make room there, or set TMPDIR; then: {command}"))
        })?;
        Ok(Self {
            met: met.clone(),
            shrunk,
            unneeded,
            last_lines,
            path,
            command,
        })
    }
}

/// Plays a run, writes its story to a file, and gives its last lines for people.
fn keep(swarm: &Swarm, path: &std::path::Path) -> io::Result<Vec<String>> {
    let mut file = BufWriter::new(File::create(path)?);
    let mut story = Story::new(swarm.node_count);
    let mut last = std::collections::VecDeque::with_capacity(LAST_LINE_COUNT);
    let mut lines = JsonLines::begin(&mut file, swarm);
    let played = panics::expected(|| {
        sim::run(
            swarm,
            Some(&mut |record| {
                lines.add(record);
                if last.len() == LAST_LINE_COUNT {
                    last.pop_front();
                }
                last.push_back(story.line(record));
            }),
        )
    });
    lines.end()?;
    file.flush()?;
    assert!(played.is_err(), "a seed that fails does so again");
    Ok(last.into())
}

/// The result for people.
fn page(campaign: &Campaign, totals: &Totals, found: Option<&Found>) -> String {
    let mut page = String::new();
    if let Some(found) = found {
        let failure = &found.shrunk.failure;
        page += &format!("seed {} breaks: {}\n", found.met.seed, failure.invariant);
        if !failure.detail.is_empty() {
            page += &format!("{}\n", failure.detail);
        }
        page += &format!(
            "at {} of its time, in event {}; smaller by {} runs\n\n",
            show_duration(Duration::from_nanos(failure.at.0)),
            failure.event,
            found.shrunk.run_count
        );
        page += &format!("its options:\n{}\n", found.shrunk.swarm);
        let faults = found.shrunk.swarm.faults();
        page += &format!("its faults: {}\n", faults.len());
        for fault in faults {
            let millis = fault.at.0 as f64 / 1e6;
            page += &format!("  {:>4} {millis:>12.3} ms  {}\n", fault.number, fault.kind);
        }
        page.push('\n');
        if !found.unneeded.is_empty() {
            page += &format!("not needed: {}\n\n", found.unneeded.join(", "));
        }
        page += &format!("the last {} lines of its story:\n", found.last_lines.len());
        for line in &found.last_lines {
            page += &format!("{line}\n");
        }
        page += &format!(
            "\nall of it: {}\nagain:     {}\n\n",
            found.path.display(),
            found.command
        );
    }
    let mut table = output::table(&["WHAT HAPPENED", "TIMES"]);
    for (name, count) in totals.marks.list() {
        table.add_row([name.replace('_', " "), count.to_string()]);
    }
    page += &output::table_text(&mut table);
    page += &format!(
        "\n{} seeds from {}: {}\n{:.1} seeds/s on {} threads, {} simulated, {} events, trace {:032x}\n",
        totals.seed_count,
        campaign.first,
        if found.is_some() {
            "one broken"
        } else if totals.seed_count < campaign.count {
            "all whole, and then interrupted"
        } else {
            "all whole"
        },
        totals.seeds_per_s(),
        campaign.thread_count,
        show_duration(totals.simulated),
        totals.event_count,
        totals.trace_sum,
    );
    let never = totals.never();
    if !never.is_empty() {
        page += &format!("never happened: {}\n", never.join(", "));
    }
    page
}

/// The result for programs: `ringwood.sim/v1`.
#[derive(Serialize)]
struct Document {
    schema: &'static str,
    first_seed: Wide,
    seeds: Wide,
    threads: usize,
    wall_s: f64,
    seeds_per_s: f64,
    simulated_s: f64,
    events: Wide,
    trace_sum: String,
    marks: BTreeMap<&'static str, Wide>,
    failure: Option<FailureDocument>,
}

#[derive(Serialize)]
struct FailureDocument {
    seed: Wide,
    invariant: String,
    detail: String,
    at_us: Wide,
    event: Wide,
    options: BTreeMap<&'static str, String>,
    faults: Vec<FaultDocument>,
    not_needed: Vec<&'static str>,
    trace: String,
    again: String,
}

#[derive(Serialize)]
struct FaultDocument {
    number: u32,
    at_ns: Wide,
    kind: String,
}

fn document(campaign: &Campaign, totals: &Totals, found: Option<&Found>) -> Document {
    Document {
        schema: "ringwood.sim/v1",
        first_seed: Wide(campaign.first),
        seeds: Wide(totals.seed_count),
        threads: campaign.thread_count,
        wall_s: totals.wall.as_secs_f64(),
        seeds_per_s: totals.seeds_per_s(),
        simulated_s: totals.simulated.as_secs_f64(),
        events: Wide(totals.event_count),
        trace_sum: format!("{:032x}", totals.trace_sum),
        marks: totals
            .marks
            .list()
            .into_iter()
            .map(|(name, count)| (name, Wide(count)))
            .collect(),
        failure: found.map(|found| FailureDocument {
            seed: Wide(found.met.seed),
            invariant: found.shrunk.failure.invariant.clone(),
            detail: found.shrunk.failure.detail.clone(),
            at_us: Wide(found.shrunk.failure.at.0 / 1_000),
            event: Wide(found.shrunk.failure.event),
            options: story::options(&found.shrunk.swarm),
            faults: found
                .shrunk
                .swarm
                .faults()
                .into_iter()
                .map(|fault| FaultDocument {
                    number: fault.number,
                    at_ns: Wide(fault.at.0),
                    kind: fault.kind,
                })
                .collect(),
            not_needed: found.unneeded.clone(),
            trace: found.path.display().to_string(),
            again: found.command.clone(),
        }),
    }
}
