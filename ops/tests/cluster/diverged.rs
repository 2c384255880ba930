//! A node with another history than the others, every sum of it right: the directory of a cluster that
//! went on otherwise from the same beginning, let in by an operator. The others find it out and go on,
//! it stops that log, and it stays so until it has another directory.

use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Signal, kill_process};
use serde_json::Value;

use crate::{Dev, PATIENCE, feed, ringwood, stderr, tempdir};

/// More than what makes a log write a segment, and so say in a checkpoint what is decided.
const SIZE: [&str; 2] = ["--size", "4KiB"];

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("room");
    for entry in fs::read_dir(from).expect("a directory") {
        let entry = entry.expect("a name");
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        if from.is_dir() {
            copy(&from, &to);
        } else {
            fs::copy(&from, &to).expect("room");
        }
    }
}

/// The cluster goes on: it starts, takes so many records, and is killed once all nodes have all of it.
/// In a stop of its own leaders would step down one by one, and leave blocks that only some have. Gives
/// the logs' terms.
fn live(home: &Path, count: u64) -> Vec<u64> {
    let dev = Dev::start(home, &[]);
    let count = count.to_string();
    let append = [&["append", "log-0", "--count", &count][..], &SIZE].concat();
    let appended = dev.run(&append);
    assert_eq!(appended.status.code(), Some(0), "{}", stderr(&appended));
    let status = await_complete(&dev, 3);
    assert_eq!(dev.end(Signal::KILL), None);
    let logs = status["logs"].as_array().expect("a list");
    let term = |log: &Value| log["term"].as_str()?.parse().ok();
    let terms: Option<_> = logs.iter().map(term).collect();
    terms.expect("each log has a term")
}

fn unpin(home: &Path, node: &str, other: &str) {
    let dir = home.join(node);
    let mut command = ringwood("");
    let output = feed(command.arg("unpin").arg(dir).args(["--node", other]), b"");
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
}

/// What a replica of log-0 does.
fn state(status: &Value, node: usize) -> &str {
    status["logs"][0]["replicas"][node]["state"]
        .as_str()
        .unwrap_or("?")
}

fn alarms(status: &Value, node: usize) -> String {
    status["nodes"][node]["alarms"].to_string()
}

/// Waits until the third node has stopped, and the others say so.
fn await_stop(dev: &Dev) {
    let started = Instant::now();
    loop {
        let (_, status) = dev.status();
        let is_stopped = state(&status, 2) == "diverged"
            && alarms(&status, 2).contains("so this replica has stopped");
        if is_stopped && status["logs"][0]["leader"].is_string() {
            assert_ne!(status["logs"][0]["leader"], "node-3");
            return;
        }
        assert!(started.elapsed() < PATIENCE, "{status:#}");
        thread::sleep(Duration::from_millis(20));
    }
}

/// Waits until the first so many nodes have all of each log, by a leader among them, and the others
/// are away. Gives what the nodes say then.
fn await_complete(dev: &Dev, count: usize) -> Value {
    let started = Instant::now();
    loop {
        let (_, status) = dev.status();
        let logs = status["logs"].as_array().expect("a list");
        let is_complete = |log: &Value| {
            let replicas = log["replicas"].as_array().expect("a list");
            let is_whole = |replica: &Value| {
                let is_there = replica["state"] == "leader" || replica["state"] == "follower";
                is_there && replica["lag_bytes"] == "0"
            };
            replicas.len() == 3
                && replicas[..count].iter().all(is_whole)
                && replicas[count..]
                    .iter()
                    .all(|replica| replica["state"] == "absent")
        };
        if logs.iter().all(is_complete) {
            return status;
        }
        assert!(started.elapsed() < PATIENCE, "{status:#}");
        thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_node_with_another_history_stops_that_log_and_the_others_go_on() {
    let (home, kept) = (tempdir(), tempdir());
    let (home, kept) = (home.path(), kept.path());
    live(home, 10);
    for node in ["node-1", "node-2", "node-3"] {
        copy(&home.join(node), &kept.join(node));
    }
    let others = live(home, 2_000);
    let other = kept.join("other");
    fs::rename(home.join("node-3"), &other).expect("the same disk");
    for node in ["node-1", "node-2"] {
        fs::remove_dir_all(home.join(node)).expect("it is there");
        fs::rename(kept.join(node), home.join(node)).expect("the same disk");
    }
    fs::rename(kept.join("node-3"), home.join("node-3")).expect("the same disk");
    // Until all is in later terms than the other's, which so can never lead.
    let mut terms = live(home, 2_300);
    let mut count = 2_310;
    while terms.iter().zip(&others).any(|(term, other)| term <= other) {
        terms = live(home, 100);
        count += 100;
    }

    // What no node would do by itself: everybody is told to take the other for what it says it is.
    fs::remove_dir_all(home.join("node-3")).expect("it is there");
    fs::rename(&other, home.join("node-3")).expect("the same disk");
    for (node, other) in [
        ("node-1", "node-3"),
        ("node-2", "node-3"),
        ("node-3", "node-1"),
        ("node-3", "node-2"),
    ] {
        unpin(home, node, other);
    }
    let dev = Dev::start(home, &[]);
    await_stop(&dev);
    let (exit, status) = dev.status();
    assert_eq!(exit, Some(4));
    let told = format!("{}{}", alarms(&status, 0), alarms(&status, 1));
    assert!(
        told.contains("here is not that of node-3")
            || told.contains("here are not those of node-3")
    );
    let appended = dev.run(&["append", "log-0", "--count", "10", "--size", "64"]);
    assert_eq!(appended.status.code(), Some(0), "{}", stderr(&appended));
    let appended = dev.run(&["append", "log-1", "--count", "10", "--size", "64"]);
    assert_eq!(appended.status.code(), Some(0), "{}", stderr(&appended));
    let read = dev.run(&["read", "log-0", "--from", &count.to_string()]);
    let lines = read.stdout.iter().filter(|byte| **byte == b'\n');
    assert_eq!(lines.count(), 10, "{}", stderr(&read));
    assert_eq!(dev.end(Signal::TERM), Some(0));
    for (node, is_said) in [("node-1", false), ("node-3", true)] {
        let inspected = feed(ringwood("").arg("inspect").arg(home.join(node)), b"");
        let page = String::from_utf8_lossy(&inspected.stdout).into_owned();
        assert_eq!(page.contains("log-0: diverged"), is_said, "{page}");
    }

    // It has not forgotten.
    let dev = Dev::start(home, &["--processes"]);
    await_stop(&dev);
    let (_, status) = dev.status();
    let cluster = status["cluster"]["name"].as_str().expect("a name");

    // The way back: another directory, which the others are told to take once they have everything
    // without the old one.
    kill_process(dev.nodes[2].2, Signal::KILL).expect("it lives");
    await_complete(&dev, 2);
    dev.end(Signal::TERM);
    let new = home.join("node-3");
    fs::remove_dir_all(&new).expect("it is there");
    let voters = "node-1=127.0.0.1:7401,node-2=127.0.0.1:7402,node-3=127.0.0.1:7403";
    let init = ["--cluster", cluster, "--node", "node-3", "--voters", voters];
    let made = feed(ringwood("").arg("init").arg(&new).args(init), b"");
    assert_eq!(made.status.code(), Some(0), "{}", stderr(&made));
    unpin(home, "node-1", "node-3");
    unpin(home, "node-2", "node-3");
    let dev = Dev::start(home, &[]);
    let status = dev.await_status(0);
    assert_ne!(state(&status, 2), "diverged");
    assert_eq!(dev.end(Signal::TERM), Some(0));
}
