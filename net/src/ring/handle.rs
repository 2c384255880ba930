//! `Socket` and `File`: descriptors that stay open while any operation of a ring uses them.
//!
//! Why not plain descriptors: an operation names its file by number when the kernel takes it up,
//! which is later than when it was asked for. Were the number closed in between, the kernel would
//! give it to the next file opened, and the operation would write there. So each operation holds a
//! clone of the handle, and the descriptor closes with the last of them.

use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::net::{AddressFamily, Shutdown, SocketFlags, SocketType, sockopt};

use super::errno::{Family, IoError};

/// A stream socket or a listener. Cheap to clone; may be moved to another thread and used with
/// that thread's ring, as long as no operation of the first ring uses it any more.
#[derive(Clone, Debug)]
pub struct Socket {
    shared: Arc<SocketShared>,
}

#[derive(Debug)]
struct SocketShared {
    fd: OwnedFd,
    /// Set by `Ring::close`: what is in flight is not continued.
    closing: AtomicBool,
}

/// Longest election timeout: who is silent for as long has been given up by everybody.
const SILENCE_MS: u32 = 3_000;

/// A dialled link that is silent is asked this often whether the other side is there: a lane
/// without traffic would not notice a machine that is gone.
const PEER_PROBE: Duration = Duration::from_secs(1);

/// The same for accepted connections, of which there are thousands.
const CALLER_PROBE: Duration = Duration::from_secs(10);

/// Connections a listener holds that have not been accepted.
const LISTEN_BACKLOG: i32 = 1024;

impl Socket {
    /// An unconnected TCP socket fit for `address`, for `Ring::connect`.
    ///
    /// # Errors
    /// `NoDescriptors`, `NoMemory`, or `Other` where the address family is not there.
    pub fn stream(address: SocketAddr) -> Result<Self, IoError> {
        let fd = rustix::net::socket_with(
            family_of(address),
            SocketType::STREAM,
            SocketFlags::CLOEXEC,
            None,
        )
        .map_err(|errno| meaning(Family::Connect, errno))?;
        let socket = Self::adopt(fd);
        socket.tune()?;
        Ok(socket)
    }

    /// A TCP listener on `address`; port 0 lets the kernel choose.
    ///
    /// # Errors
    /// `AddressInUse`, `AddressUnknown`, `Denied` (a privileged port), `NoDescriptors`.
    pub fn listen(address: SocketAddr) -> Result<Self, IoError> {
        let listen = || {
            let fd = rustix::net::socket_with(
                family_of(address),
                SocketType::STREAM,
                SocketFlags::CLOEXEC,
                None,
            )?;
            // A restarted node must not wait for its last life's connections to expire.
            sockopt::set_socket_reuseaddr(&fd, true)?;
            rustix::net::bind(&fd, &address)?;
            rustix::net::listen(&fd, LISTEN_BACKLOG)?;
            Ok(Self::adopt(fd))
        };
        let listener = listen().map_err(|errno| meaning(Family::Accept, errno))?;
        listener.tune_listener()?;
        Ok(listener)
    }

    /// Makes a dialled socket fit for frames between nodes.
    ///
    /// Small frames leave at once: turns gather what belongs together, Nagle would only add his
    /// delay on top. And a connection is given up when the other side acknowledges nothing for
    /// `SILENCE_MS`: the kernel itself would try for minutes, with ever longer pauses, and find
    /// a healed network only at the end of one.
    ///
    /// # Errors
    /// `Reset` where the connection is over.
    pub fn tune(&self) -> Result<(), IoError> {
        self.tune_with(PEER_PROBE)
    }

    /// The same for a listener. Accepted connections inherit it, which saves five system calls for
    /// each.
    ///
    /// # Errors
    /// `Other` where it is not an internet socket.
    pub fn tune_listener(&self) -> Result<(), IoError> {
        self.tune_with(CALLER_PROBE)
    }

    fn tune_with(&self, probe: Duration) -> Result<(), IoError> {
        let fd = &self.shared.fd;
        sockopt::set_tcp_nodelay(fd, true)
            .and_then(|()| sockopt::set_tcp_user_timeout(fd, SILENCE_MS))
            .and_then(|()| sockopt::set_tcp_keepidle(fd, probe))
            .and_then(|()| sockopt::set_tcp_keepintvl(fd, PEER_PROBE))
            .and_then(|()| sockopt::set_socket_keepalive(fd, true))
            .map_err(|errno| meaning(Family::Connect, errno))
    }

    /// The address this side is bound to.
    ///
    /// # Errors
    /// `Other` where the socket is not an internet socket.
    pub fn local_address(&self) -> Result<SocketAddr, IoError> {
        rustix::net::getsockname(&self.shared.fd)
            .and_then(SocketAddr::try_from)
            .map_err(|errno| meaning(Family::Accept, errno))
    }

    /// The address of the other side.
    ///
    /// # Errors
    /// `Reset` where there is no other side (any more).
    pub fn peer_address(&self) -> Result<SocketAddr, IoError> {
        let address = rustix::net::getpeername(&self.shared.fd)
            .map_err(|errno| meaning(Family::Connect, errno))?
            .ok_or(IoError::Reset)?;
        SocketAddr::try_from(address).map_err(|errno| meaning(Family::Connect, errno))
    }

    /// Says "no more from this side" once all sent bytes have gone out; receiving goes on.
    ///
    /// A plain system call: io_uring always hands a shutdown to a worker thread, at ten times
    /// the cost of the call itself.
    ///
    /// # Errors
    /// `Reset` where the connection is already over.
    pub fn finish(&self) -> Result<(), IoError> {
        rustix::net::shutdown(&self.shared.fd, Shutdown::Write)
            .map_err(|errno| meaning(Family::Send, errno))
    }

    /// Marks the socket as closing and wakes whatever waits on it.
    pub(super) fn close(&self) {
        self.shared.closing.store(true, Ordering::Relaxed);
        // An error means that it was not connected, or is not any more: then nothing waits.
        let _ = rustix::net::shutdown(&self.shared.fd, Shutdown::Both);
    }

    pub(super) fn is_closing(&self) -> bool {
        self.shared.closing.load(Ordering::Relaxed)
    }

    pub(super) fn raw(&self) -> RawFd {
        self.shared.fd.as_raw_fd()
    }

    pub(super) fn adopt(fd: OwnedFd) -> Self {
        Self {
            shared: Arc::new(SocketShared {
                fd,
                closing: AtomicBool::new(false),
            }),
        }
    }
}

impl From<OwnedFd> for Socket {
    /// Takes over a stream socket. It is made blocking: io_uring waits by itself, and would
    /// answer EAGAIN for a socket that asks not to wait.
    fn from(fd: OwnedFd) -> Self {
        rustix::io::ioctl_fionbio(&fd, false).expect("a socket can be made blocking");
        Self::adopt(fd)
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.shared.fd.as_fd()
    }
}

/// An open file. Cheap to clone; usable with any ring, and by plain system calls.
#[derive(Clone, Debug)]
pub struct File {
    shared: Arc<FileShared>,
}

#[derive(Debug)]
struct FileShared {
    fd: OwnedFd,
    direct: bool,
}

impl File {
    /// Whether it was opened for direct I/O: then positions, sizes and memory must be multiples
    /// of `SECTOR_SIZE`.
    #[must_use]
    pub fn is_direct(&self) -> bool {
        self.shared.direct
    }

    /// Whether anybody else, an operation in flight perhaps, has this very open file.
    #[must_use]
    pub fn is_shared(&self) -> bool {
        Arc::strong_count(&self.shared) > 1
    }

    pub(super) fn raw(&self) -> RawFd {
        self.shared.fd.as_raw_fd()
    }
}

impl From<OwnedFd> for File {
    fn from(fd: OwnedFd) -> Self {
        let direct = rustix::fs::fcntl_getfl(&fd).is_ok_and(|flags| flags.contains(OFlags::DIRECT));
        Self {
            shared: Arc::new(FileShared { fd, direct }),
        }
    }
}

impl AsFd for File {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.shared.fd.as_fd()
    }
}

fn meaning(family: Family, errno: Errno) -> IoError {
    IoError::of(family, errno.raw_os_error())
}

fn family_of(address: SocketAddr) -> AddressFamily {
    match address {
        SocketAddr::V4(_) => AddressFamily::INET,
        SocketAddr::V6(_) => AddressFamily::INET6,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_accepted_socket_is_as_its_listener() {
        let listener = Socket::listen(([127, 0, 0, 1], 0).into()).expect("a port");
        let address = listener.local_address().expect("bound");
        let caller = std::net::TcpStream::connect(address).expect("it listens");
        let accepted = rustix::net::accept(&listener).expect("somebody called");
        assert_eq!(sockopt::tcp_nodelay(&accepted), Ok(true));
        assert_eq!(sockopt::tcp_user_timeout(&accepted), Ok(SILENCE_MS));
        assert_eq!(sockopt::socket_keepalive(&accepted), Ok(true));
        assert_eq!(sockopt::tcp_keepidle(&accepted), Ok(CALLER_PROBE));
        drop(caller);
    }
}
