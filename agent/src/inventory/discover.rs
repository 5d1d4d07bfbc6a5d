//! Discovery of the machine's disks.
//!
//! A disk is an entry of `/sys/block` with a device behind it. That leaves out loop, RAM, zram and device-mapper
//! entries. The system disk is the one that contains `/`, whatever layers (partition, LVM, encryption, RAID) lie
//! between.

use std::fs;
use std::path::{Path, PathBuf};

/// Entries that have a device and still are no disks: optical drives, floppies, and the boot areas of flash chips.
const NO_DISKS: [&str; 2] = ["sr", "fd"];
const NO_DISKS_WITHIN: [&str; 2] = ["boot", "rpmb"];

/// Most layers between a file system and its disk. More than a few mean a loop in `/sys`.
pub(super) const MOST_LAYERS: usize = 16;

/// Prefix of a device name that multipathd assigns.
pub(super) const MULTIPATH: &str = "mpath-";

/// The kernel's view of block devices.
#[derive(Debug)]
pub(super) struct Sysfs {
    pub(super) sys: PathBuf,
    pub(super) mountinfo: PathBuf,
    pub(super) swaps: PathBuf,
}

/// A mounted file system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mount {
    /// `major:minor` of its device.
    pub device: String,
    /// Mount point.
    pub point: PathBuf,
    /// The mounted source, such as `/dev/vda1`.
    pub source: String,
    /// True if the file system may be written, wherever it is mounted.
    pub is_writable: bool,
}

/// Selection of the layers on a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Layers {
    /// Layers that lie on this disk only.
    OfOneDisk,
    /// Layers over several disks as well.
    All,
}

impl Sysfs {
    pub fn of_this_machine() -> Self {
        Self {
            sys: PathBuf::from("/sys"),
            mountinfo: PathBuf::from("/proc/self/mountinfo"),
            swaps: PathBuf::from("/proc/swaps"),
        }
    }

    /// Returns the machine's disks, the system disk first, the others by name.
    pub fn disks(&self) -> Vec<PathBuf> {
        let mut names = self.entries(&self.sys.join("block"));
        names.retain(|name| self.is_disk(name));
        names.sort();
        let mut names = self.without_paths(names);
        if let Some(system) = self.system_disk()
            && let Some(position) = names.iter().position(|name| *name == system)
        {
            let system = names.remove(position);
            names.insert(0, system);
        }
        // In the name of a device, the kernel writes a slash as an exclamation mark.
        names
            .iter()
            .map(|name| Path::new("/dev").join(name.replace('!', "/")))
            .collect()
    }

    /// Returns `major:minor` of a block device and of everything that lies only on it: partitions, and the layers on
    /// these.
    pub fn devices_on(&self, device: &str) -> Vec<String> {
        let mut found = Vec::new();
        if let Some(entry) = self.entry_of(device) {
            self.add_with_layers(&entry, 0, Layers::OfOneDisk, &mut found);
        }
        found
    }

    /// Returns the same devices, and those that lie on this and on other devices as well: a write to any of them may
    /// reach it.
    pub fn devices_that_reach(&self, device: &str) -> Vec<String> {
        let mut found = Vec::new();
        if let Some(entry) = self.entry_of(device) {
            self.add_with_layers(&entry, 0, Layers::All, &mut found);
        }
        found
    }

    /// Returns `major:minor` of the loop devices over a file.
    pub fn loops_over(&self, file: &Path) -> Vec<String> {
        let block = self.sys.join("block");
        let entries = self.entries(&block).into_iter();
        let over = entries.filter_map(|name| {
            let entry = block.join(name);
            let backing = read(&entry.join("loop/backing_file"))?;
            (Path::new(&backing) == file).then(|| read(&entry.join("dev")))?
        });
        over.collect()
    }

    /// Returns the server's swap devices and swap files.
    pub fn swaps(&self) -> Vec<PathBuf> {
        let table = fs::read_to_string(&self.swaps).unwrap_or_default();
        let rows = table.lines().skip(1);
        rows.filter_map(|row| Some(PathBuf::from(unescaped(row.split_whitespace().next()?))))
            .collect()
    }

    /// Returns the mounted file systems.
    pub fn mounts(&self) -> Vec<Mount> {
        fs::read_to_string(&self.mountinfo)
            .unwrap_or_default()
            .lines()
            .filter_map(mount)
            .collect()
    }

    /// Returns the disks with one name each: a multipath device replaces its paths.
    fn without_paths(&self, names: Vec<String>) -> Vec<String> {
        let mut kept = Vec::new();
        for name in names {
            let entry = self.sys.join("block").join(&name);
            let name = self
                .multipath_over(&entry)
                .and_then(|over| Some(over.file_name()?.to_str()?.to_owned()))
                .unwrap_or(name);
            if !kept.contains(&name) {
                kept.push(name);
            }
        }
        kept
    }

    /// Returns the multipath device that has this disk as a path.
    pub fn multipath_over(&self, entry: &Path) -> Option<PathBuf> {
        let holders = entry.join("holders");
        self.entries(&holders)
            .into_iter()
            .filter_map(|holder| fs::canonicalize(holders.join(holder)).ok())
            .find(|holder| {
                read(&holder.join("dm/uuid")).is_some_and(|uuid| uuid.starts_with(MULTIPATH))
            })
    }

    fn is_disk(&self, name: &str) -> bool {
        let entry = self.sys.join("block").join(name);
        let has_size = read(&entry.join("size")).is_some_and(|sectors| sectors != "0");
        entry.join("device").exists()
            && has_size
            && !NO_DISKS.iter().any(|kind| name.starts_with(kind))
            && !NO_DISKS_WITHIN.iter().any(|part| name.contains(part))
    }

    fn system_disk(&self) -> Option<String> {
        let root = self
            .mounts()
            .into_iter()
            .rfind(|mount| mount.point == Path::new("/"))?;
        let mut entry = self.entry_of(&root.device).or_else(|| {
            // Some file systems (btrfs) have a device number of their own; the mounted device identifies the disk.
            let name = root.source.strip_prefix("/dev/")?.replace('/', "!");
            self.entry_named(&name)
        })?;
        for _ in 0..MOST_LAYERS {
            if read(&entry.join("dm/uuid")).is_some_and(|uuid| uuid.starts_with(MULTIPATH)) {
                return Some(entry.file_name()?.to_str()?.to_owned());
            }
            if entry.join("partition").exists() {
                entry = entry.parent()?.to_owned();
            }
            match self.entries(&entry.join("slaves")).into_iter().min() {
                Some(lower) => entry = fs::canonicalize(entry.join("slaves").join(lower)).ok()?,
                None => return Some(entry.file_name()?.to_str()?.to_owned()),
            }
        }
        None
    }

    fn add_with_layers(&self, entry: &Path, depth: usize, layers: Layers, found: &mut Vec<String>) {
        if depth > MOST_LAYERS {
            return;
        }
        found.extend(read(&entry.join("dev")));
        for holder in self.entries(&entry.join("holders")) {
            let Ok(holder) = fs::canonicalize(entry.join("holders").join(holder)) else {
                continue;
            };
            // The data of a volume over several disks can't be separated by disk.
            if layers == Layers::All || self.entries(&holder.join("slaves")).len() == 1 {
                self.add_with_layers(&holder, depth + 1, layers, found);
            }
        }
        for name in self.entries(entry) {
            let part = entry.join(name);
            if part.join("partition").exists() {
                self.add_with_layers(&part, depth + 1, layers, found);
            }
        }
    }

    /// Returns the entry of the device with this `major:minor` number.
    pub fn entry_of(&self, device: &str) -> Option<PathBuf> {
        fs::canonicalize(self.sys.join("dev/block").join(device)).ok()
    }

    fn entry_named(&self, name: &str) -> Option<PathBuf> {
        fs::canonicalize(self.sys.join("class/block").join(name)).ok()
    }

    /// Returns the names in a directory; none if it can't be read.
    pub fn entries(&self, directory: &Path) -> Vec<String> {
        fs::read_dir(directory)
            .into_iter()
            .flatten()
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .collect()
    }
}

/// Returns the text of one of the kernel's small files, trimmed.
pub(super) fn read(path: &Path) -> Option<String> {
    Some(fs::read_to_string(path).ok()?.trim().to_owned())
}

/// Parses one line of mountinfo: `36 35 98:0 /root /point options … - type source options`.
fn mount(line: &str) -> Option<Mount> {
    let (fields, filesystem) = line.split_once(" - ")?;
    let mut fields = fields.split(' ');
    let mut filesystem = filesystem.split(' ').skip(1);
    Some(Mount {
        device: fields.nth(2)?.to_owned(),
        point: PathBuf::from(unescaped(fields.nth(1)?)),
        source: unescaped(filesystem.next()?),
        is_writable: filesystem.next()?.split(',').any(|option| option == "rw"),
    })
}

/// Decodes blanks and backslashes, which the kernel writes in octal.
fn unescaped(text: &str) -> String {
    text.replace("\\040", " ")
        .replace("\\011", "\t")
        .replace("\\012", "\n")
        .replace("\\134", "\\")
}

#[cfg(test)]
mod tests {
    use super::super::testing::Machine;
    use super::*;

    #[test]
    fn loop_devices_are_known_by_their_file_and_swaps_by_their_table() {
        let machine = Machine::new("");
        let file = machine.path("disk");
        assert_eq!(machine.sysfs.loops_over(&file), Vec::<String>::new());
        let entry = machine.path("sys/devices/loop0/loop");
        fs::create_dir(&entry).unwrap();
        fs::write(entry.join("backing_file"), format!("{}\n", file.display())).unwrap();
        assert_eq!(machine.sysfs.loops_over(&file), ["7:0"]);
        assert_eq!(
            machine.sysfs.loops_over(&machine.path("other")),
            Vec::<String>::new()
        );
        let table = "Filename\tType\tSize\tUsed\tPriority\n/dev/dm-0 partition 1 0 -2\n/swap\\040file file 1 0 -3\n";
        fs::write(&machine.sysfs.swaps, table).unwrap();
        assert_eq!(machine.sysfs.swaps(), paths(&["/dev/dm-0", "/swap file"]));
    }

    fn paths(names: &[&str]) -> Vec<PathBuf> {
        names.iter().map(PathBuf::from).collect()
    }

    #[test]
    fn the_disk_under_the_root_file_system_comes_first() {
        let machine = Machine::new("1 0 253:0 / / rw - ext4 /dev/mapper/root rw\n");
        assert_eq!(machine.sysfs.disks(), paths(&["/dev/vda", "/dev/sdb"]));
        let machine = Machine::new("1 0 8:16 / / rw - ext4 /dev/sdb rw\n");
        assert_eq!(machine.sysfs.disks(), paths(&["/dev/sdb", "/dev/vda"]));
        // btrfs: the number belongs to no device.
        let machine = Machine::new("1 0 0:30 /@ / rw - btrfs /dev/vda1 rw\n");
        assert_eq!(machine.sysfs.disks(), paths(&["/dev/vda", "/dev/sdb"]));
    }

    #[test]
    fn without_a_root_on_a_disk_the_names_decide() {
        let machine = Machine::new("1 0 0:30 / / rw - overlay overlay rw\n");
        assert_eq!(machine.sysfs.disks(), paths(&["/dev/sdb", "/dev/vda"]));
    }

    #[test]
    fn a_disk_with_several_paths_is_one_disk() {
        let machine = Machine::new("1 0 253:1 / / rw - ext4 /dev/mapper/mpatha rw\n");
        machine.device("sda", "8:0", true);
        machine.multipath("dm-1", "253:1", &["sda", "sdb"]);
        assert_eq!(machine.sysfs.disks(), paths(&["/dev/dm-1", "/dev/vda"]));
    }

    #[test]
    fn partitions_and_volumes_lie_on_their_disk() {
        let machine = Machine::new("");
        let mut found = machine.sysfs.devices_on("252:0");
        found.sort();
        assert_eq!(found, ["252:0", "252:1", "252:2", "253:0"]);
        machine.layer("sdb", "dm-0");
        let mut found = machine.sysfs.devices_on("252:0");
        found.sort();
        assert_eq!(
            found,
            ["252:0", "252:1", "252:2"],
            "a volume over two disks"
        );
        let mut found = machine.sysfs.devices_that_reach("8:16");
        found.sort();
        assert_eq!(found, ["253:0", "8:16"]);
    }

    #[test]
    fn mount_points_with_blanks_are_read() {
        let line = "36 35 8:17 / /mnt/a\\040b rw,noatime shared:1 - ext4 /dev/sdb1 rw";
        assert_eq!(
            mount(line),
            Some(Mount {
                device: "8:17".to_owned(),
                point: PathBuf::from("/mnt/a b"),
                source: "/dev/sdb1".to_owned(),
                is_writable: true,
            })
        );
        let read_only = "36 35 8:17 / /mnt rw - ext4 /dev/sdb1 ro,errors=rw";
        assert!(!mount(read_only).unwrap().is_writable);
        let bound = "36 35 8:17 / /mnt ro - ext4 /dev/sdb1 rw,discard";
        assert!(mount(bound).unwrap().is_writable);
        assert_eq!(mount("nonsense"), None);
    }
}
