//! The producers as of one index of a log: who they are, and the last appends of each.
//!
//! A function of the log's appends alone, in order. Keeps its own bytes in a checkpoint. Knows
//! nothing of what may still be cut; that is `producers`.

use std::collections::BTreeMap;

use bytes::{BufMut, BytesMut};

use super::block::AppendHeader;
use super::fields::{u32_at, u64_at};
use super::item::ItemError;
use crate::bugs::{self, Switch};
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
    /// The producer is new, or was forgotten for its silence, and does not begin at sequence 0.
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
pub(super) struct Producer {
    epoch: Epoch,
    /// Sequence after the last record.
    pub(super) next: Sequence,
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
            if bugs::is_on(Switch::B71) {
                return Verdict::Accept;
            }
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
        if sequence > self.next || bugs::is_on(Switch::B69) {
            return Verdict::Refuse(ProducerRefusal::Gap {
                expected: self.next,
            });
        }
        if sequence < self.window()[0].sequence {
            if bugs::is_on(Switch::B73) {
                return Verdict::Accept;
            }
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
pub(super) fn judge_first(sequence: Sequence, refusal: ProducerRefusal) -> Verdict {
    if sequence == Sequence(0) {
        Verdict::Accept
    } else {
        Verdict::Refuse(refusal)
    }
}

/// The producers as of one index of the log: a pure function of the appends up to there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProducerTable {
    pub(super) producers: BTreeMap<ProducerId, Producer>,
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

    pub(super) fn apply(&mut self, note: &Note) {
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

    pub(super) fn judge(
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
