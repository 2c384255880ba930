//! What a shard measures of its links and of itself, and the timeouts that follow from it.
//!
//! One heartbeat per link serves all groups on it. Knows nothing of terms or votes: it keeps times.

use crate::frame::code::TimeoutReason;
use crate::id::{Nanos, NodeId};
use crate::limits::VOTER_COUNT_MAX;
use crate::raft::Timeouts;

use super::samples::Samples;
use super::stall::STALL_FACTOR;

/// Shortest election timeout: below it, scheduling noise of an ordinary kernel would elect.
const ELECTION_MIN: Nanos = Nanos::from_millis(30);
/// Longest election timeout: beyond it a cluster is down for too long whatever was measured.
const ELECTION_MAX: Nanos = Nanos::from_millis(3_000);
/// Before anything is measured: 150 to 300 ms, the range of the Raft paper (section 9.3).
const ELECTION_UNMEASURED: Nanos = Timeouts::DEFAULT.election;
/// A measurement counts for one to two of these: long enough to meet a stall that comes every few
/// seconds, short enough to forget a bad start.
const WINDOW: Nanos = Nanos::from_millis(10_000);
/// Round trips needed before a measurement replaces the default.
const SAMPLE_COUNT_MIN: u32 = 16;
/// How often the timeouts are computed anew.
const RETUNE_INTERVAL: Nanos = Nanos::from_millis(100);

/// What is known of the link to one peer.
#[derive(Debug)]
struct Link {
    peer: NodeId,
    connected: bool,
    round_trips: Samples,
    gaps: Samples,
    heard_at: Option<Nanos>,
    /// When the first echo of this connection came. What was sent before lay in the kernel's
    /// queue while the peer was still starting: its round trip measures a start, not a link.
    echoing_since: Option<Nanos>,
    /// When anything of its rhythm was last heard.
    word_at: Nanos,
    /// The timeout the peer itself uses: our heartbeats must be frequent enough for it.
    peer_timeout: Nanos,
    /// The longest that a journal write of the peer took lately, as it says; none if it said nothing
    /// on this connection.
    write_span: Option<Nanos>,
    /// Why the peer, or whoever has its address, does not take what we send.
    refusal: Option<String>,
}

/// What a heartbeat says of the node that sent it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Word {
    /// Its election timeout.
    pub(super) timeout: Nanos,
    /// The longest that a journal write of its took lately.
    pub(super) write_span: Nanos,
}

/// Characters kept of what a peer says about itself.
const REFUSAL_LENGTH_MAX: usize = 200;

impl Link {
    /// The peer said something. If it was silent for longer than our patience it had failed, and
    /// echoes of what was sent into that silence tell how long it lasted, not how long the way is.
    fn on_word(&mut self, now: Nanos, patience: Nanos) {
        if now.since(self.word_at) > patience {
            self.echoing_since = Some(now);
        }
        self.word_at = now;
    }
}

/// The shard's measurements and its timeouts.
#[derive(Debug)]
pub(super) struct Liveness {
    links: Vec<Link>,
    stalls: Samples,
    /// Longest since the last retuning.
    stall_max: Nanos,
    timeouts: Timeouts,
    reason: TimeoutReason,
    heartbeat_at: Nanos,
    retune_at: Nanos,
    /// A peer said what does not let the timeouts wait for that.
    is_stale: bool,
    rotate_at: Nanos,
}

impl Liveness {
    pub(super) fn new(now: Nanos, peers: impl Iterator<Item = NodeId>) -> Self {
        let links = peers
            .map(|peer| Link {
                peer,
                connected: false,
                round_trips: Samples::new(),
                gaps: Samples::new(),
                heard_at: None,
                echoing_since: None,
                word_at: now,
                peer_timeout: ELECTION_UNMEASURED,
                write_span: None,
                refusal: None,
            })
            .collect();
        Self {
            links,
            stalls: Samples::new(),
            stall_max: Nanos(0),
            timeouts: Timeouts::DEFAULT,
            reason: TimeoutReason::Unmeasured,
            heartbeat_at: now,
            retune_at: now,
            is_stale: false,
            rotate_at: now.after(WINDOW),
        }
    }

    pub(super) fn timeouts(&self) -> Timeouts {
        self.timeouts
    }

    pub(super) fn reason(&self) -> TimeoutReason {
        self.reason
    }

    /// Median round trip to a peer; zero when it was never measured.
    pub(super) fn round_trip(&self, peer: NodeId) -> Nanos {
        let link = self.links.iter().find(|link| link.peer == peer);
        link.map_or(Nanos(0), |link| link.round_trips.quantile(500))
    }

    /// Whether a link to a peer stands and something came from it within the timeout. A connection
    /// alone proves nothing: that of a machine that is gone stands for seconds.
    pub(super) fn is_heard(&self, now: Nanos, peer: NodeId) -> bool {
        let patience = self.timeouts.election;
        let mut links = self.links.iter();
        links.any(|link| link.peer == peer && link.connected && now.since(link.word_at) <= patience)
    }

    /// Whether a peer is there, and says that its disk lately did in a fraction of `age` what this
    /// node's has not done in it.
    pub(super) fn is_quick(&self, now: Nanos, peer: NodeId, age: Nanos) -> bool {
        let mut links = self.links.iter().filter(|link| link.peer == peer);
        let span = links.next().and_then(|link| link.write_span);
        let enough = span.and_then(|span| span.0.checked_mul(STALL_FACTOR));
        enough.is_some_and(|enough| enough <= age.0) && self.is_heard(now, peer)
    }

    pub(super) fn on_connected(&mut self, peer: NodeId, connected: bool) {
        if let Some(link) = self.link(peer) {
            link.connected = connected;
            // The time between two lives of a link says nothing about its rhythm.
            link.heard_at = None;
            link.echoing_since = None;
            link.write_span = None;
        }
    }

    /// What we sent to a peer was refused. Holds until a heartbeat of ours is answered.
    pub(super) fn on_refusal(&mut self, peer: NodeId, why: &str) {
        if let Some(link) = self.link(peer) {
            // It may be anybody's text, and is shown to people.
            let shown = why.chars().filter(|char| !char.is_control());
            link.refusal = Some(shown.take(REFUSAL_LENGTH_MAX).collect());
        }
    }

    /// The peers that refuse this node, and why.
    pub(super) fn refusals(&self) -> impl Iterator<Item = (NodeId, &str)> {
        self.links
            .iter()
            .filter_map(|link| Some((link.peer, link.refusal.as_deref()?)))
    }

    /// A heartbeat came in: the time since the one before is a sample of this link's rhythm.
    pub(super) fn on_heartbeat(&mut self, now: Nanos, peer: NodeId, word: Word) {
        let Timeouts {
            election, patience, ..
        } = self.timeouts;
        let is_measured = self.reason != TimeoutReason::Unmeasured;
        if let Some(link) = self.link(peer) {
            link.on_word(now, election);
            if let Some(heard_at) = link.heard_at.replace(now) {
                // A peer that was silent for longer than our patience had failed, it was not slow:
                // its absence must not teach us to wait that long for the next failure. Should a
                // link really have become slower, round trips tell, and pre-votes do no harm.
                let gap = now.since(heard_at);
                if gap <= election {
                    link.gaps.record(gap);
                }
            }
            link.peer_timeout = Nanos(word.timeout.0.clamp(ELECTION_MIN.0, ELECTION_MAX.0));
            link.write_span = Some(word.write_span);
            // One that has just started may not wait for as long as our next heartbeat takes, and
            // we, if that is us, must wait for as long as theirs do.
            let is_slow = link.peer_timeout > election;
            let is_heeded = link.peer_timeout < patience || is_slow && !is_measured;
            if link.connected && is_heeded {
                self.is_stale = true;
            }
        }
    }

    /// A heartbeat of ours came back: `sent_at` is our own clock's word, echoed unchanged. The loop
    /// looks `late` after it had meant to: that much of the time was our own stall, not the link's.
    pub(super) fn on_echo(&mut self, now: Nanos, late: Nanos, peer: NodeId, sent_at: Nanos) {
        // A peer could echo anything; a moment that lies ahead or too far back is no sample.
        if sent_at > now || now.since(sent_at) > ELECTION_MAX {
            return;
        }
        let patience = self.timeouts.election;
        if let Some(link) = self.link(peer) {
            link.on_word(now, patience);
            link.refusal = None;
            let since = *link.echoing_since.get_or_insert(now);
            if sent_at >= since {
                let span = now.since(sent_at).0.saturating_sub(late.0);
                link.round_trips.record(Nanos(span));
            }
        }
    }

    /// The loop was late by this much for something it had planned. What counts is the longest of
    /// each retuning: a busy loop has thousands of turns for each one that stalls.
    pub(super) fn on_stall(&mut self, stall: Nanos) {
        self.stall_max = self.stall_max.max(stall);
    }

    /// Whether heartbeats are due; if so the next ones are planned.
    pub(super) fn take_heartbeat_due(&mut self, now: Nanos) -> bool {
        if now < self.heartbeat_at {
            return false;
        }
        self.heartbeat_at = now.after(self.timeouts.heartbeat);
        true
    }

    /// Makes heartbeats due now: a new leader or a read round should not wait.
    pub(super) fn hurry_heartbeat(&mut self, now: Nanos) {
        self.heartbeat_at = now;
    }

    pub(super) fn deadline(&self) -> Nanos {
        self.heartbeat_at
    }

    /// Computes the timeouts anew, every `RETUNE_INTERVAL` or when a peer's word cannot wait for it.
    /// True if it did.
    pub(super) fn maybe_retune(&mut self, now: Nanos) -> bool {
        if now < self.retune_at && !self.is_stale {
            return false;
        }
        self.is_stale = false;
        if now >= self.retune_at {
            // One sample of each interval: more of them would thin the long ones out.
            self.retune_at = now.after(RETUNE_INTERVAL);
            let stall = std::mem::take(&mut self.stall_max);
            self.stalls.record(stall.min(ELECTION_MAX));
        }
        if now >= self.rotate_at {
            self.rotate_at = now.after(WINDOW);
            self.stalls.rotate();
            for link in &mut self.links {
                link.round_trips.rotate();
                link.gaps.rotate();
            }
        }
        // A leader hears of its quorum when the nearest `n / 2` peers have answered.
        let mut round_trips = [Nanos(u64::MAX); VOTER_COUNT_MAX];
        let mut count = 0;
        let links = self.links.iter();
        for link in links.filter(|link| link.round_trips.count() >= SAMPLE_COUNT_MIN) {
            round_trips[count] = link.round_trips.quantile(990);
            count += 1;
        }
        let round_trips = &mut round_trips[..count];
        round_trips.sort_unstable();
        let quorum_peers = self.links.len().div_ceil(2);
        let rtt = if quorum_peers == 0 {
            Nanos(0)
        } else {
            match round_trips.get(quorum_peers - 1) {
                Some(rtt) => *rtt,
                None => {
                    self.take_others_word(now);
                    return true;
                }
            }
        };
        // One part in a thousand: on a starved host one gap in some hundred is several times the
        // others, and each that is longer than T costs a leader. A freeze is none of them, as what
        // lasted longer than T is not counted.
        let gap = self
            .links
            .iter()
            .map(|link| link.gaps.quantile(999))
            .max()
            .unwrap_or_default();
        // A tenth of a second in which the loop stood still is one sample, and the freeze of a
        // second comes with a few more while the loop catches up. A starved host shows in far more
        // than three of a hundred.
        let stall = self.stalls.quantile(970);

        let terms = [
            (Nanos(10 * rtt.0), TimeoutReason::Rtt),
            (Nanos(3 * gap.0), TimeoutReason::HeartbeatGap),
            (Nanos(8 * stall.0), TimeoutReason::Stall),
            (ELECTION_MIN, TimeoutReason::Floor),
        ];
        let (mut election, mut reason) = terms[0];
        for (value, name) in &terms[1..] {
            if *value > election {
                (election, reason) = (*value, *name);
            }
        }
        if election > ELECTION_MAX {
            (election, reason) = (ELECTION_MAX, TimeoutReason::Ceiling);
        }
        self.reason = reason;
        self.set(now, election, Nanos((election.0 / 2).max(4 * rtt.0)), rtt);
        true
    }

    /// Nothing is measured here yet: what the others have measured holds, for the leader beats at
    /// the pace of those it has heard, and who has just started is not among them.
    fn take_others_word(&mut self, now: Nanos) {
        let others = self.peer_timeouts();
        let election = others.fold(ELECTION_UNMEASURED, std::cmp::max);
        self.set(now, election, election, Nanos(0));
    }

    fn peer_timeouts(&self) -> impl Iterator<Item = Nanos> {
        let links = self.links.iter().filter(|link| link.connected);
        links.map(|link| link.peer_timeout)
    }

    fn set(&mut self, now: Nanos, election: Nanos, spread: Nanos, rtt: Nanos) {
        // Heartbeats follow the most impatient node's timeout, not only our own. One that cannot be
        // reached hears none, however impatient it was when it was last heard of.
        let patience = self.peer_timeouts().fold(election, std::cmp::min);
        self.timeouts = Timeouts {
            election,
            patience,
            spread,
            heartbeat: Nanos(patience.0 / 5),
            rtt,
        };
        assert!(self.timeouts.heartbeat < self.timeouts.election);
        self.heartbeat_at = self.heartbeat_at.min(now.after(self.timeouts.heartbeat));
    }

    fn link(&mut self, peer: NodeId) -> Option<&mut Link> {
        self.links.iter_mut().find(|link| link.peer == peer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: NodeId = NodeId(1);
    const B: NodeId = NodeId(2);

    /// Both links have echoed since the beginning of time.
    fn liveness() -> Liveness {
        let mut liveness = Liveness::new(Nanos(0), [A, B].into_iter());
        for link in &mut liveness.links {
            link.echoing_since = Some(Nanos(0));
            // Word has always come: what a test sends is heard from the start.
            link.word_at = Nanos(u64::MAX / 2);
        }
        liveness
    }

    fn word(timeout: Nanos) -> Word {
        let write_span = Nanos::from_millis(2);
        Word {
            timeout,
            write_span,
        }
    }

    /// Values are kept to an eighth, rounded up.
    fn assert_near(found: Nanos, expected: Nanos) {
        assert!(
            found >= expected && found.0 <= expected.0 + expected.0 / 8,
            "{found}"
        );
    }

    #[test]
    fn a_connection_without_a_word_is_no_peer() {
        let mut liveness = Liveness::new(Nanos(0), [A, B].into_iter());
        let now = Nanos::from_millis(1_000);
        liveness.on_connected(A, true);
        assert!(!liveness.is_heard(now, A), "nothing came yet");
        liveness.on_heartbeat(now, A, word(ELECTION_MIN));
        assert!(liveness.is_heard(now, A));
        assert!(liveness.is_heard(now.after(ELECTION_UNMEASURED), A));
        let late = now.after(Nanos(ELECTION_UNMEASURED.0 + 1));
        assert!(!liveness.is_heard(late, A));
        liveness.on_echo(late, Nanos(0), A, now);
        assert!(liveness.is_heard(late, A));
        liveness.on_connected(A, false);
        assert!(!liveness.is_heard(late, A));
    }

    #[test]
    fn a_disk_is_quick_by_its_own_word_while_its_node_is_heard() {
        let mut liveness = Liveness::new(Nanos(0), [A, B].into_iter());
        let (now, span) = (Nanos::from_millis(1_000), Nanos::from_millis(2));
        liveness.on_connected(A, true);
        assert!(!liveness.is_quick(now, A, ELECTION_MAX), "it said nothing");
        liveness.on_heartbeat(now, A, word(ELECTION_MIN));
        assert!(liveness.is_quick(now, A, Nanos(STALL_FACTOR * span.0)));
        assert!(!liveness.is_quick(now, A, Nanos(STALL_FACTOR * span.0 - 1)));
        let late = now.after(Nanos(ELECTION_UNMEASURED.0 + 1));
        assert!(!liveness.is_quick(late, A, ELECTION_MAX), "it is silent");
        liveness.on_connected(A, true);
        liveness.on_echo(late, Nanos(0), A, now);
        assert!(
            !liveness.is_quick(late, A, ELECTION_MAX),
            "that was another life"
        );
        let endless = Word {
            write_span: Nanos(u64::MAX),
            ..word(ELECTION_MIN)
        };
        liveness.on_heartbeat(late, A, endless);
        assert!(
            !liveness.is_quick(late, A, Nanos(u64::MAX)),
            "anybody can say anything"
        );
    }

    #[test]
    fn a_refusal_holds_until_an_answer_and_carries_no_control_characters() {
        let mut liveness = liveness();
        liveness.on_refusal(A, "wrong\ncluster\u{1b}[31m");
        liveness.on_refusal(B, &"x".repeat(5_000));
        let refusals: Vec<_> = liveness.refusals().collect();
        assert_eq!(refusals[0], (A, "wrongcluster[31m"));
        assert_eq!(refusals[1].1.len(), REFUSAL_LENGTH_MAX);
        liveness.on_echo(Nanos(9), Nanos(0), A, Nanos(5));
        let refusals: Vec<_> = liveness.refusals().map(|(peer, _)| peer).collect();
        assert_eq!(refusals, [B]);
    }

    #[test]
    fn a_bad_start_is_forgotten_after_two_windows() {
        let mut liveness = liveness();
        let mut now = Nanos::from_millis(1_000);
        for _ in 0..50 {
            liveness.on_echo(now, Nanos(0), A, Nanos(now.0 - Nanos::from_millis(80).0));
        }
        liveness.maybe_retune(now);
        assert_near(liveness.timeouts().election, Nanos::from_millis(800));
        for _ in 0..200 {
            now = now.after(Nanos::from_millis(110));
            liveness.on_echo(now, Nanos(0), A, Nanos(now.0 - 200_000));
            liveness.maybe_retune(now);
        }
        assert_eq!(liveness.timeouts().election, ELECTION_MIN);
    }

    #[test]
    fn nothing_measured_means_the_papers_range() {
        let mut liveness = liveness();
        assert!(liveness.maybe_retune(Nanos(1)));
        assert_eq!(liveness.timeouts().election, ELECTION_UNMEASURED);
        assert_eq!(liveness.reason(), TimeoutReason::Unmeasured);
    }

    #[test]
    fn who_has_measured_nothing_takes_the_others_word_and_hurries_them() {
        // A slow network, in which this node has just started.
        let now = Nanos::from_millis(1_000);
        let (slow, fast) = (Nanos::from_millis(1_600), Nanos::from_millis(30));
        let mut new = liveness();
        new.on_connected(A, true);
        new.on_connected(B, true);
        assert!(new.maybe_retune(now));
        new.on_heartbeat(now, A, word(slow));
        new.on_heartbeat(now, B, word(fast));
        assert!(new.maybe_retune(now), "at once");
        assert_eq!(new.stalls.count(), 1, "stalls are counted by the time");
        assert_eq!(new.timeouts().election, slow);
        assert_eq!(new.timeouts().heartbeat, Nanos(fast.0 / 5));
        assert_eq!(new.reason(), TimeoutReason::Unmeasured);
        new.on_connected(A, false);
        new.on_heartbeat(now, B, word(fast));
        assert!(new.maybe_retune(now.after(RETUNE_INTERVAL)));
        assert_eq!(new.timeouts().election, ELECTION_UNMEASURED);

        // And one that has been there, and has planned its next heartbeat for long after.
        let mut old = liveness();
        for _ in 0..50 {
            old.on_echo(now, Nanos(0), A, Nanos(now.0 - Nanos::from_millis(160).0));
        }
        assert!(old.maybe_retune(now) && old.take_heartbeat_due(now));
        assert!(old.deadline() > now.after(Nanos::from_millis(300)));
        old.on_connected(B, true);
        old.on_heartbeat(now, B, word(ELECTION_UNMEASURED));
        assert!(old.maybe_retune(now));
        assert_eq!(old.deadline(), now.after(Nanos(ELECTION_UNMEASURED.0 / 5)));
    }

    #[test]
    fn ten_round_trips_of_the_nearest_quorum_set_the_timeout() {
        let mut liveness = liveness();
        let mut now = Nanos::from_millis(1_000);
        for _ in 0..100 {
            now = now.after(Nanos::from_millis(20));
            liveness.on_echo(now, Nanos(0), A, Nanos(now.0 - Nanos::from_millis(10).0));
            liveness.on_echo(now, Nanos(0), B, Nanos(now.0 - Nanos::from_millis(90).0));
        }
        liveness.maybe_retune(now);
        assert_near(liveness.timeouts().election, Nanos::from_millis(100));
        assert_eq!(liveness.reason(), TimeoutReason::Rtt);
    }

    #[test]
    fn a_stalling_loop_is_patient_with_others() {
        let mut liveness = liveness();
        let now = Nanos::from_millis(1_000);
        for _ in 0..50 {
            liveness.on_echo(now, Nanos(0), A, Nanos(now.0 - 1_000));
            liveness.on_stall(Nanos::from_millis(20));
        }
        liveness.maybe_retune(now);
        assert_near(liveness.timeouts().election, Nanos::from_millis(160));
        assert_eq!(liveness.reason(), TimeoutReason::Stall);
    }

    #[test]
    fn a_quiet_fast_link_meets_the_floor_and_a_dead_peer_teaches_nothing() {
        let mut liveness = liveness();
        let mut now = Nanos::from_millis(1_000);
        for _ in 0..50 {
            now = now.after(Nanos::from_millis(6));
            liveness.on_echo(now, Nanos(0), A, Nanos(now.0 - 50_000));
            liveness.on_heartbeat(now, A, word(ELECTION_MIN));
        }
        now = now.after(Nanos::from_millis(60_000));
        liveness.on_heartbeat(now, A, word(ELECTION_MIN));
        liveness.maybe_retune(now);
        assert_eq!(liveness.timeouts().election, ELECTION_MIN);
        assert_eq!(liveness.reason(), TimeoutReason::Floor);
    }

    #[test]
    fn heartbeats_are_as_frequent_as_the_most_impatient_peer_needs() {
        let mut liveness = liveness();
        let mut now = Nanos::from_millis(1_000);
        for _ in 0..50 {
            liveness.on_echo(now, Nanos(0), A, Nanos(now.0 - Nanos::from_millis(50).0));
        }
        liveness.on_connected(B, true);
        liveness.on_heartbeat(now, B, word(Nanos::from_millis(40)));
        liveness.maybe_retune(now);
        assert_near(liveness.timeouts().election, Nanos::from_millis(500));
        assert_eq!(liveness.timeouts().patience, Nanos::from_millis(40));
        assert_eq!(liveness.timeouts().heartbeat, Nanos::from_millis(8));
        // It is gone, and with it its haste.
        liveness.on_connected(B, false);
        now = now.after(RETUNE_INTERVAL);
        liveness.maybe_retune(now);
        let Timeouts {
            election, patience, ..
        } = liveness.timeouts();
        assert_eq!(patience, election);
    }

    #[test]
    fn what_waited_for_a_peer_to_start_is_no_round_trip() {
        let mut liveness = liveness();
        let now = Nanos::from_millis(5_000);
        liveness.on_connected(A, true);
        for sent_ago in 0..100 {
            liveness.on_echo(
                now,
                Nanos(0),
                A,
                Nanos(now.0 - Nanos::from_millis(2_000 - sent_ago).0),
            );
        }
        assert_eq!(liveness.round_trip(A), Nanos(0));
        let later = now.after(Nanos::from_millis(50));
        liveness.on_echo(later, Nanos(0), A, Nanos(later.0 - 300_000));
        assert_near(liveness.round_trip(A), Nanos(300_000));
    }

    #[test]
    fn frozen_peers_and_own_freezes_teach_no_patience() {
        let mut liveness = liveness();
        let mut now = Nanos::from_millis(1_000);
        for round in 0..4_000 {
            let freeze = if round % 1_000 == 900 { 1_200 } else { 0 };
            now = now.after(Nanos::from_millis(6 + freeze));
            liveness.on_stall(Nanos::from_millis(freeze));
            let sent_at = Nanos(now.0 - Nanos::from_millis(freeze).0 - 200_000);
            liveness.on_echo(now, Nanos::from_millis(freeze), A, sent_at);
            liveness.on_heartbeat(now, A, word(ELECTION_MIN));
            liveness.maybe_retune(now);
        }
        assert_eq!(liveness.timeouts().election, ELECTION_MIN);
    }

    #[test]
    fn a_starved_loop_learns_patience() {
        let mut liveness = liveness();
        let mut now = Nanos::from_millis(1_000);
        for round in 0..400 {
            let stall = if round % 20 == 0 { 200 } else { 0 };
            now = now.after(Nanos::from_millis(100 + stall));
            liveness.on_stall(Nanos::from_millis(stall));
            liveness.on_echo(now, Nanos(0), A, Nanos(now.0 - 200_000));
            liveness.maybe_retune(now);
        }
        assert_near(liveness.timeouts().election, Nanos::from_millis(1_600));
        assert_eq!(liveness.reason(), TimeoutReason::Stall);
    }

    #[test]
    fn an_echo_from_the_future_is_no_sample() {
        let mut liveness = liveness();
        liveness.on_echo(Nanos(5), Nanos(0), A, Nanos(6));
        assert_eq!(liveness.round_trip(A), Nanos(0));
    }
}
