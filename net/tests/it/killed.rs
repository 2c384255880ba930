//! Three real processes under load, killed with -9 one by one and now and then all at once: nothing
//! acknowledged is lost, doubled or out of order, and all replicas hold the same bytes.

use std::time::Duration;

use crate::cycles::cycle_count;
use crate::load::Load;
use crate::processes::{Processes, dice, make_homes};

/// How often somebody is killed, unless `KILL_CYCLES` says otherwise.
const CYCLE_COUNT: usize = 20;
/// From so many cycles on the load is judged, too.
const CYCLE_COUNT_JUDGED: usize = 100;
/// Records acknowledged a second, over the whole run with all its outages.
const RATE_MIN: f64 = 5_000.0;

#[test]
fn nothing_acknowledged_is_lost_to_kill_9() {
    let home = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
    let dirs: Vec<_> = (1..=3)
        .map(|number| home.path().join(format!("node-{number}")))
        .collect();
    let endpoints = make_homes(&dirs);
    let mut processes = Processes::start(dirs);
    let load = Load::start(endpoints);
    let mut draw = dice();
    let cycle_count = cycle_count("KILL_CYCLES", CYCLE_COUNT);
    let mut kill_count = 0;
    for cycle in 0..cycle_count {
        load.wait_for_progress();
        std::thread::sleep(Duration::from_millis(u64::from(draw(300))));
        let victims: Vec<usize> = if cycle % 10 == 9 {
            (0..3).collect()
        } else {
            vec![draw(3) as usize]
        };
        for victim in &victims {
            processes.kill(*victim);
            kill_count += 1;
        }
        std::thread::sleep(Duration::from_millis(u64::from(draw(200))));
        for victim in victims {
            processes.restart(victim);
        }
    }
    load.wait_for_progress();
    let sum = load.judge();
    println!("{cycle_count} cycles, {kill_count} kills, {sum}");
    assert!(sum.acknowledged_count > 1_000, "the load was real: {sum}");
    if cycle_count >= CYCLE_COUNT_JUDGED {
        assert!(sum.rate >= RATE_MIN, "the load was too small: {sum}");
    }
}
