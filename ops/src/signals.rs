//! Ctrl-C and SIGTERM: the ways a person or a supervisor says "enough".
//!
//! Knows nothing of what is being stopped. Two kinds of command: those that hold nothing worth
//! saving end at once, those that do get asked first and are ended by a second Ctrl-C.

use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use signal_hook::consts::SIGINT;
use signal_hook::flag;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::exit::{Exit, Failure};

/// From now on Ctrl-C ends the process with 130. Done in the handler itself, because the thread
/// may be stuck in a write to a pipe whose reader has stopped reading.
pub(crate) fn end_at_once() -> Result<(), Failure> {
    let armed = Arc::new(AtomicBool::new(true));
    flag::register_conditional_shutdown(SIGINT, Exit::Interrupted as i32, armed)
        .map(|_| ())
        .map_err(refused)
}

/// From now on a first Ctrl-C raises the flag, and a second one ends the process with 130.
pub(crate) fn raise_at_first() -> Result<Arc<AtomicBool>, Failure> {
    let flag = Arc::new(AtomicBool::new(false));
    // Actions run in the order in which they were registered: a first Ctrl-C finds the flag down and
    // raises it, a second finds it up.
    flag::register_conditional_shutdown(SIGINT, Exit::Interrupted as i32, Arc::clone(&flag))
        .and_then(|_| flag::register(SIGINT, Arc::clone(&flag)))
        .map(|_| flag)
        .map_err(refused)
}

/// Who asked us to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    /// Ctrl-C.
    Interrupt,
    /// SIGTERM, by a supervisor, a parent or `kill`.
    Terminate,
}

/// The wish that we stop, waited for beside the work.
#[derive(Debug)]
pub(crate) struct Stop {
    interrupt: Signal,
    terminate: Signal,
}

impl Stop {
    /// From now on the first Ctrl-C or SIGTERM is delivered by `asked`, and a second Ctrl-C ends
    /// the process with 130 however busy it is. Needs a runtime.
    pub(crate) fn listen() -> Result<Self, Failure> {
        raise_at_first()?;
        Ok(Self {
            interrupt: signal(SignalKind::interrupt()).map_err(refused)?,
            terminate: signal(SignalKind::terminate()).map_err(refused)?,
        })
    }

    /// Waits until somebody asks. May be dropped and called again: no wish is lost.
    pub(crate) async fn asked(&mut self) -> Asked {
        tokio::select! {
            _ = self.interrupt.recv() => Asked::Interrupt,
            _ = self.terminate.recv() => Asked::Terminate,
        }
    }
}

fn refused(error: io::Error) -> Failure {
    Failure::new(
        Exit::Internal,
        format!("cannot listen for signals: {error}"),
    )
}
