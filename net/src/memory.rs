//! Whether this process's memory stays in memory. What was checked once on its way in must not come
//! back changed from a swap device, which nobody checks.
//!
//! Asks the kernel once, for the whole process: an embedder decides whether it is to.

use std::fmt;

use rustix::mm::{MlockAllFlags, mlockall};
use rustix::process::{Resource, getrlimit};

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemoryLock {
    /// Nothing of this process is swapped out.
    Locked,
    /// It could be, but there is nowhere to.
    NoSwap,
    /// It may be.
    Swappable,
}

impl fmt::Display for MemoryLock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Locked => "memory: locked",
            Self::NoSwap => "memory: not locked, and this machine has no swap",
            Self::Swappable => {
                "memory: swap is not refused; fix: LimitMEMLOCK=infinity (ulimit -l unlimited), or \
                 swapoff"
            }
        })
    }
}

/// Locks what memory this process has and will have, as soon as it uses it, where it may lock
/// without bound: under a bound, the allocation that passes it would fail some day.
#[must_use]
pub(crate) fn lock() -> MemoryLock {
    let flags = MlockAllFlags::CURRENT | MlockAllFlags::FUTURE | MlockAllFlags::ONFAULT;
    if may_lock_all() && mlockall(flags).is_ok() {
        return MemoryLock::Locked;
    }
    // Where the list cannot be read there may be some.
    let swaps = std::fs::read_to_string("/proc/swaps");
    match swaps.is_ok_and(|list| !has_swap(&list)) {
        true => MemoryLock::NoSwap,
        false => MemoryLock::Swappable,
    }
}

fn may_lock_all() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    getrlimit(Resource::Memlock).current.is_none() || has_ipc_lock(&status)
}

/// Whether a process of this status may lock memory whatever its limit says.
fn has_ipc_lock(status: &str) -> bool {
    const CAP_IPC_LOCK: u32 = 14;
    let mut lines = status.lines();
    let effective = lines.find_map(|line| line.strip_prefix("CapEff:"));
    let effective = effective.and_then(|set| u64::from_str_radix(set.trim(), 16).ok());
    effective.is_some_and(|set| set >> CAP_IPC_LOCK & 1 == 1)
}

/// The first line is a heading.
fn has_swap(list: &str) -> bool {
    list.lines().skip(1).any(|line| !line.trim().is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_lists_are_read() {
        assert!(has_ipc_lock(
            "Name:\tx\nCapEff:\t000001ffffffffff\nSeccomp:\t0\n"
        ));
        assert!(has_ipc_lock("CapEff:\t0000000000004000\n"));
        assert!(!has_ipc_lock("CapEff:\t000001ffffffbfff\n"));
        assert!(!has_ipc_lock("CapInh:\t0000000000004000\n"));
        assert!(!has_swap("Filename\tType\tSize\tUsed\tPriority\n"));
        assert!(has_swap("Filename\tType\n/swapfile file 2097148 0 -2\n"));
    }

    #[test]
    fn what_may_not_be_said_of_a_locked_process_is_not() {
        let fix = MemoryLock::Swappable.to_string();
        assert!(fix.contains("; fix: "), "{fix}");
        for lock in [MemoryLock::Locked, MemoryLock::NoSwap] {
            assert!(!lock.to_string().contains("fix"), "nothing is to be done");
        }
    }
}
