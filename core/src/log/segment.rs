//! The head of a segment: whose file it is, where its blocks begin, how the segment before it ended,
//! and what nothing else could tell once the segments before it are gone.
//!
//! Keeps the layout. Knows no block and no other segment. Hop *segment* of the data path.
//!
//! ```text
//!  | header, a sector | state, whole sectors | the same once more | block block .. zeros | .. | footer |
//!  |<-------------------------- head ----------------------------->|<- one write ------->|
//!
//!  header:
//!  0       4     8         9      12         16        32      36        40
//!  | magic | sum | version | zero | node tag | cluster | group | segment | ...
//!  40            48             56              64             68
//!  | first index | first offset | previous term | previous sum | state sum | ...
//!  72              80        88          92            96               100
//!  | previous size | made at | head size | voter count | producer count | zeros to the sector's end
//!
//!  state:    | voters, 8 bytes each | producers as in a checkpoint | zeros to a sector's end |
//! ```
//! The state is as of just before the first block, which is where the producers' appends count back
//! from; the previous term is then the log's highest fencing token. A state that says nothing takes
//! no sector. Header and state stand twice, each copy in sectors of its own: no other disk has the
//! same state, so no peer could bring it back. A header that was made up for after both copies were
//! lost says that the state is not known, by naming no voters. A file is only ever appended to; what
//! ends it is in `footer`.

use std::fmt;

use bytes::{BufMut, BytesMut};

use super::fields::{all_zero, pad, put_u32, put_u64, round_up, u32_at, u64_at};
use super::producer_table::{NOTED_SIZE, PRODUCER_SIZE, ProducerTable};
use crate::frame::sum::{Sum, crc32c};
use crate::id::{ClusterId, GroupId, Index, NodeId, Offset, Term, UnixSeconds};
use crate::limits::{PRODUCER_COUNT_MAX, PRODUCER_WINDOW, SECTOR_SIZE, VOTER_COUNT_MAX};

/// Bytes of a segment's first sector.
pub const SEGMENT_HEADER_SIZE: usize = SECTOR_SIZE;

/// Bytes in front of a segment's first block, at most: a full table of producers, twice.
pub const SEGMENT_HEAD_SIZE_MAX: usize = 2
    * (SEGMENT_HEADER_SIZE
        + round_up(
            VOTER_COUNT_MAX * VOTER_SIZE
                + PRODUCER_COUNT_MAX * (PRODUCER_SIZE + PRODUCER_WINDOW * NOTED_SIZE),
            SECTOR_SIZE,
        ));

/// So many bytes of a file's beginning hold a header of the head, if one copy of it is sound.
pub const SEGMENT_HEADER_SEARCH_SIZE: usize = SEGMENT_HEAD_SIZE_MAX / 2 + SEGMENT_HEADER_SIZE;

const VOTER_SIZE: usize = 8;

const MAGIC: u32 = u32::from_le_bytes(*b"RWSG");
pub(super) const VERSION: u8 = 1;

pub(super) const SUM_AT: usize = 4;
pub(super) const VERSION_AT: usize = SUM_AT + 4;
pub(super) const NODE_TAG_AT: usize = VERSION_AT + 4;
pub(super) const CLUSTER_AT: usize = NODE_TAG_AT + 4;
pub(super) const GROUP_AT: usize = CLUSTER_AT + 16;
pub(super) const SEGMENT_AT: usize = GROUP_AT + 4;
pub(super) const FIRST_INDEX_AT: usize = SEGMENT_AT + 4;
pub(super) const FIRST_OFFSET_AT: usize = FIRST_INDEX_AT + 8;
const PREVIOUS_TERM_AT: usize = FIRST_OFFSET_AT + 8;
const PREVIOUS_SUM_AT: usize = PREVIOUS_TERM_AT + 8;
const STATE_SUM_AT: usize = PREVIOUS_SUM_AT + 4;
const PREVIOUS_SIZE_AT: usize = STATE_SUM_AT + 4;
const MADE_AT: usize = PREVIOUS_SIZE_AT + 8;
const HEAD_SIZE_AT: usize = MADE_AT + 8;
const VOTER_COUNT_AT: usize = HEAD_SIZE_AT + 4;
const PRODUCER_COUNT_AT: usize = VOTER_COUNT_AT + 4;
const END_AT: usize = PRODUCER_COUNT_AT + 4;

/// What a segment's first sector says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentHeader {
    /// The cluster of the log.
    pub cluster: ClusterId,
    /// Marks the node whose file it is.
    pub node_tag: u32,
    /// The group whose blocks it holds.
    pub group: GroupId,
    /// Its number in the group, from 0 without gaps.
    pub segment: u32,
    /// Index of its first block.
    pub first_index: Index,
    /// Offset of its first record.
    pub first_offset: Offset,
    /// Term of the block before the first, and so the highest fencing token up to there; 0 if there
    /// is none.
    pub previous_term: Term,
    /// Sum of the block before the first; 0 if there is none.
    pub previous_sum: u32,
    /// Synced bytes of the segment before this one, its footer not counted; 0 if there is none. What
    /// its file holds beyond the footer was never vouched for.
    pub previous_size: u64,
    /// When it was begun: all blocks of the segments before it are at least as old.
    pub made_at: UnixSeconds,
    /// What stands behind this sector.
    pub state: StatePlace,
}

/// Where a segment's state ends and what it must sum up to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StatePlace {
    /// Bytes of header and state, both twice: where the first block stands. Whole sectors.
    pub head_size: u32,
    /// Sum over the state with its padding.
    pub sum: u32,
    /// Voters in it; 0 where the state is not known.
    pub voter_count: u32,
    /// Producers in it.
    pub producer_count: u32,
}

/// What a log is just before a segment's first block, as far as its blocks from there on cannot tell.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SegmentState {
    /// Who votes in the group.
    pub voters: Vec<NodeId>,
    /// Who appended what last.
    pub producers: ProducerTable,
}

/// Why bytes are not a part of a segment. The disk is at fault; nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SegmentError {
    /// Fewer bytes than there must be.
    Truncated,
    /// No such part of a segment begins here.
    Magic,
    /// A version this program does not know.
    Version,
    /// The part's sum is wrong.
    Sum,
    /// Reserved bytes that are not zero, or numbers that cannot be.
    Reserved,
}

impl fmt::Display for SegmentError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Truncated => "this part of the segment is cut short",
            Self::Magic => "no such part of a segment begins here",
            Self::Version => "the segment is of an unknown version",
            Self::Sum => "the sum of this part of the segment is wrong",
            Self::Reserved => "this part of the segment holds what it cannot hold",
        })
    }
}

impl std::error::Error for SegmentError {}

impl StatePlace {
    /// Of a state that says nothing, or is not known.
    pub const NONE: Self = Self {
        head_size: 2 * SEGMENT_HEADER_SIZE as u32,
        sum: 0,
        voter_count: 0,
        producer_count: 0,
    };

    /// Bytes of one copy of header and state: where the second one stands.
    #[must_use]
    pub fn copy_size(&self) -> usize {
        self.head_size as usize / 2
    }

    /// Bytes of the state.
    #[must_use]
    pub fn state_size(&self) -> usize {
        self.copy_size() - SEGMENT_HEADER_SIZE
    }

    /// Whether the state tells what the log was.
    #[must_use]
    pub fn is_known(&self) -> bool {
        self.voter_count > 0
    }
}

impl SegmentState {
    /// The state's bytes, as of a block with this index and term, and what the header says of them.
    #[must_use]
    pub fn encode(&self, index: Index, term: Term) -> (StatePlace, BytesMut) {
        let size = self.voters.len() * VOTER_SIZE + self.producers.encoded_size();
        let mut bytes = BytesMut::with_capacity(round_up(size, SECTOR_SIZE));
        self.voters
            .iter()
            .for_each(|voter| bytes.put_u64_le(voter.0));
        self.producers.encode(index, term, &mut bytes);
        assert_eq!(bytes.len(), size, "the table takes what it said");
        pad(&mut bytes, SECTOR_SIZE);
        let place = StatePlace {
            head_size: 2 * (SEGMENT_HEADER_SIZE + bytes.len()) as u32,
            sum: crc32c(&bytes),
            voter_count: self.voters.len() as u32,
            producer_count: self.producers.len() as u32,
        };
        assert!(place.is_possible(), "the table is bounded");
        (place, bytes)
    }

    /// Reads and checks the state of the segment with this header. `bytes` begin where the header
    /// ends, and may be longer.
    ///
    /// # Errors
    /// The first misdeed found.
    pub fn check(header: &SegmentHeader, bytes: &[u8]) -> Result<Self, SegmentError> {
        let place = header.state;
        let Some(bytes) = bytes.get(..place.state_size()) else {
            return Err(SegmentError::Truncated);
        };
        if crc32c(bytes) != place.sum {
            return Err(SegmentError::Sum);
        }
        let (index, term) = (Index(header.first_index.0 - 1), header.previous_term);
        let Some((voters, table)) = bytes.split_at_checked(place.voter_count as usize * VOTER_SIZE)
        else {
            return Err(SegmentError::Truncated);
        };
        let count = place.producer_count as usize;
        let (producers, size) =
            ProducerTable::decode(table, count, index, term).map_err(|_| SegmentError::Reserved)?;
        if table.len() - size >= SECTOR_SIZE || !all_zero(&table[size..]) {
            return Err(SegmentError::Reserved);
        }
        let voters = voters.chunks_exact(VOTER_SIZE);
        Ok(Self {
            voters: voters.map(|id| NodeId(u64_at(id, 0))).collect(),
            producers,
        })
    }

    /// One copy of header and state as it is to stand, from whichever of the file's two has a sound
    /// state; none if neither has. `head` is the beginning of the file.
    #[must_use]
    pub fn sound_copy(header: &SegmentHeader, head: &[u8]) -> Option<Vec<u8>> {
        let size = header.state.copy_size();
        let copies = [head.get(..size), head.get(size..2 * size)];
        let mut states = copies.into_iter().flatten();
        let state = states.find_map(|copy| {
            let state = &copy[SEGMENT_HEADER_SIZE..];
            Self::check(header, state).is_ok().then_some(state)
        })?;
        Some([&header.encode()[..], state].concat())
    }
}

impl StatePlace {
    fn is_possible(&self) -> bool {
        let size = self.head_size as usize;
        (2 * SEGMENT_HEADER_SIZE..=SEGMENT_HEAD_SIZE_MAX).contains(&size)
            && size.is_multiple_of(2 * SECTOR_SIZE)
            && self.voter_count as usize <= VOTER_COUNT_MAX
            && self.producer_count as usize <= PRODUCER_COUNT_MAX
    }
}

impl SegmentHeader {
    /// The sector's bytes.
    #[must_use]
    pub fn encode(&self) -> [u8; SEGMENT_HEADER_SIZE] {
        assert!(self.first_index.0 > 0, "blocks are numbered from 1");
        let mut bytes = [0; SEGMENT_HEADER_SIZE];
        put_u32(&mut bytes, 0, MAGIC);
        bytes[VERSION_AT] = VERSION;
        put_u32(&mut bytes, NODE_TAG_AT, self.node_tag);
        bytes[CLUSTER_AT..GROUP_AT].copy_from_slice(&self.cluster.0.to_le_bytes());
        put_u32(&mut bytes, GROUP_AT, self.group.0);
        put_u32(&mut bytes, SEGMENT_AT, self.segment);
        put_u64(&mut bytes, FIRST_INDEX_AT, self.first_index.0);
        put_u64(&mut bytes, FIRST_OFFSET_AT, self.first_offset.0);
        put_u64(&mut bytes, PREVIOUS_TERM_AT, self.previous_term.0);
        put_u32(&mut bytes, PREVIOUS_SUM_AT, self.previous_sum);
        put_u32(&mut bytes, STATE_SUM_AT, self.state.sum);
        put_u64(&mut bytes, PREVIOUS_SIZE_AT, self.previous_size);
        put_u64(&mut bytes, MADE_AT, self.made_at.0);
        put_u32(&mut bytes, HEAD_SIZE_AT, self.state.head_size);
        put_u32(&mut bytes, VOTER_COUNT_AT, self.state.voter_count);
        put_u32(&mut bytes, PRODUCER_COUNT_AT, self.state.producer_count);
        let sum = crc32c(&bytes);
        put_u32(&mut bytes, SUM_AT, sum);
        bytes
    }

    /// The header whose first copy is not sound: from the second, wherever that stands. `bytes` are
    /// the beginning of the file. Only a header that says that it stands there counts.
    #[must_use]
    pub fn second(bytes: &[u8]) -> Option<Self> {
        let sectors = bytes.chunks(SECTOR_SIZE).enumerate().skip(1);
        let mut found = sectors.filter_map(|(at, sector)| {
            let header = Self::check(sector).ok()?;
            (header.state.copy_size() == at * SECTOR_SIZE).then_some(header)
        });
        found.next()
    }

    /// Reads and checks the sector at the start of `bytes`, which may be longer.
    ///
    /// # Errors
    /// The first misdeed found.
    pub fn check(bytes: &[u8]) -> Result<Self, SegmentError> {
        let bytes = check_sector(bytes, MAGIC)?;
        let header = Self {
            cluster: cluster_of(bytes),
            node_tag: u32_at(bytes, NODE_TAG_AT),
            group: GroupId(u32_at(bytes, GROUP_AT)),
            segment: u32_at(bytes, SEGMENT_AT),
            first_index: Index(u64_at(bytes, FIRST_INDEX_AT)),
            first_offset: Offset(u64_at(bytes, FIRST_OFFSET_AT)),
            previous_term: Term(u64_at(bytes, PREVIOUS_TERM_AT)),
            previous_sum: u32_at(bytes, PREVIOUS_SUM_AT),
            previous_size: u64_at(bytes, PREVIOUS_SIZE_AT),
            made_at: UnixSeconds(u64_at(bytes, MADE_AT)),
            state: StatePlace {
                head_size: u32_at(bytes, HEAD_SIZE_AT),
                sum: u32_at(bytes, STATE_SUM_AT),
                voter_count: u32_at(bytes, VOTER_COUNT_AT),
                producer_count: u32_at(bytes, PRODUCER_COUNT_AT),
            },
        };
        let is_possible = header.state.is_possible() && header.first_index.0 > 0;
        if all_zero(&bytes[END_AT..]) && is_possible {
            Ok(header)
        } else {
            Err(SegmentError::Reserved)
        }
    }
}

/// What a segment's header and its footer begin with alike: magic, sum of the sector, version.
pub(super) fn check_sector(bytes: &[u8], magic: u32) -> Result<&[u8], SegmentError> {
    let Some(bytes) = bytes.get(..SECTOR_SIZE) else {
        return Err(SegmentError::Truncated);
    };
    if u32_at(bytes, 0) != magic {
        return Err(SegmentError::Magic);
    }
    if bytes[VERSION_AT] != VERSION {
        return Err(SegmentError::Version);
    }
    let mut sum = Sum::new();
    sum.update(&bytes[..SUM_AT]);
    sum.update(&[0; 4]);
    sum.update(&bytes[SUM_AT + 4..]);
    if sum.value() != u32_at(bytes, SUM_AT) {
        return Err(SegmentError::Sum);
    }
    if all_zero(&bytes[VERSION_AT + 1..NODE_TAG_AT]) {
        Ok(bytes)
    } else {
        Err(SegmentError::Reserved)
    }
}

pub(super) fn cluster_of(sector: &[u8]) -> ClusterId {
    let bytes = sector[CLUSTER_AT..GROUP_AT]
        .try_into()
        .expect("sixteen bytes were sliced");
    ClusterId(u128::from_le_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use super::super::block::AppendHeader;
    use super::super::producers::Producers;
    use super::*;
    use crate::id::{Epoch, ProducerId, Sequence};

    fn header() -> SegmentHeader {
        SegmentHeader {
            cluster: ClusterId(0x0123_4567_89AB_CDEF_0011_2233_4455_6677),
            node_tag: 9,
            group: GroupId(3),
            segment: 2,
            first_index: Index(100),
            first_offset: Offset(2000),
            previous_term: Term(4),
            previous_sum: 0xFEED_BEEF,
            previous_size: 0x0000_0000_0203_1000,
            made_at: UnixSeconds(1_800_000_000),
            state: StatePlace {
                head_size: 16_384,
                sum: 0x1234_5678,
                voter_count: 3,
                producer_count: 5,
            },
        }
    }

    #[test]
    fn a_header_comes_back_and_no_flipped_bit_passes() {
        let header = header();
        let mut bytes = header.encode();
        assert_eq!(SegmentHeader::check(&bytes), Ok(header));
        for bit in 0..bytes.len() * 8 {
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(SegmentHeader::check(&bytes).is_err(), "bit {bit}");
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
        assert_eq!(
            SegmentHeader::check(&bytes[1..]),
            Err(SegmentError::Truncated)
        );
    }

    fn state(producer_count: u64) -> SegmentState {
        let mut producers = Producers::default();
        for offset in 0..producer_count * PRODUCER_WINDOW as u64 {
            let header = AppendHeader {
                payload_sum: 0,
                payload_size: 8,
                producer: ProducerId(offset / PRODUCER_WINDOW as u64),
                sequence: Sequence(offset % PRODUCER_WINDOW as u64),
                epoch: Epoch(1),
                record_count: 1,
            };
            producers.note(Index(1 + offset), Term(1), &header, Offset(offset));
        }
        SegmentState {
            voters: vec![NodeId(3), NodeId(70), NodeId(u64::MAX)],
            producers: producers.snapshot_at(Index(9999)),
        }
    }

    #[test]
    fn states_of_all_sizes_come_back_and_no_flipped_bit_passes() {
        for count in [0, 1, PRODUCER_COUNT_MAX as u64] {
            let state = state(count);
            let mut header = header();
            header.first_index = Index(10_000);
            let (place, mut bytes) = state.encode(Index(9999), header.previous_term);
            header.state = place;
            assert_eq!(SegmentHeader::check(&header.encode()), Ok(header));
            assert_eq!(SegmentState::check(&header, &bytes), Ok(state));
            for bit in (0..bytes.len() * 8).step_by(41) {
                bytes[bit / 8] ^= 1 << (bit % 8);
                assert!(SegmentState::check(&header, &bytes).is_err(), "bit {bit}");
                bytes[bit / 8] ^= 1 << (bit % 8);
            }
            let cut = &bytes[..bytes.len() - 1];
            assert_eq!(
                SegmentState::check(&header, cut),
                Err(SegmentError::Truncated)
            );
        }
    }

    #[test]
    fn whichever_copy_of_a_head_is_damaged_the_other_one_tells() {
        for count in [0, 1, 40] {
            let mut header = header();
            header.first_index = Index(10_000);
            let (place, state) = state(count).encode(Index(9999), header.previous_term);
            header.state = place;
            let copy = [&header.encode()[..], &state].concat();
            let head = [&copy[..], &copy].concat();
            assert_eq!(head.len(), place.head_size as usize);
            assert_eq!(SegmentHeader::second(&head), Some(header));
            for at in (0..head.len()).step_by(509) {
                let mut damaged = head.clone();
                damaged[at] ^= 1;
                let found = SegmentHeader::check(&damaged).ok();
                let found = found.or_else(|| SegmentHeader::second(&damaged));
                assert_eq!(found, Some(header), "byte {at}");
                let found = SegmentState::sound_copy(&header, &damaged);
                assert_eq!(found.as_ref(), Some(&copy), "byte {at}");
            }
            // A header in another place is a record of somebody, or another file's.
            assert_eq!(SegmentHeader::second(&head[SECTOR_SIZE..]), None);
            let mut torn = head;
            torn[SEGMENT_HEADER_SIZE + 8] ^= 1;
            torn[place.copy_size() + SEGMENT_HEADER_SIZE + 8] ^= 1;
            assert_eq!(SegmentState::sound_copy(&header, &torn), None);
        }
    }

    #[test]
    fn a_state_that_says_nothing_takes_no_sector() {
        let (place, bytes) = SegmentState::default().encode(Index(0), Term(0));
        assert_eq!((place, bytes.len()), (StatePlace::NONE, 0));
    }
}
