//! Blocks that recovery missed, while it found others behind them: fetched from peers, lowest hole
//! first, and put at the journal's head as copies. What is found behind a hole may be the only
//! intact copy anywhere of a block that counts, so it is kept until a leader has overruled it, or
//! the journal is full and there is a leader.
//!
//! Keeps for each log what is there in pieces and how far its first hole is. Knows no wire: asking
//! is `ask`'s. Meanwhile Raft runs with the log up to the first hole, in doubt: it neither votes
//! nor stands for election, but follows whom others elect.
//!
//! ```text
//!  a hole ─▶ asked of peers ─▶ put at the head ─▶ durable: Raft's log goes on to the next hole
//!    ▲            │
//!    │            ├─ nobody gave them, yet they may count: asked again after a pause; an alarm
//!    └────────────┘
//!                 └─ every voter answered, and fewer than a quorum ever had the last: it was never
//!                    committed, and what is behind the hole goes; where the log ends, Raft judges
//! ```
//! If each of several nodes has holes elsewhere, the one whose first hole is highest has what the
//! others miss, and so on upwards: all are filled without anybody leading. A crash at any time finds
//! the copies that were durable, and the rest missing as before.

use std::fmt::Write as _;

use bytes::Bytes;

use crate::id::{Index, Lsn, Nanos, NodeId};
use crate::log::Place;
use crate::log::block::{Block, blocks};
use crate::log::pieces::{Hole, Pieces};
use crate::raft::quorum;

use super::ask::{Asker, Lost, Told, Word};
use super::{Effects, Shard};

/// What nobody could give is asked for again after this: a peer may have come back, or have filled
/// a hole of its own.
const AGAIN_PAUSE: Nanos = Nanos::from_millis(200);

/// How far the first hole is.
#[derive(Clone, Debug)]
enum Stage {
    /// To be asked for, not before this.
    Due(Nanos),
    /// With what was given so far.
    Asking(Vec<Bytes>),
    /// Put at the journal's head.
    Put,
}

/// A log with holes.
#[derive(Debug)]
pub(super) struct Holes {
    pieces: Pieces,
    /// The lowest.
    first: Hole,
    stage: Stage,
    /// Why nobody gave it, the last time.
    words: Vec<(NodeId, Word)>,
}

impl Holes {
    /// What recovery found, if blocks are missing.
    pub(super) fn new(now: Nanos, pieces: Pieces) -> Option<Self> {
        let first = *pieces.holes().first()?;
        Some(Self {
            pieces,
            first,
            stage: Stage::Due(now),
            words: Vec::new(),
        })
    }

    /// The lowest run that holds any of it.
    pub(super) fn lowest(&self) -> Option<Lsn> {
        self.pieces.lowest()
    }

    fn lost(&self, first: Index, previous_sum: Option<u32>) -> Lost {
        Lost {
            first,
            last: self.first.last,
            previous_sum,
            sum: self.first.sum,
        }
    }
}

impl Shard {
    /// When something is to be asked for.
    pub(super) fn holes_deadline(&self) -> Option<Nanos> {
        let holes = self.groups.iter().filter_map(|group| group.holes.as_ref());
        let due = holes.filter_map(|holes| match holes.stage {
            Stage::Due(at) => Some(at),
            Stage::Asking(_) | Stage::Put => None,
        });
        due.min()
    }

    /// At a turn's end: asks for what is due.
    pub(super) fn advance_holes(&mut self, now: Nanos, effects: &mut Effects) {
        let has_room = self.journal.takes_copies(0);
        for position in 0..self.groups.len() {
            let group = &mut self.groups[position];
            // What is kept behind holes may be what fills the journal. A leader has all that counts.
            if !has_room && group.raft.leader().is_some() {
                self.is_release_due |= group.holes.take().is_some();
            }
            let Some(holes) = &mut group.holes else {
                continue;
            };
            if matches!(holes.stage, Stage::Due(due) if due <= now) {
                holes.stage = Stage::Asking(Vec::new());
                // What stands below the hole may have been overruled by what is lost.
                let lost = holes.lost(holes.first.first, None);
                self.ask(now, position, Asker::Hole, lost, effects);
            }
        }
    }

    /// What peers gave, if anything.
    pub(super) fn on_hole_told(
        &mut self,
        now: Nanos,
        position: usize,
        told: &Told,
        effects: &mut Effects,
    ) {
        // Overruled meanwhile, or this is the answer to an older question.
        let Some(holes) = &mut self.groups[position].holes else {
            return;
        };
        let Stage::Asking(given) = &mut holes.stage else {
            return;
        };
        if told.lost.sum != holes.first.sum || told.lost.last != holes.first.last {
            return;
        }
        given.extend(told.blocks.iter().cloned());
        let all: Vec<Bytes> = given.clone();
        let last = all.iter().flat_map(|piece| blocks(piece)).last();
        let last = last.map(|block| *block.expect("a told block is checked").header());
        holes.words.clone_from(&told.words);
        match last {
            Some(last) if last.index == holes.first.last => {
                let is_put = self.fill(position, &all);
                let holes = self.groups[position].holes.as_mut().expect("seen just now");
                holes.stage = match is_put {
                    true => Stage::Put,
                    false => Stage::Due(now.after(AGAIN_PAUSE)),
                };
            }
            // More than one question gathers.
            Some(last) if !told.blocks.is_empty() => {
                let lost = holes.lost(last.index.next(), Some(last.sum));
                self.ask(now, position, Asker::Hole, lost, effects);
            }
            _ => {
                holes.stage = Stage::Due(now.after(AGAIN_PAUSE));
                self.maybe_give_up(now, position, effects);
            }
        }
    }

    /// Puts all blocks of the first hole. False if there is no room, or they are not the ones.
    fn fill(&mut self, position: usize, given: &[Bytes]) -> bool {
        self.close_block();
        let mut put: Vec<(Block<'_>, Place)> = Vec::new();
        for block in given.iter().flat_map(|piece| blocks(piece)) {
            let block = block.expect("a told block is checked");
            // The last room is for votes: without them no leader is followed, and none is made.
            let has_room = self.journal.takes_copies(0);
            let place = has_room.then(|| self.journal.carry_block(&block)).flatten();
            let Some(place) = place else {
                return false;
            };
            put.push((block, place));
        }
        let holes = self.groups[position].holes.as_mut();
        holes.is_some_and(|holes| holes.pieces.fill(&put))
    }

    /// Runs below `durable` are on disk: logs go on through what was put in them.
    pub(super) fn settle_holes(&mut self, now: Nanos, durable: Lsn, effects: &mut Effects) {
        for position in 0..self.groups.len() {
            let is_put = |holes: &mut Holes| {
                matches!(holes.stage, Stage::Put) && holes.pieces.is_durable(durable)
            };
            let Some(mut holes) = self.groups[position].holes.take_if(is_put) else {
                continue;
            };
            // Blocks that fit by their sums and cannot follow are nothing to go on with: the log
            // stays as it is, and a leader overrules the rest.
            let Ok(prefix) = holes.pieces.prefix() else {
                continue;
            };
            let next = holes.pieces.holes().first().copied();
            let mut is_restored = false;
            self.tell_raft(now, position, effects, |raft, out| {
                is_restored = raft.restored(prefix.tail, prefix.commit, next.is_none(), out);
            });
            if !is_restored {
                // The term that they were written in may be lost, and not known again yet.
                let group = &mut self.groups[position];
                group.holes = Some(holes).filter(|_| group.raft.leader().is_none());
                continue;
            }
            let group = &mut self.groups[position];
            group.on_restored(prefix.producers, prefix.trims);
            if let Some(first) = next {
                (holes.first, holes.stage) = (first, Stage::Due(now));
                group.holes = Some(holes);
            }
            self.is_release_due = true;
        }
    }

    /// Every other voter has answered, and those who had the last block are no quorum: then nobody was
    /// ever told that it counts, or what is behind it, and nobody will be. Of those before it Raft
    /// judges.
    fn maybe_give_up(&mut self, now: Nanos, position: usize, effects: &mut Effects) {
        let holes = self.groups[position].holes.as_ref();
        let Some(words) = holes.map(|holes| &holes.words) else {
            return;
        };
        let has_answered = |word: &Word| matches!(word, Word::Absent | Word::Lost);
        let lost = words.iter().filter(|(_, word)| *word == Word::Lost);
        let had_count = 1 + lost.count();
        let is_settled = words.len() == self.peers.len()
            && words.iter().all(|(_, word)| has_answered(word))
            && had_count < quorum::size(self.config.voters.len());
        if !is_settled {
            return;
        }
        let mut has_given_up = false;
        self.tell_raft(now, position, effects, |raft, out| {
            has_given_up = raft.gave_up(out);
        });
        if has_given_up {
            self.groups[position].holes = None;
            self.is_release_due = true;
        }
    }

    /// A sentence for each log whose hole nobody could fill, or that is in doubt, for `status`.
    pub(super) fn doubt_alarms(&self) -> impl Iterator<Item = String> + '_ {
        let groups = self.groups.iter().zip(&self.config.logs);
        let doubting = groups.filter(|(group, _)| group.raft.doubt().is_any());
        doubting.map(|(group, log)| {
            let doubt = group.raft.doubt();
            let mut text = format!("log {}: this replica is unsure", log.name);
            if doubt.vote {
                text.push_str(", its last votes are lost");
            }
            if doubt.log {
                text.push_str(", blocks at its end may be lost");
            }
            if let Some(holes) = &group.holes {
                let (first, last) = (holes.first.first, holes.first.last);
                let offset = group.tail().next_offset();
                let _ = write!(
                    text,
                    ", blocks {first} to {last} are lost, from offset {offset} on"
                );
                for (node, word) in &holes.words {
                    let _ = write!(text, "; {} {word}", self.config.name_of(*node));
                }
            }
            let doubters: Vec<&str> = group
                .raft
                .doubters()
                .map(|node| self.config.name_of(node))
                .collect();
            if doubters.len() >= quorum::size(self.config.voters.len()) {
                let _ = write!(text, "; nobody can be elected: {}", doubters.join(", "));
                text.push_str(" are unsure");
            }
            text
        })
    }
}
