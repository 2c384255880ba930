//! The recorded seeds: a line for each switch, what catches it and what it breaks.

use std::sync::Mutex;

use ringwood_core::bugs::Switch;

use crate::instrument::Instrument;

const PATH: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/bugs/seeds.txt");

const HEAD: &str = "\
# Seeds that catch each bug: switch, instrument, seed, what is broken. Written by BUGS_RECORD=first,
# see core/tests/bugs/main.rs. After a change to a simulator a seed is another run: record anew.
";

/// One seed.
#[derive(Clone, Debug)]
pub(crate) struct Record {
    pub(crate) switch: Switch,
    pub(crate) instrument: Instrument,
    pub(crate) seed: u64,
    pub(crate) broken: String,
}

/// The switch of that name.
pub(crate) fn switch(name: &str) -> Switch {
    let found = Switch::ALL
        .iter()
        .find(|known| format!("{known:?}") == name);
    *found.unwrap_or_else(|| panic!("no switch is named {name}"))
}

pub(crate) fn read() -> Vec<Record> {
    let text = std::fs::read_to_string(PATH).expect("seeds.txt is there");
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines.map(parse).collect()
}

fn parse(line: &str) -> Record {
    let words: Vec<&str> = line.splitn(4, ' ').collect();
    let [name, instrument, seed, broken] = words[..] else {
        panic!("four columns: {line}");
    };
    Record {
        switch: switch(name),
        instrument: Instrument::named(instrument),
        seed: seed.parse().expect("a seed"),
        broken: broken.to_owned(),
    }
}

/// Writes a record, and keeps those of other switches.
pub(crate) fn write(found: Option<&Record>) {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _guard = ONE_AT_A_TIME.lock().expect("nobody panics here");
    let is_new = |old: &Record| found.is_none_or(|new| new.switch != old.switch);
    let mut records: Vec<Record> = match std::fs::exists(PATH) {
        Ok(true) => read().into_iter().filter(is_new).collect(),
        _ => Vec::new(),
    };
    records.extend(found.cloned());
    records.sort_by_key(|record| record.switch);
    let mut text = HEAD.to_owned();
    for Record {
        switch,
        instrument,
        seed,
        broken,
    } in records
    {
        let instrument = format!("{instrument:?}").to_lowercase();
        text += &format!("{switch:?} {instrument} {seed} {broken}\n");
    }
    std::fs::write(PATH, text).expect("seeds.txt can be written");
}
