//! Where a log's leader is, as far as a client can tell, and how often it asks.
//!
//! Keeps one belief per log: a leader and the term in which some node named it. A belief only
//! moves to a higher term, or when the leader itself denies, or after a second of trouble. While there is trouble (no leader
//! known, its connection closed, or silence) nodes are probed one after the other at growing
//! intervals. Knows no connection's state and no append.

use crate::id::{ConnectionId, Nanos, NodeId, Term};

/// Least and greatest wait between two probes, and between two dials of one address.
const WAIT_MIN: Nanos = Nanos::from_millis(1);
const WAIT_MAX: Nanos = Nanos::from_millis(100);

/// A leader that leaves requests unanswered for longer is doubted, and others are asked. Not an
/// election timeout: asking costs a hundred bytes, and nothing moves until a node names a higher
/// term. So it may lie below the time a commit takes on a slow disk.
pub(super) const SILENCE: Nanos = Nanos::from_millis(25);

/// After this much trouble the belief is given up, so that no word, however wrong, holds for ever.
const BELIEF: Nanos = Nanos::from_millis(1_000);

/// A node that has not answered a probe for this long may be asked again.
const PROBE_OVERDUE: Nanos = Nanos::from_millis(500);

/// A stream of numbers from a seed, to keep many clients out of step. SplitMix64.
#[derive(Clone, Debug)]
pub(super) struct Jitter(u64);

impl Jitter {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// The span, three to five quarters of it.
    pub(super) fn spread(&mut self, span: Nanos) -> Nanos {
        let quarter = span.0 / 4;
        Nanos(span.0 - quarter + self.next() % (2 * quarter + 1))
    }
}

/// How long to wait before the next try when tries have failed for `elapsed`.
///
/// A quarter of the outage so far, from 1 to 100 ms: it grows by a quarter each time, so whatever
/// the outage lasts, its end is noticed within a quarter of that. Doubling would notice it up to
/// as late again as it lasted.
pub(super) fn wait(elapsed: Nanos, jitter: &mut Jitter) -> Nanos {
    let wait = Nanos(elapsed.0 / 4).clamp(WAIT_MIN, WAIT_MAX);
    jitter.spread(wait)
}

/// What a node said of its part in a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Word {
    /// It leads.
    Leads,
    /// It does not; it names the leader if it knows one.
    Denies(Option<NodeId>),
}

/// Since when tries fail, and when the next is due.
#[derive(Clone, Copy, Debug)]
struct Trouble {
    since: Nanos,
    next: Nanos,
    /// When the belief of the time is given up.
    doubt_all: Nanos,
}

/// A client's belief about one log's leader.
#[derive(Debug)]
pub(super) struct Route {
    leader: Option<NodeId>,
    /// The term in which `leader`, or the one before it, was named.
    term: Term,
    /// Nodes that were believed to lead and denied it, in a term. Followers go on naming a leader
    /// that has stepped down until they notice; without this a client would run to and fro between
    /// the two. A node that was not believed is not put down here: it may be a candidate that wins
    /// the very term in which it denied.
    denied: Vec<(NodeId, Term)>,
    trouble: Option<Trouble>,
    /// The leader refuses for a reason that another might not have: ask around meanwhile.
    doubted: bool,
    /// When the leader last answered anything.
    heard: Nanos,
    /// Which node the next probe goes to.
    cursor: usize,
    /// Connections with a probe under way, and since when: one that does not answer is not asked
    /// again for a while.
    probing: Vec<(ConnectionId, Nanos)>,
}

impl Route {
    pub(super) fn new() -> Self {
        Self {
            leader: None,
            term: Term(0),
            denied: Vec::new(),
            trouble: None,
            doubted: false,
            heard: Nanos(0),
            cursor: 0,
            probing: Vec::new(),
        }
    }

    pub(super) fn leader(&self) -> Option<NodeId> {
        self.leader
    }

    /// The term in which the leader, or the one before it, was named.
    pub(super) fn term(&self) -> Term {
        self.term
    }

    /// A node has said what it is. Returns whether the belief has changed.
    pub(super) fn on_word(&mut self, now: Nanos, from: NodeId, term: Term, word: Word) -> bool {
        let before = self.leader;
        if self.leader == Some(from) {
            self.heard = now;
        }
        match word {
            // A node names its own term, which may lie below the one in which a node that was cut
            // off has named it: without a leader the lower one must do.
            Word::Leads if term >= self.term || self.leader.is_none_or(|node| node == from) => {
                self.denied.retain(|(node, _)| *node != from);
                self.adopt(now, from, term);
                self.trouble = None;
            }
            // A leader of old that has not noticed yet.
            Word::Leads => {}
            Word::Denies(hint) => {
                if self.leader == Some(from) {
                    self.leader = None;
                    self.deny(from, term);
                }
                if let Some(hint) = hint.filter(|hint| *hint != from) {
                    self.maybe_adopt(now, hint, term);
                }
                if self.leader.is_none() {
                    self.trouble(now);
                }
            }
        }
        self.leader != before
    }

    fn maybe_adopt(&mut self, now: Nanos, hint: NodeId, term: Term) {
        // One term has one leader: a second name in the same term is for the one that denied.
        let newer = match self.leader {
            Some(_) => term > self.term,
            None => term >= self.term,
        };
        let denied = |(node, at): &(NodeId, Term)| *node == hint && *at >= term;
        if newer && !self.denied.iter().any(denied) {
            self.adopt(now, hint, term);
        }
    }

    fn adopt(&mut self, now: Nanos, leader: NodeId, term: Term) {
        self.leader = Some(leader);
        self.term = term;
        self.doubted = false;
        self.heard = now;
    }

    fn deny(&mut self, node: NodeId, term: Term) {
        match self.denied.iter_mut().find(|(known, _)| *known == node) {
            Some((_, at)) => *at = term.max(*at),
            None => self.denied.push((node, term)),
        }
    }

    /// Something fails: the first probe is due at once.
    pub(super) fn trouble(&mut self, now: Nanos) {
        self.trouble.get_or_insert(Trouble {
            since: now,
            next: now,
            doubt_all: now.after(BELIEF),
        });
    }

    /// The way to a node has opened or closed: what is waited for may be over.
    pub(super) fn hurry(&mut self, now: Nanos) {
        if let Some(trouble) = &mut self.trouble {
            trouble.next = trouble.next.min(now);
        }
    }

    /// The leader refuses; returns how long to leave it alone.
    pub(super) fn doubt(&mut self, now: Nanos, jitter: &mut Jitter) -> Nanos {
        self.doubted = true;
        self.trouble(now);
        wait(self.elapsed(now), jitter)
    }

    /// Nothing is wanted of this log any more.
    pub(super) fn rest(&mut self) {
        self.trouble = None;
        self.doubted = false;
    }

    /// All is well again but for what probes would tell.
    pub(super) fn is_doubted(&self) -> bool {
        self.doubted
    }

    /// The leader took an append or answered a fetch.
    pub(super) fn on_served(&mut self, now: Nanos) {
        self.heard = now;
        self.doubted = false;
        self.trouble = None;
    }

    fn elapsed(&self, now: Nanos) -> Nanos {
        self.trouble
            .map_or(Nanos(0), |trouble| now.since(trouble.since))
    }

    /// From when on the leader counts as silent, if its oldest unanswered request left at `sent`.
    pub(super) fn silent_at(&self, sent: Nanos) -> Nanos {
        sent.max(self.heard).after(SILENCE)
    }

    /// When the next probe is due.
    pub(super) fn next_probe(&self) -> Option<Nanos> {
        self.trouble.map(|trouble| trouble.next)
    }

    /// A probe is due now if this returns the place in the list of nodes to begin at.
    pub(super) fn take_probe(&mut self, now: Nanos, jitter: &mut Jitter) -> Option<usize> {
        let elapsed = self.elapsed(now);
        let trouble = self.trouble.as_mut()?;
        if trouble.next > now {
            return None;
        }
        trouble.next = now.after(wait(elapsed, jitter));
        if trouble.doubt_all <= now {
            trouble.doubt_all = now.after(BELIEF);
            self.leader = None;
            self.term = Term(0);
            self.denied.clear();
        }
        Some(self.cursor)
    }

    /// Node number `place` was asked on this connection.
    pub(super) fn on_probe_sent(&mut self, now: Nanos, place: usize, connection: ConnectionId) {
        self.cursor = place + 1;
        self.on_probe_ended(connection);
        self.probing.push((connection, now));
    }

    pub(super) fn is_probing(&self, now: Nanos, connection: ConnectionId) -> bool {
        let mut probing = self.probing.iter();
        probing.any(|(asked, since)| *asked == connection && now.since(*since) < PROBE_OVERDUE)
    }

    /// The probe on this connection is answered, or lost with it.
    pub(super) fn on_probe_ended(&mut self, connection: ConnectionId) {
        self.probing.retain(|(probing, _)| *probing != connection);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: NodeId = NodeId(1);
    const B: NodeId = NodeId(2);

    fn ms(n: u64) -> Nanos {
        Nanos::from_millis(n)
    }

    #[test]
    fn a_higher_term_moves_the_belief_and_a_lower_one_does_not() {
        let mut route = Route::new();
        assert!(route.on_word(ms(1), B, Term(3), Word::Denies(Some(A))));
        assert_eq!(route.leader(), Some(A));
        let mut route = Route::new();
        route.on_word(ms(1), A, Term(3), Word::Leads);
        assert!(!route.on_word(ms(2), B, Term(2), Word::Leads));
        assert!(!route.on_word(ms(2), B, Term(3), Word::Denies(Some(NodeId(3)))));
        assert!(route.on_word(ms(3), B, Term(4), Word::Leads));
    }

    #[test]
    fn a_follower_that_still_names_a_leader_that_denied_is_not_believed() {
        let mut route = Route::new();
        route.on_word(ms(1), A, Term(3), Word::Leads);
        route.on_word(ms(2), A, Term(3), Word::Denies(None));
        assert_eq!(route.leader(), None);
        route.on_word(ms(3), B, Term(3), Word::Denies(Some(A)));
        assert_eq!(route.leader(), None, "A has denied this very term");
        route.on_word(ms(4), B, Term(4), Word::Denies(Some(A)));
        assert_eq!(route.leader(), Some(A), "A was elected anew");
        route.on_word(ms(5), A, Term(4), Word::Denies(None));
        route.on_word(ms(6), A, Term(4), Word::Leads);
        assert_eq!(route.leader(), Some(A), "its own word counts");
    }

    #[test]
    fn a_candidate_that_denied_and_then_won_is_found_by_a_follower_s_word() {
        let mut route = Route::new();
        route.on_word(ms(1), A, Term(3), Word::Leads);
        route.on_word(ms(2), B, Term(4), Word::Denies(None));
        route.on_word(ms(3), NodeId(3), Term(4), Word::Denies(Some(B)));
        assert_eq!(route.leader(), Some(B));
    }

    #[test]
    fn a_candidate_without_a_leader_does_not_unseat_one() {
        let mut route = Route::new();
        route.on_word(ms(1), A, Term(3), Word::Leads);
        route.on_word(ms(2), B, Term(9), Word::Denies(None));
        assert_eq!(route.leader(), Some(A));
        route.on_word(ms(3), B, Term(4), Word::Denies(Some(B)));
        assert_eq!(
            route.leader(),
            Some(A),
            "a node that denies names itself: nonsense"
        );
    }

    #[test]
    fn a_term_that_no_leader_has_is_not_believed_for_ever() {
        // A node that was cut off and ran through terms names the old leader in its own term.
        let mut route = Route::new();
        route.on_word(ms(1), B, Term(90), Word::Denies(Some(A)));
        assert!(!route.on_word(ms(2), B, Term(6), Word::Leads));
        route.on_word(ms(3), A, Term(6), Word::Denies(Some(B)));
        assert_eq!(route.leader(), None);
        assert!(
            route.on_word(ms(4), B, Term(6), Word::Leads),
            "its own word"
        );
        // The same, but the old leader never answers.
        let mut route = Route::new();
        let mut jitter = Jitter::new(1);
        route.on_word(ms(1), B, Term(90), Word::Denies(Some(A)));
        route.trouble(ms(1));
        assert!(route.take_probe(ms(900), &mut jitter).is_some());
        assert_eq!(route.leader(), Some(A));
        assert!(route.take_probe(ms(1_100), &mut jitter).is_some());
        assert_eq!(route.leader(), None);
        assert!(route.on_word(ms(1_101), NodeId(3), Term(6), Word::Denies(Some(B))));
    }

    #[test]
    fn probes_begin_at_once_and_grow_rarer_up_to_the_bound() {
        let mut route = Route::new();
        let mut jitter = Jitter::new(7);
        assert_eq!(route.take_probe(ms(5), &mut jitter), None, "no trouble");
        route.trouble(ms(5));
        let (mut now, mut count, mut longest) = (ms(5), 0, Nanos(0));
        while now < ms(2005) {
            assert!(route.take_probe(now, &mut jitter).is_some());
            assert_eq!(route.take_probe(now, &mut jitter), None);
            let next = route.next_probe().unwrap();
            assert!(next.since(now) >= Nanos::from_micros(750));
            longest = longest.max(next.since(now));
            now = next;
            count += 1;
        }
        assert!(longest <= ms(125) && longest >= ms(75), "{longest}");
        assert!((25..60).contains(&count), "{count} probes in two seconds");
        route.hurry(now);
        assert!(route.take_probe(now, &mut jitter).is_some());
    }

    #[test]
    fn the_end_of_an_outage_is_noticed_within_a_third_of_its_length() {
        let mut jitter = Jitter::new(1);
        for elapsed in [10, 50, 100, 200, 300_u64] {
            for _ in 0..100 {
                assert!(wait(ms(elapsed), &mut jitter) <= ms(elapsed / 3 + 1));
            }
        }
    }
}
