//! One target disk: its file, its chunk map, and what is written but not yet flushed. Knows no connection and no fence.
//!
//! Callers write no chunk twice between two flushes, and not from two threads at once ([`super::session`],
//! [`crate::fence`]); everything else that [`crate::chunk_map`] promises is kept here.

#[cfg(test)]
mod crash;

use std::io;
use std::path::Path;
use std::sync::{Mutex, MutexGuard};

use chunks::hashes::{Chunk, ChunkHashes, Hash, RunKind};
use chunks::unreadable::MOST_UNREADABLE_RANGES;
use chunks::{ByteRange, ChunkIndex, ChunkRange, ContentFingerprint};
use domain::disk::DiskIndex;

use super::{Receipt, TargetDisk, disk_path};
use crate::TransferError;
use crate::chunk_map::{ChunkMap, Opened, UNSURE_BYTES, Written};
use crate::disk::{Found, TargetWriter};
use crate::error::RemoteFailure;
use crate::protocol::{Page, SentDisk};
use crate::unchanged::Unchanged;

#[derive(Debug)]
pub(crate) struct JournaledDisk {
    pub(super) spec: TargetDisk,
    chunk_bytes: u32,
    writer: TargetWriter,
    /// Taken before `state`, and held while the journal is written.
    map: Mutex<ChunkMap>,
    state: Mutex<State>,
}

/// A chunk of data as it has come.
#[derive(Debug)]
pub(super) struct Arriving<'a> {
    /// The chunk.
    pub(super) chunk: ChunkIndex,
    /// The hash that it must have.
    pub(super) hash: Hash,
    pub(super) bytes: &'a [u8],
    /// Its ranges that the source can't read, in order.
    pub(super) unreadable: &'a [ByteRange],
}

#[derive(Debug)]
struct State {
    /// The chunks that the journal has.
    durable: ChunkHashes,
    /// Those that were read from the source as the sender has it now.
    unchanged: Unchanged,
    /// Written since the last flush began.
    written: Vec<Written>,
    receipt: Option<Receipt>,
    /// The failure since which it is not known what is on the disk.
    broken: Option<RemoteFailure>,
}

/// Chunks that are not what the map says.
#[derive(Debug, Default)]
struct Wrong {
    count: u64,
    first: Option<ChunkIndex>,
}

impl JournaledDisk {
    /// Opens file and map in the directory.
    pub(super) fn open(
        directory: &Path,
        spec: TargetDisk,
        chunk_bytes: u32,
    ) -> Result<Self, TransferError> {
        let path = disk_path(directory, spec.index);
        let map_path = path.with_extension("chunks");
        if !path.exists() && map_path.exists() {
            // A map without its disk remembers another one. It goes before the new disk comes, or a crash between would
            // leave both.
            std::fs::remove_file(&map_path)
                .and_then(|()| crate::disk::sync_parent(&map_path))
                .map_err(|error| TransferError::target("remove", &map_path, error))?;
        }
        let writer = TargetWriter::open(&path, spec.target_bytes)?;
        let opened = ChunkMap::open(&map_path, spec.source_bytes, chunk_bytes)?;
        Self::new(spec, chunk_bytes, writer, opened)
    }

    /// Of a file and a map that are open. What the map is not sure of is read again.
    pub(crate) fn new(
        spec: TargetDisk,
        chunk_bytes: u32,
        writer: TargetWriter,
        opened: Opened,
    ) -> Result<Self, TransferError> {
        if spec.target_bytes < spec.source_bytes {
            return Err(TransferError::Protocol(format!(
                "disk {} of the image has {} bytes, the source's has {}",
                spec.index, spec.target_bytes, spec.source_bytes
            )));
        }
        let state = State {
            durable: opened.known,
            unchanged: opened.unchanged,
            written: Vec::new(),
            receipt: None,
            broken: None,
        };
        let disk = Self {
            spec,
            chunk_bytes,
            writer,
            map: Mutex::new(opened.map),
            state: Mutex::new(state),
        };
        disk.verify_unsynced(&opened.unsure)?;
        Ok(disk)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder of this lock can panic")
    }

    fn map(&self) -> MutexGuard<'_, ChunkMap> {
        self.map.lock().expect("no holder of this lock can panic")
    }

    /// Number of chunks.
    pub(super) fn chunks(&self) -> u64 {
        self.spec.source_bytes.div_ceil(u64::from(self.chunk_bytes))
    }

    /// Bytes of the source's disk that are durably here.
    pub(super) fn durable_bytes(&self) -> u64 {
        self.state().durable.known_bytes()
    }

    /// Returns what is durably here of some chunks.
    pub(super) fn durable(&self, chunks: ChunkRange) -> io::Result<Vec<Chunk>> {
        let mut state = self.state();
        let chunks = chunks.iter();
        chunks.map(|chunk| state.durable.get(chunk)).collect()
    }

    /// A part of what is durably here, for the wire.
    pub(super) fn page(
        &self,
        first: ChunkIndex,
    ) -> Result<(Page, Option<ChunkIndex>), TransferError> {
        Page::of(self.spec.index, &mut self.state().durable, first)
            .map_err(|error| self.hashes_failed(error))
    }

    /// The hashes of a large disk lie in a file beside it.
    fn hashes_failed(&self, error: io::Error) -> TransferError {
        TransferError::target("keep the hashes of", self.writer.path(), error)
    }

    /// Returns the ranges of what is durably here that the source can't read, in order.
    pub(super) fn unreadable(&self) -> Vec<ByteRange> {
        self.state().durable.unreadable()
    }

    /// The proof that it is complete, as long as nothing has been written since.
    pub(super) fn receipt(&self) -> Option<Receipt> {
        self.state().receipt
    }

    /// Checks and writes one chunk.
    pub(super) fn write_chunk(&self, arriving: &Arriving<'_>) -> Result<(), TransferError> {
        let Arriving { chunk, bytes, .. } = *arriving;
        let index = self.spec.index;
        self.check_range(chunk.into())?;
        self.check_unreadable(chunk.into(), arriving.unreadable)?;
        let place = self.bytes_of(chunk.into());
        let offset = place.start;
        if bytes.len() as u64 != place.bytes() {
            return Err(TransferError::Protocol(format!(
                "chunk {chunk} of disk {index} has {} bytes",
                bytes.len()
            )));
        }
        if chunks::hashes::hash(bytes) != arriving.hash {
            return Err(TransferError::Corrupt {
                disk: index,
                what: format!("the chunk at byte {offset} is not what was sent"),
            });
        }
        self.forget(chunk.into())?;
        self.writer.write(offset, bytes)?;
        let hash = arriving.hash;
        self.wrote(Written::Data { chunk, hash }, arriving.unreadable);
        Ok(())
    }

    /// Makes chunks zeros. What the source can't read belongs to a range of one.
    pub(super) fn write_zeros(
        &self,
        chunks: ChunkRange,
        unreadable: &[ByteRange],
    ) -> Result<(), TransferError> {
        self.check_range(chunks)?;
        self.check_unreadable(chunks, unreadable)?;
        self.forget(chunks)?;
        self.writer.zero(self.bytes_of(chunks))?;
        self.wrote(Written::Zeros(chunks), unreadable);
        Ok(())
    }

    /// Notes that chunks were read again at the source, and are what is durably here.
    pub(super) fn same(&self, chunks: ChunkRange) -> Result<(), TransferError> {
        self.check_range(chunks)?;
        let mut state = self.state();
        let unknown = state
            .durable
            .runs(chunks)
            .find(|run| run.kind == RunKind::Unknown);
        if let Some(run) = unknown {
            return Err(TransferError::Protocol(format!(
                "chunk {} of disk {} is called the same and is not here",
                run.chunks.first, self.spec.index
            )));
        }
        state.written.push(Written::Same(chunks));
        Ok(())
    }

    /// Notes the fingerprint of the source that everything comes from that is written from here on. What was read from
    /// another is not known to be unchanged any more.
    pub(super) fn read_from(
        &self,
        fingerprint: Option<ContentFingerprint>,
    ) -> Result<(), TransferError> {
        if self.state().unchanged.fingerprint() == fingerprint {
            return Ok(());
        }
        self.record(&mut self.map(), &[Written::Fingerprint(fingerprint)])
    }

    /// The chunks that need not be read again as long as the source has its fingerprint.
    pub(super) fn unchanged(&self) -> Vec<ChunkRange> {
        self.state().unchanged.ranges().collect()
    }

    /// Notes what was written. What can't be read of it stands behind it, and so in the same record of the map.
    fn wrote(&self, what: Written, unreadable: &[ByteRange]) {
        let mut state = self.state();
        state.written.push(what);
        state
            .written
            .extend(unreadable.iter().map(|range| Written::Unreadable(*range)));
    }

    /// Checks that unreadable ranges lie in their one chunk, in order, and that the disk has not too many.
    fn check_unreadable(
        &self,
        chunks: ChunkRange,
        unreadable: &[ByteRange],
    ) -> Result<(), TransferError> {
        if unreadable.is_empty() {
            return Ok(());
        }
        let ByteRange { start, end } = self.bytes_of(chunks);
        let mut from = start;
        for range in unreadable {
            let is_in_order = from <= range.start && range.start < range.end && range.end <= end;
            if chunks.count != 1 || !is_in_order {
                return Err(TransferError::Protocol(format!(
                    "the bytes from {} to {} of disk {} are not in the chunk that they came with",
                    range.start, range.end, self.spec.index
                )));
            }
            from = range.end;
        }
        let state = self.state();
        let waiting = state
            .written
            .iter()
            .filter(|entry| matches!(entry, Written::Unreadable(_)));
        // Those of this chunk go.
        let replaced = state.durable.unreadable_within(chunks).count();
        let others = state.durable.unreadable_ranges() - replaced + waiting.count();
        if others + unreadable.len() > MOST_UNREADABLE_RANGES {
            return Err(super::stream::too_many(self.spec.index));
        }
        Ok(())
    }

    fn check_range(&self, chunks: ChunkRange) -> Result<(), TransferError> {
        if chunks.fits(self.chunks()) && !chunks.is_empty() {
            return Ok(());
        }
        Err(TransferError::Protocol(format!(
            "disk {} has no {} chunks at {}",
            self.spec.index, chunks.count, chunks.first
        )))
    }

    fn bytes_of(&self, chunks: ChunkRange) -> ByteRange {
        chunks.bytes(self.chunk_bytes, self.spec.source_bytes)
    }

    /// Before chunks are overwritten: durably forgets what the map says of them, and takes back the receipt.
    fn forget(&self, chunks: ChunkRange) -> Result<(), TransferError> {
        let known: Vec<Written> = {
            let mut state = self.state();
            state.receipt = None;
            let runs = state.durable.runs(chunks);
            runs.filter(|run| run.kind != RunKind::Unknown)
                .map(|run| Written::Forgotten(run.chunks))
                .collect()
        };
        if known.is_empty() {
            Ok(())
        } else {
            self.record(&mut self.map(), &known)
        }
    }

    /// Makes durable what has been written: the data, then the map.
    pub(super) fn flush(&self) -> Result<(), TransferError> {
        let mut map = self.map();
        // Taken before the data is synced: what is added meanwhile waits for the next flush.
        let written = {
            let mut state = self.state();
            if let Some(broken) = &state.broken {
                return Err(TransferError::Remote(broken.clone()));
            }
            std::mem::take(&mut state.written)
        };
        if written.is_empty() {
            return Ok(());
        }
        self.writer
            .flush()
            .inspect_err(|error| self.give_up(error))?;
        self.record(&mut map, &written)
    }

    fn record(&self, map: &mut ChunkMap, written: &[Written]) -> Result<(), TransferError> {
        if let Some(broken) = &self.state().broken {
            return Err(TransferError::Remote(broken.clone()));
        }
        map.append(written)
            .inspect_err(|error| self.give_up(error))?;
        let mut state = self.state();
        let State {
            durable, unchanged, ..
        } = &mut *state;
        let applied = written.iter().try_for_each(|entry| {
            unchanged.apply(entry);
            entry.apply(durable)
        });
        drop(state);
        applied
            .map_err(|error| self.hashes_failed(error))
            .inspect_err(|error| self.give_up(error))
    }

    /// A sync that fails may have thrown away what it was to save, and the next one would not say so: nothing is
    /// recorded any more.
    fn give_up(&self, error: &TransferError) {
        self.state().broken = Some(error.to_remote());
    }

    /// Says in the map that nothing is under way any more. What was written is flushed before.
    pub(super) fn close(&self) -> Result<(), TransferError> {
        self.map().close()
    }

    /// Compares the flushed disk with the root that the sender has found; with `checksum` only after it was read again.
    pub(super) fn conclude(
        &self,
        sent: &SentDisk,
        checksum: bool,
    ) -> Result<Receipt, TransferError> {
        let receipt = {
            let durable = &mut self.state().durable;
            let root = durable.root().map_err(|error| self.hashes_failed(error))?;
            Receipt::of(durable, root, sent)?
        };
        if checksum {
            self.read_again()?;
        }
        self.state().receipt = Some(receipt);
        Ok(receipt)
    }

    /// Compares the disk with its map. Chunks that differ are forgotten, so that the next transfer sends them.
    fn read_again(&self) -> Result<(), TransferError> {
        let wrong = Mutex::new(Wrong::default());
        self.writer
            .rehash(self.spec.source_bytes, self.chunk_bytes, &|found| {
                self.compare(&found, &wrong)
            })?;
        let wrong = wrong
            .into_inner()
            .expect("no holder of this lock can panic");
        let Some(first) = wrong.first else {
            return Ok(());
        };
        Err(TransferError::Corrupt {
            disk: self.spec.index,
            what: format!(
                "{} of {} chunks read back from the target are not what was written, the first at byte {}",
                wrong.count,
                self.chunks(),
                first.offset(self.chunk_bytes)
            ),
        })
    }

    /// Reads what the map is not sure of, and forgets what differs: it will be sent again.
    fn verify_unsynced(&self, unsure: &[ChunkRange]) -> Result<(), TransferError> {
        let wrong = Mutex::new(Wrong::default());
        self.writer.rehash_some(
            self.spec.source_bytes,
            self.chunk_bytes,
            unsure,
            UNSURE_BYTES,
            &|found| self.compare(&found, &wrong),
        )?;
        let wrong = wrong
            .into_inner()
            .expect("no holder of this lock can panic");
        if let Some(first) = wrong.first {
            tracing::warn!(
                disk = self.spec.index.0,
                chunks = wrong.count,
                first_byte = first.offset(self.chunk_bytes),
                "the target's disk did not keep what it said it had flushed; those chunks are sent again"
            );
        }
        Ok(())
    }

    /// Forgets what is known of chunks that are something else.
    fn compare(&self, found: &Found, wrong: &Mutex<Wrong>) -> Result<(), TransferError> {
        let mut differ = Vec::new();
        {
            let durable = &mut self.state().durable;
            let kind = RunKind::from(found.chunk);
            for run in durable.runs(found.chunks) {
                if run.kind != RunKind::Unknown && run.kind != kind {
                    differ.push(run.chunks);
                }
            }
            if kind == RunKind::Data && durable.kind(found.chunks.first) == kind {
                let known = durable.get(found.chunks.first);
                if known.map_err(|error| self.hashes_failed(error))? != found.chunk {
                    differ.push(found.chunks.first.into());
                }
            }
        }
        let forgotten: Vec<Written> = differ.iter().copied().map(Written::Forgotten).collect();
        if forgotten.is_empty() {
            return Ok(());
        }
        self.record(&mut self.map(), &forgotten)?;
        let mut wrong = wrong.lock().expect("no holder of this lock can panic");
        for chunks in differ {
            wrong.count += chunks.count;
            let first = wrong.first.unwrap_or(chunks.first);
            wrong.first = Some(first.min(chunks.first));
        }
        Ok(())
    }

    /// The disk's index.
    pub(super) fn index(&self) -> DiskIndex {
        self.spec.index
    }
}
