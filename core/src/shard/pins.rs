//! Who another voter's directory is: whether it is the one that this node knew, and has gone on from
//! there. Its word counts only once that is durable here.
//!
//! ```text
//!   no pin                                      ─▶ pinned as it is: first contact
//!   another incarnation                         ─▶ refused: the directory was emptied or swapped
//!   a life below the pinned one                 ─▶ refused: it is older than what was known of it
//!   its starts have another number for the
//!   pinned life, or do not reach back to it     ─▶ refused: a copy, or a backup that went on
//!   otherwise                                   ─▶ pinned anew
//! ```
//! A voter that came back without what it had promised could help to elect a leader without
//! acknowledged blocks, or vote twice in a term; whoever refuses it loses a voter, and nothing else.
//! Knows no socket and no file.

use std::collections::BTreeMap;

use bytes::{BufMut, Bytes};

use crate::frame::code::RefusedReason;
use crate::id::{Incarnation, NodeId};
use crate::limits::{SECTOR_SIZE, START_COUNT_MAX, VOTER_COUNT_MAX};
use crate::log::arena::Arenas;
use crate::log::pins::{Pin, Pins, Start};

/// What a peer's hello says of its directory.
#[derive(Clone, Debug)]
pub(super) struct Directory {
    pub(super) incarnation: Incarnation,
    pub(super) life: u64,
    /// Numbers of its starts by life, the latest first; 0 where no such start is known.
    pub(super) starts: Vec<u64>,
}

/// What this node knows of starts, and how far that is on disk.
#[derive(Debug)]
pub(super) struct Known {
    node_tag: u32,
    pins: Pins,
    /// The sequence that each sector has, durably.
    stored: [u64; 2],
    /// The sector under way, and what it will have.
    writing: Option<(usize, u64)>,
    /// From this sequence on the present start is in it.
    begins_at: u64,
    /// Peers whose pin is durable only from a sequence on.
    waiting: BTreeMap<NodeId, u64>,
    /// Peers that were refused last, and why.
    refused: BTreeMap<NodeId, &'static str>,
    memory: Arenas,
}

impl Known {
    /// This node starts once more, in this life and under this number. `sector` is the one that holds
    /// what was read.
    pub(super) fn open(mut pins: Pins, sector: usize, node_tag: u32, start: Start) -> Self {
        assert!(start.life > pins.life(), "lives go up");
        assert!(start.number != 0, "a start has a number");
        let mut stored = [0, 0];
        stored[sector] = pins.sequence;
        pins.sequence += 1;
        pins.starts.insert(0, start);
        pins.starts.truncate(START_COUNT_MAX);
        Self {
            node_tag,
            begins_at: pins.sequence,
            pins,
            stored,
            writing: None,
            waiting: BTreeMap::new(),
            refused: BTreeMap::new(),
            memory: Arenas::new(SECTOR_SIZE, 2),
        }
    }

    /// Whether this start is on disk. Before that nobody is told of it.
    pub(super) fn is_begun(&self) -> bool {
        self.stored.iter().any(|stored| *stored >= self.begins_at)
    }

    /// What a hello says of this start and those before: their numbers by life, the latest first.
    pub(super) fn starts(&self) -> (u64, Vec<u64>) {
        let life = self.pins.life();
        let number = |past: u64| {
            let mut starts = self.pins.starts.iter();
            let start = starts.find(|start| start.life + past == life);
            start.map_or(0, |start| start.number)
        };
        let past_max = life.min(START_COUNT_MAX as u64);
        (life, (0..past_max).map(number).collect())
    }

    /// A write that may leave now: byte position and sector.
    pub(super) fn next_write(&mut self) -> Option<(u64, Bytes)> {
        let sequence = self.pins.sequence;
        if self.writing.is_some() {
            return None;
        }
        let sector = usize::from(self.stored[0] > self.stored[1]);
        if self.stored[sector] == sequence || !self.memory.make_room(SECTOR_SIZE) {
            return None;
        }
        self.memory
            .current()
            .put_slice(&self.pins.encode(self.node_tag));
        self.writing = Some((sector, sequence));
        Some(((sector * SECTOR_SIZE) as u64, self.memory.cut().freeze()))
    }

    /// The write under way is durable.
    pub(super) fn on_stored(&mut self) {
        let (sector, sequence) = self.writing.take().expect("a write is under way");
        self.stored[sector] = sequence;
        self.waiting.retain(|_, wanted| *wanted > sequence);
    }

    /// Believes what a peer says of its directory, or says why not.
    pub(super) fn judge(
        &mut self,
        node: NodeId,
        directory: &Directory,
    ) -> Result<(), (RefusedReason, &'static str)> {
        let number = match directory.starts.first() {
            Some(number) if directory.life > 0 && *number > 0 => *number,
            _ => return Err((RefusedReason::BadFrame, "its hello names no start")),
        };
        let place = self.pins.pins.binary_search_by_key(&node, |pin| pin.node);
        if let Ok(place) = place
            && let Err((reason, why)) = judge(&self.pins.pins[place], directory)
        {
            self.refused.insert(node, why);
            return Err((reason, why));
        }
        self.refused.remove(&node);
        let pin = Pin {
            node,
            incarnation: directory.incarnation,
            start: Start {
                life: directory.life,
                number,
            },
        };
        match place {
            Ok(place) if self.pins.pins[place] == pin => return Ok(()),
            Ok(place) => self.pins.pins[place] = pin,
            Err(place) => self.pins.pins.insert(place, pin),
        }
        assert!(
            self.pins.pins.len() <= VOTER_COUNT_MAX,
            "only voters are pinned"
        );
        self.pins.sequence += 1;
        self.waiting.insert(node, self.pins.sequence);
        Ok(())
    }

    /// Whether what a peer says counts: its pin is on disk.
    pub(super) fn is_pinned(&self, node: NodeId) -> bool {
        !self.waiting.contains_key(&node)
    }

    /// Whether this replica of a log takes no part any more, by the log's place among the node's.
    pub(super) fn is_stopped(&self, position: usize) -> bool {
        self.pins.stopped.contains(&position)
    }

    /// From now on it takes no part, whatever process begins on this directory.
    pub(super) fn stop(&mut self, position: usize) {
        if self.pins.stopped.insert(position) {
            self.pins.sequence += 1;
        }
    }

    /// The peers that this node refuses, and why.
    pub(super) fn refused(&self) -> impl Iterator<Item = (NodeId, &'static str)> {
        self.refused.iter().map(|(node, why)| (*node, *why))
    }
}

fn judge(pin: &Pin, directory: &Directory) -> Result<(), (RefusedReason, &'static str)> {
    if directory.incarnation != pin.incarnation {
        let why = "its directory is not the one that this node knew under its name: it was emptied, \
            made anew or swapped; put the old one back";
        return Err((RefusedReason::WrongIncarnation, why));
    }
    if directory.life < pin.start.life {
        let why = "its directory is older than what this node knew of it: it came from a backup or \
            is a copy; put the newer one back";
        return Err((RefusedReason::StaleDirectory, why));
    }
    let past = usize::try_from(directory.life - pin.start.life).ok();
    let number = past.and_then(|past| directory.starts.get(past));
    if number != Some(&pin.start.number) {
        let why = "its directory has not gone on from where this node knew it: it is a copy, or came \
            from a backup; put the other one back";
        return Err((RefusedReason::CopiedDirectory, why));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: NodeId = NodeId(2);
    const TAG: u32 = 5;

    fn directory(incarnation: u64, starts: &[u64]) -> Directory {
        Directory {
            incarnation: Incarnation(incarnation),
            life: starts.len() as u64,
            starts: starts.iter().rev().copied().collect(),
        }
    }

    fn known(file: &[u8], number: u64) -> Known {
        let (pins, sector) = Pins::newest(file, TAG).expect("sound");
        let life = pins.life() + 1;
        Known::open(pins, sector, TAG, Start { life, number })
    }

    /// Writes what is to be written, at most so many sectors.
    fn write(known: &mut Known, file: &mut [u8], count: usize) {
        for _ in 0..count {
            let Some((position, sector)) = known.next_write() else {
                return;
            };
            assert!(known.next_write().is_none(), "one at a time");
            file[position as usize..][..SECTOR_SIZE].copy_from_slice(&sector);
            known.on_stored();
        }
    }

    #[test]
    fn a_voter_is_taken_for_itself_only_if_its_directory_went_on() {
        let mut known = known(&[], 1);
        assert_eq!(
            known.judge(PEER, &directory(7, &[11, 12])),
            Ok(()),
            "first contact"
        );
        let reason = |known: &mut Known, directory: &Directory| {
            known.judge(PEER, directory).map_err(|(reason, _)| reason)
        };
        for (who, verdict) in [
            (directory(8, &[11, 12]), RefusedReason::WrongIncarnation),
            (directory(8, &[11, 12, 13]), RefusedReason::WrongIncarnation),
            (directory(7, &[11]), RefusedReason::StaleDirectory),
            (directory(7, &[11, 22]), RefusedReason::CopiedDirectory),
            (directory(7, &[11, 22, 23]), RefusedReason::CopiedDirectory),
            (directory(7, &[]), RefusedReason::BadFrame),
        ] {
            assert_eq!(reason(&mut known, &who), Err(verdict), "{who:?}");
        }
        assert_eq!(known.refused().count(), 1);
        // The same again, on another lane; then two lives on, of which one was never heard.
        assert_eq!(reason(&mut known, &directory(7, &[11, 12])), Ok(()));
        assert_eq!(reason(&mut known, &directory(7, &[11, 12, 13, 14])), Ok(()));
        assert_eq!(known.refused().count(), 0);
        let old = directory(7, &[11, 12]);
        assert_eq!(reason(&mut known, &old), Err(RefusedReason::StaleDirectory));
        // So many lives on that nobody can tell.
        let many: Vec<u64> = (11..200).collect();
        let mut far = directory(7, &many);
        far.starts.truncate(START_COUNT_MAX);
        assert_eq!(
            reason(&mut known, &far),
            Err(RefusedReason::CopiedDirectory)
        );
    }

    #[test]
    fn a_copy_does_not_become_the_voter_by_starting_often() {
        let mut known = known(&[], 1);
        let original: Vec<u64> = (1..=5).collect();
        assert_eq!(known.judge(PEER, &directory(7, &original)), Ok(()));
        // Copied at the fourth life, and started again and again since.
        let mut copy = vec![1, 2, 3, 4];
        for number in 0..100 {
            copy.push(1_000 + number);
            let mut copy = directory(7, &copy);
            copy.starts.truncate(START_COUNT_MAX);
            assert!(known.judge(PEER, &copy).is_err(), "start {number}");
        }
    }

    #[test]
    fn nothing_counts_before_it_is_on_disk() {
        let mut file = vec![0; 2 * SECTOR_SIZE];
        let mut known = known(&file, 100);
        assert!(!known.is_begun());
        write(&mut known, &mut file, 1);
        assert!(known.is_begun());
        known
            .judge(PEER, &directory(7, &[11]))
            .expect("first contact");
        assert!(!known.is_pinned(PEER));
        // A crash now: the other may be anybody.
        let mut forgetful = self::known(&file, 101);
        assert_eq!(forgetful.judge(PEER, &directory(8, &[1])), Ok(()));
        write(&mut known, &mut file, 1);
        assert!(known.is_pinned(PEER));
        for number in 102..110 {
            let mut next = self::known(&file, number);
            assert!(next.judge(PEER, &directory(8, &[1])).is_err());
            assert!(next.is_pinned(PEER), "it is known since an earlier life");
            write(&mut next, &mut file, 1 + number as usize % 2);
            let (life, starts) = next.starts();
            assert_eq!(
                (life, starts[0], starts[1]),
                (
                    number - 100,
                    number,
                    if number == 102 { 100 } else { number - 1 }
                )
            );
        }
    }

    #[test]
    fn each_change_reaches_both_sectors_the_older_first() {
        let mut file = vec![0; 2 * SECTOR_SIZE];
        let mut known = known(&file, 1);
        write(&mut known, &mut file, 9);
        assert_eq!(file[..SECTOR_SIZE], file[SECTOR_SIZE..]);
        // Whichever is being written when the power goes, the other is whole.
        for torn in 0..2 {
            let mut left = file.clone();
            left[torn * SECTOR_SIZE..][..SECTOR_SIZE / 2].fill(0xff);
            let mut next = self::known(&left, 2);
            let (position, _) = next.next_write().expect("it has begun");
            assert_eq!(position as usize, torn * SECTOR_SIZE);
            assert_eq!(next.starts(), (2, vec![2, 1]));
        }
    }
}
