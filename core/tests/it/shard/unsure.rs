//! A journal that lost blocks while its node was down: what is missing comes from whoever has it
//! before this node helps to elect anybody.

use ringwood_core::frame::code::BlockOutcome;

use super::journaled::{COUNT, fill, leader, read_on, whole};

#[test]
fn whatever_blocks_are_lost_come_back_and_the_node_leads_again() {
    // Each set of the records but none and the last run, of which nothing bears witness.
    for lost in 1..1_u64 << (COUNT - 1) {
        let mut bench = leader();
        for at in (0..COUNT).filter(|at| lost & 1 << at != 0) {
            assert_eq!(bench.flip_in_journal(fill(at)), 1);
        }
        bench.restart();
        assert_eq!(read_on(&mut bench, 0), COUNT, "lost {lost:b}");
        assert!(bench.ask_count > 0);
        assert_eq!(bench.complaints(), [""; 0]);
        // What came back stands in the journal: nothing is missed any more.
        let asked = bench.ask_count;
        bench.restart();
        assert_eq!(read_on(&mut bench, 0), COUNT);
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
        assert_eq!(
            read_on(&mut bench, 0),
            0,
            "nothing is known to be committed"
        );
        let complaints = bench.complaints();
        let begin = "log log-1: this replica is unsure, blocks 4 to 4 are lost, from offset 2 on";
        assert_eq!(complaints.len(), 1, "{complaints:?}");
        assert!(complaints[0].starts_with(begin), "{complaints:?}");
        assert!(complaints[0].contains("; node-2 "), "{complaints:?}");
        // The other log has lost nothing, and goes on.
        assert!(bench.commits(2, 0, &whole(0)));
        bench.word = BlockOutcome::Found;
        bench.turns(2_000);
        assert_eq!(read_on(&mut bench, 0), COUNT);
        assert_eq!(bench.complaints(), [""; 0]);
    }
}
