//! The verbs, one file each: its flags, what it does, what it prints.
//!
//! A verb returns how the process is to exit, or why it failed; it never exits itself.

pub(crate) mod append;
pub(crate) mod bench;
mod bench_words;
pub(crate) mod dev;
pub(crate) mod doctor;
mod doctor_checks;
pub(crate) mod dump;
pub(crate) mod init;
pub(crate) mod inspect;
pub(crate) mod log;
pub(crate) mod read;
pub(crate) mod scrub;
pub(crate) mod serve;
pub(crate) mod sim;
pub(crate) mod status;
pub(crate) mod tail;
pub(crate) mod unpin;
pub(crate) mod verify;
