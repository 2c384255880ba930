//! A log lets go of its oldest records on real disks, while one node is away for longer than they
//! are kept.

use std::path::Path;
use std::time::{Duration, Instant};

use ringwood_net::client::{Client, FetchError, Outcome, ReadMode};
use ringwood_net::{Cluster, ClusterOptions};

/// Two segments of 64 MiB and some.
const RECORD_COUNT: u64 = 140;
const RECORD_SIZE: usize = 1 << 20;
const LOG: &str = "log-0";

fn record(number: u64) -> Vec<u8> {
    let mut record = vec![number as u8; RECORD_SIZE];
    record[..8].copy_from_slice(&number.to_le_bytes());
    record
}

/// Numbers of a node's segments of the first log.
fn segments(dir: &Path, node: usize) -> Vec<u32> {
    let dir = dir.join(format!("node-{node}")).join("log-1");
    let Ok(names) = std::fs::read_dir(dir) else {
        return Vec::new();
    };
    let number = |name: &str| name.strip_prefix("segment-")?.parse().ok();
    let names = names.map(|entry| entry.expect("an entry").file_name());
    let mut numbers: Vec<u32> = names
        .filter_map(|name| number(name.to_str().expect("a plain name")))
        .collect();
    numbers.sort_unstable();
    numbers
}

async fn wait_for(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let begun = Instant::now();
    while !is_so().await {
        assert!(
            begun.elapsed() < Duration::from_secs(60),
            "not in 60 s: {what}"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn append(client: &Client, from: u64, to: u64) {
    let mut pending = Vec::new();
    for number in from..to {
        pending.push(client.enqueue(LOG, record(number)).await);
    }
    for (number, pending) in (from..to).zip(pending) {
        match pending.await {
            Outcome::Committed { offset, .. } => assert_eq!(offset, number),
            outcome => panic!("record {number}: {outcome:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_was_away_comes_back_to_a_trimmed_log() {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
    let options = ClusterOptions::default();
    let mut cluster = Cluster::start(dir.path(), options).expect("a cluster starts");
    let endpoints = cluster.endpoints();
    let client = Client::builder().endpoints(endpoints.clone());
    let client = client.append_timeout(Duration::from_secs(60));
    let client = client.connect().await.expect("it answers");
    append(&client, 0, 5).await;
    let (away, address) = (2, endpoints[2].clone());
    cluster.stop_node(away).expect("it ran");
    append(&client, 5, RECORD_COUNT).await;
    let start = RECORD_COUNT - 20;
    wait_for("segments are written", async || {
        segments(dir.path(), 1).len() >= 2
    })
    .await;
    assert_eq!(client.trim(LOG, start).await.expect("a leader"), start);
    for node in [1, 2] {
        wait_for("the first segment goes", async || {
            !segments(dir.path(), node).contains(&0)
        })
        .await;
    }
    let refused = client
        .fetch(LOG, 0, 1, Duration::ZERO, ReadMode::Linearizable)
        .await;
    let trimmed = FetchError::Trimmed {
        first_offset: start,
    };
    assert_eq!(refused.expect_err("it is gone"), trimmed);
    // The node that was away has the first five records, and nobody has the next.
    cluster.start_node(away).expect("it starts again");
    let alone = Client::builder().endpoints([address]);
    let alone = alone.connect().await.expect("it answers");
    let report = async |client: &Client| {
        let reports = client.status().await;
        let status = reports.into_iter().find_map(|report| {
            report
                .result
                .ok()
                .filter(|_| report.name == format!("node-{}", away + 1))
        });
        status.and_then(|status| status.groups.into_iter().find(|group| group.group == 1))
    };
    wait_for("it has what is left", async || {
        report(&alone)
            .await
            .is_some_and(|group| group.first_offset == start && group.end_offset == RECORD_COUNT)
    })
    .await;
    append(&client, RECORD_COUNT, RECORD_COUNT + 3).await;
    // It may lead, and gives what it has.
    wait_for("it leads", async || {
        client.transfer_leadership(LOG, "node-3").await.is_ok()
    })
    .await;
    for offset in [start, RECORD_COUNT + 2] {
        let fetched = client
            .fetch(LOG, offset, 1, Duration::ZERO, ReadMode::Linearizable)
            .await
            .expect("it is kept");
        assert!(
            fetched.records[0].bytes == record(offset),
            "record {offset}"
        );
    }
    client.close().await;
    alone.close().await;
    cluster.stop().expect("it ran");
}
