//! Reading a disk of the source, also one that is failing: what can't be read is tried again, then cut down to the
//! sectors that can't be read.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use chunks::ByteRange;
use chunks::buffer::AlignedBuffer;
use domain::parameters::BadSectors;
use rustix::io::Errno;

use super::{Source, Sources};
use crate::Observed;
use crate::SourceError;

/// Tries of one read before it is taken apart, and the pause between them.
const READ_TRIES: u32 = 3;
const READ_PAUSE: Duration = Duration::from_millis(200);

/// Size of the pieces of a read that fails. A piece that fails is read by sectors. A disk may take seconds to give a
/// sector up, so the reads that count are those that fail: with two cuts there are fewer than with halves of halves.
const PIECE_BYTES: usize = 64 << 10;

const NOWHERE: u64 = u64::MAX;

/// A disk of the source, open for reading only.
#[derive(Debug)]
pub struct SourceReader {
    path: PathBuf,
    source: Box<dyn Source>,
    size_bytes: u64,
    bad_sectors: BadSectors,
    /// Place of the last read that succeeded; [`NOWHERE`] before that.
    last_good: AtomicU64,
    /// Reads that were answered, be it with an error.
    answers: AtomicU64,
}

impl SourceReader {
    /// Opens a disk that must have `size_bytes`.
    ///
    /// # Errors
    /// [`SourceError::Open`] and [`SourceError::Resized`].
    pub fn open(
        sources: &dyn Sources,
        path: &Path,
        size_bytes: u64,
        bad_sectors: BadSectors,
    ) -> Result<Self, SourceError> {
        let source = sources.open(path).map_err(|source| SourceError::Open {
            path: path.to_owned(),
            source,
        })?;
        let reader = Self {
            path: path.to_owned(),
            source,
            size_bytes,
            bad_sectors,
            last_good: AtomicU64::new(NOWHERE),
            answers: AtomicU64::new(0),
        };
        reader.check_size()?;
        Ok(reader)
    }

    /// Path of the disk.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the ranges that may hold data; one range where that is not known.
    pub fn extents(&self) -> Vec<ByteRange> {
        self.source.extents(self.size_bytes)
    }

    /// Looks whether the disk is being written, and what its fingerprint is.
    pub fn observe(&self) -> Observed {
        self.source.observe()
    }

    /// Number of reads that were answered. It grows also with a disk that fails: such a disk is slow, but does not
    /// stand still.
    pub fn answers(&self) -> u64 {
        self.answers.load(Ordering::Relaxed)
    }

    /// Fills `buffer` from the disk at `offset`. What can't be read after several tries is zeros there, and named in
    /// the answer, in order; or it is an error, as the policy says.
    ///
    /// # Errors
    /// [`SourceError::Read`] with the first bytes that can't be read; [`SourceError::Resized`] if the disk ends before.
    pub fn read(&self, offset: u64, buffer: &mut [u8]) -> Result<Vec<ByteRange>, SourceError> {
        let mut tries = 0;
        let error = loop {
            let Err(error) = self.fill(offset, buffer) else {
                self.last_good.store(offset, Ordering::Relaxed);
                return Ok(Vec::new());
            };
            tries += 1;
            if tries >= READ_TRIES {
                break error;
            }
            self.check_end(&error)?;
            self.source.wait(READ_PAUSE);
        };
        if !is_of_the_medium(&error) {
            return Err(self.unreadable(offset, buffer.len() as u64, error));
        }
        let unreadable = self.salvage(offset, buffer)?;
        let Some(first) = unreadable.first() else {
            return Ok(unreadable);
        };
        let is_all = first.end - first.start == buffer.len() as u64;
        if self.bad_sectors == BadSectors::Fail || is_all && self.is_gone() {
            return Err(self.unreadable(first.start, first.end - first.start, error));
        }
        tracing::warn!(
            disk = %self.path.display(),
            first_byte = first.start,
            ranges = unreadable.len(),
            unreadable_bytes = chunks::unreadable::bytes(&unreadable),
            "sectors can't be read and are sent as zeros"
        );
        Ok(unreadable)
    }

    /// Returns true if a position that was readable before now fails too: the disk was removed, and has no bad sectors.
    fn is_gone(&self) -> bool {
        let last_good = self.last_good.load(Ordering::Relaxed);
        let mut sector = AlignedBuffer::new(self.source.sector_bytes());
        let sector = &mut sector.as_mut_slice()[..self.source.sector_bytes()];
        let mut fails = || self.source.read(last_good, sector).is_err();
        last_good != NOWHERE && (0..READ_TRIES).all(|_| fails())
    }

    /// Checks that the disk is still as large as it was.
    ///
    /// # Errors
    /// [`SourceError::Resized`].
    pub fn check_size(&self) -> Result<(), SourceError> {
        let found = self.source.length().map_err(|source| SourceError::Open {
            path: self.path.clone(),
            source,
        })?;
        if found == self.size_bytes {
            return Ok(());
        }
        Err(SourceError::Resized {
            path: self.path.clone(),
            expected: self.size_bytes,
            found,
        })
    }

    /// Reads what can be read, piece by piece, and answers with the sectors that can't, in order; their bytes are
    /// zeros.
    fn salvage(&self, offset: u64, buffer: &mut [u8]) -> Result<Vec<ByteRange>, SourceError> {
        let mut unreadable: Vec<ByteRange> = Vec::new();
        for (piece, at) in pieces(offset, buffer, PIECE_BYTES) {
            if self.can_fill(at, piece)? {
                continue;
            }
            for (sector, start) in pieces(at, piece, self.source.sector_bytes()) {
                if self.can_fill_sector(start, sector)? {
                    continue;
                }
                sector.fill(0);
                let end = start + sector.len() as u64;
                match unreadable.last_mut() {
                    Some(last) if last.end == start => last.end = end,
                    _ => unreadable.push(ByteRange { start, end }),
                }
            }
        }
        Ok(unreadable)
    }

    /// The same of a sector, which gets the tries that a whole read gets.
    fn can_fill_sector(&self, offset: u64, sector: &mut [u8]) -> Result<bool, SourceError> {
        for _ in 0..READ_TRIES {
            if self.can_fill(offset, sector)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Returns true if a piece can be read. Failures that are not of the medium are errors.
    fn can_fill(&self, offset: u64, buffer: &mut [u8]) -> Result<bool, SourceError> {
        match self.fill(offset, buffer) {
            Ok(()) => Ok(true),
            Err(error) if is_of_the_medium(&error) => Ok(false),
            Err(error) => {
                self.check_end(&error)?;
                Err(self.unreadable(offset, buffer.len() as u64, error))
            }
        }
    }

    /// Fills the buffer in one go, or in several where the disk gives less.
    fn fill(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let mut filled = 0;
        while filled < buffer.len() {
            let read = self
                .source
                .read(offset + filled as u64, &mut buffer[filled..]);
            self.answers.fetch_add(1, Ordering::Relaxed);
            match read {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(bytes) => filled += bytes,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// A disk that ended too early may have got smaller.
    fn check_end(&self, error: &io::Error) -> Result<(), SourceError> {
        if error.kind() == io::ErrorKind::UnexpectedEof {
            self.check_size()?;
        }
        Ok(())
    }

    /// The error of a disk that has too many bad sectors.
    pub fn fails_as_a_whole(&self) -> SourceError {
        SourceError::TooManyUnreadableRanges {
            path: self.path.clone(),
        }
    }

    fn unreadable(&self, offset: u64, length: u64, source: io::Error) -> SourceError {
        SourceError::Read {
            path: self.path.clone(),
            offset,
            length,
            source,
        }
    }
}

/// Returns true if the error is of bytes that a disk has lost. The same read elsewhere may go well.
fn is_of_the_medium(error: &io::Error) -> bool {
    // What block devices answer: through the cache always the first, past it also what the medium or a checksum of it
    // says.
    [Errno::IO, Errno::NODATA, Errno::ILSEQ]
        .iter()
        .any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}

/// A buffer in pieces, each with its place on the disk.
fn pieces(offset: u64, buffer: &mut [u8], bytes: usize) -> impl Iterator<Item = (&mut [u8], u64)> {
    buffer.chunks_mut(bytes).zip((offset..).step_by(bytes))
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use chunks::buffer::AlignedBuffer;

    use super::*;
    use crate::Files;
    use crate::faulty::{Faults, FaultySources};

    const SIZE: usize = 1 << 20;

    /// A disk whose bytes tell where they are, with sectors of 512 bytes and these faults.
    fn failing(
        directory: &tempfile::TempDir,
        bad_sectors: BadSectors,
    ) -> (SourceReader, Faults, Vec<u8>) {
        let path = directory.path().join("source-0");
        let content: Vec<u8> = (0_u32..SIZE as u32 / 4)
            .flat_map(u32::to_le_bytes)
            .collect();
        std::fs::write(&path, &content).unwrap();
        let faults = Faults::new(512);
        let sources = FaultySources(vec![faults.clone()]);
        let reader = SourceReader::open(&sources, &path, SIZE as u64, bad_sectors).unwrap();
        (reader, faults, content)
    }

    fn resized<T: std::fmt::Debug>(result: Result<T, SourceError>) -> (u64, u64) {
        match result {
            Err(SourceError::Resized {
                expected, found, ..
            }) => (expected, found),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_disk_that_shrank_or_grew_says_so() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("disk");
        std::fs::write(&path, vec![1; 8192]).unwrap();
        let disk = SourceReader::open(&Files, &path, 8192, BadSectors::Zero).unwrap();
        let file = File::options().write(true).open(&path).unwrap();
        file.set_len(5000).unwrap();
        assert_eq!(resized(disk.read(4096, &mut vec![0; 4096])), (8192, 5000));
        file.set_len(9000).unwrap();
        assert_eq!(resized(disk.check_size()), (8192, 9000));
    }

    #[test]
    fn what_is_no_fault_of_the_medium_is_not_taken_apart() {
        let directory = tempfile::tempdir().unwrap();
        let size = std::fs::metadata(directory.path()).unwrap().len();
        // A directory opens but does not read.
        let Ok(disk) = SourceReader::open(&Files, directory.path(), size, BadSectors::Zero) else {
            return;
        };
        let error = disk.read(512, &mut [0; 10]).unwrap_err();
        assert!(matches!(
            error,
            SourceError::Read {
                offset: 512,
                length: 10,
                ..
            }
        ));
        assert_eq!(disk.answers(), u64::from(READ_TRIES));
    }

    #[test]
    fn a_read_that_fails_twice_and_one_that_comes_in_pieces_are_good() {
        let directory = tempfile::tempdir().unwrap();
        let (disk, faults, content) = failing(&directory, BadSectors::Fail);
        let mut buffer = AlignedBuffer::new(SIZE);
        faults.fail_reads(2);
        disk.read(0, buffer.as_mut_slice()).unwrap();
        assert_eq!(buffer.as_slice(), content);
        assert_eq!(faults.reads(), 3);
        faults.read_short(10_000);
        buffer.as_mut_slice().fill(0);
        disk.read(0, buffer.as_mut_slice()).unwrap();
        assert_eq!(buffer.as_slice(), content);
    }

    #[test]
    fn the_sectors_that_are_lost_are_named_and_no_others() {
        let directory = tempfile::tempdir().unwrap();
        let (disk, faults, _) = failing(&directory, BadSectors::Fail);
        // Two sectors, which lie in two pieces.
        faults.lose(65_535..65_537);
        let mut buffer = AlignedBuffer::new(SIZE);
        let error = disk.read(0, buffer.as_mut_slice()).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("source-0"), "{text}");
        assert!(text.contains("1024 bytes at byte 65024"), "{text}");
        assert!(faults.reads() < 300, "{} reads", faults.reads());
    }

    #[test]
    fn where_zeros_are_asked_for_only_the_lost_sectors_are_zeros() {
        let directory = tempfile::tempdir().unwrap();
        let (disk, faults, mut content) = failing(&directory, BadSectors::Zero);
        faults.lose(65_535..65_537);
        faults.lose(700..701);
        let mut buffer = AlignedBuffer::new(SIZE);
        let unreadable = disk.read(0, buffer.as_mut_slice()).unwrap();
        let range = |start, end| ByteRange { start, end };
        assert_eq!(unreadable, [range(512, 1024), range(65_024, 66_048)]);
        content[512..1024].fill(0);
        content[65_024..66_048].fill(0);
        assert_eq!(buffer.as_slice(), content);
        // A transient error while it is taken apart loses nothing more.
        faults.fail_reads(5);
        assert_eq!(disk.read(0, buffer.as_mut_slice()).unwrap(), unreadable);
    }

    #[test]
    fn a_disk_that_was_pulled_out_has_no_bad_sectors() {
        let directory = tempfile::tempdir().unwrap();
        let (disk, faults, _) = failing(&directory, BadSectors::Zero);
        let mut buffer = AlignedBuffer::new(SIZE / 2);
        disk.read(0, buffer.as_mut_slice()).unwrap();
        faults.lose(0..SIZE as u64);
        let error = disk
            .read(SIZE as u64 / 2, buffer.as_mut_slice())
            .unwrap_err();
        assert!(matches!(error, SourceError::Read { .. }), "{error}");
    }
}
