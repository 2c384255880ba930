//! What must hold of a node's files in every state that a crash may leave.

use ringwood_core::id::{GroupId, Index};
use ringwood_core::log::checkpoint::Checkpoint;
use ringwood_core::log::offline::{Audit, End, SegmentPieces};
use ringwood_core::log::recovery::{GroupRecovered, Identity, Recovered, recover};
use ringwood_core::log::segment::SegmentHeader;
use ringwood_core::shard::{Shape, Source};

use super::SECTOR;
use super::files::State;
use super::world::{CLUSTER, World, tag};

pub(crate) fn recovered(state: &State<'_>) -> Recovered {
    let identity = Identity {
        ring: Shape::SMALL.ring,
        node_tag: tag(),
    };
    let found = recover(&identity, &mut |slot, position, size| {
        state.read(Source::Journal { slot }, position, size)
    });
    found.expect("nothing that was promised is lost")
}

/// That what is there of a log is one sound chain, and not less than was promised.
pub(crate) fn judge(world: &World, state: &State<'_>, truth: &Recovered, found: &Recovered) {
    for (id, group) in &found.groups {
        let truth = &truth.groups[id];
        audit(state, *id, group.checkpoint.as_ref());
        let (last, base) = (group.tail.last_index(), group.tail.base());
        assert!(last <= truth.tail.last_index());
        // Each block names the one before it by its sum, so the last one tells of all.
        if let Some(sum) = sum_at(truth, last) {
            let ours = sum_at(group, last).expect("its own last block");
            assert_eq!(ours, sum, "group {id} block {last} above {}", base.index);
        }
        let acknowledged = world.acknowledged.get(&id.0).copied().unwrap_or_default();
        let end = group.tail.next_offset().0;
        assert!(
            end >= acknowledged,
            "group {id}: acknowledged through {acknowledged}, found {end}"
        );
        // What is decided and lies only in the journal is known to be once there is a leader.
        let trimmed = world.trimmed.get(&id.0).copied().unwrap_or_default();
        let (start, latest) = (group.trims.start().0, group.trims.latest().0);
        assert!(
            latest >= trimmed,
            "group {id}: trimmed to {trimmed}, found {latest}"
        );
        assert!(start <= end && latest <= truth.trims.latest().0);
    }
    for (id, acknowledged) in &world.acknowledged {
        assert!(*acknowledged == 0 || found.groups.contains_key(&GroupId(*id)));
    }
}

fn sum_at(group: &GroupRecovered, index: Index) -> Option<u32> {
    if index == group.tail.base().index {
        return Some(group.tail.base().sum);
    }
    group.tail.entry(index).map(|entry| entry.sum)
}

fn audit(state: &State<'_>, group: GroupId, checkpoint: Option<&Checkpoint>) {
    let Some(checkpoint) = checkpoint else { return };
    let mut audit = Audit::new(CLUSTER, tag(), group);
    for number in checkpoint.first_segment..=checkpoint.segment {
        let source = |number| Source::Segment { group, number };
        let end = if number == checkpoint.segment {
            End::Grows(checkpoint.segment_size)
        } else {
            let next = state
                .read(source(number + 1), 0, SECTOR)
                .expect("vouched for");
            let header = SegmentHeader::check(&next).expect("vouched for");
            End::Sealed(header.previous_size)
        };
        let size = state.size((Some(group.0), number)).expect("vouched for");
        let contents = state.read(source(number), 0, size).expect("it is there");
        let read = Box::new(move |position: u64, size: usize| {
            let from = (position as usize).min(contents.len());
            Ok(contents.slice(from..(from + size).min(contents.len())))
        });
        audit.segment(number, end, SegmentPieces::new(size as u64, read));
    }
    let found = audit.finish(Some(checkpoint.base()));
    assert!(
        found.faults.is_empty(),
        "group {group}: {:#?}",
        found.faults
    );
}
