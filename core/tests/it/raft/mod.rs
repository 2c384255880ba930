//! Raft without a shard: scripts first, then promises one by one, then seeds.

mod alone;
mod blocks;
mod decided;
mod doubt;
mod host;
mod network;
mod oracle;
mod scripts;
mod votes;
mod world;
