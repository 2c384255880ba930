//! One Raft and hand-made messages: what the tests of promises share.

use ringwood_core::id::{GroupId, Index, Lsn, Nanos, NodeId, Offset, Term};
use ringwood_core::log::{Base, Entry, HardState, Place, Tail};
use ringwood_core::raft::{
    After, AppendRequest, BlockId, Bounds, Config, Message, Outbox, Output, Raft, Role, Timeouts,
};

use super::host::node;

pub(crate) const T: u64 = Timeouts::DEFAULT.election.0;

pub(crate) fn entry(term: u64, lsn: u64, size: u32) -> Entry {
    Entry {
        term: Term(term),
        size,
        sum: 0,
        place: Place {
            lsn: Lsn(lsn),
            offset: 64,
        },
        first_offset: Offset(0),
        record_count: 0,
    }
}

/// What a Raft with blocks of these terms begins with.
pub(crate) fn beginning(
    group: u32,
    me: u64,
    count: u64,
    terms: &[u64],
) -> (Config, HardState, Tail) {
    let config = Config {
        group: GroupId(group),
        me: node(me),
        voters: (1..=count).map(node).collect(),
        seed: 3,
        bounds: Bounds::STANDARD,
    };
    let mut tail = Tail::new(Base::default());
    for term in terms {
        tail.push(entry(*term, 0, 64));
    }
    let hard = HardState {
        term: tail.last_term(),
        vote: None,
    };
    (config, hard, tail)
}

pub(crate) fn raft_in_group(group: u32, me: u64, count: u64, terms: &[u64]) -> Raft {
    let (config, hard, tail) = beginning(group, me, count, terms);
    Raft::new(Nanos(0), config, hard, tail, Index(0))
}

pub(crate) fn raft(me: u64, terms: &[u64]) -> Raft {
    raft_in_group(0, me, 3, terms)
}

pub(crate) fn outbox(lsn: u64) -> Outbox {
    Outbox {
        lsn: Lsn(lsn),
        list: Vec::new(),
    }
}

/// Steps one message with the open run at `lsn`.
pub(crate) fn step(
    raft: &mut Raft,
    now: u64,
    from: u64,
    message: Message,
    lsn: u64,
) -> Vec<Output> {
    let mut out = outbox(lsn);
    raft.step(Nanos(now), node(from), message, &mut out);
    out.list
}

/// The blocks behind an index, with these terms.
pub(super) fn blocks_behind(index: u64, terms: &[u64]) -> Vec<BlockId> {
    let block = |(i, term): (usize, &u64)| BlockId {
        index: Index(index + 1 + i as u64),
        term: Term(*term),
    };
    terms.iter().enumerate().map(block).collect()
}

pub(crate) fn append(
    raft: &mut Raft,
    term: u64,
    prev: (u64, u64),
    terms: &[u64],
    lsn: u64,
) -> (Option<usize>, Vec<Output>) {
    let blocks = blocks_behind(prev.0, terms);
    let (prev_index, prev_term) = (Index(prev.0), Term(prev.1));
    let request = AppendRequest {
        term: Term(term),
        prev_index,
        prev_term,
        commit: Index(0),
        blocks: &blocks,
    };
    let mut out = outbox(lsn);
    let accepted = raft.append_entries(Nanos(1), node(1), &request, &mut out);
    if let Some(accepted) = accepted {
        let fresh: Vec<_> = terms[accepted.skip..]
            .iter()
            .map(|term| entry(*term, lsn, 64))
            .collect();
        raft.appended(Nanos(1), &fresh, &mut out);
    }
    (accepted.map(|accepted| accepted.skip), out.list)
}

/// The only acknowledgement among `outputs`.
pub(crate) fn ack(outputs: &[Output]) -> (bool, Index, After) {
    let acks = outputs.iter().filter_map(|output| match output {
        Output::Send {
            message: Message::AppendAck { matched, index, .. },
            after,
            ..
        } => Some((*matched, *index, *after)),
        _ => None,
    });
    let acks: Vec<_> = acks.collect();
    assert_eq!(acks.len(), 1);
    acks[0]
}

pub(crate) fn vote_request(term: u64, last: (u64, u64), pre: bool, transfer: bool) -> Message {
    let (last_index, last_term) = (Index(last.0), Term(last.1));
    Message::VoteRequest {
        pre,
        transfer,
        term: Term(term),
        last_index,
        last_term,
    }
}

pub(crate) fn vote_reply(term: u64, pre: bool, granted: bool, voter_term: u64) -> Message {
    Message::VoteReply {
        pre,
        granted,
        term: Term(term),
        voter_term: Term(voter_term),
    }
}

pub(crate) fn matched(term: u64, index: u64) -> Message {
    let (term, index) = (Term(term), Index(index));
    Message::AppendAck {
        term,
        matched: true,
        index,
        conflict_term: Term(0),
        prev_index: Index(0),
    }
}

pub(crate) fn granted(outputs: &[Output]) -> bool {
    outputs.iter().any(|output| {
        matches!(
            output,
            Output::Send {
                message: Message::VoteReply { granted: true, .. },
                ..
            }
        )
    })
}

/// Elects `raft`, node 1, with node 2's help; the run at `lsn` holds its vote and its no-op.
pub(crate) fn elect(raft: &mut Raft, lsn: u64) {
    let now = raft.deadline();
    let mut out = outbox(lsn);
    raft.tick(now, &mut out);
    let term = raft.term().0 + 1;
    step(raft, now.0, 2, vote_reply(term, true, true, term - 1), lsn);
    assert_eq!((raft.role(), raft.term()), (Role::Candidate, Term(term)));
    raft.stored(now, Lsn(lsn + 4096), &mut out);
    step(
        raft,
        now.0,
        2,
        vote_reply(term, false, true, term),
        lsn + 4096,
    );
    assert!(raft.is_leader());
    raft.propose(entry(term, lsn + 4096, 64));
}

pub(crate) fn replicates(raft: &mut Raft, now: u64) -> Vec<(NodeId, Index, Index)> {
    let mut out = outbox(1 << 40);
    raft.flush(Nanos(now), &mut out);
    let spans = out.list.iter().filter_map(|output| match output {
        Output::Replicate {
            to, first, last, ..
        } => Some((*to, *first, *last)),
        _ => None,
    });
    spans.collect()
}
