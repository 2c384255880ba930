//! What a directory remembers of starts, its own and the other voters', in two sectors of one file.
//!
//! A start is a life of the journal and a number drawn for it. Who has seen a node's start knows by
//! the next hello whether the directory behind it is the same and has gone on from there: one that
//! was emptied has another incarnation, one that came back from a backup an older life, and one that
//! was copied has other numbers. Keeps the layout; what is refused is the shard's.
//!
//! ```text
//!  0       4     8         9      12         16         24            28          32
//!  | magic | sum | version | zero | node tag | sequence | start count | pin count | ...
//!  32                      1056
//!  | starts: life, number  | pins: node, incarnation, life, number | ...
//!  1280                                    1408
//!  | stopped: a bit for each log           | zeros to the sector's end
//! ```
//! A log is stopped where this directory holds something else than a majority does (`shard/agree.rs`).
//! It stands here because it must outlast a restart, as a pin must, and comes as seldom.
//!
//! Both sectors say the same but for the last change, which each has in turn.

use std::collections::BTreeSet;
use std::fmt;

use super::fields::{all_zero, put_u32, put_u64, u32_at, u64_at};
use super::sector_pair::{BODY_AT, SECTOR_PAIR_SIZE, SectorKind, sound_sectors};
use crate::id::{Incarnation, NodeId};
use crate::limits::{GROUP_COUNT_MAX, SECTOR_SIZE, START_COUNT_MAX, VOTER_COUNT_MAX};

/// Bytes of the file: two sectors.
pub const PINS_FILE_SIZE: usize = SECTOR_PAIR_SIZE;

const SEQUENCE_AT: usize = BODY_AT;
const START_COUNT_AT: usize = SEQUENCE_AT + 8;
const PIN_COUNT_AT: usize = START_COUNT_AT + 4;
const STARTS_AT: usize = PIN_COUNT_AT + 4;
const START_SIZE: usize = 16;
const PINS_AT: usize = STARTS_AT + START_COUNT_MAX * START_SIZE;
const PIN_SIZE: usize = 32;
const STOPPED_AT: usize = PINS_AT + VOTER_COUNT_MAX * PIN_SIZE;
const STOPPED_SIZE: usize = GROUP_COUNT_MAX / 8;
const END_AT: usize = STOPPED_AT + STOPPED_SIZE;

const KIND: SectorKind = SectorKind {
    magic: u32::from_le_bytes(*b"RWPN"),
    version: 1,
    end_at: END_AT,
};

/// One start of a node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Start {
    /// The journal's life that began with it.
    pub life: u64,
    /// Drawn for it; never 0.
    pub number: u64,
}

/// The last start that was seen of another voter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pin {
    /// The voter.
    pub node: NodeId,
    /// Its directory.
    pub incarnation: Incarnation,
    /// Its latest start.
    pub start: Start,
}

/// What one sector says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pins {
    /// Counts changes.
    pub sequence: u64,
    /// This directory's starts, the latest first, as far back as there is room.
    pub starts: Vec<Start>,
    /// Other voters, by ascending node.
    pub pins: Vec<Pin>,
    /// Places, among the node's logs, of those in which this replica takes no part any more.
    pub stopped: BTreeSet<usize>,
}

/// Neither sector can be believed. The disk is at fault, or the file is another node's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PinsDamaged;

impl fmt::Display for PinsDamaged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("both copies of what is known of starts are damaged or another node's")
    }
}

impl std::error::Error for PinsDamaged {}

impl Pins {
    /// The sector's bytes.
    #[must_use]
    pub fn encode(&self, node_tag: u32) -> [u8; SECTOR_SIZE] {
        assert!(self.starts.len() <= START_COUNT_MAX && self.pins.len() <= VOTER_COUNT_MAX);
        let mut bytes = [0; SECTOR_SIZE];
        put_u64(&mut bytes, SEQUENCE_AT, self.sequence);
        put_u32(&mut bytes, START_COUNT_AT, self.starts.len() as u32);
        put_u32(&mut bytes, PIN_COUNT_AT, self.pins.len() as u32);
        for (place, start) in self.starts.iter().enumerate() {
            put_start(&mut bytes, STARTS_AT + place * START_SIZE, start);
        }
        for (place, pin) in self.pins.iter().enumerate() {
            let at = PINS_AT + place * PIN_SIZE;
            put_u64(&mut bytes, at, pin.node.0);
            put_u64(&mut bytes, at + 8, pin.incarnation.0);
            put_start(&mut bytes, at + 16, &pin.start);
        }
        for place in &self.stopped {
            assert!(*place < GROUP_COUNT_MAX, "a node has no more logs");
            bytes[STOPPED_AT + place / 8] |= 1 << (place % 8);
        }
        KIND.seal(&mut bytes, node_tag);
        bytes
    }

    /// The newer of a file's two sectors, and which that is: the next write must spare it. What a new
    /// directory knows, if none was ever written whole.
    ///
    /// # Errors
    /// [`PinsDamaged`].
    pub fn newest(file: &[u8], node_tag: u32) -> Result<(Self, usize), PinsDamaged> {
        let sound = sound_sectors(file, |bytes| Self::check(bytes, node_tag));
        if let Some(newest) = sound.max_by_key(|(pins, _)| pins.sequence) {
            return Ok(newest);
        }
        // The first write of all may be torn; then nobody was told of that start.
        let sectors = file.chunks(SECTOR_SIZE).take(2);
        if sectors.filter(|bytes| !all_zero(bytes)).count() < 2 {
            Ok((Self::default(), 1))
        } else {
            Err(PinsDamaged)
        }
    }

    /// Which of a file's two sectors are damaged. One of them may be, by a crash; a file that ends too
    /// early has lost what should be there.
    #[must_use]
    pub fn damaged_sectors(file: &[u8], node_tag: u32) -> Vec<usize> {
        let sector = |at: usize| file.get(at * SECTOR_SIZE..(at + 1) * SECTOR_SIZE);
        let is_damaged = |at: &usize| {
            let is_sound = |bytes| all_zero(bytes) || Self::check(bytes, node_tag).is_some();
            !sector(*at).is_some_and(is_sound)
        };
        (0..2).filter(is_damaged).collect()
    }

    fn check(bytes: &[u8], node_tag: u32) -> Option<Self> {
        let (start_count, pin_count) = match KIND.is_sound(bytes, node_tag) {
            true => (
                u32_at(bytes, START_COUNT_AT) as usize,
                u32_at(bytes, PIN_COUNT_AT) as usize,
            ),
            false => return None,
        };
        if start_count > START_COUNT_MAX || pin_count > VOTER_COUNT_MAX {
            return None;
        }
        let starts = (0..start_count).map(|place| start_at(bytes, STARTS_AT + place * START_SIZE));
        let pins = (0..pin_count).map(|place| {
            let at = PINS_AT + place * PIN_SIZE;
            Pin {
                node: NodeId(u64_at(bytes, at)),
                incarnation: Incarnation(u64_at(bytes, at + 8)),
                start: start_at(bytes, at + 16),
            }
        });
        Some(Self {
            sequence: u64_at(bytes, SEQUENCE_AT),
            starts: starts.collect(),
            pins: pins.collect(),
            stopped: (0..GROUP_COUNT_MAX)
                .filter(|place| bytes[STOPPED_AT + place / 8] >> (place % 8) & 1 == 1)
                .collect(),
        })
    }

    /// This directory's latest life; 0 before the first.
    #[must_use]
    pub fn life(&self) -> u64 {
        self.starts.first().map_or(0, |start| start.life)
    }
}

fn put_start(bytes: &mut [u8], at: usize, start: &Start) {
    put_u64(bytes, at, start.life);
    put_u64(bytes, at + 8, start.number);
}

fn start_at(bytes: &[u8], at: usize) -> Start {
    Start {
        life: u64_at(bytes, at),
        number: u64_at(bytes, at + 8),
    }
}

const _: () = assert!(PINS_AT == 1056 && STOPPED_AT == 1280 && END_AT <= SECTOR_SIZE);

#[cfg(test)]
mod tests {
    use super::*;

    const TAG: u32 = 77;

    fn pins(sequence: u64) -> Pins {
        let start = |life| Start {
            life,
            number: life * 1_000 + 7,
        };
        let pin = |node| Pin {
            node: NodeId(node),
            incarnation: Incarnation(node + 100),
            start: start(node * 3),
        };
        Pins {
            sequence,
            starts: (1..=START_COUNT_MAX as u64).rev().map(start).collect(),
            pins: (1..=VOTER_COUNT_MAX as u64).map(pin).collect(),
            stopped: BTreeSet::from([0, 9, GROUP_COUNT_MAX - 1]),
        }
    }

    fn file(first: &[u8], second: &[u8]) -> Vec<u8> {
        [first, second].concat()
    }

    #[test]
    fn the_newer_sector_counts_and_the_other_stands_in_for_it() {
        let (old, new) = (pins(8).encode(TAG), pins(9).encode(TAG));
        assert_eq!(Pins::newest(&file(&old, &new), TAG), Ok((pins(9), 1)));
        assert_eq!(Pins::newest(&file(&new, &old), TAG), Ok((pins(9), 0)));
        for at in 0..SECTOR_SIZE {
            let mut damaged = new;
            damaged[at] ^= 1 << (at % 8);
            assert_eq!(
                Pins::newest(&file(&damaged, &old), TAG),
                Ok((pins(8), 1)),
                "byte {at}"
            );
            assert_eq!(
                Pins::newest(&file(&damaged, &damaged), TAG),
                Err(PinsDamaged)
            );
        }
    }

    #[test]
    fn a_new_directory_knows_nothing_and_anothers_file_is_damage() {
        let zeros = [0; SECTOR_SIZE];
        let sound = pins(1).encode(TAG);
        assert_eq!(Pins::newest(&[], TAG), Ok((Pins::default(), 1)));
        assert_eq!(
            Pins::newest(&file(&zeros, &zeros), TAG),
            Ok((Pins::default(), 1))
        );
        let mut torn = sound;
        torn[512..].fill(0);
        assert_eq!(
            Pins::newest(&file(&torn, &zeros), TAG),
            Ok((Pins::default(), 1))
        );
        assert_eq!(
            Pins::newest(&file(&sound, &sound), TAG + 1),
            Err(PinsDamaged)
        );
        assert_eq!(
            Pins::newest(&file(&sound, &zeros)[..SECTOR_SIZE + 9], TAG),
            Ok((pins(1), 0))
        );
    }
}
