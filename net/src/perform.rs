//! One arm per effect: what the shard wants becomes operations of the ring.

use ringwood_core::limits::SECTOR_SIZE;
use ringwood_core::log::Store;
use ringwood_core::shard::{Effect, Source};

use crate::clock;
use crate::failure::NodeFailure;
use crate::peers::LANES;
use crate::stream;
use crate::turn::{Job, Turn};

impl Turn {
    /// Carries out all effects, then hands every stream's queue to the kernel.
    pub(crate) fn perform(&mut self) -> Result<(), NodeFailure> {
        let mut list = std::mem::take(&mut self.effects.list);
        for effect in list.drain(..) {
            self.perform_one(effect)?;
        }
        // Keep the larger list's memory; ending a connection may have begun another.
        if self.effects.list.is_empty() {
            self.effects.list = list;
        }
        self.send_replies();
        self.send_to_peers();
        Ok(())
    }

    fn perform_one(&mut self, effect: Effect) -> Result<(), NodeFailure> {
        match effect {
            Effect::Send { to, lane, frame } => {
                if let Some(link) = self.peers.find(to, lane) {
                    link.send(frame);
                }
            }
            Effect::Reply { connection, frame } => {
                if let Some(connection) = self.connections.find(connection) {
                    connection.outbox.push(frame);
                }
            }
            Effect::Close(connection) => {
                if let Some(connection) = self.connections.find(connection) {
                    connection.is_closing = true;
                }
            }
            Effect::Store(Store { write, slot, position, runs }) => {
                let mode = self.disk.write_mode();
                let file = self.disk.journal_file(slot);
                self.ring.write(Job::Store(write).token(), file, position, runs, mode);
            }
            Effect::SegmentWrite { write, group, number, position, buffer } => {
                assert!(buffer.len().is_multiple_of(SECTOR_SIZE));
                let mode = self.disk.write_mode();
                let token = Job::SegmentWrite(write).token();
                match self.disk.segment_file(group, number) {
                    Ok(file) => {
                        self.ring.write(token, &file, position, [buffer], mode);
                    }
                    Err(error) => return Err(error.into()),
                }
            }
            Effect::Load { load, source, position, size } => {
                let file = match source {
                    Source::Journal { slot } => self.disk.journal_file(slot).clone(),
                    Source::Segment { group, number } => self.disk.segment_file(group, number)?,
                };
                self.ring.read(Job::Load(load).token(), &file, position, size);
            }
        }
        Ok(())
    }

    fn send_replies(&mut self) {
        let Self { connections, ring, batch, .. } = self;
        let mut slow = Vec::new();
        for (id, connection) in connections.iter_mut() {
            if connection.is_slow_reader() {
                slow.push(id);
            } else if stream::is_ready(Some(&connection.socket), &connection.outbox) {
                connection.outbox.take_batch(batch);
                ring.send(Job::Send(id).token(), &connection.socket, batch.drain(..));
            }
        }
        for id in slow {
            self.end_connection(clock::now(), id);
        }
    }

    fn send_to_peers(&mut self) {
        let Self { peers, ring, batch, .. } = self;
        for id in peers.ids() {
            let link = peers.link(id);
            let generation = link.generation;
            let Some(socket) = link.socket().cloned() else { continue };
            if !stream::is_ready(Some(&socket), &link.outbox) {
                continue;
            }
            link.outbox.take_batch(batch);
            let token = Job::LinkSend { lane: id, generation }.token();
            ring.send(token, &socket, batch.drain(..));
        }
        debug_assert!(LANES.len() < 256);
    }
}
