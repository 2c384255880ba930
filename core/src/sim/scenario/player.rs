//! Plays a script on a stage, command by command, and writes down what came of each.
//!
//! The transcript has what matters to the story: who leads, what clients are told, what logs hold.
//! No moments: they change with every constant, and no story hangs on them.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::super::caller::{Answer, Operation};
use super::super::network::Party;
use super::command::{Command, Expectation, Place};
use super::stage::{Deed, News, Replica, Stage, Standing};
use crate::id::{Nanos, Term};

/// A cluster that is well settles within this.
const SETTLE_SPAN: Nanos = Nanos::from_millis(30_000);

/// How often it is asked whether it has.
const SETTLE_STEP: Nanos = Nanos::from_millis(10);

/// A wall that goes up or comes down by itself.
#[derive(Clone, Copy, Debug)]
struct Toggle {
    at: Nanos,
    ends: [Party; 2],
    is_up: bool,
}

/// What went wrong with a command.
type Wrong = String;

/// A script under way.
pub(super) struct Player<'p> {
    stage: &'p mut dyn Stage,
    has_begun: bool,
    /// Names of clients, by number.
    clients: Vec<String>,
    /// In the order of their times.
    toggles: Vec<Toggle>,
    walls: Vec<[Party; 2]>,
    /// The last answer about each append.
    answers: BTreeMap<String, (usize, Answer)>,
    appended: Vec<String>,
    /// Somebody began to lead in this block.
    has_new_leader: bool,
    text: String,
    /// Two nodes led at once, as `leaders` saw it.
    has_seen_two: bool,
    lost_count: usize,
    doubled_count: usize,
}

impl<'p> Player<'p> {
    pub(super) fn new(stage: &'p mut dyn Stage) -> Self {
        Self {
            stage,
            has_begun: false,
            clients: Vec::new(),
            toggles: Vec::new(),
            walls: Vec::new(),
            answers: BTreeMap::new(),
            appended: Vec::new(),
            has_new_leader: false,
            text: String::new(),
            has_seen_two: false,
            lost_count: 0,
            doubled_count: 0,
        }
    }

    /// Ends a block, and gives its transcript; what happened in it is not news to the next.
    pub(super) fn end_block(&mut self) -> String {
        for client in 0..self.clients.len() {
            for operation in self.stage.pending(client) {
                let (name, what) = (&self.clients[client], words(&operation));
                writeln!(self.text, "{name} {what}: no answer yet").expect("a string grows");
            }
        }
        self.has_new_leader = false;
        std::mem::take(&mut self.text)
    }

    /// Whether two nodes were seen to lead at once.
    pub(super) fn has_seen_two(&self) -> bool {
        self.has_seen_two
    }

    /// Acknowledged records that were seen to be lost.
    pub(super) fn lost_count(&self) -> usize {
        self.lost_count
    }

    /// Logs in which a record was seen twice.
    pub(super) fn doubled_count(&self) -> usize {
        self.doubled_count
    }

    pub(super) fn play(&mut self, command: &Command) -> Result<(), Wrong> {
        match command {
            // The stage is made of them.
            Command::Nodes { .. } if !self.has_begun => self.has_begun = true,
            Command::Nodes { .. } => return Err("nodes are said once".to_owned()),
            Command::Client { name, home } => self.add_client(name, *home)?,
            Command::Move { name, home } => {
                let client = self.client(name)?;
                let home = home.map(|home| self.checked(home)).transpose()?;
                self.stage.move_client(client, home);
            }
            Command::Append { client, texts } => {
                let client = self.client(client)?;
                for text in texts {
                    if self.appended.contains(text) {
                        return Err(format!("{text} was appended before; retry it"));
                    }
                    self.appended.push(text.clone());
                    self.stage.bid(client, Operation::Append(text.clone()))?;
                }
            }
            Command::Retry { client, text } => {
                let client = self.client(client)?;
                if !self.appended.contains(text) {
                    return Err(format!("{text} was never appended"));
                }
                self.stage.bid(client, Operation::Append(text.clone()))?;
            }
            Command::Read { client, mode } => {
                let client = self.client(client)?;
                self.stage.bid(client, Operation::Read(*mode))?;
            }
            Command::Transfer { client, to } => {
                let (client, to) = (self.client(client)?, self.checked(*to)?);
                self.stage.bid(client, Operation::Transfer(to))?;
            }
            Command::Cut {
                from,
                to,
                is_one_way,
            } => self.cut(from, to, *is_one_way)?,
            Command::Heal => {
                for [from, to] in std::mem::take(&mut self.walls) {
                    self.stage.wall(from, to, false);
                }
            }
            Command::Flap { ends, period, span } => self.flap(ends, *period, *span)?,
            Command::Act { nodes, deed } => self.act(nodes, *deed)?,
            Command::Run(span) => self.run_for(*span),
            Command::Settle => self.settle()?,
            Command::Logs => self.write_logs(),
            Command::Leaders => self.write_leaders(),
            Command::Expect(expectation) => self.expect(expectation)?,
        }
        self.write_news();
        Ok(())
    }

    fn checked(&self, node: Party) -> Result<Party, Wrong> {
        let is_there = node < self.stage.node_count();
        let there = is_there.then_some(node);
        there.ok_or_else(|| format!("there is no node {}", node + 1))
    }

    fn client(&self, name: &str) -> Result<usize, Wrong> {
        let found = self.clients.iter().position(|known| known == name);
        found.ok_or_else(|| format!("there is no client {name}"))
    }

    fn party(&self, place: &Place) -> Result<Party, Wrong> {
        match place {
            Place::Node(node) => self.checked(*node),
            Place::Client(name) => Ok(self.stage.node_count() + self.client(name)?),
        }
    }

    fn add_client(&mut self, name: &str, home: Option<Party>) -> Result<(), Wrong> {
        if self.client(name).is_ok() {
            return Err(format!("there is a client {name}"));
        }
        let home = home.map(|home| self.checked(home)).transpose()?;
        self.clients.push(name.to_owned());
        self.stage.add_client(home);
        Ok(())
    }

    fn cut(&mut self, from: &[Place], to: &[Place], is_one_way: bool) -> Result<(), Wrong> {
        for from in from {
            for to in to {
                let (from, to) = (self.party(from)?, self.party(to)?);
                let back = (!is_one_way).then_some([to, from]);
                for wall in [[from, to]].into_iter().chain(back) {
                    self.stage.wall(wall[0], wall[1], true);
                    self.walls.push(wall);
                }
            }
        }
        Ok(())
    }

    /// Half of each period the link is gone, then it is there.
    fn flap(&mut self, ends: &[Place; 2], period: Nanos, span: Nanos) -> Result<(), Wrong> {
        let ends = [self.party(&ends[0])?, self.party(&ends[1])?];
        if period.0 < 2 {
            return Err("a period has two halves".to_owned());
        }
        let mut at = self.stage.now();
        let end = at.after(span);
        while at < end {
            for (at, is_up) in [(at, true), (at.after(Nanos(period.0 / 2)), false)] {
                self.toggles.push(Toggle { at, ends, is_up });
            }
            at = at.after(period);
        }
        self.toggles.sort_by_key(|toggle| toggle.at);
        Ok(())
    }

    fn act(&mut self, nodes: &[Party], deed: Deed) -> Result<(), Wrong> {
        for node in nodes {
            let node = self.checked(*node)?;
            let done = self.stage.act(node, deed);
            done.map_err(|refusal| format!("node {}: {refusal}", node + 1))?;
        }
        Ok(())
    }

    fn run_for(&mut self, span: Nanos) {
        let end = self.stage.now().after(span);
        while let Some(toggle) = self.toggles.first().copied().filter(|next| next.at <= end) {
            self.toggles.remove(0);
            self.stage.run_for(toggle.at.since(self.stage.now()));
            let [a, b] = toggle.ends;
            self.stage.wall(a, b, toggle.is_up);
            self.stage.wall(b, a, toggle.is_up);
        }
        self.stage.run_for(end.since(self.stage.now()));
    }

    fn settle(&mut self) -> Result<(), Wrong> {
        let deadline = self.stage.now().after(SETTLE_SPAN);
        loop {
            let clients = 0..self.clients.len();
            let is_answered = clients
                .into_iter()
                .all(|at| self.stage.pending(at).is_empty());
            if is_answered && self.stage.is_settled() {
                return Ok(());
            }
            if self.stage.now() >= deadline {
                return Err("it does not settle".to_owned());
            }
            self.run_for(SETTLE_STEP);
        }
    }

    fn write_news(&mut self) {
        for news in self.stage.take_news() {
            let line = match news {
                News::Leads { node, term } => {
                    self.has_new_leader = true;
                    format!("{} leads{}", node + 1, in_term(term))
                }
                News::Yields { node } => format!("{} leads no more", node + 1),
                News::Told {
                    client,
                    operation,
                    answer,
                } => {
                    let line = format!("{} {}: {answer}", self.clients[client], words(&operation));
                    if let Operation::Append(text) = operation {
                        self.answers.insert(text, (client, answer));
                    }
                    line
                }
            };
            writeln!(self.text, "{line}").expect("a string grows");
        }
    }

    fn write_leaders(&mut self) {
        let mut followers: BTreeMap<(Party, Option<Term>), Vec<Party>> = BTreeMap::new();
        let standings: Vec<_> = (0..self.stage.node_count())
            .map(|node| self.stage.standing(node))
            .collect();
        for (node, standing) in standings.iter().enumerate() {
            if let Standing::Leads { term } = standing {
                followers.insert((node, *term), Vec::new());
            }
        }
        self.has_seen_two |= followers.len() > 1;
        let mut others: BTreeMap<&str, Vec<Party>> = BTreeMap::new();
        for (node, standing) in standings.iter().enumerate() {
            match standing {
                Standing::Leads { .. } => {}
                Standing::Follows { leader } => {
                    let led = followers.iter_mut().find(|((led, _), _)| led == leader);
                    match led {
                        Some((_, list)) => list.push(node),
                        None => others.entry("in vain follow").or_default().push(node),
                    }
                }
                Standing::Waits => others.entry("know no leader").or_default().push(node),
                Standing::Paused => others.entry("stand still").or_default().push(node),
                Standing::Down => others.entry("are down").or_default().push(node),
            }
        }
        for ((leader, term), list) in followers {
            let whom = match list.len() {
                0 => "leads itself".to_owned(),
                _ => format!("leads {}", numbers(&list)),
            };
            let line = format!("{} {whom}{}", leader + 1, in_term(term));
            writeln!(self.text, "{line}").expect("a string grows");
        }
        for (state, list) in others {
            writeln!(self.text, "{state}: {}", numbers(&list)).expect("a string grows");
        }
    }

    fn replicas(&mut self) -> Vec<Option<Replica>> {
        let nodes = 0..self.stage.node_count();
        let replicas = nodes.map(|node| self.stage.replica(node)).collect();
        self.write_news();
        replicas
    }

    /// Every log, those that are the same on one line; and what of them breaks a promise.
    fn write_logs(&mut self) {
        let replicas = self.replicas();
        let mut same: Vec<(Option<&Replica>, Vec<Party>)> = Vec::new();
        for (node, replica) in replicas.iter().enumerate() {
            let replica = replica.as_ref();
            match same.iter_mut().find(|(known, _)| *known == replica) {
                Some((_, nodes)) => nodes.push(node),
                None => same.push((replica, vec![node])),
            }
        }
        for (replica, nodes) in &same {
            let log = replica.map_or("silent".to_owned(), |replica| replica.to_string());
            writeln!(self.text, "{}: {log}", numbers(nodes)).expect("a string grows");
        }
        for (replica, nodes) in &same {
            let twice = replica.and_then(|replica| doubled(&replica.records));
            if let Some(twice) = twice {
                self.doubled_count += 1;
                writeln!(self.text, "twice: {twice}, on {}", numbers(nodes))
                    .expect("a string grows");
            }
        }
        // Where logs differ, somebody may still have to learn of an append.
        if let [(Some(replica), _)] = same.as_slice() {
            self.write_lost(&replica.records);
        }
    }

    fn write_lost(&mut self, records: &[String]) {
        for (text, (client, answer)) in &self.answers {
            let Answer::Committed { offset } = answer else {
                continue;
            };
            if records.get(*offset as usize) != Some(text) {
                self.lost_count += 1;
                let name = &self.clients[*client];
                let line = format!("lost: {text}, which {name} was told is committed at {offset}");
                writeln!(self.text, "{line}").expect("a string grows");
            }
        }
    }

    fn expect(&mut self, expectation: &Expectation) -> Result<(), Wrong> {
        // What happened before it must be known to it.
        self.write_news();
        match expectation {
            Expectation::Leader { among } => match self.newest_leader() {
                Some(leader) if among.contains(&leader) => Ok(()),
                Some(leader) => Err(format!("{} leads", leader + 1)),
                None => Err("nobody leads".to_owned()),
            },
            Expectation::NoLeader { among } => {
                let leads = |node: &&Party| self.leads(**node).is_some();
                match among.iter().find(leads) {
                    Some(leader) => Err(format!("{} leads", leader + 1)),
                    None => Ok(()),
                }
            }
            Expectation::OneLeader => self.expect_one_leader(),
            Expectation::NoNewLeader if self.has_new_leader => {
                Err("somebody began to lead".to_owned())
            }
            Expectation::NoNewLeader => Ok(()),
            Expectation::TermsUpTo(most) => match self.stage.term_max() {
                Some(term) if term > *most => Err(format!("a node is in term {term}")),
                Some(_) | None => Ok(()),
            },
            Expectation::Log { nodes, records } => {
                for node in nodes {
                    let node = self.checked(*node)?;
                    let replica = self.stage.replica(node);
                    let found = replica.ok_or_else(|| format!("{} says nothing", node + 1))?;
                    if found.records != *records {
                        return Err(format!("{} has {found}", node + 1));
                    }
                }
                Ok(())
            }
            Expectation::Told {
                client,
                text,
                answer,
            } => {
                let client = self.client(client)?;
                match self.answers.get(text) {
                    Some((to, found)) if *to == client => {
                        let found = found.to_string();
                        let is_so = found.starts_with(answer.as_str());
                        is_so.then_some(()).ok_or(format!("it was told: {found}"))
                    }
                    Some(_) | None => Err("it was told nothing".to_owned()),
                }
            }
        }
    }

    /// The term in which a node leads; of bullies, who know none, all lead in the same.
    fn leads(&self, node: Party) -> Option<Term> {
        match self.stage.standing(node) {
            Standing::Leads { term } => Some(term.unwrap_or_default()),
            _ => None,
        }
    }

    fn newest_leader(&self) -> Option<Party> {
        let nodes = 0..self.stage.node_count();
        let leaders = nodes.filter_map(|node| self.leads(node).map(|term| (term, node)));
        leaders.max().map(|(_, node)| node)
    }

    fn expect_one_leader(&self) -> Result<(), Wrong> {
        let leader = self.newest_leader().ok_or("nobody leads")?;
        for node in (0..self.stage.node_count()).filter(|node| *node != leader) {
            match self.stage.standing(node) {
                Standing::Follows { leader: followed } if followed == leader => {}
                Standing::Down | Standing::Paused => {}
                other => return Err(format!("{} leads, and {}: {other:?}", leader + 1, node + 1)),
            }
        }
        Ok(())
    }
}

/// What an operation is, in the words of a transcript.
fn words(operation: &Operation) -> String {
    match operation {
        Operation::Append(text) => text.clone(),
        Operation::Read(mode) => format!("reads, {mode}"),
        Operation::Transfer(to) => format!("hands over to {}", to + 1),
    }
}

fn in_term(term: Option<Term>) -> String {
    term.map_or(String::new(), |term| format!(" in term {term}"))
}

fn numbers(nodes: &[Party]) -> String {
    let numbers: Vec<String> = nodes.iter().map(|node| (node + 1).to_string()).collect();
    numbers.join(" ")
}

fn doubled(records: &[String]) -> Option<&String> {
    let mut sorted: Vec<&String> = records.iter().collect();
    sorted.sort_unstable();
    let twice = sorted.windows(2).find(|pair| pair[0] == pair[1]);
    twice.map(|pair| pair[0])
}
