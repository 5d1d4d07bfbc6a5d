//! Whether a source was written, as the kernel tells it.
//!
//! A file has its times. A block device has counters: how much was written to it and trimmed since it appeared. Both grow with whatever
//! reaches the disk through this kernel. What reaches it in another way does not show: another machine that shares it, another path to it, a raw
//! command of its bus. A device on which something else is stacked is not asked, since its paths may be many.

use std::fs::{File, read_dir, read_to_string};
use std::os::unix::fs::{FileExt as _, FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{major, minor};

use super::AlignedBuffer;
use super::stamp::Stamp;
use crate::fresh::Version;

/// The version of a file or block device; `None` where the kernel can't prove that nothing is written. `direct` reads past the cache.
pub(super) fn of(file: &File, direct: Option<&File>, sector_bytes: usize) -> Option<Version> {
    let metadata = file.metadata().ok()?;
    if !metadata.file_type().is_block_device() {
        let stamp = Stamp::settled(file).ok()??;
        return Some(digest("file", "", &stamp.words()));
    }
    let rdev = metadata.rdev();
    let place = format!("/sys/dev/block/{}:{}", major(rdev), minor(rdev));
    let device = Device::at(Path::new(&place).canonicalize().ok()?)?;
    // What waits in the cache is written, and so counted.
    file.sync_all().ok()?;
    let before = device.counters()?;
    direct?
        .read_exact_at(
            &mut AlignedBuffer::new(sector_bytes).as_mut_slice()[..sector_bytes],
            0,
        )
        .ok()?;
    let counters = device.counters()?;
    // Some drivers don't count, and counting can be turned off: what does not count a read counts no writes.
    let counts = counters.sectors_read > before.sectors_read;
    let boot = read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    let words = [
        rdev,
        device.sequence,
        counters.sectors_written,
        counters.sectors_trimmed,
    ];
    counts.then(|| digest("device", &boot, &words))
}

fn digest(kind: &str, boot: &str, words: &[u64]) -> Version {
    let mut hasher = blake3::Hasher::new();
    hasher.update(kind.as_bytes()).update(boot.as_bytes());
    for word in words {
        hasher.update(&word.to_le_bytes());
    }
    Version(hasher.finalize().into())
}

/// A whole block device, as `/sys` shows it.
struct Device {
    sys: PathBuf,
    sequence: u64,
}

/// What its `stat` counts.
#[derive(Debug, PartialEq, Eq)]
struct Counters {
    sectors_read: u64,
    /// Not requests: a flush is one.
    sectors_written: u64,
    sectors_trimmed: u64,
}

impl Device {
    /// The device that has this place in `/sys`, or the one whose partition has it: what is written to the one may lie in the other.
    fn at(place: PathBuf) -> Option<Self> {
        let sys = if place.join("partition").exists() {
            place.parent()?.to_owned()
        } else {
            place
        };
        let sequence = read_to_string(sys.join("diskseq")).ok()?;
        let device = Self {
            sequence: sequence.trim().parse().ok()?,
            sys,
        };
        (!device.is_held()?).then_some(device)
    }

    /// Whether another device is made of this one or of its partitions.
    fn is_held(&self) -> Option<bool> {
        let mut parts = vec![self.sys.clone()];
        for entry in read_dir(&self.sys).ok()? {
            let part = entry.ok()?.path();
            if part.join("partition").exists() {
                parts.push(part);
            }
        }
        for part in parts {
            if read_dir(part.join("holders")).ok()?.next().is_some() {
                return Some(true);
            }
        }
        Some(false)
    }

    /// `None` while something is being written: it may be on the disk already, and is counted when it ends.
    fn counters(&self) -> Option<Counters> {
        let in_flight = numbers(&read_to_string(self.sys.join("inflight")).ok()?)?;
        if *in_flight.get(1)? > 0 {
            return None;
        }
        // Documentation/block/stat.rst of the kernel.
        let stat = numbers(&read_to_string(self.sys.join("stat")).ok()?)?;
        let field = |number: usize| stat.get(number).copied();
        Some(Counters {
            sectors_read: field(2)?,
            sectors_written: field(6)?,
            sectors_trimmed: field(13).unwrap_or(0),
        })
    }
}

fn numbers(text: &str) -> Option<Vec<u64>> {
    text.split_whitespace()
        .map(|word| word.parse().ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::testing::{LoopDevice, is_root, sh};
    use super::*;
    use crate::disk::{FileSource, Source as _};

    fn version(path: &Path) -> Option<Version> {
        FileSource::open(path).unwrap().version()
    }

    #[test]
    fn a_file_is_another_version_once_it_is_written() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("disk");
        std::fs::write(&path, [7; 10_000]).unwrap();
        assert_eq!(
            version(&path),
            None,
            "a second write could leave the same times"
        );
        std::thread::sleep(Duration::from_millis(1200));
        let first = version(&path);
        assert!(first.is_some());
        let mut bytes = [0; 4096];
        FileSource::open(&path)
            .unwrap()
            .read(0, &mut bytes)
            .unwrap();
        assert_eq!(version(&path), first, "it was only read");
        File::options()
            .write(true)
            .open(&path)
            .unwrap()
            .write_all_at(&[7], 0)
            .unwrap();
        assert_ne!(version(&path), first, "what was written need not differ");
        std::thread::sleep(Duration::from_millis(1200));
        let second = version(&path);
        assert!(second.is_some() && second != first);
    }

    fn device(file: &Path) -> LoopDevice {
        File::create_new(file).unwrap().set_len(32 << 20).unwrap();
        LoopDevice::over(file)
    }

    #[test]
    fn a_device_is_another_version_once_it_is_written_or_trimmed() {
        if !is_root() {
            return;
        }
        let directory = tempfile::tempdir().unwrap();
        let disk = device(&directory.path().join("disk"));
        let path = disk.path();
        let first = version(path);
        assert!(first.is_some(), "{}", path.display());
        let mut bytes = [0; 4096];
        FileSource::open(path)
            .unwrap()
            .read(8192, &mut bytes)
            .unwrap();
        assert_eq!(version(path), first, "it was only read");
        let written = File::options().write(true).open(path).unwrap();
        written.write_all_at(&[7; 4096], 1 << 20).unwrap();
        let second = version(path);
        assert!(
            second.is_some() && second != first,
            "a write in the cache counts"
        );
        sh(&format!(
            "blkdiscard --offset 1MiB --length 1MiB {}",
            path.display()
        ));
        let third = version(path);
        assert!(third.is_some() && third != second, "a trim counts");
        // Another device, perhaps of the same name, with a disk that was never written.
        drop((written, disk));
        let other = device(&directory.path().join("other"));
        assert_ne!(version(other.path()), first);
    }

    /// A tree like that of a disk with one partition in `/sys`.
    fn tree(directory: &Path) -> PathBuf {
        let disk = directory.join("sda");
        for folder in ["holders", "sda1/holders"] {
            std::fs::create_dir_all(disk.join(folder)).unwrap();
        }
        for (file, text) in [
            ("diskseq", "9\n"),
            ("inflight", "       1        0\n"),
            ("stat", "10 0 80 5 7 0 56 3 0 4 8 2 0 24 1 6 9\n"),
            ("sda1/partition", "1\n"),
        ] {
            std::fs::write(disk.join(file), text).unwrap();
        }
        disk
    }

    #[test]
    fn a_partition_is_counted_by_its_disk_and_not_while_something_is_written() {
        let directory = tempfile::tempdir().unwrap();
        let disk = tree(directory.path());
        let device = Device::at(disk.join("sda1")).unwrap();
        assert_eq!((&device.sys, device.sequence), (&disk, 9));
        let counters = Counters {
            sectors_read: 80,
            sectors_written: 56,
            sectors_trimmed: 24,
        };
        assert_eq!(device.counters(), Some(counters));
        std::fs::write(disk.join("inflight"), "0 1\n").unwrap();
        assert_eq!(device.counters(), None);
    }

    #[test]
    fn a_disk_of_which_another_device_is_made_is_not_asked() {
        for held in ["holders/dm-0", "sda1/holders/md0"] {
            let directory = tempfile::tempdir().unwrap();
            let disk = tree(directory.path());
            assert!(Device::at(disk.clone()).is_some());
            std::fs::create_dir(disk.join(held)).unwrap();
            assert!(Device::at(disk).is_none(), "{held}");
        }
    }
}
