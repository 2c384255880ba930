//! A damaged segment that waits to be mended: since where, until when, and why it was not mended yet.
//!
//! Knows no file and no peer; what is done about it is `mend`'s.

use std::fmt::Write as _;

use crate::id::{Index, Nanos, NodeId};

use super::Config;
use super::ask::{Lost, Word};

/// A segment that could not be mended is tried again after this, for a peer may have come back or the
/// disk may have room again; and then after twice as long each time.
const AGAIN_PAUSE: Nanos = Nanos::from_millis(5_000);

/// But no longer than this. Each try reads all of the file.
const AGAIN_PAUSE_MAX: Nanos = Nanos::from_millis(320_000);

/// A segment to be mended.
#[derive(Clone, Debug)]
pub(super) struct Wound {
    /// Of the log.
    pub(super) position: usize,
    pub(super) number: u32,
    /// Where it was met.
    pub(super) byte: u64,
    pub(super) due: Nanos,
    /// It is due, and waits for the segment to rest: nothing more is appended before.
    pub(super) is_held: bool,
    /// How long it waits for the try after the next.
    pause: Nanos,
    /// There is no room for what its head should say of the log.
    pub(super) is_mute: bool,
    /// Why it was not mended, the last time.
    refused: Option<Why>,
}

/// Why a segment was not mended.
#[derive(Clone, Debug)]
pub(super) enum Why {
    /// Nobody gave these.
    Lost(Lost, Vec<(NodeId, Word)>),
    /// There was no room for the new file.
    Full,
    /// The new file found no room in the old one's size.
    Large,
    /// It was another when it was read again.
    Changed,
}

impl Wound {
    /// Met just now, and due at once.
    pub(super) fn new(now: Nanos, position: usize, number: u32, byte: u64) -> Self {
        Self {
            position,
            number,
            byte,
            due: now,
            is_held: false,
            pause: AGAIN_PAUSE,
            is_mute: false,
            refused: None,
        }
    }

    /// It was not mended.
    pub(super) fn put_off(&mut self, now: Nanos, why: Why) {
        self.is_held = false;
        self.due = now.after(self.pause);
        self.pause = Nanos(2 * self.pause.0).min(AGAIN_PAUSE_MAX);
        self.refused = Some(why);
    }

    /// Somebody wants it to be tried now.
    pub(super) fn hurry(&mut self, now: Nanos) {
        (self.due, self.pause) = (now, AGAIN_PAUSE);
    }

    /// Why it is not mended, in a sentence; none if it was not tried yet.
    pub(super) fn alarm(&self, config: &Config) -> Option<String> {
        let log = &config.logs[self.position].name;
        let (number, byte) = (self.number, self.byte);
        let text = match self.refused.as_ref()? {
            Why::Lost(lost, words) => {
                let last = lost.last;
                let which = match lost.first {
                    Index(0) => format!("up to {last}"),
                    first => format!("{first} to {last}"),
                };
                let mut text = format!(
                    "log {log}: blocks {which} are lost in segment {number}, damaged at byte {byte}"
                );
                for (node, word) in words {
                    let _ = write!(text, "; {} {word}", config.name_of(*node));
                }
                text
            }
            Why::Full => format!(
                "log {log}: segment {number}, damaged at byte {byte}, cannot be mended: the disk is \
                 full"
            ),
            Why::Large => format!(
                "log {log}: segment {number}, damaged at byte {byte}, is to be mended without the \
                 state in its head, for which there is no room"
            ),
            Why::Changed => format!(
                "log {log}: segment {number}, damaged at byte {byte}, does not read twice the same"
            ),
        };
        Some(text)
    }
}
