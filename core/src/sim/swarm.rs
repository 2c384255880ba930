//! Which faults a seed has, and how much of each.
//!
//! Not every seed has everything: faults hide each other, and a cluster that is hit all the time
//! never gets anywhere (swarm testing). A zero means that the seed does without.

use std::fmt;

use super::chance::Chance;
use super::schedule;
use super::shown::Shown as _;
use crate::id::Nanos;
use crate::limits::{APPEND_PAYLOAD_SIZE_MAX, RECORD_SIZE_MAX, RUN_SIZE_MAX};
use crate::log::ring::Ring;
use crate::raft::Bounds;
use crate::shard::Shape;

const MICRO: u64 = 1_000;
const MILLI: u64 = 1_000_000;

/// No node waits longer for a leader, however far away the others are.
pub(super) const PATIENCE_MAX: Nanos = Nanos(3_000 * MILLI);

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

/// One fault of a run, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// What `without` leaves it out by.
    pub number: u32,
    /// True time.
    pub at: Nanos,
    /// The option that is its kind.
    pub kind: String,
}

macro_rules! trouble {
    ($name:ident, $off:expr) => {
        stringify!($name)
    };
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
                    value: self.$name.shown(),
                    is_trouble: false $(|| self.$name != $off)?,
                },)*]
            }

            /// Names of the options that make trouble in some run, and that `without` takes away.
            #[must_use]
            pub fn troubles() -> Vec<&'static str> {
                [$($(trouble!($name, $off),)?)*].to_vec()
            }

            /// The same run without the trouble that an option makes, or without the one fault of a
            /// number; none if that is no trouble.
            #[must_use]
            pub fn without(&self, name: &str) -> Option<Self> {
                let mut less = self.clone();
                match name {
                    $($(stringify!($name) => less.$name = $off,)?)*
                    _ => match name.parse() {
                        Ok(number) if !less.skipped.contains(&number) => less.skipped.push(number),
                        _ => {}
                    },
                }
                (less != *self).then_some(less)
            }

            /// The same cluster without any trouble: what it has to heal under.
            pub(super) fn calm(&mut self) {
                $($(self.$name = $off;)?)*
                // Reading a whole log again takes its time.
                let patience = self.client_patience.max(self.patience());
                self.client_patience = patience.max(Nanos(500 * MILLI));
            }
        }

        impl fmt::Display for Swarm {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                $(writeln!(f, "  {:<22} {}", stringify!($name), self.$name.shown())?;)*
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
    /// How long faults come and go.
    fault_span: Nanos,
    /// From the beginning of one burst of faults to the next one's.
    burst_every: Nanos,
    /// How long a burst lasts.
    burst_span: Nanos,
    /// Faults of a burst.
    fault_count: u32,
    /// Faults left out, by number.
    skipped: Vec<u32>,
    /// Appends that are acknowledged in each burst and after it, at least.
    quota: u64,
    /// The sizes of every shard.
    shape: Shape,

    /// Shortest way from node to node.
    delay: Nanos,
    /// Added to it, up to this.
    delay_spread: Nanos,
    /// Added to it, on average; now and then it is many times that.
    tail: Nanos = Nanos(0),
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
    /// Frames that arrive damaged, per mille.
    corrupt_per_mille: u32 = 0,
    /// Bytes under way on one connection, one way, at most; what is more gets lost.
    queue_size_max: usize = 16 << 20,
    /// Clients' connections suffer like nodes'; otherwise each keeps its order and loses nothing.
    client_faults: bool = false,
    /// What meets a partition waits for its end, as TCP would have it; otherwise it is lost.
    retransmit: bool,

    /// Weight of partitions among the faults. The next ones likewise.
    partition: u32 = 0,
    /// How long one lasts.
    partition_span: Nanos,
    /// One side does not hear the other.
    one_way: u32 = 0,
    /// Each way between two nodes is open or not.
    graph: u32 = 0,
    /// A way goes and comes.
    flap: u32 = 0,
    /// What is sent to a node is held up.
    clog: u32 = 0,
    /// A node takes its bytes slowly.
    slow_receiver: u32 = 0,
    /// A connection breaks.
    reset: u32 = 0,
    /// One end of a connection forgets it.
    half_open: u32 = 0,
    /// A node wants some of its connections no more.
    turn_away: u32 = 0,

    /// A process ends.
    crash: u32 = 0,
    /// All do.
    crash_all: u32 = 0,
    /// One does, and the next while it recovers.
    crash_twice: u32 = 0,
    /// One does when a read or write is done.
    crash_at_completion: u32 = 0,
    /// One is asked to stop.
    stop: u32 = 0,
    /// One is asked to stop when nothing is wrong.
    calm_stop: bool = false,
    /// Until the restart.
    restart_span: Nanos,
    /// Crashes that take the power, per mille.
    power_per_mille: u32,
    /// A loop stands still.
    stall: u32 = 0,
    /// How long it does.
    stall_span: Nanos,
    /// A process is frozen for longer than anybody waits.
    freeze: u32 = 0,
    /// A loop gets little of its processor.
    starve: u32 = 0,
    /// A clock jumps ahead.
    clock_jump: u32 = 0,
    /// Parts of 1024 by which clocks differ at most.
    drift: i64 = 0,
    /// Shortest pause between two turns of a loop.
    turn_span: Nanos,
    /// Longest pause between two turns of a loop.
    sleep_span: Nanos,
    /// Longest pause before a peer that is not there is dialled again.
    redial_span: Nanos,

    /// Shortest write.
    store_delay: Nanos,
    /// Added to it, up to this.
    store_spread: Nanos,
    /// Writes that take very long, per mille.
    stuck_per_mille: u32 = 0,
    /// How long those take at most.
    stuck_span: Nanos,
    /// Segments find no space.
    full: u32 = 0,
    /// How long there is none.
    full_span: Nanos,
    /// No segment of any node finds space, and before that ends all processes do.
    squeeze: u32 = 0,
    /// A read or write fails.
    disk_error: u32 = 0,
    /// A disk says nothing for a while.
    disk_stall: u32 = 0,
    /// Promised bytes are damaged while their process is down.
    damage: u32 = 0,
    /// They are while it runs.
    rot: u32 = 0,
    /// One half of the nodes is away, then the other, and the disk of whoever is there both times is
    /// damaged in between.
    relay: u32 = 0,
    /// Such damage aims at the last run, which nothing bears witness of. No seed has it: recovery
    /// cannot tell it from a run that was never done.
    damage_last: bool = false,
    /// A segment is damaged before all logs are read at the end.
    segment_damage: bool = false,
    /// And after that every disk is, at once.
    ruin: bool = false,
    /// Nothing happens for a while after the last burst, and messages are counted.
    is_watched: bool,

    /// A producer's pause between appends.
    append_every: Nanos,
    /// The same when nothing is wrong and the quota is reached.
    quiet_append_every: Nanos,
    /// Appends a producer makes at once, at most.
    volley: u64,
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
    /// A reader asks for its log to begin later instead, per mille.
    trim_per_mille: u32 = 0,
    /// Leaders trim what is more than so many bytes in segments; 0 keeps all.
    retained_size: u64 = 0,
    /// Every step is followed by the whole check of Raft's state, not every so many.
    check_all: bool,
}

/// Small sizes, so that rings go round, caches lose what they held and segments are closed; or such
/// that the largest records just fit.
fn shape(chance: &mut Chance, group_count: u32, is_large: bool) -> Shape {
    let ring = Ring {
        file_size: if is_large { 16 << 20 } else { 512 << 10 },
        file_count: chance.pick(&[3, 3, 4]),
        run_size: if is_large { RUN_SIZE_MAX } else { 64 << 10 },
    };
    // All that may be undecided fits the ring without its oldest and its newest file.
    let undecided = ring.file_size * u64::from(ring.file_count - 2) / u64::from(group_count);
    Shape {
        ring,
        // The least that takes a few runs.
        arena_size: 4 * ring.run_size,
        arena_count: chance.between(2, 6) as usize,
        segment_write_size: chance.pick(&[64 << 10, 128 << 10, 512 << 10]),
        segment_size_max: chance.pick(&[128 << 10, 400 << 10, 4 << 20]),
        segment_read_size: ring.run_size + chance.pick(&[8 << 10, 64 << 10, 960 << 10]),
        catch_up_size: chance.pick(&[1, 64 << 10, 256 << 10]),
        bounds: Bounds {
            tail_keep_count: chance.pick(&[0, 10, 100, 1024]),
            undecided_size_full: undecided - ring.run_size as u64,
        },
    }
}

impl Swarm {
    /// The options of a quick seed: one burst of a second or two on a fast network.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let mut chance = Chance::new(seed ^ 0x5357_4152_4d00_0000);
        let c = &mut chance;
        let unit = if c.one_in(8) {
            10 * MILLI
        } else {
            c.pick(&[50, 200, 500, 2_000]) * MICRO
        };
        let node_count = c.pick(&[1, 3, 3, 3, 3, 3, 4, 5, 5, 5, 6, 7]);
        let mut swarm = Self::drawn(seed, node_count, unit, 1, c);
        swarm.burst_span = Nanos(c.between(400, 1_600) * MILLI);
        swarm.burst_every = swarm.burst_span;
        swarm.fault_span = swarm.burst_span;
        swarm.fault_count = c.pick(&[0, 2, 5, 10, 20, 40]);
        if swarm.relay > 0 {
            swarm.make_room();
        }
        if c.one_in(100) {
            swarm.make_large(c);
        } else {
            swarm.maybe_make_tight();
            swarm.maybe_make_trimmed();
        }
        swarm
    }

    /// The options of a whole seed: ten minutes, most of them quiet, with bursts of faults and load,
    /// more than fifty faults and more than two thousand appends in all. In most, nodes are farther
    /// from each other than in a quick one: a heartbeat costs what it costs, and there are few only
    /// where they travel far. One of eighty clusters is near together all the same.
    #[must_use]
    pub fn whole(seed: u64) -> Self {
        let mut chance = Chance::new(seed ^ 0x5357_4152_4d57_4f4c);
        let c = &mut chance;
        let unit = match c.below(400) {
            0 => 2,
            1..=4 => 10,
            5..=24 => 50,
            25..=64 => 100,
            65..=144 => 200,
            _ => 320,
        };
        // Heartbeats go from each to each.
        let node_count = match c.below(60) {
            _ if unit <= 100 => 3,
            0 => 7,
            1 => 6,
            2..=5 => 5,
            6..=10 => 4,
            _ => 3,
        };
        let (unit, stretch) = (unit * MILLI, (unit / 2).min(75));
        let mut swarm = Self::drawn(seed, node_count, unit, stretch, c);
        swarm.delay_spread = Nanos(c.pick(&[0, unit / 4, unit]));
        let burst_count = c.between(4, 6);
        swarm.fault_span = Nanos(600_000 * MILLI);
        swarm.burst_every = Nanos(swarm.fault_span.0 / burst_count);
        swarm.burst_span = Nanos(swarm.patience().0 * c.between(4, 10));
        swarm.quota = 2_000 / burst_count + 20;
        // What only passes the time passes it in larger steps, as all else here is slower.
        swarm.turn_span = Nanos(swarm.turn_span.0 * stretch);
        swarm.sleep_span = Nanos(1_000 * MILLI);
        swarm.redial_span = Nanos(3_000 * MILLI);
        swarm.fault_count = 14;
        // Enough in flight for the quota, and not more bytes than it takes.
        swarm.producer_count = c.between(2, 4) as usize;
        swarm.window = c.between(6, 8) as usize;
        swarm.volley = c.pick(&[1, 4, 8, 8]);
        let append_span = swarm.burst_span.0 * swarm.producer_count as u64;
        swarm.append_every = Nanos(append_span / swarm.quota);
        swarm.record_count_max = c.pick(&[1, 3, 10]);
        swarm.record_size_max = c.pick(&[20, 200, 1_000]);
        swarm.maybe_make_trimmed();
        swarm
    }

    /// The faults of the run, in the order in which they come.
    #[must_use]
    pub fn faults(&self) -> Vec<Fault> {
        let bursts = schedule::bursts(self).into_iter();
        let planned = bursts.flat_map(|burst| burst.faults);
        planned
            .map(|fault| Fault {
                number: fault.number,
                at: fault.at,
                kind: fault.kind.to_string(),
            })
            .collect()
    }

    /// Faults that the run has, or would have without those left out; they are counted from 1.
    #[must_use]
    pub fn fault_number_max(&self) -> u32 {
        let burst_count = schedule::bursts(self).len() as u32;
        burst_count * self.fault_count
    }

    /// The options of a seed as a campaign plays it: whole, but quick for one of five. Those have
    /// what is too dear or too seldom in ten minutes: fast networks, single nodes, largest records.
    #[must_use]
    pub fn mixed(seed: u64) -> Self {
        if Chance::new(seed ^ 0x5357_4152_4d4d_4958).one_in(5) {
            Self::new(seed)
        } else {
            Self::whole(seed)
        }
    }

    /// How long nodes wait for a leader on such a network, roughly.
    pub(super) fn patience(&self) -> Nanos {
        let round_trip = 2 * (self.delay.0 + self.delay_spread.0);
        Nanos((10 * round_trip).clamp(30 * MILLI, PATIENCE_MAX.0))
    }

    /// A relay takes two elections, and what comes between may end it: most faults are relays then,
    /// of which one at a time is under way.
    fn make_room(&mut self) {
        self.relay *= 8;
        self.fault_count = self.fault_count.min(10);
        self.burst_span = self.burst_span.max(Nanos(1_200 * MILLI));
        (self.burst_every, self.fault_span) = (self.burst_span, self.burst_span);
    }

    /// Records near the limit, in memory that just takes them.
    fn make_large(&mut self, chance: &mut Chance) {
        // Each of their disks takes some hundred megabytes.
        self.node_count = self.node_count.min(3);
        self.group_count = 1;
        self.shape = shape(chance, 1, true);
        self.record_count_max = 1;
        self.record_size_max = RECORD_SIZE_MAX as u64 - 64;
        self.append_every = Nanos(10 * MILLI);
        self.read_every = self.read_every.max(Nanos(20 * MILLI));
        self.fault_count = self.fault_count.min(10);
        self.window = self.window.min(3);
        self.client_patience = self.client_patience.max(Nanos(300 * MILLI));
    }

    /// So much to append that journals are full as soon as segments take nothing: what is decided
    /// fills them then, and after a restart nobody knows that it is.
    fn maybe_make_tight(&mut self) {
        // By itself: what a seed is otherwise hangs on the order of the draws.
        let chance = &mut Chance::new(self.seed ^ 0x5449_4748_5400_0000);
        if !chance.one_in(12) {
            return;
        }
        self.squeeze = 3;
        self.full_span = Nanos(chance.between(200, 500) * MILLI);
        self.fault_count = self.fault_count.max(5);
        self.burst_span = self.burst_span.max(Nanos(1_000 * MILLI));
        (self.burst_every, self.fault_span) = (self.burst_span, self.burst_span);
        (self.producer_count, self.window) = (4, 8);
        (self.record_count_max, self.record_size_max) = (20, 2_000);
        self.append_every = Nanos(200 * MICRO);
    }

    /// Logs that lose their beginnings, by decision of a client or of their leaders. Segments are so
    /// small that whoever is away for a while finds that what he lacks is gone.
    fn maybe_make_trimmed(&mut self) {
        let chance = &mut Chance::new(self.seed ^ 0x5452_494d_5300_0000);
        if !chance.one_in(8) {
            return;
        }
        let who = chance.below(3);
        if who != 0 {
            self.trim_per_mille = chance.pick(&[50, 200, 600]);
        }
        if who != 1 {
            self.retained_size = chance.pick(&[1, 16 << 10, 64 << 10]);
        }
        if chance.one_in(4) {
            return;
        }
        self.shape.segment_write_size = chance.pick(&[4 << 10, 16 << 10, 32 << 10]);
        self.shape.segment_size_max = chance.pick(&[8 << 10, 32 << 10, 96 << 10]);
        self.record_size_max = self.record_size_max.max(chance.pick(&[500, 2_000]));
        self.record_count_max = self.record_count_max.max(3);
        self.crash += chance.between(2, 8) as u32;
        self.crash_twice += 1;
        self.partition += 2;
        // Away for so long that others write whole segments.
        let away = Nanos(self.burst_span.0 / 4);
        self.restart_span = self.restart_span.max(away);
        self.partition_span = self.partition_span.max(away);
        self.fault_count = self.fault_count.max(5);
    }

    /// Options for a network with ways of about `unit`, where all that is wrong lasts `stretch` times
    /// as long.
    fn drawn(seed: u64, node_count: usize, unit: u64, stretch: u64, c: &mut Chance) -> Self {
        let some = |c: &mut Chance, one_in: u64, low: u64, high: u64| {
            if c.one_in(one_in) {
                c.between(low, high) as u32
            } else {
                0
            }
        };
        let span =
            |c: &mut Chance, low: u64, high: u64| Nanos(c.between(low, high) * MILLI * stretch);
        // By itself: what a seed is otherwise hangs on the order of the draws.
        let later = &mut Chance::new(seed ^ 0x4c41_5445_5200_0000);
        let quick = c.one_in(4);
        let group_count = c.pick(&[1, 1, 2, 3]);
        Self {
            seed,
            node_count,
            group_count,
            producer_count: c.between(1, 4) as usize,
            reader_count: c.between(1, 3) as usize,
            fault_span: Nanos(0),
            burst_every: Nanos(0),
            burst_span: Nanos(0),
            fault_count: 0,
            skipped: Vec::new(),
            quota: 0,
            shape: shape(c, group_count, false),

            delay: Nanos(unit / 2),
            delay_spread: Nanos(c.pick(&[0, unit / 4, unit, 4 * unit])),
            tail: Nanos(c.pick(&[0, 0, 0, unit / 2, 2 * unit])),
            slow_per_mille: some(c, 3, 1, 30),
            slow_span: span(c, 5, 300),
            drop_per_mille: some(c, 2, 1, 60),
            duplicate_per_mille: some(c, 2, 1, 60),
            reorder_per_mille: some(c, 2, 1, 100),
            split_per_mille: some(c, 2, 1, 100),
            corrupt_per_mille: some(c, 4, 1, 20),
            queue_size_max: c.pick(&[8 << 10, 64 << 10, 16 << 20, 16 << 20, 16 << 20]),
            client_faults: c.one_in(3),
            retransmit: c.one_in(2),

            partition: some(c, 2, 1, 4),
            partition_span: span(c, 5, 500),
            one_way: some(c, 3, 1, 3),
            graph: some(c, 3, 1, 3),
            flap: some(c, 4, 1, 2),
            clog: some(c, 4, 1, 3),
            slow_receiver: some(c, 4, 1, 2),
            reset: some(c, 3, 1, 4),
            half_open: some(c, 4, 1, 3),
            turn_away: some(later, 4, 1, 3),

            crash: some(c, 2, 1, 4),
            crash_all: some(c, 5, 1, 1),
            crash_twice: some(c, 4, 1, 2),
            crash_at_completion: some(c, 3, 1, 3),
            stop: some(later, 4, 1, 3),
            calm_stop: later.one_in(4),
            restart_span: span(c, 1, 200),
            power_per_mille: c.pick(&[0, 300, 1000]),
            stall: some(c, 3, 1, 3),
            stall_span: span(c, 5, 400),
            freeze: some(c, 4, 1, 2),
            starve: some(c, 5, 1, 2),
            clock_jump: some(c, 5, 1, 2),
            drift: c.pick(&[0, 1, 10, 200]),
            turn_span: Nanos(c.between(10, 200) * MICRO),
            sleep_span: Nanos(100 * MILLI),
            redial_span: Nanos(200 * MILLI),

            store_delay: Nanos(c.pick(&[50, 150, 1_000]) * MICRO),
            store_spread: Nanos(c.pick(&[50, 500, 5_000]) * MICRO),
            stuck_per_mille: some(c, 3, 1, 20),
            stuck_span: span(c, 10, 200),
            full: some(c, 5, 1, 2),
            full_span: span(c, 20, 400),
            squeeze: 0,
            disk_error: some(c, 4, 1, 2),
            disk_stall: some(c, 4, 1, 2),
            damage: some(c, 4, 1, 2),
            rot: some(later, 4, 1, 3),
            relay: some(&mut Chance::new(seed ^ 0x5245_4c41_5900_0000), 6, 1, 3),
            damage_last: false,
            segment_damage: Chance::new(seed ^ 0x5345_474d).one_in(4),
            ruin: later.one_in(4),
            is_watched: later.one_in(16),

            append_every: Nanos(if quick {
                200 * MICRO
            } else {
                c.between(1, 10) * MILLI
            }),
            quiet_append_every: Nanos(c.between(5_000, 60_000) * MILLI),
            volley: 1,
            window: c.between(1, 8) as usize,
            record_count_max: c.pick(&[1, 3, 20]),
            record_size_max: c.pick(&[20, 200, 2_000]),
            client_patience: span(c, 20, 300),
            epoch_per_mille: some(c, 3, 1, 30),
            replace_per_mille: some(c, 3, 100, 1000),
            read_every: span(c, 2, 30),
            transfer_per_mille: some(c, 3, 5, 100),
            trim_per_mille: 0,
            retained_size: 0,
            check_all: c.one_in(16),
        }
    }
}

// One record and what a producer puts before it make an append.
const _: () = assert!(RECORD_SIZE_MAX + 64 <= APPEND_PAYLOAD_SIZE_MAX);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_campaign_is_most_of_it_whole() {
        let is_quick = |seed: &u64| Swarm::mixed(*seed) == Swarm::new(*seed);
        let quick_count = (0..1_000).filter(is_quick).count();
        assert!((150..250).contains(&quick_count), "{quick_count}");
        for seed in (0..1_000).filter(|seed| !is_quick(seed)) {
            let swarm = Swarm::mixed(seed);
            assert_eq!(swarm, Swarm::whole(seed));
            let bursts = swarm.fault_span.0.div_ceil(swarm.burst_every.0);
            assert!(swarm.fault_span >= Nanos(600_000 * MILLI));
            assert!((3..=7).contains(&swarm.node_count));
            assert!(bursts * swarm.quota >= 2_000);
            assert!(bursts * u64::from(swarm.fault_count) >= 50);
        }
    }
}
