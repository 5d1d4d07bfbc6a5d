//! The receiver's durable memory of a disk: which chunks are written, and with which hash.
//!
//! # Why a crash can't make it lie
//!
//! The map is a journal beside the disk. What it says of a chunk is true of the disk's stable storage at every moment:
//!
//! - *Adding.* A flush syncs the disk, then appends one checksummed record to the journal and syncs that, and only then is anybody told. A crash
//!   before the record is whole leaves chunks without one: they are sent again.
//! - *Overwriting.* Before a chunk that the journal knows is written again, a record that forgets it is appended and synced. So a crash in the
//!   middle of the write finds no word of what the chunk was.
//! - *Tearing.* A torn record fails its checksum. It and what follows is cut off when the map is opened, before anything is appended: adding is
//!   lost with it (sent again), and forgetting is lost only if its sync never answered, which means that the write it was for
//!   never began.
//! - *Failing.* After a failed sync nobody knows what is on the disk, so nothing is appended any more ([`crate::receiver`] ends the admission).
//!   The next one begins with what the journal has.
//!
//! # Format
//!
//! Header: `WHCHUNKS`, version u32, chunk bytes u32, disk bytes u64, CRC-32 u32 of the 24 bytes before. Then records: length u32 of the body,
//! CRC-32 u32 of the body, body. The body is a sequence of entries: kind u8, first chunk u64, and by kind: 1, zeros, count u32; 2, data, 32
//! bytes of hash (one chunk); 3, forgotten, count u32. All integers are little-endian; later entries override earlier ones.

use std::path::{Path, PathBuf};

use crate::TransferError;
use crate::disk::{FileStorage, Storage, sync_parent};
use crate::hashes::{Chunk, ChunkHashes, Hash, RunKind};

const MAGIC: &[u8; 8] = b"WHCHUNKS";
const VERSION: u32 = 1;
const HEADER: u64 = 28;
/// Bytes in front of a record's body.
const PREFIX: u64 = 8;
/// Entries in a record at most, and bytes of a body at most: what is longer is no record of ours.
const RECORD_ENTRIES: usize = 16_384;
const MAX_BODY: u64 = 1 << 20;
/// A journal is written anew when it is opened with more than this and more than twice what it needs.
const COMPACT_FROM: u64 = 4 << 20;

/// What became of a chunk, or of a stretch of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Written {
    /// Chunks of zeros.
    Zeros {
        /// The first.
        start: u64,
        /// How many.
        count: u64,
    },
    /// One chunk of data.
    Data {
        /// Which.
        chunk: u64,
        /// BLAKE3 of its bytes.
        hash: Hash,
    },
    /// Chunks that are about to be overwritten.
    Forgotten {
        /// The first.
        start: u64,
        /// How many.
        count: u64,
    },
}

impl Written {
    /// Enters it into what is known.
    pub fn apply(&self, hashes: &mut ChunkHashes) {
        match self {
            Self::Zeros { start, count } => hashes.set_zero(*start, *count),
            Self::Data { chunk, hash } => hashes.set(*chunk, Chunk::Data(*hash)),
            Self::Forgotten { start, count } => hashes.forget(*start, *count),
        }
    }
}

/// The map of one disk, open for appending.
#[derive(Debug)]
pub struct ChunkMap {
    path: PathBuf,
    storage: Box<dyn Storage>,
    /// Where the next record goes.
    length: u64,
}

impl ChunkMap {
    /// Opens the map of a disk, or begins a new one, and answers with what it knows. A map of a disk of another size is begun anew.
    ///
    /// # Errors
    /// The file can't be read or written.
    pub fn open(
        path: &Path,
        size_bytes: u64,
        chunk_bytes: u32,
    ) -> Result<(Self, ChunkHashes), TransferError> {
        let failed = |error| TransferError::target("open", path, error);
        let open = || FileStorage::open(path).map_err(failed);
        let (map, hashes) = Self::on(path, Box::new(open()?), size_bytes, chunk_bytes)?;
        if map.length < COMPACT_FROM.max(2 * needed(&hashes)) {
            return Ok((map, hashes));
        }
        let new = path.with_extension("chunks-new");
        if new.exists() {
            std::fs::remove_file(&new).map_err(failed)?;
        }
        let storage = Box::new(FileStorage::open(&new).map_err(failed)?);
        let (mut compact, _) = Self::on(&new, storage, size_bytes, chunk_bytes)?;
        compact.append(&entries(&hashes))?;
        std::fs::rename(&new, path).map_err(failed)?;
        sync_parent(path).map_err(failed)?;
        compact.path = path.to_owned();
        Ok((compact, hashes))
    }

    /// The same on any storage; `path` is what errors say.
    ///
    /// # Errors
    /// The storage can't be read or written.
    pub fn on(
        path: &Path,
        storage: Box<dyn Storage>,
        size_bytes: u64,
        chunk_bytes: u32,
    ) -> Result<(Self, ChunkHashes), TransferError> {
        let failed = |error| TransferError::target("open", path, error);
        let header = header(size_bytes, chunk_bytes);
        let mut hashes = ChunkHashes::new(size_bytes, chunk_bytes);
        let length = storage.length().map_err(failed)?;
        let mut found = [0; HEADER as usize];
        if length >= HEADER {
            storage.read(0, &mut found).map_err(failed)?;
        }
        let good = if found == header {
            replay(&*storage, length, &mut hashes).map_err(failed)?
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
        Ok((map, hashes))
    }

    /// Records what has been written and flushed, or what is about to be overwritten; durable when this returns.
    ///
    /// # Errors
    /// The journal can't be written. Then nothing of it counts, and the map is not to be used again before it was opened anew.
    pub fn append(&mut self, written: &[Written]) -> Result<(), TransferError> {
        let mut end = self.length;
        for part in written.chunks(RECORD_ENTRIES) {
            let body = encode(part);
            let mut record = Vec::with_capacity(body.len() + 8);
            let length = u32::try_from(body.len()).expect("a record is far below 4 GiB");
            record.extend(length.to_le_bytes());
            record.extend(crc32fast::hash(&body).to_le_bytes());
            record.extend(&body);
            self.storage
                .write(end, &record)
                .map_err(|error| TransferError::target("write", &self.path, error))?;
            end += record.len() as u64;
        }
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

fn encode(written: &[Written]) -> Vec<u8> {
    let mut body = Vec::new();
    for entry in written {
        match entry {
            Written::Zeros { start, count } => encode_stretch(&mut body, 1, *start, *count),
            Written::Forgotten { start, count } => encode_stretch(&mut body, 3, *start, *count),
            Written::Data { chunk, hash } => {
                body.push(2);
                body.extend(chunk.to_le_bytes());
                body.extend(hash);
            }
        }
    }
    body
}

/// A count fits 32 bits up to 4 PiB; longer stretches are split.
fn encode_stretch(body: &mut Vec<u8>, kind: u8, mut start: u64, mut left: u64) {
    while left > 0 {
        let piece = u32::try_from(left).unwrap_or(u32::MAX);
        body.push(kind);
        body.extend(start.to_le_bytes());
        body.extend(piece.to_le_bytes());
        start += u64::from(piece);
        left -= u64::from(piece);
    }
}

/// Applies whole records; answers with the length of the good part, header included.
fn replay(storage: &dyn Storage, length: u64, hashes: &mut ChunkHashes) -> std::io::Result<u64> {
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
        let Some(entries) = decode(&body, hashes.chunks()) else {
            break;
        };
        entries.iter().for_each(|entry| entry.apply(hashes));
        good += PREFIX + body_bytes;
    }
    Ok(good)
}

fn decode(mut body: &[u8], chunks: u64) -> Option<Vec<Written>> {
    let mut entries = Vec::new();
    while let Some((&kind, rest)) = body.split_first() {
        let (first, rest) = rest.split_first_chunk::<8>()?;
        let first = u64::from_le_bytes(*first);
        let (entry, count, rest) = match kind {
            1 | 3 => {
                let (count, rest) = rest.split_first_chunk::<4>()?;
                let count = u64::from(u32::from_le_bytes(*count));
                let entry = if kind == 1 {
                    Written::Zeros {
                        start: first,
                        count,
                    }
                } else {
                    Written::Forgotten {
                        start: first,
                        count,
                    }
                };
                (entry, count, rest)
            }
            2 => {
                let (hash, rest) = rest.split_first_chunk::<32>()?;
                let entry = Written::Data {
                    chunk: first,
                    hash: *hash,
                };
                (entry, 1, rest)
            }
            _ => return None,
        };
        if first.checked_add(count)? > chunks {
            return None;
        }
        entries.push(entry);
        body = rest;
    }
    Some(entries)
}

/// Bytes of the shortest journal that says this.
fn needed(hashes: &ChunkHashes) -> u64 {
    let runs = hashes.runs(0, hashes.chunks());
    runs.iter()
        .map(|run| match run.kind {
            RunKind::Unknown => 0,
            RunKind::Zero => 13,
            RunKind::Data => 41 * run.count,
        })
        .sum()
}

/// What a journal that says this holds.
fn entries(hashes: &ChunkHashes) -> Vec<Written> {
    let mut entries = Vec::new();
    for run in hashes.runs(0, hashes.chunks()) {
        match run.kind {
            RunKind::Unknown => {}
            RunKind::Zero => entries.push(Written::Zeros {
                start: run.start,
                count: run.count,
            }),
            RunKind::Data => {
                for chunk in run.start..run.start + run.count {
                    if let Chunk::Data(hash) = hashes.get(chunk) {
                        entries.push(Written::Data { chunk, hash });
                    }
                }
            }
        }
    }
    entries
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHUNK: u32 = 8;
    const SIZE: u64 = 800;

    fn data(chunk: u64, byte: u8) -> Written {
        Written::Data {
            chunk,
            hash: [byte; 32],
        }
    }

    /// Three records: data and zeros, an overwrite, more data.
    fn write_journal(path: &Path) -> Vec<(u64, ChunkHashes)> {
        let (mut map, mut hashes) = ChunkMap::open(path, SIZE, CHUNK).unwrap();
        let mut states = vec![(map.length, hashes.clone())];
        let records = [
            vec![
                data(0, 1),
                data(99, 2),
                Written::Zeros {
                    start: 10,
                    count: 80,
                },
            ],
            vec![Written::Forgotten { start: 9, count: 3 }, data(0, 3)],
            vec![data(10, 4)],
        ];
        for record in records {
            map.append(&record).unwrap();
            record.iter().for_each(|entry| entry.apply(&mut hashes));
            states.push((map.length, hashes.clone()));
        }
        states
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
            let (mut map, hashes) = ChunkMap::open(&cut, SIZE, CHUNK).unwrap();
            let whole = states
                .iter()
                .rev()
                .find(|(end, _)| *end <= length as u64)
                .map_or(&states[0], |state| state);
            assert_eq!(hashes, whole.1, "cut at {length}");
            // What is appended behind a cut counts.
            map.append(&[data(50, 9)]).unwrap();
            let (_, reopened) = ChunkMap::open(&cut, SIZE, CHUNK).unwrap();
            assert_eq!(reopened.get(50), Chunk::Data([9; 32]), "cut at {length}");
            assert_eq!(reopened.get(0), whole.1.get(0));
        }
    }

    #[test]
    fn flipped_anywhere_it_knows_no_more_than_it_was_told() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("map");
        let states = write_journal(&path);
        let bytes = std::fs::read(&path).unwrap();
        let flipped = directory.path().join("flipped");
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 0x10;
            std::fs::write(&flipped, &changed).unwrap();
            let (_, hashes) = ChunkMap::open(&flipped, SIZE, CHUNK).unwrap();
            let before = states
                .iter()
                .rev()
                .find(|(end, _)| *end <= at as u64)
                .map_or(&states[0], |state| state);
            assert_eq!(hashes, before.1, "flipped at {at}");
        }
    }

    #[test]
    fn a_map_of_another_disk_is_begun_anew() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("map");
        write_journal(&path);
        let (_, hashes) = ChunkMap::open(&path, SIZE + 1, CHUNK).unwrap();
        assert_eq!(hashes.known(), 0);
        let (_, hashes) = ChunkMap::open(&path, SIZE, CHUNK).unwrap();
        assert_eq!(
            hashes.known(),
            0,
            "what stood behind the other header is gone"
        );
    }

    #[test]
    fn a_journal_that_says_the_same_again_and_again_is_written_anew() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("map.chunks");
        let size = 100_000 * u64::from(CHUNK);
        let (mut map, mut hashes) = ChunkMap::open(&path, size, CHUNK).unwrap();
        for round in 0..3 {
            let all: Vec<Written> = (0..50_000).map(|chunk| data(chunk, round)).collect();
            map.append(&all).unwrap();
            all.iter().for_each(|entry| entry.apply(&mut hashes));
        }
        let long = std::fs::metadata(&path).unwrap().len();
        let (mut map, reopened) = ChunkMap::open(&path, size, CHUNK).unwrap();
        assert_eq!(reopened, hashes);
        assert!(std::fs::metadata(&path).unwrap().len() < long / 2);
        map.append(&[data(99_999, 7)]).unwrap();
        let (_, reopened) = ChunkMap::open(&path, size, CHUNK).unwrap();
        assert_eq!(reopened.get(99_999), Chunk::Data([7; 32]));
        assert_eq!(reopened.get(49_999), Chunk::Data([2; 32]));
    }
}
