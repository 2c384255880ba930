//! What recovery believes, mends and refuses. One story each.

use bytes::Bytes;
use ringwood_core::frame::sum::crc32c;
use ringwood_core::id::{Index, Lsn, NodeId, Term};
use ringwood_core::log::block::Block;
use ringwood_core::log::recovery::{DiskFault, Finding, RecoveryError, recover};
use ringwood_core::log::{Doubt, HardState, Journal};

use crate::log_disk::{Rng, recover_image};
use crate::log_node::{GROUP, Node, RING};

#[test]
fn a_life_whose_number_was_seen_is_not_begun_again() {
    let mut node = Node::new();
    node.put(10).expect("room");
    node.settle();
    let node = Node::unopened(node.disk);
    let life = node.journal.life();
    let mut journal = node.journal;
    let opening = journal.next_store().expect("the opening flush");
    // Its header is on disk, and whole; what follows is not.
    let mut image = node.disk.visible.clone();
    let from = opening.position as usize;
    image[opening.slot as usize][from..from + 4096].copy_from_slice(&opening.runs[0][..4096]);
    image[opening.slot as usize][from + 4095] ^= 1;
    let recovered = recover_image(&node.disk.identity, &image).expect("never promised");
    assert_eq!(recovered.journal.life(), life);
    assert_eq!(Journal::open(recovered.journal).life(), life + 1);
}

#[test]
fn a_vote_survives_the_loss_of_either_copy() {
    let mut node = Node::new();
    let hard = HardState {
        term: Term(5),
        vote: Some(NodeId(2)),
    };
    let lsn = node.journal.open_lsn().expect("room");
    node.journal.put_hard_state(GROUP, hard);
    node.journal.seal();
    node.settle();
    node.put(100).expect("room");
    node.settle();
    let (slot, position) = RING.locate(lsn);
    for (sector, finding) in [
        (0, Finding::Mended { lsn }),
        (1, Finding::VoteCopyLost { lsn }),
    ] {
        for size in [1, 512, 4096] {
            let mut image = node.disk.visible.clone();
            let from = position as usize + sector * 4096;
            image[slot as usize][from..from + size].fill(0xFF);
            let recovered = recover_image(&node.disk.identity, &image).expect("mended");
            assert_eq!(recovered.groups[&GROUP].hard, hard);
            assert_eq!(recovered.groups[&GROUP].tail.last_index(), Index(1));
            assert_eq!(recovered.findings, [finding]);
        }
    }
    // Both: promised, and gone. The block behind names none before it, so no block is.
    let mut image = node.disk.visible.clone();
    image[slot as usize][position as usize..position as usize + 8192].fill(0xFF);
    let recovered = recover_image(&node.disk.identity, &image).expect("the rest is there");
    let group = &recovered.groups[&GROUP];
    let doubt = Doubt {
        log: false,
        vote: true,
        holes: false,
    };
    assert_eq!((group.doubt, group.tail.last_index()), (doubt, Index(1)));
    assert!(group.pieces.is_none());
    let to = Lsn(lsn.0 + 8192);
    assert_eq!(recovered.findings, [Finding::Gap { from: lsn, to }]);
}

#[test]
fn a_hard_state_beside_blocks_is_mended_in_place() {
    let mut node = Node::new();
    let hard = HardState {
        term: Term(5),
        vote: Some(NodeId(2)),
    };
    let bytes = node.block(9000);
    let entry = node
        .journal
        .copy_block(&Block::check(&bytes).expect("as built"))
        .expect("room");
    let at = node.journal.open_lsn().expect("room");
    assert_eq!(at, entry.place.lsn);
    node.journal.put_hard_state(GROUP, hard);
    node.journal.seal();
    node.settle();
    let (slot, position) = RING.locate(entry.place.lsn);
    let vote = position as usize + entry.place.offset as usize + entry.size as usize;
    let mut image = node.disk.visible.clone();
    image[slot as usize][vote..vote + 32].fill(0x55);
    let recovered = recover_image(&node.disk.identity, &image).expect("mended");
    assert_eq!(recovered.groups[&GROUP].hard, hard);
    // A lost block is not to be had from the second copy: nobody promised it, so it is dropped.
    image[slot as usize][position as usize + 4096..][..64].fill(0x55);
    let recovered = recover_image(&node.disk.identity, &image).expect("not promised");
    assert!(!recovered.groups.contains_key(&GROUP));
    assert_eq!(
        recovered.findings,
        [Finding::Dropped {
            lsn: entry.place.lsn
        }]
    );
}

/// Every combination of sectors of two writes in flight being there or not.
#[test]
fn every_subset_of_unstored_sectors_recovers_to_a_prefix_of_runs() {
    let mut node = Node::new();
    node.put(100).expect("room");
    node.settle();
    let start = node.journal.durable();
    let mut ends = vec![start];
    let mut hards = vec![HardState::default()];
    for (size, vote) in [(5000, false), (10, true), (20, false), (4200, true)] {
        let bytes = node.block(size);
        let block = Block::check(&bytes).expect("as built");
        let entry = node.journal.copy_block(&block).expect("room");
        node.tail.push(entry);
        let mut hard = *hards.last().expect("the first");
        if vote {
            hard = HardState {
                term: Term(hard.term.0 + 1),
                vote: Some(NodeId(9)),
            };
            node.journal.open_lsn().expect("room");
            node.journal.put_hard_state(GROUP, hard);
        }
        node.journal.seal();
        hards.push(hard);
        let run = node.journal.run(entry.place.lsn).expect("sealed just now");
        ends.push(Lsn(entry.place.lsn.0 + run.len() as u64));
    }
    let mut full = node.disk.visible.clone();
    let (mut from, mut to) = (usize::MAX, 0);
    while let Some(store) = node.journal.next_store() {
        let bytes = store.runs.concat();
        from = from.min(store.position as usize);
        to = to.max(store.position as usize + bytes.len());
        full[0][store.position as usize..][..bytes.len()].copy_from_slice(&bytes);
    }
    let sectors = (to - from) / 4096;
    assert!((8..=12).contains(&sectors), "{sectors} sectors");
    let mut heads = vec![0; ends.len()];
    for subset in 0..1_u32 << sectors {
        let mut image = node.disk.visible.clone();
        for sector in (0..sectors).filter(|sector| subset & 1 << sector != 0) {
            let at = from + sector * 4096;
            image[0][at..at + 4096].copy_from_slice(&full[0][at..at + 4096]);
        }
        let recovered =
            recover_image(&node.disk.identity, &image).expect("nothing promised is lost");
        let head = recovered.journal.head();
        let runs = ends
            .iter()
            .position(|end| *end == head)
            .expect("the end of a run");
        heads[runs] += 1;
        let group = &recovered.groups[&GROUP];
        assert_eq!(group.hard, hards[runs]);
        assert_eq!(group.tail.last_index(), Index(1 + runs as u64));
        assert!(group.tail.entries().eq(node.tail.entries().take(1 + runs)));
    }
    assert!(heads.iter().all(|count| *count > 0), "{heads:?}");
}

#[test]
fn a_leftover_of_an_older_life_never_continues_a_newer_one() {
    // Life 1 wrote P, Q and R; Q was lost. Life 2 opens in Q's place, with a flush of Q's size: R
    // stands right behind it, whole.
    let mut node = Node::new();
    node.put(10).expect("room");
    node.settle();
    let lost = node.put(10).expect("room").place.lsn;
    node.settle();
    let leftover = node.put(10).expect("room").place.lsn;
    node.settle();
    let mut image = node.disk.visible.clone();
    image[0][lost.0 as usize..leftover.0 as usize].fill(0);
    // It was promised, so take the promise out of R's header; the sum with it.
    let at = leftover.0 as usize;
    let restamp = |header: &mut [u8]| {
        header[4..8].fill(0);
        let sum = crc32c(header);
        header[4..8].copy_from_slice(&sum.to_le_bytes());
    };
    image[0][at + 48..at + 56].copy_from_slice(&lost.0.to_le_bytes());
    restamp(&mut image[0][at..at + 64]);
    let recovered = recover_image(&node.disk.identity, &image).expect("not promised");
    assert_eq!(recovered.journal.head(), lost);
    assert_eq!(recovered.findings, [Finding::Dropped { lsn: lost }]);
    let mut journal = Journal::open(recovered.journal);
    let opening = journal.next_store().expect("the opening flush");
    assert_eq!((opening.position, opening.runs[0].len()), (lost.0, 4096));
    image[0][lost.0 as usize..at].copy_from_slice(&opening.runs[0]);
    let head = |image: &[Vec<u8>]| {
        let recovered = recover_image(&node.disk.identity, image).expect("nothing was promised");
        assert_eq!(recovered.journal.life(), 2);
        recovered.journal.head()
    };
    assert_eq!(head(&image), leftover);
    // Even if R named the opening flush by its sum, its life forbids.
    let sum: [u8; 4] = image[0][lost.0 as usize + 4..][..4]
        .try_into()
        .expect("four bytes");
    let named = |life: u64, sum: [u8; 4], flags: u8| {
        let mut image = image.clone();
        image[0][at + 8..at + 16].copy_from_slice(&life.to_le_bytes());
        image[0][at + 44..at + 48].copy_from_slice(&sum);
        image[0][at + 63] = flags;
        restamp(&mut image[0][at..at + 64]);
        image
    };
    let (complete, opens) = (2, 3);
    assert_eq!(head(&named(1, sum, complete)), leftover);
    assert_eq!(head(&named(1, sum, opens)), leftover);
    // Of the same life but opening one; and of the same life but naming another flush.
    assert_eq!(head(&named(2, sum, opens)), leftover);
    assert_eq!(head(&named(2, [0; 4], complete)), leftover);
    // With all of them right it does continue, so the refusals above were for what they say; only
    // the block it holds has no predecessor.
    let image = named(2, sum, complete);
    let continued = recover_image(&node.disk.identity, &image).expect_err("block 2 is missing");
    assert!(matches!(
        continued,
        RecoveryError::Contradiction { group: GROUP, .. }
    ));
}

#[test]
fn another_nodes_journal_and_bad_reads_are_refused() {
    let mut node = Node::new();
    node.put(10).expect("room");
    node.settle();
    let mut identity = node.disk.identity;
    let foreign = RecoveryError::Foreign {
        slot: 0,
        node_tag: identity.node_tag,
    };
    identity.node_tag += 1;
    assert_eq!(
        recover_image(&identity, &node.disk.visible).expect_err("foreign"),
        foreign
    );
    let fault = DiskFault { errno: 5 };
    let unreadable = recover(&node.disk.identity, &mut |_, _, _| Err(fault));
    let expected = RecoveryError::Unreadable {
        slot: 0,
        position: 0,
        fault,
    };
    assert_eq!(unreadable.expect_err("unreadable"), expected);
    let short = recover(&node.disk.identity, &mut |_, _, _| Ok(Bytes::new()));
    assert_eq!(
        short.expect_err("short"),
        RecoveryError::Short {
            slot: 0,
            position: 0
        }
    );
}

#[test]
fn noise_is_no_journal_and_no_panic() {
    let mut rng = Rng::new(5);
    let node = Node::new();
    for _ in 0..20 {
        let mut image = node.disk.visible.clone();
        for file in &mut image {
            for at in (0..file.len()).step_by(97) {
                file[at] = rng.below(256) as u8;
            }
        }
        // Nothing but the opening flush was ever written, and it promised nothing.
        let recovered = recover_image(&node.disk.identity, &image).expect("nothing was promised");
        assert!(recovered.groups.is_empty());
    }
}

/// A copy is there with its run or not at all, and either way each block is found once.
#[test]
fn a_crash_while_blocks_are_put_again_finds_each_once() {
    let mut node = Node::new();
    for size in [5000, 10, 4000] {
        node.put(size).expect("room");
    }
    node.settle();
    let old: Vec<_> = node.tail.entries().map(|(_, entry)| *entry).collect();
    let mut new = old.clone();
    for entry in &mut new {
        let bytes = node.journal.block(entry).expect("cached");
        let block = Block::check(&bytes).expect("as built");
        entry.place = node.journal.carry_block(&block).expect("room");
    }
    node.journal.seal();
    let store = node.journal.next_store().expect("the copies");
    let bytes = store.runs.concat();
    let sectors = bytes.len() / 4096;
    assert!((2..=4).contains(&sectors), "{sectors} sectors");
    let whole = (1 << sectors) - 1;
    for subset in 0..=whole {
        let mut image = node.disk.visible.clone();
        for sector in (0..sectors).filter(|sector| subset & 1 << sector != 0) {
            let at = store.position as usize + sector * 4096;
            image[store.slot as usize][at..at + 4096]
                .copy_from_slice(&bytes[sector * 4096..][..4096]);
        }
        let recovered = recover_image(&node.disk.identity, &image).expect("nothing is lost");
        let found = recovered.groups[&GROUP].tail.entries();
        let expected = if subset == whole { &new } else { &old };
        assert!(found.map(|(_, entry)| entry).eq(expected), "{subset:b}");
    }
    // A block that overrules one of them overrules its copies, too.
    node.disk.submit(store);
    node.settle();
    node.tail.truncate_from(Index(2));
    let overruling = node.put(20).expect("room");
    node.settle();
    let recovered = node.disk.recover().expect("sound");
    let found = recovered.groups[&GROUP].tail.entries();
    assert!(found.map(|(_, entry)| entry).eq([&new[0], &overruling]));
}
