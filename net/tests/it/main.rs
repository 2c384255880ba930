//! A running node, seen from outside: over its port, byte by byte.

mod directories;
mod frozen;
mod hostile;
mod killed;
mod loops;
mod partition;
mod repaired;
mod smoke;
mod trimmed;
mod wire;
