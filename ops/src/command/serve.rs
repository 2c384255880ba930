//! `serve`: one node, until it is asked to stop.
//!
//! Starts the node that `init` made and waits. Knows nothing of what the node does; a node that
//! fails by itself ends the process with the cause.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ringwood_core::shard::Retention;
use ringwood_net::config::Identity;
use ringwood_net::{Node, VoterAddress};
use rustix::process::{Pid, Signal, getppid, set_parent_process_death_signal};

use super::init::parse_voter;
use crate::exit::{Exit, Failure};
use crate::flags::parse_name;
use crate::output;
use crate::refusal;
use crate::signals::Stop;
use crate::units::{parse_duration, parse_size};

/// How often a node is looked after. It says nothing when it ends by itself, and whoever waits for
/// it cannot stop it.
const CHECK_INTERVAL: Duration = Duration::from_millis(100);

/// Run one node
///
/// Prints a line that begins with 'ready' and its address once it listens; ends on SIGTERM or
/// Ctrl-C. A second Ctrl-C ends it at once, which costs nothing that was acknowledged.
#[derive(Debug, clap::Args)]
#[command(
    verbatim_doc_comment,
    after_help = "\
Examples:
  ringwood serve /var/lib/ringwood
  ringwood serve /var/lib/ringwood --listen 0.0.0.0:7401"
)]
pub(crate) struct Args {
    /// Directory made by 'init'
    dir: PathBuf,

    /// Where to listen [default: this node's address among the voters]
    #[arg(long, value_name = "IP:PORT")]
    listen: Option<SocketAddr>,

    /// Refuse to start if DIR is another node's
    #[arg(long, value_name = "NAME", value_parser = parse_name)]
    node: Option<String>,

    /// Addresses of voters that have moved since 'init'; names stay
    #[arg(long, value_name = "NAME=HOST:PORT,..", value_delimiter = ',')]
    #[arg(value_parser = parse_voter)]
    voters: Vec<VoterAddress>,

    /// Let go of a log's oldest files while the others hold so much; give it to every node
    #[arg(long, value_name = "LOG=SIZE,..", value_delimiter = ',')]
    #[arg(value_parser = parse_retained_size)]
    retain_size: Vec<(String, u64)>,

    /// Let go of a log's files once all that is in them is so old; give it to every node
    #[arg(long, value_name = "LOG=AGE,..", value_delimiter = ',')]
    #[arg(value_parser = parse_retained_age)]
    retain_for: Vec<(String, Duration)>,

    /// Write through the page cache, where a file system has no direct I/O; to try things out only
    #[arg(long)]
    buffered_io: bool,

    /// End with the process of this number, which started this one
    #[arg(long, value_name = "PID", hide = true, value_parser = parse_pid)]
    die_with: Option<Pid>,
}

fn parse_retained_size(text: &str) -> Result<(String, u64), String> {
    let (log, size) = parse_of_log(text, "log-0=10GiB")?;
    Ok((log, parse_size(size)?))
}

fn parse_retained_age(text: &str) -> Result<(String, Duration), String> {
    let (log, age) = parse_of_log(text, "log-0=168h")?;
    Ok((log, parse_duration(age)?))
}

fn parse_of_log<'a>(text: &'a str, example: &str) -> Result<(String, &'a str), String> {
    let wrong = || format!("'{text}' names no log: {example}");
    let (log, value) = text.split_once('=').ok_or_else(wrong)?;
    Ok((parse_name(log)?, value))
}

/// What is kept of each log that is named.
fn retentions(
    sizes: Vec<(String, u64)>,
    ages: Vec<(String, Duration)>,
) -> BTreeMap<String, Retention> {
    let mut retentions: BTreeMap<String, Retention> = BTreeMap::new();
    for (log, size) in sizes {
        retentions.entry(log).or_default().bytes = Some(size);
    }
    for (log, age) in ages {
        retentions.entry(log).or_default().seconds = Some(age.as_secs());
    }
    retentions
}

/// Runs the node until it is asked to stop or fails.
pub(crate) async fn run(args: Args) -> Result<Exit, Failure> {
    let mut stop = Stop::listen()?;
    if let Some(parent) = args.die_with
        && !is_bound_to(parent)?
    {
        return Ok(Exit::Interrupted);
    }
    require_voters(&args.dir, &args.voters)?;
    let mut builder = Node::builder(args.dir)
        .buffered_io(args.buffered_io)
        .lock_memory();
    if let Some(address) = args.listen {
        builder = builder.listen(address);
    }
    if let Some(name) = args.node {
        builder = builder.expect_name(name);
    }
    if !args.voters.is_empty() {
        builder = builder.voters(args.voters);
    }
    for (log, retention) in retentions(args.retain_size, args.retain_for) {
        builder = builder.retain(log, retention);
    }
    let node = builder.start().map_err(refusal::of_start)?;
    // A child of `dev` is silent about what is the same for all of them; `status` tells it too.
    if args.die_with.is_none() {
        output::message(format!("storage: {}", node.storage()));
        if let Some(memory) = node.memory() {
            output::message(memory);
        }
        output::message(format!("ring: {}", node.uring().trim_end()));
    }
    let _ = output::print(&format!("ready {} {}\n", node.address(), node.name()))?;
    while node.is_running() {
        for notice in node.take_notices() {
            output::message(notice);
        }
        tokio::select! {
            _ = stop.asked() => break,
            () = tokio::time::sleep(CHECK_INTERVAL) => {}
        }
    }
    // Off this thread, so that a second Ctrl-C is heard; it is the main thread that counts.
    let stopped = tokio::task::spawn_blocking(|| node.stop()).await;
    match stopped {
        Ok(Ok(())) => Ok(Exit::Ok),
        Ok(Err(failure)) => Err(Failure::new(Exit::Internal, failure)),
        Err(panic) => Err(Failure::new(Exit::Internal, panic)),
    }
}

/// Refuses addresses for nodes that are none of the directory's voters: its cluster is another one.
fn require_voters(dir: &Path, voters: &[VoterAddress]) -> Result<(), Failure> {
    if voters.is_empty() {
        return Ok(());
    }
    let identity = Identity::read(dir).map_err(|error| refusal::of_config(&error))?;
    let is_known = |voter: &&VoterAddress| identity.voters.iter().any(|v| v.name == voter.name);
    let Some(stranger) = voters.iter().find(|voter| !is_known(voter)) else {
        return Ok(());
    };
    let names: Vec<_> = identity
        .voters
        .iter()
        .map(|voter| voter.name.as_str())
        .collect();
    let cause = format!(
        "{} is no voter of cluster {}",
        stranger.name, identity.cluster_name
    );
    Err(Failure::new(Exit::Refused, cause).fix(format!("its voters are {}", names.join(", "))))
}

/// Binds this process's life to its parent's: killed when that dies, however it dies. False if it
/// is gone already. The kernel watches the parent's *thread*: `dev` starts children on its main
/// one.
fn is_bound_to(parent: Pid) -> Result<bool, Failure> {
    set_parent_process_death_signal(Some(Signal::KILL)).map_err(|error| {
        Failure::new(Exit::Internal, format!("cannot watch the parent: {error}"))
    })?;
    Ok(getppid() == Some(parent))
}

fn parse_pid(text: &str) -> Result<Pid, String> {
    let number = text.parse().map_err(|_| "not a number")?;
    Pid::from_raw(number)
        .filter(|_| number > 0)
        .ok_or_else(|| "not a process".into())
}
