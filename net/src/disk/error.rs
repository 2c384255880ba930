//! What a directory or its disk may refuse, and what to do about each.

use std::path::{Path, PathBuf};

use ringwood_core::limits::SECTOR_SIZE;
use rustix::io::Errno;

use crate::ring::{Family, IoError, RingError};

/// Why the disk does not do what the node needs. Nothing was changed unless the variant says so.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// There is nothing at that path, and opening does not make it.
    #[error("{} is not there; if the disk was replaced, this node must be replaced too", path.display())]
    Missing {
        /// What was looked for.
        path: PathBuf,
    },
    /// Another process works in this directory.
    #[error(
        "{} is in use by another process{}; two must never write to it",
        path.display(),
        holder.as_ref().map(|holder| format!(" (number {holder})")).unwrap_or_default()
    )]
    Locked {
        /// The directory.
        path: PathBuf,
        /// The process that holds it, by what the lock file says.
        holder: Option<u32>,
    },
    /// The file system keeps nothing across a restart.
    #[error(
        "{} is on {kind}, which is lost at power-off; use a disk, or buffered access for \
         development",
        path.display()
    )]
    Volatile {
        /// The directory.
        path: PathBuf,
        /// The kind of file system.
        kind: &'static str,
    },
    /// The file system offers no direct I/O.
    #[error(
        "{} offers no direct I/O (O_DIRECT); use ext4 or xfs on a disk, or buffered access for \
         development",
        path.display()
    )]
    NotDirect {
        /// The directory.
        path: PathBuf,
    },
    /// Direct I/O wants coarser pieces than the journal's.
    #[error(
        "{} wants direct I/O in units of {size} bytes, the journal writes units of {SECTOR_SIZE}",
        path.display()
    )]
    Coarse {
        /// The directory.
        path: PathBuf,
        /// Its unit in bytes.
        size: u32,
    },
    /// A journal file has not the size the node is configured for.
    #[error("{} has {found} bytes, expected {expected}", path.display())]
    Size {
        /// The file.
        path: PathBuf,
        /// Its size.
        found: u64,
        /// The size asked for.
        expected: u64,
    },
    /// A call failed. What was being made may be there in part, under a temporary name.
    #[error("{doing} {}: {error}", path.display())]
    Io {
        /// What was being done.
        doing: &'static str,
        /// To what.
        path: PathBuf,
        /// Why not.
        error: IoError,
    },
    /// The calibration's ring could not be set up or used.
    #[error(transparent)]
    Ring(#[from] RingError),
}

impl DiskError {
    /// Whether space freed would heal it.
    #[must_use]
    pub fn is_full(&self) -> bool {
        matches!(
            self,
            Self::Io {
                error: IoError::DiskFull,
                ..
            }
        )
    }

    pub(crate) fn io(doing: &'static str, path: &Path) -> impl Fn(Errno) -> Self {
        move |errno| match errno {
            Errno::NOENT => Self::Missing {
                path: path.to_owned(),
            },
            errno => {
                let error = IoError::of(Family::File, errno.raw_os_error());
                Self::Io {
                    doing,
                    path: path.to_owned(),
                    error,
                }
            }
        }
    }
}
