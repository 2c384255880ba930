//! A leader and a follower that is far behind: whom it refers it to, and when it sends the blocks
//! itself.

use ringwood_core::frame::peer::{Referral, ReferralEnd};
use ringwood_core::id::{Nanos, NodeId};

use super::bench::{Bench, PEER, record};

const LOG: u32 = 1;
const RECORD_SIZE: usize = 40_000;
/// More than memory keeps, and than the journal's ring holds.
const COUNT: u64 = 60;

/// A leader, a node that has all that is decided and says so, and one that is away; and what that has
/// through where.
fn leader(says_so: bool) -> (Bench, u64) {
    leader_at(says_so, Nanos(0))
}

/// As `leader`, of nodes that are so far from one another.
fn leader_at(says_so: bool, distance: Nanos) -> (Bench, u64) {
    let mut bench = Bench::new();
    bench.distance = distance;
    bench.join_third();
    for at in 0..4 {
        assert!(bench.commits(LOG, at, &record(RECORD_SIZE, at as u8)));
    }
    bench.turns(200);
    let has = bench.matched(LOG);
    bench.away = Some(NodeId(2));
    for at in 4..COUNT {
        assert!(bench.commits(LOG, at, &record(RECORD_SIZE, at as u8)));
    }
    if says_so {
        bench.tell_sum(NodeId(3), LOG, COUNT + 1);
        bench.turns(2);
    }
    assert!(bench.chunks.is_empty(), "nobody asked");
    (bench, has)
}

fn back(bench: &mut Bench) {
    bench.away = None;
    bench.turns(60);
}

fn ended(referral: &Referral) -> ReferralEnd {
    ReferralEnd {
        term: referral.term,
        source: referral.source,
        group: referral.group,
    }
}

#[test]
fn a_follower_far_behind_is_referred_to_one_that_has_the_blocks() {
    let (mut bench, has) = leader(true);
    back(&mut bench);
    let [referral] = bench.referrals[..] else {
        panic!("told once: {:?}", bench.referrals)
    };
    assert_eq!((referral.first, referral.last), (has + 1, COUNT + 1));
    assert_eq!((referral.source, referral.group), (3, LOG));
    // While blocks come from there, the leader reads none and sends none.
    let mut through = has;
    while through < COUNT + 1 {
        through = (through + 3).min(COUNT + 1);
        bench.say_matched(&referral, through);
        bench.turns(1_500);
        assert!(bench.chunks.is_empty());
    }
    assert_eq!(bench.referrals.len(), 1);
    // Then it follows as any other.
    assert!(bench.commits(LOG, COUNT, &record(RECORD_SIZE, 1)));
    bench.turns(4);
    assert_eq!(bench.matched(LOG), COUNT + 2);
    assert!(bench.chunks.is_empty());
}

#[test]
fn who_gets_no_more_is_sent_the_rest_by_the_leader() {
    let (mut bench, has) = leader(true);
    back(&mut bench);
    let referral = bench.referrals[0];
    bench.say_matched(&referral, has + 9);
    bench.say(PEER, &ended(&referral), &[]);
    bench.turns(400);
    assert_eq!(bench.chunks[0], has + 10, "what it has is not sent again");
    assert!(bench.chunks.is_sorted(), "nor twice: {:?}", bench.chunks);
    assert_eq!(bench.matched(LOG), COUNT + 1);
    assert_eq!(bench.referrals.len(), 1, "not to that one again so soon");
}

#[test]
fn who_gets_nothing_is_sent_all_by_the_leader_after_a_while() {
    let (mut bench, has) = leader(true);
    back(&mut bench);
    bench.turns(1_900);
    assert_eq!((bench.referrals.len(), bench.chunks.len()), (1, 0));
    bench.turns(600);
    assert_eq!(bench.chunks[0], has + 1);
    assert_eq!(bench.matched(LOG), COUNT + 1);
    assert_eq!(bench.referrals.len(), 1);
}

#[test]
fn nobody_is_referred_to_who_is_not_known_to_have_the_same() {
    // It has said nothing; or it has said something else.
    for differs in [false, true] {
        let (mut bench, has) = leader(false);
        if differs {
            bench.diverged.insert(NodeId(3), (has + 5, 1));
            bench.tell_sum(NodeId(3), LOG, has + 1);
            bench.turns(2);
            bench.tell_sum(NodeId(3), LOG, COUNT + 1);
            bench.turns(2);
        }
        back(&mut bench);
        bench.turns(400);
        assert!(bench.referrals.is_empty());
        assert_eq!(bench.chunks[0], has + 1);
        if !differs {
            assert_eq!(bench.matched(LOG), COUNT + 1);
        }
    }
}

#[test]
fn nothing_is_read_for_who_is_not_there() {
    let (mut bench, _) = leader(true);
    bench.turns(400);
    let read = bench.read_size;
    bench.turns(5_000);
    assert_eq!(bench.read_size, read);
    // Nor is the wait for it long once it is.
    back(&mut bench);
    assert_eq!(bench.referrals.len(), 1);
}

#[test]
fn nobody_is_referred_across_a_long_way() {
    let (mut bench, has) = leader_at(true, Nanos::from_millis(30));
    back(&mut bench);
    bench.turns(400);
    assert!(bench.referrals.is_empty());
    assert_eq!(bench.chunks[0], has + 1);
    assert_eq!(bench.matched(LOG), COUNT + 1);
}

#[test]
fn an_end_that_nobody_waits_for_changes_nothing() {
    let (mut bench, _) = leader(true);
    let mut stray = ReferralEnd {
        term: 1,
        source: 3,
        group: LOG,
    };
    bench.say(PEER, &stray, &[]);
    stray.group = 77;
    bench.say(PEER, &stray, &[]);
    back(&mut bench);
    let referral = bench.referrals[0];
    for term in [referral.term - 1, referral.term + 1] {
        bench.say(
            PEER,
            &ReferralEnd {
                term,
                ..ended(&referral)
            },
            &[],
        );
    }
    for source in [0, 1, 2, u64::MAX] {
        bench.say(
            PEER,
            &ReferralEnd {
                source,
                ..ended(&referral)
            },
            &[],
        );
    }
    bench.turns(100);
    assert_eq!((bench.referrals.len(), bench.chunks.len()), (1, 0));
}

#[test]
fn a_new_link_to_the_follower_blames_nobody() {
    let (mut bench, has) = leader(true);
    back(&mut bench);
    bench.say_matched(&bench.referrals[0].clone(), has + 6);
    bench.turns(2);
    bench.reconnect_peer();
    bench.turns(60);
    assert_eq!(bench.referrals.len(), 2);
    let again = bench.referrals[1];
    assert_eq!((again.first, again.source), (has + 7, 3));
    assert!(bench.chunks.is_empty());
}
