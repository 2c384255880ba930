//! What goes wrong, and when. Each kind of fault comes back after a while as long as the run is
//! hostile; then everything is made whole.

use super::network::{Party, Way};
use super::swarm::Swarm;
use super::trace::Lane;
use super::world::{Event, World};
use crate::id::Nanos;

/// A kind of fault.
#[derive(Clone, Debug)]
pub(super) enum Fault {
    /// Some parties stop hearing some others.
    Partition,
    /// These walls, from and to, come down.
    Heal { walls: Vec<(Party, Party)> },
    /// A connection breaks.
    LinkLoss,
    /// A process, or all of them, end: now, or in the midst of one of the next turns.
    Crash,
    /// A loop stands still.
    Stall,
    /// A node's segments find no space.
    Full,
    /// They find some again.
    Space { node: Party },
}

impl Swarm {
    fn every(&self, fault: &Fault) -> Nanos {
        match fault {
            Fault::Partition => self.partition_every,
            Fault::LinkLoss => self.link_loss_every,
            Fault::Crash => self.crash_every,
            Fault::Stall => self.stall_every,
            Fault::Full => self.full_every,
            Fault::Heal { .. } | Fault::Space { .. } => Nanos(0),
        }
    }
}

impl World<'_> {
    pub(super) fn plan_faults(&mut self) {
        for fault in [
            Fault::Partition,
            Fault::LinkLoss,
            Fault::Crash,
            Fault::Stall,
            Fault::Full,
        ] {
            self.plan_fault(fault);
        }
    }

    fn plan_fault(&mut self, fault: Fault) {
        let every = self.swarm.every(&fault);
        if every > Nanos(0) && self.is_hostile {
            let at = self.now.after(self.chance.about(every));
            self.plan(at, Event::Fault(fault));
        }
    }

    pub(super) fn on_fault(&mut self, fault: Fault) {
        match &fault {
            Fault::Heal { walls } => {
                self.trace.say(
                    Lane::World,
                    "walls",
                    format_args!("{} come down", walls.len()),
                );
                for (from, to) in walls {
                    self.network.wall(*from, *to, false);
                }
                return;
            }
            Fault::Space { node } => {
                self.nodes[*node].is_full = false;
                return;
            }
            _ if !self.is_hostile => return,
            Fault::Partition => self.partition(),
            Fault::LinkLoss => self.lose_link(),
            Fault::Crash => self.crash_some(),
            Fault::Stall => self.stall(),
            Fault::Full => {
                let node = self.any_node();
                self.nodes[node].is_full = true;
                let at = self.now.after(self.chance.about(self.swarm.full_span));
                self.plan(at, Event::Fault(Fault::Space { node }));
            }
        }
        self.plan_fault(fault);
    }

    fn any_node(&mut self) -> Party {
        self.chance.below(self.swarm.node_count as u64) as usize
    }

    /// Parts the nodes in two, or cuts single ways; sometimes in one direction only.
    fn partition(&mut self) {
        let node_count = self.swarm.node_count;
        let party_count = node_count + self.desks.len();
        let is_one_way = self.chance.one_in(3);
        let mut walls = Vec::new();
        if self.chance.one_in(3) {
            for from in 0..node_count {
                for to in 0..node_count {
                    if from != to && self.chance.one_in(3) {
                        walls.push((from, to));
                        if !is_one_way {
                            walls.push((to, from));
                        }
                    }
                }
            }
        } else {
            // Clients are on one of the sides, too.
            let sides: Vec<bool> = (0..party_count).map(|_| self.chance.one_in(2)).collect();
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
        }
        self.marks.partitions += 1;
        let nodes: Vec<_> = walls
            .iter()
            .filter(|(from, to)| *from < node_count && *to < node_count)
            .collect();
        self.trace
            .say(Lane::World, "walls", format_args!("go up: {nodes:?}"));
        for (from, to) in &walls {
            self.network.wall(*from, *to, true);
        }
        let at = self.now.after(self.chance.about(self.swarm.partition_span));
        self.plan(at, Event::Fault(Fault::Heal { walls }));
    }

    fn lose_link(&mut self) {
        let ids = self.network.ids();
        if ids.is_empty() {
            return;
        }
        let id = ids[self.chance.below(ids.len() as u64) as usize];
        self.marks.links_lost += 1;
        // Both ends hear of it, each when its news arrives.
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

    fn crash_some(&mut self) {
        let is_all = self.chance.per_mille(self.swarm.crash_all_per_mille);
        let power = self.chance.per_mille(self.swarm.power_per_mille);
        if is_all {
            (0..self.swarm.node_count).for_each(|node| self.crash(node, power));
            return;
        }
        let node = self.any_node();
        if self.chance.one_in(2) {
            self.crash(node, power);
        } else {
            let fuse = self.chance.below(30);
            if let Some(process) = &mut self.nodes[node].process {
                process.fuse = Some(fuse);
            }
        }
    }

    fn stall(&mut self) {
        let node = self.any_node();
        let until = self.now.after(self.chance.about(self.swarm.stall_span));
        self.marks.stalls += 1;
        self.trace.say(
            Lane::Node(node),
            "stall",
            format_args!("until {} ms", until.0 / 1_000_000),
        );
        if let Some(process) = &mut self.nodes[node].process {
            process.busy_until = process.busy_until.max(until);
            process.turn_at = Nanos(0);
            self.plan_turn(node, until);
        }
    }

    /// Ends all faults: from here on the cluster has to heal.
    pub(super) fn heal(&mut self) {
        self.is_hostile = false;
        self.swarm.calm();
        self.trace
            .say(Lane::World, "calm", format_args!("faults end"));
        self.network.heal();
        for node in 0..self.swarm.node_count {
            self.nodes[node].is_full = false;
            if let Some(process) = &mut self.nodes[node].process {
                process.fuse = None;
                // Whoever stands still does so no longer.
                process.busy_until = self.now;
                process.turn_at = Nanos(0);
                self.plan_turn(node, self.now);
            } else {
                self.plan(self.now, Event::Start { node });
            }
        }
    }
}
