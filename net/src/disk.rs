//! `Directory`: a node's data directory, its lock, its journal and segment files.
//!
//! All here is synchronous and happens at a node's start or, when a segment is begun, beside the
//! loop: what is written all the time goes through a `ring::Ring`. Knows no record, run or block; what a file
//! means is core's `log`. Hop "store": the files it opens are the ones stored to.
//!
//! ```text
//!   <directory>/lock                         held by the one process that may write here
//!               journal-0 .. journal-N       full size, every byte written once, then overwritten
//!               journal.persist          two sectors: how far the journal was durable
//!               pins                     two sectors: starts of this node, and of the others
//!               log-<group>/segment-<8 digits>
//! ```
//! Nothing is made by opening: what is missing is told, since a disk that was emptied or swapped
//! must not pass for a new one. What is made is made durable, its name in its directory included,
//! before the call returns.

mod calibration;
mod error;

use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use ringwood_core::id::GroupId;
use ringwood_core::limits::SECTOR_SIZE;
use ringwood_core::log::persist::PERSIST_FILE_SIZE;
use ringwood_core::log::pins::PINS_FILE_SIZE;
use rustix::fs::{AtFlags, CWD, Dir, FlockOperation, Mode, OFlags, RenameFlags, StatxFlags};
use rustix::io::Errno;

use crate::ring::{AlignedBuffer, Family, File, IoError};

pub use calibration::Calibration;
pub use error::DiskError;

/// How files are opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Access {
    /// Past the page cache: a failed sync then cannot leave pages in doubt, and a write costs no
    /// second copy. The only mode for data somebody wants to keep.
    #[default]
    Direct,
    /// Through the page cache, on any file system, even one in memory: after a failed sync nobody
    /// knows what is on disk. For trying things out.
    BufferedForDevelopmentOnly,
}

/// Bytes of the file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// Free for this process.
    pub free_size: u64,
    /// All there are.
    pub total_size: u64,
}

/// A directory that this process, and no other, works in for as long as it, or one got from it by
/// `child`, lives.
#[derive(Debug)]
pub struct Directory {
    path: PathBuf,
    fd: OwnedFd,
    lock: Arc<OwnedFd>,
    access: Access,
}

/// Zeroes written at a time when a journal file is filled.
const FILL_SIZE: usize = 1 << 20;

/// How long a write of a killed process may take to land before its file counts as in use. Disks
/// that stall do so for seconds.
const WRITE_PATIENCE: std::time::Duration = std::time::Duration::from_secs(30);

/// Which directories were known as whose; see core's `log::pins`.
pub const PINS_FILE: &str = "pins";

/// How far the journal was durable; see core's `log::persist`.
const PERSIST: &str = "journal.persist";

const PRIVATE: Mode = Mode::from_raw_mode(0o600);
const PRIVATE_DIRECTORY: Mode = Mode::from_raw_mode(0o700);

impl Directory {
    /// Makes an empty directory (its parent must be there), durable, and opens it. One that is
    /// there already is opened as it is.
    ///
    /// # Errors
    /// As `open`.
    pub fn create(path: &Path, access: Access) -> Result<Self, DiskError> {
        let parent = match path.parent() {
            Some(parent) if parent != Path::new("") => parent,
            _ => Path::new("."),
        };
        match rustix::fs::mkdir(path, PRIVATE_DIRECTORY) {
            Ok(()) => sync_directory(&open_directory(parent)?, parent)?,
            Err(Errno::EXIST) => {}
            Err(errno) => return Err(DiskError::io("making", path)(errno)),
        }
        Self::open(path, access)
    }

    /// Takes a directory for this process: refuses a second process before anything is changed,
    /// and a file system that cannot keep the journal's promises.
    ///
    /// # Errors
    /// `Missing`, `Locked`, `Volatile`, `NotDirect`, `Coarse`, `Io`.
    pub fn open(path: &Path, access: Access) -> Result<Self, DiskError> {
        let fd = open_directory(path)?;
        if access == Access::Direct {
            refuse_volatile(&fd, path)?;
        }
        let lock = Arc::new(lock(&fd, path)?);
        if access == Access::Direct {
            check_direct(&fd, path)?;
        }
        Ok(Self {
            path: path.to_owned(),
            fd,
            lock,
            access,
        })
    }

    /// A directory within this one, made where it is not there, under the same lock.
    ///
    /// # Errors
    /// `Io`.
    pub fn child(&self, name: &str) -> Result<Self, DiskError> {
        assert!(
            !name.contains('/') && name != "." && name != "..",
            "a child is a plain name"
        );
        let path = self.path.join(name);
        match rustix::fs::mkdirat(&self.fd, name, PRIVATE_DIRECTORY) {
            Ok(()) => sync_directory(&self.fd, &self.path)?,
            Err(Errno::EXIST) => {}
            Err(errno) => return Err(DiskError::io("making", &path)(errno)),
        }
        let fd = open_directory(&path)?;
        Ok(Self {
            path,
            fd,
            lock: Arc::clone(&self.lock),
            access: self.access,
        })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// How its files are opened.
    #[must_use]
    pub fn access(&self) -> Access {
        self.access
    }

    /// How much room there is now.
    ///
    /// # Errors
    /// `Io`.
    pub fn space(&self) -> Result<Space, DiskError> {
        let at = rustix::fs::fstatvfs(&self.fd).map_err(DiskError::io("asking", &self.path))?;
        Ok(Space {
            free_size: at.f_bavail * at.f_frsize,
            total_size: at.f_blocks * at.f_frsize,
        })
    }

    /// Makes the journal files that are not there yet: `count` of `size` bytes, each of them
    /// written with zeros, so that later writes change no file-system metadata. A file gets its
    /// name last: one that was half-filled at a power cut is never taken for whole.
    ///
    /// # Errors
    /// `Size` where one is there with another size; `Io`, `is_full` if there is no room.
    pub fn create_journal(&self, count: u32, size: u64) -> Result<(), DiskError> {
        assert!(
            size > 0 && size.is_multiple_of(FILL_SIZE as u64),
            "whole steps of {FILL_SIZE}"
        );
        for slot in 0..count {
            let name = journal_name(slot);
            match self.check_size(&name, size) {
                Err(DiskError::Missing { .. }) => self.create_filled(&name, size)?,
                other => other?,
            }
        }
        Ok(())
    }

    /// Opens the journal files 0 to `count`, in order.
    ///
    /// # Errors
    /// `Missing`, `Size`, `Io`.
    pub fn open_journal(&self, count: u32, size: u64) -> Result<Vec<File>, DiskError> {
        let open = |slot| {
            let name = journal_name(slot);
            self.check_size(&name, size)?;
            self.open_file(&name, OFlags::RDWR)
        };
        (0..count).map(open).collect()
    }

    /// Opens the file of pins, made of zeros where there is none.
    ///
    /// # Errors
    /// `Size`; `Io`, `is_full` if there is no room to make it.
    pub fn open_pins(&self) -> Result<File, DiskError> {
        let size = PINS_FILE_SIZE as u64;
        match self.check_size(PINS_FILE, size) {
            Err(DiskError::Missing { .. }) => self.create_filled(PINS_FILE, size)?,
            other => other?,
        }
        self.open_file(PINS_FILE, OFlags::RDWR)
    }

    /// Opens the file of the persist record, made of zeros where there is none of its size: one that
    /// is lost only says less.
    ///
    /// # Errors
    /// `Io`, `is_full` if there is no room to make it.
    pub fn open_persist(&self) -> Result<File, DiskError> {
        let size = PERSIST_FILE_SIZE as u64;
        match self.check_size(PERSIST, size) {
            Err(DiskError::Missing { .. } | DiskError::Size { .. }) => {
                self.create_filled(PERSIST, size)?;
            }
            other => other?,
        }
        self.open_file(PERSIST, OFlags::RDWR)
    }

    /// Opens segment `number` of `group`, made empty where it is not there.
    ///
    /// # Errors
    /// `Io`, `is_full` if there is no room.
    pub fn create_segment(&self, group: GroupId, number: u32) -> Result<File, DiskError> {
        let log = self.child(&log_name(group))?;
        let name = segment_name(number);
        match log.open_file(&name, OFlags::RDWR) {
            Err(DiskError::Missing { .. }) => {}
            other => return other,
        }
        let file = log.open_file(&name, OFlags::RDWR | OFlags::CREATE | OFlags::EXCL)?;
        sync_file(&file, &log.path)?;
        sync_directory(&log.fd, &log.path)?;
        Ok(file)
    }

    /// Deletes the segments of `group` below a number, those that are there.
    ///
    /// # Errors
    /// `Io`.
    pub fn remove_segments(&self, group: GroupId, below: u32) -> Result<(), DiskError> {
        let path = self.path.join(log_name(group));
        let mut is_changed = false;
        for number in self
            .segments(group)?
            .into_iter()
            .filter(|number| *number < below)
        {
            let name = format!("{}/{}", log_name(group), segment_name(number));
            rustix::fs::unlinkat(&self.fd, &name, AtFlags::empty())
                .map_err(DiskError::io("removing", &self.path.join(&name)))?;
            is_changed = true;
        }
        if is_changed {
            sync_directory(&open_directory(&path)?, &path)?;
        }
        Ok(())
    }

    /// Where segment `number` of `group` is, if it is.
    #[must_use]
    pub fn segment_path(&self, group: GroupId, number: u32) -> PathBuf {
        self.path.join(log_name(group)).join(segment_name(number))
    }

    /// Opens segment `number` of `group`.
    ///
    /// # Errors
    /// `Missing`, `Io`.
    pub fn open_segment(&self, group: GroupId, number: u32) -> Result<File, DiskError> {
        let name = format!("{}/{}", log_name(group), segment_name(number));
        self.open_file(&name, OFlags::RDWR)
    }

    /// Writes into the file that is to take a segment's place, made anew at position 0. Not durable
    /// before it does.
    ///
    /// # Errors
    /// `Io`, `is_full` if there is no room.
    pub fn mend_segment(
        &self,
        group: GroupId,
        number: u32,
        position: u64,
        bytes: &[u8],
    ) -> Result<(), DiskError> {
        let name = mended_name(group, number);
        let path = self.path.join(&name);
        let mut flags = OFlags::WRONLY | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        if position == 0 {
            flags |= OFlags::TRUNC;
            // The log's directory may be what was lost.
            self.child(&log_name(group))?;
        }
        let file = rustix::fs::openat(&self.fd, &name, flags, PRIVATE)
            .map_err(DiskError::io("opening", &path))?;
        let mut done = 0;
        while done < bytes.len() {
            done += rustix::io::pwrite(&file, &bytes[done..], position + done as u64)
                .map_err(DiskError::io("writing", &path))?;
        }
        Ok(())
    }

    /// Makes what was written beside a segment durable, then gives it the segment's name. After a
    /// crash the name means the old file or the new one, whole.
    ///
    /// # Errors
    /// `Io`, `is_full` if there is no room.
    pub fn replace_segment(&self, group: GroupId, number: u32) -> Result<(), DiskError> {
        let log = self.child(&log_name(group))?;
        let name = mended_name(group, number);
        let path = self.path.join(&name);
        let file = rustix::fs::openat(&self.fd, &name, OFlags::WRONLY | OFlags::CLOEXEC, PRIVATE)
            .map_err(DiskError::io("opening", &path))?;
        rustix::fs::fsync(&file).map_err(DiskError::io("syncing", &path))?;
        rustix::fs::renameat(&self.fd, &name, &log.fd, segment_name(number))
            .map_err(DiskError::io("naming", &path))?;
        // The name means the new file by now: whatever fails here, this is no step that was not taken.
        sync_directory(&log.fd, &log.path).map_err(|_| DiskError::Io {
            doing: "syncing",
            path: log.path.clone(),
            error: IoError::Device,
        })
    }

    /// Makes the names of all segments durable that a life before has given: it may have been killed
    /// between making a file and syncing its directory, and the file is there now.
    ///
    /// # Errors
    /// `Io`.
    pub fn sync_names(&self) -> Result<(), DiskError> {
        for group in self.groups()? {
            let path = self.path.join(log_name(group));
            sync_directory(&open_directory(&path)?, &path)?;
        }
        sync_directory(&self.fd, &self.path)
    }

    /// Deletes what was written beside a segment, if anything was.
    ///
    /// # Errors
    /// `Io`.
    pub fn discard_mended(&self, group: GroupId, number: u32) -> Result<(), DiskError> {
        let name = mended_name(group, number);
        match rustix::fs::unlinkat(&self.fd, &name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(DiskError::io("removing", &self.path.join(&name))(errno)),
        }
    }

    /// Deletes what an earlier process wrote beside segments and did not finish.
    ///
    /// # Errors
    /// `Io`.
    pub fn discard_unfinished(&self) -> Result<(), DiskError> {
        for group in self.groups()? {
            let path = self.path.join(log_name(group));
            let log = open_directory(&path)?;
            for number in numbers(&log, &path, "segment-", MENDED)? {
                self.discard_mended(group, number)?;
            }
        }
        Ok(())
    }

    /// The groups that have a directory here, in order.
    ///
    /// # Errors
    /// `Io`.
    pub fn groups(&self) -> Result<Vec<GroupId>, DiskError> {
        Ok(numbers(&self.fd, &self.path, "log-", "")?
            .into_iter()
            .map(GroupId)
            .collect())
    }

    /// The segments of `group`, in order; none where it has no directory.
    ///
    /// # Errors
    /// `Io`.
    pub fn segments(&self, group: GroupId) -> Result<Vec<u32>, DiskError> {
        let path = self.path.join(log_name(group));
        match open_directory(&path) {
            Ok(fd) => numbers(&fd, &path, "segment-", ""),
            Err(DiskError::Missing { .. }) => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }

    /// Puts a small file in place of what was there under that name, as a whole or, after a power
    /// cut, not at all.
    ///
    /// # Errors
    /// `Io`, `is_full` if there is no room.
    pub fn replace_small(&self, name: &str, contents: &[u8]) -> Result<(), DiskError> {
        let path = self.path.join(name);
        let temporary = format!("{name}.new");
        let make = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&self.fd, &temporary, make, PRIVATE)
            .map_err(DiskError::io("making", &path))?;
        let mut done = 0;
        while done < contents.len() {
            done += rustix::io::pwrite(&file, &contents[done..], done as u64)
                .map_err(DiskError::io("writing", &path))?;
        }
        rustix::fs::fsync(&file).map_err(DiskError::io("syncing", &path))?;
        rustix::fs::renameat(&self.fd, &temporary, &self.fd, name)
            .map_err(DiskError::io("naming", &path))?;
        sync_directory(&self.fd, &self.path)
    }

    /// A small file's contents, up to `size_max` bytes.
    ///
    /// # Errors
    /// `Missing`, `Io`; `Size` where it is larger.
    pub fn read_small(&self, name: &str, size_max: usize) -> Result<Vec<u8>, DiskError> {
        let path = self.path.join(name);
        let file = rustix::fs::openat(&self.fd, name, OFlags::CLOEXEC, Mode::empty())
            .map_err(DiskError::io("opening", &path))?;
        // One byte more, to see that there is none.
        let mut contents = vec![0; size_max + 1];
        let mut done = 0;
        loop {
            let count = rustix::io::pread(&file, &mut contents[done..], done as u64)
                .map_err(DiskError::io("reading", &path))?;
            done += count;
            if done > size_max {
                let expected = size_max as u64;
                return Err(DiskError::Size {
                    path,
                    found: done as u64,
                    expected,
                });
            }
            if count == 0 {
                contents.truncate(done);
                return Ok(contents);
            }
        }
    }

    /// Measures which way of writing is quickest to be durable here. Takes a few hundredths of a
    /// second, and 4 KiB times 64 for that long.
    ///
    /// # Errors
    /// `Io`, `Ring`.
    pub fn calibrate(&self) -> Result<Calibration, DiskError> {
        let name = "calibration";
        // A leftover of a start that was interrupted.
        let _ = rustix::fs::unlinkat(&self.fd, name, AtFlags::empty());
        let path = self.path.join(name);
        let make = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL;
        let file = self.open_file(name, make)?;
        // Without a name already: it is gone with this call, however that ends.
        rustix::fs::unlinkat(&self.fd, name, AtFlags::empty())
            .map_err(DiskError::io("removing", &path))?;
        fill(&file, &path, calibration::SCRATCH_SIZE)?;
        calibration::measure(&file, &path)
    }

    fn check_size(&self, name: &str, expected: u64) -> Result<(), DiskError> {
        let path = self.path.join(name);
        let at = rustix::fs::statat(&self.fd, name, AtFlags::empty())
            .map_err(DiskError::io("looking at", &path))?;
        let found = u64::try_from(at.st_size).unwrap_or(0);
        if found == expected {
            Ok(())
        } else {
            Err(DiskError::Size {
                path,
                found,
                expected,
            })
        }
    }

    fn create_filled(&self, name: &str, size: u64) -> Result<(), DiskError> {
        let temporary = format!("{name}.new");
        let path = self.path.join(&temporary);
        let make = OFlags::RDWR | OFlags::CREATE | OFlags::TRUNC;
        let file = self.open_file(&temporary, make)?;
        let filled = fill(&file, &path, size);
        if filled.is_err() {
            // Do not sit on the space: it may be what is short. It never had its name.
            let _ = rustix::fs::unlinkat(&self.fd, &temporary, AtFlags::empty());
        }
        filled?;
        let only_new = RenameFlags::NOREPLACE;
        rustix::fs::renameat_with(&self.fd, &temporary, &self.fd, name, only_new)
            .map_err(DiskError::io("naming", &path))?;
        sync_directory(&self.fd, &self.path)
    }

    fn open_file(&self, name: &str, flags: OFlags) -> Result<File, DiskError> {
        let direct = match self.access {
            Access::Direct => OFlags::DIRECT,
            Access::BufferedForDevelopmentOnly => OFlags::empty(),
        };
        let flags = flags | direct | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let path = self.path.join(name);
        let fd = rustix::fs::openat(&self.fd, name, flags, PRIVATE)
            .map_err(DiskError::io("opening", &path))?;
        outlast_writes(&fd, &path)?;
        Ok(File::from(fd))
    }
}

/// Waits until no write of an earlier process is on its way to this file any more, and keeps it so.
///
/// The kernel does not wait for a killed process's direct writes: they may land after it is gone,
/// and its directory's lock with it. What recovery has read, or what the next life has written
/// since, would change under it. But such a write holds the open file it was asked for on, and with
/// it that file's lock: so a lock on each file outlasts the last write to it.
fn outlast_writes(fd: &OwnedFd, path: &Path) -> Result<(), DiskError> {
    let begun = std::time::Instant::now();
    loop {
        match rustix::fs::flock(fd, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(()),
            Err(Errno::WOULDBLOCK) if begun.elapsed() < WRITE_PATIENCE => {
                std::thread::sleep(std::time::Duration::from_millis(2));
            }
            Err(Errno::WOULDBLOCK) => {
                let (path, holder) = (path.to_owned(), None);
                return Err(DiskError::Locked { path, holder });
            }
            Err(errno) => return Err(DiskError::io("locking", path)(errno)),
        }
    }
}

/// Reads `size` bytes from `position` on, waiting for them: for recovery, before the ring turns.
/// Fewer where the file ends.
///
/// # Errors
/// `IoError`.
///
/// # Panics
/// If the file is direct and the position not a multiple of `SECTOR_SIZE`, or `size` is 0.
pub fn read(file: &File, position: u64, size: usize) -> Result<Bytes, IoError> {
    assert!(!file.is_direct() || position.is_multiple_of(SECTOR_SIZE as u64));
    let mut buffer = AlignedBuffer::zeroed(size);
    let mut done = 0;
    while done < size {
        let space = &mut buffer.as_mut_slice()[done..];
        match rustix::io::pread(file, space, position + done as u64) {
            Ok(0) => break,
            Ok(count) => done += count,
            Err(Errno::INTR) => {}
            Err(errno) => return Err(IoError::of(Family::File, errno.raw_os_error())),
        }
        // A direct read that ends within a sector ended with the file.
        if file.is_direct() && !done.is_multiple_of(SECTOR_SIZE) {
            break;
        }
    }
    Ok(buffer.into_bytes(done.min(size)))
}

/// The size of a file in bytes.
///
/// # Errors
/// `IoError`.
pub fn size(file: &File) -> Result<u64, IoError> {
    let at =
        rustix::fs::fstat(file).map_err(|errno| IoError::of(Family::File, errno.raw_os_error()))?;
    Ok(u64::try_from(at.st_size).unwrap_or(0))
}

/// Name of a journal's file in its directory.
#[must_use]
pub fn journal_name(slot: u32) -> String {
    format!("journal-{slot}")
}

/// Name of a log's directory.
#[must_use]
pub fn log_name(group: GroupId) -> String {
    format!("log-{group}")
}

/// Name of a segment's file in its log's directory.
#[must_use]
pub fn segment_name(number: u32) -> String {
    format!("segment-{number:08}")
}

/// How the name of what is written beside a segment ends.
const MENDED: &str = ".new";

/// What is written beside a segment; no start takes it for one.
fn mended_name(group: GroupId, number: u32) -> String {
    format!("{}/{}{MENDED}", log_name(group), segment_name(number))
}

fn open_directory(path: &Path) -> Result<OwnedFd, DiskError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::openat(CWD, path, flags, Mode::empty()).map_err(DiskError::io("opening", path))
}

fn sync_directory(fd: &OwnedFd, path: &Path) -> Result<(), DiskError> {
    rustix::fs::fsync(fd).map_err(DiskError::io("syncing", path))
}

fn sync_file(file: &File, path: &Path) -> Result<(), DiskError> {
    rustix::fs::fsync(file).map_err(DiskError::io("syncing", path))
}

/// File systems that live in memory. They may well take O_DIRECT, and lose all the same.
fn refuse_volatile(fd: &OwnedFd, path: &Path) -> Result<(), DiskError> {
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

/// Takes the lock file's lock and leaves this process's number in it.
fn lock(fd: &OwnedFd, path: &Path) -> Result<OwnedFd, DiskError> {
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
    rustix::io::pwrite(&lock, number.as_bytes(), 0).map_err(failed("writing"))?;
    Ok(lock)
}

fn read_holder(lock: &OwnedFd) -> Option<u32> {
    let mut text = [0; 16];
    let size = rustix::io::pread(lock, &mut text[..], 0).ok()?;
    std::str::from_utf8(&text[..size]).ok()?.trim().parse().ok()
}

/// Whether direct I/O works here in units of a sector.
fn check_direct(fd: &OwnedFd, path: &Path) -> Result<(), DiskError> {
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

/// Gives a file all its blocks, writes each once, and makes that durable.
fn fill(file: &File, path: &Path, size: u64) -> Result<(), DiskError> {
    let mode = rustix::fs::FallocateFlags::empty();
    match rustix::fs::fallocate(file, mode, 0, size) {
        // Writing gets the blocks too, only not in one piece.
        Ok(()) | Err(Errno::OPNOTSUPP) => {}
        Err(errno) => return Err(DiskError::io("preallocating", path)(errno)),
    }
    let zeros = AlignedBuffer::zeroed(FILL_SIZE);
    let mut done = 0;
    while done < size {
        let step = usize::try_from(size - done)
            .unwrap_or(FILL_SIZE)
            .min(FILL_SIZE);
        let count = rustix::io::pwrite(file, &zeros.as_slice()[..step], done)
            .map_err(DiskError::io("filling", path))?;
        assert!(
            count.is_multiple_of(SECTOR_SIZE) || !file.is_direct(),
            "a torn direct write"
        );
        done += count as u64;
    }
    sync_file(file, path)
}

/// The numbers between `prefix` and `suffix` among a directory's names, in order; other names are
/// passed over.
fn numbers(fd: &OwnedFd, path: &Path, prefix: &str, suffix: &str) -> Result<Vec<u32>, DiskError> {
    let entries = Dir::read_from(fd).map_err(DiskError::io("listing", path))?;
    let mut numbers = Vec::new();
    for entry in entries {
        let entry = entry.map_err(DiskError::io("listing", path))?;
        let name = OsStr::from_bytes(entry.file_name().to_bytes()).to_str();
        let number = |name: &str| {
            let number = name.strip_prefix(prefix)?.strip_suffix(suffix)?;
            number.parse::<u32>().ok()
        };
        let number = name.and_then(number);
        numbers.extend(number);
    }
    numbers.sort_unstable();
    Ok(numbers)
}

#[cfg(test)]
mod tests;
