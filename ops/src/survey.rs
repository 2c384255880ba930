//! What the nodes said of themselves and of each other, put together into one account.
//!
//! Keeps the JSON document of `status` and the verdict on it. Knows no socket: it works with
//! whatever answers there are, for status is asked most when half of a cluster is down.

use std::collections::BTreeMap;

use ringwood_core::frame::client::{GroupStatus, ReplicaStatus, Status};
use ringwood_core::frame::code::{ReplicaState, TimeoutReason};
use serde::Serialize;

use crate::exit::Exit;
use crate::output::Wide;

/// One node's answer, or why there is none.
#[derive(Debug)]
pub(crate) struct Answer {
    /// Node.
    pub(crate) id: u64,
    /// Its name.
    pub(crate) name: String,
    /// Where it was asked.
    pub(crate) address: String,
    /// Its account of itself, or why it could not be reached.
    pub(crate) status: Result<Status, String>,
}

/// The document of `status -o json`. Fields are only ever added.
#[derive(Debug, Serialize)]
pub(crate) struct Survey {
    schema: &'static str,
    /// Whether `reasons` is empty.
    pub(crate) healthy: bool,
    /// What is not as it should be, one sentence each.
    pub(crate) reasons: Vec<String>,
    pub(crate) cluster: Cluster,
    pub(crate) nodes: Vec<Node>,
    pub(crate) logs: Vec<Log>,
}

/// Which cluster.
#[derive(Debug, Serialize)]
pub(crate) struct Cluster {
    /// 128 bits in hexadecimal.
    pub(crate) id: String,
    pub(crate) name: String,
}

/// A node. What only the node itself can tell is null while it cannot be reached.
#[derive(Debug, Serialize)]
pub(crate) struct Node {
    id: Wide,
    pub(crate) name: String,
    pub(crate) address: String,
    incarnation: Option<Wide>,
    pub(crate) version: Option<String>,
    pub(crate) reachable: bool,
    /// Why it is not reachable.
    pub(crate) error: Option<String>,
    pub(crate) timeout_us: Option<u64>,
    pub(crate) timeout_reason: Option<&'static str>,
    /// Round trips to the peers it is connected to.
    pub(crate) rtt_us: BTreeMap<String, u64>,
    /// How its disk is written.
    pub(crate) storage: Option<String>,
    /// What it has read of its disk to see whether that is sound.
    pub(crate) scrub: Option<Scrub>,
    pub(crate) alarms: Vec<String>,
}

/// How a node looks after what its disk keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Scrub {
    /// Read by the scrub under way, or by the last one.
    pub(crate) done_bytes: u64,
    /// There were to read when it began.
    pub(crate) total_bytes: u64,
    /// Came to their end since the node's start.
    pub(crate) passes: u64,
    /// Damaged places found since then.
    pub(crate) damage_found: u64,
    pub(crate) damage_healed: u64,
}

/// A log. What nobody reachable can tell is null.
#[derive(Debug, Serialize)]
pub(crate) struct Log {
    pub(crate) name: String,
    group: u32,
    /// The highest term anybody is in.
    pub(crate) term: Option<Wide>,
    /// Who leads in that term: by its own word, or that of its followers if it cannot be asked.
    pub(crate) leader: Option<String>,
    pub(crate) commit: Option<Wide>,
    pub(crate) end_offset: Option<Wide>,
    /// Offset of the oldest record kept, as the same node knows it.
    pub(crate) first_offset: Option<Wide>,
    pub(crate) replicas: Vec<Replica>,
}

/// A replica of a log.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Replica {
    pub(crate) node: String,
    role: &'static str,
    pub(crate) state: &'static str,
    /// Index through which its disk has the log.
    pub(crate) durable: Option<Wide>,
    /// Bytes it is behind the leader, by the leader's word.
    pub(crate) lag_bytes: Option<Wide>,
}

impl Survey {
    /// Puts answers together. `logs` are groups and names in the order to be shown.
    pub(crate) fn new(cluster: Cluster, logs: &[(u32, String)], answers: &[Answer]) -> Self {
        let logs = logs
            .iter()
            .map(|(group, name)| log(*group, name, answers))
            .collect();
        let nodes = answers.iter().map(|answer| node(answer, answers)).collect();
        let mut survey = Self {
            schema: "ringwood.status/v1",
            healthy: false,
            reasons: Vec::new(),
            cluster,
            nodes,
            logs,
        };
        survey.reasons = survey.judge();
        survey.healthy = survey.reasons.is_empty();
        survey
    }

    /// Nodes that answered.
    pub(crate) fn reachable_count(&self) -> usize {
        self.nodes.iter().filter(|node| node.reachable).count()
    }

    /// Logs that have a leader.
    pub(crate) fn led_count(&self) -> usize {
        self.logs.iter().filter(|log| log.leader.is_some()).count()
    }

    /// How a process that asked for the status is to exit.
    pub(crate) fn exit(&self) -> Exit {
        if self.reachable_count() == 0 {
            Exit::Unreachable
        } else if self.healthy {
            Exit::Ok
        } else if self.led_count() == 0 && !self.logs.is_empty() {
            Exit::NoLeader
        } else {
            Exit::Unhealthy
        }
    }

    fn judge(&self) -> Vec<String> {
        let mut reasons = Vec::new();
        for node in &self.nodes {
            if let Some(error) = &node.error {
                reasons.push(format!("{} is unreachable: {error}", node.name));
            }
            reasons.extend(
                node.alarms
                    .iter()
                    .map(|alarm| format!("{}: {alarm}", node.name)),
            );
        }
        let unled: Vec<_> = self
            .logs
            .iter()
            .filter(|log| log.leader.is_none())
            .collect();
        match &unled[..] {
            [] => {}
            _ if unled.len() == self.logs.len() => reasons.push("no log has a leader".into()),
            [log] => reasons.push(format!("{} has no leader", log.name)),
            [first, ..] => {
                let others = unled.len() - 1;
                reasons.push(format!("{} and {others} more have no leader", first.name));
            }
        }
        for node in self.nodes.iter().filter(|node| node.reachable) {
            reasons.extend(self.judge_replicas(node));
        }
        reasons
    }

    /// Replicas on a node that do not follow, one sentence for each state. Under a log without a
    /// leader nobody can follow; that is said once, above.
    fn judge_replicas(&self, node: &Node) -> Vec<String> {
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for log in self.logs.iter().filter(|log| log.leader.is_some()) {
            let replica = log
                .replicas
                .iter()
                .find(|replica| replica.node == node.name);
            match replica.map(|replica| replica.state) {
                None | Some("leader" | "follower") => {}
                Some(state) => *counts.entry(state).or_default() += 1,
            }
        }
        let sentence = |(state, count)| {
            let logs = if count == 1 { "log" } else { "logs" };
            format!("{} is in state {state} for {count} {logs}", node.name)
        };
        counts.into_iter().map(sentence).collect()
    }
}

fn node(answer: &Answer, answers: &[Answer]) -> Node {
    let status = answer.status.as_ref().ok();
    let rtt = |status: &Status| {
        let measured = status
            .peers
            .iter()
            .filter(|peer| peer.rtt_ns > 0 && peer.connected == 1);
        // Less than a microsecond is shown as one: zero would read as "no time at all".
        measured
            .map(|peer| (name_of(peer.node, answers), peer.rtt_ns.div_ceil(1000)))
            .collect()
    };
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Node {
        id: Wide(answer.id),
        name: answer.name.clone(),
        address: answer.address.clone(),
        incarnation: status.map(|status| Wide(status.incarnation)),
        version: status.map(|status| text(&status.version)),
        reachable: status.is_some(),
        error: answer.status.as_ref().err().cloned(),
        timeout_us: status.map(|status| status.timeout_ns / 1000),
        timeout_reason: status.map(|status| {
            TimeoutReason::from_code(status.timeout_reason).map_or("unknown", TimeoutReason::word)
        }),
        rtt_us: status.map(rtt).unwrap_or_default(),
        storage: status.map(|status| text(&status.storage)),
        scrub: status.map(|status| Scrub {
            done_bytes: status.scrub_done,
            total_bytes: status.scrub_total,
            passes: status.scrub_passes,
            damage_found: status.damage_found,
            damage_healed: status.damage_healed,
        }),
        alarms: status.map_or(Vec::new(), |s| {
            s.alarms.iter().map(|alarm| text(alarm)).collect()
        }),
    }
}

fn log(group: u32, name: &str, answers: &[Answer]) -> Log {
    let views: Vec<View<'_>> = answers
        .iter()
        .filter_map(|answer| View::new(group, answer))
        .collect();
    let term = views.iter().map(|view| view.own.term).max();
    let newest = || views.iter().filter(|view| Some(view.own.term) == term);
    let leader = newest().find(|view| view.leads());
    // Its followers' word is taken only for a leader that cannot be asked: a leader that has
    // stepped down goes on being named until they notice.
    let named = newest().map(|view| view.own.leader).find(|id| {
        *id != 0
            && answers
                .iter()
                .all(|answer| answer.id != *id || answer.status.is_err())
    });
    let ahead = views.iter().max_by_key(|view| view.own.commit);
    let replica = |answer: &Answer| {
        let own = views.iter().find(|view| view.node == answer.id);
        let told = leader.and_then(|leader| leader.progress_of(answer.id));
        replica(answer, own, told, leader)
    };
    Log {
        name: name.to_string(),
        group,
        term: term.map(Wide),
        leader: leader
            .map(|view| view.node)
            .or(named)
            .map(|id| name_of(id, answers)),
        commit: ahead.map(|view| Wide(view.own.commit)),
        end_offset: ahead.map(|view| Wide(view.own.end_offset)),
        first_offset: ahead.map(|view| Wide(view.own.first_offset)),
        replicas: answers.iter().map(replica).collect(),
    }
}

/// What one node says of one group.
struct View<'a> {
    node: u64,
    own: &'a GroupStatus,
    progress: &'a [ReplicaStatus],
}

impl<'a> View<'a> {
    fn new(group: u32, answer: &'a Answer) -> Option<Self> {
        let status = answer.status.as_ref().ok()?;
        let own = status.groups.iter().find(|own| own.group == group)?;
        Some(Self {
            node: answer.id,
            own,
            progress: &status.progress,
        })
    }

    fn leads(&self) -> bool {
        self.own.state == ReplicaState::Leader.code()
    }

    fn progress_of(&self, node: u64) -> Option<&'a ReplicaStatus> {
        self.progress
            .iter()
            .find(|told| told.group == self.own.group && told.node == node)
    }
}

/// A replica by its own word and by its leader's.
fn replica(
    answer: &Answer,
    own: Option<&View<'_>>,
    told: Option<&ReplicaStatus>,
    leader: Option<&View<'_>>,
) -> Replica {
    let is_leader = leader.is_some_and(|leader| leader.node == answer.id);
    let own_state = own.map(|view| state(view.own.state));
    let told_state = told.map(|told| state(told.state));
    let state = match (own_state, told_state) {
        _ if is_leader => ReplicaState::Leader,
        // A leader of an older term takes no part in this one, and does not know it yet.
        (Some(ReplicaState::Leader), told) => told.unwrap_or(ReplicaState::Absent),
        // It thinks that it follows; only the leader knows whether it keeps up.
        (Some(ReplicaState::Follower), Some(told)) => told,
        (Some(own), _) => own,
        (None, told) => told.unwrap_or(ReplicaState::Absent),
    };
    let lag = told.map(|told| told.lag_bytes).or(is_leader.then_some(0));
    Replica {
        node: answer.name.clone(),
        role: "voter",
        state: state.word(),
        durable: own
            .map(|view| view.own.durable)
            // Nothing was heard of it in this term if the leader's word is zero.
            .or(told.map(|told| told.durable).filter(|durable| *durable > 0))
            .map(Wide),
        lag_bytes: lag.map(Wide),
    }
}

/// A state that this version does not know is none it could rely on.
fn state(code: u8) -> ReplicaState {
    ReplicaState::from_code(code).unwrap_or(ReplicaState::Unsure)
}

fn name_of(id: u64, answers: &[Answer]) -> String {
    let known = answers.iter().find(|answer| answer.id == id);
    known.map_or_else(|| id.to_string(), |answer| answer.name.clone())
}

#[cfg(test)]
mod tests {
    use ringwood_core::frame::client::PeerStatus;

    use super::*;

    fn own(state: ReplicaState, term: u64, leader: u64, commit: u64) -> GroupStatus {
        GroupStatus {
            group: 1,
            state: state.code(),
            term,
            leader,
            commit,
            durable: commit,
            last: commit,
            end_offset: commit * 10,
            first_offset: commit * 2,
        }
    }

    fn answer(id: u64, group: Option<GroupStatus>) -> Answer {
        let status = group.map(|group| Status {
            node: id,
            incarnation: u64::MAX,
            timeout_ns: 150_000_000,
            timeout_reason: TimeoutReason::Rtt.code(),
            version: b"0.1.0".to_vec(),
            groups: vec![group],
            ..Status::default()
        });
        Answer {
            id,
            name: format!("node-{id}"),
            address: format!("127.0.0.1:740{id}"),
            status: status.ok_or_else(|| "connection refused".to_string()),
        }
    }

    /// Node 1 leads in term 3, the others follow.
    fn led() -> Vec<Answer> {
        let mut answers = vec![
            answer(1, Some(own(ReplicaState::Leader, 3, 1, 9))),
            answer(2, Some(own(ReplicaState::Follower, 3, 1, 9))),
            answer(3, Some(own(ReplicaState::Follower, 3, 1, 8))),
        ];
        let told = |node, lag_bytes| ReplicaStatus {
            node,
            durable: 8,
            lag_bytes,
            group: 1,
            state: ReplicaState::Follower.code(),
        };
        let leader = answers[0].status.as_mut().expect("reachable");
        leader.progress = vec![told(2, 0), told(3, 512)];
        leader.peers = vec![
            PeerStatus {
                node: 2,
                rtt_ns: 41_300,
                connected: 1,
            },
            PeerStatus {
                node: 3,
                rtt_ns: 0,
                connected: 0,
            },
        ];
        answers
    }

    fn survey(answers: &[Answer]) -> Survey {
        let cluster = Cluster {
            id: "00".into(),
            name: "test".into(),
        };
        Survey::new(cluster, &[(1, "log-0".into())], answers)
    }

    fn states(survey: &Survey) -> Vec<&str> {
        survey.logs[0]
            .replicas
            .iter()
            .map(|replica| replica.state)
            .collect()
    }

    #[test]
    fn a_led_cluster_is_healthy_and_lag_is_the_leaders_word() {
        let survey = survey(&led());
        assert_eq!(survey.reasons, Vec::<String>::new());
        assert_eq!(survey.exit(), Exit::Ok);
        let log = &survey.logs[0];
        assert_eq!(log.leader.as_deref(), Some("node-1"));
        assert_eq!((log.term, log.commit), (Some(Wide(3)), Some(Wide(9))));
        assert_eq!(log.replicas[2].durable, Some(Wide(8)));
        assert_eq!(log.replicas[2].lag_bytes, Some(Wide(512)));
        assert_eq!(
            survey.nodes[0].rtt_us,
            BTreeMap::from([("node-2".to_string(), 42)])
        );
    }

    #[test]
    fn the_document_keeps_its_schema() {
        let json = serde_json::to_value(survey(&led())).expect("plain data");
        assert_eq!(json["schema"], "ringwood.status/v1");
        assert_eq!(json["nodes"][0]["incarnation"], u64::MAX.to_string());
        assert_eq!(json["nodes"][0]["timeout_us"], 150_000);
        assert_eq!(json["nodes"][0]["timeout_reason"], "rtt");
        assert_eq!(json["logs"][0]["end_offset"], "90");
        assert_eq!(json["logs"][0]["first_offset"], "18");
        let replica = serde_json::json!(
            {"node": "node-3", "role": "voter", "state": "follower",
             "durable": "8", "lag_bytes": "512"}
        );
        assert_eq!(json["logs"][0]["replicas"][2], replica);
    }

    #[test]
    fn a_dead_follower_is_absent_and_makes_the_cluster_unhealthy() {
        let mut answers = led();
        answers[1] = answer(2, None);
        let survey = survey(&answers);
        assert_eq!(survey.exit(), Exit::Unhealthy);
        assert_eq!(
            survey.reasons,
            ["node-2 is unreachable: connection refused"]
        );
        // The leader has not noticed yet, and its word counts as long as it leads.
        assert_eq!(states(&survey), ["leader", "follower", "follower"]);
        assert_eq!(survey.nodes[1].timeout_us, None);
    }

    #[test]
    fn a_leader_that_cannot_be_asked_is_known_by_its_followers() {
        let mut answers = led();
        answers[0] = answer(1, None);
        let survey = survey(&answers);
        assert_eq!(survey.logs[0].leader.as_deref(), Some("node-1"));
        assert_eq!(states(&survey), ["absent", "follower", "follower"]);
        assert_eq!(survey.exit(), Exit::Unhealthy);
    }

    #[test]
    fn a_leader_that_denies_it_is_no_leader() {
        let mut answers = led();
        answers[0] = answer(1, Some(own(ReplicaState::Follower, 3, 0, 9)));
        let survey = survey(&answers);
        assert_eq!(survey.logs[0].leader, None);
        assert_eq!(survey.exit(), Exit::NoLeader);
        assert_eq!(survey.reasons, ["no log has a leader"]);
    }

    #[test]
    fn a_leader_of_an_older_term_is_overruled() {
        let mut answers = led();
        answers[1] = answer(2, Some(own(ReplicaState::Leader, 4, 2, 10)));
        let survey = survey(&answers);
        assert_eq!(survey.logs[0].leader.as_deref(), Some("node-2"));
        assert_eq!(survey.logs[0].term, Some(Wide(4)));
        assert_eq!(states(&survey), ["absent", "leader", "follower"]);
        assert_eq!(survey.reasons, ["node-1 is in state absent for 1 log"]);
    }

    #[test]
    fn a_follower_that_is_caught_up_says_so_by_its_leader() {
        let mut answers = led();
        let leader = answers[0].status.as_mut().expect("reachable");
        leader.progress[1].state = ReplicaState::CatchUp.code();
        let survey = survey(&answers);
        assert_eq!(states(&survey), ["leader", "follower", "catch_up"]);
        assert_eq!(survey.reasons, ["node-3 is in state catch_up for 1 log"]);
    }

    #[test]
    fn an_alarm_is_unhealthy_and_nobody_reachable_is_unreachable() {
        let mut answers = led();
        answers[2].status.as_mut().expect("reachable").alarms = vec![b"disk full".to_vec()];
        let alarmed = survey(&answers);
        assert_eq!(alarmed.reasons, ["node-3: disk full"]);
        assert_eq!(alarmed.exit(), Exit::Unhealthy);
        let dark = survey(&[answer(1, None), answer(2, None), answer(3, None)]);
        assert_eq!(dark.exit(), Exit::Unreachable);
        assert_eq!(dark.logs[0].term, None);
    }
}
