//! Disk sizes that a call asks for.

use domain::disk::{DiskIndex, TargetDisk};
use domain::target_disks::InvalidTargetDisks;

use crate::Refusal;
use crate::arguments::{Arguments, Parameter, Rule};

/// Smallest and largest size of a system disk in GiB that the table lets through; the gateway's own limit may be lower.
pub(super) const SYSTEM_DISK_GIB: Rule = Rule::Integer(20, 2048);

/// `DataDisk.N.Index`.
pub(super) const DATA_DISK_INDEX: Parameter = Parameter::list(
    "DataDisk.N.Index",
    16,
    Rule::Integer(1, 16),
    "Which data disk of the source.",
);

/// `DataDisk.N.Size`.
pub(super) const DATA_DISK_SIZE: Parameter = Parameter::list(
    "DataDisk.N.Size",
    16,
    Rule::Integer(20, 32_768),
    "GiB of that disk in the image; not smaller than the source's disk. Disks that are not named keep their size, rounded up to whole GiB.",
);

/// Partitions are copied as they are.
pub(super) const NO_PARTITIONS: &str = "Disks are copied with their partitions as they are; partition and LVM layouts are not offered by this service: leave it out.";

/// The sizes that the call names.
pub(super) fn asked(
    arguments: &Arguments,
    system_disk_limit_gib: u32,
) -> Result<Vec<TargetDisk>, Refusal> {
    let mut disks = Vec::new();
    if let Some(size) = arguments.integer("SystemDiskSize") {
        if size > i64::from(system_disk_limit_gib) {
            return Err(Refusal::invalid(
                "SystemDiskSize",
                format!("It is a whole number from 20 to {system_disk_limit_gib}."),
            ));
        }
        disks.push(TargetDisk {
            index: DiskIndex::SYSTEM,
            size_gib: u32::try_from(size).unwrap_or(u32::MAX),
        });
    }
    let sizes = arguments.integers("DataDisk.N.Size");
    let indexes = arguments.integers("DataDisk.N.Index");
    if let Some(number) = sizes.keys().find(|number| !indexes.contains_key(number)) {
        return Err(Refusal::new(
            "MissingDataDisk.Index",
            format!("DataDisk.{number}.Index is mandatory with DataDisk.{number}.Size."),
        ));
    }
    for (number, index) in indexes {
        let Some(&size) = sizes.get(&number) else {
            return Err(Refusal::new(
                "MissingDataDisk.Size",
                format!("DataDisk.{number}.Size is mandatory with DataDisk.{number}.Index."),
            ));
        };
        disks.push(TargetDisk {
            index: DiskIndex(u16::try_from(index).unwrap_or(u16::MAX)),
            size_gib: u32::try_from(size).unwrap_or(u32::MAX),
        });
    }
    Ok(disks)
}

/// The sizes don't fit the source.
pub(super) fn refusal(invalid: &InvalidTargetDisks) -> Refusal {
    match invalid {
        InvalidTargetDisks::Unknown(index) => Refusal::new(
            "ReplicationJobDataDiskIndex.Invalid",
            format!(
                "The specified replication job contains data disk index not found in source server: {index}."
            ),
        ),
        InvalidTargetDisks::Repeated(_) => Refusal::new(
            "DataDisk.DuplicateIndex",
            "The source server data disk cannot contain the same index.",
        ),
        InvalidTargetDisks::TooSmall {
            index,
            path,
            source_bytes,
            needed_gib,
            target_gib,
        } => {
            let (parameter, disk) = if *index == DiskIndex::SYSTEM {
                ("SystemDiskSize", "system disk".to_owned())
            } else {
                ("DataDisk.Size", format!("data disk {index}"))
            };
            Refusal::invalid(
                parameter,
                format!(
                    "The source's {disk} ({path}) has {needed_gib} GiB ({source_bytes} bytes), but {target_gib} GiB were asked for: \
                     ask for {needed_gib} GiB or more."
                ),
            )
        }
    }
}
