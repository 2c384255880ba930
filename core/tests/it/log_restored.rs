//! A log that begins anew behind blocks it never had: what each crash around that brings back.

use ringwood_core::id::{Index, Offset, Term};
use ringwood_core::log::checkpoint::Checkpoint;
use ringwood_core::log::producers::ProducerTable;
use ringwood_core::log::{Base, HardState, Tail};

use crate::log_node::{GROUP, Node};

fn base() -> Base {
    Base {
        index: Index(40),
        term: Term(1),
        sum: 0xABCD,
        next_offset: Offset(900),
    }
}

/// Puts the checkpoint that voids all before it.
fn restore(node: &mut Node) {
    let base = base();
    let checkpoint = Checkpoint {
        group: GROUP,
        index: base.index,
        term: base.term,
        block_sum: base.sum,
        next_offset: base.next_offset,
        segment: 3,
        segment_size: 0,
        blocks_sum: 0,
        start: Offset(905),
        first_segment: 3,
        restores: true,
        producers: ProducerTable::default(),
    };
    node.journal.put_checkpoint(&checkpoint).expect("room");
    node.tail = Tail::new(base);
}

/// A log of 6 blocks of which none is in segments, some of them put again.
fn node() -> Node {
    let mut node = Node::new();
    node.journal.open_lsn().expect("room");
    let hard = HardState {
        term: Term(1),
        vote: None,
    };
    node.journal.put_hard_state(GROUP, hard);
    for _ in 0..6 {
        node.put(1000).expect("room");
    }
    node.settle();
    node
}

#[test]
fn a_crash_before_it_is_durable_brings_the_old_log_back() {
    let mut node = node();
    restore(&mut node);
    node.journal.seal();
    // Sealed, not written: gone with the memory.
    let recovered = node.disk.recover().expect("sound");
    let group = &recovered.groups[&GROUP];
    assert_eq!(group.tail.last_index(), Index(6));
    assert_eq!(group.commit, Index(5), "as the last block says");
    assert_eq!(group.trims.start(), Offset(0));
}

#[test]
fn behind_it_only_what_came_behind_it_is_there() {
    let mut node = node();
    restore(&mut node);
    node.journal.seal();
    for count in 0..4 {
        node.settle();
        let recovered = node.disk.recover().expect("sound");
        let group = &recovered.groups[&GROUP];
        assert_eq!(group.tail.base(), base());
        assert_eq!(group.tail.last_index(), Index(40 + count));
        assert_eq!(group.commit, Index(40 + count.saturating_sub(1)));
        assert_eq!(group.trims.start(), Offset(905));
        node.put(1000).expect("room");
    }
}

#[test]
fn its_repetitions_void_nothing() {
    let mut node = node();
    restore(&mut node);
    // Through several files, at whose starts it is repeated, and through restarts.
    let mut count = 0;
    for round in 0..8 {
        for _ in 0..4 {
            if node.put(40_000).is_some() {
                count += 1;
            }
            node.settle();
        }
        // The files before hold nothing that is needed but the blocks.
        node = Node::unopened(node.disk);
        node.settle();
        assert_eq!(node.tail.last_index(), Index(40 + count), "round {round}");
        assert_eq!(node.tail.base(), base());
    }
    assert!(count > 15, "{count} blocks are more than a file takes");
}
