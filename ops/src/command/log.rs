//! `log`: what an operator does to one log.
//!
//! `trim` moves a log's start. Knows nothing of segments: which of them go is the nodes' affair.

use serde::Serialize;

use crate::connect;
use crate::exit::{Exit, Failure};
use crate::flags::{Global, parse_name};
use crate::output::{self, Output, Wide};
use crate::signals;

/// Change what a log keeps
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    act: Act,
}

#[derive(Debug, clap::Subcommand)]
enum Act {
    Trim(Trim),
}

/// Let go of a log's oldest records
///
/// Records before --before are not served any more, on any node, and cannot be had back. Nodes
/// delete them in whole files of up to 64 MiB, so a little trim may free nothing yet.
#[derive(Debug, clap::Args)]
#[command(
    verbatim_doc_comment,
    after_help = "\
Examples:
  ringwood log trim log-0 --before 1000"
)]
struct Trim {
    /// Log to trim
    #[arg(value_parser = parse_name)]
    log: String,

    /// Offset of the first record to keep
    #[arg(long, value_name = "OFFSET")]
    before: u64,
}

/// What a trim came to.
#[derive(Serialize)]
struct Trimmed<'a> {
    schema: &'static str,
    log: &'a str,
    first_offset: Wide,
}

/// Does it.
pub(crate) async fn run(args: Args, global: &Global) -> Result<Exit, Failure> {
    signals::end_at_once()?;
    let Act::Trim(args) = args.act;
    let client = connect::open(global).await?;
    connect::require_log(&client, &args.log)?;
    let fault = |error| connect::trim_failure(&args.log, args.before, error);
    let first = client.trim(&args.log, args.before).await.map_err(fault)?;
    match global.output {
        Output::Json => {
            let _ = output::print_json(&Trimmed {
                schema: "ringwood.trim/v1",
                log: &args.log,
                first_offset: Wide(first),
            })?;
        }
        Output::Table => {
            let _ = output::print(&format!("{} begins at {first}\n", args.log))?;
        }
    }
    Ok(Exit::Ok)
}
