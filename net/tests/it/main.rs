//! A running node, seen from outside: over its port, byte by byte.

mod cycles;
mod directories;
mod faults;
mod file_system;
mod frozen;
mod fuse;
mod fuse_disk;
mod hostile;
mod killed;
mod load;
mod loops;
mod partition;
mod power;
mod processes;
mod repaired;
mod smoke;
mod tails;
mod trimmed;
mod wire;
