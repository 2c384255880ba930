//! `bench`: how fast the cluster is, and how fast this machine would let it be.
//!
//! Chooses the load or the floor, and prints the report. Measures nothing itself: that is
//! `ringwood-bench`. The client's task runs on this thread, beside the generator's.

use std::fmt::Display;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use clap::builder::RangedU64ValueParser;
use ringwood_bench::environment::{Environment, command_line};
use ringwood_bench::floor::{self, FloorError, FloorOptions};
use ringwood_bench::floor_report::FloorReport;
use ringwood_bench::intervals::Intervals;
use ringwood_bench::objective::{Objective, ObjectiveReport, Search};
use ringwood_bench::payload::Payload;
use ringwood_bench::readers::{ReadFrom, Readers, StartError};
use ringwood_bench::repeats::Repeats;
use ringwood_bench::report::Report;
use ringwood_bench::schedule::{Arrivals, RATE_MAX, Window};
use ringwood_bench::sweep::{Ladder, Sweep};
use ringwood_bench::target::ClusterTarget;
use ringwood_bench::workload::{self, Mode, Plan};
use ringwood_net::client::NotCommittedReason;
use ringwood_net::clock;
use ringwood_net::ring::SpinMode;
use serde::Serialize;

use crate::command::bench_words::{
    Spread, parse_ladder, parse_objective, parse_payload, parse_read_from, parse_spread,
};
use crate::connect;
use crate::exit::{Exit, Failure};
use crate::flags::{Global, parse_name};
use crate::output::{self, Output};
use crate::refusal;
use crate::signals;
use crate::units::parse_duration;

/// Appends in flight of a closed loop, at most: beyond, only queues grow.
const CONCURRENCY_MAX: u64 = 1 << 20;

/// A run this long measures the operator's patience.
const DURATION_MAX: Duration = Duration::from_secs(86_400);

/// How long a step of a search may take, unless --duration is longer.
const STEP_PATIENCE: Duration = Duration::from_secs(60);

/// How much longer than an append is tried the last ones are waited for.
const GRACE: Duration = Duration::from_secs(5);

/// Measure how fast appends are acknowledged
///
/// By default in an open loop: appends are sent by a schedule that does not wait for the cluster,
/// and each one's latency counts from when it was due, so a stall is charged to all who would have
/// met it. With --closed, a fixed number is kept in flight instead; stalls then hide the appends
/// that were not sent. The records are appended to the log, and stay there.
///
/// The result is marked invalid if less than 99.9 % of what was planned was acknowledged in time, if
/// the generator was late (the p99 of its slip above 10 % of the response's), or if its thread ran
/// out of CPU. A percentile with fewer than 100 samples above it is n/a; halves that differ are
/// named. In JSON, figures are numbers.
///
/// With --repeats, --sweep or --slo there are many runs, each with its verdict.
///
/// With --floor no cluster is needed: it measures what this machine allows one durable append,
/// with the waiting policy of a node. A loopback round trip, 4 KiB made durable by one writer and
/// by three at a time, and the floor they add up to.
#[derive(Debug, clap::Args)]
#[command(
    verbatim_doc_comment,
    after_help = "\
Examples:
  ringwood bench --rate 20000 --duration 30s
  ringwood bench --closed --concurrency 1
  ringwood bench --closed --concurrency 1024 --payload 1KiB -o json | jq .acked_per_s
  ringwood bench --rate 20000 --arrivals poisson --seed 7 --repeats 5
  ringwood bench --sweep rate=10k..1M:x1.5 --duration 5s
  ringwood bench --payload 64..4KiB:lognormal --producers 4 --hdr-log run.hlog
  ringwood bench --rate 2000 --readers 1 --read-from start
  ringwood bench --slo p99=5ms --rate 20000
  ringwood bench --floor --dir /var/lib/ringwood"
)]
pub(crate) struct Args {
    /// Appends a second by schedule, 1 to 100000000
    #[arg(long, value_name = "N", default_value = "10000")]
    #[arg(value_parser = RangedU64ValueParser::<u64>::new().range(1..=RATE_MAX))]
    rate: u64,

    /// How they are spread: even; poisson, as those of many users; bursts:N, N at once, 1 to 1048576
    #[arg(
        long,
        value_name = "HOW",
        default_value = "even",
        conflicts_with = "closed"
    )]
    #[arg(value_parser = parse_spread)]
    arrivals: Spread,

    /// Seed of all that is left to chance, any whole number: the same seed plans the same
    #[arg(long, value_name = "N", default_value = "1")]
    seed: u64,

    /// Keep appends in flight instead of following a schedule
    #[arg(long, conflicts_with = "rate")]
    closed: bool,

    /// Appends to keep in flight, 1 to 1048576
    #[arg(long, value_name = "N", default_value = "1", requires = "closed")]
    #[arg(value_parser = RangedU64ValueParser::<usize>::new().range(1..=CONCURRENCY_MAX))]
    concurrency: usize,

    /// Size of a record, 0 to 1MiB; or sizes: 64..4KiB, 64..4KiB:lognormal, or 64=9,4KiB=1 with
    /// weights
    #[arg(long, value_name = "SIZE", default_value = "256", value_parser = parse_payload)]
    payload: Payload,

    /// Clients that append in turn, each with its own connections, 1 to 256
    #[arg(long, value_name = "N", default_value = "1")]
    #[arg(value_parser = RangedU64ValueParser::<usize>::new().range(1..=256))]
    producers: usize,

    /// Readers at the same time, each of one of the logs, on a thread of their own, 0 to 256
    #[arg(long, value_name = "N", default_value = "0")]
    #[arg(value_parser = RangedU64ValueParser::<usize>::new().range(0..=256))]
    readers: usize,

    /// What they read: start, all that is kept, again and again; end, what is appended meanwhile
    #[arg(
        long,
        value_name = "WHERE",
        default_value = "end",
        requires = "readers"
    )]
    #[arg(value_parser = parse_read_from)]
    read_from: ReadFrom,

    /// Write the response by seconds to FILE, an hdrhistogram interval log in nanoseconds
    #[arg(long, value_name = "FILE", conflicts_with_all = ["repeats", "sweep", "slo"])]
    hdr_log: Option<PathBuf>,

    /// How long to measure
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = parse_span)]
    duration: Duration,

    /// How long to load before that, uncounted
    #[arg(long, value_name = "DURATION", default_value = "2s", value_parser = parse_duration)]
    warmup: Duration,

    /// Logs to append to, in turn
    #[arg(
        long,
        value_name = "LOG,..",
        default_value = "log-0",
        value_delimiter = ','
    )]
    #[arg(value_parser = parse_name)]
    log: Vec<String>,

    /// Measure the same so many times, 1 to 100, and tell median and range
    #[arg(long, value_name = "N", default_value = "1")]
    #[arg(value_parser = RangedU64ValueParser::<usize>::new().range(1..=100))]
    repeats: usize,

    /// Measure at one rate after the other, by a factor or a sum, and find the knee; ends after
    /// two invalid runs in a row
    #[arg(long, value_name = "rate=FIRST..LAST:xFACTOR", value_parser = parse_ladder)]
    #[arg(conflicts_with_all = ["rate", "closed", "repeats"])]
    sweep: Option<Ladder>,

    /// Find the highest rate at which a percentile (p50, p90, p99, p99.9, p99.99) stays within a
    /// bound, from --rate on; each run lasts as long as the percentile needs, rates for which that is
    /// more than a minute are not tried
    #[arg(long, value_name = "PERCENTILE=DURATION", value_parser = parse_objective)]
    #[arg(conflicts_with_all = ["sweep", "closed", "repeats"])]
    slo: Option<Objective>,

    /// Measure this machine instead of a cluster
    #[arg(long)]
    #[arg(conflicts_with_all = ["rate", "arrivals", "seed", "closed", "payload", "duration", "warmup", "log", "repeats", "sweep", "slo", "producers", "readers", "hdr_log"])]
    floor: bool,

    /// Where to write for --floor: a directory on the disk that nodes would use
    #[arg(long, value_name = "DIR", default_value = ".", requires = "floor")]
    dir: PathBuf,
}

impl Args {
    /// At `rate_per_s`, or in a closed loop whatever the rate.
    fn plan(&self, rate_per_s: u64, global: &Global) -> Plan {
        Plan {
            mode: match self.closed {
                true => Mode::Closed {
                    concurrency: self.concurrency,
                },
                false => Mode::Open {
                    rate_per_s,
                    arrivals: match self.arrivals {
                        Spread::Even => Arrivals::Even,
                        Spread::Poisson => Arrivals::Poisson { seed: self.seed },
                        Spread::Bursts(size) => Arrivals::Bursts { size },
                    },
                },
            },
            payload: self.payload.clone(),
            seed: self.seed,
            warmup: self.warmup.min(DURATION_MAX),
            duration: self.duration.min(DURATION_MAX),
            drain: global.append_timeout() + GRACE,
            log_count: self.log.len(),
            producer_count: self.producers,
            keeps_intervals: self.hdr_log.is_some(),
            spin: SpinMode::default(),
        }
    }
}

/// Measures, and reports.
pub(crate) async fn run(args: Args, global: &Global) -> Result<Exit, Failure> {
    signals::end_at_once()?;
    // Before anything runs that would show in the load average.
    let environment = Environment::look();
    if args.floor {
        return run_floor(args.dir, global.output, environment);
    }
    let client = connect::open(global).await?;
    for log in &args.log {
        connect::require_log(&client, log)?;
    }
    let mut clients = vec![client];
    while clients.len() < args.producers {
        clients.push(connect::open(global).await?);
    }
    let bench = Bench {
        target: ClusterTarget::new(clients, args.log.clone()),
        environment,
        args: &args,
        global,
    };
    if let Some(ladder) = &args.sweep {
        return bench.sweep(ladder).await;
    }
    match args.slo {
        Some(objective) => bench.search(objective).await,
        None => bench.repeat().await,
    }
}

/// A cluster to be loaded, and how.
struct Bench<'a> {
    target: ClusterTarget,
    environment: Environment,
    args: &'a Args,
    global: &'a Global,
}

impl Bench<'_> {
    async fn repeat(&self) -> Result<Exit, Failure> {
        let plan = self.args.plan(self.args.rate, self.global);
        let mut runs = Vec::new();
        for _ in 0..self.args.repeats {
            runs.push(self.measure(&plan).await?);
        }
        match &runs[..] {
            [only] => self.print(only)?,
            _ => self.print(&Repeats::new(runs.clone()))?,
        }
        acked(&runs)
    }

    async fn sweep(&self, ladder: &Ladder) -> Result<Exit, Failure> {
        let mut runs = Vec::new();
        while let Some(rate) = ladder.next(&runs) {
            output::message(format!("at {rate}/s"));
            let plan = self.args.plan(rate, self.global);
            runs.push(self.measure(&plan).await?);
        }
        self.print(&Sweep::new(runs.clone()))?;
        acked(&runs)
    }

    async fn search(&self, objective: Objective) -> Result<Exit, Failure> {
        let longest = self.args.duration.max(STEP_PATIENCE);
        let mut search = Search::new(self.args.rate, objective.rate_min(longest));
        let mut runs = Vec::new();
        while let Some(rate) = search.next() {
            output::message(format!("at {rate}/s"));
            let mut plan = self.args.plan(rate, self.global);
            plan.duration = plan.duration.max(objective.duration_min(rate));
            let run = self.measure(&plan).await?;
            // Where nothing is acknowledged at all, no lower rate helps.
            if run.acked == 0 {
                self.print(&run)?;
                return Err(nothing_acked(&run));
            }
            search.learn(rate, objective.missed_by(&run).is_none());
            runs.push(run);
        }
        self.print(&ObjectiveReport::new(objective, search, runs))?;
        match search.held() {
            Some(_) => Ok(Exit::Ok),
            None => Err(
                Failure::new(Exit::Unhealthy, format!("no rate holds {objective}"))
                    .fix("'ringwood bench --floor' tells what this machine allows"),
            ),
        }
    }

    async fn measure(&self, plan: &Plan) -> Result<Report, Failure> {
        // Made before the run: a file that cannot be is no news for after it.
        let log = match &self.args.hdr_log {
            Some(path) => Some((
                path,
                File::create(path).map_err(|error| log_failure(path, &error))?,
            )),
            None => None,
        };
        let readers = self.start_readers().await?;
        if let Some(readers) = &readers {
            readers.count_in(Window::new(clock::now(), plan.warmup, plan.duration));
        }
        let started = SystemTime::now();
        let measured = workload::run(&self.target, plan).await.map_err(|error| {
            Failure::new(
                Exit::Internal,
                format!("the schedule has no timer: {error}"),
            )
        })?;
        if let (Some((path, file)), Some(intervals)) = (log, &measured.tally.intervals) {
            let written = write_log(file, intervals, started + plan.warmup);
            written.map_err(|error| log_failure(path, &error))?;
        }
        let environment = self.environment.clone();
        let logs = &self.args.log;
        let report = Report::new(plan, logs, &measured, command_line(), environment);
        Ok(match readers {
            Some(readers) => report.with_readers(readers.end()),
            None => report,
        })
    }

    async fn start_readers(&self) -> Result<Option<Readers>, Failure> {
        let Args {
            readers, read_from, ..
        } = *self.args;
        if readers == 0 {
            return Ok(None);
        }
        let (global, logs) = (self.global.clone(), self.args.log.clone());
        let open = async move || {
            let mut clients = Vec::new();
            while clients.len() < readers {
                clients.push(connect::open(&global).await?);
            }
            Ok(clients)
        };
        let started = Readers::start(logs, read_from, open).await;
        started.map(Some).map_err(|error| match error {
            StartError::Thread(error) => Failure::new(
                Exit::Internal,
                format!("the readers have no thread: {error}"),
            ),
            StartError::Open(failure) => failure,
        })
    }

    fn print(&self, report: &(impl Serialize + Display)) -> Result<(), Failure> {
        print(self.global.output, report)
    }
}

fn print(output: Output, report: &(impl Serialize + Display)) -> Result<(), Failure> {
    // A reader that has left changes nothing about how it went.
    let _ = match output {
        Output::Json => output::print_json(report)?,
        Output::Table => output::print(&format!("{report}\n"))?,
    };
    Ok(())
}

/// How to exit after `runs`, which have been printed.
fn acked(runs: &[Report]) -> Result<Exit, Failure> {
    match runs.iter().find(|run| run.acked == 0) {
        Some(none) => Err(nothing_acked(none)),
        None => Ok(Exit::Ok),
    }
}

fn run_floor(dir: PathBuf, output: Output, environment: Environment) -> Result<Exit, Failure> {
    let options = FloorOptions::new(dir);
    let floor = floor::measure(&options).map_err(floor_failure)?;
    let report = FloorReport::new(&floor, &options, command_line(), environment);
    print(output, &report)?;
    Ok(Exit::Ok)
}

/// What it means that no append was acknowledged. The report has been printed.
fn nothing_acked(report: &Report) -> Failure {
    let count = |name: &str| report.errors_by.get(name).copied().unwrap_or(0);
    let exit = if count("unknown") > 0 {
        Exit::Unknown
    } else if count(NotCommittedReason::NotLeader.word()) > 0 {
        Exit::NoLeader
    } else {
        Exit::Refused
    };
    Failure::new(exit, "no append was acknowledged")
        .fix("'ringwood status' shows which nodes are missing for a majority")
}

/// Why there is no floor.
pub(crate) fn floor_failure(error: FloorError) -> Failure {
    match error {
        FloorError::Disk(error) => refusal::of_disk(&error),
        FloorError::NoDirectory(_) => {
            Failure::new(Exit::Refused, error).fix("--dir with a directory that is there")
        }
        FloorError::Ring(error) => Failure::new(Exit::Refused, error),
        FloorError::Io { .. } | FloorError::Silent { .. } => Failure::new(Exit::Internal, error),
    }
}

fn log_failure(path: &Path, error: &io::Error) -> Failure {
    Failure::new(Exit::Refused, format!("{}: {error}", path.display()))
        .fix("--hdr-log with a file that can be written")
}

fn write_log(file: File, intervals: &Intervals, started: SystemTime) -> io::Result<()> {
    let mut out = BufWriter::new(file);
    let comment = format!("response of '{}', nanoseconds", command_line());
    intervals.write(&mut out, started, &comment)?;
    out.flush()
}

fn parse_span(text: &str) -> Result<Duration, String> {
    match parse_duration(text)? {
        Duration::ZERO => Err("nothing can be measured in no time".into()),
        duration => Ok(duration),
    }
}
