//! One frame of every kind, with fields that tell each other apart.

use bytes::BytesMut;
use ringwood_core::frame::Kind;
use ringwood_core::frame::Lane;
use ringwood_core::frame::client::{
    Append, AppendReply, Fetch, FetchReply, GroupStatus, PeerStatus, ReplicaStatus, ScrubRequest,
    Status, StatusRequest, Transfer, TransferReply, TrimReply, TrimRequest,
};
use ringwood_core::frame::code::{
    BlockOutcome, Durability, FetchOutcome, NotCommittedReason, Outcome, ReadMode, RefusedReason,
    ReplicaState, TimeoutReason, TransferOutcome, TrimOutcome,
};
use ringwood_core::frame::greeting::{Hello, LogName, NodeAddress, Refused, Welcome};
use ringwood_core::frame::header::ClusterTag;
use ringwood_core::frame::message::Body;
use ringwood_core::frame::peer::{
    AppendEntries, AppendEntriesAck, Beat, BeatAck, BlockReply, BlockRequest, BlockSum, BlockSums,
    Heartbeat, HeartbeatAck, Referral, ReferralEnd, Restore, StateReport, TimeoutNow, VoteReply,
    VoteRequest,
};
use ringwood_core::frame::sum::crc32c;
use ringwood_core::frame::writer::{FrameWriter, PayloadClaim, padding};
use ringwood_core::id::ClusterId;

pub(crate) const CLUSTER: ClusterId = ClusterId(0x0F0E_0D0C_0B0A_0908_0706_0504_0302_0100);

/// A whole frame as it stands on the wire.
#[derive(Clone, Debug)]
pub(crate) struct Sample {
    pub(crate) kind: Kind,
    pub(crate) bytes: Vec<u8>,
    pub(crate) payload: Vec<u8>,
    /// The body, as people read it.
    pub(crate) text: String,
}

pub(crate) fn tag() -> ClusterTag {
    ClusterTag::of(CLUSTER)
}

pub(crate) fn frame<B: Body + std::fmt::Debug>(body: &B, payload: &[u8]) -> Sample {
    let sum = if B::KIND.has_payload_sum() {
        crc32c(payload)
    } else {
        0
    };
    let claim = PayloadClaim {
        size: payload.len() as u32,
        sum,
    };
    let mut out = BytesMut::new();
    FrameWriter::new(tag()).write_with_payload(body, claim, &mut out);
    out.extend_from_slice(payload);
    out.extend_from_slice(padding(payload.len()));
    let text = format!("{body:?}");
    Sample {
        kind: B::KIND,
        bytes: out.to_vec(),
        payload: payload.to_vec(),
        text,
    }
}

/// Bytes that are all different from their neighbours, and from zero.
pub(crate) fn filled(size: usize) -> Vec<u8> {
    (0..size).map(|i| (i % 251 + 1) as u8).collect()
}

pub(crate) fn samples() -> Vec<Sample> {
    let all = [greetings(), between_nodes(), with_clients()].concat();
    assert!(
        all.iter().map(|sample| &sample.kind).eq(Kind::ALL),
        "a kind has no sample"
    );
    all
}

pub(crate) fn hello() -> Hello {
    Hello {
        cluster: CLUSTER.0.to_le_bytes(),
        node: 0x1112_1314_1516_1718,
        incarnation: 0x2122_2324_2526_2728,
        life: 0x4142_4344_4546_4748,
        starts: vec![0x5152_5354_5556_5758, 0, 0x6162_6364_6566_6768],
        shard: 0x3132,
        lane: Lane::Control.code(),
        version_min: 1,
        version_max: 4,
    }
}

fn greetings() -> Vec<Sample> {
    let welcome = Welcome {
        cluster: CLUSTER.0.to_le_bytes(),
        node: 2,
        cluster_name: b"dev".to_vec(),
        nodes: (1..=3)
            .map(|id| NodeAddress {
                id,
                name: format!("node-{id}").into_bytes(),
                address: format!("127.0.0.1:{}", 7400 + id).into_bytes(),
            })
            .collect(),
        logs: vec![
            LogName {
                group: 1,
                name: b"log-0".to_vec(),
            },
            LogName {
                group: 2,
                name: b"orders".to_vec(),
            },
        ],
        version: 1,
    };
    let refused = Refused {
        reason: RefusedReason::WrongCluster.code(),
        detail: b"this is cluster dev".to_vec(),
    };
    vec![
        frame(&hello(), &[]),
        frame(&welcome, &[]),
        frame(&refused, &[]),
    ]
}

fn between_nodes() -> Vec<Sample> {
    let beats = vec![
        Beat {
            term: 5,
            commit: 100,
            durable: 101,
            round: 7,
            group: 1,
        },
        Beat {
            term: 6,
            commit: 200,
            durable: 203,
            round: 8,
            group: 2,
        },
    ];
    let acks = vec![
        BeatAck {
            term: 5,
            round: 7,
            durable: 100,
            group: 1,
        },
        BeatAck {
            term: 9,
            round: 8,
            durable: 0,
            group: 2,
        },
    ];
    let append = AppendEntries {
        term: 5,
        prev_index: 99,
        prev_term: 4,
        commit: 98,
        group: 1,
        count: 3,
    };
    let append_ack = AppendEntriesAck {
        term: 5,
        index: 42,
        conflict_term: 3,
        prev_index: 99,
        group: 1,
        matched: 0,
    };
    let request = VoteRequest {
        term: 6,
        last_index: 102,
        last_term: 5,
        group: 1,
        pre: 1,
        transfer: 0,
    };
    let reply = VoteReply {
        term: 6,
        voter_term: 5,
        group: 1,
        pre: 1,
        granted: 1,
    };
    let block_request = BlockRequest {
        number: 0x0000_0003_0000_0011,
        first: 90,
        last: 97,
        group: 1,
        sum: 0x5152_5354,
    };
    let block_reply = BlockReply {
        number: 0x0000_0003_0000_0011,
        first: 90,
        group: 1,
        count: 2,
        outcome: BlockOutcome::Found.code(),
    };
    let restore = Restore {
        term: 6,
        start: 1200,
        group: 1,
    };
    let told = BlockSum {
        index: 97,
        group: 1,
        sum: 0x5152_5354,
        is_told: 1,
        is_asked: 0,
    };
    let asked = BlockSum {
        index: 64,
        group: 2,
        sum: 0,
        is_told: 0,
        is_asked: 1,
    };
    vec![
        frame(
            &Heartbeat {
                sent_at: 1_000_000_007,
                timeout: 150_000_000,
                write_age: 900_000,
                write_span: 2_100_000,
                beats,
            },
            &[],
        ),
        frame(
            &HeartbeatAck {
                echo: 1_000_000_007,
                acks,
            },
            &[],
        ),
        frame(&append, &filled(48)),
        frame(&append_ack, &[]),
        frame(&request, &[]),
        frame(&reply, &[]),
        frame(&TimeoutNow { term: 6, group: 1 }, &[]),
        frame(&block_request, &[]),
        frame(&block_reply, &filled(64)),
        frame(&restore, &filled(32)),
        frame(
            &StateReport {
                number: 9,
                term: 6,
                last_index: 44,
                last_term: 5,
                commit: 41,
                group: 1,
                doubt: 1,
                is_leader: 0,
                is_reply: 1,
            },
            &[],
        ),
        frame(
            &BlockSums {
                sums: vec![told, asked],
            },
            &[],
        ),
        frame(
            &Referral {
                term: 6,
                first: 90,
                last: 970,
                source: 3,
                group: 1,
                sum: 0x5152_5354,
            },
            &[],
        ),
        frame(
            &ReferralEnd {
                term: 6,
                source: 3,
                group: 1,
            },
            &[],
        ),
    ]
}

fn with_clients() -> Vec<Sample> {
    let records = b"\x05\0\0\0first\x06\0\0\0second";
    let append = Append {
        request: 71,
        producer: 0x4142_4344_4546_4748,
        sequence: 12,
        group: 1,
        record_count: 2,
        epoch: 3,
    };
    let append_reply = AppendReply {
        request: 71,
        offset: 1200,
        term: 5,
        leader: 2,
        retry_after_us: 250,
        outcome: Outcome::NotCommitted.code(),
        reason: NotCommittedReason::Overloaded.code(),
        durability: Durability::Quorum.code(),
    };
    let fetch = Fetch {
        request: 72,
        from: 1201,
        group: 1,
        size_max: 65_536,
        wait_us: 500_000,
        mode: ReadMode::Linearizable.code(),
    };
    let fetch_reply = FetchReply {
        request: 72,
        end_offset: 1300,
        first_offset: 10,
        term: 5,
        leader: 2,
        retry_after_us: 0,
        outcome: FetchOutcome::Ok.code(),
    };
    let transfer = Transfer {
        request: 74,
        to: 3,
        group: 1,
    };
    let transfer_reply = TransferReply {
        request: 74,
        leader: 3,
        outcome: TransferOutcome::Done.code(),
    };
    let trim = TrimRequest {
        request: 75,
        before: 1200,
        group: 1,
    };
    let trim_reply = TrimReply {
        request: 75,
        first_offset: 1200,
        end_offset: 1300,
        leader: 2,
        outcome: TrimOutcome::Done.code(),
    };
    vec![
        frame(&append, records),
        frame(&append_reply, &[]),
        frame(&fetch, &[]),
        frame(&fetch_reply, &filled(32)),
        frame(&StatusRequest { request: 73 }, &[]),
        frame(&status(), &[]),
        frame(&transfer, &[]),
        frame(&transfer_reply, &[]),
        frame(&trim, &[]),
        frame(&trim_reply, &[]),
        frame(&ScrubRequest { request: 75 }, &[]),
    ]
}

fn status() -> Status {
    let group = GroupStatus {
        term: 5,
        leader: 2,
        commit: 100,
        durable: 101,
        last: 102,
        end_offset: 1300,
        first_offset: 10,
        group: 1,
        state: ReplicaState::Leader.code(),
    };
    let replica = |node, state: ReplicaState, lag_bytes| ReplicaStatus {
        node,
        durable: 100,
        lag_bytes,
        group: 1,
        state: state.code(),
    };
    Status {
        request: 73,
        node: 2,
        incarnation: 0x2122_2324_2526_2728,
        timeout_ns: 150_000_000,
        scrub_done: 1 << 30,
        scrub_total: 10 << 30,
        scrub_passes: 3,
        damage_found: 2,
        damage_healed: 1,
        version: b"0.1.0".to_vec(),
        peers: vec![
            PeerStatus {
                node: 1,
                rtt_ns: 55_000,
                connected: 1,
            },
            PeerStatus {
                node: 3,
                rtt_ns: 0,
                connected: 0,
            },
        ],
        alarms: vec![
            b"node-3 is not reachable".to_vec(),
            b"disk 91% full".to_vec(),
        ],
        storage: b"RWF_DSYNC".to_vec(),
        groups: vec![group],
        progress: vec![
            replica(1, ReplicaState::Follower, 0),
            replica(3, ReplicaState::Absent, 70_000),
        ],
        timeout_reason: TimeoutReason::HeartbeatGap.code(),
    }
}
