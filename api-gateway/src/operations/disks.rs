//! Disk sizes in a call.

use domain::disk::{DiskIndex, TargetDisk};
use domain::target_disks::InvalidTargetDisks;

use smc::model::{DataDiskSize, DiskSizes};

use crate::Refusal;

/// Message for partition parameters: partitions are copied as they are.
pub(super) const NO_PARTITIONS: &str = "Disks are copied with their partitions as they are; partition and LVM layouts are not offered by this service: leave it out.";

/// Adds the sizes that a call gives in the other form. The system disk's size must be among them.
pub(super) fn with_wholes(
    mut sizes: Vec<TargetDisk>,
    others: Option<DiskSizes>,
    system_disk_limit_gib: u32,
) -> Result<Vec<TargetDisk>, Refusal> {
    let DiskSizes { system, data } = others.unwrap_or_default();
    if let Some(size_gib) = system.and_then(|system| system.size) {
        within(size_gib, system_disk_limit_gib, "Disks.System.Size")?;
        let index = DiskIndex::SYSTEM;
        add(
            &mut sizes,
            TargetDisk { index, size_gib },
            "Disks.System.Size",
        )?;
    }
    for (index, disk) in (1..).map(DiskIndex).zip(data.into_iter().flatten()) {
        if let Some(size_gib) = disk.size {
            add(
                &mut sizes,
                TargetDisk { index, size_gib },
                "Disks.Data.Size",
            )?;
        }
    }
    if sizes.iter().any(|disk| disk.index == DiskIndex::SYSTEM) {
        Ok(sizes)
    } else {
        Err(Refusal::missing("SystemDiskSize"))
    }
}

/// Adds a size. The same size may also be given in the other form.
fn add(
    disks: &mut Vec<TargetDisk>,
    disk: TargetDisk,
    parameter: &'static str,
) -> Result<(), Refusal> {
    match disks.iter().find(|known| known.index == disk.index) {
        Some(known) if known.size_gib != disk.size_gib => Err(Refusal::invalid(
            parameter,
            format!(
                "SystemDiskSize or DataDisk.N.Size asks for {} GiB for the same disk: both must be the same size.",
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

fn within(size_gib: u32, limit_gib: u32, parameter: &'static str) -> Result<(), Refusal> {
    if size_gib <= limit_gib {
        return Ok(());
    }
    Err(Refusal::invalid(
        parameter,
        format!("It must be a whole number from 20 to {limit_gib}."),
    ))
}

/// Returns the sizes that SystemDiskSize and DataDisk name.
pub(super) fn asked(
    system_gib: Option<u32>,
    data: Option<Vec<DataDiskSize>>,
    system_disk_limit_gib: u32,
) -> Result<Vec<TargetDisk>, Refusal> {
    let mut disks = Vec::new();
    if let Some(size_gib) = system_gib {
        within(size_gib, system_disk_limit_gib, "SystemDiskSize")?;
        let index = DiskIndex::SYSTEM;
        disks.push(TargetDisk { index, size_gib });
    }
    for (number, disk) in (1..).zip(data.into_iter().flatten()) {
        let (given, missing) = match (disk.index.map(DiskIndex), disk.size) {
            (Some(index), Some(size_gib)) => {
                disks.push(TargetDisk { index, size_gib });
                continue;
            }
            (Some(_), None) => ("Index", "Size"),
            (None, Some(_)) => ("Size", "Index"),
            (None, None) => continue,
        };
        return Err(Refusal::new(
            format!("MissingDataDisk.{missing}"),
            format!(
                "DataDisk.{missing} is mandatory for this action. DataDisk.{number}.{given} is given: give DataDisk.{number}.{missing} too."
            ),
        ));
    }
    Ok(disks)
}

/// Refuses sizes that don't fit the source.
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
                     it must be {needed_gib} GiB or more."
                ),
            )
        }
    }
}
