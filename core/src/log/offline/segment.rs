//! A segment's file as its head, its blocks, its footer, and what lies between them.
//!
//! Behind a damaged block the walk goes on at the next sound one of the same log with a higher
//! index: by the size that the damaged one claims if that leads there, else byte by byte. What it
//! finds inside a damaged block may be a record that looks like a block, put there by a client. So
//! this is good for telling people what is there, not for serving it.

use std::collections::VecDeque;

use bytes::Bytes;

use super::super::block::{BLOCK_ALIGN, BLOCK_HEADER_SIZE, Block, BlockError, BlockHeader};
use super::super::fields::all_zero;
use super::super::footer::{SEGMENT_FOOTER_SIZE, SegmentFooter};
use super::super::segment::{
    SEGMENT_HEADER_SEARCH_SIZE, SEGMENT_HEADER_SIZE, SegmentError, SegmentHeader, SegmentState,
};
use super::window::Window;
use super::{BlockPiece, Piece, Read, What};
use crate::id::{GroupId, Index};
use crate::limits::SECTOR_SIZE;

/// Cuts a segment's file into its pieces.
pub struct SegmentPieces<'r> {
    window: Window<'r>,
    position: u64,
    /// Whose blocks they are, once something sound has said so.
    group: Option<GroupId>,
    /// Index of the last sound block, or of the one before the segment.
    last: Index,
    /// Pieces found ahead of their turn.
    ahead: VecDeque<Piece>,
}

/// What begins at a place.
enum Start {
    Sound(BlockHeader, Bytes),
    /// A header that can be read, but its block is not sound.
    Damaged(BlockHeader, Bytes, BlockError),
    Footer(Result<SegmentFooter, SegmentError>, u64),
    Zeros,
    Unknown,
    Unreadable(What),
}

impl<'r> SegmentPieces<'r> {
    /// The file with these many bytes.
    pub fn new(size: u64, read: Box<Read<'r>>) -> Self {
        Self {
            window: Window::new(size, read),
            position: 0,
            group: None,
            last: Index(0),
            ahead: VecDeque::new(),
        }
    }

    /// The head, piece by piece: header and state, and both once more.
    fn head(&mut self) -> Piece {
        let mut header = self.header_at(0).1;
        if header.is_none() {
            let begin = self.window.bytes(0, SEGMENT_HEADER_SEARCH_SIZE);
            header = begin.ok().and_then(|begin| SegmentHeader::second(&begin));
        }
        let copy_size = header.map_or(0, |header| header.state.copy_size());
        if let Some(header) = &header {
            self.group = Some(header.group);
            self.last = Index(header.first_index.0 - 1);
        }
        let mut pieces = VecDeque::new();
        for at in [0, copy_size as u64] {
            if at < self.window.size() && (at > 0 || pieces.is_empty()) {
                pieces.push_back(self.header_at(at).0);
            }
            if let Some(header) = &header {
                pieces.extend(self.state_at(at + SEGMENT_HEADER_SIZE as u64, header));
            }
        }
        let first = pieces.pop_front().expect("the file has a byte at least");
        let last = pieces.back().unwrap_or(&first);
        self.position = self.window.behind(last.position, last.size);
        self.ahead = pieces;
        first
    }

    fn header_at(&mut self, position: u64) -> (Piece, Option<SegmentHeader>) {
        let (size, what) = match self.window.bytes(position, SEGMENT_HEADER_SIZE) {
            Ok(bytes) => (bytes.len(), What::Head(SegmentHeader::check(&bytes))),
            Err(fault) => (SEGMENT_HEADER_SIZE, What::Unreadable(fault)),
        };
        let header = match &what {
            What::Head(Ok(header)) => Some(*header),
            _ => None,
        };
        (self.sized(position, size as u64, what), header)
    }

    /// What stands between a header and what follows; none if nothing does.
    fn state_at(&mut self, position: u64, header: &SegmentHeader) -> Option<Piece> {
        let size = header.state.state_size();
        if size == 0 || self.window.size() <= position {
            return None;
        }
        let (size, what) = match self.window.bytes(position, size) {
            Ok(bytes) => (size, What::State(SegmentState::check(header, &bytes))),
            Err(fault) => (size, What::Unreadable(fault)),
        };
        Some(self.sized(position, size as u64, what))
    }

    /// A piece that ends with the file at the latest.
    fn sized(&self, position: u64, size: u64, what: What) -> Piece {
        Piece {
            position,
            size: size.min(self.window.size().saturating_sub(position)),
            what,
        }
    }

    /// The footer at a place, if something there says that it is one.
    fn footer(&mut self, position: u64) -> Option<Start> {
        if !position.is_multiple_of(SECTOR_SIZE as u64) {
            return None;
        }
        let bytes = self.window.bytes(position, SEGMENT_FOOTER_SIZE).ok()?;
        match SegmentFooter::check(&bytes) {
            Ok(footer) if footer.data_size == position => {
                Some(Start::Footer(Ok(footer), bytes.len() as u64))
            }
            // Of another place, or in a record.
            Ok(_) | Err(SegmentError::Magic) => None,
            Err(error) => Some(Start::Footer(Err(error), bytes.len() as u64)),
        }
    }

    /// What stands at a place, judged by its own sums and by whose segment this is.
    fn look(&mut self, position: u64) -> Start {
        let head = match self.window.bytes(position, BLOCK_HEADER_SIZE) {
            Ok(head) => head,
            Err(fault) => return Start::Unreadable(What::Unreadable(fault)),
        };
        if all_zero(&head[..head.len().min(BLOCK_ALIGN)]) {
            return Start::Zeros;
        }
        let Ok(header) = BlockHeader::read(&head) else {
            return self.footer(position).unwrap_or(Start::Unknown);
        };
        if self.group.is_some_and(|group| header.group != group) {
            return Start::Unknown;
        }
        let bytes = match self.window.bytes(position, header.size as usize) {
            Ok(bytes) => bytes,
            Err(fault) => return Start::Unreadable(What::Unreadable(fault)),
        };
        match Block::check(&bytes) {
            Ok(_) => Start::Sound(header, bytes),
            Err(error) => Start::Damaged(header, bytes, error),
        }
    }

    /// Whether a sound block, or the padding before one, or the file's end, is at a place: then what
    /// lies before it has the size that it claims.
    fn goes_on(&mut self, position: u64) -> bool {
        match self.look(position) {
            Start::Sound(header, _) => header.index > self.last,
            Start::Zeros => {
                let sector = self.window.sector(position);
                sector.is_ok_and(|sector| all_zero(&sector))
            }
            Start::Footer(footer, _) => footer.is_ok(),
            _ => position == self.window.size(),
        }
    }

    fn block(&mut self, header: BlockHeader, bytes: Bytes, error: Option<BlockError>) -> Piece {
        let (position, size) = (self.position, bytes.len() as u64);
        if error.is_none() {
            self.group = Some(header.group);
            self.last = self.last.max(header.index);
        }
        let block = BlockPiece {
            header,
            bytes,
            error,
        };
        self.piece(position, size, What::Block(block))
    }

    /// Zeros up to the next thing that is none. Each gathered write ends with some.
    fn zeros(&mut self) -> Piece {
        let begin = self.position;
        let mut end = begin;
        while end < self.window.size() {
            let Ok(sector) = self.window.sector(end) else {
                break;
            };
            let zeros = sector
                .chunks(BLOCK_ALIGN)
                .take_while(|unit| all_zero(unit))
                .map(<[u8]>::len)
                .sum::<usize>();
            end += zeros as u64;
            if zeros < sector.len() || zeros == 0 {
                break;
            }
        }
        self.piece(begin, end - begin, What::Zeros)
    }

    /// Bytes that are no block, up to the next one, a sector that cannot be read, or the end.
    fn unknown(&mut self) -> Piece {
        let begin = self.position;
        let mut end = begin + BLOCK_ALIGN as u64;
        // The end of what is not zero: zeros behind it are a piece of their own.
        let mut solid = end;
        while end < self.window.size() {
            match self.look(end) {
                Start::Sound(header, _) if header.index > self.last => break,
                Start::Unreadable(_) | Start::Footer(Ok(_), _) => break,
                Start::Zeros => {}
                _ => solid = end + BLOCK_ALIGN as u64,
            }
            end += BLOCK_ALIGN as u64;
        }
        let (end, solid) = (end.min(self.window.size()), solid.min(self.window.size()));
        if solid < end {
            let position = solid;
            let zeros = Piece {
                position,
                size: end - solid,
                what: What::Zeros,
            };
            self.ahead.push_back(zeros);
        }
        let piece = Piece {
            position: begin,
            size: solid - begin,
            what: What::Unknown,
        };
        self.position = end;
        piece
    }

    fn piece(&mut self, position: u64, size: u64, what: What) -> Piece {
        self.position = self.window.behind(position, size);
        Piece {
            position,
            size,
            what,
        }
    }
}

impl Iterator for SegmentPieces<'_> {
    type Item = Piece;

    fn next(&mut self) -> Option<Piece> {
        if let Some(piece) = self.ahead.pop_front() {
            return Some(piece);
        }
        if self.position >= self.window.size() {
            return None;
        }
        if self.position == 0 {
            return Some(self.head());
        }
        let position = self.position;
        Some(match self.look(position) {
            Start::Sound(header, bytes) => self.block(header, bytes, None),
            Start::Damaged(header, bytes, error)
                if bytes.len() == header.size as usize
                    && self.goes_on(position + u64::from(header.size)) =>
            {
                self.block(header, bytes, Some(error))
            }
            Start::Footer(footer, size) => self.piece(position, size, What::Footer(footer)),
            Start::Damaged(..) | Start::Unknown => self.unknown(),
            Start::Zeros => self.zeros(),
            Start::Unreadable(what) => {
                let size = SECTOR_SIZE as u64 - position % SECTOR_SIZE as u64;
                let size = size.min(self.window.size() - position);
                self.piece(position, size, what)
            }
        })
    }
}
