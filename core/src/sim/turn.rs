//! One turn of a node's loop, as a real loop goes: dial what is due, step what arrived, end the
//! turn, carry out the effects. The oracle looks after every step; a crash may come between any two.

use bytes::{Bytes, BytesMut};

use super::disk::Target;
use super::link::{LANES, Link, LinkState};
use super::network::{Chunk, End, Party, StreamId, Way};
use super::node::{Arrival, Process};
use super::runs;
use super::trace::{self, Standing};
use super::trims;
use super::world::{Event, PendingRead, World};
use crate::frame::header::FrameHeader;
use crate::frame::refusal::Refusal;
use crate::frame::{Kind, Lane};
use crate::id::{ConnectionId, Nanos, NodeId};
use crate::shard::{Effect, Input, Outgoing, SegmentWriteId, Source};

use super::node::{node_id, party_of};

/// The process is gone: the rest of its turn does not happen.
struct Crashed;

impl World<'_> {
    pub(super) fn on_turn(&mut self, node: Party) {
        let life = self.nodes[node].life;
        if self.process(node).is_leaving {
            return self.leave(node);
        }
        self.marks.turns += 1;
        self.dial_due(node, life);
        if self.turn(node).is_err() {
            self.marks.crashes_within_turn += 1;
            let power = self.chance.per_mille(self.swarm.power_per_mille);
            self.crash(node, power);
            return;
        }
        let now = self.now;
        if self.process(node).is_over(now) {
            return self.leave(node);
        }
        let factor = self.nodes[node].turn_factor;
        let process = self.nodes[node].process.as_mut().expect("it did not crash");
        process.busy_until = self.now.after(Nanos(self.swarm.turn_span.0 * factor));
        let deadline = process.deadline();
        self.plan_turn(node, deadline);
    }

    fn process(&mut self, node: Party) -> &mut Process {
        self.nodes[node]
            .process
            .as_mut()
            .expect("its turn is under way")
    }

    fn dial_due(&mut self, node: Party, life: u32) {
        // What a start has not made durable nobody is told.
        if !self.process(node).shard.is_open() {
            return;
        }
        for at in 0..self.process(node).links.len() {
            let now = self.now;
            let link = &self.process(node).links[at];
            if !link.is_due(now) {
                continue;
            }
            let peer = link.peer;
            let from = End {
                party: node,
                life,
                is_open: true,
            };
            let stream = self.dial(from, peer);
            self.process(node).links[at].state = LinkState::Dialling(stream);
        }
    }

    fn turn(&mut self, node: Party) -> Result<(), Crashed> {
        let mut inbox = std::mem::take(&mut self.process(node).inbox);
        self.shuffle_completions(&mut inbox);
        for arrival in inbox.drain(..) {
            self.on_arrival(node, arrival)?;
        }
        // Nothing arrived meanwhile; its memory serves again.
        self.process(node).inbox = inbox;
        self.step(node, Input::TurnEnd)?;
        self.perform(node)
    }

    /// A kernel reports what a disk has done in any order.
    fn shuffle_completions(&mut self, inbox: &mut [Arrival]) {
        let is_completion = |arrival: &Arrival| {
            matches!(
                arrival,
                Arrival::Stored(_) | Arrival::SegmentStored(..) | Arrival::Loaded(..)
            )
        };
        let count = inbox
            .iter()
            .filter(|arrival| is_completion(arrival))
            .count();
        if count < 2 {
            return;
        }
        let places: Vec<usize> = (0..inbox.len())
            .filter(|place| is_completion(&inbox[*place]))
            .collect();
        for at in (1..count).rev() {
            let other = self.chance.below(at as u64 + 1) as usize;
            self.marks.completions_swapped += u64::from(other != at);
            inbox.swap(places[at], places[other]);
        }
    }

    /// One input, and the oracle's look at what it did.
    fn step(&mut self, node: Party, input: Input<'_>) -> Result<(), Crashed> {
        let Self {
            nodes,
            oracle,
            marks,
            now,
            trace,
            groups,
            swarm,
            chance,
            is_hostile,
            ..
        } = self;
        let process = nodes[node].process.as_mut().expect("its turn is under way");
        let local = process.clock.local(*now);
        let pulled = process.shard.pulled_count();
        process.shard.step(local, input, &mut process.effects);
        marks.chunks_pulled += process.shard.pulled_count() - pulled;
        marks.steps += 1;
        let restores = marks.restores;
        oracle.check(node, &process.shard, marks);
        if marks.restores > restores && *is_hostile {
            trims::maybe_end_soon(process, swarm, chance);
        }
        for (raft, group) in process.shard.rafts().zip(groups) {
            trace.mix(
                raft.term().0 << 40 ^ raft.commit().0 << 20 ^ u64::from(raft.tail().last_sum()),
            );
            if trace.is_read() {
                let standing = Standing {
                    group: *group,
                    term: raft.term(),
                    commit: raft.commit(),
                    last: raft.last(),
                };
                trace.stand(node, raft.role(), standing);
            }
        }
        let is_burnt = process.burn();
        self.maybe_mend(node);
        if is_burnt { Err(Crashed) } else { Ok(()) }
    }

    fn on_arrival(&mut self, node: Party, arrival: Arrival) -> Result<(), Crashed> {
        match arrival {
            Arrival::Bytes(connection, chunk) => self.on_bytes(node, connection, chunk),
            Arrival::Ended(connection) => self.end_connection(node, connection),
            Arrival::Connected(stream) => {
                let now = self.now;
                let Some(link) = self.find_link(node, stream) else {
                    return Ok(());
                };
                link.on_connected(now, stream);
                let (peer, lane) = (link.peer, link.lane);
                let hello = self.process(node).shard.hello(lane);
                self.send(stream, Way::Forth, hello);
                // Bulk is asked for again: its coming and going says nothing of what is in flight.
                if lane == Lane::Bulk {
                    return Ok(());
                }
                self.step(node, Input::PeerConnected(node_id(peer)))
            }
            Arrival::Lost { stream, refused } => {
                let now = self.now;
                let Some(link) = self.find_link(node, stream) else {
                    return Ok(());
                };
                link.on_lost(now);
                let (peer, lane) = (node_id(link.peer), link.lane);
                self.close(stream, Way::Forth);
                // Whether a peer is there is what heartbeats say, which travel on the control lane.
                if lane != Lane::Control {
                    return Ok(());
                }
                self.step(
                    node,
                    match refused {
                        true => Input::PeerRefused(peer),
                        false => Input::PeerLost(peer),
                    },
                )
            }
            Arrival::Answered(stream, bytes) => {
                let Some(link) = self.find_link(node, stream) else {
                    return Ok(());
                };
                let peer = node_id(link.peer);
                let Some(why) = link.on_received(bytes) else {
                    return Ok(());
                };
                self.marks.links_refused += 1;
                let why = why.as_str();
                self.step(node, Input::LinkRefused { peer, why })
            }
            Arrival::Unwanted(connection, reason) => {
                if !self.process(node).connections.contains_key(&connection) {
                    return Ok(());
                }
                let detail = "not wanted any more";
                let input = Input::ConnectionRefused {
                    connection,
                    reason,
                    detail,
                };
                self.step(node, input)
            }
            Arrival::Stop => self.step(node, Input::Stop),
            Arrival::PinsStored => self.step(node, Input::PinsStored),
            Arrival::PersistStored => self.step(node, Input::PersistStored),
            Arrival::Stored(write) => self.step(node, Input::Stored(write)),
            Arrival::SegmentStored(write, true) => self.step(node, Input::SegmentStored(write)),
            Arrival::SegmentStored(write, false) => self.step(node, Input::SegmentRefused(write)),
            Arrival::Loaded(load, bytes) => {
                self.marks.loads += 1;
                self.step(node, Input::Loaded { load, bytes })
            }
        }
    }

    fn find_link(&mut self, node: Party, stream: StreamId) -> Option<&mut Link> {
        self.process(node)
            .links
            .iter_mut()
            .find(|link| link.is_of(stream))
    }

    fn on_bytes(
        &mut self,
        node: Party,
        connection: ConnectionId,
        chunk: Chunk,
    ) -> Result<(), Crashed> {
        let Some(accepted) = self.process(node).connections.get_mut(&connection) else {
            return Ok(());
        };
        if accepted.is_closing {
            return Ok(());
        }
        accepted.is_suspect |= chunk.is_damaged;
        let is_suspect = accepted.is_suspect;
        // Out of its place while its frames are stepped, which need all else.
        let mut assembler = accepted.assembler.take().expect("one chunk at a time");
        assembler.push(chunk.bytes);
        let refused: Option<Refusal> = loop {
            match assembler.next() {
                Ok(Some(frame)) => {
                    self.trace.mix(u64::from(frame.header.body_sum));
                    let text = format_args!("{} on connection {connection}", frame.kind());
                    self.trace.say(trace::Lane::Node(node), "hears", text);
                    self.step(
                        node,
                        Input::Frame {
                            connection,
                            frame: &frame,
                        },
                    )?;
                }
                Ok(None) => break None,
                Err(refusal) => break Some(refusal),
            }
        };
        assembler.take_released().for_each(drop);
        if let Some(accepted) = self.process(node).connections.get_mut(&connection) {
            accepted.assembler = Some(assembler);
        }
        match refused {
            Some(refusal) => {
                assert!(is_suspect, "what was sent is refused: {refusal}");
                self.marks.corruptions_refused += 1;
                self.step(
                    node,
                    Input::StreamRefused {
                        connection,
                        refusal,
                    },
                )
            }
            None => Ok(()),
        }
    }

    fn end_connection(&mut self, node: Party, connection: ConnectionId) -> Result<(), Crashed> {
        let Some(accepted) = self.process(node).connections.remove(&connection) else {
            return Ok(());
        };
        self.close(accepted.stream, Way::Back);
        self.step(node, Input::ConnectionClosed(connection))
    }

    fn perform(&mut self, node: Party) -> Result<(), Crashed> {
        let mut list = std::mem::take(&mut self.process(node).effects.list);
        for effect in list.drain(..) {
            self.perform_one(node, effect);
            if self.process(node).burn() {
                return Err(Crashed);
            }
        }
        self.process(node).effects.list = list;
        let closing = std::mem::take(&mut self.process(node).closing);
        for connection in closing {
            self.end_connection(node, connection)?;
        }
        Ok(())
    }

    fn perform_one(&mut self, node: Party, effect: Effect) {
        match effect {
            Effect::Send { to, lane, frame } => self.send_to_peer(node, to, lane, frame),
            Effect::Reply {
                connection, frame, ..
            } => {
                let bytes = joined(frame);
                if let Some(accepted) = self.process(node).connections.get(&connection) {
                    let stream = accepted.stream;
                    self.send(stream, Way::Back, bytes);
                }
            }
            Effect::Close(connection) => {
                let process = self.process(node);
                if let Some(accepted) = process.connections.get_mut(&connection) {
                    accepted.is_closing = true;
                    process.closing.push(connection);
                }
            }
            Effect::Store(store) => {
                if store.opens_life {
                    self.nodes[node].disk.sync_journal();
                }
                self.oracle.on_store(node, &store);
                let ring = self.swarm.shape.ring;
                let is_wrap = store.slot == 0 && store.position == 0;
                self.marks.wraps += u64::from(is_wrap && !store.opens_life);
                assert!(store.position < ring.file_size, "within the file");
                let target = Target::File(Source::Journal { slot: store.slot });
                let life = self.nodes[node].life;
                let number = self.nodes[node]
                    .disk
                    .write(target, store.position, store.runs);
                let at = self.write_done_at(node);
                self.plan(
                    at,
                    Event::Stored {
                        node,
                        life,
                        number,
                        write: store.write,
                    },
                );
            }
            Effect::StorePins { position, sector } => {
                let life = self.nodes[node].life;
                let disk = &mut self.nodes[node].disk;
                let number = disk.write(Target::File(Source::Pins), position, vec![sector]);
                let at = self.write_done_at(node);
                self.plan(at, Event::PinsStored { node, life, number });
            }
            Effect::StorePersist { position, sector } => {
                let through = runs::recorded(&sector);
                self.oracle.ledgers[node].on_record(through);
                let life = self.nodes[node].life;
                let disk = &mut self.nodes[node].disk;
                let number = disk.write(Target::File(Source::Persist), position, vec![sector]);
                let at = self.write_done_at(node);
                self.plan(
                    at,
                    Event::PersistStored {
                        node,
                        life,
                        number,
                        through,
                    },
                );
            }
            Effect::SegmentWrite {
                write,
                group,
                number,
                position,
                buffer,
            } => {
                self.marks.segment_rolls += u64::from(position == 0 && number > 0);
                let target = Target::File(Source::Segment { group, number });
                let number = self.nodes[node].disk.write(target, position, vec![buffer]);
                self.plan_segment_done(node, number, write);
            }
            Effect::SegmentMend {
                write,
                group,
                number,
                position,
                buffer,
            } => {
                let target = Target::Mended { group, number };
                let number = self.nodes[node].disk.write(target, position, vec![buffer]);
                self.plan_segment_done(node, number, write);
            }
            Effect::SegmentReplace {
                write,
                group,
                number,
            } => {
                let number = self.nodes[node].disk.replace(group, number);
                self.plan_segment_done(node, number, write);
            }
            Effect::SegmentDiscard { group, number } => {
                self.nodes[node].disk.discard(group, number);
            }
            Effect::Notice(text) => {
                self.trace
                    .say(trace::Lane::Node(node), "says", format_args!("{text}"));
            }
            Effect::SegmentRemove { group, below } => {
                let count = self.nodes[node].disk.remove_segments(group, below);
                self.marks.segments_removed += count as u64;
            }
            Effect::Load {
                load,
                source,
                position,
                size,
            } => {
                let life = self.nodes[node].life;
                let at = self.write_done_at(node);
                let read = Box::new(PendingRead {
                    load,
                    source,
                    position,
                    size,
                });
                self.plan(at, Event::Loaded { node, life, read });
            }
        }
    }

    fn send_to_peer(&mut self, node: Party, to: NodeId, lane: Lane, frame: Outgoing) {
        let header = FrameHeader::read(&frame.head).expect("a node sends frames");
        assert!(
            header.kind.travels_on(lane),
            "{} has no place on {lane}",
            header.kind
        );
        self.oracle.on_sent(node, to, &header, &frame.head);
        self.marks.catch_ups += u64::from(lane == Lane::Bulk);
        self.marks.referrals += u64::from(header.kind == Kind::Referral);
        self.marks.referrals_ended += u64::from(header.kind == Kind::ReferralEnd);
        self.nodes[node].sent_count += 1;
        let peer = party_of(to);
        assert!(LANES.contains(&lane), "peers talk on their lanes");
        let mut links = self.process(node).links.iter();
        let stream = links
            .find(|link| link.peer == peer && link.lane == lane)
            .and_then(Link::stream);
        if let Some(stream) = stream {
            self.send(stream, Way::Forth, joined(frame));
        }
    }

    /// A write of a segment, or of what shall replace one, is done some time.
    fn plan_segment_done(&mut self, node: Party, number: u64, write: SegmentWriteId) {
        let life = self.nodes[node].life;
        let at = self.write_done_at(node);
        self.plan(
            at,
            Event::SegmentStored {
                node,
                life,
                number,
                write,
            },
        );
    }

    fn write_done_at(&mut self, node: Party) -> Nanos {
        let swarm = &self.swarm;
        let mut at = self
            .now
            .after(self.nodes[node].store_lag)
            .after(self.chance.spread(swarm.store_delay, swarm.store_spread));
        if self.chance.per_mille(swarm.stuck_per_mille) {
            at = at.after(Nanos(self.chance.below(swarm.stuck_span.0 + 1)));
        }
        at
    }
}

/// A frame as it goes over the wire.
fn joined(frame: Outgoing) -> Bytes {
    if frame.payload.is_empty() {
        return frame.head;
    }
    let mut bytes = BytesMut::with_capacity(frame.size());
    bytes.extend_from_slice(&frame.head);
    for slice in &frame.payload {
        bytes.extend_from_slice(slice);
    }
    bytes.freeze()
}
