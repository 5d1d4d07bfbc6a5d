//! A machine's `/sys` for tests.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use tempfile::TempDir;

use super::discover::Sysfs;

/// A machine with a system disk `vda` (root on LVM on its second partition), a data disk `sdb`, an optical drive and a
/// loop device.
pub(super) struct Machine {
    pub directory: TempDir,
    pub sysfs: Sysfs,
}

impl Machine {
    pub fn new(mountinfo: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let sysfs = Sysfs {
            sys: directory.path().join("sys"),
            mountinfo: directory.path().join("mountinfo"),
            swaps: directory.path().join("swaps"),
        };
        fs::write(&sysfs.mountinfo, mountinfo).unwrap();
        for kind in ["sys/block", "sys/dev/block", "sys/class/block"] {
            fs::create_dir_all(directory.path().join(kind)).unwrap();
        }
        let machine = Self { directory, sysfs };
        machine.device("sdb", "8:16", true);
        machine.device("sr0", "11:0", true);
        machine.device("loop0", "7:0", false);
        machine.device("dm-0", "253:0", false);
        machine.device("vda", "252:0", true);
        machine.partition("vda", "vda1", "252:1");
        machine.partition("vda", "vda2", "252:2");
        machine.layer("vda/vda2", "dm-0");
        machine
    }

    pub fn path(&self, path: &str) -> PathBuf {
        self.directory.path().join(path)
    }

    pub fn device(&self, name: &str, number: &str, has_device: bool) {
        let entry = format!("sys/devices/{name}");
        self.entry(&entry, number);
        symlink(self.path(&entry), self.path(&format!("sys/block/{name}"))).unwrap();
        if has_device {
            fs::create_dir(self.path(&entry).join("device")).unwrap();
        }
    }

    pub fn partition(&self, disk: &str, name: &str, number: &str) {
        let entry = format!("sys/devices/{disk}/{name}");
        self.entry(&entry, number);
        fs::write(self.path(&entry).join("partition"), "1\n").unwrap();
    }

    fn entry(&self, entry: &str, number: &str) {
        for part in ["holders", "slaves"] {
            fs::create_dir_all(self.path(entry).join(part)).unwrap();
        }
        fs::write(self.path(entry).join("size"), "2048\n").unwrap();
        fs::write(self.path(entry).join("dev"), format!("{number}\n")).unwrap();
        let name = entry.rsplit('/').next().unwrap();
        symlink(
            self.path(entry),
            self.path(&format!("sys/dev/block/{number}")),
        )
        .unwrap();
        symlink(
            self.path(entry),
            self.path(&format!("sys/class/block/{name}")),
        )
        .unwrap();
    }

    pub fn layer(&self, lower: &str, upper: &str) {
        let lower_name = lower.rsplit('/').next().unwrap();
        let (lower, upper_path) = (
            self.path(&format!("sys/devices/{lower}")),
            self.path(&format!("sys/devices/{upper}")),
        );
        symlink(&upper_path, lower.join("holders").join(upper)).unwrap();
        symlink(&lower, upper_path.join("slaves").join(lower_name)).unwrap();
    }

    /// Adds a multipath device over existing disks.
    pub fn multipath(&self, name: &str, number: &str, paths: &[&str]) {
        self.device(name, number, false);
        self.write(&format!("{name}/dm/uuid"), "mpath-36000c29");
        for path in paths {
            self.layer(path, name);
        }
    }

    /// Writes one of the small files of a device.
    pub fn write(&self, file: &str, text: &str) {
        let path = self.path(&format!("sys/devices/{file}"));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, format!("{text}\n")).unwrap();
    }
}
