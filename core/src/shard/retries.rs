//! Retries of appends that are in a log already and not committed yet: answered when they are.
//!
//! A client may ask for the same append as often as it likes, so there is a bound; who comes beyond
//! it asks again later.

use crate::id::{ConnectionId, Index};
use crate::limits::RETRY_COUNT_MAX;

use super::group::Ack;

/// Those of one log, in the order they came.
#[derive(Debug, Default)]
pub(super) struct Retries {
    list: Vec<Ack>,
}

impl Retries {
    /// Keeps a retry to be answered, or says that there are too many.
    pub(super) fn push(&mut self, ack: Ack) -> bool {
        let has_room = self.list.len() < RETRY_COUNT_MAX;
        if has_room {
            self.list.push(ack);
        }
        has_room
    }

    pub(super) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Everything through `index` is committed.
    pub(super) fn take_through(&mut self, index: Index) -> Vec<Ack> {
        self.list.extract_if(.., |ack| ack.index <= index).collect()
    }

    pub(super) fn take_all(&mut self) -> Vec<Ack> {
        std::mem::take(&mut self.list)
    }

    pub(super) fn forget_connection(&mut self, connection: ConnectionId) {
        self.list.retain(|ack| ack.connection != connection);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ack(index: u64, connection: u64) -> Ack {
        Ack {
            index: Index(index),
            connection: ConnectionId(connection),
            ..Ack::default()
        }
    }

    #[test]
    fn retries_are_bounded_and_room_comes_back() {
        let mut retries = Retries::default();
        for number in 0..RETRY_COUNT_MAX as u64 {
            assert!(retries.push(ack(number % 8, number % 2)));
        }
        assert!(!retries.push(ack(1, 1)));
        retries.forget_connection(ConnectionId(1));
        assert!(retries.push(ack(9, 3)));
        let taken = retries.take_through(Index(8));
        assert_eq!(taken.len(), RETRY_COUNT_MAX / 2);
        assert!(taken.iter().all(|ack| ack.connection == ConnectionId(0)));
        assert_eq!(retries.take_all().len(), 1);
        assert!(retries.is_empty());
    }
}
