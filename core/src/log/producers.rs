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

use std::collections::VecDeque;

use super::block::{AppendHeader, Block};
use super::producer_table::Note;
pub use super::producer_table::{ProducerRefusal, ProducerTable, Verdict};
use crate::id::{Epoch, Index, Offset, ProducerId, Sequence, Term};

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
            // A trim has no producer.
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

    /// The table as of `index`, for a checkpoint there, which is settled with it.
    pub fn snapshot_at(&mut self, index: Index) -> ProducerTable {
        self.settle_through(index);
        self.base.clone()
    }

    /// Moves the base up to `index`: later snapshots are there or above, and all up to there counts
    /// as committed from here on.
    pub fn settle_through(&mut self, index: Index) {
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
    }
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;

    use super::super::item::ItemError;
    use super::super::producer_table::judge_first;
    use super::*;
    use crate::limits::{PRODUCER_COUNT_MAX, PRODUCER_WINDOW};
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
    #[derive(Clone, Default)]
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

    /// Judges every append of two producers, two lives, and few sequences; then goes on behind each
    /// that is accepted, and behind each cut, `depth` appends deep. Returns the judgements made.
    fn try_all(producers: &Producers, model: &Model, sequence_max: u64, depth: u32) -> u64 {
        let mut judged_count = 0;
        let next_index = Index(model.log.len() as u64 + 1);
        let term = Term(1 + u64::from(depth & 1));
        let offset = model.log.last().map_or(0, |(_, _, last, offset)| {
            offset.0 + u64::from(last.record_count)
        });
        for bits in 0..8 * (sequence_max + 1) {
            let (producer, epoch, count) = (bits & 1, (bits >> 1 & 1) as u32, 1 + (bits >> 2 & 1));
            let asked = header(producer, epoch, bits >> 3, count as u32);
            let verdict = judge(producers, &asked);
            assert_eq!(verdict, model.judge(&asked), "{asked:?} on {:?}", model.log);
            judged_count += 1;
            if verdict != Verdict::Accept || depth == 0 {
                continue;
            }
            let (mut longer, mut longer_model) = (producers.clone(), model.clone());
            longer.note(next_index, term, &asked, Offset(offset));
            let noted = (next_index, term, asked, Offset(offset));
            longer_model.log.push(noted);
            judged_count += try_all(&longer, &longer_model, sequence_max, depth - 1);
            longer.truncate_from(next_index);
            assert_eq!(longer.latest, producers.latest, "a cut undoes");
        }
        judged_count
    }

    #[test]
    fn every_short_log_is_judged_as_by_a_look_through_all_of_it() {
        let (fresh, mut full) = (Producers::default(), Producers::default());
        assert!(try_all(&fresh, &Model::default(), 4, 4) > 40_000);
        // One append short of a whole window: what follows pushes the oldest out.
        let mut model = Model::default();
        for sequence in 0..PRODUCER_WINDOW as u64 - 1 {
            let asked = header(0, 0, sequence, 1);
            let index = Index(sequence + 1);
            full.note(index, Term(1), &asked, Offset(sequence));
            model.log.push((index, Term(1), asked, Offset(sequence)));
        }
        assert!(try_all(&full, &model, 11, 3) > 40_000);
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
