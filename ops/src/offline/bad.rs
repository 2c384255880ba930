//! What is wrong with the files of a directory, told by log, records, file and byte.

use std::fmt::Display;

use ringwood_core::id::{Index, Offset};
use ringwood_core::log::offline::{Fault, FaultKind};
use ringwood_core::log::recovery::DiskFault;
use serde::Serialize;

use crate::output::Wide;

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Bad {
    /// The log; none if it may be any of them.
    pub(crate) log: Option<String>,
    /// Blocks that cannot be had from here, first and last.
    pub(crate) first_index: Option<Wide>,
    pub(crate) last_index: Option<Wide>,
    /// Their records: the first offset, and the one behind the last.
    pub(crate) first_offset: Option<Wide>,
    pub(crate) end_offset: Option<Wide>,
    /// The file, as it is called below the node's directory.
    pub(crate) file: String,
    /// Where in it.
    pub(crate) byte: Wide,
    /// How many bytes are in question; 0 where they are not there.
    pub(crate) size: Wide,
    /// What is wrong.
    pub(crate) what: String,
}

impl Bad {
    /// Something at a place, of which is not known what it held.
    pub(crate) fn at(file: impl Into<String>, byte: u64, size: u64, what: impl Display) -> Self {
        Self {
            log: None,
            first_index: None,
            last_index: None,
            first_offset: None,
            end_offset: None,
            file: file.into(),
            byte: Wide(byte),
            size: Wide(size),
            what: what.to_string(),
        }
    }

    /// The same, of a log.
    pub(crate) fn of(mut self, log: impl Into<String>) -> Self {
        self.log = Some(log.into());
        self
    }

    /// The same, with the blocks that it costs, first and last.
    pub(crate) fn blocks(mut self, blocks: Option<(Index, Index)>) -> Self {
        (self.first_index, self.last_index) = pair(blocks.map(|(first, last)| (first.0, last.0)));
        self
    }

    /// The same, with the records that it costs, the end not among them.
    pub(crate) fn offsets(mut self, offsets: Option<(Offset, Offset)>) -> Self {
        (self.first_offset, self.end_offset) = pair(offsets.map(|(first, end)| (first.0, end.0)));
        self
    }

    /// What an audit found in a log's segment.
    pub(crate) fn in_segment(log: &str, file: String, fault: &Fault) -> Self {
        Self::at(file, fault.position, fault.size, kind_words(fault.kind))
            .of(log)
            .blocks(fault.blocks)
            .offsets(fault.offsets)
    }

    /// The records in question, as people write a range.
    pub(crate) fn offset_words(&self) -> String {
        match (self.first_offset, self.end_offset) {
            (Some(Wide(first)), Some(Wide(end))) => format!("{first}..{end}"),
            _ => "-".to_string(),
        }
    }
}

fn pair(numbers: Option<(u64, u64)>) -> (Option<Wide>, Option<Wide>) {
    (
        numbers.map(|(first, _)| Wide(first)),
        numbers.map(|(_, last)| Wide(last)),
    )
}

fn kind_words(kind: FaultKind) -> String {
    match kind {
        FaultKind::Head(error) => format!("the first sector: {error}"),
        FaultKind::State(error) => format!("the state behind the first sector: {error}"),
        FaultKind::Footer(error) => format!("the footer: {error}"),
        FaultKind::Foreign => {
            "this segment is another node's, another log's or another one of this log".into()
        }
        FaultKind::Block(error) => error.to_string(),
        FaultKind::Unknown => "nothing that was written here".into(),
        FaultKind::Unreadable(fault) => fault_words(fault),
        FaultKind::Missing => "blocks are missing".into(),
        FaultKind::Unchained => "a block that does not follow the one before".into(),
    }
}

/// Why a read failed.
pub(crate) fn fault_words(fault: DiskFault) -> String {
    let error = std::io::Error::from_raw_os_error(fault.errno);
    format!("cannot be read: {error}")
}
