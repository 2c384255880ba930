//! One thread's io_uring. Under construction.

mod errno;
mod handle;
mod spin;

pub use errno::{Family, IoError};
pub use handle::{File, Socket};
pub use spin::{SPIN_LIMIT, Spin, SpinCounters, SpinEnd, SpinMode};
