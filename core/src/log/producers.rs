//! What a group remembers of its producers, so that a retried append is recognised and not stored
//! twice.
//!
//! A table is a function of the log's appends alone, so that every replica, and a replica that
//! restarted from a checkpoint, judges alike. Knows no clock and no connection. Hop *block* of the
//! data path.
//!
//! ```text
//!   log    ──────────────┬───────────────────────────────┬─────────▶
//!                  base_index                         last note
//!   base   ──────────────┘  table as of base_index: goes into checkpoints
//!   overlay                 ├─ every append above ───────┤
//!   latest ──────────────────────────────────────────────┘  base + overlay: what judges
//! ```
//! A truncation drops the end of the overlay and builds `latest` again; that costs a walk over the
//! overlay, and happens only when a leader's unfinished work is overruled.

use std::collections::{BTreeMap, VecDeque};

use bytes::{BufMut, BytesMut};

use super::block::{AppendHeader, Block};
use super::fields::{u32_at, u64_at};
use super::item::ItemError;
use crate::id::{Epoch, Index, Offset, ProducerId, Sequence, Term};
use crate::limits::{APPEND_RECORD_COUNT_MAX, PRODUCER_COUNT_MAX, PRODUCER_WINDOW};

/// Bytes of a producer in a checkpoint, its window not counted.
pub(super) const PRODUCER_SIZE: usize = 24;
/// Bytes of one append in a producer's window in a checkpoint.
pub(super) const NOTED_SIZE: usize = 20;

/// What becomes of an append.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is the producer's next one.
    Accept,
    /// It was stored before, here. It may not be committed yet.
    Duplicate {
        /// Index of the block that holds it.
        index: Index,
        /// Offset of its first record.
        first_offset: Offset,
        /// Term of that block.
        term: Term,
    },
    /// It can never be stored as it is.
    Refuse(ProducerRefusal),
}

/// Why an append can never be stored as it is. The client is at fault; nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProducerRefusal {
    /// Records before it are missing: the next sequence is `expected`.
    Gap {
        /// The sequence that would be accepted.
        expected: Sequence,
    },
    /// A later life of the same producer has appended.
    Fenced {
        /// That life's epoch.
        newest: Epoch,
    },
    /// It was stored, or never will be: it lies before the window that is remembered.
    TooOld,
    /// The producer is new, or was forgotten for its long silence, and does not begin at sequence 0.
    Unknown,
    /// The window holds its records in other portions: a retry must repeat the append as it was.
    Reshaped,
}

/// One append remembered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Noted {
    sequence: Sequence,
    record_count: u32,
    index: Index,
    term: Term,
    first_offset: Offset,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Producer {
    epoch: Epoch,
    /// Sequence after the last record.
    next: Sequence,
    /// Its last appends, oldest first, without gaps in sequence, the last ending at `next`. Never
    /// empty.
    window: [Noted; PRODUCER_WINDOW],
    count: usize,
}

impl Producer {
    fn new(epoch: Epoch, noted: Noted) -> Self {
        let mut producer = Self {
            epoch,
            next: noted.sequence,
            window: Default::default(),
            count: 0,
        };
        producer.push(noted);
        producer
    }

    fn push(&mut self, noted: Noted) {
        assert_eq!(noted.sequence, self.next, "a window has no gaps");
        if self.count == PRODUCER_WINDOW {
            self.window.rotate_left(1);
            self.count -= 1;
        }
        self.window[self.count] = noted;
        self.count += 1;
        // Saturating: a log handed over by a peer may hold anything that its sums vouch for.
        self.next = Sequence(
            noted
                .sequence
                .0
                .saturating_add(u64::from(noted.record_count)),
        );
    }

    fn window(&self) -> &[Noted] {
        &self.window[..self.count]
    }

    /// Offset of its newest append: who has the lowest is silent for longest. Offsets are unique,
    /// so there is never a tie for replicas to break differently.
    fn newest(&self) -> Offset {
        self.window[self.count - 1].first_offset
    }

    fn judge(&self, epoch: Epoch, sequence: Sequence, record_count: u32) -> Verdict {
        if epoch < self.epoch {
            return Verdict::Refuse(ProducerRefusal::Fenced { newest: self.epoch });
        }
        if epoch > self.epoch {
            return judge_first(
                sequence,
                ProducerRefusal::Gap {
                    expected: Sequence(0),
                },
            );
        }
        if sequence == self.next {
            return Verdict::Accept;
        }
        if sequence > self.next {
            return Verdict::Refuse(ProducerRefusal::Gap {
                expected: self.next,
            });
        }
        if sequence < self.window()[0].sequence {
            return Verdict::Refuse(ProducerRefusal::TooOld);
        }
        let same =
            |noted: &&Noted| noted.sequence == sequence && noted.record_count == record_count;
        match self.window().iter().find(same) {
            Some(&Noted {
                index,
                first_offset,
                term,
                ..
            }) => Verdict::Duplicate {
                index,
                first_offset,
                term,
            },
            None => Verdict::Refuse(ProducerRefusal::Reshaped),
        }
    }
}

/// A life of a producer begins at sequence 0, else the records before it are lost.
fn judge_first(sequence: Sequence, refusal: ProducerRefusal) -> Verdict {
    if sequence == Sequence(0) {
        Verdict::Accept
    } else {
        Verdict::Refuse(refusal)
    }
}

/// The producers as of one index of the log: a pure function of the appends up to there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProducerTable {
    producers: BTreeMap<ProducerId, Producer>,
}

impl ProducerTable {
    /// Producers remembered.
    #[must_use]
    pub fn len(&self) -> usize {
        self.producers.len()
    }

    /// Whether nobody is remembered.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.producers.is_empty()
    }

    fn apply(&mut self, note: &Note) {
        let Note {
            producer,
            epoch,
            noted,
        } = *note;
        match self.producers.get_mut(&producer) {
            Some(known) if known.epoch == epoch && known.next == noted.sequence => {
                known.push(noted);
            }
            // A new life; or a gap, which no leader lets into a log: the window starts afresh.
            Some(known) => *known = Producer::new(epoch, noted),
            None => {
                if self.producers.len() == PRODUCER_COUNT_MAX {
                    self.forget_most_silent();
                }
                self.producers.insert(producer, Producer::new(epoch, noted));
            }
        }
        assert!(
            self.producers.len() <= PRODUCER_COUNT_MAX,
            "the table is bounded"
        );
    }

    fn forget_most_silent(&mut self) {
        let silent = self
            .producers
            .iter()
            .min_by_key(|(_, producer)| producer.newest());
        let silent = *silent.expect("a full table").0;
        self.producers.remove(&silent);
    }

    fn judge(
        &self,
        producer: ProducerId,
        epoch: Epoch,
        sequence: Sequence,
        record_count: u32,
    ) -> Verdict {
        match self.producers.get(&producer) {
            Some(known) => known.judge(epoch, sequence, record_count),
            None => judge_first(sequence, ProducerRefusal::Unknown),
        }
    }

    /// Bytes of the table in a checkpoint.
    pub(super) fn encoded_size(&self) -> usize {
        let appends: usize = self.producers.values().map(|producer| producer.count).sum();
        self.producers.len() * PRODUCER_SIZE + appends * NOTED_SIZE
    }

    /// Writes the table as of (`index`, `term`). Indexes and terms go as distances back from there,
    /// cut off at 32 bits: what lies further back is known to be committed all the same.
    pub(super) fn encode(&self, index: Index, term: Term, out: &mut BytesMut) {
        for (id, producer) in &self.producers {
            out.put_u64_le(id.0);
            out.put_u64_le(producer.next.0);
            out.put_u32_le(producer.epoch.0);
            out.put_u32_le(producer.count as u32);
            for noted in producer.window() {
                assert!(
                    noted.index <= index && noted.term <= term,
                    "a table as of its index"
                );
                out.put_u64_le(noted.first_offset.0);
                out.put_u32_le(noted.record_count);
                out.put_u32_le(back(index.0, noted.index.0));
                out.put_u32_le(back(term.0, noted.term.0));
            }
        }
    }

    /// Reads a table of `count` producers as of (`index`, `term`), and says how many bytes it took.
    pub(super) fn decode(
        bytes: &[u8],
        count: usize,
        index: Index,
        term: Term,
    ) -> Result<(Self, usize), ItemError> {
        if count > PRODUCER_COUNT_MAX {
            return Err(ItemError::Contradiction);
        }
        let mut table = Self::default();
        let mut at = 0;
        for _ in 0..count {
            let Some(head) = bytes.get(at..at + PRODUCER_SIZE) else {
                return Err(ItemError::Truncated);
            };
            let id = ProducerId(u64_at(head, 0));
            let window_count = u32_at(head, 20) as usize;
            if !(1..=PRODUCER_WINDOW).contains(&window_count) {
                return Err(ItemError::Contradiction);
            }
            at += PRODUCER_SIZE;
            let Some(window) = bytes.get(at..at + window_count * NOTED_SIZE) else {
                return Err(ItemError::Truncated);
            };
            at += window.len();
            let mut producer = Producer {
                epoch: Epoch(u32_at(head, 16)),
                next: Sequence(u64_at(head, 8)),
                window: Default::default(),
                count: window_count,
            };
            decode_window(window, &mut producer, index, term)?;
            let ascending = table
                .producers
                .last_key_value()
                .is_none_or(|(last, _)| *last < id);
            if !ascending {
                return Err(ItemError::Contradiction);
            }
            table.producers.insert(id, producer);
        }
        Ok((table, at))
    }
}

/// Reads a window from its newest append to its oldest: each sequence is the one after it less its
/// own records, which is why sequences are not written.
fn decode_window(
    bytes: &[u8],
    producer: &mut Producer,
    index: Index,
    term: Term,
) -> Result<(), ItemError> {
    let mut next = producer.next.0;
    for (position, bytes) in bytes.chunks_exact(NOTED_SIZE).enumerate().rev() {
        let record_count = u32_at(bytes, 8);
        if record_count == 0 || record_count as usize > APPEND_RECORD_COUNT_MAX {
            return Err(ItemError::Contradiction);
        }
        let sequence = next.checked_sub(u64::from(record_count));
        let index = index.0.checked_sub(u64::from(u32_at(bytes, 12)));
        let term = term.0.checked_sub(u64::from(u32_at(bytes, 16)));
        let (Some(sequence), Some(index), Some(term)) = (sequence, index, term) else {
            return Err(ItemError::Contradiction);
        };
        producer.window[position] = Noted {
            sequence: Sequence(sequence),
            record_count,
            index: Index(index),
            term: Term(term),
            first_offset: Offset(u64_at(bytes, 0)),
        };
        next = sequence;
    }
    Ok(())
}

fn back(from: u64, to: u64) -> u32 {
    u32::try_from(from - to).unwrap_or(u32::MAX)
}

/// An append above the base.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Note {
    producer: ProducerId,
    epoch: Epoch,
    noted: Noted,
}

impl Note {
    pub(super) fn new(
        index: Index,
        term: Term,
        header: &AppendHeader,
        first_offset: Offset,
    ) -> Self {
        Self {
            producer: header.producer,
            epoch: header.epoch,
            noted: Noted {
                sequence: header.sequence,
                record_count: header.record_count,
                index,
                term,
                first_offset,
            },
        }
    }

    pub(super) fn index(&self) -> Index {
        self.noted.index
    }
}

/// The producers of a group, from its last checkpoint to the end of its log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Producers {
    base: ProducerTable,
    base_index: Index,
    /// Appends above `base_index` in log order. Bounded by what the journal may hold of the group.
    overlay: VecDeque<Note>,
    /// `base` with all of `overlay` applied.
    latest: ProducerTable,
    /// Known committed: never truncated. At least `base_index`.
    committed: Index,
}

impl Producers {
    /// The producers of a log that begins above `index`, with `table` as of there.
    #[must_use]
    pub fn new(table: ProducerTable, index: Index) -> Self {
        Self {
            latest: table.clone(),
            base: table,
            base_index: index,
            overlay: VecDeque::new(),
            committed: index,
        }
    }

    /// What becomes of an append whose first record has `sequence`.
    #[must_use]
    pub fn judge(
        &self,
        producer: ProducerId,
        epoch: Epoch,
        sequence: Sequence,
        record_count: u32,
    ) -> Verdict {
        self.latest.judge(producer, epoch, sequence, record_count)
    }

    /// Remembers an append put into the block at `index`. Called on every replica, in log order.
    pub fn note(&mut self, index: Index, term: Term, header: &AppendHeader, first_offset: Offset) {
        self.push(Note::new(index, term, header, first_offset));
    }

    /// Remembers every append of a block.
    pub fn note_block(&mut self, block: &Block<'_>) {
        for append in block.appends() {
            // Configurations have no producer.
            if append.header.record_count > 0 {
                let header = block.header();
                self.note(
                    header.index,
                    header.term,
                    &append.header,
                    append.first_offset,
                );
            }
        }
    }

    pub(super) fn push(&mut self, note: Note) {
        assert!(
            note.index() > self.base_index,
            "the base has seen it already"
        );
        if let Some(last) = self.overlay.back() {
            assert!(
                note.index() >= last.index(),
                "appends are noted in log order"
            );
        }
        self.latest.apply(&note);
        self.overlay.push_back(note);
    }

    /// Forgets the appends of the block at `index` and of all above.
    pub fn truncate_from(&mut self, index: Index) {
        assert!(index > self.committed, "what is committed is never cut");
        let count = self.overlay.partition_point(|note| note.index() < index);
        if count == self.overlay.len() {
            return;
        }
        self.overlay.truncate(count);
        self.latest.clone_from(&self.base);
        for note in &self.overlay {
            self.latest.apply(note);
        }
    }

    /// Learns that all through `index` is committed and will never be truncated.
    pub fn commit_through(&mut self, index: Index) {
        self.committed = self.committed.max(index);
    }

    /// The table as of `index`, for a checkpoint there. Moves the base up: later snapshots are at
    /// `index` or above, and `index` counts as committed from here on.
    pub fn snapshot_at(&mut self, index: Index) -> ProducerTable {
        assert!(index >= self.base_index, "the base has moved past it");
        while self
            .overlay
            .front()
            .is_some_and(|note| note.index() <= index)
        {
            let note = self.overlay.pop_front().expect("seen just now");
            self.base.apply(&note);
        }
        self.base_index = index;
        self.commit_through(index);
        self.base.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::test_rng::Rng;

    fn header(producer: u64, epoch: u32, sequence: u64, record_count: u32) -> AppendHeader {
        AppendHeader {
            payload_sum: 0,
            payload_size: 0,
            producer: ProducerId(producer),
            sequence: Sequence(sequence),
            epoch: Epoch(epoch),
            record_count,
        }
    }

    fn judge(producers: &Producers, header: &AppendHeader) -> Verdict {
        producers.judge(
            header.producer,
            header.epoch,
            header.sequence,
            header.record_count,
        )
    }

    /// The whole log, and verdicts by looking through all of it.
    #[derive(Default)]
    struct Model {
        log: Vec<(Index, Term, AppendHeader, Offset)>,
    }

    impl Model {
        fn remembered(&self) -> Vec<ProducerId> {
            let mut ids: Vec<ProducerId> = Vec::new();
            for (_, _, header, _) in &self.log {
                // Kept in order of last use: who is used moves to the end, the first is forgotten.
                if let Some(at) = ids.iter().position(|id| *id == header.producer) {
                    ids.remove(at);
                } else if ids.len() == PRODUCER_COUNT_MAX {
                    ids.remove(0);
                }
                ids.push(header.producer);
            }
            ids
        }

        fn judge(&self, asked: &AppendHeader) -> Verdict {
            let refuse = Verdict::Refuse;
            let own = |entry: &&(_, _, AppendHeader, _)| entry.2.producer == asked.producer;
            let known = self.remembered().contains(&asked.producer);
            let Some((_, _, last, _)) = self.log.iter().rfind(own).filter(|_| known) else {
                return judge_first(asked.sequence, ProducerRefusal::Unknown);
            };
            if asked.epoch < last.epoch {
                return refuse(ProducerRefusal::Fenced { newest: last.epoch });
            }
            if asked.epoch > last.epoch {
                let gap = ProducerRefusal::Gap {
                    expected: Sequence(0),
                };
                return judge_first(asked.sequence, gap);
            }
            let next = Sequence(last.sequence.0 + u64::from(last.record_count));
            if asked.sequence == next {
                return Verdict::Accept;
            }
            if asked.sequence > next {
                return refuse(ProducerRefusal::Gap { expected: next });
            }
            let life = self
                .log
                .iter()
                .filter(own)
                .filter(|entry| entry.2.epoch == last.epoch);
            let mut window: Vec<_> = life.collect();
            window.drain(..window.len().saturating_sub(PRODUCER_WINDOW));
            if asked.sequence < window[0].2.sequence {
                return refuse(ProducerRefusal::TooOld);
            }
            let same = |entry: &&&(_, _, AppendHeader, _)| {
                (entry.2.sequence, entry.2.record_count) == (asked.sequence, asked.record_count)
            };
            match window.iter().find(same) {
                Some((index, term, _, first_offset)) => Verdict::Duplicate {
                    index: *index,
                    first_offset: *first_offset,
                    term: *term,
                },
                None => refuse(ProducerRefusal::Reshaped),
            }
        }
    }

    #[test]
    fn random_operations_agree_with_a_look_through_the_whole_log() {
        for seed in 0..60 {
            let mut rng = Rng::new(seed);
            let mut producers = Producers::default();
            let mut model = Model::default();
            let (mut index, mut base, mut offset, mut term) = (Index(1), Index(0), 0, 1);
            for _ in 0..400 {
                let mut asked = header(
                    rng.below(4),
                    rng.below(3) as u32,
                    0,
                    1 + rng.below(3) as u32,
                );
                // Half of them right on: the next in the newest life.
                let last = model
                    .log
                    .iter()
                    .rfind(|entry| entry.2.producer == asked.producer);
                asked.sequence = Sequence(rng.below(12));
                if let Some((_, _, last, _)) = last.filter(|_| rng.chance(2)) {
                    asked.epoch = last.epoch;
                    asked.sequence = Sequence(last.sequence.0 + u64::from(last.record_count));
                }
                let verdict = judge(&producers, &asked);
                assert_eq!(verdict, model.judge(&asked), "seed {seed}: {asked:?}");
                if verdict == Verdict::Accept {
                    producers.note(index, Term(term), &asked, Offset(offset));
                    model.log.push((index, Term(term), asked, Offset(offset)));
                    offset += u64::from(asked.record_count);
                }
                match rng.below(20) {
                    0..8 => index = index.next(),
                    8 => {
                        let from = Index(base.0 + 1 + rng.below(index.0 - base.0));
                        producers.truncate_from(from);
                        model.log.retain(|entry| entry.0 < from);
                        index = from;
                        term += 1;
                    }
                    9 => {
                        base = Index(base.0 + rng.below(index.0 - base.0));
                        let table = producers.snapshot_at(base);
                        // A replica that starts from here judges alike.
                        let mut other = Producers::new(table, base);
                        for (index, term, header, offset) in &model.log {
                            if *index > base {
                                other.note(*index, *term, header, *offset);
                            }
                        }
                        assert_eq!(other.latest, producers.latest);
                    }
                    _ => {}
                }
            }
        }
    }

    #[test]
    fn the_most_silent_is_forgotten_first() {
        let mut producers = Producers::default();
        for id in 0..PRODUCER_COUNT_MAX as u64 {
            producers.note(Index(1), Term(1), &header(id, 0, 0, 1), Offset(id));
        }
        producers.note(Index(2), Term(1), &header(0, 0, 1, 1), Offset(1000));
        producers.note(Index(3), Term(1), &header(9999, 0, 0, 1), Offset(1001));
        let unknown = Verdict::Refuse(ProducerRefusal::Unknown);
        assert_eq!(judge(&producers, &header(1, 0, 1, 1)), unknown);
        assert_eq!(judge(&producers, &header(0, 0, 2, 1)), Verdict::Accept);
        // Cut, and the forgotten one is back.
        producers.truncate_from(Index(3));
        assert_eq!(judge(&producers, &header(1, 0, 1, 1)), Verdict::Accept);
    }

    #[test]
    fn a_table_comes_back_from_its_bytes_and_no_cut_of_them_passes() {
        let mut producers = Producers::default();
        let mut rng = Rng::new(1);
        for step in 0..50 {
            let id = rng.below(5);
            let known = producers.latest.producers.get(&ProducerId(id));
            let next = known.map_or(0, |producer| producer.next.0);
            let header = header(id, 1, next, 1 + rng.below(3) as u32);
            producers.note(
                Index(1 + step / 3),
                Term(2 + step / 20),
                &header,
                Offset(step * 10),
            );
        }
        let table = producers.snapshot_at(Index(20));
        let mut bytes = BytesMut::new();
        table.encode(Index(20), Term(9), &mut bytes);
        assert_eq!(bytes.len(), table.encoded_size());
        let decode = |bytes: &[u8]| ProducerTable::decode(bytes, table.len(), Index(20), Term(9));
        assert_eq!(decode(&bytes), Ok((table.clone(), bytes.len())));
        for size in 0..bytes.len() {
            assert_eq!(decode(&bytes[..size]), Err(ItemError::Truncated));
        }
        let many = ProducerTable::decode(&bytes, PRODUCER_COUNT_MAX + 1, Index(20), Term(9));
        assert_eq!(many, Err(ItemError::Contradiction));
        let below = ProducerTable::decode(&bytes, table.len(), Index(1), Term(9));
        assert_eq!(below, Err(ItemError::Contradiction));
    }

    #[test]
    fn the_end_of_all_sequences_is_no_panic() {
        let mut producers = Producers::default();
        let last = header(1, u32::MAX, u64::MAX, 5);
        producers.note(Index(1), Term(1), &last, Offset(0));
        let refused = judge(&producers, &header(1, u32::MAX, u64::MAX - 1, 5));
        assert_eq!(refused, Verdict::Refuse(ProducerRefusal::TooOld));
    }
}
