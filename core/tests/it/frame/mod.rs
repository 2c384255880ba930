//! Frames from outside: fixed bytes, streams cut everywhere.

mod golden;
mod samples;
mod streams;
