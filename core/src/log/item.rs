//! The sixteen bytes every journal item begins with, and the smallest item, a hard state.
//!
//! Knows how to tell items apart; blocks and checkpoints know their own insides.
//!
//! ```text
//!  0        4      5       6         7        8       12        16
//!  | size   | kind | flags | version | detail | sum   | group   |
//! ```

use std::fmt;

use super::fields::{put_u32, put_u64, u32_at, u64_at};
use super::{Doubt, HardState};
use crate::frame::sum::crc32c;
use crate::id::{GroupId, NodeId, Term};

pub(super) const ITEM_HEADER_SIZE: usize = 16;
/// Items are multiples of it, so that every header lies aligned in its run.
pub(super) const ITEM_ALIGN: usize = 16;
pub(super) const HARD_STATE_SIZE: usize = ITEM_HEADER_SIZE + 16;

const ITEM_VERSION: u8 = 1;

const SIZE_AT: usize = 0;
const KIND_AT: usize = SIZE_AT + 4;
const FLAGS_AT: usize = KIND_AT + 1;
const VERSION_AT: usize = FLAGS_AT + 1;
const DETAIL_AT: usize = VERSION_AT + 1;
pub(super) const SUM_AT: usize = DETAIL_AT + 1;
const GROUP_AT: usize = SUM_AT + 4;
const _: () = assert!(GROUP_AT + 4 == ITEM_HEADER_SIZE);

const TERM_AT: usize = ITEM_HEADER_SIZE;
const VOTE_AT: usize = TERM_AT + 8;
const _: () = assert!(VOTE_AT + 8 == HARD_STATE_SIZE);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ItemKind {
    Block = 1,
    HardState = 2,
    Checkpoint = 3,
    Scars = 4,
}

/// Why bytes are not an item header. Disk or peer is at fault; nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ItemError {
    /// Fewer bytes than the item claims, or than any item has.
    Truncated,
    /// A size no item of this kind can have.
    Size,
    /// A kind this version does not know.
    Kind,
    /// A version this program does not know.
    Version,
    /// A flag; this version knows none.
    Flags,
    /// A detail the kind does not have.
    Detail,
    /// The item's own sum is wrong.
    Sum,
    /// Fields that contradict each other.
    Contradiction,
}

impl fmt::Display for ItemError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Truncated => "the item is cut short",
            Self::Size => "the item's size is impossible",
            Self::Kind => "the item is of an unknown kind",
            Self::Version => "the item is of an unknown version",
            Self::Flags => "the item carries an unknown flag",
            Self::Detail => "the item carries an unknown detail",
            Self::Sum => "the item's sum is wrong",
            Self::Contradiction => "the item's fields contradict each other",
        })
    }
}

impl std::error::Error for ItemError {}

/// The common header, read but not yet summed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ItemHeader {
    pub(super) size: u32,
    pub(super) kind: ItemKind,
    pub(super) detail: u8,
    pub(super) sum: u32,
    pub(super) group: GroupId,
}

impl ItemHeader {
    /// Reads the header at the start of `bytes`; the size is judged for alignment only, since its
    /// bound depends on the kind.
    pub(super) fn read(bytes: &[u8]) -> Result<Self, ItemError> {
        if bytes.len() < ITEM_HEADER_SIZE {
            return Err(ItemError::Truncated);
        }
        let kind = match bytes[KIND_AT] {
            1 => ItemKind::Block,
            2 => ItemKind::HardState,
            3 => ItemKind::Checkpoint,
            4 => ItemKind::Scars,
            _ => return Err(ItemError::Kind),
        };
        if bytes[VERSION_AT] != ITEM_VERSION {
            return Err(ItemError::Version);
        }
        if bytes[FLAGS_AT] != 0 {
            return Err(ItemError::Flags);
        }
        let size = u32_at(bytes, SIZE_AT);
        if (size as usize) < ITEM_HEADER_SIZE || !(size as usize).is_multiple_of(ITEM_ALIGN) {
            return Err(ItemError::Size);
        }
        Ok(Self {
            size,
            kind,
            detail: bytes[DETAIL_AT],
            sum: u32_at(bytes, SUM_AT),
            group: GroupId(u32_at(bytes, GROUP_AT)),
        })
    }

    pub(super) fn write(&self, bytes: &mut [u8]) {
        assert!(
            (self.size as usize).is_multiple_of(ITEM_ALIGN),
            "items are padded"
        );
        put_u32(bytes, SIZE_AT, self.size);
        bytes[KIND_AT] = self.kind as u8;
        bytes[FLAGS_AT] = 0;
        bytes[VERSION_AT] = ITEM_VERSION;
        bytes[DETAIL_AT] = self.detail;
        put_u32(bytes, SUM_AT, self.sum);
        put_u32(bytes, GROUP_AT, self.group.0);
    }
}

/// Stamps the sum of a whole item whose header says sum 0.
pub(super) fn stamp_sum(item: &mut [u8]) {
    assert_eq!(u32_at(item, SUM_AT), 0, "an item is stamped once");
    let sum = crc32c(item);
    put_u32(item, SUM_AT, sum);
}

/// The hard state of `group` as an item.
pub(super) fn write_hard_state(
    group: GroupId,
    hard: HardState,
    doubt: Doubt,
) -> [u8; HARD_STATE_SIZE] {
    assert!(hard.vote != Some(NodeId(0)), "node 0 stands for no vote");
    let mut bytes = [0; HARD_STATE_SIZE];
    ItemHeader {
        size: HARD_STATE_SIZE as u32,
        kind: ItemKind::HardState,
        detail: doubt.code(),
        sum: 0,
        group,
    }
    .write(&mut bytes);
    put_u64(&mut bytes, TERM_AT, hard.term.0);
    put_u64(&mut bytes, VOTE_AT, hard.vote.map_or(0, |node| node.0));
    stamp_sum(&mut bytes);
    bytes
}

/// Reads and checks a hard state at the start of `bytes`.
pub(super) fn check_hard_state(bytes: &[u8]) -> Result<(GroupId, HardState, Doubt), ItemError> {
    let header = ItemHeader::read(bytes)?;
    if header.kind != ItemKind::HardState {
        return Err(ItemError::Kind);
    }
    let doubt = Doubt::from_code(header.detail).ok_or(ItemError::Detail)?;
    if header.size as usize != HARD_STATE_SIZE {
        return Err(ItemError::Size);
    }
    let Some(bytes) = bytes.get(..HARD_STATE_SIZE) else {
        return Err(ItemError::Truncated);
    };
    let mut unsummed: [u8; HARD_STATE_SIZE] = bytes.try_into().expect("sliced to its size");
    put_u32(&mut unsummed, SUM_AT, 0);
    if crc32c(&unsummed) != header.sum {
        return Err(ItemError::Sum);
    }
    let vote = u64_at(bytes, VOTE_AT);
    let hard = HardState {
        term: Term(u64_at(bytes, TERM_AT)),
        vote: (vote != 0).then_some(NodeId(vote)),
    };
    Ok((header.group, hard, doubt))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hard_state_comes_back_and_no_flipped_bit_passes() {
        let hard = HardState {
            term: Term(7),
            vote: Some(NodeId(42)),
        };
        for code in 0..8 {
            let doubt = Doubt::from_code(code).expect("three bits");
            let bytes = write_hard_state(GroupId(3), hard, doubt);
            assert_eq!(check_hard_state(&bytes), Ok((GroupId(3), hard, doubt)));
        }
        let bytes = write_hard_state(GroupId(3), hard, Doubt::default());
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes;
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(check_hard_state(&flipped).is_err(), "bit {bit}");
        }
        for size in 0..bytes.len() {
            assert_eq!(check_hard_state(&bytes[..size]), Err(ItemError::Truncated));
        }
    }
}
