//! Which of the blocks that were found in a damaged segment are the log's.
//!
//! Behind a damaged place the next sound block is looked for byte by byte, and what is found there may
//! be a record that looks like a block, put there by a client. It can be given any index and any
//! predecessor; what it cannot have is a block behind it that names its sum. So nothing is believed
//! but what leads, sum by sum, to the block that the segment is known to end with: stretches of what
//! was found, and between them what peers give. Keeps stretches and how far they are proven. Knows no
//! file and no peer.
//!
//! ```text
//!  begins ═══ found ═══▶ ?        ? ══ found ══▶ ?  ◀═ given ═ ◀══ found ═══ the known last block
//!                           lost                   └ known: its index and sum, from the one behind
//! ```
//! The proof goes from the end to the beginning. Where no stretch ends with the block that is due,
//! that block and what lies before it, up to the next stretch, are lost; once somebody gave them, the
//! first of them names the one before.

use std::collections::VecDeque;

use crate::id::{Index, Offset};
use crate::log::block::BlockHeader;

/// Stretches of a segment that are remembered until they are proven. A sound file is one, and a
/// client may fill a damaged block with thousands; what is forgotten is asked of peers.
const STRETCH_COUNT_MAX: usize = 1024;

/// A block by its index and sum: as good as the block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Link {
    pub(super) index: Index,
    pub(super) sum: u32,
}

/// Blocks that stand one behind the other in a file, each naming the one before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stretch {
    /// Byte at which the first begins.
    pub(super) position: u64,
    /// The block before the first, as the first says.
    pub(super) before: Link,
    /// Offset of the first record.
    pub(super) first_offset: Offset,
    /// The last.
    pub(super) last: Link,
}

impl Stretch {
    /// One block, so far.
    pub(super) fn of(position: u64, header: &BlockHeader) -> Self {
        Self {
            position,
            before: Link {
                index: Index(header.index.0 - 1),
                sum: header.previous_sum,
            },
            first_offset: header.first_offset,
            last: Link {
                index: header.index,
                sum: header.sum,
            },
        }
    }
}

/// How far the proof has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Proof {
    /// All blocks between beginning and end are found or given.
    Whole,
    /// These must be given, for nobody knows where they are.
    Lost {
        first: Index,
        last: Link,
        /// Sum of the one before the first, where that is known.
        previous_sum: Option<u32>,
    },
}

/// What was found in one segment.
#[derive(Debug)]
pub(super) struct Chain {
    /// The block before the segment's first.
    begin: Link,
    /// The block that is due: all behind it is proven.
    due: Link,
    found: VecDeque<Stretch>,
    /// From the last on.
    proven: Vec<Stretch>,
}

impl Chain {
    /// Nothing is found yet of the segment behind `begin` that ends with `end`.
    pub(super) fn new(begin: Link, end: Link) -> Self {
        Self {
            begin,
            due: end,
            found: VecDeque::new(),
            proven: Vec::new(),
        }
    }

    /// The block before the segment's first.
    pub(super) fn begin(&self) -> Link {
        self.begin
    }

    /// Whether a stretch begins with the block of this index, for the segment does.
    pub(super) fn is_first(&self, index: Index) -> bool {
        index == self.begin.index.next()
    }

    /// Something was found.
    pub(super) fn push(&mut self, stretch: Stretch) {
        // The second, for the first is the file up to the first damage, most often.
        if self.found.len() == STRETCH_COUNT_MAX {
            self.found.remove(1);
        }
        self.found.push_back(stretch);
    }

    /// Everything was found that is there, and given as far as it was asked for: proves what follows
    /// from it.
    pub(super) fn prove(&mut self) -> Proof {
        loop {
            if self.due == self.begin {
                return Proof::Whole;
            }
            let (begin, due) = (self.begin, self.due);
            let may_be = |stretch: &Stretch| {
                let is_within = stretch.before.index > begin.index || stretch.before == begin;
                is_within && (stretch.last.index < due.index || stretch.last == due)
            };
            self.found.retain(may_be);
            let last = self.found.iter().max_by_key(|stretch| stretch.last.index);
            match last.copied() {
                Some(last) if last.last == due => {
                    self.due = last.before;
                    self.proven.push(last);
                }
                Some(last) => {
                    return Proof::Lost {
                        first: last.last.index.next(),
                        last: due,
                        previous_sum: None,
                    };
                }
                None => {
                    return Proof::Lost {
                        first: begin.index.next(),
                        last: due,
                        previous_sum: Some(begin.sum),
                    };
                }
            }
        }
    }

    /// Somebody has all that was lost. The first of it names the block before.
    pub(super) fn give(&mut self, before: Link) {
        assert!(before.index < self.due.index && before.index >= self.begin.index);
        self.due = before;
    }

    /// What is proven, from the end on.
    pub(super) fn proven(&self) -> &[Stretch] {
        &self.proven
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The log's own blocks have their index as sum.
    fn link(index: u64) -> Link {
        Link {
            index: Index(index),
            sum: index as u32,
        }
    }

    fn own(position: u64, first: u64, last: u64) -> Stretch {
        Stretch {
            position,
            before: link(first - 1),
            first_offset: Offset(first * 10),
            last: link(last),
        }
    }

    /// Names a block of the log before it, and is none.
    fn forged(position: u64, first: u64, last: u64) -> Stretch {
        Stretch {
            last: Link {
                index: Index(last),
                sum: 666,
            },
            ..own(position, first, last)
        }
    }

    fn lost(first: u64, last: u64, previous_sum: Option<u32>) -> Proof {
        Proof::Lost {
            first: Index(first),
            last: link(last),
            previous_sum,
        }
    }

    /// Everything lost is given: what was asked for, and what is proven in the end.
    fn proven(found: &[Stretch]) -> (Vec<(u64, u64)>, Vec<Stretch>) {
        let mut chain = Chain::new(link(4), link(20));
        found.iter().for_each(|stretch| chain.push(*stretch));
        let mut asked = Vec::new();
        loop {
            match chain.prove() {
                Proof::Whole => return (asked, chain.proven().to_vec()),
                Proof::Lost { first, last, .. } => {
                    asked.push((first.0, last.index.0));
                    chain.give(link(first.0 - 1));
                }
            }
        }
    }

    #[test]
    fn stretches_count_once_they_lead_to_the_end() {
        let (head, middle, tail) = (own(0, 5, 8), own(90, 11, 14), own(200, 16, 20));
        assert_eq!(proven(&[own(0, 5, 20)]), (vec![], vec![own(0, 5, 20)]));
        assert_eq!(proven(&[]), (vec![(5, 20)], vec![]));
        assert_eq!(proven(&[head, tail]), (vec![(9, 15)], vec![tail, head]));
        let all = (vec![(15, 15), (9, 10)], vec![tail, middle, head]);
        assert_eq!(proven(&[head, middle, tail]), all);
        // Wherever they stand.
        assert_eq!(proven(&[tail, middle, head]), all);
    }

    #[test]
    fn what_looks_like_a_block_is_no_way_to_the_end() {
        let (head, tail) = (own(0, 5, 8), own(200, 10, 20));
        let honest = (vec![(9, 9)], vec![tail, head]);
        assert_eq!(proven(&[head, tail]), honest);
        for first in 5..=20 {
            for last in first..=20 {
                let found = [head, forged(50, first, last), tail];
                assert_eq!(proven(&found), honest, "{first} to {last}");
                let (asked, proven) = proven(&[head, forged(50, first, last)]);
                assert_eq!(proven, [head], "{first} to {last}");
                let count = asked
                    .iter()
                    .map(|(first, last)| last + 1 - first)
                    .sum::<u64>();
                assert_eq!(count, 12, "{asked:?}");
            }
        }
        // One that stands in the place of the first, and in that of the last.
        assert_eq!(proven(&[forged(0, 5, 20)]).1, []);
        assert_eq!(proven(&[forged(0, 5, 8), tail]).1, [tail]);
    }

    #[test]
    fn what_nobody_gives_ends_the_proof() {
        let mut chain = Chain::new(link(4), link(20));
        for stretch in [
            own(0, 5, 8),
            forged(50, 9, 12),
            own(90, 14, 16),
            own(200, 18, 20),
        ] {
            chain.push(stretch);
        }
        for _ in 0..2 {
            assert_eq!(chain.prove(), lost(17, 17, None));
            assert_eq!(chain.proven(), [own(200, 18, 20)]);
        }
        chain.give(link(16));
        assert_eq!(chain.prove(), lost(13, 13, None));
        let mut chain = Chain::new(link(4), link(20));
        assert_eq!(chain.prove(), lost(5, 20, Some(4)));
        chain.give(link(4));
        assert_eq!(chain.prove(), Proof::Whole);
    }

    #[test]
    fn thousands_of_forgeries_push_out_neither_the_beginning_nor_the_end() {
        let mut chain = Chain::new(link(4), link(20));
        chain.push(own(0, 5, 8));
        for position in 0..10_000 {
            chain.push(forged(position, 10, 10));
        }
        chain.push(own(200, 10, 20));
        assert_eq!(chain.found.len(), STRETCH_COUNT_MAX);
        assert_eq!(chain.prove(), lost(9, 9, None));
        chain.give(link(8));
        assert_eq!(chain.prove(), Proof::Whole);
    }
}
