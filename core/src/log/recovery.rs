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

mod disk;
mod finding;
mod walk;

use std::collections::BTreeMap;

use bytes::Bytes;

use super::Doubt;
use super::flush::FlushHeader;
use super::recovered::JournalRecovered;
pub use super::replay::GroupRecovered;
use super::ring::Ring;
use super::seen::needed_file;
use crate::id::{GroupId, Lsn};
use crate::limits::SECTOR_SIZE;
use disk::Disk;
pub use finding::{Finding, RecoveryError};
use walk::{Stop, Walk};

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
    let mut disk = Disk::new(identity.ring, read);
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
    let mut latest: Option<FlushHeader> = None;
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
        let is_later = latest.is_none_or(|latest| latest.lsn < header.lsn);
        if ring.locate(header.lsn) == (slot, 0) && is_later {
            latest = Some(header);
        }
    }
    Ok(latest.map_or(0, |latest| needed_file(ring, &latest)))
}
