//! The client's half of the protocol, without I/O: the simulator runs the one that ships.

mod outcome;
mod records;

pub use outcome::Outcome;
pub use records::{RECORD_PREFIX_SIZE, RecordTooLarge, Records, RecordsBuilder};
