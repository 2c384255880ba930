//! Stories of fetches, transfers, surveys, and of connections that go wrong.

use super::*;
use crate::frame::Kind;
use crate::frame::client::{TransferReply, TrimReply};
use crate::frame::code::{RefusedReason, TransferOutcome, TrimOutcome};
use crate::frame::greeting::Refused;

#[test]
fn each_end_of_a_fetch_is_told() {
    let end_offset = Offset(10);
    let first_offset = Offset(2);
    let rows = [
        (FetchOutcome::UnknownLog, AskError::UnknownLog),
        (FetchOutcome::BeyondEnd, AskError::BeyondEnd { end_offset }),
        (FetchOutcome::Trimmed, AskError::Trimmed { first_offset }),
    ];
    for (outcome, error) in rows {
        let (mut rig, a) = Rig::led();
        rig.fetch(ms(0), ReadMode::Committed);
        let (_, fetch) = rig.take_fetch();
        rig.reply(a, &fetch_reply(fetch.request, outcome, 1, 1));
        assert_eq!(rig.fetched.pop().unwrap().unwrap_err(), error);
    }
}

impl Rig {
    fn fetch(&mut self, wait: Nanos, mode: ReadMode) {
        self.input(Input::Fetch {
            group: GROUP,
            token: 1,
            request: FetchRequest {
                from: Offset(5),
                size_max: 1 << 20,
                wait,
                mode,
            },
        });
    }
}

#[test]
fn a_fetch_waits_in_pieces_and_goes_on_at_the_next_leader() {
    let (mut rig, a) = Rig::led();
    rig.fetch(ms(3_000), ReadMode::Linearizable);
    let (_, fetch) = rig.take_fetch();
    assert_eq!((fetch.wait_us, fetch.mode), (1_000_000, 1));
    rig.pass(ms(1_000));
    rig.reply(a, &fetch_reply(fetch.request, FetchOutcome::Ok, 1, 1));
    let (_, fetch) = rig.take_fetch();
    assert_eq!((fetch.wait_us, fetch.from), (1_000_000, 5));
    rig.reply(
        a,
        &fetch_reply(fetch.request, FetchOutcome::NotLeader, 2, B.0),
    );
    while rig.dials.front().is_some_and(|(_, node)| *node != B) {
        rig.accept();
    }
    rig.sent.clear();
    let (b, _) = rig.accept();
    let (to, fetch) = rig.take_fetch();
    assert_eq!((to, fetch.from), (b, 5));
    let reply = fetch_reply(fetch.request, FetchOutcome::Ok, 2, B.0);
    rig.reply_with(b, &reply, b"0123456789abcdef");
    let fetched = rig.fetched.pop().unwrap().unwrap();
    assert_eq!(&fetched.blocks[..], b"0123456789abcdef");
    assert!(fetched.records(Offset(0)).is_err(), "which is no block");
}

#[test]
fn a_fetch_from_any_replica_goes_to_whoever_is_there() {
    let mut rig = Rig::new(config(TIMEOUT, 1));
    let (a, _) = rig.accept();
    rig.fetch(ms(0), ReadMode::AnyReplica);
    let (to, fetch) = rig.take_fetch();
    assert_eq!((to, fetch.from), (a, 5));
    rig.reply(a, &fetch_reply(fetch.request, FetchOutcome::Ok, 2, 0));
    assert!(rig.fetched.pop().unwrap().is_ok());
}

#[test]
fn a_question_without_an_answer_says_what_was_missing() {
    let mut rig = Rig::new(config(TIMEOUT, 1));
    rig.fetch(ms(0), ReadMode::Committed);
    rig.pass(ms(5_100));
    assert_eq!(
        rig.fetched.pop().unwrap().unwrap_err(),
        AskError::Unreachable
    );
    let mut rig = Rig::new(config(TIMEOUT, 1));
    rig.accept();
    rig.fetch(ms(0), ReadMode::Committed);
    rig.answer_probe(FetchOutcome::NotLeader, 1, 0);
    for _ in 0..60 {
        rig.pass(ms(100));
        while let Some((connection, Sent::Fetch(probe))) = rig.sent.pop_front() {
            let reply = fetch_reply(probe.request, FetchOutcome::NotLeader, 1, 0);
            rig.reply(connection, &reply);
        }
        rig.dials.clear();
    }
    assert_eq!(rig.fetched.pop().unwrap().unwrap_err(), AskError::NoLeader);
    let (mut rig, _) = Rig::led();
    rig.fetch(ms(0), ReadMode::Committed);
    for _ in 0..11 {
        rig.pass(ms(490));
        rig.dials.clear();
        rig.sent.clear();
    }
    assert!(rig.fetched.pop().unwrap().is_err());
}

#[test]
fn a_transfer_is_asked_after_until_the_new_leader_says_done() {
    let (mut rig, a) = Rig::led();
    rig.input(Input::Transfer {
        group: GROUP,
        token: 1,
        to: B,
    });
    let reply = |request, outcome: TransferOutcome, leader: NodeId| TransferReply {
        request,
        leader: leader.0,
        outcome: outcome.code(),
    };
    let take = |rig: &mut Rig| match rig.take_sent() {
        (connection, Sent::Transfer(transfer)) => (connection, transfer.request),
        other => panic!("not a transfer: {other:?}"),
    };
    let (_, request) = take(&mut rig);
    rig.reply(a, &reply(request, TransferOutcome::Started, A));
    rig.pass(ms(11));
    let (_, request) = take(&mut rig);
    rig.reply(a, &reply(request, TransferOutcome::NotLeader, B));
    while rig.dials.front().is_some_and(|(_, node)| *node != B) {
        rig.accept();
    }
    rig.sent.clear();
    let (b, _) = rig.accept();
    let (to, request) = take(&mut rig);
    assert_eq!(to, b);
    rig.reply(b, &reply(request, TransferOutcome::Done, B));
    assert_eq!(rig.transferred, [Ok(())]);
    let (mut rig, a) = Rig::led();
    rig.input(Input::Transfer {
        group: GROUP,
        token: 1,
        to: B,
    });
    let (_, request) = take(&mut rig);
    rig.reply(a, &reply(request, TransferOutcome::NotVoter, A));
    assert_eq!(rig.transferred, [Err(AskError::NotVoter)]);
}

#[test]
fn a_trim_is_asked_again_until_a_leader_has_an_answer_for_good() {
    let (mut rig, a) = Rig::led();
    let reply = |request, outcome: TrimOutcome, leader: NodeId| TrimReply {
        request,
        first_offset: 70,
        end_offset: 90,
        leader: leader.0,
        outcome: outcome.code(),
    };
    let take = |rig: &mut Rig| match rig.take_sent() {
        (connection, Sent::Trim(trim)) => {
            assert_eq!(trim.before, 64);
            (connection, trim.request)
        }
        other => panic!("not a trim: {other:?}"),
    };
    let ask = Input::Trim {
        group: GROUP,
        token: 1,
        before: Offset(64),
    };
    rig.input(ask);
    let (_, request) = take(&mut rig);
    rig.reply(a, &reply(request, TrimOutcome::Busy, A));
    assert!(rig.trimmed.is_empty());
    rig.pass(ms(11));
    let (_, request) = take(&mut rig);
    rig.reply(a, &reply(request, TrimOutcome::NotLeader, B));
    while rig.dials.front().is_some_and(|(_, node)| *node != B) {
        rig.accept();
    }
    rig.sent.clear();
    let (b, _) = rig.accept();
    let (to, request) = take(&mut rig);
    assert_eq!(to, b);
    rig.reply(b, &reply(request, TrimOutcome::Done, B));
    assert_eq!(rig.trimmed, [Ok(Offset(70))]);
    let (mut rig, a) = Rig::led();
    rig.input(Input::Trim {
        group: GROUP,
        token: 1,
        before: Offset(64),
    });
    let (_, request) = take(&mut rig);
    rig.reply(a, &reply(request, TrimOutcome::BeyondEnd, A));
    let end_offset = Offset(90);
    assert_eq!(rig.trimmed, [Err(AskError::BeyondEnd { end_offset })]);
}

#[test]
fn a_survey_tells_of_each_node_what_it_said_or_why_it_did_not() {
    let (mut rig, a) = Rig::led();
    rig.input(Input::Survey {
        token: 1,
        wish: Wish::Status,
        timeout: ms(800),
    });
    let (to, sent) = rig.take_sent();
    assert_eq!(to, a);
    let Sent::Status(request) = sent else {
        panic!("not a status request: {sent:?}");
    };
    let status = Status {
        request: request.request,
        node: A.0,
        ..Status::default()
    };
    rig.reply(a, &status);
    assert_eq!(rig.dials.len(), 2, "B and C are dialled for it");
    let (connection, node) = rig.dials.pop_front().unwrap();
    assert_eq!(node, B);
    let fault = LinkFault::Unreachable("refused".to_owned());
    rig.input(Input::Closed { connection, fault });
    assert!(rig.surveyed.is_empty(), "C may still come");
    rig.pass(ms(800));
    let reports = rig.surveyed.pop().unwrap();
    assert_eq!(reports[0].result.as_ref().unwrap().node, A.0);
    let unreachable = LinkFault::Unreachable("refused".to_owned());
    assert_eq!(reports[1].result.as_ref().unwrap_err(), &unreachable);
    assert_eq!(reports[2].result.as_ref().unwrap_err(), &LinkFault::Silent);
    assert_eq!((reports[2].node, &reports[2].name[..]), (Some(C), "node-3"));
}

#[test]
fn frames_that_have_no_place_here_cost_the_connection_and_nothing_else() {
    let (mut rig, a) = Rig::led();
    rig.reply(a, &StatusRequest { request: 1 });
    assert_eq!(rig.closed, [a]);
    let (mut rig, a) = Rig::led();
    rig.append(1);
    let (_, append) = rig.take_append();
    let senseless = AppendReply {
        outcome: 77,
        ..committed(append.request, 0, 1)
    };
    rig.reply(a, &senseless);
    assert_eq!(rig.closed, [a]);
    assert_eq!(rig.outcome_of(1), None);
    // An answer to nothing that was asked is let pass.
    let (mut rig, a) = Rig::led();
    rig.reply(a, &committed(12345, 0, 1));
    assert!(rig.closed.is_empty() && rig.outcomes.is_empty());
    // The first frame must be a welcome.
    let mut rig = Rig::new(config(TIMEOUT, 1));
    let (connection, _) = rig.dials.pop_front().unwrap();
    rig.input(Input::Connected { connection });
    rig.reply(connection, &committed(1, 0, 1));
    assert_eq!(rig.closed, [connection]);
    let unexpected = LinkFault::Unexpected(Kind::AppendReply);
    assert_eq!(rig.client.faults()[0].1, unexpected);
    assert!(rig.client.is_unreachable());
}

#[test]
fn a_refusal_of_the_connection_is_told_in_its_own_words() {
    let mut rig = Rig::new(config(TIMEOUT, 1));
    let (connection, _) = rig.dials.pop_front().unwrap();
    rig.input(Input::Connected { connection });
    let refused = Refused {
        detail: b"too many".to_vec(),
        reason: RefusedReason::Overloaded.code(),
    };
    rig.reply(connection, &refused);
    let fault = LinkFault::Refused {
        reason: Some(RefusedReason::Overloaded),
        detail: "too many".to_owned(),
    };
    assert_eq!(rig.client.faults(), [(address(A), fault)]);
}

#[test]
fn a_node_of_another_cluster_is_not_believed() {
    let (mut rig, a) = Rig::led();
    rig.append(1);
    rig.close(a);
    rig.pass(ms(5));
    let (connection, node) = rig.dials.pop_front().unwrap();
    rig.input(Input::Connected { connection });
    let other = Welcome {
        cluster: 0xD2_u128.to_le_bytes(),
        ..welcome(node)
    };
    rig.reply(connection, &other);
    assert!(rig.closed.contains(&connection));
    let other = |(_, fault): &(String, LinkFault)| matches!(fault, LinkFault::OtherCluster { .. });
    assert!(rig.client.faults().iter().any(other));
}

#[test]
fn a_node_that_owes_an_answer_for_too_long_loses_its_connection() {
    let (mut rig, a) = Rig::led();
    rig.append(1);
    rig.pass(ms(5_100));
    assert!(rig.closed.contains(&a));
    assert_eq!(rig.outcome_of(1), None, "the append goes on elsewhere");
}

#[test]
fn stopping_ends_everything_that_waits() {
    let (mut rig, a) = Rig::led();
    rig.append(1);
    rig.fetch(ms(100), ReadMode::Committed);
    rig.input(Input::Stop);
    assert_eq!(rig.outcome_of(1), Some(Outcome::Unknown));
    assert_eq!(rig.fetched.pop().unwrap().unwrap_err(), AskError::Stopped);
    assert_eq!(rig.closed, [a]);
    assert_eq!(rig.client.deadline(), None);
}

/// Answers every fetch that was sent, by the node it went to.
fn answer_fetches(rig: &mut Rig, outcomes: &mut dyn FnMut(ConnectionId) -> FetchOutcome) -> usize {
    let mut count = 0;
    while let Some((connection, sent)) = rig.sent.pop_front() {
        let Sent::Fetch(fetch) = sent else { continue };
        if fetch.from == u64::MAX {
            continue;
        }
        count += 1;
        let outcome = outcomes(connection);
        let blocks: &[u8] = match outcome {
            FetchOutcome::Ok => b"0123456789abcdef",
            _ => b"",
        };
        rig.reply_with(
            connection,
            &fetch_reply(fetch.request, outcome, 1, 1),
            blocks,
        );
    }
    count
}

#[test]
fn what_one_disk_has_lost_is_read_from_another() {
    for mode in [ReadMode::Committed, ReadMode::Linearizable] {
        let (mut rig, a) = Rig::led();
        rig.fetch(ms(0), mode);
        let (_, fetch) = rig.take_fetch();
        rig.reply(a, &fetch_reply(fetch.request, FetchOutcome::Damaged, 1, 1));
        let (b, _) = rig.accept();
        // It has not got so far yet; the third has.
        let (to, fetch) = rig.take_fetch();
        assert_eq!((to, fetch.mode), (b, ReadMode::AnyReplica.code()));
        rig.reply(
            b,
            &fetch_reply(fetch.request, FetchOutcome::BeyondEnd, 1, 1),
        );
        let (c, _) = rig.accept();
        let (to, fetch) = rig.take_fetch();
        assert_eq!((to, fetch.from), (c, 5));
        let reply = fetch_reply(fetch.request, FetchOutcome::Ok, 1, 1);
        rig.reply_with(c, &reply, b"0123456789abcdef");
        let fetched = rig.fetched.pop().unwrap().unwrap();
        assert_eq!(&fetched.blocks[..], b"0123456789abcdef");
        assert_eq!(fetched.end_offset, Offset(10));
    }
}

#[test]
fn what_all_disks_have_lost_is_asked_for_until_one_is_repaired() {
    for heals in [false, true] {
        let (mut rig, a) = Rig::led();
        rig.fetch(ms(0), ReadMode::Committed);
        let mut count = 0;
        for round in 0..60 {
            while !rig.dials.is_empty() {
                rig.accept();
            }
            count += answer_fetches(&mut rig, &mut |to| match to {
                to if heals && round > 20 && to == a => FetchOutcome::Ok,
                _ => FetchOutcome::Damaged,
            });
            rig.pass(ms(100));
        }
        // Not a storm either: three nodes, ten rounds a second, five seconds at most.
        assert!((10..200).contains(&count), "asked {count} times");
        let fetched = rig.fetched.pop().expect("it ends");
        assert_eq!(fetched.err(), (!heals).then_some(AskError::Damaged));
    }
}
