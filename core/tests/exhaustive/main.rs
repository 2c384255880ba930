//! Every state of three nodes within bounds: the shipped Raft inside a model checker.
//!
//! ```text
//! cargo test --release -p ringwood-core --test exhaustive                    ten million states
//! cargo test --release -p ringwood-core --test exhaustive -- --ignored       twice as far
//! RINGWOOD_CASE=transfer cargo test --release -p ringwood-core --test exhaustive
//! RINGWOOD_BUG=B41 cargo test --release -p ringwood-core --features bugs,sim --test exhaustive
//! ```
//! The last puts a bug in on purpose (`core/src/bugs.rs`), and must fail.
//! A search that comes to its end within its steps has seen every state within its bounds; any
//! other has seen the nearest. States that differ only in the nodes' names are one, so in a path
//! the names may change between two states; `RINGWOOD_NAMES=kept` leaves them.

mod breach;
mod cases;
mod cluster;
mod disk;
mod mark;
mod node;
mod search;
mod starts;
mod symmetry;
mod table;
mod turn;
mod wire;

use std::collections::BTreeSet;
use std::env;
use std::io::{Write as _, stderr};
use std::time::Instant;

use stateright::{Checker, Expectation, HasDiscoveries, Model};

use cases::{CASES, Case};
use mark::{MARKS, Mark};
use search::Search;

/// Steps of each search: seconds in a debug build, two or three minutes for all in release.
const STEPS: usize = if cfg!(debug_assertions) {
    400_000
} else {
    7_000_000
};

/// Distinct states that they come to at least. Fewer, and the model has shrunk.
const STATES_MIN: usize = if cfg!(debug_assertions) {
    1_000_000
} else {
    10_000_000
};

/// What the searches saw together.
#[derive(Default)]
struct Sum {
    state_count: usize,
    reached: BTreeSet<&'static str>,
    met: BTreeSet<Mark>,
}

#[test]
fn no_state_within_bounds_breaks_a_rule() {
    search_all(STEPS, STATES_MIN);
}

#[test]
#[ignore = "five minutes: acceptance runs it, not every change"]
fn no_state_further_out_breaks_a_rule() {
    search_all(14_000_000, 20_000_000);
}

fn search_all(step_count: usize, states_min: usize) {
    let only = env::var("RINGWOOD_CASE").ok();
    let is_asked = |case: &&Case| {
        only.as_deref()
            .is_none_or(|name| case.name.starts_with(name))
    };
    let mut sum = Sum::default();
    let begun = Instant::now();
    for case in CASES.iter().filter(is_asked) {
        search(case, step_count, &mut sum);
    }
    say(&format!(
        "{} distinct states in {:.0} s",
        sum.state_count,
        begun.elapsed().as_secs_f64()
    ));
    assert!(sum.state_count > 0, "no search has that name");
    if only.is_some() {
        return;
    }
    assert!(sum.state_count >= states_min, "the model has shrunk");
    for goal in goals() {
        assert!(sum.reached.contains(goal), "never: {goal}");
    }
    for mark in MARKS {
        assert!(sum.met.contains(&mark), "never: {mark:?}");
    }
}

/// States that some search must come to.
fn goals() -> impl Iterator<Item = &'static str> {
    let properties = Search::new(CASES[0].bounds).properties().into_iter();
    properties
        .filter(|property| matches!(property.expectation, Expectation::Sometimes))
        .map(|property| property.name)
}

fn search(case: &Case, step_count: usize, sum: &mut Sum) {
    let mut search = Search::new(case.bounds);
    search.merges_names = env::var("RINGWOOD_NAMES").is_err();
    search.starts = vec![case.start.state(&search, case.bounds.budget)];
    let begun = Instant::now();
    let checker = search
        .checker()
        .threads(2)
        .target_state_count(step_count)
        .finish_when(HasDiscoveries::AnyFailures)
        .spawn_bfs()
        .join();
    let (state_count, taken_count) = (checker.unique_state_count(), checker.state_count());
    let discoveries = checker.discoveries();
    for property in checker.model().properties() {
        let Some(path) = discoveries.get(property.name) else {
            continue;
        };
        if matches!(property.expectation, Expectation::Always) {
            let steps = path.clone().into_vec();
            let length = steps.len() - 1;
            for (state, action) in steps {
                let action = action.map_or("the end".into(), |action| format!("{action:?}"));
                say(&format!("{state:?}{action}"));
            }
            panic!(
                "{}: broken after {length} steps: {}",
                case.name, property.name
            );
        }
        sum.reached.insert(property.name);
    }
    let is_whole = taken_count < step_count;
    say(&format!(
        "{}: {state_count} states{}, depth {}, {taken_count} steps, {} states of a node, {:.0} s",
        case.name,
        if is_whole { ", all there are" } else { "" },
        checker.max_depth() - 1,
        checker.model().table.node_count(),
        begun.elapsed().as_secs_f64(),
    ));
    assert!(
        !is_whole || state_count >= case.states_min,
        "{}: the model has shrunk",
        case.name
    );
    let met = |mark: &Mark| checker.model().table.met(*mark) > 0;
    sum.met.extend(MARKS.into_iter().filter(met));
    sum.state_count += state_count;
}

/// Past the test harness, which keeps what passing tests print to itself.
fn say(line: &str) {
    writeln!(stderr(), "{line}").expect("standard error");
}
