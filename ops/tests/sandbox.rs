//! A machine whose sandbox forbids io_uring, as some container runtimes do: `serve` says so, says
//! what helps, and exits with 5; so does `doctor`, with 4.

use std::os::unix::process::CommandExt;
use std::process::{Command, Output};

use seccompiler::{BpfProgram, SeccompAction, SeccompFilter};

/// Tells this binary, started again, which errno its sandbox answers with.
const ERRNO: &str = "RINGWOOD_TEST_SANDBOX_ERRNO";
/// And what to run, words apart by spaces.
const WORDS: &str = "RINGWOOD_TEST_SANDBOX_WORDS";

/// `io_uring_setup`, the same on every architecture.
const IO_URING_SETUP: i64 = 425;
const EPERM: u32 = 1;
const ENOSYS: u32 = 38;

/// Not a test of its own: puts on a filter that cannot be taken off, and becomes the binary.
#[test]
fn run_in_a_sandbox_if_told() {
    let (Ok(errno), Ok(words)) = (std::env::var(ERRNO), std::env::var(WORDS)) else {
        return;
    };
    let errno = errno.parse().expect("a number");
    let filter = SeccompFilter::new(
        [(IO_URING_SETUP, Vec::new())].into_iter().collect(),
        SeccompAction::Allow,
        SeccompAction::Errno(errno),
        std::env::consts::ARCH.try_into().expect("a known machine"),
    );
    let program: BpfProgram = filter
        .expect("a filter")
        .try_into()
        .expect("a short program");
    seccompiler::apply_filter(&program).expect("a process may bind itself");
    let error = Command::new(env!("CARGO_BIN_EXE_ringwood"))
        .args(words.split(' '))
        .exec();
    panic!("the binary was not started: {error}");
}

fn run_in_a_sandbox(words: &str, errno: u32) -> Output {
    Command::new(std::env::current_exe().expect("this binary"))
        .args(["--exact", "run_in_a_sandbox_if_told", "--nocapture"])
        .env(ERRNO, errno.to_string())
        .env(WORDS, words)
        .output()
        .expect("a process")
}

#[test]
fn a_sandbox_that_forbids_io_uring_is_named() {
    let home = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
    let dir = home.path().join("node");
    let made = Command::new(env!("CARGO_BIN_EXE_ringwood"))
        .arg("init")
        .arg(&dir)
        .args(["--cluster", "c", "--node", "n1"])
        .args(["--voters", "n1=127.0.0.1:7499", "--logs", "log-0"])
        .output()
        .expect("a process");
    assert!(made.status.success(), "{made:?}");
    for (errno, cause) in [
        (EPERM, "io_uring is forbidden here"),
        (ENOSYS, "this kernel has no io_uring"),
    ] {
        let words = format!("serve {} --listen 127.0.0.1:0", dir.display());
        let output = run_in_a_sandbox(&words, errno);
        let told = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(5), "{told}");
        assert!(told.contains(&format!("error: {cause}")), "{told}");
        let fix = told.lines().find(|line| line.starts_with("  fix: "));
        assert!(
            fix.is_some_and(|fix| fix.contains("seccomp") && fix.contains("io_uring_setup")),
            "{told}"
        );
    }
}

#[test]
fn a_doctor_names_the_sandbox_its_cause_and_its_fix() {
    let home = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
    let words = format!("doctor --dir {}", home.path().display());
    let output = run_in_a_sandbox(&words, EPERM);
    let told = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(4), "{output:?}");
    let after = |start: &str| {
        let mut lines = told.lines().skip_while(|line| !line.starts_with(start));
        lines.next();
        lines.next().map(str::to_owned).unwrap_or_default()
    };
    let fix = after("io_uring BAD: io_uring is forbidden here");
    assert!(
        fix.contains("fix: ") && fix.contains("io_uring_setup"),
        "{told}"
    );
    assert!(after("disk BAD: ").starts_with("  fix: "), "{told}");
    assert_eq!(
        std::fs::read_dir(home.path()).expect("a directory").count(),
        0
    );
}
