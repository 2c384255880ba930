//! The only place that asks the time and that draws randomness; everything else is handed both.
//!
//! Knows nothing of what either is used for. Off the data path but for one reading a turn.

use ringwood_core::id::{Nanos, UnixSeconds};
use rustix::io::Errno;
use rustix::rand::{GetRandomFlags, getrandom};
use rustix::time::{ClockId, clock_gettime};

/// Nanoseconds since the machine started, sleep included.
///
/// `CLOCK_BOOTTIME`, not `CLOCK_MONOTONIC`: a lease must expire while its holder's machine is
/// suspended. It is never set back and shares no epoch with any other machine.
#[must_use]
pub fn now() -> Nanos {
    let time = clock_gettime(ClockId::Boottime);
    assert!(time.tv_sec >= 0, "time before the machine started");
    Nanos(time.tv_sec.unsigned_abs() * 1_000_000_000 + time.tv_nsec.unsigned_abs())
}

/// Seconds since 1970, as whoever set this machine's clock has it: for ages, never for order.
#[must_use]
pub fn date() -> UnixSeconds {
    let time = clock_gettime(ClockId::Realtime);
    UnixSeconds(u64::try_from(time.tv_sec).unwrap_or(0))
}

/// Fills `bytes` from the kernel's generator, waiting for it to be seeded (once, early in boot).
///
/// # Panics
/// If the kernel has no `getrandom`: then it is older than any that has io_uring.
pub fn fill_random(bytes: &mut [u8]) {
    let mut filled = 0;
    while filled < bytes.len() {
        match getrandom(&mut bytes[filled..], GetRandomFlags::empty()) {
            Ok(count) => filled += count,
            Err(Errno::INTR) => {}
            Err(error) => panic!("getrandom: {error}"),
        }
    }
}

/// A random 64-bit number: the seed of a shard's own generator, an incarnation, a producer.
#[must_use]
pub fn random_u64() -> u64 {
    let mut bytes = [0; 8];
    fill_random(&mut bytes);
    u64::from_ne_bytes(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_never_goes_back() {
        let mut last = now();
        assert!(last > Nanos(0));
        for _ in 0..10_000 {
            let next = now();
            assert!(next >= last);
            last = next;
        }
    }

    #[test]
    fn random_numbers_differ() {
        let drawn: std::collections::BTreeSet<u64> = (0..64).map(|_| random_u64()).collect();
        assert_eq!(drawn.len(), 64);
    }
}
