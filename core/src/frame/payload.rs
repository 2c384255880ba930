//! The payload of a received frame: opaque bytes, in the slices they arrived in.
//!
//! Keeps an order of slices and a size; knows neither records nor blocks. Nothing here copies but
//! where it says so.

use std::borrow::Cow;
use std::fmt;

use super::sum::Sum;

/// Where the slices after a payload's first one are found.
pub(super) trait Slices {
    /// The bytes of slice `number`; asked only for slices that are there.
    fn slice(&self, number: usize) -> &[u8];
}

/// Borrowed bytes in one or several slices.
#[derive(Clone, Copy)]
pub struct Payload<'a> {
    /// Never longer than `size`; empty only if `size` is zero.
    first: &'a [u8],
    /// Needed only if `first` is not all: where to go on, and the number of the next slice.
    rest: Option<(&'a dyn Slices, usize)>,
    size: usize,
}

impl<'a> Payload<'a> {
    /// `size` bytes that begin with `first` and go on with slice `next` of `slices`.
    pub(super) fn new(
        first: &'a [u8],
        slices: &'a dyn Slices,
        next: usize,
        size: usize,
    ) -> Payload<'a> {
        let first = &first[..first.len().min(size)];
        assert!(size == 0 || !first.is_empty());
        Self {
            first,
            rest: Some((slices, next)),
            size,
        }
    }

    /// Bytes in all.
    #[must_use]
    pub fn size(&self) -> usize {
        self.size
    }

    /// Whether there are no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.size == 0
    }

    /// The slices in order, none of them empty.
    #[must_use]
    pub fn chunks(&self) -> Chunks<'a> {
        Chunks {
            first: self.first,
            rest: self.rest,
            left: self.size,
        }
    }

    /// All bytes together: borrowed if they arrived so, else copied.
    #[must_use]
    pub fn contiguous(&self) -> Cow<'a, [u8]> {
        if self.first.len() == self.size {
            return Cow::Borrowed(self.first);
        }
        let mut joined = Vec::with_capacity(self.size);
        self.chunks()
            .for_each(|chunk| joined.extend_from_slice(chunk));
        assert_eq!(joined.len(), self.size);
        Cow::Owned(joined)
    }

    /// CRC-32C of all bytes.
    #[must_use]
    pub fn sum(&self) -> u32 {
        let mut sum = Sum::new();
        self.chunks().for_each(|chunk| sum.update(chunk));
        sum.value()
    }
}

impl<'a> From<&'a [u8]> for Payload<'a> {
    fn from(bytes: &'a [u8]) -> Self {
        Self {
            first: bytes,
            rest: None,
            size: bytes.len(),
        }
    }
}

impl fmt::Debug for Payload<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Payload({} bytes in {} chunks)",
            self.size,
            self.chunks().count()
        )
    }
}

/// Walks over the slices of a payload.
#[derive(Clone)]
pub struct Chunks<'a> {
    first: &'a [u8],
    rest: Option<(&'a dyn Slices, usize)>,
    left: usize,
}

impl<'a> Iterator for Chunks<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        if self.left == 0 {
            return None;
        }
        let chunk = self.first;
        assert!(!chunk.is_empty() && chunk.len() <= self.left);
        self.left -= chunk.len();
        if self.left > 0 {
            let (slices, number) = self.rest.expect("a payload's slices make up its size");
            let next = slices.slice(number);
            self.first = &next[..next.len().min(self.left)];
            self.rest = Some((slices, number + 1));
        }
        Some(chunk)
    }
}

impl fmt::Debug for Chunks<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Chunks({} bytes left)", self.left)
    }
}
