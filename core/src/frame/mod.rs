//! Bytes between nodes, and the one checksum of all formats.

pub mod sum;
