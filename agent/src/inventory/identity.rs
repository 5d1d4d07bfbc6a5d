//! The facts about a disk that don't change with its name: see [`domain::disk::DiskIdentity`] for their comparison.
//!
//! The kernel has the facts about the device in `/sys`. A loop device is identified by the file behind it, and a path
//! of a multipath disk by that disk. A partition is identified by its disk and a number. Facts about the disk's
//! contents come from the tools that own the formats.

use std::fs::{self, Metadata};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::Path;
use std::time::UNIX_EPOCH;

use domain::disk::{DiskIdentity, Fact};

use super::contents::Contents;
use super::discover::{MULTIPATH, Sysfs, read};

/// Longest value. A longer value is cut; its beginning still distinguishes disks.
const MAX_CHARACTERS: usize = 256;

/// Bytes of a unit serial number's page before its text (SCSI, page 80h).
const PAGE_HEADER: usize = 4;

/// Returns the facts about the disk with this metadata.
pub(super) fn of(metadata: &Metadata, contents: &Contents, sysfs: &Sysfs) -> DiskIdentity {
    let known = if metadata.file_type().is_block_device() {
        sysfs
            .entry_of(&number(metadata.rdev()))
            .map_or_else(DiskIdentity::default, |entry| of_device(&entry, sysfs))
    } else {
        DiskIdentity::default().with(Fact::File, file(metadata))
    };
    known
        .with(Fact::PartitionTable, clean(contents.table_id.as_deref()))
        .with(Fact::FileSystem, clean(contents.file_system.as_deref()))
}

/// Returns `major:minor` of a device.
pub(super) fn number(device: u64) -> String {
    format!(
        "{}:{}",
        rustix::fs::major(device),
        rustix::fs::minor(device)
    )
}

fn of_device(entry: &Path, sysfs: &Sysfs) -> DiskIdentity {
    match (read(&entry.join("partition")), entry.parent()) {
        (Some(number), Some(disk)) => {
            let of_disk = of_whole_device(disk, sysfs);
            Fact::ALL
                .into_iter()
                .fold(DiskIdentity::default(), |identity, kind| {
                    let part = of_disk
                        .get(kind)
                        .map(|text| format!("{text} part {number}"));
                    identity.with(kind, part)
                })
        }
        _ => of_whole_device(entry, sysfs),
    }
}

fn of_whole_device(entry: &Path, sysfs: &Sysfs) -> DiskIdentity {
    let uuid = read(&entry.join("dm/uuid"));
    if uuid
        .as_ref()
        .is_some_and(|uuid| uuid.starts_with(MULTIPATH))
    {
        let paths = entry.join("slaves");
        let first = sysfs.entries(&paths).into_iter().min();
        let path = first.and_then(|path| fs::canonicalize(paths.join(path)).ok());
        return path.map_or_else(DiskIdentity::default, |path| of_hardware(&path));
    }
    of_hardware(entry)
        .with(Fact::DeviceMapper, clean(uuid.as_deref()))
        .with(Fact::Raid, clean(read(&entry.join("md/uuid")).as_deref()))
        .with(Fact::File, behind_loop(entry))
}

fn of_hardware(entry: &Path) -> DiskIdentity {
    let first = |names: &[&str]| {
        let mut texts = names.iter().map(|name| read(&entry.join(name)));
        texts.find_map(|text| clean(text.as_deref()))
    };
    DiskIdentity::default()
        .with(Fact::WorldwideName, first(&["wwid", "device/wwid"]))
        .with(Fact::Serial, serial(entry).or_else(|| first(&["serial"])))
}

/// Returns the serial number of a disk with a bus of its own. An NVMe device has its controller's serial number, and a
/// controller may have several disks.
fn serial(entry: &Path) -> Option<String> {
    if let Ok(page) = fs::read(entry.join("device/vpd_pg80")) {
        let text = page.get(PAGE_HEADER..)?;
        return clean(Some(&String::from_utf8_lossy(text)));
    }
    let serial = clean(read(&entry.join("device/serial")).as_deref())?;
    Some(match read(&entry.join("nsid")) {
        Some(disk) => format!("{serial} disk {disk}"),
        None => serial,
    })
}

/// Returns the file of a loop device, and the device's offset in it.
fn behind_loop(entry: &Path) -> Option<String> {
    let backing = read(&entry.join("loop/backing_file"))?;
    let file = file(&Path::new(&backing).metadata().ok()?)?;
    match read(&entry.join("loop/offset")) {
        Some(offset) if offset != "0" => Some(format!("{file} at {offset}")),
        _ => Some(file),
    }
}

/// Returns the identity of a file, if its file system records birth times. An inode number alone is reused; a device's
/// number changes from boot to boot.
fn file(metadata: &Metadata) -> Option<String> {
    let born = metadata.created().ok()?.duration_since(UNIX_EPOCH).ok()?;
    let (seconds, nanoseconds) = (born.as_secs(), born.subsec_nanos());
    Some(format!(
        "inode {} born {seconds}.{nanoseconds:09}",
        metadata.ino()
    ))
}

/// Returns a text of the kernel or of a disk, if it carries information: some disks have blanks or zeros for a serial
/// number.
fn clean(text: Option<&str>) -> Option<String> {
    let text = text?.trim_matches(|character: char| character == '\0' || character.is_whitespace());
    let says_something = text
        .chars()
        .any(|character| character.is_alphanumeric() && character != '0');
    let text = domain::printable(text);
    says_something.then(|| text.chars().take(MAX_CHARACTERS).collect())
}

#[cfg(test)]
mod tests {
    use super::super::testing::Machine;
    use super::*;

    fn facts(machine: &Machine, number: &str) -> Vec<(Fact, String)> {
        let identity = of_device(&machine.sysfs.entry_of(number).unwrap(), &machine.sysfs);
        let known = |kind| Some((kind, identity.get(kind)?.to_owned()));
        Fact::ALL.into_iter().filter_map(known).collect()
    }

    fn texts(facts: &[(Fact, &str)]) -> Vec<(Fact, String)> {
        let facts = facts.iter();
        facts
            .map(|(kind, text)| (*kind, (*text).to_owned()))
            .collect()
    }

    #[test]
    fn each_kind_of_disk_is_known_by_what_the_kernel_says_of_it() {
        use Fact::{DeviceMapper, Raid, Serial, WorldwideName};

        let machine = Machine::new("");
        // SCSI, virtio, NVMe, a logical volume, an array.
        machine.device("sda", "8:0", true);
        machine.write("sda/device/wwid", "naa.5000c500a1b2c3d4");
        machine.write("sda/device/vpd_pg80", "\0\0\0\u{8}ZA1B2C3D  ");
        machine.write("vda/serial", "disk-1");
        machine.device("nvme0n1", "259:0", true);
        machine.write("nvme0n1/wwid", "eui.0025388b01d2f3a4");
        machine.write("nvme0n1/device/serial", "S4EWNX0M123456      ");
        machine.write("nvme0n1/nsid", "1");
        machine.write("dm-0/dm/uuid", "LVM-abc");
        machine.device("md0", "9:0", false);
        machine.write("md0/md/uuid", "6f8e5c0a-0000-4000-8000-000000000001");
        for (number, wanted) in [
            (
                "8:0",
                &[
                    (WorldwideName, "naa.5000c500a1b2c3d4"),
                    (Serial, "ZA1B2C3D"),
                ][..],
            ),
            ("252:0", &[(Serial, "disk-1")]),
            ("252:2", &[(Serial, "disk-1 part 1")]),
            (
                "259:0",
                &[
                    (WorldwideName, "eui.0025388b01d2f3a4"),
                    (Serial, "S4EWNX0M123456 disk 1"),
                ],
            ),
            ("253:0", &[(DeviceMapper, "LVM-abc")]),
            ("9:0", &[(Raid, "6f8e5c0a-0000-4000-8000-000000000001")]),
            ("8:16", &[]),
        ] {
            assert_eq!(facts(&machine, number), texts(wanted), "{number}");
        }
    }

    #[test]
    fn a_multipath_disk_is_the_disk_at_the_end_of_its_paths() {
        let machine = Machine::new("");
        machine.device("sda", "8:0", true);
        for path in ["sda", "sdb"] {
            machine.write(&format!("{path}/device/wwid"), "naa.36000c29");
        }
        machine.multipath("dm-1", "253:1", &["sda", "sdb"]);
        let wanted = texts(&[(Fact::WorldwideName, "naa.36000c29")]);
        assert_eq!(facts(&machine, "253:1"), wanted);
        assert_eq!(facts(&machine, "8:16"), wanted);
    }

    #[test]
    fn a_loop_device_is_its_file() {
        let machine = Machine::new("");
        let path = machine.path("disk.raw");
        fs::write(&path, [1; 4096]).unwrap();
        machine.write("loop0/loop/backing_file", path.to_str().unwrap());
        machine.write("loop0/loop/offset", "0");
        let Some(of_file) = file(&path.metadata().unwrap()) else {
            return; // a file system without births
        };
        assert_eq!(facts(&machine, "7:0"), [(Fact::File, of_file.clone())]);
        machine.write("loop0/loop/offset", "512");
        let wanted = [(Fact::File, format!("{of_file} at 512"))];
        assert_eq!(facts(&machine, "7:0"), wanted);

        let other = machine.path("other.raw");
        fs::copy(&path, &other).unwrap();
        assert_ne!(file(&other.metadata().unwrap()).unwrap(), of_file);
        let renamed = machine.path("renamed.raw");
        fs::rename(&path, &renamed).unwrap();
        assert_eq!(file(&renamed.metadata().unwrap()).unwrap(), of_file);
    }

    #[test]
    fn a_text_that_says_nothing_is_no_fact() {
        for nothing in ["", "   ", "\0\0", "0000000", "-", "0000-0000"] {
            assert_eq!(clean(Some(nothing)), None, "{nothing:?}");
        }
        assert_eq!(clean(Some(" Z1\0 ")).as_deref(), Some("Z1"));
        assert_eq!(clean(Some("a\nb")).as_deref(), Some("a\\nb"));
        assert_eq!(clean(Some(&"x".repeat(500))).unwrap().len(), MAX_CHARACTERS);
    }
}
