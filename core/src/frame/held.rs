//! Received bytes that are not consumed yet, in order, in the chunks they came in.
//!
//! A chunk is a lease on a receive buffer, of which there are few: a slow sender of a large frame
//! must not keep many. So a bound holds for the chunks kept; what arrives beyond it is copied into
//! a buffer of our own and its lease ends at once. Knows no frame.
//!
//! ```text
//!   consumed  | not consumed                                 | arrives
//!   ----------+----------------------------------------------+--------
//!   released  | [lease from `skip` on] [lease] … [own bytes] | push
//! ```

use std::collections::VecDeque;

use super::payload::{Payload, Slices};

/// Chunks held as leases; beyond, bytes are copied. 32 buffers of 64 KiB hold one largest payload.
const LEASE_COUNT_MAX: usize = 32;

/// Leases given back and not yet taken; a caller that never takes them is stopped here.
const RELEASED_COUNT_MAX: usize = 4096;

/// Largest own buffer that is kept for the next time.
const SPARE_SIZE_MAX: usize = 256 << 10;

/// The queue of bytes.
#[derive(Debug)]
pub(super) struct Held<C> {
    /// None is empty; at most `LEASE_COUNT_MAX` are leases.
    segments: VecDeque<Segment<C>>,
    lease_count: usize,
    /// Consumed bytes of the first segment; less than its size.
    skip: usize,
    /// Bytes of all segments, less `skip`.
    size: usize,
    released: Vec<C>,
    spare: Vec<u8>,
}

#[derive(Debug)]
enum Segment<C> {
    Leased(C),
    Own(Vec<u8>),
}

impl<C: AsRef<[u8]>> Segment<C> {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Leased(chunk) => chunk.as_ref(),
            Self::Own(bytes) => bytes,
        }
    }
}

impl<C: AsRef<[u8]>> Held<C> {
    pub(super) fn new() -> Self {
        Self {
            segments: VecDeque::new(),
            lease_count: 0,
            skip: 0,
            size: 0,
            released: Vec::new(),
            spare: Vec::new(),
        }
    }

    /// Bytes not consumed.
    pub(super) fn size(&self) -> usize {
        self.size
    }

    /// Takes the next chunk. `lacking` is how many more bytes are expected for certain, this chunk
    /// included: an own buffer is made that large at once.
    pub(super) fn push(&mut self, chunk: C, lacking: usize) {
        assert!(
            self.released.len() < RELEASED_COUNT_MAX,
            "released leases are never taken"
        );
        let size = chunk.as_ref().len();
        self.size += size;
        if size == 0 {
            self.released.push(chunk);
        } else if self.lease_count < LEASE_COUNT_MAX && !self.is_spilling() {
            self.lease_count += 1;
            self.segments.push_back(Segment::Leased(chunk));
        } else {
            self.spill(chunk.as_ref(), lacking);
            self.released.push(chunk);
        }
    }

    /// Copies all that is held into an own buffer, so that every lease ends. `lacking` is how many
    /// more bytes are expected for certain.
    pub(super) fn detach(&mut self, lacking: usize) {
        if self.lease_count == 0 {
            // What frames have used of our own buffer goes, or a stream that never pauses between
            // two frames would let it grow for ever.
            if let Some(Segment::Own(own)) = self.segments.front_mut() {
                own.drain(..self.skip);
                self.skip = 0;
            }
            return;
        }
        let mut own = std::mem::take(&mut self.spare);
        own.reserve_exact(self.size + lacking);
        let mut skip = self.skip;
        for segment in &self.segments {
            own.extend_from_slice(&segment.bytes()[skip..]);
            skip = 0;
        }
        while !self.segments.is_empty() {
            self.release_first();
        }
        assert_eq!(own.len(), self.size);
        self.skip = 0;
        self.segments.push_back(Segment::Own(own));
    }

    /// Whether the last bytes are our own: what follows joins them, so that a frame lies together.
    fn is_spilling(&self) -> bool {
        matches!(self.segments.back(), Some(Segment::Own(_)))
    }

    fn spill(&mut self, bytes: &[u8], lacking: usize) {
        if !self.is_spilling() {
            let mut own = std::mem::take(&mut self.spare);
            own.reserve_exact(lacking.max(bytes.len()));
            self.segments.push_back(Segment::Own(own));
        }
        if let Some(Segment::Own(own)) = self.segments.back_mut() {
            own.extend_from_slice(bytes);
        }
    }

    /// `size` bytes from `at` on; all of them must be there.
    pub(super) fn view(&self, at: usize, size: usize) -> Payload<'_> {
        assert!(at + size <= self.size);
        if size == 0 {
            return Payload::from(&[][..]);
        }
        let mut offset = self.skip + at;
        let mut number = 0;
        loop {
            let bytes = self.slice(number);
            number += 1;
            if offset < bytes.len() {
                return Payload::new(&bytes[offset..], self, number, size);
            }
            offset -= bytes.len();
        }
    }

    /// Drops the first `size` bytes; chunks that end by it are released.
    pub(super) fn consume(&mut self, size: usize) {
        assert!(size <= self.size);
        self.size -= size;
        self.skip += size;
        while let Some(first) = self.segments.front() {
            let first_size = first.bytes().len();
            if self.skip < first_size {
                return;
            }
            self.skip -= first_size;
            self.release_first();
        }
        assert_eq!(self.skip, 0);
    }

    fn release_first(&mut self) {
        match self.segments.pop_front() {
            Some(Segment::Leased(chunk)) => {
                self.lease_count -= 1;
                self.released.push(chunk);
            }
            Some(Segment::Own(mut own)) if own.capacity() <= SPARE_SIZE_MAX => {
                own.clear();
                self.spare = own;
            }
            Some(Segment::Own(_)) | None => {}
        }
    }

    /// Leases that are over, in the order in which they were pushed.
    pub(super) fn take_released(&mut self) -> std::vec::Drain<'_, C> {
        self.released.drain(..)
    }
}

impl<C: AsRef<[u8]>> Slices for Held<C> {
    fn slice(&self, number: usize) -> &[u8] {
        self.segments[number].bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn joined(held: &Held<Vec<u8>>) -> Vec<u8> {
        held.view(0, held.size()).contiguous().into_owned()
    }

    #[test]
    fn bytes_come_out_in_order_whatever_is_leased_or_copied() {
        let mut held = Held::new();
        let mut pushed = Vec::new();
        for number in 0..3 * LEASE_COUNT_MAX as u8 {
            let chunk = vec![number; 1 + usize::from(number) % 5];
            pushed.extend_from_slice(&chunk);
            held.push(chunk, 0);
        }
        assert_eq!(joined(&held), pushed);
        for _ in 0..pushed.len() {
            held.consume(1);
            pushed.remove(0);
            assert_eq!(joined(&held), pushed);
        }
        assert_eq!(held.take_released().count(), 3 * LEASE_COUNT_MAX);
    }

    #[test]
    fn beyond_the_bound_a_lease_ends_at_once() {
        let mut held = Held::new();
        for number in 0..LEASE_COUNT_MAX {
            held.push(vec![number as u8], 0);
        }
        assert_eq!(held.take_released().count(), 0);
        held.push(vec![77; 10], 50);
        assert_eq!(held.take_released().next(), Some(vec![77; 10]));
        held.push(vec![78; 10], 40);
        assert_eq!(
            held.segments.len(),
            LEASE_COUNT_MAX + 1,
            "one own buffer takes all"
        );
        held.consume(LEASE_COUNT_MAX);
        held.push(vec![79], 0);
        assert_eq!(held.size(), 21);
        held.consume(21);
        held.push(vec![80], 0);
        assert_eq!(
            held.lease_count, 1,
            "leases are held again when the old ones are gone"
        );
    }

    #[test]
    fn a_detached_queue_keeps_its_bytes_and_no_lease() {
        let mut held = Held::new();
        for number in 0..5 {
            held.push(vec![number; 10], 0);
        }
        held.consume(13);
        let before = joined(&held);
        held.detach(100);
        assert_eq!(joined(&held), before);
        assert_eq!((held.lease_count, held.take_released().count()), (0, 5));
        held.push(vec![9; 4], 0);
        assert_eq!(held.segments.len(), 1, "what follows joins them");
        for _ in 0..100 {
            held.push(vec![9; 30], 0);
            held.consume(30);
            held.detach(0);
        }
        let Some(Segment::Own(own)) = held.segments.front() else {
            panic!("it is our own")
        };
        assert!(
            own.len() == held.size() && own.len() < 60,
            "what is used goes"
        );
        held.consume(held.size());
        held.push(vec![8; 4], 0);
        assert_eq!(held.lease_count, 1, "and then leases are held again");
    }

    #[test]
    fn an_own_buffer_serves_again() {
        let mut held = Held::new();
        let mut capacity = 0;
        for _ in 0..3 {
            for _ in 0..LEASE_COUNT_MAX + 5 {
                held.push(vec![1; 100], 0);
            }
            held.consume(held.size());
            held.take_released();
            assert!(capacity == 0 || held.spare.capacity() == capacity);
            capacity = held.spare.capacity();
        }
        assert!(capacity >= 500);
    }

    #[test]
    fn an_empty_chunk_is_given_back_at_once() {
        let mut held = Held::new();
        held.push(Vec::new(), 0);
        assert_eq!(held.take_released().count(), 1);
        assert!(held.view(0, 0).is_empty());
    }

    #[test]
    #[should_panic(expected = "never taken")]
    fn a_caller_that_never_takes_leases_back_is_stopped() {
        let mut held = Held::new();
        for _ in 0..=RELEASED_COUNT_MAX {
            held.push(Vec::new(), 0);
        }
    }
}
