//! What a ring can be asked for. Each call starts an operation (or asks for the end of one); its
//! outcome comes as a `Completion` with the caller's token.

use std::net::SocketAddr;

use bytes::Bytes;

use super::buffer::AlignedBuffer;
use super::flight::OperationId;
use super::handle::{File, Socket};
use super::op::{Address, Cancelled, Operation, Read, Write, WriteMode};
use super::vectored::{self, Vectored};
use super::{Ring, Token};

/// Most bytes of one read.
pub const READ_SIZE_MAX: usize = 1 << 30;

impl Ring {
    /// Makes operations on `file` cheaper, for as long as the ring lives; the file stays open as
    /// long. For the few files written all the time. Whether there was a slot left for it.
    pub fn register_file(&mut self, file: &File) -> bool {
        if self.files.iter().any(|at| at.raw() == file.raw()) {
            return true;
        }
        let slot = u32::try_from(self.files.len()).expect("a few slots");
        if slot >= self.engine.file_count() || !self.engine.set_file(slot, file.raw()) {
            return false;
        }
        self.files.push(file.clone());
        true
    }

    /// Accepts connections, `Accepted` each, until it fails or is cancelled.
    pub fn accept(&mut self, token: Token, listener: &Socket) -> OperationId {
        self.launch(
            token,
            Operation::Accept {
                listener: listener.clone(),
            },
        )
    }

    /// Connects a socket of `Socket::stream` to `address`: `Connected`.
    pub fn connect(&mut self, token: Token, socket: &Socket, address: SocketAddr) -> OperationId {
        let address = Box::new(Address::from(address));
        self.launch(
            token,
            Operation::Connect {
                socket: socket.clone(),
                address,
            },
        )
    }

    /// Receives whatever comes, `Received` each, until the peer ends (`Ended`), an error, or a
    /// cancellation. `IoError::NoBuffers` loses nothing: receive again once leases were dropped.
    pub fn receive(&mut self, token: Token, socket: &Socket) -> OperationId {
        self.launch(
            token,
            Operation::Receive {
                socket: socket.clone(),
            },
        )
    }

    /// Sends all of `buffers`, in order: `Sent`. Two sends of one socket at a time may mix: ask
    /// for the next when the last has completed.
    ///
    /// # Panics
    /// If there is nothing to send, or more than `VECTORED_SIZE_MAX`.
    pub fn send(
        &mut self,
        token: Token,
        socket: &Socket,
        buffers: impl IntoIterator<Item = Bytes>,
    ) -> OperationId {
        let data = self.load(buffers);
        self.launch(
            token,
            Operation::Send {
                socket: socket.clone(),
                data,
            },
        )
    }

    /// Writes all of `buffers`, back to back, from `position` on: `Written`. For a direct file
    /// the position and each buffer's address and size are multiples of `SECTOR_SIZE`.
    ///
    /// # Panics
    /// If there is nothing to write, or more than `VECTORED_SIZE_MAX`, or a direct write is not
    /// aligned.
    pub fn write(
        &mut self,
        token: Token,
        file: &File,
        position: u64,
        buffers: impl IntoIterator<Item = Bytes>,
        mode: WriteMode,
    ) -> OperationId {
        let data = self.load(buffers);
        assert!(
            !file.is_direct() || data.is_aligned(position),
            "a direct write is aligned"
        );
        let file = file.clone();
        let write = Write {
            file,
            position,
            mode,
            data,
            syncing: false,
        };
        self.launch(token, Operation::Write(write))
    }

    /// Makes durable what has been written to `file`, that is, whose `Written` was delivered
    /// before this call: `Synced`. A write in flight meanwhile may or may not be included.
    pub fn sync(&mut self, token: Token, file: &File) -> OperationId {
        self.launch(token, Operation::Sync { file: file.clone() })
    }

    /// Reads `size` bytes from `position` on: `Read`, with fewer bytes where the file ends. For a
    /// direct file the position is a multiple of `SECTOR_SIZE`; the size need not be.
    ///
    /// # Panics
    /// If `size` is 0 or above `READ_SIZE_MAX`, or a direct read is not aligned.
    pub fn read(&mut self, token: Token, file: &File, position: u64, size: usize) -> OperationId {
        assert!(size > 0 && size <= READ_SIZE_MAX, "a read of {size} bytes");
        assert!(
            !file.is_direct() || vectored::is_aligned(position),
            "a direct read is aligned"
        );
        let buffer = Some(AlignedBuffer::zeroed(size));
        let file = file.clone();
        self.launch(
            token,
            Operation::Read(Read {
                file,
                position,
                buffer,
                size,
                done: 0,
            }),
        )
    }

    /// Asks for an early end of one operation. Its last completion comes all the same: cancelled,
    /// or with what it had come to. False where it has already been delivered.
    pub fn cancel(&mut self, id: OperationId) -> bool {
        let Some(flight) = self.flights.find(id) else {
            return false;
        };
        if !flight.cancelled {
            flight.cancelled = true;
            let what = Cancelled::One(id.user_data());
            self.launch(Token::default(), Operation::Cancel { what });
        }
        true
    }

    /// As `cancel`, for all operations named `token`; how many there were. Looks at every
    /// operation in flight: for rare occasions.
    pub fn cancel_all(&mut self, token: Token) -> usize {
        let ids: Vec<OperationId> = self
            .flights
            .ids()
            .filter(|(_, flight)| flight.token == token && flight.operation.is_callers())
            .map(|(id, _)| id)
            .collect();
        ids.into_iter().filter(|id| self.cancel(*id)).count()
    }

    /// Ends a connection or a listener now: shuts it down, and ends all operations in flight on
    /// it, whose last completions still come. Its descriptor closes with the last handle. For a
    /// gentle end, `Socket::finish` first and wait for the peer's `Ended`.
    pub fn close(&mut self, socket: &Socket) {
        socket.close();
        let what = Cancelled::Socket(socket.clone());
        self.launch(Token::default(), Operation::Cancel { what });
    }

    fn load(&mut self, buffers: impl IntoIterator<Item = Bytes>) -> Box<Vectored> {
        let mut data = self.spare.pop().unwrap_or_else(Vectored::new);
        data.load(buffers);
        data
    }
}
