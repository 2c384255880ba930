//! The searches: where each begins, what may happen in it, and how many states it must see.

use super::cluster::Budget;
use super::search::Bounds;
use super::starts::Start;

/// One search.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) start: Start,
    pub(crate) bounds: Bounds,
    /// States within the bounds, at least: what a search that came to its end must have seen.
    pub(crate) states_min: usize,
}

/// Nothing may happen but deliveries and what timers do to leaders.
pub(crate) const NOTHING: Budget = Budget {
    elections: 0,
    proposals: 0,
    crashes: 0,
    duplicates: 0,
    transfers: 0,
    beats: 0,
    resends: 0,
    reads: 0,
    shortages: 0,
    damages: 0,
    asks: 0,
};

const BOUNDS: Bounds = Bounds {
    term_max: 3,
    last_max: 4,
    wires_max: 4,
    runs_max: 0,
    budget: NOTHING,
};

pub(crate) const CASES: [Case; 17] = [
    Case {
        name: "first: one election, one block",
        start: Start::Fresh,
        bounds: Bounds {
            wires_max: 3,
            budget: Budget {
                elections: 1,
                proposals: 1,
                duplicates: 1,
                ..NOTHING
            },
            ..BOUNDS
        },
        states_min: 278_000,
    },
    Case {
        name: "votes: slow disks, two elections, a crash",
        start: Start::Fresh,
        bounds: Bounds {
            runs_max: 1,
            budget: Budget {
                elections: 2,
                crashes: 1,
                ..NOTHING
            },
            ..BOUNDS
        },
        states_min: 600_000,
    },
    Case {
        name: "rivals: three elections, answers twice",
        start: Start::Fresh,
        bounds: Bounds {
            wires_max: 3,
            budget: Budget {
                elections: 3,
                duplicates: 1,
                ..NOTHING
            },
            ..BOUNDS
        },
        states_min: 600_000,
    },
    Case {
        name: "replication: slow disks, blocks in flight, a crash",
        start: Start::Led,
        bounds: Bounds {
            runs_max: 2,
            budget: Budget {
                proposals: 2,
                crashes: 1,
                beats: 1,
                duplicates: 1,
                ..NOTHING
            },
            ..BOUNDS
        },
        states_min: 600_000,
    },
    Case {
        name: "succession: the next leader, a crash",
        start: Start::Led,
        bounds: Bounds {
            budget: Budget {
                elections: 1,
                proposals: 1,
                crashes: 1,
                ..NOTHING
            },
            ..BOUNDS
        },
        states_min: 600_000,
    },
    Case {
        name: "slow succession: the same on slow disks",
        start: Start::Led,
        bounds: Bounds {
            runs_max: 1,
            budget: Budget {
                elections: 1,
                proposals: 1,
                crashes: 1,
                ..NOTHING
            },
            ..BOUNDS
        },
        states_min: 600_000,
    },
    Case {
        name: "transfer: handed over, or given up",
        start: Start::Led,
        bounds: Bounds {
            budget: Budget {
                elections: 1,
                proposals: 1,
                transfers: 1,
                ..NOTHING
            },
            ..BOUNDS
        },
        states_min: 600_000,
    },
    Case {
        name: "conflict: a deposed leader's blocks, sent again and twice",
        start: Start::Parted,
        bounds: Bounds {
            budget: Budget {
                elections: 1,
                duplicates: 1,
                resends: 2,
                ..NOTHING
            },
            ..BOUNDS
        },
        states_min: 600_000,
    },
    Case {
        name: "back-off: a deposed leader's blocks, and nobody runs",
        start: Start::Parted,
        bounds: Bounds {
            budget: Budget {
                beats: 1,
                resends: 2,
                ..NOTHING
            },
            ..BOUNDS
        },
        states_min: 600_000,
    },
    Case {
        name: "cut: conflicts on slow disks, a crash",
        start: Start::Parted,
        bounds: Bounds {
            runs_max: 2,
            budget: Budget {
                crashes: 1,
                beats: 1,
                resends: 2,
                ..NOTHING
            },
            ..BOUNDS
        },
        states_min: 600_000,
    },
    Case {
        name: "reads: two of a leader's, and the next leader",
        start: Start::Led,
        bounds: Bounds {
            budget: Budget {
                elections: 1,
                reads: 2,
                ..NOTHING
            },
            ..BOUNDS
        },
        states_min: 600_000,
    },
    Case {
        name: "late reads: a deposed leader's, answers twice",
        start: Start::Parted,
        bounds: Bounds {
            budget: Budget {
                reads: 2,
                duplicates: 1,
                ..NOTHING
            },
            ..BOUNDS
        },
        states_min: 600_000,
    },
    Case {
        name: "shortage: blocks cut short for want of room",
        start: Start::Parted,
        bounds: Bounds {
            budget: Budget {
                proposals: 1,
                resends: 2,
                shortages: 2,
                ..NOTHING
            },
            ..BOUNDS
        },
        states_min: 600_000,
    },
    Case {
        name: "figure 8: older terms' blocks on a majority",
        start: Start::Figure8,
        bounds: Bounds {
            term_max: 4,
            wires_max: 3,
            budget: Budget {
                elections: 1,
                resends: 1,
                ..NOTHING
            },
            ..BOUNDS
        },
        states_min: 600_000,
    },
    Case {
        name: "loss: a disk loses a block or a vote, and the next leader",
        start: Start::Led,
        bounds: Bounds {
            budget: Budget {
                elections: 1,
                proposals: 1,
                damages: 1,
                asks: 1,
                ..NOTHING
            },
            ..BOUNDS
        },
        states_min: 600_000,
    },
    Case {
        name: "amnesia: the same in the first elections",
        start: Start::Fresh,
        bounds: Bounds {
            budget: Budget {
                elections: 2,
                damages: 1,
                asks: 1,
                ..NOTHING
            },
            ..BOUNDS
        },
        states_min: 600_000,
    },
    Case {
        name: "losses: two disks, one after the other",
        start: Start::Parted,
        bounds: Bounds {
            budget: Budget {
                elections: 1,
                damages: 2,
                asks: 2,
                beats: 1,
                resends: 1,
                ..NOTHING
            },
            ..BOUNDS
        },
        states_min: 600_000,
    },
];
