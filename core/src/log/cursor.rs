//! A walk over a segment's blocks, in whatever pieces its bytes are loaded.
//!
//! Keeps a position and says what to load next. Does no I/O and holds no bytes.

use super::block::{BLOCK_ALIGN, BLOCK_HEADER_SIZE, Block, BlockError, BlockHeader};
use super::fields::{all_zero, round_up, u32_at};
use super::segments::Point;
use crate::id::{GroupId, Index};
use crate::limits::SECTOR_SIZE;

/// What stands at a cursor's position.
#[derive(Debug)]
pub enum Step<'a> {
    /// The next block, checked; the cursor is behind it now.
    Block(Block<'a>),
    /// The bytes given do not hold the next block: load at least these, whole sectors.
    Load {
        /// Byte position in the segment's file.
        position: u64,
        /// Bytes.
        size: usize,
    },
    /// All synced blocks were seen.
    End,
    /// The next block is damaged. The cursor stays.
    Damaged(BlockError),
}

/// A position between two blocks of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursor {
    group: GroupId,
    next: Point,
    /// Synced bytes of the segment.
    end: u64,
}

impl Cursor {
    /// Before the block at `start`, in a segment of which `end` bytes are synced.
    #[must_use]
    pub fn new(group: GroupId, start: Point, end: u64) -> Self {
        assert!(
            start.position.is_multiple_of(BLOCK_ALIGN as u64),
            "blocks lie aligned"
        );
        assert!(
            end.is_multiple_of(SECTOR_SIZE as u64),
            "writes are whole sectors"
        );
        Self {
            group,
            next: start,
            end,
        }
    }

    /// The next block's place; its index and offset are known before it is.
    #[must_use]
    pub fn next(&self) -> Point {
        self.next
    }

    /// Index of the next block.
    #[must_use]
    pub fn index(&self) -> Index {
        self.next.index
    }

    /// Takes one step over `bytes`, which were loaded from byte position `loaded_at`, a multiple of
    /// the sector.
    pub fn step<'a>(&mut self, bytes: &'a [u8], loaded_at: u64) -> Step<'a> {
        assert!(
            loaded_at.is_multiple_of(SECTOR_SIZE as u64),
            "whole sectors are loaded"
        );
        loop {
            if self.next.position >= self.end {
                return Step::End;
            }
            let rest = self
                .next
                .position
                .checked_sub(loaded_at)
                .and_then(|at| bytes.get(usize::try_from(at).ok()?..))
                .unwrap_or_default();
            if rest.len() < BLOCK_ALIGN {
                return self.load(BLOCK_HEADER_SIZE);
            }
            if u32_at(rest, 0) == 0 {
                // Behind a write's last block: zeros to the next sector.
                let over = (self.next.position % SECTOR_SIZE as u64) as usize;
                let padding = SECTOR_SIZE - over;
                let Some(zeros) = rest.get(..padding) else {
                    return self.load(padding);
                };
                if over == 0 || !all_zero(zeros) {
                    return Step::Damaged(BlockError::Padding);
                }
                self.next.position += padding as u64;
                continue;
            }
            return self.step_block(rest);
        }
    }

    fn step_block<'a>(&mut self, rest: &'a [u8]) -> Step<'a> {
        if rest.len() < BLOCK_HEADER_SIZE {
            return self.load(BLOCK_HEADER_SIZE);
        }
        let header = match BlockHeader::read(rest) {
            Ok(header) => header,
            Err(error) => return Step::Damaged(error),
        };
        let size = header.size as usize;
        if self.next.position + size as u64 > self.end {
            return Step::Damaged(BlockError::Size);
        }
        if rest.len() < size {
            return self.load(size);
        }
        let expected = (header.group, header.index, header.first_offset);
        if expected != (self.group, self.next.index, self.next.offset) {
            return Step::Damaged(BlockError::Position);
        }
        match Block::check(rest) {
            Ok(block) => {
                self.next.position += size as u64;
                self.next.index = header.index.next();
                self.next.offset = header.next_offset();
                Step::Block(block)
            }
            Err(error) => Step::Damaged(error),
        }
    }

    /// The whole sectors that hold `size` bytes from the position on.
    fn load<'a>(&self, size: usize) -> Step<'a> {
        let over = (self.next.position % SECTOR_SIZE as u64) as usize;
        let position = self.next.position - over as u64;
        let left = usize::try_from(self.end - position).unwrap_or(usize::MAX);
        Step::Load {
            position,
            size: round_up(over + size, SECTOR_SIZE).min(left),
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;

    use super::super::block::{AppendHeader, BlockKind, write_record};
    use super::super::builder::{BlockBuilder, BlockStart};
    use super::super::segments::{Segments, gather_arenas};
    use super::super::tail::Base;
    use super::*;
    use crate::frame::sum::crc32c;
    use crate::id::{ClusterId, Epoch, Offset, ProducerId, Sequence, Term};
    use crate::log::segment::SegmentHeader;
    use crate::log::test_rng::Rng;

    fn block(previous: Base, record_size: usize) -> BytesMut {
        let mut payload = Vec::new();
        write_record(&mut payload, &vec![9; record_size]);
        let mut buffer = BytesMut::with_capacity(record_size + 4096);
        let start = BlockStart {
            group: GroupId(1),
            kind: BlockKind::Records,
            index: previous.index.next(),
            term: Term(1),
            first_offset: previous.next_offset,
            previous_sum: previous.sum,
        };
        let mut builder = BlockBuilder::begin(&mut buffer, start);
        let header = AppendHeader {
            payload_sum: crc32c(&payload),
            payload_size: payload.len() as u32,
            producer: ProducerId(1),
            sequence: Sequence(previous.next_offset.0),
            epoch: Epoch(0),
            record_count: 1,
        };
        builder
            .push(&mut buffer, &header, [&payload[..]].into_iter())
            .expect("a good append");
        builder.finish(&mut buffer).expect("a block");
        buffer
    }

    /// Files of segments, their `Segments`, and the base after the last block.
    fn written(seed: u64, blocks: u64) -> (Vec<Vec<u8>>, Segments, Base) {
        let mut rng = Rng::new(seed);
        let mut arenas = gather_arenas(1);
        let mut segments = Segments::new(ClusterId(7), 8, GroupId(1));
        let (mut files, mut base) = (Vec::new(), Base::default());
        while base.index.0 < blocks {
            let mut gather = segments.gather(&mut arenas, base).expect("memory is free");
            for _ in 0..1 + rng.below(20) {
                let size = if rng.chance(8) {
                    1 << 20
                } else {
                    rng.below(9000) as usize
                };
                let bytes = block(base, size);
                let block = Block::check(&bytes).expect("as built");
                if gather.is_full() {
                    break;
                }
                gather.push(&block);
                let header = block.header();
                base = Base {
                    index: header.index,
                    term: header.term,
                    sum: header.sum,
                    next_offset: header.next_offset(),
                };
            }
            let write = gather.finish().expect("a block at least");
            assert_eq!(write.last, base);
            assert!(write.bytes.len().is_multiple_of(SECTOR_SIZE));
            if write.position == 0 {
                files.push(Vec::new());
            }
            let file = &mut files[write.segment as usize];
            assert_eq!(file.len() as u64, write.position);
            file.extend_from_slice(&write.bytes);
            segments.synced(&write);
            assert_eq!(segments.growing(), (write.segment, file.len() as u64));
        }
        (files, segments, base)
    }

    /// Reads on from a point through all files, loading as asked, and says the indexes seen.
    fn read(files: &[Vec<u8>], segments: &mut Segments, start: Point) -> Vec<u64> {
        let (mut seen, mut loads) = (Vec::new(), 0);
        let mut start = Some(start);
        while let Some(point) = start {
            let file = &files[point.segment as usize];
            let mut cursor = Cursor::new(GroupId(1), point, file.len() as u64);
            let (mut at, mut size) = (0, 0);
            loop {
                segments.note(cursor.next());
                match cursor.step(&file[at as usize..][..size], at) {
                    Step::Block(block) => seen.push(block.header().index.0),
                    Step::Load {
                        position,
                        size: wanted,
                    } => {
                        assert_ne!((at, size), (position, wanted), "no load is asked for twice");
                        (at, size, loads) = (position, wanted, loads + 1);
                        assert!(loads < 100_000 && at as usize + size <= file.len());
                    }
                    Step::End => break,
                    Step::Damaged(error) => panic!("{error} at {:?}", cursor.next()),
                }
            }
            let next = segments
                .find_index(cursor.index())
                .expect("beyond the first");
            start = (next.segment > point.segment).then_some(next);
        }
        seen
    }

    #[test]
    fn what_was_gathered_is_found_and_read_back() {
        let (files, segments, base) = written(1, 900);
        assert!(files.len() > 1, "more than one segment was to be written");
        // After a restart only the headers are known; walking fills the index again.
        let mut found = Segments::new(ClusterId(7), 8, GroupId(1));
        for file in &files {
            let header = SegmentHeader::check(file).expect("a header");
            found.add(&header, file.len() as u64);
        }
        for mut segments in [segments, found] {
            for index in [1, 2, 77, 500, base.index.0] {
                let point = segments.find_index(Index(index)).expect("from block 1 on");
                assert!(point.index.0 <= index);
                let seen = read(&files, &mut segments, point);
                let all: Vec<u64> = (point.index.0..=base.index.0).collect();
                assert_eq!(seen, all);
                let by_offset = segments
                    .find_offset(Offset(index - 1))
                    .expect("from offset 0 on");
                assert!(by_offset.offset.0 < index);
            }
            assert_eq!(segments.find_index(Index(0)), None);
        }
    }

    #[test]
    fn damage_stops_the_walk_where_it_is() {
        let (mut files, segments, _) = written(2, 5);
        let size = files[0].len() as u64;
        let start = segments.find_index(Index(1)).expect("block 1");
        for at in [
            start.position as usize,
            start.position as usize + 100,
            files[0].len() - 1,
        ] {
            files[0][at] ^= 1;
            let mut cursor = Cursor::new(GroupId(1), start, size);
            let damaged = loop {
                match cursor.step(&files[0], 0) {
                    Step::Block(_) => {}
                    Step::Damaged(_) => break true,
                    Step::Load { .. } | Step::End => break false,
                }
            };
            assert!(damaged, "byte {at}");
            assert!(cursor.next().position <= at as u64);
            files[0][at] ^= 1;
        }
    }

    #[test]
    fn another_groups_block_is_damage() {
        let (files, segments, _) = written(3, 3);
        let start = segments.find_index(Index(1)).expect("block 1");
        let mut cursor = Cursor::new(GroupId(2), start, files[0].len() as u64);
        assert!(matches!(
            cursor.step(&files[0], 0),
            Step::Damaged(BlockError::Position)
        ));
    }
}
