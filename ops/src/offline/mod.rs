//! A node's directory, looked at without changing it: who it is, who works in it, what files there
//! are, and reads of them.
//!
//! Every file is opened for reading only, but by `mend`. Core's parsers say what is in them; here is
//! only where they are. Used by `inspect`, `verify` and `dump`.

pub(crate) mod bad;
pub(crate) mod donor;
mod holder;
pub(crate) mod journal;
pub(crate) mod log;
pub(crate) mod mend;

use std::fs::{self, File, TryLockError};
use std::io::ErrorKind;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use ringwood_core::id::{GroupId, Lsn};
use ringwood_core::limits::{JOURNAL_FILE_COUNT, JOURNAL_FILE_SIZE};
use ringwood_core::log::persist::{PERSIST_FILE_SIZE, PersistRecord};
use ringwood_core::log::pins::{PINS_FILE_SIZE, Pins};
use ringwood_core::log::recovery::{self, DiskFault, Recovered, RecoveryError};
use ringwood_core::log::ring::Ring;
use ringwood_core::shard::directory_tag;
use ringwood_net::config::{ConfigError, IDENTITY_COPY_FILE, IDENTITY_FILE, Identity};
use ringwood_net::disk::{PINS_FILE, journal_name, log_name, segment_name};

use crate::exit::{Exit, Failure};
use bad::Bad;

/// How many bytes there are to a sector that the disk does not give: nobody knows its error.
const EIO: i32 = 5;

/// A node's directory.
#[derive(Debug)]
pub(crate) struct Directory {
    pub(crate) path: PathBuf,
    /// Who the node is, or why that cannot be read.
    pub(crate) identity: Result<Identity, ConfigError>,
    /// Keeps others out while it lives.
    _lock: Option<File>,
}

impl Directory {
    /// Looks at a directory, whoever works in it.
    pub(crate) fn look(path: &Path) -> Result<Self, Failure> {
        let found = fs::metadata(path).map_err(|error| unreadable(path, &error))?;
        if !found.is_dir() {
            let cause = format!("{} is no directory", path.display());
            return Err(Failure::new(Exit::Refused, cause).fix("the directory of a node"));
        }
        let directory = Self {
            path: path.to_owned(),
            identity: Identity::read(path),
            _lock: None,
        };
        let is_empty =
            directory.journal_files().iter().all(Option::is_none) && directory.groups()?.is_empty();
        if is_empty && matches!(directory.identity, Err(ConfigError::NotInitialised { .. })) {
            let cause = format!("{} holds no node", path.display());
            return Err(Failure::new(Exit::Refused, cause).fix("the directory of a node"));
        }
        Ok(directory)
    }

    /// Takes the directory, as a node does at its start, but writes nothing: not even its number.
    /// Refused while a node runs there; and none starts there as long as this lives.
    pub(crate) fn take(path: &Path) -> Result<Self, Failure> {
        let mut directory = Self::look(path)?;
        let lock = path.join("lock");
        directory._lock = match File::open(&lock) {
            Ok(file) => match file.try_lock() {
                Ok(()) => Some(file),
                Err(TryLockError::WouldBlock) => {
                    let cause = match holder::of(&lock) {
                        Some(number) => {
                            format!(
                                "{} is in use by another process (number {number})",
                                path.display()
                            )
                        }
                        None => format!("{} is in use by another process", path.display()),
                    };
                    return Err(Failure::new(Exit::Refused, cause)
                        .fix("stop the node first; 'inspect' looks at one that runs"));
                }
                Err(TryLockError::Error(error)) => return Err(unreadable(&lock, &error)),
            },
            // A node that has never run.
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => return Err(unreadable(&lock, &error)),
        };
        Ok(directory)
    }

    /// The process that works in it now, by its number.
    pub(crate) fn holder(&self) -> Option<u32> {
        holder::of(&self.path.join("lock"))
    }

    /// The journal's files by slot, as far as they are there.
    pub(crate) fn journal_files(&self) -> Vec<Option<OpenFile>> {
        (0..JOURNAL_FILE_COUNT)
            .map(|slot| self.open(&journal_name(slot)))
            .collect()
    }

    /// The groups that have a directory, in order.
    pub(crate) fn groups(&self) -> Result<Vec<GroupId>, Failure> {
        Ok(numbers(&self.path, "log-")?
            .into_iter()
            .map(GroupId)
            .collect())
    }

    /// The segments of a group that are there, in order.
    pub(crate) fn segments(&self, group: GroupId) -> Result<Vec<u32>, Failure> {
        let path = self.path.join(log_name(group));
        if path.is_dir() {
            numbers(&path, "segment-")
        } else {
            Ok(Vec::new())
        }
    }

    /// A segment's file, if it is there.
    pub(crate) fn segment(&self, group: GroupId, number: u32) -> Option<OpenFile> {
        self.open(&segment_file(group, number))
    }

    fn open(&self, name: &str) -> Option<OpenFile> {
        OpenFile::open(&self.path.join(name)).ok()
    }

    /// The mark of the node's files, if it is known who it is.
    pub(crate) fn tag(&self) -> Option<u32> {
        let identity = self.identity.as_ref().ok()?;
        Some(directory_tag(
            identity.cluster,
            identity.node,
            identity.incarnation,
        ))
    }

    /// What recovery makes of the journal at the node's next start.
    pub(crate) fn recover(&self, tag: u32) -> Result<Recovered, RecoveryError> {
        let files = self.journal_files();
        let identity = recovery::Identity {
            ring: Ring::STANDARD,
            node_tag: tag,
        };
        let record = self.open("journal.persist");
        let record = record.and_then(|file| file.read(0, PERSIST_FILE_SIZE).ok());
        let record = PersistRecord::newest(&record.unwrap_or_default(), tag);
        let recorded = record.map_or(Lsn(0), |(record, _)| record.durable_through);
        recovery::recover_recorded(
            &identity,
            recorded,
            &mut |slot, position, size| match &files[slot as usize] {
                Some(file) => file.read(position, size),
                None => Err(DiskFault {
                    errno: libc_enoent(),
                }),
            },
        )
    }

    /// What is damaged of the file that knows which directories the voters had, and a word on what a
    /// crash may leave of it.
    pub(crate) fn check_pins(&self, tag: u32) -> (Option<Bad>, Option<String>) {
        let Some(file) = self.open(PINS_FILE) else {
            return (None, None); // A node that has never run.
        };
        let bytes = match file.read(0, PINS_FILE_SIZE) {
            Ok(bytes) => bytes,
            Err(fault) => {
                let size = PINS_FILE_SIZE as u64;
                let bad = Bad::at(PINS_FILE, 0, size, bad::fault_words(fault));
                return (Some(bad), None);
            }
        };
        match Pins::damaged_sectors(&bytes, tag)[..] {
            [] => (None, None),
            [sector] => (
                None,
                Some(format!(
                    "{PINS_FILE}: sector {sector} of two is damaged, as a crash may leave it; the \
                     other has what is needed"
                )),
            ),
            _ => {
                let what = "both copies of which directories the voters had are damaged";
                let bad = Bad::at(PINS_FILE, 0, PINS_FILE_SIZE as u64, what);
                (Some(bad), None)
            }
        }
    }

    /// The logs in which this directory takes no part any more, for it holds something else than a
    /// majority does. What cannot be read tells of none.
    pub(crate) fn diverged(&self) -> Vec<GroupId> {
        let (Some(tag), Ok(identity)) = (self.tag(), &self.identity) else {
            return Vec::new();
        };
        let bytes = self.open(PINS_FILE);
        let bytes = bytes.and_then(|file| file.read(0, PINS_FILE_SIZE).ok());
        let pins = Pins::newest(&bytes.unwrap_or_default(), tag);
        let places = pins.map(|(pins, _)| pins.stopped).unwrap_or_default();
        let logs = places.into_iter().filter_map(|at| identity.logs.get(at));
        logs.map(|log| log.group).collect()
    }

    /// The identity's two files, if one of them is not sound and the other is.
    pub(crate) fn bad_identity(&self) -> Vec<Bad> {
        let names = [IDENTITY_FILE, IDENTITY_COPY_FILE];
        let read = |name| {
            Identity::read_file(&self.path, name)
                .err()
                .map(|error| (name, error))
        };
        let bad = names.into_iter().filter_map(read);
        bad.map(|(name, error)| Bad::at(name, 0, 0, error))
            .collect()
    }

    /// What people call a group here.
    pub(crate) fn log_name(&self, group: GroupId) -> String {
        let logs = self
            .identity
            .as_ref()
            .map_or(&[][..], |identity| &identity.logs);
        match logs.iter().find(|log| log.group == group) {
            Some(log) => log.name.clone(),
            None => format!("group {group}"),
        }
    }

    /// Names in the directory that belong to no node.
    pub(crate) fn strangers(&self) -> Result<Vec<String>, Failure> {
        let known = |name: &str| {
            [
                IDENTITY_FILE,
                PINS_FILE,
                IDENTITY_COPY_FILE,
                "lock",
                "journal.made",
                "journal.persist",
            ]
            .contains(&name)
                || number(name, "journal-").is_some_and(|slot| slot < JOURNAL_FILE_COUNT)
                || number(name, "log-").is_some()
        };
        let mut names = names(&self.path)?;
        names.retain(|name| !known(name));
        names.sort_unstable();
        Ok(names)
    }
}

/// A file for reading.
#[derive(Debug)]
pub(crate) struct OpenFile {
    file: File,
    pub(crate) size: u64,
}

impl OpenFile {
    pub(crate) fn open(path: &Path) -> std::io::Result<Self> {
        let file = File::open(path)?;
        let size = file.metadata()?.len();
        Ok(Self { file, size })
    }

    /// Up to `size` bytes: fewer where the file ends.
    pub(crate) fn read(&self, position: u64, size: usize) -> Result<Bytes, DiskFault> {
        let mut bytes = vec![0; size];
        let mut done = 0;
        while done < size {
            match self
                .file
                .read_at(&mut bytes[done..], position + done as u64)
            {
                Ok(0) => break,
                Ok(count) => done += count,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => {
                    let errno = error.raw_os_error().unwrap_or(EIO);
                    return Err(DiskFault { errno });
                }
            }
        }
        bytes.truncate(done);
        Ok(bytes.into())
    }

    /// As core's walkers want it.
    pub(crate) fn reader(self) -> Box<dyn FnMut(u64, usize) -> Result<Bytes, DiskFault>> {
        Box::new(move |position, size| self.read(position, size))
    }
}

/// A segment's file as it is called below the node's directory.
pub(crate) fn segment_file(group: GroupId, number: u32) -> String {
    format!("{}/{}", log_name(group), segment_name(number))
}

/// File and byte of a place in the journal.
pub(crate) fn journal_place(lsn: Lsn) -> (String, u64) {
    let (slot, position) = Ring::STANDARD.locate(lsn);
    (journal_name(slot), position)
}

/// Whether a journal's file has the size that it was made with.
pub(crate) fn has_journal_size(file: &OpenFile) -> bool {
    file.size == JOURNAL_FILE_SIZE
}

pub(crate) fn unreadable(path: &Path, error: &std::io::Error) -> Failure {
    let failure = Failure::new(Exit::Refused, format!("{}: {error}", path.display()));
    match error.kind() {
        ErrorKind::PermissionDenied => failure.fix("the account that the node runs as"),
        _ => failure,
    }
}

fn libc_enoent() -> i32 {
    rustix::io::Errno::NOENT.raw_os_error()
}

fn names(path: &Path) -> Result<Vec<String>, Failure> {
    let entries = fs::read_dir(path).map_err(|error| unreadable(path, &error))?;
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|error| unreadable(path, &error))?;
        names.push(entry.file_name().to_string_lossy().into_owned());
    }
    Ok(names)
}

fn number(name: &str, prefix: &str) -> Option<u32> {
    name.strip_prefix(prefix)?.parse().ok()
}

fn numbers(path: &Path, prefix: &str) -> Result<Vec<u32>, Failure> {
    let mut numbers: Vec<u32> = names(path)?
        .iter()
        .filter_map(|name| number(name, prefix))
        .collect();
    numbers.sort_unstable();
    Ok(numbers)
}

/// What a file is by its name or, where that says nothing, by how it begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FileKind {
    Journal,
    Segment,
}

impl FileKind {
    /// What a file is, or that it is none of a node's with blocks in it.
    pub(crate) fn of(path: &Path, file: &OpenFile) -> Result<Self, Failure> {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let first = file.read(0, 4).unwrap_or_default();
        if number(&name, "journal-").is_some() || first.starts_with(b"RWFL") {
            Ok(Self::Journal)
        } else if number(&name, "segment-").is_some() || first.starts_with(b"RWSG") {
            Ok(Self::Segment)
        } else {
            let cause = format!("{} is neither a journal nor a segment", path.display());
            Err(Failure::new(Exit::Refused, cause)
                .fix("a file called journal-N or segment-NNNNNNNN"))
        }
    }

    /// As people call it.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Journal => "journal",
            Self::Segment => "segment",
        }
    }
}
