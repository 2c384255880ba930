//! Which file systems are refused: those in memory, and those without direct I/O in whole sectors.

use std::os::fd::OwnedFd;
use std::path::Path;

use ringwood_core::limits::SECTOR_SIZE;
use rustix::fs::{AtFlags, Mode, OFlags, StatxFlags};
use rustix::io::Errno;

use super::DiskError;

/// File systems that live in memory. They may well take O_DIRECT, and lose all the same.
pub(super) fn refuse_volatile(fd: &OwnedFd, path: &Path) -> Result<(), DiskError> {
    const TMPFS: i64 = 0x0102_1994;
    const RAMFS: i64 = 0x8584_58f6;
    let at = rustix::fs::fstatfs(fd).map_err(DiskError::io("asking", path))?;
    #[allow(clippy::unnecessary_cast)] // Its type differs between machines.
    let kind = match at.f_type as i64 {
        TMPFS => "tmpfs",
        RAMFS => "ramfs",
        _ => return Ok(()),
    };
    Err(DiskError::Volatile {
        path: path.to_owned(),
        kind,
    })
}

/// Whether direct I/O works here in units of a sector.
pub(super) fn check_direct(fd: &OwnedFd, path: &Path) -> Result<(), DiskError> {
    let flags = OFlags::RDONLY | OFlags::DIRECT | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    match rustix::fs::openat(fd, "lock", flags, Mode::empty()) {
        Ok(_) => {}
        Err(Errno::INVAL) => {
            return Err(DiskError::NotDirect {
                path: path.to_owned(),
            });
        }
        Err(errno) => return Err(DiskError::io("opening", path)(errno)),
    }
    let asked = rustix::fs::statx(fd, "lock", AtFlags::empty(), StatxFlags::DIOALIGN);
    let at = asked.map_err(DiskError::io("looking at", path))?;
    if at.stx_mask & StatxFlags::DIOALIGN.bits() == 0 {
        // Not told, by an older kernel or file system: the calibration's writes will tell.
        return Ok(());
    }
    let size = at.stx_dio_offset_align.max(at.stx_dio_mem_align);
    if at.stx_dio_offset_align == 0 {
        return Err(DiskError::NotDirect {
            path: path.to_owned(),
        });
    }
    if !(SECTOR_SIZE as u64).is_multiple_of(u64::from(size)) {
        return Err(DiskError::Coarse {
            path: path.to_owned(),
            size,
        });
    }
    Ok(())
}
