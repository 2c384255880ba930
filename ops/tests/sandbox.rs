//! A machine whose sandbox forbids io_uring, as some container runtimes do: `serve` says so, says
//! what helps, and exits with 5.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Output};

use seccompiler::{BpfProgram, SeccompAction, SeccompFilter};

/// Tells this binary, started again, which errno its sandbox answers with.
const ERRNO: &str = "RINGWOOD_TEST_SANDBOX_ERRNO";
/// And which directory to serve.
const DIR: &str = "RINGWOOD_TEST_SANDBOX_DIR";

/// `io_uring_setup`, the same on every architecture.
const IO_URING_SETUP: i64 = 425;
const EPERM: u32 = 1;
const ENOSYS: u32 = 38;

/// Not a test of its own: puts on a filter that cannot be taken off, and becomes `serve`.
#[test]
fn serve_in_a_sandbox_if_told() {
    let (Ok(errno), Ok(dir)) = (std::env::var(ERRNO), std::env::var(DIR)) else {
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
        .args(["serve", &dir, "--listen", "127.0.0.1:0"])
        .exec();
    panic!("the binary was not started: {error}");
}

fn serve_in_a_sandbox(dir: &Path, errno: u32) -> Output {
    Command::new(std::env::current_exe().expect("this binary"))
        .args(["--exact", "serve_in_a_sandbox_if_told", "--nocapture"])
        .env(ERRNO, errno.to_string())
        .env(DIR, dir)
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
        let output = serve_in_a_sandbox(&dir, errno);
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
