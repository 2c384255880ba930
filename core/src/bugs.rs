//! Bugs that somebody had, each where it would sit in our code: switches that show whether the
//! tests would find it.
//!
//! Without the feature `bugs` [`is_on`] is a constant false, and every hook compiles to nothing.
//! With it one switch at a time is on, for one thread. No shipped build has the feature.
//! `core/tests/bugs.rs` plays them; what catches which stands in `docs/TESTING.md`.
//!
//! To add one: a variant here, a hook of a line or so at the place where the bug would be made, and
//! `BUGS_RECORD=1 cargo test -p ringwood-core --features bugs,sim --test bugs --release`.

#![cfg_attr(
    not(feature = "bugs"),
    allow(unreachable_pub, reason = "the module is public only with the feature")
)]

macro_rules! switches {
    ($($(#[doc = $doc:literal])+ $name:ident,)+) => {
        /// A bug. `B` numbers are those of published bugs of other systems, named with each; `R`
        /// numbers are our own, found by seeds.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Switch {
            $($(#[doc = $doc])+ $name,)+
        }

        #[cfg(feature = "bugs")]
        impl Switch {
            /// Every switch there is.
            pub const ALL: &[Self] = &[$(Self::$name,)+];
        }
    };
}

switches! {
    // ---- elections

    /// LogCabin #44 (again NATS c8687fc4d, PySyncObj #169): a block of an older term is committed by
    /// counting replicas. The leader's look at the block's term is left out.
    B01,
    /// Xraft #33: a vote given in an older term counts in this one. The candidate does not compare
    /// the answer's term.
    B04,
    /// NATS #7698: stepping down clears the vote, so the term sees a second one. A leader that steps
    /// down within its term forgets in memory whom it voted for.
    B05,
    /// NATS f4aca783c: a candidate resets its vote. One that lost forgets that it voted for itself.
    B06,
    /// NATS #7297: an append leaves with the new term after leadership was lost. What was decided to
    /// be sent, or was being read to be sent, is sent whatever came between.
    B07,
    /// openraft b06cbb37: a vote that was only seen is noted, and later counted as given. A refused
    /// candidate's id goes into the hard state with its term.
    B08,
    /// openraft a48a3282: term and index are compared each by itself, and nobody can be elected.
    B09,
    /// hashicorp/raft #609: a pre-vote granted counts as word from a leader. It puts off this node's
    /// own election.
    B10,
    /// openraft d6a6d562: the higher term in a pre-vote's refusal is not taken over, and the node
    /// with the longest log asks for ever in a term that is over.
    B11,
    /// Raft's vote amnesia (thesis 3.8; TigerBeetle on wiped replicas): a vote leaves before it is
    /// durable, and a crash forgets it.
    B24,
    /// Apache Iggy #3824: a change of leader discards committed blocks. Voters do not compare logs.
    B37,

    // ---- replication

    /// PySyncObj #166: the commit index goes down. A follower takes the leader's over as it comes.
    B25,
    /// PySyncObj #167, RaftOS #25: the match index goes down when answers overtake each other.
    B26,
    /// RaftOS #26, openraft 9540c904: a follower cuts what matches, too. An old message makes it
    /// drop blocks that it has acknowledged since.
    B27,
    /// openraft 44381b0c: a place whose block has gone to segments is taken for a conflict.
    B28,
    /// WRaft #118: a peer below the leader's tail gets no blocks instead of a catch-up.
    B29,
    /// openraft cecb5de8: an answer from before the follower's log was cut still counts. Answers to
    /// blocks and heartbeats of older terms are believed.
    B30,
    /// ra 39490978, etcd-io/raft 2e0653d: what was reported durable is not lowered when the log is
    /// cut, and vouches for other blocks at the same indexes.
    B31,
    /// openraft a9f696a9: a new leader counts its first block before its disk has it.
    B33,
    /// Camunda #8324: the commit index does not come with heartbeats, and the last block of an idle
    /// log stays undecided on followers.
    B40,

    // ---- reads

    /// etcd #741: a leader answers linearizable reads without asking whether it still leads.
    B41,
    /// etcd #20418: a read races a change of leader. Reads that wait when a leadership ends are let
    /// through instead of failed.
    B42,
    /// etcd-io/raft #397: two rounds of reads have one number, and answers to the first confirm the
    /// second.
    B43,
    /// TiKV #9239, openraft 1ef3e574: a new leader reads at its old commit index, before it has
    /// committed a block of its own.
    B44,
    /// openraft d60f1e85: one voter too few confirms a read. The leader's own word is enough, as of
    /// three voters.
    B45,

    // ---- durability

    /// openraft 2af491fb: a write that completes before an older one is dropped from the books.
    B32,
    /// NATS #7567: blocks are acknowledged before they are durable.
    B50,
    /// etcd #14370: of one node alone the leader answers before its disk has the block.
    B54,
    /// NATS #7549: damage is taken for the end of the log. Recovery drops a promised run that is
    /// damaged, and all behind it, as it drops a torn tail.
    B51,
    /// ra ffe3016a: a mark on disk runs ahead of what it speaks of. The persist record says that a
    /// sector more was durable than was.
    B34,
    /// KIP-966, the last replica standing: a replica that came back with less than it had promised
    /// votes and counts as before. Doubt of the log keeps nobody from granting votes.
    B58,
    /// NATS dca7a8763, 860e23645: a node goes on voting after its log was found damaged. What lost
    /// flushes may have held of votes is not doubted.
    B62,
    /// KAFKA-16541: a sync was left out for speed. What recovery found in the drive's cache counts
    /// as durable without one.
    B57,
    /// sled #935: writes are thought to complete in the order in which they were made.
    B60,
    /// Apache Iggy 15fe5dce9: a torn tail keeps a node from starting. Recovery calls it damage.
    B64,
    /// ra f68c255a: a gap in the log is not noticed. Recovery goes from flush to flush without
    /// looking whether one follows the other.
    B65,
    /// KAFKA-14104: sums are written and not checked. Recovery believes a run by its header.
    B67,
    /// TigerBeetle 2024-12: memory lies (there, a page that came back from swap), and what is stored is
    /// not what came. Some nodes turn a bit of some blocks over before they sum them.
    B66,
    /// NATS 4f202b641: a log is compacted before the snapshot is durable. A checkpoint speaks of a
    /// segment write that is still on its way.
    B36,

    /// openraft ac3e5a89: a snapshot is taken to fit a log that conflicts with it. A new beginning is
    /// known already if any block stands at its index.
    B35,

    // ---- exactly once

    /// Redpanda #3039: a retry of what is stored is answered "out of order".
    B69,
    /// KAFKA-14034: after an error that says nothing a client takes its append for not stored, and
    /// makes it anew. An answer "unknown" leaves no doubt.
    B70,
    /// KIP-890: what was delayed hits a later life of its producer. Older epochs are not refused.
    B71,
    /// jetcd 0.8.2: a client sends again what may not be repeated. A try that was lost with its
    /// connection leaves no doubt, and its records get another number.
    B72,
    /// Redpanda bc3d761b: what lies before the remembered window is stored again.
    B73,
    /// NATS #8370: what was proposed is not bound to its leadership. Appends wait on after a change
    /// of leader, for whatever is committed at their index.
    B74,
    /// Redis-Raft #52: duplicates after a crash. Recovery knows a log's producers as of the last
    /// checkpoint.
    B76,

    // ---- strangers

    /// NATS GHSA-38x3-76xf-cq45: a fast path skips authentication. A connection that did not greet
    /// is taken for a client's.
    B77,
    /// NATS CVE-2026-27889: a malformed frame ends the process. A peer's index is believed before it
    /// is counted on from.
    B79,
    /// NATS 54b75d512: what strangers send is held in memory. Their frames' kinds are not judged
    /// before the rest is waited for.
    B80,

    // ---- our own

    /// A new leader's no-op finds no room in a journal that is nearly full, and is not tried again.
    R1,
    /// A follower that restarted in an idle group is not shown how far its log matches.
    R2,
    /// Raft is not told of blocks that were copied when the journal has no room.
    R6,
}

#[cfg(feature = "bugs")]
mod chosen {
    use std::cell::Cell;

    use super::Switch;

    thread_local! {
        static ON: Cell<Option<Switch>> = const { Cell::new(None) };
    }

    /// Turns one switch on for this thread, and all others off.
    pub fn choose(switch: Option<Switch>) {
        ON.set(switch);
    }

    /// Whether this bug is to happen.
    pub(crate) fn is_on(switch: Switch) -> bool {
        ON.get() == Some(switch)
    }
}

#[cfg(feature = "bugs")]
pub use chosen::choose;
#[cfg(feature = "bugs")]
pub(crate) use chosen::is_on;

/// Whether this bug is to happen: never.
#[cfg(not(feature = "bugs"))]
#[inline(always)]
pub(crate) const fn is_on(_: Switch) -> bool {
    false
}
