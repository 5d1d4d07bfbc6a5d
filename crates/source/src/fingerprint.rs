//! The kernel's evidence whether a source was written.
//!
//! A file has its times. A block device has counters: how much was written to it and trimmed since it appeared. Both
//! grow with whatever reaches the disk through this kernel, also by way of a volume or an array that is made of it.
//! Writes that reach it in another way do not show: another machine that shares it, another path, a raw command of
//! its bus. A device that is one of many paths is therefore not asked.

use std::fs::{File, read_dir, read_to_string};
use std::os::unix::fs::{FileExt as _, FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use chunks::ContentFingerprint;
use chunks::buffer::AlignedBuffer;
use rustix::fs::{major, minor};

use super::stamp::Stamp;
use crate::Observed;

/// Pause and number of the samples with a write under way, after which the device counts as being written.
const WRITE_LASTS: Duration = Duration::from_millis(10);
const SAMPLES: usize = 10;

/// Looks at a file or block device. `direct` reads past the cache.
pub(super) fn observe(file: &File, direct: Option<&File>, sector_bytes: usize) -> Observed {
    let seen = match file.metadata() {
        Ok(metadata) if metadata.file_type().is_block_device() => {
            observe_device(file, metadata.rdev(), direct, sector_bytes)
        }
        Ok(_) => Stamp::of_still(file).ok().map(|stamp| {
            stamp.map_or(Observed::BeingWritten, |stamp| {
                Observed::Still(digest("file", "", &stamp.words()))
            })
        }),
        Err(_) => None,
    };
    seen.unwrap_or(Observed::Unknown)
}

/// `None` where the kernel can't prove that nothing is written.
fn observe_device(
    file: &File,
    rdev: u64,
    direct: Option<&File>,
    sector_bytes: usize,
) -> Option<Observed> {
    let place = format!("/sys/dev/block/{}:{}", major(rdev), minor(rdev));
    let device = Device::at(Path::new(&place).canonicalize().ok()?)?;
    // What waits in the cache is written, and so counted.
    file.sync_all().ok()?;
    if !device.is_at_rest()? {
        return Some(Observed::BeingWritten);
    }
    let before = device.counters()?;
    direct?
        .read_exact_at(
            &mut AlignedBuffer::new(sector_bytes).as_mut_slice()[..sector_bytes],
            0,
        )
        .ok()?;
    let counters = device.counters()?;
    // Some drivers don't count, and counting can be turned off: what does not count a read counts no writes.
    if counters.sectors_read <= before.sectors_read {
        return None;
    }
    let boot = read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    let words = [
        rdev,
        device.sequence,
        counters.sectors_written,
        counters.sectors_trimmed,
    ];
    Some(Observed::Still(digest("device", &boot, &words)))
}

fn digest(kind: &str, boot: &str, words: &[u64]) -> ContentFingerprint {
    let mut hasher = blake3::Hasher::new();
    hasher.update(kind.as_bytes()).update(boot.as_bytes());
    for word in words {
        hasher.update(&word.to_le_bytes());
    }
    ContentFingerprint(hasher.finalize().into())
}

/// A whole block device, as `/sys` shows it.
struct Device {
    sys: PathBuf,
    sequence: u64,
}

/// The counters of its `stat`.
#[derive(Debug, PartialEq, Eq)]
struct Counters {
    sectors_read: u64,
    /// Not requests: a flush is one.
    sectors_written: u64,
    sectors_trimmed: u64,
}

impl Device {
    /// The device that has this place in `/sys`, or the one whose partition has it: what is written to the one may lie
    /// in the other.
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
        (!device.is_a_path()?).then_some(device)
    }

    /// Returns true if this is one of several paths to a disk. A write by another path is not counted here.
    fn is_a_path(&self) -> Option<bool> {
        let mut parts = vec![self.sys.clone()];
        for entry in read_dir(&self.sys).ok()? {
            let part = entry.ok()?.path();
            if part.join("partition").exists() {
                parts.push(part);
            }
        }
        for part in parts {
            for holder in read_dir(part.join("holders")).ok()? {
                // Other holders are no device mapper's and have no such file.
                let uuid = read_to_string(holder.ok()?.path().join("dm/uuid"));
                if uuid.is_ok_and(|uuid| uuid.starts_with("mpath-")) {
                    return Some(true);
                }
            }
        }
        Some(false)
    }

    /// Waits for a moment in which nothing is being written: a write may be on the disk already, and is counted when it
    /// ends.
    fn is_at_rest(&self) -> Option<bool> {
        for _ in 0..SAMPLES {
            let in_flight = numbers(&read_to_string(self.sys.join("inflight")).ok()?)?;
            if *in_flight.get(1)? == 0 {
                return Some(true);
            }
            std::thread::sleep(WRITE_LASTS);
        }
        Some(false)
    }

    fn counters(&self) -> Option<Counters> {
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
    use std::sync::mpsc::RecvTimeoutError;

    use crate::testing::{LoopDevice, is_root, sh};
    use domain::disk::Moment;

    use super::*;
    use crate::{FileSource, Source as _};

    fn observed(path: &Path) -> Observed {
        FileSource::open(path).unwrap().observe()
    }

    fn fingerprint(path: &Path) -> Option<ContentFingerprint> {
        observed(path).fingerprint()
    }

    #[test]
    fn a_file_is_another_version_once_it_is_written() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("disk");
        std::fs::write(&path, [7; 10_000]).unwrap();
        let first = fingerprint(&path);
        assert!(first.is_some(), "it was waited for the end of the tick");
        let mut bytes = [0; 4096];
        FileSource::open(&path)
            .unwrap()
            .read(0, &mut bytes)
            .unwrap();
        assert_eq!(fingerprint(&path), first, "it was only read");
        File::options()
            .write(true)
            .open(&path)
            .unwrap()
            .write_all_at(&[7], 0)
            .unwrap();
        let second = fingerprint(&path);
        assert!(
            second.is_some() && second != first,
            "what was written need not differ"
        );
    }

    #[test]
    fn a_file_that_keeps_being_written_is_never_still() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("disk");
        let file = File::create_new(&path).unwrap();
        let (stop, stopped) = std::sync::mpsc::sync_channel::<()>(0);
        let pause = Duration::from_millis(1);
        let writer = std::thread::spawn(move || {
            while stopped
                .recv_timeout(pause)
                .is_err_and(|error| error == RecvTimeoutError::Timeout)
            {
                file.write_all_at(&[7; 100], 0).unwrap();
            }
        });
        while path.metadata().unwrap().len() == 0 {
            std::thread::yield_now();
        }
        let seen = observed(&path);
        drop(stop);
        writer.join().unwrap();
        assert_eq!(seen, Observed::BeingWritten);
        let still = observed(&path);
        assert_eq!(seen.until(still), Moment::Several);
        assert_eq!(still.until(observed(&path)), Moment::One);
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
        let first = fingerprint(path);
        assert!(first.is_some(), "{}", path.display());
        let mut bytes = [0; 4096];
        FileSource::open(path)
            .unwrap()
            .read(8192, &mut bytes)
            .unwrap();
        assert_eq!(fingerprint(path), first, "it was only read");
        let written = File::options().write(true).open(path).unwrap();
        written.write_all_at(&[7; 4096], 1 << 20).unwrap();
        let second = fingerprint(path);
        assert!(
            second.is_some() && second != first,
            "a write in the cache counts"
        );
        sh(&format!(
            "blkdiscard --offset 1MiB --length 1MiB {}",
            path.display()
        ));
        let third = fingerprint(path);
        assert!(third.is_some() && third != second, "a trim counts");
        // Another device, perhaps of the same name, with a disk that was never written.
        drop((written, disk));
        let other = device(&directory.path().join("other"));
        assert_ne!(fingerprint(other.path()), first);
    }

    #[test]
    fn a_device_that_is_mounted_is_one_moment_until_a_file_is_written() {
        if !is_root() {
            return;
        }
        let directory = tempfile::tempdir().unwrap();
        let disk = device(&directory.path().join("disk"));
        let (path, point) = (disk.path(), directory.path().join("mnt"));
        let point = point.display();
        sh(&format!(
            "mkfs.ext4 -q -E lazy_itable_init=0,lazy_journal_init=0 {path} && mkdir {point} && mount {path} {point} && sync -f {point}",
            path = path.display()
        ));
        struct Mounted(String);
        impl Drop for Mounted {
            fn drop(&mut self) {
                sh(&format!("umount {}", self.0));
            }
        }
        let mounted = Mounted(point.to_string());
        let first = observed(path);
        assert_eq!(first.until(observed(path)), Moment::One);
        sh(&format!("echo a > {point}/file && sync -f {point}"));
        assert_eq!(first.until(observed(path)), Moment::Several);
        drop(mounted);
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
    fn a_partition_is_counted_by_its_disk_and_is_not_at_rest_while_something_is_written() {
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
        assert_eq!(device.is_at_rest(), Some(true));
        std::fs::write(disk.join("inflight"), "0 1\n").unwrap();
        assert_eq!(device.is_at_rest(), Some(false));
    }

    #[test]
    fn a_disk_that_is_one_of_several_paths_is_not_asked_and_one_with_volumes_is() {
        for (held, uuid, is_asked) in [
            ("holders/dm-0", "mpath-3600\n", false),
            ("sda1/holders/dm-0", "mpath-3600\n", false),
            ("holders/dm-0", "LVM-abc\n", true),
            ("sda1/holders/dm-0", "CRYPT-LUKS2-abc\n", true),
        ] {
            let directory = tempfile::tempdir().unwrap();
            let disk = tree(directory.path());
            assert!(Device::at(disk.clone()).is_some());
            let holder = disk.join(held).join("dm");
            std::fs::create_dir_all(&holder).unwrap();
            std::fs::write(holder.join("uuid"), uuid).unwrap();
            assert_eq!(Device::at(disk).is_some(), is_asked, "{held}: {uuid}");
        }
        let directory = tempfile::tempdir().unwrap();
        let disk = tree(directory.path());
        std::fs::create_dir(disk.join("sda1/holders/md0")).unwrap();
        assert!(
            Device::at(disk).is_some(),
            "an array of which it is a member"
        );
    }
}
