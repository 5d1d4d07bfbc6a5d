//! The storage of disks and chunk maps. Real files are one kind; tests have another that forgets what was not synced.

use std::fmt::Debug;
use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{Advice, FallocateFlags, OFlags, SeekFrom, fadvise, fallocate, fstatfs, seek};
use rustix::io::Errno;

use chunks::buffer::ALIGNMENT;

/// Bytes with offsets. Nothing that was written is sure to survive before [`Storage::sync`] has answered.
pub trait Storage: Debug + Send + Sync {
    /// Number of bytes.
    ///
    /// # Errors
    /// Those of the operating system, as from all that follow.
    fn length(&self) -> io::Result<u64>;
    /// Cuts off or adds zeros.
    fn set_length(&self, bytes: u64) -> io::Result<()>;
    /// Fills the buffer.
    fn read(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()>;
    /// Writes all bytes.
    fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<()>;
    /// Makes a range read as zeros without taking room, where that is possible.
    fn punch(&self, offset: u64, length: u64) -> io::Result<()>;
    /// Makes all that was written before durable. After an error nobody can say what is.
    fn sync(&self) -> io::Result<()>;
    /// The next byte from `offset` on that may not be a zero of a hole; `None` if only holes follow.
    fn next_data(&self, offset: u64) -> io::Result<Option<u64>>;
    /// Asks that the next read of a range comes from the medium and not from memory.
    fn drop_cache(&self, offset: u64, length: u64);
}

/// A file, or a block device.
#[derive(Debug)]
pub struct FileStorage {
    file: File,
    /// The same file past the page cache, where that works: fresh pages of the cache are the largest single cost of a
    /// copy.
    direct: Option<File>,
    refuses_direct: AtomicBool,
    /// Held while a write goes through the cache. The kernel lets only one of them at a file, and those that wait for
    /// it spin.
    cached: Mutex<()>,
}

impl FileStorage {
    /// Opens a file for reading and writing, and makes it if need be.
    ///
    /// # Errors
    /// Those of the operating system.
    pub fn open(path: &Path) -> io::Result<Self> {
        let is_new = !path.exists();
        let file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path)?;
        if is_new {
            super::sync_parent(path)?;
        }
        let direct = (!is_memory(&file)?)
            .then(|| {
                File::options()
                    .read(true)
                    .write(true)
                    .custom_flags(OFlags::DIRECT.bits().cast_signed())
                    .open(path)
                    .ok()
            })
            .flatten();
        Ok(Self {
            file,
            direct,
            refuses_direct: AtomicBool::new(false),
            cached: Mutex::default(),
        })
    }

    /// The descriptor past the cache, if this piece of memory and disk may go through it.
    fn direct_for(&self, offset: u64, bytes: &[u8]) -> Option<&File> {
        let is_aligned = offset.is_multiple_of(ALIGNMENT as u64)
            && bytes.len().is_multiple_of(ALIGNMENT)
            && bytes.as_ptr().align_offset(ALIGNMENT) == 0;
        self.direct
            .as_ref()
            .filter(|_| is_aligned && !self.refuses_direct.load(Ordering::Relaxed))
    }

    /// Returns true if a write should go on through the cache: a file system may take the flag and refuse its first
    /// use.
    fn is_refusal(&self, error: &io::Error) -> bool {
        let refuses = error.kind() == io::ErrorKind::InvalidInput;
        if refuses {
            self.refuses_direct.store(true, Ordering::Relaxed);
        }
        refuses
    }
}

/// The next byte of a file from `offset` on that may not be a zero of a hole.
pub(crate) fn next_data(file: &File, offset: u64) -> io::Result<Option<u64>> {
    match seek(file, SeekFrom::Data(offset)) {
        Ok(data) => Ok(Some(data)),
        Err(Errno::NXIO) => Ok(None),
        // It can't say: everything may be data.
        Err(Errno::INVAL | Errno::OPNOTSUPP) => Ok(Some(offset)),
        Err(error) => Err(error.into()),
    }
}

/// Returns true if the file lives in the cache itself: tmpfs takes the flag for direct access and copies all the same.
fn is_memory(file: &File) -> io::Result<bool> {
    const TMPFS_MAGIC: i64 = 0x0102_1994;
    Ok(fstatfs(file)?.f_type == TMPFS_MAGIC)
}

impl Storage for FileStorage {
    fn length(&self) -> io::Result<u64> {
        Ok(seek(&self.file, SeekFrom::End(0))?)
    }

    fn set_length(&self, bytes: u64) -> io::Result<()> {
        self.file.set_len(bytes)
    }

    fn read(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        if let Some(direct) = self.direct_for(offset, buffer) {
            match direct.read_exact_at(buffer, offset) {
                Err(error) if self.is_refusal(&error) => {}
                read => return read,
            }
        }
        self.file.read_exact_at(buffer, offset)
    }

    fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        if let Some(direct) = self.direct_for(offset, bytes) {
            match direct.write_all_at(bytes, offset) {
                Err(error) if self.is_refusal(&error) => {}
                written => return written,
            }
        }
        let _alone = self
            .cached
            .lock()
            .expect("no holder of this lock can panic");
        self.file.write_all_at(bytes, offset)
    }

    fn punch(&self, offset: u64, length: u64) -> io::Result<()> {
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        match fallocate(&self.file, flags, offset, length) {
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => write_zeros(self, offset, length),
            punched => Ok(punched?),
        }
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn next_data(&self, offset: u64) -> io::Result<Option<u64>> {
        next_data(&self.file, offset)
    }

    fn drop_cache(&self, offset: u64, length: u64) {
        // Advice: where it is not taken, the read comes from memory.
        let _advice = fadvise(
            &self.file,
            offset,
            std::num::NonZeroU64::new(length),
            Advice::DontNeed,
        );
    }
}

/// Writes zeros where no holes can be made, over what is not a hole.
fn write_zeros(storage: &FileStorage, offset: u64, length: u64) -> io::Result<()> {
    const PIECE: u64 = 1 << 20;
    let zeros = chunks::buffer::AlignedBuffer::new(1 << 20);
    let end = offset + length;
    let mut position = offset;
    while position < end {
        match storage.next_data(position)? {
            Some(data) if data < end => position = data,
            _ => break,
        }
        let piece = (end - position).min(PIECE);
        let bytes = usize::try_from(piece).expect("at most a MiB");
        storage.write(position, &zeros.as_slice()[..bytes])?;
        position += piece;
    }
    Ok(())
}
