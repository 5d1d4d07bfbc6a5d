//! The inspection of the disks before a transfer connects, since a receiver does not wait for tools.

use std::path::PathBuf;
use std::sync::Arc;

use chunks::{ByteRange, ContentFingerprint};
use domain::disk::Moment;
use domain::parameters::FreeSpace;
use source::allocation::{self, Allocation, Frozen};
use source::{Observed, Sources};

use super::{CopiedFreeSpace, SendConfig, SourceDisk};
use crate::TransferError;
use crate::cpu_pool::blocking;

/// Of each disk, in their order.
#[derive(Debug)]
pub(crate) struct Inspection {
    seen: Vec<Seen>,
    copied: Arc<[CopiedFreeSpace]>,
    /// True if the kernel's word on writes covers all writes.
    change_tracking: bool,
}

#[derive(Debug)]
struct Seen {
    path: PathBuf,
    observed: Observed,
    /// Nothing, where nothing may be left out.
    free: Option<Frozen>,
}

/// Looks at all disks.
///
/// # Errors
/// None of the disks': what can't be looked at is copied as it is.
pub(crate) async fn inspect(config: &SendConfig) -> Result<Inspection, TransferError> {
    let (disks, sources) = (config.disks.clone(), Arc::clone(&config.sources));
    let change_tracking = config.change_tracking;
    blocking(move || {
        let mut copied = Vec::new();
        let seen = disks.into_iter().map(|disk| {
            // Before the free space: a file that takes some of it makes another fingerprint, and what was left out
            // there does not count as unchanged.
            let observed = observe(&*sources, &disk);
            Seen {
                observed,
                free: free_space(&disk, &mut copied),
                path: disk.path,
            }
        });
        Ok(Inspection {
            seen: seen.collect(),
            copied: copied.into(),
            change_tracking,
        })
    })
    .await
}

fn observe(sources: &dyn Sources, disk: &SourceDisk) -> Observed {
    let opened = sources.open(&disk.path);
    opened.map_or(Observed::Unknown, |source| source.observe())
}

fn free_space(disk: &SourceDisk, copied: &mut Vec<CopiedFreeSpace>) -> Option<Frozen> {
    if disk.free_space == FreeSpace::Copy {
        return None;
    }
    let (frozen, reason) = match allocation::inspect(&disk.path, disk.size_bytes) {
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

impl Inspection {
    /// Disks whose free space is copied in whole or in part, and why.
    pub(super) fn copied(&self) -> Arc<[CopiedFreeSpace]> {
        Arc::clone(&self.copied)
    }

    /// Returns the ranges that may be left out of the disk at this position.
    pub(super) fn free_space_of(&self, position: usize) -> &[ByteRange] {
        let free = self.seen.get(position).and_then(|seen| seen.free.as_ref());
        free.map_or(&[], Frozen::free)
    }

    /// The fingerprint that the disk at this position had.
    pub(super) fn fingerprint_of(&self, position: usize) -> Option<ContentFingerprint> {
        let seen = self.seen.get(position).filter(|_| self.change_tracking)?;
        seen.observed.fingerprint()
    }

    /// The moment of what was read of the disk at this position since the inspection, if this is what is seen of it
    /// now.
    pub(super) fn moment_of(&self, position: usize, now: Observed) -> Moment {
        let first = self.seen.get(position);
        let moment = first.map_or(Moment::Unknown, |seen| seen.observed.until(now));
        match moment {
            Moment::One if !self.change_tracking => Moment::Unknown,
            moment => moment,
        }
    }

    /// Checks that everything that was left out still is free.
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
