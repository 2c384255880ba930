//! A file system of a test's own, in front of a directory: what is asked of it goes there by way of
//! its `Faults`. It needs root and /dev/fuse; elsewhere it says so and proves nothing.
//!
//! Decides nothing, and caches nothing: all reads and writes are direct, so that each write a process
//! waits for is one that `Faults` sees. A write with `RWF_DSYNC` comes with that flag, and no sync
//! after it. The directory behind it is never synced: what a cut of power leaves, `Faults` says.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use fuser::{
    BackgroundSession, BsdFileFlags, Config, Errno, FileAttr, FileHandle, FileType, Filesystem,
    FopenFlags, Generation, INodeNo, InitFlags, KernelConfig, LockOwner, MountOption, OpenFlags,
    RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory, ReplyEmpty, ReplyEntry,
    ReplyOpen, ReplyStatfs, ReplyWrite, Request, TimeOrNow, WriteFlags,
};

use crate::faults::{Faults, Opened};
use crate::file_system::unmount;

/// Requests that may wait at a time; a node has fewer writes under way, and must still be able to look.
const THREAD_COUNT: usize = 24;

/// Nothing is remembered by the kernel.
const TTL: Duration = Duration::ZERO;

const DIRECT: FopenFlags =
    FopenFlags::FOPEN_DIRECT_IO.union(FopenFlags::FOPEN_PARALLEL_DIRECT_WRITES);

/// It, mounted.
pub(crate) struct FuseDisk {
    pub(crate) faults: Arc<Faults>,
    at: PathBuf,
    session: Option<BackgroundSession>,
}

impl FuseDisk {
    /// One in `dir`; none, with a word to whoever reads along, where this machine does not let a
    /// test mount it.
    pub(crate) fn mount(dir: &Path) -> Option<Self> {
        let [behind, aside, at] = ["behind", "aside", "fuse"].map(|name| dir.join(name));
        for path in [&behind, &aside, &at] {
            std::fs::create_dir(path).expect("a directory");
        }
        let faults = Arc::new(Faults::new(aside));
        let shown = Shown {
            faults: Arc::clone(&faults),
            names: Mutex::new(Names::new(behind)),
            opened: Mutex::default(),
            next_handle: AtomicU64::new(1),
        };
        let mut config = Config::default();
        config.mount_options = vec![MountOption::FSName("faults".into())];
        config.n_threads = Some(THREAD_COUNT);
        match fuser::spawn_mount(shown, &at, &config) {
            Ok(session) => Some(Self {
                faults,
                at,
                session: Some(session),
            }),
            Err(why) => {
                println!("skipped: no FUSE here: {why}");
                None
            }
        }
    }

    /// The directory of a node on it, to be made.
    pub(crate) fn home(&self) -> PathBuf {
        self.at.join("node")
    }
}

impl Drop for FuseDisk {
    fn drop(&mut self) {
        self.faults.restore_power();
        // It ends with what it serves; where that stays, nobody must wait for it.
        if unmount(&self.at)
            && let Some(session) = self.session.take()
        {
            session.join().expect("it ends as it should");
        }
    }
}

/// Which number the kernel knows a path by.
struct Names {
    paths: BTreeMap<u64, PathBuf>,
    numbers: BTreeMap<PathBuf, u64>,
}

impl Names {
    fn new(root: PathBuf) -> Self {
        let mut names = Self {
            paths: BTreeMap::new(),
            numbers: BTreeMap::new(),
        };
        assert_eq!(names.number(&root), INodeNo::ROOT.0);
        names
    }

    fn number(&mut self, path: &Path) -> u64 {
        if let Some(number) = self.numbers.get(path) {
            return *number;
        }
        let number = self.paths.len() as u64 + 1;
        self.paths.insert(number, path.to_owned());
        self.numbers.insert(path.to_owned(), number);
        number
    }

    /// What is behind the name is another file from now on, or none.
    fn forget(&mut self, path: &Path) {
        self.numbers.remove(path);
    }

    fn rename(&mut self, from: &Path, to: &Path) {
        let number = self.number(from);
        self.numbers.remove(from);
        self.numbers.insert(to.to_owned(), number);
        self.paths.insert(number, to.to_owned());
    }
}

/// What the kernel asks.
struct Shown {
    faults: Arc<Faults>,
    names: Mutex<Names>,
    opened: Mutex<BTreeMap<u64, Arc<Opened>>>,
    next_handle: AtomicU64,
}

impl Shown {
    fn path(&self, number: INodeNo) -> io::Result<PathBuf> {
        let names = self.names.lock().expect("nobody panics with it");
        let path = names.paths.get(&number.0).cloned();
        path.ok_or_else(|| io::Error::from_raw_os_error(libc::ENOENT))
    }

    fn child(&self, parent: INodeNo, name: &OsStr) -> io::Result<PathBuf> {
        Ok(self.path(parent)?.join(name))
    }

    fn number(&self, path: &Path) -> u64 {
        let mut names = self.names.lock().expect("nobody panics with it");
        names.number(path)
    }

    fn opened(&self, handle: FileHandle) -> io::Result<Arc<Opened>> {
        let opened = self.opened.lock().expect("nobody panics with it");
        let opened = opened.get(&handle.0).map(Arc::clone);
        opened.ok_or_else(|| io::Error::from_raw_os_error(libc::EBADF))
    }

    /// A file that is open, even one that has no name any more.
    fn open_one(&self, number: INodeNo) -> Option<Arc<Opened>> {
        let opened = self.opened.lock().expect("nobody panics with it");
        let mut all = opened.values();
        all.find(|opened| opened.number == number.0).map(Arc::clone)
    }

    fn keep(&self, number: u64, path: PathBuf, file: File) -> FileHandle {
        let handle = self.next_handle.fetch_add(1, Ordering::Relaxed);
        let file = Arc::new(file);
        let opened = Arc::new(Opened { number, path, file });
        let mut all = self.opened.lock().expect("nobody panics with it");
        all.insert(handle, opened);
        FileHandle(handle)
    }

    fn look_up(&self, path: &Path) -> io::Result<FileAttr> {
        self.faults.look()?;
        let found = std::fs::symlink_metadata(path)?;
        Ok(attributes(self.number(path), &found))
    }

    fn look_at(&self, number: INodeNo) -> io::Result<FileAttr> {
        self.faults.look()?;
        let found = match self.open_one(number) {
            Some(opened) => opened.file.metadata()?,
            None => std::fs::symlink_metadata(self.path(number)?)?,
        };
        Ok(attributes(number.0, &found))
    }

    fn open_file(&self, number: INodeNo) -> io::Result<FileHandle> {
        self.faults.look()?;
        let path = self.path(number)?;
        let file = File::options().read(true).write(true).open(&path)?;
        Ok(self.keep(number.0, path, file))
    }

    fn create_file(&self, path: PathBuf, mode: u32) -> io::Result<(FileAttr, FileHandle)> {
        let make = || {
            let mut options = File::options();
            let options = options.read(true).write(true).create_new(true).mode(mode);
            options.open(&path)
        };
        let file = self.faults.make(&path, make)?;
        let attributes = self.look_up(&path)?;
        let handle = self.keep(attributes.ino.0, path, file);
        Ok((attributes, handle))
    }

    fn make_directory(&self, path: &Path) -> io::Result<FileAttr> {
        self.faults.make(path, || std::fs::create_dir(path))?;
        self.look_up(path)
    }

    fn cut(&self, number: INodeNo, size: u64) -> io::Result<()> {
        if let Some(opened) = self.open_one(number) {
            return self.faults.cut(&opened, size);
        }
        let path = self.path(number)?;
        let file = Arc::new(File::options().read(true).write(true).open(&path)?);
        let number = number.0;
        self.faults.cut(&Opened { number, path, file }, size)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        std::fs::symlink_metadata(path)?;
        self.faults.remove(path)?;
        self.names
            .lock()
            .expect("nobody panics with it")
            .forget(path);
        Ok(())
    }

    fn rename_file(&self, from: &Path, to: &Path, flags: RenameFlags) -> io::Result<()> {
        if flags.contains(RenameFlags::RENAME_NOREPLACE) && to.exists() {
            return Err(io::Error::from_raw_os_error(libc::EEXIST));
        }
        self.faults.rename(from, to)?;
        let mut names = self.names.lock().expect("nobody panics with it");
        names.rename(from, to);
        Ok(())
    }

    fn list(&self, number: INodeNo) -> io::Result<Vec<(FileType, std::ffi::OsString)>> {
        self.faults.look()?;
        let mut found = Vec::new();
        for entry in std::fs::read_dir(self.path(number)?)? {
            let entry = entry?;
            let kind = FileType::from_std(entry.file_type()?).expect("a kind that Unix has");
            found.push((kind, entry.file_name()));
        }
        found.sort_by(|(_, one), (_, other)| one.cmp(other));
        Ok(found)
    }
}

fn attributes(number: u64, found: &Metadata) -> FileAttr {
    let time = |time: io::Result<SystemTime>| time.unwrap_or(SystemTime::UNIX_EPOCH);
    FileAttr {
        ino: INodeNo(number),
        size: found.size(),
        blocks: found.blocks(),
        atime: time(found.accessed()),
        mtime: time(found.modified()),
        ctime: time(found.modified()),
        crtime: time(found.modified()),
        kind: FileType::from_std(found.file_type()).expect("a kind that Unix has"),
        perm: (found.permissions().mode() & 0o7777) as u16,
        nlink: found.nlink() as u32,
        uid: found.uid(),
        gid: found.gid(),
        rdev: found.rdev() as u32,
        blksize: found.blksize() as u32,
        flags: 0,
    }
}

/// Answers by `$done`, or with what went wrong.
macro_rules! answer {
    ($reply:ident, $result:expr, |$found:pat_param| $done:expr) => {
        match $result {
            Ok($found) => $done,
            Err(error) => $reply.error(Errno::from(error)),
        }
    };
}

impl Filesystem for Shown {
    /// Whoever asks by io_uring does not wait in the asking. Writes that let a file grow wait all the same:
    /// this kernel's FUSE knows no other way.
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> io::Result<()> {
        let refused = config.add_capabilities(InitFlags::FUSE_ASYNC_DIO);
        refused.map_err(|_| io::Error::other("no asynchronous writes"))
    }

    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let found = self
            .child(parent, name)
            .and_then(|path| self.look_up(&path));
        answer!(reply, found, |found| reply.entry(
            &TTL,
            &found,
            Generation(0)
        ));
    }

    fn getattr(&self, _: &Request, at: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        answer!(reply, self.look_at(at), |found| reply.attr(&TTL, &found));
    }

    fn setattr(
        &self,
        _: &Request,
        at: INodeNo,
        _mode: Option<u32>,
        _uid: Option<u32>,
        _gid: Option<u32>,
        size: Option<u64>,
        _atime: Option<TimeOrNow>,
        _mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        _: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let cut = size.map_or(Ok(()), |size| self.cut(at, size));
        let found = cut.and_then(|()| self.look_at(at));
        answer!(reply, found, |found| reply.attr(&TTL, &found));
    }

    fn mkdir(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        _mode: u32,
        _umask: u32,
        reply: ReplyEntry,
    ) {
        let made = self.child(parent, name);
        let made = made.and_then(|path| self.make_directory(&path));
        answer!(reply, made, |made| reply.entry(&TTL, &made, Generation(0)));
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let removed = self.child(parent, name).and_then(|path| self.remove(&path));
        answer!(reply, removed, |()| reply.ok());
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let removed =
            self.child(parent, name)
                .and_then(|path| match std::fs::read_dir(&path)?.next() {
                    None => self.remove(&path),
                    Some(_) => Err(io::Error::from_raw_os_error(libc::ENOTEMPTY)),
                });
        answer!(reply, removed, |()| reply.ok());
    }

    fn rename(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        newparent: INodeNo,
        newname: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let renamed = (|| {
            let (from, to) = (self.child(parent, name)?, self.child(newparent, newname)?);
            self.rename_file(&from, &to, flags)
        })();
        answer!(reply, renamed, |()| reply.ok());
    }

    fn open(&self, _: &Request, at: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        answer!(reply, self.open_file(at), |handle| reply
            .opened(handle, DIRECT));
    }

    fn create(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _umask: u32,
        _flags: i32,
        reply: ReplyCreate,
    ) {
        let made = self.child(parent, name);
        let made = made.and_then(|path| self.create_file(path, mode));
        answer!(reply, made, |(made, handle)| reply.created(
            &TTL,
            &made,
            Generation(0),
            handle,
            DIRECT
        ));
    }

    fn read(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let read = (|| {
            self.faults.look()?;
            let mut bytes = vec![0; size as usize];
            let count = self.opened(handle)?.file.read_at(&mut bytes, offset)?;
            bytes.truncate(count);
            Ok::<_, io::Error>(bytes)
        })();
        answer!(reply, read, |bytes| reply.data(&bytes));
    }

    fn write(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        flags: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let is_durable = flags.0 & libc::O_DSYNC != 0;
        let written = self.opened(handle);
        let written = written.and_then(|at| self.faults.write(&at, offset, data, is_durable));
        answer!(reply, written, |()| reply.written(data.len() as u32));
    }

    fn release(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        _: OpenFlags,
        _: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        let mut opened = self.opened.lock().expect("nobody panics with it");
        opened.remove(&handle.0);
        reply.ok();
    }

    fn fsync(&self, _: &Request, _: INodeNo, handle: FileHandle, _: bool, reply: ReplyEmpty) {
        let synced = self.opened(handle).and_then(|at| self.faults.sync(&at));
        answer!(reply, synced, |()| reply.ok());
    }

    fn fsyncdir(&self, _: &Request, at: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        let synced = self.path(at);
        let synced = synced.and_then(|path| self.faults.sync_directory(&path));
        answer!(reply, synced, |()| reply.ok());
    }

    fn readdir(
        &self,
        _: &Request,
        at: INodeNo,
        _: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        answer!(reply, self.list(at), |found| {
            for ((kind, name), next) in found.into_iter().zip(1..).skip(offset as usize) {
                // Its number is looked up when it is wanted.
                if reply.add(INodeNo(u64::MAX), next, kind, name) {
                    break;
                }
            }
            reply.ok();
        });
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        const BLOCK_SIZE: u32 = 4096;
        let block_count = (1 << 40) / u64::from(BLOCK_SIZE);
        let (files, free) = (1 << 20, block_count / 2);
        reply.statfs(
            block_count,
            free,
            free,
            files,
            files,
            BLOCK_SIZE,
            255,
            BLOCK_SIZE,
        );
    }
}
