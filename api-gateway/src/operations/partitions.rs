//! Partitions in answers. Disks are copied whole, so every partition is copied block by block, and none can be left
//! out. An answer has no partitions if none are known.

use domain::disk::{DiskIndex, SourcePartition};
use smc::model::{JobPart, JobPlacedPart, SourcePart, SourceTypedPart};

/// Returns the disk and the partition, each from 0, as in `0_1`.
fn device(disk: DiskIndex, position: usize) -> String {
    format!("{disk}_{position}")
}

/// Lists partitions, with the position of each on its disk.
fn shown<P, L: FromIterator<P>>(
    partitions: &[SourcePartition],
    show: impl Fn(usize, &SourcePartition) -> P,
) -> Option<L> {
    let shown = partitions.iter().enumerate();
    let shown = shown.map(|(position, partition)| show(position, partition));
    (!partitions.is_empty()).then(|| shown.collect())
}

/// Lists the partitions of a source's disk.
pub(super) fn of_source<L: FromIterator<SourcePart>>(
    disk: DiskIndex,
    partitions: &[SourcePartition],
) -> Option<L> {
    shown(partitions, |position, partition| SourcePart {
        can_block: true,
        device: device(disk, position),
        need: true,
        path: partition.path.clone(),
        size_bytes: partition.size_bytes,
    })
}

/// Lists the partitions of a source's disk, under `Disks`.
pub(super) fn of_source_with_types<L: FromIterator<SourceTypedPart>>(
    partitions: &[SourcePartition],
) -> Option<L> {
    shown(partitions, |_, partition| SourceTypedPart {
        can_block: true,
        path: partition.path.clone(),
        size_bytes: partition.size_bytes,
        r#type: partition.purpose.as_str().to_owned(),
    })
}

/// Returns the bytes before the first partition: a partition table, and code from which a machine boots.
pub(super) fn offset(partitions: &[SourcePartition]) -> u64 {
    let starts = partitions.iter().map(|partition| partition.start_bytes);
    starts.min().unwrap_or(0)
}

/// Lists the partitions of a job's disk.
pub(super) fn of_job<L: FromIterator<JobPart>>(
    disk: DiskIndex,
    partitions: &[SourcePartition],
) -> Option<L> {
    shown(partitions, |position, partition| JobPart {
        block: true,
        device: device(disk, position),
        size_bytes: partition.size_bytes,
    })
}

/// Lists the partitions of a job's disk, under `Disks`.
pub(super) fn of_job_with_paths<L: FromIterator<JobPlacedPart>>(
    partitions: &[SourcePartition],
) -> Option<L> {
    shown(partitions, |_, partition| JobPlacedPart {
        block: true,
        path: partition.path.clone(),
        size_bytes: partition.size_bytes,
    })
}
