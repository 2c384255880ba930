//! Chunks of the past that peers want: a leader's for one that catches up, and what whoever has the
//! blocks gives to one that lost them or fetches them here instead of from its leader.
//!
//! Keeps who waits, in order, and what is on its way. One chunk is read at a time; it waits a little
//! for everybody else's reads, and leaves on the bulk lane. Knows no blocks: `catch_up` and `answer`
//! send them.
//!
//! ```text
//!  asked for ─▶ waiting ─▶ being read ─▶ on its way ─▶ the peer has it, or it is lost
//!                 ▲  others read: up to 20 ms         │
//!                 │  the budget is spent              │
//!                 └── as much is on its way to that peer as may be
//! ```
//! The budget binds only while the journal is written to: `CATCH_UP_RATE_MAX`, and besides twice what
//! the journal takes meanwhile. Without the second part a follower would never come near a log that
//! grows faster than the first; with it, it always does, and a shard that nobody appends to gives as
//! fast as it reads. Reads come one at a time, so an append finds at most one of them before its write.

use std::collections::VecDeque;

use crate::id::{Index, Lsn, Nanos, NodeId};
use crate::limits::{
    ANSWER_COUNT_MAX, CATCH_UP_APPEND_PART, CATCH_UP_RATE_MAX, CATCH_UP_WINDOW_SIZE,
};

use super::answer::BlockRequest;
use super::load::Purpose;
use super::locate::{Job, Want};
use super::{Effects, Shard};

/// So long a chunk waits for others' reads at most.
const YIELD_MAX: Nanos = Nanos::from_millis(20);

/// A journal that took nothing for so long is at rest: nobody's append is delayed.
const REST_SPAN: Nanos = Nanos::from_millis(10);

/// What was sent and is not answered for so long is not on its way any more.
const LOST_AFTER: Nanos = Nanos::from_millis(1_000);

/// Who waits for a chunk.
#[derive(Clone, Copy, Debug)]
enum Chunk {
    /// A follower that catches up.
    Peer {
        position: usize,
        peer: NodeId,
        next: Index,
    },
    /// A peer that asked.
    Answer {
        position: usize,
        request: BlockRequest,
    },
}

/// A leader's chunk without an answer.
#[derive(Clone, Copy, Debug)]
struct Sent {
    position: usize,
    peer: NodeId,
    last: Index,
    size: u64,
    at: Nanos,
}

/// All chunks of a shard.
#[derive(Debug)]
pub(super) struct Chunks {
    waiting: VecDeque<Chunk>,
    is_reading: bool,
    sent: Vec<Sent>,
    /// Bytes given that the budget does not cover yet.
    owed: u64,
    /// When and how far along the journal that was last looked at.
    counted: (Nanos, Lsn),
    /// When the journal was last seen to have gone on.
    written_at: Nanos,
    /// Since when the next one waits for others' reads.
    yields_since: Option<Nanos>,
}

impl Chunks {
    /// None yet.
    pub(super) fn new(now: Nanos) -> Self {
        Self {
            waiting: VecDeque::new(),
            is_reading: false,
            sent: Vec::new(),
            owed: 0,
            counted: (now, Lsn(0)),
            written_at: now,
            yields_since: None,
        }
    }

    /// What time and the journal have paid for.
    fn count(&mut self, now: Nanos, durable: Lsn, is_writing: bool) {
        let (before, lsn) = self.counted;
        self.counted = (now, durable);
        if is_writing || durable > lsn {
            self.written_at = now;
        }
        if now.since(self.written_at) >= REST_SPAN {
            self.owed = 0;
            return;
        }
        let span = now.since(before).0.min(1_000_000_000);
        let by_time = span * CATCH_UP_RATE_MAX / 1_000_000_000;
        let by_appends = (durable.0 - lsn.0).saturating_mul(CATCH_UP_APPEND_PART);
        self.owed = self.owed.saturating_sub(by_time.saturating_add(by_appends));
    }

    /// When the next chunk may be read, if nothing else comes before.
    pub(super) fn deadline(&self) -> Option<Nanos> {
        if self.is_reading || self.waiting.is_empty() {
            return None;
        }
        let at_rest = self.written_at.after(REST_SPAN);
        let span = self.owed.saturating_mul(1_000_000_000) / CATCH_UP_RATE_MAX;
        // Rounded up: a wake-up that is a nanosecond early would be for nothing.
        let paid = self.counted.0.after(Nanos(span + u64::from(span > 0)));
        let yielded = self.yields_since.map(|since| since.after(YIELD_MAX));
        let due = paid.min(at_rest).max(yielded.unwrap_or(Nanos(0)));
        if self.waiting.iter().any(|chunk| self.is_free(chunk)) {
            return Some(due);
        }
        // Only answers of the peers bring one nearer. What has none counts as lost some day.
        let lost = self.sent.iter().map(|sent| sent.at.after(LOST_AFTER));
        lost.min()
    }

    /// Bytes on their way to a peer.
    fn sent_size(&self, to: NodeId) -> u64 {
        let sent = self.sent.iter().filter(|sent| sent.peer == to);
        sent.map(|sent| sent.size).sum()
    }

    /// Whether it need not wait for its peer.
    fn is_free(&self, chunk: &Chunk) -> bool {
        match chunk {
            Chunk::Peer { peer, .. } => self.sent_size(*peer) < CATCH_UP_WINDOW_SIZE,
            Chunk::Answer { .. } => true,
        }
    }

    fn take(&mut self) -> Option<Chunk> {
        let at = self.waiting.iter().position(|chunk| self.is_free(chunk))?;
        self.waiting.remove(at)
    }
}

impl Shard {
    /// A follower is to get the chunk that begins at `next`. A later wish replaces an earlier one.
    pub(super) fn want_chunk(&mut self, position: usize, peer: NodeId, next: Index) {
        let is_same = |(at, to): (usize, NodeId)| at == position && to == peer;
        self.chunks.waiting.retain(|chunk| match chunk {
            Chunk::Peer { position, peer, .. } => !is_same((*position, *peer)),
            Chunk::Answer { .. } => true,
        });
        // What is wanted again did not arrive.
        self.chunks
            .sent
            .retain(|sent| !is_same((sent.position, sent.peer)) || sent.last < next);
        self.chunks.waiting.push_back(Chunk::Peer {
            position,
            peer,
            next,
        });
    }

    /// A peer asks for blocks. False if too many wait already.
    pub(super) fn want_answer(&mut self, position: usize, request: BlockRequest) -> bool {
        let is_answer = |chunk: &&Chunk| matches!(chunk, Chunk::Answer { .. });
        let has_room = self.chunks.waiting.iter().filter(is_answer).count() < ANSWER_COUNT_MAX;
        if has_room {
            let chunk = Chunk::Answer { position, request };
            self.chunks.waiting.push_back(chunk);
        }
        has_room
    }

    /// A chunk was read and has left, or could not be.
    pub(super) fn end_chunk(&mut self, size: usize) {
        assert!(self.chunks.is_reading, "one chunk is read at a time");
        self.chunks.is_reading = false;
        self.chunks.owed += size as u64;
    }

    /// A follower was sent a chunk.
    pub(super) fn note_chunk(
        &mut self,
        now: Nanos,
        position: usize,
        peer: NodeId,
        last: Index,
        size: u64,
    ) {
        self.chunks.sent.push(Sent {
            position,
            peer,
            last,
            size,
            at: now,
        });
    }

    /// At a turn's end: reads the next chunk, if it is its turn. Says whether any had one.
    pub(super) fn advance_chunks(&mut self, now: Nanos, effects: &mut Effects) -> bool {
        let mut has_any = false;
        let groups = &self.groups;
        self.chunks.sent.retain(|sent| {
            let progress = groups[sent.position].raft.progress(sent.peer);
            let is_open = progress.is_some_and(|progress| progress.matched() < sent.last);
            is_open && now < sent.at.after(LOST_AFTER)
        });
        let (durable, is_writing) = (self.journal.durable(), self.journal.is_writing());
        self.chunks.count(now, durable, is_writing);
        // What is in memory needs no read: one after the other, as far as the budget goes.
        while !self.chunks.is_reading && self.chunks.owed == 0 && !self.chunks.waiting.is_empty() {
            if self.loads.len() > 0 {
                let since = *self.chunks.yields_since.get_or_insert(now);
                if now < since.after(YIELD_MAX) {
                    break;
                }
            }
            let Some(chunk) = self.chunks.take() else {
                break;
            };
            has_any = true;
            self.chunks.yields_since = None;
            self.read_chunk(now, chunk, effects);
            self.chunks.count(now, durable, is_writing);
        }
        has_any
    }

    fn read_chunk(&mut self, now: Nanos, chunk: Chunk, effects: &mut Effects) {
        let size_max = self.shape.catch_up_size;
        let (first, last, purpose) = match chunk {
            Chunk::Peer {
                position,
                peer,
                next,
            } => {
                let raft = &self.groups[position].raft;
                let is_wanted = raft
                    .progress(peer)
                    .is_some_and(|peer| peer.is_catching_up());
                if !is_wanted {
                    return;
                }
                let last = raft.tail().last_index();
                (next, last, Purpose::Peer { position, peer })
            }
            Chunk::Answer { position, request } => {
                let (first, last) = request.range();
                (first, last, Purpose::Answer { position, request })
            }
        };
        self.chunks.is_reading = true;
        let job = Job::new(&self.shape, Want::Index(first), last, size_max);
        self.start_load(now, purpose, job, effects);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;
    const PEER: NodeId = NodeId(2);

    fn wanted(peer: NodeId) -> Chunk {
        Chunk::Peer {
            position: 0,
            peer,
            next: Index(1),
        }
    }

    /// A megabyte was given at 1 ms, while the journal is written to.
    fn owing() -> Chunks {
        let mut chunks = Chunks::new(Nanos(0));
        chunks.count(Nanos(MS), Lsn(4096), true);
        chunks.owed += 1 << 20;
        chunks.waiting.push_back(wanted(PEER));
        chunks
    }

    #[test]
    fn beside_appends_the_rate_holds() {
        let mut chunks = owing();
        let due = chunks.deadline().expect("somebody waits");
        // A megabyte of 64 MiB/s.
        assert_eq!(due, Nanos(MS + 1_000 * MS / 64 + 1).min(Nanos(11 * MS)));
        for ms in 2..=16 {
            chunks.count(Nanos(ms * MS), Lsn(4096), true);
            assert!(chunks.owed > 0, "at {ms} ms");
        }
        chunks.count(Nanos(17 * MS), Lsn(4096), true);
        assert_eq!(chunks.owed, 0);
    }

    #[test]
    fn what_the_journal_takes_counts_twice() {
        let mut chunks = owing();
        chunks.count(Nanos(2 * MS), Lsn(4096 + (256 << 10)), false);
        let by_time = CATCH_UP_RATE_MAX / 1_000;
        assert_eq!(chunks.owed, (1 << 20) - (512 << 10) - by_time);
        chunks.count(Nanos(2 * MS), Lsn(4096 + (512 << 10)), false);
        assert_eq!(chunks.owed, 0);
    }

    #[test]
    fn a_shard_at_rest_owes_nothing() {
        let mut chunks = owing();
        chunks.count(Nanos(10 * MS), Lsn(4096), false);
        assert!(chunks.owed > 0);
        assert_eq!(chunks.deadline(), Some(Nanos(11 * MS)));
        chunks.count(Nanos(11 * MS), Lsn(4096), false);
        assert_eq!(chunks.owed, 0);
    }

    #[test]
    fn a_peer_with_much_on_its_way_lets_others_pass() {
        let mut chunks = Chunks::new(Nanos(0));
        chunks.sent.push(Sent {
            position: 0,
            peer: PEER,
            last: Index(9),
            size: CATCH_UP_WINDOW_SIZE,
            at: Nanos(MS),
        });
        chunks.waiting.push_back(wanted(PEER));
        assert!(chunks.take().is_none());
        assert_eq!(chunks.deadline(), Some(Nanos(MS).after(LOST_AFTER)));
        chunks.waiting.push_back(wanted(NodeId(3)));
        assert_eq!(chunks.deadline(), Some(Nanos(0)));
        let taken = chunks.take().expect("the other one's");
        assert!(matches!(taken, Chunk::Peer { peer, .. } if peer == NodeId(3)));
    }
}
