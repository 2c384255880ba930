//! One client that follows more logs than a node lets pile up for it.

use std::time::Duration;

use ringwood_net::client::{Client, Outcome};
use ringwood_net::{Cluster, ClusterOptions};
use tokio::task::JoinSet;
use tokio::time::timeout;

/// So many that one answer for each is three times what may be queued to a client.
const LOG_COUNT: usize = 24;
const RECORD_COUNT: u64 = 3;

fn name(number: usize) -> String {
    format!("log-{number}")
}

#[tokio::test(flavor = "multi_thread")]
async fn one_client_follows_many_logs_that_all_have_much_to_give() {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
    let options = ClusterOptions {
        node_count: 1,
        logs: (0..LOG_COUNT).map(name).collect(),
        ..ClusterOptions::default()
    };
    let cluster = Cluster::start(dir.path(), options).expect("a cluster starts");
    let client = Client::builder().endpoints(cluster.endpoints());
    let client = client.connect().await.expect("a node answers");
    let record = vec![7; 1 << 20];
    for log in (0..LOG_COUNT).map(name) {
        for number in 0..RECORD_COUNT {
            match client.append(&log, record.clone()).await {
                Outcome::Committed { offset, .. } => assert_eq!(offset, number),
                outcome => panic!("{log}, record {number}: {outcome:?}"),
            }
        }
    }
    let mut readers = JoinSet::new();
    for log in (0..LOG_COUNT).map(name) {
        let mut tail = client.tail(&log, 0);
        readers.spawn(async move {
            for number in 0..RECORD_COUNT {
                let record = tail.next().await.expect("it is there");
                assert_eq!((record.offset, record.bytes.len()), (number, 1 << 20));
            }
        });
    }
    let all = timeout(Duration::from_secs(60), readers.join_all()).await;
    all.expect("each gets all there is");
    drop(cluster);
}
