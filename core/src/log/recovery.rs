//! Recovery: what a crash left in the journal, read once, before anything else happens.
//!
//! Keeps nothing. Reads through a closure, so that it runs on a real disk and on a simulated one.
//! What each place means is in `verdict`, what the items add up to in `replay`.
//!
//! # The walk
//! It begins at the first file that the newest file's first flush says is needed, and goes from
//! flush to flush. A flush is accepted only if header sum, place, node, items and every payload are
//! right and it follows the one before. Where that ends, the rest of the ring is searched, sector
//! by sector, for headers that bear witness: of promises that reach beyond this place, or of this
//! place's file being given up. The truth table does the rest.
//!
//! # Why a leftover of an older life is never taken for a continuation
//! After a crash, flushes that were never promised may lie beyond the end: whole ones, behind a
//! torn one. The next life writes over the torn one, and must never run into them.
//!
//! A flush F follows P if it lies where P's follower lies, F.sequence = P.sequence + 1,
//! F.previous_sum = P.sum, and either F and P are of one life and F does not open one, or F opens a
//! life higher than P's. Say F is a leftover: a recovery cut the journal somewhere before it.
//! 1. *P was written after the cut.* A life takes a number above every header found anywhere in the
//!    ring, and that recovery found F's. So P's life is higher than F's, and F cannot follow it.
//! 2. *P was written before the cut.* Then P is the end that recovery accepted, or lies before it.
//!    What lies before has its follower, in its one place. And the end had none in that recovery,
//!    which looked at the very place; only a later life has written there since.
//!
//! Should F's header have been torn when it was looked for, it is torn now. Still, numbers do not
//! hang on the search alone: a life writes nothing else until the flush that opens it is durable.
//! So a life of which a recovery sees nothing wrote nothing but that one flush, torn, and who takes
//! its number again writes over it.
//!
//! The sums only confirm this; they are what catches a drive that lost a write it had promised.
//!
//! # Why what was recovered counts as durable
//! What was read may still have been only in the drive's cache. It counts as durable when the flush
//! that opens the new life is stored, not before: the performer syncs every file of the ring ahead
//! of that write (`Store::opens_life`), so its completion covers all that recovery has read.
//! `Journal::durable` says exactly this, and `Journal::is_open` says when.

use std::collections::BTreeMap;
use std::fmt;

use bytes::Bytes;

use super::flush::{Flush, FlushHeader};
use super::recovered::JournalRecovered;
pub use super::replay::GroupRecovered;
use super::replay::Replay;
use super::ring::Ring;
use super::verdict::{Fate, Sight, fate};
use super::votes::{has_sound_copy, mend};
use crate::bugs::{self, Switch};
use crate::id::{GroupId, Index, Lsn};
use crate::limits::SECTOR_SIZE;

/// Bytes read at a time.
const READ_SIZE: usize = 4 << 20;

/// Whose journal it is, and how it lies on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The ring's shape.
    pub ring: Ring,
    /// Marks the node's flushes. Drawn from a secret of the data directory: a client that knew it
    /// could put something into a record that looks like a flush, were it torn just there.
    pub node_tag: u32,
}

/// A read failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiskFault {
    /// The system's number for it.
    pub errno: i32,
}

/// What was not as a clean stop leaves it, and was put right. For people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finding {
    /// Flushes from here on were never promised and are dropped.
    Dropped {
        /// Where the dropped part begins.
        lsn: Lsn,
    },
    /// A flush was mended from the second copy of its votes.
    Mended {
        /// Where it lies.
        lsn: Lsn,
    },
    /// A flush is whole, but the second copy of its votes is not.
    VoteCopyLost {
        /// Where it lies.
        lsn: Lsn,
    },
    /// A file that is not needed any more is partly written over.
    Skipped {
        /// Its number.
        file: u64,
    },
}

/// Why a journal cannot be used. Nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecoveryError {
    /// A read failed: the disk is at fault.
    Unreadable {
        /// File of the ring.
        slot: u32,
        /// Byte position in it.
        position: u64,
        /// What the system said.
        fault: DiskFault,
    },
    /// A file is shorter than the ring says.
    Short {
        /// File of the ring.
        slot: u32,
        /// Byte position that could not be read in full.
        position: u64,
    },
    /// A flush that was promised is not there or not whole: the disk is at fault.
    Damaged {
        /// File of the ring.
        slot: u32,
        /// Byte position in it.
        position: u64,
    },
    /// The journal is another node's.
    Foreign {
        /// File of the ring.
        slot: u32,
        /// The mark found.
        node_tag: u32,
    },
    /// Every flush is whole, but what they say of a group cannot be true: blocks are missing or do
    /// not follow each other.
    Contradiction {
        /// The group.
        group: GroupId,
        /// The first block in question; 0 for a hard state.
        index: Index,
    },
    /// The ring has not one sector left to open a life in.
    Full,
}

impl fmt::Display for RecoveryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable {
                slot,
                position,
                fault,
            } => {
                write!(
                    f,
                    "journal file {slot} cannot be read at {position}: errno {}",
                    fault.errno
                )
            }
            Self::Short { slot, position } => {
                write!(f, "journal file {slot} ends before {position}")
            }
            Self::Damaged { slot, position } => {
                write!(
                    f,
                    "journal file {slot} is damaged at {position}: promised bytes are lost"
                )
            }
            Self::Foreign { slot, node_tag } => {
                write!(
                    f,
                    "journal file {slot} is another node's (mark {node_tag:#010x})"
                )
            }
            Self::Contradiction { group, index } => {
                write!(
                    f,
                    "the journal contradicts itself: group {group}, block {index}"
                )
            }
            Self::Full => f.write_str("the journal has no room to be opened"),
        }
    }
}

impl std::error::Error for RecoveryError {}

/// What recovery found.
#[derive(Clone, Debug)]
pub struct Recovered {
    /// To open the journal with.
    pub journal: JournalRecovered,
    /// Every group that the journal knows.
    pub groups: BTreeMap<GroupId, GroupRecovered>,
    /// What was put right.
    pub findings: Vec<Finding>,
}

/// Reads `size` bytes at a byte position of a slot's file.
pub type Read<'r> = dyn FnMut(u32, u64, usize) -> Result<Bytes, DiskFault> + 'r;

/// Reads a journal and says what it holds. An empty one (all zero) is that of a fresh node.
///
/// # Errors
/// Why the journal cannot be used.
pub fn recover(identity: &Identity, read: &mut Read<'_>) -> Result<Recovered, RecoveryError> {
    identity.ring.assert_sound();
    let mut disk = Disk {
        ring: identity.ring,
        read,
        slot: 0,
        start: 0,
        bytes: Bytes::new(),
    };
    let mut start = first_file(identity, &mut disk)?;
    let mut findings = Vec::new();
    loop {
        let mut walk = Walk::new(*identity, start);
        let (at, sight) = walk.run(&mut disk)?;
        let witness = search(identity, &mut disk, start, at)?;
        let sight = Sight {
            obsolete: witness.needed_file > identity.ring.file_of(at),
            promised: witness.durable_through > at,
            ..sight
        };
        let fate = match fate(&sight) {
            Fate::Damage if bugs::is_on(Switch::B51) => Fate::End,
            fate => fate,
        };
        match fate {
            Fate::Accept => unreachable!("the walk goes on behind what is accepted"),
            Fate::Skip => {
                findings.push(Finding::Skipped {
                    file: identity.ring.file_of(at),
                });
                // Upwards only, so this ends.
                assert!(
                    witness.needed_file > start,
                    "what is skipped lies before what is needed"
                );
                start = witness.needed_file;
            }
            Fate::Damage => return Err(damaged(&identity.ring, at)),
            // The start is known to be needed from a header that was sealed later.
            Fate::End if walk.last.is_none() && at != Lsn(0) => {
                return Err(damaged(&identity.ring, at));
            }
            Fate::End if bugs::is_on(Switch::B64) && sight.header => {
                return Err(damaged(&identity.ring, at));
            }
            Fate::End => {
                findings.append(&mut walk.findings);
                if sight.header || witness.seen {
                    findings.push(Finding::Dropped { lsn: at });
                }
                return walk.finish(&witness, findings);
            }
        }
    }
}

fn damaged(ring: &Ring, at: Lsn) -> RecoveryError {
    let (slot, position) = ring.locate(at);
    RecoveryError::Damaged { slot, position }
}

/// The first file needed, as the flushes at the files' starts know it; 0 if there are none.
fn first_file(identity: &Identity, disk: &mut Disk<'_, '_>) -> Result<u64, RecoveryError> {
    let ring = &identity.ring;
    let mut first = 0;
    for slot in 0..ring.file_count {
        let Ok(header) = FlushHeader::read(&disk.bytes(slot, 0, SECTOR_SIZE)?) else {
            continue;
        };
        if header.node_tag != identity.node_tag {
            return Err(RecoveryError::Foreign {
                slot,
                node_tag: header.node_tag,
            });
        }
        if ring.locate(header.lsn) == (slot, 0) {
            first = first.max(needed_file(ring, &header));
        }
    }
    Ok(first)
}

fn needed_file(ring: &Ring, header: &FlushHeader) -> u64 {
    ring.file_of(header.lsn)
        .saturating_sub(u64::from(header.files_kept))
}

/// Sequential reading in large pieces, of which the last is kept.
struct Disk<'d, 'r> {
    ring: Ring,
    read: &'d mut Read<'r>,
    slot: u32,
    start: u64,
    bytes: Bytes,
}

impl Disk<'_, '_> {
    /// `size` bytes at a position, within the file.
    fn bytes(&mut self, slot: u32, position: u64, size: usize) -> Result<Bytes, RecoveryError> {
        assert!(
            position + size as u64 <= self.ring.file_size,
            "within the file"
        );
        let kept = self.slot == slot
            && position >= self.start
            && position + size as u64 <= self.start + self.bytes.len() as u64;
        if !kept {
            let left = self.ring.file_size - position;
            let wanted = usize::try_from(left)
                .unwrap_or(usize::MAX)
                .min(READ_SIZE.max(size));
            let bytes =
                (self.read)(slot, position, wanted).map_err(|fault| RecoveryError::Unreadable {
                    slot,
                    position,
                    fault,
                })?;
            if bytes.len() != wanted {
                return Err(RecoveryError::Short { slot, position });
            }
            (self.slot, self.start, self.bytes) = (slot, position, bytes);
        }
        let from = (position - self.start) as usize;
        Ok(self.bytes.slice(from..from + size))
    }
}

/// One walk along the chain.
struct Walk {
    identity: Identity,
    start: u64,
    last: Option<FlushHeader>,
    promised: Lsn,
    replay: Replay,
    findings: Vec<Finding>,
}

impl Walk {
    fn new(identity: Identity, start: u64) -> Self {
        let replay = Replay::default();
        Self {
            identity,
            start,
            last: None,
            promised: Lsn(0),
            replay,
            findings: Vec::new(),
        }
    }

    /// Goes from flush to flush, and says where it stopped and what is to be seen there.
    fn run(&mut self, disk: &mut Disk<'_, '_>) -> Result<(Lsn, Sight), RecoveryError> {
        loop {
            let ring = self.identity.ring;
            let at = self
                .last
                .map_or(ring.start_of(self.start), |last| last.end());
            let sight = self.look(disk, at)?;
            if sight.items {
                continue;
            }
            // A run that would have found too little room went to the next file. An empty flush
            // may still stand in the end, so that place comes first.
            let at_start = ring.left_in_file(at) == ring.file_size;
            if !at_start && !ring.takes_run(at) {
                let next = ring.start_of(ring.file_of(at) + 1);
                if self.look(disk, next)?.items {
                    continue;
                }
            }
            return Ok((at, sight));
        }
    }

    /// Looks at one place, and takes the flush there if it is whole and the next link.
    fn look(&mut self, disk: &mut Disk<'_, '_>, at: Lsn) -> Result<Sight, RecoveryError> {
        let ring = self.identity.ring;
        let (slot, position) = ring.locate(at);
        let left = usize::try_from(ring.left_in_file(at)).unwrap_or(usize::MAX);
        let here = |header: &FlushHeader| {
            header.lsn == at
                && header.node_tag == self.identity.node_tag
                && header.size as usize <= left.min(ring.run_size)
        };
        let next = |header: &FlushHeader| here(header) && self.follows(header);
        let header = FlushHeader::read(&disk.bytes(slot, position, SECTOR_SIZE)?);
        let header = header.ok().filter(here);
        let mut sight = Sight {
            header: header.is_some(),
            chained: header.as_ref().is_some_and(next),
            items: false,
            obsolete: false,
            promised: false,
        };
        if let Some(header) = header.filter(|_| sight.chained) {
            let bytes = disk.bytes(slot, position, header.size as usize)?;
            if let Ok(flush) = Flush::check(&bytes) {
                if flush.has_votes() && !has_sound_copy(&header, &bytes) {
                    self.findings.push(Finding::VoteCopyLost { lsn: at });
                }
                self.accept(&flush)?;
                sight.items = true;
                return Ok(sight);
            }
        }
        let bytes = disk.bytes(slot, position, left.min(ring.run_size))?;
        let mended = mend(&bytes, next);
        if let Some(flush) = mended
            .as_deref()
            .and_then(|mended| Flush::check(mended).ok())
        {
            self.findings.push(Finding::Mended { lsn: at });
            self.accept(&flush)?;
            sight = Sight {
                header: true,
                chained: true,
                items: true,
                ..sight
            };
        }
        Ok(sight)
    }

    /// Whether a flush, right in itself and in its place, continues the last one.
    fn follows(&self, header: &FlushHeader) -> bool {
        let Some(last) = &self.last else {
            // Of the journal's first flush there is nothing before. Another file's first flush is
            // believed: that it is needed is known from a flush of this chain.
            let first = header.sequence == 1 && header.previous_sum == 0 && header.opens;
            return header.lsn != Lsn(0) || first;
        };
        let of_one_life = header.life == last.life && !header.opens;
        let opens_next = header.life > last.life && header.opens;
        bugs::is_on(Switch::B65)
            || header.sequence == last.sequence + 1
                && header.previous_sum == last.sum
                && (of_one_life || opens_next)
    }

    fn accept(&mut self, flush: &Flush<'_>) -> Result<(), RecoveryError> {
        let header = flush.header;
        for (offset, item) in &flush.items {
            let applied = self.replay.apply(&header, *offset, item);
            applied.map_err(|(group, index)| RecoveryError::Contradiction { group, index })?;
        }
        self.promised = self.promised.max(header.durable_through);
        self.last = Some(header);
        Ok(())
    }

    fn finish(self, witness: &Witness, findings: Vec<Finding>) -> Result<Recovered, RecoveryError> {
        let Identity { ring, node_tag } = self.identity;
        let replayed = self
            .replay
            .finish()
            .map_err(|(group, index)| RecoveryError::Contradiction { group, index })?;
        let mut journal = JournalRecovered::fresh(ring, node_tag);
        if let Some(last) = self.last {
            journal.head = last.end();
            journal.last_sum = last.sum;
            journal.sequence = last.sequence;
            journal.life = last.life;
            journal.oldest_file = needed_file(&ring, &last);
            journal.complete = last.complete;
        }
        journal.life = journal.life.max(witness.life);
        journal.promised = self.promised;
        journal.groups = replayed.states;
        if journal.opening_place().is_none() {
            return Err(RecoveryError::Full);
        }
        Ok(Recovered {
            journal,
            groups: replayed.groups,
            findings,
        })
    }
}

/// What the headers behind a place say.
#[derive(Debug, Default)]
struct Witness {
    durable_through: Lsn,
    needed_file: u64,
    life: u64,
    /// Any header at all that belongs at or behind the place.
    seen: bool,
}

/// Searches what the walk from file `start` to `at` has not read.
fn search(
    identity: &Identity,
    disk: &mut Disk<'_, '_>,
    start: u64,
    at: Lsn,
) -> Result<Witness, RecoveryError> {
    let ring = identity.ring;
    let (last_slot, last_position) = ring.locate(at);
    let walked: Vec<u32> = (start..ring.file_of(at))
        .map(|file| ring.slot_of(file))
        .collect();
    let mut witness = Witness::default();
    for slot in 0..ring.file_count {
        let from = match slot == last_slot {
            true => last_position,
            false if walked.contains(&slot) => continue,
            false => 0,
        };
        for position in (from..ring.file_size).step_by(SECTOR_SIZE) {
            let sector = disk.bytes(slot, position, SECTOR_SIZE)?;
            let Ok(header) = FlushHeader::read(&sector) else {
                continue;
            };
            if header.node_tag != identity.node_tag || ring.locate(header.lsn) != (slot, position) {
                continue;
            }
            // Older rounds of the ring know of lives, too.
            witness.life = witness.life.max(header.life);
            if header.lsn >= at {
                witness.seen = true;
                witness.durable_through = witness.durable_through.max(header.durable_through);
                witness.needed_file = witness.needed_file.max(needed_file(&ring, &header));
            }
        }
    }
    Ok(witness)
}
