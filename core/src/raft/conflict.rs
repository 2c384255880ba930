//! How leader and follower find where their logs part (thesis 5.3's back-off, by terms).
//!
//! Pure: two questions to a tail. Each exchange skips a whole term on at least one side, so the
//! number of exchanges is bounded by the terms in which the logs differ, not by their blocks.

use crate::id::{Index, Term};
use crate::log::Tail;

/// A follower's advice on where to try next: its last block that may match.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Hint {
    /// The follower has a block here and none that can match above.
    pub(super) index: Index,
    /// That block's term.
    pub(super) term: Term,
}

/// The follower's half: its log does not have `prev_term` at `prev_index`.
///
/// No block of a term above `prev_term` can match at or below `prev_index`, for the leader's terms
/// never go down either. What is committed matches every leader, so the search ends there.
#[must_use]
pub(super) fn hint(tail: &Tail, commit: Index, prev_index: Index, prev_term: Term) -> Hint {
    let start = prev_index.min(tail.last_index());
    let index = last_within(tail, start, prev_term).max(commit);
    let term = tail
        .term_at(index)
        .expect("the commit index is in the tail or its base");
    Hint { index, term }
}

/// The leader's half: the next index to send after a follower refused `prev_index` with `hint`.
/// Always at most `prev_index`, so that the search ends even below the tail, where terms are not
/// known here.
#[must_use]
pub(super) fn next(tail: &Tail, prev_index: Index, hint: Hint) -> Index {
    assert!(
        prev_index > Index(0),
        "before the first block all logs are equal"
    );
    let start = hint.index.min(prev_index).min(tail.last_index());
    let matched = if start < tail.base().index {
        start
    } else {
        last_within(tail, start, hint.term)
    };
    matched.next().min(prev_index)
}

/// The last index of the tail, its base included, at or below `start`, with a term of at most
/// `term`; the base if there is none.
fn last_within(tail: &Tail, start: Index, term: Term) -> Index {
    let (mut low, mut high) = (tail.base().index.0, start.0);
    // Terms never go down, so halving finds it. Invariant: the answer is in low..=high.
    while low < high {
        let middle = low + (high - low).div_ceil(2);
        if tail
            .term_at(Index(middle))
            .is_some_and(|found| found <= term)
        {
            low = middle;
        } else {
            high = middle - 1;
        }
    }
    Index(low)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::{Base, Entry};

    const LENGTH_MAX: usize = 5;
    const TERM_MAX: u64 = 4;

    fn tail(terms: &[u64], base: usize) -> Tail {
        let mut tail = Tail::new(Base::default());
        for term in terms {
            tail.push(Entry {
                term: Term(*term),
                size: 64,
                sum: 0,
                place: Default::default(),
                first_offset: Default::default(),
                record_count: 0,
            });
        }
        tail.release_through(Index(base as u64));
        tail
    }

    /// Every log of up to `LENGTH_MAX` blocks with terms that never go down.
    fn logs() -> Vec<Vec<u64>> {
        let mut all: Vec<Vec<u64>> = vec![vec![]];
        let mut start = 0;
        for _ in 0..LENGTH_MAX {
            let end = all.len();
            for log in start..end {
                for term in all[log].last().copied().unwrap_or(1)..=TERM_MAX {
                    let mut longer = all[log].clone();
                    longer.push(term);
                    all.push(longer);
                }
            }
            start = end;
        }
        all
    }

    /// Blocks two logs share, if the pair can exist: equal terms at an index mean equal prefixes.
    fn shared(leader: &[u64], follower: &[u64]) -> Option<usize> {
        let pairs = || leader.iter().zip(follower);
        let shared = pairs().take_while(|(a, b)| a == b).count();
        pairs().skip(shared).all(|(a, b)| a != b).then_some(shared)
    }

    #[test]
    fn back_off_finds_the_same_place_as_stepping_down_one_by_one() {
        let mut pair_count = 0;
        for leader_terms in logs() {
            for follower_terms in logs() {
                let Some(shared) = shared(&leader_terms, &follower_terms) else {
                    continue;
                };
                // What the follower has committed the leader has; what it released, too.
                for base in 0..=leader_terms.len() {
                    for commit in 0..=shared {
                        for follower_base in 0..=commit {
                            pair_count += 1;
                            let leader = tail(&leader_terms, base);
                            let follower = (&tail(&follower_terms, follower_base), commit);
                            check(&leader_terms, &leader, follower, shared);
                        }
                    }
                }
            }
        }
        assert!(pair_count > 60_000, "{pair_count}");
    }

    fn check(
        leader_terms: &[u64],
        leader: &Tail,
        (follower, commit): (&Tail, usize),
        shared: usize,
    ) {
        let mut prev = leader_terms.len();
        let mut slow_prev = prev;
        let mut exchange_count = 0;
        // The leader reads terms below its tail from segments, hence from the list here.
        while prev > shared {
            let prev_term = Term(leader_terms[prev - 1]);
            let prev_index = Index(prev as u64);
            let hint = hint(follower, Index(commit as u64), prev_index, prev_term);
            let next = next(leader, prev_index, hint);
            assert!(next <= prev_index, "each exchange goes down");
            assert!(next.0 > shared as u64, "what is shared is not sent again");
            prev = next.0 as usize - 1;
            slow_prev -= 1;
            exchange_count += 1;
            assert!(prev <= slow_prev, "never slower than one by one");
        }
        assert!(exchange_count <= leader_terms.len() - shared);
        assert_eq!(prev, shared, "{leader_terms:?} {leader:?} {follower:?}");
    }

    #[test]
    fn a_long_foreign_term_costs_one_exchange() {
        let mut leader_terms = vec![1; 10];
        leader_terms.extend([3; 500]);
        let mut follower_terms = vec![1; 10];
        follower_terms.extend([2; 400]);
        let (leader, follower) = (tail(&leader_terms, 0), tail(&follower_terms, 0));
        let found = hint(&follower, Index(0), Index(510), Term(3));
        assert_eq!(
            found,
            Hint {
                index: Index(410),
                term: Term(2)
            }
        );
        assert_eq!(next(&leader, Index(510), found), Index(11));
    }

    #[test]
    fn a_commit_index_stops_the_search() {
        let follower = tail(&[1, 1, 2, 2, 2], 0);
        let found = hint(&follower, Index(4), Index(5), Term(1));
        assert_eq!(found.index, Index(4));
    }
}
