//! How long an accepted connection may take for what is due from it, by how far it has come.
//!
//! Keeps times and counts; knows no socket and no frame. Whoever sweeps asks.

use ringwood_core::frame::code::RefusedReason;
use ringwood_core::id::Nanos;

/// How often connections are asked whether something is overdue: none of the spans below is so
/// short that more would matter.
pub(crate) const SWEEP_INTERVAL: Nanos = Nanos::from_millis(250);

/// A sweep that is later than this comes after the loop stood still: it never sleeps so long.
const STALL: Nanos = Nanos::from_millis(500);

/// For the hello: a program that connects says it at once.
const HELLO: Nanos = Nanos::from_millis(2_000);

/// From a frame's first byte to its last: the largest, 2 MiB, at 200 KB/s.
const FRAME: Nanos = Nanos::from_millis(10_000);

/// For a client that asks nothing and waits for nothing. Longer than people pause, shorter than a
/// forgotten program lives. A reader at a log's end waits for an answer, and is not idle.
const IDLE: Nanos = Nanos::from_millis(600_000);

/// For what was queued for a connection to leave, once it is to be closed.
const CLOSING: Nanos = Nanos::from_millis(2_000);

/// How far a connection has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// It has not said who it is.
    Stranger,
    /// A client's.
    Client,
    /// A node's. It may be silent for as long as it likes: the kernel asks whether it is there.
    Peer,
    /// It was told why it is closed, or stands for a link that its peer has lost.
    Closing,
}

/// How long the loop stood still at most, if a sweep comes so much too late: from the sweep before on.
pub(crate) fn stall(late: Nanos) -> Option<Nanos> {
    (late >= STALL).then(|| late.after(SWEEP_INTERVAL))
}

/// What is to be done about a connection that took too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Overdue {
    /// Tell it why, and close it.
    Refuse(&'static str),
    /// End it: it does not even take what it is told.
    End,
}

impl Overdue {
    /// The reason that goes with the sentence.
    pub(crate) const REASON: RefusedReason = RefusedReason::TimedOut;
}

/// The times of one connection.
#[derive(Debug)]
pub(crate) struct Patience {
    phase: Phase,
    /// When the phase began.
    since: Nanos,
    /// When bytes came last.
    heard_at: Nanos,
    /// When the first byte of the frame came that is not whole yet.
    frame_since: Option<Nanos>,
    /// Frames that were not answered yet; each request of a client has one answer.
    owed: u32,
}

impl Patience {
    pub(crate) fn new(now: Nanos) -> Self {
        Self {
            phase: Phase::Stranger,
            since: now,
            heard_at: now,
            frame_since: None,
            owed: 0,
        }
    }

    pub(crate) fn phase(&self) -> Phase {
        self.phase
    }

    pub(crate) fn enter(&mut self, now: Nanos, phase: Phase) {
        assert!(self.phase != Phase::Closing, "nothing comes after closing");
        self.phase = phase;
        self.since = now;
    }

    /// Bytes came: `frame_count` frames are whole by now, and another has begun or not.
    pub(crate) fn on_received(&mut self, now: Nanos, frame_count: u32, is_within_frame: bool) {
        self.heard_at = now;
        self.owed = self.owed.saturating_add(frame_count);
        if !is_within_frame {
            self.frame_since = None;
        } else if frame_count > 0 || self.frame_since.is_none() {
            self.frame_since = Some(now);
        }
    }

    /// An answer is on its way.
    pub(crate) fn on_answered(&mut self, now: Nanos) {
        self.heard_at = now;
        self.owed = self.owed.saturating_sub(1);
    }

    /// The loop stood still for so long: nobody is charged for that.
    pub(crate) fn excuse(&mut self, now: Nanos, stall: Nanos) {
        let later = |moment: Nanos| moment.after(stall).min(now);
        self.since = later(self.since);
        self.heard_at = later(self.heard_at);
        self.frame_since = self.frame_since.map(later);
    }

    /// What took too long, if something did. `is_sending`: not all that was queued has left.
    pub(crate) fn overdue(&self, now: Nanos, is_sending: bool) -> Option<Overdue> {
        let is_late = |since: Nanos, span: Nanos| now.since(since) >= span;
        match self.phase {
            Phase::Closing => is_late(self.since, CLOSING).then_some(Overdue::End),
            Phase::Stranger => {
                is_late(self.since, HELLO).then_some(Overdue::Refuse("no hello came within 2 s"))
            }
            Phase::Client | Phase::Peer
                if self.frame_since.is_some_and(|since| is_late(since, FRAME)) =>
            {
                Some(Overdue::Refuse(
                    "a frame was begun and not whole after 10 s",
                ))
            }
            Phase::Client if self.owed == 0 && !is_sending && is_late(self.heard_at, IDLE) => {
                Some(Overdue::Refuse("nothing was asked for 10 minutes"))
            }
            Phase::Client | Phase::Peer => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEGIN: Nanos = Nanos::from_millis(5_000);

    fn at(phase: Phase) -> Patience {
        let mut patience = Patience::new(BEGIN);
        if phase != Phase::Stranger {
            patience.enter(BEGIN, phase);
        }
        patience
    }

    fn is_refused(patience: &Patience, now: Nanos) -> bool {
        matches!(patience.overdue(now, false), Some(Overdue::Refuse(_)))
    }

    #[test]
    fn a_stranger_has_two_seconds_however_much_it_sends() {
        let mut patience = at(Phase::Stranger);
        for second in 0..20 {
            patience.on_received(BEGIN.after(Nanos::from_millis(100 * second)), 0, true);
        }
        assert!(!is_refused(&patience, BEGIN.after(Nanos(HELLO.0 - 1))));
        assert!(is_refused(&patience, BEGIN.after(HELLO)));
    }

    #[test]
    fn a_byte_a_second_does_not_keep_a_frame_alive() {
        for phase in [Phase::Client, Phase::Peer] {
            let mut patience = at(phase);
            for second in 0..10 {
                let now = BEGIN.after(Nanos::from_millis(1_000 * second));
                patience.on_received(now, 0, true);
                assert_eq!(patience.overdue(now, false), None);
            }
            assert!(is_refused(&patience, BEGIN.after(FRAME)), "{phase:?}");
            // Another frame that ends in between begins the time anew.
            patience.on_received(BEGIN.after(FRAME), 1, true);
            assert_eq!(patience.overdue(BEGIN.after(FRAME), false), None);
        }
    }

    #[test]
    fn only_a_client_that_waits_for_nothing_is_idle() {
        let late = BEGIN.after(IDLE);
        assert!(is_refused(&at(Phase::Client), late));
        assert_eq!(at(Phase::Peer).overdue(late, false), None);
        assert_eq!(at(Phase::Client).overdue(late, true), None);

        let mut reader = at(Phase::Client);
        reader.on_received(BEGIN, 2, false);
        reader.on_answered(BEGIN);
        assert_eq!(reader.overdue(late, false), None, "one answer is due");
        reader.on_answered(late);
        assert_eq!(reader.overdue(late, false), None);
        assert!(is_refused(&reader, late.after(IDLE)));
    }

    #[test]
    fn nobody_is_charged_for_a_loop_that_stood_still() {
        let freeze = Nanos::from_millis(30_000);
        for phase in [Phase::Stranger, Phase::Client, Phase::Peer, Phase::Closing] {
            let mut patience = at(phase);
            patience.on_received(BEGIN, 0, true);
            let now = BEGIN.after(freeze);
            assert!(patience.overdue(now, true).is_some(), "{phase:?}");
            patience.excuse(now, stall(freeze).expect("it is one"));
            assert_eq!(patience.overdue(now, true), None, "{phase:?}");
            let late = now.after(FRAME);
            assert!(patience.overdue(late, true).is_some(), "{phase:?}");
        }
        assert_eq!(stall(SWEEP_INTERVAL), None, "a busy turn is no freeze");
        // Whoever came after the freeze has no more time than others.
        let mut late = at(Phase::Stranger);
        late.excuse(BEGIN, freeze);
        assert!(is_refused(&late, BEGIN.after(HELLO)));
    }

    #[test]
    fn what_does_not_take_its_last_word_is_ended() {
        let patience = at(Phase::Closing);
        let before = BEGIN.after(Nanos(CLOSING.0 - 1));
        assert_eq!(patience.overdue(before, true), None);
        let after = patience.overdue(BEGIN.after(CLOSING), true);
        assert_eq!(after, Some(Overdue::End));
    }
}
