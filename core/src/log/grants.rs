//! Which files of the ring may be entered.
//!
//! A file is entered again only if a flush that is *durable* says that nothing in the file's old
//! content is needed (`files_kept`). The saying must be durable first: else a crash could leave the
//! old content half gone and nobody to tell that it did not matter. Knows no content.
//!
//! ```text
//!  released by the shard  ─▶  claimed by a sealed flush  ─▶  granted once that flush is durable
//!        never beyond the newest file that durably has the state of all groups
//! ```

use std::collections::VecDeque;

use super::recovered::run_place;
use super::ring::Ring;
use crate::id::Lsn;

#[derive(Debug)]
pub(super) struct Grants {
    ring: Ring,
    /// All below is not needed, the shard says.
    release: Lsn,
    /// The newest file that has durably the state of all groups; what lies before may be given up.
    complete_file: u64,
    /// Run in which a newer file's state became complete.
    complete_pending: Option<(Lsn, u64)>,
    /// First file needed, as the last sealed flush says; and as the last durable one says.
    claimed_file: u64,
    granted_file: u64,
    /// Claims on their way: run and first file needed.
    claims: VecDeque<(Lsn, u64)>,
}

impl Grants {
    /// Files before `oldest_file` are free.
    pub(super) fn new(ring: Ring, oldest_file: u64) -> Self {
        Self {
            ring,
            release: ring.start_of(oldest_file),
            complete_file: oldest_file,
            complete_pending: None,
            claimed_file: oldest_file,
            granted_file: oldest_file,
            claims: VecDeque::new(),
        }
    }

    pub(super) fn release_below(&mut self, lsn: Lsn) {
        self.release = self.release.max(lsn);
    }

    /// The first file that holds anything needed, as far as it may be said aloud.
    fn needed_file(&self) -> u64 {
        self.ring.file_of(self.release).min(self.complete_file)
    }

    /// Whether files are free that no flush has yet said to be.
    pub(super) fn is_due(&self) -> bool {
        self.needed_file() > self.claimed_file
    }

    /// What the flush at `lsn`, being sealed, says: the files before its own that are needed.
    pub(super) fn claim(&mut self, lsn: Lsn) -> u8 {
        self.claimed_file = self.claimed_file.max(self.needed_file());
        let file = self.ring.file_of(lsn);
        let kept = file
            .checked_sub(self.claimed_file)
            .expect("no claim on the future");
        assert!(
            kept < u64::from(self.ring.file_count),
            "what is needed is still there"
        );
        let last = self
            .claims
            .back()
            .map_or(self.granted_file, |(_, file)| *file);
        if self.claimed_file > last {
            self.claims.push_back((lsn, self.claimed_file));
        }
        kept as u8
    }

    /// The flush at `lsn`, being sealed, makes the state of all groups complete in its file, or
    /// repeats that it is.
    pub(super) fn complete(&mut self, lsn: Lsn) {
        let file = self.ring.file_of(lsn);
        let known = self
            .complete_pending
            .map_or(self.complete_file, |(_, file)| file);
        if file > known {
            self.complete_pending = Some((lsn, file));
        }
    }

    /// All below `durable` is durable.
    pub(super) fn settle(&mut self, durable: Lsn) {
        while self.claims.front().is_some_and(|(lsn, _)| *lsn < durable) {
            let (_, file) = self.claims.pop_front().expect("seen just now");
            assert!(file > self.granted_file, "claims only grow");
            self.granted_file = file;
        }
        if let Some((lsn, file)) = self.complete_pending
            && lsn < durable
        {
            self.complete_file = file;
            self.complete_pending = None;
        }
    }

    /// As `end`, were all said and durable that may be said by now.
    pub(super) fn end_due(&self) -> Lsn {
        let file = self.needed_file().max(self.granted_file);
        self.ring.start_of(file + u64::from(self.ring.file_count))
    }

    /// Where the next run goes when the last ended at `head`.
    pub(super) fn place(&self, head: Lsn) -> Option<Lsn> {
        run_place(&self.ring, head, self.granted_file)
    }

    /// Where the ring is full, as of now: the start of the first file that may not be entered.
    pub(super) fn end(&self) -> Lsn {
        self.ring
            .start_of(self.granted_file + u64::from(self.ring.file_count))
    }
}
