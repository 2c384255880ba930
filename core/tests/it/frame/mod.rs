//! Frames from outside: fixed bytes, streams cut everywhere, every refusal.

mod golden;
mod refusals;
mod samples;
mod streams;
