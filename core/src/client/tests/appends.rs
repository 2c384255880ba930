//! Stories of appends: what a client does when a node answers this, or nothing.

use super::*;
use crate::limits::PRODUCER_WINDOW;

#[test]
fn a_client_says_hello_finds_the_leader_and_appends() {
    let mut rig = Rig::new(config(TIMEOUT, 1));
    rig.append(1);
    assert!(rig.sent.is_empty(), "nobody is there yet");
    let (connection, node) = rig.dials.pop_front().unwrap();
    rig.input(Input::Connected { connection });
    let (_, hello) = rig.take_sent();
    assert!(matches!(hello, Sent::Hello(hello) if hello.cluster == [0; 16] && hello.lane == 4));
    rig.reply(connection, &welcome(node));
    assert_eq!(rig.client.cluster().unwrap().nodes.len(), 3);
    rig.answer_probe(FetchOutcome::BeyondEnd, 3, 0);
    let (to, append) = rig.take_append();
    assert_eq!((to, append.epoch, append.sequence), (connection, 0, 0));
    assert_eq!((append.record_count, append.group), (1, GROUP.0));
    rig.reply(connection, &committed(append.request, 41, 3));
    assert!(is_committed(rig.outcome_of(1), 41));
}

#[test]
fn what_is_queued_while_the_window_is_full_becomes_one_append() {
    let (mut rig, a) = Rig::led();
    let window = PRODUCER_WINDOW as u64;
    for token in 0..window + 5 {
        rig.append(token);
    }
    let sent: Vec<Append> = (0..window).map(|_| rig.take_append().1).collect();
    assert!(rig.sent.is_empty(), "the window is full");
    assert!(!rig.client.has_room(GROUP));
    // Resolved appends in the middle make no room: what is retried must stay recognisable.
    rig.reply(a, &committed(sent[3].request, 3, 1));
    assert!(rig.sent.is_empty());
    rig.reply(a, &committed(sent[0].request, 0, 1));
    let (_, append) = rig.take_append();
    assert_eq!((append.sequence, append.record_count), (window, 5));
    rig.reply(a, &committed(append.request, 100, 1));
    assert!(is_committed(rig.outcome_of(window), 100));
    assert!(is_committed(rig.outcome_of(window + 4), 104));
}

#[test]
fn every_final_refusal_ends_the_append_and_the_log_goes_on_under_a_new_epoch() {
    let finals = [
        Reason::UnknownLog,
        Reason::RecordTooLarge,
        Reason::Malformed,
        Reason::WindowPassed,
    ];
    for reason in finals {
        let (mut rig, a) = Rig::led();
        for token in 0..3 {
            rig.append(token);
        }
        let sent: Vec<Append> = (0..3).map(|_| rig.take_append().1).collect();
        rig.reply(a, &refused(sent[1].request, reason, 1, None));
        assert_eq!(rig.outcome_of(1), Some(Outcome::NotCommitted(reason)));
        assert!(
            rig.sent.is_empty(),
            "{reason}: the one before is not resolved yet"
        );
        rig.reply(a, &refused(sent[2].request, Reason::SequenceGap, 1, None));
        rig.reply(a, &committed(sent[0].request, 7, 1));
        // The one behind was never accepted: its record goes on under a new name.
        let (_, append) = rig.take_append();
        assert_eq!((append.epoch, append.sequence), (1, 0), "{reason}");
        rig.reply(a, &committed(append.request, 8, 1));
        assert!(is_committed(rig.outcome_of(0), 7) && is_committed(rig.outcome_of(2), 8));
    }
}

#[test]
fn a_fenced_producer_ends_all_it_has_and_all_that_comes() {
    let (mut rig, a) = Rig::led();
    (0..3).for_each(|token| rig.append(token));
    let sent: Vec<Append> = (0..3).map(|_| rig.take_append().1).collect();
    for append in &sent {
        rig.reply(a, &refused(append.request, Reason::Fenced, 1, None));
    }
    rig.append(3);
    let fenced = Some(Outcome::NotCommitted(Reason::Fenced));
    (0..4).for_each(|token| assert_eq!(rig.outcome_of(token), fenced));
    assert!(rig.sent.is_empty());
}

#[test]
fn a_refusal_for_now_leads_to_the_same_append_again() {
    let for_now = [
        Reason::Overloaded,
        Reason::Transferring,
        Reason::Stopping,
        Reason::DiskFull,
        Reason::SequenceGap,
    ];
    for reason in for_now {
        let (mut rig, a) = Rig::led();
        rig.append(1);
        let (_, first) = rig.take_append();
        rig.reply(a, &refused(first.request, reason, 1, None));
        assert_eq!(rig.outcome_of(1), None, "{reason}");
        rig.pass(ms(20));
        rig.sent
            .retain(|(_, sent)| matches!(sent, Sent::Append(..)));
        let (to, again) = rig.take_append();
        assert_eq!(to, a, "{reason}");
        assert_ne!(again.request, first.request);
        let same = Append {
            request: first.request,
            ..again
        };
        assert_eq!(same, first, "{reason}: one name, one content");
        rig.reply(a, &committed(again.request, 5, 1));
        assert!(is_committed(rig.outcome_of(1), 5));
    }
}

#[test]
fn overload_is_waited_out_for_as_long_as_the_node_says() {
    let (mut rig, a) = Rig::led();
    rig.append(1);
    let (_, first) = rig.take_append();
    let reply = AppendReply {
        retry_after_us: 8_000,
        ..refused(first.request, Reason::Overloaded, 1, None)
    };
    rig.reply(a, &reply);
    rig.pass(Nanos::from_micros(7_900));
    assert!(rig.sent.is_empty());
    rig.pass(Nanos::from_micros(200));
    assert_eq!(rig.take_append().1.sequence, 0);
}

#[test]
fn a_gap_makes_all_go_again_in_order_once_the_doomed_are_answered() {
    let (mut rig, a) = Rig::led();
    (0..4).for_each(|token| rig.append(token));
    let sent: Vec<Append> = (0..4).map(|_| rig.take_append().1).collect();
    rig.reply(a, &refused(sent[0].request, Reason::NotLeader, 1, Some(A)));
    rig.reply(a, &refused(sent[2].request, Reason::SequenceGap, 1, None));
    rig.answer_probe(FetchOutcome::BeyondEnd, 1, 0);
    assert!(
        rig.sent.is_empty(),
        "1 and 3 are doomed and not answered yet"
    );
    rig.reply(a, &refused(sent[3].request, Reason::SequenceGap, 1, None));
    rig.reply(a, &refused(sent[1].request, Reason::SequenceGap, 1, None));
    let again: Vec<u64> = (0..4).map(|_| rig.take_append().1.sequence).collect();
    assert_eq!(again, [0, 1, 2, 3]);
    assert!(rig.sent.is_empty());
}

#[test]
fn a_node_that_does_not_lead_redirects_with_its_hint() {
    let (mut rig, a) = Rig::led();
    rig.append(1);
    let (_, first) = rig.take_append();
    rig.reply(a, &refused(first.request, Reason::NotLeader, 2, Some(C)));
    while rig.dials.front().is_some_and(|(_, node)| *node != C) {
        rig.accept();
    }
    rig.sent.clear();
    let (c, _) = rig.accept();
    let (to, again) = rig.take_append();
    assert_eq!((to, again.sequence, again.epoch), (c, 0, 0));
}

#[test]
fn a_lost_answer_is_asked_for_again_at_the_next_leader_under_the_same_name() {
    let (mut rig, a) = Rig::led();
    (1..3).for_each(|token| rig.append(token));
    let first: Vec<Append> = (0..2).map(|_| rig.take_append().1).collect();
    rig.close(a);
    let b = rig.fail_over_to_b();
    for before in &first {
        let (_, again) = rig.take_append();
        assert_eq!(
            (again.epoch, again.sequence),
            (before.epoch, before.sequence)
        );
        rig.reply(b, &committed(again.request, 20 + again.sequence, 1));
    }
    assert!(is_committed(rig.outcome_of(1), 20) && is_committed(rig.outcome_of(2), 21));
}

#[test]
fn a_leader_that_steps_down_leaves_doubt_and_the_next_one_settles_it() {
    let (mut rig, a) = Rig::led();
    rig.append(1);
    let (_, first) = rig.take_append();
    rig.reply(a, &unknown(first.request, 2));
    assert_eq!(rig.outcome_of(1), None);
    let b = rig.fail_over_to_b();
    let (_, again) = rig.take_append();
    // Fenced, but the first try may have got in before: nobody can say that it did not.
    rig.reply(b, &refused(again.request, Reason::Fenced, 2, None));
    assert_eq!(rig.outcome_of(1), Some(Outcome::Unknown));
}

#[test]
fn a_frozen_leader_is_left_only_for_a_higher_term_and_its_late_answer_still_counts() {
    let (mut rig, a) = Rig::led();
    (1..3).for_each(|token| rig.append(token));
    let first: Vec<Append> = (0..2).map(|_| rig.take_append().1).collect();
    rig.pass(ms(30));
    assert!(
        !rig.dials.is_empty(),
        "silence: others are dialled to be asked"
    );
    while !rig.dials.is_empty() {
        rig.accept();
    }
    for _ in 0..3 {
        rig.answer_probe(FetchOutcome::NotLeader, 1, A.0);
        rig.pass(ms(200));
    }
    let appends = |rig: &Rig| {
        let sent = rig.sent.iter();
        sent.filter(|(_, sent)| matches!(sent, Sent::Append(..)))
            .count()
    };
    assert_eq!(appends(&rig), 0, "all say that A leads: nothing is resent");
    while appends(&rig) == 0 {
        rig.answer_probe(FetchOutcome::NotLeader, 2, B.0);
    }
    rig.sent
        .retain(|(_, sent)| matches!(sent, Sent::Append(..)));
    assert_eq!(appends(&rig), 2);
    // A thaws: it had committed the first in its term.
    rig.reply(a, &committed(first[0].request, 30, 1));
    assert!(is_committed(rig.outcome_of(1), 30));
    // What A refuses now says nothing: the try at B is the one that counts.
    rig.reply(a, &refused(first[1].request, Reason::NotLeader, 2, Some(B)));
    assert_eq!(rig.outcome_of(2), None);
    let (b, _) = rig.take_append();
    let (_, second) = rig.take_append();
    rig.reply(b, &committed(second.request, 31, 2));
    assert!(is_committed(rig.outcome_of(2), 31));
}

#[test]
fn a_server_that_has_forgotten_the_producer_gets_a_new_epoch() {
    let (mut rig, a) = Rig::led();
    rig.append(1);
    let (_, first) = rig.take_append();
    rig.reply(a, &committed(first.request, 0, 4));
    (2..4).for_each(|token| rig.append(token));
    let sent: Vec<Append> = (0..2).map(|_| rig.take_append().1).collect();
    rig.reply(a, &refused(sent[0].request, Reason::SequenceGap, 4, None));
    let (_, again) = rig.take_append();
    assert_eq!((again.epoch, again.sequence, again.record_count), (1, 0, 2));
    rig.reply(a, &committed(again.request, 9, 4));
    assert!(is_committed(rig.outcome_of(2), 9) && is_committed(rig.outcome_of(3), 10));
}

#[test]
fn a_server_that_has_forgotten_the_producer_leaves_doubt_where_there_was_some() {
    let (mut rig, a) = Rig::led();
    rig.append(1);
    let (_, first) = rig.take_append();
    rig.reply(a, &committed(first.request, 0, 1));
    (2..4).for_each(|token| rig.append(token));
    rig.sent.clear();
    rig.close(a);
    let b = rig.fail_over_to_b();
    let sent: Vec<Append> = (0..2).map(|_| rig.take_append().1).collect();
    rig.reply(b, &refused(sent[0].request, Reason::SequenceGap, 2, None));
    // Both may have been committed by A before the server forgot.
    assert_eq!(rig.outcome_of(2), Some(Outcome::Unknown));
    assert_eq!(rig.outcome_of(3), Some(Outcome::Unknown));
    rig.append(4);
    rig.sent
        .retain(|(_, sent)| matches!(sent, Sent::Append(..)));
    let (_, again) = rig.take_append();
    assert_eq!((again.epoch, again.sequence), (1, 0));
}

#[test]
fn a_late_refusal_of_an_earlier_try_says_nothing_of_the_current_one() {
    for reason in Reason::ALL {
        let (mut rig, a) = Rig::led();
        rig.append(1);
        let (_, first) = rig.take_append();
        rig.pass(ms(30));
        rig.sent.clear();
        let b = rig.fail_over_to_b();
        let (_, again) = rig.take_append();
        rig.reply(a, &refused(first.request, *reason, 1, None));
        assert_eq!(rig.outcome_of(1), None, "{reason}");
        rig.reply(b, &committed(again.request, 3, 2));
        assert!(is_committed(rig.outcome_of(1), 3), "{reason}");
    }
}

#[test]
fn a_gap_from_a_leader_of_old_does_not_end_the_epoch() {
    let (mut rig, a) = Rig::led();
    rig.append(1);
    let (_, first) = rig.take_append();
    rig.reply(a, &committed(first.request, 0, 4));
    rig.append(2);
    let (_, second) = rig.take_append();
    // A's log lacks what was committed in term 4: it cannot know.
    rig.reply(a, &refused(second.request, Reason::SequenceGap, 3, None));
    rig.pass(ms(50));
    rig.sent
        .retain(|(_, sent)| matches!(sent, Sent::Append(..)));
    let (_, again) = rig.take_append();
    assert_eq!((again.epoch, again.sequence), (0, 1));
}

#[test]
fn at_the_timeout_doubt_ends_unknown_and_what_is_absent_goes_on_or_is_not_committed() {
    let (mut rig, a) = Rig::led_with(config(ms(100), 3));
    rig.append(0);
    let (_, zero) = rig.take_append();
    rig.append(1);
    let (_, one) = rig.take_append();
    rig.pass(ms(60));
    rig.append(2);
    rig.append(3);
    rig.sent
        .retain(|(_, sent)| matches!(sent, Sent::Append(..)));
    let (_, two) = rig.take_append();
    rig.reply(a, &committed(zero.request, 5, 1));
    rig.reply(a, &refused(two.request, Reason::SequenceGap, 1, None));
    rig.dials.clear();
    rig.sent.clear();
    rig.pass(ms(60));
    // 1 was sent and never answered; 2 was refused, so 3 behind it cannot be in either.
    assert_eq!(rig.outcome_of(1), Some(Outcome::Unknown));
    assert_eq!((rig.outcome_of(2), rig.outcome_of(3)), (None, None));
    let (_, again) = rig.take_append();
    assert_eq!((again.epoch, again.sequence, again.record_count), (1, 0, 2));
    // The late answer to 1 is too late; 2 and 3 run into their own timeout, in doubt by now.
    rig.reply(a, &committed(one.request, 6, 1));
    rig.pass(ms(60));
    assert_eq!(rig.outcome_of(2), Some(Outcome::Unknown));
    assert_eq!(rig.outcomes.len(), 4);
}

#[test]
fn what_was_never_sent_is_not_committed_and_costs_no_epoch() {
    let mut rig = Rig::new(config(ms(100), 3));
    rig.append(1);
    rig.pass(ms(150));
    let no_leader = Outcome::NotCommitted(Reason::NotLeader);
    assert_eq!(rig.outcome_of(1), Some(no_leader));
    rig.append(2);
    rig.accept();
    rig.answer_probe(FetchOutcome::BeyondEnd, 1, 0);
    let (_, append) = rig.take_append();
    assert_eq!((append.epoch, append.sequence), (0, 0));
}

#[test]
fn a_producer_never_goes_on_into_the_epochs_of_its_next_life() {
    let mut config = config(ms(100), 3);
    config.identity.epoch_max = Epoch(0);
    let (mut rig, _) = Rig::led_with(config);
    rig.append(1);
    rig.pass(ms(150));
    assert_eq!(rig.outcome_of(1), Some(Outcome::Unknown));
    rig.append(2);
    assert_eq!(
        rig.outcome_of(2),
        Some(Outcome::NotCommitted(Reason::Fenced))
    );
}

#[test]
fn a_log_that_the_nodes_do_not_know_ends_at_once() {
    let mut rig = Rig::new(config(TIMEOUT, 1));
    rig.accept();
    rig.append(1);
    rig.answer_probe(FetchOutcome::UnknownLog, 0, 0);
    let unknown_log = Outcome::NotCommitted(Reason::UnknownLog);
    assert_eq!(rig.outcome_of(1), Some(unknown_log));
}
