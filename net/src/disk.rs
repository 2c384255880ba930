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
mod file_system;
mod lock;
mod segments;

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use ringwood_core::limits::SECTOR_SIZE;
use ringwood_core::log::persist::PERSIST_FILE_SIZE;
use ringwood_core::log::pins::PINS_FILE_SIZE;
use rustix::fs::{AtFlags, CWD, Mode, OFlags, RenameFlags};
use rustix::io::Errno;

use crate::ring::{AlignedBuffer, Family, File, IoError};
use file_system::{check_direct, refuse_volatile};
use lock::{lock, outlast_writes};

pub use calibration::Calibration;
pub use error::DiskError;
pub use segments::{log_name, segment_name};

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

/// Which directories were known as whose; see core's `log::pins`.
pub const PINS_FILE: &str = "pins";

/// How far the journal was durable; see core's `log::persist`.
pub const PERSIST_FILE: &str = "journal.persist";

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
            Ok(()) => sync_directory(&self.fd, &self.path)
                .map_err(|error| self.take_back(name, AtFlags::REMOVEDIR, error))?,
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
        match self.check_size(PERSIST_FILE, size) {
            Err(DiskError::Missing { .. }) => self.create_filled(PERSIST_FILE, size)?,
            Err(DiskError::Size { .. }) => {
                let path = self.path.join(PERSIST_FILE);
                rustix::fs::unlinkat(&self.fd, PERSIST_FILE, AtFlags::empty())
                    .map_err(DiskError::io("removing", &path))?;
                self.create_filled(PERSIST_FILE, size)?;
            }
            other => other?,
        }
        self.open_file(PERSIST_FILE, OFlags::RDWR)
    }

    /// Removes what was made just now and could not be made durable, for lack of space perhaps: the
    /// next try would find it there, and take its name for one that lasts.
    fn take_back(&self, name: &str, flags: AtFlags, error: DiskError) -> DiskError {
        match rustix::fs::unlinkat(&self.fd, name, flags) {
            Ok(()) => error,
            // It stays, and nobody may write to it: that is no lack of space any more.
            Err(_) => DiskError::Io {
                doing: "removing",
                path: self.path.join(name),
                error: IoError::Device,
            },
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
        write_all(&file, contents, 0, &path)?;
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
    /// second, and 4 KiB times 64 for that long; where there is no room for that, nothing is measured.
    ///
    /// # Errors
    /// `Io`, `Ring`.
    pub fn calibrate(&self) -> Result<Calibration, DiskError> {
        match self.measure() {
            // A node must start on a disk that has become full: what it needs for that it has.
            Err(error) if error.is_full() => Ok(Calibration::unmeasured(&self.fd)),
            measured => measured,
        }
    }

    fn measure(&self) -> Result<Calibration, DiskError> {
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

fn write_all(file: &OwnedFd, bytes: &[u8], position: u64, path: &Path) -> Result<(), DiskError> {
    let mut done = 0;
    while done < bytes.len() {
        done += rustix::io::pwrite(file, &bytes[done..], position + done as u64)
            .map_err(DiskError::io("writing", path))?;
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

#[cfg(test)]
mod tests;
