//! A view of a disk to which nobody else writes.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _};
use std::path::Path;

use rustix::fs::OFlags;

use super::{INPUT, OpenDisk, Tool, Tools, Unknown};
use crate::stamp::Stamp;

const BLOCKDEV: Tool = Tool::reader("blockdev", "util-linux");

/// Evidence that nobody else writes to a disk.
#[derive(Debug)]
pub(super) enum View {
    /// A block device that nobody holds.
    Device,
    /// A file that has not been written since.
    File(Stamp),
}

impl View {
    /// Makes sure of it.
    pub(super) fn of(tools: &Tools, disk: &OpenDisk) -> Result<Self, Unknown> {
        let unreadable = |error: io::Error| Unknown::Unreadable(error.to_string());
        let kind = disk.file().metadata().map_err(unreadable)?.file_type();
        if kind.is_block_device() {
            claim(disk.path())?;
            // The tools read through the page cache, which knows nothing of what was written to a partition, or past
            // it.
            tools.lines(BLOCKDEV, disk, &["--flushbufs", INPUT], |_| {})?;
            return Ok(Self::Device);
        }
        let stamp = Stamp::once_settled(disk.path()).map_err(unreadable)?;
        stamp.map(Self::File).ok_or(Unknown::Written)
    }
}

/// Opens the device exclusively and lets go of it at once. While one is open so, mounting it fails: holding it for the
/// length of a copy would take the disk away from the server that we are a guest of.
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
