//! A file of any size, read in large pieces, of which the last is kept.
//!
//! A sector that cannot be read costs that sector and not its neighbours. Knows no layout.

use bytes::Bytes;

use super::super::recovery::DiskFault;
use super::Read;
use crate::limits::SECTOR_SIZE;

/// Bytes read at a time, where all of them can be.
const READ_SIZE: usize = 4 << 20;

pub(super) struct Window<'r> {
    read: Box<Read<'r>>,
    size: u64,
    start: u64,
    bytes: Bytes,
}

impl<'r> Window<'r> {
    pub(super) fn new(size: u64, read: Box<Read<'r>>) -> Self {
        Self {
            read,
            size,
            start: 0,
            bytes: Bytes::new(),
        }
    }

    /// Bytes of the file.
    pub(super) fn size(&self) -> u64 {
        self.size
    }

    /// Where the next piece begins behind one of this size. A file that was cut while it was read ends
    /// with a piece that has none.
    pub(super) fn behind(&self, position: u64, size: u64) -> u64 {
        match size {
            0 => self.size,
            _ => position + size,
        }
    }

    /// `size` bytes from a position on, or those up to the file's end.
    pub(super) fn bytes(&mut self, position: u64, size: usize) -> Result<Bytes, DiskFault> {
        let left = usize::try_from(self.size.saturating_sub(position)).unwrap_or(usize::MAX);
        let size = size.min(left);
        let kept = position >= self.start
            && position + size as u64 <= self.start + self.bytes.len() as u64;
        if !kept {
            let ahead = (self.read)(position, READ_SIZE.max(size).min(left));
            // A fault further on is not this piece's.
            let bytes = match ahead {
                Ok(bytes) if bytes.len() >= size => bytes,
                Ok(_) | Err(_) => (self.read)(position, size)?,
            };
            (self.start, self.bytes) = (position, bytes);
        }
        let from = (position - self.start) as usize;
        // Shorter than it said: the file was cut while it was read.
        let to = (from + size).min(self.bytes.len());
        Ok(self.bytes.slice(from..to))
    }

    /// The sector at a position, or what the file has of it.
    pub(super) fn sector(&mut self, position: u64) -> Result<Bytes, DiskFault> {
        let into = (position % SECTOR_SIZE as u64) as usize;
        self.bytes(position, SECTOR_SIZE - into)
    }
}
