//! A producer: the half of one stream that blocks. Claims pieces, reads, hashes, compares, packs.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use chunks::buffer::{BufferPool, PooledBuffer};
use chunks::hashes::{Chunk, ChunkHashes, Hash, length_of};
use chunks::packing::{Codec, Packer, Sample};
use chunks::unreadable::MOST_UNREADABLE_RANGES;
use chunks::{ByteRange, ChunkIndex, ChunkRange};
use domain::disk::DiskIndex;
use source::SourceReader;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::compression_controller::{CompressionController, Processors, Sent};
use super::{Compression, SendProgress};
use crate::TransferError;
use crate::plan::{self, Candidates, Claim, Cursor};
use crate::protocol::{Frame, Page};

/// Of every so many chunks that are not packed, the first bytes of one are, to know what packing would give.
const SAMPLED: u32 = 8;
const SAMPLE: usize = 64 << 10;

/// The pass over one disk, which the producers share.
#[derive(Debug)]
pub(super) struct DiskPass {
    pub(super) index: DiskIndex,
    pub(super) reader: SourceReader,
    pub(super) size_bytes: u64,
    pub(super) chunk_bytes: u32,
    candidates: Candidates,
    /// True if the receiver wants to know of chunks that are what it has.
    is_tracked: bool,
    /// Chunks that were read since anything was written.
    unchanged: Vec<ChunkRange>,
    /// Of chunks that were looked at, what this side has found; of all others, what the receiver had at the start.
    known: Mutex<ChunkHashes>,
    /// Number of chunks that were inspected; the plan has each once.
    inspected: AtomicU64,
}

impl DiskPass {
    pub(super) fn new(
        index: DiskIndex,
        reader: SourceReader,
        is_tracked: bool,
        size_bytes: u64,
        chunk_bytes: u32,
        candidates: Candidates,
        scratch: &Path,
    ) -> Self {
        Self {
            candidates,
            is_tracked,
            unchanged: Vec::new(),
            index,
            reader,
            size_bytes,
            chunk_bytes,
            known: Mutex::new(ChunkHashes::spilling(size_bytes, chunk_bytes, scratch)),
            inspected: AtomicU64::new(0),
        }
    }

    /// Enters what the receiver has; `false` if it does not fit.
    pub(super) fn record_page(&self, page: &Page) -> Result<bool, TransferError> {
        page.record(&mut self.known())
            .map_err(TransferError::Scratch)
    }

    /// Enters what need not be read again.
    pub(super) fn add_unchanged(&mut self, chunks: Vec<ChunkRange>) {
        self.unchanged.extend(chunks);
    }

    fn known(&self) -> MutexGuard<'_, ChunkHashes> {
        self.known.lock().expect("no holder of this lock can panic")
    }

    /// Bytes that the receiver has, before the first chunk is looked at.
    pub(super) fn present_bytes(&self) -> u64 {
        self.known().known_bytes()
    }

    /// The chunks to look at. The others count as looked at: they are what the receiver has.
    pub(super) fn begin_pass(&self) -> Vec<ChunkRange> {
        let known = self.known();
        let to_inspect = self.candidates.to_inspect(&known, &self.unchanged);
        let chunks: u64 = to_inspect.iter().map(|range| range.count).sum();
        self.inspected
            .fetch_add(known.chunks() - chunks, Ordering::Relaxed);
        to_inspect
    }

    /// Bytes of ranges of chunks, of which the disk's last may be short.
    pub(super) fn bytes_of(&self, ranges: &[ChunkRange]) -> u64 {
        let bytes = |range: &ChunkRange| range.bytes(self.chunk_bytes, self.size_bytes).bytes();
        ranges.iter().map(bytes).sum()
    }

    /// Bytes of the chunks that claims have to be read for.
    pub(super) fn bytes_to_read(&self, claims: &[Claim]) -> u64 {
        let to_read: Vec<ChunkRange> = claims
            .iter()
            .filter_map(|claim| match claim {
                Claim::Read { chunks, .. } => Some(*chunks),
                Claim::Hole { .. } => None,
            })
            .collect();
        self.bytes_of(&to_read)
    }

    /// Notes what a chunk is, and what can't be read of it; `true` if that is what the receiver has.
    fn record(
        &self,
        chunk: ChunkIndex,
        found: Chunk,
        unreadable: &[ByteRange],
    ) -> Result<bool, TransferError> {
        let mut known = self.known();
        let is_present = known.get(chunk).map_err(TransferError::Scratch)? == found
            && known
                .unreadable_within(chunk.into())
                .eq(unreadable.iter().copied());
        known.set(chunk, found).map_err(TransferError::Scratch)?;
        for range in unreadable {
            known.add_unreadable(*range);
        }
        if known.unreadable_ranges() > MOST_UNREADABLE_RANGES {
            return Err(self.reader.fails_as_a_whole().into());
        }
        self.inspected.fetch_add(1, Ordering::Relaxed);
        Ok(is_present)
    }

    /// Notes a hole; answers with the parts of it that the receiver does not have.
    fn record_hole(&self, hole: ChunkRange) -> Vec<ChunkRange> {
        let mut known = self.known();
        let missing = plan::zeros_to_send(&known, hole);
        known.set_zero(hole);
        self.inspected.fetch_add(hole.count, Ordering::Relaxed);
        missing
    }

    /// The root, once every chunk was looked at.
    pub(super) fn root(&self) -> Result<Option<Hash>, TransferError> {
        let mut known = self.known();
        if self.inspected.load(Ordering::Relaxed) < known.chunks() {
            return Ok(None);
        }
        known.root().map_err(TransferError::Scratch)
    }

    fn length_of(&self, chunk: ChunkIndex) -> u32 {
        length_of(self.size_bytes, self.chunk_bytes, chunk)
    }
}

/// A pass over the disks of a transfer, which all its producers share.
#[derive(Debug)]
pub(super) struct Pass {
    pub(super) disks: Vec<DiskPass>,
    pub(super) compression: Compression,
    /// Asked when the level is the sender's choice.
    pub(super) controller: Mutex<(CompressionController, Processors)>,
    pub(super) began: Instant,
    pub(super) buffers: Arc<BufferPool>,
    pub(super) counters: Counters,
    pub(super) cancel: CancellationToken,
}

/// Figures of a transfer, counted by producers and writers.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) wire: AtomicU64,
    pub(super) payload: AtomicU64,
    pub(super) zero: AtomicU64,
    pub(super) equal: AtomicU64,
    /// A part of the zeros.
    pub(super) free: AtomicU64,
    pub(super) read: AtomicU64,
}

impl Counters {
    pub(super) fn add(counter: &AtomicU64, bytes: u64) {
        counter.fetch_add(bytes, Ordering::Relaxed);
    }

    fn moved(&self) -> u64 {
        [&self.wire, &self.payload, &self.zero, &self.equal]
            .iter()
            .map(|counter| counter.load(Ordering::Relaxed))
            .sum()
    }

    pub(super) fn copy_to(&self, progress: &mut SendProgress) {
        progress.bytes_wire = self.wire.load(Ordering::Relaxed);
        progress.bytes_payload = self.payload.load(Ordering::Relaxed);
        progress.bytes_zero = self.zero.load(Ordering::Relaxed);
        progress.bytes_free = self.free.load(Ordering::Relaxed);
        progress.bytes_read = self.read.load(Ordering::Relaxed);
        progress.bytes_equal = self.equal.load(Ordering::Relaxed);
    }
}

/// A chunk that went into the queue.
struct Queued {
    bytes: u64,
    packed_bytes: u64,
    sample: Option<Sample>,
    /// Time that the queue was full.
    waited: Duration,
}

impl Pass {
    /// Grows with whatever is done, and with whatever a disk says, be it that it can't read.
    pub(super) fn moved(&self) -> u64 {
        let answers = self.disks.iter().map(|disk| disk.reader.answers());
        self.counters.moved() + answers.sum::<u64>()
    }

    /// The level for the next chunk, after one that took so long in all.
    fn next_level(&self, now: Instant, took: Duration, queued: &Queued) -> Option<i32> {
        let mut controlling = self
            .controller
            .lock()
            .expect("no holder of this lock can panic");
        let (controller, processors) = &mut *controlling;
        let sent = Sent {
            bytes: queued.bytes,
            packed_bytes: queued.packed_bytes,
            sample: queued.sample,
            worked: took.saturating_sub(queued.waited),
            waited: queued.waited,
        };
        controller.note(now - self.began, &sent, || processors.idle_share())
    }
}

/// A frame ready for the wire: header, and payload if there is one.
pub(super) type Ready = (Frame, Bytes);

/// Runs until the cursor is empty, the queue is closed, or something fails.
pub(super) async fn produce(
    pass: Arc<Pass>,
    cursor: Arc<Cursor>,
    stream: usize,
    queue: mpsc::Sender<Ready>,
) -> Result<(), TransferError> {
    let mut packing = Packing::new(pass.compression);
    let mut last = Instant::now();
    while let Some(claim) = cursor.claim(stream) {
        match claim {
            Claim::Hole { disk, chunks } => {
                produce_hole(&pass, &pass.disks[disk], chunks, &queue).await?;
            }
            Claim::Read { disk, chunks } => {
                let disk = &pass.disks[disk];
                let mut same = Same::default();
                for chunk in chunks.iter() {
                    let produced = produce_chunk(&pass, disk, chunk, &mut packing, &queue).await?;
                    if let Some(ended) = same.note(chunk, matches!(produced, Produced::Same)) {
                        report_same(&pass, disk, ended, &queue).await?;
                    }
                    let now = Instant::now();
                    if let Produced::Data(queued) = produced
                        && pass.compression == Compression::Auto
                    {
                        packing.level = pass.next_level(now, now - last, &queued);
                    }
                    last = now;
                }
                if let Some(ended) = same.0 {
                    report_same(&pass, disk, ended, &queue).await?;
                }
            }
        }
    }
    Ok(())
}

async fn enqueue(
    pass: &Pass,
    queue: &mpsc::Sender<Ready>,
    ready: Ready,
) -> Result<(), TransferError> {
    if pass.cancel.is_cancelled() || queue.send(ready).await.is_err() {
        return Err(TransferError::Cancelled);
    }
    Ok(())
}

async fn produce_hole(
    pass: &Pass,
    disk: &DiskPass,
    hole: ChunkRange,
    queue: &mpsc::Sender<Ready>,
) -> Result<(), TransferError> {
    let missing = disk.record_hole(hole);
    Counters::add(&pass.counters.zero, disk.bytes_of(&[hole]));
    for chunks in missing {
        let disk = disk.index;
        enqueue(pass, queue, (Frame::Zeros { disk, chunks }, Bytes::new())).await?;
    }
    Ok(())
}

/// Tells the receiver, if it wants to know, that it has these chunks as they are.
async fn report_same(
    pass: &Pass,
    disk: &DiskPass,
    chunks: ChunkRange,
    queue: &mpsc::Sender<Ready>,
) -> Result<(), TransferError> {
    if !disk.is_tracked {
        return Ok(());
    }
    let disk = disk.index;
    let frame = Frame::Same { disk, chunks };
    enqueue(pass, queue, (frame, Bytes::new())).await
}

/// The chunks up to the last one that are what the receiver has.
#[derive(Default)]
struct Same(Option<ChunkRange>);

impl Same {
    /// Notes the next chunk; answers with the range that it ends.
    fn note(&mut self, chunk: ChunkIndex, is_same: bool) -> Option<ChunkRange> {
        if !is_same {
            return self.0.take();
        }
        let none = ChunkRange::new(chunk.0, 0);
        self.0.get_or_insert(none).count += 1;
        None
    }
}

/// The outcome of a chunk.
enum Produced {
    /// It is what the receiver has.
    Same,
    /// It was handed over, and is zeros: they weigh nothing, and say nothing of link or compression.
    Zeros,
    /// It was handed over.
    Data(Queued),
}

async fn produce_chunk(
    pass: &Pass,
    disk: &DiskPass,
    chunk: ChunkIndex,
    packing: &mut Packing,
    queue: &mpsc::Sender<Ready>,
) -> Result<Produced, TransferError> {
    if pass.cancel.is_cancelled() || queue.is_closed() {
        return Err(TransferError::Cancelled);
    }
    let length = disk.length_of(chunk);
    let mut buffer = pass.buffers.take(length as usize);
    let offset = chunk.offset(disk.chunk_bytes);
    let unreadable = disk.reader.read(offset, buffer.as_mut_slice())?;
    Counters::add(&pass.counters.read, u64::from(length));
    let found = Chunk::of(buffer.as_ref());
    if disk.record(chunk, found, &unreadable)? {
        Counters::add(&pass.counters.equal, u64::from(length));
        return Ok(Produced::Same);
    }
    let mut sample = None;
    let ready = match found {
        Chunk::Data(hash) => {
            Counters::add(&pass.counters.payload, u64::from(length));
            sample = packing.sample(buffer.as_ref());
            let (codec, payload) = packing.pack(buffer);
            let stored_bytes =
                u32::try_from(payload.len()).expect("a packed chunk is no larger than a chunk");
            let frame = Frame::Data {
                disk: disk.index,
                chunk,
                hash,
                codec,
                stored_bytes,
            };
            (frame, payload)
        }
        Chunk::Zero | Chunk::Unknown => {
            Counters::add(&pass.counters.zero, u64::from(length));
            let frame = Frame::Zeros {
                disk: disk.index,
                chunks: chunk.into(),
            };
            (frame, Bytes::new())
        }
    };
    let packed_bytes = ready.1.len() as u64;
    let waits = Instant::now();
    for range in unreadable {
        let disk = disk.index;
        enqueue(
            pass,
            queue,
            (Frame::Unreadable { disk, range }, Bytes::new()),
        )
        .await?;
    }
    enqueue(pass, queue, ready).await?;
    if packed_bytes == 0 {
        return Ok(Produced::Zeros);
    }
    Ok(Produced::Data(Queued {
        bytes: u64::from(length),
        packed_bytes,
        sample,
        waited: waits.elapsed(),
    }))
}

/// The packing of the chunks of one stream.
struct Packing {
    is_free: bool,
    chunks: u32,
    /// Of the next chunk.
    level: Option<i32>,
    packer: Packer,
}

impl Packing {
    fn new(compression: Compression) -> Self {
        let level = match compression {
            Compression::Off | Compression::Auto => None,
            Compression::Level(level) => Some(level),
        };
        Self {
            is_free: compression == Compression::Auto,
            chunks: 0,
            level,
            packer: Packer::default(),
        }
    }

    /// Now and then, while nothing is packed and the level is free: what packing the beginning of a chunk gives.
    fn sample(&mut self, bytes: &[u8]) -> Option<Sample> {
        self.chunks = self.chunks.wrapping_add(1);
        if !self.is_free || self.level.is_some() || !self.chunks.is_multiple_of(SAMPLED) {
            return None;
        }
        self.packer.sample(&bytes[..bytes.len().min(SAMPLE)])
    }

    /// Packs a chunk if it is to be packed and that pays.
    fn pack(&mut self, buffer: PooledBuffer) -> (Codec, Bytes) {
        self.level
            .and_then(|level| self.packer.pack(buffer.as_ref(), level))
            .unwrap_or_else(|| (Codec::Raw, Bytes::from_owner(buffer)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn buffer(bytes: &[u8]) -> PooledBuffer {
        let mut buffer = BufferPool::new(bytes.len(), 1).take(bytes.len());
        buffer.as_mut_slice().copy_from_slice(bytes);
        buffer
    }

    #[test]
    fn a_chunk_is_packed_when_that_pays() {
        let text = b"0123456789".repeat(5000);
        let mut noise = vec![0; 50_000];
        blake3::Hasher::new().finalize_xof().fill(&mut noise);
        let pack = |compression, bytes: &[u8]| Packing::new(compression).pack(buffer(bytes));
        assert_eq!(pack(Compression::Level(3), &text).0, Codec::Zstd);
        assert_eq!(
            pack(Compression::Level(3), &noise),
            (Codec::Raw, noise.clone().into())
        );
        assert_eq!(pack(Compression::Off, &text).0, Codec::Raw);
        let mut packing = Packing::new(Compression::Auto);
        assert_eq!(packing.pack(buffer(&text)).0, Codec::Raw);
        for level in [1, 9, 3, 19] {
            packing.level = Some(level);
            assert_eq!(packing.pack(buffer(&text)).0, Codec::Zstd);
            assert_eq!(packing.pack(buffer(&text)).0, Codec::ZstdContinued);
        }
    }
}
