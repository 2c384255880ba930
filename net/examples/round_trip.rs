//! What a hop costs on this machine: round trips of 256 bytes between two threads, each with a
//! ring, over loopback TCP; asleep, spinning as learned, and busy-polling. Then the wake-up of one
//! ring by another thread, and, given a directory, the ways to be durable.
//!
//! ```text
//! cargo run --release -p ringwood-net --example round_trip [directory]
//! ```

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use ringwood_net::clock;
use ringwood_net::disk::{Access, Directory};
use ringwood_net::ring::{
    Completion, Lever, Outcome, Ring, RingOptions, RingSetup, SPIN_LIMIT, Socket, SpinMode, Token,
};

const ROUND_COUNT: usize = 20_000;
const WARM_UP_COUNT: usize = 1_000;
const MESSAGE_SIZE: usize = 256;

const RECEIVE: Token = Token(1);
const SEND: Token = Token(2);

fn main() {
    let ring = Ring::new(&RingOptions::default()).unwrap_or_else(|error| panic!("{error}"));
    println!("{}", ring.probe());
    drop(ring);
    println!("round trip of {MESSAGE_SIZE} bytes on loopback, {ROUND_COUNT} rounds:");
    // Where the scheduler puts the two decides more than any flag: measured for both cases.
    let places = [("two cores", [0, 1]), ("one core", [0, 0])];
    let spins = [
        ("asleep", SpinMode::Never),
        ("adaptive", SpinMode::Adaptive(SPIN_LIMIT)),
        ("busy-poll", SpinMode::Always),
    ];
    for (place, cores) in places {
        for (name, spin) in spins {
            measure(
                &format!("{place}, {name}"),
                spin,
                &[],
                Duration::ZERO,
                cores,
            );
        }
    }
    println!("the same, with 1 ms between rounds (spinning should not pay, nor waste):");
    for (place, cores) in places {
        for (name, spin) in &spins[..2] {
            measure(
                &format!("{place}, {name}"),
                *spin,
                &[],
                Duration::from_millis(1),
                cores,
            );
        }
    }
    println!("two cores, adaptive, without single levers:");
    let adaptive = SpinMode::Adaptive(SPIN_LIMIT);
    for lever in Lever::ALL {
        measure(
            &format!("no {lever:?}"),
            adaptive,
            &[lever],
            Duration::ZERO,
            [0, 1],
        );
    }
    measure("no lever", adaptive, &Lever::ALL, Duration::ZERO, [0, 1]);
    if let Some(path) = std::env::args_os().nth(1).map(PathBuf::from) {
        let directory = Directory::create(&path, Access::Direct);
        match directory.and_then(|directory| directory.calibrate()) {
            Ok(calibration) => println!("{calibration}"),
            Err(error) => println!("{error}"),
        }
    }
}

fn measure(name: &str, spin: SpinMode, without: &[Lever], pause: Duration, cores: [usize; 2]) {
    let options = RingOptions {
        setup: RingSetup {
            without: without.to_vec(),
            ..RingOptions::default().setup
        },
        spin,
        ..RingOptions::default()
    };
    let listener = Socket::listen(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).unwrap();
    let address = listener.local_address().unwrap();
    let echo = {
        let options = options.clone();
        thread::spawn(move || {
            pin(cores[1]);
            echo(&options, &listener);
        })
    };
    pin(cores[0]);
    let mut ring = Ring::new(&options).unwrap();
    let socket = Socket::stream(address).unwrap();
    let mut completions = Vec::new();
    ring.connect(Token(0), &socket, address);
    ring.submit_and_wait(None, &mut completions).unwrap();
    completions
        .drain(..)
        .for_each(|completion| assert!(completion.result.is_ok()));
    ring.receive(RECEIVE, &socket);
    let message = Bytes::from(vec![1; MESSAGE_SIZE]);
    let round_count = if pause.is_zero() {
        ROUND_COUNT
    } else {
        ROUND_COUNT / 10
    };
    let mut spans = Vec::new();
    let cpu_before = cpu_ns();
    let started = clock::now();
    for round in 0..round_count + WARM_UP_COUNT {
        if !pause.is_zero() {
            let until = clock::now().after(ringwood_core::id::Nanos(pause.as_nanos() as u64));
            while let left @ 1.. = until.since(clock::now()).0 {
                let left = Some(Duration::from_nanos(left));
                ring.submit_and_wait(left, &mut completions).unwrap();
                completions.clear();
            }
        }
        let sent_at = clock::now();
        ring.send(SEND, &socket, [message.clone()]);
        let mut received = 0;
        while received < MESSAGE_SIZE {
            ring.submit_and_wait(None, &mut completions).unwrap();
            received += take_received(&mut completions, |_| {});
        }
        if round >= WARM_UP_COUNT {
            spans.push(clock::now().since(sent_at).0);
        }
    }
    let wall = clock::now().since(started).0;
    ring.close(&socket);
    drop((ring, socket));
    echo.join().unwrap();
    spans.sort_unstable();
    let at = |part: usize| spans[spans.len() * part / 1000] as f64 / 1e3;
    println!(
        "  {name:<22} p50 {:6.1} us  p90 {:6.1} us  p99 {:6.1} us  cpu of both {:4.1} us a round, \
         {:3.0} % of a core",
        at(500),
        at(900),
        at(990),
        (cpu_ns() - cpu_before) as f64 / 1e3 / (round_count + WARM_UP_COUNT) as f64,
        (cpu_ns() - cpu_before) as f64 / wall as f64 * 100.0,
    );
}

fn echo(options: &RingOptions, listener: &Socket) {
    let mut ring = Ring::new(options).unwrap();
    let mut completions = Vec::new();
    ring.accept(Token(0), listener);
    ring.submit_and_wait(None, &mut completions).unwrap();
    let Ok(Outcome::Accepted(socket)) = completions.remove(0).result else {
        panic!("no peer")
    };
    ring.receive(RECEIVE, &socket);
    let mut answers = Vec::new();
    loop {
        ring.submit_and_wait(None, &mut completions).unwrap();
        let over = completions
            .iter()
            .any(|completion| completion.token == RECEIVE && !completion.more);
        take_received(&mut completions, |bytes| {
            answers.push(Bytes::copy_from_slice(bytes))
        });
        for answer in answers.drain(..) {
            ring.send(SEND, &socket, [answer]);
        }
        if over {
            return;
        }
    }
}

fn take_received(completions: &mut Vec<Completion>, mut with: impl FnMut(&[u8])) -> usize {
    let mut received = 0;
    for completion in completions.drain(..) {
        if let Ok(Outcome::Received(lease)) = completion.result {
            received += lease.len();
            with(&lease);
        }
    }
    received
}

fn pin(core: usize) {
    let mut cores = rustix::thread::CpuSet::new();
    cores.set(core);
    if rustix::thread::sched_setaffinity(None, &cores).is_err() {
        println!("  (no core {core} here: not pinned)");
    }
}

/// Processor time of all threads.
fn cpu_ns() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}
