//! Memory the kernel writes into: the provided receive buffers, lent out one by one, and aligned
//! memory for direct reads.
//!
//! Knows no operation and no connection. Hop "bytes in": a received slice is used where the kernel
//! put it, until the one copy into the run.

#![allow(unsafe_code)] // Memory shared with the kernel has no safe spelling.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::cell::Cell;
use std::fmt;
use std::ops::Deref;
use std::ptr::NonNull;
use std::rc::Rc;
use std::sync::atomic::{AtomicU16, Ordering};

use bytes::Bytes;
use io_uring::types::BufRingEntry;
use ringwood_core::limits::SECTOR_SIZE;

/// Most buffers of one pool: the kernel's limit for a buffer ring.
pub const BUFFER_COUNT_MAX: u16 = 1 << 15;

/// Zeroed memory aligned to `SECTOR_SIZE`, of a size that is a multiple of it: fit for direct I/O.
pub struct AlignedBuffer {
    memory: NonNull<u8>,
    /// A multiple of `SECTOR_SIZE`, not zero.
    size: usize,
}

// SAFETY: the buffer is the only owner of its memory, which is not bound to any thread.
unsafe impl Send for AlignedBuffer {}
// SAFETY: a shared reference only reads.
unsafe impl Sync for AlignedBuffer {}

impl AlignedBuffer {
    /// Memory for at least `size` bytes, rounded up to whole sectors.
    ///
    /// # Panics
    /// If `size` is zero or the machine has no memory left.
    #[must_use]
    pub fn zeroed(size: usize) -> Self {
        assert!(size > 0, "an aligned buffer holds something");
        let size = size.next_multiple_of(SECTOR_SIZE);
        // SAFETY: the layout's size is not zero.
        let memory = unsafe { alloc_zeroed(Self::layout(size)) };
        let memory = NonNull::new(memory).unwrap_or_else(|| handle_alloc_error(Self::layout(size)));
        Self { memory, size }
    }

    fn layout(size: usize) -> Layout {
        Layout::from_size_align(size, SECTOR_SIZE).expect("a buffer fits the address space")
    }

    /// Size in bytes, a multiple of `SECTOR_SIZE`.
    #[must_use]
    pub fn size(&self) -> usize {
        self.size
    }

    /// Its bytes, to read.
    #[must_use]
    pub fn as_slice(&self) -> &[u8] {
        // SAFETY: the memory is ours, initialised (zeroed) and `size` bytes long.
        unsafe { std::slice::from_raw_parts(self.memory.as_ptr(), self.size) }
    }

    /// Its bytes, to write.
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        // SAFETY: as above, and the exclusive reference keeps everyone else away.
        unsafe { std::slice::from_raw_parts_mut(self.memory.as_ptr(), self.size) }
    }

    /// The first `size` bytes, shared from now on; no copy.
    ///
    /// # Panics
    /// If the buffer has fewer.
    #[must_use]
    pub fn into_bytes(self, size: usize) -> Bytes {
        assert!(size <= self.size, "more bytes than the buffer has");
        Bytes::from_owner(self).slice(..size)
    }

    pub(super) fn pointer(&self) -> NonNull<u8> {
        self.memory
    }
}

impl AsRef<[u8]> for AlignedBuffer {
    fn as_ref(&self) -> &[u8] {
        self.as_slice()
    }
}

impl Drop for AlignedBuffer {
    fn drop(&mut self) {
        // SAFETY: allocated in `zeroed` with this very layout, and freed only here.
        unsafe { dealloc(self.memory.as_ptr(), Self::layout(self.size)) };
    }
}

impl fmt::Debug for AlignedBuffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AlignedBuffer({} bytes)", self.size)
    }
}

/// The receive buffers of one ring.
///
/// ```text
///   entries   | id 7 | id 3 | id 0 | ....           |   a ring the kernel takes from
///               ^ head (kernel's)     ^ tail (ours)
///   memory    | buffer 0 | buffer 1 | ... | count-1 |   each in the ring, or leased
/// ```
/// A buffer is in exactly one place: in the ring (the kernel may write it), or in one `Lease`
/// (only the lease may read it). `count` entries are enough for all, so the tail never laps.
pub(super) struct Pool {
    entries: AlignedBuffer,
    memory: AlignedBuffer,
    count: u16,
    size: u32,
    tail: Cell<u16>,
    leased: Cell<u16>,
    /// Operations may still be writing into it, though the ring is gone: never free it.
    abandoned: Cell<bool>,
}

impl Pool {
    /// `count` (a power of two) buffers of `size` bytes, all in the ring.
    pub(super) fn new(count: u16, size: u32) -> Rc<Self> {
        assert!(count.is_power_of_two() && count <= BUFFER_COUNT_MAX);
        assert!(size > 0);
        let entries = usize::from(count) * size_of::<BufRingEntry>();
        let pool = Self {
            entries: AlignedBuffer::zeroed(entries),
            memory: AlignedBuffer::zeroed(usize::from(count) * size as usize),
            count,
            size,
            tail: Cell::new(0),
            leased: Cell::new(count),
            abandoned: Cell::new(false),
        };
        for id in 0..count {
            pool.give_back(id);
        }
        Rc::new(pool)
    }

    pub(super) fn entries_address(&self) -> u64 {
        self.entries.pointer().as_ptr() as u64
    }

    pub(super) fn count(&self) -> u16 {
        self.count
    }

    /// Buffers in the ring, free to be received into.
    pub(super) fn free(&self) -> u16 {
        self.count - self.leased.get()
    }

    /// The kernel has taken buffer `id` from the ring and put `size` bytes into it.
    pub(super) fn lease(self: &Rc<Self>, id: u16, size: u32) -> Lease {
        assert!(
            id < self.count,
            "the kernel names a buffer the pool has not"
        );
        assert!(size <= self.size, "more bytes than the buffer holds");
        assert!(self.leased.get() < self.count, "more leases than buffers");
        self.leased.set(self.leased.get() + 1);
        Lease {
            pool: Rc::clone(self),
            id,
            size,
        }
    }

    /// Keeps the memory for ever: someone may still write it.
    pub(super) fn abandon(&self) {
        self.abandoned.set(true);
    }

    fn buffer(&self, id: u16) -> NonNull<u8> {
        let at = usize::from(id) * self.size as usize;
        assert!(at + self.size as usize <= self.memory.size());
        // SAFETY: the offset lies within the one allocation, as just asserted.
        unsafe { self.memory.pointer().add(at) }
    }

    fn give_back(&self, id: u16) {
        assert!(self.leased.get() > 0, "a buffer came back that was not out");
        let tail = self.tail.get();
        let entries = self.entries.pointer().cast::<BufRingEntry>();
        // SAFETY: the index is below `count`, the number of entries allocated. The kernel does not
        // read the entry before the tail says so. `resv` of entry 0 is the ring's tail: the three
        // setters leave it alone.
        unsafe {
            let entry = entries.add(usize::from(tail & (self.count - 1))).as_mut();
            entry.set_addr(self.buffer(id).as_ptr() as u64);
            entry.set_len(self.size);
            entry.set_bid(id);
        }
        self.tail.set(tail.wrapping_add(1));
        self.leased.set(self.leased.get() - 1);
        // SAFETY: the tail lives in entry 0, is aligned to 2 bytes, and is only accessed as an
        // atomic. Release: whoever sees the new tail sees the entry.
        unsafe {
            let tail = BufRingEntry::tail(entries.as_ptr()).cast_mut();
            AtomicU16::from_ptr(tail).store(self.tail.get(), Ordering::Release);
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        if self.abandoned.get() {
            std::mem::forget(std::mem::replace(
                &mut self.entries,
                AlignedBuffer::zeroed(1),
            ));
            std::mem::forget(std::mem::replace(
                &mut self.memory,
                AlignedBuffer::zeroed(1),
            ));
        }
    }
}

/// Received bytes, where the kernel put them. Dropping it gives the buffer back to receive into;
/// whoever keeps many of them starves all receives of the ring, so keep them for a turn or copy.
pub struct Lease {
    pool: Rc<Pool>,
    id: u16,
    size: u32,
}

impl AsRef<[u8]> for Lease {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: the buffer is out of the ring until this lease drops, so nobody writes it; its
        // memory is initialised, at least `size` long, and kept alive by `pool`.
        unsafe {
            std::slice::from_raw_parts(self.pool.buffer(self.id).as_ptr(), self.size as usize)
        }
    }
}

impl Deref for Lease {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.as_ref()
    }
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Lease(buffer {}, {} bytes)", self.id, self.size)
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        #[cfg(debug_assertions)]
        // SAFETY: the buffer is still out of the ring and no reference into it is left. Poison
        // makes a slice that outlived its lease show in every test.
        unsafe {
            self.pool
                .buffer(self.id)
                .as_ptr()
                .write_bytes(0xdb, self.size as usize);
        }
        self.pool.give_back(self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_aligned_buffer_is_aligned_zeroed_and_shared_without_a_copy() {
        let mut buffer = AlignedBuffer::zeroed(5000);
        assert_eq!(buffer.size(), 8192);
        assert!(buffer.as_slice().iter().all(|byte| *byte == 0));
        buffer.as_mut_slice()[4999] = 7;
        let address = buffer.as_slice().as_ptr();
        let bytes = buffer.into_bytes(5000);
        assert_eq!(address as usize % SECTOR_SIZE, 0);
        assert_eq!(bytes.as_ptr(), address);
        assert_eq!((bytes.len(), bytes[4999]), (5000, 7));
    }

    #[test]
    fn a_buffer_is_free_or_leased_and_never_both() {
        let pool = Pool::new(8, 64);
        assert_eq!(pool.free(), 8);
        let first = pool.lease(3, 10);
        let second = pool.lease(5, 64);
        assert_eq!((pool.free(), first.len(), second.len()), (6, 10, 64));
        drop(first);
        assert_eq!(pool.free(), 7);
        // The lease keeps the memory alive without the pool's other owners.
        drop(pool);
        assert_eq!(second.as_ref().len(), 64);
    }

    #[test]
    #[should_panic(expected = "a buffer the pool has not")]
    fn a_buffer_of_another_pool_is_refused() {
        let _ = Pool::new(8, 64).lease(8, 1);
    }
}
