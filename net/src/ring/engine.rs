//! The border to the kernel: the two queues, and the one system call that moves them.
//!
//! Knows entries and completions as numbers only; what they own is in `flight`.

#![allow(unsafe_code)] // Entries hold pointers the kernel follows: pushing one is a promise.

use std::collections::VecDeque;
use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::RawFd;
use std::ptr::NonNull;
use std::time::Duration;

use io_uring::squeue::Entry;
use io_uring::types::{SubmitArgs, Timespec};
use io_uring::{EnterFlags, IoUring, Submitter};

use super::buffer::Pool;
use super::probe::{Lever, Probe, RingError, RingSetup, Use, set_up};

/// Slots for long-lived files.
const FILE_COUNT_MAX: u32 = 16;

/// The buffer ring's group number: there is one per ring.
pub(super) const BUFFER_GROUP: u16 = 0;

/// A completion as the kernel writes it.
#[derive(Clone, Copy, Debug)]
pub(super) struct RawCompletion {
    pub(super) user_data: u64,
    pub(super) result: i32,
    pub(super) flags: u32,
}

/// One io_uring and the submissions that did not fit it yet.
pub(super) struct Engine {
    /// Of `uring`, with the registered descriptor; never outlives it.
    submitter: ManuallyDrop<Submitter<'static>>,
    /// Owned; only ever shared until `drop`, so that `submitter` may borrow from it.
    uring: NonNull<IoUring>,
    /// Entries that wait for room in the queue, in order. Usually empty.
    backlog: VecDeque<Entry>,
    probe: Probe,
    file_count: u32,
    wait_flags: EnterFlags,
}

impl Engine {
    pub(super) fn new(setup: &RingSetup) -> Result<Self, RingError> {
        let (uring, probe) = set_up(setup)?;
        let uring = NonNull::from(Box::leak(Box::new(uring)));
        // SAFETY: the box lives until `drop`, which drops the submitter first; no exclusive
        // reference to it is made before that.
        let submitter = ManuallyDrop::new(unsafe { uring.as_ref() }.submitter());
        let mut engine = Self {
            submitter,
            uring,
            backlog: VecDeque::new(),
            probe,
            file_count: 0,
            wait_flags: EnterFlags::GETEVENTS,
        };
        engine.pull_levers(&setup.without);
        Ok(engine)
    }

    fn pull_levers(&mut self, without: &[Lever]) {
        let off = |lever| without.contains(&lever);
        let switched_off = || Use::Unused("switched off".into());
        let refused = |error: io::Error| Use::Unused(error.to_string());
        let ring = match off(Lever::RegisteredRing) {
            true => switched_off(),
            false => self
                .submitter
                .register_ring_fd()
                .map_or_else(refused, |()| Use::Used),
        };
        self.probe.note(Lever::RegisteredRing, ring);
        let files = match off(Lever::RegisteredFiles) {
            true => switched_off(),
            false => match self.submitter.register_files_sparse(FILE_COUNT_MAX) {
                Ok(()) => {
                    self.file_count = FILE_COUNT_MAX;
                    Use::Used
                }
                Err(error) => refused(error),
            },
        };
        self.probe.note(Lever::RegisteredFiles, files);
        let idle = match (
            off(Lever::NoIowait),
            self.uring().params().is_feature_no_iowait(),
        ) {
            (true, _) => switched_off(),
            (false, false) => Use::Unused("the kernel does not know it".into()),
            (false, true) => {
                self.wait_flags |= EnterFlags::NO_IOWAIT;
                Use::Used
            }
        };
        self.probe.note(Lever::NoIowait, idle);
    }

    fn uring(&self) -> &IoUring {
        // SAFETY: alive until `drop`, and never exclusively borrowed before.
        unsafe { self.uring.as_ref() }
    }

    pub(super) fn probe(&self) -> &Probe {
        &self.probe
    }

    /// Hands the receive buffers to the kernel.
    ///
    /// # Safety
    /// `pool` must stay allocated until this engine is dropped and no operation of it runs.
    pub(super) unsafe fn register_pool(&self, pool: &Pool) -> Result<(), RingError> {
        let address = pool.entries_address();
        // SAFETY: the entries are aligned to a page and the caller keeps them alive.
        unsafe {
            self.submitter
                .register_buf_ring_with_flags(address, pool.count(), BUFFER_GROUP, 0)
        }
        .map_err(|error| RingError::of("registering the receive buffers", &error))
    }

    /// Slots for files; 0 where the lever is not used.
    pub(super) fn file_count(&self) -> u32 {
        self.file_count
    }

    /// Puts `fd` (-1 for none) into a file slot; whether the kernel took it.
    pub(super) fn set_file(&self, slot: u32, fd: RawFd) -> bool {
        assert!(slot < self.file_count, "no such file slot");
        self.submitter.register_files_update(slot, &[fd]).is_ok()
    }

    /// Queues an entry; one that does not fit is kept and goes with a later submission, in order.
    ///
    /// # Safety
    /// All that the entry points to, and its descriptor, must stay valid until its last
    /// completion has been drained, or for ever.
    pub(super) unsafe fn push(&mut self, entry: Entry) {
        if self.backlog.is_empty() {
            // SAFETY: passed on from the caller.
            if unsafe { self.try_push(&entry) } {
                return;
            }
            // Full: the kernel takes all there is. If it cannot now, the backlog waits.
            let _ = self.enter(0, None);
            // SAFETY: passed on from the caller.
            if unsafe { self.try_push(&entry) } {
                return;
            }
        }
        self.backlog.push_back(entry);
    }

    /// # Safety
    /// As `push`.
    unsafe fn try_push(&self, entry: &Entry) -> bool {
        // SAFETY: the ring is bound to this thread and the borrow ends with this statement, so
        // there is no other submission queue; the entry is the caller's promise.
        unsafe { self.uring().submission_shared().push(entry).is_ok() }
    }

    fn queued(&self) -> (usize, bool, bool) {
        // SAFETY: as in `try_push`: no other submission queue exists meanwhile.
        let queue = unsafe { self.uring().submission_shared() };
        (queue.len(), queue.taskrun(), queue.cq_overflow())
    }

    /// Whether an `enter` without waiting would do anything.
    pub(super) fn has_work(&self) -> bool {
        let (queued, taskrun, overflow) = self.queued();
        queued > 0 || taskrun || overflow || !self.backlog.is_empty()
    }

    /// Whether the kernel has completions to post once the thread enters.
    pub(super) fn has_taskrun(&self) -> bool {
        let (_, taskrun, overflow) = self.queued();
        taskrun || overflow
    }

    /// Completions that can be drained now.
    pub(super) fn ready(&self) -> usize {
        // SAFETY: bound to this thread, and the borrow ends here: no other completion queue.
        unsafe { self.uring().completion_shared() }.len()
    }

    /// Moves as many completions as there are to `into`.
    pub(super) fn drain(&self, into: &mut Vec<RawCompletion>) {
        // SAFETY: as in `ready`.
        let queue = unsafe { self.uring().completion_shared() };
        into.extend(queue.map(|entry| RawCompletion {
            user_data: entry.user_data(),
            result: entry.result(),
            flags: entry.flags(),
        }));
    }

    /// Submits all that is queued, works off completions, and waits until `want` can be drained
    /// or `timeout` is over; `None` is for ever.
    pub(super) fn submit_and_wait(
        &mut self,
        want: usize,
        timeout: Option<Duration>,
    ) -> Result<(), RingError> {
        while !self.backlog.is_empty() {
            self.refill();
            if self.backlog.is_empty() {
                break;
            }
            let queued = self.queued().0;
            self.enter(0, None)?;
            if self.queued().0 >= queued {
                // The kernel takes no more before completions are drained: do not wait.
                return Ok(());
            }
        }
        self.enter(want, timeout)
    }

    fn refill(&mut self) {
        while let Some(entry) = self.backlog.front() {
            // SAFETY: `push` has the caller's promise for each entry of the backlog.
            if !unsafe { self.try_push(entry) } {
                return;
            }
            self.backlog.pop_front();
        }
    }

    fn enter(&self, want: usize, timeout: Option<Duration>) -> Result<(), RingError> {
        let want = u32::try_from(want).expect("as many completions as fit the queue");
        let submit = u32::try_from(self.queued().0).expect("a queue of u32 length");
        let entered = match (want, timeout) {
            (0, _) | (_, None) => {
                // SAFETY: no argument is passed. GETEVENTS always: deferred work runs only then.
                unsafe {
                    let flags = self.wait_flags.bits();
                    self.submitter
                        .enter::<libc::sigset_t>(submit, want, flags, None)
                }
            }
            (_, Some(timeout)) => {
                let timeout = Timespec::from(timeout);
                let args = SubmitArgs::new().timespec(&timeout);
                let flags = (self.wait_flags | EnterFlags::EXT_ARG).bits();
                // SAFETY: with EXT_ARG the kernel reads `SubmitArgs`, which is the C struct it
                // expects, and the timespec it points to; both live through the call.
                unsafe { self.submitter.enter(submit, want, flags, Some(&args)) }
            }
        };
        match entered
            .as_ref()
            .map_err(|error| error.raw_os_error().unwrap_or(libc::EIO))
        {
            // A timeout or a signal is no failure; what could not be submitted for want of
            // memory or of room for completions stays queued and goes with the next entry.
            Ok(_) | Err(libc::ETIME | libc::EINTR | libc::EAGAIN | libc::EBUSY) => Ok(()),
            Err(_) => Err(RingError::of("entering", &entered.unwrap_err())),
        }
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        // Fails where it never was registered.
        let _ = self.submitter.unregister_ring_fd();
        // SAFETY: not used after; it borrows from the box freed next.
        unsafe { ManuallyDrop::drop(&mut self.submitter) };
        // SAFETY: leaked in `new`, freed only here, and its last borrower is gone.
        drop(unsafe { Box::from_raw(self.uring.as_ptr()) });
    }
}
