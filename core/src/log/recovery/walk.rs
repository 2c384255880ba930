//! One walk along the journal's chain of flushes, to where it stops.
//!
//! Takes what is whole, goes over what is lost as `verdict` has it, and tells `replay`. Knows neither
//! where to begin nor whether to begin again elsewhere.

use bytes::Bytes;

use super::super::flush::{Flush, FlushHeader};
use super::super::recovered::JournalRecovered;
use super::super::replay::Replay;
use super::super::salvage::Salvage;
use super::super::seen::{Seen, Witness, needed_file};
use super::super::verdict::{Fate, Sight, fate};
use super::super::votes::{has_sound_copy, mend};
use super::disk::Disk;
use super::finding::{Finding, RecoveryError};
use super::{Identity, Recovered, damaged};
use crate::bugs::{self, Switch};
use crate::id::Lsn;
use crate::limits::SECTOR_SIZE;

/// Why a walk stopped.
pub(super) enum Stop {
    /// At what is to be forgotten.
    Skip { at: Lsn, needed_file: u64 },
    /// At the first flush of its first file, which is lost.
    LostStart,
    /// At the journal's end.
    End,
}

/// One walk along the chain.
pub(super) struct Walk {
    identity: Identity,
    start: u64,
    /// The first file that is needed. The walk may begin before it.
    pub(super) needed: u64,
    /// All below was durable, as the persist record says.
    pub(super) recorded: Lsn,
    last: Option<FlushHeader>,
    /// Where the walk goes on, if not behind `last`: at a header behind what is lost, or where
    /// nothing stands.
    resume: Option<Lsn>,
    /// The state of all groups is not said yet in the life of `last`.
    is_opening: bool,
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
    pub(super) findings: Vec<Finding>,
}

impl Walk {
    pub(super) fn new(identity: Identity, start: u64, may_lose_start: bool) -> Self {
        let replay = Replay::default();
        Self {
            identity,
            start,
            needed: start,
            recorded: Lsn(0),
            last: None,
            resume: None,
            is_opening: false,
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
    pub(super) fn run(&mut self, disk: &mut Disk<'_, '_>) -> Result<Stop, RecoveryError> {
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
                    if !disk.unreadable.is_empty()
                        && (!self.replay.has_gap() || disk.is_unreadable_in(at, ring.run_size))
                    {
                        // What bears witness may be among what cannot be read, or it is this flush.
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
        self.note_opening(&header, false);
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

    /// Follows a life from its first flush through the last one that says the state of all groups.
    /// What of that is lost may have said what was doubted.
    fn note_opening(&mut self, header: &FlushHeader, is_whole: bool) {
        let begins = self.last.is_some_and(|last| last.life < header.life);
        let is_gap = self.resume.is_some() || begins && !header.opens;
        self.is_opening |= begins;
        if self.is_opening && !(header.opens && is_whole) && (is_gap || !is_whole) {
            self.replay.lose_opening(header.life);
        }
        self.is_opening &= !(header.complete && is_whole);
    }

    fn accept(&mut self, flush: &Flush<'_>) -> Result<(), RecoveryError> {
        let header = flush.header;
        self.note_opening(&header, true);
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

    /// The first file that the next life needs. Where a checkpoint is lost, blocks may stand in files
    /// that were free, for it covered them. They are kept if the ring has room enough without those
    /// files; else they are as good as lost, and better so now than once they are written over.
    fn oldest_file(&mut self) -> u64 {
        let ring = self.identity.ring;
        let said = self.last.map_or(0, |last| needed_file(&ring, &last));
        if !self.replay.has_gap() {
            return said;
        }
        let lowest = self.replay.lowest();
        let lowest = lowest.map_or(said, |lowest| ring.file_of(lowest).min(said));
        let head = self.head();
        let has_room = |file: &u64| ring.has_room_kept_from(*file, head);
        let oldest = (lowest..said).find(has_room).unwrap_or(said);
        if oldest > lowest {
            self.replay.forget_below(ring.start_of(oldest));
        }
        oldest
    }

    pub(super) fn finish(
        mut self,
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
        let oldest_file = self.oldest_file();
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
            journal.oldest_file = oldest_file;
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
