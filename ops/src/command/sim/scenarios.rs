//! Stories of whole clusters that are told by scripts: their list, and the playing of one.
//!
//! A script and its transcript are `ringwood_core::sim::scenario`'s; here they are found and printed.

use std::fs;
use std::io::{self, BufWriter, Write};

use ringwood_core::sim::scenario::{self, Scenario};
use serde::Serialize;

use super::story::Story;
use crate::exit::{Exit, Failure};
use crate::output::{self, Output};
use crate::panics;

#[derive(Serialize)]
struct ListDocument {
    schema: &'static str,
    scenarios: Vec<ListedScenario>,
}

#[derive(Serialize)]
struct ListedScenario {
    name: &'static str,
    title: &'static str,
    has_foil: bool,
}

#[derive(Serialize)]
struct ScenarioDocument {
    schema: &'static str,
    name: String,
    transcript: String,
    foil: Option<&'static str>,
    failure: Option<String>,
}

/// Prints what there is to tell.
pub(super) fn list(output: Output) -> Result<Exit, Failure> {
    let _ = match output {
        Output::Json => {
            let listed = scenario::list().iter().map(|scenario| ListedScenario {
                name: scenario.name,
                title: scenario.title(),
                has_foil: scenario.foil.is_some(),
            });
            output::print_json(&ListDocument {
                schema: "ringwood.scenarios/v1",
                scenarios: listed.collect(),
            })?
        }
        Output::Table => {
            let mut table = output::table(&["SCENARIO", "WHAT IT TELLS"]);
            for scenario in scenario::list() {
                table.add_row([scenario.name, scenario.title()]);
            }
            output::print(&output::table_text(&mut table))?
        }
    };
    Ok(Exit::Ok)
}

/// Plays the scenario of that name, or the script in the file of that name.
pub(super) fn play(name: &str, is_traced: bool, output: Output) -> Result<Exit, Failure> {
    let known = Scenario::find(name);
    let script = match known {
        Some(scenario) => scenario.script.to_owned(),
        None => fs::read_to_string(name).map_err(|error| {
            Failure::new(
                Exit::Usage,
                format!("no scenario '{name}', nor a script: {error}"),
            )
            .fix("see 'ringwood sim --list', or name a file")
        })?,
    };
    if is_traced {
        return tell(&script);
    }
    let played = panics::expected(|| scenario::play(&script, None));
    let (transcript, failure) = match played {
        Ok(played) => (played.text, None),
        Err(failure) => (failure.told.clone(), Some(failure.to_string())),
    };
    let foil = known.and_then(|scenario| scenario.foil);
    let exit = if failure.is_none() {
        Exit::Ok
    } else {
        Exit::Internal
    };
    let _ = match output {
        Output::Json => output::print_json(&ScenarioDocument {
            schema: "ringwood.scenario/v1",
            name: name.to_owned(),
            transcript,
            foil,
            failure,
        })?,
        Output::Table => {
            let foil = foil.map_or(String::new(), |foil| format!("\n{foil}"));
            let failure = failure.map_or(String::new(), |failure| format!("\n{failure}\n"));
            output::print(&format!("{transcript}{foil}{failure}"))?
        }
    };
    Ok(exit)
}

/// Plays a script and prints everything that happens, a line an event.
fn tell(script: &str) -> Result<Exit, Failure> {
    let mut out = BufWriter::new(io::stdout().lock());
    let mut story = Story::new(0);
    let mut result = Ok(());
    let mut tell = |record: &ringwood_core::sim::Record<'_>| {
        let line = story.line(record);
        if result.is_ok() {
            result = writeln!(out, "{line}");
        }
    };
    let played = panics::expected(|| scenario::play(script, Some(&mut tell)));
    let ended = result.and_then(|()| match &played {
        Ok(_) => Ok(()),
        Err(failure) => writeln!(out, "\n{failure}"),
    });
    let _ = output::written(ended.and_then(|()| out.flush()))?;
    Ok(if played.is_ok() {
        Exit::Ok
    } else {
        Exit::Internal
    })
}
