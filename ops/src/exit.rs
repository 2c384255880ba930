//! How the process ends: one code per kind of end, and the failure that leads to it.
//!
//! Knows no command. A command returns `Result<Exit, Failure>`; `main` alone turns either into an
//! exit code and two lines on stderr.

use std::fmt;
use std::process::ExitCode;

/// The exit codes, a promise to scripts: a number never changes its meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Exit {
    /// What was asked for is done, and was seen to be done.
    Ok = 0,
    /// A fault of this program or of the machine it runs on: a bug, a full disk under stdout.
    Internal = 1,
    /// The command line makes no sense; nothing was tried.
    Usage = 2,
    /// No endpoint answered in time; nothing was changed.
    Unreachable = 3,
    /// Not well: the cluster (a node down, a log without a leader, an alarm), or what is on a disk.
    Unhealthy = 4,
    /// The cluster or the machine understood and said no; what was refused was not done.
    Refused = 5,
    /// It may or may not have been done, or goes on without us; only looking tells.
    Unknown = 6,
    /// The cluster answered but has no leader to do it; nothing was changed.
    NoLeader = 7,
    /// Who asks is not known, or is not allowed to.
    #[expect(
        dead_code,
        reason = "reserved: no verb asks for credentials yet, the number is taken"
    )]
    Auth = 8,
    /// Ended by Ctrl-C before the work was done.
    Interrupted = 130,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// The codes as `ringwood --help` prints them.
pub(crate) const EXIT_CODES_HELP: &str = "\
Exit codes:
    0  done
    1  internal error
    2  bad command line
    3  no node could be reached
    4  not healthy: the cluster, or what is on a disk
    5  refused; nothing was done
    6  outcome unknown, or still running
    7  no leader
    8  not allowed
  130  interrupted";

/// Why a command did not do what it was asked: how to exit, what happened, what helps.
#[derive(Debug)]
pub(crate) struct Failure {
    exit: Exit,
    cause: String,
    fix: Option<String>,
}

impl Failure {
    /// A failure with its cause, one line without a full stop.
    pub(crate) fn new(exit: Exit, cause: impl fmt::Display) -> Self {
        assert_ne!(exit, Exit::Ok, "a failure must not look like success");
        Self {
            exit,
            cause: cause.to_string(),
            fix: None,
        }
    }

    /// The same failure with what the user can do about it, one line.
    #[must_use]
    pub(crate) fn fix(mut self, fix: impl fmt::Display) -> Self {
        self.fix = Some(fix.to_string());
        self
    }

    /// The code to exit with.
    pub(crate) fn exit(&self) -> Exit {
        self.exit
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error: {}", self.cause)?;
        match &self.fix {
            Some(fix) => write!(f, "\n  fix: {fix}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_a_cause_and_a_fix_on_a_line_each() {
        let bare = Failure::new(Exit::Internal, "the sky fell");
        assert_eq!(bare.to_string(), "error: the sky fell");
        let full = bare.fix("look up");
        assert_eq!(full.to_string(), "error: the sky fell\n  fix: look up");
        assert_eq!(full.exit(), Exit::Internal);
    }

    #[test]
    fn every_code_is_in_the_help() {
        for code in [0, 1, 2, 3, 4, 5, 6, 7, 8, 130] {
            let line = format!("{code:>5}  ");
            assert!(
                EXIT_CODES_HELP.lines().any(|l| l.starts_with(&line)),
                "{code} is missing"
            );
        }
    }
}
