//! That merging states which differ only in the nodes' names loses none and makes none up.

use std::collections::HashSet;

use stateright::Model;

use super::cases::{CASES, NOTHING};
use super::cluster::{Budget, Cluster, ORDERS};
use super::search::{Bounds, Search};
use super::starts::Start;
use super::wire::digest;

/// Small enough to be walked under all names.
const BOUNDS: Bounds = Bounds {
    wires_max: 2,
    budget: Budget {
        elections: 2,
        crashes: 1,
        ..NOTHING
    },
    ..CASES[0].bounds
};

/// Every state within bounds, by its digest under the names that stand for all.
fn walk(merges_names: bool) -> (usize, HashSet<u64>) {
    let mut search = Search::new(BOUNDS);
    let start = Start::Fresh.state(&search, BOUNDS.budget);
    search.merges_names = merges_names;
    let mut seen = HashSet::new();
    let mut pending = vec![start.clone()];
    seen.insert(digest(&start));
    let merging = Search::new(BOUNDS);
    let mut merged = HashSet::new();
    while let Some(state) = pending.pop() {
        merged.insert(digest(&merging.merged(state.clone())));
        for next in search.next_states(&state) {
            if search.within_boundary(&next) && seen.insert(digest(&next)) {
                pending.push(next);
            }
        }
    }
    (seen.len(), merged)
}

#[test]
fn merging_names_loses_no_state() {
    let (named_count, named) = walk(false);
    let (merged_count, merged) = walk(true);
    assert_eq!(named.len(), merged_count);
    assert_eq!(named, merged);
    // Nearly every state has six names.
    assert!(
        named_count > 5 * merged_count,
        "{named_count} {merged_count}"
    );
}

#[test]
fn all_names_of_a_state_lead_to_the_same_one() {
    let search = Search::new(BOUNDS);
    let mut state: Cluster = Start::Parted.state(&search, BOUNDS.budget);
    for _ in 0..200 {
        let expected = digest(&search.merged(state.clone()));
        for order in 0..ORDERS.len() {
            let rename = |node: &_, order, digest| search.table.renamed(node, order, digest);
            let renamed = state.reordered(order, rename);
            assert_eq!(digest(&search.merged(renamed)), expected);
        }
        let mut following = search.next_states(&state);
        let Some(next) = following.pop() else {
            break;
        };
        state = next;
    }
}
