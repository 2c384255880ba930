//! When things go wrong: every fault of a run, drawn before the run begins.
//!
//! A fault has a number, a moment, a kind and a seed of its own for all that it chooses. So one can
//! be left out and the others stay what they were, which is how a failure is made smaller. Faults
//! come in bursts, with time between them to heal. Knows nothing of what a fault does.

use std::fmt;

use super::chance::{Chance, mixed};
use super::swarm::Swarm;
use crate::id::Nanos;

macro_rules! kinds {
    ($($(#[$doc:meta])* $kind:ident $word:ident,)*) => {
        /// A kind of fault.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(super) enum Kind {
            $($(#[$doc])* $kind,)*
        }

        impl Kind {
            const ALL: &[Self] = &[$(Self::$kind,)*];

            /// How often it comes, against the others.
            fn weight(self, swarm: &Swarm) -> u32 {
                match self {
                    $(Self::$kind => swarm.$word,)*
                }
            }
        }

        impl fmt::Display for Kind {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(match self {
                    $(Self::$kind => stringify!($word),)*
                })
            }
        }
    };
}

kinds! {
    /// The parties fall in two, and no side hears the other.
    Partition partition,
    /// One side does not hear the other.
    OneWay one_way,
    /// Every way between two nodes is open or not, by chance.
    Graph graph,
    /// A way between two nodes goes and comes, again and again.
    Flap flap,
    /// What is sent to a node is held up, and then comes all at once.
    Clog clog,
    /// A node takes its bytes slowly.
    SlowReceiver slow_receiver,
    /// A connection breaks, in the midst of a frame.
    Reset reset,
    /// One end of a connection forgets it, and tells nobody.
    HalfOpen half_open,
    /// A process ends.
    Crash crash,
    /// All processes end.
    CrashAll crash_all,
    /// A process ends, and the next one while it recovers.
    CrashTwice crash_twice,
    /// A process ends when one of its next writes or reads is done.
    CrashAtCompletion crash_at_completion,
    /// A loop stands still.
    Stall stall,
    /// A process is frozen for longer than anybody waits.
    Freeze freeze,
    /// A loop gets little of its processor.
    Starve starve,
    /// A clock jumps ahead.
    ClockJump clock_jump,
    /// Segments find no space.
    Full full,
    /// A write or read fails, and the process ends for it.
    DiskError disk_error,
    /// A disk answers nothing for a while.
    DiskStall disk_stall,
    /// What a disk had promised to keep is damaged while the process is down.
    Damage damage,
    /// A process is asked to stop, does, and is started again.
    Stop stop,
    /// A node wants some of its connections no more, and says so.
    TurnAway turn_away,
    /// What a disk had promised to keep is damaged, or a write is lost, while the process runs on.
    Rot rot,
    /// All segments find no space, and when journals have filled up all processes end.
    Squeeze squeeze,
    /// First one half of the nodes is away, then the other, and in between the disk of the only one
    /// that knows both times is damaged.
    Relay relay,
}

/// One fault to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Planned {
    pub(super) number: u32,
    pub(super) at: Nanos,
    pub(super) kind: Kind,
    /// Of all that it chooses.
    pub(super) seed: u64,
}

/// A time of faults.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Burst {
    pub(super) from: Nanos,
    pub(super) until: Nanos,
    /// By time.
    pub(super) faults: Vec<Planned>,
}

/// All bursts of a run, one behind the other; the last ends with the span of faults.
pub(super) fn bursts(swarm: &Swarm) -> Vec<Burst> {
    let mut chance = Chance::new(swarm.seed ^ 0x5343_4845_4455_4c45);
    let mut bursts = Vec::new();
    let mut number = 0;
    for slot in 0.. {
        let from = Nanos(slot * swarm.burst_every.0);
        if from >= swarm.fault_span {
            return bursts;
        }
        let until = from.after(swarm.burst_span).min(swarm.fault_span);
        let mut faults = Vec::new();
        for _ in 0..swarm.fault_count {
            // Drawn whether it is used or not, so that what is left out moves nothing else.
            let at = from.after(Nanos(chance.below(swarm.burst_span.0)));
            let (choice, seed) = (chance.next(), chance.next());
            number += 1;
            if at >= until || swarm.skipped.contains(&number) {
                continue;
            }
            let Some(kind) = kind_of(swarm, choice) else {
                continue;
            };
            faults.push(Planned {
                number,
                at,
                kind,
                seed,
            });
        }
        faults.sort_by_key(|fault| (fault.at, fault.number));
        bursts.push(Burst {
            from,
            until,
            faults,
        });
    }
    unreachable!("time ends")
}

/// The kind that a choice means: who draws highest. Without one kind, all choices that did not mean
/// it mean what they did.
fn kind_of(swarm: &Swarm, choice: u64) -> Option<Kind> {
    let draw = |kind: Kind, number: u32| mixed(choice ^ (kind as u64) << 32 ^ u64::from(number));
    let best = |kind: Kind| {
        (0..kind.weight(swarm))
            .map(|number| draw(kind, number))
            .max()
    };
    let draws = Kind::ALL
        .iter()
        .filter_map(|kind| Some((best(*kind)?, *kind)));
    draws.max_by_key(|(best, _)| *best).map(|(_, kind)| kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_that_is_left_out_moves_no_other() {
        let mut swarm = Swarm::new(1);
        (swarm.partition, swarm.crash, swarm.stall) = (1, 2, 1);
        (swarm.fault_count, swarm.burst_span) = (40, Nanos::from_millis(1_000));
        (swarm.burst_every, swarm.fault_span) = (swarm.burst_span, swarm.burst_span);
        let all = bursts(&swarm).remove(0).faults;
        assert_eq!(all.len(), 40);
        let mut fewer = swarm.clone();
        fewer.skipped = vec![all[7].number];
        let kept = all.iter().filter(|fault| **fault != all[7]).copied();
        assert_eq!(bursts(&fewer).remove(0).faults, kept.collect::<Vec<_>>());
        // Without a kind, only its own faults become others.
        let less = swarm.without("crash").expect("it crashes");
        for (was, is) in all.iter().zip(&bursts(&less).remove(0).faults) {
            assert!(is.kind != Kind::Crash, "no crash is left");
            assert!(
                was == is || was.kind == Kind::Crash,
                "{was:?} became {is:?}"
            );
        }
    }
}
