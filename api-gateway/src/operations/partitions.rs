//! Partitions as the answers show them. Disks are copied whole, so every partition is copied block by block, and none can be left out.

use domain::disk::{DiskIndex, SourcePartition};
use serde_json::{Value, json};

use crate::answer::list;

/// Where none is known, nothing is shown.
fn known(name: &str, partitions: impl ExactSizeIterator<Item = Value>) -> Option<Value> {
    (partitions.len() > 0).then(|| list(name, partitions))
}

/// Disk and partition, each from 0, as in `0_1`.
fn device(disk: DiskIndex, position: usize) -> String {
    format!("{disk}_{position}")
}

/// Of a source, under its disks; the list's name differs from disk to disk.
pub(super) fn of_source(
    name: &'static str,
    disk: DiskIndex,
    partitions: &[SourcePartition],
) -> Option<Value> {
    let shown = partitions.iter().enumerate().map(|(position, partition)| {
        json!({
            "CanBlock": true,
            "Device": device(disk, position),
            "Need": true,
            "Path": partition.path,
            "SizeBytes": partition.size_bytes,
        })
    });
    known(name, shown)
}

/// Of a source, under `Disks`.
pub(super) fn of_source_with_types(partitions: &[SourcePartition]) -> Option<Value> {
    let shown = partitions.iter().map(|partition| {
        json!({
            "CanBlock": true,
            "Path": partition.path,
            "SizeBytes": partition.size_bytes,
            "Type": partition.purpose.as_str(),
        })
    });
    known("Part", shown)
}

/// Bytes before the first partition: a partition table, and what a machine boots from.
pub(super) fn offset(partitions: &[SourcePartition]) -> u64 {
    let starts = partitions.iter().map(|partition| partition.start_bytes);
    starts.min().unwrap_or(0)
}

/// Of a job, under its disks.
pub(super) fn of_job(
    name: &'static str,
    disk: DiskIndex,
    partitions: &[SourcePartition],
) -> Option<Value> {
    let shown = partitions.iter().enumerate().map(|(position, partition)| {
        json!({ "Block": true, "Device": device(disk, position), "SizeBytes": partition.size_bytes })
    });
    known(name, shown)
}

/// Of a job, under `Disks`.
pub(super) fn of_job_with_paths(partitions: &[SourcePartition]) -> Option<Value> {
    let shown = partitions.iter().map(|partition| {
        json!({ "Block": true, "Path": partition.path, "SizeBytes": partition.size_bytes })
    });
    known("Part", shown)
}
