//! Who stands at the other end of each accepted connection. The first frame names it; whatever
//! comes before that name is refused, and a name that does not fit this cluster is refused too.

use std::collections::BTreeMap;

use crate::frame::Lane;
use crate::frame::code::RefusedReason;
use crate::id::{ClusterId, ConnectionId, NodeId};

/// The one wire version this build speaks.
pub const WIRE_VERSION: u8 = 1;

/// Who is at the other end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Party {
    /// A node of this cluster, sending on one of its lanes.
    Peer(NodeId),
    /// A client.
    Client,
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
}

impl Sessions {
    pub(super) fn party(&self, connection: ConnectionId) -> Option<Party> {
        self.parties.get(&connection).copied()
    }

    pub(super) fn close(&mut self, connection: ConnectionId) {
        self.parties.remove(&connection);
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
            (true, Some(Lane::Client)) => Party::Client,
            (false, Some(Lane::Control | Lane::Data | Lane::Bulk)) => {
                if !peers.contains(&claim.node) {
                    return Err((
                        RefusedReason::UnknownNode,
                        format!("node {:016x} is no voter of this cluster", claim.node.0),
                    ));
                }
                Party::Peer(claim.node)
            }
            _ => {
                return Err((
                    RefusedReason::UnknownLane,
                    "a client speaks on the client lane, a node on its own lanes".to_owned(),
                ));
            }
        };
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
        assert_eq!(peer.expect("fits"), Party::Peer(PEER));
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
