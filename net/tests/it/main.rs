//! A running node, seen from outside: over its port, byte by byte.

mod hostile;
mod partition;
mod smoke;
mod wire;
