//! The least of a run that still breaks the same: time is taken away, then kinds of trouble, then
//! single faults.
//!
//! What is left is not the same run with fewer faults, but a run that has fewer and ends alike.
//! Knows no fault by name.

use super::failure::Failure;
use super::run;
use super::schedule;
use super::swarm::Swarm;
use crate::id::Nanos;

/// Shorter spans of faults are not worth another run.
const SPAN_STEP: Nanos = Nanos::from_millis(10);

/// What is left of a run that failed.
#[derive(Clone, Debug)]
pub struct Shrunk {
    /// Its options.
    pub swarm: Swarm,
    /// What it breaks, and when.
    pub failure: Failure,
    /// Runs that were played to find it.
    pub run_count: u32,
}

impl Shrunk {
    /// Plays another run instead, and keeps it if it breaks the same. False if it does not.
    fn maybe_take(&mut self, swarm: Swarm) -> bool {
        self.run_count += 1;
        match run(&swarm, None) {
            Err(failure) if failure.is_like(&self.failure) => {
                self.swarm = swarm;
                self.failure = *failure;
                true
            }
            _ => false,
        }
    }
}

/// Finds a smaller run that breaks what this one broke, in at most `run_count_max` runs.
#[must_use]
pub fn shrink(swarm: &Swarm, failure: &Failure, run_count_max: u32) -> Shrunk {
    let mut shrunk = Shrunk {
        swarm: swarm.clone(),
        failure: failure.clone(),
        run_count: 0,
    };
    shorten(&mut shrunk, run_count_max);
    loop {
        let mut is_smaller = false;
        for option in swarm.options() {
            if shrunk.run_count >= run_count_max {
                return shrunk;
            }
            if let Some(less) = shrunk.swarm.without(option.name) {
                is_smaller |= shrunk.maybe_take(less);
            }
        }
        is_smaller |= thin(&mut shrunk, run_count_max);
        shorten(&mut shrunk, run_count_max);
        if !is_smaller {
            return shrunk;
        }
    }
}

/// Leaves out faults: half of those that are left, or a quarter, down to single ones.
fn thin(shrunk: &mut Shrunk, run_count_max: u32) -> bool {
    let numbers = |swarm: &Swarm| -> Vec<u32> {
        let bursts = schedule::bursts(swarm);
        let faults = bursts.iter().flat_map(|burst| &burst.faults);
        faults.map(|fault| fault.number).collect()
    };
    let mut is_smaller = false;
    let mut left = numbers(&shrunk.swarm);
    let mut size = left.len().div_ceil(2);
    while size > 0 {
        let mut at = 0;
        while at < left.len() {
            if shrunk.run_count >= run_count_max {
                return is_smaller;
            }
            let mut swarm = shrunk.swarm.clone();
            let end = left.len().min(at + size);
            swarm.skipped.extend(&left[at..end]);
            if shrunk.maybe_take(swarm) {
                is_smaller = true;
                left = numbers(&shrunk.swarm);
            } else {
                at = end;
            }
        }
        size /= 2;
    }
    is_smaller
}

/// Ends the faults earlier: just after the failure, or at half the time, as long as it fails.
fn shorten(shrunk: &mut Shrunk, run_count_max: u32) {
    while shrunk.run_count < run_count_max {
        let span = shrunk.swarm.fault_span;
        let after = shrunk.failure.at.after(SPAN_STEP);
        let shorter = if after < span {
            after
        } else {
            Nanos(span.0 / 2)
        };
        if shorter < SPAN_STEP {
            return;
        }
        let mut swarm = shrunk.swarm.clone();
        swarm.fault_span = shorter;
        if !shrunk.maybe_take(swarm) {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_failure_does_not_need_is_taken_away() {
        let mut swarm = Swarm::new(3);
        // No frame takes such a record, whatever else goes wrong.
        swarm.record_size_max = 4 << 20;
        let failure = run(&swarm, None).expect_err("no frame takes it");
        let shrunk = shrink(&swarm, &failure, 500);
        assert!(shrunk.failure.is_like(&failure), "it breaks the same");
        let options = shrunk.swarm.options();
        let troubles: Vec<_> = options.iter().filter(|option| option.is_trouble).collect();
        assert!(troubles.is_empty(), "not needed: {troubles:?}");
        assert!(shrunk.swarm.fault_span < swarm.fault_span, "nor that long");
        let again = run(&shrunk.swarm, None).expect_err("it still fails");
        assert_eq!(*again, shrunk.failure, "and replays");
    }
}
