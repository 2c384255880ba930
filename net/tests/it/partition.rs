//! The example in `examples/partition.rs` does what it says.

#[path = "../../examples/partition.rs"]
#[allow(dead_code, reason = "its `main` is for people")]
mod example;

#[tokio::test]
async fn a_partition_outlives_its_leader() {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
    let (offsets, followed) = example::run(dir.path()).await.expect("the example runs");
    assert_eq!(offsets, [0, 1, 2, 3, 4, 5]);
    assert_eq!(followed, ["message 3", "message 4", "message 5"]);
}
