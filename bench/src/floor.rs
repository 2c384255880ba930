//! `Floor`: the quickest that one durable append could be on this machine.
//!
//! An append must reach the leader and its answer the client (one round trip), reach a follower
//! and be answered (another), and be synced there, while the other two nodes of this machine sync
//! theirs (a write beside two others). Nothing less makes it durable on a majority; whatever a
//! cluster takes above it is its own. The parts are measured by the ring, the disk set-up and the
//! waiting policy of a shard, in turns, so that a noisy neighbour meets all of them. Knows no
//! frame, no journal and no raft.
//!
//! ```text
//!   client --256 B--> leader --256 B--> follower: write 4 KiB, durable
//!          <--------         <--------            (so do the others, at the same time)
//! ```

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use ringwood_core::id::Nanos;
use ringwood_core::limits::SECTOR_SIZE;
use ringwood_net::clock;
use ringwood_net::disk::{Access, Calibration, Directory, DiskError};
use ringwood_net::ring::{
    AlignedBuffer, Completion, File, IoError, Outcome, Ring, RingError, RingOptions, Socket,
    SpinMode, Token, WriteMode,
};

use crate::histogram::{Latencies, Share};

/// Nodes that share this machine's disk.
const WRITER_COUNT: usize = 3;

/// Bytes there and back again: a small append, a small answer; padded frames are hardly less.
const MESSAGE_SIZE: usize = 256;

/// Bytes of each scratch file, written round and round.
const SCRATCH_SIZE: u64 = 16 << 20;

/// Repetitions at the beginning of each part that do not count: rings warm up, spinning learns.
const WARM_UP_COUNT: usize = 50;

/// No part of the floor takes a hundredth of this, unless it never ends.
const PATIENCE: Duration = Duration::from_secs(10);

/// How to measure.
#[derive(Clone, Debug)]
pub struct FloorOptions {
    /// Where nodes would have their directories: its file system is measured.
    pub dir: PathBuf,
    /// Turns that each part has.
    pub round_count: usize,
    /// Repetitions in a turn.
    pub sample_count: usize,
    /// How the ends of a connection, and a writer, wait.
    pub spin: SpinMode,
}

impl FloorOptions {
    /// About ten seconds; enough samples for a p99 of each part.
    #[must_use]
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self {
            dir: dir.into(),
            round_count: 11,
            sample_count: 1_000,
            spin: SpinMode::default(),
        }
    }
}

/// The floor and its parts.
#[derive(Clone, Debug)]
pub struct Floor {
    /// A message to another thread's ring over loopback, and one back.
    pub round_trip: Part,
    /// 4 KiB made durable, alone.
    pub one_writer: Part,
    /// 4 KiB made durable while two others do the same.
    pub three_writers: Part,
    /// Two round trips and a write beside two others, by their medians.
    pub floor: Nanos,
    /// How writes were made durable, and why so.
    pub calibration: Calibration,
}

/// One part of the floor.
#[derive(Clone, Debug)]
pub struct Part {
    /// The median of each round, in ascending order.
    pub medians: Vec<Nanos>,
    /// All samples of all rounds.
    pub all: Latencies,
}

impl Part {
    /// The median of the rounds' medians: one bad round does not move it.
    #[must_use]
    pub fn p50(&self) -> Nanos {
        self.medians[self.medians.len() / 2]
    }

    /// Of all samples, where they are enough.
    #[must_use]
    pub fn p99(&self) -> Option<Nanos> {
        self.all.percentile(Share::P99)
    }

    fn of(rounds: Vec<Latencies>) -> Self {
        assert!(!rounds.is_empty(), "a part has a round");
        let mut all = Latencies::default();
        rounds.iter().for_each(|round| all.add(round));
        let mut medians: Vec<Nanos> = rounds
            .iter()
            .filter_map(|round| round.at(Share::P50))
            .collect();
        assert_eq!(medians.len(), rounds.len(), "a round has a sample");
        medians.sort_unstable();
        Self { medians, all }
    }
}

/// Why the floor could not be measured. Nothing is left behind.
#[derive(Debug, thiserror::Error)]
pub enum FloorError {
    /// The directory is not one.
    #[error("{} is no directory", .0.display())]
    NoDirectory(PathBuf),
    /// The disk does not do what a journal needs, so there is no floor for one.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// No ring, no floor.
    #[error(transparent)]
    Ring(#[from] RingError),
    /// A call failed.
    #[error("{doing}: {error}")]
    Io {
        /// What was being done.
        doing: &'static str,
        /// Why not.
        error: IoError,
    },
    /// A completion did not come.
    #[error("{doing} did not end within {PATIENCE:?}")]
    Silent {
        /// What was waited for.
        doing: &'static str,
    },
}

/// Measures. Takes about ten seconds with `FloorOptions::new`, and 50 MiB for that long.
///
/// # Errors
/// `FloorError`.
pub fn measure(options: &FloorOptions) -> Result<Floor, FloorError> {
    assert!(options.round_count > 0 && options.sample_count > 0);
    let (files, calibration) = scratch_files(&options.dir)?;
    let mut rounds = [Vec::new(), Vec::new(), Vec::new()];
    for _ in 0..options.round_count {
        rounds[0].push(round_trips(options)?);
        rounds[1].push(durable_writes(options, &files[..1], calibration.mode)?);
        rounds[2].push(durable_writes(options, &files, calibration.mode)?);
    }
    let [round_trip, one_writer, three_writers] = rounds.map(Part::of);
    let floor = Nanos(2 * round_trip.p50().0 + three_writers.p50().0);
    Ok(Floor {
        round_trip,
        one_writer,
        three_writers,
        floor,
        calibration,
    })
}

/// Files as a node makes its journal's, without a name any more: gone with this process, however
/// that ends.
fn scratch_files(dir: &Path) -> Result<(Vec<File>, Calibration), FloorError> {
    if !dir.is_dir() {
        return Err(FloorError::NoDirectory(dir.to_owned()));
    }
    let home = Home(dir.join(format!("ringwood-floor-{}", std::process::id())));
    let directory = Directory::create(&home.0, Access::Direct)?;
    let count = u32::try_from(WRITER_COUNT).expect("a few");
    directory.create_journal(count, SCRATCH_SIZE)?;
    let files = directory.open_journal(count, SCRATCH_SIZE)?;
    Ok((files, directory.calibrate()?))
}

/// A directory that is removed with all that is in it.
struct Home(PathBuf);

impl Drop for Home {
    fn drop(&mut self) {
        // An error means that it was never made, or that nothing more can be done about it.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn ring(options: &FloorOptions) -> Result<Ring, RingError> {
    Ring::new(&RingOptions {
        buffer_count: 16,
        buffer_size: 4096,
        spin: options.spin,
        ..RingOptions::default()
    })
}

fn round_trips(options: &FloorOptions) -> Result<Latencies, FloorError> {
    let anywhere = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let listener = Socket::listen(anywhere).map_err(io("listening on loopback"))?;
    let address = listener
        .local_address()
        .map_err(io("listening on loopback"))?;
    thread::scope(|scope| {
        let far = scope.spawn(|| echo(options, &listener));
        let near = call(options, address);
        let far = far.join().expect("an echo does not panic");
        near.and_then(|latencies| far.map(|()| latencies))
    })
}

/// The near end: sends, and waits until as much has come back.
fn call(options: &FloorOptions, address: SocketAddr) -> Result<Latencies, FloorError> {
    let doing = "a round trip over loopback";
    let mut ring = ring(options)?;
    let mut completions = Vec::new();
    let socket = Socket::stream(address).map_err(io(doing))?;
    ring.connect(Token(0), &socket, address);
    wait(&mut ring, &mut completions, doing)?;
    for completion in completions.drain(..) {
        completion.result.map_err(io(doing))?;
    }
    ring.receive(Token(0), &socket);
    let message = Bytes::from(vec![7; MESSAGE_SIZE]);
    let mut latencies = Latencies::default();
    for number in 0..WARM_UP_COUNT + options.sample_count {
        let started = clock::now();
        ring.send(Token(0), &socket, [message.clone()]);
        let (mut sent, mut back) = (false, 0);
        while !sent || back < MESSAGE_SIZE {
            wait(&mut ring, &mut completions, doing)?;
            for completion in completions.drain(..) {
                match completion.result.map_err(io(doing))? {
                    Outcome::Sent(_) => sent = true,
                    Outcome::Received(lease) => back += lease.len(),
                    outcome => unreachable!("{outcome:?} of an open connection"),
                }
            }
        }
        if number >= WARM_UP_COUNT {
            latencies.record(clock::now().since(started));
        }
    }
    Ok(latencies)
}

/// The far end: sends back what comes, until the near end is gone.
fn echo(options: &FloorOptions, listener: &Socket) -> Result<(), FloorError> {
    let doing = "an echo over loopback";
    let mut ring = ring(options)?;
    let mut completions = Vec::new();
    let mut peer: Option<Socket> = None;
    ring.accept(Token(0), listener);
    loop {
        wait(&mut ring, &mut completions, doing)?;
        for completion in completions.drain(..) {
            match completion.result {
                Ok(Outcome::Accepted(socket)) => {
                    ring.receive(Token(0), &socket);
                    peer = Some(socket);
                }
                Ok(Outcome::Received(lease)) => {
                    let peer = peer.as_ref().expect("bytes come from somebody");
                    ring.send(Token(0), peer, [Bytes::copy_from_slice(&lease)]);
                }
                Ok(Outcome::Ended) | Err(IoError::Reset) => return Ok(()),
                Ok(_) => {}
                Err(error) => return Err(io(doing)(error)),
            }
        }
    }
}

/// Each file has a writer, all write at the same time, and all end with the first that is through.
fn durable_writes(
    options: &FloorOptions,
    files: &[File],
    mode: WriteMode,
) -> Result<Latencies, FloorError> {
    let start = Barrier::new(files.len());
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let write = |file| {
            let (start, over) = (&start, &over);
            scope.spawn(move || {
                let ring = ring(options);
                // Without a ring too: the others wait here.
                start.wait();
                let written = ring
                    .map_err(FloorError::from)
                    .and_then(|ring| write_on(ring, file, mode, options.sample_count, over));
                over.store(true, Ordering::Relaxed);
                written
            })
        };
        let writers: Vec<_> = files.iter().map(write).collect();
        let mut all = Latencies::default();
        for writer in writers {
            all.add(&writer.join().expect("a writer does not panic")?);
        }
        Ok(all)
    })
}

fn write_on(
    mut ring: Ring,
    file: &File,
    mode: WriteMode,
    sample_count: usize,
    over: &AtomicBool,
) -> Result<Latencies, FloorError> {
    let doing = "a durable write";
    ring.register_file(file);
    let mut page = AlignedBuffer::zeroed(SECTOR_SIZE);
    // Not zeros: some devices make those cheap.
    clock::fill_random(page.as_mut_slice());
    let page = page.into_bytes(SECTOR_SIZE);
    let mut completions = Vec::new();
    let mut latencies = Latencies::default();
    let mut position = 0;
    for number in 0..WARM_UP_COUNT + sample_count {
        let started = clock::now();
        ring.write(Token(0), file, position, [page.clone()], mode);
        wait(&mut ring, &mut completions, doing)?;
        let ended = clock::now();
        let completion = completions.pop().expect("a wait ends with a completion");
        completion.result.map_err(io(doing))?;
        if number >= WARM_UP_COUNT {
            latencies.record(ended.since(started));
            if over.load(Ordering::Relaxed) {
                break;
            }
        }
        position = (position + SECTOR_SIZE as u64) % SCRATCH_SIZE;
    }
    Ok(latencies)
}

fn wait(
    ring: &mut Ring,
    completions: &mut Vec<Completion>,
    doing: &'static str,
) -> Result<(), FloorError> {
    match ring.submit_and_wait(Some(PATIENCE), completions)? {
        0 => Err(FloorError::Silent { doing }),
        _ => Ok(()),
    }
}

fn io(doing: &'static str) -> impl Fn(IoError) -> FloorError {
    move |error| FloorError::Io { doing, error }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spans(spans: &[u64]) -> Latencies {
        let mut latencies = Latencies::default();
        spans.iter().for_each(|span| latencies.record(Nanos(*span)));
        latencies
    }

    #[test]
    fn one_bad_round_does_not_move_a_part() {
        let part = Part::of(vec![
            spans(&[10, 11, 12]),
            spans(&[900, 901, 902]),
            spans(&[12, 13, 14]),
        ]);
        assert_eq!(part.p50(), Nanos(13));
        assert_eq!((part.all.count(), part.p99()), (9, None));
    }

    #[test]
    fn the_floor_is_two_round_trips_and_a_contended_write_and_leaves_nothing() {
        // A directory of the build: those of the system may be in memory only.
        let name = format!("../target/floor-test-{}", std::process::id());
        let home = Home(Path::new(env!("CARGO_MANIFEST_DIR")).join(name));
        let dir = &home.0;
        std::fs::create_dir_all(dir).unwrap();
        let mut options = FloorOptions::new(dir);
        (options.round_count, options.sample_count) = (3, 20);
        let floor = match measure(&options) {
            Err(
                error @ FloorError::Disk(DiskError::Volatile { .. } | DiskError::NotDirect { .. }),
            ) => {
                println!("skipped: {error}");
                return;
            }
            other => other.unwrap(),
        };
        let parts = [&floor.round_trip, &floor.one_writer, &floor.three_writers];
        assert!(
            parts
                .iter()
                .all(|part| part.medians.len() == 3 && part.p50() > Nanos(0))
        );
        assert_eq!((parts[0].all.count(), parts[1].all.count()), (60, 60));
        assert!(parts[2].all.count() >= 60 && parts[2].all.count() <= 180);
        let sum = 2 * floor.round_trip.p50().0 + floor.three_writers.p50().0;
        assert_eq!(floor.floor, Nanos(sum));
        assert_eq!(std::fs::read_dir(dir).unwrap().count(), 0);
    }

    #[test]
    fn a_directory_that_is_none_is_refused() {
        let missing = FloorOptions::new("/nowhere/at/all");
        assert!(matches!(measure(&missing), Err(FloorError::NoDirectory(_))));
    }
}
