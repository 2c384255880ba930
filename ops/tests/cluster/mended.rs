//! `verify --repair-from`: a stopped node's segments, damaged in all ways, made whole again from the
//! nodes that run; and the node that starts on them.

use std::fs::{self, File, OpenOptions};
use std::io::BufReader;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Signal, kill_process};
use serde_json::Value;

use crate::{Dev, PATIENCE, await_death, feed, json, next_line, pid_of, ringwood, stderr, tempdir};

/// Records of a KiB: more than a segment takes.
const RECORD_COUNT: &str = "72000";
const SECTOR_SIZE: u64 = 4096;

fn verify(node: &Path, donors: &str) -> Output {
    let mut command = ringwood("");
    command.args(["verify", "-o", "json"]).arg(node);
    if !donors.is_empty() {
        command.args(["--repair-from", donors]);
    }
    feed(&mut command, b"")
}

/// The document, and that the exit code is this one.
fn verified(node: &Path, donors: &str, code: i32) -> Value {
    let output = verify(node, donors);
    let said = stderr(&output);
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(code), "{said}{told}");
    json(&output)
}

fn files(found: &Value, list: &str) -> Vec<String> {
    let list = found[list].as_array().expect("a list");
    let name = |one: &Value| one["file"].as_str().expect("a name").to_string();
    list.iter().map(name).collect()
}

fn open(path: &Path) -> File {
    let file = OpenOptions::new().read(true).write(true).open(path);
    file.expect("it is there")
}

fn fill(path: &Path, byte: u64, size: usize) {
    let file = open(path);
    file.write_all_at(&vec![0xEE; size], byte).expect("room");
}

fn size_of(path: &Path) -> u64 {
    fs::metadata(path).expect("it is there").len()
}

/// Waits until a file has at least so many bytes, and says how many they are.
fn await_growth(path: &Path, size: u64) -> u64 {
    let began = Instant::now();
    loop {
        match fs::metadata(path).map_or(0, |file| file.len()) {
            grown if grown >= size => return grown,
            _ => assert!(began.elapsed() < PATIENCE, "enough for two segments"),
        }
        thread::sleep(Duration::from_millis(20));
    }
}

/// One way to spoil a segment.
type Spoil = fn(&Path);

#[test]
fn a_stopped_nodes_segments_are_mended_from_those_that_run() {
    let home = tempdir();
    let dev = Dev::start(home.path(), &["--processes"]);
    let words = ["append", "log-0", "--count", RECORD_COUNT, "--size", "1KiB"];
    let appended = dev.run(&words);
    assert_eq!(appended.status.code(), Some(0), "{}", stderr(&appended));
    dev.await_status(0);
    let donors = format!("{},{}", dev.nodes[0].1, dev.nodes[1].1);
    let (name, _, pid) = &dev.nodes[2];
    let node = home.path().join(name);
    let segment = |number: u32| node.join(format!("log-1/segment-{number:08}"));
    let (first, second) = (segment(0), segment(1));
    let grown = await_growth(&second, 1 << 20);
    // The journal vouches for a segment's blocks before it grows again.
    let words = ["append", "log-0", "--count", "8000", "--size", "1KiB"];
    let appended = dev.run(&words);
    assert_eq!(appended.status.code(), Some(0), "{}", stderr(&appended));
    await_growth(&second, grown + 1);
    kill_process(*pid, Signal::KILL).expect("it lives");
    await_death(*pid);

    let sound = verified(&node, "", 0);
    assert_eq!(sound["mended"], Value::Array(Vec::new()));
    let nothing = verified(&node, &donors, 0);
    assert_eq!(nothing["mended"], Value::Array(Vec::new()));

    let spoils: [(&str, Spoil); 7] = [
        ("blocks", |path| {
            for place in 1..9 {
                fill(path, size_of(path) / 9 * place, 9_000);
            }
        }),
        ("the first sectors", |path| fill(path, 0, 20_000)),
        ("the header alone", |path| fill(path, 0, 512)),
        ("the state alone", |path| fill(path, SECTOR_SIZE, 512)),
        ("the footer", |path| {
            fill(path, size_of(path) - 2 * SECTOR_SIZE, 8_192);
        }),
        ("the second half", |path| {
            open(path).set_len(size_of(path) / 2).expect("shorter");
        }),
        ("all of it", |path| {
            fs::remove_file(path).expect("it is there")
        }),
    ];
    for (what, spoil) in spoils {
        spoil(&first);
        let bad = verified(&node, "", 4);
        assert_eq!(bad["sound"], false, "{what}");
        let mended = verified(&node, &donors, 0);
        assert_eq!(
            files(&mended, "mended"),
            ["log-1/segment-00000000"],
            "{what}"
        );
        assert_eq!(files(&mended, "not_mended"), [""; 0], "{what}");
        verified(&node, "", 0);
    }

    nobody_to_ask(&node, &first);
    in_use(&home.path().join(&dev.nodes[0].0), &donors);
    killed_at_any_moment(&node, &first, &donors);

    // The one that grows, near its beginning: its end may be nothing that the journal vouches for.
    fill(&second, grown / 8, 9_000);
    let mended = verified(&node, &donors, 0);
    assert_eq!(files(&mended, "mended"), ["log-1/segment-00000001"]);
    // And no file: its state was on this disk alone, and its head says that it is not known.
    fs::remove_file(&second).expect("it is there");
    let mended = verified(&node, &donors, 0);
    assert_eq!(files(&mended, "mended"), ["log-1/segment-00000001"]);

    // The node starts, and what it reads is what was appended.
    let mut served = ringwood("")
        .arg("serve")
        .arg(&node)
        .stdout(Stdio::piped())
        .spawn()
        .expect("the binary starts");
    let mut stdout = BufReader::new(served.stdout.take().expect("a pipe"));
    assert!(next_line(&mut stdout).starts_with("ready "));
    dev.await_status(0);
    kill_process(pid_of(&served), Signal::TERM).expect("it lives");
    assert_eq!(served.wait().expect("our child").code(), Some(0));
    assert_eq!(dev.end(Signal::TERM), Some(0));
}

/// Where no node answers nothing is changed.
fn nobody_to_ask(node: &Path, segment: &PathBuf) {
    let whole = fs::read(segment).expect("it is there");
    fill(segment, 1 << 20, 9_000);
    let spoilt = fs::read(segment).expect("it is there");
    let output = verify(node, "127.0.0.1:1");
    assert_eq!(output.status.code(), Some(3), "{}", stderr(&output));
    assert!(stderr(&output).contains("\n  fix: "));
    assert!(fs::read(segment).expect("it is there") == spoilt);
    fs::write(segment, &whole).expect("room");
    verified(node, "", 0);
}

fn in_use(node: &Path, donors: &str) {
    let output = verify(node, donors);
    assert_eq!(output.status.code(), Some(5), "{}", stderr(&output));
    assert!(stderr(&output).contains("is in use by another process"));
}

/// Killed in the middle it leaves the old file or the new one, and begins again.
fn killed_at_any_moment(node: &Path, segment: &Path, donors: &str) {
    for delay_ms in [0, 20, 60, 120, 250, 500] {
        for place in 1..20 {
            fill(segment, size_of(segment) / 20 * place, 9_000);
        }
        let mut process = ringwood("")
            .arg("verify")
            .arg(node)
            .args(["--repair-from", donors])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("the binary starts");
        thread::sleep(Duration::from_millis(delay_ms));
        let _ = process.kill();
        process.wait().expect("our child");
        let found = verify(node, "");
        let code = found.status.code();
        assert!(code == Some(4) || code == Some(0), "{}", stderr(&found));
        let bad = files(&json(&found), "bad");
        assert!(bad.iter().all(|file| file == "log-1/segment-00000000"));
        verified(node, donors, 0);
    }
}
