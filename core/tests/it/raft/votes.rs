//! Promises about terms and votes: each test is a bug somebody had.

use std::collections::BTreeSet;

use ringwood_core::id::{Index, Lsn, Nanos, Term};
use ringwood_core::raft::{After, Message, Output, Role, Timeouts};

use super::host::node;

use super::alone::*;

#[test]
fn answers_and_votes_of_older_terms_are_not_counted() {
    let mut raft = raft(1, &[]);
    elect(&mut raft, 4096);
    raft.propose(entry(1, 8192, 64));
    let now = raft.deadline().0;
    step(&mut raft, now, 3, vote_reply(1, false, false, 2), 8192);
    assert_eq!((raft.role(), raft.term()), (Role::Follower, Term(2)));
    elect(&mut raft, 12288);
    assert_eq!(raft.term(), Term(3));
    step(&mut raft, now, 2, matched(1, 2), 20480);
    assert_eq!(raft.progress(node(2)).unwrap().matched(), Index(0));
    step(&mut raft, now, 2, matched(3, 2), 20480);
    assert_eq!(raft.progress(node(2)).unwrap().matched(), Index(2));
    assert_eq!(
        raft.commit(),
        Index(0),
        "two blocks of term 1 on two of three are not committed"
    );
    raft.stored(Nanos(now), Lsn(20480), &mut outbox(20480));
    step(&mut raft, now, 2, matched(3, 3), 20480);
    assert_eq!(raft.commit(), Index(3));

    let mut raft = self::raft(1, &[]);
    let now = raft.deadline();
    raft.tick(now, &mut outbox(4096));
    step(&mut raft, now.0, 2, vote_reply(1, true, true, 0), 4096);
    step(&mut raft, now.0, 3, vote_reply(1, true, true, 0), 4096);
    raft.stored(now, Lsn(8192), &mut outbox(8192));
    assert_eq!(raft.role(), Role::Candidate, "a pre-vote is no vote");
    step(&mut raft, now.0, 2, vote_reply(0, false, true, 0), 8192);
    assert_eq!(raft.role(), Role::Candidate, "nor is one of an older term");
}

#[test]
fn a_leader_in_contact_is_shielded_from_all_but_itself_and_its_transfer() {
    let contact = || {
        let mut raft = raft(2, &[1]);
        append(&mut raft, 1, (1, 1), &[], 4096);
        raft
    };
    for pre in [true, false] {
        let mut raft = contact();
        assert!(!granted(&step(
            &mut raft,
            T - 1,
            3,
            vote_request(2, (9, 1), pre, false),
            4096
        )));
        assert_eq!(raft.term(), Term(1), "a refused vote raises no term");
        assert!(granted(&step(
            &mut raft,
            T + 1,
            3,
            vote_request(2, (9, 1), pre, false),
            4096
        )));
        let mut raft = contact();
        assert!(granted(&step(
            &mut raft,
            2,
            1,
            vote_request(2, (9, 1), pre, false),
            4096
        )));
    }
    assert!(granted(&step(
        &mut contact(),
        2,
        3,
        vote_request(2, (9, 1), false, true),
        4096
    )));
    let mut raft = contact();
    raft.on_peer_refused(Nanos(2), node(1), &mut outbox(4096));
    assert!(granted(&step(
        &mut raft,
        2,
        3,
        vote_request(2, (9, 1), true, false),
        4096
    )));
}

#[test]
fn a_patient_voter_does_not_keep_the_others_waiting() {
    let mut raft = raft(2, &[1]);
    raft.set_timeouts(Timeouts {
        election: Nanos(20 * T),
        patience: Nanos(T),
        ..*raft.timeouts()
    });
    append(&mut raft, 1, (1, 1), &[], 4096);
    for (now, is_granted) in [(T - 1, false), (T + 1, true)] {
        let asked = vote_request(2, (9, 1), true, false);
        assert_eq!(
            granted(&step(&mut raft, now, 3, asked, 4096)),
            is_granted,
            "{now}"
        );
    }
    assert!(raft.deadline() > Nanos(20 * T), "its own T is for itself");
}

#[test]
fn a_leader_does_not_leave_for_a_vote_request() {
    let mut raft = raft(1, &[]);
    elect(&mut raft, 4096);
    let now = raft.deadline().0 - 1;
    for pre in [true, false] {
        assert!(!granted(&step(
            &mut raft,
            now,
            3,
            vote_request(9, (9, 1), pre, false),
            8192
        )));
        assert!(raft.is_leader());
    }
    assert!(granted(&step(
        &mut raft,
        now,
        3,
        vote_request(9, (9, 1), false, true),
        8192
    )));
    assert_eq!((raft.role(), raft.term()), (Role::Follower, Term(9)));
}

#[test]
fn logs_are_compared_by_term_and_then_by_length() {
    for (last, expected) in [
        ((3, 2), true),
        ((2, 3), true),
        ((2, 2), false),
        ((9, 1), false),
    ] {
        for pre in [true, false] {
            let mut raft = raft(2, &[1, 2, 2]);
            let outputs = step(&mut raft, 0, 3, vote_request(7, last, pre, false), 4096);
            assert_eq!(granted(&outputs), expected, "{last:?}");
        }
    }
}

#[test]
fn a_vote_is_repeated_to_the_same_candidate_and_refused_to_others() {
    let mut raft = raft(2, &[]);
    assert!(granted(&step(
        &mut raft,
        0,
        3,
        vote_request(1, (0, 0), false, false),
        4096
    )));
    let outputs = step(&mut raft, 0, 3, vote_request(1, (0, 0), false, false), 8192);
    assert!(granted(&outputs));
    assert_eq!(outputs.len(), 1, "nothing new is persisted");
    assert!(matches!(
        outputs[0],
        Output::Send {
            after: After::Stored(Lsn(4096)),
            ..
        }
    ));
    assert!(!granted(&step(
        &mut raft,
        0,
        1,
        vote_request(1, (9, 0), false, false),
        8192
    )));
}

#[test]
fn a_granted_pre_vote_does_not_put_off_the_own_election() {
    let mut raft = raft(2, &[]);
    let deadline = raft.deadline();
    assert!(granted(&step(
        &mut raft,
        5,
        3,
        vote_request(1, (0, 0), true, false),
        4096
    )));
    assert_eq!((raft.deadline(), raft.term()), (deadline, Term(0)));
}

#[test]
fn a_refused_pre_vote_teaches_the_higher_term() {
    let mut raft = raft(1, &[]);
    let now = raft.deadline();
    raft.tick(now, &mut outbox(4096));
    step(&mut raft, now.0, 2, vote_reply(1, true, false, 5), 4096);
    assert_eq!((raft.role(), raft.term()), (Role::Follower, Term(5)));
}

#[test]
fn impossible_numbers_and_strangers_change_nothing() {
    let mut raft = raft(2, &[1]);
    let huge = u64::MAX;
    let nonsense = [
        matched(huge, 1),
        matched(1, huge),
        vote_request(huge, (1, 1), false, true),
        vote_request(2, (huge, 1), false, true),
        vote_request(2, (1, 3), false, true),
        vote_reply(huge, false, false, huge),
        Message::TimeoutNow { term: Term(huge) },
    ];
    for message in nonsense {
        assert!(
            step(&mut raft, 1, 1, message, 4096).is_empty(),
            "{message:?}"
        );
    }
    let (skip, outputs) = append(&mut raft, huge, (0, 0), &[1], 4096);
    assert_eq!((skip, outputs.len()), (None, 0));
    for terms in [[2, 1], [3, 9]] {
        assert!(
            append(&mut raft, 3, (1, 1), &terms, 4096).1.is_empty(),
            "terms go down"
        );
    }
    assert_eq!(raft.faults().malformed_count, 10);
    assert!(step(&mut raft, 1, 8, matched(9, 1), 4096).is_empty());
    assert!(step(&mut raft, 1, 2, matched(9, 1), 4096).is_empty());
    assert_eq!(raft.faults().unknown_sender_count, 2);
    assert_eq!((raft.term(), raft.last()), (Term(1), Index(1)));
}

#[test]
fn a_dead_leaders_groups_spread_over_the_others() {
    let mut first = [0; 6];
    for group in 0..12 {
        for me in 2..=5 {
            let mut raft = raft_in_group(group, me, 5, &[]);
            append(&mut raft, 0, (0, 0), &[], 4096);
            raft.on_peer_refused(Nanos(2), node(1), &mut outbox(4096));
            let rank = raft.deadline().since(Nanos(2)).0 / Nanos::from_millis(3).0;
            if raft.role() == Role::PreCandidate {
                first[me as usize] += 1;
            } else {
                assert!((1..4).contains(&rank), "{rank}");
            }
        }
    }
    assert_eq!(first, [0, 0, 3, 3, 3, 3]);
}

#[test]
fn a_candidate_counts_its_own_vote_only_when_durable() {
    let mut raft = raft_in_group(0, 1, 1, &[]);
    raft.tick(Nanos(0), &mut outbox(8192));
    raft.stored(Nanos(0), Lsn(8192), &mut outbox(8192));
    assert_eq!(raft.role(), Role::Candidate);
    // A disk slower than T does not make it begin again.
    raft.tick(raft.deadline(), &mut outbox(8192));
    assert_eq!((raft.role(), raft.term()), (Role::Candidate, Term(1)));
    raft.stored(Nanos(0), Lsn(12288), &mut outbox(12288));
    assert_eq!(raft.role(), Role::Leader);
}

/// Two candidates of three voters, and the third is gone: neither wins nor loses. On long ways both
/// waited for exactly as long as votes are waited for at most, and began again at the same moment.
#[test]
fn candidates_part_however_long_votes_are_waited_for() {
    let mut raft = raft(1, &[]);
    raft.set_timeouts(Timeouts {
        election: Nanos::from_millis(2_000),
        patience: Nanos::from_millis(2_000),
        spread: Nanos::from_millis(1_000),
        heartbeat: Nanos::from_millis(400),
        rtt: Nanos::from_millis(100),
    });
    let mut waits = BTreeSet::new();
    for term in 1..=8 {
        let (now, lsn) = (raft.deadline(), 8192 * term);
        raft.tick(now, &mut outbox(lsn));
        let reply = vote_reply(term, true, true, term - 1);
        step(&mut raft, now.0, 2, reply, lsn);
        raft.stored(now, Lsn(lsn + 4096), &mut outbox(lsn + 4096));
        assert_eq!((raft.role(), raft.term()), (Role::Candidate, Term(term)));
        waits.insert(raft.deadline().since(now));
    }
    assert_eq!(waits.len(), 8, "each time by chance: {waits:?}");
}
