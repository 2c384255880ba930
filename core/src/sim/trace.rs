//! What a run did, as one number and, when wanted, as lines.
//!
//! The number is the proof that a seed replays: two runs of a seed that differ anywhere differ
//! here. Lines are only made when somebody reads them.

use std::fmt::Arguments;

use super::chance::mixed;
use crate::id::Nanos;

/// Takes a line of the trace.
pub type Sink<'s> = &'s mut dyn FnMut(Arguments<'_>);

/// The story of one run.
pub(super) struct Trace<'s> {
    sum: u64,
    sink: Option<Sink<'s>>,
}

impl<'s> Trace<'s> {
    pub(super) fn new(sink: Option<Sink<'s>>) -> Self {
        Self { sum: 0, sink }
    }

    /// Adds to the number.
    pub(super) fn mix(&mut self, number: u64) {
        self.sum = mixed(self.sum ^ number).wrapping_add(number);
    }

    /// Adds a line, if anybody reads.
    pub(super) fn say(&mut self, now: Nanos, line: Arguments<'_>) {
        if let Some(sink) = &mut self.sink {
            let micros = now.0 / 1000;
            sink(format_args!(
                "{:>6}.{:03} ms  {line}",
                micros / 1000,
                micros % 1000
            ));
        }
    }

    pub(super) fn is_read(&self) -> bool {
        self.sink.is_some()
    }

    pub(super) fn sum(&self) -> u64 {
        self.sum
    }
}
