//! The ring's files as recovery reads them: in large pieces, of which the last is kept.
//!
//! A sector that cannot be read is noted, costs its own bytes, and reads as zeros. Knows no flush.

use std::collections::BTreeSet;

use bytes::{Bytes, BytesMut};

use super::super::ring::Ring;
use super::finding::RecoveryError;
use super::{DiskFault, Read};
use crate::id::Lsn;
use crate::limits::SECTOR_SIZE;

/// Bytes read at a time.
const READ_SIZE: usize = 4 << 20;

/// The files, and what of them could not be read.
pub(super) struct Disk<'d, 'r> {
    ring: Ring,
    read: &'d mut Read<'r>,
    slot: u32,
    start: u64,
    bytes: Bytes,
    /// Sectors that gave an error, by slot and position. They read as zeros.
    pub(super) unreadable: BTreeSet<(u32, u64)>,
    /// The first of those errors.
    fault: Option<DiskFault>,
}

impl<'d, 'r> Disk<'d, 'r> {
    pub(super) fn new(ring: Ring, read: &'d mut Read<'r>) -> Self {
        Self {
            ring,
            read,
            slot: 0,
            start: 0,
            bytes: Bytes::new(),
            unreadable: BTreeSet::new(),
            fault: None,
        }
    }

    /// `size` bytes at a position, within the file.
    pub(super) fn bytes(
        &mut self,
        slot: u32,
        position: u64,
        size: usize,
    ) -> Result<Bytes, RecoveryError> {
        assert!(
            position + size as u64 <= self.ring.file_size,
            "within the file"
        );
        let kept = self.slot == slot
            && position >= self.start
            && position + size as u64 <= self.start + self.bytes.len() as u64;
        if !kept {
            let left = self.ring.file_size - position;
            let wanted = usize::try_from(left)
                .unwrap_or(usize::MAX)
                .min(READ_SIZE.max(size));
            let bytes = match (self.read)(slot, position, wanted) {
                Ok(bytes) => bytes,
                Err(_) => self.sectors(slot, position, wanted),
            };
            if bytes.len() != wanted {
                return Err(RecoveryError::Short { slot, position });
            }
            (self.slot, self.start, self.bytes) = (slot, position, bytes);
        }
        let from = (position - self.start) as usize;
        Ok(self.bytes.slice(from..from + size))
    }

    /// Reads sector by sector where a read in one failed: what cannot be read is damaged, the rest
    /// is not.
    fn sectors(&mut self, slot: u32, position: u64, size: usize) -> Bytes {
        let mut bytes = BytesMut::with_capacity(size);
        for at in (position..position + size as u64).step_by(SECTOR_SIZE) {
            match (self.read)(slot, at, SECTOR_SIZE) {
                Ok(sector) => bytes.extend_from_slice(&sector),
                Err(fault) => {
                    self.fault.get_or_insert(fault);
                    self.unreadable.insert((slot, at));
                    bytes.extend_from_slice(&[0; SECTOR_SIZE]);
                }
            }
        }
        bytes.freeze()
    }

    /// What the system said of the first sector that could not be read.
    pub(super) fn error(&self) -> Option<RecoveryError> {
        let (slot, position) = *self.unreadable.first()?;
        self.fault.map(|fault| RecoveryError::Unreadable {
            slot,
            position,
            fault,
        })
    }

    /// Whether a whole file cannot be read: then it is not its bytes that are at fault.
    pub(super) fn lacks_file(&self) -> bool {
        let sector_count = self.ring.file_size / SECTOR_SIZE as u64;
        (0..self.ring.file_count).any(|slot| {
            let sectors = self.unreadable.range((slot, 0)..=(slot, u64::MAX));
            sectors.count() as u64 == sector_count
        })
    }

    /// Whether any sector of so many bytes from `at` on cannot be read.
    pub(super) fn is_unreadable_in(&self, at: Lsn, size: usize) -> bool {
        let (slot, position) = self.ring.locate(at);
        let sectors = (slot, position)..(slot, position + size as u64);
        self.unreadable.range(sectors).next().is_some()
    }

    pub(super) fn is_unreadable(&self, at: Lsn) -> bool {
        self.unreadable.contains(&self.ring.locate(at))
    }
}
