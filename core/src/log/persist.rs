//! The persist record: how far the journal was durable when it last stood still, in two sectors of a
//! file of its own.
//!
//! Flushes bear witness to those before them. Nothing bears witness to the last ones, but for this: so
//! recovery tells a torn write, which nobody was promised, from a stored one that the disk lost. It is
//! written off every path, once the journal has been quiet for a while, and when a node stops; under
//! load the next flush does as well. Keeps the layout.
//!
//! ```text
//!  0       4     8         9      12         16     24                32
//!  | magic | sum | version | zero | node tag | life | durable through | zeros to the sector's end
//! ```
//! The sectors are written in turn. What a record says stays true: a damaged or missing one only says
//! less.

use super::fields::{put_u64, u64_at};
use super::sector_pair::{BODY_AT, SECTOR_PAIR_SIZE, SectorKind, sound_sectors};
use crate::id::Lsn;
use crate::limits::SECTOR_SIZE;

/// Bytes of the file: two sectors.
pub const PERSIST_FILE_SIZE: usize = SECTOR_PAIR_SIZE;

const LIFE_AT: usize = BODY_AT;
const DURABLE_THROUGH_AT: usize = LIFE_AT + 8;

const KIND: SectorKind = SectorKind {
    magic: u32::from_le_bytes(*b"RWPR"),
    version: 1,
    end_at: DURABLE_THROUGH_AT + 8,
};

/// What one sector says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct PersistRecord {
    /// All flushes below were durable; the end of one of them.
    pub durable_through: Lsn,
    /// The journal's life that said so.
    pub life: u64,
}

impl PersistRecord {
    /// The sector's bytes.
    #[must_use]
    pub fn encode(&self, node_tag: u32) -> [u8; SECTOR_SIZE] {
        let mut bytes = [0; SECTOR_SIZE];
        put_u64(&mut bytes, LIFE_AT, self.life);
        put_u64(&mut bytes, DURABLE_THROUGH_AT, self.durable_through.0);
        KIND.seal(&mut bytes, node_tag);
        bytes
    }

    /// The newer of a file's two sectors, and which that is: the next write must spare it. None where
    /// neither is sound, or is this node's.
    #[must_use]
    pub fn newest(file: &[u8], node_tag: u32) -> Option<(Self, usize)> {
        sound_sectors(file, |bytes| Self::check(bytes, node_tag)).max()
    }

    /// What a sector says, if it is sound.
    #[must_use]
    pub fn check(bytes: &[u8], node_tag: u32) -> Option<Self> {
        let record = KIND.is_sound(bytes, node_tag).then(|| Self {
            durable_through: Lsn(u64_at(bytes, DURABLE_THROUGH_AT)),
            life: u64_at(bytes, LIFE_AT),
        })?;
        let through = record.durable_through.0;
        let is_possible = through < 1 << 62 && through.is_multiple_of(SECTOR_SIZE as u64);
        is_possible.then_some(record)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TAG: u32 = 77;

    fn record(sectors: u64) -> PersistRecord {
        PersistRecord {
            durable_through: Lsn(sectors * SECTOR_SIZE as u64),
            life: 3,
        }
    }

    #[test]
    fn the_newer_record_counts_and_no_flipped_bit_passes() {
        let (old, new) = (record(7).encode(TAG), record(9).encode(TAG));
        for (file, at) in [([old, new].concat(), 1), ([new, old].concat(), 0)] {
            assert_eq!(PersistRecord::newest(&file, TAG), Some((record(9), at)));
            for bit in 0..SECTOR_SIZE * 8 {
                let mut flipped = file.clone();
                flipped[at * SECTOR_SIZE + bit / 8] ^= 1 << (bit % 8);
                let found = PersistRecord::newest(&flipped, TAG);
                assert_eq!(found, Some((record(7), 1 - at)), "bit {bit}");
            }
            assert_eq!(PersistRecord::newest(&file, TAG + 1), None);
        }
        assert_eq!(PersistRecord::newest(&[0; PERSIST_FILE_SIZE], TAG), None);
        assert_eq!(PersistRecord::newest(&new[..100], TAG), None);
        assert_eq!(PersistRecord::newest(&new, TAG), Some((record(9), 0)));
    }

    #[test]
    fn what_cannot_be_is_not_believed() {
        for through in [1, SECTOR_SIZE as u64 + 512, u64::MAX] {
            let record = PersistRecord {
                durable_through: Lsn(through),
                life: 1,
            };
            assert_eq!(PersistRecord::check(&record.encode(TAG), TAG), None);
        }
    }
}
