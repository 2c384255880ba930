//! Whoever finds the port and speaks something else: refused with a reason, and nobody else hurt.

use ringwood_core::frame::Lane;
use ringwood_core::frame::client::{Append, StatusRequest};
use ringwood_core::frame::code::{NotCommittedReason, RefusedReason};
use ringwood_core::frame::greeting::Hello;
use ringwood_net::{Cluster, ClusterOptions};

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
    let begun = std::time::Instant::now();
    while patient.status().groups[0].state != 1 {
        assert!(
            begun.elapsed().as_secs() < 10,
            "a single node elects itself"
        );
        std::thread::sleep(std::time::Duration::from_millis(5));
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
    let begun = std::time::Instant::now();
    while wire.status().groups[0].state != 1 {
        assert!(
            begun.elapsed().as_secs() < 10,
            "a single node elects itself"
        );
        std::thread::sleep(std::time::Duration::from_millis(5));
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
