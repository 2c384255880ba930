//! Producers that never pause, whatever happens to the nodes, and what must hold after all of it:
//! nothing acknowledged is lost, doubled or out of order, and all replicas hold the same bytes.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use ringwood_core::frame::code::ReadMode;
use ringwood_net::client::{Client, Outcome, Pending};
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;

use crate::wire::{Answer, Wire};

const PRODUCER_COUNT: usize = 3;
/// Appends of one producer that wait for their answer, where it does not pause.
const IN_FLIGHT: usize = 64;
const GROUP: u32 = 1;

/// What the producers and whoever kills know of each other.
#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    acknowledged: AtomicU64,
    /// Above the offset of each of them.
    end: AtomicU64,
}

/// A load on the nodes at `endpoints`.
pub(crate) struct Load {
    endpoints: Vec<String>,
    runtime: Runtime,
    shared: Arc<Shared>,
    producers: Vec<JoinHandle<Vec<Outcome>>>,
    begun: Instant,
}

/// What a load came to.
pub(crate) struct Sum {
    pub(crate) acknowledged_count: usize,
    pub(crate) record_count: usize,
    /// Acknowledged a second, over the whole run with all its outages.
    pub(crate) rate: f64,
}

impl std::fmt::Display for Sum {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            acknowledged_count,
            record_count,
            rate,
        } = self;
        write!(
            f,
            "{acknowledged_count} acknowledged, {record_count} in the log, {rate:.0} a second"
        )
    }
}

impl Load {
    /// As much as the nodes take.
    pub(crate) fn start(endpoints: Vec<String>) -> Self {
        Self::paced(endpoints, Duration::ZERO)
    }

    /// Each producer has one append under way at a time, and pauses for so long after it.
    pub(crate) fn paced(endpoints: Vec<String>, pause: Duration) -> Self {
        let runtime = Runtime::new().expect("a runtime");
        let shared = Arc::new(Shared::default());
        let producers = (0..PRODUCER_COUNT).map(|producer| {
            let (endpoints, shared) = (endpoints.clone(), Arc::clone(&shared));
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
                produce(client, producer, pause, shared).await
            })
        });
        Self {
            producers: producers.collect(),
            endpoints,
            runtime,
            shared,
            begun: Instant::now(),
        }
    }

    /// Waits until appends are acknowledged again: killing what is down anyway proves nothing.
    pub(crate) fn wait_for_progress(&self) {
        let (before, begun) = (self.acknowledged_count(), Instant::now());
        while self.acknowledged_count() < before + 200 {
            assert!(
                begun.elapsed() < Duration::from_secs(60),
                "nothing is acknowledged any more"
            );
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// How many were acknowledged until now.
    pub(crate) fn acknowledged_count(&self) -> u64 {
        self.shared.acknowledged.load(Ordering::Relaxed)
    }

    /// The offset after those of all that were.
    pub(crate) fn acknowledged_end(&self) -> u64 {
        self.shared.end.load(Ordering::SeqCst)
    }

    /// Ends the load and judges what the nodes, all of which run, have of it.
    pub(crate) fn judge(self) -> Sum {
        let acknowledged_count = self.acknowledged_count();
        let rate = acknowledged_count as f64 / self.begun.elapsed().as_secs_f64();
        self.shared.stop.store(true, Ordering::Relaxed);
        let end = |producer| self.runtime.block_on(producer);
        let outcomes: Vec<Vec<Outcome>> = self
            .producers
            .into_iter()
            .map(|producer| end(producer).expect("a producer does not panic"))
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
        let (first_bytes, records) = read_all(&self.endpoints[0], end);

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
        for endpoint in &self.endpoints[1..] {
            let (bytes, others) = read_all(endpoint, end);
            let common = bytes.len().min(first_bytes.len());
            assert!(
                bytes[..common] == first_bytes[..common],
                "{endpoint} holds other bytes"
            );
            assert!(others[..end as usize] == records[..end as usize]);
        }
        Sum {
            acknowledged_count: acknowledged.len(),
            record_count: records.len(),
            rate,
        }
    }
}

fn record(producer: usize, number: u64) -> String {
    format!("producer {producer} record {number}")
}

/// Appends numbered records until told to stop; gives the outcome of each.
async fn produce(
    client: Client,
    producer: usize,
    pause: Duration,
    shared: Arc<Shared>,
) -> Vec<Outcome> {
    let mut outcomes = Vec::new();
    let mut pending: VecDeque<Pending> = VecDeque::new();
    let mut number = 0;
    let in_flight = if pause.is_zero() { IN_FLIGHT } else { 1 };
    while !shared.stop.load(Ordering::Relaxed) {
        if pending.len() >= in_flight {
            let outcome = pending.pop_front().expect("it is full").await;
            if let Outcome::Committed { offset, .. } = outcome {
                shared.end.fetch_max(offset + 1, Ordering::SeqCst);
                shared.acknowledged.fetch_add(1, Ordering::Relaxed);
            }
            outcomes.push(outcome);
        }
        pending.push_back(
            client
                .enqueue("log-0", record(producer, number).into_bytes())
                .await,
        );
        number += 1;
        if !pause.is_zero() {
            tokio::time::sleep(pause).await;
        }
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
