//! Three real processes under load, killed with -9 one by one and now and then all at once: nothing
//! acknowledged is lost, doubled or out of order, and all replicas hold the same bytes.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use ringwood_core::frame::code::ReadMode;
use ringwood_net::client::{Client, Outcome, Pending};
use ringwood_net::{Layout, Node, VoterAddress, init};

use crate::wire::{Answer, Wire};

/// Tells this binary, started again, which directory to serve.
const SERVE: &str = "RINGWOOD_TEST_SERVE";
/// How often somebody is killed, unless `KILL_CYCLES` says otherwise.
const CYCLE_COUNT: usize = 20;
/// From so many cycles on the load is judged, too.
const CYCLE_COUNT_JUDGED: usize = 100;
/// Records acknowledged a second, over the whole run with all its outages.
const RATE_MIN: f64 = 5_000.0;
const PRODUCER_COUNT: usize = 3;
/// Appends of one producer that wait for their answer.
const IN_FLIGHT: usize = 64;
const GROUP: u32 = 1;

/// Not a test of its own: the body of the processes that the test below starts and kills.
#[test]
fn serve_if_told() {
    let Ok(dir) = std::env::var(SERVE) else {
        return;
    };
    let node = Node::builder(dir)
        .start()
        .expect("a node whose last life was killed starts");
    node.wait().expect("it runs until it is killed");
}

/// What the producers and whoever kills know of each other.
#[derive(Default)]
struct Load {
    stop: AtomicBool,
    acknowledged: AtomicU64,
}

impl Load {
    /// Waits until appends are acknowledged again: killing what is down anyway proves nothing.
    fn wait_for_progress(&self) {
        let before = self.acknowledged.load(Ordering::Relaxed);
        let begun = Instant::now();
        while self.acknowledged.load(Ordering::Relaxed) < before + 200 {
            assert!(
                begun.elapsed() < Duration::from_secs(60),
                "nothing is acknowledged any more"
            );
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

pub(crate) struct Processes {
    dirs: Vec<PathBuf>,
    pub(crate) children: Vec<Child>,
}

impl Processes {
    fn spawn(dir: &Path) -> Child {
        Command::new(std::env::current_exe().expect("this binary"))
            .args(["--exact", "killed::serve_if_told", "--nocapture"])
            .env(SERVE, dir)
            .stdout(Stdio::null())
            .spawn()
            .expect("a process")
    }

    pub(crate) fn start(dirs: Vec<PathBuf>) -> Self {
        let children = dirs.iter().map(|dir| Self::spawn(dir)).collect();
        Self { dirs, children }
    }

    fn kill(&mut self, position: usize) {
        // One that is gone already was ended by a fault of its own.
        let ended = self.children[position].try_wait().expect("our child");
        assert_eq!(ended, None, "node {position} ended before it was killed");
        self.children[position].kill().expect("it runs");
        self.children[position]
            .wait()
            .expect("it is this process's child");
    }

    fn restart(&mut self, position: usize) {
        self.children[position] = Self::spawn(&self.dirs[position]);
    }
}

impl Drop for Processes {
    fn drop(&mut self) {
        for child in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn cycle_count() -> usize {
    match std::env::var("KILL_CYCLES") {
        Ok(count) => count.parse().expect("KILL_CYCLES is a number"),
        Err(_) => CYCLE_COUNT,
    }
}

/// Addresses that were free a moment ago.
pub(crate) fn free_addresses(count: usize) -> Vec<SocketAddr> {
    let listeners: Vec<TcpListener> = (0..count)
        .map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port"))
        .collect();
    listeners
        .iter()
        .map(|listener| listener.local_addr().expect("bound"))
        .collect()
}

fn record(producer: usize, number: u64) -> String {
    format!("producer {producer} record {number}")
}

/// Appends numbered records until told to stop; gives the outcome of each.
async fn produce(client: Client, producer: usize, load: Arc<Load>) -> Vec<Outcome> {
    let mut outcomes = Vec::new();
    let mut pending: std::collections::VecDeque<Pending> = std::collections::VecDeque::new();
    let mut number = 0;
    while !load.stop.load(Ordering::Relaxed) {
        if pending.len() >= IN_FLIGHT {
            let outcome = pending.pop_front().expect("it is full").await;
            if matches!(outcome, Outcome::Committed { .. }) {
                load.acknowledged.fetch_add(1, Ordering::Relaxed);
            }
            outcomes.push(outcome);
        }
        pending.push_back(
            client
                .enqueue("log-0", record(producer, number).into_bytes())
                .await,
        );
        number += 1;
    }
    for outcome in pending {
        outcomes.push(outcome.await);
    }
    outcomes
}

/// Everything committed, as one node has it: blocks as bytes, and records.
fn read_all(endpoint: &str, end: u64) -> (Vec<u8>, Vec<Vec<u8>>) {
    let begun = Instant::now();
    let mut wire = Wire::greet(endpoint);
    let (mut bytes, mut records) = (Vec::new(), Vec::new());
    while (records.len() as u64) < end {
        wire.fetch(GROUP, records.len() as u64, ReadMode::AnyReplica);
        let Answer::Fetch(reply, found) = wire.receive() else {
            panic!("a fetch is answered")
        };
        // A replica may lag: then the offset is past its end for a moment.
        if reply.outcome != 1 || found.records.is_empty() {
            assert!(
                begun.elapsed() < Duration::from_secs(60),
                "{endpoint} lags: {reply:?}"
            );
            std::thread::sleep(Duration::from_millis(20));
            continue;
        }
        assert_eq!(
            found.records[0].0,
            records.len() as u64,
            "reads go on where they ended"
        );
        records.extend(found.records.into_iter().map(|(_, record)| record));
        bytes.extend(found.bytes);
    }
    (bytes, records)
}

#[test]
fn nothing_acknowledged_is_lost_to_kill_9() {
    let home = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
    let addresses = free_addresses(3);
    let voters: Vec<VoterAddress> = (1..)
        .zip(&addresses)
        .map(|(number, address)| VoterAddress {
            name: format!("node-{number}"),
            address: address.to_string(),
        })
        .collect();
    let mut dirs = Vec::new();
    for voter in &voters {
        let dir = home.path().join(&voter.name);
        let layout = Layout {
            cluster: "killed".into(),
            node: voter.name.clone(),
            voters: voters.clone(),
            logs: vec!["log-0".into()],
        };
        init(&dir, &layout).expect("a new directory");
        dirs.push(dir);
    }
    let mut processes = Processes::start(dirs);
    let endpoints: Vec<String> = addresses.iter().map(ToString::to_string).collect();

    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let load = Arc::new(Load::default());
    let producers: Vec<_> = (0..PRODUCER_COUNT)
        .map(|producer| {
            let (endpoints, load) = (endpoints.clone(), Arc::clone(&load));
            runtime.spawn(async move {
                let client = loop {
                    match Client::builder()
                        .endpoints(endpoints.clone())
                        .connect()
                        .await
                    {
                        Ok(client) => break client,
                        Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
                    }
                };
                produce(client, producer, load).await
            })
        })
        .collect();

    // Which node, and when, varies from run to run: the point is what must never vary.
    let mut state = std::process::id() | 1;
    let mut draw = move |bound: u32| {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state % bound
    };
    let cycle_count = cycle_count();
    let (begun, mut kill_count) = (Instant::now(), 0);
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
    let acknowledged_count = load.acknowledged.load(Ordering::Relaxed);
    let rate = acknowledged_count as f64 / begun.elapsed().as_secs_f64();
    println!("{cycle_count} cycles, {kill_count} kills, {rate:.0} acknowledged a second");
    if cycle_count >= CYCLE_COUNT_JUDGED {
        assert!(
            rate >= RATE_MIN,
            "the load was too small: {rate:.0} a second"
        );
    }
    load.stop.store(true, Ordering::Relaxed);
    let outcomes: Vec<Vec<Outcome>> = producers
        .into_iter()
        .map(|producer| {
            runtime
                .block_on(producer)
                .expect("a producer does not panic")
        })
        .collect();

    let acknowledged: Vec<(usize, u64, u64)> = outcomes
        .iter()
        .enumerate()
        .flat_map(|(producer, outcomes)| {
            (0..)
                .zip(outcomes)
                .filter_map(move |(number, outcome)| match outcome {
                    Outcome::Committed { offset, .. } => Some((producer, number, *offset)),
                    _ => None,
                })
        })
        .collect();
    assert!(
        acknowledged.len() > 1_000,
        "the load was real: {}",
        acknowledged.len()
    );
    let end = acknowledged
        .iter()
        .map(|(_, _, offset)| offset + 1)
        .max()
        .expect("some");
    let (first_bytes, records) = read_all(&endpoints[0], end);

    for (producer, number, offset) in &acknowledged {
        let found = String::from_utf8_lossy(&records[*offset as usize]);
        assert_eq!(
            found,
            record(*producer, *number),
            "acknowledged at {offset}"
        );
    }
    let mut next: BTreeMap<String, u64> = BTreeMap::new();
    for record in &records {
        let text = String::from_utf8_lossy(record).into_owned();
        let (producer, number) = text.rsplit_once(" record ").expect("as it was made");
        let number: u64 = number.parse().expect("as it was made");
        let least = next.entry(producer.to_owned()).or_default();
        assert!(number >= *least, "{text}: doubled or out of order");
        *least = number + 1;
    }
    for endpoint in &endpoints[1..] {
        let (bytes, others) = read_all(endpoint, end);
        let common = bytes.len().min(first_bytes.len());
        assert!(
            bytes[..common] == first_bytes[..common],
            "{endpoint} holds other bytes"
        );
        assert!(others[..end as usize] == records[..end as usize]);
    }
    println!(
        "{} acknowledged, {} in the log",
        acknowledged.len(),
        records.len()
    );
}
