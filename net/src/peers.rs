//! Links to the other nodes: one connection per lane, dialled by whoever sends on it.
//!
//! Dials, redials with a growing pause, and tells a refused redial from silence: the first means
//! that the peer's process is gone. What is sent while a link is down is dropped; Raft sends again.

use std::net::SocketAddr;

use ringwood_core::frame::Lane;
use ringwood_core::id::{Nanos, NodeId};
use ringwood_core::limits::PEER_QUEUE_SIZE_MAX;
use ringwood_core::shard::Outgoing;

use crate::ring::{IoError, Socket};
use crate::stream::Outbox;

/// Pause before the second try; each further one doubles it.
const PAUSE_MIN: Nanos = Nanos::from_millis(5);
/// Longest pause: a peer that comes back is found within this time.
const PAUSE_MAX: Nanos = Nanos::from_millis(200);

/// The lanes between nodes, in the order of their numbers here.
pub(crate) const LANES: [Lane; 3] = [Lane::Control, Lane::Data, Lane::Bulk];

/// Names one lane of one peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LaneId {
    /// Position among the peers.
    pub(crate) peer: usize,
    /// Position in `LANES`.
    pub(crate) lane: usize,
}

#[derive(Debug)]
enum State {
    /// Not connected; dialled again at this moment.
    Waiting {
        until: Nanos,
    },
    Dialling(Socket),
    Up(Socket),
}

/// One lane to one peer.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) peer: NodeId,
    pub(crate) address: SocketAddr,
    pub(crate) outbox: Outbox,
    /// Counts connections: a completion of an older one is recognised by its number.
    pub(crate) generation: u32,
    pub(crate) dropped_count: u64,
    state: State,
    pause: Nanos,
}

/// What a closed or failed link means to the shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Loss {
    /// The peer's process is gone.
    Refused,
    /// Nothing is known.
    Silent,
}

impl Link {
    fn new(now: Nanos, peer: NodeId, address: SocketAddr) -> Self {
        Self {
            peer,
            address,
            outbox: Outbox::new(),
            generation: 0,
            dropped_count: 0,
            state: State::Waiting { until: now },
            pause: PAUSE_MIN,
        }
    }

    pub(crate) fn socket(&self) -> Option<&Socket> {
        match &self.state {
            State::Up(socket) => Some(socket),
            State::Waiting { .. } | State::Dialling(_) => None,
        }
    }

    pub(crate) fn is_due(&self, now: Nanos) -> bool {
        matches!(self.state, State::Waiting { until } if until <= now)
    }

    fn due_at(&self) -> Option<Nanos> {
        match self.state {
            State::Waiting { until } => Some(until),
            State::Dialling(_) | State::Up(_) => None,
        }
    }

    pub(crate) fn on_dial(&mut self, socket: Socket) {
        assert!(matches!(self.state, State::Waiting { .. }));
        self.generation = self.generation.wrapping_add(1);
        self.state = State::Dialling(socket);
    }

    pub(crate) fn on_connected(&mut self) {
        let State::Dialling(socket) = &self.state else {
            panic!("connected without dialling")
        };
        self.pause = PAUSE_MIN;
        self.state = State::Up(socket.clone());
    }

    /// The connection, or the try to make one, is over. A stream that stood is redialled at once:
    /// the answer tells whether the peer's process is gone.
    pub(crate) fn on_lost(&mut self, now: Nanos, error: Option<IoError>) -> (Option<Socket>, Loss) {
        self.outbox.clear();
        let state = std::mem::replace(&mut self.state, State::Waiting { until: now });
        match state {
            State::Up(socket) => (Some(socket), Loss::Silent),
            State::Dialling(socket) => {
                self.state = State::Waiting {
                    until: now.after(self.pause),
                };
                self.pause = Nanos((self.pause.0 * 2).min(PAUSE_MAX.0));
                let refused = error == Some(IoError::Refused);
                (
                    Some(socket),
                    if refused { Loss::Refused } else { Loss::Silent },
                )
            }
            State::Waiting { until } => {
                self.state = State::Waiting { until };
                (None, Loss::Silent)
            }
        }
    }

    /// Queues a frame, or drops it where the link is down or its queue full.
    pub(crate) fn send(&mut self, frame: Outgoing) {
        let is_up = matches!(self.state, State::Up(_));
        if is_up && self.outbox.size() + frame.size() <= PEER_QUEUE_SIZE_MAX {
            self.outbox.push(frame);
        } else {
            self.dropped_count += 1;
        }
    }
}

/// The links to all peers.
#[derive(Debug)]
pub(crate) struct Peers {
    links: Vec<[Link; LANES.len()]>,
}

impl Peers {
    pub(crate) fn new(now: Nanos, peers: impl Iterator<Item = (NodeId, SocketAddr)>) -> Self {
        let links = peers
            .map(|(peer, address)| std::array::from_fn(|_| Link::new(now, peer, address)))
            .collect();
        Self { links }
    }

    pub(crate) fn link(&mut self, id: LaneId) -> &mut Link {
        &mut self.links[id.peer][id.lane]
    }

    pub(crate) fn find(&mut self, peer: NodeId, lane: Lane) -> Option<&mut Link> {
        let lane = LANES.iter().position(|at| *at == lane)?;
        self.links
            .iter_mut()
            .find(|links| links[0].peer == peer)
            .map(|links| &mut links[lane])
    }

    pub(crate) fn ids(&self) -> impl Iterator<Item = LaneId> + use<> {
        let count = self.links.len();
        (0..count).flat_map(|peer| (0..LANES.len()).map(move |lane| LaneId { peer, lane }))
    }

    /// When the next redial is due.
    pub(crate) fn deadline(&self) -> Option<Nanos> {
        self.links.iter().flatten().filter_map(Link::due_at).min()
    }
}
