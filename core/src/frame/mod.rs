//! Frames: how bytes on a connection become checked messages, and messages bytes.
//!
//! A frame is a header of fixed layout, a body that rkyv reads in place, and a payload that this
//! module never looks into.
//! Hop 2 of the data path. Knows
//! no connection and no meaning of a message; `docs/FORMAT.md` has every byte.

pub mod sum;
