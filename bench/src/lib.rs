//! Load and measurements: how fast Ringwood is, and how fast this machine would let it be.
//!
//! ```text
//!   schedule  payload                 what is offered, and when
//!   workload  line  wait              who offers it, and what is in flight
//!   target  fake                      who takes it
//!   readers                           who reads meanwhile
//!   histogram  tally  intervals       what it came to
//!   floor                             what the machine allows
//!   report  page  floor_report  environment   what is told of it
//!   repeats  sweep  objective  runs   of many runs: how far to trust them, the knee, a bound held
//! ```
//! Knows no command line. Nothing here is on the path of a record that is not a measurement.

pub mod environment;
pub mod fake;
pub mod floor;
pub mod floor_report;
pub mod histogram;
pub mod intervals;
mod line;
pub mod objective;
mod page;
pub mod payload;
pub mod readers;
pub mod repeats;
pub mod report;
mod runs;
pub mod schedule;
pub mod sweep;
pub mod tally;
pub mod target;
mod wait;
pub mod workload;
