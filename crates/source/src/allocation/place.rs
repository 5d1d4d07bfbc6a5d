//! A part of a disk that may hold a file system, and what that file system does not use.

use std::path::PathBuf;

use chunks::ByteRange;

use super::reading::{self, Kind};
use super::{FileSystem, INPUT, OpenDisk, Tool, Tools, Unknown, btrfs, ext, xfs};

const LOSETUP: Tool = Tool::device_maker("losetup", "mount");

/// A file system must fill this part of its place, as one of so many: one that fills less may be what an earlier life
/// of the disk has left.
const LEAST_PART: u64 = 2;

/// A partition, or a disk without partitions.
#[derive(Debug)]
pub(super) struct Place<'a> {
    pub(super) disk: &'a OpenDisk,
    pub(super) offset_bytes: u64,
    pub(super) size_bytes: u64,
}

impl Place<'_> {
    /// The ranges of the disk that the file system here does not use.
    pub(super) fn free(&self, tools: &Tools) -> Result<Vec<ByteRange>, Unknown> {
        let kind = reading::file_system(tools, self)?;
        let FileSystem { size_bytes, free } = self.inspect(tools, kind)?;
        let fits = size_bytes <= self.size_bytes && size_bytes >= self.size_bytes / LEAST_PART;
        if !fits {
            return Err(Unknown::Unfit {
                file_system: size_bytes,
                place: self.size_bytes,
            });
        }
        if free.last().is_some_and(|last| last.end > size_bytes) {
            return Err(Unknown::Output(kind.as_str()));
        }
        let on_disk = |range: ByteRange| ByteRange {
            start: self.offset_bytes + range.start,
            end: self.offset_bytes + range.end,
        };
        Ok(free.into_iter().map(on_disk).collect())
    }

    fn inspect(&self, tools: &Tools, kind: Kind) -> Result<FileSystem, Unknown> {
        match kind {
            Kind::Ext => ext::inspect(tools, self.disk, self.offset_bytes),
            // Its tools know no offset, and one of them opens the disk for writing.
            Kind::Xfs => xfs::inspect(tools, &self.as_device(tools)?),
            Kind::Btrfs if self.offset_bytes == 0 => btrfs::inspect(tools, self.disk),
            Kind::Btrfs => btrfs::inspect(tools, &self.as_device(tools)?),
        }
    }

    /// A loop device that can't be written to, over this part of the disk. It lives as long as it is open, however this
    /// process ends.
    fn as_device(&self, tools: &Tools) -> Result<OpenDisk, Unknown> {
        let (offset, size) = (self.offset_bytes.to_string(), self.size_bytes.to_string());
        let arguments = [
            "--find",
            "--show",
            "--read-only",
            "--offset",
            &offset,
            "--sizelimit",
            &size,
            INPUT,
        ];
        let mut path = PathBuf::new();
        tools.lines(LOSETUP, self.disk, &arguments, |line| {
            path = PathBuf::from(line);
        })?;
        let open = OpenDisk::open(&path);
        // The kernel detaches it when its last user has closed it.
        let name = path.to_string_lossy();
        tools.lines(LOSETUP, self.disk, &["--detach", &name], |_| {})?;
        open.map_err(|error| Unknown::Unreadable(error.to_string()))
    }
}
