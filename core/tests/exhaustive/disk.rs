//! What a crash leaves of a node, and what a disk may lose. Knows no Raft.

use ringwood_core::id::{Index, Lsn};
use ringwood_core::log::{Base, Doubt, HardState, Tail};

use super::wire::Block;

/// What a disk loses, and is known to have lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Loss {
    /// The last block.
    Block,
    /// The term, as far as no block tells it, and the vote.
    Vote,
}

/// What a crash leaves.
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub(crate) struct Disk {
    pub(crate) hard: HardState,
    /// The first at index 1.
    pub(crate) log: Vec<Block>,
    /// What it may have lost of both.
    pub(crate) doubt: Doubt,
    /// Starts in doubt.
    pub(super) start_count: u64,
}

impl Disk {
    pub(super) fn take(&mut self, item: Item) {
        match item {
            Item::Hard(hard) => self.hard = hard,
            Item::Doubt(doubt) => self.doubt = doubt,
            Item::Block(index, block) => {
                self.log.truncate(index.0 as usize - 1);
                assert_eq!(self.log.len() as u64, index.0 - 1, "the journal has no gap");
                self.log.push(block);
            }
        }
    }

    pub(super) fn tail(&self) -> Tail {
        let mut tail = Tail::new(Base::default());
        for block in &self.log {
            tail.push(block.entry(Lsn(0), tail.next_offset()));
        }
        tail
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Item {
    Hard(HardState),
    Doubt(Doubt),
    Block(Index, Block),
}
