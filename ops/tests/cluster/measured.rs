//! `bench` beside readers: what they get is counted, and they get what the log has.

use rustix::process::Signal;
use serde_json::Value;

use crate::{Dev, stderr, tempdir};

/// A second of load beside readers: the report.
fn measure(dev: &Dev, words: &[&str]) -> Value {
    let load = ["bench", "-o", "json", "--rate", "500", "--duration", "1s"];
    let output = dev.run(&[&load, words].concat());
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    serde_json::from_slice(&output.stdout).expect("a report")
}

#[test]
fn readers_beside_a_load_get_what_is_appended_or_all_that_is_kept() {
    let home = tempdir();
    let dev = Dev::start(home.path(), &[]);
    let number = |report: &Value, name: &str| report["readers"][name].as_u64();
    let report = measure(&dev, &["--warmup", "500ms", "--readers", "2"]);
    let acked = report["acked"].as_u64().expect("a number");
    let told = number(&report, "records").expect("a number");
    // Each reads all of it, warm-up included, but for what comes when the window is over.
    assert!(told > acked / 2 && told <= 2 * 750, "{report:#}");
    assert_eq!(number(&report, "bytes"), Some(256 * told));
    assert_eq!(number(&report, "errors"), Some(0));

    let scan = ["--warmup", "0s", "--readers", "1", "--read-from", "start"];
    let report = measure(&dev, &scan);
    assert_eq!(report["readers"]["from"], "start");
    // More than were ever appended: it reads them over and over.
    let again = number(&report, "records").expect("a number");
    assert!(again > 2_000, "{report:#}");
    let page = dev.run(&[&["bench", "--duration", "1s"], &scan[..]].concat());
    let page = String::from_utf8_lossy(&page.stdout).into_owned();
    assert!(page.contains("beside 1 from the start for 1 s"), "{page}");
    assert!(
        page.contains("by 1 reader from the start, 0 errors"),
        "{page}"
    );
    assert_eq!(dev.end(Signal::TERM), Some(0));
}
