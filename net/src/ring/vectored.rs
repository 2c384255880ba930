//! `Vectored`: owned bytes to send or write, as the list of pieces the kernel reads.
//!
//! The list is on the heap and does not change between an entry and its completion. Knows neither
//! sockets nor files.

#![allow(unsafe_code)] // A C struct to be zeroed.

use bytes::Bytes;
use ringwood_core::limits::SECTOR_SIZE;

/// Most bytes of one send or write: what a count in a completion can express, with room to spare.
pub const VECTORED_SIZE_MAX: u64 = 1 << 30;

/// Pieces the kernel takes at once (IOV_MAX); a longer list is continued.
const WINDOW_COUNT_MAX: usize = 1024;

/// ```text
///   buffers   [ done ][ done ][ do|ne .. ][ todo ][ todo ][ todo ]
///                               ^ next, skip
///   window                       [ piece ][ piece ][ piece ]        at most WINDOW_COUNT_MAX
/// ```
pub(super) struct Vectored {
    buffers: Vec<Bytes>,
    /// The first buffer that is not wholly done.
    next: usize,
    /// Bytes of it that are.
    skip: usize,
    done: u64,
    size: u64,
    window: Vec<libc::iovec>,
    header: libc::msghdr,
}

impl Vectored {
    pub(super) fn new() -> Box<Self> {
        // SAFETY: all zeroes is a valid msghdr: null pointers and zero lengths.
        let header = unsafe { std::mem::zeroed() };
        Box::new(Self {
            buffers: Vec::new(),
            next: 0,
            skip: 0,
            done: 0,
            size: 0,
            window: Vec::new(),
            header,
        })
    }

    /// Takes over `buffers`; empty ones are left out.
    ///
    /// # Panics
    /// If there is nothing in them, or more than `VECTORED_SIZE_MAX`.
    pub(super) fn load(&mut self, buffers: impl IntoIterator<Item = Bytes>) {
        assert!(self.buffers.is_empty(), "loaded twice");
        self.buffers
            .extend(buffers.into_iter().filter(|buffer| !buffer.is_empty()));
        self.size = self.buffers.iter().map(|buffer| buffer.len() as u64).sum();
        assert!(self.size > 0, "nothing to send or write");
        assert!(self.size <= VECTORED_SIZE_MAX, "too much for one operation");
    }

    /// Lets go of all buffers, keeps the memory of the lists.
    pub(super) fn clear(&mut self) {
        self.buffers.clear();
        self.window.clear();
        (self.next, self.skip, self.done, self.size) = (0, 0, 0, 0);
    }

    pub(super) fn size(&self) -> u64 {
        self.size
    }

    pub(super) fn done(&self) -> u64 {
        self.done
    }

    pub(super) fn is_done(&self) -> bool {
        self.done == self.size
    }

    /// Whether direct I/O takes it at `position`.
    pub(super) fn is_aligned(&self, position: u64) -> bool {
        let aligned = |buffer: &Bytes| {
            buffer.as_ptr().addr().is_multiple_of(SECTOR_SIZE)
                && buffer.len().is_multiple_of(SECTOR_SIZE)
        };
        is_aligned(position) && self.buffers.iter().all(aligned)
    }

    /// The kernel is done with `count` more bytes.
    pub(super) fn advance(&mut self, count: usize) {
        let mut left = count;
        while left > 0 {
            let here = self.buffers[self.next].len() - self.skip;
            if left < here {
                self.skip += left;
                break;
            }
            left -= here;
            self.next += 1;
            self.skip = 0;
        }
        self.done += count as u64;
        assert!(
            self.done <= self.size,
            "the kernel took more than there was"
        );
    }

    /// The next pieces, for the kernel to read.
    pub(super) fn fill_window(&mut self) -> &[libc::iovec] {
        assert!(!self.is_done());
        self.window.clear();
        let mut skip = self.skip;
        for buffer in self.buffers[self.next..].iter().take(WINDOW_COUNT_MAX) {
            let piece = &buffer[skip..];
            skip = 0;
            // The kernel only reads a send's or a write's memory, whatever the C type says.
            let iov_base = piece.as_ptr().cast_mut().cast();
            self.window.push(libc::iovec {
                iov_base,
                iov_len: piece.len(),
            });
        }
        &self.window
    }

    /// A message header of the window last filled.
    pub(super) fn header(&mut self) -> *const libc::msghdr {
        self.header.msg_iov = self.window.as_mut_ptr();
        self.header.msg_iovlen = self.window.len() as _;
        &raw const self.header
    }
}

/// Whether direct I/O may begin at `position`.
pub(super) fn is_aligned(position: u64) -> bool {
    position.is_multiple_of(SECTOR_SIZE as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(data: &mut Vectored) -> Vec<usize> {
        data.fill_window()
            .iter()
            .map(|piece| piece.iov_len)
            .collect()
    }

    #[test]
    fn a_short_count_is_continued_where_it_ended() {
        let mut data = Vectored::new();
        let parts = ["abc", "", "defgh", "i"].map(|part| Bytes::from_static(part.as_bytes()));
        data.load(parts.clone());
        assert_eq!(window(&mut data), [3, 5, 1]);
        data.advance(2);
        assert_eq!(window(&mut data), [1, 5, 1]);
        data.advance(1);
        assert_eq!(window(&mut data), [5, 1]);
        data.advance(4);
        assert_eq!(window(&mut data), [1, 1]);
        assert_eq!(
            data.fill_window()[0].iov_base.cast_const().cast(),
            &raw const parts[2][4]
        );
        data.advance(2);
        assert!(data.is_done());
    }

    #[test]
    fn a_long_list_goes_in_windows() {
        let mut data = Vectored::new();
        data.load((0..3000).map(|_| Bytes::from_static(b"xy")));
        assert_eq!(window(&mut data).len(), WINDOW_COUNT_MAX);
        data.advance(2 * WINDOW_COUNT_MAX);
        assert_eq!(window(&mut data).len(), WINDOW_COUNT_MAX);
        data.advance(2 * WINDOW_COUNT_MAX - 1);
        assert_eq!(window(&mut data), [vec![1], vec![2; 952]].concat());
    }

    #[test]
    fn what_was_cleared_is_let_go() {
        let mut data = Vectored::new();
        let part = Bytes::from(vec![1; 10]);
        data.load([part.clone()]);
        assert!(!part.is_unique());
        data.clear();
        assert!(part.is_unique());
        data.load([part]);
        assert_eq!((data.size(), data.done()), (10, 0));
    }
}
