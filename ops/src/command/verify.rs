//! `verify`: every sum of every file of a stopped node.
//!
//! Reads all there is, says what is wrong by log, records, file and byte, and changes nothing.

use std::path::PathBuf;

use ringwood_net::config::ConfigError;
use serde::Serialize;

use crate::exit::{Exit, Failure};
use crate::flags::Global;
use crate::offline::Directory;
use crate::offline::bad::Bad;
use crate::offline::journal::Journal;
use crate::offline::log::Log;
use crate::output::{self, Output, Wide};
use crate::refusal;
use crate::signals;
use crate::units::show_size;

/// Check every sum of every file of a stopped node
///
/// Reads the journal as the node's next start would, and every segment as far as it is vouched for:
/// sums, and that the blocks of each log follow each other without a hole. Changes nothing, and
/// keeps a node from being started on the directory meanwhile.
///
/// The exit code is 0 if all is sound, and 4 if something is not: then each line names the log, the
/// offsets of the records that cannot be had from here, file and byte. The other nodes have them. What
/// a crash leaves in the journal, beyond all that was promised, is no damage.
#[derive(Debug, clap::Args)]
#[command(
    verbatim_doc_comment,
    after_help = "\
Examples:
  ringwood verify /var/lib/ringwood
  ringwood verify d1 -o json | jq -r '.bad[] | [.log, .first_offset, .file, .byte] | @tsv'"
)]
pub(crate) struct Args {
    /// Directory of a node that does not run
    dir: PathBuf,
}

/// The result as JSON.
#[derive(Debug, Serialize)]
struct Report {
    schema: &'static str,
    directory: String,
    node: String,
    cluster: String,
    sound: bool,
    /// Logs that have something on this disk.
    logs: Vec<LogReport>,
    bad: Vec<Bad>,
    notes: Vec<String>,
}

#[derive(Debug, Serialize)]
struct LogReport {
    log: String,
    segments: u64,
    blocks: Wide,
    bytes: Wide,
}

/// Reads, checks, prints.
pub(crate) fn run(args: &Args, global: &Global) -> Result<Exit, Failure> {
    signals::end_at_once()?;
    let report = examine(args)?;
    let _ = match global.output {
        Output::Json => output::print_json(&report)?,
        Output::Table => output::print(&page(&report))?,
    };
    Ok(if report.sound {
        Exit::Ok
    } else {
        Exit::Unhealthy
    })
}

fn examine(args: &Args) -> Result<Report, Failure> {
    let directory = Directory::take(&args.dir)?;
    let path = args.dir.display().to_string();
    let (node, cluster) = match &directory.identity {
        Ok(identity) => (identity.node_name.clone(), identity.cluster_name.clone()),
        // Without it nobody knows whose files these should be.
        Err(error @ (ConfigError::Damaged { .. } | ConfigError::NotInitialised { .. })) => {
            return Err(Failure::new(Exit::Unhealthy, error)
                .fix("node.toml as it was; 'inspect' looks at the other files without it"));
        }
        Err(error) => return Err(refusal::of_config(error)),
    };
    let tag = directory.tag().expect("the identity is known");
    let journal = Journal::read(&directory, tag);
    let (mut bad, mut notes) = (journal.bad, journal.notes);
    let mut logs = Vec::new();
    for log in Log::all(&directory, journal.recovered.as_ref())? {
        let audited = log.audit(&directory, tag);
        if !log.segments.is_empty() || log.known.is_some() {
            logs.push(LogReport {
                log: log.name.clone(),
                segments: log.segments.len() as u64,
                blocks: Wide(audited.block_count),
                bytes: Wide(audited.block_size),
            });
        }
        bad.extend(audited.bad);
        notes.extend(audited.notes);
    }
    Ok(Report {
        schema: "ringwood.verify/v1",
        directory: path,
        node,
        cluster,
        sound: bad.is_empty(),
        logs,
        bad,
        notes,
    })
}

fn page(report: &Report) -> String {
    let blocks: u64 = report.logs.iter().map(|log| log.blocks.0).sum();
    let bytes: u64 = report.logs.iter().map(|log| log.bytes.0).sum();
    let verdict = match report.bad.len() {
        0 => "sound".to_string(),
        1 => "1 thing is damaged".to_string(),
        count => format!("{count} things are damaged"),
    };
    let mut page = format!(
        "{}: {verdict}: {} of cluster {}, {} logs, {blocks} blocks ({}) in segments\n",
        report.directory,
        report.node,
        report.cluster,
        report.logs.len(),
        show_size(bytes),
    );
    page.extend(report.notes.iter().map(|note| format!("  {note}\n")));
    if !report.bad.is_empty() {
        page.push('\n');
        page.push_str(&bad_table(&report.bad));
    }
    page
}

/// The list of what is wrong, as `inspect` shows it, too.
pub(super) fn bad_table(bad: &[Bad]) -> String {
    let mut table = output::table(&["LOG", "OFFSETS", "FILE", "BYTE", "SIZE", "WHAT"]);
    for bad in bad {
        table.add_row([
            bad.log.clone().unwrap_or_else(|| "-".into()),
            bad.offset_words(),
            bad.file.clone(),
            bad.byte.0.to_string(),
            bad.size.0.to_string(),
            bad.what.clone(),
        ]);
    }
    output::table_text(&mut table)
}
