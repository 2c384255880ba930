//! `inspect`, `verify` and `dump` on the files of a real node: while it runs, as it left them, and
//! damaged in all ways.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Output;

use rustix::process::Signal;
use serde_json::Value;

use crate::{Dev, feed, json, ringwood, stderr, tempdir};

/// Records of a KiB: enough for three gathered writes, of which the journal has all as well.
const RECORD_COUNT: u64 = 7_000;

fn run(words: &[&str], path: &Path) -> Output {
    feed(ringwood("").args(words).arg(path), b"")
}

/// The document, and that the exit code is this one.
pub(crate) fn document(words: &[&str], path: &Path, code: i32) -> Value {
    let output = run(&[words, &["-o", "json"]].concat(), path);
    let said = stderr(&output);
    assert_eq!(
        output.status.code(),
        Some(code),
        "{words:?} {}: {said}",
        path.display()
    );
    json(&output)
}

/// The lines of a dump.
pub(crate) fn dump(path: &Path) -> Vec<Value> {
    let output = run(&["dump", "-o", "json"], path);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let text = String::from_utf8(output.stdout).expect("JSON is text");
    text.lines()
        .map(|line| serde_json::from_str(line).expect("a document a line"))
        .collect()
}

pub(crate) fn number(value: &Value) -> u64 {
    let text = value
        .as_str()
        .map_or_else(|| value.to_string(), ToString::to_string);
    text.parse()
        .unwrap_or_else(|_| panic!("{value} is a number"))
}

pub(crate) fn flip(path: &Path, byte: u64) {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .open(path)
        .expect("it is there");
    let mut there = [0];
    file.read_exact_at(&mut there, byte)
        .expect("within the file");
    file.write_all_at(&[there[0] ^ 0x20], byte).expect("room");
}

/// A node that has run, and took these records, of which some are in segments.
fn stopped_node(home: &Path) -> PathBuf {
    let dev = Dev::start(home, &["--nodes", "1"]);
    let count = RECORD_COUNT.to_string();
    let appended = dev.run(&["append", "log-0", "--count", &count, "--size", "1KiB"]);
    assert_eq!(appended.status.code(), Some(0), "{}", stderr(&appended));
    let node = home.join("node-1");

    // While it runs: looked at, and not verified.
    let seen = document(&["inspect"], &node, 0);
    assert_eq!(number(&seen["in_use_by"]), u64::from(dev.process.id()));
    let refused = run(&["verify"], &node);
    assert_eq!(refused.status.code(), Some(5), "{}", stderr(&refused));
    assert!(stderr(&refused).contains("is in use by another process"));
    assert!(stderr(&refused).contains("\n  fix: "));

    assert_eq!(dev.end(Signal::TERM), Some(0));
    node
}

#[test]
fn the_files_of_a_stopped_node_are_told_and_checked_and_damage_is_named() {
    let home = tempdir();
    let node = stopped_node(home.path());
    let segment = node.join("log-1/segment-00000000");
    let journal = node.join("journal-0");

    let sound = document(&["verify"], &node, 0);
    assert_eq!(
        (&sound["schema"], &sound["sound"]),
        (&"ringwood.verify/v1".into(), &true.into())
    );
    assert_eq!(sound["bad"], Value::Array(Vec::new()));
    let page = run(&["verify"], &node);
    assert!(String::from_utf8_lossy(&page.stdout).contains(": sound: node-1 of cluster"));

    let seen = document(&["inspect"], &node, 0);
    assert_eq!(seen["in_use_by"], Value::Null);
    let strangers = seen["notes"].to_string();
    assert!(!strangers.contains("no file of a node"), "{strangers}");
    assert_eq!(seen["node"]["name"], "node-1");
    let log = &seen["logs"][0];
    assert_eq!(
        (&log["log"], number(&log["end_offset"])),
        (&"log-0".into(), RECORD_COUNT)
    );
    assert_eq!(log["vote"], "node-1");
    let in_segments = number(&log["checkpoint"]["next_offset"]);
    assert!(in_segments > RECORD_COUNT / 2, "{in_segments}");

    // The dump has each record once, in order.
    let records = run(&["dump", "--records", "-o", "json"], &segment);
    let text = String::from_utf8(records.stdout).expect("JSON is text");
    let lines = text
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    let offsets: Vec<u64> = lines
        .filter(|line| line["kind"] == "record")
        .map(|line| number(&line["offset"]))
        .collect();
    assert!(offsets.into_iter().eq(0..in_segments));

    // One byte of a block in the segment.
    let blocks = dump(&segment);
    let block = blocks
        .iter()
        .filter(|line| line["kind"] == "block")
        .nth(3)
        .expect("many blocks");
    let byte = number(&block["byte"]) + 200;
    flip(&segment, byte);
    let bad = only_bad(&node);
    assert_eq!(
        (&bad["log"], &bad["file"]),
        (&"log-0".into(), &"log-1/segment-00000000".into())
    );
    assert_eq!(
        (&bad["byte"], number(&bad["size"])),
        (&block["byte"], number(&block["size"]))
    );
    for name in ["first_offset", "end_offset"] {
        assert_eq!(bad[name], block[name], "{name}");
    }
    assert_eq!(
        document(&["inspect"], &segment, 4)["bad"]
            .as_array()
            .expect("a list")
            .len(),
        1
    );
    let lines = run(&["dump"], &segment);
    let text = String::from_utf8_lossy(&lines.stdout).into_owned();
    assert_eq!(
        text.lines()
            .filter(|line| line.contains("DAMAGED: "))
            .count(),
        1
    );
    flip(&segment, byte);

    // One byte of a block in the journal, in a flush that a later one vouches for.
    let items = dump(&journal);
    let block = items
        .iter()
        .find(|line| line["kind"] == "block" && number(&line["first_offset"]) > 0);
    let block = block.expect("many blocks");
    let byte = number(&block["byte"]) + 200;
    flip(&journal, byte);
    let bad = only_bad(&node);
    assert_eq!(
        (&bad["log"], &bad["file"]),
        (&"log-0".into(), &"journal-0".into())
    );
    assert_eq!(
        (&bad["byte"], &bad["first_offset"]),
        (&block["byte"], &block["first_offset"])
    );
    flip(&journal, byte);

    // A file that is not there, one that was cut, one of another place.
    let away = node.join("away");
    for (name, code) in [
        ("log-1/segment-00000000", 4),
        ("journal-2", 4),
        ("node.toml", 4),
    ] {
        fs::rename(node.join(name), &away).expect("the same disk");
        let output = run(&["verify"], &node);
        assert_eq!(
            output.status.code(),
            Some(code),
            "{name}: {}",
            stderr(&output)
        );
        document(&["inspect"], &node, 4);
        fs::rename(&away, node.join(name)).expect("the same disk");
    }
    let whole = fs::read(&segment).expect("it is there");
    fs::write(&segment, &whole[..whole.len() / 2]).expect("room");
    let bad = only_bad(&node);
    assert_eq!(
        number(&bad["end_offset"]),
        in_segments,
        "to the end of what it had"
    );
    assert!(number(&bad["byte"]) <= whole.len() as u64 / 2);
    fs::write(&segment, &whole).expect("room");
    document(&["verify"], &node, 0);

    garbage_ends_nothing(&segment, &whole);
}

fn only_bad(node: &Path) -> Value {
    let found = document(&["verify"], node, 4);
    let bad = found["bad"].as_array().expect("a list");
    // A journal that is refused tells nothing of segments; each is one thing.
    assert_eq!(bad.len(), 1, "{found:#}");
    assert_eq!(found["sound"], false);
    bad[0].clone()
}

/// Whatever is in a file, each verb ends as it should.
fn garbage_ends_nothing(path: &Path, whole: &[u8]) {
    let mut state = 0x9E37_79B9_u32;
    let mut draw = move |bound: usize| {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state as usize % bound
    };
    for round in 0..12 {
        let mut image = whole[..whole.len().min(512 << 10)].to_vec();
        for _ in 0..20 {
            let from = draw(image.len() - 4096);
            let size = 1 + draw(4096);
            match round % 3 {
                0 => image[from..from + size]
                    .iter_mut()
                    .for_each(|byte| *byte = draw(256) as u8),
                1 => image.copy_within(from..from + size, 0),
                _ => image[from] ^= 1 << draw(8),
            }
        }
        fs::write(path, &image).expect("room");
        for words in [
            &["dump"][..],
            &["dump", "--records"],
            &["dump", "-o", "json"],
        ] {
            let output = run(words, path);
            assert_eq!(
                output.status.code(),
                Some(0),
                "{words:?}: {}",
                stderr(&output)
            );
        }
        let output = run(&["inspect"], path);
        assert!(
            [0, 4].contains(&output.status.code().expect("no signal")),
            "{}",
            stderr(&output)
        );
        let node = path
            .parent()
            .and_then(Path::parent)
            .expect("a log's directory is in a node's");
        document(&["verify"], node, 4);
    }
}

#[test]
fn the_file_of_directories_is_verified_too() {
    let home = tempdir();
    let node = stopped_node(home.path());
    let pins = node.join("pins");
    flip(&pins, 40);
    let torn = document(&["verify"], &node, 0);
    assert!(torn["notes"].to_string().contains("pins: sector 0 of two"));
    flip(&pins, 4096 + 40);
    let bad = only_bad(&node);
    assert_eq!((&bad["file"], number(&bad["size"])), (&"pins".into(), 8192));
    flip(&pins, 40);
    let torn = document(&["verify"], &node, 0);
    assert!(torn["notes"].to_string().contains("pins: sector 1 of two"));
}
