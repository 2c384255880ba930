//! A message broker's partition on an embedded cluster: append, lose the leader, go on, read from
//! an offset, follow the tail. Run it with `cargo run --example partition`.
//!
//! A broker that embeds a node does the same with its own node's directory (`ringwood_net::init`,
//! then `Node::builder(dir).start()`) on each of its machines; here three nodes share a process.

use std::error::Error;
use std::path::Path;

use ringwood_core::frame::code::ReadMode;
use ringwood_net::client::{Client, Outcome};
use ringwood_net::{Cluster, ClusterOptions};

/// The log that backs the partition.
const PARTITION: &str = "log-0";

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let dir = tempfile::tempdir_in(".")?;
    let (offsets, followed) = run(dir.path()).await?;
    println!(
        "{} messages at offsets {offsets:?}; followed {followed:?}",
        offsets.len()
    );
    Ok(())
}

/// Appends six messages, half of them after the leader's node has gone, and reads them back.
/// Gives their offsets, and what a consumer that started at the fourth message saw.
pub(crate) async fn run(dir: &Path) -> Result<(Vec<u64>, Vec<String>), Box<dyn Error>> {
    let mut cluster = Cluster::start(dir, ClusterOptions::default())?;
    let client = Client::builder()
        .endpoints(cluster.endpoints())
        .connect()
        .await?;

    let mut offsets = Vec::new();
    for number in 0..3 {
        offsets.push(publish(&client, format!("message {number}")).await?);
    }

    // The node that leads the partition goes away. Whoever publishes notices at most a pause: the
    // client finds the next leader and retries under the same sequence, so nothing doubles.
    let leader = leader_of(&client, &cluster)
        .await
        .ok_or("the partition has a leader")?;
    cluster.stop_node(leader)?;
    for number in 3..6 {
        offsets.push(publish(&client, format!("message {number}")).await?);
    }

    // A consumer that restarts at a known offset, and then follows the end.
    let mut tail = client.tail(PARTITION, offsets[3]);
    let mut followed = Vec::new();
    while followed.len() < 3 {
        let record = tail.next().await?;
        followed.push(String::from_utf8_lossy(&record.bytes).into_owned());
    }

    // A replay that must see every acknowledged message asks for a linearizable read.
    let wait = std::time::Duration::ZERO;
    let all = client
        .fetch(PARTITION, 0, 1 << 20, wait, ReadMode::Linearizable)
        .await?;
    assert!(all.end_offset >= offsets[5]);
    client.close().await;
    cluster.stop()?;
    Ok((offsets, followed))
}

/// An acknowledged message is on the disks of a majority.
async fn publish(client: &Client, message: String) -> Result<u64, Box<dyn Error>> {
    match client.append(PARTITION, message.into_bytes()).await {
        Outcome::Committed { offset, .. } => Ok(offset),
        other => Err(format!("not published: {other:?}").into()),
    }
}

/// Position of the node that leads the partition.
async fn leader_of(client: &Client, cluster: &Cluster) -> Option<usize> {
    let log = client
        .cluster()
        .logs
        .into_iter()
        .find(|log| log.name == PARTITION)?;
    for report in client.status().await {
        let Ok(status) = report.result else { continue };
        let mut groups = status
            .groups
            .iter()
            .filter(|group| group.group == log.group.0);
        if groups.any(|group| group.leader == status.node) {
            return cluster.position(&report.name);
        }
    }
    None
}
