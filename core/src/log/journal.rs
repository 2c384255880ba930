//! The shard's journal: blocks, votes and checkpoints of all its groups, in the order in which they
//! must be durable.
//!
//! Keeps the open run, the sealed ones on their way to disk, what is durable, which files may be
//! written over. Does no I/O: writes leave by [`Journal::next_store`], completions come back by
//! [`Journal::stored`]. Knows nothing of Raft's rules. Hops *block* and *store* of the data path.
//!
//! ```text
//!  lsn ─────────────────────────────────────────────────────────────────────────▶
//!  | durable runs     | in flight: at most JOURNAL_WRITES_MAX | sealed, waiting | open |
//!                     ▲ durable()                                               ▲ open_lsn()
//! ```
//! Completions come in any order; `durable` is the end of the prefix that is complete, because
//! recovery reads the journal as a chain and stops at the first hole.

mod runs;
mod space;

use std::collections::{BTreeMap, VecDeque};

use bytes::{BufMut, Bytes};

use super::arena::Arenas;
use super::block::{
    AppendHeader, BLOCK_HEADER_SIZE, Block, BlockError, BlockHeader, BlockKind, append_size,
};
use super::builder::{BlockBuilder, BlockStart, block_size};
use super::cache::Cache;
use super::checkpoint::Checkpoint;
use super::fields::round_up;
use super::flights::Flights;
use super::flush::FLUSH_HEADER_SIZE;
use super::grants::Grants;
use super::item::{HARD_STATE_SIZE, write_hard_state};
use super::recovered::GroupState;
pub use super::recovered::JournalRecovered;
use super::ring::{Ring, Room};
use super::scars::{self, Scar};
use super::votes::{VoteCopy, votes_size};
use super::{Doubt, Entry, HardState, Place};
use crate::bugs::{self, Switch};
use crate::frame::sum::Sum;
use crate::id::{GroupId, Index, Lsn};
use crate::limits::{ARENA_COUNT_MAX, ARENA_SIZE, BLOCK_SIZE_MAX, RUN_SIZE_MAX, SECTOR_SIZE};
pub use space::Pressure;

/// Runs in one write: a bound below the kernel's for one vectored write.
const STORE_RUN_COUNT_MAX: usize = 64;

/// Hard states that fit into whatever run [`Journal::open_lsn`] names. One step of one group makes
/// one, rarely two.
const VOTE_ROOM: usize = 8;

/// Names one write, from [`Journal::next_store`] to [`Journal::stored`]. Never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct WriteId(pub u64);

/// One durable write of sealed runs that lie one behind the other in one file.
#[derive(Clone, Debug)]
pub struct Store {
    /// To be handed back when the bytes are on stable storage.
    pub write: WriteId,
    /// Which file of the ring.
    pub slot: u32,
    /// Byte position in it; a multiple of the sector.
    pub position: u64,
    /// The bytes; each piece is whole sectors in aligned memory.
    pub runs: Vec<Bytes>,
    /// The first write of this life. Before it, every file of the ring is to be synced: recovery
    /// may have read bytes that the drive only had in its cache, and this write's completion is
    /// what makes them count as durable.
    pub opens_life: bool,
}

#[derive(Debug)]
struct OpenRun {
    lsn: Lsn,
    /// Bytes the run may have; whole sectors.
    limit: usize,
    items_sum: Sum,
    item_count: u16,
    /// What its blocks are; none as long as it has none.
    blocks: Option<Writing>,
}

/// Whether a block is written for the first time. A run's blocks are all of one kind: recovery
/// tells it by the run's header, so that a block is the same bytes wherever it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Writing {
    First,
    Copy,
}

/// The journal of one shard.
#[derive(Debug)]
pub struct Journal {
    ring: Ring,
    node_tag: u32,
    life: u64,
    arenas: Arenas,
    cache: Cache,
    groups: BTreeMap<GroupId, GroupState>,

    open: Option<OpenRun>,
    /// The block being built at the end of the open run.
    block: Option<BlockBuilder>,
    /// Hard states of the open run.
    votes: Vec<VoteCopy>,
    /// End of the last sealed run.
    head: Lsn,
    last_sum: u32,
    sequence: u64,

    /// Sealed runs that no write has taken.
    sealed: VecDeque<(Lsn, Bytes)>,
    flights: Flights,
    /// Whether the flush that opens this life is sealed.
    opening_sealed: bool,

    /// The first group whose state is not yet in the current file; none when all are.
    restating: Option<GroupId>,
    /// Losses that this life knows of; said once it has said the state of all groups.
    scars: Vec<Scar>,
    grants: Grants,
    /// Checkpoints on their way.
    checkpoints: VecDeque<(Lsn, GroupId, Index)>,
}

impl Journal {
    /// Begins a new life where recovery found the last one's end. Its first flush is sealed by
    /// then: the first [`Journal::next_store`] is it, and nothing else leaves before it is stored.
    #[must_use]
    pub fn open(recovered: JournalRecovered) -> Self {
        Self::open_in(recovered, Arenas::new(ARENA_SIZE, ARENA_COUNT_MAX))
    }

    /// As [`Journal::open`], in other memory: each of the arenas takes several runs.
    #[must_use]
    pub fn open_in(recovered: JournalRecovered, arenas: Arenas) -> Self {
        let place = recovered
            .opening_place()
            .expect("recovery refuses a ring without room");
        let ring = recovered.ring;
        ring.assert_sound();
        let mut journal = Self {
            ring,
            node_tag: recovered.node_tag,
            life: recovered.life + 1,
            arenas,
            cache: Cache::default(),
            groups: recovered.groups,
            open: None,
            block: None,
            votes: Vec::new(),
            head: recovered.head,
            last_sum: recovered.last_sum,
            sequence: recovered.sequence,
            sealed: VecDeque::new(),
            flights: Flights::new(recovered.promised),
            opening_sealed: false,
            restating: (!recovered.complete).then_some(GroupId(0)),
            scars: recovered.scars,
            grants: Grants::new(ring, recovered.oldest_file),
            checkpoints: VecDeque::new(),
        };
        // Memory is free and the place is there: what opens a life cannot be refused.
        assert!(journal.begin_run(place), "a new journal has all its arenas");
        if journal.restating.is_some() {
            journal.restate();
        }
        journal.seal_run();
        assert!(
            journal.opening_sealed && journal.sealed.len() == 1,
            "one flush opens a life"
        );
        journal
    }

    /// The lsn of the open run, which has room for a few hard states; opens a run when there is
    /// none. None is backpressure: the ring is full but for what is kept for checkpoints, or all
    /// memory is held by writes and readers.
    ///
    /// The lsn stays until `put_checkpoint`, `begin_block`, `copy_block` or `carry_block` needed
    /// another run, or `seal` was called. A run in which nothing was put is not written: what waits
    /// for its lsn waits until something is.
    pub fn open_lsn(&mut self) -> Option<Lsn> {
        if !self.has_room(Room::Votes) {
            return None;
        }
        self.open_run()
    }

    fn open_run(&mut self) -> Option<Lsn> {
        if let (Some(run), Some(_)) = (&self.open, &self.block) {
            return Some(run.lsn);
        }
        loop {
            if self.open.is_none() {
                let place = self.grants.place(self.head)?;
                if !self.begin_run(place) {
                    return None;
                }
            }
            let restated = self.restating.is_none() || self.restate();
            if restated && self.fits(0, VOTE_ROOM) {
                return self.open.as_ref().map(|run| run.lsn);
            }
            self.seal_run();
        }
    }

    /// The lsn of the open run as it is: asking changes nothing, while [`Journal::open_lsn`] moves on
    /// to another run when this one is nearly full. Between the steps of one group's turn, this tells
    /// whether the run that a message waits for is still the one that is put into.
    #[must_use]
    pub fn run_lsn(&self) -> Option<Lsn> {
        self.open.as_ref().map(|run| run.lsn)
    }

    /// Bytes an item may still take in the open run; 0 if none is open.
    #[must_use]
    pub fn room(&self) -> usize {
        let Some(run) = &self.open else { return 0 };
        let end = run
            .limit
            .saturating_sub(votes_size(self.votes.len() + VOTE_ROOM));
        end.saturating_sub(self.arenas.written() + VOTE_ROOM * HARD_STATE_SIZE)
    }

    // ---- blocks

    /// Begins a block in the open run, or in another if the first append would not fit. Only for
    /// its group until [`Journal::finish_block`]. None is backpressure, as of
    /// [`Journal::open_lsn`]; blocks are refused some way before the ring is full, but for no-ops:
    /// what is undecided keeps its files until a new leader's no-op has decided it; and for trims,
    /// which make room on a full disk. The caller has one trim of a group at a time.
    ///
    /// `payload_size` of the first append must have been judged by [`AppendHeader::judge`]; it is 0
    /// for a no-op.
    pub fn begin_block(&mut self, start: BlockStart, payload_size: usize) -> Option<Place> {
        assert!(self.block.is_none(), "the open block is finished first");
        let no_op = start.kind == BlockKind::NoOp;
        let size = if no_op {
            BLOCK_HEADER_SIZE
        } else {
            block_size(payload_size)
        };
        self.make_block_room(size, Writing::First)?;
        let in_reserve = no_op && !bugs::is_on(Switch::R1) || start.kind == BlockKind::Trim;
        if !self.has_room(if in_reserve {
            Room::Votes
        } else {
            Room::Blocks
        }) {
            return None;
        }
        let builder = BlockBuilder::begin(self.arenas.current(), start);
        let offset = builder.at() as u32;
        self.block = Some(builder);
        self.open.as_ref().map(|run| Place {
            lsn: run.lsn,
            offset,
        })
    }

    /// What the block under construction began with.
    #[must_use]
    pub fn open_block(&self) -> Option<&BlockBuilder> {
        self.block.as_ref()
    }

    /// Whether the block under construction may take an append of `payload_size` bytes.
    #[must_use]
    pub fn append_fits(&self, payload_size: usize) -> bool {
        let Some(block) = &self.block else {
            return false;
        };
        block.fits(self.arenas.written(), payload_size)
            && self.fits(append_size(payload_size), VOTE_ROOM)
    }

    /// Copies an append into the block under construction, summing it on the way. The caller asked
    /// [`Journal::append_fits`], or has just begun the block with this size.
    ///
    /// # Errors
    /// What is wrong with the payload; the block is then as before.
    pub fn push_append<'a>(
        &mut self,
        header: &AppendHeader,
        payload: impl Iterator<Item = &'a [u8]>,
    ) -> Result<(), BlockError> {
        header.judge()?;
        self.push_opaque(header, payload)
    }

    /// As [`Journal::push_append`] for a trim, whose payload is no records.
    ///
    /// # Errors
    /// What is wrong with the payload; the block is then as before.
    pub fn push_opaque<'a>(
        &mut self,
        header: &AppendHeader,
        payload: impl Iterator<Item = &'a [u8]>,
    ) -> Result<(), BlockError> {
        assert!(
            self.append_fits(header.payload_size as usize),
            "the caller asked"
        );
        let block = self.block.as_mut().expect("a block that fits is open");
        block.push(self.arenas.current(), header, payload)
    }

    /// Finishes the block under construction. None if every append to it was refused: the run is
    /// then as if the block had never begun.
    pub fn finish_block(&mut self) -> Option<Entry> {
        let builder = self.block.take().expect("a block is open");
        let at = builder.at();
        let header = builder.finish(self.arenas.current())?;
        Some(self.count_block(&header, at, Writing::First))
    }

    /// Copies a checked block as it is: a follower's hop *block*. None is backpressure, as of
    /// [`Journal::begin_block`].
    pub fn copy_block(&mut self, block: &Block<'_>) -> Option<Entry> {
        assert!(self.block.is_none(), "the open block is finished first");
        self.make_block_room(block.bytes().len(), Writing::First)?;
        let in_reserve = matches!(block.header().kind, BlockKind::NoOp | BlockKind::Trim);
        if !self.has_room(if in_reserve {
            Room::Votes
        } else {
            Room::Copies
        }) {
            return None;
        }
        if bugs::is_on(Switch::B66)
            && self.node_tag.is_multiple_of(3)
            && block.header().index.0.is_multiple_of(16)
            && let Some(other) = block.another()
            && let Ok(other) = Block::check(&other)
        {
            return Some(self.put_block(&other, Writing::First));
        }
        Some(self.put_block(block, Writing::First))
    }

    /// Puts a block of an old file again, so that the file can be given free. The block stays where
    /// it was, too: its entry may move to the new place (`Tail::set_place`) once that is durable.
    /// None is backpressure, as of [`Journal::open_lsn`].
    pub fn carry_block(&mut self, block: &Block<'_>) -> Option<Place> {
        assert!(self.block.is_none(), "the open block is finished first");
        self.make_block_room(block.bytes().len(), Writing::Copy)?;
        if !self.has_room(Room::Votes) {
            return None;
        }
        Some(self.put_block(block, Writing::Copy).place)
    }

    fn put_block(&mut self, block: &Block<'_>, writing: Writing) -> Entry {
        let run = self.arenas.current();
        let at = run.len();
        run.put_slice(block.bytes());
        self.count_block(block.header(), at, writing)
    }

    fn count_block(&mut self, header: &BlockHeader, at: usize, writing: Writing) -> Entry {
        let run = self.open.as_mut().expect("blocks are put into an open run");
        assert!(
            run.blocks.is_none_or(|blocks| blocks == writing),
            "copies stand among copies"
        );
        run.blocks = Some(writing);
        run.items_sum
            .update(&self.arenas.current()[at..at + BLOCK_HEADER_SIZE]);
        run.item_count += 1;
        Entry {
            term: header.term,
            size: header.size,
            sum: header.sum,
            place: Place {
                lsn: run.lsn,
                offset: at as u32,
            },
            first_offset: header.first_offset,
            record_count: header.record_count,
        }
    }

    // ---- state

    /// Puts a group's hard state into the open run. The caller asked [`Journal::open_lsn`] for this
    /// step; that lsn is where it stands.
    pub fn put_hard_state(&mut self, group: GroupId, hard: HardState) {
        assert!(self.block.is_none(), "the open block is finished first");
        assert!(
            self.open.is_some() && self.fits(0, 1),
            "the caller asked for an open run"
        );
        assert!(self.restating.is_none(), "what is older comes first");
        let state = self.groups.entry(group).or_default();
        // The one mistake that two leaders of a term are made of (thesis 3.4 and 3.8).
        assert!(hard.term >= state.hard.term, "terms never go back");
        if hard.term == state.hard.term {
            let kept = state.hard.vote.is_none() || hard.vote == state.hard.vote;
            assert!(kept, "one vote a term");
        }
        state.hard = hard;
        let doubt = state.doubt;
        self.put_vote(group, hard, doubt);
    }

    /// What a group doubts from here on: the next hard state put says so.
    pub fn set_doubt(&mut self, group: GroupId, doubt: Doubt) {
        self.groups.entry(group).or_default().doubt = doubt;
    }

    /// What a group doubts, as the latest hard state says, or the next one will.
    #[must_use]
    pub fn doubt(&self, group: GroupId) -> Doubt {
        self.groups
            .get(&group)
            .map_or_else(Doubt::default, |state| state.doubt)
    }

    /// Puts a group's checkpoint, in another run if it must. None is backpressure, as of
    /// [`Journal::open_lsn`]; the checkpoint is then not put.
    pub fn put_checkpoint(&mut self, checkpoint: &Checkpoint) -> Option<Lsn> {
        assert!(self.block.is_none(), "the open block is finished first");
        let item = checkpoint.encode();
        self.make_room(item.len())?;
        let lsn = self.put_item(&item);
        // Repeated later, behind blocks that are not void.
        let item = if checkpoint.restores {
            Checkpoint {
                restores: false,
                ..checkpoint.clone()
            }
            .encode()
        } else {
            item
        };
        let state = self.groups.entry(checkpoint.group).or_default();
        if let Some((index, _)) = &state.checkpoint {
            assert!(checkpoint.index >= *index, "checkpoints never go back");
        }
        state.checkpoint = Some((checkpoint.index, item));
        self.checkpoints
            .push_back((lsn, checkpoint.group, checkpoint.index));
        Some(lsn)
    }

    /// Index of the group's newest checkpoint in a durable run; 0 if none. What a group still needs
    /// of the journal begins above it.
    #[must_use]
    pub fn checkpoint_durable(&self, group: GroupId) -> Index {
        self.groups
            .get(&group)
            .map_or(Index(0), |state| state.checkpoint_durable)
    }

    fn put_vote(&mut self, group: GroupId, hard: HardState, doubt: Doubt) {
        let item = write_hard_state(group, hard, doubt);
        let offset = self.arenas.written() as u32;
        self.put_item(&item);
        self.votes.push(VoteCopy { offset, item });
    }

    fn put_item(&mut self, item: &[u8]) -> Lsn {
        self.arenas.current().put_slice(item);
        let run = self.open.as_mut().expect("items are put into an open run");
        run.items_sum.update(item);
        run.item_count += 1;
        run.lsn
    }

    /// Puts the state of all groups from `restating` on, as far as the run has room. Says whether
    /// all are done.
    fn restate(&mut self) -> bool {
        let Some(from) = self.restating else {
            return true;
        };
        // Taken out while runs are written from it; nothing else looks at it meanwhile.
        let groups = std::mem::take(&mut self.groups);
        let mut rest = None;
        for (group, state) in groups.range(from..) {
            let size = state.checkpoint.as_ref().map_or(0, |(_, item)| item.len());
            if !self.fits(size, 1) {
                let empty = self.open.as_ref().is_some_and(|run| run.item_count == 0);
                let opening = !self.opening_sealed;
                assert!(!empty || opening, "a whole run takes any group's state");
                rest = Some(*group);
                break;
            }
            if state.hard != HardState::default() || state.doubt.is_any() {
                self.put_vote(*group, state.hard, state.doubt);
            }
            if let Some((_, item)) = &state.checkpoint {
                self.put_item(item);
            }
        }
        self.groups = groups;
        if rest.is_none() && !self.scars.is_empty() {
            // Behind what the groups doubt for them: else a crash between could settle it unseen.
            let item = scars::encode(&self.scars);
            if self.fits(item.len(), 0) {
                self.put_item(&item);
                self.scars.clear();
            } else {
                rest = Some(GroupId(u32::MAX));
            }
        }
        self.restating = rest;
        rest.is_none()
    }

    // ---- writes

    /// The next write, if one may leave: every sealed run that lies behind the first without a gap.
    pub fn next_store(&mut self) -> Option<Store> {
        if !self.flights.may_leave() {
            return None;
        }
        let opened = self.flights.opened();
        let (first, run) = self.sealed.pop_front()?;
        let mut end = Lsn(first.0 + run.len() as u64);
        let mut runs = vec![run];
        while opened && runs.len() < STORE_RUN_COUNT_MAX {
            let file = self.ring.file_of(first);
            let next = self.sealed.front();
            if next.is_none_or(|(lsn, _)| *lsn != end || self.ring.file_of(*lsn) != file) {
                break;
            }
            let (_, run) = self.sealed.pop_front().expect("seen just now");
            end = Lsn(end.0 + run.len() as u64);
            runs.push(run);
        }
        let write = self.flights.leave(end);
        let (slot, position) = self.ring.locate(first);
        Some(Store {
            write,
            slot,
            position,
            runs,
            opens_life: !opened && !bugs::is_on(Switch::B57),
        })
    }

    /// A write is on stable storage, in whatever order. Says up to where the journal now is: a run
    /// is durable if its lsn is below.
    pub fn stored(&mut self, write: WriteId) -> Lsn {
        self.flights.stored(write);
        let durable = self.flights.durable();
        self.grants.settle(durable);
        while self
            .checkpoints
            .front()
            .is_some_and(|(lsn, _, _)| *lsn < durable)
        {
            let (_, group, index) = self.checkpoints.pop_front().expect("seen just now");
            let state = self.groups.get_mut(&group).expect("its checkpoint was put");
            state.checkpoint_durable = state.checkpoint_durable.max(index);
        }
        durable
    }

    /// End of the durable prefix: a run is durable if its lsn is below.
    #[must_use]
    pub fn durable(&self) -> Lsn {
        self.flights.durable()
    }

    /// Whether writes are under way.
    #[must_use]
    pub fn is_writing(&self) -> bool {
        self.flights.is_any()
    }

    /// Whether this life's first flush is durable. Only then does what recovery found count as
    /// durable, so nothing may be promised to anyone before.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.flights.opened()
    }

    /// This life's number.
    #[must_use]
    pub fn life(&self) -> u64 {
        self.life
    }

    // ---- reading back

    /// The bytes of a sealed run, while memory keeps them.
    #[must_use]
    pub fn run(&self, lsn: Lsn) -> Option<Bytes> {
        self.cache.run(lsn).cloned()
    }

    /// Sealed runs that memory keeps.
    #[must_use]
    pub fn run_count(&self) -> usize {
        self.cache.len()
    }

    /// The bytes of a block, while memory keeps its run.
    #[must_use]
    pub fn block(&self, entry: &Entry) -> Option<Bytes> {
        let start = entry.place.offset as usize;
        Some(
            self.cache
                .run(entry.place.lsn)?
                .slice(start..start + entry.size as usize),
        )
    }

    /// The ring's shape, to find a place's slot and position by.
    #[must_use]
    pub fn ring(&self) -> &Ring {
        &self.ring
    }

    /// The latest hard state put for a group.
    #[must_use]
    pub fn hard_state(&self, group: GroupId) -> HardState {
        self.groups
            .get(&group)
            .map_or_else(HardState::default, |state| state.hard)
    }
}

// The largest block fits into an empty run of the standard ring, with room for votes behind it.
const _: () = assert!(
    round_up(
        FLUSH_HEADER_SIZE + BLOCK_SIZE_MAX + VOTE_ROOM * HARD_STATE_SIZE,
        SECTOR_SIZE
    ) + votes_size(VOTE_ROOM)
        <= RUN_SIZE_MAX
);
