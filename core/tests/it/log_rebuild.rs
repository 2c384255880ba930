//! A segment made anew: from its own sound blocks and given ones it is the same file again, and nothing
//! else is taken for a block of it.

use bytes::Bytes;
use ringwood_core::log::footer::{SEGMENT_FOOTER_SIZE, SegmentFooter};
use ringwood_core::log::offline::{
    Audit, End, Missing, Rebuild, RebuildError, SegmentEnd, SegmentPieces, What,
};
use ringwood_core::log::segment::{SEGMENT_HEADER_SIZE, SegmentHeader};

use crate::log_node::GROUP;
use crate::log_offline::{CLUSTER, Made, NODE_TAG, reader, two_segments};

/// What the rest of the directory says of where it ends.
fn end(made: &Made) -> SegmentEnd {
    let footer = SegmentFooter::check(&made.image[made.data_size as usize..]).expect("sound");
    SegmentEnd {
        last: made.after.index,
        sum: made.after.sum,
        data_size: made.data_size,
        sealed_at: Some(footer.sealed_at),
    }
}

fn header(made: &Made) -> SegmentHeader {
    SegmentHeader::check(&made.image).expect("sound")
}

fn state(made: &Made) -> &[u8] {
    &made.image[SEGMENT_HEADER_SIZE..header(made).state.copy_size()]
}

fn begin(made: &Made, image: &[u8]) -> Rebuild {
    let mut rebuild = Rebuild::new(header(made), end(made));
    for piece in SegmentPieces::new(image.len() as u64, reader(image, None)) {
        if let What::Block(block) = &piece.what {
            rebuild.take(block);
        }
    }
    rebuild
}

/// Blocks as another node has them.
fn given(made: &Made, missing: Missing) -> Bytes {
    let mut bytes = Vec::new();
    for (position, block) in &made.blocks {
        if (missing.first..=missing.last).contains(&block.index) {
            bytes.extend_from_slice(&made.image[*position as usize..][..block.size as usize]);
        }
    }
    bytes.into()
}

fn is_sound(made: &Made, image: &[u8]) -> bool {
    let mut audit = Audit::new(CLUSTER, NODE_TAG, GROUP);
    let pieces = SegmentPieces::new(image.len() as u64, reader(image, None));
    audit.segment(header(made).segment, End::Sealed(made.data_size), pieces);
    let findings = audit.finish(Some(made.after));
    findings.faults.is_empty() && findings.block_count == made.blocks.len() as u64
}

#[test]
fn any_block_may_be_gone_and_the_file_is_whole_again() {
    for made in two_segments() {
        for lost in 0..made.blocks.len() {
            for count in 1..=made.blocks.len() - lost {
                let mut image = made.image.clone();
                for (position, block) in &made.blocks[lost..lost + count] {
                    image[*position as usize..][..block.size as usize].fill(0xEE);
                }
                assert!(!is_sound(&made, &image));
                let mut rebuild = begin(&made, &image);
                let missing = rebuild.missing().expect("blocks are gone");
                assert_eq!(missing.first, made.blocks[lost].1.index);
                assert_eq!(missing.last, made.blocks[lost + count - 1].1.index);
                assert_eq!(rebuild.give(missing, &given(&made, missing)), Ok(()));
                assert_eq!(rebuild.missing(), None);
                assert_eq!(rebuild.given_count(), count as u64);
                let file = rebuild.finish(state(&made)).expect("all is there");
                let head_size = header(&made).state.head_size as usize;
                assert_eq!(file[..head_size], made.image[..head_size]);
                assert_eq!(file.len(), made.image.len());
                assert!(is_sound(&made, &file));
            }
        }
    }
}

#[test]
fn a_footer_is_made_anew_without_anybody_else() {
    for made in two_segments() {
        let mut image = made.image.clone();
        image.truncate(made.data_size as usize);
        let mut rebuild = begin(&made, &image);
        assert_eq!(rebuild.missing(), None);
        let file = rebuild.finish(state(&made)).expect("all is there");
        assert!(is_sound(&made, &file));
        // Nothing but the padding between writes may differ: it is gathered at the end.
        let footer = |image: &[u8]| {
            SegmentFooter::check(&image[image.len() - SEGMENT_FOOTER_SIZE..]).expect("sound")
        };
        assert_eq!(footer(&file), footer(&made.image));
    }
}

#[test]
fn what_is_not_proved_is_not_taken() {
    let [made, other] = two_segments();
    let mut image = made.image.clone();
    let (position, lost) = made.blocks[4];
    image[position as usize + 100] ^= 1;
    let mut rebuild = begin(&made, &image);
    let missing = rebuild.missing().expect("a block is gone");
    assert_eq!((missing.first, missing.last), (lost.index, lost.index));
    let wrong = [
        Bytes::new(),
        // The block before, damaged bytes, other blocks, and one too many.
        given(
            &made,
            Missing {
                first: made.blocks[3].1.index,
                last: made.blocks[3].1.index,
                ..missing
            },
        ),
        Bytes::copy_from_slice(&image[position as usize..][..lost.size as usize]),
        given(
            &other,
            Missing {
                first: other.blocks[0].1.index,
                last: other.blocks[0].1.index,
                ..missing
            },
        ),
        given(
            &made,
            Missing {
                last: made.blocks[5].1.index,
                ..missing
            },
        ),
    ];
    for bytes in wrong {
        assert_eq!(rebuild.give(missing, &bytes), Err(RebuildError::NotThose));
        assert_eq!(rebuild.missing(), Some(missing), "nothing was taken");
    }
    assert_eq!(rebuild.give(missing, &given(&made, missing)), Ok(()));
    assert_eq!(rebuild.missing(), None);
}

#[test]
fn a_sound_block_of_another_history_is_asked_for_anew() {
    let [made, _] = two_segments();
    // The next segment names another last block than the one that stands here.
    let mut end = end(&made);
    end.sum ^= 1;
    let mut rebuild = Rebuild::new(header(&made), end);
    for piece in SegmentPieces::new(made.image.len() as u64, reader(&made.image, None)) {
        if let What::Block(block) = &piece.what {
            rebuild.take(block);
        }
    }
    let missing = rebuild.missing().expect("not the one that is meant");
    assert_eq!((missing.first, missing.last), (end.last, end.last));
    assert_eq!(missing.sum, end.sum);
}

#[test]
fn blocks_that_do_not_follow_the_header_are_refused() {
    let [made, _] = two_segments();
    let mut header = header(&made);
    header.previous_sum ^= 1;
    let mut rebuild = Rebuild::new(header, end(&made));
    for piece in SegmentPieces::new(made.image.len() as u64, reader(&made.image, None)) {
        if let What::Block(block) = &piece.what {
            rebuild.take(block);
        }
    }
    assert_eq!(rebuild.missing(), None);
    let refused = rebuild
        .finish(state(&made))
        .expect_err("it contradicts itself");
    assert_eq!(refused, RebuildError::Unchained);
}
