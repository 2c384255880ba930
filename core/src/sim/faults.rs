//! What goes wrong with processes, loops and clocks, and how every fault ends. The network's faults
//! are in `cuts`, the disks' in `damage`.
//!
//! Each does its harm at once; what lasts is undone by an event of its own, or when the burst ends.

use super::chance::Chance;
use super::cuts::Flap;
use super::network::Party;
use super::node::{Arrival, Trap};
use super::relay::Relay;
use super::schedule::{Kind, Planned};
use super::swarm::Swarm;
use super::trace::Lane;
use super::world::{Ending, Event, World};
use crate::frame::code::RefusedReason;
use crate::id::Nanos;

/// How long a process that is to stop may owe anybody anything, as in a real loop.
pub(super) const STOP_PATIENCE: Nanos = Nanos::from_millis(1_000);
/// And how long it then waits for its writes.
const WRITE_PATIENCE: Nanos = Nanos::from_millis(2_000);

/// How a fault that lasts ends.
#[derive(Clone, Debug)]
pub(super) enum Undo {
    /// These walls, from and to, come down.
    Walls(Vec<(Party, Party)>),
    /// A way goes or comes, and will again.
    Flap(Flap),
    /// A node takes its bytes as they come.
    Receiver(Party),
    /// A node's segments find space.
    Space(Party),
    /// A loop has its processor again.
    Starved(Party),
    /// All processes end, with the power or without.
    Squeezed { power: bool },
    /// Of two halves the one that was away is back, and the other goes.
    Relayed(Relay),
}

impl World<'_> {
    /// Does what was planned.
    pub(super) fn on_fault(&mut self, fault: Planned) {
        if !self.is_hostile {
            return;
        }
        let mut chance = Chance::new(fault.seed);
        let chance = &mut chance;
        self.marks.faults += 1;
        self.trace.say(
            Lane::World,
            "fault",
            format_args!("number {}: {}", fault.number, fault.kind),
        );
        match fault.kind {
            Kind::Partition => self.partition(chance, false),
            Kind::OneWay => self.partition(chance, true),
            Kind::Graph => self.graph(chance),
            Kind::Flap => self.flap(chance),
            Kind::Clog => self.clog(chance),
            Kind::SlowReceiver => self.slow_receiver(chance),
            Kind::Reset => self.lose_link(chance, false),
            Kind::HalfOpen => self.lose_link(chance, true),
            Kind::Crash => self.crash_one(chance),
            Kind::CrashAll => self.crash_all(chance),
            Kind::CrashTwice => self.crash_twice(chance),
            Kind::CrashAtCompletion => self.set_trap(chance, Trap::Crash),
            Kind::Stall => self.stall(chance, self.swarm.stall_span),
            Kind::Freeze => self.freeze(chance),
            Kind::Starve => self.starve(chance),
            Kind::ClockJump => self.jump_clock(chance),
            Kind::Full => self.fill_disk(chance),
            Kind::DiskError => self.set_trap(chance, Trap::Error),
            Kind::DiskStall => self.stall_disk(chance),
            Kind::Damage => self.damage(chance),
            Kind::Stop => {
                let node = self.any_node(chance);
                self.ask_to_stop(node);
            }
            Kind::TurnAway => self.turn_away(chance),
            Kind::Rot => self.rot(chance),
            Kind::Squeeze => self.squeeze(chance),
            Kind::Relay => self.relay(chance),
        }
    }

    /// Plans the end of a fault that lasts.
    pub(super) fn plan_undo(&mut self, span: Nanos, undo: Undo) {
        let era = self.era;
        self.plan(self.now.after(span), Event::Undo(Box::new((era, undo))));
    }

    pub(super) fn on_undo(&mut self, era: u32, undo: Undo) {
        // The burst may be over, and with it all its faults.
        if era != self.era || !self.is_hostile {
            return;
        }
        match undo {
            Undo::Walls(walls) => self.take_down(&walls),
            Undo::Flap(flap) => self.on_flap(flap),
            Undo::Receiver(node) => self.network.slow_down(node, Nanos(0)),
            Undo::Space(node) => self.nodes[node].is_full = false,
            Undo::Starved(node) => self.nodes[node].turn_factor = 1,
            Undo::Relayed(relay) => self.on_relayed(relay),
            Undo::Squeezed { power } => {
                (0..self.swarm.node_count).for_each(|node| self.crash(node, power));
            }
        }
    }

    /// Any node that is not out for good.
    pub(super) fn any_node(&self, chance: &mut Chance) -> Party {
        let is_in = |node: &Party| !self.nodes[*node].is_out;
        let all: Vec<Party> = (0..self.swarm.node_count).filter(is_in).collect();
        chance.pick(&all)
    }

    fn crash_one(&mut self, chance: &mut Chance) {
        let power = chance.per_mille(self.swarm.power_per_mille);
        let node = self.any_node(chance);
        if chance.one_in(2) {
            self.crash(node, power);
        } else {
            let fuse = chance.below(30);
            if let Some(process) = &mut self.nodes[node].process {
                process.fuse = Some(fuse);
            }
        }
    }

    fn crash_all(&mut self, chance: &mut Chance) {
        let power = chance.per_mille(self.swarm.power_per_mille);
        (0..self.swarm.node_count).for_each(|node| self.crash(node, power));
    }

    fn crash_twice(&mut self, chance: &mut Chance) {
        let power = chance.per_mille(self.swarm.power_per_mille);
        let node = self.any_node(chance);
        self.nodes[node].next_fuse = Some(chance.below(12));
        self.crash(node, power);
    }

    /// As an operator or a service manager does: the process is to owe nobody anything by its end.
    /// False if there is none, or it is on its way out already.
    pub(super) fn ask_to_stop(&mut self, node: Party) -> bool {
        let life = self.nodes[node].life;
        let Some(process) = &mut self.nodes[node].process else {
            return false;
        };
        if process.stop_by.is_some() {
            return false;
        }
        process.stop_by = Some(self.now.after(STOP_PATIENCE));
        self.marks.stops += 1;
        self.trace
            .say(Lane::Node(node), "stop", format_args!("is asked to"));
        self.arrive(node, life, Arrival::Stop);
        true
    }

    /// A process that has left waits for its writes, takes nothing more, and ends; the next one
    /// starts.
    pub(super) fn leave(&mut self, node: Party) {
        let (now, machine) = (self.now, &mut self.nodes[node]);
        let process = machine.process.as_mut().expect("it is leaving");
        if !process.is_leaving {
            process.is_leaving = true;
            process.stop_by = Some(now.after(WRITE_PATIENCE));
            self.marks.stops_in_peace += u64::from(process.shard.is_gone());
        }
        process.inbox.clear();
        let until = process.stop_by.expect("set when it was asked");
        if !machine.disk.is_idle() && now < until {
            return self.plan_turn(node, until);
        }
        self.end_process(node, Ending::Left);
        let restart = if self.is_hostile {
            self.chance.about(self.swarm.restart_span)
        } else {
            Nanos(0)
        };
        self.plan(now.after(restart), Event::Start { node });
    }

    /// Whoever let something due pass is not waited for any longer, and whoever is one too many has
    /// to go: some of a node's connections, peers' and clients'.
    fn turn_away(&mut self, chance: &mut Chance) {
        let node = self.any_node(chance);
        let life = self.nodes[node].life;
        let Some(process) = &self.nodes[node].process else {
            return;
        };
        let one_in = chance.between(1, 4);
        let connections: Vec<_> = process.connections.keys().copied().collect();
        for connection in connections {
            if chance.one_in(one_in) {
                let reason = chance.pick(&[
                    RefusedReason::Overloaded,
                    RefusedReason::SlowReader,
                    RefusedReason::TimedOut,
                ]);
                self.marks.turned_away += 1;
                self.arrive(node, life, Arrival::Unwanted(connection, reason));
            }
        }
    }

    fn stall(&mut self, chance: &mut Chance, mean: Nanos) {
        let node = self.any_node(chance);
        let until = self.now.after(chance.about(mean));
        self.marks.stalls += 1;
        self.trace.say(
            Lane::Node(node),
            "stall",
            format_args!("until {} ms", until.0 / 1_000_000),
        );
        if let Some(process) = &mut self.nodes[node].process {
            process.busy_until = process.busy_until.max(until);
            self.plan_turn_anew(node, until);
        }
    }

    /// As a stop signal does, for longer than the others wait for a leader.
    fn freeze(&mut self, chance: &mut Chance) {
        self.marks.freezes += 1;
        let patience = self.swarm.patience();
        self.stall(chance, Nanos(patience.0 * 2));
    }

    fn starve(&mut self, chance: &mut Chance) {
        let node = self.any_node(chance);
        self.marks.starvations += 1;
        self.nodes[node].turn_factor = chance.between(10, 100);
        let span = chance.about(self.swarm.stall_span);
        self.plan_undo(span, Undo::Starved(node));
    }

    fn jump_clock(&mut self, chance: &mut Chance) {
        let node = self.any_node(chance);
        let span = chance.about(self.swarm.patience());
        if let Some(process) = &mut self.nodes[node].process {
            self.marks.clock_jumps += 1;
            process.clock.jump(self.now, span);
            self.plan_turn(node, self.now);
        }
    }

    /// Ends all faults: from here on the cluster has to heal.
    pub(super) fn heal(&mut self) {
        self.is_hostile = false;
        self.era += 1;
        self.swarm.calm();
        self.trace
            .say(Lane::World, "calm", format_args!("faults end"));
        self.network.heal();
        let Swarm {
            delay,
            delay_spread,
            ..
        } = self.swarm;
        let latest = self.now.after(delay).after(delay_spread);
        for (id, way, sent) in self.network.hurry(latest) {
            self.plan_look(id, way, sent);
        }
        for node in 0..self.swarm.node_count {
            let machine = &mut self.nodes[node];
            machine.is_full = false;
            machine.turn_factor = 1;
            machine.trap = None;
            machine.next_fuse = None;
            machine.stuck_until = Nanos(0);
            // Somebody has found out, and starts the process again: it sees what is left.
            if machine.is_rotten {
                self.stop(node, false);
            }
            let machine = &mut self.nodes[node];
            if machine.is_out {
                continue;
            }
            if let Some(process) = &mut machine.process {
                process.fuse = None;
                // Whoever stands still does so no longer.
                process.busy_until = self.now;
                self.plan_turn_anew(node, self.now);
            } else {
                self.plan(self.now, Event::Start { node });
            }
        }
    }
}
