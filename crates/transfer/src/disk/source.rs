//! Reading a disk of the source: past the page cache where that works, and only where there is data.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{OFlags, SeekFrom, seek};

use super::AlignedBuffer;
use crate::TransferError;
use crate::plan::Extent;

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
        let found = seek(&buffered, SeekFrom::End(0)).map_err(|error| failed(error.into()))?;
        if found != size_bytes {
            return Err(TransferError::SourceResized {
                path: path.to_owned(),
                expected: size_bytes,
                found,
            });
        }
        Ok(Self {
            path: path.to_owned(),
            direct,
            buffered,
            size_bytes,
        })
    }

    /// Where the file system says that there may be data. Everything, where it can't say.
    pub fn extents(&self) -> Vec<Extent> {
        let mut extents = Vec::new();
        let mut position = 0;
        while position < self.size_bytes {
            match seek(&self.buffered, SeekFrom::Data(position)) {
                Ok(start) => {
                    let end =
                        seek(&self.buffered, SeekFrom::Hole(start)).unwrap_or(self.size_bytes);
                    extents.push(Extent { start, end });
                    position = end.max(start + 1);
                }
                Err(rustix::io::Errno::NXIO) => break,
                Err(_) => {
                    return vec![Extent {
                        start: 0,
                        end: self.size_bytes,
                    }];
                }
            }
        }
        extents
    }

    /// Reads `length` bytes at `offset` into the front of `buffer`.
    ///
    /// # Errors
    /// [`TransferError::ReadSource`] after several tries; a disk that has shrunk is one.
    pub fn read(
        &self,
        offset: u64,
        length: usize,
        buffer: &mut AlignedBuffer,
    ) -> Result<(), TransferError> {
        let mut tries = 0;
        loop {
            match self.read_once(offset, length, buffer) {
                Ok(()) => return Ok(()),
                Err(source) => {
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
        }
    }

    fn read_once(&self, offset: u64, length: usize, buffer: &mut AlignedBuffer) -> io::Result<()> {
        let slice = buffer.as_mut_slice();
        // The end of a file that is no multiple of the block comes through the cache.
        if let Some(direct) = &self.direct
            && length.is_multiple_of(4096)
            && direct.read_exact_at(&mut slice[..length], offset).is_ok()
        {
            return Ok(());
        }
        self.buffered.read_exact_at(&mut slice[..length], offset)
    }
}
