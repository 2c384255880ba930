//! When the ring is full, what still goes in, and what makes room again. One story each.

use ringwood_core::id::{Epoch, GroupId, Index, Lsn, NodeId, Offset, ProducerId, Sequence, Term};
use ringwood_core::log::block::AppendHeader;
use ringwood_core::log::checkpoint::Checkpoint;
use ringwood_core::log::producers::Producers;
use ringwood_core::log::{HardState, Journal};

use crate::log_disk::Disk;
use crate::log_node::{GROUP, Node, RING};

#[test]
fn a_full_ring_refuses_blocks_takes_state_and_heals() {
    let mut node = Node::new();
    node.fill();
    assert_eq!(node.journal.pressure().size_free, 0);
    // Refused again and again, and after a restart, too.
    assert!(node.put(10).is_none());
    node = Node::unopened(node.disk);
    node.settle();
    assert!(node.put(50_000).is_none());
    // Votes go on, and so does what frees the ring.
    node.journal.open_lsn().expect("the reserve is for state");
    node.journal.put_hard_state(
        GROUP,
        HardState {
            term: Term(2),
            vote: Some(NodeId(3)),
        },
    );
    node.checkpoint().expect("the reserve is for state");
    node.journal.seal();
    node.settle();
    assert_eq!(
        node.journal.checkpoint_durable(GROUP),
        node.tail.last_index()
    );
    node.journal.release_below(node.journal.durable());
    assert!(
        node.put(10).is_none(),
        "nobody has durably said that the ring is free"
    );
    // Nothing else is to be written, so an empty flush says it.
    assert!(node.journal.seal());
    node.settle();
    assert!(node.put(50_000).is_some());
    node.settle();
    let recovered = node.disk.recover().expect("sound");
    assert_eq!(recovered.groups[&GROUP].hard.vote, Some(NodeId(3)));
}

#[test]
fn a_file_is_entered_only_once_a_durable_flush_gave_it_free() {
    let mut node = Node::new();
    node.fill();
    node.checkpoint().expect("the reserve is for state");
    node.journal.seal();
    node.settle();
    node.journal.release_below(node.journal.durable());
    let free = node.journal.pressure().files_free;
    assert!(node.journal.seal());
    node.submit();
    assert_eq!(
        node.journal.pressure().files_free,
        free,
        "said, but not durably"
    );
    assert!(node.put(10).is_none());
    let write = node.disk.complete(0);
    node.journal.stored(write);
    assert!(node.journal.pressure().files_free > free);
    assert!(node.put(10).is_some());
}

#[test]
fn ring_after_ring_is_written_over() {
    let mut node = Node::new();
    for round in 0..200 {
        node.put(20_000 + round * 37).expect("the ring is free");
        node.checkpoint().expect("the ring is free");
        node.journal.seal();
        node.settle();
        node.journal.release_below(node.journal.durable());
        if round % 9 == 0 {
            let last = node.tail.last_index();
            node = Node::unopened(node.disk);
            assert_eq!(node.tail.last_index(), last);
        }
    }
    let rounds = RING.file_of(node.journal.durable()) / u64::from(RING.file_count);
    assert!(rounds >= 3, "{rounds} rounds");
}

/// Groups whose state takes several runs: full windows of all producers they may have.
fn with_much_state() -> (Node, Vec<Checkpoint>) {
    let mut producers = Producers::default();
    for offset in 0..256 * 8 {
        let header = AppendHeader {
            payload_sum: 0,
            payload_size: 0,
            producer: ProducerId(offset / 8),
            sequence: Sequence(offset % 8),
            epoch: Epoch(0),
            record_count: 1,
        };
        producers.note(Index(1), Term(1), &header, Offset(offset));
    }
    let table = producers.snapshot_at(Index(1));
    let checkpoint = |group| Checkpoint {
        group: GroupId(group),
        index: Index(1),
        term: Term(1),
        block_sum: 7,
        next_offset: Offset(2048),
        segment: 0,
        segment_size: 8192,
        blocks_sum: 0,
        start: Offset(0),
        first_segment: 0,
        restores: false,
        producers: table.clone(),
    };
    let mut node = Node::new();
    let checkpoints: Vec<_> = (2..6).map(checkpoint).collect();
    for checkpoint in &checkpoints {
        node.journal.put_checkpoint(checkpoint).expect("room");
    }
    node.journal.seal();
    node.settle();
    (node, checkpoints)
}

/// That none of the journal's next flushes calls a file sufficient that is not, if only the flushes
/// before it are there.
fn check_claims(journal: &mut Journal) -> usize {
    let mut incomplete = 0;
    while let Some(store) = journal.next_store() {
        for run in &store.runs {
            // Header: lsn at 16, files kept at 62, flags at 63 (bit 1: the file has all state).
            let lsn = Lsn(u64::from_le_bytes(
                run[16..24].try_into().expect("eight bytes"),
            ));
            if RING.file_of(lsn) > 0 && run[63] & 2 == 0 {
                assert!(run[62] > 0, "{lsn}: the older file still holds some state");
                incomplete += 1;
            }
        }
        journal.stored(store.write);
        journal.release_below(journal.durable());
    }
    incomplete
}

#[test]
fn state_larger_than_a_run_is_whole_before_older_files_are_given_up() {
    let (mut node, checkpoints) = with_much_state();
    let mut incomplete = 0;
    while RING.file_of(node.journal.durable()) == 0 {
        node.put(50_000).expect("room");
        node.checkpoint().expect("room");
        node.journal.seal();
        while let Some(store) = node.journal.next_store() {
            // A crash with the first few runs stored. Then the next life releases all it can.
            for count in 0..=store.runs.len() {
                let mut disk = Disk::new(RING);
                disk.visible.clone_from(&node.disk.visible);
                let from = store.position as usize;
                let bytes = store.runs[..count].concat();
                disk.visible[store.slot as usize][from..from + bytes.len()].copy_from_slice(&bytes);
                let found = disk.recover().expect("sound");
                for checkpoint in &checkpoints {
                    let found = &found.groups[&checkpoint.group].checkpoint;
                    assert_eq!(found.as_ref(), Some(checkpoint));
                }
                let mut next = Node::unopened(disk);
                incomplete += check_claims(&mut next.journal);
                next.journal.open_lsn().expect("room");
                next.journal.seal();
                incomplete += check_claims(&mut next.journal);
            }
            node.disk.submit(store);
            let write = node.disk.complete(0);
            node.journal.stored(write);
            node.journal.release_below(node.journal.durable());
        }
    }
    assert!(incomplete > 0, "state was to take several runs");
}
