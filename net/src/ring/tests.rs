//! Real operations against the kernel: loopback sockets and files of the build directory.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use bytes::Bytes;

use super::*;

const ANYWHERE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
const SOON: Option<Duration> = Some(Duration::from_secs(10));

fn ring() -> Ring {
    ring_with(16, 4096)
}

fn ring_with(buffer_count: u16, buffer_size: u32) -> Ring {
    Ring::new(&RingOptions {
        buffer_count,
        buffer_size,
        ..RingOptions::default()
    })
    .unwrap()
}

/// Two ends of one loopback connection.
fn pair() -> (Socket, Socket) {
    let listener = std::net::TcpListener::bind(ANYWHERE).unwrap();
    let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let far = listener.accept().unwrap().0;
    (
        Socket::from(OwnedFd::from(near)),
        Socket::from(OwnedFd::from(far)),
    )
}

/// The next completion; there must be one soon.
fn next(ring: &mut Ring) -> Completion {
    let mut all = all(ring);
    assert_eq!(all.len(), 1, "{all:?}");
    all.remove(0)
}

fn all(ring: &mut Ring) -> Vec<Completion> {
    let mut completions = Vec::new();
    let count = ring.submit_and_wait(SOON, &mut completions).unwrap();
    assert!(count > 0, "nothing completes");
    completions
}

/// Bytes that count their owners.
struct Counted(&'static AtomicUsize, Vec<u8>);

impl Counted {
    fn bytes(alive: &'static AtomicUsize, size: usize) -> Bytes {
        alive.fetch_add(1, Ordering::Relaxed);
        Bytes::from_owner(Self(alive, vec![7; size]))
    }
}

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        &self.1
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[test]
fn the_probe_says_what_is_used_and_why_not() {
    let ring = ring();
    let text = ring.probe().to_string();
    assert_eq!(ring.probe().levers().count(), Lever::ALL.len(), "{text}");
    println!("{text}");
    let lost_before = Lever::ALL
        .iter()
        .filter(|at| !ring.probe().uses(**at))
        .count();
    for lever in Lever::ALL {
        let options = RingOptions {
            setup: RingSetup {
                without: vec![lever],
                ..RingOptions::default().setup
            },
            ..RingOptions::default()
        };
        let mut ring = Ring::new(&options).unwrap();
        // Only those that cannot do without it go with it.
        let lost = Lever::ALL
            .iter()
            .filter(|at| !ring.probe().uses(**at))
            .count();
        assert!(
            !ring.probe().uses(lever) && lost <= lost_before + 1,
            "{}",
            ring.probe()
        );
        echo_once(&mut ring);
    }
}

#[test]
fn a_ring_without_any_lever_works() {
    let setup = RingSetup {
        without: Lever::ALL.to_vec(),
        ..RingOptions::default().setup
    };
    let mut ring = Ring::new(&RingOptions {
        setup,
        ..RingOptions::default()
    })
    .unwrap();
    echo_once(&mut ring);
}

fn echo_once(ring: &mut Ring) {
    let (near, far) = pair();
    ring.send(
        Token(1),
        &near,
        [Bytes::from_static(b"hello"), Bytes::from_static(b" ring")],
    );
    ring.receive(Token(2), &far);
    let mut got = Vec::new();
    while got.len() < 10 || ring.in_flight() > 1 {
        for completion in all(ring) {
            match completion.result.unwrap() {
                Outcome::Sent(size) => assert_eq!((completion.token, size), (Token(1), 10)),
                Outcome::Received(lease) => got.extend_from_slice(&lease),
                other => panic!("{other:?}"),
            }
        }
    }
    assert_eq!(got, b"hello ring");
}

/// Accepts, connects, and sends more than the socket buffers hold in uneven pieces, so that the
/// sends must come back short; the far side echoes; every byte is compared.
#[test]
fn large_sends_are_whole_through_multishot_receives() {
    let mut ring = ring_with(64, 4096);
    let listener = Socket::listen(ANYWHERE).unwrap();
    let address = listener.local_address().unwrap();
    const ACCEPT: Token = Token(1);
    const NEAR: Token = Token(2);
    const FAR: Token = Token(3);
    const NEAR_SEND: Token = Token(4);
    const FAR_SEND: Token = Token(5);
    let accept = ring.accept(ACCEPT, &listener);
    let near = Socket::stream(address).unwrap();
    ring.connect(NEAR, &near, address);
    let size = 24 << 20;
    let sent: Bytes = (0..size)
        .map(|at: u32| (at / 3) as u8 ^ (at >> 13) as u8)
        .collect();
    let mut pieces = Vec::new();
    let mut left = sent.clone();
    while !left.is_empty() {
        let piece = (pieces.len() * 37 % 20_000 + 1).min(left.len());
        pieces.push(left.split_to(piece));
    }
    assert!(
        pieces.len() > 1024,
        "more pieces than the kernel takes at once"
    );
    let mut far = None;
    let mut echo: Vec<Bytes> = Vec::new();
    let mut echoing = false;
    let mut got = Vec::new();
    while got.len() < sent.len() {
        for completion in all(&mut ring) {
            match (completion.token, completion.result) {
                (ACCEPT, Ok(Outcome::Accepted(socket))) => {
                    assert!(completion.more);
                    ring.receive(FAR, &socket);
                    far = Some(socket);
                }
                (NEAR, Ok(Outcome::Connected)) => {
                    assert_eq!(near.peer_address().unwrap(), address);
                    ring.receive(NEAR, &near);
                    ring.send(NEAR_SEND, &near, pieces.drain(..));
                }
                (token @ (NEAR | FAR), Ok(Outcome::Received(lease))) => {
                    if token == NEAR {
                        got.extend_from_slice(&lease);
                    } else {
                        echo.push(Bytes::copy_from_slice(&lease));
                    }
                    if !completion.more {
                        let socket = if token == NEAR {
                            &near
                        } else {
                            far.as_ref().unwrap()
                        };
                        ring.receive(token, socket);
                    }
                }
                (token @ (NEAR | FAR), Err(IoError::NoBuffers)) => {
                    assert!(!completion.more);
                    let socket = if token == NEAR {
                        &near
                    } else {
                        far.as_ref().unwrap()
                    };
                    ring.receive(token, socket);
                }
                (NEAR_SEND, Ok(Outcome::Sent(count))) => assert_eq!(count, u64::from(size)),
                (FAR_SEND, Ok(Outcome::Sent(_))) => echoing = false,
                other => panic!("{other:?}"),
            }
        }
        if !echoing && !echo.is_empty() {
            ring.send(FAR_SEND, far.as_ref().unwrap(), echo.drain(..));
            echoing = true;
        }
    }
    assert!(got == sent, "the echo differs");
    assert!(ring.cancel(accept));
}

#[test]
fn receives_out_of_buffers_say_so_and_lose_nothing() {
    let mut ring = ring_with(4, 64);
    let (near, far) = pair();
    let sent: Vec<u8> = (0..1000u32).map(|at| at as u8).collect();
    ring.send(Token(1), &near, [Bytes::from(sent.clone())]);
    ring.receive(Token(2), &far);
    let mut leases = Vec::new();
    let mut got = Vec::new();
    let mut dry = 0;
    while got.len() < sent.len() {
        for completion in all(&mut ring) {
            match completion.result {
                Ok(Outcome::Received(lease)) => leases.push(lease),
                Ok(Outcome::Sent(1000)) => {}
                Err(IoError::NoBuffers) => {
                    assert!(!completion.more && ring.buffers_free() == 0);
                    dry += 1;
                    leases
                        .drain(..)
                        .for_each(|lease| got.extend_from_slice(&lease));
                    assert_eq!(ring.buffers_free(), 4);
                    ring.receive(Token(2), &far);
                }
                other => panic!("{other:?}"),
            }
        }
        if got.len() + leases.iter().map(|lease| lease.len()).sum::<usize>() == sent.len() {
            leases
                .drain(..)
                .for_each(|lease| got.extend_from_slice(&lease));
        }
    }
    assert!(dry >= 3, "ran dry {dry} times");
    assert_eq!(got, sent);
}

#[test]
fn a_peer_that_finishes_ends_the_receive() {
    let mut ring = ring();
    let (near, far) = pair();
    ring.receive(Token(2), &far);
    near.finish().unwrap();
    let completion = next(&mut ring);
    assert!(matches!(completion.result, Ok(Outcome::Ended)) && !completion.more);
    assert_eq!(ring.in_flight(), 0);
}

#[test]
fn a_connection_nobody_listens_for_is_refused() {
    let mut ring = ring();
    let address = Socket::listen(ANYWHERE).unwrap().local_address().unwrap();
    let socket = Socket::stream(address).unwrap();
    ring.connect(Token(1), &socket, address);
    let error = next(&mut ring).result.unwrap_err();
    assert_eq!(error, IoError::Refused);
    assert!(error.is_peers());
}

#[test]
fn a_reset_connection_fails_receive_and_send() {
    let mut ring = ring();
    let (near, far) = pair();
    rustix::net::sockopt::set_socket_linger(&far, Some(Duration::ZERO)).unwrap();
    ring.receive(Token(1), &near);
    ring.submit().unwrap();
    drop(far);
    assert_eq!(next(&mut ring).result.unwrap_err(), IoError::Reset);
    ring.send(Token(2), &near, [Bytes::from_static(b"x")]);
    assert_eq!(next(&mut ring).result.unwrap_err(), IoError::Reset);
}

#[test]
fn a_receive_in_flight_can_be_cancelled_once() {
    let mut ring = ring();
    let (near, far) = pair();
    let id = ring.receive(Token(2), &far);
    ring.submit().unwrap();
    assert!(ring.cancel(id) && ring.cancel(id));
    let completion = next(&mut ring);
    assert_eq!(completion.token, Token(2));
    assert_eq!(completion.result.unwrap_err(), IoError::Cancelled);
    assert!(!completion.more && !ring.cancel(id));
    // The socket is as good as before.
    ring.receive(Token(3), &far);
    ring.send(Token(4), &near, [Bytes::from_static(b"still here")]);
    let mut tokens: Vec<Token> = all(&mut ring).iter().map(|at| at.token).collect();
    if tokens.len() < 2 {
        tokens.extend(all(&mut ring).iter().map(|at| at.token));
    }
    assert!(tokens.contains(&Token(3)) && tokens.contains(&Token(4)));
}

#[test]
fn closing_a_socket_ends_all_on_it_and_lets_the_buffers_go() {
    static ALIVE: AtomicUsize = AtomicUsize::new(0);
    let mut ring = ring();
    let (near, far) = pair();
    ring.receive(Token(1), &near);
    // More than loopback takes while nobody reads: it stays in flight.
    ring.send(
        Token(2),
        &near,
        (0..64).map(|_| Counted::bytes(&ALIVE, 1 << 20)),
    );
    let mut none = Vec::new();
    ring.submit_and_wait(Some(Duration::from_millis(50)), &mut none)
        .unwrap();
    assert!(
        none.is_empty() && ALIVE.load(Ordering::Relaxed) == 64,
        "{none:?}"
    );
    ring.close(&near);
    let mut ended = BTreeMap::new();
    while ring.in_flight() > 0 {
        for completion in all(&mut ring) {
            assert!(!completion.more);
            ended.insert(completion.token, completion.result.is_ok());
        }
    }
    // The receive sees the end of the stream or the cancellation, whichever is first.
    assert_eq!(
        ended.keys().copied().collect::<Vec<_>>(),
        [Token(1), Token(2)]
    );
    assert!(!ended[&Token(2)], "the send cannot have been whole");
    assert_eq!(ALIVE.load(Ordering::Relaxed), 0);
    drop(near);
    let mut rest = Vec::new();
    let mut far = TcpStream::from(std::os::fd::AsFd::as_fd(&far).try_clone_to_owned().unwrap());
    // The descriptor is closed: the far side comes to an end.
    let _ = far.read_to_end(&mut rest);
    assert!(rest.len() < 64 << 20);
}

#[test]
fn a_ring_dropped_with_operations_in_flight_lets_all_go() {
    static ALIVE: AtomicUsize = AtomicUsize::new(0);
    let mut ring = ring();
    let listener = Socket::listen(ANYWHERE).unwrap();
    ring.accept(Token(0), &listener);
    let pairs: Vec<_> = (0..8).map(|_| pair()).collect();
    let mut leases = Vec::new();
    for (near, far) in &pairs {
        ring.receive(Token(1), near);
        ring.receive(Token(1), far);
        ring.send(
            Token(2),
            near,
            (0..32).map(|_| Counted::bytes(&ALIVE, 1 << 20)),
        );
    }
    for completion in all(&mut ring) {
        if let Ok(Outcome::Received(lease)) = completion.result {
            leases.push(lease);
        }
    }
    assert!(ring.in_flight() > 0 && ALIVE.load(Ordering::Relaxed) > 0 && !leases.is_empty());
    drop(ring);
    assert_eq!(ALIVE.load(Ordering::Relaxed), 0);
    // A lease outlives its ring.
    assert!(
        leases
            .iter()
            .all(|lease| lease.iter().all(|byte| *byte == 7))
    );
}

#[test]
fn a_waker_ends_a_sleep_from_another_thread() {
    for spin in [SpinMode::Never, SpinMode::default(), SpinMode::Always] {
        let mut ring = Ring::new(&RingOptions {
            spin,
            ..RingOptions::default()
        })
        .unwrap();
        for round in 0..20 {
            let waker = ring.waker();
            let other = thread::spawn(move || {
                thread::sleep(Duration::from_millis(round % 4));
                waker.wake();
            });
            let completion = next(&mut ring);
            assert!(matches!(completion.result, Ok(Outcome::Woken)));
            assert_eq!(completion.token, Token::WAKER);
            other.join().unwrap();
        }
    }
}

#[test]
fn a_wait_with_nothing_to_come_ends_with_its_timeout() {
    for spin in [SpinMode::Never, SpinMode::default(), SpinMode::Always] {
        let mut ring = Ring::new(&RingOptions {
            spin,
            ..RingOptions::default()
        })
        .unwrap();
        for timeout in [Duration::ZERO, Duration::from_millis(5)] {
            let started = clock::now();
            let mut none = Vec::new();
            assert_eq!(ring.submit_and_wait(Some(timeout), &mut none).unwrap(), 0);
            assert!(span(started, clock::now()) >= timeout);
        }
    }
}

#[test]
fn more_operations_than_the_queues_hold_all_complete() {
    let setup = RingSetup {
        submission_count: 4,
        completion_count: 8,
        without: Vec::new(),
    };
    let mut ring = Ring::new(&RingOptions {
        setup,
        ..RingOptions::default()
    })
    .unwrap();
    let file = scratch("queues", 4096);
    for token in 0..500 {
        ring.read(Token(token), &file, 0, 100);
    }
    let mut seen = vec![0; 500];
    while ring.in_flight() > 0 {
        for completion in all(&mut ring) {
            assert!(matches!(completion.result, Ok(Outcome::Read(bytes)) if bytes.len() == 100));
            seen[completion.token.0 as usize] += 1;
        }
    }
    assert!(seen.iter().all(|count| *count == 1));
}

/// A file of `size` zeros that is gone once closed.
fn scratch(name: &str, size: u64) -> File {
    let path = std::env::temp_dir().join(format!("ringwood-{name}-{}", std::process::id()));
    let mut file = std::fs::File::options()
        .read(true)
        .write(true)
        .create_new(true)
        .open(&path)
        .unwrap();
    file.write_all(&vec![0; usize::try_from(size).unwrap()])
        .unwrap();
    std::fs::remove_file(path).unwrap();
    File::from(OwnedFd::from(file))
}

#[test]
fn what_is_written_is_read_in_every_mode() {
    let mut ring = ring();
    for (registered, mode) in [
        (false, WriteMode::Plain),
        (true, WriteMode::Durable),
        (true, WriteMode::DurableBySync),
    ] {
        let file = scratch("modes", 0);
        assert_eq!(registered && ring.register_file(&file), registered);
        let parts = [Bytes::from_static(b"one "), Bytes::from_static(b"run")];
        ring.write(Token(1), &file, 100, parts, mode);
        assert!(matches!(next(&mut ring).result, Ok(Outcome::Written(7))));
        ring.write(Token(1), &file, 107, [Bytes::from_static(b"!")], mode);
        assert!(matches!(next(&mut ring).result, Ok(Outcome::Written(1))));
        ring.sync(Token(2), &file);
        assert!(matches!(next(&mut ring).result, Ok(Outcome::Synced)));
        ring.read(Token(3), &file, 98, 4096);
        let Ok(Outcome::Read(bytes)) = next(&mut ring).result else {
            panic!("no bytes")
        };
        assert_eq!(bytes, b"\0\0one run!"[..]);
        ring.read(Token(3), &file, 4096, 10);
        assert!(matches!(next(&mut ring).result, Ok(Outcome::Read(bytes)) if bytes.is_empty()));
    }
}

#[test]
fn a_full_device_is_told_from_a_broken_one() {
    let Ok(full) = std::fs::File::options().write(true).open("/dev/full") else {
        println!("skipped: no /dev/full here");
        return;
    };
    let mut ring = ring();
    let file = File::from(OwnedFd::from(full));
    ring.write(
        Token(1),
        &file,
        0,
        [Bytes::from_static(b"x")],
        WriteMode::Plain,
    );
    assert_eq!(next(&mut ring).result.unwrap_err(), IoError::DiskFull);
}

/// A small generator: the test is the same for the same seed.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 33).unwrap() % bound
    }
}

/// Random receives, sends, reads, writes, cancels and closes against a ring too small for them,
/// with leases kept and dropped at random. In the end each operation has ended exactly once, each
/// buffer has been let go, each lease is back.
#[test]
fn a_hundred_thousand_random_operations_leave_nothing_behind() {
    for seed in [0x5eed, 0x0b5e55ed] {
        println!("seed {seed:#x}");
        churn(seed, 50_000);
    }
}

fn churn(seed: u64, step_count: u64) {
    static ALIVE: AtomicUsize = AtomicUsize::new(0);
    const PAIR_COUNT: usize = 12;
    let setup = RingSetup {
        submission_count: 16,
        completion_count: 32,
        without: Vec::new(),
    };
    let options = RingOptions {
        setup,
        buffer_count: 8,
        buffer_size: 512,
        ..Default::default()
    };
    let mut ring = Ring::new(&options).unwrap();
    let mut dice = Dice(seed);
    let file = scratch("churn", 1 << 20);
    assert!(ring.register_file(&file));
    let mut ends: Vec<[Socket; 2]> = (0..PAIR_COUNT).map(|_| unix_pair()).collect();
    let mut open: BTreeMap<Token, OperationId> = BTreeMap::new();
    let mut ended = 0;
    let mut leases = Vec::new();
    let mut completions = Vec::new();
    for step in 0..step_count {
        let token = Token(step);
        let socket = ends[dice.below(PAIR_COUNT)][dice.below(2)].clone();
        let started = match dice.below(12) {
            0..3 => Some(ring.receive(token, &socket)),
            3..6 => {
                let count = dice.below(5) + 1;
                let sizes: Vec<usize> = (0..count).map(|_| dice.below(30_000) + 1).collect();
                let data = sizes.into_iter().map(|size| Counted::bytes(&ALIVE, size));
                Some(ring.send(token, &socket, data))
            }
            6 => Some(ring.read(
                token,
                &file,
                dice.below(1 << 20) as u64,
                dice.below(9000) + 1,
            )),
            7 => {
                let data = [Counted::bytes(&ALIVE, dice.below(9000) + 1)];
                let position = dice.below(1 << 19) as u64;
                Some(ring.write(token, &file, position, data, WriteMode::Plain))
            }
            8 | 9 => {
                let old = Token(step.saturating_sub(dice.below(200) as u64));
                match (open.get(&old), dice.below(2)) {
                    (Some(id), 0) => assert!(ring.cancel(*id)),
                    (known, _) => assert_eq!(ring.cancel_all(old), usize::from(known.is_some())),
                }
                None
            }
            10 => {
                let pair = dice.below(PAIR_COUNT);
                for socket in std::mem::replace(&mut ends[pair], unix_pair()) {
                    if dice.below(2) == 0 {
                        ring.close(&socket);
                    }
                    // Otherwise its operations alone keep it open.
                }
                None
            }
            _ => {
                leases.truncate(dice.below(8));
                None
            }
        };
        if let Some(id) = started {
            assert!(open.insert(token, id).is_none());
        }
        if dice.below(4) == 0 {
            ring.submit_and_wait(Some(Duration::ZERO), &mut completions)
                .unwrap();
        }
        // An end dropped without a close leaves operations nobody can see any more.
        while open.len() > 600 {
            let (_, id) = open.first_key_value().unwrap();
            ring.cancel(*id);
            ring.submit_and_wait(SOON, &mut completions).unwrap();
            ended += settle(&mut open, &mut completions, &mut leases);
        }
        ended += settle(&mut open, &mut completions, &mut leases);
        assert_eq!(ring.in_flight(), open.len());
    }
    ends.iter().flatten().for_each(|socket| ring.close(socket));
    open.values().for_each(|id| assert!(ring.cancel(*id)));
    while ring.in_flight() > 0 {
        ring.submit_and_wait(SOON, &mut completions).unwrap();
        assert!(
            !completions.is_empty(),
            "{} operations never end",
            ring.in_flight()
        );
        ended += settle(&mut open, &mut completions, &mut leases);
    }
    assert!(
        open.is_empty() && ended > step_count / 2,
        "{ended} ended, {} open",
        open.len()
    );
    assert_eq!(ALIVE.load(Ordering::Relaxed), 0);
    leases.clear();
    assert_eq!(ring.buffers_free(), 8);
}

/// Takes in completions; how many operations ended.
fn settle(
    open: &mut BTreeMap<Token, OperationId>,
    completions: &mut Vec<Completion>,
    leases: &mut Vec<Lease>,
) -> u64 {
    let mut ended = 0;
    for completion in completions.drain(..) {
        assert!(
            open.contains_key(&completion.token),
            "{completion:?} has ended before"
        );
        if !completion.more {
            open.remove(&completion.token);
            ended += 1;
        }
        match completion.result {
            Ok(Outcome::Received(lease)) => leases.push(lease),
            Ok(_) => {}
            Err(IoError::Cancelled | IoError::NoBuffers | IoError::Reset) => {}
            Err(error) => panic!("{:?}: {error}", completion.token),
        }
    }
    ended
}

fn unix_pair() -> [Socket; 2] {
    let (near, far) = std::os::unix::net::UnixStream::pair().unwrap();
    [near, far].map(|end| Socket::from(OwnedFd::from(end)))
}
