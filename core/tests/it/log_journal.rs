//! The journal's promises, one story each.

use bytes::{Bytes, BytesMut};
use ringwood_core::frame::sum::crc32c;
use ringwood_core::id::{Epoch, GroupId, Index, Lsn, NodeId, Offset, ProducerId, Sequence, Term};
use ringwood_core::log::block::{AppendHeader, Block, BlockKind, write_record};
use ringwood_core::log::builder::{BlockBuilder, BlockStart};
use ringwood_core::log::checkpoint::Checkpoint;
use ringwood_core::log::producers::{ProducerTable, Producers};
use ringwood_core::log::recovery::{DiskFault, Finding, RecoveryError, recover};
use ringwood_core::log::ring::Ring;
use ringwood_core::log::{Entry, HardState, Journal, Tail};

use crate::log_disk::{Disk, Rng, recover_image};

const RING: Ring = Ring {
    file_size: 512 << 10,
    file_count: 3,
    run_size: 64 << 10,
};
const GROUP: GroupId = GroupId(1);

/// One group's journal on a disk.
struct Node {
    disk: Disk,
    journal: Journal,
    tail: Tail,
}

impl Node {
    fn new() -> Self {
        let mut node = Self::unopened(Disk::new(RING));
        node.settle();
        node
    }

    /// Recovered, the opening flush not yet written.
    fn unopened(disk: Disk) -> Self {
        let mut recovered = disk.recover().expect("a sound journal");
        let group = recovered.groups.remove(&GROUP);
        let tail = group.map(|group| group.tail).unwrap_or_default();
        Self {
            disk,
            journal: Journal::open(recovered.journal),
            tail,
        }
    }

    fn block(&self, record_size: usize) -> Vec<u8> {
        let mut payload = Vec::new();
        write_record(&mut payload, &vec![0xAB; record_size]);
        let header = AppendHeader {
            payload_sum: crc32c(&payload),
            payload_size: payload.len() as u32,
            producer: ProducerId(1),
            sequence: Sequence(self.tail.next_offset().0),
            epoch: Epoch(0),
            record_count: 1,
        };
        let start = BlockStart {
            group: GROUP,
            kind: BlockKind::Records,
            index: self.tail.last_index().next(),
            term: Term(1),
            first_offset: self.tail.next_offset(),
            previous_sum: self.tail.last_sum(),
        };
        let mut buffer = BytesMut::with_capacity(record_size + 4096);
        let mut builder = BlockBuilder::begin(&mut buffer, start);
        builder
            .push(&mut buffer, &header, [&payload[..]].into_iter())
            .expect("a good append");
        builder.finish(&mut buffer).expect("a block");
        buffer.to_vec()
    }

    /// A block in a run of its own, sealed.
    fn put(&mut self, record_size: usize) -> Option<Entry> {
        let bytes = self.block(record_size);
        let entry = self
            .journal
            .copy_block(&Block::check(&bytes).expect("as built"))?;
        self.tail.push(entry);
        assert!(self.journal.seal());
        Some(entry)
    }

    fn submit(&mut self) {
        while let Some(store) = self.journal.next_store() {
            self.disk.submit(store);
        }
    }

    /// Everything sealed becomes durable.
    fn settle(&mut self) {
        self.submit();
        while self.disk.in_flight() > 0 {
            let write = self.disk.complete(0);
            self.journal.stored(write);
            self.submit();
        }
    }

    fn checkpoint(&mut self) -> Option<Lsn> {
        let mut tail = self.tail.clone();
        tail.release_through(tail.last_index());
        let base = tail.base();
        self.journal.put_checkpoint(&Checkpoint {
            group: GROUP,
            index: base.index,
            term: base.term,
            block_sum: base.sum,
            next_offset: base.next_offset,
            segment: 0,
            segment_size: 4096,
            producers: ProducerTable::default(),
        })
    }

    /// Fills the ring until blocks are refused.
    fn fill(&mut self) {
        while self.put(50_000).is_some() {
            self.settle();
        }
    }
}

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
    while RING.file_of(node.journal.durable()) < 2 {
        for _ in 0..20 {
            if node.put(50_000).is_none() {
                break;
            }
        }
        while let Some(store) = node.journal.next_store() {
            let size: usize = store.runs.iter().map(Bytes::len).sum();
            assert!(store.position + size as u64 <= RING.file_size);
            files.push(store.slot);
            node.disk.submit(store);
            let write = node.disk.complete(0);
            node.journal.stored(write);
        }
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
    // Both: promised, and gone.
    let mut image = node.disk.visible.clone();
    image[slot as usize][position as usize..position as usize + 8192].fill(0xFF);
    let refused = recover_image(&node.disk.identity, &image).expect_err("both copies are lost");
    assert_eq!(refused, RecoveryError::Damaged { slot, position });
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
