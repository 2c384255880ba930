//! What happened in a run, counted: seeds that find nothing prove nothing if nothing happened.

use std::fmt;

macro_rules! marks {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// Counts of what happened.
        #[derive(Clone, Debug, Default, PartialEq, Eq)]
        pub struct Marks {
            $($(#[$doc])* pub $name: u64,)*
        }

        impl Marks {
            /// Adds another run's.
            pub fn add(&mut self, other: &Self) {
                $(self.$name += other.$name;)*
            }

            /// Every count with its name.
            #[must_use]
            pub fn list(&self) -> Vec<(&'static str, u64)> {
                vec![$((stringify!($name), self.$name),)*]
            }
        }
    };
}

marks! {
    /// Inputs stepped.
    steps,
    /// Ends of turns.
    turns,
    /// Frames that arrived.
    frames,
    /// Frames that got lost.
    dropped,
    /// Frames that arrived twice.
    duplicated,
    /// Frames that overtook another.
    reordered,
    /// Frames damaged on their way.
    corrupted,
    /// Streams given up because something of them was no frame, or no block.
    corruptions_refused,
    /// Frames for which a connection had no room.
    queue_full,
    /// Faults of all kinds.
    faults,
    /// Partitions begun.
    partitions,
    /// One side began not to hear the other.
    one_way_cuts,
    /// Ways between nodes opened and closed at will.
    graphs,
    /// Ways that began to go and come.
    flaps,
    /// Nodes that nothing reached for a while.
    clogs,
    /// Nodes that took their bytes slowly.
    slow_receivers,
    /// Connections that one end forgot.
    half_open,
    /// Connections broken.
    links_lost,
    /// Dials refused by a machine whose process was gone.
    dials_refused,
    /// Connections that a node wanted no more.
    turned_away,
    /// Nodes that were told by a peer why it does not take what they send.
    links_refused,
    /// Processes asked to stop.
    stops,
    /// Those that owed nobody anything when they left.
    stops_in_peace,
    /// Processes that crashed.
    crashes,
    /// Crashes within a turn.
    crashes_within_turn,
    /// Crashes before a process heard that a read or write was done.
    crashes_at_completion,
    /// Crashes of a process that had not finished its recovery.
    crashes_in_recovery,
    /// Crashes that took the power, too.
    power_losses,
    /// Restarts that found a journal.
    recoveries,
    /// Restarts that found whole runs which had not been reported complete.
    recoveries_beyond_promise,
    /// Restarts with fewer runs than were sent to the disk.
    recoveries_with_loss,
    /// Loops that stood still for a while.
    stalls,
    /// Processes frozen for longer than anybody waits.
    freezes,
    /// Loops that got little of their processor.
    starvations,
    /// Clocks that jumped ahead.
    clock_jumps,
    /// Disks that said nothing for a while.
    disk_stalls,
    /// Reads and writes that failed.
    disk_errors,
    /// Promised bytes that were damaged.
    damages,
    /// Among them, those of a process that ran on.
    damages_in_use,
    /// Times when of two halves first one was away and then the other.
    relays,
    /// Writes that were reported done and are not there.
    writes_lost,
    /// Groups that doubted what they had lost by it.
    losses_doubted,
    /// Times that the persist record was written.
    records_persisted,
    /// Nodes that had everything again.
    damages_healed,
    /// Nodes that refused to start for it.
    damages_refused,
    /// Readers that were told of damage, and got nothing wrong.
    damages_told,
    /// Reads and writes of one turn reported in another order than done.
    completions_swapped,
    /// Disks of all nodes damaged.
    ruins,
    /// Times when all segments found no space, and then all processes ended.
    squeezes,
    /// Leaders elected.
    elections,
    /// Leaders whose journal was full when they had their first block to put.
    no_ops_under_pressure,
    /// Times when a calm cluster's messages were counted.
    calms_watched,
    /// Terms in which more than one node stood for election.
    split_votes,
    /// Nodes that began to lead while another still believed to.
    rival_leaders,
    /// Blocks decided before the disk of their leader had them.
    decided_ahead_of_disk,
    /// Blocks of an older term decided by one of a later term.
    decided_in_later_term,
    /// Blocks cut from a log.
    truncations,
    /// Hand-overs asked for.
    transfers,
    /// Times a journal's ring went round.
    wraps,
    /// Segment writes done.
    segment_writes,
    /// Segments begun after a group's first.
    segment_rolls,
    /// Segment writes refused for want of space.
    disk_full,
    /// Reads of files.
    loads,
    /// Frames of blocks on the bulk lane.
    catch_ups,
    /// Followers that were told to get blocks from another replica.
    referrals,
    /// Chunks that came so.
    chunks_pulled,
    /// Those that got no more that way, and told their leader.
    referrals_ended,
    /// Blocks committed.
    committed,
    /// Appends acknowledged to their producer.
    acked,
    /// Appends sent again.
    retries,
    /// Appends answered "unknown".
    unknown,
    /// Appends refused for now: overload, no leader, hand-over.
    refused,
    /// Among them, those for which there was no room.
    overloaded,
    /// Appends given up after a refusal, whose number went to another.
    replaced,
    /// New lives of producers.
    epochs,
    /// Reads that returned blocks or the end.
    reads,
    /// Linearizable ones among them.
    reads_linearizable,
    /// Decided trims that moved a log's start.
    trims,
    /// Among them, those of logs of which nobody but their leader asked for any.
    trims_retained,
    /// Readers that were told where the log begins now.
    trims_told,
    /// Segments deleted.
    segments_removed,
    /// Deletions that a crash took back.
    removals_undone,
    /// Replicas that began anew behind their leader's start.
    restores,
    /// Crashes while such a beginning was not durable.
    restores_cut,
    /// Restarts that found one.
    restores_found,
}

impl fmt::Display for Marks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for (name, count) in self.list() {
            write!(f, "{separator}{name} {count}")?;
            separator = ", ";
        }
        Ok(())
    }
}
