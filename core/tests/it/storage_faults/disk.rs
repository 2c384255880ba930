//! A node's files, some sectors of which may not be readable, and what its journal says to whoever
//! starts on it.
//!
//! Writes are done at once. Knows nothing else of damage.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use bytes::Bytes;
use ringwood_core::id::{Incarnation, Lsn, NodeId};
use ringwood_core::log::persist::{PERSIST_FILE_SIZE, PersistRecord};
use ringwood_core::log::recovery::{
    DiskFault, Finding, Identity, Recovered, RecoveryError, recover_recorded,
};
use ringwood_core::shard::{Shape, Source, directory_tag};

use super::cluster::CLUSTER;

pub(super) const SECTOR: usize = 4096;
const IO_ERROR: DiskFault = DiskFault { errno: 5 };

/// Marks a node's files.
pub(super) fn tag_of(node: usize) -> u32 {
    let incarnation = Incarnation(7 + node as u64);
    directory_tag(CLUSTER, NodeId(node as u64 + 1), incarnation)
}

/// A file of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum FileName {
    Journal(u32),
    Segment(u32),
    Pins,
    Persist,
}

pub(super) fn name_of(source: Source) -> FileName {
    match source {
        Source::Journal { slot } => FileName::Journal(slot),
        Source::Segment { number, .. } => FileName::Segment(number),
        Source::Pins => FileName::Pins,
        Source::Persist => FileName::Persist,
    }
}

/// A disk. Copies share what neither writes.
#[derive(Clone, Default)]
pub(super) struct Disk {
    pub(super) files: BTreeMap<FileName, Rc<Vec<u8>>>,
    /// What stood in a sector before it was last written, where it was not nothing.
    pub(super) before: BTreeMap<(FileName, usize), Vec<u8>>,
    /// Sectors that cannot be read, until they are written.
    pub(super) unreadable: BTreeSet<(FileName, usize)>,
    /// The file that is to take a segment's place.
    pub(super) mended: Vec<u8>,
}

impl Disk {
    pub(super) fn new() -> Self {
        let slots = 0..Shape::SMALL.ring.file_count;
        let empty = Rc::new(vec![0; Shape::SMALL.ring.file_size as usize]);
        Self {
            files: slots
                .map(|slot| (FileName::Journal(slot), empty.clone()))
                .collect(),
            ..Self::default()
        }
    }

    /// The first segment that is there.
    pub(super) fn first_segment(&self) -> Option<FileName> {
        let mut names = self.files.keys();
        names
            .find(|name| matches!(name, FileName::Segment(_)))
            .copied()
    }

    pub(super) fn write(&mut self, name: FileName, position: usize, bytes: &[u8]) {
        let file = Rc::make_mut(self.files.entry(name).or_default());
        let end = position + bytes.len();
        file.resize(file.len().max(end), 0);
        for (at, sector) in bytes.chunks(SECTOR).enumerate() {
            let from = position + at * SECTOR;
            let was = &file[from..from + sector.len()];
            let number = from / SECTOR;
            if was.iter().any(|byte| *byte != 0) && was != sector {
                self.before.insert((name, number), was.to_vec());
            }
            self.unreadable.remove(&(name, number));
        }
        file[position..end].copy_from_slice(bytes);
    }

    pub(super) fn read(
        &self,
        name: FileName,
        position: u64,
        size: usize,
    ) -> Result<Bytes, DiskFault> {
        let file = self.files.get(&name).ok_or(DiskFault { errno: 2 })?;
        let begin = (position as usize).min(file.len());
        let end = (begin + size).min(file.len());
        let (first, last) = (begin / SECTOR, end.div_ceil(SECTOR));
        let met = self.unreadable.range((name, first)..(name, last)).next();
        if met.is_some() {
            return Err(IO_ERROR);
        }
        Ok(Bytes::copy_from_slice(&file[begin..end]))
    }
}

/// What a start on a node's journal finds.
pub(super) fn recovered(disk: &Disk, node: usize) -> Result<Recovered, RecoveryError> {
    let node_tag = tag_of(node);
    let record = disk.read(FileName::Persist, 0, PERSIST_FILE_SIZE);
    let record = PersistRecord::newest(&record.unwrap_or_default(), node_tag);
    let recorded = record.map_or(Lsn(0), |(record, _)| record.durable_through);
    let identity = Identity {
        ring: Shape::SMALL.ring,
        node_tag,
    };
    let mut read = |slot, position, size| disk.read(FileName::Journal(slot), position, size);
    recover_recorded(&identity, recorded, &mut read)
}

/// Whether recovery noticed damage. What was never promised, or is not needed, is none.
pub(super) fn is_damaged(found: &Recovered) -> bool {
    let is_damage =
        |finding: &Finding| !matches!(finding, Finding::Dropped { .. } | Finding::Skipped { .. });
    !found.is_healed() || found.findings.iter().any(is_damage)
}
