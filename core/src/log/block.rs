//! A block as bytes: the Raft entry, the same on the wire, in the journal and in segments.
//!
//! Keeps the layout and the only way to believe it, [`Block::check`]. Does not know where blocks
//! lie, nor what Raft makes of them. Hop *block* of the data path.
//!
//! ```text
//!  0        4      5       6         7        8       12        16
//!  | size   | kind | flags | version | detail | sum   | group   |        item header
//!  16               24              32               40
//!  | index          | term          | first offset   |
//!  40             44             48             52         56         64
//!  | record count | append count | previous sum | zero     | commit   |
//!  then for every append, padded with zeros to a multiple of 16:
//!  0             4              8          16         24      28             32
//!  | payload sum | payload size | producer | sequence | epoch | record count | payload ...
//! ```
//!
//! The block's sum covers its header (flags and sum as zero) and every append header. The payloads
//! are covered by the sums inside the append headers, so nothing is ever summed twice: a client's
//! sum is checked when its payload is copied, and stands on disk as it came.

use std::fmt;

use bytes::BufMut;

use super::fields::{all_zero, put_u32, put_u64, round_up, u32_at, u64_at};
use super::item::{ItemError, ItemHeader, ItemKind, SUM_AT};
use crate::bugs::{self, Switch};
use crate::frame::sum::{Sum, crc32c};
use crate::id::{Epoch, GroupId, Index, Offset, ProducerId, Sequence, Term};
use crate::limits::{
    APPEND_PAYLOAD_SIZE_MAX, APPEND_RECORD_COUNT_MAX, BLOCK_APPEND_COUNT_MAX, BLOCK_SIZE_MAX,
    RECORD_SIZE_MAX,
};

/// Bytes of the header every journal item begins with.
pub const ITEM_HEADER_SIZE: usize = super::item::ITEM_HEADER_SIZE;
/// Bytes of a block's header, the item header included.
pub const BLOCK_HEADER_SIZE: usize = 64;
/// Bytes in front of each append's payload.
pub const APPEND_HEADER_SIZE: usize = 32;
/// Blocks and appends are multiples of it.
pub const BLOCK_ALIGN: usize = super::item::ITEM_ALIGN;
/// Bytes of a trim's payload.
pub const TRIM_SIZE: usize = 8;
/// Bytes in front of each record in a payload.
pub const RECORD_PREFIX_SIZE: usize = 4;

const INDEX_AT: usize = ITEM_HEADER_SIZE;
const TERM_AT: usize = INDEX_AT + 8;
const FIRST_OFFSET_AT: usize = TERM_AT + 8;
const RECORD_COUNT_AT: usize = FIRST_OFFSET_AT + 8;
const APPEND_COUNT_AT: usize = RECORD_COUNT_AT + 4;
const PREVIOUS_SUM_AT: usize = APPEND_COUNT_AT + 4;
const RESERVED_AT: usize = PREVIOUS_SUM_AT + 4;
const COMMIT_AT: usize = RESERVED_AT + 4;
const _: () = assert!(COMMIT_AT + 8 == BLOCK_HEADER_SIZE);

/// What a block is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlockKind {
    /// Appends of clients.
    Records = 0,
    /// A new leader's first block: it commits what lies below (thesis 5.4.2 and 6.4).
    NoOp = 1,
    /// The group's members; its payload is opaque here and holds no records.
    Configuration = 2,
    /// Moves the log's start: its one append is an offset, below which nothing is kept any more.
    Trim = 3,
}

/// Why bytes are not a block, or not an append of one. The sender or the disk is at fault; whoever
/// gets it has changed nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlockError {
    /// Fewer bytes than the header claims, or than a header has.
    Truncated,
    /// A size below a header's, above [`BLOCK_SIZE_MAX`], unaligned, or not what the appends add
    /// up to.
    Size,
    /// Not a block, or a kind of block this version does not know.
    Kind,
    /// A version this program does not know.
    Version,
    /// A flag: none may be set outside a journal.
    Flags,
    /// Reserved bytes that are not zero.
    Reserved,
    /// Index 0, term 0, a predecessor's sum where there is no predecessor, or one that says of
    /// itself that it is committed.
    Position,
    /// A number of appends that the kind of block cannot have.
    AppendCount,
    /// A number of records that the kind of block cannot have, or that the appends do not have.
    RecordCount,
    /// An append's payload is larger than allowed, or the bytes given are more or fewer than its
    /// header says.
    PayloadSize,
    /// An append's payload is not the one its header was summed over.
    PayloadSum,
    /// A record larger than [`RECORD_SIZE_MAX`].
    RecordSize,
    /// The records' length prefixes do not add up to the payload.
    Framing,
    /// Padding that is not zero.
    Padding,
    /// The block's own sum is wrong.
    Sum,
}

impl fmt::Display for BlockError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Truncated => "the block is cut short",
            Self::Size => "the block's size is impossible",
            Self::Kind => "this is no block, or one of an unknown kind",
            Self::Version => "the block is of an unknown version",
            Self::Flags => "the block carries a flag that may not stand here",
            Self::Reserved => "reserved bytes of the block are not zero",
            Self::Position => "the block has an impossible index, term, predecessor or commit",
            Self::AppendCount => "the block has an impossible number of appends",
            Self::RecordCount => "the number of records is not the one claimed",
            Self::PayloadSize => "the payload's size is not the one claimed, or above the limit",
            Self::PayloadSum => "the payload's sum is wrong",
            Self::RecordSize => "a record is above the size limit",
            Self::Framing => "the records do not fill the payload",
            Self::Padding => "padding is not zero",
            Self::Sum => "the block's sum is wrong",
        })
    }
}

impl std::error::Error for BlockError {}

impl From<ItemError> for BlockError {
    fn from(error: ItemError) -> Self {
        match error {
            ItemError::Truncated => Self::Truncated,
            ItemError::Size => Self::Size,
            ItemError::Kind | ItemError::Detail => Self::Kind,
            ItemError::Version => Self::Version,
            ItemError::Flags => Self::Flags,
            ItemError::Sum => Self::Sum,
            ItemError::Contradiction => Self::Reserved,
        }
    }
}

/// The fixed part of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockHeader {
    /// Bytes of the whole block; a multiple of 16.
    pub size: u32,
    /// What the block is for.
    pub kind: BlockKind,
    /// CRC-32C of this header and all append headers.
    pub sum: u32,
    /// The group whose entry it is.
    pub group: GroupId,
    /// Its index, at least 1.
    pub index: Index,
    /// The term of the leader that made it, at least 1.
    pub term: Term,
    /// Offset of its first record, or of the next one if it has none.
    pub first_offset: Offset,
    /// Records in all its appends.
    pub record_count: u32,
    /// Appends in it.
    pub append_count: u32,
    /// Sum of the block before it in its group; 0 for index 1.
    pub previous_sum: u32,
    /// What was committed when its leader made it: below `index`. Nobody else writes that down, so
    /// after a restart of all nodes it is what tells.
    pub commit: Index,
}

impl BlockHeader {
    /// Reads the header at the start of `bytes` and judges sizes, kind, version and reserved bytes.
    /// Not the sum: that needs the appends.
    ///
    /// # Errors
    /// The first misdeed found.
    pub fn read(bytes: &[u8]) -> Result<Self, BlockError> {
        let item = ItemHeader::read(bytes)?;
        if item.kind != ItemKind::Block {
            return Err(BlockError::Kind);
        }
        let kind = match item.detail {
            0 => BlockKind::Records,
            1 => BlockKind::NoOp,
            2 => BlockKind::Configuration,
            3 => BlockKind::Trim,
            _ => return Err(BlockError::Kind),
        };
        let size = item.size as usize;
        if !(BLOCK_HEADER_SIZE..=BLOCK_SIZE_MAX).contains(&size) {
            return Err(BlockError::Size);
        }
        if bytes.len() < BLOCK_HEADER_SIZE {
            return Err(BlockError::Truncated);
        }
        if !all_zero(&bytes[RESERVED_AT..COMMIT_AT]) {
            return Err(BlockError::Reserved);
        }
        let header = Self {
            size: item.size,
            kind,
            sum: item.sum,
            group: item.group,
            index: Index(u64_at(bytes, INDEX_AT)),
            term: Term(u64_at(bytes, TERM_AT)),
            first_offset: Offset(u64_at(bytes, FIRST_OFFSET_AT)),
            record_count: u32_at(bytes, RECORD_COUNT_AT),
            append_count: u32_at(bytes, APPEND_COUNT_AT),
            previous_sum: u32_at(bytes, PREVIOUS_SUM_AT),
            commit: Index(u64_at(bytes, COMMIT_AT)),
        };
        header.judge_counts()?;
        Ok(header)
    }

    fn judge_counts(&self) -> Result<(), BlockError> {
        if self.index.0 == 0 || self.term.0 == 0 || self.index.0 == u64::MAX {
            return Err(BlockError::Position);
        }
        if self.index.0 == 1 && self.previous_sum != 0 {
            return Err(BlockError::Position);
        }
        if self.commit >= self.index {
            return Err(BlockError::Position);
        }
        let counts = match self.kind {
            BlockKind::Records => 1..=BLOCK_APPEND_COUNT_MAX,
            BlockKind::NoOp => 0..=0,
            BlockKind::Configuration | BlockKind::Trim => 1..=1,
        };
        if !counts.contains(&(self.append_count as usize)) {
            return Err(BlockError::AppendCount);
        }
        if (self.kind == BlockKind::Records) != (self.record_count > 0) {
            return Err(BlockError::RecordCount);
        }
        if self
            .first_offset
            .0
            .checked_add(u64::from(self.record_count))
            .is_none()
        {
            return Err(BlockError::RecordCount);
        }
        Ok(())
    }

    /// Offset of the first record after this block.
    #[must_use]
    pub fn next_offset(&self) -> Offset {
        Offset(self.first_offset.0 + u64::from(self.record_count))
    }

    pub(super) fn write(&self) -> [u8; BLOCK_HEADER_SIZE] {
        let mut bytes = [0; BLOCK_HEADER_SIZE];
        ItemHeader {
            size: self.size,
            kind: ItemKind::Block,
            detail: self.kind as u8,
            sum: self.sum,
            group: self.group,
        }
        .write(&mut bytes);
        put_u64(&mut bytes, INDEX_AT, self.index.0);
        put_u64(&mut bytes, TERM_AT, self.term.0);
        put_u64(&mut bytes, FIRST_OFFSET_AT, self.first_offset.0);
        put_u32(&mut bytes, RECORD_COUNT_AT, self.record_count);
        put_u32(&mut bytes, APPEND_COUNT_AT, self.append_count);
        put_u32(&mut bytes, PREVIOUS_SUM_AT, self.previous_sum);
        put_u64(&mut bytes, COMMIT_AT, self.commit.0);
        bytes
    }
}

/// What stands in front of an append's payload: all that is known of it without looking inside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AppendHeader {
    /// CRC-32C of the payload, as the client sealed it.
    pub payload_sum: u32,
    /// Bytes of the payload, padding not counted.
    pub payload_size: u32,
    /// Who appended.
    pub producer: ProducerId,
    /// The producer's number for the first record.
    pub sequence: Sequence,
    /// The producer's life.
    pub epoch: Epoch,
    /// Records in the payload.
    pub record_count: u32,
}

impl AppendHeader {
    /// Judges the sizes a client claims, before anything is copied or allocated for them.
    ///
    /// # Errors
    /// [`BlockError::PayloadSize`] or [`BlockError::RecordCount`].
    pub fn judge(&self) -> Result<(), BlockError> {
        let size = self.payload_size as usize;
        let count = self.record_count as usize;
        if size > APPEND_PAYLOAD_SIZE_MAX {
            return Err(BlockError::PayloadSize);
        }
        if count == 0 || count > APPEND_RECORD_COUNT_MAX || count * RECORD_PREFIX_SIZE > size {
            return Err(BlockError::RecordCount);
        }
        Ok(())
    }

    pub(super) fn read(bytes: &[u8]) -> Self {
        Self {
            payload_sum: u32_at(bytes, 0),
            payload_size: u32_at(bytes, 4),
            producer: ProducerId(u64_at(bytes, 8)),
            sequence: Sequence(u64_at(bytes, 16)),
            epoch: Epoch(u32_at(bytes, 24)),
            record_count: u32_at(bytes, 28),
        }
    }

    pub(super) fn write(&self) -> [u8; APPEND_HEADER_SIZE] {
        let mut bytes = [0; APPEND_HEADER_SIZE];
        put_u32(&mut bytes, 0, self.payload_sum);
        put_u32(&mut bytes, 4, self.payload_size);
        put_u64(&mut bytes, 8, self.producer.0);
        put_u64(&mut bytes, 16, self.sequence.0);
        put_u32(&mut bytes, 24, self.epoch.0);
        put_u32(&mut bytes, 28, self.record_count);
        bytes
    }
}

/// The append of a trim, and its payload.
#[must_use]
pub fn trim_append(before: Offset) -> (AppendHeader, [u8; TRIM_SIZE]) {
    let payload = before.0.to_le_bytes();
    let header = AppendHeader {
        payload_sum: crc32c(&payload),
        payload_size: TRIM_SIZE as u32,
        producer: ProducerId(0),
        sequence: Sequence(0),
        epoch: Epoch(0),
        record_count: 0,
    };
    (header, payload)
}

/// Bytes an append with a payload of `payload_size` takes in a block.
#[must_use]
pub const fn append_size(payload_size: usize) -> usize {
    APPEND_HEADER_SIZE + round_up(payload_size, BLOCK_ALIGN)
}

/// The sum of a block: its header with the sum as zero, then its append headers in order.
/// `appends` must hold as many well-bounded appends as the header says.
pub(super) fn block_sum(header: &[u8], appends: &[u8], append_count: u32) -> u32 {
    let mut unsummed: [u8; BLOCK_HEADER_SIZE] = header[..BLOCK_HEADER_SIZE]
        .try_into()
        .expect("sliced to its size");
    put_u32(&mut unsummed, SUM_AT, 0);
    let mut sum = Sum::new();
    sum.update(&unsummed);
    let mut at = 0;
    for _ in 0..append_count {
        sum.update(&appends[at..at + APPEND_HEADER_SIZE]);
        at += append_size(AppendHeader::read(&appends[at..]).payload_size as usize);
    }
    sum.value()
}

/// A whole block whose every sum has been checked: header, append headers, payloads and the framing
/// of the records.
#[derive(Clone, Copy, Debug)]
pub struct Block<'a> {
    header: BlockHeader,
    bytes: &'a [u8],
}

impl<'a> Block<'a> {
    /// Checks the block at the start of `bytes`, which may be longer.
    ///
    /// # Errors
    /// The first misdeed found.
    pub fn check(bytes: &'a [u8]) -> Result<Self, BlockError> {
        let header = BlockHeader::read(bytes)?;
        let Some(bytes) = bytes.get(..header.size as usize) else {
            return Err(BlockError::Truncated);
        };
        let appends = &bytes[BLOCK_HEADER_SIZE..];
        // Bounds first: the sum walks the append headers and must not run out of the block.
        judge_bounds(&header, appends)?;
        if block_sum(bytes, appends, header.append_count) != header.sum {
            return Err(BlockError::Sum);
        }
        let block = Self { header, bytes };
        for append in block.appends().filter(|_| !bugs::is_on(Switch::B67)) {
            if crc32c(append.payload) != append.header.payload_sum {
                return Err(BlockError::PayloadSum);
            }
            if header.kind == BlockKind::Records {
                records(append.payload, append.header.record_count)?;
            }
        }
        // What was never appended cannot be trimmed.
        if block
            .trim()
            .is_some_and(|before| before > header.first_offset)
        {
            return Err(BlockError::Position);
        }
        Ok(block)
    }

    /// What else might be in its place, with all sums right: the last byte of the first append
    /// differs. None if it has no append.
    pub(super) fn another(&self) -> Option<Vec<u8>> {
        let mut append = self.appends().next()?.header;
        let mut bytes = self.bytes.to_vec();
        let begin = BLOCK_HEADER_SIZE + APPEND_HEADER_SIZE;
        let payload = &mut bytes[begin..][..append.payload_size as usize];
        *payload.last_mut()? ^= 1;
        append.payload_sum = crc32c(payload);
        bytes[BLOCK_HEADER_SIZE..begin].copy_from_slice(&append.write());
        let count = self.header.append_count;
        let sum = block_sum(&bytes, &bytes[BLOCK_HEADER_SIZE..], count);
        put_u32(&mut bytes, SUM_AT, sum);
        Some(bytes)
    }

    /// Where the log begins from here on, if this is a trim.
    #[must_use]
    pub fn trim(&self) -> Option<Offset> {
        let is_trim = self.header.kind == BlockKind::Trim;
        let append = self.appends().next().filter(|_| is_trim)?;
        Some(Offset(u64_at(append.payload, 0)))
    }

    /// The header of the block at the start of `bytes`, if its sum is right: then its size, its place
    /// in the log and its own sum can be believed, whatever became of its payloads.
    pub(super) fn check_headers(bytes: &[u8]) -> Option<BlockHeader> {
        let header = BlockHeader::read(bytes).ok()?;
        let bytes = bytes.get(..header.size as usize)?;
        let appends = &bytes[BLOCK_HEADER_SIZE..];
        judge_framing(&header, appends).ok()?;
        (block_sum(bytes, appends, header.append_count) == header.sum).then_some(header)
    }

    /// The fixed part.
    #[must_use]
    pub fn header(&self) -> &BlockHeader {
        &self.header
    }

    /// The whole block.
    #[must_use]
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// Its appends in order.
    pub fn appends(&self) -> impl Iterator<Item = Append<'a>> + use<'a> {
        let mut rest = &self.bytes[BLOCK_HEADER_SIZE..];
        let mut first_offset = self.header.first_offset;
        (0..self.header.append_count).map(move |_| {
            let header = AppendHeader::read(rest);
            let end = APPEND_HEADER_SIZE + header.payload_size as usize;
            let append = Append {
                header,
                payload: &rest[APPEND_HEADER_SIZE..end],
                first_offset,
            };
            rest = &rest[append_size(header.payload_size as usize)..];
            first_offset.0 += u64::from(header.record_count);
            append
        })
    }

    /// Its records in order, each with its offset.
    pub fn records(&self) -> impl Iterator<Item = (Offset, &'a [u8])> + use<'a> {
        let first = self.header.first_offset.0;
        self.appends()
            .flat_map(|append| Records {
                rest: append.payload,
                left: append.header.record_count,
            })
            .enumerate()
            .map(move |(position, record)| (Offset(first + position as u64), record))
    }
}

/// That the appends fill the block exactly, with zeros between, and hold the records claimed.
fn judge_bounds(header: &BlockHeader, appends: &[u8]) -> Result<(), BlockError> {
    judge_framing(header, appends)?;
    let mut rest = appends;
    for _ in 0..header.append_count {
        let payload_size = AppendHeader::read(rest).payload_size as usize;
        let (this, next) = rest.split_at(append_size(payload_size));
        if !all_zero(&this[APPEND_HEADER_SIZE + payload_size..]) {
            return Err(BlockError::Padding);
        }
        rest = next;
    }
    Ok(())
}

/// That the appends fill the block exactly and hold the records claimed.
fn judge_framing(header: &BlockHeader, appends: &[u8]) -> Result<(), BlockError> {
    let mut rest = appends;
    let mut record_count = 0_u64;
    for _ in 0..header.append_count {
        if rest.len() < APPEND_HEADER_SIZE {
            return Err(BlockError::Size);
        }
        let append = AppendHeader::read(rest);
        match header.kind {
            BlockKind::Records => append.judge()?,
            BlockKind::NoOp => unreachable!("a no-op has no appends"),
            BlockKind::Configuration | BlockKind::Trim if append.record_count != 0 => {
                return Err(BlockError::RecordCount);
            }
            BlockKind::Trim if append.payload_size as usize != TRIM_SIZE => {
                return Err(BlockError::PayloadSize);
            }
            BlockKind::Configuration | BlockKind::Trim => {}
        }
        let payload_size = append.payload_size as usize;
        if payload_size > APPEND_PAYLOAD_SIZE_MAX || append_size(payload_size) > rest.len() {
            return Err(BlockError::PayloadSize);
        }
        record_count += u64::from(append.record_count);
        rest = &rest[append_size(payload_size)..];
    }
    if !rest.is_empty() {
        return Err(BlockError::Size);
    }
    if record_count != u64::from(header.record_count) {
        return Err(BlockError::RecordCount);
    }
    Ok(())
}

/// One append of a checked block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Append<'a> {
    /// What stands in front of the payload.
    pub header: AppendHeader,
    /// The client's bytes.
    pub payload: &'a [u8],
    /// Offset of its first record.
    pub first_offset: Offset,
}

/// Blocks lying back to back.
#[derive(Clone, Debug)]
pub struct Blocks<'a> {
    rest: &'a [u8],
}

/// Walks `bytes`, which hold whole blocks back to back. Ends after the first error.
#[must_use]
pub fn blocks(bytes: &[u8]) -> Blocks<'_> {
    Blocks { rest: bytes }
}

impl<'a> Iterator for Blocks<'a> {
    type Item = Result<Block<'a>, BlockError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let block = Block::check(self.rest);
        self.rest = match &block {
            Ok(block) => &self.rest[block.bytes.len()..],
            Err(_) => &[],
        };
        Some(block)
    }
}

/// The records of a payload whose framing was found right.
#[derive(Clone, Debug)]
pub struct Records<'a> {
    rest: &'a [u8],
    left: u32,
}

/// Checks that `payload` is exactly `record_count` records, each behind its length.
///
/// # Errors
/// [`BlockError::RecordSize`], [`BlockError::Framing`] or [`BlockError::RecordCount`].
pub fn records(payload: &[u8], record_count: u32) -> Result<Records<'_>, BlockError> {
    let mut rest = payload;
    for _ in 0..record_count {
        if rest.len() < RECORD_PREFIX_SIZE {
            return Err(BlockError::RecordCount);
        }
        let size = u32_at(rest, 0) as usize;
        if size > RECORD_SIZE_MAX {
            return Err(BlockError::RecordSize);
        }
        let Some(next) = rest.get(RECORD_PREFIX_SIZE + size..) else {
            return Err(BlockError::Framing);
        };
        rest = next;
    }
    if !rest.is_empty() {
        return Err(BlockError::Framing);
    }
    Ok(Records {
        rest: payload,
        left: record_count,
    })
}

impl<'a> Iterator for Records<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        let size = u32_at(self.rest, 0) as usize;
        let (record, rest) = self.rest[RECORD_PREFIX_SIZE..].split_at(size);
        self.rest = rest;
        Some(record)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left as usize, Some(self.left as usize))
    }
}

/// Puts one record into a payload. `record` is at most [`RECORD_SIZE_MAX`] bytes.
pub fn write_record(out: &mut impl BufMut, record: &[u8]) {
    assert!(
        record.len() <= RECORD_SIZE_MAX,
        "the caller judged the record's size"
    );
    out.put_u32_le(record.len() as u32);
    out.put_slice(record);
}
