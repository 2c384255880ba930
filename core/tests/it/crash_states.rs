//! What a crash may leave, all of it, in the manner of ALICE (Pillai et al., OSDI 2014).
//!
//! The journal's random crashes (`log_crash.rs`) draw one state from each crash. Here a run of the
//! same world stops at moments with writes in flight, and every state that the disk may then be in
//! is made and recovered: all subsets of the parts of what is in flight, and tearings within a part.
//! Then the next life's first flush is in flight, and torn in every way as well.
//!
//! ```text
//!  in flight:   | run | run      | run |          two writes, some runs
//!  parts:       |h|   |h|b| b |v| |h|b|           headers, bodies, second copies of votes
//!  a state:      x     -  x  x  -  x  -           any subset; and one part, cut within a sector
//! ```
//! What is recovered must be what was put, cut at a run at or beyond what was durable; and again the
//! same, whatever of the new life's first flush is there.

use std::collections::BTreeMap;

use ringwood_core::id::{GroupId, Lsn};
use ringwood_core::log::Journal;
use ringwood_core::log::journal::Store;
use ringwood_core::log::offline::{FlushPiece, ItemSeen, JournalPieces, What};
use ringwood_core::log::recovery::{GroupRecovered, Recovered};

use crate::environment::number;
use crate::log_crash::{RING, World};
use crate::log_disk::recover_image;

/// Parts in flight of which all subsets are tried. With more, neighbours count as one.
const PART_COUNT_MAX: usize = 9;
/// Runs of which the parts are told apart: as many writes as ALICE's reordering looks at.
const RUN_COUNT_MAX: usize = 6;
const SECTOR: usize = 4096;
const UNIT: usize = 512;

/// Bytes of one write that are there or not.
#[derive(Clone, Debug)]
pub(crate) struct Part {
    pub(crate) slot: usize,
    pub(crate) position: usize,
    pub(crate) bytes: Vec<u8>,
}

/// What was seen.
#[derive(Debug, Default)]
struct Census {
    moments: u64,
    states: u64,
    runs_max: usize,
    /// Moments by what was in flight.
    in_flight: BTreeMap<&'static str, u64>,
}

type Image = Vec<Vec<u8>>;
type Groups = BTreeMap<GroupId, GroupRecovered>;

/// The parts of what is in flight, in the order in which they were asked for.
pub(crate) fn parts(stores: &[Store]) -> Vec<Part> {
    let mut parts = Vec::new();
    for store in stores {
        let mut position = store.position as usize;
        for run in &store.runs {
            // The first sector has the header, the last the second copy of votes, if there is one.
            let last = run.len() - SECTOR;
            let cuts = [
                0,
                SECTOR.min(run.len()),
                last.max(SECTOR).min(run.len()),
                run.len(),
            ];
            for cut in cuts.windows(2).filter(|cut| cut[0] < cut[1]) {
                parts.push(Part {
                    slot: store.slot as usize,
                    position: position + cut[0],
                    bytes: run[cut[0]..cut[1]].to_vec(),
                });
            }
            position += run.len();
        }
    }
    while parts.len() > PART_COUNT_MAX {
        merge_neighbours(&mut parts);
    }
    parts
}

/// Makes one part of the two smallest that are neighbours on disk; of any two, if none are.
fn merge_neighbours(parts: &mut Vec<Part>) {
    let adjoin = |at: &usize| {
        let (one, next) = (&parts[*at], &parts[at + 1]);
        one.slot == next.slot && one.position + one.bytes.len() == next.position
    };
    let size = |at: &usize| parts[*at].bytes.len() + parts[at + 1].bytes.len();
    let at = (0..parts.len() - 1).filter(adjoin).min_by_key(size);
    let at = at.expect("a write has neighbours: there are two writes and many parts");
    let next = parts.remove(at + 1);
    parts[at].bytes.extend(next.bytes);
}

/// Puts a part, or its first bytes, into an image.
fn put(image: &mut Image, part: &Part, size: usize) {
    let size = size.min(part.bytes.len());
    image[part.slot][part.position..part.position + size].copy_from_slice(&part.bytes[..size]);
}

/// A state of the disk that is being made and taken back.
struct Bench<'w> {
    world: &'w World,
    base: Image,
    image: Image,
    /// What recovery found at each head that came out, checked against what was put.
    known: BTreeMap<Lsn, Groups>,
}

impl<'w> Bench<'w> {
    fn new(world: &'w World, base: &Image) -> Self {
        Self {
            world,
            base: base.clone(),
            image: base.clone(),
            known: BTreeMap::new(),
        }
    }

    fn take_back(&mut self, parts: &[Part]) {
        for part in parts {
            let range = part.position..part.position + part.bytes.len();
            self.image[part.slot][range.clone()].copy_from_slice(&self.base[part.slot][range]);
        }
    }

    /// Recovers the image, and checks that it is what was put, cut at a run.
    fn recover(&mut self) -> Recovered {
        let durable = self.world.journal.durable();
        let recovered = match recover_image(&self.world.disk.identity, &self.image) {
            Ok(recovered) => recovered,
            Err(error) => panic!("{error}: durable {durable}"),
        };
        let head = recovered.journal.head();
        // Before the first flush of a life is stored, nothing of it counts as durable.
        let promised = if self.world.journal.is_open() {
            durable
        } else {
            recovered.journal.promised()
        };
        assert!(
            head >= promised,
            "durable through {promised}, found up to {head}"
        );
        match self.known.get(&head) {
            Some(known) => assert_same(known, &recovered.groups),
            None => {
                self.world.check(&recovered, &self.image);
                self.known.insert(head, recovered.groups.clone());
            }
        }
        recovered
    }

    /// The next life's first flush in flight, in every way, over what a crash has left.
    fn reopen(&mut self, found: Recovered, census: &mut Census) {
        let (head, groups) = (found.journal.head(), found.groups);
        let mut journal = Journal::open(found.journal);
        let opening = journal.next_store().expect("the opening flush");
        assert!(opening.opens_life && journal.next_store().is_none());
        let parts = parts(&[opening]);
        let before = std::mem::replace(&mut self.base, self.image.clone());
        for state in 0..1_u32 << parts.len() {
            for (number, part) in parts.iter().enumerate() {
                if state & 1 << number != 0 {
                    put(&mut self.image, part, usize::MAX);
                }
            }
            let again = recover_image(&self.world.disk.identity, &self.image);
            let again = again.expect("what was recovered once is recovered again");
            assert!(again.journal.head() >= head);
            assert_same(&groups, &again.groups);
            self.take_back(&parts);
            census.states += 1;
        }
        self.base = before;
    }
}

fn assert_same(one: &Groups, other: &Groups) {
    assert!(one.keys().eq(other.keys()));
    for (id, one) in one {
        let other = &other[id];
        assert_eq!(one.hard, other.hard, "{id}");
        assert_eq!(one.checkpoint, other.checkpoint, "{id}");
        assert_eq!(one.tail, other.tail, "{id}");
        assert_eq!(one.producers, other.producers, "{id}");
    }
}

/// Makes and recovers all states of a world that has writes in flight.
fn explore(world: &World, census: &mut Census) {
    let parts = parts(world.disk.flying());
    note_what_is_in_flight(world, census);
    // What a crash left may be only in the drive's cache, until the new life's first flush is stored.
    let mut bases = vec![&world.disk.visible];
    if world.disk.stable() != &world.disk.visible {
        bases.push(world.disk.stable());
    }
    for base in bases {
        let mut bench = Bench::new(world, base);
        for state in 0..1_u32 << parts.len() {
            for (number, part) in parts.iter().enumerate() {
                if state & 1 << number != 0 {
                    put(&mut bench.image, part, usize::MAX);
                }
            }
            let found = bench.recover();
            census.states += 1;
            // All prefixes of what was asked for, and a few others: a crash in the reopening too.
            if state.count_ones() == state.trailing_ones() || state % 61 == 0 {
                bench.reopen(found, census);
            }
            bench.take_back(&parts);
        }
        for torn in 0..parts.len() {
            tear(&mut bench, &parts, torn, census);
        }
    }
}

/// One part cut within a sector, the others there, gone, or only those before it there.
fn tear(bench: &mut Bench<'_>, parts: &[Part], torn: usize, census: &mut Census) {
    let size = parts[torn].bytes.len();
    // Every unit of the first and of the last sector.
    let first = (UNIT..SECTOR.min(size)).step_by(UNIT);
    let last = (size.saturating_sub(SECTOR).max(SECTOR)..size).step_by(UNIT);
    for cut in first.chain(last) {
        for others in [0, u32::MAX, (1 << torn) - 1] {
            for (number, part) in parts.iter().enumerate() {
                if number != torn && others & 1 << number != 0 {
                    put(&mut bench.image, part, usize::MAX);
                }
            }
            put(&mut bench.image, &parts[torn], cut);
            bench.recover();
            census.states += 1;
            bench.take_back(parts);
        }
    }
}

/// Counts the moment under each thing that is in flight.
fn note_what_is_in_flight(world: &World, census: &mut Census) {
    let mut kinds = Vec::new();
    let mut runs = 0;
    for store in world.disk.flying() {
        runs += store.runs.len();
        for run in &store.runs {
            kinds.extend(kinds_of(world, run));
        }
    }
    kinds.push(if runs > 1 { "several runs" } else { "one run" });
    if world.disk.flying().len() > 1 {
        kinds.push("two writes");
    }
    kinds.sort_unstable();
    kinds.dedup();
    for kind in kinds {
        *census.in_flight.entry(kind).or_default() += 1;
    }
    census.moments += 1;
    census.runs_max = census.runs_max.max(runs);
}

/// A run, read from its own bytes.
pub(crate) fn flush_of(run: &bytes::Bytes) -> FlushPiece {
    let lsn = u64::from_le_bytes(run[16..24].try_into().expect("eight bytes"));
    let (_, position) = RING.locate(Lsn(lsn));
    // Where it will lie: a flush is told as one only in its place.
    let file = bytes::Bytes::from([&vec![0; position as usize][..], run].concat());
    let size = file.len() as u64;
    let read = move |at: u64, size: usize| {
        let from = at as usize;
        Ok(file.slice(from..(from + size).min(file.len())))
    };
    let mut pieces = JournalPieces::new(RING, size, None, Box::new(read));
    let flush = pieces.find_map(|piece| match piece.what {
        What::Flush(flush) => Some(flush),
        _ => None,
    });
    let flush = flush.expect("a sealed run is a flush");
    assert_eq!((flush.error, flush.header.lsn), (None, Lsn(lsn)));
    flush
}

/// What a run does.
fn kinds_of(world: &World, run: &bytes::Bytes) -> Vec<&'static str> {
    let flush = flush_of(run);
    let lsn = flush.header.lsn;
    let (_, position) = RING.locate(lsn);
    let mut kinds = vec!["flush"];
    if flush.header.opens {
        kinds.push("opening");
    }
    if position == 0 && lsn > Lsn(0) {
        kinds.push("roll");
        if RING.file_of(lsn) >= u64::from(RING.file_count) {
            kinds.push("recycle");
        }
    }
    for item in flush.items {
        match item.item.expect("sound") {
            ItemSeen::Block(_) if flush.header.copies => kinds.push("copy"),
            ItemSeen::Block(header) => {
                kinds.push("append");
                if world.overrules(header.group, header.index, lsn) {
                    kinds.push("truncate");
                }
            }
            ItemSeen::HardState { .. } => kinds.push("vote"),
            ItemSeen::Checkpoint(_) => kinds.push("checkpoint"),
            ItemSeen::Scars(_) => panic!("nothing was ever lost"),
        }
    }
    kinds
}

fn search(wanted: u64) -> Census {
    let mut census = Census::default();
    let mut seed = 0;
    while census.states < wanted {
        let mut world = World::new(1_000 + seed);
        for turn in 0..500 {
            if world.rng.chance(25) {
                world.crash();
            }
            world.turn();
            let in_flight = world.disk.flying();
            let runs: usize = in_flight.iter().map(|store| store.runs.len()).sum();
            // Moments of each world, spread so that late ones, with a recycled ring, are among them.
            if runs == 0 || runs > RUN_COUNT_MAX || (turn + seed) % 23 != 0 {
                continue;
            }
            explore(&world, &mut census);
            if census.states >= wanted {
                break;
            }
        }
        seed += 1;
    }
    census
}

#[test]
fn every_state_that_a_crash_may_leave_is_a_prefix_of_what_was_put() {
    let wanted = number("CRASH_STATES").unwrap_or(6_000);
    let census = search(wanted);
    println!("{census:#?}");
    assert!(census.states >= wanted && census.moments > 0);
    let kinds = [
        "flush",
        "append",
        "truncate",
        "vote",
        "checkpoint",
        "copy",
        "roll",
        "recycle",
        "opening",
        "two writes",
    ];
    if wanted >= 100_000 {
        for kind in kinds {
            assert!(
                census.in_flight.contains_key(kind),
                "{kind} was never in flight"
            );
        }
        assert_eq!(census.runs_max, RUN_COUNT_MAX);
    }
}
