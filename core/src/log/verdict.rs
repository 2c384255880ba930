//! What recovery makes of a place where a flush is expected: the truth table, as data.
//!
//! Pure; knows neither bytes nor files.
//!
//! The columns, in the order in which they are found out:
//! - *header*: a flush header stands there whose sum, lsn and node are right (or could be put back
//!   from the second copy of its votes);
//! - *chained*: it names the flush before it by sequence and sum, and its life may follow;
//! - *items*: everything in it is right, sum by sum (again possibly from the second copy);
//! - *obsolete*: a flush header anywhere behind says that the file of this place is not needed;
//! - *promised*: a flush header anywhere behind says that all below a point beyond this place was
//!   durable when it was sealed, or the persist record says it; or the place cannot be read, which no
//!   torn write explains;
//! - *followed*: a flush header stands behind that may continue the journal.
//!
//! Headers behind count as witnesses even if their items are torn: what a header says was true
//! when it was sealed. Leftovers of lives that were cut off are no false witnesses: when the
//! journal was cut at X, no header behind said "durable beyond X" (it would have been a gap, not
//! an end), none can have been added since but by later lives, and those tell the truth about what
//! lies in the journal now. Of the persist record the same holds: it is written of what is durable,
//! and nothing durable is ever cut off.
//!
//! ```text
//!  header chained items obsolete promised followed
//!    1      1      1      -        -        -      accept   whole, and the next link
//!    1      1      0      1        -        -      skip     in a file that is being written over
//!    1      1      0      0        1        -      salvage  was whole once, and is needed
//!    1      1      0      0        0        -      end      a torn write
//!    1      0      -      1        -        -      skip     a file half written over
//!    1      0      -      0        1        1      gap      a write that came back as done is not there
//!    1      0      -      0        1        0      unsure   the same, and nothing behind it
//!    1      0      -      0        0        -      end      a leftover of an older life
//!    0      -      -      1        -        -      skip     a file half written over
//!    0      -      -      0        1        1      gap      was whole once, and is needed
//!    0      -      -      0        1        0      unsure   the same, and nothing behind it
//!    0      -      -      0        0        -      end      never written, or torn in its first sector
//! ```
//! *Accept* goes on behind the flush. *Skip* forgets what was read and starts again at the first
//! file needed. *Salvage* takes what is whole of the flush, and goes on behind it. *Gap* goes on at
//! the header that follows. In both, promises are lost, and only peers can bring them back. *Unsure*
//! ends the journal behind the place: nobody knows how much is lost. *End* is where the next life
//! begins: nothing from there on was promised.

/// What is known of a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sight {
    pub(super) header: bool,
    pub(super) chained: bool,
    pub(super) items: bool,
    pub(super) obsolete: bool,
    pub(super) promised: bool,
    pub(super) followed: bool,
}

/// What follows from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Accept,
    Skip,
    Salvage,
    Gap,
    Unsure,
    End,
}

struct Row {
    /// In the order of the columns; none where it does not matter.
    sight: [Option<bool>; 6],
    fate: Fate,
}

const YES: Option<bool> = Some(true);
const NO: Option<bool> = Some(false);
const ANY: Option<bool> = None;

const TABLE: [Row; 12] = [
    Row {
        sight: [YES, YES, YES, ANY, ANY, ANY],
        fate: Fate::Accept,
    },
    Row {
        sight: [YES, YES, NO, YES, ANY, ANY],
        fate: Fate::Skip,
    },
    Row {
        sight: [YES, YES, NO, NO, YES, ANY],
        fate: Fate::Salvage,
    },
    Row {
        sight: [YES, YES, NO, NO, NO, ANY],
        fate: Fate::End,
    },
    Row {
        sight: [YES, NO, ANY, YES, ANY, ANY],
        fate: Fate::Skip,
    },
    Row {
        sight: [YES, NO, ANY, NO, YES, YES],
        fate: Fate::Gap,
    },
    Row {
        sight: [YES, NO, ANY, NO, YES, NO],
        fate: Fate::Unsure,
    },
    Row {
        sight: [YES, NO, ANY, NO, NO, ANY],
        fate: Fate::End,
    },
    Row {
        sight: [NO, ANY, ANY, YES, ANY, ANY],
        fate: Fate::Skip,
    },
    Row {
        sight: [NO, ANY, ANY, NO, YES, YES],
        fate: Fate::Gap,
    },
    Row {
        sight: [NO, ANY, ANY, NO, YES, NO],
        fate: Fate::Unsure,
    },
    Row {
        sight: [NO, ANY, ANY, NO, NO, ANY],
        fate: Fate::End,
    },
];

impl Row {
    fn matches(&self, sight: &Sight) -> bool {
        let Sight {
            header,
            chained,
            items,
            obsolete,
            promised,
            followed,
        } = *sight;
        let seen = [header, chained, items, obsolete, promised, followed];
        self.sight
            .iter()
            .zip(seen)
            .all(|(want, seen)| want.is_none_or(|want| want == seen))
    }
}

/// Looks the sight up.
pub(super) fn fate(sight: &Sight) -> Fate {
    let row = TABLE.iter().find(|row| row.matches(sight));
    row.expect("every sight has its row").fate
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sights() -> impl Iterator<Item = Sight> {
        (0..64_u32).map(|bits| Sight {
            header: bits & 1 != 0,
            chained: bits & 2 != 0,
            items: bits & 4 != 0,
            obsolete: bits & 8 != 0,
            promised: bits & 16 != 0,
            followed: bits & 32 != 0,
        })
    }

    #[test]
    fn exactly_one_row_matches_each_sight() {
        for sight in sights() {
            let count = TABLE.iter().filter(|row| row.matches(&sight)).count();
            assert_eq!(count, 1, "{sight:?}");
        }
    }

    #[test]
    fn the_drawing_says_what_the_table_says() {
        let mut drawn = include_str!("verdict.rs")
            .lines()
            .filter_map(|line| line.strip_prefix("//!    "))
            .filter(|line| line.starts_with(['0', '1']));
        for row in &TABLE {
            let line = drawn.next().expect("a line of the drawing for each row");
            let mut words = line.split_whitespace();
            for cell in row.sight {
                let word = cell.map_or("-", |yes| if yes { "1" } else { "0" });
                assert_eq!(words.next(), Some(word), "{line}");
            }
            let fate = format!("{:?}", row.fate).to_lowercase();
            assert_eq!(words.next(), Some(fate.as_str()), "{line}");
        }
        assert_eq!(drawn.next(), None);
    }

    /// What each sight means, told as one would tell it.
    fn fate_slowly(sight: &Sight) -> Fate {
        if sight.header && sight.chained && sight.items {
            return Fate::Accept; // It is whole and the next link: nothing else matters.
        }
        // Something is wrong with this place. Does anybody miss what stood here?
        if sight.obsolete {
            return Fate::Skip;
        }
        if !sight.promised {
            return Fate::End;
        }
        // Somebody does. How much of it is known?
        match (sight.header && sight.chained, sight.followed) {
            (true, _) => Fate::Salvage,
            (false, true) => Fate::Gap,
            (false, false) => Fate::Unsure,
        }
    }

    #[test]
    fn the_table_agrees_with_the_telling() {
        for sight in sights() {
            assert_eq!(fate(&sight), fate_slowly(&sight), "{sight:?}");
        }
    }

    #[test]
    fn only_a_whole_and_chained_flush_is_accepted_and_nothing_promised_is_dropped() {
        for sight in sights() {
            let whole = sight.header && sight.chained && sight.items;
            assert_eq!(fate(&sight) == Fate::Accept, whole, "{sight:?}");
            if sight.promised && !sight.obsolete {
                assert_ne!(fate(&sight), Fate::End, "{sight:?}");
            }
        }
    }
}
