//! One arm per effect: what the shard wants becomes operations of the ring.

use bytes::Bytes;
use ringwood_core::frame::code::RefusedReason;
use ringwood_core::id::{ConnectionId, GroupId, Nanos};
use ringwood_core::limits::SECTOR_SIZE;
use ringwood_core::log::journal::Store;
use ringwood_core::shard::{Effect, Input, SegmentWriteId};

use crate::disk::DiskError;
use crate::failure::NodeFailure;
use crate::files::{MendStep, Mending};
use crate::ring::File;
use crate::stream;
use crate::turn::{Job, Turn, Write};

/// A write to a segment, whose file may have to be made first.
#[derive(Debug)]
pub(crate) struct SegmentWrite {
    write: SegmentWriteId,
    group: GroupId,
    number: u32,
    position: u64,
    buffer: Bytes,
}

impl Turn {
    /// Carries out all effects, then hands every stream's queue to the kernel.
    pub(crate) fn perform(&mut self, now: Nanos) -> Result<(), NodeFailure> {
        // Carrying out may tell the shard of a failure at once, which may want more done.
        while !self.effects.list.is_empty() {
            let mut list = std::mem::take(&mut self.effects.list);
            for effect in list.drain(..) {
                self.perform_one(now, effect)?;
            }
            if self.effects.list.is_empty() {
                self.effects.list = list;
                break;
            }
        }
        self.send_replies(now);
        self.send_to_peers(now);
        Ok(())
    }

    fn perform_one(&mut self, now: Nanos, effect: Effect) -> Result<(), NodeFailure> {
        match effect {
            Effect::Send { to, lane, frame } => {
                if let Some(link) = self.peers.find(to, lane) {
                    link.send(now, frame);
                }
            }
            Effect::Reply {
                connection,
                frame,
                or_busy,
            } => {
                if self.connections.answer(now, connection, frame, or_busy) {
                    self.on_slow_reader(now, connection);
                }
            }
            Effect::Close(connection) => {
                if self.connections.close(now, connection) {
                    self.end_connection(now, connection);
                }
            }
            Effect::Store(Store {
                write,
                slot,
                position,
                runs,
                opens_life,
            }) => {
                if opens_life {
                    // What recovery read may still be in the drive's cache only.
                    self.files.sync_journal()?;
                }
                let mode = self.files.write_mode();
                let file = self.files.journal(slot);
                let token = Job::Write(Write::Journal { write, slot }).token();
                self.ring.write(token, file, position, runs, mode);
                self.writes_in_flight += 1;
            }
            Effect::StorePins { position, sector } => {
                let (token, file) = (Job::Write(Write::Pins).token(), self.files.pins());
                let mode = self.files.write_mode();
                self.ring.write(token, file, position, [sector], mode);
                self.writes_in_flight += 1;
            }
            Effect::StorePersist { position, sector } => {
                let (token, file) = (Job::Write(Write::Persist).token(), self.files.persist());
                let mode = self.files.write_mode();
                self.ring.write(token, file, position, [sector], mode);
                self.writes_in_flight += 1;
            }
            Effect::SegmentWrite {
                write,
                group,
                number,
                position,
                buffer,
            } => {
                assert!(buffer.len().is_multiple_of(SECTOR_SIZE));
                let wanted = SegmentWrite {
                    write,
                    group,
                    number,
                    position,
                    buffer,
                };
                match self.files.segment_to_write(group, number) {
                    Ok(Some(file)) => self.write_segment(&file, wanted),
                    Ok(None) => self.unmade.push(wanted),
                    Err(error) => self.on_segment_fault(now, write, error)?,
                }
            }
            Effect::SegmentMend {
                write,
                group,
                number,
                position,
                buffer,
            } => self.files.mend(Mending {
                group,
                number,
                step: MendStep::Write {
                    write,
                    position,
                    buffer,
                },
            }),
            Effect::SegmentDiscard { group, number } => self.files.mend(Mending {
                group,
                number,
                step: MendStep::Discard,
            }),
            Effect::SegmentReplace {
                write,
                group,
                number,
            } => self.files.mend(Mending {
                group,
                number,
                step: MendStep::Replace { write },
            }),
            Effect::Notice(text) => self.notices.say(text),
            Effect::SegmentRemove { group, below } => self.files.remove_segments(group, below),
            Effect::Load {
                load,
                source,
                position,
                size,
            } => {
                let Ok(file) = self.files.source(source) else {
                    let bytes = Bytes::new();
                    let input = Input::Loaded { load, bytes };
                    self.shard.step(now, input, &mut self.effects);
                    return Ok(());
                };
                self.ring
                    .read(Job::Load(load).token(), &file, position, size);
            }
        }
        Ok(())
    }

    fn write_segment(&mut self, file: &File, wanted: SegmentWrite) {
        let SegmentWrite {
            write,
            group,
            number,
            position,
            buffer,
        } = wanted;
        let mode = self.files.write_mode();
        let token = Job::Write(Write::Segment(write)).token();
        self.ring.write(token, file, position, [buffer], mode);
        self.segment_writes.push((write, group, number));
        self.writes_in_flight += 1;
    }

    /// No space heals, and the journal has the blocks meanwhile; all else ends the node.
    fn on_segment_fault(
        &mut self,
        now: Nanos,
        write: SegmentWriteId,
        error: DiskError,
    ) -> Result<(), NodeFailure> {
        if !error.is_full() {
            return Err(error.into());
        }
        let input = Input::SegmentRefused(write);
        self.shard.step(now, input, &mut self.effects);
        Ok(())
    }

    /// Says which steps of writing a segment anew have ended.
    pub(crate) fn tell_mended(&mut self, now: Nanos) -> Result<(), NodeFailure> {
        while let Some(mended) = self.files.take_mended() {
            match (mended.write, mended.result) {
                (Some(write), Ok(())) => {
                    let input = Input::SegmentStored(write);
                    self.shard.step(now, input, &mut self.effects);
                }
                (Some(write), Err(error)) => self.on_segment_fault(now, write, error)?,
                (None, result) => result?,
            }
        }
        Ok(())
    }

    /// Goes on with the writes whose files are there by now.
    pub(crate) fn write_made(&mut self, now: Nanos) -> Result<(), NodeFailure> {
        if self.unmade.is_empty() {
            return Ok(());
        }
        while let Some(made) = self.files.take_made() {
            let key = (made.group, made.number);
            let mut waiting = self.unmade.iter();
            let at = waiting.position(|write| (write.group, write.number) == key);
            let unmade = self
                .unmade
                .swap_remove(at.expect("made for a write that waits"));
            match made.result {
                Ok(file) => self.write_segment(&file, unmade),
                Err(error) => self.on_segment_fault(now, unmade.write, error)?,
            }
        }
        Ok(())
    }

    /// Answers pile up: those not begun are dropped, and instead of them it is told why.
    fn on_slow_reader(&mut self, now: Nanos, id: ConnectionId) {
        if let Some(connection) = self.connections.find(id) {
            connection.outbox.cut();
        }
        let detail = "answers pile up and are not read";
        self.refuse(now, id, RefusedReason::SlowReader, detail);
    }

    fn send_replies(&mut self, now: Nanos) {
        let Self {
            connections,
            ring,
            batch,
            ..
        } = self;
        let mut ready = connections.take_ready();
        for id in ready.drain(..) {
            let Some(connection) = connections.find(id) else {
                continue;
            };
            if stream::is_ready(Some(&connection.socket), &connection.outbox) {
                connection.outbox.take_batch(now, batch);
                ring.send(Job::Send(id).token(), &connection.socket, batch.drain(..));
            }
        }
        connections.give_back(ready);
    }

    fn send_to_peers(&mut self, now: Nanos) {
        let Self {
            peers, ring, batch, ..
        } = self;
        for id in peers.ids() {
            let link = peers.link(id);
            let generation = link.generation;
            let Some(socket) = link.socket().cloned() else {
                continue;
            };
            if !stream::is_ready(Some(&socket), &link.outbox) {
                continue;
            }
            link.outbox.take_batch(now, batch);
            let token = Job::LinkSend {
                lane: id,
                generation,
            }
            .token();
            ring.send(token, &socket, batch.drain(..));
        }
    }
}
