//! The foil: an election by rank, as clusters without quorums hold it. For comparison only; nothing
//! of it ships in a node.
//!
//! Of the nodes that hear each other the one with the lowest number leads (the bully of
//! Garcia-Molina, 1982). It acknowledges a record once every node that still follows it has it.
//! Who hears a better one again yields, and takes over that one's log whole. There are no terms, no
//! votes and no majority, and so two halves have two leaders; what one of them acknowledged is gone
//! when they meet.

use super::super::caller::{Answer, Operation};
use super::super::network::Party;
use super::stage::{Deed, News, Refusal, Replica, Stage, Standing};
use crate::id::{Nanos, Term};

/// Every node says that it is there this often.
const BEAT: Nanos = Nanos::from_millis(10);

/// Who was silent for so long is taken for dead.
const PATIENCE: Nanos = Nanos::from_millis(100);

/// Connected before the script begins, as the nodes that ship are.
const START: Nanos = Nanos::from_millis(1_000);

#[derive(Debug)]
struct Member {
    log: Vec<String>,
    /// When it last heard each node.
    heard_at: Vec<Nanos>,
    leader: Party,
    is_up: bool,
    paused_until: Nanos,
}

#[derive(Debug)]
struct Client {
    /// A free one asks whoever leads.
    home: Option<Party>,
    pending: Vec<Operation>,
}

/// A cluster of bullies.
#[derive(Debug)]
pub(super) struct Bullies {
    now: Nanos,
    beat_at: Nanos,
    members: Vec<Member>,
    clients: Vec<Client>,
    /// Walls by sender and receiver; nodes, then clients.
    walls: Vec<[Party; 2]>,
    news: Vec<News>,
}

impl Bullies {
    pub(super) fn new(node_count: usize) -> Self {
        let member = |_| Member {
            log: Vec::new(),
            heard_at: vec![START; node_count],
            leader: 0,
            is_up: true,
            paused_until: Nanos(0),
        };
        Self {
            now: START,
            beat_at: START,
            members: (0..node_count).map(member).collect(),
            clients: Vec::new(),
            walls: Vec::new(),
            news: vec![News::Leads {
                node: 0,
                term: None,
            }],
        }
    }

    fn is_awake(&self, node: Party) -> bool {
        self.members[node].is_up && self.members[node].paused_until <= self.now
    }

    fn hears(&self, to: Party, from: Party) -> bool {
        !self.walls.contains(&[from, to])
    }

    fn leads(&self, node: Party) -> bool {
        self.members[node].is_up && self.members[node].leader == node
    }

    fn awake(&self) -> Vec<Party> {
        let nodes = 0..self.members.len();
        nodes.filter(|node| self.is_awake(*node)).collect()
    }

    fn beat(&mut self) {
        let awake = self.awake();
        for to in &awake {
            for from in &awake {
                if self.hears(*to, *from) {
                    self.members[*to].heard_at[*from] = self.now;
                }
            }
        }
        awake.iter().for_each(|node| self.elect(*node));
        awake.iter().for_each(|node| self.follow(*node));
        for client in 0..self.clients.len() {
            self.serve(client);
        }
    }

    /// The best that is not dead leads.
    fn elect(&mut self, node: Party) {
        let heard_at = &self.members[node].heard_at;
        let is_alive = |peer: &Party| heard_at[*peer].after(PATIENCE) >= self.now;
        let best = (0..=node).find(is_alive).unwrap_or(node);
        let before = std::mem::replace(&mut self.members[node].leader, best);
        if before == node && best != node {
            self.news.push(News::Yields { node });
        }
        if before != node && best == node {
            self.news.push(News::Leads { node, term: None });
        }
    }

    /// Who follows has its leader's log.
    fn follow(&mut self, node: Party) {
        let leader = self.members[node].leader;
        if leader != node && self.is_awake(leader) && self.leads(leader) && self.hears(node, leader)
        {
            self.members[node].log = self.members[leader].log.clone();
        }
    }

    /// Its home passes what a client wants on to whom it follows.
    fn serve(&mut self, client: usize) {
        let party = self.members.len() + client;
        let is_open = |node: &Party| self.leads(*node) && self.hears(*node, party);
        let free = (0..self.members.len()).find(is_open);
        let Some(home) = self.clients[client].home.or(free) else {
            return;
        };
        let leader = self.members[home].leader;
        let is_reached = self.is_awake(home)
            && self.hears(home, party)
            && self.is_awake(leader)
            && self.leads(leader)
            && self.hears(leader, home);
        if !is_reached {
            return;
        }
        for operation in std::mem::take(&mut self.clients[client].pending) {
            let log = &mut self.members[leader].log;
            let answer = match &operation {
                Operation::Append(text) => {
                    log.push(text.clone());
                    Answer::Committed {
                        offset: log.len() as u64 - 1,
                    }
                }
                Operation::Read(_) | Operation::Transfer(_) => Answer::Read(log.clone()),
            };
            self.news.push(News::Told {
                client,
                operation,
                answer,
            });
        }
        for node in self.awake() {
            self.follow(node);
        }
    }
}

impl Stage for Bullies {
    fn node_count(&self) -> usize {
        self.members.len()
    }

    fn now(&self) -> Nanos {
        self.now
    }

    fn run_for(&mut self, span: Nanos) {
        let end = self.now.after(span);
        while self.beat_at <= end {
            self.now = self.beat_at;
            self.beat_at = self.now.after(BEAT);
            self.beat();
        }
        self.now = end;
    }

    fn take_news(&mut self) -> Vec<News> {
        std::mem::take(&mut self.news)
    }

    fn wall(&mut self, from: Party, to: Party, is_up: bool) {
        if is_up {
            self.walls.push([from, to]);
        } else if let Some(at) = self.walls.iter().position(|wall| *wall == [from, to]) {
            self.walls.remove(at);
        }
    }

    fn act(&mut self, node: Party, deed: Deed) -> Result<(), Refusal> {
        match deed {
            Deed::Crash | Deed::LosePower => self.members[node].is_up = false,
            Deed::Restart => self.members[node].is_up = true,
            Deed::Pause(span) => self.members[node].paused_until = self.now.after(span),
            Deed::Drift { .. } | Deed::Jump(_) => return Err("bullies have one clock".to_owned()),
            Deed::SlowDisk(_) => return Err("bullies have no disks".to_owned()),
        }
        Ok(())
    }

    fn add_client(&mut self, home: Option<Party>) {
        self.clients.push(Client {
            home,
            pending: Vec::new(),
        });
    }

    fn move_client(&mut self, client: usize, home: Option<Party>) {
        self.clients[client].home = home;
    }

    fn bid(&mut self, client: usize, operation: Operation) -> Result<(), Refusal> {
        if matches!(operation, Operation::Transfer(_)) {
            return Err("rank cannot be handed over".to_owned());
        }
        self.clients[client].pending.push(operation);
        Ok(())
    }

    fn pending(&self, client: usize) -> Vec<Operation> {
        self.clients[client].pending.clone()
    }

    fn standing(&self, node: Party) -> Standing {
        let member = &self.members[node];
        match member.leader {
            _ if !member.is_up => Standing::Down,
            _ if !self.is_awake(node) => Standing::Paused,
            leader if leader == node => Standing::Leads { term: None },
            leader => Standing::Follows { leader },
        }
    }

    fn term_max(&self) -> Option<Term> {
        None
    }

    fn replica(&mut self, node: Party) -> Option<Replica> {
        self.is_awake(node).then(|| Replica {
            records: self.members[node].log.clone(),
            undecided_count: 0,
        })
    }

    fn is_settled(&self) -> bool {
        let up = self.members.iter().filter(|member| member.is_up);
        let leader = |member: &Member| (member.leader, member.log.clone());
        let mut states = up.map(leader);
        let first = states.next();
        states.all(|state| Some(state) == first)
    }
}
