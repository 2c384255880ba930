//! Stories of whole clusters: a script says what befalls them, its transcript what came of it.
//!
//! A script opens with its story. Then blocks: commands, `----`, what they caused, an empty line.
//! The same words name the same things in every script:
//!
//! ```text
//! nodes 5 [latency 15ms]      a cluster that node 1 leads; latency is that of every way
//! client c1 [at 1]            bound to a node, or free to go where the leader is
//! move c1 to 2 | free c1      gives its connection up; free, it asks again what had no answer
//! append c1 a b               each word a record, asked for once if bound, until it is in if free
//! retry c1 a                  the same append again, under the number it had
//! read c1 [any_replica]       the whole log; linearizable if nothing else is said
//! transfer c1 to 2            asks for a hand-over
//! cut {1,2} from {3,c1}       nothing passes, either way       cut 1 -> {2,3}    or one way
//! heal                        all cuts are mended
//! flap 1-2 every 80ms for 5s  the link is gone for half of each 80 ms, while time is let run
//! crash 1 | power {1,2} | restart 1                            pause 1 for 10s
//! clock 2 gains -50/1000      clock 2 jumps 5s                 disk 1 slower by 200ms
//! run 300ms                   time passes                      settle            until all is well
//! logs | leaders              as each node tells them
//! expect leader in {3,4}      who leads in the highest term
//! expect no leader in {1,2}   expect one leader                expect no new leader (in this block)
//! expect terms <= 2           expect log {1,2} is a b          expect told c1 a is committed
//! ```
//!
//! Terms are counted from the script's beginning: node 1 leads in the first.
//!
//! The story is played twice where it has a foil: by the nodes that ship, and by a bully election
//! (`bully`), which shows what the same schedule does without quorums.

mod bully;
pub(super) mod cluster;
mod command;
mod player;
mod script;
pub(super) mod stage;

use std::fmt;

use super::failure::{Broken, caught};
use super::trace::Sink;
use bully::Bullies;
use cluster::{Cluster, Plan};
use command::Command;
use player::Player;
use script::{Line, Writer};
use stage::Stage;

use crate::limits::VOTER_COUNT_MAX;

/// All scripts are played with one seed: it decides who of several wins an election.
const SEED: u64 = 1;

/// Above every transcript of a bully election.
const FOIL_TITLE: &str =
    "# The same schedule, and a bully election: no terms, no votes, no majority.";

/// One story.
#[derive(Clone, Copy, Debug)]
pub struct Scenario {
    /// As the command line knows it, and the script's file.
    pub name: &'static str,
    /// The script with its transcript.
    pub script: &'static str,
    /// The transcript of a bully election under the same commands, if that is told.
    pub foil: Option<&'static str>,
}

macro_rules! scenarios {
    (@foil) => { None };
    (@foil $foil:literal) => { Some(include_str!(concat!("../../../scenarios/bully/", $foil, ".txt"))) };
    ($($name:literal $(and $foil:literal)?,)*) => {
        &[$(Scenario {
            name: $name,
            script: include_str!(concat!("../../../scenarios/", $name, ".txt")),
            foil: scenarios!(@foil $($foil)?),
        },)*]
    };
}

/// Every story, in the order in which they are best read.
#[must_use]
pub fn list() -> &'static [Scenario] {
    scenarios! {
        "incident-105" and "incident-105",
        "two-coasts" and "two-coasts",
        "flapping-link" and "flapping-link",
        "zombie-leader",
        "long-isolation",
        "asymmetric-cut",
        "lost-ack",
        "all-killed",
        "slow-disk",
        "slow-disks",
        "stalled-disk",
        "clocks",
        "even-split-4-2",
        "even-split-3-3",
        "four-nodes",
        "partial-partition",
    }
}

impl Scenario {
    /// The story of that name.
    #[must_use]
    pub fn find(name: &str) -> Option<&'static Self> {
        list().iter().find(|scenario| scenario.name == name)
    }

    /// What it tells, in one line.
    #[must_use]
    pub fn title(&self) -> &'static str {
        let first = self.script.lines().next().unwrap_or_default();
        first.trim_start_matches(['#', ' '])
    }
}

/// What came of a script.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Played {
    /// The script, with the transcript as it is now.
    pub text: String,
    /// Two nodes were seen to lead at once.
    pub two_leaders: bool,
    /// Records that were acknowledged and are in no log.
    pub lost_count: usize,
    /// Logs that were seen to have a record twice.
    pub doubled_count: usize,
}

/// Why a script cannot be played to its end, or must not have ended so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The line, from 1; 0 for the script as a whole.
    pub line: usize,
    /// What is wrong, in words.
    pub cause: String,
    /// The script and its transcript up to there.
    pub told: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(f, "{}", self.cause),
            line => write!(f, "line {line}: {}", self.cause),
        }
    }
}

/// Plays a script with the nodes that ship.
///
/// # Errors
/// If it cannot be read, an expectation is not met, an acknowledged record is lost or doubled, or
/// anything does not hold that must hold in every run.
pub fn play(script: &str, sink: Option<Sink<'_>>) -> Result<Played, Failure> {
    let lines = script::read(script)?;
    let plan = plan(&lines)?;
    let played = tell(&lines, &mut Cluster::new(&plan, sink), Telling::Whole)?;
    let (lost_count, doubled_count) = (played.lost_count, played.doubled_count);
    if lost_count + doubled_count > 0 {
        return Err(Failure {
            line: 0,
            cause: format!(
                "{lost_count} acknowledged records are lost, {doubled_count} are there twice"
            ),
            told: played.text,
        });
    }
    Ok(played)
}

/// Plays a script's commands with a bully election. Its expectations are not asked for: they are
/// what that cannot keep.
///
/// # Errors
/// If it cannot be read, or asks for what bullies do not have.
pub fn play_foil(script: &str) -> Result<Played, Failure> {
    let lines = script::read(script)?;
    let node_count = plan(&lines)?.node_count;
    tell(&lines, &mut Bullies::new(node_count), Telling::Foil)
}

/// What of a script is played and written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Telling {
    Whole,
    /// Commands without expectations, and without the story, which is another one.
    Foil,
}

/// The cluster that a script begins with.
fn plan(lines: &[Line<'_>]) -> Result<Plan, Failure> {
    let commands = || {
        lines.iter().filter_map(|line| match line {
            Line::Command {
                number, command, ..
            } => Some((*number, command)),
            Line::Comment(_) | Line::End => None,
        })
    };
    let is_client = |(_, command): &(usize, &Command)| matches!(command, Command::Client { .. });
    let client_count = commands().filter(is_client).count();
    match commands().next() {
        Some((_, Command::Nodes { count, latency })) if (1..=VOTER_COUNT_MAX).contains(count) => {
            Ok(Plan {
                node_count: *count,
                client_count,
                latency: *latency,
                seed: SEED,
            })
        }
        first => Err(Failure {
            line: first.map_or(0, |(number, _)| number),
            cause: format!("a script begins with its nodes, up to {VOTER_COUNT_MAX}"),
            told: String::new(),
        }),
    }
}

fn tell(lines: &[Line<'_>], stage: &mut dyn Stage, telling: Telling) -> Result<Played, Failure> {
    let mut player = Player::new(stage);
    let mut writer = Writer::default();
    if telling == Telling::Foil {
        writer.line(FOIL_TITLE);
        writer.end("");
    }
    for line in lines {
        match line {
            Line::Comment(text) if telling == Telling::Whole => writer.line(text),
            Line::Comment(_) => {}
            Line::Command {
                command: Command::Expect(_),
                ..
            } if telling == Telling::Foil => {}
            Line::Command {
                number,
                text,
                command,
            } => {
                writer.line(text);
                let done = caught(|| player.play(command));
                let done = done.map_err(|Broken { invariant, detail }| {
                    format!("broken: {invariant}\n{detail}")
                });
                if let Err(cause) = done.and_then(|done| done) {
                    writer.end(&player.end_block());
                    return Err(Failure {
                        line: *number,
                        cause: format!("{text}: {cause}"),
                        told: writer.finish(),
                    });
                }
            }
            Line::End => writer.end(&player.end_block()),
        }
    }
    Ok(Played {
        two_leaders: player.has_seen_two(),
        lost_count: player.lost_count(),
        doubled_count: player.doubled_count(),
        text: writer.finish(),
    })
}
