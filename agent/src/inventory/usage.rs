//! The amount of a disk in use, if it can be determined without reading the disk.

use std::collections::BTreeSet;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};

use super::discover::Sysfs;
use super::disk::Measured;
use super::identity::number;

/// Bytes of one block of `st_blocks`, on every file system.
const STAT_BLOCK: u64 = 512;

/// Returns the bytes in use: the bytes allocated to a file, or the bytes in the mounted file systems of a device.
/// `None` for a device without a mounted file system. Data outside mounted file systems is not counted.
pub(super) fn of(disk: &Measured, sysfs: &Sysfs) -> Option<u64> {
    let metadata = &disk.metadata;
    let used = if metadata.file_type().is_block_device() {
        mounted(&number(metadata.rdev()), sysfs)?
    } else {
        metadata.blocks() * STAT_BLOCK
    };
    Some(used.min(disk.size_bytes))
}

fn mounted(device: &str, sysfs: &Sysfs) -> Option<u64> {
    let devices = sysfs.devices_on(device);
    let mut counted = BTreeSet::new();
    let mut used = None;
    for mount in sysfs.mounts() {
        // One file system may be mounted at several points.
        if !devices.contains(&mount.device) || !counted.insert(mount.device) {
            continue;
        }
        if let Ok(statistics) = rustix::fs::statvfs(&mount.point) {
            let blocks = statistics.f_blocks.saturating_sub(statistics.f_bfree);
            *used.get_or_insert(0) += blocks * statistics.f_frsize;
        }
    }
    used
}

#[cfg(test)]
mod tests {
    use super::super::disk::measure;
    use super::*;

    #[test]
    fn the_holes_of_a_file_are_not_in_use() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("disk");
        std::fs::write(&path, vec![1; 100_000]).unwrap();
        std::fs::File::options()
            .write(true)
            .open(&path)
            .unwrap()
            .set_len(1 << 30)
            .unwrap();
        let measured = measure(&path).unwrap();
        let used = of(&measured, &Sysfs::of_this_machine()).unwrap();
        assert!((100_000..1 << 20).contains(&used), "{used}");
    }
}
