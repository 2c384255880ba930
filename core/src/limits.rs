//! Every bound of the system, with its reason, and how the bounds relate.
//!
//! What is full pushes back; nothing grows until it dies.

use crate::id::Nanos;

/// Unit of direct I/O and of tearing: runs, flushes and segment writes are multiples of it.
pub const SECTOR_SIZE: usize = 4096;

/// Alignment of frames, bodies, items and blocks: rkyv's widest field, with room to spare.
pub const FRAME_ALIGN: usize = 16;

/// Largest record a user may append. Larger things belong in an object store.
pub const RECORD_SIZE_MAX: usize = 1 << 20;

/// Largest payload of one append (all its records with their length prefixes).
pub const APPEND_PAYLOAD_SIZE_MAX: usize = RECORD_SIZE_MAX + 4096;

/// Records in one append: bounds a producer window entry and a client's batch.
pub const APPEND_RECORD_COUNT_MAX: usize = 65_536;

/// Largest block: one largest append with its headers, or many small ones.
pub const BLOCK_SIZE_MAX: usize = APPEND_PAYLOAD_SIZE_MAX + 4096;

/// Appends gathered into one block; keeps the walk over a block short.
pub const BLOCK_APPEND_COUNT_MAX: usize = 4096;

/// Largest run (one flush): at least one largest block, its flush header and its vote sector.
pub const RUN_SIZE_MAX: usize = 2 << 20;

/// One allocation from which runs are cut.
pub const ARENA_SIZE: usize = 8 << 20;

/// Arenas of a shard: runs being written, and the tail cache of runs kept for readers and peers.
pub const ARENA_COUNT_MAX: usize = 8;

/// Size of a journal file; a power of two.
pub const JOURNAL_FILE_SIZE: u64 = 64 << 20;

/// Files in a shard's journal ring.
pub const JOURNAL_FILE_COUNT: u32 = 4;

/// Journal writes in flight at a time. Two keep the device busy while the next run fills;
/// more would only make each smaller.
pub const JOURNAL_WRITES_MAX: usize = 2;

/// Size at which a segment is closed and the next begun.
pub const SEGMENT_SIZE_MAX: u64 = 64 << 20;

/// Bytes between two places in a segment that its footer names, at least: half of what a reader
/// takes at a time, so that entering costs about one read.
pub const SEGMENT_POINT_DISTANCE: u64 = 512 << 10;

/// Segments of a log whose footers a shard keeps in mind: one for each of a few readers.
pub const SEGMENT_INDEX_COUNT_MAX: usize = 4;

/// Committed bytes of one log that wait in the journal before they are gathered into its segment.
pub const SEGMENT_WRITE_SIZE: usize = 2 << 20;

/// Of that, what a log has less of does not become a write of its own when the journal wants its
/// place: it is put again. Ten thousand small logs would else be ten thousand syncs.
pub const SEGMENT_WRITE_SIZE_MIN: usize = SEGMENT_WRITE_SIZE / 32;

/// The part of the journal's ring that may go round so: what a flood of appends rewrites for it.
pub const CARRY_DECIDED_PART: u64 = 8;

/// Body of a frame: fixed fields and a list bounded by the groups of a shard.
pub const FRAME_BODY_SIZE_MAX: usize = 1 << 20;

/// Payload of a frame: an AppendEntries frame carries up to a run of blocks.
pub const FRAME_PAYLOAD_SIZE_MAX: usize = RUN_SIZE_MAX;

/// Bytes a leader sends to one follower ahead of its answers.
pub const PEER_WINDOW_SIZE: u64 = 8 << 20;

/// AppendEntries a leader sends to one follower ahead of its answers.
pub const PEER_WINDOW_COUNT: usize = 256;

/// Bytes of a group that are in its journal and not committed; beyond, it refuses appends.
pub const UNDECIDED_SIZE_MAX: u64 = 16 << 20;

/// Headers of blocks in segments that a group keeps in memory: some 64 KiB.
pub const TAIL_KEEP_COUNT: u64 = 1024;

/// Voters of a group.
pub const VOTER_COUNT_MAX: usize = 7;
/// Starts of its own that a node remembers and tells: a peer that was away for more of them cannot
/// see any more that the directory is the one it knew. A supervisor restarts a node that fails at
/// once a few dozen times in a night.
pub const START_COUNT_MAX: usize = 64;

/// Groups of a shard: bounds the heartbeat frame and the state re-journaled at a file's start.
pub const GROUP_COUNT_MAX: usize = 1024;

/// Producers a group remembers; the one silent for longest is forgotten first.
pub const PRODUCER_COUNT_MAX: usize = 256;

/// Appends of one producer that are recognised when retried, and so may be in flight at once.
pub const PRODUCER_WINDOW: usize = 8;

/// Retries that wait for an append to be committed, per group: each append that is recognised, once.
pub const RETRY_COUNT_MAX: usize = PRODUCER_COUNT_MAX * PRODUCER_WINDOW;

/// Reads that wait for a quorum's word, per group.
pub const READ_PENDING_MAX: usize = 4096;

/// Bytes of blocks in one answer to a fetch.
pub const FETCH_SIZE_MAX: u32 = 1 << 20;

/// Bytes of blocks copied for readers in one turn: what one shard may queue before any reader has
/// had a chance to read. Whoever comes later is asked to come again.
pub const FETCH_TURN_SIZE_MAX: usize = 16 << 20;

/// Fetches that wait at the end of one log.
pub const FETCH_WAITING_MAX: usize = 4096;

/// Reads of one shard in flight; beyond, clients are asked to come again.
pub const LOAD_COUNT_MAX: usize = 256;

/// Readers of segments on one shard for whom is read ahead, a few megabytes for each. What others read
/// is read when they ask.
pub const AHEAD_STREAM_COUNT_MAX: usize = 4;

/// Bytes of one chunk for a peer that catches up: large enough to be sequential for the disk, small
/// enough not to hold up the sender's other work.
pub const CATCH_UP_SIZE: usize = 1 << 20;

/// Bytes a second of chunks for peers, at most, while the journal is written to: one chunk each 16 ms,
/// of whose time a disk of 1 GiB/s spends a sixteenth on it. A shard at rest gives what it can.
pub const CATCH_UP_RATE_MAX: u64 = 64 << 20;

/// Besides, so many bytes of chunks for each that the journal takes: a follower must come nearer to a
/// log however fast it grows, and two of them behind one leader still do.
pub const CATCH_UP_APPEND_PART: u64 = 2;

/// Bytes of chunks on their way to one peer, of all groups together.
pub const CATCH_UP_WINDOW_SIZE: u64 = PEER_WINDOW_SIZE;

/// A follower gets a chunk for each round trip from another replica. Where that takes longer than the
/// budget takes for a chunk, the leader itself is quicker: it sends a window ahead of the answers.
pub const REFERRAL_ROUND_TRIP_MAX: Nanos =
    Nanos(CATCH_UP_SIZE as u64 * 1_000_000_000 / CATCH_UP_RATE_MAX);

/// Logs of which a follower fetches blocks elsewhere than from their leader at a time, one chunk of each:
/// what is on its way to it so, and what its disk has yet to store.
pub const PULL_COUNT_MAX: usize = 4;

/// Answers that wait for their turn to be read, on one shard; who asks beyond is told that it is busy.
/// The last has its turn within what whoever asks waits for an answer.
pub const ANSWER_COUNT_MAX: usize = 32;

/// Bytes queued on one lane to one peer; beyond, frames are dropped and Raft sends again. What is
/// queued holds arenas, and a stuck peer must not hold them all.
pub const PEER_QUEUE_SIZE_MAX: usize = 16 << 20;

/// Reads under way for blocks that leave the journal's oldest file. Several, for each brings one run,
/// and those were small if the shard was quiet when it wrote them.
pub const CARRY_READ_MAX: usize = 8;

/// Questions to peers for lost blocks that wait for an answer at a time: each may bring a megabyte,
/// and repair must not fill the lane of those who catch up.
pub const ASK_COUNT_MAX: usize = 4;

/// Bytes that one such question gathers; who wants more asks again.
pub const ASK_SIZE_MAX: usize = 16 << 20;

/// Damaged stretches of the journal that are under repair at a time. What is found beyond is found
/// again when it is read again.
pub const REPAIR_COUNT_MAX: usize = 256;

/// Bytes of a segment that is written anew, at a time.
pub const MEND_WRITE_SIZE: usize = 1 << 20;

/// Bytes looked at for a block behind a damaged place before others get their turn: a client may have
/// filled a record with what looks like the beginnings of large blocks, each of which is summed.
pub const MEND_LOOK_SIZE: usize = 256 << 10;

/// All that a disk keeps is read once in this time. Sectors rot within months, and a second copy must
/// not rot unseen meanwhile; more often would only wear the disk.
pub const SCRUB_PERIOD: Nanos = Nanos::from_millis(24 * 3_600_000);

/// Bytes a second that a scrub reads at most: a small share of what any disk gives.
pub const SCRUB_RATE_MAX: u64 = 32 << 20;

/// The first scrub begins so long after a start, which has enough to do.
pub const SCRUB_DELAY: Nanos = Nanos::from_millis(60_000);

/// Segment files a shard keeps open.
pub const SEGMENT_OPEN_MAX: usize = 512;

/// Accepted connections of clients on one shard. Voters have their own: one for each lane.
pub const CLIENT_COUNT_MAX: usize = 4096;

/// Accepted connections that have not said hello, beside the others: as many as come at once when
/// every client of a dead node turns here, and no more than the listener's queue holds.
pub const STRANGER_COUNT_MAX: usize = 1024;

/// Bytes queued to one client. With as much it gets no more blocks, but the word to ask again; beyond,
/// its connection is closed.
pub const CONNECTION_QUEUE_SIZE_MAX: usize = 8 << 20;

/// A client to which so much is queued, and which has taken nothing for so long, does not read.
pub const READER_PATIENCE: Nanos = Nanos::from_millis(1_500);

/// Name of a cluster, node or log, in bytes.
pub const NAME_SIZE_MAX: usize = 64;

// A run must hold one largest block, its flush header, a vote sector and padding.
const _: () = assert!(RUN_SIZE_MAX >= BLOCK_SIZE_MAX + 3 * SECTOR_SIZE);
// A block must hold one largest append.
const _: () = assert!(BLOCK_SIZE_MAX >= APPEND_PAYLOAD_SIZE_MAX + 64 + 32);
// Cutting runs from an arena must not waste most of it.
const _: () = assert!(ARENA_SIZE >= 4 * RUN_SIZE_MAX);
// A journal file must hold many runs, or skipping its end would waste it.
const _: () = assert!(JOURNAL_FILE_SIZE >= 16 * RUN_SIZE_MAX as u64);
// A frame must carry one largest block.
const _: () = assert!(FRAME_PAYLOAD_SIZE_MAX >= BLOCK_SIZE_MAX);
// A window must hold one largest frame, or it could never be sent.
const _: () = assert!(PEER_WINDOW_SIZE >= FRAME_PAYLOAD_SIZE_MAX as u64);
// A full window of chunks must leave room on the lane for one more of another group, and for answers.
const _: () = assert!(CATCH_UP_WINDOW_SIZE as usize + 4 * CATCH_UP_SIZE <= PEER_QUEUE_SIZE_MAX);
// Whoever asks waits for a second.
const _: () = assert!(ANSWER_COUNT_MAX as u64 * (CATCH_UP_SIZE as u64) < CATCH_UP_RATE_MAX);
const _: () = assert!(JOURNAL_FILE_SIZE.is_power_of_two() && SECTOR_SIZE.is_power_of_two());
