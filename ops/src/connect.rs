//! The way to a cluster, and what to say when it is closed.
//!
//! Opens the client that all verbs but `dev`, `init` and `serve` work through, and turns its
//! errors into exit codes, causes and fixes.

use std::time::Duration;

use ringwood_net::client::{Client, ConnectError, FetchError, NodeReport};

use crate::exit::{Exit, Failure};
use crate::flags::Global;
use crate::survey::{Answer, Cluster, Survey};

/// A client of the cluster at `--endpoints`, once one of its nodes has answered.
pub(crate) async fn open(global: &Global) -> Result<Client, Failure> {
    let builder = Client::builder()
        .endpoints(global.endpoints.iter().cloned())
        .append_timeout(global.append_timeout())
        .request_timeout(global.timeout());
    builder.connect().await.map_err(connect_failure)
}

/// A client of nodes that we have started ourselves, if one answers soon.
pub(crate) async fn open_at(endpoints: &[String]) -> Result<Client, ConnectError> {
    let builder = Client::builder().endpoints(endpoints);
    builder
        .request_timeout(Duration::from_secs(1))
        .connect()
        .await
}

fn connect_failure(error: ConnectError) -> Failure {
    match error {
        ConnectError::NoEndpoint | ConnectError::TooManyEndpoints { .. } => {
            Failure::new(Exit::Usage, error).fix("name a few nodes, they know the others")
        }
        error => Failure::new(Exit::Unreachable, error).fix(
            "start one ('ringwood dev'), or say where they are: --endpoints or RINGWOOD_ENDPOINTS",
        ),
    }
}

/// Refuses a log that the cluster does not have, before anything is sent.
pub(crate) fn require_log(client: &Client, log: &str) -> Result<(), Failure> {
    let cluster = client.cluster();
    if cluster.logs.iter().any(|known| known.name == log) {
        return Ok(());
    }
    let known: Vec<_> = cluster
        .logs
        .iter()
        .map(|known| known.name.as_str())
        .collect();
    let fix = match &known[..] {
        [] => "the cluster has no logs".to_string(),
        [only] => format!("use {only}"),
        [first, .., last] => format!("use one of the {} logs {first} .. {last}", known.len()),
    };
    Err(Failure::new(
        Exit::Refused,
        format!("cluster {} has no log {log}", cluster.name),
    )
    .fix(fix))
}

/// All nodes' accounts, put together.
pub(crate) async fn survey(client: &Client) -> Survey {
    put_together(client, client.status().await)
}

/// As `survey`, and every node is asked to read all that its disk keeps.
pub(crate) async fn scrub(client: &Client) -> Survey {
    put_together(client, client.scrub().await)
}

fn put_together(client: &Client, reports: Vec<NodeReport>) -> Survey {
    let cluster = client.cluster();
    // An endpoint that never said which node it is cannot be told from a wrong address: the
    // default endpoints name three, whatever the size of the cluster.
    let answers: Vec<Answer> = reports
        .into_iter()
        .filter_map(|report| {
            Some(Answer {
                id: report.node?.0,
                name: report.name,
                address: report.address,
                status: report
                    .result
                    .map(|status| *status)
                    .map_err(|fault| fault.to_string()),
            })
        })
        .collect();
    let logs: Vec<_> = cluster
        .logs
        .iter()
        .map(|log| (log.group.0, log.name.clone()))
        .collect();
    let cluster = Cluster {
        id: format!("{:032x}", cluster.id.0),
        name: cluster.name,
    };
    Survey::new(cluster, &logs, &answers)
}

/// Whether any node answers now.
pub(crate) async fn is_any_reachable(client: &Client) -> bool {
    client
        .status()
        .await
        .iter()
        .any(|report| report.result.is_ok())
}

/// Why a question about `log` has no answer.
pub(crate) fn fetch_failure(log: &str, from: u64, error: FetchError) -> Failure {
    let failure = |exit| Failure::new(exit, format!("{log}: {error}"));
    match error {
        FetchError::BeyondEnd { end_offset } => beyond_end(log, from, end_offset),
        FetchError::Trimmed { first_offset } => {
            failure(Exit::Refused).fix(format!("--from {first_offset}"))
        }
        FetchError::NoLeader => failure(Exit::NoLeader)
            .fix("'ringwood status' shows which nodes are missing for a majority"),
        FetchError::Unreachable => {
            failure(Exit::Unreachable).fix("start the nodes that are down, or see --endpoints")
        }
        FetchError::TimedOut => failure(Exit::Unreachable)
            .fix("a longer --timeout; 'ringwood status' shows how the nodes are"),
        FetchError::UnknownLog => failure(Exit::Refused).fix("'ringwood status' lists the logs"),
        FetchError::Damaged => failure(Exit::Refused)
            .fix("'ringwood status' names the blocks, and what each node says of them"),
        // Nothing that anybody at a command line has done, or can mend there.
        error => Failure::new(Exit::Internal, format!("{log}: {error}")),
    }
}

/// Why a log was not trimmed.
pub(crate) fn trim_failure(log: &str, before: u64, error: FetchError) -> Failure {
    match error {
        FetchError::BeyondEnd { end_offset } => Failure::new(
            Exit::Refused,
            format!("offset {before} is past the end of {log}, {end_offset}"),
        )
        .fix(format!("--before {end_offset} lets all of it go")),
        error => fetch_failure(log, before, error),
    }
}

/// Somebody wants records from where there is not even a place for them yet.
pub(crate) fn beyond_end(log: &str, from: u64, end: u64) -> Failure {
    Failure::new(
        Exit::Refused,
        format!("offset {from} is past the end of {log}, {end}"),
    )
    .fix(format!(
        "--from {end} or less; 'ringwood tail {log}' waits for records to come"
    ))
}
