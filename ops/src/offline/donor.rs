//! Running nodes of a stopped one's cluster, asked for blocks that its files have lost.
//!
//! Keeps a connection to each, as a client. A block is asked for by its index and its sum, so whoever
//! has it may give it, whatever its role. Believes nothing: whoever asks proves what comes by that
//! sum. Blocks the thread: this side of the program does one thing at a time.

use std::fmt::Display;
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::thread;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use ringwood_core::frame::assembler::{Assembler, TagPolicy};
use ringwood_core::frame::code::BlockOutcome;
use ringwood_core::frame::greeting::{Hello, Welcome};
use ringwood_core::frame::header::ClusterTag;
use ringwood_core::frame::message::{Body, Message};
use ringwood_core::frame::peer::{BlockReply, BlockRequest};
use ringwood_core::frame::writer::{FrameWriter, PayloadClaim};
use ringwood_core::frame::{Frame, Lane};
use ringwood_core::id::{GroupId, Index};
use ringwood_core::log::block::blocks;
use ringwood_core::log::offline::Missing;
use ringwood_core::shard::WIRE_VERSION;
use ringwood_net::config::Identity;

use crate::exit::{Exit, Failure};

/// A busy node is asked again after this, so often.
const BUSY_PAUSE: Duration = Duration::from_millis(50);
const BUSY_COUNT_MAX: u32 = 100;

/// Bytes read from a socket at a time.
const READ_SIZE: usize = 64 << 10;

/// One running node.
struct Donor {
    address: String,
    socket: TcpStream,
    assembler: Assembler<Vec<u8>>,
    writer: FrameWriter,
    last_number: u64,
}

/// All that can be reached.
pub(crate) struct Donors {
    list: Vec<Donor>,
}

impl Donors {
    /// The nodes at these endpoints, and those that they name, but for the one that is mended.
    pub(crate) fn reach(
        identity: &Identity,
        endpoints: &[String],
        timeout: Duration,
    ) -> Result<Self, Failure> {
        let mut ahead: Vec<String> = endpoints.iter().rev().cloned().collect();
        let mut tried: Vec<String> = Vec::new();
        let mut list = Vec::new();
        let mut last_word = "no endpoint was named".to_string();
        while let Some(address) = ahead.pop() {
            if tried.contains(&address) {
                continue;
            }
            tried.push(address.clone());
            match Donor::greet(identity, &address, timeout) {
                Ok((donor, welcome)) => {
                    let others = welcome.nodes.iter();
                    let others = others.filter(|node| node.id != identity.node.0);
                    ahead.extend(others.filter_map(|node| {
                        let address = String::from_utf8(node.address.clone());
                        address.ok()
                    }));
                    let is_known = list.iter().any(|(node, _)| *node == welcome.node);
                    if !is_known {
                        list.push((welcome.node, donor));
                    }
                }
                Err(word) => last_word = word,
            }
        }
        let list: Vec<Donor> = list.into_iter().map(|(_, donor)| donor).collect();
        if list.is_empty() {
            return Err(Failure::new(Exit::Unreachable, last_word)
                .fix("--repair-from with nodes of the same cluster that run"));
        }
        Ok(Self { list })
    }

    /// Asks one after the other until `take` is content with what one has; else what each said.
    pub(crate) fn fetch<E: Display>(
        &mut self,
        group: GroupId,
        missing: Missing,
        mut take: impl FnMut(&Bytes) -> Result<(), E>,
    ) -> Result<(), String> {
        let mut words = Vec::new();
        for donor in &mut self.list {
            let word = match donor.fetch(group, missing) {
                Ok(bytes) => match take(&bytes) {
                    Ok(()) => return Ok(()),
                    Err(error) => format!("gave {error}"),
                },
                Err(word) => word,
            };
            words.push(format!("{} {word}", donor.address));
        }
        Err(words.join("; "))
    }
}

impl Donor {
    fn greet(
        identity: &Identity,
        address: &str,
        timeout: Duration,
    ) -> Result<(Self, Welcome), String> {
        let failed = |error: std::io::Error| format!("{address}: {error}");
        let mut addresses = address.to_socket_addrs().map_err(failed)?;
        let first = addresses.next();
        let first = first.ok_or_else(|| format!("{address} is no address"))?;
        let socket = TcpStream::connect_timeout(&first, timeout).map_err(failed)?;
        socket.set_read_timeout(Some(timeout)).map_err(failed)?;
        socket.set_write_timeout(Some(timeout)).map_err(failed)?;
        socket.set_nodelay(true).map_err(failed)?;
        let tag = ClusterTag::of(identity.cluster);
        let mut donor = Self {
            address: address.to_string(),
            socket,
            assembler: Assembler::new(TagPolicy::Exact(tag)),
            writer: FrameWriter::new(tag),
            last_number: 0,
        };
        let hello = Hello {
            cluster: identity.cluster.0.to_le_bytes(),
            lane: Lane::Client.code(),
            version_min: WIRE_VERSION,
            version_max: WIRE_VERSION,
            ..Hello::default()
        };
        let welcome = donor.send(&hello).and_then(|()| {
            donor.hear(|frame| match frame.message() {
                Ok(Message::Welcome(body)) => Welcome::owned(body).map_err(|why| why.to_string()),
                other => Err(word_of(other)),
            })
        });
        let welcome = welcome.map_err(|word| format!("{address} {word}"))?;
        Ok((donor, welcome))
    }

    /// All blocks of a range, or why not.
    fn fetch(&mut self, group: GroupId, missing: Missing) -> Result<Bytes, String> {
        let mut found = BytesMut::new();
        let mut next = missing.first;
        let mut busy_count = 0;
        while next <= missing.last {
            self.last_number += 1;
            let request = BlockRequest {
                number: self.last_number,
                first: next.0,
                last: missing.last.0,
                group: group.0,
                sum: missing.sum,
            };
            self.send(&request)?;
            let (reply, payload) = self.hear(|frame| match frame.message() {
                Ok(Message::BlockReply(body)) => {
                    let reply = BlockReply::owned(body).map_err(|why| why.to_string())?;
                    Ok((reply, frame.payload().contiguous().into_owned()))
                }
                other => Err(word_of(other)),
            })?;
            if (reply.number, reply.first, reply.group) != (request.number, next.0, group.0) {
                return Err("answered another question".into());
            }
            match BlockOutcome::from_code(reply.outcome) {
                Some(BlockOutcome::Found) => {
                    next = behind(&payload, next).ok_or("sent something else")?;
                    found.extend_from_slice(&payload);
                }
                Some(BlockOutcome::Busy) if busy_count < BUSY_COUNT_MAX => {
                    busy_count += 1;
                    thread::sleep(BUSY_PAUSE);
                }
                Some(BlockOutcome::Busy) => return Err("is busy".into()),
                Some(BlockOutcome::Lost) => return Err("has lost it, too".into()),
                Some(BlockOutcome::Trimmed) => return Err("has trimmed it".into()),
                Some(BlockOutcome::Absent) | None => return Err("does not have it".into()),
            }
        }
        Ok(found.freeze())
    }

    fn send<B: Body>(&mut self, body: &B) -> Result<(), String> {
        let mut bytes = BytesMut::new();
        let nothing = PayloadClaim { size: 0, sum: 0 };
        self.writer.write_with_payload(body, nothing, &mut bytes);
        let sent = self.socket.write_all(&bytes);
        sent.map_err(|error| format!("does not listen: {error}"))
    }

    /// Waits for the next frame, and takes of it what is wanted.
    fn hear<T>(
        &mut self,
        mut take: impl FnMut(&Frame<'_>) -> Result<T, String>,
    ) -> Result<T, String> {
        loop {
            match self.assembler.next() {
                Ok(Some(frame)) => return take(&frame),
                Ok(None) => {}
                Err(refusal) => return Err(format!("sent what is no frame: {refusal}")),
            }
            self.assembler.take_released().for_each(drop);
            let mut chunk = vec![0; READ_SIZE];
            match self.socket.read(&mut chunk) {
                Ok(0) => return Err("has closed the connection".into()),
                Ok(size) => {
                    chunk.truncate(size);
                    self.assembler.push(chunk);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    return Err("does not answer".into());
                }
                Err(error) => return Err(error.to_string()),
            }
        }
    }
}

/// The index behind a reply's blocks; none if they are not whole blocks from `next` on.
fn behind(payload: &[u8], mut next: Index) -> Option<Index> {
    let first = next;
    for block in blocks(payload) {
        if block.ok()?.header().index != next {
            return None;
        }
        next = next.next();
    }
    (next > first).then_some(next)
}

/// What came instead of an answer.
fn word_of(message: Result<Message<'_>, ringwood_core::frame::refusal::Refusal>) -> String {
    match message {
        Ok(Message::Refused(body)) => {
            let detail = String::from_utf8_lossy(&body.detail);
            format!("refuses: {detail}")
        }
        Ok(_) => "answered something else".into(),
        Err(refusal) => refusal.to_string(),
    }
}
