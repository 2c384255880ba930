//! What stands in a run, read without the journal's own code: blocks, votes and checkpoints by
//! their fixed layout (`docs/FORMAT.md`). Whoever writes wrongly must not be asked what it wrote.

use crate::id::{GroupId, Index, Lsn, NodeId, Term};
use crate::log::HardState;

const FLUSH_HEADER_SIZE: usize = 64;
const BLOCK_HEADER_SIZE: usize = 64;
const APPEND_HEADER_SIZE: usize = 32;
const ALIGN: usize = 16;
const COPIES: u8 = 4;
/// Detail of a block that is a trim, and of a checkpoint that restores.
const TRIM: u8 = 3;
const RESTORES: u8 = 1;

/// What a sector of the persist record says was durable.
pub(super) fn recorded(sector: &[u8]) -> Lsn {
    let bytes = sector[24..32].try_into().expect("eight bytes were sliced");
    Lsn(u64::from_le_bytes(bytes))
}

/// One item of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Item {
    Block {
        group: GroupId,
        index: Index,
        term: Term,
        sum: u32,
    },
    Hard {
        group: GroupId,
        hard: HardState,
    },
    /// The group's segments hold everything through here; or the group begins anew behind it.
    Checkpoint {
        group: GroupId,
        index: Index,
        sum: u32,
        restores: bool,
    },
}

/// One append of a block, without its records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Appended {
    pub(super) producer: u64,
    pub(super) epoch: u32,
    pub(super) sequence: u64,
    pub(super) record_count: u32,
}

/// The appends of a block in a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Content {
    pub(super) group: GroupId,
    pub(super) index: Index,
    pub(super) sum: u32,
    pub(super) appends: Vec<Appended>,
    /// The log's new first offset, if the block is a trim.
    pub(super) trim: Option<u64>,
}

/// One run, item by item.
#[derive(Clone, Debug)]
pub(super) struct Run {
    pub(super) lsn: Lsn,
    pub(super) size: usize,
    /// All below was durable when it was sealed.
    pub(super) durable_through: Lsn,
    pub(super) items: Vec<Item>,
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("4 bytes"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("8 bytes"))
}

/// Reads a whole run.
pub(super) fn read(bytes: &[u8]) -> Run {
    assert_eq!(&bytes[..4], b"RWFL", "a run begins with its flush header");
    let lsn = Lsn(u64_at(bytes, 16));
    let end = FLUSH_HEADER_SIZE + u32_at(bytes, 36) as usize;
    let is_copy = bytes[63] & COPIES != 0;
    let mut items = Vec::new();
    let mut at = FLUSH_HEADER_SIZE;
    while at < end {
        let item = &bytes[at..];
        let group = GroupId(u32_at(item, 12));
        match item[4] {
            1 if is_copy => {}
            1 => items.push(Item::Block {
                group,
                index: Index(u64_at(item, 16)),
                term: Term(u64_at(item, 24)),
                sum: u32_at(item, 8),
            }),
            2 => {
                let vote = u64_at(item, 24);
                let vote = (vote != 0).then_some(NodeId(vote));
                items.push(Item::Hard {
                    group,
                    hard: HardState {
                        term: Term(u64_at(item, 16)),
                        vote,
                    },
                });
            }
            3 => items.push(Item::Checkpoint {
                group,
                index: Index(u64_at(item, 16)),
                sum: u32_at(item, 48),
                restores: item[7] == RESTORES,
            }),
            // Of losses, which no replica is made of.
            4 => {}
            kind => panic!("an item of kind {kind} was written"),
        }
        at += u32_at(item, 0) as usize;
    }
    assert_eq!(at, end, "items fill their run");
    Run {
        lsn,
        size: u32_at(bytes, 32) as usize,
        durable_through: Lsn(u64_at(bytes, 48)),
        items,
    }
}

/// Reads the appends of every block of a run that has some.
pub(super) fn contents(bytes: &[u8]) -> Vec<Content> {
    let end = FLUSH_HEADER_SIZE + u32_at(bytes, 36) as usize;
    let mut contents = Vec::new();
    let mut at = FLUSH_HEADER_SIZE;
    while at < end {
        let item = &bytes[at..];
        let size = u32_at(item, 0) as usize;
        let append_count = u32_at(item, 44);
        if item[4] == 1 && append_count > 0 {
            let is_trim = item[7] == TRIM;
            let payload_at = BLOCK_HEADER_SIZE + APPEND_HEADER_SIZE;
            contents.push(Content {
                group: GroupId(u32_at(item, 12)),
                index: Index(u64_at(item, 16)),
                sum: u32_at(item, 8),
                appends: if is_trim {
                    Vec::new()
                } else {
                    appends(&item[..size], append_count)
                },
                trim: is_trim.then(|| u64_at(item, payload_at)),
            });
        }
        at += size;
    }
    contents
}

fn appends(block: &[u8], count: u32) -> Vec<Appended> {
    let mut at = BLOCK_HEADER_SIZE;
    let one = |_| {
        let append = &block[at..];
        let size = APPEND_HEADER_SIZE + u32_at(append, 4) as usize;
        at += size.next_multiple_of(ALIGN);
        Appended {
            producer: u64_at(append, 8),
            sequence: u64_at(append, 16),
            epoch: u32_at(append, 24),
            record_count: u32_at(append, 28),
        }
    };
    (0..count).map(one).collect()
}
