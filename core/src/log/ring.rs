//! The journal's shape on disk: how an endless row of bytes lies in a ring of equal files.
//!
//! Pure arithmetic; knows no run and no content.
//!
//! ```text
//!  lsn   0 ........ F ........ 2F ....... 3F ....... 4F ....... 5F
//!  file  |    0     |    1     |    2     |    3     |    4     |
//!  slot  |    0     |    1     |    2     |    3     |    0     |   (with 4 slots)
//!
//!  in a file:  | run | run | run | ...            | run | end |
//!                                      less than run_size + end_size left: the next run is
//!                                      in the next file; the end takes only empty flushes
//! ```

use super::checkpoint::CHECKPOINT_SIZE_MAX;
use super::fields::round_up;
use crate::id::Lsn;
use crate::limits::{
    GROUP_COUNT_MAX, JOURNAL_FILE_COUNT, JOURNAL_FILE_SIZE, RUN_SIZE_MAX, SECTOR_SIZE,
    UNDECIDED_SIZE_MAX,
};

/// [`Ring::undecided_size_max`] of the standard ring.
const UNDECIDED_SHARD_SIZE_MAX: u64 = JOURNAL_FILE_SIZE * (JOURNAL_FILE_COUNT as u64 - 2);

/// Sizes of a journal's ring. Fixed when its files are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ring {
    /// Bytes of each file; a power of two, at least eight runs.
    pub file_size: u64,
    /// Files; at least 3.
    pub file_count: u32,
    /// Largest run in bytes; a multiple of the sector, at most [`RUN_SIZE_MAX`].
    pub run_size: usize,
}

impl Ring {
    /// What a node uses. Smaller rings are for tests and simulation.
    pub const STANDARD: Self = Self {
        file_size: JOURNAL_FILE_SIZE,
        file_count: JOURNAL_FILE_COUNT,
        run_size: RUN_SIZE_MAX,
    };

    /// Asserts that the sizes fit together.
    pub fn assert_sound(&self) {
        assert!(
            self.file_size.is_power_of_two(),
            "positions are cut from lsns by division"
        );
        assert!(
            self.file_size >= 8 * self.run_size as u64,
            "a skipped end must not be most of it"
        );
        assert!(
            (3..=255).contains(&self.file_count),
            "old, current and next; counted in a byte"
        );
        assert!(
            self.run_size.is_multiple_of(SECTOR_SIZE),
            "runs are whole sectors"
        );
        let run_size_min = CHECKPOINT_SIZE_MAX + 4 * SECTOR_SIZE;
        assert!(
            (run_size_min..=RUN_SIZE_MAX).contains(&self.run_size),
            "a run takes any state"
        );
    }

    /// Number of the file that holds `lsn`, from 0 without end.
    #[must_use]
    pub fn file_of(&self, lsn: Lsn) -> u64 {
        lsn.0 / self.file_size
    }

    /// Where file number `file` begins.
    #[must_use]
    pub fn start_of(&self, file: u64) -> Lsn {
        Lsn(file * self.file_size)
    }

    /// The slot that holds file number `file`.
    #[must_use]
    pub fn slot_of(&self, file: u64) -> u32 {
        (file % u64::from(self.file_count)) as u32
    }

    /// Slot and byte position in it of `lsn`: where a reader finds what was written there.
    #[must_use]
    pub fn locate(&self, lsn: Lsn) -> (u32, u64) {
        (self.slot_of(self.file_of(lsn)), lsn.0 % self.file_size)
    }

    /// Bytes from `lsn` to the end of its file; the whole file if `lsn` is its start.
    #[must_use]
    pub(super) fn left_in_file(&self, lsn: Lsn) -> u64 {
        self.file_size - lsn.0 % self.file_size
    }

    /// Whether a run may begin at `lsn`, or must go to the next file's start.
    #[must_use]
    pub(super) fn takes_run(&self, lsn: Lsn) -> bool {
        self.left_in_file(lsn) >= self.run_size as u64 + self.end_size()
    }

    /// Bytes at a file's end kept for empty flushes: those that give a file free or open a life
    /// must find a place even when the next file may not be entered yet.
    #[must_use]
    fn end_size(&self) -> u64 {
        round_up(self.run_size / 32, SECTOR_SIZE).max(4 * SECTOR_SIZE) as u64
    }

    /// Bytes before the ring's end that are not for this use. What leaders take, here or elsewhere,
    /// leaves a whole file: so all that the oldest one may hold can be put again.
    #[must_use]
    pub(super) fn reserve_size(&self, room: Room) -> u64 {
        // No run begins where the largest one might not fit.
        let unused = self.run_size as u64 + self.end_size();
        let part = self.file_size / 16;
        match room {
            Room::Blocks => self.file_size + unused + 4 * part,
            Room::Copies => self.file_size + unused + 2 * part,
            Room::Votes => unused + part,
        }
    }

    /// Whether a journal that ends at `head` and keeps all from `file` on takes new blocks.
    #[must_use]
    pub(super) fn has_room_kept_from(&self, file: u64, head: Lsn) -> bool {
        let end = self.start_of(file + u64::from(self.file_count));
        end.0.saturating_sub(head.0) >= self.reserve_size(Room::Blocks)
    }

    /// How much must leave the oldest file when so many bytes are left before the ring's end.
    #[must_use]
    pub(super) fn strain(&self, left: u64) -> Strain {
        let part = self.file_size / 16;
        if left < self.file_size + self.reserve_size(Room::Votes) + part {
            Strain::All
        } else if left < self.reserve_size(Room::Blocks) + 2 * part {
            Strain::Undecided
        } else {
            Strain::None
        }
    }

    /// Bytes of undecided blocks, of all groups together, with which a leader takes no more: the ring
    /// without its newest file, and the one that is being emptied. So putting them again makes more
    /// room than it takes.
    #[must_use]
    pub fn undecided_size_max(&self) -> u64 {
        self.file_size * u64::from(self.file_count - 2)
    }
}

/// What must be put again, so that the oldest file of the ring can be given free.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Strain {
    /// Nothing.
    None,
    /// What is not decided: nobody knows when it will be. Decided blocks go to segments.
    Undecided,
    /// Decided blocks, too: segments do not take them.
    All,
}

/// Who may go how near to the ring's end. What can make the ring free again goes the deeper the
/// nearer it is to that; checkpoints, which do it, go to the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Room {
    /// New blocks of a leader.
    Blocks,
    /// Blocks of another leader. It has taken them, and is not free before they are decided.
    Copies,
    /// Votes, what is put again to free the oldest file, and no-ops: after a restart nothing is
    /// known to be committed before a leader has committed its first block.
    Votes,
}

const _: () = assert!(JOURNAL_FILE_SIZE / 4 >= 4 * RUN_SIZE_MAX as u64);
// One stuck group must leave the others most of what may be undecided; and were all groups stuck at
// once, each would still have had its part.
const _: () = assert!(4 * UNDECIDED_SIZE_MAX <= UNDECIDED_SHARD_SIZE_MAX);
const _: () = assert!(UNDECIDED_SHARD_SIZE_MAX / (GROUP_COUNT_MAX as u64 + 1) >= 64 << 10);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_lsn_lies_in_its_file_and_slot() {
        let ring = Ring {
            file_size: 1 << 20,
            file_count: 3,
            run_size: 64 << 10,
        };
        ring.assert_sound();
        Ring::STANDARD.assert_sound();
        assert_eq!(ring.locate(Lsn(0)), (0, 0));
        assert_eq!(ring.locate(Lsn((7 << 20) + 4096)), (1, 4096));
        assert_eq!(ring.file_of(ring.start_of(7)), 7);
        assert_eq!(ring.left_in_file(ring.start_of(7)), 1 << 20);
        assert!(ring.takes_run(ring.start_of(8)));
        assert!(!ring.takes_run(Lsn((8 << 20) - 4096)));
    }
}
