//! A segment's blocks in the order in which they stand, judged one by one: what a scrub and a mend see
//! of a file. Where the block that is due does not stand, the walk looks for the next one behind.
//!
//! Keeps a place and what was before it. Knows no read and no disk: bytes are given to it.

use crate::id::{GroupId, Index, Offset, Term};
use crate::limits::SECTOR_SIZE;
use crate::log::block::{BLOCK_ALIGN, Block, BlockError, BlockHeader, ITEM_HEADER_SIZE};

/// The block before a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Before {
    pub(super) index: Index,
    pub(super) term: Term,
    pub(super) sum: u32,
    /// Offset of the first record behind it.
    pub(super) next_offset: Offset,
}

impl Before {
    pub(super) fn of(header: &BlockHeader) -> Self {
        Self {
            index: header.index,
            term: header.term,
            sum: header.sum,
            next_offset: header.next_offset(),
        }
    }
}

/// A walk through the blocks of one segment.
#[derive(Clone, Debug)]
pub(super) struct Walk {
    group: GroupId,
    /// Index of the segment's last block.
    last: Index,
    pub(super) before: Before,
    /// Byte at which to look next.
    pub(super) position: u64,
    /// Where the blocks end, or the file does.
    end: u64,
    is_lost: bool,
}

/// What stands at a place.
#[derive(Debug)]
pub(super) enum Met<'a> {
    /// The block that is due.
    Block(Block<'a>),
    /// Something else. The walk goes on behind it.
    Gap,
    /// A sound block behind a gap. The walk stays there until it is resumed.
    Island(BlockHeader),
    /// Bytes from the walk's place on are needed.
    More,
    /// The last block was met, or the end of the file.
    End,
}

impl Walk {
    pub(super) fn new(group: GroupId, last: Index, before: Before, begin: u64, end: u64) -> Self {
        Self {
            group,
            last,
            before,
            position: begin,
            end,
            is_lost: false,
        }
    }

    /// Whether all blocks were met.
    pub(super) fn is_whole(&self) -> bool {
        self.before.index == self.last
    }

    /// Where the next read begins, in whole sectors, and how much there is from there on.
    pub(super) fn rest(&self) -> (u64, u64) {
        let begin = self.position & !(SECTOR_SIZE as u64 - 1);
        (begin, self.end.saturating_sub(begin))
    }

    /// The file ends here.
    pub(super) fn cut(&mut self, end: u64) {
        self.end = self.end.min(end);
    }

    /// What was missing is known: the block behind the gap is due now.
    pub(super) fn resume(&mut self, before: Before) {
        self.before = before;
        self.is_lost = false;
    }

    /// What comes next in `bytes`, which begin at byte `begin` of the file.
    pub(super) fn next<'a>(&mut self, bytes: &'a [u8], begin: u64) -> Met<'a> {
        assert!(begin <= self.position, "the walk does not go back");
        loop {
            if self.position >= self.end || self.is_whole() {
                return Met::End;
            }
            let at = (self.position - begin) as usize;
            let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) else {
                return Met::More;
            };
            let is_cut = at > 0 && begin + (bytes.len() as u64) < self.end;
            if self.is_lost {
                match Block::check(rest) {
                    Ok(block) if self.is_island(block.header()) => {
                        return Met::Island(*block.header());
                    }
                    Err(BlockError::Truncated) if is_cut => return Met::More,
                    _ => self.position += BLOCK_ALIGN as u64,
                }
                continue;
            }
            // Each gathered write ends with zeros up to a sector.
            if rest.iter().take(ITEM_HEADER_SIZE).all(|byte| *byte == 0) {
                self.position = (self.position + 1).next_multiple_of(SECTOR_SIZE as u64);
                continue;
            }
            match Block::check(rest) {
                Ok(block) if self.is_due(block.header()) => {
                    self.position += block.bytes().len() as u64;
                    self.before = Before::of(block.header());
                    return Met::Block(block);
                }
                Err(BlockError::Truncated) if is_cut => return Met::More,
                _ => {
                    self.is_lost = true;
                    return Met::Gap;
                }
            }
        }
    }

    fn is_due(&self, header: &BlockHeader) -> bool {
        header.group == self.group
            && header.index == self.before.index.next()
            && header.previous_sum == self.before.sum
    }

    fn is_island(&self, header: &BlockHeader) -> bool {
        let is_behind = header.index > self.before.index.next() && header.index <= self.last;
        header.group == self.group && is_behind || self.is_due(header)
    }
}
