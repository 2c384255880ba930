//! Where the peers are that are known by name: looked up again, beside the loop, while they cannot
//! be reached. A peer that moved is found without a restart.
//!
//! Knows no socket. Addresses given as numbers never change, and have no part in this.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{SocketAddr, ToSocketAddrs};

use ringwood_core::id::{Nanos, NodeId};
use ringwood_core::limits::VOTER_COUNT_MAX;

use crate::beside::Beside;
use crate::ring::Waker;

/// How often a name is looked up while its node cannot be reached.
const LOOK_UP_INTERVAL: Nanos = Nanos::from_millis(1_000);

/// A node and where its name leads now; none where it leads nowhere.
type Found = (NodeId, Option<SocketAddr>);

/// The names, and the thread that looks them up where there are any.
#[derive(Debug)]
pub(crate) struct Names {
    names: BTreeMap<NodeId, String>,
    /// Asked for and not answered: a name server that hangs is asked once.
    asked: BTreeSet<NodeId>,
    next_at: Nanos,
    thread: Option<Beside<(NodeId, String), Found>>,
}

impl Names {
    /// The nodes' addresses as they were given, `HOST:PORT`.
    ///
    /// # Errors
    /// That of starting a thread.
    pub(crate) fn start(
        addresses: impl Iterator<Item = (NodeId, String)>,
        waker: Waker,
        look_up: impl Fn(&str) -> Option<SocketAddr> + Send + 'static,
    ) -> std::io::Result<Self> {
        let is_name = |(_, address): &(NodeId, String)| address.parse::<SocketAddr>().is_err();
        let names: BTreeMap<NodeId, String> = addresses.filter(is_name).collect();
        let thread = if names.is_empty() {
            None
        } else {
            let work = move |(node, name): (NodeId, String)| (node, look_up(&name));
            Some(Beside::start("names", VOTER_COUNT_MAX, waker, work)?)
        };
        Ok(Self {
            names,
            asked: BTreeSet::new(),
            next_at: Nanos(0),
            thread,
        })
    }

    /// Has the names of `unreached` nodes looked up, if it is time to.
    pub(crate) fn refresh(&mut self, now: Nanos, unreached: impl Iterator<Item = NodeId>) {
        let Some(thread) = &self.thread else { return };
        if now < self.next_at {
            return;
        }
        self.next_at = now.after(LOOK_UP_INTERVAL);
        for node in unreached {
            if let Some(name) = self.names.get(&node)
                && self.asked.insert(node)
            {
                thread.ask((node, name.clone()));
            }
        }
    }

    /// Where a node was found since.
    pub(crate) fn take(&mut self) -> Option<(NodeId, SocketAddr)> {
        while !self.asked.is_empty() {
            let (node, address) = self.thread.as_ref()?.take()?;
            self.asked.remove(&node);
            if let Some(address) = address {
                return Some((node, address));
            }
        }
        None
    }
}

impl Drop for Names {
    /// A name server that hangs does not hold up a stop.
    fn drop(&mut self) {
        if let Some(thread) = self.thread.take() {
            thread.leave();
        }
    }
}

/// Asks the system, and waits for it.
pub(crate) fn look_up(name: &str) -> Option<SocketAddr> {
    name.to_socket_addrs().ok()?.next()
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU16, Ordering};
    use std::time::Duration;

    use super::*;
    use crate::ring::{Ring, RingOptions};

    #[test]
    fn a_name_is_looked_up_again_and_a_number_never() {
        let mut ring = Ring::new(&RingOptions::default()).expect("io_uring");
        let port = AtomicU16::new(1);
        let look_up = move |name: &str| {
            assert_eq!(name, "node-2.example:7401");
            match port.fetch_add(1, Ordering::Relaxed) {
                2 => None,
                port => Some(([127, 0, 0, 1], port).into()),
            }
        };
        let given = [(1, "127.0.0.1:7401"), (2, "node-2.example:7401")];
        let given = given.map(|(node, address)| (NodeId(node), address.to_owned()));
        let names = Names::start(given.into_iter(), ring.waker(), look_up);
        let mut names = names.expect("a thread");
        let all = || [NodeId(1), NodeId(2)].into_iter();
        assert_eq!(names.take(), None);
        for (step, expected) in [(0, Some(1)), (1, None), (2, Some(3))] {
            let now = Nanos(LOOK_UP_INTERVAL.0 * step);
            names.refresh(now, all());
            names.refresh(now, all());
            let mut completions = Vec::new();
            let count = ring.submit_and_wait(Some(Duration::from_secs(10)), &mut completions);
            assert!(count.is_ok_and(|count| count > 0), "the loop is woken");
            let found = names.take();
            assert_eq!(found.map(|(_, address)| address.port()), expected);
            assert!(found.is_none_or(|(node, _)| node == NodeId(2)));
            assert!(names.asked.is_empty(), "one question, one answer");
        }
    }
}
