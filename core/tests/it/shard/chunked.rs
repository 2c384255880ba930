//! Chunks of the past while the disk is slow: one read at a time, and nobody else waits for it.

use ringwood_core::frame::code::BlockOutcome;
use ringwood_core::frame::peer::BlockRequest;
use ringwood_core::id::NodeId;
use ringwood_core::limits::ANSWER_COUNT_MAX;

use super::bench::{BULK, Bench, record};
use super::forged::sum_of;

const LOGS: [u32; 2] = [1, 2];
const RECORD_SIZE: usize = 40_000;
const COUNT: u64 = 60;

/// A leader of two logs that are not in its memory any more, and a node that lacks both and is back; the
/// read for one of them does not end.
fn leader() -> Bench {
    let mut bench = Bench::new();
    bench.join_third();
    bench.away = Some(NodeId(2));
    for at in 0..COUNT {
        for log in LOGS {
            assert!(bench.commits(log, at, &record(RECORD_SIZE, at as u8)));
        }
    }
    bench.turns(400);
    bench.reads_to_hold = Some(0);
    bench.read_size = 0;
    bench.away = None;
    bench.turns(60);
    assert_eq!(bench.reads_to_hold, None, "a read is under way");
    bench
}

#[test]
fn one_chunk_is_read_at_a_time_and_appends_go_on() {
    let mut bench = leader();
    for at in COUNT..COUNT + 20 {
        for log in LOGS {
            assert!(bench.commits(log, at, &record(100, 1)));
        }
    }
    // What is new waits behind what the peer lacks; and for the other log nothing is read.
    assert_eq!((bench.read_size, bench.chunks.len()), (0, 0));
    assert!(bench.release_read());
    bench.turns(400);
    for log in LOGS {
        assert_eq!(bench.matched(log), COUNT + 21);
    }
    assert!(bench.chunks.len() > 2);
}

#[test]
fn who_asks_too_much_is_told_that_the_node_is_busy() {
    let mut bench = leader();
    let last = bench.sent(1, 40);
    let sum = sum_of(&last);
    let count = ANSWER_COUNT_MAX as u64 + 9;
    for number in 0..count {
        let request = BlockRequest {
            number,
            first: 39,
            last: 40,
            group: 1,
            sum,
        };
        bench.say(BULK, &request, &[]);
    }
    bench.turns(60);
    let busy = [BlockOutcome::Busy; 9];
    assert_eq!(bench.given, busy, "the others wait");
    assert!(bench.release_read());
    bench.turns(60);
    assert_eq!(bench.given.len() as u64, count);
    assert!(
        bench.given[9..]
            .iter()
            .all(|outcome| *outcome == BlockOutcome::Found)
    );
}
