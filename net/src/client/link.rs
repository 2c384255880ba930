//! One stream to a node: dialled, read into frames, written from slices.
//!
//! Keeps the socket, the bytes that are not a frame yet and the bytes that are not sent yet. What
//! is sent is not copied. Knows no message.

use std::collections::VecDeque;
use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes, BytesMut};
use ringwood_core::client::LinkFault;
use ringwood_core::frame::assembler::{Assembler, TagPolicy};
use tokio::net::{TcpStream, lookup_host};

/// Bytes read at a time; what is read is not copied again, so a piece is held until its frames
/// are done with.
const READ_SIZE: usize = 64 << 10;

/// A rest below this is not read into.
const READ_SIZE_MIN: usize = 4 << 10;

/// Slices given to the system at a time.
const SLICE_COUNT: usize = 64;

type Dial = Pin<Box<dyn Future<Output = io::Result<TcpStream>> + Send>>;

enum Stage {
    Dialling(Dial),
    Open(TcpStream),
}

/// One stream.
pub(super) struct Link {
    stage: Stage,
    pub(super) assembler: Assembler<Bytes>,
    read: BytesMut,
    unsent: VecDeque<Bytes>,
}

/// What a look at the socket gave.
pub(super) enum Read {
    /// The stream has opened.
    Opened,
    /// The assembler has more.
    Bytes,
    /// Nothing, until the task is woken.
    Nothing,
    /// No more for ever.
    Ended(LinkFault),
}

impl Link {
    /// Begins to dial `host:port`; the names' addresses are tried one after the other.
    pub(super) fn dial(address: String, policy: TagPolicy) -> Self {
        Self {
            stage: Stage::Dialling(Box::pin(connect(address))),
            assembler: Assembler::new(policy),
            read: BytesMut::new(),
            unsent: VecDeque::new(),
        }
    }

    /// Queues a frame.
    pub(super) fn push(&mut self, head: Bytes, payload: Vec<Bytes>) {
        self.unsent.push_back(head);
        self.unsent.extend(payload);
    }

    /// Goes on with what comes in.
    pub(super) fn poll_read(&mut self, cx: &mut Context<'_>) -> Read {
        let stream = match &mut self.stage {
            Stage::Dialling(dial) => match dial.as_mut().poll(cx) {
                Poll::Pending => return Read::Nothing,
                Poll::Ready(Err(error)) => return Read::Ended(fault(&error)),
                Poll::Ready(Ok(stream)) => {
                    self.stage = Stage::Open(stream);
                    return Read::Opened;
                }
            },
            Stage::Open(stream) => stream,
        };
        if self.read.capacity() < READ_SIZE_MIN {
            self.read = BytesMut::with_capacity(READ_SIZE);
        }
        loop {
            match stream.poll_read_ready(cx) {
                Poll::Pending => return Read::Nothing,
                Poll::Ready(Err(error)) => return Read::Ended(fault(&error)),
                Poll::Ready(Ok(())) => {}
            }
            match stream.try_read_buf(&mut self.read) {
                Ok(0) => {
                    let end = self.assembler.finish();
                    return Read::Ended(end.err().map_or(LinkFault::Closed, LinkFault::Garbled));
                }
                Ok(_) => {
                    self.assembler.push(self.read.split().freeze());
                    return Read::Bytes;
                }
                // The readiness was stale and is cleared now: asking again leaves a waker.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Read::Ended(fault(&error)),
            }
        }
    }

    /// Sends what is queued, as far as the system takes it.
    pub(super) fn poll_write(&mut self, cx: &mut Context<'_>) -> Result<(), LinkFault> {
        let Stage::Open(stream) = &self.stage else {
            return Ok(());
        };
        while !self.unsent.is_empty() {
            match stream.poll_write_ready(cx) {
                Poll::Pending => return Ok(()),
                Poll::Ready(Err(error)) => return Err(fault(&error)),
                Poll::Ready(Ok(())) => {}
            }
            let mut slices = [IoSlice::new(&[]); SLICE_COUNT];
            let count = slices.len().min(self.unsent.len());
            for (slice, bytes) in slices.iter_mut().zip(&self.unsent) {
                *slice = IoSlice::new(bytes);
            }
            match stream.try_write_vectored(&slices[..count]) {
                Ok(sent) => advance(&mut self.unsent, sent),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(fault(&error)),
            }
        }
        Ok(())
    }
}

/// Drops the first `sent` bytes.
fn advance(unsent: &mut VecDeque<Bytes>, mut sent: usize) {
    while let Some(first) = unsent.front_mut() {
        if sent < first.len() {
            first.advance(sent);
            return;
        }
        sent -= first.len();
        unsent.pop_front();
    }
    assert_eq!(sent, 0, "more was sent than was queued");
}

async fn connect(address: String) -> io::Result<TcpStream> {
    let mut last = None;
    for address in lookup_host(address).await? {
        match TcpStream::connect(address).await {
            Ok(stream) => {
                stream.set_nodelay(true)?;
                return Ok(stream);
            }
            Err(error) => last = Some(error),
        }
    }
    let unknown = || io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    Err(last.unwrap_or_else(unknown))
}

fn fault(error: &io::Error) -> LinkFault {
    LinkFault::Unreachable(error.to_string())
}
