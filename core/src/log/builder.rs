//! A block under construction at the end of an open run: the one copy of the data path.
//!
//! Sums each payload while copying it, and takes the copy back if the sum is not the client's.
//! Knows the run only as a buffer that must not move. Hop *block* of the data path.

use bytes::{BufMut, BytesMut};

use super::block::{
    APPEND_HEADER_SIZE, AppendHeader, BLOCK_ALIGN, BLOCK_HEADER_SIZE, BlockError, BlockHeader,
    BlockKind, append_size, block_sum, records,
};
use super::fields::pad;
use crate::frame::sum::Sum;
use crate::id::{GroupId, Index, Offset, Term};
use crate::limits::{BLOCK_APPEND_COUNT_MAX, BLOCK_SIZE_MAX};

/// What is known of a block before its first append.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockStart {
    /// The group whose entry it becomes.
    pub group: GroupId,
    /// What it is for.
    pub kind: BlockKind,
    /// Its index, at least 1.
    pub index: Index,
    /// The leader's term, at least 1.
    pub term: Term,
    /// Offset of its first record.
    pub first_offset: Offset,
    /// Sum of the block before it; 0 for index 1.
    pub previous_sum: u32,
    /// What is committed as far as its leader knows: below `index`.
    pub commit: Index,
}

/// Builds one block, append after append.
#[derive(Debug)]
pub struct BlockBuilder {
    start: BlockStart,
    /// Where the block begins in the run. Everything behind it belongs to this block.
    at: usize,
    record_count: u32,
    append_count: u32,
}

impl BlockBuilder {
    /// Begins a block at the end of `run`, which must have room for its header.
    #[must_use]
    pub fn begin(run: &mut BytesMut, start: BlockStart) -> Self {
        assert!(run.len().is_multiple_of(BLOCK_ALIGN), "blocks lie aligned");
        assert!(
            start.index.0 > 0 && start.term.0 > 0,
            "index and term begin at 1"
        );
        assert!(start.commit < start.index, "no block commits itself");
        assert!(
            run.capacity() - run.len() >= BLOCK_HEADER_SIZE,
            "the run must not move"
        );
        let at = run.len();
        run.put_bytes(0, BLOCK_HEADER_SIZE);
        Self {
            start,
            at,
            record_count: 0,
            append_count: 0,
        }
    }

    /// What the block began with.
    #[must_use]
    pub fn start(&self) -> &BlockStart {
        &self.start
    }

    /// Where the block begins in the run, in bytes.
    #[must_use]
    pub fn at(&self) -> usize {
        self.at
    }

    /// Appends so far.
    #[must_use]
    pub fn append_count(&self) -> u32 {
        self.append_count
    }

    /// Offset of the first record after those put so far.
    #[must_use]
    pub fn next_offset(&self) -> Offset {
        Offset(self.start.first_offset.0 + u64::from(self.record_count))
    }

    /// Whether the block may take another append of `payload_size` bytes, at the end of a run that
    /// has `run_size` bytes so far. Whether the run may grow is not asked.
    #[must_use]
    pub fn fits(&self, run_size: usize, payload_size: usize) -> bool {
        let size = run_size - self.at;
        (self.append_count as usize) < BLOCK_APPEND_COUNT_MAX
            && size + append_size(payload_size) <= BLOCK_SIZE_MAX
    }

    /// Copies one append behind the others. The caller asked [`BlockBuilder::fits`], and knows that
    /// the run has room.
    ///
    /// # Errors
    /// What is wrong with the payload; block and run are then as before the call.
    pub fn push<'a>(
        &mut self,
        run: &mut BytesMut,
        header: &AppendHeader,
        payload: impl Iterator<Item = &'a [u8]>,
    ) -> Result<(), BlockError> {
        assert!(self.start.kind != BlockKind::NoOp, "a no-op has no appends");
        if self.start.kind == BlockKind::Records {
            header.judge()?;
        }
        let size = header.payload_size as usize;
        assert!(
            self.fits(run.len(), size),
            "the caller asked whether it fits"
        );
        assert!(
            run.capacity() - run.len() >= append_size(size),
            "the run must not move"
        );
        let before = run.len();
        let pushed = self.copy(run, header, payload);
        if pushed.is_err() {
            run.truncate(before);
        }
        pushed
    }

    fn copy<'a>(
        &mut self,
        run: &mut BytesMut,
        header: &AppendHeader,
        payload: impl Iterator<Item = &'a [u8]>,
    ) -> Result<(), BlockError> {
        run.put_slice(&header.write());
        let start = run.len();
        let size = header.payload_size as usize;
        let mut sum = Sum::new();
        for chunk in payload {
            // Judged before the copy: a peer's surplus must not run beyond what was reserved.
            if run.len() - start + chunk.len() > size {
                return Err(BlockError::PayloadSize);
            }
            sum.update(chunk);
            run.put_slice(chunk);
        }
        if run.len() - start != size {
            return Err(BlockError::PayloadSize);
        }
        if sum.value() != header.payload_sum {
            return Err(BlockError::PayloadSum);
        }
        if self.start.kind == BlockKind::Records {
            // A sum only says that these are the client's bytes, not that they are records.
            records(&run[start..], header.record_count)?;
        }
        pad(run, BLOCK_ALIGN);
        self.record_count += header.record_count;
        self.append_count += 1;
        Ok(())
    }

    /// Stamps header and sum; the run then ends with the whole block. None if it was to hold
    /// appends and got none: the run is then as before [`BlockBuilder::begin`].
    #[must_use]
    pub fn finish(self, run: &mut BytesMut) -> Option<BlockHeader> {
        assert!(
            run.len() >= self.at + BLOCK_HEADER_SIZE,
            "this block ends the run"
        );
        if self.append_count == 0 && self.start.kind != BlockKind::NoOp {
            run.truncate(self.at);
            return None;
        }
        let mut header = BlockHeader {
            size: (run.len() - self.at) as u32,
            kind: self.start.kind,
            sum: 0,
            group: self.start.group,
            index: self.start.index,
            term: self.start.term,
            first_offset: self.start.first_offset,
            record_count: self.record_count,
            append_count: self.append_count,
            previous_sum: self.start.previous_sum,
            commit: self.start.commit,
        };
        let appends = &run[self.at + BLOCK_HEADER_SIZE..];
        header.sum = block_sum(&header.write(), appends, self.append_count);
        run[self.at..self.at + BLOCK_HEADER_SIZE].copy_from_slice(&header.write());
        assert!(
            header.size as usize <= BLOCK_SIZE_MAX,
            "a block within its bound"
        );
        Some(header)
    }
}

/// Bytes a block with one append of `payload_size` bytes takes.
#[must_use]
pub const fn block_size(payload_size: usize) -> usize {
    BLOCK_HEADER_SIZE + append_size(payload_size)
}

const _: () = assert!(APPEND_HEADER_SIZE.is_multiple_of(BLOCK_ALIGN));
const _: () = assert!(BLOCK_HEADER_SIZE.is_multiple_of(BLOCK_ALIGN));

#[cfg(test)]
mod tests {
    use super::super::block::{Block, blocks, write_record};
    use super::*;
    use crate::frame::sum::crc32c;
    use crate::id::{Epoch, ProducerId, Sequence};
    use crate::limits::{APPEND_PAYLOAD_SIZE_MAX, RECORD_SIZE_MAX};

    fn start(index: u64, first_offset: u64, previous_sum: u32) -> BlockStart {
        BlockStart {
            group: GroupId(5),
            kind: BlockKind::Records,
            index: Index(index),
            term: Term(3),
            first_offset: Offset(first_offset),
            previous_sum,
            commit: Index(index - 1),
        }
    }

    fn payload(records: &[&[u8]]) -> (AppendHeader, Vec<u8>) {
        let mut payload = Vec::new();
        for record in records {
            write_record(&mut payload, record);
        }
        let header = AppendHeader {
            payload_sum: crc32c(&payload),
            payload_size: payload.len() as u32,
            producer: ProducerId(77),
            sequence: Sequence(9),
            epoch: Epoch(2),
            record_count: records.len() as u32,
        };
        (header, payload)
    }

    fn small_block() -> BytesMut {
        let mut run = BytesMut::with_capacity(4096);
        let mut builder = BlockBuilder::begin(&mut run, start(1, 100, 0));
        for records in [&[b"one".as_slice(), b""][..], &[b"three"]] {
            let (header, payload) = payload(records);
            builder
                .push(&mut run, &header, payload.chunks(2))
                .expect("a good append");
        }
        assert_eq!(builder.next_offset(), Offset(103));
        builder.finish(&mut run).expect("a block with appends");
        run
    }

    #[test]
    fn a_block_comes_back_with_its_appends_and_records() {
        let run = small_block();
        let block = Block::check(&run).expect("what was built is right");
        assert_eq!(block.bytes().len(), run.len());
        assert_eq!(block.header().next_offset(), Offset(103));
        assert_eq!(BlockHeader::read(&run), Ok(*block.header()));
        let offsets: Vec<_> = block
            .appends()
            .map(|append| append.first_offset.0)
            .collect();
        assert_eq!(offsets, [100, 102]);
        let records: Vec<_> = block.records().collect();
        let expected: [(Offset, &[u8]); 3] = [
            (Offset(100), b"one"),
            (Offset(101), b""),
            (Offset(102), b"three"),
        ];
        assert_eq!(records, expected);
    }

    #[test]
    fn no_single_flipped_bit_of_a_block_passes() {
        let run = small_block();
        for bit in 0..run.len() * 8 {
            let mut flipped = run.to_vec();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(
                Block::check(&flipped).is_err(),
                "bit {bit} of {}",
                run.len() * 8
            );
        }
    }

    #[test]
    fn a_block_cut_short_anywhere_is_refused() {
        let run = small_block();
        for size in 0..run.len() {
            assert!(Block::check(&run[..size]).is_err(), "{size} bytes");
        }
    }

    #[test]
    fn a_bad_append_leaves_the_block_as_it_was() {
        let mut run = BytesMut::with_capacity(1 << 20);
        let mut builder = BlockBuilder::begin(&mut run, start(2, 0, 7));
        let (good, bytes) = payload(&[b"good"]);
        builder
            .push(&mut run, &good, [bytes.as_slice()].into_iter())
            .expect("a good append");
        let before = run.clone();
        let mut push = |header: &AppendHeader, chunks: &[&[u8]]| {
            let pushed = builder.push(&mut run, header, chunks.iter().copied());
            assert_eq!(run, before, "{pushed:?}");
            pushed.expect_err("a bad append")
        };
        let sum = AppendHeader {
            payload_sum: good.payload_sum ^ 1,
            ..good
        };
        assert_eq!(push(&sum, &[&bytes]), BlockError::PayloadSum);
        assert_eq!(push(&good, &[&bytes, b"x"]), BlockError::PayloadSize);
        assert_eq!(push(&good, &[&bytes[1..]]), BlockError::PayloadSize);
        let large = AppendHeader {
            payload_size: APPEND_PAYLOAD_SIZE_MAX as u32 + 1,
            ..good
        };
        assert_eq!(push(&large, &[&bytes]), BlockError::PayloadSize);
        let none = AppendHeader {
            record_count: 0,
            ..good
        };
        assert_eq!(push(&none, &[&bytes]), BlockError::RecordCount);
        let two = AppendHeader {
            record_count: 2,
            ..good
        };
        assert_eq!(push(&two, &[&bytes]), BlockError::RecordCount);
        let mut framing = bytes.clone();
        framing[0] = 3;
        let header = AppendHeader {
            payload_sum: crc32c(&framing),
            ..good
        };
        assert_eq!(push(&header, &[&framing]), BlockError::Framing);
        framing[..4].copy_from_slice(&(RECORD_SIZE_MAX as u32 + 1).to_le_bytes());
        let header = AppendHeader {
            payload_sum: crc32c(&framing),
            ..good
        };
        assert_eq!(push(&header, &[&framing]), BlockError::RecordSize);
        let header = builder.finish(&mut run).expect("the good append stays");
        assert_eq!((header.append_count, header.record_count), (1, 1));
        Block::check(&run).expect("a whole block");
    }

    #[test]
    fn a_block_without_appends_is_taken_back() {
        let mut run = BytesMut::with_capacity(4096);
        let builder = BlockBuilder::begin(&mut run, start(1, 0, 0));
        assert_eq!(builder.finish(&mut run), None);
        assert!(run.is_empty());
    }

    #[test]
    fn a_no_op_is_its_header() {
        let mut run = BytesMut::with_capacity(4096);
        let no_op = BlockStart {
            kind: BlockKind::NoOp,
            ..start(4, 50, 9)
        };
        let header = BlockBuilder::begin(&mut run, no_op)
            .finish(&mut run)
            .expect("a no-op");
        assert_eq!(header.size as usize, BLOCK_HEADER_SIZE);
        let block = Block::check(&run).expect("a no-op is a block");
        assert_eq!(block.header().next_offset(), Offset(50));
        assert_eq!(block.records().count(), 0);
    }

    #[test]
    fn blocks_back_to_back_are_walked_until_the_first_bad_one() {
        let one = small_block();
        let mut bytes = one.to_vec();
        bytes.extend_from_slice(&one);
        assert_eq!(blocks(&bytes).filter(Result::is_ok).count(), 2);
        bytes[one.len() + 20] ^= 1;
        let walked: Vec<_> = blocks(&bytes).map(|block| block.is_ok()).collect();
        assert_eq!(walked, [true, false]);
    }

    #[test]
    fn the_largest_append_makes_a_block() {
        let record = vec![7; RECORD_SIZE_MAX];
        let (header, payload) = payload(&[&record]);
        let mut run = BytesMut::with_capacity(BLOCK_SIZE_MAX);
        let mut builder = BlockBuilder::begin(&mut run, start(1, 0, 0));
        builder
            .push(&mut run, &header, payload.chunks(65_536))
            .expect("it fits");
        assert!(!builder.fits(run.len(), payload.len()));
        builder.finish(&mut run).expect("a block");
        assert_eq!(
            Block::check(&run).expect("a block").records().next(),
            Some((Offset(0), &record[..]))
        );
    }
}
