//! What a shard measures of its links and of itself, and the timeouts that follow from it.
//!
//! One heartbeat per link serves all groups on it. Knows nothing of terms or votes: it keeps times.

use crate::frame::code::TimeoutReason;
use crate::id::{Nanos, NodeId};
use crate::raft::Timeouts;

/// Shortest election timeout: below it, scheduling noise of an ordinary kernel would elect.
const ELECTION_MIN: Nanos = Nanos::from_millis(30);
/// Longest election timeout: beyond it a cluster is down for too long whatever was measured.
const ELECTION_MAX: Nanos = Nanos::from_millis(3_000);
/// Before anything is measured: 150 to 300 ms, the range of the Raft paper (section 9.3).
const ELECTION_UNMEASURED: Nanos = Nanos::from_millis(150);
/// Samples kept of each quantity. At a heartbeat every 6 to 60 ms this is the last 3 to 30 s.
const SAMPLE_COUNT: usize = 512;
/// Round trips needed before a measurement replaces the default.
const SAMPLE_COUNT_MIN: usize = 16;
/// How often the timeouts are computed anew.
const RETUNE_INTERVAL: Nanos = Nanos::from_millis(100);

/// The last samples of one quantity.
#[derive(Debug)]
struct Samples {
    values: Vec<u64>,
    next: usize,
}

impl Samples {
    fn new() -> Self {
        Self {
            values: Vec::with_capacity(SAMPLE_COUNT),
            next: 0,
        }
    }

    fn record(&mut self, value: Nanos) {
        if self.values.len() < SAMPLE_COUNT {
            self.values.push(value.0);
        } else {
            self.values[self.next] = value.0;
        }
        self.next = (self.next + 1) % SAMPLE_COUNT;
    }

    /// The value below which `per_mille` of the samples lie; zero when there are none.
    fn quantile(&self, per_mille: usize, scratch: &mut Vec<u64>) -> Nanos {
        assert!(per_mille <= 1000);
        if self.values.is_empty() {
            return Nanos(0);
        }
        scratch.clear();
        scratch.extend_from_slice(&self.values);
        let rank = (scratch.len() * per_mille / 1000).min(scratch.len() - 1);
        Nanos(*scratch.select_nth_unstable(rank).1)
    }
}

/// What is known of the link to one peer.
#[derive(Debug)]
struct Link {
    peer: NodeId,
    connected: bool,
    round_trips: Samples,
    gaps: Samples,
    heard_at: Option<Nanos>,
    /// The timeout the peer itself uses: our heartbeats must be frequent enough for it.
    peer_timeout: Nanos,
}

/// The shard's measurements and its timeouts.
#[derive(Debug)]
pub(super) struct Liveness {
    links: Vec<Link>,
    stalls: Samples,
    timeouts: Timeouts,
    reason: TimeoutReason,
    heartbeat_at: Nanos,
    retune_at: Nanos,
    scratch: Vec<u64>,
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
                peer_timeout: ELECTION_UNMEASURED,
            })
            .collect();
        Self {
            links,
            stalls: Samples::new(),
            timeouts: unmeasured(),
            reason: TimeoutReason::Unmeasured,
            heartbeat_at: now,
            retune_at: now,
            scratch: Vec::with_capacity(SAMPLE_COUNT),
        }
    }

    pub(super) fn timeouts(&self) -> Timeouts {
        self.timeouts
    }

    pub(super) fn reason(&self) -> TimeoutReason {
        self.reason
    }

    /// Median round trip to a peer; zero when it was never measured.
    pub(super) fn round_trip(&mut self, peer: NodeId) -> Nanos {
        let Some(link) = self.links.iter().position(|link| link.peer == peer) else {
            return Nanos(0);
        };
        self.links[link]
            .round_trips
            .quantile(500, &mut self.scratch)
    }

    pub(super) fn is_connected(&self, peer: NodeId) -> bool {
        self.links
            .iter()
            .any(|link| link.peer == peer && link.connected)
    }

    pub(super) fn on_connected(&mut self, peer: NodeId, connected: bool) {
        if let Some(link) = self.link(peer) {
            link.connected = connected;
            // The time between two lives of a link says nothing about its rhythm.
            link.heard_at = None;
        }
    }

    /// A heartbeat came in: the time since the one before is a sample of this link's rhythm.
    pub(super) fn on_heartbeat(&mut self, now: Nanos, peer: NodeId, peer_timeout: Nanos) {
        if let Some(link) = self.link(peer) {
            if let Some(heard_at) = link.heard_at.replace(now) {
                // A peer that was silent for longer than anybody's patience was dead, not slow:
                // its absence must not teach us to wait that long.
                let gap = now.since(heard_at);
                if gap <= ELECTION_MAX {
                    link.gaps.record(gap);
                }
            }
            link.peer_timeout = Nanos(peer_timeout.0.clamp(ELECTION_MIN.0, ELECTION_MAX.0));
        }
    }

    /// A heartbeat of ours came back: `sent_at` is our own clock's word, echoed unchanged.
    pub(super) fn on_echo(&mut self, now: Nanos, peer: NodeId, sent_at: Nanos) {
        // A peer could echo anything; a moment that lies ahead or too far back is no sample.
        if sent_at > now || now.since(sent_at) > ELECTION_MAX {
            return;
        }
        if let Some(link) = self.link(peer) {
            link.round_trips.record(now.since(sent_at));
        }
    }

    /// The loop was late by this much for something it had planned.
    pub(super) fn on_stall(&mut self, stall: Nanos) {
        self.stalls.record(Nanos(stall.0.min(ELECTION_MAX.0)));
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

    /// Computes the timeouts anew, at most every `RETUNE_INTERVAL`. True if it did.
    pub(super) fn maybe_retune(&mut self, now: Nanos) -> bool {
        if now < self.retune_at {
            return false;
        }
        self.retune_at = now.after(RETUNE_INTERVAL);
        let scratch = &mut self.scratch;
        // A leader hears of its quorum when the nearest `n / 2` peers have answered.
        let mut round_trips: Vec<Nanos> = self
            .links
            .iter()
            .filter(|link| link.round_trips.values.len() >= SAMPLE_COUNT_MIN)
            .map(|link| link.round_trips.quantile(990, scratch))
            .collect();
        round_trips.sort_unstable();
        let quorum_peers = self.links.len().div_ceil(2);
        let rtt = if quorum_peers == 0 {
            Nanos(0)
        } else {
            match round_trips.get(quorum_peers - 1) {
                Some(rtt) => *rtt,
                None => return true,
            }
        };
        let gap = self
            .links
            .iter()
            .map(|link| link.gaps.quantile(999, scratch))
            .max()
            .unwrap_or_default();
        let stall = self.stalls.quantile(999, scratch);

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
        // Heartbeats follow the most impatient node's timeout, not only our own.
        let impatient = self
            .links
            .iter()
            .map(|link| link.peer_timeout)
            .fold(election, std::cmp::min);
        self.timeouts = Timeouts {
            election,
            spread: Nanos((election.0 / 2).max(4 * rtt.0)),
            heartbeat: Nanos(impatient.0 / 5),
            rtt,
        };
        self.reason = reason;
        assert!(self.timeouts.heartbeat < self.timeouts.election);
        true
    }

    fn link(&mut self, peer: NodeId) -> Option<&mut Link> {
        self.links.iter_mut().find(|link| link.peer == peer)
    }
}

fn unmeasured() -> Timeouts {
    Timeouts {
        election: ELECTION_UNMEASURED,
        spread: ELECTION_UNMEASURED,
        heartbeat: Nanos(ELECTION_UNMEASURED.0 / 5),
        rtt: Nanos(0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: NodeId = NodeId(1);
    const B: NodeId = NodeId(2);

    fn liveness() -> Liveness {
        Liveness::new(Nanos(0), [A, B].into_iter())
    }

    #[test]
    fn nothing_measured_means_the_papers_range() {
        let mut liveness = liveness();
        assert!(liveness.maybe_retune(Nanos(1)));
        assert_eq!(liveness.timeouts().election, ELECTION_UNMEASURED);
        assert_eq!(liveness.reason(), TimeoutReason::Unmeasured);
    }

    #[test]
    fn ten_round_trips_of_the_nearest_quorum_set_the_timeout() {
        let mut liveness = liveness();
        let mut now = Nanos(0);
        for _ in 0..100 {
            now = now.after(Nanos::from_millis(200));
            liveness.on_echo(now, A, Nanos(now.0 - Nanos::from_millis(10).0));
            liveness.on_echo(now, B, Nanos(now.0 - Nanos::from_millis(90).0));
        }
        liveness.maybe_retune(now);
        assert_eq!(liveness.timeouts().election, Nanos::from_millis(100));
        assert_eq!(liveness.reason(), TimeoutReason::Rtt);
    }

    #[test]
    fn a_stalling_loop_is_patient_with_others() {
        let mut liveness = liveness();
        let now = Nanos::from_millis(1_000);
        for _ in 0..50 {
            liveness.on_echo(now, A, Nanos(now.0 - 1_000));
            liveness.on_stall(Nanos::from_millis(20));
        }
        liveness.maybe_retune(now);
        assert_eq!(liveness.timeouts().election, Nanos::from_millis(160));
        assert_eq!(liveness.reason(), TimeoutReason::Stall);
    }

    #[test]
    fn a_quiet_fast_link_meets_the_floor_and_a_dead_peer_teaches_nothing() {
        let mut liveness = liveness();
        let mut now = Nanos::from_millis(1_000);
        for _ in 0..50 {
            now = now.after(Nanos::from_millis(6));
            liveness.on_echo(now, A, Nanos(now.0 - 50_000));
            liveness.on_heartbeat(now, A, ELECTION_MIN);
        }
        now = now.after(Nanos::from_millis(60_000));
        liveness.on_heartbeat(now, A, ELECTION_MIN);
        liveness.maybe_retune(now);
        assert_eq!(liveness.timeouts().election, ELECTION_MIN);
        assert_eq!(liveness.reason(), TimeoutReason::Floor);
    }

    #[test]
    fn heartbeats_are_as_frequent_as_the_most_impatient_peer_needs() {
        let mut liveness = liveness();
        let now = Nanos::from_millis(1_000);
        for _ in 0..50 {
            liveness.on_echo(now, A, Nanos(now.0 - Nanos::from_millis(50).0));
        }
        liveness.on_heartbeat(now, B, Nanos::from_millis(40));
        liveness.maybe_retune(now);
        assert_eq!(liveness.timeouts().election, Nanos::from_millis(500));
        assert_eq!(liveness.timeouts().heartbeat, Nanos::from_millis(8));
    }

    #[test]
    fn an_echo_from_the_future_is_no_sample() {
        let mut liveness = liveness();
        liveness.on_echo(Nanos(5), A, Nanos(6));
        assert_eq!(liveness.round_trip(A), Nanos(0));
    }
}
