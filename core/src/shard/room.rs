//! Whose turn it is when a journal that was full has room again.
//!
//! Room comes in pieces, and whoever happens to send next would take each of them whole: a log that
//! sends all the time, and not the one that was turned away and tries again after a pause. So who was
//! turned away keeps a run's room of what comes free, in the order in which that happened, for as long
//! as its leader goes on asking. Knows no journal and no block.

use crate::id::Nanos;

/// A group whose blocks found no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Waiting {
    position: usize,
    /// Its leader has not asked again since; whoever does not, by then, does not wait any more.
    until: Nanos,
}

/// The groups that wait for room, those first that were turned away first. Each is there once.
#[derive(Debug, Default)]
pub(super) struct RoomQueue {
    waiting: Vec<Waiting>,
}

impl RoomQueue {
    /// How many groups come before this one: each is to be left a run's room.
    pub(super) fn ahead_of(&self, now: Nanos, position: usize) -> usize {
        let before = self.waiting.iter();
        before
            .take_while(|waiting| waiting.position != position)
            .filter(|waiting| now < waiting.until)
            .count()
    }

    /// Blocks of this group found no room; if some did, it has had its turn. Its leader is to ask again
    /// until then.
    pub(super) fn turned_away(
        &mut self,
        now: Nanos,
        position: usize,
        has_some: bool,
        until: Nanos,
    ) {
        self.waiting.retain(|waiting| now < waiting.until);
        if has_some {
            self.served(position);
        }
        let mut waiting = self.waiting.iter_mut();
        match waiting.find(|waiting| waiting.position == position) {
            Some(waiting) => waiting.until = until,
            None => self.waiting.push(Waiting { position, until }),
        }
    }

    /// All blocks that came for this group found room.
    pub(super) fn served(&mut self, position: usize) {
        self.waiting.retain(|waiting| waiting.position != position);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UNTIL: Nanos = Nanos(100);

    #[test]
    fn who_was_turned_away_first_comes_first() {
        let mut queue = RoomQueue::default();
        queue.turned_away(Nanos(1), 7, false, UNTIL);
        queue.turned_away(Nanos(2), 3, false, UNTIL);
        queue.turned_away(Nanos(3), 7, false, UNTIL);
        let ahead = |queue: &RoomQueue| [7, 3, 5].map(|at| queue.ahead_of(Nanos(4), at));
        assert_eq!(ahead(&queue), [0, 1, 2], "the first yields to nobody");
        // It had some of what it wanted: the other one's turn.
        queue.turned_away(Nanos(4), 7, true, UNTIL);
        assert_eq!(ahead(&queue), [1, 0, 2]);
        queue.served(3);
        assert_eq!(ahead(&queue), [0, 1, 1]);
    }

    #[test]
    fn who_asks_no_more_is_not_waited_for() {
        let mut queue = RoomQueue::default();
        queue.turned_away(Nanos(1), 7, false, UNTIL);
        queue.turned_away(Nanos(2), 3, false, Nanos(200));
        assert_eq!(queue.ahead_of(Nanos(99), 5), 2);
        assert_eq!(queue.ahead_of(UNTIL, 5), 1);
        queue.turned_away(UNTIL, 5, false, Nanos(300));
        assert_eq!(queue.waiting.len(), 2, "nothing is kept for good");
    }
}
