//! A directory's segment files: the one directory of each log, the names in it, and what is written
//! beside a segment until it takes the segment's place.
//!
//! Knows no byte of a segment, nor which of them a checkpoint counts on.

use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use ringwood_core::id::GroupId;
use rustix::fs::{AtFlags, Dir, OFlags};
use rustix::io::Errno;

use super::{Directory, DiskError, PRIVATE, open_directory, sync_directory, sync_file, write_all};
use crate::ring::{File, IoError};

/// How the name of what is written beside a segment ends.
const MENDED: &str = ".new";

impl Directory {
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
        sync_file(&file, &log.path)
            .and_then(|()| sync_directory(&log.fd, &log.path))
            .map_err(|error| log.take_back(&name, AtFlags::empty(), error))?;
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

    /// Whether this open file is segment `number` of `group`, and not one that another has replaced.
    pub(crate) fn is_segment(&self, group: GroupId, number: u32, file: &File) -> bool {
        let name = format!("{}/{}", log_name(group), segment_name(number));
        let named = rustix::fs::statat(&self.fd, &name, AtFlags::SYMLINK_NOFOLLOW);
        match (named, rustix::fs::fstat(file)) {
            (Ok(named), Ok(open)) => (named.st_dev, named.st_ino) == (open.st_dev, open.st_ino),
            _ => false,
        }
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
        write_all(&file, bytes, position, &path)
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

/// What is written beside a segment; no start takes it for one.
fn mended_name(group: GroupId, number: u32) -> String {
    format!("{}/{}{MENDED}", log_name(group), segment_name(number))
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
