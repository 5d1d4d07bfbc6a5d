//! Reading a disk of the source: past the page cache where that works, and only where there is data.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{OFlags, SeekFrom, seek};

use super::buffer::ALIGNMENT;
use super::extents::{self, Extents};
use crate::TransferError;

/// Tries of one read before the disk counts as unreadable, and the pause between them.
const READ_TRIES: u32 = 3;
const READ_PAUSE: Duration = Duration::from_millis(200);

/// A disk of the source, open for reading only.
#[derive(Debug)]
pub struct SourceReader {
    path: PathBuf,
    direct: Option<File>,
    buffered: File,
    size_bytes: u64,
}

impl SourceReader {
    /// Opens a file or block device that must have `size_bytes`.
    ///
    /// # Errors
    /// [`TransferError::OpenSource`] and [`TransferError::SourceResized`].
    pub fn open(path: &Path, size_bytes: u64) -> Result<Self, TransferError> {
        let failed = |source| TransferError::OpenSource {
            path: path.to_owned(),
            source,
        };
        let buffered = File::open(path).map_err(failed)?;
        // tmpfs and some others refuse O_DIRECT at once or at the first read; both fall back.
        let direct = File::options()
            .read(true)
            .custom_flags(OFlags::DIRECT.bits() as i32)
            .open(path)
            .ok();
        let reader = Self {
            path: path.to_owned(),
            direct,
            buffered,
            size_bytes,
        };
        reader.check_size()?;
        Ok(reader)
    }

    /// Where the file system says that there may be data.
    pub fn extents(&self) -> Extents {
        extents::of(&self.buffered, self.size_bytes)
    }

    /// Fills `buffer` from the disk at `offset`.
    ///
    /// # Errors
    /// [`TransferError::ReadSource`] after several tries, [`TransferError::SourceResized`] if the disk ends before.
    pub fn read(&self, offset: u64, buffer: &mut [u8]) -> Result<(), TransferError> {
        let mut tries = 0;
        loop {
            let Err(source) = self.read_once(offset, buffer) else {
                return Ok(());
            };
            if source.kind() == io::ErrorKind::UnexpectedEof {
                self.check_size()?;
            }
            tries += 1;
            if tries >= READ_TRIES {
                return Err(TransferError::ReadSource {
                    path: self.path.clone(),
                    offset,
                    source,
                });
            }
            std::thread::sleep(READ_PAUSE);
        }
    }

    /// That the disk is still as large as it was.
    ///
    /// # Errors
    /// [`TransferError::SourceResized`].
    pub fn check_size(&self) -> Result<(), TransferError> {
        let found =
            seek(&self.buffered, SeekFrom::End(0)).map_err(|error| TransferError::OpenSource {
                path: self.path.clone(),
                source: error.into(),
            })?;
        if found == self.size_bytes {
            return Ok(());
        }
        Err(TransferError::SourceResized {
            path: self.path.clone(),
            expected: self.size_bytes,
            found,
        })
    }

    fn read_once(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        // The end of a file that is no multiple of the block comes through the cache, and so does a block that failed.
        if let Some(direct) = &self.direct
            && buffer.len().is_multiple_of(ALIGNMENT)
            && buffer.as_ptr().align_offset(ALIGNMENT) == 0
            && direct.read_exact_at(buffer, offset).is_ok()
        {
            return Ok(());
        }
        self.buffered.read_exact_at(buffer, offset)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_that_shrank_or_grew_says_so_and_an_unreadable_one_says_where() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("disk");
        std::fs::write(&path, vec![1; 8192]).unwrap();
        let disk = SourceReader::open(&path, 8192).unwrap();
        let file = File::options().write(true).open(&path).unwrap();
        let resized = |result| match result {
            Err(TransferError::SourceResized {
                expected, found, ..
            }) => (expected, found),
            other => panic!("{other:?}"),
        };
        file.set_len(5000).unwrap();
        assert_eq!(resized(disk.read(4096, &mut vec![0; 4096])), (8192, 5000));
        file.set_len(9000).unwrap();
        assert_eq!(resized(disk.check_size()), (8192, 9000));

        // A directory opens but does not read: what a bad block looks like from here.
        let size = seek(File::open(directory.path()).unwrap(), SeekFrom::End(0)).unwrap();
        let unreadable = SourceReader::open(directory.path(), size).unwrap();
        let error = unreadable.read(512, &mut [0; 10]).unwrap_err();
        assert!(matches!(
            error,
            TransferError::ReadSource { offset: 512, .. }
        ));
        assert!(error.to_string().contains("at byte 512"), "{error}");
    }
}
