//! How the records of one `append` ended, and what to say about it.
//!
//! Keeps counts and the offsets at both ends. Knows no record and no connection.

use std::time::Duration;

use ringwood_net::client::{Durability, NotCommittedReason, Outcome};
use serde::Serialize;

use crate::exit::{Exit, Failure};
use crate::output::Wide;
use crate::units::show_duration;

/// How the records ended so far.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    first: Option<u64>,
    last: Option<u64>,
    term: Option<u64>,
    durability: Option<Durability>,
    count: u64,
    refused: u64,
    unknown: u64,
}

impl Tally {
    /// Counts one more. Outcomes come in the order of their records.
    pub(crate) fn note(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::Committed {
                offset,
                term,
                durability,
            } => {
                assert!(
                    self.last.is_none_or(|last| last < offset),
                    "offsets follow the order"
                );
                self.first.get_or_insert(offset);
                self.last = Some(offset);
                self.term = Some(term);
                self.durability = Some(durability);
                self.count += 1;
            }
            Outcome::NotCommitted(_) => self.refused += 1,
            Outcome::Unknown => self.unknown += 1,
        }
    }

    /// Counts records whose outcome nobody waits for any more.
    pub(crate) fn give_up(&mut self, count: usize) {
        self.unknown += count as u64;
    }

    /// Whether there are records that may be in the log or not.
    pub(crate) fn has_unknown(&self) -> bool {
        self.unknown > 0
    }

    /// What to report.
    pub(crate) fn summary<'a>(&self, log: &'a str) -> Summary<'a> {
        Summary {
            schema: "ringwood.append/v1",
            log,
            first: self.first.map(Wide),
            last: self.last.map(Wide),
            count: Wide(self.count),
            term: self.term.map(Wide),
            durability: self.durability.map(Durability::word),
            unknown: Wide(self.unknown),
            refused: Wide(self.refused),
        }
    }

    /// Somebody has to look before trying again.
    pub(crate) fn unknown_failure(&self, log: &str) -> Failure {
        let cause = format!("{} may be in {log} or not", records(self.unknown));
        let place = match self.last {
            Some(last) => format!("from offset {} on", last + 1),
            None => "at its end".to_string(),
        };
        Failure::new(Exit::Unknown, cause).fix(format!(
            "look {place} ('ringwood read {log} --from ..') before appending again"
        ))
    }

    /// The log did not take some, after `waited`; `is_reached`: although nodes answer.
    pub(crate) fn refused_failure(
        &self,
        reason: NotCommittedReason,
        waited: Duration,
        is_reached: bool,
    ) -> Failure {
        let refused = records(self.refused);
        let waited = show_duration(waited);
        let (exit, why, fix) = match reason {
            NotCommittedReason::NotLeader if !is_reached => (
                Exit::Unreachable,
                format!("no node answered for {waited}"),
                "start the nodes",
            ),
            NotCommittedReason::NotLeader => (
                Exit::NoLeader,
                format!("the log had no leader for {waited}"),
                "'ringwood status' shows which nodes are missing for a majority",
            ),
            NotCommittedReason::UnknownLog => (
                Exit::Refused,
                "there is no such log".into(),
                "'ringwood status' lists the logs",
            ),
            NotCommittedReason::RecordTooLarge => (
                Exit::Refused,
                "a record is too large".into(),
                "cut it, or store it elsewhere",
            ),
            NotCommittedReason::DiskFull => (
                Exit::Refused,
                "the leader's disk is full".into(),
                "free space there, then append the rest",
            ),
            NotCommittedReason::Overloaded => (
                Exit::Refused,
                format!("too much load for {waited}"),
                "append the rest later",
            ),
            NotCommittedReason::Stopping | NotCommittedReason::Transferring => (
                Exit::Refused,
                "the leader is handing over".into(),
                "append the rest",
            ),
            NotCommittedReason::SequenceGap
            | NotCommittedReason::Fenced
            | NotCommittedReason::WindowPassed
            | NotCommittedReason::Malformed => (
                Exit::Refused,
                format!("the log has lost track of this producer ({reason})"),
                "append the rest: a new run is a new producer",
            ),
        };
        Failure::new(exit, format!("{refused} not appended: {why}")).fix(fix)
    }
}

/// What `append` reports. Fields are only ever added.
#[derive(Debug, Serialize)]
pub(crate) struct Summary<'a> {
    schema: &'static str,
    log: &'a str,
    /// Offset of the first record that is in the log; null if none is.
    first: Option<Wide>,
    last: Option<Wide>,
    /// Records that are in the log.
    count: Wide,
    /// Of the last one: the log's fencing token.
    term: Option<Wide>,
    durability: Option<&'static str>,
    /// Records that may be in the log or not.
    unknown: Wide,
    /// Records that were taken from the source and are not in the log.
    refused: Wide,
}

impl Summary<'_> {
    /// For people, a line.
    pub(crate) fn sentence(&self) -> String {
        let mut sentence = format!("appended {} to {}", records(self.count.0), self.log);
        if let (Some(first), Some(last), Some(term)) = (self.first, self.last, self.term) {
            let (first, last, term) = (first.0, last.0, term.0);
            sentence.push_str(&format!(": first {first}, last {last}, term {term}"));
        }
        if let Some(durability) = self.durability {
            sentence.push_str(&format!(", durable on a {durability}"));
        }
        if self.unknown.0 > 0 {
            sentence.push_str(&format!("; {} unknown", self.unknown.0));
        }
        sentence.push('\n');
        sentence
    }
}

fn records(count: u64) -> String {
    if count == 1 {
        "1 record".to_string()
    } else {
        format!("{count} records")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn committed(offset: u64) -> Outcome {
        Outcome::Committed {
            offset,
            term: 3,
            durability: Durability::Quorum,
        }
    }

    #[test]
    fn the_summary_counts_every_end() {
        let mut tally = Tally::default();
        for outcome in [committed(5), committed(6), committed(9)] {
            tally.note(outcome);
        }
        tally.note(Outcome::Unknown);
        tally.note(Outcome::NotCommitted(NotCommittedReason::SequenceGap));
        let summary = tally.summary("log-0");
        assert_eq!(
            summary.sentence(),
            "appended 3 records to log-0: first 5, last 9, term 3, durable on a quorum; 1 unknown\n"
        );
        let json = serde_json::to_value(&summary).expect("plain data");
        let expected = serde_json::json!({
            "schema": "ringwood.append/v1", "log": "log-0", "first": "5", "last": "9", "count": "3",
            "term": "3", "durability": "quorum", "unknown": "1", "refused": "1",
        });
        assert_eq!(json, expected);
        assert!(
            tally
                .unknown_failure("log-0")
                .to_string()
                .contains("from offset 10 on")
        );
    }

    #[test]
    fn nothing_appended_is_said_as_such() {
        assert_eq!(
            Tally::default().summary("l").sentence(),
            "appended 0 records to l\n"
        );
        let json = serde_json::to_value(Tally::default().summary("l")).expect("plain data");
        assert_eq!(json["first"], serde_json::Value::Null);
    }

    #[test]
    fn a_missing_leader_and_a_missing_cluster_exit_differently() {
        let failure = |reason, reached| {
            Tally::default()
                .refused_failure(reason, Duration::from_secs(30), reached)
                .exit()
        };
        assert_eq!(failure(NotCommittedReason::NotLeader, true), Exit::NoLeader);
        assert_eq!(
            failure(NotCommittedReason::NotLeader, false),
            Exit::Unreachable
        );
        assert_eq!(failure(NotCommittedReason::DiskFull, true), Exit::Refused);
    }
}
