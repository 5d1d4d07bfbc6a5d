//! The receiver's durable memory of a disk: which chunks are written, and with which hash.
//!
//! # Why a crash can't make it lie
//!
//! The map is a journal beside the disk. What it says of a chunk is true of the disk's stable storage at every moment:
//!
//! - *Adding.* A flush syncs the disk, then appends one checksummed record to the journal and syncs that, and only then
//!   is anybody told. A crash before the record is whole leaves chunks without one: they are sent again.
//! - *Overwriting.* Before a chunk that the journal knows is written again, a record that forgets it is appended and
//!   synced. So a crash in the middle of the write finds no word of what the chunk was.
//! - *Unreadable ranges.* What the source can't read of a chunk, and is zeros on the disk, is recorded with the chunk
//!   and goes with it. Both stand in one record, so one without the other is never found.
//! - *Tearing.* A torn record fails its checksum. It and what follows is cut off when the map is opened, before
//!   anything is appended: adding is lost with it (sent again), and forgetting is lost only if its sync never answered,
//!   which means that the write it was for never began.
//! - *Failing.* After a failed sync nobody knows what is on the disk, so nothing is appended any more
//!   ([`crate::receiver`] ends the admission). The next one begins with what the journal has.
//!
//! All of that holds as far as the medium keeps what it has synced. One that does not loses what was written last: what
//! sat in its own volatile cache when power failed. So a map whose last record does not say that it was closed names
//! the chunks that were recorded last ([`Opened::unsure`]), and they are read again before anybody is told that they
//! are here.
//!
//! # Format
//!
//! Header: `WHCHUNKS`, version u32, chunk bytes u32, disk bytes u64, CRC-32 u32 of the 24 bytes before. Then records:
//! length u32 of the body, CRC-32 u32 of the body, body. The body is a sequence of entries: kind u8, first chunk u64,
//! and by kind: 1, zeros, count u32; 2, data, 32 bytes of hash (one chunk); 3, forgotten, count u32. Kind 5 has a first
//! byte u64 and a length u32 instead: what the source can't read of the chunk in front of it, which is in the same
//! record. Kind 6 is a fingerprint of the source, 32 bytes behind the kind, zeros for none ([`crate::unchanged`]); kind
//! 7 has first chunk and count, like 1 and 3, of chunks that were found to be what is known. All integers are
//! little-endian; later entries override earlier ones. A body of one byte, 4, says that the map was closed when nothing
//! was under way.

mod record;

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};

use crate::TransferError;
use crate::disk::{FileStorage, Storage, sync_parent};
use crate::unchanged::Unchanged;

use chunks::hashes::{Chunk, ChunkHashes, Hash, RunKind};
use chunks::{ByteRange, ChunkIndex, ChunkRange, ContentFingerprint};
use record::{RECORD_ENTRIES, decode, encode, records};

const MAGIC: &[u8; 8] = b"WHCHUNKS";
const VERSION: u32 = 2;
const HEADER: u64 = 28;
/// Bytes in front of a record's body.
const PREFIX: u64 = 8;
/// Bytes of a body at most: what is longer is no record of ours.
const MAX_BODY: u64 = 1 << 20;
/// A journal is written anew when it is opened with more than this and more than twice what it needs.
const COMPACT_FROM: u64 = 4 << 20;
/// The body of the record that says that a map was closed.
const CLOSED: [u8; 1] = [4];
/// Bytes of chunks that are read again where a map was not closed: twice what may wait for a flush, and more than disks
/// have of cache.
pub(crate) const UNSURE_BYTES: u64 = 256 << 20;
/// The same for ranges, which may be zeros that are not read.
const UNSURE_RANGES: usize = 4096;

/// A change of what is known of chunks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Written {
    /// Chunks of zeros.
    Zeros(ChunkRange),
    /// One chunk of data.
    Data {
        /// The chunk.
        chunk: ChunkIndex,
        /// BLAKE3 of its bytes.
        hash: Hash,
    },
    /// Bytes that the source can't read, of the chunk in front of this in the same record. They are zeros.
    Unreadable(ByteRange),
    /// Chunks that are about to be overwritten.
    Forgotten(ChunkRange),
    /// All that follows was read from the source with that fingerprint; without one it is not known.
    Fingerprint(Option<ContentFingerprint>),
    /// Chunks that were read again and found to be what is known.
    Same(ChunkRange),
}

impl Written {
    /// Enters it into what is known.
    ///
    /// # Errors
    /// The hashes can't be kept.
    pub fn apply(&self, hashes: &mut ChunkHashes) -> io::Result<()> {
        match self {
            Self::Zeros(range) => hashes.set_zero(*range),
            Self::Data { chunk, hash } => hashes.set(*chunk, Chunk::Data(*hash))?,
            Self::Unreadable(range) => {
                let _is_of_that_chunk = hashes.add_unreadable(*range);
            }
            Self::Forgotten(range) => hashes.forget(*range),
            Self::Fingerprint(_) | Self::Same(_) => {}
        }
        Ok(())
    }
}

/// A map that was opened.
#[derive(Debug)]
pub struct Opened {
    /// For appending.
    pub map: ChunkMap,
    /// The chunks that it knows.
    pub known: ChunkHashes,
    /// Those that were read from the source as it was last.
    pub unchanged: Unchanged,
    /// Chunks that were recorded last, where the map was not closed.
    pub unsure: Vec<ChunkRange>,
}

/// Chunks that were recorded last, until the map is closed.
#[derive(Debug)]
struct Recent {
    ranges: VecDeque<ChunkRange>,
    most: usize,
}

impl Recent {
    fn new(chunk_bytes: u32) -> Self {
        let chunks = usize::try_from(UNSURE_BYTES / u64::from(chunk_bytes)).unwrap_or(usize::MAX);
        Self {
            ranges: VecDeque::new(),
            most: chunks.clamp(1, UNSURE_RANGES),
        }
    }

    fn note(&mut self, entry: &Written) {
        let range = match entry {
            Written::Zeros(range) => *range,
            Written::Data { chunk, .. } => (*chunk).into(),
            Written::Unreadable(_)
            | Written::Forgotten(_)
            | Written::Fingerprint(_)
            | Written::Same(_) => {
                return;
            }
        };
        if self.ranges.len() >= self.most {
            self.ranges.pop_front();
        }
        self.ranges.push_back(range);
    }
}

/// The map of one disk, open for appending.
#[derive(Debug)]
pub struct ChunkMap {
    path: PathBuf,
    storage: Box<dyn Storage>,
    /// Place of the next record.
    length: u64,
}

impl ChunkMap {
    /// Opens the map of a disk, or begins a new one. A map of a disk of another size is begun anew. Hashes that don't
    /// fit memory lie beside it.
    ///
    /// # Errors
    /// The file can't be read or written.
    pub fn open(path: &Path, size_bytes: u64, chunk_bytes: u32) -> Result<Opened, TransferError> {
        let failed = |error| TransferError::target("open", path, error);
        let open = |path: &Path| FileStorage::open(path).map_err(failed);
        let beside = path.parent().unwrap_or(Path::new("."));
        let nothing = ChunkHashes::spilling(size_bytes, chunk_bytes, beside);
        let mut opened = Self::on(path, Box::new(open(path)?), nothing)?;
        if opened.map.length < COMPACT_FROM.max(2 * needed(&opened.known)) {
            return Ok(opened);
        }
        let new = path.with_extension("chunks-new");
        if new.exists() {
            std::fs::remove_file(&new).map_err(failed)?;
        }
        let nothing = ChunkHashes::new(size_bytes, chunk_bytes);
        let mut compact = Self::on(&new, Box::new(open(&new)?), nothing)?.map;
        compact.copy(&mut opened.known, &opened.unchanged)?;
        std::fs::rename(&new, path).map_err(failed)?;
        sync_parent(path).map_err(failed)?;
        compact.path = path.to_owned();
        opened.map = compact;
        Ok(opened)
    }

    /// The same on any storage; `path` is what errors say, and what is known goes to `hashes`, which know nothing of
    /// the disk yet.
    ///
    /// # Errors
    /// The storage can't be read or written.
    pub fn on(
        path: &Path,
        storage: Box<dyn Storage>,
        mut hashes: ChunkHashes,
    ) -> Result<Opened, TransferError> {
        let failed = |error| TransferError::target("open", path, error);
        let header = header(hashes.size_bytes(), hashes.chunk_bytes());
        let length = storage.length().map_err(failed)?;
        let mut found = [0; HEADER as usize];
        if length >= HEADER {
            storage.read(0, &mut found).map_err(failed)?;
        }
        let mut recent = Recent::new(hashes.chunk_bytes());
        let mut unchanged = Unchanged::new(hashes.chunks());
        let good = if found == header {
            let (known, unchanged) = (&mut hashes, &mut unchanged);
            replay(&*storage, length, known, unchanged, &mut recent).map_err(failed)?
        } else {
            // Emptied first: the records of another disk must never stand behind this one's header.
            storage.set_length(0).map_err(failed)?;
            storage.sync().map_err(failed)?;
            storage.write(0, &header).map_err(failed)?;
            HEADER
        };
        storage.set_length(good).map_err(failed)?;
        storage.sync().map_err(failed)?;
        let map = Self {
            path: path.to_owned(),
            storage,
            length: good,
        };
        Ok(Opened {
            map,
            known: hashes,
            unchanged,
            unsure: recent.ranges.into(),
        })
    }

    /// Records what has been written and flushed, or what is about to be overwritten; durable when this returns.
    ///
    /// # Errors
    /// The journal can't be written. Then nothing of it counts, and the map is not to be used again before it was
    /// opened anew.
    pub fn append(&mut self, written: &[Written]) -> Result<(), TransferError> {
        let mut end = self.length;
        for part in records(written) {
            end = self.write(end, &encode(part))?;
        }
        self.sync(end)
    }

    /// Records that nothing is under way. Whoever opens the map next need not look at the disk.
    ///
    /// # Errors
    /// As with [`ChunkMap::append`].
    pub fn close(&mut self) -> Result<(), TransferError> {
        let end = self.write(self.length, &CLOSED)?;
        self.sync(end)
    }

    /// Appends all that is known.
    fn copy(
        &mut self,
        known: &mut ChunkHashes,
        unchanged: &Unchanged,
    ) -> Result<(), TransferError> {
        let mut end = self.length;
        let mut next = ChunkIndex(0);
        while next < known.all().end() {
            let entries = entries(known, &mut next);
            let entries =
                entries.map_err(|error| TransferError::target("read", &self.path, error))?;
            if !entries.is_empty() {
                end = self.write(end, &encode(&entries))?;
            }
        }
        if unchanged.fingerprint().is_some() {
            let same = unchanged.ranges().map(Written::Same);
            let fingerprint = std::iter::once(Written::Fingerprint(unchanged.fingerprint()));
            let entries: Vec<Written> = fingerprint.chain(same).collect();
            for part in records(&entries) {
                end = self.write(end, &encode(part))?;
            }
        }
        self.sync(end)
    }

    /// Writes a record; answers with its end.
    fn write(&self, at: u64, body: &[u8]) -> Result<u64, TransferError> {
        let length = u32::try_from(body.len()).expect("a record is far below 4 GiB");
        let crc = crc32fast::hash(body);
        let record = [&length.to_le_bytes(), &crc.to_le_bytes(), body].concat();
        self.storage
            .write(at, &record)
            .map_err(|error| TransferError::target("write", &self.path, error))?;
        Ok(at + record.len() as u64)
    }

    fn sync(&mut self, end: u64) -> Result<(), TransferError> {
        self.storage
            .sync()
            .map_err(|error| TransferError::target("flush", &self.path, error))?;
        self.length = end;
        Ok(())
    }
}

fn header(size_bytes: u64, chunk_bytes: u32) -> [u8; HEADER as usize] {
    let mut header = [0; HEADER as usize];
    header[..8].copy_from_slice(MAGIC);
    header[8..12].copy_from_slice(&VERSION.to_le_bytes());
    header[12..16].copy_from_slice(&chunk_bytes.to_le_bytes());
    header[16..24].copy_from_slice(&size_bytes.to_le_bytes());
    let crc = crc32fast::hash(&header[..24]);
    header[24..].copy_from_slice(&crc.to_le_bytes());
    header
}

/// Applies whole records; answers with the length of the good part, header included.
fn replay(
    storage: &dyn Storage,
    length: u64,
    hashes: &mut ChunkHashes,
    unchanged: &mut Unchanged,
    recent: &mut Recent,
) -> io::Result<u64> {
    let mut good = HEADER;
    let mut body = Vec::new();
    while good + PREFIX <= length {
        let mut prefix = [0; PREFIX as usize];
        storage.read(good, &mut prefix)?;
        let [a, b, c, d, e, f, g, h] = prefix;
        let body_bytes = u64::from(u32::from_le_bytes([a, b, c, d]));
        let crc = u32::from_le_bytes([e, f, g, h]);
        if body_bytes == 0 || body_bytes > MAX_BODY || good + PREFIX + body_bytes > length {
            break;
        }
        body.resize(
            usize::try_from(body_bytes).expect("a record fits memory"),
            0,
        );
        storage.read(good + PREFIX, &mut body)?;
        if crc32fast::hash(&body) != crc {
            break;
        }
        if body == CLOSED {
            recent.ranges.clear();
            good += PREFIX + body_bytes;
            continue;
        }
        let Some(entries) = decode(&body, hashes) else {
            break;
        };
        for entry in &entries {
            entry.apply(hashes)?;
            unchanged.apply(entry);
            recent.note(entry);
        }
        good += PREFIX + body_bytes;
    }
    Ok(good)
}

/// Bytes of the shortest journal that says this.
fn needed(hashes: &ChunkHashes) -> u64 {
    let runs = hashes.runs(hashes.all());
    runs.map(|run| match run.kind {
        RunKind::Unknown => 0,
        RunKind::Zero => 13,
        RunKind::Data => 41 * run.chunks.count,
    })
    .sum::<u64>()
        + 13 * hashes.unreadable_ranges() as u64
}

/// Returns the next record of a journal that says this, from chunk `next` on.
fn entries(hashes: &mut ChunkHashes, next: &mut ChunkIndex) -> io::Result<Vec<Written>> {
    let end = hashes.all().end();
    let mut entries = Vec::new();
    while entries.len() < RECORD_ENTRIES && *next < end {
        let chunk = *next;
        if let Chunk::Data(hash) = hashes.get(chunk)? {
            entries.push(Written::Data { chunk, hash });
            *next = chunk.next();
        } else {
            let run = hashes.runs(ChunkRange::between(chunk, end)).next();
            let range = run.map_or(chunk.into(), |run| run.chunks);
            if hashes.kind(chunk) == RunKind::Zero {
                entries.push(Written::Zeros(range));
            }
            *next = range.end();
        }
        let unreadable = hashes.unreadable_within(ChunkRange::between(chunk, *next));
        entries.extend(unreadable.map(Written::Unreadable));
    }
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHUNK: u32 = 8;
    const SIZE: u64 = 800;

    fn data(chunk: u64, byte: u8) -> Written {
        Written::Data {
            chunk: ChunkIndex(chunk),
            hash: [byte; 32],
        }
    }

    fn list(hashes: &mut ChunkHashes) -> Vec<Chunk> {
        let chunks = hashes.all().iter();
        chunks.map(|chunk| hashes.get(chunk).unwrap()).collect()
    }

    fn open(path: &Path) -> (ChunkMap, ChunkHashes) {
        let opened = ChunkMap::open(path, SIZE, CHUNK).unwrap();
        (opened.map, opened.known)
    }

    /// Three records: data and zeros, an overwrite, more data. Answers with what is known behind each.
    fn write_journal(path: &Path) -> Vec<(u64, Vec<Chunk>)> {
        let (mut map, mut hashes) = open(path);
        let mut states = vec![(map.length, list(&mut hashes))];
        let records = [
            vec![
                data(0, 1),
                data(99, 2),
                Written::Zeros(ChunkRange::new(10, 80)),
            ],
            vec![Written::Forgotten(ChunkRange::new(9, 3)), data(0, 3)],
            vec![data(10, 4)],
        ];
        for record in records {
            map.append(&record).unwrap();
            for entry in &record {
                entry.apply(&mut hashes).unwrap();
            }
            states.push((map.length, list(&mut hashes)));
        }
        states
    }

    /// Returns what is known when this many bytes of the journal are good.
    fn known_at(states: &[(u64, Vec<Chunk>)], length: u64) -> &[Chunk] {
        let whole = states.iter().rev().find(|(end, _)| *end <= length);
        &whole.unwrap_or(&states[0]).1
    }

    #[test]
    fn cut_anywhere_it_knows_what_its_whole_records_say() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("map");
        let states = write_journal(&path);
        let bytes = std::fs::read(&path).unwrap();
        let cut = directory.path().join("cut");
        for length in 0..=bytes.len() {
            std::fs::write(&cut, &bytes[..length]).unwrap();
            let (mut map, mut hashes) = open(&cut);
            let whole = known_at(&states, length as u64);
            assert_eq!(list(&mut hashes), whole, "cut at {length}");
            // What is appended behind a cut counts.
            map.append(&[data(50, 9)]).unwrap();
            let (_, mut reopened) = open(&cut);
            assert_eq!(
                reopened.get(ChunkIndex(50)).unwrap(),
                Chunk::Data([9; 32]),
                "cut at {length}"
            );
            assert_eq!(reopened.get(ChunkIndex(0)).unwrap(), whole[0]);
        }
    }

    #[test]
    fn with_any_bit_flipped_it_knows_no_more_than_it_was_told() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("map");
        let states = write_journal(&path);
        let bytes = std::fs::read(&path).unwrap();
        let flipped = directory.path().join("flipped");
        for bit in 0..bytes.len() * 8 {
            let mut changed = bytes.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            std::fs::write(&flipped, &changed).unwrap();
            let (_, mut hashes) = open(&flipped);
            let before = known_at(&states, bit as u64 / 8);
            assert_eq!(list(&mut hashes), before, "bit {bit}");
        }
    }

    #[test]
    fn a_map_that_was_not_closed_says_what_was_recorded_last() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("map");
        write_journal(&path);
        let unsure = |path: &Path| ChunkMap::open(path, SIZE, CHUNK).unwrap().unsure;
        let range = ChunkRange::new;
        let recorded =
            [(0, 1), (99, 1), (10, 80), (0, 1), (10, 1)].map(|(first, count)| range(first, count));
        assert_eq!(unsure(&path), recorded);
        let (mut map, _) = open(&path);
        map.close().unwrap();
        assert!(unsure(&path).is_empty(), "it was closed");
        let (mut map, _) = open(&path);
        map.append(&[data(7, 7)]).unwrap();
        assert_eq!(unsure(&path), [range(7, 1)], "it was opened again and fell");

        // With chunks of the usual size, the last 256 MiB.
        let path = directory.path().join("large");
        let size = 1000 << 20;
        let mut map = ChunkMap::open(&path, size, 1 << 20).unwrap().map;
        map.append(&(0..1000).map(|chunk| data(chunk, 1)).collect::<Vec<_>>())
            .unwrap();
        let unsure = ChunkMap::open(&path, size, 1 << 20).unwrap().unsure;
        let last: Vec<ChunkRange> = (744..1000).map(|chunk| range(chunk, 1)).collect();
        assert_eq!(unsure, last);
    }

    #[test]
    fn a_map_of_another_disk_is_begun_anew() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("map");
        write_journal(&path);
        let other = ChunkMap::open(&path, SIZE + 1, CHUNK).unwrap();
        assert_eq!(other.known.known(), 0);
        assert_eq!(
            open(&path).1.known(),
            0,
            "what stood behind the other header is gone"
        );
    }

    #[test]
    fn a_journal_that_says_the_same_again_and_again_is_written_anew() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("map.chunks");
        let size = 100_000 * u64::from(CHUNK);
        let open = || ChunkMap::open(&path, size, CHUNK).unwrap();
        let Opened {
            mut map,
            known: mut hashes,
            ..
        } = open();
        for round in 0..3 {
            let mut all: Vec<Written> = (0..50_000).map(|chunk| data(chunk, round)).collect();
            all.push(Written::Zeros(ChunkRange::new(60_000, 7)));
            map.append(&all).unwrap();
            for entry in &all {
                entry.apply(&mut hashes).unwrap();
            }
        }
        let long = std::fs::metadata(&path).unwrap().len();
        let mut reopened = open();
        assert_eq!(list(&mut reopened.known), list(&mut hashes));
        assert!(std::fs::metadata(&path).unwrap().len() < long / 2);
        reopened.map.append(&[data(99_999, 7)]).unwrap();
        let mut reopened = open().known;
        hashes
            .set(ChunkIndex(99_999), Chunk::Data([7; 32]))
            .unwrap();
        assert_eq!(list(&mut reopened), list(&mut hashes));
    }
}
