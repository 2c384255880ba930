//! `verify`: every sum of every file of a stopped node.
//!
//! Reads all there is, says what is wrong by log, records, file and byte, and changes nothing unless
//! it is told where what is damaged may be had from.

use std::path::PathBuf;

use ringwood_net::config::{ConfigError, Identity};
use ringwood_net::disk;
use serde::Serialize;

use crate::exit::{Exit, Failure};
use crate::flags::{Global, parse_address};
use crate::offline::Directory;
use crate::offline::bad::Bad;
use crate::offline::donor::Donors;
use crate::offline::journal::Journal;
use crate::offline::log::Log;
use crate::offline::mend::{Mended, NotMended, Patient};
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
/// With --repair-from, segments that are damaged or not there are written anew, from what is sound of
/// them and what the running nodes have of the rest; each block is proved by its sum, and a new file
/// takes the old one's place only when it is whole and synced. Then all is verified again: what is
/// told is what is damaged still. The journal is left to the node itself.
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
  ringwood verify /var/lib/ringwood --repair-from node-2:7401,node-3:7401
  ringwood verify d1 -o json | jq -r '.bad[] | [.log, .first_offset, .file, .byte] | @tsv'"
)]
pub(crate) struct Args {
    /// Directory of a node that does not run
    dir: PathBuf,

    /// Nodes of the same cluster that run: write anew what is damaged, with what they have
    #[arg(
        long,
        value_name = "HOST:PORT,..",
        value_delimiter = ',',
        value_parser = parse_address
    )]
    repair_from: Vec<String>,
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
    /// Segments that were written anew.
    mended: Vec<Mended>,
    /// Those that were to be, and were not.
    not_mended: Vec<NotMended>,
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
    let report = match args.repair_from.is_empty() {
        true => examine(&Directory::take(&args.dir)?)?,
        false => mend(args, global)?,
    };
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

/// Who the node is. Without that nobody knows whose files these should be.
fn identity(directory: &Directory) -> Result<&Identity, Failure> {
    match &directory.identity {
        Ok(identity) => Ok(identity),
        Err(error @ (ConfigError::Damaged { .. } | ConfigError::NotInitialised { .. })) => {
            Err(Failure::new(Exit::Unhealthy, error)
                .fix("node.toml as it was; 'inspect' looks at the other files without it"))
        }
        Err(error) => Err(refusal::of_config(error)),
    }
}

/// Writes damaged segments anew until none is left, or none that was not tried; then examines.
fn mend(args: &Args, global: &Global) -> Result<Report, Failure> {
    let seen = Directory::look(&args.dir)?;
    identity(&seen)?;
    // Taken before anything is believed: no node is started on the files meanwhile, nor runs there.
    let access = disk::Access::BufferedForDevelopmentOnly;
    let writer = disk::Directory::open(&args.dir, access);
    let writer = writer.map_err(|error| refusal::of_disk(&error))?;
    let mut donors = None;
    let mut mended = Vec::new();
    // What is mended may be what another needs to be: where it ends, or what stands before it.
    loop {
        let directory = Directory::look(&args.dir)?;
        let patient = Patient {
            identity: identity(&directory)?,
            tag: directory.tag().expect("the identity is known"),
            directory: &directory,
            writer: &writer,
        };
        let journal = Journal::read(&directory, patient.tag);
        let (count, mut not_mended) = (mended.len(), Vec::new());
        for log in Log::all(&directory, journal.recovered.as_ref())? {
            for number in patient.wounds(&log) {
                let donors = match &mut donors {
                    Some(donors) => donors,
                    // Nothing was changed if there is nobody to be asked.
                    none => none.insert(Donors::reach(
                        patient.identity,
                        &args.repair_from,
                        global.timeout(),
                    )?),
                };
                match patient.mend(&log, number, donors) {
                    Ok(done) => mended.push(done),
                    Err(left) => not_mended.push(left),
                }
            }
        }
        if mended.len() == count || not_mended.is_empty() {
            let report = examine(&directory)?;
            return Ok(Report {
                mended,
                not_mended,
                ..report
            });
        }
    }
}

fn examine(directory: &Directory) -> Result<Report, Failure> {
    let path = directory.path.display().to_string();
    let identity = identity(directory)?;
    let (node, cluster) = (identity.node_name.clone(), identity.cluster_name.clone());
    let tag = directory.tag().expect("the identity is known");
    let journal = Journal::read(directory, tag);
    let (mut bad, mut notes) = (directory.bad_identity(), journal.notes);
    bad.extend(journal.bad);
    let (bad_pins, note) = directory.check_pins(tag);
    bad.extend(bad_pins);
    notes.extend(note);
    let mut logs = Vec::new();
    for log in Log::all(directory, journal.recovered.as_ref())? {
        let audited = log.audit(directory, tag);
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
        mended: Vec::new(),
        not_mended: Vec::new(),
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
    page.extend(report.mended.iter().map(|mended| {
        let (file, count) = (&mended.file, mended.blocks.0);
        format!("  {file}: written anew, with {count} blocks of other nodes\n")
    }));
    page.extend(report.not_mended.iter().map(|left| {
        let (file, why) = (&left.file, &left.why);
        format!("  {file}: not mended: {why}\n")
    }));
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
