//! `read`: records from an offset on, until enough or the log's end.
//!
//! Reads linearizably: what was acknowledged to anybody before `read` began is there.

use std::time::Duration;

use ringwood_core::limits::FETCH_SIZE_MAX;
use ringwood_net::client::ReadMode;

use crate::connect;
use crate::exit::{Exit, Failure};
use crate::flags::{Global, parse_name};
use crate::output::{Reader, RecordWriter};
use crate::signals;

/// Print records from an offset on
///
/// A record per line; --raw leaves the newlines out and prints the bytes alone, for records that
/// hold newlines themselves. Stops after --count records, or at the end that the log had when
/// asked.
#[derive(Debug, clap::Args)]
#[command(
    verbatim_doc_comment,
    after_help = "\
Examples:
  ringwood read log-0 --from 0 --count 10
  ringwood read log-0 --from 990
  ringwood read log-0 --from 17 --count 1 --raw >record.bin"
)]
pub(crate) struct Args {
    /// Log to read
    #[arg(value_parser = parse_name)]
    log: String,

    /// Offset of the first record
    #[arg(long, value_name = "OFFSET", default_value_t = 0)]
    from: u64,

    /// Records to print at most [default: to the end]
    #[arg(long, value_name = "N")]
    count: Option<u64>,

    /// Print no newline after a record
    #[arg(long)]
    raw: bool,
}

/// Reads and prints.
pub(crate) async fn run(args: Args, global: &Global) -> Result<Exit, Failure> {
    signals::end_at_once()?;
    let client = connect::open(global).await?;
    connect::require_log(&client, &args.log)?;
    let fault = |error| connect::fetch_failure(&args.log, args.from, error);
    let end = client.end_offset(&args.log).await.map_err(fault)?;
    if args.from > end {
        return Err(connect::beyond_end(&args.log, args.from, end));
    }
    let until = args
        .count
        .map_or(end, |count| end.min(args.from.saturating_add(count)));
    let mut out = RecordWriter::new(args.raw);
    let mut next = args.from;
    while next < until {
        let wait = Duration::ZERO;
        let mode = ReadMode::Linearizable;
        let fetched = client
            .fetch(&args.log, next, FETCH_SIZE_MAX, wait, mode)
            .await
            .map_err(fault)?;
        if fetched.records.is_empty() {
            let cause = format!("{} ends at {next}, and was said to end at {end}", args.log);
            return Err(Failure::new(Exit::Internal, cause));
        }
        for record in fetched.records.iter().take((until - next) as usize) {
            assert_eq!(record.offset, next, "offsets are dense");
            if out.write(&record.bytes)? == Reader::Gone {
                return Ok(Exit::Ok);
            }
            next += 1;
        }
    }
    let _ = out.flush()?;
    Ok(Exit::Ok)
}
