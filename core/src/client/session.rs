//! Who is where: addresses, the connections to them, and what their welcomes told.
//!
//! Keeps one state per address, from dialling over the greeting to open, and how often it failed.
//! A node may be known under several addresses (the one it was given as, the one the cluster
//! advertises); any that leads to it will do. Knows no log and no request.

use std::fmt;

use super::effects::{Effect, Effects};
use super::post::Post;
use super::retry::{Jitter, wait};
use crate::frame::assembler::TagPolicy;
use crate::frame::code::RefusedReason;
use crate::frame::greeting::{Hello, Refused, Welcome};
use crate::frame::header::{ClusterTag, VERSION};
use crate::frame::refusal::Refusal;
use crate::frame::{Kind, Lane};
use crate::id::{ClusterId, ConnectionId, GroupId, Nanos, NodeId};

/// Addresses kept: those given, and those that welcomes told.
pub const ADDRESS_COUNT_MAX: usize = 256;

/// A dial must lead to a welcome within this.
const GREETING_TIMEOUT: Nanos = Nanos::from_millis(1_000);

/// A connection that was open for longer counts as sound.
const STEADY: Nanos = Nanos::from_millis(1_000);

/// A connection that owes an answer and is silent for longer is given up. Above the longest wait
/// of a fetch and the longest election timeout.
pub(super) const SILENCE_MAX: Nanos = Nanos::from_millis(5_000);

/// Why a connection is not, or no longer, there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkFault {
    /// It could not be opened, or broke; the system's words.
    Unreachable(String),
    /// The other side closed it, or closed it within a frame.
    Closed,
    /// The other side is silent though it owes an answer.
    Silent,
    /// What came is no sound frame of this protocol.
    Garbled(Refusal),
    /// A sound frame that a node never sends to a client, or not at that moment.
    Unexpected(Kind),
    /// A frame that says what this version cannot make sense of.
    Senseless(Kind),
    /// The node refused the connection.
    Refused {
        /// Why; `None` if this version does not know the code.
        reason: Option<RefusedReason>,
        /// The node's sentence.
        detail: String,
    },
    /// The node belongs to another cluster than the first one reached.
    OtherCluster {
        /// The first one reached.
        expected: ClusterId,
        /// This one's.
        found: ClusterId,
    },
    /// The client was closed.
    Stopped,
}

impl fmt::Display for LinkFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable(words) => f.write_str(words),
            Self::Closed => f.write_str("the other side closed the connection"),
            Self::Silent => f.write_str("connected, but no answer came"),
            Self::Garbled(refusal) => write!(f, "not understood: {refusal}"),
            Self::Unexpected(kind) => write!(f, "unexpected frame: {kind}"),
            Self::Senseless(kind) => write!(f, "frame without sense: {kind}"),
            Self::Refused { reason, detail } => match reason {
                Some(reason) => write!(f, "refused ({reason}): {detail}"),
                None => write!(f, "refused: {detail}"),
            },
            Self::OtherCluster { expected, found } => write!(
                f,
                "belongs to cluster {:032x}, expected {:032x}",
                found.0, expected.0
            ),
            Self::Stopped => f.write_str("the client is closed"),
        }
    }
}

impl std::error::Error for LinkFault {}

/// The cluster, as the last welcome told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cluster {
    /// Its id, never zero.
    pub id: ClusterId,
    /// Its name.
    pub name: String,
    /// Its nodes.
    pub nodes: Vec<NodeInfo>,
    /// Its logs.
    pub logs: Vec<LogInfo>,
}

/// A node and how it is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeInfo {
    /// The node.
    pub id: NodeId,
    /// Its name.
    pub name: String,
    /// `host:port`.
    pub address: String,
}

/// A log and its group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogInfo {
    /// The group that keeps it.
    pub group: GroupId,
    /// Its name.
    pub name: String,
}

#[derive(Debug)]
enum State {
    /// No connection; not dialled before `retry_at`.
    Closed { retry_at: Nanos },
    /// Dialled, or greeted, and not welcomed yet.
    Opening {
        connection: ConnectionId,
        deadline: Nanos,
        greeted: bool,
    },
    Open {
        connection: ConnectionId,
        since: Nanos,
    },
}

#[derive(Debug)]
struct Place {
    address: String,
    /// The node found or expected there.
    node: Option<NodeId>,
    state: State,
    /// Why the last connection ended, or did not come about.
    fault: Option<LinkFault>,
    /// Since when dials fail.
    failing_since: Option<Nanos>,
}

impl Place {
    fn new(address: String, node: Option<NodeId>) -> Self {
        Self {
            address,
            node,
            state: State::Closed { retry_at: Nanos(0) },
            fault: None,
            failing_since: None,
        }
    }

    fn connection(&self) -> Option<ConnectionId> {
        match self.state {
            State::Closed { .. } => None,
            State::Opening { connection, .. } | State::Open { connection, .. } => Some(connection),
        }
    }

    fn open(&self) -> Option<ConnectionId> {
        match self.state {
            State::Open { connection, .. } => Some(connection),
            State::Closed { .. } | State::Opening { .. } => None,
        }
    }
}

/// All addresses and connections of a client.
#[derive(Debug)]
pub(super) struct Session {
    places: Vec<Place>,
    cluster: Option<Cluster>,
    next_connection: u64,
    jitter: Jitter,
}

impl Session {
    /// # Panics
    ///
    /// If there is no address, or more than `ADDRESS_COUNT_MAX`.
    pub(super) fn new(addresses: Vec<String>, jitter: Jitter) -> Self {
        assert!(!addresses.is_empty(), "a client needs an address");
        assert!(addresses.len() <= ADDRESS_COUNT_MAX);
        let mut places: Vec<Place> = Vec::with_capacity(addresses.len());
        for address in addresses {
            if places.iter().all(|place| place.address != address) {
                places.push(Place::new(address, None));
            }
        }
        Self {
            places,
            cluster: None,
            next_connection: 1,
            jitter,
        }
    }

    pub(super) fn cluster(&self) -> Option<&Cluster> {
        self.cluster.as_ref()
    }

    /// Which frames a connection may bring.
    pub(super) fn tag_policy(&self) -> TagPolicy {
        match &self.cluster {
            Some(cluster) => TagPolicy::Exact(ClusterTag::of(cluster.id)),
            None => TagPolicy::Learn,
        }
    }

    pub(super) fn address(&self, place: usize) -> &str {
        &self.places[place].address
    }

    // ---- who is reached how

    fn by_connection(&self, connection: ConnectionId) -> Option<usize> {
        let found = |place: &Place| place.connection() == Some(connection);
        self.places.iter().position(found)
    }

    /// Whether it is one of ours, open or not.
    pub(super) fn has(&self, connection: ConnectionId) -> bool {
        self.by_connection(connection).is_some()
    }

    /// The node at the other end of an open connection.
    pub(super) fn node_of(&self, connection: ConnectionId) -> Option<NodeId> {
        let place = &self.places[self.by_connection(connection)?];
        place.open().and(place.node)
    }

    /// An open connection to a node.
    pub(super) fn open(&self, node: NodeId) -> Option<ConnectionId> {
        let mut there = self.places.iter().filter(|place| place.node == Some(node));
        there.find_map(Place::open)
    }

    pub(super) fn open_place(&self, place: usize) -> Option<ConnectionId> {
        self.places[place].open()
    }

    /// All open connections, one for each node.
    pub(super) fn all_open(&self) -> Vec<ConnectionId> {
        let mut nodes: Vec<NodeId> = self
            .places
            .iter()
            .filter_map(|p| p.open().and(p.node))
            .collect();
        nodes.sort_unstable();
        nodes.dedup();
        nodes
            .into_iter()
            .filter_map(|node| self.open(node))
            .collect()
    }

    pub(super) fn has_open(&self) -> bool {
        self.places.iter().any(|place| place.open().is_some())
    }

    /// The nodes known, by place in the cluster's list.
    pub(super) fn nodes(&self) -> &[NodeInfo] {
        self.cluster.as_ref().map_or(&[], |cluster| &cluster.nodes)
    }

    /// Why the place has no connection, if its last dial failed and none is under way.
    pub(super) fn failed_place(&self, place: usize) -> Option<LinkFault> {
        match &self.places[place].state {
            State::Closed { .. } => self.places[place].fault.clone(),
            State::Opening { .. } | State::Open { .. } => None,
        }
    }

    /// The last fault of each address that was tried and has no open connection.
    pub(super) fn faults(&self) -> Vec<(String, LinkFault)> {
        let closed = self.places.iter().filter(|place| place.open().is_none());
        let faults = closed.filter_map(|p| Some((p.address.clone(), p.fault.clone()?)));
        faults.collect()
    }

    pub(super) fn place_count(&self) -> usize {
        self.places.len()
    }

    /// Whom a survey asks: every node once, or the addresses given while no node is known.
    pub(super) fn everyone(&self) -> Vec<(usize, Option<NodeId>, String)> {
        let Some(cluster) = &self.cluster else {
            return (0..self.places.len())
                .map(|at| (at, None, String::new()))
                .collect();
        };
        let places = cluster.nodes.iter().filter_map(|node| {
            let at = self.best_place(node.id)?;
            Some((at, Some(node.id), node.name.clone()))
        });
        places.collect()
    }

    /// The address to use for a node: one with a connection, else the one to be dialled next.
    fn best_place(&self, node: NodeId) -> Option<usize> {
        let key = |at: usize| match self.places[at].state {
            State::Open { .. } => (0, Nanos(0)),
            State::Opening { .. } => (1, Nanos(0)),
            State::Closed { retry_at } => (2, retry_at),
        };
        let there = (0..self.places.len()).filter(|at| self.places[*at].node == Some(node));
        there.min_by_key(|at| key(*at))
    }

    // ---- dialling

    /// A connection to this node is wanted: dials, unless one is there or it is too early.
    pub(super) fn want(&mut self, now: Nanos, node: NodeId, effects: &mut Effects) {
        if let Some(place) = self.best_place(node) {
            self.want_place(now, place, effects);
        }
    }

    /// A connection to any node is wanted, while none is known.
    pub(super) fn want_any(&mut self, now: Nanos, effects: &mut Effects) {
        for place in 0..self.places.len() {
            self.want_place(now, place, effects);
        }
    }

    pub(super) fn want_place(&mut self, now: Nanos, place: usize, effects: &mut Effects) {
        let place = &mut self.places[place];
        let State::Closed { retry_at } = place.state else {
            return;
        };
        if retry_at > now {
            return;
        }
        let connection = ConnectionId(self.next_connection);
        self.next_connection += 1;
        place.state = State::Opening {
            connection,
            deadline: now.after(GREETING_TIMEOUT),
            greeted: false,
        };
        effects.push(Effect::Connect {
            connection,
            address: place.address.clone(),
        });
    }

    /// A stream is open: says hello.
    pub(super) fn on_connected(
        &mut self,
        connection: ConnectionId,
        post: &mut Post,
        effects: &mut Effects,
    ) {
        let Some(at) = self.by_connection(connection) else {
            return;
        };
        if let State::Opening { greeted, .. } = &mut self.places[at].state
            && !*greeted
        {
            *greeted = true;
            let cluster = self.cluster.as_ref().map_or(0, |cluster| cluster.id.0);
            let hello = Hello {
                cluster: cluster.to_le_bytes(),
                node: 0,
                incarnation: 0,
                life: 0,
                starts: Vec::new(),
                shard: 0,
                lane: Lane::Client.code(),
                version_min: VERSION,
                version_max: VERSION,
            };
            post.send(connection, &hello, effects);
        }
    }

    /// A connection is gone. Returns whether it was known.
    pub(super) fn on_closed(
        &mut self,
        now: Nanos,
        connection: ConnectionId,
        fault: LinkFault,
    ) -> bool {
        let Some(at) = self.by_connection(connection) else {
            return false;
        };
        let place = &mut self.places[at];
        // A node that welcomes and then closes, again and again, is not dialled ever more often.
        if let State::Open { since, .. } = place.state
            && now.since(since) >= STEADY
        {
            place.failing_since = None;
        }
        let since = *place.failing_since.get_or_insert(now);
        place.state = State::Closed {
            retry_at: now.after(wait(now.since(since), &mut self.jitter)),
        };
        place.fault = Some(fault);
        true
    }

    /// A welcome has come. `Ok(true)` if it told something new about the cluster.
    pub(super) fn on_welcome(
        &mut self,
        now: Nanos,
        connection: ConnectionId,
        welcome: Welcome,
    ) -> Result<bool, LinkFault> {
        let senseless = LinkFault::Senseless(Kind::Welcome);
        let at = self.by_connection(connection).ok_or(LinkFault::Stopped)?;
        if !matches!(self.places[at].state, State::Opening { greeted: true, .. }) {
            return Err(LinkFault::Unexpected(Kind::Welcome));
        }
        let node = NodeId(welcome.node);
        let cluster = read_welcome(welcome).ok_or(senseless)?;
        if let Some(known) = &self.cluster
            && known.id != cluster.id
        {
            return Err(LinkFault::OtherCluster {
                expected: known.id,
                found: cluster.id,
            });
        }
        let place = &mut self.places[at];
        place.node = Some(node);
        place.state = State::Open {
            connection,
            since: now,
        };
        let is_new = self.cluster.as_ref() != Some(&cluster);
        if is_new {
            self.learn(cluster);
        }
        Ok(is_new)
    }

    fn learn(&mut self, cluster: Cluster) {
        for node in &cluster.nodes {
            if let Some(place) = self.places.iter_mut().find(|p| p.address == node.address) {
                // Who is there in fact counts more than who should be.
                if place.open().is_none() {
                    place.node = Some(node.id);
                }
            } else if self.places.len() < ADDRESS_COUNT_MAX {
                let place = Place::new(node.address.clone(), Some(node.id));
                self.places.push(place);
            }
        }
        self.cluster = Some(cluster);
    }

    // ---- time

    /// A connection that was dialled and not welcomed in time.
    pub(super) fn take_late(&self, now: Nanos) -> Option<ConnectionId> {
        self.places.iter().find_map(|place| match place.state {
            State::Opening {
                connection,
                deadline,
                ..
            } => (deadline <= now).then_some(connection),
            State::Closed { .. } | State::Open { .. } => None,
        })
    }

    pub(super) fn next_timer(&self) -> Option<Nanos> {
        let timers = self.places.iter().filter_map(|place| match place.state {
            State::Opening { deadline, .. } => Some(deadline),
            // While no node is known all addresses are dialled again and again.
            State::Closed { retry_at } => self.cluster.is_none().then_some(retry_at),
            State::Open { .. } => None,
        });
        timers.min()
    }

    /// All connections, open or not.
    pub(super) fn connections(&self) -> Vec<ConnectionId> {
        self.places.iter().filter_map(Place::connection).collect()
    }
}

/// The reason and sentence of a refusal.
pub(super) fn read_refused(refused: &Refused) -> LinkFault {
    LinkFault::Refused {
        reason: RefusedReason::from_code(refused.reason),
        detail: String::from_utf8_lossy(&refused.detail).into_owned(),
    }
}

/// `None` if it says what cannot be.
fn read_welcome(welcome: Welcome) -> Option<Cluster> {
    let id = ClusterId(u128::from_le_bytes(welcome.cluster));
    if id == ClusterId(0) || welcome.node == 0 || welcome.version != VERSION {
        return None;
    }
    let mut nodes = Vec::with_capacity(welcome.nodes.len());
    for node in welcome.nodes {
        nodes.push(NodeInfo {
            id: NodeId(node.id),
            name: String::from_utf8(node.name).ok()?,
            address: String::from_utf8(node.address).ok()?,
        });
    }
    let mut logs = Vec::with_capacity(welcome.logs.len());
    for log in welcome.logs {
        logs.push(LogInfo {
            group: GroupId(log.group),
            name: String::from_utf8(log.name).ok()?,
        });
    }
    if !nodes.iter().any(|node| node.id == NodeId(welcome.node)) {
        return None;
    }
    Some(Cluster {
        id,
        name: String::from_utf8(welcome.cluster_name).ok()?,
        nodes,
        logs,
    })
}
