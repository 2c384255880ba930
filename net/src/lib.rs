//! The byte-moving half of Ringwood. It decides nothing: what is to be sent, written or read is an
//! effect of `ringwood-core`, and what came of it goes back as an input.
//!
//! | module | noun |
//! | --- | --- |
//! | `ring`, `clock` | the kernel: io_uring, time, randomness; the only `unsafe` |
//! | `disk`, `files` | a directory, its journal and segments |
//! | `memory` | that it is not swapped out |
//! | `stream`, `conn`, `patience`, `peers`, `names` | bytes to and from clients and other nodes, wherever those are now |
//! | `turn`, `accepted`, `perform` | the loop: collect, step, carry out, enter once |
//! | `beside` | what would make the loop wait |
//! | `config`, `node`, `notices`, `failure` | who a node is, how it starts, what it has to say, why it ends |
//! | `cluster` | several nodes in one process |
//! | `unpin` | an operator's word that a voter's directory is another one |
//! | `client` | the other side: an async client for programs outside the nodes |

mod accepted;
mod beside;
pub mod client;
pub mod clock;
pub mod cluster;
pub mod config;
mod conn;
pub mod disk;
pub mod failure;
mod files;
mod memory;
mod names;
pub mod node;
mod notices;
mod patience;
mod peers;
mod perform;
pub mod ring;
mod stream;
mod turn;
mod unpin;

pub use cluster::{Cluster, ClusterOptions};
pub use config::{Layout, VoterAddress, init};
pub use failure::{NodeFailure, StartError};
pub use memory::MemoryLock;
pub use node::{Node, NodeBuilder};
pub use unpin::unpin;
