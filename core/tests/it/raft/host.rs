//! A node that is nothing but one Raft and a disk which forgets what it had not stored: as
//! little shard as will do. Every call into Raft is followed by the check of its invariants.

use ringwood_core::id::{GroupId, Index, Lsn, Nanos, NodeId, Offset, Term};
use ringwood_core::log::{Base, Entry, HardState, Place, Tail};
use ringwood_core::raft::invariants::{Seen, check};
use ringwood_core::raft::{
    After, AppendRequest, Beat, BeatAck, BlockId, Bounds, Config, Message, Outbox, Output, Raft,
    Role, Timeouts,
};

/// What travels between hosts.
#[derive(Clone, Debug)]
pub(crate) enum Wire {
    Message(Message),
    Append {
        term: Term,
        prev: (Index, Term),
        commit: Index,
        entries: Vec<Entry>,
    },
    Beat(Beat),
    BeatAck(BeatAck),
    /// The sender's log begins behind these blocks, which are committed.
    Restore {
        term: Term,
        prefix: Vec<Entry>,
    },
}

/// What a host did, for transcripts and oracles.
#[derive(Clone, Debug)]
pub(crate) enum Did {
    Output(Output),
    Send { to: NodeId, wire: Wire },
    Pushed { index: Index, entry: Entry },
}

/// What a run holds.
#[derive(Clone, Debug)]
enum Item {
    Hard(HardState),
    Block(Index, Entry),
    /// The log begins anew behind these.
    Restore(Vec<Entry>),
    /// A checkpoint: segments hold these.
    Release(Vec<Entry>),
}

#[derive(Clone, Debug, Default)]
struct Run {
    lsn: Lsn,
    items: Vec<Item>,
}

/// What a crash leaves: hard state, checkpoint, blocks.
#[derive(Clone, Debug, Default)]
pub(crate) struct Durable {
    pub(crate) hard: HardState,
    /// Entries by index, the first at index 1; those through `checkpoint` are in segments.
    pub(crate) log: Vec<Entry>,
    pub(crate) checkpoint: Index,
}

impl Durable {
    fn take(&mut self, item: Item) {
        match item {
            Item::Hard(hard) => self.hard = hard,
            // A block replaces what stood at its index and all after, unless segments hold it.
            Item::Block(index, entry) if index > self.checkpoint => {
                self.log.truncate(index.0 as usize - 1);
                assert_eq!(self.log.len() as u64, index.0 - 1, "the journal has no gap");
                self.log.push(entry);
            }
            Item::Block(..) => {}
            Item::Restore(prefix) => {
                assert!(
                    prefix.len() as u64 > self.checkpoint.0,
                    "it brings something"
                );
                self.checkpoint = Index(prefix.len() as u64);
                self.log = prefix;
            }
            Item::Release(prefix) => {
                let through = prefix.len();
                if through as u64 <= self.checkpoint.0 {
                    return;
                }
                // What the journal holds beyond stays, unless it is of another history.
                let same = |a: &Entry, b: &Entry| (a.term, a.sum) == (b.term, b.sum);
                let is_ours = self
                    .log
                    .get(through - 1)
                    .is_some_and(|entry| same(entry, &prefix[through - 1]));
                let beyond = if is_ours {
                    self.log.split_off(through)
                } else {
                    Vec::new()
                };
                self.checkpoint = Index(through as u64);
                self.log = prefix;
                self.log.extend(beyond);
            }
        }
    }

    fn tail(&self) -> Tail {
        let below = self.checkpoint.0 as usize;
        let base = below.checked_sub(1).map(|i| &self.log[i]);
        let mut tail = Tail::new(base.map_or(Base::default(), |entry| Base {
            index: self.checkpoint,
            term: entry.term,
            sum: entry.sum,
            next_offset: Offset(entry.first_offset.0 + u64::from(entry.record_count)),
        }));
        for entry in &self.log[below..] {
            tail.push(*entry);
        }
        tail
    }
}

pub(crate) struct Host {
    pub(crate) config: Config,
    pub(crate) timeouts: Timeouts,
    pub(crate) raft: Option<Raft>,
    pub(crate) durable: Durable,
    sealed: Vec<Run>,
    open: Run,
    held: Vec<(Lsn, NodeId, Message)>,
    /// Committed entries by index, the first at index 1: what segments and journal can give.
    pub(crate) committed: Vec<Entry>,
    /// Blocks through here are given to nobody any more, once a checkpoint covers them.
    trimmed: Index,
    /// New beginnings.
    pub(crate) restore_count: usize,
    /// A beat is due this turn.
    pub(crate) beat_now: bool,
    pub(crate) did: Vec<Did>,
    /// Replicate messages that the host pretends it cannot send from memory.
    pub(crate) miss_next: bool,
    /// Catch-up reads that fail.
    pub(crate) fail_next: bool,
}

/// What an election hangs on.
fn standing(raft: &Raft) -> (HardState, Role, Option<NodeId>, Nanos) {
    (
        raft.hard_state(),
        raft.role(),
        raft.leader(),
        raft.deadline(),
    )
}

pub(crate) fn node(id: u64) -> NodeId {
    NodeId(id)
}

impl Host {
    pub(crate) fn new(now: Nanos, group: GroupId, id: u64, count: u64, seed: u64) -> Self {
        let voters = (1..=count).map(node).collect();
        let mut host = Self {
            config: Config {
                group,
                me: node(id),
                voters,
                seed,
                bounds: Bounds::STANDARD,
            },
            timeouts: Timeouts::DEFAULT,
            raft: None,
            durable: Durable::default(),
            sealed: Vec::new(),
            open: Run {
                lsn: Lsn(4096),
                items: Vec::new(),
            },
            held: Vec::new(),
            committed: Vec::new(),
            trimmed: Index(0),
            restore_count: 0,
            beat_now: false,
            did: Vec::new(),
            miss_next: false,
            fail_next: false,
        };
        host.restart(now);
        host
    }

    /// Starts from what is durable.
    pub(crate) fn restart(&mut self, now: Nanos) {
        assert!(self.raft.is_none());
        let (hard, tail) = (self.durable.hard, self.durable.tail());
        let commit = tail.base().index;
        self.committed = self.durable.log[..self.durable.checkpoint.0 as usize].to_vec();
        let mut raft = Raft::new(now, self.config.clone(), hard, tail, commit);
        raft.set_timeouts(self.timeouts);
        assert_eq!(raft.durable(), raft.last(), "what was recovered is durable");
        self.raft = Some(raft);
    }

    /// Loses everything not durable; `reached` of the runs on their way had reached the disk.
    pub(crate) fn crash(&mut self, reached: usize) {
        self.raft = None;
        self.held.clear();
        self.beat_now = false;
        let runs = std::mem::take(&mut self.sealed);
        for run in runs.into_iter().take(reached) {
            run.items
                .into_iter()
                .for_each(|item| self.durable.take(item));
        }
        self.open.items.clear();
        self.open.lsn = Lsn(self.open.lsn.0 + 4096);
    }

    pub(crate) fn me(&self) -> NodeId {
        self.config.me
    }

    pub(crate) fn raft(&self) -> &Raft {
        self.raft.as_ref().expect("the host is up")
    }

    pub(crate) fn sealed_count(&self) -> usize {
        self.sealed.len()
    }

    /// Every call into Raft goes through here.
    pub(crate) fn call<R>(&mut self, act: impl FnOnce(&mut Raft, &mut Outbox) -> R) -> R {
        let raft = self.raft.as_mut().expect("the host is up");
        let mut out = Outbox {
            lsn: self.open.lsn,
            list: Vec::new(),
        };
        let before = Seen::of(raft);
        let result = act(raft, &mut out);
        check(&before, raft);
        out.list.into_iter().for_each(|output| self.perform(output));
        result
    }

    fn perform(&mut self, output: Output) {
        self.did.push(Did::Output(output.clone()));
        match output {
            Output::Persist(hard) => self.open.items.push(Item::Hard(hard)),
            Output::Send {
                to,
                message,
                after: After::Now,
            } => {
                self.did.push(Did::Send {
                    to,
                    wire: Wire::Message(message),
                });
            }
            Output::Send {
                to,
                message,
                after: After::Stored(lsn),
            } => {
                self.held.push((lsn, to, message));
                self.release_held();
            }
            Output::Replicate {
                to,
                term,
                prev_index,
                prev_term,
                first,
                last,
                commit,
            } => {
                if first <= last && std::mem::take(&mut self.miss_next) {
                    let now = Nanos(0);
                    return self.call(|raft, out| raft.missed(now, to, first, out));
                }
                let entries = (first.0..=last.0).map(|i| self.entry(Index(i))).collect();
                let wire = Wire::Append {
                    term,
                    prev: (prev_index, prev_term),
                    commit,
                    entries,
                };
                self.did.push(Did::Send { to, wire });
            }
            Output::CatchUp { to, next } => self.catch_up(to, next),
            Output::BecameLeader { .. } => {
                self.propose(0);
            }
            Output::Committed { index } => {
                for i in self.committed.len() as u64 + 1..=index.0 {
                    self.committed
                        .push(*self.raft().tail().entry(Index(i)).unwrap());
                }
            }
            Output::BeatNow => self.beat_now = true,
            Output::SteppedDown { .. }
            | Output::Truncated { .. }
            | Output::Doubts(_)
            | Output::ReadReady { .. }
            | Output::ReadFailed { .. } => {}
        }
    }

    /// An entry from the tail, or as a segment would give it.
    pub(crate) fn entry(&self, index: Index) -> Entry {
        let found = self.raft().tail().entry(index).copied();
        found.unwrap_or_else(|| self.committed[index.0 as usize - 1])
    }

    /// One chunk of at most three blocks.
    fn catch_up(&mut self, to: NodeId, next: Index) {
        if std::mem::take(&mut self.fail_next) {
            return self.call(|raft, _| raft.catch_up_failed(to));
        }
        let start = self.trimmed.min(self.durable.checkpoint);
        if next <= start {
            let term = self.raft().term();
            let prefix = self.committed[..start.0 as usize].to_vec();
            let wire = Wire::Restore { term, prefix };
            self.did.push(Did::Send { to, wire });
            return self.call(|raft, _| raft.restore_sent(Nanos(0), to, start));
        }
        let last = Index(self.raft().last().0.min(next.0 + 2));
        let prev_index = Index(next.0 - 1);
        let prev_term = match prev_index.0 {
            0 => Term(0),
            _ => self.entry(prev_index).term,
        };
        let entries: Vec<_> = (next.0..=last.0).map(|i| self.entry(Index(i))).collect();
        let size = entries.iter().map(|entry| u64::from(entry.size)).sum();
        let (term, commit) = (self.raft().term(), self.raft().commit());
        let wire = Wire::Append {
            term,
            prev: (prev_index, prev_term),
            commit,
            entries,
        };
        self.did.push(Did::Send { to, wire });
        self.call(|raft, out| raft.caught_up(Nanos(0), to, last, size, out));
    }

    /// Proposes a block told apart from others by `salt`.
    pub(crate) fn propose(&mut self, salt: u32) -> Index {
        let raft = self.raft.as_mut().expect("the host is up");
        let (term, previous) = (raft.term(), raft.tail().last_sum());
        let mixed = previous ^ salt.wrapping_mul(0x9e37_79b9) ^ (term.0 as u32) << 20;
        let entry = Entry {
            term,
            size: 64 + 16 * (salt % 8),
            sum: mixed
                .wrapping_mul(0x85eb_ca6b)
                .rotate_left(13)
                .wrapping_add(1),
            place: Place {
                lsn: self.open.lsn,
                offset: 64,
            },
            first_offset: raft.tail().next_offset(),
            record_count: u32::from(salt > 0),
        };
        let before = Seen::of(raft);
        let index = raft.propose(entry);
        check(&before, raft);
        self.open.items.push(Item::Block(index, entry));
        self.did.push(Did::Pushed { index, entry });
        index
    }

    /// Takes what `from` sent; blocks beyond `copy_max` find no room in the run.
    pub(crate) fn receive(&mut self, now: Nanos, from: NodeId, wire: Wire, copy_max: usize) {
        match wire {
            Wire::Message(message) => {
                let before = standing(self.raft());
                self.call(|raft, out| raft.step(now, from, message, out));
                // A node without a leader must not hold off one that could become it (9.6).
                let binds = !matches!(message, Message::VoteRequest { pre: true, .. });
                assert!(
                    binds || before == standing(self.raft()),
                    "a pre-vote binds nobody"
                );
            }
            Wire::Beat(beat) => {
                let ack = self.call(|raft, out| raft.on_beat(now, from, &beat, out));
                self.did.push(Did::Send {
                    to: from,
                    wire: Wire::BeatAck(ack),
                });
            }
            Wire::BeatAck(ack) => self.call(|raft, out| raft.on_beat_ack(now, from, &ack, out)),
            Wire::Restore { term, prefix } => self.restore(now, from, term, prefix),
            Wire::Append {
                term,
                prev,
                commit,
                entries,
            } => {
                let block_id = |(i, entry): (usize, &Entry)| BlockId {
                    index: Index(prev.0.0 + 1 + i as u64),
                    term: entry.term,
                };
                let blocks: Vec<_> = entries.iter().enumerate().map(block_id).collect();
                let request = AppendRequest {
                    term,
                    prev_index: prev.0,
                    prev_term: prev.1,
                    commit,
                    blocks: &blocks,
                };
                let accept = |raft: &mut Raft, out: &mut Outbox| {
                    raft.append_entries(now, from, &request, out)
                };
                let Some(accepted) = self.call(accept) else {
                    return;
                };
                let fresh = entries
                    .iter()
                    .zip(&blocks)
                    .skip(accepted.skip)
                    .take(copy_max);
                let place = Place {
                    lsn: self.open.lsn,
                    offset: 64,
                };
                let mut copied = Vec::new();
                for (entry, block) in fresh {
                    let entry = Entry { place, ..*entry };
                    self.open.items.push(Item::Block(block.index, entry));
                    self.did.push(Did::Pushed {
                        index: block.index,
                        entry,
                    });
                    copied.push(entry);
                }
                self.call(|raft, out| raft.appended(now, &copied, out));
            }
        }
    }

    /// Begins anew behind `prefix`, if this log has not come that far.
    fn restore(&mut self, now: Nanos, from: NodeId, term: Term, prefix: Vec<Entry>) {
        let last = prefix.last().expect("something is trimmed");
        let base = Base {
            index: Index(prefix.len() as u64),
            term: last.term,
            sum: last.sum,
            next_offset: Offset(last.first_offset.0 + u64::from(last.record_count)),
        };
        if self.call(|raft, out| raft.offer(now, from, term, &base, out)) {
            let lsn = self.open.lsn;
            self.open.items.push(Item::Restore(prefix.clone()));
            self.committed = prefix;
            self.restore_count += 1;
            self.call(|raft, out| raft.install(from, base, lsn, out));
        }
    }

    /// Closes the open run, as at the end of a turn or when it is full.
    pub(crate) fn seal(&mut self) {
        if !self.open.items.is_empty() {
            let next = Run {
                lsn: Lsn(self.open.lsn.0 + 4096),
                items: Vec::new(),
            };
            self.sealed.push(std::mem::replace(&mut self.open, next));
        }
    }

    /// The end of a turn.
    pub(crate) fn end_turn(&mut self, now: Nanos) {
        self.call(|raft, out| raft.flush(now, out));
        self.seal();
        if std::mem::take(&mut self.beat_now) {
            self.beat();
        }
    }

    pub(crate) fn beat(&mut self) {
        let Some(beat) = self.raft().beat() else {
            return;
        };
        let me = self.me();
        for to in self
            .config
            .voters
            .clone()
            .into_iter()
            .filter(|voter| *voter != me)
        {
            self.did.push(Did::Send {
                to,
                wire: Wire::Beat(beat),
            });
        }
    }

    fn durable_lsn(&self) -> Lsn {
        self.sealed.first().map_or(self.open.lsn, |run| run.lsn)
    }

    /// The `count` oldest runs on their way become durable, at once.
    pub(crate) fn store(&mut self, now: Nanos, count: usize) {
        let before = self.durable.checkpoint;
        for run in self.sealed.drain(..count) {
            run.items
                .into_iter()
                .for_each(|item| self.durable.take(item));
        }
        let durable = self.durable_lsn();
        self.call(|raft, out| raft.stored(now, durable, out));
        let checkpoint = self.durable.checkpoint;
        if checkpoint > before {
            self.call(|raft, _| raft.released(checkpoint));
        }
        self.release_held();
    }

    fn release_held(&mut self) {
        let durable = self.durable_lsn();
        for (lsn, to, message) in std::mem::take(&mut self.held) {
            if durable > lsn {
                self.did.push(Did::Send {
                    to,
                    wire: Wire::Message(message),
                });
            } else {
                self.held.push((lsn, to, message));
            }
        }
    }

    /// Segments hold everything through `through`: a checkpoint says so behind what is on its way.
    pub(crate) fn release(&mut self, through: Index) {
        let prefix = self.committed[..through.0 as usize].to_vec();
        self.open.items.push(Item::Release(prefix));
    }

    /// Gives nobody any more what segments hold through `through`, as soon as they do.
    pub(crate) fn trim(&mut self, through: Index) {
        self.trimmed = self.trimmed.max(through);
    }
}
