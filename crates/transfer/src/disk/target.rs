//! Writing a disk of the image: a sparse file of the size that was asked for.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{FallocateFlags, fallocate};

use super::AlignedBuffer;
use crate::TransferError;
use crate::hashes::{Chunk, ChunkHashes, hash, is_zero};

/// A target disk, open for writing.
#[derive(Debug)]
pub struct TargetWriter {
    path: PathBuf,
    file: File,
}

impl TargetWriter {
    /// Opens or creates the file with this size. What it held stays.
    ///
    /// # Errors
    /// [`TransferError::Target`] and [`TransferError::TargetFull`].
    pub fn open(path: &Path, size_bytes: u64) -> Result<Self, TransferError> {
        let failed = |error| TransferError::target("open", path, error);
        let file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .map_err(failed)?;
        file.set_len(size_bytes).map_err(failed)?;
        Ok(Self {
            path: path.to_owned(),
            file,
        })
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
        self.file
            .write_all_at(bytes, offset)
            .map_err(|error| TransferError::target("write", &self.path, error))
    }

    /// Makes a stretch read as zeros, without taking room.
    ///
    /// # Errors
    /// [`TransferError::Target`].
    pub fn zero(&self, offset: u64, length: u64) -> Result<(), TransferError> {
        let punched = fallocate(
            &self.file,
            FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE,
            offset,
            length,
        );
        match punched {
            Ok(()) => Ok(()),
            // No holes here: write them out.
            Err(rustix::io::Errno::OPNOTSUPP) => {
                let zeros = vec![0; 1 << 20];
                let mut position = offset;
                while position < offset + length {
                    let piece = usize::try_from((offset + length - position).min(1 << 20))
                        .expect("at most a MiB");
                    self.write(position, &zeros[..piece])?;
                    position += piece as u64;
                }
                Ok(())
            }
            Err(error) => Err(TransferError::target(
                "punch a hole into",
                &self.path,
                error.into(),
            )),
        }
    }

    /// Puts everything that was written on stable storage.
    ///
    /// # Errors
    /// [`TransferError::Target`] and [`TransferError::TargetFull`]; then nothing since the last flush counts.
    pub fn flush(&self) -> Result<(), TransferError> {
        self.file
            .sync_data()
            .map_err(|error| TransferError::target("flush", &self.path, error))
    }

    /// Reads the first `size_bytes` again and hashes them; holes are not read.
    ///
    /// # Errors
    /// [`TransferError::Target`].
    pub fn rehash(&self, size_bytes: u64, chunk_bytes: u32) -> Result<ChunkHashes, TransferError> {
        rehash(&self.file, &self.path, size_bytes, chunk_bytes)
    }
}

/// Hashes the first `size_bytes` of a file.
pub(crate) fn rehash(
    file: &File,
    path: &Path,
    size_bytes: u64,
    chunk_bytes: u32,
) -> Result<ChunkHashes, TransferError> {
    use rustix::fs::{SeekFrom, seek};

    let mut hashes = ChunkHashes::new(size_bytes, chunk_bytes);
    let mut buffer = AlignedBuffer::new(chunk_bytes as usize);
    let chunk_size = u64::from(chunk_bytes);
    let mut chunk = 0;
    while chunk < hashes.chunks() {
        let data = match seek(file, SeekFrom::Data(chunk * chunk_size)) {
            Ok(offset) => (offset / chunk_size).clamp(chunk, hashes.chunks()),
            Err(rustix::io::Errno::NXIO) => hashes.chunks(),
            Err(_) => chunk,
        };
        if data > chunk {
            hashes.set_zero(chunk, data - chunk);
            chunk = data;
            continue;
        }
        let bytes = &mut buffer.as_mut_slice()[..hashes.length_of(chunk) as usize];
        file.read_exact_at(bytes, chunk * chunk_size)
            .map_err(|error| TransferError::target("read", path, error))?;
        hashes.set(
            chunk,
            if is_zero(bytes) {
                Chunk::Zero
            } else {
                Chunk::Data(hash(bytes))
            },
        );
        chunk += 1;
    }
    Ok(hashes)
}
