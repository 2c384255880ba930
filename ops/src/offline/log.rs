//! One log in a directory that is looked at: what the journal says of it, and its segments.

use std::collections::BTreeSet;

use ringwood_core::id::{GroupId, Index, Offset, Term};
use ringwood_core::log::HardState;
use ringwood_core::log::checkpoint::Checkpoint;
use ringwood_core::log::offline::{Audit, End, FaultKind, Piece, SegmentPieces};
use ringwood_core::log::recovery::Recovered;
use ringwood_core::log::segment::{SEGMENT_HEADER_SIZE, SegmentHeader};

use super::bad::Bad;
use super::{Directory, segment_file};
use crate::exit::Failure;

/// One log.
pub(crate) struct Log {
    pub(crate) group: GroupId,
    pub(crate) name: String,
    /// What the journal knows; none if there is no journal to ask, or it knows nothing of this log.
    pub(crate) known: Option<Known>,
    /// Its segments that are there, in order.
    pub(crate) segments: Vec<Segment>,
}

/// What the journal knows of a log.
pub(crate) struct Known {
    pub(crate) hard: HardState,
    pub(crate) checkpoint: Option<Checkpoint>,
    pub(crate) last_index: Index,
    pub(crate) last_term: Term,
    pub(crate) end_offset: Offset,
}

/// A segment's file.
pub(crate) struct Segment {
    pub(crate) number: u32,
    pub(crate) size: u64,
    /// What its first sector says; none if that is damaged.
    pub(crate) header: Option<SegmentHeader>,
    /// Where it ends, as the next segment's first sector or the checkpoint says.
    pub(crate) end: End,
}

/// What an audit of a log's segments came to.
pub(crate) struct Audited {
    pub(crate) bad: Vec<Bad>,
    pub(crate) notes: Vec<String>,
    pub(crate) block_count: u64,
    pub(crate) block_size: u64,
    /// Segments of which something is damaged that readers or the next start need.
    pub(crate) wounds: BTreeSet<u32>,
    /// Segments of which the state is.
    pub(crate) lost_states: BTreeSet<u32>,
}

impl Log {
    /// All logs that the identity, the journal or a directory name, by group.
    pub(crate) fn all(
        directory: &Directory,
        recovered: Option<&Recovered>,
    ) -> Result<Vec<Self>, Failure> {
        let mut groups = directory.groups()?;
        if let Ok(identity) = &directory.identity {
            groups.extend(identity.logs.iter().map(|log| log.group));
        }
        if let Some(recovered) = recovered {
            groups.extend(recovered.groups.keys());
        }
        groups.sort_unstable();
        groups.dedup();
        groups
            .into_iter()
            .map(|group| Self::read(directory, recovered, group))
            .collect()
    }

    fn read(
        directory: &Directory,
        recovered: Option<&Recovered>,
        group: GroupId,
    ) -> Result<Self, Failure> {
        let found = recovered.and_then(|recovered| recovered.groups.get(&group));
        let known = found.map(|found| Known {
            hard: found.hard,
            checkpoint: found.checkpoint.clone(),
            last_index: found.tail.last_index(),
            last_term: found.tail.last_term(),
            end_offset: found.tail.next_offset(),
        });
        let checkpoint = known.as_ref().and_then(|known| known.checkpoint.as_ref());
        let mut segments: Vec<Segment> = Vec::new();
        for number in directory.segments(group)? {
            let Some(file) = directory.segment(group, number) else {
                continue;
            };
            let first = file.read(0, SEGMENT_HEADER_SIZE);
            let header = first
                .ok()
                .and_then(|bytes| SegmentHeader::check(&bytes).ok());
            let active = checkpoint.filter(|checkpoint| checkpoint.segment == number);
            segments.push(Segment {
                number,
                size: file.size,
                header,
                end: active.map_or(End::Unknown, |checkpoint| {
                    End::Grows(checkpoint.segment_size)
                }),
            });
        }
        for at in 1..segments.len() {
            let next = &segments[at];
            let follows = segments[at - 1].number.checked_add(1) == Some(next.number);
            if let (End::Unknown, Some(header), true) = (segments[at - 1].end, next.header, follows)
            {
                segments[at - 1].end = End::Sealed(header.previous_size);
            }
        }
        Ok(Self {
            group,
            name: directory.log_name(group),
            known,
            segments,
        })
    }

    /// Numbers of the segments that should be there: those that the journal vouches for. Without its
    /// word, all that are, and of a gap between them one: names are not trusted to be few.
    pub(crate) fn expected(&self) -> Vec<u32> {
        let numbers = self.segments.iter().map(|segment| segment.number);
        match &self.known {
            Some(known) => {
                let kept = known.checkpoint.as_ref().map(|checkpoint| {
                    // A log that began anew has none before its first write.
                    let is_begun = checkpoint.segment_size > 0;
                    let end = checkpoint.segment.saturating_add(is_begun.into());
                    checkpoint.first_segment..end
                });
                kept.into_iter().flatten().collect()
            }
            None => {
                let before = |number: u32| number.checked_sub(1);
                let mut numbers: Vec<u32> = numbers
                    .flat_map(|number| before(number).into_iter().chain([number]))
                    .collect();
                numbers.dedup();
                numbers
            }
        }
    }

    /// Reads all segments, and checks every sum and that they are one chain.
    pub(crate) fn audit(&self, directory: &Directory, tag: u32) -> Audited {
        let cluster = directory.identity.as_ref().map(|identity| identity.cluster);
        let cluster = cluster.expect("a tag is known only with the identity");
        let mut audit = Audit::new(cluster, tag, self.group);
        let checkpoint = self
            .known
            .as_ref()
            .and_then(|known| known.checkpoint.as_ref());
        let mut notes = Vec::new();
        if self.known.is_none() && !self.segments.is_empty() {
            notes.push(format!(
                "{}: the journal does not say where its segments end: the last is checked as far as it has blocks",
                self.name
            ));
        }
        let expected = self.expected();
        for number in expected.iter().copied() {
            let found = self
                .segments
                .iter()
                .find(|segment| segment.number == number);
            let file = found.and_then(|_| directory.segment(self.group, number));
            match (found, file) {
                (Some(segment), Some(file)) => {
                    let pieces = SegmentPieces::new(file.size, file.reader());
                    audit.segment(number, segment.end, pieces);
                }
                // How large it was says the next one, if anything does.
                _ => audit.segment(number, End::Grows(1), std::iter::empty::<Piece>()),
            }
        }
        let beyond = |segment: &&Segment| !expected.contains(&segment.number);
        notes.extend(self.segments.iter().filter(beyond).map(|segment| {
            let file = segment_file(self.group, segment.number);
            let first = checkpoint.map_or(0, |checkpoint| checkpoint.first_segment);
            if segment.number < first {
                format!("{file}: trimmed, and deleted when the node starts")
            } else {
                format!("{file}: begun before a crash, and not yet vouched for")
            }
        }));
        let findings = audit.finish(checkpoint.map(Checkpoint::base));
        let bad = findings.faults.iter().map(|fault| {
            let file = segment_file(self.group, fault.number);
            Bad::in_segment(&self.name, file, fault)
        });
        let numbers = |is_state: bool| {
            let faults = findings.faults.iter();
            let faults =
                faults.filter(move |fault| matches!(fault.kind, FaultKind::State(_)) == is_state);
            faults.map(|fault| fault.number).collect()
        };
        Audited {
            wounds: numbers(false),
            lost_states: numbers(true),
            bad: bad.collect(),
            notes,
            block_count: findings.block_count,
            block_size: findings.block_size,
        }
    }
}
