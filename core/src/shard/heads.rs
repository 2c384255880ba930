//! The headers of a log's segments as a start finds them: where both copies of one are lost, or its
//! file is, from whatever else tells where the segment begins. Such a segment is written anew while
//! the node runs.
//!
//! Knows no block and no peer. What tells of a lost header, in this order:
//! - the copy in the segment's own footer, which stands where the next header says that the data end;
//! - the footer of the segment before, wherever that stands; the state is then not known;
//! - for the first segment of a log that still begins at its first record, that nothing was before.

use std::ops::Range;

use bytes::Bytes;

use crate::id::{GroupId, Index, Offset, Term, UnixSeconds};
use crate::limits::SECTOR_SIZE;
use crate::log::footer::{SEGMENT_FOOTER_SIZE, SegmentFooter};
use crate::log::segment::{
    SEGMENT_HEADER_SEARCH_SIZE, SEGMENT_HEADER_SIZE, SegmentHeader, StatePlace,
};

use super::Config;
use super::effects::Source;
use super::open::{Read, node_tag};

/// Bytes read at a time where a footer is looked for.
const SEARCH_SIZE: usize = 1 << 20;

/// What a start knows of a log's segments.
#[derive(Debug)]
pub(super) struct Heads {
    /// Of all segments, in order.
    pub(super) headers: Vec<SegmentHeader>,
    /// Numbers of those whose first sector is not their header.
    pub(super) lost: Vec<u32>,
}

/// A segment of which nobody can say where it begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct HeadsLost {
    pub(super) number: u32,
    /// Its header is sound, and of another log, node or place. It is not written over: whoever put
    /// it there may want it back.
    pub(super) is_foreign: bool,
}

struct Reader<'a, 'r> {
    config: &'a Config,
    group: GroupId,
    /// Nothing of the log was ever trimmed.
    is_untrimmed: bool,
    read: &'a mut Read<'r>,
}

impl Heads {
    /// Of the segments with these numbers; `start` is where the log begins.
    ///
    /// # Errors
    /// [`HeadsLost`].
    pub(super) fn read(
        config: &Config,
        group: GroupId,
        numbers: Range<u32>,
        start: Offset,
        read: &mut Read<'_>,
    ) -> Result<Self, HeadsLost> {
        let mut reader = Reader {
            config,
            group,
            is_untrimmed: start == Offset(0),
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
        while let Some(at) = found.iter().position(Option::is_none) {
            let missing = found.iter().filter(|header| header.is_none()).count();
            for at in (at..found.len()).rev() {
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
                return Err(HeadsLost {
                    number: numbers.start + at as u32,
                    is_foreign: false,
                });
            }
        }
        Ok(Self {
            headers: found.into_iter().flatten().collect(),
            lost,
        })
    }
}

impl Reader<'_, '_> {
    fn bytes(&mut self, number: u32, position: u64, size: usize) -> Bytes {
        let group = self.group;
        // What cannot be read is lost, and what else tells of it is looked for.
        (self.read)(Source::Segment { group, number }, position, size).unwrap_or_default()
    }

    /// What the first sector says, if it says anything.
    fn header(&mut self, number: u32) -> Result<Option<SegmentHeader>, HeadsLost> {
        let bytes = self.bytes(number, 0, SEGMENT_HEADER_SIZE);
        match SegmentHeader::check(&bytes) {
            Ok(header) if self.is_ours(number, &header) => Ok(Some(header)),
            Ok(_) => Err(HeadsLost {
                number,
                is_foreign: true,
            }),
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
        let mut header = SegmentHeader {
            cluster: self.config.cluster,
            node_tag: node_tag(self.config),
            group: self.group,
            segment: number,
            first_index: Index(1),
            first_offset: Offset(0),
            previous_term: Term(0),
            previous_sum: 0,
            previous_size: 0,
            made_at: UnixSeconds(0),
            state: StatePlace::NONE,
        };
        if number > 0 || !self.is_untrimmed {
            let footer = self.last_footer(number.checked_sub(1)?)?;
            header.first_index = footer.last_index.next();
            header.first_offset = footer.next_offset;
            header.previous_term = footer.last_term;
            header.previous_sum = footer.last_sum;
            header.previous_size = footer.data_size;
        }
        Some(header)
    }
}
