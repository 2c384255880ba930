//! What an errno of a completion means, per kind of operation.
//!
//! The same number says different things of a socket, a file and a buffer pool; here it gets the
//! meaning the caller acts on. Knows no operation's state. Read with `docs/DATA_PATH.md`, "store"
//! and "bytes in".

use libc::c_int;

/// What an operation was doing, as far as its errors' meaning depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// Accepting connections.
    Accept,
    /// Connecting to a peer.
    Connect,
    /// Receiving into provided buffers.
    Receive,
    /// Sending.
    Send,
    /// Reading, writing or syncing a file.
    File,
}

/// Why an operation failed. State of the world after it: see each variant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IoError {
    /// The operation was cancelled by its owner. A send or write may have been done in part.
    #[error("cancelled")]
    Cancelled,
    /// No provided buffer was free. Nothing was lost: the bytes wait in the socket; receive again
    /// once leases have been dropped.
    #[error("no receive buffer is free; receive again when leases have been dropped")]
    NoBuffers,
    /// The disk, or the quota on it, is full. Nothing past what was there before is durable.
    #[error("no space left: the disk or its quota is full")]
    DiskFull,
    /// The device failed. What it holds of this operation is unknown: never retry as if nothing
    /// had happened.
    #[error("the device reports an input/output error")]
    Device,
    /// The file system turned, or was mounted, read-only; usually after an error of its own.
    #[error("the file system is read-only")]
    ReadOnly,
    /// The kernel refuses size, position or memory of a file operation: not aligned for direct
    /// I/O, or an operation the file system does not offer.
    #[error("the file system refuses the operation as invalid (alignment for direct I/O?)")]
    Invalid,
    /// A write or send moved no byte and gave no reason.
    #[error("no progress: the kernel took no byte and gave no reason")]
    Stuck,
    /// Nobody listens at that address.
    #[error("connection refused: nobody listens there")]
    Refused,
    /// The peer is gone, or this side has shut the stream down. What it received is unknown.
    #[error("connection lost: reset by the peer, or closed")]
    Reset,
    /// There is no way to that address at present.
    #[error("unreachable: no route, or the network or host is down")]
    Unreachable,
    /// The peer does not answer; the transport gave up.
    #[error("timed out: the peer does not answer")]
    TimedOut,
    /// The local address is taken, or no port is left to connect from.
    #[error("address in use, or no local port is left")]
    AddressInUse,
    /// The local address is not this machine's.
    #[error("address is not of this machine")]
    AddressUnknown,
    /// The process or the system has no file descriptor left. The connection stays in the
    /// listener's queue; accept again later.
    #[error("no file descriptor is left: raise the limit on open files (ulimit -n, LimitNOFILE)")]
    NoDescriptors,
    /// The kernel has no memory for it now.
    #[error("the kernel is out of memory for it")]
    NoMemory,
    /// Not permitted: a privileged port, a firewall rule, a missing right on the file.
    #[error("permission denied")]
    Denied,
    /// Anything else, by number.
    #[error("{}", std::io::Error::from_raw_os_error(*.0))]
    Other(c_int),
}

impl IoError {
    /// The meaning of `errno` (positive) for an operation of `family`.
    #[must_use]
    pub fn of(family: Family, errno: c_int) -> Self {
        assert!(errno > 0, "an errno is positive");
        match (family, errno) {
            (_, libc::ECANCELED | libc::EINTR) => Self::Cancelled,
            (Family::Receive, libc::ENOBUFS) => Self::NoBuffers,
            // A listener that was shut down.
            (Family::Accept, libc::EINVAL) => Self::Cancelled,
            (Family::File, libc::EINVAL | libc::EOPNOTSUPP) => Self::Invalid,
            // A loopback connect that finds no port, and the real thing.
            (Family::Connect, libc::EADDRNOTAVAIL) => Self::AddressInUse,
            (_, libc::ENOSPC | libc::EDQUOT) => Self::DiskFull,
            (_, libc::EIO | libc::EREMOTEIO | libc::EILSEQ) => Self::Device,
            (_, libc::EROFS) => Self::ReadOnly,
            (_, libc::ECONNREFUSED) => Self::Refused,
            (
                _,
                libc::ECONNRESET
                | libc::EPIPE
                | libc::ECONNABORTED
                | libc::ENOTCONN
                | libc::ESHUTDOWN,
            ) => Self::Reset,
            (
                _,
                libc::EHOSTUNREACH
                | libc::ENETUNREACH
                | libc::ENETDOWN
                | libc::EHOSTDOWN
                | libc::ENONET,
            ) => Self::Unreachable,
            (_, libc::ETIMEDOUT) => Self::TimedOut,
            (_, libc::EADDRINUSE) => Self::AddressInUse,
            (_, libc::EADDRNOTAVAIL) => Self::AddressUnknown,
            (_, libc::EMFILE | libc::ENFILE) => Self::NoDescriptors,
            (_, libc::ENOMEM | libc::ENOBUFS) => Self::NoMemory,
            (_, libc::EACCES | libc::EPERM) => Self::Denied,
            (_, other) => Self::Other(other),
        }
    }

    /// Whether the peer, or the way to it, is to blame: the connection is over, the node is well.
    #[must_use]
    pub fn is_peers(self) -> bool {
        matches!(
            self,
            Self::Refused | Self::Reset | Self::Unreachable | Self::TimedOut
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_means_what_its_family_says() {
        let table = [
            (Family::Receive, libc::ENOBUFS, IoError::NoBuffers),
            (Family::Send, libc::ENOBUFS, IoError::NoMemory),
            (Family::Accept, libc::EINVAL, IoError::Cancelled),
            (Family::File, libc::EINVAL, IoError::Invalid),
            (Family::Send, libc::EINVAL, IoError::Other(libc::EINVAL)),
            (Family::File, libc::EDQUOT, IoError::DiskFull),
            (Family::File, libc::EIO, IoError::Device),
            (Family::Connect, libc::ECONNREFUSED, IoError::Refused),
            (Family::Send, libc::EPIPE, IoError::Reset),
            (Family::Receive, libc::ECONNRESET, IoError::Reset),
            (Family::Accept, libc::EMFILE, IoError::NoDescriptors),
            (Family::Send, libc::ECANCELED, IoError::Cancelled),
        ];
        for (family, errno, meaning) in table {
            assert_eq!(IoError::of(family, errno), meaning, "{family:?} {errno}");
        }
    }

    #[test]
    fn every_error_says_something() {
        assert!(IoError::Other(libc::ELOOP).to_string().contains("os error"));
        assert!(IoError::DiskFull.to_string().contains("full"));
        assert!(IoError::Reset.is_peers() && !IoError::Device.is_peers());
    }
}
