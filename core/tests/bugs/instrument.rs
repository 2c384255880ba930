//! What plays a seed with a bug: the tests' own simulators, as they are.
//!
//! Knows which switch is for which instrument. A failure is the sentence that was broken, with
//! every number in it replaced, so that it can be compared.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};
use std::sync::Once;
use std::time::Duration;

use ringwood_core::bugs::{Switch, choose};
use ringwood_core::sim::{self, Swarm};

use crate::door;
use crate::raft::world::World;

/// A simulator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Instrument {
    /// Whole nodes (`ringwood_core::sim`).
    Cluster,
    /// Rafts without shards (`core/tests/it/raft/network.rs`).
    Raft,
    /// One shard, and strangers.
    Door,
}

impl Instrument {
    /// The instrument of that name.
    pub(crate) fn named(name: &str) -> Self {
        match name {
            "cluster" => Self::Cluster,
            "raft" => Self::Raft,
            "door" => Self::Door,
            _ => panic!("no instrument is named {name}"),
        }
    }

    /// The one that a switch is looked for with; none for the client's, which its own tests play
    /// (`core/src/client/tests/model.rs`).
    pub(crate) fn of(switch: Switch) -> Option<Self> {
        match switch {
            Switch::B70 | Switch::B72 => None,
            Switch::B04
            | Switch::B05
            | Switch::B08
            | Switch::B09
            | Switch::B10
            | Switch::B11
            | Switch::B28
            | Switch::B30
            | Switch::B35
            | Switch::B42
            | Switch::B43
            | Switch::B45 => Some(Self::Raft),
            Switch::B77 | Switch::B79 | Switch::B80 => Some(Self::Door),
            _ => Some(Self::Cluster),
        }
    }

    /// Plays a seed to its end. The error is what was broken.
    pub(crate) fn play(self, seed: u64, switch: Option<Switch>) -> Result<(), String> {
        quiet();
        PLAYING.set(Some(String::new()));
        choose(switch);
        let played = catch_unwind(AssertUnwindSafe(|| match self {
            Self::Cluster => sim::run(&Swarm::new(seed), None).is_ok(),
            Self::Raft => {
                let mut world = World::new(seed);
                world.run_until(world.options.duration);
                world.come_alive();
                true
            }
            Self::Door => {
                door::play(seed);
                true
            }
        }));
        choose(None);
        let told = PLAYING.take().expect("set above");
        if matches!(played, Ok(true)) {
            Ok(())
        } else {
            Err(told)
        }
    }
}

/// The switches that have an instrument here.
pub(crate) fn simulated() -> impl Iterator<Item = Switch> {
    let all = Switch::ALL.iter().copied();
    all.filter(|switch| Instrument::of(*switch).is_some())
}

thread_local! {
    /// What broke, while a seed is being played.
    static PLAYING: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Keeps failures of seeds to themselves: they are what is looked for.
fn quiet() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let usual = take_hook();
        set_hook(Box::new(move |panic| {
            if !PLAYING.with_borrow(Option::is_some) {
                return usual(panic);
            }
            let text = panic.payload_as_str().unwrap_or("a panic without words");
            let text = text.lines().next().unwrap_or_default();
            let text = text
                .strip_prefix("assertion `left == right` failed: ")
                .unwrap_or(text);
            let text = without_numbers(text);
            let place = panic.location().map_or("", |place| place.file());
            let mut names = place.rsplit('/');
            let (file, folder) = (names.next().unwrap_or(""), names.next().unwrap_or(""));
            PLAYING.set(Some(format!("{text} ({folder}/{file})")));
        }));
    });
}

/// A sentence with `#` for each number, so that all that break the same say the same.
fn without_numbers(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '0'..='9' if out.ends_with('#') => {}
            '0'..='9' => out.push('#'),
            _ => out.push(letter),
        }
    }
    out
}

/// Time that this thread has spent on a processor.
pub(crate) fn cpu_time() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux tells");
    let nanos = text.split_whitespace().next().expect("three numbers");
    Duration::from_nanos(nanos.parse().expect("nanoseconds"))
}
