//! `dev`: a whole cluster on this machine, to try things on.
//!
//! Finds or makes its directory, starts the nodes, waits until every log has a leader, says so,
//! and ends them again. The nodes are real ones; whether they share this process or have one each
//! is `Nodes`' to know.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ringwood_core::limits::VOTER_COUNT_MAX;
use ringwood_net::cluster::default_logs;
use ringwood_net::{Cluster, ClusterOptions, Node};
use tokio::time::Instant;

use crate::children::{Children, ChildrenOptions};
use crate::connect;
use crate::exit::{Exit, Failure};
use crate::output;
use crate::refusal;
use crate::signals::Stop;

/// How long nodes may take to elect leaders before we say that we wait.
const PATIENCE: Duration = Duration::from_secs(5);

/// How often nodes are asked whether all logs have a leader.
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// How often nodes in this process are looked after.
const CHECK_INTERVAL: Duration = Duration::from_millis(100);

/// Run a cluster on this machine
///
/// Nodes listen on PORT, PORT+1, ...; logs are log-0 to log-15. Prints a line that begins with
/// 'ready' and the endpoints once every log has a leader; ends on SIGTERM or Ctrl-C, a second
/// Ctrl-C ends it at once. Records stay in DIR: 'dev --dir DIR' has them again.
#[derive(Debug, clap::Args)]
#[command(
    verbatim_doc_comment,
    after_help = "\
Examples:
  ringwood dev                             three nodes, a fresh directory
  ringwood dev --dir try                   the same, kept; again to reopen
  ringwood dev --dir try --processes       a process per node: kill -9 them, 'serve' them again
  ringwood dev --nodes 5 --port 0          five nodes on any free ports"
)]
pub(crate) struct Args {
    /// Nodes [default: 3, or as many as DIR has]
    #[arg(long, value_name = "N")]
    nodes: Option<usize>,

    /// Where the nodes' directories are, made if need be [default: a fresh one under /var/tmp]
    #[arg(long)]
    dir: Option<PathBuf>,

    /// Port of the first node; 0 takes any free ones
    #[arg(long, default_value_t = 7401)]
    port: u16,

    /// A process per node instead of one for all
    #[arg(long)]
    processes: bool,

    /// Write through the page cache, where a file system has no direct I/O; to try things out only
    #[arg(long)]
    buffered_io: bool,
}

/// Starts, waits, stops.
pub(crate) async fn run(args: Args) -> Result<Exit, Failure> {
    let mut stop = Stop::listen()?;
    check(&args)?;
    let home = Home::find_or_make(args.dir.as_deref(), args.nodes)?;
    let mut nodes = Nodes::start(&args, &home).await?;
    tokio::select! {
        () = until_led(nodes.endpoints()) => {
            // A reader that has read enough ends nothing: the cluster is what was asked for.
            let _ = output::print(&ready(&nodes, &home))?;
            tokio::select! {
                _ = stop.asked() => {}
                failure = nodes.watch() => return Err(failure),
            }
        }
        _ = stop.asked() => {}
        failure = nodes.watch() => return Err(failure),
    }
    nodes.stop().await?;
    let dir = home.path.display();
    output::message(format!(
        "stopped; reopen with: {} dev --dir {dir}",
        output::program()
    ));
    Ok(Exit::Ok)
}

fn check(args: &Args) -> Result<(), Failure> {
    let count = args.nodes.unwrap_or(1);
    if count == 0 || count > VOTER_COUNT_MAX {
        return Err(
            Failure::new(Exit::Usage, format!("a cluster of {count} nodes cannot be"))
                .fix(format!("--nodes 1 to {VOTER_COUNT_MAX}")),
        );
    }
    if args.port > u16::MAX - VOTER_COUNT_MAX as u16 {
        let cause = format!("after port {} there are too few for all nodes", args.port);
        return Err(Failure::new(Exit::Usage, cause).fix("a lower --port, or 0 for any free ones"));
    }
    Ok(())
}

/// Where a development cluster lives: a directory with one for each node, `node-1`, `node-2`, ...
#[derive(Debug)]
struct Home {
    path: PathBuf,
    node_count: usize,
}

impl Home {
    fn find_or_make(path: Option<&Path>, asked: Option<usize>) -> Result<Self, Failure> {
        let Some(path) = path else {
            let path = make_temporary()?;
            return Ok(Self {
                path,
                node_count: asked.unwrap_or(3),
            });
        };
        let shown = path.display();
        let io = |error| {
            Failure::new(Exit::Refused, format!("{shown}: {error}"))
                .fix("another --dir, one that can be written to")
        };
        std::fs::create_dir_all(path).map_err(io)?;
        let path = path.canonicalize().map_err(io)?;
        let there = (1..)
            .take_while(|number| path.join(format!("node-{number}")).is_dir())
            .count();
        if there == 0 {
            if std::fs::read_dir(&path).map_err(io)?.next().is_some() {
                return Err(
                    Failure::new(Exit::Refused, format!("{shown} holds other things"))
                        .fix("an empty --dir, or a new one"),
                );
            }
            return Ok(Self {
                path,
                node_count: asked.unwrap_or(3),
            });
        }
        if let Some(asked) = asked
            && asked != there
        {
            return Err(Failure::new(
                Exit::Refused,
                format!("{shown} holds {there} nodes, not {asked}"),
            )
            .fix(format!("--nodes {there}, or another --dir")));
        }
        Ok(Self {
            path,
            node_count: there,
        })
    }
}

/// Makes a directory that was not there before. Under /var/tmp if there is one: /tmp is often
/// memory, and then neither durable nor open to direct I/O.
fn make_temporary() -> Result<PathBuf, Failure> {
    let stable = Path::new("/var/tmp");
    let base = match std::env::var_os("TMPDIR") {
        Some(base) => PathBuf::from(base),
        None if stable.is_dir() => stable.to_path_buf(),
        None => std::env::temp_dir(),
    };
    let process = std::process::id();
    for number in 0..1000 {
        let path = base.join(format!("ringwood-dev-{process}-{number}"));
        match std::fs::create_dir(&path) {
            Ok(()) => return Ok(path),
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(error) => {
                return Err(
                    Failure::new(Exit::Refused, format!("{}: {error}", path.display()))
                        .fix("--dir DIR, or TMPDIR, where it can be written to"),
                );
            }
        }
    }
    Err(Failure::new(Exit::Internal, format!("{} is full of us", base.display())).fix("--dir DIR"))
}

/// The nodes, in this process or in one each.
#[derive(Debug)]
enum Nodes {
    Embedded(Cluster),
    Processes(Children),
}

impl Nodes {
    async fn start(args: &Args, home: &Home) -> Result<Self, Failure> {
        if args.processes {
            let options = ChildrenOptions {
                dir: home.path.clone(),
                addresses: addresses(args.port, home.node_count)?,
                cluster: "dev".to_string(),
                logs: default_logs(),
                buffered_io: args.buffered_io,
            };
            return Children::start(&options).await.map(Self::Processes);
        }
        let options = ClusterOptions {
            node_count: home.node_count,
            first_port: args.port,
            cluster: "dev".to_string(),
            logs: default_logs(),
            buffered_io: args.buffered_io,
        };
        Cluster::start(&home.path, options)
            .map(Self::Embedded)
            .map_err(refusal::of_start)
    }

    fn endpoints(&self) -> Vec<String> {
        match self {
            Self::Embedded(cluster) => cluster.endpoints(),
            Self::Processes(children) => children.addresses(),
        }
    }

    /// Looks after the nodes and reports each that ends; returns when none can be had back.
    async fn watch(&mut self) -> Failure {
        match self {
            Self::Embedded(cluster) => watch_embedded(cluster).await,
            Self::Processes(children) => children.watch().await,
        }
    }

    async fn stop(self) -> Result<(), Failure> {
        match self {
            // Off this thread, so that a second Ctrl-C is heard.
            Self::Embedded(cluster) => tokio::task::spawn_blocking(|| cluster.stop())
                .await
                .map_err(|panic| Failure::new(Exit::Internal, panic))?
                .map_err(|failure| Failure::new(Exit::Internal, failure)),
            Self::Processes(children) => {
                children.stop().await;
                Ok(())
            }
        }
    }
}

/// A node that fails in this process leaves the others running, as it would anywhere.
async fn watch_embedded(cluster: &mut Cluster) -> Failure {
    loop {
        tokio::time::sleep(CHECK_INTERVAL).await;
        let ended = |node: &Option<Node>| node.as_ref().is_some_and(|node| !node.is_running());
        let Some(position) = cluster.nodes().iter().position(ended) else {
            continue;
        };
        let name = format!("node-{}", position + 1);
        if let Err(failure) = cluster.stop_node(position) {
            output::message(format!("{name} ended: {failure}"));
        }
        if cluster.nodes().iter().all(Option::is_none) {
            return Failure::new(Exit::Internal, "no node is left")
                .fix("mend what ended them, then open the same --dir again");
        }
    }
}

/// Where each node is to listen.
fn addresses(first_port: u16, count: usize) -> Result<Vec<String>, Failure> {
    if first_port > 0 {
        return Ok((first_port..)
            .take(count)
            .map(|port| format!("127.0.0.1:{port}"))
            .collect());
    }
    // All are bound before any is let go, or one port could be had twice. Another process may take
    // one in between; then its node says so.
    let bind = || {
        TcpListener::bind("127.0.0.1:0").and_then(|listener| {
            let address = listener.local_addr()?;
            Ok((listener, address.to_string()))
        })
    };
    let bound: Result<Vec<_>, _> = (0..count).map(|_| bind()).collect();
    let bound =
        bound.map_err(|error| Failure::new(Exit::Refused, format!("no free port: {error}")))?;
    Ok(bound.into_iter().map(|(_, address)| address).collect())
}

/// Waits until every log has a leader, however long a busy disk makes that take.
async fn until_led(endpoints: Vec<String>) {
    let mut patience_ends = Instant::now() + PATIENCE;
    let mut say = |why: &str| {
        if Instant::now() > patience_ends {
            output::message(format!("waiting for leaders: {why}"));
            patience_ends = Instant::now() + PATIENCE;
        }
    };
    let client = loop {
        match connect::open_at(&endpoints).await {
            Ok(client) => break client,
            Err(error) => say(&error.to_string()),
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    };
    loop {
        let survey = connect::survey(&client).await;
        if survey.led_count() == survey.logs.len() {
            return;
        }
        say(&survey.reasons.join("; "));
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}

/// What a newcomer needs to know now.
fn ready(nodes: &Nodes, home: &Home) -> String {
    let endpoints = nodes.endpoints();
    let mut text = format!("ready {}\n", endpoints.join(","));
    if let Nodes::Processes(children) = nodes {
        for (child, endpoint) in children.iter().zip(&endpoints) {
            text.push_str(&format!("  {} {endpoint} pid {}\n", child.name, child.pid));
        }
    }
    text.push_str(&format!("  data in {}\n", home.path.display()));
    let program = output::program();
    text.push_str("try, in another terminal:\n");
    if endpoints
        .first()
        .is_none_or(|first| first != "127.0.0.1:7401")
    {
        text.push_str(&format!(
            "  export RINGWOOD_ENDPOINTS={}\n",
            endpoints.join(",")
        ));
    }
    for (words, note) in [
        ("append log-0", "  seq 1000 | "),
        ("read log-0 --from 990", "  "),
        ("tail log-0", "  "),
        ("status", "  "),
    ] {
        text.push_str(&format!("{note}{program} {words}\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn free_ports_are_all_different() {
        let mut addresses = addresses(0, 7).expect("seven free ports");
        addresses.sort_unstable();
        addresses.dedup();
        assert_eq!(addresses.len(), 7);
        assert_eq!(
            super::addresses(7401, 2).expect("given"),
            ["127.0.0.1:7401", "127.0.0.1:7402"]
        );
    }
}
