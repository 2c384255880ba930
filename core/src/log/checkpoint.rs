//! A checkpoint: the word of a group that its blocks up to an index are in synced segments, and
//! what a restart cannot rebuild without them.
//!
//! Keeps the item's layout. Does not know when it is true: who puts one has synced the segments.
//!
//! ```text
//!  0             16      24     32            40             48          52        56
//!  | item header | index | term | next offset | segment size | block sum | segment | ...
//!  56               60           64
//!  | producer count | blocks sum | ...
//!  64      72              76     80
//!  | start | first segment | zero | producers, padded with zeros to a multiple of 16
//!
//!  producer:  0    8               16      20             24
//!             | id | next sequence | epoch | append count | appends, oldest first
//!  append:    0              8              12           16          20
//!             | first offset | record count | index back | term back |
//! ```
//! "back" counts down from the checkpoint's own index and term.

use bytes::{BufMut, BytesMut};

use super::fields::{all_zero, pad, round_up, u32_at, u64_at};
use super::item::{ITEM_ALIGN, ITEM_HEADER_SIZE, ItemError, ItemHeader, ItemKind, SUM_AT};
use super::producer_table::{NOTED_SIZE, PRODUCER_SIZE, ProducerTable};
use super::tail::Base;
use crate::frame::sum::{Sum, crc32c};
use crate::id::{GroupId, Index, Offset, Term};
use crate::limits::{
    GROUP_COUNT_MAX, JOURNAL_FILE_SIZE, PRODUCER_COUNT_MAX, PRODUCER_WINDOW, RUN_SIZE_MAX,
    SECTOR_SIZE,
};

const CHECKPOINT_HEADER_SIZE: usize = ITEM_HEADER_SIZE + 64;

/// Largest checkpoint: a full table of producers with full windows.
pub(super) const CHECKPOINT_SIZE_MAX: usize = CHECKPOINT_HEADER_SIZE
    + PRODUCER_COUNT_MAX * (PRODUCER_SIZE + PRODUCER_WINDOW * NOTED_SIZE)
    + ITEM_ALIGN;

// The state of all groups is put at every file's start, and must leave a quarter of the file.
const _: () =
    assert!((GROUP_COUNT_MAX * (CHECKPOINT_SIZE_MAX + 128)) as u64 <= JOURNAL_FILE_SIZE / 4 * 3);
const _: () = assert!(RUN_SIZE_MAX >= 4 * CHECKPOINT_SIZE_MAX + 4 * SECTOR_SIZE);

/// All blocks of a group up to `index` are in synced segments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// The group.
    pub group: GroupId,
    /// Index of the last block in segments.
    pub index: Index,
    /// Its term.
    pub term: Term,
    /// Its sum.
    pub block_sum: u32,
    /// Offset of the first record after it.
    pub next_offset: Offset,
    /// Number of the segment that grows.
    pub segment: u32,
    /// Bytes of it that are synced; what lies beyond is written again.
    pub segment_size: u64,
    /// Sum over the sums of its blocks, 4 bytes each, in order: what its footer will say.
    pub blocks_sum: u32,
    /// Where the log begins: a committed trim said so.
    pub start: Offset,
    /// Number of the first segment that is kept; those below may be gone.
    pub first_segment: u32,
    /// The group begins anew here: what the journal has of it before this item is void.
    pub restores: bool,
    /// Producers as of `index`.
    pub producers: ProducerTable,
}

impl Checkpoint {
    /// The base of a tail that begins after it.
    #[must_use]
    pub fn base(&self) -> Base {
        Base {
            index: self.index,
            term: self.term,
            sum: self.block_sum,
            next_offset: self.next_offset,
        }
    }

    /// The item's bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let unpadded = CHECKPOINT_HEADER_SIZE + self.producers.encoded_size();
        let size = round_up(unpadded, ITEM_ALIGN);
        assert!(size <= CHECKPOINT_SIZE_MAX, "the table is bounded");
        let mut out = BytesMut::with_capacity(size);
        out.put_bytes(0, ITEM_HEADER_SIZE);
        let header = ItemHeader {
            size: size as u32,
            kind: ItemKind::Checkpoint,
            detail: u8::from(self.restores),
            sum: 0,
            group: self.group,
        };
        header.write(&mut out);
        out.put_u64_le(self.index.0);
        out.put_u64_le(self.term.0);
        out.put_u64_le(self.next_offset.0);
        out.put_u64_le(self.segment_size);
        out.put_u32_le(self.block_sum);
        out.put_u32_le(self.segment);
        out.put_u32_le(self.producers.len() as u32);
        out.put_u32_le(self.blocks_sum);
        out.put_u64_le(self.start.0);
        out.put_u32_le(self.first_segment);
        out.put_u32_le(0);
        self.producers.encode(self.index, self.term, &mut out);
        assert_eq!(out.len(), unpadded, "the table takes what it said");
        pad(&mut out, ITEM_ALIGN);
        let sum = crc32c(&out);
        ItemHeader { sum, ..header }.write(&mut out);
        out.into()
    }

    /// Reads and checks the checkpoint at the start of `bytes`, which may be longer.
    ///
    /// # Errors
    /// The first misdeed found.
    pub fn check(bytes: &[u8]) -> Result<Self, ItemError> {
        let header = ItemHeader::read(bytes)?;
        if header.kind != ItemKind::Checkpoint {
            return Err(ItemError::Kind);
        }
        if header.detail > 1 {
            return Err(ItemError::Detail);
        }
        let size = header.size as usize;
        if !(CHECKPOINT_HEADER_SIZE..=CHECKPOINT_SIZE_MAX).contains(&size) {
            return Err(ItemError::Size);
        }
        let Some(bytes) = bytes.get(..size) else {
            return Err(ItemError::Truncated);
        };
        let mut sum = Sum::new();
        sum.update(&bytes[..SUM_AT]);
        sum.update(&[0; 4]);
        sum.update(&bytes[SUM_AT + 4..]);
        if sum.value() != header.sum {
            return Err(ItemError::Sum);
        }
        let fields = &bytes[ITEM_HEADER_SIZE..CHECKPOINT_HEADER_SIZE];
        let (index, term) = (Index(u64_at(fields, 0)), Term(u64_at(fields, 8)));
        let count = u32_at(fields, 40) as usize;
        let table = &bytes[CHECKPOINT_HEADER_SIZE..];
        let (producers, table_size) = ProducerTable::decode(table, count, index, term)?;
        let padding = &table[table_size..];
        if u32_at(fields, 60) != 0 || padding.len() >= ITEM_ALIGN || !all_zero(padding) {
            return Err(ItemError::Contradiction);
        }
        let (segment, first_segment) = (u32_at(fields, 36), u32_at(fields, 56));
        if first_segment > segment {
            return Err(ItemError::Contradiction);
        }
        Ok(Self {
            group: header.group,
            index,
            term,
            next_offset: Offset(u64_at(fields, 16)),
            segment_size: u64_at(fields, 24),
            block_sum: u32_at(fields, 32),
            segment,
            blocks_sum: u32_at(fields, 44),
            start: Offset(u64_at(fields, 48)),
            first_segment,
            restores: header.detail == 1,
            producers,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::block::AppendHeader;
    use super::super::producers::Producers;
    use super::*;
    use crate::id::{Epoch, ProducerId, Sequence};

    fn checkpoint(producer_count: u64, window: u64) -> Checkpoint {
        let mut producers = Producers::default();
        for offset in 0..producer_count * window {
            let header = AppendHeader {
                payload_sum: 0,
                payload_size: 8,
                producer: ProducerId(offset / window),
                sequence: Sequence(offset % window * 2),
                epoch: Epoch(1),
                record_count: 2,
            };
            producers.note(Index(1 + offset), Term(1), &header, Offset(offset * 2));
        }
        let index = Index(producer_count * window + 7);
        Checkpoint {
            group: GroupId(4),
            index,
            term: Term(6),
            block_sum: 0xABCD_EF01,
            next_offset: Offset(1234),
            segment: 2,
            segment_size: 8192,
            blocks_sum: 0x1357_9BDF,
            start: Offset(77),
            first_segment: 1,
            restores: producer_count == 3,
            producers: producers.snapshot_at(index),
        }
    }

    #[test]
    fn checkpoints_of_all_sizes_come_back() {
        for (count, window) in [(0, 1), (1, 1), (3, 8), (PRODUCER_COUNT_MAX as u64, 8)] {
            let checkpoint = checkpoint(count, window);
            let bytes = checkpoint.encode();
            assert_eq!(Checkpoint::check(&bytes).as_ref(), Ok(&checkpoint));
        }
    }

    #[test]
    fn no_flipped_bit_and_no_cut_of_a_checkpoint_passes() {
        let bytes = checkpoint(2, 3).encode();
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(Checkpoint::check(&flipped).is_err(), "bit {bit}");
        }
        for size in 0..bytes.len() {
            assert_eq!(Checkpoint::check(&bytes[..size]), Err(ItemError::Truncated));
        }
    }
}
