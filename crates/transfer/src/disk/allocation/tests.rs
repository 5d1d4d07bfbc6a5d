//! Real file systems in image files, made and read by the tools that own them.
//!
//! Mounting needs root. Without it (and outside of CI, where everything runs as root) only what needs no mount is tested; with it, a missing tool is a failure.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use super::super::testing::{LoopDevice, is_root, sh};
use super::*;

const MIB: u64 = 1 << 20;

/// A disk in a file with one file system, in a partition or on all of it, and a place to mount it.
struct Image {
    directory: tempfile::TempDir,
    disk: PathBuf,
    size_bytes: u64,
    offset_bytes: u64,
}

/// A mounted image; unmounted when dropped, so that a failing test leaves nothing behind.
struct Mounted<'a>(&'a Image);

impl Image {
    fn new(kind: &str, options: &str, in_partition: bool) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let disk = directory.path().join("disk");
        let size_bytes = 384 * MIB;
        File::create_new(&disk)
            .unwrap()
            .set_len(size_bytes)
            .unwrap();
        std::fs::create_dir(directory.path().join("mnt")).unwrap();
        let offset_bytes = if in_partition { 2 * MIB } else { 0 };
        let image = Self {
            directory,
            disk,
            size_bytes,
            offset_bytes,
        };
        let path = image.disk.display();
        if in_partition {
            let script = "label: gpt\\nstart=4096, size=770048, type=L\\n";
            sh(&format!("printf '{script}' | sfdisk --quiet {path}"));
            let part = image.directory.path().join("part");
            File::create_new(&part).unwrap().set_len(376 * MIB).unwrap();
            let part = part.display();
            sh(&format!("mkfs.{kind} -q {options} {part}"));
            sh(&format!(
                "dd if={part} of={path} bs=1M seek=2 conv=notrunc,sparse status=none; rm {part}"
            ));
        } else {
            sh(&format!("mkfs.{kind} -q {options} {path}"));
        }
        image
    }

    fn mount(&self) -> Mounted<'_> {
        let (disk, point) = (self.disk.display(), self.point());
        sh(&format!(
            "mount -o loop,offset={} {disk} {}",
            self.offset_bytes,
            point.display()
        ));
        Mounted(self)
    }

    fn point(&self) -> PathBuf {
        self.directory.path().join("mnt")
    }

    fn look(&self) -> Allocation {
        look(&self.disk, self.size_bytes)
    }

    fn frozen(&self) -> Frozen {
        match self.look() {
            Allocation::Frozen(frozen) => frozen,
            Allocation::Unknown(reason) => panic!("{reason}"),
        }
    }

    fn reason(&self) -> Unknown {
        match self.look() {
            Allocation::Unknown(reason) => reason,
            Allocation::Frozen(frozen) => panic!("{frozen:?}"),
        }
    }

    /// What a copy would be: zeros where something is free.
    fn without_free_space(&self, frozen: &Frozen) {
        let file = File::options().write(true).open(&self.disk).unwrap();
        let zeros = vec![0; MIB as usize];
        for range in frozen.free() {
            let mut start = range.start;
            while start < range.end {
                let length = (range.end - start).min(MIB);
                file.write_all_at(&zeros[..length as usize], start).unwrap();
                start += length;
            }
        }
        file.sync_all().unwrap();
    }
}

impl Mounted<'_> {
    /// Files of many sizes, of which every other one is deleted again; answers with the contents of those that stay.
    fn fill(&self, seed: u64) -> BTreeMap<String, Vec<u8>> {
        let point = self.0.point();
        let mut random = seed | 1;
        let mut next = move || {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            random
        };
        let mut kept = BTreeMap::new();
        for number in 0..24 {
            let name = format!("file-{number}");
            let length = 4096 + next() % (12 * MIB);
            let content: Vec<u8> = std::iter::repeat_with(&mut next)
                .flat_map(u64::to_le_bytes)
                .take(length as usize)
                .collect();
            std::fs::write(point.join(&name), &content).unwrap();
            kept.insert(name, content);
        }
        sh(&format!("sync -f {}", point.display()));
        kept.retain(|name, _| {
            let stays = name.ends_with(['1', '4', '7']);
            if !stays {
                std::fs::remove_file(point.join(name)).unwrap();
            }
            stays
        });
        kept
    }

    fn check(&self, files: &BTreeMap<String, Vec<u8>>) {
        for (name, content) in files {
            let found = std::fs::read(self.0.point().join(name)).unwrap();
            assert!(found == *content, "{name} is another");
        }
    }

    /// The bytes of the disk that the files lie in, by `filefrag`.
    fn extents_of(&self, names: impl Iterator<Item = String>) -> Vec<Extent> {
        let mut extents = Vec::new();
        for name in names {
            let path = self.0.point().join(name);
            for line in sh(&format!("filefrag -e -b1024 {}", path.display())).lines() {
                // Number, logical, physical and length, in the smallest blocks that there are: larger ones are rounded.
                let columns: Vec<&str> = line.split(':').map(str::trim).collect();
                let [number, _, physical, length, ..] = columns.as_slice() else {
                    continue;
                };
                let first = physical.split("..").next().unwrap().trim();
                if let (Ok(_), Ok(first), Ok(length)) = (
                    number.parse::<u64>(),
                    first.parse::<u64>(),
                    length.parse::<u64>(),
                ) {
                    extents.push(Extent {
                        start: self.0.offset_bytes + first * 1024,
                        end: self.0.offset_bytes + (first + length) * 1024,
                    });
                }
            }
        }
        extents
    }
}

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        sh(&format!("umount {}", self.0.point().display()));
    }
}

fn bytes(extents: &[Extent]) -> u64 {
    extents.iter().map(|extent| extent.end - extent.start).sum()
}

/// Deleted files are free, nothing that a file lies in is, and with zeros in all that is free the file system is whole.
fn deleted_files_are_free_and_all_others_survive(
    kind: &str,
    options: &str,
    check: &str,
    in_partition: bool,
) {
    if !is_root() {
        return;
    }
    let image = Image::new(kind, options, in_partition);
    let mounted = image.mount();
    let files = mounted.fill(0x5eed);
    // btrfs tells addresses of its own, which are not those of the disk.
    let lie_in = match kind {
        "btrfs" => Vec::new(),
        _ => mounted.extents_of(files.keys().cloned()),
    };
    drop(mounted);
    let frozen = image.frozen();
    let used: u64 = files.values().map(|content| content.len() as u64).sum();
    assert!(
        bytes(frozen.free()) > image.size_bytes - used - 160 * MIB,
        "{} free, {used} used",
        bytes(frozen.free())
    );
    assert!(kind == "btrfs" || bytes(&lie_in) >= used, "{lie_in:?}");
    for range in frozen.free() {
        let inside = |extent: &&Extent| extent.start < range.end && range.start < extent.end;
        assert_eq!(lie_in.iter().find(inside), None, "{range:?} is used");
        assert!(range.start >= image.offset_bytes && range.end <= image.size_bytes);
    }
    assert!(frozen.still_holds());

    image.without_free_space(&frozen);
    assert!(!frozen.still_holds(), "the file was written since");
    let device = sh(&format!(
        "losetup --find --show --offset {} {}",
        image.offset_bytes,
        image.disk.display()
    ));
    let device = device.trim();
    sh(&format!(
        "trap 'losetup --detach {device}' EXIT; {check} {device}"
    ));
    image.mount().check(&files);
}

#[test]
fn ext4_on_a_whole_disk() {
    deleted_files_are_free_and_all_others_survive("ext4", "-F", "e2fsck -fn", false);
}

#[test]
fn ext4_with_small_blocks_in_a_partition() {
    deleted_files_are_free_and_all_others_survive("ext4", "-b 1024", "e2fsck -fn", true);
}

#[test]
fn ext2_in_a_partition() {
    deleted_files_are_free_and_all_others_survive("ext2", "", "e2fsck -fn", true);
}

#[test]
fn xfs_on_a_whole_disk() {
    deleted_files_are_free_and_all_others_survive("xfs", "", "xfs_repair -n", false);
}

#[test]
fn xfs_in_a_partition() {
    deleted_files_are_free_and_all_others_survive("xfs", "", "xfs_repair -n", true);
}

#[test]
fn btrfs_on_a_whole_disk() {
    deleted_files_are_free_and_all_others_survive("btrfs", "", "btrfs check --readonly", false);
}

#[test]
fn btrfs_in_a_partition() {
    deleted_files_are_free_and_all_others_survive("btrfs", "", "btrfs check --readonly", true);
}

#[test]
fn a_file_system_that_was_not_unmounted_is_not_believed() {
    if !is_root() {
        return;
    }
    for (kind, options) in [("ext4", ""), ("xfs", "")] {
        let image = Image::new(kind, options, false);
        let mounted = image.mount();
        mounted.fill(7);
        sh("sync");
        // What a power cut leaves: the journal is still to be replayed.
        let torn = image.directory.path().join("torn");
        sh(&format!(
            "cp --sparse=always {} {}",
            image.disk.display(),
            torn.display()
        ));
        drop(mounted);
        match look(&torn, image.size_bytes) {
            Allocation::Unknown(Unknown::Unclean(_)) => {}
            other => panic!("{kind}: {other:?}"),
        }
        assert!(matches!(image.look(), Allocation::Frozen(_)), "{kind}");
    }
}

#[test]
fn a_device_that_is_mounted_is_in_use_whole_or_by_a_partition_and_else_it_is_not() {
    if !is_root() {
        return;
    }
    let image = Image::new("ext4", "", false);
    let device = LoopDevice::over(&image.disk);
    let device = device.path();
    let point = image.point();
    let free = look(device, image.size_bytes);
    let Allocation::Frozen(frozen) = free else {
        panic!("{free:?}");
    };
    assert!(bytes(frozen.free()) > 300 * MIB);
    assert!(frozen.still_holds());
    sh(&format!("mount {} {}", device.display(), point.display()));
    let mounted = look(device, image.size_bytes);
    let held = frozen.still_holds();
    // In between a file took what was free, and it is unmounted again: nothing shows but the allocation.
    std::fs::write(point.join("new"), vec![1; 64 << 20]).unwrap();
    sh(&format!("umount {}", point.display()));
    assert!(
        matches!(mounted, Allocation::Unknown(Unknown::InUse)),
        "{mounted:?}"
    );
    assert!(!held);
    assert!(!frozen.still_holds(), "a file lies in what was free");
}

#[test]
fn a_file_that_was_written_since_holds_no_more() {
    let image = Image::new("ext4", "-F", false);
    let frozen = image.frozen();
    assert!(bytes(frozen.free()) > 300 * MIB);
    assert!(frozen.still_holds());
    let file = File::options().write(true).open(&image.disk).unwrap();
    file.write_all_at(&[0], 0).unwrap();
    assert!(!frozen.still_holds());
}

#[test]
fn what_has_no_file_system_and_partitions_that_overlap_are_copied() {
    let directory = tempfile::tempdir().unwrap();
    let disk = directory.path().join("disk");
    std::fs::write(&disk, vec![7; MIB as usize]).unwrap();
    let reason = |disk: &Path| match look(disk, 64 * MIB) {
        Allocation::Unknown(reason) => reason,
        Allocation::Frozen(frozen) => panic!("{frozen:?}"),
    };
    assert!(matches!(reason(&disk), Unknown::Content(_)));

    File::options()
        .write(true)
        .open(&disk)
        .unwrap()
        .set_len(64 * MIB)
        .unwrap();
    let script = "start=2048, size=20000, type=83\\nstart=30000, size=20000, type=83\\n";
    sh(&format!(
        "printf 'label: dos\\n{script}' | sfdisk --quiet {}",
        disk.display()
    ));
    // The start of the second, which sfdisk would not write there.
    let file = File::options().write(true).open(&disk).unwrap();
    file.write_all_at(&8192_u32.to_le_bytes(), 446 + 16 + 8)
        .unwrap();
    assert_eq!(reason(&disk), Unknown::Overlap);
    assert!(matches!(
        reason(Path::new("/nowhere/disk")),
        Unknown::Unreadable(_)
    ));
}

#[test]
fn a_damaged_bitmap_does_not_add_up() {
    let image = Image::new("ext4", "-F -O ^metadata_csum", false);
    assert!(matches!(image.look(), Allocation::Frozen(_)));
    // The superblock counts one block more than the bitmaps have.
    let disk = image.disk.display();
    let free = sh(&format!("dumpe2fs -h {disk} 2>/dev/null"));
    let free = free
        .lines()
        .find_map(|line| line.strip_prefix("Free blocks:"))
        .unwrap();
    let more = free.trim().parse::<u64>().unwrap() + 1;
    sh(&format!(
        "debugfs -w -R 'set_super_value free_blocks_count {more}' {disk} 2>/dev/null"
    ));
    assert!(matches!(image.reason(), Unknown::Sum { .. }));
}
