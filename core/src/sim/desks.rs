//! Clients of a run: what they want done is done, and they are woken when they asked to be.

use super::client::{Client, ClientEffect, ClientInput, Context, Role};
use super::network::{End, Party, StreamId, Way};
use super::trace::Lane;
use super::world::World;

/// A client and what the world knows of it.
#[derive(Debug)]
pub(super) struct Desk {
    pub(super) client: Client,
    pub(super) stream: Option<StreamId>,
}

impl World<'_> {
    /// Gives all clients work, or only a little now and then, from this moment on.
    pub(super) fn load(&mut self, is_loaded: bool) {
        self.is_loaded = is_loaded;
        for client in 0..self.desks.len() {
            match &mut self.desks[client].client.role {
                Role::Producer(producer) => producer.resume(self.now),
                Role::Reader(reader) => reader.resume(self.now),
                Role::Caller(_) => {}
            }
            self.wake(client, self.now);
        }
    }

    /// A client more, which begins at `target` or anywhere.
    pub(super) fn add_client(&mut self, role: Role, target: Option<Party>) {
        let any = self.chance.below(self.swarm.node_count as u64) as usize;
        let client = Client::new(target.unwrap_or(any), role);
        self.desks.push(Desk {
            client,
            stream: None,
        });
        self.add_timer();
        self.wake(self.desks.len() - 1, self.now);
    }

    pub(super) fn end_client_stream(&mut self, client: usize, id: StreamId) {
        if self.desks[client].stream == Some(id) {
            self.desks[client].stream = None;
            self.close(id, Way::Forth);
            self.step_client(client, ClientInput::Closed);
        }
    }

    pub(super) fn step_client(&mut self, client: usize, input: ClientInput) {
        let Self {
            desks,
            swarm,
            chance,
            oracle,
            history,
            marks,
            now,
            trace,
            is_loaded,
            nodes,
            ..
        } = self;
        let desk = &mut desks[client];
        let mut context = Context {
            now: *now,
            swarm,
            chance,
            oracle,
            history,
            marks,
            nodes,
            is_loaded: *is_loaded,
            is_traced: trace.is_read(),
        };
        let wake_at = desk.client.step(input, &mut context);
        for note in desk.client.line.notes.drain(..) {
            trace.say(Lane::Client(client), "client", format_args!("{note}"));
        }
        let mut effects = std::mem::take(&mut desk.client.line.effects);
        for effect in effects.drain(..) {
            match effect {
                ClientEffect::Dial(to) => {
                    let text = format_args!("dials node {to}");
                    self.trace.say(Lane::Client(client), "client", text);
                    assert!(
                        self.desks[client].stream.is_none(),
                        "one connection at a time"
                    );
                    let party = self.swarm.node_count + client;
                    let from = End {
                        party,
                        life: 0,
                        is_open: true,
                    };
                    self.desks[client].stream = Some(self.dial(from, to));
                }
                ClientEffect::Send(bytes) => {
                    let stream = self.desks[client].stream.expect("sends on its connection");
                    self.send(stream, Way::Forth, bytes);
                }
                ClientEffect::HangUp => {
                    if let Some(stream) = self.desks[client].stream.take() {
                        self.close(stream, Way::Forth);
                    }
                }
            }
        }
        // Nothing stepped the client meanwhile; its memory serves again.
        self.desks[client].client.line.effects = effects;
        self.wake(client, wake_at);
    }
}
