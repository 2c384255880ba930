//! An operator's word that another directory may come under a voter's name: what is known of the old
//! one is forgotten, in the directory of a node that is stopped.
//!
//! Cannot know whether that is safe. Whoever asks for it says so.

use std::path::Path;

use ringwood_core::limits::SECTOR_SIZE;
use ringwood_core::log::pins::{PINS_FILE_SIZE, Pins};
use ringwood_core::shard::{OpenError, directory_tag};

use crate::config::Identity;
use crate::disk::{self, Access, Directory, DiskError};
use crate::failure::StartError;

/// Forgets which directory the voter of this name had. False if none was known.
///
/// # Errors
/// Why it cannot: the node runs, there is no such voter, or its file of pins cannot be used. Then
/// nothing was changed.
pub fn unpin(dir: &Path, name: &str) -> Result<bool, StartError> {
    let identity = Identity::read(dir)?;
    let Some(voter) = identity.voters.iter().find(|voter| voter.name == name) else {
        let names: Vec<&str> = identity.voters.iter().map(|at| at.name.as_str()).collect();
        return Err(StartError::UnknownVoter {
            name: name.to_owned(),
            cluster: identity.cluster_name.clone(),
            voters: names.join(", "),
        });
    };
    // Two sectors at a node's rest: nothing is gained by going past the page cache.
    let directory = Directory::open(dir, Access::BufferedForDevelopmentOnly)?;
    let file = directory.open_pins()?;
    let path = dir.join("pins");
    let failed = |error| {
        let path = path.clone();
        StartError::Disk(DiskError::Io {
            doing: "reading",
            path,
            error,
        })
    };
    let bytes = disk::read(&file, 0, PINS_FILE_SIZE).map_err(failed)?;
    let tag = directory_tag(identity.cluster, identity.node, identity.incarnation);
    let newest = Pins::newest(&bytes, tag);
    let (mut pins, sector) =
        newest.map_err(|_| StartError::Recovery(OpenError::Pins { fault: None }))?;
    let count = pins.pins.len();
    pins.pins.retain(|pin| pin.node != voter.id);
    if pins.pins.len() == count {
        return Ok(false);
    }
    pins.sequence += 1;
    let bytes = pins.encode(tag);
    // The older first, as a node does: one of them is whole at any moment.
    for sector in [1 - sector, sector] {
        let at = (sector * SECTOR_SIZE) as u64;
        let mut done = 0;
        while done < SECTOR_SIZE {
            done += rustix::io::pwrite(&file, &bytes[done..], at + done as u64)
                .map_err(DiskError::io("writing", &path))?;
        }
        rustix::fs::fdatasync(&file).map_err(DiskError::io("syncing", &path))?;
    }
    Ok(true)
}
