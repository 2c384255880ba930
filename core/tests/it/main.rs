//! Tests of the core from outside, in one binary.

mod frame;
mod seeds;
