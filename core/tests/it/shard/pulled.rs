//! A follower that its leader refers to another replica: what it takes from there, and what not.

use std::collections::BTreeMap;

use bytes::Bytes;
use ringwood_core::frame::code::BlockOutcome;
use ringwood_core::frame::peer::{
    AppendEntries, Beat, BlockReply, BlockRequest, Heartbeat, Referral,
};
use ringwood_core::id::NodeId;

use super::bench::{BULK, Bench, THIRD, THIRD_BULK, record};
use super::forged::sum_of;

const LOG: u32 = 1;
const RECORD_SIZE: usize = 20_000;
const COUNT: u64 = 12;
/// The log's last index: before the records stands a no-op.
const LAST: u64 = COUNT + 1;
/// Of the node that leads now.
const TERM: u64 = 100;

/// The blocks of a log, by some leader of the first term.
fn history(fill: u8) -> BTreeMap<(u32, u64), Bytes> {
    let mut bench = Bench::new();
    for at in 0..COUNT {
        assert!(bench.commits(LOG, at, &record(RECORD_SIZE, fill + at as u8)));
    }
    bench.blocks
}

/// A node that follows the second, whose log it shares through the no-op; the third has all blocks.
fn follower() -> Bench {
    let mut bench = Bench::new();
    bench.join_third();
    bench.blocks = history(1);
    follow(&mut bench);
    bench
}

/// The leader sends these blocks, which follow the first.
fn send_behind_first(bench: &mut Bench, blocks: &[Bytes]) {
    let body = AppendEntries {
        term: TERM,
        prev_index: 1,
        prev_term: 1,
        commit: 1,
        group: LOG,
        count: blocks.len() as u32,
    };
    bench.say(BULK, &body, &blocks.concat());
}

/// The second node shows that it leads, and where the logs match.
fn follow(bench: &mut Bench) {
    bench.say_beat(TERM, LOG, 1);
    send_behind_first(bench, &[]);
    bench.turns(4);
}

fn referral(bench: &Bench) -> Referral {
    Referral {
        term: TERM,
        first: 2,
        last: LAST,
        source: 3,
        group: LOG,
        sum: sum_of(&bench.blocks[&(LOG, LAST)]),
    }
}

/// Goes on for a while under a leader that lives.
fn turns(bench: &mut Bench, count: usize) {
    for _ in 0..count {
        bench.say_beat(TERM, LOG, 1);
        bench.turns(10);
    }
}

fn has(bench: &Bench) -> u64 {
    bench.acked.get(&LOG).copied().unwrap_or_default()
}

/// The answer that the third node is to give by itself: it is asked, and says nothing.
fn asked(bench: &mut Bench) -> BlockRequest {
    bench.is_source_mute = true;
    let body = referral(bench);
    bench.say(BULK, &body, &[]);
    bench.turns(2);
    let (node, request) = *bench.asked.last().expect("it was asked");
    assert_eq!(node, NodeId(3));
    request
}

fn reply(bench: &mut Bench, request: &BlockRequest, blocks: &[Bytes]) {
    let body = BlockReply {
        number: request.number,
        first: request.first,
        group: LOG,
        count: blocks.len() as u32,
        outcome: BlockOutcome::Found.code(),
    };
    bench.say(THIRD_BULK, &body, &blocks.concat());
    bench.turns(3);
}

#[test]
fn what_another_replica_gives_is_acknowledged_to_the_leader() {
    let mut bench = follower();
    let body = referral(&bench);
    bench.say(BULK, &body, &[]);
    turns(&mut bench, 10);
    assert_eq!(has(&bench), LAST);
    assert!(bench.referrals_ended.is_empty());
    // Each block was asked for once, from one node, each chunk behind the one before.
    let firsts: Vec<u64> = bench
        .asked
        .iter()
        .map(|(_, request)| request.first)
        .collect();
    assert_eq!(firsts, [2, 6, 10], "four blocks to a chunk");
    for (node, request) in &bench.asked {
        assert_eq!(*node, NodeId(3));
        assert_eq!((request.last, request.sum), (LAST, body.sum));
    }
    // Told again, late or twice, it has them.
    bench.say(BULK, &body, &[]);
    turns(&mut bench, 2);
    assert_eq!(bench.asked.len(), 3);
}

#[test]
fn the_next_chunk_waits_for_the_disk() {
    let mut bench = follower();
    bench.stick_disk(true);
    let body = referral(&bench);
    bench.say(BULK, &body, &[]);
    turns(&mut bench, 4);
    assert_eq!(bench.asked.len(), 1);
    bench.stick_disk(false);
    turns(&mut bench, 4);
    assert_eq!(has(&bench), LAST);
}

#[test]
fn what_is_here_is_not_asked_for_again() {
    // Source, leader or link are lost after a chunk: the next source gives the rest.
    let mut bench = follower();
    let request = asked(&mut bench);
    let first: Vec<Bytes> = (2..6).map(|at| bench.sent(LOG, at)).collect();
    reply(&mut bench, &request, &first);
    assert_eq!(has(&bench), 5);
    assert_eq!(bench.asked.last().expect("the next chunk").1.first, 6);
    // Nobody answers that. The leader refers it anew, by what it knows; the follower knows more.
    bench.is_source_mute = false;
    let body = referral(&bench);
    bench.say(BULK, &body, &[]);
    turns(&mut bench, 6);
    assert_eq!(has(&bench), LAST);
    let firsts: Vec<u64> = bench
        .asked
        .iter()
        .map(|(_, request)| request.first)
        .collect();
    assert_eq!(
        firsts,
        [2, 6, 6, 10],
        "what was on its way comes twice, nothing else"
    );
}

#[test]
fn a_source_without_the_blocks_is_told_of() {
    let words = [
        BlockOutcome::Absent,
        BlockOutcome::Lost,
        BlockOutcome::Trimmed,
        BlockOutcome::Busy,
    ];
    for word in words {
        let mut bench = follower();
        bench.word = word;
        let body = referral(&bench);
        bench.say(BULK, &body, &[]);
        bench.turns(4);
        let [end] = bench.referrals_ended[..] else {
            panic!("told once: {:?}", bench.referrals_ended)
        };
        assert_eq!((end.term, end.source, end.group), (TERM, 3, LOG));
        assert_eq!(has(&bench), 1);
    }
}

#[test]
fn a_silent_source_is_told_of_after_a_second() {
    let mut bench = follower();
    asked(&mut bench);
    turns(&mut bench, 98);
    assert!(bench.referrals_ended.is_empty());
    turns(&mut bench, 4);
    assert_eq!(bench.referrals_ended.len(), 1);
    // Its answer comes too late.
    let (_, request) = bench.asked[0];
    let late: Vec<Bytes> = (2..6).map(|at| bench.sent(LOG, at)).collect();
    reply(&mut bench, &request, &late);
    assert_eq!(has(&bench), 1);
}

#[test]
fn blocks_that_are_not_the_leaders_are_refused() {
    let other = history(101);
    let at = |history: &BTreeMap<(u32, u64), Bytes>, range: std::ops::RangeInclusive<u64>| {
        range
            .map(|at| history[&(LOG, at)].clone())
            .collect::<Vec<_>>()
    };
    let own = history(1);
    assert_eq!(own[&(LOG, 1)], other[&(LOG, 1)], "they begin alike");
    let mut damaged = at(&own, 2..=5);
    let mut bytes = damaged[2].to_vec();
    bytes[700] ^= 1;
    damaged[2] = bytes.into();
    let stories: [(&str, Vec<Bytes>); 7] = [
        ("another log, to its end", at(&other, 2..=LAST)),
        ("its middle", at(&other, 3..=5)),
        (
            "another log behind the first block",
            [at(&own, 2..=2), at(&other, 3..=6)].concat(),
        ),
        ("a gap", [at(&own, 2..=3), at(&own, 5..=6)].concat()),
        ("nothing", Vec::new()),
        ("damaged", damaged),
        ("another order", [at(&own, 3..=3), at(&own, 2..=2)].concat()),
    ];
    for (name, given) in stories {
        let mut bench = follower();
        let request = asked(&mut bench);
        reply(&mut bench, &request, &given);
        assert_eq!(has(&bench), 1, "{name}: nothing is taken");
        assert_eq!(bench.referrals_ended.len(), 1, "{name}");
        // The leader's own are.
        let blocks = at(&own, 2..=5);
        send_behind_first(&mut bench, &blocks);
        bench.turns(3);
        assert_eq!(has(&bench), 5, "{name}");
    }
}

#[test]
fn an_answer_counts_from_whom_was_asked_under_its_number() {
    let mut bench = follower();
    let request = asked(&mut bench);
    let blocks: Vec<Bytes> = (2..6).map(|at| bench.sent(LOG, at)).collect();
    let right = BlockReply {
        number: request.number,
        first: 2,
        group: LOG,
        count: 4,
        outcome: BlockOutcome::Found.code(),
    };
    bench.say(BULK, &right, &blocks.concat());
    for number in [0, request.number + 1, u64::MAX] {
        bench.say(
            THIRD_BULK,
            &BlockReply { number, ..right },
            &blocks.concat(),
        );
    }
    bench.turns(3);
    assert_eq!(has(&bench), 1);
    bench.say(THIRD_BULK, &right, &blocks.concat());
    bench.say(THIRD_BULK, &right, &blocks.concat());
    bench.turns(3);
    assert_eq!(has(&bench), 5);
}

#[test]
fn a_referral_that_cannot_be_followed_is_ended_or_nothing() {
    let good = referral(&follower());
    // Not the leader's word, or not of this term; or not sound.
    let nothing = [
        Referral {
            term: TERM - 1,
            ..good
        },
        Referral {
            term: TERM + 1,
            ..good
        },
        Referral { group: 77, ..good },
        Referral { first: 0, ..good },
        Referral {
            first: 9,
            last: 8,
            ..good
        },
        Referral { source: 0, ..good },
        Referral { source: 1, ..good },
        Referral { source: 2, ..good },
        Referral {
            source: u64::MAX,
            ..good
        },
        Referral {
            last: 1,
            first: 1,
            ..good
        },
    ];
    for body in nothing {
        let mut bench = follower();
        bench.say(BULK, &body, &[]);
        turns(&mut bench, 3);
        assert_eq!(
            (bench.asked.len(), bench.referrals_ended.len()),
            (0, 0),
            "{body:?}"
        );
        assert_eq!(has(&bench), 1);
    }
    let mut bench = follower();
    bench.say(THIRD_BULK, &good, &[]);
    turns(&mut bench, 3);
    assert_eq!(bench.asked.len(), 0, "the third does not lead");
    // What it follows is not here, so the leader is to find out where the logs part.
    bench.say(BULK, &Referral { first: 3, ..good }, &[]);
    bench.say(
        BULK,
        &Referral {
            first: u64::MAX,
            last: u64::MAX,
            ..good
        },
        &[],
    );
    turns(&mut bench, 3);
    assert_eq!((bench.asked.len(), bench.referrals_ended.len()), (0, 2));
    // More than anybody has, by a sum that is nobody's: what comes is the leader's log all the same.
    bench.say(
        BULK,
        &Referral {
            last: u64::MAX,
            sum: 7,
            ..good
        },
        &[],
    );
    bench.turns(2);
    assert_eq!(bench.asked.len(), 1);
}

#[test]
fn another_leaders_word_ends_it() {
    let mut bench = follower();
    let request = asked(&mut bench);
    let beat = Beat {
        term: TERM + 1,
        commit: 1,
        durable: 1,
        round: 0,
        group: LOG,
    };
    let heartbeat = Heartbeat {
        timeout: 30_000_000,
        beats: vec![beat],
        ..Heartbeat::default()
    };
    bench.say(THIRD, &heartbeat, &[]);
    bench.turns(3);
    let blocks: Vec<Bytes> = (2..6).map(|at| bench.sent(LOG, at)).collect();
    reply(&mut bench, &request, &blocks);
    assert_eq!(has(&bench), 1, "the new leader says what is here");
    assert!(bench.referrals_ended.is_empty());
}

#[test]
fn blocks_from_elsewhere_do_not_keep_a_silent_leader_in_office() {
    let mut bench = follower();
    let before = bench.candidacies;
    let request = asked(&mut bench);
    let mut next = request;
    for at in 2..LAST {
        let block = [bench.sent(LOG, at)];
        reply(&mut bench, &next, &block);
        bench.turns(40);
        match bench.asked.last() {
            Some((_, request)) if request.number != next.number => next = *request,
            _ => break,
        }
    }
    assert!(
        bench.candidacies > before,
        "it stands for election meanwhile"
    );
}

#[test]
fn the_leaders_own_blocks_take_over() {
    let mut bench = follower();
    asked(&mut bench);
    let blocks: Vec<Bytes> = (2..6).map(|at| bench.sent(LOG, at)).collect();
    send_behind_first(&mut bench, &blocks);
    turns(&mut bench, 120);
    assert_eq!(has(&bench), 5);
    assert_eq!((bench.asked.len(), bench.referrals_ended.len()), (1, 0));
}
