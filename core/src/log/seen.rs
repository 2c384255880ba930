//! Every flush header that lies in the part of the ring which a walk has not read: the witnesses of
//! what was promised, and where a walk may go on behind what is lost.
//!
//! Keeps headers by lsn. Knows no items. Headers count even if their items are torn: what a header
//! says was true when it was sealed.

use std::collections::BTreeMap;

use super::flush::FlushHeader;
use super::ring::Ring;
use crate::id::Lsn;

/// The headers, each in its place.
#[derive(Debug)]
pub(super) struct Seen {
    ring: Ring,
    headers: BTreeMap<Lsn, FlushHeader>,
    /// Highest life that any header names, of older rounds of the ring, too.
    life: u64,
}

/// What the headers behind a place say.
#[derive(Clone, Copy, Debug)]
pub(super) struct Witness {
    pub(super) durable_through: Lsn,
    pub(super) needed_file: u64,
    /// Any header at all that belongs at or behind the place.
    pub(super) is_seen: bool,
}

impl Seen {
    pub(super) fn new(ring: Ring) -> Self {
        Self {
            ring,
            headers: BTreeMap::new(),
            life: 0,
        }
    }

    pub(super) fn push(&mut self, header: FlushHeader) {
        self.life = self.life.max(header.life);
        self.headers.insert(header.lsn, header);
    }

    pub(super) fn life(&self) -> u64 {
        self.life
    }

    pub(super) fn witness(&self, at: Lsn) -> Witness {
        let mut witness = Witness {
            durable_through: Lsn(0),
            needed_file: 0,
            is_seen: false,
        };
        for header in self.headers.range(at..).map(|(_, header)| header) {
            witness.is_seen = true;
            witness.durable_through = witness.durable_through.max(header.durable_through);
            // The latest word: a life that lost a checkpoint may need again what was free before.
            witness.needed_file = needed_file(&self.ring, header);
        }
        witness
    }

    /// The first header at or behind `at` that may continue `last`, with something lost between:
    /// lives only grow along a journal, and within one the sequences do.
    pub(super) fn next(&self, at: Lsn, last: Option<&FlushHeader>) -> Option<&FlushHeader> {
        let is_later = |header: &&FlushHeader| {
            last.is_none_or(|last| (header.life, header.sequence) > (last.life, last.sequence))
        };
        self.headers
            .range(at..)
            .map(|(_, header)| header)
            .find(is_later)
    }
}

/// The first file needed when this flush was sealed.
pub(super) fn needed_file(ring: &Ring, header: &FlushHeader) -> u64 {
    ring.file_of(header.lsn)
        .saturating_sub(u64::from(header.files_kept))
}
