//! Consensus of one group: who leads, and which blocks are decided.

mod conflict;
mod progress;
pub mod quorum;
mod timer;

pub use progress::{Progress, State as ProgressState};
pub use timer::Timeouts;
