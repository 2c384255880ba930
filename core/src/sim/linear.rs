//! Whether what clients did to one log can have happened at single moments, in the order of the
//! log, each moment between question and answer (Herlihy and Wing 1990).
//!
//! An append-only log makes this cheap: its final content is the order of the appends, so for each
//! record there is a latest event before its moment (`low`) and an earliest one after it (`high`).
//! The history is linearizable if and only if no record's `low`, nor that of one before it, reaches
//! the `high` of that record or one behind it. Time and room are linear in records and operations.
//! Moments are numbers that only grow; knows no record but by its offset.
//!
//! ```text
//!   append at o, asked at a, told at b      low[o] >= a    high[o] <= b
//!   "the end is e", asked at a, told at b   high[e-1] <= b (it was there)   low[e] >= a (it was not)
//! ```

/// Why a history cannot have happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Contradiction {
    /// The record at this offset was there by `high`...
    pub(super) offset: u64,
    /// ...as somebody was told then,
    pub(super) high: u64,
    /// and yet not before `low`, as somebody was told who asked then, of it or of one before it.
    pub(super) low: u64,
}

/// What is known of each record's moment, by offset.
#[derive(Clone, Debug, Default)]
pub(super) struct Linear {
    low: Vec<u64>,
    high: Vec<u64>,
}

impl Linear {
    /// Nothing is known.
    pub(super) fn new() -> Self {
        Self::default()
    }

    fn reach(&mut self, offset: u64) -> usize {
        let at = usize::try_from(offset).expect("logs fit the memory");
        if self.low.len() <= at {
            self.low.resize(at + 1, 0);
            self.high.resize(at + 1, u64::MAX);
        }
        at
    }

    fn not_before(&mut self, offset: u64, moment: u64) {
        let at = self.reach(offset);
        self.low[at] = self.low[at].max(moment);
    }

    fn not_after(&mut self, offset: u64, moment: u64) {
        let at = self.reach(offset);
        self.high[at] = self.high[at].min(moment);
    }

    /// Records at `offset` and behind it were asked to be appended at a moment; that they are is
    /// known from the log alone.
    pub(super) fn on_asked(&mut self, offset: u64, count: u64, asked_at: u64) {
        for offset in offset..offset + count {
            self.not_before(offset, asked_at);
        }
    }

    /// Somebody was told that these records are in the log.
    pub(super) fn on_told(&mut self, offset: u64, count: u64, told_at: u64) {
        for offset in offset..offset + count {
            self.not_after(offset, told_at);
        }
    }

    /// Somebody who wants to see all that is there asked for the end and was told it.
    pub(super) fn on_end(&mut self, end: u64, asked_at: u64, told_at: u64) {
        assert!(asked_at < told_at, "an answer comes after its question");
        if let Some(last) = end.checked_sub(1) {
            self.not_after(last, told_at);
        }
        self.not_before(end, asked_at);
    }

    /// The first contradiction, if there is one. What lies at `end` and behind it was never there.
    ///
    /// # Errors
    /// Which record cannot have had its moment.
    pub(super) fn judge(&self, end: u64) -> Result<(), Contradiction> {
        let end = usize::try_from(end).expect("logs fit the memory");
        let known = end.min(self.low.len());
        // A record behind the log's end was seen, or a question's answer depends on it.
        if let Some(at) = (known..self.high.len()).find(|at| self.high[*at] < u64::MAX) {
            return Err(Contradiction {
                offset: at as u64,
                high: self.high[at],
                low: u64::MAX,
            });
        }
        let mut highs = self.high[..known].to_vec();
        for at in (1..known).rev() {
            highs[at - 1] = highs[at - 1].min(highs[at]);
        }
        let mut low = 0;
        for (at, high) in highs.into_iter().enumerate() {
            low = low.max(self.low[at]);
            if low >= high {
                return Err(Contradiction {
                    offset: at as u64,
                    high,
                    low,
                });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::chance::Chance;

    #[derive(Clone, Copy, Debug)]
    enum Act {
        /// Of one record; what became of it stands in the log, or nowhere.
        Append {
            at: Option<u64>,
        },
        End {
            end: u64,
        },
    }

    #[derive(Clone, Copy, Debug)]
    struct Operation {
        act: Act,
        asked_at: u64,
        /// None: nobody was told.
        told_at: Option<u64>,
    }

    /// Whether the operations can be put in an order, one after the other: slow and obvious.
    fn can_be_ordered(operations: &[Operation], done: u32, length: u64, final_length: u64) -> bool {
        if done.count_ones() as usize == operations.len() {
            return length == final_length;
        }
        let left = |number: usize| done & 1 << number == 0;
        let first_told = (0..operations.len())
            .filter(|number| left(*number))
            .filter_map(|number| operations[number].told_at)
            .min()
            .unwrap_or(u64::MAX);
        (0..operations.len()).any(|number| {
            // Whatever was told before another was asked stands before it.
            if !left(number) || operations[number].asked_at > first_told {
                return false;
            }
            let longer = match operations[number].act {
                Act::Append { at: Some(at) } if at == length => length + 1,
                Act::Append { at: None } => length,
                Act::End { end } if end == length => length,
                _ => return false,
            };
            can_be_ordered(operations, done | 1 << number, longer, final_length)
        })
    }

    fn is_linear(operations: &[Operation], final_length: u64) -> bool {
        let mut linear = Linear::new();
        for operation in operations {
            let Operation {
                act,
                asked_at,
                told_at,
            } = *operation;
            match (act, told_at) {
                (Act::Append { at: Some(at) }, told_at) => {
                    linear.on_asked(at, 1, asked_at);
                    if let Some(told_at) = told_at {
                        linear.on_told(at, 1, told_at);
                    }
                }
                (Act::Append { at: None }, _) => {}
                (Act::End { end }, Some(told_at)) => linear.on_end(end, asked_at, told_at),
                (Act::End { .. }, None) => panic!("a question without answer says nothing"),
            }
        }
        linear.judge(final_length).is_ok()
    }

    /// A small history that may be true or not: a log of up to four records, each appended by one
    /// operation, and up to four questions.
    fn history(chance: &mut Chance) -> (Vec<Operation>, u64) {
        let length = chance.below(5);
        let span = |chance: &mut Chance, operations: usize| {
            // Every moment is one of its own.
            let number = operations as u64;
            let asked_at = chance.below(12) * 16 + number;
            let told_at = asked_at + (1 + chance.below(6)) * 16;
            (asked_at, told_at)
        };
        let mut operations = Vec::new();
        for at in 0..length {
            let (asked_at, told_at) = span(chance, operations.len());
            operations.push(Operation {
                act: Act::Append { at: Some(at) },
                asked_at,
                told_at: (!chance.one_in(4)).then_some(told_at),
            });
        }
        if chance.one_in(3) {
            let (asked_at, _) = span(chance, operations.len());
            operations.push(Operation {
                act: Act::Append { at: None },
                asked_at,
                told_at: None,
            });
        }
        for _ in 0..chance.below(5) {
            let (asked_at, told_at) = span(chance, operations.len());
            operations.push(Operation {
                act: Act::End {
                    end: chance.below(length + 2),
                },
                asked_at,
                told_at: Some(told_at),
            });
        }
        (operations, length)
    }

    #[test]
    fn the_quick_check_agrees_with_the_search_of_all_orders() {
        let mut chance = Chance::new(105);
        let mut counts = [0; 2];
        for _ in 0..150_000 {
            let (operations, length) = history(&mut chance);
            let expected = can_be_ordered(&operations, 0, 0, length);
            let found = is_linear(&operations, length);
            assert_eq!(found, expected, "{operations:#?} of a log of {length}");
            counts[usize::from(found)] += 1;
        }
        // Both verdicts are common, or nothing was tried.
        assert!(counts.iter().all(|count| *count > 20_000), "{counts:?}");
    }

    #[test]
    fn a_read_that_misses_what_was_acknowledged_is_a_contradiction() {
        let mut linear = Linear::new();
        linear.on_asked(0, 1, 10);
        linear.on_told(0, 1, 20);
        linear.on_end(0, 30, 40);
        let contradiction = Contradiction {
            offset: 0,
            high: 20,
            low: 30,
        };
        assert_eq!(linear.judge(1), Err(contradiction));
    }
}
