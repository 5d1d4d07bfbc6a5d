//! Room on file systems: what receivers leave to others (Postgres may share one, and can't even delete without room),
//! and what they take.

use std::collections::HashSet;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::{fs, io};

/// The part of a file system that stays free.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Reserve {
    /// A twentieth, at least 10 GiB, but at most a quarter.
    #[default]
    Share,
    /// So many bytes.
    Bytes(u64),
}

/// The least that [`Reserve::Share`] leaves of a large file system.
const LEAST_BYTES: u64 = 10 << 30;

impl Reserve {
    /// So many MiB, or the share where none are given.
    pub fn of_mib(mib: Option<u64>) -> Self {
        mib.map_or(Self::Share, |mib| Self::Bytes(mib << 20))
    }

    /// Bytes that stay free of a file system of this size.
    pub fn bytes(self, size_bytes: u64) -> u64 {
        match self {
            Self::Share => (size_bytes / 20).max(LEAST_BYTES).min(size_bytes / 4),
            Self::Bytes(bytes) => bytes,
        }
    }

    /// The room on the file system that holds `path`.
    ///
    /// # Errors
    /// Those of the operating system.
    pub fn room(self, path: &Path) -> io::Result<Room> {
        let found = rustix::fs::statvfs(path)?;
        Ok(Room {
            free_bytes: found.f_bavail * found.f_frsize,
            reserved_bytes: self.bytes(found.f_blocks * found.f_frsize),
        })
    }
}

/// Room on a file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// Bytes that are free.
    pub free_bytes: u64,
    /// Bytes of them that are to stay free.
    pub reserved_bytes: u64,
}

impl Room {
    /// Bytes that may still be written.
    pub fn usable_bytes(self) -> u64 {
        self.free_bytes.saturating_sub(self.reserved_bytes)
    }

    /// Returns true when some of the reserve is taken.
    pub fn is_used_up(self) -> bool {
        self.free_bytes < self.reserved_bytes
    }
}

/// Bytes that the files of these directories take, each file once. What can't be read counts as nothing.
pub fn stored_bytes(directories: &[&Path]) -> u64 {
    let mut seen = HashSet::new();
    directories
        .iter()
        .flat_map(|directory| fs::read_dir(directory).into_iter().flatten())
        .filter_map(|entry| entry.ok()?.metadata().ok())
        .filter(|file| file.is_file() && seen.insert((file.dev(), file.ino())))
        .map(|file| file.blocks() * 512)
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_a_twentieth_at_least_ten_gib_and_at_most_a_quarter() {
        const GIB: u64 = 1 << 30;
        for (size, reserved) in [
            (1000 * GIB, 50 * GIB),
            (200 * GIB, 10 * GIB),
            (100 * GIB, 10 * GIB),
            (20 * GIB, 5 * GIB),
            (0, 0),
        ] {
            assert_eq!(Reserve::Share.bytes(size), reserved, "{size}");
        }
        assert_eq!(Reserve::of_mib(Some(3)).bytes(0), 3 << 20);
        assert_eq!(Reserve::of_mib(None), Reserve::Share);
    }

    #[test]
    fn stored_bytes_are_blocks_and_each_file_counts_once() {
        let directory = tempfile::tempdir().unwrap();
        let [one, two] = ["one", "two"].map(|name| directory.path().join(name));
        assert_eq!(stored_bytes(&[&one, &two]), 0);
        for path in [&one, &two] {
            fs::create_dir(path).unwrap();
        }
        let disk = one.join("disk");
        fs::write(&disk, vec![1; 1 << 20]).unwrap();
        fs::File::open(&disk).unwrap().sync_all().unwrap();
        let whole = stored_bytes(&[&one]);
        assert!(whole >= 1 << 20, "{whole}");
        fs::hard_link(&disk, two.join("disk")).unwrap();
        fs::File::create(two.join("sparse"))
            .unwrap()
            .set_len(1 << 30)
            .unwrap();
        assert_eq!(stored_bytes(&[&one, &two]), whole);
    }
}
