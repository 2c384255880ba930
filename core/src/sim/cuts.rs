//! What goes wrong between parties: walls in one direction or both, ways that come and go, what is
//! held up, connections that break.

use super::chance::Chance;
use super::faults::Undo;
use super::network::{Party, Way};
use super::trace::Lane;
use super::world::World;
use crate::id::Nanos;

/// A way between nodes that goes and comes.
#[derive(Clone, Debug)]
pub(super) struct Flap {
    walls: Vec<(Party, Party)>,
    is_up: bool,
    span: Nanos,
    /// Times it will still go or come.
    left: u32,
}

impl World<'_> {
    /// Nobody hears anything over these ways, from and to.
    pub(super) fn put_up(&mut self, walls: &[(Party, Party)]) {
        let node_count = self.swarm.node_count;
        let is_node = |party: &Party| *party < node_count;
        let nodes = walls
            .iter()
            .filter(|(from, to)| is_node(from) && is_node(to));
        if self.trace.is_read() {
            let nodes: Vec<_> = nodes.collect();
            let text = format_args!("go up: {nodes:?}");
            self.trace.say(Lane::World, "walls", text);
        }
        for (from, to) in walls {
            self.network.wall(*from, *to, true);
        }
    }

    /// They hear again.
    pub(super) fn take_down(&mut self, walls: &[(Party, Party)]) {
        let text = format_args!("{} come down", walls.len());
        self.trace.say(Lane::World, "walls", text);
        for (from, to) in walls {
            self.network.wall(*from, *to, false);
        }
    }

    fn wall_off(&mut self, walls: Vec<(Party, Party)>, chance: &mut Chance) {
        self.put_up(&walls);
        let span = chance.about(self.swarm.partition_span);
        self.plan_undo(span, Undo::Walls(walls));
    }

    /// Parts all parties in two; sometimes in one direction only. Clients are on one of the sides,
    /// too.
    pub(super) fn partition(&mut self, chance: &mut Chance, is_one_way: bool) {
        let party_count = self.swarm.node_count + self.desks.len();
        let sides: Vec<bool> = (0..party_count).map(|_| chance.one_in(2)).collect();
        let mut walls = Vec::new();
        for from in 0..party_count {
            for to in 0..party_count {
                if sides[from] && !sides[to] {
                    walls.push((from, to));
                    if !is_one_way {
                        walls.push((to, from));
                    }
                }
            }
        }
        self.marks.partitions += u64::from(!is_one_way);
        self.marks.one_way_cuts += u64::from(is_one_way);
        self.wall_off(walls, chance);
    }

    /// Any directed graph of the nodes is as likely as any other; clients reach all.
    pub(super) fn graph(&mut self, chance: &mut Chance) {
        let node_count = self.swarm.node_count;
        let ways = (0..node_count).flat_map(|from| (0..node_count).map(move |to| (from, to)));
        let walls: Vec<_> = ways
            .filter(|(from, to)| from != to)
            .filter(|_| chance.one_in(2))
            .collect();
        self.marks.graphs += 1;
        self.wall_off(walls, chance);
    }

    /// A plug that does not sit: it bounces every half to two patiences, between two nodes or
    /// between one and all others.
    pub(super) fn flap(&mut self, chance: &mut Chance) {
        let node_count = self.swarm.node_count;
        let node = self.any_node(chance);
        let other = chance.one_in(2).then(|| self.any_node(chance));
        let walls: Vec<_> = (0..node_count)
            .filter(|peer| *peer != node && other.is_none_or(|other| other == *peer))
            .flat_map(|peer| [(node, peer), (peer, node)])
            .collect();
        let patience = self.swarm.patience().0;
        self.marks.flaps += 1;
        self.on_flap(Flap {
            walls,
            is_up: true,
            span: Nanos(chance.between(patience / 2, patience * 2)),
            left: chance.between(2, 12) as u32,
        });
    }

    pub(super) fn on_flap(&mut self, mut flap: Flap) {
        if flap.is_up {
            self.put_up(&flap.walls);
        } else {
            for (from, to) in &flap.walls {
                self.network.wall(*from, *to, false);
            }
        }
        // The last time, it comes.
        if flap.left > 0 || flap.is_up {
            flap.is_up = !flap.is_up;
            flap.left = flap.left.saturating_sub(1);
            self.plan_undo(flap.span, Undo::Flap(flap));
        }
    }

    pub(super) fn clog(&mut self, chance: &mut Chance) {
        let node = self.any_node(chance);
        let until = self.now.after(chance.about(self.swarm.partition_span));
        self.marks.clogs += 1;
        self.network.clog(node, until);
    }

    /// A frame of some size takes a node as long as all of its patience.
    pub(super) fn slow_receiver(&mut self, chance: &mut Chance) {
        let node = self.any_node(chance);
        let size = chance.between(1_000, 100_000);
        self.marks.slow_receivers += 1;
        self.network
            .slow_down(node, Nanos(self.swarm.patience().0 / size));
        let span = chance.about(self.swarm.partition_span);
        self.plan_undo(span, Undo::Receiver(node));
    }

    /// A connection breaks: both ends hear of it, each when its news arrives; or the end that was
    /// dialled forgets it, and the other hears only when it says something.
    pub(super) fn lose_link(&mut self, chance: &mut Chance, is_silent: bool) {
        let ids = self.network.ids();
        if ids.is_empty() {
            return;
        }
        let id = chance.pick(&ids);
        if is_silent {
            self.marks.half_open += 1;
            if let Some(stream) = self.network.find(id) {
                stream.acceptor.is_open = false;
            }
            return;
        }
        self.marks.links_lost += 1;
        for way in [Way::Forth, Way::Back] {
            let Self {
                network,
                swarm,
                chance,
                ..
            } = self;
            let sent = network.end(self.now, id, way, true, swarm, chance);
            self.plan_look(id, way, sent);
        }
    }
}
