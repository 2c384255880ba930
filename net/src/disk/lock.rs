//! The locks that make a directory one process's own: that of the directory, and that of each file,
//! which outlasts the last write to it.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, OFlags};
use rustix::io::Errno;

use super::{DiskError, PRIVATE};

/// How long a write of a killed process may take to land before its file counts as in use. Disks
/// that stall do so for seconds.
const WRITE_PATIENCE: Duration = Duration::from_secs(30);

/// Takes the lock file's lock and leaves this process's number in it.
pub(super) fn lock(fd: &OwnedFd, path: &Path) -> Result<OwnedFd, DiskError> {
    let lock_path = path.join("lock");
    let failed = |doing| DiskError::io(doing, &lock_path);
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let lock = rustix::fs::openat(fd, "lock", flags, PRIVATE)
        .map_err(DiskError::io("opening", &lock_path))?;
    match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(Errno::WOULDBLOCK) => {
            let holder = read_holder(&lock);
            return Err(DiskError::Locked {
                path: path.to_owned(),
                holder,
            });
        }
        Err(errno) => return Err(failed("locking")(errno)),
    }
    // For the message of whoever comes second; the lock itself is the kernel's.
    rustix::fs::ftruncate(&lock, 0).map_err(failed("writing"))?;
    let number = format!("{}\n", std::process::id());
    match rustix::io::pwrite(&lock, number.as_bytes(), 0) {
        // A full disk has no room even for that.
        Ok(_) | Err(Errno::NOSPC | Errno::DQUOT) => Ok(lock),
        Err(errno) => Err(failed("writing")(errno)),
    }
}

fn read_holder(lock: &OwnedFd) -> Option<u32> {
    let mut text = [0; 16];
    let size = rustix::io::pread(lock, &mut text[..], 0).ok()?;
    std::str::from_utf8(&text[..size]).ok()?.trim().parse().ok()
}

/// Waits until no write of an earlier process is on its way to this file any more, and keeps it so.
///
/// The kernel does not wait for a killed process's direct writes: they may land after it is gone,
/// and its directory's lock with it. What recovery has read, or what the next life has written
/// since, would change under it. But such a write holds the open file it was asked for on, and with
/// it that file's lock: so a lock on each file outlasts the last write to it.
pub(super) fn outlast_writes(fd: &OwnedFd, path: &Path) -> Result<(), DiskError> {
    let begun = Instant::now();
    loop {
        match rustix::fs::flock(fd, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(()),
            Err(Errno::WOULDBLOCK) if begun.elapsed() < WRITE_PATIENCE => {
                thread::sleep(Duration::from_millis(2));
            }
            Err(Errno::WOULDBLOCK) => {
                let (path, holder) = (path.to_owned(), None);
                return Err(DiskError::Locked { path, holder });
            }
            Err(errno) => return Err(DiskError::io("locking", path)(errno)),
        }
    }
}
