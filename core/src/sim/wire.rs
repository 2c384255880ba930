//! Connections of a run: dialled, answered, looked at when something is due, closed; and what comes
//! out of them brought to whoever it is for.

use bytes::Bytes;

use super::client::ClientInput;
use super::network::{End, Packet, Party, Sent, StreamId, Way};
use super::node::Arrival;
use super::swarm::Swarm;
use super::world::{Event, World};
use crate::id::Nanos;

impl World<'_> {
    pub(super) fn plan_look(&mut self, stream: StreamId, way: Way, sent: Sent) {
        if let Some(at) = sent.look_at {
            self.plan(at, Event::Look { stream, way });
        }
    }

    /// Sends one whole frame on a connection.
    pub(super) fn send(&mut self, stream: StreamId, way: Way, bytes: Bytes) {
        let Self {
            network,
            swarm,
            chance,
            marks,
            now,
            ..
        } = self;
        let sent = network.send(*now, (stream, way), bytes, swarm, chance, marks);
        self.plan_look(stream, way, sent);
    }

    /// Closes one end of a connection; the other end hears of it behind what was sent.
    pub(super) fn close(&mut self, id: StreamId, way: Way) {
        let Some(stream) = self.network.find(id) else {
            return;
        };
        let end = match way {
            Way::Forth => &mut stream.dialler,
            Way::Back => &mut stream.acceptor,
        };
        if std::mem::replace(&mut end.is_open, false) {
            let Self {
                network,
                swarm,
                chance,
                ..
            } = self;
            let sent = network.end(self.now, id, way, false, swarm, chance);
            self.plan_look(id, way, sent);
        }
    }

    /// Begins a connection.
    pub(super) fn dial(&mut self, from: End, to: Party) -> StreamId {
        let is_client = from.party >= self.swarm.node_count;
        let is_faithful = is_client && !self.swarm.client_faults;
        let id = self.network.open(from, to, is_faithful);
        let Swarm {
            delay,
            delay_spread,
            ..
        } = self.swarm;
        let at = self.now.after(self.chance.spread(delay, delay_spread));
        self.plan(at, Event::Dial { stream: id });
        id
    }

    pub(super) fn on_dial(&mut self, id: StreamId) {
        let Some(stream) = self.network.find(id) else {
            return;
        };
        let (from, to) = (stream.dialler.party, stream.acceptor.party);
        let is_walled = self.network.is_walled(from, to) || self.network.is_walled(to, from);
        let machine = &mut self.nodes[to];
        if is_walled || !machine.has_power {
            let at = self.now.after(
                self.chance
                    .spread(Nanos::from_millis(20), Nanos::from_millis(80)),
            );
            self.plan(at, Event::DialSilent { stream: id });
            return;
        }
        let accepted = match &mut machine.process {
            Some(process) => {
                let life = machine.life;
                let connection = process.accept(id);
                let stream = self.network.find(id).expect("found just now");
                stream.connection = connection;
                stream.acceptor = End {
                    party: to,
                    life,
                    is_open: true,
                };
                true
            }
            None => {
                self.marks.dials_refused += 1;
                false
            }
        };
        let Swarm {
            delay,
            delay_spread,
            ..
        } = self.swarm;
        let at = self.now.after(self.chance.spread(delay, delay_spread));
        self.plan(
            at,
            Event::Dialled {
                stream: id,
                accepted,
            },
        );
    }

    pub(super) fn on_dialled(&mut self, id: StreamId, accepted: bool) {
        let Some(stream) = self.network.find(id) else {
            return;
        };
        let dialler = stream.dialler;
        if !dialler.is_open {
            // Given up meanwhile; whoever gave it up has sent the end.
            return;
        }
        if !accepted {
            self.fail_dial(id, dialler, true);
        } else if dialler.party < self.swarm.node_count {
            self.arrive(dialler.party, dialler.life, Arrival::Connected(id));
        } else {
            let client = dialler.party - self.swarm.node_count;
            self.step_client(client, ClientInput::Connected);
        }
    }

    /// Nothing came of a dial: it was refused, or nobody answers.
    fn fail_dial(&mut self, id: StreamId, dialler: End, refused: bool) {
        if dialler.party < self.swarm.node_count {
            let lost = Arrival::Lost {
                stream: id,
                refused,
            };
            self.arrive(dialler.party, dialler.life, lost);
        } else {
            self.end_client_stream(dialler.party - self.swarm.node_count, id);
        }
    }

    pub(super) fn on_dial_silent(&mut self, id: StreamId) {
        let Some(stream) = self.network.find(id) else {
            return;
        };
        let dialler = stream.dialler;
        if dialler.is_open {
            self.fail_dial(id, dialler, false);
        }
    }

    pub(super) fn on_look(&mut self, id: StreamId, way: Way) {
        let Some(stream) = self.network.find(id) else {
            return;
        };
        if stream.looked_at[way as usize] != self.now {
            return;
        }
        stream.looked_at[way as usize] = Nanos(0);
        loop {
            let Self {
                network,
                swarm,
                chance,
                marks,
                now,
                ..
            } = self;
            match network.take_due(*now, id, way, swarm, chance, marks) {
                Ok(packet) => self.deliver(id, way, packet),
                Err(sent) => {
                    self.plan_look(id, way, sent);
                    break;
                }
            }
        }
        if self.network.find(id).is_some_and(|stream| stream.is_over()) {
            self.network.remove(id);
        }
    }

    fn deliver(&mut self, id: StreamId, way: Way, packet: Packet) {
        let Some(stream) = self.network.find(id) else {
            return;
        };
        let (end, connection) = match way {
            Way::Forth => (stream.acceptor, stream.connection),
            Way::Back => (stream.dialler, stream.connection),
        };
        if !end.is_open {
            return self.reset(id, way, end, &packet);
        }
        self.marks.frames += 1;
        let is_node = end.party < self.swarm.node_count;
        match (way, packet) {
            (Way::Forth, Packet::Bytes(bytes)) => {
                self.arrive(end.party, end.life, Arrival::Bytes(connection, bytes));
            }
            (Way::Forth, Packet::End) => {
                self.arrive(end.party, end.life, Arrival::Ended(connection));
            }
            (Way::Back, Packet::Bytes(chunk)) if is_node => {
                self.arrive(end.party, end.life, Arrival::Answered(id, chunk.bytes));
            }
            (Way::Back, Packet::End) if is_node => {
                self.arrive(
                    end.party,
                    end.life,
                    Arrival::Lost {
                        stream: id,
                        refused: false,
                    },
                );
            }
            (Way::Back, Packet::Bytes(bytes)) => {
                let client = end.party - self.swarm.node_count;
                self.step_client(client, ClientInput::Received(bytes));
            }
            (Way::Back, Packet::End) => {
                self.end_client_stream(end.party - self.swarm.node_count, id);
            }
        }
    }

    /// Bytes for an end that is gone: a machine that is up says so.
    fn reset(&mut self, id: StreamId, way: Way, end: End, packet: &Packet) {
        let has_power = end.party >= self.swarm.node_count || self.nodes[end.party].has_power;
        if has_power && matches!(packet, Packet::Bytes(_)) {
            let back = if way == Way::Forth {
                Way::Back
            } else {
                Way::Forth
            };
            let Self {
                network,
                swarm,
                chance,
                ..
            } = self;
            let sent = network.end(self.now, id, back, true, swarm, chance);
            self.plan_look(id, back, sent);
        }
    }
}
