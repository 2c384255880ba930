//! What a run did: one number, and, when somebody reads, a record for each thing.
//!
//! The number is the proof that a seed replays: two runs of a seed that differ anywhere differ
//! here. Records are only made when somebody reads them.

use std::collections::BTreeMap;
use std::fmt::{self, Arguments};

use crate::id::{GroupId, Index, Nanos, Term};
use crate::raft::Role;

/// Takes the records of a run, one by one.
pub type Sink<'s> = &'s mut dyn FnMut(&Record<'_>);

/// Whose record it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lane {
    /// Nobody's: the network, or the run itself.
    World,
    /// A node's, by its number from 0.
    Node(usize),
    /// A client's, by its number from 0.
    Client(usize),
}

impl fmt::Display for Lane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::World => f.pad("-"),
            Self::Node(number) => f.pad(&format!("node {number}")),
            Self::Client(number) => f.pad(&format!("client {number}")),
        }
    }
}

/// Where a group stands, on the node whose record it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// The group.
    pub group: GroupId,
    /// Its term there.
    pub term: Term,
    /// What is decided, as far as known there.
    pub commit: Index,
    /// The last block there.
    pub last: Index,
}

/// One thing that happened.
#[derive(Clone, Copy, Debug)]
pub struct Record<'r> {
    /// True time since the run began.
    pub at: Nanos,
    /// The event it happened in, counted from 1.
    pub event: u64,
    /// Whose it is.
    pub lane: Lane,
    /// What it is, as one word.
    pub kind: &'static str,
    /// The group it is about, where it is about one.
    pub standing: Option<Standing>,
    /// What happened, in words.
    pub text: Arguments<'r>,
}

impl fmt::Display for Record<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let micros = self.at.0 / 1000;
        let (millis, micros) = (micros / 1000, micros % 1000);
        let Self {
            lane, kind, text, ..
        } = self;
        write!(f, "{millis:>7}.{micros:03} ms  {lane:<9} {kind:<8} ")?;
        if let Some(Standing {
            group,
            term,
            commit,
            last,
        }) = self.standing
        {
            write!(f, "g{group} t{term} c{commit}/{last}  ")?;
        }
        f.write_fmt(*text)
    }
}

/// Odd, so that no product loses anything, and without pattern (the multiplier of PCG's 128 bits).
const FACTOR: u128 = 0x2360_ed05_1fc6_5da4_4385_df64_9fcc_f645;

/// The story of one run.
pub(super) struct Trace<'s> {
    sum: u128,
    at: Nanos,
    event: u64,
    sink: Option<Sink<'s>>,
    /// What the last records said of each replica; only kept while somebody reads.
    known: BTreeMap<(usize, GroupId), (Role, Standing)>,
}

impl<'s> Trace<'s> {
    pub(super) fn new(sink: Option<Sink<'s>>) -> Self {
        Self {
            sum: 0,
            at: Nanos(0),
            event: 0,
            sink,
            known: BTreeMap::new(),
        }
    }

    /// The next event begins.
    pub(super) fn begin(&mut self, at: Nanos) {
        self.at = at;
        self.event += 1;
        self.mix(at.0);
    }

    /// Events begun.
    pub(super) fn event(&self) -> u64 {
        self.event
    }

    /// Adds to the number.
    pub(super) fn mix(&mut self, number: u64) {
        let sum = (self.sum ^ u128::from(number)).wrapping_mul(FACTOR);
        // A product only carries upwards.
        self.sum = sum ^ sum >> 71;
    }

    /// Adds a record, if anybody reads.
    pub(super) fn say(&mut self, lane: Lane, kind: &'static str, text: Arguments<'_>) {
        self.tell(lane, kind, None, text);
    }

    /// Adds a record about a group, if anybody reads.
    pub(super) fn tell(
        &mut self,
        lane: Lane,
        kind: &'static str,
        standing: Option<Standing>,
        text: Arguments<'_>,
    ) {
        if let Some(sink) = &mut self.sink {
            sink(&Record {
                at: self.at,
                event: self.event,
                lane,
                kind,
                standing,
                text,
            });
        }
    }

    /// Adds a record if a replica is not as its last one said.
    pub(super) fn stand(&mut self, node: usize, role: Role, standing: Standing) {
        let before = self.known.insert((node, standing.group), (role, standing));
        if before == Some((role, standing)) {
            return;
        }
        let is_turn =
            before.is_none_or(|(was, before)| was != role || before.term != standing.term);
        let (kind, text) = match role {
            _ if !is_turn => ("log", ""),
            Role::Follower => ("role", "follows"),
            Role::PreCandidate => ("role", "asks whether to stand"),
            Role::Candidate => ("role", "stands for election"),
            Role::Leader => ("role", "leads"),
        };
        self.tell(
            Lane::Node(node),
            kind,
            Some(standing),
            format_args!("{text}"),
        );
    }

    pub(super) fn is_read(&self) -> bool {
        self.sink.is_some()
    }

    pub(super) fn sum(&self) -> u128 {
        self.sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bit_of_every_number_counts() {
        let sum_of = |numbers: &[u64]| {
            let mut trace = Trace::new(None);
            numbers.iter().for_each(|number| trace.mix(*number));
            trace.sum()
        };
        let plain = sum_of(&[1, 2, 3]);
        for at in 0..3 {
            for bit in 0..64 {
                let mut numbers = [1, 2, 3];
                numbers[at] ^= 1 << bit;
                let differs = (sum_of(&numbers) ^ plain).count_ones();
                // The last number has passed the product once only.
                assert!(
                    differs >= 10,
                    "number {at}, bit {bit}: {differs} bits differ"
                );
            }
        }
        assert_ne!(plain, sum_of(&[2, 1, 3]));
    }

    #[test]
    fn a_record_is_one_line_in_its_lane() {
        let record = Record {
            at: Nanos(1_234_567_890),
            event: 7,
            lane: Lane::Node(2),
            kind: "role",
            standing: Some(Standing {
                group: GroupId(1),
                term: Term(3),
                commit: Index(4),
                last: Index(5),
            }),
            text: format_args!("leads"),
        };
        assert_eq!(
            record.to_string(),
            "   1234.567 ms  node 2    role     g1 t3 c4/5  leads"
        );
    }
}
