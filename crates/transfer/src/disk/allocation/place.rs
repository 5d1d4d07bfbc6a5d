//! Where file systems lie on a disk, and which kind each is.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::path::{Path, PathBuf};

use super::{Tool, Tools, Unknown, btrfs, ext, xfs};
use crate::disk::partitions;
use crate::plan::Extent;

const BLKID: Tool = ("blkid", "util-linux");
const LOSETUP: Tool = ("losetup", "mount");

/// What `blkid` ends with when it recognises nothing, and when it recognises several things.
const NOTHING: i32 = 2;
const SEVERAL: i32 = 8;

/// A part of a disk that may hold a file system.
#[derive(Debug)]
pub(super) struct Place<'a> {
    disk: &'a Path,
    offset_bytes: u64,
    size_bytes: u64,
}

/// The partitions of a disk, or all of it where it has none.
pub(super) fn all<'a>(
    tools: &Tools,
    disk: &'a Path,
    size_bytes: u64,
) -> Result<Vec<Place<'a>>, Unknown> {
    let mut parts = partitions::by(tools, disk)?;
    if parts.is_empty() {
        return Ok(vec![Place {
            disk,
            offset_bytes: 0,
            size_bytes,
        }]);
    }
    parts.retain(|part| !part.is_container());
    parts.sort_by_key(|part| part.start_bytes);
    // What is free in one partition may be the content of another that lies over it.
    let are_apart = parts
        .windows(2)
        .all(|pair| pair[0].end_bytes() <= pair[1].start_bytes);
    if !are_apart
        || parts
            .last()
            .is_some_and(|part| part.end_bytes() > size_bytes)
    {
        return Err(Unknown::Overlap);
    }
    Ok(parts
        .iter()
        .map(|part| Place {
            disk,
            offset_bytes: part.start_bytes,
            size_bytes: part.size_bytes,
        })
        .collect())
}

impl Place<'_> {
    pub(super) fn offset_bytes(&self) -> u64 {
        self.offset_bytes
    }

    /// The ranges of the disk that the file system here does not use.
    pub(super) fn free(&self, tools: &Tools) -> Result<Vec<Extent>, Unknown> {
        let ranges = match self.content(tools)?.as_str() {
            "ext2" | "ext3" | "ext4" => ext::free(tools, &self.with_offset())?,
            "xfs" => xfs::free(tools, self.apart(tools)?.path())?,
            "btrfs" => btrfs::free(tools, self.apart(tools)?.path())?,
            other => return Err(Unknown::Content(other.to_owned())),
        };
        if ranges.last().is_some_and(|last| last.end > self.size_bytes) {
            return Err(Unknown::Overlap);
        }
        Ok(ranges
            .into_iter()
            .map(|range| Extent {
                start: self.offset_bytes + range.start,
                end: self.offset_bytes + range.end,
            })
            .collect())
    }

    /// What is here, as `blkid` calls it.
    fn content(&self, tools: &Tools) -> Result<String, Unknown> {
        let (offset, size) = (self.offset_bytes.to_string(), self.size_bytes.to_string());
        let mut arguments: Vec<&OsStr> = ["-p", "-o", "export"].map(OsStr::new).to_vec();
        arguments.extend(["--offset", &offset, "--size", &size].map(OsStr::new));
        arguments.push(self.disk.as_os_str());
        let (mut kind, mut has_table) = (None, false);
        let code = tools.run(BLKID, &arguments, |line| {
            if let Some(found) = line.strip_prefix("TYPE=") {
                kind = Some(found.to_owned());
            }
            has_table |= line.starts_with("PTTYPE=");
        })?;
        match code {
            0 if has_table => Ok("a partition table within".to_owned()),
            0 => Ok(kind.unwrap_or_else(|| "what is there".to_owned())),
            NOTHING => Ok("what is no file system".to_owned()),
            SEVERAL => Ok("what looks like several things".to_owned()),
            code => Err(Unknown::Unreadable(format!("blkid ended with {code}"))),
        }
    }

    /// The name by which the tools of ext file systems find it.
    fn with_offset(&self) -> OsString {
        let mut name = self.disk.as_os_str().to_owned();
        if self.offset_bytes > 0 {
            name.push(format!("?offset={}", self.offset_bytes));
        }
        name
    }

    /// A name for tools that know no offset.
    fn apart(&self, tools: &Tools) -> Result<Apart, Unknown> {
        if self.offset_bytes == 0 {
            return Ok(Apart::Disk(self.disk.to_owned()));
        }
        Loop::over(tools, self).map(Apart::Loop)
    }
}

/// A file system under a name of its own.
enum Apart {
    Disk(PathBuf),
    Loop(Loop),
}

impl Apart {
    fn path(&self) -> &Path {
        match self {
            Self::Disk(path) | Self::Loop(Loop { path, .. }) => path,
        }
    }
}

/// A loop device that can't be written to, over a part of a disk. It lives as long as this has it open, however this process ends.
struct Loop {
    path: PathBuf,
    _open: File,
}

impl Loop {
    fn over(tools: &Tools, place: &Place<'_>) -> Result<Self, Unknown> {
        let (offset, size) = (place.offset_bytes.to_string(), place.size_bytes.to_string());
        let mut arguments: Vec<&OsStr> = ["--find", "--show", "--read-only", "--offset", &offset]
            .map(OsStr::new)
            .to_vec();
        arguments.extend(["--sizelimit", &size].map(OsStr::new));
        arguments.push(place.disk.as_os_str());
        let mut path = PathBuf::new();
        tools.lines(LOSETUP, &arguments, |line| path = PathBuf::from(line))?;
        let open = File::open(&path);
        // The kernel detaches it when its last user has closed it.
        tools.lines(LOSETUP, &["--detach".as_ref(), path.as_os_str()], |_| {})?;
        match open {
            Ok(open) => Ok(Self { path, _open: open }),
            Err(error) => Err(Unknown::Unreadable(format!("{}: {error}", path.display()))),
        }
    }
}
