//! `status`: how the cluster is, on one screen.
//!
//! Asks every node there is and shows what they say, put together by `survey`. Answers when there
//! is no leader and when nodes are down: that is when it is needed.

use std::time::Duration;

use crate::connect;
use crate::exit::{Exit, Failure};
use crate::flags::Global;
use crate::output::{self, Output, Wide};
use crate::signals;
use crate::survey::{Log, Node, Replica, Survey};
use crate::units::{show_duration, show_size};

/// Show nodes and logs: who leads, who lags, and what is wrong
///
/// The first line is the verdict, and so is the exit code: 0 healthy, 4 not healthy (a node down, a
/// log without a leader, a replica that does not follow, an alarm), 7 no log has a leader, 3
/// nothing reachable.
///
/// A log's line has its leader, term, commit index and end offset, then each replica's state, the
/// index through which its disk has the log, and the bytes it is behind. Logs that stand next to
/// each other and do not differ share a line; JSON has all of them.
#[derive(Debug, clap::Args)]
#[command(
    verbatim_doc_comment,
    after_help = "\
Examples:
  ringwood status
  ringwood status --endpoints 10.0.0.1:7401
  ringwood status -o json | jq -r '.logs[] | [.name, .leader] | @tsv'
  until ringwood status >/dev/null; do sleep 1; done"
)]
pub(crate) struct Args {}

/// Asks, prints, judges.
pub(crate) async fn run(Args {}: Args, global: &Global) -> Result<Exit, Failure> {
    signals::end_at_once()?;
    let client = connect::open(global).await?;
    let survey = connect::survey(&client).await;
    // A reader that has left changes nothing about the cluster's health.
    let _ = match global.output {
        Output::Json => output::print_json(&survey)?,
        Output::Table => output::print(&page(&survey))?,
    };
    Ok(survey.exit())
}

/// The whole screen.
fn page(survey: &Survey) -> String {
    let mut page = format!(
        "{}: {} of {} nodes reachable, {} of {} logs led, cluster {}\n",
        if survey.healthy {
            "healthy"
        } else {
            "unhealthy"
        },
        survey.reachable_count(),
        survey.nodes.len(),
        survey.led_count(),
        survey.logs.len(),
        survey.cluster.name,
    );
    page.extend(survey.reasons.iter().map(|reason| format!("  {reason}\n")));
    page.push('\n');
    page.push_str(&node_table(survey));
    page.extend(survey.nodes.iter().filter_map(scrub_line));
    if !survey.logs.is_empty() {
        page.push('\n');
        page.push_str(&log_table(survey));
    }
    page
}

fn node_table(survey: &Survey) -> String {
    let mut table = output::table(&[
        "NODE", "ADDRESS", "STATE", "LEADS", "TIMEOUT", "RTT", "VERSION",
    ]);
    for node in &survey.nodes {
        let leads = survey
            .logs
            .iter()
            .filter(|log| log.leader.as_ref() == Some(&node.name));
        let state = if node.reachable { "up" } else { "unreachable" };
        table.add_row([
            node.name.clone(),
            node.address.clone(),
            state.to_string(),
            leads.count().to_string(),
            timeout_cell(node),
            rtt_cell(node),
            or_dash(node.version.clone()),
        ]);
    }
    output::table_text(&mut table)
}

fn timeout_cell(node: &Node) -> String {
    let timeout = node
        .timeout_us
        .map(|us| show_duration(Duration::from_micros(us)));
    match (timeout, node.timeout_reason) {
        (Some(timeout), Some(reason)) => format!("{timeout} by {reason}"),
        _ => "-".to_string(),
    }
}

fn rtt_cell(node: &Node) -> String {
    let rtt = |(peer, us): (&String, &u64)| {
        format!("{peer} {}", show_duration(Duration::from_micros(*us)))
    };
    let rtts: Vec<_> = node.rtt_us.iter().map(rtt).collect();
    if rtts.is_empty() {
        "-".to_string()
    } else {
        rtts.join(", ")
    }
}

/// Of a node that looks at its disk now, or has found something there.
fn scrub_line(node: &Node) -> Option<String> {
    let scrub = node.scrub.as_ref()?;
    let is_told = scrub.done_bytes < scrub.total_bytes || scrub.damage_found > 0;
    is_told.then(|| format!("{} scrub: {}\n", node.name, scrub_cell(node)))
}

/// How far, and what was found on the way.
pub(super) fn scrub_cell(node: &Node) -> String {
    let Some(scrub) = &node.scrub else {
        return "-".to_string();
    };
    let (done, total) = (show_size(scrub.done_bytes), show_size(scrub.total_bytes));
    let mut cell = format!("{done} of {total}, {} times whole", scrub.passes);
    if scrub.damage_found > 0 {
        let (found, healed) = (scrub.damage_found, scrub.damage_healed);
        cell.push_str(&format!(", {found} damaged, {healed} healed"));
    }
    cell
}

fn log_table(survey: &Survey) -> String {
    let mut heading = vec!["LOG", "LEADER", "TERM", "COMMIT", "END"];
    heading.extend(survey.nodes.iter().map(|node| node.name.as_str()));
    let mut table = output::table(&heading);
    for alike in survey
        .logs
        .chunk_by(|one, next| log_cells(one) == log_cells(next))
    {
        let name = match alike {
            [only] => only.name.clone(),
            [first, .., last] => format!("{}..{} ({})", first.name, last.name, alike.len()),
            [] => unreachable!("chunk_by gives no empty chunk"),
        };
        let mut row = vec![name];
        row.extend(log_cells(&alike[0]));
        table.add_row(row);
    }
    output::table_text(&mut table)
}

/// All cells of a log's line but its name.
fn log_cells(log: &Log) -> Vec<String> {
    let mut cells = vec![
        or_dash(log.leader.clone()),
        number_or_dash(log.term),
        number_or_dash(log.commit),
        number_or_dash(log.end_offset),
    ];
    cells.extend(log.replicas.iter().map(replica_cell));
    cells
}

fn replica_cell(replica: &Replica) -> String {
    let mut cell = replica.state.to_string();
    if let Some(Wide(durable)) = replica.durable {
        cell.push_str(&format!(" {durable}"));
    }
    match replica.lag_bytes {
        Some(Wide(lag)) if lag > 0 => cell.push_str(&format!(" -{}", show_size(lag))),
        _ => {}
    }
    cell
}

fn number_or_dash(number: Option<Wide>) -> String {
    or_dash(number.map(|Wide(number)| number.to_string()))
}

fn or_dash(text: Option<String>) -> String {
    text.unwrap_or_else(|| "-".to_string())
}
