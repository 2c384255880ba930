//! The codes inside bodies: each a small number on the wire and a proper enum here.
//!
//! A code that this version does not know reads as `None`, never as something else. Zero is left
//! free for "does not apply" (but for [`ReadMode`], whose zero is the default). Codes are only ever
//! added. Knows no body.

/// Defines an enum with its numbers and its words: `Name(width) { Variant = number "word", }`.
macro_rules! codes {
    ($(#[$doc:meta])* $name:ident($width:ty) {
        $($(#[$variant_doc:meta])* $variant:ident = $code:literal $word:literal,)*
    }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        #[repr($width)]
        pub enum $name {
            $($(#[$variant_doc])* $variant = $code,)*
        }

        impl $name {
            /// Every value, in the order of definition.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// The value behind a code; `None` if this version does not know it.
            #[must_use]
            pub const fn from_code(code: $width) -> Option<Self> {
                match code {
                    $($code => Some(Self::$variant),)*
                    _ => None,
                }
            }

            /// The number that stands on the wire.
            #[must_use]
            pub const fn code(self) -> $width {
                self as $width
            }

            /// The word that people and JSON see; as stable as the number.
            #[must_use]
            pub const fn word(self) -> &'static str {
                match self {
                    $(Self::$variant => $word,)*
                }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.word())
            }
        }
    };
}
pub(super) use codes;

codes! {
    /// How an append ended.
    Outcome(u8) {
        /// It is in the log, for good, at the offset named.
        Committed = 1 "committed",
        /// It is not in the log and never will be by this try; the reason is named.
        NotCommitted = 2 "not_committed",
        /// Nobody can tell yet; a retry under the same sequence finds out.
        Unknown = 3 "unknown",
    }
}

codes! {
    /// Why an append is not in the log.
    NotCommittedReason(u8) {
        /// This node does not lead the log; the leader is named if known.
        NotLeader = 1 "not_leader",
        /// This node holds no such log.
        UnknownLog = 2 "unknown_log",
        /// A record or the whole append is over the limit.
        RecordTooLarge = 3 "record_too_large",
        /// Appends of this producer before this one are missing.
        SequenceGap = 4 "sequence_gap",
        /// A newer epoch of this producer has written.
        Fenced = 5 "fenced",
        /// So old that the window that recognises retries has passed it.
        WindowPassed = 6 "window_passed",
        /// A bound is reached; try again after the time named.
        Overloaded = 7 "overloaded",
        /// The payload is not what its sum or its record count says.
        Malformed = 8 "malformed",
        /// The leader's disk is full.
        DiskFull = 9 "disk_full",
        /// The node is shutting down.
        Stopping = 10 "stopping",
        /// Leadership is being handed over; the next leader is named if known.
        Transferring = 11 "transferring",
    }
}

codes! {
    /// What an acknowledged append has survived.
    Durability(u8) {
        /// Synced on a majority of the log's voters.
        Quorum = 1 "quorum",
    }
}

codes! {
    /// How a fetch ended.
    FetchOutcome(u8) {
        /// Blocks follow, or the end was reached and the wait ran out.
        Ok = 1 "ok",
        /// This node does not lead the log and the mode asked for the leader.
        NotLeader = 2 "not_leader",
        /// This node holds no such log.
        UnknownLog = 3 "unknown_log",
        /// The offset lies past the log's end.
        BeyondEnd = 4 "beyond_end",
        /// The offset lies below the oldest record kept.
        Trimmed = 5 "trimmed",
        /// A bound is reached; try again after the time named.
        Busy = 6 "busy",
        /// The blocks asked for are damaged on this node.
        Damaged = 7 "damaged",
    }
}

codes! {
    /// What a fetch must be able to rely on.
    ReadMode(u8) {
        /// Committed records, as the leader knows them.
        Committed = 0 "committed",
        /// All that was acknowledged before the fetch was sent: a quorum confirms the leader first.
        Linearizable = 1 "linearizable",
        /// Committed records of whichever replica is asked; it may lag.
        AnyReplica = 2 "any_replica",
    }
}

codes! {
    /// How a request to hand over leadership ended.
    TransferOutcome(u8) {
        /// The hand-over is under way.
        Started = 1 "started",
        /// The node named leads.
        Done = 2 "done",
        /// This node does not lead the group; the leader is named if known.
        NotLeader = 3 "not_leader",
        /// This node holds no such group.
        UnknownLog = 4 "unknown_log",
        /// The node named is no voter of the group.
        NotVoter = 5 "not_voter",
        /// Another hand-over of the group is under way.
        Busy = 6 "busy",
        /// The node named did not take over in time; the old leader goes on.
        TimedOut = 7 "timed_out",
    }
}

codes! {
    /// How a request for lost blocks ended.
    BlockOutcome(u8) {
        /// They follow, or the first of them.
        Found = 1 "found",
        /// They never were here, or others stand in their place.
        Absent = 2 "absent",
        /// They were here, and this disk has lost them, too.
        Lost = 3 "lost",
        /// The log has given up what came before its first segment, and with it the first of them: the
        /// head of that segment follows, if what it says is not lost.
        Trimmed = 4 "trimmed",
        /// A bound is reached: ask again, or somebody else.
        Busy = 5 "busy",
    }
}

codes! {
    /// How a request to move a log's start ended.
    TrimOutcome(u8) {
        /// The log begins there, or behind it.
        Done = 1 "done",
        /// This node does not lead the group; the leader is named if known.
        NotLeader = 2 "not_leader",
        /// This node holds no such group.
        UnknownLog = 3 "unknown_log",
        /// The offset lies past the last committed record.
        BeyondEnd = 4 "beyond_end",
        /// Not now: another trim is under way, or the leader is new or full.
        Busy = 5 "busy",
    }
}

codes! {
    /// Which measurement set the election timeout.
    TimeoutReason(u8) {
        /// Nothing is measured yet: the default holds.
        Unmeasured = 1 "unmeasured",
        /// Round trips to the nearest quorum.
        Rtt = 2 "rtt",
        /// Gaps between heartbeats that arrived.
        HeartbeatGap = 3 "heartbeat_gap",
        /// Stalls of the shard itself.
        Stall = 4 "stall",
        /// All measurements lie below the least timeout allowed.
        Floor = 5 "floor",
        /// A measurement lies above the greatest timeout allowed.
        Ceiling = 6 "ceiling",
    }
}

codes! {
    /// What a replica does for its group.
    ReplicaState(u8) {
        /// Decides what is committed.
        Leader = 1 "leader",
        /// Follows a leader.
        Follower = 2 "follower",
        /// Asks for votes.
        Candidate = 3 "candidate",
        /// Is brought up to date from below the leader's tail.
        CatchUp = 4 "catch_up",
        /// Cannot tell what it promised before its last crash; counts as absent.
        Unsure = 5 "unsure",
        /// Not reached.
        Absent = 6 "absent",
        /// Holds something else than the others; if it knows that itself, it takes no part.
        Diverged = 7 "diverged",
    }
}

codes! {
    /// Why a connection is closed by the side that says so.
    RefusedReason(u16) {
        /// The bytes are no frame of this protocol.
        NotAFrame = 1 "not_a_frame",
        /// A frame is damaged, oversized or malformed.
        BadFrame = 2 "bad_frame",
        /// No version in common.
        UnsupportedVersion = 3 "unsupported_version",
        /// A kind this version does not know, or one that has no place on this connection.
        UnexpectedKind = 4 "unexpected_kind",
        /// The frame belongs to another cluster.
        WrongCluster = 5 "wrong_cluster",
        /// The first frame was no hello, or a second one came.
        HelloMisplaced = 6 "hello_misplaced",
        /// The node that says hello is not a member.
        UnknownNode = 7 "unknown_node",
        /// The node is known under another incarnation: its directory was emptied or swapped.
        WrongIncarnation = 8 "wrong_incarnation",
        /// There is no such lane or shard.
        UnknownLane = 9 "unknown_lane",
        /// Too many connections, or too much memory in use.
        Overloaded = 10 "overloaded",
        /// Answers pile up because the other side does not read.
        SlowReader = 11 "slow_reader",
        /// The node is shutting down.
        Stopping = 12 "stopping",
        /// What was due on the connection did not come in time.
        TimedOut = 13 "timed_out",
        /// The node's directory is older than what is known of it: from a backup, or a copy.
        StaleDirectory = 14 "stale_directory",
        /// The node's directory has not gone on from what is known of it: a copy, or from a backup.
        CopiedDirectory = 15 "copied_directory",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    macro_rules! assert_codes {
        ($($name:ident($width:ty)),*) => {$(
            let mut known = 0;
            for code in <$width>::MIN..=<$width>::MAX {
                if let Some(value) = $name::from_code(code) {
                    assert_eq!(value.code(), code);
                    assert_eq!(value as $width, code);
                    assert!(value.word().bytes().all(|b| b.is_ascii_lowercase() || b == b'_'));
                    known += 1;
                }
            }
            assert_eq!(known, $name::ALL.len(), stringify!($name));
            let mut words: Vec<_> = $name::ALL.iter().map(|value| value.word()).collect();
            words.sort_unstable();
            words.dedup();
            assert_eq!(words.len(), known, "two values of {} share a word", stringify!($name));
        )*};
    }

    #[test]
    fn every_code_reads_back_and_no_other_does() {
        assert_codes!(
            Outcome(u8),
            NotCommittedReason(u8),
            Durability(u8),
            FetchOutcome(u8),
            ReadMode(u8),
            TransferOutcome(u8),
            BlockOutcome(u8),
            TrimOutcome(u8),
            TimeoutReason(u8),
            ReplicaState(u8),
            RefusedReason(u16)
        );
    }

    #[test]
    fn zero_means_nothing_but_the_default_read() {
        assert_eq!(Outcome::from_code(0), None);
        assert_eq!(NotCommittedReason::from_code(0), None);
        assert_eq!(FetchOutcome::from_code(0), None);
        assert_eq!(RefusedReason::from_code(0), None);
        assert_eq!(ReadMode::from_code(0), Some(ReadMode::Committed));
    }
}
