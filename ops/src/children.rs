//! Nodes as processes of their own, started by `dev --processes`.
//!
//! Each runs `serve` of this very binary and dies with us. One that dies first is reported and
//! left dead: killing nodes is what this mode is for, and who kills one may want to start it
//! again by hand.

use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use ringwood_net::config::Identity;
use ringwood_net::{Layout, VoterAddress};
use rustix::process::{Pid, Signal, getpid, kill_process};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, ChildStdout, Command};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::exit::{Exit, Failure};
use crate::output;
use crate::refusal;

/// How long a node that was asked to stop may take before it is killed.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);

/// What the children are to be.
#[derive(Debug)]
pub(crate) struct ChildrenOptions {
    /// Where each has its directory, made if it is missing.
    pub(crate) dir: PathBuf,
    /// Where each listens; as many nodes as addresses.
    pub(crate) addresses: Vec<String>,
    /// Name of the cluster.
    pub(crate) cluster: String,
    /// Its logs.
    pub(crate) logs: Vec<String>,
    /// Whether they write through the page cache.
    pub(crate) buffered_io: bool,
}

/// A child that was started; it may be dead by now.
#[derive(Debug)]
pub(crate) struct Started {
    /// Node's name.
    pub(crate) name: String,
    /// Its process.
    pub(crate) pid: u32,
    address: String,
    /// How to start it again by hand.
    serve: String,
}

/// All children.
#[derive(Debug)]
pub(crate) struct Children {
    started: Vec<Started>,
    /// A task for each living child: its number, and how it ended.
    lives: JoinSet<(usize, Option<ExitStatus>)>,
    stopping: watch::Sender<bool>,
}

impl Children {
    /// Makes directories that are missing, starts all nodes, and waits until each listens. If one
    /// does not, the others are stopped.
    pub(crate) async fn start(options: &ChildrenOptions) -> Result<Self, Failure> {
        let mut children = Self {
            started: Vec::new(),
            lives: JoinSet::new(),
            stopping: watch::Sender::new(false),
        };
        match children.start_all(options).await {
            Ok(()) => Ok(children),
            Err(failure) => {
                children.stop().await;
                Err(failure)
            }
        }
    }

    async fn start_all(&mut self, options: &ChildrenOptions) -> Result<(), Failure> {
        let mut starting = Vec::new();
        for number in 0..options.addresses.len() {
            let plan = Plan::new(options, number)?;
            let mut child = plan.spawn()?;
            let stdout = child.stdout.take().expect("stdout is a pipe");
            self.started.push(Started {
                name: plan.name,
                pid: child.id().expect("it was not waited for"),
                address: plan.address,
                serve: plan.serve,
            });
            let stopping = self.stopping.subscribe();
            self.lives
                .spawn(async move { (number, live(child, stopping).await) });
            starting.push(stdout);
        }
        for (number, stdout) in starting.into_iter().enumerate() {
            if !is_ready(stdout).await {
                let cause = format!("{} ended before it was ready", self.started[number].name);
                return Err(Failure::new(Exit::Refused, cause).fix("see what it said above"));
            }
        }
        Ok(())
    }

    /// The children in the order of their names.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Started> {
        self.started.iter()
    }

    /// Where they listen.
    pub(crate) fn addresses(&self) -> Vec<String> {
        self.started
            .iter()
            .map(|child| child.address.clone())
            .collect()
    }

    /// Reports each child that dies, for ever. May be dropped and called again.
    pub(crate) async fn watch(&mut self) -> ! {
        loop {
            let Some(ended) = self.lives.join_next().await else {
                std::future::pending().await
            };
            let (number, status) = ended.expect("watching a child does not panic");
            let child = &self.started[number];
            let how = status.map_or("it cannot be known how".to_string(), |s| s.to_string());
            output::message(format!("{} (pid {}) ended: {how}", child.name, child.pid));
            output::message(format!("  fix: {}", child.serve));
        }
    }

    /// Asks all that live to stop, and waits.
    pub(crate) async fn stop(mut self) {
        self.stopping.send_replace(true);
        while let Some(ended) = self.lives.join_next().await {
            let (number, status) = ended.expect("watching a child does not panic");
            if status.is_none() {
                let name = &self.started[number].name;
                output::message(format!("{name} did not stop and was killed"));
            }
        }
    }
}

/// One child before it is started.
struct Plan {
    name: String,
    address: String,
    home: PathBuf,
    voters: String,
    buffered_io: bool,
    serve: String,
}

impl Plan {
    fn new(options: &ChildrenOptions, number: usize) -> Result<Self, Failure> {
        let name = |number: usize| format!("node-{}", number + 1);
        let voters: Vec<VoterAddress> = options
            .addresses
            .iter()
            .enumerate()
            .map(|(number, address)| VoterAddress {
                name: name(number),
                address: address.clone(),
            })
            .collect();
        let home = options.dir.join(name(number));
        let words: Vec<_> = voters
            .iter()
            .map(|v| format!("{}={}", v.name, v.address))
            .collect();
        if !home.is_dir() {
            let layout = Layout {
                cluster: options.cluster.clone(),
                node: name(number),
                voters: voters.clone(),
                logs: options.logs.clone(),
            };
            ringwood_net::init(&home, &layout).map_err(|error| refusal::of_config(&error))?;
        }
        let mut plan = Self {
            name: name(number),
            address: options.addresses[number].clone(),
            home,
            voters: words.join(","),
            buffered_io: options.buffered_io,
            serve: String::new(),
        };
        plan.serve = plan.command_line(&voters)?;
        Ok(plan)
    }

    /// What to type to start this node by hand, no longer than needed.
    fn command_line(&self, voters: &[VoterAddress]) -> Result<String, Failure> {
        let identity = Identity::read(&self.home).map_err(|error| refusal::of_config(&error))?;
        let is_known = |voter: &VoterAddress| {
            identity
                .voters
                .iter()
                .any(|v| v.name == voter.name && v.address == voter.address)
        };
        let mut line = format!("{} serve {}", output::program(), self.home.display());
        if !voters.iter().all(is_known) {
            line.push_str(&format!(" --voters {}", self.voters));
        }
        if self.buffered_io {
            line.push_str(" --buffered-io");
        }
        Ok(line)
    }

    /// Starts the process. To be called on the main thread, whose life the child's is bound to.
    fn spawn(&self) -> Result<Child, Failure> {
        let fault = |error| {
            Failure::new(
                Exit::Internal,
                format!("cannot start {}: {error}", self.name),
            )
        };
        let mut command = Command::new(std::env::current_exe().map_err(fault)?);
        command.arg("serve").arg(Path::new(&self.home));
        command.args(["--node", &self.name, "--voters", &self.voters]);
        command.args(["--die-with", &getpid().as_raw_nonzero().to_string()]);
        if self.buffered_io {
            command.arg("--buffered-io");
        }
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true);
        // A group of its own: Ctrl-C on the terminal is for us, and we pass on what it means.
        command.process_group(0);
        command.spawn().map_err(fault)
    }
}

/// Waits for the line that says that the node listens; false if it ended without. What it has to
/// say about that goes to our stderr by itself.
async fn is_ready(stdout: ChildStdout) -> bool {
    let mut lines = BufReader::new(stdout).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        if line.starts_with("ready") {
            return true;
        }
    }
    false
}

/// Until the child's end, by itself or because all are stopping. `None`: it had to be killed.
async fn live(mut child: Child, mut stopping: watch::Receiver<bool>) -> Option<ExitStatus> {
    tokio::select! {
        status = child.wait() => return status.ok(),
        _ = stopping.wait_for(|stopping| *stopping) => {}
    }
    // The number is given only while the child is not reaped, so no stranger is asked to stop.
    if let Some(pid) = child.id().and_then(|pid| Pid::from_raw(pid.cast_signed())) {
        // It may have ended just now, which is what is wanted.
        let _ = kill_process(pid, Signal::TERM);
    }
    if let Ok(status) = timeout(STOP_TIMEOUT, child.wait()).await {
        return status.ok();
    }
    let _ = child.kill().await;
    None
}
