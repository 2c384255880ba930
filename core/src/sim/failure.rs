//! A run that broke something, as a value.
//!
//! What must hold is asserted wherever it is known, in the oracle as in the product itself; here,
//! and only here, a broken assertion is caught and given a time. Where a program is built so that
//! it aborts on a panic nothing can be caught: it ends with the assertion's words.

use std::any::Any;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::marks::Marks;
use crate::id::Nanos;

/// What a run broke, and when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The seed of the run.
    pub seed: u64,
    /// What does not hold, in one sentence.
    pub invariant: String,
    /// Whatever else the assertion said, if anything.
    pub detail: String,
    /// True time.
    pub at: Nanos,
    /// The event it broke in, counted from 1.
    pub event: u64,
    /// Of the run up to there.
    pub trace_sum: u128,
    /// What had happened up to there.
    pub marks: Marks,
}

impl Failure {
    /// The invariant without the numbers of this one run.
    #[must_use]
    pub fn kind(&self) -> String {
        let sentence = self.invariant.split(": ").next().unwrap_or_default();
        let mut kind = String::with_capacity(sentence.len());
        for letter in sentence.chars() {
            let letter = if letter.is_ascii_digit() { '#' } else { letter };
            if letter != '#' || !kind.ends_with('#') {
                kind.push(letter);
            }
        }
        kind
    }

    /// Whether another run broke the same.
    #[must_use]
    pub fn is_like(&self, other: &Self) -> bool {
        self.kind() == other.kind()
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            seed,
            invariant,
            at,
            event,
            ..
        } = self;
        let millis = at.0 / 1_000_000;
        write!(
            f,
            "seed {seed}: {invariant} (at {millis} ms, event {event})"
        )?;
        if self.detail.is_empty() {
            Ok(())
        } else {
            write!(f, "\n{}", self.detail)
        }
    }
}

impl std::error::Error for Failure {}

/// Words of an assertion: what does not hold, and the rest.
pub(super) struct Broken {
    pub(super) invariant: String,
    pub(super) detail: String,
}

/// Does something that asserts, and catches what it breaks.
pub(super) fn caught<T>(act: impl FnOnce() -> T) -> Result<T, Broken> {
    // What was under way is not looked at again but for its clock and its counts.
    catch_unwind(AssertUnwindSafe(act)).map_err(|cause| Broken::of(&*cause))
}

impl Broken {
    fn of(cause: &(dyn Any + Send)) -> Self {
        let text = cause.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| cause.downcast_ref::<&str>().copied());
        let text = text.unwrap_or("a panic without words");
        // The standard comparisons put their own words first and the values last.
        let (text, values) = match text.strip_prefix("assertion `") {
            Some(rest) => match rest.split_once("failed: ") {
                Some((_, rest)) => rest.split_once('\n').unwrap_or((rest, "")),
                None => (text, ""),
            },
            None => (text, ""),
        };
        let (invariant, detail) = text.split_once('\n').unwrap_or((text, values));
        Self {
            invariant: invariant.to_owned(),
            detail: detail.trim_end().to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn broken(text: &str) -> Broken {
        Broken::of(&text.to_owned())
    }

    fn failure(invariant: &str) -> Failure {
        Failure {
            seed: 1,
            invariant: invariant.to_owned(),
            detail: String::new(),
            at: Nanos(0),
            event: 0,
            trace_sum: 0,
            marks: Marks::default(),
        }
    }

    #[test]
    fn an_assertion_is_cut_into_its_sentence_and_its_values() {
        let plain = broken("two leaders of term 3: 0 and 2");
        assert_eq!(plain.invariant, "two leaders of term 3: 0 and 2");
        assert_eq!(plain.detail, "");
        let values =
            broken("assertion `left == right` failed: all hold the same\n  left: 1\n right: 2");
        assert_eq!(values.invariant, "all hold the same");
        assert_eq!(values.detail, "  left: 1\n right: 2");
        let lines = broken("not healed in time\n  node 0 follows");
        assert_eq!(lines.invariant, "not healed in time");
        assert_eq!(lines.detail, "  node 0 follows");
    }

    #[test]
    fn failures_are_alike_whatever_their_numbers() {
        let first = failure("two leaders of term 3: 0 and 2");
        assert!(first.is_like(&failure("two leaders of term 1234: 1 and 0")));
        assert!(!first.is_like(&failure("two blocks of term 3: 0 and 2")));
    }
}
