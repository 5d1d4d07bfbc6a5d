//! Disk sizes that a call asks for.

use domain::disk::{DiskIndex, TargetDisk};
use domain::target_disks::InvalidTargetDisks;

use crate::Refusal;
use crate::arguments::{Arguments, Parameter, Rule};

/// The size of a system disk in GiB. The gateway's own limit is looked at in [`within`].
pub(super) const SYSTEM_DISK_GIB: Rule = Rule::SystemDiskGib;

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

/// `Disks.System.Size`.
pub(super) const DISKS_SYSTEM_SIZE: Parameter = Parameter::optional(
    "Disks.System.Size",
    SYSTEM_DISK_GIB,
    "Another way to give SystemDiskSize.",
);

/// `Disks.Data.N.Size`.
pub(super) const DISKS_DATA_SIZE: Parameter = Parameter::list(
    "Disks.Data.N.Size",
    16,
    Rule::Integer(20, 32_768),
    "Another way to give the size of the data disk with index N.",
);

/// Partitions are copied as they are.
pub(super) const NO_PARTITIONS: &str = "Disks are copied with their partitions as they are; partition and LVM layouts are not offered by this service: leave it out.";

/// The sizes that the call names, of which that of the system disk must be one.
pub(super) fn asked_with_system(
    arguments: &Arguments,
    system_disk_limit_gib: u32,
) -> Result<Vec<TargetDisk>, Refusal> {
    let mut disks = asked(arguments, system_disk_limit_gib)?;
    let named = |index, size: i64| TargetDisk {
        index,
        size_gib: u32::try_from(size).unwrap_or(u32::MAX),
    };
    if let Some(size) = arguments.integer("Disks.System.Size") {
        within(size, system_disk_limit_gib, "Disks.System.Size")?;
        add(
            &mut disks,
            named(DiskIndex::SYSTEM, size),
            "Disks.System.Size",
        )?;
    }
    for (number, size) in arguments.integers("Disks.Data.N.Size") {
        let index = DiskIndex(u16::try_from(number).unwrap_or(u16::MAX));
        add(&mut disks, named(index, size), "Disks.Data.Size")?;
    }
    if disks.iter().any(|disk| disk.index == DiskIndex::SYSTEM) {
        Ok(disks)
    } else {
        Err(Refusal::missing("SystemDiskSize"))
    }
}

/// Adds a size that may have been given in the other way too, if it is the same.
fn add(
    disks: &mut Vec<TargetDisk>,
    disk: TargetDisk,
    parameter: &'static str,
) -> Result<(), Refusal> {
    match disks.iter().find(|known| known.index == disk.index) {
        Some(known) if known.size_gib != disk.size_gib => Err(Refusal::invalid(
            parameter,
            format!(
                "SystemDiskSize or DataDisk.N.Size asks for {} GiB for the same disk: give one size.",
                known.size_gib
            ),
        )),
        Some(_) => Ok(()),
        None => {
            disks.push(disk);
            Ok(())
        }
    }
}

fn within(size: i64, limit_gib: u32, parameter: &'static str) -> Result<(), Refusal> {
    if size <= i64::from(limit_gib) {
        return Ok(());
    }
    Err(Refusal::invalid(
        parameter,
        format!("It is a whole number from 20 to {limit_gib}."),
    ))
}

/// The sizes that SystemDiskSize and DataDisk name.
pub(super) fn asked(
    arguments: &Arguments,
    system_disk_limit_gib: u32,
) -> Result<Vec<TargetDisk>, Refusal> {
    let mut disks = Vec::new();
    if let Some(size) = arguments.integer("SystemDiskSize") {
        within(size, system_disk_limit_gib, "SystemDiskSize")?;
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
            format!(
                "DataDisk.Index is mandatory for this action. DataDisk.{number}.Size is given: give DataDisk.{number}.Index too."
            ),
        ));
    }
    for (number, index) in indexes {
        let Some(&size) = sizes.get(&number) else {
            return Err(Refusal::new(
                "MissingDataDisk.Size",
                format!(
                    "DataDisk.Size is mandatory for this action. DataDisk.{number}.Index is given: give DataDisk.{number}.Size too."
                ),
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
                "The specified replication job contains data disk index not found in source server. The source has no data disk {index}."
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
