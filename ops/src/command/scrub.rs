//! `scrub`: nodes read all that their disks keep, now, and mend what is damaged.
//!
//! Asks every node and shows how far they are, at once or when they are done. What is found is the
//! nodes' own business: they fetch it from each other. Knows no file.

use std::time::Duration;

use serde::Serialize;

use crate::connect;
use crate::exit::{Exit, Failure};
use crate::flags::Global;
use crate::output::{self, Output};
use crate::signals;
use crate::survey::{Node, Scrub, Survey};

use super::status::scrub_cell;

/// How often `--wait` asks.
const ASK_PAUSE: Duration = Duration::from_millis(100);

/// Have every node read all that its disk keeps, and mend what is damaged
///
/// Nodes do so by themselves once a day; this begins at once, at full speed. What is damaged is
/// fetched from other nodes. Exit code 4 if a node cannot be reached or has damage that is not
/// healed.
#[derive(Debug, clap::Args)]
#[command(
    verbatim_doc_comment,
    after_help = "\
Examples:
  ringwood scrub
  ringwood scrub --wait -o json | jq '.nodes[].damage_found'"
)]
pub(crate) struct Args {
    /// Return when all nodes that were reached are done
    #[arg(long)]
    wait: bool,
}

/// The document of `scrub -o json`. Fields are only ever added.
#[derive(Debug, Serialize)]
struct Report<'a> {
    schema: &'static str,
    nodes: Vec<NodeScrub<'a>>,
}

#[derive(Debug, Serialize)]
struct NodeScrub<'a> {
    name: &'a str,
    reachable: bool,
    #[serde(flatten)]
    scrub: Option<Scrub>,
}

/// Asks, waits if that is wanted, prints, judges.
pub(crate) async fn run(args: Args, global: &Global) -> Result<Exit, Failure> {
    signals::end_at_once()?;
    let client = connect::open(global).await?;
    let begun = connect::scrub(&client).await;
    let mut survey = connect::survey(&client).await;
    while args.wait && !is_done(&begun, &survey) {
        tokio::time::sleep(ASK_PAUSE).await;
        survey = connect::survey(&client).await;
    }
    // A reader that has left changes nothing about the disks.
    let _ = match global.output {
        Output::Json => output::print_json(&report(&survey))?,
        Output::Table => output::print(&page(&survey))?,
    };
    let is_well = |node: &Node| {
        let scrub = node.scrub.as_ref();
        scrub.is_some_and(|scrub| scrub.damage_found == scrub.damage_healed)
    };
    if survey.reachable_count() == 0 {
        return Ok(Exit::Unreachable);
    }
    Ok(if survey.nodes.iter().all(is_well) {
        Exit::Ok
    } else {
        Exit::Unhealthy
    })
}

/// Whether every node that took the request has ended a scrub since, or is gone.
fn is_done(begun: &Survey, now: &Survey) -> bool {
    begun.nodes.iter().all(|before| {
        let after = now.nodes.iter().find(|node| node.name == before.name);
        let after = after.and_then(|node| node.scrub);
        match (before.scrub, after) {
            // A node that was started anew counts from zero.
            (Some(before), Some(after)) => after.passes != before.passes,
            _ => true,
        }
    })
}

fn report(survey: &Survey) -> Report<'_> {
    let nodes = survey.nodes.iter().map(|node| NodeScrub {
        name: &node.name,
        reachable: node.reachable,
        scrub: node.scrub,
    });
    Report {
        schema: "ringwood.scrub/v1",
        nodes: nodes.collect(),
    }
}

fn page(survey: &Survey) -> String {
    let mut table = output::table(&["NODE", "SCRUB"]);
    for node in &survey.nodes {
        table.add_row([node.name.clone(), scrub_cell(node)]);
    }
    output::table_text(&mut table)
}
