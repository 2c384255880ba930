//! From where on the journal holds what a group needs: its blocks that no durable checkpoint covers.
//!
//! Keeps what saves the walk over the tail. Knows no other group, and not why a block is needed.

use crate::id::{Index, Lsn};
use crate::log::Tail;

/// What one group needs of the journal.
#[derive(Debug)]
pub(super) struct Need {
    /// Blocks through here may have been put again: their places are in no order. Above, places only
    /// grow.
    carried: Index,
    /// The lowest place above a covered index, as last looked for.
    known: Option<(Index, Lsn)>,
    /// What was answered last. Only grows, but for a cut.
    floor: Lsn,
    cut: Option<Cut>,
}

/// A stretch of the tail was cut, or all of it given up. Recovery would still find those blocks, so
/// what is before them must not go: they would stand above a hole. The next block, or the checkpoint
/// that the log begins anew behind, overrules them there, too, once it is durable: not before, for
/// the header of a later run can be all that a crash leaves, and it says what was given up.
#[derive(Clone, Copy, Debug)]
struct Cut {
    floor: Lsn,
    /// The run that overrules it.
    put: Option<Lsn>,
}

impl Need {
    /// Of a tail as recovery found it, copies and all.
    pub(super) fn recovered(tail: &Tail) -> Self {
        Self {
            carried: tail.last_index(),
            known: None,
            floor: Lsn(0),
            cut: None,
        }
    }

    /// Of a tail that begins anew: what stood there before is void when the run at `lsn` is durable.
    pub(super) fn begin_anew(&mut self, tail: &Tail, lsn: Lsn) {
        self.on_cut(tail.base().index.next());
        self.carried = tail.last_index();
        self.on_put(lsn);
    }

    /// Below here is nothing that the group needs. All up to `covered` is in segments, and a durable
    /// checkpoint says so.
    pub(super) fn from(&mut self, tail: &Tail, covered: Index, durable: Lsn) -> Lsn {
        let lowest = self.lowest(tail, covered).unwrap_or(durable).min(durable);
        self.cut
            .take_if(|cut| cut.put.is_some_and(|put| put < durable));
        self.floor = self.cut.map_or(lowest, |cut| cut.floor.min(lowest));
        self.floor
    }

    fn lowest(&mut self, tail: &Tail, covered: Index) -> Option<Lsn> {
        let first = covered.max(tail.base().index).next();
        let place = |index: u64| tail.entry(Index(index)).map(|entry| entry.place.lsn);
        if self.carried < first {
            return place(first.0);
        }
        if let Some((at, lsn)) = self.known
            && at == covered
        {
            return Some(lsn);
        }
        // The first that was never put again stands before all others of its kind.
        let lowest = (first.0..=self.carried.0 + 1).filter_map(place).min();
        self.known = lowest.map(|lsn| (covered, lsn));
        lowest
    }

    /// The block at `index` has another place.
    pub(super) fn on_carried(&mut self, index: Index) {
        self.carried = self.carried.max(index);
        self.known = None;
    }

    /// Blocks from `from` on are gone from the tail.
    pub(super) fn on_cut(&mut self, from: Index) {
        self.carried = self.carried.min(Index(from.0 - 1));
        self.known = None;
        let floor = self.cut.map_or(self.floor, |cut| cut.floor.min(self.floor));
        self.cut = Some(Cut { floor, put: None });
    }

    /// A block was put into the run at `lsn`.
    pub(super) fn on_put(&mut self, lsn: Lsn) {
        if let Some(cut) = &mut self.cut {
            cut.put.get_or_insert(lsn);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{Offset, Term};
    use crate::log::{Base, Entry, Place};

    const DURABLE: Lsn = Lsn(1 << 20);

    fn place(lsn: u64) -> Place {
        Place {
            lsn: Lsn(lsn),
            offset: 64,
        }
    }

    fn tail(lsns: &[u64]) -> Tail {
        let mut tail = Tail::new(Base::default());
        for lsn in lsns {
            tail.push(Entry {
                term: Term(1),
                size: 64,
                sum: 0,
                place: place(*lsn),
                first_offset: Offset(0),
                record_count: 0,
            });
        }
        tail
    }

    #[test]
    fn the_lowest_place_is_found_wherever_copies_stand() {
        let mut tail = tail(&[4096, 8192, 12_288, 16_384]);
        let mut need = Need::recovered(&tail);
        assert_eq!(need.from(&tail, Index(0), DURABLE), Lsn(4096));
        for (index, lsn, lowest) in [(1, 20_480, 8192), (2, 24_576, 12_288), (3, 28_672, 16_384)] {
            tail.set_place(Index(index), place(lsn));
            need.on_carried(Index(index));
            assert_eq!(need.from(&tail, Index(0), DURABLE), Lsn(lowest));
        }
        // A checkpoint covers the block that was never put again.
        assert_eq!(need.from(&tail, Index(4), DURABLE), DURABLE);
        assert_eq!(need.from(&tail, Index(2), DURABLE), Lsn(16_384));
    }

    #[test]
    fn what_was_cut_is_needed_until_a_block_stands_in_its_place() {
        let mut tail = tail(&[4096, 8192]);
        let mut need = Need::recovered(&tail);
        assert_eq!(need.from(&tail, Index(0), DURABLE), Lsn(4096));
        tail.truncate_from(Index(1));
        need.on_cut(Index(1));
        // Were the first block's file given up now, a crash would find the second above a hole.
        assert_eq!(need.from(&tail, Index(0), DURABLE), Lsn(4096));
        need.on_put(DURABLE);
        assert_eq!(need.from(&tail, Index(0), DURABLE), Lsn(4096));
        let later = Lsn(DURABLE.0 + 4096);
        assert_eq!(need.from(&tail, Index(0), later), later);
    }

    #[test]
    fn what_is_given_up_is_needed_until_the_new_beginning_is_durable() {
        let old = tail(&[4096, 8192]);
        let mut need = Need::recovered(&old);
        assert_eq!(need.from(&old, Index(0), DURABLE), Lsn(4096));
        let new = Tail::new(Base {
            index: Index(9),
            ..Base::default()
        });
        need.begin_anew(&new, DURABLE);
        // A crash may lose the checkpoint and leave the header of the run behind it.
        assert_eq!(need.from(&new, Index(9), DURABLE), Lsn(4096));
        let later = Lsn(DURABLE.0 + 4096);
        assert_eq!(need.from(&new, Index(9), later), later);
    }
}
