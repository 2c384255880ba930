//! A segment's blocks in the order in which they stand, judged one by one: what a scrub and a mend see
//! of a file. Where the block that is due does not stand, the walk looks for the next one behind.
//!
//! Keeps a place and what was before it. Knows no read and no disk: bytes are given to it. Does not
//! know either whether what it finds behind a gap is a block of the log or a record that looks like
//! one; that is `chain`'s.

use crate::id::{GroupId, Index, Offset, Term};
use crate::limits::{MEND_LOOK_SIZE, SECTOR_SIZE};
use crate::log::Base;
use crate::log::block::{
    BLOCK_ALIGN, BLOCK_HEADER_SIZE, Block, BlockError, BlockHeader, ITEM_HEADER_SIZE,
};
use crate::log::segment::SegmentHeader;

use super::chain::{Link, Stretch};

/// The block before a place. Its term is 0 where nobody knows it.
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

    /// The block before a segment's first.
    pub(super) fn of_segment(header: &SegmentHeader) -> Self {
        Self {
            index: Index(header.first_index.0 - 1),
            term: header.previous_term,
            sum: header.previous_sum,
            next_offset: header.first_offset,
        }
    }

    /// The block that a log goes on behind.
    pub(super) fn of_base(base: &Base) -> Self {
        Self {
            index: base.index,
            term: base.term,
            sum: base.sum,
            next_offset: base.next_offset,
        }
    }

    /// The block before a stretch, as far as that knows it.
    pub(super) fn behind(stretch: &Stretch) -> Self {
        Self {
            index: stretch.before.index,
            term: Term(0),
            sum: stretch.before.sum,
            next_offset: stretch.first_offset,
        }
    }

    /// What names it.
    pub(super) fn link(&self) -> Link {
        Link {
            index: self.index,
            sum: self.sum,
        }
    }
}

/// A walk through the blocks of one segment.
#[derive(Clone, Debug)]
pub(super) struct Walk {
    group: GroupId,
    /// Index of the block before the segment's first.
    begin: Index,
    /// The segment's last block.
    last: Link,
    pub(super) before: Before,
    /// Byte at which to look next.
    pub(super) position: u64,
    /// Where the blocks end, or the file does.
    end: u64,
    is_lost: bool,
    /// Bytes looked at behind a gap since the last rest.
    looked_size: usize,
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
    /// Behind a gap so much was looked at that others must come first.
    Rest,
    /// The last block was met, or the end of the file.
    End,
}

impl Walk {
    /// Through the segment of a group that begins behind `before` and at byte `begin`.
    pub(super) fn new(group: GroupId, last: Link, before: Before, begin: u64, end: u64) -> Self {
        Self {
            group,
            begin: before.index,
            last,
            before,
            position: begin,
            end,
            is_lost: false,
            looked_size: 0,
        }
    }

    /// Whether the last block was met, and is the one that should be there.
    pub(super) fn is_whole(&self) -> bool {
        self.before.link() == self.last
    }

    /// Whether it looks for a block behind a gap.
    pub(super) fn is_lost(&self) -> bool {
        self.is_lost
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

    /// Goes on at a byte at which the block behind `before` should stand.
    pub(super) fn enter(&mut self, position: u64, before: Before) {
        self.position = position;
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
            // Not if a read from here on would bring no more: no block is that large.
            let is_cut = at >= SECTOR_SIZE && begin + (bytes.len() as u64) < self.end;
            if self.is_lost {
                if self.looked_size >= MEND_LOOK_SIZE {
                    self.looked_size = 0;
                    return Met::Rest;
                }
                match self.look(rest) {
                    Ok(header) => return Met::Island(header),
                    Err(BlockError::Truncated) if is_cut => return Met::More,
                    Err(_) => self.position += BLOCK_ALIGN as u64,
                }
                continue;
            }
            // Each gathered write ends with zeros up to a sector.
            if rest.iter().take(ITEM_HEADER_SIZE).all(|byte| *byte == 0) {
                let next = (self.position + 1).next_multiple_of(SECTOR_SIZE as u64);
                let padding = rest.iter().take((next - self.position) as usize);
                if !padding.copied().all(|byte| byte == 0) {
                    self.is_lost = true;
                    return Met::Gap;
                }
                self.position = next;
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
            && header.index <= self.last.index
    }

    /// A sound block that may be one of the segment's. What cannot be one is not summed.
    fn look(&mut self, bytes: &[u8]) -> Result<BlockHeader, BlockError> {
        self.looked_size += BLOCK_HEADER_SIZE;
        let header = BlockHeader::read(bytes)?;
        let is_within = header.index > self.begin && header.index <= self.last.index;
        if header.group != self.group || !is_within {
            return Err(BlockError::Position);
        }
        self.looked_size += header.size as usize;
        Block::check(bytes).map(|block| *block.header())
    }
}
