//! The receiver's durable memory of a disk: which chunks are written, and with which hash.
//!
//! # Why a crash can't make it lie
//!
//! The map is a journal beside the disk. A flush does three things in this order:
//!
//! 1. `fdatasync` of the disk: the chunks' bytes are on stable storage;
//! 2. append of one checksummed record to the journal, and `fdatasync` of it;
//! 3. the receipt to the sender and to the worker.
//!
//! A crash before 2 leaves chunks without a record: they are sent again. A torn record fails its checksum; it and what follows is cut
//! off at the next start, and its chunks are sent again. No order of losses leaves a record whose chunks are not on the disk.
//! Overwriting a chunk that has a record is safe for the same reason that the root is compared at the end: a map that
//! disagrees with the disk shows when the disk is re-read (`Checksum`), and its chunk hash when the image is verified.
//!
//! # Format
//!
//! Header: `WHCHUNKS`, version u32, chunk bytes u32, disk bytes u64, CRC-32 u32 of the 24 bytes before. Then records: length u32 of the body,
//! CRC-32 u32 of the body, body. The body is a sequence of entries: kind u8 (1 zeros, 2 data), first chunk u64, count u32 for zeros or
//! 32 bytes of hash for data (one chunk). All integers are little-endian.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use crate::TransferError;
use crate::hashes::{Chunk, ChunkHashes, Hash};

const MAGIC: &[u8; 8] = b"WHCHUNKS";
const VERSION: u32 = 1;
const HEADER: usize = 28;
/// Longer bodies than this are no records of ours.
const MAX_BODY: usize = 64 << 20;

/// A chunk, or a stretch of zeros, that has been written.
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
}

/// The map of one disk, open for appending.
#[derive(Debug)]
pub struct ChunkMap {
    path: PathBuf,
    file: File,
    hashes: ChunkHashes,
}

impl ChunkMap {
    /// Opens the map of a disk, or begins a new one. A map of a disk of another size is not used: it is begun anew.
    ///
    /// # Errors
    /// The file can't be read or written.
    pub fn open(path: &Path, size_bytes: u64, chunk_bytes: u32) -> Result<Self, TransferError> {
        let failed = |error| TransferError::target("open", path, error);
        let mut file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .map_err(failed)?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(failed)?;
        let mut hashes = ChunkHashes::new(size_bytes, chunk_bytes);
        let good = if bytes.get(..HEADER) == Some(&header(size_bytes, chunk_bytes)[..]) {
            HEADER + replay(&bytes[HEADER..], &mut hashes)
        } else {
            file.seek(SeekFrom::Start(0)).map_err(failed)?;
            file.write_all(&header(size_bytes, chunk_bytes))
                .map_err(failed)?;
            HEADER
        };
        file.set_len(good as u64).map_err(failed)?;
        file.seek(SeekFrom::End(0)).map_err(failed)?;
        file.sync_all().map_err(failed)?;
        Ok(Self {
            path: path.to_owned(),
            file,
            hashes,
        })
    }

    /// What is durably there.
    pub fn hashes(&self) -> &ChunkHashes {
        &self.hashes
    }

    /// Records what has been written and flushed; durable when this returns.
    ///
    /// # Errors
    /// The journal can't be written; then nothing of it counts.
    pub fn append(&mut self, written: &[Written]) -> Result<(), TransferError> {
        for part in written.chunks(100_000) {
            let body = encode(part);
            let mut record = Vec::with_capacity(8 + body.len());
            record.extend(
                u32::try_from(body.len())
                    .expect("a record is far below 4 GiB")
                    .to_le_bytes(),
            );
            record.extend(crc32fast::hash(&body).to_le_bytes());
            record.extend(&body);
            self.file
                .write_all(&record)
                .map_err(|error| TransferError::target("write", &self.path, error))?;
        }
        self.file
            .sync_data()
            .map_err(|error| TransferError::target("flush", &self.path, error))?;
        for entry in written {
            apply(&mut self.hashes, entry);
        }
        Ok(())
    }

    /// Forgets everything: the disk is not what the map says.
    pub fn clear(&mut self) -> Result<(), TransferError> {
        let failed = |error| TransferError::target("clear", &self.path, error);
        self.file.set_len(HEADER as u64).map_err(failed)?;
        self.file.seek(SeekFrom::End(0)).map_err(failed)?;
        self.file.sync_all().map_err(failed)?;
        self.hashes = ChunkHashes::new(self.hashes.size_bytes(), self.hashes.chunk_bytes());
        Ok(())
    }
}

fn header(size_bytes: u64, chunk_bytes: u32) -> Vec<u8> {
    let mut header = Vec::with_capacity(HEADER);
    header.extend(MAGIC);
    header.extend(VERSION.to_le_bytes());
    header.extend(chunk_bytes.to_le_bytes());
    header.extend(size_bytes.to_le_bytes());
    header.extend(crc32fast::hash(&header).to_le_bytes());
    header
}

fn encode(written: &[Written]) -> Vec<u8> {
    let mut body = Vec::new();
    for entry in written {
        match entry {
            Written::Zeros { start, count } => {
                // A count fits 32 bits up to 4 PiB of zeros; longer stretches are split.
                let (mut start, mut left) = (*start, *count);
                while left > 0 {
                    let piece = u32::try_from(left).unwrap_or(u32::MAX);
                    body.push(1);
                    body.extend(start.to_le_bytes());
                    body.extend(piece.to_le_bytes());
                    start += u64::from(piece);
                    left -= u64::from(piece);
                }
            }
            Written::Data { chunk, hash } => {
                body.push(2);
                body.extend(chunk.to_le_bytes());
                body.extend(hash);
            }
        }
    }
    body
}

/// Applies whole records; answers with the length of the good part.
fn replay(mut bytes: &[u8], hashes: &mut ChunkHashes) -> usize {
    let mut good = 0;
    while let Some((length, rest)) = bytes.split_first_chunk::<4>() {
        let Some((crc, rest)) = rest.split_first_chunk::<4>() else {
            break;
        };
        let length = u32::from_le_bytes(*length) as usize;
        let Some((body, rest)) = (length <= MAX_BODY)
            .then(|| rest.split_at_checked(length))
            .flatten()
        else {
            break;
        };
        let Some(entries) = (crc32fast::hash(body) == u32::from_le_bytes(*crc))
            .then(|| decode(body, hashes.chunks()))
            .flatten()
        else {
            break;
        };
        for entry in &entries {
            apply(hashes, entry);
        }
        good += 8 + length;
        bytes = rest;
    }
    good
}

fn decode(mut body: &[u8], chunks: u64) -> Option<Vec<Written>> {
    let mut entries = Vec::new();
    while let Some((&kind, rest)) = body.split_first() {
        let (first, rest) = rest.split_first_chunk::<8>()?;
        let first = u64::from_le_bytes(*first);
        let (entry, count, rest) = match kind {
            1 => {
                let (count, rest) = rest.split_first_chunk::<4>()?;
                let count = u64::from(u32::from_le_bytes(*count));
                (
                    Written::Zeros {
                        start: first,
                        count,
                    },
                    count,
                    rest,
                )
            }
            2 => {
                let (hash, rest) = rest.split_first_chunk::<32>()?;
                (
                    Written::Data {
                        chunk: first,
                        hash: *hash,
                    },
                    1,
                    rest,
                )
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

fn apply(hashes: &mut ChunkHashes, entry: &Written) {
    match entry {
        Written::Zeros { start, count } => hashes.set_zero(*start, *count),
        Written::Data { chunk, hash } => hashes.set(*chunk, Chunk::Data(*hash)),
    }
}
