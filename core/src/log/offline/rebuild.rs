//! A segment's file, made anew from the sound blocks of a damaged one and what others have of the rest.
//!
//! Keeps the blocks, and how far they are proved: from the last one, whose sum the next segment or the
//! checkpoint names, back to the first, each by the sum that the one behind it names. So nothing is
//! believed for where it stands or for what it says of itself: neither a stale block, nor a record
//! that looks like one, nor what another node gives. Knows no file and no wire.

use std::collections::BTreeMap;
use std::fmt;

use bytes::{BufMut, Bytes, BytesMut};

use super::super::Place;
use super::super::block::{Block, BlockHeader, blocks};
use super::super::footer::FooterBuilder;
use super::super::segment::SegmentHeader;
use super::super::tail::{Base, Entry};
use super::BlockPiece;
use crate::id::{Index, UnixSeconds};

/// Where a segment ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentEnd {
    /// Index of its last block.
    pub last: Index,
    /// That block's sum.
    pub sum: u32,
    /// Bytes of head, blocks and padding: where a footer stands.
    pub data_size: u64,
    /// When it was sealed; none if it was not.
    pub sealed_at: Option<UnixSeconds>,
}

/// Blocks that are to be had from elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Missing {
    /// Index of the first.
    pub first: Index,
    /// Index of the last.
    pub last: Index,
    /// Sum of the last, and so, by what each block names before it, of all.
    pub sum: u32,
}

/// Why a segment is not made anew. Nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RebuildError {
    /// The blocks given are not those that were missing.
    NotThose,
    /// The blocks are proved, and do not follow what the header names before them.
    Unchained,
    /// The blocks do not fit where the old ones stood.
    TooLarge,
}

impl fmt::Display for RebuildError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotThose => "other blocks than those that are missing",
            Self::Unchained => "its blocks do not follow what its header names before them",
            Self::TooLarge => "its blocks do not fit where they stood",
        })
    }
}

impl std::error::Error for RebuildError {}

/// A segment that is made anew.
#[derive(Debug)]
pub struct Rebuild {
    header: SegmentHeader,
    end: SegmentEnd,
    /// Blocks that may be those that are wanted, by index.
    found: BTreeMap<Index, Bytes>,
    /// Blocks that are, from the last one down.
    proved: Vec<Bytes>,
    /// Index and sum of the block that is due.
    due: (Index, u32),
    given_count: u64,
}

impl Rebuild {
    /// None of its blocks is known yet.
    #[must_use]
    pub fn new(header: SegmentHeader, end: SegmentEnd) -> Self {
        Self {
            header,
            end,
            found: BTreeMap::new(),
            proved: Vec::new(),
            due: (end.last, end.sum),
            given_count: 0,
        }
    }

    /// Takes a block of the old file, if it is sound.
    pub fn take(&mut self, block: &BlockPiece) {
        let is_ours = block.error.is_none() && block.header.group == self.header.group;
        if is_ours {
            let entry = self.found.entry(block.header.index);
            entry.or_insert_with(|| block.bytes.clone());
        }
    }

    /// What must be had from elsewhere next; none if all blocks are here.
    pub fn missing(&mut self) -> Option<Missing> {
        while self.due.0 >= self.header.first_index {
            let (index, sum) = self.due;
            let found = self.found.remove(&index);
            let header = found.as_ref().map(|bytes| header_of(bytes));
            match (found, header) {
                (Some(bytes), Some(header)) if header.sum == sum => {
                    self.proved.push(bytes);
                    self.due = (Index(index.0 - 1), header.previous_sum);
                }
                _ => {
                    let below = self.found.range(..index).next_back();
                    let first = below.map_or(self.header.first_index, |(found, _)| found.next());
                    return Some(Missing {
                        first: first.max(self.header.first_index),
                        last: index,
                        sum,
                    });
                }
            }
        }
        None
    }

    /// Takes what was missing: all of it, and nothing else.
    ///
    /// # Errors
    /// [`RebuildError::NotThose`]; then nothing was taken.
    pub fn give(&mut self, missing: Missing, bytes: &Bytes) -> Result<(), RebuildError> {
        let mut given: Vec<(BlockHeader, Bytes)> = Vec::new();
        let mut at = 0;
        for block in blocks(bytes) {
            let block = block.map_err(|_| RebuildError::NotThose)?;
            let header = *block.header();
            let follows = match given.last() {
                Some((last, _)) => {
                    header.index == last.index.next() && header.previous_sum == last.sum
                }
                None => header.index == missing.first,
            };
            if !follows || header.group != self.header.group {
                return Err(RebuildError::NotThose);
            }
            let size = block.bytes().len();
            given.push((header, bytes.slice(at..at + size)));
            at += size;
        }
        match given.last() {
            Some((last, _)) if (last.index, last.sum) == (missing.last, missing.sum) => {}
            _ => return Err(RebuildError::NotThose),
        }
        self.given_count += given.len() as u64;
        let given = given.into_iter();
        self.found
            .extend(given.map(|(header, bytes)| (header.index, bytes)));
        Ok(())
    }

    /// Blocks that came from elsewhere.
    #[must_use]
    pub fn given_count(&self) -> u64 {
        self.given_count
    }

    /// The new file. `state` is what stood behind a copy of the old one's header, sound or not: it is
    /// this disk's own, and its sum tells which.
    ///
    /// # Errors
    /// [`RebuildError::Unchained`] or [`RebuildError::TooLarge`].
    pub fn finish(mut self, state: &[u8]) -> Result<BytesMut, RebuildError> {
        assert_eq!(self.missing(), None, "all blocks are here");
        let header = self.header;
        let before = header.first_index.0 - 1;
        if self.due != (Index(before), header.previous_sum) {
            return Err(RebuildError::Unchained);
        }
        let head_size = header.state.head_size as usize;
        let data_size = usize::try_from(self.end.data_size).expect("a segment fits in memory");
        let mut file = BytesMut::with_capacity(data_size);
        for end in [header.state.copy_size(), head_size] {
            file.put_slice(&header.encode());
            file.put_slice(&state[..state.len().min(end - file.len())]);
            file.resize(end, 0);
        }
        let mut built = FooterBuilder::new(head_size as u64);
        let mut last: Option<BlockHeader> = None;
        let mut term = header.previous_term;
        for bytes in self.proved.iter().rev() {
            let block = header_of(bytes);
            let position = file.len() as u64;
            built.push(&entry_of(&block), block.index, position, term);
            file.put_slice(bytes);
            term = block.term;
            last = Some(block);
        }
        if file.len() > data_size {
            return Err(RebuildError::TooLarge);
        }
        file.resize(data_size, 0);
        if let (Some(sealed_at), Some(last)) = (self.end.sealed_at, last) {
            let last = Base {
                index: last.index,
                term: last.term,
                sum: last.sum,
                next_offset: last.next_offset(),
            };
            let footer = built.footer(self.header, last, self.end.data_size, sealed_at);
            file.put_slice(&footer.encode());
        }
        Ok(file)
    }
}

/// The header of a block that was checked when it was found.
fn header_of(bytes: &[u8]) -> BlockHeader {
    *Block::check(bytes).expect("it was sound").header()
}

fn entry_of(header: &BlockHeader) -> Entry {
    Entry {
        term: header.term,
        size: header.size,
        sum: header.sum,
        place: Place::default(),
        first_offset: header.first_offset,
        record_count: header.record_count,
    }
}
