//! Real processes on a disk that fails, stalls, is full, lies and dawdles, as a test tells it while
//! they run. A test has several faults one after the other where one cluster will do: to make three
//! journals takes longer than most of them.

use std::fs::File;
use std::os::unix::fs::OpenOptionsExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use ringwood_core::frame::client::{GroupStatus, Status};
use ringwood_core::frame::code::{FetchOutcome, ReadMode};
use ringwood_net::client::Client;
use ringwood_net::config::Identity;

use crate::faults::{Asked, Failure, Kept, Lie};
use crate::fuse_disk::FuseDisk;
use crate::load::Load;
use crate::processes::{Processes, make_homes};
use crate::wire::{Answer, Wire};

/// How long a disk stands still.
const STALL: Duration = Duration::from_secs(30);
/// With whatever is to come about.
const PATIENCE: Duration = Duration::from_secs(20);
/// Between two appends of a producer: the faults are what is looked at, not the load.
const PAUSE: Duration = Duration::from_millis(2);

/// The instrument before what it measures: what is lost at a cut of power is what was not synced.
#[test]
fn a_cut_of_power_takes_back_what_was_not_synced_and_nothing_else() {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
    let Some(disk) = FuseDisk::mount(dir.path()) else {
        return;
    };
    let home = disk.home();
    std::fs::create_dir(&home).expect("it is mounted");
    let sync = |path: &std::path::Path| File::open(path).and_then(|at| at.sync_all());
    sync(home.parent().expect("the root")).expect("no fault");
    let open = |name: &str| {
        let mut options = File::options();
        options.read(true).write(true).create(true).truncate(false);
        options.custom_flags(libc::O_DIRECT);
        options.open(home.join(name)).expect("no fault")
    };
    let file = open("file");
    // Direct writes of whole sectors, as the product makes them.
    let mut buffer = vec![0_u8; 3 * 4096];
    let skip = buffer.as_ptr().align_offset(4096);
    let sector = &mut buffer[skip..skip + 4096];
    let mut write = |position: u64, byte: u8, is_durable: bool| {
        sector.fill(byte);
        let flags = match is_durable {
            true => rustix::io::ReadWriteFlags::DSYNC,
            false => rustix::io::ReadWriteFlags::empty(),
        };
        let piece = [std::io::IoSlice::new(sector)];
        rustix::io::pwritev2(&file, &piece, position, flags)
    };
    assert_eq!(write(0, 1, true), Ok(4096));
    assert_eq!(write(4096, 2, false), Ok(4096));
    file.sync_data().expect("no fault");
    sync(&home).expect("no fault");
    let (named, lost) = (open("named"), open("lost"));
    drop((named, lost));
    std::fs::rename(home.join("named"), home.join("renamed")).expect("no fault");
    sync(&home).expect("no fault");
    std::fs::remove_file(home.join("lost")).expect("no fault");
    // Neither is synced, whatever is answered.
    assert_eq!(write(0, 3, false), Ok(4096));
    disk.faults.lie(Lie::About("file"));
    assert_eq!(write(8192, 4, true), Ok(4096));
    file.sync_all().expect("a lie");
    assert_eq!(disk.faults.lie_count(), 2);
    open("late");
    assert_eq!(disk.faults.cut_power(Kept::Nothing), 4);
    assert_eq!(write(0, 5, false), Err(rustix::io::Errno::IO));
    disk.faults.restore_power();

    let mut names: Vec<_> = std::fs::read_dir(&home)
        .expect("it is there")
        .map(|entry| entry.expect("readable").file_name())
        .collect();
    names.sort();
    assert_eq!(names, ["file", "lost", "renamed"]);
    let found = std::fs::read(home.join("file")).expect("it is there");
    assert_eq!(found, [[1; 4096], [2; 4096]].concat());

    // One request fails, and what comes after it is noted.
    disk.faults.fail(Failure {
        asked: Asked::Sync,
        of: "file",
        good_count: 1,
        errno: libc::EIO,
    });
    assert_eq!(write(0, 6, true), Ok(4096));
    assert_eq!(write(4096, 6, true), Err(rustix::io::Errno::IO));
    assert_eq!(write(4096, 7, true), Ok(4096));
    let again = vec![(Asked::Write, Some(4096)), (Asked::Sync, Some(4096))];
    assert_eq!(
        disk.faults.failed(),
        Some(((Asked::Sync, Some(4096)), again))
    );
    disk.faults.fill(true);
    assert_eq!(write(8192, 8, false), Err(rustix::io::Errno::NOSPC));
    assert_eq!(write(0, 8, false), Ok(4096));
    let found = std::fs::read(home.join("file")).expect("it is there");
    assert_eq!(found, [[8; 4096], [7; 4096]].concat());
}

/// A power cut right after `init` would take the whole directory with it, were only its files synced.
#[test]
fn what_init_has_made_is_there_after_a_cut_of_power() {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
    let Some(disk) = FuseDisk::mount(dir.path()) else {
        return;
    };
    // Two names are missing above the files.
    let home = disk.home().join("deeper");
    make_homes(std::slice::from_ref(&home));
    assert_eq!(disk.faults.cut_power(Kept::Nothing), 0, "all was synced");
    disk.faults.restore_power();
    Identity::read(&home).expect("it is there");
}

/// The node whose disk it is.
const FAULTY: usize = 0;
const GROUP: u32 = 1;

/// Codes of a replica's state.
const LEADER: u8 = 1;
const UNSURE: u8 = 5;

/// Three nodes, one of them on a disk that does what it is told.
struct Nodes {
    processes: Processes,
    disk: FuseDisk,
    endpoints: Vec<String>,
    _dir: tempfile::TempDir,
}

impl Nodes {
    fn start() -> Option<Self> {
        let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
        let disk = FuseDisk::mount(dir.path())?;
        let mut homes = vec![disk.home()];
        homes.extend([2, 3].map(|number| dir.path().join(format!("node-{number}"))));
        let endpoints = make_homes(&homes);
        let nodes = Self {
            processes: Processes::start(homes),
            disk,
            endpoints,
            _dir: dir,
        };
        wait_for("leader", || nodes.leader());
        Some(nodes)
    }

    /// What a node says of itself, if it runs.
    fn status(&self, position: usize) -> Option<Status> {
        Wire::try_greet(&self.endpoints[position])?.try_status()
    }

    fn group(&self, position: usize) -> Option<GroupStatus> {
        self.status(position)?.groups.first().copied()
    }

    fn alarms(&self, position: usize) -> Vec<String> {
        let alarms = self
            .status(position)
            .map_or(Vec::new(), |status| status.alarms);
        let text = |alarm: Vec<u8>| String::from_utf8(alarm).expect("text");
        alarms.into_iter().map(text).collect()
    }

    /// Who leads in the latest term, and which that is.
    fn leader(&self) -> Option<(usize, u64)> {
        let groups = (0..3).filter_map(|position| Some((position, self.group(position)?)));
        let leaders = groups.filter(|(_, group)| group.state == LEADER);
        let latest = leaders.max_by_key(|(_, group)| group.term);
        latest.map(|(position, group)| (position, group.term))
    }

    fn move_leader(&self, to: usize) {
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        let client = Client::builder()
            .endpoints(self.endpoints.clone())
            .connect();
        let client = runtime.block_on(client).expect("it runs");
        let name = format!("node-{}", to + 1);
        wait_for("other leader", || {
            // It may be refused while the one to lead is behind.
            let _ = runtime.block_on(client.transfer_leadership("log-0", &name));
            self.leader().filter(|(position, _)| *position == to)
        });
        runtime.block_on(client.close());
    }

    /// Until the node has all that was acknowledged, knows it, and has nothing to complain of.
    fn wait_until_whole(&self, load: &Load) {
        let begun = Instant::now();
        loop {
            let end = load.acknowledged_end();
            let (group, alarms) = (self.group(FAULTY), self.alarms(FAULTY));
            let has_all = |group: &GroupStatus| group.end_offset >= end && group.state != UNSURE;
            if group.as_ref().is_some_and(has_all) && alarms.is_empty() {
                return;
            }
            let elapsed = begun.elapsed();
            assert!(elapsed < PATIENCE, "{end} expected: {group:?}, {alarms:?}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(
            begun.elapsed() < Duration::from_secs(60),
            "no {what} in 60 s"
        );
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// One request of the journal fails, and none after it: the node ends for it at once, the others go on,
/// and back on a sound disk it is as they are.
fn end_by(nodes: &mut Nodes, load: &Load, failure: Failure, cause: &str) {
    let before = nodes.processes.said(FAULTY).len();
    nodes.disk.faults.fail(failure);
    let ((_, at), _) = wait_for("fault", || nodes.disk.faults.failed());
    let (code, took) = nodes.processes.wait_for_end(FAULTY);
    let said = nodes.processes.said(FAULTY).split_off(before);
    let (_, after) = nodes.disk.faults.failed().expect("seen before");
    println!("ended {took:?} after {failure:?}, then {after:?}: {said}");
    assert_eq!(code, Some(1), "{said}");
    assert!(took < Duration::from_secs(5), "{took:?}");
    assert!(
        said.contains("a write to ") && said.contains(cause),
        "{said}"
    );
    assert!(said.contains("/fuse/node/journal-"), "{said}");
    // Not the same again; one more write may have been under way, and its sync.
    assert!(after.len() <= 2, "{after:?}");
    let is_again = |(_, position): &(Asked, Option<u64>)| at.is_some() && *position == at;
    assert!(!after.iter().any(is_again), "{after:?}");
    load.wait_for_progress();
    nodes.processes.restart(FAULTY);
    nodes.wait_until_whole(load);
}

#[test]
fn a_failed_write_or_sync_ends_the_node_and_a_slow_one_nobody() {
    let Some(mut nodes) = Nodes::start() else {
        return;
    };
    let load = Load::paced(nodes.endpoints.clone(), PAUSE);
    let journal = |asked, good_count, errno| Failure {
        asked,
        of: "journal-",
        good_count,
        errno,
    };
    nodes.move_leader(FAULTY);
    let failure = journal(Asked::Sync, 1_000, libc::EIO);
    end_by(&mut nodes, &load, failure, "an input/output error");
    nodes.move_leader(1);
    let failure = journal(Asked::Write, 100, libc::EIO);
    end_by(&mut nodes, &load, failure, "an input/output error");
    // The journal has had its room since it was made: a disk that has none does not do as it said.
    let failure = journal(Asked::Write, 100, libc::ENOSPC);
    end_by(&mut nodes, &load, failure, "no space left");
    nodes.move_leader(1);
    dawdle(&nodes, &load);
    println!("{}", load.judge());
}

/// Reads through one node until told to stop: each answer has what was acknowledged before it was
/// asked for. How many it gave, and how many it refused.
fn read_on(endpoint: &str, load: &Load, stop: &AtomicBool) -> (u32, u32) {
    let mut wire = Wire::greet(endpoint);
    let (mut answered, mut refused) = (0, 0);
    while !stop.load(Ordering::Relaxed) {
        let end = load.acknowledged_end();
        wire.fetch(GROUP, end - 1, ReadMode::Linearizable);
        match wire.receive() {
            Answer::Fetch(reply, found) if reply.outcome == FetchOutcome::Ok as u8 => {
                assert!(
                    reply.end_offset >= end,
                    "stale: {reply:?}, acknowledged {end}"
                );
                // The block that has it may begin before it.
                let is_there = found.records.iter().any(|(at, _)| *at == end - 1);
                assert!(is_there, "{reply:?}, acknowledged {end}");
                answered += 1;
            }
            Answer::Fetch(..) => refused += 1,
            other => panic!("{other:?}"),
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    (answered, refused)
}

#[test]
fn a_leader_whose_disk_stands_still_says_nothing_stale_on_waking() {
    let Some(nodes) = Nodes::start() else {
        return;
    };
    nodes.move_leader(FAULTY);
    let load = Load::paced(nodes.endpoints.clone(), PAUSE);
    load.wait_for_progress();
    let begun = Instant::now();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let read = scope.spawn(|| read_on(&nodes.endpoints[FAULTY], &load, &stop));
        while begun.elapsed() < Duration::from_secs(5) {
            load.wait_for_progress();
        }
        let (old, term) = nodes.leader().expect("somebody leads");
        assert_eq!(old, FAULTY, "nothing moves while nothing stalls");
        nodes.disk.faults.stall(true);
        let stalled = Instant::now();
        let (mut gap, mut moved) = (Duration::ZERO, None);
        let (mut count, mut since) = (load.acknowledged_count(), Instant::now());
        while stalled.elapsed() < STALL {
            if load.acknowledged_count() > count {
                gap = gap.max(since.elapsed());
                (count, since) = (load.acknowledged_count(), Instant::now());
            }
            if moved.is_none() {
                let next = nodes.leader().filter(|(position, _)| *position != FAULTY);
                moved = next.map(|next| (next, stalled.elapsed()));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        gap = gap.max(since.elapsed());
        let ((new, new_term), took) = moved.expect("leadership has moved");
        println!("node {new} leads {took:?} after the stall; longest gap for clients {gap:?}");
        assert!(new_term > term);
        assert!(took < STALL / 2 && gap < STALL / 2, "{took:?}, {gap:?}");
        let alarms = nodes.alarms(FAULTY);
        let is_told = |alarm: &String| alarm.starts_with("disk stalls");
        assert!(alarms.iter().any(is_told), "{alarms:?}");
        nodes.disk.faults.stall(false);
        nodes.wait_until_whole(&load);
        let group = nodes.group(FAULTY).expect("it runs");
        assert!(group.term >= new_term, "{group:?}");
        for _ in 0..3 {
            load.wait_for_progress();
        }
        stop.store(true, Ordering::Relaxed);
        let (answered, refused) = read.join().expect("it read nothing stale");
        println!("{answered} reads through it answered, {refused} refused");
        assert!(answered > 100, "it led before");
        assert!(refused > 100, "it did not lead while it stalled");
    });
    println!("{}", load.judge());
}

/// Each of a follower's writes takes 20 to 200 ms: it lags, and nobody else does.
fn dawdle(nodes: &Nodes, load: &Load) {
    load.wait_for_progress();
    let before = nodes.leader();
    nodes.disk.faults.delay(20..200);
    let begun = Instant::now();
    let count = load.acknowledged_count();
    while begun.elapsed() < Duration::from_secs(8) {
        load.wait_for_progress();
        assert_eq!(nodes.leader(), before, "no election");
    }
    let count = load.acknowledged_count() - count;
    println!(
        "{count} acknowledged in {:?} beside a slow follower",
        begun.elapsed()
    );
    nodes.disk.faults.delay(0..0);
    nodes.wait_until_whole(load);
    assert_eq!(nodes.leader(), before, "no election");
}

impl Nodes {
    /// Lets go of power in the middle of writes; the node is not up afterwards.
    fn cut_power(&mut self, kept: Kept) -> usize {
        let lost_count = self.disk.faults.cut_power(kept);
        self.processes.end(FAULTY);
        self.disk.faults.restore_power();
        lost_count
    }
}

#[test]
fn cuts_of_power_on_disks_that_lie_and_on_one_that_does_not() {
    let Some(mut nodes) = Nodes::start() else {
        return;
    };
    let load = Load::paced(nodes.endpoints.clone(), PAUSE);

    // Honest, and as strict as any: of bytes and names nothing is left that was not synced.
    for kept in [Kept::Nothing, Kept::Some, Kept::Nothing] {
        load.wait_for_progress();
        let lost_count = nodes.cut_power(kept);
        println!("{lost_count} changes were not synced");
        nodes.processes.restart(FAULTY);
        nodes.wait_until_whole(&load);
    }
    lose_all(&mut nodes, &load);
    lose_some(&mut nodes, &load);
    println!("{}", load.judge());
}

/// All that the disk was told since it began to lie is gone, and nothing bears witness to it: the node
/// is back where it was, and believes it. The others have what was acknowledged.
fn lose_all(nodes: &mut Nodes, load: &Load) {
    nodes.move_leader(1);
    nodes.disk.faults.lie(Lie::About(""));
    for _ in 0..5 {
        load.wait_for_progress();
    }
    let lie_count = nodes.disk.faults.lie_count();
    let lost_count = nodes.cut_power(Kept::Nothing);
    println!("{lost_count} changes lost after {lie_count} lies");
    assert!(lost_count > 100 && lie_count > 100);
    nodes.processes.restart(FAULTY);
    nodes.wait_until_whole(load);
    let alarms = nodes.alarms(1);
    let told = "log log-0: node-1 had promised blocks that its disk has not kept";
    assert!(alarms.iter().any(|alarm| alarm == told), "{alarms:?}");
}

/// What a drive's cache loses is a flush here and there; those that stayed say of the others that they
/// were promised. So the node knows that it does not know, votes for nobody, and is healed.
fn lose_some(nodes: &mut Nodes, load: &Load) {
    nodes.move_leader(1);
    nodes.disk.faults.lie(Lie::About("journal-"));
    for _ in 0..5 {
        load.wait_for_progress();
    }
    let lost_count = nodes.cut_power(Kept::Some);
    println!("{lost_count} changes lost here and there");
    assert!(lost_count > 100, "it lied");
    for position in [1, 2] {
        nodes.processes.kill(position);
    }
    // With one other it is a majority that must elect nobody.
    nodes.processes.restart(FAULTY);
    nodes.processes.restart(2);
    let unsure = || nodes.group(FAULTY).filter(|group| group.state == UNSURE);
    wait_for("doubt", unsure);
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(3) {
        assert_eq!(nodes.leader(), None, "nobody knows what was acknowledged");
        let alarms = nodes.alarms(FAULTY);
        let is_told = |alarm: &String| alarm.contains("this replica is unsure");
        assert!(alarms.iter().any(is_told), "{alarms:?}");
        std::thread::sleep(Duration::from_millis(50));
    }
    nodes.processes.restart(1);
    load.wait_for_progress();
    nodes.wait_until_whole(load);
}

/// Appends records until `is_enough`; those that are refused for now are tried again.
fn append_until(nodes: &Nodes, next: &mut u64, mut is_enough: impl FnMut(u64) -> bool) {
    let begun = Instant::now();
    let record = vec![7; 300_000];
    while !is_enough(*next) {
        assert!(
            begun.elapsed() < PATIENCE * 3,
            "no end after {next} records"
        );
        let Some((leader, _)) = nodes.leader() else {
            continue;
        };
        let Some(mut wire) = Wire::try_greet(&nodes.endpoints[leader]) else {
            continue;
        };
        wire.append(GROUP, 5, *next, &[&record]);
        if let Answer::Append(reply) = wire.receive() {
            *next += u64::from(reply.outcome == 1);
        }
    }
}

/// The files of a log's first segments.
const FIRST: &str = "segment-00000000";
const SECOND: &str = "segment-00000001";

/// Space goes just when a segment is made, in each of its steps, and comes again: nobody else notices,
/// and what the segment then holds is not lost with its name.
#[test]
fn a_disk_that_is_full_at_a_roll_a_vote_and_a_catch_up_heals_with_space() {
    let Some(mut nodes) = Nodes::start() else {
        return;
    };
    nodes.move_leader(FAULTY);
    let mut next = 0;
    let steps = [
        (Asked::Make, "log-1"),
        (Asked::Make, FIRST),
        (Asked::Sync, FIRST),
        (Asked::Sync, "log-1"),
        (Asked::Write, FIRST),
        (Asked::Sync, FIRST),
        // Once the first one has its 64 MiB.
        (Asked::Make, SECOND),
        (Asked::Sync, SECOND),
    ];
    for (asked, of) in steps {
        nodes.disk.faults.fail(Failure {
            asked,
            of,
            good_count: 0,
            errno: libc::ENOSPC,
        });
        append_until(&nodes, &mut next, |_| nodes.disk.faults.failed().is_some());
        // On a slow disk the journal may be full by then as well.
        let alarms = nodes.alarms(FAULTY);
        let told = "disk full: segments cannot grow; free space to heal it";
        let is_told = alarms.iter().any(|alarm| alarm == told);
        assert!(is_told, "{asked:?} of {of}: {alarms:?}");
    }
    let end = next + 20;
    append_until(&nodes, &mut next, |next| next == end);
    wait_for("healing", || nodes.alarms(FAULTY).is_empty().then_some(()));
    let segment = nodes.disk.home().join("log-1").join(SECOND);
    let size = std::fs::metadata(&segment).expect("it was made").len();
    assert!(size > 1 << 20, "{size}");
    nodes.cut_power(Kept::Nothing);
    let left = std::fs::metadata(&segment)
        .expect("its name was synced")
        .len();
    assert!(
        left >= size,
        "what was told to be there is: {left} of {size}"
    );
    nodes.processes.restart(FAULTY);

    // Full when the other one that leads is gone: it votes, and takes what comes into its journal.
    nodes.move_leader(1);
    nodes.disk.faults.fill(true);
    let is_full = || {
        nodes
            .alarms(FAULTY)
            .iter()
            .any(|alarm| alarm.starts_with("disk full"))
    };
    append_until(&nodes, &mut next, |_| is_full());
    let segments = || std::fs::metadata(&segment).expect("it is there").len();
    let left = segments();
    nodes.processes.kill(1);
    let end = next + 10;
    append_until(&nodes, &mut next, |next| next == end);

    // Full while it is brought up to date, and even when it starts.
    nodes.processes.restart(1);
    nodes.processes.kill(FAULTY);
    let end = next + 30;
    append_until(&nodes, &mut next, |next| next == end);
    nodes.processes.restart(FAULTY);
    wait_for("node that is brought up on a full disk", || {
        let group = nodes.group(FAULTY)?;
        (group.end_offset == next).then_some(())
    });
    assert_eq!(segments(), left, "it did not grow");
    nodes.disk.faults.fill(false);
    wait_for("healing", || {
        (nodes.alarms(FAULTY).is_empty() && segments() > left).then_some(())
    });
}
