//! Tests of the deciding half that need more room than a file's end.

mod log_crash;
mod log_disk;
mod log_golden;
mod log_journal;
