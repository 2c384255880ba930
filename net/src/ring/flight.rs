//! The operations in flight: each is owned here from its start to its last completion, whatever
//! its caller, its socket or its ring's owner do meanwhile.
//!
//! A completion names its operation by user data: slot and generation. A slot is used again, a
//! generation is not (before 2^32 uses), so a name that is out of date is told from a live one.

use super::Token;
use super::op::Operation;

/// Most operations in flight: a bound against a bug, far above what connections can cause.
const FLIGHT_COUNT_MAX: usize = 1 << 20;

/// Names an operation of one ring, for `Ring::cancel`. Out of date once its last completion was
/// delivered; then it names nothing, for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct OperationId {
    slot: u32,
    generation: u32,
}

impl OperationId {
    pub(super) fn user_data(self) -> u64 {
        u64::from(self.generation) << 32 | u64::from(self.slot)
    }

    pub(super) fn of(user_data: u64) -> Self {
        let [slot, generation] = [user_data & 0xffff_ffff, user_data >> 32]
            .map(|half| u32::try_from(half).expect("half of a u64"));
        Self { slot, generation }
    }
}

/// An operation that the kernel may be working on.
pub(super) struct Flight {
    pub(super) token: Token,
    pub(super) operation: Operation,
    /// Its owner asked for an end: do not continue it.
    pub(super) cancelled: bool,
}

struct Slot {
    generation: u32,
    flight: Option<Flight>,
}

/// The slab.
#[derive(Default)]
pub(super) struct Flights {
    slots: Vec<Slot>,
    free: Vec<u32>,
    callers: usize,
}

impl Flights {
    pub(super) fn insert(&mut self, token: Token, operation: Operation) -> OperationId {
        self.callers += usize::from(operation.is_callers());
        let flight = Some(Flight {
            token,
            operation,
            cancelled: false,
        });
        if let Some(slot) = self.free.pop() {
            let at = &mut self.slots[slot as usize];
            assert!(at.flight.is_none(), "a free slot is free");
            at.flight = flight;
            return OperationId {
                slot,
                generation: at.generation,
            };
        }
        assert!(
            self.slots.len() < FLIGHT_COUNT_MAX,
            "operations in flight without bound"
        );
        let slot = u32::try_from(self.slots.len()).expect("bounded by FLIGHT_COUNT_MAX");
        self.slots.push(Slot {
            generation: 0,
            flight,
        });
        OperationId {
            slot,
            generation: 0,
        }
    }

    pub(super) fn find(&mut self, id: OperationId) -> Option<&mut Flight> {
        let slot = self.slots.get_mut(id.slot as usize)?;
        slot.flight
            .as_mut()
            .filter(|_| slot.generation == id.generation)
    }

    /// Its last completion is here: the kernel has let go of all it owns.
    pub(super) fn remove(&mut self, id: OperationId) -> Flight {
        let slot = &mut self.slots[id.slot as usize];
        assert_eq!(slot.generation, id.generation, "an operation ends once");
        let flight = slot.flight.take().expect("an operation ends once");
        slot.generation = slot.generation.wrapping_add(1);
        self.free.push(id.slot);
        self.callers -= usize::from(flight.operation.is_callers());
        flight
    }

    /// Every operation in flight.
    pub(super) fn ids(&self) -> impl Iterator<Item = (OperationId, &Flight)> {
        self.slots.iter().zip(0..).filter_map(|(at, slot)| {
            let id = OperationId {
                slot,
                generation: at.generation,
            };
            Some((id, at.flight.as_ref()?))
        })
    }

    /// Operations in flight whose caller waits for an outcome.
    pub(super) fn caller_count(&self) -> usize {
        self.callers
    }

    /// All operations in flight, the ring's own included.
    pub(super) fn count(&self) -> usize {
        self.slots.len() - self.free.len()
    }
}

#[cfg(test)]
mod tests {
    use super::super::op::Cancelled;
    use super::*;

    fn operation() -> Operation {
        Operation::Cancel {
            what: Cancelled::One(0),
        }
    }

    #[test]
    fn a_slot_used_again_has_another_name() {
        let mut flights = Flights::default();
        let first = flights.insert(Token(1), operation());
        assert_eq!(OperationId::of(first.user_data()), first);
        flights.remove(first);
        let second = flights.insert(Token(2), operation());
        assert_ne!(first, second);
        assert!(flights.find(first).is_none());
        assert_eq!(flights.find(second).unwrap().token, Token(2));
        assert_eq!(flights.count(), 1);
    }

    #[test]
    #[should_panic(expected = "an operation ends once")]
    fn an_operation_does_not_end_twice() {
        let mut flights = Flights::default();
        let id = flights.insert(Token(1), operation());
        flights.remove(id);
        flights.remove(id);
    }
}
