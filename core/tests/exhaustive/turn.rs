//! A step of one node: one input and the turn that it ends, which is a flush, one run sealed, and the
//! messages that may leave; as little shard around Raft as will do.
//!
//! Every call into Raft is followed by the check of its invariants, every promise that leaves is
//! compared with the disk.

use ringwood_core::id::{Index, Lsn, NodeId, Term};
use ringwood_core::log::{Entry, HardState};
use ringwood_core::raft::essence::{self, NOW};
use ringwood_core::raft::invariants::{Seen, check};
use ringwood_core::raft::{After, AppendRequest, BlockId, Faults, Message, Outbox, Output, Raft};

use super::breach::Breach;
use super::disk::{Item, Loss};
use super::mark::Mark;
use super::node::{Did, Input, Node, raft};
use super::wire::{Block, Body, NODE_COUNT};
/// What the host around Raft is like.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Host {
    /// Runs are durable within the step that made them.
    pub(crate) prompt_disk: bool,
    /// A heartbeat that Raft asks for leaves with the turn. Otherwise the next one by the clock
    /// tells the same.
    pub(crate) prompt_beat: bool,
}

/// A step while it is done.
pub(super) struct Turn {
    pub(super) node: Node,
    open: Vec<Item>,
    pub(super) did: Did,
    host: Host,
    beat_now: bool,
}

impl Turn {
    pub(super) fn new(node: Node, host: Host) -> Self {
        Self {
            node,
            open: Vec::new(),
            did: Did::default(),
            host,
            beat_now: false,
        }
    }

    pub(super) fn play(&mut self, input: &Input) {
        match input {
            Input::Receive { from, body, room } => self.receive(*from, body, *room),
            Input::Store => self.store(),
            Input::Election => self.call(|raft, out| raft.tick(essence::ELECTION_DUE, out)),
            Input::Silence => self.call(|raft, out| raft.tick(essence::SILENCE, out)),
            Input::QuorumSilent => {
                self.call(|raft, out| raft.tick(essence::SILENCE, out));
                assert!(!self.node.raft.is_leader(), "silence ends a leadership");
            }
            Input::Resend => self.call(|raft, out| raft.tick(essence::RESEND_DUE, out)),
            Input::HandoverOver => {
                let was_handing = self.node.raft.can_propose().is_err();
                self.call(|raft, out| raft.tick(essence::HANDOVER_DUE, out));
                if was_handing && self.node.raft.can_propose().is_ok() {
                    self.did.marks.push(Mark::TransferGivenUp);
                }
            }
            Input::Beat => self.beat_now = true,
            Input::Propose => self.propose(true),
            // Its number is what it must see at least, so nothing else need be remembered of it.
            Input::Read { known } => self.call(|raft, out| raft.read(NOW, *known, out)),
            Input::Transfer { to } => {
                // Refused while another transfer goes on; then nothing changes.
                let _ = self.call(|raft, out| raft.transfer(NOW, *to, out));
            }
            Input::Crash { reached_count } => self.crash(*reached_count),
            Input::Damage { loss } => self.damage(*loss),
            Input::Ask => self.call(|raft, out| raft.tick(essence::REPORT_DUE, out)),
        }
        self.end_turn();
        while self.host.prompt_disk && !self.node.runs.is_empty() {
            self.store();
            self.end_turn();
        }
        let raft = &self.node.raft;
        if raft.is_leader() && raft.commit() > raft.durable() {
            self.did.marks.push(Mark::CommittedBeforeOwnDisk);
        }
        let faults = *raft.faults();
        if faults != Faults::default() {
            self.did.breach.get_or_insert(Breach::Fault(faults));
        }
        self.node.raft.forget_time();
    }

    fn open_lsn(&self) -> Lsn {
        Lsn(self.node.runs.len() as u64 + 1)
    }

    fn call<R>(&mut self, act: impl FnOnce(&mut Raft, &mut Outbox) -> R) -> R {
        let mut out = Outbox {
            lsn: self.open_lsn(),
            list: Vec::new(),
        };
        let before = Seen::of(&self.node.raft);
        let result = act(&mut self.node.raft, &mut out);
        check(&before, &self.node.raft);
        out.list.into_iter().for_each(|output| self.perform(output));
        result
    }

    fn perform(&mut self, output: Output) {
        match output {
            Output::Persist(hard) => self.open.push(Item::Hard(hard)),
            Output::Send { to, message, after } => match after {
                After::Stored(lsn) => {
                    assert!(lsn <= self.open_lsn(), "no run is waited for that never is");
                    self.node.held.push((lsn, to, message));
                }
                After::Now => self.send(to, Body::Message(message)),
            },
            Output::Replicate {
                to,
                term,
                prev_index,
                prev_term,
                first,
                last,
                commit,
            } => {
                if first > last {
                    self.did.marks.push(Mark::Reminded);
                }
                let tail = self.node.raft.tail();
                let block = |index| Block::of(tail.entry(Index(index)).expect("in memory"));
                let blocks = (first.0..=last.0).map(block).collect();
                let prev = (prev_index, prev_term);
                let body = Body::Append {
                    term,
                    prev,
                    commit,
                    blocks,
                };
                self.send(to, body);
            }
            Output::CatchUp { .. } => panic!("nothing was released"),
            Output::BecameLeader { term } => {
                self.did.leads = Some(term);
                self.did.marks.push(Mark::Elected);
                self.propose(false);
            }
            Output::Committed { .. } => self.did.marks.push(Mark::Committed),
            // The next heartbeat by the clock, which is `Input::Beat`, tells the same.
            Output::BeatNow => self.beat_now |= self.host.prompt_beat,
            Output::SteppedDown { .. } => self.did.marks.push(Mark::SteppedDown),
            Output::Truncated { .. } => self.did.marks.push(Mark::Truncated),
            Output::ReadReady { id: known, index } => {
                self.did.marks.push(Mark::ReadServed);
                if index < Index(known) {
                    self.did.breach.get_or_insert(Breach::StaleRead(index));
                }
            }
            Output::ReadFailed { .. } => self.did.marks.push(Mark::ReadFailed),
            Output::Doubts(doubt) => {
                let mark = match self.node.disk.doubt.vote && !doubt.vote {
                    true => Mark::VoteSettled,
                    false => Mark::LogSettled,
                };
                self.did.marks.push(mark);
                self.open.push(Item::Doubt(doubt));
            }
        }
    }

    fn propose(&mut self, has_record: bool) {
        let (term, lsn) = (self.node.raft.term(), self.open_lsn());
        let block = Block { term, has_record };
        let entry = block.entry(lsn, self.node.raft.tail().next_offset());
        let before = Seen::of(&self.node.raft);
        let index = self.node.raft.propose(entry);
        check(&before, &self.node.raft);
        self.open.push(Item::Block(index, block));
    }

    fn receive(&mut self, from: NodeId, body: &Body, room: Option<usize>) {
        match body {
            Body::Message(message) => self.call(|raft, out| raft.step(NOW, from, *message, out)),
            Body::Beat(beat) => {
                let ack = self.call(|raft, out| raft.on_beat(NOW, from, beat, out));
                self.send(from, Body::BeatAck(ack));
            }
            Body::BeatAck(ack) => self.call(|raft, out| raft.on_beat_ack(NOW, from, ack, out)),
            Body::Append {
                term,
                prev,
                commit,
                blocks,
            } => {
                let index_of = |i: usize| Index(prev.0.0 + 1 + i as u64);
                let id = |(i, block): (usize, &Block)| BlockId {
                    index: index_of(i),
                    term: block.term,
                };
                let ids: Vec<_> = blocks.iter().enumerate().map(id).collect();
                let request = AppendRequest {
                    term: *term,
                    prev_index: prev.0,
                    prev_term: prev.1,
                    commit: *commit,
                    blocks: &ids,
                };
                let accepted = self.call(|raft, out| raft.append_entries(NOW, from, &request, out));
                let Some(accepted) = accepted else {
                    return;
                };
                let lsn = self.open_lsn();
                let mut offset = self.node.raft.tail().next_offset();
                let mut copied: Vec<Entry> = Vec::new();
                let wanted = blocks.iter().enumerate().skip(accepted.skip);
                let count = room.unwrap_or(blocks.len());
                if wanted.len() > count {
                    self.did.marks.push(Mark::CutShort);
                }
                for (i, block) in wanted.take(count) {
                    let entry = block.entry(lsn, offset);
                    offset = entry.next_offset();
                    copied.push(entry);
                    self.open.push(Item::Block(index_of(i), *block));
                }
                self.call(|raft, out| raft.appended(NOW, &copied, out));
            }
        }
    }

    fn end_turn(&mut self) {
        self.call(|raft, out| raft.flush(NOW, out));
        if !self.open.is_empty() {
            self.node.runs.push(std::mem::take(&mut self.open));
        }
        if std::mem::take(&mut self.beat_now)
            && let Some(beat) = self.node.raft.beat()
        {
            for to in (1..=NODE_COUNT as u64).map(NodeId) {
                if to != self.node.me {
                    self.send(to, Body::Beat(beat));
                }
            }
        }
        self.release_held();
    }

    /// The oldest run is durable. Raft hears of it before messages that waited for it leave.
    fn store(&mut self) {
        let run = self.node.runs.remove(0);
        run.into_iter().for_each(|item| self.node.disk.take(item));
        // Where the next run lies: places are counted from the oldest that is not durable.
        let mut out = Outbox {
            lsn: Lsn(self.node.runs.len() as u64 + 2),
            list: Vec::new(),
        };
        let before = Seen::of(&self.node.raft);
        self.node.raft.stored(NOW, Lsn(2), &mut out);
        self.node.raft.lower_places(1);
        check(&before, &self.node.raft);
        for (lsn, ..) in &mut self.node.held {
            lsn.0 = lsn.0.saturating_sub(1);
        }
        for output in out.list {
            assert!(
                !matches!(
                    output,
                    Output::Persist(_)
                        | Output::Send {
                            after: After::Stored(_),
                            ..
                        }
                ),
                "what is stored asks for no more"
            );
            self.perform(output);
        }
    }

    fn release_held(&mut self) {
        for (lsn, to, message) in std::mem::take(&mut self.node.held) {
            if lsn == Lsn(0) {
                self.send(to, Body::Message(message));
            } else {
                self.node.held.push((lsn, to, message));
            }
        }
    }

    fn crash(&mut self, reached_count: usize) {
        let runs = std::mem::take(&mut self.node.runs);
        if reached_count < runs.len() {
            self.did.marks.push(Mark::RunLost);
        }
        for item in runs.into_iter().take(reached_count).flatten() {
            self.node.disk.take(item);
        }
        self.restart();
    }

    fn damage(&mut self, loss: Loss) {
        for item in std::mem::take(&mut self.node.runs).into_iter().flatten() {
            self.node.disk.take(item);
        }
        let disk = &mut self.node.disk;
        match loss {
            Loss::Block => {
                self.node.had.push(disk.log.clone());
                disk.log.pop();
                disk.doubt.log = true;
            }
            Loss::Vote => {
                let term = disk.log.last().map_or(Term(0), |last| last.term);
                disk.hard = HardState { term, vote: None };
                disk.doubt.vote = true;
                // Its candidacy is over: had it led, a quorum would know of the term. What it told
                // others before may still be on its way to them.
                if self.node.promised.vote == Some(self.node.me) {
                    self.node.promised = std::mem::take(&mut self.node.promised_before);
                }
            }
        }
        self.restart();
    }

    fn restart(&mut self) {
        self.node.held.clear();
        let disk = &mut self.node.disk;
        disk.start_count += u64::from(disk.doubt.is_any());
        self.node.raft = raft(self.node.me, disk);
    }

    fn send(&mut self, to: NodeId, body: Body) {
        if let Some(breach) = self.broken_by(to, &body) {
            self.did.breach.get_or_insert(breach);
        }
        self.did.sent.push((to, body));
    }

    /// No promise leaves before what it rests on is on disk.
    fn broken_by(&mut self, to: NodeId, body: &Body) -> Option<Breach> {
        let Node {
            me,
            raft,
            disk,
            promised,
            promised_before,
            ..
        } = &mut self.node;
        let me = *me;
        let has_durably = |index: Index| {
            let entry = raft.tail().entry(index).map(Block::of);
            index == Index(0) || disk.log.get(index.0 as usize - 1).copied() == entry
        };
        let mut promise = |term: Term, candidate: NodeId| {
            let vote = HardState {
                term,
                vote: Some(candidate),
            };
            let kept = disk.hard.term > term || disk.hard == vote;
            let first = promised.term < term || *promised == vote;
            if promised.term <= term {
                *promised_before = match (candidate == me, promised.vote == Some(me)) {
                    (true, true) => *promised_before,
                    (true, false) => *promised,
                    (false, _) => HardState::default(),
                };
                *promised = vote;
            }
            let broken = if first {
                Breach::VoteNotDurable
            } else {
                Breach::TwoVotes
            };
            (!kept || !first).then_some(broken)
        };
        match *body {
            Body::Message(Message::VoteReply {
                pre,
                granted: false,
                ..
            }) => {
                let mark = if pre {
                    Mark::PreVoteRefused
                } else {
                    Mark::VoteRefused
                };
                self.did.marks.push(mark);
                None
            }
            Body::Message(Message::VoteReply {
                pre: false, term, ..
            }) => promise(term, to),
            Body::Message(Message::VoteRequest {
                pre: false,
                term,
                transfer,
                ..
            }) => {
                if transfer {
                    self.did.marks.push(Mark::Handed);
                }
                promise(term, me)
            }
            Body::Message(Message::AppendAck {
                term,
                matched,
                index,
                ..
            }) => {
                if !matched {
                    self.did.marks.push(Mark::Refused);
                }
                // In a later term the log may have moved on since.
                let kept = disk.hard.term >= term
                    && (!matched || term != raft.term() || has_durably(index));
                (!kept).then_some(Breach::AckNotDurable)
            }
            Body::BeatAck(ack) => {
                let kept = ack.durable == Index(0)
                    || disk.hard.term >= ack.term && has_durably(ack.durable);
                (!kept).then_some(Breach::AckNotDurable)
            }
            Body::Append { term, .. } => {
                let vote = HardState {
                    term,
                    vote: Some(me),
                };
                (disk.hard != vote).then_some(Breach::VoteNotDurable)
            }
            Body::Message(_) | Body::Beat(_) => None,
        }
    }
}
