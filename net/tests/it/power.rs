//! Three real processes under load, each on a file system of its own, whose power fails: of one, of
//! two, of all, in the middle of writes. What was acknowledged is there when it is back.

use std::time::Duration;

use crate::cycles::cycle_count;
use crate::file_system::file_systems;
use crate::load::Load;
use crate::processes::{Processes, dice, make_homes};

/// How often power fails, unless `POWER_CYCLES` says otherwise.
const CYCLE_COUNT: usize = 10;

#[test]
fn nothing_acknowledged_is_lost_to_cuts_of_power() {
    let home = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
    let Some(file_systems) = file_systems(home.path(), 3) else {
        return;
    };
    let dirs: Vec<_> = (1..=3)
        .map(|number| home.path().join(format!("node-{number}")))
        .collect();
    let endpoints = make_homes(&dirs);
    let mut processes = Processes::start(dirs);
    let load = Load::start(endpoints);
    let mut draw = dice();
    let cycle_count = cycle_count("POWER_CYCLES", CYCLE_COUNT);
    let mut cut_count = 0;
    for cycle in 0..cycle_count {
        load.wait_for_progress();
        std::thread::sleep(Duration::from_millis(u64::from(draw(60))));
        let first = draw(3) as usize;
        let victim_count = [1, 1, 2, 1, 3][cycle % 5];
        let victims: Vec<usize> = (0..victim_count).map(|more| (first + more) % 3).collect();
        for victim in &victims {
            if let Err(why) = file_systems[*victim].cut_power() {
                assert_eq!(cut_count, 0, "{why}");
                println!("skipped: no power to cut here: {why}");
                return;
            }
            cut_count += 1;
        }
        for victim in &victims {
            processes.end(*victim);
            file_systems[*victim].restore_power();
        }
        for victim in victims {
            processes.restart(victim);
        }
    }
    load.wait_for_progress();
    let sum = load.judge();
    println!("{cycle_count} cycles, {cut_count} cuts of power, {sum}");
    assert!(sum.acknowledged_count > 1_000, "the load was real: {sum}");
}
