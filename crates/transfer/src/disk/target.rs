//! Writing a disk of the image: a sparse file of the size that was asked for.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use chunks::buffer::AlignedBuffer;
use chunks::hashes::{Chunk, length_of};

use super::{FileStorage, Storage};
use crate::TransferError;

/// Threads that re-read a disk at most, and chunks that each takes at once.
const REHASHERS: usize = 4;
const PIECE: u64 = 64;

/// A target disk, open for writing.
#[derive(Debug)]
pub struct TargetWriter {
    path: PathBuf,
    storage: Box<dyn Storage>,
}

impl TargetWriter {
    /// Opens or creates the file with this size. What it held stays.
    ///
    /// # Errors
    /// [`TransferError::Target`] and [`TransferError::TargetFull`].
    pub fn open(path: &Path, size_bytes: u64) -> Result<Self, TransferError> {
        let storage = FileStorage::open(path)
            .and_then(|storage| storage.set_length(size_bytes).map(|()| storage))
            .map_err(|error| TransferError::target("open", path, error))?;
        Ok(Self::on(path, Box::new(storage)))
    }

    /// A disk on any storage; `path` is what errors say.
    pub(crate) fn on(path: &Path, storage: Box<dyn Storage>) -> Self {
        Self {
            path: path.to_owned(),
            storage,
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes bytes; not durable before [`TargetWriter::flush`].
    ///
    /// # Errors
    /// [`TransferError::Target`] and [`TransferError::TargetFull`].
    pub fn write(&self, offset: u64, bytes: &[u8]) -> Result<(), TransferError> {
        self.storage
            .write(offset, bytes)
            .map_err(|error| TransferError::target("write", &self.path, error))
    }

    /// Makes a stretch read as zeros, without taking room.
    ///
    /// # Errors
    /// [`TransferError::Target`].
    pub fn zero(&self, offset: u64, length: u64) -> Result<(), TransferError> {
        self.storage
            .punch(offset, length)
            .map_err(|error| TransferError::target("punch a hole into", &self.path, error))
    }

    /// Puts everything that was written on stable storage.
    ///
    /// # Errors
    /// [`TransferError::Target`] and [`TransferError::TargetFull`]; then nothing since the last flush counts.
    pub fn flush(&self) -> Result<(), TransferError> {
        self.storage
            .sync()
            .map_err(|error| TransferError::target("flush", &self.path, error))
    }

    /// Reads the first `size_bytes` again, on a few threads, and tells what is found in each chunk, or in a stretch of them that are zeros.
    /// Holes are not read. The bytes come from the medium where the operating system can be made to fetch them: those in its cache are
    /// the ones that were sent, whatever became of them on the disk.
    ///
    /// # Errors
    /// [`TransferError::Target`], and what `tell` answers with.
    pub fn rehash(
        &self,
        size_bytes: u64,
        chunk_bytes: u32,
        tell: &(impl Fn(Found) -> Result<(), TransferError> + Sync),
    ) -> Result<(), TransferError> {
        let chunks = size_bytes.div_ceil(u64::from(chunk_bytes));
        let next = AtomicU64::new(0);
        self.storage.drop_cache(0, size_bytes);
        let take_pieces = || {
            let mut reader = Reader::new(self, size_bytes, chunk_bytes);
            loop {
                let start = next.fetch_add(PIECE, Ordering::Relaxed);
                let end = (start + PIECE).min(chunks);
                if start >= end {
                    return Ok(());
                }
                reader.read(start, end, tell)?;
            }
        };
        let threads =
            std::thread::available_parallelism().map_or(1, |cores| cores.get().min(REHASHERS));
        std::thread::scope(|scope| {
            let rehashers: Vec<_> = (0..threads).map(|_| scope.spawn(take_pieces)).collect();
            rehashers.into_iter().try_for_each(|rehasher| {
                rehasher
                    .join()
                    .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            })
        })
    }

    /// The same of some chunks only, and no more of them than hold so many bytes of data.
    ///
    /// # Errors
    /// As with [`TargetWriter::rehash`].
    pub fn rehash_some(
        &self,
        size_bytes: u64,
        chunk_bytes: u32,
        stretches: &[(u64, u64)],
        most_bytes: u64,
        tell: &impl Fn(Found) -> Result<(), TransferError>,
    ) -> Result<(), TransferError> {
        self.storage.drop_cache(0, size_bytes);
        let mut reader = Reader::new(self, size_bytes, chunk_bytes);
        for (start, count) in stretches {
            let mut next = *start;
            while next < start + count && reader.bytes_read < most_bytes {
                let end = (next + PIECE).min(start + count);
                reader.read(next, end, tell)?;
                next = end;
            }
        }
        Ok(())
    }
}

/// What a target holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found {
    /// The first chunk.
    pub start: u64,
    /// How many; one if it is data.
    pub count: u64,
    /// What they are.
    pub chunk: Chunk,
}

struct Reader<'a> {
    target: &'a TargetWriter,
    size_bytes: u64,
    chunk_bytes: u32,
    buffer: AlignedBuffer,
    bytes_read: u64,
}

impl<'a> Reader<'a> {
    fn new(target: &'a TargetWriter, size_bytes: u64, chunk_bytes: u32) -> Self {
        Self {
            target,
            size_bytes,
            chunk_bytes,
            buffer: AlignedBuffer::new(chunk_bytes as usize),
            bytes_read: 0,
        }
    }

    /// Reads the chunks from `start` to before `end`.
    fn read(
        &mut self,
        start: u64,
        end: u64,
        tell: &impl Fn(Found) -> Result<(), TransferError>,
    ) -> Result<(), TransferError> {
        let failed = |error| TransferError::target("read", &self.target.path, error);
        let storage = &self.target.storage;
        let chunk_bytes = u64::from(self.chunk_bytes);
        let mut next = start;
        while next < end {
            let offset = next * chunk_bytes;
            let data = match storage.next_data(offset).map_err(failed)? {
                Some(data) => (data / chunk_bytes).clamp(next, end),
                None => end,
            };
            let (count, chunk) = if data > next {
                (data - next, Chunk::Zero)
            } else {
                let length = length_of(self.size_bytes, self.chunk_bytes, next);
                let bytes = &mut self.buffer.as_mut_slice()[..length as usize];
                storage.read(offset, bytes).map_err(failed)?;
                self.bytes_read += bytes.len() as u64;
                (1, Chunk::of(bytes))
            };
            let start = next;
            tell(Found {
                start,
                count,
                chunk,
            })?;
            next += count;
        }
        Ok(())
    }
}
