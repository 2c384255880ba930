//! When the persist record is written: off every path, once the journal has been quiet for a while,
//! and before a node that was asked to stop is gone.
//!
//! Keeps what the record says, and what is on its way. Knows no journal: it is told how far that is
//! durable.

use bytes::{BufMut, Bytes};

use crate::bugs::{self, Switch};
use crate::id::{Lsn, Nanos};
use crate::limits::SECTOR_SIZE;
use crate::log::arena::Arenas;
use crate::log::persist::PersistRecord;

/// So long nothing became durable before the record says how far all is. Under load the next flush
/// says it, so that the disk has nothing else to do then.
const QUIET_SPAN: Nanos = Nanos::from_millis(10);

/// The record, and how far it is on disk.
#[derive(Debug)]
pub(super) struct Persisting {
    node_tag: u32,
    life: u64,
    /// What the newer sector says, and which that is.
    stored: Lsn,
    sector: usize,
    writing: Option<Lsn>,
    /// How far the journal is durable, and since when.
    durable: Lsn,
    quiet_since: Nanos,
    /// To be said at once.
    wanted: Option<Lsn>,
    memory: Arenas,
}

impl Persisting {
    /// `found` is what the file says, and in which sector.
    pub(super) fn open(
        now: Nanos,
        found: Option<(PersistRecord, usize)>,
        node_tag: u32,
        life: u64,
    ) -> Self {
        let (record, sector) = found.unwrap_or((PersistRecord::default(), 1));
        Self {
            node_tag,
            life,
            stored: record.durable_through,
            sector,
            writing: None,
            durable: record.durable_through,
            quiet_since: now,
            wanted: None,
            memory: Arenas::new(SECTOR_SIZE, 2),
        }
    }

    /// The journal is durable up to here.
    pub(super) fn on_durable(&mut self, now: Nanos, durable: Lsn) {
        if durable > self.durable {
            (self.durable, self.quiet_since) = (durable, now);
        }
    }

    /// The record is to say at once what it can say now.
    pub(super) fn hurry(&mut self) {
        self.wanted.get_or_insert(self.durable);
    }

    /// Whether it says all that it was to say at once.
    pub(super) fn is_settled(&self) -> bool {
        self.wanted.is_none_or(|wanted| self.stored >= wanted)
    }

    /// When a write may be due.
    pub(super) fn deadline(&self) -> Option<Nanos> {
        let is_due = self.writing.is_none() && self.durable > self.stored;
        is_due.then(|| self.quiet_since.after(QUIET_SPAN))
    }

    /// A write that may leave now: byte position and sector.
    pub(super) fn next_write(&mut self, now: Nanos) -> Option<(u64, Bytes)> {
        let due = self.deadline()?;
        if now < due && self.is_settled() || !self.memory.make_room(SECTOR_SIZE) {
            return None;
        }
        let ahead = if bugs::is_on(Switch::B34) {
            SECTOR_SIZE as u64
        } else {
            0
        };
        let record = PersistRecord {
            durable_through: Lsn(self.durable.0 + ahead),
            life: self.life,
        };
        let bytes = record.encode(self.node_tag);
        self.memory.current().put_slice(&bytes);
        self.writing = Some(self.durable);
        let position = (1 - self.sector) * SECTOR_SIZE;
        Some((position as u64, self.memory.cut().freeze()))
    }

    /// The write under way is durable.
    pub(super) fn on_stored(&mut self) {
        self.stored = self.writing.take().expect("a write is under way");
        self.sector = 1 - self.sector;
    }
}
