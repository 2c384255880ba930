//! Load and measurements: how fast Ringwood is, and how fast this machine would let it be.
//!
//! Knows no command line. Nothing here is on the path of a record that is not a measurement.

pub mod fake;
pub mod histogram;
pub mod schedule;
pub mod tally;
pub mod target;
