//! Frames from outside: fixed bytes.

mod golden;
mod samples;
