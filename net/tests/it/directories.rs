//! A voter comes back with a directory that is not the one it went with: whoever knew it says no, to
//! both of them, and yes again to the right one.

use std::path::Path;
use std::time::{Duration, Instant};

use ringwood_net::config::Identity;
use ringwood_net::{Cluster, ClusterOptions, Layout, VoterAddress};

use crate::wire::Wire;

/// The one whose directory is changed.
const THIRD: usize = 2;

fn alarms(cluster: &Cluster, position: usize) -> Vec<String> {
    let node = cluster.nodes()[position].as_ref().expect("it runs");
    let status = Wire::greet(&node.address().to_string()).status();
    let text = |alarm: &Vec<u8>| String::from_utf8(alarm.clone()).expect("text");
    status.alarms.iter().map(text).collect()
}

fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(
            begun.elapsed() < Duration::from_secs(20),
            "not {what} in 20 s"
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Each of the others refuses the third node for `cause`, and it knows by the reason's word.
fn expect_refused(cluster: &Cluster, cause: &str, reason: &str) {
    for position in [0, 1] {
        until(cause, || {
            let alarms = alarms(cluster, position);
            alarms
                .iter()
                .any(|alarm| alarm.contains("refuses node-3") && alarm.contains(cause))
        });
    }
    until(reason, || {
        let told = |name: &str| format!("{name} refuses this node: {reason}");
        let alarms = alarms(cluster, THIRD);
        ["node-1", "node-2"]
            .iter()
            .all(|name| alarms.iter().any(|alarm| alarm.starts_with(&told(name))))
    });
}

fn expect_well(cluster: &Cluster) {
    until("well", || {
        (0..3).all(|position| alarms(cluster, position).is_empty())
    });
}

/// As `init` would make it for the same node of the same cluster.
fn make_anew(dir: &Path, old: &Path) {
    let identity = Identity::read(old).expect("a node's");
    let voter = |voter: &ringwood_core::shard::Voter| VoterAddress {
        name: voter.name.clone(),
        address: voter.address.clone(),
    };
    let layout = Layout {
        cluster: identity.cluster_name.clone(),
        node: identity.node_name.clone(),
        voters: identity.voters.iter().map(voter).collect(),
        logs: identity.logs.iter().map(|log| log.name.clone()).collect(),
    };
    ringwood_net::init(dir, &layout).expect("a new directory");
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a directory");
    for entry in std::fs::read_dir(from).expect("it is there") {
        let entry = entry.expect("readable");
        let (path, copied) = (entry.path(), to.join(entry.file_name()));
        if path.is_dir() {
            copy(&path, &copied);
        } else {
            std::fs::copy(&path, &copied).expect("there is room");
        }
    }
}

#[test]
fn a_directory_that_is_not_the_voters_own_is_refused_by_those_who_knew_it() {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
    let mut cluster = Cluster::start(dir.path(), ClusterOptions::default()).expect("a cluster");
    expect_well(&cluster);
    let home = dir.path().join("node-3");
    let (aside, backup) = (dir.path().join("aside"), dir.path().join("backup"));

    // Emptied, and made anew under the same name.
    cluster.stop_node(THIRD).expect("it ran");
    std::fs::rename(&home, &aside).expect("one file system");
    make_anew(&home, &aside);
    cluster.start_node(THIRD).expect("it starts");
    expect_refused(&cluster, "emptied", "wrong_incarnation");
    cluster.stop_node(THIRD).expect("it ran");
    std::fs::remove_dir_all(&home).expect("it is there");
    std::fs::rename(&aside, &home).expect("one file system");

    // A node that is stopped may be told to forget whom it knew, and takes the next that comes.
    cluster.stop_node(0).expect("it ran");
    let first = dir.path().join("node-1");
    assert!(ringwood_net::unpin(&first, "node-3").expect("it is stopped"));
    assert!(!ringwood_net::unpin(&first, "node-3").expect("it is stopped"));
    let stranger = ringwood_net::unpin(&first, "node-9").expect_err("no voter");
    assert!(stranger.to_string().contains("no voter"), "{stranger}");
    let running = ringwood_net::unpin(&dir.path().join("node-2"), "node-3");
    assert!(running.expect_err("it runs").to_string().contains("in use"));
    cluster.start_node(0).expect("it starts");

    // The right one again; then back from a backup of before.
    copy(&home, &backup);
    cluster.start_node(THIRD).expect("it starts");
    expect_well(&cluster);
    cluster.stop_node(THIRD).expect("it ran");
    cluster.start_node(THIRD).expect("it starts");
    expect_well(&cluster);
    cluster.stop_node(THIRD).expect("it ran");
    std::fs::rename(&home, &aside).expect("one file system");
    std::fs::rename(&backup, &home).expect("one file system");
    cluster.start_node(THIRD).expect("it starts");
    expect_refused(&cluster, "older", "stale_directory");
    // Started once more it is as old as the right one, and still another.
    cluster.stop_node(THIRD).expect("it ran");
    cluster.start_node(THIRD).expect("it starts");
    expect_refused(&cluster, "not gone on", "copied_directory");
    cluster.stop_node(THIRD).expect("it ran");
    std::fs::remove_dir_all(&home).expect("it is there");
    std::fs::rename(&aside, &home).expect("one file system");
    cluster.start_node(THIRD).expect("it starts");
    expect_well(&cluster);
}

#[test]
fn files_of_another_node_are_refused_at_the_start() {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
    let mut cluster = Cluster::start(dir.path(), ClusterOptions::default()).expect("a cluster");
    cluster.stop_node(1).expect("it ran");
    cluster.stop_node(THIRD).expect("it ran");
    let pins = |name: &str| dir.path().join(name).join("pins");
    let own = std::fs::read(pins("node-3")).expect("it is there");
    std::fs::copy(pins("node-2"), pins("node-3")).expect("it is there");
    let error = cluster.start_node(THIRD).expect_err("another's");
    assert!(
        error
            .to_string()
            .starts_with("pins is damaged or another node's"),
        "{error}"
    );
    // Cut short it is refused, too; with one of the two sectors damaged it starts.
    std::fs::write(pins("node-3"), &own[..4096]).expect("writable");
    let error = cluster.start_node(THIRD).expect_err("cut short");
    assert!(error.to_string().contains("pins has 4096 bytes"), "{error}");
    let mut damaged = own;
    damaged[100] ^= 1;
    std::fs::write(pins("node-3"), &damaged).expect("writable");
    cluster.start_node(THIRD).expect("the other sector tells");
    cluster.stop_node(THIRD).expect("it ran");
    // Its journal, then its name, are another's.
    for (file, cause) in [
        ("journal-0", "is another node's"),
        ("node.toml", "belongs to node"),
    ] {
        let path = |name: &str| dir.path().join(name).join(file);
        let own = std::fs::read(path("node-3")).expect("it is there");
        std::fs::copy(path("node-2"), path("node-3")).expect("it is there");
        let error = cluster.start_node(THIRD).expect_err("another's");
        assert!(error.to_string().contains(cause), "{error}");
        std::fs::write(path("node-3"), own).expect("writable");
    }
    cluster.start_node(THIRD).expect("all is its own again");
    cluster.start_node(1).expect("it starts");
    expect_well(&cluster);
}
