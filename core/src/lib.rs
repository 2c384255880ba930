//! The deciding half of Ringwood.
//!
//! This crate knows no socket, file, clock, thread, environment or randomness: time, bytes and
//! completions come in as arguments, and what is to be done leaves as values. The modules stand in
//! the order in which a record meets them.

#[cfg(not(feature = "bugs"))]
mod bugs;
#[cfg(feature = "bugs")]
pub mod bugs;

pub mod id;
pub mod limits;

pub mod client;
pub mod frame;
pub mod log;
pub mod raft;
pub mod shard;
#[cfg(feature = "sim")]
pub mod sim;
