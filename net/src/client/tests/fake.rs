//! A node of a few lines: frames over a loopback socket, a log in memory.
//!
//! It keeps what a node promises (a retry is answered, not written again) and misbehaves on
//! request. Knows no Raft.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use ringwood_core::client::SEALED_SIZE_SOFT_MAX;
use ringwood_core::frame::assembler::{Assembler, TagPolicy};
use ringwood_core::frame::client::{AppendReply, Fetch, FetchReply, Status, TransferReply};
use ringwood_core::frame::code::{
    Durability, FetchOutcome, NotCommittedReason, Outcome, TransferOutcome,
};
use ringwood_core::frame::greeting::{LogName, NodeAddress, Welcome};
use ringwood_core::frame::header::ClusterTag;
use ringwood_core::frame::message::{Body, Message};
use ringwood_core::frame::writer::{FrameWriter, PayloadClaim, padding};
use ringwood_core::id::{ClusterId, Epoch, GroupId, Index, Offset, ProducerId, Sequence, Term};
use ringwood_core::limits::BLOCK_SIZE_MAX;
use ringwood_core::log::block::{AppendHeader, BlockKind, records};
use ringwood_core::log::builder::{BlockBuilder, BlockStart};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

pub(super) const CLUSTER: ClusterId = ClusterId(0xFA5E);
pub(super) const GROUP: GroupId = GroupId(1);

/// How a node behaves. Changed at any time.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Manner {
    /// Leads, and answers at once.
    Leads,
    /// Knows the leader, by its number.
    Follows(u64),
    /// Takes what comes and never answers anything but the hello.
    Mute,
    /// Answers the first append with half a frame and closes. Leads after that.
    BreaksOff,
    /// Answers the hello with these bytes.
    Garbage(&'static [u8]),
    /// Refuses appends for now.
    Refuses(NotCommittedReason),
    /// Leads, keeps what is appended, and closes instead of the next answer.
    SwallowsAnswer,
}

#[derive(Debug)]
struct Kept {
    producer: u64,
    epoch: u32,
    sequence: u64,
    offset: u64,
    record_count: u32,
}

/// What the nodes of a cluster share: the log, as if replicated.
#[derive(Debug, Default)]
pub(super) struct Log {
    kept: Vec<Kept>,
    pub(super) blocks: BytesMut,
    pub(super) end: u64,
    index: u64,
    last_sum: u32,
    /// Payload bytes are not kept: for measuring.
    pub(super) forgetful: bool,
    pub(super) append_count: u64,
}

impl Log {
    /// Offset of the append, written now or before; `None` if some are missing before it.
    fn append(&mut self, header: AppendHeader, payload: &[u8]) -> Option<u64> {
        self.append_count += 1;
        let own = self.kept.iter().rev();
        let mut own = own.filter(|k| k.producer == header.producer.0 && k.epoch == header.epoch.0);
        if let Some(kept) = own.clone().find(|kept| kept.sequence == header.sequence.0) {
            return Some(kept.offset);
        }
        let next = own
            .next()
            .map_or(0, |k| k.sequence + u64::from(k.record_count));
        if header.sequence.0 != next {
            return None;
        }
        let offset = self.end;
        if !self.forgetful {
            records(payload, header.record_count).expect("well framed");
            self.index += 1;
            let start = BlockStart {
                group: GROUP,
                kind: BlockKind::Records,
                index: Index(self.index),
                term: Term(1),
                first_offset: Offset(offset),
                previous_sum: self.last_sum,
                commit: Index(self.index - 1),
            };
            self.blocks.reserve(BLOCK_SIZE_MAX);
            let mut builder = BlockBuilder::begin(&mut self.blocks, start);
            let pushed = builder.push(&mut self.blocks, &header, std::iter::once(payload));
            pushed.expect("a sound append");
            let header = builder.finish(&mut self.blocks);
            self.last_sum = header.expect("a block of one append").sum;
        }
        self.kept.push(Kept {
            producer: header.producer.0,
            epoch: header.epoch.0,
            sequence: header.sequence.0,
            offset,
            record_count: header.record_count,
        });
        if self.kept.len() > 64 {
            self.kept.drain(..32);
        }
        self.end += u64::from(header.record_count);
        Some(offset)
    }
}

/// Nodes on ports of the loopback.
pub(super) struct Cluster {
    pub(super) log: Arc<Mutex<Log>>,
    pub(super) manners: Vec<Arc<Mutex<Manner>>>,
    pub(super) addresses: Vec<SocketAddr>,
}

impl Cluster {
    pub(super) async fn start(manners: &[Manner]) -> Self {
        let mut listeners = Vec::new();
        for _ in manners {
            listeners.push(TcpListener::bind("127.0.0.1:0").await.expect("a free port"));
        }
        let addresses = listeners.iter().map(|l| l.local_addr().expect("bound"));
        let addresses: Vec<SocketAddr> = addresses.collect();
        let log: Arc<Mutex<Log>> = Arc::default();
        let manners = manners.iter().map(|m| Arc::new(Mutex::new(m.clone())));
        let manners: Vec<_> = manners.collect();
        for (place, listener) in listeners.into_iter().enumerate() {
            let node = Node {
                id: place as u64 + 1,
                manner: Arc::clone(&manners[place]),
                log: Arc::clone(&log),
                addresses: addresses.clone(),
            };
            tokio::spawn(async move {
                while let Ok((stream, _)) = listener.accept().await {
                    tokio::spawn(node.clone().serve(stream));
                }
            });
        }
        Self {
            log,
            manners,
            addresses,
        }
    }

    pub(super) fn endpoint(&self, place: usize) -> String {
        self.addresses[place].to_string()
    }

    pub(super) fn behave(&self, place: usize, manner: Manner) {
        *self.manners[place].lock().unwrap() = manner;
    }
}

#[derive(Clone)]
struct Node {
    id: u64,
    manner: Arc<Mutex<Manner>>,
    log: Arc<Mutex<Log>>,
    addresses: Vec<SocketAddr>,
}

/// What to do with a connection after a frame.
#[derive(PartialEq)]
enum Then {
    Continue,
    Close,
}

impl Node {
    async fn serve(self, mut stream: TcpStream) {
        stream.set_nodelay(true).expect("a stream");
        let tag = ClusterTag::of(CLUSTER);
        let mut assembler: Assembler<Bytes> = Assembler::new(TagPolicy::ExactOrHello(tag));
        let mut writer = FrameWriter::new(tag);
        let mut read = BytesMut::new();
        let mut out = BytesMut::new();
        loop {
            read.reserve(SEALED_SIZE_SOFT_MAX);
            match stream.read_buf(&mut read).await {
                Ok(0) | Err(_) => return,
                Ok(_) => assembler.push(read.split().freeze()),
            }
            let mut then = Then::Continue;
            while let Some(frame) = assembler.next().expect("a sound frame") {
                let message = frame.message().expect("a sound body");
                let payload = frame.payload().contiguous();
                let sum = frame.header.payload_sum;
                then = self.answer(message, &payload, sum, &mut writer, &mut out);
                if then == Then::Close {
                    break;
                }
            }
            assembler.take_released().for_each(drop);
            if stream.write_all(&out.split()).await.is_err() || then == Then::Close {
                return;
            }
        }
    }

    fn answer(
        &self,
        message: Message<'_>,
        payload: &[u8],
        sum: u32,
        writer: &mut FrameWriter,
        out: &mut BytesMut,
    ) -> Then {
        let manner = self.manner.lock().unwrap().clone();
        match message {
            Message::Hello(_) => match manner {
                Manner::Garbage(bytes) => out.extend_from_slice(bytes),
                _ => writer.write(&self.welcome(), out),
            },
            _ if manner == Manner::Mute => {}
            Message::Append(body) => {
                let header = AppendHeader {
                    payload_sum: sum,
                    payload_size: payload.len() as u32,
                    producer: ProducerId(body.producer.to_native()),
                    sequence: Sequence(body.sequence.to_native()),
                    epoch: Epoch(body.epoch.to_native()),
                    record_count: body.record_count.to_native(),
                };
                let request = body.request.to_native();
                return self.append(&manner, request, header, payload, writer, out);
            }
            Message::Fetch(body) => {
                let fetch = Fetch::owned(body).expect("checked");
                self.fetch(&manner, &fetch, writer, out);
            }
            Message::StatusRequest(body) => {
                let status = Status {
                    request: body.request.to_native(),
                    node: self.id,
                    version: b"fake".to_vec(),
                    ..Status::default()
                };
                writer.write(&status, out);
            }
            Message::Transfer(body) => {
                let known = (1..=self.addresses.len() as u64).contains(&body.to.to_native());
                let outcome = match manner {
                    Manner::Leads if known => TransferOutcome::Done,
                    Manner::Leads => TransferOutcome::NotVoter,
                    _ => TransferOutcome::NotLeader,
                };
                let reply = TransferReply {
                    request: body.request.to_native(),
                    leader: leader(&manner, self.id),
                    outcome: outcome.code(),
                };
                writer.write(&reply, out);
            }
            other => panic!("no client sends {other:?}"),
        }
        Then::Continue
    }

    fn welcome(&self) -> Welcome {
        let nodes = self
            .addresses
            .iter()
            .zip(1..)
            .map(|(address, id)| NodeAddress {
                id,
                name: format!("node-{id}").into_bytes(),
                address: address.to_string().into_bytes(),
            });
        Welcome {
            cluster: CLUSTER.0.to_le_bytes(),
            node: self.id,
            cluster_name: b"fake".to_vec(),
            nodes: nodes.collect(),
            logs: vec![LogName {
                group: GROUP.0,
                name: b"log-0".to_vec(),
            }],
            version: 1,
        }
    }

    fn append(
        &self,
        manner: &Manner,
        request: u64,
        header: AppendHeader,
        payload: &[u8],
        writer: &mut FrameWriter,
        out: &mut BytesMut,
    ) -> Then {
        let mut reply = AppendReply {
            request,
            term: 1,
            leader: leader(manner, self.id),
            outcome: Outcome::NotCommitted.code(),
            reason: NotCommittedReason::NotLeader.code(),
            ..AppendReply::default()
        };
        match manner {
            Manner::Follows(_) => {}
            Manner::Refuses(reason) => reply.reason = reason.code(),
            _ => match self.log.lock().unwrap().append(header, payload) {
                Some(offset) => {
                    reply.offset = offset;
                    reply.outcome = Outcome::Committed.code();
                    reply.durability = Durability::Quorum.code();
                    reply.reason = 0;
                }
                None => reply.reason = NotCommittedReason::SequenceGap.code(),
            },
        }
        let at = out.len();
        writer.write(&reply, out);
        let keep = match manner {
            Manner::BreaksOff => (out.len() - at) / 2,
            Manner::SwallowsAnswer => 0,
            _ => return Then::Continue,
        };
        *self.manner.lock().unwrap() = Manner::Leads;
        out.truncate(at + keep);
        Then::Close
    }

    fn fetch(&self, manner: &Manner, fetch: &Fetch, writer: &mut FrameWriter, out: &mut BytesMut) {
        let log = self.log.lock().unwrap();
        let mut reply = FetchReply {
            request: fetch.request,
            end_offset: log.end,
            first_offset: 0,
            term: 1,
            leader: leader(manner, self.id),
            outcome: FetchOutcome::Ok.code(),
            ..FetchReply::default()
        };
        let mut blocks: &[u8] = &[];
        if matches!(manner, Manner::Follows(_)) {
            reply.outcome = FetchOutcome::NotLeader.code();
        } else if fetch.from > log.end {
            reply.outcome = FetchOutcome::BeyondEnd.code();
        } else if fetch.from < log.end {
            blocks = &log.blocks;
        }
        let claim = PayloadClaim {
            size: blocks.len() as u32,
            sum: 0,
        };
        writer.write_with_payload(&reply, claim, out);
        out.extend_from_slice(blocks);
        out.extend_from_slice(padding(blocks.len()));
    }
}

fn leader(manner: &Manner, own: u64) -> u64 {
    match manner {
        Manner::Follows(leader) => *leader,
        _ => own,
    }
}

pub(super) const fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}
