//! Nodes on file systems that fill and freeze.

use std::time::{Duration, Instant};

use ringwood_core::frame::code::{NotCommittedReason, Outcome, ReadMode};
use ringwood_net::{Cluster, ClusterOptions};

use crate::file_system::file_systems;
use crate::wire::{Answer, Wire};

const GROUP: u32 = 1;
fn options(node_count: usize) -> ClusterOptions {
    ClusterOptions {
        node_count,
        logs: vec!["log".into()],
        ..ClusterOptions::default()
    }
}

/// Who leads, as the nodes but `but` say, and in which term.
fn leader(cluster: &Cluster, but: Option<usize>) -> Option<(usize, u64)> {
    let nodes = cluster.nodes().iter().enumerate();
    let mut nodes = nodes.filter(|(position, _)| Some(*position) != but);
    nodes.find_map(|(position, node)| {
        let status = Wire::greet(&node.as_ref()?.address().to_string()).status();
        let group = status.groups.iter().find(|group| group.group == GROUP)?;
        (group.state == 1).then_some((position, group.term))
    })
}

fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(
            begun.elapsed() < Duration::from_secs(30),
            "no {what} in 30 s"
        );
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn append(
    wire: &mut Wire,
    sequence: u64,
    record: &[u8],
) -> (Option<Outcome>, Option<NotCommittedReason>) {
    wire.append(GROUP, 5, sequence, &[record]);
    match wire.receive() {
        Answer::Append(reply) => (
            Outcome::from_code(reply.outcome),
            NotCommittedReason::from_code(reply.reason),
        ),
        _ => (None, None),
    }
}

#[test]
fn a_leader_whose_file_system_freezes_is_replaced_before_it_thaws() {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
    let Some(file_systems) = file_systems(dir.path(), 3) else {
        return;
    };
    let cluster = Cluster::start(dir.path(), options(3)).expect("a cluster");
    let (old, term) = wait_for("leader", || leader(&cluster, None));
    let endpoint = cluster.endpoints()[old].clone();
    let mut wire = Wire::greet(&endpoint);
    let mut sequence = 0;
    // Long enough for everybody to have measured everybody, and for bad starts to be forgotten.
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(25) {
        if append(&mut wire, sequence, b"before").0 == Some(Outcome::Committed) {
            sequence += 1;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(sequence > 1_000, "{sequence} appends in 25 s");
    let timeout = Duration::from_nanos(Wire::greet(&endpoint).status().timeout_ns);
    let (held, _) = wait_for("leader", || leader(&cluster, None));
    assert_eq!(held, old, "nothing moves while nothing stalls");
    file_systems[old].freeze(true);
    let frozen = Instant::now();
    let watched = std::thread::scope(|scope| {
        let watch = scope.spawn(|| wait_for("other leader", || leader(&cluster, Some(old))));
        // Appends are what shows that the others can do without it.
        while !watch.is_finished() {
            if append(&mut wire, sequence, b"while").0 == Some(Outcome::Committed) {
                sequence += 1;
            }
        }
        watch.join().expect("it looked")
    });
    let took = frozen.elapsed();
    println!("T was {timeout:?}; another node leads {took:?} after the freeze");
    assert!(took < Duration::from_secs(5), "after {took:?}");
    assert!(watched.1 > term);
    let mut next = Wire::greet(&cluster.endpoints()[watched.0]);
    wait_for("append", || {
        (append(&mut next, sequence, b"after").0 == Some(Outcome::Committed)).then_some(())
    });
    sequence += 1;
    let alarms = Wire::greet(&endpoint).status().alarms;
    let alarms: Vec<_> = alarms
        .iter()
        .map(|alarm| String::from_utf8_lossy(alarm))
        .collect();
    assert!(
        alarms.iter().any(|alarm| alarm.starts_with("disk stalls")),
        "{alarms:?}"
    );
    file_systems[old].freeze(false);
    let end = wait_for("catching up", || {
        let status = Wire::greet(&endpoint).status();
        let group = status.groups.iter().find(|group| group.group == GROUP)?;
        (group.end_offset == sequence && group.durable == group.last).then_some(group.end_offset)
    });
    assert_eq!(end, sequence, "what was acknowledged is there, once");
    cluster.stop().expect("all ran until now");
}

#[test]
fn a_full_file_system_refuses_appends_alone_and_heals_by_itself() {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
    let Some(file_systems) = file_systems(dir.path(), 1) else {
        return;
    };
    let cluster = Cluster::start(dir.path(), options(1)).expect("a cluster");
    wait_for("leader", || leader(&cluster, None));
    let endpoint = cluster.endpoints().remove(0);
    let filling = file_systems[0].fill();
    let mut wire = Wire::greet(&endpoint);
    let record = vec![7; 900_000];
    let mut sequence = 0;
    let begun = Instant::now();
    loop {
        match append(&mut wire, sequence, &record) {
            (Some(Outcome::Committed), _) => sequence += 1,
            (_, Some(NotCommittedReason::DiskFull)) => break,
            (Some(Outcome::NotCommitted), Some(NotCommittedReason::Overloaded)) => {
                std::thread::sleep(Duration::from_millis(5));
            }
            other => panic!("record {sequence} ended as {other:?}"),
        }
        assert!(begun.elapsed() < Duration::from_secs(120), "never full");
    }
    println!("full after {sequence} records of 900 kB");
    // Reads go on, and the node says what is wrong.
    wire.fetch(GROUP, 0, ReadMode::Linearizable);
    let Answer::Fetch(_, found) = wire.receive() else {
        panic!("a fetch has an answer")
    };
    assert_eq!(found.records[0], (0, record.clone()));
    let status = Wire::greet(&endpoint).status();
    let alarm = b"disk full: segments cannot grow; free space to heal it";
    assert!(status.alarms.iter().any(|told| told == alarm));
    std::fs::remove_file(filling).expect("it is there");
    wait_for("append", || {
        (append(&mut wire, sequence, &record).0 == Some(Outcome::Committed)).then_some(())
    });
    cluster.stop().expect("a full disk ends nobody");
}
