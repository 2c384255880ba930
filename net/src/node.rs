//! A node that a program embeds: its directory, its thread, and how both end.
//!
//! No signal handler, no global logger, no runtime. A panic on a shard's thread ends the process:
//! a node that is half dead would keep its promises only by luck.

use std::collections::BTreeMap;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use crossbeam::channel::{Receiver, bounded};
use ringwood_core::frame::header::ClusterTag;
use ringwood_core::id::{GroupId, NodeId, ShardId};
use ringwood_core::shard::{Config, Retention, Shape, Shard};

use rustix::process::Resource;

use crate::clock;
use crate::config::{self, Identity, VoterAddress};
use crate::conn::Connections;
use crate::disk::{Access, Calibration, Directory};
use crate::failure::{NodeFailure, StartError};
use crate::files::Files;
use crate::memory::{self, MemoryLock};
use crate::names::{self, Names};
use crate::notices::Notices;
use crate::peers::Peers;
use crate::ring::{IoError, Ring, RingOptions, Socket, Waker};
use crate::turn::Turn;

/// How long a port may stay taken by what is left of a process that was killed.
const LISTEN_PATIENCE: std::time::Duration = std::time::Duration::from_secs(1);

/// How a node is started.
#[derive(Clone, Debug)]
pub struct NodeBuilder {
    dir: PathBuf,
    listener: Option<Socket>,
    listen: Option<SocketAddr>,
    voters: Option<Vec<VoterAddress>>,
    expected_name: Option<String>,
    access: Access,
    locks_memory: bool,
    ring: RingOptions,
    retention: BTreeMap<String, Retention>,
}

/// A running node. Dropping it stops it and waits.
#[derive(Debug)]
pub struct Node {
    address: SocketAddr,
    name: String,
    storage: String,
    memory: Option<MemoryLock>,
    uring: String,
    stopping: Arc<AtomicBool>,
    waker: Waker,
    notices: Receiver<String>,
    ended: Receiver<Result<(), NodeFailure>>,
    thread: Option<JoinHandle<()>>,
}

/// What the shard's thread reports once it runs.
struct Started {
    waker: Waker,
    uring: String,
}

impl Node {
    /// A builder for the node whose directory `init` made at `dir`.
    #[must_use]
    pub fn builder(dir: impl Into<PathBuf>) -> NodeBuilder {
        NodeBuilder {
            dir: dir.into(),
            listener: None,
            listen: None,
            voters: None,
            expected_name: None,
            access: Access::Direct,
            locks_memory: false,
            ring: RingOptions::default(),
            retention: BTreeMap::new(),
        }
    }

    /// Where it listens; with port 0 asked for, the port it got.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How its disk is written, measured at the start, in words.
    #[must_use]
    pub fn storage(&self) -> &str {
        &self.storage
    }

    /// Whether its memory is locked, if it was asked to lock it.
    #[must_use]
    pub fn memory(&self) -> Option<MemoryLock> {
        self.memory
    }

    /// What of io_uring is used, in words.
    #[must_use]
    pub fn uring(&self) -> &str {
        &self.uring
    }

    /// What it had to say since this was asked last: a sentence each, for whoever runs it.
    #[must_use]
    pub fn take_notices(&self) -> Vec<String> {
        self.notices.try_iter().collect()
    }

    /// Whether its thread still runs.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.thread
            .as_ref()
            .is_some_and(|thread| !thread.is_finished())
    }

    /// Stops it: writes in flight end, sockets close, the directory is free afterwards.
    ///
    /// # Errors
    /// What had ended it before it was asked.
    pub fn stop(mut self) -> Result<(), NodeFailure> {
        self.end()
    }

    /// Blocks until the node ends by itself.
    ///
    /// # Errors
    /// Why it ended.
    pub fn wait(&self) -> Result<(), NodeFailure> {
        self.ended.recv().unwrap_or(Err(NodeFailure::Vanished))
    }

    fn end(&mut self) -> Result<(), NodeFailure> {
        let Some(thread) = self.thread.take() else {
            return Ok(());
        };
        self.stopping.store(true, Ordering::Release);
        self.waker.wake();
        let joined = thread.join();
        assert!(
            joined.is_ok(),
            "a panic on a shard ends the process before anybody joins"
        );
        self.ended.try_recv().unwrap_or(Ok(()))
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // Whoever wanted to know why it ended has called `stop` or `wait`.
        let _ = self.end();
    }
}

impl NodeBuilder {
    /// Listens here instead of where the voters' list says; port 0 takes any free one.
    #[must_use]
    pub fn listen(mut self, address: SocketAddr) -> Self {
        self.listen = Some(address);
        self
    }

    /// Takes a listener that is bound already, so that others could be told its port before.
    #[must_use]
    pub fn listener(mut self, listener: Socket) -> Self {
        self.listener = Some(listener);
        self
    }

    /// Reaches the voters here instead of where the directory's list says. Names must be the same.
    #[must_use]
    pub fn voters(mut self, voters: Vec<VoterAddress>) -> Self {
        self.voters = Some(voters);
        self
    }

    /// Refuses to start if the directory is another node's.
    #[must_use]
    pub fn expect_name(mut self, name: impl Into<String>) -> Self {
        self.expected_name = Some(name.into());
        self
    }

    /// Goes through the page cache where a file system offers no direct I/O. For trying things
    /// out: after a failed sync nobody knows what is on disk.
    #[must_use]
    pub fn buffered_io(mut self, buffered: bool) -> Self {
        self.access = if buffered {
            Access::BufferedForDevelopmentOnly
        } else {
            Access::Direct
        };
        self
    }

    /// Locks the memory of this whole process, where it may: nothing of it is swapped out then.
    #[must_use]
    pub fn lock_memory(mut self) -> Self {
        self.locks_memory = true;
        self
    }

    /// Sets up the ring otherwise than by default.
    #[must_use]
    pub fn ring(mut self, options: RingOptions) -> Self {
        self.ring = options;
        self
    }

    /// Lets go of what a log need not keep, while this node leads it. All of a log is kept where
    /// nothing is said.
    #[must_use]
    pub fn retain(mut self, log: impl Into<String>, retention: Retention) -> Self {
        self.retention.insert(log.into(), retention);
        self
    }

    /// Starts the node: recovers its journal, listens, and dials the others.
    ///
    /// # Errors
    /// Why it does not start; its log was not changed.
    pub fn start(self) -> Result<Node, StartError> {
        raise_descriptor_limit();
        let mut identity = Identity::read(&self.dir)?;
        if let Some(expected) = self.expected_name
            && expected != identity.node_name
        {
            let (found, cluster) = (identity.node_name, identity.cluster_name);
            return Err(StartError::WrongNode {
                found,
                cluster,
                expected,
            });
        }
        for voter in self.voters.iter().flatten() {
            move_voter(&mut identity, voter)?;
        }
        let retention = retention_of(&identity, self.retention)?;
        // The lock first: a second process must be refused before a byte changes.
        let directory = Directory::open(&self.dir, self.access)?;
        let restored = config::restore(&self.dir)?;
        let listener = match self.listener {
            Some(listener) => listener,
            None => listen(self.listen, &identity)?,
        };
        let address = listener
            .local_address()
            .map_err(|error| StartError::Listen {
                address: ([0, 0, 0, 0], 0).into(),
                error,
            })?;
        let peers = resolve_peers(&identity)?;
        let calibration = directory.calibrate()?;
        let memory = self.locks_memory.then(memory::lock);
        let storage = calibration.to_string();
        let name = identity.node_name.clone();
        let stopping = Arc::new(AtomicBool::new(false));
        let (notices, notices_received) = Notices::new(&identity.voters);
        restored.into_iter().for_each(|text| notices.say(text));
        let (report, started) = bounded(1);
        let (end, ended) = bounded(1);
        let options = self.ring;
        let thread = {
            let stopping = Arc::clone(&stopping);
            std::thread::Builder::new()
                .name(format!("shard-0 {name}"))
                .spawn(move || {
                    let _abort = AbortOnPanic;
                    let open = Open {
                        identity,
                        directory,
                        calibration,
                        memory,
                        listener,
                        peers,
                        notices,
                        options,
                        retention,
                    };
                    match open.open() {
                        Ok(mut turn) => {
                            let waker = turn.ring.waker();
                            let uring = turn.ring.probe().to_string();
                            let _ = report.send(Ok(Started { waker, uring }));
                            let result = turn.run(|| stopping.load(Ordering::Acquire));
                            drop(turn);
                            let _ = end.send(result);
                        }
                        Err(error) => {
                            let _ = report.send(Err(error));
                        }
                    }
                })
                .map_err(StartError::Thread)?
        };
        let Started { waker, uring } = started
            .recv()
            .expect("the thread reports, or ends the process")?;
        Ok(Node {
            address,
            name,
            storage,
            memory,
            uring,
            stopping,
            waker,
            notices: notices_received,
            ended,
            thread: Some(thread),
        })
    }
}

/// Reaches a voter at another address.
fn move_voter(identity: &mut Identity, moved: &VoterAddress) -> Result<(), StartError> {
    let mut voters = identity.voters.iter_mut();
    if let Some(voter) = voters.find(|voter| voter.name == moved.name) {
        voter.address.clone_from(&moved.address);
        return Ok(());
    }
    let names: Vec<&str> = identity
        .voters
        .iter()
        .map(|voter| voter.name.as_str())
        .collect();
    Err(StartError::UnknownVoter {
        name: moved.name.clone(),
        cluster: identity.cluster_name.clone(),
        voters: names.join(", "),
    })
}

/// What is kept of which group.
fn retention_of(
    identity: &Identity,
    retention: BTreeMap<String, Retention>,
) -> Result<BTreeMap<GroupId, Retention>, StartError> {
    let group_of = |(name, retention): (String, Retention)| {
        let log = identity.logs.iter().find(|log| log.name == name);
        match log {
            Some(log) => Ok((log.group, retention)),
            None => Err(StartError::UnknownLog {
                name,
                cluster: identity.cluster_name.clone(),
            }),
        }
    };
    retention.into_iter().map(group_of).collect()
}

/// Lets this process have as many descriptors as it is allowed: connections and segments need one
/// each, and the usual soft limit is for programs that need a few.
fn raise_descriptor_limit() {
    let mut limit = rustix::process::getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    // Where it is refused the old limit holds, and accepting pauses when it is reached.
    let _ = rustix::process::setrlimit(Resource::Nofile, limit);
}

/// What the shard's thread needs to begin.
struct Open {
    identity: Identity,
    directory: Directory,
    calibration: Calibration,
    memory: Option<MemoryLock>,
    listener: Socket,
    peers: Vec<(NodeId, SocketAddr)>,
    notices: Notices,
    options: RingOptions,
    retention: BTreeMap<GroupId, Retention>,
}

impl Open {
    fn open(self) -> Result<Turn, StartError> {
        let Self {
            identity,
            directory,
            calibration,
            memory,
            listener,
            peers,
            notices,
            options,
            retention,
        } = self;
        let mut ring = Ring::new(&options)?;
        let mut files = Files::open(directory, &calibration, ring.waker())?;
        files.register(&mut ring);
        let given = identity.voters.iter();
        let given = given.filter(|voter| voter.id != identity.node);
        let given = given.map(|voter| (voter.id, voter.address.clone()));
        let names =
            Names::start(given, ring.waker(), names::look_up).map_err(StartError::Thread)?;
        let config = Config {
            cluster: identity.cluster,
            cluster_name: identity.cluster_name,
            me: identity.node,
            incarnation: identity.incarnation,
            start: clock::random_u64().max(1),
            shard: ShardId(0),
            voters: identity.voters,
            retention,
            logs: identity.logs,
            seed: clock::random_u64(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            storage: match memory {
                None => calibration.to_string(),
                Some(memory) => format!("{calibration}; {memory}"),
            },
        };
        let tag = ClusterTag::of(config.cluster);
        let now = clock::now();
        let shard = Shard::open(
            now,
            config,
            Shape::STANDARD,
            &mut |source, position, size| files.read(source, position, size),
        )?;
        let peers = Peers::new(now, peers.into_iter(), names);
        Ok(Turn::new(
            ring,
            shard,
            peers,
            Connections::new(tag),
            files,
            listener,
            notices,
        ))
    }
}

/// Ends the process when its thread panics: whatever the thread held is in doubt.
struct AbortOnPanic;

impl Drop for AbortOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            std::process::abort();
        }
    }
}

fn listen(asked: Option<SocketAddr>, identity: &Identity) -> Result<Socket, StartError> {
    let address = match asked {
        Some(address) => address,
        None => resolve(&identity.node_name, identity.address())?,
    };
    listen_on(address)
}

/// Listens, with some patience: the kernel lets go of a killed process's listener only once it has
/// taken its ring apart, which is a little after the process is gone.
pub(crate) fn listen_on(address: SocketAddr) -> Result<Socket, StartError> {
    let begun = std::time::Instant::now();
    loop {
        match Socket::listen(address) {
            Ok(socket) => return Ok(socket),
            Err(IoError::AddressInUse) if begun.elapsed() < LISTEN_PATIENCE => {
                std::thread::sleep(std::time::Duration::from_millis(20));
            }
            Err(IoError::AddressInUse) => return Err(StartError::PortInUse { address }),
            Err(error) => return Err(StartError::Listen { address, error }),
        }
    }
}

fn resolve_peers(identity: &Identity) -> Result<Vec<(NodeId, SocketAddr)>, StartError> {
    let peers = identity
        .voters
        .iter()
        .filter(|voter| voter.id != identity.node);
    peers
        .map(|voter| Ok((voter.id, resolve(&voter.name, &voter.address)?)))
        .collect()
}

fn resolve(node: &str, address: &str) -> Result<SocketAddr, StartError> {
    let error = |error| StartError::Resolve {
        node: node.into(),
        address: address.into(),
        error,
    };
    let none = || std::io::Error::other("the name has no address");
    address
        .to_socket_addrs()
        .map_err(error)?
        .next()
        .ok_or_else(none)
        .map_err(error)
}
