//! What a script acts on: a cluster that can be cut, stopped and asked.
//!
//! Two implement it: the nodes that ship, on the simulator's machines, and a bully election, which
//! shows what the same schedule does to a cluster without quorums. Nodes are numbers from 0 here.

use std::fmt;

use super::super::caller::{Answer, Operation};
use super::super::network::Party;
use crate::id::{Nanos, Term};

/// A command that a cluster has no counterpart of.
pub(in super::super) type Refusal = String;

/// Something worth telling, as it happens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) enum News {
    /// A node begins to lead. A bully has no terms.
    Leads { node: Party, term: Option<Term> },
    /// A node that led does so no more.
    Yields { node: Party },
    /// A client, by its number, has an answer.
    Told {
        client: usize,
        operation: Operation,
        answer: Answer,
    },
}

/// What a node says of its leader.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in super::super) enum Standing {
    Leads {
        term: Option<Term>,
    },
    Follows {
        leader: Party,
    },
    /// It knows no leader.
    Waits,
    /// Its process stands still and says nothing.
    Paused,
    /// It has no process.
    Down,
}

/// One replica's log.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in super::super) struct Replica {
    /// Records that the node knows to be decided.
    pub(in super::super) records: Vec<String>,
    /// Records behind them.
    pub(in super::super) undecided_count: u64,
}

impl fmt::Display for Replica {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.records.as_slice() {
            [] => f.write_str("nothing")?,
            records => f.write_str(&records.join(" "))?,
        }
        match self.undecided_count {
            0 => Ok(()),
            count => write!(f, ", and {count} undecided"),
        }
    }
}

/// What is done to one node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Deed {
    /// Its process ends as by a kill.
    Crash,
    /// As that, and its machine goes, too.
    LosePower,
    Restart,
    /// Its process stands still for so long.
    Pause(Nanos),
    /// Its clock gains so many parts in a thousand from now on.
    Drift {
        per_mille: i64,
    },
    /// Its clock jumps ahead.
    Jump(Nanos),
    /// Its disk takes so much longer.
    SlowDisk(Nanos),
}

/// A cluster under a script.
pub(in super::super) trait Stage {
    /// Nodes it has.
    fn node_count(&self) -> usize;

    /// The present moment.
    fn now(&self) -> Nanos;

    /// Lets time pass.
    fn run_for(&mut self, span: Nanos);

    /// What happened since the last call, in order.
    fn take_news(&mut self) -> Vec<News>;

    /// Puts up or takes down a wall between two parties, which are nodes, then clients.
    fn wall(&mut self, from: Party, to: Party, is_up: bool);

    /// Does something to a node.
    fn act(&mut self, node: Party, deed: Deed) -> Result<(), Refusal>;

    /// A client more; bound to its home if it has one. The first has number 0.
    fn add_client(&mut self, home: Option<Party>);

    /// Binds a client to another node, or to none.
    fn move_client(&mut self, client: usize, home: Option<Party>);

    /// Bids a client do something.
    fn bid(&mut self, client: usize, operation: Operation) -> Result<(), Refusal>;

    /// Operations of a client without an answer.
    fn pending(&self, client: usize) -> Vec<Operation>;

    /// What a node says of its leader.
    fn standing(&self, node: Party) -> Standing;

    /// The highest term of any node that is up, where there are terms.
    fn term_max(&self) -> Option<Term>;

    /// A node's log; none if it is down or says nothing.
    fn replica(&mut self, node: Party) -> Option<Replica>;

    /// Whether all nodes that are up hold the same, and know it.
    fn is_settled(&self) -> bool;
}
