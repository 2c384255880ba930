//! Files as they lie: every byte is told, damage is named where it is, and nothing ends the walk.

use bytes::Bytes;
use ringwood_core::id::{ClusterId, Index, NodeId, Offset, Term, UnixSeconds};
use ringwood_core::log::block::Block;
use ringwood_core::log::footer::FooterBuilder;
use ringwood_core::log::offline::{
    Audit, End, Fault, FaultKind, Findings, ItemSeen, JournalPieces, Piece, SegmentPieces, What,
};
use ringwood_core::log::producers::ProducerTable;
use ringwood_core::log::recovery::DiskFault;
use ringwood_core::log::segment::{SegmentError, SegmentHeader, SegmentState};
use ringwood_core::log::{Base, HardState};

use crate::log_disk::Rng;
use crate::log_node::{GROUP, Node, RING};

pub(crate) const CLUSTER: ClusterId = ClusterId(77);
pub(crate) const NODE_TAG: u32 = 9;
const EIO: DiskFault = DiskFault { errno: 5 };

pub(crate) type Read = Box<dyn FnMut(u64, usize) -> Result<Bytes, DiskFault>>;

/// Reads a file of which one sector, if any, cannot be read.
pub(crate) fn reader(image: &[u8], bad_sector: Option<u64>) -> Read {
    let image = Bytes::copy_from_slice(image);
    Box::new(move |position, size| {
        let end = (position + size as u64).min(image.len() as u64);
        let is_bad = |sector: u64| position < (sector + 1) * 4096 && end > sector * 4096;
        if bad_sector.is_some_and(is_bad) {
            return Err(EIO);
        }
        Ok(image.slice(position as usize..end as usize))
    })
}

/// That the pieces are the whole file, without a gap or an overlap.
fn whole(pieces: impl Iterator<Item = Piece>, size: usize) -> Vec<Piece> {
    let mut at = 0;
    let pieces: Vec<_> = pieces
        .inspect(|piece| {
            assert_eq!(piece.position, at, "pieces follow each other");
            assert!(piece.size > 0, "each goes on");
            at += piece.size;
        })
        .collect();
    assert_eq!(at, size as u64, "to the file's end");
    pieces
}

fn journal_pieces(image: &[u8], bad_sector: Option<u64>) -> Vec<Piece> {
    let read = reader(image, bad_sector);
    whole(
        JournalPieces::new(RING, image.len() as u64, None, read),
        image.len(),
    )
}

/// A journal's first file: an opening flush, blocks, a vote with a block, a checkpoint.
fn journal() -> Vec<u8> {
    let mut node = Node::new();
    for size in [5000, 10, 20_000] {
        node.put(size).expect("room");
    }
    let hard = HardState {
        term: Term(4),
        vote: Some(NodeId(2)),
    };
    node.journal.open_lsn().expect("room");
    node.journal.put_hard_state(GROUP, hard);
    node.put(300).expect("room");
    node.checkpoint().expect("room");
    node.journal.seal();
    node.settle();
    node.disk.visible[0].clone()
}

#[test]
fn a_journal_is_told_flush_by_flush() {
    let image = journal();
    let pieces = journal_pieces(&image, None);
    let (mut blocks, mut votes, mut checkpoints, mut flushes) = (Vec::new(), 0, 0, 0);
    for piece in &pieces {
        let What::Flush(flush) = &piece.what else {
            assert!(matches!(piece.what, What::Zeros), "{:?}", piece.what);
            continue;
        };
        flushes += 1;
        assert_eq!(
            (flush.error, flush.copy_is_sound),
            (None, (votes_in(flush) > 0).then_some(true))
        );
        assert_eq!(flush.items.len(), usize::from(flush.header.item_count));
        for item in &flush.items {
            match item.item.as_ref().expect("sound") {
                ItemSeen::Block(header) => blocks.push(header.index.0),
                ItemSeen::HardState { group, hard, doubt } => {
                    assert_eq!((*group, hard.vote), (GROUP, Some(NodeId(2))));
                    assert!(!doubt.is_any(), "nothing was ever lost");
                    votes += 1;
                }
                ItemSeen::Checkpoint(checkpoint) => {
                    assert_eq!(checkpoint.index, Index(4));
                    checkpoints += 1;
                }
                ItemSeen::Scars(_) => panic!("nothing was ever lost"),
            }
        }
    }
    assert_eq!((blocks, votes, checkpoints), (vec![1, 2, 3, 4], 1, 1));
    assert_eq!(flushes, 6, "one opens the life");
}

fn votes_in(flush: &ringwood_core::log::offline::FlushPiece) -> usize {
    let is_vote = |item: &ItemSeen| matches!(item, ItemSeen::HardState { .. });
    flush
        .items
        .iter()
        .filter(|item| item.item.as_ref().is_ok_and(is_vote))
        .count()
}

#[test]
fn a_flipped_byte_costs_one_item_of_its_flush_and_no_other() {
    let image = journal();
    let sound = journal_pieces(&image, None);
    for piece in &sound {
        let What::Flush(flush) = &piece.what else {
            continue;
        };
        for (position, item) in flush.items.iter().enumerate() {
            let at = (piece.position + u64::from(item.offset)) as usize + item.bytes.len() - 17;
            let mut image = image.clone();
            image[at] ^= 1;
            let found = journal_pieces(&image, None);
            let found = found.iter().find(|found| found.position == piece.position);
            let What::Flush(found) = &found.expect("its header is sound").what else {
                panic!("a flush is told as one")
            };
            assert!(found.error.is_some());
            assert_eq!(found.items.len(), flush.items.len());
            for (number, item) in found.items.iter().enumerate() {
                assert_eq!(item.item.is_err(), number == position, "item {number}");
            }
        }
    }
}

/// A sealed segment as its bytes, and where its footer begins.
pub(crate) struct Made {
    pub(crate) image: Vec<u8>,
    pub(crate) data_size: u64,
    /// Position and header of each block.
    pub(crate) blocks: Vec<(u64, ringwood_core::log::block::BlockHeader)>,
    before: Base,
    pub(crate) after: Base,
}

fn base(node: &Node) -> Base {
    let mut tail = node.tail.clone();
    tail.release_through(tail.last_index());
    tail.base()
}

/// Segment `number` with these many writes of three blocks, going on where the node's tail ends.
fn segment(node: &mut Node, number: u32, previous_size: u64, writes: usize) -> Made {
    let before = base(node);
    let state = SegmentState {
        voters: vec![NodeId(1), NodeId(2)],
        producers: ProducerTable::default(),
    };
    let (place, state) = state.encode(before.index, before.term);
    let header = SegmentHeader {
        cluster: CLUSTER,
        node_tag: NODE_TAG,
        group: GROUP,
        segment: number,
        first_index: before.index.next(),
        first_offset: before.next_offset,
        previous_term: before.term,
        previous_sum: before.sum,
        previous_size,
        made_at: UnixSeconds(5),
        state: place,
    };
    let mut image = [&header.encode()[..], &state].concat().repeat(2);
    let mut growing = FooterBuilder::new(image.len() as u64);
    let mut blocks = Vec::new();
    for size in [40, 3000, 9000].repeat(writes) {
        let bytes = node.block(size);
        let block = *Block::check(&bytes).expect("as built").header();
        let previous_term = node.tail.last_term();
        blocks.push((image.len() as u64, block));
        let entry = node.put(size).expect("room");
        growing.push(&entry, block.index, image.len() as u64, previous_term);
        image.extend(bytes);
        if size == 9000 {
            image.resize(image.len().next_multiple_of(4096), 0);
        }
    }
    node.settle();
    let (after, data_size) = (base(node), image.len() as u64);
    let footer = growing.footer(header, after, data_size, UnixSeconds(6));
    image.extend(footer.encode());
    Made {
        image,
        data_size,
        blocks,
        before,
        after,
    }
}

pub(crate) fn two_segments() -> [Made; 2] {
    let mut node = Node::new();
    let first = segment(&mut node, 0, 0, 3);
    let second = segment(&mut node, 1, first.data_size, 2);
    assert_eq!(first.after, second.before);
    [first, second]
}

/// The first segment is sealed, the second one grows.
fn audit(images: [&[u8]; 2], vouched: [u64; 2], last: Base) -> Findings {
    let mut audit = Audit::new(CLUSTER, NODE_TAG, GROUP);
    let ends = [End::Sealed(vouched[0]), End::Grows(vouched[1])];
    for (number, (image, end)) in (0..).zip(images.into_iter().zip(ends)) {
        let pieces = SegmentPieces::new(image.len() as u64, reader(image, None));
        audit.segment(number, end, whole(pieces, image.len()).into_iter());
    }
    audit.finish(Some(last))
}

fn vouched(made: &[Made; 2]) -> [u64; 2] {
    [made[0].data_size, made[1].data_size]
}

fn only(findings: &Findings) -> &Fault {
    assert_eq!(findings.faults.len(), 1, "{findings:#?}");
    &findings.faults[0]
}

#[test]
fn sound_segments_are_one_chain() {
    let made = two_segments();
    let images = [&made[0].image[..], &made[1].image[..]];
    let found = audit(images, vouched(&made), made[1].after);
    assert!(found.faults.is_empty(), "{found:#?}");
    assert_eq!((found.block_count, found.last), (15, made[1].after));
    // What lies beyond what was synced is nobody's: here, a footer that was not sealed with.
    let mut longer = made[1].image.clone();
    longer.extend([0xAB; 5000]);
    let found = audit([images[0], &longer], vouched(&made), made[1].after);
    assert!(found.faults.is_empty());
}

#[test]
fn a_flipped_byte_of_a_segment_is_named_with_its_blocks_and_records() {
    let made = two_segments();
    let blocks = &made[0].blocks;
    let mut costless = 0;
    for at in (0..made[0].image.len()).step_by(7) {
        let mut image = made[0].image.clone();
        image[at] ^= 0x10;
        let found = audit([&image, &made[1].image], vouched(&made), made[1].after);
        let fault = only(&found);
        assert_eq!(fault.number, 0);
        let within = fault.position..fault.position + fault.size;
        assert!(within.contains(&(at as u64)), "{at} is not in {fault:?}");
        let hit = blocks.iter().find(|(position, header)| {
            (*position..position + u64::from(header.size)).contains(&(at as u64))
        });
        match hit {
            Some((position, header)) => {
                assert_eq!(fault.position, *position);
                assert_eq!(fault.blocks, Some((header.index, header.index)));
                let offsets = (header.first_offset, header.next_offset());
                assert_eq!(fault.offsets, Some(offsets));
            }
            // The head, padding, or the footer: no block is lost.
            None => {
                assert_eq!((fault.blocks, fault.offsets), (None, None));
                costless += 1;
            }
        }
    }
    assert!(costless > 500, "the first sector was hit, too");
}

#[test]
fn a_log_without_a_segment_or_its_end_or_with_another_ones_is_found() {
    let made = two_segments();
    let (sizes, last) = (vouched(&made), made[1].after);
    let [first, second] = [&made[0].image[..], &made[1].image[..]];
    let lost = |from: Base, to: Base| {
        (
            Some((from.index.next(), to.index)),
            Some((from.next_offset, to.next_offset)),
        )
    };
    for (images, number, kind, expected) in [
        (
            [&[][..], second],
            0,
            FaultKind::Missing,
            lost(Base::default(), made[0].after),
        ),
        (
            [first, &[][..]],
            1,
            FaultKind::Missing,
            lost(made[1].before, last),
        ),
        (
            [second, second],
            0,
            FaultKind::Foreign,
            lost(Base::default(), made[0].after),
        ),
        (
            [first, first],
            1,
            FaultKind::Foreign,
            lost(made[1].before, last),
        ),
    ] {
        let found = audit(images, sizes, last);
        let fault = only(&found);
        assert_eq!((fault.number, fault.kind), (number, kind));
        assert_eq!((fault.blocks, fault.offsets), expected);
    }
    // Zeros where the last write of the first segment was look like padding.
    let (position, header) = made[0].blocks[6];
    let mut image = first.to_vec();
    image[position as usize..made[0].data_size as usize].fill(0);
    let found = audit([&image, second], sizes, last);
    let fault = only(&found);
    assert_eq!(fault.kind, FaultKind::Missing);
    assert_eq!(fault.blocks, Some((header.index, made[0].after.index)));
    // Cut short in the middle of a block.
    let found = audit(
        [first, &second[..made[1].data_size as usize - 9000]],
        sizes,
        last,
    );
    let fault = only(&found);
    assert_eq!(
        (fault.number, fault.blocks.expect("some").1),
        (1, last.index)
    );
    // A checkpoint that means another block.
    let other = Base {
        sum: !last.sum,
        ..last
    };
    let found = audit([first, second], sizes, other);
    assert_eq!(only(&found).kind, FaultKind::Unchained);
}

#[test]
fn a_whole_block_of_another_history_is_found_by_its_place_in_the_chain() {
    let made = two_segments();
    let mut node = Node::new();
    // The same sizes, another term: other sums.
    node.put(40).expect("room");
    let mut stale = node.block(3000);
    let (position, header) = made[0].blocks[1];
    assert_eq!(stale.len(), header.size as usize);
    // The term is at 24, and the block's sum at 8 covers the header and the append's.
    stale[24] = 9;
    stale[8..12].fill(0);
    let mut summed = stale[..64].to_vec();
    summed.extend(&stale[64..96]);
    let sum = ringwood_core::frame::sum::crc32c(&summed);
    stale[8..12].copy_from_slice(&sum.to_le_bytes());
    Block::check(&stale).expect("whole in itself");
    let mut image = made[0].image.clone();
    image[position as usize..][..stale.len()].copy_from_slice(&stale);
    let found = audit([&image, &made[1].image], vouched(&made), made[1].after);
    let fault = only(&found);
    assert_eq!(fault.kind, FaultKind::Unchained);
    assert_eq!((fault.number, fault.position), (0, made[0].blocks[2].0));
}

#[test]
fn a_sector_that_cannot_be_read_costs_what_lies_in_it() {
    let made = two_segments();
    let image = &made[0].image;
    for sector in 0..image.len() as u64 / 4096 {
        let mut audit = Audit::new(CLUSTER, NODE_TAG, GROUP);
        let pieces = SegmentPieces::new(image.len() as u64, reader(image, Some(sector)));
        audit.segment(
            0,
            End::Sealed(made[0].data_size),
            whole(pieces, image.len()).into_iter(),
        );
        let found = audit.finish(Some(made[0].after));
        let fault = only(&found);
        let is_footer = sector * 4096 >= made[0].data_size;
        let expected = match is_footer {
            true => FaultKind::Footer(SegmentError::Magic),
            false => FaultKind::Unreadable(EIO),
        };
        assert_eq!(fault.kind, expected);
        let hit = made[0].blocks.iter().filter(|(position, header)| {
            *position < (sector + 1) * 4096 && position + u64::from(header.size) > sector * 4096
        });
        let hit: Vec<_> = hit.map(|(_, header)| header.index).collect();
        let lost = hit.first().map(|first| (*first, *hit.last().expect("one")));
        assert_eq!(fault.blocks, lost, "sector {sector}");
    }
    let image = journal();
    let sound = journal_pieces(&image, None);
    for sector in 0..12 {
        let found = journal_pieces(&image, Some(sector));
        let is_bad = |piece: &&Piece| matches!(piece.what, What::Unreadable(EIO));
        assert!(found.iter().filter(is_bad).count() >= 1, "sector {sector}");
        let flushes = |pieces: &[Piece]| {
            pieces
                .iter()
                .filter(|piece| matches!(piece.what, What::Flush(_)))
                .count()
        };
        assert!(
            flushes(&found) + 1 >= flushes(&sound),
            "one flush at most is lost"
        );
    }
}

/// Without a journal nobody says where a segment ends: then it ends with its last block.
#[test]
fn a_segment_that_nobody_vouches_for_ends_with_its_blocks() {
    let made = two_segments();
    let mut image = made[1].image[..made[1].data_size as usize].to_vec();
    image.extend([0xEE; 4096]);
    let mut audit = Audit::new(CLUSTER, NODE_TAG, GROUP);
    let pieces = SegmentPieces::new(image.len() as u64, reader(&image, None));
    audit.segment(1, End::Unknown, pieces);
    let found = audit.finish(None);
    assert!(found.faults.is_empty(), "{found:#?}");
    assert_eq!((found.block_count, found.last), (6, made[1].after));
    assert_eq!(found.last.next_offset, Offset(15));
    // What stands before a sound block was written, whoever says so.
    let (position, header) = made[1].blocks[2];
    image[position as usize + 100] ^= 1;
    let mut audit = Audit::new(CLUSTER, NODE_TAG, GROUP);
    audit.segment(
        1,
        End::Unknown,
        SegmentPieces::new(image.len() as u64, reader(&image, None)),
    );
    let found = audit.finish(None);
    assert_eq!(only(&found).blocks, Some((header.index, header.index)));
}

#[test]
fn garbage_is_told_as_garbage_and_ends_nothing() {
    let made = two_segments();
    let journal = journal();
    let mut rng = Rng::new(3);
    for _ in 0..300 {
        let mut images = [journal[..128 << 10].to_vec(), made[0].image.clone()];
        for image in &mut images {
            for _ in 0..1 + rng.below(6) {
                let from = rng.below(image.len() as u64) as usize;
                let size = (1 << rng.below(14)).min(image.len() - from);
                match rng.below(4) {
                    0 => image[from..from + size].fill(0),
                    1 => image[from..from + size]
                        .iter_mut()
                        .for_each(|byte| *byte = rng.below(256) as u8),
                    2 => image[from] ^= 1 << rng.below(8),
                    // A piece of the same file at another place: sound in itself.
                    _ => {
                        let to = rng.below((image.len() - size) as u64 + 1) as usize;
                        image.copy_within(from..from + size, to);
                    }
                }
            }
            let cut = rng.below(image.len() as u64) as usize;
            if rng.chance(4) {
                image.truncate(cut);
            }
        }
        journal_pieces(&images[0], None);
        // As what they are not, too.
        journal_pieces(&images[1], None);
        let blocks: u64 = [&images[1], &images[0]]
            .map(|image| {
                let pieces = SegmentPieces::new(image.len() as u64, reader(image, None));
                let mut audit = Audit::new(CLUSTER, NODE_TAG, GROUP);
                audit.segment(
                    0,
                    End::Sealed(made[0].data_size),
                    whole(pieces, image.len()).into_iter(),
                );
                let findings = audit.finish(Some(made[0].after));
                let is_changed = *image != made[0].image;
                assert_eq!(is_changed, !findings.faults.is_empty(), "{findings:#?}");
                findings.block_count
            })
            .iter()
            .sum();
        assert!(blocks <= 64);
    }
}
