//! Frames: how bytes on a connection become checked messages, and messages bytes.
//!
//! A frame is a header of fixed layout, a body that rkyv reads in place, and a payload that this
//! module never looks into. What a [`Frame`] holds has been checked: header sum, kind, sizes,
//! cluster, body sum; [`Frame::message`] adds the body's structure. Hop 2 of the data path. Knows
//! no connection and no meaning of a message; `docs/FORMAT.md` has every byte.

pub mod assembler;
pub mod client;
pub mod code;
pub mod greeting;
pub mod header;
mod held;
pub mod message;
pub mod payload;
pub mod peer;
pub mod refusal;
pub mod sum;
pub mod writer;

use crate::limits::{APPEND_PAYLOAD_SIZE_MAX, FRAME_PAYLOAD_SIZE_MAX};
use code::codes;
use header::FrameHeader;
use message::Message;
use payload::Payload;
use refusal::Refusal;

codes! {
    /// What a frame is. Numbers below 16 open and close connections, 16 to 31 pass between nodes,
    /// from 32 on between client and node. Clients, too, may ask for blocks by their sums.
    Kind(u8) {
        /// First frame of a connection.
        Hello = 1 "hello",
        /// Answer to a client's hello.
        Welcome = 2 "welcome",
        /// Last frame of a connection closed for a reason.
        Refused = 3 "refused",
        /// A leader's word on all its groups.
        Heartbeat = 16 "heartbeat",
        /// Answer to a heartbeat.
        HeartbeatAck = 17 "heartbeat_ack",
        /// Blocks for a follower.
        AppendEntries = 18 "append_entries",
        /// Answer to blocks.
        AppendEntriesAck = 19 "append_entries_ack",
        /// Asks for a vote.
        VoteRequest = 20 "vote_request",
        /// Answer to a vote request.
        VoteReply = 21 "vote_reply",
        /// Campaign at once.
        TimeoutNow = 22 "timeout_now",
        /// Asks for blocks that a disk has lost.
        BlockRequest = 23 "block_request",
        /// Answer to a block request.
        BlockReply = 24 "block_reply",
        /// A leader tells a follower where its log begins now; the payload is a segment's head.
        Restore = 27 "restore",
        /// What a voter says of itself to one whose disk has lost something.
        StateReport = 28 "state_report",
        /// What a replica holds at some places of its logs.
        BlockSums = 29 "block_sums",
        /// A leader tells a follower who else has the blocks that it lacks.
        Referral = 30 "referral",
        /// A follower gets no more from whom it was referred to.
        ReferralEnd = 31 "referral_end",
        /// Records for a log.
        Append = 32 "append",
        /// Answer to an append.
        AppendReply = 33 "append_reply",
        /// Asks for blocks.
        Fetch = 34 "fetch",
        /// Answer to a fetch.
        FetchReply = 35 "fetch_reply",
        /// Asks how a node is.
        StatusRequest = 36 "status_request",
        /// A node's account of itself.
        Status = 37 "status",
        /// Asks a leader to hand over.
        Transfer = 38 "transfer",
        /// Answer to a transfer.
        TransferReply = 39 "transfer_reply",
        /// Asks a leader to move a log's start.
        TrimRequest = 40 "trim_request",
        /// Answer to a trim.
        TrimReply = 41 "trim_reply",
        /// Asks a node to look at all that its disk keeps.
        ScrubRequest = 42 "scrub_request",
    }
}

codes! {
    /// What a connection carries. One lane's backlog never delays another's frames.
    Lane(u8) {
        /// Between nodes: heartbeats, votes, acknowledgements. Never behind blocks.
        Control = 1 "control",
        /// Between nodes: blocks of the moment.
        Data = 2 "data",
        /// Between nodes: blocks of the past, for a follower that catches up or a disk that lost them.
        Bulk = 3 "bulk",
        /// Between a client and a node.
        Client = 4 "client",
    }
}

impl Kind {
    /// Largest payload that a frame of this kind may have, in bytes.
    #[must_use]
    pub const fn payload_size_max(self) -> usize {
        match self {
            Self::Append => APPEND_PAYLOAD_SIZE_MAX,
            Self::AppendEntries | Self::BlockReply | Self::Restore | Self::FetchReply => {
                FRAME_PAYLOAD_SIZE_MAX
            }
            _ => 0,
        }
    }

    /// Whether the header carries the payload's sum. Blocks bring their own sums, so theirs is 0.
    #[must_use]
    pub const fn has_payload_sum(self) -> bool {
        matches!(self, Self::Append)
    }

    /// Whether a frame of this kind has a place on this lane.
    #[must_use]
    pub const fn travels_on(self, lane: Lane) -> bool {
        match self {
            Self::Hello | Self::Refused => true,
            Self::AppendEntries => matches!(lane, Lane::Data | Lane::Bulk),
            // Tools that mend a stopped node's files ask as clients.
            Self::BlockRequest | Self::BlockReply => matches!(lane, Lane::Bulk | Lane::Client),
            // A referral comes behind the blocks that its leader has sent itself.
            Self::Restore | Self::Referral => matches!(lane, Lane::Bulk),
            Self::Heartbeat
            | Self::HeartbeatAck
            | Self::AppendEntriesAck
            | Self::VoteRequest
            | Self::VoteReply
            | Self::TimeoutNow
            | Self::StateReport
            | Self::BlockSums
            | Self::ReferralEnd => matches!(lane, Lane::Control),
            Self::Welcome
            | Self::Append
            | Self::AppendReply
            | Self::Fetch
            | Self::FetchReply
            | Self::StatusRequest
            | Self::Status
            | Self::Transfer
            | Self::TransferReply
            | Self::TrimRequest
            | Self::TrimReply
            | Self::ScrubRequest => matches!(lane, Lane::Client),
        }
    }

    /// Whether whoever opened a connection on this lane may send a frame of this kind on it, after
    /// its hello.
    #[must_use]
    pub const fn enters_on(self, lane: Lane) -> bool {
        // Between nodes answers travel on the answering side's own connections.
        let is_answer = matches!((self, lane), (Self::BlockReply, Lane::Client))
            || matches!(
                self,
                Self::Hello
                    | Self::Welcome
                    | Self::Refused
                    | Self::AppendReply
                    | Self::FetchReply
                    | Self::Status
                    | Self::TransferReply
                    | Self::TrimReply
            );
        self.travels_on(lane) && !is_answer
    }
}

/// Which kinds of frames a stream may bring at this moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gate {
    /// Any: the side that dialled looks at what it is answered itself.
    Any,
    /// A hello and nothing else: whoever called has not said who it is.
    Hello,
    /// What enters on this lane: whoever called has.
    Lane(Lane),
}

impl Gate {
    /// Judges by the kind alone, before anything is known of a body.
    ///
    /// # Errors
    ///
    /// [`Refusal::Misplaced`].
    pub const fn judge(self, kind: Kind) -> Result<(), Refusal> {
        let (passes, lane) = match self {
            Self::Any => (true, None),
            Self::Hello => (matches!(kind, Kind::Hello), None),
            Self::Lane(lane) => (kind.enters_on(lane), Some(lane)),
        };
        if passes {
            Ok(())
        } else {
            Err(Refusal::Misplaced { kind, lane })
        }
    }
}

/// A whole frame that was received; borrows the bytes it arrived in.
///
/// Only an assembler makes one, so all that a header can tell has been checked, and the body's sum
/// too. The payload's sum, where there is one, is checked by whoever copies the payload.
#[derive(Clone, Copy, Debug)]
pub struct Frame<'a> {
    /// The header.
    pub header: FrameHeader,
    /// Without padding; aligned to `FRAME_ALIGN`.
    body: &'a [u8],
    payload: Payload<'a>,
}

impl<'a> Frame<'a> {
    fn new(header: FrameHeader, body: &'a [u8], payload: Payload<'a>) -> Self {
        assert_eq!(body.len(), header.body_size as usize);
        assert_eq!(payload.size(), header.payload_size as usize);
        Self {
            header,
            body,
            payload,
        }
    }

    /// What the frame is.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.header.kind
    }

    /// The body, read in place. Checks its whole structure at each call: call once.
    ///
    /// # Errors
    ///
    /// [`Refusal::Malformed`] if the body's structure is not its kind's. The assembler does not
    /// know of it: close the connection as for any other refusal.
    pub fn message(&self) -> Result<Message<'a>, Refusal> {
        Message::read(self.header.kind, self.body)
    }

    /// The payload, in the slices it arrived in.
    #[must_use]
    pub fn payload(&self) -> Payload<'a> {
        self.payload
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_a_lane_and_only_blocks_use_the_data_lanes() {
        for kind in Kind::ALL {
            assert!(
                Lane::ALL.iter().any(|lane| kind.travels_on(*lane)),
                "{kind} has no lane"
            );
        }
        let on = |lane| Kind::ALL.iter().filter(move |kind| kind.travels_on(lane));
        let blocks = [Kind::Hello, Kind::Refused, Kind::AppendEntries];
        assert!(on(Lane::Data).eq(blocks.iter()));
        let past = [
            Kind::BlockRequest,
            Kind::BlockReply,
            Kind::Restore,
            Kind::Referral,
        ];
        assert!(on(Lane::Bulk).eq(blocks.iter().chain(&past)));
    }

    #[test]
    fn a_gate_lets_in_what_its_lane_brings_and_no_answers() {
        let passing = |gate: Gate| {
            let kinds = Kind::ALL.iter().copied();
            kinds
                .filter(|kind| gate.judge(*kind).is_ok())
                .collect::<Vec<_>>()
        };
        assert_eq!(passing(Gate::Any), Kind::ALL);
        assert_eq!(passing(Gate::Hello), [Kind::Hello]);
        let client = [
            Kind::BlockRequest,
            Kind::Append,
            Kind::Fetch,
            Kind::StatusRequest,
            Kind::Transfer,
            Kind::TrimRequest,
            Kind::ScrubRequest,
        ];
        assert_eq!(passing(Gate::Lane(Lane::Client)), client);
        assert_eq!(passing(Gate::Lane(Lane::Data)), [Kind::AppendEntries]);
        let bulk = [
            Kind::AppendEntries,
            Kind::BlockRequest,
            Kind::BlockReply,
            Kind::Restore,
            Kind::Referral,
        ];
        assert_eq!(passing(Gate::Lane(Lane::Bulk)), bulk);
        let control = [
            Kind::Heartbeat,
            Kind::HeartbeatAck,
            Kind::AppendEntriesAck,
            Kind::VoteRequest,
            Kind::VoteReply,
            Kind::TimeoutNow,
            Kind::StateReport,
            Kind::BlockSums,
            Kind::ReferralEnd,
        ];
        assert_eq!(passing(Gate::Lane(Lane::Control)), control);
    }

    #[test]
    fn a_kind_or_lane_reads_back_from_its_number() {
        for code in 0..=u8::MAX {
            assert!(Kind::from_code(code).is_none_or(|kind| kind.code() == code));
            assert!(Lane::from_code(code).is_none_or(|lane| lane.code() == code));
        }
        assert_eq!(Kind::ALL.len(), 28);
        assert_eq!(Kind::from_code(0), None);
    }
}
