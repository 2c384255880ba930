//! Three nodes in one process: append, read back, lose the leader, go on, restart everything.

use std::time::{Duration, Instant};

use ringwood_core::frame::code::{Outcome, ReadMode};
use ringwood_net::{Cluster, ClusterOptions};

use crate::wire::{Answer, Wire};

const GROUP: u32 = 1;

/// The endpoint of the node that leads `GROUP`, asked until there is one.
fn leader(cluster: &Cluster) -> (usize, String) {
    let begun = Instant::now();
    loop {
        for (position, node) in cluster.nodes().iter().enumerate() {
            let Some(node) = node else { continue };
            let endpoint = node.address().to_string();
            let status = Wire::greet(&endpoint).status();
            let group = status
                .groups
                .iter()
                .find(|group| group.group == GROUP)
                .expect("a log");
            if group.leader == status.node && group.state == 1 {
                return (position, endpoint);
            }
        }
        assert!(
            begun.elapsed() < Duration::from_secs(20),
            "no leader in 20 s"
        );
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Appends one record and says at which offset it is, asking leader after leader.
fn append(cluster: &Cluster, producer: u64, sequence: u64, record: &[u8]) -> u64 {
    let begun = Instant::now();
    loop {
        let (_, endpoint) = leader(cluster);
        let mut wire = Wire::greet(&endpoint);
        wire.append(GROUP, producer, sequence, &[record]);
        if let Answer::Append(reply) = wire.receive()
            && reply.outcome == Outcome::Committed.code()
        {
            return reply.offset;
        }
        assert!(
            begun.elapsed() < Duration::from_secs(20),
            "not committed in 20 s"
        );
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn read(cluster: &Cluster) -> Vec<Vec<u8>> {
    let (_, endpoint) = leader(cluster);
    let mut wire = Wire::greet(&endpoint);
    let mut all = Vec::new();
    loop {
        wire.fetch(GROUP, all.len() as u64, ReadMode::Linearizable);
        let Answer::Fetch(reply, found) = wire.receive() else {
            panic!("a fetch is answered")
        };
        assert_eq!(reply.outcome, 1, "{reply:?}");
        for (offset, record) in found.records {
            assert_eq!(offset, all.len() as u64, "offsets are dense");
            all.push(record);
        }
        if reply.end_offset == all.len() as u64 {
            return all;
        }
    }
}

#[test]
fn records_survive_the_leader_and_the_whole_cluster() {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
    let mut cluster =
        Cluster::start(dir.path(), ClusterOptions::default()).expect("a cluster starts");
    assert_eq!(append(&cluster, 5, 0, b"one"), 0);
    assert_eq!(append(&cluster, 5, 1, b"two"), 1);
    assert_eq!(
        append(&cluster, 5, 1, b"two"),
        1,
        "a retry gets the first offset"
    );
    let (first_leader, _) = leader(&cluster);
    cluster.stop_node(first_leader).expect("it ran");
    assert_eq!(
        append(&cluster, 5, 1, b"two"),
        1,
        "also from the next leader"
    );
    assert_eq!(append(&cluster, 5, 2, b"three"), 2);
    cluster.start_node(first_leader).expect("it starts again");
    assert_eq!(
        read(&cluster),
        [b"one".to_vec(), b"two".to_vec(), b"three".to_vec()]
    );
    cluster.stop().expect("it ran");
    let options = ClusterOptions::default();
    let cluster = Cluster::start(dir.path(), options).expect("it starts again");
    assert_eq!(append(&cluster, 5, 3, b"four"), 3);
    assert_eq!(read(&cluster).len(), 4);
}

/// A node that made itself a new journal would have forgotten its votes and what it acknowledged.
#[test]
fn a_lost_journal_is_not_made_anew() {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
    let options = || ClusterOptions {
        node_count: 1,
        ..ClusterOptions::default()
    };
    let cluster = Cluster::start(dir.path(), options()).expect("a cluster starts");
    assert_eq!(append(&cluster, 5, 0, b"kept"), 0);
    cluster.stop().expect("it ran");
    let journal = dir.path().join("node-1").join("journal-0");
    std::fs::remove_file(&journal).expect("the journal's first file");
    let refused = Cluster::start(dir.path(), options()).expect_err("a node without its journal");
    assert!(refused.to_string().contains("journal-0"), "{refused}");
    assert!(!journal.exists(), "and nothing was made in its place");
}
