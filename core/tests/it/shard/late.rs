//! A loop that comes late finds questions and heartbeats waiting side by side.

use ringwood_core::frame::peer::{Beat, Heartbeat, VoteRequest};
use ringwood_core::id::{ConnectionId, Nanos};

use super::bench::{Bench, PEER};

const GROUP: u32 = 1;
const TERM: u64 = 1_000;
const THIRD: ConnectionId = ConnectionId(3);

fn heartbeat(round: u64) -> Heartbeat {
    let beat = Beat {
        term: TERM,
        commit: 0,
        durable: 0,
        round,
        group: GROUP,
    };
    Heartbeat {
        sent_at: round,
        timeout: Nanos::from_millis(30).0,
        beats: vec![beat],
        ..Heartbeat::default()
    }
}

/// The third node, which does not hear the leader, asks whether it might be elected.
fn question() -> VoteRequest {
    VoteRequest {
        term: TERM + 1,
        last_index: 1 << 40,
        last_term: TERM,
        group: GROUP,
        pre: 1,
        transfer: 0,
    }
}

/// Answers given while the leader's heartbeats come, or do not.
fn grants(is_leader_there: bool) -> u64 {
    let mut bench = Bench::new();
    bench.is_alone = true;
    bench.greet(THIRD, 3);
    for round in 1..20 {
        bench.say(PEER, &heartbeat(round), &[]);
        bench.turn();
    }
    let granted = bench.votes_granted;
    bench.freeze(Nanos::from_millis(1_000));
    // The question came first, by chance: links have no order among each other.
    bench.say(THIRD, &question(), &[]);
    if is_leader_there {
        bench.say(PEER, &heartbeat(20), &[]);
    }
    bench.turns(3);
    bench.votes_granted - granted
}

#[test]
fn a_freeze_of_its_own_does_not_turn_a_voter_against_its_leader() {
    assert_eq!(grants(false), 1, "the leader is gone");
    assert_eq!(grants(true), 0, "its word lay behind the question");
}
