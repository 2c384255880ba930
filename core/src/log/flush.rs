//! A flush: one run as it lies in the journal, and the check that decides whether it is whole.
//!
//! Keeps the header's layout and the walk over items. Does not know which flush may follow which;
//! that is recovery's. Hop *store* of the data path.
//!
//! ```text
//!  0       4     8      16    24         32
//!  | magic | sum | life | lsn | sequence |
//!  32     36           40          44             48                56         60
//!  | size | items size | items sum | previous sum | durable through | node tag | ...
//!  60           62           63      64
//!  | item count | files kept | flags | items ... | zeros to a sector | second copy of votes
//! ```
//! The header's sum covers the header. The items' sum covers, item by item, the 64 header bytes of
//! a block and the whole of any other item; payloads are covered by the sums inside the blocks.

use std::fmt;

use super::block::{BLOCK_HEADER_SIZE, Block, BlockError};
use super::checkpoint::Checkpoint;
use super::fields::{all_zero, put_u32, put_u64, round_up, u32_at, u64_at};
use super::item::{HARD_STATE_SIZE, ITEM_ALIGN, ItemError, ItemHeader, ItemKind, check_hard_state};
use super::scars::{self, Scar};
use super::{Doubt, HardState};
use crate::frame::sum::{Sum, crc32c};
use crate::id::{GroupId, Lsn};
use crate::limits::{RUN_SIZE_MAX, SECTOR_SIZE};

pub(super) const FLUSH_HEADER_SIZE: usize = 64;
pub(super) const MAGIC: u32 = u32::from_le_bytes(*b"RWFL");

const SUM_AT: usize = 4;
const LIFE_AT: usize = SUM_AT + 4;
const LSN_AT: usize = LIFE_AT + 8;
const SEQUENCE_AT: usize = LSN_AT + 8;
const SIZE_AT: usize = SEQUENCE_AT + 8;
const ITEMS_SIZE_AT: usize = SIZE_AT + 4;
const ITEMS_SUM_AT: usize = ITEMS_SIZE_AT + 4;
const PREVIOUS_SUM_AT: usize = ITEMS_SUM_AT + 4;
const DURABLE_THROUGH_AT: usize = PREVIOUS_SUM_AT + 4;
const NODE_TAG_AT: usize = DURABLE_THROUGH_AT + 8;
const ITEM_COUNT_AT: usize = NODE_TAG_AT + 4;
const FILES_KEPT_AT: usize = ITEM_COUNT_AT + 2;
const FLAGS_AT: usize = FILES_KEPT_AT + 1;
const _: () = assert!(FLAGS_AT + 1 == FLUSH_HEADER_SIZE);
// The smallest item must not overrun the counter.
const _: () = assert!(RUN_SIZE_MAX / HARD_STATE_SIZE <= u16::MAX as usize + 1);

const FLAG_OPENS: u8 = 1;
const FLAG_COMPLETE: u8 = 2;
const FLAG_COPIES: u8 = 4;

/// The fixed part of a flush.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlushHeader {
    /// CRC-32C of this header.
    pub sum: u32,
    /// The journal's life: one for each time it was opened.
    pub life: u64,
    /// Where the flush lies in the endless journal.
    pub lsn: Lsn,
    /// Number of the flush, from 1 without gaps through all lives.
    pub sequence: u64,
    /// Bytes of the flush; whole sectors.
    pub size: u32,
    /// Bytes of its items.
    pub items_size: u32,
    /// CRC-32C over the items as the file's head says.
    pub items_sum: u32,
    /// `sum` of the flush before it; 0 for the first of all.
    pub previous_sum: u32,
    /// All flushes below were durable when this one was sealed.
    pub durable_through: Lsn,
    /// Of the node whose journal it is.
    pub node_tag: u32,
    /// Items in it.
    pub item_count: u16,
    /// Files before its own that still held something needed when it was sealed.
    pub files_kept: u8,
    /// It is the first of its life.
    pub opens: bool,
    /// Hard state and checkpoint of every group stand in its file, at the latest in it.
    pub complete: bool,
    /// Its blocks were written before, and stand here again because their first place is given up.
    pub copies: bool,
}

/// Why bytes are not a whole flush. Nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlushError {
    /// Fewer bytes than the flush has.
    Truncated,
    /// No flush begins here.
    Magic,
    /// The header's sum is wrong.
    HeaderSum,
    /// The header's sum is right, but its sizes, place or flags are impossible.
    Header,
    /// An item that is not a block is wrong.
    Item(ItemError),
    /// A block is wrong.
    Block(BlockError),
    /// The items do not fill the size the header gives them, or are not as many.
    ItemCount,
    /// The sum over the items is wrong.
    ItemsSum,
    /// The bytes between the items and the next sector are not zero.
    Padding,
}

impl fmt::Display for FlushError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Truncated => f.write_str("the flush is cut short"),
            Self::Magic => f.write_str("no flush begins here"),
            Self::HeaderSum => f.write_str("the flush header's sum is wrong"),
            Self::Header => f.write_str("the flush header's fields are impossible"),
            Self::Item(error) => error.fmt(f),
            Self::Block(error) => error.fmt(f),
            Self::ItemCount => f.write_str("the items do not fill the flush"),
            Self::ItemsSum => f.write_str("the items' sum is wrong"),
            Self::Padding => f.write_str("padding of the flush is not zero"),
        }
    }
}

impl std::error::Error for FlushError {}

impl FlushHeader {
    /// Reads the header at the start of `bytes` and checks its sum and sizes.
    ///
    /// # Errors
    /// [`FlushError::Truncated`], `Magic`, `HeaderSum` or `Header`.
    pub fn read(bytes: &[u8]) -> Result<Self, FlushError> {
        let Some(bytes) = bytes.get(..FLUSH_HEADER_SIZE) else {
            return Err(FlushError::Truncated);
        };
        if u32_at(bytes, 0) != MAGIC {
            return Err(FlushError::Magic);
        }
        let mut unsummed: [u8; FLUSH_HEADER_SIZE] = bytes.try_into().expect("sliced to its size");
        put_u32(&mut unsummed, SUM_AT, 0);
        let sum = u32_at(bytes, SUM_AT);
        if crc32c(&unsummed) != sum {
            return Err(FlushError::HeaderSum);
        }
        let flags = bytes[FLAGS_AT];
        let header = Self {
            sum,
            life: u64_at(bytes, LIFE_AT),
            lsn: Lsn(u64_at(bytes, LSN_AT)),
            sequence: u64_at(bytes, SEQUENCE_AT),
            size: u32_at(bytes, SIZE_AT),
            items_size: u32_at(bytes, ITEMS_SIZE_AT),
            items_sum: u32_at(bytes, ITEMS_SUM_AT),
            previous_sum: u32_at(bytes, PREVIOUS_SUM_AT),
            durable_through: Lsn(u64_at(bytes, DURABLE_THROUGH_AT)),
            node_tag: u32_at(bytes, NODE_TAG_AT),
            item_count: u16::from_le_bytes([bytes[ITEM_COUNT_AT], bytes[ITEM_COUNT_AT + 1]]),
            files_kept: bytes[FILES_KEPT_AT],
            opens: flags & FLAG_OPENS != 0,
            complete: flags & FLAG_COMPLETE != 0,
            copies: flags & FLAG_COPIES != 0,
        };
        if flags & !(FLAG_OPENS | FLAG_COMPLETE | FLAG_COPIES) != 0 || !header.is_possible() {
            return Err(FlushError::Header);
        }
        Ok(header)
    }

    /// Guards the arithmetic of whoever uses the fields.
    fn is_possible(&self) -> bool {
        let (size, items_size) = (self.size as usize, self.items_size as usize);
        (SECTOR_SIZE..=RUN_SIZE_MAX).contains(&size)
            && size.is_multiple_of(SECTOR_SIZE)
            && items_size.is_multiple_of(ITEM_ALIGN)
            && items_size <= size - FLUSH_HEADER_SIZE
            && self.lsn.0.is_multiple_of(SECTOR_SIZE as u64)
            && self.durable_through <= self.lsn
            && self.lsn.0 < 1 << 62
            && self.life < 1 << 62
            && self.sequence < 1 << 62
    }

    /// The header's bytes, with `sum` as it stands in the field.
    pub(super) fn write(&self) -> [u8; FLUSH_HEADER_SIZE] {
        let mut bytes = [0; FLUSH_HEADER_SIZE];
        put_u32(&mut bytes, 0, MAGIC);
        put_u32(&mut bytes, SUM_AT, self.sum);
        put_u64(&mut bytes, LIFE_AT, self.life);
        put_u64(&mut bytes, LSN_AT, self.lsn.0);
        put_u64(&mut bytes, SEQUENCE_AT, self.sequence);
        put_u32(&mut bytes, SIZE_AT, self.size);
        put_u32(&mut bytes, ITEMS_SIZE_AT, self.items_size);
        put_u32(&mut bytes, ITEMS_SUM_AT, self.items_sum);
        put_u32(&mut bytes, PREVIOUS_SUM_AT, self.previous_sum);
        put_u64(&mut bytes, DURABLE_THROUGH_AT, self.durable_through.0);
        put_u32(&mut bytes, NODE_TAG_AT, self.node_tag);
        bytes[ITEM_COUNT_AT..ITEM_COUNT_AT + 2].copy_from_slice(&self.item_count.to_le_bytes());
        bytes[FILES_KEPT_AT] = self.files_kept;
        bytes[FLAGS_AT] = (if self.opens { FLAG_OPENS } else { 0 })
            | (if self.complete { FLAG_COMPLETE } else { 0 })
            | (if self.copies { FLAG_COPIES } else { 0 });
        bytes
    }

    /// Fills in the sum of the other fields.
    pub(super) fn stamp(&mut self) {
        self.sum = 0;
        self.sum = crc32c(&self.write());
        assert!(self.is_possible(), "what is written can be read: {self:?}");
    }

    /// Where the flush ends, and the next begins unless it goes to the next file.
    #[must_use]
    pub fn end(&self) -> Lsn {
        Lsn(self.lsn.0 + u64::from(self.size))
    }

    /// Where the second copy of the votes begins in the flush, if it has one: behind the items.
    pub(super) fn votes_at(&self) -> usize {
        round_up(FLUSH_HEADER_SIZE + self.items_size as usize, SECTOR_SIZE)
    }
}

/// What stands in a flush.
#[derive(Clone, Debug)]
pub(super) enum Item<'a> {
    Block(Block<'a>),
    HardState {
        group: GroupId,
        hard: HardState,
        doubt: Doubt,
    },
    Checkpoint(Checkpoint),
    /// What earlier recoveries have dealt with.
    Scars(Vec<Scar>),
}

/// A whole flush whose every sum is right, but for the second copy of its votes.
#[derive(Clone, Debug)]
pub(super) struct Flush<'a> {
    pub(super) header: FlushHeader,
    /// Each with its offset in the flush.
    pub(super) items: Vec<(u32, Item<'a>)>,
}

impl<'a> Flush<'a> {
    /// Checks the flush at the start of `bytes`, which may be longer.
    pub(super) fn check(bytes: &'a [u8]) -> Result<Self, FlushError> {
        let header = FlushHeader::read(bytes)?;
        let Some(bytes) = bytes.get(..header.size as usize) else {
            return Err(FlushError::Truncated);
        };
        let items_end = FLUSH_HEADER_SIZE + header.items_size as usize;
        let mut items = Vec::with_capacity(usize::from(header.item_count));
        let mut sum = Sum::new();
        let mut at = FLUSH_HEADER_SIZE;
        let mut vote_count = 0;
        while at < items_end {
            let (item, size) = check_item(&bytes[at..items_end])?;
            let summed = if let Item::Block(_) = item {
                BLOCK_HEADER_SIZE
            } else {
                size
            };
            sum.update(&bytes[at..at + summed]);
            vote_count += usize::from(matches!(item, Item::HardState { .. }));
            items.push((at as u32, item));
            at += size;
        }
        if items.len() != usize::from(header.item_count) {
            return Err(FlushError::ItemCount);
        }
        if sum.value() != header.items_sum {
            return Err(FlushError::ItemsSum);
        }
        if header.votes_at() + super::votes::votes_size(vote_count) != header.size as usize {
            return Err(FlushError::ItemCount);
        }
        if !all_zero(&bytes[items_end..header.votes_at()]) {
            return Err(FlushError::Padding);
        }
        Ok(Self { header, items })
    }

    /// Whether it holds hard states, and so should have a second copy of them.
    pub(super) fn has_votes(&self) -> bool {
        self.header.votes_at() < self.header.size as usize
    }
}

/// Checks the item at the start of `bytes`, and says its size.
pub(super) fn check_item(bytes: &[u8]) -> Result<(Item<'_>, usize), FlushError> {
    let header = ItemHeader::read(bytes).map_err(FlushError::Item)?;
    let size = header.size as usize;
    let item = match header.kind {
        ItemKind::Block => Item::Block(Block::check(bytes).map_err(FlushError::Block)?),
        ItemKind::HardState => {
            let (group, hard, doubt) = check_hard_state(bytes).map_err(FlushError::Item)?;
            Item::HardState { group, hard, doubt }
        }
        ItemKind::Checkpoint => {
            Item::Checkpoint(Checkpoint::check(bytes).map_err(FlushError::Item)?)
        }
        ItemKind::Scars => Item::Scars(scars::check(bytes).map_err(FlushError::Item)?),
    };
    assert!(size <= bytes.len(), "a checked item lies within its bytes");
    Ok((item, size))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::id::{Index, NodeId, Offset, Term};
    use crate::log::block::BlockKind;
    use crate::log::builder::BlockStart;
    use crate::log::journal::{Journal, JournalRecovered};
    use crate::log::producers::ProducerTable;
    use crate::log::ring::Ring;
    use crate::log::votes::has_sound_copy;

    /// A flush with one item of each kind.
    fn flush() -> Bytes {
        let ring = Ring {
            file_size: 512 << 10,
            file_count: 3,
            run_size: 64 << 10,
        };
        let mut journal = Journal::open(JournalRecovered::fresh(ring, 9));
        let opening = journal.next_store().expect("the opening flush");
        journal.stored(opening.write);
        let lsn = journal.open_lsn().expect("room");
        let start = BlockStart {
            group: GroupId(1),
            kind: BlockKind::NoOp,
            index: Index(1),
            term: Term(1),
            first_offset: Offset(0),
            previous_sum: 0,
            commit: Index(0),
        };
        journal.begin_block(start, 0).expect("room");
        let entry = journal.finish_block().expect("a no-op");
        let hard = HardState {
            term: Term(1),
            vote: Some(NodeId(5)),
        };
        journal.put_hard_state(GroupId(1), hard);
        let checkpoint = Checkpoint {
            group: GroupId(1),
            index: Index(1),
            term: Term(1),
            block_sum: entry.sum,
            next_offset: Offset(0),
            segment: 0,
            segment_size: 8192,
            blocks_sum: 0,
            start: Offset(0),
            first_segment: 0,
            restores: false,
            producers: ProducerTable::default(),
        };
        journal.put_checkpoint(&checkpoint).expect("room");
        journal.seal();
        journal.run(lsn).expect("sealed just now")
    }

    #[test]
    fn a_flush_comes_back_item_by_item() {
        let bytes = flush();
        let flush = Flush::check(&bytes).expect("as sealed");
        assert_eq!(flush.header.size as usize, bytes.len());
        assert_eq!(
            flush.header.end(),
            Lsn(flush.header.lsn.0 + bytes.len() as u64)
        );
        assert!(flush.has_votes() && has_sound_copy(&flush.header, &bytes));
        assert!(!flush.header.copies);
        assert!(matches!(flush.items[0], (64, Item::Block(_))));
        assert!(matches!(
            flush.items[1],
            (
                128,
                Item::HardState {
                    group: GroupId(1),
                    ..
                }
            )
        ));
        assert!(matches!(flush.items[2], (160, Item::Checkpoint(_))));
    }

    #[test]
    fn no_single_flipped_bit_of_a_flush_passes() {
        let bytes = flush();
        let votes_at = FlushHeader::read(&bytes).expect("as sealed").votes_at();
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.to_vec();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let checked = Flush::check(&flipped);
            if bit / 8 < votes_at {
                assert!(checked.is_err(), "bit {bit}");
            } else {
                // The second copy is judged by itself.
                let flush = checked.expect("whole without it");
                assert!(!has_sound_copy(&flush.header, &flipped), "bit {bit}");
            }
        }
    }

    #[test]
    fn a_flush_cut_short_is_refused() {
        let bytes = flush();
        for size in (0..bytes.len()).step_by(16) {
            assert!(Flush::check(&bytes[..size]).is_err(), "{size} bytes");
        }
    }
}
