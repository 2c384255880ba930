//! A run's records as lines: for people with a lane for each node, for programs as JSON.
//!
//! `ringwood.trace/v1` is described in docs/TESTING.md; fields are only ever added. Knows of a
//! record no more than what it carries.

use std::collections::BTreeMap;
use std::io::{self, Write};

use ringwood_core::sim::{Lane, Record, Swarm};
use serde::Serialize;

use crate::output::Wide;

/// How a node stands, as one letter in its lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mark {
    Down,
    Follower,
    Candidate,
    Leader,
}

impl Mark {
    fn letter(self) -> char {
        match self {
            Self::Down => '.',
            Self::Follower => 'f',
            Self::Candidate => 'c',
            Self::Leader => 'L',
        }
    }
}

/// Lines for people. What a node is in its lane is what it is in the first group it spoke of.
#[derive(Debug)]
pub(super) struct Story {
    nodes: Vec<Mark>,
}

impl Story {
    pub(super) fn new(node_count: usize) -> Self {
        Self {
            nodes: vec![Mark::Down; node_count],
        }
    }

    /// The line of a record: time, lanes with the one that acts in brackets, and what it did.
    pub(super) fn line(&mut self, record: &Record<'_>) -> String {
        let text = record.text.to_string();
        if let Lane::Node(node) = record.lane {
            let lane_count = self.nodes.len().max(node + 1);
            self.nodes.resize(lane_count, Mark::Down);
            self.nodes[node] = match (record.kind, text.as_str()) {
                ("start", _) => Mark::Follower,
                ("crash" | "left", _) => Mark::Down,
                ("role", "leads") => Mark::Leader,
                ("role", "follows") => Mark::Follower,
                ("role", _) => Mark::Candidate,
                _ => self.nodes[node],
            };
        }
        let mut lanes = String::with_capacity(3 * self.nodes.len());
        for (node, mark) in self.nodes.iter().enumerate() {
            let (open, close) = if record.lane == Lane::Node(node) {
                ('[', ']')
            } else {
                (' ', ' ')
            };
            lanes.extend([open, mark.letter(), close]);
        }
        let micros = record.at.0 / 1_000;
        let standing = record.standing.map_or(String::new(), |standing| {
            format!(
                "log {} term {} commit {}/{}  ",
                standing.group, standing.term, standing.commit, standing.last
            )
        });
        format!(
            "{:>7}.{:03} ms {lanes} {:<9} {:<8} {standing}{text}",
            micros / 1_000,
            micros % 1_000,
            record.lane,
            record.kind
        )
        .trim_end()
        .to_string()
    }
}

/// A run's options by name.
pub(super) fn options(swarm: &Swarm) -> BTreeMap<&'static str, String> {
    let choices = swarm.options().into_iter();
    choices.map(|choice| (choice.name, choice.value)).collect()
}

#[derive(Serialize)]
struct Head {
    schema: &'static str,
    seed: Wide,
    options: BTreeMap<&'static str, String>,
}

#[derive(Serialize)]
struct Line {
    at_ns: Wide,
    event: Wide,
    #[serde(skip_serializing_if = "Option::is_none")]
    node: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    client: Option<usize>,
    kind: &'static str,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    standing: Option<StandingFields>,
    text: String,
}

#[derive(Serialize)]
struct StandingFields {
    group: u32,
    term: Wide,
    commit: Wide,
    last: Wide,
}

/// Lines for programs, as they come; the first error of the writer is kept for the end.
pub(super) struct JsonLines<'w> {
    out: &'w mut dyn Write,
    result: io::Result<()>,
}

impl<'w> JsonLines<'w> {
    /// Writes the head: the schema, the seed, its options.
    pub(super) fn begin(out: &'w mut dyn Write, swarm: &Swarm) -> Self {
        let mut lines = Self {
            out,
            result: Ok(()),
        };
        lines.write(&Head {
            schema: "ringwood.trace/v1",
            seed: Wide(swarm.seed),
            options: options(swarm),
        });
        lines
    }

    /// Writes a record.
    pub(super) fn add(&mut self, record: &Record<'_>) {
        let (node, client) = match record.lane {
            Lane::World => (None, None),
            Lane::Node(node) => (Some(node), None),
            Lane::Client(client) => (None, Some(client)),
        };
        self.write(&Line {
            at_ns: Wide(record.at.0),
            event: Wide(record.event),
            node,
            client,
            kind: record.kind,
            standing: record.standing.map(|standing| StandingFields {
                group: standing.group.0,
                term: Wide(standing.term.0),
                commit: Wide(standing.commit.0),
                last: Wide(standing.last.0),
            }),
            text: record.text.to_string(),
        });
    }

    fn write(&mut self, line: &impl Serialize) {
        if self.result.is_ok() {
            self.result = serde_json::to_writer(&mut *self.out, line)
                .map_err(io::Error::from)
                .and_then(|()| self.out.write_all(b"\n"));
        }
    }

    /// Whether everything was written.
    pub(super) fn end(self) -> io::Result<()> {
        self.result
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ringwood_core::id::{GroupId, Index, Nanos, Term};
    use ringwood_core::sim::Standing;

    fn told<T>(
        lane: Lane,
        kind: &'static str,
        text: &str,
        tell: impl FnOnce(&Record<'_>) -> T,
    ) -> T {
        tell(&Record {
            at: Nanos(12_345_678),
            event: 9,
            lane,
            kind,
            standing: (kind == "role").then_some(Standing {
                group: GroupId(1),
                term: Term(3),
                commit: Index(4),
                last: Index(5),
            }),
            text: format_args!("{text}"),
        })
    }

    #[test]
    fn the_acting_lane_is_in_brackets_and_roles_stay() {
        let mut story = Story::new(3);
        for node in 0..3 {
            told(Lane::Node(node), "start", "life 1", |r| story.line(r));
        }
        let line = told(Lane::Node(1), "role", "leads", |r| story.line(r));
        assert_eq!(
            line,
            "     12.345 ms  f [L] f  node 1    role     log 1 term 3 commit 4/5  leads"
        );
        let line = told(Lane::Node(0), "crash", "ends", |r| story.line(r));
        assert!(line.contains("[.] L  f "), "{line}");
        let line = told(Lane::World, "calm", "faults end", |r| story.line(r));
        assert!(line.contains(" .  L  f "), "{line}");
    }

    #[test]
    fn json_lines_have_a_head_and_leave_out_what_is_not_there() {
        let mut bytes = Vec::new();
        let mut lines = JsonLines::begin(&mut bytes, &Swarm::new(17));
        told(Lane::Node(2), "role", "leads", |r| lines.add(r));
        told(Lane::World, "calm", "faults end", |r| lines.add(r));
        lines.end().expect("memory takes everything");
        let text = String::from_utf8(bytes).expect("JSON is text");
        let mut lines = text.lines();
        let head: serde_json::Value =
            serde_json::from_str(lines.next().expect("a head")).expect("JSON");
        assert_eq!(head["schema"], "ringwood.trace/v1");
        assert_eq!(head["seed"], "17");
        assert!(head["options"]["crash"].is_string());
        assert_eq!(
            lines.next().expect("a record"),
            r#"{"at_ns":"12345678","event":"9","node":2,"kind":"role","group":1,"term":"3","commit":"4","last":"5","text":"leads"}"#
        );
        assert_eq!(
            lines.next().expect("a record"),
            r#"{"at_ns":"12345678","event":"9","kind":"calm","text":"faults end"}"#
        );
    }
}
