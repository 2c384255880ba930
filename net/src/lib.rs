//! The byte-moving half of Ringwood. It decides nothing: what is to be sent, written or read is an
//! effect of `ringwood-core`, and what came of it goes back as an input.

pub mod client;
pub mod clock;
pub mod disk;
pub mod ring;
