//! A disk that keeps what was synced, and of the rest whatever it likes.
//!
//! Writes in flight at a crash are lost, kept or torn unit by unit (512 or 4096 bytes). What is
//! kept may be only in the drive's cache: recovery reads it, and a second crash takes it away,
//! unless a sync came between.

use bytes::Bytes;
use ringwood_core::log::recovery::{DiskFault, Identity, Recovered, RecoveryError, recover};
use ringwood_core::log::ring::Ring;
use ringwood_core::log::{Store, WriteId};

/// xorshift: a failing seed replays exactly.
pub(crate) struct Rng(u64);

impl Rng {
    pub(crate) fn new(seed: u64) -> Self {
        Self((seed + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % bound
    }

    pub(crate) fn chance(&mut self, one_in: u64) -> bool {
        self.below(one_in) == 0
    }

    pub(crate) fn pick<'a, T>(&mut self, list: &'a [T]) -> &'a T {
        &list[self.below(list.len() as u64) as usize]
    }
}

pub(crate) struct Disk {
    pub(crate) identity: Identity,
    /// What survives any crash, and what reads see.
    stable: Vec<Vec<u8>>,
    pub(crate) visible: Vec<Vec<u8>>,
    flying: Vec<Store>,
}

impl Disk {
    pub(crate) fn new(ring: Ring) -> Self {
        let zeros = vec![vec![0; ring.file_size as usize]; ring.file_count as usize];
        let identity = Identity {
            ring,
            node_tag: 0x5EED_0001,
        };
        Self {
            identity,
            stable: zeros.clone(),
            visible: zeros,
            flying: Vec::new(),
        }
    }

    pub(crate) fn submit(&mut self, store: Store) {
        self.flying.push(store);
    }

    pub(crate) fn in_flight(&self) -> usize {
        self.flying.len()
    }

    /// What is in flight.
    pub(crate) fn flying(&self) -> &[Store] {
        &self.flying
    }

    /// What survives any crash.
    pub(crate) fn stable(&self) -> &Vec<Vec<u8>> {
        &self.stable
    }

    /// Completes the write at `at` of those in flight.
    pub(crate) fn complete(&mut self, at: usize) -> WriteId {
        let store = self.flying.remove(at);
        if store.opens_life {
            self.stable.clone_from(&self.visible);
        }
        let bytes = store.runs.concat();
        for image in [&mut self.stable, &mut self.visible] {
            let from = store.position as usize;
            image[store.slot as usize][from..from + bytes.len()].copy_from_slice(&bytes);
        }
        store.write
    }

    pub(crate) fn crash(&mut self, rng: &mut Rng) {
        self.visible.clone_from(&self.stable);
        for store in self.flying.drain(..) {
            let unit = *rng.pick(&[512, 4096]);
            // All, nothing, or each unit by itself; and where it survives, in cache or for good.
            let (torn, cached) = (rng.below(4), rng.below(3));
            for (count, piece) in store.runs.concat().chunks(unit).enumerate() {
                let kept = match torn {
                    0 => true,
                    1 => false,
                    _ => rng.chance(2),
                };
                if !kept {
                    continue;
                }
                let from = store.position as usize + count * unit;
                let range = from..from + piece.len();
                self.visible[store.slot as usize][range.clone()].copy_from_slice(piece);
                if cached == 0 || cached == 1 && rng.chance(2) {
                    self.stable[store.slot as usize][range].copy_from_slice(piece);
                }
            }
        }
    }

    pub(crate) fn recover(&self) -> Result<Recovered, RecoveryError> {
        recover_image(&self.identity, &self.visible)
    }
}

pub(crate) fn recover_image(
    identity: &Identity,
    image: &[Vec<u8>],
) -> Result<Recovered, RecoveryError> {
    recover(identity, &mut |slot,
                            position,
                            size|
     -> Result<Bytes, DiskFault> {
        let from = position as usize;
        Ok(Bytes::copy_from_slice(
            &image[slot as usize][from..from + size],
        ))
    })
}
