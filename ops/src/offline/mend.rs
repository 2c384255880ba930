//! Damaged segments of a stopped node, written anew: what the files and the journal still say of each,
//! its own sound blocks, and what running nodes have of the rest.
//!
//! A file is never changed where it stands: the new one is written beside, synced, and takes the name.
//! Killed at any moment this leaves the old file or the new one, and begins again. The journal is
//! left to the node itself.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{SystemTime, UNIX_EPOCH};

use ringwood_core::id::{Index, NodeId, Term, UnixSeconds};
use ringwood_core::log::Base;
use ringwood_core::log::footer::{SEGMENT_FOOTER_SIZE, SegmentFooter};
use ringwood_core::log::offline::{Rebuild, SegmentEnd, SegmentPieces, What};
use ringwood_core::log::producers::ProducerTable;
use ringwood_core::log::segment::{SEGMENT_HEADER_SIZE, SegmentHeader, SegmentState, StatePlace};
use ringwood_net::config::Identity;
use ringwood_net::disk;
use serde::Serialize;

use super::donor::Donors;
use super::log::Log;
use super::{Directory, segment_file};
use crate::output::Wide;

/// A segment that was written anew.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Mended {
    pub(crate) log: String,
    pub(crate) file: String,
    /// Blocks of it that came from other nodes.
    pub(crate) blocks: Wide,
}

/// A segment that was left as it is.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct NotMended {
    pub(crate) log: String,
    pub(crate) file: String,
    pub(crate) why: String,
}

/// What stands in a directory, read under the lock that writing it takes.
pub(crate) struct Patient<'a> {
    pub(crate) directory: &'a Directory,
    pub(crate) writer: &'a disk::Directory,
    pub(crate) identity: &'a Identity,
    pub(crate) tag: u32,
}

/// What the files say of a log's segments.
struct Chart {
    heads: BTreeMap<u32, SegmentHeader>,
    footers: BTreeMap<u32, SegmentFooter>,
}

impl Patient<'_> {
    /// Writes one segment of a log anew.
    pub(crate) fn mend(
        &self,
        log: &Log,
        number: u32,
        donors: &mut Donors,
    ) -> Result<Mended, NotMended> {
        let file = segment_file(log.group, number);
        let count = self.rewrite(log, number, donors);
        match count {
            Ok(count) => Ok(Mended {
                log: log.name.clone(),
                file,
                blocks: Wide(count),
            }),
            Err(why) => Err(NotMended {
                log: log.name.clone(),
                file,
                why,
            }),
        }
    }

    /// Says how many blocks came from other nodes.
    fn rewrite(&self, log: &Log, number: u32, donors: &mut Donors) -> Result<u64, String> {
        let chart = self.chart(log);
        let end = end_of(log, &chart, number)
            .ok_or("neither the journal nor the next segment says where it ended")?;
        let (header, fresh_state) = match chart.heads.get(&number) {
            Some(header) => (*header, self.first_state(header)),
            None => self
                .derived_head(log, &chart, number)
                .ok_or("its header is gone, and what stands before it does not say what it was")?,
        };
        let mut rebuild = Rebuild::new(header, end);
        if let Some(file) = self.directory.segment(log.group, number) {
            for piece in SegmentPieces::new(file.size, file.reader()) {
                if let What::Block(block) = &piece.what {
                    rebuild.take(block);
                }
            }
        }
        while let Some(missing) = rebuild.missing() {
            let taken = donors.fetch(log.group, missing, |bytes| rebuild.give(missing, bytes));
            taken.map_err(|words| {
                format!("blocks {} to {}: {words}", missing.first, missing.last)
            })?;
        }
        let count = rebuild.given_count();
        let state = match fresh_state {
            Some(state) => state,
            None => self.state_bytes(log, number, &header),
        };
        let bytes = rebuild.finish(&state).map_err(|error| error.to_string())?;
        let written = self.writer.mend_segment(log.group, number, 0, &bytes);
        let named = written.and_then(|()| self.writer.replace_segment(log.group, number));
        named.map_err(|error| error.to_string())?;
        Ok(count)
    }

    /// Headers, from the files' beginnings or their footers' copies, and footers.
    fn chart(&self, log: &Log) -> Chart {
        let mut chart = Chart {
            heads: BTreeMap::new(),
            footers: BTreeMap::new(),
        };
        for segment in &log.segments {
            let number = segment.number;
            let is_ours = |header: &SegmentHeader| {
                header.cluster == self.identity.cluster
                    && header.node_tag == self.tag
                    && (header.group, header.segment) == (log.group, number)
            };
            let footer = self.footer(log, number, segment.size);
            let copy = footer.as_ref().and_then(|footer| footer.header);
            let header = segment.header.filter(is_ours).or(copy.filter(is_ours));
            chart.heads.extend(header.map(|header| (number, header)));
            chart.footers.extend(footer.map(|footer| (number, footer)));
        }
        chart
    }

    /// The footer at a file's end, if it is there and this segment's.
    fn footer(&self, log: &Log, number: u32, size: u64) -> Option<SegmentFooter> {
        let at = size.checked_sub(SEGMENT_FOOTER_SIZE as u64)?;
        let file = self.directory.segment(log.group, number)?;
        let bytes = file.read(at, SEGMENT_FOOTER_SIZE).ok()?;
        let footer = SegmentFooter::check(&bytes).ok()?;
        let is_its = footer.cluster == self.identity.cluster
            && footer.node_tag == self.tag
            && (footer.group, footer.segment) == (log.group, number)
            && footer.data_size == at;
        is_its.then_some(footer)
    }

    /// A header made from what stands before: the footer of the segment before, or the log's beginning.
    /// The state behind it is lost but at the log's beginning, and the header says so.
    fn derived_head(
        &self,
        log: &Log,
        chart: &Chart,
        number: u32,
    ) -> Option<(SegmentHeader, Option<Vec<u8>>)> {
        let (before, previous_size) = match number.checked_sub(1) {
            None => (Base::default(), 0),
            Some(previous) => {
                let footer = chart.footers.get(&previous)?;
                let before = Base {
                    index: footer.last_index,
                    term: footer.last_term,
                    sum: footer.last_sum,
                    next_offset: footer.next_offset,
                };
                (before, footer.data_size)
            }
        };
        let is_first = before.index == Index(0);
        let (state, bytes) = self.beginning();
        let header = SegmentHeader {
            cluster: self.identity.cluster,
            node_tag: self.tag,
            group: log.group,
            segment: number,
            first_index: before.index.next(),
            first_offset: before.next_offset,
            previous_term: before.term,
            previous_sum: before.sum,
            previous_size,
            // Not known: what is not dated is never too old to be kept.
            made_at: UnixSeconds(0),
            state: if is_first { state } else { StatePlace::NONE },
        };
        Some((header, is_first.then_some(bytes)))
    }

    /// What a log is before its first block.
    fn beginning(&self) -> (StatePlace, Vec<u8>) {
        let voters = self.identity.voters.iter().map(|voter| voter.id);
        let mut voters: Vec<NodeId> = voters.collect();
        voters.sort_unstable();
        let state = SegmentState {
            voters,
            producers: ProducerTable::default(),
        };
        let (place, bytes) = state.encode(Index(0), Term(0));
        (place, bytes.to_vec())
    }

    /// The state behind a header of the log's beginning, which needs no disk to be known.
    fn first_state(&self, header: &SegmentHeader) -> Option<Vec<u8>> {
        let (place, bytes) = self.beginning();
        (header.first_index == Index(1) && header.state == place).then_some(bytes)
    }

    /// What the old file has behind a copy of its header: a sound one, if there is one.
    fn state_bytes(&self, log: &Log, number: u32, header: &SegmentHeader) -> Vec<u8> {
        let size = header.state.head_size as usize;
        let file = self.directory.segment(log.group, number);
        let read = file.and_then(|file| file.read(0, size).ok());
        let head = read.unwrap_or_default();
        let copy = SegmentState::sound_copy(header, &head);
        let copy = copy.unwrap_or_else(|| head[..head.len().min(header.state.copy_size())].into());
        copy.get(SEGMENT_HEADER_SIZE..).unwrap_or_default().to_vec()
    }

    /// Segments of a log of which more than the state is damaged, or a state that can be made anew.
    pub(crate) fn wounds(&self, log: &Log) -> BTreeSet<u32> {
        let chart = self.chart(log);
        let is_mendable = |number: &u32| {
            let header = chart.heads.get(number);
            header.is_some_and(|header| self.first_state(header).is_some())
        };
        let audited = log.audit(self.directory, self.tag);
        let states = audited.lost_states.into_iter().filter(is_mendable);
        audited.wounds.into_iter().chain(states).collect()
    }
}

/// Where a segment ends, as the next one, the journal, or its own footer says.
fn end_of(log: &Log, chart: &Chart, number: u32) -> Option<SegmentEnd> {
    let checkpoint = log.known.as_ref()?.checkpoint.as_ref()?;
    let footer = chart.footers.get(&number);
    if checkpoint.segment == number {
        return Some(SegmentEnd {
            last: checkpoint.index,
            sum: checkpoint.block_sum,
            data_size: checkpoint.segment_size,
            sealed_at: None,
        });
    }
    let sealed_at = Some(footer.map_or_else(today, |footer| footer.sealed_at));
    if let Some(next) = chart.heads.get(&(number + 1)) {
        return Some(SegmentEnd {
            last: Index(next.first_index.0 - 1),
            sum: next.previous_sum,
            data_size: next.previous_size,
            sealed_at,
        });
    }
    footer.map(|footer| SegmentEnd {
        last: footer.last_index,
        sum: footer.last_sum,
        data_size: footer.data_size,
        sealed_at,
    })
}

fn today() -> UnixSeconds {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    UnixSeconds(now.map_or(0, |now| now.as_secs()))
}
