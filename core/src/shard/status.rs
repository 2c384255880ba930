//! A shard's account of itself: measurements for `status`, no decisions.

use crate::frame::client::{GroupStatus, PeerStatus, ReplicaStatus, Status};
use crate::frame::code::ReplicaState;
use crate::id::{Nanos, NodeId};
use crate::raft::{Progress, ProgressState, Role};

use super::Shard;
use super::group::Group;

impl Shard {
    pub(super) fn status(&self, now: Nanos, request: u64) -> Status {
        let mut peers = Vec::with_capacity(self.peers.len());
        for position in 0..self.peers.len() {
            let peer = self.peers[position];
            peers.push(PeerStatus {
                node: peer.0,
                rtt_ns: self.liveness.round_trip(peer).0,
                connected: u8::from(self.liveness.is_heard(now, peer)),
            });
        }
        let mut alarms = Vec::new();
        if self.journal.pressure().size_free == 0 {
            let count = self.refused_full_count;
            alarms.push(format!("journal full: {count} appends refused since start").into_bytes());
        }
        if self.is_disk_full {
            alarms.push(b"disk full: segments cannot grow; free space to heal it".to_vec());
        }
        alarms.extend(self.agreement_alarms().map(String::into_bytes));
        alarms.extend(self.repair_alarms().map(String::into_bytes));
        alarms.extend(self.stall.alarm(now).map(String::into_bytes));
        alarms.extend(self.mend_alarms().map(String::into_bytes));
        alarms.extend(self.head_alarms().map(String::into_bytes));
        alarms.extend(self.doubt_alarms().map(String::into_bytes));
        alarms.extend(self.promise_alarms().map(String::into_bytes));
        if self.peer_fault_count > 0 {
            let count = self.peer_fault_count;
            alarms.push(format!("{count} frames with damaged blocks came from peers").into_bytes());
        }
        for (peer, why) in self.known.refused() {
            let name = self.config.name_of(peer);
            alarms.push(format!("this node refuses {name}: {why}").into_bytes());
        }
        for (peer, why) in self.liveness.refusals() {
            let name = self.config.name_of(peer);
            alarms.push(format!("{name} refuses this node: {why}").into_bytes());
        }
        Status {
            request,
            node: self.config.me.0,
            incarnation: self.config.incarnation.0,
            scrub_done: self.scrub.done_size,
            scrub_total: self.scrub.total_size,
            scrub_passes: self.scrub.pass_count,
            damage_found: self.repairs.found_count + self.mends.found_count,
            damage_healed: self.repairs.healed_count + self.mends.healed_count,
            timeout_ns: self.liveness.timeouts().election.0,
            version: self.config.version.clone().into_bytes(),
            peers,
            alarms,
            storage: self.config.storage.clone().into_bytes(),
            groups: self.groups.iter().map(group_status).collect(),
            progress: self
                .groups
                .iter()
                .flat_map(|group| self.replicas(now, group))
                .collect(),
            timeout_reason: self.liveness.reason().code(),
        }
    }

    /// Whose disk did not keep what it had said is stored, and does not know. A leader's word, for as long
    /// as it leads.
    fn promise_alarms(&self) -> impl Iterator<Item = String> {
        let groups = self.groups.iter().zip(&self.config.logs);
        groups.flat_map(|(group, log)| {
            let is_broken = |peer: &&NodeId| {
                let progress = group.raft.progress(**peer);
                progress.is_some_and(Progress::has_broken_promise)
            };
            self.peers.iter().filter(is_broken).map(|peer| {
                let (log, name) = (&log.name, self.config.name_of(*peer));
                format!("log {log}: {name} had promised blocks that its disk has not kept")
            })
        })
    }

    /// How far the replicas of a group are, as its leader sees them; empty on other nodes.
    fn replicas<'a>(
        &'a self,
        now: Nanos,
        group: &'a Group,
    ) -> impl Iterator<Item = ReplicaStatus> + 'a {
        let is_leader = group.raft.is_leader();
        let last = group.tail().last_index();
        self.config
            .voters
            .iter()
            .filter(move |_| is_leader)
            .map(move |voter| {
                let (durable, state) = if voter.id == self.config.me {
                    (group.raft.durable(), ReplicaState::Leader)
                } else {
                    let progress = group
                        .raft
                        .progress(voter.id)
                        .expect("a leader follows every voter");
                    let state = if !self.liveness.is_heard(now, voter.id) {
                        ReplicaState::Absent
                    } else if group.agreement.differs(voter.id) {
                        ReplicaState::Diverged
                    } else if matches!(
                        progress.state(),
                        ProgressState::CatchUp { .. } | ProgressState::Referred { .. }
                    ) {
                        ReplicaState::CatchUp
                    } else {
                        ReplicaState::Follower
                    };
                    (progress.matched(), state)
                };
                ReplicaStatus {
                    node: voter.id.0,
                    durable: durable.0,
                    lag_bytes: group.tail().size_between(durable, last),
                    group: group.id.0,
                    state: state.code(),
                }
            })
    }
}

fn group_status(group: &Group) -> GroupStatus {
    let state = match group.raft.role() {
        _ if group.agreement.is_stopped() => ReplicaState::Diverged,
        Role::Leader => ReplicaState::Leader,
        Role::Candidate | Role::PreCandidate => ReplicaState::Candidate,
        Role::Follower if group.raft.doubt().is_any() => ReplicaState::Unsure,
        Role::Follower => ReplicaState::Follower,
    };
    GroupStatus {
        term: group.raft.term().0,
        leader: group.raft.leader().unwrap_or_default().0,
        commit: group.raft.commit().0,
        durable: group.raft.durable().0,
        last: group.tail().last_index().0,
        end_offset: group.end_offset().0,
        first_offset: group.trims.start().0,
        group: group.id.0,
        state: state.code(),
    }
}
