//! The memory that runs are cut from: a few large buffers, aligned for direct I/O and used again
//! once nobody holds a slice of them.
//!
//! Knows no run: whoever needs bytes back drops the slices. Steady state allocates nothing.
//!
//! ```text
//!   current  | cut | cut | cut |  free ........ |     filled from here on
//!   parked   | held by a writer, the cache or a reader |  oldest first; free when all is dropped
//! ```

use std::collections::VecDeque;

use bytes::{Buf, BytesMut};

use crate::limits::SECTOR_SIZE;

/// A bounded set of equal buffers.
#[derive(Debug)]
pub struct Arenas {
    size: usize,
    count_max: usize,
    /// Counts allocations, to show that they end.
    count: usize,
    /// Empty handle or the one being filled; what is written is cut off and given away.
    current: BytesMut,
    /// Bytes of the current one that are not cut off yet. Its capacity may be a little more, by
    /// where in memory it happens to lie, and nothing may depend on that.
    left: usize,
    parked: VecDeque<BytesMut>,
}

impl Arenas {
    /// At most `count_max` buffers of `size` bytes, a multiple of the sector. None is allocated
    /// yet.
    #[must_use]
    pub fn new(size: usize, count_max: usize) -> Self {
        assert!(
            size > 0 && size.is_multiple_of(SECTOR_SIZE),
            "arenas are whole sectors"
        );
        assert!(count_max > 0, "an arena at least");
        Self {
            size,
            count_max,
            count: 0,
            current: BytesMut::new(),
            left: 0,
            parked: VecDeque::new(),
        }
    }

    /// Makes the current buffer one with at least `room` bytes free, and says whether it could. If
    /// not, slices must be dropped first. The current buffer must hold nothing uncut.
    pub fn make_room(&mut self, room: usize) -> bool {
        assert!(room <= self.size, "no arena has that much");
        assert!(
            self.current.is_empty(),
            "what is being written would be lost"
        );
        if self.left >= room {
            return true;
        }
        let Some(next) = self.take_free() else {
            return false;
        };
        let full = std::mem::replace(&mut self.current, next);
        if self.parked.len() + 1 < self.count {
            self.parked.push_back(full);
        }
        self.left = self.size;
        assert!(
            self.current.capacity() >= self.left,
            "a whole arena has room"
        );
        assert!(self.parked.len() < self.count, "no buffer is counted twice");
        true
    }

    fn take_free(&mut self) -> Option<BytesMut> {
        // The oldest is the likeliest to be free, but a slow reader may hold it.
        let whole = self.size + SECTOR_SIZE;
        if self.count > 0 && self.current.try_reclaim(whole) {
            return Some(align(std::mem::take(&mut self.current)));
        }
        if let Some(at) = self
            .parked
            .iter_mut()
            .position(|arena| arena.try_reclaim(whole))
        {
            return self.parked.remove(at).map(align);
        }
        if self.count == self.count_max {
            return None;
        }
        self.count += 1;
        Some(align(BytesMut::with_capacity(whole)))
    }

    /// The buffer to write into. Its start is aligned to the sector as long as only whole sectors
    /// are cut off.
    pub fn current(&mut self) -> &mut BytesMut {
        &mut self.current
    }

    /// Bytes written since the last cut.
    #[must_use]
    pub fn written(&self) -> usize {
        self.current.len()
    }

    /// Cuts off what was written, a whole number of sectors.
    #[must_use]
    pub fn cut(&mut self) -> BytesMut {
        assert!(
            self.current.len().is_multiple_of(SECTOR_SIZE),
            "the next cut must lie aligned"
        );
        self.left -= self.current.len();
        self.current.split()
    }

    /// Buffers allocated so far; never above the bound.
    #[must_use]
    pub fn count(&self) -> usize {
        self.count
    }
}

/// Moves an empty buffer's start up to a sector: the allocation is a sector larger for that.
fn align(mut arena: BytesMut) -> BytesMut {
    assert!(arena.is_empty(), "an arena in use");
    let over = arena.as_ptr().addr() % SECTOR_SIZE;
    if over != 0 {
        arena.resize(SECTOR_SIZE - over, 0);
        arena.advance(SECTOR_SIZE - over);
    }
    assert!(
        arena.as_ptr().addr().is_multiple_of(SECTOR_SIZE),
        "direct I/O refuses it otherwise"
    );
    arena
}

#[cfg(test)]
mod tests {
    use bytes::BufMut;

    use super::*;

    const SIZE: usize = 8 * SECTOR_SIZE;

    #[test]
    fn a_buffer_has_its_size_wherever_it_lies() {
        // Buffers of which some, by chance, begin on a sector: those have a sector more.
        let held: Vec<Vec<u8>> = (1..64).map(|size| Vec::with_capacity(size * 48)).collect();
        for _ in 0..64 {
            let mut arenas = Arenas::new(SIZE, 1);
            let first = fill(&mut arenas, 1, 5).expect("there is room");
            assert!(fill(&mut arenas, 2, 4).is_none(), "three sectors are left");
            let second = fill(&mut arenas, 3, 3).expect("there is room");
            assert!(fill(&mut arenas, 4, 1).is_none(), "nothing is left");
            drop((first, second));
        }
        drop(held);
    }

    fn fill(arenas: &mut Arenas, byte: u8, sectors: usize) -> Option<BytesMut> {
        arenas.make_room(sectors * SECTOR_SIZE).then(|| {
            arenas.current().put_bytes(byte, sectors * SECTOR_SIZE);
            arenas.cut()
        })
    }

    #[test]
    fn cuts_lie_aligned_and_keep_their_bytes() {
        let mut arenas = Arenas::new(SIZE, 3);
        let mut cuts = Vec::new();
        for byte in 0..9 {
            cuts.push(fill(&mut arenas, byte, 2).expect("three arenas hold twelve cuts"));
        }
        for (byte, cut) in cuts.iter().enumerate() {
            assert!(cut.as_ptr().addr().is_multiple_of(SECTOR_SIZE));
            assert!(cut.iter().all(|b| usize::from(*b) == byte));
        }
        assert_eq!(arenas.count(), 3);
    }

    #[test]
    fn memory_is_bounded_and_comes_back_when_slices_are_dropped() {
        let mut arenas = Arenas::new(SIZE, 2);
        let mut held = VecDeque::new();
        while let Some(cut) = fill(&mut arenas, 1, 3) {
            held.push_back(cut.freeze());
        }
        assert_eq!((arenas.count(), held.len()), (2, 4));
        // A slow reader keeps a slice of the first arena: only the second comes back.
        let slow = held[0].slice(5..9);
        held.clear();
        assert!(fill(&mut arenas, 2, 3).is_some());
        assert_eq!(&slow[..], [1; 4]);
        drop(slow);
        for _ in 0..100 {
            assert!(fill(&mut arenas, 3, 3).is_some());
        }
        assert_eq!(arenas.count(), 2);
    }

    #[test]
    fn one_arena_goes_round() {
        let mut arenas = Arenas::new(SIZE, 1);
        for byte in 0..50 {
            let cut = fill(&mut arenas, byte, 5).expect("free, for the last cut was dropped");
            assert!(cut.as_ptr().addr().is_multiple_of(SECTOR_SIZE));
            assert!(arenas.count() == 1);
        }
    }
}
