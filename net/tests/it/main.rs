//! A running node, seen from outside: over its port, byte by byte.

mod hostile;
mod smoke;
mod wire;
mod partition;
