//! The files of the shard under test, what damages them, and how its writes and reads end: at once,
//! unless the disk is stuck, full, or slow.

use std::collections::BTreeMap;

use bytes::Bytes;
use ringwood_core::limits::SECTOR_SIZE;
use ringwood_core::log::Store;
use ringwood_core::log::block::blocks;
use ringwood_core::log::footer::SegmentFooter;
use ringwood_core::log::persist::PERSIST_FILE_SIZE;
use ringwood_core::log::pins::PINS_FILE_SIZE;
use ringwood_core::log::recovery::DiskFault;
use ringwood_core::log::ring::Ring;
use ringwood_core::shard::{Effect, Input, Source};

use super::Bench;

/// Files by what they are.
pub(super) struct Disk {
    journal: Vec<Vec<u8>>,
    pins: Vec<u8>,
    persist: Vec<u8>,
    segments: BTreeMap<(u32, u32), Vec<u8>>,
    /// The file that is to take a segment's place.
    mended: Vec<u8>,
    /// Bytes that no segment can be read at.
    unreadable: Vec<usize>,
}

impl Disk {
    /// Files without anything in them, and no segments.
    pub(super) fn new(ring: Ring) -> Self {
        let file = vec![0; ring.file_size as usize];
        Self {
            journal: vec![file; ring.file_count as usize],
            segments: BTreeMap::new(),
            mended: Vec::new(),
            unreadable: Vec::new(),
            pins: vec![0; PINS_FILE_SIZE],
            persist: vec![0; PERSIST_FILE_SIZE],
        }
    }

    pub(super) fn read(
        &self,
        source: Source,
        position: u64,
        size: usize,
    ) -> Result<Bytes, DiskFault> {
        let file = match source {
            Source::Journal { slot } => &self.journal[slot as usize],
            Source::Pins => &self.pins,
            Source::Persist => &self.persist,
            Source::Segment { group, number } => self
                .segments
                .get(&(group.0, number))
                .ok_or(DiskFault { errno: 2 })?,
        };
        let end = file.len().min(position as usize + size);
        let begin = end.min(position as usize);
        let is_segment = matches!(source, Source::Segment { .. });
        if is_segment && self.unreadable.iter().any(|at| (begin..end).contains(at)) {
            return Err(DiskFault { errno: 5 });
        }
        Ok(Bytes::copy_from_slice(&file[begin..end]))
    }
}

impl Bench {
    /// Does what is asked of the disk; says what came of it, if anything is told.
    pub(super) fn perform_on_disk(&mut self, effect: Effect) -> Option<Input<'static>> {
        let input = match effect {
            Effect::StorePins { position, sector } => {
                self.disk.pins[position as usize..][..sector.len()].copy_from_slice(&sector);
                Input::PinsStored
            }
            Effect::StorePersist { position, sector } => {
                self.disk.persist[position as usize..][..sector.len()].copy_from_slice(&sector);
                Input::PersistStored
            }
            Effect::Store(store) if self.is_disk_stuck => {
                self.stuck.push(store);
                return None;
            }
            Effect::Store(store) => self.store(&store),
            Effect::SegmentWrite { write, .. } if self.is_disk_full => Input::SegmentRefused(write),
            // The first part found room.
            Effect::SegmentMend {
                write, position, ..
            } if self.is_disk_full && position > 0 => Input::SegmentRefused(write),
            Effect::SegmentMend {
                write,
                position,
                buffer,
                ..
            } => {
                self.mend_count += u64::from(position == 0);
                self.disk.mended.truncate(position as usize);
                assert_eq!(self.disk.mended.len(), position as usize, "in order");
                self.disk.mended.extend_from_slice(&buffer);
                Input::SegmentStored(write)
            }
            Effect::SegmentReplace {
                write,
                group,
                number,
            } => {
                let file = std::mem::take(&mut self.disk.mended);
                self.disk.segments.insert((group.0, number), file);
                Input::SegmentStored(write)
            }
            Effect::SegmentDiscard { .. } => {
                assert!(!self.disk.mended.is_empty(), "it was begun");
                self.disk.mended.clear();
                return None;
            }
            Effect::SegmentWrite {
                write,
                group,
                number,
                position,
                buffer,
            } => {
                self.is_disk_stuck |= self.sticks_behind_segments;
                let file = self.disk.segments.entry((group.0, number)).or_default();
                let end = position as usize + buffer.len();
                file.resize(file.len().max(end), 0);
                file[position as usize..end].copy_from_slice(&buffer);
                if self.is_mute_at_footers && SegmentFooter::check(&buffer).is_ok() {
                    return None;
                }
                Input::SegmentStored(write)
            }
            Effect::SegmentRemove { .. } if self.keeps_segments => return None,
            Effect::SegmentRemove { group, below } => {
                let is_kept = |key: &(u32, u32)| key.0 != group.0 || key.1 >= below;
                self.disk.segments.retain(|key, _| is_kept(key));
                return None;
            }
            Effect::Load {
                load,
                source,
                position,
                size,
            } => {
                let read = self.disk.read(source, position, size);
                let bytes = read.unwrap_or_default();
                if matches!(source, Source::Segment { .. })
                    && let Some(left) = &mut self.reads_to_hold
                {
                    if *left == 0 {
                        self.reads_to_hold = None;
                        self.held = Some(Input::Loaded { load, bytes });
                        return None;
                    }
                    *left -= 1;
                }
                if matches!(source, Source::Segment { .. }) {
                    self.read_size += bytes.len() as u64;
                }
                Input::Loaded { load, bytes }
            }
            Effect::Send { .. } | Effect::Reply { .. } | Effect::Close(_) | Effect::Notice(_) => {
                unreachable!("nothing of a disk's")
            }
        };
        Some(input)
    }

    fn store(&mut self, store: &Store) -> Input<'static> {
        self.files_entered += u64::from(store.position == 0);
        let bytes = store.runs.concat();
        self.disk.journal[store.slot as usize][store.position as usize..][..bytes.len()]
            .copy_from_slice(&bytes);
        Input::Stored(store.write)
    }

    /// Whether no write of the journal ends.
    pub(crate) fn is_stuck(&self) -> bool {
        self.is_disk_stuck
    }

    /// The writes under way are lost with the process, which begins anew.
    pub(crate) fn crash(&mut self) {
        self.sticks_behind_segments = false;
        self.is_disk_stuck = false;
        self.stuck.clear();
        self.restart();
    }

    /// From now on no write ends, or all that were under way have ended.
    pub(crate) fn stick_disk(&mut self, is_stuck: bool) {
        self.is_disk_stuck = is_stuck;
        if is_stuck {
            return;
        }
        for store in std::mem::take(&mut self.stuck) {
            let input = self.store(&store);
            self.step(input);
        }
    }

    /// Numbers of the segments that are there.
    pub(crate) fn segment_numbers(&self, group: u32) -> Vec<u32> {
        let keys = self.disk.segments.keys();
        keys.filter(|key| key.0 == group).map(|key| key.1).collect()
    }

    /// Whether a segment of a group is there.
    pub(crate) fn has_segment(&self, group: u32, number: u32) -> bool {
        self.disk.segments.contains_key(&(group, number))
    }

    /// The bytes of a segment.
    pub(crate) fn segment(&mut self, group: u32, number: u32) -> &mut Vec<u8> {
        let file = self.disk.segments.get_mut(&(group, number));
        file.expect("it is there")
    }

    /// The read that the disk was slow to answer comes back, with what the file then held. Says
    /// whether there was one.
    pub(crate) fn release_read(&mut self) -> bool {
        let Some(input) = self.held.take() else {
            return false;
        };
        self.step(input);
        true
    }

    /// Bytes of the file that shall take a segment's place.
    pub(crate) fn mended_size(&self) -> usize {
        self.disk.mended.len()
    }

    /// No segment can be read at these bytes.
    pub(crate) fn spoil_reads_at(&mut self, bytes: &[usize]) {
        self.disk.unreadable = bytes.to_vec();
    }

    /// A segment's file is gone.
    pub(crate) fn delete_segment(&mut self, group: u32, number: u32) {
        self.disk.segments.remove(&(group, number));
    }

    /// Zeros from where the last block of a segment begins.
    pub(crate) fn lose_last_block(&mut self, group: u32, number: u32) {
        let file = self.segment(group, number);
        let (mut at, mut last) = (SECTOR_SIZE, 0);
        while at < file.len() {
            match blocks(&file[at..]).next() {
                Some(Ok(block)) => {
                    last = at;
                    at += block.bytes().len();
                }
                // Padding behind a write.
                _ => at = (at / SECTOR_SIZE + 1) * SECTOR_SIZE,
            }
        }
        assert!(last > 0, "it has blocks");
        file[last..].fill(0);
    }

    /// Turns a bit of a journal block's payload over, wherever it lies: that of the record full of
    /// `fill`. Says in how many places.
    pub(crate) fn flip_in_journal(&mut self, fill: u8) -> usize {
        let mut count = 0;
        for file in &mut self.disk.journal {
            let mut at = 0;
            while let Some(next) = file[at..].windows(32).position(|piece| piece == [fill; 32]) {
                file[at + next] ^= 1;
                count += 1;
                let rest = file[at + next + 1..].iter();
                at += next + 1 + rest.take_while(|byte| **byte == fill).count();
            }
        }
        count
    }
}
