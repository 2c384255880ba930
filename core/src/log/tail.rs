//! Headers of the blocks that Raft may still need: index, term, size, sum and place of each.
//!
//! Owned by Raft. Knows no payload, and no journal beyond the order of lsns. Hop *raft* of the data
//! path.

use std::collections::VecDeque;
use std::hash::{Hash, Hasher};

use super::Place;
use crate::id::{Index, Lsn, Offset, Term};

/// The block just below the tail's first: all up to it is decided and kept in segments.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Base {
    /// Its index; 0 when the group has no block below the tail.
    pub index: Index,
    /// Its term.
    pub term: Term,
    /// Its sum.
    pub sum: u32,
    /// Offset of the first record after it.
    pub next_offset: Offset,
}

/// One block's header, as far as consensus needs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Entry {
    /// Term in which a leader made it.
    pub term: Term,
    /// Bytes of the whole block.
    pub size: u32,
    /// Sum of its header and append headers.
    pub sum: u32,
    /// Where it was written.
    pub place: Place,
    /// Offset of its first record, or of the next one if it has none.
    pub first_offset: Offset,
    /// Records in it.
    pub record_count: u32,
}

impl Entry {
    /// Offset of the first record after it.
    #[must_use]
    pub fn next_offset(&self) -> Offset {
        Offset(self.first_offset.0 + u64::from(self.record_count))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Sized {
    entry: Entry,
    /// Bytes of all blocks ever pushed up to and including this one, so that the size of any
    /// stretch is one subtraction.
    size_through: u64,
}

/// The headers above the base, dense by index.
#[derive(Clone, Debug, Default)]
pub struct Tail {
    base: Base,
    /// `size_through` of the base.
    base_size: u64,
    /// `entries[i]` has index `base.index + 1 + i`. Terms and offsets never go down.
    entries: VecDeque<Sized>,
}

impl Tail {
    /// An empty tail above `base`.
    #[must_use]
    pub fn new(base: Base) -> Self {
        Self {
            base,
            base_size: 0,
            entries: VecDeque::new(),
        }
    }

    /// The block below the first entry.
    #[must_use]
    pub fn base(&self) -> Base {
        self.base
    }

    /// Index of the first entry, were there one.
    #[must_use]
    pub fn first_index(&self) -> Index {
        self.base.index.next()
    }

    /// Index of the last entry, or of the base.
    #[must_use]
    pub fn last_index(&self) -> Index {
        Index(self.base.index.0 + self.entries.len() as u64)
    }

    /// Term of the last entry, or of the base.
    #[must_use]
    pub fn last_term(&self) -> Term {
        self.last().map_or(self.base.term, |entry| entry.term)
    }

    /// Sum of the last entry, or of the base.
    #[must_use]
    pub fn last_sum(&self) -> u32 {
        self.last().map_or(self.base.sum, |entry| entry.sum)
    }

    /// Offset of the first record after the last entry.
    #[must_use]
    pub fn next_offset(&self) -> Offset {
        self.last()
            .map_or(self.base.next_offset, Entry::next_offset)
    }

    fn last(&self) -> Option<&Entry> {
        self.entries.back().map(|sized| &sized.entry)
    }

    /// Term of the block at `index`, the base included; none outside.
    #[must_use]
    pub fn term_at(&self, index: Index) -> Option<Term> {
        if index == self.base.index {
            return Some(self.base.term);
        }
        self.entry(index).map(|entry| entry.term)
    }

    /// What a tail that begins behind the block at `index` stands on, this one's base included; none
    /// outside.
    #[must_use]
    pub fn base_at(&self, index: Index) -> Option<Base> {
        if index == self.base.index {
            return Some(self.base);
        }
        self.entry(index).map(|entry| Base {
            index,
            term: entry.term,
            sum: entry.sum,
            next_offset: entry.next_offset(),
        })
    }

    /// The entry at `index`; none at or below the base and above the end.
    #[must_use]
    pub fn entry(&self, index: Index) -> Option<&Entry> {
        self.entries
            .get(self.position(index)?)
            .map(|sized| &sized.entry)
    }

    fn position(&self, index: Index) -> Option<usize> {
        let position = index.0.checked_sub(self.base.index.0)?.checked_sub(1)?;
        usize::try_from(position).ok()
    }

    /// Whether `entry` may stand behind the last one.
    pub(super) fn accepts(&self, entry: &Entry) -> bool {
        entry.term >= self.last_term() && entry.first_offset == self.next_offset()
    }

    /// Puts an entry at the end and says its index.
    pub fn push(&mut self, entry: Entry) -> Index {
        if let Some(last) = self.last() {
            assert!(
                entry.place.lsn >= last.place.lsn,
                "a later block is in no earlier run"
            );
        }
        self.push_recovered(entry)
    }

    /// As [`Tail::push`], for entries that recovery found: copies stand later than their followers.
    pub(super) fn push_recovered(&mut self, entry: Entry) -> Index {
        assert!(
            entry.term >= self.last_term(),
            "terms never go down in a log (thesis 3.5)"
        );
        assert_eq!(entry.first_offset, self.next_offset(), "offsets never skip");
        let size_through = self.size_through(self.entries.len()) + u64::from(entry.size);
        self.entries.push_back(Sized {
            entry,
            size_through,
        });
        self.last_index()
    }

    /// Cuts the entry at `index` and all above.
    pub fn truncate_from(&mut self, index: Index) {
        assert!(index > self.base.index, "what is in segments is never cut");
        assert!(index <= self.last_index().next(), "nothing there to cut");
        self.entries
            .truncate((index.0 - self.base.index.0 - 1) as usize);
    }

    /// Forgets the headers up to and including `index`: it becomes the base. Does nothing if the
    /// base is there or above already.
    pub fn release_through(&mut self, index: Index) {
        assert!(index <= self.last_index(), "only what exists is released");
        while self.base.index < index {
            let Sized {
                entry,
                size_through,
            } = self.entries.pop_front().expect("index is at most the last");
            self.base = Base {
                index: self.base.index.next(),
                term: entry.term,
                sum: entry.sum,
                next_offset: entry.next_offset(),
            };
            self.base_size = size_through;
        }
    }

    /// Says that the block at `index` stands at `place` too, and is to be read there. Only once the
    /// copy is durable: else a durable block would stop counting as one.
    pub fn set_place(&mut self, index: Index, place: Place) {
        let position = self.position(index).expect("a block above the base");
        let entry = &mut self.entries[position].entry;
        assert!(place.lsn >= entry.place.lsn, "copies are later");
        entry.place = place;
    }

    /// Highest index through which all is durable when the journal is durable below `durable`; the
    /// base's if nothing above is.
    #[must_use]
    pub fn durable_index(&self, durable: Lsn) -> Index {
        // Places of entries that are durable may stand in any order once copies were made, but
        // those that are not durable are the newest, so the durable ones still come first.
        let is_durable = |sized: &Sized| sized.entry.place.lsn < durable;
        let count = match self.entries.back() {
            // Most of the time nothing is under way.
            Some(last) if is_durable(last) => self.entries.len(),
            _ => self.entries.partition_point(is_durable),
        };
        Index(self.base.index.0 + count as u64)
    }

    /// Index of the block that holds the record at `offset`; none below the base and beyond the
    /// end.
    #[must_use]
    pub fn index_of_offset(&self, offset: Offset) -> Option<Index> {
        if offset < self.base.next_offset || offset >= self.next_offset() {
            return None;
        }
        let count = self
            .entries
            .partition_point(|sized| sized.entry.next_offset() <= offset);
        Some(Index(self.base.index.0 + 1 + count as u64))
    }

    /// Bytes of the blocks above `after`, through `through`; what lies outside the tail counts
    /// nothing.
    #[must_use]
    pub fn size_between(&self, after: Index, through: Index) -> u64 {
        let end = |index: Index| {
            let count = index.0.saturating_sub(self.base.index.0);
            self.size_through(count.min(self.entries.len() as u64) as usize)
        };
        end(through).saturating_sub(end(after))
    }

    /// `size_through` of the last of the first `count` entries.
    fn size_through(&self, count: usize) -> u64 {
        assert!(count <= self.entries.len(), "no such entry");
        match count.checked_sub(1) {
            Some(position) => self.entries[position].size_through,
            None => self.base_size,
        }
    }

    /// The entries in order, each with its index.
    pub fn entries(&self) -> impl DoubleEndedIterator<Item = (Index, &Entry)> {
        let first = self.first_index().0;
        let indexed = self.entries.iter().enumerate();
        indexed.map(move |(position, sized)| (Index(first + position as u64), &sized.entry))
    }
}

impl PartialEq for Tail {
    /// Equal bases and entries: the bytes released before are no part of what a tail says.
    fn eq(&self, other: &Self) -> bool {
        self.base == other.base && self.entries().eq(other.entries())
    }
}

impl Eq for Tail {}

impl Hash for Tail {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.base.hash(state);
        self.entries.len().hash(state);
        self.entries().for_each(|(_, entry)| entry.hash(state));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::test_rng::Rng;

    /// All blocks by index, the slow and obvious way.
    struct Model {
        base: Base,
        entries: Vec<Entry>,
    }

    impl Model {
        fn at(&self, index: u64) -> Option<&Entry> {
            let position = index.checked_sub(self.base.index.0 + 1)?;
            self.entries.get(position as usize)
        }

        fn check(&self, tail: &Tail, durable: u64) {
            let last = self.base.index.0 + self.entries.len() as u64;
            assert_eq!(tail.last_index().0, last);
            assert_eq!(tail.base(), self.base);
            for index in 0..last + 3 {
                let mut term = self.at(index).map(|entry| entry.term);
                if index == self.base.index.0 {
                    term = Some(self.base.term);
                }
                assert_eq!(tail.term_at(Index(index)), term);
                assert_eq!(tail.entry(Index(index)), self.at(index));
                for through in index..last + 3 {
                    let size: u64 = (index + 1..=through)
                        .filter_map(|at| self.at(at))
                        .map(|entry| u64::from(entry.size))
                        .sum();
                    assert_eq!(tail.size_between(Index(index), Index(through)), size);
                }
            }
            let stored = self
                .entries
                .iter()
                .take_while(|entry| entry.place.lsn.0 < durable);
            let durable_index = self.base.index.0 + stored.count() as u64;
            assert_eq!(tail.durable_index(Lsn(durable)).0, durable_index);
            for offset in 0..tail.next_offset().0 + 2 {
                let holds =
                    |entry: &Entry| (entry.first_offset.0..entry.next_offset().0).contains(&offset);
                let position = self.entries.iter().position(holds);
                let index = position.map(|at| Index(self.base.index.0 + 1 + at as u64));
                assert_eq!(
                    tail.index_of_offset(Offset(offset)),
                    index,
                    "offset {offset}"
                );
            }
        }
    }

    #[test]
    fn random_operations_agree_with_a_plain_list() {
        for seed in 0..200 {
            let mut rng = Rng::new(seed);
            let mut tail = Tail::new(Base::default());
            let mut model = Model {
                base: Base::default(),
                entries: Vec::new(),
            };
            let (mut term, mut lsn) = (1, 0);
            for _ in 0..60 {
                match rng.below(10) {
                    0..6 => {
                        term += rng.below(2);
                        lsn += 4096 * rng.below(2);
                        let entry = Entry {
                            term: Term(term),
                            size: 64 + rng.below(200) as u32,
                            sum: rng.below(1 << 32) as u32,
                            place: Place {
                                lsn: Lsn(lsn),
                                offset: 64,
                            },
                            first_offset: tail.next_offset(),
                            record_count: rng.below(4) as u32,
                        };
                        model.entries.push(entry);
                        let index = tail.push(entry);
                        assert_eq!(tail.last_term(), Term(term));
                        assert_eq!(tail.last_sum(), entry.sum);
                        assert_eq!(index, tail.last_index());
                    }
                    6 | 7 => {
                        let keep = rng.below(model.entries.len() as u64 + 1);
                        model.entries.truncate(keep as usize);
                        tail.truncate_from(Index(model.base.index.0 + keep + 1));
                    }
                    _ => {
                        let count = rng.below(model.entries.len() as u64 + 1);
                        for entry in model.entries.drain(..count as usize) {
                            model.base = Base {
                                index: model.base.index.next(),
                                term: entry.term,
                                sum: entry.sum,
                                next_offset: entry.next_offset(),
                            };
                        }
                        tail.release_through(model.base.index);
                    }
                }
                model.check(&tail, rng.below(lsn + 8192));
            }
        }
    }

    #[test]
    fn a_copy_of_durable_blocks_keeps_them_durable() {
        let mut tail = Tail::new(Base::default());
        for lsn in [0, 4096, 8192, 40_960] {
            tail.push(Entry {
                term: Term(1),
                size: 64,
                sum: 0,
                place: Place {
                    lsn: Lsn(lsn),
                    offset: 64,
                },
                first_offset: Offset(0),
                record_count: 0,
            });
        }
        // Blocks 1 and 2 were written again at 32768, which is durable; block 3 was not yet.
        for index in [1, 2] {
            tail.set_place(
                Index(index),
                Place {
                    lsn: Lsn(32_768),
                    offset: 64,
                },
            );
            assert_eq!(tail.durable_index(Lsn(36_864)), Index(3));
        }
    }

    #[test]
    fn lookups_far_outside_find_nothing() {
        let tail = Tail::new(Base {
            index: Index(u64::MAX - 9),
            ..Base::default()
        });
        assert_eq!(tail.entry(Index(0)), None);
        assert_eq!(tail.entry(Index(u64::MAX)), None);
        assert_eq!(tail.size_between(Index(0), Index(u64::MAX)), 0);
        assert_eq!(tail.index_of_offset(Offset(u64::MAX)), None);
    }
}
