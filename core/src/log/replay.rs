//! From the items of accepted flushes, in order, to what each group is.
//!
//! Keeps a group's latest hard state and checkpoint, and its blocks above. Knows no file and no
//! sum of a flush: what it is given has been accepted.
//!
//! - A block cuts the tail from its index on, then stands at its end: that is how Raft overruled
//!   what stood there (thesis 3.5), in the order in which it did.
//! - A checkpoint makes the blocks up to its index unneeded. One that restores makes all blocks
//!   before it void.
//! - A block above a hole is kept. A hole is no damage yet: the missing blocks were in a file that
//!   is gone, and a checkpoint or copies that cover them are still to come.
//! - A copy repeats a block whose first place is given up. It overrules nothing, and is only asked
//!   for where the first writing is gone.
//!
//! # Where something is lost
//! Without a gap in the journal, items that do not fit to each other are a contradiction that nobody
//! can judge. With one they are what the lost items explain. What a gap may have held is doubted of
//! every group, until something behind the gap proves it:
//! - a block proves where the log ended just before it, since it names the one before;
//! - a hard state proves term and vote;
//! - the list of an earlier recovery says that it has dealt with this very loss (`scars`).

use std::collections::BTreeMap;

use super::checkpoint::Checkpoint;
use super::flush::{FlushHeader, Item};
use super::pieces::{Hole, Pieces, Prefix};
use super::producers::Producers;
use super::recovered::GroupState;
use super::salvage::{Salvage, Salvaged};
use super::scars::{SCAR_COUNT_MAX, Scar};
use super::tail::Tail;
use super::trims::Trims;
use super::{Doubt, HardState, Place};
use crate::bugs::{self, Switch};
use crate::id::{GroupId, Index, Lsn};

/// A group as recovery found it.
#[derive(Clone, Debug)]
pub struct GroupRecovered {
    /// Its latest term and vote.
    pub hard: HardState,
    /// What it may have forgotten.
    pub doubt: Doubt,
    /// Its latest checkpoint.
    pub checkpoint: Option<Checkpoint>,
    /// Its blocks above the checkpoint, up to the first hole.
    pub tail: Tail,
    /// It is committed through here, as a leader said that wrote a later block of these.
    pub commit: Index,
    /// Its producers as of the end of the tail.
    pub producers: Producers,
    /// Where it begins, and the trims in the tail that are not committed.
    pub trims: Trims,
    /// All blocks that are there, if some are missing.
    pub pieces: Option<Pieces>,
}

/// The items contradict each other: the group, and the block or 0.
pub(super) type Contradiction = (GroupId, Index);

/// What a journal's items add up to.
#[derive(Debug)]
pub(super) struct Replayed {
    pub(super) groups: BTreeMap<GroupId, GroupRecovered>,
    /// The journal's own memory of the same groups.
    pub(super) states: BTreeMap<GroupId, GroupState>,
    /// Of groups that the journal does not know.
    pub(super) doubt: Doubt,
}

/// Something was lost that may have held anything.
#[derive(Clone, Copy, Debug)]
struct Loss {
    scar: Scar,
    blocks: bool,
    votes: bool,
    /// An earlier recovery has dealt with it.
    is_known: bool,
    /// What a later life began with is lost, and with it what it doubted: that it wrote blocks proves
    /// nothing.
    is_unprovable: bool,
}

/// So many losses were before the last item that proved something.
#[derive(Clone, Copy, Debug, Default)]
struct Proven {
    blocks: usize,
    votes: usize,
}

#[derive(Debug, Default)]
struct GroupReplay {
    hard: HardState,
    /// As the latest hard state says.
    doubt: Doubt,
    /// Holes that the latest hard state told of were overruled by a leader, which may not have come
    /// to what the log's end was.
    is_overruled: bool,
    checkpoint: Option<Checkpoint>,
    pieces: Pieces,
    proven: Proven,
}

#[derive(Debug, Default)]
pub(super) struct Replay {
    groups: BTreeMap<GroupId, GroupReplay>,
    losses: Vec<Loss>,
    /// The last life whose beginning is lost; 0 if none is. That it had dealt with losses proves nothing.
    headless_life: u64,
    /// Something is lost, so what does not fit is no contradiction.
    has_gap: bool,
}

impl Replay {
    /// Takes the next item, which stands at `offset` in the flush with this header.
    pub(super) fn apply(
        &mut self,
        flush: &FlushHeader,
        offset: u32,
        item: &Item<'_>,
    ) -> Result<(), Contradiction> {
        let loss_count = self.losses.len();
        let (id, index, fits) = match item {
            Item::Scars(_) if flush.life == self.headless_life => return Ok(()),
            Item::Scars(scars) => {
                for loss in &mut self.losses {
                    loss.is_known |= scars.contains(&loss.scar);
                }
                return Ok(());
            }
            Item::Block(block) => {
                let header = block.header();
                let group = self.groups.entry(header.group).or_default();
                let place = Place {
                    lsn: flush.lsn,
                    offset,
                };
                if !flush.copies {
                    group.note_written(header.index);
                }
                let fits = group.pieces.put(block, place, flush.copies);
                if !flush.copies {
                    group.proven.blocks = loss_count;
                }
                (header.group, header.index, fits)
            }
            Item::HardState {
                group: id,
                hard,
                doubt,
            } => {
                let group = self.groups.entry(*id).or_default();
                let fits = hard.term >= group.hard.term;
                if fits {
                    (group.hard, group.doubt) = (*hard, *doubt);
                    group.is_overruled &= doubt.holes;
                    group.proven.votes = loss_count;
                }
                (*id, Index(0), fits)
            }
            Item::Checkpoint(checkpoint) => {
                let group = self.groups.entry(checkpoint.group).or_default();
                let is_later = checkpoint.index >= group.base_index();
                let fits = is_later && group.pieces.rebase(checkpoint);
                if is_later {
                    group.checkpoint = Some(checkpoint.clone());
                }
                (checkpoint.group, checkpoint.index, fits)
            }
        };
        let explains = |group: &GroupReplay| group.doubt.lacks_blocks();
        if fits || self.has_gap || self.groups.get(&id).is_some_and(explains) {
            Ok(())
        } else {
            Err((id, index))
        }
    }

    /// Takes what is left of a promised flush.
    pub(super) fn salvage(&mut self, flush: &FlushHeader, left: &Salvage<'_>) {
        self.has_gap = true;
        for (offset, item) in &left.items {
            let place = Place {
                lsn: flush.lsn,
                offset: *offset,
            };
            match item {
                Salvaged::Whole(item) => {
                    let applied = self.apply(flush, *offset, item);
                    assert!(applied.is_ok(), "with a gap nothing is a contradiction");
                }
                Salvaged::Lost(block) => {
                    let group = self.groups.entry(block.group).or_default();
                    if !flush.copies {
                        group.note_written(block.index);
                    }
                    group.pieces.lose(block.index, block.sum, flush.copies);
                    if !flush.copies {
                        group.proven.blocks = self.losses.len();
                    }
                }
                Salvaged::Loose(block) => {
                    let group = self.groups.entry(block.header().group).or_default();
                    group.pieces.put_loose(block, place);
                }
            }
        }
        if !left.has_all_blocks || !left.has_all_votes {
            self.losses.push(Loss {
                scar: Scar {
                    from: flush.lsn,
                    to: flush.end(),
                    taken: left.items.len() as u32,
                },
                blocks: !left.has_all_blocks,
                votes: !left.has_all_votes,
                is_known: false,
                is_unprovable: false,
            });
        }
    }

    /// Promised flushes are lost, and what they held is not known.
    pub(super) fn lose(&mut self, from: Lsn, to: Lsn) {
        self.has_gap = true;
        self.losses.push(Loss {
            scar: Scar { from, to, taken: 0 },
            blocks: true,
            votes: true,
            is_known: false,
            is_unprovable: false,
        });
    }

    /// Something is lost of what this life began with.
    pub(super) fn lose_opening(&mut self, life: u64) {
        self.headless_life = life;
        for loss in &mut self.losses {
            loss.is_unprovable = true;
        }
    }

    /// All losses, for the next recovery. Those that do not fit are doubted anew.
    pub(super) fn scars(&self) -> Vec<Scar> {
        let scars = self.losses.iter().rev().take(SCAR_COUNT_MAX);
        scars.map(|loss| loss.scar).collect()
    }

    pub(super) fn has_gap(&self) -> bool {
        self.has_gap
    }

    /// The lowest run that holds a block that no checkpoint covers.
    pub(super) fn lowest(&self) -> Option<Lsn> {
        let groups = self.groups.values();
        groups.filter_map(|group| group.pieces.lowest()).min()
    }

    /// Blocks in runs before `lsn` are lost.
    pub(super) fn forget_below(&mut self, lsn: Lsn) {
        for group in self.groups.values_mut() {
            group.pieces.forget_below(lsn);
        }
    }

    /// What the groups are after the last item.
    pub(super) fn finish(self) -> Result<Replayed, Contradiction> {
        let mut recovered = BTreeMap::new();
        let mut states = BTreeMap::new();
        for (id, group) in self.groups {
            // By a gap, or by one that is written over by now.
            let is_explained = self.has_gap || group.doubt.lacks_blocks();
            let group = group.finish(&self.losses);
            let group = group.map_err(|index| (id, index))?;
            if let Some(pieces) = &group.pieces
                && !is_explained
            {
                return Err((id, pieces.holes()[0].first));
            }
            states.insert(id, group.state());
            recovered.insert(id, group);
        }
        Ok(Replayed {
            groups: recovered,
            states,
            doubt: doubt_of(&self.losses, Proven::default()),
        })
    }
}

/// What those losses make a group doubt that has proven so much.
fn doubt_of(losses: &[Loss], proven: Proven) -> Doubt {
    let new = || losses.iter().enumerate().filter(|(_, loss)| !loss.is_known);
    let is_open = |at: usize, loss: &Loss| at >= proven.blocks || loss.is_unprovable;
    let has_votes = |(at, loss): (usize, &Loss)| loss.votes && at >= proven.votes;
    Doubt {
        log: new().any(|(at, loss)| loss.blocks && is_open(at, loss)),
        vote: new().any(has_votes) && !bugs::is_on(Switch::B62),
        holes: false,
    }
}

impl GroupReplay {
    fn base_index(&self) -> Index {
        self.checkpoint
            .as_ref()
            .map_or(Index(0), |checkpoint| checkpoint.index)
    }

    /// A block is written, no copy: it cuts what stood there, holes too.
    fn note_written(&mut self, index: Index) {
        if self.doubt.holes {
            let holes = self.pieces.holes();
            let is_below = |hole: &Hole| index <= hole.last;
            self.is_overruled |= holes.first().is_some_and(is_below);
        }
    }

    fn finish(mut self, losses: &[Loss]) -> Result<GroupRecovered, Index> {
        self.pieces.settle_loose();
        let Prefix {
            tail,
            commit,
            producers,
            trims,
        } = self.pieces.prefix()?;
        let mut hard = self.hard;
        let is_whole = self.pieces.holes().is_empty();
        let new = doubt_of(losses, self.proven);
        let doubt = Doubt {
            // Holes that are gone and were never said to be filled: a leader wrote over what is
            // missing, and with it over all that stood behind, and may not have come to its end.
            log: self.doubt.log || new.log || self.doubt.holes && is_whole || self.is_overruled,
            vote: self.doubt.vote || new.vote,
            holes: !is_whole,
        };
        if hard.term < tail.last_term() && doubt.vote {
            // A term is journaled before its blocks: it was, and is lost.
            hard = HardState {
                term: tail.last_term(),
                vote: None,
            };
        }
        Ok(GroupRecovered {
            hard,
            doubt,
            checkpoint: self.checkpoint,
            tail,
            commit,
            producers,
            trims,
            pieces: (!is_whole).then_some(self.pieces),
        })
    }
}

impl GroupRecovered {
    fn state(&self) -> GroupState {
        let checkpoint = self.checkpoint.as_ref();
        let ends_in_hole = self.pieces.as_ref().is_some_and(Pieces::ends_in_hole);
        GroupState {
            hard: self.hard,
            // What tells of a hole at the end may be written over before it is filled.
            doubt: Doubt {
                log: self.doubt.log || ends_in_hole,
                ..self.doubt
            },
            checkpoint: checkpoint.map(|checkpoint| {
                let repeated = Checkpoint {
                    restores: false,
                    ..checkpoint.clone()
                };
                (checkpoint.index, repeated.encode())
            }),
            checkpoint_durable: checkpoint.map_or(Index(0), |checkpoint| checkpoint.index),
        }
    }
}
