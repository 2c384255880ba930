//! A whole cluster in one process, on loopback: for trying things out, for tests and examples.
//!
//! The nodes are real: own threads, rings, sockets and directories. Only the machine is shared.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use crate::config::{self, ConfigError, IDENTITY_COPY_FILE, IDENTITY_FILE, Layout, VoterAddress};
use crate::failure::{NodeFailure, StartError};
use crate::node::{Node, listen_on};

/// How an embedded cluster is made.
#[derive(Clone, Debug)]
pub struct ClusterOptions {
    /// Its name.
    pub cluster: String,
    /// Voters, named `node-1` and so on.
    pub node_count: usize,
    /// Port of the first node, the others follow; 0 takes any free ones.
    pub first_port: u16,
    /// Names of the logs.
    pub logs: Vec<String>,
    /// Through the page cache where the file system offers no direct I/O.
    pub buffered_io: bool,
}

impl Default for ClusterOptions {
    /// Three nodes on any ports, sixteen logs.
    fn default() -> Self {
        Self {
            cluster: "dev".to_owned(),
            node_count: 3,
            first_port: 0,
            logs: default_logs(),
            buffered_io: false,
        }
    }
}

/// The logs a cluster has if nothing else is said: `log-0` to `log-15`.
#[must_use]
pub fn default_logs() -> Vec<String> {
    (0..16).map(|number| format!("log-{number}")).collect()
}

/// An embedded cluster. Dropping it stops its nodes.
#[derive(Debug)]
pub struct Cluster {
    dir: PathBuf,
    options: ClusterOptions,
    voters: Vec<VoterAddress>,
    nodes: Vec<Option<Node>>,
}

impl Cluster {
    /// Makes or reopens a cluster below `dir`, one directory a node, and starts all of it.
    ///
    /// # Errors
    /// Why a node does not start; those started before it are stopped again.
    pub fn start(dir: &Path, options: ClusterOptions) -> Result<Self, StartError> {
        // Ports first: every node is told all of them.
        let mut listeners = Vec::with_capacity(options.node_count);
        let mut voters = Vec::with_capacity(options.node_count);
        for number in 0..options.node_count {
            let port = match options.first_port {
                0 => 0,
                first => port_of(first, number)?,
            };
            let listener = listen_on((Ipv4Addr::LOCALHOST, port).into())?;
            let address = listener
                .local_address()
                .map_err(|error| StartError::Listen {
                    address: (Ipv4Addr::LOCALHOST, port).into(),
                    error,
                })?;
            voters.push(VoterAddress {
                name: node_name(number),
                address: address.to_string(),
            });
            listeners.push(listener);
        }
        let mut cluster = Self {
            dir: dir.to_owned(),
            nodes: Vec::new(),
            voters,
            options,
        };
        for number in 0..cluster.options.node_count {
            cluster.init_node(number)?;
        }
        // Side by side: a new node fills its journal with zeros, and waits for the disk meanwhile.
        let started: Vec<Result<Node, StartError>> = std::thread::scope(|scope| {
            let starting: Vec<_> = listeners
                .into_iter()
                .enumerate()
                .map(|(number, listener)| {
                    let builder = cluster.builder(number).listener(listener);
                    scope.spawn(move || builder.start())
                })
                .collect();
            starting
                .into_iter()
                .map(|thread| thread.join().expect("a start does not panic"))
                .collect()
        });
        for node in started {
            cluster.nodes.push(Some(node?));
        }
        Ok(cluster)
    }

    /// `HOST:PORT` of every node, running or not.
    #[must_use]
    pub fn endpoints(&self) -> Vec<String> {
        self.voters
            .iter()
            .map(|voter| voter.address.clone())
            .collect()
    }

    /// The nodes; none where one was stopped.
    #[must_use]
    pub fn nodes(&self) -> &[Option<Node>] {
        &self.nodes
    }

    /// Position of the node with this name.
    #[must_use]
    pub fn position(&self, name: &str) -> Option<usize> {
        self.voters.iter().position(|voter| voter.name == name)
    }

    /// Stops one node; nothing if it is stopped already.
    ///
    /// # Errors
    /// What had ended it before.
    pub fn stop_node(&mut self, position: usize) -> Result<(), NodeFailure> {
        self.nodes[position].take().map_or(Ok(()), Node::stop)
    }

    /// Starts a node that was stopped, on its old port.
    ///
    /// # Errors
    /// Why it does not start.
    pub fn start_node(&mut self, position: usize) -> Result<(), StartError> {
        assert!(self.nodes[position].is_none(), "it runs already");
        self.nodes[position] = Some(self.builder(position).start()?);
        Ok(())
    }

    /// Stops all nodes.
    ///
    /// # Errors
    /// The first failure that had ended one before.
    pub fn stop(mut self) -> Result<(), NodeFailure> {
        let mut result = Ok(());
        for position in 0..self.nodes.len() {
            let stopped = self.stop_node(position);
            if result.is_ok() {
                result = stopped;
            }
        }
        result
    }

    fn init_node(&self, number: usize) -> Result<(), ConfigError> {
        let dir = self.node_dir(number);
        if dir.join(IDENTITY_FILE).exists() || dir.join(IDENTITY_COPY_FILE).exists() {
            return Ok(());
        }
        let layout = Layout {
            cluster: self.options.cluster.clone(),
            node: node_name(number),
            voters: self.voters.clone(),
            logs: self.options.logs.clone(),
        };
        config::init(&dir, &layout)
    }

    fn node_dir(&self, number: usize) -> PathBuf {
        self.dir.join(node_name(number))
    }

    fn builder(&self, number: usize) -> crate::node::NodeBuilder {
        let port = self.voters[number].address.parse::<SocketAddr>();
        Node::builder(self.node_dir(number))
            .expect_name(node_name(number))
            .voters(self.voters.clone())
            .listen(port.expect("it was an address when it was listened on"))
            .buffered_io(self.options.buffered_io)
    }
}

fn node_name(number: usize) -> String {
    format!("node-{}", number + 1)
}

fn port_of(first: u16, number: usize) -> Result<u16, ConfigError> {
    let port = usize::from(first) + number;
    u16::try_from(port).map_err(|_| ConfigError::Address {
        node: node_name(number),
        address: format!("127.0.0.1:{port}"),
    })
}
