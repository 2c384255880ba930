//! Who holds a lock file, found out without touching the lock.
//!
//! To try the lock would be to hold it for a moment, and a node that starts in that moment would be
//! refused. The kernel lists all locks; what it does not show (another pid namespace) is not seen.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Number of the process that holds a lock on this file.
pub(super) fn of(path: &Path) -> Option<u32> {
    let file = fs::metadata(path).ok()?;
    let locks = fs::read_to_string("/proc/locks").ok()?;
    let (major, minor) = (rustix::fs::major(file.dev()), rustix::fs::minor(file.dev()));
    holder(&locks, &format!("{major:02x}:{minor:02x}:{}", file.ino()))
}

/// A line is: number, kind of lock, how binding, for what, process, file, range.
fn holder(locks: &str, file: &str) -> Option<u32> {
    let held = locks.lines().find_map(|line| {
        let words: Vec<_> = line.split_whitespace().collect();
        match words[..] {
            [_, "FLOCK", _, _, process, place, ..] if place == file => Some(process),
            _ => None,
        }
    });
    held?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_is_found_by_its_file_and_one_that_waits_is_not_taken_for_it() {
        let locks = "1: POSIX  ADVISORY  WRITE 100 fe:01:17 0 EOF\n\
                     2: FLOCK  ADVISORY  WRITE 200 fe:01:17 0 EOF\n\
                     2: -> FLOCK  ADVISORY  WRITE 300 fe:01:17 0 EOF\n\
                     3: FLOCK  ADVISORY  WRITE 400 fe:02:17 0 EOF\n";
        assert_eq!(holder(locks, "fe:01:17"), Some(200));
        assert_eq!(holder(locks, "fe:02:17"), Some(400));
        assert_eq!(holder(locks, "fe:01:18"), None);
        assert_eq!(holder("", "fe:01:17"), None);
    }

    #[test]
    fn this_process_is_found_as_the_holder_of_its_lock() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("lock");
        let file = fs::File::create(&path).expect("a new file");
        assert_eq!(of(&path), None);
        file.lock().expect("nobody else has it");
        assert_eq!(of(&path), Some(std::process::id()));
        drop(file);
        assert_eq!(of(&path), None);
    }
}
