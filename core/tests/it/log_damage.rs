//! What recovery makes of a disk that lost what it had stored: everything else comes back, and what
//! is gone is told exactly, or doubted.

use ringwood_core::id::{Index, Lsn, NodeId, Term};
use ringwood_core::log::block::{Block, blocks};
use ringwood_core::log::pieces::Hole;
use ringwood_core::log::recovery::{DiskFault, Finding, Recovered, recover, recover_recorded};
use ringwood_core::log::{Doubt, Entry, HardState, Journal, Place};

use crate::log_disk::{Rng, recover_image};
use crate::log_node::{GROUP, Node, RING};

const HOLES: Doubt = Doubt {
    log: false,
    vote: false,
    holes: true,
};

/// Blocks in runs of their own, or some in one run, all durable and witnessed but the last run.
pub(crate) fn node(groups_of: &[usize]) -> (Node, Vec<Entry>) {
    let mut node = Node::new();
    for count in groups_of {
        for _ in 0..*count {
            let bytes = node.block(700);
            let block = Block::check(&bytes).expect("as built");
            let entry = node.journal.copy_block(&block).expect("room");
            node.tail.push(entry);
        }
        node.journal.seal();
        node.settle();
    }
    let entries = node.tail.entries().map(|(_, entry)| *entry).collect();
    (node, entries)
}

/// A flush with nothing of the group's blocks, durable: it bears witness of those before it.
pub(crate) fn put_vote(node: &mut Node) -> HardState {
    let hard = HardState {
        term: Term(2),
        vote: Some(NodeId(1)),
    };
    node.journal.open_lsn().expect("room");
    node.journal.put_hard_state(GROUP, hard);
    node.journal.seal();
    node.settle();
    hard
}

pub(crate) fn at(entry: &Entry) -> usize {
    let (slot, position) = RING.locate(entry.place.lsn);
    assert_eq!(slot, 0, "small journals");
    position as usize + entry.place.offset as usize
}

pub(crate) fn hole(entries: &[Entry], first: u64, last: u64) -> Hole {
    Hole {
        first: Index(first),
        last: Index(last),
        sum: entries[last as usize - 1].sum,
    }
}

pub(crate) fn holes(recovered: &Recovered) -> Vec<Hole> {
    let pieces = recovered.groups[&GROUP].pieces.as_ref();
    pieces.map(|pieces| pieces.holes()).unwrap_or_default()
}

#[test]
fn a_damaged_payload_is_one_hole_and_nothing_is_doubted() {
    let (node, entries) = node(&[1, 3, 1]);
    for lost in 2..=4_usize {
        let mut image = node.disk.visible.clone();
        image[0][at(&entries[lost - 1]) + 300] ^= 1;
        let recovered = recover_image(&node.disk.identity, &image).expect("the rest is there");
        let group = &recovered.groups[&GROUP];
        assert_eq!(
            holes(&recovered),
            [hole(&entries, lost as u64, lost as u64)]
        );
        assert_eq!(group.doubt, HOLES);
        assert_eq!(group.tail.last_index(), Index(lost as u64 - 1));
        let pieces = group.pieces.as_ref().expect("a hole");
        for (position, entry) in entries.iter().enumerate() {
            let found = pieces.entry(Index(position as u64 + 1));
            assert_eq!(found, (position + 1 != lost).then_some(entry));
        }
        let lsn = entries[1].place.lsn;
        assert_eq!(recovered.findings, [Finding::Salvaged { lsn }]);
    }
}

#[test]
fn behind_a_damaged_header_blocks_count_that_the_chain_names() {
    let (node, entries) = node(&[1, 4, 1]);
    // The header of block 3: its size is not to be believed, and yet 4 and 5 are found.
    let mut image = node.disk.visible.clone();
    image[0][at(&entries[2])..][..8].fill(0xEE);
    let recovered = recover_image(&node.disk.identity, &image).expect("the rest is there");
    assert_eq!(holes(&recovered), [hole(&entries, 3, 3)]);
    assert_eq!(recovered.groups[&GROUP].doubt, HOLES);
}

#[test]
fn a_lost_flush_between_others_is_a_hole_of_known_end() {
    let (node, entries) = node(&[1, 3, 1, 1]);
    let lsn = entries[1].place.lsn;
    let mut image = node.disk.visible.clone();
    image[0][lsn.0 as usize..][..512].fill(0);
    let recovered = recover_image(&node.disk.identity, &image).expect("the rest is there");
    assert_eq!(holes(&recovered), [hole(&entries, 2, 4)]);
    let to = entries[4].place.lsn;
    assert_eq!(recovered.findings, [Finding::Gap { from: lsn, to }]);
    // A vote may have stood in it.
    let doubt = Doubt {
        log: false,
        vote: true,
        holes: true,
    };
    assert_eq!(recovered.groups[&GROUP].doubt, doubt);
    assert_eq!(
        recovered.journal.head(),
        node.disk.recover().expect("sound").journal.head()
    );
}

#[test]
fn a_group_that_wrote_nothing_since_doubts_where_its_log_ended() {
    let (mut node, entries) = node(&[1, 1]);
    let hard = put_vote(&mut node);
    let lsn = entries[1].place.lsn;
    let mut image = node.disk.visible.clone();
    image[0][lsn.0 as usize + 8] ^= 4;
    let recovered = recover_image(&node.disk.identity, &image).expect("the rest is there");
    let group = &recovered.groups[&GROUP];
    let doubt = Doubt {
        log: true,
        vote: false,
        holes: false,
    };
    assert_eq!((group.doubt, group.hard), (doubt, hard));
    assert_eq!(group.tail.last_index(), Index(1));
    assert!(group.pieces.is_none());
    // And says so from then on, whatever becomes of the place.
    let mut disk = node.disk;
    disk.visible = image;
    let again = Node::unopened(disk);
    let mut disk = again.disk;
    let mut journal = again.journal;
    let opening = journal.next_store().expect("the opening flush");
    let mut image = disk.visible.clone();
    let bytes = opening.runs.concat();
    image[opening.slot as usize][opening.position as usize..][..bytes.len()]
        .copy_from_slice(&bytes);
    disk.visible = image;
    let recovered = disk.recover().expect("as before, and open");
    assert_eq!(recovered.groups[&GROUP].doubt, doubt);
    assert_eq!(Journal::open(recovered.journal).doubt(GROUP), doubt);
}

#[test]
fn a_lost_truncation_is_found_by_what_follows_it() {
    let (mut node, entries) = node(&[1, 1, 1]);
    // Another leader overrules blocks 2 and 3, and goes on.
    node.tail.truncate_from(Index(2));
    let overruling = node.put(80).expect("room");
    node.settle();
    let last = node.put(90).expect("room");
    node.settle();
    node.put(10).expect("room");
    node.settle();
    let mut image = node.disk.visible.clone();
    image[0][overruling.place.lsn.0 as usize] ^= 1;
    let recovered = recover_image(&node.disk.identity, &image).expect("the rest is there");
    let expected = Hole {
        first: Index(2),
        last: Index(2),
        sum: overruling.sum,
    };
    assert_eq!(holes(&recovered), [expected]);
    let pieces = recovered.groups[&GROUP].pieces.as_ref().expect("a hole");
    assert_eq!(pieces.entry(Index(3)), Some(&last));
    assert_eq!(pieces.entry(Index(1)), Some(&entries[0]));
}

#[test]
fn holes_are_filled_by_what_the_chain_names_and_nothing_else() {
    let (node, entries) = node(&[1, 3, 1, 1]);
    let bytes: Vec<Vec<u8>> = entries
        .iter()
        .map(|entry| node.disk.visible[0][at(entry)..][..entry.size as usize].to_vec())
        .collect();
    let lsn = entries[1].place.lsn;
    let mut image = node.disk.visible.clone();
    image[0][lsn.0 as usize..][..4096].fill(0);
    let mut recovered = recover_image(&node.disk.identity, &image).expect("the rest is there");
    let group = recovered.groups.get_mut(&GROUP).expect("known");
    let pieces = group.pieces.as_mut().expect("a hole");
    let place = Place {
        lsn: Lsn(1 << 20),
        offset: 64,
    };
    let taken = |range: std::ops::Range<usize>| -> Vec<_> {
        let found = bytes[range].iter().flat_map(|bytes| blocks(bytes));
        found
            .map(|block| (block.expect("as built"), place))
            .collect()
    };
    assert!(!pieces.fill(&taken(1..3)), "block 4 is missing");
    assert!(!pieces.fill(&taken(4..5)), "it is here already");
    assert!(!pieces.fill(&[]), "nothing is nothing");
    let mut doubled = taken(1..2);
    doubled.extend(taken(3..4));
    assert!(!pieces.fill(&doubled), "a block is missing between");
    // From behind, in two parts.
    assert!(pieces.fill(&taken(3..4)));
    assert_eq!(pieces.holes(), [hole(&entries, 2, 3)]);
    assert!(pieces.fill(&taken(1..3)));
    assert!(pieces.holes().is_empty());
    assert_eq!(pieces.entry(Index(3)).expect("filled").place, place);
}

/// What is put into a hole by a leader takes the place of all that stood behind, and more may have
/// stood there than it has sent.
#[test]
fn a_hole_that_is_written_over_leaves_the_end_in_doubt() {
    let (mut node, entries) = node(&[1, 3, 1]);
    node.disk.visible[0][at(&entries[1]) + 300] ^= 1;
    let mut node = Node::unopened(node.disk);
    node.settle();
    assert_eq!(node.tail.last_index(), Index(1));
    node.put(900).expect("room");
    node.settle();
    let recovered = node.disk.recover().expect("the rest is there");
    let group = &recovered.groups[&GROUP];
    assert_eq!(
        (group.tail.last_index(), holes(&recovered)),
        (Index(2), vec![])
    );
    let doubt = Doubt {
        log: true,
        vote: false,
        holes: false,
    };
    assert_eq!(group.doubt, doubt);
}

#[test]
fn what_cannot_be_read_is_damaged_and_the_rest_is_not() {
    let (node, entries) = node(&[1, 3, 1, 1]);
    let lsn = entries[1].place.lsn;
    let image = &node.disk.visible;
    let bad = |slot: u32, position: u64, size: usize, bad: u64| {
        let is_bad = slot == 0 && (position..position + size as u64).contains(&bad);
        match is_bad {
            true => Err(DiskFault { errno: 5 }),
            false => {
                let bytes = &image[slot as usize][position as usize..][..size];
                Ok(bytes::Bytes::copy_from_slice(bytes))
            }
        }
    };
    let mut read = |slot, position, size| bad(slot, position, size, lsn.0);
    let recovered = recover(&node.disk.identity, &mut read).expect("the rest is there");
    assert_eq!(holes(&recovered), [hole(&entries, 2, 4)]);
    let unreadable = Finding::Unreadable {
        slot: 0,
        position: lsn.0,
        count: 1,
    };
    assert_eq!(recovered.findings.last(), Some(&unreadable));
    // At the very end no torn write explains it: all is doubted, and the place is left as it is.
    let end = node.journal.durable();
    let mut read = |slot, position, size| bad(slot, position, size, end.0);
    let recovered = recover(&node.disk.identity, &mut read).expect("the rest is there");
    let doubt = Doubt {
        log: true,
        vote: true,
        holes: false,
    };
    assert_eq!(recovered.groups[&GROUP].doubt, doubt);
    assert_eq!(recovered.doubt, doubt);
    assert_eq!(recovered.journal.head(), Lsn(end.0 + 4096));
}

#[test]
fn a_disk_that_gives_a_header_once_and_then_no_more_is_judged_in_the_end() {
    let (node, entries) = node(&[1, 1, 1, 1]);
    let mut image = node.disk.visible.clone();
    image[0][entries[1].place.lsn.0 as usize..][..512].fill(0);
    let (mut judged, mut refused) = (0, 0);
    for good_count in 0..12 {
        let mut count = 0;
        let mut read = |slot: u32, position: u64, size: usize| {
            count += 1;
            if slot == 0 && count > good_count {
                return Err(DiskFault { errno: 5 });
            }
            let position = position as usize;
            Ok(image[slot as usize][position..position + size]
                .to_vec()
                .into())
        };
        // Where the walk went on behind the lost flush, the next one was there and is not any more.
        match recover(&node.disk.identity, &mut read) {
            Ok(recovered) => {
                judged += 1;
                assert!(recovered.groups[&GROUP].doubt.lacks_blocks());
            }
            Err(_) => refused += 1,
        }
    }
    assert!(judged > 0 && refused > 0, "{judged} {refused}");
}

/// What recovery makes of an image, with a persist record that says so much.
fn recover_with(node: &Node, image: &[Vec<u8>], recorded: Lsn) -> Recovered {
    let mut read = |slot: u32, position: u64, size: usize| {
        let bytes = &image[slot as usize][position as usize..][..size];
        Ok(bytes::Bytes::copy_from_slice(bytes))
    };
    recover_recorded(&node.disk.identity, recorded, &mut read).expect("the rest is there")
}

#[test]
fn the_last_flush_of_all_is_missed_where_the_persist_record_says_that_it_was_stored() {
    let (node, entries) = node(&[1, 1, 2]);
    let last = entries[2].place.lsn;
    let end = node.journal.durable();
    let spoils: [(usize, bool); 3] = [(0, false), (8, false), (at(&entries[3]) + 300, true)];
    for (byte, is_payload) in spoils {
        let mut image = node.disk.visible.clone();
        let byte = if is_payload {
            byte
        } else {
            last.0 as usize + byte
        };
        image[0][byte] ^= 1;
        // Without the record it is taken for a torn write, which nobody was promised.
        let recovered = recover_with(&node, &image, Lsn(0));
        assert_eq!(recovered.groups[&GROUP].doubt, Doubt::default());
        assert_eq!(recovered.journal.head(), last);
        // A record from before it says no more than the flushes do.
        let recovered = recover_with(&node, &image, last);
        assert_eq!(recovered.groups[&GROUP].doubt, Doubt::default());
        let recovered = recover_with(&node, &image, end);
        let group = &recovered.groups[&GROUP];
        assert!(group.doubt.lacks_blocks(), "byte {byte}");
        assert_eq!(group.doubt.vote, !is_payload, "byte {byte}");
        // Its place is left as it is, for the next start to find.
        assert_eq!(recovered.journal.head(), end, "byte {byte}");
        let tail = Index(if is_payload { 3 } else { 2 });
        assert_eq!(group.tail.last_index(), tail);
    }
    // Of a whole journal it says nothing new, whatever it says.
    for recorded in [Lsn(0), last, end] {
        let recovered = recover_with(&node, &node.disk.visible, recorded);
        assert_eq!(recovered.findings, []);
        assert_eq!(recovered.journal.head(), end);
    }
}

#[test]
fn a_journal_of_which_nothing_is_left_is_doubted_where_the_record_says_that_there_was_one() {
    let (mut node, _) = node(&[1]);
    let end = node.journal.durable();
    for file in &mut node.disk.visible {
        file.fill(0);
    }
    let recovered = recover_with(&node, &node.disk.visible, end);
    let doubt = Doubt {
        log: true,
        vote: true,
        holes: false,
    };
    assert_eq!((recovered.doubt, recovered.groups.len()), (doubt, 0));
    assert_eq!(recovered.journal.head(), end);
    // Without a record it is a fresh node's.
    let fresh = recover_with(&node, &node.disk.visible, Lsn(0));
    assert_eq!((fresh.doubt, fresh.findings.len()), (Doubt::default(), 0));
}

#[test]
fn a_record_that_is_far_beyond_costs_a_step_for_each_file() {
    let (node, entries) = node(&[1, 1]);
    let mut image = node.disk.visible.clone();
    let last = entries[1].place.lsn;
    image[0][last.0 as usize] ^= 1;
    let recorded = Lsn(RING.file_size + 8 * 4096);
    let recovered = recover_with(&node, &image, recorded);
    let gaps = recovered.findings.iter();
    let gaps = gaps.filter(|finding| matches!(finding, Finding::Gap { .. }));
    assert_eq!(gaps.count(), 2);
    assert_eq!(recovered.journal.head(), recorded);
    assert!(recovered.groups[&GROUP].doubt.log);
}

#[test]
fn a_files_lost_start_is_made_up_for_by_the_file_before() {
    let mut node = Node::new();
    let mut checkpoint = Lsn(0);
    // Two files and a bit, everything checkpointed from time to time.
    while RING.file_of(node.journal.durable()) < 2 {
        for _ in 0..3 {
            node.put(20_000).expect("room");
            node.settle();
        }
        checkpoint = node.checkpoint().expect("room");
        node.journal.seal();
        node.settle();
        node.journal.release_below(checkpoint);
        node.journal.seal();
        node.settle();
    }
    node.put(10).expect("room");
    node.settle();
    let sound = node.disk.recover().expect("sound");
    let needed = RING.file_of(checkpoint);
    for file in needed..=2 {
        let mut image = node.disk.visible.clone();
        let (slot, _) = RING.locate(RING.start_of(file));
        image[slot as usize][..8192].fill(0);
        let recovered = recover_image(&node.disk.identity, &image).expect("the rest is there");
        let (found, expected) = (&recovered.groups[&GROUP], &sound.groups[&GROUP]);
        assert!(found.checkpoint.is_some(), "file {file}");
        // The lost run held the last checkpoint, or a block, as well as the state.
        let is_whole = found.tail.last_sum() == expected.tail.last_sum();
        assert!(is_whole || found.pieces.is_some(), "file {file}");
        assert_eq!(recovered.journal.head(), sound.journal.head());
    }
}

/// Any damage of any sector of promised flushes: nothing comes back that was not there, what is
/// missing is told or doubted, and a second recovery behind the first one's opening flush agrees.
#[test]
fn whatever_is_damaged_is_told_or_doubted() {
    let (mut healthy, mut holed, mut doubting) = (0, 0, 0);
    for seed in 0..400 {
        let mut rng = Rng::new(seed);
        let mut node = Node::new();
        let mut term = 1;
        for _ in 0..12 {
            for _ in 0..=rng.below(3) {
                let bytes = node.block(rng.below(6000) as usize);
                let block = Block::check(&bytes).expect("as built");
                node.tail
                    .push(node.journal.copy_block(&block).expect("room"));
            }
            if rng.chance(3) {
                term += 1;
                node.journal.open_lsn().expect("room");
                let hard = HardState {
                    term: Term(term),
                    vote: Some(NodeId(1)),
                };
                node.journal.put_hard_state(GROUP, hard);
            }
            node.journal.seal();
            node.settle();
        }
        let sound = node.disk.recover().expect("sound");
        let entries: Vec<Entry> = node.tail.entries().map(|(_, entry)| *entry).collect();
        let promised = sound.journal.promised();
        let mut disk = node.disk;
        for _ in 0..=rng.below(3) {
            let unit = *rng.pick(&[1, 512, 4096]);
            let at = rng.below(promised.0 / unit) as usize * unit as usize;
            let filler = rng.below(256) as u8;
            for byte in &mut disk.visible[0][at..at + unit as usize] {
                *byte ^= filler | 1;
            }
        }
        for round in 0..2 {
            let recovered = disk.recover().expect("most of it is there");
            let Some(group) = recovered.groups.get(&GROUP) else {
                assert!(recovered.doubt.log && recovered.doubt.vote, "seed {seed}");
                break;
            };
            for (index, entry) in group.tail.entries() {
                assert_eq!(*entry, entries[index.0 as usize - 1], "seed {seed}");
            }
            let is_whole = group.tail.last_index().0 == entries.len() as u64;
            let has_hole = group.pieces.is_some();
            assert_eq!(has_hole, group.doubt.holes, "seed {seed}");
            assert!(
                is_whole || has_hole || group.doubt.log,
                "seed {seed}, round {round}"
            );
            let has_vote = group.hard == sound.groups[&GROUP].hard;
            assert!(has_vote || group.doubt.vote, "seed {seed}, round {round}");
            for hole in holes(&recovered) {
                assert_eq!(
                    hole.sum,
                    entries[hole.last.0 as usize - 1].sum,
                    "seed {seed}"
                );
            }
            healthy += u32::from(is_whole && !group.doubt.is_any());
            holed += u32::from(has_hole);
            doubting += u32::from(group.doubt.is_any());
            let mut journal = Journal::open(recovered.journal);
            while let Some(store) = journal.next_store() {
                let bytes = store.runs.concat();
                disk.visible[store.slot as usize][store.position as usize..][..bytes.len()]
                    .copy_from_slice(&bytes);
                journal.stored(store.write);
            }
        }
    }
    assert!(
        healthy > 20 && holed > 100 && doubting > 50,
        "{healthy} {holed} {doubting}"
    );
}
