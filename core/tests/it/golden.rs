//! Formats as files that were written once: what changes by accident cannot be read any more by
//! those who have the old one.
//!
//! A format that is meant to change is written anew by
//! `RINGWOOD_GOLDEN=rewrite cargo test -p ringwood-core --test it golden`; then read the diff.

use std::path::PathBuf;

/// The text of a golden file, which has to be `now`, or becomes it.
pub(crate) fn golden(name: &str, now: &str) -> String {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let path = folder.join(name);
    if std::env::var("RINGWOOD_GOLDEN").is_ok_and(|mode| mode == "rewrite") {
        std::fs::write(&path, now).expect("the folder is there");
    }
    let golden = std::fs::read_to_string(&path).expect("every format has a golden file");
    assert!(golden == now, "{name} is not what it was, but\n{now}");
    golden
}
