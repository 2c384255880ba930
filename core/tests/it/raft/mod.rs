//! Raft without a shard: scripts first, then seeds.

mod host;
mod network;
mod oracle;
mod promises;
mod scripts;
