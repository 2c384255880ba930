//! `read`: records from an offset on, until enough or the log's end.
//!
//! Asks linearizably for the end: what was acknowledged to anybody before `read` began is there.
//! What lies below that end is committed, and whoever leads may give it without asking the others.

use std::time::Duration;

use ringwood_core::limits::FETCH_SIZE_MAX;
use ringwood_net::client::{FetchError, Fetched, ReadMode};

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
    let fetch = |from, mode| {
        let wait = Duration::ZERO;
        client.fetch(&args.log, from, FETCH_SIZE_MAX, wait, mode)
    };
    let mut next = args.from;
    let mut coming = (next < until).then(|| fetch(next, ReadMode::Committed));
    while let Some(fetched) = coming.take() {
        let mut fetched = fetched.await;
        if !is_given(&fetched) {
            // Whoever was asked leads no more, or does not know yet what was committed before it.
            fetched = fetch(next, ReadMode::Linearizable).await;
        }
        let records = fetched.map_err(fault)?.records;
        let Some(last) = records.last() else {
            let cause = format!("{} ends at {next}, and was said to end at {end}", args.log);
            return Err(Failure::new(Exit::Internal, cause));
        };
        let following = last.offset + 1;
        if following < until {
            coming = Some(fetch(following, ReadMode::Committed));
            // It is asked for before this batch is printed, which may take as long.
            tokio::task::yield_now().await;
        }
        for record in records.iter().take((until - next) as usize) {
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

/// Whether a node that may be behind gave what lies below the end.
fn is_given(fetched: &Result<Fetched, FetchError>) -> bool {
    match fetched {
        Ok(fetched) => !fetched.records.is_empty(),
        Err(error) => !matches!(error, FetchError::BeyondEnd { .. }),
    }
}
