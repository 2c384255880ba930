//! One shard driven by hand, with a disk and a peer of a few lines: what a whole cluster seldom does.

mod agree;
mod ahead;
mod beginning;
mod bench;
mod chunked;
mod forged;
mod heads;
mod hole;
mod journaled;
mod late;
mod mend;
mod pulled;
mod referred;
mod repair;
mod restored;
mod room;
mod scrub;
mod sealed;
mod small;
mod stall;
mod stuck;
mod trimmed;
mod unsure;
