//! The client: what it asks the shard under test for, and what it is told.

use bytes::Bytes;
use ringwood_core::frame::client::{
    Append, AppendReply, Fetch, ScrubRequest, StatusRequest, TrimReply, TrimRequest,
};
use ringwood_core::frame::code::Outcome;
use ringwood_core::frame::message::{Body, Message};
use ringwood_core::log::block::blocks;
use ringwood_core::shard::Outgoing;

use super::{Bench, CLIENT, assembler_of, frame_of, record};

impl Bench {
    /// Asks for one record to be appended; says the request's number.
    pub(crate) fn append(&mut self, group: u32, sequence: u64, record: &[u8]) -> u64 {
        self.append_by(5, group, sequence, record)
    }

    /// As `append`, of some producer.
    pub(crate) fn append_by(
        &mut self,
        producer: u64,
        group: u32,
        sequence: u64,
        record: &[u8],
    ) -> u64 {
        self.next_request += 1;
        let append = Append {
            request: self.next_request,
            producer,
            sequence,
            group,
            record_count: 1,
            epoch: 0,
        };
        self.say(CLIENT, &append, record);
        self.next_request
    }

    /// Appends one record; says whether it is acknowledged a few turns later.
    pub(crate) fn commits(&mut self, group: u32, sequence: u64, record: &[u8]) -> bool {
        let request = self.append(group, sequence, record);
        self.turns(4);
        self.replies[&request].outcome == Outcome::Committed.code()
    }

    /// Asks for a log's start to be moved; says the request's number.
    pub(crate) fn trim(&mut self, group: u32, before: u64) -> u64 {
        self.next_request += 1;
        let request = self.next_request;
        let trim = TrimRequest {
            request,
            before,
            group,
        };
        self.say(CLIENT, &trim, &[]);
        request
    }

    /// Offset after the last committed record.
    pub(crate) fn end_offset(&mut self, group: u32) -> u64 {
        self.fetch(group, u64::MAX);
        self.end_offset
    }

    /// Appends records of a size, one after the other, until there is a segment of this number; says
    /// how many there are by then. `count` are there already.
    pub(crate) fn fill_to_segment(
        &mut self,
        group: u32,
        number: u32,
        count: u64,
        size: usize,
    ) -> u64 {
        let mut count = count;
        while !self.has_segment(group, number) {
            count += u64::from(self.commits(group, count, &record(size, count as u8)));
        }
        count
    }

    /// What the log holds from an offset on, as far as one answer goes.
    pub(crate) fn fetch(&mut self, group: u32, from: u64) -> Vec<u8> {
        self.next_request += 1;
        let fetch = Fetch {
            request: self.next_request,
            from,
            wait_us: 0,
            size_max: 1 << 20,
            group,
            mode: self.read_mode.code(),
        };
        self.fetched.clear();
        self.say(CLIENT, &fetch, &[]);
        self.turns(3);
        std::mem::take(&mut self.fetched)
    }

    /// What has come to a fetch that was not answered in time.
    pub(crate) fn late_answer(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.fetched)
    }

    /// What `status` has to complain of.
    pub(crate) fn complaints(&mut self) -> Vec<String> {
        self.say(CLIENT, &StatusRequest { request: 1 }, &[]);
        self.turn();
        self.alarms.clone()
    }

    /// Asks for a scrub; says how many have ended before.
    pub(crate) fn scrub(&mut self) -> u64 {
        self.say(CLIENT, &ScrubRequest { request: 1 }, &[]);
        self.turn();
        self.scrubs.0
    }

    /// How many scrubs have ended.
    pub(crate) fn scrub_passes(&mut self) -> u64 {
        self.complaints();
        self.scrubs.0
    }

    /// Damaged places that were found, and healed.
    pub(crate) fn damage(&mut self) -> (u64, u64) {
        self.complaints();
        (self.scrubs.1, self.scrubs.2)
    }

    /// What the client is told.
    pub(super) fn hear(&mut self, frame: &Outgoing) {
        let bytes = [&frame.head[..], &frame.payload.concat()[..]].concat();
        let mut assembler = assembler_of(Bytes::from(bytes));
        let frame = frame_of(&mut assembler);
        match frame.message().expect("a good body") {
            Message::AppendReply(reply) => {
                let reply = AppendReply {
                    request: reply.request.to_native(),
                    offset: reply.offset.to_native(),
                    outcome: reply.outcome,
                    reason: reply.reason,
                    ..AppendReply::default()
                };
                self.replies.insert(reply.request, reply);
            }
            Message::Status(status) => {
                let alarm = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                self.scrubs = (
                    status.scrub_passes.to_native(),
                    status.damage_found.to_native(),
                    status.damage_healed.to_native(),
                );
                self.alarms = status.alarms.iter().map(|bytes| alarm(bytes)).collect();
            }
            Message::TrimReply(reply) => {
                let reply = TrimReply::owned(reply).expect("a good body");
                self.trimmed.insert(reply.request, reply);
            }
            Message::FetchReply(reply) => {
                self.fetch_outcome = reply.outcome;
                self.first_offset = reply.first_offset.to_native();
                self.end_offset = reply.end_offset.to_native();
                for block in blocks(&frame.payload().contiguous()) {
                    let block = block.expect("a good block");
                    for append in block.appends() {
                        // A trim's is no record.
                        if append.header.record_count == 0 {
                            continue;
                        }
                        self.fetched.extend_from_slice(append.payload);
                    }
                }
            }
            _ => {}
        }
    }
}
