//! The journal against a naive model, through crashes of all kinds.
//!
//! The model is the list of everything put, each with the lsn of its run. After a crash the journal
//! must be exactly the list cut at some run, at or beyond the durable one.

use std::collections::BTreeMap;

use bytes::BytesMut;
use ringwood_core::frame::sum::crc32c;
use ringwood_core::id::{Epoch, GroupId, Index, Lsn, NodeId, Offset, ProducerId, Sequence, Term};
use ringwood_core::log::block::{AppendHeader, Block, BlockKind, write_record};
use ringwood_core::log::builder::{BlockBuilder, BlockStart};
use ringwood_core::log::checkpoint::Checkpoint;
use ringwood_core::log::producers::{Producers, Verdict};
use ringwood_core::log::recovery::{Finding, Recovered};
use ringwood_core::log::ring::Ring;
use ringwood_core::log::{Base, HardState, Journal, Place, Tail};

use crate::log_disk::{Disk, Rng, recover_image};

pub(crate) const RING: Ring = Ring {
    file_size: 512 << 10,
    file_count: 3,
    run_size: 64 << 10,
};
const GROUPS: u64 = 4;

#[derive(Clone)]
enum Put {
    /// The bytes are kept by place.
    Block(Place),
    Hard(HardState),
    Checkpoint(Checkpoint),
}

/// What a group is, by the plainest means.
#[derive(Clone, Default)]
struct Model {
    hard: HardState,
    checkpoint: Option<Checkpoint>,
    blocks: BTreeMap<Index, Vec<u8>>,
}

impl Model {
    fn apply(&mut self, put: &Put, places: &BTreeMap<Place, Vec<u8>>) {
        match put {
            Put::Hard(hard) => self.hard = *hard,
            Put::Block(place) => {
                let bytes = &places[place];
                let index = Block::check(bytes).expect("put as a block").header().index;
                self.blocks.split_off(&index);
                self.blocks.insert(index, bytes.clone());
            }
            Put::Checkpoint(checkpoint) => {
                self.blocks = self.blocks.split_off(&checkpoint.index.next());
                self.checkpoint = Some(checkpoint.clone());
            }
        }
    }

    fn base(&self) -> Base {
        self.checkpoint
            .as_ref()
            .map_or_else(Base::default, Checkpoint::base)
    }

    fn producers(&self) -> Producers {
        let table = self
            .checkpoint
            .as_ref()
            .map(|checkpoint| checkpoint.producers.clone());
        let mut producers = Producers::new(table.unwrap_or_default(), self.base().index);
        for bytes in self.blocks.values() {
            producers.note_block(&Block::check(bytes).expect("put as a block"));
        }
        producers
    }
}

pub(crate) struct World {
    pub(crate) rng: Rng,
    pub(crate) disk: Disk,
    pub(crate) journal: Journal,
    /// Everything put, in order, with its run.
    puts: Vec<(Lsn, GroupId, Put)>,
    /// Bytes of blocks by place, copies included.
    places: BTreeMap<Place, Vec<u8>>,
    /// The groups as a shard would hold them.
    live: BTreeMap<GroupId, Group>,
    /// Copies to be believed when their run is durable.
    carried: Vec<(GroupId, Index, u32, Place)>,
    /// Blocks of this turn built in place: their bytes are seen once the run is sealed.
    built: Vec<Place>,
    refused: u64,
}

struct Group {
    hard: HardState,
    tail: Tail,
    producers: Producers,
    /// Latest checkpoint put: nothing at or below is cut.
    checkpoint: Index,
    segment_size: u64,
}

fn payload(rng: &mut Rng, size: u64) -> (u32, Vec<u8>) {
    let (mut payload, count) = (Vec::new(), 1 + rng.below(3));
    for _ in 0..count {
        let record: Vec<u8> = (0..rng.below(size + 1))
            .map(|_| rng.below(256) as u8)
            .collect();
        write_record(&mut payload, &record);
    }
    (count as u32, payload)
}

impl World {
    pub(crate) fn new(seed: u64) -> Self {
        let disk = Disk::new(RING);
        let recovered = disk.recover().expect("zeros are a fresh node's journal");
        assert!(recovered.groups.is_empty() && recovered.findings.is_empty());
        Self {
            rng: Rng::new(seed),
            disk,
            journal: Journal::open(recovered.journal),
            puts: Vec::new(),
            places: BTreeMap::new(),
            live: (0..GROUPS)
                .map(|id| (GroupId(id as u32), Group::new()))
                .collect(),
            carried: Vec::new(),
            built: Vec::new(),
            refused: 0,
        }
    }

    fn header(&mut self, group: GroupId, count: u32, payload: &[u8]) -> Option<AppendHeader> {
        let producer = ProducerId(self.rng.below(3));
        let producers = &self.live[&group].producers;
        let sequence = (0..2000).map(Sequence).find(|sequence| {
            producers.judge(producer, Epoch(1), *sequence, count) == Verdict::Accept
        })?;
        Some(AppendHeader {
            payload_sum: crc32c(payload),
            payload_size: payload.len() as u32,
            producer,
            sequence,
            epoch: Epoch(1),
            record_count: count,
        })
    }

    fn start(&mut self, group: GroupId, kind: BlockKind) -> BlockStart {
        let live = &self.live[&group];
        BlockStart {
            group,
            kind,
            index: live.tail.last_index().next(),
            term: live.hard.term,
            first_offset: live.tail.next_offset(),
            previous_sum: live.tail.last_sum(),
            commit: live.tail.base().index,
        }
    }

    /// A leader's block of a few appends, or its no-op.
    fn lead(&mut self, group: GroupId) {
        let kind = if self.rng.chance(6) {
            BlockKind::NoOp
        } else {
            BlockKind::Records
        };
        let start = self.start(group, kind);
        let size = *self.rng.pick(&[10, 100, 3000, 8000]);
        let (mut count, mut bytes) = payload(&mut self.rng, size);
        if self.journal.begin_block(start, bytes.len()).is_none() {
            self.refused += 1;
            return;
        }
        let mut next_offset = start.first_offset;
        while kind == BlockKind::Records && self.journal.append_fits(bytes.len()) {
            let Some(header) = self.header(group, count, &bytes) else {
                break;
            };
            if self.rng.chance(5) {
                let bad = AppendHeader {
                    payload_sum: !header.payload_sum,
                    ..header
                };
                self.journal
                    .push_append(&bad, bytes.chunks(7))
                    .expect_err("a wrong sum");
            } else {
                self.journal
                    .push_append(&header, bytes.chunks(900))
                    .expect("a good append");
                let live = self.live.get_mut(&group).expect("a group");
                live.producers
                    .note(start.index, start.term, &header, next_offset);
                next_offset.0 += u64::from(count);
            }
            if self.rng.chance(2) {
                break;
            }
            (count, bytes) = payload(&mut self.rng, size);
        }
        let Some(entry) = self.journal.finish_block() else {
            return;
        };
        // The bytes are only to be seen once sealed; the model takes them from there.
        self.live.get_mut(&group).expect("a group").tail.push(entry);
        self.puts
            .push((entry.place.lsn, group, Put::Block(entry.place)));
        self.built.push(entry.place);
    }

    /// A follower's copy, perhaps overruling what stood there.
    fn follow(&mut self, group: GroupId) {
        let live = self.live.get_mut(&group).expect("a group");
        let last = live.tail.last_index();
        if self.rng.chance(3) && last > live.checkpoint {
            let cut = live.checkpoint.0 + 1 + self.rng.below(last.0 - live.checkpoint.0);
            live.tail.truncate_from(Index(cut));
            live.producers.truncate_from(Index(cut));
            self.carried
                .retain(|(id, index, _, _)| *id != group || index.0 < cut);
        }
        let start = self.start(group, BlockKind::Records);
        let (count, bytes) = payload(&mut self.rng, 2000);
        let Some(header) = self.header(group, count, &bytes) else {
            return;
        };
        let mut buffer = BytesMut::with_capacity(1 << 16);
        let mut builder = BlockBuilder::begin(&mut buffer, start);
        builder
            .push(&mut buffer, &header, bytes.chunks(64))
            .expect("a good append");
        builder.finish(&mut buffer).expect("a block");
        let block = Block::check(&buffer).expect("a whole block");
        let Some(entry) = self.journal.copy_block(&block) else {
            self.refused += 1;
            return;
        };
        let live = self.live.get_mut(&group).expect("a group");
        live.tail.push(entry);
        live.producers.note_block(&block);
        self.puts
            .push((entry.place.lsn, group, Put::Block(entry.place)));
        self.places.insert(entry.place, buffer.to_vec());
    }

    fn vote(&mut self, group: GroupId) {
        let Some(lsn) = self.journal.open_lsn() else {
            return;
        };
        let live = self.live.get_mut(&group).expect("a group");
        if self.rng.chance(2) || live.hard.vote.is_some() {
            live.hard = HardState {
                term: Term(live.hard.term.0 + 1),
                vote: None,
            };
        }
        if self.rng.chance(2) {
            live.hard.vote = Some(NodeId(1 + self.rng.below(3)));
        }
        self.journal.put_hard_state(group, live.hard);
        assert_eq!(self.journal.hard_state(group), live.hard);
        self.puts.push((lsn, group, Put::Hard(live.hard)));
    }

    fn checkpoint(&mut self, group: GroupId) {
        let live = self.live.get_mut(&group).expect("a group");
        let above = live.tail.last_index().0 - live.checkpoint.0;
        let index = Index(live.checkpoint.0 + above - self.rng.below(above.min(3) + 1));
        if index == Index(0) || index < live.checkpoint {
            return;
        }
        let mut tail = live.tail.clone();
        tail.release_through(index);
        let base = tail.base();
        live.segment_size += 4096;
        let checkpoint = Checkpoint {
            group,
            index,
            term: base.term,
            block_sum: base.sum,
            next_offset: base.next_offset,
            segment: 1,
            segment_size: live.segment_size,
            blocks_sum: 0,
            start: Offset(0),
            first_segment: 0,
            restores: false,
            producers: live.producers.snapshot_at(index),
        };
        live.checkpoint = index;
        if let Some(lsn) = self.journal.put_checkpoint(&checkpoint) {
            self.puts.push((lsn, group, Put::Checkpoint(checkpoint)));
        }
    }

    /// Puts what pins the oldest file again.
    fn carry(&mut self) {
        let pinned = self.live.iter().flat_map(|(id, live)| {
            let durable = self.journal.checkpoint_durable(*id);
            let needed = live
                .tail
                .entries()
                .filter(move |(index, _)| *index > durable);
            needed.map(|(index, entry)| (*id, index, *entry))
        });
        let pinned: Vec<_> = pinned.collect();
        let Some(oldest) = pinned.iter().map(|(_, _, entry)| entry.place.lsn).min() else {
            return;
        };
        let file = RING.file_of(oldest);
        let durable = self.journal.durable();
        let list: Vec<_> = pinned
            .into_iter()
            .filter(|(_, _, entry)| RING.file_of(entry.place.lsn) == file)
            .filter(|(_, _, entry)| entry.place.lsn < durable)
            .collect();
        for (id, index, entry) in list {
            let under_way = |(other, at, sum, _): &&(GroupId, Index, u32, Place)| {
                (*other, *at, *sum) == (id, index, entry.sum)
            };
            if self.carried.iter().any(|carried| under_way(&carried)) {
                continue;
            }
            let bytes = self.places[&entry.place].clone();
            let block = Block::check(&bytes).expect("kept as put");
            let Some(place) = self.journal.carry_block(&block) else {
                return;
            };
            self.carried.push((id, index, entry.sum, place));
            self.places.insert(place, bytes);
        }
    }

    fn release(&mut self) {
        let durable = self.journal.durable();
        for (id, index, sum, place) in std::mem::take(&mut self.carried) {
            if place.lsn >= durable {
                self.carried.push((id, index, sum, place));
                continue;
            }
            let live = self.live.get_mut(&id).expect("a group");
            if live.tail.entry(index).is_some_and(|entry| entry.sum == sum) {
                live.tail.set_place(index, place);
            }
        }
        let mut release = durable;
        for (id, live) in &mut self.live {
            let through = self.journal.checkpoint_durable(*id);
            if self.rng.chance(2) {
                live.tail
                    .release_through(through.min(live.tail.last_index()));
            }
            for (index, entry) in live.tail.entries() {
                if index > through {
                    release = release.min(entry.place.lsn);
                }
            }
        }
        self.journal.release_below(release);
    }

    pub(crate) fn turn(&mut self) {
        for _ in 0..1 + self.rng.below(4) {
            let group = GroupId(self.rng.below(GROUPS) as u32);
            if self.live[&group].hard.term == Term(0) {
                self.vote(group);
                continue;
            }
            match self.rng.below(12) {
                0 | 1 => self.vote(group),
                // The last group never gets a checkpoint: its blocks must be carried.
                2 if group.0 + 1 < GROUPS as u32 => self.checkpoint(group),
                3..7 if group.0 + 1 < GROUPS as u32 => self.follow(group),
                _ if group.0 + 1 == GROUPS as u32 && !self.rng.chance(60) => {}
                _ => self.lead(group),
            }
        }
        if self.journal.is_open() {
            self.release();
            if self.journal.pressure().files_free < 2 {
                for group in 0..GROUPS as u32 - 1 {
                    self.checkpoint(GroupId(group));
                }
                self.carry();
            }
        }
        self.journal.seal();
        self.see_sealed();
        while let Some(store) = self.journal.next_store() {
            self.disk.submit(store);
        }
        while self.disk.in_flight() > 0 && self.rng.chance(2) {
            let at = self.rng.below(self.disk.in_flight() as u64) as usize;
            let write = self.disk.complete(at);
            let before = self.journal.durable();
            assert!(self.journal.stored(write) >= before);
        }
    }

    /// Takes the bytes of blocks built in place from the sealed runs.
    fn see_sealed(&mut self) {
        for place in self.built.drain(..) {
            let run = self.journal.run(place.lsn).expect("sealed just now");
            let block = Block::check(&run[place.offset as usize..]).expect("sealed as built");
            self.places.insert(place, block.bytes().to_vec());
        }
    }

    fn model_at(&self, end: Lsn) -> BTreeMap<GroupId, Model> {
        let mut models: BTreeMap<GroupId, Model> = BTreeMap::new();
        for (_, group, put) in self.puts.iter().filter(|(lsn, _, _)| *lsn < end) {
            models.entry(*group).or_default().apply(put, &self.places);
        }
        models
    }

    pub(crate) fn crash(&mut self) {
        let durable = self.journal.durable();
        self.disk.crash(&mut self.rng);
        let recovered = match self.disk.recover() {
            Ok(recovered) => recovered,
            Err(error) => panic!("{error}: durable {durable}"),
        };
        let head = recovered.journal.head();
        assert!(
            head >= durable,
            "durable through {durable}, found up to {head}"
        );
        self.check(&recovered, &self.disk.visible);
        self.puts.retain(|(lsn, _, _)| *lsn < head);
        self.places.retain(|place, _| place.lsn < head);
        self.carried.clear();
        self.live = (0..GROUPS)
            .map(|id| (GroupId(id as u32), Group::new()))
            .collect();
        for (id, group) in recovered.groups {
            let checkpoint = group.checkpoint.as_ref();
            let live = Group {
                hard: group.hard,
                checkpoint: group.tail.base().index,
                segment_size: checkpoint.map_or(0, |checkpoint| checkpoint.segment_size),
                tail: group.tail,
                producers: group.producers,
            };
            self.live.insert(id, live);
        }
        let life = recovered.journal.life();
        self.journal = Journal::open(recovered.journal);
        assert!(self.journal.life() > life);
    }

    /// Whether a block put in this run took the place of another one.
    pub(crate) fn overrules(&self, group: GroupId, index: Index, lsn: Lsn) -> bool {
        let stood = |(at, id, put): &(Lsn, GroupId, Put)| {
            let Put::Block(place) = put else { return false };
            *at < lsn
                && *id == group
                && Block::check(&self.places[place])
                    .is_ok_and(|block| block.header().index >= index)
        };
        self.puts.iter().any(stood)
    }

    /// That a recovery which lost something missed or doubted whatever it did not find.
    fn check_lost(&self, recovered: &Recovered, head: Lsn) {
        let models = self.model_at(head);
        for (id, model) in models {
            let Some(group) = recovered.groups.get(&id) else {
                let doubt = recovered.doubt;
                assert!(doubt.log && doubt.vote, "{id} is gone unnoticed");
                continue;
            };
            assert!(group.hard == model.hard || group.doubt.vote, "{id}");
            let last = model.blocks.keys().next_back().copied();
            let last = last.unwrap_or(model.base().index);
            let is_whole = group.tail.last_index() == last
                && group.tail.entries().all(|(index, entry)| {
                    let expected = model.blocks.get(&index);
                    expected.is_none_or(|bytes| {
                        Block::check(bytes).expect("put as a block").header().sum == entry.sum
                    })
                });
            assert!(is_whole || group.doubt.lacks_blocks(), "{id}");
        }
    }

    /// That a recovery found exactly what was put below its head.
    pub(crate) fn check(&self, recovered: &Recovered, image: &[Vec<u8>]) {
        let models = self.model_at(recovered.journal.head());
        for id in (0..GROUPS).map(|id| GroupId(id as u32)) {
            let model = models.get(&id).cloned().unwrap_or_default();
            let Some(group) = recovered.groups.get(&id) else {
                assert!(model.blocks.is_empty() && model.hard == HardState::default());
                continue;
            };
            assert_eq!(group.hard, model.hard, "{id}");
            assert_eq!(group.checkpoint, model.checkpoint, "{id}");
            assert_eq!(group.tail.base(), model.base(), "{id}");
            assert_eq!(group.tail.entries().count(), model.blocks.len(), "{id}");
            for (index, entry) in group.tail.entries() {
                let (slot, position) = RING.locate(entry.place.lsn);
                let from = position as usize + entry.place.offset as usize;
                let found = &image[slot as usize][from..from + entry.size as usize];
                assert!(found == model.blocks[&index], "group {id} block {index}");
            }
            assert_eq!(group.producers, model.producers(), "{id}");
        }
    }
}

impl Group {
    fn new() -> Self {
        Self {
            hard: HardState::default(),
            tail: Tail::new(Base::default()),
            producers: Producers::default(),
            checkpoint: Index(0),
            segment_size: 4096,
        }
    }
}

fn run(seed: u64, turns: u64, crash_every: u64) -> World {
    let mut world = World::new(seed);
    for _ in 0..turns {
        if world.rng.chance(crash_every) {
            world.crash();
        } else {
            world.turn();
        }
    }
    world
}

#[test]
fn what_is_durable_survives_and_what_is_torn_is_not_believed() {
    let (mut rounds, mut refused) = (0, 0);
    for seed in 0..40 {
        let world = run(seed, 600, 12);
        rounds += RING.file_of(world.journal.durable()) / u64::from(RING.file_count);
        refused += world.refused;
    }
    assert!(
        rounds >= 40 * 2,
        "the ring was to be written over again and again: {rounds}"
    );
    println!("{rounds} rounds, {refused} blocks refused");
}

#[test]
fn a_crash_in_the_opening_flush_changes_nothing() {
    for seed in 0..20 {
        let mut world = run(seed, 120, 1000);
        world.crash();
        // Synced, so that what was found cannot go away again.
        let store = world.journal.next_store().expect("the opening flush");
        world.disk.submit(store);
        world.disk.complete(0);
        world.crash();
        let found = world.disk.recover().expect("whole");
        for _ in 0..10 {
            // The opening flush leaves, alone, and is torn.
            let store = world.journal.next_store().expect("the opening flush");
            assert!(store.opens_life && world.journal.next_store().is_none());
            world.disk.submit(store);
            world.crash();
            let again = world.disk.recover().expect("whole");
            assert!(again.journal.life() >= found.journal.life());
            for (id, group) in &found.groups {
                let again = &again.groups[id];
                assert_eq!((group.hard, &group.tail), (again.hard, &again.tail));
                assert_eq!(group.producers, again.producers);
            }
        }
    }
}

#[test]
fn damage_is_told_or_mended_and_never_believed() {
    let (mut lost, mut unharmed, mut shortened) = (0, 0, 0);
    for seed in 0..12 {
        let mut world = run(seed, 250, 40);
        while world.disk.in_flight() > 0 {
            let write = world.disk.complete(0);
            world.journal.stored(write);
            while let Some(store) = world.journal.next_store() {
                world.disk.submit(store);
            }
        }
        let sound = world.disk.recover().expect("whole");
        for _ in 0..60 {
            let mut image = world.disk.visible.clone();
            let slot = world.rng.below(u64::from(RING.file_count)) as usize;
            let at = world.rng.below(RING.file_size) as usize;
            match world.rng.below(3) {
                0 => image[slot][at] ^= 1 << world.rng.below(8),
                1 => image[slot][at / 512 * 512..][..512].fill(0),
                _ => image[slot][at / 4096 * 4096..][..4096].fill(0xFF),
            }
            let recovered = recover_image(&world.disk.identity, &image);
            let recovered = recovered.expect("the rest is there");
            let head = recovered.journal.head();
            assert!(
                head >= sound.journal.promised(),
                "nothing promised is dropped"
            );
            let named = recovered.findings.iter().find_map(|finding| match finding {
                Finding::Salvaged { lsn } | Finding::Gap { from: lsn, .. } => Some(*lsn),
                _ => None,
            });
            if let Some(lsn) = named {
                let (named, _) = RING.locate(lsn);
                assert_eq!(named as usize, slot, "the damaged file is named");
                world.check_lost(&recovered, head.max(sound.journal.head()));
                lost += 1;
            } else {
                world.check(&recovered, &image);
                if head < sound.journal.head() {
                    shortened += 1;
                } else {
                    unharmed += 1;
                }
            }
        }
    }
    println!("{lost} lost something, {unharmed} unharmed, {shortened} shortened");
    assert!(lost > 0 && unharmed > 0);
}
