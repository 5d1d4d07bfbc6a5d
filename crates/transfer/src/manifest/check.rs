//! A disk beside its manifest.

use std::fs::File;
use std::io::BufReader;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use rustix::fs::{SeekFrom, seek};

use super::ManifestError;
use super::file::{Head, each_page};
use crate::disk::{AlignedBuffer, next_data};
use crate::hashes::Chunk;

/// Checks a manifest, then the disk against it, reading every chunk that is not a hole.
///
/// # Errors
/// [`ManifestError`], with the first chunk that differs.
pub fn verify(disk: &Path, manifest: &Path) -> Result<Head, ManifestError> {
    let name = manifest.display().to_string();
    let open = |path: &Path| File::open(path).map_err(|source| unreadable(path, source));
    let file = open(manifest)?;
    // The manifest first and as a whole: what is wrong with it is not to be taken for a fault of the disk.
    let head = each_page(BufReader::new(&file), &name, |_, _, _| Ok(()))?;
    seek(&file, SeekFrom::Start(0)).map_err(|error| unreadable(manifest, error.into()))?;
    let mut checked = Disk::open(disk, &head)?;
    each_page(BufReader::new(&file), &name, |head, start, page| {
        page.iter()
            .zip(start..)
            .try_for_each(|(expected, chunk)| checked.check(head, chunk, expected))
    })?;
    checked.has_nothing_behind(head.size_bytes)?;
    Ok(head)
}

fn unreadable(path: &Path, source: std::io::Error) -> ManifestError {
    ManifestError::Read {
        path: path.display().to_string(),
        source,
    }
}

struct Disk<'a> {
    path: &'a Path,
    file: File,
    length: u64,
    buffer: AlignedBuffer,
}

impl<'a> Disk<'a> {
    fn open(path: &'a Path, head: &Head) -> Result<Self, ManifestError> {
        let file = File::open(path).map_err(|source| unreadable(path, source))?;
        // A block device tells its length only to those who go there.
        let length = seek(&file, SeekFrom::End(0));
        let length = length.map_err(|error| unreadable(path, error.into()))?;
        if length < head.size_bytes {
            return Err(ManifestError::Short {
                path: path.display().to_string(),
                found: length,
                expected: head.size_bytes,
            });
        }
        Ok(Self {
            path,
            file,
            length,
            buffer: AlignedBuffer::new(head.chunk_bytes as usize),
        })
    }

    fn check(&mut self, head: &Head, chunk: u64, expected: &Chunk) -> Result<(), ManifestError> {
        let (offset, length) = head.place(chunk);
        if self.look(offset, length)? == *expected {
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
        while offset < self.length {
            let length = u32::try_from(self.length - offset).map_or(piece, |left| left.min(piece));
            if self.look(offset, length)? != Chunk::Zero {
                return Err(ManifestError::DataBehindEnd {
                    path: self.path.display().to_string(),
                    offset,
                });
            }
            offset += u64::from(length);
        }
        Ok(())
    }

    /// What lies there.
    fn look(&mut self, offset: u64, length: u32) -> Result<Chunk, ManifestError> {
        let is_hole = match next_data(&self.file, offset) {
            Ok(Some(data)) => data >= offset + u64::from(length),
            Ok(None) => true,
            Err(_) => false,
        };
        if is_hole {
            return Ok(Chunk::Zero);
        }
        let bytes = &mut self.buffer.as_mut_slice()[..length as usize];
        self.file
            .read_exact_at(bytes, offset)
            .map_err(|source| unreadable(self.path, source))?;
        Ok(Chunk::of(bytes))
    }
}
