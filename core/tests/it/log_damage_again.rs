//! What recovery makes of a disk that loses again, after a first loss was dealt with, or that loses what
//! let other things go: nobody is sure who should not be.

use ringwood_core::id::{Index, Lsn};
use ringwood_core::log::Entry;
use ringwood_core::log::pieces::Hole;
use ringwood_core::log::recovery::{DiskFault, recover};

use crate::log_damage::{at, hole, holes, node, put_vote};
use crate::log_node::{GROUP, Node, RING};

/// As above, and what the leader wrote is lost in turn: another hole, in the place of the first.
#[test]
fn a_second_hole_does_not_hide_that_the_first_was_written_over() {
    let (mut node, entries) = node(&[1, 3, 1]);
    node.disk.visible[0][at(&entries[1]) + 300] ^= 1;
    let mut node = Node::unopened(node.disk);
    node.settle();
    let again = [900, 901].map(|size| node.put(size).expect("room"));
    node.settle();
    node.put(902).expect("room");
    node.settle();
    node.disk.visible[0][at(&again[0]) + 300] ^= 1;
    let recovered = node.disk.recover().expect("the rest is there");
    let group = &recovered.groups[&GROUP];
    let hole = Hole {
        first: Index(2),
        last: Index(2),
        sum: again[0].sum,
    };
    assert_eq!(holes(&recovered), [hole]);
    assert!(group.doubt.log && group.doubt.holes, "{:?}", group.doubt);
}

/// A life that doubts writes blocks, and they say nothing of what was lost before it.
#[test]
fn blocks_of_a_life_whose_beginning_is_lost_settle_no_doubt() {
    let (mut node, entries) = node(&[1, 1]);
    put_vote(&mut node);
    let lost = entries[1].place.lsn.0 as usize;
    node.disk.visible[0][lost + 8] ^= 4;
    let begin = node
        .disk
        .recover()
        .expect("the rest is there")
        .journal
        .head();
    let mut node = Node::unopened(node.disk);
    let end = node.journal.open_lsn().expect("room");
    node.settle();
    assert!(node.journal.doubt(GROUP).log);
    for _ in 0..2 {
        node.put(900).expect("room");
        node.settle();
    }
    let doubts = |node: &Node| {
        let recovered = node.disk.recover().expect("the rest is there");
        assert_eq!(recovered.groups[&GROUP].tail.last_index(), Index(3));
        recovered.groups[&GROUP].doubt.log
    };
    assert!(doubts(&node), "it says so itself");
    node.disk.visible[0][begin.0 as usize..end.0 as usize].fill(0);
    assert!(doubts(&node), "and where that is lost");
}

/// What is dealt with is no reason to take a flush that cannot be read for a torn one.
#[test]
fn a_last_flush_that_cannot_be_read_is_missed_whatever_was_lost_before() {
    let (mut node, entries) = node(&[1, 2, 1]);
    node.disk.visible[0][at(&entries[1]) + 300] ^= 1;
    let last = node.put(9_000).expect("room");
    node.settle();
    let lost = last.place.lsn.0 + 4096;
    let mut read = |slot: u32, position: u64, size: usize| {
        if slot == 0 && (position..position + size as u64).contains(&lost) {
            return Err(DiskFault { errno: 5 });
        }
        let bytes = &node.disk.visible[slot as usize][position as usize..][..size];
        Ok(bytes::Bytes::copy_from_slice(bytes))
    };
    let recovered = recover(&node.disk.identity, &mut read).expect("the rest is there");
    assert_eq!(holes(&recovered), [hole(&entries, 2, 2)]);
    assert!(recovered.groups[&GROUP].doubt.log);
}

/// A node whose blocks of file 0 are covered by a checkpoint in file 1, which says that file 0 is free
/// and ends at `end` or behind; and where that checkpoint's run stands.
fn covered(end: u64) -> (Node, Lsn) {
    let mut node = Node::new();
    while RING.file_of(node.journal.durable()) < 1 {
        node.put(20_000).expect("room");
        node.settle();
    }
    let checkpoint = node.checkpoint().expect("room");
    node.journal.seal();
    node.settle();
    node.journal.release_below(checkpoint);
    while node.journal.durable() < Lsn(end) {
        node.put(20_000).expect("room");
        node.settle();
    }
    // A block more, so that what was written last is promised.
    node.put(10).expect("room");
    node.settle();
    (node, checkpoint)
}

#[test]
fn what_a_lost_checkpoint_had_covered_is_kept_from_then_on() {
    let (mut node, checkpoint) = covered(RING.file_size + 200_000);
    let entries: Vec<Entry> = node.tail.entries().map(|(_, entry)| *entry).collect();
    node.disk.visible[1][(checkpoint.0 - RING.file_size) as usize..][..512].fill(0);
    let recovered = node.disk.recover().expect("the rest is there");
    let group = &recovered.groups[&GROUP];
    assert!(group.checkpoint.is_none() && group.pieces.is_none());
    let found: Vec<Entry> = group.tail.entries().map(|(_, entry)| *entry).collect();
    assert_eq!(found, entries);
    // Earlier lives say that file 0 is free. This one needs it, whatever they say.
    let mut node = Node::unopened(node.disk);
    node.fill();
    for _ in 0..2 {
        let recovered = node.disk.recover().expect("the rest is there");
        let group = &recovered.groups[&GROUP];
        assert!(!group.doubt.lacks_blocks());
        assert_eq!(group.tail.last_index(), node.tail.last_index());
        let first = group.tail.entry(Index(1));
        assert_eq!(first.map(|first| first.place), Some(entries[0].place));
        node = Node::unopened(node.disk);
        node.settle();
    }
}

#[test]
fn where_the_ring_is_too_full_to_keep_it_a_lost_checkpoints_blocks_are_doubted_at_once() {
    let (mut node, checkpoint) = covered(2 * RING.file_size - 150_000);
    let entries: Vec<Entry> = node.tail.entries().map(|(_, entry)| *entry).collect();
    node.disk.visible[1][(checkpoint.0 - RING.file_size) as usize..][..512].fill(0);
    let in_file_0 = entries
        .iter()
        .filter(|entry| RING.file_of(entry.place.lsn) == 0);
    let last = in_file_0.count() as u64;
    let recovered = node.disk.recover().expect("the rest is there");
    assert_eq!(holes(&recovered), [hole(&entries, 1, last)]);
    assert!(recovered.groups[&GROUP].doubt.lacks_blocks());
}
