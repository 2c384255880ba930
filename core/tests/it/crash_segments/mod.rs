//! What a crash may leave of a whole shard: its journal and its logs' segments.
//!
//! A shard that is its logs' only voter, so that what it acknowledges is on its disk or nowhere. Its
//! writes stay in flight, and at moments every state that the disk may then be in is judged: all
//! subsets of the parts of what is in flight, as in `crash_states.rs`, and for a segment that grows
//! besides whether the file has its new size already. In each of them
//! - the journal is recovered, with all that was stored and all that was acknowledged;
//! - every segment that a checkpoint vouches for is one sound chain up to that checkpoint;
//! - what is in the journal above it goes on where it ends.
//!
//! Now and then one of the states is what the shard begins with again.

pub(crate) mod files;
pub(crate) mod judge;
pub(crate) mod world;

use std::collections::BTreeMap;

use ringwood_core::log::Store;
use ringwood_core::log::block::BlockKind;
use ringwood_core::log::footer::SegmentFooter;
use ringwood_core::log::offline::ItemSeen;

use crate::crash_states::flush_of;
use crate::environment::number;
use files::{FileName, State};
use judge::{judge, recovered};
use world::{World, Write, journal_store, open};

pub(crate) const GROUPS: u32 = 2;
const SECTOR: usize = 4096;

/// Whether a write puts a trim.
fn holds_trim(store: &Store) -> bool {
    let is_trim =
        |item: ItemSeen| matches!(item, ItemSeen::Block(header) if header.kind == BlockKind::Trim);
    let items = store.runs.iter().flat_map(|run| flush_of(run).items);
    items.map(|item| item.item.expect("sound")).any(is_trim)
}

/// Whether a write puts blocks again.
fn holds_copies(store: &Store) -> bool {
    store.runs.iter().any(|run| flush_of(run).header.copies)
}

#[derive(Debug, Default)]
struct Census {
    moments: u64,
    states: u64,
    writes_max: usize,
    in_flight: BTreeMap<&'static str, u64>,
}

impl Census {
    fn note(&mut self, world: &World) {
        let mut kinds = Vec::new();
        for write in &world.flying {
            kinds.push(match write {
                Write::Journal(_) => "journal",
                Write::Remove(_) => "removal",
                Write::Segment { buffer, .. } if SegmentFooter::check(buffer).is_ok() => "seal",
                Write::Segment {
                    position: 0, file, ..
                } if file.1 > 0 => "segment rolled",
                Write::Segment { position: 0, .. } => "first segment",
                Write::Segment { .. } => "segment grown",
            });
        }
        let stores = || world.flying.iter().filter_map(journal_store);
        kinds.extend(stores().any(holds_trim).then_some("trim"));
        kinds.extend(stores().any(holds_copies).then_some("copies"));
        if kinds.contains(&"journal") && kinds.len() > 1 {
            kinds.push("both");
        }
        kinds.sort_unstable();
        kinds.dedup();
        for kind in kinds {
            *self.in_flight.entry(kind).or_default() += 1;
        }
        self.moments += 1;
        self.writes_max = self.writes_max.max(world.flying.len());
    }
}

fn explore(world: &World, census: &mut Census) {
    let pieces = world.pieces();
    let whole = State {
        files: &world.files,
        pieces: pieces.iter().collect(),
        sizes: BTreeMap::new(),
    };
    let truth = recovered(&whole);
    let grown: BTreeMap<FileName, usize> = pieces
        .iter()
        .filter(|piece| piece.file.0.is_some() && !piece.is_deletion)
        .map(|piece| (piece.file, whole.size(piece.file).expect("it has a piece")))
        .collect();
    census.note(world);
    for subset in 0..1_u32 << pieces.len() {
        let is_there = |number: usize| subset & 1 << number != 0;
        for sizes in [BTreeMap::new(), grown.clone()] {
            let state = State {
                files: &world.files,
                pieces: (0..pieces.len())
                    .filter(|at| is_there(*at))
                    .map(|at| &pieces[at])
                    .collect(),
                sizes,
            };
            let found = recovered(&state);
            judge(world, &state, &truth, &found);
            // That the heads of the segments are taken, too.
            if census.states.is_multiple_of(37) {
                open(world.now, &state);
            }
            census.states += 1;
            if grown.is_empty() {
                break;
            }
        }
    }
}

/// States of which a sample takes moments with few of them, so as to have more moments.
const SAMPLE_COUNT_MAX: u64 = 100_000;

fn search(wanted: u64) -> Census {
    let piece_count_max = if wanted < SAMPLE_COUNT_MAX { 6 } else { 11 };
    let mut census = Census::default();
    let mut seed = 0;
    while census.states < wanted {
        let mut world = World::new(seed);
        for turn in 0..600 {
            for _ in 0..world.rng.below(3) {
                let group = 1 + world.rng.below(u64::from(GROUPS)) as u32;
                world.append(group);
            }
            if world.rng.chance(40) {
                let group = 1 + world.rng.below(u64::from(GROUPS)) as u32;
                world.trim(group);
            }
            world.turn();
            let is_rare = world
                .flying
                .iter()
                .any(|write| journal_store(write).is_none_or(holds_trim));
            let is_due = if is_rare {
                turn % 3 == 0
            } else {
                turn % 41 == 0
            };
            if is_due && !world.flying.is_empty() && world.pieces().len() <= piece_count_max {
                explore(&world, &mut census);
            }
            if census.states >= wanted {
                break;
            }
            while !world.flying.is_empty() && world.rng.chance(2) {
                let at = world.rng.below(world.flying.len() as u64) as usize;
                world.complete(at);
            }
            if world.rng.chance(150) {
                world.crash();
            }
        }
        assert!(
            world.acknowledged.values().sum::<u64>() > 0,
            "the load was real"
        );
        seed += 1;
    }
    census
}

#[test]
fn every_state_of_journal_and_segments_that_a_crash_may_leave_is_one_chain() {
    let wanted = number("CRASH_STATES").unwrap_or(2_000);
    let census = search(wanted);
    println!("{census:#?}");
    assert!(census.states >= wanted);
    for kind in ["journal", "segment grown", "both", "removal"] {
        assert!(
            census.in_flight.contains_key(kind),
            "{kind} was never in flight"
        );
    }
    if wanted >= SAMPLE_COUNT_MAX {
        for kind in ["seal", "segment rolled", "trim"] {
            assert!(
                census.in_flight.contains_key(kind),
                "{kind} was never in flight"
            );
        }
        assert!(census.writes_max >= 3);
    }
}
