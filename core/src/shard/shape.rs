//! How large the parts of a shard are: its journal, its memory, its segments, its reads.
//!
//! A node has the one standard shape, made of `limits`. The simulator's are small, so that in a
//! short run rings go round, caches lose what they held and segments are closed.

use crate::limits::{
    ARENA_COUNT_MAX, ARENA_SIZE, BLOCK_SIZE_MAX, CARRY_DECIDED_PART, CATCH_UP_SIZE, SECTOR_SIZE,
    SEGMENT_SIZE_MAX, SEGMENT_WRITE_SIZE, SEGMENT_WRITE_SIZE_MIN,
};
use crate::log::ring::Ring;
use crate::log::segment::SEGMENT_HEAD_SIZE_MAX;
use crate::raft::Bounds;

/// Sizes of a shard, in bytes where nothing else is said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// What the journal's files were made with.
    pub ring: Ring,
    /// One of the journal's memories.
    pub arena_size: usize,
    /// How many of them.
    pub arena_count: usize,
    /// Committed blocks of a log that make a segment write.
    pub segment_write_size: usize,
    /// A segment is closed rather than grow beyond this.
    pub segment_size_max: u64,
    /// Read from a segment at a time; whole sectors.
    pub segment_read_size: usize,
    /// Of one chunk for a peer that catches up.
    pub catch_up_size: usize,
    /// What one group may keep.
    pub bounds: Bounds,
}

impl Shape {
    /// What a node uses.
    pub const STANDARD: Self = Self {
        ring: Ring::STANDARD,
        arena_size: ARENA_SIZE,
        arena_count: ARENA_COUNT_MAX,
        segment_write_size: SEGMENT_WRITE_SIZE,
        segment_size_max: SEGMENT_SIZE_MAX,
        segment_read_size: (BLOCK_SIZE_MAX + 2 * SECTOR_SIZE - 1) & !(SECTOR_SIZE - 1),
        catch_up_size: CATCH_UP_SIZE,
        bounds: Bounds::STANDARD,
    };

    /// For runs that are short: its ring goes round, its segments are closed and its memory is full
    /// soon. Tests change of it what they are about.
    #[cfg(feature = "sim")]
    pub const SMALL: Self = Self {
        ring: Ring {
            file_size: 512 << 10,
            file_count: 3,
            run_size: 64 << 10,
        },
        arena_size: 256 << 10,
        arena_count: 4,
        segment_write_size: 32 << 10,
        segment_size_max: 96 << 10,
        segment_read_size: 128 << 10,
        catch_up_size: 64 << 10,
        bounds: Bounds {
            tail_keep_count: 10,
            undecided_size_full: 256 << 10,
        },
    };

    /// What decided blocks of a log must come to, or they are put again rather than written.
    pub(super) fn segment_write_size_min(&self) -> u64 {
        let part = SEGMENT_WRITE_SIZE / SEGMENT_WRITE_SIZE_MIN;
        (self.segment_write_size / part) as u64
    }

    /// Bytes of such blocks, of all logs.
    pub(super) fn carried_size_max(&self) -> u64 {
        self.ring.file_size * u64::from(self.ring.file_count) / CARRY_DECIDED_PART
    }

    /// One segment write with its head and padding. What is less than half a write is gathered
    /// on, and the block that then comes may be the largest.
    pub(super) fn segment_memory_size(&self) -> usize {
        let gathered = self
            .segment_write_size
            .max(self.segment_write_size / 2 + self.block_size_max());
        (gathered + SEGMENT_HEAD_SIZE_MAX + SECTOR_SIZE).next_multiple_of(SECTOR_SIZE)
    }

    /// No block is larger than a run, nor than the limit.
    fn block_size_max(&self) -> usize {
        self.ring.run_size.min(BLOCK_SIZE_MAX)
    }

    pub(super) fn assert_sound(&self) {
        self.ring.assert_sound();
        assert!(
            self.arena_size >= 4 * self.ring.run_size,
            "cutting runs must not waste most of an arena"
        );
        assert!(
            self.segment_read_size >= self.block_size_max() + SECTOR_SIZE
                && self.segment_read_size.is_multiple_of(SECTOR_SIZE),
            "a block must be whole in one read, wherever it begins"
        );
        assert!(
            self.segment_size_max <= SEGMENT_SIZE_MAX,
            "a footer names places in so much"
        );
    }
}
