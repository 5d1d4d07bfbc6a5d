//! The partitions of a disk, and the purpose of each on this server.

use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::Path;

use proto::agent as wire;
use proto::agent::partition::Purpose;
use source::partitions::Partition;

use super::discover::{Mount, Sysfs};
use super::identity::number;

/// Most partitions that are reported, which is as many as a table of the usual size has.
const MOST: usize = 128;

/// Returns the partitions of a table for the gateway.
pub(super) fn on_the_wire(found: &[Partition], sysfs: &Sysfs) -> Vec<wire::Partition> {
    let mounts = sysfs.mounts();
    found
        .iter()
        .take(MOST)
        .map(|partition| wire::Partition {
            path: partition.path.display().to_string(),
            start_bytes: partition.start_bytes,
            size_bytes: partition.size_bytes,
            purpose: purpose(partition, &devices_on(&partition.path, sysfs), &mounts).into(),
        })
        .collect()
}

/// Returns the numbers of the partition's device and of the layers on it. A partition in a file has none.
fn devices_on(path: &Path, sysfs: &Sysfs) -> Vec<String> {
    match path.metadata() {
        Ok(metadata) if metadata.file_type().is_block_device() => {
            sysfs.devices_on(&number(metadata.rdev()))
        }
        _ => Vec::new(),
    }
}

fn purpose(partition: &Partition, devices: &[String], mounts: &[Mount]) -> Purpose {
    let holds = |points: &[&str]| {
        mounts.iter().any(|mount| {
            // Some file systems (btrfs) have a device number of their own; the mounted device identifies the partition.
            let is_here =
                devices.contains(&mount.device) || Path::new(&mount.source) == partition.path;
            is_here && points.iter().any(|point| mount.point == Path::new(point))
        })
    };
    if holds(&["/"]) {
        Purpose::System
    } else if holds(&["/boot", "/boot/efi", "/efi"]) || partition.is_for_boot() {
        Purpose::Boot
    } else {
        Purpose::Unspecified
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    fn partition(path: &str, kind: &str) -> Partition {
        Partition {
            number: 1,
            path: PathBuf::from(path),
            start_bytes: 1 << 20,
            size_bytes: 1 << 30,
            kind: kind.to_owned(),
            is_active: false,
        }
    }

    fn mount(device: &str, point: &str, source: &str) -> Mount {
        Mount {
            device: device.to_owned(),
            point: PathBuf::from(point),
            source: source.to_owned(),
            is_writable: true,
        }
    }

    #[test]
    fn mounts_and_the_table_say_what_a_partition_is_for() {
        let mounts = [
            mount("253:0", "/", "/dev/mapper/root"),
            mount("252:1", "/boot", "/dev/vda1"),
            mount("0:30", "/srv", "/dev/vda4"),
        ];
        let purpose_of = |path: &str, kind: &str, devices: &[&str]| {
            let devices: Vec<String> = devices.iter().map(|&device| device.to_owned()).collect();
            purpose(&partition(path, kind), &devices, &mounts)
        };
        assert_eq!(purpose_of("/dev/vda1", "83", &["252:1"]), Purpose::Boot);
        let under_lvm = purpose_of("/dev/vda2", "8e", &["252:2", "253:0"]);
        assert_eq!(under_lvm, Purpose::System);
        assert_eq!(purpose_of("/dev/vda3", "ef", &["252:3"]), Purpose::Boot);
        assert_eq!(
            purpose_of("/dev/vda4", "83", &["252:4"]),
            Purpose::Unspecified
        );
        let by_its_name = [mount("0:31", "/", "/dev/vda4")];
        let root = purpose(&partition("/dev/vda4", "83"), &[], &by_its_name);
        assert_eq!(root, Purpose::System);
    }
}
