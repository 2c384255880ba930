//! How a shard begins: the journal is recovered, the heads of the segments are read, and every
//! group is a follower that knows of no leader.

use std::fmt;

use bytes::Bytes;

use crate::frame::sum::crc32c;
use crate::id::{ClusterId, GroupId, Incarnation, Index, Lsn, Nanos, NodeId, UnixSeconds};
use crate::log::arena::Arenas;
use crate::log::journal::Journal;
use crate::log::persist::{PERSIST_FILE_SIZE, PersistRecord};
use crate::log::pins::{PINS_FILE_SIZE, Pins, PinsDamaged, Start};
use crate::log::producers::{ProducerTable, Producers};
use crate::log::recovery::{
    self, DiskFault, Finding, GroupRecovered, Identity, Recovered, RecoveryError,
};
use crate::log::trims::Trims;
use crate::log::{Base, Doubt, HardState, Tail};
use crate::raft::{self, Outbox, Raft};

use super::agree::{Agreement, Rounds};
use super::ahead::Ahead;
use super::ask::Asks;
use super::carry::Carry;
use super::chunks::Chunks;
use super::encoder::Encoder;
use super::group::Group;
use super::heads::{HeadForeign, Heads};
use super::holes::Holes;
use super::liveness::Liveness;
use super::load::Loads;
use super::mend::Mends;
use super::persist::Persisting;
use super::pins::Known;
use super::pull::Pulls;
use super::refer::Referrals;
use super::repair::Repairs;
use super::room::RoomQueue;
use super::scrub::Scrub;
use super::segment_map::SegmentMap;
use super::segments::Segments;
use super::session::Sessions;
use super::stall::Stall;
use super::stop::Stop;
use super::{Config, Shape, Shard, Source};

/// Segment writes under way at a time, over all logs of the shard.
const SEGMENT_MEMORY_COUNT: usize = 2;

/// The system's number for a file that is not there.
pub(super) const MISSING: i32 = 2;

/// Why a shard cannot begin. Nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenError {
    /// The journal cannot be used.
    Journal(RecoveryError),
    /// A segment that the journal vouches for is sound, and of another log, node or place.
    Segment {
        /// The log's group.
        group: GroupId,
        /// Number of the segment.
        number: u32,
    },
    /// What is known of starts cannot be read, or is damaged twice, or another node's.
    Pins {
        /// What the system said; none if the bytes are not the right ones.
        fault: Option<DiskFault>,
    },
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Journal(error) => error.fmt(f),
            Self::Pins { fault: Some(fault) } => {
                write!(f, "pins cannot be read: errno {}", fault.errno)
            }
            Self::Pins { fault: None } => f.write_str(
                "pins is damaged or another node's; put back what was there, or remove it, and the \
                 others must be told to take this directory",
            ),
            Self::Segment { group, number } => write!(
                f,
                "segment {number} of group {group} is another node's, or another log's"
            ),
        }
    }
}

impl std::error::Error for OpenError {}

/// Reads at the start, and waits: `size` bytes at a byte position, or all there are up to the end.
pub type Read<'r> = dyn FnMut(Source, u64, usize) -> Result<Bytes, DiskFault> + 'r;

impl Shard {
    /// A shard as its disk left it. Its journal was made with the shape's ring.
    ///
    /// # Errors
    /// Why what is on disk cannot be used.
    pub fn open(
        now: Nanos,
        config: Config,
        shape: Shape,
        read: &mut Read<'_>,
    ) -> Result<Self, OpenError> {
        shape.assert_sound();
        let peers: Vec<NodeId> = config
            .voters
            .iter()
            .map(|voter| voter.id)
            .filter(|id| *id != config.me)
            .collect();
        assert!(
            peers.len() + 1 == config.voters.len(),
            "this node is one of the voters"
        );
        let identity = Identity {
            ring: shape.ring,
            node_tag: node_tag(&config),
        };
        // A record that is missing or damaged only says less.
        let record = read(Source::Persist, 0, PERSIST_FILE_SIZE).unwrap_or_default();
        let record = PersistRecord::newest(&record, identity.node_tag);
        let recorded = record.map_or(Lsn(0), |(record, _)| record.durable_through);
        let mut read_journal =
            |slot, position, size| read(Source::Journal { slot }, position, size);
        let recovered = recovery::recover_recorded(&identity, recorded, &mut read_journal);
        let recovered = recovered.map_err(OpenError::Journal)?;
        if let Some(lost) = lost(&config, &shape, &recovered) {
            return Err(OpenError::Journal(lost));
        }
        let Recovered {
            mut journal,
            mut groups,
            doubt,
            ..
        } = recovered;
        for log in &config.logs {
            if doubt.is_any() && !groups.contains_key(&log.group) {
                journal.doubt(log.group, doubt);
            }
        }
        let (pins, sector) = read_pins(identity.node_tag, read)?;
        // Should the journal have lost its last life, no other start is taken for that one.
        journal.raise_life(pins.life());
        let start = Start {
            life: journal.life() + 1,
            number: config.start,
        };

        let mut shard = Self {
            known: Known::open(pins, sector, identity.node_tag, start),
            persisting: Persisting::open(now, record, identity.node_tag, journal.life() + 1),
            liveness: Liveness::new(now, peers.iter().copied()),
            encoder: Encoder::new(config.cluster),
            rounds: Rounds::new(now),
            asks: Asks::new(journal.life()),
            repairs: Repairs::default(),
            room: RoomQueue::default(),
            mends: Mends::default(),
            scrub: Scrub::new(now),
            peers,
            journal: Journal::open_in(journal, Arenas::new(shape.arena_size, shape.arena_count)),
            groups: Vec::with_capacity(config.logs.len()),
            positions: config.logs.iter().map(|log| log.group).zip(0..).collect(),
            sessions: Sessions::default(),
            outbox: Outbox::default(),
            held: Vec::new(),
            open_block: None,
            loads: Loads::default(),
            ahead: Ahead::default(),
            chunks: Chunks::new(now),
            referrals: Referrals::default(),
            pulls: Pulls::default(),
            carry: Carry::default(),
            questions: Vec::new(),
            undecided_size: 0,
            is_release_due: true,
            segment_memory: Arenas::new(shape.segment_memory_size(), SEGMENT_MEMORY_COUNT),
            next_read: 0,
            next_segment_write: 0,
            date: UnixSeconds(0),
            retention_at: now,
            is_disk_full: false,
            refused_full_count: 0,
            peer_fault_count: 0,
            fetched_size: 0,
            stall: Stall::new(now),
            stop: Stop::Running,
            planned: now,
            config,
            shape,
        };
        for position in 0..shard.config.logs.len() {
            let found = groups.remove(&shard.config.logs[position].group);
            let found = found.unwrap_or_else(|| nothing(doubt));
            let (group, lost) = shard.open_group(now, position, found, read)?;
            shard.groups.push(group);
            for number in lost {
                shard.on_head_lost(now, position, number);
            }
        }
        Ok(shard)
    }

    fn open_group(
        &self,
        now: Nanos,
        position: usize,
        found: GroupRecovered,
        read: &mut Read<'_>,
    ) -> Result<(Group, Vec<u32>), OpenError> {
        let config = &self.config;
        let group = config.logs[position].group;
        let mut lost = Vec::new();
        let segments = match &found.checkpoint {
            None => SegmentMap::recovered(&[], 0, 0, 0),
            Some(checkpoint) => {
                // A log that began anew has none before its first write.
                let is_begun = checkpoint.segment_size > 0;
                let next_number = checkpoint.segment + u32::from(is_begun);
                let heads = Heads::read(config, checkpoint, next_number, read);
                let heads =
                    heads.map_err(|HeadForeign(number)| OpenError::Segment { group, number })?;
                lost = heads.lost;
                let (size, sum) = (checkpoint.segment_size, checkpoint.blocks_sum);
                SegmentMap::recovered(&heads.headers, size, sum, next_number)
            }
        };
        let mut voters: Vec<NodeId> = config.voters.iter().map(|voter| voter.id).collect();
        voters.sort_unstable();
        let raft_config = raft::Config {
            group,
            me: config.me,
            voters,
            seed: config.seed,
            bounds: self.shape.bounds,
        };
        let segments = Segments::recovered(segments);
        let GroupRecovered {
            tail,
            commit,
            producers,
            trims,
            pieces,
            hard,
            doubt,
            ..
        } = found;
        let raft = if doubt.is_any() {
            let number = self.journal.life();
            Raft::doubting(now, raft_config, hard, tail, commit, doubt, number)
        } else {
            Raft::new(now, raft_config, hard, tail, commit)
        };
        let agreement = Agreement::recovered(self.known.is_stopped(position));
        let mut group = Group::new(group, raft, producers, trims, segments, agreement);
        group.holes = pieces.and_then(|pieces| Holes::new(now, pieces));
        Ok((group, lost))
    }
}

/// What was promised and is gone, if there is nobody to bring it back.
fn lost(config: &Config, shape: &Shape, recovered: &Recovered) -> Option<RecoveryError> {
    let mut groups = recovered.groups.values();
    let is_sure = !recovered.doubt.is_any() && groups.all(|group| !group.doubt.is_any());
    if config.voters.len() > 1 || is_sure {
        return None;
    }
    let lost = recovered.findings.iter().find_map(|finding| match finding {
        Finding::Salvaged { lsn } | Finding::Gap { from: lsn, .. } => Some(*lsn),
        _ => None,
    });
    let lost = lost.unwrap_or(recovered.journal.head());
    let (slot, position) = shape.ring.locate(lost);
    Some(RecoveryError::Damaged { slot, position })
}

/// A group of which the journal holds nothing.
fn nothing(doubt: Doubt) -> GroupRecovered {
    GroupRecovered {
        hard: HardState::default(),
        doubt,
        checkpoint: None,
        tail: Tail::new(Base::default()),
        commit: Index(0),
        producers: Producers::new(ProducerTable::default(), Index(0)),
        trims: Trims::default(),
        pieces: None,
    }
}

/// Marks a directory's files: a client cannot know the incarnation, so no record of its can look
/// like a flush of this journal.
#[must_use]
pub fn directory_tag(cluster: ClusterId, node: NodeId, incarnation: Incarnation) -> u32 {
    let mut bytes = incarnation.0.to_le_bytes().to_vec();
    bytes.extend_from_slice(&node.0.to_le_bytes());
    bytes.extend_from_slice(&cluster.0.to_le_bytes());
    crc32c(&bytes)
}

pub(super) fn node_tag(config: &Config) -> u32 {
    directory_tag(config.cluster, config.me, config.incarnation)
}

/// What the directory knows of starts, and in which sector. Nothing where there is no such file: a
/// new directory, or one that the others will not take for the one they knew.
fn read_pins(node_tag: u32, read: &mut Read<'_>) -> Result<(Pins, usize), OpenError> {
    let bytes = match read(Source::Pins, 0, PINS_FILE_SIZE) {
        Ok(bytes) => bytes,
        Err(fault) if fault.errno == MISSING => Bytes::new(),
        Err(fault) => return Err(OpenError::Pins { fault: Some(fault) }),
    };
    Pins::newest(&bytes, node_tag).map_err(|PinsDamaged| OpenError::Pins { fault: None })
}
