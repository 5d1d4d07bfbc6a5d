//! The free space of all disks of a transfer.

use std::path::PathBuf;

use domain::parameters::FreeSpace;

use super::SourceDisk;
use crate::TransferError;
use crate::disk::allocation::{self, Allocation, Frozen};
use crate::plan::Extent;
use crate::work::blocking;

/// What may be left out of each disk, in their order; of a disk that is not here, nothing.
#[derive(Debug, Default)]
pub(crate) struct FreeSpaces(Vec<Option<(PathBuf, Frozen)>>);

/// Asks the disks for which that is wanted.
pub(super) async fn look(disks: &[SourceDisk]) -> Result<FreeSpaces, TransferError> {
    let disks = disks.to_vec();
    blocking(move || Ok(FreeSpaces(disks.iter().map(of).collect()))).await
}

fn of(disk: &SourceDisk) -> Option<(PathBuf, Frozen)> {
    let path = disk.path.display();
    match disk.free_space {
        FreeSpace::Copy => None,
        FreeSpace::Skip => match allocation::look(&disk.path, disk.size_bytes) {
            Allocation::Frozen(frozen) => Some((disk.path.clone(), frozen)),
            Allocation::Unknown(reason) => {
                tracing::info!(disk = %path, %reason, "free space is copied");
                None
            }
        },
    }
}

impl FreeSpaces {
    /// What may be left out of the disk at this position.
    pub(super) fn of(&self, position: usize) -> &[Extent] {
        match self.0.get(position) {
            Some(Some((_, frozen))) => frozen.free(),
            _ => &[],
        }
    }

    /// That everything that was left out still is free.
    ///
    /// # Errors
    /// [`TransferError::AllocationChanged`].
    pub(super) fn check(&self) -> Result<(), TransferError> {
        let changed = self
            .0
            .iter()
            .flatten()
            .find(|(_, frozen)| !frozen.still_holds());
        changed.map_or(Ok(()), |(path, _)| {
            Err(TransferError::AllocationChanged { path: path.clone() })
        })
    }
}
