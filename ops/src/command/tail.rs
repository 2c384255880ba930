//! `tail`: records as they are committed, until interrupted.
//!
//! Follows across leader changes: each record is printed once, in order, however often the client
//! has to look for the leader. Knows no way to end but Ctrl-C and a reader that leaves.

use crate::connect;
use crate::exit::{Exit, Failure};
use crate::flags::{Global, parse_name};
use crate::output::{Reader, RecordWriter};
use crate::signals;

/// Follow a log: print records as they are committed
///
/// Begins at the log's end, or at --from; goes on across leader changes until Ctrl-C. --timeout
/// bounds the wait for the cluster at the start, not for records.
#[derive(Debug, clap::Args)]
#[command(
    verbatim_doc_comment,
    after_help = "\
Examples:
  ringwood tail log-0
  ringwood tail log-0 --from 0 | grep --line-buffered ERROR"
)]
pub(crate) struct Args {
    /// Log to follow
    #[arg(value_parser = parse_name)]
    log: String,

    /// Offset of the first record [default: the log's end]
    #[arg(long, value_name = "OFFSET")]
    from: Option<u64>,

    /// Print no newline after a record
    #[arg(long)]
    raw: bool,
}

/// Prints until the reader leaves or Ctrl-C ends the process.
pub(crate) async fn run(args: Args, global: &Global) -> Result<Exit, Failure> {
    signals::end_at_once()?;
    let client = connect::open(global).await?;
    connect::require_log(&client, &args.log)?;
    let fault = |error| connect::fetch_failure(&args.log, args.from.unwrap_or(0), error);
    let end = client.end_offset(&args.log).await.map_err(fault)?;
    let from = args.from.unwrap_or(end);
    if from > end {
        return Err(connect::beyond_end(&args.log, from, end));
    }
    let mut out = RecordWriter::new(args.raw);
    let mut tail = client.tail(&args.log, from);
    loop {
        for record in tail.next_batch().await.map_err(fault)? {
            if out.write(&record.bytes)? == Reader::Gone {
                return Ok(Exit::Ok);
            }
        }
        // Whoever follows wants to see a record now, not when a buffer is full.
        if out.flush()? == Reader::Gone {
            return Ok(Exit::Ok);
        }
    }
}
