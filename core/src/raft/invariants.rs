//! What must hold after every step, of the whole state and against the step before.
//!
//! For tests and the simulator: `let seen = Seen::of(&raft); ...; check(&seen, &raft)`. Knows no
//! other node; what relates nodes to each other is the simulator's.

use super::{Raft, Role, RoleState};
use crate::id::{Index, NodeId, Term};
use crate::log::HardState;

/// What is remembered of a state to judge the next one.
#[derive(Clone, Debug)]
pub struct Seen {
    hard: HardState,
    role: Role,
    leader: Option<NodeId>,
    commit: Index,
    base: Index,
    last: Index,
    /// The log's last term and sum at `last`; a leader only appends.
    last_term: Term,
    round: u64,
    /// Per peer, when leading: how often it lost what it had promised, and what it has.
    matched: Vec<(u32, Index)>,
}

impl Seen {
    /// Remembers `raft` as it is.
    #[must_use]
    pub fn of(raft: &Raft) -> Self {
        let matched = match &raft.role {
            RoleState::Leader(leader) => leader
                .progresses()
                .map(|peer| (peer.forgotten_count(), peer.matched()))
                .collect(),
            _ => Vec::new(),
        };
        Self {
            hard: raft.hard,
            role: raft.role(),
            leader: raft.leader,
            commit: raft.commit,
            base: raft.tail.base().index,
            last: raft.tail.last_index(),
            last_term: raft.tail.last_term(),
            round: raft.round,
            matched,
        }
    }
}

/// Panics if `after` is unsound, or cannot follow `before` in the life of one process.
pub fn check(before: &Seen, after: &Raft) {
    check_state(after);
    check_delta(before, &Seen::of(after), after);
}

fn check_state(raft: &Raft) {
    let (base, last) = (raft.tail.base().index, raft.tail.last_index());
    assert!(base <= raft.commit, "the base is committed");
    assert!(raft.commit <= last, "what is committed is here");
    assert!(raft.durable() <= last, "what is durable is here");
    assert!(
        raft.durable() >= base || raft.installing.is_some(),
        "segments are durable"
    );
    assert!(
        raft.verified <= last.max(raft.commit),
        "what is verified is here"
    );
    assert!(
        raft.tail.last_term() <= raft.hard.term,
        "no block is newer than the term"
    );
    let mut term = raft.tail.base().term;
    for index in base.0 + 1..=last.0 {
        let entry = raft.tail.entry(Index(index)).expect("the tail is dense");
        assert!(entry.term >= term, "terms never go down in a log");
        term = entry.term;
    }
    if raft.doubting.is_some() {
        assert!(raft.doubt().is_any(), "whoever doubts doubts something");
        assert!(
            matches!(raft.role, RoleState::Follower { .. }),
            "whoever doubts does not campaign"
        );
    }
    match &raft.role {
        RoleState::Leader(leader) => {
            assert!(
                raft.leader == Some(raft.config.me),
                "a leader follows itself"
            );
            assert!(
                raft.hard.vote == Some(raft.config.me),
                "a leader voted for itself"
            );
            assert!(raft.hard_pending.is_none(), "a leader's term is durable");
            assert!(raft.heard_at.is_none(), "a leader hears no leader");
            leader.assert_sound(last);
        }
        RoleState::Candidate(_) => {
            assert!(raft.leader.is_none(), "a candidate follows nobody");
            assert!(
                raft.hard.vote == Some(raft.config.me),
                "a candidate votes for itself"
            );
        }
        RoleState::PreCandidate(_) => {
            assert!(raft.leader.is_none(), "a pre-candidate follows nobody");
        }
        RoleState::Follower { .. } => {
            assert!(
                raft.leader != Some(raft.config.me),
                "a follower does not follow itself"
            );
            assert!(
                raft.heard_at.is_none() || raft.leader.is_some(),
                "contact is with a leader"
            );
        }
    }
}

fn check_delta(before: &Seen, after: &Seen, raft: &Raft) {
    assert!(after.hard.term >= before.hard.term, "terms never go down");
    assert!(
        after.commit >= before.commit,
        "the commit index never goes down"
    );
    assert!(after.base >= before.base, "the base never goes down");
    assert!(after.round >= before.round, "rounds never go down");
    assert!(
        after.last >= before.commit,
        "what is committed is never cut"
    );
    if after.hard.term > before.hard.term {
        return;
    }
    let kept = before.hard.vote.is_none() || after.hard.vote == before.hard.vote;
    assert!(kept, "a vote is never moved or taken back");
    if let (Some(was), Some(is)) = (before.leader, after.leader) {
        assert!(was == is, "a term has one leader");
    }
    assert!(
        after.role != Role::Leader || before.role != Role::Follower,
        "leaders are elected"
    );
    if before.role == Role::Leader {
        assert!(after.last >= before.last, "a leader only appends");
        let term = raft.tail.term_at(before.last);
        let same = term == Some(before.last_term) || before.last < after.base;
        assert!(same, "a leader changes no block");
        assert!(
            after.role != Role::Candidate,
            "a leader does not run against itself"
        );
    }
    if before.role == Role::Leader && after.role == Role::Leader {
        let mut pairs = before.matched.iter().zip(&after.matched);
        assert!(
            pairs.all(|(was, is)| is >= was),
            "match never goes down in a leadership"
        );
    }
}
