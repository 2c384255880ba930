//! `append`: records from stdin, or made up, into a log.
//!
//! Keeps many records on their way at once and counts how each of them ended. Says what is in the
//! log for certain, what is not, and what nobody can tell. Knows no connection; retries and
//! batches are the client's.

use std::collections::VecDeque;
use std::io::IsTerminal;
use std::time::Duration;

use bytes::Bytes;
use ringwood_core::limits::RECORD_SIZE_MAX;
use ringwood_net::client::{Client, NotCommittedReason, Outcome, Pending};
use tokio::io::Stdin;
use tokio::time::{Instant, sleep_until};

use crate::connect;
use crate::exit::{Exit, Failure};
use crate::flags::{Global, parse_name};
use crate::output::{self, Output};
use crate::records::{Generated, LineError, Lines};
use crate::signals::Stop;
use crate::tally::Tally;
use crate::units::{parse_size, show_size};

/// How long an interrupted append waits for what is on its way, rather than call it unknown.
const GRACE: Duration = Duration::from_secs(1);

/// Records handed to the client whose outcome is awaited here; the client bounds their bytes.
const PENDING_COUNT_MAX: usize = 16_384;

/// Append a record per line of stdin
///
/// A record is the bytes between two newlines, text or not. Records are pipelined; at the end the
/// first and last offset are printed. Each is acknowledged when a majority of nodes has it on disk,
/// and is in the log once, whatever was retried on the way.
///
/// At the first record that cannot be appended no more are read. What is reported as unknown (exit
/// 6) may be in the log or not: read from the offset named before appending it again.
#[derive(Debug, clap::Args)]
#[command(
    verbatim_doc_comment,
    after_help = "\
Examples:
  seq 1000 | ringwood append log-0
  tail -F app.log | ringwood append log-0
  ringwood append log-0 --count 100000 --size 256
  ringwood append log-0 -o json <records.txt | jq -r .last"
)]
pub(crate) struct Args {
    /// Log to append to
    #[arg(value_parser = parse_name)]
    log: String,

    /// Make up this many records instead of reading stdin
    #[arg(long, value_name = "N")]
    count: Option<u64>,

    /// Size of a made-up record; it begins with its sequence number
    #[arg(long, value_name = "SIZE", requires = "count", value_parser = parse_size)]
    #[arg(default_value = "256")]
    size: u64,
}

impl Args {
    fn source(&self) -> Result<Source, Failure> {
        let Some(count) = self.count else {
            if std::io::stdin().is_terminal() {
                output::message("a record per line; Ctrl-D ends");
            }
            return Ok(Source::Lines(Lines::new(tokio::io::stdin())));
        };
        if self.size > RECORD_SIZE_MAX as u64 {
            let size = show_size(self.size);
            return Err(
                Failure::new(Exit::Usage, format!("a record of {size} is too large")).fix(format!(
                    "--size up to {}",
                    show_size(RECORD_SIZE_MAX as u64)
                )),
            );
        }
        Generated::new(count, self.size as usize)
            .map(Source::Generated)
            .ok_or_else(|| {
                let size = show_size(self.size);
                Failure::new(
                    Exit::Usage,
                    format!("{size} cannot hold the numbers of {count} records"),
                )
                .fix("a larger --size")
            })
    }
}

/// Appends all there is, then reports.
pub(crate) async fn run(args: Args, global: &Global) -> Result<Exit, Failure> {
    let source = args.source()?;
    let mut stop = Stop::listen()?;
    let client = tokio::select! {
        client = connect::open(global) => client?,
        _ = stop.asked() => return Ok(Exit::Interrupted),
    };
    connect::require_log(&client, &args.log)?;
    let appender = Appender {
        client: &client,
        log: &args.log,
        source,
        pending: VecDeque::new(),
        tally: Tally::default(),
        ending: None,
        give_up_at: None,
    };
    let (tally, ending) = appender.run(&mut stop).await;
    let summary = tally.summary(&args.log);
    let _ = match global.output {
        Output::Json => output::print_json(&summary)?,
        Output::Table => output::print(&summary.sentence())?,
    };
    // What may be in the log twice if appended again outweighs every other trouble.
    if tally.has_unknown() {
        return Err(tally.unknown_failure(&args.log));
    }
    match ending {
        Ending::Done => Ok(Exit::Ok),
        Ending::Asked => Ok(Exit::Interrupted),
        Ending::Source(error) => Err(source_failure(&error)),
        Ending::Refused(reason) => {
            let reached = connect::is_any_reachable(&client).await;
            Err(tally.refused_failure(reason, global.append_timeout(), reached))
        }
    }
}

/// Where records come from.
#[derive(Debug)]
enum Source {
    Lines(Lines<Stdin>),
    Generated(Generated),
}

/// What the source has at hand.
enum Ready {
    Record(Bytes),
    /// More may come after a wait.
    Wait,
    End,
}

impl Source {
    fn take_ready(&mut self) -> Result<Ready, LineError> {
        Ok(match self {
            Self::Lines(lines) => match lines.take_ready()? {
                Some(record) => Ready::Record(record),
                None if lines.is_ended() => Ready::End,
                None => Ready::Wait,
            },
            Self::Generated(generated) => generated.next().map_or(Ready::End, Ready::Record),
        })
    }

    async fn fill(&mut self) -> Result<(), LineError> {
        match self {
            Self::Lines(lines) => lines.fill().await,
            Self::Generated(_) => Ok(()),
        }
    }
}

/// Why no more records are taken from the source.
#[derive(Debug)]
enum Ending {
    /// There are no more.
    Done,
    /// Somebody asked us to stop.
    Asked,
    /// The source has one that is no record, or cannot be read.
    Source(LineError),
    /// One was not appended; those after it must not overtake it.
    Refused(NotCommittedReason),
}

/// Records between their source and their outcome.
struct Appender<'a> {
    client: &'a Client,
    log: &'a str,
    source: Source,
    /// In the order of the source, which is the order in which they end.
    pending: VecDeque<Pending>,
    tally: Tally,
    ending: Option<Ending>,
    /// When what is pending counts as unknown, because somebody wants us gone.
    give_up_at: Option<Instant>,
}

impl Appender<'_> {
    /// Feeds until the source ends or something ends it, then waits for what is on its way.
    async fn run(mut self, stop: &mut Stop) -> (Tally, Ending) {
        loop {
            let wants_more = self.feed(stop).await;
            assert!(
                self.pending.len() <= PENDING_COUNT_MAX,
                "the window is a bound"
            );
            if self.pending.is_empty()
                && let Some(ending) = self.ending.take()
            {
                return (self.tally, ending);
            }
            let give_up_at = self.give_up_at;
            tokio::select! {
                biased;
                outcome = next_outcome(&mut self.pending), if !self.pending.is_empty() => {
                    self.note(outcome);
                }
                _ = stop.asked() => self.ask_to_end(),
                () = at(give_up_at) => {
                    self.tally.give_up(self.pending.len());
                    self.pending.clear();
                }
                filled = self.source.fill(), if wants_more => {
                    if let Err(error) = filled {
                        self.end(Ending::Source(error));
                    }
                }
            }
        }
    }

    /// Hands over what the source has at hand. True if there is room for more than it had.
    async fn feed(&mut self, stop: &mut Stop) -> bool {
        while self.ending.is_none() && self.pending.len() < PENDING_COUNT_MAX {
            match self.source.take_ready() {
                Ok(Ready::Record(record)) => tokio::select! {
                    biased;
                    // Waits while the client has all the bytes it may hold.
                    pending = self.client.enqueue(self.log, record) => {
                        self.pending.push_back(pending);
                    }
                    _ = stop.asked() => self.ask_to_end(),
                },
                Ok(Ready::Wait) => return true,
                Ok(Ready::End) => self.end(Ending::Done),
                Err(error) => self.end(Ending::Source(error)),
            }
        }
        false
    }

    fn note(&mut self, outcome: Outcome) {
        self.tally.note(outcome);
        match outcome {
            Outcome::Committed { .. } => {}
            Outcome::NotCommitted(reason) => self.end(Ending::Refused(reason)),
            // Nothing may be appended behind it that it could then follow.
            Outcome::Unknown => self.end(Ending::Done),
        }
    }

    fn ask_to_end(&mut self) {
        self.end(Ending::Asked);
        self.give_up_at = Some(Instant::now() + GRACE);
    }

    /// The first reason stands, but for a refusal: it tells more than that all was read.
    fn end(&mut self, ending: Ending) {
        if matches!(self.ending, None | Some(Ending::Done)) {
            self.ending = Some(ending);
        }
    }
}

/// Ready at that instant; never, if there is none.
async fn at(instant: Option<Instant>) {
    match instant {
        Some(instant) => sleep_until(instant).await,
        None => std::future::pending().await,
    }
}

async fn next_outcome(pending: &mut VecDeque<Pending>) -> Outcome {
    let outcome = pending
        .front_mut()
        .expect("asked only when something is pending")
        .await;
    pending.pop_front();
    outcome
}

fn source_failure(error: &LineError) -> Failure {
    match error {
        LineError::TooLong(line) => {
            let limit = show_size(RECORD_SIZE_MAX as u64);
            Failure::new(
                Exit::Refused,
                format!("line {line} is longer than a record may be, {limit}"),
            )
            .fix("the lines before it are appended; cut it, or store it elsewhere and append where")
        }
        LineError::Read(error) => {
            Failure::new(Exit::Internal, format!("cannot read stdin: {error}"))
        }
    }
}
