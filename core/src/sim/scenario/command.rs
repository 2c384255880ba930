//! The commands of a script: one line of words each, read whole before anything is played.
//!
//! Knows no cluster. Nodes are numbered from 1 in scripts and from 0 everywhere else.

use super::super::network::Party;
use super::stage::Deed;
use crate::frame::code::ReadMode;
use crate::id::{Nanos, Term};

/// A node by its number, or a client by its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Node(Party),
    Client(String),
}

/// What must be true where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Expectation {
    /// Who leads in the highest term is one of these.
    Leader { among: Vec<Party> },
    /// None of these leads.
    NoLeader { among: Vec<Party> },
    /// One node leads, and every other that is up follows it.
    OneLeader,
    /// Nobody began to lead since the block began.
    NoNewLeader,
    /// No node is in a higher term.
    TermsUpTo(Term),
    /// These nodes have these records decided, and no others.
    Log {
        nodes: Vec<Party>,
        records: Vec<String>,
    },
    /// The last answer about an append, in its first words.
    Told {
        client: String,
        text: String,
        answer: String,
    },
}

/// One line of a script.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Command {
    Nodes {
        count: usize,
        latency: Nanos,
    },
    Client {
        name: String,
        home: Option<Party>,
    },
    Move {
        name: String,
        home: Option<Party>,
    },
    Append {
        client: String,
        texts: Vec<String>,
    },
    Retry {
        client: String,
        text: String,
    },
    Read {
        client: String,
        mode: ReadMode,
    },
    Transfer {
        client: String,
        to: Party,
    },
    Cut {
        from: Vec<Place>,
        to: Vec<Place>,
        is_one_way: bool,
    },
    Heal,
    Flap {
        ends: [Place; 2],
        period: Nanos,
        span: Nanos,
    },
    Act {
        nodes: Vec<Party>,
        deed: Deed,
    },
    Run(Nanos),
    Settle,
    Logs,
    Leaders,
    Expect(Expectation),
}

/// From node to node where a script does not say otherwise: a room.
const LATENCY: Nanos = Nanos::from_micros(100);

/// Reads one command. `Err` says what is wrong with it.
pub(super) fn read(line: &str) -> Result<Command, String> {
    let words: Vec<&str> = line.split_whitespace().collect();
    Ok(match words.as_slice() {
        ["nodes", count] => Command::Nodes {
            count: number(count)?,
            latency: LATENCY,
        },
        ["nodes", count, "latency", latency] => Command::Nodes {
            count: number(count)?,
            latency: span(latency)?,
        },
        ["client", name] => Command::Client {
            name: name.to_string(),
            home: None,
        },
        ["client", name, "at", home] => Command::Client {
            name: name.to_string(),
            home: Some(node(home)?),
        },
        ["move", name, "to", home] => Command::Move {
            name: name.to_string(),
            home: Some(node(home)?),
        },
        ["free", name] => Command::Move {
            name: name.to_string(),
            home: None,
        },
        ["append", client, texts @ ..] if !texts.is_empty() => Command::Append {
            client: client.to_string(),
            texts: owned(texts),
        },
        ["retry", client, text] => Command::Retry {
            client: client.to_string(),
            text: text.to_string(),
        },
        ["read", client] => Command::Read {
            client: client.to_string(),
            mode: ReadMode::Linearizable,
        },
        ["read", client, mode] => Command::Read {
            client: client.to_string(),
            mode: read_mode(mode)?,
        },
        ["transfer", client, "to", to] => Command::Transfer {
            client: client.to_string(),
            to: node(to)?,
        },
        ["cut", from, "from", to] => Command::Cut {
            from: places(from)?,
            to: places(to)?,
            is_one_way: false,
        },
        ["cut", from, "->", to] => Command::Cut {
            from: places(from)?,
            to: places(to)?,
            is_one_way: true,
        },
        ["heal"] => Command::Heal,
        ["flap", ends, "every", period, "for", span_word] => {
            let (a, b) = ends.split_once('-').ok_or("two ends, as in 1-2")?;
            Command::Flap {
                ends: [place(a)?, place(b)?],
                period: span(period)?,
                span: span(span_word)?,
            }
        }
        ["crash", nodes_word] => act(nodes_word, Deed::Crash)?,
        ["power", nodes_word] => act(nodes_word, Deed::LosePower)?,
        ["restart", nodes_word] => act(nodes_word, Deed::Restart)?,
        ["pause", nodes_word, "for", time] => act(nodes_word, Deed::Pause(span(time)?))?,
        ["clock", nodes_word, "jumps", time] => act(nodes_word, Deed::Jump(span(time)?))?,
        ["clock", nodes_word, "gains", gain] => {
            let per_mille = gain.strip_suffix("/1000").unwrap_or(gain);
            let per_mille = per_mille.parse().map_err(|_| "a gain, as in -50/1000")?;
            act(nodes_word, Deed::Drift { per_mille })?
        }
        ["disk", nodes_word, "slower", "by", time] => act(nodes_word, Deed::SlowDisk(span(time)?))?,
        ["run", time] => Command::Run(span(time)?),
        ["settle"] => Command::Settle,
        ["logs"] => Command::Logs,
        ["leaders"] => Command::Leaders,
        ["expect", expectation @ ..] => Command::Expect(expect(expectation)?),
        _ => return Err("no such command".to_owned()),
    })
}

fn expect(words: &[&str]) -> Result<Expectation, String> {
    Ok(match words {
        ["leader", "in", among] => Expectation::Leader {
            among: nodes(among)?,
        },
        ["no", "leader", "in", among] => Expectation::NoLeader {
            among: nodes(among)?,
        },
        ["one", "leader"] => Expectation::OneLeader,
        ["no", "new", "leader"] => Expectation::NoNewLeader,
        ["terms", "<=", term] => Expectation::TermsUpTo(Term(number(term)? as u64)),
        ["log", nodes_word, "is", records @ ..] => Expectation::Log {
            nodes: nodes(nodes_word)?,
            records: owned(records),
        },
        ["told", client, text, "is", answer @ ..] if !answer.is_empty() => Expectation::Told {
            client: client.to_string(),
            text: text.to_string(),
            answer: answer.join(" "),
        },
        _ => return Err("no such expectation".to_owned()),
    })
}

fn act(nodes_word: &str, deed: Deed) -> Result<Command, String> {
    let nodes = nodes(nodes_word)?;
    Ok(Command::Act { nodes, deed })
}

fn owned(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| word.to_string()).collect()
}

fn number(word: &str) -> Result<usize, String> {
    word.parse().map_err(|_| format!("{word} is no number"))
}

fn node(word: &str) -> Result<Party, String> {
    let number = number(word)?;
    let party = number.checked_sub(1);
    party.ok_or_else(|| "nodes are numbered from 1".to_owned())
}

fn place(word: &str) -> Result<Place, String> {
    if word.starts_with(|first: char| first.is_ascii_digit()) {
        node(word).map(Place::Node)
    } else {
        Ok(Place::Client(word.to_owned()))
    }
}

/// One, or several as in `{1,2,c1}`.
fn places(word: &str) -> Result<Vec<Place>, String> {
    let inner = word
        .strip_prefix('{')
        .and_then(|rest| rest.strip_suffix('}'));
    inner.unwrap_or(word).split(',').map(place).collect()
}

fn nodes(word: &str) -> Result<Vec<Party>, String> {
    let only_node = |place| match place {
        Place::Node(node) => Ok(node),
        Place::Client(name) => Err(format!("{name} is no node")),
    };
    places(word)?.into_iter().map(only_node).collect()
}

fn span(word: &str) -> Result<Nanos, String> {
    let units = [("us", 1_000), ("ms", 1_000_000), ("s", 1_000_000_000)];
    for (unit, nanos) in units {
        if let Some(Ok(count)) = word.strip_suffix(unit).map(str::parse::<u64>) {
            return Ok(Nanos(count * nanos));
        }
    }
    Err(format!("{word} is no time, as in 80ms"))
}

fn read_mode(word: &str) -> Result<ReadMode, String> {
    let found = ReadMode::ALL.iter().find(|mode| mode.word() == word);
    found
        .copied()
        .ok_or_else(|| format!("{word} is no way to read"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_read_or_refused_with_a_reason() {
        let cut = Command::Cut {
            from: vec![Place::Node(0), Place::Client("c1".to_owned())],
            to: vec![Place::Node(2)],
            is_one_way: true,
        };
        assert_eq!(read("cut {1,c1} -> 3"), Ok(cut));
        assert_eq!(
            read("run 43s"),
            Ok(Command::Run(Nanos::from_millis(43_000)))
        );
        let drift = Deed::Drift { per_mille: -50 };
        let clock = Command::Act {
            nodes: vec![1, 2],
            deed: drift,
        };
        assert_eq!(read("clock {2,3} gains -50/1000"), Ok(clock));
        for wrong in [
            "",
            "jump",
            "run 5",
            "cut 0 from 1",
            "crash c1",
            "append c1",
            "flap 1 every 1s for 2s",
        ] {
            assert!(read(wrong).is_err(), "{wrong} is read");
        }
    }
}
