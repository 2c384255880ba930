//! A real process that stands still for a while, as under SIGSTOP or a migrating host: nobody who did
//! his part meanwhile is told that he was late.

use std::process::Command;
use std::time::{Duration, Instant};

use ringwood_core::frame::Lane;
use ringwood_core::frame::client::Append;
use ringwood_core::frame::greeting::Hello;
use ringwood_core::log::block::write_record;
use ringwood_net::{Layout, VoterAddress, init};

use crate::processes::{Processes, free_addresses};
use crate::wire::{Answer, Wire};

/// Longer than a frame may take from its first byte to its last.
const FREEZE: Duration = Duration::from_secs(12);
/// Of the append that the freeze comes in the middle of; more than a socket takes unread.
const RECORD_SIZE: usize = 1 << 20;
/// Bytes of it that are there before, and a pause between those that come after.
const BEFORE_SIZE: usize = 64 << 10;
const PIECE_SIZE: usize = 128 << 10;
const PIECE_PAUSE: Duration = Duration::from_millis(50);
const STRANGER_COUNT: usize = 400;
/// Fewer than a listener's queue takes, and twice as many are more than may be strangers at a time.
const CROWD_COUNT: usize = 900;

fn signal(process: u32, name: &str) {
    let status = Command::new("kill")
        .args([name, &process.to_string()])
        .status()
        .expect("a signal is sent");
    assert!(status.success());
}

fn hello() -> Hello {
    Hello {
        lane: Lane::Client.code(),
        version_min: 1,
        version_max: 1,
        ..Hello::default()
    }
}

/// One node in a process of its own.
struct Frozen {
    processes: Processes,
    address: String,
    _home: tempfile::TempDir,
}

impl Frozen {
    fn start() -> Self {
        let home = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
        let address = free_addresses(1).remove(0).to_string();
        let layout = Layout {
            cluster: "frozen".into(),
            node: "node-1".into(),
            voters: vec![VoterAddress {
                name: "node-1".into(),
                address: address.clone(),
            }],
            logs: vec!["log-0".into()],
        };
        let dir = home.path().join("node-1");
        init(&dir, &layout).expect("a new directory");
        Self {
            processes: Processes::start(vec![dir]),
            address,
            _home: home,
        }
    }

    fn process(&self) -> u32 {
        self.processes.children[0].id()
    }

    /// A client's connection, once the node listens and leads.
    fn leader(&self) -> Wire {
        let begun = Instant::now();
        while std::net::TcpStream::connect(&self.address).is_err() {
            assert!(begun.elapsed() < Duration::from_secs(20), "it starts");
            std::thread::sleep(Duration::from_millis(20));
        }
        let mut wire = Wire::greet(&self.address);
        while wire.status().groups[0].state != 1 {
            assert!(begun.elapsed() < Duration::from_secs(20), "it leads");
            std::thread::sleep(Duration::from_millis(5));
        }
        wire
    }
}

/// Connections that say nothing yet.
fn strangers(address: &str, count: usize) -> Vec<Wire> {
    (0..count).map(|_| Wire::connect(address)).collect()
}

fn assert_welcome(strangers: Vec<Wire>) {
    for mut stranger in strangers {
        let answer = stranger.receive();
        assert!(matches!(answer, Answer::Welcome(_)), "it said hello");
    }
}

#[test]
fn a_freeze_is_nobodys_delay() {
    let frozen = Frozen::start();
    let (process, address) = (frozen.process(), &frozen.address);
    let mut writer = frozen.leader();
    let mut strangers = strangers(address, STRANGER_COUNT);
    let mut payload = Vec::new();
    write_record(&mut payload, &vec![7; RECORD_SIZE]);
    let append = Append {
        producer: 5,
        group: 1,
        record_count: 1,
        epoch: 1,
        ..Append::default()
    };
    let frame = writer.frame(&append, &payload);
    writer.send_bytes(&frame[..BEFORE_SIZE]);
    std::thread::sleep(Duration::from_millis(200));

    signal(process, "-STOP");
    for stranger in &mut strangers {
        stranger.send(&hello());
    }
    std::thread::sleep(FREEZE);
    signal(process, "-CONT");
    for piece in frame[BEFORE_SIZE..].chunks(PIECE_SIZE) {
        writer.send_bytes(piece);
        std::thread::sleep(PIECE_PAUSE);
    }
    let answer = writer.receive();
    let Answer::Append(reply) = answer else {
        panic!("the append is whole by now")
    };
    assert_eq!((reply.outcome, reply.offset), (1, 0));
    assert_welcome(strangers);
}

/// All clients of a node that died turn to this one, which stands still just then.
#[test]
fn a_crowd_that_comes_in_a_freeze_is_let_in() {
    let frozen = Frozen::start();
    let (process, address) = (frozen.process(), &frozen.address);
    let _leader = frozen.leader();
    let mut first = strangers(address, CROWD_COUNT);
    signal(process, "-STOP");
    first.iter_mut().for_each(|wire| wire.send(&hello()));
    let mut second = strangers(address, CROWD_COUNT);
    second.iter_mut().for_each(|wire| wire.send(&hello()));
    std::thread::sleep(Duration::from_millis(200));
    signal(process, "-CONT");
    assert_welcome(first);
    assert_welcome(second);
}
