//! The sending half of a stream: frames queue here and leave as one gathered send at a time.
//!
//! Knows no frame's meaning and no ring; `perform` asks it for the next batch.

use std::collections::VecDeque;

use bytes::Bytes;
use ringwood_core::id::Nanos;
use ringwood_core::shard::Outgoing;

use crate::ring::Socket;

/// Slices of one gathered send: the kernel's bound on an iovec list.
const SEND_SLICE_COUNT_MAX: usize = 1024;

/// Bytes of one gathered send, but for a slice that is larger by itself. Enough for any link, and so
/// few that a send that takes long tells of a receiver that takes nothing.
const SEND_SIZE_MAX: usize = 1 << 20;

/// A send that takes longer than this goes to somebody who does not receive.
const STALL: Nanos = Nanos::from_millis(50);

/// A piece of a frame.
#[derive(Debug)]
struct Slice {
    bytes: Bytes,
    ends_frame: bool,
}

/// Bytes on their way out of one socket.
#[derive(Debug)]
pub(crate) struct Outbox {
    slices: VecDeque<Slice>,
    /// The last batch ended within a frame: its rest must follow, or what comes next is garbage.
    is_within_frame: bool,
    /// Queued and being sent.
    size: usize,
    size_sending: usize,
    /// When the send under way was asked for.
    sending_since: Nanos,
}

impl Outbox {
    pub(crate) fn new() -> Self {
        Self {
            slices: VecDeque::new(),
            is_within_frame: false,
            size: 0,
            size_sending: 0,
            sending_since: Nanos(0),
        }
    }

    /// Whether the other side takes nothing: a send has been under way for longer than any busy
    /// peer would need.
    pub(crate) fn is_stalled(&self, now: Nanos) -> bool {
        self.is_sending_since(now, STALL)
    }

    /// Whether one send has been under way for longer than that.
    pub(crate) fn is_sending_since(&self, now: Nanos, span: Nanos) -> bool {
        self.is_sending() && now.since(self.sending_since) > span
    }

    /// Bytes queued or on their way to the kernel.
    pub(crate) fn size(&self) -> usize {
        self.size
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.size == 0
    }

    pub(crate) fn is_sending(&self) -> bool {
        self.size_sending > 0
    }

    pub(crate) fn push(&mut self, frame: Outgoing) {
        self.size += frame.size();
        let slices = std::iter::once(frame.head).chain(frame.payload);
        let slices = slices.map(|bytes| Slice {
            bytes,
            ends_frame: false,
        });
        self.slices.extend(slices);
        let last = self.slices.back_mut().expect("a frame has a head");
        last.ends_frame = true;
    }

    pub(crate) fn push_bytes(&mut self, bytes: Bytes) {
        assert!(
            !bytes.is_empty(),
            "an empty slice would never be seen to leave"
        );
        self.size += bytes.len();
        self.slices.push_back(Slice {
            bytes,
            ends_frame: true,
        });
    }

    /// What goes with the next send; empty while one is under way.
    pub(crate) fn take_batch(&mut self, now: Nanos, batch: &mut Vec<Bytes>) {
        assert!(batch.is_empty());
        if self.is_sending() {
            return;
        }
        self.sending_since = now;
        while batch.len() < SEND_SLICE_COUNT_MAX {
            let Some(slice) = self.slices.front() else {
                break;
            };
            if !batch.is_empty() && self.size_sending + slice.bytes.len() > SEND_SIZE_MAX {
                break;
            }
            self.size_sending += slice.bytes.len();
            self.is_within_frame = !slice.ends_frame;
            batch.extend(self.slices.pop_front().map(|slice| slice.bytes));
        }
    }

    /// The send under way is over; all of it is the kernel's.
    pub(crate) fn on_sent(&mut self) {
        assert!(self.is_sending());
        self.size -= self.size_sending;
        self.size_sending = 0;
    }

    /// Drops all frames of which nothing has left.
    pub(crate) fn cut(&mut self) {
        let ends = |slice: &Slice| slice.ends_frame;
        let kept_count = match self.is_within_frame {
            true => self.slices.iter().position(ends).map_or(0, |at| at + 1),
            false => 0,
        };
        let dropped = self.slices.drain(kept_count..);
        self.size -= dropped.map(|slice| slice.bytes.len()).sum::<usize>();
    }

    /// The stream is gone: what was queued is dropped.
    pub(crate) fn clear(&mut self) {
        self.slices.clear();
        self.is_within_frame = false;
        self.size = 0;
        self.size_sending = 0;
    }
}

/// Whether `socket` has bytes that could leave now.
#[must_use]
pub(crate) fn is_ready(socket: Option<&Socket>, outbox: &Outbox) -> bool {
    socket.is_some() && !outbox.is_empty() && !outbox.is_sending()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_batch_at_a_time_in_order() {
        let mut outbox = Outbox::new();
        let mut batch = Vec::new();
        outbox.push_bytes(Bytes::from_static(b"one"));
        outbox.push_bytes(Bytes::from_static(b"two"));
        outbox.take_batch(Nanos(1), &mut batch);
        assert_eq!(batch, ["one", "two"]);
        outbox.push_bytes(Bytes::from_static(b"three"));
        let mut second = Vec::new();
        outbox.take_batch(Nanos(2), &mut second);
        assert!(second.is_empty(), "two sends of one socket could mix");
        outbox.on_sent();
        assert_eq!(outbox.size(), 5);
        outbox.take_batch(Nanos(2), &mut second);
        assert_eq!(second, ["three"]);
        assert!(!outbox.is_stalled(Nanos(2)));
        assert!(outbox.is_stalled(Nanos(3).after(STALL)));
    }

    #[test]
    fn a_cut_leaves_whole_frames_behind() {
        let frame = |count: usize| Outgoing {
            head: Bytes::from_static(b"head"),
            payload: vec![Bytes::from_static(b"slice"); count],
        };
        let mut outbox = Outbox::new();
        let mut batch = Vec::new();
        outbox.push(frame(SEND_SLICE_COUNT_MAX));
        outbox.push(frame(3));
        outbox.take_batch(Nanos(1), &mut batch);
        assert_eq!(batch.len(), SEND_SLICE_COUNT_MAX);
        outbox.cut();
        outbox.push_bytes(Bytes::from_static(b"why"));
        outbox.on_sent();
        batch.clear();
        outbox.take_batch(Nanos(2), &mut batch);
        assert_eq!(batch, ["slice", "why"], "the rest of the frame under way");
        outbox.on_sent();
        assert!(outbox.is_empty());
        outbox.push(frame(1));
        outbox.cut();
        assert!(outbox.is_empty());
    }
}
