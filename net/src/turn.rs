//! THE loop of a shard: collect completions, step each, end the turn, carry out what it wants, and
//! enter the kernel once for all of it.
//!
//! It decides nothing. The order here is the order of `docs/DATA_PATH.md`.

use std::time::Duration;

use bytes::Bytes;
use ringwood_core::frame::Lane;
use ringwood_core::id::{ConnectionId, GroupId, Nanos};
use ringwood_core::limits::JOURNAL_FILE_COUNT;
use ringwood_core::log::journal::WriteId;
use ringwood_core::shard::{Effects, Input, LoadId, SegmentWriteId, Shard};

use crate::clock;
use crate::conn::Connections;
use crate::disk;
use crate::failure::NodeFailure;
use crate::files::Files;
use crate::notices::Notices;
use crate::peers::{LANES, LaneId, Loss, Peers};
use crate::perform::SegmentWrite;
use crate::ring::{Completion, IoError, Outcome, Ring, Socket, Token};

/// Longest sleep: a bound on how late a lost wake-up could make anything.
const SLEEP_MAX: Duration = Duration::from_millis(100);

/// How long a stop waits for answers that are due, for others to lead, and for clients to be told.
const STOP_PATIENCE: Nanos = Nanos::from_millis(1_000);

/// What a completion belongs to; travels as a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Job {
    Accept,
    Receive(ConnectionId),
    Send(ConnectionId),
    Dial { lane: LaneId, generation: u32 },
    LinkReceive { lane: LaneId, generation: u32 },
    LinkSend { lane: LaneId, generation: u32 },
    Write(Write),
    Load(LoadId),
}

/// What is written durably. A write that fails ends the node, but for a segment's on a full disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Write {
    Journal { write: WriteId, slot: u32 },
    Segment(SegmentWriteId),
    Pins,
    Persist,
}

/// Bits of a token below the kind of its job.
const KIND_SHIFT: u32 = 56;
const NUMBER_MASK: u64 = (1 << KIND_SHIFT) - 1;
/// Bits of a journal write's number that say which of the journal's files it goes to.
const SLOT_BITS: u32 = 8;
const _: () = assert!(JOURNAL_FILE_COUNT <= 1 << SLOT_BITS);

impl Job {
    pub(crate) fn token(self) -> Token {
        let (kind, number) = match self {
            Self::Accept => (1, 0),
            Self::Receive(id) => (2, id.0),
            Self::Send(id) => (3, id.0),
            Self::Dial { lane, generation } => (4, lane_number(lane, generation)),
            Self::LinkReceive { lane, generation } => (5, lane_number(lane, generation)),
            Self::LinkSend { lane, generation } => (6, lane_number(lane, generation)),
            Self::Write(Write::Journal { write, slot }) => {
                (7, write.0 << SLOT_BITS | u64::from(slot))
            }
            Self::Write(Write::Segment(id)) => (8, id.0),
            Self::Load(id) => (9, id.0),
            Self::Write(Write::Pins) => (10, 0),
            Self::Write(Write::Persist) => (11, 0),
        };
        assert!(number <= NUMBER_MASK, "numbers count events of one process");
        Token(kind << KIND_SHIFT | number)
    }

    fn of(token: Token) -> Self {
        let number = token.0 & NUMBER_MASK;
        let (lane, generation) = lane_of(number);
        match token.0 >> KIND_SHIFT {
            1 => Self::Accept,
            2 => Self::Receive(ConnectionId(number)),
            3 => Self::Send(ConnectionId(number)),
            4 => Self::Dial { lane, generation },
            5 => Self::LinkReceive { lane, generation },
            6 => Self::LinkSend { lane, generation },
            7 => Self::Write(Write::Journal {
                write: WriteId(number >> SLOT_BITS),
                slot: (number & ((1 << SLOT_BITS) - 1)) as u32,
            }),
            8 => Self::Write(Write::Segment(SegmentWriteId(number))),
            9 => Self::Load(LoadId(number)),
            10 => Self::Write(Write::Pins),
            11 => Self::Write(Write::Persist),
            kind => panic!("a token of kind {kind} was never given out"),
        }
    }
}

fn lane_number(id: LaneId, generation: u32) -> u64 {
    u64::from(generation) << 16 | (id.peer as u64) << 8 | id.lane as u64
}

fn lane_of(number: u64) -> (LaneId, u32) {
    let lane = LaneId {
        peer: (number >> 8 & 0xff) as usize,
        lane: (number & 0xff) as usize,
    };
    (lane, (number >> 16) as u32)
}

/// A shard and the world it lives in.
pub(crate) struct Turn {
    pub(crate) ring: Ring,
    pub(crate) shard: Shard,
    pub(crate) effects: Effects,
    pub(crate) connections: Connections,
    pub(crate) peers: Peers,
    pub(crate) files: Files,
    /// Writes of journal and segments that have not completed.
    pub(crate) writes_in_flight: usize,
    /// Those of segments, and which of them each goes to.
    pub(crate) segment_writes: Vec<(SegmentWriteId, GroupId, u32)>,
    /// Segment writes whose file is being made.
    pub(crate) unmade: Vec<SegmentWrite>,
    pub(crate) listener: Socket,
    /// What an operator should see.
    pub(crate) notices: Notices,
    /// Reused for every gathered send.
    pub(crate) batch: Vec<Bytes>,
    /// Accepting is paused until then: no descriptor was left.
    pub(crate) accept_at: Option<Nanos>,
    /// When connections are next asked whether something is overdue.
    pub(crate) sweep_at: Nanos,
    /// When the shard is next told the date.
    date_at: Nanos,
}

impl Turn {
    pub(crate) fn new(
        ring: Ring,
        shard: Shard,
        peers: Peers,
        connections: Connections,
        files: Files,
        listener: Socket,
        notices: Notices,
    ) -> Self {
        Self {
            ring,
            shard,
            effects: Effects::default(),
            connections,
            peers,
            files,
            writes_in_flight: 0,
            segment_writes: Vec::new(),
            unmade: Vec::new(),
            listener,
            notices,
            batch: Vec::new(),
            accept_at: None,
            sweep_at: Nanos(0),
            date_at: Nanos(0),
        }
    }

    /// Runs until `is_stopping` says so, and then until nobody is owed anything, or a while.
    ///
    /// # Errors
    /// What ended the node: a failed write or read of its disk, or of the ring itself.
    pub(crate) fn run(&mut self, is_stopping: impl Fn() -> bool) -> Result<(), NodeFailure> {
        let mut completions = Vec::new();
        self.open_life(&mut completions)?;
        self.ring.accept(Job::Accept.token(), &self.listener);
        let mut stop_by = None;
        loop {
            let now = clock::now();
            self.dial_due(now);
            let sleep = self.sleep(now);
            self.ring.submit_and_wait(Some(sleep), &mut completions)?;
            let now = clock::now();
            if stop_by.is_none() && is_stopping() {
                stop_by = Some(now.after(STOP_PATIENCE));
                self.shard.step(now, Input::Stop, &mut self.effects);
            }
            for completion in completions.drain(..) {
                self.on_completion(now, completion)?;
            }
            self.write_made(now)?;
            self.tell_mended(now)?;
            self.files.on_removed()?;
            self.peers.find_moved(now);
            self.sweep(now);
            self.tell_date(now);
            self.shard.step(now, Input::TurnEnd, &mut self.effects);
            self.perform(now)?;
            let is_gone = self.shard.is_gone() && !self.connections.is_closing_any();
            if stop_by.is_some_and(|by| is_gone || by <= now) {
                return self.drain_writes(&mut completions);
            }
        }
    }

    /// Writes the flush that makes what was recovered count, before anybody is listened to.
    fn open_life(&mut self, completions: &mut Vec<Completion>) -> Result<(), NodeFailure> {
        while !self.shard.is_open() {
            let now = clock::now();
            self.shard.step(now, Input::TurnEnd, &mut self.effects);
            self.perform(now)?;
            self.ring.submit_and_wait(Some(SLEEP_MAX), completions)?;
            for completion in completions.drain(..) {
                self.on_completion(clock::now(), completion)?;
            }
        }
        Ok(())
    }

    /// The wall clock's word, once a second while there are turns.
    fn tell_date(&mut self, now: Nanos) {
        if self.date_at <= now {
            self.date_at = now.after(Nanos::from_millis(1_000));
            let input = Input::Date(clock::date());
            self.shard.step(now, input, &mut self.effects);
        }
    }

    /// How long nothing is planned.
    fn sleep(&self, now: Nanos) -> Duration {
        let mut deadline = self.shard.deadline();
        if let Some(redial) = self.peers.deadline() {
            deadline = deadline.min(redial);
        }
        if let Some(accept_at) = self.accept_at {
            deadline = deadline.min(accept_at);
        }
        Duration::from_nanos(deadline.since(now).0).min(SLEEP_MAX)
    }

    fn on_completion(&mut self, now: Nanos, completion: Completion) -> Result<(), NodeFailure> {
        if completion.token == Token::WAKER {
            return Ok(());
        }
        let Completion {
            token,
            more,
            result,
        } = completion;
        match Job::of(token) {
            Job::Accept => self.on_accepted(now, more, result),
            Job::Receive(id) => self.on_received(now, id, more, result),
            Job::Send(id) => self.on_sent(now, id, result),
            Job::Dial { lane, generation } => self.on_dialled(now, lane, generation, result),
            Job::LinkReceive { lane, generation } => {
                self.on_link_received(now, lane, generation, more, result);
            }
            Job::LinkSend { lane, generation } => {
                self.on_link_sent(now, lane, generation, result);
            }
            Job::Write(write) => {
                let input = self.written(write, result.map(|_| ()))?;
                self.shard.step(now, input, &mut self.effects);
            }
            Job::Load(load) => {
                let bytes = match result {
                    Ok(Outcome::Read(bytes)) => bytes,
                    Ok(_) => panic!("a read ends with what was read"),
                    // What cannot be read is damaged as far as this read goes: whoever wanted it
                    // is told so, and everything else goes on.
                    Err(_) => Bytes::new(),
                };
                self.shard
                    .step(now, Input::Loaded { load, bytes }, &mut self.effects);
            }
        }
        Ok(())
    }

    /// What the end of a write tells the shard. One that failed ends the node.
    fn written(
        &mut self,
        write: Write,
        result: Result<(), IoError>,
    ) -> Result<Input<'static>, NodeFailure> {
        self.writes_in_flight -= 1;
        match write {
            Write::Journal { write, slot } => match result {
                Ok(()) => Ok(Input::Stored(write)),
                Err(error) => Err(self.write_failure(&disk::journal_name(slot), error)),
            },
            Write::Pins => match result {
                Ok(()) => Ok(Input::PinsStored),
                Err(error) => Err(self.write_failure(disk::PINS_FILE, error)),
            },
            Write::Persist => match result {
                Ok(()) => Ok(Input::PersistStored),
                Err(error) => Err(self.write_failure(disk::PERSIST_FILE, error)),
            },
            Write::Segment(write) => {
                let mut under_way = self.segment_writes.iter();
                let at = under_way.position(|(id, ..)| *id == write);
                let at = at.expect("it was begun");
                let (_, group, number) = self.segment_writes.swap_remove(at);
                match result {
                    Ok(()) => Ok(Input::SegmentStored(write)),
                    // The journal still holds the blocks; space freed lets the next try succeed.
                    Err(IoError::DiskFull) => Ok(Input::SegmentRefused(write)),
                    Err(error) => {
                        let name = disk::segment_name(number);
                        let name = format!("{}/{name}", disk::log_name(group));
                        Err(self.write_failure(&name, error))
                    }
                }
            }
        }
    }

    /// Why the node ends: a write to the file of that name in its directory.
    fn write_failure(&self, name: &str, error: IoError) -> NodeFailure {
        NodeFailure::Disk {
            doing: "a write to",
            path: self.files.path().join(name),
            error,
        }
    }

    fn dial_due(&mut self, now: Nanos) {
        if self.accept_at.is_some_and(|at| at <= now) {
            self.accept_at = None;
            self.ring.accept(Job::Accept.token(), &self.listener);
        }
        for id in self.peers.ids() {
            if self.peers.link(id).is_overdue(now) {
                self.lose_link(now, id, Some(IoError::TimedOut));
            }
            let link = self.peers.link(id);
            if !link.is_due(now) {
                continue;
            }
            // No descriptor may be left, or the name may have led to an address that this machine has
            // no way to. The others are reached.
            let Ok(socket) = Socket::stream(link.address) else {
                link.wait(now);
                continue;
            };
            link.on_dial(now, socket.clone());
            let token = Job::Dial {
                lane: id,
                generation: link.generation,
            }
            .token();
            self.ring.connect(token, &socket, link.address);
        }
    }

    fn on_dialled(
        &mut self,
        now: Nanos,
        id: LaneId,
        generation: u32,
        result: Result<Outcome, IoError>,
    ) {
        let link = self.peers.link(id);
        // One that was given up may still succeed, or end, a moment later.
        if link.generation != generation || !link.is_dialling() {
            return;
        }
        if let Err(error) = result {
            self.lose_link(now, id, Some(error));
            return;
        }
        link.on_connected(now);
        let peer = link.peer;
        let socket = link.socket().expect("it is connected").clone();
        if socket.tune().is_err() {
            self.lose_link(now, id, None);
            return;
        }
        self.peers
            .link(id)
            .outbox
            .push_bytes(self.shard.hello(LANES[id.lane]));
        self.ring.receive(
            Job::LinkReceive {
                lane: id,
                generation,
            }
            .token(),
            &socket,
        );
        // Bulk is only for chunks that are asked for again: its coming and going says nothing of
        // what is in flight.
        if LANES[id.lane] != Lane::Bulk {
            let input = Input::PeerConnected(peer);
            self.shard.step(now, input, &mut self.effects);
        }
    }

    /// Nothing comes back on a link but its end, or the reason why the peer refuses it.
    fn on_link_received(
        &mut self,
        now: Nanos,
        id: LaneId,
        generation: u32,
        more: bool,
        result: Result<Outcome, IoError>,
    ) {
        let link = self.peers.link(id);
        if link.generation != generation {
            return;
        }
        let peer = link.peer;
        if let Ok(Outcome::Received(lease)) = result {
            if let Some(why) = link.on_received(lease) {
                let why = why.as_str();
                let input = Input::LinkRefused { peer, why };
                self.shard.step(now, input, &mut self.effects);
                self.notices.tell(peer, why);
            }
        } else if !matches!(result, Err(IoError::NoBuffers)) {
            self.lose_link(now, id, result.err());
            return;
        }
        if !more && let Some(socket) = self.peers.link(id).socket() {
            let token = Job::LinkReceive {
                lane: id,
                generation,
            }
            .token();
            self.ring.receive(token, socket);
        }
    }

    fn on_link_sent(
        &mut self,
        now: Nanos,
        id: LaneId,
        generation: u32,
        result: Result<Outcome, IoError>,
    ) {
        let link = self.peers.link(id);
        if link.generation != generation || link.socket().is_none() {
            return;
        }
        match result {
            Ok(_) => link.outbox.on_sent(),
            Err(error) => self.lose_link(now, id, Some(error)),
        }
    }

    fn lose_link(&mut self, now: Nanos, id: LaneId, error: Option<IoError>) {
        let link = self.peers.link(id);
        let peer = link.peer;
        let (socket, loss) = link.on_lost(now, error);
        if let Some(socket) = socket {
            self.ring.close(&socket);
        }
        // Whether a peer is there is what heartbeats say, which travel on the control lane. Another one
        // may be refused by a process that is gone when this one has reached the next already.
        if LANES[id.lane] != Lane::Control {
            return;
        }
        let input = match loss {
            Loss::Refused => Input::PeerRefused(peer),
            Loss::Silent => Input::PeerLost(peer),
        };
        self.shard.step(now, input, &mut self.effects);
    }

    /// Waits for the writes in flight, so that a clean stop leaves no torn tail to recover.
    fn drain_writes(&mut self, completions: &mut Vec<Completion>) -> Result<(), NodeFailure> {
        let deadline = clock::now().after(Nanos::from_millis(2_000));
        loop {
            for completion in completions.drain(..) {
                if completion.token == Token::WAKER {
                    continue;
                }
                if let Job::Write(write) = Job::of(completion.token) {
                    // The shard is gone; that a write failed is still no clean stop.
                    self.written(write, completion.result.map(|_| ()))?;
                }
            }
            let rest = deadline.since(clock::now());
            if self.writes_in_flight == 0 || rest == Nanos(0) {
                return Ok(());
            }
            self.ring
                .submit_and_wait(Some(Duration::from_nanos(rest.0)), completions)?;
        }
    }
}
