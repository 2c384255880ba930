//! One group's journal on a disk, driven by hand: what the stories of the journal are told with.

use bytes::BytesMut;
use ringwood_core::frame::sum::crc32c;
use ringwood_core::id::{Epoch, GroupId, Lsn, Offset, ProducerId, Sequence, Term};
use ringwood_core::log::block::{AppendHeader, Block, BlockKind, write_record};
use ringwood_core::log::builder::{BlockBuilder, BlockStart};
use ringwood_core::log::checkpoint::Checkpoint;
use ringwood_core::log::producers::ProducerTable;
use ringwood_core::log::ring::Ring;
use ringwood_core::log::{Entry, Journal, Tail};

use crate::log_disk::Disk;

pub(crate) const RING: Ring = Ring {
    file_size: 512 << 10,
    file_count: 3,
    run_size: 64 << 10,
};
pub(crate) const GROUP: GroupId = GroupId(1);

/// One group's journal on a disk.
pub(crate) struct Node {
    pub(crate) disk: Disk,
    pub(crate) journal: Journal,
    pub(crate) tail: Tail,
}

impl Node {
    pub(crate) fn new() -> Self {
        let mut node = Self::unopened(Disk::new(RING));
        node.settle();
        node
    }

    /// Recovered, the opening flush not yet written.
    pub(crate) fn unopened(disk: Disk) -> Self {
        let mut recovered = disk.recover().expect("a sound journal");
        let group = recovered.groups.remove(&GROUP);
        let tail = group.map(|group| group.tail).unwrap_or_default();
        Self {
            disk,
            journal: Journal::open(recovered.journal),
            tail,
        }
    }

    pub(crate) fn block(&self, record_size: usize) -> Vec<u8> {
        let mut payload = Vec::new();
        write_record(&mut payload, &vec![0xAB; record_size]);
        let header = AppendHeader {
            payload_sum: crc32c(&payload),
            payload_size: payload.len() as u32,
            producer: ProducerId(1),
            sequence: Sequence(self.tail.next_offset().0),
            epoch: Epoch(0),
            record_count: 1,
        };
        let start = BlockStart {
            group: GROUP,
            kind: BlockKind::Records,
            index: self.tail.last_index().next(),
            term: Term(1),
            first_offset: self.tail.next_offset(),
            previous_sum: self.tail.last_sum(),
            commit: self.tail.last_index(),
        };
        let mut buffer = BytesMut::with_capacity(record_size + 4096);
        let mut builder = BlockBuilder::begin(&mut buffer, start);
        builder
            .push(&mut buffer, &header, [&payload[..]].into_iter())
            .expect("a good append");
        builder.finish(&mut buffer).expect("a block");
        buffer.to_vec()
    }

    /// A block in a run of its own, sealed.
    pub(crate) fn put(&mut self, record_size: usize) -> Option<Entry> {
        let bytes = self.block(record_size);
        let entry = self
            .journal
            .copy_block(&Block::check(&bytes).expect("as built"))?;
        self.tail.push(entry);
        assert!(self.journal.seal());
        Some(entry)
    }

    pub(crate) fn submit(&mut self) {
        while let Some(store) = self.journal.next_store() {
            self.disk.submit(store);
        }
    }

    /// Everything sealed becomes durable.
    pub(crate) fn settle(&mut self) {
        self.submit();
        while self.disk.in_flight() > 0 {
            let write = self.disk.complete(0);
            self.journal.stored(write);
            self.submit();
        }
    }

    pub(crate) fn checkpoint(&mut self) -> Option<Lsn> {
        let mut tail = self.tail.clone();
        tail.release_through(tail.last_index());
        let base = tail.base();
        self.journal.put_checkpoint(&Checkpoint {
            group: GROUP,
            index: base.index,
            term: base.term,
            block_sum: base.sum,
            next_offset: base.next_offset,
            segment: 0,
            segment_size: 4096,
            blocks_sum: 0,
            start: Offset(0),
            first_segment: 0,
            restores: false,
            producers: ProducerTable::default(),
        })
    }

    /// Fills the ring until blocks are refused.
    pub(crate) fn fill(&mut self) {
        while self.put(50_000).is_some() {
            self.settle();
        }
    }
}
