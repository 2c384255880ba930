//! Raft's seeds, as its own tests play them: the same files.

#![allow(dead_code, reason = "Raft's own tests use the rest")]

#[path = "../it/raft/host.rs"]
mod host;
#[path = "../it/raft/oracle.rs"]
mod oracle;
#[path = "../it/raft/world.rs"]
pub(crate) mod world;
