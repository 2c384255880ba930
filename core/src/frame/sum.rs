//! The one checksum of Ringwood: CRC-32C, of frames, blocks, flushes and segments alike.
//!
//! Keeps the choice of polynomial and of implementation in one place; knows no layout. A sum tells
//! damage from no damage; it authenticates nobody.

use crc_fast::{CrcAlgorithm, Digest};

/// CRC-32C (Castagnoli, reflected, as in iSCSI) of `bytes`.
#[must_use]
#[inline]
pub fn crc32c(bytes: &[u8]) -> u32 {
    // The named function skips the match over a hundred algorithms; below 256 bytes, the size of
    // every header, that match would be a good part of the work.
    crc_fast::crc32_iscsi(bytes)
}

/// A CRC-32C over bytes that do not lie together; equal to [`crc32c`] of them joined.
#[derive(Clone, Copy, Debug)]
pub struct Sum {
    digest: Digest,
}

impl Sum {
    /// The sum of nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self {
            digest: Digest::new(CrcAlgorithm::Crc32Iscsi),
        }
    }

    /// Goes on where a sum of earlier bytes ended with `value`.
    #[must_use]
    pub fn resumed(value: u32) -> Self {
        // The value is the inner state with all its bits turned over.
        let state = u64::from(!value);
        Self {
            digest: Digest::new_with_init_state(CrcAlgorithm::Crc32Iscsi, state),
        }
    }

    /// Adds the next bytes.
    #[inline]
    pub fn update(&mut self, bytes: &[u8]) {
        self.digest.update(bytes);
    }

    /// The sum of all bytes so far; more may follow.
    #[must_use]
    pub fn value(&self) -> u32 {
        let value = self.digest.finalize();
        assert!(value <= u64::from(u32::MAX), "a 32-bit sum came out wider");
        value as u32
    }
}

impl Default for Sum {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One bit at a time, straight from the definition.
    fn slow(bytes: &[u8]) -> u32 {
        let mut sum = u32::MAX;
        for byte in bytes {
            sum ^= u32::from(*byte);
            for _ in 0..8 {
                sum = (sum >> 1) ^ (0x82F6_3B78 * (sum & 1));
            }
        }
        !sum
    }

    #[test]
    fn the_check_value_of_the_catalogue_comes_out() {
        assert_eq!(crc32c(b"123456789"), 0xE306_9283);
        assert_eq!(crc32c(b""), 0);
        assert_eq!(Sum::new().value(), 0);
    }

    #[test]
    fn every_size_agrees_with_the_definition() {
        let bytes: Vec<u8> = (0..1200_u32).map(|i| (i * 31 % 251) as u8).collect();
        for size in 0..bytes.len() {
            assert_eq!(crc32c(&bytes[..size]), slow(&bytes[..size]), "{size} bytes");
        }
    }

    #[test]
    fn a_sum_in_pieces_is_the_sum_of_the_whole() {
        let bytes: Vec<u8> = (0..700_u32).map(|i| (i * 17 % 249) as u8).collect();
        for cut in 0..bytes.len() {
            let mut sum = Sum::new();
            sum.update(&bytes[..cut]);
            let mut resumed = Sum::resumed(sum.value());
            for sum in [&mut sum, &mut resumed] {
                sum.update(&bytes[cut..]);
                assert_eq!(sum.value(), crc32c(&bytes), "cut at {cut}");
            }
        }
    }
}
