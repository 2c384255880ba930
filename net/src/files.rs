//! The files of one shard: its journal's ring and its logs' segments, opened once and kept.
//!
//! Knows no content. `disk` opens and calibrates; here is only who is open.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use ringwood_core::id::GroupId;
use ringwood_core::limits::{
    GROUP_COUNT_MAX, JOURNAL_FILE_COUNT, JOURNAL_FILE_SIZE, SEGMENT_OPEN_MAX,
};
use ringwood_core::log::recovery::DiskFault;
use ringwood_core::shard::{SegmentWriteId, Source};

use crate::beside::Beside;
use crate::disk::{self, Calibration, Directory, DiskError};
use crate::failure::{NodeFailure, StartError};
use crate::ring::{Family, File, IoError, Ring, Waker, WriteMode};

/// Says that the journal was made.
const JOURNAL_MADE: &str = "journal.made";
const JOURNAL_MADE_TEXT: &[u8] =
    b"The journal of this directory was made. Should its files be gone, \
    they are lost: this node must then be replaced, not restarted.\n";
const JOURNAL_MADE_SIZE_MAX: usize = 4096;

/// One shard's open files.
#[derive(Debug)]
pub(crate) struct Files {
    directory: Arc<Directory>,
    maker: Beside<Wanted, Made>,
    mender: Beside<Mending, Mended>,
    remover: Beside<Unwanted, Result<(), DiskError>>,
    /// Deletions asked for and not begun: below which number, by group.
    unwanted: BTreeMap<GroupId, u32>,
    is_removing: bool,
    /// Segments below which number are gone, or as good as: by group.
    removed_below: BTreeMap<GroupId, u32>,
    journal: Vec<File>,
    pins: File,
    persist: File,
    segments: BTreeMap<(GroupId, u32), Segment>,
    /// Segments that are being made.
    making: BTreeSet<(GroupId, u32)>,
    /// How many of them stay open.
    open_max: usize,
    use_count: u64,
    mode: WriteMode,
}

/// A segment that is to be made.
type Wanted = (GroupId, u32);

/// Segments that are to be deleted: a group's, below a number.
type Unwanted = (GroupId, u32);

/// A segment that was asked for.
#[derive(Debug)]
pub(crate) struct Made {
    pub(crate) group: GroupId,
    pub(crate) number: u32,
    /// The file, open, or why there is none.
    pub(crate) result: Result<File, DiskError>,
}

/// A step of writing a segment anew.
#[derive(Debug)]
pub(crate) struct Mending {
    pub(crate) group: GroupId,
    pub(crate) number: u32,
    pub(crate) step: MendStep,
}

/// What the step does.
#[derive(Debug)]
pub(crate) enum MendStep {
    Write {
        write: SegmentWriteId,
        position: u64,
        buffer: Bytes,
    },
    Replace {
        write: SegmentWriteId,
    },
    /// The new file is not wanted any more.
    Discard,
}

/// A step's end.
#[derive(Debug)]
pub(crate) struct Mended {
    /// Whom it is told to; nobody waits for the end of a discarded file.
    pub(crate) write: Option<SegmentWriteId>,
    /// The segment whose name means another file now.
    replaced: Option<(GroupId, u32)>,
    pub(crate) result: Result<(), DiskError>,
}

/// A segment's open file.
#[derive(Debug)]
struct Segment {
    file: File,
    /// Which use was its last.
    used: u64,
}

impl Files {
    /// Opens a node's files; makes the journal where there is none yet. `waker` ends the wait of
    /// the loop when a segment was made.
    pub(crate) fn open(
        directory: Directory,
        calibration: &Calibration,
        waker: Waker,
    ) -> Result<Self, StartError> {
        // Only once in a directory's life: a journal that is missing later was lost, and a node that
        // made itself a new one would have forgotten its votes and what it acknowledged.
        match directory.read_small(JOURNAL_MADE, JOURNAL_MADE_SIZE_MAX) {
            Ok(_) => {}
            Err(DiskError::Missing { .. }) => {
                directory.create_journal(JOURNAL_FILE_COUNT, JOURNAL_FILE_SIZE)?;
                directory.replace_small(JOURNAL_MADE, JOURNAL_MADE_TEXT)?;
            }
            Err(error) => return Err(error.into()),
        }
        directory.sync_names()?;
        let journal = directory.open_journal(JOURNAL_FILE_COUNT, JOURNAL_FILE_SIZE)?;
        let pins = directory.open_pins()?;
        let persist = directory.open_persist()?;
        directory.discard_unfinished()?;
        let directory = Arc::new(directory);
        let maker = start_maker(Arc::clone(&directory), waker.clone());
        let mender = start_mender(Arc::clone(&directory), waker.clone());
        let remover = start_remover(Arc::clone(&directory), waker);
        Ok(Self {
            directory,
            maker: maker.map_err(StartError::Thread)?,
            mender: mender.map_err(StartError::Thread)?,
            remover: remover.map_err(StartError::Thread)?,
            unwanted: BTreeMap::new(),
            is_removing: false,
            removed_below: BTreeMap::new(),
            journal,
            pins,
            persist,
            segments: BTreeMap::new(),
            making: BTreeSet::new(),
            open_max: SEGMENT_OPEN_MAX,
            use_count: 0,
            mode: calibration.mode,
        })
    }

    /// Makes the journal's writes cheaper on this ring, where the kernel offers it.
    pub(crate) fn register(&self, ring: &mut Ring) {
        for file in &self.journal {
            ring.register_file(file);
        }
    }

    /// The directory they are in.
    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    pub(crate) fn write_mode(&self) -> WriteMode {
        self.mode
    }

    pub(crate) fn journal(&self, slot: u32) -> &File {
        &self.journal[slot as usize]
    }

    pub(crate) fn pins(&self) -> &File {
        &self.pins
    }

    pub(crate) fn persist(&self) -> &File {
        &self.persist
    }

    /// A segment to be written to; none if it has to be made, which `take_made` tells the end of.
    pub(crate) fn segment_to_write(
        &mut self,
        group: GroupId,
        number: u32,
    ) -> Result<Option<File>, DiskError> {
        if let Some(file) = self.opened(group, number) {
            return Ok(Some(file));
        }
        match self.directory.open_segment(group, number) {
            Ok(file) => {
                self.keep(group, number, &file);
                Ok(Some(file))
            }
            Err(DiskError::Missing { .. }) => {
                self.making.insert((group, number));
                self.maker.ask((group, number));
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// A segment that was made since, or why it was not.
    pub(crate) fn take_made(&mut self) -> Option<Made> {
        let made = self.maker.take()?;
        self.making.remove(&(made.group, made.number));
        if let Ok(file) = &made.result {
            self.keep(made.group, made.number, file);
        }
        Some(made)
    }

    /// Goes on with writing a segment anew; `take_mended` tells the end.
    pub(crate) fn mend(&self, mending: Mending) {
        self.mender.ask(mending);
    }

    /// A step of it that has ended since.
    pub(crate) fn take_mended(&mut self) -> Option<Mended> {
        let mended = self.mender.take()?;
        if let Some(key) = mended.replaced {
            let (group, number) = key;
            let is_old = |segment: &Segment| {
                let file = &segment.file;
                !self.directory.is_segment(group, number, file)
            };
            // Whoever reads it next opens the new file. It may have been opened since it has its name:
            // whoever opened it again would wait for this very process.
            if self.segments.get(&key).is_some_and(is_old) {
                self.segments.remove(&key);
            }
        }
        Some(mended)
    }

    /// Deletes a group's segments below a number, beside the loop; `on_removed` goes on with it.
    pub(crate) fn remove_segments(&mut self, group: GroupId, below: u32) {
        self.segments
            .retain(|(of, number), _| *of != group || *number >= below);
        let unwanted = self.unwanted.entry(group).or_default();
        *unwanted = below.max(*unwanted);
        self.removed_below.insert(group, *unwanted);
        self.remove_next();
    }

    /// Goes on with deletions, if one is done.
    pub(crate) fn on_removed(&mut self) -> Result<(), DiskError> {
        if let Some(removed) = self.remover.take() {
            self.is_removing = false;
            self.remove_next();
            removed?;
        }
        Ok(())
    }

    fn remove_next(&mut self) {
        if !self.is_removing
            && let Some(unwanted) = self.unwanted.pop_first()
        {
            self.is_removing = true;
            self.remover.ask(unwanted);
        }
    }

    /// What is to be read.
    pub(crate) fn source(&mut self, source: Source) -> Result<File, DiskError> {
        match source {
            Source::Journal { slot } => Ok(self.journal(slot).clone()),
            Source::Pins => Ok(self.pins.clone()),
            Source::Persist => Ok(self.persist.clone()),
            Source::Segment { group, number } => {
                if let Some(file) = self.opened(group, number) {
                    return Ok(file);
                }
                // Its name may still be there, and an operation of its last life hold its lock.
                let removed_below = self.removed_below.get(&group);
                let is_removed = removed_below.is_some_and(|below| number < *below);
                // Or it is there already, empty, and whoever makes it holds that.
                if is_removed || self.making.contains(&(group, number)) {
                    let path = self.directory.segment_path(group, number);
                    return Err(DiskError::Missing { path });
                }
                let file = self.directory.open_segment(group, number)?;
                self.keep(group, number, &file);
                Ok(file)
            }
        }
    }

    fn opened(&mut self, group: GroupId, number: u32) -> Option<File> {
        self.use_count += 1;
        let segment = self.segments.get_mut(&(group, number))?;
        segment.used = self.use_count;
        Some(segment.file.clone())
    }

    /// Keeps a file open for the next use. The bound holds by closing the one used longest ago that
    /// no operation uses now: an operation keeps its file's lock, and whoever opened that file
    /// again meanwhile would wait for this very process.
    fn keep(&mut self, group: GroupId, number: u32, file: &File) {
        if self.segments.len() >= self.open_max {
            let idle = self
                .segments
                .iter()
                .filter(|(_, segment)| !segment.file.is_shared());
            let oldest = idle.min_by_key(|(_, segment)| segment.used);
            // All in use: there is one more for a while. Operations have a bound of their own.
            if let Some(key) = oldest.map(|(key, _)| *key) {
                self.segments.remove(&key);
            }
        }
        let segment = Segment {
            file: file.clone(),
            used: self.use_count,
        };
        self.segments.insert((group, number), segment);
    }

    /// Reads and waits: for recovery, before the ring turns.
    pub(crate) fn read(
        &mut self,
        source: Source,
        position: u64,
        size: usize,
    ) -> Result<Bytes, DiskFault> {
        let missing = DiskFault {
            errno: libc::ENOENT,
        };
        let file = self.source(source).map_err(|_| missing)?;
        disk::read(&file, position, size).map_err(|error| DiskFault {
            errno: errno_of(error),
        })
    }

    /// Makes all that was ever written to the journal durable, and waits for it.
    pub(crate) fn sync_journal(&self) -> Result<(), NodeFailure> {
        for (slot, file) in (0..).zip(&self.journal) {
            rustix::fs::fdatasync(file).map_err(|errno| NodeFailure::Disk {
                doing: "a sync of",
                path: self.path().join(disk::journal_name(slot)),
                error: IoError::of(Family::File, errno.raw_os_error()),
            })?;
        }
        Ok(())
    }
}

/// The thread that makes segments: a new file and its name are synced before it is used, which takes
/// 0.6 ms mostly and 20 ms now and then, and a loop that waited for it would answer nobody meanwhile.
fn start_maker(directory: Arc<Directory>, waker: Waker) -> std::io::Result<Beside<Wanted, Made>> {
    // A log writes to one segment at a time.
    Beside::start("segments", GROUP_COUNT_MAX, waker, move |wanted| {
        let (group, number) = wanted;
        Made {
            group,
            number,
            result: directory.create_segment(group, number),
        }
    })
}

/// The thread that writes segments anew: rare, large, and in no hurry.
fn start_mender(
    directory: Arc<Directory>,
    waker: Waker,
) -> std::io::Result<Beside<Mending, Mended>> {
    // A shard mends one segment at a time, a step at a time; it does not wait for what it discards.
    Beside::start("mender", 2, waker, move |mending: Mending| {
        let Mending {
            group,
            number,
            step,
        } = mending;
        match step {
            MendStep::Write {
                write,
                position,
                buffer,
            } => Mended {
                write: Some(write),
                replaced: None,
                result: directory.mend_segment(group, number, position, &buffer),
            },
            MendStep::Replace { write } => {
                let result = directory.replace_segment(group, number);
                Mended {
                    write: Some(write),
                    replaced: result.is_ok().then_some((group, number)),
                    result,
                }
            }
            MendStep::Discard => Mended {
                write: None,
                replaced: None,
                result: directory.discard_mended(group, number),
            },
        }
    })
}

/// The thread that deletes segments: a large file's blocks are given back while its name goes, which
/// may take some milliseconds each.
fn start_remover(
    directory: Arc<Directory>,
    waker: Waker,
) -> std::io::Result<Beside<Unwanted, Result<(), DiskError>>> {
    Beside::start("removal", 1, waker, move |(group, below)| {
        directory.remove_segments(group, below)
    })
}

/// The system's number for an error, for recovery's report.
fn errno_of(error: IoError) -> i32 {
    match error {
        IoError::Other(errno) => errno,
        _ => libc::EIO,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::Access;
    use crate::ring::RingOptions;

    /// The file of a segment, made if need be.
    fn made(files: &mut Files, ring: &mut Ring, group: GroupId, number: u32) -> File {
        let open = files.segment_to_write(group, number).expect("no fault");
        if let Some(file) = open {
            return file;
        }
        let mut completions = Vec::new();
        loop {
            if let Some(made) = files.take_made() {
                assert_eq!((made.group, made.number), (group, number));
                return made.result.expect("there is room");
            }
            let wait = std::time::Duration::from_secs(10);
            let count = ring.submit_and_wait(Some(wait), &mut completions);
            assert!(count.is_ok_and(|count| count > 0), "the loop is woken");
        }
    }

    /// As a node has them that keeps three segments open.
    fn files(directory: &Arc<Directory>, ring: &Ring) -> Files {
        let maker = start_maker(Arc::clone(directory), ring.waker());
        let mender = start_mender(Arc::clone(directory), ring.waker());
        let remover = start_remover(Arc::clone(directory), ring.waker());
        Files {
            pins: directory.open_pins().expect("there is room"),
            persist: directory.open_persist().expect("there is room"),
            directory: Arc::clone(directory),
            maker: maker.expect("a thread"),
            mender: mender.expect("a thread"),
            remover: remover.expect("a thread"),
            unwanted: BTreeMap::new(),
            is_removing: false,
            removed_below: BTreeMap::new(),
            journal: Vec::new(),
            segments: BTreeMap::new(),
            making: BTreeSet::new(),
            open_max: 3,
            use_count: 0,
            mode: WriteMode::Plain,
        }
    }

    #[test]
    fn a_file_in_use_stays_open_and_the_longest_unused_goes() {
        let dir = tempfile::tempdir().expect("a directory");
        let access = Access::BufferedForDevelopmentOnly;
        let directory = Arc::new(Directory::open(dir.path(), access).expect("it is there"));
        let mut ring = Ring::new(&RingOptions::default()).expect("io_uring");
        let mut files = files(&directory, &ring);
        let group = GroupId(1);
        // The active segment of the lowest group was the first to go, and an operation used it.
        let active = made(&mut files, &mut ring, group, 0);
        for number in 1..6 {
            drop(made(&mut files, &mut ring, GroupId(2), number));
        }
        let begun = std::time::Instant::now();
        let again = made(&mut files, &mut ring, group, 0);
        assert!(begun.elapsed().as_secs() < 1, "nobody waits for himself");
        assert!(active.is_shared() && again.is_shared());
        let open: Vec<_> = files.segments.keys().copied().collect();
        assert_eq!(open, [(group, 0), (GroupId(2), 4), (GroupId(2), 5)]);
        drop((active, again));
        let source = |number| Source::Segment {
            group: GroupId(2),
            number,
        };
        drop(files.source(source(4)).expect("it is open"));
        drop(files.source(source(1)).expect("it opens again"));
        let open: Vec<_> = files.segments.keys().copied().collect();
        assert_eq!(open, [(group, 0), (GroupId(2), 1), (GroupId(2), 4)]);
        // What is deleted is closed at once; a second wish waits for the first. Nobody opens it again,
        // or who still reads it would be waited for.
        let read_on = files.source(source(1)).expect("it is open");
        files.remove_segments(GroupId(2), 3);
        let begun = std::time::Instant::now();
        assert!(matches!(
            files.source(source(1)),
            Err(DiskError::Missing { .. })
        ));
        assert!(begun.elapsed().as_secs() < 1, "nobody waits for himself");
        drop(read_on);
        files.remove_segments(GroupId(2), 5);
        files.remove_segments(group, 1);
        let open: Vec<_> = files.segments.keys().copied().collect();
        assert!(open.is_empty());
        let begun = std::time::Instant::now();
        while files.is_removing {
            files.on_removed().expect("no fault");
            assert!(begun.elapsed().as_secs() < 10, "they are deleted");
        }
        assert_eq!(files.directory.segments(GroupId(2)).unwrap(), [5]);
        assert!(files.directory.segments(group).unwrap().is_empty());
    }

    #[test]
    fn a_segment_that_is_replaced_is_opened_once() {
        let dir = tempfile::tempdir().expect("a directory");
        let access = Access::BufferedForDevelopmentOnly;
        let directory = Arc::new(Directory::open(dir.path(), access).expect("it is there"));
        let mut ring = Ring::new(&RingOptions::default()).expect("io_uring");
        let mut files = files(&directory, &ring);
        let (group, number) = (GroupId(1), 0);
        let old = made(&mut files, &mut ring, group, number);
        let source = Source::Segment { group, number };
        for is_seen_early in [false, true] {
            directory
                .mend_segment(group, number, 0, &[7; 4096])
                .expect("there is room");
            if is_seen_early {
                files.segments.clear();
            }
            files.mend(Mending {
                group,
                number,
                step: MendStep::Replace {
                    write: SegmentWriteId(1),
                },
            });
            let mut completions = Vec::new();
            let wait = std::time::Duration::from_secs(10);
            let count = ring.submit_and_wait(Some(wait), &mut completions);
            assert!(count.is_ok_and(|count| count > 0), "the loop is woken");
            // The name is the new file's, and nobody has told of it.
            let early = files.source(source).expect("it is there");
            let mended = files.take_mended().expect("it is done");
            mended.result.expect("there is room");
            let begun = std::time::Instant::now();
            let next = files.source(source).expect("it is there");
            assert!(begun.elapsed().as_secs() < 1, "nobody waits for himself");
            assert!(directory.is_segment(group, number, &next));
            assert_eq!(directory.is_segment(group, number, &early), is_seen_early);
        }
        drop(old);
    }
}
