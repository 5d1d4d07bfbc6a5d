//! The ranges of a source that hold data, by the file system that holds it.

use std::fs::File;

use fiemap::{Fiemap, FiemapExtent, FiemapExtentFlags, FiemapFlags};
use rustix::fs::{SeekFrom, seek};

use chunks::ByteRange;

/// The ranges of a source that may hold data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Extents {
    /// Only here. Everything between reads as zeros.
    At(Vec<ByteRange>),
    /// Nobody can say, as with block devices: it is read from beginning to end.
    Unknown,
}

impl Extents {
    /// Returns the ranges to read of a source of so many bytes.
    pub fn to_read(self, size_bytes: u64) -> Vec<ByteRange> {
        match self {
            Self::At(extents) => extents,
            Self::Unknown => vec![ByteRange {
                start: 0,
                end: size_bytes,
            }],
        }
    }
}

/// Asks for the holes of a file, and where a file system answers that it has none, for its extents: some know these and
/// not the holes.
pub(super) fn of(file: &File, size_bytes: u64) -> Extents {
    match by_seeking(file, size_bytes) {
        Extents::At(extents) if covers(&extents, size_bytes) => {
            by_fiemap(file, size_bytes).unwrap_or(Extents::At(extents))
        }
        known => known,
    }
}

fn covers(extents: &[ByteRange], size_bytes: u64) -> bool {
    matches!(extents, [only] if only.start == 0 && only.end >= size_bytes)
}

fn by_seeking(file: &File, size_bytes: u64) -> Extents {
    let mut extents = Vec::new();
    let mut position = 0;
    while position < size_bytes {
        match seek(file, SeekFrom::Data(position)) {
            Ok(start) => {
                let end = seek(file, SeekFrom::Hole(start)).unwrap_or(size_bytes);
                extents.push(ByteRange { start, end });
                position = end.max(start + 1);
            }
            Err(rustix::io::Errno::NXIO) => break,
            Err(_) => return Extents::Unknown,
        }
    }
    Extents::At(extents)
}

/// The allocated extents; `None` where the file system does not tell them. What was written is on its blocks first:
/// without that an extent may be called unwritten while its data waits in memory.
fn by_fiemap(file: &File, size_bytes: u64) -> Option<Extents> {
    let extents: Result<Vec<FiemapExtent>, _> =
        Fiemap::with_flags(file, FiemapFlags::SYNC).collect();
    Some(Extents::At(written(&extents.ok()?, size_bytes)))
}

/// Those that hold data. Preallocated blocks that nobody has written read as zeros, and only an extent that says so is
/// one of them: whatever else is unusual about an extent, it is read.
fn written(extents: &[FiemapExtent], size_bytes: u64) -> Vec<ByteRange> {
    extents
        .iter()
        .filter(|extent| !extent.fe_flags.contains(FiemapExtentFlags::UNWRITTEN))
        .map(|extent| ByteRange {
            start: extent.fe_logical,
            end: (extent.fe_logical + extent.fe_length).min(size_bytes),
        })
        .filter(|extent| extent.start < extent.end)
        .collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt as _;

    use super::*;

    #[test]
    fn holes_and_preallocated_blocks_are_no_data_and_both_ways_of_asking_agree() {
        let directory = tempfile::tempdir().unwrap();
        let file = File::create_new(directory.path().join("disk")).unwrap();
        let size = 8 << 20;
        file.set_len(size).unwrap();
        file.write_all_at(&[1; 65_536], 1 << 20).unwrap();
        let flags = rustix::fs::FallocateFlags::KEEP_SIZE;
        rustix::fs::fallocate(&file, flags, 4 << 20, 1 << 20).unwrap();
        let expected = vec![ByteRange {
            start: 1 << 20,
            end: (1 << 20) + 65_536,
        }];
        file.sync_all().unwrap();
        assert_eq!(of(&file, size), Extents::At(expected.clone()));
        if let Some(told) = by_fiemap(&file, size) {
            assert_eq!(told, Extents::At(expected));
        }
    }

    #[test]
    fn a_block_device_says_nothing_and_is_read_to_its_end() {
        assert_eq!(
            Extents::Unknown.to_read(10),
            vec![ByteRange { start: 0, end: 10 }]
        );
    }
}
