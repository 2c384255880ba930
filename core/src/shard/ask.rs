//! Questions to peers for blocks that this disk has lost: one peer after the other, until one gives
//! all of them or each has said why it cannot.
//!
//! Keeps what is asked, of whom, and what has come of it. Believes nobody: a block counts if its own
//! sums hold, if it names the sum of the one before, and if the last one is the one that was named.
//! Knows no disk, and not why a block is wanted; the other side of this is `answer`.
//!
//! ```text
//!  ask ─▶ waiting ─▶ a peer is asked ─▶ blocks, but not all ─▶ the same peer is asked for the rest
//!          (bound)     │   ▲    └─────▶ all blocks, or as many as one question may gather ─▶ told
//!                      ▼   │
//!             silence, or its word why not; blocks that do not fit count as such a word
//!                      └──────────────▶ nobody is left ─▶ told, with each one's word
//! ```
//! An answer counts once, from whom was asked, under the number it was asked by. Numbers begin with
//! the journal's life, so what was asked by an earlier process is answered to nobody.

use std::collections::VecDeque;
use std::fmt;

use bytes::Bytes;

use crate::frame::Frame;
use crate::frame::Lane;
use crate::frame::code::BlockOutcome;
use crate::frame::peer::{ArchivedBlockReply, BlockRequest};
use crate::id::{GroupId, Index, Nanos, NodeId};
use crate::limits::{ASK_COUNT_MAX, ASK_SIZE_MAX};
use crate::log::block::Block;

use super::chain::Link;
use super::peer::check_blocks;
use super::{Effects, Shard};

/// A peer that has not answered for so long is silent: a read and a megabyte take far less.
pub(super) const PATIENCE: Nanos = Nanos::from_millis(1_000);

/// Blocks of a log, named so that no others can be taken for them. From 0 on nobody has them: that
/// asks where the logs of peers begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Lost {
    pub(super) first: Index,
    pub(super) last: Index,
    /// Sum of the block before the first; none if that is lost, too.
    pub(super) previous_sum: Option<u32>,
    /// Sum of the last.
    pub(super) sum: u32,
}

impl Lost {
    /// All from `first` through `last`; `previous_sum` is of the block before, if that is known.
    pub(super) fn through(last: Link, first: Index, previous_sum: Option<u32>) -> Self {
        Self {
            first,
            last: last.index,
            previous_sum,
            sum: last.sum,
        }
    }
}

/// Who asks, and is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asker {
    /// A block of the journal that could not be read.
    Repair,
    /// A segment that is written anew.
    Mend,
    /// Blocks that recovery missed.
    Hole,
}

/// Why a peer did not give the blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Word {
    /// It was not reached, or did not answer.
    Silent,
    /// It had no time; it may have them.
    Busy,
    /// Its log does not hold them: it ends below, or has others there.
    Absent,
    /// It had them and has lost them.
    Lost,
    /// It had them and gave them up by decision of the log.
    Trimmed,
    /// What it sent was damaged, or not what was asked for.
    Wrong,
}

impl fmt::Display for Word {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Silent => "does not answer",
            Self::Busy => "is busy",
            Self::Absent => "does not have it",
            Self::Lost => "has lost it, too",
            Self::Trimmed => "has trimmed it",
            Self::Wrong => "sent something else",
        })
    }
}

/// What came of a question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Told {
    pub(super) lost: Lost,
    /// Blocks from the first on, in pieces of whole blocks; all of them, or as many as one question
    /// gathers. None if nobody gave any.
    pub(super) blocks: Vec<Bytes>,
    /// Those who did not give them, each with its word.
    pub(super) words: Vec<(NodeId, Word)>,
    /// Of those who have trimmed them: the head with which their log begins, as it came.
    pub(super) heads: Vec<Bytes>,
}

/// A question, and how far it has come.
#[derive(Debug)]
struct Ask {
    position: usize,
    asker: Asker,
    lost: Lost,
    /// Peers that have not been asked, the next one last.
    ahead: Vec<NodeId>,
    words: Vec<(NodeId, Word)>,
    heads: Vec<Bytes>,
    /// From the peer that is being asked.
    blocks: Vec<Bytes>,
    size: usize,
    /// Index and predecessor's sum of the block that is due.
    next: Index,
    link: Option<u32>,
    to: NodeId,
    number: u64,
    due: Nanos,
}

/// All questions of a shard.
#[derive(Debug)]
pub(super) struct Asks {
    /// Those that wait for an answer.
    list: Vec<Ask>,
    waiting: VecDeque<Ask>,
    last_number: u64,
}

impl Asks {
    /// None yet, in this life of the journal.
    pub(super) fn new(life: u64) -> Self {
        Self {
            list: Vec::new(),
            waiting: VecDeque::new(),
            last_number: life << 32,
        }
    }

    /// A number that no other question has, of this process or an earlier one.
    pub(super) fn next_number(&mut self) -> u64 {
        self.last_number += 1;
        self.last_number
    }

    /// When the next peer counts as silent.
    pub(super) fn deadline(&self) -> Option<Nanos> {
        self.list.iter().map(|ask| ask.due).min()
    }
}

impl Ask {
    /// What came from the peer before does not count: it gave not all.
    fn begin(&mut self) {
        self.blocks.clear();
        self.size = 0;
        self.next = self.lost.first;
        self.link = self.lost.previous_sum;
    }

    /// Takes the blocks of an answer, or says what is wrong with them.
    fn take(&mut self, group: GroupId, payload: &[u8], count: u32) -> Result<(), Word> {
        let before = Index(self.next.0 - 1);
        let blocks = check_blocks(payload, group, before, count).map_err(|_| Word::Wrong)?;
        let last = blocks.last().ok_or(Word::Wrong)?.header();
        if last.index > self.lost.last {
            return Err(Word::Wrong);
        }
        // Sound, but of another history: whoever sent it has others in their place.
        if !are_linked(&blocks, self.link) {
            return Err(Word::Absent);
        }
        if last.index == self.lost.last && last.sum != self.lost.sum {
            return Err(Word::Absent);
        }
        self.blocks.push(Bytes::copy_from_slice(payload));
        self.size += payload.len();
        self.next = last.index.next();
        self.link = Some(last.sum);
        Ok(())
    }

    fn is_enough(&self) -> bool {
        self.next > self.lost.last || self.size >= ASK_SIZE_MAX
    }
}

impl Shard {
    /// Asks the peers for lost blocks of a group. The end is told to the asker, once.
    pub(super) fn ask(
        &mut self,
        now: Nanos,
        position: usize,
        asker: Asker,
        lost: Lost,
        effects: &mut Effects,
    ) {
        assert!(lost.first <= lost.last && lost.last > Index(0));
        // Another one first for each question, so that repairs do not all burden one peer.
        let mut ahead = self.peers.clone();
        let turn = lost.first.0 as usize % ahead.len().max(1);
        ahead.rotate_left(turn);
        self.asks.waiting.push_back(Ask {
            position,
            asker,
            lost,
            ahead,
            words: Vec::new(),
            heads: Vec::new(),
            blocks: Vec::new(),
            size: 0,
            next: lost.first,
            link: lost.previous_sum,
            to: NodeId(0),
            number: 0,
            due: now,
        });
        self.begin_asks(now, effects);
    }

    fn begin_asks(&mut self, now: Nanos, effects: &mut Effects) {
        while self.asks.list.len() < ASK_COUNT_MAX
            && let Some(ask) = self.asks.waiting.pop_front()
        {
            self.ask_next(now, ask, effects);
        }
    }

    /// Asks the next peer that is there, or tells that none is left.
    fn ask_next(&mut self, now: Nanos, mut ask: Ask, effects: &mut Effects) {
        ask.begin();
        while let Some(peer) = ask.ahead.pop() {
            if self.liveness.is_heard(now, peer) {
                ask.to = peer;
                self.send_ask(now, ask, effects);
                return;
            }
            ask.words.push((peer, Word::Silent));
        }
        self.end_ask(now, ask, effects);
    }

    fn send_ask(&mut self, now: Nanos, mut ask: Ask, effects: &mut Effects) {
        ask.number = self.asks.next_number();
        ask.due = now.after(PATIENCE);
        let frame = self.encoder.frame(&BlockRequest {
            number: ask.number,
            first: ask.next.0,
            last: ask.lost.last.0,
            group: self.groups[ask.position].id.0,
            sum: ask.lost.sum,
        });
        self.send(ask.to, Lane::Bulk, frame, effects);
        self.asks.list.push(ask);
    }

    fn end_ask(&mut self, now: Nanos, ask: Ask, effects: &mut Effects) {
        let told = Told {
            lost: ask.lost,
            blocks: ask.blocks,
            words: ask.words,
            heads: ask.heads,
        };
        match ask.asker {
            Asker::Repair => self.on_repair_told(now, ask.position, &told),
            Asker::Mend => self.on_mend_told(now, &told, effects),
            Asker::Hole => self.on_hole_told(now, ask.position, &told, effects),
        }
        self.begin_asks(now, effects);
    }

    pub(super) fn on_block_reply(
        &mut self,
        now: Nanos,
        from: NodeId,
        body: &ArchivedBlockReply,
        frame: &Frame<'_>,
        effects: &mut Effects,
    ) {
        if self.on_pull_reply(now, from, body, frame, effects) {
            return;
        }
        let number = body.number.to_native();
        let mut list = self.asks.list.iter();
        // Late, twice, or not from whom was asked: it counts no more.
        let Some(at) = list.position(|ask| ask.number == number && ask.to == from) else {
            return;
        };
        let mut ask = self.asks.list.swap_remove(at);
        let group = self.groups[ask.position].id;
        let is_it = body.group.to_native() == group.0 && body.first.to_native() == ask.next.0;
        let word = match BlockOutcome::from_code(body.outcome) {
            Some(BlockOutcome::Found) if is_it && ask.next > Index(0) => {
                let payload = frame.payload().contiguous();
                ask.take(group, &payload, body.count.to_native())
            }
            Some(BlockOutcome::Absent) if is_it => Err(Word::Absent),
            Some(BlockOutcome::Lost) if is_it => Err(Word::Lost),
            Some(BlockOutcome::Trimmed) if is_it => {
                let head = frame.payload().contiguous();
                if !head.is_empty() {
                    ask.heads.push(Bytes::copy_from_slice(&head));
                }
                Err(Word::Trimmed)
            }
            Some(BlockOutcome::Busy) if is_it => Err(Word::Busy),
            _ => Err(Word::Wrong),
        };
        match word {
            Ok(()) if ask.is_enough() => self.end_ask(now, ask, effects),
            Ok(()) => self.send_ask(now, ask, effects),
            Err(word) => {
                self.peer_fault_count += u64::from(word == Word::Wrong);
                ask.words.push((from, word));
                self.ask_next(now, ask, effects);
            }
        }
    }

    /// At a turn's end: who has not answered for long enough is passed over.
    pub(super) fn advance_asks(&mut self, now: Nanos, effects: &mut Effects) {
        let over: Vec<Ask> = self
            .asks
            .list
            .extract_if(.., |ask| ask.due <= now)
            .collect();
        for mut ask in over {
            ask.words.push((ask.to, Word::Silent));
            self.ask_next(now, ask, effects);
        }
    }
}

/// Whether each block names the sum of the one before it, the first that of the one before all.
pub(super) fn are_linked(blocks: &[Block<'_>], before: Option<u32>) -> bool {
    let mut link = before;
    blocks.iter().all(|block| {
        let header = block.header();
        let is_linked = link.is_none_or(|sum| sum == header.previous_sum);
        link = Some(header.sum);
        is_linked
    })
}
