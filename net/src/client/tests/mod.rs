//! The client over real sockets, against nodes that do as the test says.
//!
//! What is decided is tried in core; here it is that bytes, wake-ups and ends arrive.

mod fake;

use std::time::Instant;

use ringwood_core::frame::refusal::Refusal;
use ringwood_core::limits::RECORD_SIZE_MAX;

use super::*;
use fake::{Cluster, Manner, ms};

fn offset(outcome: Outcome) -> u64 {
    match outcome {
        Outcome::Committed { offset, term, .. } => {
            assert_eq!(term, 1);
            offset
        }
        other => panic!("{other:?}"),
    }
}

async fn connect(cluster: &Cluster, place: usize) -> Client {
    let builder = Client::builder().endpoints([cluster.endpoint(place)]);
    builder.connect().await.expect("a node is there")
}

#[tokio::test]
async fn records_are_appended_in_order_and_read_back() {
    let cluster = Cluster::start(&[Manner::Leads]).await;
    let client = connect(&cluster, 0).await;
    assert_eq!(client.cluster().name, "fake");
    assert_eq!(client.cluster().logs[0].name, "log-0");
    assert_eq!(offset(client.append("log-0", "zero").await), 0);
    let mut pending = Vec::new();
    for number in 1..1_000 {
        pending.push(client.enqueue("log-0", format!("record {number}")).await);
    }
    for (pending, number) in pending.into_iter().zip(1..) {
        assert_eq!(offset(pending.await), number);
    }
    let mode = ReadMode::Committed;
    let fetched = client
        .fetch("log-0", 3, 1 << 20, ms(0), mode)
        .await
        .unwrap();
    assert_eq!(fetched.end_offset, 1_000);
    assert_eq!(fetched.records.len(), 997);
    let offsets: Vec<u64> = fetched.records.iter().map(|record| record.offset).collect();
    assert!(offsets.iter().copied().eq(3..1_000));
    assert_eq!(&fetched.records[0].bytes[..], b"record 3");
    assert_eq!(&fetched.records[996].bytes[..], b"record 999");
    assert_eq!(client.end_offset("log-0").await, Ok(1_000));
    client.close().await;
}

#[tokio::test]
async fn a_redirect_leads_to_the_leader() {
    let manners = [Manner::Follows(3), Manner::Follows(3), Manner::Leads];
    let cluster = Cluster::start(&manners).await;
    let client = connect(&cluster, 0).await;
    assert_eq!(offset(client.append("log-0", "a").await), 0);
    // Leadership moves in the same term here, which Raft never does: only the denial counts.
    cluster.behave(2, Manner::Follows(2));
    cluster.behave(1, Manner::Leads);
    assert_eq!(offset(client.append("log-0", "b").await), 1);
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_asked_for_again_and_the_record_is_there_once() {
    for manner in [Manner::BreaksOff, Manner::SwallowsAnswer] {
        let cluster = Cluster::start(&[manner]).await;
        let client = connect(&cluster, 0).await;
        assert_eq!(offset(client.append("log-0", "once").await), 0);
        assert_eq!(offset(client.append("log-0", "twice").await), 1);
        assert_eq!(cluster.log.lock().unwrap().end, 2);
    }
}

#[tokio::test]
async fn a_node_that_never_answers_runs_into_each_timeout() {
    let cluster = Cluster::start(&[Manner::Leads]).await;
    let builder = Client::builder().endpoints([cluster.endpoint(0)]);
    let builder = builder.append_timeout(ms(200)).request_timeout(ms(200));
    let client = builder.connect().await.unwrap();
    assert_eq!(offset(client.append("log-0", "a").await), 0);
    cluster.behave(0, Manner::Mute);
    let begin = Instant::now();
    assert_eq!(client.append("log-0", "b").await, Outcome::Unknown);
    let error = client.end_offset("log-0").await.unwrap_err();
    assert_eq!(error, FetchError::TimedOut);
    assert!(error.is_retryable());
    assert!(begin.elapsed() >= ms(400) && begin.elapsed() < ms(2_000));
    // What follows an append that is given up goes on under a new epoch.
    cluster.behave(0, Manner::Leads);
    assert_eq!(offset(client.append("log-0", "c").await), 1);
}

#[tokio::test]
async fn a_frozen_leader_costs_a_fraction_of_a_second_and_no_record() {
    let manners = [Manner::Leads, Manner::Follows(1), Manner::Follows(1)];
    let cluster = Cluster::start(&manners).await;
    let client = connect(&cluster, 0).await;
    let mut tail = client.tail("log-0", 0);
    assert_eq!(offset(client.append("log-0", "a").await), 0);
    assert_eq!(tail.next().await.unwrap().offset, 0);
    // The connection stays open, the kernel takes what is sent, and nothing comes back.
    cluster.behave(0, Manner::Mute);
    let begin = Instant::now();
    let pending = client.enqueue("log-0", "b").await;
    tokio::time::sleep(ms(60)).await;
    assert_eq!(pending.outcome(), None);
    cluster.behave(1, Manner::Leads);
    cluster.behave(2, Manner::Follows(2));
    assert_eq!(offset(pending.await), 1);
    assert!(begin.elapsed() < ms(1_000), "{:?}", begin.elapsed());
    assert_eq!(&tail.next().await.unwrap().bytes[..], b"b");
    assert_eq!(cluster.log.lock().unwrap().end, 2);
}

#[tokio::test]
async fn one_endpoint_that_works_is_enough() {
    let cluster = Cluster::start(&[Manner::Mute, Manner::Leads]).await;
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let dead = free.local_addr().unwrap().to_string();
    drop(free);
    let endpoints = [dead, cluster.endpoint(1)];
    let client = Client::builder().endpoints(endpoints).connect().await;
    assert_eq!(offset(client.unwrap().append("log-0", "a").await), 0);
}

#[tokio::test]
async fn garbage_is_a_typed_error_and_no_panic() {
    let garbage: [&'static [u8]; 4] = [
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        &[0xA5; 4096],
        b"RNGW but not really a frame at all, is it? No.",
        &[],
    ];
    for bytes in garbage {
        let cluster = Cluster::start(&[Manner::Garbage(bytes)]).await;
        let builder = Client::builder().endpoints([cluster.endpoint(0)]);
        let error = builder
            .request_timeout(ms(1_500))
            .connect()
            .await
            .unwrap_err();
        let ConnectError::Unreachable { faults } = error else {
            panic!("{error:?}");
        };
        assert_eq!(faults.len(), 1);
        let expected = match bytes {
            [] => matches!(faults[0].1, LinkFault::Silent),
            [b'R', ..] => matches!(faults[0].1, LinkFault::Garbled(Refusal::HeaderSum { .. })),
            _ => matches!(faults[0].1, LinkFault::Garbled(Refusal::NotAFrame { .. })),
        };
        assert!(expected, "{faults:?}");
    }
}

#[tokio::test]
async fn garbage_in_the_middle_costs_a_connection_and_no_record() {
    let cluster = Cluster::start(&[Manner::Leads]).await;
    let client = connect(&cluster, 0).await;
    assert_eq!(offset(client.append("log-0", "a").await), 0);
    cluster.behave(0, Manner::BreaksOff);
    let pending = client.enqueue("log-0", "b").await;
    assert_eq!(offset(pending.await), 1);
    assert_eq!(offset(client.append("log-0", "c").await), 2);
}

#[tokio::test]
async fn nobody_there_is_said_at_once_for_each_endpoint() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = free.local_addr().unwrap().to_string();
    drop(free);
    let begin = Instant::now();
    let endpoints = [address.clone(), "no such host:1".to_owned()];
    let error = Client::builder().endpoints(endpoints).connect().await;
    let Err(ConnectError::Unreachable { faults }) = error else {
        panic!("{error:?}");
    };
    assert!(begin.elapsed() < ms(4_000));
    assert_eq!(faults.len(), 2);
    assert_eq!(faults[0].0, address);
    assert!(matches!(&faults[0].1, LinkFault::Unreachable(words) if words.contains("refused")));
    let none = Client::builder().connect().await.unwrap_err();
    assert_eq!(none, ConnectError::NoEndpoint);
}

#[tokio::test]
async fn what_can_be_judged_here_is_refused_here() {
    let cluster = Cluster::start(&[Manner::Leads]).await;
    let client = connect(&cluster, 0).await;
    let too_large = vec![0; RECORD_SIZE_MAX + 1];
    let refused = |reason| Outcome::NotCommitted(reason);
    let outcome = client.append("log-0", too_large).await;
    assert_eq!(outcome, refused(NotCommittedReason::RecordTooLarge));
    let outcome = client.append("no-log", "a").await;
    assert_eq!(outcome, refused(NotCommittedReason::UnknownLog));
    assert_eq!(
        client.end_offset("no-log").await,
        Err(FetchError::UnknownLog)
    );
    let error = client.transfer_leadership("log-0", "nobody").await;
    assert_eq!(error, Err(TransferError::UnknownNode));
    let largest = vec![7; RECORD_SIZE_MAX];
    assert_eq!(offset(client.append("log-0", largest).await), 0);
    assert_eq!(client.transfer_leadership("log-0", "node-1").await, Ok(()));
}

#[tokio::test]
async fn refusals_for_now_are_told_when_time_is_up() {
    let reason = NotCommittedReason::DiskFull;
    let cluster = Cluster::start(&[Manner::Refuses(reason)]).await;
    let builder = Client::builder().endpoints([cluster.endpoint(0)]);
    let client = builder.append_timeout(ms(100)).connect().await.unwrap();
    let outcome = client.append("log-0", "a").await;
    assert_eq!(outcome, Outcome::NotCommitted(reason));
    assert!(outcome.is_retryable());
}

#[tokio::test]
async fn handing_over_waits_while_too_much_has_no_outcome() {
    let cluster = Cluster::start(&[Manner::Leads]).await;
    let builder = Client::builder().endpoints([cluster.endpoint(0)]);
    let builder = builder.queue_bytes(10_000).append_timeout(ms(300));
    let client = builder.connect().await.unwrap();
    let record = vec![0; 3_000];
    assert_eq!(offset(client.append("log-0", record.clone()).await), 0);
    cluster.behave(0, Manner::Mute);
    let mut pending = Vec::new();
    for _ in 0..3 {
        pending.push(client.enqueue("log-0", record.clone()).await);
    }
    let fourth = client.enqueue("log-0", record.clone());
    let fourth = tokio::time::timeout(ms(100), fourth).await;
    assert!(fourth.is_err(), "three of 3,064 bytes fill it");
    cluster.behave(0, Manner::Leads);
    for pending in pending {
        assert_eq!(pending.await, Outcome::Unknown);
    }
    assert_eq!(offset(client.append("log-0", record).await), 1);
}

#[tokio::test]
async fn status_tells_of_every_node_and_waits_for_none_too_long() {
    let manners = [Manner::Leads, Manner::Follows(1), Manner::Mute];
    let cluster = Cluster::start(&manners).await;
    let client = connect(&cluster, 0).await;
    let begin = Instant::now();
    let reports = client.status().await;
    assert!(begin.elapsed() < ms(1_500));
    let names: Vec<&str> = reports.iter().map(|report| &report.name[..]).collect();
    assert_eq!(names, ["node-1", "node-2", "node-3"]);
    for (report, number) in reports[..2].iter().zip(1..) {
        assert_eq!(report.result.as_ref().unwrap().node, number);
    }
    assert_eq!(reports[2].result.as_ref().unwrap_err(), &LinkFault::Silent);
}

#[tokio::test]
async fn a_tail_gives_what_is_there_and_then_what_comes() {
    let cluster = Cluster::start(&[Manner::Leads]).await;
    let client = connect(&cluster, 0).await;
    for number in 0..3 {
        client.append("log-0", format!("{number}")).await;
    }
    let mut tail = client.tail("log-0", 1);
    assert_eq!(tail.next().await.unwrap().offset, 1);
    assert_eq!(&tail.next().await.unwrap().bytes[..], b"2");
    assert_eq!(tail.offset(), 3);
    let (next, _) = tokio::join!(tail.next_batch(), client.append("log-0", "3"));
    assert_eq!(next.unwrap()[0].offset, 3);
    let error = client.tail("log-0", 99).next().await.unwrap_err();
    assert_eq!(error, FetchError::BeyondEnd { end_offset: 4 });
}

#[tokio::test]
async fn closing_waits_for_what_was_handed_over_and_dropping_loses_nothing() {
    let cluster = Cluster::start(&[Manner::Leads]).await;
    let client = connect(&cluster, 0).await;
    let other = client.clone();
    let pending = client.enqueue("log-0", "a").await;
    client.close().await;
    assert_eq!(pending.outcome().map(offset), Some(0));
    let stopping = Outcome::NotCommitted(NotCommittedReason::Stopping);
    assert_eq!(other.append("log-0", "b").await, stopping);
    assert_eq!(other.end_offset("log-0").await, Err(FetchError::Closed));
    let client = connect(&cluster, 0).await;
    let pending = client.enqueue("log-0", "c").await;
    drop(client);
    assert_eq!(offset(pending.await), 1);
}

#[test]
fn the_end_of_the_runtime_settles_what_is_open() {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let runtime = builder.enable_all().build().unwrap();
    let [pending] = runtime.block_on(async {
        let cluster = Cluster::start(&[Manner::Leads]).await;
        let client = connect(&cluster, 0).await;
        cluster.behave(0, Manner::Mute);
        let pending = client.enqueue("log-0", "a").await;
        tokio::time::sleep(ms(20)).await;
        [pending]
    });
    drop(runtime);
    assert!(pending.outcome().is_some());
}

/// Appends of 256 bytes, so many in flight, for a while; returns acknowledged records a second.
async fn rate(in_flight: usize, tasks: bool) -> f64 {
    let cluster = Cluster::start(&[Manner::Leads]).await;
    cluster.log.lock().unwrap().forgetful = true;
    let client = connect(&cluster, 0).await;
    let record = Bytes::from(vec![b'x'; 256]);
    let (begin, span) = (Instant::now(), Duration::from_millis(700));
    let mut count = 0;
    if tasks {
        let workers: Vec<_> = (0..in_flight)
            .map(|_| {
                let (client, record) = (client.clone(), record.clone());
                tokio::spawn(async move {
                    let mut count = 0;
                    while begin.elapsed() < span {
                        offset(client.append("log-0", record.clone()).await);
                        count += 1;
                    }
                    count
                })
            })
            .collect();
        for worker in workers {
            count += worker.await.unwrap();
        }
    } else {
        let mut window = std::collections::VecDeque::new();
        while begin.elapsed() < span {
            while window.len() < in_flight {
                window.push_back(client.enqueue("log-0", record.clone()).await);
            }
            offset(window.pop_front().unwrap().await);
            count += 1;
        }
    }
    let rate = count as f64 / begin.elapsed().as_secs_f64();
    let appends = cluster.log.lock().unwrap().append_count;
    println!(
        "{in_flight} in flight, tasks {tasks}: {rate:.0} records/s, {:.1} a sealed append",
        count as f64 / appends as f64
    );
    rate
}

/// Run by hand, in release: what the client alone can do.
#[test]
#[ignore = "a measurement: it asserts nothing of speed, run it by hand"]
fn the_client_s_own_rate() {
    for workers in [0, 2] {
        let mut builder = match workers {
            0 => tokio::runtime::Builder::new_current_thread(),
            _ => tokio::runtime::Builder::new_multi_thread(),
        };
        let runtime = builder
            .worker_threads(workers.max(1))
            .enable_all()
            .build()
            .unwrap();
        println!("{workers} worker threads (0: the caller's)");
        for in_flight in [1, 16, 128, 1_024, 8_192] {
            for tasks in [false, true] {
                let client = runtime
                    .block_on(async move { tokio::spawn(rate(in_flight, tasks)).await.unwrap() });
                assert!(client > 0.0);
            }
        }
    }
}
