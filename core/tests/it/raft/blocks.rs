//! Promises about blocks and answers: each test is a bug somebody had.

use ringwood_core::id::{GroupId, Index, Lsn, Nanos, Term};
use ringwood_core::limits::{PEER_WINDOW_SIZE, UNDECIDED_SIZE_MAX};
use ringwood_core::raft::{
    After, Beat, BeatAck, Bounds, Config, Message, Output, ProposeRefusal, Raft, Timeouts,
};

use super::host::node;

use super::alone::*;

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
        bounds: Bounds::STANDARD,
    };
    let mut raft = Raft::new(Nanos(0), config, raft.hard_state(), tail, Index(3));
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
