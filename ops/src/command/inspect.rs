//! `inspect`: what is in a node's directory or in one of its files, also when it is damaged or in
//! use.
//!
//! Reads the journal and the first sectors of segments, and takes nobody's place: no lock, no write.

use std::path::{Path, PathBuf};

use ringwood_core::log::offline::{JournalPieces, Piece, SegmentPieces, What};
use ringwood_core::log::ring::Ring;
use ringwood_core::log::segment::{SEGMENT_HEADER_SIZE, SegmentHeader};
use ringwood_net::config::Identity;
use ringwood_net::disk::journal_name;
use serde::Serialize;

use crate::exit::{Exit, Failure};
use crate::flags::Global;
use crate::offline::bad::{Bad, fault_words};
use crate::offline::journal::Journal;
use crate::offline::log::{Log, Segment};
use crate::offline::{Directory, FileKind, OpenFile, journal_place, segment_file};
use crate::output::{self, Output, Wide};
use crate::signals;
use crate::units::show_size;

use super::verify::bad_table;

/// Show what is in a node's directory, or in one of its files
///
/// Only reads, and works on damaged files and beside a running node; what that writes meanwhile may
/// be seen in part. A directory: who the node is, what its next start would find in the journal, and
/// each log's term, vote, last block and segments. A file: what kind it is and how much of what is in
/// it. 'verify' checks everything, 'dump' shows the blocks one by one.
///
/// The exit code is 0 if it could be read, 4 if something was found damaged on the way.
#[derive(Debug, clap::Args)]
#[command(
    verbatim_doc_comment,
    after_help = "\
Examples:
  ringwood inspect /var/lib/ringwood
  ringwood inspect d1/log-1/segment-00000000
  ringwood inspect d1 -o json | jq '.logs[] | {log, term, end_offset}'"
)]
pub(crate) struct Args {
    /// Directory of a node, or a file in one
    path: PathBuf,
}

/// A directory as JSON.
#[derive(Debug, Serialize)]
struct DirectoryReport {
    schema: &'static str,
    kind: &'static str,
    path: String,
    /// The process that works in it.
    in_use_by: Option<u32>,
    /// None if node.toml cannot be read; why is among what is bad.
    node: Option<NodeReport>,
    journal: JournalReport,
    logs: Vec<LogReport>,
    bad: Vec<Bad>,
    notes: Vec<String>,
}

#[derive(Debug, Serialize)]
struct NodeReport {
    name: String,
    id: String,
    cluster: String,
    cluster_id: String,
    incarnation: String,
    /// What marks this node's files.
    node_tag: String,
}

#[derive(Debug, Serialize)]
struct JournalReport {
    files: Vec<JournalFileReport>,
    /// What the last start, or a running node, has counted; none if recovery would refuse.
    life: Option<Wide>,
    /// Where the next life begins.
    head: Option<PlaceReport>,
    /// All before this was durable, as the journal itself says.
    durable_through: Option<PlaceReport>,
}

#[derive(Debug, Serialize)]
struct JournalFileReport {
    file: String,
    /// None if it is missing.
    size: Option<Wide>,
}

#[derive(Debug, Serialize)]
struct PlaceReport {
    lsn: Wide,
    file: String,
    byte: Wide,
}

#[derive(Debug, Serialize)]
struct LogReport {
    log: String,
    group: u32,
    /// What follows is none where the journal does not tell.
    term: Option<Wide>,
    /// Whom the node voted for in that term, by name where it is a voter.
    vote: Option<String>,
    last_index: Option<Wide>,
    last_term: Option<Wide>,
    end_offset: Option<Wide>,
    /// Whether this replica takes no part any more: it holds something else than a majority does.
    diverged: bool,
    checkpoint: Option<CheckpointReport>,
    segments: Vec<SegmentReport>,
}

#[derive(Debug, Serialize)]
struct CheckpointReport {
    index: Wide,
    next_offset: Wide,
    segment: u32,
    segment_size: Wide,
    producers: u64,
}

#[derive(Debug, Serialize)]
struct SegmentReport {
    file: String,
    size: Wide,
    /// How much of it is synced, as the next one or the checkpoint says.
    synced: Option<Wide>,
    /// None if its first sector is damaged.
    first_index: Option<Wide>,
    first_offset: Option<Wide>,
}

/// A file as JSON.
#[derive(Debug, Default, Serialize)]
struct FileReport {
    schema: &'static str,
    /// `journal` or `segment`.
    kind: &'static str,
    path: String,
    size: Wide,
    node_tag: Option<String>,
    /// Of a segment.
    head: Option<HeadReport>,
    /// Voters and producers that a segment's head names.
    voters: u64,
    producers: u64,
    /// Whether a segment has its footer.
    sealed: bool,
    flushes: u64,
    blocks: Wide,
    records: Wide,
    votes: u64,
    checkpoints: u64,
    first_lsn: Option<Wide>,
    end_lsn: Option<Wide>,
    lives: Option<[Wide; 2]>,
    first_index: Option<Wide>,
    last_index: Option<Wide>,
    first_offset: Option<Wide>,
    end_offset: Option<Wide>,
    zero_bytes: Wide,
    unknown_bytes: Wide,
    bad: Vec<Bad>,
}

#[derive(Debug, Serialize)]
struct HeadReport {
    cluster_id: String,
    group: u32,
    segment: u32,
    first_index: Wide,
    first_offset: Wide,
    previous_term: Wide,
    previous_sum: String,
    previous_size: Wide,
}

/// Reads and prints.
pub(crate) fn run(args: &Args, global: &Global) -> Result<Exit, Failure> {
    signals::end_at_once()?;
    if !args.path.is_file() {
        let report = directory(&args.path)?;
        let _ = match global.output {
            Output::Json => output::print_json(&report)?,
            Output::Table => output::print(&directory_page(&report))?,
        };
        return Ok(exit(&report.bad));
    }
    let report = file(&args.path)?;
    let _ = match global.output {
        Output::Json => output::print_json(&report)?,
        Output::Table => output::print(&file_page(&report))?,
    };
    Ok(exit(&report.bad))
}

fn exit(bad: &[Bad]) -> Exit {
    if bad.is_empty() {
        Exit::Ok
    } else {
        Exit::Unhealthy
    }
}

fn directory(path: &Path) -> Result<DirectoryReport, Failure> {
    let directory = Directory::look(path)?;
    let mut report = DirectoryReport {
        schema: "ringwood.inspect/v1",
        kind: "directory",
        path: path.display().to_string(),
        in_use_by: directory.holder(),
        node: None,
        journal: JournalReport {
            files: Vec::new(),
            life: None,
            head: None,
            durable_through: None,
        },
        logs: Vec::new(),
        bad: Vec::new(),
        notes: Vec::new(),
    };
    for (slot, file) in (0..).zip(directory.journal_files()) {
        report.journal.files.push(JournalFileReport {
            file: journal_name(slot),
            size: file.map(|file| Wide(file.size)),
        });
    }
    let recovered = match (&directory.identity, directory.tag()) {
        (Ok(identity), Some(tag)) => {
            report.node = Some(node(identity, tag));
            report.bad.extend(directory.bad_identity());
            let journal = Journal::read(&directory, tag);
            report.bad.extend(journal.bad);
            report.notes.extend(journal.notes);
            journal.recovered
        }
        (Err(error), _) => {
            report.bad.push(Bad::at("node.toml", 0, 0, error));
            report.notes.push("without node.toml nobody knows what marks this node's files: the journal is not read".into());
            None
        }
        (Ok(_), None) => unreachable!("the mark follows from the identity"),
    };
    if let Some(recovered) = &recovered {
        let place = |lsn| {
            let (file, byte) = journal_place(lsn);
            PlaceReport {
                lsn: Wide(lsn.0),
                file,
                byte: Wide(byte),
            }
        };
        report.journal.life = Some(Wide(recovered.journal.life()));
        report.journal.head = Some(place(recovered.journal.head()));
        report.journal.durable_through = Some(place(recovered.journal.promised()));
    }
    let diverged = directory.diverged();
    for log in Log::all(&directory, recovered.as_ref())? {
        report.bad.extend(bad_segments(&log));
        let is_diverged = diverged.contains(&log.group);
        if is_diverged {
            let name = &log.name;
            report.notes.push(format!(
                "{name}: diverged: it holds something else here than a majority does, and takes no \
                 part until the node has a new directory"
            ));
        }
        report.logs.push(log_report(&directory, &log, is_diverged));
    }
    let strangers = directory.strangers()?;
    report.notes.extend(
        strangers
            .iter()
            .map(|name| format!("{name}: no file of a node")),
    );
    if report.in_use_by.is_some() {
        report
            .notes
            .push("the node runs: what it writes meanwhile may be seen in part".into());
    }
    Ok(report)
}

/// Segments that are missing, or whose first sector is damaged.
fn bad_segments(log: &Log) -> Vec<Bad> {
    let file = |number| segment_file(log.group, number);
    let damaged = log
        .segments
        .iter()
        .filter(|segment| segment.header.is_none());
    let damaged = damaged.map(|segment| {
        let size = segment.size.min(SEGMENT_HEADER_SIZE as u64);
        Bad::at(file(segment.number), 0, size, "the first sector is damaged").of(&log.name)
    });
    let is_there = |number: &u32| log.segments.iter().any(|segment| segment.number == *number);
    let missing = log
        .expected()
        .into_iter()
        .filter(|number| !is_there(number));
    let missing =
        missing.map(|number| Bad::at(file(number), 0, 0, "the file is missing").of(&log.name));
    damaged.chain(missing).collect()
}

fn node(identity: &Identity, tag: u32) -> NodeReport {
    NodeReport {
        name: identity.node_name.clone(),
        id: format!("{:016x}", identity.node.0),
        cluster: identity.cluster_name.clone(),
        cluster_id: format!("{:032x}", identity.cluster.0),
        incarnation: format!("{:016x}", identity.incarnation.0),
        node_tag: format!("{tag:08x}"),
    }
}

fn log_report(directory: &Directory, log: &Log, diverged: bool) -> LogReport {
    let known = log.known.as_ref();
    let voters = directory
        .identity
        .as_ref()
        .map_or(&[][..], |identity| &identity.voters);
    let vote = known.and_then(|known| known.hard.vote).map(|id| {
        let voter = voters.iter().find(|voter| voter.id == id);
        voter.map_or_else(|| format!("{:016x}", id.0), |voter| voter.name.clone())
    });
    let segment = |segment: &Segment| SegmentReport {
        file: segment_file(log.group, segment.number),
        size: Wide(segment.size),
        synced: segment.end.size().map(Wide),
        first_index: segment.header.map(|header| Wide(header.first_index.0)),
        first_offset: segment.header.map(|header| Wide(header.first_offset.0)),
    };
    LogReport {
        log: log.name.clone(),
        group: log.group.0,
        term: known.map(|known| Wide(known.hard.term.0)),
        vote,
        last_index: known.map(|known| Wide(known.last_index.0)),
        last_term: known.map(|known| Wide(known.last_term.0)),
        end_offset: known.map(|known| Wide(known.end_offset.0)),
        diverged,
        checkpoint: known
            .and_then(|known| known.checkpoint.as_ref())
            .map(|checkpoint| CheckpointReport {
                index: Wide(checkpoint.index.0),
                next_offset: Wide(checkpoint.next_offset.0),
                segment: checkpoint.segment,
                segment_size: Wide(checkpoint.segment_size),
                producers: checkpoint.producers.len() as u64,
            }),
        segments: log.segments.iter().map(segment).collect(),
    }
}

fn directory_page(report: &DirectoryReport) -> String {
    let mut page = match &report.node {
        Some(node) => format!(
            "{}: {} of cluster {}, incarnation {}\n",
            report.path, node.name, node.cluster, node.incarnation
        ),
        None => format!("{}: nobody knows whose\n", report.path),
    };
    match report.in_use_by {
        Some(process) => page.push_str(&format!("  in use by process {process}\n")),
        None => page.push_str("  not in use\n"),
    }
    page.push_str(&journal_line(&report.journal));
    page.extend(report.notes.iter().map(|note| format!("  {note}\n")));
    let mut table = output::table(&[
        "LOG",
        "TERM",
        "VOTE",
        "LAST",
        "END",
        "CHECKPOINT",
        "SEGMENTS",
        "BYTES",
    ]);
    let is_here = |log: &&LogReport| log.term.is_some() || !log.segments.is_empty();
    let logs: Vec<_> = report.logs.iter().filter(is_here).collect();
    for alike in logs.chunk_by(|one, next| log_cells(one) == log_cells(next)) {
        let name = match alike {
            [only] => only.log.clone(),
            [first, .., last] => format!("{}..{} ({})", first.log, last.log, alike.len()),
            [] => unreachable!("chunk_by gives no empty chunk"),
        };
        let mut row = vec![name];
        row.extend(log_cells(alike[0]));
        table.add_row(row);
    }
    if table.row_count() > 0 {
        page.push('\n');
        page.push_str(&output::table_text(&mut table));
    }
    if !report.bad.is_empty() {
        page.push('\n');
        page.push_str(&bad_table(&report.bad));
    }
    page
}

/// All cells of a log's line but its name.
fn log_cells(log: &LogReport) -> [String; 7] {
    [
        or_dash(log.term),
        log.vote.clone().unwrap_or_else(|| "-".into()),
        or_dash(log.last_index),
        or_dash(log.end_offset),
        or_dash(log.checkpoint.as_ref().map(|checkpoint| checkpoint.index)),
        log.segments.len().to_string(),
        show_size(log.segments.iter().map(|segment| segment.size.0).sum()),
    ]
}

fn journal_line(journal: &JournalReport) -> String {
    let there = journal
        .files
        .iter()
        .filter(|file| file.size.is_some())
        .count();
    let mut line = format!("  journal: {there} of {} files", journal.files.len());
    if let (Some(Wide(life)), Some(head)) = (journal.life, &journal.head) {
        line.push_str(&format!(
            ", life {life}, ends at lsn {} ({} at {})",
            head.lsn.0, head.file, head.byte.0
        ));
    }
    line.push('\n');
    line
}

fn or_dash(number: Option<Wide>) -> String {
    number.map_or_else(|| "-".into(), |Wide(number)| number.to_string())
}

fn file(path: &Path) -> Result<FileReport, Failure> {
    let file = OpenFile::open(path).map_err(|error| crate::offline::unreadable(path, &error))?;
    let kind = FileKind::of(path, &file)?;
    let name = path.display().to_string();
    let mut report = FileReport {
        schema: "ringwood.inspect/v1",
        kind: kind.word(),
        path: name.clone(),
        size: Wide(file.size),
        ..FileReport::default()
    };
    let pieces: Box<dyn Iterator<Item = Piece>> = match kind {
        FileKind::Journal => Box::new(JournalPieces::new(
            Ring::STANDARD,
            file.size,
            None,
            file.reader(),
        )),
        FileKind::Segment => Box::new(SegmentPieces::new(file.size, file.reader())),
    };
    for piece in pieces {
        report.count(&name, piece);
    }
    Ok(report)
}

impl FileReport {
    fn count(&mut self, name: &str, piece: Piece) {
        let Piece {
            position,
            size,
            what,
        } = piece;
        let mut bad =
            |what: &dyn std::fmt::Display| self.bad.push(Bad::at(name, position, size, what));
        match what {
            What::Head(Ok(head)) => self.take_head(&head),
            What::Head(Err(error)) => bad(&format!("the first sector: {error}")),
            What::State(Ok(state)) => {
                self.voters = state.voters.len() as u64;
                self.producers = state.producers.len() as u64;
            }
            What::State(Err(error)) => bad(&format!("the state behind the first sector: {error}")),
            What::Footer(Ok(_)) => self.sealed = true,
            What::Footer(Err(error)) => bad(&format!("the footer: {error}")),
            What::Zeros => self.zero_bytes.0 += size,
            What::Unknown => {
                // In a journal that is what older rounds of the ring have left.
                if self.kind == FileKind::Segment.word() {
                    bad(&"no block, and nothing else that is known");
                }
                self.unknown_bytes.0 += size;
            }
            What::Unreadable(fault) => bad(&fault_words(fault)),
            What::Block(block) => match &block.error {
                Some(error) => bad(error),
                None => self.take_block(&block.header),
            },
            What::Flush(flush) => {
                use ringwood_core::log::offline::ItemSeen;
                if let Some(error) = &flush.error {
                    bad(error);
                }
                if flush.copy_is_sound == Some(false) {
                    bad(&"the second copy of the flush's votes is damaged");
                }
                let header = &flush.header;
                self.flushes += 1;
                self.node_tag = Some(format!("{:08x}", header.node_tag));
                let first = self
                    .first_lsn
                    .map_or(header.lsn.0, |lsn| lsn.0.min(header.lsn.0));
                let end = self.end_lsn.map_or(0, |lsn| lsn.0).max(header.end().0);
                (self.first_lsn, self.end_lsn) = (Some(Wide(first)), Some(Wide(end)));
                let [least, most] = self.lives.unwrap_or([Wide(header.life); 2]);
                self.lives = Some([
                    Wide(least.0.min(header.life)),
                    Wide(most.0.max(header.life)),
                ]);
                for item in flush
                    .items
                    .iter()
                    .filter_map(|item| item.item.as_ref().ok())
                {
                    match item {
                        ItemSeen::Block(header) => {
                            self.blocks.0 += 1;
                            self.records.0 += u64::from(header.record_count);
                        }
                        ItemSeen::HardState { .. } => self.votes += 1,
                        ItemSeen::Checkpoint(_) => self.checkpoints += 1,
                        // They say nothing of what is here.
                        ItemSeen::Scars(_) => {}
                    }
                }
            }
        }
    }

    fn take_head(&mut self, head: &SegmentHeader) {
        self.node_tag = Some(format!("{:08x}", head.node_tag));
        self.head = Some(HeadReport {
            cluster_id: format!("{:032x}", head.cluster.0),
            group: head.group.0,
            segment: head.segment,
            first_index: Wide(head.first_index.0),
            first_offset: Wide(head.first_offset.0),
            previous_term: Wide(head.previous_term.0),
            previous_sum: format!("{:08x}", head.previous_sum),
            previous_size: Wide(head.previous_size),
        });
    }

    fn take_block(&mut self, header: &ringwood_core::log::block::BlockHeader) {
        self.blocks.0 += 1;
        self.records.0 += u64::from(header.record_count);
        self.first_index.get_or_insert(Wide(header.index.0));
        self.first_offset.get_or_insert(Wide(header.first_offset.0));
        self.last_index = Some(Wide(header.index.0));
        self.end_offset = Some(Wide(header.next_offset().0));
    }
}

fn file_page(report: &FileReport) -> String {
    let mut page = format!(
        "{}: a {} of {}",
        report.path,
        report.kind,
        show_size(report.size.0)
    );
    if let Some(tag) = &report.node_tag {
        page.push_str(&format!(", marked {tag}"));
    }
    page.push('\n');
    if let Some(head) = &report.head {
        page.push_str(&format!(
            "  segment {} of group {}, from block {}, offset {}; {} bytes in the one before\n",
            head.segment, head.group, head.first_index.0, head.first_offset.0, head.previous_size.0
        ));
        page.push_str(&format!(
            "  {} voters and {} producers as of then; {}\n",
            report.voters,
            report.producers,
            if report.sealed {
                "sealed"
            } else {
                "not sealed"
            }
        ));
    }
    if let (Some(first), Some(end), Some([least, most])) =
        (report.first_lsn, report.end_lsn, report.lives)
    {
        page.push_str(&format!(
            "  {} flushes, lsn {} to {}, lives {} to {}; {} votes and terms, {} checkpoints\n",
            report.flushes, first.0, end.0, least.0, most.0, report.votes, report.checkpoints
        ));
    }
    page.push_str(&format!(
        "  {} blocks with {} records",
        report.blocks.0, report.records.0
    ));
    if let (Some(first), Some(last)) = (report.first_index, report.last_index) {
        page.push_str(&format!(", index {} to {}", first.0, last.0));
    }
    if let (Some(first), Some(end)) = (report.first_offset, report.end_offset) {
        page.push_str(&format!(", offsets {}..{}", first.0, end.0));
    }
    page.push_str(&format!(
        "\n  {} of zeros, {} of neither\n",
        show_size(report.zero_bytes.0),
        show_size(report.unknown_bytes.0)
    ));
    if !report.bad.is_empty() {
        page.push('\n');
        page.push_str(&bad_table(&report.bad));
    }
    page
}
