//! The journal of a directory that is looked at: what recovery would make of it, what of that is
//! damage, and what one should know besides.

use ringwood_core::id::Lsn;
use ringwood_core::limits::JOURNAL_FILE_SIZE;
use ringwood_core::log::block::BlockHeader;
use ringwood_core::log::offline::{FlushPiece, JournalPieces, What};
use ringwood_core::log::recovery::{Finding, Recovered, RecoveryError};
use ringwood_core::log::ring::Ring;
use ringwood_net::disk::journal_name;

use super::bad::{Bad, fault_words};
use super::{Directory, has_journal_size, journal_place};

/// A journal that was looked at.
pub(crate) struct Journal {
    /// What recovery found; none if it would refuse, or if there is no journal.
    pub(crate) recovered: Option<Recovered>,
    /// What was promised and is damaged.
    pub(crate) bad: Vec<Bad>,
    /// What is not damage: what a crash leaves.
    pub(crate) notes: Vec<String>,
}

impl Journal {
    /// Reads a directory's journal as the node's next start would. `tag` marks the node's files.
    pub(crate) fn read(directory: &Directory, tag: u32) -> Self {
        let mut journal = Self {
            recovered: None,
            bad: Vec::new(),
            notes: Vec::new(),
        };
        let files = directory.journal_files();
        if files.iter().all(Option::is_none) && !directory.path.join("journal.made").exists() {
            journal
                .notes
                .push("no journal: the node has never run".into());
            return journal;
        }
        for (slot, file) in (0..).zip(&files) {
            match file {
                None => journal
                    .bad
                    .push(Bad::at(journal_name(slot), 0, 0, "the file is missing")),
                Some(file) if !has_journal_size(file) => {
                    let (found, expected) = (file.size, JOURNAL_FILE_SIZE);
                    let what = format!("the file has {found} bytes, expected {expected}");
                    journal
                        .bad
                        .push(Bad::at(journal_name(slot), found.min(expected), 0, what));
                }
                Some(_) => {}
            }
        }
        match directory.recover(tag) {
            Ok(recovered) => {
                let healed_before = match recovered.is_healed() {
                    true => recovered.opened,
                    false => Lsn(0),
                };
                for finding in &recovered.findings {
                    journal.take(directory, tag, finding, healed_before);
                }
                journal.recovered = Some(recovered);
            }
            // Told above, and better.
            Err(RecoveryError::Unreadable { .. } | RecoveryError::Short { .. })
                if !journal.bad.is_empty() => {}
            Err(error) => journal.bad.extend(refused(directory, tag, &error)),
        }
        journal
    }

    /// A start that came after has brought back what it misses of a flush before `healed_before`.
    fn take(&mut self, directory: &Directory, tag: u32, finding: &Finding, healed_before: Lsn) {
        let place = |lsn: Lsn| journal_place(lsn);
        match *finding {
            Finding::Mended { lsn }
            | Finding::VoteCopyLost { lsn }
            | Finding::Salvaged { lsn }
            | Finding::Gap { from: lsn, .. }
                if lsn < healed_before =>
            {
                let (file, byte) = place(lsn);
                self.notes.push(format!(
                    "{file} at {byte}: damaged, and not needed: a later start has all that it held"
                ));
            }
            Finding::Dropped { lsn } => {
                let (file, byte) = place(lsn);
                self.notes.push(format!(
                    "{file} at {byte}: what a crash left from here on was never promised"
                ));
            }
            Finding::Skipped { file } => {
                let (file, _) = place(Ring::STANDARD.start_of(file));
                self.notes.push(format!(
                    "{file}: partly written over, and not needed any more"
                ));
            }
            Finding::Mended { lsn } => {
                let (file, byte) = place(lsn);
                let what = "a flush is damaged; the second copy of its votes mends it";
                self.bad.push(Bad::at(file, byte, 0, what));
            }
            Finding::VoteCopyLost { lsn } => {
                let (file, byte) = place(lsn);
                self.bad.push(Bad::at(
                    file,
                    byte,
                    0,
                    "the second copy of a flush's votes is damaged",
                ));
            }
            Finding::Salvaged { lsn } | Finding::Gap { from: lsn, .. } => {
                let (slot, position) = Ring::STANDARD.locate(lsn);
                let lost = RecoveryError::Damaged { slot, position };
                self.bad.extend(refused(directory, tag, &lost));
            }
            Finding::Unreadable {
                slot,
                position,
                count,
            } => {
                let what = format!("the disk does not give {count} sectors, of which this is one");
                self.bad
                    .push(Bad::at(journal_name(slot), position, 0, what));
            }
        }
    }
}

/// What recovery misses, or why it refuses, with what the place in question held as far as that can be told.
fn refused(directory: &Directory, tag: u32, error: &RecoveryError) -> Vec<Bad> {
    match *error {
        RecoveryError::Damaged { slot, position } => {
            let name = journal_name(slot);
            let file = directory.journal_files().swap_remove(slot as usize);
            let pieces = file.map(|file| {
                JournalPieces::new(Ring::STANDARD, file.size, Some(tag), file.reader())
            });
            let piece = pieces
                .into_iter()
                .flatten()
                .find(|piece| piece.position + piece.size > position);
            match piece.map(|piece| (piece.position, piece.what)) {
                Some((at, What::Flush(flush))) if at == position && flush.error.is_some() => {
                    damaged_items(directory, &name, position, &flush)
                }
                _ => vec![Bad::at(
                    name,
                    position,
                    0,
                    "a flush that was promised is not there",
                )],
            }
        }
        RecoveryError::Unreadable {
            slot,
            position,
            fault,
        } => {
            vec![Bad::at(journal_name(slot), position, 0, fault_words(fault))]
        }
        RecoveryError::Short { slot, position } => {
            vec![Bad::at(
                journal_name(slot),
                position,
                0,
                "the file ends here",
            )]
        }
        RecoveryError::Foreign { slot, .. } => {
            vec![Bad::at(
                journal_name(slot),
                0,
                JOURNAL_FILE_SIZE,
                "another node's journal",
            )]
        }
        RecoveryError::Contradiction { group, index } => {
            let what = format!("what stands in it contradicts itself at block {index}");
            vec![Bad::at("journal", 0, 0, what).of(directory.log_name(group))]
        }
        RecoveryError::Full => vec![Bad::at("journal", 0, 0, "no room to be opened in")],
    }
}

/// The damaged items of a flush. What a damaged one says of itself is most likely true, and told as
/// that.
fn damaged_items(directory: &Directory, file: &str, position: u64, flush: &FlushPiece) -> Vec<Bad> {
    let mut bad = Vec::new();
    for item in &flush.items {
        let Err((error, group)) = &item.item else {
            continue;
        };
        let byte = position + u64::from(item.offset);
        let mut one = Bad::at(file, byte, item.bytes.len() as u64, error);
        if let Some(group) = group {
            one = one.of(directory.log_name(*group));
        }
        if let Ok(header) = BlockHeader::read(&item.bytes) {
            one = one
                .blocks(Some((header.index, header.index)))
                .offsets(Some((header.first_offset, header.next_offset())));
        }
        bad.push(one);
    }
    if let (Some(error), true) = (&flush.error, bad.is_empty()) {
        bad.push(Bad::at(file, position, u64::from(flush.header.size), error));
    }
    bad
}
