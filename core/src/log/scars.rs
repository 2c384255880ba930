//! What earlier recoveries found lost and dealt with: an item that the flush which opens a life
//! carries, behind the state of all groups.
//!
//! The place of what was lost stays as it is until the ring comes round to it, and each start finds
//! it again. What groups doubted for it stands with their hard states by then, or is settled: so a
//! loss that is listed behind casts no new doubt. It must be the very same loss: more may have been
//! lost at its place since. Knows no group.
//!
//! ```text
//!  0             16      20     24
//!  | item header | count | zero | from, to, taken, zero ...     24 each; zeros to a multiple of 16
//! ```

use bytes::{BufMut, BytesMut};

use super::fields::{all_zero, pad, put_u32, round_up, u32_at, u64_at};
use super::item::{
    ITEM_ALIGN, ITEM_HEADER_SIZE, ItemError, ItemHeader, ItemKind, SUM_AT, stamp_sum,
};
use crate::frame::sum::crc32c;
use crate::id::{GroupId, Lsn};

/// Losses in one item. Whatever is not listed is doubted anew after each start.
pub(super) const SCAR_COUNT_MAX: usize = 64;

const SCARS_AT: usize = ITEM_HEADER_SIZE + 8;
const SCAR_SIZE: usize = 24;

/// One loss.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Scar {
    /// Where it begins.
    pub(super) from: Lsn,
    /// Where the journal goes on.
    pub(super) to: Lsn,
    /// Items that were taken from between.
    pub(super) taken: u32,
}

/// The item that lists `scars`.
pub(super) fn encode(scars: &[Scar]) -> Vec<u8> {
    assert!(scars.len() <= SCAR_COUNT_MAX, "the caller bounds them");
    let size = round_up(SCARS_AT + scars.len() * SCAR_SIZE, ITEM_ALIGN);
    let mut out = BytesMut::with_capacity(size);
    out.put_bytes(0, ITEM_HEADER_SIZE);
    let header = ItemHeader {
        size: size as u32,
        kind: ItemKind::Scars,
        detail: 0,
        sum: 0,
        group: GroupId(0),
    };
    header.write(&mut out);
    out.put_u32_le(scars.len() as u32);
    out.put_u32_le(0);
    for scar in scars {
        out.put_u64_le(scar.from.0);
        out.put_u64_le(scar.to.0);
        out.put_u32_le(scar.taken);
        out.put_u32_le(0);
    }
    pad(&mut out, ITEM_ALIGN);
    stamp_sum(&mut out);
    out.into()
}

/// Reads and checks the item at the start of `bytes`, which may be longer.
pub(super) fn check(bytes: &[u8]) -> Result<Vec<Scar>, ItemError> {
    let header = ItemHeader::read(bytes)?;
    if header.kind != ItemKind::Scars {
        return Err(ItemError::Kind);
    }
    if header.detail != 0 {
        return Err(ItemError::Detail);
    }
    let size = header.size as usize;
    let size_max = round_up(SCARS_AT + SCAR_COUNT_MAX * SCAR_SIZE, ITEM_ALIGN);
    if !(SCARS_AT..=size_max).contains(&size) {
        return Err(ItemError::Size);
    }
    let Some(bytes) = bytes.get(..size) else {
        return Err(ItemError::Truncated);
    };
    let mut unsummed = bytes.to_vec();
    put_u32(&mut unsummed, SUM_AT, 0);
    if crc32c(&unsummed) != header.sum {
        return Err(ItemError::Sum);
    }
    let count = u32_at(bytes, ITEM_HEADER_SIZE) as usize;
    let end = SCARS_AT + count.min(SCAR_COUNT_MAX) * SCAR_SIZE;
    let is_zero = |at: usize| u32_at(bytes, at) == 0;
    if count > SCAR_COUNT_MAX || size != round_up(end, ITEM_ALIGN) || header.group != GroupId(0) {
        return Err(ItemError::Contradiction);
    }
    let scars = bytes[SCARS_AT..end].chunks_exact(SCAR_SIZE);
    let has_zeros = scars.clone().all(|scar| u32_at(scar, 20) == 0);
    if !has_zeros || !is_zero(ITEM_HEADER_SIZE + 4) || !all_zero(&bytes[end..]) {
        return Err(ItemError::Contradiction);
    }
    let scar = |scar: &[u8]| Scar {
        from: Lsn(u64_at(scar, 0)),
        to: Lsn(u64_at(scar, 8)),
        taken: u32_at(scar, 16),
    };
    Ok(scars.map(scar).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scars_come_back_and_no_flipped_bit_passes() {
        for count in [0, 1, 3, SCAR_COUNT_MAX] {
            let scar = |at: usize| Scar {
                from: Lsn(at as u64 * 8192),
                to: Lsn(at as u64 * 8192 + 4096),
                taken: at as u32,
            };
            let scars: Vec<Scar> = (0..count).map(scar).collect();
            let bytes = encode(&scars);
            assert_eq!(check(&bytes).as_ref(), Ok(&scars));
            for bit in 0..bytes.len() * 8 {
                let mut flipped = bytes.clone();
                flipped[bit / 8] ^= 1 << (bit % 8);
                assert!(check(&flipped).is_err(), "bit {bit}");
            }
            for size in 0..bytes.len() {
                assert!(check(&bytes[..size]).is_err(), "{size} bytes");
            }
        }
    }
}
