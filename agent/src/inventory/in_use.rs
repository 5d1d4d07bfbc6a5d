//! Uses of a disk for writing: file systems that are mounted read-write, and swap, through any layers between.
//!
//! The users of a file are known only if a loop device is over it. Other programs that have the file open, such as a
//! virtual machine, are not detected.

use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::Path;

use super::discover::Sysfs;
use super::disk::Measured;

/// Most uses in the list.
const MOST: usize = 4;

/// Longest name of a mount point or device in the list; a longer one is cut.
const MOST_CHARS: usize = 100;

/// Returns a list for people, such as `mounted at /, swap`; empty for none.
pub(super) fn of(path: &Path, disk: &Measured, sysfs: &Sysfs) -> String {
    let devices: Vec<String> = if disk.metadata.file_type().is_block_device() {
        sysfs.devices_that_reach(&number(disk.metadata.rdev()))
    } else {
        let loops = path
            .canonicalize()
            .map_or_else(|_| Vec::new(), |file| sysfs.loops_over(&file));
        let reach = loops.iter().map(|device| sysfs.devices_that_reach(device));
        reach.flatten().collect()
    };
    if devices.is_empty() {
        return String::new();
    }
    let mut uses: Vec<String> = sysfs
        .mounts()
        .iter()
        .filter(|mount| mount.is_writable)
        // Some file systems (btrfs) have a device number of their own; the mounted device identifies the disk.
        .filter(|mount| {
            devices.contains(&mount.device)
                || device_at(Path::new(&mount.source)).is_some_and(|it| devices.contains(&it))
        })
        .map(|mount| format!("mounted at {}", short(&mount.point)))
        .collect();
    let is_ours = |swap: &Path| device_at(swap).is_some_and(|it| devices.contains(&it));
    if sysfs.swaps().iter().any(|swap| is_ours(swap)) {
        uses.push("swap".to_owned());
    }
    if uses.len() > MOST {
        let more = uses.len() - MOST;
        uses.truncate(MOST);
        uses.push(format!("{more} more"));
    }
    uses.join(", ")
}

/// Returns the number of the block device at a path, if one is there.
fn device_at(path: &Path) -> Option<String> {
    let metadata = path.is_absolute().then(|| path.metadata().ok())??;
    metadata
        .file_type()
        .is_block_device()
        .then(|| number(metadata.rdev()))
}

fn number(device: u64) -> String {
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    format!("{major}:{minor}")
}

fn short(point: &Path) -> String {
    point.to_string_lossy().chars().take(MOST_CHARS).collect()
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::super::disk::measure;
    use super::*;

    fn sh(script: &str) -> String {
        let output = Command::new("sh").args(["-ec", script]).output().unwrap();
        assert!(output.status.success(), "{script}: {output:?}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    fn in_use(disk: &str) -> String {
        let disk = Path::new(disk);
        of(disk, &measure(disk).unwrap(), &Sysfs::of_this_machine())
    }

    /// Undoes the test's setup, also when the test fails.
    struct Undo(Vec<String>);

    impl Drop for Undo {
        fn drop(&mut self) {
            for command in self.0.iter().rev() {
                let _undone = Command::new("sh").args(["-c", command]).status();
            }
        }
    }

    #[test]
    fn a_disk_that_is_mounted_for_writing_is_in_use_and_so_is_the_file_under_it() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("disk").display().to_string();
        let point = directory.path().join("mnt").display().to_string();
        sh(&format!(
            "truncate -s 16M {file} && mkfs.ext4 -q -F {file} && mkdir {point}"
        ));
        let device = sh(&format!("losetup --find --show {file}"));
        let mut undo = Undo(vec![format!("losetup -d {device}")]);
        assert_eq!((in_use(&device), in_use(&file)), Default::default());
        sh(&format!("mount -o ro {device} {point}"));
        undo.0.push(format!("umount {point}"));
        assert_eq!(in_use(&device), "", "it is mounted for reading only");
        sh(&format!("mount -o remount,rw {point}"));
        let mounted = format!("mounted at {point}");
        assert_eq!((in_use(&device), in_use(&file)), (mounted.clone(), mounted));
    }
}
