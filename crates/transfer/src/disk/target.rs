//! Writing a disk of the image: a sparse file of the size that was asked for.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use chunks::buffer::AlignedBuffer;
use chunks::hashes::{Chunk, length_of};
use chunks::{ByteRange, ChunkIndex, ChunkRange};

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

    /// Its path.
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

    /// Makes bytes read as zeros, without taking room.
    ///
    /// # Errors
    /// [`TransferError::Target`].
    pub fn zero(&self, range: ByteRange) -> Result<(), TransferError> {
        self.storage
            .punch(range.start, range.bytes())
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

    /// Reads the first `size_bytes` again, on a few threads, and tells what is found in each chunk, or in several in a
    /// row that are zeros. Holes are not read. The bytes come from the medium where the operating system can be made to
    /// fetch them: those in its cache are the ones that were sent, whatever became of them on the disk.
    ///
    /// # Errors
    /// [`TransferError::Target`], and what `tell` answers with.
    pub fn rehash(
        &self,
        size_bytes: u64,
        chunk_bytes: u32,
        report: &(impl Fn(Found) -> Result<(), TransferError> + Sync),
    ) -> Result<(), TransferError> {
        let chunks = ChunkRange::new(0, size_bytes.div_ceil(u64::from(chunk_bytes)));
        let next = AtomicU64::new(0);
        self.storage.drop_cache(0, size_bytes);
        let take_pieces = || {
            let mut reader = Reader::new(self, size_bytes, chunk_bytes);
            loop {
                let piece = ChunkRange::new(next.fetch_add(PIECE, Ordering::Relaxed), PIECE);
                let piece = piece.intersection(chunks);
                if piece.is_empty() {
                    return Ok(());
                }
                reader.read(piece, report)?;
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
        ranges: &[ChunkRange],
        most_bytes: u64,
        report: &impl Fn(Found) -> Result<(), TransferError>,
    ) -> Result<(), TransferError> {
        self.storage.drop_cache(0, size_bytes);
        let mut reader = Reader::new(self, size_bytes, chunk_bytes);
        for range in ranges {
            let mut left = *range;
            while !left.is_empty() && reader.bytes_read < most_bytes {
                let (piece, rest) = left.split(PIECE);
                reader.read(piece, report)?;
                left = rest;
            }
        }
        Ok(())
    }
}

/// Chunks as a target holds them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found {
    /// The chunks; one if it is data.
    pub chunks: ChunkRange,
    /// Their content.
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

    /// Reads some chunks.
    fn read(
        &mut self,
        chunks: ChunkRange,
        report: &impl Fn(Found) -> Result<(), TransferError>,
    ) -> Result<(), TransferError> {
        let failed = |error| TransferError::target("read", &self.target.path, error);
        let storage = &self.target.storage;
        let (mut next, end) = (chunks.first, chunks.end());
        while next < end {
            let offset = next.offset(self.chunk_bytes);
            let data = match storage.next_data(offset).map_err(failed)? {
                Some(data) => ChunkIndex::at(data, self.chunk_bytes).clamp(next, end),
                None => end,
            };
            let (chunks, chunk) = if data > next {
                (ChunkRange::between(next, data), Chunk::Zero)
            } else {
                let length = length_of(self.size_bytes, self.chunk_bytes, next);
                let bytes = &mut self.buffer.as_mut_slice()[..length as usize];
                storage.read(offset, bytes).map_err(failed)?;
                self.bytes_read += bytes.len() as u64;
                (next.into(), Chunk::of(bytes))
            };
            report(Found { chunks, chunk })?;
            next = chunks.end();
        }
        Ok(())
    }
}
