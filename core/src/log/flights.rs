//! Writes on their way to disk, and how far the journal is durable.
//!
//! Writes complete in any order, and recovery reads the journal as a chain: so only the prefix that
//! is complete counts. Knows no bytes.

use std::collections::VecDeque;

use super::journal::WriteId;
use crate::bugs::{self, Switch};
use crate::id::Lsn;
use crate::limits::JOURNAL_WRITES_MAX;

#[derive(Debug)]
struct Flight {
    write: WriteId,
    /// Where its last run ends.
    end: Lsn,
    done: bool,
}

#[derive(Debug)]
pub(super) struct Flights {
    /// In the order of their ends; the first is not done.
    list: VecDeque<Flight>,
    next_write: u64,
    durable: Lsn,
    /// Whether any write of this life is durable. The first is the flush that opens it, alone:
    /// recovery relies on that to tell lives apart.
    opened: bool,
}

impl Flights {
    /// None in flight, and everything below `durable` done.
    pub(super) fn new(durable: Lsn) -> Self {
        Self {
            list: VecDeque::new(),
            next_write: 1,
            durable,
            opened: false,
        }
    }

    pub(super) fn is_any(&self) -> bool {
        !self.list.is_empty()
    }

    pub(super) fn may_leave(&self) -> bool {
        let in_flight = self.list.iter().filter(|flight| !flight.done).count();
        in_flight < if self.opened { JOURNAL_WRITES_MAX } else { 1 }
    }

    /// A write leaves whose last run ends at `end`.
    pub(super) fn leave(&mut self, end: Lsn) -> WriteId {
        assert!(self.may_leave(), "the caller asked");
        assert!(
            self.list.back().is_none_or(|last| last.end < end),
            "writes leave in order"
        );
        let write = WriteId(self.next_write);
        self.next_write += 1;
        self.list.push_back(Flight {
            write,
            end,
            done: false,
        });
        write
    }

    /// A write is on stable storage.
    pub(super) fn stored(&mut self, write: WriteId) {
        let first = self.list.front().map(|flight| flight.write);
        let in_order = bugs::is_on(Switch::B60);
        let is_it = |flight: &&mut Flight| match in_order {
            true => !flight.done,
            false => flight.write == write,
        };
        let flight = self.list.iter_mut().find(is_it);
        let flight = flight.expect("only writes in flight complete");
        assert!(!flight.done, "a write completes once");
        flight.done = first == Some(write) || !bugs::is_on(Switch::B32);
        while self.list.front().is_some_and(|flight| flight.done) {
            let flight = self.list.pop_front().expect("seen just now");
            assert!(flight.end > self.durable, "the durable prefix only grows");
            self.durable = flight.end;
            self.opened = true;
        }
    }

    /// End of the durable prefix.
    pub(super) fn durable(&self) -> Lsn {
        self.durable
    }

    pub(super) fn opened(&self) -> bool {
        self.opened
    }
}

const _: () = assert!(JOURNAL_WRITES_MAX > 0);
