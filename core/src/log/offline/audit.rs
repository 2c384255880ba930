//! One log's segments, piece by piece: that they are one chain of blocks without a hole, from the
//! first one's beginning to where the journal's checkpoint says that they end.
//!
//! Keeps the chain's last link and the faults found. Reads nothing: whoever has the files hands over
//! their pieces, in order. Blocks name each other by sums, segments name the block before them, and
//! the checkpoint names the last one: so blocks that are whole, but not the ones that were written
//! here (a stale file, another log's), are found as well.

use super::super::block::{BlockError, BlockHeader};
use super::super::footer::{SEGMENT_FOOTER_SIZE, SegmentFooter};
use super::super::recovery::DiskFault;
use super::super::segment::{SegmentError, SegmentHeader};
use super::super::tail::Base;
use super::{Piece, What};
use crate::frame::sum::Sum;
use crate::id::{ClusterId, GroupId, Index, Offset, Term};

/// What is wrong with a part of a segment.
#[derive(Clone, Debug)]
pub struct Fault {
    /// Number of the segment.
    pub number: u32,
    /// Byte of its file.
    pub position: u64,
    /// Bytes in question; 0 where they are not there.
    pub size: u64,
    /// What is wrong.
    pub kind: FaultKind,
    /// The blocks that cannot be had from here, first and last; none if it costs none.
    pub blocks: Option<(Index, Index)>,
    /// Their records: the first offset, and the one behind the last.
    pub offsets: Option<(Offset, Offset)>,
}

/// Kinds of [`Fault`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultKind {
    /// The first sector is damaged.
    Head(SegmentError),
    /// The state behind it is damaged. The log's other segments, and the journal, tell the same.
    State(SegmentError),
    /// The footer is damaged, or does not say what the blocks are. Readers do without.
    Footer(SegmentError),
    /// The first sector is whole, but of another node, log or place.
    Foreign,
    /// A block is damaged.
    Block(BlockError),
    /// Bytes that are nothing that was written here.
    Unknown,
    /// The disk does not give the bytes.
    Unreadable(DiskFault),
    /// Blocks are not where they should be: lost writes, a file cut short, or no file.
    Missing,
    /// A sound block that does not follow the one before, or is not the one that the checkpoint
    /// means.
    Unchained,
}

/// Where a segment ends, as somebody else says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Behind so many bytes stands its footer: the next segment says so.
    Sealed(u64),
    /// So many bytes of it are synced: the checkpoint says so.
    Grows(u64),
    /// Nobody says: it ends with its last sound block.
    Unknown,
}

impl End {
    /// Bytes of it that were synced, the footer not among them, as far as that is known.
    #[must_use]
    pub fn size(self) -> Option<u64> {
        match self {
            Self::Sealed(size) | Self::Grows(size) => Some(size),
            Self::Unknown => None,
        }
    }
}

/// Looks through the segments of one log.
#[derive(Debug)]
pub struct Audit {
    cluster: ClusterId,
    node_tag: u32,
    group: GroupId,
    /// The last block that is known, sound or not, and what follows it; none before the first.
    last: Option<Base>,
    /// Whether `last` was seen, so that what follows must name its sum.
    is_seen: bool,
    /// Where the last sound block ended.
    end: (u32, u64),
    /// What is wrong since then: its blocks are known when the next sound one is met.
    open: Option<(u32, u64, u64, FaultKind)>,
    /// Sum over the sums of this segment's blocks; none once one of them was not to be had.
    segment_sum: Option<u32>,
    faults: Vec<Fault>,
    block_count: u64,
    block_size: u64,
}

impl Audit {
    /// Begins at the log's first segment. `node_tag` marks the node's files.
    #[must_use]
    pub fn new(cluster: ClusterId, node_tag: u32, group: GroupId) -> Self {
        Self {
            cluster,
            node_tag,
            group,
            last: None,
            is_seen: false,
            end: (0, 0),
            open: None,
            segment_sum: None,
            faults: Vec::new(),
            block_count: 0,
            block_size: 0,
        }
    }

    /// Takes the next segment, of which is known where it ends. `pieces` is empty where there is no
    /// such file.
    pub fn segment(&mut self, number: u32, end: End, pieces: impl Iterator<Item = Piece>) {
        let vouched = end.size();
        let mut covered = 0;
        // What nobody vouches for is wrong only if something sound stands behind it.
        let mut doubtful = Vec::new();
        let mut behind = None;
        self.segment_sum = Some(0);
        for piece in pieces {
            if vouched.is_some_and(|vouched| piece.position >= vouched) {
                behind = Some(piece);
                break;
            }
            covered = piece.position + piece.size;
            match &piece.what {
                What::Head(Ok(header)) if !self.is_ours(number, header) => {
                    let size = vouched.unwrap_or(piece.size);
                    return self.note(number, 0, size, FaultKind::Foreign);
                }
                What::Zeros | What::State(Ok(_)) => {}
                What::Block(block) if block.error.is_none() => {
                    for piece in doubtful.drain(..) {
                        self.take(number, &piece);
                    }
                    self.take(number, &piece);
                }
                _ if vouched.is_none() && piece.position > 0 => doubtful.push(piece),
                _ => self.take(number, &piece),
            }
        }
        match end {
            End::Sealed(vouched) | End::Grows(vouched) if covered < vouched => {
                self.note(number, covered, 0, FaultKind::Missing);
            }
            End::Sealed(vouched) => self.judge_footer(number, vouched, behind),
            End::Grows(_) | End::Unknown => {}
        }
    }

    /// A footer that is not there costs no block, only a reader's time. One that is tells which block
    /// was the last.
    fn judge_footer(&mut self, number: u32, position: u64, behind: Option<Piece>) {
        let found = behind.filter(|piece| piece.position == position);
        let error = match found.map(|piece| piece.what) {
            Some(What::Footer(Ok(footer))) => {
                let is_ours = footer.cluster == self.cluster
                    && footer.node_tag == self.node_tag
                    && footer.group == self.group
                    && footer.segment == number;
                if is_ours {
                    self.take_footer(&footer)
                } else {
                    Some(SegmentError::Reserved)
                }
            }
            Some(What::Footer(Err(error))) => Some(error),
            _ => Some(SegmentError::Magic),
        };
        if let Some(error) = error {
            self.faults.push(Fault {
                number,
                position,
                size: SEGMENT_FOOTER_SIZE as u64,
                kind: FaultKind::Footer(error),
                blocks: None,
                offsets: None,
            });
        }
    }

    fn take_footer(&mut self, footer: &SegmentFooter) -> Option<SegmentError> {
        let last = Base {
            index: footer.last_index,
            term: footer.last_term,
            sum: footer.last_sum,
            next_offset: footer.next_offset,
        };
        self.arrive(&last);
        (self.last, self.is_seen) = (Some(last), true);
        if self.segment_sum.is_some_and(|sum| sum != footer.blocks_sum) {
            return Some(SegmentError::Reserved);
        }
        // The copy of the header in it has a sum of its own.
        footer.header.is_none().then_some(SegmentError::Sum)
    }

    fn take(&mut self, number: u32, piece: &Piece) {
        let (position, size) = (piece.position, piece.size);
        match &piece.what {
            What::Head(Ok(header)) => self.take_head(number, header),
            What::Head(Err(error)) => self.note(number, position, size, FaultKind::Head(*error)),
            What::Block(block) => match block.error {
                None if block.header.group != self.group => {
                    self.note(number, position, size, FaultKind::Unknown);
                }
                None => self.take_block(number, position, &block.header),
                Some(error) => self.note(number, position, size, FaultKind::Block(error)),
            },
            What::State(Err(error)) => self.note(number, position, size, FaultKind::State(*error)),
            What::Zeros | What::State(Ok(_)) => {}
            What::Unreadable(fault) => {
                self.note(number, position, size, FaultKind::Unreadable(*fault));
            }
            What::Unknown | What::Footer(_) | What::Flush(_) => {
                self.note(number, position, size, FaultKind::Unknown);
            }
        }
    }

    fn is_ours(&self, number: u32, header: &SegmentHeader) -> bool {
        header.cluster == self.cluster
            && header.node_tag == self.node_tag
            && header.group == self.group
            && header.segment == number
    }

    fn take_head(&mut self, number: u32, header: &SegmentHeader) {
        let before = Base {
            index: Index(header.first_index.0 - 1),
            term: header.previous_term,
            sum: header.previous_sum,
            next_offset: header.first_offset,
        };
        self.arrive(&before);
        self.end = (number, u64::from(header.state.head_size));
        (self.last, self.is_seen) = (Some(before), true);
    }

    /// What is sound says which block came before it. What should lie between is missing.
    fn arrive(&mut self, before: &Base) {
        let Some(last) = self.last else {
            // The first of all, unless its segment's first sector was damaged.
            return self.close(before);
        };
        let follows = before.index == last.index && (!self.is_seen || before.sum == last.sum);
        if !follows && self.open.is_none() {
            let (number, position) = self.end;
            let kind = if before.index > last.index {
                FaultKind::Missing
            } else {
                FaultKind::Unchained
            };
            self.open = Some((number, position, 0, kind));
            self.segment_sum = None;
        }
        self.close(before);
    }

    /// Ends what is wrong before the block after `before`.
    fn close(&mut self, before: &Base) {
        let Some((number, position, size, kind)) = self.open.take() else {
            return;
        };
        let (first, first_offset) = match self.last {
            Some(last) => (last.index.next(), last.next_offset),
            None => (Index(1), Offset(0)),
        };
        let is_lost = before.index >= first;
        self.faults.push(Fault {
            number,
            position,
            size,
            kind,
            blocks: is_lost.then_some((first, before.index)),
            offsets: (is_lost && before.next_offset >= first_offset)
                .then_some((first_offset, before.next_offset)),
        });
    }

    fn take_block(&mut self, number: u32, position: u64, header: &BlockHeader) {
        let before = Base {
            index: Index(header.index.0 - 1),
            // Known to nobody here, and compared by nobody.
            term: Term(0),
            sum: header.previous_sum,
            next_offset: header.first_offset,
        };
        if self
            .last
            .is_some_and(|last| before.index == last.index && before.sum != last.sum)
            && self.is_seen
            && self.open.is_none()
        {
            self.segment_sum = None;
            // Both are whole, and one of them was never written here. It is this one's place that
            // is named: what comes behind a stale block does not follow it either.
            self.faults.push(Fault {
                number,
                position,
                size: u64::from(header.size),
                kind: FaultKind::Unchained,
                blocks: Some((header.index, header.index)),
                offsets: Some((header.first_offset, header.next_offset())),
            });
        } else {
            self.arrive(&before);
        }
        self.segment_sum = self.segment_sum.map(|so_far| {
            let mut sum = Sum::resumed(so_far);
            sum.update(&header.sum.to_le_bytes());
            sum.value()
        });
        self.block_count += 1;
        self.block_size += u64::from(header.size);
        self.end = (number, position + u64::from(header.size));
        self.is_seen = true;
        self.last = Some(Base {
            index: header.index,
            term: header.term,
            sum: header.sum,
            next_offset: header.next_offset(),
        });
    }

    /// Notes that something is wrong behind the last sound block, or one thing more.
    fn note(&mut self, number: u32, position: u64, size: u64, kind: FaultKind) {
        self.segment_sum = None;
        match &mut self.open {
            Some((at, from, so_far, _)) if *at == number && *from + *so_far == position => {
                *so_far += size;
            }
            Some(_) => {}
            None => self.open = Some((number, position, size, kind)),
        }
    }

    /// The last block in segments, as the checkpoint names it, if there is one. Gives all faults.
    #[must_use]
    pub fn finish(mut self, checkpoint: Option<Base>) -> Findings {
        if let Some(base) = checkpoint {
            self.arrive(&base);
            self.last = Some(base);
        } else if let (Some(last), Some(_)) = (self.last, self.open) {
            self.close(&last);
        }
        Findings {
            faults: self.faults,
            block_count: self.block_count,
            block_size: self.block_size,
            last: self.last.unwrap_or_default(),
        }
    }
}

/// What an audit found.
#[derive(Debug)]
pub struct Findings {
    /// What is wrong, in the order of the log.
    pub faults: Vec<Fault>,
    /// Sound blocks.
    pub block_count: u64,
    /// Their bytes.
    pub block_size: u64,
    /// The last block, as known best.
    pub last: Base,
}
