//! Scripts: commands and the transcript of what they caused, as text in `tests/scripts`.
//!
//! `RINGWOOD_REWRITE=1 cargo test raft` writes the transcripts anew; read the diff. The first line
//! of a script says what it shows. Then blocks: commands, `----`, transcript, an empty line.
//!
//! ```text
//! nodes COUNT [GROUP]     all start, empty          log N: 1 1 2    N restarts with these terms
//! timeout N               N's timer fires next      wait 10ms       all timers that are due fire
//! deliver [A B]           what is on its way        drop [A B]      lose it
//! store N                 N's disk is done          settle          deliver and store until quiet
//! beat N                  a heartbeat leaves        propose N COUNT
//! read N ID               transfer N TO             refused N PEER  connected N PEER
//! crash N | restart N     isolate N | heal          full N          N's next copy has room for one
//! status                  logs                      pass 10ms       time passes, nothing fires
//! run 10ms                timers fire, leaders beat, all is delivered and stored at once
//! tick N                  fires what is due at N    quiet | loud    without, with messages
//! release N INDEX         N's segments hold all through INDEX
//! trim N INDEX            and N gives nobody what lies there any more
//! ```

use std::fmt::Write as _;
use std::path::Path;

use ringwood_core::id::{GroupId, Index, Nanos, NodeId, Term};
use ringwood_core::log::{Entry, HardState};
use ringwood_core::raft::{After, Message, Output, Role};

use super::host::{Did, Host, Wire, node};
use super::oracle::Oracle;

#[derive(Default)]
struct Stage {
    now: u64,
    hosts: Vec<Host>,
    wires: Vec<(NodeId, NodeId, Wire)>,
    isolated: Vec<usize>,
    full: Vec<usize>,
    oracle: Oracle,
    text: String,
    /// Messages are not written out.
    quiet: bool,
}

impl Stage {
    fn run(&mut self, line: &str) {
        let words: Vec<_> = line.split_whitespace().collect();
        let number = |i: usize| -> u64 {
            let word = words
                .get(i)
                .unwrap_or_else(|| panic!("{line}: a word is missing"));
            word.trim_end_matches(':')
                .parse()
                .unwrap_or_else(|_| panic!("{line}: no number"))
        };
        let host = |i: usize| number(i) as usize - 1;
        match words[0] {
            "nodes" => self.start(number(1), words.get(2).map_or(0, |_| number(2))),
            "log" => {
                let terms: Vec<_> = (2..words.len()).map(number).collect();
                self.preset(host(1), &terms);
            }
            "timeout" => {
                self.now = self.now.max(self.raft(host(1)).deadline().0);
                self.tick(host(1));
            }
            "wait" => self.wait(span(words[1])),
            "run" => self.play_for(span(words[1])),
            "tick" => self.tick(host(1)),
            "quiet" => self.quiet = true,
            "loud" => self.quiet = false,
            "pass" => self.now += span(words[1]),
            "deliver" | "drop" => {
                let pair = (words.len() > 2).then(|| (node(number(1)), node(number(2))));
                self.deliver(pair, words[0] == "deliver");
            }
            "store" => self.store(host(1)),
            "settle" => self.settle(),
            "beat" => self.act(host(1), |host, _| host.beat()),
            "propose" => {
                for salt in 0..number(2) {
                    let answer = self.raft(host(1)).can_propose();
                    if let Err(refusal) = answer {
                        writeln!(self.text, "{} refuses: {refusal:?}", number(1)).unwrap();
                        return;
                    }
                    self.hosts[host(1)].propose(salt as u32 + 1);
                }
                self.act(host(1), |_, _| ());
            }
            "read" => {
                self.oracle.begin_read(number(2));
                let id = number(2);
                self.act(host(1), |host, now| {
                    host.call(|raft, out| raft.read(now, id, out))
                });
            }
            "transfer" => {
                let to = node(number(2));
                let told =
                    self.hosts[host(1)].call(|raft, out| raft.transfer(Nanos(self.now), to, out));
                if let Err(refusal) = told {
                    writeln!(self.text, "{} refuses: {refusal:?}", number(1)).unwrap();
                }
                self.act(host(1), |_, _| ());
            }
            "refused" => {
                let peer = node(number(2));
                self.act(host(1), |host, now| {
                    host.call(|raft, out| raft.on_peer_refused(now, peer, out));
                });
            }
            "connected" => {
                let peer = node(number(2));
                self.act(host(1), |host, _| {
                    host.call(|raft, _| raft.on_peer_connected(peer))
                });
            }
            "release" => {
                let through = Index(number(2));
                self.act(host(1), |host, _| host.release(through));
            }
            "trim" => {
                let through = Index(number(2));
                self.act(host(1), |host, _| {
                    host.release(through);
                    host.trim(through);
                });
            }
            "crash" => self.hosts[host(1)].crash(0),
            "restart" => self.hosts[host(1)].restart(Nanos(self.now)),
            "isolate" => self.isolated.push(host(1)),
            "heal" => self.isolated.clear(),
            "full" => self.full.push(host(1)),
            "status" => self.write_status(),
            "logs" => self.write_logs(),
            other => panic!("no command {other}"),
        }
    }

    fn raft(&self, host: usize) -> &ringwood_core::raft::Raft {
        self.hosts[host].raft()
    }

    fn start(&mut self, count: u64, group: u64) {
        let group = GroupId(group as u32);
        self.hosts = (1..=count)
            .map(|id| Host::new(Nanos(0), group, id, count, 1))
            .collect();
    }

    /// Equal terms make equal blocks, so that logs match as they must.
    fn preset(&mut self, host: usize, terms: &[u64]) {
        let mut sum = 0;
        let block = |term: &u64| {
            sum = u32::rotate_left(sum, 5) ^ *term as u32;
            Entry {
                term: Term(*term),
                size: 64,
                sum,
                place: Default::default(),
                first_offset: Default::default(),
                record_count: 0,
            }
        };
        let host = &mut self.hosts[host];
        host.crash(0);
        host.durable.log = terms.iter().map(block).collect();
        let term = Term(terms.last().copied().unwrap_or(0));
        host.durable.hard = HardState { term, vote: None };
        host.restart(Nanos(self.now));
    }

    fn act(&mut self, host: usize, act: impl FnOnce(&mut Host, Nanos)) {
        act(&mut self.hosts[host], Nanos(self.now));
        self.hosts[host].end_turn(Nanos(self.now));
        let did = std::mem::take(&mut self.hosts[host].did);
        self.oracle.observe(&self.hosts, host, &did);
        let me = self.hosts[host].me();
        for deed in did {
            self.write_deed(me, &deed);
            if let Did::Send { to, wire } = deed {
                self.wires.push((me, to, wire));
            }
        }
    }

    fn tick(&mut self, host: usize) {
        self.act(host, |host, now| host.call(|raft, out| raft.tick(now, out)));
    }

    fn wait(&mut self, span: u64) {
        let end = self.now + span;
        loop {
            let due = |i: usize| {
                self.hosts[i]
                    .raft
                    .as_ref()
                    .map(|raft| (raft.deadline().0, i))
            };
            let next = (0..self.hosts.len())
                .filter_map(due)
                .min()
                .filter(|(at, _)| *at <= end);
            let Some((at, host)) = next else { break };
            self.now = self.now.max(at);
            self.tick(host);
        }
        self.now = end;
    }

    fn play_for(&mut self, span: u64) {
        let end = self.now + span;
        let was_quiet = std::mem::replace(&mut self.quiet, true);
        while self.now < end {
            self.now = (self.now + 1_000_000).min(end);
            for host in 0..self.hosts.len() {
                let Some(raft) = &self.hosts[host].raft else {
                    continue;
                };
                let beats = raft.is_leader() && (self.now / 1_000_000).is_multiple_of(30);
                if raft.deadline().0 <= self.now {
                    self.tick(host);
                }
                if beats {
                    self.act(host, |host, _| host.beat());
                }
            }
            self.settle();
        }
        self.quiet = was_quiet;
    }

    fn deliver(&mut self, pair: Option<(NodeId, NodeId)>, arrive: bool) -> bool {
        let (chosen, kept): (Vec<_>, Vec<_>) = std::mem::take(&mut self.wires)
            .into_iter()
            .partition(|(from, to, _)| pair.is_none_or(|pair| pair == (*from, *to)));
        self.wires = kept;
        let any = !chosen.is_empty();
        for (from, to, wire) in chosen.into_iter().filter(|_| arrive) {
            let (source, target) = (from.0 as usize - 1, to.0 as usize - 1);
            let apart = self.isolated.contains(&source) || self.isolated.contains(&target);
            if apart || self.hosts[target].raft.is_none() {
                continue;
            }
            let blocks = matches!(&wire, Wire::Append { entries, .. } if !entries.is_empty());
            let full = blocks && self.full.contains(&target);
            if full {
                self.full.retain(|host| *host != target);
            }
            let copy_max = if full { 1 } else { usize::MAX };
            self.act(target, |host, now| host.receive(now, from, wire, copy_max));
        }
        any
    }

    fn store(&mut self, host: usize) {
        let count = self.hosts[host].sealed_count();
        if count > 0 {
            self.act(host, |host, now| host.store(now, count));
        }
    }

    fn settle(&mut self) {
        let was_quiet = std::mem::replace(&mut self.quiet, true);
        for _ in 0..100 {
            let moved = self.deliver(None, true);
            let up = (0..self.hosts.len()).filter(|i| self.hosts[*i].raft.is_some());
            let busy: Vec<_> = up.filter(|i| self.hosts[*i].sealed_count() > 0).collect();
            busy.iter().for_each(|host| self.store(*host));
            if !moved && busy.is_empty() {
                self.quiet = was_quiet;
                return;
            }
        }
        panic!("never quiet");
    }

    fn write_deed(&mut self, me: NodeId, deed: &Did) {
        let line = match deed {
            Did::Send { .. } | Did::Output(Output::Send { .. }) if self.quiet => return,
            Did::Send { to, wire } => format!("{me}->{to} {}", wire_text(wire)),
            Did::Output(Output::Send {
                to,
                message,
                after: After::Stored(lsn),
            }) => {
                let text = wire_text(&Wire::Message(*message));
                format!("{me} holds for {to} until {lsn} is stored: {text}")
            }
            Did::Output(output) => match output_text(output) {
                Some(text) => format!("{me} {text}"),
                None => return,
            },
            Did::Pushed { .. } => return,
        };
        writeln!(self.text, "{line}").unwrap();
    }

    fn write_status(&mut self) {
        for host in &self.hosts {
            let me = host.me();
            let Some(raft) = &host.raft else {
                writeln!(self.text, "{me} down").unwrap();
                continue;
            };
            let role = match raft.role() {
                Role::Follower => "follower",
                Role::PreCandidate => "pre-candidate",
                Role::Candidate => "candidate",
                Role::Leader => "leader",
            };
            let leader = raft
                .leader()
                .map_or("-".to_string(), |leader| leader.to_string());
            writeln!(
                self.text,
                "{me} {role} of {leader} in term {}, commit {} durable {} last {}",
                raft.term(),
                raft.commit(),
                raft.durable(),
                raft.last(),
            )
            .unwrap();
        }
    }

    fn write_logs(&mut self) {
        for host in self.hosts.iter().filter(|host| host.raft.is_some()) {
            let terms = (1..=host.raft().last().0).map(|i| host.entry(Index(i)).term.to_string());
            let text = terms.collect::<Vec<_>>().join(" ");
            writeln!(self.text, "{}: {text}", host.me()).unwrap();
        }
    }
}

fn span(word: &str) -> u64 {
    let micros = word.strip_suffix("us").map(|number| (number, 1_000));
    let millis = word.strip_suffix("ms").map(|number| (number, 1_000_000));
    let (number, unit) = micros.or(millis).expect("a span ends in us or ms");
    number.parse::<u64>().expect("a span begins with a number") * unit
}

fn output_text(output: &Output) -> Option<String> {
    Some(match output {
        Output::Persist(HardState {
            term,
            vote: Some(vote),
        }) => {
            format!("persists term {term}, vote {vote}")
        }
        Output::Persist(HardState { term, vote: None }) => format!("persists term {term}"),
        Output::CatchUp { to, next } => format!("reads from {next} on for {to}"),
        Output::BecameLeader { term } => format!("leads term {term}"),
        Output::SteppedDown { term, .. } => format!("is in term {term}, not leading"),
        Output::Truncated { from } => format!("cuts from {from}"),
        Output::Doubts(doubt) if doubt.is_any() => format!("doubts {doubt:?}"),
        Output::Doubts(_) => "doubts nothing more".into(),
        Output::Committed { index } => format!("commits {index}"),
        Output::ReadReady { id, index } => format!("read {id} sees {index}"),
        Output::ReadFailed { id } => format!("read {id} failed"),
        Output::Send { .. } | Output::Replicate { .. } | Output::BeatNow => return None,
    })
}

fn wire_text(wire: &Wire) -> String {
    match wire {
        Wire::Message(Message::VoteRequest {
            pre,
            transfer,
            term,
            last_index,
            last_term,
        }) => {
            let kind = if *pre { "pre-vote" } else { "vote" };
            let why = if *transfer { " for a transfer" } else { "" };
            format!("{kind} in term {term}{why}? last {last_index}@{last_term}")
        }
        Wire::Message(Message::VoteReply {
            pre,
            granted,
            term,
            voter_term,
        }) => {
            let kind = if *pre { "pre-vote" } else { "vote" };
            let answer = if *granted { "yes" } else { "no" };
            format!("{kind} in term {term}: {answer}, being in {voter_term}")
        }
        Wire::Message(Message::AppendAck {
            term,
            matched: true,
            index,
            ..
        }) => {
            format!("matched {index} in term {term}")
        }
        Wire::Message(Message::AppendAck {
            term,
            index,
            conflict_term,
            prev_index,
            ..
        }) => {
            format!("no match at {prev_index}, try {index}@{conflict_term}, in term {term}")
        }
        Wire::Message(Message::TimeoutNow { term }) => format!("take over from term {term}"),
        Wire::Message(Message::StateReport(report)) => format!("{report:?}"),
        Wire::Append {
            term,
            prev,
            commit,
            entries,
        } => {
            let terms: Vec<_> = entries.iter().map(|entry| entry.term.to_string()).collect();
            let (index, prev_term, terms) = (prev.0, prev.1, terms.join(" "));
            format!("append [{terms}] after {index}@{prev_term}, commit {commit}, in term {term}")
        }
        Wire::Restore { term, prefix } => {
            format!("the log begins behind {}, in term {term}", prefix.len())
        }
        Wire::Beat(beat) => {
            let (term, commit, round) = (beat.term, beat.commit, beat.round);
            format!("beat in term {term}, commit {commit}, round {round}")
        }
        Wire::BeatAck(ack) => {
            let (term, durable, round) = (ack.term, ack.durable, ack.round);
            format!("beat answered in term {term}, durable {durable}, round {round}")
        }
    }
}

/// Plays a script; what it should read if all is as it was.
fn play(script: &str) -> String {
    let mut stage = Stage::default();
    let mut text = String::new();
    for block in script.trim_end().split("\n\n") {
        let commands = block.split("\n----").next().unwrap();
        for line in commands.lines().filter(|line| !line.starts_with('#')) {
            stage.run(line);
        }
        let transcript = std::mem::take(&mut stage.text);
        text.push_str(commands);
        if commands.lines().any(|line| !line.starts_with('#')) {
            text.push_str("\n----\n");
            text.push_str(&transcript);
        } else {
            text.push('\n');
        }
        text.push('\n');
    }
    text.trim_end().to_string() + "\n"
}

#[test]
fn scripts_read_as_written() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scripts");
    let mut paths: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    paths.sort();
    assert!(paths.len() >= 10, "the scripts are there");
    let mut changed = Vec::new();
    for path in paths {
        let script = std::fs::read_to_string(&path).unwrap();
        assert!(
            script.starts_with("# "),
            "{path:?} begins with what it shows"
        );
        let played = play(&script);
        if played == script {
            continue;
        }
        if std::env::var_os("RINGWOOD_REWRITE").is_some() {
            std::fs::write(&path, &played).unwrap();
        } else {
            let pairs = script.lines().zip(played.lines());
            let at = pairs.take_while(|(was, is)| was == is).count();
            let (was, is) = (script.lines().nth(at), played.lines().nth(at));
            changed.push(format!("{path:?}:{}\n  was {was:?}\n  is  {is:?}", at + 1));
        }
    }
    assert!(
        changed.is_empty(),
        "scripts read otherwise:\n{}",
        changed.join("\n")
    );
}
