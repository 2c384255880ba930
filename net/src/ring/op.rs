//! The operations: what each owns, the entry it hands to the kernel, and what a completion makes
//! of it. A short send, write or read is continued here, so that its caller sees one completion.
//!
//! Knows no slab and no queue. Hops "bytes in", "replicate" and "store".

use std::net::SocketAddr;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;

use bytes::Bytes;
use io_uring::squeue::Entry;
use io_uring::types::{CancelBuilder, Fd, Fixed, FsyncFlags};
use io_uring::{cqueue, opcode};
use ringwood_core::limits::SECTOR_SIZE;

use super::buffer::{AlignedBuffer, Lease};
use super::engine::BUFFER_GROUP;
use super::errno::{Family, IoError};
use super::handle::{File, Socket};
use super::vectored::Vectored;
use super::waker::Alarm;

/// When a write is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteMode {
    /// When the device has taken it; a power cut may take it back.
    Plain,
    /// When it is durable: one write with `RWF_DSYNC`.
    Durable,
    /// When it is durable: a plain write and, once that has completed, an fdatasync of the file.
    /// Quicker than `Durable` on some drives; `disk::Calibration` knows.
    DurableBySync,
}

/// What an operation came to.
#[derive(Debug)]
pub enum Outcome {
    /// A connection; there may be more.
    Accepted(Socket),
    /// The connection stands.
    Connected,
    /// Bytes from the peer; there may be more.
    Received(Lease),
    /// The peer will send no more. The last word of a receive.
    Ended,
    /// All bytes of a send, this many, are the kernel's. That says nothing of the peer.
    Sent(u64),
    /// All bytes of a write, this many, are where its `WriteMode` says.
    Written(u64),
    /// All writes that completed before the sync was asked for are durable.
    Synced,
    /// What was read; fewer bytes than asked for where the file ended.
    Read(Bytes),
    /// A `Waker` of this ring was used since the last turn.
    Woken,
}

/// What becomes of an operation after a completion.
pub(super) enum Step {
    /// A result, and more to come.
    More(Result<Outcome, IoError>),
    /// A result, and no more.
    Done(Result<Outcome, IoError>),
    /// Nothing to tell yet: push its entry again.
    Again,
    /// Nothing to tell yet, and the entry goes on by itself.
    Wait,
    /// No more, and nobody to tell.
    Quiet,
}

/// A descriptor, as the kernel shall look it up.
#[derive(Clone, Copy, Debug)]
pub(super) enum Target {
    Plain(RawFd),
    Fixed(u32),
}

/// An operation and all it owns until its last completion.
pub(super) enum Operation {
    Accept {
        listener: Socket,
    },
    Connect {
        socket: Socket,
        address: Box<Address>,
    },
    Receive {
        socket: Socket,
    },
    Send {
        socket: Socket,
        data: Box<Vectored>,
    },
    Write(Write),
    Sync {
        file: File,
    },
    Read(Read),
    Cancel {
        what: Cancelled,
    },
    Alarm {
        alarm: Arc<Alarm>,
    },
}

pub(super) struct Write {
    pub(super) file: File,
    pub(super) position: u64,
    pub(super) mode: WriteMode,
    pub(super) data: Box<Vectored>,
    /// `DurableBySync`, and the write is done.
    pub(super) syncing: bool,
}

pub(super) struct Read {
    pub(super) file: File,
    pub(super) position: u64,
    /// `None` once handed over.
    pub(super) buffer: Option<AlignedBuffer>,
    pub(super) size: usize,
    pub(super) done: usize,
}

/// What a cancellation is aimed at.
pub(super) enum Cancelled {
    /// One operation, by its user data.
    One(u64),
    /// All of a socket, which stays open until the kernel has looked.
    Socket(Socket),
}

/// A socket address as the kernel reads it.
pub(super) enum Address {
    V4(libc::sockaddr_in),
    V6(libc::sockaddr_in6),
}

/// Builds an entry for either kind of descriptor.
macro_rules! on {
    ($target:expr, |$fd:ident| $build:expr) => {
        match $target {
            Target::Plain(raw) => {
                let $fd = Fd(raw);
                $build
            }
            Target::Fixed(slot) => {
                let $fd = Fixed(slot);
                $build
            }
        }
    };
}

impl Operation {
    /// The entry to push next. It points into what the operation owns on the heap, so the
    /// operation may move but must not be dropped or changed before the completion.
    pub(super) fn entry(&mut self, find: impl FnOnce(&File) -> Target) -> Entry {
        match self {
            Self::Accept { listener } => opcode::AcceptMulti::new(Fd(listener.raw()))
                .flags(libc::SOCK_CLOEXEC)
                .build(),
            Self::Connect { socket, address } => {
                let (address, size) = address.raw();
                opcode::Connect::new(Fd(socket.raw()), address, size).build()
            }
            Self::Receive { socket } => {
                opcode::RecvMulti::new(Fd(socket.raw()), BUFFER_GROUP).build()
            }
            Self::Send { socket, data } => send_entry(Fd(socket.raw()), data),
            Self::Write(write) => write.entry(find(&write.file)),
            Self::Sync { file } => sync_entry(find(file)),
            Self::Read(read) => read.entry(find(&read.file)),
            Self::Cancel { what } => opcode::AsyncCancel2::new(what.builder()).build(),
            Self::Alarm { alarm } => {
                let events = u32::from(libc::POLLIN.unsigned_abs());
                opcode::PollAdd::new(Fd(alarm.eventfd().as_raw_fd()), events)
                    .multi(true)
                    .build()
            }
        }
    }

    /// Takes in a completion. `cancelled`: its owner asked for an end, so nothing is continued.
    pub(super) fn step(&mut self, result: i32, flags: u32, cancelled: bool) -> Step {
        let more = cqueue::more(flags);
        let cancelled = cancelled || self.socket().is_some_and(Socket::is_closing);
        match self {
            Self::Accept { .. } | Self::Receive { .. } => {
                unreachable!("the ring takes what came with these: sockets and leases")
            }
            Self::Cancel { .. } => Step::Quiet,
            Self::Alarm { .. } if more => Step::Wait,
            Self::Alarm { .. } if cancelled => Step::Quiet,
            Self::Alarm { .. } => Step::Again,
            Self::Connect { .. } => {
                Step::Done(count(Family::Connect, result).map(|_| Outcome::Connected))
            }
            Self::Send { data, .. } => match advance(Family::Send, data, result, cancelled) {
                Progress::All => Step::Done(Ok(Outcome::Sent(data.size()))),
                Progress::Part => Step::Again,
                Progress::Failed(error) => Step::Done(Err(error)),
            },
            Self::Write(write) => write.step(result, cancelled),
            Self::Sync { .. } => match result {
                result if result == -libc::EINTR && !cancelled => Step::Again,
                _ => Step::Done(count(Family::File, result).map(|_| Outcome::Synced)),
            },
            Self::Read(read) => read.step(result, cancelled),
        }
    }

    pub(super) fn socket(&self) -> Option<&Socket> {
        match self {
            Self::Accept { listener: socket }
            | Self::Connect { socket, .. }
            | Self::Receive { socket }
            | Self::Send { socket, .. } => Some(socket),
            _ => None,
        }
    }

    /// Whether somebody waits for its outcome.
    pub(super) fn is_callers(&self) -> bool {
        !matches!(self, Self::Cancel { .. } | Self::Alarm { .. })
    }

    /// The list to be used again, of an operation that is over.
    pub(super) fn into_spare(self) -> Option<Box<Vectored>> {
        match self {
            Self::Send { data, .. } | Self::Write(Write { data, .. }) => Some(data),
            _ => None,
        }
    }
}

/// What a receive's or an accept's completion says, once what came with it has been taken.
pub(super) fn step_shots(more: bool, result: Result<Outcome, IoError>) -> Step {
    match more {
        true => Step::More(result),
        false => Step::Done(result),
    }
}

/// The count in a completion, or the meaning of its errno.
pub(super) fn count(family: Family, result: i32) -> Result<usize, IoError> {
    usize::try_from(result).map_err(|_| IoError::of(family, result.saturating_neg()))
}

enum Progress {
    All,
    Part,
    Failed(IoError),
}

fn advance(family: Family, data: &mut Vectored, result: i32, cancelled: bool) -> Progress {
    match count(family, result) {
        // A signal meant for a worker thread; nothing was moved.
        Err(_) if result == -libc::EINTR && !cancelled => Progress::Part,
        Err(error) => Progress::Failed(error),
        Ok(0) => Progress::Failed(if cancelled {
            IoError::Cancelled
        } else {
            IoError::Stuck
        }),
        Ok(moved) => {
            data.advance(moved);
            match (data.is_done(), cancelled) {
                (true, _) => Progress::All,
                (false, true) => Progress::Failed(IoError::Cancelled),
                (false, false) => Progress::Part,
            }
        }
    }
}

fn send_entry(fd: Fd, data: &mut Vectored) -> Entry {
    // WAITALL: the kernel itself waits for room and goes on, short of an error.
    let flags = libc::MSG_NOSIGNAL | libc::MSG_WAITALL;
    match data.fill_window() {
        [only] => {
            let size = u32::try_from(only.iov_len).expect("bounded by VECTORED_SIZE_MAX");
            opcode::Send::new(fd, only.iov_base.cast_const().cast(), size)
                .flags(flags)
                .build()
        }
        _ => opcode::SendMsg::new(fd, data.header())
            .flags(flags.unsigned_abs())
            .build(),
    }
}

fn sync_entry(target: Target) -> Entry {
    on!(target, |fd| opcode::Fsync::new(fd)
        .flags(FsyncFlags::DATASYNC)
        .build())
}

impl Write {
    fn entry(&mut self, target: Target) -> Entry {
        if self.syncing {
            return sync_entry(target);
        }
        let flags = match self.mode {
            WriteMode::Durable => libc::RWF_DSYNC,
            WriteMode::Plain | WriteMode::DurableBySync => 0,
        };
        let position = self.position + self.data.done();
        match self.data.fill_window() {
            [only] => {
                let start = only.iov_base.cast_const().cast();
                let size = u32::try_from(only.iov_len).expect("bounded by VECTORED_SIZE_MAX");
                on!(target, |fd| opcode::Write::new(fd, start, size)
                    .offset(position)
                    .rw_flags(flags)
                    .build())
            }
            window => {
                let count = u32::try_from(window.len()).expect("bounded by WINDOW_COUNT_MAX");
                on!(target, |fd| opcode::Writev::new(fd, window.as_ptr(), count)
                    .offset(position)
                    .rw_flags(flags)
                    .build())
            }
        }
    }

    fn step(&mut self, result: i32, cancelled: bool) -> Step {
        if self.syncing {
            if result == -libc::EINTR && !cancelled {
                return Step::Again;
            }
            let size = self.data.size();
            return Step::Done(count(Family::File, result).map(|_| Outcome::Written(size)));
        }
        match advance(Family::File, &mut self.data, result, cancelled) {
            Progress::Failed(error) => Step::Done(Err(error)),
            Progress::Part => Step::Again,
            Progress::All if self.mode != WriteMode::DurableBySync => {
                Step::Done(Ok(Outcome::Written(self.data.size())))
            }
            Progress::All if cancelled => Step::Done(Err(IoError::Cancelled)),
            Progress::All => {
                // Only now: a sync may overtake a write that is still in flight.
                self.syncing = true;
                Step::Again
            }
        }
    }
}

impl Read {
    fn entry(&mut self, target: Target) -> Entry {
        let buffer = self
            .buffer
            .as_ref()
            .expect("the buffer stays until the read is done");
        assert!(self.done < self.size && self.size <= buffer.size());
        // The whole buffer, not `size`: a direct read takes whole sectors.
        let size = u32::try_from(buffer.size() - self.done).expect("bounded by READ_SIZE_MAX");
        let start = buffer.pointer().as_ptr().wrapping_add(self.done);
        let position = self.position + self.done as u64;
        on!(target, |fd| opcode::Read::new(fd, start, size)
            .offset(position)
            .build())
    }

    fn step(&mut self, result: i32, cancelled: bool) -> Step {
        let count = match count(Family::File, result) {
            Err(_) if result == -libc::EINTR && !cancelled => return Step::Again,
            Err(error) => return Step::Done(Err(error)),
            Ok(count) => count,
        };
        self.done += count;
        // A direct read that ends within a sector ended with the file; asking for the rest would
        // be refused as not aligned.
        let ended = count == 0 || (self.file.is_direct() && !self.done.is_multiple_of(SECTOR_SIZE));
        if self.done >= self.size || ended {
            let buffer = self
                .buffer
                .take()
                .expect("the buffer stays until the read is done");
            let size = self.done.min(self.size);
            return Step::Done(Ok(Outcome::Read(buffer.into_bytes(size))));
        }
        if cancelled {
            Step::Done(Err(IoError::Cancelled))
        } else {
            Step::Again
        }
    }
}

impl Cancelled {
    fn builder(&self) -> CancelBuilder {
        match self {
            Self::One(user_data) => CancelBuilder::user_data(*user_data),
            Self::Socket(socket) => CancelBuilder::fd(Fd(socket.raw())).all(),
        }
    }
}

impl Address {
    fn raw(&self) -> (*const libc::sockaddr, libc::socklen_t) {
        fn of<T>(address: &T) -> (*const libc::sockaddr, libc::socklen_t) {
            let size = libc::socklen_t::try_from(size_of::<T>()).expect("a few bytes");
            (std::ptr::from_ref(address).cast(), size)
        }
        match self {
            Self::V4(address) => of(address),
            Self::V6(address) => of(address),
        }
    }
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Self {
        let family = |family: libc::c_int| libc::sa_family_t::try_from(family).expect("small");
        match address {
            SocketAddr::V4(address) => Self::V4(libc::sockaddr_in {
                sin_family: family(libc::AF_INET),
                sin_port: address.port().to_be(),
                sin_addr: libc::in_addr {
                    s_addr: u32::from_ne_bytes(address.ip().octets()),
                },
                sin_zero: [0; 8],
            }),
            SocketAddr::V6(address) => Self::V6(libc::sockaddr_in6 {
                sin6_family: family(libc::AF_INET6),
                sin6_port: address.port().to_be(),
                sin6_flowinfo: address.flowinfo().to_be(),
                sin6_addr: libc::in6_addr {
                    s6_addr: address.ip().octets(),
                },
                sin6_scope_id: address.scope_id(),
            }),
        }
    }
}
