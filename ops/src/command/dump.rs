//! `dump`: a file of a node, piece by piece, a line each.
//!
//! Shows every byte of it as something, also where it is damaged. Changes nothing.

use std::fmt::{Display, Write as _};
use std::path::PathBuf;

use ringwood_core::log::block::{Block, BlockHeader, BlockKind};
use ringwood_core::log::offline::{
    FlushPiece, ItemPiece, ItemSeen, JournalPieces, Piece, SegmentPieces, What,
};
use ringwood_core::log::ring::Ring;
use serde_json::{Map, Value, json};

use crate::exit::{Exit, Failure};
use crate::flags::Global;
use crate::offline::bad::fault_words;
use crate::offline::{FileKind, OpenFile, unreadable};
use crate::output::{Output, Reader, RecordWriter};
use crate::signals;

/// Print what is in a journal's or a segment's file, a line each
///
/// A line is the byte at which something begins, what it is, and what it says. In a journal the items
/// of a flush are set in below it, and what an older round of the ring has left comes behind the
/// newest flush; in a segment there are blocks. What is damaged is shown with the reason, and what
/// lies behind it as well.
///
/// With --records each record follows its block: its offset and its bytes, escaped where they are not
/// printable. In JSON each line is an object (ringwood.dump/v1).
#[derive(Debug, clap::Args)]
#[command(
    verbatim_doc_comment,
    after_help = "\
Examples:
  ringwood dump d1/log-1/segment-00000000 | head
  ringwood dump d1/journal-0 | grep 'group 3 '
  ringwood dump d1/log-1/segment-00000000 --records -o json | jq -r 'select(.kind == \"record\") | .offset'"
)]
pub(crate) struct Args {
    /// A file of a node's directory: journal-N or segment-NNNNNNNN
    file: PathBuf,

    /// Print the records, too
    #[arg(long)]
    records: bool,
}

/// One line, before it has a form.
struct Line {
    position: u64,
    /// How far it is set in.
    depth: usize,
    kind: &'static str,
    /// In the order in which they are printed. Numbers of 64 bits are strings.
    fields: Vec<(&'static str, Value)>,
    error: Option<String>,
}

/// Reads and prints. The exit code says nothing about damage: that is `verify`'s.
pub(crate) fn run(args: &Args, global: &Global) -> Result<Exit, Failure> {
    signals::end_at_once()?;
    let path = &args.file;
    let file = OpenFile::open(path).map_err(|error| unreadable(path, &error))?;
    if path.is_dir() {
        let cause = format!("{} is a directory", path.display());
        return Err(Failure::new(Exit::Refused, cause).fix("a file in it"));
    }
    let pieces: Box<dyn Iterator<Item = Piece>> = match FileKind::of(path, &file)? {
        FileKind::Journal => Box::new(JournalPieces::new(
            Ring::STANDARD,
            file.size,
            None,
            file.reader(),
        )),
        FileKind::Segment => Box::new(SegmentPieces::new(file.size, file.reader())),
    };
    let mut out = RecordWriter::new(false);
    for piece in pieces {
        for line in lines(&piece, args.records) {
            let text = match global.output {
                Output::Table => line.text(),
                Output::Json => line.json(),
            };
            if out.write(text.as_bytes())? == Reader::Gone {
                return Ok(Exit::Ok);
            }
        }
    }
    let _ = out.flush()?;
    Ok(Exit::Ok)
}

impl Line {
    fn new(position: u64, kind: &'static str) -> Self {
        Self {
            position,
            depth: 0,
            kind,
            fields: Vec::new(),
            error: None,
        }
    }

    fn with(mut self, name: &'static str, value: impl Into<Value>) -> Self {
        self.fields.push((name, value.into()));
        self
    }

    fn wide(self, name: &'static str, value: u64) -> Self {
        self.with(name, value.to_string())
    }

    fn sum(self, name: &'static str, value: u32) -> Self {
        self.with(name, format!("{value:08x}"))
    }

    fn failed(mut self, error: impl Display) -> Self {
        self.error = Some(error.to_string());
        self
    }

    fn text(&self) -> String {
        let mut text = format!(
            "{:>10} {:width$}{}",
            self.position,
            "",
            self.kind,
            width = 2 * self.depth
        );
        for (name, value) in &self.fields {
            let name = name.replace('_', "-");
            let _ = match value {
                Value::String(value) => write!(text, " {name} {value}"),
                Value::Bool(true) => write!(text, " {name}"),
                Value::Bool(false) => Ok(()),
                value => write!(text, " {name} {value}"),
            };
        }
        if let Some(error) = &self.error {
            let _ = write!(text, " DAMAGED: {error}");
        }
        text
    }

    fn json(&self) -> String {
        let mut object = Map::new();
        object.insert("schema".into(), json!("ringwood.dump/v1"));
        object.insert("byte".into(), json!(self.position.to_string()));
        object.insert("kind".into(), json!(self.kind));
        for (name, value) in &self.fields {
            object.insert((*name).into(), value.clone());
        }
        object.insert("error".into(), json!(self.error));
        Value::Object(object).to_string()
    }
}

fn lines(piece: &Piece, records: bool) -> Vec<Line> {
    let at = piece.position;
    let one = |kind| Line::new(at, kind).wide("size", piece.size);
    match &piece.what {
        What::Zeros => vec![one("zeros")],
        What::Unknown => vec![one("unknown")],
        What::Unreadable(fault) => vec![one("unreadable").failed(fault_words(*fault))],
        What::Head(Err(error)) => vec![one("head").failed(error)],
        What::Head(Ok(head)) => vec![
            one("head")
                .with("group", head.group.0)
                .with("segment", head.segment)
                .wide("first_index", head.first_index.0)
                .wide("first_offset", head.first_offset.0)
                .wide("previous_term", head.previous_term.0)
                .sum("previous_sum", head.previous_sum)
                .wide("previous_size", head.previous_size)
                .sum("node_tag", head.node_tag)
                .with("cluster", format!("{:032x}", head.cluster.0)),
        ],
        What::State(Ok(state)) => {
            let voters: Vec<_> = state
                .voters
                .iter()
                .map(|id| format!("{:016x}", id.0))
                .collect();
            vec![
                one("state")
                    .with("voters", voters.join(","))
                    .with("producers", state.producers.len()),
            ]
        }
        What::Footer(Ok(footer)) => vec![
            one("footer")
                .with("group", footer.group.0)
                .with("segment", footer.segment)
                .wide("first_index", footer.first_index.0)
                .wide("last_index", footer.last_index.0)
                .wide("last_term", footer.last_term.0)
                .wide("first_offset", footer.first_offset.0)
                .wide("end_offset", footer.next_offset.0)
                .wide("data_size", footer.data_size)
                .sum("last_sum", footer.last_sum)
                .sum("blocks_sum", footer.blocks_sum)
                .with("points", footer.points.len())
                .wide("sealed_at", footer.sealed_at.0),
        ],
        What::State(Err(error)) => vec![one("state").failed(error)],
        What::Footer(Err(error)) => vec![one("footer").failed(error)],
        What::Block(block) => {
            let mut line = block_line(at, &block.header);
            line.error = block.error.map(|error| error.to_string());
            let mut lines = vec![line];
            if records && block.error.is_none() {
                lines.extend(record_lines(at, 1, &block.bytes));
            }
            lines
        }
        What::Flush(flush) => flush_lines(at, flush, records),
    }
}

fn flush_lines(at: u64, flush: &FlushPiece, records: bool) -> Vec<Line> {
    let header = &flush.header;
    let mut line = Line::new(at, "flush")
        .wide("lsn", header.lsn.0)
        .wide("life", header.life)
        .wide("sequence", header.sequence)
        .with("size", header.size)
        .with("items", header.item_count)
        .sum("sum", header.sum)
        .sum("previous_sum", header.previous_sum)
        .wide("durable_through", header.durable_through.0)
        .with("files_kept", header.files_kept)
        .with("opens", header.opens)
        .with("complete", header.complete)
        .with("copies", header.copies);
    line.error = match (&flush.error, flush.copy_is_sound) {
        (Some(error), _) => Some(error.to_string()),
        (None, Some(false)) => Some("the second copy of its votes".into()),
        (None, _) => None,
    };
    let mut lines = vec![line];
    for item in &flush.items {
        let at = at + u64::from(item.offset);
        lines.push(item_line(at, item));
        if records && matches!(item.item, Ok(ItemSeen::Block(_))) {
            lines.extend(record_lines(at, 2, &item.bytes));
        }
    }
    lines
}

fn item_line(at: u64, item: &ItemPiece) -> Line {
    let mut line = match &item.item {
        Ok(ItemSeen::Block(header)) => block_line(at, header),
        Ok(ItemSeen::HardState { group, hard, doubt }) => {
            let mut line = Line::new(at, "hard-state")
                .with("group", group.0)
                .wide("term", hard.term.0);
            if let Some(vote) = hard.vote {
                line = line.with("vote", format!("{:016x}", vote.0));
            }
            if doubt.is_any() {
                line = line.with("doubts", doubt.to_string());
            }
            line
        }
        Ok(ItemSeen::Scars(places)) => Line::new(at, "scars").with("count", places.len()),
        Ok(ItemSeen::Checkpoint(checkpoint)) => Line::new(at, "checkpoint")
            .with("group", checkpoint.group.0)
            .wide("index", checkpoint.index.0)
            .wide("term", checkpoint.term.0)
            .wide("next_offset", checkpoint.next_offset.0)
            .sum("block_sum", checkpoint.block_sum)
            .with("segment", checkpoint.segment)
            .wide("segment_size", checkpoint.segment_size)
            .with("producers", checkpoint.producers.len()),
        Err((error, group)) => {
            let mut line = match (BlockHeader::read(&item.bytes), group) {
                (Ok(header), _) => block_line(at, &header),
                (Err(_), Some(group)) => Line::new(at, "item")
                    .with("group", group.0)
                    .with("size", item.bytes.len()),
                (Err(_), None) => Line::new(at, "item").with("size", item.bytes.len()),
            };
            line.error = Some(error.to_string());
            line
        }
    };
    line.depth = 1;
    line
}

fn block_line(at: u64, header: &BlockHeader) -> Line {
    let contents = match header.kind {
        BlockKind::Records => "records",
        BlockKind::NoOp => "no-op",
        BlockKind::Configuration => "configuration",
        BlockKind::Trim => "trim",
    };
    Line::new(at, "block")
        .with("group", header.group.0)
        .wide("index", header.index.0)
        .wide("term", header.term.0)
        .wide("first_offset", header.first_offset.0)
        .wide("end_offset", header.next_offset().0)
        .with("contents", contents)
        .with("appends", header.append_count)
        .with("size", header.size)
        .sum("sum", header.sum)
        .sum("previous_sum", header.previous_sum)
        .wide("commit", header.commit.0)
}

fn record_lines(at: u64, depth: usize, bytes: &[u8]) -> Vec<Line> {
    let Ok(block) = Block::check(bytes) else {
        return Vec::new();
    };
    if block.header().kind != BlockKind::Records {
        return Vec::new();
    }
    let line = |(offset, record): (ringwood_core::id::Offset, &[u8])| {
        let mut line = Line::new(at, "record")
            .wide("offset", offset.0)
            .with("size", record.len())
            .with("bytes", record.escape_ascii().to_string());
        line.depth = depth;
        line
    };
    block.records().map(line).collect()
}
