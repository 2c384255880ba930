//! What of io_uring this kernel gives us, which of it is used, and why the rest is not.
//!
//! Sets a ring up with the best flags the kernel takes, and says in one line what to do where it
//! takes none. Knows no operation.

use std::fmt;
use std::io;

use io_uring::{IoUring, opcode};

/// Something that makes the ring cheaper and that it can do without.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lever {
    /// An error in one submission does not stop the batch. Linux 5.18.
    SubmitAll,
    /// Completions do not interrupt the thread. Linux 5.19; `DeferTaskrun` makes it needless.
    CoopTaskrun,
    /// One thread submits: the kernel skips locking. Linux 6.0.
    SingleIssuer,
    /// Completions are worked off when the thread waits, in one batch. Linux 6.1.
    DeferTaskrun,
    /// No indirection between queue and entries. Linux 6.6.
    NoSqArray,
    /// The ring's descriptor is looked up once, not at each entry. Linux 5.18.
    RegisteredRing,
    /// Long-lived files are looked up once, not at each operation. Linux 5.19 (sparse table).
    RegisteredFiles,
    /// A shard that waits is idle, not waiting for I/O, in the eyes of the scheduler's statistics.
    /// Linux 6.15.
    NoIowait,
}

impl Lever {
    /// Every lever, the setup flags first and of those the newest first: the order in which they
    /// are given up.
    pub const ALL: [Self; 8] = [
        Self::NoSqArray,
        Self::DeferTaskrun,
        Self::SingleIssuer,
        Self::CoopTaskrun,
        Self::SubmitAll,
        Self::RegisteredRing,
        Self::RegisteredFiles,
        Self::NoIowait,
    ];
    /// How many of `ALL` are setup flags.
    const SETUP_COUNT: usize = 5;
}

/// Whether a lever is used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Use {
    /// It is.
    Used,
    /// It is not, because.
    Unused(String),
}

/// The outcome of probing; `Display` prints a line per lever.
#[derive(Clone, Debug)]
pub struct Probe {
    levers: Vec<(Lever, Use)>,
    /// Entries of the submission queue.
    pub submission_count: u32,
    /// Entries of the completion queue.
    pub completion_count: u32,
}

impl Probe {
    /// Whether `lever` is used.
    #[must_use]
    pub fn uses(&self, lever: Lever) -> bool {
        self.levers
            .iter()
            .any(|(at, state)| *at == lever && *state == Use::Used)
    }

    /// Every lever and its state.
    pub fn levers(&self) -> impl Iterator<Item = (Lever, &Use)> {
        self.levers.iter().map(|(lever, state)| (*lever, state))
    }

    pub(super) fn note(&mut self, lever: Lever, state: Use) {
        assert!(
            !self.levers.iter().any(|(at, _)| *at == lever),
            "{lever:?} noted twice"
        );
        self.levers.push((lever, state));
    }
}

impl fmt::Display for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "io_uring: {} submissions, {} completions",
            self.submission_count, self.completion_count
        )?;
        for (lever, state) in &self.levers {
            match state {
                Use::Used => writeln!(f, "  {lever:?}: used")?,
                Use::Unused(why) => writeln!(f, "  {lever:?}: not used: {why}")?,
            }
        }
        Ok(())
    }
}

/// Why there is no ring, or why it can no longer be used. Each says what to do about it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RingError {
    /// EPERM: the administrator, or a container's seccomp profile, forbids io_uring.
    #[error(
        "io_uring is forbidden here (kernel.io_uring_disabled = {}); fix: {}",
        sysctl.map_or("not readable".to_owned(), |value| value.to_string()),
        forbidden_fix(*sysctl)
    )]
    Forbidden {
        /// Value of the sysctl `kernel.io_uring_disabled`, where it can be read.
        sysctl: Option<u8>,
    },
    /// ENOSYS: a kernel without io_uring, or a sandbox that hides it.
    #[error(
        "this kernel has no io_uring, or a sandbox (seccomp, gVisor) hides it; fix: run on Linux \
         6.1 or later, in a container with a seccomp profile that allows io_uring_setup, \
         io_uring_enter and io_uring_register"
    )]
    Missing,
    /// The kernel lacks an operation there is no doing without.
    #[error("this kernel's io_uring lacks {what}; fix: run on Linux 6.1 or later")]
    TooOld {
        /// What is lacking.
        what: &'static str,
    },
    /// ENOMEM: the queues or the buffer ring cannot be locked in memory.
    #[error(
        "no memory may be locked for io_uring while {call}; fix: raise RLIMIT_MEMLOCK (ulimit -l, \
         LimitMEMLOCK=), or lower the number of shards"
    )]
    Memory {
        /// What was being done.
        call: &'static str,
    },
    /// EMFILE, ENFILE.
    #[error("no file descriptor is left for io_uring; fix: raise ulimit -n (LimitNOFILE=)")]
    Descriptors,
    /// The kernel dropped completions: what is in flight is unknown, so nothing may go on.
    #[error("the kernel lost completions for want of memory; the node must restart")]
    Lost,
    /// Anything else.
    #[error("io_uring: {call}: {}", io::Error::from_raw_os_error(*errno))]
    Other {
        /// What was being done.
        call: &'static str,
        /// The kernel's word.
        errno: i32,
    },
}

fn forbidden_fix(sysctl: Option<u8>) -> &'static str {
    match sysctl {
        Some(2) => "sysctl kernel.io_uring_disabled=0",
        Some(1) => {
            "sysctl kernel.io_uring_disabled=0, or add the user to the group of \
             kernel.io_uring_group"
        }
        _ => {
            "allow io_uring_setup, io_uring_enter and io_uring_register in the seccomp profile \
             (docker: --security-opt seccomp=...)"
        }
    }
}

impl RingError {
    pub(super) fn of(call: &'static str, error: &io::Error) -> Self {
        let errno = error.raw_os_error().unwrap_or(libc::EIO);
        match errno {
            libc::EPERM | libc::EACCES => Self::Forbidden {
                sysctl: read_sysctl(),
            },
            libc::ENOSYS => Self::Missing,
            libc::ENOMEM => Self::Memory { call },
            libc::EMFILE | libc::ENFILE => Self::Descriptors,
            libc::EBADR => Self::Lost,
            errno => Self::Other { call, errno },
        }
    }
}

fn read_sysctl() -> Option<u8> {
    std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled")
        .ok()?
        .trim()
        .parse()
        .ok()
}

/// Size of a ring, and what it shall do without.
#[derive(Clone, Debug)]
pub struct RingSetup {
    /// Entries of the submission queue; a power of two.
    pub submission_count: u32,
    /// Entries of the completion queue; a power of two, at least as many.
    pub completion_count: u32,
    /// Levers left alone, to measure what they are worth.
    pub without: Vec<Lever>,
}

/// Sets up a ring with every lever the kernel takes, checks that it has all it must have.
pub(super) fn set_up(setup: &RingSetup) -> Result<(IoUring, Probe), RingError> {
    assert!(setup.submission_count.is_power_of_two() && setup.completion_count.is_power_of_two());
    assert!(setup.completion_count >= setup.submission_count);
    let mut probe = Probe {
        levers: Vec::new(),
        submission_count: 0,
        completion_count: 0,
    };
    let mut flags = Lever::ALL[..Lever::SETUP_COUNT].to_vec();
    flags.retain(|lever| {
        let keep = !setup.without.contains(lever);
        if !keep {
            probe.note(*lever, Use::Unused("switched off".into()));
        }
        keep
    });
    let uring = loop {
        if !flags.contains(&Lever::SingleIssuer) && flags.contains(&Lever::DeferTaskrun) {
            flags.retain(|lever| *lever != Lever::DeferTaskrun);
            probe.note(
                Lever::DeferTaskrun,
                Use::Unused("it needs SingleIssuer".into()),
            );
        }
        match build(setup, &flags) {
            Ok(uring) => break uring,
            // The newest flag is the likeliest not to be known; then the next.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) && !flags.is_empty() => {
                probe.note(
                    flags.remove(0),
                    Use::Unused("the kernel does not know it".into()),
                );
            }
            Err(error) => return Err(RingError::of("setting up the queues", &error)),
        }
    };
    for lever in &flags {
        let needless = *lever == Lever::CoopTaskrun && flags.contains(&Lever::DeferTaskrun);
        let state = match needless {
            true => Use::Unused("DeferTaskrun does more".into()),
            false => Use::Used,
        };
        probe.note(*lever, state);
    }
    probe.submission_count = uring.params().sq_entries();
    probe.completion_count = uring.params().cq_entries();
    check_needs(&uring)?;
    Ok((uring, probe))
}

fn build(setup: &RingSetup, flags: &[Lever]) -> io::Result<IoUring> {
    let has = |lever| flags.contains(&lever);
    let mut builder = IoUring::builder();
    builder.dontfork().setup_cqsize(setup.completion_count);
    if has(Lever::NoSqArray) {
        builder.setup_no_sqarray();
    }
    if has(Lever::SingleIssuer) {
        builder.setup_single_issuer();
    }
    if has(Lever::SubmitAll) {
        builder.setup_submit_all();
    }
    if has(Lever::DeferTaskrun) {
        builder.setup_defer_taskrun();
    } else if has(Lever::CoopTaskrun) {
        builder.setup_coop_taskrun();
    }
    if has(Lever::DeferTaskrun) || has(Lever::CoopTaskrun) {
        // Pending completions show in memory, so that spinning needs no system call to see them.
        builder.setup_taskrun_flag();
    }
    builder.build(setup.submission_count)
}

/// The operations and features there is no doing without.
fn check_needs(uring: &IoUring) -> Result<(), RingError> {
    let mut known = io_uring::Probe::new();
    uring
        .submitter()
        .register_probe(&mut known)
        .map_err(|error| RingError::of("asking for its operations", &error))?;
    let operations = [
        (opcode::AcceptMulti::CODE, "accept"),
        (opcode::Connect::CODE, "connect"),
        (opcode::RecvMulti::CODE, "recv"),
        (opcode::Send::CODE, "send"),
        (opcode::SendMsg::CODE, "sendmsg"),
        (opcode::Read::CODE, "read"),
        (opcode::Write::CODE, "write"),
        (opcode::Writev::CODE, "writev"),
        (opcode::Fsync::CODE, "fsync"),
        (opcode::PollAdd::CODE, "poll"),
        (opcode::AsyncCancel2::CODE, "cancel"),
        // Multishot receive has no number of its own; it came with this one, in 6.0.
        (opcode::SendZc::CODE, "multishot receive (Linux 6.0)"),
    ];
    let params = uring.params();
    let features = [
        (
            params.is_feature_nodrop(),
            "completions that are never dropped (NODROP)",
        ),
        (
            params.is_feature_submit_stable(),
            "stable submissions (SUBMIT_STABLE)",
        ),
        (
            params.is_feature_fast_poll(),
            "polling of sockets (FAST_POLL)",
        ),
        (params.is_feature_ext_arg(), "a timeout on waits (EXT_ARG)"),
    ];
    let operations = operations
        .into_iter()
        .map(|(code, what)| (known.is_supported(code), what));
    match operations.chain(features).find(|(has, _)| !has) {
        Some((_, what)) => Err(RingError::TooOld { what }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_refusal_names_its_fix() {
        let errors = [
            RingError::Forbidden { sysctl: Some(2) },
            RingError::Forbidden { sysctl: Some(1) },
            RingError::Forbidden { sysctl: None },
            RingError::Missing,
            RingError::TooOld { what: "fsync" },
            RingError::Memory {
                call: "registering buffers",
            },
            RingError::Descriptors,
        ];
        for error in errors {
            let text = error.to_string();
            assert!(text.contains("; fix: "), "{text}");
            assert!(!text.contains('\n'), "{text}");
        }
    }

    #[test]
    fn errnos_are_told_apart() {
        let of = |errno| RingError::of("setup", &io::Error::from_raw_os_error(errno));
        assert!(matches!(of(libc::EPERM), RingError::Forbidden { .. }));
        assert_eq!(of(libc::ENOSYS), RingError::Missing);
        assert_eq!(of(libc::ENOMEM), RingError::Memory { call: "setup" });
        assert_eq!(of(libc::EMFILE), RingError::Descriptors);
        assert_eq!(of(libc::EBADR), RingError::Lost);
        assert_eq!(
            of(libc::EINVAL),
            RingError::Other {
                call: "setup",
                errno: libc::EINVAL
            }
        );
    }
}
