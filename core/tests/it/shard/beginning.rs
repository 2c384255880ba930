//! Segments of which nothing here tells where they began, and the first one of a trimmed log, whose
//! oldest blocks nobody else keeps: written anew from the block on that holds the log's start.

use ringwood_core::frame::code::{BlockOutcome, FetchOutcome};
use ringwood_core::id::{Index, NodeId, Term};
use ringwood_core::limits::SECTOR_SIZE;
use ringwood_core::log::block::{Block, BlockHeader};
use ringwood_core::log::producers::Producers;
use ringwood_core::log::segment::{SegmentHeader, SegmentState};

use super::bench::{Bench, record};
use super::mend::places;

const LOG: u32 = 1;
const RECORD_SIZE: usize = 40_000;

/// A log that begins in the middle of segment 2, of 3 that are begun, and how many records it has.
struct Story {
    bench: Bench,
    start: u64,
    count: u64,
    /// Of segment 2.
    header: SegmentHeader,
}

impl Story {
    fn new() -> Self {
        let mut story = Self::untrimmed();
        story.start = story.header.first_offset.0 + 30;
        story.bench.trim(LOG, story.start);
        story.wait();
        assert_eq!(story.bench.segment_numbers(LOG), [2, 3]);
        story
    }

    /// The same before it was trimmed.
    fn untrimmed() -> Self {
        let mut bench = Bench::new();
        let count = bench.fill_to_segment(LOG, 3, 0, RECORD_SIZE);
        let header = SegmentHeader::check(bench.segment(LOG, 2)).expect("a header");
        Self {
            bench,
            start: 0,
            count,
            header,
        }
    }

    fn block(&self, index: u64) -> BlockHeader {
        *Block::check(&self.bench.sent(LOG, index))
            .expect("as it was sent")
            .header()
    }

    /// Index of the block that holds the start.
    fn first(&self) -> u64 {
        let holds = |index: &u64| self.block(*index).next_offset().0 > self.start;
        (1..).find(holds).expect("the log goes on behind it")
    }

    fn last_index(&self) -> u64 {
        let last = self.bench.last_block(LOG);
        Block::check(&last)
            .expect("as it was sent")
            .header()
            .index
            .0
    }

    /// The head of a segment that begins with this block.
    fn head(&self, index: u64) -> Vec<u8> {
        let mut producers = Producers::default();
        for before in 1..index {
            let bytes = self.bench.sent(LOG, before);
            producers.note_block(&Block::check(&bytes).expect("as it was sent"));
        }
        let before = Index(index - 1);
        let last = (index > 1).then(|| self.block(before.0));
        let term = last.map_or(Term(0), |last| last.term);
        let state = SegmentState {
            voters: [1, 2, 3].map(NodeId).to_vec(),
            producers: producers.snapshot_at(before),
        };
        let (place, bytes) = state.encode(before, term);
        let header = SegmentHeader {
            node_tag: 99,
            segment: 7,
            first_index: Index(index),
            first_offset: self.block(index).first_offset,
            previous_term: term,
            previous_sum: last.map_or(0, |last| last.sum),
            state: place,
            ..self.header
        };
        [&header.encode()[..], &bytes].concat()
    }

    /// The peer keeps nothing before this block.
    fn trim_peer(&mut self, index: u64) {
        self.bench.beginning = (index, self.head(index));
    }

    fn wait(&mut self) {
        (0..3_000).for_each(|_| self.bench.turn());
    }

    /// All from an offset on is read, and whoever comes while something is lost is told so.
    fn read_from(&mut self, from: u64) {
        let (mut at, size) = (from, record(RECORD_SIZE, 0).len());
        for _ in 0..1_000 {
            let bytes = self.bench.fetch(LOG, at);
            for found in bytes.chunks(size) {
                assert!(found == record(RECORD_SIZE, at as u8), "record {at}");
                at += 1;
            }
            if at >= self.count {
                return;
            }
            if bytes.is_empty() {
                assert_eq!(self.bench.fetch_outcome, FetchOutcome::Damaged.code());
                self.wait();
            }
        }
        let why = self.bench.complaints();
        panic!("{at} of {} records were read: {why:?}", self.count);
    }

    fn scrub(&mut self) {
        let passes = self.bench.scrub();
        while self.bench.scrub_passes() == passes {
            self.bench.turn();
        }
        self.wait();
    }

    /// All damage is healed, and all is sound for whoever starts on it.
    fn assert_mended(&mut self, from: u64, what: &str) {
        self.wait();
        self.read_from(from);
        let (found, healed) = self.bench.damage();
        assert!(found > 0 && found == healed, "{what}: {healed} of {found}");
        assert_eq!(self.bench.complaints(), [""; 0], "{what}");
        self.bench.restart();
        self.read_from(from);
        self.scrub();
        assert_eq!(self.bench.damage(), (0, 0), "{what}");
    }
}

/// What a disk does to a file; its blocks begin at these places. None leaves no file.
type Loss = fn(Vec<u8>, &[usize]) -> Option<Vec<u8>>;

const LOSSES: [(&str, Loss); 7] = [
    ("a block below the start", |mut file, at| {
        file[at[3] + 80] ^= 1;
        Some(file)
    }),
    ("a block on each side of the start", |mut file, at| {
        file[at[3] + 80] ^= 1;
        file[at[50] + 80] ^= 1;
        Some(file)
    }),
    ("the state, twice", |mut file, _| {
        let head = SegmentHeader::check(&file).expect("a header").state;
        file[SECTOR_SIZE] ^= 1;
        file[head.copy_size() + SECTOR_SIZE] ^= 1;
        Some(file)
    }),
    ("both headers, and what ends it", |mut file, at| {
        file[..at[0]].fill(0);
        file.truncate(at[60]);
        Some(file)
    }),
    ("all but the end", |mut file, at| {
        file[..at[40]].fill(0xA5);
        Some(file)
    }),
    ("its bytes", |_, _| Some(Vec::new())),
    ("its name", |_, _| None),
];

#[test]
fn the_first_segment_of_a_trimmed_log_begins_anew_where_the_log_does() {
    for (name, loss) in LOSSES {
        // The peer's log begins before this node's, with the start, and in between.
        for below in [60, 20, 1, 0] {
            for is_running in [false, true] {
                let mut story = Story::new();
                let first = story.first();
                story.trim_peer(first - below);
                let what = format!("{name} is lost, the peer keeps {below} blocks more");
                story.bench.restart();
                let whole = story.bench.segment(LOG, 2).clone();
                let was = SegmentHeader::check(&whole).expect("a header");
                match loss(whole.clone(), &places(&whole)) {
                    Some(file) => *story.bench.segment(LOG, 2) = file,
                    None => story.bench.delete_segment(LOG, 2),
                }
                if is_running {
                    story.scrub();
                } else {
                    story.bench.restart();
                }
                story.read_from(story.start);
                story.scrub();
                story.assert_mended(story.start, &what);
                let file = story.bench.segment(LOG, 2).clone();
                assert_eq!(file.len(), whole.len(), "{what}");
                let is = SegmentHeader::check(&file).expect("a header");
                let begins = is.first_index.0;
                assert!(
                    (was.first_index.0..=first).contains(&begins),
                    "{what}: {begins}"
                );
                let known = SegmentHeader::check(&story.head(begins)).expect("a header");
                assert_eq!(
                    (is.state, is.first_offset, is.previous_term, is.previous_sum),
                    (
                        known.state,
                        known.first_offset,
                        known.previous_term,
                        known.previous_sum
                    ),
                    "{what}"
                );
            }
        }
    }
}

#[test]
fn nothing_that_is_served_is_left_out() {
    // The peer has trimmed more than this node knows of, or does not say where it begins.
    let mut story = Story::new();
    let first = story.first();
    let places = places(story.bench.segment(LOG, 2));
    story.bench.segment(LOG, 2)[places[3] + 80] ^= 1;
    for (kept, head) in [(first + 1, story.head(first + 1)), (first, Vec::new())] {
        story.bench.beginning = (kept, head);
        story.bench.restart();
        story.scrub();
        let alarm = story.bench.complaints().concat();
        assert!(alarm.contains("node-2 has trimmed it"), "{alarm}");
        let header = SegmentHeader::check(story.bench.segment(LOG, 2)).expect("a header");
        assert!(header.first_index.0 < first);
    }
    // As soon as somebody says something of use, it is mended.
    story.trim_peer(first);
    story.scrub();
    story.assert_mended(story.start, "in the end");
}

#[test]
fn a_peer_is_told_where_a_trimmed_log_begins() {
    let mut story = Story::new();
    let last = story.block(story.first());
    let own = story.bench.segment(LOG, 2).clone();
    let first = story.header.first_index.0;
    for below in [0, 1, first - 1] {
        let answer = story
            .bench
            .ask_for_blocks(LOG, below, last.index.0, last.sum);
        let head = own[..story.header.state.copy_size()].to_vec();
        assert!(answer == (BlockOutcome::Trimmed, head), "from {below}");
    }
    let (outcome, blocks) = story
        .bench
        .ask_for_blocks(LOG, first, last.index.0, last.sum);
    assert_eq!(outcome, BlockOutcome::Found);
    assert!(blocks.starts_with(&story.bench.sent(LOG, first)));
    // Whose history is another one is told nothing.
    let (outcome, head) = story.bench.ask_for_blocks(LOG, 0, story.last_index(), 0);
    assert!(head.is_empty() && outcome == BlockOutcome::Absent);
}

#[test]
fn neighbours_that_are_gone_are_written_anew() {
    let all: [&[u32]; 6] = [
        &[0, 1],
        &[1, 2],
        &[2, 3],
        &[0, 1, 2],
        &[1, 2, 3],
        &[0, 1, 2, 3],
    ];
    for gone in all {
        let mut story = Story::untrimmed();
        let what = format!("{gone:?}");
        story.bench.restart();
        for number in gone {
            story.bench.delete_segment(LOG, *number);
        }
        story.bench.restart();
        story.assert_mended(0, &what);
        assert_eq!(story.bench.segment_numbers(LOG), [0, 1, 2, 3], "{what}");
        // It goes on, and is trimmed as ever.
        story.count = story
            .bench
            .fill_to_segment(LOG, 4, story.count, RECORD_SIZE);
        story.read_from(0);
        let end = story.bench.end_offset(LOG);
        story.bench.trim(LOG, end);
        story.wait();
        assert_eq!(story.bench.segment_numbers(LOG), [4], "{what}");
    }
}

#[test]
fn all_of_a_trimmed_log_may_be_gone() {
    let mut story = Story::new();
    let first = story.first();
    story.bench.restart();
    story.bench.delete_segment(LOG, 2);
    story.bench.delete_segment(LOG, 3);
    // Until somebody says where it begins, nothing of it is read, and new records are taken.
    story.bench.beginning = (first, Vec::new());
    story.bench.restart();
    story.wait();
    assert!(story.bench.fetch(LOG, story.start).is_empty());
    assert_eq!(story.bench.fetch_outcome, FetchOutcome::Damaged.code());
    assert!(
        story
            .bench
            .complaints()
            .concat()
            .contains("are lost in segment 2")
    );
    story.count = story
        .bench
        .fill_to_segment(LOG, 4, story.count, RECORD_SIZE);
    story.bench.restart();
    story.trim_peer(first - 3);
    story.scrub();
    story.assert_mended(story.start, "all segments are lost");
    assert_eq!(story.bench.segment_numbers(LOG), [2, 3, 4]);
}

#[test]
fn a_header_is_found_beside_what_cannot_be_read() {
    let mut story = Story::new();
    // Nothing but its own head tells where the only segment begins.
    let header = SegmentHeader::check(story.bench.segment(LOG, 3)).expect("a header");
    story.bench.trim(LOG, header.first_offset.0);
    story.wait();
    assert_eq!(story.bench.segment_numbers(LOG), [3]);
    let size = header.state.copy_size();
    story.bench.word = BlockOutcome::Absent;
    for bad in [vec![0], vec![0, SECTOR_SIZE], vec![0, size + SECTOR_SIZE]] {
        story.bench.spoil_reads_at(&bad);
        story.bench.restart();
        story.read_from(header.first_offset.0);
    }
}
