//! A client reduced to one blocking socket: what goes out and comes in is chosen by the test.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use bytes::{BufMut, BytesMut};
use ringwood_core::frame::Lane;
use ringwood_core::frame::assembler::{Assembler, TagPolicy};
use ringwood_core::frame::client::{Append, AppendReply, Fetch, FetchReply, Status, StatusRequest};
use ringwood_core::frame::code::ReadMode;
use ringwood_core::frame::greeting::{Hello, Refused, Welcome};
use ringwood_core::frame::header::ClusterTag;
use ringwood_core::frame::message::{Body, Message};
use ringwood_core::frame::sum::crc32c;
use ringwood_core::frame::writer::{FrameWriter, PayloadClaim, padding};
use ringwood_core::id::ClusterId;
use ringwood_core::log::block::{blocks, write_record};

/// What came back, owned.
#[derive(Debug)]
pub(crate) enum Answer {
    Welcome(Welcome),
    Append(AppendReply),
    Fetch(FetchReply, Found),
    Status(Status),
    Refused(Refused),
    Closed,
}

/// What a fetch brought.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// The blocks that hold records, verbatim.
    pub(crate) bytes: Vec<u8>,
    /// Their records, each with its offset.
    pub(crate) records: Vec<(u64, Vec<u8>)>,
}

/// One connection.
pub(crate) struct Wire {
    socket: TcpStream,
    assembler: Assembler<Vec<u8>>,
    writer: FrameWriter,
    cluster: [u8; 16],
    /// What is sent at once later, if something is held back.
    held: Option<Vec<u8>>,
}

impl Wire {
    /// Connects and says nothing.
    pub(crate) fn connect(address: &str) -> Self {
        Self::over(TcpStream::connect(address).expect("the node listens"))
    }

    fn over(socket: TcpStream) -> Self {
        socket
            .set_read_timeout(Some(Duration::from_secs(10)))
            .expect("a timeout");
        socket.set_nodelay(true).expect("a socket option");
        Self {
            socket,
            assembler: Assembler::new(TagPolicy::Learn),
            writer: FrameWriter::new(ClusterTag::UNKNOWN),
            cluster: [0; 16],
            held: None,
        }
    }

    /// Connects and introduces itself as a client.
    pub(crate) fn greet(address: &str) -> Self {
        Self::connect(address)
            .introduced()
            .expect("a client is welcome")
    }

    /// As `greet`, with patience for a node that recovers; none if it is not there, or goes meanwhile.
    pub(crate) fn try_greet(address: &str) -> Option<Self> {
        let mut wire = Self::over(TcpStream::connect(address).ok()?);
        wire.set_patience(Duration::from_secs(60));
        wire.introduced()
    }

    /// None if the other side ends instead of welcoming it.
    fn introduced(mut self) -> Option<Self> {
        self.send(&Hello {
            lane: Lane::Client.code(),
            version_min: 1,
            version_max: 1,
            ..Hello::default()
        });
        let Answer::Welcome(welcome) = self.receive() else {
            return None;
        };
        self.belong_to(ClusterId(u128::from_le_bytes(welcome.cluster)));
        Some(self)
    }

    /// Sends as one that knows its cluster.
    pub(crate) fn belong_to(&mut self, cluster: ClusterId) {
        self.cluster = cluster.0.to_le_bytes();
        self.writer = FrameWriter::new(ClusterTag::of(cluster));
    }

    /// The cluster it was welcomed by, as on the wire.
    pub(crate) fn cluster(&self) -> [u8; 16] {
        self.cluster
    }

    /// Holds back what is sent from now on.
    pub(crate) fn hold(&mut self) {
        self.held = Some(Vec::new());
    }

    /// Sends what was held back, in one piece.
    pub(crate) fn release(&mut self) {
        let held = self.held.take().expect("something was held back");
        self.send_bytes(&held);
    }

    /// How long an answer may take.
    pub(crate) fn set_patience(&mut self, patience: Duration) {
        self.socket
            .set_read_timeout(Some(patience))
            .expect("a timeout");
    }

    /// Whether nothing at all comes for so long, not even the end.
    pub(crate) fn is_silent_for(&mut self, span: Duration) -> bool {
        self.set_patience(span);
        let silent = self.socket.read(&mut [0; 1]);
        silent.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock)
    }

    pub(crate) fn send_bytes(&mut self, bytes: &[u8]) {
        if let Some(held) = &mut self.held {
            held.extend_from_slice(bytes);
            return;
        }
        // The node may have closed already: that is what some tests are about.
        let _ = self.socket.write_all(bytes);
    }

    pub(crate) fn send<B: Body>(&mut self, body: &B) {
        self.send_with_payload(body, &[]);
    }

    pub(crate) fn send_with_payload<B: Body>(&mut self, body: &B, payload: &[u8]) {
        let mut bytes = BytesMut::new();
        let sum = if payload.is_empty() {
            0
        } else {
            crc32c(payload)
        };
        let claim = PayloadClaim {
            size: payload.len() as u32,
            sum,
        };
        self.writer.write_with_payload(body, claim, &mut bytes);
        bytes.put_slice(payload);
        bytes.put_slice(padding(payload.len()));
        self.send_bytes(&bytes);
    }

    /// The first `size` bytes of a frame.
    pub(crate) fn send_part<B: Body>(&mut self, body: &B, size: usize) {
        let whole = self.frame(body, &[]);
        self.send_bytes(&whole[..size]);
    }

    /// A frame as it would be sent.
    pub(crate) fn frame<B: Body>(&mut self, body: &B, payload: &[u8]) -> Vec<u8> {
        self.hold();
        self.send_with_payload(body, payload);
        self.held.take().expect("held back just now")
    }

    pub(crate) fn receive(&mut self) -> Answer {
        loop {
            if let Some(frame) = self.assembler.next().expect("a node sends frames") {
                return match frame.message().expect("a node's frames are well-formed") {
                    Message::Welcome(body) => Answer::Welcome(Body::owned(body).expect("flat")),
                    Message::AppendReply(body) => Answer::Append(Body::owned(body).expect("flat")),
                    Message::Status(body) => Answer::Status(Body::owned(body).expect("flat")),
                    Message::Refused(body) => Answer::Refused(Body::owned(body).expect("flat")),
                    Message::FetchReply(body) => {
                        let payload = frame.payload().contiguous();
                        let mut found = Found::default();
                        for block in blocks(&payload) {
                            let block = block.expect("a node sends sound blocks");
                            let records = block.records();
                            found
                                .records
                                .extend(records.map(|(at, record)| (at.0, record.into())));
                            // Blocks without records come or not, as a read happens to be cut.
                            if block.header().record_count > 0 {
                                found.bytes.extend_from_slice(block.bytes());
                            }
                        }
                        Answer::Fetch(Body::owned(body).expect("flat"), found)
                    }
                    other => panic!("a client is not sent {other:?}"),
                };
            }
            self.assembler.take_released().for_each(drop);
            let mut chunk = vec![0; 64 << 10];
            match self.socket.read(&mut chunk) {
                Ok(0) => return Answer::Closed,
                Ok(size) => {
                    chunk.truncate(size);
                    self.assembler.push(chunk);
                }
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => {
                    return Answer::Closed;
                }
                Err(error) => panic!("no answer: {error}"),
            }
        }
    }

    pub(crate) fn append(&mut self, group: u32, producer: u64, sequence: u64, records: &[&[u8]]) {
        let mut payload = BytesMut::new();
        for record in records {
            write_record(&mut payload, record);
        }
        let append = Append {
            request: sequence,
            producer,
            sequence,
            group,
            record_count: records.len() as u32,
            epoch: 1,
        };
        self.send_with_payload(&append, &payload);
    }

    pub(crate) fn fetch(&mut self, group: u32, from: u64, mode: ReadMode) {
        self.send(&Fetch {
            request: 7,
            from,
            group,
            size_max: 1 << 20,
            wait_us: 0,
            mode: mode.code(),
        });
    }

    pub(crate) fn status(&mut self) -> Status {
        self.try_status().expect("status has an answer")
    }

    /// As `status`; none if the node goes instead.
    pub(crate) fn try_status(&mut self) -> Option<Status> {
        self.send(&StatusRequest { request: 1 });
        match self.receive() {
            Answer::Status(status) => Some(status),
            _ => None,
        }
    }

    /// All that comes until the other side closes, as text.
    pub(crate) fn receive_text(&mut self) -> String {
        let mut bytes = Vec::new();
        // A reset after the answer ends it too.
        let _ = self.socket.read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    }
}
