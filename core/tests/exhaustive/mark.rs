//! Things that may happen to a node in a search, so that it can be seen whether they did.

/// Things that a search must have met, or it proved little.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Mark {
    Elected,
    Committed,
    Truncated,
    Refused,
    Reminded,
    SteppedDown,
    PreVoteRefused,
    VoteRefused,
    Handed,
    TransferGivenUp,
    RunLost,
    CommittedBeforeOwnDisk,
    ReadServed,
    ReadFailed,
    CutShort,
    LogSettled,
    VoteSettled,
}

pub(crate) const MARK_COUNT: usize = Mark::VoteSettled as usize + 1;

pub(crate) const MARKS: [Mark; MARK_COUNT] = [
    Mark::Elected,
    Mark::Committed,
    Mark::Truncated,
    Mark::Refused,
    Mark::Reminded,
    Mark::SteppedDown,
    Mark::PreVoteRefused,
    Mark::VoteRefused,
    Mark::Handed,
    Mark::TransferGivenUp,
    Mark::RunLost,
    Mark::CommittedBeforeOwnDisk,
    Mark::ReadServed,
    Mark::ReadFailed,
    Mark::CutShort,
    Mark::LogSettled,
    Mark::VoteSettled,
];
