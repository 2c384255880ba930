//! A byte is flipped in each data file of nodes that are down: nothing that is read differs, and once
//! the nodes have run and scrubbed, every sum of every file is right again.

use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use ringwood_core::limits::SEGMENT_WRITE_SIZE;
use rustix::process::Signal;

use crate::offline::{document, dump, flip, number};
use crate::{Dev, PATIENCE, stderr, tempdir};

/// Of about a KiB each: enough for two gathered writes, and the journal has all of them as well.
const LINE_COUNT: usize = 6_000;

fn lines() -> Vec<u8> {
    let line = |number: usize| {
        let filler = (0..900 + number % 200).map(move |at| b'a' + ((at * 7 + number) % 26) as u8);
        let number = format!("{number} ").into_bytes();
        number.into_iter().chain(filler).chain([b'\n'])
    };
    (0..LINE_COUNT).flat_map(line).collect()
}

/// Where things of a kind begin in a file that `dump` understands.
fn places(file: &Path, kind: &str) -> Vec<u64> {
    let pieces = dump(file).into_iter();
    let pieces = pieces.filter(|piece| piece["kind"] == kind);
    pieces.map(|piece| number(&piece["byte"])).collect()
}

/// Which byte of a file is hit: of so many, the `part`th of `parts`.
fn hit(file: &Path, kind: &str, part: usize, parts: usize, inner: u64) {
    let places = places(file, kind);
    assert!(places.len() > parts, "{} has several", file.display());
    flip(file, places[places.len() * part / parts] + inner);
}

/// Until a node's segment has all that is gathered without more to come: the last lines, too few for
/// a write, stay in the journal. What it has then is four blocks at least, however large they are.
fn await_gathered(segment: &Path, appended: usize) {
    let began = Instant::now();
    let wanted = (appended - SEGMENT_WRITE_SIZE) as u64;
    while fs::metadata(segment).map_or(0, |file| file.len()) < wanted {
        assert!(began.elapsed() < PATIENCE, "{}", segment.display());
        thread::sleep(Duration::from_millis(20));
    }
}

/// Starts the cluster, reads everything, scrubs, and stops it.
fn live(home: &Path, expected: &[u8]) {
    let dev = Dev::start(home, &[]);
    assert!(dev.run(&["read", "log-0"]).stdout == expected);
    dev.await_status(0);
    let scrubbed = dev.run(&["scrub", "--wait"]);
    assert_eq!(scrubbed.status.code(), Some(0), "{}", stderr(&scrubbed));
    dev.await_status(0);
    assert!(dev.run(&["read", "log-0"]).stdout == expected);
    assert_eq!(dev.end(Signal::TERM), Some(0));
}

#[test]
fn a_flipped_byte_in_every_file_changes_nothing_that_is_read() {
    let home = tempdir();
    let expected = lines();
    let dev = Dev::start(home.path(), &[]);
    let appended = dev.feed(&["append", "log-0"], &expected);
    assert_eq!(appended.status.code(), Some(0), "{}", stderr(&appended));
    assert!(dev.run(&["read", "log-0"]).stdout == expected);
    let node = |number: usize| home.path().join(format!("node-{number}"));
    for number in 1..=3 {
        let segment = node(number).join("log-1/segment-00000000");
        await_gathered(&segment, expected.len());
    }
    assert_eq!(dev.end(Signal::TERM), Some(0));
    for number in 1..=3 {
        document(&["verify"], &node(number), 0);
    }

    // All files of one node, in other places each time; the journal's last flush among them.
    for round in 0..4 {
        let bad = node(1 + round % 3);
        let journal = bad.join("journal-0");
        let segment = bad.join("log-1/segment-00000000");
        match round {
            0 => flip(
                &journal,
                *places(&journal, "flush").last().expect("many") + 20,
            ),
            1 => hit(&journal, "flush", 1, 2, 9),
            2 => hit(&journal, "block", 2, 3, 400),
            _ => hit(&journal, "hard-state", 1, 2, 18),
        }
        match round {
            0 => flip(&segment, 44),
            1 => hit(&segment, "block", 1, 2, 300),
            2 => flip(&segment, 4096 + 8),
            _ => hit(&segment, "block", 0, 2, 20),
        }
        flip(&bad.join("journal.persist"), 4096 * (round as u64 % 2) + 30);
        flip(&bad.join("pins"), 4096 * (round as u64 / 2) + 40);
        let identity = fs::read_to_string(bad.join("node.toml")).expect("it is text");
        let at = identity.find("incarnation = \"").expect("a field") + 18;
        let name = ["node.toml", "node.toml.copy"][round % 2];
        flip(&bad.join(name), at as u64);
        document(&["verify"], &bad, 4);
        live(home.path(), &expected);
        for number in 1..=3 {
            document(&["verify"], &node(number), 0);
        }
    }

    // All three nodes, in other places each: no node is whole, and together they are.
    for number in 1..=3 {
        let (journal, segment) = (node(number).join("journal-0"), "log-1/segment-00000000");
        hit(&journal, "block", number - 1, 3, 500);
        hit(&node(number).join(segment), "block", number - 1, 3, 500);
        flip(&node(number).join("node.toml"), 300);
        document(&["verify"], &node(number), 4);
    }
    live(home.path(), &expected);
    for number in 1..=3 {
        document(&["verify"], &node(number), 0);
    }
    // And a segment that is gone, on the node that led: it is written anew.
    let segment = node(1).join("log-1/segment-00000000");
    let size = fs::metadata(&segment).expect("it is there").len();
    fs::remove_file(&segment).expect("it is there");
    live(home.path(), &expected);
    assert_eq!(fs::metadata(&segment).expect("it is back").len(), size);
    for number in 1..=3 {
        document(&["verify"], &node(number), 0);
    }
}
