//! Tests of the core from outside, in one binary.

mod frame;
mod log_crash;
mod log_disk;
mod log_golden;
mod log_journal;
