//! Links to the other nodes: one connection per lane, dialled by whoever sends on it.
//!
//! Dials, redials with a growing pause, and tells a refused redial from silence: the first means
//! that the peer's process is gone. What is sent while a link is down is dropped; Raft sends again.

use std::net::SocketAddr;

use bytes::Bytes;
use ringwood_core::frame::Lane;
use ringwood_core::frame::assembler::{Assembler, TagPolicy};
use ringwood_core::frame::code::RefusedReason;
use ringwood_core::frame::greeting::ArchivedRefused;
use ringwood_core::frame::message::Message;
use ringwood_core::id::{Nanos, NodeId};
use ringwood_core::limits::PEER_QUEUE_SIZE_MAX;
use ringwood_core::shard::Outgoing;

use crate::names::Names;
use crate::ring::{IoError, Lease, Socket};
use crate::stream::Outbox;

/// Pause before the second try; each further one doubles it.
const PAUSE_MIN: Nanos = Nanos::from_millis(5);
/// Longest pause: a peer that comes back is found within this time.
const PAUSE_MAX: Nanos = Nanos::from_millis(200);

/// A dial without an answer is given up after this: a round trip of any network, and then some.
const DIAL_PATIENCE: Nanos = Nanos::from_millis(1_000);

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
    /// Given up at this moment: the kernel itself would try for minutes.
    Dialling {
        socket: Socket,
        until: Nanos,
    },
    Up {
        socket: Socket,
        since: Nanos,
    },
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
    /// What comes back: nothing, or why the other side refuses.
    assembler: Assembler<Lease>,
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
            assembler: Assembler::new(TagPolicy::Learn),
            state: State::Waiting { until: now },
            pause: PAUSE_MIN,
        }
    }

    pub(crate) fn socket(&self) -> Option<&Socket> {
        match &self.state {
            State::Up { socket, .. } => Some(socket),
            State::Waiting { .. } | State::Dialling { .. } => None,
        }
    }

    pub(crate) fn is_dialling(&self) -> bool {
        matches!(self.state, State::Dialling { .. })
    }

    /// Whether a dial has had its time without an answer.
    pub(crate) fn is_overdue(&self, now: Nanos) -> bool {
        matches!(self.state, State::Dialling { until, .. } if until <= now)
    }

    pub(crate) fn is_due(&self, now: Nanos) -> bool {
        matches!(self.state, State::Waiting { until } if until <= now)
    }

    fn due_at(&self) -> Option<Nanos> {
        match self.state {
            State::Waiting { until } | State::Dialling { until, .. } => Some(until),
            State::Up { .. } => None,
        }
    }

    pub(crate) fn on_dial(&mut self, now: Nanos, socket: Socket) {
        assert!(matches!(self.state, State::Waiting { .. }));
        self.generation = self.generation.wrapping_add(1);
        let until = now.after(DIAL_PATIENCE);
        self.state = State::Dialling { socket, until };
    }

    pub(crate) fn on_connected(&mut self, now: Nanos) {
        let State::Dialling { socket, .. } = &self.state else {
            panic!("connected without dialling")
        };
        let socket = socket.clone();
        self.state = State::Up { socket, since: now };
        // Of any cluster: that it is another one may be just what it says.
        self.assembler = Assembler::new(TagPolicy::Learn);
    }

    /// Bytes came back: why the other side does not take what we send. Told once.
    pub(crate) fn on_received(&mut self, lease: Lease) -> Option<String> {
        self.assembler.push(lease);
        let why = match self.assembler.next() {
            Ok(None) => None,
            Ok(Some(frame)) => match frame.message() {
                Ok(Message::Refused(refused)) => Some(words_of(refused)),
                Ok(_) => Some(format!("it answers like no node: {}", frame.kind())),
                Err(refusal) => Some(format!("it answers like no node: {refusal}")),
            },
            Err(refusal) => Some(format!("it answers like no node: {refusal}")),
        };
        if why.is_some() {
            self.assembler.abandon();
        }
        self.assembler.detach();
        self.assembler.take_released().for_each(drop);
        why
    }

    /// The connection, or the try to make one, is over. A stream that stood for a while is
    /// redialled at once: the answer tells whether the peer's process is gone. One that ended as
    /// soon as it stood was refused by whoever listens there, and is dialled with pauses.
    pub(crate) fn on_lost(&mut self, now: Nanos, error: Option<IoError>) -> (Option<Socket>, Loss) {
        self.outbox.clear();
        let state = std::mem::replace(&mut self.state, State::Waiting { until: now });
        match state {
            State::Up { socket, since } => {
                if now.since(since) > PAUSE_MAX {
                    self.pause = PAUSE_MIN;
                } else {
                    self.wait(now);
                }
                (Some(socket), Loss::Silent)
            }
            State::Dialling { socket, .. } => {
                self.wait(now);
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

    /// Is dialled after a pause, each time a longer one.
    pub(crate) fn wait(&mut self, now: Nanos) {
        self.state = State::Waiting {
            until: now.after(self.pause),
        };
        self.pause = Nanos((self.pause.0 * 2).min(PAUSE_MAX.0));
    }

    /// Queues a frame, or drops it where the link is down or its queue full. What goes to a peer
    /// that takes nothing at the moment is copied: a slice of any size would hold its whole arena,
    /// and one stopped peer would in time hold them all.
    pub(crate) fn send(&mut self, now: Nanos, mut frame: Outgoing) {
        let is_up = matches!(self.state, State::Up { .. });
        if self.outbox.is_stalled(now) {
            for slice in &mut frame.payload {
                *slice = Bytes::copy_from_slice(slice);
            }
        }
        if is_up && self.outbox.size() + frame.size() <= PEER_QUEUE_SIZE_MAX {
            self.outbox.push(frame);
        } else {
            self.dropped_count += 1;
        }
    }
}

/// Reason and sentence of a refusal.
fn words_of(refused: &ArchivedRefused) -> String {
    let detail = String::from_utf8_lossy(&refused.detail);
    match RefusedReason::from_code(refused.reason.to_native()) {
        Some(reason) => format!("{reason}: {detail}"),
        None => detail.into_owned(),
    }
}

/// The links to all peers.
#[derive(Debug)]
pub(crate) struct Peers {
    links: Vec<[Link; LANES.len()]>,
    names: Names,
}

impl Peers {
    pub(crate) fn new(
        now: Nanos,
        peers: impl Iterator<Item = (NodeId, SocketAddr)>,
        names: Names,
    ) -> Self {
        let links = peers
            .map(|(peer, address)| std::array::from_fn(|_| Link::new(now, peer, address)))
            .collect();
        Self { links, names }
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

    /// Peers without a connection for heartbeats may have moved: the next dials go where their
    /// names lead by now.
    pub(crate) fn find_moved(&mut self, now: Nanos) {
        let down = self.links.iter();
        let down = down.filter(|links| links[0].socket().is_none());
        self.names.refresh(now, down.map(|links| links[0].peer));
        while let Some((peer, address)) = self.names.take() {
            let links = self.links.iter_mut().flatten();
            for link in links.filter(|link| link.peer == peer) {
                link.address = address;
            }
        }
    }

    /// When the next redial is due.
    pub(crate) fn deadline(&self) -> Option<Nanos> {
        self.links.iter().flatten().filter_map(Link::due_at).min()
    }
}
