//! What must hold between nodes, checked after every event against the hosts' disks, not against
//! what the hosts believe.

use std::collections::BTreeMap;

use ringwood_core::id::{Index, NodeId, Term};
use ringwood_core::log::Entry;
use ringwood_core::raft::{Message, Output};

use super::host::{Did, Host, Wire};

#[derive(Default)]
pub(crate) struct Oracle {
    leaders: BTreeMap<Term, NodeId>,
    /// Sum by index and term. Sums chain, so one per pair is log matching.
    blocks: BTreeMap<(Index, Term), u32>,
    /// Every index ever committed anywhere, the first at index 1; set once.
    pub(crate) committed: Vec<(Term, u32)>,
    votes: BTreeMap<(NodeId, Term), NodeId>,
    /// What a read must see.
    reads: BTreeMap<u64, usize>,
    pub(crate) read_ready_count: usize,
}

fn identity(entry: &Entry) -> (Term, u32) {
    (entry.term, entry.sum)
}

impl Oracle {
    pub(crate) fn begin_read(&mut self, id: u64) {
        assert!(self.reads.insert(id, self.committed.len()).is_none());
    }

    /// Judges what `hosts[who]` did in one event.
    pub(crate) fn observe(&mut self, hosts: &[Host], who: usize, did: &[Did]) {
        let host = &hosts[who];
        for deed in did {
            match deed {
                Did::Output(output) => self.observe_output(hosts, host, output),
                Did::Send { to, wire } => self.observe_send(host, *to, wire),
                Did::Pushed { index, entry } => {
                    let sum = *self.blocks.entry((*index, entry.term)).or_insert(entry.sum);
                    assert_eq!(
                        sum, entry.sum,
                        "log matching at {index} of term {}",
                        entry.term
                    );
                }
            }
        }
    }

    fn observe_output(&mut self, hosts: &[Host], host: &Host, output: &Output) {
        match output {
            Output::BecameLeader { term } => {
                let leader = *self.leaders.entry(*term).or_insert(host.me());
                assert_eq!(leader, host.me(), "one leader in term {term}");
                let voted = |other: &&Host| {
                    let hard = other.durable.hard;
                    hard.term > *term || (hard.term, hard.vote) == (*term, Some(host.me()))
                };
                let count = hosts.iter().filter(voted).count();
                assert!(
                    2 * count > hosts.len(),
                    "elected in term {term}, the votes of {count} are durable"
                );
                self.assert_complete(host);
            }
            Output::Committed { index } => self.observe_commit(hosts, host, *index),
            Output::ReadReady { id, index } => {
                let least = self.reads.remove(id).expect("a read ends once");
                assert!(
                    index.0 as usize >= least,
                    "read {id} misses acknowledged writes"
                );
                self.read_ready_count += 1;
            }
            Output::ReadFailed { id } => {
                self.reads.remove(id).expect("a read ends once");
            }
            _ => {}
        }
    }

    /// A new leader has every committed block.
    fn assert_complete(&self, host: &Host) {
        let raft = host.raft();
        assert!(
            raft.last().0 as usize >= self.committed.len(),
            "leader completeness"
        );
        for (i, expected) in self.committed.iter().enumerate() {
            let index = Index(i as u64 + 1);
            assert_eq!(
                identity(&host.entry(index)),
                *expected,
                "leader completeness at {index}"
            );
        }
    }

    fn observe_commit(&mut self, hosts: &[Host], host: &Host, index: Index) {
        let raft = host.raft();
        let is_own = raft.tail().term_at(index) == Some(raft.term());
        assert!(
            is_own || !raft.is_leader(),
            "a leader commits by counting a block of an older term"
        );
        for i in 0..index.0 as usize {
            let entry = identity(&host.committed[i]);
            if i < self.committed.len() {
                assert_eq!(
                    entry,
                    self.committed[i],
                    "one block is committed at {}",
                    i + 1
                );
                continue;
            }
            let durable = |host: &&Host| host.durable.log.get(i).map(identity) == Some(entry);
            let count = hosts.iter().filter(durable).count();
            assert!(
                2 * count > hosts.len(),
                "{} is committed, durable on {count}",
                i + 1
            );
            self.committed.push(entry);
        }
    }

    /// No promise leaves before what it rests on is on disk.
    fn observe_send(&mut self, host: &Host, to: NodeId, wire: &Wire) {
        let hard = host.durable.hard;
        let (me, raft) = (host.me(), host.raft());
        let has_durably = |index: Index| {
            index == Index(0)
                || host.durable.log.get(index.0 as usize - 1).map(identity)
                    == Some(identity(&host.entry(index)))
        };
        match *wire {
            Wire::Message(Message::VoteReply {
                pre: false,
                granted: true,
                term,
                ..
            }) => {
                let voted = *self.votes.entry((me, term)).or_insert(to);
                assert_eq!(voted, to, "{me} votes once in term {term}");
                let kept = hard.term > term || (hard.term, hard.vote) == (term, Some(to));
                assert!(kept, "a vote is durable before it leaves");
            }
            Wire::Message(Message::VoteRequest {
                pre: false, term, ..
            }) => {
                let voted = *self.votes.entry((me, term)).or_insert(me);
                assert_eq!(voted, me, "{me} votes once in term {term}");
                let kept = hard.term > term || (hard.term, hard.vote) == (term, Some(me));
                assert!(kept, "a candidate's own vote is durable before it asks");
            }
            Wire::Message(Message::AppendAck {
                term,
                matched: true,
                index,
                ..
            }) => {
                assert!(hard.term >= term, "a term is durable before its acks leave");
                // Since then the log may have moved on in a later term; see follower.rs.
                assert!(
                    term != raft.term() || has_durably(index),
                    "{index} acked, not durable"
                );
            }
            Wire::BeatAck(ack) if ack.durable > Index(0) => {
                assert!(
                    hard.term >= ack.term,
                    "a term is durable before its acks leave"
                );
                assert!(
                    has_durably(ack.durable),
                    "{} acked, not durable",
                    ack.durable
                );
            }
            Wire::Append { term, .. } => {
                assert_eq!(
                    (hard.term, hard.vote),
                    (term, Some(me)),
                    "a leader's term is durable"
                );
            }
            _ => {}
        }
    }
}
