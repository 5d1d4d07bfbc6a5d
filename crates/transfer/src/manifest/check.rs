//! A disk beside its manifest.

use std::fs::File;
use std::io::{self, BufReader};
use std::os::unix::fs::FileExt;
use std::path::Path;

use chunks::ChunkIndex;
use chunks::buffer::AlignedBuffer;
use chunks::hashes::Chunk;
use rustix::fs::{SeekFrom, seek};

use super::ManifestError;
use super::file::{Head, each_page};
use crate::disk::next_data;

/// The bytes of a disk, in whatever form they lie.
pub trait Content {
    /// Number of bytes.
    fn length(&self) -> u64;

    /// Returns true if these bytes are known to be zeros without being read.
    fn is_hole(&self, offset: u64, length: u32) -> bool;

    /// Fills the buffer from there. Chunks are asked for in order.
    ///
    /// # Errors
    /// They can't be read.
    fn read_exact_at(&mut self, buffer: &mut [u8], offset: u64) -> io::Result<()>;
}

/// Checks a manifest, then the disk against it, reading every chunk that is not a hole.
///
/// # Errors
/// [`ManifestError`], with the first chunk that differs.
pub fn verify(disk: &Path, manifest: &Path) -> Result<Head, ManifestError> {
    let file = Raw::open(disk).map_err(|source| unreadable(disk, source))?;
    verify_content(file, disk, manifest)
}

/// [`verify`] for a disk in any form; `disk` is what errors name.
///
/// # Errors
/// [`ManifestError`], with the first chunk that differs.
pub fn verify_content(
    content: impl Content,
    disk: &Path,
    manifest: &Path,
) -> Result<Head, ManifestError> {
    let name = manifest.display().to_string();
    let file = File::open(manifest).map_err(|source| unreadable(manifest, source))?;
    // The manifest first and as a whole: what is wrong with it is not to be taken for a fault of the disk.
    let head = each_page(BufReader::new(&file), &name, |_, _, _| Ok(()))?;
    seek(&file, SeekFrom::Start(0)).map_err(|error| unreadable(manifest, error.into()))?;
    let mut checked = Checked::new(content, disk, &head)?;
    each_page(BufReader::new(&file), &name, |head, chunks, page| {
        page.iter()
            .zip(chunks.iter())
            .try_for_each(|(expected, chunk)| checked.check(head, chunk, expected))
    })?;
    checked.has_nothing_behind(head.size_bytes)?;
    Ok(head)
}

/// A file or block device that holds the disk as it is.
struct Raw {
    file: File,
    length: u64,
}

impl Raw {
    fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        // A block device tells its length only to those who go there.
        let length = seek(&file, SeekFrom::End(0))?;
        Ok(Self { file, length })
    }
}

impl Content for Raw {
    fn length(&self) -> u64 {
        self.length
    }

    fn is_hole(&self, offset: u64, length: u32) -> bool {
        match next_data(&self.file, offset) {
            Ok(Some(data)) => data >= offset + u64::from(length),
            Ok(None) => true,
            Err(_) => false,
        }
    }

    fn read_exact_at(&mut self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        FileExt::read_exact_at(&self.file, buffer, offset)
    }
}

fn unreadable(path: &Path, source: io::Error) -> ManifestError {
    ManifestError::Read {
        path: path.display().to_string(),
        source,
    }
}

struct Checked<'a, C> {
    path: &'a Path,
    content: C,
    buffer: AlignedBuffer,
}

impl<'a, C: Content> Checked<'a, C> {
    fn new(content: C, path: &'a Path, head: &Head) -> Result<Self, ManifestError> {
        if content.length() < head.size_bytes {
            return Err(ManifestError::Short {
                path: path.display().to_string(),
                found: content.length(),
                expected: head.size_bytes,
            });
        }
        Ok(Self {
            path,
            content,
            buffer: AlignedBuffer::new(head.chunk_bytes as usize),
        })
    }

    fn check(
        &mut self,
        head: &Head,
        chunk: ChunkIndex,
        expected: &Chunk,
    ) -> Result<(), ManifestError> {
        let (offset, length) = (chunk.offset(head.chunk_bytes), head.length_of(chunk));
        if self.content_at(offset, length)? == *expected {
            return Ok(());
        }
        Err(ManifestError::Differs {
            path: self.path.display().to_string(),
            offset,
            length,
        })
    }

    fn has_nothing_behind(&mut self, size_bytes: u64) -> Result<(), ManifestError> {
        let piece = u32::try_from(self.buffer.as_slice().len()).expect("it holds one chunk");
        let mut offset = size_bytes;
        while offset < self.content.length() {
            let length =
                u32::try_from(self.content.length() - offset).map_or(piece, |left| left.min(piece));
            if self.content_at(offset, length)? != Chunk::Zero {
                return Err(ManifestError::DataBehindEnd {
                    path: self.path.display().to_string(),
                    offset,
                });
            }
            offset += u64::from(length);
        }
        Ok(())
    }

    /// Returns the content of a place.
    fn content_at(&mut self, offset: u64, length: u32) -> Result<Chunk, ManifestError> {
        if self.content.is_hole(offset, length) {
            return Ok(Chunk::Zero);
        }
        let bytes = &mut self.buffer.as_mut_slice()[..length as usize];
        self.content
            .read_exact_at(bytes, offset)
            .map_err(|source| unreadable(self.path, source))?;
        Ok(Chunk::of(bytes))
    }
}
