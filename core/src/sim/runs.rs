//! What stands in a run, read without the journal's own code: blocks, votes and checkpoints by
//! their fixed layout (`docs/FORMAT.md`). Whoever writes wrongly must not be asked what it wrote.

use crate::id::{GroupId, Index, Lsn, NodeId, Term};
use crate::log::HardState;

const FLUSH_HEADER_SIZE: usize = 64;
const COPIES: u8 = 4;

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
    /// The group's segments hold everything through here.
    Checkpoint {
        group: GroupId,
        index: Index,
    },
}

/// One run, item by item.
#[derive(Clone, Debug)]
pub(super) struct Run {
    pub(super) lsn: Lsn,
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
            }),
            kind => panic!("an item of kind {kind} was written"),
        }
        at += u32_at(item, 0) as usize;
    }
    assert_eq!(at, end, "items fill their run");
    Run { lsn, items }
}
