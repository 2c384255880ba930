//! Arithmetic of majorities. Pure: knows neither message nor node.

use crate::id::Index;
use crate::limits::VOTER_COUNT_MAX;

/// How an election stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A majority said yes.
    Won,
    /// So many said no that a majority of yes is out of reach.
    Lost,
    /// Too few have spoken.
    Open,
}

/// Voters that make a majority of `voter_count`.
#[must_use]
pub fn size(voter_count: usize) -> usize {
    assert!(voter_count > 0, "a group has voters");
    assert!(
        voter_count <= VOTER_COUNT_MAX,
        "more voters than a group may have"
    );
    voter_count / 2 + 1
}

/// The largest value that a majority has reached; one value per voter.
#[must_use]
pub fn reached<T: Copy + Ord>(values: &[T]) -> T {
    let quorum = size(values.len());
    let mut sorted = [values[0]; VOTER_COUNT_MAX];
    sorted[..values.len()].copy_from_slice(values);
    let sorted = &mut sorted[..values.len()];
    sorted.sort_unstable();
    sorted[values.len() - quorum]
}

/// The highest index that a majority has durably; one index per voter. Whether it may be
/// committed is the leader's question: only in its own term (thesis 3.6.2).
#[must_use]
pub fn committed(acks: &[Index]) -> Index {
    reached(acks)
}

/// How an election stands; one vote per voter, none for those that have not spoken.
#[must_use]
pub fn outcome(votes: &[Option<bool>]) -> Outcome {
    let quorum = size(votes.len());
    let granted = votes.iter().filter(|vote| **vote == Some(true)).count();
    let refused = votes.iter().filter(|vote| **vote == Some(false)).count();
    if granted >= quorum {
        return Outcome::Won;
    }
    // In an even group half the voters refusing is enough: the other half is no majority.
    if votes.len() - refused < quorum {
        Outcome::Lost
    } else {
        Outcome::Open
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every list of `count` digits below `base`.
    fn each(count: usize, base: usize, mut check: impl FnMut(&[usize])) {
        let mut digits = vec![0; count];
        loop {
            check(&digits);
            let Some(place) = digits.iter().position(|digit| *digit + 1 < base) else {
                return;
            };
            digits[..place].fill(0);
            digits[place] += 1;
        }
    }

    /// Tries every subset of voters that is a majority.
    fn committed_slowly(acks: &[Index]) -> Index {
        let count = acks.len();
        let majorities = (0u32..1 << count).filter(|set| 2 * set.count_ones() as usize > count);
        let lowest = |set: u32| {
            (0..count)
                .filter(|i| set >> i & 1 == 1)
                .map(|i| acks[i])
                .min()
        };
        majorities.filter_map(lowest).max().unwrap()
    }

    #[test]
    fn committed_agrees_with_trying_every_majority() {
        for count in 1..=VOTER_COUNT_MAX {
            // Only the order of indexes matters, and `count` of them have no more than `count`.
            each(count, count, |digits| {
                let acks: Vec<_> = digits.iter().map(|digit| Index(*digit as u64)).collect();
                assert_eq!(committed(&acks), committed_slowly(&acks), "{acks:?}");
            });
        }
    }

    /// Plays out every way the silent voters may still vote.
    fn outcome_slowly(votes: &[Option<bool>]) -> Outcome {
        let open: Vec<_> = (0..votes.len()).filter(|i| votes[*i].is_none()).collect();
        let mut seen = [false; 2];
        for future in 0u32..1 << open.len() {
            let mut all = votes.to_vec();
            for (bit, voter) in open.iter().enumerate() {
                all[*voter] = Some(future >> bit & 1 == 1);
            }
            let granted = all.iter().filter(|vote| **vote == Some(true)).count();
            seen[usize::from(2 * granted > votes.len())] = true;
        }
        match seen {
            [false, true] => Outcome::Won,
            [true, false] => Outcome::Lost,
            _ => Outcome::Open,
        }
    }

    #[test]
    fn outcome_agrees_with_playing_out_every_future() {
        for count in 1..=VOTER_COUNT_MAX {
            each(count, 3, |digits| {
                let votes: Vec<_> = digits
                    .iter()
                    .map(|digit| [None, Some(true), Some(false)][*digit])
                    .collect();
                assert_eq!(outcome(&votes), outcome_slowly(&votes), "{votes:?}");
            });
        }
    }

    #[test]
    fn two_majorities_always_share_a_voter() {
        for count in 1..=VOTER_COUNT_MAX {
            assert!(2 * size(count) > count);
            assert!(2 * (size(count) - 1) <= count);
        }
    }
}
