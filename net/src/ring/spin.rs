//! `Spin`: how long to look for completions before going to sleep.
//!
//! A sleep and its wake-up cost tens of microseconds a hop on a virtual machine, a look at the
//! completion ring's memory costs nanoseconds: where the answer comes soon, looking is quicker.
//! Where it does not, looking burns a core that a client, a peer or a broker on the same machine
//! needs. So the budget is learned, bounded, and paid for. Pure: time comes in, spans go out.
//!
//! - *hit*: something came while spinning. *handed*: it came while the core was offered to others
//!   (`sched_yield`) and taken: the one who answers lives on this core, so the next spin begins
//!   with the offer. *miss*: the span ended. *contended*: the offer was taken, nothing came.
//! - While hits are frequent the span is a small multiple of how long they took. Otherwise a
//!   *trial* of the longest span is made now and then, ever more seldom while trials fail.
//! - Spinning is paid from credit. A miss costs its span; time earns (`WASTE_SHARE`), and so does
//!   a hit, as the sleep it saved would have cost processor time too. So spinning burns no more
//!   than it saves and a sixteenth of a core; an idle shard wastes under half a percent.
//! - After contention there is a quiet time, `QUIET_SHARE` times as long as the core was away: who
//!   yields to a busy process loses its whole time slice, 3 ms, where a sleeper that wakes is
//!   served at once. So on a loaded machine sleeping is both kinder and quicker.
//!
//! Measured (2 virtual cores, loopback TCP, 256 bytes, both ends with a ring; median round trip,
//! processor time of both ends a round; `examples/round_trip.rs`):
//!
//! | | asleep | adaptive |
//! | --- | --- | --- |
//! | on two cores | 117 us, 96 us | 14 us, 31 us |
//! | on one core | 19 us, 21 us | 19 us, 21 us |

use std::time::Duration;

use ringwood_core::id::Nanos;

/// The longest span that adaptive spinning learns to; a sleep and wake-up cost about as much.
pub const SPIN_LIMIT: Duration = Duration::from_micros(50);

/// At most one part in this many of the time may be spent on spins that found nothing.
const WASTE_SHARE: u64 = 16;

/// What a sleep and its wake-up cost of processor time, about: a hit saves one.
const SLEEP_NS: u64 = 20_000;

/// At most one part in this many of the time is lost to contention.
const QUIET_SHARE: u64 = 64;

/// The shares are in parts of this.
const WHOLE: u32 = 1024;

/// Each failed trial in a row doubles the price of the next, up to 2^this.
const PRICE_SHIFT_MAX: u32 = 5;

/// Shortest learned span: below, the look would end before a neighbour core could have answered.
const SPAN_NS_MIN: u64 = 4_000;

/// When to spin before sleeping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpinMode {
    /// Sleep at once. For measuring, and for machines where every cycle is another's.
    Never,
    /// Learn whether it pays, up to this span.
    Adaptive(Duration),
    /// Full busy-poll: never sleep before the timeout. Owns its core; opt-in for latency work.
    Always,
}

impl Default for SpinMode {
    fn default() -> Self {
        Self::Adaptive(SPIN_LIMIT)
    }
}

/// How a spin ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpinEnd {
    /// Something came.
    Hit,
    /// Something came while others had the core.
    Handed,
    /// Nothing came.
    Miss,
    /// Someone else wanted the core (whether or not something came).
    Contended,
}

/// The learned budget.
#[derive(Clone, Debug)]
pub struct Spin {
    mode: SpinMode,
    limit_ns: u64,
    /// Moving average of hits among spins, 0..=WHOLE.
    hit_share: u32,
    /// Moving average of the time a hit took.
    reach_ns: u64,
    /// Nanoseconds that may be wasted.
    credit_ns: u64,
    /// Failed trials in a row, up to `PRICE_SHIFT_MAX`.
    price_shift: u32,
    accrued_at: Option<Nanos>,
    /// The last thing that came did so while others had the core.
    offers_first: bool,
    /// No spinning before.
    quiet_until: Nanos,
}

impl Spin {
    /// A budget that has learned nothing yet.
    #[must_use]
    pub fn new(mode: SpinMode) -> Self {
        let limit_ns = match mode {
            SpinMode::Never => 0,
            SpinMode::Adaptive(limit) => u64::try_from(limit.as_nanos()).unwrap_or(u64::MAX),
            SpinMode::Always => u64::MAX,
        };
        Self {
            mode,
            limit_ns,
            hit_share: 0,
            reach_ns: limit_ns,
            credit_ns: limit_ns,
            price_shift: 0,
            accrued_at: None,
            offers_first: false,
            quiet_until: Nanos(0),
        }
    }

    /// Nanoseconds to spin now, before sleeping; 0 is not at all.
    pub fn next_span(&mut self, now: Nanos) -> u64 {
        match self.mode {
            SpinMode::Never => return 0,
            SpinMode::Always => return u64::MAX,
            SpinMode::Adaptive(_) => self.accrue(now),
        }
        if now < self.quiet_until {
            return 0;
        }
        let (span, price) = if self.hit_share >= WHOLE / 2 {
            let span_min = SPAN_NS_MIN.min(self.limit_ns);
            let span = self
                .reach_ns
                .saturating_mul(3)
                .clamp(span_min, self.limit_ns);
            (span, span)
        } else {
            (self.limit_ns, self.limit_ns << self.price_shift)
        };
        if self.credit_ns >= price { span } else { 0 }
    }

    /// Whether the next spin is to begin by offering the core to others.
    #[must_use]
    pub fn offers_first(&self) -> bool {
        self.offers_first
    }

    /// Learns from a spin of `spent` nanoseconds that is just over.
    pub fn learn(&mut self, end: SpinEnd, spent_ns: u64, now: Nanos) {
        // Spinning is no time to earn from.
        self.accrued_at = Some(now);
        self.offers_first = end == SpinEnd::Handed;
        match end {
            // It came, but long after the span: somebody else had the core.
            SpinEnd::Hit | SpinEnd::Handed if spent_ns > self.limit_ns => {
                self.fall_quiet(spent_ns, now);
            }
            SpinEnd::Hit | SpinEnd::Handed => {
                self.hit_share += (WHOLE - self.hit_share) / 4;
                self.reach_ns = (self.reach_ns.saturating_mul(7) / 8).saturating_add(spent_ns / 8);
                self.price_shift = 0;
                self.earn(SLEEP_NS);
            }
            SpinEnd::Miss => {
                if self.hit_share >= WHOLE / 2 {
                    self.credit_ns = self.credit_ns.saturating_sub(spent_ns);
                } else {
                    // A failed trial takes all there is, and makes the next dearer.
                    self.credit_ns = 0;
                    self.reach_ns = self.limit_ns;
                    self.price_shift = (self.price_shift + 1).min(PRICE_SHIFT_MAX);
                }
                self.hit_share -= self.hit_share / 4;
            }
            SpinEnd::Contended => self.fall_quiet(spent_ns, now),
        }
        assert!(self.hit_share <= WHOLE);
    }

    fn fall_quiet(&mut self, spent_ns: u64, now: Nanos) {
        self.quiet_until = now.after(Nanos(spent_ns.saturating_mul(QUIET_SHARE)));
    }

    fn accrue(&mut self, now: Nanos) {
        let span = self.accrued_at.map_or(0, |last| now.since(last).0);
        self.accrued_at = Some(now);
        self.earn(span / WASTE_SHARE);
    }

    fn earn(&mut self, credit_ns: u64) {
        let credit_ns_max = self.limit_ns << PRICE_SHIFT_MAX;
        self.credit_ns = self.credit_ns.saturating_add(credit_ns).min(credit_ns_max);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Waits that end after `answer_ns` each, with `gap_ns` of work between; counts sleeps, and
    /// nanoseconds spent in spins that found nothing.
    fn run(spin: &mut Spin, waits: u32, answer_ns: u64, gap_ns: u64) -> (u32, u64) {
        let mut now = Nanos(spin.accrued_at.map_or(1, |at| at.0));
        let mut sleeps = 0;
        let mut wasted = 0;
        for _ in 0..waits {
            now = now.after(Nanos(gap_ns));
            let span = spin.next_span(now);
            if span > answer_ns {
                spin.learn(SpinEnd::Hit, answer_ns, now.after(Nanos(answer_ns)));
            } else {
                sleeps += 1;
                if span > 0 {
                    wasted += span;
                    spin.learn(SpinEnd::Miss, span, now.after(Nanos(span)));
                }
            }
            now = now.after(Nanos(answer_ns.max(span)));
        }
        (sleeps, wasted)
    }

    #[test]
    fn quick_answers_are_spun_for_and_the_span_follows_them() {
        let mut spin = Spin::new(SpinMode::default());
        let (sleeps, _) = run(&mut spin, 1_000, 8_000, 5_000);
        assert!(sleeps < 50, "{sleeps} sleeps");
        let span = spin.next_span(spin.accrued_at.unwrap());
        assert!((20_000..30_000).contains(&span), "{span}");
    }

    #[test]
    fn an_idle_shard_wastes_under_half_a_percent() {
        let mut spin = Spin::new(SpinMode::default());
        // A tick each millisecond for ten seconds.
        let (_, wasted) = run(&mut spin, 10_000, 1_000_000, 1_000);
        assert!(wasted < 50_000_000, "{wasted} ns of 10 s");
    }

    #[test]
    fn it_comes_back_when_quick_answers_do() {
        let mut spin = Spin::new(SpinMode::default());
        run(&mut spin, 10_000, 1_000_000, 1_000);
        let (sleeps, _) = run(&mut spin, 20_000, 10_000, 5_000);
        assert!(sleeps < 4_000, "{sleeps} sleeps");
    }

    #[test]
    fn contention_ends_spinning_for_as_long_as_it_cost() {
        let mut spin = Spin::new(SpinMode::default());
        run(&mut spin, 1_000, 8_000, 5_000);
        let mut now = spin.accrued_at.unwrap();
        // A busy neighbour on this core: whoever yields is back after its time slice.
        let slice = 3_000_000;
        let mut lost = 0;
        for _ in 0..100_000 {
            now = now.after(Nanos(10_000));
            if spin.next_span(now) > 0 {
                now = now.after(Nanos(slice));
                spin.learn(SpinEnd::Contended, slice, now);
                lost += slice;
            }
        }
        assert!(lost < 40_000_000, "{lost} ns of 1 s lost");
        // A short handover is forgiven soon.
        now = now.after(Nanos(slice * QUIET_SHARE));
        spin.learn(SpinEnd::Contended, 6_000, now);
        assert_eq!(spin.next_span(now), 0);
        assert!(spin.next_span(now.after(Nanos(1_000_000))) > 0);
    }

    #[test]
    fn news_that_come_with_a_late_return_count_as_contention() {
        let mut spin = Spin::new(SpinMode::default());
        run(&mut spin, 1_000, 8_000, 5_000);
        let now = spin.accrued_at.unwrap();
        assert!(spin.next_span(now) > 0);
        spin.learn(SpinEnd::Handed, 3_000_000, now);
        assert_eq!(spin.next_span(now.after(Nanos(100_000_000))), 0);
    }

    #[test]
    fn the_extremes_do_not_learn() {
        let mut never = Spin::new(SpinMode::Never);
        let mut always = Spin::new(SpinMode::Always);
        assert_eq!(never.next_span(Nanos(1)), 0);
        always.learn(SpinEnd::Miss, 1_000_000, Nanos(1_000_001));
        assert_eq!(always.next_span(Nanos(1)), u64::MAX);
    }
}
