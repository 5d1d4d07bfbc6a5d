//! Sources that fail, for tests: in virtual time, and over real transports. The feature `faulty` has them; no
//! production build asks for it.

use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use chunks::{ByteRange, ContentFingerprint};

use super::{FileSource, Source, Sources};
use crate::Observed;

/// The error of the operating system for a sector that can't be read.
const EIO: i32 = 5;

/// The faults of a disk. Its clones are of the same disk, so it can be changed during a read.
#[derive(Debug, Clone)]
pub struct Faults(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    sector_bytes: usize,
    /// Bytes that can't be read, nor what shares a sector with them; in order.
    unreadable: Vec<Range<u64>>,
    /// So many reads fail, whatever they are for.
    failing_reads: u64,
    /// Most bytes that a read gives at once.
    most_bytes: usize,
    /// The size that the disk has got, once so many bytes were read of it.
    resized: Option<(u64, u64)>,
    reads: u64,
    bytes_read: u64,
    /// The content that the fingerprint is of; `None` if the disk can't tell whether it was written.
    content: Option<u8>,
}

impl Faults {
    /// None, on a disk with sectors of so many bytes.
    pub fn new(sector_bytes: usize) -> Self {
        Self(Arc::new(Mutex::new(State {
            sector_bytes,
            unreadable: Vec::new(),
            failing_reads: 0,
            most_bytes: usize::MAX,
            resized: None,
            reads: 0,
            bytes_read: 0,
            content: None,
        })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("no holder of this lock can panic")
    }

    /// From here on these bytes, and what shares a sector with them, can't be read.
    pub fn lose(&self, bytes: Range<u64>) {
        let lost = &mut self.state().unreadable;
        let at = lost.partition_point(|known| known.start < bytes.start);
        lost.insert(at, bytes);
    }

    /// From here on everything can be read.
    pub fn heal(&self) {
        self.state().unreadable.clear();
    }

    /// The next reads fail, so many of them.
    pub fn fail_reads(&self, count: u64) {
        self.state().failing_reads = count;
    }

    /// A read gives at most so many bytes.
    pub fn read_short(&self, most_bytes: usize) {
        self.state().most_bytes = most_bytes.max(1);
    }

    /// The disk gets another size, once so many bytes were read of it.
    pub fn resize_after(&self, bytes_read: u64, size_bytes: u64) {
        self.state().resized = Some((bytes_read, size_bytes));
    }

    /// From here on the disk can tell whether it was written: it has the fingerprint of this content.
    pub fn has_content(&self, content: u8) {
        self.state().content = Some(content);
    }

    /// Bytes that were read of it.
    pub fn bytes_read(&self) -> u64 {
        self.state().bytes_read
    }

    /// Number of reads.
    pub fn reads(&self) -> u64 {
        self.state().reads
    }
}

/// Opens files whose names end in a disk's number, each with the faults of that disk.
#[derive(Debug, Clone)]
pub struct FaultySources(pub Vec<Faults>);

impl Sources for FaultySources {
    fn open(&self, path: &Path) -> io::Result<Box<dyn Source>> {
        let digits = path.to_string_lossy();
        let faults = digits
            .rsplit('-')
            .next()
            .and_then(|number| number.parse::<usize>().ok())
            .and_then(|number| self.0.get(number))
            .ok_or(io::ErrorKind::NotFound)?;
        Ok(Box::new(FaultySource {
            file: FileSource::open(path)?,
            faults: faults.clone(),
        }))
    }
}

#[derive(Debug)]
struct FaultySource {
    file: FileSource,
    faults: Faults,
}

impl FaultySource {
    /// The size that the disk has got, if it has.
    fn resized(&self) -> Option<u64> {
        let state = self.faults.state();
        state
            .resized
            .filter(|(after, _)| state.bytes_read >= *after)
            .map(|(_, size_bytes)| size_bytes)
    }
}

impl Source for FaultySource {
    fn length(&self) -> io::Result<u64> {
        self.resized().map_or_else(|| self.file.length(), Ok)
    }

    fn sector_bytes(&self) -> usize {
        self.faults.state().sector_bytes
    }

    fn extents(&self, size_bytes: u64) -> Vec<ByteRange> {
        self.file.extents(size_bytes)
    }

    fn observe(&self) -> Observed {
        let content = self.faults.state().content;
        content.map_or(Observed::Unknown, |content| {
            Observed::Still(ContentFingerprint([content; 32]))
        })
    }

    fn read(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let wanted = {
            let mut state = self.faults.state();
            state.reads += 1;
            if state.failing_reads > 0 {
                state.failing_reads -= 1;
                return Err(io::Error::from_raw_os_error(EIO));
            }
            let wanted = buffer.len().min(state.most_bytes);
            let sector = state.sector_bytes as u64;
            let end = offset + wanted as u64;
            let lost = &state.unreadable;
            let first = lost.partition_point(|lost| lost.end.next_multiple_of(sector) <= offset);
            let is_lost = lost
                .get(first)
                .is_some_and(|lost| lost.start / sector * sector < end);
            if is_lost {
                return Err(io::Error::from_raw_os_error(EIO));
            }
            state.bytes_read += wanted as u64;
            wanted
        };
        let left = self
            .resized()
            .map_or(u64::MAX, |size_bytes| size_bytes.saturating_sub(offset));
        let wanted = usize::try_from(left).map_or(wanted, |left| left.min(wanted));
        self.file.read(offset, &mut buffer[..wanted])
    }

    /// A test does not wait for a disk that fails, and in virtual time nothing that blocks takes time.
    fn wait(&self, _lasts: Duration) {}
}
