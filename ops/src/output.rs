//! What goes to stdout: text, tables, JSON documents; and what a write to it can come to.
//!
//! Knows no command's facts. Nothing here prints with `println!`, which panics when the reader of
//! a pipe has left. There is no colour anywhere, so NO_COLOR is respected by having nothing to do.

use std::io::{self, BufWriter, StdoutLock, Write};

use clap::ValueEnum;
use comfy_table::{ContentArrangement, Table};
use serde::{Serialize, Serializer};

use crate::exit::{Exit, Failure};

/// How facts are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    // Not doc comments: help would print them for every verb.
    // For people; may change in any version.
    Table,
    // For programs: one document with a "schema"; fields are only ever added.
    Json,
}

/// Whether anybody still reads our stdout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(crate) enum Reader {
    /// The write went through.
    Present,
    /// The pipe is closed, as by `head`. The reader has what it wanted: no reason to complain.
    Gone,
}

/// A 64-bit number in JSON: a string, because readers that keep numbers as doubles (jq, browsers)
/// would silently change it beyond 2^53.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Wide(pub(crate) u64);

impl Serialize for Wide {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

/// Writes `text` and flushes it.
pub(crate) fn print(text: &str) -> Result<Reader, Failure> {
    let mut stdout = io::stdout().lock();
    written(
        stdout
            .write_all(text.as_bytes())
            .and_then(|()| stdout.flush()),
    )
}

/// Writes `document` as JSON, indented, and a line's end.
pub(crate) fn print_json(document: &impl Serialize) -> Result<Reader, Failure> {
    let text = serde_json::to_string_pretty(document)
        .map_err(|error| Failure::new(Exit::Internal, format!("cannot write JSON: {error}")))?;
    print(&format!("{text}\n"))
}

/// What the result of a write to stdout means for the command.
pub(crate) fn written(result: io::Result<()>) -> Result<Reader, Failure> {
    match result {
        Ok(()) => Ok(Reader::Present),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(Reader::Gone),
        Err(error) => Err(
            Failure::new(Exit::Internal, format!("cannot write to stdout: {error}"))
                .fix("see where stdout leads: a full disk, or a closed descriptor"),
        ),
    }
}

/// Records on their way to stdout, buffered.
#[derive(Debug)]
pub(crate) struct RecordWriter {
    out: BufWriter<StdoutLock<'static>>,
    raw: bool,
}

impl RecordWriter {
    /// A writer of one record per line, or of the bytes alone if `raw`.
    pub(crate) fn new(raw: bool) -> Self {
        Self {
            out: BufWriter::with_capacity(128 << 10, io::stdout().lock()),
            raw,
        }
    }

    /// Writes a record, at once or later.
    pub(crate) fn write(&mut self, record: &[u8]) -> Result<Reader, Failure> {
        let end: &[u8] = if self.raw { b"" } else { b"\n" };
        written(
            self.out
                .write_all(record)
                .and_then(|()| self.out.write_all(end)),
        )
    }

    /// Writes what is still buffered.
    pub(crate) fn flush(&mut self) -> Result<Reader, Failure> {
        written(self.out.flush())
    }
}

/// Writes a message for people to stderr; if nobody reads that either, so be it.
pub(crate) fn message(text: impl std::fmt::Display) {
    let _ = writeln!(io::stderr(), "{text}");
}

/// This program as it was called, so that what is suggested can be pasted.
pub(crate) fn program() -> String {
    std::env::args()
        .next()
        .unwrap_or_else(|| "ringwood".to_string())
}

/// An empty table in the house style: no lines, columns two spaces apart, a heading in capitals.
pub(crate) fn table(heading: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(comfy_table::presets::NOTHING);
    table.set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(heading);
    table
}

/// The table's text without trailing spaces, each line with its end.
pub(crate) fn table_text(table: &mut Table) -> String {
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table
        .lines()
        .map(|line| format!("{}\n", line.trim_end()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wide_number_is_a_string_in_json() {
        let text = serde_json::to_string(&[Some(Wide(u64::MAX)), None]).expect("plain data");
        assert_eq!(text, "[\"18446744073709551615\",null]");
    }

    #[test]
    fn a_reader_that_left_is_not_a_failure_and_a_full_disk_is() {
        let gone = written(Err(io::ErrorKind::BrokenPipe.into()));
        assert_eq!(gone.expect("not a failure"), Reader::Gone);
        let full = written(Err(io::ErrorKind::StorageFull.into()));
        assert_eq!(full.expect_err("a failure").exit(), Exit::Internal);
    }

    #[test]
    fn a_table_has_no_trailing_spaces() {
        let mut table = table(&["NODE", "STATE"]);
        table.add_row(["node-1", "up"]).add_row(["n", ""]);
        assert_eq!(table_text(&mut table), "NODE    STATE\nnode-1  up\nn\n");
    }
}
