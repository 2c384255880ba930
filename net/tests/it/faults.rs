//! What a disk does wrong, told by a test while the disk is in use: it fails, waits, stalls, is full,
//! lies, loses power. And what it would lose then: each write and each name since it was last synced,
//! with what was there before.
//!
//! Knows no FUSE. All that changes a file goes through here, one request at a time, so that a cut of
//! power comes between two of them.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Duration;

use crate::processes::dice;

/// What the disk is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    /// A file or directory is to be made.
    Make,
    /// Bytes are to be written, durably or not.
    Write,
    /// Bytes written, or names given, are to be made durable: by fsync, or with the write.
    Sync,
}

/// One request that fails, once.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Failure {
    pub(crate) asked: Asked,
    /// How the name of the file or directory that is asked for begins.
    pub(crate) of: &'static str,
    /// So many such requests go well before.
    pub(crate) good_count: u32,
    pub(crate) errno: i32,
}

/// What a cut of power leaves of what was not truly synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kept {
    Nothing,
    /// Some writes and not others, whichever came first: what a drive's cache does.
    Some,
}

/// Which syncs are answered with yes and not done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lie {
    None,
    /// Of files and directories whose name begins so.
    About(&'static str),
}

/// A file as one open of it sees it.
#[derive(Debug)]
pub(crate) struct Opened {
    /// Which file, whatever its name is by now.
    pub(crate) number: u64,
    pub(crate) path: PathBuf,
    pub(crate) file: Arc<File>,
}

/// How a change is taken back.
#[derive(Debug)]
enum Undo {
    Write {
        number: u64,
        file: Arc<File>,
        position: u64,
        /// What was there, as far as the file went.
        before: Vec<u8>,
        size: u64,
    },
    /// `path` was made.
    Make { path: PathBuf },
    /// `to` was named `from`, and what was `to` is kept.
    Rename {
        from: PathBuf,
        to: PathBuf,
        kept: Option<PathBuf>,
    },
    /// `path` went, and is kept.
    Remove { path: PathBuf, kept: PathBuf },
}

impl Undo {
    fn back(self) -> io::Result<()> {
        match self {
            Self::Write {
                file,
                position,
                before,
                size,
                ..
            } => {
                file.write_all_at(&before, position)?;
                file.set_len(size)
            }
            Self::Make { path } if path.is_dir() => std::fs::remove_dir_all(path),
            Self::Make { path } => std::fs::remove_file(path),
            Self::Rename { from, to, kept } => {
                std::fs::rename(&to, from)?;
                kept.map_or(Ok(()), |kept| std::fs::rename(kept, to))
            }
            Self::Remove { path, kept } => std::fs::rename(kept, path),
        }
    }

    /// Whether syncing the directory makes it last.
    fn is_name_in(&self, directory: &Path) -> bool {
        match self {
            Self::Write { .. } => false,
            Self::Make { path } | Self::Rename { to: path, .. } | Self::Remove { path, .. } => {
                path.parent() == Some(directory)
            }
        }
    }

    fn is_write_to(&self, of: u64) -> bool {
        matches!(self, Self::Write { number, .. } if *number == of)
    }
}

/// What was asked of a file after a request to it had failed.
pub(crate) type AskedAfter = (Asked, Option<u64>);

struct State {
    draw: Box<dyn FnMut(u32) -> u32 + Send>,
    failure: Option<Failure>,
    failed: Option<(u64, AskedAfter)>,
    asked_after: Vec<AskedAfter>,
    delay_ms: Range<u32>,
    is_stalled: bool,
    is_full: bool,
    lie: Lie,
    has_power: bool,
    undo: Vec<Undo>,
    sync_count: u64,
    /// Syncs that were asked for and not done.
    lie_count: u64,
}

/// The script. A new one has no fault.
pub(crate) struct Faults {
    /// Where files are kept that went, or whose name went to others.
    aside: PathBuf,
    state: Mutex<State>,
    changed: Condvar,
}

fn is_named(path: &Path, beginning: &str) -> bool {
    let name = path.file_name().expect("no root is asked for");
    name.to_string_lossy().starts_with(beginning)
}

fn errno(number: i32) -> io::Error {
    io::Error::from_raw_os_error(number)
}

impl State {
    /// Whether this request is the one that is to fail.
    fn judge(
        &mut self,
        asked: Asked,
        (number, path): (u64, &Path),
        at: Option<u64>,
    ) -> io::Result<()> {
        if self.failed.is_some_and(|(failed, _)| failed == number) {
            self.asked_after.push((asked, at));
        }
        let Some(failure) = &mut self.failure else {
            return Ok(());
        };
        if failure.asked != asked || !is_named(path, failure.of) {
            return Ok(());
        }
        if failure.good_count > 0 {
            failure.good_count -= 1;
            return Ok(());
        }
        let error = errno(failure.errno);
        self.failure = None;
        self.failed = Some((number, (asked, at)));
        Err(error)
    }

    fn is_lie(&mut self, path: &Path) -> bool {
        self.sync_count += 1;
        let is_lie = match self.lie {
            Lie::None => false,
            Lie::About(beginning) => is_named(path, beginning),
        };
        self.lie_count += u64::from(is_lie);
        is_lie
    }

    fn sync(&mut self, opened: &Opened, at: Option<u64>) -> io::Result<()> {
        self.judge(Asked::Sync, (opened.number, &opened.path), at)?;
        if !self.is_lie(&opened.path) {
            self.undo.retain(|undo| !undo.is_write_to(opened.number));
        }
        Ok(())
    }
}

impl Faults {
    pub(crate) fn new(aside: PathBuf) -> Self {
        Self {
            aside,
            state: Mutex::new(State {
                draw: Box::new(dice()),
                failure: None,
                failed: None,
                asked_after: Vec::new(),
                delay_ms: 0..0,
                is_stalled: false,
                is_full: false,
                lie: Lie::None,
                has_power: true,
                undo: Vec::new(),
                sync_count: 0,
                lie_count: 0,
            }),
            changed: Condvar::new(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nobody panics with it")
    }

    /// As soon as the disk does anything at all.
    fn awake(&self) -> io::Result<MutexGuard<'_, State>> {
        let mut state = self.state();
        if !state.delay_ms.is_empty() {
            let Range { start, end } = state.delay_ms;
            let drawn = start + (state.draw)(end - start);
            drop(state);
            std::thread::sleep(Duration::from_millis(u64::from(drawn)));
            state = self.state();
        }
        let is_waiting = |state: &mut State| state.is_stalled && state.has_power;
        let state = self.changed.wait_while(state, is_waiting);
        let state = state.expect("nobody panics with it");
        match state.has_power {
            true => Ok(state),
            false => Err(errno(libc::EIO)),
        }
    }
}

/// What is asked of the disk.
impl Faults {
    pub(crate) fn write(
        &self,
        opened: &Opened,
        position: u64,
        bytes: &[u8],
        is_durable: bool,
    ) -> io::Result<()> {
        let mut state = self.awake()?;
        state.judge(Asked::Write, (opened.number, &opened.path), Some(position))?;
        let (number, file) = (opened.number, Arc::clone(&opened.file));
        let size = file.metadata()?.len();
        if state.is_full && position + bytes.len() as u64 > size {
            return Err(errno(libc::ENOSPC));
        }
        let there = size.saturating_sub(position).min(bytes.len() as u64);
        let mut before = vec![0; there as usize];
        file.read_exact_at(&mut before, position)?;
        state.undo.push(Undo::Write {
            number,
            file,
            position,
            before,
            size,
        });
        opened.file.write_all_at(bytes, position)?;
        if is_durable {
            state.sync(opened, Some(position))?;
        }
        Ok(())
    }

    pub(crate) fn sync(&self, opened: &Opened) -> io::Result<()> {
        self.awake()?.sync(opened, None)
    }

    pub(crate) fn sync_directory(&self, path: &Path) -> io::Result<()> {
        let mut state = self.awake()?;
        state.judge(Asked::Sync, (0, path), None)?;
        if !state.is_lie(path) {
            state.undo.retain(|undo| !undo.is_name_in(path));
        }
        Ok(())
    }

    /// Makes a file or directory that is not there yet.
    pub(crate) fn make<T>(
        &self,
        path: &Path,
        make: impl FnOnce() -> io::Result<T>,
    ) -> io::Result<T> {
        let mut state = self.awake()?;
        state.judge(Asked::Make, (0, path), None)?;
        if state.is_full {
            return Err(errno(libc::ENOSPC));
        }
        let made = make()?;
        let path = path.to_owned();
        state.undo.push(Undo::Make { path });
        Ok(made)
    }

    pub(crate) fn cut(&self, opened: &Opened, size: u64) -> io::Result<()> {
        let mut state = self.awake()?;
        let before = opened.file.metadata()?.len();
        if state.is_full && size > before {
            return Err(errno(libc::ENOSPC));
        }
        let mut gone = vec![0; before.saturating_sub(size) as usize];
        opened.file.read_exact_at(&mut gone, size.min(before))?;
        state.undo.push(Undo::Write {
            number: opened.number,
            file: Arc::clone(&opened.file),
            position: size.min(before),
            before: gone,
            size: before,
        });
        opened.file.set_len(size)
    }

    pub(crate) fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.awake()?;
        let kept = match to.exists() {
            true => Some(self.keep(&state, to)?),
            false => None,
        };
        std::fs::rename(from, to)?;
        let (from, to) = (from.to_owned(), to.to_owned());
        state.undo.push(Undo::Rename { from, to, kept });
        Ok(())
    }

    pub(crate) fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.awake()?;
        let kept = self.keep(&state, path)?;
        let path = path.to_owned();
        state.undo.push(Undo::Remove { path, kept });
        Ok(())
    }

    fn keep(&self, state: &State, path: &Path) -> io::Result<PathBuf> {
        // Nothing is taken back twice, so no place in the list is used by two at a time.
        let name = format!("{}-{}", state.sync_count, state.undo.len());
        let kept = self.aside.join(name);
        std::fs::rename(path, &kept)?;
        Ok(kept)
    }

    /// Reads and looks go on but for a lack of power.
    pub(crate) fn look(&self) -> io::Result<()> {
        match self.state().has_power {
            true => Ok(()),
            false => Err(errno(libc::EIO)),
        }
    }
}

/// What the test says.
impl Faults {
    fn set(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state());
        self.changed.notify_all();
    }

    /// Fails one request.
    pub(crate) fn fail(&self, failure: Failure) {
        self.set(|state| {
            (state.failure, state.failed) = (Some(failure), None);
            state.asked_after.clear();
        });
    }

    /// What has failed, where it was, and what was asked of the same file since.
    pub(crate) fn failed(&self) -> Option<(AskedAfter, Vec<AskedAfter>)> {
        let state = self.state();
        let (_, failed) = state.failed?;
        Some((failed, state.asked_after.clone()))
    }

    /// Lets every change wait, each for a time within these bounds.
    pub(crate) fn delay(&self, delay_ms: Range<u32>) {
        self.set(|state| state.delay_ms = delay_ms);
    }

    /// No write and no sync ends, until it is told otherwise.
    pub(crate) fn stall(&self, is_stalled: bool) {
        self.set(|state| state.is_stalled = is_stalled);
    }

    /// No file grows, and none is made.
    pub(crate) fn fill(&self, is_full: bool) {
        self.set(|state| state.is_full = is_full);
    }

    pub(crate) fn lie(&self, lie: Lie) {
        self.set(|state| state.lie = lie);
    }

    pub(crate) fn lie_count(&self) -> u64 {
        self.state().lie_count
    }

    /// Takes back what was not truly synced. From now on all fails.
    pub(crate) fn cut_power(&self, kept: Kept) -> usize {
        let mut state = self.state();
        state.has_power = false;
        let undo = std::mem::take(&mut state.undo);
        let mut lost_count = 0;
        for undo in undo.into_iter().rev() {
            let is_write = matches!(undo, Undo::Write { .. });
            let is_kept = is_write && kept == Kept::Some && (state.draw)(2) == 0;
            if !is_kept {
                lost_count += 1;
                undo.back().expect("a disk that the test owns");
            }
        }
        drop(state);
        self.changed.notify_all();
        lost_count
    }

    /// All is as it should be again, and what the disk was told to do wrong is forgotten.
    pub(crate) fn restore_power(&self) {
        self.set(|state| {
            (state.has_power, state.is_stalled, state.is_full) = (true, false, false);
            (state.lie, state.failure, state.delay_ms) = (Lie::None, None, 0..0);
        });
    }
}
