//! A node's files, and the states that a crash may leave them in: some pieces of what was in flight
//! are there, others are not.
//!
//! Knows files by name, bytes and size, not what is in them.

use std::collections::BTreeMap;

use bytes::Bytes;
use ringwood_core::log::recovery::DiskFault;
use ringwood_core::shard::Source;

use crate::crash_states::Part;

/// A file of the node, as `Source` names it.
pub(crate) type FileName = (Option<u32>, u32);

pub(super) fn name_of(source: Source) -> FileName {
    match source {
        Source::Journal { slot } => (None, slot),
        Source::Segment { group, number } => (Some(group.0), number),
        Source::Pins => (None, u32::MAX),
        Source::Persist => (None, u32::MAX - 1),
    }
}

/// All files as they are for good.
#[derive(Clone, Default)]
pub(crate) struct Files(pub(super) BTreeMap<FileName, Vec<u8>>);

/// A piece of what is in flight, in its file: bytes, or the file's deletion.
#[derive(Clone)]
pub(super) struct Piece {
    pub(super) file: FileName,
    pub(super) part: Part,
    pub(super) is_deletion: bool,
}

impl Piece {
    pub(super) fn of(file: FileName, part: Part) -> Self {
        Self {
            file,
            part,
            is_deletion: false,
        }
    }

    pub(super) fn deletion(file: FileName) -> Self {
        let part = Part {
            slot: 0,
            position: 0,
            bytes: Vec::new(),
        };
        Self {
            file,
            part,
            is_deletion: true,
        }
    }
}

/// Files with some pieces of what was in flight.
pub(crate) struct State<'f> {
    pub(super) files: &'f Files,
    pub(super) pieces: Vec<&'f Piece>,
    /// Sizes that files have already, whatever of their bytes is there.
    pub(super) sizes: BTreeMap<FileName, usize>,
}

impl State<'_> {
    fn is_deleted(&self, file: FileName) -> bool {
        let mut pieces = self.pieces.iter();
        pieces.any(|piece| piece.file == file && piece.is_deletion)
    }

    pub(super) fn size(&self, file: FileName) -> Option<usize> {
        if self.is_deleted(file) {
            return None;
        }
        let there = self.files.0.get(&file).map(Vec::len);
        let pieces = self.pieces.iter().filter(|piece| piece.file == file);
        let written = pieces
            .map(|piece| piece.part.position + piece.part.bytes.len())
            .max();
        there.max(written).max(self.sizes.get(&file).copied())
    }

    pub(super) fn read(
        &self,
        source: Source,
        position: u64,
        size: usize,
    ) -> Result<Bytes, DiskFault> {
        let file = name_of(source);
        let end = self.size(file).ok_or(DiskFault { errno: 2 })?;
        let from = (position as usize).min(end);
        let to = (from + size).min(end);
        let mut bytes = vec![0; to - from];
        copy_overlap(
            &mut bytes,
            from,
            self.files.0.get(&file).map_or(&[], Vec::as_slice),
            0,
        );
        for piece in self.pieces.iter().filter(|piece| piece.file == file) {
            copy_overlap(&mut bytes, from, &piece.part.bytes, piece.part.position);
        }
        Ok(bytes.into())
    }

    pub(super) fn settle(&self) -> Files {
        let mut files = self.files.clone();
        let named = self
            .sizes
            .keys()
            .copied()
            .chain(self.pieces.iter().map(|piece| piece.file));
        for file in named {
            match self.size(file) {
                Some(size) => files.0.entry(file).or_default().resize(size, 0),
                None => _ = files.0.remove(&file),
            }
        }
        for piece in self.pieces.iter().filter(|piece| !piece.is_deletion) {
            put(
                &mut files,
                piece.file,
                piece.part.position,
                &piece.part.bytes,
            );
        }
        files
    }
}

/// Copies what of `from`, which stands at a position, belongs into `to`, which stands at another.
fn copy_overlap(to: &mut [u8], to_at: usize, from: &[u8], from_at: usize) {
    let begin = to_at.max(from_at);
    let end = (to_at + to.len()).min(from_at + from.len());
    if begin < end {
        to[begin - to_at..end - to_at].copy_from_slice(&from[begin - from_at..end - from_at]);
    }
}

pub(super) fn put(files: &mut Files, file: FileName, position: usize, bytes: &[u8]) {
    let contents = files.0.entry(file).or_default();
    contents.resize(contents.len().max(position + bytes.len()), 0);
    contents[position..position + bytes.len()].copy_from_slice(bytes);
}

pub(crate) fn only(files: &Files) -> State<'_> {
    State {
        files,
        pieces: Vec::new(),
        sizes: BTreeMap::new(),
    }
}
