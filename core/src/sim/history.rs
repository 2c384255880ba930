//! What clients sent, were told and saw, and whether that can all be true of one log.
//!
//! A record says who made it, so that each can be judged by itself. Knows no Raft; the committed
//! blocks come from the oracle.

use std::collections::BTreeMap;

use super::chance::mixed;
use super::linear::Linear;
use super::oracle::{Committed, Oracle};
use crate::log::block::{Append, AppendHeader, Block, records};

/// Bytes of a record that say what it is.
pub(super) const RECORD_SIZE_MIN: usize = 24;

/// A producer's life.
pub(super) type Life = (u64, u32);

#[derive(Clone, Copy, Debug)]
struct Sent {
    record_count: u32,
    /// Counts appends of this number that were given up after a refusal.
    version: u32,
    /// Of the first record, once a producer was told.
    offset: Option<u64>,
    asked_at: u64,
}

/// All that clients know.
#[derive(Debug, Default)]
pub(super) struct History {
    /// Appends by the first record's sequence, for each life.
    lives: BTreeMap<Life, BTreeMap<u64, Sent>>,
    /// By group: all records below are known to somebody to be committed.
    known_ends: Vec<u64>,
    /// By group: no record below is kept, as somebody knows who asked for that.
    known_starts: Vec<u64>,
    /// By group: what its records' moments may be.
    linear: Vec<Linear>,
    /// Counts questions and answers.
    moment: u64,
}

/// Puts the bytes of one record where others were.
pub(super) fn put_record(
    bytes: &mut Vec<u8>,
    life: Life,
    version: u32,
    sequence: u64,
    size: usize,
) {
    bytes.clear();
    bytes.extend_from_slice(&life.0.to_le_bytes());
    bytes.extend_from_slice(&life.1.to_le_bytes());
    bytes.extend_from_slice(&version.to_le_bytes());
    bytes.extend_from_slice(&sequence.to_le_bytes());
    let mut word = mixed(life.0 ^ sequence << 20 ^ u64::from(version) << 50);
    while bytes.len() < size {
        let left = (size - bytes.len()).min(8);
        bytes.extend_from_slice(&word.to_le_bytes()[..left]);
        word = word.rotate_left(9) ^ 0x9e37_79b9_7f4a_7c15;
    }
}

impl History {
    pub(super) fn new(group_count: usize) -> Self {
        Self {
            known_ends: vec![0; group_count],
            known_starts: vec![0; group_count],
            linear: vec![Linear::new(); group_count],
            ..Self::default()
        }
    }

    /// The next moment: every question and every answer has one of its own.
    pub(super) fn moment(&mut self) -> u64 {
        self.moment += 1;
        self.moment
    }

    /// A producer made an append, or made it anew after a refusal.
    pub(super) fn on_made(&mut self, life: Life, sequence: u64, record_count: u32, version: u32) {
        let sent = Sent {
            record_count,
            version,
            offset: None,
            asked_at: self.moment(),
        };
        let before = self.lives.entry(life).or_default().insert(sequence, sent);
        if let Some(before) = before {
            assert!(
                before.offset.is_none(),
                "a producer replaces what was acknowledged"
            );
        }
    }

    /// A producer was told that an append is committed. True if it was told so before.
    pub(super) fn on_acked(
        &mut self,
        group: usize,
        life: Life,
        sequence: u64,
        offset: u64,
        committed: &[Committed],
    ) -> bool {
        let told_at = self.moment();
        let sent = self
            .lives
            .get_mut(&life)
            .and_then(|sent| sent.get_mut(&sequence));
        let sent = sent.expect("only what was sent is acknowledged");
        let end = offset + u64::from(sent.record_count);
        let committed_end = committed.last().map_or(0, |last| last.end_offset);
        assert!(
            end <= committed_end,
            "acknowledged at {offset} and not committed"
        );
        if let Some(before) = sent.offset {
            assert!(
                before == offset,
                "{life:?} {sequence} is at {before} and at {offset}"
            );
            return true;
        }
        sent.offset = Some(offset);
        let count = u64::from(sent.record_count);
        self.linear[group].on_told(offset, count, told_at);
        self.known_ends[group] = self.known_ends[group].max(end);
        false
    }

    /// What a linearizable read that begins now must see.
    pub(super) fn known_end(&self, group: usize) -> u64 {
        self.known_ends[group]
    }

    /// What a linearizable read that begins now must not see.
    pub(super) fn known_start(&self, group: usize) -> u64 {
        self.known_starts[group]
    }

    /// Somebody was told that the log is trimmed.
    pub(super) fn on_trimmed(&mut self, group: usize, start: u64) {
        self.known_starts[group] = self.known_starts[group].max(start);
    }

    /// A reader was told where the log ends.
    pub(super) fn on_end_seen(&mut self, group: usize, end: u64, committed: &[Committed]) {
        let committed_end = committed.last().map_or(0, |last| last.end_offset);
        assert!(
            end <= committed_end,
            "a reader is told of {end}, committed is {committed_end}"
        );
        self.known_ends[group] = self.known_ends[group].max(end);
        if let Some(last) = end.checked_sub(1) {
            let told_at = self.moment();
            self.linear[group].on_told(last, 1, told_at);
        }
    }

    /// A reader that wants to see all there is was told where the log ends.
    pub(super) fn on_end(&mut self, group: usize, end: u64, asked_at: u64) {
        let told_at = self.moment();
        self.linear[group].on_end(end, asked_at, told_at);
    }
}

/// Judges blocks that came to a reader at `from`, and says where they end.
pub(super) fn judge_blocks(group: u32, from: u64, payload: &[u8], committed: &[Committed]) -> u64 {
    let mut next: Option<(u64, u64)> = None;
    let mut at = 0;
    while at < payload.len() {
        let block = Block::check(&payload[at..]).expect("a reader gets whole blocks");
        let header = block.header();
        assert!(header.group.0 == group, "a block of another log");
        if let Some((index, offset)) = next {
            assert!(header.index.0 == index, "blocks come without gaps");
            assert!(header.first_offset.0 == offset, "offsets come without gaps");
        } else {
            assert!(
                header.first_offset.0 <= from,
                "the first block begins behind what was asked"
            );
        }
        let known = committed.get(header.index.0 as usize - 1);
        let is_true = known.is_some_and(|known| known.sum == header.sum);
        assert!(
            is_true,
            "a reader gets a block at {} that is not committed",
            header.index
        );
        next = Some((header.index.0 + 1, header.next_offset().0));
        at += block.bytes().len();
    }
    let end = next.map_or(from, |(_, offset)| offset);
    assert!(at == 0 || end > from, "blocks hold what was asked");
    end
}

/// One whole reading of one replica's log.
#[derive(Debug)]
pub(super) struct Audit {
    group: usize,
    next_index: u64,
    next_offset: u64,
    /// Records below are gone, as it was told.
    start: u64,
    /// Each producer's life and next sequence, in the order of the log.
    producers: BTreeMap<u64, (u32, u64)>,
    ends: BTreeMap<Life, u64>,
    /// When what stands in the log was asked for: offset, records, moment.
    asked: Vec<(u64, u32, u64)>,
    /// Memory for the record that is expected next.
    expected: Vec<u8>,
}

impl Audit {
    pub(super) fn new(group: usize) -> Self {
        Self {
            group,
            next_index: 1,
            next_offset: 0,
            start: 0,
            producers: BTreeMap::new(),
            ends: BTreeMap::new(),
            asked: Vec::new(),
            expected: Vec::new(),
        }
    }

    /// Offset of the first record that is neither seen nor gone.
    pub(super) fn next_offset(&self) -> u64 {
        self.next_offset.max(self.start)
    }

    /// The log begins there now; it may have no record any more.
    pub(super) fn on_start(&mut self, start: u64, oracle: &Oracle, history: &History) {
        assert!(start > self.next_offset(), "told of what it did not ask");
        self.start = start;
        if start == oracle.end_offset(self.group) {
            self.skip_to(start, oracle, history);
        }
    }

    /// What lies below an offset is gone: what stood there is known from when it was decided.
    fn skip_to(&mut self, offset: u64, oracle: &Oracle, history: &History) {
        for (first, append) in oracle.past(self.group).between(self.next_offset, offset) {
            let life = (append.producer, append.epoch);
            let sent = self.on_append(life, append.sequence, append.record_count, history);
            self.asked
                .push((*first, append.record_count, sent.asked_at));
        }
        self.next_offset = offset;
    }

    /// Takes the next blocks.
    pub(super) fn on_blocks(&mut self, payload: &[u8], oracle: &Oracle, history: &History) {
        let committed = oracle.committed(self.group);
        let mut at = 0;
        let mut follower = None;
        while at < payload.len() {
            let block = Block::check(&payload[at..]).expect("a reader gets whole blocks");
            at += block.bytes().len();
            let header = block.header();
            let is_next = follower.replace(header.index.next());
            assert!(
                is_next.is_none_or(|index| header.index == index),
                "blocks come without gaps"
            );
            // No-ops may be skipped between answers: they have no offset to be asked for.
            assert!(header.index.0 >= self.next_index, "indexes go on");
            let begin = header.first_offset.0;
            if (self.next_offset + 1..=self.start).contains(&begin) {
                self.skip_to(begin, oracle, history);
            }
            assert!(
                header.first_offset.0 == self.next_offset,
                "offsets are dense"
            );
            let sum = committed
                .get(header.index.0 as usize - 1)
                .map(|known| known.sum);
            assert!(
                sum == Some(header.sum),
                "a replica has another block at {}",
                header.index
            );
            let records = block.appends().filter(|_| block.trim().is_none());
            for append in records {
                let life = (append.header.producer.0, append.header.epoch.0);
                let sequence = append.header.sequence.0;
                let sent = self.on_append(life, sequence, append.header.record_count, history);
                self.check_records(&append, sent.version);
                let offset = append.first_offset.0;
                self.asked.push((offset, sent.record_count, sent.asked_at));
                if let Some(offset) = sent.offset {
                    assert!(
                        offset == append.first_offset.0,
                        "{life:?} {sequence} has moved"
                    );
                }
            }
            assert!(
                self.next_offset == header.next_offset().0,
                "a block holds what it says"
            );
            self.next_index = header.index.0 + 1;
        }
    }

    /// Exactly once and in order, for each producer.
    fn on_append(
        &mut self,
        life: Life,
        sequence: u64,
        record_count: u32,
        history: &History,
    ) -> Sent {
        let sent = history
            .lives
            .get(&life)
            .and_then(|sent| sent.get(&sequence));
        let Some(sent) = sent else {
            panic!("{life:?} {sequence} was never sent")
        };
        assert!(
            sent.record_count == record_count,
            "an append changed its shape"
        );
        let (epoch, next) = self.producers.entry(life.0).or_insert((life.1, 0));
        assert!(life.1 >= *epoch, "a fenced life of {life:?} appends");
        if life.1 > *epoch {
            (*epoch, *next) = (life.1, 0);
        }
        assert!(
            sequence == *next,
            "{life:?} goes on with {sequence} after {next}"
        );
        *next += u64::from(record_count);
        self.ends.insert(life, *next);
        *sent
    }

    fn check_records(&mut self, append: &Append<'_>, version: u32) {
        let AppendHeader {
            producer,
            epoch,
            sequence,
            record_count,
            ..
        } = append.header;
        let life = (producer.0, epoch.0);
        assert!(
            append.first_offset.0 == self.next_offset,
            "offsets are dense"
        );
        let found = records(append.payload, record_count).expect("a block that was checked");
        for (sequence, bytes) in (sequence.0..).zip(found) {
            put_record(&mut self.expected, life, version, sequence, bytes.len());
            assert!(
                bytes == self.expected,
                "{life:?} {sequence} is not what was sent"
            );
            self.next_offset += 1;
        }
    }

    /// Everything was read: nothing acknowledged is missing, and all that clients were told can have
    /// happened at single moments in the order of this log.
    pub(super) fn finish(&self, history: &History, group_of: impl Fn(u64) -> usize) {
        let mut linear = history.linear[self.group].clone();
        for (offset, count, asked_at) in &self.asked {
            linear.on_asked(*offset, u64::from(*count), *asked_at);
        }
        if let Err(contradiction) = linear.judge(self.next_offset) {
            panic!("what clients were told is not linearizable: {contradiction:?}");
        }
        for (life, sent) in &history.lives {
            if group_of(life.0) != self.group {
                continue;
            }
            let end = self.ends.get(life).copied().unwrap_or(0);
            let acked = sent.iter().rev().find(|(_, sent)| sent.offset.is_some());
            if let Some((sequence, _)) = acked {
                assert!(
                    *sequence < end,
                    "{life:?} {sequence} was acknowledged and is lost"
                );
            }
        }
    }
}
