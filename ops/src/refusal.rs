//! Why a node does not start, for whoever typed the command: a cause and a fix, a line each.
//!
//! `ringwood-net` says what is wrong in one sentence for every embedder; what helps at this command
//! line, with its flags, is known only here.

use std::fmt::Display;
use std::io::ErrorKind;

use ringwood_core::limits::{JOURNAL_FILE_COUNT, JOURNAL_FILE_SIZE};
use ringwood_net::StartError;
use ringwood_net::config::ConfigError;
use ringwood_net::disk::DiskError;
use ringwood_net::ring::{IoError, RingError};

use crate::exit::{Exit, Failure};
use crate::units::show_size;

/// Why a node does not start. Its log was not changed.
pub(crate) fn of_start(error: StartError) -> Failure {
    match &error {
        StartError::Config(error) => of_config(error),
        StartError::Disk(error) => of_disk(error),
        StartError::Ring(error) => of_ring(error),
        StartError::Recovery(_) => refused(error)
            .fix("keep the directory as it is; the other nodes have what was acknowledged"),
        StartError::PortInUse { .. } => {
            refused(&error).fix("another port, or end the process that listens there")
        }
        StartError::Listen { error: io, .. } => match io {
            IoError::AddressUnknown => refused(&error).fix("an address of this machine"),
            IoError::Denied => refused(&error).fix("a port above 1023"),
            _ => refused(&error),
        },
        StartError::Resolve { .. } => refused(&error).fix("--voters with the address it has now"),
        StartError::WrongNode { .. } => {
            refused(&error).fix("the directory of the node that is meant")
        }
        StartError::UnknownVoter { .. } | StartError::UnknownLog { .. } => refused(&error),
        StartError::Thread(_) => refused(&error).fix("raise the limit on processes (ulimit -u)"),
    }
}

/// Why there is no ring.
pub(crate) fn of_ring(error: &RingError) -> Failure {
    refused(error)
}

/// Why a directory is not a node's, or does not become one.
pub(crate) fn of_config(error: &ConfigError) -> Failure {
    match error {
        ConfigError::NotInitialised { path } => {
            let path = path.display();
            Failure::new(Exit::Refused, format!("{path} holds no node")).fix(format!(
                "make one first: 'ringwood init {path} ..', or 'ringwood dev'"
            ))
        }
        ConfigError::NotEmpty { .. } => refused(error).fix("a new directory, or an empty one"),
        ConfigError::Damaged { .. } => {
            refused(error).fix("undo the edit: only addresses may change, or give --voters instead")
        }
        ConfigError::Io { error: io, .. } => refused(error).fix(match io.kind() {
            ErrorKind::PermissionDenied => "its owner's account, or a directory of your own",
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => "free space there",
            _ => "another directory, one that can be written to",
        }),
        ConfigError::Name { .. }
        | ConfigError::Twice { .. }
        | ConfigError::NotVoter { .. }
        | ConfigError::Address { .. }
        | ConfigError::Count { .. } => refused(error),
    }
}

/// Why a disk does not do what a journal needs.
pub(crate) fn of_disk(error: &DiskError) -> Failure {
    match error {
        DiskError::Missing { .. } => refused(error)
            .fix("put back what was there; a node that lost its disk is not itself any more"),
        DiskError::Locked { .. } => {
            refused(error).fix("end that process first, or use another directory")
        }
        DiskError::Volatile { .. } | DiskError::NotDirect { .. } => refused(error)
            .fix("a directory on ext4 or xfs on a disk; to try things out, --buffered-io"),
        DiskError::Coarse { .. } => refused(error).fix("a directory on another disk"),
        DiskError::Size { .. } => refused(error).fix("put back what was there; sizes never change"),
        DiskError::Io { error: io, .. } => match io {
            IoError::DiskFull => {
                let journal = show_size(JOURNAL_FILE_SIZE * u64::from(JOURNAL_FILE_COUNT));
                refused(error).fix(format!(
                    "free space there; a new node needs {journal} and more"
                ))
            }
            IoError::Denied | IoError::ReadOnly => {
                refused(error).fix("a directory that can be written to")
            }
            _ => refused(error).fix("the kernel's log (dmesg) may tell more"),
        },
        DiskError::Ring(error) => of_ring(error),
    }
}

/// The error's sentence: what stands before its semicolon is the cause, what stands behind it is
/// the fix unless a better one is known.
fn refused(error: impl Display) -> Failure {
    let sentence = error.to_string();
    match sentence.split_once("; ") {
        Some((cause, fix)) => {
            Failure::new(Exit::Refused, cause).fix(fix.strip_prefix("fix: ").unwrap_or(fix))
        }
        None => Failure::new(Exit::Refused, sentence),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sentence_is_taken_apart_and_a_known_fix_replaces_its_own() {
        let plain = refused("io_uring is forbidden here; fix: set the sysctl; then retry");
        let expected = "error: io_uring is forbidden here\n  fix: set the sysctl; then retry";
        assert_eq!(plain.to_string(), expected);
        let address = "127.0.0.1:7401".parse().expect("an address");
        let known = of_start(StartError::PortInUse { address }).to_string();
        assert_eq!(
            known,
            "error: 127.0.0.1:7401 is in use by another process\n  \
             fix: another port, or end the process that listens there"
        );
    }
}
