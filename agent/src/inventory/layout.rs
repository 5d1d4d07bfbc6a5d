//! Sectors and partition table of a disk.

use std::fs::Metadata;
use std::os::unix::fs::FileTypeExt as _;
use std::os::unix::fs::MetadataExt as _;

use domain::disk::DiskLayout;

use super::contents::Contents;
use super::discover::{Sysfs, read};
use super::identity::number;

/// Returns the layout of the disk with this metadata. A file has no sectors.
pub(super) fn of(metadata: &Metadata, contents: &Contents, sysfs: &Sysfs) -> DiskLayout {
    let is_device = metadata.file_type().is_block_device();
    let device = is_device.then(|| number(metadata.rdev()));
    let sectors = |name| sector_bytes(device.as_deref()?, name, sysfs);
    DiskLayout {
        logical_sector_bytes: sectors("logical_block_size"),
        physical_sector_bytes: sectors("physical_block_size"),
        partition_table: contents.table.clone(),
    }
}

/// Returns the sector size of a disk. A partition has the sector size of its disk.
fn sector_bytes(device: &str, name: &str, sysfs: &Sysfs) -> Option<u32> {
    let entry = sysfs.entry_of(device)?;
    let places = [Some(entry.as_path()), entry.parent()];
    let mut texts = places
        .into_iter()
        .flatten()
        .map(|place| read(&place.join("queue").join(name)));
    texts.find_map(|text| text?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::super::testing::Machine;
    use super::*;

    #[test]
    fn a_partition_has_the_sectors_of_its_disk() {
        let machine = Machine::new("");
        machine.write("vda/queue/logical_block_size", "512");
        machine.write("vda/queue/physical_block_size", "4096");
        for device in ["252:0", "252:2"] {
            let bytes = |name| sector_bytes(device, name, &machine.sysfs);
            assert_eq!(bytes("logical_block_size"), Some(512), "{device}");
            assert_eq!(bytes("physical_block_size"), Some(4096), "{device}");
        }
        assert_eq!(
            sector_bytes("8:16", "logical_block_size", &machine.sysfs),
            None
        );
    }
}
