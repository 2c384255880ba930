//! `load`: a plan carried out on a cluster, from the first connection to the report.
//!
//! The one thread of generator and client is made here, so that its CPU time is theirs alone.
//! Knows no command line.

use std::io;
use std::thread;

use ringwood_net::client::{Client, ConnectError};
use tokio::runtime::Builder;

use crate::environment::Environment;
use crate::report::Report;
use crate::target::ClusterTarget;
use crate::workload::{Measured, Plan, run};

/// Tasks that run before the runtime looks at its sockets: few, since there are only two, and a
/// generator that catches up is always ready to run.
const EVENT_INTERVAL: u32 = 4;

/// A cluster, and what to do to it.
#[derive(Clone, Debug)]
pub struct Load {
    /// Addresses of some nodes, `host:port`.
    pub endpoints: Vec<String>,
    /// Names of the logs, as many as the plan loads.
    pub logs: Vec<String>,
    /// What is offered, and how.
    pub plan: Plan,
    /// How the run was asked for, for the report.
    pub command: String,
}

/// Why there is no report. Appends may have been made where `Io` is the reason.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// No endpoint was reached.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The cluster has no log of that name.
    #[error("the cluster has no log {log:?}; it has {}", known.join(", "))]
    UnknownLog {
        /// The name asked for.
        log: String,
        /// The names there are.
        known: Vec<String>,
    },
    /// The generator could not have its thread, its runtime or its timer.
    #[error("the generator: {0}")]
    Io(#[from] io::Error),
}

/// Loads the cluster and reports. Blocks for warm-up, duration and drain.
///
/// # Errors
/// `LoadError`. Appends that fail are no error: the report counts them.
pub fn load(load: &Load) -> Result<Report, LoadError> {
    assert_eq!(load.logs.len(), load.plan.log_count, "a name for each log");
    // Before the run, which would be seen in the load average.
    let environment = Environment::look();
    let measured = thread::scope(|scope| {
        let builder = thread::Builder::new().name("generator".into());
        let generator = builder.spawn_scoped(scope, || generate(load))?;
        generator.join().expect("the generator does not panic")
    })?;
    let command = load.command.clone();
    Ok(Report::new(
        &load.plan,
        &load.logs,
        &measured,
        command,
        environment,
    ))
}

fn generate(load: &Load) -> Result<Measured, LoadError> {
    let runtime = Builder::new_current_thread()
        .enable_all()
        .event_interval(EVENT_INTERVAL)
        .build()?;
    runtime.block_on(async {
        let endpoints = load.endpoints.iter().cloned();
        let client = Client::builder().endpoints(endpoints).connect().await?;
        let known = client.cluster().logs;
        for log in &load.logs {
            if !known.iter().any(|known| known.name == *log) {
                return Err(LoadError::UnknownLog {
                    log: log.clone(),
                    known: known.into_iter().map(|known| known.name).collect(),
                });
            }
        }
        let target = ClusterTarget::new(client, load.logs.clone());
        Ok(run(&target, &load.plan).await?)
    })
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::time::Duration;

    use ringwood_net::ring::SpinMode;

    use super::*;
    use crate::workload::{DRAIN, Mode};

    #[test]
    fn a_cluster_that_is_not_there_is_an_error_and_no_report() {
        // A port that was free a moment ago: nobody listens there.
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        drop(listener);
        let nowhere = Load {
            endpoints: vec![address],
            logs: vec!["log-0".into()],
            plan: Plan {
                mode: Mode::Closed { concurrency: 1 },
                payload_size: 1,
                warmup: Duration::ZERO,
                duration: Duration::from_millis(1),
                drain: DRAIN,
                log_count: 1,
                spin: SpinMode::Never,
            },
            command: "ringwood bench".into(),
        };
        assert!(matches!(load(&nowhere), Err(LoadError::Connect(_))));
    }
}
