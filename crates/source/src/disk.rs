//! A disk of the source as the operating system has it: past the page cache where that works.

use std::fmt::Debug;
use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt as _, FileTypeExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use chunks::ByteRange;
use chunks::buffer::ALIGNMENT;
use rustix::fs::{OFlags, SeekFrom, ioctl_blksszget, seek};

use super::{extents, fingerprint};
use crate::Observed;

/// A disk that a [`super::SourceReader`] reads. Files and block devices are one kind; tests have another that fails.
pub trait Source: Debug + Send + Sync {
    /// Number of bytes.
    ///
    /// # Errors
    /// Those of the operating system, as from all that follow.
    fn length(&self) -> io::Result<u64>;
    /// Bytes of the least piece that can be lost without what lies around it.
    fn sector_bytes(&self) -> usize;
    /// Returns the ranges of the first `size_bytes` that may hold data; one range where that is not known.
    fn extents(&self, size_bytes: u64) -> Vec<ByteRange>;
    /// Looks whether it is being written, and what its fingerprint is. May take some moments.
    fn observe(&self) -> Observed;
    /// Reads into the buffer, perhaps less than it holds, and answers with how much. Nothing is the end.
    fn read(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize>;
    /// Holds the thread before a read is tried again.
    fn wait(&self, lasts: Duration) {
        std::thread::sleep(lasts);
    }
}

/// Opens the disks of a transfer.
pub trait Sources: Debug + Send + Sync {
    /// Opens one for reading only.
    ///
    /// # Errors
    /// Those of the operating system.
    fn open(&self, path: &Path) -> io::Result<Box<dyn Source>>;
}

/// Opens the files and block devices that paths name.
#[derive(Debug, Clone, Copy)]
pub struct Files;

impl Sources for Files {
    fn open(&self, path: &Path) -> io::Result<Box<dyn Source>> {
        Ok(Box::new(FileSource::open(path)?))
    }
}

/// A file, or a block device.
#[derive(Debug)]
pub struct FileSource {
    buffered: File,
    direct: Option<File>,
    refuses_direct: AtomicBool,
    sector_bytes: usize,
}

impl FileSource {
    /// Opens it for reading only.
    ///
    /// # Errors
    /// Those of the operating system.
    pub fn open(path: &Path) -> io::Result<Self> {
        let buffered = File::open(path)?;
        // tmpfs and some others refuse O_DIRECT at once or at the first read; both fall back.
        let direct = File::options()
            .read(true)
            .custom_flags(OFlags::DIRECT.bits().cast_signed())
            .open(path)
            .ok();
        Ok(Self {
            sector_bytes: sector_bytes(&buffered),
            buffered,
            direct,
            refuses_direct: AtomicBool::new(false),
        })
    }

    /// The descriptor past the cache, if this piece of memory and disk may go through it.
    fn direct_for(&self, offset: u64, buffer: &[u8]) -> Option<&File> {
        let is_aligned = offset.is_multiple_of(self.sector_bytes as u64)
            && buffer.len().is_multiple_of(self.sector_bytes)
            && buffer.as_ptr().align_offset(self.sector_bytes) == 0;
        self.direct
            .as_ref()
            .filter(|_| is_aligned && !self.refuses_direct.load(Ordering::Relaxed))
    }
}

/// Returns the logical sector of a device. Files have none; their file systems read whole blocks.
fn sector_bytes(file: &File) -> usize {
    let is_device = file
        .metadata()
        .is_ok_and(|metadata| metadata.file_type().is_block_device());
    let told = is_device.then(|| ioctl_blksszget(file).ok()).flatten();
    told.and_then(|bytes| usize::try_from(bytes).ok())
        .filter(|bytes| bytes.is_power_of_two() && (512..=ALIGNMENT).contains(bytes))
        .unwrap_or(ALIGNMENT)
}

impl Source for FileSource {
    fn length(&self) -> io::Result<u64> {
        Ok(seek(&self.buffered, SeekFrom::End(0))?)
    }

    fn sector_bytes(&self) -> usize {
        self.sector_bytes
    }

    fn extents(&self, size_bytes: u64) -> Vec<ByteRange> {
        extents::of(&self.buffered, size_bytes).to_read(size_bytes)
    }

    fn observe(&self) -> Observed {
        fingerprint::observe(&self.buffered, self.direct.as_ref(), self.sector_bytes)
    }

    fn read(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        // What is no multiple of the sector, as a file's end, comes through the cache.
        if let Some(direct) = self.direct_for(offset, buffer) {
            match direct.read_at(buffer, offset) {
                // A file system may take the flag and refuse its first use.
                Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                    self.refuses_direct.store(true, Ordering::Relaxed);
                }
                read => return read,
            }
        }
        self.buffered.read_at(buffer, offset)
    }
}
