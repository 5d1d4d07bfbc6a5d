//! What the times of a file tell.

use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::{Duration, SystemTime};

/// The times of files are kept in ticks, and on some file systems in seconds: two writes in one tick leave the same time. A file that was last written
/// longer ago than this shows any further write.
const TICK: Duration = Duration::from_millis(1100);

/// What changes when a file is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Stamp {
    device: u64,
    inode: u64,
    size_bytes: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    /// The stamp of a file that shows any further write; `None` if it was written too short a time ago.
    pub(super) fn settled(file: &File) -> io::Result<Option<Self>> {
        // Pages that are mapped and dirty may be written again without a trace; clean ones may not.
        file.sync_all()?;
        let metadata = file.metadata()?;
        let age = SystemTime::now().duration_since(metadata.modified()?);
        Ok(age
            .is_ok_and(|age| age >= TICK)
            .then(|| Self::of(&metadata)))
    }

    /// The same of a file that may have been written a moment ago; `None` if it keeps changing.
    pub(super) fn once_settled(path: &Path) -> io::Result<Option<Self>> {
        let file = File::open(path)?;
        if let Some(settled) = Self::settled(&file)? {
            return Ok(Some(settled));
        }
        let before = Self::of(&file.metadata()?);
        std::thread::sleep(TICK);
        Ok(before.is_of(path).then_some(before))
    }

    /// Whether the file has not been written since.
    pub(super) fn is_of(&self, path: &Path) -> bool {
        // Opened, not only looked at: that asks a server of files for news.
        let now = File::open(path).and_then(|file| file.metadata());
        now.is_ok_and(|now| Self::of(&now) == *self)
    }

    /// All of it, for a digest.
    pub(super) fn words(&self) -> [u64; 7] {
        let ((modified, modified_nsec), (changed, changed_nsec)) = (self.modified, self.changed);
        [
            self.device,
            self.inode,
            self.size_bytes,
            modified.cast_unsigned(),
            modified_nsec.cast_unsigned(),
            changed.cast_unsigned(),
            changed_nsec.cast_unsigned(),
        ]
    }

    fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size_bytes: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}
