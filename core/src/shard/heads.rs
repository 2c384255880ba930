//! The headers of a log's segments as a start finds them: where both copies of one are lost, or its
//! file is, from whatever else tells where the segment begins. Such a segment is written anew while
//! the node runs.
//!
//! Knows no block and no peer. What tells of a lost header, in this order:
//! - the copy in the segment's own footer, which stands where the next header says that the data end;
//! - the footer of the segment before, wherever that stands; the state is then not known;
//! - for the first segment of a log that still begins at its first record, that nothing was before.
//!
//! Where none of these is left, the segment counts as empty: it begins where the next one does, or the
//! journal goes on. If it is not the first, its blocks count to the one before, whose size nothing
//! names then; of the first it is said that blocks are missing between the log's start and it.

use std::collections::VecDeque;

use bytes::{BufMut, Bytes, BytesMut};

use crate::id::{GroupId, Offset, UnixSeconds};
use crate::limits::SECTOR_SIZE;
use crate::log::Base;
use crate::log::checkpoint::Checkpoint;
use crate::log::footer::{SEGMENT_FOOTER_SIZE, SegmentFooter};
use crate::log::segment::{
    SEGMENT_HEADER_SEARCH_SIZE, SEGMENT_HEADER_SIZE, SegmentHeader, StatePlace,
};

use super::Config;
use super::effects::Source;
use super::open::{MISSING, Read, node_tag};
use super::walk::Before;

/// Bytes read at a time where a footer is looked for.
const SEARCH_SIZE: usize = 1 << 20;

/// What a start knows of a log's segments.
#[derive(Debug)]
pub(super) struct Heads {
    /// Of all segments, in order.
    pub(super) headers: Vec<SegmentHeader>,
    /// Numbers of those whose first sector is not their header, or whose end is not known.
    pub(super) lost: Vec<u32>,
}

/// The header of the segment with this number is sound, and of another log, node or place. It is not
/// written over: whoever put it there may want it back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct HeadForeign(pub(super) u32);

struct Reader<'a, 'r> {
    config: &'a Config,
    group: GroupId,
    /// Nothing of the log was ever trimmed.
    is_untrimmed: bool,
    read: &'a mut Read<'r>,
}

impl Heads {
    /// Of the segments that a checkpoint names up to the one before `next_number`.
    ///
    /// # Errors
    /// [`HeadForeign`].
    pub(super) fn read(
        config: &Config,
        checkpoint: &Checkpoint,
        next_number: u32,
        read: &mut Read<'_>,
    ) -> Result<Self, HeadForeign> {
        let numbers = checkpoint.first_segment..next_number;
        let mut reader = Reader {
            config,
            group: checkpoint.group,
            is_untrimmed: checkpoint.start == Offset(0),
            read,
        };
        let (mut found, mut lost) = (Vec::new(), Vec::new());
        for number in numbers.clone() {
            let header = reader.header(number)?;
            if header.is_none() {
                lost.push(number);
            }
            found.push(header.or_else(|| reader.second(number)));
        }
        // Each header that is known helps to find the one before, and the one behind.
        loop {
            let missing = found.iter().filter(|header| header.is_none()).count();
            for at in (0..found.len()).rev() {
                if found[at].is_none() {
                    let next = found.get(at + 1).copied().flatten();
                    let number = numbers.start + at as u32;
                    let own = next.and_then(|next| reader.footer_at(number, next.previous_size));
                    let own = own.and_then(|footer| footer.header);
                    found[at] = own.or_else(|| reader.behind(number));
                }
            }
            let left = found.iter().filter(|header| header.is_none()).count();
            if left == missing {
                break;
            }
        }
        let mut headers = VecDeque::new();
        let mut next = Before::of_base(&checkpoint.base());
        for (number, header) in numbers.zip(found).rev() {
            // The one behind it may be what told where it ends.
            let is_end_known = headers
                .front()
                .is_none_or(|behind: &SegmentHeader| behind.previous_size > 0);
            if !is_end_known && !lost.contains(&number) {
                lost.push(number);
            }
            let header = header.unwrap_or_else(|| reader.made_up(number, &next, 0));
            next = Before::of_segment(&header);
            headers.push_front(header);
        }
        lost.sort_unstable();
        Ok(Self {
            headers: headers.into(),
            lost,
        })
    }
}

impl Reader<'_, '_> {
    /// What can be read, sector by sector if it cannot be at once: zeros for what cannot. Nothing where
    /// there is no such file, or no sector can be read.
    fn bytes(&mut self, number: u32, position: u64, size: usize) -> Bytes {
        let group = self.group;
        let source = Source::Segment { group, number };
        match (self.read)(source, position, size) {
            Ok(bytes) => return bytes,
            Err(fault) if fault.errno == MISSING => return Bytes::new(),
            Err(_) => {}
        }
        let (mut bytes, mut has_any) = (BytesMut::new(), false);
        for at in (0..size).step_by(SECTOR_SIZE) {
            let size = SECTOR_SIZE.min(size - at);
            match (self.read)(source, position + at as u64, size) {
                Ok(sector) => {
                    has_any = true;
                    bytes.extend_from_slice(&sector);
                    if sector.len() < size {
                        break;
                    }
                }
                Err(_) => bytes.put_bytes(0, size),
            }
        }
        if has_any {
            bytes.freeze()
        } else {
            Bytes::new()
        }
    }

    /// What the first sector says, if it says anything.
    fn header(&mut self, number: u32) -> Result<Option<SegmentHeader>, HeadForeign> {
        let bytes = self.bytes(number, 0, SEGMENT_HEADER_SIZE);
        match SegmentHeader::check(&bytes) {
            Ok(header) if self.is_ours(number, &header) => Ok(Some(header)),
            Ok(_) => Err(HeadForeign(number)),
            Err(_) => Ok(None),
        }
    }

    fn second(&mut self, number: u32) -> Option<SegmentHeader> {
        let bytes = self.bytes(number, 0, SEGMENT_HEADER_SEARCH_SIZE);
        SegmentHeader::second(&bytes).filter(|header| self.is_ours(number, header))
    }

    fn is_ours(&self, number: u32, header: &SegmentHeader) -> bool {
        header.cluster == self.config.cluster
            && header.node_tag == node_tag(self.config)
            && header.group == self.group
            && header.segment == number
    }

    fn footer_at(&mut self, number: u32, position: u64) -> Option<SegmentFooter> {
        let bytes = self.bytes(number, position, SEGMENT_FOOTER_SIZE);
        self.footer(number, position, &bytes)
    }

    fn footer(&self, number: u32, position: u64, bytes: &[u8]) -> Option<SegmentFooter> {
        let footer = SegmentFooter::check(bytes).ok()?;
        let is_ours = footer.cluster == self.config.cluster
            && footer.node_tag == node_tag(self.config)
            && (footer.group, footer.segment) == (self.group, number)
            && footer.data_size == position;
        is_ours.then_some(footer)
    }

    /// The last footer in a file.
    fn last_footer(&mut self, number: u32) -> Option<SegmentFooter> {
        let (mut begin, mut last) = (0, None);
        loop {
            let bytes = self.bytes(number, begin, SEARCH_SIZE + SEGMENT_FOOTER_SIZE);
            for at in (0..bytes.len().min(SEARCH_SIZE)).step_by(SECTOR_SIZE) {
                let footer = self.footer(number, begin + at as u64, &bytes[at..]);
                last = footer.or(last);
            }
            begin += SEARCH_SIZE as u64;
            if bytes.len() <= SEARCH_SIZE {
                return last;
            }
        }
    }

    /// What the segment with this number must begin with, by what ends the one before.
    fn behind(&mut self, number: u32) -> Option<SegmentHeader> {
        if number == 0 && self.is_untrimmed {
            return Some(self.made_up(number, &Before::of_base(&Base::default()), 0));
        }
        let footer = self.last_footer(number.checked_sub(1)?)?;
        let before = Before {
            index: footer.last_index,
            term: footer.last_term,
            sum: footer.last_sum,
            next_offset: footer.next_offset,
        };
        Some(self.made_up(number, &before, footer.data_size))
    }

    /// A header of which both copies are lost.
    fn made_up(&self, number: u32, before: &Before, previous_size: u64) -> SegmentHeader {
        SegmentHeader {
            cluster: self.config.cluster,
            node_tag: node_tag(self.config),
            group: self.group,
            segment: number,
            first_index: before.index.next(),
            first_offset: before.next_offset,
            previous_term: before.term,
            previous_sum: before.sum,
            previous_size,
            made_at: UnixSeconds(0),
            state: StatePlace::NONE,
        }
    }
}
