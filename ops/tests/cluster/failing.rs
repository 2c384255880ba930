//! A node whose disk fails under it: how it exits, and what it says. The disk is an ext4 of the test's
//! own whose power is cut; where this machine does not let a test do that, it says so.

use std::io::{BufReader, Read};
use std::net::TcpListener;
use std::process::Stdio;
use std::time::Instant;

use crate::file_system::file_systems;
use crate::{PATIENCE, feed, next_line, ringwood, stderr, tempdir};

#[test]
fn a_disk_that_fails_ends_the_node_with_code_1_and_the_files_name() {
    let dir = tempdir();
    let Some(file_systems) = file_systems(dir.path(), 1) else {
        return;
    };
    let home = dir.path().join("node-1");
    let free = TcpListener::bind(("127.0.0.1", 0)).and_then(|listener| listener.local_addr());
    let address = free.expect("a free port").to_string();
    let voters = format!("node-1={address}");
    let words = [
        "--cluster",
        "failing",
        "--node",
        "node-1",
        "--voters",
        &voters,
    ];
    let made = feed(ringwood("").arg("init").arg(&home).args(words), b"");
    assert_eq!(made.status.code(), Some(0), "{}", stderr(&made));
    let mut served = ringwood("")
        .arg("serve")
        .arg(&home)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary starts");
    let mut stdout = BufReader::new(served.stdout.take().expect("a pipe"));
    assert!(next_line(&mut stdout).starts_with("ready "));
    let append = |lines: &[u8]| {
        feed(
            ringwood(&address).args(["append", "log-0", "--timeout", "2s"]),
            lines,
        )
    };
    let before = append(b"before\n");
    assert_eq!(before.status.code(), Some(0), "{}", stderr(&before));

    if let Err(why) = file_systems[0].cut_power() {
        println!("skipped: no power to cut here: {why}");
        served.kill().expect("it runs");
        served.wait().expect("our child");
        return;
    }
    let after = append(b"after\n");
    assert_ne!(after.status.code(), Some(0), "nothing is stored any more");
    let begun = Instant::now();
    let status = loop {
        if let Some(status) = served.try_wait().expect("our child") {
            break status;
        }
        assert!(begun.elapsed() < PATIENCE, "it does not end");
        std::thread::sleep(std::time::Duration::from_millis(10));
    };
    let mut said = String::new();
    let mut pipe = served.stderr.take().expect("a pipe");
    pipe.read_to_string(&mut said).expect("text");
    assert_eq!(status.code(), Some(1), "{said}");
    let last = said.lines().last().expect("it says why");
    assert!(
        last.starts_with("error: a write to ") && last.contains("/journal"),
        "{said}"
    );
    assert!(last.contains("the node stops"), "{said}");
}
