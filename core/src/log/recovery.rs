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
//! # What is lost
//! A disk may lose what it had stored. Then the walk takes what is whole of the damaged flush, or
//! goes on at the next header behind it, and what groups miss is told: blocks by index and sum
//! (`pieces`), and what they doubt (`replay`). Nothing of it is put right here. The place of what
//! is lost is not written over before the ring comes round to it, so every later recovery finds the
//! same, until what was brought back stands behind it. Only what nobody can judge is an error.
//!
//! If the first flush of the first file is what is lost, the walk begins a file earlier, where that
//! is still there: each file begins with the state of all groups, and nothing is wrong with an
//! older one.
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

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use bytes::{Bytes, BytesMut};

use super::Doubt;
use super::flush::{Flush, FlushHeader};
use super::recovered::JournalRecovered;
pub use super::replay::GroupRecovered;
use super::replay::Replay;
use super::ring::Ring;
use super::salvage::Salvage;
use super::seen::{Seen, Witness, needed_file};
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

/// What was not as a clean stop leaves it. For people.
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
    /// A promised flush is damaged; what is whole of it was taken.
    Salvaged {
        /// Where it lies.
        lsn: Lsn,
    },
    /// Promised flushes are lost.
    Gap {
        /// Where the first began.
        from: Lsn,
        /// Where the journal goes on.
        to: Lsn,
    },
    /// Sectors could not be read.
    Unreadable {
        /// File of the ring.
        slot: u32,
        /// Byte position of the first of them in it.
        position: u64,
        /// How many there are, in all files.
        count: usize,
    },
}

/// Why a journal cannot be used. Nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecoveryError {
    /// A whole file cannot be read, or what can be read holds nothing: the disk is at fault.
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
    /// What was promised is not there, and nothing else of the journal is either.
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
    /// What groups doubt that the journal does not know.
    pub doubt: Doubt,
    /// What was not as a clean stop leaves it.
    pub findings: Vec<Finding>,
    /// Where the flush lies that opened the latest life: what is damaged before it was found by an
    /// earlier recovery.
    pub opened: Lsn,
}

impl Recovered {
    /// Whether all that was lost in front of the latest life has been dealt with.
    #[must_use]
    pub fn is_healed(&self) -> bool {
        let mut groups = self.groups.values();
        !self.doubt.is_any() && groups.all(|group| !group.doubt.is_any() && group.pieces.is_none())
    }
}

/// Reads `size` bytes at a byte position of a slot's file.
pub type Read<'r> = dyn FnMut(u32, u64, usize) -> Result<Bytes, DiskFault> + 'r;

/// Reads a journal and says what it holds. An empty one (all zero) is that of a fresh node.
///
/// # Errors
/// Why the journal cannot be used.
pub fn recover(identity: &Identity, read: &mut Read<'_>) -> Result<Recovered, RecoveryError> {
    recover_recorded(identity, Lsn(0), read)
}

/// As [`recover`]; all below `recorded` was durable, as the persist record says.
///
/// # Errors
/// Why the journal cannot be used.
pub fn recover_recorded(
    identity: &Identity,
    recorded: Lsn,
    read: &mut Read<'_>,
) -> Result<Recovered, RecoveryError> {
    identity.ring.assert_sound();
    let mut disk = Disk {
        ring: identity.ring,
        read,
        slot: 0,
        start: 0,
        bytes: Bytes::new(),
        unreadable: BTreeSet::new(),
        fault: None,
    };
    let mut start = first_file(identity, &mut disk)?;
    let mut findings = Vec::new();
    let (mut has_gone_back, mut may_lose_start) = (false, false);
    let mut needed = start;
    loop {
        let mut walk = Walk::new(*identity, start, may_lose_start);
        walk.needed = needed;
        walk.recorded = recorded;
        match walk.run(&mut disk)? {
            Stop::Skip { at, needed_file } => {
                findings.push(Finding::Skipped {
                    file: identity.ring.file_of(at),
                });
                // Upwards only, so this ends.
                assert!(
                    needed_file > start,
                    "what is skipped lies before what is needed"
                );
                (start, needed) = (needed_file, needed_file);
            }
            Stop::LostStart => {
                let goes_back = !has_gone_back && has_file_before(identity, &mut disk, start)?;
                start -= u64::from(goes_back);
                (has_gone_back, may_lose_start) = (true, !goes_back);
            }
            Stop::End => {
                findings.append(&mut walk.findings);
                return walk.finish(&disk, findings);
            }
        }
    }
}

/// Why a walk stopped.
enum Stop {
    /// At what is to be forgotten.
    Skip { at: Lsn, needed_file: u64 },
    /// At the first flush of its first file, which is lost.
    LostStart,
    /// At the journal's end.
    End,
}

/// Whether the file before `start` is still there.
fn has_file_before(
    identity: &Identity,
    disk: &mut Disk<'_, '_>,
    start: u64,
) -> Result<bool, RecoveryError> {
    let ring = &identity.ring;
    let Some(before) = start.checked_sub(1) else {
        return Ok(false);
    };
    let header = FlushHeader::read(&disk.bytes(ring.slot_of(before), 0, SECTOR_SIZE)?);
    Ok(header.is_ok_and(|header| {
        header.node_tag == identity.node_tag && header.lsn == ring.start_of(before)
    }))
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

/// Sequential reading in large pieces, of which the last is kept.
struct Disk<'d, 'r> {
    ring: Ring,
    read: &'d mut Read<'r>,
    slot: u32,
    start: u64,
    bytes: Bytes,
    /// Sectors that gave an error, by slot and position. They read as zeros.
    unreadable: BTreeSet<(u32, u64)>,
    /// The first of those errors.
    fault: Option<DiskFault>,
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
            let bytes = match (self.read)(slot, position, wanted) {
                Ok(bytes) => bytes,
                Err(_) => self.sectors(slot, position, wanted),
            };
            if bytes.len() != wanted {
                return Err(RecoveryError::Short { slot, position });
            }
            (self.slot, self.start, self.bytes) = (slot, position, bytes);
        }
        let from = (position - self.start) as usize;
        Ok(self.bytes.slice(from..from + size))
    }

    /// Reads sector by sector where a read in one failed: what cannot be read is damaged, the rest
    /// is not.
    fn sectors(&mut self, slot: u32, position: u64, size: usize) -> Bytes {
        let mut bytes = BytesMut::with_capacity(size);
        for at in (position..position + size as u64).step_by(SECTOR_SIZE) {
            match (self.read)(slot, at, SECTOR_SIZE) {
                Ok(sector) => bytes.extend_from_slice(&sector),
                Err(fault) => {
                    self.fault.get_or_insert(fault);
                    self.unreadable.insert((slot, at));
                    bytes.extend_from_slice(&[0; SECTOR_SIZE]);
                }
            }
        }
        bytes.freeze()
    }

    /// What the system said of the first sector that could not be read.
    fn error(&self) -> Option<RecoveryError> {
        let (slot, position) = *self.unreadable.first()?;
        self.fault.map(|fault| RecoveryError::Unreadable {
            slot,
            position,
            fault,
        })
    }

    /// Whether a whole file cannot be read: then it is not its bytes that are at fault.
    fn lacks_file(&self) -> bool {
        let sector_count = self.ring.file_size / SECTOR_SIZE as u64;
        (0..self.ring.file_count).any(|slot| {
            let sectors = self.unreadable.range((slot, 0)..=(slot, u64::MAX));
            sectors.count() as u64 == sector_count
        })
    }

    fn is_unreadable(&self, at: Lsn) -> bool {
        self.unreadable.contains(&self.ring.locate(at))
    }
}

/// One walk along the chain.
struct Walk {
    identity: Identity,
    start: u64,
    /// The first file that is needed. The walk may begin before it.
    needed: u64,
    /// All below was durable, as the persist record says.
    recorded: Lsn,
    last: Option<FlushHeader>,
    /// Where the walk goes on, if not behind `last`: at a header behind what is lost, or where
    /// nothing stands.
    resume: Option<Lsn>,
    /// There is no earlier file to begin with.
    may_lose_start: bool,
    /// The damaged flush that was looked at last, with what the second copy of its votes gave back.
    mended: Option<Vec<u8>>,
    promised: Lsn,
    /// Where the latest life begins.
    opened: Lsn,
    /// What lies behind the place where the walk first stopped.
    seen: Option<Seen>,
    replay: Replay,
    findings: Vec<Finding>,
}

impl Walk {
    fn new(identity: Identity, start: u64, may_lose_start: bool) -> Self {
        let replay = Replay::default();
        Self {
            identity,
            start,
            needed: start,
            recorded: Lsn(0),
            last: None,
            resume: None,
            may_lose_start,
            mended: None,
            promised: Lsn(0),
            opened: Lsn(0),
            seen: None,
            replay,
            findings: Vec::new(),
        }
    }

    fn head(&self) -> Lsn {
        let start = self.identity.ring.start_of(self.start);
        self.resume
            .unwrap_or_else(|| self.last.map_or(start, |last| last.end()))
    }

    /// Goes from flush to flush and over what is lost, and says why it stopped.
    fn run(&mut self, disk: &mut Disk<'_, '_>) -> Result<Stop, RecoveryError> {
        let ring = self.identity.ring;
        loop {
            let (at, sight) = self.advance(disk)?;
            let seen = match self.seen.take() {
                Some(seen) => seen,
                None => search(&self.identity, disk, self.start, at)?,
            };
            let witness = seen.witness(at);
            // Where the walk goes on already, the header is there or was: a disk may not give again
            // what it gave.
            let beyond = match self.resume == Some(at) {
                true => Lsn(at.0 + SECTOR_SIZE as u64),
                false => at,
            };
            let next = seen.next(beyond, self.last.as_ref()).map(|next| next.lsn);
            self.seen = Some(seen);
            let is_start = self.last.is_none() && self.resume.is_none();
            let sight = Sight {
                obsolete: witness.needed_file > ring.file_of(at).max(self.needed),
                // That the start is needed is known from a header that was sealed later.
                promised: witness.durable_through.max(self.recorded) > at
                    || is_start && at != Lsn(0)
                    || disk.is_unreadable(at),
                followed: next.is_some(),
                ..sight
            };
            let fate = match fate(&sight) {
                Fate::Salvage | Fate::Gap | Fate::Unsure if bugs::is_on(Switch::B51) => Fate::End,
                fate => fate,
            };
            match fate {
                Fate::Accept => unreachable!("the walk goes on behind what is accepted"),
                Fate::Skip => {
                    return Ok(Stop::Skip {
                        at,
                        needed_file: witness.needed_file,
                    });
                }
                Fate::Salvage | Fate::Gap if is_start && !self.may_lose_start => {
                    return Ok(Stop::LostStart);
                }
                Fate::Salvage => self.salvage(disk, at)?,
                Fate::Gap => self.cross(at, next.expect("it is followed")),
                Fate::Unsure => {
                    // Not written over: what is lost there is to be found again.
                    let next_file = ring.start_of(ring.file_of(at) + 1);
                    let to = Lsn(at.0 + SECTOR_SIZE as u64).max(self.recorded.min(next_file));
                    let is_round = ring.file_of(to) >= self.start + u64::from(ring.file_count);
                    // Without the record a journal of which nothing is there may be anybody's.
                    if self.last.is_none() && self.recorded <= at || is_round {
                        return Err(disk.error().unwrap_or_else(|| damaged(&ring, at)));
                    }
                    self.cross(at, to);
                }
                Fate::End if bugs::is_on(Switch::B64) && sight.header => {
                    return Err(damaged(&ring, at));
                }
                Fate::End => {
                    if !disk.unreadable.is_empty() && !self.replay.has_gap() {
                        // What bears witness may be among what cannot be read.
                        self.replay.lose(at, at);
                    }
                    if sight.header || witness.is_seen {
                        self.findings.push(Finding::Dropped { lsn: at });
                    }
                    return Ok(Stop::End);
                }
            }
            let Witness {
                durable_through, ..
            } = witness;
            self.promised = self.promised.max(durable_through);
        }
    }

    /// Goes from flush to flush as long as they are whole, and says what is to be seen where they
    /// are not.
    fn advance(&mut self, disk: &mut Disk<'_, '_>) -> Result<(Lsn, Sight), RecoveryError> {
        loop {
            let ring = self.identity.ring;
            let at = self.head();
            let sight = self.look(disk, at)?;
            if sight.items {
                continue;
            }
            // A run that would have found too little room went to the next file. An empty flush
            // may still stand in the end, so that place comes first.
            let at_start = ring.left_in_file(at) == ring.file_size;
            if !at_start && !ring.takes_run(at) {
                let next = ring.start_of(ring.file_of(at) + 1);
                let mended = self.mended.take();
                if self.look(disk, next)?.items {
                    continue;
                }
                self.mended = mended;
            }
            return Ok((at, sight));
        }
    }

    /// Takes what is whole of the damaged flush at `at`, whose header is the next link.
    fn salvage(&mut self, disk: &mut Disk<'_, '_>, at: Lsn) -> Result<(), RecoveryError> {
        let bytes = match self.mended.take() {
            Some(mended) => Bytes::from(mended),
            None => {
                let (slot, position) = self.identity.ring.locate(at);
                let left = self.identity.ring.left_in_file(at);
                let size = self.identity.ring.run_size.min(left as usize);
                disk.bytes(slot, position, size)?
            }
        };
        // Read once more, a disk may not give what it gave just now.
        let header = FlushHeader::read(&bytes).ok();
        let is_it = |header: &FlushHeader| {
            header.lsn == at && header.size as usize <= bytes.len() && self.follows(header)
        };
        let Some(header) = header.filter(is_it) else {
            let ring = &self.identity.ring;
            return Err(disk.error().unwrap_or_else(|| damaged(ring, at)));
        };
        self.findings.push(Finding::Salvaged { lsn: at });
        self.replay.salvage(&header, &Salvage::of(&header, &bytes));
        self.promised = self.promised.max(header.end());
        (self.last, self.resume) = (Some(header), None);
        Ok(())
    }

    /// Goes on at `to`: what was promised between is lost.
    fn cross(&mut self, from: Lsn, to: Lsn) {
        let ring = self.identity.ring;
        let next_file = ring.start_of(ring.file_of(from) + 1);
        let at_start = ring.left_in_file(from) == ring.file_size;
        // In a file's end only an empty flush can have been lost.
        let is_in_next = !at_start && !ring.takes_run(from) && next_file <= to;
        let from = if is_in_next { next_file } else { from };
        self.findings.push(Finding::Gap { from, to });
        self.replay.lose(from, to);
        self.promised = self.promised.max(to);
        self.resume = Some(to);
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
            followed: false,
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
        self.mended = mend(&bytes, next);
        if let Some(mended) = self.mended.take() {
            (sight.header, sight.chained) = (true, true);
            match Flush::check(&mended) {
                Ok(flush) => {
                    self.findings.push(Finding::Mended { lsn: at });
                    self.accept(&flush)?;
                    sight.items = true;
                }
                Err(_) => self.mended = Some(mended),
            }
        }
        Ok(sight)
    }

    /// Whether a flush, right in itself and in its place, continues the last one.
    fn follows(&self, header: &FlushHeader) -> bool {
        if let Some(resume) = self.resume {
            // What it continues is lost, or not to be told from what is.
            let is_later =
                |last: FlushHeader| (header.life, header.sequence) > (last.life, last.sequence);
            return header.lsn == resume && self.last.is_none_or(is_later);
        }
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
        if header.opens {
            self.opened = header.lsn;
        }
        (self.last, self.resume) = (Some(header), None);
        Ok(())
    }

    fn finish(
        self,
        disk: &Disk<'_, '_>,
        mut findings: Vec<Finding>,
    ) -> Result<Recovered, RecoveryError> {
        let Identity { ring, node_tag } = self.identity;
        let (head, has_gap) = (self.head(), self.replay.has_gap());
        if let Some(error) = disk.error()
            && (self.last.is_none() || disk.lacks_file())
        {
            return Err(error);
        }
        if let Some((slot, position)) = disk.unreadable.first().copied() {
            findings.push(Finding::Unreadable {
                slot,
                position,
                count: disk.unreadable.len(),
            });
        }
        if self.last.is_none() && has_gap && self.recorded == Lsn(0) {
            return Err(damaged(&ring, ring.start_of(self.start)));
        }
        let scars = self.replay.scars();
        let replayed = self
            .replay
            .finish()
            .map_err(|(group, index)| RecoveryError::Contradiction { group, index })?;
        let mut journal = JournalRecovered::fresh(ring, node_tag);
        journal.head = head;
        if let Some(last) = self.last {
            journal.last_sum = last.sum;
            journal.sequence = last.sequence;
            journal.life = last.life;
            journal.oldest_file = needed_file(&ring, &last);
            // The state may have been in what is lost; and what is doubted must be said.
            journal.complete = last.complete && !has_gap;
        }
        let seen = self.seen.expect("the walk stopped and searched");
        journal.life = journal.life.max(seen.life());
        journal.promised = self.promised;
        journal.groups = replayed.states;
        journal.scars = scars;
        if journal.opening_place().is_none() {
            return Err(RecoveryError::Full);
        }
        Ok(Recovered {
            journal,
            groups: replayed.groups,
            doubt: replayed.doubt,
            findings,
            opened: self.opened,
        })
    }
}

/// Searches what the walk from file `start` to `at` has not read.
fn search(
    identity: &Identity,
    disk: &mut Disk<'_, '_>,
    start: u64,
    at: Lsn,
) -> Result<Seen, RecoveryError> {
    let ring = identity.ring;
    let (last_slot, last_position) = ring.locate(at);
    let walked: Vec<u32> = (start..ring.file_of(at))
        .map(|file| ring.slot_of(file))
        .collect();
    let mut seen = Seen::new(ring);
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
            let left = ring.left_in_file(header.lsn).min(ring.run_size as u64);
            let is_here = ring.locate(header.lsn) == (slot, position);
            if header.node_tag == identity.node_tag && is_here && u64::from(header.size) <= left {
                seen.push(header);
            }
        }
    }
    Ok(seen)
}
