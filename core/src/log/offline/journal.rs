//! A journal's file as flushes, and what lies between them.
//!
//! The file is written over from its start, so behind its newest flush lies what an older round of
//! the ring left: whole flushes, and first the rest of one that was overrun. Which of them count is
//! recovery's word, not told here.

use bytes::Bytes;

use super::super::fields::all_zero;
use super::super::flush::{FLUSH_HEADER_SIZE, Flush, FlushHeader, Item, check_item};
use super::super::item::{ITEM_ALIGN, ITEM_HEADER_SIZE, ItemHeader};
use super::super::ring::Ring;
use super::super::votes::has_sound_copy;
use super::window::Window;
use super::{FlushPiece, ItemPiece, ItemSeen, Piece, Read, What};
use crate::limits::SECTOR_SIZE;

/// Cuts a file of a journal into its pieces.
pub struct JournalPieces<'r> {
    ring: Ring,
    window: Window<'r>,
    position: u64,
    /// The mark of the node whose flushes these are. A record may hold bytes that look like a
    /// flush, but not with the node's mark, which no client knows.
    node_tag: Option<u32>,
}

/// What a sector begins.
enum Start {
    Flush(FlushHeader),
    Gap(What),
}

impl<'r> JournalPieces<'r> {
    /// The file with these many bytes. `node_tag` is the node's; where it is not known, that of the
    /// first flush found.
    pub fn new(ring: Ring, size: u64, node_tag: Option<u32>, read: Box<Read<'r>>) -> Self {
        Self {
            ring,
            window: Window::new(size, read),
            position: 0,
            node_tag,
        }
    }

    fn look(&mut self, position: u64) -> Start {
        let sector = match self.window.sector(position) {
            Ok(sector) => sector,
            Err(fault) => return Start::Gap(What::Unreadable(fault)),
        };
        match FlushHeader::read(&sector) {
            Ok(header) if self.belongs(&header, position) => Start::Flush(header),
            _ if all_zero(&sector) => Start::Gap(What::Zeros),
            _ => Start::Gap(What::Unknown),
        }
    }

    /// Whether a sound header is of this node and stands in its place.
    fn belongs(&mut self, header: &FlushHeader, position: u64) -> bool {
        let is_placed = self.ring.locate(header.lsn).1 == position;
        is_placed && *self.node_tag.get_or_insert(header.node_tag) == header.node_tag
    }

    fn flush(&mut self, header: FlushHeader) -> Piece {
        let position = self.position;
        let bytes = self.window.bytes(position, header.size as usize);
        let (size, what) = match bytes {
            Ok(bytes) => {
                let piece = flush_piece(header, &bytes);
                (bytes.len(), What::Flush(piece))
            }
            // Its other sectors are looked at one by one.
            Err(fault) => (SECTOR_SIZE, What::Unreadable(fault)),
        };
        self.piece(size as u64, what)
    }

    /// What is no flush goes on to the next one, or to where it is something else.
    fn gap(&mut self, what: What) -> Piece {
        let mut end = self.position + SECTOR_SIZE as u64;
        while end < self.window.size() {
            match self.look(end) {
                Start::Gap(next) if is_same(&next, &what) => end += SECTOR_SIZE as u64,
                _ => break,
            }
        }
        let size = end.min(self.window.size()) - self.position;
        self.piece(size, what)
    }

    fn piece(&mut self, size: u64, what: What) -> Piece {
        let position = self.position;
        self.position = self.window.behind(position, size);
        Piece {
            position,
            size,
            what,
        }
    }
}

impl Iterator for JournalPieces<'_> {
    type Item = Piece;

    fn next(&mut self) -> Option<Piece> {
        if self.position >= self.window.size() {
            return None;
        }
        Some(match self.look(self.position) {
            Start::Flush(header) => self.flush(header),
            Start::Gap(what) => self.gap(what),
        })
    }
}

fn is_same(one: &What, other: &What) -> bool {
    matches!(
        (one, other),
        (What::Zeros, What::Zeros) | (What::Unknown, What::Unknown)
    )
}

fn flush_piece(header: FlushHeader, bytes: &Bytes) -> FlushPiece {
    let checked = Flush::check(bytes);
    let has_votes = checked.as_ref().ok().map(Flush::has_votes);
    FlushPiece {
        header,
        copy_is_sound: (has_votes == Some(true)).then(|| has_sound_copy(&header, bytes)),
        error: checked.err(),
        items: items(&header, bytes),
    }
}

/// The items one by one. One that is damaged is stepped over by the size it claims, as long as that
/// can be; what comes behind is judged by its own sums.
fn items(header: &FlushHeader, bytes: &Bytes) -> Vec<ItemPiece> {
    let end = (FLUSH_HEADER_SIZE + header.items_size as usize).min(bytes.len());
    let mut items = Vec::new();
    let mut at = FLUSH_HEADER_SIZE.min(end);
    while at < end {
        let rest = bytes.slice(at..end);
        let claimed = ItemHeader::read(&rest).ok();
        let checked = check_item(&rest).map(|(item, size)| (seen(&item), size));
        let (item, size) = match checked {
            Ok((item, size)) => (Ok(item), size),
            Err(error) => {
                let size = claimed.map_or(rest.len(), |claimed| claimed.size as usize);
                (Err((error, claimed.map(|claimed| claimed.group))), size)
            }
        };
        assert!(
            size >= ITEM_HEADER_SIZE || size == rest.len(),
            "the walk goes on"
        );
        let size = size.next_multiple_of(ITEM_ALIGN).min(rest.len());
        items.push(ItemPiece {
            offset: at as u32,
            bytes: rest.slice(..size),
            item,
        });
        at += size;
    }
    items
}

fn seen(item: &Item<'_>) -> ItemSeen {
    match item {
        Item::Block(block) => ItemSeen::Block(*block.header()),
        Item::HardState { group, hard, doubt } => ItemSeen::HardState {
            group: *group,
            hard: *hard,
            doubt: *doubt,
        },
        Item::Checkpoint(checkpoint) => ItemSeen::Checkpoint(checkpoint.clone()),
        Item::Scars(scars) => ItemSeen::Scars(scars.iter().map(|scar| scar.from).collect()),
    }
}
