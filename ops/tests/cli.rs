//! Help, usage errors and exit codes as transcripts, for command lines that need no cluster.
//!
//! `TRYCMD=overwrite cargo test -p ringwood --test cli` rewrites them; the diff is the review.

#[test]
fn transcripts() {
    trycmd::TestCases::new()
        // Nothing listens on port 1.
        .env("RINGWOOD_ENDPOINTS", "127.0.0.1:1")
        .case("tests/cmd/*.trycmd");
}
