//! Who stands at the other end of each accepted connection. The first frame names it; whatever
//! comes before that name is refused, and a name that does not fit this cluster is refused too.
//! Whoever was refused is not listened to any more, whatever else it had sent already.

use std::collections::BTreeMap;

use crate::frame::code::RefusedReason;
use crate::frame::{Gate, Lane};
use crate::id::{ClusterId, ConnectionId, NodeId};
use crate::limits::CLIENT_COUNT_MAX;

/// The one wire version this build speaks.
pub const WIRE_VERSION: u8 = 1;

/// Who is at the other end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Party {
    /// A node of this cluster, sending on one of its lanes.
    Peer(NodeId, Lane),
    /// A client.
    Client,
    /// Somebody who was told to go, and whose connection has not ended yet.
    Refused,
}

/// What may come from whoever this is; nothing if it was refused.
pub(super) fn gate_of(party: Option<Party>) -> Option<Gate> {
    match party {
        None => Some(Gate::Hello),
        Some(Party::Client) => Some(Gate::Lane(Lane::Client)),
        Some(Party::Peer(_, lane)) => Some(Gate::Lane(lane)),
        Some(Party::Refused) => None,
    }
}

/// What a connection's first frame claims.
#[derive(Clone, Copy, Debug)]
pub(super) struct Claim {
    pub(super) cluster: ClusterId,
    pub(super) node: NodeId,
    pub(super) lane: Option<Lane>,
    pub(super) version_min: u8,
    pub(super) version_max: u8,
}

/// The parties of all accepted connections.
#[derive(Debug, Default)]
pub(super) struct Sessions {
    parties: BTreeMap<ConnectionId, Party>,
    /// How many of them are clients.
    client_count: usize,
}

impl Sessions {
    pub(super) fn party(&self, connection: ConnectionId) -> Option<Party> {
        self.parties.get(&connection).copied()
    }

    /// What may come on a connection now; nothing if it was refused.
    pub(super) fn gate(&self, connection: ConnectionId) -> Option<Gate> {
        gate_of(self.party(connection))
    }

    /// The connection has ended.
    pub(super) fn close(&mut self, connection: ConnectionId) {
        let party = self.parties.remove(&connection);
        self.client_count -= usize::from(party == Some(Party::Client));
    }

    /// The connection is to end; nothing that comes on it counts until then.
    pub(super) fn refuse(&mut self, connection: ConnectionId) {
        self.close(connection);
        self.parties.insert(connection, Party::Refused);
    }

    /// All that are open for clients.
    pub(super) fn clients(&self) -> Vec<ConnectionId> {
        let clients = self.parties.iter();
        let clients = clients.filter(|(_, party)| **party == Party::Client);
        clients.map(|(connection, _)| *connection).collect()
    }

    /// The connection that a peer's new one on the same lane stands for from now on: a node has one
    /// for each lane, so the old one is what is left of a link that the peer has lost. So a peer
    /// always finds room, and can never take more than its own.
    pub(super) fn superseded(&self, connection: ConnectionId) -> Option<ConnectionId> {
        let party = self.party(connection)?;
        let is_peer = matches!(party, Party::Peer(..));
        let mut others = self.parties.iter().filter(|(at, _)| **at != connection);
        others
            .find(|(_, other)| is_peer && **other == party)
            .map(|(at, _)| *at)
    }

    /// Believes a first frame or says why not. State changes only when it is believed.
    pub(super) fn open(
        &mut self,
        connection: ConnectionId,
        claim: Claim,
        cluster: ClusterId,
        peers: &[NodeId],
    ) -> Result<Party, (RefusedReason, String)> {
        assert!(self.party(connection).is_none());
        if !(claim.version_min..=claim.version_max).contains(&WIRE_VERSION) {
            return Err((
                RefusedReason::UnsupportedVersion,
                format!(
                    "this node speaks wire version {WIRE_VERSION}, the caller {} to {}",
                    claim.version_min, claim.version_max
                ),
            ));
        }
        let is_client = claim.node == NodeId(0);
        let cluster_unknown = claim.cluster == ClusterId(0);
        if claim.cluster != cluster && !(is_client && cluster_unknown) {
            return Err((
                RefusedReason::WrongCluster,
                format!(
                    "this node belongs to cluster {:032x}, not {:032x}",
                    cluster.0, claim.cluster.0
                ),
            ));
        }
        let party = match (is_client, claim.lane) {
            (true, Some(Lane::Client)) => {
                if self.client_count >= CLIENT_COUNT_MAX {
                    return Err((
                        RefusedReason::Overloaded,
                        format!("all {CLIENT_COUNT_MAX} connections for clients are taken"),
                    ));
                }
                Party::Client
            }
            (false, Some(lane @ (Lane::Control | Lane::Data | Lane::Bulk))) => {
                if !peers.contains(&claim.node) {
                    return Err((
                        RefusedReason::UnknownNode,
                        format!("node {:016x} is no voter of this cluster", claim.node.0),
                    ));
                }
                Party::Peer(claim.node, lane)
            }
            _ => {
                return Err((
                    RefusedReason::UnknownLane,
                    "a client speaks on the client lane, a node on its own lanes".to_owned(),
                ));
            }
        };
        self.client_count += usize::from(party == Party::Client);
        self.parties.insert(connection, party);
        Ok(party)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLUSTER: ClusterId = ClusterId(7);
    const PEER: NodeId = NodeId(3);

    fn claim() -> Claim {
        Claim {
            cluster: CLUSTER,
            node: PEER,
            lane: Some(Lane::Control),
            version_min: 1,
            version_max: 1,
        }
    }

    fn refusal(claim: Claim) -> RefusedReason {
        let mut sessions = Sessions::default();
        let refused = sessions.open(ConnectionId(1), claim, CLUSTER, &[PEER]);
        assert!(sessions.party(ConnectionId(1)).is_none());
        refused.expect_err("a claim that does not fit").0
    }

    #[test]
    fn a_peer_and_a_client_are_told_apart() {
        let mut sessions = Sessions::default();
        let peer = sessions.open(ConnectionId(1), claim(), CLUSTER, &[PEER]);
        assert_eq!(peer.expect("fits"), Party::Peer(PEER, Lane::Control));
        let client = Claim {
            cluster: ClusterId(0),
            node: NodeId(0),
            lane: Some(Lane::Client),
            ..claim()
        };
        let client = sessions.open(ConnectionId(2), client, CLUSTER, &[PEER]);
        assert_eq!(client.expect("fits"), Party::Client);
        sessions.close(ConnectionId(1));
        assert_eq!(sessions.party(ConnectionId(1)), None);
    }

    fn client() -> Claim {
        Claim {
            node: NodeId(0),
            lane: Some(Lane::Client),
            ..claim()
        }
    }

    #[test]
    fn whoever_was_refused_is_not_heard_again() {
        let mut sessions = Sessions::default();
        let id = ConnectionId(1);
        assert_eq!(sessions.gate(id), Some(Gate::Hello));
        assert!(sessions.open(id, client(), CLUSTER, &[PEER]).is_ok());
        assert_eq!(sessions.gate(id), Some(Gate::Lane(Lane::Client)));
        sessions.refuse(id);
        assert_eq!(sessions.gate(id), None);
        assert_eq!(sessions.client_count, 0);
        sessions.close(id);
        assert_eq!(sessions.client_count, 0);
    }

    #[test]
    fn clients_are_bounded_and_a_voter_always_gets_in() {
        let mut sessions = Sessions::default();
        for number in 0..CLIENT_COUNT_MAX as u64 {
            let id = ConnectionId(number);
            assert!(sessions.open(id, client(), CLUSTER, &[PEER]).is_ok());
        }
        let late = ConnectionId(1 << 20);
        let refused = sessions.open(late, client(), CLUSTER, &[PEER]);
        assert_eq!(refused.expect_err("full").0, RefusedReason::Overloaded);
        assert!(sessions.open(late, claim(), CLUSTER, &[PEER]).is_ok());
        assert_eq!(sessions.superseded(late), None);
        sessions.close(ConnectionId(7));
        let id = ConnectionId(7);
        assert!(sessions.open(id, client(), CLUSTER, &[PEER]).is_ok());
    }

    #[test]
    fn a_peer_has_one_connection_for_each_lane() {
        let mut sessions = Sessions::default();
        let (old, other, new) = (ConnectionId(1), ConnectionId(2), ConnectionId(3));
        let data = Claim {
            lane: Some(Lane::Data),
            ..claim()
        };
        for (id, claim) in [(old, claim()), (other, data), (new, claim())] {
            assert!(sessions.open(id, claim, CLUSTER, &[PEER]).is_ok());
        }
        assert_eq!(sessions.superseded(new), Some(old));
        assert_eq!(sessions.superseded(other), None);
        sessions.refuse(old);
        assert_eq!(sessions.superseded(new), None);
    }

    #[test]
    fn each_misfit_has_its_own_reason() {
        assert_eq!(
            refusal(Claim {
                version_min: 2,
                version_max: 9,
                ..claim()
            }),
            RefusedReason::UnsupportedVersion
        );
        assert_eq!(
            refusal(Claim {
                cluster: ClusterId(8),
                ..claim()
            }),
            RefusedReason::WrongCluster
        );
        assert_eq!(
            refusal(Claim {
                cluster: ClusterId(0),
                ..claim()
            }),
            RefusedReason::WrongCluster
        );
        assert_eq!(
            refusal(Claim {
                node: NodeId(9),
                ..claim()
            }),
            RefusedReason::UnknownNode
        );
        assert_eq!(
            refusal(Claim {
                lane: Some(Lane::Client),
                ..claim()
            }),
            RefusedReason::UnknownLane
        );
        assert_eq!(
            refusal(Claim {
                lane: None,
                ..claim()
            }),
            RefusedReason::UnknownLane
        );
        assert_eq!(
            refusal(Claim {
                node: NodeId(0),
                ..claim()
            }),
            RefusedReason::UnknownLane
        );
    }
}
