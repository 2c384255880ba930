//! One Raft and hand-made messages: each test is a bug somebody had.

use ringwood_core::id::{GroupId, Index, Lsn, Nanos, NodeId, Offset, Term};
use ringwood_core::limits::{PEER_WINDOW_SIZE, UNDECIDED_SIZE_MAX};
use ringwood_core::log::{Base, Entry, HardState, Place, Tail};
use ringwood_core::raft::{
    After, AppendRequest, Beat, BeatAck, BlockId, Config, Message, Outbox, Output, ProposeRefusal,
    Raft, Role, Timeouts,
};

use super::host::node;

const T: u64 = Timeouts::DEFAULT.election.0;

fn entry(term: u64, lsn: u64, size: u32) -> Entry {
    Entry {
        term: Term(term),
        size,
        sum: 0,
        place: Place {
            lsn: Lsn(lsn),
            offset: 64,
        },
        first_offset: Offset(0),
        record_count: 0,
    }
}

fn raft_in_group(group: u32, me: u64, count: u64, terms: &[u64]) -> Raft {
    let voters = (1..=count).map(node).collect();
    let config = Config {
        group: GroupId(group),
        me: node(me),
        voters,
        seed: 3,
    };
    let mut tail = Tail::new(Base::default());
    for term in terms {
        tail.push(entry(*term, 0, 64));
    }
    let hard = HardState {
        term: tail.last_term(),
        vote: None,
    };
    Raft::new(Nanos(0), config, hard, tail)
}

fn raft(me: u64, terms: &[u64]) -> Raft {
    raft_in_group(0, me, 3, terms)
}

fn outbox(lsn: u64) -> Outbox {
    Outbox {
        lsn: Lsn(lsn),
        list: Vec::new(),
    }
}

/// Steps one message with the open run at `lsn`.
fn step(raft: &mut Raft, now: u64, from: u64, message: Message, lsn: u64) -> Vec<Output> {
    let mut out = outbox(lsn);
    raft.step(Nanos(now), node(from), message, &mut out);
    out.list
}

fn append(
    raft: &mut Raft,
    term: u64,
    prev: (u64, u64),
    terms: &[u64],
    lsn: u64,
) -> (Option<usize>, Vec<Output>) {
    let block = |(i, term): (usize, &u64)| BlockId {
        index: Index(prev.0 + 1 + i as u64),
        term: Term(*term),
    };
    let blocks: Vec<_> = terms.iter().enumerate().map(block).collect();
    let (prev_index, prev_term) = (Index(prev.0), Term(prev.1));
    let request = AppendRequest {
        term: Term(term),
        prev_index,
        prev_term,
        commit: Index(0),
        blocks: &blocks,
    };
    let mut out = outbox(lsn);
    let accepted = raft.append_entries(Nanos(1), node(1), &request, &mut out);
    if let Some(accepted) = accepted {
        let fresh: Vec<_> = terms[accepted.skip..]
            .iter()
            .map(|term| entry(*term, lsn, 64))
            .collect();
        raft.appended(Nanos(1), &fresh, &mut out);
    }
    (accepted.map(|accepted| accepted.skip), out.list)
}

/// The only acknowledgement among `outputs`.
fn ack(outputs: &[Output]) -> (bool, Index, After) {
    let acks = outputs.iter().filter_map(|output| match output {
        Output::Send {
            message: Message::AppendAck { matched, index, .. },
            after,
            ..
        } => Some((*matched, *index, *after)),
        _ => None,
    });
    let acks: Vec<_> = acks.collect();
    assert_eq!(acks.len(), 1);
    acks[0]
}

fn vote_request(term: u64, last: (u64, u64), pre: bool, transfer: bool) -> Message {
    let (last_index, last_term) = (Index(last.0), Term(last.1));
    Message::VoteRequest {
        pre,
        transfer,
        term: Term(term),
        last_index,
        last_term,
    }
}

fn vote_reply(term: u64, pre: bool, granted: bool, voter_term: u64) -> Message {
    Message::VoteReply {
        pre,
        granted,
        term: Term(term),
        voter_term: Term(voter_term),
    }
}

fn matched(term: u64, index: u64) -> Message {
    let (term, index) = (Term(term), Index(index));
    Message::AppendAck {
        term,
        matched: true,
        index,
        conflict_term: Term(0),
        prev_index: Index(0),
    }
}

fn granted(outputs: &[Output]) -> bool {
    outputs.iter().any(|output| {
        matches!(
            output,
            Output::Send {
                message: Message::VoteReply { granted: true, .. },
                ..
            }
        )
    })
}

/// Elects `raft`, node 1, with node 2's help; the run at `lsn` holds its vote and its no-op.
fn elect(raft: &mut Raft, lsn: u64) {
    let now = raft.deadline();
    let mut out = outbox(lsn);
    raft.tick(now, &mut out);
    let term = raft.term().0 + 1;
    step(raft, now.0, 2, vote_reply(term, true, true, term - 1), lsn);
    assert_eq!((raft.role(), raft.term()), (Role::Candidate, Term(term)));
    raft.stored(now, Lsn(lsn + 4096), &mut out);
    step(
        raft,
        now.0,
        2,
        vote_reply(term, false, true, term),
        lsn + 4096,
    );
    assert!(raft.is_leader());
    raft.propose(entry(term, lsn + 4096, 64));
}

#[test]
fn a_repeated_answer_waits_for_the_run_of_the_blocks_and_not_for_the_open_one() {
    let mut raft = raft(2, &[]);
    append(&mut raft, 0, (0, 0), &[], 4096);
    raft.stored(Nanos(1), Lsn(4096), &mut outbox(4096));
    let (skip, outputs) = append(&mut raft, 0, (0, 0), &[0, 0], 4096);
    assert_eq!(
        (skip, ack(&outputs)),
        (Some(0), (true, Index(2), After::Stored(Lsn(4096))))
    );
    let (skip, outputs) = append(&mut raft, 0, (0, 0), &[0, 0], 8192);
    assert_eq!(
        (skip, ack(&outputs)),
        (None, (true, Index(2), After::Stored(Lsn(4096))))
    );
    let (skip, outputs) = append(&mut raft, 0, (1, 0), &[0, 0], 8192);
    assert_eq!(
        (skip, ack(&outputs)),
        (Some(1), (true, Index(3), After::Stored(Lsn(8192))))
    );
    raft.stored(Nanos(1), Lsn(8192), &mut outbox(8192));
    let (_, outputs) = append(&mut raft, 0, (0, 0), &[0, 0], 8192);
    assert_eq!(ack(&outputs), (true, Index(2), After::Now));
}

#[test]
fn an_answer_about_old_blocks_waits_for_the_new_term() {
    let mut raft = raft(2, &[1, 1]);
    let beat = Beat {
        term: Term(2),
        commit: Index(0),
        durable: Index(2),
        round: 0,
    };
    let mut out = outbox(8192);
    let answer = raft.on_beat(Nanos(1), node(1), &beat, &mut out);
    assert_eq!(
        answer,
        BeatAck {
            term: Term(2),
            round: 0,
            durable: Index(0)
        }
    );
    let (_, outputs) = append(&mut raft, 2, (0, 0), &[1, 1], 12288);
    assert_eq!(ack(&outputs), (true, Index(2), After::Stored(Lsn(8192))));
    let answer = raft.on_beat(Nanos(1), node(1), &beat, &mut out);
    assert_eq!(
        answer.durable,
        Index(0),
        "the term could still be forgotten"
    );
    raft.stored(Nanos(1), Lsn(12288), &mut out);
    let answer = raft.on_beat(Nanos(1), node(1), &beat, &mut out);
    assert_eq!(answer.durable, Index(2));
}

#[test]
fn cutting_the_log_lowers_what_is_durable() {
    let mut raft = raft(2, &[1, 1, 1]);
    assert_eq!(raft.durable(), Index(3));
    let (_, outputs) = append(&mut raft, 2, (1, 1), &[2, 2, 2], 8192);
    assert!(outputs.contains(&Output::Truncated { from: Index(2) }));
    assert_eq!((raft.durable(), raft.last()), (Index(1), Index(4)));
    assert_eq!(ack(&outputs), (true, Index(4), After::Stored(Lsn(8192))));
}

#[test]
fn an_old_short_message_cuts_nothing_and_speaks_for_itself_only() {
    let mut raft = raft(2, &[1, 1, 1]);
    let (skip, outputs) = append(&mut raft, 1, (0, 0), &[1], 8192);
    assert_eq!(
        (skip, ack(&outputs).1, raft.last()),
        (None, Index(1), Index(3))
    );
}

#[test]
fn a_heartbeat_commits_only_what_is_known_to_match() {
    let mut raft = raft(2, &[1, 1, 1]);
    append(&mut raft, 2, (1, 1), &[], 8192);
    raft.stored(Nanos(1), Lsn(12288), &mut outbox(12288));
    let beat = Beat {
        term: Term(2),
        commit: Index(3),
        durable: Index(3),
        round: 0,
    };
    let answer = raft.on_beat(Nanos(1), node(1), &beat, &mut outbox(12288));
    assert_eq!((raft.commit(), answer.durable), (Index(1), Index(1)));
    // What was known of one term's leader says nothing about the next one's.
    let beat = Beat {
        term: Term(3),
        ..beat
    };
    raft.on_beat(Nanos(1), node(3), &beat, &mut outbox(12288));
    assert_eq!(raft.commit(), Index(1));
}

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
fn the_leader_counts_itself_only_when_durable_but_may_commit_before() {
    let mut raft = raft(1, &[]);
    elect(&mut raft, 4096);
    let now = raft.deadline().0 - 1;
    step(&mut raft, now, 2, matched(1, 1), 8192);
    assert_eq!(raft.commit(), Index(0), "one disk of three");
    step(&mut raft, now, 3, matched(1, 1), 8192);
    assert_eq!((raft.commit(), raft.durable()), (Index(1), Index(0)));
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
fn contradictions_are_counted_and_get_no_answer() {
    let mut raft = raft(2, &[1, 1]);
    append(&mut raft, 1, (2, 1), &[], 4096);
    let beat = Beat {
        term: Term(1),
        commit: Index(2),
        durable: Index(2),
        round: 0,
    };
    raft.on_beat(Nanos(1), node(1), &beat, &mut outbox(4096));
    assert_eq!(raft.commit(), Index(2));
    assert_eq!(
        raft.on_beat(Nanos(1), node(3), &beat, &mut outbox(4096))
            .durable,
        Index(0)
    );
    let (skip, outputs) = append(&mut raft, 2, (1, 1), &[2], 4096);
    assert_eq!(
        (skip, raft.last()),
        (None, Index(2)),
        "committed blocks are never cut"
    );
    assert!(
        !outputs
            .iter()
            .any(|output| matches!(output, Output::Send { .. }))
    );
    assert_eq!(raft.faults().disagreement_count, 2);
}

fn replicates(raft: &mut Raft, now: u64) -> Vec<(NodeId, Index, Index)> {
    let mut out = outbox(1 << 40);
    raft.flush(Nanos(now), &mut out);
    let spans = out.list.iter().filter_map(|output| match output {
        Output::Replicate {
            to, first, last, ..
        } => Some((*to, *first, *last)),
        _ => None,
    });
    spans.collect()
}

#[test]
fn a_turn_is_one_message_per_peer_and_the_window_holds_back_the_rest() {
    let mut raft = raft(1, &[]);
    elect(&mut raft, 4096);
    let now = raft.deadline().0 - 1;
    replicates(&mut raft, now);
    for peer in [2, 3] {
        step(&mut raft, now, peer, matched(1, 1), 8192);
    }
    for _ in 0..10 {
        raft.propose(entry(1, 8192, 256));
    }
    let sent = replicates(&mut raft, now);
    assert_eq!(sent, [2, 3].map(|to| (node(to), Index(2), Index(11))));
    assert_eq!(replicates(&mut raft, now), [], "nothing is sent twice");
    let size = 1 << 20;
    let fit = PEER_WINDOW_SIZE / u64::from(size);
    for _ in 0..fit + 4 {
        raft.propose(entry(1, 8192, size));
    }
    let sent = replicates(&mut raft, now);
    let to_two: Vec<_> = sent.iter().filter(|(to, ..)| *to == node(2)).collect();
    assert_eq!(
        to_two.last().unwrap().2,
        Index(11 + fit - 1),
        "one less, for the ten before"
    );
    assert!(to_two.len() as u64 <= fit / 2 + 1, "in full frames");
    assert_eq!(replicates(&mut raft, now), []);
    step(&mut raft, now, 2, matched(1, 13), 8192);
    // Two blocks and the ten before them were answered: room for three.
    let sent = replicates(&mut raft, now);
    assert_eq!(sent.last().unwrap().2, Index(11 + fit - 1 + 3));
}

#[test]
fn a_full_group_refuses_but_its_next_leader_may_still_decide() {
    let mut raft = raft(1, &[]);
    elect(&mut raft, 4096);
    let size = 1 << 20;
    let mut count = 0;
    while raft.can_propose().is_ok() {
        raft.propose(entry(1, 8192, size));
        count += 1;
    }
    assert_eq!(raft.can_propose(), Err(ProposeRefusal::Full));
    assert!(count * u64::from(size) <= UNDECIDED_SIZE_MAX);
    let now = raft.deadline().0 - 1;
    step(&mut raft, now, 3, vote_reply(1, false, false, 2), 8192);
    assert_eq!(
        raft.can_propose(),
        Err(ProposeRefusal::NotLeader { leader: None })
    );
    elect(&mut raft, 12288);
    assert_eq!(raft.can_propose(), Err(ProposeRefusal::Full));
    let last = raft.last().0;
    raft.stored(Nanos(now), Lsn(1 << 20), &mut outbox(1 << 20));
    step(&mut raft, now, 2, matched(3, last), 1 << 20);
    assert_eq!(raft.commit(), Index(last));
    assert_eq!(raft.can_propose(), Ok(()));
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
fn some_headers_stay_for_followers_that_lag_a_little() {
    let mut raft = raft_in_group(0, 1, 1, &[]);
    raft.tick(Nanos(0), &mut outbox(4096));
    raft.stored(Nanos(0), Lsn(8192), &mut outbox(8192));
    for _ in 0..3000 {
        raft.propose(entry(1, 8192, 64));
    }
    raft.stored(Nanos(0), Lsn(12288), &mut outbox(12288));
    assert_eq!(raft.commit(), Index(3000));
    raft.released(Index(500));
    assert_eq!(raft.tail().base().index, Index(500));
    raft.released(Index(3000));
    assert_eq!(raft.tail().base().index, Index(3000 - 1024));
    assert_eq!(
        raft.deadline(),
        Nanos(u64::MAX),
        "alone, it waits for nothing"
    );
}

#[test]
fn a_place_below_the_base_matches_for_it_is_committed() {
    let mut raft = raft(2, &[1, 1, 2, 2]);
    append(&mut raft, 2, (4, 2), &[], 4096);
    let beat = Beat {
        term: Term(2),
        commit: Index(4),
        durable: Index(4),
        round: 0,
    };
    raft.on_beat(Nanos(1), node(1), &beat, &mut outbox(4096));
    assert_eq!(raft.commit(), Index(4));
    // As after a restart from segments that hold three blocks.
    let mut tail = raft.tail().clone();
    tail.release_through(Index(3));
    let config = Config {
        group: GroupId(0),
        me: node(2),
        voters: [1, 2, 3].map(node).into(),
        seed: 3,
    };
    let mut raft = Raft::new(Nanos(0), config, raft.hard_state(), tail);
    let (skip, outputs) = append(&mut raft, 2, (1, 1), &[1, 2, 2, 2], 8192);
    assert_eq!((skip, raft.last()), (Some(3), Index(5)));
    assert_eq!(ack(&outputs), (true, Index(5), After::Stored(Lsn(8192))));
    let (skip, outputs) = append(&mut raft, 2, (0, 0), &[1], 8192);
    assert_eq!(
        (skip, ack(&outputs)),
        (None, (true, Index(3), After::Now)),
        "and all below too"
    );
    assert_eq!(raft.faults().disagreement_count, 0);
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

#[test]
fn a_chunk_goes_on_where_the_last_one_ended() {
    let mut raft = raft(1, &[]);
    elect(&mut raft, 4096);
    let now = raft.deadline().0 - 1;
    for _ in 0..9 {
        raft.propose(entry(1, 8192, 64));
    }
    replicates(&mut raft, now);
    let mut out = outbox(8192);
    raft.missed(Nanos(now), node(2), Index(1), &mut out);
    assert_eq!(
        out.list,
        [Output::CatchUp {
            to: node(2),
            next: Index(1)
        }]
    );
    assert!(
        replicates(&mut raft, now).is_empty(),
        "the shard has the word"
    );
    raft.caught_up(Nanos(now), node(2), Index(4), 256, &mut out);
    assert!(
        replicates(&mut raft, now).is_empty(),
        "a probe, as it was before"
    );
    step(&mut raft, now, 2, matched(1, 4), 8192);
    assert_eq!(replicates(&mut raft, now), [(node(2), Index(5), Index(10))]);
    raft.missed(Nanos(now), node(2), Index(5), &mut out);
    raft.on_peer_connected(node(2));
    assert_eq!(
        replicates(&mut raft, now),
        [(node(2), Index(5), Index(10))],
        "links are new"
    );
    out.list.clear();
    raft.caught_up(Nanos(now), node(2), Index(7), 256, &mut out);
    assert!(out.list.is_empty(), "that chunk was for the old ones");
    raft.missed(Nanos(now), node(2), Index(5), &mut out);
    raft.catch_up_failed(node(2));
    assert!(replicates(&mut raft, now).is_empty(), "not within the turn");
    let later = now + 2 * Timeouts::DEFAULT.heartbeat.0;
    raft.tick(Nanos(later), &mut out);
    let sent = replicates(&mut raft, later);
    assert!(sent.contains(&(node(2), Index(5), Index(10))));
}

#[test]
fn a_refusal_of_an_older_leadership_of_the_same_node_is_no_answer_to_this_one() {
    let mut follower = raft(2, &[1, 1]);
    let beat = Beat {
        term: Term(3),
        commit: Index(0),
        durable: Index(0),
        round: 0,
    };
    follower.on_beat(Nanos(1), node(1), &beat, &mut outbox(4096));
    let (_, outputs) = append(&mut follower, 1, (2, 1), &[1], 4096);
    let Output::Send { message, .. } = outputs[0] else {
        panic!("{outputs:?}")
    };
    let mut raft = raft(1, &[1, 1]);
    elect(&mut raft, 4096);
    let now = raft.deadline().0 - 1;
    let before = raft.progress(node(2)).unwrap().next();
    if let Message::AppendAck { prev_index, .. } = message {
        let answer = Message::AppendAck {
            term: raft.term(),
            matched: false,
            index: Index(0),
            conflict_term: Term(0),
            prev_index,
        };
        step(&mut raft, now, 2, answer, 8192);
    }
    assert_eq!(raft.progress(node(2)).unwrap().next(), before);
    assert_eq!(raft.faults().malformed_count, 0);
}
