//! What is left of a flush whose header is sound and whose items are not.
//!
//! Walks the items as `flush` does, but goes on behind what is damaged as far as sizes can be
//! believed. Does not know what the items mean for a group.
//!
//! A block's size is believed if the sum over its header and append headers is right: then only a
//! payload is lost, and which block that was is known. Behind an item of which nothing is right the
//! rest is searched for whole blocks. What is found so is *loose*: a client can put anything into a
//! record, also what looks like a block, so it counts only where a sum asks for it that the client
//! could not know.

use super::block::{Block, BlockHeader};
use super::flush::{FLUSH_HEADER_SIZE, FlushHeader, Item, check_item};
use super::item::{ITEM_ALIGN, check_hard_state};
use super::votes::Votes;

/// An item of a damaged flush.
#[derive(Clone, Debug)]
pub(super) enum Salvaged<'a> {
    /// Whole.
    Whole(Item<'a>),
    /// A block whose header is right and whose payload is not.
    Lost(BlockHeader),
    /// A whole block that nothing vouches for.
    Loose(Block<'a>),
}

/// What is left of a flush.
#[derive(Debug)]
pub(super) struct Salvage<'a> {
    /// Each with its offset in the flush, in order.
    pub(super) items: Vec<(u32, Salvaged<'a>)>,
    /// Nothing else stood in the flush but perhaps votes.
    pub(super) has_all_blocks: bool,
    /// Every hard state of the flush is here.
    pub(super) has_all_votes: bool,
}

impl<'a> Salvage<'a> {
    /// Takes what is whole from `bytes`, a flush with this header.
    pub(super) fn of(header: &FlushHeader, bytes: &'a [u8]) -> Self {
        let items_end = FLUSH_HEADER_SIZE + header.items_size as usize;
        let mut items = Vec::new();
        let mut at = FLUSH_HEADER_SIZE;
        let mut is_framed = true;
        while at < items_end {
            let rest = &bytes[at..items_end];
            if is_framed {
                if let Ok((item, size)) = check_item(rest) {
                    items.push((at as u32, Salvaged::Whole(item)));
                    at += size;
                    continue;
                }
                if let Some(lost) = Block::check_headers(rest) {
                    items.push((at as u32, Salvaged::Lost(lost)));
                    at += lost.size as usize;
                    continue;
                }
                is_framed = false;
            } else if let Ok(block) = Block::check(rest) {
                items.push((at as u32, Salvaged::Loose(block)));
                at += block.bytes().len();
                continue;
            }
            at += ITEM_ALIGN;
        }
        let has_votes = header.votes_at() < header.size as usize;
        let copy = bytes
            .get(header.votes_at()..header.size as usize)
            .and_then(Votes::check)
            .filter(|copy| copy.header == *header);
        if let Some(copy) = &copy {
            items.retain(|(_, item)| !matches!(item, Salvaged::Whole(Item::HardState { .. })));
            for (offset, item) in copy.votes() {
                if let Ok((group, hard, doubt)) = check_hard_state(item) {
                    let item = Item::HardState { group, hard, doubt };
                    items.push((offset as u32, Salvaged::Whole(item)));
                }
            }
            items.sort_by_key(|(offset, _)| *offset);
        }
        Self {
            items,
            has_all_blocks: is_framed,
            has_all_votes: is_framed || !has_votes || copy.is_some(),
        }
    }
}
