//! A real directory of the build, on whatever disk that is.

use ringwood_core::id::GroupId;

use super::*;
use crate::ring::{Outcome, Ring, RingOptions, Token, WriteMode};

const FILE_SIZE: u64 = 2 << 20;

/// A directory of its own, removed with all in it.
struct Place(PathBuf);

impl Place {
    fn new(name: &str) -> Self {
        let number = crate::clock::random_u64();
        Self(std::env::temp_dir().join(format!("ringwood-{name}-{number:016x}")))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Direct where the build's disk offers it.
fn directory(place: &Place) -> Directory {
    match Directory::create(&place.0, Access::Direct) {
        Err(error @ (DiskError::NotDirect { .. } | DiskError::Volatile { .. })) => {
            println!("buffered only: {error}");
            Directory::create(&place.0, Access::BufferedForDevelopmentOnly).unwrap()
        }
        other => other.unwrap(),
    }
}

#[test]
fn opening_makes_nothing() {
    let place = Place::new("missing");
    let refused = Directory::open(&place.0, Access::default());
    assert!(
        matches!(refused, Err(DiskError::Missing { .. })),
        "{refused:?}"
    );
    assert!(!place.0.exists());
    let directory = directory(&place);
    assert!(matches!(
        directory.open_journal(1, FILE_SIZE),
        Err(DiskError::Missing { .. })
    ));
    assert!(matches!(
        directory.open_segment(GroupId(1), 0),
        Err(DiskError::Missing { .. })
    ));
    assert!(matches!(
        directory.read_small("identity", 10),
        Err(DiskError::Missing { .. })
    ));
}

#[test]
fn a_second_owner_is_refused_by_name_until_the_first_is_gone() {
    let place = Place::new("lock");
    let first = directory(&place);
    let child = first.child("shard-0").unwrap();
    for first in [Some(first), None] {
        let refused = Directory::open(&place.0, child.access());
        let Err(DiskError::Locked { holder, .. }) = refused else {
            panic!("{refused:?}")
        };
        assert_eq!(holder, Some(std::process::id()));
        drop(first);
    }
    drop(child);
    Directory::open(&place.0, Access::BufferedForDevelopmentOnly).unwrap();
}

#[test]
fn a_file_system_in_memory_is_refused_unless_asked_for() {
    let path = Path::new("/dev/shm").join(format!("ringwood-{:x}", crate::clock::random_u64()));
    let place = Place(path);
    match Directory::create(&place.0, Access::Direct) {
        Err(DiskError::Volatile { kind: "tmpfs", .. }) => {}
        other => {
            println!("skipped: /dev/shm is no tmpfs here: {other:?}");
            return;
        }
    }
    assert_eq!(
        std::fs::read_dir(&place.0).unwrap().count(),
        0,
        "nothing was changed"
    );
    let directory = Directory::open(&place.0, Access::BufferedForDevelopmentOnly).unwrap();
    directory.create_journal(1, FILE_SIZE).unwrap();
    directory.calibrate().unwrap();
}

#[test]
fn a_journal_is_made_whole_once_and_half_made_files_are_not_taken() {
    let place = Place::new("journal");
    let directory = directory(&place);
    // As a power cut while filling would leave it.
    std::fs::write(place.0.join("journal-1.new"), vec![9; 1000]).unwrap();
    directory.create_journal(2, FILE_SIZE).unwrap();
    let files = directory.open_journal(2, FILE_SIZE).unwrap();
    for file in &files {
        assert_eq!(size(file).unwrap(), FILE_SIZE);
        let bytes = read(file, FILE_SIZE - 8192, 16384).unwrap();
        assert!(bytes.len() == 8192 && bytes.iter().all(|byte| *byte == 0));
        // Not sparse: its blocks are there and written.
        let blocks = rustix::fs::fstat(file).unwrap().st_blocks;
        assert!(u64::try_from(blocks).unwrap() * 512 >= FILE_SIZE);
    }
    assert!(!place.0.join("journal-1.new").exists());
    std::fs::write(place.0.join("journal-0"), vec![7; 4096]).unwrap();
    for refused in [
        directory.create_journal(2, FILE_SIZE).unwrap_err(),
        directory.open_journal(2, FILE_SIZE).unwrap_err(),
    ] {
        assert!(matches!(
            refused,
            DiskError::Size {
                found: 4096,
                expected: FILE_SIZE,
                ..
            }
        ));
    }
    assert_eq!(
        std::fs::read(place.0.join("journal-0")).unwrap(),
        vec![7; 4096]
    );
}

#[test]
fn what_a_ring_writes_direct_is_read_back_by_both_ways() {
    let place = Place::new("direct");
    let directory = directory(&place);
    if directory.access() != Access::Direct {
        println!("skipped: no direct I/O here");
        return;
    }
    directory.create_journal(1, FILE_SIZE).unwrap();
    let file = directory.open_journal(1, FILE_SIZE).unwrap().remove(0);
    assert!(file.is_direct());
    let mut ring = Ring::new(&RingOptions::default()).unwrap();
    assert!(ring.register_file(&file));
    let mut run = AlignedBuffer::zeroed(1 << 20);
    crate::clock::fill_random(run.as_mut_slice());
    let run = run.into_bytes(1 << 20);
    for mode in [
        WriteMode::Plain,
        WriteMode::Durable,
        WriteMode::DurableBySync,
    ] {
        let pieces = [
            run.slice(..4096),
            run.slice(4096..65536),
            run.slice(65536..),
        ];
        ring.write(Token(1), &file, 8192, pieces, mode);
        ring.read(Token(2), &file, 0, 4096);
        let mut completions = Vec::new();
        while ring.in_flight() > 0 {
            ring.submit_and_wait(None, &mut completions).unwrap();
        }
        assert!(
            completions
                .iter()
                .all(|completion| completion.result.is_ok())
        );
        assert_eq!(read(&file, 8192, 1 << 20).unwrap(), run);
        ring.read(Token(3), &file, 8192 + 4096, 100_000);
        completions.clear();
        ring.submit_and_wait(None, &mut completions).unwrap();
        let Ok(Outcome::Read(bytes)) = &completions[0].result else {
            panic!("{completions:?}")
        };
        assert_eq!(*bytes, run[4096..104_096]);
    }
}

#[test]
#[should_panic(expected = "a direct write is aligned")]
fn a_direct_write_that_is_not_aligned_is_a_bug() {
    let place = Place::new("unaligned");
    let directory = directory(&place);
    assert_eq!(
        directory.access(),
        Access::Direct,
        "a direct write is aligned, where there is one"
    );
    directory.create_journal(1, FILE_SIZE).unwrap();
    let file = directory.open_journal(1, FILE_SIZE).unwrap().remove(0);
    let mut ring = Ring::new(&RingOptions::default()).unwrap();
    ring.write(
        Token(1),
        &file,
        0,
        [Bytes::from_static(b"short")],
        WriteMode::Plain,
    );
}

#[test]
fn segments_are_found_again_in_order() {
    let place = Place::new("segments");
    let directory = directory(&place);
    assert!(directory.segments(GroupId(3)).unwrap().is_empty());
    for number in [12, 0, 1] {
        let file = directory.create_segment(GroupId(3), number).unwrap();
        assert_eq!(size(&file).unwrap(), 0);
    }
    directory.create_segment(GroupId(0), 5).unwrap();
    std::fs::write(place.0.join("log-3/segment-x"), b"not ours").unwrap();
    assert_eq!(directory.groups().unwrap(), [GroupId(0), GroupId(3)]);
    assert_eq!(directory.segments(GroupId(3)).unwrap(), [0, 1, 12]);
    assert!(place.0.join("log-3/segment-00000012").exists());
    // Opened again as it is, not made anew.
    std::fs::write(place.0.join("log-3/segment-00000012"), vec![1; 4096]).unwrap();
    assert_eq!(
        size(&directory.create_segment(GroupId(3), 12).unwrap()).unwrap(),
        4096
    );
    for _ in 0..2 {
        directory.remove_segments(GroupId(3), 12).unwrap();
        assert_eq!(directory.segments(GroupId(3)).unwrap(), [12]);
    }
    assert!(place.0.join("log-3/segment-x").exists());
    directory.remove_segments(GroupId(9), 4).unwrap();
    assert_eq!(directory.segments(GroupId(0)).unwrap(), [5]);
}

#[test]
fn a_persist_record_that_was_cut_is_made_anew() {
    let place = Place::new("persist");
    let directory = directory(&place);
    let path = place.0.join(PERSIST_FILE);
    for cut in [None, Some(0), Some(4096)] {
        if let Some(size) = cut {
            let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
            file.set_len(size).unwrap();
        }
        drop(directory.open_persist().unwrap());
        let size = std::fs::metadata(&path).unwrap().len();
        assert_eq!(size, PERSIST_FILE_SIZE as u64);
    }
}

#[test]
fn a_small_file_is_replaced_as_a_whole() {
    let place = Place::new("small");
    let directory = directory(&place);
    directory
        .replace_small("identity", b"first and longer")
        .unwrap();
    directory.replace_small("identity", b"second").unwrap();
    assert_eq!(directory.read_small("identity", 6).unwrap(), b"second");
    let refused = directory.read_small("identity", 5);
    assert!(
        matches!(refused, Err(DiskError::Size { .. })),
        "{refused:?}"
    );
}

#[test]
fn a_calibration_chooses_the_quicker_way_and_leaves_nothing() {
    let place = Place::new("calibration");
    let directory = directory(&place);
    let calibration = directory.calibrate().unwrap();
    println!("{calibration}");
    let by_sync_quicker = calibration.by_sync_median < calibration.durable_median;
    assert_eq!(
        calibration.mode == WriteMode::DurableBySync,
        by_sync_quicker
    );
    assert!(calibration.durable_median.0 > 0);
    assert!(!place.0.join("calibration").exists());
    let space = directory.space().unwrap();
    assert!(space.free_size > 0 && space.free_size <= space.total_size);
}
