//! The second copy of the votes in a flush: sectors of their own behind the items.
//!
//! Whoever forgets a vote may vote twice, and two leaders of one term is the end of the log. So a
//! vote stands in a flush twice, in different sectors, and the copy also has the flush's header: a
//! flush that lost its first sector, or a hard state in it, is mended from the copy and then
//! judged by its sums like any other. Knows hard states only as bytes at an offset.
//!
//! ```text
//!  0       4     8      16    24      28     32             96
//!  | magic | sum | life | lsn | count | size | flush header | count x 48: offset u32, zero, item
//! ```
//! The sum covers the whole copy with the sum itself as zero. The copy is padded to a sector, and
//! no part of the flush's own sums: losing it alone costs nothing.

use bytes::{BufMut, BytesMut};

use super::fields::{all_zero, pad, put_u32, round_up, u32_at, u64_at};
use super::flush::{FLUSH_HEADER_SIZE, FlushHeader};
use super::item::HARD_STATE_SIZE;
use crate::frame::sum::{Sum, crc32c};
use crate::id::Lsn;
use crate::limits::{RUN_SIZE_MAX, SECTOR_SIZE};

const MAGIC: u32 = u32::from_le_bytes(*b"RWVT");
const SUM_AT: usize = 4;
const LIFE_AT: usize = 8;
const LSN_AT: usize = LIFE_AT + 8;
const COUNT_AT: usize = LSN_AT + 8;
const SIZE_AT: usize = COUNT_AT + 4;
const FLUSH_HEADER_AT: usize = SIZE_AT + 4;
const VOTES_AT: usize = FLUSH_HEADER_AT + FLUSH_HEADER_SIZE;
const VOTE_SIZE: usize = 16 + HARD_STATE_SIZE;

/// A hard state item and where it stands in the flush.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct VoteCopy {
    pub(super) offset: u32,
    pub(super) item: [u8; HARD_STATE_SIZE],
}

/// Bytes that the second copy of `count` hard states takes: none for none.
pub(super) const fn votes_size(count: usize) -> usize {
    if count == 0 {
        0
    } else {
        round_up(VOTES_AT + count * VOTE_SIZE, SECTOR_SIZE)
    }
}

/// Puts the second copy at the end of a flush whose header is final.
pub(super) fn write_votes(run: &mut BytesMut, header: &FlushHeader, votes: &[VoteCopy]) {
    assert!(
        run.len().is_multiple_of(SECTOR_SIZE),
        "votes have sectors of their own"
    );
    if votes.is_empty() {
        return;
    }
    let start = run.len();
    assert_eq!(
        start + votes_size(votes.len()),
        header.size as usize,
        "counted in the size"
    );
    run.put_u32_le(MAGIC);
    run.put_u32_le(0);
    run.put_u64_le(header.life);
    run.put_u64_le(header.lsn.0);
    run.put_u32_le(votes.len() as u32);
    run.put_u32_le(votes_size(votes.len()) as u32);
    run.put_slice(&header.write());
    for vote in votes {
        run.put_u32_le(vote.offset);
        run.put_bytes(0, 12);
        run.put_slice(&vote.item);
    }
    pad(run, SECTOR_SIZE);
    let sum = crc32c(&run[start..]);
    put_u32(&mut run[start..], SUM_AT, sum);
}

/// A second copy whose sum is right.
#[derive(Clone, Debug)]
pub(super) struct Votes<'a> {
    pub(super) header: FlushHeader,
    votes: &'a [u8],
}

impl<'a> Votes<'a> {
    /// Reads the copy at the start of `bytes`, which may be longer; none if any bit of it is wrong.
    pub(super) fn check(bytes: &'a [u8]) -> Option<Self> {
        if bytes.len() < SECTOR_SIZE || u32_at(bytes, 0) != MAGIC {
            return None;
        }
        let count = u32_at(bytes, COUNT_AT) as usize;
        let size = u32_at(bytes, SIZE_AT) as usize;
        if count == 0 || count > RUN_SIZE_MAX / VOTE_SIZE || size != votes_size(count) {
            return None;
        }
        let bytes = bytes.get(..size)?;
        let mut sum = Sum::new();
        sum.update(&bytes[..SUM_AT]);
        sum.update(&[0; 4]);
        sum.update(&bytes[SUM_AT + 4..]);
        if sum.value() != u32_at(bytes, SUM_AT) {
            return None;
        }
        let (votes, padding) = bytes[VOTES_AT..].split_at(count * VOTE_SIZE);
        let header = FlushHeader::read(&bytes[FLUSH_HEADER_AT..]).ok()?;
        let fits = header.lsn == Lsn(u64_at(bytes, LSN_AT))
            && header.life == u64_at(bytes, LIFE_AT)
            && all_zero(padding);
        fits.then_some(Self { header, votes })
    }

    /// Each hard state as an item, with its offset in the flush.
    pub(super) fn votes(&self) -> impl Iterator<Item = (usize, &'a [u8])> + use<'a> {
        self.votes
            .chunks_exact(VOTE_SIZE)
            .map(|vote| (u32_at(vote, 0) as usize, &vote[16..]))
    }
}

/// Whether the flush with `header`, at the start of `bytes`, ends with a sound second copy.
pub(super) fn has_sound_copy(header: &FlushHeader, bytes: &[u8]) -> bool {
    let start = header.votes_at();
    bytes
        .get(start..header.size as usize)
        .and_then(Votes::check)
        .is_some_and(|votes| votes.header == *header)
}

/// Looks behind the start of a bad flush for its second copy, whose header the caller `wants`, and
/// puts header and hard states from there into a copy of the flush. The result is only a proposal:
/// its sums must still be right, which they are if nothing else was lost.
pub(super) fn mend(bytes: &[u8], wants: impl Fn(&FlushHeader) -> bool) -> Option<Vec<u8>> {
    let sectors = (SECTOR_SIZE..bytes.len()).step_by(SECTOR_SIZE);
    for at in sectors {
        let Some(votes) = Votes::check(&bytes[at..]) else {
            continue;
        };
        if !wants(&votes.header) || votes.header.votes_at() != at {
            continue;
        }
        let mut mended = bytes.get(..votes.header.size as usize)?.to_vec();
        mended[..FLUSH_HEADER_SIZE].copy_from_slice(&votes.header.write());
        // Padding says nothing, so its loss loses nothing.
        mended[FLUSH_HEADER_SIZE + votes.header.items_size as usize..at].fill(0);
        for (offset, item) in votes.votes() {
            mended
                .get_mut(offset..offset + HARD_STATE_SIZE)?
                .copy_from_slice(item);
        }
        return Some(mended);
    }
    None
}
