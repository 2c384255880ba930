//! Which faults a seed has, and how much of each.
//!
//! Not every seed has everything: faults hide each other, and a cluster that is hit all the time
//! never gets anywhere (swarm testing). A zero means that the seed does without.

use std::fmt;

use super::chance::Chance;
use crate::id::Nanos;
use crate::log::ring::Ring;
use crate::raft::Bounds;
use crate::shard::Shape;

const MICRO: u64 = 1_000;
const MILLI: u64 = 1_000_000;

/// One option of a run, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// Its name.
    pub name: &'static str,
    /// Its value.
    pub value: String,
    /// It makes trouble, and `without` takes it away.
    pub is_trouble: bool,
}

// An option with a value behind it makes trouble, and makes none at that value.
macro_rules! options {
    ($($(#[$doc:meta])* $name:ident: $type:ty $(= $off:expr)?,)*) => {
        /// The options of one run.
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub struct Swarm {
            $($(#[$doc])* pub $name: $type,)*
        }

        impl Swarm {
            /// Every option, in the order of their definition.
            #[must_use]
            pub fn options(&self) -> Vec<Choice> {
                vec![$(Choice {
                    name: stringify!($name),
                    value: format!("{:?}", self.$name),
                    is_trouble: false $(|| self.$name != $off)?,
                },)*]
            }

            /// The same run without the trouble that an option makes; none if it makes none.
            #[must_use]
            pub fn without(&self, name: &str) -> Option<Self> {
                let mut less = self.clone();
                match name {
                    $($(stringify!($name) => less.$name = $off,)?)*
                    _ => {}
                }
                (less != *self).then_some(less)
            }

            /// The same cluster without any trouble: what it has to heal under.
            pub(super) fn calm(&mut self) {
                $($(self.$name = $off;)?)*
                // Reading a whole log again takes its time.
                self.client_patience = self.client_patience.max(Nanos(500 * MILLI));
            }
        }

        impl fmt::Display for Swarm {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                $(writeln!(f, "  {:<22} {:?}", stringify!($name), self.$name)?;)*
                Ok(())
            }
        }
    };
}

options! {
    /// What everything else is drawn from.
    seed: u64,
    /// Nodes, all of them voters.
    node_count: usize,
    /// Logs.
    group_count: u32,
    /// Clients that append.
    producer_count: usize,
    /// Clients that read, and now and then ask for a hand-over.
    reader_count: usize,
    /// How long faults go on.
    fault_span: Nanos,
    /// The sizes of every shard.
    shape: Shape,

    /// Shortest way from node to node.
    delay: Nanos,
    /// Added to it, up to this.
    delay_spread: Nanos,
    /// Frames that take very long, per mille.
    slow_per_mille: u32 = 0,
    /// How long those take at most.
    slow_span: Nanos,
    /// Frames lost, per mille.
    drop_per_mille: u32 = 0,
    /// Frames that arrive twice, per mille.
    duplicate_per_mille: u32 = 0,
    /// Frames that overtake the one before, per mille.
    reorder_per_mille: u32 = 0,
    /// Frames that arrive in two pieces, per mille.
    split_per_mille: u32 = 0,
    /// Clients' connections suffer like nodes'; otherwise each keeps its order and loses nothing.
    client_faults: bool = false,
    /// What meets a partition waits for its end, as TCP would have it; otherwise it is lost.
    retransmit: bool,
    /// Between partitions.
    partition_every: Nanos = Nanos(0),
    /// How long one lasts.
    partition_span: Nanos,
    /// Between losses of a connection.
    link_loss_every: Nanos = Nanos(0),

    /// Between crashes.
    crash_every: Nanos = Nanos(0),
    /// Until the restart.
    restart_span: Nanos,
    /// Crashes that take the power, per mille.
    power_per_mille: u32,
    /// Crashes of all nodes at once, per mille.
    crash_all_per_mille: u32,
    /// Between loops that stand still.
    stall_every: Nanos = Nanos(0),
    /// How long they do.
    stall_span: Nanos,
    /// Parts of 1024 by which clocks differ at most.
    drift: i64 = 0,
    /// Shortest pause between two turns of a loop.
    turn_span: Nanos,

    /// Shortest write.
    store_delay: Nanos,
    /// Added to it, up to this.
    store_spread: Nanos,
    /// Writes that take very long, per mille.
    stuck_per_mille: u32 = 0,
    /// How long those take at most.
    stuck_span: Nanos,
    /// Between times at which segments find no space.
    full_every: Nanos = Nanos(0),
    /// How long there is none.
    full_span: Nanos,

    /// A producer's pause between appends.
    append_every: Nanos,
    /// Appends a producer has in flight at most.
    window: usize,
    /// Records of an append at most.
    record_count_max: u64,
    /// Bytes of a record at most.
    record_size_max: u64,
    /// After so long without an answer a client tries elsewhere.
    client_patience: Nanos,
    /// A producer begins a new life instead of a new append, per mille.
    epoch_per_mille: u32 = 0,
    /// A producer gives up an append that was refused, per mille.
    replace_per_mille: u32 = 0,
    /// A reader's pause between reads.
    read_every: Nanos,
    /// A reader asks for a hand-over instead, per mille.
    transfer_per_mille: u32 = 0,
    /// Every step is followed by the whole check of Raft's state, not every so many.
    check_all: bool,
}

/// Small sizes, so that rings go round, caches lose what they held and segments are closed.
fn shape(chance: &mut Chance, group_count: u32) -> Shape {
    let ring = Ring {
        file_size: 512 << 10,
        file_count: chance.pick(&[3, 3, 4]),
        run_size: 64 << 10,
    };
    // All that may be undecided fits the ring without its oldest and its newest file.
    let undecided = ring.file_size * u64::from(ring.file_count - 2) / u64::from(group_count);
    Shape {
        ring,
        arena_size: 256 << 10,
        arena_count: chance.between(2, 6) as usize,
        segment_write_size: chance.pick(&[64 << 10, 128 << 10, 512 << 10]),
        segment_size_max: chance.pick(&[128 << 10, 400 << 10, 4 << 20]),
        segment_read_size: chance.pick(&[72 << 10, 128 << 10, 1 << 20]),
        catch_up_size: chance.pick(&[1, 64 << 10, 256 << 10]),
        bounds: Bounds {
            tail_keep_count: chance.pick(&[0, 10, 100, 1024]),
            undecided_size_full: undecided - ring.run_size as u64,
        },
    }
}

impl Swarm {
    /// The options of a seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let mut chance = Chance::new(seed ^ 0x5357_4152_4d00_0000);
        let c = &mut chance;
        let far = c.one_in(8);
        let unit = if far {
            10 * MILLI
        } else {
            c.pick(&[50, 200, 500, 2_000]) * MICRO
        };
        let some = |c: &mut Chance, one_in: u64, low: u64, high: u64| {
            if c.one_in(one_in) {
                c.between(low, high)
            } else {
                0
            }
        };
        let span = |c: &mut Chance, one_in: u64, low: u64, high: u64| {
            Nanos(some(c, one_in, low * MILLI, high * MILLI))
        };
        let quick = c.one_in(4);
        let group_count = c.pick(&[1, 1, 2, 3]);
        Self {
            seed,
            node_count: c.pick(&[1, 3, 3, 3, 3, 3, 5, 5]),
            group_count,
            producer_count: c.between(1, 4) as usize,
            reader_count: c.between(1, 3) as usize,
            fault_span: Nanos(c.between(400, 1_600) * MILLI),
            shape: shape(c, group_count),

            delay: Nanos(unit / 2),
            delay_spread: Nanos(c.pick(&[0, unit / 4, unit, 4 * unit])),
            slow_per_mille: some(c, 3, 1, 30) as u32,
            slow_span: Nanos(c.between(5, 300) * MILLI),
            drop_per_mille: some(c, 2, 1, 60) as u32,
            duplicate_per_mille: some(c, 2, 1, 60) as u32,
            reorder_per_mille: some(c, 2, 1, 100) as u32,
            split_per_mille: some(c, 2, 1, 100) as u32,
            client_faults: c.one_in(3),
            retransmit: c.one_in(2),
            partition_every: span(c, 2, 60, 500),
            partition_span: Nanos(c.between(5, 500) * MILLI),
            link_loss_every: span(c, 3, 20, 300),

            crash_every: span(c, 2, 60, 600),
            restart_span: Nanos(c.between(1, 200) * MILLI),
            power_per_mille: c.pick(&[0, 300, 1000]),
            crash_all_per_mille: c.pick(&[0, 0, 100, 500]),
            stall_every: span(c, 3, 50, 500),
            stall_span: Nanos(c.between(5, 400) * MILLI),
            drift: c.pick(&[0, 1, 10]),
            turn_span: Nanos(c.between(10, 200) * MICRO),

            store_delay: Nanos(c.pick(&[50, 150, 1_000]) * MICRO),
            store_spread: Nanos(c.pick(&[50, 500, 5_000]) * MICRO),
            stuck_per_mille: some(c, 3, 1, 20) as u32,
            stuck_span: Nanos(c.between(10, 200) * MILLI),
            full_every: span(c, 6, 100, 600),
            full_span: Nanos(c.between(20, 400) * MILLI),

            append_every: Nanos(if quick {
                200 * MICRO
            } else {
                c.between(1, 10) * MILLI
            }),
            window: c.between(1, 8) as usize,
            record_count_max: c.pick(&[1, 3, 20]),
            record_size_max: c.pick(&[20, 200, 2_000]),
            client_patience: Nanos(c.between(20, 300) * MILLI),
            epoch_per_mille: some(c, 3, 1, 30) as u32,
            replace_per_mille: some(c, 3, 100, 1000) as u32,
            read_every: Nanos(c.between(2, 30) * MILLI),
            transfer_per_mille: some(c, 3, 5, 100) as u32,
            check_all: c.one_in(16),
        }
    }
}
