//! What a voter whose disk has lost something does not do, and what brings it back.

use ringwood_core::id::{Index, Lsn, Nanos, Term};
use ringwood_core::log::{Doubt, HardState};
use ringwood_core::raft::{AppendRequest, Beat, Message, Output, Raft, Report, Role};

use super::alone::*;
use super::host::node;

const LOG: Doubt = Doubt {
    log: true,
    vote: false,
    holes: false,
};
const VOTE: Doubt = Doubt {
    log: false,
    vote: true,
    holes: false,
};
/// Of the questions of the second round.
const NUMBER: u64 = 7;

/// Node 1 of `count`, with blocks of these terms; all others have answered once.
fn doubting(count: u64, terms: &[u64], doubt: Doubt) -> Raft {
    let mut raft = just_doubting(count, terms, doubt);
    for from in 2..=count {
        let first = Report {
            number: NUMBER - 1,
            ..told(1, (0, 0), 0, false)
        };
        hear(&mut raft, from, first, 4096);
    }
    raft
}

/// As `doubting`; nobody has answered.
fn just_doubting(count: u64, terms: &[u64], doubt: Doubt) -> Raft {
    let (config, hard, tail) = beginning(0, 1, count, terms);
    let number = NUMBER / 2;
    Raft::doubting(Nanos(0), config, hard, tail, Index(0), doubt, number)
}

fn told(term: u64, last: (u64, u64), commit: u64, is_leader: bool) -> Report {
    Report {
        number: NUMBER,
        term: Term(term),
        last_index: Index(last.0),
        last_term: Term(last.1),
        commit: Index(commit),
        doubt: Doubt::default(),
        is_leader,
        is_reply: true,
    }
}

fn hear(raft: &mut Raft, from: u64, report: Report, lsn: u64) -> Vec<Output> {
    step(raft, 1, from, Message::StateReport(report), lsn)
}

/// Whether it grants a vote asked for long after it heard anybody.
fn grants(raft: &mut Raft, term: u64, last: (u64, u64)) -> bool {
    let request = vote_request(term, last, false, false);
    granted(&step(raft, 10 * T, 2, request, 1 << 20))
}

fn blocks_of(raft: &mut Raft, term: u64, prev: (u64, u64), terms: &[u64], commit: u64, lsn: u64) {
    let blocks = blocks_behind(prev.0, terms);
    let request = AppendRequest {
        term: Term(term),
        prev_index: Index(prev.0),
        prev_term: Term(prev.1),
        commit: Index(commit),
        blocks: &blocks,
    };
    let mut out = outbox(lsn);
    let accepted = raft.append_entries(Nanos(1), node(2), &request, &mut out);
    if let Some(accepted) = accepted {
        let entries: Vec<_> = terms[accepted.skip..]
            .iter()
            .map(|term| entry(*term, lsn, 64))
            .collect();
        raft.appended(Nanos(1), &entries, &mut out);
    }
}

#[test]
fn in_doubt_nobody_campaigns_nor_votes_but_asks() {
    for doubt in [LOG, VOTE] {
        let mut raft = doubting(3, &[1, 1], doubt);
        let mut asked = 0;
        for _ in 0..50 {
            let now = raft.deadline();
            let mut out = outbox(4096);
            raft.tick(now, &mut out);
            assert_eq!((raft.role(), raft.term()), (Role::Follower, Term(1)));
            for output in out.list {
                let Output::Send { message, .. } = output else {
                    panic!("{output:?}");
                };
                assert!(matches!(message, Message::StateReport(report) if !report.is_reply));
                asked += 1;
            }
        }
        assert!(asked > 20, "both others, again and again: {asked}");
        for pre in [true, false] {
            let request = vote_request(9, (99, 9), pre, false);
            assert!(!granted(&step(&mut raft, 1 << 40, 2, request, 4096)));
        }
        let now = raft.term();
        let mut out = outbox(8192);
        raft.step(
            Nanos(1 << 40),
            node(2),
            Message::TimeoutNow { term: now },
            &mut out,
        );
        raft.on_peer_refused(Nanos(1 << 40), node(2), &mut out);
        assert_eq!(raft.role(), Role::Follower);
    }
}

#[test]
fn a_doubted_log_is_sure_again_with_what_its_leader_committed_in_its_term() {
    let mut raft = doubting(3, &[1, 1], LOG);
    blocks_of(&mut raft, 2, (2, 1), &[2], 0, 4096);
    raft.stored(Nanos(1), Lsn(8192), &mut outbox(8192));
    assert_eq!(raft.doubt(), LOG, "the leader has not said how far it is");
    // Committed, but of an older term: the leader's own may hold what was acknowledged before.
    hear(&mut raft, 2, told(2, (3, 2), 2, true), 8192);
    assert_eq!(raft.doubt(), LOG);
    // Of its term, but not all of it is here.
    hear(&mut raft, 2, told(2, (5, 2), 4, true), 8192);
    assert_eq!(raft.doubt(), LOG);
    blocks_of(&mut raft, 2, (3, 2), &[2, 2], 4, 8192);
    assert_eq!(raft.doubt(), LOG, "not durable");
    let mut out = outbox(12288);
    raft.stored(Nanos(1), Lsn(12288), &mut out);
    assert_eq!(raft.doubt(), Doubt::default());
    assert!(out.list.contains(&Output::Doubts(Doubt::default())));
    assert!(grants(&mut raft, 3, (5, 2)));
}

/// What a voter said before its loss may decide something until all know of the loss: who answered
/// before that may have more than it said.
#[test]
fn only_what_is_told_after_all_have_answered_counts() {
    let mut raft = just_doubting(3, &[1, 1], LOG);
    let first = |last: u64| Report {
        number: NUMBER - 1,
        ..told(1, (last, 1), 2, false)
    };
    hear(&mut raft, 3, first(2), 4096);
    // The leader had an acknowledgement of a third block, and the other one's came after its answer;
    // then it lost its own copy, which was not durable.
    let out = hear(&mut raft, 2, first(2), 4096);
    let asks = |output: &&Output| {
        matches!(output, Output::Send { message: Message::StateReport(report), .. }
            if !report.is_reply && report.number == NUMBER)
    };
    assert_eq!(out.iter().filter(asks).count(), 2, "at once");
    hear(&mut raft, 2, told(1, (2, 1), 2, false), 4096);
    assert!(!grants(&mut raft, 2, (2, 1)), "the other is silent");
    hear(&mut raft, 3, told(1, (3, 1), 2, false), 4096);
    assert!(!grants(&mut raft, 3, (2, 1)), "it has more");
    assert!(grants(&mut raft, 4, (3, 1)));
}

#[test]
fn an_answer_to_an_earlier_process_settles_nothing() {
    let mut raft = doubting(3, &[1, 1], LOG);
    blocks_of(&mut raft, 1, (2, 1), &[], 2, 4096);
    let stale = Report {
        number: NUMBER - 2,
        ..told(1, (2, 1), 2, true)
    };
    hear(&mut raft, 2, stale, 4096);
    let follower = told(1, (2, 1), 2, false);
    hear(&mut raft, 3, follower, 4096);
    assert_eq!(raft.doubt(), LOG);
    hear(&mut raft, 2, told(1, (2, 1), 2, true), 4096);
    assert_eq!(raft.doubt(), Doubt::default());
}

#[test]
fn a_lost_vote_is_made_up_for_in_the_highest_term_of_all() {
    let mut raft = doubting(3, &[1, 1], VOTE);
    // It may have promised itself to another: it follows nobody.
    blocks_of(&mut raft, 4, (2, 1), &[4], 0, 4096);
    assert_eq!((raft.last(), raft.leader()), (Index(2), None));
    let beat = Beat {
        term: Term(4),
        commit: Index(2),
        durable: Index(2),
        round: 3,
    };
    let ack = raft.on_beat(Nanos(1), node(2), &beat, &mut outbox(4096));
    assert_eq!((ack.round, ack.durable), (0, Index(0)));
    hear(&mut raft, 2, told(6, (3, 4), 2, false), 4096);
    assert_eq!(raft.doubt(), VOTE, "one is missing");
    // Two of three are a quorum: a leader may have been elected by them alone.
    let doubts = Report {
        doubt: VOTE,
        ..told(3, (2, 1), 2, false)
    };
    hear(&mut raft, 3, doubts, 4096);
    assert_eq!(raft.doubt(), VOTE);
    let out = hear(&mut raft, 3, told(5, (2, 1), 2, false), 8192);
    assert_eq!(raft.doubt(), Doubt::default());
    let barred = HardState {
        term: Term(6),
        vote: Some(node(1)),
    };
    assert!(out.contains(&Output::Doubts(Doubt::default())));
    assert!(out.contains(&Output::Persist(barred)) || raft.hard_state() == barred);
    assert!(
        !grants(&mut raft, 6, (9, 6)),
        "a vote may have been given there"
    );
    assert!(grants(&mut raft, 7, (9, 6)));
    // Two of five are not, and need not wait for each other.
    let mut raft = doubting(5, &[1, 1], VOTE);
    hear(
        &mut raft,
        2,
        Report {
            doubt: VOTE,
            ..told(3, (2, 1), 2, false)
        },
        4096,
    );
    for from in 3..=5 {
        assert_eq!(raft.doubt(), VOTE);
        hear(&mut raft, from, told(4, (2, 1), 2, false), 8192);
    }
    assert_eq!(raft.doubt(), Doubt::default());
}

#[test]
fn with_all_reports_a_doubter_helps_whoever_has_what_the_sure_ones_have() {
    let reports = |raft: &mut Raft| {
        hear(raft, 2, told(2, (4, 2), 3, false), 4096);
        hear(raft, 3, told(3, (5, 2), 3, false), 4096);
    };
    let mut raft = doubting(4, &[1, 1], LOG);
    reports(&mut raft);
    assert!(!grants(&mut raft, 4, (9, 4)), "one has not reported");
    hear(&mut raft, 4, told(5, (3, 2), 3, false), 1 << 20);
    assert!(!grants(&mut raft, 5, (5, 2)), "a term that was reported");
    assert!(!grants(&mut raft, 6, (4, 2)), "shorter than a sure one");
    assert!(grants(&mut raft, 7, (5, 2)));
    // With two more in doubt they are a quorum, and nobody can say what was committed.
    let mut raft = doubting(4, &[1, 1], LOG);
    reports(&mut raft);
    for from in [3, 4] {
        let doubts = Report {
            doubt: LOG,
            ..told(2, (3, 2), 3, false)
        };
        hear(&mut raft, from, doubts, 4096);
    }
    assert!(!grants(&mut raft, 9, (9, 9)));
    assert_eq!(raft.doubters().count(), 3);
}

#[test]
fn what_fills_a_hole_counts_though_segments_took_what_was_before_it() {
    let (mut config, hard, tail) = beginning(0, 1, 3, &[1, 1, 1]);
    config.bounds.tail_keep_count = 0;
    let holes = Doubt {
        holes: true,
        ..Doubt::default()
    };
    let mut whole = tail.clone();
    let mut raft = Raft::doubting(Nanos(0), config, hard, tail, Index(2), holes, 3);
    raft.stored(Nanos(1), Lsn(4096), &mut outbox(4096));
    raft.released(Index(2));
    assert_eq!(raft.tail().base().index, Index(2));
    for _ in 0..2 {
        whole.push(entry(1, 0, 64));
    }
    assert!(raft.restored(whole, Index(2), true, &mut outbox(4096)));
    assert_eq!((raft.last(), raft.doubt()), (Index(5), Doubt::default()));
}

/// That the last of a row of missing blocks counts for nobody says nothing of those before it.
#[test]
fn where_a_log_ends_that_gave_up_blocks_is_sure_if_nobody_can_have_the_first() {
    let holes = Doubt {
        holes: true,
        ..Doubt::default()
    };
    let gave_up = |others: &[(u64, Doubt)]| {
        let mut raft = doubting(4, &[1, 1], holes);
        for (from, (last, doubt)) in (2..).zip(others) {
            let report = Report {
                doubt: *doubt,
                ..told(2, (*last, 1), 2, false)
            };
            hear(&mut raft, from, report, 4096);
        }
        let has_given_up = raft.gave_up(&mut outbox(4096));
        (has_given_up, raft.doubt())
    };
    let sure = Doubt::default();
    // One has not reported.
    assert_eq!(gave_up(&[(2, sure), (2, sure)]), (false, holes));
    // Three of four are a quorum, the asker among them; who has lost blocks may have had any.
    assert_eq!(gave_up(&[(2, sure), (2, sure), (3, sure)]), (true, sure));
    assert_eq!(gave_up(&[(2, sure), (3, sure), (3, sure)]), (true, LOG));
    assert_eq!(gave_up(&[(2, sure), (3, sure), (2, LOG)]), (true, LOG));
}

#[test]
fn a_leader_forgets_what_a_peer_had_that_lost_it() {
    let mut raft = raft(1, &[1, 1]);
    elect(&mut raft, 4096);
    let term = raft.term().0;
    step(&mut raft, 1, 2, matched(term, 3), 8192);
    let has = |raft: &Raft| raft.progress(node(2)).expect("a peer").matched();
    assert_eq!(has(&raft), Index(3));
    let ask = |last: (u64, u64), doubt: Doubt| Report {
        doubt,
        is_reply: false,
        ..told(term, last, 0, false)
    };
    // As long a log as was acknowledged, and the same one: nothing is lost that counts.
    let out = hear(&mut raft, 2, ask((3, term), LOG), 8192);
    assert_eq!(has(&raft), Index(3));
    let is_answer = |output: &Output| {
        matches!(output, Output::Send { message: Message::StateReport(report), .. }
            if report.is_reply && report.is_leader && report.number == NUMBER)
    };
    assert!(out.iter().any(is_answer));
    // Another block there; and a shorter log.
    for last in [(3, term - 1), (2, 1)] {
        step(&mut raft, 1, 2, matched(term, 3), 8192);
        hear(&mut raft, 2, ask(last, LOG), 8192);
        assert_eq!(has(&raft), Index(0));
        assert!(raft.progress(node(2)).expect("a peer").next() <= Index(last.0 + 1));
    }
}
