//! Whether all that a shard keeps is within its bounds: what the simulator asks again and again.
//!
//! Knows the limits, not who keeps them.

use super::Shard;
use super::ahead::Ahead;
use crate::limits::{
    AHEAD_STREAM_COUNT_MAX, BLOCK_SIZE_MAX, FETCH_TURN_SIZE_MAX, FETCH_WAITING_MAX, LOAD_COUNT_MAX,
    READ_PENDING_MAX,
};

impl Shard {
    /// Whether the journal takes no block now but such as may use its reserve.
    pub(crate) fn is_journal_full(&self) -> bool {
        self.journal.pressure().size_free == 0
    }

    /// The first offset that a replica serves.
    pub(crate) fn start_of(&self, position: usize) -> u64 {
        self.groups[position].trims.start().0
    }

    /// Panics if anything has outgrown its bound.
    pub(crate) fn assert_bounded(&self) {
        // Clients' reads stop at the bound; each peer and each segment may have one of its own, and so
        // have the scrub and the mend under way, and each that is read ahead for.
        let own = self.groups.len() * (self.peers.len() + 1) + 2 + AHEAD_STREAM_COUNT_MAX;
        assert!(
            self.loads.len() <= LOAD_COUNT_MAX + own,
            "reads outgrow their bound"
        );
        assert!(
            self.fetched_size <= FETCH_TURN_SIZE_MAX + BLOCK_SIZE_MAX,
            "answers to readers outgrow their bound"
        );
        assert!(
            self.ahead.size() <= Ahead::PIECE_COUNT_MAX * self.shape.segment_read_size,
            "what is read ahead outgrows its bound"
        );
        for group in &self.groups {
            assert!(
                group.waiting.len() <= FETCH_WAITING_MAX,
                "waiting fetches outgrow their bound"
            );
            assert!(
                group.reading.len() <= READ_PENDING_MAX,
                "linearizable fetches outgrow their bound"
            );
        }
    }
}
