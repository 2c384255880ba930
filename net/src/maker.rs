//! Makes segment files beside the loop: a new file and its name are synced before it is used, which
//! takes as long as the disk likes (0.6 ms mostly, 20 ms now and then), and a loop that waited for
//! it would answer nobody meanwhile.
//!
//! One thread, asleep but for a file each 64 MiB of a log. Knows no content.

use std::sync::Arc;
use std::thread::JoinHandle;

use crossbeam::channel::{Receiver, Sender, bounded};
use ringwood_core::id::GroupId;
use ringwood_core::limits::GROUP_COUNT_MAX;

use crate::disk::{Directory, DiskError};
use crate::ring::{File, Waker};

/// A segment that was asked for.
#[derive(Debug)]
pub(crate) struct Made {
    pub(crate) group: GroupId,
    pub(crate) number: u32,
    /// The file, open, or why there is none.
    pub(crate) result: Result<File, DiskError>,
}

/// The thread, and the loop's ends of its queues. Dropping it waits for the file under way.
#[derive(Debug)]
pub(crate) struct Maker {
    wanted: Option<Sender<(GroupId, u32)>>,
    made: Receiver<Made>,
    thread: Option<JoinHandle<()>>,
}

impl Maker {
    /// # Errors
    /// That of starting a thread.
    pub(crate) fn start(directory: Arc<Directory>, waker: Waker) -> std::io::Result<Self> {
        // A log writes to one segment at a time: neither queue is ever full.
        let (wanted, asked) = bounded::<(GroupId, u32)>(GROUP_COUNT_MAX);
        let (done, made) = bounded(GROUP_COUNT_MAX);
        let thread = std::thread::Builder::new()
            .name("segments".into())
            .spawn(move || {
                for (group, number) in asked {
                    let made = Made {
                        group,
                        number,
                        result: directory.create_segment(group, number),
                    };
                    // The loop is gone: nobody wants the rest either.
                    if done.send(made).is_err() {
                        return;
                    }
                    waker.wake();
                }
            })?;
        Ok(Self {
            wanted: Some(wanted),
            made,
            thread: Some(thread),
        })
    }

    /// Begins to make a segment; the waker tells when it is to be taken.
    pub(crate) fn make(&self, group: GroupId, number: u32) {
        let wanted = self.wanted.as_ref().expect("there until the end");
        wanted
            .try_send((group, number))
            .expect("each log makes one segment at a time, and the thread lives");
    }

    pub(crate) fn take(&self) -> Option<Made> {
        self.made.try_recv().ok()
    }
}

impl Drop for Maker {
    fn drop(&mut self) {
        self.wanted = None;
        if let Some(thread) = self.thread.take() {
            let joined = thread.join();
            assert!(
                joined.is_ok() || std::thread::panicking(),
                "making a file does not panic"
            );
        }
    }
}
