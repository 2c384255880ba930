//! The blind search: seed after seed until a switch is caught, or the time is over.

use std::sync::Mutex;
use std::time::Duration;

use ringwood_core::bugs::Switch;

use crate::instrument::{self, Instrument, cpu_time};
use crate::record::{self, Record};

/// A bug that takes longer is a hole in the instrument.
const BLIND_SECONDS_MAX: u64 = 120;

struct Search {
    switch: Switch,
    instrument: Instrument,
    seed_count: u64,
    spent: Duration,
    found: Option<Record>,
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

pub(crate) fn is_wanted() -> bool {
    variable("BUGS_SEARCH").is_some() || variable("BUGS_RECORD").is_some()
}

/// Searches for every switch, prints the table, and records if that is wanted.
pub(crate) fn search() {
    let first = variable("BUGS_RECORD").or(variable("BUGS_SEARCH"));
    let first: u64 = first.and_then(|first| first.parse().ok()).unwrap_or(1);
    let patience = variable("BUGS_SECONDS").map(|text| text.parse().expect("seconds"));
    let patience = Duration::from_secs(patience.unwrap_or(BLIND_SECONDS_MAX));
    let switches: Vec<Switch> = match variable("BUGS_ONLY") {
        Some(names) => names.split(',').map(record::switch).collect(),
        None => instrument::simulated().collect(),
    };
    println!("| switch | instrument | seeds | CPU s | what is broken |");
    println!("| --- | --- | ---: | ---: | --- |");
    let searches = in_parallel(&switches, |switch| {
        let search = Search::run(*switch, first, patience);
        search.print();
        if variable("BUGS_RECORD").is_some() {
            record::write(search.found.as_ref());
        }
        search
    });
    let missed: Vec<Switch> = searches
        .iter()
        .filter(|search| search.found.is_none())
        .map(|search| search.switch)
        .collect();
    assert!(missed.is_empty(), "never caught: {missed:?}");
}

impl Search {
    fn run(switch: Switch, first: u64, patience: Duration) -> Self {
        let instrument = variable("BUGS_WITH").map(|name| Instrument::named(&name));
        let instrument = instrument.or(Instrument::of(switch));
        let instrument = instrument.expect("not one of the client's");
        let began = cpu_time();
        let mut search = Self {
            switch,
            instrument,
            seed_count: 0,
            spent: Duration::ZERO,
            found: None,
        };
        while search.found.is_none() && search.spent < patience {
            let seed = first + search.seed_count;
            search.seed_count += 1;
            if let Err(broken) = instrument.play(seed, Some(switch)) {
                let sound = instrument.play(seed, None);
                assert_eq!(sound, Ok(()), "seed {seed} fails without any bug");
                search.found = Some(Record {
                    switch,
                    instrument,
                    seed,
                    broken,
                });
            }
            search.spent = cpu_time() - began;
        }
        search
    }

    fn print(&self) {
        let Self {
            switch,
            instrument,
            seed_count,
            spent,
            found,
        } = self;
        let broken = found.as_ref().map_or("nothing", |found| &found.broken);
        let spent = spent.as_secs_f64();
        println!("| {switch:?} | {instrument:?} | {seed_count} | {spent:.1} | {broken} |");
    }
}

/// Does something with each, on as many threads as there are processors; answers keep the order.
pub(crate) fn in_parallel<T: Sync, R: Send>(list: &[T], act: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let next = Mutex::new(0..list.len());
    let done = Mutex::new(Vec::with_capacity(list.len()));
    let thread_count = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..thread_count {
            scope.spawn(|| {
                loop {
                    let position = next.lock().expect("nobody panics here").next();
                    let Some(position) = position else { return };
                    let result = act(&list[position]);
                    done.lock()
                        .expect("nobody panics here")
                        .push((position, result));
                }
            });
        }
    });
    let mut done = done.into_inner().expect("nobody panics here");
    done.sort_by_key(|(position, _)| *position);
    done.into_iter().map(|(_, result)| result).collect()
}
