//! What goes wrong with disks: no space, errors, silence, and bytes that are not what was written.
//!
//! The last is under an atlas. A node that finds what it had promised damaged must know it, doubt
//! what it cannot know, and be as before once the others have helped. So only so many disks are hit
//! at a time that the others are a majority, and have every acknowledged block; and only where later
//! bytes on the same disk bear witness of the promise: where nothing does, no reader could tell
//! damage from a write that was never done. A disk counts as sound again when its node doubts
//! nothing any more. A write that was lost while the process ran is put back if it ends before it
//! has written on.

use super::chance::{Chance, mixed};
use super::faults::Undo;
use super::ledger::Extent;
use super::network::Party;
use super::node::Trap;
use super::trace::Lane;
use super::world::{Event, World};
use crate::id::{Lsn, Nanos};
use crate::log::WriteId;
use crate::raft::quorum;
use crate::shard::{Shard, Source};

impl World<'_> {
    pub(super) fn fill_disk(&mut self, chance: &mut Chance) {
        let node = self.any_node(chance);
        self.nodes[node].is_full = true;
        let span = chance.about(self.swarm.full_span);
        self.plan_undo(span, Undo::Space(node));
    }

    /// No disk has space for segments, and when journals have had time to fill up all processes
    /// end: those that come after find a full journal, and of nothing in it that it is decided.
    pub(super) fn squeeze(&mut self, chance: &mut Chance) {
        self.marks.squeezes += 1;
        let span = self.swarm.full_span;
        for node in 0..self.swarm.node_count {
            self.nodes[node].is_full = true;
            self.plan_undo(span, Undo::Space(node));
        }
        let power = chance.per_mille(self.swarm.power_per_mille);
        let until = Nanos(chance.between(span.0 / 4, span.0));
        self.plan_undo(until, Undo::Squeezed { power });
    }

    pub(super) fn stall_disk(&mut self, chance: &mut Chance) {
        let node = self.any_node(chance);
        self.marks.disk_stalls += 1;
        self.nodes[node].stuck_until = self.now.after(chance.about(self.swarm.stuck_span));
    }

    /// One of the next reads or writes of a node fails, or is the last thing that its process does.
    pub(super) fn set_trap(&mut self, chance: &mut Chance, trap: fn(u64) -> Trap) {
        let node = self.any_node(chance);
        self.nodes[node].trap = Some(trap(chance.below(20)));
    }

    /// A process ends, and what its disk had promised to keep is damaged before the next one reads
    /// it.
    pub(super) fn damage(&mut self, chance: &mut Chance) {
        let node = self.any_node(chance);
        if self.nodes[node].is_damaged || !self.can_damage() {
            return;
        }
        let power = chance.per_mille(self.swarm.power_per_mille);
        self.crash(node, power);
        self.damage_run(node, chance);
    }

    /// The same, and the process runs on, over a disk that is not what it thinks; or one of its
    /// next writes is lost.
    pub(super) fn rot(&mut self, chance: &mut Chance) {
        let node = self.any_node(chance);
        let machine = &mut self.nodes[node];
        if machine.is_damaged || machine.process.is_none() {
            return;
        }
        if chance.one_in(3) {
            machine.trap = Some(Trap::Lose(chance.below(20)));
        } else if self.can_damage() && self.damage_run(node, chance) {
            self.nodes[node].is_rotten = true;
            self.marks.damages_in_use += 1;
        }
    }

    /// All processes end, and every disk is damaged before they start again: where no copy need be
    /// intact, each must doubt what it lost, or have lost nothing.
    pub(super) fn ruin(&mut self) {
        self.marks.ruins += 1;
        let chance = &mut Chance::new(mixed(self.swarm.seed ^ 0x5255_494e));
        for node in 0..self.swarm.node_count {
            if !self.nodes[node].is_out {
                self.stop(node, false);
                self.damage_run(node, chance);
                self.plan(self.now, Event::Start { node });
            }
        }
    }

    /// Damages a run that a disk had promised to keep. False if there is none.
    pub(super) fn damage_run(&mut self, node: Party, chance: &mut Chance) -> bool {
        let ledger = &self.oracle.ledgers[node];
        let extents = if self.swarm.damage_last {
            ledger.unwitnessed()
        } else {
            ledger.witnessed()
        };
        if extents.is_empty() {
            return false;
        }
        self.damage_extent(node, chance.pick(&extents), chance);
        true
    }

    /// Damages this run.
    pub(super) fn damage_extent(&mut self, node: Party, extent: Extent, chance: &mut Chance) {
        let Extent { lsn, size, .. } = extent;
        let end = Lsn(lsn.0 + size as u64);
        let is_witnessed = self.oracle.ledgers[node].is_witnessed(end);
        let which = if is_witnessed { "run" } else { "last run" };
        let (slot, position) = self.swarm.shape.ring.locate(lsn);
        self.oracle.ledgers[node].damage();
        let machine = &mut self.nodes[node];
        machine.is_damaged = true;
        let source = Source::Journal { slot };
        let how = machine.disk.damage(source, position, size, chance);
        self.marks.damages += 1;
        let text = format_args!("{how} in the {which} at {lsn} of {size} bytes");
        self.trace.say(Lane::Node(node), "damage", text);
    }

    /// A write of a journal is reported done, and most often it is.
    pub(super) fn complete_store(&mut self, node: Party, number: u64, write: WriteId) {
        let loses = matches!(self.nodes[node].trap, Some(Trap::Lose(0)));
        let can_lose = loses && !self.nodes[node].is_damaged && self.can_damage();
        let machine = &mut self.nodes[node];
        if loses {
            machine.trap = None;
        }
        if !can_lose {
            return machine.disk.complete(number);
        }
        let end = self.oracle.ledgers[node].end_of(write);
        self.oracle.ledgers[node].damage();
        machine.lost = Some((machine.disk.lose(number, &mut self.chance), end));
        machine.is_damaged = true;
        machine.is_rotten = true;
        self.marks.writes_lost += 1;
        let text = format_args!("a write of runs up to {end} is lost");
        self.trace.say(Lane::Node(node), "damage", text);
    }

    /// A process is gone. A write that its disk lost is not missed if nothing was written behind
    /// it: then it is there after all.
    pub(super) fn spare_lost(&mut self, node: Party) {
        let machine = &mut self.nodes[node];
        let Some((lost, end)) = machine.lost.take() else {
            return;
        };
        if !self.swarm.damage_last && !self.oracle.ledgers[node].is_witnessed(end) {
            machine.disk.put_back(&lost);
            self.oracle.ledgers[node].spare();
            machine.is_damaged = false;
            machine.is_rotten = false;
            let text = format_args!("what was lost is there after all");
            self.trace.say(Lane::Node(node), "damage", text);
        }
    }

    /// A segment of some node is damaged while it is in use; says of which.
    pub(super) fn damage_segment(&mut self) -> Option<Party> {
        if !self.wild.segment_damage || !self.can_damage() {
            return None;
        }
        let is_sound = |node: &Party| !self.nodes[*node].is_damaged;
        let sound: Vec<Party> = (0..self.swarm.node_count).filter(is_sound).collect();
        let node = self.chance.pick(&sound);
        let machine = &mut self.nodes[node];
        let segments = machine.disk.segments();
        if segments.is_empty() {
            return None;
        }
        let (source, size) = self.chance.pick(&segments);
        machine.is_damaged = true;
        let how = machine.disk.damage(source, 0, size, &mut self.chance);
        let text = format_args!("{how} in {source:?}");
        self.trace.say(Lane::Node(node), "damage", text);
        Some(node)
    }

    /// Whether the disks that are sound would still be a majority without one.
    pub(super) fn can_damage(&self) -> bool {
        let node_count = self.swarm.node_count;
        let sound = self.nodes.iter().filter(|node| !node.is_damaged).count();
        sound > quorum::size(node_count)
    }

    /// After a step of a node: a disk that had lost something has all again, or knows better. A hole
    /// in the journal may have come to stand in a segment, and a restart forgets which.
    pub(super) fn maybe_mend(&mut self, node: Party) {
        let machine = &mut self.nodes[node];
        let shard = machine.process.iter().map(|process| &process.shard);
        let is_wounded =
            machine.disk.is_wounded() || shard.flat_map(Shard::wounded_segments).next().is_some();
        if !is_wounded && self.oracle.ledgers[node].take_mended() {
            machine.is_damaged = false;
            machine.is_rotten = false;
            self.marks.damages_healed += 1;
            self.trace.say(
                Lane::Node(node),
                "healed",
                format_args!("nothing is doubted"),
            );
        }
    }

    /// A read or write of a node is done: true if its process ends for that, and hears nothing.
    pub(super) fn springs_trap(&mut self, node: usize, number: Option<u64>) -> bool {
        let machine = &mut self.nodes[node];
        let is_error = match &mut machine.trap {
            None => return false,
            Some(Trap::Crash(left) | Trap::Error(left) | Trap::Lose(left)) if *left > 0 => {
                *left -= 1;
                return false;
            }
            Some(Trap::Lose(_)) => return false,
            Some(Trap::Crash(_)) => false,
            Some(Trap::Error(_)) => true,
        };
        machine.trap = None;
        let (chance, swarm) = (&mut self.chance, &self.swarm);
        if is_error {
            self.marks.disk_errors += 1;
        } else {
            self.marks.crashes_at_completion += 1;
            // The bytes may be all there; nobody was told.
            if let Some(number) = number.filter(|_| chance.one_in(2)) {
                machine.disk.complete(number);
            }
        }
        let power = !is_error && chance.per_mille(swarm.power_per_mille);
        let text = if is_error { "fails" } else { "is the last" };
        self.trace.say(
            Lane::Node(node),
            "disk",
            format_args!("a read or write {text}"),
        );
        self.crash(node, power);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::super::run;
    use super::super::swarm::Swarm;

    #[test]
    fn the_atlas_can_aim_at_the_last_run() {
        let mut swarm = Swarm::new(3);
        swarm.calm();
        (swarm.damage, swarm.damage_last) = (1, true);
        swarm.fault_count = 5;
        let mut told = Vec::new();
        // What comes of it is not judged here: recovery may not be able to tell.
        let _ = run(
            &swarm,
            Some(&mut |record| {
                if record.kind == "damage" {
                    told.push(record.text.to_string());
                }
            }),
        );
        assert!(!told.is_empty(), "a disk was hit");
        let is_last = |text: &String| text.contains("in the last run");
        assert!(told.iter().all(is_last), "{told:?}");
    }
}
