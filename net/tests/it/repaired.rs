//! A stopped node's files are spoilt, it starts again, and nothing that is read differs: what is
//! damaged comes from the others, and the next scrub finds nothing.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ringwood_core::frame::code::ReadMode;
use ringwood_net::client::{Client, Outcome, Status};
use ringwood_net::{Cluster, ClusterOptions};

const RECORD_SIZE: usize = 200_000;
const RECORD_COUNT: u64 = 60;
/// The node whose disk is bad.
const BAD: usize = 1;

fn record(number: u64) -> Vec<u8> {
    (0..RECORD_SIZE)
        .map(|at| (number as usize + at * at / 7) as u8)
        .collect()
}

/// The segments of a node's directory.
fn segments(dir: &Path) -> Vec<PathBuf> {
    let log = std::fs::read_dir(dir.join("log-1")).expect("the log has segments");
    let mut files: Vec<PathBuf> = log.map(|entry| entry.expect("readable").path()).collect();
    files.sort();
    files
}

/// Every record of the log, from whichever replica the client turns to.
async fn read_all(client: &Client) {
    let mut at = 0;
    while at < RECORD_COUNT {
        let wait = Duration::ZERO;
        let fetched = client.fetch("log-0", at, 1 << 20, wait, ReadMode::AnyReplica);
        let fetched = fetched.await.expect("somebody has it");
        for found in fetched.records {
            assert_eq!(found.offset, at);
            assert!(found.bytes == record(at), "record {at} is another");
            at += 1;
        }
    }
}

/// Asks for a scrub, waits until the bad node has ended one, and gives its account.
async fn scrub(client: &Client, node: &str) -> Status {
    let account = |reports: Vec<ringwood_net::client::NodeReport>| {
        let report = reports.into_iter().find(|report| report.name == node);
        *report.expect("it is known").result.expect("it answers")
    };
    let before = account(client.scrub().await).scrub_passes;
    let begun = Instant::now();
    loop {
        let status = account(client.status().await);
        let is_over = status.scrub_passes > before;
        if is_over && status.damage_found == status.damage_healed {
            return status;
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "{status:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[test]
fn a_spoilt_directory_heals_from_the_others() {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
    let mut cluster =
        Cluster::start(dir.path(), ClusterOptions::default()).expect("a cluster starts");
    let endpoints: Vec<String> = cluster
        .nodes()
        .iter()
        .flatten()
        .map(|node| node.address().to_string())
        .collect();
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let client = runtime
        .block_on(Client::builder().endpoints(endpoints).connect())
        .expect("it runs");
    runtime.block_on(async {
        for number in 0..RECORD_COUNT {
            let outcome = client.enqueue("log-0", record(number)).await.await;
            assert!(matches!(outcome, Outcome::Committed { .. }), "{outcome:?}");
        }
    });
    cluster.stop_node(BAD).expect("it ran");
    let name = format!("node-{}", BAD + 1);
    for file in segments(&dir.path().join(&name)) {
        let mut bytes = std::fs::read(&file).expect("readable");
        // Somewhere in the blocks: the header is looked at when the node starts.
        let at = bytes.len() / 2;
        bytes[at] ^= 1;
        std::fs::write(&file, bytes).expect("writable");
    }
    cluster.start_node(BAD).expect("it starts again");
    runtime.block_on(async {
        read_all(&client).await;
        let status = scrub(&client, &name).await;
        assert!(status.damage_found > 0, "what was spoilt is found");
        assert!(status.alarms.is_empty(), "{:?}", status.alarms);
        let found = status.damage_found;
        read_all(&client).await;
        assert_eq!(scrub(&client, &name).await.damage_found, found, "once");
        client.close().await;
    });
    cluster.stop().expect("it ran");
}
