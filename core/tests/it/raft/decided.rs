//! Blocks that a follower gets from another replica by its leader's word: when they count.

use ringwood_core::id::{Index, Lsn, Nanos, Term};
use ringwood_core::raft::{After, AppendRequest, Beat, Output, Raft};

use super::alone::*;
use super::host::node;

/// As `append`, of blocks that another replica gave, decided through the last.
fn take(
    raft: &mut Raft,
    term: u64,
    prev: (u64, u64),
    terms: &[u64],
    lsn: u64,
) -> (Option<usize>, Vec<Output>) {
    let blocks = blocks_behind(prev.0, terms);
    let request = AppendRequest {
        term: Term(term),
        prev_index: Index(prev.0),
        prev_term: Term(prev.1),
        commit: Index(prev.0 + terms.len() as u64),
        blocks: &blocks,
    };
    let mut out = outbox(lsn);
    let accepted = raft.append_decided(Nanos(2), &request, &mut out);
    if let Some(accepted) = accepted {
        let new = terms[accepted.skip..].iter();
        let new: Vec<_> = new.map(|term| entry(*term, lsn, 64)).collect();
        raft.appended(Nanos(2), &new, &mut out);
    }
    (accepted.map(|accepted| accepted.skip), out.list)
}

/// A follower of node 1 in term 3, whose log is known to match that one's through the second block.
fn follower() -> Raft {
    let mut raft = raft(2, &[1, 1, 2, 2]);
    append(&mut raft, 3, (2, 1), &[], 4096);
    raft.stored(Nanos(1), Lsn(8192), &mut outbox(8192));
    raft
}

#[test]
fn they_stand_for_the_leaders_own_but_not_for_its_word_that_it_lives() {
    let mut raft = follower();
    let election = raft.deadline();
    let (skip, outputs) = take(&mut raft, 3, (2, 1), &[1, 3, 3], 8192);
    assert_eq!(skip, Some(0));
    assert!(outputs.contains(&Output::Truncated { from: Index(3) }));
    assert_eq!(ack(&outputs), (true, Index(5), After::Stored(Lsn(8192))));
    assert!(matches!(
        outputs.iter().find(|output| matches!(output, Output::Send { .. })),
        Some(Output::Send { to, .. }) if *to == node(1)
    ));
    assert_eq!((raft.last(), raft.commit()), (Index(5), Index(5)));
    assert_eq!(
        raft.deadline(),
        election,
        "it waits no longer for its leader"
    );
    // The leader goes on where they end; and what is here already is only acknowledged.
    let (skip, outputs) = append(&mut raft, 3, (5, 3), &[3], 8192);
    assert_eq!((skip, ack(&outputs).1), (Some(0), Index(6)));
    let (skip, outputs) = take(&mut raft, 3, (4, 3), &[3], 8192);
    assert_eq!((skip, ack(&outputs).1), (None, Index(5)));
}

#[test]
fn they_are_nothing_to_who_does_not_follow_in_that_term() {
    for term in [1, 2, 4] {
        let mut raft = follower();
        assert_eq!(take(&mut raft, term, (2, 1), &[1, 1], 8192), (None, vec![]));
        assert_eq!((raft.last(), raft.term()), (Index(4), Term(3)));
    }
    // Of a term whose leader has not spoken; a candidate; a leader.
    let mut silent = raft(2, &[1, 1]);
    assert_eq!(take(&mut silent, 1, (0, 0), &[1, 1], 4096), (None, vec![]));
    let mut leader = raft(1, &[]);
    let mut out = outbox(4096);
    leader.tick(leader.deadline(), &mut out);
    assert_eq!(take(&mut leader, 0, (0, 0), &[], 4096), (None, vec![]));
    elect(&mut leader, 4096);
    assert_eq!(take(&mut leader, 1, (1, 1), &[1], 8192), (None, vec![]));
    assert_eq!(leader.last(), Index(1));
}

#[test]
fn they_must_follow_what_is_known_to_match() {
    let mut raft = follower();
    for prev in [(3, 2), (4, 2), (5, 3), (2, 2), (1 << 61, 3)] {
        let (skip, outputs) = take(&mut raft, 3, prev, &[3], 8192);
        assert_eq!((skip, outputs), (None, vec![]), "behind {prev:?}");
    }
    // Nor may a claim that cannot be overrule what is known to match.
    let (skip, _) = take(&mut raft, 3, (1, 1), &[2, 3], 8192);
    assert_eq!(skip, None);
    assert_eq!((raft.last(), raft.commit()), (Index(4), Index(0)));
    assert_eq!(raft.faults().disagreement_count, 1);
    // A heartbeat of the leader shows that nothing else has changed.
    let beat = Beat {
        term: Term(3),
        commit: Index(9),
        durable: Index(9),
        round: 0,
    };
    raft.on_beat(Nanos(3), node(1), &beat, &mut outbox(8192));
    assert_eq!(raft.commit(), Index(2));
}
