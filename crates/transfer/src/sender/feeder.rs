//! A feeder: the blocking half of one stream. Claims pieces, reads, hashes, compares, packs.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use domain::disk::DiskIndex;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{Compression, SendProgress};
use crate::TransferError;
use crate::disk::{AlignedBuffer, SourceReader};
use crate::hashes::{Chunk, ChunkHashes, hash, is_zero};
use crate::plan::{self, Claim, Cursor};
use crate::protocol::{Codec, Frame};

/// Level of zstd when the link is the bottleneck.
const AUTO_LEVEL: i32 = 1;

/// A packed chunk must save this much of itself to be sent packed.
const LEAST_GAIN: f64 = 0.03;

/// One disk of the transfer, as the feeders share it.
#[derive(Debug)]
pub(super) struct Disk {
    pub(super) index: DiskIndex,
    pub(super) reader: SourceReader,
    /// What the receiver had at the start.
    pub(super) present: ChunkHashes,
    /// What this side has found.
    pub(super) found: Mutex<ChunkHashes>,
}

/// What all feeders of a transfer share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) disks: Vec<Disk>,
    pub(super) cursor: Cursor,
    pub(super) compression: Compression,
    pub(super) counters: Counters,
    pub(super) cancel: CancellationToken,
}

/// Figures of a transfer, counted by feeders and writers.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) wire: AtomicU64,
    pub(super) payload: AtomicU64,
    pub(super) zero: AtomicU64,
    pub(super) equal: AtomicU64,
}

impl Counters {
    pub(super) fn add(counter: &AtomicU64, bytes: u64) {
        counter.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn copy_to(&self, progress: &mut SendProgress) {
        progress.bytes_wire = self.wire.load(Ordering::Relaxed);
        progress.bytes_payload = self.payload.load(Ordering::Relaxed);
        progress.bytes_zero = self.zero.load(Ordering::Relaxed);
        progress.bytes_equal = self.equal.load(Ordering::Relaxed);
    }
}

/// A frame ready for the wire: header, and payload if there is one.
pub(super) type Ready = (Frame, Bytes);

/// Runs until the cursor is empty, the queue is closed, or something fails.
pub(super) fn feed(shared: &Arc<Shared>, queue: &mpsc::Sender<Ready>) -> Result<(), TransferError> {
    let mut packer = Packer::new(shared.compression)?;
    let mut buffer = AlignedBuffer::new(0);
    while let Some(claim) = shared.cursor.claim() {
        match claim {
            Claim::Hole { disk, start, count } => feed_hole(shared, disk, start, count, queue),
            Claim::Read { disk, start, count } => {
                feed_chunks(shared, disk, start, count, &mut buffer, &mut packer, queue)?;
            }
        }
        if queue.is_closed() || shared.cancel.is_cancelled() {
            return Err(TransferError::Cancelled);
        }
    }
    Ok(())
}

fn feed_hole(shared: &Shared, disk: usize, start: u64, count: u64, queue: &mpsc::Sender<Ready>) {
    let disk = &shared.disks[disk];
    disk.found
        .lock()
        .expect("no holder of this lock can panic")
        .set_zero(start, count);
    let last = disk.present.length_of(start + count - 1);
    let chunk_bytes = u64::from(disk.present.chunk_bytes());
    Counters::add(
        &shared.counters.zero,
        (count - 1) * chunk_bytes + u64::from(last),
    );
    for (start, count) in plan::zeros_to_send(&disk.present, start, count) {
        // A closed queue ends the feeder at its next look.
        let _closed = queue.blocking_send((
            Frame::Zeros {
                disk: disk.index,
                start,
                count,
            },
            Bytes::new(),
        ));
    }
}

fn feed_chunks(
    shared: &Shared,
    disk: usize,
    start: u64,
    count: u64,
    buffer: &mut AlignedBuffer,
    packer: &mut Packer,
    queue: &mpsc::Sender<Ready>,
) -> Result<(), TransferError> {
    let disk = &shared.disks[disk];
    let chunk_bytes = disk.present.chunk_bytes();
    if buffer.as_mut_slice().len() < chunk_bytes as usize {
        *buffer = AlignedBuffer::new(chunk_bytes as usize);
    }
    for chunk in start..start + count {
        let length = disk.present.length_of(chunk);
        disk.reader
            .read(chunk * u64::from(chunk_bytes), length as usize, buffer)?;
        let bytes = &buffer.as_mut_slice()[..length as usize];
        let found = if is_zero(bytes) {
            Chunk::Zero
        } else {
            Chunk::Data(hash(bytes))
        };
        disk.found
            .lock()
            .expect("no holder of this lock can panic")
            .set(chunk, found);
        let ready = match found {
            _ if disk.present.get(chunk) == found => {
                Counters::add(&shared.counters.equal, u64::from(length));
                continue;
            }
            Chunk::Data(hash) => {
                Counters::add(&shared.counters.payload, u64::from(length));
                let (codec, payload) = packer.pack(bytes, queue);
                let stored_bytes =
                    u32::try_from(payload.len()).expect("a packed chunk is no larger than a chunk");
                (
                    Frame::Data {
                        disk: disk.index,
                        chunk,
                        hash,
                        codec,
                        stored_bytes,
                    },
                    payload,
                )
            }
            Chunk::Zero | Chunk::Unknown => {
                Counters::add(&shared.counters.zero, u64::from(length));
                (
                    Frame::Zeros {
                        disk: disk.index,
                        start: chunk,
                        count: 1,
                    },
                    Bytes::new(),
                )
            }
        };
        if queue.blocking_send(ready).is_err() {
            return Err(TransferError::Cancelled);
        }
    }
    Ok(())
}

struct Packer {
    compression: Compression,
    compressor: Option<zstd::bulk::Compressor<'static>>,
}

impl Packer {
    fn new(compression: Compression) -> Result<Self, TransferError> {
        let level = match compression {
            Compression::Off => None,
            Compression::Auto => Some(AUTO_LEVEL),
            Compression::Level(level) => Some(level),
        };
        let compressor = level
            .map(zstd::bulk::Compressor::new)
            .transpose()
            .map_err(|error| TransferError::Protocol(format!("zstd can't be used: {error}")))?;
        Ok(Self {
            compression,
            compressor,
        })
    }

    /// Packs a chunk if that pays. With [`Compression::Auto`] it pays only while the queue is full, which says that the link waits
    /// for nobody: then the processor's time is free.
    fn pack(&mut self, bytes: &[u8], queue: &mpsc::Sender<Ready>) -> (Codec, Bytes) {
        let link_is_slower = queue.capacity() == 0;
        if let Some(compressor) = &mut self.compressor
            && (self.compression != Compression::Auto || link_is_slower)
            && let Ok(packed) = compressor.compress(bytes)
            && (packed.len() as f64) < bytes.len() as f64 * (1.0 - LEAST_GAIN)
        {
            return (Codec::Zstd, packed.into());
        }
        (Codec::Raw, Bytes::copy_from_slice(bytes))
    }
}
