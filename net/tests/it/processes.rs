//! Nodes as processes of their own, that can be killed with -9: this binary, started again. What they
//! say on stderr is kept, and shown where their test fails.

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use ringwood_net::{Layout, Node, VoterAddress, init};

/// Tells this binary, started again, which directory to serve.
const SERVE: &str = "RINGWOOD_TEST_SERVE";

/// Not a test of its own: the body of the processes that tests start and kill.
#[test]
fn serve_if_told() {
    let Ok(dir) = std::env::var(SERVE) else {
        return;
    };
    // A disk that fails keeps it from starting, or ends it. Whoever started it knows whether that
    // may be.
    let ended = match Node::builder(dir).start() {
        Ok(node) => node.wait().err().map(|error| error.to_string()),
        Err(error) => Some(error.to_string()),
    };
    if let Some(error) = ended {
        eprintln!("node ended: {error}");
        // As the product's binary does.
        std::process::exit(1);
    }
}

pub(crate) struct Processes {
    dirs: Vec<PathBuf>,
    /// What each has said, in all its lives.
    said: Vec<File>,
    pub(crate) children: Vec<Child>,
}

impl Processes {
    fn spawn(dir: &Path, said: &File) -> Child {
        Command::new(std::env::current_exe().expect("this binary"))
            .args(["--exact", "processes::serve_if_told", "--nocapture"])
            .env(SERVE, dir)
            .stdout(Stdio::null())
            .stderr(said.try_clone().expect("a descriptor"))
            .spawn()
            .expect("a process")
    }

    pub(crate) fn start(dirs: Vec<PathBuf>) -> Self {
        let said = dirs.iter().map(|_| tempfile::tempfile().expect("a file"));
        let said: Vec<File> = said.collect();
        let children = dirs.iter().zip(&said);
        let children = children.map(|(dir, said)| Self::spawn(dir, said)).collect();
        Self {
            dirs,
            said,
            children,
        }
    }

    /// Kills a node that runs: one that is gone already was ended by a fault of its own.
    pub(crate) fn kill(&mut self, position: usize) {
        let ended = self.children[position].try_wait().expect("our child");
        assert_eq!(ended, None, "node {position} ended before it was killed");
        self.end(position);
    }

    /// Kills a node, whether it runs or not.
    pub(crate) fn end(&mut self, position: usize) {
        self.children[position].kill().expect("it runs");
        self.children[position]
            .wait()
            .expect("it is this process's child");
    }

    pub(crate) fn restart(&mut self, position: usize) {
        self.children[position] = Self::spawn(&self.dirs[position], &self.said[position]);
    }

    /// With which exit code a node ends by itself, and how long that takes.
    pub(crate) fn wait_for_end(&mut self, position: usize) -> (Option<i32>, Duration) {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.children[position].try_wait().expect("our child") {
                return (status.code(), begun.elapsed());
            }
            let patience = Duration::from_secs(30);
            assert!(begun.elapsed() < patience, "node {position} does not end");
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    pub(crate) fn said(&self, position: usize) -> String {
        let mut said = vec![0; 1 << 20];
        let size = self.said[position].read_at(&mut said, 0).expect("readable");
        String::from_utf8_lossy(&said[..size]).into_owned()
    }
}

impl Drop for Processes {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for position in 0..self.dirs.len() {
                eprintln!("node {position} said:\n{}", self.said(position));
            }
        }
        for child in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Addresses that were free a moment ago.
pub(crate) fn free_addresses(count: usize) -> Vec<SocketAddr> {
    let listeners: Vec<TcpListener> = (0..count)
        .map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port"))
        .collect();
    listeners
        .iter()
        .map(|listener| listener.local_addr().expect("bound"))
        .collect()
}

/// Makes a node's home of each directory, all of one cluster, and gives their addresses.
pub(crate) fn make_homes(dirs: &[PathBuf]) -> Vec<String> {
    let addresses = free_addresses(dirs.len());
    let voters: Vec<VoterAddress> = (1..)
        .zip(&addresses)
        .map(|(number, address)| VoterAddress {
            name: format!("node-{number}"),
            address: address.to_string(),
        })
        .collect();
    for (dir, voter) in dirs.iter().zip(&voters) {
        let layout = Layout {
            cluster: "killed".into(),
            node: voter.name.clone(),
            voters: voters.clone(),
            logs: vec!["log-0".into()],
        };
        init(dir, &layout).expect("a new directory");
    }
    addresses.iter().map(ToString::to_string).collect()
}

/// Numbers that differ from run to run: the point is what must never vary.
pub(crate) fn dice() -> impl FnMut(u32) -> u32 {
    let mut state = std::process::id() | 1;
    move |bound| {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state % bound
    }
}
