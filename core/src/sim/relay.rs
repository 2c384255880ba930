//! A disk that is damaged between two cuts: of two halves of the nodes first one is away, then the
//! other, and who is there both times has lost meanwhile what only he could have told.
//!
//! What is decided while the first half is away is on the disks of the second and of the one between.
//! Then those who were away come back, the second half goes, and the disk between is damaged where the
//! first cut began. Who is left is a majority in number, but has not everything: were the one between
//! to vote, it could elect somebody who lacks what was decided (KIP-966, the last replica standing).
//! The atlas allows it: all other disks are sound and together have every acknowledged block.

use super::chance::Chance;
use super::faults::Undo;
use super::network::Party;
use super::world::{Event, World};
use crate::id::{Lsn, Nanos};
use crate::raft::Raft;

/// Who has not measured its network yet waits longer for a leader than a fast one asks.
const START_PATIENCE: Nanos = Nanos::from_millis(120);

/// The second half of the fault, to come.
#[derive(Clone, Debug)]
pub(super) struct Relay {
    between: Party,
    /// How far its journal was durable when the first half left.
    from: Lsn,
    /// Ways to and from those who are away.
    walls: Vec<(Party, Party)>,
    /// Those who go next.
    next: Vec<Party>,
    chance: Chance,
}

impl World<'_> {
    /// One half goes away.
    pub(super) fn relay(&mut self, chance: &mut Chance) {
        let between = self.any_node(chance);
        let machine = &self.nodes[between];
        let can_begin = self.relay_end <= self.now && self.can_damage();
        if machine.is_damaged || machine.process.is_none() || !can_begin {
            return;
        }
        let (first, next) = self.halves(between, chance);
        let walls = self.walls_around(&first);
        self.marks.relays += 1;
        let span = self.relay_span(chance);
        let relay = Relay {
            between,
            from: self.oracle.ledgers[between].end(),
            walls: walls.clone(),
            next,
            chance: chance.clone(),
        };
        self.put_up(&walls);
        self.relay_end = self.now.after(span);
        self.plan_undo(span, Undo::Relayed(relay));
    }

    /// They are back, the others go, and the disk between is damaged.
    pub(super) fn on_relayed(&mut self, relay: Relay) {
        let Relay {
            between,
            from,
            walls,
            next,
            mut chance,
        } = relay;
        self.take_down(&walls);
        let walls = self.walls_around(&next);
        self.put_up(&walls);
        let span = Nanos(2 * self.relay_span(&mut chance).0);
        self.relay_end = self.now.after(span);
        self.plan_undo(span, Undo::Walls(walls));
        if self.nodes[between].is_damaged || !self.can_damage() {
            return;
        }
        let power = chance.per_mille(self.swarm.power_per_mille);
        if self.stop(between, power) {
            let restart = self.swarm.restart_span.min(self.swarm.patience());
            let at = self.now.after(chance.about(restart));
            self.plan(at, Event::Start { node: between });
        }
        if chance.one_in(3) {
            self.nodes[between].next_fuse = Some(chance.below(60));
        }
        match self.oracle.ledgers[between].witnessed_from(from) {
            Some(extent) => self.damage_extent(between, extent, &mut chance),
            None => drop(self.damage_run(between, &mut chance)),
        }
    }

    /// All others in two halves; who leads something goes last.
    fn halves(&self, between: Party, chance: &mut Chance) -> (Vec<Party>, Vec<Party>) {
        let leads = |node: &Party| {
            let process = self.nodes[*node].process.as_ref();
            process.is_some_and(|process| process.shard.rafts().any(Raft::is_leader))
        };
        let mut others: Vec<Party> = (0..self.swarm.node_count)
            .filter(|node| *node != between)
            .collect();
        for at in (1..others.len()).rev() {
            others.swap(at, chance.below(at as u64 + 1) as usize);
        }
        others.sort_by_key(leads);
        let next = others.split_off(others.len() / 2);
        (others, next)
    }

    /// Every way between one of these and a node that is none of them.
    fn walls_around(&self, away: &[Party]) -> Vec<(Party, Party)> {
        let rest = (0..self.swarm.node_count).filter(|node| !away.contains(node));
        let pairs = rest.flat_map(|node| away.iter().map(move |other| (node, *other)));
        pairs
            .flat_map(|(node, other)| [(node, other), (other, node)])
            .collect()
    }

    /// Long enough for some appends; twice as long, for an election of nodes that have just started.
    fn relay_span(&self, chance: &mut Chance) -> Nanos {
        let span = self.swarm.patience().max(START_PATIENCE);
        Nanos(chance.between(span.0 / 2, 2 * span.0))
    }
}

#[cfg(test)]
mod tests {
    use super::super::run;
    use super::super::swarm::Swarm;
    use super::*;

    #[test]
    fn a_disk_between_two_halves_is_damaged_and_heals() {
        for seed in 1..4 {
            let mut swarm = Swarm::new(seed);
            swarm.calm();
            (swarm.node_count, swarm.relay, swarm.fault_count) = (3, 1, 5);
            swarm.burst_span = Nanos::from_millis(1_500);
            (swarm.burst_every, swarm.fault_span) = (swarm.burst_span, swarm.burst_span);
            let marks = run(&swarm, None).expect("nothing breaks").marks;
            assert!(marks.relays > 0, "seed {seed}: {marks}");
            assert_eq!(marks.damages, marks.damages_healed, "seed {seed}: {marks}");
        }
    }
}
