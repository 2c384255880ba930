//! Scenarios: whole clusters under a script read as written, and so does their foil.
//!
//! `RINGWOOD_REWRITE=1` writes the transcripts anew; read the diff. `RINGWOOD_SCENARIO=name` plays
//! one and prints its trace.

use std::path::{Path, PathBuf};

use ringwood_core::sim::scenario::{self, Scenario};
use ringwood_core::sim::{Record, Sink};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios")
}

/// Compares a file with what it should be, or writes it. Says where they first differ.
fn compare(path: &Path, is: &str) -> Option<String> {
    // Read now, not as it was when this was compiled: a rewrite must not need two rounds.
    let was = std::fs::read_to_string(path).expect("a scenario's file");
    if was == is {
        return None;
    }
    if std::env::var_os("RINGWOOD_REWRITE").is_some() {
        std::fs::write(path, is).expect("the file can be written");
        return None;
    }
    let same = was
        .lines()
        .zip(is.lines())
        .take_while(|(was, is)| was == is);
    let at = same.count();
    let (was, is) = (was.lines().nth(at), is.lines().nth(at));
    Some(format!(
        "{}:{}\n  was {was:?}\n  is  {is:?}",
        path.display(),
        at + 1
    ))
}

fn read(scenario: &Scenario) -> (PathBuf, String) {
    let path = folder().join(scenario.name).with_extension("txt");
    let script = std::fs::read_to_string(&path).expect("a scenario's file");
    (path, script)
}

#[test]
fn stories_read_as_written() {
    let only = std::env::var("RINGWOOD_SCENARIO").ok();
    let mut changed = Vec::new();
    for scenario in scenario::list() {
        if only.as_ref().is_some_and(|only| only != scenario.name) {
            continue;
        }
        let (path, script) = read(scenario);
        assert!(script.starts_with("# "), "{path:?} begins with its story");
        let mut print = |record: &Record<'_>| println!("{record}");
        let sink: Option<Sink<'_>> = only.as_ref().map(|_| &mut print as Sink<'_>);
        match scenario::play(&script, sink) {
            Ok(played) => changed.extend(compare(&path, &played.text)),
            Err(failure) => {
                let told = &failure.told;
                changed.push(format!("{}: {failure}, after\n{told}", path.display()));
            }
        }
    }
    assert!(
        changed.is_empty(),
        "told otherwise:\n{}",
        changed.join("\n")
    );
}

#[test]
fn bullies_have_two_leaders_and_lose_what_they_acknowledged() {
    let mut changed = Vec::new();
    let mut count = 0;
    for scenario in scenario::list().iter().filter(|at| at.foil.is_some()) {
        let (_, script) = read(scenario);
        let played = scenario::play_foil(&script).expect("bullies can be played");
        assert!(played.two_leaders, "{}: one leader only", scenario.name);
        assert!(played.lost_count > 0, "{}: nothing is lost", scenario.name);
        let path = folder().join("bully").join(scenario.name);
        changed.extend(compare(&path.with_extension("txt"), &played.text));
        count += 1;
    }
    assert!(count >= 3, "the foil is told of");
    assert!(
        changed.is_empty(),
        "told otherwise:\n{}",
        changed.join("\n")
    );
}

#[test]
fn every_script_is_in_the_list() {
    for (folder, is_listed) in [
        (folder(), (|_| true) as fn(&Scenario) -> bool),
        (folder().join("bully"), |scenario| scenario.foil.is_some()),
    ] {
        for entry in std::fs::read_dir(folder).expect("the scripts are there") {
            let path = entry.expect("a file").path();
            let name = path
                .file_stem()
                .expect("a name")
                .to_string_lossy()
                .into_owned();
            let found = Scenario::find(&name).is_some_and(is_listed);
            assert!(path.is_dir() || found, "{path:?} is in no list");
        }
    }
}
