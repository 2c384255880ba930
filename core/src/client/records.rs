//! Records on their way into a log: framed, counted, not yet numbered.
//!
//! Keeps the payload's layout, `[size u32 LE][bytes]` back to back. A small record is copied here,
//! once, next to its neighbours; a large one stays where it is and travels as a slice of its own.
//! Knows no log and no sequence. First hop of the data path, on the client's side.

use std::fmt;

use bytes::{BufMut, Bytes, BytesMut};

use crate::frame::sum::Sum;
use crate::id::Nanos;
use crate::limits::{APPEND_PAYLOAD_SIZE_MAX, APPEND_RECORD_COUNT_MAX, RECORD_SIZE_MAX};
use crate::log::block::RECORD_PREFIX_SIZE;

/// A record above this is not copied: the copy would cost more than a slice of its own.
const COPY_SIZE_MAX: usize = 8 << 10;

// A record of the largest size must fit an append.
const _: () = assert!(RECORD_SIZE_MAX + RECORD_PREFIX_SIZE <= APPEND_PAYLOAD_SIZE_MAX);

/// A record is longer than `RECORD_SIZE_MAX`. Nothing was queued.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordTooLarge {
    /// Bytes of the record.
    pub size: usize,
}

impl fmt::Display for RecordTooLarge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let size = self.size;
        write!(f, "record of {size} bytes, allowed are {RECORD_SIZE_MAX}")
    }
}

impl std::error::Error for RecordTooLarge {}

/// Some records in order, framed as they travel. They stay together: one append holds them all.
#[derive(Clone, Debug)]
pub struct Records {
    chunks: Vec<Bytes>,
    size: usize,
    record_count: u32,
}

impl Records {
    /// A single record.
    ///
    /// # Errors
    ///
    /// If it is longer than `RECORD_SIZE_MAX`.
    pub fn one(record: Bytes) -> Result<Self, RecordTooLarge> {
        let mut builder = RecordsBuilder::new();
        builder.push(record)?;
        Ok(builder.finish())
    }

    /// Bytes, with the sizes that stand before the records.
    #[must_use]
    pub fn size(&self) -> usize {
        self.size
    }

    /// How many; at least one.
    #[must_use]
    pub fn record_count(&self) -> u32 {
        self.record_count
    }

    /// The framed bytes in order.
    #[must_use]
    pub fn chunks(&self) -> &[Bytes] {
        &self.chunks
    }

    /// Adds the framed bytes to a sum.
    pub(super) fn sum_into(&self, sum: &mut Sum) {
        self.chunks.iter().for_each(|chunk| sum.update(chunk));
    }
}

/// Frames records one after the other.
#[derive(Debug, Default)]
pub struct RecordsBuilder {
    /// What is framed and does not belong to a chunk yet.
    open: BytesMut,
    chunks: Vec<Bytes>,
    size: usize,
    record_count: u32,
}

impl RecordsBuilder {
    /// A builder of no records yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Bytes framed so far.
    #[must_use]
    pub fn size(&self) -> usize {
        self.size
    }

    /// Whether a record of this size still has room in the same append.
    #[must_use]
    pub fn has_room(&self, record_size: usize) -> bool {
        self.size + RECORD_PREFIX_SIZE + record_size <= APPEND_PAYLOAD_SIZE_MAX
            && (self.record_count as usize) < APPEND_RECORD_COUNT_MAX
    }

    /// Frames one more record.
    ///
    /// # Errors
    ///
    /// If it is longer than `RECORD_SIZE_MAX`; nothing is changed then.
    ///
    /// # Panics
    ///
    /// If there is no room; see [`has_room`](Self::has_room).
    pub fn push(&mut self, record: Bytes) -> Result<(), RecordTooLarge> {
        let size = record.len();
        if size > RECORD_SIZE_MAX {
            return Err(RecordTooLarge { size });
        }
        assert!(
            self.has_room(size),
            "records beyond the bounds of an append"
        );
        self.open.put_u32_le(size as u32);
        if size <= COPY_SIZE_MAX {
            self.open.extend_from_slice(&record);
        } else {
            self.chunks.push(self.open.split().freeze());
            self.chunks.push(record);
        }
        self.size += RECORD_PREFIX_SIZE + size;
        self.record_count += 1;
        Ok(())
    }

    /// The records framed.
    ///
    /// # Panics
    ///
    /// If there are none.
    #[must_use]
    pub fn finish(mut self) -> Records {
        assert!(self.record_count > 0, "an append of no records");
        if !self.open.is_empty() {
            self.chunks.push(self.open.freeze());
        }
        let sum: usize = self.chunks.iter().map(Bytes::len).sum();
        assert_eq!(sum, self.size, "the chunks make up the size");
        Records {
            chunks: self.chunks,
            size: self.size,
            record_count: self.record_count,
        }
    }
}

/// Records that wait for their outcome: the unit that a client resolves.
#[derive(Clone, Debug)]
pub(super) struct Waiting {
    /// The caller's number for them.
    pub(super) token: u64,
    /// When the first of them was handed over.
    pub(super) since: Nanos,
    pub(super) records: Records,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn joined(records: &Records) -> Vec<u8> {
        records.chunks().concat()
    }

    #[test]
    fn small_and_large_records_are_framed_alike_but_only_small_ones_are_copied() {
        let large = Bytes::from(vec![7; COPY_SIZE_MAX + 1]);
        let mut builder = RecordsBuilder::new();
        for record in [Bytes::from_static(b"ab"), large.clone(), Bytes::new()] {
            builder.push(record).unwrap();
        }
        let records = builder.finish();
        let mut expected = vec![2, 0, 0, 0, b'a', b'b'];
        expected.extend_from_slice(&(large.len() as u32).to_le_bytes());
        expected.extend_from_slice(&large);
        expected.extend_from_slice(&[0; 4]);
        assert_eq!(joined(&records), expected);
        assert_eq!(records.size(), expected.len());
        assert_eq!(records.record_count(), 3);
        assert!(
            records
                .chunks()
                .iter()
                .any(|c| c.as_ptr() == large.as_ptr())
        );
    }

    #[test]
    fn a_record_above_the_limit_is_refused_and_leaves_nothing_behind() {
        let size = RECORD_SIZE_MAX + 1;
        let mut builder = RecordsBuilder::new();
        let refusal = builder.push(Bytes::from(vec![0; size]));
        assert_eq!(refusal, Err(RecordTooLarge { size }));
        assert_eq!(builder.size(), 0);
        assert!(Records::one(Bytes::from(vec![0; RECORD_SIZE_MAX])).is_ok());
    }
}
