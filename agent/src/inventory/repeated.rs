//! Detection of one disk under two names.
//!
//! Each name leads to spans of objects that contain its bytes: the device or file itself, and whatever lies below it. A
//! partition is a span of its disk, a loop device is a span of its file. Two names are one disk if they have a byte in
//! common.
//!
//! The part that a volume (device mapper, RAID) takes of the devices below it is unknown. So two volumes of one device
//! may be different disks, but a volume and that device are not. A disk with several paths is one by the multipath
//! device over them, or by its worldwide name.
//!
//! Nothing is opened, so a disk that does not answer delays nothing.

use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use domain::{Failure, FailureCode, printable};

use super::discover::{MOST_LAYERS, Sysfs, read};
use super::identity::number;

/// Bytes of a sector in `/sys`, whatever the disk's own sector size.
const SECTOR: u64 = 512;

/// Prefixes of names that a standard makes unique in the world. Others, such as `t10`, are a vendor's text and may not
/// be unique.
const UNIQUE_NAMES: [&str; 3] = ["naa.", "eui.", "uuid."];

/// Objects that contain bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Object {
    /// A block device, by its `major:minor`.
    Device(String),
    /// A file, by its file system and inode.
    File { device: u64, inode: u64 },
    /// A loop device's file that no longer has a path, by the kernel's text.
    LostFile(String),
    /// A disk by its worldwide name, whatever path leads to it.
    Unit(String),
}

/// Some bytes of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Span {
    object: Object,
    start: u64,
    end: u64,
    /// True if the name has all these bytes, false if it has an unknown part of them.
    is_whole: bool,
}

impl Span {
    fn whole(object: Object) -> Self {
        Self {
            object,
            start: 0,
            end: u64::MAX,
            is_whole: true,
        }
    }

    /// Returns the same bytes in a lower object, in which this one begins at `offset` and has at most `length` bytes.
    fn within(&self, object: Object, offset: u64, length: u64) -> Self {
        let end = self.end.min(length);
        Self {
            object,
            start: offset.saturating_add(self.start.min(end)),
            end: offset.saturating_add(end),
            is_whole: self.is_whole,
        }
    }

    fn meets(&self, other: &Self) -> bool {
        self.object == other.object
            && self.start < other.end
            && other.start < self.end
            && (self.is_whole || other.is_whole)
    }
}

/// Returns the sentence about the first two paths that are one disk.
pub(super) fn failure(paths: &[PathBuf], sysfs: &Sysfs) -> Option<Failure> {
    let spans: Vec<Vec<Span>> = paths.iter().map(|path| spans_of(path, sysfs)).collect();
    for (later, theirs) in spans.iter().enumerate() {
        for (earlier, ours) in spans[..later].iter().enumerate() {
            if theirs
                .iter()
                .any(|span| ours.iter().any(|other| span.meets(other)))
            {
                let [first, second] =
                    [earlier, later].map(|position| paths[position].display().to_string());
                let (first, second) = (printable(&first), printable(&second));
                return Some(Failure::new(
                    FailureCode::SourceDiskRepeated,
                    format!(
                        "The disks {first} and {second} are one disk, or one is a part of the other, so its bytes would be copied twice. \
                         Name only one of the two with --disk."
                    ),
                ));
            }
        }
    }
    None
}

/// Returns the spans of a path; none if nothing exists at the path.
fn spans_of(path: &Path, sysfs: &Sysfs) -> Vec<Span> {
    let mut found = Vec::new();
    if let Ok(metadata) = path.metadata() {
        if metadata.file_type().is_block_device() {
            let itself = Span::whole(Object::Device(number(metadata.rdev())));
            add_below(itself, sysfs, 0, &mut found);
        } else {
            found.push(Span::whole(file(&metadata)));
        }
    }
    found
}

fn file(metadata: &std::fs::Metadata) -> Object {
    Object::File {
        device: metadata.dev(),
        inode: metadata.ino(),
    }
}

/// Adds a span of a device, and the spans of everything below it.
fn add_below(span: Span, sysfs: &Sysfs, depth: usize, found: &mut Vec<Span>) {
    let entry = match &span.object {
        Object::Device(number) if depth < MOST_LAYERS => sysfs.entry_of(number),
        _ => None,
    };
    found.push(span.clone());
    let Some(entry) = entry else { return };
    if entry.join("partition").exists() {
        let sectors = |name| read(&entry.join(name))?.parse::<u64>().ok();
        let disk = entry.parent().and_then(device_at);
        if let (Some(disk), Some(start), Some(size)) = (disk, sectors("start"), sectors("size")) {
            let within = span.within(disk, start * SECTOR, size * SECTOR);
            add_below(within, sysfs, depth + 1, found);
        }
    }
    if let Some(over) = sysfs.multipath_over(&entry).as_deref().and_then(device_at) {
        found.push(span.within(over, 0, u64::MAX));
    }
    if let Some(name) = unique_name(&entry) {
        found.push(span.within(Object::Unit(name), 0, u64::MAX));
    }
    if let Some((object, offset, length)) = behind_loop(&entry) {
        let within = span.within(object, offset, length);
        add_below(within, sysfs, depth + 1, found);
    }
    let slaves = entry.join("slaves");
    for slave in sysfs.entries(&slaves) {
        if let Some(slave) = std::fs::canonicalize(slaves.join(slave))
            .ok()
            .as_deref()
            .and_then(device_at)
        {
            let part = Span {
                is_whole: false,
                ..Span::whole(slave)
            };
            add_below(part, sysfs, depth + 1, found);
        }
    }
}

fn device_at(entry: &Path) -> Option<Object> {
    read(&entry.join("dev")).map(Object::Device)
}

/// Returns the worldwide name of a SCSI disk or of an NVMe namespace.
fn unique_name(entry: &Path) -> Option<String> {
    let name = read(&entry.join("device/wwid")).or_else(|| read(&entry.join("wwid")))?;
    UNIQUE_NAMES
        .iter()
        .any(|kind| name.starts_with(kind))
        .then_some(name)
}

/// Returns the file or device of a loop device, the loop device's offset in it, and the loop device's largest size.
fn behind_loop(entry: &Path) -> Option<(Object, u64, u64)> {
    let backing = read(&entry.join("loop/backing_file"))?;
    let bytes = |name| {
        let text = read(&entry.join("loop").join(name));
        text.and_then(|text| text.parse::<u64>().ok()).unwrap_or(0)
    };
    let object = match Path::new(&backing).metadata() {
        Ok(metadata) if metadata.file_type().is_block_device() => {
            Object::Device(number(metadata.rdev()))
        }
        Ok(metadata) => file(&metadata),
        Err(_) => Object::LostFile(backing),
    };
    let length = match bytes("sizelimit") {
        0 => u64::MAX,
        limit => limit,
    };
    Some((object, bytes("offset"), length))
}

#[cfg(test)]
mod tests {
    use super::super::testing::Machine;
    use super::*;

    fn of_device(machine: &Machine, number: &str) -> Vec<Span> {
        let mut found = Vec::new();
        let itself = Span::whole(Object::Device(number.to_owned()));
        add_below(itself, &machine.sysfs, 0, &mut found);
        found
    }

    fn are_one(machine: &Machine, one: &str, other: &str) -> bool {
        let (one, other) = (of_device(machine, one), of_device(machine, other));
        one.iter()
            .any(|span| other.iter().any(|theirs| span.meets(theirs)))
    }

    /// Returns a machine with `vda1` and `vda2` one behind the other, and volumes `dm-0` and `dm-2` on `vda2`.
    fn machine() -> Machine {
        let machine = Machine::new("");
        for (file, text) in [
            ("vda/vda1/start", "2048"),
            ("vda/vda1/size", "2048"),
            ("vda/vda2/start", "4096"),
            ("vda/vda2/size", "2048"),
        ] {
            machine.write(file, text);
        }
        machine.device("dm-2", "253:2", false);
        machine.layer("vda/vda2", "dm-2");
        machine
    }

    #[test]
    fn a_partition_and_a_volume_are_parts_of_their_disk_and_not_of_each_other() {
        let machine = machine();
        let (vda, vda1, vda2, root, home) = ("252:0", "252:1", "252:2", "253:0", "253:2");
        for (one, other, wanted) in [
            (vda, vda, true),
            (vda, vda1, true),
            (vda, root, true),
            (vda2, root, true),
            (vda1, vda2, false),
            (vda1, root, false),
            (root, home, false),
            (vda, "8:16", false),
        ] {
            assert_eq!(are_one(&machine, one, other), wanted, "{one} {other}");
            assert_eq!(are_one(&machine, other, one), wanted, "{other} {one}");
        }
    }

    #[test]
    fn the_paths_of_a_disk_are_one_disk() {
        let machine = machine();
        machine.device("sda", "8:0", true);
        assert!(!are_one(&machine, "8:0", "8:16"));
        machine.write("sda/device/wwid", "t10.ATA     QEMU HARDDISK");
        machine.write("sdb/device/wwid", "t10.ATA     QEMU HARDDISK");
        assert!(!are_one(&machine, "8:0", "8:16"), "a vendor's text");
        machine.multipath("dm-3", "253:3", &["sda", "sdb"]);
        assert!(are_one(&machine, "8:0", "8:16") && are_one(&machine, "8:0", "253:3"));

        machine.device("sdc", "8:32", true);
        machine.device("sdd", "8:48", true);
        machine.write("sdc/device/wwid", "naa.5000c500a1b2c3d4");
        machine.write("sdd/device/wwid", "naa.5000c500a1b2c3d4");
        assert!(are_one(&machine, "8:32", "8:48"));
    }

    #[test]
    fn loop_devices_over_one_file_are_one_disk_where_they_meet() {
        let machine = machine();
        let file = machine.path("disk.raw");
        std::fs::write(&file, [1; 4096]).unwrap();
        for (name, number, offset, limit) in [
            ("loop1", "7:1", "0", "0"),
            ("loop2", "7:2", "0", "2048"),
            ("loop3", "7:3", "2048", "0"),
        ] {
            machine.device(name, number, false);
            machine.write(&format!("{name}/loop/backing_file"), file.to_str().unwrap());
            machine.write(&format!("{name}/loop/offset"), offset);
            machine.write(&format!("{name}/loop/sizelimit"), limit);
        }
        assert!(are_one(&machine, "7:1", "7:2") && are_one(&machine, "7:1", "7:3"));
        assert!(!are_one(&machine, "7:2", "7:3"));
        let of_file = spans_of(&file, &machine.sysfs);
        assert!(
            of_device(&machine, "7:3")
                .iter()
                .any(|span| span.meets(&of_file[0]))
        );
    }

    #[test]
    fn two_names_of_one_file_are_named_in_the_sentence() {
        let machine = machine();
        let [file, link, other] = ["a.raw", "ata-DISK_1", "b.raw"].map(|name| machine.path(name));
        std::fs::write(&file, [1; 4096]).unwrap();
        std::fs::write(&other, [1; 4096]).unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        let twice = [file.clone(), other.clone(), link.clone()];
        let failure = failure(&twice, &machine.sysfs).unwrap();
        for path in [&file, &link] {
            let path = path.display().to_string();
            assert!(failure.message.contains(&path), "{failure}");
        }
        let missing = machine.path("nowhere");
        assert_eq!(
            super::failure(&[file, other, missing.clone(), missing], &machine.sysfs),
            None
        );
    }
}
