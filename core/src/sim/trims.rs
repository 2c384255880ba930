//! Where logs begin: what the decided trims say, what readers who ask below must be told, and who
//! asks for trims.
//!
//! Keeps of what was given up as much as it takes to judge a whole log at the end: its appends, with
//! their offsets. Knows no replica and no disk.

use std::collections::BTreeMap;

use super::chance::Chance;
use super::client::{Context, Line};
use super::marks::Marks;
use super::node::Process;
use super::runs::{Appended, Content};
use super::swarm::Swarm;
use crate::frame::client::{ArchivedTrimReply, TrimRequest};
use crate::frame::code::TrimOutcome;
use crate::id::{GroupId, Index};
use crate::shard::Retention;

/// One log's start, as of each of its blocks, and the appends that it ever had.
#[derive(Debug, Default)]
pub(super) struct Past {
    /// Trims that moved the start, and where to; both ascending.
    moves: Vec<(Index, u64)>,
    /// Decided appends by their first offset; none where nothing is ever trimmed.
    appends: Vec<(u64, Appended)>,
    end_offset: u64,
    is_kept: bool,
    /// Somebody besides the leaders asks for trims.
    is_asked: bool,
}

impl Past {
    pub(super) fn new(swarm: &Swarm) -> Self {
        Self {
            is_kept: swarm.trim_per_mille > 0 || swarm.retained_size > 0,
            is_asked: swarm.trim_per_mille > 0,
            ..Self::default()
        }
    }

    /// The next block is decided; none if it has no appends.
    pub(super) fn decide(&mut self, index: Index, content: Option<&Content>, marks: &mut Marks) {
        let Some(content) = content else {
            return;
        };
        if let Some(start) = content.trim {
            assert!(self.is_kept, "a log is trimmed, and nobody asked");
            assert!(start <= self.end_offset, "what was never there is trimmed");
            if start > self.latest() {
                self.moves.push((index, start));
                marks.trims += 1;
                marks.trims_retained += u64::from(!self.is_asked);
            }
        }
        for append in &content.appends {
            if self.is_kept {
                self.appends.push((self.end_offset, *append));
            }
            self.end_offset += u64::from(append.record_count);
        }
    }

    /// Where the log begins for whoever knows all through `commit` to be decided.
    pub(super) fn start_at(&self, commit: Index) -> u64 {
        let count = self.moves.partition_point(|(index, _)| *index <= commit);
        count.checked_sub(1).map_or(0, |last| self.moves[last].1)
    }

    /// Where it begins by all that is decided.
    pub(super) fn latest(&self) -> u64 {
        self.moves.last().map_or(0, |(_, start)| *start)
    }

    /// Whether the log began there at any time.
    pub(super) fn is_start(&self, offset: u64) -> bool {
        offset == 0 || self.moves.iter().any(|(_, start)| *start == offset)
    }

    /// Decided appends from one offset to another, with their first offsets.
    pub(super) fn between(&self, from: u64, to: u64) -> &[(u64, Appended)] {
        let place = |offset: u64| self.appends.partition_point(|(first, _)| *first < offset);
        &self.appends[place(from)..place(to)]
    }
}

/// What each node keeps of its logs.
pub(super) fn retention(swarm: &Swarm, groups: &[GroupId]) -> BTreeMap<GroupId, Retention> {
    let retention = Retention {
        bytes: Some(swarm.retained_size),
        seconds: None,
    };
    let groups = groups.iter().filter(|_| swarm.retained_size > 0);
    groups.map(|group| (*group, retention)).collect()
}

/// A log has just begun anew: at any of the moments until that is durable, and soon after, its process
/// may end.
pub(super) fn maybe_end_soon(process: &mut Process, swarm: &Swarm, chance: &mut Chance) {
    if swarm.crash > 0 && chance.one_in(2) {
        process.fuse = Some(chance.below(6));
    }
}

/// Asks for a log to begin later, and says the request and the offset: just behind the start, near
/// the end, anywhere; now and then where no record is yet.
pub(super) fn ask(
    group: GroupId,
    position: usize,
    line: &mut Line,
    context: &mut Context<'_>,
) -> (u64, u64) {
    let end = context.history.known_end(position);
    let start = context.oracle.past(position).latest().min(end);
    let chance: &mut Chance = context.chance;
    let before = match chance.below(8) {
        0 => start + chance.below(3),
        1 => chance.below(end + 3),
        2..=4 => end.saturating_sub(chance.below(4)).max(start),
        _ => chance.between(start, end),
    };
    let group = group.0;
    let request = line.ask(|request| TrimRequest {
        request,
        before,
        group,
    });
    (request, before)
}

/// Judges what came of a trim. Says where else to turn: the leader that is named, or 0.
pub(super) fn judge_reply(
    position: usize,
    before: u64,
    reply: &ArchivedTrimReply,
    context: &mut Context<'_>,
) -> Option<u64> {
    let (first, end) = (reply.first_offset.to_native(), reply.end_offset.to_native());
    let past = context.oracle.past(position);
    assert!(past.is_start(first), "nobody decided to begin at {first}");
    assert!(
        end <= context.oracle.end_offset(position),
        "a log that is trimmed ends behind what is decided"
    );
    match TrimOutcome::from_code(reply.outcome).expect("a known outcome") {
        TrimOutcome::Done => {
            assert!(first >= before, "trimmed to {first}, asked for {before}");
            context.history.on_trimmed(position, first);
            None
        }
        TrimOutcome::BeyondEnd => {
            assert!(before > end, "{before} is not beyond {end}");
            None
        }
        TrimOutcome::NotLeader => Some(reply.leader.to_native()),
        TrimOutcome::Busy => None,
        TrimOutcome::UnknownLog => panic!("a node does not know its log"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn content(trim: Option<u64>, record_count: u32) -> Content {
        let append = Appended {
            producer: 1,
            epoch: 1,
            sequence: 0,
            record_count,
        };
        Content {
            group: GroupId(1),
            index: Index(1),
            sum: 0,
            appends: if trim.is_some() {
                Vec::new()
            } else {
                vec![append]
            },
            trim,
        }
    }

    #[test]
    fn a_start_is_as_of_a_commit_and_never_goes_back() {
        let (mut past, mut marks) = (Past::default(), Marks::default());
        past.is_kept = true;
        past.decide(Index(1), None, &mut marks);
        past.decide(Index(2), Some(&content(None, 10)), &mut marks);
        past.decide(Index(3), Some(&content(Some(7), 0)), &mut marks);
        past.decide(Index(4), Some(&content(Some(4), 0)), &mut marks);
        past.decide(Index(5), Some(&content(None, 5)), &mut marks);
        past.decide(Index(6), Some(&content(Some(15), 0)), &mut marks);
        let starts = [2, 3, 4, 5, 6].map(|index| past.start_at(Index(index)));
        assert_eq!(starts, [0, 7, 7, 7, 15]);
        assert_eq!(
            (past.latest(), marks.trims, marks.trims_retained),
            (15, 2, 2)
        );
        assert!(past.is_start(0) && past.is_start(7) && !past.is_start(4));
        let offsets = |from, to| {
            past.between(from, to)
                .iter()
                .map(|(at, _)| *at)
                .collect::<Vec<_>>()
        };
        assert_eq!(offsets(0, 15), [0, 10]);
        assert_eq!(offsets(0, 10), [0]);
    }
}
