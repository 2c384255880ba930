//! Connections between parties: bytes under way, in order unless a fault says otherwise.
//!
//! A frame travels as one packet or in two pieces. What happens to it is drawn when it is sent;
//! when it is due it may still meet a wall, or a receiver that is held up. Knows nothing of what
//! the bytes say.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

use super::chance::Chance;
use super::marks::Marks;
use super::swarm::Swarm;
use crate::id::{ConnectionId, Nanos};

/// A node, or a client: nodes come first.
pub(super) type Party = usize;

/// Names a connection, for the whole run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct StreamId(pub(super) u64);

/// Which way on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// From who dialled.
    Forth = 0,
    /// To who dialled.
    Back = 1,
}

/// Bytes as they arrive.
#[derive(Clone, Debug)]
pub(super) struct Chunk {
    pub(super) bytes: Bytes,
    /// Not as they were sent: whoever gets them must notice.
    pub(super) is_damaged: bool,
}

/// Something under way.
#[derive(Debug)]
pub(super) enum Packet {
    /// Part of the stream.
    Bytes(Chunk),
    /// Its end.
    End,
}

#[derive(Debug)]
struct Queued {
    sent_at: Nanos,
    due: Nanos,
    packet: Packet,
    /// A whole frame and not the first: faults may touch it.
    is_loose: bool,
    /// It met a wall: whoever sent it holds it, and will send it again.
    is_held: bool,
}

/// One end of a connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct End {
    pub(super) party: Party,
    /// The life of its process that the end belongs to; 0 for clients.
    pub(super) life: u32,
    pub(super) is_open: bool,
}

/// A connection, from the dial to the last packet.
#[derive(Debug)]
pub(super) struct Stream {
    pub(super) dialler: End,
    pub(super) acceptor: End,
    /// What the acceptor knows it by.
    pub(super) connection: ConnectionId,
    queues: [VecDeque<Queued>; 2],
    /// Bytes in each queue.
    sizes: [usize; 2],
    /// When the head of a queue is looked at; a later event is stale.
    pub(super) looked_at: [Nanos; 2],
    has_sent: [bool; 2],
    /// The machine that sends this way has lost its power: nothing is sent again.
    is_powerless: [bool; 2],
    /// Keeps its order and loses nothing.
    is_faithful: bool,
}

/// What became of a packet that was sent.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sent {
    /// When the queue's head is to be looked at.
    pub(super) look_at: Option<Nanos>,
}

/// All connections.
#[derive(Debug)]
pub(super) struct Network {
    /// In the order of their making; those that are over are gone.
    streams: Vec<Option<Box<Stream>>>,
    /// Partitions that stand in the way, by sender and receiver.
    walls: Vec<Vec<u32>>,
    /// Nothing reaches these before their time.
    clogged_until: Vec<Nanos>,
    /// What each byte costs these to take; zero if nothing worth a thought.
    byte_span: Vec<Nanos>,
}

impl Network {
    pub(super) fn new(party_count: usize) -> Self {
        Self {
            streams: Vec::new(),
            walls: vec![vec![0; party_count]; party_count],
            clogged_until: vec![Nanos(0); party_count],
            byte_span: vec![Nanos(0); party_count],
        }
    }

    /// A new connection; nothing has reached the acceptor yet.
    pub(super) fn open(&mut self, dialler: End, to: Party, is_faithful: bool) -> StreamId {
        let id = StreamId(self.streams.len() as u64);
        let acceptor = End {
            party: to,
            life: 0,
            is_open: false,
        };
        let stream = Box::new(Stream {
            dialler,
            acceptor,
            connection: ConnectionId(0),
            queues: [VecDeque::new(), VecDeque::new()],
            sizes: [0; 2],
            looked_at: [Nanos(0); 2],
            has_sent: [false; 2],
            is_powerless: [false; 2],
            is_faithful,
        });
        self.streams.push(Some(stream));
        id
    }

    pub(super) fn find(&mut self, id: StreamId) -> Option<&mut Stream> {
        self.streams[id.0 as usize].as_deref_mut()
    }

    pub(super) fn remove(&mut self, id: StreamId) {
        self.streams[id.0 as usize] = None;
    }

    /// Connections that somebody still holds an end of, in the order of their making.
    pub(super) fn ids(&self) -> Vec<StreamId> {
        self.live().map(|(id, _)| id).collect()
    }

    /// Connections with an open end at a party.
    pub(super) fn of_party(&self, party: Party) -> Vec<StreamId> {
        let holds = |end: &End| end.party == party && end.is_open;
        self.live()
            .filter(|(_, stream)| holds(&stream.dialler) || holds(&stream.acceptor))
            .map(|(id, _)| id)
            .collect()
    }

    fn live(&self) -> impl Iterator<Item = (StreamId, &Stream)> {
        let streams = (0..).map(StreamId).zip(&self.streams);
        streams.filter_map(|(id, stream)| Some((id, stream.as_deref()?)))
    }

    pub(super) fn is_walled(&self, from: Party, to: Party) -> bool {
        self.walls[from][to] > 0
    }

    /// Puts up or takes down one wall.
    pub(super) fn wall(&mut self, from: Party, to: Party, is_up: bool) {
        let walls = &mut self.walls[from][to];
        *walls = if is_up {
            *walls + 1
        } else {
            walls.saturating_sub(1)
        };
    }

    /// Holds up all that is sent to a party.
    pub(super) fn clog(&mut self, to: Party, until: Nanos) {
        self.clogged_until[to] = self.clogged_until[to].max(until);
    }

    /// Makes a party take its bytes slowly, or as they come.
    pub(super) fn slow_down(&mut self, to: Party, byte_span: Nanos) {
        self.byte_span[to] = byte_span;
    }

    /// Every way is open, and nobody is slow.
    pub(super) fn heal(&mut self) {
        self.walls.iter_mut().flatten().for_each(|walls| *walls = 0);
        self.clogged_until.fill(Nanos(0));
        self.byte_span.fill(Nanos(0));
    }

    /// What is under way arrives by `latest`, whatever held it up. The queues are to be looked at
    /// then.
    pub(super) fn hurry(&mut self, latest: Nanos) -> Vec<(StreamId, Way, Sent)> {
        let mut looks = Vec::new();
        for id in self.ids() {
            let stream = self.find(id).expect("listed just now");
            for way in [Way::Forth, Way::Back] {
                for queued in &mut stream.queues[way as usize] {
                    queued.due = queued.due.min(latest);
                }
                stream.looked_at[way as usize] = Nanos(0);
                looks.push((id, way, stream.look(way)));
            }
        }
        looks
    }

    /// Sends one whole frame along a stream, one way or the other.
    pub(super) fn send(
        &mut self,
        now: Nanos,
        (id, way): (StreamId, Way),
        bytes: Bytes,
        swarm: &Swarm,
        chance: &mut Chance,
        marks: &mut Marks,
    ) -> Sent {
        let Some(stream) = self.streams[id.0 as usize].as_deref_mut() else {
            return Sent::default();
        };
        let (_, to) = stream.parties(way);
        if !stream.sender(way).is_open {
            // The end was forgotten under its process.
            return Sent::default();
        }
        let way = way as usize;
        let is_first = !std::mem::replace(&mut stream.has_sent[way], true);
        let has_faults = !is_first && !stream.is_faithful;
        let is_full =
            stream.sizes[way] > 0 && stream.sizes[way] + bytes.len() > swarm.queue_size_max;
        if is_full && has_faults {
            marks.queue_full += 1;
            return Sent::default();
        }
        if has_faults && chance.per_mille(swarm.drop_per_mille) {
            marks.dropped += 1;
            return Sent::default();
        }
        let queue = &mut stream.queues[way];
        let last = queue.back().map(|last| (last.sent_at, last.due));
        let last_due = last.map_or(Nanos(0), |(_, due)| due);
        // What a loop sends in one turn leaves in one write, and travels together.
        let travels_along = last.is_some_and(|(sent_at, _)| sent_at == now);
        let mut due = last_due;
        if !travels_along {
            due = now.after(chance.spread(swarm.delay, swarm.delay_spread));
            if swarm.tail > Nanos(0) {
                due = due.after(chance.tail(swarm.tail));
            }
            if chance.per_mille(swarm.slow_per_mille) {
                due = due.after(Nanos(chance.below(swarm.slow_span.0 + 1)));
            }
        }
        let taking = Nanos(self.byte_span[to].0 * bytes.len() as u64);
        let due = due.max(last_due).after(taking);
        let is_twice = has_faults && chance.per_mille(swarm.duplicate_per_mille);
        let mut chunk = Chunk {
            bytes,
            is_damaged: false,
        };
        let copy = is_twice.then(|| chunk.clone());
        if !is_first && chance.per_mille(swarm.corrupt_per_mille) {
            marks.corrupted += 1;
            chunk = chunk.damaged(chance);
        }
        stream.sizes[way] += chunk.bytes.len();
        if chance.per_mille(swarm.split_per_mille) {
            let at = chance.between(1, chunk.bytes.len() as u64 - 1) as usize;
            let rest = Chunk {
                bytes: chunk.bytes.split_off(at),
                ..chunk
            };
            for part in [chunk, rest] {
                queue.push_back(Queued {
                    sent_at: now,
                    due,
                    packet: Packet::Bytes(part),
                    is_loose: false,
                    is_held: false,
                });
            }
        } else {
            queue.push_back(Queued {
                sent_at: now,
                due,
                packet: Packet::Bytes(chunk),
                is_loose: has_faults,
                is_held: false,
            });
        }
        let can_overtake = queue.iter().rev().take(2).all(|queued| queued.is_loose);
        if queue.len() > 1 && can_overtake && chance.per_mille(swarm.reorder_per_mille) {
            marks.reordered += 1;
            let mut last = queue.pop_back().expect("two are there");
            let before = queue.back_mut().expect("two are there");
            std::mem::swap(&mut last.packet, &mut before.packet);
            queue.push_back(last);
        }
        if let Some(copy) = copy {
            marks.duplicated += 1;
            let due = due.after(chance.spread(swarm.delay, swarm.delay_spread));
            stream.sizes[way] += copy.bytes.len();
            queue.push_back(Queued {
                sent_at: now,
                due,
                packet: Packet::Bytes(copy),
                is_loose: true,
                is_held: false,
            });
        }
        stream.look(if way == 0 { Way::Forth } else { Way::Back })
    }

    /// Sends the end of a connection: behind all else, or at once and instead of it.
    pub(super) fn end(
        &mut self,
        now: Nanos,
        id: StreamId,
        way: Way,
        is_abrupt: bool,
        swarm: &Swarm,
        chance: &mut Chance,
    ) -> Sent {
        let Some(stream) = self.streams[id.0 as usize].as_deref_mut() else {
            return Sent::default();
        };
        let queue = &mut stream.queues[way as usize];
        if is_abrupt {
            let kept = chance.below(queue.len() as u64 + 1) as usize;
            queue.truncate(kept);
            if let Some(Queued {
                packet: Packet::Bytes(chunk),
                ..
            }) = queue.back_mut()
                && chance.one_in(2)
            {
                // In the midst of a frame.
                let size = chance.below(chunk.bytes.len() as u64 + 1) as usize;
                chunk.bytes.truncate(size);
            }
            stream.sizes[way as usize] = queue.iter().map(Queued::size).sum();
        }
        let due = now.after(chance.spread(swarm.delay, swarm.delay_spread));
        let due = due.max(queue.back().map_or(Nanos(0), |last| last.due));
        queue.push_back(Queued {
            sent_at: now,
            due,
            packet: Packet::End,
            is_loose: false,
            is_held: false,
        });
        stream.look(way)
    }

    /// A machine is without power: what it sent and nobody took yet arrives if it is on its way, but
    /// what met a wall was to be sent again by that machine's kernel, and all behind it waits for it.
    pub(super) fn lose_power(&mut self, id: StreamId, way: Way) {
        let Some(stream) = self.streams[id.0 as usize].as_deref_mut() else {
            return;
        };
        let way = way as usize;
        stream.is_powerless[way] = true;
        if stream.queues[way].front().is_some_and(|head| head.is_held) {
            stream.queues[way].clear();
            stream.sizes[way] = 0;
        }
    }

    /// What is due on a connection, one packet at a time. `Err`: look again then, if ever.
    pub(super) fn take_due(
        &mut self,
        now: Nanos,
        id: StreamId,
        way: Way,
        swarm: &Swarm,
        chance: &mut Chance,
        marks: &mut Marks,
    ) -> Result<Packet, Sent> {
        let Some(stream) = self.streams[id.0 as usize].as_deref_mut() else {
            return Err(Sent::default());
        };
        let (from, to) = stream.parties(way);
        let clogged_until = self.clogged_until[to];
        let queue = &mut stream.queues[way as usize];
        while let Some(head) = queue.front_mut() {
            if head.due > now {
                break;
            }
            if clogged_until > now {
                for queued in queue.iter_mut() {
                    queued.due = queued.due.max(clogged_until);
                }
                break;
            }
            if self.walls[from][to] > 0 {
                if stream.is_powerless[way as usize] || head.is_loose && !swarm.retransmit {
                    marks.dropped += 1;
                    stream.sizes[way as usize] -= head.size();
                    queue.pop_front();
                    continue;
                }
                let pause = Nanos(swarm.patience().0 / 20);
                let again = now.after(chance.spread(pause, Nanos(pause.0 * 5)));
                head.is_held = true;
                for queued in queue.iter_mut() {
                    queued.due = queued.due.max(again);
                }
                break;
            }
            let head = queue.pop_front().expect("seen just now");
            stream.sizes[way as usize] -= head.size();
            return Ok(head.packet);
        }
        Err(stream.look(way))
    }
}

impl Queued {
    fn size(&self) -> usize {
        match &self.packet {
            Packet::Bytes(chunk) => chunk.bytes.len(),
            Packet::End => 0,
        }
    }
}

impl Chunk {
    /// The same with a bit turned over, or a few bytes lost to noise.
    fn damaged(self, chance: &mut Chance) -> Self {
        let mut bytes = BytesMut::from(&self.bytes[..]);
        let at = chance.below(bytes.len() as u64) as usize;
        if chance.one_in(2) {
            bytes[at] ^= 1 << chance.below(8);
        } else {
            let end = bytes.len().min(at + 1 + chance.below(16) as usize);
            for byte in &mut bytes[at..end] {
                *byte ^= chance.between(1, 255) as u8;
            }
        }
        Self {
            bytes: bytes.freeze(),
            is_damaged: true,
        }
    }
}

impl Stream {
    /// Who sends that way, and who receives.
    fn parties(&self, way: Way) -> (Party, Party) {
        match way {
            Way::Forth => (self.dialler.party, self.acceptor.party),
            Way::Back => (self.acceptor.party, self.dialler.party),
        }
    }

    fn sender(&self, way: Way) -> &End {
        match way {
            Way::Forth => &self.dialler,
            Way::Back => &self.acceptor,
        }
    }

    /// Plans a look at the head of a queue, unless one is planned that early.
    pub(super) fn look(&mut self, way: Way) -> Sent {
        let Some(head) = self.queues[way as usize].front() else {
            return Sent::default();
        };
        let looked_at = &mut self.looked_at[way as usize];
        if *looked_at != Nanos(0) && *looked_at <= head.due {
            return Sent::default();
        }
        *looked_at = head.due;
        Sent {
            look_at: Some(head.due),
        }
    }

    /// Both ends are gone and nothing is under way.
    pub(super) fn is_over(&self) -> bool {
        !self.dialler.is_open
            && !self.acceptor.is_open
            && self.queues.iter().all(VecDeque::is_empty)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(network: &mut Network, now: Nanos, id: StreamId, swarm: &Swarm) -> Option<Packet> {
        let (chance, marks) = (&mut Chance::new(1), &mut Marks::default());
        network
            .take_due(now, id, Way::Forth, swarm, chance, marks)
            .ok()
    }

    /// A connection on which a frame meets a wall, and another is still on its way.
    fn held_up(swarm: &Swarm) -> (Network, StreamId) {
        let mut network = Network::new(2);
        let dialler = End {
            party: 0,
            life: 1,
            is_open: true,
        };
        let id = network.open(dialler, 1, false);
        network.wall(0, 1, true);
        let (chance, marks) = (&mut Chance::new(1), &mut Marks::default());
        let frame = Bytes::from_static(b"frame");
        network.send(
            Nanos(0),
            (id, Way::Forth),
            frame.clone(),
            swarm,
            chance,
            marks,
        );
        let later = Nanos::from_millis(10_000);
        assert!(packet(&mut network, later, id, swarm).is_none(), "a wall");
        network.send(later, (id, Way::Forth), frame, swarm, chance, marks);
        (network, id)
    }

    #[test]
    fn nothing_is_sent_again_by_a_machine_without_power() {
        let mut swarm = Swarm::new(1);
        swarm.calm();
        swarm.retransmit = true;
        let much_later = Nanos::from_millis(60_000);
        // A process that was killed leaves its kernel, which sends again.
        let (mut network, id) = held_up(&swarm);
        network.wall(0, 1, false);
        assert!(packet(&mut network, much_later, id, &swarm).is_some());
        let (mut network, id) = held_up(&swarm);
        network.lose_power(id, Way::Forth);
        network.wall(0, 1, false);
        assert!(packet(&mut network, much_later, id, &swarm).is_none());
        // Nor does what was on its way survive a wall.
        let mut network = Network::new(2);
        let dialler = End {
            party: 0,
            life: 1,
            is_open: true,
        };
        let id = network.open(dialler, 1, false);
        let (chance, marks) = (&mut Chance::new(1), &mut Marks::default());
        let frame = Bytes::from_static(b"frame");
        network.send(Nanos(0), (id, Way::Forth), frame, &swarm, chance, marks);
        network.lose_power(id, Way::Forth);
        network.wall(0, 1, true);
        assert!(packet(&mut network, much_later, id, &swarm).is_none());
        network.wall(0, 1, false);
        assert!(packet(&mut network, Nanos(much_later.0 * 2), id, &swarm).is_none());
    }

    #[test]
    fn what_is_sent_at_one_moment_arrives_together() {
        let mut swarm = Swarm::new(1);
        swarm.calm();
        (swarm.delay, swarm.delay_spread) = (Nanos(1_000), Nanos(500));
        let mut network = Network::new(2);
        let dialler = End {
            party: 0,
            life: 1,
            is_open: true,
        };
        let id = network.open(dialler, 1, false);
        let (chance, marks) = (&mut Chance::new(3), &mut Marks::default());
        let mut looks = Vec::new();
        for _ in 0..3 {
            let frame = Bytes::from_static(b"frame");
            let sent = network.send(Nanos(5), (id, Way::Forth), frame, &swarm, chance, marks);
            looks.push(sent.look_at);
        }
        let due = looks[0].expect("it is to be looked at");
        assert!(due >= Nanos(1_005) && due <= Nanos(1_505));
        assert_eq!(looks[1..], [None; 2]);
        let mut arrived = 0;
        while packet(&mut network, due, id, &swarm).is_some() {
            arrived += 1;
        }
        assert_eq!(arrived, 3);
    }
}
