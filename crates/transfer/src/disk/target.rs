//! Writing a disk of the image: a sparse file of the size that was asked for.

use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use super::{AlignedBuffer, FileStorage, Storage};
use crate::TransferError;
use crate::hashes::{Chunk, ChunkHashes, hash, is_zero};

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

    /// Reads the first `size_bytes` again and hashes them, on a few threads; holes are not read. The bytes come from the medium where the
    /// operating system can be made to fetch them: those in its cache are the ones that were sent, whatever became of them on the disk.
    ///
    /// # Errors
    /// [`TransferError::Target`].
    pub fn rehash(&self, size_bytes: u64, chunk_bytes: u32) -> Result<ChunkHashes, TransferError> {
        let hashes = Mutex::new(ChunkHashes::new(size_bytes, chunk_bytes));
        let next = AtomicU64::new(0);
        self.storage.drop_cache(0, size_bytes);
        let threads =
            std::thread::available_parallelism().map_or(1, |cores| cores.get().min(REHASHERS));
        std::thread::scope(|scope| {
            let rehashers: Vec<_> = (0..threads)
                .map(|_| scope.spawn(|| self.rehash_pieces(&hashes, &next)))
                .collect();
            rehashers.into_iter().try_for_each(|rehasher| {
                rehasher
                    .join()
                    .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            })
        })?;
        Ok(hashes
            .into_inner()
            .expect("no holder of this lock can panic"))
    }

    /// Takes pieces until there are none.
    fn rehash_pieces(
        &self,
        hashes: &Mutex<ChunkHashes>,
        next: &AtomicU64,
    ) -> Result<(), TransferError> {
        let lock = || hashes.lock().expect("no holder of this lock can panic");
        let failed = |error| TransferError::target("read", &self.path, error);
        let (chunks, chunk_bytes) = {
            let hashes = lock();
            (hashes.chunks(), hashes.chunk_bytes())
        };
        let mut buffer = AlignedBuffer::new(chunk_bytes as usize);
        loop {
            let start = next.fetch_add(PIECE, Ordering::Relaxed);
            let end = (start + PIECE).min(chunks);
            if start >= end {
                return Ok(());
            }
            let mut chunk = start;
            while chunk < end {
                let offset = chunk * u64::from(chunk_bytes);
                let data = match self.storage.next_data(offset).map_err(failed)? {
                    Some(data) => (data / u64::from(chunk_bytes)).clamp(chunk, end),
                    None => end,
                };
                if data > chunk {
                    lock().set_zero(chunk, data - chunk);
                    chunk = data;
                    continue;
                }
                let length = lock().length_of(chunk) as usize;
                let bytes = &mut buffer.as_mut_slice()[..length];
                self.storage.read(offset, bytes).map_err(failed)?;
                let found = if is_zero(bytes) {
                    Chunk::Zero
                } else {
                    Chunk::Data(hash(bytes))
                };
                lock().set(chunk, found);
                chunk += 1;
            }
        }
    }
}
