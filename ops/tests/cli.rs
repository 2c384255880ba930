//! Help, usage errors and exit codes as transcripts, for command lines that need no cluster.
//!
//! `TRYCMD=overwrite cargo test -p ringwood --test cli` rewrites them; the diff is the review.

use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

#[test]
fn transcripts() {
    trycmd::TestCases::new()
        // Nothing listens on port 1.
        .env("RINGWOOD_ENDPOINTS", "127.0.0.1:1")
        .case("tests/cmd/*.trycmd");
}

#[test]
fn a_campaign_that_is_interrupted_says_how_far_it_came() {
    let mut campaign = Command::new(env!("CARGO_BIN_EXE_ringwood"))
        .args([
            "sim",
            "--seeds",
            "1000000",
            "--quick",
            "--threads",
            "1",
            "-o",
            "json",
        ])
        .stdout(Stdio::piped())
        .spawn()
        .expect("the binary starts");
    let begun = Instant::now();
    while !catches_interrupts(&campaign) {
        assert_eq!(campaign.try_wait().expect("our child"), None, "it ended");
        assert!(begun.elapsed() < Duration::from_secs(60), "never listens");
        thread::sleep(Duration::from_millis(5));
    }
    kill_process(Pid::from_child(&campaign), Signal::INT).expect("it lives");
    let output = campaign.wait_with_output().expect("our child");
    assert_eq!(output.status.code(), Some(130));
    let document: Value = serde_json::from_slice(&output.stdout).expect("a document");
    let seed_count = document["seeds"].as_str().map(str::parse::<u64>);
    assert!(matches!(seed_count, Some(Ok(0..1_000_000))), "{document}");
    assert_eq!(document["failure"], Value::Null);
}

/// Whether a process has a handler for Ctrl-C, as the kernel sees it.
fn catches_interrupts(process: &Child) -> bool {
    let path = format!("/proc/{}/status", process.id());
    let status = std::fs::read_to_string(path).expect("it was not waited for");
    let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
    let caught = u64::from_str_radix(caught.expect("a line of it").trim(), 16);
    caught.expect("hexadecimal") & 1 << (Signal::INT.as_raw() - 1) != 0
}
