//! The journal's promises about runs, writes and memory, one story each.

use bytes::Bytes;
use ringwood_core::id::{Index, Lsn, NodeId, Term};
use ringwood_core::log::HardState;
use ringwood_core::log::block::Block;
use ringwood_core::log::ring::Ring;

use crate::log_disk::Disk;
use crate::log_node::{GROUP, Node, RING};

#[test]
fn nothing_leaves_before_the_flush_that_opens_a_life_is_durable() {
    let mut node = Node::unopened(Disk::new(RING));
    assert!(!node.journal.is_open());
    node.put(10).expect("room");
    let opening = node.journal.next_store().expect("the opening flush");
    assert!(opening.opens_life && opening.runs.len() == 1);
    assert!(node.journal.next_store().is_none());
    assert!(node.journal.stored(opening.write) > Lsn(0));
    assert!(node.journal.is_open());
    let next = node.journal.next_store().expect("the block");
    assert!(!next.opens_life);
}

#[test]
fn durable_is_the_complete_prefix_whatever_order_writes_complete_in() {
    let mut node = Node::new();
    let first = node.put(10).expect("room");
    let one = node.journal.next_store().expect("one");
    let second = node.put(10).expect("room");
    let two = node.journal.next_store().expect("two");
    let third = node.put(10).expect("room");
    let fourth = node.put(10).expect("room");
    assert!(node.journal.next_store().is_none(), "two are in flight");
    let before = node.journal.durable();
    assert_eq!(node.journal.stored(two.write), before);
    assert_eq!(node.tail.durable_index(node.journal.durable()), Index(0));
    // The next takes all that waits.
    let three = node.journal.next_store().expect("three");
    assert_eq!(three.runs.len(), 2);
    assert_eq!(RING.locate(third.place.lsn), (three.slot, three.position));
    let durable = node.journal.stored(one.write);
    assert!(durable > first.place.lsn && durable > second.place.lsn);
    assert!(durable <= third.place.lsn);
    assert_eq!(node.tail.durable_index(durable), Index(2));
    let durable = node.journal.stored(three.write);
    assert!(durable > fourth.place.lsn);
}

#[test]
fn a_store_stays_within_one_file() {
    let mut node = Node::new();
    let mut files = Vec::new();
    while RING.file_of(node.journal.durable()) < 3 {
        for _ in 0..20 {
            if node.put(50_000).is_none() {
                break;
            }
        }
        node.checkpoint().expect("the reserve is for state");
        node.journal.seal();
        while let Some(store) = node.journal.next_store() {
            let size: usize = store.runs.iter().map(Bytes::len).sum();
            assert!(store.position + size as u64 <= RING.file_size);
            files.push(store.slot);
            node.disk.submit(store);
            let write = node.disk.complete(0);
            node.journal.stored(write);
        }
        node.journal.release_below(node.journal.durable());
        node.journal.seal();
    }
    assert!(files.contains(&1) && files.contains(&2));
}

#[test]
fn sealed_runs_are_read_from_memory_and_memory_is_bounded() {
    let mut node = Node::new();
    let entry = node.put(1000).expect("room");
    let bytes = node.journal.block(&entry).expect("sealed just now");
    assert_eq!(
        Block::check(&bytes).expect("as built").header().index,
        Index(1)
    );
    assert!(bytes.as_ptr().addr().is_multiple_of(16));
    // A reader that keeps a slice of every run, and a disk that never answers: backpressure.
    let mut held = vec![bytes];
    let mut node = Node::unopened(Disk::new(Ring::STANDARD));
    node.settle();
    while let Some(entry) = node.put(1 << 20) {
        held.push(node.journal.block(&entry).expect("sealed just now"));
        assert!(held.len() < 200, "memory was to be bounded");
    }
    assert_eq!(node.journal.open_lsn(), None);
    assert!(node.put(10).is_none());
    // Stored but still held; then let go.
    node.settle();
    assert_eq!(node.journal.open_lsn(), None);
    held.clear();
    for _ in 0..100 {
        node.put(1 << 20).expect("memory came back");
        node.settle();
    }
}

#[test]
fn a_block_switches_to_another_run_when_the_open_one_is_full() {
    let mut node = Node::new();
    let mut lsns = Vec::new();
    for _ in 0..10 {
        let bytes = node.block(15_000);
        let entry = node
            .journal
            .copy_block(&Block::check(&bytes).expect("as built"));
        let entry = entry.expect("room");
        node.tail.push(entry);
        lsns.push(entry.place.lsn);
        assert_eq!(node.journal.open_lsn(), Some(entry.place.lsn));
    }
    node.journal.seal();
    lsns.dedup();
    assert!(lsns.len() > 1);
    node.settle();
    let recovered = node.disk.recover().expect("sound");
    assert_eq!(recovered.groups[&GROUP].tail, node.tail);
}

#[test]
fn a_step_puts_a_few_hard_states_into_the_run_it_was_told_of() {
    let mut node = Node::new();
    let mut rolled = 0;
    for term in 1..2000 {
        let lsn = node.journal.open_lsn().expect("room");
        // Even where the run is full to the brim: what was told once holds for the step.
        for vote in [None, Some(NodeId(1))] {
            assert_eq!(node.journal.run_lsn(), Some(lsn));
            node.journal.put_hard_state(
                GROUP,
                HardState {
                    term: Term(term),
                    vote,
                },
            );
        }
        rolled += u32::from(node.journal.open_lsn() != Some(lsn));
    }
    assert!(rolled > 0, "runs were to fill up");
    node.journal.seal();
    node.settle();
    let hard = node.disk.recover().expect("sound").groups[&GROUP].hard;
    assert_eq!(
        hard,
        HardState {
            term: Term(1999),
            vote: Some(NodeId(1))
        }
    );
}

/// Raft cuts what contradicts a leader's block before the block is copied. Were there no room then,
/// nothing would stand in the cut's place, the cut blocks' file would be kept for good, and so no
/// block would find room ever after.
#[test]
fn whoever_was_told_that_there_is_room_finds_room() {
    for start_size in (1..60_000).step_by(3_001) {
        let mut node = Node::new();
        let mut sizes = [start_size, 60_000, 4_000, 30_000].into_iter().cycle();
        for turn in 0.. {
            assert!(turn < 100, "the ring was to become full");
            let mut is_full = false;
            // Several blocks a turn: the open run has less and less room.
            for size in sizes.by_ref().take(5) {
                if !node.journal.takes_copies(0) {
                    is_full = true;
                    break;
                }
                let bytes = node.block(size);
                let block = Block::check(&bytes).expect("as built");
                let entry = node.journal.copy_block(&block);
                node.tail.push(entry.expect("it was told of room"));
            }
            node.journal.seal();
            node.settle();
            if is_full {
                break;
            }
        }
    }
}
