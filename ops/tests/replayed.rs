//! What `sim` tells of a run that breaks: on purpose, by a bug that somebody had.
//!
//! The story is in a file, as described; and the command that is printed plays the run again.

use std::process::{Command, Output};

use serde_json::Value;

fn ringwood(args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringwood"));
    command.args(args).output().expect("it starts")
}

#[test]
fn the_printed_command_plays_a_failure_again() {
    for bug in ["B24", "B50"] {
        let args = [
            "sim", "--seeds", "200", "--seed", "1", "--bug", bug, "-o", "json",
        ];
        let output = ringwood(&args);
        assert_eq!(output.status.code(), Some(1), "{bug} breaks something");
        let told: Value = serde_json::from_slice(&output.stdout).expect("a document");
        let failure = &told["failure"];
        let invariant = failure["invariant"].as_str().expect("a sentence");
        let path = failure["trace"].as_str().expect("a file");
        let trace = std::fs::read_to_string(path).expect("the story was kept");
        let lines: Vec<Value> = trace
            .lines()
            .map(|line| serde_json::from_str(line).expect("JSON lines"))
            .collect();
        assert_eq!(lines[0]["schema"], "ringwood.trace/v1");
        assert!(failure["faults"].is_array(), "the schedule that is left");
        let last = lines.last().expect("a story has an end");
        assert_eq!(last["kind"], "broken");
        assert_eq!(last["text"], invariant);
        assert_eq!(last["event"], failure["event"]);

        let again = failure["again"].as_str().expect("a command");
        let args: Vec<&str> = again.split_whitespace().skip(1).collect();
        let output = ringwood(&args);
        assert_eq!(output.status.code(), Some(1), "{again}");
        let text = String::from_utf8(output.stdout).expect("text");
        let broken = text.lines().rev().find(|line| line.starts_with("broken: "));
        let broken = broken.expect("the end of the story");
        assert!(
            broken.contains(&format!(": {invariant}")),
            "{again}\ntold {broken}, not {invariant}"
        );
        // Without the bug the same run holds.
        let without = args.iter().position(|arg| *arg == "--bug").expect("named");
        let mut sound = args.clone();
        sound.drain(without..without + 2);
        assert_eq!(ringwood(&sound).status.code(), Some(0), "{sound:?}");
        std::fs::remove_file(path).expect("it was there");
    }
}
