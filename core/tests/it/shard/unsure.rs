//! A journal that lost blocks while its node was down: what is missing comes from whoever has it
//! before this node helps to elect anybody.

use ringwood_core::frame::code::{BlockOutcome, Outcome};

use super::bench::{Bench, record};

const LOG: u32 = 1;
const RECORD_SIZE: usize = 5_000;
const COUNT: u64 = 6;

fn fill(at: u64) -> u8 {
    0xA0 + at as u8
}

fn whole(at: u64) -> Vec<u8> {
    record(RECORD_SIZE, fill(at))
}

/// A leader whose records are all in its journal, each in a run of its own.
fn leader() -> Bench {
    let mut bench = Bench::new();
    for at in 0..COUNT {
        let request = bench.append(LOG, at, &whole(at));
        for _ in 0..4 {
            bench.turn();
        }
        assert_eq!(bench.replies[&request].outcome, Outcome::Committed.code());
    }
    assert!(!bench.has_segment(LOG, 0), "all is in the journal");
    bench
}

fn read_all(bench: &mut Bench) -> u64 {
    let mut at = 0;
    while at < COUNT {
        let bytes = bench.fetch(LOG, at);
        if bytes.is_empty() {
            break;
        }
        for found in bytes.chunks(whole(0).len()) {
            assert!(found == whole(at), "record {at} is another");
            at += 1;
        }
    }
    at
}

#[test]
fn whatever_blocks_are_lost_come_back_and_the_node_leads_again() {
    // Each set of the records but none and the last run, of which nothing bears witness.
    for lost in 1..1_u64 << (COUNT - 1) {
        let mut bench = leader();
        for at in (0..COUNT).filter(|at| lost & 1 << at != 0) {
            assert_eq!(bench.flip_in_journal(fill(at)), 1);
        }
        bench.restart();
        assert_eq!(read_all(&mut bench), COUNT, "lost {lost:b}");
        assert!(bench.ask_count > 0);
        assert_eq!(bench.complaints(), [""; 0]);
        // What came back stands in the journal: nothing is missed any more.
        let asked = bench.ask_count;
        bench.restart();
        assert_eq!(read_all(&mut bench), COUNT);
        assert_eq!(bench.ask_count, asked);
    }
}

#[test]
fn while_nobody_has_the_blocks_the_node_is_unsure_and_says_so() {
    for word in [BlockOutcome::Lost, BlockOutcome::Absent, BlockOutcome::Busy] {
        let mut bench = leader();
        assert_eq!(bench.flip_in_journal(fill(2)), 1);
        bench.word = word;
        bench.restart();
        assert_eq!(read_all(&mut bench), 0, "nothing is known to be committed");
        let complaints = bench.complaints();
        let begin = "log log-1: this replica is unsure, blocks 4 to 4 are lost, from offset 2 on";
        assert_eq!(complaints.len(), 1, "{complaints:?}");
        assert!(complaints[0].starts_with(begin), "{complaints:?}");
        assert!(complaints[0].contains("; node-2 "), "{complaints:?}");
        // The other log has lost nothing, and goes on.
        let request = bench.append(2, 0, &whole(0));
        for _ in 0..4 {
            bench.turn();
        }
        assert_eq!(bench.replies[&request].outcome, Outcome::Committed.code());
        bench.word = BlockOutcome::Found;
        for _ in 0..2_000 {
            bench.turn();
        }
        assert_eq!(read_all(&mut bench), COUNT);
        assert_eq!(bench.complaints(), [""; 0]);
    }
}
