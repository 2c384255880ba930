//! Little-endian fields at fixed offsets, and rounding up. Knows no layout.
//!
//! A reader here panics beyond the end of its slice, so every caller judges the length first.

use bytes::{BufMut, BytesMut};

pub(super) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(
        bytes[at..at + 4]
            .try_into()
            .expect("four bytes were sliced"),
    )
}

pub(super) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(
        bytes[at..at + 8]
            .try_into()
            .expect("eight bytes were sliced"),
    )
}

pub(super) fn put_u32(bytes: &mut [u8], at: usize, value: u32) {
    bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
}

pub(super) fn put_u64(bytes: &mut [u8], at: usize, value: u64) {
    bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
}

/// `size` rounded up to a multiple of `unit`, a power of two.
pub(super) const fn round_up(size: usize, unit: usize) -> usize {
    assert!(unit.is_power_of_two(), "rounding is by powers of two");
    (size + unit - 1) & !(unit - 1)
}

pub(super) fn all_zero(bytes: &[u8]) -> bool {
    // In words: recovery looks at whole files of zeros with this.
    let (head, words) = bytes.split_at(bytes.len() % 16);
    head.iter().all(|byte| *byte == 0)
        && words
            .chunks_exact(16)
            .all(|word| u128::from_le_bytes(word.try_into().expect("chunks of sixteen bytes")) == 0)
}

/// Zeros up to the next multiple of `unit`, counted from the buffer's start.
pub(super) fn pad(buffer: &mut BytesMut, unit: usize) {
    let size = round_up(buffer.len(), unit);
    assert!(size <= buffer.capacity(), "padding must not move the run");
    buffer.put_bytes(0, size - buffer.len());
}
