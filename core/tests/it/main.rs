//! Tests of the core from outside, in one binary.

mod crash_segments;
mod crash_states;
mod disk_errors;
mod environment;
mod frame;
mod golden;
mod graphs;
mod log_crash;
mod log_damage;
mod log_damage_again;
mod log_disk;
mod log_golden;
mod log_journal;
mod log_node;
mod log_offline;
mod log_rebuild;
mod log_recovery;
mod log_restored;
mod log_ring;
mod raft;
mod scenarios;
mod seeds;
mod shard;
mod storage_faults;
