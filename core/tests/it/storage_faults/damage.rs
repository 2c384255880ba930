//! What a disk can do to a file, sector by sector, or to the whole of it.

use std::rc::Rc;

use super::disk::{Disk, FileName, SECTOR};

/// Kinds of damage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Damage {
    /// A bit is turned over.
    Flip,
    /// A sector is zeros.
    Zero,
    /// A sector is noise.
    Garbage,
    /// Its last write is not there.
    Lost,
    /// Its last write went to a sector before it, and is not there.
    Misdirected,
    /// It cannot be read.
    Unreadable,
    /// The file ends before it.
    Truncated,
    /// The file is not there.
    Deleted,
    /// The segment is not there, nor the one behind it.
    DeletedPair,
    /// The file is as it was some time ago.
    Stale,
}

impl Damage {
    pub(super) const ALL: [Self; 10] = [
        Self::Flip,
        Self::Zero,
        Self::Garbage,
        Self::Lost,
        Self::Misdirected,
        Self::Unreadable,
        Self::Truncated,
        Self::Deleted,
        Self::DeletedPair,
        Self::Stale,
    ];

    /// Whether it takes a whole file, wherever it is aimed at.
    pub(super) fn is_of_file(self) -> bool {
        matches!(self, Self::Deleted | Self::DeletedPair | Self::Stale)
    }

    /// Does it. `old` is the disk as it was some time ago. False if nothing is other than before.
    pub(super) fn harm(self, disk: &mut Disk, old: &Disk, name: FileName, sector: usize) -> bool {
        let was = disk.files[&name].clone();
        let begin = sector * SECTOR;
        let range = begin..(begin + SECTOR).min(was.len());
        let before = disk.before.get(&(name, sector)).cloned();
        let before = before.unwrap_or_else(|| vec![0; range.len()]);
        let file = Rc::make_mut(disk.files.get_mut(&name).expect("it is there"));
        match self {
            Self::Flip => file[begin + sector % range.len()] ^= 1 << (sector % 8),
            Self::Zero => file[range].fill(0),
            Self::Garbage => {
                let mut state = begin as u32 | 1;
                for byte in &mut file[range] {
                    state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    *byte = (state >> 24) as u8;
                }
            }
            Self::Lost => file[range.clone()].copy_from_slice(&before[..range.len()]),
            Self::Misdirected => {
                // What lies behind may be all that bears witness of it.
                let elsewhere = sector / 2 * SECTOR;
                let bytes = file[range.clone()].to_vec();
                file[elsewhere..elsewhere + bytes.len()].copy_from_slice(&bytes);
                if elsewhere != begin {
                    file[range.clone()].copy_from_slice(&before[..range.len()]);
                }
            }
            Self::Unreadable => return disk.unreadable.insert((name, sector)),
            Self::Truncated => file.truncate(begin),
            Self::Deleted => {
                disk.files.remove(&name);
                return true;
            }
            Self::DeletedPair => {
                disk.files.remove(&name);
                return disk.files.remove(&next(name)).is_some();
            }
            Self::Stale => {
                let Some(old) = old.files.get(&name) else {
                    return false;
                };
                disk.files.insert(name, old.clone());
            }
        }
        disk.files[&name] != was
    }
}

/// The segment behind one.
pub(super) fn next(name: FileName) -> FileName {
    match name {
        FileName::Segment(number) => FileName::Segment(number + 1),
        FileName::Journal(_) | FileName::Pins | FileName::Persist => name,
    }
}
