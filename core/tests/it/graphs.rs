//! Graphs: every way of linking three nodes by one-way links and five by two-way ones. Where a
//! node that reaches a majority has all that is decided, the cluster lives; elsewhere it stands, and
//! is safe.
//!
//! A plain run plays a part of the cases. `RINGWOOD_GRAPHS=all` plays all of them; use `--release`.

use std::path::Path;

use ringwood_core::sim::graphs::{Case, Fate, Graph, TIMEOUT_COUNT_MAX, table};

/// Of the cases, a plain run plays one in so many; a prime, so that it meets every leader.
const SAMPLE_EVERY: usize = 97;

/// Elections while nothing changes: nodes that see different parts may disturb each other once.
const LATER_LEADER_COUNT_MAX: usize = 1;

fn play(cases: &[Case], every: usize) {
    let all = std::env::var("RINGWOOD_GRAPHS").is_ok_and(|value| value == "all");
    let every = if all { 1 } else { every };
    let (mut count, mut live_count, mut slowest) = (0, 0, 0.0_f64);
    let mut later = [0; LATER_LEADER_COUNT_MAX + 1];
    let mut failures = Vec::new();
    for case in cases.iter().step_by(every) {
        let outcome = case.play();
        let is_live = outcome.live_after.is_some();
        count += 1;
        live_count += usize::from(is_live);
        if let Some(span) = outcome.live_after {
            slowest = slowest.max(span.0 as f64 / outcome.timeout.0 as f64);
        }
        let is_right = is_live == (case.fate() == Fate::Lives)
            && outcome.healed_after.is_some()
            && outcome.later_leader_count <= LATER_LEADER_COUNT_MAX;
        if is_right {
            later[outcome.later_leader_count] += 1;
        } else {
            failures.push(format!("{case:?}: {:?}, {outcome:?}", case.fate()));
        }
    }
    println!(
        "{count} cases, {live_count} live, the slowest after {slowest:.1} timeouts, {later:?}"
    );
    assert!(slowest <= TIMEOUT_COUNT_MAX as f64 + 1.0, "{slowest}");
    assert!(live_count > 0 && live_count < count, "both kinds are met");
    assert!(
        failures.is_empty(),
        "{} fail:\n{}",
        failures.len(),
        failures.join("\n")
    );
}

#[test]
fn three_nodes_live_where_two_of_them_can_talk() {
    let graphs = Graph::directed(3);
    assert_eq!(graphs.len(), 64);
    play(&Case::of(&graphs), 5);
}

#[test]
fn five_nodes_live_where_one_that_knows_all_reaches_a_majority() {
    let graphs = Graph::undirected(5);
    assert_eq!(graphs.len(), 1024);
    play(&Case::of(&graphs), SAMPLE_EVERY);
}

#[test]
fn the_table_says_what_must_come_of_every_graph() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/GRAPHS.md");
    let was = std::fs::read_to_string(&path).expect("the table's page");
    let mut is = String::new();
    let tables = [table(&Graph::directed(3)), table(&Graph::undirected(5))];
    let mut tables = tables.iter();
    // Text stays, tables are made anew.
    let mut is_table = false;
    for line in was.lines() {
        let was_table = std::mem::replace(&mut is_table, line.starts_with("| "));
        if is_table && !was_table {
            is += tables.next().expect("as many tables as there are sizes");
        }
        if !is_table {
            is += line;
            is.push('\n');
        }
    }
    assert!(tables.next().is_none(), "a table is missing");
    if was != is && std::env::var_os("RINGWOOD_REWRITE").is_some() {
        return std::fs::write(&path, is).expect("the page can be written");
    }
    assert_eq!(was, is, "RINGWOOD_REWRITE=1 makes the tables anew");
}
