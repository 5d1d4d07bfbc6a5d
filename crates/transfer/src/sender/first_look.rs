//! What is seen of the disks before a transfer connects, since a receiver does not wait for tools.

use std::path::PathBuf;
use std::sync::Arc;

use domain::parameters::FreeSpace;

use super::{CopiedFreeSpace, SendConfig, SourceDisk};
use crate::TransferError;
use crate::disk::Sources;
use crate::disk::allocation::{self, Allocation, Frozen};
use crate::fresh::Version;
use crate::plan::Extent;
use crate::work::blocking;

/// Of each disk, in their order.
#[derive(Debug)]
pub(crate) struct FirstLook {
    seen: Vec<Seen>,
    copied: Arc<[CopiedFreeSpace]>,
}

#[derive(Debug)]
struct Seen {
    path: PathBuf,
    version: Option<Version>,
    /// Nothing, where nothing may be left out.
    free: Option<Frozen>,
}

/// Looks at all disks.
///
/// # Errors
/// None of the disks': what can't be looked at is copied as it is.
pub(crate) async fn look(config: &SendConfig) -> Result<FirstLook, TransferError> {
    let (disks, sources) = (config.disks.clone(), Arc::clone(&config.sources));
    let change_tracking = config.change_tracking;
    blocking(move || {
        let mut copied = Vec::new();
        let seen = disks.into_iter().map(|disk| {
            // Before the free space: a file that takes some of it makes another version, and what was left out there is not fresh.
            let version = version(&*sources, &disk).filter(|_| change_tracking);
            Seen {
                version,
                free: free_space(&disk, &mut copied),
                path: disk.path,
            }
        });
        Ok(FirstLook {
            seen: seen.collect(),
            copied: copied.into(),
        })
    })
    .await
}

fn version(sources: &dyn Sources, disk: &SourceDisk) -> Option<Version> {
    sources.open(&disk.path).ok()?.version()
}

fn free_space(disk: &SourceDisk, copied: &mut Vec<CopiedFreeSpace>) -> Option<Frozen> {
    if disk.free_space == FreeSpace::Copy {
        return None;
    }
    let (frozen, reason) = match allocation::look(&disk.path, disk.size_bytes) {
        Allocation::Frozen(frozen) => {
            let reason = frozen.copied().next();
            let reason = reason.map(|reason| format!("in a part of it, {reason}"));
            (Some(frozen), reason)
        }
        Allocation::Unknown(reason) => (None, Some(reason.to_string())),
    };
    if let Some(reason) = reason {
        tracing::info!(disk = %disk.path.display(), reason, "free space is copied");
        copied.push(CopiedFreeSpace {
            index: disk.index,
            reason,
        });
    }
    frozen
}

impl FirstLook {
    /// Disks whose free space is copied in whole or in part, and why.
    pub(super) fn copied(&self) -> Arc<[CopiedFreeSpace]> {
        Arc::clone(&self.copied)
    }

    /// What may be left out of the disk at this position.
    pub(super) fn free_space_of(&self, position: usize) -> &[Extent] {
        let free = self.seen.get(position).and_then(|seen| seen.free.as_ref());
        free.map_or(&[], Frozen::free)
    }

    /// The version that the disk at this position had.
    pub(super) fn version_of(&self, position: usize) -> Option<Version> {
        self.seen.get(position).and_then(|seen| seen.version)
    }

    /// That everything that was left out still is free.
    ///
    /// # Errors
    /// [`TransferError::AllocationChanged`].
    pub(super) fn check_free_space(&self) -> Result<(), TransferError> {
        for Seen { path, free, .. } in &self.seen {
            if free.as_ref().is_some_and(|frozen| !frozen.still_holds()) {
                return Err(TransferError::AllocationChanged { path: path.clone() });
            }
        }
        Ok(())
    }
}
