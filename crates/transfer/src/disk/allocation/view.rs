//! Whether somebody else may write to a disk.

use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::time::{Duration, SystemTime};

use rustix::fs::OFlags;

use super::{Tool, Tools, Unknown};

const BLOCKDEV: Tool = ("blockdev", "util-linux");

/// The times of files are kept in ticks, and on some file systems in seconds: two writes in one tick leave the same time. A file that was last written
/// longer ago than this shows any further write.
const TICK: Duration = Duration::from_millis(1100);

/// That nobody else writes to a disk.
#[derive(Debug)]
pub(super) enum View {
    /// A block device that nobody holds.
    Device,
    /// A file that has not been written since.
    File(Stamp),
}

/// What changes when a file is written.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    device: u64,
    inode: u64,
    size_bytes: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl View {
    /// Makes sure of it.
    pub(super) fn of(tools: &Tools, disk: &Path) -> Result<Self, Unknown> {
        let unreadable = |error: io::Error| Unknown::Unreadable(error.to_string());
        let kind = disk.metadata().map_err(unreadable)?.file_type();
        if kind.is_block_device() {
            claim(disk)?;
            // The tools read through the page cache, which knows nothing of what was written to a partition, or past it.
            tools.lines(
                BLOCKDEV,
                &["--flushbufs".as_ref(), disk.as_os_str()],
                |_| {},
            )?;
            return Ok(Self::Device);
        }
        let stamp = Stamp::settled(disk).map_err(unreadable)?;
        stamp.map(Self::File).ok_or(Unknown::Written)
    }
}

/// Opens the device exclusively and lets go of it at once. While one is open so, mounting it fails: holding it for the length of a copy would take the
/// disk away from the server that we are a guest of.
fn claim(disk: &Path) -> Result<(), Unknown> {
    let opened = File::options()
        .read(true)
        .custom_flags(OFlags::EXCL.bits() as i32)
        .open(disk);
    match opened {
        Ok(_) => Ok(()),
        Err(error) if error.raw_os_error() == Some(rustix::io::Errno::BUSY.raw_os_error()) => {
            Err(Unknown::InUse)
        }
        Err(error) => Err(Unknown::Unreadable(error.to_string())),
    }
}

impl Stamp {
    /// The stamp of a file, once it is old enough to show a further write; `None` if it keeps changing.
    fn settled(disk: &Path) -> io::Result<Option<Self>> {
        let file = File::open(disk)?;
        // Pages that are mapped and dirty may be written again without a trace; clean ones may not.
        file.sync_all()?;
        let metadata = file.metadata()?;
        let before = Self::of(&metadata);
        let age = SystemTime::now().duration_since(metadata.modified()?);
        if age.is_ok_and(|age| age >= TICK) {
            return Ok(Some(before));
        }
        std::thread::sleep(TICK);
        Ok(before.is_of(disk).then_some(before))
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

    /// Whether the file has not been written since.
    pub(super) fn is_of(&self, disk: &Path) -> bool {
        // Opened, not only looked at: that asks a server of files for news.
        let now = File::open(disk).and_then(|file| file.metadata());
        now.is_ok_and(|now| Self::of(&now) == *self)
    }
}
