//! The verbs against real processes: what goes in comes out, whoever is killed in between, and bad
//! input gets an answer.
//!
//! Few clusters, each with a story: starting one writes its journals out once, which is slow.

mod diverged;
mod failing;
#[path = "../../../net/tests/it/file_system.rs"]
#[allow(dead_code, reason = "nothing is filled or frozen here")]
mod file_system;
mod measured;
mod mended;
mod offline;
mod spoilt;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use serde_json::Value;
use tempfile::TempDir;

/// Longer than anything here takes on a busy machine; only a hang gets there.
const PATIENCE: Duration = Duration::from_secs(60);

/// `ringwood dev` on free ports.
struct Dev {
    process: Child,
    stdout: BufReader<ChildStdout>,
    endpoints: String,
    /// Node, its address and its process; empty without --processes.
    nodes: Vec<(String, String, Pid)>,
}

impl Dev {
    fn start(dir: &Path, words: &[&str]) -> Self {
        let mut process = ringwood("")
            .args(["dev", "--port", "0", "--dir"])
            .arg(dir)
            .args(words)
            .stdout(Stdio::piped())
            .spawn()
            .expect("the binary starts");
        let mut stdout = BufReader::new(process.stdout.take().expect("a pipe"));
        let line = next_line(&mut stdout);
        let endpoints = line
            .strip_prefix("ready ")
            .expect("the first line says ready")
            .to_string();
        let mut nodes = Vec::new();
        loop {
            let line = next_line(&mut stdout);
            match line.split_whitespace().collect::<Vec<_>>()[..] {
                [name, address, "pid", pid] => {
                    let pid = Pid::from_raw(pid.parse().expect("a number")).expect("a process");
                    nodes.push((name.to_string(), address.to_string(), pid));
                }
                ["data", "in", named] => {
                    assert_eq!(Path::new(named), dir.canonicalize().expect("it exists"));
                    break Self {
                        process,
                        stdout,
                        endpoints,
                        nodes,
                    };
                }
                _ => panic!("an unexpected line: {line}"),
            }
        }
    }

    fn run(&self, words: &[&str]) -> Output {
        self.feed(words, b"")
    }

    fn feed(&self, words: &[&str], stdin: &[u8]) -> Output {
        feed(ringwood(&self.endpoints).args(words), stdin)
    }

    fn status(&self) -> (Option<i32>, Value) {
        let output = self.run(&["status", "-o", "json"]);
        (output.status.code(), json(&output))
    }

    /// Asks for the status until it exits like that.
    fn await_status(&self, code: i32) -> Value {
        let started = Instant::now();
        loop {
            let (exit, status) = self.status();
            if exit == Some(code) {
                return status;
            }
            assert!(
                started.elapsed() < PATIENCE,
                "status is {exit:?}, not {code}: {status:#}"
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn end(mut self, signal: Signal) -> Option<i32> {
        kill_process(pid_of(&self.process), signal).expect("it lives");
        let mut rest = String::new();
        let _ = self.stdout.read_to_string(&mut rest);
        self.process.wait().expect("our child").code()
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        // Only after a failed assertion is there anything left to kill; its children go with it.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn ringwood(endpoints: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringwood"));
    command.env_remove("RINGWOOD_ENDPOINTS");
    if !endpoints.is_empty() {
        command.env("RINGWOOD_ENDPOINTS", endpoints);
    }
    command
}

fn feed(command: &mut Command, stdin: &[u8]) -> Output {
    let mut process = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary starts");
    let mut pipe = process.stdin.take().expect("a pipe");
    let stdin = stdin.to_vec();
    // It may refuse before it has read everything.
    let feeder = std::thread::spawn(move || drop(pipe.write_all(&stdin)));
    let output = process.wait_with_output().expect("our child");
    feeder.join().expect("feeding does not panic");
    output
}

fn next_line(stdout: &mut BufReader<ChildStdout>) -> String {
    let mut line = String::new();
    stdout.read_line(&mut line).expect("text");
    assert!(!line.is_empty(), "it ended before it was ready");
    line.trim_end().to_string()
}

fn json(output: &Output) -> Value {
    let said = String::from_utf8_lossy(&output.stderr);
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}; it said {said}"))
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn pid_of(process: &Child) -> Pid {
    Pid::from_child(process)
}

/// Directories on the disk that the build is on: a temporary one might be memory.
fn tempdir() -> TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory")
}

fn await_death(pid: Pid) {
    let started = Instant::now();
    while test_kill_process(pid).is_ok() {
        assert!(started.elapsed() < PATIENCE, "{pid:?} lives on");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A thousand lines, not all of them text, the last one without a newline.
fn thousand_lines() -> Vec<u8> {
    let mut lines = Vec::new();
    for number in 0..999u32 {
        lines.extend_from_slice(format!("line {number} ").as_bytes());
        lines.extend(
            (0..number % 300)
                .map(|i| (i * 7 + number) as u8)
                .filter(|byte| *byte != b'\n'),
        );
        lines.push(b'\n');
    }
    lines.extend_from_slice(b"\xff the last one has no newline");
    lines
}

#[test]
fn records_come_back_byte_for_byte_after_everything_was_killed() {
    let dir = tempdir();
    let lines = thousand_lines();
    let mut expected = lines.clone();
    expected.push(b'\n');

    let dev = Dev::start(dir.path(), &["--processes"]);
    assert_eq!(dev.nodes.len(), 3);
    let appended = dev.feed(&["append", "log-3", "-o", "json"], &lines);
    assert_eq!(appended.status.code(), Some(0), "{}", stderr(&appended));
    let summary = json(&appended);
    assert_eq!(summary["schema"], "ringwood.append/v1");
    assert_eq!(
        (&summary["first"], &summary["last"]),
        (&"0".into(), &"999".into())
    );
    assert_eq!(
        (&summary["count"], &summary["unknown"]),
        (&"1000".into(), &"0".into())
    );
    assert_eq!(dev.run(&["read", "log-3"]).stdout, expected);

    // The parent alone is killed: its children must not outlive it.
    kill_process(pid_of(&dev.process), Signal::KILL).expect("it lives");
    dev.nodes.iter().for_each(|(_, _, pid)| await_death(*pid));
    let gone = dev.run(&["read", "log-3", "--timeout", "2s"]);
    assert_eq!(gone.status.code(), Some(3), "{}", stderr(&gone));
    drop(dev);

    // The same directories serve nodes in one process, on other ports.
    let dev = Dev::start(dir.path(), &[]);
    assert!(dev.nodes.is_empty());
    assert_eq!(
        dev.run(&["read", "log-3", "--from", "0", "--count", "1000"])
            .stdout,
        expected
    );
    let one = dev.run(&["read", "log-3", "--from", "999", "--raw"]);
    assert_eq!(one.stdout, b"\xff the last one has no newline");
    assert_eq!(dev.end(Signal::INT), Some(0));
}

#[test]
fn nodes_can_be_killed_and_served_again_one_by_one() {
    let dir = tempdir();
    let dev = Dev::start(dir.path(), &["--processes"]);
    let healthy = dev.await_status(0);
    assert_eq!(healthy["schema"], "ringwood.status/v1");
    assert_eq!(healthy["nodes"].as_array().expect("a list").len(), 3);
    assert_eq!(healthy["logs"].as_array().expect("a list").len(), 16);
    assert!(
        healthy["logs"][0]["commit"].is_string(),
        "64-bit numbers are strings"
    );

    let [first, second, _] = &dev.nodes[..] else {
        panic!("three nodes")
    };
    kill_process(first.2, Signal::KILL).expect("it lives");
    await_death(first.2);
    let appended = dev.run(&["append", "log-0", "--count", "100", "--size", "64"]);
    assert_eq!(appended.status.code(), Some(0), "{}", stderr(&appended));
    let degraded = dev.await_status(4);
    assert_eq!(degraded["nodes"][0]["reachable"], false);
    assert_eq!(degraded["nodes"][0]["incarnation"], Value::Null);

    kill_process(second.2, Signal::KILL).expect("it lives");
    await_death(second.2);
    let leaderless = dev.await_status(7);
    assert_eq!(leaderless["logs"][0]["leader"], Value::Null);
    for words in [
        &["append", "log-0", "--count", "1", "--timeout", "1s"][..],
        &["read", "log-0", "--timeout", "1s"],
    ] {
        let refused = dev.run(words);
        assert_eq!(
            refused.status.code(),
            Some(7),
            "{words:?}: {}",
            stderr(&refused)
        );
    }

    // By hand, on the addresses that `dev` gave them.
    let serve = |name: &str| {
        let mut process = ringwood("")
            .arg("serve")
            .arg(dir.path().join(name))
            .stdout(Stdio::piped())
            .spawn()
            .expect("the binary starts");
        let mut stdout = BufReader::new(process.stdout.take().expect("a pipe"));
        assert!(
            next_line(&mut stdout).starts_with("ready "),
            "{name} serves"
        );
        process
    };
    let mut served = [serve(&first.0), serve(&second.0)];
    dev.await_status(0);
    let read = dev.run(&["read", "log-0"]);
    assert_eq!(
        read.stdout.iter().filter(|byte| **byte == b'\n').count(),
        100
    );

    // A directory in use is refused, and goes on being served.
    let twice = feed(
        ringwood("").arg("serve").arg(dir.path().join(&first.0)),
        b"",
    );
    assert_eq!(twice.status.code(), Some(5), "{}", stderr(&twice));
    assert!(stderr(&twice).starts_with("error: "));
    // So is another node's, and another cluster's.
    for words in [["--node", "node-3"], ["--voters", "stranger=127.0.0.1:1"]] {
        let other = feed(
            ringwood("")
                .arg("serve")
                .arg(dir.path().join(&first.0))
                .args(words),
            b"",
        );
        assert_eq!(
            other.status.code(),
            Some(5),
            "{words:?}: {}",
            stderr(&other)
        );
    }
    for process in &mut served {
        kill_process(pid_of(process), Signal::TERM).expect("it lives");
        assert_eq!(process.wait().expect("our child").code(), Some(0));
    }
    assert_eq!(dev.end(Signal::TERM), Some(0));
}

#[test]
fn bad_input_gets_an_answer_and_good_input_goes_on() {
    let dir = tempdir();
    let dev = Dev::start(dir.path(), &["--nodes", "1"]);
    let refused = |words: &[&str], stdin: &[u8], said: &str| {
        let output = dev.feed(words, stdin);
        let stderr = stderr(&output);
        assert_eq!(output.status.code(), Some(5), "{words:?}: {stderr}");
        assert!(
            stderr.starts_with("error: ") && stderr.contains(said),
            "{words:?}: {stderr}"
        );
        assert!(stderr.contains("\n  fix: "), "{words:?}: {stderr}");
        output
    };
    refused(&["append", "no-such-log"], b"x\n", "has no log no-such-log");
    refused(&["read", "no-such-log"], b"", "has no log no-such-log");
    refused(&["tail", "log-0", "--from", "7"], b"", "past the end");
    refused(&["read", "log-0", "--from", "1"], b"", "past the end");

    // What stands before a line that is no record is in the log, and said to be.
    let mut lines = b"one\ntwo\n".to_vec();
    lines.resize(lines.len() + (1 << 20) + 1, b'x');
    let cut = refused(
        &["append", "log-0", "-o", "json"],
        &lines,
        "line 3 is longer",
    );
    assert_eq!(json(&cut)["count"], "2");
    assert_eq!(dev.run(&["read", "log-0"]).stdout, b"one\ntwo\n");
    let nothing = dev.run(&["read", "log-0", "--from", "2"]);
    assert_eq!(
        (nothing.status.code(), &nothing.stdout[..]),
        (Some(0), &b""[..])
    );
    let none = dev.run(&["append", "log-0", "-o", "json"]);
    assert_eq!(
        (none.status.code(), &json(&none)["first"]),
        (Some(0), &Value::Null)
    );

    // A port in use and a directory in use.
    let (_, port) = dev.endpoints.rsplit_once(':').expect("host and port");
    let other = tempdir();
    let other = other.path().to_str().expect("plain text");
    refused(
        &["dev", "--nodes", "1", "--port", port, "--dir", other],
        b"",
        "in use",
    );
    let words = [
        "dev",
        "--nodes",
        "1",
        "--processes",
        "--port",
        port,
        "--dir",
        other,
    ];
    refused(&words, b"", "node-1 ended before it was ready");
    let same = dir.path().to_str().expect("plain text");
    refused(&["dev", "--port", "0", "--dir", same], b"", "");
    refused(
        &["dev", "--nodes", "3", "--dir", same],
        b"",
        "holds 1 nodes, not 3",
    );

    // Others on the port than we.
    let mut noise = TcpStream::connect(&dev.endpoints).expect("it listens");
    let _ = noise.write_all(&vec![0xa5; 64 << 10]);
    let mut http = TcpStream::connect(&dev.endpoints).expect("it listens");
    http.write_all(b"GET / HTTP/1.1\r\nHost: ringwood\r\n\r\n")
        .expect("it reads");
    let silent = TcpStream::connect(&dev.endpoints).expect("it listens");
    for stream in [&mut noise, &mut http] {
        stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
        let mut answer = Vec::new();
        // Closed or reset, but not left open.
        if let Err(error) = stream.read_to_end(&mut answer) {
            assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "{error}");
        }
    }

    // A reader that leaves is content; a full disk is an error.
    let many = dev.run(&["append", "log-1", "--count", "20000", "--size", "100"]);
    assert_eq!(many.status.code(), Some(0), "{}", stderr(&many));
    let mut read = ringwood(&dev.endpoints)
        .args(["read", "log-1"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary starts");
    drop(read.stdout.take());
    let left = read.wait_with_output().expect("our child");
    assert_eq!((left.status.code(), &left.stderr[..]), (Some(0), &b""[..]));
    let full = std::fs::File::options()
        .write(true)
        .open("/dev/full")
        .expect("a device");
    let full = ringwood(&dev.endpoints)
        .args(["read", "log-1"])
        .stdout(full)
        .output();
    assert_eq!(full.expect("our child").status.code(), Some(1));

    drop(silent);
    dev.await_status(0);
    assert_eq!(dev.end(Signal::TERM), Some(0));
}

#[test]
fn what_follows_and_what_waits_ends_with_ctrl_c() {
    let dir = tempdir();
    let dev = Dev::start(dir.path(), &["--nodes", "1"]);
    let spawn = |words: &[&str]| {
        ringwood(&dev.endpoints)
            .args(words)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the binary starts")
    };
    let mut tail = spawn(&["tail", "log-0", "--from", "0"]);
    let mut followed = BufReader::new(tail.stdout.take().expect("a pipe"));
    let mut append = spawn(&["append", "log-0", "-o", "json"]);
    let mut stdin = append.stdin.take().expect("a pipe");
    for number in 0..3 {
        // Each is appended and followed while stdin stays open.
        writeln!(stdin, "record {number}").expect("it reads");
        assert_eq!(next_line(&mut followed), format!("record {number}"));
    }
    kill_process(pid_of(&append), Signal::INT).expect("it lives");
    let append = append.wait_with_output().expect("our child");
    assert_eq!(append.status.code(), Some(130));
    assert_eq!(json(&append)["count"], "3");
    kill_process(pid_of(&tail), Signal::INT).expect("it lives");
    assert_eq!(tail.wait().expect("our child").code(), Some(130));

    // A reader that does not read must not keep Ctrl-C from working.
    let many = dev.run(&["append", "log-1", "--count", "20000", "--size", "100"]);
    assert_eq!(many.status.code(), Some(0), "{}", stderr(&many));
    let mut stuck = spawn(&["tail", "log-1", "--from", "0"]);
    let mut some = [0; 1];
    let pipe = stuck.stdout.as_mut().expect("a pipe");
    pipe.read_exact(&mut some).expect("it has begun");
    kill_process(pid_of(&stuck), Signal::INT).expect("it lives");
    assert_eq!(stuck.wait().expect("our child").code(), Some(130));
    assert_eq!(dev.end(Signal::TERM), Some(0));
}

#[test]
fn a_log_is_trimmed_and_readers_are_told_where_it_begins() {
    let dir = tempdir();
    let dev = Dev::start(dir.path(), &["--processes"]);
    let lines: Vec<u8> = (0..100)
        .flat_map(|n| format!("{n}\n").into_bytes())
        .collect();
    let appended = dev.feed(&["append", "log-1"], &lines);
    assert_eq!(appended.status.code(), Some(0), "{}", stderr(&appended));
    let beyond = dev.run(&["log", "trim", "log-1", "--before", "101"]);
    assert_eq!(beyond.status.code(), Some(5));
    assert!(
        stderr(&beyond).contains("past the end of log-1, 100"),
        "{}",
        stderr(&beyond)
    );
    let trimmed = dev.run(&["log", "trim", "log-1", "--before", "40", "-o", "json"]);
    assert_eq!(trimmed.status.code(), Some(0), "{}", stderr(&trimmed));
    assert_eq!(json(&trimmed)["first_offset"], "40");
    // Less changes nothing.
    let again = dev.run(&["log", "trim", "log-1", "--before", "7"]);
    assert_eq!(again.stdout, b"log-1 begins at 40\n");
    let refused = dev.run(&["read", "log-1", "--from", "39"]);
    assert_eq!(refused.status.code(), Some(5));
    assert!(
        stderr(&refused).contains("--from 40"),
        "{}",
        stderr(&refused)
    );
    let read = dev.run(&["read", "log-1", "--from", "40"]);
    let rest = lines.split_inclusive(|byte| *byte == b'\n').skip(40);
    assert_eq!(read.stdout, rest.collect::<Vec<_>>().concat());
    // Other logs are as they were.
    let (_, status) = dev.status();
    let logs = status["logs"].as_array().expect("logs");
    let first = |name: &str| {
        let mut logs = logs.iter();
        logs.find(|log| log["name"] == name).expect(name)["first_offset"].clone()
    };
    assert_eq!((first("log-1"), first("log-2")), ("40".into(), "0".into()));
    assert_eq!(dev.end(Signal::TERM), Some(0));
}
