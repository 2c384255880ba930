//! A node's disk: files, writes under way, and what a crash leaves of both.
//!
//! A write counts when it is reported complete. Until then a crash may leave all of it, nothing, or
//! any of its pieces: tearing is tried at 512 and at 4096 bytes. What a crashed process left is
//! visible to the next one and yet not safe: a loss of power may still take it, until a sync.
//! Knows no content.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use super::chance::Chance;
use crate::id::GroupId;
use crate::log::recovery::DiskFault;
use crate::log::ring::Ring;
use crate::shard::Source;

/// What the smallest drives write as one.
const PIECE: usize = 512;

/// No such file.
const NOT_FOUND: DiskFault = DiskFault { errno: 2 };

/// A file's bytes. A reader shares them, and whoever writes while one still does writes into a copy:
/// most reads are over by then, and a restart reads the whole journal.
#[derive(Clone, Debug, Default)]
struct Content(Arc<Vec<u8>>);

impl Content {
    fn write(&mut self) -> &mut Vec<u8> {
        Arc::make_mut(&mut self.0)
    }

    fn share(&self) -> Bytes {
        Bytes::from_owner(self.clone())
    }
}

impl AsRef<[u8]> for Content {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// A file's bytes as a reader sees them, and what of them is not safe.
#[derive(Debug, Default)]
struct File {
    content: Content,
    /// Pieces that a loss of power may turn back, with what they were; by piece number.
    unsafe_pieces: BTreeMap<usize, [u8; PIECE]>,
    /// Bytes that the file has after a loss of power at least.
    safe_size: usize,
}

impl File {
    fn put(&mut self, position: usize, bytes: &[u8], is_safe: bool) {
        let end = position + bytes.len();
        let content = self.content.write();
        if content.len() < end {
            content.resize(end, 0);
        }
        if is_safe && self.unsafe_pieces.is_empty() {
            content[position..end].copy_from_slice(bytes);
            self.safe_size = self.safe_size.max(end);
            return;
        }
        for (at, piece) in bytes.chunks(PIECE).enumerate() {
            let number = position / PIECE + at;
            let old = &mut content[number * PIECE..][..PIECE];
            if is_safe {
                self.unsafe_pieces.remove(&number);
            } else {
                let was = <[u8; PIECE]>::try_from(&*old).expect("a whole piece");
                self.unsafe_pieces.entry(number).or_insert(was);
            }
            old.copy_from_slice(piece);
        }
        if is_safe {
            self.safe_size = self.safe_size.max(end);
        }
    }

    fn sync(&mut self) {
        self.unsafe_pieces.clear();
        self.safe_size = self.size();
    }

    fn lose_power(&mut self, chance: &mut Chance) {
        for (number, was) in std::mem::take(&mut self.unsafe_pieces) {
            if chance.one_in(2) {
                self.content.write()[number * PIECE..][..PIECE].copy_from_slice(&was);
            }
        }
        if chance.one_in(2) && self.safe_size < self.size() {
            self.content.write().truncate(self.safe_size);
        }
        self.safe_size = self.size();
    }

    fn size(&self) -> usize {
        self.content.0.len()
    }
}

/// What a write goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Target {
    File(Source),
    /// The file that is to take a segment's place.
    Mended {
        group: GroupId,
        number: u32,
    },
}

/// One write that has not been reported complete.
#[derive(Debug)]
struct Write {
    target: Target,
    position: u64,
    bytes: Vec<Bytes>,
    /// It syncs its target and puts it in the segment's place, and writes nothing.
    is_replacement: bool,
}

impl Write {
    /// Whether it changes anything of a stretch of its file.
    fn meets(&self, begin: usize, end: usize) -> bool {
        let at = usize::try_from(self.position).expect("small files");
        let size: usize = self.bytes.iter().map(Bytes::len).sum();
        at < end && begin < at + size
    }
}

/// A write that was reported complete and is not there.
#[derive(Debug)]
pub(super) struct Lost {
    target: Target,
    position: usize,
    bytes: Vec<u8>,
}

/// One node's disk.
#[derive(Debug)]
pub(super) struct Disk {
    journal: Vec<File>,
    /// None before it is first written.
    pins: Option<File>,
    persist: Option<File>,
    segments: BTreeMap<(u32, u32), File>,
    mended: BTreeMap<(u32, u32), File>,
    /// Segments that a process knew to be damaged when it ended, and that none has mended since.
    wounded: BTreeSet<(u32, u32)>,
    /// Segments deleted in this life: who had them open reads on, and a crash may bring them back.
    removed: BTreeMap<(u32, u32), File>,
    writes: BTreeMap<u64, Write>,
    next_write: u64,
}

impl Disk {
    /// A disk with an empty journal.
    pub(super) fn new(ring: &Ring) -> Self {
        let size = usize::try_from(ring.file_size).expect("small rings are simulated");
        let file = || File {
            content: Content(Arc::new(vec![0; size])),
            safe_size: size,
            ..File::default()
        };
        Self {
            journal: (0..ring.file_count).map(|_| file()).collect(),
            pins: None,
            persist: None,
            segments: BTreeMap::new(),
            mended: BTreeMap::new(),
            wounded: BTreeSet::new(),
            removed: BTreeMap::new(),
            writes: BTreeMap::new(),
            next_write: 0,
        }
    }

    fn file(&self, source: Source) -> Option<&File> {
        match source {
            Source::Journal { slot } => self.journal.get(slot as usize),
            Source::Segment { group, number } => self.segments.get(&(group.0, number)),
            Source::Pins => self.pins.as_ref(),
            Source::Persist => self.persist.as_ref(),
        }
    }

    fn file_mut(&mut self, target: Target) -> &mut File {
        match target {
            Target::File(Source::Journal { slot }) => &mut self.journal[slot as usize],
            Target::File(Source::Segment { group, number }) => {
                self.segments.entry((group.0, number)).or_default()
            }
            Target::File(Source::Pins) => self.pins.get_or_insert_default(),
            Target::File(Source::Persist) => self.persist.get_or_insert_default(),
            Target::Mended { group, number } => self.mended.entry((group.0, number)).or_default(),
        }
    }

    /// Takes a write; its number completes it.
    pub(super) fn write(&mut self, target: Target, position: u64, bytes: Vec<Bytes>) -> u64 {
        if let (Target::Mended { group, number }, 0) = (target, position) {
            self.mended.remove(&(group.0, number));
        }
        self.file_mut(target);
        self.push(Write {
            target,
            position,
            bytes,
            is_replacement: false,
        })
    }

    /// Takes the wish that what was written beside a segment takes its place.
    pub(super) fn replace(&mut self, group: GroupId, number: u32) -> u64 {
        self.push(Write {
            target: Target::Mended { group, number },
            position: 0,
            bytes: Vec::new(),
            is_replacement: true,
        })
    }

    /// What was written beside a segment is not wanted any more.
    pub(super) fn discard(&mut self, group: GroupId, number: u32) {
        self.mended.remove(&(group.0, number));
    }

    fn push(&mut self, write: Write) -> u64 {
        self.next_write += 1;
        self.writes.insert(self.next_write, write);
        self.next_write
    }

    /// A write is done: it survives everything from here on.
    pub(super) fn complete(&mut self, number: u64) {
        let Write {
            target,
            position,
            bytes,
            is_replacement,
        } = self.writes.remove(&number).expect("a write completes once");
        if is_replacement {
            self.put_in_place(target);
            return;
        }
        let file = self.file_mut(target);
        let mut at = usize::try_from(position).expect("small files");
        for slice in &bytes {
            file.put(at, slice, true);
            at += slice.len();
        }
    }

    /// Synced before it gets the name: whoever finds the name finds all bytes.
    fn put_in_place(&mut self, target: Target) {
        let Target::Mended { group, number } = target else {
            unreachable!("only what was written beside takes a place")
        };
        let key = (group.0, number);
        let mut file = self.mended.remove(&key).expect("it was written");
        file.sync();
        self.segments.insert(key, file);
        self.wounded.remove(&key);
    }

    /// What a process that ends knows to be damaged: the next one has to find that out.
    pub(super) fn leave_wounds(&mut self, wounds: impl Iterator<Item = (GroupId, u32)>) {
        self.wounded
            .extend(wounds.map(|(group, number)| (group.0, number)));
    }

    /// Whether there are segments that a process knew to be damaged, and none has mended.
    pub(super) fn is_wounded(&self) -> bool {
        !self.wounded.is_empty()
    }

    /// A write was refused: nothing of it counts, and nothing of it was done.
    pub(super) fn refuse(&mut self, number: u64) {
        self.writes
            .remove(&number)
            .expect("a write is refused once");
    }

    /// A write is reported done, and some of it is not there. Gives what it should have left.
    pub(super) fn lose(&mut self, number: u64, chance: &mut Chance) -> Lost {
        let Write {
            target,
            position,
            bytes,
            ..
        } = self.writes.remove(&number).expect("a write completes once");
        let bytes = bytes.concat();
        let unit = chance.pick(&[PIECE, 8 * PIECE]);
        let place = usize::try_from(position).expect("small files");
        let unit_count = bytes.len().div_ceil(unit) as u64;
        let lost = chance.below(unit_count) as usize;
        let is_whole = chance.one_in(2);
        for (number, piece) in bytes.chunks(unit).enumerate() {
            if !is_whole && number != lost {
                self.file_mut(target)
                    .put(place + number * unit, piece, true);
            }
        }
        Lost {
            target,
            position: place,
            bytes,
        }
    }

    /// What was lost is there after all.
    pub(super) fn put_back(&mut self, lost: &Lost) {
        self.file_mut(lost.target)
            .put(lost.position, &lost.bytes, true);
    }

    /// Puts something else where promised bytes are, and says what.
    pub(super) fn damage(
        &mut self,
        source: Source,
        position: u64,
        size: usize,
        chance: &mut Chance,
    ) -> &'static str {
        let file = self.file_mut(Target::File(source));
        let begin = usize::try_from(position).expect("small files");
        let unit = chance.pick(&[PIECE, 8 * PIECE]);
        let unit_count = size / unit;
        let unit_at = |chance: &mut Chance| begin + chance.below(unit_count as u64) as usize * unit;
        let at = unit_at(chance);
        let was = file.content.0[at..at + unit].to_vec();
        let elsewhere = chance.below((file.size() / unit) as u64) as usize * unit;
        let (is, how) = match chance.below(5) {
            0 => {
                let mut is = was;
                is[chance.below(unit as u64) as usize] ^= 1 << chance.below(8);
                (is, "a bit is turned over")
            }
            1 => (vec![0; unit], "a piece is zero"),
            2 => {
                let noise = |_| chance.below(256) as u8;
                (was.iter().map(noise).collect(), "a piece is noise")
            }
            3 => (
                file.content.0[elsewhere..][..unit].to_vec(),
                "a piece is another's",
            ),
            _ => {
                // The write went elsewhere: what was here before stays, what was there is lost. Only
                // what lies before can be hit: what lies behind may be all that bears witness.
                if at >= unit {
                    file.put(elsewhere % at / unit * unit, &was, true);
                }
                (vec![0; unit], "a piece lies in another's place")
            }
        };
        file.put(at, &is, true);
        how
    }

    /// Whether no write is under way.
    pub(super) fn is_idle(&self) -> bool {
        self.writes.is_empty()
    }

    /// Everything in the journal is safe from here on.
    pub(super) fn sync_journal(&mut self) {
        self.journal.iter_mut().for_each(File::sync);
    }

    /// Reads what is visible, up to the file's end. Where a write is under way, old and new bytes
    /// may come mixed.
    pub(super) fn read(
        &self,
        source: Source,
        position: u64,
        size: usize,
        chance: &mut Chance,
    ) -> Result<Bytes, DiskFault> {
        let file = match self.file(source) {
            Some(file) => file,
            None => {
                let removed = self.removed_file(source).ok_or(NOT_FOUND)?;
                // It was opened before it was deleted, or nobody finds it any more.
                if chance.one_in(2) {
                    return Ok(Bytes::new());
                }
                removed
            }
        };
        let begin = usize::try_from(position)
            .expect("small files")
            .min(file.size());
        let end = (begin + size).min(file.size());
        let found = file.content.share().slice(begin..end);
        let is_met =
            |write: &&Write| write.target == Target::File(source) && write.meets(begin, end);
        let mut met = self.writes.values().filter(is_met).peekable();
        if met.peek().is_none() {
            return Ok(found);
        }
        let mut bytes = BytesMut::from(&found[..]);
        for write in met {
            let mut at = usize::try_from(write.position).expect("small files");
            for slice in &write.bytes {
                for (number, piece) in slice.chunks(PIECE).enumerate() {
                    let piece_at = at + number * PIECE;
                    if piece_at >= begin && piece_at + PIECE <= end && chance.one_in(2) {
                        bytes[piece_at - begin..][..PIECE].copy_from_slice(piece);
                    }
                }
                at += slice.len();
            }
        }
        Ok(bytes.freeze())
    }

    /// The process is gone, and with it what it had not heard of: of each write under way some part
    /// is done. `power`: so is what was never synced.
    pub(super) fn crash(&mut self, power: bool, chance: &mut Chance) {
        for (_, write) in std::mem::take(&mut self.writes) {
            if !write.is_replacement {
                self.tear(&write, chance);
            } else if chance.one_in(2) {
                self.put_in_place(write.target);
            }
        }
        self.mended.clear();
        if power {
            self.journal
                .iter_mut()
                .for_each(|file| file.lose_power(chance));
            self.segments
                .values_mut()
                .for_each(|file| file.lose_power(chance));
            let small = self.pins.iter_mut().chain(&mut self.persist);
            small.for_each(|file| file.lose_power(chance));
            if chance.one_in(2) {
                self.segments.retain(|_, file| file.safe_size > 0);
            }
        }
    }

    fn tear(&mut self, write: &Write, chance: &mut Chance) {
        let unit = chance.pick(&[512, 4096]);
        let bytes: Vec<u8> = write.bytes.iter().flatten().copied().collect();
        let unit_count = bytes.len().div_ceil(unit) as u64;
        let manner = chance.below(4);
        let cut = chance.below(unit_count + 1);
        let position = usize::try_from(write.position).expect("small files");
        for (number, piece) in bytes.chunks(unit).enumerate() {
            let is_done = match manner {
                0 => false,
                1 => true,
                2 => (number as u64) < cut,
                _ => chance.one_in(2),
            };
            if is_done {
                self.file_mut(write.target)
                    .put(position + number * unit, piece, false);
            }
        }
    }

    /// Segment files that hold anything, and their sizes.
    pub(super) fn segments(&self) -> Vec<(Source, usize)> {
        let source = |&(group, number): &(u32, u32)| Source::Segment {
            group: GroupId(group),
            number,
        };
        let segments = self.segments.iter();
        segments
            .filter(|(_, file)| file.size() > 0)
            .map(|(name, file)| (source(name), file.size()))
            .collect()
    }

    /// Deletes a group's segments below a number, at once, and says how many there were.
    pub(super) fn remove_segments(&mut self, group: GroupId, below: u32) -> usize {
        let is_gone = |key: &(u32, u32)| key.0 == group.0 && key.1 < below;
        for write in self.writes.values() {
            if let Target::File(Source::Segment { group, number }) = write.target {
                assert!(!is_gone(&(group.0, number)), "deleted while it is written");
            }
        }
        let gone: Vec<_> = self
            .segments
            .extract_if(.., |key, _| is_gone(key))
            .collect();
        let count = gone.len();
        self.removed.extend(gone);
        self.wounded.retain(|key| !is_gone(key));
        count
    }

    fn removed_file(&self, source: Source) -> Option<&File> {
        match source {
            Source::Segment { group, number } => self.removed.get(&(group.0, number)),
            Source::Journal { .. } | Source::Pins | Source::Persist => None,
        }
    }

    /// The process is gone: any of its deletions may not have been done, or not for good. Says how
    /// many files are there again.
    pub(super) fn bring_back_removed(&mut self, chance: &mut Chance) -> u64 {
        let mut count = 0;
        for (key, file) in std::mem::take(&mut self.removed) {
            if chance.one_in(2) {
                count += 1;
                self.segments.entry(key).or_insert(file);
            }
        }
        count
    }

    /// Segment files that exist.
    pub(super) fn segment_count(&self) -> usize {
        self.segments.len()
    }
}
