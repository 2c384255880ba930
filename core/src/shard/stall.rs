//! How long this node's journal writes take, and what a leader does whose disk stands still while
//! the others' do not: it hands over, and if nobody takes over within T it leads no more.
//!
//! Decides by evidence only, so that nothing moves when all disks are as slow:
//!
//! ```text
//!   the oldest write is under way for      and a quorum of others says that none of its writes took
//!                                          a quarter as long lately, and
//!   T/2   blocks are decided without it ─▶ it is outpaced. Where nothing is appended, a no-op asks
//!                                          the others' disks
//!   T     it is outpaced ────────────────▶ declared: every log led here goes to the best of those
//!   T more ──────────────────────────────▶ what is still led here is led no more
//! ```
//!
//! The others' word is up to two windows old, so a node that stalled a moment ago itself is nobody's
//! choice. While the declared write lasts this node does not stand for election: its vote for itself
//! could not become durable. Knows no log's content.

use std::collections::VecDeque;

use crate::id::{Index, Nanos, NodeId};
use crate::log::journal::WriteId;

use super::{Effects, Shard};

/// A write's time counts for one to two of these, as every measurement of links does.
const WINDOW: Nanos = Nanos::from_millis(10_000);

/// After a declared stall there is no other for so long. A disk that stalls again and again is one
/// that its node should not lead with: by then another leads, and is not asked to give it back.
const PAUSE: Nanos = WINDOW;

/// How many times longer than the others' slowest write one must take to be a stall. Below that, a
/// leader would move from one slow disk to the next.
pub(super) const STALL_FACTOR: u64 = 4;

/// A stall that lasts so long is told to people, whoever leads.
const ALARM_AFTER: Nanos = Nanos::from_millis(1_000);

/// This node's journal writes, by time.
#[derive(Debug)]
pub(super) struct Writes {
    /// Those under way, the oldest first, and when each left.
    under_way: VecDeque<(WriteId, Nanos)>,
    /// The longest of this window, and of the one before.
    current: Nanos,
    previous: Nanos,
    rotate_at: Nanos,
}

impl Writes {
    fn new(now: Nanos) -> Self {
        Self {
            under_way: VecDeque::new(),
            current: Nanos(0),
            previous: Nanos(0),
            rotate_at: now.after(WINDOW),
        }
    }

    pub(super) fn leave(&mut self, now: Nanos, write: WriteId) {
        self.under_way.push_back((write, now));
    }

    /// A write is done. The loop looks `late` after it had meant to: that much of the time may have
    /// been its own, not the disk's.
    pub(super) fn stored(&mut self, now: Nanos, late: Nanos, write: WriteId) {
        let position = self.under_way.iter().position(|(id, _)| *id == write);
        let position = position.expect("only writes under way complete");
        let (_, left_at) = self.under_way.remove(position).expect("seen just now");
        let span = Nanos(now.since(left_at).0.saturating_sub(late.0));
        self.current = self.current.max(span);
    }

    fn rotate(&mut self, now: Nanos) {
        if now >= self.rotate_at {
            self.rotate_at = now.after(WINDOW);
            self.previous = std::mem::take(&mut self.current);
        }
    }

    fn oldest(&self) -> Option<(WriteId, Nanos)> {
        self.under_way.front().copied()
    }

    /// How long the oldest has been under way; 0 if none is.
    pub(super) fn age(&self, now: Nanos) -> Nanos {
        self.oldest()
            .map_or(Nanos(0), |(_, left_at)| now.since(left_at))
    }

    /// The longest that a write took lately, those under way included.
    pub(super) fn span(&self, now: Nanos) -> Nanos {
        self.current.max(self.previous).max(self.age(now))
    }
}

/// How far the answer to one write that does not end has come.
#[derive(Debug)]
pub(super) struct Stall {
    pub(super) writes: Writes,
    /// The write that blocks were decided without, when it had been under way for half of T.
    outpaced: Option<WriteId>,
    /// The write for which a no-op asked the others' disks.
    asked: Option<WriteId>,
    /// The write for which leadership is handed over, and since when.
    declared: Option<(WriteId, Nanos)>,
    pause_until: Nanos,
    /// Stalls declared since the start.
    pub(super) declared_count: u64,
}

impl Stall {
    pub(super) fn new(now: Nanos) -> Self {
        Self {
            writes: Writes::new(now),
            outpaced: None,
            asked: None,
            declared: None,
            pause_until: now,
            declared_count: 0,
        }
    }

    /// Whether leadership was given up for a write that is still under way.
    pub(super) fn is_declared(&self) -> bool {
        let declared = self.declared.map(|(write, _)| write);
        declared.is_some() && declared == self.writes.oldest().map(|(write, _)| write)
    }

    /// What people should know, if anything.
    pub(super) fn alarm(&self, now: Nanos) -> Option<String> {
        let age = self.writes.age(now);
        if age < ALARM_AFTER && !self.is_declared() {
            return None;
        }
        let seconds = age.0 / 1_000_000_000;
        let tenths = age.0 / 100_000_000 % 10;
        let led = match self.is_declared() {
            true => "; leadership was handed over",
            false => "",
        };
        Some(format!(
            "disk stalls: a journal write has been under way for {seconds}.{tenths} s{led}"
        ))
    }
}

impl Shard {
    /// Blocks of a log led here are decided through `index`, perhaps without this node's disk.
    pub(super) fn note_outpaced(&mut self, now: Nanos, position: usize, index: Index) {
        let raft = &self.groups[position].raft;
        let is_half_over = self.stall.writes.age(now).0 >= self.liveness.timeouts().election.0 / 2;
        if raft.is_leader() && index > raft.durable() && is_half_over {
            self.stall.outpaced = self.stall.writes.oldest().map(|(write, _)| write);
        }
    }

    /// Looks at the oldest write under way, and does what its age and the others' disks ask for.
    pub(super) fn advance_stall(&mut self, now: Nanos, effects: &mut Effects) {
        self.stall.writes.rotate(now);
        let Some((write, left_at)) = self.stall.writes.oldest() else {
            return;
        };
        let (age, timeout) = (now.since(left_at), self.liveness.timeouts().election);
        if age.0 < timeout.0 / 2 || !self.groups.iter().any(|group| group.raft.is_leader()) {
            return;
        }
        if let Some((declared, since)) = self.stall.declared
            && declared == write
        {
            if now.since(since) >= timeout && self.is_alone_slow(now, age) {
                self.resign_all(now, effects);
            }
            return;
        }
        if now < self.stall.pause_until || !self.is_alone_slow(now, age) {
            return;
        }
        if self.stall.outpaced != Some(write) {
            self.ask_disks(write);
            return;
        }
        if age < timeout {
            return;
        }
        self.stall.declared = Some((write, now));
        self.stall.declared_count += 1;
        self.stall.pause_until = now.after(PAUSE);
        for position in 0..self.groups.len() {
            if let Some(to) = self.quick_successor(now, position, age) {
                self.tell_raft(now, position, effects, |raft, out| {
                    // It may be handed over already, at somebody's wish.
                    let _ = raft.transfer(now, to, out);
                });
            }
        }
    }

    /// Puts a block that says nothing into one of the logs led here: where nothing is appended,
    /// nobody's disk has anything to do, and none proves to be quicker. Once for a write.
    fn ask_disks(&mut self, write: WriteId) {
        if self.stall.asked == Some(write) {
            return;
        }
        let may_propose = |position: &usize| {
            let raft = &self.groups[*position].raft;
            raft.can_propose() == Ok(()) && raft.tail().last_term() == raft.term()
        };
        if let Some(position) = (0..self.groups.len()).find(may_propose) {
            self.stall.asked = Some(write);
            self.put_no_op(position);
        }
    }

    /// Whether the others are a quorum without this node, all of them with quick disks: they could
    /// elect one of them, and decide.
    fn is_alone_slow(&self, now: Nanos, age: Nanos) -> bool {
        let quick = self.peers.iter();
        let quick = quick.filter(|peer| self.liveness.is_quick(now, **peer, age));
        quick.count() > self.config.voters.len() / 2
    }

    /// Whoever of them has most of a log led here.
    fn quick_successor(&self, now: Nanos, position: usize, age: Nanos) -> Option<NodeId> {
        let raft = &self.groups[position].raft;
        if !raft.is_leader() {
            return None;
        }
        let quick = self.peers.iter().copied();
        let quick = quick.filter(|peer| self.liveness.is_quick(now, *peer, age));
        quick.max_by_key(|peer| raft.progress(*peer).map(|progress| progress.matched()))
    }

    /// Nobody took over in time. Who stays to lead with a disk that stands still keeps the others
    /// from electing one of them.
    fn resign_all(&mut self, now: Nanos, effects: &mut Effects) {
        for position in 0..self.groups.len() {
            if self.groups[position].raft.is_leader() {
                self.tell_raft(now, position, effects, |raft, out| raft.resign(now, out));
            }
        }
    }
}

const _: () = assert!(STALL_FACTOR > 1);

#[cfg(test)]
mod tests {
    use super::*;

    const MS: fn(u64) -> Nanos = Nanos::from_millis;

    #[test]
    fn the_oldest_write_has_the_age_and_all_count_for_the_span() {
        let mut writes = Writes::new(MS(0));
        assert_eq!((writes.age(MS(9)), writes.span(MS(9))), (MS(0), MS(0)));
        writes.leave(MS(10), WriteId(1));
        writes.leave(MS(12), WriteId(2));
        writes.stored(MS(15), MS(0), WriteId(2));
        assert_eq!((writes.age(MS(20)), writes.span(MS(20))), (MS(10), MS(10)));
        writes.stored(MS(30), MS(0), WriteId(1));
        assert_eq!((writes.age(MS(40)), writes.span(MS(40))), (MS(0), MS(20)));
    }

    #[test]
    fn a_loop_that_stood_still_does_not_blame_its_disk() {
        let mut writes = Writes::new(MS(0));
        writes.leave(MS(10), WriteId(1));
        writes.stored(MS(2_010), MS(1_990), WriteId(1));
        assert_eq!(writes.span(MS(2_010)), MS(10));
    }

    #[test]
    fn a_slow_write_is_forgotten_after_two_windows() {
        let mut writes = Writes::new(MS(0));
        writes.leave(MS(10), WriteId(1));
        writes.stored(MS(510), MS(0), WriteId(1));
        for (at, span) in [(9_999, 500), (10_000, 500), (19_000, 500), (20_000, 0)] {
            writes.rotate(MS(at));
            assert_eq!(writes.span(MS(at)), MS(span), "at {at} ms");
        }
    }

    #[test]
    fn a_declared_stall_ends_with_its_write() {
        let mut stall = Stall::new(MS(0));
        stall.writes.leave(MS(0), WriteId(1));
        stall.writes.leave(MS(1), WriteId(2));
        assert_eq!(stall.alarm(MS(900)), None);
        stall.declared = Some((WriteId(1), MS(100)));
        let alarm = stall.alarm(MS(1_250)).expect("it stalls");
        assert!(
            alarm.contains("1.2 s; leadership was handed over"),
            "{alarm}"
        );
        stall.writes.stored(MS(1_300), MS(0), WriteId(1));
        assert!(!stall.is_declared(), "the next write is another stall");
        assert_eq!(
            stall.alarm(MS(1_300)),
            Some("disk stalls: a journal write has been under way for 1.2 s".into())
        );
    }
}
