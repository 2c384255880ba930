//! Reads in flight and what each is for.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::id::{Nanos, NodeId};
use crate::limits::LOAD_COUNT_MAX;

use super::agree::Heard;
use super::answer::BlockRequest;
use super::effects::{LoadId, Source};
use super::group::FetchRequest;
use super::locate::{Job, Learned, Step};
use super::restore::HeadLoad;
use super::{Effect, Effects, Shard};

/// Who wants the blocks of a job.
#[derive(Clone, Copy, Debug)]
pub(super) enum Purpose {
    /// A client's fetch.
    Fetch {
        position: usize,
        request: FetchRequest,
    },
    /// A peer whose next block the cache has lost.
    Peer { position: usize, peer: NodeId },
    /// The next write of the group's segment.
    Gather { position: usize },
    /// A block that must leave the journal's oldest file.
    Carry { position: usize },
    /// Blocks that are looked at, whether they are sound.
    Scrub { position: usize },
    /// Blocks that a peer's disk has lost.
    Answer {
        position: usize,
        request: BlockRequest,
    },
    /// A block of which a peer told or asked the sum.
    Compare { position: usize, heard: Heard },
}

impl Purpose {
    fn position(&self) -> usize {
        match self {
            Self::Fetch { position, .. }
            | Self::Peer { position, .. }
            | Self::Gather { position }
            | Self::Carry { position }
            | Self::Scrub { position }
            | Self::Answer { position, .. }
            | Self::Compare { position, .. } => *position,
        }
    }
}

/// A read in flight.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "nearly all are jobs, and a box for each would cost more than the rare other one saves"
)]
enum Pending {
    Job(Purpose, Job),
    /// A piece of a segment that is written anew.
    Mend,
    /// A piece of a segment that is looked at.
    Scrub,
    /// A piece of a segment that a reader will want, and of which stream.
    Ahead(u64),
}

/// Reads in flight, by id.
#[derive(Debug, Default)]
pub(super) struct Loads {
    next: u64,
    list: BTreeMap<LoadId, Pending>,
    /// Heads of segments, for peers.
    heads: BTreeMap<LoadId, HeadLoad>,
}

impl Loads {
    /// Whether clients' reads must wait: peers and segments keep their share.
    pub(super) fn is_busy(&self) -> bool {
        self.len() >= LOAD_COUNT_MAX
    }

    pub(super) fn len(&self) -> usize {
        self.list.len() + self.heads.len()
    }

    /// A head that is being read, and the number that it comes back with.
    pub(super) fn add_head(&mut self, head: HeadLoad) -> LoadId {
        self.next += 1;
        let load = LoadId(self.next);
        self.heads.insert(load, head);
        load
    }
}

impl Shard {
    /// Begins a job: it is answered at once from memory, or a read is asked for.
    pub(super) fn start_load(
        &mut self,
        now: Nanos,
        purpose: Purpose,
        mut job: Job,
        effects: &mut Effects,
    ) {
        let step = job.start(&self.groups[purpose.position()], &self.journal);
        self.on_load_step(now, purpose, job, step, effects);
    }

    pub(super) fn on_loaded(
        &mut self,
        now: Nanos,
        load: LoadId,
        bytes: &Bytes,
        effects: &mut Effects,
    ) {
        if let Some(head) = self.loads.heads.remove(&load) {
            self.on_head_loaded(now, head, bytes, effects);
            return;
        }
        let pending = self.loads.list.remove(&load);
        let (purpose, mut job) = match pending.expect("a load comes back once") {
            Pending::Job(purpose, job) => (purpose, job),
            Pending::Mend => {
                self.on_mend_loaded(now, bytes.clone(), effects);
                return;
            }
            Pending::Scrub => {
                self.on_scrub_loaded(now, bytes, effects);
                return;
            }
            Pending::Ahead(stream) => {
                self.on_ahead_loaded(now, stream, bytes, effects);
                return;
            }
        };
        let step = self.take_loaded(purpose, &mut job, bytes);
        self.on_load_step(now, purpose, job, step, effects);
    }

    /// Gives a job its bytes, and remembers what it has learned of them.
    fn take_loaded(&mut self, purpose: Purpose, job: &mut Job, bytes: &Bytes) -> Step {
        let group = &mut self.groups[purpose.position()];
        let step = job.loaded(group, &self.journal, bytes);
        match job.take_learned() {
            Some(Learned::Place(point)) => group.segments.map.learn(point),
            Some(Learned::Index { number, points }) => {
                group.segments.map.put_index(number, points);
            }
            None => {}
        }
        match step {
            Step::Indexed => job.start(group, &self.journal),
            step => step,
        }
    }

    /// Reads what a job asks for.
    pub(super) fn load_for_job(
        &mut self,
        purpose: Purpose,
        job: Job,
        (source, position, size): (Source, u64, usize),
        effects: &mut Effects,
    ) {
        let pending = Pending::Job(purpose, job);
        self.push_load(pending, source, position, size, effects);
    }

    /// Reads a piece of a file for a stream.
    pub(super) fn load_ahead(
        &mut self,
        stream: u64,
        source: Source,
        position: u64,
        size: usize,
        effects: &mut Effects,
    ) {
        self.push_load(Pending::Ahead(stream), source, position, size, effects);
    }

    /// Reads a piece of a file for the mend under way.
    pub(super) fn load_for_mend(
        &mut self,
        source: Source,
        position: u64,
        size: usize,
        effects: &mut Effects,
    ) {
        self.push_load(Pending::Mend, source, position, size, effects);
    }

    /// Reads a piece of a file for the scrub under way.
    pub(super) fn load_for_scrub(
        &mut self,
        source: Source,
        position: u64,
        size: usize,
        effects: &mut Effects,
    ) {
        self.push_load(Pending::Scrub, source, position, size, effects);
    }

    fn push_load(
        &mut self,
        pending: Pending,
        source: Source,
        position: u64,
        size: usize,
        effects: &mut Effects,
    ) {
        self.loads.next += 1;
        let load = LoadId(self.loads.next);
        self.loads.list.insert(load, pending);
        effects.push(Effect::Load {
            load,
            source,
            position,
            size,
        });
    }

    pub(super) fn on_load_step(
        &mut self,
        now: Nanos,
        purpose: Purpose,
        mut job: Job,
        mut step: Step,
        effects: &mut Effects,
    ) {
        while let Step::Read {
            source,
            position,
            size,
        } = step
        {
            let read = (source, position, size);
            let Some((back, bytes)) = self.read_along(now, purpose, job, read, effects) else {
                return;
            };
            job = back;
            step = self.take_loaded(purpose, &mut job, &bytes);
        }
        if let Step::Damaged(damage) = step {
            self.on_damage(now, purpose.position(), damage, effects);
        }
        match purpose {
            Purpose::Fetch { position, request } => {
                self.on_fetch_step(position, &request, step, effects);
            }
            Purpose::Peer { position, peer } => {
                self.on_peer_step(now, position, peer, step, effects);
            }
            Purpose::Gather { position } => self.on_gather_step(now, position, step, effects),
            Purpose::Carry { position } => self.on_carry_step(position, step),
            Purpose::Scrub { position } => self.on_scrub_step(now, position, &step),
            Purpose::Answer { request, .. } => self.on_answer_step(&request, step, effects),
            Purpose::Compare { position, heard } => {
                self.on_compare_step(now, position, heard, &step, effects);
            }
        }
    }
}
