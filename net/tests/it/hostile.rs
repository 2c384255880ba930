//! Whoever finds the port and speaks something else: refused with a reason, and nobody else hurt.

use std::path::Path;
use std::time::{Duration, Instant};

use ringwood_core::frame::Lane;
use ringwood_core::frame::client::{Append, StatusRequest};
use ringwood_core::frame::code::{FetchOutcome, NotCommittedReason, ReadMode, RefusedReason};
use ringwood_core::frame::greeting::Hello;
use ringwood_core::frame::peer::{AppendEntries, Heartbeat};
use ringwood_core::id::ClusterId;
use ringwood_core::limits::{READER_PATIENCE, STRANGER_COUNT_MAX};
use ringwood_core::log::pins::Pins;
use ringwood_core::shard::directory_tag;
use ringwood_net::config::Identity;
use ringwood_net::{Cluster, ClusterOptions, Layout, Node, VoterAddress, init};

use crate::wire::{Answer, Wire};

fn hello() -> Hello {
    Hello {
        lane: Lane::Client.code(),
        version_min: 1,
        version_max: 1,
        ..Hello::default()
    }
}

fn refusal(wire: &mut Wire) -> RefusedReason {
    let Answer::Refused(refused) = wire.receive() else {
        panic!("a stranger is refused")
    };
    assert!(
        matches!(wire.receive(), Answer::Closed),
        "and the connection closed"
    );
    assert!(!refused.detail.is_empty(), "a person is told why");
    RefusedReason::from_code(refused.reason).expect("a reason of this version")
}

#[test]
fn strangers_are_refused_and_others_served() {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
    let options = ClusterOptions {
        node_count: 1,
        ..ClusterOptions::default()
    };
    let cluster = Cluster::start(dir.path(), options).expect("a cluster starts");
    let endpoint = cluster.endpoints().remove(0);
    let mut patient = Wire::greet(&endpoint);

    let mut noise = Wire::connect(&endpoint);
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let bytes: Vec<u8> = (0..64 << 10)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 24) as u8
        })
        .collect();
    noise.send_bytes(&bytes);
    // Unread noise may make the kernel reset the connection before the reason arrives.
    assert!(matches!(
        noise.receive(),
        Answer::Refused(_) | Answer::Closed
    ));

    let mut browser = Wire::connect(&endpoint);
    browser.send_bytes(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let answer = browser.receive_text();
    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
    assert!(answer.contains("Ringwood"), "{answer}");

    let mut rude = Wire::connect(&endpoint);
    rude.send(&StatusRequest { request: 1 });
    assert!(matches!(
        refusal(&mut rude),
        RefusedReason::WrongCluster | RefusedReason::HelloMisplaced
    ));

    let mut lost = Wire::connect(&endpoint);
    lost.send(&Hello {
        cluster: [9; 16],
        ..hello()
    });
    assert_eq!(refusal(&mut lost), RefusedReason::WrongCluster);

    let mut future = Wire::connect(&endpoint);
    future.send(&Hello {
        version_min: 7,
        version_max: 9,
        ..hello()
    });
    assert_eq!(refusal(&mut future), RefusedReason::UnsupportedVersion);

    let mut impostor = Wire::connect(&endpoint);
    impostor.send(&Hello {
        node: 77,
        lane: Lane::Data.code(),
        ..hello()
    });
    assert!(matches!(
        refusal(&mut impostor),
        RefusedReason::WrongCluster | RefusedReason::UnknownNode
    ));

    // All the while, whoever behaves is served on the connection it has.
    let begun = Instant::now();
    while patient.status().groups[0].state != 1 {
        assert!(
            begun.elapsed().as_secs() < 10,
            "a single node elects itself"
        );
        std::thread::sleep(Duration::from_millis(5));
    }
    patient.append(1, 3, 0, &[b"kept"]);
    let Answer::Append(reply) = patient.receive() else {
        panic!("an append is answered")
    };
    assert_eq!((reply.outcome, reply.offset), (1, 0));
}

#[test]
fn appends_that_lie_are_not_committed() {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
    let options = ClusterOptions {
        node_count: 1,
        ..ClusterOptions::default()
    };
    let cluster = Cluster::start(dir.path(), options).expect("a cluster starts");
    let mut wire = Wire::greet(&cluster.endpoints()[0]);
    let begun = Instant::now();
    while wire.status().groups[0].state != 1 {
        assert!(
            begun.elapsed().as_secs() < 10,
            "a single node elects itself"
        );
        std::thread::sleep(Duration::from_millis(5));
    }
    let mut refused = |append: Append, payload: &[u8]| {
        wire.send_with_payload(&append, payload);
        let Answer::Append(reply) = wire.receive() else {
            panic!("an append is answered")
        };
        assert_eq!(reply.request, append.request);
        assert_eq!(reply.outcome, 2, "{reply:?}");
        NotCommittedReason::from_code(reply.reason).expect("a reason of this version")
    };
    let one = Append {
        request: 1,
        producer: 4,
        sequence: 0,
        group: 1,
        record_count: 1,
        epoch: 2,
    };
    let record = b"\x03\0\0\0abc";
    assert_eq!(
        refused(Append { group: 99, ..one }, record),
        NotCommittedReason::UnknownLog
    );
    assert_eq!(
        refused(
            Append {
                record_count: 2,
                ..one
            },
            record
        ),
        NotCommittedReason::Malformed
    );
    assert_eq!(
        refused(
            Append {
                record_count: 0,
                ..one
            },
            record
        ),
        NotCommittedReason::Malformed
    );
    assert_eq!(
        refused(one, b"\xff\xff\xff\xffabc"),
        NotCommittedReason::Malformed
    );
    assert_eq!(
        refused(Append { sequence: 5, ..one }, record),
        NotCommittedReason::SequenceGap
    );
    wire.send_with_payload(&one, record);
    let Answer::Append(reply) = wire.receive() else {
        panic!("an append is answered")
    };
    assert_eq!(
        (reply.outcome, reply.offset),
        (1, 0),
        "what was refused left no trace"
    );
    let mut refused = |append: Append| {
        wire.send_with_payload(&append, record);
        let Answer::Append(reply) = wire.receive() else {
            panic!("an append is answered")
        };
        (
            NotCommittedReason::from_code(reply.reason).expect("refused"),
            reply.offset,
        )
    };
    assert_eq!(
        refused(Append { epoch: 1, ..one }),
        (NotCommittedReason::Fenced, 2)
    );
    assert_eq!(
        refused(Append { sequence: 9, ..one }),
        (NotCommittedReason::SequenceGap, 1)
    );
}

fn one_node(dir: &tempfile::TempDir) -> (Cluster, String) {
    let options = ClusterOptions {
        node_count: 1,
        ..ClusterOptions::default()
    };
    let cluster = Cluster::start(dir.path(), options).expect("a cluster starts");
    let endpoint = cluster.endpoints().remove(0);
    (cluster, endpoint)
}

#[test]
fn whoever_says_nothing_or_half_a_thing_is_told_to_go() {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
    let (_cluster, endpoint) = one_node(&dir);
    let mut silent = Wire::connect(&endpoint);
    let mut slow = Wire::connect(&endpoint);
    let mut stuck = Wire::greet(&endpoint);
    let mut idle = Wire::greet(&endpoint);
    let begun = Instant::now();
    // The beginning of a hello, and of an append whose rest never comes.
    slow.send_bytes(b"RNGW");
    stuck.send_part(&Append::default(), 40);
    assert_eq!(refusal(&mut silent), RefusedReason::TimedOut);
    assert_eq!(refusal(&mut slow), RefusedReason::TimedOut);
    let span = begun.elapsed();
    assert!(
        span >= Duration::from_millis(1_900) && span < Duration::from_secs(8),
        "{span:?}"
    );
    stuck.set_patience(Duration::from_secs(20));
    assert_eq!(refusal(&mut stuck), RefusedReason::TimedOut);
    let span = begun.elapsed();
    assert!(span >= Duration::from_millis(9_900), "{span:?}");
    assert_eq!(idle.status().groups.len(), 16, "a client may pause");
}

#[test]
fn a_flood_of_silence_does_not_keep_a_client_or_a_voter_out() {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
    let mut cluster =
        Cluster::start(dir.path(), ClusterOptions::default()).expect("a cluster starts");
    let endpoint = cluster.endpoints().remove(0);
    let mut flood: Vec<Wire> = (0..STRANGER_COUNT_MAX + 64)
        .map(|_| Wire::connect(&endpoint))
        .collect();
    // The first of them made room; the last are still there.
    assert_eq!(refusal(&mut flood[0]), RefusedReason::Overloaded);
    let mut wire = Wire::greet(&endpoint);
    assert_eq!(wire.status().groups.len(), 16);
    // In place of the real one, which would dial again and take the place back.
    cluster.stop_node(1).expect("it ran");
    let identity = Identity::read(&dir.path().join("node-2")).expect("it is a node's");
    let mut voter = as_peer(
        &endpoint,
        &dir.path().join("node-2"),
        &identity,
        Lane::Control,
    );
    voter.send(&Heartbeat::default());
    // Its answer goes to the voter itself; what counts is that nobody was told to go.
    assert!(voter.is_silent_for(Duration::from_millis(300)));
}

/// What a stopped node's directory knows of its starts.
fn pins(dir: &Path, identity: &Identity) -> Pins {
    let tag = directory_tag(identity.cluster, identity.node, identity.incarnation);
    let file = std::fs::read(dir.join("pins")).expect("it ran");
    Pins::newest(&file, tag).expect("it is whole").0
}

/// A connection that says it is the node of this identity, which has stopped.
fn as_peer(endpoint: &str, dir: &Path, identity: &Identity, lane: Lane) -> Wire {
    let mut wire = Wire::connect(endpoint);
    wire.belong_to(identity.cluster);
    let pins = pins(dir, identity);
    wire.send(&Hello {
        cluster: identity.cluster.0.to_le_bytes(),
        node: identity.node.0,
        incarnation: identity.incarnation.0,
        life: pins.life(),
        starts: vec![pins.starts[0].number],
        lane: lane.code(),
        version_min: 1,
        version_max: 1,
        shard: 0,
    });
    wire
}

#[test]
fn a_kind_out_of_its_lane_is_refused_by_its_header() {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
    let mut cluster = Cluster::start(dir.path(), ClusterOptions::default()).expect("a cluster");
    cluster.stop_node(1).expect("it ran");
    let endpoint = cluster.endpoints().remove(0);
    let identity = Identity::read(&dir.path().join("node-2")).expect("it is a node's");

    let mut client = Wire::greet(&endpoint);
    client.send_part(&Heartbeat::default(), 32);
    assert_eq!(refusal(&mut client), RefusedReason::UnexpectedKind);

    let mut twice = Wire::greet(&endpoint);
    twice.send(&hello());
    assert_eq!(refusal(&mut twice), RefusedReason::HelloMisplaced);

    let mut control = as_peer(
        &endpoint,
        &dir.path().join("node-2"),
        &identity,
        Lane::Control,
    );
    control.send_part(&AppendEntries::default(), 32);
    assert_eq!(refusal(&mut control), RefusedReason::UnexpectedKind);

    let mut data = as_peer(&endpoint, &dir.path().join("node-2"), &identity, Lane::Data);
    data.send_part(&Append::default(), 32);
    assert_eq!(refusal(&mut data), RefusedReason::UnexpectedKind);
}

#[test]
fn what_came_behind_a_refused_frame_is_not_done() {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
    let (_cluster, endpoint) = one_node(&dir);
    let mut patient = Wire::greet(&endpoint);
    let begun = Instant::now();
    while patient.status().groups[0].state != 1 {
        assert!(
            begun.elapsed().as_secs() < 10,
            "a single node elects itself"
        );
        std::thread::sleep(Duration::from_millis(5));
    }
    // All in one segment: a frame out of place, then an append, then a hello and an append again.
    let mut rude = Wire::greet(&endpoint);
    rude.hold();
    rude.send(&hello());
    rude.append(1, 5, 0, &[b"behind"]);
    rude.send(&hello());
    rude.append(1, 5, 1, &[b"behind"]);
    rude.release();
    assert_eq!(refusal(&mut rude), RefusedReason::HelloMisplaced);
    let mut early = Wire::connect(&endpoint);
    early.belong_to(ClusterId(u128::from_le_bytes(patient.cluster())));
    early.hold();
    early.send(&StatusRequest { request: 1 });
    early.send(&hello());
    early.append(1, 6, 0, &[b"behind"]);
    early.release();
    assert_eq!(refusal(&mut early), RefusedReason::HelloMisplaced);
    patient.append(1, 3, 0, &[b"first"]);
    let Answer::Append(reply) = patient.receive() else {
        panic!("an append is answered")
    };
    assert_eq!(
        (reply.outcome, reply.offset),
        (1, 0),
        "nothing stands before it"
    );
}

#[test]
fn a_node_that_is_refused_says_so() {
    let home = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
    let (_other, endpoint) = one_node(&home);
    let voters = ["127.0.0.1:1", &endpoint].map(str::to_owned);
    let voters = (1..).zip(voters).map(|(number, address)| VoterAddress {
        name: format!("node-{number}"),
        address,
    });
    let layout = Layout {
        cluster: "astray".into(),
        node: "node-1".into(),
        voters: voters.collect(),
        logs: vec!["log-0".into()],
    };
    let dir = home.path().join("astray");
    init(&dir, &layout).expect("a new directory");
    let node = Node::builder(&dir)
        .listen(([127, 0, 0, 1], 0).into())
        .start()
        .expect("it starts");
    let mut wire = Wire::greet(&node.address().to_string());
    let begun = Instant::now();
    let alarm = loop {
        if let Some(alarm) = wire.status().alarms.pop() {
            break String::from_utf8(alarm).expect("text");
        }
        assert!(begun.elapsed() < Duration::from_secs(10), "no alarm");
        std::thread::sleep(Duration::from_millis(10));
    };
    let expected = "node-2 refuses this node: wrong_cluster: frame of cluster";
    assert!(alarm.starts_with(expected), "{alarm}");
    // Three lanes are refused again and again; one sentence is enough.
    std::thread::sleep(Duration::from_millis(500));
    let notices = node.take_notices();
    assert_eq!(notices, [alarm]);
}

/// The position of the node that leads group 1.
fn leader_of(wires: &mut [Wire]) -> usize {
    let begun = Instant::now();
    loop {
        let leads = |wire: &mut Wire| wire.status().groups[0].state == 1;
        if let Some(position) = wires.iter_mut().position(leads) {
            return position;
        }
        assert!(begun.elapsed() < Duration::from_secs(10), "nobody leads");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_node_that_stops_leaves_nobody_in_doubt() {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
    let mut cluster = Cluster::start(dir.path(), ClusterOptions::default()).expect("a cluster");
    let endpoints = cluster.endpoints();
    let mut wires: Vec<Wire> = endpoints.iter().map(|at| Wire::greet(at)).collect();
    let leader = leader_of(&mut wires);
    let mut idle = Wire::greet(&endpoints[leader]);
    let mut busy = wires.remove(leader);
    let stopping = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(30));
        let begun = Instant::now();
        cluster.stop_node(leader).expect("it ran");
        (cluster, begun.elapsed())
    });
    for sequence in 0..2_000 {
        busy.append(1, 8, sequence, &[b"record"]);
        std::thread::sleep(Duration::from_micros(50));
    }
    let (mut committed_count, mut stopping_count) = (0, 0);
    loop {
        match busy.receive() {
            Answer::Append(reply) if reply.outcome == 1 => committed_count += 1,
            Answer::Append(reply) => {
                let reason = NotCommittedReason::from_code(reply.reason);
                let is_told = matches!(
                    reason,
                    Some(NotCommittedReason::Stopping | NotCommittedReason::NotLeader)
                );
                assert!(is_told, "{reply:?}");
                stopping_count += 1;
            }
            Answer::Refused(refused) => {
                assert_eq!(refused.reason, RefusedReason::Stopping.code());
                break;
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(committed_count > 0);
    assert_eq!(refusal(&mut idle), RefusedReason::Stopping);
    let next = leader_of(&mut wires);
    let (cluster, span) = stopping.join().expect("it stopped");
    println!("{committed_count} committed, {stopping_count} told to go on, {span:?} to stop");
    assert!(
        span < Duration::from_millis(900),
        "nobody had to be waited for: {span:?}"
    );
    wires[next].append(1, 9, 0, &[b"goes on"]);
    assert!(matches!(wires[next].receive(), Answer::Append(reply) if reply.outcome == 1));
    drop(cluster);
}

#[test]
fn a_reader_that_does_not_read_is_told_why_it_goes() {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
    let (_cluster, endpoint) = one_node(&dir);
    let mut wires = [Wire::greet(&endpoint)];
    leader_of(&mut wires);
    let [mut wire] = wires;
    let record = vec![7; 1 << 20];
    wire.append(1, 3, 0, &[&record]);
    assert!(matches!(wire.receive(), Answer::Append(reply) if reply.outcome == 1));
    let mut lazy = Wire::greet(&endpoint);
    for _ in 0..30 {
        lazy.fetch(1, 0, ReadMode::Committed);
        std::thread::sleep(Duration::from_millis(2));
    }
    // Whoever asks for too much at once is told to come again; who then takes nothing is not.
    std::thread::sleep(Duration::from_nanos(READER_PATIENCE.0) + Duration::from_millis(500));
    lazy.fetch(1, 0, ReadMode::Committed);
    let mut answer_count = 0;
    let refused = loop {
        match lazy.receive() {
            Answer::Fetch(reply, _) if reply.outcome == FetchOutcome::Busy.code() => {}
            Answer::Fetch(..) => answer_count += 1,
            Answer::Refused(refused) => break refused,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(refused.reason, RefusedReason::SlowReader.code());
    assert!(answer_count < 30, "not all of them were kept for it");
    assert!(matches!(lazy.receive(), Answer::Closed));
}
