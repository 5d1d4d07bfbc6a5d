//! Real file systems in image files, made and read by the tools that own them.
//!
//! Mounting needs root. Without it (and outside of CI, where everything runs as root) only what needs no mount is
//! tested; with it, a missing tool is a failure.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use super::*;
use crate::testing::{LoopDevice, is_root, sh};

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

    fn inspect(&self) -> Allocation {
        inspect(&self.disk, self.size_bytes)
    }

    fn frozen(&self) -> Frozen {
        match self.inspect() {
            Allocation::Frozen(frozen) => frozen,
            Allocation::Unknown(reason) => panic!("{reason}"),
        }
    }

    fn reason(&self) -> Unknown {
        match self.inspect() {
            Allocation::Unknown(reason) => reason,
            Allocation::Frozen(frozen) => panic!("{frozen:?}"),
        }
    }

    /// Returns a copy of the disk that has zeros where something is free.
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
    fn extents_of(&self, names: impl Iterator<Item = String>) -> Vec<ByteRange> {
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
                    extents.push(ByteRange {
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

fn bytes(extents: &[ByteRange]) -> u64 {
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
        let inside = |extent: &&ByteRange| extent.start < range.end && range.start < extent.end;
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
        match inspect(&torn, image.size_bytes) {
            Allocation::Unknown(Unknown::Unclean(_)) => {}
            other => panic!("{kind}: {other:?}"),
        }
        assert!(matches!(image.inspect(), Allocation::Frozen(_)), "{kind}");
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
    let free = inspect(device, image.size_bytes);
    let Allocation::Frozen(frozen) = free else {
        panic!("{free:?}");
    };
    assert!(bytes(frozen.free()) > 300 * MIB);
    assert!(frozen.still_holds());
    sh(&format!("mount {} {}", device.display(), point.display()));
    let mounted = inspect(device, image.size_bytes);
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
    let reason = |disk: &Path| match inspect(disk, 64 * MIB) {
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
    assert!(matches!(image.inspect(), Allocation::Frozen(_)));
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

/// Flips bits of the disk.
fn spoil(disk: &Path, at_byte: u64, bits: u8) {
    let file = File::options().read(true).write(true).open(disk).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at_byte).unwrap();
    file.write_all_at(&[byte[0] ^ bits], at_byte).unwrap();
}

/// The number behind a text in what a command prints.
fn number_behind(text: &str, command: &str) -> u64 {
    let printed = sh(command);
    let (_, rest) = printed.split_once(text).unwrap();
    let digits = rest.trim_start().split(|c: char| !c.is_ascii_digit());
    digits.into_iter().next().unwrap().parse().unwrap()
}

#[test]
fn a_bitmap_that_calls_a_files_blocks_free_is_not_believed_although_it_adds_up() {
    let image = Image::new("ext4", "-F -b 4096 -O ^metadata_csum", false);
    let disk = image.disk.display();
    let content = image.directory.path().join("content");
    std::fs::write(&content, vec![7; 8 << 20]).unwrap();
    sh(&format!(
        "debugfs -w -R 'write {} file' {disk} 2>/dev/null",
        content.display()
    ));
    assert!(matches!(image.inspect(), Allocation::Frozen(_)));
    let first = sh(&format!("debugfs -R 'bmap file 0' {disk} 2>/dev/null"));
    let first: u64 = first.trim().parse().unwrap();
    let (group, blocks) = (first / 32768, 2000);
    assert_eq!((first + blocks) / 32768, group);
    let free = number_behind("Free blocks:", &format!("dumpe2fs -h {disk} 2>/dev/null"));
    let in_group = format!(
        "dumpe2fs {disk} 2>/dev/null | sed -n '/^Group {group}:/,/free blocks/p' | sed 's/ free blocks.*//; s/^ */at /'"
    );
    let in_group: u64 = sh(&in_group).lines().last().unwrap()[3..].parse().unwrap();
    for command in [
        format!("freeb {first} {blocks}"),
        format!("set_super_value free_blocks_count {}", free + blocks),
        format!("set_bg {group} free_blocks_count {}", in_group + blocks),
        format!("set_bg {group} checksum calc"),
    ] {
        sh(&format!("debugfs -w -R '{command}' {disk} 2>/dev/null"));
    }
    sh(&format!(
        "debugfs -R 'testb {first} 1' {disk} 2>/dev/null | grep 'not in use'"
    ));
    assert_eq!(image.reason(), Unknown::Damaged("ext"));
}

#[test]
fn metadata_whose_checksum_does_not_match_is_not_believed() {
    for (what, bits) in [("Block bitmap at", 0x81), ("Group descriptors at", 0x40)] {
        let image = Image::new("ext4", "-F -b 4096", false);
        let block = number_behind(
            what,
            &format!("dumpe2fs {} 2>/dev/null", image.disk.display()),
        );
        // In a descriptor: the checksum of the bitmap. In a bitmap: some block.
        spoil(&image.disk, block * 4096 + 24, bits);
        let look = image.inspect();
        assert!(matches!(look, Allocation::Unknown(_)), "{what}: {look:?}");
    }
    let image = Image::new("ext4", "-F -b 4096", false);
    spoil(&image.disk, 1024 + 200, 1);
    assert!(matches!(image.inspect(), Allocation::Unknown(_)));

    if !is_root() {
        return;
    }
    let image = Image::new("xfs", "-f -K", false);
    let ask = |group: u32, field: &str| {
        let disk = image.disk.display();
        number_behind(
            &format!("{field} ="),
            &format!(
                "xfs_db -r -c '{} {group}' -c 'print {field}' {disk}",
                if field == "agblocks" { "sb" } else { "agf" }
            ),
        )
    };
    let block = ask(0, "agblocks") + ask(1, "bnoroot");
    // The count of the first record, as large as before or not: its checksum is wrong.
    spoil(&image.disk, block * 4096 + 56 + 3, 0);
    assert!(matches!(image.inspect(), Allocation::Frozen(_)));
    spoil(&image.disk, block * 4096 + 4000, 1);
    assert_eq!(image.reason(), Unknown::Damaged("XFS"));
}

#[test]
fn a_table_that_is_read_from_its_backup_or_has_another_beside_it_is_not_believed() {
    let image = Image::new("ext4", "-b 4096", true);
    assert!(matches!(image.inspect(), Allocation::Frozen(_)));
    let file = File::options()
        .read(true)
        .write(true)
        .open(&image.disk)
        .unwrap();
    // A hybrid: a DOS table that names a partition of its own.
    let mut table = [0; 16];
    file.read_exact_at(&mut table, 446).unwrap();
    table[4] = 0x83;
    file.write_all_at(&table, 446 + 16).unwrap();
    assert!(matches!(image.reason(), Unknown::Several(_)));
    file.write_all_at(&[0; 16], 446 + 16).unwrap();
    assert!(matches!(image.inspect(), Allocation::Frozen(_)));
    spoil(&image.disk, 512 + 16, 1);
    assert_eq!(image.reason(), Unknown::Backup);
}

#[test]
fn a_file_system_that_does_not_fit_its_partition_is_not_believed() {
    for (mib, fits) in [(376, true), (300, false), (380, true)] {
        let image = Image::new("ext4", "-b 4096", true);
        let disk = image.disk.display();
        let script = format!("label: gpt\\nstart=4096, size={}, type=L\\n", mib * 2048);
        sh(&format!(
            "printf '{script}' | sfdisk --quiet --wipe never --wipe-partitions never {disk}"
        ));
        match image.inspect() {
            Allocation::Frozen(_) => assert!(fits, "{mib}"),
            Allocation::Unknown(reason) => {
                assert!(
                    !fits && matches!(reason, Unknown::Unfit { .. }),
                    "{mib}: {reason}"
                );
            }
        }
    }
    let small = Image::new("ext4", "-F -b 4096", false);
    let file = File::options().write(true).open(&small.disk).unwrap();
    file.set_len(800 * MIB).unwrap();
    let look = inspect(&small.disk, 800 * MIB);
    assert!(
        matches!(look, Allocation::Unknown(Unknown::Unfit { .. })),
        "{look:?}"
    );
}

#[test]
fn a_table_of_logical_partitions_that_lies_in_a_partition_is_not_left_out() {
    let directory = tempfile::tempdir().unwrap();
    let disk = directory.path().join("disk");
    File::create_new(&disk).unwrap().set_len(64 * MIB).unwrap();
    let script = "start=2048, size=20480, type=83\\nstart=40960, type=5\\nstart=43008, size=20480, type=83\\nstart=69632, size=8192, type=83\\n";
    sh(&format!(
        "printf 'label: dos\\n{script}' | sfdisk --quiet {}",
        disk.display()
    ));
    let count = |disk: &Path| {
        let open = OpenDisk::open(disk).unwrap();
        reading::places(&Tools::within(TIMEOUT), &open, 64 * MIB).map(|places| places.len())
    };
    assert_eq!(count(&disk), Ok(3));
    // The primary partition now reaches over the first table of the chain.
    let file = File::options().write(true).open(&disk).unwrap();
    file.write_all_at(&39_000_u32.to_le_bytes(), 446 + 12)
        .unwrap();
    assert_eq!(count(&disk), Err(Unknown::Overlap));
}
